"""The bytes that Adam has to move, streamed once through memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from nembp.backend import Array, Backend

__all__ = ["AdamTraffic", "adam_bytes"]

ADAM_PASSES = 7  # reads of θ, g, M, V and writes of θ, M, V: the least that Adam can move


def adam_bytes(parameters: int, dtype: str) -> int:
    """Return the bytes that Adam must read and write in a step.

    >>> adam_bytes(1000, "float32")
    28000
    """
    return ADAM_PASSES * parameters * np.dtype(dtype).itemsize


class AdamTraffic:
    """A stream over Adam's four vectors that moves its bytes and computes next to nothing.

    θ, M and V are negated in place (a read and a write each), g is read by a dot product with
    itself. ``threads`` pieces run at once on the CPU.
    """

    def __init__(self, backend: Backend, parameters: int, dtype: str, threads: int = 1) -> None:
        self._backend = backend
        vectors = [backend.ones((parameters,), dtype) for _ in range(4)]
        cuts = [parameters * i // threads for i in range(threads + 1)]
        self._pieces = [[v[i:j] for v in vectors] for i, j in pairwise(cuts)]
        self._dots = [backend.empty((1, 1), dtype) for _ in self._pieces]
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __call__(self) -> None:
        """Stream over the vectors once."""
        if self._pool is None:
            self._stream(self._pieces[0], self._dots[0])
        else:
            list(self._pool.map(self._stream, self._pieces, self._dots))

    def _stream(self, vectors: list[Array], dot: Array) -> None:
        backend, xp = self._backend, self._backend.xp
        for v in vectors[:3]:
            xp.negative(v, out=v)
        g = vectors[3]
        backend.matmul(xp.reshape(g, (1, -1)), xp.reshape(g, (-1, 1)), dot)
