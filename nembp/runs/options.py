"""Configurations: frozen dataclasses whose fields are options, each declared and checked once.

The command line, its environment variables, its help, TOML files and the defaults that do not
depend on the data are all made from the fields. Nothing here imports NumPy, so that
``nembp --help`` is instant.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import operator
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, Final, Self, TypeAlias, TypeVar

from nembp.errors import ArchitectureError

# what an option may be, beside str, int, float and bool
Layers: TypeAlias = tuple[int | str, ...]
Names: TypeAlias = tuple[str, ...]
Size: TypeAlias = tuple[int, int]
Augment: TypeAlias = str
File: TypeAlias = str

LARGEST: Final = 2**63 - 1  # the largest whole number that arrays can count to
CROP: Final = 4  # pixels by which crops are shifted at most, customary for 32x32 images
NUMBERS: Final[dict[str, type]] = {"int": Integral, "float": Real}
SIGNS: Final = {"≥": operator.ge, ">": operator.gt, "<": operator.lt, "≤": operator.le}


@dataclass(frozen=True)
class Option:
    """One option of a configuration."""

    kind: str  # the type of its field
    help: str = ""  # one sentence
    within: str = ""  # the bounds of a number, as in "> 0 and ≤ 1"
    choices: tuple[str, ...] = ()  # the names there are
    default: Any = None  # what a recipe fills in, whatever the data
    words: str | None = None  # the default, where that does not say it
    group: str = ""  # the heading it stands under

    def check(self, name: str, value: Any) -> Any:
        """Return ``value`` in its final type; an ArchitectureError begins with ``name``."""
        if self.kind in _READERS:
            value = _READERS[self.kind](name, value)
            if self.choices and not set(value) <= set(self.choices):
                raise ArchitectureError(
                    f"{name} must be {', '.join(self.choices)}, or several of them, "
                    f"got {','.join(value)!r:.80}"
                )
            return value
        if self.kind == "File" and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if self.kind in NUMBERS:
            if isinstance(value, Integral) and abs(int(value)) > LARGEST:
                raise ArchitectureError(f"{name} must be at most {LARGEST:,}, got {value!r:.40}...")
            right = isinstance(value, NUMBERS[self.kind]) and not isinstance(value, bool)
            if right and math.isfinite(value) and self._is_within(value):
                return int(value) if self.kind == "int" else float(value)
            right = False
        elif self.kind == "bool":
            right = isinstance(value, bool)
        else:
            right = isinstance(value, str) and "\0" not in value
        if not right or (self.choices and value not in self.choices):
            raise ArchitectureError(f"{name} must be {self.expected}, got {value!r:.80}")
        return value

    def _is_within(self, number: float) -> bool:
        for bounds in filter(None, self.within.split(" and ")):
            sign, bound = bounds.split()
            if not SIGNS[sign](number, float(bound)):
                return False
        return True

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        return f"{words.get(self.kind, 'text')} {self.within}".rstrip()

    @property
    def described_default(self) -> str:
        """The default in words; empty if there is none."""
        if self.words is not None or self.default is None or self.default is False:
            return self.words or ""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


def _layers(name: str, value: Any) -> Layers:
    from nembp.architecture import parse, plain  # NumPy

    return plain(parse(value, name))


def _names(name: str, value: Any) -> Names:
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, Sequence) or not all(isinstance(entry, str) for entry in entries):
        raise ArchitectureError(f'{name} must be names such as "height,weight", got {value!r:.80}')
    names = tuple(entry.strip() for entry in entries)
    if not names or "" in names:
        raise ArchitectureError(f"{name} holds an empty name: {value!r:.80}")
    return names


def _size(name: str, value: Any) -> Size:
    """Read the height and width of images: "32x48", "32" for both, or whole numbers."""
    sides = value.split("x") if isinstance(value, str) else value
    texts = [str(side) for side in (sides if isinstance(sides, Sequence) else [sides])]
    if len(texts) not in (1, 2) or not all(re.fullmatch("[1-9][0-9]{0,4}", text) for text in texts):
        raise ArchitectureError(
            f'{name} must be height and width in pixels, as in "32x32", got {value!r:.80}'
        )
    return int(texts[0]), int(texts[-1])


def _augment(name: str, value: Any) -> Augment:
    """Read "none", "flips", "crops" (of 4 pixels), "crops2", or both kinds as "flips,crops"."""
    kinds = value.split(",") if isinstance(value, str) else value
    kinds = kinds if isinstance(kinds, Sequence) else ()
    text = ",".join(sorted((str(kind).strip().lower() for kind in kinds), reverse=True))
    if not re.fullmatch("none|flips|(flips,)?crops([1-9][0-9]{0,3})?", text):
        raise ArchitectureError(
            f"{name} must be none, flips, crops or flips,crops (crops2: shifted by up to 2 pixels "
            f"in place of {CROP}), got {value!r:.80}"
        )
    return f"{text}{CROP}" if text.endswith("crops") else text


_READERS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "Layers": _layers, "Names": _names, "Size": _size, "Augment": _augment,
}  # fmt: skip


# -- configurations --------------------------------------------------------------------------------
def option(
    help: str, within: str = "", choices: tuple[str, ...] | str = (), of: Any = None, **more: Any
) -> Any:
    """Return the field of an `Option` that is None, for the recipe to fill in, unless ``of`` says.

    Its kind is the type that is written beside it, its group that of the heading above it.
    """
    choices = tuple(choices.split()) if isinstance(choices, str) else choices
    return field(default=of, metadata={"help": help, "within": within, "choices": choices} | more)


@dataclass(frozen=True)
class Config:
    """Base of configurations: frozen dataclasses of `option` fields, which are checked."""

    command: ClassVar[str] = "train"  # of nembp, that it is for
    length: ClassVar[str] = "epochs"  # the field that says how long a run is
    aliases: ClassVar[Mapping[str, str]] = {}  # other names of fields in files and flags
    groups: ClassVar[Mapping[str, str]] = {}  # the heading that begins at a field

    def __post_init__(self) -> None:
        for name, option in self.options().items():
            value = vars(self)[name]
            if value is not None:
                object.__setattr__(self, name, option.check(name, value))
            elif self.__dataclass_fields__[name].default is not None:
                raise ArchitectureError(f"{name} must be a name, got None")

    @classmethod
    @functools.cache
    def options(cls) -> dict[str, Option]:
        """Return every option by the name of its field, in order."""
        found, group = dict[str, Option](), ""
        for item in dataclasses.fields(cls):
            group = cls.groups.get(item.name, group)
            kind = str(item.type).removesuffix(" | None")
            found[item.name] = Option(kind, **item.metadata, group=group)
        return found

    def filled(self, *rules: tuple[Any, Mapping[str, Any]]) -> Self:
        """Return it with its open fields as the last rule says that has one and holds."""
        filled = {name: option.default for name, option in self.options().items()}
        for holds, defaults in rules:
            filled |= defaults if holds else {}
        return type(self)(**(filled | self.chosen()))

    def chosen(self) -> dict[str, Any]:
        """Return the fields that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def replace(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are not None, tuples as lists: what JSON and TOML can hold."""
        chosen = self.chosen().items()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen}


C = TypeVar("C", bound=Config)


# -- TOML ------------------------------------------------------------------------------------------
def read_settings(
    path: str | os.PathLike[str], kind: type[Config], extra: Mapping[str, Option] | None = None
) -> dict[str, Any]:
    """Read and check the options that a TOML file sets, by the names of fields, with - or _.

    ``extra`` has options that are no fields. An ArchitectureError names the file and the key.
    """
    file, settings = os.fspath(path), dict[str, Any]()
    try:
        with open(path, "rb") as stream:
            table = tomllib.loads(stream.read().decode("utf-8-sig"))  # editors write a mark
    except OSError as error:
        raise ArchitectureError(
            f"{file}: cannot be read ({error.strerror or error}); expected a TOML file of options"
        ) from error
    except (ValueError, RecursionError) as error:  # ValueError: also of bytes, or too many digits
        raise ArchitectureError(f"{file}: not valid TOML ({error})") from error
    known = {**kind.options(), **(extra or {})}
    for key, value in table.items():
        name = key.replace("-", "_")
        name = kind.aliases.get(name, name)
        if name in settings:
            raise ArchitectureError(f"{file}: {key} is given twice, in two spellings")
        if name not in known:
            close = " or ".join(difflib.get_close_matches(name, known)).replace("_", "-")
            hint = f"`nembp {kind.command} --help` lists the options"
            hint = f"did you mean {close}?" if close else hint
            raise ArchitectureError(f"{file}: unknown key {key!r:.80}; {hint}")
        settings[name] = known[name].check(f"{file}: {key}", value)
    return settings


def to_toml(config: Config, comment: str = "") -> str:
    """Write a configuration as TOML, under a comment; what is None is left out.

    >>> from nembp.runs import RunConfig
    >>> print(to_toml(RunConfig(layers="conv8x3,4", noise_std=0.1)), end="")
    dataset = "digits"
    layers = ["conv8x3", 4]
    noise-std = 0.1
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    for name, value in config.as_dict().items():
        # JSON's values are TOML's, but for DEL in a text
        text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        line = f"{name.replace('_', '-')} = {text}"
        text = line.encode("utf-8", "replace").decode()  # a path may be of bytes that are no text
        lines.append(line if text == line else f"# {text}: TOML cannot hold it")
    return "\n".join([*lines, ""])
