"""What is told of a long work on stderr while it goes on, and what Ctrl-C means to it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from nembp.runs.options import Config

from .output import count, emit_json, emit_table, note, plain, say

EVERY = 5.0  # seconds between lines of a state where there is no terminal
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


@dataclass
class Progress:
    """Tells of a training: plan, notes and a line per row on stderr, the summary on stdout."""

    ctx: click.Context
    kind: type[Config]
    describe: Callable[[Row], tuple[str, str, str, str]]  # data, networks, how, how it is scored
    columns: Callable[[Row, int], Cells]  # of a row, and the number of all; the last: time left
    report: Callable[[Row], Cells]  # the summary
    # options without effect, the one that decides it, and its values for which they have none
    idle: Mapping[str, tuple[str, ...]]
    total: int = 0

    @property
    def told(self) -> dict[str, Any]:
        """What a run takes; see `nembp.runs.run.Told`."""
        every = self.ctx.params["checkpoint_every"]
        return {
            "on_start": self.start, "on_row": self.row, "on_end": self.end, "on_note": self.note,
            "checkpoint_every": every,
        }  # fmt: skip

    def note(self, text: str) -> None:
        """Say what is no error and no result."""
        if not self.ctx.params["quiet"]:
            note(text)

    def start(self, plan: Row) -> None:
        """Show what begins; of several seeds, the first tells what has no effect."""
        if not self.total and self.ctx.params["resume"] is None:
            self._note_idle(plan)
        self.total, self.first = plan[self.kind.length], plan["done"]
        self.began = time.perf_counter()
        data, networks, how, scored = self.describe(plan)
        if not self.ctx.params["quiet"]:
            say(
                f"{plan['dataset']}: {plan['training_samples']} samples of "
                f"{'x'.join(map(str, plan['shape']))}{data}; {networks}; {plan['optimizer']} "
                f"{plan['learning_rate']:g} {plan['schedule']}, batch {plan['batch_size']}, "
                f"{count(self.total, self.kind.length.removesuffix('s'))}{how}; seed "
                f"{plan['seed']}, {plan['dtype']} on {plan['device']}{scored}"
            )

    def _note_idle(self, plan: Row) -> None:
        """Say which flags have no effect; a file may hold them, since config.toml is complete."""
        for name in self.ctx.params:
            field, *values = self.idle.get(name, ("noise", "none"))
            source = self.ctx.get_parameter_source(name)
            if not (name in self.idle or name.startswith("noise_")) or plan[field] not in values:
                continue
            if source is ParameterSource.COMMANDLINE:
                flag = f"--{name.replace('_', '-')}"
                why = f"--{field} is {plan[field]}"
                self.note(f"{flag}: without effect on the training, since {why}")

    def row(self, row: Row) -> None:
        """Show the row of an epoch, or of what else the training counts."""
        done = row[self.kind.length.removesuffix("s")]
        each = (time.perf_counter() - self.began) / (done - self.first)
        cells = [*self.columns(row, self.total), ("left", duration(each * (self.total - done)))]
        if not self.ctx.params["quiet"]:
            say("  ".join(f"{text} {name}" if name in LAST else f"{name} {text:<7}"
                          for name, text in cells))  # fmt: skip

    def end(self, summary: Row) -> None:
        """Print the summary."""
        if self.ctx.params["as_json"]:
            emit_json(summary)
        else:
            emit_table(self.report(summary))
