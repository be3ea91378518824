"""Batch normalization: a part of a layer, of each direction by itself (Ioffe and Szegedy 2015).

The pre-activation z of a normalized layer, rows × pixels for each of its channels (a dense layer's
neurons are channels of one pixel), becomes

    ẑ = (z − μ) / √(σ² + ε),   y = γ ẑ + β,   a = f(y),

with μ, σ² the mean and variance of the channel over the batch, β the layer's bias and γ its gain.
Both directions use the layer, each with its own γ, β, μ and σ². With N values a channel and the
error g = ∂/∂y, the exact gradient runs through μ and σ² too (their section 3):

    ∂/∂β = Σ g,   ∂/∂γ = Σ g ẑ,   ∂/∂z = γ / √(σ² + ε) · (g − (∂/∂β + ẑ ∂/∂γ) / N).

On the class-sum path a row stands for w samples with one signal, and its error g is the sum of
theirs. The statistics are those of the samples, μ = Σ w z / N and so on, and the sum of errors is
∂/∂z = γ / √(σ² + ε) · (g − w (∂/∂β + ẑ ∂/∂γ) / N): as exact as one row a sample.

For prediction each direction keeps running statistics, r ← (1 − m) r + m · (μ, σ² N / (N − 1)): the
variance without bias, and m = 0.1, as PyTorch has them. (With N = 1 there is no variance, ẑ = 0,
and they stay as they are.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from nembp.backend import Array
from nembp.errors import ArchitectureError
from nembp.links import After
from nembp.row_blocks import RowBlocks

if TYPE_CHECKING:
    from nembp.network import Network
    from nembp.normalized import Counts

__all__ = [
    "BatchNormalization",
    "Normalizer",
    "Statistics",
    "normalize_by_running",
    "normalizers",
]

Statistics: TypeAlias = Literal["batch", "running"]


@dataclass(frozen=True)
class BatchNormalization:
    """How a layer is normalized.

    Parameters
    ----------
    epsilon : float
        ε > 0, added to the variance.
    momentum : float
        Share 0 < m ≤ 1 of the newest batch in the running statistics.
    """

    epsilon: float = 1e-5
    momentum: float = 0.1

    def __post_init__(self) -> None:
        if not (0.0 < self.epsilon < math.inf and 0.0 < self.momentum <= 1.0):
            raise ArchitectureError(
                "batch normalization needs a finite epsilon > 0 and a momentum in (0, 1], got "
                f"{self.epsilon} and {self.momentum}"
            )


class Normalizer:
    """Normalizes one layer in one direction, for a fixed number of rows, in its own buffers.

    Parameters
    ----------
    net : Network
        Seen from the direction.
    k : int
        The layer, counted from the direction's input.
    rows : int
        Of the signals.
    counts : Counts, optional
        Of the samples that each row stands for; one by default.
    statistics : {"batch", "running"}
        Which μ and σ² to use; those of the batch carry gradients.
    lanes : int
        Threads that share the rows.

    Attributes
    ----------
    mean, variance : array, shape (channels,)
        Of the last batch.
    bias_gradient, gain_gradient : array, shape (channels,)
        ∂/∂β and ∂/∂γ, after :meth:`pull_back`.
    """

    def __init__(
        self,
        net: Network,
        k: int,
        rows: int,
        *,
        counts: Counts | None = None,
        statistics: Statistics = "batch",
        lanes: int = 1,
    ) -> None:
        layer, backend, dtype = net.layers[k], net.backend, net.dtype
        if layer.normalization is None:
            raise ArchitectureError(f"layer {k} is not normalized")
        size, channels = layer.size, layer.gains
        self.net, self.k, self.settings = net, k, layer.normalization
        self.couples = statistics == "batch"  # each row's ẑ then depends on all rows
        self._counts, pixels = counts, size // channels
        self._values = pixels * (counts.samples if counts else rows)  # N of a channel, at most
        # 1 / N; on the class-sum path the rows' weights w / samples sum to one already
        self._share = 1.0 / (pixels if counts else self._values)
        xp, empty = backend.xp, backend.empty
        self._hat = empty((rows, size), dtype)  # ẑ
        self.mean, self.variance, self.bias_gradient, self.gain_gradient = (
            empty((channels,), dtype) for _ in range(4)
        )
        self._scale = empty((channels,), dtype)  # 1 / √(σ² + ε)
        self._spare = empty((channels,), dtype)
        self._ones = backend.ones((channels,), dtype)
        # a channel's numbers at each of its pixels: rows are then worked on in long runs
        self._wide = [empty((size,), dtype) for _ in range(3)]
        self._pixels = [xp.reshape(wide, (pixels, channels)) for wide in self._wide]

        self._blocks = RowBlocks(backend, dtype, rows, size, channels, lanes)

    # -- signals -------------------------------------------------------------------------------
    def forward(
        self, z: Array, after: After | None = None, first: int = 0, *, held: bool = False
    ) -> None:
        """Write γ ẑ over ``z`` (rows, size); the bias is still to be added.

        Parameters
        ----------
        after : callable, optional
            Called with ``first`` + first and last row, when those are written and still in cache.
        held : bool
            Use the statistics of the last batch, not those of this one.
        """
        backend, xp, hats = self.net.backend, self.net.backend.xp, self._hat
        if not self.couples:
            for own, running in zip((self.mean, self.variance), self._running(), strict=True):
                backend.copy(running, own)
        elif not held:
            self._measure(z)
        centred = self.couples and not held  # measuring left z − μ
        self._set_scale()
        mean, scale, gain = self._spread(self.mean, self._scale, self.net.gains[self.k])

        def finish(lane: int, start: int, stop: int) -> None:
            rows, hat = z[start:stop, :], hats[start:stop, :]
            if not centred:
                backend.into(rows, xp.subtract, rows, mean)
            backend.into(hat, xp.multiply, rows, scale)
            backend.into(rows, xp.multiply, hat, gain)
            if after is not None:
                after(first + start, first + stop)

        self._blocks.work(finish)

    def _measure(self, z: Array) -> None:
        """Take μ and σ² of ``z``, and write z − μ over it.

        In two passes, for Σ (z − μ)² / N does not cancel as Σ z² / N − μ² does.
        """
        backend, xp = self.net.backend, self.net.backend.xp
        blocks, weights = self._blocks, None if self._counts is None else self._counts.shares.T
        blocks.sum(lambda lane, start, stop: (z[start:stop, :],), [self.mean], weights)
        backend.into(self.mean, xp.multiply, self.mean, self._share)
        (mean,) = self._spread(self.mean)

        def squares(lane: int, start: int, stop: int) -> tuple[Array, ...]:
            rows, scratch = z[start:stop, :], blocks.scratch(lane, start, stop)
            backend.into(rows, xp.subtract, rows, mean)
            return (backend.into(scratch, xp.multiply, rows, rows),)

        blocks.sum(squares, [self.variance], weights)
        backend.into(self.variance, xp.multiply, self.variance, self._share)

    def _set_scale(self) -> None:
        """Set 1 / √(σ² + ε)."""
        backend, xp = self.net.backend, self.net.backend.xp
        backend.into(self._spare, xp.add, self.variance, self.settings.epsilon)
        backend.into(self._spare, xp.sqrt, self._spare)
        backend.into(self._scale, xp.divide, self._ones, self._spare)

    # -- errors --------------------------------------------------------------------------------
    def pull_back(self, error: Array, before: After | None = None, first: int = 0) -> None:
        """Turn g = ∂/∂y into ∂/∂z in place, and set ``bias_gradient`` and ``gain_gradient``.

        By running statistics, which are no function of z, ∂/∂z = γ g / √(σ² + ε); by those of the
        batch γ / √(σ² + ε) · (g − (∂/∂β + ẑ ∂/∂γ) / N).

        Parameters
        ----------
        error : array, shape (rows, size)
            Of rows that stand for several samples, the sum of their errors.
        before : callable, optional
            Called with ``first`` + first and last row, when those rows are about to be read.
        """
        backend, xp, hats = self.net.backend, self.net.backend.xp, self._hat
        blocks = self._blocks

        def terms(lane: int, start: int, stop: int) -> tuple[Array, ...]:
            if before is not None:
                before(first + start, first + stop)
            rows, scratch = error[start:stop, :], blocks.scratch(lane, start, stop)
            backend.into(scratch, xp.multiply, rows, hats[start:stop, :])
            return rows, scratch

        blocks.sum(terms, [self.bias_gradient, self.gain_gradient])
        backend.into(self._spare, xp.multiply, self._scale, self.net.gains[self.k])
        spread = self._spread(self._spare, self.bias_gradient, self.gain_gradient)
        factor, shift, slope = spread  # γ / √(σ² + ε), and ∂/∂β and ∂/∂γ, next divided by N
        for each in (shift, slope) if self.couples else ():
            backend.into(each, xp.multiply, each, self._share)

        def finish(lane: int, start: int, stop: int) -> None:
            rows, scratch = error[start:stop, :], blocks.scratch(lane, start, stop)
            if self.couples:
                backend.into(scratch, xp.multiply, hats[start:stop, :], slope)
                backend.into(scratch, xp.add, scratch, shift)
                if self._counts is not None:
                    backend.into(scratch, xp.multiply, scratch, self._counts.shares[start:stop, :])
                backend.into(rows, xp.subtract, rows, scratch)
            backend.into(rows, xp.multiply, rows, factor)

        blocks.work(finish)

    # -- running statistics --------------------------------------------------------------------
    def update_running(self) -> None:
        """Move the running statistics, r ← (1 − m) r + m · (μ, σ² N / (N − 1))."""
        if self._values < 2:
            return
        backend, xp, m = self.net.backend, self.net.backend.xp, self.settings.momentum
        for running, value in zip(self._running(), (self.mean, self.variance), strict=True):
            backend.into(self._spare, xp.multiply, value, m)
            if value is self.variance:
                backend.into(self._spare, xp.multiply, self._spare, self._unbiased())
            backend.into(running, xp.multiply, running, 1.0 - m)
            backend.into(running, xp.add, running, self._spare)

    def _unbiased(self) -> Any:
        """Return N / (N − 1)."""
        if self._counts is None:
            return self._values / (self._values - 1)
        return self._counts.unbiased(self.net.layers[self.k].size // self.mean.shape[0])

    def _running(self) -> tuple[Array, Array]:
        running = self.net.running[self.k]
        assert running is not None
        return running

    # -- rows ----------------------------------------------------------------------------------
    def _spread(self, *vectors: Array) -> list[Array]:
        """Return vectors of one number a channel as vectors of one a neuron."""
        for pixels, vector in zip(self._pixels, vectors, strict=False):
            pixels[...] = vector
        return self._wide[: len(vectors)]


def normalizers(net: Network, rows: int, **options: Any) -> list[Normalizer | None]:
    """Return the :class:`Normalizer` of each layer of a direction, None where it has none."""
    return [
        None if layer.normalization is None else Normalizer(net, k, rows, **options)
        for k, layer in enumerate(net.layers)
    ]


def normalize_by_running(net: Network, k: int, z: Array) -> None:
    """Write γ (z − μ) / √(σ² + ε) over ``z`` with the running statistics: for predictions."""
    layer, running, backend = net.layers[k], net.running[k], net.backend
    if layer.normalization is None or running is None:
        return
    xp, (mean, variance) = backend.xp, running
    factor = net.gains[k] / xp.sqrt(variance + layer.normalization.epsilon)
    z = xp.reshape(z, (-1, layer.gains))
    backend.into(z, xp.subtract, z, mean)
    backend.into(z, xp.multiply, z, factor)
