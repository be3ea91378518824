"""Activations, synapses and likelihoods by name, and the JSON in which files keep them.

A kind is a frozen dataclass; an object of it is written ``{"kind": name, field: value, ...}`` and
rebuilt by the annotations of its class. A new kind says its name once, and every model file can
hold it:

    register_kind("synapse", "locally-connected", LocallyConnected)
"""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TypeAlias

import numpy as np

from nembp.errors import ArchitectureError, DataError
from nembp.likelihoods import LIKELIHOODS, Likelihood
from nembp.neurons import ACTIVATIONS, Activation
from nembp.synapses import Dense, Synapse, Transposed

__all__ = ["SYNAPSES", "Family", "decode", "encode", "register_kind"]

Family: TypeAlias = Literal["activation", "synapse", "likelihood"]

# "module:class" is imported when a file names it
SYNAPSES: dict[str, type[Synapse] | str] = {
    "dense": Dense,
    "transposed": Transposed,
    "convolution": "nembp.convolution:Convolution",
    "average-pooling": "nembp.image_maps:AveragePooling",
    "reshape": "nembp.image_maps:Reshape",
}

# what has a likelihood's methods and is none, so no option names it
OBJECTIVES: dict[str, Any] = {"score": "nembp.adversarial.objectives:Score"}

_BASES: dict[Family, type[Any]] = {
    "activation": Activation,
    "synapse": Synapse,
    "likelihood": Likelihood,
}
_KINDS: dict[Family, MutableMapping[str, Any]] = {
    "activation": ACTIVATIONS,
    "synapse": SYNAPSES,
    "likelihood": ChainMap(LIKELIHOODS, OBJECTIVES),
}


def register_kind(family: Family, name: str, kind: type[Any]) -> None:
    """Let model files hold objects of a class.

    An activation or likelihood also joins `ACTIVATIONS` or `LIKELIHOODS` by this.

    Parameters
    ----------
    family : {"activation", "synapse", "likelihood"}
        What it is.
    name : str
        What files call it; for ever, since old files keep the name.
    kind : type
        A dataclass whose fields are numbers, strings, None, tuples of these, or objects of
        registered kinds. A field added later needs a default, which old files then get.

    Raises
    ------
    ArchitectureError
        If `kind` is no such dataclass, or the name belongs to another class.
    """
    if not (issubclass(kind, _BASES[family]) and dataclasses.is_dataclass(kind)):
        raise ArchitectureError(
            f"{kind.__name__} cannot be registered: expected a dataclass that subclasses "
            f"{_BASES[family].__name__}"
        )
    _hints(kind)
    known = _KINDS[family].setdefault(name, kind)
    if known is not kind and known != _path(kind):
        raise ArchitectureError(f"{family} {name!r} is already registered as {known}")


def encode(value: Any) -> Any:
    """Turn a kind's object, or another dataclass of plain values, into what JSON can hold.

    Raises
    ------
    ArchitectureError
        If its class, or that of a field's value, is not registered.

    >>> encode(Dense(4, 3))
    {'kind': 'dense', 'inputs': 4, 'outputs': 3}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return encode(value.item())
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        written: dict[str, Any] = {}
        for family, base in _BASES.items():
            if isinstance(value, base):
                written["kind"] = _name(family, type(value))
        return written | {name: encode(getattr(value, name)) for name in _fields(type(value))}
    raise ArchitectureError(
        f"{value!r} cannot be kept in a file; expected a number, a string, None, a tuple of "
        "these, or an object of a registered kind (nembp.kinds.register_kind)"
    )


def decode(hint: Any, written: Any) -> Any:
    """Rebuild a value of an annotated type from its JSON.

    Parameters
    ----------
    hint : type
        ``Activation``, ``Synapse`` or ``Likelihood`` for any of their kinds; a dataclass; int,
        float, bool, str, None, dict, a Literal; unions and tuples of these.
    written : JSON value
        What `encode` made.

    Raises
    ------
    DataError
        If the value does not fit, or its kind is unknown. The file is the caller's to name. A
        class that rejects its values raises what it raises: ArchitectureError, mostly.

    >>> decode(Synapse, {"kind": "dense", "inputs": 4, "outputs": 3})
    Dense(inputs=4, outputs=3)
    >>> decode(tuple[int, ...] | None, [28, 28, 1])
    (28, 28, 1)
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(arguments, written)
    if origin is tuple and isinstance(written, list):
        if arguments[1:] == (Ellipsis,):
            arguments = arguments[:1] * len(written)
        if len(arguments) == len(written):
            return tuple(decode(*pair) for pair in zip(arguments, written, strict=True))
    elif origin is Literal and isinstance(written, str) and written in arguments:
        return written
    elif isinstance(written, dict) and (hint in _BASES.values() or dataclasses.is_dataclass(hint)):
        return _construct(hint, written)
    elif hint is float and type(written) is int:
        return float(written)
    elif type(written) is (origin or hint):  # not isinstance: True is no number here
        return written
    raise DataError(f"{_shown(written)} where {getattr(hint, '__name__', hint)} was expected")


def _decode_union(options: tuple[Any, ...], written: Any) -> Any:
    none = type(None)
    if none in options and written is None:
        return None
    options = tuple(option for option in options if option is not none)
    for option in options[:-1]:
        try:
            return decode(option, written)
        except DataError:
            continue
    return decode(options[-1], written)


def _construct(hint: type[Any], written: Mapping[str, Any]) -> Any:
    """Build the kind that `written` names, or `hint` itself where it is no family's base."""
    name, kind, values = hint.__name__, hint, dict(written)
    for family, base in _BASES.items():
        if issubclass(hint, base):
            name = values.pop("kind", None)
            kind = _kind(family, name)
    fields = _fields(kind)
    required = {key for key, field in fields.items() if _has_no_default(field)}
    if not required <= values.keys() <= fields.keys():
        raise DataError(
            f"{name} has the fields {_shown(', '.join(values))}; expected "
            f"{', '.join(fields) or 'none'}; another version of nembp may have written it"
        )
    hints = _hints(kind)
    try:
        decoded = {key: decode(hints[key], value) for key, value in values.items()}
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    return kind(**decoded)


def _kind(family: Family, name: Any) -> type[Any]:
    kind = _KINDS[family].get(name) if isinstance(name, str) else None
    if kind is None:
        raise DataError(
            f"{family} of unknown kind {_shown(name)}; expected one of "
            f"{', '.join(_KINDS[family])}; import the module that registers it "
            "(nembp.kinds.register_kind), or use the version of nembp that wrote it"
        )
    if isinstance(kind, str):
        module, _, attribute = kind.partition(":")
        kind = getattr(importlib.import_module(module), attribute)
    return typing.cast("type[Any]", kind)


def _name(family: Family, kind: type[Any]) -> str:
    for name, known in _KINDS[family].items():
        if known is kind or known == _path(kind):
            return name
    raise ArchitectureError(
        f"{family} {kind.__qualname__} cannot be kept in a file: its class has no name there; "
        f'call nembp.kinds.register_kind("{family}", name, {kind.__qualname__}) once'
    )


def _path(kind: type[Any]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _fields(kind: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(kind) if field.init}


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _hints(kind: type[Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except NameError as error:
        raise ArchitectureError(
            f"{kind.__qualname__} cannot be kept in a file: its annotation {error.name!r} has no "
            "meaning at run time; import that name outside of TYPE_CHECKING"
        ) from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
