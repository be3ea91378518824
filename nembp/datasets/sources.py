"""Rows of a data set that may be larger than memory, and seeded draws of them.

A split's samples are an array in memory, or `Rows` of memory-mapped files. Nothing here holds more
than the rows of one call, and reading from several threads at once is safe.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nembp.errors import ArchitectureError, DataError


class Rows:
    """Samples that are read when asked for: those of `sources` end to end, or some at `index`.

    ``rows[a:b]``, ``rows[index]`` and ``np.asarray(rows)`` give arrays; `take` fills a buffer.
    Sources are arrays, best mapped ones or views of images that are stored plane by plane, and
    rows. `dtype` is what is read. A subclass says how in `_read` alone.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __init__(
        self,
        sources: Sequence[Samples],
        index: NDArray[np.integer[Any]] | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.sources, self.index = sources, index
        self.ends = np.cumsum([len(source) for source in sources])
        n = int(self.ends[-1]) if index is None else len(index)
        self.shape = (n, *sources[0].shape[1:])
        self.dtype = np.dtype(sources[0].dtype if dtype is None else dtype).newbyteorder("=")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def _read(self, index: NDArray[np.intp], out: NDArray[Any]) -> None:
        """Write the rows at `index`, which is in range, into `out` (len(index), *sample)."""
        index = index if self.index is None else self.index[index].astype(np.intp, copy=False)
        owner = np.searchsorted(self.ends, index, side="right")
        for number in np.unique(owner).tolist():
            mine, source = np.flatnonzero(owner == number), self.sources[number]
            local = index[mine] - (self.ends[number] - len(source))
            whole = len(mine) == len(index)
            part = out if whole else np.empty((len(mine), *self.shape[1:]), self.dtype)
            if isinstance(source, Rows):
                source._read(local, part)
            else:
                _gather(source, local, part)
            if not whole:
                out[mine] = part

    def take(
        self, index: NDArray[np.integer[Any]], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read rows in any order: out[i] = rows[index[i]].

        `out` (m, *sample) or (m, features), C-contiguous and of `dtype`, is the buffer to fill.
        """
        index = np.asarray(index)
        if len(index) and (index.min() < 0 or index.max() >= len(self)):
            raise IndexError(f"rows {index.min()} to {index.max()} of {len(self)}")
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


Samples: TypeAlias = NDArray[Any] | Rows


def _gather(array: NDArray[Any], index: NDArray[np.intp], out: NDArray[Any]) -> None:
    """Write array[index] into `out`; DataError where a mapped file has lost its end."""
    file: Any = _mapped_file(array)
    if file is not None and file._mmap.size() < len(file._mmap):  # to read there ends the process
        raise DataError(
            f"{file.filename or 'a mapped file'}: cut short to {file._mmap.size()} bytes while it "
            f"was in use; expected the {len(file._mmap)} that it had when it was opened. Restore "
            "it and start again"
        )
    if array.dtype == out.dtype and array.flags.c_contiguous:
        # "clip" writes straight into `out`; the default would fill a copy of it first
        np.take(array, index, axis=0, out=out, mode="clip")
    elif array.ndim == 4 and abs(array.strides[3]) > abs(array.strides[2]):
        planes = np.moveaxis(array, 3, 1)[index]
        for channel in range(array.shape[3]):  # four times as fast as one transposed copy
            out[..., channel] = planes[:, channel]
    else:
        out[...] = array[index]


def _mapped_file(x: Any) -> np.memmap[Any, Any] | None:
    while isinstance(x, np.ndarray) and not isinstance(x, np.memmap):
        x = x.base
    return x if getattr(x, "_mmap", None) is not None else None  # a copy of a memmap has none


def as_rows(x: Samples) -> Rows:
    """Return samples as `Rows`, without a copy."""
    return x if isinstance(x, Rows) else Rows([x])


def is_mapped(x: Samples) -> bool:
    """Whether samples are read when asked for: `Rows`, or a view of a memory-mapped file."""
    return isinstance(x, Rows) or _mapped_file(x) is not None


def choose(x: Samples, index: NDArray[np.integer[Any]]) -> Samples:
    """Choose samples by number: a copy of an array in memory, a view of anything mapped."""
    if type(x) is Rows:  # one look-up however often it is split
        return Rows(x.sources, index if x.index is None else x.index[index], x.dtype)
    return Rows([x], index) if is_mapped(x) else x[index]


def join(parts: Sequence[Samples]) -> Samples:
    """Join samples end to end: a copy of arrays in memory, a view where one is mapped."""
    if any(is_mapped(part) for part in parts):
        return Rows(parts)
    return np.concatenate([np.asarray(part) for part in parts])


# -- draws that keep every class -------------------------------------------------------------------
def random_bits(seed: int, name: str) -> np.random.PCG64:
    """Return the stream of a seed and of what it is for; the same in every NumPy version."""
    return np.random.PCG64([seed, zlib.crc32(name.encode())])


def shuffled(n: int, bits: np.random.PCG64) -> NDArray[np.intp]:
    """Return a random order of 0..n-1: of raw bits, since `permutation` may change with NumPy."""
    return np.argsort(bits.random_raw(n), kind="stable")


def stratified_choice(
    y: NDArray[Any], size: int, bits: np.random.PCG64
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw `size` of the samples; return the indices of those drawn, and of the rest, shuffled.

    Of labels (n,), class k gets max(1, size n_k / n) samples, rounded by largest remainders;
    targets (n, outputs) have no classes.
    """
    n = len(y)
    if y.ndim > 1:
        order = shuffled(n, bits)
        return order[:size], order[size:]
    y, counts = np.unique(y, return_inverse=True, return_counts=True)[1:]
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
