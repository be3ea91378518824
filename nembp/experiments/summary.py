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
from nembp.experiments.protocol import BUILT_IN, Comparison, Protocol, Row
from nembp.experiments.running import protocol_rows, read_protocol
from nembp.experiments.statistics import Estimate, estimate, holm, verdict
from nembp.experiments.tuning import Grids, Setting, Task, by_setting, reporting, untuned


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
        have = {Task.of(row) for row in self.rows}
        wanted = [*self.grids.tasks(), *reporting(self.protocol, self.grids.tuned)]
        return sum(task not in have for task in wanted)

    def setting(self, arm: str, item: Comparison) -> Setting:
        """Return the setting of an arm in a comparison."""
        if item.rate == "same":
            return untuned(self.protocol, arm)
        return self.grids.tuned[arm, self.protocol.tuned_by(item.metric)]

    def reported(self, arm: str, setting: Setting) -> dict[int, Row]:
        """Return the reported rows of an arm at a setting, by seed."""
        return self._reported.get((arm, setting), {})

    @cached_property
    def _reported(self) -> dict[tuple[str, Setting], dict[int, Row]]:
        return by_setting(self.rows, "report", range(self.protocol.seeds))


def read_experiment(
    out_dir: str | os.PathLike[str], name: str, *, quick: bool = False,
    protocol: Protocol | None = None,
) -> Experiment:  # fmt: skip
    """Read the rows of an experiment, by default of the declared protocol of that name.

    ArchitectureError if no experiment has that name, or the rows are of another version of its
    protocol; DataError if there are none, or they are damaged.
    """
    protocol = get(name) if protocol is None else protocol
    folder = Path(out_dir) / (f"{name}-quick" if quick else name)
    protocol = protocol.quick() if quick else protocol
    header = read_protocol(folder, protocol)
    protocol = protocol.with_seeds(header.get("seeds", protocol.seeds))
    rows, unsealed, _ = protocol_rows(folder, protocol)
    if not rows:
        raise DataError(f"{folder}: no replicate has finished; run it with --resume")
    return Experiment(folder, protocol, rows, quick, unsealed)


def differences(experiment: Experiment, item: Comparison) -> tuple[list[float], int, int]:
    """Return the effect of each seed, positive as claimed (see `Metric.shown`).

    And at how many seeds the arm (or one of ``minus``) diverged, and at how many only the baseline.
    """
    metric = experiment.protocol.metric(item.metric)
    arms = {name: experiment.reported(name, experiment.setting(name, item)) for name in item.arms}
    sign = metric.sign * (100.0 if metric.effect == "points" else 1.0)
    effects, diverged, without = [], 0, 0
    for seed in sorted(set.intersection(*(set(rows) for rows in arms.values()))):
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
    protocol, grids = experiment.protocol, experiment.grids
    left = experiment.left
    estimates = [_estimated(experiment, item) for item in protocol.comparisons]
    corrected = np.array([effect.p for effect in estimates])
    claims = np.array([bool(item.claim) for item in protocol.comparisons])
    for family in (claims, ~claims):  # claims among claims, controls among controls
        corrected[family] = holm(corrected[family])
    return {
        "name": protocol.name, "title": protocol.title, "source": protocol.source,
        "hash": protocol.digest, "quick": experiment.quick, "datasets": list(protocol.datasets),
        "built_in": [name for name in protocol.datasets if name in BUILT_IN],
        "seeds": protocol.seeds, "left": left,
        "tuned": [
            {
                "arm": arm, "metric": metric, "learning_rate": setting.rate,
                "strength": setting.strength, "at_an_end": grids.at_an_end(arm, metric) or None,
            }
            for (arm, metric), setting in grids.tuned.items()
        ],
        "arms": _arms(experiment),
        "comparisons": [
            _described(experiment, item, effect, float(p), not left and not experiment.quick)
            for item, effect, p in zip(protocol.comparisons, estimates, corrected, strict=True)
        ],
    }  # fmt: skip


def _described(
    experiment: Experiment, item: Comparison, effect: Estimate, p: float, judged: bool
) -> dict[str, Any]:
    protocol, there, own = experiment.protocol, None, None
    metric, setting = protocol.metric(item.metric), experiment.setting(item.arm, item)
    reached = True
    if item.minus is not None:
        arm, baseline = item.minus
        there = _estimated(experiment, replace(item, arm=arm, baseline=baseline, minus=None))
    if item.reach is not None:
        rows = experiment.reported(item.arm, setting)
        own = float(np.mean([metric.value(rows[seed]) for seed in sorted(rows)] or math.nan))
        reached = metric.sign * own >= metric.sign * item.reach
    strengths = protocol.tuning.strengths
    tuned_away = (
        item.rate == "tuned" and protocol.noisy(item.arm)
        and len(strengths) > 1 and setting.strength == min(strengths)
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
        "unit": metric.unit, "own": own, "tuned_away": tuned_away,
        "pairs": effect.n + effect.diverged + effect.baseline_diverged,
        "p_holm": p, "verdict": judgement if item.claim and judged else None,
    }  # fmt: skip


def _arms(experiment: Experiment) -> list[dict[str, Any]]:
    """Describe each arm at each of its settings, and say which comparisons use it."""
    protocol = experiment.protocol
    table: dict[tuple[str, Setting], dict[str, None]] = {}
    for item in sorted(protocol.comparisons, key=lambda item: item.rate):
        by = "same" if item.rate == "same" else f"tuned by {protocol.tuned_by(item.metric)}"
        for name in item.arms:
            table.setdefault((name, experiment.setting(name, item)), {})[by] = None
    order = [arm.name for arm in protocol.arms]
    found = []
    for name, setting in sorted(table, key=lambda pair: (order.index(pair[0]), pair[1])):
        rows = list(experiment.reported(name, setting).values())
        finished = [row for row in rows if row["status"] == "finished"]
        described: dict[str, Any] = {
            "arm": name, "rate": ", ".join(table[name, setting]), "learning_rate": setting.rate,
            "strength": setting.strength, "replicates": len(rows),
            "diverged": len(rows) - len(finished),
        }  # fmt: skip
        for metric in protocol.metrics:
            values = np.array([metric.value(row) for row in finished])
            described[metric.name] = {
                "mean": float(np.mean(values)) if len(values) > 0 else None,
                "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            }
        found.append(described)
    return found


# -- tables ----------------------------------------------------------------------------------------
def claim_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row per claim; the first row is the headings.

    Verdicts at the same rates and at each arm's best settings that differ are given in this order.
    """
    claims: dict[str, dict[str, Mapping[str, Any]]] = {}
    for item in summary["comparisons"]:
        if item["claim"]:
            claims.setdefault(item["claim"], {})[item["rate"]] = item
    where = summary["title"].split(", ", 1)[-1]
    rows: list[tuple[str, ...]] = [
        ("claim", "published", "same rate [95 %]", "tuned [95 %]", "verdict", "command")
    ]
    for claim, items in claims.items():
        first = next(iter(items.values()))
        figure = first["published"]
        same, tuned = (items[r]["verdict"] if r in items else "" for r in ("same", "tuned"))
        found = f"{same}; tuned: {tuned}" if same and tuned and same != tuned else same or tuned
        if summary["left"]:
            found = f"unfinished ({summary['left']} replicates to go)"
        if summary["quick"]:
            found = "none: a quick look"
        rows.append((
            f"{claim} ({where})",
            "-" if figure is None else amount(figure, first["unit"]),
            *(effect(items[rate]) if rate in items else "-" for rate in ("same", "tuned")),
            found,
            command(summary),
        ))  # fmt: skip
    return rows


def command(summary: Mapping[str, Any]) -> str:
    """Return the command that runs an experiment."""
    files = [name for name in summary["datasets"] if name not in summary["built_in"]]
    where = "".join(f" --data-dir {name}=data/{name}" for name in files)
    return f"nembp experiment run {summary['name']}{where}{' --quick' * summary['quick']}"


def comparison_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row per comparison, controls too; the first row is the headings."""
    rows: list[tuple[str, ...]] = [
        ("comparison", "arm", "baseline", "rate", "effect [95 %]", "wins", "p")
    ]
    for item in summary["comparisons"]:
        lost = item["diverged"] + item["baseline_diverged"]
        wins = f"{item['wins']}/{item['pairs']}" + (f", {lost} diverged" if lost else "")
        rows.append((
            item["comparison"], item["arm"], item["baseline"], item["rate"], effect(item), wins,
            f"{item['p_holm']:.2g}",
        ))  # fmt: skip
    return rows


def arm_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return mean ± standard deviation of every metric by arm and setting, under headings."""
    reserved = ("arm", "rate", "learning_rate", "strength", "replicates", "diverged")
    metrics = [name for name in summary["arms"][0] if name not in reserved]
    rows: list[tuple[str, ...]] = [
        ("arm", "settings", "learning rate", "noise times", "diverged", *metrics)
    ]
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
    for number, row in enumerate(rows):
        cells = [cell.replace("|", "\\|") for cell in row]
        cells = [f"`{cell}`" if cell.startswith("nembp ") else cell for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
        if number == 0:
            lines.append(f"| {' | '.join('---' for _ in row)} |")
    return "\n".join(lines)
