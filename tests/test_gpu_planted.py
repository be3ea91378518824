"""Mistakes planted into the CUDA sources are each caught by the test of that kernel."""

from __future__ import annotations

import cuda_on_cpu
import fake_cupy
import kernel_cases
import numpy as np
import pytest
import test_gpu_kernels
import test_gpu_kernels_noise
import test_gpu_kernels_steps

from nembp.backend import CupyBackend
from nembp.backend.fused import kernel_source
from nembp.engine.likelihoods import Gaussian

pytestmark = pytest.mark.skipif(cuda_on_cpu.COMPILER is None, reason="no C++ compiler")

TESTS = (test_gpu_kernels, test_gpu_kernels_noise, test_gpu_kernels_steps)
FLOAT = {"dtype": "float32"}
BARRIER = "        __syncthreads();\n        if (i < half) shared[i] += shared[i + half];"
PLANTED = {
    "barrier": (BARRIER, BARRIER.replace("__syncthreads();", ""), "test_ends", FLOAT),
    "barrier of some threads": (
        BARRIER, BARRIER.replace("__syn", "if (i < half) __syn"), "test_ends", FLOAT,
    ),
    "columns": ("k < 32; k++", "k < 31; k++", "test_column_sums_together", FLOAT),
    "matrix": ("table[5 * (k + 1) + 4] <=", "table[5 * (k + 1) + 4] <", "test_column_sums_together",
               FLOAT),
    "kink": ("x > 0 ? e : (real)0", "x >= 0 ? e : (real)0", "test_neurons",
             {"name": "relu", **FLOAT}),
    "not a number": ("x < 0 ? (real)0 : x;", "x > 0 ? x : (real)0;",
                     "test_neurons_at_the_edges", {"name": "relu"}),
    "normalizer": ("- samples * normalizer", "- normalizer", "test_ends", FLOAT),
    "maximum": ("EXP(z[j] - most)", "EXP(z[j])", "test_ends", FLOAT),
    "reflection": ("flip = -1", "flip = 1", "test_rejected_rows_are_reflected_as_on_the_cpu",
                   FLOAT),
    "screening": ("block_sum(score, shared) >= 0", "block_sum(score, shared) <= 0",
                  "test_noise_is_screened_as_on_the_cpu", {"kind": "anti", **FLOAT}),
    "same draws": ("threadIdx.x == 0) state[1] += 1", "threadIdx.x == 0) state[1] += 2",
                   "test_draws_are_philox", {"calls": 3, **FLOAT}),
    "rounds": ("round < 10", "round < 9", "test_draws_are_philox", {"calls": 1, **FLOAT}),
    "lanes": ("element % 4", "element % 2", "test_draws_are_philox", {"calls": 1, **FLOAT}),
    "decay": ("i < weights", "i <= weights", "test_optimizers",
              {"name": "sgd", "decay": 0.1, **FLOAT}),
    "numbers": ("epsilon = numbers[2]", "epsilon = numbers[1]", "test_optimizers",
                {"name": "adam", "decay": 0.0, **FLOAT}),
    "samples": ("order[now * batch + i]", "order[now * rows + i]",
                "test_steps_find_their_own_numbers_and_samples", {}),
    "window": ("down / stride_h >= rows", "down / stride_h >= rows - 1",
               "test_im2col_and_col2im", FLOAT),
    "padding": ("stride_w * q + j - left", "stride_w * q + j - top",
                "test_im2col_and_col2im", FLOAT),
}  # fmt: skip


@pytest.mark.parametrize("bug", list(PLANTED))
def test_a_wrong_kernel_is_caught(bug, monkeypatch):
    right, wrong, name, options = PLANTED[bug]
    source = kernel_source("float32")
    assert source.count(right) >= 1, f"the source has changed; plant {bug} elsewhere"
    monkeypatch.setattr(
        "nembp.backend.fused.kernel_source", lambda dtype: source.replace(right, wrong)
    )
    fake_cupy.install(monkeypatch)
    backend = CupyBackend()
    for module in (kernel_cases, *TESTS):
        monkeypatch.setattr(module, "gpu", lambda: backend)
    test = next(getattr(module, name) for module in TESTS if hasattr(module, name))
    with pytest.raises(AssertionError):
        test(**options, **({"monkeypatch": monkeypatch} if "launch" in name else {}))


def test_a_wrong_argument_is_caught(monkeypatch):
    fake_cupy.install(monkeypatch)
    backend = CupyBackend()
    launch = backend.kernels("float32")
    out = backend.zeros((4,), "float32")
    for wrong in (
        ("fill_random", out, 4, backend.zeros((2,), "uint64"), np.int32(0)),
        (
            "fill_random",
            out,
            np.int64(4),
            backend.zeros((2,), "int64"),
            np.int32(0),
        ),
        ("fill_random", out, np.int64(4), backend.zeros((2,), "uint64")),
    ):
        with pytest.raises(AssertionError, match="fill_random"):
            launch.each(wrong[0], 4, *wrong[1:])
    assert isinstance(Gaussian().scale, float)  # what `real(…)` converts
