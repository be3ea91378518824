"""Learning-rate schedules.

What every optimizer shares: the parameter vector in chunks, its state, a device's kernel.

The vector is worked through in chunks that stay in the CPU's cache (one chunk on a GPU), into
buffers allocated once. Weight decay is decoupled (Loshchilov and Hutter 2019): θ_w ← (1 − η λ) θ_w
on the weights alone, which both directions share and which it therefore counts once.

Optimizers: a few lines each on a chunk of the flat parameter vector (:mod:`nembp.engine.optimizers`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from nembp.backend import Array, Backend
from nembp.engine.network import Network
from nembp.errors import ArchitectureError
from nembp.threads import run_parallel

Schedule = Callable[[float], float]
SCHEDULES = ("cosine", "constant", "step", "late-cosine")


def learning_rate_schedule(
    name: str, *, step_every: float = 1 / 3, step_factor: float = 0.1
) -> Schedule:
    """Return a schedule: the factor of η at the share 0 ≤ s < 1 of training done.

    ``constant``: 1; ``cosine``: (1 + cos πs)/2; ``step``: ``step_factor`` to the power of
    ⌊s / ``step_every``⌋; ``late-cosine``: 1 in the first half, then a cosine's fall to 0.

    >>> learning_rate_schedule("cosine")(0.5)
    0.5
    """
    if name == "constant":
        return lambda share: 1.0
    if name == "cosine":
        return lambda share: 0.5 * (1.0 + math.cos(math.pi * share))
    if name == "late-cosine":
        return lambda share: 0.5 * (1.0 + math.cos(math.pi * max(0.0, 2.0 * share - 1.0)))
    if name == "step":
        return lambda share: step_factor ** math.floor(share / step_every + 1e-9)
    raise ArchitectureError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")


@dataclass
class Chunk:
    """Views of a part of the vectors that an optimizer works on, and scratch of its length."""

    theta: Array  # parameters
    g: Array  # gradient
    state: list[Array]
    scratch: Array


class Optimizer(ABC):
    """Descends the mean negative log-likelihood; subclass it with ``_update`` to add one.

    Parameters
    ----------
    learning_rate : float
        η of the first step; a schedule may lower it.
    weight_decay : float
        λ ≥ 0.
    """

    name: ClassVar[str]
    default_learning_rate: ClassVar[float]
    slots: ClassVar[tuple[str, ...]] = ()  # state vectors
    kernel: ClassVar[str | None] = None  # a device's, which does all of a step in one pass

    def __init__(self, learning_rate: float | None = None, weight_decay: float = 0.0) -> None:
        eta = self.default_learning_rate if learning_rate is None else learning_rate
        if not (0.0 < eta < math.inf):
            raise ArchitectureError(f"learning rate must be positive and finite, got {eta}")
        if not (0.0 <= weight_decay < math.inf):
            raise ArchitectureError(f"weight decay must be finite and ≥ 0, got {weight_decay}")
        self.learning_rate = eta
        self.weight_decay = weight_decay
        self.steps = 0
        self.state: dict[str, Array] = {}

    def bind(self, net: Network) -> Array:
        """Allocate gradient, state and chunk views for ``net``; return the gradient vector."""
        backend, count = net.backend, net.parameter_count
        self.backend: Backend = backend
        self.steps = 0
        self.gradient = backend.zeros((count,), net.dtype)
        self.state = {slot: backend.zeros((count,), net.dtype) for slot in self.slots}
        self._weights = net.parameters[: net.weight_count]
        pieces = range(0, count, backend.chunk)
        # each lane works through its share of the chunks; handing over costs about one chunk
        lanes = max(1, min(backend.lanes(), len(pieces) // 2))
        share = -(-len(pieces) // lanes)
        self._lanes = [
            self._chunks(net, pieces[i : i + share]) for i in range(0, len(pieces), share)
        ]
        self._move = backend.optimizer_kernel(self, net.parameters, net.weight_count)
        return self.gradient

    def _chunks(self, net: Network, pieces: range) -> list[Chunk]:
        backend, count = self.backend, net.parameter_count
        scratch = backend.empty((min(backend.chunk, count),), net.dtype)
        chunks = []
        for start in pieces:
            piece = slice(start, min(start + backend.chunk, count))
            state = [self.state[slot][piece] for slot in self.slots]
            width = scratch[: piece.stop - piece.start]
            chunks.append(Chunk(net.parameters[piece], self.gradient[piece], state, width))
        return chunks

    def step(self, factor: float = 1.0) -> None:
        """Move the parameters against ``gradient`` with learning rate factor · η."""
        self.steps += 1
        if self._move is not None:
            self._move(None, self.numbers(self.steps, factor))
            return
        eta = self.learning_rate * factor
        if self.weight_decay:
            xp = self.backend.xp
            self.backend.into(
                self._weights, xp.multiply, self._weights, 1 - eta * self.weight_decay
            )
        run_parallel(lambda chunks: [self._update(chunk, eta) for chunk in chunks], self._lanes)

    @property
    def takes_numbers(self) -> bool:
        """Whether :meth:`apply` can be used: a step is one kernel."""
        return self._move is not None

    def apply(self, numbers: Array) -> None:
        """Move the parameters by :meth:`numbers` that lie on the device; ``steps`` stays."""
        if self._move is None:
            raise TypeError(f"{type(self).__name__} has no kernel on this device")
        self._move(numbers, (1.0, 0.0, 0.0))

    def numbers(self, step: int, factor: float) -> tuple[float, float, float]:
        """Return what changes from step to step, counted from 1: 1 − η λ, η and ε."""
        eta = self.learning_rate * factor
        return 1.0 - eta * self.weight_decay, eta, 0.0

    def constants(self) -> tuple[float, ...]:
        """Return the other numbers that the kernel takes."""
        return ()

    @abstractmethod
    def _update(self, chunk: Chunk, eta: float) -> None:
        """Move one chunk's ``theta``; the gradient may be overwritten."""


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
