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

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Final, TypeAlias

from nembp.engine.activations import Activation, get_activation
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, ShapedMap, Transposed
from nembp.engine.network import Layer, Network
from nembp.errors import ArchitectureError

Pair: TypeAlias = tuple[int, int]  # height, width
Shape: TypeAlias = tuple[int, ...]  # (units,) or (height, width, channels)
Size: TypeAlias = int | Sequence[int]

MOST: Final = 999_999_999  # of anything that is counted
EXAMPLES: Final = (
    "such as 256 (dense), conv32x4s2, pool2 (of averages, which have a transpose), up64x4s2 (a "
    "transposed convolution) or reshape4x4x128; bn ends a normalized one, as in 256bn"
)


# -- items -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Item:
    """A hidden layer as it is described; ``str`` gives the description.

    ``word`` is one of "dense", "conv", "up", "pool", "reshape", ``size`` the number of units or
    channels; ``kernel``, ``stride`` and ``padding`` are (height, width): the window of a pool, and
    the sides of the image that a reshape makes, are its kernel.
    """

    word: str
    size: int = 0
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    normalized: bool = False

    def __str__(self) -> str:
        kernel, size = _shown(self.kernel), self.size
        text = {"dense": f"{size}", "reshape": f"reshape{_by((*self.kernel, size))}",
                "pool": f"pool{kernel}"}.get(self.word, f"{self.word}{size}x{kernel}")  # fmt: skip
        stride, padding = _usual(self.word, self.kernel)
        if self.stride != stride or self.word == "up":  # whose stride is always said
            text += f"s{_shown(self.stride)}"
        if self.padding != padding:
            text += f"p{_shown(self.padding)}"
        return text + "bn" * self.normalized

    def join(self, shape: Shape, below: str) -> tuple[LinearMap, Shape]:
        """Return the linear map from a layer of ``shape``, called ``below``, and its shape."""
        kernel, stride, padding, units = self.kernel, self.stride, self.padding, math.prod(shape)
        if self.word == "dense":
            return Dense(units, self.size), (self.size,)
        if self.word == "reshape":
            image = *kernel, self.size
            if (wanted := math.prod(image)) != units:
                raise ArchitectureError(
                    f"{_by(image)} are {wanted} units, but {below} has {units}; expected a shape "
                    f"of {units}{_proposal(units)}, or a layer of {wanted} before it"
                )
            return Reshape(image), image
        if len(shape) != 3:
            raise ArchitectureError(
                f"{self.word} reads an image, but {below} is a row of {units} units; expected "
                f"reshapeHxWxC before it{_proposal(units)}, or dense layers such as 256"
            )
        height, width, channels = shape
        if self.word == "up":
            for k, s, p in zip(kernel, stride, padding, strict=True):
                _check_multiplies(k, s, p)
            upper = height * stride[0], width * stride[1], self.size
            return Transposed(Convolution(upper, channels, kernel, stride, padding)), upper
        most = height + 2 * padding[0], width + 2 * padding[1]
        if kernel[0] > most[0] or kernel[1] > most[1]:
            what = "window" if self.word == "pool" else "kernel"
            larger = " with the padding on both sides, a larger padding" if any(padding) else ""
            fewer = "" if below == "the input" else ", or fewer strided layers before it"
            raise ArchitectureError(
                f"{what} {_shown(kernel)} does not fit the {_by(shape[:2])} image of {below}; "
                f"expected at most {_shown(most)}{larger}{fewer}"
            )
        made: ShapedMap
        if self.word == "pool":
            made = AveragePooling((height, width, channels), kernel, stride)
        else:
            made = Convolution((height, width, channels), self.size, kernel, stride, padding)
        return made, made.output_shape


Layers: TypeAlias = str | Sequence[int | str | Item]


def _usual(word: str, kernel: Pair) -> tuple[Pair, Pair]:
    """Return the stride and the padding where none is said."""
    stride = {"up": (2, 2), "pool": kernel}.get(word, (1, 1))
    own = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
    return stride, own if word in ("conv", "up") else (0, 0)


def _check_multiplies(k: int, s: int, p: int) -> None:
    """Refuse what does not multiply a side h by s: a convolution of s h pixels that ends off h."""
    fits = range(max(0, (k - s + 1) // 2), (k + 1) // 2)  # 2 p < k ≤ 2 p + s
    if p not in fits:
        remedy = f"an odd kernel, or a stride of 2: kernel {k} and stride {s} never do"
        if fits:
            remedy = f"a padding of {fits[0]}" + f" to {fits[-1]}" * (len(fits) > 1)
        raise ArchitectureError(
            f"kernel {k}, stride {s} and padding {p} do not multiply the image's sides by {s}; "
            f"expected {remedy}"
        )


def _proposal(size: int) -> str:
    """Return ", such as reshape8x8x4" where a size makes an image, else ""."""
    side = next((side for side in (8, 7, 6, 5, 4) if size % side**2 == 0), None)
    return f", such as reshape{side}x{side}x{size // side**2}" if side else ""


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _shown(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}-{pair[1]}"


# -- the language ----------------------------------------------------------------------------------
_NUMBER: Final = "[0-9]{1,9}"  # longer ones are no sizes
_PAIR: Final = f"{_NUMBER}(?:-{_NUMBER})?"
_SIZE, _KERNEL = f"(?P<size>{_NUMBER})", f"(?P<kernel>{_PAIR})"
_STRIDED: Final = f"{_SIZE}x{_KERNEL}(?P<more>([sp]{_PAIR})*)(?P<bn>bn)?"
_KERNELS: Final = (
    "kernel 4x4 (or 3-5: 3 high, 5 wide), stride 2, padding 1; s and p can be left out, and bn "
    "added at the end"
)
_NO_BN: Final = "no bn, since it has no units of its own to normalize"
_FORMS: Final = {  # word: what follows it, and how it reads
    "": (f"{_SIZE}(?P<bn>bn)?", f"a whole number of units from 1 to {MOST}, or layers {EXAMPLES}"),
    "conv": (_STRIDED, f"it as in conv32x4s2p1: 32 channels, {_KERNELS}"),
    "up": (_STRIDED, f"it as in up64x4s2p1: 64 channels, {_KERNELS}"),
    "pool": (
        f"{_KERNEL}(?P<more>(s{_PAIR})?)",
        f"it as in pool3s2: windows 3x3, stride 2; s can be left out; {_NO_BN}",
    ),
    "reshape": (
        f"(?P<kernel>{_NUMBER}x{_NUMBER})x{_SIZE}",
        f"it as in reshape4x4x128: height, width, channels; {_NO_BN}",
    ),
}


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
    nembp.errors.ArchitectureError: layers has 'cnov8x3' as layer 1: no layer is called cnov; ...
    """
    if isinstance(value, str):
        value = value.split(",") if value.strip() else ()
    if not isinstance(value, Sequence):
        raise ArchitectureError(f'{name} must be layers, as in "conv32x4s2,256", got {value!r:.80}')
    items = []
    for number, entry in enumerate(value, start=1):
        try:
            items.append(entry if isinstance(entry, Item) else _item(entry))
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


def _item(entry: Any) -> Item:
    is_number = isinstance(entry, Integral) and not isinstance(entry, bool)  # NumPy's too
    text = str(entry).strip().lower() if is_number or isinstance(entry, str) else ""
    word = re.match("[a-z]*", text)[0]  # type: ignore[index]
    if word not in _FORMS:
        raise ArchitectureError(f"no layer is called {word:.20}; expected layers {EXAMPLES}")
    form, reads = _FORMS[word]
    found = re.fullmatch(form, text.removeprefix(word))
    said = {"kernel": "1", "more": "", "bn": ""} | (found.groupdict("") if found else {})
    options = re.findall(f"([sp])({_PAIR})", said["more"])
    if found is None or len(dict(options)) < len(options):
        raise ArchitectureError(f"expected {reads}")
    size, kernel = int(said.get("size", 0)), _pair(said["kernel"])
    usual = dict(zip("sp", _usual(word, kernel), strict=True))
    pairs = usual | {letter: _pair(pair) for letter, pair in options}
    stride, padding = pairs["s"], pairs["p"]
    if min(*kernel, *stride, 1 if word == "pool" else size) < 1:
        raise ArchitectureError(f"only a padding may be 0; expected numbers from 1 to {MOST}")
    if word in ("conv", "up") and (padding[0] >= kernel[0] or padding[1] >= kernel[1]):
        raise ArchitectureError(
            f"with padding {_shown(padding)} some windows of kernel {_shown(kernel)} hold nothing "
            f"else; expected at most p{_shown((kernel[0] - 1, kernel[1] - 1))}"
        )
    return Item(word or "dense", size, kernel, stride, padding, bool(said["bn"]))


def _pair(text: str) -> Pair:
    first, _, second = text.replace("x", "-").partition("-")
    return int(first), int(second or first)


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
    return Network(*chain(input_shape, description, outputs, activation, bias), **options)


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
    of_images = bool(items) and items[0].word in ("conv", "up", "pool")
    return network((1, 1, latent) if of_images else latent, items, outputs, **options)


def chain(
    input_shape: Size,
    description: Layers,
    outputs: Size,
    activation: str | Activation = "relu",
    bias: bool = True,
) -> tuple[list[Layer], list[LinearMap]]:
    """Return the layers and linear maps of a network, as `network` and with its errors."""
    shape, end = _as_shape(input_shape, "input"), _as_shape(outputs, "output")
    hidden, biases = get_activation(activation), None if bias else 0
    layers, maps = [Layer(math.prod(shape), bias_size=biases)], list[LinearMap]()
    items, below = parse(description), "the input"
    for number, given in enumerate((*items, None), start=1):
        name = "the output" if given is None else f"layer {number} `{given}`"
        try:
            item = given or _output(end, shape, below)
            linear_map, shape = item.join(shape, below)
            for count, what in (
                (linear_map.outputs, "units"),
                (linear_map.weight_count, "weights"),
            ):
                if count > MOST:
                    raise ArchitectureError(
                        f"it would have {count:,} {what}; expected at most {MOST:,}"
                    )
        except ArchitectureError as error:
            raise ArchitectureError(f"{name}: {error}") from None
        maps.append(linear_map)
        layer = Layer(linear_map.outputs, bias_size=biases)  # the output
        if item.word in ("pool", "reshape"):
            layer = Layer(linear_map.outputs, bias_size=0)
        elif given is not None:
            shared = biases if item.word == "dense" or not bias else item.size
            normalization = BatchNormalization() if item.normalized else None
            layer = Layer(linear_map.outputs, hidden, shared, normalization)
        layers.append(layer)
        below = f"layer {number}"
    return layers, maps


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
            f"an image {_by(end[:2])} is no whole multiple of the {_by(shape[:2])} image of "
            f"{below}; expected sides that divide {_by(end[:2])}, or a dense layer last"
        )
    word = "conv" if height == width == 1 else "up"
    kernel = height + 2, width + 2  # every pixel is reached from the pixels around it
    return Item(word, end[2], kernel, (height, width), _usual(word, kernel)[1])


# -- tables ----------------------------------------------------------------------------------------
def describe(net: Network) -> list[dict[str, Any]]:
    """Return a row for each layer and the linear map that leads to it, as the net's direction goes.

    Biases and gains are those of both directions; ``multiply_adds`` of one sample on its way up,
    None for a map that is not of nembp.

    >>> for row in describe(network((28, 28, 1), "conv8x4s2,32", 10)):
    ...     print(*row.values())
    input (28, 28, 1) gaussian 0 784 0 0
    conv8x4s2 (14, 14, 8) relu 128 16 0 25088
    32 (32,) relu 50176 64 0 50176
    10 (10,) multinomial 320 10 0 320
    """
    rows, last = list[dict[str, Any]](), len(net.maps)
    ends = {0: net.reversed.likelihood, last: net.likelihood}
    for k, layer in enumerate(net.layers):
        linear_map = net.maps[k - 1] if k else Transposed(net.maps[0])
        text, shape, uses = _described(linear_map)
        weights, directions = linear_map.weight_count * (k > 0), (k > 0) + (k < last)
        rows.append({
            "description": text + "bn" * bool(layer.gains) if k else "input", "shape": shape,
            "neurons": getattr(ends.get(k, layer.activation), "name", "-"), "weights": weights,
            "biases": directions * layer.biases, "gains": directions * layer.gains,
            "multiply_adds": None if uses is None else weights * uses,
        })  # fmt: skip
    return rows


def _described(linear_map: LinearMap) -> tuple[str, Shape, int | None]:
    """Return the description and shape of the layer above a map, and how often a weight is used."""
    inner, turned = linear_map, False
    while isinstance(inner, Transposed):
        inner, turned = inner.linear_map, not turned
    back = " transposed" * turned
    shape: Shape = (linear_map.outputs,)
    if isinstance(inner, ShapedMap):
        shape = inner.shape if turned else inner.output_shape
    uses: int | None = 1
    if isinstance(inner, Dense | Reshape):
        text = f"{'reshape' * isinstance(inner, Reshape)}{_by(shape)}"
    elif isinstance(inner, AveragePooling):
        text = f"{Item('pool', 0, inner.window, inner.stride)}{back}"
    elif isinstance(inner, Convolution):
        (height, width, _), (s, t) = inner.output_shape, inner.stride
        up, uses = turned and inner.shape[:2] == (height * s, width * t), height * width
        word, channels = ("up", inner.shape[2]) if up else ("conv", inner.channels)
        item = Item(word, channels, inner.kernel, inner.stride, inner.padding)
        text = f"{item}{'' if up else back}"
    else:
        text, uses = f"{type(inner).__name__} of {linear_map.outputs}{back}", None
    return text, shape, uses
