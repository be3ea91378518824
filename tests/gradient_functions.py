"""Functions with right gradients, on which a gradient checker may never raise a false alarm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Pair = tuple[Callable[[np.ndarray], tuple[Any, np.ndarray]], np.ndarray]
SIZES = (1, 2, 3, 5, 8, 17, 40)


def quadratic(rng: np.random.Generator, n: int, s: float) -> Pair:
    A, b = rng.normal(size=(n, n)), rng.normal(size=n)
    return lambda t: (0.5 * t @ A @ A.T @ t + b @ t, A @ A.T @ t + b), rng.normal(size=n) * s


def constant(rng: np.random.Generator, n: int, s: float) -> Pair:
    return lambda t: (3.7, np.zeros(n)), rng.normal(size=n) * s


def linear(rng: np.random.Generator, n: int, s: float) -> Pair:
    b = rng.normal(size=n)
    return lambda t: (b @ t, b.copy()), rng.normal(size=n) * s


def log_sum_exp(rng: np.random.Generator, n: int, s: float) -> Pair:
    A = rng.normal(size=(5, n)) / s

    def f(t: np.ndarray) -> tuple[Any, np.ndarray]:
        z = A @ t
        e = np.exp(z - z.real.max())
        return z.real.max() + np.log(e.sum()), A.T @ (e / e.sum())

    return f, rng.normal(size=n) * s


def exponential(rng: np.random.Generator, n: int, s: float) -> Pair:
    return lambda t: (np.exp(t).sum(), np.exp(t)), rng.normal(size=n) * rng.choice([0.1, 1, 5])


def powers(rng: np.random.Generator, n: int, s: float) -> Pair:
    k = int(rng.integers(3, 9))
    return lambda t: ((t**k).sum(), k * t ** (k - 1)), rng.normal(size=n) * rng.choice([0.1, 1, 5])


def own_scales(rng: np.random.Generator, n: int, s: float) -> Pair:
    c = 10.0 ** rng.uniform(-4, 4, n)
    return lambda t: (np.sum(np.cos(t / c)), -np.sin(t / c) / c), rng.normal(size=n) * c


def large_offset(rng: np.random.Generator, n: int, s: float) -> Pair:
    return lambda t: (1e6 + np.sum(np.sin(t / s)), np.cos(t / s) / s), rng.normal(size=n) * s


def at_the_optimum(rng: np.random.Generator, n: int, s: float) -> Pair:
    c = rng.normal(size=n) * s
    return lambda t: (np.sum((t - c) ** 2) / s / s + 1, 2 * (t - c) / s / s), c.copy()


def logarithm(rng: np.random.Generator, n: int, s: float) -> Pair:
    return lambda t: (np.sum(np.log(t / s)), 1 / t), np.abs(rng.normal(size=n)) * s + 0.01 * s


def absolute(rng: np.random.Generator, n: int, s: float) -> Pair:
    """A third of the coordinates lie at their kink."""
    theta = np.where(rng.random(n) < 0.3, 0.0, rng.normal(size=n) * s)
    return lambda t: (np.sum(np.abs(t)), np.sign(t.real)), theta


def saturated(rng: np.random.Generator, n: int, s: float) -> Pair:
    c = rng.normal(size=n)
    a = np.tanh

    def f(t: np.ndarray) -> tuple[Any, np.ndarray]:
        return c @ a(t), c * (1 - a(t) * a(t))

    return f, rng.normal(size=n) * 12


def rounded_argument(rng: np.random.Generator, n: int, s: float) -> Pair:
    """A float64 interface to float32 arithmetic: a staircase."""

    def f(t: np.ndarray) -> tuple[Any, np.ndarray]:
        t = np.asarray(t.real, np.float32).astype(float) / s
        return float(np.sum(np.sin(t))), np.cos(t) / s

    return f, rng.normal(size=n) * s


def _network(
    rng: np.random.Generator, relu: bool, dtype: Any, *, kinks: bool = False, narrow: bool = False
) -> Pair:
    d, m, rows = (int(rng.integers(1, k)) for k in (6, 9, 12))
    X, Y = rng.normal(size=(rows, d)).astype(dtype), rng.normal(size=rows).astype(dtype)
    theta = (rng.normal(size=d * m + 2 * m) * rng.choice([0.1, 1, 3])).astype(dtype)
    if kinks:  # pre-activations that are exactly zero
        theta[d * m : d * m + m] = 0
        X = np.round(X)
        X[0] = 0

    def f(t: np.ndarray) -> tuple[Any, np.ndarray]:
        t = np.asarray(t.real, dtype) if narrow else t
        W, b, v = t[: d * m].reshape(d, m), t[d * m : d * m + m], t[d * m + m :]
        z = X @ W + b
        a = np.maximum(z, 0) if relu else np.tanh(z)
        e = a @ v - Y
        delta = np.outer(e / rows, v) * ((z > 0) if relu else 1 - a * a)
        parts = [(X.T @ delta).ravel(), delta.sum(0), a.T @ (e / rows)]
        return 0.5 * np.mean(e * e), np.concatenate(parts)

    return f, theta


def tanh_network(rng: np.random.Generator, n: int, s: float) -> Pair:
    return _network(rng, False, np.float64)


def relu_network(rng: np.random.Generator, n: int, s: float) -> Pair:
    return _network(rng, True, np.float64)


def relu_network_at_kinks(rng: np.random.Generator, n: int, s: float) -> Pair:
    return _network(rng, True, np.float64, kinks=True)


def float32_network(rng: np.random.Generator, n: int, s: float) -> Pair:
    """Takes float64 points half of the time; else it computes in float32 whatever it is given."""
    return _network(rng, bool(rng.integers(2)), np.float32, narrow=bool(rng.integers(2)))


def float32_optimum(rng: np.random.Generator, n: int, s: float) -> Pair:
    """Least squares at their solution: the gradient is nothing but rounding."""
    rows = 2 * n + 3
    X, y = rng.normal(size=(rows, n)), rng.normal(size=rows) * 10
    point = np.linalg.lstsq(X, y, rcond=None)[0].astype(np.float32)

    def f(t: np.ndarray) -> tuple[Any, np.ndarray]:
        A, b = (v.astype(t.dtype if t.dtype.kind == "f" else float) for v in (X, y))
        e = A @ t - b
        return e @ e / 2, A.T @ e

    return f, point


FAMILIES = {
    f.__name__: f
    for f in (
        quadratic,
        constant,
        linear,
        log_sum_exp,
        exponential,
        powers,
        own_scales,
        large_offset,
        at_the_optimum,
        logarithm,
        absolute,
        saturated,
        rounded_argument,
        tanh_network,
        relu_network,
        relu_network_at_kinks,
        float32_network,
        float32_optimum,
    )
}


def draw(family: str, seed: int) -> Pair:
    """Return a function that gives value and gradient, and a point."""
    rng = np.random.default_rng([seed, *family.encode()])
    return FAMILIES[family](rng, int(rng.choice(SIZES)), float(10.0 ** rng.uniform(-3, 3)))
