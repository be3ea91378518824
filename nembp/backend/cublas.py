"""Matrix products by cuBLAS itself.

CuPy refuses to call cuBLAS while a CUDA graph is being captured ("calling cuBLAS API during stream
capture is currently unsupported", cupy/cupy issue 6290), though cuBLAS can be captured as long as
its handle and workspace exist beforehand. So the products of a step have a handle of their own.
"""

from __future__ import annotations

import ctypes
from typing import Any

from nembp.errors import DeviceError

Array = Any
WORKSPACE = 32 << 20  # bytes; what cuBLAS recommends for Hopper
AS_IT_IS, TRANSPOSED = 0, 1
FULL_PRECISION, TF32 = 0, 3  # cublasMath_t
_handle, _int, _pointer = ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
_REALS = {
    "float32": ("cublasSgemm_v2", ctypes.c_float),
    "float64": ("cublasDgemm_v2", ctypes.c_double),
}
SIGNATURES: dict[str, list[Any]] = {
    "cublasCreate_v2": [ctypes.POINTER(_handle)],
    "cublasSetStream_v2": [_handle, _pointer],
    "cublasSetWorkspace_v2": [_handle, _pointer, ctypes.c_size_t],
    "cublasSetMathMode": [_handle, _int],
    **{
        # handle, op(A), op(B), m, n, k, alpha, A, lda, B, ldb, beta, C, ldc
        name: [
            _handle, _int, _int, _int, _int, _int, ctypes.POINTER(real), _pointer, _int,
            _pointer, _int, ctypes.POINTER(real), _pointer, _int,
        ]
        for name, real in _REALS.values()
    },
}  # fmt: skip
LARGEST = 2**31 - 1


def load_cublas() -> Any:
    """Return the cuBLAS library that CuPy uses, found as CuPy finds it, or raise OSError."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)


class Cublas:
    """A handle of cuBLAS with its workspace, device memory of ``WORKSPACE`` bytes.

    With ``tf32`` float32 products may round their factors to 10 bits.
    """

    def __init__(self, library: Any, workspace: Array, *, tf32: bool = False) -> None:
        self._library, self._workspace = library, workspace
        self._stream: int | None = None
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, _int
        self._handle = _handle()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._call("cublasSetMathMode", self._handle, TF32 if tf32 else FULL_PRECISION)

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self._library, name)(*args)
        if status:
            raise DeviceError(
                f"{name} of cuBLAS failed with status {status}; expected 0. Check that driver and "
                "CuPy fit each other (`nembp info`), or use --device cpu"
            )

    def matmul(self, left: Array, right: Array, out: Array, stream: int) -> bool:
        """Write ``left @ right`` into ``out`` on a stream; say whether cuBLAS can.

        It multiplies real matrices of one dtype whose rows or columns are contiguous. cuBLAS
        counts columns first, and sees the memory of a matrix of rows as its transpose: it is asked
        for outᵀ = rightᵀ leftᵀ.
        """
        found = _REALS.get(str(out.dtype))
        if found is None or not left.dtype == right.dtype == out.dtype:
            return False
        A, B, C = _layout(right), _layout(left), _layout(out)
        if A is None or B is None or C is None or C[0] == TRANSPOSED:
            return False
        (rows, inner), columns = left.shape, right.shape[1]
        if stream != self._stream:  # which takes the workspace away
            self._call("cublasSetStream_v2", self._handle, stream)
            pointer = self._workspace.data.ptr
            self._call("cublasSetWorkspace_v2", self._handle, pointer, self._workspace.nbytes)
            self._stream = stream
        name, real = found
        one, zero = real(1.0), real(0.0)
        self._call(
            name, self._handle, A[0], B[0], columns, rows, inner, ctypes.byref(one),
            right.data.ptr, A[1], left.data.ptr, B[1], ctypes.byref(zero), out.data.ptr, C[1],
        )  # fmt: skip
        return True


def _layout(matrix: Array) -> tuple[int, int] | None:
    """Return whether a matrix lies transposed, and the elements from one line to the next."""
    if len(matrix.shape) != 2 or matrix.size < 1 or max(matrix.shape) > LARGEST:
        return None
    (rows, columns), item = matrix.shape, matrix.dtype.itemsize
    down, across = (stride // item for stride in matrix.strides)
    if columns == 1 and rows == 1:
        return AS_IT_IS, 1
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return AS_IT_IS, max(down if rows > 1 else columns, columns)
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return TRANSPOSED, max(across if columns > 1 else rows, rows)
    return None
