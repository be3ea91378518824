"""Errors that a user can act on.

Every message says what was expected, what came, and the remedy. The command line turns each
class into one line on stderr and into the exit code written here; 0 is success, 1 an error of
nembp itself, 2 a usage error (click's own).
"""

from __future__ import annotations


class NembpError(Exception):
    """Base of every error that nembp raises on purpose."""

    exit_code = 1


class ArchitectureError(NembpError, ValueError):
    """A network, option or protocol that cannot be built as described."""

    exit_code = 2


class ShapeError(NembpError, ValueError):
    """An array whose shape or dtype does not fit the network it is given to."""

    exit_code = 3


class DataError(NembpError, ValueError):
    """Data or a model file that is missing, damaged or not what it claims to be."""

    exit_code = 3


class DeviceError(NembpError, RuntimeError):
    """A device that was asked for and cannot be used."""

    exit_code = 4


class DeviceMemoryError(NembpError, MemoryError):
    """A GPU whose memory does not hold what is asked of it."""

    exit_code = 8


class DivergenceError(NembpError, ArithmeticError):
    """Training produced a value that is not finite; the last good parameters were restored."""

    exit_code = 5


class OutputError(NembpError, OSError):
    """A result that cannot be written where it was asked for."""

    exit_code = 6


class VerificationError(NembpError, AssertionError):
    """A law or gradient that does not hold; ``report``, where there is one, prints as a table."""

    exit_code = 7

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report
