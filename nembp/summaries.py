"""Tables of what the layers of a network hold and cost, whoever built it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nembp.convolution import AveragePooling, Convolution, Reshape
from nembp.descriptions import ConvolutionItem, PoolingItem, UpsamplingItem
from nembp.network import Network
from nembp.synapses import Dense, Synapse, Transposed

__all__ = ["LayerSummary", "describe"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerSummary:
    """A layer and the synapse that leads to it.

    Attributes
    ----------
    text : str
        As it is described; "input" for the lowest layer.
    shape : tuple of int
        (height, width, channels), or (neurons,).
    weights, biases, gains : int
        Weights of the synapse; biases of the layer in the direction of the net, and its gains γ
        where it is normalized.
    multiply_adds : int or None
        Of one sample on its way up; None for a synapse that is not of nembp.
    """

    text: str
    shape: Shape
    weights: int
    biases: int
    multiply_adds: int | None
    gains: int = 0


def describe(net: Network) -> list[LayerSummary]:
    """Return a row for each layer, as the net's direction goes.

    >>> from nembp.architectures import network
    >>> for row in describe(network((28, 28, 1), "conv8x4s2,32", 10)):
    ...     print(row.text, row.shape, row.weights, row.biases, row.multiply_adds)
    input (28, 28, 1) 0 0 0
    conv8x4s2 (14, 14, 8) 128 8 25088
    32 (32,) 50176 32 50176
    10 (10,) 320 10 320
    """
    below = _shape(Transposed(net.synapses[0]))
    rows = [LayerSummary("input", below, 0, 0, 0)]
    for layer, synapse in zip(net.layers[1:], net.synapses, strict=True):
        shape = _shape(synapse)
        text, uses = _text(synapse)
        text += "bn" if layer.normalization else ""
        count = synapse.weight_count
        adds = None if uses is None else count * uses
        rows.append(LayerSummary(text, shape, count, layer.biases, adds, layer.gains))
    return rows


def _unwrapped(synapse: Synapse) -> tuple[Synapse, bool]:
    """Return the synapse within `Transposed`, and whether it is used from its upper end."""
    turned = False
    while isinstance(synapse, Transposed):
        synapse, turned = synapse.synapse, not turned
    return synapse, turned


def _shape(synapse: Synapse) -> Shape:
    """Return the shape of the layer that a synapse leads to."""
    inner, turned = _unwrapped(synapse)
    shape: Any = getattr(inner, "shape" if turned else "output_shape", None)
    return tuple(shape) if shape is not None else (synapse.outputs,)


def _text(synapse: Synapse) -> tuple[str, int | None]:
    """Return how a synapse's upper layer is described, and how often it uses each weight."""
    inner, turned = _unwrapped(synapse)
    back = " transposed" if turned else ""
    if isinstance(inner, Dense):
        return str(synapse.outputs), 1
    if isinstance(inner, Convolution):
        height, width, _ = inner.output_shape
        sizes = inner.kernel, inner.stride, inner.padding
        strides = zip(inner.shape[:2], (height, width), inner.stride, strict=True)
        if turned and all(upper == lower * s for upper, lower, s in strides):
            return str(UpsamplingItem(inner.shape[2], *sizes)), height * width
        return f"{ConvolutionItem(inner.channels, *sizes)}{back}", height * width
    if isinstance(inner, AveragePooling):
        return f"{PoolingItem(inner.window, inner.stride)}{back}", 1
    if isinstance(inner, Reshape):
        return "reshape" + "x".join(map(str, _shape(synapse))), 1
    return f"{type(inner).__name__} of {synapse.outputs}{back}", None
