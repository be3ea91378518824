"""What the rows of an experiment say: tuned rates, scores of arms, effects and verdicts."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nembp.errors import DataError
from nembp.experiments.protocol import Comparison, Metric, Protocol, Rate
from nembp.experiments.registry import get
from nembp.experiments.rows import check_header, read_header, read_rows
from nembp.experiments.statistics import Estimate, estimate, holm
from nembp.experiments.tasks import Row, curve, grid, reporting, tuned_rates, tuning, value
from nembp.experiments.verdicts import verdict

__all__ = ["Experiment", "differences", "read_experiment", "summarize"]


@dataclass(frozen=True)
class Experiment:
    """Rows on disk, and the protocol they are of.

    Attributes
    ----------
    folder : Path
        Where they lie.
    protocol : Protocol
        With as many reporting seeds as the run was asked for.
    rows : list of dict
        In any order.
    quick : bool
        Whether they are those of `Protocol.quick`.
    """

    folder: Path
    protocol: Protocol
    rows: list[dict[str, Any]]
    quick: bool

    @property
    def rates(self) -> dict[str, float]:
        """The tuned learning rate of each arm that has one."""
        return tuned_rates(self.protocol, self.rows)

    @property
    def left(self) -> int:
        """Replicates still to be run, as far as it can be told."""
        have = {(row["phase"], row["arm"], row["rate"], row["seed"]) for row in self.rows}
        wanted = [*tuning(self.protocol), *reporting(self.protocol, self.rates)]
        return sum((t.phase, t.arm, t.rate, t.seed) not in have for t in wanted)

    def reported(self, arm: str, rate: Rate) -> dict[int, Row]:
        """Return the reporting rows of an arm at its untuned or tuned rate, by seed."""
        untuned = self.protocol.config(arm).learning_rate
        chosen = untuned if rate == "same" else self.rates[arm]
        return {
            row["seed"]: row
            for row in self.rows
            if row["phase"] == "report" and row["arm"] == arm and row["rate"] == chosen
            and row["seed"] < self.protocol.seeds
        }  # fmt: skip


def read_experiment(
    out_dir: str | os.PathLike[str],
    name: str,
    *,
    quick: bool = False,
    protocol: Protocol | None = None,
) -> Experiment:
    """Read the rows of an experiment.

    Parameters
    ----------
    out_dir, name : path, str
        As `run_experiment` had them.
    quick : bool
        Read those of ``--quick``.
    protocol : Protocol, optional
        By default the registered one of that name.

    Raises
    ------
    ArchitectureError
        If no experiment is called so, or the rows are of another version of its protocol.
    DataError
        If there are none, or they are damaged.
    """
    protocol = get(name) if protocol is None else protocol
    folder = Path(out_dir) / (f"{name}-quick" if quick else name)
    header = read_header(folder)
    protocol = protocol.quick() if quick else protocol
    check_header(header, protocol, folder)
    protocol = protocol.with_seeds(int(header.get("seeds", protocol.seeds)))
    rows, _ = read_rows(folder, protocol)
    if not rows:
        raise DataError(f"{folder}: no replicate has finished; run it with --resume")
    return Experiment(folder, protocol, rows, quick)


def differences(experiment: Experiment, item: Comparison) -> tuple[list[float], int, int]:
    """Return the effect of each seed, signed so that positive is as claimed.

    Returns
    -------
    effects, diverged, without
        One value a seed that has one; seeds at which the arm diverged (or one of the arms of
        ``minus``), and at which the baseline alone did.
    """
    metric = experiment.protocol.metric(item.metric)
    arms = {name: experiment.reported(name, item.rate) for name in item.arms}
    shared = sorted(set.intersection(*(set(rows) for rows in arms.values())))
    effects, diverged, without = [], 0, 0
    for seed in shared:
        rows = {name: table[seed] for name, table in arms.items()}
        effect = _effect(metric, rows[item.arm], rows[item.baseline])
        if item.minus is not None:
            effect -= _effect(metric, *(rows[name] for name in item.minus))
        if math.isfinite(effect):
            effects.append(effect)
        elif all(math.isfinite(value(rows[n], metric)) for n in item.arms if n != item.baseline):
            without += 1
        else:
            diverged += 1
    return effects, diverged, without


def _effect(metric: Metric, arm: Row, baseline: Row) -> float:
    a, b = np.array(curve(arm, metric)), np.array(curve(baseline, metric))
    if not len(a) or not len(b):
        return math.nan
    with np.errstate(all="ignore"):
        if metric.effect == "relative cut":
            return float(100.0 * np.mean(1.0 - a / b))
        if metric.effect == "cut of the mean":
            return float(100.0 * (1.0 - np.sum(a) / np.sum(b))) if np.any(a != b) else 0.0
    sign = 1.0 if metric.better == "higher" else -1.0
    return float(sign * (100.0 if metric.effect == "points" else 1.0) * np.mean(a - b))


def summarize(experiment: Experiment) -> dict[str, Any]:
    """Return arms, effects and verdicts as JSON values.

    Returns
    -------
    dict
        ``name``, ``title``, ``source``, ``hash``, ``quick``, ``datasets``, ``seeds``; ``left``,
        the replicates to come (verdicts are None until there are none, and for ``quick``);
        ``tuned``: by arm the learning rate, and whether it is at an end of its grid; ``arms``: mean
        and standard deviation of each metric by arm and rate; ``comparisons``: effects with their
        interval, tests and wins, and for claims the verdict.
    """
    protocol = experiment.protocol
    left = experiment.left
    estimates = [_estimated(experiment, item) for item in protocol.comparisons]
    corrected = _corrected(protocol, estimates)
    return {
        "name": protocol.name,
        "title": protocol.title,
        "source": protocol.source,
        "hash": protocol.digest,
        "quick": experiment.quick,
        "datasets": list(protocol.datasets),
        "seeds": protocol.seeds,
        "left": left,
        "tuned": _tuned(experiment),
        "arms": _arms(experiment),
        "comparisons": [
            _described(protocol, item, effect, p, judged=not left and not experiment.quick)
            for item, effect, p in zip(protocol.comparisons, estimates, corrected, strict=True)
        ],
    }


def _corrected(protocol: Protocol, estimates: Sequence[Estimate]) -> list[float]:
    """Return Holm's p of each comparison: claims among claims, controls among controls."""
    p = np.array([effect.p for effect in estimates])
    claims = np.array([bool(item.claim) for item in protocol.comparisons])
    for family in (claims, ~claims):
        p[family] = holm(p[family])
    return [float(value) for value in p]


def _estimated(experiment: Experiment, item: Comparison) -> Estimate:
    effects, diverged, without = differences(experiment, item)
    confidence = experiment.protocol.rule.confidence
    return estimate(effects, confidence=confidence, diverged=diverged, without=without)


def _described(
    protocol: Protocol, item: Comparison, effect: Estimate, p: float, *, judged: bool
) -> dict[str, Any]:
    return {
        "comparison": item.name,
        "claim": item.claim,
        "arm": item.arm,
        "baseline": item.baseline,
        "metric": item.metric,
        "rate": item.rate,
        "unit": protocol.metric(item.metric).unit,
        "published": item.published,
        "margin": item.margin,
        "mean": effect.mean,
        "low": effect.low,
        "high": effect.high,
        "wins": effect.wins,
        "pairs": effect.n + effect.diverged + effect.baseline_diverged,
        "diverged": effect.diverged,
        "baseline_diverged": effect.baseline_diverged,
        "p": effect.p,
        "p_holm": p,
        "verdict": verdict(effect, p, item, protocol.rule) if item.claim and judged else None,
    }


def _tuned(experiment: Experiment) -> dict[str, dict[str, Any]]:
    arms = {arm.name: arm for arm in experiment.protocol.arms}
    table = {}
    for name, rate in experiment.rates.items():
        rates = grid(experiment.protocol, arms[name])
        table[name] = {"learning_rate": rate, "at_the_end": rate in (rates[0], rates[-1])}
    return table


def _arms(experiment: Experiment) -> list[dict[str, Any]]:
    protocol = experiment.protocol
    wanted: Iterable[tuple[str, Rate]] = dict.fromkeys(
        (name, item.rate) for item in protocol.comparisons for name in item.arms
    )
    return [
        {
            "arm": name,
            "rate": rate,
            **_scores(list(experiment.reported(name, rate).values()), protocol.metrics),
        }
        for name, rate in wanted
    ]


def _scores(rows: Sequence[Row], metrics: Iterable[Metric]) -> Mapping[str, Any]:
    finished = [row for row in rows if row["status"] == "finished"]
    table: dict[str, Any] = {
        "learning_rate": rows[0]["rate"] if rows else None,
        "replicates": len(rows),
        "diverged": len(rows) - len(finished),
    }
    for metric in metrics:
        values = np.array([value(row, metric) for row in finished])
        some, many = len(values) > 0, len(values) > 1
        table[metric.name] = {
            "mean": float(np.mean(values)) if some else None,
            "std": float(np.std(values, ddof=1)) if many else None,
        }
    return table
