"""Activations of hidden layers, each with its derivative beside it.

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
from nembp.errors import ArchitectureError, check_choice


@dataclass(frozen=True)
class Activation(ABC):
    """The function f of a layer; subclass it with the two abstract methods to add one."""

    name: ClassVar[str]
    kernel: ClassVar[str | None] = None  # of a device that does f or f' in one pass
    analytic: ClassVar[bool] = True  # complex steps apply
    piecewise_linear: ClassVar[bool] = False  # f'' = 0

    @abstractmethod
    def activate(self, backend: Backend, z: Array, scratch: Array) -> None:
        """Write a = f(z) over ``z`` (rows, units); ``scratch`` has the same shape."""

    @abstractmethod
    def multiply_derivative(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        """Write error ∘ f'(z) over ``error``, f' in terms of ``a`` = f(z)."""

    def multiply_curvature(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        """Write error ∘ f''(z)/f'(z) over ``error``, in terms of ``a``.

        Only for a gradient penalty (:mod:`nembp.adversarial`), whose gradient needs second
        derivatives, and only of activations that are not ``piecewise_linear``.
        """
        raise ArchitectureError(
            f"{type(self).__name__} has no multiply_curvature, which a gradient penalty needs; "
            "write it, or set piecewise_linear = True where f'' is zero"
        )


class Identity(Activation):
    """f(z) = z, f' = 1."""

    name = kernel = "identity"
    piecewise_linear = True

    def activate(self, backend: Backend, z: Array, scratch: Array) -> None:
        pass

    def multiply_derivative(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        pass


class Logistic(Activation):
    """f(z) = 1 / (1 + e⁻ᶻ) = (1 + tanh(z/2)) / 2, which never overflows; f' = a (1 − a)."""

    name = kernel = "logistic"

    def activate(self, backend: Backend, z: Array, scratch: Array) -> None:
        z *= 0.5
        backend.xp.tanh(z, out=z)
        z *= 0.5
        z += 0.5

    def multiply_derivative(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        xp = backend.xp
        xp.multiply(a, a, out=scratch)
        xp.subtract(a, scratch, out=scratch)
        error *= scratch

    def multiply_curvature(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        backend.xp.multiply(a, -2.0, out=scratch)  # f'' = a (1 − a) (1 − 2a)
        scratch += 1.0
        error *= scratch


class Tanh(Activation):
    """f(z) = tanh z, f' = 1 − a²."""

    name = kernel = "tanh"

    def activate(self, backend: Backend, z: Array, scratch: Array) -> None:
        backend.xp.tanh(z, out=z)

    def multiply_derivative(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        backend.xp.multiply(a, a, out=scratch)
        scratch *= error
        error -= scratch

    def multiply_curvature(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        backend.xp.multiply(a, -2.0, out=scratch)  # f'' = −2a (1 − a²)
        error *= scratch


class ReLU(Activation):
    """f(z) = max(z, 0), f' = [a > 0] (0 at the kink)."""

    name = kernel = "relu"
    analytic = False
    piecewise_linear = True

    def activate(self, backend: Backend, z: Array, scratch: Array) -> None:
        # an array of zeros, since NumPy's maximum with a scalar is four times slower
        backend.xp.maximum(z, backend.fixed_zeros(z.shape[1:], z.dtype), out=z)

    def multiply_derivative(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        error *= backend.xp.greater(a, 0.0, out=scratch)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """f(z) = max(z, slope · z) with 0 < slope < 1; f' = 1 where a > 0, slope elsewhere."""

    name = kernel = "leaky-relu"
    analytic = False
    piecewise_linear = True
    slope: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.slope < 1.0:
            raise ArchitectureError(f"leaky-relu needs 0 < slope < 1, got {self.slope}")

    def activate(self, backend: Backend, z: Array, scratch: Array) -> None:
        backend.xp.multiply(z, self.slope, out=scratch)
        backend.xp.maximum(z, scratch, out=z)

    def multiply_derivative(self, backend: Backend, error: Array, a: Array, scratch: Array) -> None:
        # with 0 < slope < 1, f' = clip(sign(a), slope, 1), and sign(a) = sign(z)
        backend.xp.sign(a, out=scratch)
        backend.xp.maximum(scratch, self.slope, out=scratch)
        error *= scratch


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
    check_choice("activation", activation, ACTIVATIONS)
    return ACTIVATIONS[activation]()
