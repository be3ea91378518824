"""The floor under a step: its bare matrix products, and the bytes that Adam has to move.

Nothing else is counted: no bias, activation, likelihood or Python, and no laying out of windows.
The products have the shapes, the memory layout and the order that
:class:`~nembp.engine.backprop.JointBackpropagation` needs, with B rows forward and R backward
(R = 0 in one direction, B in the general path, and in the class-sum path the K classes rounded up
to whole groups of rows, which cost no more):

======================== ==================== =====================================
product                  rows                 linear maps
======================== ==================== =====================================
c Wᵀ, backward signals   R                    all
class sums tᵀ x          K × B × n_0          once, in the class-sum path
[a ; e] W, upward        B + R; the last: B   all
δ Wᵀ, forward errors     B                    all but the first
[a ; e]ᵀ [δ ; c]         B + R                all
======================== ==================== =====================================

A convolution has one row for each of its windows, and W has the shape (height · width · channels
in, channels out). Weightless linear maps have no product.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise

import numpy as np

from nembp.backend import Array, Backend, stream
from nembp.engine.backprop import Path, class_rows
from nembp.engine.convolution import Convolution
from nembp.engine.linear import Dense, LinearMap

BLOCK = 1 << 19  # bytes of windows: half of a common second-level cache
Product = tuple[Array, Array, Array]  # left, right, and where it is written
ADAM_PASSES = 7  # reads of θ, g, M, V and writes of θ, M, V: the least that Adam can move


def extent(linear_map: LinearMap) -> tuple[int, int, int] | None:
    """Return the windows of a sample, and rows and columns of W; None of a weightless map.

    >>> extent(Convolution((32, 32, 3), 16, (4, 4), (2, 2), (1, 1)))
    (256, 48, 16)
    """
    if isinstance(linear_map, Convolution):
        *kernel, channels = linear_map.weight_shape
        return math.prod(linear_map.output_shape[:2]), math.prod(kernel), channels
    return (1, linear_map.inputs, linear_map.outputs) if isinstance(linear_map, Dense) else None


def backward_rows(maps: Sequence[LinearMap], batch: int, path: Path) -> int:
    """Return R, the rows of the backward direction."""
    return {"none": 0, "samples": batch, "classes": class_rows(maps[-1].outputs)}[path]


def schedule(maps: Sequence[LinearMap], batch: int, path: Path) -> list[tuple[str, int, slice]]:
    """Return the products of a step in its order: which, of which linear map, of which rows."""
    B, R, last = batch, backward_rows(maps, batch, path), len(maps)
    up, down, both = slice(0, B), slice(B, B + R), slice(0, B + R)
    weighted = [k for k, linear_map in enumerate(maps, start=1) if extent(linear_map)]
    steps = [("adjoint", k, down) for k in reversed(weighted) if R]
    steps += [("class_sums", 1, up)] if path == "classes" else []
    steps += [("forward", k, up if k == last else both) for k in weighted]
    for k in reversed(weighted):
        steps += [("adjoint", k, up)] if k > 1 else []
        steps.append(("weight_gradient", k, both))
    return steps


def multiply_adds(maps: Sequence[LinearMap], batch: int, path: Path) -> int:
    """Return the multiply-adds of a step's products.

    >>> multiply_adds([Dense(784, 512), Dense(512, 512), Dense(512, 10)], 1, "none")
    1604608
    """
    sums = maps[-1].outputs * maps[0].inputs
    return sum(
        (rows.stop - rows.start)
        * (sums if which == "class_sums" else math.prod(extent(maps[k - 1]) or ()))
        for which, k, rows in schedule(maps, batch, path)
    )


class BareMap:
    """One linear map's W and gradient; of a convolution also windows that lie ready, and patches.

    ``block`` bounds the bytes of windows in use at a time: blocks that stay in cache cost less
    memory traffic, but more calls.
    """

    def __init__(
        self, backend: Backend, linear_map: LinearMap, samples: int, dtype: str,
        block: int | None = None,
    ) -> None:  # fmt: skip
        windows, rows, self._columns = extent(linear_map) or (1, 1, 1)  # weightless: unused
        if block is not None:
            samples = min(samples, max(1, block // (windows * rows * np.dtype(dtype).itemsize)))
        self._reshape, self._block = backend.xp.reshape, samples * windows
        draw, shape = stream(0, "benchmark/windows"), (self._block, rows)
        self._windows = self._patches = None
        if isinstance(linear_map, Convolution):
            self._windows = backend.asarray(draw.standard_normal(shape, dtype=np.float32), dtype)
            self._patches = backend.empty(shape, dtype)
        W = draw.normal(0.0, (2.0 / (rows + self._columns)) ** 0.5, (rows, self._columns))
        self._W, self._gradient = backend.asarray(W, dtype), backend.empty(W.shape, dtype)

    def products(self, which: str, x: Array, y: Array) -> list[Product]:
        """Return the products x W into y, y Wᵀ into x (or into patches), or xᵀ y."""
        held, pairs = self._patches if which == "adjoint" else self._windows, [(x, y)]
        if held is not None:
            pixels, size = self._reshape(y, (-1, self._columns)), self._block
            pieces = [pixels[i : i + size, :] for i in range(0, pixels.shape[0], size)]
            pairs = [(held[: piece.shape[0], :], piece) for piece in pieces]
        if which == "forward":
            return [(x, self._W, y) for x, y in pairs]
        if which == "adjoint":
            return [(y, self._W.T, x) for x, y in pairs]
        return [(x.T, y, self._gradient) for x, y in pairs]


def layer_products(
    backend: Backend, linear_map: LinearMap, x: Array, y: Array, dtype: str, block: int | None
) -> Callable[[], None]:
    """Return what runs the three products of a layer by itself."""
    bare = BareMap(backend, linear_map, len(x), dtype, block)
    ways = ("forward", "adjoint", "weight_gradient")
    return partial(_run, backend, [p for which in ways for p in bare.products(which, x, y)])


def step_products(
    backend: Backend, maps: Sequence[LinearMap], batch: int, path: Path, dtype: str,
    block: int | None = None,
) -> Callable[[], None]:  # fmt: skip
    """Return what runs the bare products of one step, in buffers of their own."""
    draw, both = stream(0, "benchmark/floor"), batch + backward_rows(maps, batch, path)
    sizes = [maps[0].inputs, *(each.outputs for each in maps)]

    def signals(rows: int, size: int) -> Array:
        return backend.asarray(draw.normal(0.0, 1.0, (rows, size)), dtype)

    P, Q = ([signals(both, size) for size in sizes] for _ in range(2))
    t, sums = signals(batch, sizes[-1]), backend.empty((sizes[-1], sizes[0]), dtype)
    bare = [BareMap(backend, each, both, dtype, block) for each in maps]
    blocks = {"forward": (P, P), "adjoint": (Q, Q), "weight_gradient": (P, Q)}
    products: list[Product] = []
    for which, k, rows in schedule(maps, batch, path):
        if which == "class_sums":
            products.append((t.T, P[0][rows, :], sums))
        else:
            x, y = blocks[which]
            products += bare[k - 1].products(which, x[k - 1][rows, :], y[k][rows, :])
    return partial(_run, backend, products)


def _run(backend: Backend, products: list[Product]) -> None:
    for product in products:
        backend.matmul(*product)


def adam_bytes(parameters: int, dtype: str) -> int:
    """Return the bytes that Adam must read and write in a step."""
    return ADAM_PASSES * parameters * np.dtype(dtype).itemsize


class AdamTraffic:
    """A stream over Adam's four vectors that moves its bytes and computes next to nothing.

    θ, M and V are negated in place, g is read by a dot product. Pieces run at once on threads.
    """

    def __init__(self, backend: Backend, parameters: int, dtype: str, threads: int = 1) -> None:
        self._backend = backend
        vectors = [backend.ones((parameters,), dtype) for _ in range(4)]
        cuts = [parameters * i // threads for i in range(threads + 1)]
        self._pieces = [[v[i:j] for v in vectors] for i, j in pairwise(cuts)]
        self._dots = [backend.empty((1, 1), dtype) for _ in self._pieces]
        self._map = ThreadPoolExecutor(threads).map if threads > 1 else map

    def __call__(self) -> None:
        """Stream over the vectors once."""
        list(self._map(self._stream, self._pieces, self._dots))

    def _stream(self, vectors: list[Array], dot: Array) -> None:
        *moved, g = vectors
        for v in moved:
            self._backend.xp.negative(v, out=v)
        self._backend.matmul(g[None, :], g[:, None], dot)


@cache
def measure_card(
    backend: Backend, dtype: str = "float32", size: int = 8192, length: int = 1 << 28
) -> dict[str, float]:
    """Return what a GPU does a second at most, by its own clock.

    ``bandwidth``: bytes read and written by a long copy, of ``length`` numbers; ``rate``:
    multiply-adds of a product of random matrices of ``size`` (of zeros it would be faster).
    """
    draw = stream(0, "benchmark/card")

    def median(work: Callable[[], object]) -> float:
        backend.seconds(work)  # a warm-up
        return statistics.median(backend.seconds(work) for _ in range(5))

    left, right = (
        backend.asarray(draw.standard_normal((size, size), dtype="f4"), dtype) for _ in range(2)
    )
    product = median(partial(backend.matmul, left, right, backend.empty((size, size), dtype)))
    source, copy = backend.ones((length,), dtype), backend.empty((length,), dtype)
    copied = median(partial(backend.xp.multiply, source, 1.0, out=copy))
    moved = 2 * length * np.dtype(dtype).itemsize
    return {"bandwidth": moved / copied, "rate": size**3 / product}


def least_seconds(card: dict[str, float], multiply_adds: int, moved: int) -> float:
    """Return the least time of work that multiplies, then moves bytes."""
    return multiply_adds / card["rate"] + moved / card["bandwidth"]
