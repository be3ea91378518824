"""Networks from descriptions such as ``conv32x4s2,pool2,256``.

The language is that of :mod:`nembp.descriptions`. Entry k becomes layer k, joined to layer k - 1 by
synapse k. The output is joined densely to the last entry; an output image over a layer of images by
a convolution, transposed where it is larger. Hidden layers of images have one bias a channel in
each direction, dense ones and both ends one a neuron; pooled and reshaped layers have neither
biases nor an activation, in both directions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from numpy.typing import DTypeLike

from nembp.backend import Backend
from nembp.convolution import AveragePooling, Convolution, Reshape
from nembp.descriptions import (
    MOST,
    ConvolutionItem,
    DenseItem,
    Item,
    PoolingItem,
    ReshapeItem,
    UpsamplingItem,
    parse,
)
from nembp.errors import ArchitectureError
from nembp.likelihoods import Gaussian, Likelihood, Multinomial, get_likelihood
from nembp.network import Layer, Network
from nembp.neurons import Activation, get_activation
from nembp.normalization import BatchNormalization
from nembp.synapses import Dense, Synapse, Transposed

__all__ = ["chain", "generator_network", "network"]

Shape = tuple[int, ...]
TRIED_SIDES: Final = (8, 7, 6, 5, 4)  # of the image that an error message proposes


def network(
    input_shape: int | Sequence[int],
    description: str | Sequence[int | str | Item],
    outputs: int | Sequence[int],
    *,
    activation: str | Activation = "relu",
    forward: str | Likelihood | None = None,
    backward: str | Likelihood | None = None,
    device: str | Backend = "cpu",
    dtype: DTypeLike = "float32",
    seed: int = 0,
) -> Network:
    """Build a network that mixes dense, convolutional, pooling and upsampling layers.

    Parameters
    ----------
    input_shape : int or sequence of int
        Features of a table, or (height, width, channels) of an image.
    description : str, or sequence of int, str and Item
        Hidden layers (:mod:`nembp.descriptions`); "" for none.
    outputs : int or sequence of int
        Neurons of the output: classes or targets; or (height, width, channels) of an image.
    activation : str or Activation
        Of hidden layers, but for pooled and reshaped ones.
    forward, backward : str or Likelihood
        Ends of the two directions; multinomial and Gaussian with v = 1 by default.
    device, dtype, seed : str or Backend, dtype_like, int
        As in `Network`.

    Raises
    ------
    ArchitectureError
        If a layer does not fit the one below it: which, why, and what would.

    Examples
    --------
    >>> network((28, 28, 1), "conv8x4s2,pool2,32", 10)
    Network(784-1568-392-32-10, multinomial | gaussian, forward direction)
    >>> network((28, 28, 1), "conv8x4s2,conv16x30p0", 10)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    nembp.errors.ArchitectureError: layer 2 `conv16x30p0`: ...
    """
    layers, synapses = chain(input_shape, description, outputs, activation=activation)
    return Network(
        layers,
        synapses,
        Multinomial() if forward is None else get_likelihood(forward),
        Gaussian() if backward is None else get_likelihood(backward),
        device=device,
        dtype=dtype,
        seed=seed,
    )


def generator_network(
    latent: int,
    description: str | Sequence[int | str | Item],
    outputs: int | Sequence[int],
    **options: Any,
) -> Network:
    """Build a generator: a network from a latent vector z to samples.

    As `network`, with one difference: where the first entry reads images, z is an image of one
    pixel and ``latent`` channels, so that ``up128x4s4p0`` makes its first 4x4 image.

    Parameters
    ----------
    latent : int
        Size of z.
    description : str, or sequence of int, str and Item
        Hidden layers.
    outputs : int or sequence of int
        Features of a sample, or (height, width, channels) of an image.
    **options
        Of `network`.

    Raises
    ------
    ArchitectureError
        As `network`.

    Examples
    --------
    A generator as Radford, Metz and Chintala have it (DCGAN, arXiv:1511.06434), of 32x32 colours:

    >>> layers = "2048bn,reshape4x4x128,up64x4s2bn,up32x4s2bn"
    >>> generator_network(64, layers, (32, 32, 3), forward="bernoulli", backward="gaussian")
    Network(64-2048-2048-4096-8192-3072, bernoulli | gaussian, forward direction)
    """
    items = parse(description)
    from_image = (ConvolutionItem, PoolingItem, UpsamplingItem)
    z = (1, 1, latent) if isinstance(next(iter(items), None), from_image) else latent
    return network(z, items, outputs, **options)


def chain(
    input_shape: int | Sequence[int],
    description: str | Sequence[int | str | Item],
    outputs: int | Sequence[int],
    *,
    activation: str | Activation = "relu",
) -> tuple[list[Layer], list[Synapse]]:
    """Return the layers and synapses of a network, as `network` and with its errors."""
    shape, end = _as_shape(input_shape, "input"), _as_shape(outputs, "output")
    hidden = get_activation(activation)
    layers, synapses = [Layer(math.prod(shape))], []
    for number, item in enumerate(parse(description), start=1):
        below = f"layer {number - 1}" if number > 1 else "the input"
        synapse, shape = _joined(item, shape, f"layer {number} `{item}`", below)
        synapses.append(synapse)
        layers.append(_layer(item, synapse.outputs, hidden))
    below = f"layer {len(layers) - 1}" if len(layers) > 1 else "the input"
    synapse, _ = _joined(_output(end, shape, below), shape, "the output", below)
    return [*layers, Layer(synapse.outputs)], [*synapses, synapse]


def _as_shape(value: int | Sequence[int], what: str) -> Shape:
    shape = (value,) if isinstance(value, int) else tuple(value)
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise ArchitectureError(
            f"an {what} of shape {shape}; expected (features,) or (height, width, channels)"
        )
    return shape


def _layer(item: Item, size: int, hidden: Activation) -> Layer:
    if isinstance(item, (PoolingItem, ReshapeItem)):
        return Layer(size, None, bias_size=0)
    normalization = BatchNormalization() if item.normalized else None
    channels = None if isinstance(item, DenseItem) else item.channels
    return Layer(size, hidden, channels, normalization)


def _output(end: Shape, shape: Shape, below: str) -> Item:
    """Return what joins an output to the layer below it, of ``shape``."""
    if len(end) < 3 or len(shape) < 3:
        return DenseItem(math.prod(end))
    (height, down), (width, across) = (divmod(end[k], shape[k]) for k in (0, 1))
    if down or across or not (height and width):
        raise ArchitectureError(
            f"the output: an image {_by(end[:2])} is no whole multiple of the {_by(shape[:2])} "
            f"image of {below}; expected sides that divide {_by(end[:2])}, or a dense layer last"
        )
    kernel = height + 2, width + 2  # every pixel is reached from the pixels around it
    padding = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
    kind = ConvolutionItem if height == width == 1 else UpsamplingItem
    return kind(end[2], kernel, (height, width), padding)


# -- does it fit -----------------------------------------------------------------------------------
def _joined(item: Item, shape: Shape, name: str, below: str) -> tuple[Synapse, Shape]:
    """Return the synapse to a layer of this item over one of ``shape``, and its own shape."""
    try:
        synapse, upper = _synapse(item, shape, below)
        for count, what in ((synapse.outputs, "neurons"), (synapse.weight_count, "weights")):
            if count > MOST:
                raise ArchitectureError(
                    f"it would have {count:,} {what}; expected at most {MOST:,}"
                )
    except ArchitectureError as error:
        raise ArchitectureError(f"{name}: {error}") from None
    return synapse, upper


def _synapse(item: Item, shape: Shape, below: str) -> tuple[Synapse, Shape]:
    if isinstance(item, DenseItem):
        return Dense(math.prod(shape), item.size), (item.size,)
    if isinstance(item, ReshapeItem):
        return _reshape(item, shape, below)
    if len(shape) != 3:
        raise ArchitectureError(_no_image(item, shape, below))
    height, width, channels = shape
    image = (height, width, channels)
    if isinstance(item, ConvolutionItem):
        _check_window(item.kernel, item.padding, image, "kernel", below)
        convolution = Convolution(image, item.channels, item.kernel, item.stride, item.padding)
        return convolution, convolution.output_shape
    if isinstance(item, PoolingItem):
        _check_window(item.window, (0, 0), image, "window", below)
        pooling = AveragePooling(image, item.window, item.stride)
        return pooling, pooling.output_shape
    _check_upsampling(item)
    upper = (height * item.stride[0], width * item.stride[1], item.channels)
    return Transposed(Convolution(upper, channels, item.kernel, item.stride, item.padding)), upper


def _reshape(item: ReshapeItem, shape: Shape, below: str) -> tuple[Synapse, Shape]:
    wanted, found = math.prod(item.shape), math.prod(shape)
    if wanted != found:
        raise ArchitectureError(
            f"{_by(item.shape)} are {wanted} neurons, but {below} has {found}; expected a shape of "
            f"{found}{_proposal(found)}, or a layer of {wanted} before it"
        )
    return Reshape(item.shape), item.shape


def _no_image(item: Item, shape: Shape, below: str) -> str:
    kind = "a pooling" if isinstance(item, PoolingItem) else "a convolution"
    what = f"a row of {shape[0]} features" if below == "the input" else f"{shape[0]} dense neurons"
    return (
        f"{kind} reads an image, but {below} is {what}; expected reshapeHxWxC before it"
        f"{_proposal(shape[0])}, or dense layers such as 256"
    )


def _proposal(size: int) -> str:
    """Return ", such as reshape8x8x4" where a size makes an image, else ""."""
    sides = (side for side in TRIED_SIDES if size % side**2 == 0)
    side = next(sides, 0)
    return f", such as reshape{side}x{side}x{size // side**2}" if side else ""


def _check_window(
    window: tuple[int, int], padding: tuple[int, int], image: Shape, what: str, below: str
) -> None:
    sides = ("height", "width") if window[0] != window[1] or image[0] != image[1] else ("", "")
    for k, p, size, side in zip(window, padding, image[:2], sides, strict=True):
        most = size + 2 * p
        if k > most:
            why = f" ({size} + twice the padding {p}), a larger padding" if p else ""
            fewer = "" if below == "the input" else ", or fewer strided layers before it"
            raise ArchitectureError(
                f"{what} {side}{' ' if side else ''}{k} does not fit the {_by(image[:2])} image of "
                f"{below}; expected at most {most}{why}{fewer}"
            )


def _check_upsampling(item: UpsamplingItem) -> None:
    """Raise unless h·s is among the sizes that the convolution leads to h: 2p < k ≤ 2p + s."""
    for k, s, p in zip(item.kernel, item.stride, item.padding, strict=True):
        if not 2 * p < k <= 2 * p + s:
            least, most = max(0, -((s - k) // 2)), (k - 1) // 2
            if least > most:
                remedy = f"an odd kernel, or a stride of 2: kernel {k} and stride {s} never do"
            else:
                remedy = f"a padding of {least}" + (f" to {most}" if most > least else "")
            raise ArchitectureError(
                f"kernel {k}, stride {s} and padding {p} do not multiply the image's sides by {s}; "
                f"expected {remedy}"
            )


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))
