"""Tiles of images and their transforms, for minimal filtering (:mod:`nembp.minimal_filtering`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from nembp.backend import Array, Backend
from nembp.filtering_plans import Pair

__all__ = ["Side", "Tiles"]


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
