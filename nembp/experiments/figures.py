"""Figures of an experiment: learning curves with bands, and a forest plot of effects.

They need matplotlib, the optional dependency ``nembp[figures]``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from nembp.experiments.protocol import Rate
from nembp.experiments.summary import Experiment
from nembp.experiments.tuning import untuned
from nembp.plotting import figure

WORST = -150.0  # %: relative harm has no bound and would leave no room for the rest; an arrow
INK, UNDECIDED = "#202428", "#697077"
VERDICT_COLOURS = {"reproduced": "#2f7d4f", "reversed": "#b3263e", "not reproduced": "#c26a1c"}


def draw(experiment: Experiment, summary: Mapping[str, Any]) -> list[Path]:
    """Draw curves.png and effects.png into the experiment's folder, and return the files."""
    curves, effects = experiment.folder / "curves.png", experiment.folder / "effects.png"
    with figure(curves, layout="constrained", dpi=120) as sheet:
        _curves(sheet, experiment)
    with figure(effects, layout="constrained", dpi=120) as sheet:
        _effects(sheet, summary)
    return [curves, effects]


def _curves(figure: Any, experiment: Experiment) -> None:
    """Draw mean ± standard deviation over seeds along training, one panel per curve and rate."""
    protocol, grids = experiment.protocol, experiment.grids
    network = protocol.kind == "train"
    # of adversarial runs, those that are compared: there are a dozen others
    shown = ("train/",) if network else tuple(f"course/{metric.key}" for metric in protocol.metrics)
    lines: dict[tuple[str, Rate, str], list[list[float]]] = {}
    for rate in get_args(Rate):
        for arm in protocol.compared(rate):
            setting = untuned(protocol, arm)
            if rate == "tuned":  # by the first metric that it is tuned by
                setting = grids.tuned[arm, grids.metrics[arm][0].name]
            for row in grids.reported[arm, setting].values():
                for key, values in row["curves"].items():
                    if row["status"] == "finished" and key.startswith(shown):
                        lines.setdefault((key, rate, arm), []).append(values)
    keys, rates = (sorted({line[k] for line in lines}) or [""] for k in (0, 1))
    figure.set_size_inches(5 * len(rates), 3.4 * len(keys))
    figure.suptitle(protocol.title)
    axes = figure.subplots(len(keys), len(rates), squeeze=False)
    order = [arm.name for arm in protocol.arms]
    for (key, rate, arm), rows in lines.items():
        axis = axes[keys.index(key)][rates.index(rate)]
        # by epoch; of rows that were tampered with, as far as all reach
        values = np.array(list(zip(*rows, strict=False)), dtype=float).reshape(-1, len(rows))
        colour, epochs = f"C{order.index(arm)}", np.arange(1, len(values) + 1)
        mean = values.mean(axis=1)
        axis.plot(epochs, mean, color=colour, label=arm)
        if len(rows) > 1:
            std = values.std(axis=1, ddof=1)
            axis.fill_between(epochs, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)
        clock = "epoch" if network else "checkpoint"
        axis.set(title=f"{rate} settings", xlabel=clock, ylabel=key.removeprefix("course/"))
        axis.set_yscale("log" if key.endswith("nll") and "backward" not in key else "linear")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        axis.legend(fontsize="small", frameon=False)


def _effects(figure: Any, summary: Mapping[str, Any]) -> None:
    """Draw effects and intervals, one panel per unit; published figures as diamonds."""
    units: dict[str, list[Mapping[str, Any]]] = {}
    for item in summary["comparisons"]:
        if math.isfinite(item["mean"]):
            units.setdefault(item["unit"], []).append(item)
    units = units or {"": []}
    counts = [max(1, len(items)) for items in units.values()]
    figure.set_size_inches(9, 1.6 + 0.34 * sum(counts) + 0.6 * len(units))
    figure.suptitle(f"{summary['title']}: effects, positive as claimed")
    axes = figure.subplots(len(units), 1, squeeze=False, height_ratios=counts)
    for (unit, items), (axis,) in zip(units.items(), axes, strict=True):
        for y, item in enumerate(items):
            colour = VERDICT_COLOURS.get(item["verdict"], UNDECIDED)
            least = WORST if unit == "%" else -math.inf
            low, mean, high = (max(item[name], least) for name in ("low", "mean", "high"))
            axis.plot([low, high], [y, y], color=colour, linewidth=2)
            axis.plot(mean, y, "o" if mean == item["mean"] else "<", color=colour)
            if item["published"] is not None:
                axis.plot(item["published"], y, "D", mfc="none", color=INK)
        axis.axvline(0.0, color=INK, linewidth=0.8)
        verdicts = [i["verdict"] or ("-" if i["claim"] else "control") for i in items]
        labels = [f"{i['comparison']}: {v}" for i, v in zip(items, verdicts, strict=True)]
        axis.set_yticks(range(len(items)), labels, fontsize="small")
        axis.set_ylim(max(1, len(items)) - 0.5, -0.5)
        axis.set_xlabel(f"effect ({unit}), 95 % interval" if unit else "effect, 95 % interval")
        axis.grid(axis="x", alpha=0.25)
