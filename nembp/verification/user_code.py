"""Checking a function or class of the user's, named ``module:attribute``, from its own file."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nembp
from nembp.backend import Backend, stream
from nembp.errors import ArchitectureError, DataError, NembpError, ShapeError
from nembp.testing import check_extension
from nembp.testing.extensions import is_extension
from nembp.verification.gradients import check_gradient
from nembp.verification.law_reports import LawReport
from nembp.verification.reports import GradientReport

__all__ = ["UserCodeError", "check_user_code", "load"]

HELP = "expected MODULE:NAME, such as my_module:my_function"
# frames that are not the user's: this package, the command line, Python's import machinery
_OWN = (str(Path(nembp.__file__).parent) + os.sep, "<frozen importlib", "nembp_cli")


class UserCodeError(NembpError):
    """The user's code raised.

    Attributes
    ----------
    trace : str
        Its traceback, without frames of nembp.
    """

    exit_code = 3

    def __init__(self, what: str, error: BaseException) -> None:
        kind = type(error).__name__
        super().__init__(
            f"{what} raised {kind}: {error}" if str(error) else f"{what} raised {kind}"
        )
        self.trace = _trace(error)


def _trace(error: BaseException) -> str:
    whole = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = whole
    while part is not None:
        frames = [frame for frame in part.stack if not frame.filename.startswith(_OWN[:2])]
        frames = [frame for frame in frames if f"{os.sep}importlib{os.sep}" not in frame.filename]
        part.stack = traceback.StackSummary.from_list(frames)
        part = part.__cause__ or part.__context__
    return "".join(whole.format()).rstrip()


@contextlib.contextmanager
def _running(what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into UserCodeError, and keep its prints off stdout."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (NembpError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        raise UserCodeError(what, error) from error


def load(target: str) -> Any:
    """Import ``module:attribute`` as from the working directory.

    Raises
    ------
    ArchitectureError
        If there is no such module or attribute.
    UserCodeError
        If the module raises while it is imported.

    >>> load("nembp.engine.activations:Tanh")
    <class 'nembp.engine.activations.Tanh'>
    """
    module_name, _, path = target.partition(":")
    if not path or not all(part.isidentifier() for part in module_name.split(".")):
        raise ArchitectureError(f"{target!r}: {HELP}; a file my_file.py is the module my_file")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    with _running(f"importing {module_name}"):
        try:
            value: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise ArchitectureError(
                f"{target!r}: there is no module {error.name!r} in {os.getcwd()} or among the "
                "installed ones; run nembp verify from the folder that holds it"
            ) from error
    module = value
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError as error:
            raise ArchitectureError(
                f"{target!r}: {module_name} ({module.__file__}) has no {part!r}; it has "
                f"{_public(module) or 'nothing that can be checked'}"
            ) from error
    return value


def _public(module: Any) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", "") == module.__name__
    ]
    return ", ".join(names[:12])


def check_user_code(
    target: str,
    *,
    point: str | None = None,
    size: int | None = None,
    device: str | Backend = "cpu",
    seed: int = 0,
) -> GradientReport | LawReport:
    """Check a function θ ↦ (value, gradient), or a likelihood, linear map, activation or optimizer.

    Parameters
    ----------
    target : str
        ``module:attribute``, imported as from the working directory. A class or object that
        extends nembp goes to :func:`~nembp.testing.check_extension`, a function to
        :func:`~nembp.verification.check_gradient`.
    point : str, optional
        Where to check a function: a file ``.npy``, or ``module:attribute`` of an array or of a
        function that returns one. By default ``point`` of the target's module.
    size : int, optional
        In place of ``point``: that many standard normal numbers.
    device, seed
        As in :func:`~nembp.testing.check_extension`; the seed is also that of random points.

    Returns
    -------
    GradientReport or LawReport
        Nothing is raised for a wrong gradient or a broken law.

    Raises
    ------
    ArchitectureError
        If there is nothing to check by that name, or no point.
    DataError, ShapeError
        If a point or what the function returns is no array of numbers.
    UserCodeError
        If the user's code raises.
    """
    value = load(target)
    if is_extension(value):
        if point is not None or size is not None:
            raise ArchitectureError(f"{target} is no function: --point and --size are not for it")
        with _running(target):
            return check_extension(value, device=device, seed=seed, raises=False)
    if not callable(value):
        raise ArchitectureError(
            f"{target} is {type(value).__name__}, not callable; expected a function that returns "
            "(value, gradient), or a Likelihood, LinearMap, Activation or Optimizer"
        )
    at = _point(target, point, size, seed)
    with _running(target):
        value(_copy(at))  # at the point itself nothing may go wrong
    with _running(target):
        try:
            return check_gradient(value, at, seed=seed, name=target, raises=False)
        except ShapeError as error:
            raise ShapeError(f"{target}: {error}") from error


def _copy(point: Any) -> Any:
    if isinstance(point, dict):
        return {key: np.array(value) for key, value in point.items()}
    if isinstance(point, (list, tuple)):
        return type(point)(np.array(value) for value in point)
    return np.array(point)


def _point(target: str, point: str | None, size: int | None, seed: int) -> Any:
    if size is not None:
        if point is not None:
            raise ArchitectureError("give --point or --size, not both")
        return stream(seed, "point").standard_normal(size)
    if point is not None and ":" not in point:
        return _read(point)
    module = target.partition(":")[0]
    try:
        found = load(point or f"{module}:point")
    except ArchitectureError as error:
        if point is not None:
            raise
        raise ArchitectureError(
            f"no point to check {target} at: define `point` in {module}, or give --point FILE.npy "
            "or --size N for N random numbers"
        ) from error
    if not callable(found):
        return found
    call: Callable[[], Any] = found
    with _running(point or f"{module}:point"):
        return call()


def _read(path: str) -> Any:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected a .npy file"
        ) from error
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: {error}; expected a .npy file of numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an .npz archive; expected a .npy file with one array")
    return array
