"""A protocol that runs in a second, rows made up by hand, and runs that are stopped."""

from __future__ import annotations

import json
from typing import Any

from nembp.experiments import Arm, Comparison, Metric, Protocol, Tuning
from nembp.experiments.tuning import Task

BASE = {
    "dataset": "digits", "layers": "8", "epochs": 2, "limit": 60, "batch_size": 30,
    "optimizer": "sgd", "learning_rate": 0.1, "schedule": "constant", "backward": "none",
}  # fmt: skip
NLL = Metric("nll", "train/nll", "lower", "relative cut", epochs=2)
ACCURACY = Metric("accuracy", "forward/accuracy", "higher", "points")
ARMS = (Arm("none"), Arm("nem", {"noise": "nem", "noise_std": 0.1, "noise_clock": "epoch"}))
COMPARISONS = (
    Comparison("nll", "nem", "none", "nll", claim="noise helps", published=39.0),
    Comparison("tuned", "nem", "none", "nll", "tuned", claim="noise helps, tuned", published=39.0),
    Comparison("accuracy", "nem", "none", "accuracy"),
)


def tiny(**changes: Any) -> Protocol:
    """Return a protocol of 4 tuning and at most 12 reporting replicates."""
    settings: dict[str, Any] = {
        "name": "tiny", "title": "A tiny claim, digits", "source": "nobody", "base": BASE,
        "arms": ARMS, "metrics": (NLL, ACCURACY), "comparisons": COMPARISONS,
        "tuning": Tuning("nll", (1.0, 2.0), (1000,), extend=0, refine=0), "seeds": 3,
    }  # fmt: skip
    return Protocol(**(settings | changes))


def row(
    arm: str, seed: int, nll: list[float], *, rate: float = 0.1, phase: str = "report", **more: Any
) -> dict[str, Any]:
    """Return a row as a replicate would leave it."""
    return {
        "phase": phase, "arm": arm, "rate": rate, "seed": seed, "strength": 1.0,
        "status": "finished", "curves": {"train/nll": nll}, "scores": {"forward/accuracy": 0.9},
    } | more  # fmt: skip


def rows_of(folder):
    """Return everything that the row of each replicate says, but the time it took."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    apart = ("seconds", "seal")
    table = {Task.of(row): {k: v for k, v in row.items() if k not in apart} for row in rows}
    assert len(table) == len(rows), "a replicate was run twice"
    return table


def stop_after(rows):
    """Return what interrupts a run that has as many rows."""

    def stop(done, total, row):
        assert done <= total
        if done >= rows:
            raise KeyboardInterrupt

    return stop
