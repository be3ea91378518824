"""Batches of a split, gathered, augmented and scaled straight into a network's buffers.

Samples stay as they are stored, 8-bit images as 8 bits, and each batch is scaled as it is read.
They may also stay in a file larger than memory, of which two batches at a time are read, one ahead
of the step that will use it. What fits on a GPU moves there once. Images may be augmented: flipped
and shifted, which costs one pass over the raw batch, 0.4 ms for 128 CIFAR images on one core.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nembp.backend import Array, Backend, stream
from nembp.datasets import Scaling, Split
from nembp.datasets.scaling import chunks
from nembp.datasets.sources import Rows, as_rows, is_mapped
from nembp.errors import ArchitectureError, DataError, ShapeError


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image, anew every epoch.

    With dy and dx uniform on −crop..crop and j' = j, or W − 1 − j in a flipped image,

        augmented[i, j] = image[reflect(i + dy), reflect(j' + dx)]

    Pixels from beyond the edge are reflections about it, without repeating the edge itself.

    The augmented image is the forward direction's input *and* the backward direction's target, so
    ``backward/centroid_error``, the distance to the mean of the plain images, has a floor above 0:
    on CIFAR-10 with pixels in [0, 1] 0.005 for flips and 0.020 for crops of 4 pixels (Zagoruyko and
    Komodakis 2016, section 3; filling with black, as He et al. 2015, section 4.2, would make it
    0.24). Digits and letters do not survive flips.
    """

    flip: bool = False  # mirror half of the images, left to right
    crop: int = 0  # largest shift in pixels, of rows and of columns

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self.flip or self.crop > 0

    def pixels(
        self, height: int, width: int, draws: NDArray[np.float64], out: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """Return the number of the pixel of a batch that goes to each place, (rows, H, W).

        `draws` (3, rows, 1) on [0, 1) are of dy, dx and the flip.
        """
        # where the product was rounded up, it is one too large
        shifts = np.minimum((draws[:2] * (2 * self.crop + 1)).astype(np.intp), 2 * self.crop)
        dy, dx = shifts - self.crop
        j, flipped = np.arange(width), self.flip & (draws[2] < 0.5)
        row = _reflect(np.arange(height) + dy, height) * width
        row += np.arange(len(dy))[:, np.newaxis] * (height * width)
        column = _reflect(np.where(flipped, j[::-1], j) + dx, width)
        return np.add(row[:, :, np.newaxis], column[:, np.newaxis, :], out=out)


def _reflect(index: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Fold indices from beyond 0..size−1 back about the edge pixels; at most size − 1 beyond."""
    index = np.abs(index)
    return np.where(index < size, index, 2 * (size - 1) - index)


class ScaledRows(Rows):
    """Rows scaled when they are read, in float64 and then cast: a large offset costs no digits."""

    def __init__(self, rows: Rows, scaling: Scaling, dtype: str) -> None:
        super().__init__([rows], dtype=dtype)
        self.rows, self.scaling = rows, scaling

    def _read(self, index: NDArray[np.intp], out: NDArray[Any]) -> None:
        self.scaling.apply(self.rows.take(index), out=out)


Staged: TypeAlias = NDArray[Any] | None  # raw rows on the host; None where nothing is staged


class BatchReader:
    """Reads samples of one split as network inputs and targets: of labels, one-hot rows.

    ``resident`` is whether all samples are held on the device; if not, each batch is gathered on
    the host, raw, in buffers that are used again. Left out: on a CPU those are that are in memory,
    on another device those that take at most half of its free memory; samples to be augmented
    never are. The augmentation's stream gives three numbers a sample (dy, dx, flip) whatever is
    switched on: nothing else shifts the draws, nor do they shift those of batches and noise.
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
        self.n, self.shape = len(split.x), split.x.shape[1:]
        self.features = int(np.prod(self.shape))
        self.is_classification = split.y.ndim == 1
        self.augmentation, self._seed = augmentation or Augmentation(), seed
        self._check_augmentation()
        self.go_to(0)
        rows, in_memory = as_rows(split.x), not is_mapped(split.x)
        on_host = backend.name == "cpu"
        self.prefetches = not (in_memory and on_host)  # else a batch takes 0.3 ms or less
        if rows.dtype != np.uint8 and np.any(x_scaling.offset):
            rows, x_scaling, in_memory = ScaledRows(rows, x_scaling, dtype), Scaling(), False
        if resident is None:
            size = rows.size * rows.dtype.itemsize
            resident = not is_mapped(split.x) if on_host else 2 * size <= backend.free_memory()
        self.is_resident = resident and not self.augmentation
        self._rows = rows
        self._x: Array = None
        if self.is_resident and on_host and in_memory:
            self._x = backend.asarray(np.reshape(split.x, (self.n, self.features)))
        elif self.is_resident:  # a part at a time: they may be larger than this memory
            self._x = backend.empty((self.n, self.features), str(rows.dtype))
            for part in chunks(rows):
                values = rows[part].reshape(-1, self.features)
                self._x[part.start : part.start + len(values), :] = backend.asarray(values)
        has_offset = bool(np.any(x_scaling.offset))
        self._offset = self._per_feature(x_scaling.offset) if has_offset else None
        self._factor = self._per_feature(x_scaling.factor)
        self._set_targets(split.y, y_scaling)
        self._made: dict[object, Any] = {}  # buffers
        self._lock = threading.Lock()  # one gather buffer, one stream of draws

    def _check_augmentation(self) -> None:
        crop, images = self.augmentation.crop, len(self.shape) == 3
        if self.augmentation and not (images and crop < min(self.shape[:2])):
            remedy = f"crop by less than {crop} pixels" if images else "leave it out"
            raise ArchitectureError(
                "augmentation needs images of shape (height, width, channels), but samples have "
                f"shape {self.shape}; {remedy} (--augment none does without)"
            )

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
        elif y.shape[1:] != (outputs,):
            raise ShapeError(f"targets have shape {y.shape}, but the network has {outputs} outputs")
        else:
            self._y = backend.asarray(y_scaling.apply(y, np.float64), self.dtype)

    def _per_feature(self, value: Any) -> Array | float:
        """Return an offset or factor as a number, or as a row of one value a feature."""
        if np.ndim(value) == 0:
            return float(value)
        row = np.broadcast_to(np.asarray(value, np.float64), self.shape).reshape(-1)
        return self.backend.asarray(row, self.dtype)

    def _kept(self, name: object, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    # -- batches gathered on the host -------------------------------------------------------------
    def batches(
        self, order: NDArray[np.intp], batch_size: int
    ) -> Generator[tuple[Array, Staged], None, None]:
        """Go through the samples in an order, a batch at a time; the last one may be smaller.

        What is yielded is for :meth:`read`, before the next batch is asked for. Where that pays,
        each is gathered on a second thread while the one before it is used: the same, bit for bit.
        """
        on_device, n = self.backend.asarray(order), len(order)
        starts = range(0, n, batch_size)
        parts = [slice(start, min(start + batch_size, n)) for start in starts]
        if self.is_resident:
            for part in parts:
                yield on_device[part], None
            return
        each = (order[part] for part in parts)
        in_turn = (self._stage(index, slot=0) for index in each)
        with closing(self._ahead(each) if self.prefetches else in_turn) as staged:
            for part, raw in zip(parts, staged, strict=True):
                yield on_device[part], raw

    def _ahead(self, indices: Iterable[NDArray[np.intp]]) -> Generator[NDArray[Any], None, None]:
        """Stage each batch on a thread while the one before it is used.

        An error of the thread is raised where its batch would have come. Closing the iterator,
        as leaving its loop does, ends the thread once the batch in progress is staged.
        """
        waiting = deque[Future[NDArray[Any]]]()
        with ThreadPoolExecutor(1, thread_name_prefix="nembp-batches") as thread:
            for number, index in enumerate(indices):
                run = contextvars.copy_context().run  # in this thread's np.errstate
                waiting.append(thread.submit(run, self._stage, index, number % 2))
                if number:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _stage(self, index: NDArray[np.intp], slot: int) -> NDArray[Any]:
        """Return the raw rows at ``index``, in the buffer of a slot until that is staged again."""
        shape, dtype = (len(index), self.features), self._rows.dtype
        with self._lock:
            # memory that a device copies from fast
            out = self._kept((slot, shape), lambda: self.backend.host_buffer(shape, dtype))
            self.backend.wait_for_copy(out)
            plain = out
            if self.augmentation:
                plain = self._kept(("gathered", shape), lambda: np.empty(shape, dtype))
            try:
                self._rows.take(index, plain)
            except OSError as error:
                raise DataError(
                    f"{error.filename or 'the samples'}: could not be read any more "
                    f"({error.strerror or error}); expected the file to stay as it was when it was "
                    "opened. Check the disk"
                ) from error
            if self.augmentation:
                height, width, channels = self.shape
                places = (len(index), height, width)
                pixels = self._kept(("pixels", shape), lambda: np.empty(places, np.intp))
                self.augmentation.pixels(
                    height, width, self._draws.random((3, len(index), 1)), pixels
                )
                # in mode "raise" it would gather into a temporary
                images = out.reshape(*places, channels)
                np.take(plain.reshape(-1, channels), pixels, axis=0, out=images, mode="clip")
            return np.asarray(out)

    # -- a batch of the network -------------------------------------------------------------------
    def read(self, index: Array, x: Array, t: Array, staged: Staged = None) -> None:
        """Write the samples at ``index`` (device integers) into ``x``, their targets into ``t``."""
        self.read_x(index, x, staged)
        if self.is_classification:
            rows = index.shape[0]
            spare = self._kept(("labels", rows), lambda: self.backend.empty((rows,), "int64"))
            self.backend.one_hot(self._y, index, self._classes, spare, t)
        else:
            self.backend.take_rows(self._y, index, t)

    def read_x(self, index: Array, x: Array, staged: Staged = None) -> None:
        """Write the scaled inputs at ``index`` into ``x``."""
        backend = self.backend
        if not self.is_resident:
            if staged is None:
                host = index if backend.name == "cpu" else backend.to_numpy(index)
                staged = self._stage(host, slot=2)  # no loop's, which take turns
            backend.receive(staged, x, self._offset, self._factor)
            return
        raw, dtype = None, self._x.dtype
        if dtype != x.dtype:
            raw = self._kept(("raw", index.shape[0]), lambda: backend.xp.empty_like(x, dtype=dtype))
        backend.gather(self._x, index, x, raw, self._offset, self._factor)

    def go_to(self, samples: int) -> None:
        """Go to where the augmentation's stream is after so many samples, of three draws each."""
        self._draws = stream(self._seed, "augmentation")
        self._draws.bit_generator.advance(3 * samples)  # type: ignore[attr-defined]

    def labels(self, index: Array) -> Array:
        """Return the labels at ``index``."""
        return self.backend.xp.take(self._y, index, axis=0)
