"""A group of commands that are imported when run, and that turn errors into one line."""

from __future__ import annotations

import contextlib
import errno
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from nembp.errors import NembpError, OutputError

__all__ = ["CommandGroup"]

INTERRUPTED = 130
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


class CommandGroup(click.Group):
    """A click group with lazily imported commands and one-line errors.

    Parameters
    ----------
    commands_table : mapping
        Name of each command to ("module:attribute", one line of help).
    package : str
        That relative modules are in.
    """

    def __init__(
        self,
        *args: Any,
        commands_table: Mapping[str, tuple[str, str]],
        package: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._table = dict(commands_table)
        self._package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._table, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._table[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module, self._package), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, line) for name, (_, line) in self._table.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> NoReturn:
        """Run, print whatever goes wrong as one line on stderr, and exit with its code."""
        more["standalone_mode"] = False
        sys.exit(_code(lambda: super(CommandGroup, self).main(args, *rest, **more)))


def _code(run: Any) -> int:
    try:
        result = run()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        help_of = f"; see `{error.ctx.command_path} --help`" if error.ctx else ""
        return _fail(error.format_message().rstrip(".") + help_of, error.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:  # click raises Abort from KeyboardInterrupt
        return _fail(str(error.__cause__ or error) or "interrupted", INTERRUPTED)
    except NembpError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        if error.filename is None and error.errno in NO_ROOM:  # files raise an OutputError
            return _fail(f"the output cannot be written ({error.strerror})", OutputError.exit_code)
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    except MemoryError as error:
        return _fail(f"not enough memory; make the network or the data smaller ({error})", 1)
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # of a stderr that is full or gone
        click.echo(f"nembp: error: {' '.join(message.splitlines())}", err=True)
    return code
