"""``nembp train``."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from nembp.runs import RunConfig
from nembp.runs.config import options

from .interrupts import terminate_as_interrupt
from .options import GroupedCommand, GroupedOption, config_option, json_option, run_options
from .output import count, emit_json, emit_table, score_rows, short_path
from .progress import Progress, progress_for

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
@click.option(
    "--out",
    cls=GroupedOption,
    metavar="DIR",
    help="Folder of the run, new or empty.  [default: runs/<time>-<dataset>-seed<seed>]",
)
@click.option(
    "--force", cls=GroupedOption, is_flag=True, help="Replace the run in --out, if there is one."
)
@config_option
@json_option
@click.option("--quiet", cls=GroupedOption, is_flag=True, help="No progress, no notes.")
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

        def end(summary: dict[str, Any]) -> None:
            progress.__exit__()
            if as_json:
                emit_json(summary)
            else:
                _report(summary)

        from nembp.runs.training import train_run  # NumPy, which --help does without

        train_run(
            config,
            out,
            force=force,
            on_start=progress.start,
            on_epoch=progress.epoch,
            on_end=end,
            on_note=progress.note,
        )


def _report(summary: dict[str, Any]) -> None:
    rows = score_rows(summary)
    if rows and not summary["backward_trained"]:
        rows = [(name, f"{text}   (not trained)" if name == "backward" else text)
                for name, text in rows]  # fmt: skip
    speed = summary["samples_per_second"]
    rows.append(
        (
            summary["status"],
            f"{count(summary['epochs'], 'epoch')} in {summary['seconds']:.1f} s of training"
            + (f", {speed:,.0f} samples/s" if speed else "")
            + f", on {summary['device']}",
        )
    )
    rows.append(("run", short_path(summary["run"])))
    if summary["picture"]:
        rows.append(("picture", short_path(summary["picture"])))
    emit_table(rows)


def _note_unused(ctx: click.Context, config: RunConfig, progress: Progress) -> None:
    """Say which flags have no effect; a file may hold them, since config.toml is complete."""

    def flags(prefix: str) -> str:
        return ", ".join(
            f"--{name.replace('_', '-')}"
            for name in options()
            if name.startswith(prefix)
            and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        )

    if config.noise in (None, "none") and (unused := flags("noise_")):
        progress.note(f"{unused}: without effect, since --noise is none")
    if config.backward == "none" and (unused := flags("backward_")):
        progress.note(f"{unused}: only scales the reported nll, since --backward is none")
