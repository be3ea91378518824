"""Work on the rows of a matrix in blocks that stay in cache, shared among threads.

Batch normalization: a part of a layer, of each direction by itself (Ioffe and Szegedy 2015).

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

Batch normalization of parts of a batch by themselves.

Where a batch joins samples of two kinds, as a discriminator's real and generated ones, each kind
has statistics of its own (the usual practice since Radford, Metz and Chintala, DCGAN,
arXiv:1511.06434): what the network is shown of one kind alone, it has then been trained on.

The normalized layers of a training step, in both directions (:mod:`nembp.engine.batchnorm`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from nembp.backend import Array, Backend
from nembp.engine.linear import After, cut
from nembp.errors import ArchitectureError, ShapeError
from nembp.threads import run_parallel

if TYPE_CHECKING:
    from nembp.engine.network import Network


BLOCK_BYTES = 1 << 17  # of the matrix: four such blocks stay in cache


class RowBlocks:
    """The blocks of a matrix (rows, size), and what sums over them need.

    Parameters
    ----------
    backend, dtype : Backend, str
        Of the matrix.
    rows, size : int
        Its shape.
    channels : int
        A row is so many numbers of one pixel, then of the next, and so on.
    lanes : int
        Threads to share the blocks among.
    """

    def __init__(
        self, backend: Backend, dtype: str, rows: int, size: int, channels: int, lanes: int = 1
    ) -> None:
        self._backend = backend
        self._sum_rows = backend.ones((1, rows), dtype)
        self._sum_pixels = backend.ones((1, size // channels), dtype)
        bytes_of_row = size * {"float32": 4, "float64": 8}.get(dtype, 16)
        most = max(1, BLOCK_BYTES // bytes_of_row) if backend.has_cache else rows
        self._blocks = [
            cut(start, stop - start, -(-(stop - start) // most))
            for start, stop in cut(0, rows, min(lanes, rows))
        ]
        most = max(stop - start for blocks in self._blocks for start, stop in blocks)
        self._scratch = [backend.empty((most, size), dtype) for _ in self._blocks]
        self._totals = [[backend.empty((1, size), dtype) for _ in range(3)] for _ in self._blocks]

    def scratch(self, lane: int, start: int, stop: int) -> Array:
        """Return a lane's work space for a block."""
        return self._scratch[lane][: stop - start, :]

    def work(self, task: Callable[[int, int, int], object]) -> None:
        """Call ``task(lane, start, stop)`` on every block of rows."""

        def run(lane: int) -> None:
            for start, stop in self._blocks[lane]:
                task(lane, start, stop)

        run_parallel(run, range(len(self._blocks)))

    def sum(
        self,
        terms: Callable[[int, int, int], tuple[Array, ...]],
        sums: list[Array],
        weights: Array = None,
    ) -> None:
        """Write Σ over rows and pixels of one or two terms.

        Parameters
        ----------
        terms : callable
            Returns a block's rows of each term, for ``(lane, start, stop)``.
        sums : list of array, shape (channels,)
            Where the sum of each term goes.
        weights : array, shape (1, rows), optional
            Of the rows.
        """
        backend, add = self._backend, self._backend.xp.add
        row = self._sum_rows if weights is None else weights

        def task(lane: int, start: int, stop: int) -> None:
            *totals, spare = self._totals[lane]
            fresh = start == self._blocks[lane][0][0]
            for total, values in zip(totals, terms(lane, start, stop), strict=False):
                # a product with ones sums columns faster than a reduction
                backend.matmul(row[:, start:stop], values, total if fresh else spare)
                if not fresh:
                    backend.into(total, add, total, spare)

        self.work(task)
        for which, out in enumerate(sums):
            total = self._totals[0][which]
            for others in self._totals[1:]:
                backend.into(total, add, total, others[which])
            each = backend.xp.reshape(total, (-1, out.shape[0]))
            backend.matmul(self._sum_pixels, each, backend.xp.reshape(out, (1, -1)))


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


class GroupedNormalizer:
    """A :class:`~nembp.engine.batchnorm.Normalizer` for each group of rows.

    Parameters
    ----------
    net, k, lanes
        As of the Normalizer.
    groups : sequence of int
        Rows of each, in order.

    Attributes
    ----------
    bias_gradient, gain_gradient : array, shape (channels,)
        ∂/∂β and ∂/∂γ of all groups, after :meth:`pull_back`.
    """

    def __init__(self, net: Network, k: int, groups: Sequence[int], lanes: int = 1) -> None:
        self._backend = net.backend
        self._groups = [
            (start, stop, Normalizer(net, k, stop - start, lanes=lanes))
            for start, stop in pairwise(accumulate(groups, initial=0))
        ]
        self.bias_gradient, self.gain_gradient = (
            net.backend.empty((net.layers[k].gains,), net.dtype) for _ in range(2)
        )

    def forward(
        self, z: Array, after: After | None = None, first: int = 0, *, held: bool = False
    ) -> None:
        """Write γ ẑ over each group of ``z``."""
        for start, stop, normalizer in self._groups:
            normalizer.forward(z[start:stop, :], after, first + start, held=held)

    def pull_back(self, error: Array, before: After | None = None, first: int = 0) -> None:
        """Turn ∂/∂y into ∂/∂z in each group, and sum ∂/∂β and ∂/∂γ."""
        backend, xp = self._backend, self._backend.xp
        for start, stop, normalizer in self._groups:
            normalizer.pull_back(error[start:stop, :], before, first + start)
            for total, part in (
                (self.bias_gradient, normalizer.bias_gradient),
                (self.gain_gradient, normalizer.gain_gradient),
            ):
                if start == 0:
                    backend.copy(part, total)
                else:
                    backend.into(total, xp.add, total, part)

    def update_running(self) -> None:
        """Move the running statistics by one group after the other."""
        for *_, normalizer in self._groups:
            normalizer.update_running()


AnyNormalizer: TypeAlias = Normalizer | GroupedNormalizer


def grouped_normalizers(
    net: Network, rows: int, groups: Sequence[int] | None = None, lanes: int = 1
) -> list[AnyNormalizer | None]:
    """Return what normalizes each layer of a direction, in groups of rows or all of them together.

    Raises
    ------
    ShapeError
        If the groups are not all of the rows.
    """
    if groups is None:
        return [*normalizers(net, rows, lanes=lanes)]
    if sum(groups) != rows or min(groups) < 1:
        raise ShapeError(f"groups of {tuple(groups)} rows; expected {rows} rows in all")
    return [
        None if layer.normalization is None else GroupedNormalizer(net, k, groups, lanes)
        for k, layer in enumerate(net.layers)
    ]


Pass: TypeAlias = Callable[[After], None]


class Counts:
    """How many samples each class row stands for, counted anew in every step.

    Parameters
    ----------
    backend, dtype : Backend, str
        Of the arrays.
    members : array, shape (samples, classes)
        One-hot rows, or rows of zeros for samples that take no part.
    rows : int
        Class rows: ``classes``, and perhaps rows of no class.

    Attributes
    ----------
    shares : array, shape (rows, 1)
        Of the samples that take part.
    """

    def __init__(self, backend: Backend, dtype: str, members: Array, rows: int) -> None:
        self.samples, classes = members.shape
        self._backend, self._by_class = backend, members.T
        self.shares = backend.zeros((rows, 1), dtype)  # rows of no class keep their zeros
        self._of_classes = self.shares[:classes, :]
        self._ones = backend.ones((self.samples, 1), dtype)
        self._sum_rows = backend.ones((1, rows), dtype)
        self._one = backend.ones((1, 1), dtype)
        self._total, self._values, self._others = (backend.empty((1, 1), dtype) for _ in range(3))

    def take(self) -> None:
        """Count the members."""
        backend, xp = self._backend, self._backend.xp
        backend.matmul(self._by_class, self._ones, self._of_classes)
        backend.matmul(self._sum_rows, self.shares, self._total)
        backend.into(self._total, xp.maximum, self._total, self._one)  # where none takes part
        backend.into(self.shares, xp.divide, self.shares, self._total)

    def unbiased(self, pixels: int) -> Array:
        """Return N / (N − 1), shape (1,), for N values of a channel; for N = 1 as for 2."""
        backend, xp = self._backend, self._backend.xp
        backend.into(self._values, xp.multiply, self._total, pixels)
        backend.into(self._others, xp.subtract, self._values, 1.0)
        backend.into(self._others, xp.maximum, self._others, self._one)
        backend.into(self._values, xp.divide, self._values, self._others)
        return xp.reshape(self._values, (1,))


class NormalizedLayers:
    """Normalizers of both directions, by layer as the forward direction counts them.

    Parameters
    ----------
    net : Network
        Seen from its forward direction.
    rows, second : int
        Rows of the forward direction, and of the backward one: 0 where it is left out.
    members : array, shape (samples, classes), optional
        The samples of each backward row, where it has one row a class; read at each step.
    groups : sequence of int, optional
        Rows of the forward direction that are normalized together; all of them by default.
    lanes : int
        Threads that share the rows.

    Attributes
    ----------
    up, down : list of Normalizer, GroupedNormalizer or None
        Of each layer.
    """

    def __init__(
        self,
        net: Network,
        rows: int,
        second: int,
        members: Array = None,
        groups: Sequence[int] | None = None,
        lanes: int = 1,
    ) -> None:
        self.net, self._any = net, net.statistics_count > 0
        self.up = grouped_normalizers(net, rows, groups, lanes)
        self.down: list[Normalizer | None] = [None] * len(net.layers)
        self._counts: Counts | None = None
        if members is not None and net.statistics_count:
            self._counts = Counts(net.backend, net.dtype, members, second)
        if second:
            down = normalizers(net.reversed, second, counts=self._counts, lanes=lanes)
            self.down = down[::-1]
        self._views: tuple[Any, ...] = (None,)  # of the last call's gradient vector

    def begin(self) -> None:
        """Count each class's samples; the batch must be there."""
        if self._counts is not None:
            self._counts.take()

    # -- what is done to the signals and errors that arrive at a layer, once all rows are there --
    def of_forward_signal(self, k: int, a: Array) -> list[Pass]:
        """Return what normalizes zᵏ in ``a``; nothing where the layer is not normalized."""
        normalizer = self.up[k]
        return [] if normalizer is None else [partial(normalizer.forward, a)]

    def of_backward_signal(self, k: int, c: Array) -> list[Pass]:
        """Return what normalizes uᵏ in ``c``."""
        normalizer = self.down[k]
        return [] if normalizer is None else [partial(normalizer.forward, c)]

    def of_forward_error(self, k: int, delta: Array, first: int = 0) -> list[Pass]:
        """Return what takes the error in ``delta``, rows ``first`` and on, through that of zᵏ."""
        normalizer = self.up[k]
        return [] if normalizer is None else [partial(normalizer.pull_back, delta, first=first)]

    def of_backward_error(self, k: int, e: Array, first: int = 0) -> list[Pass]:
        """Return what takes the error in ``e``, rows ``first`` and on, through that of uᵏ."""
        normalizer = self.down[k]
        return [] if normalizer is None else [partial(normalizer.pull_back, e, first=first)]

    # -- the end of a step -----------------------------------------------------------------------
    def end(self, gradient: Array | None, moves_statistics: bool) -> None:
        """Write ∂/∂β and ∂/∂γ into ``gradient``, and move the running statistics."""
        if self._any:
            if gradient is not None:
                self._write(gradient)
            for normalizer in (*self.up, *self.down) if moves_statistics else ():
                if normalizer is not None:
                    normalizer.update_running()

    def _write(self, gradient: Array) -> None:
        """Zeros for the γ of a direction that is left out."""
        if self._views[0] is not gradient:
            forward, backward = self.net.views(gradient), self.net.reversed.views(gradient)
            pairs = [*zip(forward.biases, forward.gains, strict=True)]
            turned = [*zip(backward.biases, backward.gains, strict=True)][::-1]
            self._views = (gradient, pairs, turned)
        for each, views in ((self.up, self._views[1]), (self.down, self._views[2])):
            for normalizer, (bias, gain) in zip(each, views, strict=True):
                if normalizer is not None:
                    bias[...] = normalizer.bias_gradient
                    gain[...] = normalizer.gain_gradient
                elif gain is not None:
                    gain[...] = 0.0
