"""A single option of a run: what it takes, how it is checked.

Nothing here imports NumPy, so that ``nembp --help`` is instant.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from nembp.errors import ArchitectureError

__all__ = ["Kind", "Option", "parse_layers"]

Kind: TypeAlias = Literal["choice", "integer", "number", "text", "path", "layers", "names"]


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
        Of a ``choice``.
    least, above, below : float, optional
        Bounds of a number: least ≤ value, above < value < below.
    """

    kind: Kind
    help: str
    group: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    above: float | None = None
    below: float | None = None

    def check(self, name: str, value: Any) -> Any:
        """Return ``value`` in its final type.

        Raises
        ------
        ArchitectureError
            If it is of another type or out of bounds; the message begins with ``name``.
        """
        if self.kind == "layers":
            return parse_layers(value, name)
        if self.kind == "names":
            return _names(name, value)
        if self.kind == "path" and isinstance(value, os.PathLike):
            return os.fspath(value)
        if self.kind in ("text", "path", "choice"):
            wrong = not isinstance(value, str) or "\0" in value
            if wrong or (self.choices and value not in self.choices):
                raise ArchitectureError(f"{name} must be {self.expected}, got {value!r:.80}")
            return value
        return self._number(name, value)

    def _number(self, name: str, value: Any) -> int | float:
        whole = self.kind == "integer"
        fits = isinstance(value, int) or (isinstance(value, float) and not whole)
        if (
            not fits
            or isinstance(value, bool)
            or not math.isfinite(value)
            or (self.least is not None and value < self.least)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        ):
            raise ArchitectureError(f"{name} must be {self.expected}, got {value!r:.80}")
        return int(value) if whole else float(value)

    @property
    def expected(self) -> str:
        """What a value must be, in words.

        XX
        """
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind in ("text", "path"):
            return "text"
        bounds = [
            f"{sign} {bound:g}"
            for sign, bound in (("≥", self.least), (">", self.above), ("<", self.below))
            if bound is not None
        ]
        number = "a whole number" if self.kind == "integer" else "a number"
        return " ".join([number, " and ".join(bounds)]).rstrip()


def parse_layers(value: Any, name: str = "layers") -> tuple[int, ...]:
    """Return hidden-layer sizes from text such as "512,256" or a sequence; "" is no hidden layer.

    Raises
    ------
    ArchitectureError
        Naming the entry that is not a whole number ≥ 1.

    >>> parse_layers("512, 256"), parse_layers("")
    ((512, 256), ())
    """
    if isinstance(value, str):
        entries: Sequence[Any] = value.split(",") if value.strip() else ()
    elif isinstance(value, Sequence):
        entries = value
    else:
        raise ArchitectureError(f'{name} must be sizes such as "512,256", got {value!r:.80}')
    sizes = []
    for number, entry in enumerate(entries, start=1):
        text = entry.strip() if isinstance(entry, str) else entry
        digits = isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10
        size = int(text) if digits else text
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ArchitectureError(
                f"{name} has {text!r:.40} as entry {number}; every hidden layer needs a whole "
                'number of neurons ≥ 1, as in "512,256" ("" for no hidden layer)'
            )
        sizes.append(size)
    return tuple(sizes)


def _names(name: str, value: Any) -> tuple[str, ...]:
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, Sequence) or not all(isinstance(entry, str) for entry in entries):
        raise ArchitectureError(f'{name} must be names such as "height,weight", got {value!r:.80}')
    names = tuple(entry.strip() for entry in entries)
    if not names or "" in names:
        raise ArchitectureError(f"{name} holds an empty name: {value!r:.80}")
    return names
