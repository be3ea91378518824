"""Whether a function and its gradient are the same from call to call, and how exactly."""

from __future__ import annotations

import numpy as np

from nembp.verification.layout import Vector
from nembp.verification.objectives import Objective
from nembp.verification.reports import Coordinate

__all__ = ["compare_calls", "gradient_noise"]

REPEATABLE = 1e4  # times machine epsilon: a second call may add in another order


def compare_calls(
    objective: Objective, first: tuple[float, Vector], elsewhere: Vector | None
) -> tuple[Coordinate, str] | None:
    """Ask for value and gradient again, and return what differs, with a guess at the cause.

    Parameters
    ----------
    objective : Objective
        Asked at its layout's point.
    first : float, array
        What the first call gave there.
    elsewhere : array or None
        The gradient of a call at another point in between.
    """
    theta = objective.layout.theta
    value, gradient = objective.pair(theta)
    epsilon = REPEATABLE * max(float(np.finfo(theta.dtype).eps), objective.resolution)
    if abs(value - first[0]) > epsilon * max(abs(value), abs(first[0])):
        cause = "the value changes from call to call; fix its random draws or its state"
        return Coordinate("the value", None, value, first[0], method="repeat"), cause
    change = np.abs(gradient - first[1])
    size = float(np.max(np.abs(first[1][np.isfinite(first[1])]), initial=0.0))
    same = (gradient == first[1]) | (np.isnan(gradient) & np.isnan(first[1]))
    changed = ~(change <= epsilon * size) & ~same
    if not np.any(changed):
        return None
    index = int(np.argmax(np.where(changed, np.nan_to_num(change, nan=np.inf), -1.0)))
    label = objective.layout.label(index)
    seen = float(gradient[index]), float(first[1][index])
    return Coordinate(label, index, *seen, method="repeat"), _state(gradient, first[1], elsewhere)


def _state(now: Vector, first: Vector, between: Vector | None) -> str:
    """Return what kind of state makes ``now`` differ from ``first`` after a call ``between``."""
    if between is not None:
        late = np.array_equal(between, first)  # the call in between gave the first point's
        if late or np.allclose(now, between, rtol=1e-6, atol=0.0):
            return "a stale buffer: the gradient of the point before comes back"
        size = 1e-6 * float(np.max(np.abs(now)))
        # between is what accumulated after two calls, now after three
        if np.allclose(now - between, first, rtol=1e-6, atol=size):
            return "a stale buffer: each call adds to the gradient of the one before"
    return "a stale buffer, or random draws: the gradient changes from call to call"


def gradient_noise(
    objective: Objective, gradient: Vector, generator: np.random.Generator
) -> Vector:
    """Return the rounding error of each coordinate: its spread over points an ulp apart.

    A share of the largest coordinate is added, since neurons that saturate round to plateaus.
    """
    theta = objective.layout.theta
    epsilon = float(np.finfo(theta.dtype).eps)
    spread = epsilon * np.abs(gradient)
    for _ in range(3):
        wobble = 1.0 + 2.0 * epsilon * generator.choice([-1.0, 0.0, 1.0], theta.size)
        try:
            _, near = objective.pair((theta * wobble).astype(theta.dtype))
        except (ArithmeticError, ValueError):  # the point is at the edge of the domain
            continue
        spread = np.fmax(spread, np.abs(near - gradient))
    finite = np.isfinite(spread)
    if not np.any(finite):
        return np.zeros_like(spread)
    largest = float(np.max(np.abs(gradient[finite])))
    common = float(np.median(spread[finite])) + 4.0 * epsilon * largest
    return np.asarray(np.where(finite, spread, 0.0) + common)
