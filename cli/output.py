"""What goes to stdout (results) and to stderr (everything else)."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from nembp.errors import OutputError
from nembp.runs.folder import to_json

BLOCK = 1000  # rows that are printed together
# control characters but for the line's end, and those that set the direction of text
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
HUGE = 1e9  # numbers from here on are written with an exponent


def plain(text: str) -> str:
    r"""Escape what would command a terminal, or turn its text about, in names that files give.

    >>> plain("a\x1b[31m\u202e"), plain("é")
    ('a\\x1b[31m\\u202e', 'é')
    """
    return UNSAFE.sub(lambda found: repr(found[0])[1:-1], text)


def say(line: str) -> None:
    """Print a line on stderr; a log that is full or gone ends no training."""
    with contextlib.suppress(OSError):
        click.echo(plain(line), err=True)


def note(text: str) -> None:
    """Say on stderr what is no error and no result."""
    say(f"nembp: {text}")


def emit(args: Any, facts: Mapping[str, Any], *shown: str | Iterable[Sequence[str]]) -> None:
    """Print the result of a command: with --json facts as one object, else lines and tables."""
    if args.json:
        _emit_json(facts)
        return
    for part in shown:
        if isinstance(part, str):
            click.echo(part)
        else:
            _emit_table(part)


def _emit_json(table: Mapping[str, Any]) -> None:
    """Print one line without NaN; values that are iterators are lists, printed as they come."""
    opened = "{"
    for key, value in table.items():
        click.echo(f"{opened}{_json(str(key))}: ", nl=False)
        opened = ", "
        if not isinstance(value, Iterator):
            click.echo(_json(value), nl=False)
            continue
        click.echo("[", nl=False)
        begun = ""
        while block := list(islice(value, BLOCK)):
            click.echo(begun + _json(block)[1:-1], nl=False)
            begun = ", "
        click.echo("]", nl=False)
    click.echo("}" if opened == ", " else "{}")


def _json(value: Any) -> str:
    text = to_json(value, encoding=sys.stdout.encoding or "utf-8")
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _emit_table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows in aligned columns; columns of numbers, under any heading, flush right.

    The first rows tell how wide the columns are: a long table is printed as it comes.
    """
    cleaned = ([plain(cell).replace("\n", "\\n") for cell in row] for row in rows)
    first = list(islice(cleaned, BLOCK))
    aligns = [
        f"{'>' if len(first) > 1 and all(map(_is_number, column[1:])) else '<'}"
        f"{max(map(len, column))}"
        for column in zip(*first, strict=True)
    ]
    for row in chain(first, cleaned):
        click.echo("  ".join(map(format, row, aligns)).rstrip())


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return False
    return True


def number(value: Any, digits: int = 4) -> str:
    """Write a score, "-" where it is not defined.

    >>> number(0.97306), number(97.8), number(12345.6), number(None), number(float("nan"))
    ('0.9731', '97.80', '12,346', '-', '-')
    >>> number(5e29)
    '5.000e+29'
    """
    if value is None or not math.isfinite(value):
        return "-"
    if abs(value) >= HUGE:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:#.{digits}g}"


def count(n: int, noun: str) -> str:
    """Write a number of things.

    >>> count(1, "epoch"), count(2000, "epoch")
    ('1 epoch', '2,000 epochs')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def score_rows(scores: dict[str, Any]) -> list[tuple[str, str]]:
    """Say in words what each direction scored."""
    words = {"accuracy": "accuracy", "r2": "R²", "centroid_error": "centroid error", "nll": "nll"}
    rows = []
    for direction in ("forward", "backward"):
        parts = [
            f"{name} {number(scores[f'{direction}/{key}'])}{' nats' if key == 'nll' else ''}"
            for key, name in words.items()
            if scores.get(f"{direction}/{key}") is not None
        ]
        if parts:
            rows.append((direction, "   ".join(parts)))
    return rows


def short_path(path: str | os.PathLike[str]) -> str:
    """Write a path relative to the working directory where that is shorter."""
    path, relative = os.fspath(path), os.path.relpath(path)
    return path if len(relative) >= len(path) or relative.startswith("..") else relative


def check_out(args: Any, *suffixes: str, name: str = "--out") -> None:
    """Find out before any work whether ``args.out`` can be written: its name, and what is there."""
    out = args.out
    if Path(out).suffix.lower() not in suffixes:
        one = "" if len(suffixes) == 1 else "one of "
        raise click.UsageError(f"{name} {out}: the name must end in {one}{', '.join(suffixes)}")
    if Path(out).exists() and not args.force:
        raise OutputError(f"{out}: exists; choose another {name}, or replace it with --force")
