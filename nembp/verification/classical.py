"""Classical backpropagation, written out sample by sample without the engine.

What a textbook does with one network of one direction: signals up, the error a − t at the output,
errors down through the same weights, outer products. Nothing here calls the engine, but for what
it cannot know: the matrix of a synapse that is not dense (found by feeding it unit vectors), and
functions that a user wrote.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nembp.backend import get_backend
from nembp.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.network import Layer, Network
from nembp.neurons import Activation, Identity, LeakyReLU, Logistic, ReLU, Tanh
from nembp.synapses import Dense, Synapse, Transposed
from nembp.verification.layout import Vector

__all__ = ["Classical", "link", "precision"]


@dataclass
class _Way:
    """One direction: matrices (below, above), biases of each neuron, activations."""

    matrices: list[Vector]
    biases: list[Vector]
    layers: list[Layer]


class Classical:
    """The direction of ``net`` as a plain feedforward network in float64.

    Parameters
    ----------
    net : Network
        Seen from the direction to differentiate.
    """

    def __init__(self, net: Network) -> None:
        self.net = net
        self.primary = net if net.direction == "forward" else net.reversed
        self.flat = np.asarray(net.backend.to_numpy(net.parameters), dtype=float)
        self.way = self._cut()

    def _cut(self) -> _Way:
        """Cut the flat vector: weights, then forward biases, then backward biases."""
        primary, position = self.primary, 0
        matrices = []
        for synapse in primary.synapses:
            W = self.flat[position : position + synapse.weight_count]
            matrices.append(_matrix(synapse, W.reshape(synapse.weight_shape)))
            position += synapse.weight_count
        biases: dict[str, list[Vector]] = {}
        for direction, layers in (
            ("forward", primary.layers[1:]),
            ("backward", primary.layers[:-1]),
        ):
            biases[direction] = []
            for layer in layers:
                channel = np.arange(layer.size) % layer.biases
                biases[direction].append(self.flat[position : position + layer.biases][channel])
                position += layer.biases
        if self.net.direction == "forward":
            return _Way(matrices, biases["forward"], list(primary.layers))
        turned = [matrix.T for matrix in matrices[::-1]]
        return _Way(turned, biases["backward"][::-1], list(primary.layers[::-1]))

    def pre_activations(self, x: Vector) -> list[Vector]:
        """Return z of the layers 1..L for one sample."""
        z, a = [], x
        for matrix, bias, layer in zip(
            self.way.matrices, self.way.biases, self.way.layers[1:], strict=True
        ):
            z.append(bias + a @ matrix)
            a = _apply(layer.activation, z[-1])
        return z

    def outputs(self, x: Vector) -> Vector:
        """Return the output pre-activations of each sample, shape (rows, outputs)."""
        return np.array([self.pre_activations(row)[-1] for row in x])

    def gradient(self, x: Vector, t: Vector) -> Vector:
        """Return the gradient of the mean nll, laid out like ``net.parameters``.

        δ = scale · (a − t) at the output, δ ← (W δ) ∘ f'(z) downwards; ∂/∂W = Σ a δᵀ, ∂/∂b = Σ δ.
        """
        way, rows = self.way, len(x)
        weights = [np.zeros_like(matrix) for matrix in way.matrices]
        biases = [np.zeros_like(bias) for bias in way.biases]
        scale = precision(self.net.likelihood)
        for sample, target in zip(x, t, strict=True):
            z = self.pre_activations(sample)
            a = [sample]
            for pre, layer in zip(z[:-1], way.layers[1:], strict=False):
                a.append(_apply(layer.activation, pre))
            delta = scale * (link(self.net.likelihood, z[-1][None, :])[0] - target) / rows
            for k in range(len(z) - 1, -1, -1):
                weights[k] += np.outer(a[k], delta)
                biases[k] += delta
                if k > 0:
                    delta = (way.matrices[k] @ delta) * _slope(way.layers[k].activation, z[k - 1])
        return self._joined(weights, biases)

    def _joined(self, matrices: list[Vector], biases: list[Vector]) -> Vector:
        forward = self.net.direction == "forward"
        if not forward:
            matrices, biases = [matrix.T for matrix in matrices[::-1]], biases[::-1]
        parts = [
            _weights(synapse, matrix).reshape(-1)
            for synapse, matrix in zip(self.primary.synapses, matrices, strict=True)
        ]
        layers = self.primary.layers[1:] if forward else self.primary.layers[:-1]
        shared = [
            np.bincount(np.arange(layer.size) % layer.biases, bias, layer.biases)
            for layer, bias in zip(layers, biases, strict=True)
        ]
        others = self.primary.layers[:-1] if forward else self.primary.layers[1:]
        untouched = [np.zeros(layer.biases) for layer in others]
        return np.concatenate([*parts, *(shared + untouched if forward else untouched + shared)])


# -- the parts ---------------------------------------------------------------------------------
def _matrix(synapse: Synapse, W: Vector) -> Vector:
    """Return the matrix (inputs, outputs) by which a synapse with weights W multiplies."""
    if isinstance(synapse, Dense):
        return W
    if isinstance(synapse, Transposed):
        return _matrix(synapse.synapse, W).T
    out = np.empty((synapse.inputs, synapse.outputs))
    synapse.forward(get_backend("cpu"), np.eye(synapse.inputs), W.copy(), out)
    return out


def _weights(synapse: Synapse, gradient: Vector) -> Vector:
    """Return ∂/∂W from ∂/∂matrix: the matrix is linear in W, Σ_w W_w M(unit w)."""
    if isinstance(synapse, Dense):
        return gradient
    if isinstance(synapse, Transposed):
        return _weights(synapse.synapse, gradient.T)
    units = np.eye(synapse.weight_count).reshape(-1, *synapse.weight_shape)
    return np.array([np.sum(gradient * _matrix(synapse, unit)) for unit in units])


def _apply(activation: Activation | None, z: Vector) -> Vector:
    """Return f(z); of the last layer, which has no f, z itself."""
    match activation:
        case None | Identity():
            return z
        case ReLU():
            return np.where(z > 0.0, z, 0.0)
        case LeakyReLU(slope=slope):
            return np.where(z > 0.0, z, slope * z)
        case Tanh():
            return np.tanh(z)
        case Logistic():
            return 0.5 * (1.0 + np.tanh(0.5 * z))
    a = np.array(z[None, :])
    activation.activate(get_backend("cpu"), a, np.empty_like(a))
    return np.asarray(a[0])


def _slope(activation: Activation | None, z: Vector) -> Vector:
    """Return f'(z): a formula in z, or the slope of a function that a user wrote."""
    match activation:
        case None | Identity():
            return np.ones_like(z)
        case ReLU():
            return np.where(z > 0.0, 1.0, 0.0)
        case LeakyReLU(slope=slope):
            return np.where(z > 0.0, 1.0, slope)
        case Tanh():
            return 1.0 / np.cosh(z) ** 2
        case Logistic():
            return 0.25 / np.cosh(0.5 * z) ** 2
    h = 1e-3 * np.maximum(1.0, np.abs(z))
    near = (_apply(activation, z + h / 8) - _apply(activation, z - h / 8)) / (h / 4)
    far = (_apply(activation, z + h / 4) - _apply(activation, z - h / 4)) / (h / 2)
    return (4.0 * near - far) / 3.0


def link(likelihood: Likelihood, z: Vector) -> Vector:
    """Return the activations of pre-activations (rows, width)."""
    if isinstance(likelihood, Multinomial):
        powers = np.exp(z - np.max(z, axis=1, keepdims=True))
        return np.asarray(powers / np.sum(powers, axis=1, keepdims=True))
    if isinstance(likelihood, Gaussian):
        return z
    if isinstance(likelihood, Bernoulli):
        return 0.5 * (1.0 + np.tanh(0.5 * z))
    return np.asarray(likelihood.at(z).a)


def precision(likelihood: Likelihood) -> float:
    """Return the factor of a − t: 1/v of a Gaussian, else the tempering weight."""
    if isinstance(likelihood, Gaussian):
        return 1.0 / likelihood.variance
    if isinstance(likelihood, (Multinomial, Bernoulli)):
        return likelihood.weight
    return likelihood.scale if math.isfinite(likelihood.scale) else math.nan
