"""The floor under a step: its bare matrix products, and the bytes that Adam has to move.

Nothing else is counted: no bias, activation, likelihood or Python. The products have the shapes,
the memory layout and the order that :class:`~nembp.backpropagation.JointBackpropagation` needs,
with B rows forward and R backward (R = 0 in one direction, B in the general path, and in the
class-sum path the K classes rounded up to whole groups of rows, which cost no more) and layers of
n_0..n_L neurons:

======================== ==================== =====================================
product                  rows                 synapses
======================== ==================== =====================================
class sums tᵀ x          K × B × n_0          once, in the class-sum path
c Wᵀ, backward signals   R                    all
[a ; e] W, upward        B + R; the last: B   all
δ Wᵀ, forward errors     B                    all but the first
[a ; e]ᵀ [δ ; c]         B + R                all
======================== ==================== =====================================
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from nembp.backend import Array, Backend, stream
from nembp.backpropagation import Path
from nembp.ends import class_rows

__all__ = ["AdamTraffic", "Products", "adam_bytes", "multiply_adds", "product_shapes"]

Shape = tuple[int, int, int]
ADAM_PASSES = 7  # reads of θ, g, M, V and writes of θ, M, V: the least that Adam can move


def backward_rows(sizes: Sequence[int], batch: int, path: Path) -> int:
    """Return R, the rows of the backward direction."""
    return {"none": 0, "samples": batch, "classes": class_rows(sizes[-1])}[path]


def product_shapes(sizes: Sequence[int], batch: int, path: Path) -> list[Shape]:
    """Return (m, k, n) of every product (m × k)(k × n) of a step, in its order.

    >>> product_shapes([4, 3, 2], 8, "none")
    [(8, 4, 3), (8, 3, 2), (8, 2, 3), (4, 8, 3), (3, 8, 2)]
    """
    pairs, B, R = list(pairwise(sizes)), batch, backward_rows(sizes, batch, path)
    shapes: list[Shape] = []
    if R:
        shapes += [(R, n, m) for m, n in pairs[::-1]]
    if path == "classes":
        shapes.append((sizes[-1], B, sizes[0]))
    shapes += [(B + R, m, n) for m, n in pairs[:-1]]
    shapes.append((B, sizes[-2], sizes[-1]))
    shapes += [(B, n, m) for m, n in pairs[:0:-1]]
    shapes += [(m, B + R, n) for m, n in pairs]
    return shapes


def multiply_adds(sizes: Sequence[int], batch: int, path: Path) -> int:
    """Return the multiply-adds of a step's products.

    >>> multiply_adds([784, 512, 512, 10], 1, "none")
    1604608
    """
    return sum(m * k * n for m, k, n in product_shapes(sizes, batch, path))


class Products:
    """The bare products of one step, in buffers of their own; call it to run them all."""

    def __init__(
        self, backend: Backend, sizes: Sequence[int], batch: int, path: Path, dtype: str
    ) -> None:
        draw = stream(0, "benchmark/floor")

        def filled(rows: int, columns: int, deviation: float = 1.0) -> Array:
            return backend.asarray(draw.normal(0.0, deviation, (rows, columns)), dtype)

        self.backend, self.batch = backend, batch
        R = backward_rows(sizes, batch, path)
        both, K = batch + R, sizes[-1]
        self._weights = [filled(m, n, (2.0 / (m + n)) ** 0.5) for m, n in pairwise(sizes)]
        self._gradients = [backend.empty((m, n), dtype) for m, n in pairwise(sizes)]
        self._P = [filled(both, n) for n in sizes[:-1]]
        self._Q: list[Array] = [None, *(filled(both, n) for n in sizes[1:])]
        self._z = backend.empty((batch, K), dtype)
        self._u = backend.empty((R, sizes[0]), dtype) if R else None
        self._sums = None
        if path == "classes":
            self._t, self._sums = filled(batch, K), backend.empty((K, sizes[0]), dtype)

    def __call__(self) -> None:
        """Run the products once."""
        matmul, B, last = self.backend.matmul, self.batch, len(self._weights)
        P, Q, W = self._P, self._Q, self._weights
        if self._u is not None:
            for k in range(last, 0, -1):
                into = self._u if k == 1 else Q[k - 1][B:, :]
                matmul(Q[k][B:, :], W[k - 1].T, into)
        if self._sums is not None:
            matmul(self._t.T, P[0][:B, :], self._sums)
        for k in range(1, last):
            matmul(P[k - 1], W[k - 1], P[k])
        matmul(P[last - 1][:B, :], W[-1], self._z)
        for k in range(last, 1, -1):
            matmul(Q[k][:B, :], W[k - 1].T, Q[k - 1][:B, :])
        for k in range(1, last + 1):
            matmul(P[k - 1].T, Q[k], self._gradients[k - 1])


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
            backend.into(v, xp.negative, v)
        g = vectors[3]
        backend.matmul(xp.reshape(g, (1, -1)), xp.reshape(g, (-1, 1)), dot)
