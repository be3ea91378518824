"""Gradients: one direction by the textbook, both directions by three sweeps (:mod:`nembp.joint`).

A gradient is that of the mean negative log-likelihood per sample (nats), a flat vector laid out
like ``net.parameters``; descending it climbs log p(y | x) + log p(x | y).
"""

from __future__ import annotations

from typing import Any

from nembp.backend import Array
from nembp.errors import ShapeError
from nembp.joint import JointBackpropagation, Path
from nembp.layers import add_bias
from nembp.likelihoods import Readout
from nembp.network import Network
from nembp.normalization import Statistics, normalizers

__all__ = ["JointBackpropagation", "Path", "backpropagate", "joint_gradient"]


def backpropagate(
    net: Network, x: Any, t: Any, *, statistics: Statistics = "batch"
) -> tuple[Array, Array]:
    """Return one direction's gradient, and its error at the input.

    Up, zᵏ = forward(aᵏ⁻¹) + bᵏ and aᵏ = f(zᵏ); then down from δᴸ = −∂log p/∂zᴸ / rows

        δᵏ⁻¹ = adjoint(δᵏ) ∘ f'(aᵏ⁻¹),   ∂/∂Wᵏ = weight_gradient(aᵏ⁻¹, δᵏ),   ∂/∂bᵏ = Σ_rows δᵏ:

    classical backpropagation, which maximum likelihood gives back in either direction (Adigun and
    Kosko 2019, theorems 1 and 2). Pass ``net.reversed`` for the other one. In a normalized layer
    (:mod:`nembp.normalization`) γ ẑ takes the place of forward(aᵏ⁻¹), and the error goes on through
    it once ∂/∂b is taken.

    Parameters
    ----------
    net : Network
        Seen from the direction to differentiate.
    x, t : array, shapes (rows, net.inputs) and (rows, net.outputs)
        Input and target of that direction.
    statistics : {"batch", "running"}
        What normalized layers normalize by. With ``"batch"``, as in training, the gradient is that
        of ``net.log_likelihood(x, t, "batch")``, where every row's normalization depends on all
        rows; with ``"running"`` that of ``net.log_likelihood(x, t)``, where each row is by itself.
        Both are exact, and neither moves the running statistics.

    Returns
    -------
    gradient : array, shape (parameter_count,)
        Zero at the other direction's biases and gains.
    input_error : array, shape (rows, net.inputs)
        ∂(−log p / rows)/∂x.
    """
    backend, xp, dtype = net.backend, net.backend.xp, net.dtype
    a = [net._check(x, net.inputs, "input")]  # of every layer but the last, which is o.a
    rows = a[0].shape[0]
    t = net._check(t, net.outputs, "target")
    if t.shape[0] != rows:
        raise ShapeError(f"target has {t.shape[0]} rows, but the input has {rows}")
    o = Readout.allocate(backend, rows, net.outputs, dtype)
    last = len(net.synapses)
    normal = normalizers(net, rows, statistics=statistics)
    for k, synapse in enumerate(net.synapses, start=1):
        layer = net.layers[k]
        z = o.z if k == last else backend.empty((rows, layer.size), dtype)
        synapse.forward(backend, a[k - 1], net.weights[k - 1], z)
        if (normalizer := normal[k]) is not None:
            normalizer.forward(z)
        add_bias(backend, z, net.biases[k], layer)
        if layer.activation is not None:
            layer.activation.activate(backend, z, xp.empty_like(z))
        a.append(z)
    net.likelihood.link(o)

    gradient = backend.zeros((net.parameter_count,), dtype)
    views = net.views(gradient)
    delta = backend.empty((rows, net.outputs), dtype)
    net.likelihood.error(o, t, delta, factor=1.0 / rows)  # δᴸ
    for k in range(last, 0, -1):
        synapse, below = net.synapses[k - 1], net.layers[k - 1]
        synapse.weight_gradient(backend, a[k - 1], delta, views.weights[k - 1])
        if (normalizer := normal[k]) is not None:
            views.biases[k][...] = normalizer.bias_gradient  # type: ignore[index]
            views.gains[k][...] = normalizer.gain_gradient  # type: ignore[index]
        elif net.layers[k].biases:
            per_channel = xp.reshape(delta, (-1, net.layers[k].biases))
            views.biases[k][...] = xp.sum(per_channel, axis=0)  # type: ignore[index]
        error = backend.empty((rows, below.size), dtype)
        synapse.adjoint(backend, delta, net.weights[k - 1], error)
        if below.activation is not None:
            scratch = xp.empty_like(error)
            below.activation.multiply_derivative(backend, error, a[k - 1], scratch)
        if (normalizer := normal[k - 1]) is not None:
            normalizer.pull_back(error)
        delta = error  # δᵏ⁻¹
    return gradient, delta


def joint_gradient(net: Network, x: Any, y: Any) -> Array:
    """Return the gradient of −[log p(y | x) + log p(x | y)] / rows by three sweeps.

    **Law**: it equals the sum of ``backpropagate(net, x, y)`` and
    ``backpropagate(net.reversed, y, x)``.

    >>> import numpy as np
    >>> from nembp.network import dense_network
    >>> net = dense_network([3, 5, 2], dtype="float64")
    >>> x, y = np.ones((4, 3)), np.eye(2)[[0, 1, 1, 0]]
    >>> both = backpropagate(net, x, y)[0] + backpropagate(net.reversed, y, x)[0]
    >>> bool(np.allclose(joint_gradient(net, x, y), both))
    True
    """
    x = net._check(x, net.inputs, "input")
    y = net._check(y, net.outputs, "target")
    if x.shape[0] != y.shape[0]:
        raise ShapeError(f"x has {x.shape[0]} rows, but y has {y.shape[0]}")
    step = JointBackpropagation(net, x.shape[0], path="samples")
    step.moves_statistics = False
    step.x[...] = x
    step.t[...] = y
    gradient = net.backend.zeros((net.parameter_count,), net.dtype)
    step(gradient)
    return gradient
