"""How a gradient is checked: is it repeatable, right here, right nearby; if not, why."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nembp.backend import stream
from nembp.errors import ArchitectureError
from nembp.verification.causes import guess
from nembp.verification.examination import Examination, Tolerances
from nembp.verification.layout import Vector
from nembp.verification.objectives import REFUSALS, Objective, quiet
from nembp.verification.repeating import compare_calls, gradient_noise
from nembp.verification.reports import Coordinate, GradientReport
from nembp.verification.search import affordable, measure_all, measure_groups, measure_neighbours
from nembp.verification.verdicts import LISTED, between_sides, evidence_of, report_of, worst_first

__all__ = ["Options", "run"]

NEARBY = 0.01  # of the scale: the distance of other points
COMPLEX_RTOL, CENTRAL_RTOL = 1e-9, 1e-7
VISITS, MEETINGS = 6, 3  # points nearby that tell kinks from mistakes
COARSE_NOISE = 1e-10  # relative to the value; float64 functions are far below
COARSE = 500.0  # times the gradient's machine epsilon: the least relative tolerance


@dataclass(frozen=True)
class Options:
    """Options of :func:`~nembp.verification.check_gradient`."""

    name: str
    method: str
    rtol: float | None
    atol: float
    rows: int | None
    budget: int
    elsewhere: bool
    seed: int


def run(objective: Objective, scale: Vector, options: Options) -> GradientReport:
    """Check the gradient of ``objective`` at its layout's point."""
    return _Run(objective, scale, options).report()


class _Run:
    def __init__(self, objective: Objective, scale: Vector, options: Options) -> None:
        self.objective, self.scale, self.options = objective, scale, options
        self.theta: Vector = objective.layout.theta
        self.generator = stream(options.seed, "verification")
        self.value, self.gradient = objective.pair(self.theta)
        self.noise = np.zeros(self.theta.size)
        self.wide: Vector | None = None
        self.here: Examination | None = None

    def report(self) -> GradientReport:
        """Go through the questions, and answer at the first that is not passed."""
        with quiet():
            other = self._visit()
            first = self.value, self.gradient
            changing = compare_calls(self.objective, first, other[1] if other else None)
            if changing is not None:
                return self._finish([changing[0]], changing[1])
            self.noise = gradient_noise(self.objective, self.gradient, self.generator)
            self._widen()
            self.here = self._examine(self.theta, self.gradient)
            if not math.isfinite(self.value):
                seen = Coordinate("the value", None, self.value, math.nan, method="repeat")
                return self._finish([seen], "the value is not finite at this point")
            wrong = self._not_finite(self.here)
            if not wrong:
                wrong = self._without_kinks(self.here, self._measure(self.here))
            if wrong or not self.options.elsewhere:
                return self._finish(wrong)
            return self._finish(*self._look_nearby())

    # -- points nearby -------------------------------------------------------------------------
    def _visit(
        self, distance: float = NEARBY, still: int | None = None
    ) -> tuple[Vector, Vector] | None:
        """Return a point nearby and the gradient claimed there; None if it has none.

        The coordinate ``still`` stays where it is.
        """
        draws = self.generator.uniform(-distance, distance, self.theta.size)
        if still is not None:
            draws[still] = 0.0
        point = (self.theta + draws * self.scale).astype(self.theta.dtype)
        try:
            value, gradient = self.objective.pair(point)
        except (ArithmeticError, ValueError):
            return None
        if not (math.isfinite(value) and np.all(np.isfinite(gradient))):
            return None
        return point, gradient

    def _examine_nearby(
        self, distance: float = NEARBY, still: int | None = None
    ) -> Examination | None:
        """Return the examination of another point nearby."""
        visited = self._visit(distance, still)
        return None if visited is None else self._examine(*visited)

    # -- preparations ----------------------------------------------------------------------------
    def _widen(self) -> None:
        """Take values in float64 if the function does, and its gradient there as evidence."""
        if self.theta.dtype == np.float64:
            return
        self.objective.accept_float64(self.theta)
        if self.objective.dtype == np.float64:
            try:
                self.wide = self.objective.pair(self.theta.astype(np.float64))[1]
            except REFUSALS:
                self.wide = None

    def _examine(self, theta: Vector, gradient: Vector) -> Examination:
        o = self.options
        tolerances = Tolerances(0.0, o.atol, self.noise)
        examination = Examination(
            self.objective, theta, gradient, self.scale, tolerances, self.generator
        )
        examination.prepare(o.method)
        if o.method == "complex" and not examination.analytic:
            raise ArchitectureError(
                "method 'complex' needs a function that takes complex points and is analytic "
                "there: no abs, max or real parts; use method 'auto' or 'central'"
            )
        rtol = o.rtol
        if rtol is None:
            fine = COMPLEX_RTOL if examination.analytic else CENTRAL_RTOL
            rtol = max(fine, COARSE * self.objective.gradient_resolution)
        examination.tolerances = replace(tolerances, rtol=rtol)
        return examination

    # -- is the gradient right? ------------------------------------------------------------------
    def _not_finite(self, here: Examination) -> list[Coordinate]:
        broken = np.flatnonzero(~np.isfinite(self.gradient))
        return [here.measure(int(index)) for index in broken[:LISTED]]

    def _measure(self, here: Examination) -> list[Coordinate]:
        budget = self.options.budget
        measure = measure_all if affordable(here, budget) else measure_groups
        groups = measure(here, budget)
        wrong = worst_first([c for c in here.measured.values() if not c.passed])
        if wrong and wrong[0].index is not None and len(here.measured) < here.size:
            measure_neighbours(here, wrong[0].index, budget)
            wrong = [c for c in here.measured.values() if not c.passed]
        return wrong or groups

    def _without_kinks(self, here: Examination, wrong: list[Coordinate]) -> list[Coordinate]:
        """Return what is wrong and not explained by kinks."""
        if not wrong or not all(math.isfinite(c.distance) for c in wrong):
            return wrong
        some = worst_first(wrong)[:LISTED]
        if all(c.sides is not None for c in some):
            explained = all(self._meet(c) for c in some[:MEETINGS])
        else:
            # values as noisy as float32 take steps so long that kinks lie on both sides
            coarse = here.lines.noise > COARSE_NOISE * abs(here.lines.value)
            unsure = coarse or all(between_sides(c) for c in wrong)
            explained = unsure and self._right_elsewhere(some)
        if not explained:
            return wrong
        for c in wrong:
            if c.index is not None:
                low, high = c.sides or c.suspected or (c.numeric, c.numeric)
                sides = min(low, c.analytic), max(high, c.analytic)
                here.measured[c.index] = replace(c, sides=sides)
        return []

    def _meet(self, coordinate: Coordinate) -> bool:
        """Whether several kinks meet here: moving the other coordinates moves them away.

        Where neurons that push opposite ways are all at the kink, a gradient that counts none of
        them need not lie between the two one-sided slopes.
        """
        if coordinate.index is None or self.theta.size == 1:
            return False
        for _ in range(MEETINGS):
            there = self._examine_nearby(still=coordinate.index)
            if there is None:
                continue
            seen = there.measure(coordinate.index)
            if not seen.passed or seen.sides is not None:
                return False
        return True

    def _right_elsewhere(self, wrong: list[Coordinate]) -> bool:
        """Whether each is right at a point nearby where an error of its size would be found.

        A mistake is wrong there too; a kink that rounding hides is not.
        """
        right = [0] * len(wrong)
        for visit in range(VISITS):
            there = self._examine_nearby(NEARBY * 2.0**visit)  # away from the kink
            if there is None:
                continue
            for k, c in enumerate(wrong):
                everything = np.arange(there.size)
                seen = there.probe(everything) if c.index is None else there.measure(c.index)
                right[k] += seen.passed and seen.tolerance < 2.0 * c.distance
        return min(right) > 0

    def _look_nearby(self) -> tuple[list[Coordinate], str | None]:
        """Check the gradient at two other points: one computed once and kept is wrong at both."""
        wrong: list[Coordinate] = []
        kept = True
        for _ in range(2):
            there = self._examine_nearby()
            if there is None:
                return [], None
            for _ in range(2):
                everything = np.arange(there.size)
                seen = there.probe(everything) if there.size > 1 else there.measure(0)
                if seen.passed or seen.sides is not None or not math.isfinite(seen.numeric):
                    return [], None
            groups = measure_groups(there, self.objective.values + self.options.budget)
            wrong = [c for c in there.measured.values() if not c.passed] or groups
            if all(between_sides(c) for c in wrong):  # also where none is wrong by itself
                return [], None
            kept &= np.array_equal(there.gradient, self.gradient)
        if kept:
            return wrong, "a stale buffer: the same gradient comes back at a different point"
        return wrong, "right at the first point, but wrong at two points nearby"

    # -- what is there to say? -----------------------------------------------------------------
    def _finish(self, wrong: list[Coordinate], cause: str | None = None) -> GradientReport:
        wrong, here = worst_first(wrong), self.here
        if wrong and cause is None and here is not None and wrong[0].index is not None:
            there = self._examine_nearby()
            rows, wide = self.options.rows, self.wide
            cause = guess(evidence_of(here, there, wrong[0], rows=rows, wide=wide))
        if wrong and cause is None and wrong[0].index is None:
            cause = "an error too small, or too widely spread, to be seen in one coordinate"
        return report_of(self.options.name, self.objective, here, wrong, cause)
