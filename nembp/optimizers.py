"""Optimizers: a few lines each on a chunk of the flat parameter vector (:mod:`nembp.descent`)."""

from __future__ import annotations

import math

from nembp.descent import Chunk, Optimizer
from nembp.errors import ArchitectureError
from nembp.schedules import SCHEDULES, learning_rate_schedule

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "Momentum",
    "Optimizer",
    "RMSProp",
    "get_optimizer",
    "learning_rate_schedule",
]


class SGD(Optimizer):
    """θ ← θ − η g."""

    name = kernel = "sgd"
    default_learning_rate = 0.1

    def _update(self, chunk: Chunk, eta: float) -> None:
        into, xp = self.backend.into, self.backend.xp
        into(chunk.scratch, xp.multiply, chunk.g, eta)
        into(chunk.theta, xp.subtract, chunk.theta, chunk.scratch)


class Momentum(Optimizer):
    """v ← μ v + g, θ ← θ − η v (Polyak 1964).

    Parameters
    ----------
    momentum : float
        0 ≤ μ < 1.
    """

    name = kernel = "momentum"
    default_learning_rate = 0.02
    slots = ("velocity",)

    def __init__(
        self,
        learning_rate: float | None = None,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.momentum = _fraction("momentum", momentum)

    def constants(self) -> tuple[float, ...]:
        return (self.momentum,)

    def _update(self, chunk: Chunk, eta: float) -> None:
        into, xp = self.backend.into, self.backend.xp
        (v,) = chunk.state
        into(v, xp.multiply, v, self.momentum)
        into(v, xp.add, v, chunk.g)
        into(chunk.scratch, xp.multiply, v, eta)
        into(chunk.theta, xp.subtract, chunk.theta, chunk.scratch)


class RMSProp(Optimizer):
    """s ← ρ s + (1 − ρ) g², θ ← θ − η g / (√s + ε) (Tieleman and Hinton 2012).

    Parameters
    ----------
    decay : float
        0 ≤ ρ < 1.
    epsilon : float
        ε > 0.
    """

    name = kernel = "rmsprop"
    default_learning_rate = 1e-3
    slots = ("square",)

    def __init__(
        self,
        learning_rate: float | None = None,
        weight_decay: float = 0.0,
        decay: float = 0.9,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.decay, self.epsilon = _fraction("decay", decay), epsilon

    def numbers(self, step: int, factor: float) -> tuple[float, float, float]:
        return (*super().numbers(step, factor)[:2], self.epsilon)

    def constants(self) -> tuple[float, ...]:
        return self.decay, 1 - self.decay

    def _update(self, chunk: Chunk, eta: float) -> None:
        into, xp = self.backend.into, self.backend.xp
        (s,) = chunk.state
        into(chunk.scratch, xp.multiply, chunk.g, chunk.g)
        into(chunk.scratch, xp.multiply, chunk.scratch, 1 - self.decay)
        into(s, xp.multiply, s, self.decay)
        into(s, xp.add, s, chunk.scratch)
        into(chunk.scratch, xp.sqrt, s)
        into(chunk.scratch, xp.add, chunk.scratch, self.epsilon)
        into(chunk.scratch, xp.divide, chunk.g, chunk.scratch)
        into(chunk.scratch, xp.multiply, chunk.scratch, eta)
        into(chunk.theta, xp.subtract, chunk.theta, chunk.scratch)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), in the form that touches memory least.

    With the sums M ← β₁ M + g and V ← β₂ V + g², the moments are m̂ = M (1−β₁)/(1−β₁ᵗ) and
    v̂ = V (1−β₂)/(1−β₂ᵗ), so θ ← θ − η m̂ / (√v̂ + ε) is M / (√V + ε') times one number.

    Parameters
    ----------
    beta1, beta2 : float
        0 ≤ β < 1.
    epsilon : float
        ε > 0.
    """

    name = kernel = "adam"
    default_learning_rate = 1e-3
    slots = ("first", "second")

    def __init__(
        self,
        learning_rate: float | None = None,
        weight_decay: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.beta1, self.beta2 = _fraction("beta1", beta1), _fraction("beta2", beta2)
        self.epsilon = epsilon

    def numbers(self, step: int, factor: float) -> tuple[float, float, float]:
        keep, eta, _ = super().numbers(step, factor)
        return keep, *self._corrected(step, eta)

    def _corrected(self, step: int, eta: float) -> tuple[float, float]:
        """Return η and ε with the bias corrections of the moments in them."""
        first = (1 - self.beta1) / (1 - self.beta1**step)  # m̂ = first · M
        second = math.sqrt((1 - self.beta2) / (1 - self.beta2**step))  # √v̂ = second · √V
        return eta * first / second, self.epsilon / second

    def constants(self) -> tuple[float, ...]:
        return self.beta1, self.beta2

    def _update(self, chunk: Chunk, eta: float) -> None:
        into, xp = self.backend.into, self.backend.xp
        rate, epsilon = self._corrected(self.steps, eta)
        M, V = chunk.state
        into(M, xp.multiply, M, self.beta1)
        into(M, xp.add, M, chunk.g)
        into(V, xp.multiply, V, self.beta2)
        into(chunk.g, xp.multiply, chunk.g, chunk.g)
        into(V, xp.add, V, chunk.g)
        into(chunk.scratch, xp.sqrt, V)
        into(chunk.scratch, xp.add, chunk.scratch, epsilon)
        into(chunk.scratch, xp.divide, M, chunk.scratch)
        into(chunk.scratch, xp.multiply, chunk.scratch, rate)
        into(chunk.theta, xp.subtract, chunk.theta, chunk.scratch)


OPTIMIZERS: dict[str, type[Optimizer]] = {
    kind.name: kind for kind in (Adam, RMSProp, Momentum, SGD)
}


def get_optimizer(
    optimizer: str | Optimizer, learning_rate: float | None = None, weight_decay: float = 0.0
) -> Optimizer:
    """Return the optimizer of a name; an :class:`Optimizer` is returned as it is.

    >>> get_optimizer("momentum").learning_rate
    0.02
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if optimizer not in OPTIMIZERS:
        known = ", ".join(OPTIMIZERS)
        raise ArchitectureError(f"optimizer must be one of {known}, got {optimizer!r}")
    return OPTIMIZERS[optimizer](learning_rate, weight_decay)


def _fraction(name: str, value: float) -> float:
    if not 0.0 <= value < 1.0:
        raise ArchitectureError(f"{name} must be at least 0 and less than 1, got {value}")
    return value
