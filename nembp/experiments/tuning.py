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
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple, TypeVar

from nembp.experiments.protocol import FILES_OF, Comparison, Protocol, Row, average
from nembp.runs.config import RunConfig
from nembp.runs.gan_config import GanConfig

T = TypeVar("T")
Table = defaultdict[
    tuple[str, Any], dict[int, Row]
]  # rows by who was trained and setting, then by seed


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


def by_setting(rows: Mapping[Task, Row], phase: str, seeds: Collection[int]) -> Table:
    """Return the rows of a phase by arm and setting, then by seed."""
    table: Table = defaultdict(dict)
    for task, row in rows.items():
        if task.phase == phase and task.seed in seeds:
            table[task.arm, Setting(task.rate, task.strength)][task.seed] = row
    return table


class Trials:
    """Means over the same seeds of what was trained, at each of its settings."""

    def __init__(self, table: Table, seeds: Sequence[int]) -> None:
        self.table, self.seeds = table, seeds

    def missing(self, who: str, setting: Any) -> list[int]:
        """Return the seeds with which a setting has not been tried."""
        return [seed for seed in self.seeds if seed not in self.table[who, setting]]

    def mean(self, who: str, setting: Any, value: Callable[[Row], float]) -> float:
        """Return the mean of a value over all seeds; NaN unless each of them has one."""
        if self.missing(who, setting):
            return math.nan
        # in the order of the seeds: a sum must not depend on which replicate finished first
        return average([value(self.table[who, setting][seed]) for seed in self.seeds])

    def lowest(self, who: str, settings: Iterable[T], cost: Callable[[Row], float]) -> T:
        """Return the setting with the least mean, then the lowest; a mean not finite is out."""

        def order(setting: T) -> tuple[float, Any]:
            found = self.mean(who, setting, cost)
            return (found if math.isfinite(found) else math.inf, setting)

        return min(settings, key=order)

    def grown(
        self, who: str, start: Iterable[float], settings: Callable[[float], Iterable[Any]],
        costs: Sequence[Callable[[Row], float]], extend: int, refine: int = 0,
        ends: Sequence[int] = (0, -1),
    ) -> list[float]:  # fmt: skip
        """Return a grid extended while a best value lies at an end, and refined next to the best.

        ``settings`` are those that a value of the grid stands for, each of the ``costs`` has its
        best, and ``extend`` values may be added at each of the ``ends``. A grid that has not all
        been tried stays as it is.
        """
        grid = sorted(start)
        left = dict.fromkeys(ends, extend if len(grid) > 1 else 0)
        while True:
            values = {setting: value for value in grid for setting in settings(value)}
            if any(self.missing(who, setting) for setting in values):
                return grid
            best = {values[self.lowest(who, values, cost)] for cost in costs}
            if reached := [end for end in ends if left[end] and grid[end] in best]:
                added = [grid[end] ** 2 / grid[1 if end == 0 else -2] for end in reached]
                left |= {end: left[end] - 1 for end in reached}
            elif refine:
                places = {grid.index(one) + side for one in best for side in (0, 1)}
                inside = sorted(place for place in places if 0 < place < len(grid))
                added = [math.sqrt(grid[place - 1] * grid[place]) for place in inside]
                refine -= 1
            else:
                return grid
            grid = sorted({*grid, *map(rounded, added)})


def rounded(value: float) -> float:
    """Return a number to 6 digits, as grids have them."""
    return float(f"{value:.6g}")


def untuned(protocol: Protocol, arm: str) -> Setting:
    """Return the setting of an arm where nothing is tuned."""
    return Setting(float(vars(protocol.config(arm))["learning_rate"]))


class Grids(Trials):
    """The grids of every arm, as far as rows of tuning warrant, and what is best in them."""

    def __init__(self, protocol: Protocol, rows: Iterable[Row] = ()) -> None:
        self.protocol, self.done = protocol, {Task.of(row): row for row in rows}
        seeds = protocol.tuning.seeds
        super().__init__(by_setting(self.done, "tune", seeds), seeds)
        self.reported = by_setting(self.done, "report", range(protocol.seeds))
        wanted = {
            (arm, protocol.tuned_by(item.metric))
            for item in protocol.comparisons
            if item.rate == "tuned"
            for arm in item.arms
        }
        self.metrics = {  # by which the settings of each arm are chosen
            arm: [metric for metric in protocol.metrics if (arm, metric.name) in wanted]
            for arm in protocol.compared("tuned")
        }
        self.settings = {arm: self._settings(arm) for arm in self.metrics}

    def _settings(self, arm: str) -> list[Setting]:
        """Return the settings to try of an arm: a grid of rates for each strength of its noise."""
        tuning, costs = self.protocol.tuning, [metric.cost for metric in self.metrics[arm]]
        start = [rounded(untuned(self.protocol, arm).rate * factor) for factor in tuning.factors]

        @cache
        def settings(strength: float) -> list[Setting]:
            def setting(rate: float) -> list[Setting]:
                return [Setting(rate, strength)]

            rates = self.grown(arm, start, setting, costs, tuning.extend, tuning.refine)
            return [Setting(rate, strength) for rate in rates]

        first = tuning.strengths if self.protocol.noisy(arm) else (1.0,)
        strengths = self.grown(arm, first, settings, costs, tuning.extend, ends=(-1,))
        return [setting for strength in strengths for setting in settings(strength)]

    def setting(self, arm: str, item: Comparison) -> Setting:
        """Return the setting of an arm in a comparison."""
        if item.rate == "same":
            return untuned(self.protocol, arm)
        return self.tuned[arm, self.protocol.tuned_by(item.metric)]

    def tasks(self) -> list[Task]:
        """Return the replicates that choose the settings, as far as can be told from the rows."""
        return [
            Task("tune", arm, setting.rate, seed, setting.strength)
            for arm, settings in self.settings.items()
            for setting in settings
            for seed in self.seeds
        ]

    def remaining(self) -> tuple[list[Task], int]:
        """Return the replicates still to be run, tuning first, and how many there are in all.

        As far as can be told: until tuning ends, its settings are taken to differ from one another.
        """
        tasks, tuned = self.tasks(), list(self.tuned.items())
        if any(task not in self.done for task in tasks):
            tuned = [(pair, Setting(-1.0 - n)) for n, (pair, _) in enumerate(tuned)]
        pairs = [(arm, untuned(self.protocol, arm)) for arm in self.protocol.compared("same")]
        pairs += [(arm, setting) for (arm, _), setting in tuned]
        tasks += [
            Task("report", arm, setting.rate, seed, setting.strength)
            for seed in range(self.protocol.seeds)
            for arm, setting in dict.fromkeys(pairs)  # shared ones are trained once
        ]
        return [task for task in tasks if task not in self.done], len(tasks)

    @cached_property
    def tuned(self) -> dict[tuple[str, str], Setting]:
        """The best setting of each arm by each metric that it is compared by.

        Of equals the lower one; one at which a replicate diverged is out.
        """
        return {
            (arm, metric.name): self.lowest(arm, self.settings[arm], metric.cost)
            for arm, metrics in self.metrics.items()
            for metric in metrics
        }

    def at_an_end(self, arm: str, metric: str) -> str:
        """Return what of the arm's best setting lies at an end of its grid, or "".

        The least strength of noise does not count as an end: it is next to no noise.
        """
        best = self.tuned[arm, metric]
        rates = [one.rate for one in self.settings[arm] if one.strength == best.strength]
        strengths = {one.strength for one in self.settings[arm]}
        if best.rate in (min(rates), max(rates)):
            return "learning rate"
        strongest = len(strengths) > 1 and best.strength == max(strengths)
        return "strength of the noise" if strongest else ""
