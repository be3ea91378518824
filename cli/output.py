"""What goes to stdout (results) and to stderr (all else), and what Ctrl-C means to a long work."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click

from nembp.errors import OutputError
from nembp.runs.folder import to_json

BLOCK = 1000  # rows that are printed together
# control characters but for the line's end, and those that set the direction of text
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
EVERY = 5.0  # seconds between lines of a state where there is no terminal
SHARES = ("high_quality", "precision", "recall", "judge_accuracy")
COUNTS = ("modes", "modes_strict", "classes", "classes_strict")
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


def number(value: Any) -> str:
    """Write a score, "-" where it is not defined.

    >>> number(0.97306), number(97.8), number(12345.6), number(None), number(float("nan"))
    ('0.9731', '97.80', '12,346', '-', '-')
    >>> number(5e29)
    '5.000e+29'
    """
    if value is None or not math.isfinite(value):
        return "-"
    if abs(value) >= HUGE:
        return f"{value:.3e}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:#.4g}"


def score_text(key: str, value: float) -> str:
    """Write a score as its kind is written.

    >>> score_text("high_quality", 0.8234), score_text("modes", 24.6), score_text("modes", 8.0)
    ('82.3 %', '24.60', '8')
    """
    if (key in SHARES or key.endswith("/accepted")) and not math.isnan(value):
        return f"{100 * value:.1f} %"
    if key in COUNTS and float(value).is_integer():
        return f"{value:,.0f}"
    return number(value)


def count(n: int, noun: str) -> str:
    """Write a number of things.

    >>> count(1, "epoch"), count(2000, "epoch")
    ('1 epoch', '2,000 epochs')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def duration(seconds: float) -> str:
    """Write a time as people read it.

    >>> duration(5.4), duration(150), duration(7300)
    ('5 s', '2 min 30 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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


# -- long works ------------------------------------------------------------------------------------
@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, as a job scheduler sends it, like Ctrl-C: what was trained is saved.

    So is a terminal's end (SIGHUP), unless it is ignored, as under nohup.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):  # Windows has one
            number = getattr(signal, name, None)
            if number and (name == "SIGTERM" or signal.getsignal(number) is signal.SIG_DFL):
                before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def status(*, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """Give what tells the state of a work: in place on a terminal, else a line now and then."""
    live = not quiet and sys.stderr is not None and sys.stderr.isatty()
    said = [time.monotonic()]

    def tell(text: str, *, stays: bool = False) -> None:
        if live:
            with contextlib.suppress(OSError):  # a terminal that is gone
                width = None if stays else shutil.get_terminal_size().columns - 1
                click.echo(f"\r\x1b[K{plain(text)[:width]}", err=True, nl=stays)
        elif not quiet and (stays or time.monotonic() - said[0] >= EVERY):
            said[0] = time.monotonic()
            say(text)

    try:
        yield tell
    finally:
        if live:
            tell("")
