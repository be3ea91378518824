"""``nembp train``."""

from __future__ import annotations

from typing import Any

import click

from nembp.runs import RunConfig
from nembp.runs.config import options

from .interrupts import terminate_as_interrupt
from .options import GroupedCommand, run_options
from .output import count, score_rows
from .progress import Progress, progress_for
from .runs import flags_given, report_when_done, run_folder_options, status_rows

__all__ = ["train"]

EPILOG = """\
A flag beats its environment variable (NEMBP_TRAIN_LEARNING_RATE for --learning-rate), which beats
the configuration file, which beats the default. A recipe chooses the defaults that depend on the
data; RUN/config.toml says what was used.

\b
Examples:
  nembp train
  nembp train --layers 256,128 --backward none --seed 1
  nembp train --noise nem --noise-target both --noise-std 0.1
  nembp train --dataset mnist --data-dir data/mnist --json
  nembp train --dataset cifar10 --data-dir data/cifar10 --augment flips
  nembp train --dataset mnist --data-dir data/mnist --layers conv32x4s2,conv64x4s2,128
  nembp train --dataset csv --data-dir wine.csv --targets quality
  nembp train --config runs/a/config.toml --out runs/b
"""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@run_options
@run_folder_options(RunConfig, "runs/<time>-<dataset>-seed<seed>")
@click.pass_context
def train(
    ctx: click.Context,
    /,
    out: str | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a bidirectional network and leave a run folder.

    Without options it learns scikit-learn's handwritten digits. The folder holds config.toml
    (repeats the run), metrics.jsonl (a row an epoch), model.npz, summary.json and, for classes,
    backward.png: the backward image of each class beside its centroid.
    """
    config = RunConfig(**{name: value for name, value in settings.items() if value is not None})
    with progress_for(quiet=quiet) as progress, terminate_as_interrupt():
        _note_unused(ctx, config, progress)

        from nembp.runs.training import train_run  # NumPy, which --help does without

        train_run(
            config,
            out,
            force=force,
            on_start=progress.start,
            on_epoch=progress.epoch,
            on_end=report_when_done(progress, _report, as_json=as_json),
            on_note=progress.note,
        )


def _report(summary: dict[str, Any]) -> list[tuple[str, str]]:
    rows = score_rows(summary)
    if rows and not summary["backward_trained"]:
        rows = [(name, f"{text}   (not trained)" if name == "backward" else text)
                for name, text in rows]  # fmt: skip
    speed = summary["samples_per_second"]
    done = f"{count(summary['epochs'], 'epoch')} in {summary['seconds']:.1f} s of training"
    return rows + status_rows(summary, done + (f", {speed:,.0f} samples/s" if speed else ""))


def _note_unused(ctx: click.Context, config: RunConfig, progress: Progress) -> None:
    """Say which flags have no effect; a file may hold them, since config.toml is complete."""

    def flags(prefix: str) -> str:
        return flags_given(ctx, (name for name in options() if name.startswith(prefix)))

    if config.noise in (None, "none") and (unused := flags("noise_")):
        progress.note(f"{unused}: without effect, since --noise is none")
    if config.backward == "none" and (unused := flags("backward_")):
        progress.note(f"{unused}: only scales the reported nll, since --backward is none")
