"""Measuring slopes of one function at one point, and judging its gradient by them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nembp.verification.differences import Slope
from nembp.verification.layout import Vector
from nembp.verification.lines import ERROR_FACTOR, Lines
from nembp.verification.objectives import Objective
from nembp.verification.reports import Coordinate

__all__ = ["Examination", "Tolerances"]

NOISE_FACTOR = 10.0  # safety factor on the rounding seen in the gradient itself
FOUND = 1e-3  # the relative error whose discovery is the aim


@dataclass(frozen=True)
class Tolerances:
    """What a gradient is allowed beyond the errors of its measurement.

    rtol · max(|analytic|, |numeric|) + atol, plus ten times ``noise``, the rounding error seen in
    each coordinate of the gradient itself.
    """

    rtol: float
    atol: float
    noise: Vector


class Examination:
    """One point, the gradient claimed there, and what has been measured of it so far.

    Parameters
    ----------
    objective : Objective
        The function.
    theta, gradient, scale : array, shape (size,)
        The point, the claim, and the length over which each coordinate matters.
    tolerances : Tolerances
        What the claim is allowed.
    generator : numpy.random.Generator
        Of the random directions.

    Attributes
    ----------
    lines : Lines
        The function around the point.
    measured : dict of Coordinate
        By index.
    threshold : array, shape (size,)
        The smallest error of each coordinate that the measurements so far would have found.
    claim : array, shape (size,)
        The gradient, with coordinates found wrong replaced by what was measured.
    """

    def __init__(
        self,
        objective: Objective,
        theta: Vector,
        gradient: Vector,
        scale: Vector,
        tolerances: Tolerances,
        generator: np.random.Generator,
    ) -> None:
        self.objective, self.theta, self.scale = objective, theta.astype(float), scale
        self.gradient, self.claim = gradient, gradient.copy()
        self.tolerances, self.generator = tolerances, generator
        self.size = theta.size
        self.lines = Lines(objective, theta, generator)
        self.measured: dict[int, Coordinate] = {}
        self.threshold = np.full(self.size, np.inf)
        self.directions = 0
        self._floor = 0.0
        finite = np.abs(gradient[np.isfinite(gradient)])
        self.small = 1e-9 * float(np.max(finite, initial=0.0))

    @property
    def analytic(self) -> bool:
        """Whether complex steps are used."""
        return self.lines.analytic

    @property
    def method(self) -> str:
        """How slopes are measured."""
        return "complex" if self.analytic else "central"

    def prepare(self, method: str) -> None:
        """Measure the noise of the values, and find out whether complex steps apply."""
        everything = np.arange(self.size)
        self.lines.prepare(method, [self._signs(everything) for _ in range(2)])
        # a change of f that its own rounding hides: where a neuron saturates, 1 − a² is no better
        self._floor = 256.0 * self.lines.noise if self.analytic else 0.0

    def calibrate(self, indices: Vector) -> None:
        """Choose the step of quick measurements by these coordinates."""
        self.lines.calibrate([self._unit(int(index)) for index in indices])

    # -- one coordinate ------------------------------------------------------------------------
    def measure(self, index: int, *, thorough: bool = True) -> Coordinate:
        """Measure and judge one coordinate: by a sweep, or by two steps that others found good."""
        v = self._unit(index)
        slope = self.lines.slope(v) if thorough else self.lines.quick(v)
        coordinate = self._judge(index, slope)
        if thorough and not coordinate.passed and math.isfinite(coordinate.numeric):
            other = self._by_sides if self.analytic else self._by_short_steps
            coordinate = other(index, v, coordinate)
        self.measured[index] = coordinate
        if coordinate.tolerance > 0.0 and coordinate.sides is None:
            self.threshold[index] = min(self.threshold[index], coordinate.tolerance)
        return coordinate

    def _by_short_steps(self, index: int, v: Vector, first: Coordinate) -> Coordinate:
        second = self._judge(index, self.lines.short_sweep(v), "central")
        return second if second.passed and second.numeric != 0.0 else first

    def _by_sides(self, index: int, v: Vector, first: Coordinate) -> Coordinate:
        """Look for a kink, which a complex step passes on one side."""
        second = self._judge(index, self.lines.sweep(v), "central")
        errors = second.truncation + second.rounding
        apart = abs(first.numeric - second.numeric) > ERROR_FACTOR * errors
        return second if apart and math.isfinite(second.numeric) else first

    def _judge(self, index: int, slope: Slope, method: str | None = None) -> Coordinate:
        slope = slope.scaled(float(self.scale[index]))
        g, allowed = float(self.gradient[index]), self.tolerances
        known = math.isfinite(slope.value)
        tolerance = 0.0
        if known and math.isfinite(g):
            tolerance = allowed.rtol * max(abs(g), abs(slope.value)) + allowed.atol
            tolerance += NOISE_FACTOR * float(allowed.noise[index]) + ERROR_FACTOR * slope.error
            tolerance += self._floor / float(self.scale[index])
        return Coordinate(
            label=self.objective.layout.label(index),
            index=index,
            analytic=g,
            numeric=slope.value,
            truncation=slope.truncation,
            rounding=slope.rounding,
            tolerance=tolerance,
            scale=self.small,
            method=method or self.method,
            step=slope.step,
            sides=(slope.left, slope.right) if slope.kink and known else None,
            suspected=_suspected(slope) if known else None,
        )

    # -- many coordinates ----------------------------------------------------------------------
    def probe(self, members: Vector) -> Coordinate:
        """Measure and judge ``claim`` along a direction of random signs over ``members``.

        An error in any one of them shows in full, whatever the signs; rounding errors and small
        differences of all the others add up like a random walk.
        """
        self.directions += 1
        v, allowed = self._signs(members), self.tolerances
        slope = self.lines.slope_of_many(v)
        terms = self.claim[members] * v[members]
        tolerance = 0.0
        if math.isfinite(slope.value):
            tolerance = allowed.rtol * float(np.linalg.norm(terms)) + ERROR_FACTOR * slope.error
            tolerance += NOISE_FACTOR * float(np.linalg.norm(allowed.noise[members] * v[members]))
            tolerance += allowed.atol * float(np.linalg.norm(v)) + self._floor
        seen = Coordinate(
            label=self._label(members),
            index=None,
            analytic=math.fsum(terms),
            numeric=slope.value,
            truncation=slope.truncation,
            rounding=slope.rounding,
            tolerance=tolerance,
            scale=float(np.linalg.norm(terms)),
            method=self.method,
            step=slope.step,
            sides=(slope.left, slope.right) if slope.kink else None,
            suspected=_suspected(slope),
        )
        if seen.passed and not slope.kink:
            found = tolerance / self.scale[members]
            self.threshold[members] = np.minimum(self.threshold[members], found)
        return seen

    def is_unsettled(self, members: Vector) -> bool:
        """Whether steps a thousand times shorter measure another slope over ``members``.

        Steps that suit most of them may be far too long for one.
        """
        if self.analytic:
            return False
        v = self._signs(members)
        long, short = self.lines.slope_of_many(v), self.lines.short_sweep(v)
        apart = abs(long.value - short.value)
        return apart > ERROR_FACTOR * (long.error + short.error)

    def _label(self, members: Vector) -> str:
        layout = self.objective.layout
        first, last = layout.label(int(members[0])), layout.label(int(members[-1]))
        return f"the slope along random signs of {members.size} coordinates, {first} to {last},"

    def _signs(self, members: Vector) -> Vector:
        v = np.zeros(self.size)
        v[members] = self.scale[members] * self.generator.choice([-1.0, 1.0], members.size)
        return v

    def _unit(self, index: int) -> Vector:
        v = np.zeros(self.size)
        v[index] = self.scale[index]
        return v


def _suspected(slope: Slope) -> tuple[float, float] | None:
    """Return the one-sided slopes with their errors, where there are any."""
    if not (math.isfinite(slope.left) and math.isfinite(slope.right)):
        return None
    low, high = sorted((slope.left, slope.right))
    return low - ERROR_FACTOR * slope.side_error, high + ERROR_FACTOR * slope.side_error
