"""Click options made from the fields of a configuration, so that the two cannot disagree."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from nembp.errors import ArchitectureError
from nembp.runs.options import Config, Option, read_settings

F = TypeVar("F", bound=Callable[..., Any])

METAVARS = {
    "int": "N", "float": "X", "str": "TEXT", "Layers": "LAYERS", "Names": "NAMES", "File": "PATH",
    "Size": "HxW", "Augment": "KINDS",
}  # fmt: skip
EVERY = Option("float", within="> 0")
# the command line's own keys of a configuration file
OWN_KEYS = {
    "out": Option("str"), "force": Option("bool"), "json": Option("bool"), "quiet": Option("bool"),
    "checkpoint_every": EVERY,
}  # fmt: skip


class Checked(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """A value that an option of a configuration checks."""

    def __init__(self, option: Option) -> None:
        self.option = option
        self.name = option.kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = {"int": int, "float": float}.get(self.name)
        if number is not None and isinstance(value, str):
            with contextlib.suppress(ValueError):  # the check says what was expected
                value = number(value)
        try:
            return self.option.check("it", value)
        except ArchitectureError as error:
            self.fail(str(error), param, ctx)


class GroupedOption(click.Option):
    """An option that stands under a heading in the help."""

    def __init__(self, *args: Any, group: str = "Run", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


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


def add(options: Iterable[Callable[[F], F]]) -> Callable[[F], F]:
    """Return what adds click options to a command, in order."""

    def decorate(command: F) -> F:
        for option in reversed(list(options)):
            command = option(command)
        return command

    return decorate


def options_of(kind: type[Config], names: Collection[str] | None = None) -> Callable[[F], F]:
    """Return what adds an option for each field of a configuration, or those of some names."""
    options = kind.options().items()
    return add(
        [_click_option(kind, *each) for each in options if names is None or each[0] in names]
    )


def _click_option(kind: type[Config], name: str, option: Option) -> Callable[[F], F]:
    flags = []
    for each in [*kind.aliases, name]:
        if kind.aliases.get(each, name) != name:
            continue
        word = each.replace("_", "-")
        flags.append(f"--{word}/--no-{word}" if option.kind == "bool" else f"--{word}")
    names = option.kind == "str" and option.choices
    of: Any = click.Choice(option.choices) if names else Checked(option)
    default = option.described_default
    return click.option(
        *flags,
        name,
        cls=GroupedOption,
        type=click.BOOL if option.kind == "bool" else of,
        default=None,
        metavar=None if names else METAVARS.get(option.kind),
        help=option.help + (f"  [default: {default}]" if default else ""),
        group=option.group,
    )


def chosen(kind: type[Config], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a configuration that were given anywhere."""
    return {name: params[name] for name in kind.options() if params[name] is not None}


json_option = click.option(
    "--json", "as_json", cls=GroupedOption, is_flag=True, help="Print one JSON object."
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "gpu"]), default="cpu", show_default=True,
    help="auto takes a GPU where one works.",
)  # fmt: skip
data_dir_option = click.option(
    "--data-dir", metavar="PATH", help="Where the data lies.  [default: where it lay in training]"
)
direction_option = click.option(
    "--direction", type=click.Choice(["forward", "backward"]), default="forward", show_default=True,
    help="forward: from samples to classes or targets; backward: from those to samples.",
)  # fmt: skip
force_option = click.option("--force", is_flag=True, help="Replace FILE if it exists.")


def run_folder_options(kind: type[Config], default: str) -> Callable[[F], F]:
    """Return what adds --out, called ``default`` if left out, --force, --resume, --config and more.

    What --config reads of this kind ranks below the environment.
    """

    def load(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None and not ctx.resilient_parsing:
            ctx.default_map = dict(ctx.default_map or {}) | read_settings(value, kind, OWN_KEYS)

    def option(*names: str, **more: Any) -> Callable[[F], F]:
        return click.option(*names, cls=GroupedOption, **more)

    options: list[Callable[[F], F]] = [
        option("--out", metavar="DIR",
               help=f"Folder of the run, new or empty.  [default: {default}]"),
        option("--force", is_flag=True,
               help="Take the place of the run in --out, if there is one, at the end."),
        option("--resume", metavar="RUN", help="Go on with the run in this folder from its last "
               "checkpoint, as if nothing had stopped it. Its options stay as they are, but "
               f"--{kind.length} may be raised, and --device, --threads and --data-dir be another "
               "machine's."),
        option("--checkpoint-every", type=Checked(EVERY),
               metavar="SECONDS", help="Write a checkpoint as often as this between two rows of "
               "the metrics.  [default: 60, or longer where that would take more than half a "
               "percent of the time]"),
        option("--config", is_eager=True, expose_value=False, callback=load, metavar="FILE.toml",
               help="Read options from here (keys are their names); flags and the environment "
               "override it. RUN/config.toml repeats a run."),
        json_option,
        option("--quiet", is_flag=True, help="No progress, no notes."),
    ]  # fmt: skip
    return add(options)


def variable_of(ctx: click.Context, param: click.Parameter) -> str:
    """Return the environment variable that sets a parameter, empty if none does."""
    if ctx.get_parameter_source(str(param.name)) is not ParameterSource.ENVIRONMENT:
        return ""
    named = [*(param.envvar or ()), f"{ctx.auto_envvar_prefix}_{param.name}".upper()]
    return next(name for name in named if os.environ.get(name))


@contextlib.contextmanager
def refusals(ctx: click.Context, *of_new: str) -> Iterator[None]:
    """Refuse options ``of_new`` runs beside --resume; a refusal names what variables set."""
    given = [name for name in of_new if ctx.params.get("resume") and ctx.params.get(name)]
    try:
        if given:
            raise ArchitectureError(
                f"--{given[0]} is of a new run, and --resume goes on with one in its own folder; "
                "leave one of them out"
            )
        yield
    except ArchitectureError as error:
        variables = "".join(
            f"; {variable} sets {param.opts[0]} {ctx.params[str(param.name)]}"
            for param in ctx.command.params
            if param.name in ctx.params and (variable := variable_of(ctx, param))
        )
        raise ArchitectureError(f"{error}{variables}") from error
