"""The CUDA kernels: their sources in ``cuda/``, and how they are launched.

The sources are plain CUDA C with nothing included, compiled on the user's machine (NVRTC, through
CuPy, which keeps the result). ``real`` is float or double, so of each module there are two.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

__all__ = ["LONGEST", "MODULES", "Kernels", "kernel_source"]

Array = Any
MODULES = {  # what is compiled together, when it is first used
    "engine": (
        "common", "neurons", "likelihoods", "noise", "optimizers", "batches", "windows",
    ),
    "convolution": ("common", "tiles", "convolution"),
}  # fmt: skip
OPTIONS = ("--std=c++17",)
THREADS = 256  # of a block; at most THREADS of common.cu where it reduces
MOST_BLOCKS = 1 << 13  # of a loop over elements: a multiple of what any device runs at once
LONGEST = 1 << 31  # elements: the kernels divide 32-bit places
NULL = np.uintp(0)


@cache
def kernel_source(dtype: str, module: str = "engine") -> str:
    """Return the source of a module's kernels for ``float32`` or ``float64``."""
    folder = files("nembp.backend") / "cuda"
    parts = [(folder / f"{name}.cu").read_text(encoding="utf-8") for name in MODULES[module]]
    return "\n".join(["#define NEMBP_DOUBLE"] * (dtype == "float64") + parts)


class Kernels:
    """The kernels of one module and precision, launched on the current stream.

    Arguments are passed as they are: arrays as pointers, None as the null pointer, and numbers as
    NumPy scalars of the very type that the kernel takes, since nothing converts them.

    Parameters
    ----------
    cupy : module
        Of which ``RawModule`` is used.
    dtype : {"float32", "float64"}
        What ``real`` is.
    module : str
        One of ``MODULES``.
    """

    def __init__(self, cupy: Any, dtype: str, module: str = "engine") -> None:
        self.real = np.float32 if dtype == "float32" else np.float64
        self._module = cupy.RawModule(code=kernel_source(dtype, module), options=OPTIONS)
        self._functions: dict[str, Any] = {}

    def each(self, name: str, n: int, *args: Any) -> None:
        """Launch over ``n`` elements."""
        blocks = max(1, min(MOST_BLOCKS, -(-n // THREADS)))
        self._launch(name, (blocks,), (THREADS,), args)

    def rows(self, name: str, rows: int, width: int, *args: Any) -> None:
        """Launch with a block for each row, of as many threads as suit its width."""
        threads = min(THREADS, max(32, 1 << (width - 1).bit_length()))
        self._launch(name, (rows,), (threads,), args)

    def block(self, name: str, *args: Any) -> None:
        """Launch one block."""
        self._launch(name, (1,), (THREADS,), args)

    def tiles(self, name: str, columns: int, *args: Any) -> None:
        """Launch square blocks of 32 by 32 threads, one for every 32 columns."""
        self._launch(name, (-(-columns // 32),), (32, 32), args)

    def grid(self, name: str, blocks: tuple[int, int, int], threads: int, *args: Any) -> None:
        """Launch so many blocks of so many threads."""
        self._launch(name, blocks, (threads,), args)

    def _launch(
        self, name: str, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]
    ) -> None:
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = self._module.get_function(name)
        function(grid, block, tuple(NULL if arg is None else arg for arg in args))
