"""Convolution with fewer multiplications: its trilinear form written as a sum of fewer products.

A correlation of one axis with r weights and m results uses m + r − 1 inputs. Multiplying two
polynomials means multiplying their values at as many points as the product has coefficients,
t = m + r − 1, and interpolating; so, with the coefficients of W and of y as polynomials,

    Σ_{p<m} Σ_{a<r} x[p + a] w[a] y[p]  =  Σ_{ξ<t} (B x)[ξ] (G w)[ξ] (A y)[ξ],

    G[ξ, a] = αξᵃ,   A[ξ, p] = αξᵖ,   B = V⁻ᵀ,   V[ξ, l] = αξˡ,

with one point at infinity, where a polynomial's value is its leading coefficient: t products where
the definition has m r (Toom and Cook; Winograd, Arithmetic Complexity of Computations, 1980; for
networks Lavin and Gray, arXiv:1509.09308). Images use the same on both axes, over tiles of m × m
results; a stride of s becomes 1 by taking s × s pixels as one of s² C channels. So all of T is

    T(x, W, y) = Σ_ξ ⟨x̂_ξ ŵ_ξ, ŷ_ξ⟩,   x̂ = (B ⊗ B) tiles(x),  ŵ = (G ⊗ G) W,  ŷ = (A ⊗ A) tiles(y),

t² dense synapses side by side, and its three derivatives are those of a dense synapse between the
transforms and their transposes. The one x̂ serves forward and ∂T/∂W, the one ŷ adjoint and ∂T/∂W,
the one ŵ forward and adjoint.

In float32 results agree with the definition to about 1e-5 of their size (t = 6).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nembp.backend import Array, Backend
from nembp.links import After, Block, BlockLink

if TYPE_CHECKING:
    from nembp.convolution import Convolution

__all__ = ["MinimalFilteringLink", "Plan", "correlation_matrices", "plan"]

POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)  # more lose too many digits of float32
BLOCK_BYTES = 1 << 20  # of both transforms of a block
MOVE = 20.0  # multiply-adds in the time that moving one number takes
LEAST_TILES = 128  # of a block: with fewer, products spend their time on the weights

Matrix = np.ndarray[Any, Any]
Pair = tuple[int, int]


def correlation_matrices(m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return B (t, t), G (t, r) and A (t, m) of a correlation with m results of r weights each.

    >>> B, G, A = correlation_matrices(2, 3)
    >>> x, w = np.arange(4.0), np.array([1.0, -2.0, 3.0])
    >>> A.T @ ((B @ x) * (G @ w))
    array([4., 6.])
    """
    t = m + r - 1
    finite = np.array(POINTS[: t - 1])

    def values(length: int) -> Matrix:
        leading = np.zeros((1, length))
        leading[0, -1] = 1.0
        return np.vstack([np.vander(finite, length, increasing=True), leading])

    return np.linalg.inv(values(t)).T, values(r), values(m)


@dataclass(frozen=True)
class Plan:
    """Sizes of the algorithm for one convolution, vertical and horizontal.

    Attributes
    ----------
    results : tuple of int
        m: results of a tile.
    weights : tuple of int
        r: weights after strides have become channels, ⌈kernel / stride⌉.
    tiles : tuple of int
        Tiles that cover the upper image.
    cost : float
        Multiply-adds a sample of all three contractions, transforms included, and numbers moved
        at the price of ``MOVE`` multiply-adds each.
    """

    results: Pair
    weights: Pair
    tiles: Pair
    cost: float

    @property
    def points(self) -> Pair:
        """Points of each axis, t = m + r − 1."""
        return self.results[0] + self.weights[0] - 1, self.results[1] + self.weights[1] - 1


def plan(synapse: Convolution, rows: int) -> Plan | None:
    """Return the cheapest sizes for a convolution of so many rows.

    None if its kernel is too large for any. With few rows smaller tiles pay, since they transform
    the weights to fewer points.
    """
    kernel, stride = synapse.kernel, synapse.stride
    r = (-(-kernel[0] // stride[0]), -(-kernel[1] // stride[1]))
    most = len(POINTS) + 1
    plans = [
        _plan(synapse, (mh, mw), r, rows)
        for mh in _choices(r[0], most, synapse.output_shape[0])
        for mw in _choices(r[1], most, synapse.output_shape[1])
    ]
    return min(plans, key=lambda each: each.cost, default=None)


def _choices(r: int, most: int, size: int) -> range:
    """Return the m to consider: with one weight nothing is saved by m > 1."""
    return range(1, 2 if r == 1 else min(most - r + 1, size) + 1)


def _plan(synapse: Convolution, m: Pair, r: Pair, rows: int) -> Plan:
    height, width, upper = synapse.output_shape
    lower = synapse.shape[2] * math.prod(synapse.stride)
    tiles = -(-height // m[0]), -(-width // m[1])
    t = (m[0] + r[0] - 1) * (m[1] + r[1] - 1)
    moved = t * (lower + upper) + math.prod(m) * upper + t * lower
    each = 3 * t * lower * upper + 2 * t * t * lower + 2 * t * math.prod(m) * upper
    # ŵ is made, and the gradient's transform summed and undone
    weights = lower * upper * (2 * t * math.prod(r) + MOVE * 4 * t)
    return Plan(m, r, tiles, math.prod(tiles) * (each + MOVE * moved) + weights / rows)


def definition_cost(synapse: Convolution) -> float:
    """Return the same for windows laid out as rows."""
    height, width, upper = synapse.output_shape
    window = math.prod(synapse.kernel) * synapse.shape[2]
    return height * width * (3 * window * upper + MOVE * 3 * window)


class _Tiles:
    """Tiles of one side's images and their transform, hat = (M ⊗ M) tiles(images).

    A tile is ``window`` units high and wide, a unit ``unit`` pixels; the next tile begins ``hop``
    units on, so that tiles may overlap. :meth:`analyse` and :meth:`synthesise` are each other's
    transposes.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        images: int,
        side: _Side,
    ) -> None:
        self._backend, self._side, self._images = backend, side, images
        self._matrix = side.matrix
        shape, unit, window, padding = side.shape, side.unit, side.window, side.padding
        cells = (images, *side.tiles, unit[0], unit[1] * shape[2])
        self._tiles = backend.empty((*window, *cells), dtype)
        self._flat = backend.xp.reshape(self._tiles, (math.prod(window), -1))
        self._exact = side.is_exact
        if self._exact:
            return
        size = [
            max(unit[k] * (side.hop[k] * (side.tiles[k] - 1) + window[k]), padding[k] + shape[k])
            for k in (0, 1)
        ]
        # one to gather from, whose border stays zero, and one to scatter to
        buffers = [backend.zeros((images, *size, shape[2]), dtype) for _ in range(2)]
        rows = slice(padding[0], padding[0] + shape[0]), slice(padding[1], padding[1] + shape[1])
        self._image_in, self._image_out = (padded[:, rows[0], rows[1], :] for padded in buffers)
        self._view_in, view_out = (self._tiles_of(padded) for padded in buffers)
        self._folds = list(self._overlaps())
        self._scatters = [(view_out[region], self._tiles[region]) for region in self._regions()]

    def _tiles_of(self, padded: Array) -> Array:
        """Return the tiles of padded images as a view of shape (window, images, tiles, unit)."""
        side = self._side
        height, width, channels = padded.shape[1:]
        (u, v), (hop, skip) = side.unit, side.hop
        row = width * channels
        steps = (u * row, v * channels, height * row, hop * u * row, skip * v * channels, row, 1)
        return self._backend.strided_view(padded, tuple(self._tiles.shape), steps)

    def _overlaps(self) -> Iterator[tuple[Array, Array]]:
        """Yield the pieces of tiles to add up where tiles overlap: to this, that."""
        tiles, (h, w), (m, n) = self._tiles, self._side.window, self._side.hop
        for u in reversed(range(m, h)):
            yield tiles[u - m, :, :, 1:, ...], tiles[u, :, :, :-1, ...]
        for v in reversed(range(n, w)):
            for u in range(h):
                yield tiles[u, v - n, :, :, 1:, ...], tiles[u, v, :, :, :-1, ...]

    def _regions(self) -> Iterator[tuple[slice, ...]]:
        """Yield what is left to write: the hop of every tile, and the rest of the last ones."""
        (h, w), (m, n) = self._side.window, self._side.hop
        rows = [(slice(0, m), slice(None)), (slice(m, h), slice(-1, None))]
        columns = [(slice(0, n), slice(None)), (slice(n, w), slice(-1, None))]
        for u, across in rows:
            for v, along in columns:
                yield u, v, slice(None), across, along

    def analyse(self, signal: Array, hat: Array) -> None:
        """Write the transform of the rows of ``signal`` into ``hat`` (points, tiles, channels)."""
        backend, xp = self._backend, self._backend.xp
        if self._exact:
            self._tiles[...] = self._cut(signal)
        else:
            self._image_in[...] = xp.reshape(signal, (self._images, *self._side.shape))
            self._tiles[...] = self._view_in
        backend.matmul(self._matrix, self._flat, xp.reshape(hat, (hat.shape[0], -1)))

    def synthesise(self, hat: Array, signal: Array) -> None:
        """Write the images of which ``hat`` would be a gradient into the rows of ``signal``."""
        backend, xp = self._backend, self._backend.xp
        backend.matmul(self._matrix.T, xp.reshape(hat, (hat.shape[0], -1)), self._flat)
        if self._exact:
            self._cut(signal)[...] = self._tiles
            return
        for to, piece in self._folds:
            backend.into(to, xp.add, to, piece)
        for region, piece in self._scatters:
            region[...] = piece
        xp.reshape(signal, (self._images, *self._side.shape))[...] = self._image_out

    def _cut(self, signal: Array) -> Array:
        """Return the tiles of images that they cover exactly, as a view."""
        xp, side = self._backend.xp, self._side
        (rows, columns), (h, w), channels = side.tiles, side.window, side.shape[2]
        cut = xp.reshape(signal, (self._images, rows, h, columns, w, 1, channels))
        return xp.permute_dims(cut, (2, 4, 0, 1, 3, 5, 6))


@dataclass(frozen=True)
class _Side:
    """What the tiles of the lower or the upper images are."""

    shape: tuple[int, int, int]
    padding: Pair
    unit: Pair
    window: Pair
    hop: Pair
    tiles: Pair
    matrix: Array

    @property
    def channels(self) -> int:
        return math.prod(self.unit) * self.shape[2]

    @property
    def is_exact(self) -> bool:
        """Whether the tiles neither overlap nor reach beyond the images."""
        covered = tuple(n * size for n, size in zip(self.tiles, self.window, strict=True))
        return self.unit == (1, 1) and self.window == self.hop and covered == self.shape[:2]


class MinimalFilteringLink(BlockLink):
    """The link of a convolution by :func:`plan`, where arrays have strided views."""

    synapse: Convolution

    def __init__(
        self,
        synapse: Convolution,
        sizes: Plan,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool = True,
        lanes: int = 1,
    ) -> None:
        m, r, t, s = sizes.results, sizes.weights, sizes.points, synapse.stride
        self._axes = [correlation_matrices(*pair) for pair in zip(m, r, strict=True)]
        B, G, A = (backend.asarray(np.kron(*pair), dtype) for pair in zip(*self._axes, strict=True))
        lower = _Side(synapse.shape, synapse.padding, s, t, m, sizes.tiles, B)
        upper = _Side(synapse.output_shape, (0, 0), (1, 1), m, m, sizes.tiles, A)
        self._sides = (lower, upper) if upward else (upper, lower)
        self._count, self._tiles_of_image = math.prod(t), math.prod(sizes.tiles)
        item = {"float32": 4, "float64": 8}.get(dtype, 16)
        image = item * self._count * self._tiles_of_image * (lower.channels + upper.channels)
        block = max(1, BLOCK_BYTES // image, LEAST_TILES // self._tiles_of_image)
        super().__init__(synapse, backend, parts, dtype, upward, lanes, block)

        self._G, self._r = G, r
        kernel = (r[0], s[0], r[1], s[1], synapse.shape[2], synapse.channels)
        self._kernel = backend.zeros(kernel, dtype)  # zeros where strides do not divide it
        self._weights = backend.empty((math.prod(r), lower.channels * upper.channels), dtype)
        points = (self._count, lower.channels, upper.channels)
        self._w_hat = backend.empty(points, dtype)
        self._sums = [backend.empty(points, dtype) for _ in range(self.lanes)]
        self._spare = [backend.empty(points, dtype) for _ in range(self.lanes)]
        self._kept = [self._hat(stop - start, 0) for start, stop in self.blocks]
        self._rooms: list[dict[int, _Room]] = [{} for _ in range(self.lanes)]

    def _hat(self, images: int, side: int) -> Array:
        shape = (self._count, images * self._tiles_of_image, self._sides[side].channels)
        return self.backend.empty(shape, self.dtype)

    def _room(self, lane: int, images: int) -> _Room:
        rooms = self._rooms[lane]
        if images not in rooms:
            tiles = [_Tiles(self.backend, self.dtype, images, side) for side in self._sides]
            rooms[images] = _Room(tiles[0], tiles[1], self._hat(images, 0), self._hat(images, 1))
        return rooms[images]

    # -- weights ---------------------------------------------------------------------------------
    def load(self, W: Array) -> None:
        """ŵ = (G ⊗ G) W, shape (points, channels of a unit, channels out)."""
        backend, xp = self.backend, self.backend.xp
        inside, kernel = self._views()
        inside[...] = W
        self._weights_as(kernel)[...] = kernel
        backend.matmul(self._G, self._weights, xp.reshape(self._w_hat, (self._count, -1)))
        self._W = self._w_hat if self.upward else xp.permute_dims(self._w_hat, (0, 2, 1))

    def _gradient(self, total: Array, gradient: Array) -> None:
        """∂T/∂W = (G ⊗ G)ᵀ Σ x̂ᵀ ŷ."""
        backend, xp = self.backend, self.backend.xp
        backend.matmul(self._G.T, xp.reshape(total, (self._count, -1)), self._weights)
        inside, kernel = self._views()
        kernel[...] = self._weights_as(kernel)
        gradient[...] = inside
        self._kernel[...] = 0.0

    def _views(self) -> tuple[Array, Array]:
        """Return the kernel's own part of the padded kernel, and that with its strides inside."""
        xp, (height, width) = self.backend.xp, self.synapse.kernel
        a, s, b, t, *channels = self._kernel.shape
        padded = xp.reshape(self._kernel, (a * s, b * t, *channels))
        return padded[:height, :width, ...], xp.permute_dims(self._kernel, (0, 2, 1, 3, 4, 5))

    def _weights_as(self, kernel: Array) -> Array:
        return self.backend.xp.reshape(self._weights, tuple(kernel.shape))

    # -- contractions ----------------------------------------------------------------------------
    def forward(self, x: Array, out: Array | None, after: After | None = None) -> None:
        rows = 0 if out is None else out.shape[0]

        def task(lane: int, index: int, block: Block) -> None:
            start, stop = block
            room = self._room(lane, stop - start)
            room.near.analyse(x[start:stop, :], self._kept[index])
            if stop <= rows:
                self.backend.matmul(self._kept[index], self._W, room.far_hat)
                room.far.synthesise(room.far_hat, out[start:stop, :])  # type: ignore[index]
                if after is not None:
                    after(start, stop)

        self.work(x.shape[0], task)

    def adjoint(self, y: Array, out: Array, after: After | None = None) -> None:
        def task(lane: int, index: int, block: Block) -> None:
            start, stop = block
            room = self._room(lane, stop - start)
            room.far.analyse(y[start:stop, :], room.far_hat)
            self._back(room, out[start:stop, :])
            if after is not None:
                after(start, stop)

        self.work(y.shape[0], task)

    def descend(
        self, x: Array, y: Array, out: Array | None, gradient: Array, after: After | None = None
    ) -> None:
        rows = 0 if out is None else out.shape[0]
        begun = [False] * self.lanes

        def task(lane: int, index: int, block: Block) -> None:
            start, stop = block
            room = self._room(lane, stop - start)
            room.far.analyse(y[start:stop, :], room.far_hat)
            self._add_gradient(lane, self._kept[index], room.far_hat, begun)
            if stop <= rows:
                self._back(room, out[start:stop, :])  # type: ignore[index]
                if after is not None:
                    after(start, stop)

        self.work(y.shape[0], task)
        backend, total = self.backend, self._sums[0]
        for lane in range(1, self.lanes):
            if begun[lane]:
                backend.into(total, backend.xp.add, total, self._sums[lane])
        self._gradient(total, gradient)

    def _back(self, room: _Room, out: Array) -> None:
        W = self.backend.xp.permute_dims(self._W, (0, 2, 1))
        self.backend.matmul(room.far_hat, W, room.near_hat)
        room.near.synthesise(room.near_hat, out)

    def _add_gradient(self, lane: int, near: Array, far: Array, begun: list[bool]) -> None:
        """Σ x̂ᵀ ŷ over blocks; the first one of a lane needs no addition."""
        backend, xp, sums = self.backend, self.backend.xp, self._sums[lane]
        lower, upper = (near, far) if self.upward else (far, near)
        spare = self._spare[lane] if begun[lane] else sums
        backend.matmul(xp.permute_dims(lower, (0, 2, 1)), upper, spare)
        if begun[lane]:
            backend.into(sums, xp.add, sums, spare)
        begun[lane] = True


@dataclass
class _Room:
    """A lane's buffers for blocks of so many images: the side that forward reads, and the other."""

    near: _Tiles
    far: _Tiles
    near_hat: Array
    far_hat: Array
