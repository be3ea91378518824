"""The option of commands that read several data sets: where each of them lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from .output import note

__all__ = ["data_dirs_option", "note_unread"]


def _read(ctx: click.Context, param: click.Parameter, entries: tuple[str, ...]) -> dict[str, str]:
    table = {}
    for entry in entries:
        name, sign, path = entry.partition("=")
        if not (name and sign and path):
            raise click.BadParameter(f"{entry!r} is not NAME=FOLDER, as in mnist=data/mnist")
        if not Path(path).exists():
            raise click.BadParameter(f"{path}: no such folder for {name}")
        table[name] = path
    return table


def note_unread(name: str, dirs: Mapping[str, str], datasets: Iterable[str]) -> None:
    """Say which data sets were told the place of in vain."""
    read = set(datasets)
    for unread in sorted(set(dirs) - read):
        note(f"--data-dir {unread}: without effect, since {name} reads {', '.join(sorted(read))}")


data_dirs_option = click.option(
    "--data-dir", "data_dirs", multiple=True, metavar="NAME=FOLDER", callback=_read,
    help="Where a data set lies, as in mnist=data/mnist; more than once for more than one.",
)  # fmt: skip
