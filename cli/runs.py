"""What ``nembp train`` and ``nembp gan`` have in common: their options, notes and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from nembp.runs.option_fields import OptionFields

from .options import GroupedOption, config_option, json_option
from .output import emit_json, emit_table, short_path
from .progress import Progress

__all__ = ["flags_given", "report_when_done", "run_folder_options", "status_rows"]

F = TypeVar("F", bound=Callable[..., Any])


def run_folder_options(kind: type[OptionFields], default: str) -> Callable[[F], F]:
    """Return what adds --out, --force, --config, --json and --quiet to a command.

    Parameters
    ----------
    kind : type
        Of the configuration that --config reads.
    default : str
        What the folder is called without --out.
    """
    options = (
        click.option(
            "--out",
            cls=GroupedOption,
            metavar="DIR",
            help=f"Folder of the run, new or empty.  [default: {default}]",
        ),
        click.option(
            "--force",
            cls=GroupedOption,
            is_flag=True,
            help="Replace the run in --out, if there is one.",
        ),
        config_option(kind),
        json_option,
        click.option("--quiet", cls=GroupedOption, is_flag=True, help="No progress, no notes."),
    )

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def flags_given(ctx: click.Context, names: Iterable[str]) -> str:
    """Write those of the options that stand on the command line; "" where none does."""
    return ", ".join(
        f"--{name.replace('_', '-')}"
        for name in names
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    )


def report_when_done(
    progress: Progress, rows: Callable[[dict[str, Any]], list[tuple[str, str]]], *, as_json: bool
) -> Callable[[dict[str, Any]], None]:
    """Return what prints a run's summary on stdout, as JSON or by ``rows``, below the progress."""

    def end(summary: dict[str, Any]) -> None:
        progress.__exit__()
        if as_json:
            emit_json(summary)
        else:
            emit_table(rows(summary))

    return end


def status_rows(summary: dict[str, Any], done: str) -> list[tuple[str, str]]:
    """Say how a run ended, what it did (``done``) and on what device, and where its files are."""
    rows = [(summary["status"], f"{done}, on {summary['device']}")]
    rows.append(("run", short_path(summary["run"])))
    if summary.get("picture"):
        rows.append(("picture", short_path(summary["picture"])))
    return rows
