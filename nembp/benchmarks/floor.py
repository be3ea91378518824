"""The floor under a step: its bare matrix products, and the bytes that Adam has to move.

Nothing else is counted: no bias, activation, likelihood or Python, and no laying out of windows.
The products have the shapes, the memory layout and the order that
:class:`~nembp.engine.backprop.JointBackpropagation` needs, with B rows forward and R backward
(R = 0 in one direction, B in the general path, and in the class-sum path the K classes rounded up
to whole groups of rows, which cost no more) and layers of n_0..n_L neurons:

======================== ==================== =====================================
product                  rows                 linear maps
======================== ==================== =====================================
class sums tᵀ x          K × B × n_0          once, in the class-sum path
c Wᵀ, backward signals   R                    all
[a ; e] W, upward        B + R; the last: B   all
δ Wᵀ, forward errors     B                    all but the first
[a ; e]ᵀ [δ ; c]         B + R                all
======================== ==================== =====================================

A convolution has one row for each of its windows, and W has the shape (height · width · channels
in, channels out). Weightless linear maps have no product.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from nembp.backend import Array, Backend, stream
from nembp.benchmarks.window_products import WindowProducts, extent
from nembp.engine.backprop import Path, class_rows
from nembp.engine.convolution import Convolution
from nembp.engine.linear import Dense, LinearMap

__all__ = ["Products", "backward_rows", "dense_maps", "multiply_adds", "product_shapes"]

Shape = tuple[int, int, int]


def dense_maps(sizes: Sequence[int]) -> list[LinearMap]:
    """Return the linear maps of a fully connected network."""
    return [Dense(m, n) for m, n in pairwise(sizes)]


def backward_rows(maps: Sequence[LinearMap], batch: int, path: Path) -> int:
    """Return R, the rows of the backward direction."""
    return {"none": 0, "samples": batch, "classes": class_rows(maps[-1].outputs)}[path]


def product_shapes(maps: Sequence[LinearMap], batch: int, path: Path) -> list[Shape]:
    """Return (m, k, n) of every product (m × k)(k × n) of a step, in its order.

    >>> product_shapes(dense_maps([4, 3, 2]), 8, "none")
    [(8, 4, 3), (8, 3, 2), (8, 2, 3), (3, 8, 2), (4, 8, 3)]
    """
    extents = [extent(linear_map) for linear_map in maps]
    B, R = batch, backward_rows(maps, batch, path)
    shapes = [(R * e.windows, e.columns, e.rows) for e in reversed(extents) if e and R]
    if path == "classes":
        shapes.append((maps[-1].outputs, B, maps[0].inputs))
    for number, e in enumerate(extents, start=1):
        rows = B if number == len(extents) else B + R
        shapes += [(rows * e.windows, e.rows, e.columns)] if e else []
    for number, e in reversed(list(enumerate(extents))):
        if e:
            shapes += [(B * e.windows, e.columns, e.rows)] if number else []
            shapes.append((e.rows, (B + R) * e.windows, e.columns))
    return shapes


def multiply_adds(maps: Sequence[LinearMap], batch: int, path: Path) -> int:
    """Return the multiply-adds of a step's products.

    >>> multiply_adds(dense_maps([784, 512, 512, 10]), 1, "none")
    1604608
    """
    return sum(m * k * n for m, k, n in product_shapes(maps, batch, path))


class Products:
    """The bare products of one step, in buffers of their own; call it to run them all.

    ``block`` bounds the bytes of a convolution's windows, as in
    :class:`~nembp.benchmarks.window_products.WindowProducts`.
    """

    def __init__(
        self,
        backend: Backend,
        maps: Sequence[LinearMap],
        batch: int,
        path: Path,
        dtype: str,
        block: int | None = None,
    ) -> None:
        draw = stream(0, "benchmark/floor")

        def filled(rows: int, columns: int) -> Array:
            return backend.asarray(draw.normal(0.0, 1.0, (rows, columns)), dtype)

        self.backend, self.batch = backend, batch
        R = backward_rows(maps, batch, path)
        both, sizes = batch + R, [maps[0].inputs, *(linear_map.outputs for linear_map in maps)]
        self._P = [filled(both, size) for size in sizes[:-1]]
        self._Q: list[Array] = [None, *(filled(both, size) for size in sizes[1:])]
        self._z = backend.empty((batch, sizes[-1]), dtype)
        self._u = backend.empty((R, sizes[0]), dtype) if R else None
        self._bare: list[WindowProducts | _DenseProducts | None] = []
        for linear_map in maps:
            if isinstance(linear_map, Convolution):
                bare = WindowProducts(backend, linear_map, both, dtype, block)
                self._bare.append(bare)
            elif isinstance(linear_map, Dense):
                m, n = linear_map.weight_shape
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
        maps = [(k, bare) for k, bare in enumerate(self._bare, start=1) if bare]
        if self._u is not None:
            for k, bare in reversed(maps):
                bare.adjoint(Q[k][B:, :], self._u if k == 1 else Q[k - 1][B:, :])
        if self._sums is not None:
            self.backend.matmul(self._t.T, P[0][:B, :], self._sums)
        for k, bare in maps[:-1]:
            bare.forward(P[k - 1], P[k])
        k, bare = maps[-1]
        bare.forward(P[k - 1][:B, :], self._z)
        for k, bare in reversed(maps):
            if k > 1:
                bare.adjoint(Q[k][:B, :], Q[k - 1][:B, :])
            bare.weight_gradient(P[k - 1], Q[k])


class _DenseProducts:
    """The three products of a dense linear_map."""

    def __init__(self, backend: Backend, W: Array) -> None:
        self._matmul, self._W = backend.matmul, W
        self._gradient = backend.xp.empty_like(W)

    def forward(self, x: Array, out: Array) -> None:
        self._matmul(x, self._W, out)

    def adjoint(self, y: Array, out: Array) -> None:
        self._matmul(y, self._W.T, out)

    def weight_gradient(self, x: Array, y: Array) -> None:
        self._matmul(x.T, y, self._gradient)
