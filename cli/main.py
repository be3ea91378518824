"""The command ``nembp``: its subcommands, its version, and what becomes of errors.

Nothing here imports NumPy, and a subcommand's module is imported only when it is run, so that
``nembp --help`` appears at once. To add a command, add a line to ``COMMANDS``.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import click

from nembp import __version__
from nembp.errors import NembpError, OutputError

# name: (module, one line of what it is for)
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "train": ("train", "Train a bidirectional network and leave a run folder."),
    "evaluate": ("models", "Score a trained network in both directions."),
    "predict": ("models", "Run a trained network in either direction."),
    "export": ("models", "Write a trained network as ONNX graphs, for other runtimes."),
    "gan": ("gan", "Train a generator against a discriminator."),
    "sample": ("models", "Draw samples from a trained generator."),
    "draw": ("models", "Draw which noise a trained network's training keeps."),
    "verify": ("verify", "Try the laws of the engine, or check your own gradient."),
    "data": ("data", "List, inspect and fetch data sets."),
    "experiment": ("experiment", "Settle published claims, with controls."),
    "bench": ("bench", "Time a training step beside its rivals and the bare products."),
    "info": ("info", "Show versions, devices, BLAS and threads; or a trained network."),
}

EPILOG: Final = """\
\b
Exit codes:
  0    success
  1    an error of nembp or of the system
  2    wrong usage: options, configuration, architecture
  3    bad data or a damaged model file
  4    no usable GPU, though --device gpu asked for one
  5    training diverged (the last good model is saved)
  6    the output cannot be written
  7    a law or a gradient does not hold (nembp verify)
  8    the GPU's memory is too small
  130  interrupted (what was learned is saved)

\b
Every option of a command can also be set by an environment variable, such as
NEMBP_TRAIN_EPOCHS=10 for `nembp train --epochs 10`.
"""
INTERRUPTED = 130
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


class CommandGroup(click.Group):
    """A click group with lazily imported commands and one-line errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f".{COMMANDS[cmd_name][0]}", __package__)
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not {"-h", "--help"} & set(args):
            from .options import check_variables  # which the help of a group does without

            check_variables(str(name), command, COMMANDS)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> NoReturn:
        """Run, print whatever goes wrong as one line on stderr, and exit with its code."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # what a code page lacks is escaped
                stream.reconfigure(errors="backslashreplace")
        more["standalone_mode"] = False
        sys.exit(_code(lambda: super(CommandGroup, self).main(args, *rest, **more)))


def _code(run: Callable[[], object]) -> int:
    """Run, and return an exit code; what goes wrong is one line on stderr."""
    try:
        result = run()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _fail(_usage(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:  # click raises Abort from KeyboardInterrupt
        return _fail(str(error) or str(error.__cause__ or "") or "interrupted", INTERRUPTED)
    except NembpError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        if error.filename is None and error.errno in NO_ROOM:  # files raise an OutputError
            return _fail(f"the output cannot be written ({error.strerror})", OutputError.exit_code)
        if error.filename is None and isinstance(error, FileNotFoundError):  # of os.getcwd
            return _fail("the working folder no longer exists; change into one that does", 1)
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    except MemoryError as error:
        return _fail(f"not enough memory; make the network or the data smaller ({error})", 1)
    except Exception as error:  # noqa: BLE001  a bug: one line, and all of it for a report
        return _fail(f"{type(error).__name__}: {error}; {_log()}", 1)
    return result if isinstance(result, int) else 0


def _usage(error: click.ClickException) -> str:
    """Say what is wrong, which environment variable said it, and where help is."""
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return error.format_message().rstrip(".")
    from .options import variable_of

    param = getattr(error, "param", None)
    variable = variable_of(error.ctx, param) if param else ""
    source = f" (from {variable})" if variable else ""
    text = error.format_message().rstrip(".")
    return f"{text}{source}; see `{error.ctx.command_path} --help`"


def _log() -> str:
    """Write the traceback into a file, and say where."""
    text = traceback.format_exc()
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="nembp-", suffix=".log", encoding="utf-8", errors="replace", delete=False
        ) as file:
            file.write(f"nembp {__version__}: {' '.join(sys.argv[1:])}\n{text}")
    except OSError:
        return f"please report it with this traceback: {text}"
    return f"this is a fault of nembp, please report it with {file.name}"


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # of a stderr that is full or gone
        from .output import plain

        click.echo(plain(f"nembp: error: {' '.join(message.splitlines())}"), err=True)
    return code


@click.group(
    cls=CommandGroup,
    epilog=EPILOG,
    context_settings={
        "auto_envvar_prefix": "NEMBP",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="nembp", message="%(prog)s %(version)s")
def cli() -> None:
    """Train one network in both directions over the same weights.

    The forward direction maps x to y, the backward direction maps y back to x through the
    transposed weights: bidirectional backpropagation (B-BP), with NEM noise where it helps.

    `nembp train` alone learns handwritten digits in a few seconds.
    """


def main() -> None:
    """Run the command line."""
    cli(prog_name="nembp")
