"""The command line as tests call it, in this process."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner, Result
from nembp_cli.main import cli


def run(*args: object, **more: Any) -> Result:
    """Run ``nembp`` with these arguments."""
    return CliRunner(**more).invoke(cli, [str(arg) for arg in args], prog_name="nembp")


def fails(code: int, *args: object, **more: Any) -> str:
    """Run in vain: check the exit code, and return the one line that says what was wrong."""
    result = run(*args, **more)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("nembp: error: ")
    return lines[0]
