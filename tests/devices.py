"""The GPU of the tests: a real one with ``pytest --device gpu``, else the stand-in on NumPy."""

from __future__ import annotations

import os
from functools import cache

import cuda_on_cpu
import pytest

from nembp.backend.gpu import CupyBackend

REAL = os.environ.get("NEMBP_TEST_DEVICE") == "gpu"

needs_kernels = pytest.mark.skipif(
    not REAL and cuda_on_cpu.COMPILER is None, reason="neither a GPU nor a C++ compiler"
)


@cache
def gpu() -> CupyBackend:
    """Return the backend."""
    if REAL:
        return CupyBackend()
    import fake_cupy

    with pytest.MonkeyPatch.context() as patch:
        fake_cupy.install(patch, fake_cupy.device())
        return CupyBackend()
