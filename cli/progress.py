"""What is told of a long work on stderr while it goes on, and what Ctrl-C means to it."""

from __future__ import annotations

import contextlib
import math
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

from nembp.errors import ArchitectureError
from nembp.runs.options import Config, read_settings
from nembp.runs.options import Option as Declared

from .options import Option, chosen
from .output import count, emit, note, number, plain, say, short_path

EVERY = 5.0  # seconds between lines of a state where there is no terminal
SHARES = ("high_quality", "precision", "recall", "judge_accuracy")
COUNTS = ("modes", "modes_strict", "classes", "classes_strict")
# the command line's own keys of a configuration file
OWN_KEYS = {
    "out": Declared("str"), "force": Declared("bool"), "json": Declared("bool"),
    "quiet": Declared("bool"), "checkpoint_every": Declared("float", within="> 0"),
}  # fmt: skip
SOURCES = """\
A flag beats its environment variable (NEMBP_{}_LEARNING_RATE for --learning-rate), which beats
the configuration file, which beats the default. A recipe chooses the defaults that depend on the
data; RUN/config.toml says what was used.

\b
Examples:
"""

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


# -- what `nembp train` and `nembp gan` have in common ---------------------------------------------
def run_options(kind: type[Config], default: str) -> list[Option]:
    """Return --out, called ``default`` if left out, --force, --resume, --config and others.

    What --config reads of this kind ranks below the environment.
    """

    def load(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None and not ctx.resilient_parsing:
            ctx.default_map = dict(ctx.default_map or {}) | read_settings(value, kind, OWN_KEYS)

    return [
        Option("--out", str, f"Folder of the run, new or empty.  [default: {default}]",
               metavar="DIR"),
        Option("--force", bool, "Take the place of the run in --out, if there is one, at the end."),
        Option("--resume", str, "Go on with the run in this folder from its last checkpoint, as if "
               f"nothing had stopped it. Its options stay as they are, but --{kind.length} may be "
               "raised, and --device, --threads and --data-dir be another machine's.",
               metavar="RUN"),
        Option("--checkpoint-every", OWN_KEYS["checkpoint_every"],
               "Write a checkpoint as often as this between two rows of the metrics.  [default: "
               "60, or longer where that would take more than half a percent of the time]",
               metavar="SECONDS"),
        Option("--config", str, "Read options from here (keys are their names); flags and the "
               "environment override it. RUN/config.toml repeats a run.", metavar="FILE.toml",
               is_eager=True, expose_value=False, callback=load),
        Option("--quiet", bool, "No progress, no notes."),
    ]  # fmt: skip


@dataclass
class Progress:
    """Tells of a training: plan, notes and a line per row on stderr, the summary on stdout."""

    args: Any
    kind: type[Config]
    describe: Callable[[Row], tuple[str, str, str, str]]  # data, networks, how, how it is scored
    columns: Mapping[str, str]  # of a row: keys, and what they are called
    report: Callable[[Row], Cells]  # the summary
    # options without effect, the one that decides it, and its values for which they have none
    idle: Mapping[str, tuple[str, ...]]
    total: int = 0

    def __post_init__(self) -> None:
        self.given = chosen(self.kind, self.args)
        self.unit = self.kind.length.removesuffix("s")
        self.ctx = click.get_current_context()

    @contextlib.contextmanager
    def told(self, *of_new: str) -> Iterator[dict[str, Any]]:
        """Give what a run takes (`nembp.runs.run.Told`); refuse what only a new run takes."""
        for name in of_new:
            if self.args.resume and vars(self.args)[name]:
                raise ArchitectureError(
                    f"--{name} is of a new run, and --resume goes on with one in its own folder; "
                    "leave one of them out"
                )
        with terminate_as_interrupt():
            yield {
                "on_start": self.start, "on_row": self.row, "on_end": self.end,
                "on_note": self.note, "checkpoint_every": self.args.checkpoint_every,
            }  # fmt: skip

    def note(self, text: str) -> None:
        """Say what is no error and no result."""
        if not self.args.quiet:
            note(text)

    def start(self, plan: Row) -> None:
        """Show what begins; of several seeds, the first tells what has no effect."""
        if not self.total and self.args.resume is None:
            self._note_idle(plan)
        self.total, self.first = plan[self.kind.length], plan["done"]
        self.began = time.perf_counter()
        data, networks, how, scored = self.describe(plan)
        if not self.args.quiet:
            say(
                f"{plan['dataset']}: {plan['training_samples']} samples of "
                f"{'x'.join(map(str, plan['shape']))}{data}; {networks}; {plan['optimizer']} "
                f"{plan['learning_rate']:g} {plan['schedule']}, batch {plan['batch_size']}, "
                f"{count(self.total, self.unit)}{how}; seed {plan['seed']}, {plan['dtype']} on "
                f"{plan['device']}{scored}"
            )

    def _note_idle(self, plan: Row) -> None:
        """Say which flags have no effect; a file may hold them, since config.toml is complete."""
        for name in self.ctx.params:
            field, *values = self.idle.get(name, ("noise", "none"))
            is_idle = (name in self.idle or name.startswith("noise_")) and plan[field] in values
            if is_idle and self.ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                flag, why = name.replace("_", "-"), f"--{field} is {plan[field]}"
                self.note(f"--{flag}: without effect on the training, since {why}")

    def row(self, row: Row) -> None:
        """Show the row of an epoch, or of what else the training counts."""
        if self.args.quiet:
            return
        done = row[self.unit]
        each = (time.perf_counter() - self.began) / (done - self.first)
        cells = [f"{self.unit} {f'{int(done)}/{self.total}':<7}"]
        for key, heading in self.columns.items():
            if key in row:
                cells.append(f"{heading} {score_text(key, row[key]):<7}")
        speed = next(key for key in row if key.endswith("_per_second"))
        form = ",.0f" if row[speed] >= 10 else ".2g"
        cells.append(f"{row[speed]:{form}} {speed.removesuffix('_per_second')}/s")
        say("  ".join([*cells, f"{duration(each * (self.total - done))} left"]))

    def end(self, summary: Row) -> None:
        """Print the summary: scores, how the run ended, on what device, and where its files are."""
        done = f"{count(summary[self.kind.length], self.unit)} in {summary['seconds']:.1f} s"
        done += " of training"
        if summary.get("samples_per_second"):
            done += f", {summary['samples_per_second']:,.0f} samples/s"
        state = (summary["status"], f"{done}, on {summary['device']}")
        paths = {name: summary.get(name) for name in ("run", "picture")}
        files = [(name, short_path(path)) for name, path in paths.items() if path]
        emit(self.args, summary, [*self.report(summary), state, *files])
