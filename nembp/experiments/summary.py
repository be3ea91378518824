"""What the rows of an experiment say: tuned rates, scores of arms, effects and verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nembp.experiments.grids import at_an_end
from nembp.experiments.protocol import BUILT_IN, Comparison, Metric, Protocol
from nembp.experiments.reading import Experiment
from nembp.experiments.statistics import Estimate, estimate, holm
from nembp.experiments.tasks import Row, Setting, merit, value
from nembp.experiments.verdicts import Verdict, verdict

__all__ = ["differences", "summarize"]


def differences(experiment: Experiment, item: Comparison) -> tuple[list[float], int, int]:
    """Return the effect of each seed, signed so that positive is as claimed.

    Returns
    -------
    effects, diverged, without
        One value a seed that has one, relative ones as logarithms (see `Metric.shown`); seeds at
        which the arm diverged (or one of the arms of ``minus``), and at which the baseline alone
        did.
    """
    metric = experiment.protocol.metric(item.metric)
    arms = {name: experiment.reported(name, experiment.setting(name, item)) for name in item.arms}
    shared = sorted(set.intersection(*(set(rows) for rows in arms.values())))
    effects, diverged, without = [], 0, 0
    for seed in shared:
        rows = {name: table[seed] for name, table in arms.items()}
        effect = _effect(metric, rows[item.arm], rows[item.baseline])
        if item.minus is not None:
            there = _effect(metric, *(rows[name] for name in item.minus))
            effect -= there if math.isnan(there) else max(there, 0.0)
        if math.isfinite(effect):
            effects.append(effect)
        elif all(math.isfinite(value(rows[n], metric)) for n in item.arms if n != item.baseline):
            without += 1
        else:
            diverged += 1
    return effects, diverged, without


def _effect(metric: Metric, arm: Row, baseline: Row) -> float:
    difference = merit(arm, metric) - merit(baseline, metric)
    sign = 1.0 if metric.better == "higher" else -1.0
    return sign * (100.0 if metric.effect == "points" else 1.0) * difference


def summarize(experiment: Experiment) -> dict[str, Any]:
    """Return arms, effects and verdicts as JSON values.

    Returns
    -------
    dict
        ``name``, ``title``, ``source``, ``hash``, ``quick``, ``datasets``, of them ``built_in``,
        those that lie in no folder, ``seeds``; ``left``,
        the replicates to come (verdicts are None until there are none, and for ``quick``);
        ``tuned``: by arm and metric the learning rate and strength of noise, and which of them is
        at an end of its grid; ``arms``: mean and standard deviation of each metric by arm and
        setting; ``comparisons``: effects with their interval, tests and wins, and for claims the
        verdict.
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
        "built_in": [name for name in protocol.datasets if name in BUILT_IN],
        "seeds": protocol.seeds,
        "left": left,
        "tuned": _tuned(experiment),
        "arms": _arms(experiment),
        "comparisons": [
            _described(experiment, item, effect, p, judged=not left and not experiment.quick)
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
    found = estimate(effects, confidence=confidence, diverged=diverged, without=without)
    shown = experiment.protocol.metric(item.metric).shown
    return replace(found, mean=shown(found.mean), low=shown(found.low), high=shown(found.high))


def _verdict(experiment: Experiment, item: Comparison, effect: Estimate, p: float) -> Verdict:
    there, reached = None, True
    if item.minus is not None:
        arm, baseline = item.minus
        there = _estimated(experiment, replace(item, arm=arm, baseline=baseline, minus=None))
    if item.reach is not None:
        higher = experiment.protocol.metric(item.metric).better == "higher"
        own = _own(experiment, item)
        reached = own >= item.reach if higher else own <= item.reach
    return verdict(
        effect,
        p,
        item,
        experiment.protocol.rule,
        there=there,
        reached=reached,
        tuned_away=_tuned_away(experiment, item),
    )


def _tuned_away(experiment: Experiment, item: Comparison) -> bool:
    """Tell whether an arm does best with next to no noise: what it gains is its learning rate's."""
    protocol = experiment.protocol
    noisy = vars(protocol.config(item.arm))["noise"] not in (None, "none")
    if item.rate == "same" or not noisy or len(protocol.tuning.strengths) < 2:
        return False
    return experiment.setting(item.arm, item).strength == min(protocol.tuning.strengths)


def _own(experiment: Experiment, item: Comparison) -> float:
    """Return the arm's own mean of the metric; NaN if a replicate diverged."""
    metric = experiment.protocol.metric(item.metric)
    rows = experiment.reported(item.arm, experiment.setting(item.arm, item))
    return float(np.mean([value(rows[seed], metric) for seed in sorted(rows)] or math.nan))


def _described(
    experiment: Experiment, item: Comparison, effect: Estimate, p: float, *, judged: bool
) -> dict[str, Any]:
    protocol = experiment.protocol
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
        "reach": item.reach,
        "own": None if item.reach is None else _own(experiment, item),
        "tuned_away": _tuned_away(experiment, item),
        "mean": effect.mean,
        "low": effect.low,
        "high": effect.high,
        "wins": effect.wins,
        "pairs": effect.n + effect.diverged + effect.baseline_diverged,
        "diverged": effect.diverged,
        "baseline_diverged": effect.baseline_diverged,
        "p": effect.p,
        "p_holm": p,
        "verdict": _verdict(experiment, item, effect, p) if item.claim and judged else None,
    }


def _tuned(experiment: Experiment) -> list[dict[str, Any]]:
    ends = at_an_end(experiment.protocol, experiment.rows)
    return [
        {
            "arm": arm,
            "metric": metric,
            "learning_rate": setting.rate,
            "strength": setting.strength,
            "at_an_end": ends[arm, metric] or None,
        }
        for (arm, metric), setting in experiment.tuned.items()
    ]


def _arms(experiment: Experiment) -> list[dict[str, Any]]:
    """Describe each arm at each of its settings, and say which comparisons are at it."""
    protocol = experiment.protocol
    table: dict[tuple[str, Setting], dict[str, None]] = {}
    for item in sorted(protocol.comparisons, key=lambda item: item.rate):
        by = "same" if item.rate == "same" else f"tuned by {protocol.tuned_by(item.metric)}"
        for name in item.arms:
            table.setdefault((name, experiment.setting(name, item)), {})[by] = None
    order = [arm.name for arm in protocol.arms]
    return [
        {
            "arm": name,
            "rate": ", ".join(table[name, setting]),
            "learning_rate": setting.rate,
            "strength": setting.strength,
            **_scores(list(experiment.reported(name, setting).values()), protocol.metrics),
        }
        for name, setting in sorted(table, key=lambda pair: (order.index(pair[0]), pair[1]))
    ]


def _scores(rows: Sequence[Row], metrics: Iterable[Metric]) -> Mapping[str, Any]:
    finished = [row for row in rows if row["status"] == "finished"]
    table: dict[str, Any] = {
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
