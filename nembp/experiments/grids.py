"""Grids of learning rates and strengths of noise, extended until the best lies inside of them.

An arm has a grid of learning rates for each strength of its noise. While the best rate of a grid
is at an end of it, by any metric that the arm is compared by, a rate is added there: the last one
times the step that led to it. Then the best is looked for more finely, between its neighbours. In
the same way a strength is added above the strongest noise while that is the best. What there is
to run next follows from the rows alone, so that a run which was killed goes on as it would have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nembp.experiments.protocol import Protocol
from nembp.experiments.tasks import Row, Setting, Task, compared, merit, rounded, untuned

__all__ = ["at_an_end", "tuned", "tuned_pairs", "tuning"]


def tuned_pairs(protocol: Protocol) -> list[tuple[str, str]]:
    """Return each arm and metric that settings are chosen for."""
    wanted = {
        (name, protocol.tuned_by(item.metric))
        for item in protocol.comparisons
        if item.rate == "tuned"
        for name in item.arms
    }
    return [
        (arm.name, metric.name)
        for arm in compared(protocol, "tuned")
        for metric in protocol.metrics
        if (arm.name, metric.name) in wanted
    ]


def tuning(protocol: Protocol, rows: Iterable[Row] = ()) -> list[Task]:
    """Return the replicates that choose the settings, as far as rows tell how many there are.

    Once all of them have rows there may be more: ask again until there are none.
    """
    table = _Scores(protocol, rows)
    return [
        Task("tune", arm.name, rate, seed, strength)
        for arm in compared(protocol, "tuned")
        for strength in table.strengths(arm.name)
        for rate in table.grid(arm.name, strength)
        for seed in protocol.tuning.seeds
    ]


def tuned(protocol: Protocol, rows: Iterable[Row]) -> dict[tuple[str, str], Setting]:
    """Return the best setting of each arm by each metric that it is compared by.

    The best mean over the tuning seeds wins, the lower rate and strength where two are equal. A
    setting at which a replicate diverged is out; if all are, the lowest is taken.
    """
    table = _Scores(protocol, rows)
    return {(arm, metric): table.best(arm, metric) for arm, metric in tuned_pairs(protocol)}


def at_an_end(protocol: Protocol, rows: Iterable[Row]) -> dict[tuple[str, str], str]:
    """Return what of each arm's best setting by a metric is at an end of its grid: "" if nothing.

    The least strength of noise is no such end: it is next to no noise.
    """
    table = _Scores(protocol, rows)
    return {(arm, metric): table.at_an_end(arm, metric) for arm, metric in tuned_pairs(protocol)}


class _Scores:
    """Tuning scores by arm and setting, so that low is good."""

    def __init__(self, protocol: Protocol, rows: Iterable[Row]) -> None:
        self.protocol = protocol
        self.seeds = set(protocol.tuning.seeds)
        self.rows: dict[tuple[str, Setting], list[Row]] = {}
        for row in rows:
            task = Task.of(row)
            if task.phase == "tune" and task.seed in self.seeds:
                self.rows.setdefault((task.arm, task.setting), []).append(row)
        self.metrics: dict[str, list[str]] = {}
        for arm, metric in tuned_pairs(protocol):
            self.metrics.setdefault(arm, []).append(metric)
        self._grids: dict[tuple[str, float], list[float]] = {}
        self._strengths: dict[str, list[float]] = {}

    def strengths(self, arm: str) -> list[float]:
        """Return the multiples of its noise's deviation that an arm is tuned over."""
        found = self._strengths.get(arm)
        if found is None:
            found = self._strengths[arm] = self._stronger(arm)
        return found

    def _stronger(self, arm: str) -> list[float]:
        tuning = self.protocol.tuning
        if vars(self.protocol.config(arm))["noise"] in (None, "none"):
            return [1.0]
        found = sorted(tuning.strengths)
        left = tuning.extend if len(found) > 1 else 0
        while left and all(self._whole(arm, self.grid(arm, one), one) for one in found):
            bests = {self._best(arm, found, metric).strength for metric in self.metrics[arm]}
            if found[-1] not in bests:
                break
            found.append(rounded(found[-1] ** 2 / found[-2]))
            left -= 1
        return found

    def grid(self, arm: str, strength: float) -> list[float]:
        """Return the rates of an arm's grid at a strength, extended as far as rows warrant."""
        found = self._grids.get((arm, strength))
        if found is None:
            found = self._grids[arm, strength] = self._extended(arm, strength)
        return found

    def best(self, arm: str, metric: str) -> Setting:
        """Return an arm's best setting."""
        return self._best(arm, self.strengths(arm), metric)

    def _best(self, arm: str, strengths: Sequence[float], metric: str) -> Setting:
        settings = [
            Setting(rate, strength) for strength in strengths for rate in self.grid(arm, strength)
        ]
        return min(settings, key=lambda setting: (self.mean(arm, setting, metric), setting))

    def at_an_end(self, arm: str, metric: str) -> str:
        """Return what of an arm's best setting is at an end."""
        best = self.best(arm, metric)
        rates, strengths = self.grid(arm, best.strength), self.strengths(arm)
        if best.rate in (rates[0], rates[-1]):
            return "learning rate"
        if len(strengths) > 1 and best.strength == strengths[-1]:
            return "strength of the noise"
        return ""

    def mean(self, arm: str, setting: Setting, metric: str) -> float:
        """Return the mean score of a setting, ∞ if it has none or a replicate diverged."""
        what = self.protocol.metric(metric)
        sign = 1.0 if what.better == "lower" else -1.0
        values = [sign * merit(row, what) for row in self._in_order(arm, setting)]
        mean = sum(values) / len(values) if values else math.nan
        return mean if math.isfinite(mean) else math.inf

    def _in_order(self, arm: str, setting: Setting) -> Sequence[Row]:
        """Return rows by seed: a sum must not depend on the order in which they finished."""
        return sorted(self.rows.get((arm, setting), []), key=lambda row: int(row["seed"]))

    def _extended(self, arm: str, strength: float) -> list[float]:
        rate = untuned(self.protocol, arm).rate
        rates = sorted(rounded(rate * factor) for factor in self.protocol.tuning.factors)
        left = {0: self.protocol.tuning.extend, -1: self.protocol.tuning.extend}
        finer = self.protocol.tuning.refine
        while self._whole(arm, rates, strength):
            bests = {self._best_rate(arm, rates, strength, name) for name in self.metrics[arm]}
            ends = [end for end in (0, -1) if left[end] and rates[end] in bests]
            if ends:
                added = [rates[end] ** 2 / rates[1 if end == 0 else -2] for end in ends]
                left |= {end: left[end] - 1 for end in ends}
            elif finer:
                places = {rates.index(best) + side for best in bests for side in (0, 1)}
                inside = sorted(place for place in places if 0 < place < len(rates))
                added = [math.sqrt(rates[place - 1] * rates[place]) for place in inside]
                finer -= 1
            else:
                break
            rates = sorted({*rates, *map(rounded, added)})
        return rates

    def _whole(self, arm: str, rates: Sequence[float], strength: float) -> bool:
        return all(
            {row["seed"] for row in self.rows.get((arm, Setting(rate, strength)), [])} == self.seeds
            for rate in rates
        )

    def _best_rate(self, arm: str, rates: Sequence[float], strength: float, metric: str) -> float:
        return min(rates, key=lambda rate: (self.mean(arm, Setting(rate, strength), metric), rate))
