"""Kill runs at random moments, and check what they leave: ``python tests/kills.py --kills 300``.

Whatever the moment: every model that is there can be read, a run with ``--force`` leaves a whole
model (the older run's or its own), the players of an adversarial run belong together, and the next
start removes what was half written.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nembp.checkpoints import load_model
from nembp.runs.gan import load_players

COMMANDS = {
    "dense": ["train", "--layers", "32", "--epochs", "200"],
    "noise": ["train", "--layers", "32", "--epochs", "200", "--noise", "nem"],
    "convolution": ["train", "--layers", "conv8x3,16", "--epochs", "100", "--limit", "200"],
    "gan": ["gan", "--samples", "2000", "--iterations", "4000", "--checkpoints", "200"],
}


def start(kind: str, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "nembp", *COMMANDS[kind], "--device", "cpu", "--quiet"]
    return subprocess.Popen(
        [*command, "--out", str(folder), *more], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(kind: str, folder: Path, *more: str) -> None:
    short = ["--epochs", "1"] if COMMANDS[kind][0] == "train" else ["--iterations", "8"]
    process = start(kind, folder, *short, *more)
    _, said = process.communicate()
    assert process.returncode == 0, said.decode()


def check(kind: str, folder: Path, *, whole: bool) -> bool:
    """Return whether a model is there; all that are there can be read."""
    models = list(folder.glob("*.npz"))
    for path in models:
        load_model(path)
    if whole:
        assert models, f"{folder} lost its model"
    if len(models) == 2:
        load_players(folder)
    return bool(models)


def kill_once(kind: str, folder: Path, choice: random.Random, *, force: bool) -> str:
    if force:
        finish(kind, folder)
    process = start(kind, folder, *(["--force"] if force else []))
    time.sleep(choice.uniform(0.3, 3.0))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = check(kind, folder, whole=force)
    finish(kind, folder, *(["--force"] if folder.exists() and any(folder.iterdir()) else []))
    left = list(folder.rglob(".nembp-*"))
    assert not left, f"left behind: {left}"
    check(kind, folder, whole=True)
    return "a model" if found else "no model yet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    choice = random.Random(options.seed)
    counts: dict[tuple[str, bool, str], int] = {}
    for _ in range(options.kills):
        kind, force = choice.choice(list(COMMANDS)), choice.random() < 0.5
        with tempfile.TemporaryDirectory() as place:
            left = kill_once(kind, Path(place, "run"), choice, force=force)
        counts[kind, force, left] = counts.get((kind, force, left), 0) + 1
    for (kind, force, left), count in sorted(counts.items()):
        print(f"{count:4} {kind}{' --force' if force else ''}: {left}")


if __name__ == "__main__":
    main()
