"""The replicates that a protocol asks for, and the learning rates that come of the first of them.

Tuning replicates come first: every arm at every rate of its grid, on tuning seeds and scored on a
validation split. Reporting replicates train each arm untuned and at its tuned rate, as far as
comparisons need them, and are scored on the test split.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nembp.experiments.protocol import Arm, Metric, Protocol
from nembp.runs.config import RunConfig

__all__ = ["Phase", "Row", "Task", "grid", "reporting", "tuned_rates", "tuning", "value"]

Phase = Literal["tune", "report"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """One replicate: an arm at a learning rate with a seed."""

    phase: Phase
    arm: str
    rate: float
    seed: int

    @classmethod
    def of(cls, row: Row) -> Task:
        """Return the task that a row is of."""
        return cls(row["phase"], row["arm"], row["rate"], row["seed"])

    def config(
        self, protocol: Protocol, data_dirs: Mapping[str, str], device: str, threads: int
    ) -> RunConfig:
        """Return how it is trained."""
        config = protocol.config(self.arm)
        changes: dict[str, Any] = {
            "learning_rate": self.rate,
            "seed": self.seed,
            "data_dir": data_dirs.get(config.dataset),
            "device": device,
            "threads": threads,
        }
        if protocol.resample:
            changes["split_seed"] = self.seed
        if self.phase == "tune":
            changes["validation_fraction"] = protocol.tuning.validation_fraction
        return config.replace(changes)


def _untuned(protocol: Protocol, arm: Arm) -> float:
    return float(protocol.config(arm.name).learning_rate or math.nan)


def grid(protocol: Protocol, arm: Arm) -> list[float]:
    """Return the learning rates that an arm is tuned over, rounded to 6 digits."""
    rate = _untuned(protocol, arm)
    return [float(f"{rate * factor:.6g}") for factor in sorted(protocol.tuning.factors)]


def _compared(protocol: Protocol, rate: str) -> list[Arm]:
    used = {name for item in protocol.comparisons if item.rate == rate for name in item.arms}
    return [arm for arm in protocol.arms if arm.name in used]


def tuning(protocol: Protocol) -> list[Task]:
    """Return the replicates that choose the learning rates."""
    return [
        Task("tune", arm.name, rate, seed)
        for seed in protocol.tuning.seeds
        for arm in _compared(protocol, "tuned")
        for rate in grid(protocol, arm)
    ]


def reporting(protocol: Protocol, rates: Mapping[str, float]) -> list[Task]:
    """Return the replicates that effects are told from, given the tuned rates.

    Arms of an arm's own untuned rate are trained once where both rates are the same.
    """
    pairs = [(arm.name, _untuned(protocol, arm)) for arm in _compared(protocol, "same")]
    pairs += [(arm.name, rates[arm.name]) for arm in _compared(protocol, "tuned")]
    return [
        Task("report", name, rate, seed)
        for seed in range(protocol.seeds)
        for name, rate in dict.fromkeys(pairs)
    ]


def tuned_rates(protocol: Protocol, rows: Iterable[Row]) -> dict[str, float]:
    """Return the best learning rate of each arm that has one, by the tuning metric's mean.

    A rate at which a replicate diverged is out; if all are, the lowest is taken.
    """
    metric = protocol.metric(protocol.tuning.metric)
    sign = 1.0 if metric.better == "lower" else -1.0
    scores: dict[tuple[str, float], list[float]] = {}
    for row in rows:
        if row["phase"] == "tune" and row["seed"] in protocol.tuning.seeds:
            scores.setdefault((row["arm"], row["rate"]), []).append(sign * value(row, metric))
    rates = {}
    for arm in _compared(protocol, "tuned"):
        means = {rate: _mean(scores.get((arm.name, rate), [])) for rate in grid(protocol, arm)}
        rates[arm.name] = min(means, key=lambda rate: (means[rate], rate))
    return rates


def _mean(values: Sequence[float]) -> float:
    mean = sum(values) / len(values) if values else math.nan
    return mean if math.isfinite(mean) else math.inf


def curve(row: Row, metric: Metric) -> list[float]:
    """Return a metric's values of a row by epoch, or the one score; empty if it diverged."""
    if row["status"] != "finished":
        return []
    found = row["curves"].get(metric.key)
    values = [row["scores"].get(metric.key)] if found is None else found[: metric.epochs]
    return [math.nan if item is None else float(item) for item in values]


def value(row: Row, metric: Metric) -> float:
    """Return a metric's mean over the epochs it is taken over; NaN if the replicate diverged."""
    values = curve(row, metric)
    return sum(values) / len(values) if values else math.nan
