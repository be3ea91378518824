"""Slopes of a function of one variable, each with its truncation and its rounding error.

Central differences D(h) = (φ(h) − φ(−h)) / 2h are wrong by c₁h² + c₂h⁴ + … (truncation) and by
about ε/h (rounding), where ε is the noise of φ's own values. A sweep over steps h, extrapolated by
Richardson's rule (Ridders 1982), keeps the entry whose two errors together are smallest; ε is
measured by difference tables (Moré and Wild 2011). One-sided slopes of the same values tell a kink.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "COMPLEX_STEP",
    "LARGEST_STEP",
    "RATIO",
    "Slope",
    "complex_slope",
    "noise_of",
    "quick_slope",
    "quick_step",
    "sweep",
]

Line = Callable[[float], float]  # t ↦ φ(t), NaN where it is not defined

LARGEST_STEP = 0.2137  # of the scale; no round number, so that periodic functions do not alias
RATIO = 4.0  # of one step to the next
SHORTEST = 18  # steps at most: down to 1e-11 of the scale
ORDERS = 4  # columns of the extrapolation
COMPLEX_STEP = 1e-30
SURE = 16.0  # times its estimated error: a difference of one-sided slopes that is a kink
STILL = 1e-3  # a hundredth of the shortening from one of these lengths to the one before
ROW = 9  # values in a row, of whose differences the noise is told
# lengths at which the noise of the values is looked for; a float32 cast shows at the longest
# (no powers of two, and two of them, lest they be whole multiples of a float32 argument's grid)
NOISE_LENGTHS = (0.7213 * 2.0**-36, 0.7213 * 2.0**-29, 0.7213 * 2.0**-22, 0.5257 * 2.0**-21)


@dataclass(frozen=True)
class Slope:
    """A numeric derivative and the two errors that it may have.

    Attributes
    ----------
    value, truncation, rounding : float
        φ'(0), and estimates of |error| from the step being too long and too short. NaN and inf
        where no two steps gave finite values.
    step : float
        The step of the entry kept; 0 for a complex step.
    left, right : float
        One-sided slopes; they differ at a kink.
    side_error : float
        Estimate of the error of their difference.
    kink : bool
        Whether they differ by more than that.
    """

    value: float
    truncation: float
    rounding: float
    step: float = 0.0
    left: float = math.nan
    right: float = math.nan
    side_error: float = 0.0
    kink: bool = False

    @property
    def error(self) -> float:
        """Truncation and rounding error together."""
        return self.truncation + self.rounding

    def scaled(self, factor: float) -> Slope:
        """Return the slope with respect to a variable ``factor`` > 0 times as long."""
        inverse = 1.0 / factor
        return Slope(
            self.value * inverse,
            self.truncation * inverse,
            self.rounding * inverse,
            self.step * factor,
            self.left * inverse,
            self.right * inverse,
            self.side_error * inverse,
            self.kink,
        )


def quick_slope(phi: Line, noise: float, step: float) -> Slope:
    """Return D(h) from four values; its truncation error is |D(2h) − D(h)| / 3."""
    short = (phi(step) - phi(-step)) / (2.0 * step)
    long = (phi(2.0 * step) - phi(-2.0 * step)) / (4.0 * step)
    if not (math.isfinite(short) and math.isfinite(long)):
        return Slope(math.nan, math.inf, math.inf, step)
    return Slope(short, abs(long - short) / 3.0, 2.0 * noise / step, step)


def quick_step(phi: Line, noise: float) -> float:
    """Return the step at which :func:`quick_slope` is best along this line."""
    best, step, previous = math.inf, LARGEST_STEP, math.nan
    for k in range(1, SHORTEST):
        h = LARGEST_STEP * RATIO**-k
        difference = (phi(h) - phi(-h)) / (2.0 * h)
        total = abs(difference - previous) / 5.0 + 2.0 * noise / h
        previous = difference
        if total < best:
            best, step = total, h
        elif total > 16.0 * best:
            break
    return step


def sweep(phi: Line, at_zero: float, noise: float, largest: float = LARGEST_STEP) -> Slope:
    """Return the best slope that a sweep over steps can give, and the one-sided slopes.

    Parameters
    ----------
    phi : callable
        The function.
    at_zero : float
        φ(0).
    noise : float
        ε, the size of the rounding errors of φ's values.
    largest : float
        First step. Each later one is a quarter of the one before; the sweep ends where rounding
        alone must exceed the error already reached.
    """
    steps: list[float] = []
    ends: list[tuple[float, float]] = []
    best = (math.inf, math.nan, math.inf, math.inf, 0.0)
    table: list[list[float]] = []
    for k in range(SHORTEST):
        h = largest * RATIO**-k
        if 2.0 * noise / h > best[0] and k > 3:
            break
        steps.append(h)
        ends.append((phi(-h), phi(h)))
        difference = (ends[-1][1] - ends[-1][0]) / (2.0 * h)
        best = min(best, _extend(table, difference, h, noise, 2))
    left, right, jump_error = _one_sided(steps, ends, at_zero, noise)
    kink = abs(right - left) > SURE * jump_error + 1e-9 * (abs(left) + abs(right))
    _, value, truncation, rounding, step = best
    return Slope(value, truncation, rounding, step, left, right, jump_error, kink)


def _extend(
    table: list[list[float]], difference: float, h: float, noise: float, power: int
) -> tuple[float, float, float, float, float]:
    """Add a row to Richardson's table; return its best (error, value, truncation, rounding, h).

    ``power`` is that of h by which each column's error shrinks: 2 for central, 1 for one-sided.
    """
    row = [difference]
    previous = table[-1] if table else []
    rounding = (4.0 / power) * noise / h
    best = (math.inf, math.nan, math.inf, math.inf, h)
    for j in range(1, min(len(previous) + 1, ORDERS)):
        weight = RATIO ** (power * j)
        row.append((weight * row[j - 1] - previous[j - 1]) / (weight - 1.0))
        # an entry's error is at most its distance from the column before, and from the row before
        truncation = abs(row[j] - row[j - 1])
        if j < len(previous):
            truncation = max(truncation, abs(row[j] - previous[j]) / RATIO)
        total = truncation + rounding
        if math.isfinite(row[j]) and total < best[0]:
            best = (total, row[j], truncation, rounding, h)
    table.append(row)
    return best


def _one_sided(
    steps: list[float], ends: list[tuple[float, float]], at_zero: float, noise: float
) -> tuple[float, float, float]:
    """Return the slopes from the left and from the right, and the error of their difference."""
    slopes, error = [], 0.0
    for side, sign in ((0, -1.0), (1, 1.0)):
        table: list[list[float]] = []
        best = (math.inf, math.nan, math.inf, math.inf, 0.0)
        for h, values in zip(steps, ends, strict=True):
            best = min(best, _extend(table, sign * (values[side] - at_zero) / h, h, noise, 1))
        slopes.append(best[1])
        error += best[0]
    return slopes[0], slopes[1], error


def complex_slope(phi: Callable[[complex], complex], step: float = COMPLEX_STEP) -> Slope:
    """Return Im φ(ih)/h with h = 1e-30: no truncation, and no subtraction to round.

    Exact to rounding where φ is analytic (Squire and Trapp 1998).
    """
    value = phi(1j * step).imag / step
    if not math.isfinite(value):
        return Slope(math.nan, math.inf, math.inf)
    return Slope(value, 0.0, 4.0 * float(np.finfo(float).eps) * abs(value))


def noise_of(phi: Line, at_zero: float, resolution: float) -> float:
    """Return ε, the typical rounding error of φ's values near 0.

    The sixth differences of nine values in a row are free of any smooth part and hold
    √(12!/6!²) ε. Looked for at several lengths, since a function that rounds its argument to
    float32 is a staircase whose steps only longer rows see; on either side, since a kink on one
    side would look like noise.

    Parameters
    ----------
    phi, at_zero
        The function and φ(0).
    resolution : float
        Machine epsilon of the values' dtype; ε is at least half of it, times the largest |φ|.
    """
    sides, largest = [], abs(at_zero)
    for sign in (1.0, -1.0):
        worst, still = 0.0, False
        for length in NOISE_LENGTHS:
            values = np.array([at_zero, *(phi(sign * j * length) for j in range(1, ROW))])
            if not np.all(np.isfinite(values)):
                continue
            jump = float(np.max(np.abs(np.diff(values))))
            largest = max(largest, float(np.max(np.abs(values))))
            worst = max(worst, _noise_in(values))
            if still and jump * STILL > resolution * largest:
                worst = max(worst, 0.25 * jump)  # stood still where it should have moved
            still = jump == 0.0
        sides.append(worst)
    low, high = sorted(sides)
    kinked = high > 30.0 * low  # noise is alike on both sides
    return max(low if kinked else high, 0.5 * resolution * largest)


def _noise_in(values: np.ndarray[Any, Any]) -> float:
    estimates = []
    for order in (4, 5, 6):
        differences = np.diff(values, order)
        norm = math.sqrt(math.comb(2 * order, order))
        estimates.append(float(np.sqrt(np.mean(differences**2))) / norm)
    return min(estimates)
