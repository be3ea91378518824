"""Verdicts as a table: text, Markdown or JSON values, a row a claim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["claim_rows", "details", "markdown"]

HEADINGS = ("claim", "published", "measured [95 %]", "wins", "p", "verdict", "command")


def claim_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table's row of each claim of a summary; the first row is the headings."""
    where = [f" --data-dir {name}=data/{name}" for name in summary["datasets"] if name != "digits"]
    flag = " --quick" if summary["quick"] else ""
    command = f"nembp experiment run {summary['name']}{''.join(where)}{flag}"
    rows: list[tuple[str, ...]] = [HEADINGS]
    unfinished = f"unfinished ({summary['left']} replicates to go)"
    for item in summary["comparisons"]:
        if item["claim"]:
            verdict = item["verdict"] or ("none: a quick look" if flag else unfinished)
            rows.append((
                f"{item['claim']} ({summary['title'].split(', ', 1)[-1]})",
                "-" if item["published"] is None else amount(item["published"], item["unit"]),
                effect(item),
                wins(item),
                f"{item['p_holm']:.2g}",
                verdict,
                command,
            ))  # fmt: skip
    return rows


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
    """Return mean ± standard deviation of every metric by arm and rate, under headings."""
    reserved = ("arm", "rate", "learning_rate", "replicates", "diverged")
    metrics = [name for name in summary["arms"][0] if name not in reserved]
    rows: list[tuple[str, ...]] = [("arm", "rate", "learning rate", "diverged", *metrics)]
    for item in summary["arms"]:
        scores = []
        for name in metrics:
            mean, std = item[name]["mean"], item[name]["std"]
            spread = "" if std is None else f" ± {std:.2g}"
            scores.append("-" if mean is None else f"{mean:.4g}{spread}")
        rate = item["learning_rate"]
        rows.append((
            item["arm"], item["rate"], "-" if rate is None else f"{rate:g}",
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
    """Write a mean effect with its interval, or that there is none."""
    if item["mean"] is None or not math.isfinite(item["mean"]):
        return "-"
    return f"{amount(item['mean'], item['unit'])} [{item['low']:+.3g}, {item['high']:+.3g}]"


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
