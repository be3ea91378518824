"""The course of a training on stderr: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from .output import note, number, on_terminal, say

__all__ = [
    "Course",
    "LiveProgress",
    "PlainProgress",
    "Progress",
    "columns",
    "describe",
    "duration",
    "fitting",
    "progress_for",
]

SHOWN = 12  # rows in the live table
GAP = 2  # blanks between its columns
LAST = ("samples/s", "iterations/s", "left")  # columns that read number first


@dataclass(frozen=True)
class Course:
    """How a training is told: what its rows count, and the words for plan and row.

    Parameters
    ----------
    noun : str
        What a row counts: its key in rows, and in the plural in the plan.
    describe : callable
        Says in one line what is about to be trained.
    columns : callable
        Returns the heading and value of each column, from a row, the total and the seconds left.
    """

    noun: str
    describe: Callable[[dict[str, Any]], str]
    columns: Callable[[dict[str, Any], int, float], list[tuple[str, str]]]


def describe(plan: dict[str, Any]) -> str:
    """Say in one line what is about to be trained."""
    shape = "x".join(map(str, plan["shape"]))
    layers = "-".join(map(str, [plan["sizes"][0], *plan["layers"], plan["sizes"][-1]]))
    augment = "" if plan["augment"] == "none" else f" with {plan['augment'].replace(',', ' and ')}"
    what = f"{plan['classes']} classes" if plan["classes"] else f"{plan['sizes'][-1]} targets"
    backward = (
        "forward direction only"
        if plan["backward"] == "none"
        else f"{plan['forward']} | {plan['backward']} (weight {plan['backward_weight']:g})"
    )
    noise = ""
    if plan["noise"] != "none":
        noise = (
            f"; {plan['noise']} noise on {plan['noise_target']}, std {plan['noise_std']:g} / "
            f"{plan['noise_clock']}^{plan['noise_decay']:g}"
        )
    threads = f", {plan['threads']} BLAS threads" if plan.get("threads") else ""
    return (
        f"{plan['dataset']}: {plan['training_samples']} samples of {shape}{augment}, {what}; "
        f"{layers} {plan['activation']}, {backward}; "
        f"{plan['optimizer']} {plan['learning_rate']:g} {plan['schedule']}, batch "
        f"{plan['batch_size']}, {plan['epochs']} epochs{noise}; seed {plan['seed']}, "
        f"{plan['dtype']} on {plan['device']}{threads}; scored on the {plan['scored_on']} split"
    )


def columns(row: dict[str, Any], epochs: int, left: float) -> list[tuple[str, str]]:
    """Return the heading and value of each column of an epoch's row."""
    shown = [("epoch", f"{int(row['epoch'])}/{epochs}")]
    for key, heading in (
        ("forward/nll", "forward nll"),
        ("forward/accuracy", "accuracy"),
        ("forward/r2", "R²"),
        ("backward/nll", "backward nll"),
        ("backward/centroid_error", "centroid error"),
    ):
        if key in row:
            shown.append((heading, number(row[key])))
    for direction in ("forward", "backward"):
        if f"noise/{direction}/accepted" in row:
            shown.append((f"{direction} kept", f"{row[f'noise/{direction}/accepted']:.1%}"))
            shown.append((f"{direction} gain", number(row[f"noise/{direction}/gain"], 3)))
    shown.append(("samples/s", f"{row['samples_per_second']:,.0f}"))
    shown.append(("left", duration(left)))
    return shown


EPOCHS = Course("epoch", describe, columns)


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


class Progress:
    """Prints nothing; what ``--quiet`` gets. Use it as a context."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def note(self, text: str) -> None:
        """Say what is no error and no result."""

    def start(self, plan: dict[str, Any]) -> None:
        """Show what begins."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Show the row of an epoch, or of what else the training counts."""


class PlainProgress(Progress):
    """One line a row, for pipes and log files."""

    def __init__(self, course: Course = EPOCHS) -> None:
        self.course = course

    def note(self, text: str) -> None:
        note(text)

    def start(self, plan: dict[str, Any]) -> None:
        self.total, self.began = plan[f"{self.course.noun}s"], time.perf_counter()
        say(self.course.describe(plan))

    def left(self, row: dict[str, Any]) -> float:
        """Estimate the seconds to the end."""
        done = row[self.course.noun]
        return float((time.perf_counter() - self.began) / done * (self.total - done))

    def epoch(self, row: dict[str, Any]) -> None:
        cells = self.course.columns(row, self.total, self.left(row))
        line = "  ".join(
            f"{text} {name}" if name in LAST else f"{name} {text:<7}" for name, text in cells
        )
        say(line)


def fitting(rows: Collection[Sequence[tuple[str, str]]], width: int) -> int:
    """Return how many columns of rows of (heading, value) fit a terminal, at least one.

    Headings break at spaces; a number that is cut short tells nothing.

    >>> row = [("epoch", "10/10"), ("forward nll", "0.1234"), ("samples/s", "99,999")]
    >>> fitting([row], 80), fitting([row], 20), fitting([row], 4)
    (3, 2, 1)
    """
    used = -GAP
    for shown, column in enumerate(zip(*rows, strict=True)):
        words = [word for name, _ in column for word in name.split()]
        used += GAP + max(map(len, [*words, *(text for _, text in column)]))
        if used > width:
            return max(shown, 1)
    return len(next(iter(rows), ()))


class LiveProgress(PlainProgress):
    """The last epochs in a table that stays in place, over a bar, on a terminal."""

    def __init__(self, course: Course = EPOCHS) -> None:
        super().__init__(course)
        from rich.console import Console
        from rich.live import Live

        self.console = Console(stderr=True, highlight=False)
        self.rows: deque[list[tuple[str, str]]] = deque(
            maxlen=max(1, min(SHOWN, self.console.height - 8))
        )
        self.live = Live(console=self.console, refresh_per_second=4)

    def _bars(self) -> Any:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        return Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=self.console,
        )  # fmt: skip

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # here and below: a terminal that is gone
            if self.live.is_started:
                self.live.stop()

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self.console.print(f"nembp: {text}", markup=False)

    def start(self, plan: dict[str, Any]) -> None:
        noun = self.course.noun
        self.total, self.began = plan[f"{noun}s"], time.perf_counter()
        self.rows.clear()
        self.bars = self._bars()
        self.task = self.bars.add_task(f"{noun} 1", total=self.total, left="")
        with contextlib.suppress(OSError):
            self.console.print(self.course.describe(plan), markup=False)
            self.live.start()
            self._show()

    def epoch(self, row: dict[str, Any]) -> None:
        left = self.left(row)
        noun = self.course.noun
        self.rows.append(self.course.columns(row, self.total, left)[:-1])
        done = int(row[noun])
        self.bars.update(
            self.task,
            completed=done,
            description=f"{noun} {min(done + 1, self.total)}",
            left=f"{duration(left)} left" if done < self.total else "",
        )
        with contextlib.suppress(OSError):
            self._show()

    def _show(self) -> None:
        from rich.console import Group
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        shown = fitting(self.rows, self.console.width)
        for name, _ in self.rows[-1][:shown] if self.rows else []:
            table.add_column(name, justify="right", no_wrap=shown == 1)
        for row in self.rows:
            table.add_row(*(text for _, text in row[:shown]))
        self.live.update(Group(table, self.bars) if self.rows else self.bars)


def progress_for(*, quiet: bool, course: Course = EPOCHS) -> Progress:
    """Return the display that fits stderr."""
    if quiet:
        return Progress()
    return LiveProgress(course) if on_terminal() else PlainProgress(course)
