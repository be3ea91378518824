"""The floor under a step: its bare matrix products, and the bytes that Adam has to move.

Nothing else is counted: no bias, activation, likelihood or Python, and no laying out of windows.
The products have the shapes, the memory layout and the order that
:class:`~nembp.engine.backprop.JointBackpropagation` needs, with B rows forward and R backward
(R = 0 in one direction, B in the general path, and in the class-sum path the K classes rounded up
to whole groups of rows, which cost no more):

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

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from nembp.backend import Array, Backend, stream
from nembp.benchmarks.harness import device_median
from nembp.engine.backprop import Path, class_rows
from nembp.engine.convolution import Convolution
from nembp.engine.linear import Dense, LinearMap

BLOCK = 1 << 19  # bytes of windows: half of a common second-level cache
ADAM_PASSES = 7  # reads of θ, g, M, V and writes of θ, M, V: the least that Adam can move


class Extent(NamedTuple):
    """Shape of a linear map's products: W is (rows, columns), and a sample has ``windows`` rows."""

    windows: int
    rows: int
    columns: int


def extent(linear_map: LinearMap) -> Extent | None:
    """Return the shape of a linear map's products; None of a weightless one.

    >>> extent(Convolution((32, 32, 3), 16, (4, 4), (2, 2), (1, 1)))
    Extent(windows=256, rows=48, columns=16)
    """
    if isinstance(linear_map, Convolution):
        *kernel, channels = linear_map.weight_shape
        return Extent(math.prod(linear_map.output_shape[:2]), math.prod(kernel), channels)
    if isinstance(linear_map, Dense):
        return Extent(1, *linear_map.weight_shape)
    return None


def dense_maps(sizes: Sequence[int]) -> list[LinearMap]:
    """Return the linear maps of a fully connected network."""
    return [Dense(m, n) for m, n in pairwise(sizes)]


def backward_rows(maps: Sequence[LinearMap], batch: int, path: Path) -> int:
    """Return R, the rows of the backward direction."""
    return {"none": 0, "samples": batch, "classes": class_rows(maps[-1].outputs)}[path]


def product_shapes(maps: Sequence[LinearMap], batch: int, path: Path) -> list[tuple[int, int, int]]:
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


class MapProducts:
    """x W, y Wᵀ and xᵀ y of one linear map; those of a convolution with windows that lie ready.

    ``block`` bounds the bytes of windows in use at a time (at least one sample's): blocks that stay
    in cache cost less memory traffic, but more calls. By default all windows at once.
    """

    def __init__(
        self,
        backend: Backend,
        linear_map: LinearMap,
        samples: int,
        dtype: str,
        block: int | None = None,
    ) -> None:
        found = extent(linear_map)
        assert found is not None
        windows, rows, self._columns = found
        if block is not None:
            samples = min(samples, max(1, block // (windows * rows * np.dtype(dtype).itemsize)))
        self._backend, self._block = backend, samples * windows
        draw = stream(0, "benchmark/windows")
        self._windows: Array = None
        if isinstance(linear_map, Convolution):
            draws = draw.standard_normal((self._block, rows), dtype=np.float32)
            self._windows = backend.asarray(draws, dtype)
            self._patches = backend.empty((self._block, rows), dtype)
        W = draw.normal(0.0, (2.0 / (rows + self._columns)) ** 0.5, (rows, self._columns))
        self._W, self._gradient = backend.asarray(W, dtype), backend.empty(W.shape, dtype)

    def forward(self, x: Array, out: Array) -> None:
        """Multiply by W as many rows as ``out`` has room for."""
        if self._windows is None:
            self._backend.matmul(x, self._W, out)
            return
        for piece in self._pieces(out):
            self._backend.matmul(self._windows[: piece.shape[0], :], self._W, piece)

    def adjoint(self, y: Array, out: Array) -> None:
        """Multiply ``y`` by Wᵀ: of a convolution into patches, which are left as they are."""
        if self._windows is None:
            self._backend.matmul(y, self._W.T, out)
            return
        for piece in self._pieces(y):
            self._backend.matmul(piece, self._W.T, self._patches[: piece.shape[0], :])

    def weight_gradient(self, x: Array, y: Array) -> None:
        """Multiply the transposed rows or windows by ``y``."""
        if self._windows is None:
            self._backend.matmul(x.T, y, self._gradient)
            return
        for piece in self._pieces(y):
            windows = self._windows[: piece.shape[0], :]
            self._backend.matmul(windows.T, piece, self._gradient)

    def all_three(self, x: Array, y: Array) -> None:
        """Run the three products of a layer by itself."""
        self.forward(x, y)
        self.adjoint(y, x)
        self.weight_gradient(x, y)

    def _pieces(self, y: Array) -> list[Array]:
        pixels = self._backend.xp.reshape(y, (-1, self._columns))
        return [pixels[i : i + self._block, :] for i in range(0, pixels.shape[0], self._block)]


class Products:
    """The bare products of one step, in buffers of their own; call it to run them all."""

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
        self._bare = [
            (k, MapProducts(backend, linear_map, both, dtype, block))
            for k, linear_map in enumerate(maps, start=1)
            if extent(linear_map)
        ]
        self._t = filled(batch, sizes[-1]) if path == "classes" else None
        self._sums = backend.empty((sizes[-1], sizes[0]), dtype)

    def __call__(self) -> None:
        """Run the products once."""
        B, P, Q = self.batch, self._P, self._Q
        if self._u is not None:
            for k, bare in reversed(self._bare):
                bare.adjoint(Q[k][B:, :], self._u if k == 1 else Q[k - 1][B:, :])
        if self._t is not None:
            self.backend.matmul(self._t.T, P[0][:B, :], self._sums)
        for k, bare in self._bare[:-1]:
            bare.forward(P[k - 1], P[k])
        k, bare = self._bare[-1]
        bare.forward(P[k - 1][:B, :], self._z)
        for k, bare in reversed(self._bare):
            if k > 1:
                bare.adjoint(Q[k][:B, :], Q[k - 1][:B, :])
            bare.weight_gradient(P[k - 1], Q[k])


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


@dataclass(frozen=True)
class Card:
    """The measured ceilings of a GPU.

    Attributes
    ----------
    bandwidth : float
        Bytes a second, read and written, of a long copy.
    rate : float
        Multiply-adds a second of a large matrix product.
    """

    bandwidth: float
    rate: float

    def seconds(self, multiply_adds: int, moved: int) -> float:
        """Return the least time of work that multiplies, then moves bytes.

        >>> Card(bandwidth=1e12, rate=1e13).seconds(10**9, 10**6)
        0.000101
        """
        return multiply_adds / self.rate + moved / self.bandwidth


@cache
def measure_card(
    backend: Backend, dtype: str = "float32", size: int = 8192, length: int = 1 << 28
) -> Card:
    """Measure a copy of ``length`` numbers and a product of square matrices of ``size``.

    On random data, since products of zeros are faster.
    """
    draw, xp = stream(0, "benchmark/card"), backend.xp
    left, right = (
        backend.asarray(draw.standard_normal((size, size), dtype="f4"), dtype) for _ in range(2)
    )
    out = backend.empty((size, size), dtype)
    product = device_median(backend, lambda: backend.matmul(left, right, out))
    source, copy = backend.ones((length,), dtype), backend.empty((length,), dtype)
    copied = device_median(backend, lambda: xp.multiply(source, 1.0, out=copy))
    return Card(bandwidth=2 * length * np.dtype(dtype).itemsize / copied, rate=size**3 / product)
