"""Numerical derivatives and relative errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nembp.network import Network

Vector = np.ndarray[Any, Any]
Function = Callable[[Vector], Any]

CENTRAL = 1e-6  # relative error allowed against central differences
COMPLEX = 1e-10  # against complex steps
ROUNDING = 1e-12  # between two ways to compute the same float64 number
SMOOTH_STEP, KINK_STEP = 3e-4, 1e-5
KINK_MARGIN = 1e-3  # pre-activations this near to zero could cross it within a step


def relative_error(actual: Any, expected: Any, scale: float = 0.0) -> float:
    """Return max |actual − expected| / max(max |expected|, ``scale``); inf if shapes differ."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        return np.inf
    if actual.size == 0:
        return 0.0
    distance = np.max(np.abs(actual - expected))
    if distance == 0.0:
        return 0.0
    return float(distance / max(np.max(np.abs(expected)), scale, 1e-300))


def assert_near(
    actual: Any, expected: Any, tolerance: float, what: str, scale: float = 0.0
) -> None:
    """Assert that the relative error is within ``tolerance`` (a NaN never is)."""
    error = relative_error(actual, expected, scale)
    assert error <= tolerance, f"{what}: relative error {error:.2e} > {tolerance:.0e}"


def central_slope(f: Function, at: Vector, direction: Vector, step: float) -> float:
    """Return df(at + s·direction)/ds at s = 0 by central differences of fourth order."""

    def difference(h: float) -> float:
        return float(f(at + h * direction) - f(at - h * direction)) / (2.0 * h)

    return (4.0 * difference(step / 2.0) - difference(step)) / 3.0


def complex_slope(f: Function, at: Vector, direction: Vector) -> float:
    """Return the same by a complex step, exact to rounding for an analytic f (Squire and Trapp)."""
    h = 1e-30
    return float(np.imag(f(at + 1j * h * direction)) / h)


def coordinates(size: int, generator: np.random.Generator, at_most: int = 24) -> Iterable[int]:
    """Return up to ``at_most`` random coordinates, all of them where there are no more."""
    return generator.permutation(size)[:at_most]


def assert_gradient(
    gradient: Any,
    f: Function,
    at: Vector,
    *,
    generator: np.random.Generator,
    analytic: bool,
    smooth: bool = True,
    what: str = "gradient",
) -> None:
    """Assert that ``gradient`` is that of ``f`` at ``at``.

    One coordinate at a time (up to 24 random ones), along the gradient itself, and along two
    random directions: by central differences, and by complex steps if ``f`` is analytic.
    """
    gradient, size = np.ravel(gradient), at.size
    assert gradient.shape == (size,), f"{what} has {gradient.shape} entries, not {size}"
    assert np.all(np.isfinite(gradient)), f"{what} is not finite everywhere"
    unit = np.eye(size)
    directions = [unit[i] for i in coordinates(size, generator)]
    norm = np.linalg.norm(gradient)
    if norm > 0.0:
        directions.append(gradient / norm)
    for v in generator.standard_normal((2, size)):
        directions.append(v / np.linalg.norm(v))
    expected = np.array([gradient @ v for v in directions])
    # f itself is only known to 2e-16, and differences divide that by the step
    h = SMOOTH_STEP if smooth else KINK_STEP
    floor = 1e-15 * abs(float(f(at))) / h / CENTRAL
    flat = at.reshape(-1)

    def of_flat(v: Vector) -> Any:
        return f(v.reshape(at.shape))

    central = [central_slope(of_flat, flat, v, h) for v in directions]
    assert_near(expected, central, CENTRAL, f"{what}, central differences", scale=floor)
    if analytic:
        exact = [complex_slope(of_flat, flat, v) for v in directions]
        assert_near(expected, exact, COMPLEX, f"{what}, complex steps", scale=1e-12)


def nll_of_parameters(net: Network, x: Vector, t: Vector) -> Function:
    """Return parameters ↦ mean negative log-likelihood of ``t`` given ``x``, in nats a row."""
    copies = {np.dtype(np.float64): net.to(dtype="float64")}

    def nll(parameters: Vector) -> Any:
        if parameters.dtype not in copies:
            copies[parameters.dtype] = net.to(dtype=str(parameters.dtype))
        copy = copies[parameters.dtype]
        copy.parameters[...] = parameters
        return -np.mean(copy.log_likelihood(x, t))

    return nll


def nll_of_input(net: Network, t: Vector) -> Function:
    """Return input ↦ mean negative log-likelihood of ``t``."""
    copies = {d: net.to(dtype=d) for d in ("float64", "complex128")}

    def nll(x: Vector) -> Any:
        return -np.mean(copies[str(x.dtype)].log_likelihood(x, t))

    return nll
