"""Convolutional linear maps.

Signals are flat rows; a layer of images has the order N, H, W, C, kernels (height, width, channels
in, channels out). With x̃ the image padded by zeros,

    T(x, W, y) = Σ_n Σ_pq Σ_ij Σ_ck  x̃[n, s p + i, s q + j, c]  W[i, j, c, k]  y[n, p, q, k]

so forward correlates with W, adjoint is the transposed convolution with the same kernels, and
∂T/∂W correlates x with y. Each is one matrix product with the image's windows laid out as rows,
im2col(x)[n p q, i j c] = x̃[n, s p + i, s q + j, c]:

    forward(x) = im2col(x) W,   ∂T/∂W = im2col(x)ᵀ y,   adjoint(y) = im2colᵀ(y Wᵀ),

where im2colᵀ adds every row back over its window. The windows of a few images at a time stay in
cache; those of a whole batch would be many times the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp.backend import Array, Backend
from nembp.engine.linear import BlockWorkspace, Pair, Parts, Shape, ShapedMap, dtype_of, writable
from nembp.errors import ArchitectureError

BLOCK_BYTES = 1 << 19  # of windows; with the products' own copies that fills a 1 MiB cache


@dataclass(frozen=True)
class Convolution(ShapedMap):
    """Correlation of images with kernels; W has shape (height, width, channels in, channels out).

    Pairs are (vertical, horizontal), in pixels.

    >>> Convolution((32, 32, 3), 16, (4, 4), (2, 2), (1, 1)).output_shape
    (16, 16, 16)
    """

    shape: Shape  # of the lower layer, to which the adjoint leads whatever the stride leaves over
    channels: int  # of the upper layer
    kernel: Pair
    stride: Pair = (1, 1)  # from one window to the next
    padding: Pair = (0, 0)  # zeros around the image
    in_workers = True

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
        axes = zip(self.shape, self.padding, self.kernel, self.stride, strict=False)
        height, width = ((size + 2 * p - kernel) // stride + 1 for size, p, kernel, stride in axes)
        return height, width, self.channels

    @property
    def weight_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (*self.kernel, self.shape[2], self.channels)

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        """Write im2col(x) W into ``out``."""
        with writable(backend, out, tuple(out.shape)) as rows:
            self._im2col(backend, x, W).forward(x, rows)

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        """Write y Wᵀ, each row added where its window was, into ``out``."""
        with writable(backend, out, tuple(out.shape)) as rows:
            self._im2col(backend, y, W).adjoint(y, rows)

    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        """Write im2col(x)ᵀ y into ``out``."""
        self._im2col(backend, x, out).adjoint_and_gradient(x, y, None, out)

    def _im2col(self, backend: Backend, signal: Array, W: Array) -> Im2colWorkspace:
        workspace = Im2colWorkspace(self, backend, (signal.shape[0],), dtype_of(signal))
        workspace.load(W)
        return workspace

    def workspace(
        self, backend: Backend, parts: Parts, dtype: str, *, upward: bool = True, workers: int = 1
    ) -> BlockWorkspace:
        """Return a workspace by Winograd's algorithm where that costs less, else by im2col."""
        options = {"upward": upward, "workers": workers}
        from nembp.engine.winograd import WinogradWorkspace, winograd_plan  # of images alone

        plan = winograd_plan(self, sum(parts)) if backend.has_cache else None
        if plan is not None:
            return WinogradWorkspace(plan, backend, parts, dtype, **options)
        return Im2colWorkspace(self, backend, parts, dtype, **options)

    @property
    def fans(self) -> tuple[float, float]:
        """Of the upper layer height · width · channels in; of the lower one, about."""
        area = math.prod(self.kernel)
        return area * self.shape[2], area * self.channels / math.prod(self.stride)


class Im2colWorkspace(BlockWorkspace):
    """Computes any convolution on any device, by its definition."""

    linear_map: Convolution

    def __init__(
        self, convolution: Convolution, backend: Backend, parts: Parts, dtype: str, **options: Any
    ) -> None:
        rows, columns, self._channels = convolution.output_shape
        channels = convolution.shape[2]
        self._window = math.prod(convolution.kernel) * channels
        most = BLOCK_BYTES if backend.has_cache else backend.column_bytes
        block = max(1, most // (np.dtype(dtype).itemsize * rows * columns * self._window))
        shape = (self._window, self._channels)
        super().__init__(convolution, backend, parts, dtype, block, shape, **options)

        images = max(each.stop - each.start for each in self.blocks(sum(parts)))
        windows = (images, rows, columns, *convolution.kernel, channels)
        padded = (images, *convolution.shape), convolution.padding, dtype
        self._windows = [backend.empty(windows, dtype) for _ in range(self.workers)]
        self._padded = [backend.padded(*padded) for _ in range(self.workers)]

    def load(self, W: Array) -> None:
        self._W = self.backend.xp.reshape(W, (self._window, self._channels))

    def forward(self, x: Array, out: Array | None) -> None:
        if out is not None:
            self._contract(x, out, up=self.upward)

    def adjoint(self, y: Array, out: Array) -> None:
        self._contract(y, out, up=not self.upward)

    def _contract(self, signal: Array, out: Array, *, up: bool) -> None:
        """Write im2col(x) W into ``out``, or im2colᵀ(y Wᵀ)."""

        def task(worker: int, index: int, block: slice) -> None:
            if up:
                columns = self._columns(worker, signal[block, :])
                self.backend.matmul(columns, self._W, self._pixels(out[block, :]))
            else:
                self._add_windows(worker, signal[block, :], out[block, :])

        self._work(out.shape[0], task)

    def adjoint_and_gradient(self, x: Array, y: Array, out: Array | None, gradient: Array) -> None:
        rows = 0 if out is None else out.shape[0]
        lower, upper = (x, y) if self.upward else (y, x)

        def task(worker: int, index: int, block: slice) -> None:
            columns, pixels = self._columns(worker, lower[block, :]), self._pixels(upper[block, :])
            self._gradients.add(worker, index, columns.T, pixels)
            if block.stop > rows:
                return
            if self.upward:
                self._add_windows(worker, upper[block, :], out[block, :])  # type: ignore[index]
            else:
                self.backend.matmul(columns, self._W, self._pixels(out[block, :]))  # type: ignore[index]

        total = self._sum_over(y.shape[0], task)
        gradient[...] = self.backend.xp.reshape(total, tuple(gradient.shape))

    def _columns(self, worker: int, x: Array) -> Array:
        """Return the windows of the images ``x`` as rows."""
        xp, of, n = self.backend.xp, self.linear_map, x.shape[0]
        windows, images = self._windows[worker][:n, ...], xp.reshape(x, (n, *of.shape))
        self.backend.im2col(images, of.padding, of.stride, self._padded[worker], windows)
        return xp.reshape(windows, (-1, self._window))

    def _add_windows(self, worker: int, y: Array, out: Array) -> None:
        """Write y Wᵀ, each row added where its window was, into ``out``."""
        xp, of, n = self.backend.xp, self.linear_map, y.shape[0]
        windows, images = self._windows[worker][:n, ...], xp.reshape(out, (n, *of.shape))
        columns = xp.reshape(windows, (-1, self._window))
        self.backend.matmul(self._pixels(y), self._W.T, columns)
        self.backend.col2im(windows, of.padding, of.stride, self._padded[worker], images)

    def _pixels(self, upper: Array) -> Array:
        """Return signals of the upper layer with a row for each pixel."""
        return self.backend.xp.reshape(upper, (-1, self._channels))
