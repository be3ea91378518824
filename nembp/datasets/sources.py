"""Rows of a data set that may be larger than memory, and seeded draws of them.

A split's samples are an array in memory, or `Rows`: a memory-mapped file, several of them, or a
choice of rows of any of these. Nothing here holds more than the rows of one call, and reading from
several threads at once is safe. `as_rows` makes both kinds look alike.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nembp.errors import ArchitectureError, DataError


class Rows(ABC):
    """Samples that are read when asked for, row by row.

    ``rows[a:b]``, ``rows[index]`` and ``np.asarray(rows)`` give arrays, like those of an array in
    memory; `take` fills a buffer that is used again and again. `shape` is (n, *sample), and `dtype`
    that of what is read, in native byte order. A subclass says how to read in `_read`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @abstractmethod
    def _read(self, index: NDArray[np.intp], out: NDArray[Any]) -> None:
        """Write the rows at `index`, which is in range, into `out` (len(index), *sample)."""

    def take(
        self, index: NDArray[np.integer[Any]], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read rows in any order: out[i] = rows[index[i]].

        `out` (m, *sample) or (m, features), C-contiguous and of `dtype`, is the buffer to fill.
        """
        index = np.asarray(index)
        _check_range(index, len(self))
        shape = (len(index), *self.shape[1:])
        out = np.empty(shape, self.dtype) if out is None else out
        self._read(index.astype(np.intp, copy=False), out.reshape(shape))
        return out

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read one row (integer) or several (slice, integer or boolean array)."""
        index = np.arange(len(self))[key]  # by NumPy's rules
        rows = self.take(np.atleast_1d(index))
        return rows if np.ndim(index) else np.asarray(rows[0])

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("rows of a file cannot become an array without reading them")
        values = self.take(np.arange(len(self)))
        return values if dtype is None else values.astype(dtype, copy=False)


def _check_range(index: NDArray[np.integer[Any]], n: int) -> None:
    if len(index) and (index.min() < 0 or index.max() >= n):
        raise IndexError(f"rows {index.min()} to {index.max()} of {n}")


class ArrayRows(Rows):
    """Rows of an array (n, ...), most usefully a mapped one, which is never copied as a whole.

    With `dtype` they are converted to it when read; else to the array's in native byte order. The
    array may be a view of images that are stored plane by plane.
    """

    def __init__(self, array: NDArray[Any], dtype: DTypeLike | None = None) -> None:
        self.array, self.shape = array, array.shape
        self.dtype = np.dtype(array.dtype if dtype is None else dtype).newbyteorder("=")
        self._file = _mapped_file(array)
        self._planar = array.ndim == 4 and abs(array.strides[3]) > abs(array.strides[2])

    def _read(self, index: NDArray[np.intp], out: NDArray[Any]) -> None:
        self._check_file()
        if self.array.dtype == out.dtype and self.array.flags.c_contiguous:
            # "clip" writes straight into `out`; the default would fill a copy of it first
            np.take(self.array, index, axis=0, out=out, mode="clip")
        elif self._planar:
            planes = np.moveaxis(self.array, 3, 1)[index]
            for channel in range(self.shape[3]):  # four times as fast as one transposed copy
                out[..., channel] = planes[:, channel]
        else:
            out[...] = self.array[index]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if not isinstance(key, slice) or self._planar:
            return super().__getitem__(key)
        self._check_file()
        part = self.array[key]  # no copy, where it is as it should be
        return np.asarray(part.astype(self.dtype, copy=False))

    def _check_file(self) -> None:
        """Raise DataError where the file has lost its end: reading there would end the process."""
        file: Any = self._file
        if file is not None and file._mmap.size() < len(file._mmap):
            raise DataError(
                f"{file.filename or 'a mapped file'}: cut short to {file._mmap.size()} bytes while "
                f"it was in use; expected the {len(file._mmap)} that it had when it was opened. "
                "Restore it and start again"
            )


class JoinedRows(Rows):
    """Rows of several sources, of one dtype and shape of a sample, one after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts, self.ends = parts, np.cumsum([len(part) for part in parts])
        self.shape, self.dtype = (int(self.ends[-1]), *parts[0].shape[1:]), parts[0].dtype

    def _read(self, index: NDArray[np.intp], out: NDArray[Any]) -> None:
        owner = np.searchsorted(self.ends, index, side="right")
        for number in np.unique(owner).tolist():
            mine, part = np.flatnonzero(owner == number), self.parts[number]
            local = index[mine] - (self.ends[number] - len(part))
            if len(mine) == len(index):
                part._read(local, out)
            else:
                out[mine] = part.take(local)


class ChosenRows(Rows):
    """Rows of another source at `index`, in that order."""

    def __init__(self, rows: Rows, index: NDArray[np.integer[Any]]) -> None:
        _check_range(index, len(rows))
        self.rows: Rows = rows
        self.index: NDArray[np.intp] = index.astype(np.intp)
        if isinstance(rows, ChosenRows):  # one look-up however often it is split
            self.rows, self.index = rows.rows, rows.index[self.index]
        self.shape, self.dtype = (len(index), *rows.shape[1:]), rows.dtype

    def _read(self, index: NDArray[np.intp], out: NDArray[Any]) -> None:
        self.rows._read(self.index[index], out)


Samples: TypeAlias = NDArray[Any] | Rows


def as_rows(x: Samples) -> Rows:
    """Return samples as `Rows`, without a copy.

    >>> as_rows(np.arange(6).reshape(3, 2)).take(np.array([2, 0])).tolist()
    [[4, 5], [0, 1]]
    """
    return x if isinstance(x, Rows) else ArrayRows(x)


def is_mapped(x: Samples) -> bool:
    """Whether samples are read when asked for: `Rows`, or a view of a memory-mapped file."""
    return isinstance(x, Rows) or _mapped_file(x) is not None


def _mapped_file(x: Any) -> np.memmap[Any, Any] | None:
    while isinstance(x, np.ndarray) and not isinstance(x, np.memmap):
        x = x.base
    return x if getattr(x, "_mmap", None) is not None else None  # a copy of a memmap has none


def choose(x: Samples, index: NDArray[np.integer[Any]]) -> Samples:
    """Choose samples by number: a copy of an array in memory, a view of anything mapped."""
    return ChosenRows(as_rows(x), index) if is_mapped(x) else x[index]


def join(parts: Sequence[Samples]) -> Samples:
    """Join samples end to end: a copy of arrays in memory, a view where one is mapped."""
    if any(is_mapped(part) for part in parts):
        return JoinedRows([as_rows(part) for part in parts])
    return np.concatenate([np.asarray(part) for part in parts])


# -- draws that keep every class -------------------------------------------------------------------
def random_bits(seed: int, name: str) -> np.random.PCG64:
    """Return the stream of a seed and of what it is for; the same in every NumPy version."""
    return np.random.PCG64([seed, zlib.crc32(name.encode())])


def shuffled(n: int, bits: np.random.PCG64) -> NDArray[np.intp]:
    """Return a random order of 0..n-1, the same in every NumPy version.

    `Generator.permutation` may change between versions; the raw bits of a bit generator may not.

    >>> shuffled(5, random_bits(0, "example")).tolist()
    [2, 1, 0, 3, 4]
    """
    return np.argsort(bits.random_raw(n), kind="stable")


def stratified_choice(
    y: NDArray[Any], size: int, bits: np.random.PCG64
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw `size` of the samples; return the indices of those drawn, and of the rest, shuffled.

    Of labels (n,), class k of 0..K-1 gets max(1, size n_k / n) samples, rounded by largest
    remainders; a `size` below K or above n is an ArchitectureError. Targets (n, outputs) have no
    classes.
    """
    n = len(y)
    if y.ndim > 1:
        order = shuffled(n, bits)
        return order[:size], order[size:]
    counts = np.bincount(y)
    if not len(counts) <= size <= n:
        raise ArchitectureError(
            f"{size} samples cannot be drawn with each of {len(counts)} classes among them: "
            f"expected a number from {len(counts)} to {n}"
        )
    take = _apportion(counts, size)
    order = shuffled(n, bits)
    drawn = y[order]
    by_class = np.argsort(drawn, kind="stable")
    rank = np.empty(n, dtype=np.int64)
    first = np.cumsum(counts) - counts
    rank[by_class] = np.arange(n) - first[drawn[by_class]]
    chosen = rank < take[drawn]
    # the classes' quotas fill up at different times, so either part begins and ends unevenly
    kept, rest = order[chosen], order[~chosen]
    return kept[shuffled(len(kept), bits)], rest[shuffled(len(rest), bits)]


def _apportion(counts: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Share `size` among classes of `counts` samples: at least 1, at most their count."""
    share = counts * (size / counts.sum())
    take: NDArray[np.int64] = np.maximum(1, np.floor(share)).astype(np.int64)
    missing = size - int(take.sum())
    if missing > 0:
        take[np.argsort(take - share, kind="stable")[:missing]] += 1
    while missing < 0:  # classes raised to 1 took too much: take it back from the larger ones
        larger = np.flatnonzero(take > 1)
        least_hurt = np.argsort((share - take)[larger], kind="stable")[:-missing]
        take[larger[least_hurt]] -= 1
        missing += len(least_hurt)
    return take
