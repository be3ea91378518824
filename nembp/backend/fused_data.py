"""The hooks of batches and convolution windows by CUDA kernels (:mod:`nembp.backend.fused`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nembp.backend.hooks import Array, Hooks
from nembp.backend.kernels import Kernels

if TYPE_CHECKING:
    from nembp.engine.convolution import Convolution

__all__ = ["FusedData"]

GATHERS = {"uint8": "gather_bytes", "float32": "gather_floats", "float64": "gather_doubles"}


class FusedData(Hooks):
    """What moves samples, by kernels of :meth:`kernels_of`."""

    kernels_of: Callable[..., Kernels | None]

    # -- batches ---------------------------------------------------------------------------------
    def gather(
        self,
        table: Array,
        index: Array,
        out: Array,
        raw: Array,
        offset: Array | None,
        factor: Array | float,
    ) -> None:
        if not self.gather_rows(table, index, out, offset, factor):
            super().gather(table, index, out, raw, offset, factor)

    def gather_rows(
        self, table: Array, index: Array | None, out: Array, offset: Array | None, factor: Any
    ) -> bool:
        """Gather and scale in one pass; ``index`` None takes the rows as they come."""
        factors = factor if hasattr(factor, "shape") else None
        offset_row = offset if hasattr(offset, "shape") else None
        kernels = self.kernels_of(out, offset_row, factors)
        name = GATHERS.get(str(table.dtype))
        alike = offset is offset_row and table.flags.c_contiguous
        if kernels is None or name is None or not alike or _is_other(index):
            return False
        number = kernels.real(1.0 if factors is not None else factor)
        args = np.int64(out.size), np.int32(out.shape[1]), offset_row, factors, number, out
        kernels.each(name, out.size, table, index, *args)
        return True

    def one_hot(self, labels: Array, index: Array, table: Array, spare: Array, out: Array) -> None:
        kernels = self.kernels_of(out)
        if kernels is None or _is_other(index) or _is_other(labels):
            super().one_hot(labels, index, table, spare, out)
            return
        args = np.int64(out.size), np.int32(out.shape[1]), out
        kernels.each("one_hot_rows", out.size, labels, index, *args)

    # -- windows of images -----------------------------------------------------------------------
    def lay_windows(self, linear_map: Convolution, images: Array, windows: Array) -> bool:
        return self._move_windows("lay_windows", linear_map, images, windows)

    def gather_windows(self, linear_map: Convolution, windows: Array, images: Array) -> bool:
        return self._move_windows("gather_windows", linear_map, windows, images)

    def _move_windows(self, name: str, linear_map: Convolution, source: Array, out: Array) -> bool:
        kernels = self.kernels_of(source, out)
        if kernels is None:
            return False
        rows, columns, _ = linear_map.output_shape
        sizes = (
            *linear_map.shape,
            *linear_map.kernel,
            *linear_map.stride,
            *linear_map.padding,
            rows,
            columns,
        )
        each = (np.int32(size) for size in sizes)
        kernels.each(name, out.size, source, out, np.int64(out.size), *each)
        return True


def _is_other(index: Array | None) -> bool:
    """Say whether an index is none of contiguous 64-bit integers."""
    return index is not None and not (str(index.dtype) == "int64" and index.flags.c_contiguous)
