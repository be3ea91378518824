"""The engine's definitions written out a second time, in plain operators, row by row.

Nothing here calls the engine. The layout of the flat vector, the two directions and shared biases
are re-derived from their definition; ``signals`` runs on NumPy arrays and on torch tensors alike.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from scipy import special, stats

from nembp.likelihoods import Gaussian, Likelihood, Multinomial
from nembp.network import Network


def unflatten(net: Network, flat: Any) -> tuple[list[Any], list[Any]]:
    """Cut a flat vector into one direction's (inputs, outputs) matrices and per-neuron biases."""
    primary = net if net.direction == "forward" else net.reversed
    layers = primary.layers
    position, matrices = 0, []
    for below, above in pairwise(layers):
        count = below.size * above.size
        matrices.append(flat[position : position + count].reshape(below.size, above.size))
        position += count
    ends = []
    for group in (layers[1:], layers[:-1]):
        biases = []
        for layer in group:
            shared = flat[position : position + layer.biases]
            biases.append(shared[np.arange(layer.size) % layer.biases])  # neuron j: channel j mod c
            position += layer.biases
        ends.append(biases)
    assert position == flat.shape[0], "the flat vector has entries that no layer uses"
    if net.direction == "forward":
        return matrices, ends[0]
    return [W.T for W in matrices[::-1]], ends[1][::-1]


def signals(net: Network, flat: Any, x: Any, functions: dict[str, Any]) -> tuple[list[Any], Any]:
    """Return the activations of the layers 0..L-1 and the last pre-activation."""
    matrices, biases = unflatten(net, flat)
    activations = [x]
    for k, (W, b) in enumerate(zip(matrices, biases, strict=True), start=1):
        z = activations[-1] @ W + b
        if k == len(matrices):
            return activations, z
        activations.append(functions[net.layers[k].activation.name](z))
    raise AssertionError("a network has at least one synapse")


ACTIVATIONS = {
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "leaky-relu": lambda z: np.where(z > 0, z, 0.1 * z),
    "tanh": np.tanh,
    "logistic": special.expit,
    "identity": lambda z: z,
}
SLOPES = {
    "relu": lambda z: np.where(z > 0, 1.0, 0.0),
    "leaky-relu": lambda z: np.where(z > 0, 1.0, 0.1),
    "tanh": lambda z: 1.0 / np.cosh(z) ** 2,
    "logistic": lambda z: special.expit(z) * special.expit(-z),
    "identity": np.ones_like,
}


def pull_back(net: Network, x: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return the flat gradient that an output error (rows, outputs) causes: the chain rule."""
    matrices, biases = unflatten(net, net.parameters)
    a, z = [x], []
    for k, (W, b) in enumerate(zip(matrices, biases, strict=True), start=1):
        z.append(a[-1] @ W + b)
        if k < len(matrices):
            a.append(ACTIVATIONS[net.layers[k].activation.name](z[-1]))
    weights: list[Any] = [None] * len(matrices)
    shares: list[Any] = [None] * len(matrices)
    for k in range(len(matrices), 0, -1):
        weights[k - 1] = a[k - 1].T @ error
        layer = net.layers[k]
        shares[k - 1] = error.sum(axis=0).reshape(-1, layer.biases).sum(axis=0)
        if k > 1:
            slope = SLOPES[net.layers[k - 1].activation.name](z[k - 2])
            error = (error @ matrices[k - 1].T) * slope
    layers = net.layers
    untouched = np.zeros(sum(layer.biases for layer in layers[:-1]))
    if net.direction == "forward":
        parts = [W.reshape(-1) for W in weights] + shares + [untouched]
    else:
        parts = [W.T.reshape(-1) for W in weights[::-1]] + [untouched] + shares[::-1]
    return np.concatenate(parts)


def link(likelihood: Likelihood, z: np.ndarray) -> np.ndarray:
    """Return the activation of each row."""
    if isinstance(likelihood, Multinomial):
        return special.softmax(z, axis=1)
    return z if isinstance(likelihood, Gaussian) else special.expit(z)


def log_likelihood(likelihood: Likelihood, z: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return log p(t | z) of each row, for any real target, by SciPy's functions."""
    if isinstance(likelihood, Multinomial):
        return likelihood.weight * np.sum(t * special.log_softmax(z, axis=1), axis=1)
    if isinstance(likelihood, Gaussian):
        return np.sum(stats.norm.logpdf(t, loc=z, scale=np.sqrt(likelihood.variance)), axis=1)
    terms = t * special.log_expit(z) + (1.0 - t) * special.log_expit(-z)
    return likelihood.weight * np.sum(terms, axis=1)


def gain_terms(likelihood: Likelihood, z: np.ndarray, t: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return log p(t + n) − log p(t), neuron by neuron."""
    if isinstance(likelihood, Multinomial):
        return likelihood.weight * n * special.log_softmax(z, axis=1)
    if isinstance(likelihood, Gaussian):
        return ((t - z) ** 2 - (t + n - z) ** 2) / (2.0 * likelihood.variance)
    return likelihood.weight * n * (special.log_expit(z) - special.log_expit(-z))


def output_error(
    likelihood: Likelihood, z: np.ndarray, t: np.ndarray, update: str = "exact"
) -> np.ndarray:
    """Return −∂log p/∂z of each row; for ``published`` softmax noise, w (a − t) whatever Σ t is."""
    a = link(likelihood, z)
    if isinstance(likelihood, Gaussian):
        return (a - t) / likelihood.variance
    if isinstance(likelihood, Multinomial) and update != "published":
        a = a * np.sum(t, axis=1, keepdims=True)
    return likelihood.weight * (a - t)
