"""The bare products of a convolution: as many windows, no image laid out as windows."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from nembp.backend import Array, Backend, stream
from nembp.engine.convolution import Convolution
from nembp.engine.linear import Dense, LinearMap

BLOCK = 1 << 19  # bytes of windows: half of a common second-level cache

__all__ = ["BLOCK", "Extent", "WindowProducts", "extent"]


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
    if linear_map.weight_count:
        raise TypeError(f"no floor is known for {linear_map}")
    return None


class WindowProducts:
    """windows W, y Wᵀ and windowsᵀ y, with windows that lie ready.

    Parameters
    ----------
    backend : Backend
        That multiplies.
    linear_map : Convolution
        Whose shapes they have.
    samples : int
        The most that a call gives.
    dtype : str
        Of all arrays.
    block : int, optional
        Bytes of windows that are in use at a time (at least one sample's): blocks that stay in
        cache cost less memory traffic, but more calls. By default all windows at once.
    """

    def __init__(
        self,
        backend: Backend,
        linear_map: Convolution,
        samples: int,
        dtype: str,
        block: int | None = None,
    ) -> None:
        e = extent(linear_map)
        assert e is not None
        self._backend, self._extent = backend, e
        if block is not None:
            each = e.windows * e.rows * np.dtype(dtype).itemsize
            samples = min(samples, max(1, block // each))
        self._block = samples * e.windows
        draw = stream(0, "benchmark/windows")
        draws = draw.standard_normal((self._block, e.rows), dtype=np.float32)
        self._windows = backend.asarray(draws, dtype)
        self._patches = backend.empty((self._block, e.rows), dtype)
        deviation = (2.0 / (e.rows + e.columns)) ** 0.5
        self._W = backend.asarray(draw.normal(0.0, deviation, (e.rows, e.columns)), dtype)
        self._gradient = backend.empty((e.rows, e.columns), dtype)

    def forward(self, x: Array, out: Array) -> None:
        """Multiply as many windows by W as ``out`` (samples, outputs) has room for."""
        pixels = self._pixels(out)
        for first in range(0, pixels.shape[0], self._block):
            piece = pixels[first : first + self._block, :]
            self._backend.matmul(self._windows[: piece.shape[0], :], self._W, piece)

    def adjoint(self, y: Array, out: Array) -> None:
        """Multiply ``y`` (samples, outputs) by Wᵀ, into patches."""
        pixels = self._pixels(y)
        for first in range(0, pixels.shape[0], self._block):
            piece = pixels[first : first + self._block, :]
            self._backend.matmul(piece, self._W.T, self._patches[: piece.shape[0], :])

    def weight_gradient(self, x: Array, y: Array) -> None:
        """Multiply transposed windows by ``y`` (samples, outputs)."""
        pixels = self._pixels(y)
        for first in range(0, pixels.shape[0], self._block):
            piece = pixels[first : first + self._block, :]
            windows = self._windows[: piece.shape[0], :]
            self._backend.matmul(windows.T, piece, self._gradient)

    def _pixels(self, y: Array) -> Array:
        return self._backend.xp.reshape(y, (-1, self._extent.columns))
