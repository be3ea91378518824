"""Progress of a training on stderr: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from .output import emit_json, emit_table, note, on_terminal, plain, say

SHOWN = 12  # rows in the live table
GAP = 2  # blanks between its columns
LAST = ("samples/s", "iterations/s", "left")  # columns that read number first

Cells = list[tuple[str, str]]  # heading and value of each column
Row = dict[str, Any]


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


class Progress:
    """One line a row on stderr, for pipes and log files, or nothing. A context.

    ``noun`` is what a row counts: its key in rows, and in the plural in the plan; ``describe``
    says in one line what is about to be trained, and ``columns`` returns the cells of a row but
    the last, the time left, from a row and the total.
    """

    def __init__(
        self,
        noun: str,
        describe: Callable[[Row], str],
        columns: Callable[[Row, int], Cells],
        *,
        quiet: bool = False,
    ) -> None:
        self.noun, self.describe, self.columns, self.quiet = noun, describe, columns, quiet

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        """End the display; again does nothing."""

    def note(self, text: str) -> None:
        """Say what is no error and no result."""
        if not self.quiet:
            note(text)

    def start(self, plan: Row) -> None:
        """Show what begins."""
        self._begin(plan)
        if not self.quiet:
            say(self.describe(plan))

    def _begin(self, plan: Row) -> None:
        self.total, self.began = plan[f"{self.noun}s"], time.perf_counter()
        self.first = plan.get("done", 0)  # of a run that is gone on with

    def left(self, row: Row) -> str:
        """Estimate the time to the end."""
        done = row[self.noun]
        each = (time.perf_counter() - self.began) / (done - self.first)
        return duration(each * (self.total - done))

    def row(self, row: Row) -> None:
        """Show the row of an epoch, or of what else the training counts."""
        cells = [*self.columns(row, self.total), ("left", self.left(row))]
        if not self.quiet:
            say("  ".join(f"{text} {name}" if name in LAST else f"{name} {text:<7}"
                          for name, text in cells))  # fmt: skip

    def report(self, rows: Callable[[Row], Cells], *, as_json: bool) -> Callable[[Row], None]:
        """Return what prints a run's summary on stdout, as JSON or by ``rows``, at its end."""

        def end(summary: Row) -> None:
            self.__exit__()
            if as_json:
                emit_json(summary)
            else:
                emit_table(rows(summary))

        return end


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


class LiveProgress(Progress):
    """The last rows in a table that stays in place, over a bar, on a terminal."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        from rich.console import Console
        from rich.live import Live

        self.console = Console(stderr=True, highlight=False)
        self.rows: deque[Cells] = deque(maxlen=max(1, min(SHOWN, self.console.height - 8)))
        self.live = Live(console=self.console, refresh_per_second=4)

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # here and below: a terminal that is gone
            if self.live.is_started:
                self.live.stop()

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self.console.print(plain(f"nembp: {text}"), markup=False)

    def start(self, plan: Row) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._begin(plan)
        self.rows.clear()
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=self.console,
        )  # fmt: skip
        self.task = self.bars.add_task(f"{self.noun} 1", total=self.total, left="")
        with contextlib.suppress(OSError):
            self.console.print(plain(self.describe(plan)), markup=False)
            self.live.start()
            self._show()

    def row(self, row: Row) -> None:
        self.rows.append(self.columns(row, self.total))
        done = int(row[self.noun])
        self.bars.update(
            self.task,
            completed=done,
            description=f"{self.noun} {min(done + 1, self.total)}",
            left=f"{self.left(row)} left" if done < self.total else "",
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


def progress_for(quiet: bool, *told: Any) -> Progress:
    """Return the display that fits stderr, told as `Progress` takes it."""
    if quiet or not on_terminal():
        return Progress(*told, quiet=quiet)
    return LiveProgress(*told)
