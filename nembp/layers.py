"""Layers of neurons, and views of the flat vector that holds their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nembp.backend import Array, Backend
from nembp.errors import ArchitectureError
from nembp.neurons import Activation
from nembp.synapses import Synapse

__all__ = ["Layer", "Parameters", "add_bias", "check_chain"]


@dataclass(frozen=True)
class Layer:
    """A layer of neurons.

    Parameters
    ----------
    size : int
        Neurons in the layer.
    activation : Activation, optional
        f of a hidden layer; None at both ends, where the likelihood's link takes its place.
    bias_size : int, optional
        Biases of each direction: one a neuron by default, one a channel where neurons share them
        (it must divide ``size``), 0 for none.
    """

    size: int
    activation: Activation | None = None
    bias_size: int | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or self.biases < 0 or self.size % max(self.biases, 1):
            raise ArchitectureError(
                f"a layer needs at least 1 neuron and a bias count that divides it, got "
                f"{self.size} neurons and {self.biases} biases"
            )

    @property
    def biases(self) -> int:
        """Number of biases of each direction."""
        return self.size if self.bias_size is None else self.bias_size


@dataclass(frozen=True)
class Parameters:
    """Views of one flat vector, in the order of one direction.

    Attributes
    ----------
    weights : list of array
        W of synapse k at index k − 1.
    biases : list of array or None
        Bias of layer k in this direction at index k; None for its input layer.
    """

    weights: list[Array]
    biases: list[Array | None]


def check_chain(layers: Sequence[Layer], synapses: Sequence[Synapse]) -> None:
    """Check that synapses join the layers that they stand between.

    Raises
    ------
    ArchitectureError
        Naming the synapse that does not fit.
    """
    if len(layers) < 2 or len(synapses) != len(layers) - 1:
        raise ArchitectureError(
            f"a network needs at least 2 layers and one synapse less than layers, got "
            f"{len(layers)} layers and {len(synapses)} synapses"
        )
    for k, synapse in enumerate(synapses, start=1):
        ends = (layers[k - 1].size, layers[k].size)
        if (synapse.inputs, synapse.outputs) != ends:
            raise ArchitectureError(
                f"synapse {k} joins {synapse.inputs} to {synapse.outputs} neurons, but layers "
                f"{k - 1} and {k} have {ends[0]} and {ends[1]}"
            )


def add_bias(backend: Backend, signal: Array, bias: Array | None, layer: Layer) -> None:
    """Add a layer's bias to ``signal`` (rows, size) in place, by channel where it is shared."""
    if bias is not None and layer.biases:
        if layer.bias_size is not None:
            signal = backend.xp.reshape(signal, (-1, layer.bias_size))
        backend.into(signal, backend.xp.add, signal, bias)
