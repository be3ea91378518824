"""What the tests of the engine share: a strict device, a step, comparison, and memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import strategies as st

from nembp.backend import Backend, stream
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.network import Network

Array = np.ndarray[Any, Any]
STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))
each_path = pytest.mark.parametrize("path", ["samples", "classes", "none"])
seeds = st.integers(0, 2**32 - 1)


def assert_close(actual: Any, expected: Any, tolerance: float, scale: float = 0.0) -> None:
    """Assert that errors are within ``tolerance`` of the largest value, or of ``scale``."""
    expected = np.asarray(expected)
    size = max(scale, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(actual, expected, rtol=0.0, atol=tolerance * size)


def picker(g: np.random.Generator) -> Any:
    """Return what picks a whole number between two for `nembp.verification.cases`."""
    return lambda low, high: int(g.integers(low, high + 1))


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
