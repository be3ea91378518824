"""``nembp train``, and what ``nembp gan`` has in common with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from nembp.errors import ArchitectureError
from nembp.runs.config import RunConfig
from nembp.runs.options import Config, read_settings
from nembp.runs.options import Option as Declared

from .options import Option, command, options_of
from .output import (
    count,
    duration,
    emit,
    note,
    say,
    score_rows,
    score_text,
    short_path,
    terminate_as_interrupt,
)

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


def run_options(kind: type[Config], default: str) -> list[Option]:
    """Return --out, called ``default`` if left out, --force, --resume, --config and others.

    What --config reads of this kind ranks below the environment.
    """

    def load(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None and not ctx.resilient_parsing:
            ctx.default_map = dict(ctx.default_map or {}) | read_settings(value, kind, OWN_KEYS)

    return [
        Option("--out DIR", f"Folder of the run, new or empty.  [default: {default}]"),
        Option("--force", "Take the place of the run in --out, if there is one, at the end."),
        Option("--resume RUN", "Go on with the run in this folder from its last checkpoint, as if "
               f"nothing had stopped it. Its options stay as they are, but --{kind.length} may be "
               "raised, and --device, --threads and --data-dir be another machine's."),
        Option("--checkpoint-every SECONDS", "Write a checkpoint as often as this between two "
               "rows of the metrics.  [default: 60, or longer where that would take more than "
               "half a percent of the time]", OWN_KEYS["checkpoint_every"]),
        Option("--config FILE.toml", "Read options from here (keys are their names); flags and "
               "the environment override it. RUN/config.toml repeats a run.", is_eager=True,
               expose_value=False, callback=load),
        Option("--quiet", "No progress, no notes."),
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
        self.given = self.args.given(*self.kind.options())
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


# -- the command -----------------------------------------------------------------------------------
EXAMPLES = """\
  nembp train
  nembp train --layers 256,128 --backward none --seed 1
  nembp train --noise nem --noise-target both --noise-std 0.1
  nembp train --dataset mnist --data-dir data/mnist --json
  nembp train --dataset cifar10 --data-dir data/cifar10 --augment flips
  nembp train --dataset mnist --data-dir data/mnist --layers conv32x4s2,conv64x4s2,128
  nembp train --dataset csv --data-dir wine.csv --targets quality
  nembp train --config runs/a/config.toml --out runs/b
  nembp train --resume runs/a --epochs 50
"""
COLUMNS = {
    "forward/nll": "forward nll",
    "forward/accuracy": "accuracy",
    "forward/r2": "R²",
    "backward/nll": "backward nll",
    "backward/centroid_error": "centroid error",
    "noise/forward/accepted": "forward kept",
    "noise/forward/gain": "forward gain",
    "noise/backward/accepted": "backward kept",
    "noise/backward/gain": "backward gain",
}
IDLE = {"backward_weight": ("backward", "none")}


@command(
    *options_of(RunConfig),
    *run_options(RunConfig, "runs/<time>-<dataset>-seed<seed>"),
    epilog=SOURCES.format("TRAIN") + EXAMPLES,
)
def train(args: Any) -> None:
    """Train a bidirectional network and leave a run folder.

    Without options it learns scikit-learn's handwritten digits. The folder holds config.toml
    (repeats the run), metrics.jsonl (a row per epoch), model.npz, checkpoint.npz (for --resume),
    summary.json and, for classes, backward.png: the backward image of each class beside its
    centroid.
    """
    progress = Progress(args, RunConfig, _describe, COLUMNS, _report, IDLE)
    config = RunConfig(**progress.given)
    with progress.told("out", "force") as told:
        from nembp.runs.training import resume_run, train_run  # NumPy, which --help does without

        if args.resume is not None:
            resume_run(args.resume, progress.given, **told)
        else:
            train_run(config, args.out, force=args.force, **told)


def _report(summary: Row) -> Cells:
    rows = score_rows(summary)
    if not summary["backward_trained"]:
        mark = {"backward": "   (not trained)"}
        rows = [(direction, text + mark.get(direction, "")) for direction, text in rows]
    return rows


def _describe(plan: Row) -> tuple[str, str, str, str]:
    layers = "-".join(map(str, [plan["sizes"][0], *plan["layers"], plan["sizes"][-1]]))
    augment = "" if plan["augment"] == "none" else f" with {plan['augment'].replace(',', ' and ')}"
    what = f"{plan['classes']} classes" if plan["classes"] else f"{plan['sizes'][-1]} targets"
    backward = f"{plan['forward']} | {plan['backward']} (weight {plan['backward_weight']:g})"
    if plan["backward"] == "none":
        backward = "forward direction only"
    noise = (
        f"; {plan['noise']} noise on {plan['noise_target']}, std {plan['noise_std']:g} / "
        f"{plan['noise_clock']}^{plan['noise_decay']:g}"
    )
    return (
        f"{augment}, {what}",
        f"{layers} {plan['activation']}, {backward}",
        "" if plan["noise"] == "none" else noise,
        f", {plan['threads']} BLAS threads; scored on the {plan['scored_on']} split",
    )
