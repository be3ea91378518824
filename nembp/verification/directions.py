"""A network's two directions, its batch and its parameters, as checks see them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.engine.network import Network
from nembp.errors import ShapeError
from nembp.verification.layout import Vector

__all__ = ["batch_of", "both_directions", "error_size", "host", "parameter_blocks"]


def host(net: Network, array: Any) -> Vector:
    """Return a float64 or complex copy of an array of the network's device."""
    copy = net.backend.to_numpy(array)
    return copy if copy.dtype.kind == "c" else copy.astype(float)


def both_directions(net: Network, x: Vector, y: Vector) -> list[tuple[Network, Vector, Vector]]:
    """Return each direction with its input and target."""
    return [(net, x, y), (net.reversed, y, x)]


def batch_of(net: Network, x: Any, y: Any) -> tuple[Vector, Vector]:
    """Return the batch on the host, in the precision of ``net``.

    Raises
    ------
    ShapeError
        If it does not fit the network.
    """
    x, y = host(net, net._check(x, net.inputs, "x")), host(net, net._check(y, net.outputs, "y"))
    if len(x) != len(y) or not len(x):
        raise ShapeError(f"x has {len(x)} rows and y has {len(y)}; give as many of both, 1 or more")
    return x, y


def parameter_blocks(net: Network) -> dict[str, tuple[int, ...]]:
    """Name the pieces of the flat vector: W1.., forward biases b1.., backward biases d0.. .

    Of normalized layers also gains, γ1.. of the forward direction and γ'1.. of the backward one.
    """
    primary = net if net.direction == "forward" else net.reversed
    blocks: dict[str, tuple[int, ...]] = {}
    for k, linear_map in enumerate(primary.maps, start=1):
        if linear_map.weight_count:
            blocks[f"W{k}"] = linear_map.weight_shape
    for k, layer in enumerate(primary.layers):
        if k > 0:
            blocks[f"b{k}"] = (layer.biases,)
    for k, layer in enumerate(primary.layers[:-1]):
        blocks[f"d{k}"] = (layer.biases,)
    for mark in ("", "'"):
        for k, layer in enumerate(primary.layers):
            if layer.gains:
                blocks[f"γ{mark}{k}"] = (layer.gains,)
    return blocks


def error_size(net: Network, source: Vector, target: Vector) -> float:
    """Return the size of what the output error subtracts, on which rounding acts."""
    a = np.abs(host(net, net.predict(source, "batch")))
    return net.likelihood.scale * float(np.max(a) + np.max(np.abs(target)))
