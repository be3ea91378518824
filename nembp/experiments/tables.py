"""Verdicts as a table: text, Markdown or JSON values, a row a claim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["amount", "arms", "claim_rows", "command", "details", "effect", "markdown", "wins"]

HEADINGS = ("claim", "published", "same rate [95 %]", "tuned [95 %]", "verdict", "command")


def claim_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table's row of each claim of a summary; the first row is the headings.

    A claim was measured with its arms at the same learning rate, as published, with each at its
    own best settings, or both; verdicts that differ are given in this order.
    """
    claims: dict[str, dict[str, Mapping[str, Any]]] = {}
    for item in summary["comparisons"]:
        if item["claim"]:
            claims.setdefault(item["claim"], {})[item["rate"]] = item
    where = summary["title"].split(", ", 1)[-1]
    rows: list[tuple[str, ...]] = [HEADINGS]
    for claim, items in claims.items():
        first = next(iter(items.values()))
        figure = first["published"]
        rows.append((
            f"{claim} ({where})",
            "-" if figure is None else amount(figure, first["unit"]),
            *(effect(items[rate]) if rate in items else "-" for rate in ("same", "tuned")),
            _verdicts(summary, items),
            command(summary),
        ))  # fmt: skip
    return rows


def _verdicts(summary: Mapping[str, Any], items: Mapping[str, Mapping[str, Any]]) -> str:
    if summary["quick"]:
        return "none: a quick look"
    if summary["left"]:
        return f"unfinished ({summary['left']} replicates to go)"
    same, tuned = (items[rate]["verdict"] if rate in items else "" for rate in ("same", "tuned"))
    if not same or not tuned or same == tuned:
        return str(same or tuned)
    return f"{same}; tuned: {tuned}"


def command(summary: Mapping[str, Any]) -> str:
    """Return the command that runs an experiment."""
    where = [
        f" --data-dir {name}=data/{name}"
        for name in summary["datasets"]
        if name not in summary["built_in"]
    ]
    flag = " --quick" if summary["quick"] else ""
    return f"nembp experiment run {summary['name']}{''.join(where)}{flag}"


def details(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return every comparison of a summary, controls too; the first row is the headings."""
    rows: list[tuple[str, ...]] = [
        ("comparison", "arm", "baseline", "rate", "effect [95 %]", "wins", "p")
    ]
    for item in summary["comparisons"]:
        rows.append((
            item["comparison"], item["arm"], item["baseline"], item["rate"], effect(item),
            wins(item), f"{item['p_holm']:.2g}",
        ))  # fmt: skip
    return rows


def arms(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
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
    """Write an effect.

    >>> amount(39.0, "%"), amount(-0.234, "points")
    ('+39 %', '-0.234 points')
    """
    return f"{value:+.3g} {unit}".rstrip()


def effect(item: Mapping[str, Any]) -> str:
    """Write a mean effect with its interval, or that there is none; and what had to be reached."""
    if item["mean"] is None or not math.isfinite(item["mean"]):
        return "-"
    found = f"{amount(item['mean'], item['unit'])} [{item['low']:+.3g}, {item['high']:+.3g}]"
    if item["tuned_away"]:
        found += "; noise tuned away"
    return found if item["reach"] is None else f"{found}; {item['own']:.3g} of {item['reach']:g}"


def wins(item: Mapping[str, Any]) -> str:
    """Write the seeds won, and those that diverged."""
    lost = item["diverged"] + item["baseline_diverged"]
    return f"{item['wins']}/{item['pairs']}" + (f", {lost} diverged" if lost else "")


def markdown(rows: Iterable[Sequence[str]]) -> str:
    r"""Write rows as a Markdown table, the first as its heading; commands as code.

    >>> print(markdown([("claim", "command"), ("a | b", "nembp experiment run x")]))
    | claim | command |
    | --- | --- |
    | a \| b | `nembp experiment run x` |
    """
    lines = []
    for number, row in enumerate(rows):
        cells = [cell.replace("|", "\\|") for cell in row]
        cells = [f"`{cell}`" if cell.startswith("nembp ") else cell for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
        if number == 0:
            lines.append(f"| {' | '.join('---' for _ in row)} |")
    return "\n".join(lines)
