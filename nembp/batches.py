"""Batches of a split, gathered, augmented and scaled straight into a network's buffers.

Samples stay as they are stored, 8-bit images as 8 bits, and each batch is scaled as it is read.
They may also stay where they are, in a file larger than memory, of which two batches at a time
are read (:mod:`nembp.staging`). What fits on a GPU moves there once.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nembp.augmentation import Augmentation, Augmenter
from nembp.backend import Array, Backend
from nembp.datasets import Scaling, Split
from nembp.datasets.scaling import chunks
from nembp.datasets.sources import Rows, as_rows, is_mapped
from nembp.errors import ShapeError
from nembp.staging import Staging
from nembp.threads import thread_count, usable_cores

__all__ = ["BatchReader", "Staged"]

LONG = 1 << 17  # values of a batch

Staged: TypeAlias = NDArray[Any] | None  # raw rows on the host; None where nothing is staged


class BatchReader:
    """Reads samples of one split as network inputs and targets.

    Parameters
    ----------
    split : Split
        Samples, in memory or in files, and labels or regression targets.
    x_scaling, y_scaling : Scaling
        scaled = (raw − offset) · factor; targets that are labels become one-hot rows instead.
    outputs : int
        Columns of the target: classes, or regression targets.
    backend, dtype : Backend, str
        Of the network that is fed.
    augmentation : Augmentation, optional
        Of the images, each time they are read: for training, not for scoring.
    seed : int
        Of the augmentation's stream.
    resident : bool, optional
        Whether all samples are held on the device; if not, each batch is gathered on the host.
        Left out: on a CPU those are that are in memory, on another device those that take at most
        half of its free memory. Samples to be augmented never are.

    Attributes
    ----------
    n, features : int
        Number of samples, and of values in one.

    Raises
    ------
    ShapeError
        If a label or target does not fit ``outputs``.
    ArchitectureError
        If the samples cannot be augmented so.
    """

    def __init__(
        self,
        split: Split,
        x_scaling: Scaling,
        y_scaling: Scaling,
        outputs: int,
        backend: Backend,
        dtype: str,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        resident: bool | None = None,
    ) -> None:
        self.backend, self.dtype, self.outputs = backend, dtype, outputs
        self.n, shape = len(split.x), split.x.shape[1:]
        self.features = int(np.prod(shape))
        self.is_classification = split.y.ndim == 1
        rows, mapped = as_rows(split.x), is_mapped(split.x)
        if resident is None:
            on_host = backend.name == "cpu"
            resident = not mapped if on_host else 2 * rows.nbytes <= backend.free_memory()
        self._x: Array = None
        self._staging: Staging | None = None
        if augmentation or not resident:
            augmenter = Augmenter(augmentation, shape, seed) if augmentation else None
            self._staging = Staging(rows, augmenter, backend)
        elif backend.name == "cpu" and not mapped:
            self._x = backend.asarray(np.reshape(split.x, (self.n, self.features)))
        else:
            self._x = self._move(rows)
        self._mapped = mapped
        self._offset, self._factor = _rows(x_scaling, shape, backend, dtype)
        self._set_targets(split.y, y_scaling)
        self._raw: dict[int, Array] = {}
        self._labels: dict[int, Array] = {}

    def _move(self, rows: Rows) -> Array:
        """Copy samples to the device, a part at a time: they may be larger than this memory."""
        table = self.backend.empty((self.n, self.features), str(rows.dtype))
        for part in chunks(rows):
            values = rows[part].reshape(-1, self.features)
            table[part.start : part.start + len(values), :] = self.backend.asarray(values)
        return table

    def _set_targets(self, y: NDArray[Any], y_scaling: Scaling) -> None:
        backend, outputs = self.backend, self.outputs
        if self.is_classification:
            if self.n and (y.min() < 0 or y.max() >= outputs):
                raise ShapeError(
                    f"labels run from {y.min()} to {y.max()}, but the network has "
                    f"{outputs} classes (0 to {outputs - 1})"
                )
            self._y = backend.asarray(y, "int64")
            self._one_hot = backend.asarray(np.eye(outputs), self.dtype)
        else:
            if y.shape[1:] != (outputs,):
                raise ShapeError(
                    f"targets have shape {y.shape}, but the network has {outputs} outputs"
                )
            self._y = backend.asarray(y_scaling.apply(y, np.float64), self.dtype)

    @property
    def is_resident(self) -> bool:
        """Whether all samples are held on the device."""
        return self._staging is None

    def prefetch_pays(self, batch_size: int) -> bool:
        """Say whether preparing a batch during the step before it is likely to save time.

        It is where a batch may have to wait for a disk, or a device waits for it. Augmenting a
        batch in memory takes 0.4 ms for 128 CIFAR images, and handing it to a thread and back
        0.1 ms, so a core must be spare and the batch long.
        """
        if self._staging is None:
            return False
        if self._mapped or self.backend.name != "cpu":
            return True
        return batch_size * self.features >= LONG and usable_cores() > thread_count()

    def batches(
        self, order: NDArray[np.intp], batch_size: int, *, prefetch: bool | None = None
    ) -> Generator[tuple[Array, Staged], None, None]:
        """Go through the samples in an order, a batch at a time.

        Parameters
        ----------
        order : ndarray of int, shape (samples,)
            Sample numbers, on the host.
        batch_size : int
            The last batch may be smaller.
        prefetch : bool, optional
            Gather and augment each batch on a second thread, while the one before it is used; by
            default where :meth:`prefetch_pays`. The batches are the same, bit for bit. Samples
            held on the device need no gathering.

        Yields
        ------
        index, staged
            For :meth:`read`, before the next batch is asked for.

        Raises
        ------
        DataError
            If a file cannot be read any more.
        """
        on_device = self.backend.asarray(order)
        n = len(order)
        ends = [(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
        if self._staging is None:
            for start, end in ends:
                yield on_device[start:end], None
            return
        ahead = self.prefetch_pays(batch_size) if prefetch is None else prefetch
        stage = self._staging.ahead if ahead else self._staging.in_turn
        with closing(stage(order[start:end] for start, end in ends)) as staged:
            for (start, end), raw in zip(ends, staged, strict=True):
                yield on_device[start:end], raw

    def read(self, index: Array, x: Array, t: Array, staged: Staged = None) -> None:
        """Write the samples at ``index`` (device integers) into ``x``, their targets into ``t``.

        ``staged`` is what :meth:`batches` gave with the index.
        """
        self.read_x(index, x, staged)
        if self.is_classification:
            rows = index.shape[0]
            if rows not in self._labels:
                self._labels[rows] = self.backend.empty((rows,), "int64")
            self.backend.one_hot(self._y, index, self._one_hot, self._labels[rows], t)
        else:
            self.backend.take_rows(self._y, index, t)

    def read_x(self, index: Array, x: Array, staged: Staged = None) -> None:
        """Write the scaled inputs at ``index`` into ``x``."""
        backend, xp = self.backend, self.backend.xp
        if self._staging is not None:
            if staged is None:
                host = index if backend.name == "cpu" else backend.to_numpy(index)
                staged = self._staging.stage(host)
            backend.receive(staged, x, self._offset, self._factor)
            return
        raw, rows = None, index.shape[0]
        if self._x.dtype != x.dtype:
            if rows not in self._raw:
                shape = (rows, self.features)
                self._raw[rows] = xp.empty(shape, dtype=self._x.dtype, device=backend.device)
            raw = self._raw[rows]
        backend.gather(self._x, index, x, raw, self._offset, self._factor)

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
