"""Activations of hidden neurons, each with its derivative beside it.

An activation works in place: ``activate`` turns a pre-activation z into a = f(z), and
``multiply_derivative`` turns an error with respect to a into one with respect to z,
error ← error ∘ f'(z). f' is written in terms of a, which is kept for the gradient anyway; z is
overwritten by it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from nembp.backend import Array, Backend
from nembp.errors import ArchitectureError


@dataclass(frozen=True)
class Activation(ABC):
    """A neuron's function f; subclass it with the two methods below to add one."""

    name: ClassVar[str]
    analytic: ClassVar[bool] = True  # complex steps apply
    saturates: ClassVar[bool] = False  # f' is at most 1/4 or vanishes on both sides
    piecewise_linear: ClassVar[bool] = False  # f'' = 0

    @abstractmethod
    def activate(self, backend: Backend, z: Array, scratch: Array) -> None:
        """Write a = f(z) over ``z`` (rows, neurons); ``scratch`` has the same shape."""

    @abstractmethod
    def multiply_derivative(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        """Write error ∘ f'(z) over ``error``, f' in terms of ``a`` = f(z)."""

    def multiply_curvature(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        """Write error ∘ f''(z)/f'(z) over ``error``, in terms of ``a``.

        Only where second derivatives are wanted: for a gradient penalty
        (:mod:`nembp.adversarial.penalty`), by activations that are not ``piecewise_linear``.

        Raises
        ------
        ArchitectureError
            If the activation does not say; nembp's own do.
        """
        raise ArchitectureError(
            f"{type(self).__name__} has no multiply_curvature, which a gradient penalty needs; "
            "write it, or set piecewise_linear = True where f'' is zero"
        )


@dataclass(frozen=True)
class Identity(Activation):
    """f(z) = z, f' = 1."""

    name = "identity"
    piecewise_linear = True

    def activate(self, backend: Backend, z: Array, scratch: Array) -> None:
        pass

    def multiply_derivative(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        pass


@dataclass(frozen=True)
class Logistic(Activation):
    """f(z) = 1 / (1 + e⁻ᶻ) = (1 + tanh(z/2)) / 2, which never overflows; f' = a (1 − a)."""

    name = "logistic"
    saturates = True

    def activate(self, backend: Backend, z: Array, scratch: Array) -> None:
        xp = backend.xp
        backend.into(z, xp.multiply, z, 0.5)
        backend.into(z, xp.tanh, z)
        backend.into(z, xp.multiply, z, 0.5)
        backend.into(z, xp.add, z, 0.5)

    def multiply_derivative(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        xp = backend.xp
        backend.into(scratch, xp.multiply, a, a)
        backend.into(scratch, xp.subtract, a, scratch)
        backend.into(error, xp.multiply, error, scratch)

    def multiply_curvature(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        xp = backend.xp  # f'' = a (1 − a) (1 − 2a)
        backend.into(scratch, xp.multiply, a, -2.0)
        backend.into(scratch, xp.add, scratch, 1.0)
        backend.into(error, xp.multiply, error, scratch)


@dataclass(frozen=True)
class Tanh(Activation):
    """f(z) = tanh z, f' = 1 − a²."""

    name = "tanh"
    saturates = True

    def activate(self, backend: Backend, z: Array, scratch: Array) -> None:
        backend.into(z, backend.xp.tanh, z)

    def multiply_derivative(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        xp = backend.xp
        backend.into(scratch, xp.multiply, a, a)
        backend.into(scratch, xp.multiply, scratch, error)
        backend.into(error, xp.subtract, error, scratch)

    def multiply_curvature(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        xp = backend.xp  # f'' = −2a (1 − a²)
        backend.into(scratch, xp.multiply, a, -2.0)
        backend.into(error, xp.multiply, error, scratch)


@dataclass(frozen=True)
class ReLU(Activation):
    """f(z) = max(z, 0), f' = [a > 0] (0 at the kink)."""

    name = "relu"
    analytic = False
    piecewise_linear = True

    def activate(self, backend: Backend, z: Array, scratch: Array) -> None:
        backend.rectify(z)

    def multiply_derivative(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        backend.keep_where_positive(error, a, scratch)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """f(z) = max(z, slope · z) with 0 < slope < 1; f' = 1 where a > 0, slope elsewhere."""

    name = "leaky-relu"
    analytic = False
    piecewise_linear = True
    slope: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.slope < 1.0:
            raise ArchitectureError(f"leaky-relu needs 0 < slope < 1, got {self.slope}")

    def activate(self, backend: Backend, z: Array, scratch: Array) -> None:
        xp = backend.xp
        backend.into(scratch, xp.multiply, z, self.slope)
        backend.into(z, xp.maximum, z, scratch)

    def multiply_derivative(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        # with 0 < slope < 1, f' = clip(sign(a), slope, 1), and sign(a) = sign(z)
        xp = backend.xp
        backend.into(scratch, xp.sign, a)
        backend.into(scratch, xp.maximum, scratch, self.slope)
        backend.into(error, xp.multiply, error, scratch)


ACTIVATIONS: dict[str, type[Activation]] = {
    kind.name: kind for kind in (ReLU, LeakyReLU, Tanh, Logistic, Identity)
}


def get_activation(activation: str | Activation) -> Activation:
    """Return the activation of a name; an :class:`Activation` is returned as it is.

    >>> get_activation("tanh")
    Tanh()
    """
    if isinstance(activation, Activation):
        return activation
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ArchitectureError(f"activation must be one of {known}, got {activation!r}")
    return ACTIVATIONS[activation]()
