"""The engine's definitions written out a second time, in plain operators, row by row.

Nothing here calls the engine, but for the matrix of a synapse that is not nembp's own
(:mod:`~nembp.verification.laws.matrices`). The layout of the flat vector, the two directions and
shared biases are re-derived from their definition; ``signals`` runs on NumPy arrays and on torch
tensors alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import special

from nembp.backend import get_backend
from nembp.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.network import Network
from nembp.neurons import Activation, Identity, LeakyReLU, Logistic, ReLU, Tanh
from nembp.verification.laws.matrices import matrix_of, weight_gradient_of

__all__ = [
    "activate",
    "knows",
    "link",
    "log_likelihood",
    "output_error",
    "precision",
    "pull_back",
    "signals",
    "slope",
    "unflatten",
]

Matrix = np.ndarray[Any, Any]
Function = Callable[[Any], Any]


def knows(part: Likelihood | Activation) -> bool:
    """Whether the formulas of a likelihood or activation are written out here."""
    kinds = (Multinomial, Gaussian, Bernoulli, ReLU, LeakyReLU, Tanh, Logistic, Identity)
    return type(part) in kinds


def unflatten(net: Network, flat: Any) -> tuple[list[Any], list[Any]]:
    """Cut a flat vector into one direction's (inputs, outputs) matrices and per-neuron biases.

    The biases of a layer that has none are 0.0.
    """
    primary = net if net.direction == "forward" else net.reversed
    layers = primary.layers
    position, matrices = 0, []
    for synapse in primary.synapses:
        piece = flat[position : position + synapse.weight_count]
        matrices.append(matrix_of(synapse, piece.reshape(synapse.weight_shape)))
        position += synapse.weight_count
    ends = []
    for group in (layers[1:], layers[:-1]):
        biases = []
        for layer in group:
            shared = flat[position : position + layer.biases]
            position += layer.biases
            channel = np.arange(layer.size) % max(layer.biases, 1)  # neuron j: channel j mod c
            biases.append(shared[channel] if layer.biases else 0.0)
        ends.append(biases)
    assert position == flat.shape[0], "the flat vector has entries that no layer uses"
    if net.direction == "forward":
        return matrices, ends[0]
    return [W.T for W in matrices[::-1]], ends[1][::-1]


def signals(
    net: Network, flat: Any, x: Any, functions: Mapping[str, Function] | None = None
) -> tuple[list[Any], Any]:
    """Return the activations of the layers 0..L-1 and the last pre-activation.

    ``functions`` holds the activations by name, where not NumPy's but another library's are meant.
    """
    matrices, biases = unflatten(net, flat)
    activations = [x]
    for k, (W, b) in enumerate(zip(matrices, biases, strict=True), start=1):
        z = activations[-1] @ W + b
        if k == len(matrices):
            return activations, z
        f = net.layers[k].activation
        if f is None:
            activations.append(z)
        else:
            activations.append(activate(f, z) if functions is None else functions[f.name](z))
    raise AssertionError("a network has at least one synapse")


def activate(activation: Activation | None, z: Matrix) -> Matrix:
    """Return f(z), z itself without an f; of a user's own function, what it computes."""
    if activation is None:
        return z
    if isinstance(activation, LeakyReLU):
        return np.where(z > 0, z, activation.slope * z)
    if not knows(activation):
        a = np.array(z, dtype=float)
        activation.activate(get_backend("cpu"), a, np.empty_like(a))
        return a
    return np.asarray(_FUNCTIONS[type(activation)][0](z))


def slope(activation: Activation | None, z: Matrix) -> Matrix:
    """Return f'(z); of a user's own function, its slope by extrapolated differences."""
    if activation is None:
        return np.ones_like(z)
    if isinstance(activation, LeakyReLU):
        return np.where(z > 0, 1.0, activation.slope)
    if not knows(activation):
        h = 1e-3 * np.maximum(1.0, np.abs(z))
        near = (activate(activation, z + h / 8) - activate(activation, z - h / 8)) / (h / 4)
        far = (activate(activation, z + h / 4) - activate(activation, z - h / 4)) / (h / 2)
        return np.asarray((4.0 * near - far) / 3.0)
    return np.asarray(_FUNCTIONS[type(activation)][1](z))


# f and f', each from z
_FUNCTIONS: dict[type[Activation], tuple[Function, Function]] = {
    ReLU: (lambda z: np.where(z > 0, z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    Tanh: (np.tanh, lambda z: 1.0 / np.cosh(z) ** 2),
    Logistic: (special.expit, lambda z: special.expit(z) * special.expit(-z)),
    Identity: (lambda z: z, np.ones_like),
}


def pull_back(net: Network, x: Matrix, error: Matrix, flat: Matrix) -> Matrix:
    """Return the flat gradient that an output error (rows, outputs) causes: the chain rule."""
    matrices, biases = unflatten(net, flat)
    a, z = [x], []
    for k, (W, b) in enumerate(zip(matrices, biases, strict=True), start=1):
        z.append(a[-1] @ W + b)
        if k < len(matrices):
            a.append(activate(net.layers[k].activation, z[-1]))
    turned = net.direction == "backward"
    synapses = net.reversed.synapses[::-1] if turned else net.synapses
    weights: list[Any] = [None] * len(matrices)
    shares: list[Any] = [None] * len(matrices)
    for k in range(len(matrices), 0, -1):
        ends = (error, a[k - 1]) if turned else (a[k - 1], error)
        weights[k - 1] = weight_gradient_of(synapses[k - 1], *ends)
        count = net.layers[k].biases
        each = error.sum(axis=0)
        shares[k - 1] = np.array([each[c::count].sum() for c in range(count)])
        if k > 1:
            error = (error @ matrices[k - 1].T) * slope(net.layers[k - 1].activation, z[k - 2])
    untouched = np.zeros(sum(layer.biases for layer in net.layers[:-1]))
    if turned:
        parts = [W.reshape(-1) for W in weights[::-1]] + [untouched] + shares[::-1]
    else:
        parts = [W.reshape(-1) for W in weights] + shares + [untouched]
    return np.concatenate(parts)


def link(likelihood: Likelihood, z: Matrix) -> Matrix:
    """Return the activation of each row; of a user's own likelihood, what it computes."""
    if isinstance(likelihood, Multinomial):
        return np.asarray(special.softmax(z, axis=1))
    if isinstance(likelihood, Gaussian):
        return z
    if isinstance(likelihood, Bernoulli):
        return np.asarray(special.expit(z))
    return np.asarray(likelihood.at(z).a)


def precision(likelihood: Likelihood) -> float:
    """Return the factor of a − t: 1/v of a Gaussian, else the tempering weight."""
    if isinstance(likelihood, Gaussian):
        return 1.0 / likelihood.variance
    if isinstance(likelihood, Multinomial | Bernoulli):
        return likelihood.weight
    return likelihood.scale


def log_likelihood(likelihood: Likelihood, z: Matrix, t: Matrix) -> Matrix:
    """Return log p(t | z) of each row, for any real target."""
    if isinstance(likelihood, Multinomial):
        terms = likelihood.weight * t * special.log_softmax(z, axis=1)
    elif isinstance(likelihood, Gaussian):
        v = likelihood.variance
        terms = -((t - z) ** 2) / (2.0 * v) - 0.5 * math.log(2.0 * math.pi * v)
    else:
        assert isinstance(likelihood, Bernoulli)
        terms = t * special.log_expit(z) + (1.0 - t) * special.log_expit(-z)
        terms = likelihood.weight * terms
    return np.asarray(np.sum(terms, axis=1))


def gain_terms(likelihood: Likelihood, z: Matrix, t: Matrix, n: Matrix) -> Matrix:
    """Return log p(t + n) − log p(t), neuron by neuron."""
    if isinstance(likelihood, Multinomial):
        return np.asarray(likelihood.weight * n * special.log_softmax(z, axis=1))
    if isinstance(likelihood, Gaussian):
        return np.asarray(((t - z) ** 2 - (t + n - z) ** 2) / (2.0 * likelihood.variance))
    assert isinstance(likelihood, Bernoulli)
    return np.asarray(likelihood.weight * n * (special.log_expit(z) - special.log_expit(-z)))


def output_error(likelihood: Likelihood, z: Matrix, t: Matrix, update: str = "exact") -> Matrix:
    """Return −∂log p/∂z of each row; for ``published`` softmax noise, w (a − t) whatever Σ t is."""
    a = link(likelihood, z)
    if isinstance(likelihood, Gaussian):
        return (a - t) / likelihood.variance
    assert isinstance(likelihood, Multinomial | Bernoulli)
    if isinstance(likelihood, Multinomial) and update != "published":
        a = a * np.sum(t, axis=1, keepdims=True)
    return likelihood.weight * (a - t)
