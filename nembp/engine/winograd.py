"""Convolution with fewer multiplications (Toom and Cook, Winograd).

A correlation of one axis with r weights and m results uses m + r − 1 inputs. Multiplying two
polynomials means multiplying their values at as many points as the product has coefficients,
t = m + r − 1, and interpolating; so, with the coefficients of W and of y as polynomials,

    Σ_{p<m} Σ_{a<r} x[p + a] w[a] y[p]  =  Σ_{ξ<t} (B x)[ξ] (G w)[ξ] (A y)[ξ],

    G[ξ, a] = αξᵃ,   A[ξ, p] = αξᵖ,   B = V⁻ᵀ,   V[ξ, l] = αξˡ,

with one point at infinity, where a polynomial's value is its leading coefficient: t products where
the definition has m r (Winograd, Arithmetic Complexity of Computations, 1980; for networks Lavin
and Gray, arXiv:1509.09308). Images use the same on both axes, over tiles of m × m results; a stride
of s becomes 1 by taking s × s pixels as one of s² C channels. So all of the trilinear form is

    T(x, W, y) = Σ_ξ ⟨x̂_ξ ŵ_ξ, ŷ_ξ⟩,   x̂ = (B ⊗ B) tiles(x),  ŵ = (G ⊗ G) W,  ŷ = (A ⊗ A) tiles(y),

t² dense maps side by side, and its three derivatives are those of a dense map between the
transforms and their transposes. The one x̂ serves forward and ∂T/∂W, the one ŷ adjoint and ∂T/∂W,
the one ŵ forward and adjoint.

In float32 results agree with the definition to about 1e-5 of their size (t = 6).
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from nembp.backend import Array, Backend
from nembp.engine.linear import BlockWorkspace, Pair, Parts

POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)  # and infinity; more lose too many digits of float32
MOVE = 20.0  # multiply-adds in the time that moving one number takes
BLOCK_BYTES = 1 << 20  # of both transforms of a block
LEAST_TILES = 128  # of a block: with fewer, products spend their time on the weights

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


class Plan:
    """The algorithm for a convolution, with tiles of one size. Pairs are (vertical, horizontal)."""

    def __init__(self, convolution: Any, results: Pair) -> None:
        self.of = convolution
        self.results = results  # m: pixels of the upper layer that a tile makes
        (h, w), (s, t) = convolution.kernel, convolution.stride
        (m, n), (height, width, _) = results, convolution.output_shape
        self.weights: Pair = -(-h // s), -(-w // t)  # r, after strides have become channels
        r, q = self.weights
        self.points: Pair = m + r - 1, n + q - 1  # t of each axis
        self.tiles: Pair = -(-height // m), -(-width // n)  # that cover the upper layer
        # of the lower layer, after strides have become channels, and of the upper one
        self.channels: Pair = convolution.shape[2] * s * t, convolution.channels

    def cost(self, rows: int) -> float:
        """Return the multiply-adds a sample of all three contractions, in a batch of so many rows.

        Transforms are included, and numbers moved at the price of ``MOVE`` multiply-adds each.
        """
        (lower, upper), m, t = self.channels, math.prod(self.results), math.prod(self.points)
        moved = t * (lower + upper) + m * upper + t * lower
        each = 3 * t * lower * upper + 2 * t * t * lower + 2 * t * m * upper
        # ŵ is made, and the gradient's transform summed and undone
        weights = lower * upper * (2 * t * math.prod(self.weights) + MOVE * 4 * t)
        return math.prod(self.tiles) * (each + MOVE * moved) + weights / rows


def plans(convolution: Any) -> list[Plan]:
    """Return the plans of a convolution for all sizes of tiles that there are points for."""
    sizes = []
    axes = zip(convolution.kernel, convolution.stride, convolution.output_shape, strict=False)
    for k, s, size in axes:
        r = -(-k // s)
        most = 1 if r == 1 else len(POINTS) + 2 - r  # one weight has nothing to save
        sizes.append(range(1, min(most, size) + 1))
    return [Plan(convolution, (m, n)) for m, n in product(*sizes)]


def winograd_plan(convolution: Any, rows: int) -> Plan | None:
    """Return the cheapest plan for so many rows; None where im2col costs less.

    With few rows smaller tiles pay, since they transform the weights to fewer points.
    """
    height, width, upper = convolution.output_shape
    window = math.prod(convolution.kernel) * convolution.shape[2]
    im2col = height * width * (3 * window * upper + MOVE * 3 * window)
    cheap = [plan for plan in plans(convolution) if plan.cost(rows) < im2col]
    return min(cheap, key=lambda plan: plan.cost(rows), default=None)


class Tiles:
    """Tiles of the lower or the upper images and their transform, hat = (M ⊗ M) tiles(images).

    A tile is ``window`` units high and wide, a unit ``unit`` pixels; the next tile begins ``hop``
    units on, so that tiles may overlap. :meth:`analyse` and :meth:`synthesise` are each other's
    transposes.
    """

    def __init__(
        self, backend: Backend, dtype: str, images: int, plan: Plan, matrix: Array, *, upper: bool
    ) -> None:
        self._backend, self._matrix, self._count = backend, matrix, plan.tiles
        of = plan.of
        if upper:
            shape, self._window, unit, padding = of.output_shape, plan.results, (1, 1), (0, 0)
        else:
            shape, self._window, unit, padding = of.shape, plan.points, of.stride, of.padding
        hop, reach = plan.results, self._window
        self._images = (images, *shape)
        cells = (images, *plan.tiles, unit[0], unit[1] * shape[2])
        self._tiles = backend.empty((*reach, *cells), dtype)
        self._flat = backend.xp.reshape(self._tiles, (math.prod(reach), -1))
        count = images * math.prod(plan.tiles)
        self.hat = backend.empty((matrix.shape[0], count, plan.channels[upper]), dtype)
        covered = [hop[k] * plan.tiles[k] for k in (0, 1)]
        # whether the tiles neither overlap nor reach beyond the images
        self._exact = unit == (1, 1) and reach == hop and covered == list(shape[:2])
        if self._exact:
            return
        height, width = (
            max(unit[k] * (hop[k] * (plan.tiles[k] - 1) + reach[k]), padding[k] + shape[k])
            for k in (0, 1)
        )
        # one to gather from, whose border stays zero, and one to scatter to
        padded = [backend.zeros((images, height, width, shape[2]), dtype) for _ in range(2)]
        row = width * shape[2]
        tile = hop[0] * unit[0] * row, hop[1] * unit[1] * shape[2]
        steps = (unit[0] * row, unit[1] * shape[2], height * row, *tile, row, 1)
        strides = tuple(padded[0].itemsize * step for step in steps)
        self._tiles_in, tiles_out = (
            np.lib.stride_tricks.as_strided(each, self._tiles.shape, strides) for each in padded
        )
        rows, columns = (slice(p, p + size) for p, size in zip(padding, shape, strict=False))
        self._image_in, self._image_out = (each[:, rows, columns, :] for each in padded)
        # the pieces of tiles to add up where tiles overlap
        tiles, (h, w), (m, n) = self._tiles, reach, hop
        self._folds = [
            (tiles[u - m, :, :, 1:, ...], tiles[u, :, :, :-1, ...]) for u in reversed(range(m, h))
        ] + [
            (tiles[u, v - n, :, :, 1:, ...], tiles[u, v, :, :, :-1, ...])
            for v in reversed(range(n, w))
            for u in range(h)
        ]
        # what is then to write: the hop of every tile, and the rest of the last ones
        each, last = slice(None), slice(-1, None)
        self._scatters = [
            (tiles_out[u, v, :, down, across], tiles[u, v, :, down, across])
            for u, down in ((slice(0, m), each), (slice(m, h), last))
            for v, across in ((slice(0, n), each), (slice(n, w), last))
        ]

    def analyse(self, signal: Array, hat: Array) -> None:
        """Write the transform of the rows of ``signal`` into ``hat`` (points, tiles, channels)."""
        backend, xp = self._backend, self._backend.xp
        if self._exact:
            self._tiles[...] = self._cut(signal)
        else:
            self._image_in[...] = xp.reshape(signal, self._images)
            self._tiles[...] = self._tiles_in
        backend.matmul(self._matrix, self._flat, xp.reshape(hat, (hat.shape[0], -1)))

    def synthesise(self, signal: Array) -> None:
        """Write the images of which ``hat`` would be a gradient into the rows of ``signal``."""
        backend, xp = self._backend, self._backend.xp
        flat = xp.reshape(self.hat, (self.hat.shape[0], -1))
        backend.matmul(self._matrix.T, flat, self._flat)
        if self._exact:
            self._cut(signal)[...] = self._tiles
            return
        for total, piece in self._folds:
            xp.add(total, piece, out=total)
        for region, piece in self._scatters:
            region[...] = piece
        xp.reshape(signal, self._images)[...] = self._image_out

    def _cut(self, signal: Array) -> Array:
        """Return the tiles of images that they cover exactly, as a view."""
        xp, (images, _, _, channels) = self._backend.xp, self._images
        (rows, columns), (h, w) = self._count, self._window
        cut = xp.reshape(signal, (images, rows, h, columns, w, 1, channels))
        return xp.permute_dims(cut, (2, 4, 0, 1, 3, 5, 6))


class WinogradWorkspace(BlockWorkspace):
    """Computes a convolution by a plan, where arrays have strided views."""

    def __init__(
        self, plan: Plan, backend: Backend, parts: Parts, dtype: str, **options: Any
    ) -> None:
        axes = [correlation_matrices(m, r) for m, r in zip(plan.results, plan.weights, strict=True)]
        self._plan = plan
        self._B, self._G, self._A = (
            backend.asarray(np.kron(*pair), dtype) for pair in zip(*axes, strict=True)
        )
        (lower, upper), points, tiles = plan.channels, math.prod(plan.points), math.prod(plan.tiles)
        image = np.dtype(dtype).itemsize * points * tiles * (lower + upper)
        block = max(1, BLOCK_BYTES // image, LEAST_TILES // tiles)
        shape = (points, lower, upper)
        super().__init__(plan.of, backend, parts, dtype, block, shape, **options)

        xp, (r, q), (s, t), of = backend.xp, plan.weights, plan.of.stride, plan.of
        # zeros where strides do not divide the kernel
        kernel = backend.zeros((r, s, q, t, of.shape[2], upper), dtype)
        padded = xp.reshape(kernel, (r * s, q * t, of.shape[2], upper))
        self._kernel = padded[: of.kernel[0], : of.kernel[1], ...]
        self._by_weight = xp.permute_dims(kernel, (0, 2, 1, 3, 4, 5))
        self._weights = backend.empty((r * q, lower * upper), dtype)
        self._w_hat = backend.empty(shape, dtype)
        # what a layer's signals come from, 'near', and go to, 'far'
        near = lower if self.upward else upper
        rows = [each.stop - each.start for each in self.blocks(sum(parts))]
        self._kept = [backend.empty((points, n * tiles, near), dtype) for n in rows]
        self._tiles: list[dict[int, tuple[Tiles, Tiles]]] = [{} for _ in range(self.workers)]

    def _tiles_of(self, worker: int, block: slice) -> tuple[Tiles, Tiles]:
        """Return a worker's tiles for blocks of this length: where signals come from, and go to."""
        images, known = block.stop - block.start, self._tiles[worker]
        if images not in known:
            made = self.backend, self.dtype, images, self._plan
            both = Tiles(*made, self._B, upper=False), Tiles(*made, self._A, upper=True)
            known[images] = both if self.upward else both[::-1]
        return known[images]

    def load(self, W: Array) -> None:
        """Set ŵ = (G ⊗ G) W, shape (points, channels of a unit, channels out)."""
        xp = self.backend.xp
        self._kernel[...] = W
        weights = xp.reshape(self._weights, tuple(self._by_weight.shape))
        weights[...] = self._by_weight
        self.backend.matmul(self._G, self._weights, xp.reshape(self._w_hat, (len(self._G), -1)))
        self._W = self._w_hat if self.upward else self._transposed(self._w_hat)

    def forward(self, x: Array, out: Array | None) -> None:
        rows = 0 if out is None else out.shape[0]

        def task(worker: int, index: int, block: slice) -> None:
            near, far = self._tiles_of(worker, block)
            near.analyse(x[block, :], self._kept[index])
            if block.stop <= rows:
                self.backend.matmul(self._kept[index], self._W, far.hat)
                far.synthesise(out[block, :])  # type: ignore[index]

        self._work(x.shape[0], task)

    def adjoint(self, y: Array, out: Array) -> None:
        def task(worker: int, index: int, block: slice) -> None:
            near, far = self._tiles_of(worker, block)
            far.analyse(y[block, :], far.hat)
            self._pull_back(near, far, out[block, :])

        self._work(y.shape[0], task)

    def adjoint_and_gradient(self, x: Array, y: Array, out: Array | None, gradient: Array) -> None:
        rows = 0 if out is None else out.shape[0]

        def task(worker: int, index: int, block: slice) -> None:
            near, far = self._tiles_of(worker, block)
            far.analyse(y[block, :], far.hat)
            kept = self._kept[index], far.hat
            x_hat, y_hat = kept if self.upward else kept[::-1]
            self._gradients.add(worker, index, self._transposed(x_hat), y_hat)
            if block.stop <= rows:
                self._pull_back(near, far, out[block, :])  # type: ignore[index]

        # ∂T/∂W = (G ⊗ G)ᵀ Σ x̂ᵀ ŷ
        xp = self.backend.xp
        total = xp.reshape(self._sum_over(y.shape[0], task), (len(self._G), -1))
        self.backend.matmul(self._G.T, total, self._weights)
        self._by_weight[...] = xp.reshape(self._weights, tuple(self._by_weight.shape))
        gradient[...] = self._kernel
        self._by_weight[...] = 0.0

    def _pull_back(self, near: Tiles, far: Tiles, out: Array) -> None:
        """Write the adjoint of a block whose transform is in ``far.hat``."""
        self.backend.matmul(far.hat, self._transposed(self._W), near.hat)
        near.synthesise(out)

    def _transposed(self, matrices: Array) -> Array:
        return self.backend.xp.permute_dims(matrices, (0, 2, 1))
