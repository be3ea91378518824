"""Batches of a split, gathered and scaled straight into a network's buffers.

Images stay uint8 in memory; each batch is converted and scaled as it is read.
"""

from __future__ import annotations

import numpy as np

from nembp.backend import Array, Backend
from nembp.datasets import Scaling, Split
from nembp.errors import ShapeError

__all__ = ["BatchReader"]


class BatchReader:
    """Reads samples of one split as network inputs and targets.

    Parameters
    ----------
    split : Split
        Samples and labels or regression targets.
    x_scaling, y_scaling : Scaling
        scaled = (raw − offset) · factor; targets that are labels become one-hot rows instead.
    outputs : int
        Columns of the target: classes, or regression targets.
    backend, dtype : Backend, str
        Of the network that is fed.

    Raises
    ------
    ShapeError
        If a label or target does not fit ``outputs``.
    """

    def __init__(
        self,
        split: Split,
        x_scaling: Scaling,
        y_scaling: Scaling,
        outputs: int,
        backend: Backend,
        dtype: str,
    ) -> None:
        self.backend, self.dtype, self.outputs = backend, dtype, outputs
        self.n = len(split.x)
        self.features = int(np.prod(split.x.shape[1:]))
        self.is_classification = split.y.ndim == 1
        self._x = backend.asarray(np.reshape(split.x, (self.n, self.features)))
        self._offset, self._factor = _rows(x_scaling, split.x.shape[1:], backend, dtype)
        if self.is_classification:
            if self.n and (split.y.min() < 0 or split.y.max() >= outputs):
                raise ShapeError(
                    f"labels run from {split.y.min()} to {split.y.max()}, but the network has "
                    f"{outputs} classes (0 to {outputs - 1})"
                )
            self._y = backend.asarray(split.y, "int64")
            self._one_hot = backend.asarray(np.eye(outputs), dtype)
        else:
            if split.y.shape[1:] != (outputs,):
                raise ShapeError(
                    f"targets have shape {split.y.shape}, but the network has {outputs} outputs"
                )
            self._y = backend.asarray(y_scaling.apply(split.y, np.float64), dtype)
        self._raw: dict[int, Array] = {}
        self._labels: dict[int, Array] = {}

    def read(self, index: Array, x: Array, t: Array) -> None:
        """Write the samples at ``index`` (device integers) into ``x``, their targets into ``t``."""
        self.read_x(index, x)
        if self.is_classification:
            rows = index.shape[0]
            if rows not in self._labels:
                self._labels[rows] = self.backend.empty((rows,), "int64")
            labels = self.backend.take_rows(self._y, index, self._labels[rows])
            self.backend.take_rows(self._one_hot, labels, t)
        else:
            self.backend.take_rows(self._y, index, t)

    def read_x(self, index: Array, x: Array) -> None:
        """Write the scaled inputs at ``index`` into ``x``."""
        backend, xp, rows = self.backend, self.backend.xp, index.shape[0]
        if self._x.dtype == x.dtype:
            backend.take_rows(self._x, index, x)
        else:
            if rows not in self._raw:
                shape = (rows, self.features)
                self._raw[rows] = xp.empty(shape, dtype=self._x.dtype, device=backend.device)
            backend.cast(backend.take_rows(self._x, index, self._raw[rows]), x)
        if self._offset is not None:
            backend.into(x, xp.subtract, x, self._offset)
        backend.into(x, xp.multiply, x, self._factor)

    def labels(self, index: Array) -> Array:
        """Return the labels at ``index``."""
        return self.backend.xp.take(self._y, index, axis=0)


def _rows(
    scaling: Scaling, shape: tuple[int, ...], backend: Backend, dtype: str
) -> tuple[Array | None, Array | float]:
    """Return offset and factor as a number, or as a row of one value a feature."""

    def row(value: object) -> Array | float:
        array = np.asarray(value, dtype=np.float64)
        if array.ndim == 0:
            return float(array)
        return backend.asarray(np.broadcast_to(array, shape).reshape(-1), dtype)

    offset = row(scaling.offset)
    return (None if isinstance(offset, float) and offset == 0.0 else offset), row(scaling.factor)
