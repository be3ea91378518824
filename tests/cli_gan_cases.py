"""Short runs of nembp gan."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import run

FILES = {
    "config.toml", "metrics.jsonl", "generator.npz", "discriminator.npz", "summary.json",
    "samples.png", "training.gif",
}  # fmt: skip
SHORT = [
    "--samples", "500", "--iterations", "40", "--checkpoints", "4", "--averaged", "2",
    "--latent", "2", "--generator", "16", "--discriminator", "16", "--device", "cpu",
]  # fmt: skip


def gan(*args: object, env: dict[str, str] | None = None):
    result = run("gan", *args, env=env)
    assert result.exit_code == 0, result.output
    return result


def rows(folder: str = "a") -> list[dict]:
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
