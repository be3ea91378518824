"""Commands and their options: those of a configuration are made from its fields."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import os
from collections.abc import Callable, Collection, Iterable
from types import SimpleNamespace
from typing import Any

import click
from click.core import ParameterSource

from nembp.errors import ArchitectureError
from nembp.runs.options import Config
from nembp.runs.options import Option as Declared

POSITIVE, NATURAL = Declared("int", within="≥ 1"), Declared("int", within="≥ 0")
METAVARS = {
    "int": "N", "float": "X", "str": "TEXT", "Layers": "LAYERS", "Names": "NAMES", "File": "PATH",
    "Size": "HxW", "Augment": "KINDS",
}  # fmt: skip
OWN_VARIABLES = ("NEMBP_CACHE", "NEMBP_MNIST_MIRROR", "NEMBP_CIFAR_MIRROR")  # of no command


def _reader(declared: Declared) -> Callable[[Any], Any]:
    """Return what reads a value as an option of a configuration."""
    number: Any = {"int": int, "float": float}.get(declared.kind)

    def read(value: Any) -> Any:
        if number is not None and isinstance(value, str):
            with contextlib.suppress(ValueError):  # the check says what was expected
                value = number(value)
        try:
            return declared.check("it", value)
        except ArchitectureError as error:
            raise click.BadParameter(str(error)) from error

    return read


class Option(click.Option):
    """An option: its flags, perhaps its name in the function, and NAME of what it takes; its help.

    It takes text if there is a NAME, else what ``takes`` says: what an option of a configuration
    does, one of a tuple of words, or a type of click's. Without either, it takes nothing.
    """

    def __init__(
        self, flags: str, help: str, takes: Any = None, *, heading: str = "Options", **more: Any
    ) -> None:
        self.heading, words = heading, flags.split()
        name = None if words[-1].startswith("-") or words[-1].islower() else words.pop()
        if isinstance(takes, Declared):
            help += f"  [{takes.within}]" if takes.within else ""
            name, takes = name or METAVARS[takes.kind], _reader(takes)
        takes = click.Choice(takes) if isinstance(takes, tuple) else takes
        is_flag, shown = takes is None and name is None, more.get("default") is not None
        of: Any = {"is_flag": True} if is_flag else {"type": takes or str, "metavar": name}
        super().__init__(words, help=help, show_default=shown, **of, **more)
        # ends of the environment variables that set it: of its flags, and of its field
        flags = " ".join(self.opts).replace("--", "").replace("-", "_")
        self.variables = f"{flags} {self.name}".upper().split()

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        for name in self.variables:
            if value := os.environ.get(f"{ctx.auto_envvar_prefix}_{name}"):
                return value
        return None


class Args(SimpleNamespace):
    """The parameters of a command."""

    def given(self, *names: str) -> dict[str, Any]:
        """Return those of some names that were given anywhere."""
        return {name: value for name in names if (value := vars(self)[name]) is not None}


class Command(click.Command):
    """A command whose help lists options under their headings, and whose refusals name variables.

    Its function gets its parameters as one `Args`.
    """

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                headings.setdefault(getattr(param, "heading", "Options"), []).append(record)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        assert self.callback is not None
        try:
            return ctx.invoke(self.callback, Args(**ctx.params))
        except ArchitectureError as error:
            for param in self.params:
                if param.name in ctx.params and (variable := variable_of(ctx, param)):
                    error = ArchitectureError(
                        f"{error}; {variable} sets {param.opts[0]} {ctx.params[str(param.name)]}"
                    )
            raise error


def command(
    *params: click.Parameter, of: click.Group | None = None, name: str | None = None, **more: Any
) -> Callable[[Callable[[Any], None]], Command]:
    """Return what makes a command, perhaps ``of`` a group, of a function; it gets --json too."""

    def made(run: Callable[[Any], None]) -> Command:
        name_, options = name or run.__name__, [*params, Option("--json", "Print one JSON object.")]
        result = Command(name_, callback=run, params=options, help=inspect.getdoc(run), **more)
        if of is not None:
            of.add_command(result)
        return result

    return made


def check_variables(name: str, command: click.Command, commands: Iterable[str]) -> None:
    """Refuse a variable NEMBP_* that sets nothing: a misspelt one would be passed over."""
    known = [*OWN_VARIABLES, *_variables(f"NEMBP_{name.upper()}", command)]
    others = tuple(f"NEMBP_{each.upper()}_" for each in ("test", *commands) if each != name)
    for variable in os.environ:
        if variable.startswith("NEMBP_") and not (variable in known or variable.startswith(others)):
            close = difflib.get_close_matches(variable, known, 1)
            hint = f"did you mean {close[0]}?" if close else "unset it"
            raise click.UsageError(f"the environment variable {variable} sets nothing; {hint}")


def _variables(prefix: str, command: click.Command) -> list[str]:
    options = [param for param in command.params if isinstance(param, Option)]
    known = [f"{prefix}_{name}" for option in options for name in option.variables]
    for name, part in getattr(command, "commands", {}).items():
        known += _variables(f"{prefix}_{name.upper()}", part)
    return known


def variable_of(ctx: click.Context, param: click.Parameter) -> str:
    """Return the environment variable that sets a parameter, empty if none does."""
    source = ctx.get_parameter_source(str(param.name))
    if source is not ParameterSource.ENVIRONMENT or not isinstance(param, Option):
        return ""
    variables = [f"{ctx.auto_envvar_prefix}_{name}" for name in param.variables]
    return next(filter(os.environ.get, variables))


def options_of(kind: type[Config], names: Collection[str] | None = None) -> list[Option]:
    """Return an option for each field of a configuration, or for those of some names."""
    options = kind.options().items()
    return [_option(kind, *each) for each in options if names is None or each[0] in names]


def _option(kind: type[Config], name: str, declared: Declared) -> Option:
    takes: Any = declared
    word = name.replace("_", "-")
    flags = f"--{word}"
    for alias, of in kind.aliases.items():
        flags = f"--{alias} {flags}" if of == name else flags
    if declared.kind == "bool":
        flags, takes = f"--{word}/--no-{word}", click.BOOL
    elif declared.kind == "str" and declared.choices:
        takes = declared.choices
    default = declared.described_default
    told = declared.help + (f"  [default: {default}]" if default else "")
    return Option(f"{flags} {name}", told, takes, heading=declared.group, default=None)


# -- options of several commands -------------------------------------------------------------------
FORCE = Option("--force", "Replace FILE if it exists.")
RUN = click.Argument(["run"], metavar="RUN")
DEVICE = Option("--device", "auto takes a GPU where one works.", ("auto", "cpu", "gpu"),
                default="cpu")  # fmt: skip
DATA_DIR = Option("--data-dir PATH", "Where the data lies.  [default: where it lay in training]")
DIRECTION = Option("--direction", "forward: from samples to classes or targets; backward: from "
                   "those to samples.", ("forward", "backward"), default="forward")  # fmt: skip
