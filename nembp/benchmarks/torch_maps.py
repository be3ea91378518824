"""Linear maps in PyTorch, as its users would write them: N C H W, one operator a direction.

A map goes up by its operator and down by that operator's transpose over the same parameter. Each
knows the engine's layout of its weights, N H W C, so that parameters can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from nembp.engine.convolution import Convolution
from nembp.engine.linear import AveragePooling, Dense, LinearMap
from nembp.engine.network import Layer

__all__ = [
    "TorchConvolution",
    "TorchDense",
    "TorchMap",
    "TorchPooling",
    "bias_host",
    "bias_tensor",
    "from_image",
    "get_map",
    "image_shapes",
    "to_image",
]

Host = np.ndarray[Any, Any]
Shape = tuple[int, int, int]  # height, width, channels


class TorchMap(Protocol):
    """One linear map: ``weight`` is its leaf tensor, None of a weightless one."""

    weight: Any

    def up(self, a: Any, bias: Any) -> Any:
        """Return the map of ``a``, plus the upper layer's bias (None: no bias)."""

    def down(self, c: Any, bias: Any) -> Any:
        """Return the transposed map of ``c``, plus the lower layer's bias (None: no bias)."""

    def host(self, tensor: Any) -> Host:
        """Return a tensor shaped like ``weight`` in the engine's layout."""


def get_map(
    torch: Any, linear_map: LinearMap, lower: Shape | None, W: Host, **options: Any
) -> TorchMap:
    """Return the map of a linear map that reads a layer of ``lower`` images, or of flat neurons.

    ``options`` are those of ``torch.tensor``.

    Raises
    ------
    TypeError
        If no map is known for it.
    """
    if isinstance(linear_map, Dense):
        return TorchDense(torch, lower, W, options)
    if isinstance(linear_map, Convolution):
        return TorchConvolution(torch, linear_map, W, options)
    if isinstance(linear_map, AveragePooling):
        return TorchPooling(torch, linear_map, W, options)
    raise TypeError(f"no peer is known for {linear_map}")


def image_shapes(maps: Sequence[LinearMap]) -> list[Shape | None]:
    """Return the shape of each layer's images, None where its neurons are flat."""
    shapes: list[Shape | None] = [None] * (len(maps) + 1)
    for k, linear_map in enumerate(maps):
        if isinstance(linear_map, (Convolution, AveragePooling)):
            shapes[k], shapes[k + 1] = linear_map.shape, linear_map.output_shape
    return shapes


def to_image(rows: Host, shape: Shape) -> Host:
    """Return rows (N, H W C) as an array (N, C, H, W)."""
    return rows.reshape(-1, *shape).transpose(0, 3, 1, 2)


def from_image(images: Host) -> Host:
    """Return an array (N, C, H, W) as rows (N, H W C)."""
    return images.transpose(0, 2, 3, 1).reshape(images.shape[0], -1)


def _shared(bias: Any) -> bool:
    """Whether a bias is one number a channel or a flat neuron, which every operator takes."""
    return bias is None or bias.dim() == 1


def _biased(images: Any, bias: Any) -> Any:
    """Return images plus a bias, one a channel or one a neuron (C, H, W)."""
    if bias is None:
        return images
    return images + (bias.view(-1, 1, 1) if bias.dim() == 1 else bias)


class TorchDense(TorchMap):
    """``linear``; images are flattened below it and unflattened again on the way down."""

    def __init__(self, torch: Any, lower: Shape | None, W: Host, options: dict[str, Any]) -> None:
        self._linear, self._lower = torch.nn.functional.linear, lower
        if lower is not None:  # rows of W from H W C to C H W
            W = W.reshape(*lower, -1).transpose(2, 0, 1, 3).reshape(W.shape)
        # nn.Linear's layout is (outputs, inputs), the transpose of ours
        self.weight = torch.tensor(np.ascontiguousarray(W.T), requires_grad=True, **options)

    def up(self, a: Any, bias: Any) -> Any:
        return self._linear(a.flatten(1), self.weight, bias)

    def down(self, c: Any, bias: Any) -> Any:
        if self._lower is None:
            return self._linear(c, self.weight.t(), bias)
        height, width, channels = self._lower
        images = self._linear(c, self.weight.t()).unflatten(1, (channels, height, width))
        return _biased(images, bias)

    def host(self, tensor: Any) -> Host:
        W: Host = tensor.detach().cpu().numpy().T
        if self._lower is None:
            return W
        height, width, channels = self._lower
        return W.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(W.shape)


class TorchConvolution(TorchMap):
    """``conv2d`` and, with the same kernels, ``conv_transpose2d``."""

    def __init__(
        self, torch: Any, linear_map: Convolution, W: Host, options: dict[str, Any]
    ) -> None:
        functional = torch.nn.functional
        self._up, self._down = functional.conv2d, functional.conv_transpose2d
        # nn.Conv2d's layout is (channels out, channels in, height, width)
        kernels = np.ascontiguousarray(W.reshape(linear_map.weight_shape).transpose(3, 2, 0, 1))
        self.weight = torch.tensor(kernels, requires_grad=True, **options)
        self._way = {"stride": linear_map.stride, "padding": linear_map.padding}
        self._left_over = _left_over(linear_map.shape, linear_map.kernel, **self._way)

    def up(self, a: Any, bias: Any) -> Any:
        if _shared(bias):
            return self._up(a, self.weight, bias, **self._way)
        return _biased(self._up(a, self.weight, **self._way), bias)

    def down(self, c: Any, bias: Any) -> Any:
        own = bias if _shared(bias) else None
        images = self._down(c, self.weight, own, output_padding=self._left_over, **self._way)
        return images if _shared(bias) else _biased(images, bias)

    def host(self, tensor: Any) -> Host:
        kernels: Host = tensor.detach().cpu().contiguous().numpy()
        return kernels.transpose(2, 3, 1, 0)


class TorchPooling(TorchMap):
    """``avg_pool2d`` and its transpose, a ``conv_transpose2d`` of each channel by itself."""

    weight = None

    def __init__(
        self, torch: Any, linear_map: AveragePooling, W: Host, options: dict[str, Any]
    ) -> None:
        functional = torch.nn.functional
        self._up, self._down = functional.avg_pool2d, functional.conv_transpose2d
        self._window, self._stride = linear_map.window, linear_map.stride
        self._channels = linear_map.shape[2]
        shape = (self._channels, 1, *linear_map.window)
        kernels = np.full(shape, 1.0 / math.prod(linear_map.window), dtype=W.dtype)
        self._kernels = torch.tensor(kernels, **options)
        self._left_over = _left_over(linear_map.shape, linear_map.window, linear_map.stride, (0, 0))

    def up(self, a: Any, bias: Any) -> Any:
        return _biased(self._up(a, self._window, self._stride), bias)

    def down(self, c: Any, bias: Any) -> Any:
        return _biased(
            self._down(
                c,
                self._kernels,
                stride=self._stride,
                groups=self._channels,
                output_padding=self._left_over,
            ),
            bias,
        )

    def host(self, tensor: Any) -> Host:
        return np.zeros(0)


def _left_over(
    shape: Shape, window: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, int]:
    """Return the pixels that no window reaches: the transpose's ``output_padding``."""
    height, width = (
        (shape[axis] + 2 * padding[axis] - window[axis]) % stride[axis] for axis in (0, 1)
    )
    return height, width


def bias_tensor(torch: Any, layer: Layer, shape: Shape | None, b: Host, **options: Any) -> Any:
    """Return a layer's bias as a leaf tensor: one a channel or flat neuron, or (C, H, W)."""
    if shape is not None and layer.biases == layer.size:
        b = to_image(b, shape)[0]
    return torch.tensor(np.ascontiguousarray(b), requires_grad=True, **options)


def bias_host(tensor: Any) -> Host:
    """Return a bias, or its gradient, in the engine's layout."""
    b: Host = tensor.detach().cpu().contiguous().numpy()
    return b if b.ndim == 1 else from_image(b[None])[0]
