"""Errors that a user can act on.

Every message says what was expected, what came, and the remedy. The command line turns each
class into one line on stderr and into its exit code; 0 is success, 1 an error of nembp itself, 2 a
usage error (click's own).
"""

from __future__ import annotations

from collections.abc import Collection


class NembpError(Exception):
    """Base of every error that nembp raises on purpose."""

    exit_code = 1

    def __init_subclass__(cls, exit_code: int | None = None) -> None:
        cls.exit_code = cls.exit_code if exit_code is None else exit_code


class ArchitectureError(NembpError, ValueError, exit_code=2):
    """A network, option or protocol that cannot be built as described."""


def check_choice(what: str, value: object, allowed: Collection[str]) -> None:
    """Raise an ArchitectureError unless a value is one of those allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise ArchitectureError(f"{what} must be one of {', '.join(allowed)}, got {value!r}")


class ShapeError(NembpError, ValueError, exit_code=3):
    """An array whose shape or dtype does not fit the network it is given to."""


class DataError(NembpError, ValueError, exit_code=3):
    """Data or a model file that is missing, damaged or not what it claims to be."""


class DeviceError(NembpError, RuntimeError, exit_code=4):
    """A device that was asked for and cannot be used."""


class DivergenceError(NembpError, ArithmeticError, exit_code=5):
    """Training produced a value that is not finite; the last good parameters were restored."""


class OutputError(NembpError, OSError, exit_code=6):
    """A result that cannot be written where it was asked for."""


class VerificationError(NembpError, AssertionError, exit_code=7):
    """A law or gradient that does not hold; ``report``, where there is one, prints as a table."""

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


class DeviceMemoryError(NembpError, MemoryError, exit_code=8):
    """A GPU whose memory does not hold what is asked of it."""
