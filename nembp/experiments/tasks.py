"""The replicates that a protocol asks for, and what they are compared by.

Tuning replicates come first: every arm at every setting of its grids, on tuning seeds and scored on
a validation split (`nembp.experiments.grids`). Reporting replicates train each arm untuned and at
its tuned settings, as far as comparisons need them, and are scored on the test split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from nembp.experiments.kinds import Config
from nembp.experiments.protocol import FILES_OF, Arm, Metric, Protocol

__all__ = [
    "Phase",
    "Row",
    "Setting",
    "Task",
    "Tuned",
    "compared",
    "curve",
    "merit",
    "reporting",
    "rounded",
    "untuned",
    "value",
]

LEAST: Final = 1e-6  # of what is compared by its ratio: an error may become 0
Phase = Literal["tune", "report"]
Row = Mapping[str, Any]


class Setting(NamedTuple):
    """What tuning chooses.

    Attributes
    ----------
    rate : float
        The learning rate.
    strength : float
        Of the noise, as a multiple of the arm's own; 1 where there is none.
    """

    rate: float
    strength: float = 1.0


Tuned = Mapping[tuple[str, str], Setting]  # by arm and the metric that it was tuned by


@dataclass(frozen=True)
class Task:
    """One replicate: an arm at a learning rate and strength of noise, with a seed."""

    phase: Phase
    arm: str
    rate: float
    seed: int
    strength: float = 1.0

    @classmethod
    def of(cls, row: Row) -> Task:
        """Return the task that a row is of."""
        return cls(row["phase"], row["arm"], row["rate"], row["seed"], row["strength"])

    @property
    def setting(self) -> Setting:
        """What it is trained at."""
        return Setting(self.rate, self.strength)

    def config(
        self, protocol: Protocol, data_dirs: Mapping[str, str], device: str, threads: int
    ) -> Config:
        """Return how it is trained."""
        config = protocol.config(self.arm)
        known = vars(config)
        changes: dict[str, Any] = {
            "learning_rate": self.rate,
            "seed": self.seed,
            "data_dir": data_dirs.get(FILES_OF.get(known["dataset"], known["dataset"])),
            "device": device,
            "threads": threads,
        }
        if known.get("discriminator_rate") is not None:  # keeps its ratio to the generator's
            ratio = self.rate / known["learning_rate"]
            changes["discriminator_rate"] = rounded(known["discriminator_rate"] * ratio)
        if self.strength != 1.0:
            changes["noise_std"] = rounded((known["noise_std"] or 0.0) * self.strength)
        if protocol.resample:
            changes["split_seed"] = self.seed
        if self.phase == "tune" and "validation_fraction" in known:
            changes["validation_fraction"] = protocol.tuning.validation_fraction
        return config.replace(changes)


def rounded(value: float) -> float:
    """Return a number to 6 digits, as grids have them."""
    return float(f"{value:.6g}")


def untuned(protocol: Protocol, arm: str) -> Setting:
    """Return what an arm is trained at where nothing is tuned."""
    return Setting(float(vars(protocol.config(arm))["learning_rate"]))


def compared(protocol: Protocol, rate: str) -> list[Arm]:
    """Return the arms of comparisons at "same" or at "tuned" settings, in order."""
    used = {name for item in protocol.comparisons if item.rate == rate for name in item.arms}
    return [arm for arm in protocol.arms if arm.name in used]


def reporting(protocol: Protocol, tuned: Tuned) -> list[Task]:
    """Return the replicates that effects are told from, given the tuned settings.

    What several comparisons need is trained once.
    """
    pairs = [(arm.name, untuned(protocol, arm.name)) for arm in compared(protocol, "same")]
    pairs += [(arm, setting) for (arm, _), setting in tuned.items()]
    return [
        Task("report", name, setting.rate, seed, setting.strength)
        for seed in range(protocol.seeds)
        for name, setting in dict.fromkeys(pairs)
    ]


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


def merit(row: Row, metric: Metric) -> float:
    """Return what a metric's effects are differences of: what is tuned must be what is compared.

    The mean over epochs; of relative effects that of the logarithms, so that an epoch counts by how
    much less a value is there and not by how large it was. NaN if the replicate diverged.
    """
    values = curve(row, metric)
    if not values:
        return math.nan
    if metric.effect == "cut of the mean":
        values = [sum(values)]
    if metric.unit == "%":
        values = [value if math.isnan(value) else math.log(max(value, LEAST)) for value in values]
    return sum(values) / len(values)
