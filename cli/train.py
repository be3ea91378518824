"""``nembp train``."""

from __future__ import annotations

from typing import Any

import click

from nembp.runs.config import RunConfig

from .options import GroupedCommand, chosen, options_of, refusals, run_folder_options
from .output import count, number, score_rows, status_rows
from .progress import Cells, Progress, Row, terminate_as_interrupt

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
  nembp train --resume runs/a --epochs 50
"""


@click.command(cls=GroupedCommand, epilog=EPILOG)
@options_of(RunConfig)
@run_folder_options(RunConfig, "runs/<time>-<dataset>-seed<seed>")
@click.pass_context
def train(
    ctx: click.Context,
    /,
    out: str | None,
    force: bool,
    resume: str | None,
    **settings: Any,
) -> None:
    """Train a bidirectional network and leave a run folder.

    Without options it learns scikit-learn's handwritten digits. The folder holds config.toml
    (repeats the run), metrics.jsonl (a row per epoch), model.npz, checkpoint.npz (for --resume),
    summary.json and, for classes, backward.png: the backward image of each class beside its
    centroid.
    """
    given = chosen(RunConfig, settings)
    config = RunConfig(**given)
    progress = Progress(
        ctx, RunConfig, _describe, _columns, _report, {"backward_weight": ("backward", "none")}
    )
    with terminate_as_interrupt(), refusals(ctx, "out", "force"):
        from nembp.runs.training import resume_run, train_run  # NumPy, which --help does without

        if resume is not None:
            resume_run(resume, given, **progress.told)
        else:
            train_run(config, out, force=force, **progress.told)


def _report(summary: Row) -> Cells:
    rows = score_rows(summary)
    if not summary["backward_trained"]:
        rows = [(name, f"{text}   (not trained)" if name == "backward" else text)
                for name, text in rows]  # fmt: skip
    speed = summary["samples_per_second"]
    done = f"{count(summary['epochs'], 'epoch')} in {summary['seconds']:.1f} s of training"
    return rows + status_rows(summary, done + (f", {speed:,.0f} samples/s" if speed else ""))


def _describe(plan: Row) -> tuple[str, str, str, str]:
    layers = "-".join(map(str, [plan["sizes"][0], *plan["layers"], plan["sizes"][-1]]))
    augment = "" if plan["augment"] == "none" else f" with {plan['augment'].replace(',', ' and ')}"
    what = f"{plan['classes']} classes" if plan["classes"] else f"{plan['sizes'][-1]} targets"
    backward = f"{plan['forward']} | {plan['backward']} (weight {plan['backward_weight']:g})"
    if plan["backward"] == "none":
        backward = "forward direction only"
    noise = f"{plan['noise_target']}, std {plan['noise_std']:g} / {plan['noise_clock']}"
    noise = f"; {plan['noise']} noise on {noise}^{plan['noise_decay']:g}"
    return (
        f"{augment}, {what}",
        f"{layers} {plan['activation']}, {backward}",
        "" if plan["noise"] == "none" else noise,
        f", {plan['threads']} BLAS threads; scored on the {plan['scored_on']} split",
    )


def _columns(row: Row, epochs: int) -> Cells:
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
    return [*shown, ("samples/s", f"{row['samples_per_second']:,.0f}")]
