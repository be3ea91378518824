"""The engine's definitions written out a second time, in plain operators, row by row.

Nothing here calls the engine, but for the matrix of a linear map that is not nembp's own
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
from nembp.engine.activations import Activation, Identity, LeakyReLU, Logistic, ReLU, Tanh
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.engine.network import Network
from nembp.verification.laws.matrices import matrix_of, weight_gradient_of

__all__ = [
    "activate",
    "gain_terms",
    "knows",
    "link",
    "log_likelihood",
    "normalize",
    "output_error",
    "precision",
    "pull_back",
    "run",
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


def unflatten(net: Network, flat: Any) -> list[tuple[Any, Any, Any]]:
    """Cut a flat vector into one direction's matrices (inputs, outputs), biases and gains, by step.

    Biases are one a neuron, 0.0 for a layer that has none; gains one a channel, None for a layer
    that is not normalized.
    """
    primary = net if net.direction == "forward" else net.reversed
    layers = primary.layers
    position, matrices = 0, []
    for linear_map in primary.maps:
        piece = flat[position : position + linear_map.weight_count]
        matrices.append(matrix_of(linear_map, piece.reshape(linear_map.weight_shape)))
        position += linear_map.weight_count
    ends: list[list[Any]] = []
    for group in (layers[1:], layers[:-1]):
        biases = []
        for layer in group:
            shared = flat[position : position + layer.biases]
            position += layer.biases
            channel = np.arange(layer.size) % max(layer.biases, 1)  # neuron j: channel j mod c
            biases.append(shared[channel] if layer.biases else 0.0)
        ends.append(biases)
    for group in (layers[1:], layers[:-1]):
        gains = []
        for layer in group:
            count = 0 if layer.normalization is None else layer.biases
            gains.append(flat[position : position + count] if count else None)
            position += count
        ends.append(gains)
    assert position == flat.shape[0], "the flat vector has entries that no layer uses"
    if net.direction == "forward":
        return list(zip(matrices, ends[0], ends[2], strict=True))
    matrices = [W.T for W in matrices]
    return list(zip(matrices, ends[1], ends[3], strict=True))[::-1]


def signals(
    net: Network,
    flat: Any,
    x: Any,
    functions: Mapping[str, Function] | None = None,
    statistics: str = "batch",
) -> tuple[list[Any], Any]:
    """Return the activations of the layers 0..L-1 and the last pre-activation.

    ``functions`` holds the activations by name, where not NumPy's but another library's are meant.
    """
    a, y, _ = run(net, flat, x, functions, statistics)
    return a, y[-1]


def run(
    net: Network,
    flat: Any,
    x: Any,
    functions: Mapping[str, Function] | None = None,
    statistics: str = "batch",
    noise: Mapping[int, Matrix] | None = None,
) -> tuple[list[Any], list[Any], list[Any]]:
    """Return what there is on the way up, with ``noise`` on the signals of some layers.

    The activations of the layers 0..L-1; for the layers 1..L the pre-activations that activations
    see, and what `normalize` returns, None where a layer is not normalized.
    """
    noise = noise or {}
    a, y = [x + noise[0] if 0 in noise else x], []
    normal: list[Any] = []
    for k, (W, b, gain) in enumerate(unflatten(net, flat), start=1):
        z = a[-1] @ W
        normal.append(None if gain is None else normalize(net, k, z, gain, statistics))
        y.append((z if gain is None else normal[-1][0]) + b)
        f = net.layers[k].activation
        if k == len(net.maps):
            break
        signal = y[-1]
        if f is not None:
            signal = activate(f, y[-1]) if functions is None else functions[f.name](y[-1])
        a.append(signal + noise[k] if k in noise else signal)
    return a, y, normal


def normalize(net: Network, k: int, z: Any, gain: Any, statistics: str = "batch") -> Any:
    """Return γ ẑ, ẑ, and the mean and variance of each channel that they were made with."""
    layer = net.layers[k]
    assert layer.normalization is not None
    values = z.reshape(-1, layer.biases)
    mean = values.mean(0)
    variance = ((values - mean) ** 2).mean(0)
    if statistics == "running":
        running = net.running[k]
        assert running is not None
        mean, variance = (net.backend.to_numpy(each) for each in running)
    hat = (values - mean) / (variance + layer.normalization.epsilon) ** 0.5
    return (hat * gain).reshape(z.shape), hat.reshape(z.shape), mean, variance


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


def pull_back(
    net: Network,
    x: Matrix,
    error: Matrix,
    flat: Matrix,
    statistics: str = "batch",
    noise: Mapping[int, Matrix] | None = None,
) -> Matrix:
    """Return the flat gradient that an output error (rows, outputs) causes: the chain rule.

    ``noise`` on a signal is seen by the next linear map, not by the derivative of the activation.
    """
    steps = unflatten(net, flat)
    a, y, normal = run(net, flat, x, statistics=statistics, noise=noise)
    turned = net.direction == "backward"
    maps = net.reversed.maps[::-1] if turned else net.maps
    weights: list[Any] = [None] * len(steps)
    shares: list[Any] = [None] * len(steps)
    slopes: list[Any] = [None] * len(steps)
    for k in range(len(steps), 0, -1):
        W, _, gain = steps[k - 1]
        shares[k - 1] = _over_channels(error, net.layers[k].biases)
        slopes[k - 1] = np.zeros(0)
        if gain is not None:
            slopes[k - 1] = _over_channels(error * normal[k - 1][1], gain.size)
            error = _through(net, k, error, gain, normal[k - 1], statistics)
        ends = (error, a[k - 1]) if turned else (a[k - 1], error)
        weights[k - 1] = weight_gradient_of(maps[k - 1], *ends)
        if k > 1:
            error = (error @ W.T) * slope(net.layers[k - 1].activation, y[k - 2])
    counts = [(layer.biases, layer.gains) for layer in net.layers[:-1]]
    still = [np.zeros(sum(each)) for each in zip(*counts, strict=True)]
    if turned:
        parts = [W.reshape(-1) for W in weights[::-1]]
        parts += [still[0], *shares[::-1], still[1], *slopes[::-1]]
    else:
        parts = [W.reshape(-1) for W in weights] + [*shares, still[0], *slopes, still[1]]
    return np.concatenate(parts)


def _over_channels(error: Matrix, count: int) -> Matrix:
    each = error.sum(axis=0)
    return np.array([each[c::count].sum() for c in range(count)])


def _through(
    net: Network, k: int, error: Matrix, gain: Matrix, normal: Any, statistics: str
) -> Matrix:
    """Return ∂/∂z from ∂/∂y by each channel's whole matrix of ∂y/∂z, every value by every other."""
    layer, (_, hat, _, variance) = net.layers[k], normal
    assert layer.normalization is not None
    result, scale = np.empty_like(error), gain / np.sqrt(variance + layer.normalization.epsilon)
    for c in range(layer.biases):
        each, values = error[:, c :: layer.biases], hat[:, c :: layer.biases].reshape(-1)
        jacobian = np.eye(values.size)
        if statistics == "batch":
            jacobian -= (1.0 + np.outer(values, values)) / values.size
        product = scale[c] * jacobian.T @ each.reshape(-1)
        result[:, c :: layer.biases] = product.reshape(each.shape)
    return result


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
