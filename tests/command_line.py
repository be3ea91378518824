"""The command line as tests call it, here or in a process of its own, and what a run leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result
from nembp_cli.main import cli

from nembp.checkpoints import load_model

TIMES = ("seconds", "samples_per_second", "iterations_per_second")


def run(*args: object, **more: Any) -> Result:
    """Run ``nembp`` with these arguments."""
    return CliRunner(**more).invoke(cli, [str(arg) for arg in args], prog_name="nembp")


def works(*args: object, **more: Any) -> Result:
    """Run, and check that all went well."""
    result = run(*args, **more)
    assert result.exit_code == 0, result.output
    return result


def as_json(*args: object, **more: Any) -> Any:
    """Run with --json, and return what was printed."""
    return json.loads(works(*args, "--json", **more).stdout)


def fails(code: int, *args: object, **more: Any) -> str:
    """Run in vain: check the exit code, and return the one line that says what was wrong."""
    result = run(*args, **more)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("nembp: error: ")
    return lines[0]


def interrupted(number: signal.Signals, after: str, *args: str) -> tuple[str, str]:
    """Run in a process that gets a signal after it told a line that begins so.

    Returns what it wrote on stdout, and on stderr after that line.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "nembp", *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a shell's background jobs, and their children, ignore SIGINT; those of nohup SIGHUP
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(after):
            break
    process.send_signal(number)
    out, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    return out, rest


# -- what a run leaves -----------------------------------------------------------------------------
def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: row[key] for key in row if key not in TIMES} for row in rows]


def rows(folder: Path | str) -> list[dict[str, Any]]:
    """Return the rows of the metrics, without times."""
    lines = Path(folder, "metrics.jsonl").read_text().splitlines()
    return timeless([json.loads(line) for line in lines])


def summary(folder: Path | str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "summary.json").read_text())
    return found


def parameters(folder: Path | str, name: str = "model.npz") -> np.ndarray[Any, Any]:
    return load_model(Path(folder, name)).net.parameters
