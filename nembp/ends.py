"""The ends of a step: what a direction does with its target.

An end holds a direction's readout. Once its pre-activations are there, it records the nll of the
clean target, adds noise to the target where noise is asked for, and writes the error.

:class:`SampleEnd` has one row a sample. :class:`ClassEnd` has one row for each distinct input of a
backward direction, as for a classifier, whose only inputs are its K labels: every likelihood's
error is linear in the target, so the error of row k needs only the sum of the targets of class k,

    Σ_{i in class k} error_i = scale · (mass_k a_k − Σ_{i in class k} t_i),

with mass_k the number of samples in class k (for a multinomial, the sum of their targets).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nembp.backend import Array, Backend
from nembp.likelihoods import Gaussian, Likelihood, Readout
from nembp.noise import NoiseSource

__all__ = ["CLASS_ROWS", "ClassEnd", "Clock", "End", "Memberships", "SampleEnd", "class_rows"]

# Matrix products work through rows in groups, and a last, partial group costs as much as a full
# one, so the class rows are rounded up; a class that no sample has adds nothing to any sum.
CLASS_ROWS = 4

Clock = tuple[int, int]  # epoch and iteration, both counted from 1


class End(Protocol):
    """What a step needs of an end."""

    readout: Readout
    nll: Array
    source: NoiseSource | None
    weight: float

    def error(self, out: Array, clock: Clock) -> None:
        """Write −weight · ∂log p/∂z / samples into ``out``, and the mean nll into ``nll``."""


@dataclass(frozen=True)
class Memberships:
    """The distinct inputs of a backward direction, and which of them each sample has.

    Parameters
    ----------
    inputs : ndarray, shape (classes, outputs)
        On the host.
    members : array, shape (samples, classes)
        On the device, one-hot rows, which may change from step to step. A row of zeros takes no
        part, nor do the samples of a batch beyond the last row.
    """

    inputs: np.ndarray[Any, Any]
    members: Array


class _Mean:
    """Mean nll over samples of a column of log-likelihoods."""

    def __init__(self, backend: Backend, rows: int, samples: int, dtype: str) -> None:
        self._backend, self._samples = backend, samples
        self._ones = backend.ones((1, rows), dtype)

    def __call__(self, column: Array, out: Array) -> None:
        self._backend.sum_column(column, out, -1.0 / self._samples, self._ones)


class SampleEnd:
    """An end with one row a sample.

    Parameters
    ----------
    likelihood : Likelihood
        Of the direction.
    target : array, shape (rows, width)
        The buffer that the clean targets are written into before each step.
    source : NoiseSource, optional
        Noise for the target.
    samples : int, optional
        What sums over rows are divided by; the rows by default.

    Attributes
    ----------
    readout : Readout
        Its ``z`` receives the pre-activations.
    nll : array, shape (1, 1)
        Mean negative log-likelihood of the clean targets, in nats a sample.
    weight : float
        Of the error, not of the nll: 1 climbs log p, −1 descends it.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        likelihood: Likelihood,
        target: Array,
        source: NoiseSource | None = None,
        *,
        samples: int | None = None,
    ) -> None:
        rows, width = target.shape
        self.likelihood, self.source, self.weight = likelihood, source, 1.0
        self.readout = Readout.allocate(backend, rows, width, dtype)
        self.nll = backend.zeros((1, 1), dtype)
        self._backend, self._target, self._samples = backend, target, samples or rows
        self._mean = _Mean(backend, rows, self._samples, dtype)
        self._noisy = backend.empty((rows, width), dtype) if source else None

    def error(self, out: Array, clock: Clock) -> None:
        """Write −weight · ∂log p/∂z / samples into ``out``, and the mean nll into ``nll``."""
        o, target, mass = self.readout, self._target, None
        self._mean(self._backend.link_and_score(self.likelihood, o, target), self.nll)
        if self.source is not None:
            n = self.source(o, target, self.source.noise.std_at(*clock))
            target = self._backend.into(self._noisy, self._backend.xp.add, target, n)
            mass = 1.0 if self.source.noise.update == "published" else None
        factor = self.weight / self._samples
        self._backend.write_error(self.likelihood, o, target, out, mass, factor)


class ClassEnd:
    """An end with one row a class: a distinct input of the direction.

    Parameters
    ----------
    likelihood : Likelihood
        Of the backward direction.
    memberships : Memberships
        The inputs, and the samples of each.
    target : array, shape (rows, width)
        The buffer that the clean targets are written into before each step, a row a sample.
    source : NoiseSource, optional
        Noise for the targets, screened sample by sample, with a row for each of the memberships.
    samples : int, optional
        What sums over samples are divided by; the rows of the memberships by default.

    Attributes
    ----------
    rows : int
        ``classes`` rounded up to a multiple of ``CLASS_ROWS``.
    inputs : array, shape (rows, outputs)
        The input of class k in row k, and zeros in the rows of no class.
    readout, nll, weight
        As in :class:`SampleEnd`.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        likelihood: Likelihood,
        memberships: Memberships,
        target: Array,
        source: NoiseSource | None = None,
        *,
        samples: int | None = None,
    ) -> None:
        members, width = memberships.members, target.shape[1]
        count, classes = members.shape
        self.rows = rows = class_rows(classes)
        self.likelihood, self.source, self.weight = likelihood, source, 1.0
        inputs = np.zeros((rows, memberships.inputs.shape[1]))
        inputs[:classes] = memberships.inputs
        self.inputs = backend.asarray(inputs, dtype)
        self.readout = Readout.allocate(backend, rows, width, dtype)
        self.nll = backend.zeros((1, 1), dtype)
        self._backend, self._target, self._samples = backend, target[:count, :], samples or count
        self._mean = _Mean(backend, rows, self._samples, dtype)
        self._by_class, self._members = members.T, members
        self._ones = backend.ones((count, 1), dtype)
        self._column = backend.empty((count, 1), dtype)
        # rows of no class keep the zeros that they start with
        self._sums = backend.zeros((rows, width), dtype)
        self._counts = backend.zeros((rows, 1), dtype)
        self._squares = backend.zeros((rows, 1), dtype)
        self._class_sums = self._sums[:classes, :]
        self._class_counts = self._counts[:classes, :]
        self._class_squares = self._squares[:classes, :]
        self._per_sample = None
        if source is not None:
            self._per_sample = Readout.allocate(backend, count, width, dtype)
            self._noisy = backend.empty((count, width), dtype)

    def error(self, out: Array, clock: Clock) -> None:
        """Write class sums of −weight · ∂log p/∂z / samples, and the mean nll into ``nll``."""
        o, likelihood = self.readout, self.likelihood
        self._sum_classes()
        sums = self._sums, self._counts, self._squares
        self._mean(self._backend.link_and_score(likelihood, o, *sums), self.nll)
        published = False
        if self.source is not None:
            self._backend.matmul(self._by_class, self._noisy_targets(clock), self._class_sums)
            published = self.source.noise.update == "published"
        own_mass = likelihood.mass_is_target_sum and not published
        mass = None if own_mass else self._counts
        factor = self.weight / self._samples
        self._backend.write_error(likelihood, o, self._sums, out, mass, factor)

    def _sum_classes(self) -> None:
        """Sum over each class its targets, their number and their squares."""
        backend = self._backend
        backend.matmul(self._by_class, self._target, self._class_sums)
        column = None
        if isinstance(self.likelihood, Gaussian):
            backend.row_dot(self._target, self._target, self._column)
            column = self._column
        totals = self._class_counts, column, self._class_squares
        backend.class_totals(self._members, self._ones, *totals)

    def _noisy_targets(self, clock: Clock) -> Array:
        """Add noise to each sample's target, screened under the activation of its class."""
        backend, o, each = self._backend, self.readout, self._per_sample
        source: Any = self.source
        classes = self._members.shape[1]
        backend.matmul(self._members, o.z[:classes, :], each.z)  # type: ignore[union-attr]
        backend.matmul(self._members, o.a[:classes, :], each.a)  # type: ignore[union-attr]
        n = source(each, self._target, source.noise.std_at(*clock))
        return backend.into(self._noisy, backend.xp.add, self._target, n)


def class_rows(classes: int) -> int:
    """Return the rows that ``classes`` take in the class-sum path.

    >>> class_rows(10)
    12
    """
    return -(-classes // CLASS_ROWS) * CLASS_ROWS
