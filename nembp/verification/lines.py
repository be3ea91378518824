"""Slopes of a function along straight lines through one point, by the method that suits it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nembp.verification.differences import (
    COMPLEX_STEP,
    LARGEST_STEP,
    RATIO,
    Slope,
    complex_slope,
    noise_of,
    quick_slope,
    quick_step,
    sweep,
)
from nembp.verification.layout import Vector
from nembp.verification.objectives import Objective

__all__ = ["ERROR_FACTOR", "Lines"]

ERROR_FACTOR = 4.0  # safety factor on errors that are themselves estimates
SPREAD_FACTOR = 10.0  # of the rounding seen in a few complex steps


class Lines:
    """A function on the lines t ↦ θ + t v through one point.

    Parameters
    ----------
    objective : Objective
        The function.
    theta : array, shape (size,)
        The point.
    generator : numpy.random.Generator
        Of the rounding errors that complex steps are tried with.

    Attributes
    ----------
    value, noise : float
        f at the point, and its rounding error.
    analytic : bool
        Whether complex steps are used.
    """

    def __init__(self, objective: Objective, theta: Vector, generator: np.random.Generator) -> None:
        self.objective, self.theta, self.generator = objective, theta.astype(float), generator
        self.value = objective.value(self.theta)
        self.noise = 0.0
        self.analytic = False
        self._step = LARGEST_STEP * RATIO**-8  # of quick measurements
        self._reach = LARGEST_STEP  # first step along directions over many coordinates

    def prepare(self, method: str, directions: list[Vector]) -> None:
        """Measure the noise of the values, and find out whether complex steps apply."""
        resolution = self.objective.resolution
        self.noise = noise_of(self._line(directions[0]), self.value, resolution)
        if method != "central":
            self.analytic = all(self._is_analytic(v) for v in directions)

    def _is_analytic(self, v: Vector) -> bool:
        """Whether a complex step along ``v`` is taken, and agrees with central differences."""
        at = self.objective.complex_value(self.theta + 1j * COMPLEX_STEP * v)
        if at is None or not np.isfinite(at) or abs(at.real - self.value) > 1e3 * self.noise:
            return False
        exact = complex_slope(self._complex_line(v))
        for central in (self.sweep(v), self.short_sweep(v)):
            allowed = ERROR_FACTOR * central.error + 1e-9 * abs(exact.value)
            if not central.kink and abs(exact.value - central.value) <= allowed:
                return True
        return False

    def restart(self) -> None:
        """Begin sweeps over many coordinates at the longest step again."""
        self._reach = LARGEST_STEP

    def calibrate(self, directions: list[Vector]) -> None:
        """Choose the step of quick measurements: the median of what suits these lines."""
        steps = [quick_step(self._line(v), self.noise) for v in directions]
        self._step = float(np.median(steps))

    def quick(self, v: Vector) -> Slope:
        """Return a slope from few values."""
        if self.analytic:
            return complex_slope(self._complex_line(v))
        return quick_slope(self._line(v), self.noise, self._step)

    def slope(self, v: Vector) -> Slope:
        """Return the slope along one coordinate with the errors that it has."""
        return self._complex(v) if self.analytic else self.sweep(v)

    def slope_of_many(self, v: Vector) -> Slope:
        """Return the slope along many; sweeps begin near the step that was best last time."""
        if self.analytic:
            return self._complex(v)
        slope = sweep(self._line(v), self.value, self.noise, self._reach)
        if slope.step > 0.0:
            self._reach = min(LARGEST_STEP, slope.step * RATIO**2)
        return slope

    def sweep(self, v: Vector) -> Slope:
        """Return the slope by central differences."""
        return sweep(self._line(v), self.value, self.noise)

    def short_sweep(self, v: Vector) -> Slope:
        """Return the slope by steps a thousand times shorter, as if values had no noise.

        Along a coordinate whose scale is far below its magnitude, fast change looks like noise.
        """
        floor = 0.5 * self.objective.resolution * abs(self.value)
        return sweep(self._line(v), self.value, floor, LARGEST_STEP * RATIO**-6)

    def _complex(self, v: Vector) -> Slope:
        """Take complex steps of several lengths, an ulp apart: they spread by rounding."""
        slopes = [complex_slope(self._complex_line(v))]
        for factor in (0.73, 1.19, 1.61):
            wobble = 1.0 + 2e-16 * self.generator.choice([-1.0, 0.0, 1.0], self.theta.size)
            line = self._complex_line(v, self.theta * wobble)
            slopes.append(complex_slope(line, factor * COMPLEX_STEP))
        values = np.array([slope.value for slope in slopes])
        if not np.all(np.isfinite(values)):
            return slopes[0]
        spread = float(np.max(np.abs(values - values[0])))
        return Slope(slopes[0].value, 0.0, slopes[0].rounding + SPREAD_FACTOR * spread)

    def _line(self, v: Vector) -> Callable[[float], float]:
        theta, value = self.theta, self.objective.value
        return lambda t: value(theta + t * v)

    def _complex_line(self, v: Vector, theta: Vector | None = None) -> Callable[[complex], complex]:
        at = self.theta if theta is None else theta

        def phi(t: complex) -> complex:
            value = self.objective.complex_value(at + t * v)
            return complex(math.nan, math.nan) if value is None else value

        return phi
