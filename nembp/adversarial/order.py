"""The order in which a game that knows no epochs goes through its samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SampleOrder"]


class SampleOrder:
    """All samples in random order, again and again, in batches of one size; a rest is left out.

    Parameters
    ----------
    n, batch_size : int
        Samples, and those of a batch.
    generator : numpy.random.Generator
        Of the permutations, one an epoch.

    >>> order = SampleOrder(5, 2, np.random.default_rng(0))
    >>> len(order.take(3)), [order.epoch_of(batch) for batch in range(5)]
    (6, [1, 1, 2, 2, 3])
    """

    def __init__(self, n: int, batch_size: int, generator: np.random.Generator) -> None:
        self._n, self._size, self._generator = n, batch_size, generator
        self._left: NDArray[Any] = np.empty(0, np.intp)  # of the epoch in progress

    def take(self, batches: int) -> NDArray[Any]:
        """Return the samples of so many batches to come, one batch after the other."""
        parts, missing = [], batches * self._size
        while missing:
            if not len(self._left):
                whole = self._n - self._n % self._size
                self._left = self._generator.permutation(self._n)[:whole]
            part, self._left = self._left[:missing], self._left[missing:]
            parts.append(part)
            missing -= len(part)
        return np.concatenate(parts)

    def epoch_of(self, batch: int) -> int:
        """Return the epoch, counted from 1, of a batch, counted from 0."""
        return 1 + batch // (self._n // self._size)
