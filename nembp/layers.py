"""Layers of neurons, and views of the flat vectors that hold their parameters and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from nembp.backend import Array, Backend, stream
from nembp.errors import ArchitectureError
from nembp.neurons import Activation
from nembp.normalization import BatchNormalization
from nembp.synapses import Synapse

__all__ = [
    "Layer",
    "Parameters",
    "add_bias",
    "check_chain",
    "initial_parameters",
    "initial_statistics",
    "parameter_count",
    "parameter_views",
    "statistics_count",
    "statistics_views",
]


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
    normalization : BatchNormalization, optional
        Of a hidden layer's pre-activations, in each direction by itself: by neuron or channel, as
        its biases are (:mod:`nembp.normalization`).
    """

    size: int
    activation: Activation | None = None
    bias_size: int | None = None
    normalization: BatchNormalization | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or self.biases < 0 or self.size % max(self.biases, 1):
            raise ArchitectureError(
                f"a layer needs at least 1 neuron and a bias count that divides it, got "
                f"{self.size} neurons and {self.biases} biases"
            )
        if self.normalization is not None and not self.biases:
            raise ArchitectureError(
                f"a normalized layer of {self.size} neurons needs biases, one a neuron or channel"
            )

    @property
    def biases(self) -> int:
        """Number of biases of each direction."""
        return self.size if self.bias_size is None else self.bias_size

    @property
    def gains(self) -> int:
        """Number of gains γ of each direction: one for each bias where the layer is normalized."""
        return 0 if self.normalization is None else self.biases


@dataclass(frozen=True)
class Parameters:
    """Views of one flat vector, in the order of one direction.

    Attributes
    ----------
    weights : list of array
        W of synapse k at index k − 1.
    biases : list of array or None
        Bias of layer k in this direction at index k; None for its input layer.
    gains : list of array or None
        γ of layer k in this direction at index k; None where it is not normalized.
    """

    weights: list[Array]
    biases: list[Array | None]
    gains: list[Array | None]


def parameter_count(layers: Sequence[Layer], synapses: Sequence[Synapse]) -> int:
    """Return the length of the flat vector of parameters."""
    both = (*layers[1:], *layers[:-1])
    weights = sum(synapse.weight_count for synapse in synapses)
    return weights + sum(layer.biases + layer.gains for layer in both)


def parameter_views(
    backend: Backend, layers: Sequence[Layer], synapses: Sequence[Synapse], flat: Array
) -> tuple[Parameters, Parameters]:
    """Return the forward and the backward direction's views of a flat vector.

    ``layers`` and ``synapses`` are in the forward direction's order. The vector holds all weights,
    forward biases, backward biases, forward gains γ, backward gains: so a network without
    normalization ends with its biases.
    """
    weights, position = [], 0
    for synapse in synapses:
        piece = flat[position : position + synapse.weight_count]
        weights.append(backend.xp.reshape(piece, synapse.weight_shape))
        position += synapse.weight_count
    groups: list[list[Array | None]] = []
    for gains in (False, True):
        for reached in (layers[1:], layers[:-1]):
            views: list[Array | None] = []
            for layer in reached:
                count = layer.gains if gains else layer.biases
                views.append(None if gains and not count else flat[position : position + count])
                position += count
            groups.append(views)
    up, down, up_gains, down_gains = groups
    forward = Parameters(weights, [None, *up], [None, *up_gains])
    backward = Parameters(weights[::-1], [None, *down[::-1]], [None, *down_gains[::-1]])
    return forward, backward


def initial_parameters(
    layers: Sequence[Layer], synapses: Sequence[Synapse], seed: int | None
) -> np.ndarray[Any, Any]:
    """Return a first flat vector, on the host: weights drawn, biases zero, gains 1.

    Weights come from the stream ``"weights"``; without a seed all is zero.
    """
    flat = np.zeros(parameter_count(layers, synapses))
    if seed is None:
        return flat
    generator, position = stream(seed, "weights"), 0
    for synapse in synapses:
        weights = synapse.initial_weights(generator).reshape(-1)
        flat[position : position + weights.size] = weights
        position += weights.size
    flat[flat.size - statistics_count(layers) // 2 :] = 1.0  # the gains, as many as means
    return flat


Running: TypeAlias = list[tuple[Array, Array] | None]


def statistics_count(layers: Sequence[Layer]) -> int:
    """Return the length of the flat vector of running statistics: μ and σ² of each γ."""
    return 2 * sum(layer.gains for layer in (*layers[1:], *layers[:-1]))


def statistics_views(layers: Sequence[Layer], flat: Array) -> tuple[Running, Running]:
    """Return each direction's (mean, variance) by layer, None where it is not normalized."""
    groups, position = [], 0
    for reached in (layers[1:], layers[:-1]):
        views: Running = []
        for layer in reached:
            middle, end = position + layer.gains, position + 2 * layer.gains
            pair = flat[position:middle], flat[middle:end]
            views.append(pair if layer.gains else None)
            position = end
        groups.append(views)
    return [None, *groups[0]], [None, *groups[1][::-1]]


def initial_statistics(layers: Sequence[Layer]) -> np.ndarray[Any, Any]:
    """Return first running statistics, on the host: means of 0 and variances of 1."""
    flat = np.zeros(statistics_count(layers))
    for pair in chain(*statistics_views(layers, flat)):
        if pair is not None:
            pair[1][...] = 1.0
    return flat


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
    for k in (0, len(layers) - 1):
        if layers[k].normalization is not None:
            raise ArchitectureError(
                f"layer {k} is normalized, but it is an end of the network, where the likelihood's "
                "link takes the pre-activations as they are; normalize hidden layers only"
            )


def add_bias(backend: Backend, signal: Array, bias: Array | None, layer: Layer) -> None:
    """Add a layer's bias to ``signal`` (rows, size) in place, by channel where it is shared."""
    if bias is not None and layer.biases:
        if layer.bias_size is not None:
            signal = backend.xp.reshape(signal, (-1, layer.bias_size))
        backend.into(signal, backend.xp.add, signal, bias)
