"""cuBLAS for `fake_cupy`."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from fake_streams import device

from nembp.backend import cublas


class Cublas:
    """cuBLAS by NumPy, called through ctypes with the signatures that `nembp` declares."""

    def __init__(self) -> None:
        self.stream = -1
        self.workspace = False
        self.math_mode = -1
        for name, arguments in cublas.SIGNATURES.items():
            method = self._gemm if "gemm" in name else getattr(self, name)
            setattr(self, name, ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(_status(method)))

    def cublasCreate_v2(self, handle: Any) -> None:
        handle[0] = 1234

    def cublasSetStream_v2(self, handle: int, stream: int | None) -> None:
        self.stream, self.workspace = stream or 0, False

    def cublasSetWorkspace_v2(self, handle: int, pointer: int, size: int) -> None:
        self.workspace = pointer % 256 == 0 or True
        assert size >= 1 << 22

    def cublasSetMathMode(self, handle: int, mode: int) -> None:
        self.math_mode = mode

    def _gemm(
        self, handle: int, transposed_a: int, transposed_b: int, m: int, n: int, k: int,
        alpha: Any, a: int, lda: int, b: int, ldb: int, beta: Any, c: int, ldc: int,
    ) -> None:  # fmt: skip
        assert handle == 1234
        assert self.workspace, "the stream's workspace is not set: a capture would allocate one"
        assert self.stream == device().current.ptr, "the product goes to another stream"
        assert alpha[0] == 1.0
        assert beta[0] == 0.0
        real = type(alpha[0]) and alpha._type_
        A = _matrix(a, (k, m) if transposed_a else (m, k), lda, real)
        B = _matrix(b, (n, k) if transposed_b else (k, n), ldb, real)
        C = _matrix(c, (m, n), ldc, real)
        A, B = A.T if transposed_a else A, B.T if transposed_b else B

        def product() -> None:
            with np.errstate(all="ignore"):
                C[...] = A @ B

        device().current.put(product)


def _status(method: Callable[..., None]) -> Callable[..., int]:
    def call(*args: Any) -> int:
        try:
            method(*args)
        except Exception as error:  # noqa: BLE001  # nothing else gets through ctypes
            print(f"cuBLAS: {error!r}", file=sys.stderr)
            return 7
        return 0

    return call


def _matrix(pointer: int, shape: tuple[int, int], leading: int, real: Any) -> Any:
    """View columns-first memory as a matrix."""
    assert leading >= shape[0], (leading, shape)
    count = leading * (shape[1] - 1) + shape[0]
    flat = np.frombuffer((real * count).from_address(pointer), np.dtype(real))
    item = flat.itemsize
    return np.lib.stride_tricks.as_strided(flat, shape, (item, leading * item))
