"""What stands at the end of a direction: its readout, and a likelihood's four equations.

:mod:`nembp.likelihoods` has the table of the likelihoods themselves. A new one subclasses
:class:`Likelihood` with ``scale``, ``link``, ``log_likelihood`` and ``gain_terms``; the error
−∂log p/∂z is then scale · (a − t), as backprop invariance has it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from nembp.backend import Array, Backend, get_backend
from nembp.errors import ArchitectureError

__all__ = ["IdentityLink", "Likelihood", "Readout"]


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
        >>> from nembp.likelihoods import Multinomial
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
