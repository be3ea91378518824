"""What stands at the end of a direction: its readout, and a likelihood's four equations.

:mod:`nembp.engine.likelihoods` has the table of the likelihoods themselves. A new one subclasses
:class:`Likelihood` with ``scale``, ``link``, ``log_likelihood`` and ``gain_terms``; the error
−∂log p/∂z is then scale · (a − t), as backprop invariance has it.

Likelihoods of a direction's end: link, log-likelihood, error, NEM gain.

With pre-activation z, activation a = link(z) and target t:

=========== ======== ================================== ============ ==========================
likelihood  link     log p(t)                           error        gain of target noise n
=========== ======== ================================== ============ ==========================
multinomial softmax  Σ t log a                          a Σt − t     Σ n log a
gaussian    identity −‖t−a‖²/2v − (d/2) log 2πv         (a − t)/v    (‖t−a‖² − ‖t+n−a‖²)/2v
bernoulli   logistic Σ t log a + (1−t) log(1−a)         a − t        Σ n z
=========== ======== ================================== ============ ==========================

error = −∂log p/∂z: the classical update a − t in every row, which is backprop invariance
(Adigun and Kosko 2019, section 3), and gain = log p(t+n) − log p(t).

All three are exponential families, so a sum of log-likelihoods that share one activation depends
on the targets' sum alone (and, for the Gaussian, on their squares). ``mass`` says how many targets
a row of ``t`` sums; that is what the class-sum path of :mod:`nembp.engine.backprop` rests on.

The three classes below are the rows of the table; what they share is in :mod:`nembp.engine.likelihoods`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

from nembp.backend import Array, Backend, get_backend
from nembp.errors import ArchitectureError


@dataclass
class Readout:
    """Buffers of one direction's end for a number of rows.

    Attributes
    ----------
    z, a, scratch : array, shape (rows, width)
        Pre-activation (in the likelihood's normal form after ``link``), activation, work space.
    column, spare : array, shape (rows, 1)
        Per-row results.
    """

    backend: Backend
    z: Array
    a: Array
    scratch: Array
    column: Array
    spare: Array

    @classmethod
    def allocate(cls, backend: Backend, rows: int, width: int, dtype: str) -> Readout:
        """Allocate the buffers, with ``z`` uninitialised."""
        wide = [backend.empty((rows, width), dtype) for _ in range(3)]
        thin = [backend.empty((rows, 1), dtype) for _ in range(2)]
        return cls(backend, *wide, *thin)


@dataclass(frozen=True)
class Likelihood(ABC):
    """log p(t | z) of one direction; subclass it with the four methods below to add one."""

    name: ClassVar[str]
    task: ClassVar[str]  # "classification" or "regression"
    mass_is_target_sum: ClassVar[bool] = False  # the mass of a row is Σt, not its sample count
    class_sums: ClassVar[bool] = True  # Σ log p follows from Σt, mass and Σ‖t‖² (class-sum path)
    gain_is_linear: ClassVar[bool] = False  # in the noise, so NEM screening is a half-space

    @property
    @abstractmethod
    def scale(self) -> float:
        """Factor of a − t in the error: the precision 1/v, or the tempering weight."""

    @property
    def tempering(self) -> float:
        """Power w of a tempered likelihood p(t)ʷ, by which a reported nll is divided."""
        return 1.0

    def log_normalizer(self, width: int) -> float:
        """Part of −log p(t) that depends on neither t nor a, in nats."""
        return 0.0

    @abstractmethod
    def link(self, o: Readout) -> None:
        """Write a = link(z) into ``o.a``; ``o.z`` may be normalised in place."""

    @abstractmethod
    def log_likelihood(
        self, o: Readout, t: Array, mass: Array | None = None, square: Array | None = None
    ) -> Array:
        """Return log p(t) of each row in nats, shape (rows, 1), in ``o.column``.

        With ``mass`` (rows, 1), row i of ``t`` is the sum of ``mass[i]`` targets and ``square[i]``
        the sum of their squared norms; the result is the sum of their log-likelihoods.
        """

    def error(
        self,
        o: Readout,
        t: Array,
        out: Array,
        *,
        mass: Array | float | None = None,
        factor: float = 1.0,
    ) -> None:
        """Write factor · (−∂log p/∂z) = factor · scale · (mass a − t) into ``out``.

        ``mass`` is 1 by default: a row of ``t`` is one target.
        """
        backend, xp = o.backend, o.backend.xp
        a = o.a
        if mass is not None:
            a = backend.into(o.scratch, xp.multiply, a, mass)
        backend.into(out, xp.subtract, a, t)
        backend.into(out, xp.multiply, out, factor * self.scale)

    @abstractmethod
    def gain_terms(self, o: Readout, t: Array, n: Array, out: Array) -> None:
        """Write the summands, one a neuron, of log p(t+n) − log p(t) into ``out``, in nats."""

    def gain_slope(self, o: Readout, t: Array, out: Array) -> None:
        """Write w = ∂gain/∂n at n = 0 into ``out``; the accepted half-space is ⟨n, w⟩ ≥ 0."""
        backend, xp = o.backend, o.backend.xp
        backend.into(out, xp.multiply, o.z, self.scale)

    def multiply_link_derivative(self, o: Readout, error: Array) -> None:
        """Turn ``error`` = ∂/∂a into ∂/∂z in place, for what goes on from the activation.

        Raises
        ------
        ArchitectureError
            If the likelihood does not say; nembp's own do.
        """
        raise ArchitectureError(
            f"{type(self).__name__} has no multiply_link_derivative, which an output that another "
            "network reads needs; write it, or use multinomial, gaussian or bernoulli"
        )

    def at(self, z: Any, backend: Backend | None = None) -> Readout:
        """Return a readout with copies of ``z`` (rows, width) and its activation.

        >>> import numpy as np
        >>> from nembp.engine.likelihoods import Multinomial
        >>> o = Multinomial().at(np.zeros((1, 4)))
        >>> o.a
        array([[0.25, 0.25, 0.25, 0.25]])
        """
        backend = backend or get_backend("cpu")
        z = backend.asarray(z)
        rows, width = z.shape
        o = Readout.allocate(backend, rows, width, str(z.dtype).rpartition(".")[2])
        o.z[...] = z
        self.link(o)
        return o


@dataclass(frozen=True)
class IdentityLink(Likelihood):
    """A likelihood whose activation is the pre-activation itself: a = z, ∂a/∂z = 1."""

    def link(self, o: Readout) -> None:
        """Write a = z into ``o.a``."""
        o.backend.copy(o.z, o.a)

    def multiply_link_derivative(self, o: Readout, error: Array) -> None:
        """Leave ``error`` as it is: ∂/∂z = ∂/∂a."""


@dataclass(frozen=True)
class _Tempered(Likelihood):
    """p(t)ʷ of a family whose log p(t) = Σ t z − A(z) is linear in the target.

    A(z) is the logarithm of the family's normalizer; the gain w Σ n z is free of it.
    """

    weight: float = 1.0
    gain_is_linear = True

    def __post_init__(self) -> None:
        _check_positive("weight", self.weight)

    @property
    def scale(self) -> float:
        return self.weight

    @property
    def tempering(self) -> float:
        return self.weight

    def gain_terms(self, o: Readout, t: Array, n: Array, out: Array) -> None:
        """Write w n z, whose sum is log p(t+n) − log p(t), into ``out``."""
        backend, xp = o.backend, o.backend.xp
        backend.into(out, xp.multiply, n, o.z)
        backend.into(out, xp.multiply, out, self.weight)


@dataclass(frozen=True)
class Multinomial(_Tempered):
    """Classification: softmax activations, log p(t) = w Σ t log a.

    Parameters
    ----------
    weight : float
        Tempering power w of the likelihood (1 is the likelihood itself).
    """

    name = "multinomial"
    task = "classification"
    mass_is_target_sum = True

    def link(self, o: Readout) -> None:
        """Write a = eᶻ / Σ eᶻ into ``o.a``, and log a over ``o.z``."""
        # softmax is blind to a shift of z: after z ← z − max z − log Σ e^(z − max z), z is log a
        backend, xp = o.backend, o.backend.xp
        backend.row_max(o.z, o.column)
        backend.into(o.z, xp.subtract, o.z, o.column)
        backend.into(o.a, xp.exp, o.z)
        backend.row_sum(o.a, o.column)
        backend.into(o.column, xp.log, o.column)
        backend.into(o.z, xp.subtract, o.z, o.column)
        backend.into(o.a, xp.exp, o.z)

    def multiply_link_derivative(self, o: Readout, error: Array) -> None:
        """Write a (e − ⟨e, a⟩), with e = ``error``, over ``error``."""
        backend, xp = o.backend, o.backend.xp
        backend.row_dot(error, o.a, o.column)
        backend.into(error, xp.subtract, error, o.column)
        backend.into(error, xp.multiply, error, o.a)

    def log_likelihood(
        self, o: Readout, t: Array, mass: Array | None = None, square: Array | None = None
    ) -> Array:
        """Return w ⟨t, log a⟩; a sum of targets is told by ``t`` alone."""
        o.backend.row_dot(t, o.z, o.column)
        return o.backend.into(o.column, o.backend.xp.multiply, o.column, self.weight)

    def error(
        self,
        o: Readout,
        t: Array,
        out: Array,
        *,
        mass: Array | float | None = None,
        factor: float = 1.0,
    ) -> None:
        """Write factor · w · (a Σt − t), the exact error also of targets that do not sum to one.

        An explicit ``mass`` takes the place of Σt: 1 gives the published update a − t.
        """
        if mass is None:
            mass = o.backend.row_sum(t, o.column)
        super().error(o, t, out, mass=mass, factor=factor)


@dataclass(frozen=True)
class Gaussian(IdentityLink):
    """Regression: log p(t) = −‖t−a‖²/2v − (d/2) log 2πv.

    Parameters
    ----------
    variance : float
        v; its inverse weighs this direction against the other.
    """

    name = "gaussian"
    task = "regression"
    variance: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("variance", self.variance)

    @property
    def scale(self) -> float:
        return 1.0 / self.variance

    def log_likelihood(
        self, o: Readout, t: Array, mass: Array | None = None, square: Array | None = None
    ) -> Array:
        """Return −‖t − a‖²/2v − (d/2) log 2πv, d the width.

        Of ``mass`` targets with sum t: −(mass ‖a‖² − 2 ⟨a, t⟩ + square)/2v − mass (d/2) log 2πv.
        """
        backend, xp, column = o.backend, o.backend.xp, o.column
        width = o.a.shape[1]
        if mass is None:  # ‖t − a‖² by the difference itself: the sum below would cancel
            backend.into(o.scratch, xp.subtract, t, o.a)
            backend.row_dot(o.scratch, o.scratch, column)
            backend.into(column, xp.multiply, column, -0.5 / self.variance)
            return backend.into(column, xp.subtract, column, self.log_normalizer(width))
        backend.into(o.scratch, xp.multiply, o.a, mass)
        backend.into(o.scratch, xp.subtract, o.scratch, t)
        backend.into(o.scratch, xp.subtract, o.scratch, t)
        backend.row_dot(o.a, o.scratch, column)  # ⟨a, mass a − 2 t⟩
        backend.into(column, xp.add, column, square)
        backend.into(column, xp.multiply, column, -0.5 / self.variance)
        backend.into(o.spare, xp.multiply, mass, self.log_normalizer(width))
        return backend.into(column, xp.subtract, column, o.spare)

    def log_normalizer(self, width: int) -> float:
        """Return (d/2) log 2πv in nats, d the width."""
        return 0.5 * width * math.log(2.0 * math.pi * self.variance)

    def gain_terms(self, o: Readout, t: Array, n: Array, out: Array) -> None:
        """Write n (2 (a − t) − n)/2v, whose sum is (‖t−a‖² − ‖t+n−a‖²)/2v, into ``out``."""
        backend, xp = o.backend, o.backend.xp
        backend.into(out, xp.subtract, o.a, t)
        backend.into(out, xp.multiply, out, 2.0)
        backend.into(out, xp.subtract, out, n)
        backend.into(out, xp.multiply, out, n)
        backend.into(out, xp.multiply, out, 0.5 / self.variance)

    def gain_slope(self, o: Readout, t: Array, out: Array) -> None:
        """Write w = (a − t)/v into ``out``: the gain is ⟨n, w⟩ − ‖n‖²/2v, a ball about v w."""
        backend, xp = o.backend, o.backend.xp
        backend.into(out, xp.subtract, o.a, t)
        backend.into(out, xp.multiply, out, self.scale)


@dataclass(frozen=True)
class Bernoulli(_Tempered):
    """Independent logistic neurons: log p(t) = w Σ [t z − log(1 + eᶻ)], t in [0, 1].

    Parameters
    ----------
    weight : float
        Tempering power w of the likelihood (1 is the likelihood itself).
    """

    name = "bernoulli"
    task = "regression"

    def link(self, o: Readout) -> None:
        """Write a = 1 / (1 + e⁻ᶻ) = (1 + tanh(z/2)) / 2, which never overflows, into ``o.a``."""
        backend, xp = o.backend, o.backend.xp
        backend.into(o.a, xp.multiply, o.z, 0.5)
        backend.into(o.a, xp.tanh, o.a)
        backend.into(o.a, xp.multiply, o.a, 0.5)
        backend.into(o.a, xp.add, o.a, 0.5)

    def multiply_link_derivative(self, o: Readout, error: Array) -> None:
        """Write e a (1 − a), with e = ``error``, over ``error``."""
        backend, xp = o.backend, o.backend.xp
        backend.into(o.scratch, xp.multiply, o.a, o.a)
        backend.into(o.scratch, xp.subtract, o.a, o.scratch)
        backend.into(error, xp.multiply, error, o.scratch)

    def log_likelihood(
        self, o: Readout, t: Array, mass: Array | None = None, square: Array | None = None
    ) -> Array:
        """Return w Σ [t z − mass log(1 + eᶻ)]."""
        backend, xp, column = o.backend, o.backend.xp, o.column
        backend.softplus(o.z, o.scratch)
        backend.row_sum(o.scratch, o.spare)
        if mass is not None:
            backend.into(o.spare, xp.multiply, o.spare, mass)
        backend.row_dot(t, o.z, column)
        backend.into(column, xp.subtract, column, o.spare)
        return backend.into(column, xp.multiply, column, self.weight)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    kind.name: kind for kind in (Multinomial, Gaussian, Bernoulli)
}


def get_likelihood(likelihood: str | Likelihood, weight: float = 1.0) -> Likelihood:
    """Return the likelihood of a name; a :class:`Likelihood` is returned as it is.

    ``weight`` is the Gaussian's precision 1/v, or the tempering power of the other two.

    >>> get_likelihood("gaussian", weight=0.1)
    Gaussian(variance=10.0)
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    _check_positive("weight", weight)
    if likelihood == "gaussian":
        return Gaussian(variance=1.0 / weight)
    if likelihood == "multinomial":
        return Multinomial(weight=weight)
    if likelihood == "bernoulli":
        return Bernoulli(weight=weight)
    known = ", ".join(LIKELIHOODS)
    raise ArchitectureError(f"likelihood must be one of {known}, got {likelihood!r}")


def _check_positive(name: str, value: float) -> None:
    if not isinstance(value, Real) or not (0.0 < value < math.inf):
        raise ArchitectureError(f"{name} must be a positive, finite number, got {value!r}")
