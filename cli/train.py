"""``nembp train``."""

from __future__ import annotations

from typing import Any

from nembp.runs.config import RunConfig

from .options import command, options_of
from .output import score_rows
from .progress import SOURCES, Cells, Progress, Row, run_options

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
