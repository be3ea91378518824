"""The floor under a step: its bare matrix products, and the bytes that Adam has to move.

Nothing else is counted: no bias, activation, likelihood or Python, and no laying out of windows.
The products have the shapes, the memory layout and the order that
:class:`~nembp.backpropagation.JointBackpropagation` needs, with B rows forward and R backward
(R = 0 in one direction, B in the general path, and in the class-sum path the K classes rounded up
to whole groups of rows, which cost no more) and layers of n_0..n_L neurons:

======================== ==================== =====================================
product                  rows                 synapses
======================== ==================== =====================================
class sums tᵀ x          K × B × n_0          once, in the class-sum path
c Wᵀ, backward signals   R                    all
[a ; e] W, upward        B + R; the last: B   all
δ Wᵀ, forward errors     B                    all but the first
[a ; e]ᵀ [δ ; c]         B + R                all
======================== ==================== =====================================

A convolution has one row for each of its windows, and W has the shape (height · width · channels
in, channels out). Weightless synapses have no product.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from nembp.backend import Array, Backend, stream
from nembp.backpropagation import Path
from nembp.benchmarks.window_products import WindowProducts, extent
from nembp.convolution import Convolution
from nembp.ends import class_rows
from nembp.synapses import Dense, Synapse

__all__ = ["Products", "backward_rows", "dense_synapses", "multiply_adds", "product_shapes"]

Shape = tuple[int, int, int]


def dense_synapses(sizes: Sequence[int]) -> list[Synapse]:
    """Return the synapses of a fully connected network."""
    return [Dense(m, n) for m, n in pairwise(sizes)]


def backward_rows(synapses: Sequence[Synapse], batch: int, path: Path) -> int:
    """Return R, the rows of the backward direction."""
    return {"none": 0, "samples": batch, "classes": class_rows(synapses[-1].outputs)}[path]


def product_shapes(synapses: Sequence[Synapse], batch: int, path: Path) -> list[Shape]:
    """Return (m, k, n) of every product (m × k)(k × n) of a step, in its order.

    >>> product_shapes(dense_synapses([4, 3, 2]), 8, "none")
    [(8, 4, 3), (8, 3, 2), (8, 2, 3), (3, 8, 2), (4, 8, 3)]
    """
    extents = [extent(synapse) for synapse in synapses]
    B, R = batch, backward_rows(synapses, batch, path)
    shapes = [(R * e.windows, e.columns, e.rows) for e in reversed(extents) if e and R]
    if path == "classes":
        shapes.append((synapses[-1].outputs, B, synapses[0].inputs))
    for number, e in enumerate(extents, start=1):
        rows = B if number == len(extents) else B + R
        shapes += [(rows * e.windows, e.rows, e.columns)] if e else []
    for number, e in reversed(list(enumerate(extents))):
        if e:
            shapes += [(B * e.windows, e.columns, e.rows)] if number else []
            shapes.append((e.rows, (B + R) * e.windows, e.columns))
    return shapes


def multiply_adds(synapses: Sequence[Synapse], batch: int, path: Path) -> int:
    """Return the multiply-adds of a step's products.

    >>> multiply_adds(dense_synapses([784, 512, 512, 10]), 1, "none")
    1604608
    """
    return sum(m * k * n for m, k, n in product_shapes(synapses, batch, path))


class Products:
    """The bare products of one step, in buffers of their own; call it to run them all.

    ``block`` bounds the bytes of a convolution's windows, as in
    :class:`~nembp.benchmarks.window_products.WindowProducts`.
    """

    def __init__(
        self,
        backend: Backend,
        synapses: Sequence[Synapse],
        batch: int,
        path: Path,
        dtype: str,
        block: int | None = None,
    ) -> None:
        draw = stream(0, "benchmark/floor")

        def filled(rows: int, columns: int) -> Array:
            return backend.asarray(draw.normal(0.0, 1.0, (rows, columns)), dtype)

        self.backend, self.batch = backend, batch
        R = backward_rows(synapses, batch, path)
        both, sizes = batch + R, [synapses[0].inputs, *(synapse.outputs for synapse in synapses)]
        self._P = [filled(both, size) for size in sizes[:-1]]
        self._Q: list[Array] = [None, *(filled(both, size) for size in sizes[1:])]
        self._z = backend.empty((batch, sizes[-1]), dtype)
        self._u = backend.empty((R, sizes[0]), dtype) if R else None
        self._bare: list[WindowProducts | _DenseProducts | None] = []
        for synapse in synapses:
            if isinstance(synapse, Convolution):
                bare = WindowProducts(backend, synapse, both, dtype, block)
                self._bare.append(bare)
            elif isinstance(synapse, Dense):
                m, n = synapse.weight_shape
                self._bare.append(_DenseProducts(backend, filled(m, n) * (2.0 / (m + n)) ** 0.5))
            else:
                self._bare.append(None)
        self._sums = None
        if path == "classes":
            self._t = filled(batch, sizes[-1])
            self._sums = backend.empty((sizes[-1], sizes[0]), dtype)

    def __call__(self) -> None:
        """Run the products once."""
        B, P, Q = self.batch, self._P, self._Q
        synapses = [(k, bare) for k, bare in enumerate(self._bare, start=1) if bare]
        if self._u is not None:
            for k, bare in reversed(synapses):
                bare.adjoint(Q[k][B:, :], self._u if k == 1 else Q[k - 1][B:, :])
        if self._sums is not None:
            self.backend.matmul(self._t.T, P[0][:B, :], self._sums)
        for k, bare in synapses[:-1]:
            bare.forward(P[k - 1], P[k])
        k, bare = synapses[-1]
        bare.forward(P[k - 1][:B, :], self._z)
        for k, bare in reversed(synapses):
            if k > 1:
                bare.adjoint(Q[k][:B, :], Q[k - 1][:B, :])
            bare.weight_gradient(P[k - 1], Q[k])


class _DenseProducts:
    """The three products of a dense synapse."""

    def __init__(self, backend: Backend, W: Array) -> None:
        self._matmul, self._W = backend.matmul, W
        self._gradient = backend.xp.empty_like(W)

    def forward(self, x: Array, out: Array) -> None:
        self._matmul(x, self._W, out)

    def adjoint(self, y: Array, out: Array) -> None:
        self._matmul(y, self._W.T, out)

    def weight_gradient(self, x: Array, y: Array) -> None:
        self._matmul(x.T, y, self._gradient)
