"""Batch normalization: a part of a layer, of each direction by itself (Ioffe and Szegedy 2015).

The pre-activation z of a normalized layer, rows × pixels for each of its channels (a dense layer's
units are channels of one pixel), becomes

    ẑ = (z − μ) / √(σ² + ε),   y = γ ẑ + β,   a = f(y),

with μ, σ² the mean and variance of the channel over the batch, β the layer's bias and γ its gain.
Both directions use the layer, each with its own γ, β, μ and σ². With N values a channel and the
error g = ∂/∂y, the exact gradient runs through μ and σ² too (their section 3):

    ∂/∂β = Σ g,   ∂/∂γ = Σ g ẑ,   ∂/∂z = γ / √(σ² + ε) · (g − (∂/∂β + ẑ ∂/∂γ) / N).

On the class-sum path a row stands for w samples with one signal, and its error g is the sum of
theirs. The statistics are those of the samples, μ = Σ w z / N and so on, and the sum of errors is
∂/∂z = γ / √(σ² + ε) · (g − w (∂/∂β + ẑ ∂/∂γ) / N): as exact as one row per sample.

For prediction each direction keeps running statistics, r ← (1 − m) r + m · (μ, σ² N / (N − 1)): the
variance without bias, and m = 0.1, as PyTorch has them. (With N = 1 there is no variance, ẑ = 0,
and they stay as they are.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from nembp.backend import Array, Backend
from nembp.engine.linear import Sums, cut, in_blocks
from nembp.errors import ArchitectureError

BLOCK_BYTES = 1 << 17  # of a matrix's rows: four such blocks stay in cache

Statistics: TypeAlias = Literal["batch", "running"]


@dataclass(frozen=True)
class BatchNormalization:
    """How a layer is normalized."""

    epsilon: float = 1e-5  # ε > 0, added to the variance
    momentum: float = 0.1  # share 0 < m ≤ 1 of the newest batch in the running statistics

    def __post_init__(self) -> None:
        if not (0.0 < self.epsilon < math.inf and 0.0 < self.momentum <= 1.0):
            raise ArchitectureError(
                "batch normalization needs a finite epsilon > 0 and a momentum in (0, 1], got "
                f"{self.epsilon} and {self.momentum}"
            )


class Counts(NamedTuple):
    """How many samples each class row stands for, counted anew in every step."""

    samples: int  # at most
    shares: Array  # (rows, 1), of the samples that take part
    total: Array  # (1, 1), their number


class Normalizer:
    """Normalizes one layer in one direction, for a fixed number of rows, in its own buffers.

    A row of a signal is one number for each channel of a pixel, then of the next. ``gain`` and
    ``running`` (mean, variance) are views (channels,) of the network's vectors, ``counts`` those of
    the samples that each row stands for; only the batch's own statistics carry gradients.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        rows: int,
        size: int,
        settings: BatchNormalization,
        gain: Array,
        running: tuple[Array, Array],
        counts: Counts | None = None,
        statistics: Statistics = "batch",
        workers: int = 1,
    ) -> None:
        self.settings, self._backend, self._counts = settings, backend, counts
        self._gain, self._running, self.of_batch = gain, running, statistics == "batch"
        channels, xp = gain.shape[0], backend.xp
        self._pixels = size // channels
        self._values = self._pixels * (counts.samples if counts else rows)  # N, at most
        # 1 / N; on the class-sum path the rows' shares w / samples sum to one already
        self._share = 1.0 / (self._pixels if counts else self._values)
        vectors = [backend.empty((channels,), dtype) for _ in range(6)]
        self.mean, self.variance, self.bias_gradient, self.gain_gradient = vectors[:4]
        self._scale, self._spare = vectors[4:]  # 1 / √(σ² + ε), and scratch
        self._hat = backend.empty((rows, size), dtype)  # ẑ
        # a channel's numbers at each of its pixels: rows are then worked on in long runs
        self._wide = [backend.empty((size,), dtype) for _ in range(3)]
        self._by_pixel = [xp.reshape(wide, (self._pixels, channels)) for wide in self._wide]
        # blocks of rows that stay in cache, and each worker's scratch and sums
        row = size * np.dtype(dtype).itemsize
        fit = max(1, BLOCK_BYTES // row) if backend.has_cache else rows
        self._workers = min(workers, rows)
        blocks = -(-rows // (fit * self._workers)) * self._workers
        self._blocks = cut(0, rows, min(blocks, rows))
        most = self._blocks[0].stop
        self._scratch = [backend.empty((most, size), dtype) for _ in range(self._workers)]
        self._sums = [Sums(backend, (1, size), dtype, self._workers) for _ in range(2)]
        self._one_of_each_row = backend.ones((1, rows), dtype)
        self._one_of_each_pixel = backend.ones((1, self._pixels), dtype)

    # -- signals -------------------------------------------------------------------------------
    def forward(self, z: Array, *, held: bool = False) -> None:
        """Write γ ẑ over ``z`` (rows, size); the bias is still to be added.

        ``held``: by the statistics of the last batch, not those of this one.
        """
        xp, hats = self._backend.xp, self._hat
        measured = self.of_batch and not held
        if measured:
            self._measure(z)
        elif not held:
            self.mean[...], self.variance[...] = self._running
        xp.add(self.variance, self.settings.epsilon, out=self._scale)
        xp.sqrt(self._scale, out=self._scale)
        xp.reciprocal(self._scale, out=self._scale)
        mean, scale, gain = self._spread(self.mean, self._scale, self._gain)

        def task(worker: int, index: int, block: slice) -> None:
            rows, hat = z[block, :], hats[block, :]
            if not measured:  # measuring left z − μ
                rows -= mean
            xp.multiply(rows, scale, out=hat)
            xp.multiply(hat, gain, out=rows)

        in_blocks(task, self._blocks, self._workers)

    def _measure(self, z: Array) -> None:
        """Take μ and σ² of ``z``, and write z − μ over it: Σ z² / N − μ² would cancel."""
        xp, shares = self._backend.xp, None if self._counts is None else self._counts.shares.T
        self._sum(lambda worker, index, block: (z[block, :],), (self.mean,), shares)
        self.mean *= self._share
        (mean,) = self._spread(self.mean)

        def squares(worker: int, index: int, block: slice) -> tuple[Array]:
            rows = z[block, :]
            rows -= mean
            return (xp.multiply(rows, rows, out=self._scratch_of(worker, block)),)

        self._sum(squares, (self.variance,), shares)
        self.variance *= self._share

    # -- errors --------------------------------------------------------------------------------
    def pull_back(self, error: Array) -> None:
        """Turn g = ∂/∂y into ∂/∂z in place, and set ``bias_gradient`` and ``gain_gradient``.

        By running statistics, which are no function of z, ∂/∂z = γ g / √(σ² + ε).
        """
        xp, hats, counts = self._backend.xp, self._hat, self._counts

        def terms(worker: int, index: int, block: slice) -> tuple[Array, Array]:
            rows, scratch = error[block, :], self._scratch_of(worker, block)
            return rows, xp.multiply(rows, hats[block, :], out=scratch)

        self._sum(terms, (self.bias_gradient, self.gain_gradient))
        xp.multiply(self._scale, self._gain, out=self._spare)
        vectors = self._spread(self._spare, self.bias_gradient, self.gain_gradient)
        factor, shift, slope = vectors
        shift *= self._share
        slope *= self._share

        def task(worker: int, index: int, block: slice) -> None:
            rows, scratch = error[block, :], self._scratch_of(worker, block)
            if self.of_batch:
                xp.multiply(hats[block, :], slope, out=scratch)
                scratch += shift
                if counts is not None:
                    scratch *= counts.shares[block, :]
                rows -= scratch
            rows *= factor

        in_blocks(task, self._blocks, self._workers)

    # -- running statistics --------------------------------------------------------------------
    def update_running(self) -> None:
        """Move the running statistics, r ← (1 − m) r + m · (μ, σ² N / (N − 1))."""
        if self._values < 2:
            return
        xp, m, spare = self._backend.xp, self.settings.momentum, self._spare
        unbiased: Any = self._values / (self._values - 1)
        if self._counts is not None:  # with N = 2 for N = 1
            values = self._counts.total * self._pixels
            unbiased = xp.reshape(values / xp.maximum(values - 1.0, 1.0), (1,))
        for running, value in zip(self._running, (self.mean, self.variance), strict=True):
            xp.multiply(value, m, out=spare)
            if value is self.variance:
                spare *= unbiased
            xp.multiply(running, 1.0 - m, out=running)
            xp.add(running, spare, out=running)

    # -- rows ----------------------------------------------------------------------------------
    def _spread(self, *vectors: Array) -> list[Array]:
        """Return vectors of one number per channel as vectors of one per unit."""
        for by_pixel, vector in zip(self._by_pixel, vectors, strict=False):
            by_pixel[...] = vector
        return self._wide[: len(vectors)]

    def _scratch_of(self, worker: int, block: slice) -> Array:
        return self._scratch[worker][: block.stop - block.start, :]

    def _sum(
        self,
        terms: Callable[[int, int, slice], tuple[Array, ...]],
        sums: tuple[Array, ...],
        shares: Array = None,
    ) -> None:
        """Write Σ over rows and pixels of each of a block's ``terms`` into ``sums`` (channels,)."""
        backend, xp = self._backend, self._backend.xp
        weights = self._one_of_each_row if shares is None else shares

        def task(worker: int, index: int, block: slice) -> None:
            # a product with ones sums columns faster than a reduction
            for each, values in zip(self._sums, terms(worker, index, block), strict=False):
                each.add(worker, index, weights[:, block], values)

        in_blocks(task, self._blocks, self._workers)
        for each, out in zip(self._sums, sums, strict=False):
            total = each.total(len(self._blocks))
            by_pixel = xp.reshape(total, (-1, out.shape[0]))
            backend.matmul(self._one_of_each_pixel, by_pixel, xp.reshape(out, (1, -1)))
