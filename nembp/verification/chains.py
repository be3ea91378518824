"""Random linear maps, and chains of them that fit one another, for the cases that laws are tried on.

Every number comes from ``pick(low, high)``, a whole number between two bounds, both included: a
NumPy generator's for :func:`~nembp.verification.cases.generate`, Hypothesis's for the strategies
of :mod:`nembp.testing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import NamedTuple

from nembp.engine.convolution import Convolution
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed

__all__ = ["Chain", "Pick", "random_chain", "random_linear_map"]

Pick = Callable[[int, int], int]
Shape = tuple[int, int, int]
SIDE, CHANNELS, NEURONS = 5, 3, 60  # at most, of one layer
WIDTH = 7  # of a layer that is no image
WEIGHTLESS = (AveragePooling, Reshape)


class Chain(NamedTuple):
    """Linear maps and the layers that they join.

    Attributes
    ----------
    sizes : tuple of int
        Neurons of each layer.
    maps : tuple of LinearMap
        Each joins two of the sizes.
    biases : tuple of int
        Of each layer.
    linear : tuple of int
        Hidden layers that have no activation, by index.
    """

    sizes: tuple[int, ...]
    maps: tuple[LinearMap, ...]
    biases: tuple[int, ...]
    linear: tuple[int, ...]


def random_linear_map(pick: Pick, kind: type[LinearMap] | None = None) -> LinearMap:
    """Return a small linear map of a kind, of any of nembp's by default."""
    kinds = (Dense, Convolution, AveragePooling, Reshape, Transposed)
    chosen = kind or kinds[pick(0, 4)]
    if chosen is Dense:
        return Dense(pick(1, WIDTH), pick(1, WIDTH))
    if chosen is Transposed:
        return Transposed(random_linear_map(pick))
    shape = _shape(pick)
    if chosen is Convolution:
        return _convolution(pick, shape)
    return _pooling(pick, shape) if chosen is AveragePooling else _reshape(pick, shape)


def random_chain(pick: Pick, count: int) -> Chain:
    """Return ``count`` linear maps that fit, of which the first or second has images to work on.

    Layers above a map without weights are mostly linear and without biases, as engines have them;
    other layers of images share their biases by channel, mostly.
    """
    here: tuple[int, ...] = _shape(pick)
    if count > 1 and pick(0, 3) == 0:
        here = (pick(1, WIDTH),)
    shapes, maps = [here], []
    for _ in range(count):
        linear_map, here = _next(pick, here)
        shapes.append(here)
        maps.append(linear_map)
    biases, linear = [], []
    for k, shape in enumerate(shapes):
        end = k in (0, count)
        plain = not end and isinstance(_inner(maps[k - 1]), WEIGHTLESS) and pick(0, 3) > 0
        if plain:
            linear.append(k)
        biases.append(0 if plain else _biases(pick, shape, end))
    sizes = tuple(math.prod(shape) for shape in shapes)
    return Chain(sizes, tuple(maps), tuple(biases), tuple(linear))


def _next(pick: Pick, here: tuple[int, ...]) -> tuple[LinearMap, tuple[int, ...]]:
    """Return a linear map above a layer of neurons or images, and the shape of the layer above it."""
    size = math.prod(here)
    if len(here) < 3:  # up to an image, or to other neurons
        shape: tuple[int, ...] = _shape(pick) if pick(0, 2) > 0 else (pick(1, WIDTH),)
        return Dense(size, math.prod(shape)), shape
    image = (here[0], here[1], here[2])
    choice = pick(0, 7)
    if choice == 0:
        width = pick(1, WIDTH)
        return Dense(size, width), (width,)
    if choice <= 3:
        forward = _convolution(pick, image)
        return forward, forward.output_shape
    if choice <= 5:
        turned = _convolution_to(pick, image)
        if turned is not None:
            return Transposed(turned), turned.shape
    if choice == 6:
        pooling = _pooling(pick, image)
        return pooling, pooling.output_shape
    reshape = _reshape(pick, image)
    return reshape, reshape.output_shape


def _inner(linear_map: LinearMap) -> LinearMap:
    return linear_map.linear_map if isinstance(linear_map, Transposed) else linear_map


def _biases(pick: Pick, shape: Sequence[int], end: bool) -> int:
    """Return how many biases a layer has: one a channel, a neuron, none, or any divisor."""
    size, choice = math.prod(shape), pick(0, 5)
    if len(shape) == 3 and choice <= (0 if end else 2):
        return shape[2]
    if choice == 4 and not end:
        return 0
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    return divisors[pick(0, len(divisors) - 1)] if choice == 5 else size


# -- one linear map -------------------------------------------------------------------------------
def _shape(pick: Pick) -> Shape:
    height, width = pick(1, SIDE), pick(1, SIDE)
    return height, width, pick(1, min(CHANNELS, NEURONS // (height * width)))


def _convolution(pick: Pick, shape: Shape) -> Convolution:
    """Return a convolution of images of a shape; sometimes 1 by 1, sometimes of the whole image.

    Strides may leave pixels over, and be longer than the kernel; some padding is needed by no
    window, and some windows see nothing but padding.
    """
    style = pick(0, 5)
    padding = (pick(0, 2), pick(0, 2)) if style > 1 else (0, 0)
    stride = (pick(1, 3), pick(1, 3))
    kernel = (1, 1) if style == 0 else (shape[0], shape[1])
    if style > 1:
        kernel = (
            pick(1, min(4, shape[0] + 2 * padding[0])),
            pick(1, min(4, shape[1] + 2 * padding[1])),
        )
    positions = 1
    for size, k, s, p in zip(shape, kernel, stride, padding, strict=False):
        positions *= (size + 2 * p - k) // s + 1
    channels = pick(1, max(1, min(CHANNELS, NEURONS // positions)))
    return Convolution(shape, channels, kernel, stride, padding)


def _convolution_to(pick: Pick, image: Shape) -> Convolution | None:
    """Return a convolution whose upper layer is ``image``; None where the lower one is too large.

    Its adjoint leads from the image to any size that the stride and padding allow.
    """
    stride, padding = (pick(1, 2), pick(1, 3)), (pick(0, 1), pick(0, 1))
    kernel, lower = [], []
    for size, s, p in zip(image, stride, padding, strict=False):
        k = pick(1, 3)
        over = pick(0, s - 1)  # pixels that the stride leaves
        below = s * (size - 1) + k - 2 * p + over
        if below < 1:
            k, below = k + 1 - below, 1
        kernel.append(k)
        lower.append(below)
    channels = pick(1, CHANNELS)
    if lower[0] * lower[1] * channels > NEURONS:
        return None
    shape = (lower[0], lower[1], channels)
    return Convolution(shape, image[2], (kernel[0], kernel[1]), stride, padding)


def _pooling(pick: Pick, shape: Shape) -> AveragePooling:
    """Return a pooling; windows may overlap, leave pixels over, or be the whole image."""
    window = (pick(1, shape[0]), pick(1, shape[1]))
    return AveragePooling(shape, window, (pick(1, 3), pick(1, 3)))


def _reshape(pick: Pick, shape: Shape) -> Reshape:
    """Return a reshape to any order of the axes, or to the one that they have."""
    orders = list(permutations(range(3)))
    choice = pick(0, len(orders))
    return Reshape(shape, None if choice == 0 else orders[choice - 1])
