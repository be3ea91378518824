"""The language in which ``--layers`` describes networks: ``conv32x4s2,pool2,256``.

===================== ============================================================================
entry                 hidden layer
===================== ============================================================================
``256``               256 neurons, joined to all below
``conv32x4s2``        convolution: 32 channels, kernel 4x4, stride 2 (1 where left out), padding
                      (k - 1) // 2, or as in ``conv32x4s2p0``
``pool2``             average pooling of windows 2x2, stride 2; ``pool3s2``: windows 3x3, stride 2
``up64x4s2``          transposed convolution: 64 channels, sides times the stride (2 where left out)
``reshape4x4x128``    the neurons below seen as an image of height 4, width 4, 128 channels
``256bn``             with batch normalization, as in ``conv32x4s2bn`` and ``up64x4s2bn``
===================== ============================================================================

Where height and width differ, a number becomes two: ``conv16x3-5s1-2p1-2``. With the padding of its
own, a convolution keeps the sides at an odd kernel and stride 1, and halves even ones at stride 2
and kernel 3 or more. Sizes are checked where a network is built: :mod:`nembp.architecture`.

Nothing here imports NumPy, so that ``nembp --help`` is instant.

Networks from descriptions such as ``conv32x4s2,pool2,256``.

The language is that of :mod:`nembp.architecture`. Entry k becomes layer k, joined to layer k - 1 by
linear map k. The output is joined densely to the last entry; an output image over a layer of images by
a convolution, transposed where it is larger. Hidden layers of images have one bias a channel in
each direction, dense ones and both ends one a neuron; pooled and reshaped layers have neither
biases nor an activation, in both directions.

Tables of what the layers of a network hold and cost, whoever built it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Final, TypeAlias

from numpy.typing import DTypeLike

from nembp.backend import Backend
from nembp.engine.activations import Activation, get_activation
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Gaussian, Likelihood, Multinomial, get_likelihood
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Layer, Network
from nembp.errors import ArchitectureError

Pair: TypeAlias = tuple[int, int]  # height, width

MOST: Final = 999_999_999  # of anything that is counted
EXAMPLES: Final = "such as 256, conv32x4s2, pool2, up64x4s2 or reshape4x4x128"


@dataclass(frozen=True)
class DenseItem:
    """So many neurons, joined to all below."""

    size: int
    normalized: bool = False

    def __str__(self) -> str:
        return f"{self.size}{_shown_normalization(self)}"


@dataclass(frozen=True)
class ConvolutionItem:
    """A convolution; kernel, stride and padding are (height, width)."""

    channels: int
    kernel: Pair
    stride: Pair
    padding: Pair
    normalized: bool = False

    def __str__(self) -> str:
        stride = "" if self.stride == (1, 1) else f"s{_shown(self.stride)}"
        end = _shown_padding(self) + _shown_normalization(self)
        return f"conv{self.channels}x{_shown(self.kernel)}{stride}{end}"


@dataclass(frozen=True)
class UpsamplingItem:
    """A transposed convolution that multiplies the sides by its stride."""

    channels: int
    kernel: Pair
    stride: Pair
    padding: Pair
    normalized: bool = False

    def __str__(self) -> str:
        kernel, stride = _shown(self.kernel), _shown(self.stride)
        end = _shown_padding(self) + _shown_normalization(self)
        return f"up{self.channels}x{kernel}s{stride}{end}"


@dataclass(frozen=True)
class PoolingItem:
    """Average pooling."""

    window: Pair
    stride: Pair

    def __str__(self) -> str:
        stride = "" if self.stride == self.window else f"s{_shown(self.stride)}"
        return f"pool{_shown(self.window)}{stride}"


@dataclass(frozen=True)
class ReshapeItem:
    """The neurons below seen as an image (height, width, channels)."""

    shape: tuple[int, int, int]

    def __str__(self) -> str:
        return "reshape" + "x".join(map(str, self.shape))


Item: TypeAlias = DenseItem | ConvolutionItem | UpsamplingItem | PoolingItem | ReshapeItem


def parse(value: Any, name: str = "layers") -> tuple[Item, ...]:
    """Read a description of hidden layers.

    Parameters
    ----------
    value : str, or sequence of int, str and Item
        Entries, in text separated by commas; "" or an empty sequence is no hidden layer.
    name : str
        What messages call it.

    Raises
    ------
    ArchitectureError
        Naming the entry that is none, and what it lacks.

    Examples
    --------
    >>> parse("conv32x4s2, 256")[0]
    ConvolutionItem(channels=32, kernel=(4, 4), stride=(2, 2), padding=(1, 1), normalized=False)
    >>> ",".join(map(str, parse("CONV8x3s1p1, pool2s2, 64")))
    'conv8x3,pool2,64'
    >>> parse("cnov8x3")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    nembp.errors.ArchitectureError: layers has 'cnov8x3' as layer 1: did you mean conv?...
    """
    if isinstance(value, str):
        entries: Sequence[Any] = value.split(",") if value.strip() else ()
    elif isinstance(value, Sequence):
        entries = value
    else:
        raise ArchitectureError(f'{name} must be layers, as in "conv32x4s2,256", got {value!r:.80}')
    items = []
    for number, entry in enumerate(entries, start=1):
        try:
            items.append(_item(entry))
        except ArchitectureError as error:
            shown = entry.strip() if isinstance(entry, str) else entry
            raise ArchitectureError(
                f"{name} has {shown!r:.40} as layer {number}: {error}"
            ) from None
    return tuple(items)


def plain(items: Iterable[Item]) -> tuple[int | str, ...]:
    """Return entries as configurations hold them: sizes of plain dense layers, text of the others.

    >>> plain(parse("conv8x3,64"))
    ('conv8x3', 64)
    """
    written = (str(item) for item in items)
    return tuple(int(text) if text.isdecimal() else text for text in written)


# -- one entry -------------------------------------------------------------------------------------
_NUMBER: Final = "[0-9]{1,9}"  # longer ones are no sizes
_PAIR: Final = f"{_NUMBER}(?:-{_NUMBER})?"
# word: (what must follow it, letters that may follow that, how it reads)
_FORMS: Final = {
    "conv": (
        f"({_NUMBER})x({_PAIR})",
        "sp",
        "conv32x4s2p1: 32 channels, kernel 4x4 (or 3-5: 3 high, 5 wide), stride 2, padding 1; "
        "s and p can be left out, and bn added at the end",
    ),
    "up": (
        f"({_NUMBER})x({_PAIR})",
        "sp",
        "up64x4s2p1: 64 channels, kernel 4x4 (or 3-5: 3 high, 5 wide), stride 2, padding 1; "
        "s and p can be left out, and bn added at the end",
    ),
    "pool": (f"({_PAIR})", "s", "pool3s2: windows 3x3, stride 2; s can be left out"),
    "reshape": (
        f"({_NUMBER})x({_NUMBER})x({_NUMBER})",
        "",
        "reshape4x4x128: height, width, channels",
    ),
}
# what others call it
_HINTS: Final = {
    **dict.fromkeys(("dense", "fc", "linear"), "a dense layer is its number of neurons alone"),
    "convolution": "did you mean conv?",
    **dict.fromkeys(("deconv", "upconv", "upsample", "tconv"), "did you mean up?"),
    **dict.fromkeys(("avgpool", "averagepool", "meanpool"), "did you mean pool?"),
    "maxpool": "pooling is by averages, as in pool2, since a maximum has no transpose",
    "flatten": "a dense layer reads images as they are; leave it out",
    "view": "did you mean reshape?",
    **dict.fromkeys(("bn", "batchnorm"), "bn ends the layer that it normalizes, as in 256bn"),
}


def _item(entry: Any) -> Item:
    if isinstance(entry, Item):
        return entry
    if isinstance(entry, Integral) and not isinstance(entry, bool):  # NumPy's too
        return DenseItem(_positive(int(entry), "neurons"))
    text = entry.strip().lower() if isinstance(entry, str) else ""
    if dense := re.fullmatch(f"({_NUMBER})(bn)?", text):
        return DenseItem(_positive(int(dense[1]), "neurons"), bool(dense[2]))
    word, rest = re.fullmatch("([a-z]*)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if not word:
        raise ArchitectureError(f"expected a whole number of neurons ≥ 1, or layers {EXAMPLES}")
    if word not in _FORMS:
        raise ArchitectureError(f"{_hint(word)}; expected layers {EXAMPLES}")
    form, letters, reads = _FORMS[word]
    more = f"((?:[{letters}]{_PAIR})*)" if letters else "()"
    found = re.fullmatch(f"{form}{more}(bn)?", rest)
    if found is None:
        raise ArchitectureError(f"expected it as in {reads}")
    *numbers, more, normalized = found.groups()
    if normalized and word in ("pool", "reshape"):
        raise ArchitectureError(
            f"a {word} layer has no neurons of its own to normalize; expected bn on a dense, conv "
            "or up layer, as in 256bn or conv32x4s2bn"
        )
    pairs = re.findall(f"([a-z])({_PAIR})", more)
    if len(dict(pairs)) < len(pairs):
        raise ArchitectureError(f"it says {pairs[0][0]} twice; expected it as in {reads}")
    options = {letter: _pair(text) for letter, text in pairs}
    return _build(word, numbers, options, normalized=bool(normalized))


def _build(
    word: str, numbers: Sequence[str], options: Mapping[str, Pair], *, normalized: bool
) -> Item:
    if word == "reshape":
        height, width, channels = (_positive(int(n), "pixels or channels") for n in numbers)
        return ReshapeItem((height, width, channels))
    if word == "pool":
        window = _positives(_pair(numbers[0]), "window")
        return PoolingItem(window, _positives(options.get("s", window), "stride"))
    channels = _positive(int(numbers[0]), "channels")
    kernel = _positives(_pair(numbers[1]), "kernel")
    stride = _positives(options.get("s", (1, 1) if word == "conv" else (2, 2)), "stride")
    padding = options.get("p", _own_padding(kernel))
    if padding[0] >= kernel[0] or padding[1] >= kernel[1]:
        raise ArchitectureError(
            f"with padding {_shown(padding)} some windows of kernel {_shown(kernel)} hold nothing "
            f"else; expected at most p{_shown((kernel[0] - 1, kernel[1] - 1))}"
        )
    kind = ConvolutionItem if word == "conv" else UpsamplingItem
    return kind(channels, kernel, stride, padding, normalized)


def _hint(word: str) -> str:
    close = difflib.get_close_matches(word, [*_FORMS, *_HINTS], n=1)
    if not close:
        return f"no layer is called {word[:20]}"
    return _HINTS.get(close[0], f"did you mean {close[0]}?")


def _positive(number: int, what: str) -> int:
    if not 1 <= number <= MOST:
        raise ArchitectureError(f"it has {number} {what}; expected from 1 to {MOST}")
    return number


def _positives(pair: Pair, what: str) -> Pair:
    if min(pair) < 1:
        raise ArchitectureError(f"its {what} is {_shown(pair)}; expected whole numbers ≥ 1")
    return pair


def _pair(text: str) -> Pair:
    height, _, width = text.partition("-")
    return int(height), int(width or height)


def _own_padding(kernel: Pair) -> Pair:
    return (kernel[0] - 1) // 2, (kernel[1] - 1) // 2


def _shown(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}-{pair[1]}"


def _shown_normalization(item: DenseItem | ConvolutionItem | UpsamplingItem) -> str:
    return "bn" if item.normalized else ""


def _shown_padding(item: ConvolutionItem | UpsamplingItem) -> str:
    return "" if item.padding == _own_padding(item.kernel) else f"p{_shown(item.padding)}"


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
        Hidden layers (:mod:`nembp.architecture`); "" for none.
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
    layers, maps = chain(input_shape, description, outputs, activation=activation)
    return Network(
        layers,
        maps,
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
) -> tuple[list[Layer], list[LinearMap]]:
    """Return the layers and linear maps of a network, as `network` and with its errors."""
    shape, end = _as_shape(input_shape, "input"), _as_shape(outputs, "output")
    hidden = get_activation(activation)
    layers, maps = [Layer(math.prod(shape))], []
    for number, item in enumerate(parse(description), start=1):
        below = f"layer {number - 1}" if number > 1 else "the input"
        linear_map, shape = _joined(item, shape, f"layer {number} `{item}`", below)
        maps.append(linear_map)
        layers.append(_layer(item, linear_map.outputs, hidden))
    below = f"layer {len(layers) - 1}" if len(layers) > 1 else "the input"
    linear_map, _ = _joined(_output(end, shape, below), shape, "the output", below)
    return [*layers, Layer(linear_map.outputs)], [*maps, linear_map]


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
def _joined(item: Item, shape: Shape, name: str, below: str) -> tuple[LinearMap, Shape]:
    """Return the linear map to a layer of this item over one of ``shape``, and its own shape."""
    try:
        linear_map, upper = _linear_map(item, shape, below)
        for count, what in ((linear_map.outputs, "neurons"), (linear_map.weight_count, "weights")):
            if count > MOST:
                raise ArchitectureError(
                    f"it would have {count:,} {what}; expected at most {MOST:,}"
                )
    except ArchitectureError as error:
        raise ArchitectureError(f"{name}: {error}") from None
    return linear_map, upper


def _linear_map(item: Item, shape: Shape, below: str) -> tuple[LinearMap, Shape]:
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


def _reshape(item: ReshapeItem, shape: Shape, below: str) -> tuple[LinearMap, Shape]:
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


ImageShape = tuple[int, ...]


@dataclass(frozen=True)
class LayerSummary:
    """A layer and the linear map that leads to it.

    Attributes
    ----------
    text : str
        As it is described; "input" for the lowest layer.
    shape : tuple of int
        (height, width, channels), or (neurons,).
    weights, biases, gains : int
        Weights of the linear map; biases of the layer in the direction of the net, and its gains γ
        where it is normalized.
    multiply_adds : int or None
        Of one sample on its way up; None for a linear map that is not of nembp.
    """

    text: str
    shape: ImageShape
    weights: int
    biases: int
    multiply_adds: int | None
    gains: int = 0


def describe(net: Network) -> list[LayerSummary]:
    """Return a row for each layer, as the net's direction goes.

    >>> from nembp.architecture import network
    >>> for row in describe(network((28, 28, 1), "conv8x4s2,32", 10)):
    ...     print(row.text, row.shape, row.weights, row.biases, row.multiply_adds)
    input (28, 28, 1) 0 0 0
    conv8x4s2 (14, 14, 8) 128 8 25088
    32 (32,) 50176 32 50176
    10 (10,) 320 10 320
    """
    below = _shape(Transposed(net.maps[0]))
    rows = [LayerSummary("input", below, 0, 0, 0)]
    for layer, linear_map in zip(net.layers[1:], net.maps, strict=True):
        shape = _shape(linear_map)
        text, uses = _text(linear_map)
        text += "bn" if layer.normalization else ""
        count = linear_map.weight_count
        adds = None if uses is None else count * uses
        rows.append(LayerSummary(text, shape, count, layer.biases, adds, layer.gains))
    return rows


def _unwrapped(linear_map: LinearMap) -> tuple[LinearMap, bool]:
    """Return the linear map within `Transposed`, and whether it is used from its upper end."""
    turned = False
    while isinstance(linear_map, Transposed):
        linear_map, turned = linear_map.linear_map, not turned
    return linear_map, turned


def _shape(linear_map: LinearMap) -> ImageShape:
    """Return the shape of the layer that a linear map leads to."""
    inner, turned = _unwrapped(linear_map)
    shape: Any = getattr(inner, "shape" if turned else "output_shape", None)
    return tuple(shape) if shape is not None else (linear_map.outputs,)


def _text(linear_map: LinearMap) -> tuple[str, int | None]:
    """Return how a linear map's upper layer is described, and how often it uses each weight."""
    inner, turned = _unwrapped(linear_map)
    back = " transposed" if turned else ""
    if isinstance(inner, Dense):
        return str(linear_map.outputs), 1
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
        return "reshape" + "x".join(map(str, _shape(linear_map))), 1
    return f"{type(inner).__name__} of {linear_map.outputs}{back}", None
