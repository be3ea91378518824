"""Run configurations as TOML: read without trust, written so that they read back the same."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from typing import Any, TypeVar, overload

from nembp.errors import ArchitectureError
from nembp.runs.config import RunConfig
from nembp.runs.option_fields import OptionFields

C = TypeVar("C", bound=OptionFields)

__all__ = ["from_toml", "read_settings", "to_toml"]


def read_settings(
    path: str | os.PathLike[str],
    extra: Mapping[str, type] | None = None,
    kind: type[OptionFields] = RunConfig,
) -> dict[str, Any]:
    """Read and check the options that a TOML file sets.

    Parameters
    ----------
    path : path
        Keys are the names of options, with - or _.
    extra : dict of str to type
        Further keys that are allowed, such as the command line's own, and their types.
    kind : type
        The configuration that it is for.

    Returns
    -------
    dict
        By the names of `kind`'s fields (or of ``extra``).

    Raises
    ------
    ArchitectureError
        If the file cannot be read as TOML, or a key is unknown, given twice or of the wrong type;
        the message names the file and the key.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ArchitectureError(
            f"{name}: cannot be read ({error.strerror or error}); expected a TOML file of options"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
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
            raise ArchitectureError(_unknown(name, key, field, [*known, *extra], kind.command))
        elif not isinstance(value, extra[field]):
            what = {bool: "true or false", str: "text"}.get(extra[field], extra[field].__name__)
            raise ArchitectureError(f"{name}: {key} must be {what}, got {value!r:.80}")
        else:
            settings[field] = value
    return settings


@overload
def from_toml(path: str | os.PathLike[str]) -> RunConfig: ...


@overload
def from_toml(path: str | os.PathLike[str], kind: type[C]) -> C: ...


def from_toml(path: str | os.PathLike[str], kind: type[OptionFields] = RunConfig) -> OptionFields:
    """Return the configuration that a file describes, as in ``from_toml("runs/a/config.toml")``."""
    return kind(**read_settings(path, kind=kind))


def to_toml(config: OptionFields, comment: str = "") -> str:
    """Write a configuration as TOML, under a comment; what is None is left out.

    >>> print(to_toml(RunConfig(layers="conv8x3,4", noise_std=0.1)), end="")
    dataset = "digits"
    layers = ["conv8x3", 4]
    noise-std = 0.1
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    for name, value in config.as_dict().items():
        lines.append(f"{name.replace('_', '-')} = {_value(value)}")
    return "\n".join([*lines, ""])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):  # JSON's escapes are TOML's, but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _unknown(name: str, key: str, field: str, known: list[str], command: str) -> str:
    close = difflib.get_close_matches(field, known, n=3)
    if close:
        hint = "did you mean " + " or ".join(match.replace("_", "-") for match in close) + "?"
    else:
        hint = f"`nembp {command} --help` lists the options"
    return f"{name}: unknown key {key!r:.80}; {hint}"
