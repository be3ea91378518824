"""Convolutional synapses.

Signals are flat rows; a layer of images has the order N, H, W, C, kernels (height, width, channels
in, channels out). With x̃ the image padded by zeros,

    T(x, W, y) = Σ_n Σ_pq Σ_ij Σ_ck  x̃[n, s p + i, s q + j, c]  W[i, j, c, k]  y[n, p, q, k]

so forward correlates with W, adjoint is the transposed convolution with the same kernels, and
∂T/∂W correlates x with y. Each is one matrix product with the image's windows laid out as rows
(im2col): windows(x) W, its transpose y Wᵀ added back over the windows, and windows(x)ᵀ y.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp.backend import Array, Backend
from nembp.convolution_forms import link_by_definition
from nembp.errors import ArchitectureError
from nembp.filtering_plans import definition_cost, plan
from nembp.image_maps import AveragePooling, Pair, Reshape, Shape, dtype_of, writable
from nembp.links import BlockLink
from nembp.minimal_filtering import MinimalFilteringLink
from nembp.synapses import Synapse
from nembp.windows import WindowsLink

__all__ = ["AveragePooling", "Convolution", "Reshape"]


@dataclass(frozen=True)
class Convolution(Synapse):
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
        link = link_by_definition(self, backend, (signal.shape[0],), dtype_of(signal))
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
        return link_by_definition(self, backend, parts, dtype, upward, lanes)

    def initial_weights(self, generator: np.random.Generator) -> np.ndarray[Any, Any]:
        """Draw Glorot-normal weights, variance 2 / (fan in + fan out).

        A unit of the upper layer sums height · width · channels in, one of the lower layer about
        height · width · channels out / (stride · stride).
        """
        area = math.prod(self.kernel)
        fan_in = area * self.shape[2]
        fan_out = area * self.channels / math.prod(self.stride)
        return generator.normal(0.0, math.sqrt(2.0 / (fan_in + fan_out)), self.weight_shape)
