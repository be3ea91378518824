"""How the suites' networks are written: ``784-512-10``, ``32x32x3/conv32x4s2/256/10``."""

from __future__ import annotations

import re
from typing import Final

from nembp.architecture import ConvolutionItem, DenseItem, Item, PoolingItem, network, parse
from nembp.engine.convolution import Convolution
from nembp.errors import ArchitectureError

__all__ = ["check_images", "convolution_of", "parse_images", "parse_network"]

Shape = tuple[int, int, int]
EXAMPLES: Final = "32x32x3/conv32x4s2/256/10 (a network) or 16x16x32/conv64x4s2 (a layer)"


def parse_network(text: str) -> tuple[int, ...]:
    """Return the sizes of the layers of ``784-512-512-10``.

    Raises
    ------
    ArchitectureError
        If ``text`` is not of that form, or has fewer than two classes.

    >>> parse_network("784-256-10")
    (784, 256, 10)
    """
    parts = text.split("-")
    if len(parts) < 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ArchitectureError(
            f"{text!r} is no dense network; expected the sizes of its layers, as in 784-512-512-10"
        )
    sizes = tuple(int(part) for part in parts)
    if sizes[-1] < 2:
        raise ArchitectureError(f"{text!r} has 1 output neuron; a classifier needs at least 2")
    return sizes


def parse_images(text: str) -> tuple[Shape, tuple[Item, ...]]:
    """Return the image (height, width, channels) and the layers above it, the classes last.

    The layers are entries of ``nembp train --layers``, separated by slashes. One convolution alone
    is a layer to time by itself.

    Raises
    ------
    ArchitectureError
        If ``text`` is neither.

    >>> shape, layers = parse_images("32x32x3/conv32x4s2/10")
    >>> shape, ",".join(map(str, layers))
    ((32, 32, 3), 'conv32x4s2,10')
    """
    first, *entries = text.split("/")
    sizes = re.fullmatch("([1-9][0-9]{0,8})x([1-9][0-9]{0,8})x([1-9][0-9]{0,8})", first)
    if sizes is None or not entries:
        raise ArchitectureError(
            f"{text!r} is no network of images; expected height x width x channels and the layers, "
            f"as in {EXAMPLES}"
        )
    height, width, channels = map(int, sizes.groups())
    try:
        items = parse(entries, "it")
    except ArchitectureError as error:
        raise ArchitectureError(f"{text!r}: {error}") from None
    for item in items:
        if not isinstance(item, (ConvolutionItem, DenseItem, PoolingItem)):
            raise ArchitectureError(
                f"{text!r} has {item}; this suite times conv, pool and dense layers"
            )
        if not isinstance(item, PoolingItem) and item.normalized:
            raise ArchitectureError(f"{text!r} has {item}; this suite times layers without bn")
    last = items[-1]
    alone = len(items) == 1 and isinstance(last, ConvolutionItem)
    if not alone and not (isinstance(last, DenseItem) and last.size > 1):
        raise ArchitectureError(
            f"{text!r} ends in {last}; expected a number of classes of at least 2, or one "
            f"convolution alone, as in {EXAMPLES}"
        )
    return (height, width, channels), items


def convolution_of(text: str) -> Convolution | None:
    """Return the convolution of a layer to time by itself; None of a network.

    >>> convolution_of("16x16x32/conv64x4s2").output_shape
    (8, 8, 64)
    """
    shape, items = parse_images(text)
    if not isinstance(items[-1], ConvolutionItem):
        return None
    item = items[-1]
    return Convolution(shape, item.channels, item.kernel, item.stride, item.padding)


def check_images(text: str) -> None:
    """Raise ArchitectureError, naming ``text``, unless it is a network or layer that fits."""
    shape, items = parse_images(text)
    hidden = items if isinstance(items[-1], ConvolutionItem) else items[:-1]
    try:
        network(shape, hidden, 2)
    except ArchitectureError as error:
        raise ArchitectureError(f"{text!r}: {error}") from None
