"""Where the hidden neurons of a small network start."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from nembp.engine.linear import Dense
from nembp.engine.network import Network
from nembp.errors import ShapeError

__all__ = ["spread_first_layer"]


def spread_first_layer(net: Network, points: ArrayLike, gain: float = 1.0) -> None:
    """Let the first hidden layer's hyperplanes go through points of the data, not all through 0.

    W¹ ← gain · W¹ and b¹ⱼ = −⟨xⱼ, W¹ⱼ⟩, so that neuron j is at 0 in the point xⱼ. With biases of
    zero all neurons turn at the origin, and few of them tell modes apart that are far from it. A
    gain makes them turn in less space. Of this direction; of the other one with ``net.reversed``.

    Parameters
    ----------
    points : array, shape (neurons, inputs)
        As the network sees them; one a neuron.
    gain : float
        What multiplies the first weights.

    Raises
    ------
    ShapeError
        If the first linear map is not dense, its layer shares biases, or ``points`` do not fit.

    >>> from nembp.engine.network import dense_network
    >>> net = dense_network([2, 3, 1], activation="tanh", seed=0)
    >>> x = np.array([[1.0, 2.0], [3.0, 4.0], [-5.0, 6.0]])
    >>> spread_first_layer(net, x)
    >>> z = x @ net.weights[0] + net.biases[1]
    >>> bool(np.allclose(np.diag(z), 0.0, atol=1e-5))
    True
    """
    x, layer, bias = np.asarray(points, dtype=float), net.layers[1], net.biases[1]
    if not isinstance(net.maps[0], Dense) or bias is None or layer.biases != layer.size:
        raise ShapeError(
            "the first layer cannot be spread: expected a dense linear map to a layer with a bias for "
            f"each of its {layer.size} neurons; leave the option out"
        )
    if x.shape != (layer.size, net.inputs):
        raise ShapeError(
            f"points have shape {x.shape}; expected one a neuron, ({layer.size}, {net.inputs})"
        )
    backend, W = net.backend, net.weights[0]
    backend.into(W, backend.xp.multiply, W, gain)
    columns = backend.to_numpy(W).astype(float)
    bias[...] = backend.asarray(-np.sum(x * columns.T, axis=1), net.dtype)
