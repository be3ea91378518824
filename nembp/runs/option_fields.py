"""Dataclasses whose fields are options: checked when made, and the only list of options there is.

The command line, its environment variables and the TOML reader are made from the fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, cast

from nembp.errors import ArchitectureError
from nembp.runs.option import Kind, Option

__all__ = ["OptionFields", "choice", "option", "same"]


def option(kind: Kind, group: str, help: str, default: Any = None, **more: Any) -> Any:
    """Return the field of an option; None is for what a recipe decides, or none."""
    return field(default=default, metadata={"option": Option(kind, help, group, **more)})


def choice(group: str, help: str, *choices: str, default: str | None = None) -> Any:
    """Return the field of an option that is one of some names."""
    return option("choice", group, help, default, choices=choices)


def same(of: Option, group: str | None = None) -> Any:
    """Return the field of an option that another configuration has too, under a heading."""
    return field(
        default=None, metadata={"option": of if group is None else replace(of, group=group)}
    )


@dataclass(frozen=True)
class OptionFields:
    """Base of configurations: frozen dataclasses of `option` fields.

    Raises
    ------
    ArchitectureError
        If a value is of the wrong type or out of bounds.
    """

    command: ClassVar[str] = "train"  # of nembp, that it is for
    aliases: ClassVar[Mapping[str, str]] = {}  # what a field is also called in a file

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value is not None:
                checked = self.options()[item.name].check(item.name, value)
                object.__setattr__(self, item.name, checked)
            elif item.default is not None:
                raise ArchitectureError(f"{item.name} must be a name, got None")

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Return every option by the name of its field, in order."""
        return {
            item.name: cast("Option", item.metadata["option"]) for item in dataclasses.fields(cls)
        }

    def replace(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are not None, tuples as lists: what JSON and TOML can hold."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None
        }
