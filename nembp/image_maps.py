"""Weightless maps between layers of images: means over windows, and neurons in another order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nembp.backend import Array, Backend
from nembp.errors import ArchitectureError
from nembp.synapses import Synapse

__all__ = ["AveragePooling", "Pair", "Reshape", "Shape", "dtype_of", "writable"]

Pair: TypeAlias = tuple[int, int]
Shape: TypeAlias = tuple[int, int, int]


class _Weightless(Synapse):
    """A linear map without weights."""

    weight_shape = (0,)

    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        """Write nothing: there are no weights."""

    def initial_weights(self, generator: np.random.Generator) -> np.ndarray[Any, Any]:
        """Return none."""
        return np.zeros(0)


@dataclass(frozen=True)
class AveragePooling(_Weightless):
    """Means over windows, each channel by itself: T = Σ x̄[n, p, q, c] y[n, p, q, c], no weights.

    Parameters
    ----------
    shape : tuple of int
        (H, W, C) of the lower layer.
    window, stride : tuple of int
        (vertical, horizontal) extent of a window and step between windows, in pixels.
    """

    shape: Shape
    window: Pair
    stride: Pair

    def __post_init__(self) -> None:
        if min(*self.shape, *self.window, *self.stride) < 1:
            raise ArchitectureError(f"a pooling needs sizes of at least 1, got {self}")
        if self.window[0] > self.shape[0] or self.window[1] > self.shape[1]:
            raise ArchitectureError(
                f"window {self.window} does not fit an image of {self.shape[:2]} pixels"
            )

    @property
    def output_shape(self) -> Shape:
        """(H, W, C) of the upper layer: (size − window) // stride + 1."""
        height, width = (
            (self.shape[axis] - self.window[axis]) // self.stride[axis] + 1 for axis in (0, 1)
        )
        return height, width, self.shape[2]

    @property
    def inputs(self) -> int:  # type: ignore[override]
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:  # type: ignore[override]
        return math.prod(self.output_shape)

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        """Write the mean of each window into ``out``."""
        n = x.shape[0]
        image = backend.xp.reshape(x, (n, *self.shape))
        with writable(backend, out, (n, *self.output_shape)) as pooled:
            pooled[...] = 0.0
            for pixels in self._pixels(image):
                backend.into(pooled, backend.xp.add, pooled, pixels)
            backend.into(pooled, backend.xp.multiply, pooled, 1.0 / math.prod(self.window))

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        """Write each y, divided by the window's pixels, over its window into ``out``."""
        n = y.shape[0]
        share = backend.empty((n, *self.output_shape), dtype_of(y))
        pooled = backend.xp.reshape(y, (n, *self.output_shape))
        backend.into(share, backend.xp.multiply, pooled, 1.0 / math.prod(self.window))
        with writable(backend, out, (n, *self.shape)) as image:
            image[...] = 0.0
            for pixels in self._pixels(image):
                backend.into(pixels, backend.xp.add, pixels, share)

    def _pixels(self, image: Array) -> list[Array]:
        """Return, for each pixel of a window, the view of that pixel in all windows."""
        (height, width, _), (s, t) = self.output_shape, self.stride
        return [
            image[:, i : i + s * (height - 1) + 1 : s, j : j + t * (width - 1) + 1 : t, :]
            for i in range(self.window[0])
            for j in range(self.window[1])
        ]


@dataclass(frozen=True)
class Reshape(_Weightless):
    """The same neurons in another order: T = Σ x[n, i] y[n, order(i)], no weights.

    Parameters
    ----------
    shape : tuple of int
        Shape of a sample in the lower layer.
    axes : tuple of int, optional
        Order of these axes in the upper layer, (2, 0, 1) for channels first; as they are by
        default, which is a plain copy.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if min(self.shape, default=0) < 1:
            raise ArchitectureError(f"a reshape needs sizes of at least 1, got {self}")
        if self.axes is not None and sorted(self.axes) != list(range(len(self.shape))):
            raise ArchitectureError(
                f"axes {self.axes} are no order of the {len(self.shape)} axes of {self.shape}"
            )

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of a sample in the upper layer."""
        return tuple(self.shape[axis] for axis in self._axes)

    @property
    def inputs(self) -> int:  # type: ignore[override]
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:  # type: ignore[override]
        return math.prod(self.shape)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(len(self.shape))) if self.axes is None else self.axes

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        """Write x in the upper layer's order into ``out``."""
        n, xp = x.shape[0], backend.xp
        lower = xp.reshape(x, (n, *self.shape))
        with writable(backend, out, (n, *self.output_shape)) as upper:
            upper[...] = xp.permute_dims(lower, (0, *(axis + 1 for axis in self._axes)))

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        """Write y in the lower layer's order into ``out``."""
        n, xp = y.shape[0], backend.xp
        upper = xp.reshape(y, (n, *self.output_shape))
        with writable(backend, out, (n, *self.shape)) as lower:
            xp.permute_dims(lower, (0, *(axis + 1 for axis in self._axes)))[...] = upper


@contextmanager
def writable(backend: Backend, out: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield ``out`` in another shape to write into: a view, or a copy that is copied back."""
    xp = backend.xp
    try:
        view = xp.reshape(xp.reshape(out, (-1,), copy=False), shape)
    except (ValueError, AttributeError):  # a transposed ``out``, say; CuPy raises the second
        view = xp.reshape(out, shape, copy=True)
        yield view
        out[...] = xp.reshape(view, tuple(out.shape))
    else:
        yield view


def dtype_of(array: Array) -> str:
    """Return the name of an array's dtype."""
    return str(array.dtype).rpartition(".")[2]
