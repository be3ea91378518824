"""NumPy on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.backend.standard import Array, Backend, Pair, fill_normal
from nembp.threads import thread_count


class NumpyBackend(Backend):
    """NumPy on the CPU: every result goes into its buffer, nothing is allocated on the way."""

    name = "cpu"
    has_cache = True
    chunk = 1 << 16  # four float32 vectors and the scratch of a chunk stay in a 1 MiB cache

    def __init__(self) -> None:
        super().__init__(np)
        self.matmul = np.matmul  # type: ignore[assignment]  # (left, right, out) as it is

    def describe(self) -> str:
        return "cpu"

    def workers(self) -> int:
        return thread_count()

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        return np.array(array)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        return np.empty(shape, dtype)

    def row_dot(self, left: Array, right: Array, out: Array) -> Array:
        # einsum neither conjugates nor allocates, and is as fast as a product here
        np.einsum("ij,ij->i", left, right, out=out[:, 0])
        return out

    def row_max(self, x: Array, out: Array) -> Array:
        return np.maximum.reduce(x, axis=1, keepdims=True, out=out)

    def row_sum(self, x: Array, out: Array) -> Array:
        return np.add.reduce(x, axis=1, keepdims=True, out=out)

    def take_rows(self, table: Array, index: Array, out: Array) -> Array:
        # mode="raise" would copy through a temporary; indices come from permutations
        return np.take(table, index, axis=0, out=out, mode="clip")

    def one_hot(
        self, labels: Array, index: Array, classes: Array, spare: Array, out: Array
    ) -> None:
        np.equal(self.take_rows(labels, index, spare)[:, None], classes, out=out)

    def cast(self, source: Array, out: Array) -> Array:
        out[...] = source
        return out

    def keep(self, x: Array, mask: Array) -> Array:
        return np.multiply(x, mask, out=x)

    def keep_where_positive(self, x: Array, a: Array, scratch: Array) -> Array:
        mask = scratch.view(np.bool_)[:, : a.shape[1]]  # the mask borrows the scratch's memory
        np.greater(a, 0, out=mask)
        return np.multiply(x, mask, out=x)

    def softplus(self, z: Array, out: Array) -> Array:
        if z.dtype.kind == "c":  # complex steps: analytic, and small z
            return np.log1p(np.exp(z, out=out), out=out)
        return super().softplus(z, out)

    def copy_windows(self, images: Array, stride: Pair, out: Array) -> None:
        out[...] = _windows(images, stride, out.shape[3:5], out.shape[1:3])

    def add_windows(self, windows: Array, stride: Pair, out: Array) -> None:
        rows, columns, height, width = windows.shape[1:5]
        for j in range(0, width, stride[1]):  # as long runs as do not overlap
            run = min(stride[1], width - j)
            for i in range(height):
                pixels = _windows(out[:, i:, j:, :], stride, (1, run), (rows, columns))
                pixels += windows[:, :, :, i : i + 1, j : j + run, :]

    def normal(self, generator: Any, out: Array) -> Array:
        if out.dtype in (np.float32, np.float64) and out.flags.c_contiguous:
            return fill_normal(generator, out)
        return super().normal(generator, out)

    def uniform(self, generator: Any, out: Array) -> Array:
        if out.dtype in (np.float32, np.float64) and out.flags.c_contiguous:
            return generator.random(out=out, dtype=out.dtype)
        return super().uniform(generator, out)


def _windows(images: Array, stride: Pair, extent: tuple[int, ...], count: tuple[int, ...]) -> Array:
    """Return windows of images as a view (images, rows, columns, height, width, channels)."""
    a, b, c, d = images.strides
    shape = (images.shape[0], *count, *extent, images.shape[3])
    strides = (a, stride[0] * b, stride[1] * c, b, c, d)
    return np.lib.stride_tricks.as_strided(images, shape, strides)
