"""Configurations: frozen dataclasses whose fields are options, each declared and checked once.

The command line, its environment variables, its help, TOML files and the defaults that do not
depend on the data are all made from the fields. Nothing here imports NumPy, so that
``nembp --help`` is instant.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias, TypeVar, cast

from nembp.errors import ArchitectureError

Kind: TypeAlias = Literal[
    "choice", "integer", "number", "flag", "text", "path", "layers", "names", "size", "augmentation"
]
LARGEST: Final = 2**63 - 1  # the largest whole number that arrays can count to
CROP: Final = 4  # pixels by which crops are shifted at most, customary for 32x32 images


@dataclass(frozen=True)
class Option:
    """One option of a configuration."""

    kind: Kind
    help: str  # one sentence
    group: str  # the heading it stands under
    choices: tuple[str, ...] = ()  # of a choice, or the names there are
    least: float | None = None  # least ≤ value ≤ most, above < value < below
    above: float | None = None
    below: float | None = None
    most: float | None = None
    default: Any = None  # what a recipe fills in, whatever the data
    words: str | None = None  # the default, where that does not say it

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
        if self.kind == "path" and isinstance(value, os.PathLike):
            value = os.fspath(value)
        if self.kind in ("integer", "number"):
            wanted = Integral if self.kind == "integer" else Real
            right = isinstance(value, wanted) and not isinstance(value, bool)
            if right and isinstance(value, Integral) and abs(int(value)) > LARGEST:
                raise ArchitectureError(f"{name} must be at most {LARGEST:,}, got {value!r:.40}...")
            if right and self._is_within(value):
                return int(value) if wanted is Integral else float(value)
            right = False
        elif self.kind == "flag":
            right = isinstance(value, bool)
        else:
            right = isinstance(value, str) and "\0" not in value
        if not right or (self.choices and value not in self.choices):
            raise ArchitectureError(f"{name} must be {self.expected}, got {value!r:.80}")
        return value

    def _is_within(self, number: float) -> bool:
        return (
            math.isfinite(number)
            and (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
            and (self.most is None or number <= self.most)
        )

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind in ("text", "path", "flag"):
            return "true or false" if self.kind == "flag" else "text"
        signs = {"≥": self.least, ">": self.above, "<": self.below, "≤": self.most}
        bounds = [f"{sign} {bound:g}" for sign, bound in signs.items() if bound is not None]
        number = "a whole number" if self.kind == "integer" else "a number"
        return " ".join([number, " and ".join(bounds)]).rstrip()

    @property
    def described_default(self) -> str:
        """The default in words; empty if there is none."""
        if self.words is not None:
            return self.words
        if self.default is None or self.default is False:
            return ""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


def _layers(name: str, value: Any) -> tuple[int | str, ...]:
    from nembp.architecture import parse, plain  # NumPy

    return plain(parse(value, name))


def _names(name: str, value: Any) -> tuple[str, ...]:
    entries = value.split(",") if isinstance(value, str) else value
    if not isinstance(entries, Sequence) or not all(isinstance(entry, str) for entry in entries):
        raise ArchitectureError(f'{name} must be names such as "height,weight", got {value!r:.80}')
    names = tuple(entry.strip() for entry in entries)
    if not names or "" in names:
        raise ArchitectureError(f"{name} holds an empty name: {value!r:.80}")
    return names


def _size(name: str, value: Any) -> tuple[int, int]:
    """Read the height and width of images: "32x48", "32" for both, or whole numbers."""
    sides = value.split("x") if isinstance(value, str) else value
    texts = [str(side) for side in (sides if isinstance(sides, Sequence) else [sides])]
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


# -- configurations --------------------------------------------------------------------------------
def option(kind: Kind, group: str, help: str, of: Any = None, **more: Any) -> Any:
    """Return the field of an option that is None, for the recipe to fill in, unless ``of`` says."""
    return field(default=of, metadata={"option": Option(kind, help, group, **more)})


def choice(group: str, help: str, *choices: str, **more: Any) -> Any:
    """Return the field of an option that is one of some names."""
    return option("choice", group, help, choices=choices, **more)


@dataclass(frozen=True)
class Config:
    """Base of configurations: frozen dataclasses of `option` fields, which are checked."""

    command: ClassVar[str] = "train"  # of nembp, that it is for
    length: ClassVar[str] = "epochs"  # the field that says how long a run is
    aliases: ClassVar[Mapping[str, str]] = {}  # other names of fields in files and flags

    def __post_init__(self) -> None:
        for name, option in self.options().items():
            value = vars(self)[name]
            if value is not None:
                object.__setattr__(self, name, option.check(name, value))
            elif self.__dataclass_fields__[name].default is not None:
                raise ArchitectureError(f"{name} must be a name, got None")

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Return every option by the name of its field, in order."""
        return {
            item.name: cast("Option", item.metadata["option"]) for item in dataclasses.fields(cls)
        }

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return what a recipe fills in whatever the data."""
        options = cls.options().items()
        return {name: option.default for name, option in options if option.default is not None}

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
    path: str | os.PathLike[str], kind: type[Config], extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read and check the options that a TOML file sets, by the names of fields, with - or _.

    ``extra`` has further keys, and their types. An ArchitectureError names the file and the key.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            table = tomllib.loads(file.read().decode("utf-8-sig"))  # editors write a mark
    except OSError as error:
        raise ArchitectureError(
            f"{name}: cannot be read ({error.strerror or error}); expected a TOML file of options"
        ) from error
    except (ValueError, RecursionError) as error:  # ValueError: also of bytes, or too many digits
        raise ArchitectureError(f"{name}: not valid TOML ({error})") from error
    known, extra = kind.options(), extra or {}
    settings: dict[str, Any] = {}
    for key, value in table.items():
        field = key.replace("-", "_")
        field = kind.aliases.get(field, field)
        if field in settings:
            raise ArchitectureError(f"{name}: {key} is given twice, in two spellings")
        if field in known:
            settings[field] = known[field].check(f"{name}: {key}", value)
        elif field not in extra:
            close = difflib.get_close_matches(field, [*known, *extra], n=3)
            hint = "did you mean " + " or ".join(close).replace("_", "-") + "?"
            if not close:
                hint = f"`nembp {kind.command} --help` lists the options"
            raise ArchitectureError(f"{name}: unknown key {key!r:.80}; {hint}")
        elif not isinstance(value, extra[field]):
            words = {bool: "true or false", str: "text"}
            what = words.get(extra[field], "a number")
            raise ArchitectureError(f"{name}: {key} must be {what}, got {value!r:.80}")
        else:
            settings[field] = value
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
        line = f"{name.replace('_', '-')} = {_value(value)}"
        text = line.encode("utf-8", "replace").decode()  # a path may be of bytes that are no text
        lines.append(line if text == line else f"# {text}: TOML cannot hold it")
    return "\n".join([*lines, ""])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):  # JSON's escapes are TOML's, but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
