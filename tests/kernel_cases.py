"""What the tests of CUDA kernels compare with, and by how much it may differ."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest
from devices import gpu
from hypothesis import settings
from hypothesis import strategies as st

from nembp.backend import Backend, get_backend
from nembp.engine.likelihoods import Readout

CPU = get_backend("cpu")
STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))
TOLERANCE = {"float32": 3e-6, "float64": 1e-14}
each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))
sizes = st.integers(1, 70)
some = settings(max_examples=max(1, settings.default.max_examples // 2))


def host(array: Any) -> np.ndarray:
    return gpu().to_numpy(array)


def same(actual: Any, expected: np.ndarray, scale: float = 1.0) -> None:
    actual = host(actual)
    assert actual.dtype == expected.dtype
    assert np.array_equal(np.isnan(actual), np.isnan(expected))
    size = scale + np.nanmax(np.abs(expected), initial=0.0, where=np.isfinite(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[str(actual.dtype)] * size)


def drawn(seed: int, *shape: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def readouts(z: np.ndarray) -> tuple[Readout, Readout]:
    pair = []
    for backend in (CPU, gpu()):
        o = Readout.allocate(backend, *z.shape, str(z.dtype))
        o.z[...] = backend.asarray(z)
        pair.append(o)
    return pair[0], pair[1]
