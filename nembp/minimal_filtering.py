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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nembp.backend import Array, Backend
from nembp.filtering_plans import Plan, correlation_matrices
from nembp.filtering_tiles import Side, Tiles
from nembp.links import After, Block, BlockLink

if TYPE_CHECKING:
    from nembp.convolution import Convolution

__all__ = ["MinimalFilteringLink"]

BLOCK_BYTES = 1 << 20  # of both transforms of a block
LEAST_TILES = 128  # of a block: with fewer, products spend their time on the weights


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
        lower = Side(synapse.shape, synapse.padding, s, t, m, sizes.tiles, B)
        upper = Side(synapse.output_shape, (0, 0), (1, 1), m, m, sizes.tiles, A)
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

    near: Tiles
    far: Tiles
    near_hat: Array
    far_hat: Array
