"""Likelihoods at the ends of a network: output activation, log-likelihood, error, NEM gain.

With pre-activation z, output activation a and target t:

=========== ========== ================================== ============ ==========================
likelihood  activation log p(t)                           error        gain of target noise n
=========== ========== ================================== ============ ==========================
multinomial softmax    Σ t log a                          a Σt − t     Σ n log a
gaussian    identity   −‖t−a‖²/2v − (d/2) log 2πv         (a − t)/v    (‖t−a‖² − ‖t+n−a‖²)/2v
bernoulli   logistic   Σ t log a + (1−t) log(1−a)         a − t        Σ n z
bipolar     tanh       Σ t z − log 2 cosh z               a − t        Σ n z
=========== ========== ================================== ============ ==========================

error = −∂log p/∂z: the classical update a − t in every row, which is backprop invariance
(Adigun and Kosko 2019, section 3), and gain = log p(t+n) − log p(t).

All are exponential families, so the sum of the log-likelihoods of several targets that share
one activation depends on the targets' sum alone (for the Gaussian, on their squares too).
``counts`` says how many targets a row of ``t`` sums: the class-sum path of
:mod:`nembp.engine.backprop` rests on that.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

from nembp.backend import Array, Backend, get_backend
from nembp.engine.activations import Activation, Identity, Logistic, Tanh
from nembp.errors import ArchitectureError, check_choice


class Readout:
    """Uninitialised buffers at one direction's output: (rows, width), (rows, 1) for each row's."""

    def __init__(self, backend: Backend, rows: int, width: int, dtype: str) -> None:
        wide, thin = (rows, width), (rows, 1)
        self.backend = backend
        self.z: Array = backend.empty(wide, dtype)  # pre-activation; `activate` may normalize it
        self.a: Array = backend.empty(wide, dtype)  # output activation
        self.scratch: Array = backend.empty(wide, dtype)
        self.column: Array = backend.empty(thin, dtype)
        self.spare: Array = backend.empty(thin, dtype)


@dataclass(frozen=True)
class Likelihood(ABC):
    """log p(t | z) of one direction.

    To add one, subclass it with ``activate``, ``log_likelihood`` and ``gain_terms``; the error is
    then scale · (a − t), as backprop invariance has it.
    """

    name: ClassVar[str]
    kernel: ClassVar[str | None] = None  # of a device that does several of the methods in one pass
    class_sums: ClassVar[bool] = True  # Σ log p follows from Σt, counts and Σ‖t‖²
    counts_are_target_sums: ClassVar[bool] = False  # a row counts as Σt, not as its samples
    gain_is_linear: ClassVar[bool] = False  # in the noise, so NEM screening is a half-space

    @property
    def scale(self) -> float:
        """Factor of a − t in the error: the precision 1/v, or the tempering weight."""
        return 1.0

    @property
    def tempering(self) -> float:
        """Power w of a tempered likelihood p(t)ʷ, by which a reported nll is divided."""
        return 1.0

    def log_normalizer(self, width: int) -> float:
        """Part of −log p(t) that depends on neither t nor a, in nats."""
        return 0.0

    @abstractmethod
    def activate(self, o: Readout) -> None:
        """Write the output activation of ``o.z`` into ``o.a``; ``o.z`` may be normalized."""

    @abstractmethod
    def log_likelihood(self, o: Readout, t: Array, counts: Any = None, squares: Any = None) -> Any:
        """Return log p(t) of each row in nats, shape (rows, 1), in ``o.column``.

        With ``counts`` (rows, 1), row i of ``t`` is the sum of ``counts[i]`` targets and
        ``squares[i]`` the sum of their squared norms; the result is the sum of their
        log-likelihoods.
        """

    def error(
        self, o: Readout, t: Array, out: Array, *, counts: Any = None, factor: float = 1.0
    ) -> None:
        """Write factor · (−∂log p/∂z) = factor · scale · (counts a − t) into ``out``.

        Without ``counts`` a row of ``t`` is one target; or where ``counts_are_target_sums``, Σt of
        them, the exact error also of noisy targets that do not sum to one. Explicit counts of 1
        give the published update a − t.
        """
        xp, a = o.backend.xp, o.a
        if counts is None and self.counts_are_target_sums:
            counts = o.backend.row_sum(t, o.column)
        if counts is not None:
            a = xp.multiply(a, counts, out=o.scratch)
        xp.subtract(a, t, out=out)
        out *= factor * self.scale

    @abstractmethod
    def gain_terms(self, o: Readout, t: Array, n: Array, out: Array) -> None:
        """Write the summands, one a unit, of log p(t+n) − log p(t) into ``out``, in nats."""

    def gain_slope(self, o: Readout, t: Array, out: Array) -> None:
        """Write w = ∂gain/∂n at n = 0 into ``out``; the accepted half-space is ⟨n, w⟩ ≥ 0."""
        o.backend.xp.multiply(o.z, self.scale, out=out)

    def multiply_derivative(self, o: Readout, error: Array) -> None:
        """Turn ``error`` = ∂/∂a into ∂/∂z in place, where another network reads the output."""
        raise ArchitectureError(
            f"{type(self).__name__} has no multiply_derivative, which an output that another "
            "network reads needs; write it, or use multinomial, gaussian or bernoulli"
        )

    def at(self, z: Any, backend: Backend | None = None) -> Readout:
        """Return a readout with copies of ``z`` (rows, width) and its activation.

        >>> import numpy as np
        >>> Multinomial().at(np.zeros((1, 4))).a
        array([[0.25, 0.25, 0.25, 0.25]])
        """
        backend = backend or get_backend("cpu")
        z = backend.asarray(z)
        rows, width = z.shape
        o = Readout(backend, rows, width, str(z.dtype).rpartition(".")[2])
        o.z[...] = z
        self.activate(o)
        return o


@dataclass(frozen=True)
class UnitByUnit(Likelihood):
    """A likelihood with an activation of each unit by itself, a = f(z)."""

    output: ClassVar[Activation] = Identity()

    def activate(self, o: Readout) -> None:
        o.a[...] = o.z
        self.output.activate(o.backend, o.a, o.scratch)

    def multiply_derivative(self, o: Readout, error: Array) -> None:
        self.output.multiply_derivative(o.backend, error, o.a, o.scratch)


class _Linear(Likelihood):
    """A family whose log p(t) = scale · Σ [t z − A(z)] is linear in the target.

    The gain scale · Σ n z is free of A, the log-partition function.
    """

    gain_is_linear = True

    def log_partition(self, o: Readout) -> Array:
        """Return A(z) of each unit, in ``o.scratch``; None where z is normalized."""

    def log_likelihood(self, o: Readout, t: Array, counts: Any = None, squares: Any = None) -> Any:
        """Return scale · Σ [t z − counts A(z)]."""
        backend, column, spare = o.backend, o.column, o.spare
        A = self.log_partition(o)
        backend.row_dot(t, o.z, column)
        if A is not None:
            backend.row_sum(A, spare)
            if counts is not None:
                spare *= counts
            column -= spare
        column *= self.scale
        return column

    def gain_terms(self, o: Readout, t: Array, n: Array, out: Array) -> None:
        o.backend.xp.multiply(n, o.z, out=out)
        out *= self.scale


@dataclass(frozen=True)
class _Tempered(_Linear):
    """p(t)ʷ of such a family, w = ``weight``; w = 1 is the likelihood itself."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("weight", self.weight)

    @property
    def scale(self) -> float:
        return self.weight

    @property
    def tempering(self) -> float:
        return self.weight


@dataclass(frozen=True)
class Multinomial(_Tempered):
    """Classification: softmax activations, log p(t) = w Σ t log a, w = ``weight``."""

    name = kernel = "multinomial"
    counts_are_target_sums = True

    def activate(self, o: Readout) -> None:
        """Write a = eᶻ / Σ eᶻ into ``o.a``, and log a over ``o.z``."""
        # softmax is blind to a shift of z: after z ← z − max z − log Σ e^(z − max z), z is log a
        xp, z, a, column = o.backend.xp, o.z, o.a, o.column
        z -= o.backend.row_max(z, column)
        xp.exp(z, out=a)
        o.backend.row_sum(a, column)
        z -= xp.log(column, out=column)
        xp.exp(z, out=a)

    def multiply_derivative(self, o: Readout, error: Array) -> None:
        """Write a (e − ⟨e, a⟩), with e = ``error``, over ``error``."""
        error -= o.backend.row_dot(error, o.a, o.column)
        error *= o.a


@dataclass(frozen=True)
class Gaussian(UnitByUnit):
    """Regression: log p(t) = −‖t−a‖²/2v − (d/2) log 2πv, d the width, v = ``variance``.

    1/v weighs this direction against the other.
    """

    name = kernel = "gaussian"
    variance: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("variance", self.variance)

    @property
    def scale(self) -> float:
        return 1.0 / self.variance

    def log_likelihood(self, o: Readout, t: Array, counts: Any = None, squares: Any = None) -> Any:
        """Return −(counts ‖a‖² − 2 ⟨a, t⟩ + squares)/2v − counts (d/2) log 2πv."""
        backend, xp, column = o.backend, o.backend.xp, o.column
        width = o.a.shape[1]
        if counts is None:  # ‖t − a‖² by the difference itself: the sum below would cancel
            xp.subtract(t, o.a, out=o.scratch)
            backend.row_dot(o.scratch, o.scratch, column)
            column *= -0.5 / self.variance
            column -= self.log_normalizer(width)
            return column
        xp.multiply(o.a, counts, out=o.scratch)
        o.scratch -= t
        o.scratch -= t
        backend.row_dot(o.a, o.scratch, column)  # ⟨a, counts a − 2 t⟩
        column += squares
        column *= -0.5 / self.variance
        column -= xp.multiply(counts, self.log_normalizer(width), out=o.spare)
        return column

    def log_normalizer(self, width: int) -> float:
        return 0.5 * width * math.log(2.0 * math.pi * self.variance)

    def gain_terms(self, o: Readout, t: Array, n: Array, out: Array) -> None:
        """Write n (2 (a − t) − n)/2v, whose sum is (‖t−a‖² − ‖t+n−a‖²)/2v, into ``out``."""
        o.backend.xp.subtract(o.a, t, out=out)
        out *= 2.0
        out -= n
        out *= n
        out *= 0.5 / self.variance

    def gain_slope(self, o: Readout, t: Array, out: Array) -> None:
        """Write w = (a − t)/v into ``out``: the gain is ⟨n, w⟩ − ‖n‖²/2v, a ball about v w."""
        o.backend.xp.subtract(o.a, t, out=out)
        out *= self.scale


@dataclass(frozen=True)
class Bernoulli(UnitByUnit, _Tempered):
    """Independent logistic units: log p(t) = w Σ [t z − log(1 + eᶻ)], t in [0, 1]."""

    name = kernel = "bernoulli"
    output = Logistic()

    def log_partition(self, o: Readout) -> Array:
        """Return log(1 + eᶻ)."""
        return o.backend.softplus(o.z, o.scratch)


@dataclass(frozen=True)
class Score(UnitByUnit, _Linear):
    """A critic's objective Σ t f(x), with t = 1 for real and t = −1 for generated samples.

    It has a likelihood's methods, log p(t) = Σ t z up to what makes it none: eᵗᶻ has no finite
    sum over t. Error −t, identity activation; noise on a critic's input is kept where it raises
    t f(x), which is f(x+n) ≥ f(x) for real samples and f(g+n) ≤ f(g) for generated ones.

    >>> import numpy as np
    >>> o = Score().at(np.array([[2.0], [5.0]]))
    >>> Score().log_likelihood(o, np.array([[1.0], [-1.0]]))[:, 0]
    array([ 2., -5.])
    """

    name = "score"

    def error(
        self, o: Readout, t: Array, out: Array, *, counts: Any = None, factor: float = 1.0
    ) -> None:
        o.backend.xp.multiply(t, -factor, out=out)


@dataclass(frozen=True)
class Bipolar(UnitByUnit, _Tempered):
    """Independent units of two signs: log p(t) = w Σ [t z − log 2 cosh z], t in [−1, 1].

    The Bernoulli of (t+1)/2 with logit 2z.
    """

    name = kernel = "bipolar"
    output = Tanh()

    def log_partition(self, o: Readout) -> Array:
        """Return log 2 cosh z = log(1 + e²ᶻ) − z."""
        o.backend.xp.multiply(o.z, 2.0, out=o.scratch)
        o.backend.softplus(o.scratch, o.scratch)
        o.scratch -= o.z
        return o.scratch


LIKELIHOODS: dict[str, type[Likelihood]] = {
    kind.name: kind for kind in (Multinomial, Gaussian, Bernoulli, Bipolar)
}


def get_likelihood(likelihood: str | Likelihood, weight: float = 1.0) -> Likelihood:
    """Return the likelihood of a name; a :class:`Likelihood` is returned as it is.

    ``weight`` is the Gaussian's precision 1/v, or the tempering power of the others.

    >>> get_likelihood("gaussian", weight=0.1)
    Gaussian(variance=10.0)
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    _check_positive("weight", weight)
    check_choice("likelihood", likelihood, LIKELIHOODS)
    if likelihood == "gaussian":
        return Gaussian(variance=1.0 / weight)
    made: Any = LIKELIHOODS[likelihood]
    return made(weight=weight)  # type: ignore[no-any-return]


def _check_positive(name: str, value: float) -> None:
    if not isinstance(value, Real) or not (0.0 < value < math.inf):
        raise ArchitectureError(f"{name} must be a positive, finite number, got {value!r}")
