"""``nembp evaluate``."""

from __future__ import annotations

from typing import Any

import click

from .options import device_option, json_option
from .output import emit_json, emit_table, note, score_rows, short_path

__all__ = ["evaluate"]

SPLITS = ("test", "train", "validation", "all")


@click.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--data-dir",
    metavar="PATH",
    help="Where the data lies.  [default: where it lay in training]",
)
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default="test",
    show_default=True,
    help="What to score on, split as in training; all is training and test samples together.",
)
@device_option
@json_option
def evaluate(run: str, as_json: bool, **options: Any) -> None:
    """Score a trained network in both directions.

    RUN is a run folder or a model file. The data is read again as it was for training, so the
    scores on the test split are those of the run's summary.json.
    """
    from nembp.runs.scoring import evaluate_run

    scores = evaluate_run(run, note=note, **options)
    if as_json:
        emit_json(scores)
        return
    data = f"{scores['samples']} {scores['split']} samples of {scores['dataset']}"
    emit_table([*score_rows(scores), ("data", data), ("run", short_path(scores["run"]))])
