"""What every optimizer shares: the parameter vector in chunks, its state, a device's kernel.

The vector is worked through in chunks that stay in the CPU's cache (one chunk on a GPU), into
buffers allocated once. Weight decay is decoupled (Loshchilov and Hutter 2019): θ_w ← (1 − η λ) θ_w
on the weights alone, which both directions share and which it therefore counts once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from nembp.backend import Array, Backend
from nembp.errors import ArchitectureError
from nembp.network import Network
from nembp.threads import run_parallel

__all__ = ["Chunk", "Optimizer"]


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
