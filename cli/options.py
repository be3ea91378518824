"""Click options made from those of a configuration, so that the two cannot disagree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import click

from nembp.errors import ArchitectureError
from nembp.runs.config import RunConfig
from nembp.runs.config_file import read_settings
from nembp.runs.option import Option
from nembp.runs.option_fields import OptionFields
from nembp.runs.recipes import describe_default

__all__ = [
    "OWN_KEYS",
    "Checked",
    "F",
    "GroupedCommand",
    "GroupedOption",
    "config_option",
    "device_option",
    "json_option",
    "options_of",
    "run_options",
]

F = TypeVar("F", bound=Callable[..., Any])

METAVARS = {
    "integer": "N",
    "number": "X",
    "layers": "LAYERS",
    "names": "NAMES",
    "path": "PATH",
    "size": "HxW",
    "augmentation": "KINDS",
}
# the command line's own keys of a configuration file
OWN_KEYS = {"out": str, "force": bool, "json": bool, "quiet": bool}


class Checked(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """A value that an option of a configuration checks."""

    def __init__(self, option: Option) -> None:
        self.option = option
        self.name = option.kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and self.name in ("integer", "number"):
            value = _number(value, whole=self.name == "integer")
        try:
            return self.option.check("it", value)
        except ArchitectureError as error:
            self.fail(str(error), param, ctx)


def _number(text: str, *, whole: bool) -> Any:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        return text  # the check says what was expected


class GroupedOption(click.Option):
    """An option that stands under a heading in the help."""

    def __init__(self, *args: Any, group: str = "Run", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        try:
            return super().handle_parse_result(ctx, opts, args)
        except click.BadParameter as error:
            if self.name in opts or self.resolve_envvar_value(ctx) is None:
                raise
            variable = f"{ctx.auto_envvar_prefix}_{self.name}".upper()
            message = f"{error.message.rstrip('.')} (from {variable})"
            raise click.BadParameter(message, ctx=ctx, param=self) from error


class GroupedCommand(click.Command):
    """A command whose help lists its options under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(param, "group", "Run"), []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)


def run_options(command: F, names: Collection[str] | None = None) -> F:
    """Add an option for each field of `RunConfig`, or for those of these names."""
    return options_of(RunConfig, describe_default, names=names)(command)


def options_of(
    kind: type[OptionFields],
    describe: Callable[[str], str],
    *,
    names: Collection[str] | None = None,
    flags: Mapping[str, Sequence[str]] | None = None,
) -> Callable[[F], F]:
    """Return what adds an option for each field of a configuration to a command.

    Parameters
    ----------
    kind : type
        The configuration.
    describe : callable
        Says what an option is where it is not set.
    names : collection of str, optional
        Only these fields.
    flags : mapping, optional
        How fields are called that are not called --their-name.
    """

    def decorate(command: F) -> F:
        for name, option in reversed(kind.options().items()):
            if names is None or name in names:
                called = (flags or {}).get(name, _flags(name, option))
                command = _click_option(called, name, option, describe(name))(command)
        return command

    return decorate


def _flags(name: str, option: Option) -> Sequence[str]:
    words = name.replace("_", "-")
    return [f"--{words}/--no-{words}" if option.kind == "flag" else f"--{words}"]


def _click_option(flags: Sequence[str], name: str, option: Option, default: str) -> Any:
    kind: Any = click.Choice(option.choices) if option.kind == "choice" else Checked(option)
    return click.option(
        *flags,
        name,
        cls=GroupedOption,
        type=click.BOOL if option.kind == "flag" else kind,
        default=None,
        metavar=METAVARS.get(option.kind),
        help=option.help + (f"  [default: {default}]" if default else ""),
        group=option.group,
    )


def config_option(kind: type[OptionFields]) -> Callable[[F], F]:
    """Return what adds --config FILE.toml for files of such a configuration.

    Its values rank below the environment and above the recipe.
    """

    def load(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None and not ctx.resilient_parsing:
            ctx.default_map = dict(ctx.default_map or {}) | read_settings(value, OWN_KEYS, kind)

    return click.option(
        "--config",
        cls=GroupedOption,
        is_eager=True,
        expose_value=False,
        callback=load,
        metavar="FILE.toml",
        help="Read options from here (keys are their names); flags and the environment override "
        "it. RUN/config.toml repeats a run.",
    )


def device_option(command: F) -> F:
    """Add --device, by default the CPU: for commands that compute little."""
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "gpu"]),
        default="cpu",
        show_default=True,
        help="auto takes a GPU where one works.",
    )(command)


def json_option(command: F) -> F:
    """Add --json."""
    return click.option(
        "--json", "as_json", cls=GroupedOption, is_flag=True, help="Print one JSON object."
    )(command)
