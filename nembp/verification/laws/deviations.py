"""How far two numbers that should be equal are apart, and slopes to compare gradients with.

A law is a generator of :class:`Deviation`: one for each equation that it looks at. Its error is
relative to the larger of what was expected and ``scale``, the size of the terms that the two
numbers were summed from, on which rounding acts. So one tolerance serves a whole law.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp.errors import VerificationError

__all__ = [
    "CENTRAL",
    "COMPLEX",
    "ROUNDING",
    "Deviation",
    "Deviations",
    "central_slope",
    "check",
    "complex_slope",
    "equal",
    "gradient_of",
    "holds",
    "near",
    "relative_error",
    "worst_of",
]

Vector = np.ndarray[Any, Any]
Function = Callable[[Vector], Any]

ROUNDING = 1e-12  # relative error allowed between two ways to compute the same float64 number
COMPLEX = 1e-10  # against complex steps
CENTRAL = 1e-6  # against central differences
SMOOTH_STEP, KINK_STEP = 3e-4, 1e-5
KINK_MARGIN = 1e-3  # pre-activations this near to zero could cross it within a step
COORDINATES = 24  # of a gradient that are looked at one by one


@dataclass(frozen=True)
class Deviation:
    """One comparison.

    Attributes
    ----------
    what : str
        What was compared, with the place of the worst entry: ``gradient[3]``.
    error : float
        Worst relative error; inf where a statement without numbers does not hold, or a value is
        not finite.
    actual, expected : float
        The worst entry's two values; NaN where there are none.
    """

    what: str
    error: float
    actual: float = math.nan
    expected: float = math.nan

    def __str__(self) -> str:
        if math.isnan(self.expected):
            return self.what
        return (
            f"{self.what} is {self.actual:.6g}, expected {self.expected:.6g} "
            f"(relative error {self.error:.1e})"
        )


Deviations = Iterator[Deviation]


def near(
    actual: Any, expected: Any, what: str, scale: float = 0.0, labels: Sequence[str] = ()
) -> Deviation:
    """Return max |actual − expected| / max(max |expected|, ``scale``), and where it is.

    Parameters
    ----------
    actual, expected : array
        On the host.
    what : str
        Name of the quantity.
    scale : float
        Size of the terms behind it.
    labels : sequence of str, optional
        Names of the entries; their index by default.

    >>> print(near([1.0, 2.0], [1.0, 2.5], "a"))
    a[1] is 2, expected 2.5 (relative error 2.0e-01)
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        return Deviation(f"{what} has shape {actual.shape}, expected {expected.shape}", math.inf)
    if actual.size == 0:
        return Deviation(what, 0.0)
    actual, expected = actual.astype(float), expected.astype(float)
    with np.errstate(invalid="ignore"):
        distance = np.asarray(np.abs(actual - expected))
    shape = distance.shape
    distance = np.atleast_1d(distance)
    distance[~np.isfinite(distance)] = math.inf
    place = int(np.argmax(distance))
    worst = float(distance.reshape(-1)[place])
    error = 0.0
    if worst > 0.0:
        sizes = np.abs(expected[np.isfinite(expected)])
        error = worst / max(float(np.max(sizes, initial=0.0)), scale, 1e-300)
    where = what
    if labels:
        where = f"{what}, {labels[place]},"
    elif actual.ndim:
        index = ", ".join(str(int(i)) for i in np.unravel_index(place, shape))
        where = f"{what}[{index}]"
    return Deviation(
        where, error, float(actual.reshape(-1)[place]), float(expected.reshape(-1)[place])
    )


def relative_error(actual: Any, expected: Any, scale: float = 0.0) -> float:
    """Return :func:`near`'s error alone."""
    return near(actual, expected, "", scale).error


def holds(condition: Any, what: str) -> Deviation:
    """Return no deviation where ``condition`` is true, an infinite one where it is not."""
    return Deviation(what, 0.0 if condition else math.inf)


def equal(actual: Any, expected: Any, what: str) -> Deviation:
    """Return no deviation where all bits agree, an infinite one where any does not."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape == expected.shape and np.array_equal(actual, expected, equal_nan=True):
        return Deviation(what, 0.0)
    found = near(actual, expected, what)
    return Deviation(found.what, math.inf, found.actual, found.expected)


def worst_of(deviations: Iterable[Deviation]) -> Deviation | None:
    """Return the deviation with the largest error, None if there is none."""
    return max(deviations, key=lambda d: d.error, default=None)


def check(deviations: Iterable[Deviation], tolerance: float = ROUNDING) -> None:
    """Raise VerificationError at the first deviation of more than ``tolerance``."""
    for deviation in deviations:
        if not deviation.error <= tolerance:
            raise VerificationError(f"{deviation}; tolerance {tolerance:.0e}")


# -- slopes ------------------------------------------------------------------------------------
def central_slope(f: Function, at: Vector, direction: Vector, step: float) -> float:
    """Return df(at + s·direction)/ds at s = 0 by central differences of fourth order."""

    def difference(h: float) -> float:
        return float(f(at + h * direction) - f(at - h * direction)) / (2.0 * h)

    return (4.0 * difference(step / 2.0) - difference(step)) / 3.0


def complex_slope(f: Function, at: Vector, direction: Vector) -> float:
    """Return the same by a complex step, exact to rounding for an analytic f (Squire and Trapp)."""
    h = 1e-30
    return float(np.imag(f(at + 1j * h * direction)) / h)


def gradient_of(
    f: Function,
    at: Vector,
    gradient: Any,
    what: str,
    *,
    generator: np.random.Generator,
    method: str,
    smooth: bool = True,
    scale: float = 0.0,
) -> Deviations:
    """Compare ``gradient`` with the slopes of ``f`` at ``at``.

    One coordinate at a time (up to 24 random ones), along the gradient itself, and along two
    random directions.

    Parameters
    ----------
    f : callable
        Takes an array of the shape of ``at``; complex ones too for complex steps.
    at, gradient : array
        The point, and what is claimed there.
    what : str
        Name of the gradient.
    generator : numpy.random.Generator
        Of the coordinates and directions.
    method : {"complex", "central"}
        Complex steps, or central differences.
    smooth : bool
        False shortens the steps for functions with kinks.
    scale : float
        Size of the terms that the gradient is summed from.
    """
    claim, flat = np.ravel(gradient), at.reshape(-1)
    yield holds(claim.shape == flat.shape, f"{what} has {claim.size} entries, not {flat.size}")
    yield holds(np.all(np.isfinite(claim)), f"{what} is finite everywhere")
    if claim.shape != flat.shape:
        return
    chosen = generator.permutation(flat.size)[:COORDINATES]
    labels = [f"coordinate {i}" for i in chosen]
    directions = list(np.eye(flat.size)[chosen])
    norm = float(np.linalg.norm(claim))
    if 0.0 < norm < math.inf:
        directions.append(claim / norm)
        labels.append("along itself")
    for v in generator.standard_normal((2, flat.size)):
        directions.append(v / np.linalg.norm(v))
        labels.append("along a random direction")

    def of_flat(v: Vector) -> Any:
        return f(v.reshape(at.shape))

    if method == "complex":
        slopes = [complex_slope(of_flat, flat, v) for v in directions]
    else:
        step = SMOOTH_STEP if smooth else KINK_STEP
        # f itself is only known to 2e-16, and differences divide that by the step
        scale = max(scale, 1e-15 * abs(float(f(at))) / step / CENTRAL)
        slopes = [central_slope(of_flat, flat, v, step) for v in directions]
    steps = {"complex": "complex steps", "central": "central differences"}[method]
    claims = [float(claim @ v) for v in directions]
    yield near(claims, slopes, f"{what} against {steps}", scale, labels)
