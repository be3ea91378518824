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
and kernel 3 or more. Sizes are checked where a network is built: :mod:`nembp.architectures`.

Nothing here imports NumPy, so that ``nembp --help`` is instant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Final, TypeAlias

from nembp.errors import ArchitectureError

__all__ = [
    "ConvolutionItem",
    "DenseItem",
    "Item",
    "PoolingItem",
    "ReshapeItem",
    "UpsamplingItem",
    "parse",
    "plain",
]

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
