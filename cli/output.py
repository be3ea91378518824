"""What goes to stdout (results) and to stderr (everything else)."""

from __future__ import annotations

import contextlib
import csv
import io
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
from nembp.files import replacing
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


def emit_json(table: Mapping[str, Any]) -> None:
    """Print one JSON object on one line, without NaN.

    Values that are iterators are lists, printed as they come.
    """
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


def emit_table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows in aligned columns; columns of numbers, under any heading, flush right.

    The first rows tell how wide the columns are: a long table is printed as it comes.
    """
    cleaned = ([plain(cell).replace("\n", "\\n") for cell in row] for row in rows)
    first = list(islice(cleaned, BLOCK))
    widths = [max(map(len, column)) for column in zip(*first, strict=True)]
    numeric = [
        len(first) > 1 and all(map(_is_number, column)) for column in zip(*first[1:], strict=True)
    ]
    for row in chain(first, cleaned):
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric or [False] * len(row), strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


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
    rows = []
    for direction in ("forward", "backward"):
        parts = [
            f"{words} {number(scores[key])}{unit}"
            for key, words, unit in (
                (f"{direction}/accuracy", "accuracy", ""),
                (f"{direction}/r2", "R²", ""),
                (f"{direction}/centroid_error", "centroid error", ""),
                (f"{direction}/nll", "nll", " nats"),
            )
            if scores.get(key) is not None
        ]
        if parts:
            rows.append((direction, "   ".join(parts)))
    return rows


def status_rows(summary: dict[str, Any], done: str) -> list[tuple[str, str]]:
    """Say how a run ended, what it did (``done``) and on what device, and where its files are."""
    rows = [(summary["status"], f"{done}, on {summary['device']}")]
    rows.append(("run", short_path(summary["run"])))
    if summary.get("picture"):
        rows.append(("picture", short_path(summary["picture"])))
    return rows


def short_path(path: str) -> str:
    """Write a path relative to the working directory where that is shorter."""
    relative = os.path.relpath(path)
    return path if len(relative) >= len(path) or relative.startswith("..") else relative


def check_out(out: str, suffixes: Sequence[str], *, force: bool, name: str = "--out") -> None:
    """Find out before any work whether a file can be written: its name, and what is there."""
    if Path(out).suffix.lower() not in suffixes:
        one = "" if len(suffixes) == 1 else "one of "
        raise click.UsageError(f"{name} {out}: the name must end in {one}{', '.join(suffixes)}")
    if Path(out).exists() and not force:
        raise OutputError(f"{out}: exists; choose another {name}, or replace it with --force")


def write_csv(out: str, rows: Iterable[list[str]]) -> None:
    """Write a heading and rows as a table of text, as they come."""
    written = -1
    with replacing(out) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        table = csv.writer(text, lineterminator="\n")
        for row in rows:
            table.writerow(row)
            written += 1
        text.detach()
    note(f"wrote {out}: {count(written, 'row')}")
