"""What the rows of an experiment say: tuned settings, scores of arms, effects and verdicts."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nembp.errors import DataError
from nembp.experiments.claims import get
from nembp.experiments.protocol import BUILT_IN, Comparison, Protocol, Row, average
from nembp.experiments.running import journal_of
from nembp.experiments.statistics import Estimate, estimate, holm, verdict
from nembp.experiments.tuning import Grids, Setting


@dataclass(frozen=True)
class Experiment:
    """Rows on disk, and the protocol they are of, with the number of seeds that were asked for.

    ``unsealed`` of the rows have no seal, so that damage to them may go unseen.
    """

    folder: Path
    protocol: Protocol
    rows: list[dict[str, Any]]
    quick: bool
    unsealed: int = 0

    @cached_property
    def grids(self) -> Grids:
        """The grids of its arms."""
        return Grids(self.protocol, self.rows)

    @property
    def left(self) -> int:
        """Replicates still to be run, as far as can be told."""
        return len(self.grids.remaining()[0])

    def compared(self, arm: str, item: Comparison) -> dict[int, Row]:
        """Return the rows of an arm by seed, at the setting that a comparison is about."""
        return self.grids.reported[arm, self.grids.setting(arm, item)]


def read_experiment(
    out_dir: str | os.PathLike[str], name: str, *, quick: bool = False,
    protocol: Protocol | None = None,
) -> Experiment:  # fmt: skip
    """Read the rows of an experiment, by default of the declared protocol of that name.

    ArchitectureError if no experiment has that name, or the rows are of another version of its
    protocol; DataError if there are none, or they are damaged.
    """
    protocol, journal = journal_of(protocol or get(name), out_dir, quick)
    seeds = journal.header().get("seeds", protocol.seeds)
    rows = journal.rows()
    if not rows:
        raise DataError(f"{journal.folder}: no replicate has finished; run it with --resume")
    return Experiment(journal.folder, protocol.with_seeds(seeds), rows, quick, journal.unsealed)


def differences(experiment: Experiment, item: Comparison) -> tuple[list[float], int, int]:
    """Return the effect of each seed, positive as claimed (see `Metric.shown`).

    And at how many seeds the arm (or one of ``minus``) diverged, and at how many only the baseline.
    """
    metric = experiment.protocol.metric(item.metric)
    arms = {name: experiment.compared(name, item) for name in item.arms}
    sign = metric.sign * (100.0 if metric.effect == "points" else 1.0)
    effects, diverged, without = [], 0, 0
    for seed in sorted(set.intersection(*map(set, arms.values()))):
        merit = {name: metric.merit(rows[seed]) for name, rows in arms.items()}
        effect = sign * (merit[item.arm] - merit[item.baseline])
        if item.minus is not None:
            there = sign * (merit[item.minus[0]] - merit[item.minus[1]])
            effect -= there if math.isnan(there) else max(there, 0.0)
        if math.isfinite(effect):
            effects.append(effect)
        elif all(math.isfinite(merit[name]) for name in item.arms if name != item.baseline):
            without += 1
        else:
            diverged += 1
    return effects, diverged, without


def _estimated(experiment: Experiment, item: Comparison) -> Estimate:
    effects, diverged, without = differences(experiment, item)
    found = estimate(effects, experiment.protocol.rule.confidence, diverged, without)
    shown = experiment.protocol.metric(item.metric).shown
    return replace(found, mean=shown(found.mean), low=shown(found.low), high=shown(found.high))


def summarize(experiment: Experiment) -> dict[str, Any]:
    """Return arms, effects and verdicts as JSON values.

    ``left`` are the replicates to come: verdicts are None until there are none, and for ``quick``.
    """
    protocol, left = experiment.protocol, experiment.left
    effects = [_estimated(experiment, item) for item in protocol.comparisons]
    p = np.array([effect.p for effect in effects])
    claims = np.array([bool(item.claim) for item in protocol.comparisons])
    for family in (claims, ~claims):  # claims among claims, controls among controls
        p[family] = holm(p[family])
    compared = [
        _described(experiment, item, effect, float(corrected))
        for item, effect, corrected in zip(protocol.comparisons, effects, p, strict=True)
    ]
    if left or experiment.quick:
        compared = [item | {"verdict": None} for item in compared]
    return {
        "name": protocol.name, "title": protocol.title, "source": protocol.source,
        "hash": protocol.digest, "quick": experiment.quick, "datasets": list(protocol.datasets),
        "built_in": [name for name in protocol.datasets if name in BUILT_IN],
        "seeds": protocol.seeds, "left": left,
        "tuned": [
            {
                "arm": arm, "metric": metric, "learning_rate": setting.rate,
                "strength": setting.strength,
                "at_an_end": experiment.grids.at_an_end(arm, metric) or None,
            }
            for (arm, metric), setting in experiment.grids.tuned.items()
        ],
        "arms": _arms(experiment), "comparisons": compared,
    }  # fmt: skip


def _described(
    experiment: Experiment, item: Comparison, effect: Estimate, p: float
) -> dict[str, Any]:
    protocol, there, own, reached = experiment.protocol, None, None, True
    metric, strengths = protocol.metric(item.metric), protocol.tuning.strengths
    if item.minus is not None:
        arm, baseline = item.minus
        there = _estimated(experiment, replace(item, arm=arm, baseline=baseline, minus=None))
    if item.reach is not None:
        rows = sorted(experiment.compared(item.arm, item).items())
        own = float(np.mean([average(metric.values(row)) for _, row in rows] or math.nan))
        reached = metric.sign * own >= metric.sign * item.reach
    tuned_away = (
        item.rate == "tuned" and protocol.noisy(item.arm) and len(strengths) > 1
        and experiment.grids.setting(item.arm, item).strength == min(strengths)
    )  # fmt: skip
    judgement = verdict(
        effect, p, item, protocol.rule, there=there, reached=reached, tuned_away=tuned_away
    )
    of_item = ("claim", "arm", "baseline", "metric", "rate", "published", "margin", "reach")
    of_effect = ("mean", "low", "high", "wins", "diverged", "baseline_diverged", "p")
    return {
        "comparison": item.name,
        **{name: getattr(item, name) for name in of_item},
        **{name: getattr(effect, name) for name in of_effect},
        "unit": metric.unit, "own": own, "tuned_away": tuned_away, "pairs": effect.pairs,
        "p_holm": p, "verdict": judgement if item.claim else None,
    }  # fmt: skip


def _arms(experiment: Experiment) -> list[dict[str, Any]]:
    """Describe each arm at each of its settings, and say which comparisons use it."""
    protocol, grids = experiment.protocol, experiment.grids
    table: dict[tuple[str, Setting], dict[str, None]] = {}
    for item in sorted(protocol.comparisons, key=lambda item: item.rate):
        by = "same" if item.rate == "same" else f"tuned by {protocol.tuned_by(item.metric)}"
        for name in item.arms:
            table.setdefault((name, grids.setting(name, item)), {})[by] = None
    order = [arm.name for arm in protocol.arms]
    found = []
    for name, setting in sorted(table, key=lambda pair: (order.index(pair[0]), pair[1])):
        rows = list(grids.reported[name, setting].values())
        finished = [row for row in rows if row["status"] == "finished"]
        described: dict[str, Any] = {
            "arm": name, "rate": ", ".join(table[name, setting]), "learning_rate": setting.rate,
            "strength": setting.strength, "replicates": len(rows),
            "diverged": len(rows) - len(finished),
        }  # fmt: skip
        for metric in protocol.metrics:
            values = np.array([average(metric.values(row)) for row in finished])
            described[metric.name] = {
                "mean": float(np.mean(values)) if len(values) > 0 else None,
                "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            }
        found.append(described)
    return found


# -- tables, whose first rows are the headings -----------------------------------------------------
def claim_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row per claim.

    Verdicts at the same rates and at each arm's best settings that differ are given in this order.
    """
    claims: dict[str, dict[str, Mapping[str, Any]]] = {}
    for item in summary["comparisons"]:
        if item["claim"]:
            claims.setdefault(item["claim"], {})[item["rate"]] = item
    where = summary["title"].split(", ", 1)[-1]
    files = [name for name in summary["datasets"] if name not in summary["built_in"]]
    dirs = "".join(f" --data-dir {name}=data/{name}" for name in files)
    command = f"nembp experiment run {summary['name']}{dirs}{' --quick' * summary['quick']}"
    rows: list[tuple[str, ...]] = [
        ("claim", "published", "same rate [95 %]", "tuned [95 %]", "verdict", "command")
    ]
    for claim, items in claims.items():
        first = next(iter(items.values()))
        figure = "-" if first["published"] is None else amount(first["published"], first["unit"])
        same, tuned = (items[r]["verdict"] if r in items else "" for r in ("same", "tuned"))
        found = f"{same}; tuned: {tuned}" if same and tuned and same != tuned else same or tuned
        if summary["left"]:
            found = f"unfinished ({summary['left']} replicates to go)"
        if summary["quick"]:
            found = "none: a quick look"
        at_same, at_best = (effect(items[r]) if r in items else "-" for r in ("same", "tuned"))
        rows.append((f"{claim} ({where})", figure, at_same, at_best, found, command))
    return rows


def comparison_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row per comparison, controls too."""
    rows: list[tuple[str, ...]] = [
        ("comparison", "arm", "baseline", "rate", "effect [95 %]", "wins", "p")
    ]
    for item in summary["comparisons"]:
        lost = item["diverged"] + item["baseline_diverged"]
        wins = f"{item['wins']}/{item['pairs']}" + (f", {lost} diverged" if lost else "")
        names = (item[name] for name in ("comparison", "arm", "baseline", "rate"))
        rows.append((*names, effect(item), wins, f"{item['p_holm']:.2g}"))
    return rows


def arm_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return mean ± standard deviation of every metric by arm and setting."""
    metrics = [name for name, value in summary["arms"][0].items() if isinstance(value, dict)]
    rows = [("arm", "settings", "learning rate", "noise times", "diverged", *metrics)]
    for item in summary["arms"]:
        scores = []
        for name in metrics:
            mean, std = item[name]["mean"], item[name]["std"]
            spread = "" if std is None else f" ± {std:.2g}"
            scores.append("-" if mean is None else f"{mean:.4g}{spread}")
        rows.append((
            item["arm"], item["rate"], f"{item['learning_rate']:g}", f"{item['strength']:g}",
            f"{item['diverged']}/{item['replicates']}", *scores,
        ))  # fmt: skip
    return rows


def amount(value: float, unit: str) -> str:
    """Write an effect, as in +39 %."""
    return f"{value:+.3g} {unit}".rstrip()


def effect(item: Mapping[str, Any]) -> str:
    """Write a mean effect with its interval, and the arm's own mean where one must be reached."""
    if item["mean"] is None or not math.isfinite(item["mean"]):
        return "-"
    found = f"{amount(item['mean'], item['unit'])} [{item['low']:+.3g}, {item['high']:+.3g}]"
    if item["tuned_away"]:
        found += "; noise tuned away"
    return found if item["reach"] is None else f"{found}; {item['own']:.3g} of {item['reach']:g}"


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """Write rows as a Markdown table, the first as its heading; commands as code."""
    lines = []
    for row in rows:
        cells = [cell.replace("|", "\\|") for cell in row]
        cells = [f"`{cell}`" if cell.startswith("nembp ") else cell for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    lines.insert(1, f"|{' --- |' * len(row)}")
    return "\n".join(lines)
