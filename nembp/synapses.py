"""Synapses: trilinear forms T(x, W, y) = ⟨x·W, y⟩ and their three partial derivatives.

========================== ========= =========================================================
contraction                dense     used for
========================== ========= =========================================================
``forward(x)`` = ∂T/∂y     x W       forward signals; errors of the backward direction
``adjoint(y)`` = ∂T/∂x     y Wᵀ      backward signals; errors of the forward direction
``weight_gradient`` = ∂T/∂W xᵀ y     both directions' gradients
========================== ========= =========================================================

**Law**: ⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, weight_gradient(x, y)⟩. A new kind of synapse is
these three functions; nothing else in the engine changes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp.backend import Array, Backend
from nembp.errors import ArchitectureError
from nembp.links import Link, RowsLink

__all__ = ["Dense", "Synapse", "Transposed"]

LANES_PAY = 1 << 21  # multiply-adds; with fewer, waking a thread takes longer than they do


class Synapse(ABC):
    """A linear map between two layers whose signals are rows of flattened neurons.

    Attributes
    ----------
    inputs, outputs : int
        Neurons of the lower and the upper layer.
    weight_shape : tuple of int
        Shape of W; its product is 0 for a weightless map.
    """

    inputs: int
    outputs: int
    weight_shape: tuple[int, ...]

    @property
    def weight_count(self) -> int:
        """Number of weights."""
        return math.prod(self.weight_shape)

    @abstractmethod
    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        """Write ∂T/∂y at (x, W), shape (rows, outputs), into ``out``."""

    @abstractmethod
    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        """Write ∂T/∂x at (W, y), shape (rows, inputs), into ``out``."""

    @abstractmethod
    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        """Write ∂T/∂W at (x, y), summed over rows, shape ``weight_shape``, into ``out``."""

    @property
    def wants_lanes(self) -> bool:
        """Whether a step over it is faster on our threads than on those of BLAS."""
        return False

    def link(
        self,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool = True,
        lanes: int = 1,
    ) -> Link:
        """Return what computes these contractions in a training step (:mod:`nembp.links`).

        Parameters
        ----------
        parts : sequence of int
            Rows of the parts of a signal: samples, and class rows.
        upward : bool
            Whether the network uses the synapse from its lower to its upper layer.
        lanes : int
            Threads to share the rows among.
        """
        return Link(self, backend, dtype, upward)

    @abstractmethod
    def initial_weights(self, generator: np.random.Generator) -> np.ndarray[Any, Any]:
        """Draw float64 weights on the host, so that no device changes the randomness."""


@dataclass(frozen=True)
class Dense(Synapse):
    """A full matrix W of shape (inputs, outputs): T = Σ x_ri W_ij y_rj."""

    inputs: int
    outputs: int

    def __post_init__(self) -> None:
        if self.inputs < 1 or self.outputs < 1:
            raise ArchitectureError(
                f"a dense synapse joins layers of at least 1 neuron, got {self.inputs} and "
                f"{self.outputs}"
            )

    @property
    def weight_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.inputs, self.outputs)

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        """Write x W into ``out``."""
        backend.matmul(x, W, out)

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        """Write y Wᵀ into ``out``."""
        backend.matmul(y, W.T, out)

    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        """Write xᵀ y into ``out``."""
        backend.matmul(x.T, y, out)

    def link(
        self,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool = True,
        lanes: int = 1,
    ) -> Link:
        """Return a link that shares its rows among lanes where there is work for them."""
        if lanes > 1 and sum(parts) * self.inputs * self.outputs > LANES_PAY:
            return RowsLink(self, backend, dtype, upward, lanes)
        return Link(self, backend, dtype, upward)

    def initial_weights(self, generator: np.random.Generator) -> np.ndarray[Any, Any]:
        """Draw Glorot-normal weights, variance 2 / (inputs + outputs).

        The one classical rule that treats both directions alike (Glorot and Bengio, 2010).
        """
        std = math.sqrt(2.0 / (self.inputs + self.outputs))
        return generator.normal(0.0, std, self.weight_shape)


@dataclass(frozen=True)
class Transposed(Synapse):
    """The same synapse used from its upper to its lower layer, over the same weights.

    forward ↔ adjoint, and ∂T/∂W is the same with its two arguments exchanged.
    """

    synapse: Synapse

    @property
    def inputs(self) -> int:  # type: ignore[override]
        return self.synapse.outputs

    @property
    def outputs(self) -> int:  # type: ignore[override]
        return self.synapse.inputs

    @property
    def weight_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.synapse.weight_shape

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        self.synapse.adjoint(backend, x, W, out)

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        self.synapse.forward(backend, y, W, out)

    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        self.synapse.weight_gradient(backend, y, x, out)

    @property
    def wants_lanes(self) -> bool:
        return self.synapse.wants_lanes

    def link(
        self,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool = True,
        lanes: int = 1,
    ) -> Link:
        return self.synapse.link(backend, parts, dtype, not upward, lanes)

    def initial_weights(self, generator: np.random.Generator) -> np.ndarray[Any, Any]:
        return self.synapse.initial_weights(generator)
