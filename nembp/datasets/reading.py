"""Batches of a split, gathered, augmented and scaled straight into a network's buffers.

Samples stay as they are stored, 8-bit images as 8 bits, and each batch is scaled as it is read.
They may also stay in a file larger than memory, of which two batches at a time are read, one ahead
of the step that will use it. What fits on a GPU moves there once. Images may be augmented: flipped
and shifted, which costs one pass over the raw batch, 0.4 ms for 128 CIFAR images on one core.
"""

from __future__ import annotations

import contextvars
import operator
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nembp.backend import Array, Backend, stream
from nembp.datasets import Scaling, Split
from nembp.datasets.scaling import chunks
from nembp.datasets.sources import Rows, as_rows, is_mapped
from nembp.errors import ArchitectureError, DataError, ShapeError
from nembp.threads import thread_count, usable_cores


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image, anew every epoch.

    With dy and dx uniform on −crop..crop and j' = j, or W − 1 − j in a flipped image,

        augmented[i, j] = image[reflect(i + dy), reflect(j' + dx)]

    Pixels from beyond the edge are reflections about it, without repeating the edge itself.

    The augmented image is the forward direction's input *and* the backward direction's target, so
    ``backward/centroid_error``, the distance to the mean of the plain images, has a floor above 0:
    on CIFAR-10 with pixels in [0, 1] 0.005 for flips and 0.020 for crops of 4 pixels (filling with
    black, the field's other custom, would make it 0.24). Digits and letters do not survive flips.

    References
    ----------
    Zagoruyko and Komodakis, Wide Residual Networks, 2016, section 3: flips, and crops of 4 pixels
    filled by reflection. He et al., Deep Residual Learning, 2015, section 4.2, fill with zeros.
    """

    flip: bool = False  # mirror half of the images, left to right
    crop: int = 0  # largest shift in pixels, of rows and of columns

    def __post_init__(self) -> None:
        if not isinstance(self.flip, (bool, np.bool_)):
            raise ArchitectureError(f"flip must be True or False, got {self.flip!r}")
        try:
            crop = -1 if isinstance(self.crop, bool) else operator.index(self.crop)
        except TypeError:
            crop = -1
        if crop < 0:
            raise ArchitectureError(
                f"crop must be a whole number of pixels, at least 0, got {self.crop!r}"
            )

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return bool(self.flip or self.crop)


class Augmenter:
    """Augments raw batches of images (H, W, C).

    The stream "augmentation" of the seed gives three numbers a sample (dy, dx, flip) whatever is
    switched on, drawn on the host: neither the device nor another option shifts the draws, nor do
    these draws shift those of batches and noise.

    Examples
    --------
    >>> image = np.arange(4, dtype=np.uint8).reshape(1, 4)  # one row of 4 grey pixels
    >>> flip = Augmenter(Augmentation(flip=True), (1, 4, 1), seed=0)
    >>> [flip(image, np.empty_like(image)).tolist()[0] for _ in range(5)]
    [[3, 2, 1, 0], [3, 2, 1, 0], [3, 2, 1, 0], [3, 2, 1, 0], [0, 1, 2, 3]]
    """

    def __init__(self, augmentation: Augmentation, shape: tuple[int, ...], seed: int) -> None:
        if len(shape) != 3:
            raise ArchitectureError(
                f"augmentation needs images of shape (height, width, channels), but samples have "
                f"shape {shape}; leave it out"
            )
        self.height, self.width, self.channels = shape
        if augmentation.crop >= min(self.height, self.width):
            raise ArchitectureError(
                f"crop {augmentation.crop} must be smaller than the images of "
                f"{self.height}x{self.width} pixels"
            )
        self.augmentation = augmentation
        self._seed = seed
        self.go_to(0)
        crop, shifts = augmentation.crop, 2 * augmentation.crop + 1
        self._shifts = shifts
        # for every shift, the row or column of the original that each pixel comes from
        shift = np.arange(-crop, crop + 1)[:, np.newaxis]
        self._rows = _reflect(np.arange(self.height) + shift, self.height) * self.width
        columns = _reflect(np.arange(self.width) + shift, self.width)
        flipped = columns[:, ::-1] if augmentation.flip else columns
        self._columns = np.concatenate([columns, flipped])
        self._pixels: dict[int, NDArray[np.intp]] = {}

    def __call__(self, raw: NDArray[Any], out: NDArray[Any]) -> NDArray[Any]:
        """Write an augmented copy of each row of ``raw`` (rows, H·W·C) into another array."""
        rows, shifts = raw.shape[0], self._shifts
        draws = self._generator.random((3, rows))
        # where the product was rounded up, it is one too large
        dy, dx = np.minimum((draws[:2] * shifts).astype(np.intp), shifts - 1)
        first = np.arange(rows)[:, np.newaxis] * (self.height * self.width)
        row, column = self._rows[dy] + first, self._columns[dx + shifts * (draws[2] < 0.5)]
        if rows not in self._pixels:
            self._pixels[rows] = np.empty((rows, self.height, self.width), np.intp)
        pixel = np.add(row[:, :, np.newaxis], column[:, np.newaxis, :], out=self._pixels[rows])
        target = out.reshape(rows, self.height, self.width, self.channels)
        # in mode "raise" it would gather into a temporary
        np.take(raw.reshape(-1, self.channels), pixel, axis=0, out=target, mode="clip")
        return out

    def go_to(self, samples: int) -> None:
        """Go to where the stream is after so many samples: each takes three draws of 64 bits."""
        self._generator = stream(self._seed, "augmentation")
        self._generator.bit_generator.advance(3 * samples)  # type: ignore[attr-defined]


def _reflect(index: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Fold indices from beyond 0..size−1 back about the edge pixels; at most size − 1 beyond."""
    index = np.abs(index)
    return np.where(index < size, index, 2 * (size - 1) - index)


class Prefetch:
    """Gathers and augments rows in buffers that are used again and again.

    What waits in a buffer is raw: 8-bit images take a quarter of the memory of what a step gets,
    and scaling them is quick beside gathering and augmenting. A backend to whose device the batches
    go gives the memory that it copies from fast.
    """

    def __init__(
        self, rows: Rows, augmenter: Augmenter | None = None, backend: Backend | None = None
    ) -> None:
        self.rows, self.augmenter, self._backend = rows, augmenter, backend
        self._features = int(np.prod(rows.shape[1:]))
        self._buffers: dict[object, NDArray[Any]] = {}
        self._lock = threading.Lock()

    def stage(self, index: NDArray[np.intp], slot: int) -> NDArray[Any]:
        """Return the raw rows at ``index``, in the buffer of a slot until that is staged again."""
        with self._lock:  # one gather buffer, one stream of draws
            out = self._buffer(slot, len(index))
            if self._backend is not None:
                self._backend.wait_for_copy(out)
            gathered = out if self.augmenter is None else self._buffer("gathered", len(index))
            try:
                self.rows.take(index, gathered)
            except OSError as error:
                raise DataError(
                    f"{error.filename or 'the samples'}: could not be read any more "
                    f"({error.strerror or error}); expected the file to stay as it was when it was "
                    "opened. Check the disk"
                ) from error
            return out if self.augmenter is None else self.augmenter(gathered, out)

    def ahead(self, indices: Iterable[NDArray[np.intp]]) -> Generator[NDArray[Any], None, None]:
        """Stage each batch on a thread while the one before it is used; the same rows.

        An error of the thread is raised where its batch would have come. Closing the iterator,
        as leaving its loop does, ends the thread once the batch in progress is staged.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="nembp-batches") as thread:
            slots, waiting = cycle((0, 1)), None
            for index in indices:
                following: Future[NDArray[Any]] = thread.submit(
                    contextvars.copy_context().run, self.stage, index, next(slots)
                )  # in this thread's np.errstate
                if waiting is not None:
                    yield waiting.result()
                waiting = following
            if waiting is not None:
                yield waiting.result()

    def _buffer(self, name: object, rows: int) -> NDArray[Any]:
        whole = self._buffers.get(name)
        if whole is None or len(whole) < rows:
            shape, dtype = (rows, self._features), self.rows.dtype
            if self._backend is None or name == "gathered":
                whole = np.empty(shape, dtype)
            else:  # it goes to the device
                whole = self._backend.host_buffer(shape, dtype)
            self._buffers[name] = whole
        return whole[:rows]


class ScaledRows(Rows):
    """Rows scaled when they are read, in float64 and then cast: a large offset costs no digits."""

    def __init__(self, rows: Rows, scaling: Scaling, dtype: str) -> None:
        self.rows, self.scaling = rows, scaling
        self.shape, self.dtype = rows.shape, np.dtype(dtype)

    def _read(self, index: NDArray[np.intp], out: NDArray[Any]) -> None:
        self.scaling.apply(self.rows.take(index), out=out)


LONG = 1 << 17  # values of a batch

Staged: TypeAlias = NDArray[Any] | None  # raw rows on the host; None where nothing is staged


class BatchReader:
    """Reads samples of one split as network inputs and targets.

    Parameters
    ----------
    split : Split
        Samples, in memory or in files, and labels, of which one-hot rows are read, or targets.
    x_scaling, y_scaling : Scaling
        scaled = (raw − offset) · factor.
    outputs : int
        Columns of the target: classes, or regression targets.
    backend, dtype : Backend, str
        Of the network that is fed.
    augmentation, seed : Augmentation, optional, and int
        Of the images, each time they are read: for training, not for scoring.
    resident : bool, optional
        Whether all samples are held on the device; if not, each batch is gathered on the host.
        Left out: on a CPU those are that are in memory, on another device those that take at most
        half of its free memory. Samples to be augmented never are.

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
        if rows.dtype != np.uint8 and np.any(x_scaling.offset):
            rows, x_scaling = ScaledRows(rows, x_scaling, dtype), Scaling()
        if resident is None:
            on_host = backend.name == "cpu"
            resident = (
                not mapped
                if on_host
                else 2 * rows.size * rows.dtype.itemsize <= backend.free_memory()
            )
        self._x: Array = None
        self._prefetch: Prefetch | None = None
        if augmentation or not resident:
            augmenter = Augmenter(augmentation, shape, seed) if augmentation else None
            self._prefetch = Prefetch(rows, augmenter, backend)
        elif backend.name == "cpu" and not mapped and not isinstance(rows, ScaledRows):
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
            self._classes = backend.asarray(np.arange(outputs)[np.newaxis], "int64")
        else:
            if y.shape[1:] != (outputs,):
                raise ShapeError(
                    f"targets have shape {y.shape}, but the network has {outputs} outputs"
                )
            self._y = backend.asarray(y_scaling.apply(y, np.float64), self.dtype)

    @property
    def is_resident(self) -> bool:
        """Whether all samples are held on the device."""
        return self._prefetch is None

    def prefetch_pays(self, batch_size: int) -> bool:
        """Say whether preparing a batch during the step before it is likely to save time.

        It is where a batch may have to wait for a disk, or a device waits for it. Augmenting a
        batch in memory takes 0.4 ms for 128 CIFAR images, and handing it to a thread and back
        0.1 ms, so a core must be spare and the batch long.
        """
        if self._prefetch is None:
            return False
        if self._mapped or self.backend.name != "cpu":
            return True
        return batch_size * self.features >= LONG and usable_cores() > thread_count()

    def batches(
        self, order: NDArray[np.intp], batch_size: int, *, prefetch: bool | None = None
    ) -> Generator[tuple[Array, Staged], None, None]:
        """Go through the samples in an order, a batch at a time; the last one may be smaller.

        ``order`` are sample numbers on the host. With ``prefetch``, by default where
        :meth:`prefetch_pays`, each batch is gathered and augmented on a second thread while the one
        before it is used: the same batches, bit for bit. What is yielded is for :meth:`read`,
        before the next batch is asked for.

        Raises
        ------
        DataError
            If a file cannot be read any more.
        """
        on_device = self.backend.asarray(order)
        n = len(order)
        ends = [(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
        if self._prefetch is None:
            for start, end in ends:
                yield on_device[start:end], None
            return
        ahead = self.prefetch_pays(batch_size) if prefetch is None else prefetch
        each = (order[start:end] for start, end in ends)
        in_turn = (self._prefetch.stage(index, slot=0) for index in each)
        with closing(self._prefetch.ahead(each) if ahead else in_turn) as staged:
            for (start, end), raw in zip(ends, staged, strict=True):
                yield on_device[start:end], raw

    def read(self, index: Array, x: Array, t: Array, staged: Staged = None) -> None:
        """Write the samples at ``index`` (device integers) into ``x``, their targets into ``t``."""
        self.read_x(index, x, staged)
        if self.is_classification:
            rows = index.shape[0]
            if rows not in self._labels:
                self._labels[rows] = self.backend.empty((rows,), "int64")
            self.backend.one_hot(self._y, index, self._classes, self._labels[rows], t)
        else:
            self.backend.take_rows(self._y, index, t)

    def read_x(self, index: Array, x: Array, staged: Staged = None) -> None:
        """Write the scaled inputs at ``index`` into ``x``."""
        backend = self.backend
        if self._prefetch is not None:
            if staged is None:
                host = index if backend.name == "cpu" else backend.to_numpy(index)
                staged = self._prefetch.stage(host, slot=2)  # no loop's, which take turns
            backend.receive(staged, x, self._offset, self._factor)
            return
        raw, rows = None, index.shape[0]
        if self._x.dtype != x.dtype:
            if rows not in self._raw:
                self._raw[rows] = backend.xp.empty_like(x, dtype=self._x.dtype)
            raw = self._raw[rows]
        backend.gather(self._x, index, x, raw, self._offset, self._factor)

    def go_to(self, samples: int) -> None:
        """Go to where the augmentation's stream is after so many samples were read."""
        if self._prefetch is not None and self._prefetch.augmenter is not None:
            self._prefetch.augmenter.go_to(samples)

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
