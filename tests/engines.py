"""What the tests of the engine share: random networks and batches, a step, and comparison."""

from __future__ import annotations

import tracemalloc
from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import strategies as st

from nembp.backend import Backend, stream
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.linear import LinearMap
from nembp.engine.network import Network
from nembp.verification import cases

Array = np.ndarray[Any, Any]
STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))
LIKELIHOODS = "multinomial", "gaussian", "bernoulli"
PAIRS = [(forward, backward) for forward in LIKELIHOODS for backward in LIKELIHOODS]
ACTIVATIONS = "relu", "leaky-relu", "tanh", "logistic", "identity"
each_path = pytest.mark.parametrize("path", ["samples", "classes", "none"])
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
seeds = st.integers(0, 2**32 - 1)


def assert_close(actual: Any, expected: Any, tolerance: float, scale: float = 0.0) -> None:
    """Assert that errors are within ``tolerance`` of the largest value, or of ``scale``."""
    expected = np.asarray(expected)
    size = max(scale, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(actual, expected, rtol=0.0, atol=tolerance * size)


def picker(g: np.random.Generator) -> Any:
    return lambda low, high: int(g.integers(low, high + 1))


def random_map(g: np.random.Generator, kind: type[LinearMap]) -> LinearMap:
    """Return a small random linear map of a kind."""
    return cases.random_map(picker(g), kind)


def random_network(
    seed: int,
    pair: tuple[str, str] | None = None,
    *,
    activation: str | None = None,
    normalized: bool | None = None,
    dtype: str = "float64",
    device: Any = "cpu",
) -> Network:
    """Return a network of dense and image layers, with random parameters and statistics."""
    pick = picker(np.random.default_rng(seed))
    return cases.random_case(pick, pair, activation, normalized=normalized, dtype=dtype).net(device)


def targets(likelihood: Any, g: np.random.Generator, rows: int, width: int) -> Array:
    """Return targets that a likelihood can be asked the probability of."""
    return cases.random_targets(likelihood, g, rows, width, hard=False)


def batch(net: Network, seed: int, *, labels: bool = False) -> tuple[Array, Array]:
    """Return 1 to 6 rows of inputs and targets; one-hot rows for ``labels``."""
    g = np.random.default_rng(seed)
    rows = int(g.integers(1, 7))
    x = targets(net.reversed.likelihood, g, rows, net.inputs)
    if labels:
        return x, np.eye(net.outputs)[g.integers(0, net.outputs, rows)]
    return x, targets(net.likelihood, g, rows, net.outputs)


def joint(
    net: Network,
    x: Array,
    t: Array,
    path: Any = "samples",
    noise: Any = None,
    *,
    seed: int = 0,
    clock: tuple[int, int] = (1, 1),
    **options: Any,
) -> tuple[Array, JointBackpropagation]:
    """Return the gradient of both directions on the host, and what computed it."""
    backend, rows = net.backend, len(x)
    streams = {place: stream(seed, f"noise/{place}") for place in noise or {}}
    step = JointBackpropagation(net, rows, path=path, noise=noise, generators=streams, **options)
    step.x[...], step.t[...] = backend.asarray(x, net.dtype), backend.asarray(t, net.dtype)
    gradient = backend.asarray(np.full(net.parameter_count, np.nan), net.dtype)
    step(gradient, *clock)
    return backend.to_numpy(gradient), step


def gathering(reader: Any, prefetch: bool | None) -> Any:
    """Return a reader that gathers batches on a second thread, or not, whether that pays or not."""
    reader.prefetches = reader.prefetches if prefetch is None else prefetch
    return reader


def number(value: Any) -> float:
    """Return an array of one number as that number, from whatever device."""
    return float(
        np.asarray(value if isinstance(value, np.ndarray) else STRICT.to_numpy(value)).flat[0]
    )


def peak_of(step: Any) -> int:
    """Return the most bytes that a warmed-up ``step`` holds at once beyond what it found.

    NumPy's ufuncs keep a fixed buffer besides, which is made small.
    """
    buffer = np.setbufsize(16)
    tracemalloc.start()
    try:
        step()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
        np.setbufsize(buffer)
