"""Networks from descriptions such as ``conv32x4s2,pool2,256``, the language of ``--layers``.

===================== ============================================================================
entry                 hidden layer
===================== ============================================================================
``256``               256 units, joined to all below
``conv32x4s2``        convolution: 32 channels, kernel 4x4, stride 2 (1 where left out), padding
                      (k - 1) // 2, or as in ``conv32x4s2p0``
``pool2``             average pooling of windows 2x2, stride 2; ``pool3s2``: windows 3x3, stride 2
``up64x4s2``          transposed convolution: 64 channels, sides times the stride (2 where left out)
``reshape4x4x128``    the units below seen as an image of height 4, width 4, 128 channels
``256bn``             with batch normalization, as in ``conv32x4s2bn`` and ``up64x4s2bn``
===================== ============================================================================

Where height and width differ, a number becomes two: ``conv16x3-5s1-2p1-2``. With the padding of its
own, a convolution keeps the sides at an odd kernel and stride 1, and halves even ones at stride 2
and kernel 3 or more.

Entry k becomes layer k, joined to layer k - 1 by linear map k. The output is joined densely to the
last entry; an output image over a layer of images by a convolution, transposed where it is larger.
Hidden layers of images have one bias per channel in each direction, dense ones and both ends one
per unit; pooled and reshaped layers have neither biases nor an activation, in both directions.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Final, Literal, TypeAlias

from nembp.engine.activations import Activation, get_activation
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Layer, Network
from nembp.errors import ArchitectureError

Pair: TypeAlias = tuple[int, int]  # height, width
Shape: TypeAlias = tuple[int, ...]  # (units,) or (height, width, channels)

Size: TypeAlias = int | Sequence[int]

MOST: Final = 999_999_999  # of anything that is counted
EXAMPLES: Final = "such as 256, conv32x4s2, pool2, up64x4s2 or reshape4x4x128"


# -- items -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Item:
    """A hidden layer as it is described; ``str`` gives the description.

    ``size`` is the number of units or channels; ``kernel``, ``stride`` and ``padding`` are (height,
    width): the window of a pool, and the sides of the image that a reshape makes, are its kernel.
    """

    word: Literal["dense", "conv", "up", "pool", "reshape"]
    size: int = 0
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    normalized: bool = False

    def __str__(self) -> str:
        word, kernel = self.word, _shown(self.kernel)
        if word in ("dense", "reshape"):
            text = str(self.size) if word == "dense" else f"reshape{_by(self.kernel)}x{self.size}"
        else:
            text = f"pool{kernel}" if word == "pool" else f"{word}{self.size}x{kernel}"
            if self.stride != {"conv": (1, 1), "pool": self.kernel}.get(word):
                text += f"s{_shown(self.stride)}"
            if word != "pool" and self.padding != _own_padding(self.kernel):
                text += f"p{_shown(self.padding)}"
        return text + ("bn" if self.normalized else "")

    @property
    def reads_images(self) -> bool:
        return self.word in ("conv", "up", "pool")

    def join(self, shape: Shape, below: str) -> tuple[LinearMap, Shape]:
        """Return the linear map from a layer of ``shape``, called ``below``, and its shape."""
        kernel, stride, padding = self.kernel, self.stride, self.padding
        if self.word == "dense":
            return Dense(math.prod(shape), self.size), (self.size,)
        if self.word == "reshape":
            image = *kernel, self.size
            wanted, found = math.prod(image), math.prod(shape)
            if wanted != found:
                raise ArchitectureError(
                    f"{_by(image)} are {wanted} units, but {below} has {found}; expected a shape "
                    f"of {found}{_proposal(found)}, or a layer of {wanted} before it"
                )
            return Reshape(image), image
        if len(shape) != 3:
            kind = "a pooling" if self.word == "pool" else "a convolution"
            features = "a row of {} features" if below == "the input" else "{} dense units"
            raise ArchitectureError(
                f"{kind} reads an image, but {below} is {features.format(shape[0])}; expected "
                f"reshapeHxWxC before it{_proposal(shape[0])}, or dense layers such as 256"
            )
        height, width, channels = shape
        if self.word == "up":
            _check_multiplies(kernel, stride, padding)
            upper = height * stride[0], width * stride[1], self.size
            return Transposed(Convolution(upper, channels, kernel, stride, padding)), upper
        _check_window(kernel, padding, shape, "window" if self.word == "pool" else "kernel", below)
        image = height, width, channels
        if self.word == "pool":
            pooling = AveragePooling(image, kernel, stride)
            return pooling, pooling.output_shape
        convolution = Convolution(image, self.size, kernel, stride, padding)
        return convolution, convolution.output_shape


Layers: TypeAlias = str | Sequence[int | str | Item]


def _check_multiplies(kernel: Pair, stride: Pair, padding: Pair) -> None:
    """Refuse what does not multiply sides h by s, of the sizes that a convolution leads to h."""
    for k, s, p in zip(kernel, stride, padding, strict=True):
        if not 2 * p < k <= 2 * p + s:
            least, most = max(0, -((s - k) // 2)), (k - 1) // 2
            remedy = f"a padding of {least}" + (f" to {most}" if most > least else "")
            if least > most:
                remedy = f"an odd kernel, or a stride of 2: kernel {k} and stride {s} never do"
            raise ArchitectureError(
                f"kernel {k}, stride {s} and padding {p} do not multiply the image's sides by "
                f"{s}; expected {remedy}"
            )


def _check_window(window: Pair, padding: Pair, image: Shape, what: str, below: str) -> None:
    sides = ("", "")
    if window[0] != window[1] or image[0] != image[1]:
        sides = ("height ", "width ")
    for k, p, size, side in zip(window, padding, image[:2], sides, strict=True):
        most = size + 2 * p
        if k > most:
            why = f" ({size} + twice the padding {p}), a larger padding" if p else ""
            fewer = "" if below == "the input" else ", or fewer strided layers before it"
            raise ArchitectureError(
                f"{what} {side}{k} does not fit the {_by(image[:2])} image of {below}; expected "
                f"at most {most}{why}{fewer}"
            )


def _proposal(size: int) -> str:
    """Return ", such as reshape8x8x4" where a size makes an image, else ""."""
    side = next((side for side in (8, 7, 6, 5, 4) if size % side**2 == 0), None)
    return f", such as reshape{side}x{side}x{size // side**2}" if side else ""


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _shown(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}-{pair[1]}"


def _own_padding(kernel: Pair) -> Pair:
    return (kernel[0] - 1) // 2, (kernel[1] - 1) // 2


# -- the language ----------------------------------------------------------------------------------
def parse(value: Any, name: str = "layers") -> tuple[Item, ...]:
    """Read a description of hidden layers, which messages call `name`.

    Entries are sizes, items, or texts, in one text separated by commas; none is no hidden layer.

    >>> parse("conv32x4s2, 256")[1]
    Item(word='dense', size=256, kernel=(1, 1), stride=(1, 1), padding=(0, 0), normalized=False)
    >>> ",".join(map(str, parse("CONV8x3s1p1, pool2s2, 64")))
    'conv8x3,pool2,64'
    >>> parse("cnov8x3")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    nembp.errors.ArchitectureError: layers has 'cnov8x3' as layer 1: did you mean conv?...
    """
    if isinstance(value, str):
        value = value.split(",") if value.strip() else ()
    if not isinstance(value, Sequence):
        raise ArchitectureError(f'{name} must be layers, as in "conv32x4s2,256", got {value!r:.80}')
    items = []
    for number, entry in enumerate(value, start=1):
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


_NUMBER: Final = "[0-9]{1,9}"  # longer ones are no sizes
_PAIR: Final = f"{_NUMBER}(?:-{_NUMBER})?"
_KERNELS: Final = (
    "kernel 4x4 (or 3-5: 3 high, 5 wide), stride 2, padding 1; s and p can be left out, and bn "
    "added at the end"
)
# word: (what must follow it, letters that may follow that, how it reads)
_FORMS: Final = {
    "conv": (f"({_NUMBER})x({_PAIR})", "sp", f"conv32x4s2p1: 32 channels, {_KERNELS}"),
    "up": (f"({_NUMBER})x({_PAIR})", "sp", f"up64x4s2p1: 64 channels, {_KERNELS}"),
    "pool": (f"({_PAIR})", "s", "pool3s2: windows 3x3, stride 2; s can be left out"),
    "reshape": (
        f"({_NUMBER})x({_NUMBER})x({_NUMBER})", "", "reshape4x4x128: height, width, channels"
    ),
}  # fmt: skip
# what others call it
_HINTS: Final = {
    **dict.fromkeys(("dense", "fc", "linear"), "a dense layer is its number of units alone"),
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
        return Item("dense", _counted(entry, "units"))
    text = entry.strip().lower() if isinstance(entry, str) else ""
    if dense := re.fullmatch(f"({_NUMBER})(bn)?", text):
        return Item("dense", _counted(dense[1], "units"), normalized=bool(dense[2]))
    word = re.match("[a-z]*", text)[0]  # type: ignore[index]
    if not word:
        raise ArchitectureError(f"expected a whole number of units ≥ 1, or layers {EXAMPLES}")
    if word not in _FORMS:
        close = difflib.get_close_matches(word, [*_FORMS, *_HINTS], n=1)
        hint = f"no layer is called {word[:20]}"
        if close:
            hint = _HINTS.get(close[0], f"did you mean {close[0]}?")
        raise ArchitectureError(f"{hint}; expected layers {EXAMPLES}")
    form, letters, reads = _FORMS[word]
    more = f"((?:[{letters}]{_PAIR})*)" if letters else "()"
    found = re.fullmatch(f"{form}{more}(bn)?", text.removeprefix(word))
    if found is None:
        raise ArchitectureError(f"expected it as in {reads}")
    *numbers, more, normalized = found.groups()
    if normalized and word in ("pool", "reshape"):
        raise ArchitectureError(
            f"a {word} layer has no units of its own to normalize; expected bn on a dense, conv or "
            "up layer, as in 256bn or conv32x4s2bn"
        )
    pairs = re.findall(f"([a-z])({_PAIR})", more)
    options: dict[str, str] = dict(pairs)
    if len(options) < len(pairs):
        raise ArchitectureError(f"it says {pairs[0][0]} twice; expected it as in {reads}")
    if word == "reshape":
        height, width, channels = (_counted(n, "pixels or channels") for n in numbers)
        return Item("reshape", channels, (height, width))
    usual = {"conv": "1", "up": "2"}.get(word, str(numbers[-1]))
    if word == "pool":
        window = _pair(numbers[0], "window")
        return Item("pool", 0, window, _pair(options.get("s", usual), "stride"))
    channels, kernel = _counted(numbers[0], "channels"), _pair(numbers[1], "kernel")
    stride = _pair(options.get("s", usual), "stride")
    padding = _pair(options["p"], "padding", least=0) if "p" in options else _own_padding(kernel)
    if padding[0] >= kernel[0] or padding[1] >= kernel[1]:
        raise ArchitectureError(
            f"with padding {_shown(padding)} some windows of kernel {_shown(kernel)} hold nothing "
            f"else; expected at most p{_shown((kernel[0] - 1, kernel[1] - 1))}"
        )
    kind: Any = word
    return Item(kind, channels, kernel, stride, padding, bool(normalized))


def _counted(number: Any, what: str) -> int:
    if not 1 <= int(number) <= MOST:
        raise ArchitectureError(f"it has {number} {what}; expected from 1 to {MOST}")
    return int(number)


def _pair(text: str, what: str, least: int = 1) -> Pair:
    height, _, width = text.partition("-")
    pair = int(height), int(width or height)
    if min(pair) < least:
        raise ArchitectureError(f"its {what} is {_shown(pair)}; expected whole numbers ≥ {least}")
    return pair


# -- networks --------------------------------------------------------------------------------------
def network(
    input_shape: Size,
    description: Layers,
    outputs: Size,
    *,
    activation: str | Activation = "relu",
    bias: bool = True,
    **options: Any,
) -> Network:
    """Build a network that mixes dense, convolutional, pooling and upsampling layers.

    ``input_shape`` and ``outputs`` are features of a table or units, or (height, width, channels)
    of images; ``description`` the hidden layers (:mod:`nembp.architecture`), "" for none;
    ``activation`` that of hidden layers, but for pooled and reshaped ones; ``options`` those of
    `Network`. An ArchitectureError says which layer does not fit the one below it, why, and what
    would.

    >>> network((28, 28, 1), "conv8x4s2,pool2,32", 10)
    Network(784-1568-392-32-10, multinomial | gaussian, forward direction)
    >>> network((28, 28, 1), "conv8x4s2,conv16x30p0", 10)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    nembp.errors.ArchitectureError: layer 2 `conv16x30p0`: ...
    """
    layers, maps = chain(input_shape, description, outputs, activation=activation, bias=bias)
    return Network(layers, maps, **options)


def generator_network(latent: int, description: Layers, outputs: Size, **options: Any) -> Network:
    """Build a generator: a network from a latent vector z of size ``latent`` to samples.

    As `network`, with its options, and one difference: where the first entry reads images, z is an
    image of one pixel and ``latent`` channels, so that ``up128x4s4p0`` makes its first 4x4 image.

    One as Radford, Metz and Chintala have it (DCGAN, arXiv:1511.06434), of 32x32 colours:

    >>> layers = "2048bn,reshape4x4x128,up64x4s2bn,up32x4s2bn"
    >>> generator_network(64, layers, (32, 32, 3), forward="bernoulli", backward="gaussian")
    Network(64-2048-2048-4096-8192-3072, bernoulli | gaussian, forward direction)
    """
    items = parse(description)
    z = (1, 1, latent) if items and items[0].reads_images else latent
    return network(z, items, outputs, **options)


def chain(
    input_shape: Size,
    description: Layers,
    outputs: Size,
    *,
    activation: str | Activation = "relu",
    bias: bool = True,
) -> tuple[list[Layer], list[LinearMap]]:
    """Return the layers and linear maps of a network, as `network` and with its errors."""
    shape, end = _as_shape(input_shape, "input"), _as_shape(outputs, "output")
    hidden, biases = get_activation(activation), None if bias else 0
    layers, maps = [Layer(math.prod(shape), bias_size=biases)], list[LinearMap]()
    below = "the input"
    for number, item in enumerate(parse(description), start=1):
        linear_map, shape = _joined(item, shape, f"layer {number} `{item}`", below)
        maps.append(linear_map)
        if item.word in ("dense", "conv", "up"):
            per_channel = None if item.word == "dense" else item.size
            normalization = BatchNormalization() if item.normalized else None
            shared = per_channel if bias else 0
            layers.append(Layer(linear_map.outputs, hidden, shared, normalization))
        else:
            layers.append(Layer(linear_map.outputs, bias_size=0))
        below = f"layer {number}"
    linear_map, _ = _joined(_output(end, shape, below), shape, "the output", below)
    return [*layers, Layer(linear_map.outputs, bias_size=biases)], [*maps, linear_map]


def _as_shape(value: Size, what: str) -> Shape:
    shape = (value,) if isinstance(value, int) else tuple(value)
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise ArchitectureError(
            f"an {what} of shape {shape}; expected (features,) or (height, width, channels)"
        )
    return shape


def _output(end: Shape, shape: Shape, below: str) -> Item:
    """Return what joins an output to the layer below it, of ``shape``."""
    if len(end) < 3 or len(shape) < 3:
        return Item("dense", math.prod(end))
    (height, down), (width, across) = (divmod(end[k], shape[k]) for k in (0, 1))
    if down or across or not (height and width):
        raise ArchitectureError(
            f"the output: an image {_by(end[:2])} is no whole multiple of the {_by(shape[:2])} "
            f"image of {below}; expected sides that divide {_by(end[:2])}, or a dense layer last"
        )
    kernel = height + 2, width + 2  # every pixel is reached from the pixels around it
    word: Any = "conv" if height == width == 1 else "up"
    return Item(word, end[2], kernel, (height, width), _own_padding(kernel))


def _joined(item: Item, shape: Shape, name: str, below: str) -> tuple[LinearMap, Shape]:
    """Return the linear map to a layer of this item over one of ``shape``, and its own shape."""
    try:
        linear_map, upper = item.join(shape, below)
        for count, what in ((linear_map.outputs, "units"), (linear_map.weight_count, "weights")):
            if count > MOST:
                raise ArchitectureError(
                    f"it would have {count:,} {what}; expected at most {MOST:,}"
                )
    except ArchitectureError as error:
        raise ArchitectureError(f"{name}: {error}") from None
    return linear_map, upper


# -- tables ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LayerSummary:
    """A layer, in the direction of its net, and the linear map that leads to it."""

    text: str  # as it is described; "input" for the lowest layer
    shape: Shape
    weights: int
    biases: int
    multiply_adds: int | None  # of one sample on its way up; None for a map that is not of nembp
    gains: int = 0  # γ, where the layer is normalized


def describe(net: Network) -> list[LayerSummary]:
    """Return a row for each layer, as the net's direction goes.

    >>> for row in describe(network((28, 28, 1), "conv8x4s2,32", 10)):
    ...     print(row.text, row.shape, row.weights, row.biases, row.multiply_adds)
    input (28, 28, 1) 0 0 0
    conv8x4s2 (14, 14, 8) 128 8 25088
    32 (32,) 50176 32 50176
    10 (10,) 320 10 320
    """
    rows = [LayerSummary("input", _described(Transposed(net.maps[0]))[1], 0, 0, 0)]
    for layer, linear_map in zip(net.layers[1:], net.maps, strict=True):
        text, shape, uses = _described(linear_map)
        text += "bn" if layer.normalization else ""
        count = linear_map.weight_count
        adds = None if uses is None else count * uses
        rows.append(LayerSummary(text, shape, count, layer.biases, adds, layer.gains))
    return rows


def _described(linear_map: LinearMap) -> tuple[str, Shape, int | None]:
    """Return the description and shape of the layer above a map, and how often a weight is used."""
    inner, turned = linear_map, False
    while isinstance(inner, Transposed):
        inner, turned = inner.linear_map, not turned
    back, size = " transposed" if turned else "", linear_map.outputs
    if isinstance(inner, Convolution):
        height, width, _ = inner.output_shape
        lower = height * inner.stride[0], width * inner.stride[1]
        sizes = inner.kernel, inner.stride, inner.padding
        item = Item("conv", inner.channels, *sizes)
        if turned and inner.shape[:2] == lower:
            item = Item("up", inner.shape[2], *sizes)
            back = ""
        return f"{item}{back}", inner.shape if turned else inner.output_shape, height * width
    if isinstance(inner, AveragePooling):
        text = f"{Item('pool', 0, inner.window, inner.stride)}{back}"
        return text, inner.shape if turned else inner.output_shape, 1
    if isinstance(inner, Reshape):
        shape = inner.shape if turned else inner.output_shape
        return f"reshape{_by(shape)}", shape, 1
    if isinstance(inner, Dense):
        return str(size), (size,), 1
    return f"{type(inner).__name__} of {size}{back}", (size,), None
