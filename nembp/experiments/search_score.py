"""What the rows of a search say: the best rate of each, effects against the tuned baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nembp.experiments.search_space import Candidate, Space

__all__ = ["Effect", "Scores", "Trial", "best_anywhere", "ranked"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """One training: what, at which learning rate, with which seed."""

    who: str  # a candidate's name, or for a baseline its regime's
    rate: float
    seed: int

    @classmethod
    def of(cls, row: Row) -> Trial:
        """Return the trial that a row is of."""
        return cls(row["who"], row["rate"], row["seed"])


@dataclass(frozen=True)
class Effect:
    """A candidate against its baseline, each at its own best learning rate.

    Attributes
    ----------
    cut : float
        100 (1 − Σ a / Σ b) in %, of the clean training nll summed over epochs and seeds: a of the
        candidate, b of the baseline.
    points : float
        Accuracy of the candidate at that rate, less the baseline's at whichever of its rates is
        the most accurate.
    score : float
        min(cut / space.cut, points / space.points); −∞ where the candidate diverged.
    """

    cut: float
    points: float
    score: float
    rate: float
    baseline_rate: float
    nll: float
    baseline_nll: float
    accuracy: float
    baseline_accuracy: float
    seeds: int


class Scores:
    """Rows of a search by who was trained.

    Parameters
    ----------
    space : Space
        That was searched.
    rows : iterable of dict
        With ``who``, ``rate``, ``seed``, ``nll`` (mean over epochs, None where it diverged),
        ``accuracy`` and ``seconds``.
    """

    def __init__(self, space: Space, rows: Iterable[Row]) -> None:
        self.space = space
        self.table: dict[str, dict[float, dict[int, Row]]] = {}
        for row in rows:
            self.table.setdefault(row["who"], {}).setdefault(row["rate"], {})[row["seed"]] = row

    def mean(self, who: str, rate: float, seeds: int, key: str = "nll") -> float:
        """Return a mean over the first seeds, NaN unless every one is there and finished."""
        found = self.table.get(who, {}).get(rate, {})
        values = [found[s][key] if s in found else None for s in range(seeds)]
        if not values or None in values:
            return math.nan
        return float(sum(values)) / len(values)  # type: ignore[arg-type]

    def complete(self, who: str, rate: float, seeds: int) -> bool:
        """Whether a rate has been tried with so many seeds."""
        return set(range(seeds)) <= set(self.table.get(who, {}).get(rate, {}))

    def rates(self, who: str, start: Sequence[float], seeds: int) -> list[float]:
        """Return the rates to try: ``start``, extended while its best by nll is at an end."""
        rates = sorted(start)
        left = {0: self.space.extend, -1: self.space.extend}
        while len(rates) > 1 and all(self.complete(who, rate, seeds) for rate in rates):
            best = self.best(who, rates, seeds)
            ends = [end for end in (0, -1) if rates[end] == best and left[end]]
            if not ends:
                break
            end = ends[0]
            left[end] -= 1
            rates.append(float(f"{rates[end] ** 2 / rates[1 if end == 0 else -2]:.6g}"))
            rates.sort()
        return rates

    def best(self, who: str, rates: Iterable[float], seeds: int, key: str = "nll") -> float:
        """Return the best rate by nll, or by accuracy; the lowest where all diverged."""
        sign = 1.0 if key == "nll" else -1.0

        def order(rate: float) -> tuple[float, float]:
            mean = sign * self.mean(who, rate, seeds, key)
            return (mean if math.isfinite(mean) else math.inf, rate)

        return min(rates, key=order)

    def effect(self, candidate: Candidate, seeds: int) -> Effect:
        """Return what a candidate does, from the first ``seeds`` seeds."""
        space, base = self.space, candidate.regime.name
        start = space.grid(candidate.regime)
        theirs = self.rates(base, start, seeds)
        rate = self.best(candidate.name, self.rates(candidate.name, start, seeds), seeds)
        slow = self.best(base, theirs, seeds)
        sure = self.best(base, theirs, seeds, "accuracy")
        nll, accuracy = (self.mean(candidate.name, rate, seeds, k) for k in ("nll", "accuracy"))
        baseline = self.mean(base, slow, seeds), self.mean(base, sure, seeds, "accuracy")
        cut = 100.0 * (1.0 - nll / baseline[0])
        points = 100.0 * (accuracy - baseline[1])
        score = min(cut / space.cut, points / space.points)
        if not math.isfinite(score):
            score = -math.inf
        return Effect(
            cut, points, score, rate, slow, nll, baseline[0], accuracy, baseline[1], seeds
        )


def ranked(
    scores: Scores, candidates: Sequence[Candidate], seeds: int
) -> list[tuple[Candidate, Effect]]:
    """Return candidates with their effects, the best score first."""
    table = [(item, scores.effect(item, seeds)) for item in candidates]
    return sorted(table, key=lambda pair: (-pair[1].score, pair[0].name))


def best_anywhere(
    scores: Scores, candidates: Sequence[Candidate], seeds: int, fields: Sequence[str]
) -> list[dict[str, Any]]:
    """Return, for regimes that agree in ``fields``, the least nll with and without noise of any.

    Whatever the network and optimizer: is the best that noise can do better than the best without?
    """
    groups: dict[tuple[Any, ...], list[tuple[float, float, str, bool]]] = {}
    for item in candidates:
        settings = {**scores.space.base, **item.regime.overrides}
        key = tuple(settings[name] for name in fields)
        for who, noisy in ((item.regime.name, False), (item.name, True)):
            rates = scores.rates(who, scores.space.grid(item.regime), seeds)
            rate = scores.best(who, rates, seeds)
            nll, accuracy = (scores.mean(who, rate, seeds, k) for k in ("nll", "accuracy"))
            if math.isfinite(nll):
                groups.setdefault(key, []).append((nll, accuracy, who, noisy))
    table = []
    for key, found in sorted(groups.items(), key=lambda pair: str(pair[0])):
        row: dict[str, Any] = dict(zip(fields, key, strict=True))
        for name, noisy in (("none", False), ("noise", True)):
            some = [each for each in found if each[3] == noisy]
            if some:
                nll, accuracy, who, _ = min(some)
                row[name] = {"who": who, "nll": nll, "accuracy": accuracy}
        table.append(row)
    return table
