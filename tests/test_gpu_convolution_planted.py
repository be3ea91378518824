"""Mistakes planted into the implicit products are each caught by a test of them."""

from __future__ import annotations

import cuda_on_cpu
import fake_cupy
import pytest
import test_gpu_convolution as convolution

from nembp.backend import CupyBackend
from nembp.backend.kernels import kernel_source

pytestmark = pytest.mark.skipif(cuda_on_cpu.COMPILER is None, reason="no C++ compiler")

PLANTED = {  # right, wrong, the case that tells
    "stride": ("s.stride_h * p - s.top", "s.stride_w * p - s.top", "strides apart"),
    "padding": ("s.stride_w * q - s.left", "s.stride_w * q - s.left + 1", "3 x 3"),
    "padding of the other axis": ("s.stride_h * p - s.top", "s.stride_h * p - s.left",
                                  "not square"),
    "transposed kernel": ("(i * s.kernel_w + j) * s.channels * s.upper",
                          "(j * s.kernel_h + i) * s.channels * s.upper", "strides apart"),
    "turned kernel": ("phase.i + s.stride_h * a", "phase.i + s.stride_h * (phase.taps_h - 1 - a)",
                      "3 x 3"),
    "channels": ("by_channels.divide(r, c), j)", "by_channels.divide(r, c), j) + (c == 2)",
                 "not square"),
    "phase": ("(padding - tap + stride - 1) / stride", "(padding - tap) / stride", "stride 2"),
    "pixels of a phase": ("(size - pixel + stride - 1) / stride", "(size - pixel) / stride",
                          "rest left over"),
    "quotient": ("if (r >= d) {", "if (r > d) {", "3 x 3"),
    "no image there": ("(unsigned int)x < (unsigned int)s.width",
                       "(unsigned int)x <= (unsigned int)s.width", "3 x 3"),
    "barrier of a slab": ("        }\n        __syncthreads();\n    }\n\n    const int tx",
                          "        }\n    }\n\n    const int tx", "channels beyond a tile"),
    "last slab": ("k < end; k += DEPTH", "k + DEPTH < end; k += DEPTH", "3 x 3"),
    "beyond the last term": ("mine & (begin + k < end) &", "mine &", "not square"),
    "edge of a tile": ("if (n + j < columns)", "if (n + j <= columns)", "not square"),
    "half of a pack": ("for (int e = 0; e < PACK; e++) v[i * PACK + e] = found.v[e];",
                       "for (int e = 0; e < PACK; e++) v[i * PACK + e] = found.v[e / 2];",
                       "3 x 3"),
    "part": ("k = 1; k < count", "k = 2; k < count", "channels beyond a tile"),
    "parts overlap": ("count : begin + each;", "count : begin + each + 1;",
                      "channels beyond a tile"),
    "parts end": ("count - begin < each ? count : begin + each", "begin + each",
                  "channels beyond a tile"),
}  # fmt: skip


@pytest.mark.parametrize("bug", list(PLANTED))
def test_a_wrong_kernel_is_caught(bug, monkeypatch):
    right, wrong, case = PLANTED[bug]
    source = kernel_source("float32", "convolution")
    assert source.count(right) >= 1, f"the source has changed; plant {bug} elsewhere"
    planted = source.replace(right, wrong)
    monkeypatch.setattr("nembp.backend.kernels.kernel_source", lambda dtype, module: planted)
    fake_cupy.install(monkeypatch)
    backend = CupyBackend()
    monkeypatch.setattr(convolution, "gpu", lambda: backend)
    with pytest.raises(AssertionError):
        convolution.compare(convolution.CASES[case], 3, "float32")
