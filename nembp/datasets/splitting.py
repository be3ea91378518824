"""Seeded splits that keep every class in the training part."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.errors import ArchitectureError


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
