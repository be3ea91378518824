"""The ends of a step: what a direction does with its target.

An end holds a direction's readout. Once its pre-activations are there, it records the nll of the
clean target, adds noise to the target where noise is asked for, and writes the error.

:class:`SampleEnd` has one row a sample. :class:`ClassEnd` has one row a class, for the backward
direction of a classifier, whose only inputs are its K labels: every likelihood's error is linear
in the target, so the error of row k needs only the sum of the targets of class k,

    Σ_{i in class k} error_i = scale · (mass_k a_k − Σ_{i in class k} t_i),

with mass_k the number of samples in class k (for a multinomial, the sum of their targets).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from nembp.backend import Array, Backend
from nembp.likelihoods import Gaussian, Likelihood, Readout
from nembp.noise import NoiseSource

__all__ = ["CLASS_ROWS", "ClassEnd", "End", "SampleEnd"]

# Matrix products work through rows in groups, and a last, partial group costs as much as a full
# one, so the class rows are rounded up; a class that no sample has adds nothing to any sum.
CLASS_ROWS = 4

Clock = tuple[int, int]  # epoch and iteration, both counted from 1


class End(Protocol):
    """What :class:`~nembp.backpropagation.JointBackpropagation` needs of an end."""

    readout: Readout
    nll: Array
    source: NoiseSource | None
    inputs: Array | None

    def error(self, out: Array, clock: Clock) -> None:
        """Write the error −∂log p/∂z / samples into ``out``, and the mean nll into ``nll``."""


class _Mean:
    """Mean nll over samples of a column of log-likelihoods."""

    def __init__(self, backend: Backend, rows: int, samples: int, dtype: str) -> None:
        self._backend, self._samples = backend, samples
        self._ones = backend.ones((1, rows), dtype)

    def __call__(self, column: Array, out: Array) -> None:
        self._backend.matmul(self._ones, column, out)
        self._backend.into(out, self._backend.xp.multiply, out, -1.0 / self._samples)


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

    Attributes
    ----------
    readout : Readout
        Its ``z`` receives the pre-activations.
    inputs : array or None
        Constant inputs of the direction; None here, where they are the batch's.
    nll : array, shape (1, 1)
        Mean negative log-likelihood of the clean targets, in nats a sample.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        likelihood: Likelihood,
        target: Array,
        source: NoiseSource | None = None,
    ) -> None:
        rows, width = target.shape
        self.likelihood, self.source, self.inputs = likelihood, source, None
        self.readout = Readout.allocate(backend, rows, width, dtype)
        self.nll = backend.zeros((1, 1), dtype)
        self._backend, self._target, self._rows = backend, target, rows
        self._mean = _Mean(backend, rows, rows, dtype)
        self._noisy = backend.empty((rows, width), dtype) if source else None

    def error(self, out: Array, clock: Clock) -> None:
        """Write the error −∂log p/∂z / rows into ``out``, and the mean nll into ``nll``."""
        o, target, mass = self.readout, self._target, None
        self.likelihood.link(o)
        self._mean(self.likelihood.log_likelihood(o, target), self.nll)
        if self.source is not None:
            n = self.source(o, target, self.source.noise.std_at(*clock))
            target = self._backend.into(self._noisy, self._backend.xp.add, target, n)
            mass = 1.0 if self.source.noise.update == "published" else None
        self.likelihood.error(o, target, out, mass=mass, factor=1.0 / self._rows)


class ClassEnd:
    """An end with one row a class, exact when every row of ``one_hot`` is one.

    Parameters
    ----------
    likelihood : Likelihood
        Of the backward direction.
    one_hot : array, shape (samples, classes)
        The labels, written before each step.
    target : array, shape (samples, width)
        The buffer that the clean targets are written into before each step.
    source : NoiseSource, optional
        Noise for the targets, screened sample by sample.

    Attributes
    ----------
    rows : int
        ``classes`` rounded up to a multiple of ``CLASS_ROWS``.
    inputs : array, shape (rows, classes)
        e_k in row k, and zeros in the rows of no class.
    readout, nll
        As in :class:`SampleEnd`.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        likelihood: Likelihood,
        one_hot: Array,
        target: Array,
        source: NoiseSource | None = None,
    ) -> None:
        (samples, classes), width = one_hot.shape, target.shape[1]
        self.rows = rows = class_rows(classes)
        self.likelihood, self.source = likelihood, source
        self.inputs = backend.asarray(np.eye(rows, classes), dtype)
        self.readout = Readout.allocate(backend, rows, width, dtype)
        self.nll = backend.zeros((1, 1), dtype)
        self._backend, self._target, self._samples = backend, target, samples
        self._mean = _Mean(backend, rows, samples, dtype)
        self._by_class, self._one_hot = one_hot.T, one_hot
        self._ones = backend.ones((samples, 1), dtype)
        # rows of no class keep the zeros that they start with
        self._sums = backend.zeros((rows, width), dtype)
        self._counts = backend.zeros((rows, 1), dtype)
        self._squares = backend.zeros((rows, 1), dtype)
        self._class_sums = self._sums[:classes, :]
        self._class_counts = self._counts[:classes, :]
        self._flat = [backend.xp.reshape(target, shape) for shape in ((1, -1), (-1, 1))]
        self._per_sample = None
        if source is not None:
            self._per_sample = Readout.allocate(backend, samples, width, dtype)
            self._noisy = backend.empty((samples, width), dtype)

    def error(self, out: Array, clock: Clock) -> None:
        """Write the class sums of −∂log p/∂z / samples into ``out``, the mean nll into ``nll``."""
        o, likelihood = self.readout, self.likelihood
        likelihood.link(o)
        self._sum_classes()
        log_p = likelihood.log_likelihood(o, self._sums, self._counts, self._squares)
        self._mean(log_p, self.nll)
        published = False
        if self.source is not None:
            self._backend.matmul(self._by_class, self._noisy_targets(clock), self._class_sums)
            published = self.source.noise.update == "published"
        own_mass = likelihood.mass_is_target_sum and not published
        mass = None if own_mass else self._counts
        likelihood.error(o, self._sums, out, mass=mass, factor=1.0 / self._samples)

    def _sum_classes(self) -> None:
        """Sum over each class its targets and their number; the squares over all classes.

        Only the total of the squares enters the nll, so one row may hold all of it.
        """
        backend = self._backend
        backend.matmul(self._by_class, self._target, self._class_sums)
        backend.matmul(self._by_class, self._ones, self._class_counts)
        if isinstance(self.likelihood, Gaussian):
            row, column = self._flat
            backend.matmul(row, column, self._squares[:1, :])

    def _noisy_targets(self, clock: Clock) -> Array:
        """Add noise to each sample's target, screened under the activation of its class."""
        backend, o, each = self._backend, self.readout, self._per_sample
        source: Any = self.source
        classes = self._one_hot.shape[1]
        backend.matmul(self._one_hot, o.z[:classes, :], each.z)  # type: ignore[union-attr]
        backend.matmul(self._one_hot, o.a[:classes, :], each.a)  # type: ignore[union-attr]
        n = source(each, self._target, source.noise.std_at(*clock))
        return backend.into(self._noisy, backend.xp.add, self._target, n)


def class_rows(classes: int) -> int:
    """Return the rows that ``classes`` take in the class-sum path.

    >>> class_rows(10)
    12
    """
    return -(-classes // CLASS_ROWS) * CLASS_ROWS
