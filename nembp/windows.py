"""A convolution's contractions by its definition: windows laid out as rows (im2col), one product.

windows(x)[n p q, i j c] = x̃[n, s p + i, s q + j, c], with x̃ the image padded by zeros. Then

    forward(x) = windows(x) W,   ∂T/∂W = windows(x)ᵀ y,   adjoint(y) = windowsᵀ(y Wᵀ),

where windowsᵀ adds every row back over its window. The windows of a few images at a time stay in
cache; those of a whole batch would be many times the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nembp.backend import Array, Backend
from nembp.links import After, Block, BlockLink

if TYPE_CHECKING:
    from nembp.convolution import Convolution

__all__ = ["WindowsLink"]

BLOCK_BYTES = 1 << 19  # of windows; with the products' own copies that fills a 1 MiB cache


class WindowsLink(BlockLink):
    """The link of any convolution on any device."""

    synapse: Convolution

    def __init__(
        self,
        synapse: Convolution,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool = True,
        lanes: int = 1,
    ) -> None:
        rows, columns, _ = synapse.output_shape
        self._window = math.prod(synapse.kernel) * synapse.shape[2]
        item = {"float32": 4, "float64": 8}.get(dtype, 16)
        most_bytes = BLOCK_BYTES if backend.has_cache else backend.window_bytes
        block = max(1, most_bytes // (item * rows * columns * self._window))
        super().__init__(synapse, backend, parts, dtype, upward, lanes, block)
        self._padded: list[Array] = []
        self._make_room()

    def _make_room(self) -> None:
        """Allocate every lane's buffers for its largest block."""
        synapse, backend, dtype = self.synapse, self.backend, self.dtype
        (height, width, channels), (p, q) = synapse.shape, synapse.padding
        rows, columns, _ = synapse.output_shape
        most = max(stop - start for start, stop in self.blocks)
        padded = (most, height + 2 * p, width + 2 * q, channels)
        windows = (most, rows, columns, *synapse.kernel, channels)
        each = range(self.lanes)
        self._padded = [backend.zeros(padded, dtype) for _ in each]
        self._windows = [backend.empty(windows, dtype) for _ in each]
        self._spare = [backend.empty((self._window, synapse.channels), dtype) for _ in each]
        self._sums = [backend.empty((self._window, synapse.channels), dtype) for _ in each]

    def load(self, W: Array) -> None:
        self._W = self.backend.xp.reshape(W, (self._window, self.synapse.channels))

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
        n, (height, width, _), (p, q) = x.shape[0], self.synapse.shape, self.synapse.padding
        windows = self._windows[lane][:n, ...]
        if self.backend.lay_windows(self.synapse, x, windows):
            return self._rows(windows)
        padded = self._padded[lane][:n, ...]
        image = self.backend.xp.reshape(x, (n, *self.synapse.shape))
        padded[:, p : p + height, q : q + width, :] = image
        self.backend.copy_windows(padded, self.synapse.stride, windows)
        return self._rows(windows)

    def _lift(self, lane: int, out: Array) -> None:
        """Write the product of the windows laid out last and W."""
        windows = self._rows(self._windows[lane][: out.shape[0], ...])
        pixels = self.backend.xp.reshape(out, (-1, self.synapse.channels))
        self.backend.matmul(windows, self._W, pixels)

    def _lower(self, lane: int, y: Array, out: Array) -> None:
        """Add each row of y Wᵀ over its window."""
        n, (height, width, _), (p, q) = y.shape[0], self.synapse.shape, self.synapse.padding
        padded, windows = self._padded[lane][:n, ...], self._windows[lane][:n, ...]
        xp = self.backend.xp
        pixels = xp.reshape(y, (-1, self.synapse.channels))
        self.backend.matmul(pixels, self._W.T, self._rows(windows))
        if self.backend.gather_windows(self.synapse, windows, out):
            return
        padded[...] = 0.0
        self.backend.add_windows(windows, self.synapse.stride, padded)
        xp.reshape(out, (n, *self.synapse.shape))[...] = padded[:, p : p + height, q : q + width, :]
        self._clear_border(padded)

    def _clear_border(self, padded: Array) -> None:
        """Set what lies around the images to zero again, as :meth:`_gather` expects it."""
        (height, width, _), (p, q) = self.synapse.shape, self.synapse.padding
        if p:
            padded[:, :p, :, :] = 0.0
            padded[:, p + height :, :, :] = 0.0
        if q:
            padded[:, :, :q, :] = 0.0
            padded[:, :, q + width :, :] = 0.0

    def _add_gradient(self, lane: int, columns: Array, y: Array) -> None:
        backend, spare, sums = self.backend, self._spare[lane], self._sums[lane]
        pixels = backend.xp.reshape(y, (-1, self.synapse.channels))
        backend.matmul(columns.T, pixels, spare)
        backend.into(sums, backend.xp.add, sums, spare)

    def _rows(self, windows: Array) -> Array:
        return self.backend.xp.reshape(windows, (-1, self._window))
