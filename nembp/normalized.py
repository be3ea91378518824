"""The normalized layers of a training step, in both directions (:mod:`nembp.normalization`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from nembp.backend import Array, Backend
from nembp.grouped import grouped_normalizers
from nembp.links import After
from nembp.network import Network
from nembp.normalization import Normalizer, normalizers

__all__ = ["Counts", "NormalizedLayers", "Pass"]


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
