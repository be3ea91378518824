"""The replicates of a protocol, and the grids from which each arm's settings are chosen.

Tuning comes first: every arm at every setting of its grids, on tuning seeds, scored on a validation
split. Then each arm is reported untuned and at its tuned settings, on the test split.

An arm has a grid of learning rates for each strength of its noise. While its best rate lies at an
end, by any metric that the arm is compared by, a rate is added there; then the best is looked for
more finely, between its neighbours. In the same way strengths are added above the strongest noise.
What to run next follows from the rows alone, so a run that was killed goes on as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple, TypeVar

from nembp.experiments.protocol import FILES_OF, Protocol, Row
from nembp.runs.config import RunConfig
from nembp.runs.gan_config import GanConfig

T = TypeVar("T")


class Setting(NamedTuple):
    """What tuning chooses: the learning rate, and a multiple of the arm's own noise."""

    rate: float
    strength: float = 1.0


class Task(NamedTuple):
    """One replicate, to "tune" or "report": an arm at a rate and strength, with a seed."""

    phase: str
    arm: str
    rate: float
    seed: int
    strength: float = 1.0

    @classmethod
    def of(cls, row: Row) -> Task:
        """Return the task that a row is of."""
        return cls(*(row[name] for name in cls._fields))

    @property
    def setting(self) -> Setting:
        """The rate and strength at which the arm is trained."""
        return Setting(self.rate, self.strength)

    def config(
        self, protocol: Protocol, data_dirs: Mapping[str, str], device: str, threads: int
    ) -> RunConfig | GanConfig:
        """Return the configuration to train with."""
        config = protocol.config(self.arm)
        known = vars(config)
        data_dir = data_dirs.get(FILES_OF.get(known["dataset"], known["dataset"]))
        changes: dict[str, Any] = {"learning_rate": self.rate, "seed": self.seed}
        changes |= {"data_dir": data_dir, "device": device, "threads": threads}
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


def by_setting(
    rows: Iterable[Row], phase: str, seeds: Container[int]
) -> dict[tuple[str, Setting], dict[int, Row]]:
    """Return the rows of a phase by arm and setting, then by seed."""
    table: dict[tuple[str, Setting], dict[int, Row]] = {}
    for task, row in ((Task.of(row), row) for row in rows):
        if task.phase == phase and task.seed in seeds:
            table.setdefault((task.arm, task.setting), {})[task.seed] = row
    return table


def rounded(value: float) -> float:
    """Return a number to 6 digits, as grids have them."""
    return float(f"{value:.6g}")


def lowest(items: Iterable[T], mean: Callable[[T], float]) -> T:
    """Return the item with the least mean, then the lowest; a mean that is not finite is out."""

    def order(item: T) -> tuple[float, Any]:
        found = mean(item)
        return (found if math.isfinite(found) else math.inf, item)

    return min(items, key=order)


def grown(
    start: Iterable[float], bests: Callable[[Sequence[float]], set[float] | None], extend: int,
    refine: int = 0, ends: Sequence[int] = (0, -1),
) -> list[float]:  # fmt: skip
    """Return a grid extended while a best value lies at an end, and refined next to the best.

    ``bests`` returns the best values of a grid, or None while not all of it has been tried;
    ``extend`` values may be added at each of the ``ends``.
    """
    grid = sorted(start)
    left = dict.fromkeys(ends, extend if len(grid) > 1 else 0)
    while (best := bests(grid)) is not None:
        reached = [end for end in ends if left[end] and grid[end] in best]
        if reached:
            added = [grid[end] ** 2 / grid[1 if end == 0 else -2] for end in reached]
            left |= {end: left[end] - 1 for end in reached}
        elif refine:
            places = {grid.index(one) + side for one in best for side in (0, 1)}
            inside = sorted(place for place in places if 0 < place < len(grid))
            added = [math.sqrt(grid[place - 1] * grid[place]) for place in inside]
            refine -= 1
        else:
            break
        grid = sorted({*grid, *map(rounded, added)})
    return grid


def untuned(protocol: Protocol, arm: str) -> Setting:
    """Return the setting of an arm where nothing is tuned."""
    return Setting(float(vars(protocol.config(arm))["learning_rate"]))


def reporting(protocol: Protocol, tuned: Mapping[tuple[str, str], Setting]) -> list[Task]:
    """Return the reported replicates, given the tuned settings; shared ones are trained once."""
    pairs = [(arm, untuned(protocol, arm)) for arm in protocol.compared("same")]
    pairs += [(arm, setting) for (arm, _), setting in tuned.items()]
    return [
        Task("report", name, setting.rate, seed, setting.strength)
        for seed in range(protocol.seeds)
        for name, setting in dict.fromkeys(pairs)
    ]


def remaining(protocol: Protocol, rows: Sequence[Row]) -> tuple[list[Task], int]:
    """Return the replicates to run next, and how many there will be in all, as far as is known.

    All of tuning comes first. Meanwhile its settings are taken to differ from one another.
    """
    grids, have = Grids(protocol, rows), {Task.of(row) for row in rows}
    tasks, tuned = grids.tasks(), grids.tuned
    left = [task for task in tasks if task not in have]
    if left:
        tuned = {pair: Setting(-1.0 - n) for n, pair in enumerate(grids.pairs)}
    report = reporting(protocol, tuned)
    return left or [task for task in report if task not in have], len(tasks) + len(report)


def tuned_pairs(protocol: Protocol) -> list[tuple[str, str]]:
    """Return each arm and metric that settings are chosen for."""
    wanted = {
        (name, protocol.tuned_by(item.metric))
        for item in protocol.comparisons
        if item.rate == "tuned"
        for name in item.arms
    }
    pairs = [(arm.name, metric.name) for arm in protocol.arms for metric in protocol.metrics]
    return [pair for pair in pairs if pair in wanted]


class Grids:
    """The grids of every arm, as far as rows of tuning warrant, and what is best in them."""

    def __init__(self, protocol: Protocol, rows: Iterable[Row] = ()) -> None:
        self.protocol, self.tuning = protocol, protocol.tuning
        self.pairs = tuned_pairs(protocol)
        self.rows = by_setting(rows, "tune", self.tuning.seeds)
        self.strengths = cache(self._strengths)
        self.rates = cache(self._rates)

    def tasks(self) -> list[Task]:
        """Return the replicates that choose the settings, as far as can be told from the rows."""
        return [
            Task("tune", arm, rate, seed, strength)
            for arm in self.protocol.compared("tuned")
            for strength in self.strengths(arm)
            for rate in self.rates(arm, strength)
            for seed in self.tuning.seeds
        ]

    @cached_property
    def tuned(self) -> dict[tuple[str, str], Setting]:
        """The best setting of each arm by each metric that it is compared by.

        Of equals the lower one; one at which a replicate diverged is out.
        """
        return {(a, metric): self._best(a, self.strengths(a), metric) for a, metric in self.pairs}

    def at_an_end(self, arm: str, metric: str) -> str:
        """Return what of the arm's best setting lies at an end of its grid, or "".

        The least strength of noise does not count as an end: it is next to no noise.
        """
        best = self.tuned[arm, metric]
        rates, strengths = self.rates(arm, best.strength), self.strengths(arm)
        if best.rate in (rates[0], rates[-1]):
            return "learning rate"
        strongest = len(strengths) > 1 and best.strength == strengths[-1]
        return "strength of the noise" if strongest else ""

    def _strengths(self, arm: str) -> list[float]:
        if not self.protocol.noisy(arm):
            return [1.0]

        def bests(strengths: Sequence[float]) -> set[float] | None:
            if not all(self._whole(arm, self.rates(arm, one), one) for one in strengths):
                return None
            metrics = [metric for name, metric in self.pairs if name == arm]
            return {self._best(arm, strengths, metric).strength for metric in metrics}

        return grown(self.tuning.strengths, bests, self.tuning.extend, ends=(-1,))

    def _rates(self, arm: str, strength: float) -> list[float]:
        rate = untuned(self.protocol, arm).rate
        start = [rounded(rate * factor) for factor in self.tuning.factors]

        def bests(rates: Sequence[float]) -> set[float] | None:
            if not self._whole(arm, rates, strength):
                return None
            settings = [Setting(rate, strength) for rate in rates]
            metrics = [metric for name, metric in self.pairs if name == arm]
            return {self._least(arm, settings, metric).rate for metric in metrics}

        return grown(start, bests, self.tuning.extend, self.tuning.refine)

    def _whole(self, arm: str, rates: Sequence[float], strength: float) -> bool:
        """Tell whether every rate has a row for every tuning seed."""
        seeds = set(self.tuning.seeds)
        return all(set(self.rows.get((arm, Setting(r, strength)), {})) == seeds for r in rates)

    def _best(self, arm: str, strengths: Sequence[float], metric: str) -> Setting:
        settings = [Setting(rate, one) for one in strengths for rate in self.rates(arm, one)]
        return self._least(arm, settings, metric)

    def _least(self, arm: str, settings: Sequence[Setting], metric: str) -> Setting:
        what = self.protocol.metric(metric)

        def mean(setting: Setting) -> float:
            rows = self.rows.get((arm, setting), {})
            # in order of the seeds: a sum must not depend on which replicate finished first
            values = [-what.sign * what.merit(rows[seed]) for seed in sorted(rows)]
            return sum(values) / len(values) if values else math.nan

        return lowest(settings, mean)
