"""Optimizers: a few lines each on chunks of the flat parameter vector; learning-rate schedules.

The vector is worked through in chunks that stay in the CPU's cache, into buffers allocated once.
Weight decay is decoupled (Loshchilov and Hutter 2019): θ_w ← (1 − η λ) θ_w on the weights alone,
which both directions share and which it therefore counts once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar

from nembp.backend import Array
from nembp.engine.network import Network
from nembp.errors import ArchitectureError, check_choice
from nembp.threads import run_parallel

SCHEDULES: dict[str, Callable[[float], float]] = {  # factors of η at the share 0 ≤ s < 1 done
    "cosine": lambda s: 0.5 * (1.0 + math.cos(math.pi * s)),
    "constant": lambda s: 1.0,
    "step": lambda s: 0.1 ** math.floor(s / (1 / 3) + 1e-9),  # a tenth after each third
    "late-cosine": lambda s: 0.5 * (1.0 + math.cos(math.pi * max(0.0, 2.0 * s - 1.0))),
}


def learning_rate_schedule(name: str) -> Callable[[float], float]:
    """Return the schedule of a name.

    >>> learning_rate_schedule("cosine")(0.5)
    0.5
    """
    check_choice("schedule", name, SCHEDULES)
    return SCHEDULES[name]


@dataclass
class Chunk:
    """Views of a part of the vectors that an optimizer works on, and scratch of its length."""

    theta: Array  # parameters
    g: Array  # gradient
    state: list[Array]
    scratch: Array


@dataclass(eq=False)
class Optimizer(ABC):
    """Descends the mean negative log-likelihood; subclass it with ``move`` to add one.

    ``learning_rate`` is η of the first step, which a schedule may lower, ``weight_decay`` λ ≥ 0,
    ``steps`` counts those taken so far, and ``state`` has a vector for each of the ``slots``.
    A subclass that is a dataclass may have further fields: numbers of at least 0 and less than 1,
    and ``epsilon``.
    """

    name: ClassVar[str]
    default_learning_rate: ClassVar[float]
    slots: ClassVar[tuple[str, ...]] = ()  # state vectors
    kernel: ClassVar[str | None] = None  # of a device that does a step in one pass
    epsilon = 0.0  # of those that divide

    learning_rate: Any = None  # its class's default one
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.learning_rate is None:
            self.learning_rate = self.default_learning_rate
        for key in (each.name for each in fields(self)):
            value: Any = getattr(self, key)
            number: Any = value if isinstance(value, Real) else math.nan
            if key in ("learning_rate", "epsilon"):
                allowed, expected = 0.0 < number < math.inf, "positive and finite"
            elif key == "weight_decay":
                allowed, expected = 0.0 <= number < math.inf, "finite and ≥ 0"
            else:
                allowed, expected = 0.0 <= number < 1.0, "at least 0 and less than 1"
            if not allowed:
                name = key.replace("_", " ")
                raise ArchitectureError(f"{name} must be {expected}, got {value!r}")
        self.steps = 0
        self.state: dict[str, Array] = {}

    def bind(self, net: Network) -> Array:
        """Allocate gradient, state and chunk views for ``net``; return the gradient vector."""
        backend, count, dtype = net.backend, net.parameter_count, net.dtype
        self.backend, self.weights, self.steps = backend, net.weight_count, 0
        self.gradient = backend.zeros((count,), dtype)
        self.state = {slot: backend.zeros((count,), dtype) for slot in self.slots}
        self.vectors = net.parameters, self.gradient, *self.state.values()
        size = min(backend.chunk, count)
        starts = range(0, count, size)
        # each worker goes through its share of the chunks; handing over costs about one chunk
        workers = max(1, min(backend.workers(), len(starts) // 2))
        share = -(-len(starts) // workers)
        self._shares: list[list[Chunk]] = []
        for first in range(0, len(starts), share):
            scratch = backend.empty((size,), dtype)
            chunks = []
            for start in starts[first : first + share]:
                theta, g, *state = (vector[start : start + size] for vector in self.vectors)
                chunks.append(Chunk(theta, g, state, scratch[: theta.shape[0]]))
            self._shares.append(chunks)
        return self.gradient

    def step(self, factor: float = 1.0) -> None:
        """Move the parameters against ``gradient`` with learning rate factor · η."""
        self.steps += 1
        self.backend.optimizer_step(self, self.numbers(self.steps, factor))

    def numbers(self, step: int, factor: float) -> tuple[float, float, float]:
        """Return what changes from step to step, counted from 1: 1 − η λ, η and ε."""
        eta = self.learning_rate * factor
        return 1.0 - eta * self.weight_decay, eta, self.epsilon

    def constants(self) -> tuple[float, ...]:
        """Return the other numbers that a device's kernel takes."""
        return ()

    def update(self, numbers: tuple[float, float, float]) -> None:
        """Move the parameters by the :meth:`numbers` of a step, on the CPU's workers."""
        keep, eta, epsilon = numbers
        if self.weight_decay:
            weights = self.vectors[0][: self.weights]
            weights *= keep

        def move(chunks: list[Chunk]) -> None:
            for chunk in chunks:
                self.move(chunk, eta, epsilon)

        run_parallel(move, self._shares)

    @abstractmethod
    def move(self, chunk: Chunk, eta: float, epsilon: float) -> None:
        """Move one chunk's ``theta`` in place; the gradient may be overwritten."""


class SGD(Optimizer):
    """θ ← θ − η g."""

    name = kernel = "sgd"
    default_learning_rate = 0.1

    def move(self, chunk: Chunk, eta: float, epsilon: float) -> None:
        self.backend.xp.multiply(chunk.g, eta, out=chunk.scratch)
        chunk.theta -= chunk.scratch


@dataclass(eq=False)
class Momentum(Optimizer):
    """v ← μ v + g, θ ← θ − η v, with 0 ≤ μ = ``momentum`` < 1 (Polyak 1964)."""

    name = kernel = "momentum"
    default_learning_rate = 0.02
    slots = ("velocity",)
    momentum: float = 0.9

    def constants(self) -> tuple[float, ...]:
        return (self.momentum,)

    def move(self, chunk: Chunk, eta: float, epsilon: float) -> None:
        (v,) = chunk.state
        v *= self.momentum
        v += chunk.g
        self.backend.xp.multiply(v, eta, out=chunk.scratch)
        chunk.theta -= chunk.scratch


@dataclass(eq=False)
class RMSProp(Optimizer):
    """s ← ρ s + (1 − ρ) g², θ ← θ − η g / (√s + ε), with 0 ≤ ρ = ``decay`` < 1.

    Tieleman and Hinton 2012.
    """

    name = kernel = "rmsprop"
    default_learning_rate = 1e-3
    slots = ("square",)
    decay: float = 0.9
    epsilon: float = 1e-8

    def constants(self) -> tuple[float, ...]:
        return self.decay, 1 - self.decay

    def move(self, chunk: Chunk, eta: float, epsilon: float) -> None:
        xp, (s,), scratch = self.backend.xp, chunk.state, chunk.scratch
        xp.multiply(chunk.g, chunk.g, out=scratch)
        scratch *= 1 - self.decay
        s *= self.decay
        s += scratch
        xp.sqrt(s, out=scratch)
        scratch += epsilon
        xp.divide(chunk.g, scratch, out=scratch)
        scratch *= eta
        chunk.theta -= scratch


@dataclass(eq=False)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), in the form that touches memory least.

    With the sums M ← β₁ M + g and V ← β₂ V + g², the moments are m̂ = M (1−β₁)/(1−β₁ᵗ) and
    v̂ = V (1−β₂)/(1−β₂ᵗ), so θ ← θ − η m̂ / (√v̂ + ε) is M / (√V + ε') times one number.
    0 ≤ ``beta1``, ``beta2`` < 1 are β₁ and β₂.
    """

    name = kernel = "adam"
    default_learning_rate = 1e-3
    slots = ("first", "second")
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def numbers(self, step: int, factor: float) -> tuple[float, float, float]:
        """Return 1 − η λ, and η and ε with the bias corrections of the moments in them."""
        keep, eta, _ = super().numbers(step, factor)
        first = (1 - self.beta1) / (1 - self.beta1**step)  # m̂ = first · M
        second = math.sqrt((1 - self.beta2) / (1 - self.beta2**step))  # √v̂ = second · √V
        return keep, eta * first / second, self.epsilon / second

    def constants(self) -> tuple[float, ...]:
        return self.beta1, self.beta2

    def move(self, chunk: Chunk, eta: float, epsilon: float) -> None:
        xp, (M, V), g, scratch = self.backend.xp, chunk.state, chunk.g, chunk.scratch
        M *= self.beta1
        M += g
        V *= self.beta2
        g *= g
        V += g
        xp.sqrt(V, out=scratch)
        scratch += epsilon
        xp.divide(M, scratch, out=scratch)
        scratch *= eta
        chunk.theta -= scratch


OPTIMIZERS: dict[str, type[Optimizer]] = {
    kind.name: kind for kind in (Adam, RMSProp, Momentum, SGD)
}


def get_optimizer(
    optimizer: str | Optimizer, learning_rate: Any = None, weight_decay: float = 0.0
) -> Optimizer:
    """Return the optimizer of a name; an :class:`Optimizer` is returned as it is.

    >>> get_optimizer("momentum").learning_rate
    0.02
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    check_choice("optimizer", optimizer, OPTIMIZERS)
    return OPTIMIZERS[optimizer](learning_rate, weight_decay)
