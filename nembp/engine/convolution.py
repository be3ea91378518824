"""Sizes of minimal filtering, its matrices, and what it costs beside the definition.

The algorithm and the symbols are those of :mod:`nembp.engine.convolution`.

Tiles of images and their transforms, for minimal filtering (:mod:`nembp.engine.convolution`).

A convolution's contractions by its definition: windows laid out as rows (im2col), one product.

windows(x)[n p q, i j c] = x̃[n, s p + i, s q + j, c], with x̃ the image padded by zeros. Then

    forward(x) = windows(x) W,   ∂T/∂W = windows(x)ᵀ y,   adjoint(y) = windowsᵀ(y Wᵀ),

where windowsᵀ adds every row back over its window. The windows of a few images at a time stay in
cache; those of a whole batch would be many times the batch.

Convolution with fewer multiplications: its trilinear form written as a sum of fewer products.

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

t² dense linear maps side by side, and its three derivatives are those of a dense linear map between the
transforms and their transposes. The one x̂ serves forward and ∂T/∂W, the one ŷ adjoint and ∂T/∂W,
the one ŵ forward and adjoint.

In float32 results agree with the definition to about 1e-5 of their size (t = 6).

Convolutional linear maps.

Signals are flat rows; a layer of images has the order N, H, W, C, kernels (height, width, channels
in, channels out). With x̃ the image padded by zeros,

    T(x, W, y) = Σ_n Σ_pq Σ_ij Σ_ck  x̃[n, s p + i, s q + j, c]  W[i, j, c, k]  y[n, p, q, k]

so forward correlates with W, adjoint is the transposed convolution with the same kernels, and
∂T/∂W correlates x with y. Each is one matrix product with the image's windows laid out as rows
(im2col): windows(x) W, its transpose y Wᵀ added back over the windows, and windows(x)ᵀ y.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nembp.backend import Array, Backend
from nembp.engine.linear import After, Block, BlockLink, LinearMap, Pair, Shape, dtype_of, writable
from nembp.errors import ArchitectureError

POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)  # more lose too many digits of float32
MOVE = 20.0  # multiply-adds in the time that moving one number takes

Matrix: TypeAlias = np.ndarray[Any, Any]


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


def plan(linear_map: Convolution, rows: int) -> Plan | None:
    """Return the cheapest sizes for a convolution of so many rows.

    None if its kernel is too large for any. With few rows smaller tiles pay, since they transform
    the weights to fewer points.
    """
    kernel, stride = linear_map.kernel, linear_map.stride
    r = (-(-kernel[0] // stride[0]), -(-kernel[1] // stride[1]))
    most = len(POINTS) + 1
    plans = [
        _plan(linear_map, (mh, mw), r, rows)
        for mh in _choices(r[0], most, linear_map.output_shape[0])
        for mw in _choices(r[1], most, linear_map.output_shape[1])
    ]
    return min(plans, key=lambda each: each.cost, default=None)


def _choices(r: int, most: int, size: int) -> range:
    """Return the m to consider: with one weight nothing is saved by m > 1."""
    return range(1, 2 if r == 1 else min(most - r + 1, size) + 1)


def _plan(linear_map: Convolution, m: Pair, r: Pair, rows: int) -> Plan:
    height, width, upper = linear_map.output_shape
    lower = linear_map.shape[2] * math.prod(linear_map.stride)
    tiles = -(-height // m[0]), -(-width // m[1])
    t = (m[0] + r[0] - 1) * (m[1] + r[1] - 1)
    moved = t * (lower + upper) + math.prod(m) * upper + t * lower
    each = 3 * t * lower * upper + 2 * t * t * lower + 2 * t * math.prod(m) * upper
    # ŵ is made, and the gradient's transform summed and undone
    weights = lower * upper * (2 * t * math.prod(r) + MOVE * 4 * t)
    return Plan(m, r, tiles, math.prod(tiles) * (each + MOVE * moved) + weights / rows)


def definition_cost(linear_map: Convolution) -> float:
    """Return the same for windows laid out as rows."""
    height, width, upper = linear_map.output_shape
    window = math.prod(linear_map.kernel) * linear_map.shape[2]
    return height * width * (3 * window * upper + MOVE * 3 * window)


@dataclass(frozen=True)
class Side:
    """What the tiles of the lower or the upper images are.

    Attributes
    ----------
    shape : tuple of int
        (H, W, C) of an image.
    padding : tuple of int
        Zeros above and left of it, in pixels.
    unit : tuple of int
        Pixels that are one of a tile's: the strides below, 1 above.
    window, hop : tuple of int
        Units of a tile, and from one tile to the next.
    tiles : tuple of int
        That cover an image.
    matrix : array
        M ⊗ M of the transform.
    """

    shape: tuple[int, int, int]
    padding: Pair
    unit: Pair
    window: Pair
    hop: Pair
    tiles: Pair
    matrix: Array

    @property
    def channels(self) -> int:
        """Numbers of a unit."""
        return math.prod(self.unit) * self.shape[2]

    @property
    def is_exact(self) -> bool:
        """Whether the tiles neither overlap nor reach beyond the images."""
        covered = tuple(n * size for n, size in zip(self.tiles, self.window, strict=True))
        return self.unit == (1, 1) and self.window == self.hop and covered == self.shape[:2]


class Tiles:
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
        side: Side,
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


IM2COL_BYTES = 1 << 19  # of windows; with the products' own copies that fills a 1 MiB cache


class WindowsLink(BlockLink):
    """The link of any convolution on any device."""

    linear_map: Convolution

    def __init__(
        self,
        linear_map: Convolution,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool = True,
        lanes: int = 1,
    ) -> None:
        rows, columns, _ = linear_map.output_shape
        self._window = math.prod(linear_map.kernel) * linear_map.shape[2]
        item = {"float32": 4, "float64": 8}.get(dtype, 16)
        most_bytes = IM2COL_BYTES if backend.has_cache else backend.window_bytes
        block = max(1, most_bytes // (item * rows * columns * self._window))
        super().__init__(linear_map, backend, parts, dtype, upward, lanes, block)
        self._padded: list[Array] = []
        self._make_room()

    def _make_room(self) -> None:
        """Allocate every lane's buffers for its largest block."""
        linear_map, backend, dtype = self.linear_map, self.backend, self.dtype
        (height, width, channels), (p, q) = linear_map.shape, linear_map.padding
        rows, columns, _ = linear_map.output_shape
        most = max(stop - start for start, stop in self.blocks)
        padded = (most, height + 2 * p, width + 2 * q, channels)
        windows = (most, rows, columns, *linear_map.kernel, channels)
        each = range(self.lanes)
        self._padded = [backend.zeros(padded, dtype) for _ in each]
        self._windows = [backend.empty(windows, dtype) for _ in each]
        self._spare = [backend.empty((self._window, linear_map.channels), dtype) for _ in each]
        self._sums = [backend.empty((self._window, linear_map.channels), dtype) for _ in each]

    def load(self, W: Array) -> None:
        self._W = self.backend.xp.reshape(W, (self._window, self.linear_map.channels))

    def forward(self, x: Array, out: Array | None, after: After | None = None) -> None:
        if out is not None:
            self._sweep(x, out, after, upward=self.upward)

    def adjoint(self, y: Array, out: Array, after: After | None = None) -> None:
        self._sweep(y, out, after, upward=not self.upward)

    def _sweep(self, signal: Array, out: Array, after: After | None, *, upward: bool) -> None:
        def task(lane: int, index: int, block: Block) -> None:
            start, stop = block
            if upward:
                self._gather(lane, signal[start:stop, :])
                self._lift(lane, out[start:stop, :])
            else:
                self._lower(lane, signal[start:stop, :], out[start:stop, :])
            if after is not None:
                after(start, stop)

        self.work(out.shape[0], task)

    def descend(
        self, x: Array, y: Array, out: Array | None, gradient: Array, after: After | None = None
    ) -> None:
        rows = 0 if out is None else out.shape[0]
        lower, upper = (x, y) if self.upward else (y, x)
        for sums in self._sums:
            sums[...] = 0.0

        def task(lane: int, index: int, block: Block) -> None:
            start, stop = block
            columns = self._gather(lane, lower[start:stop, :])
            self._add_gradient(lane, columns, upper[start:stop, :])
            if stop <= rows:
                if self.upward:
                    self._lower(lane, upper[start:stop, :], out[start:stop, :])  # type: ignore[index]
                else:
                    self._lift(lane, out[start:stop, :])  # type: ignore[index]
                if after is not None:
                    after(start, stop)

        self.work(y.shape[0], task)
        backend, total = self.backend, self._sums[0]
        for sums in self._sums[1:]:
            backend.into(total, backend.xp.add, total, sums)
        gradient[...] = backend.xp.reshape(total, tuple(gradient.shape))

    # -- one block -------------------------------------------------------------------------------
    def _gather(self, lane: int, x: Array) -> Array:
        """Lay the windows of ``x`` out as rows."""
        n, (height, width, _), (p, q) = x.shape[0], self.linear_map.shape, self.linear_map.padding
        windows = self._windows[lane][:n, ...]
        if self.backend.lay_windows(self.linear_map, x, windows):
            return self._rows(windows)
        padded = self._padded[lane][:n, ...]
        image = self.backend.xp.reshape(x, (n, *self.linear_map.shape))
        padded[:, p : p + height, q : q + width, :] = image
        self.backend.copy_windows(padded, self.linear_map.stride, windows)
        return self._rows(windows)

    def _lift(self, lane: int, out: Array) -> None:
        """Write the product of the windows laid out last and W."""
        windows = self._rows(self._windows[lane][: out.shape[0], ...])
        pixels = self.backend.xp.reshape(out, (-1, self.linear_map.channels))
        self.backend.matmul(windows, self._W, pixels)

    def _lower(self, lane: int, y: Array, out: Array) -> None:
        """Add each row of y Wᵀ over its window."""
        n, (height, width, _), (p, q) = y.shape[0], self.linear_map.shape, self.linear_map.padding
        padded, windows = self._padded[lane][:n, ...], self._windows[lane][:n, ...]
        xp = self.backend.xp
        pixels = xp.reshape(y, (-1, self.linear_map.channels))
        self.backend.matmul(pixels, self._W.T, self._rows(windows))
        if self.backend.gather_windows(self.linear_map, windows, out):
            return
        padded[...] = 0.0
        self.backend.add_windows(windows, self.linear_map.stride, padded)
        xp.reshape(out, (n, *self.linear_map.shape))[...] = padded[
            :, p : p + height, q : q + width, :
        ]
        self._clear_border(padded)

    def _clear_border(self, padded: Array) -> None:
        """Set what lies around the images to zero again, as :meth:`_gather` expects it."""
        (height, width, _), (p, q) = self.linear_map.shape, self.linear_map.padding
        if p:
            padded[:, :p, :, :] = 0.0
            padded[:, p + height :, :, :] = 0.0
        if q:
            padded[:, :, :q, :] = 0.0
            padded[:, :, q + width :, :] = 0.0

    def _add_gradient(self, lane: int, columns: Array, y: Array) -> None:
        backend, spare, sums = self.backend, self._spare[lane], self._sums[lane]
        pixels = backend.xp.reshape(y, (-1, self.linear_map.channels))
        backend.matmul(columns.T, pixels, spare)
        backend.into(sums, backend.xp.add, sums, spare)

    def _rows(self, windows: Array) -> Array:
        return self.backend.xp.reshape(windows, (-1, self._window))


WINOGRAD_BYTES = 1 << 20  # of both transforms of a block
LEAST_TILES = 128  # of a block: with fewer, products spend their time on the weights


class MinimalFilteringLink(BlockLink):
    """The link of a convolution by :func:`plan`, where arrays have strided views."""

    linear_map: Convolution

    def __init__(
        self,
        linear_map: Convolution,
        sizes: Plan,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool = True,
        lanes: int = 1,
    ) -> None:
        m, r, t, s = sizes.results, sizes.weights, sizes.points, linear_map.stride
        self._axes = [correlation_matrices(*pair) for pair in zip(m, r, strict=True)]
        B, G, A = (backend.asarray(np.kron(*pair), dtype) for pair in zip(*self._axes, strict=True))
        lower = Side(linear_map.shape, linear_map.padding, s, t, m, sizes.tiles, B)
        upper = Side(linear_map.output_shape, (0, 0), (1, 1), m, m, sizes.tiles, A)
        self._sides = (lower, upper) if upward else (upper, lower)
        self._count, self._tiles_of_image = math.prod(t), math.prod(sizes.tiles)
        item = {"float32": 4, "float64": 8}.get(dtype, 16)
        image = item * self._count * self._tiles_of_image * (lower.channels + upper.channels)
        block = max(1, WINOGRAD_BYTES // image, LEAST_TILES // self._tiles_of_image)
        super().__init__(linear_map, backend, parts, dtype, upward, lanes, block)

        self._G, self._r = G, r
        kernel = (r[0], s[0], r[1], s[1], linear_map.shape[2], linear_map.channels)
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
            tiles = [Tiles(self.backend, self.dtype, images, side) for side in self._sides]
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
        xp, (height, width) = self.backend.xp, self.linear_map.kernel
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

    near: Tiles
    far: Tiles
    near_hat: Array
    far_hat: Array


@dataclass(frozen=True)
class Convolution(LinearMap):
    """Correlation of images with kernels; W has shape (height, width, channels in, channels out).

    Parameters
    ----------
    shape : tuple of int
        (H, W, C) of the lower layer, to which the adjoint leads back whatever the stride leaves
        over.
    channels : int
        Of the upper layer.
    kernel, stride, padding : tuple of int
        (vertical, horizontal) extent, step between windows, and zeros around the image, in pixels.

    Raises
    ------
    ArchitectureError
        If a size is not positive, or the kernel does not fit the padded image.

    >>> Convolution((32, 32, 3), 16, (4, 4), (2, 2), (1, 1)).output_shape
    (16, 16, 16)
    """

    shape: Shape
    channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)

    def __post_init__(self) -> None:
        least = min(*self.shape, self.channels, *self.kernel, *self.stride)
        if least < 1 or min(self.padding) < 0:
            raise ArchitectureError(
                "a convolution needs an image, channels, kernel and stride of at least 1 and a "
                f"padding of at least 0, got {self}"
            )
        for size, kernel, padding in zip(self.shape, self.kernel, self.padding, strict=False):
            if kernel > size + 2 * padding:
                raise ArchitectureError(
                    f"kernel {self.kernel} does not fit an image of {self.shape[:2]} pixels "
                    f"padded by {self.padding}; expected at most {size + 2 * padding}"
                )

    @property
    def output_shape(self) -> Shape:
        """(H, W, C) of the upper layer: (size + 2 padding − kernel) // stride + 1."""
        height, width = (
            (self.shape[axis] + 2 * self.padding[axis] - self.kernel[axis]) // self.stride[axis] + 1
            for axis in (0, 1)
        )
        return height, width, self.channels

    @property
    def inputs(self) -> int:  # type: ignore[override]
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:  # type: ignore[override]
        return math.prod(self.output_shape)

    @property
    def weight_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (*self.kernel, self.shape[2], self.channels)

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        """Write windows(x) W into ``out``."""
        with writable(backend, out, tuple(out.shape)) as rows:
            self._definition(backend, x, W).forward(x, rows)

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        """Write y Wᵀ, each row added where its window was, into ``out``."""
        with writable(backend, out, tuple(out.shape)) as rows:
            self._definition(backend, y, W).adjoint(y, rows)

    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        """Write windows(x)ᵀ y into ``out``."""
        self._definition(backend, x, out).descend(x, y, None, out)

    def _definition(self, backend: Backend, signal: Array, W: Array) -> WindowsLink:
        link = WindowsLink(self, backend, (signal.shape[0],), dtype_of(signal))
        link.load(W)
        return link

    @property
    def wants_lanes(self) -> bool:
        return True

    def link(
        self,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool = True,
        lanes: int = 1,
    ) -> BlockLink:
        """Return the link of fewest multiplications where that is worth its transforms."""
        sizes = plan(self, sum(parts)) if backend.has_strided_views else None
        if sizes is not None and sizes.cost < definition_cost(self):
            return MinimalFilteringLink(self, sizes, backend, parts, dtype, upward, lanes)
        return WindowsLink(self, backend, parts, dtype, upward, lanes)

    def initial_weights(self, generator: np.random.Generator) -> np.ndarray[Any, Any]:
        """Draw Glorot-normal weights, variance 2 / (fan in + fan out).

        A unit of the upper layer sums height · width · channels in, one of the lower layer about
        height · width · channels out / (stride · stride).
        """
        area = math.prod(self.kernel)
        fan_in = area * self.shape[2]
        fan_out = area * self.channels / math.prod(self.stride)
        return generator.normal(0.0, math.sqrt(2.0 / (fan_in + fan_out)), self.weight_shape)
