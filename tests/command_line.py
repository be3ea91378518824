"""The command line as tests call it: in this process, or in one that is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from click.testing import CliRunner, Result
from nembp_cli.main import cli


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
