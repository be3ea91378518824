"""Turning what was measured of a gradient into a report, with a guess at the cause."""

from __future__ import annotations

import math

import numpy as np

from nembp.verification.causes import Evidence
from nembp.verification.examination import FOUND, Examination
from nembp.verification.layout import Vector
from nembp.verification.objectives import Objective
from nembp.verification.reports import Coordinate, GradientReport

__all__ = ["LISTED", "between_sides", "evidence_of", "report_of", "worst_first"]

LISTED = 20  # failures kept in a report
CONCLUSIVE = 0.1  # a check that would miss a larger relative error in most coordinates says so


def worst_first(wrong: list[Coordinate]) -> list[Coordinate]:
    """Sort coordinates by how many times over tolerance they are."""
    return sorted(wrong, key=lambda c: -min(c.excess, 1e300) - 1e-9 * c.relative_error)


def between_sides(coordinate: Coordinate) -> bool:
    """Whether the claim lies between one-sided slopes, allowing for their errors."""
    sides = coordinate.suspected
    return sides is not None and sides[0] <= coordinate.analytic <= sides[1]


def evidence_of(
    here: Examination,
    there: Examination | None,
    worst: Coordinate,
    *,
    rows: int | None,
    wide: Vector | None,
) -> Evidence:
    """Return what ``here`` was measured, and how the worst coordinate is ``there``, nearby."""
    assert worst.index is not None
    numeric = np.full(here.size, np.nan)
    wrong = np.zeros(here.size, dtype=bool)
    for index, coordinate in here.measured.items():
        numeric[index] = coordinate.numeric
        wrong[index] = not coordinate.passed
    vanishes = curved = False
    if there is not None and math.isfinite(worst.numeric):
        seen = there.measure(worst.index)
        vanishes = seen.passed and abs(seen.analytic) > here.small
        allowed = seen.tolerance + 10.0 * (worst.truncation + worst.rounding)
        curved = abs(seen.numeric - worst.numeric) > allowed
    return Evidence(
        layout=here.objective.layout,
        theta=here.theta,
        analytic=here.gradient,
        numeric=numeric,
        wrong=wrong,
        worst=worst.index,
        rows=rows,
        elsewhere=there.gradient if there is not None else None,
        wide=wide,
        sides=worst.sides,
        vanishes=vanishes,
        curved=curved,
    )


def report_of(
    name: str,
    objective: Objective,
    here: Examination | None,
    wrong: list[Coordinate],
    cause: str | None,
) -> GradientReport:
    """Return the report; ``wrong`` is sorted, worst first."""
    measured = list(here.measured.values()) if here else []
    resolution, covered = _reach(here) if here else (math.inf, 0.0)
    return GradientReport(
        name=name,
        passed=not wrong,
        worst=wrong[0] if wrong else max(measured, key=lambda c: c.excess),
        failures=tuple(wrong[:LISTED]),
        cause=cause,
        method=here.method if here else "central",
        size=objective.layout.size,
        checked=len(measured),
        directions=here.directions if here else 0,
        values=objective.values,
        gradients=objective.gradients,
        noise=here.lines.noise if here else 0.0,
        resolution=resolution,
        covered=covered,
        kinks=sum(c.sides is not None and c.passed for c in measured),
        notes=_notes(objective, not wrong and resolution > CONCLUSIVE),
    )


def _reach(here: Examination) -> tuple[float, float]:
    """Return the median relative error that would have been found, and the share at 0.1 %."""
    gradient = np.abs(here.gradient)
    relevant = gradient > here.small
    if not np.any(relevant):
        return math.inf, 0.0
    relative = here.threshold[relevant] / gradient[relevant]
    return float(np.median(relative)), float(np.mean(relative <= FOUND))


def _notes(objective: Objective, inconclusive: bool) -> tuple[str, ...]:
    notes = []
    if objective.overwritten:
        notes.append("the gradient returned is a buffer that the next call overwrites: copy it")
    if objective.changes_argument:
        notes.append("the function writes into the point that it is given")
    if inconclusive:
        notes.append(
            "inconclusive: at this point most slopes are too small against the rounding of the "
            "values; try another point, or float64"
        )
    return tuple(notes)
