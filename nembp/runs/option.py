"""A single option of a run: what it takes, how it is checked.

Nothing here imports NumPy, so that ``nembp --help`` is instant.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Final, Literal, TypeAlias

from nembp.architecture import parse, plain
from nembp.errors import ArchitectureError

__all__ = ["Kind", "Option"]

Kind: TypeAlias = Literal[
    "choice",
    "integer",
    "number",
    "flag",
    "text",
    "path",
    "layers",
    "names",
    "size",
    "augmentation",
]
LARGEST: Final = 2**63 - 1  # whole number that arrays can count to
CROP: Final = 4  # pixels that crops are shifted by at most, customary for 32x32 images


@dataclass(frozen=True)
class Option:
    """One option: what it takes, and what it is for.

    Parameters
    ----------
    kind : str
        What its value is.
    help : str
        One sentence for people.
    group : str
        Heading it stands under.
    choices : tuple of str
        Of a ``choice``, or the ``names`` there are.
    least, above, below, most : float, optional
        Bounds of a number: least ≤ value ≤ most, above < value < below.
    """

    kind: Kind
    help: str
    group: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    above: float | None = None
    below: float | None = None
    most: float | None = None

    def check(self, name: str, value: Any) -> Any:
        """Return ``value`` in its final type.

        Raises
        ------
        ArchitectureError
            If it is of another type or out of bounds; the message begins with ``name``.
        """
        reader = _READERS.get(self.kind)
        if reader is not None:
            value = reader(name, value)
            if self.choices and not set(value) <= set(self.choices):
                raise ArchitectureError(
                    f"{name} must be {', '.join(self.choices)}, or several of them, "
                    f"got {','.join(value)!r:.80}"
                )
            return value
        if self.kind == "path" and isinstance(value, os.PathLike):
            return os.fspath(value)
        if self.kind in ("text", "path", "choice"):
            wrong = not isinstance(value, str) or "\0" in value
            if wrong or (self.choices and value not in self.choices):
                raise ArchitectureError(f"{name} must be {self.expected}, got {value!r:.80}")
            return value
        if self.kind == "flag":
            if not isinstance(value, bool):
                raise ArchitectureError(f"{name} must be true or false, got {value!r:.80}")
            return value
        return self._number(name, value)

    def _number(self, name: str, value: Any) -> int | float:
        whole = self.kind == "integer"
        if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
            raise self._wrong(name, value)
        number: Any = int(value) if isinstance(value, Integral) else value
        if isinstance(number, int) and abs(number) > LARGEST:
            raise ArchitectureError(f"{name} must be at most {LARGEST:,}, got {value!r:.40}...")
        if (
            not math.isfinite(number)
            or (self.least is not None and number < self.least)
            or (self.above is not None and number <= self.above)
            or (self.below is not None and number >= self.below)
            or (self.most is not None and number > self.most)
        ):
            raise self._wrong(name, value)
        return int(number) if whole else float(number)

    def _wrong(self, name: str, value: Any) -> ArchitectureError:
        return ArchitectureError(f"{name} must be {self.expected}, got {value!r:.80}")

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind in ("text", "path"):
            return "text"
        bounds = [
            f"{sign} {bound:g}"
            for sign, bound in (
                ("≥", self.least),
                (">", self.above),
                ("<", self.below),
                ("≤", self.most),
            )
            if bound is not None
        ]
        number = "a whole number" if self.kind == "integer" else "a number"
        return " ".join([number, " and ".join(bounds)]).rstrip()


def _names(name: str, value: Any) -> tuple[str, ...]:
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, Sequence) or not all(isinstance(entry, str) for entry in entries):
        raise ArchitectureError(f'{name} must be names such as "height,weight", got {value!r:.80}')
    names = tuple(entry.strip() for entry in entries)
    if not names or "" in names:
        raise ArchitectureError(f"{name} holds an empty name: {value!r:.80}")
    return names


def _layers(name: str, value: Any) -> tuple[int | str, ...]:
    return plain(parse(value, name))


def _size(name: str, value: Any) -> tuple[int, int]:
    """Read the height and width of images: "32x48", "32" for both, or whole numbers."""
    sides = value.split("x") if isinstance(value, str) else value
    sides = list(sides) if isinstance(sides, Sequence) else [sides]
    texts = [str(side) for side in sides]
    if len(texts) not in (1, 2) or not all(re.fullmatch("[1-9][0-9]{0,4}", text) for text in texts):
        raise ArchitectureError(
            f'{name} must be height and width in pixels, as in "32x32", got {value!r:.80}'
        )
    return int(texts[0]), int(texts[-1])


def _augmentation(name: str, value: Any) -> str:
    """Read "none", "flips", "crops" (of 4 pixels), "crops2", or both kinds as "flips,crops"."""
    kinds = value.split(",") if isinstance(value, str) else value
    kinds = kinds if isinstance(kinds, Sequence) else ()
    text = ",".join(sorted(str(kind).strip().lower() for kind in kinds))
    found = re.fullmatch("none|flips|crops([1-9][0-9]{0,3})?(,flips)?", text)
    if found is None:
        raise ArchitectureError(
            f"{name} must be none, flips, crops or flips,crops (crops2: shifted by up to 2 pixels "
            f"in place of {CROP}), got {value!r:.80}"
        )
    if "crops" not in text:
        return text
    return f"{'flips,' if found[2] else ''}crops{found[1] or CROP}"


_READERS: Final[dict[Kind, Callable[[str, Any], Any]]] = {
    "layers": _layers,
    "names": _names,
    "size": _size,
    "augmentation": _augmentation,
}
