"""Trying every law on random cases, which is what `nembp verify` runs; and a user's own code."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nembp.backend import Backend, stream
from nembp.datasets.arrays import map_npy
from nembp.errors import ArchitectureError, NembpError, ShapeError
from nembp.threads import threads
from nembp.verification.cases import generate
from nembp.verification.checks import check_extension, is_extension
from nembp.verification.gradients import GradientReport, check_gradient
from nembp.verification.laws import LAWS, Law
from nembp.verification.reports import LawReport, LawResult

CASES = 135  # three rounds of every activation with every pair of likelihoods


def find_laws(names: Sequence[str] = ()) -> list[Law]:
    """Return the laws of these names, or whose names begin with them and a point; all if none.

    >>> [law.name for law in find_laws(["joint.none", "em"])]
    ['joint.none', 'em.fisher', 'em.gem', 'em.nem']
    """
    found: dict[str, Law] = {}
    for name in names:
        matches = {n: law for n, law in LAWS.items() if n == name or n.startswith(f"{name}.")}
        if not matches:
            groups = dict.fromkeys(law.partition(".")[0] for law in LAWS)
            near = difflib.get_close_matches(name, [*LAWS, *groups], n=1)
            meant = f"; did you mean {near[0]!r}?" if near else "."
            raise ArchitectureError(
                f"there is no law {name!r}{meant} For a function of your own write "
                f"module:function, such as {name}:my_function; `nembp verify --list` lists the "
                f"laws, of {', '.join(groups)}"
            )
        found |= matches
    return list((found if names else LAWS).values())


def try_law(
    law: Law,
    cases: int = CASES,
    seed: int = 0,
    device: str | Backend = "cpu",
    dtype: str = "float64",
) -> LawResult:
    """Try one law on every random case that is its turn; report the smallest on which it fails.

    >>> try_law(LAWS["joint.none"], 10).passed
    True
    """
    started, count = time.perf_counter(), 0
    best = LawResult(law.name, law.source, True, tolerance=law.tolerance[dtype])
    failed = []
    with threads(1):  # matrices are tiny
        for index in range(0, cases, law.every):
            case = generate(seed, index, dtype)
            result = law.result(case, device)
            if result is None:
                continue
            count += 1
            if not result.passed:
                failed.append((sum(case.sizes) * case.rows, index, result))
            elif result.error > best.error or best.worst is None:
                best = result
    code = None
    if failed:
        _, index, best = min(failed, key=lambda one: one[:2])
        more = f', "{dtype}"' if dtype != "float64" else ""
        on = f', "{device}"' if isinstance(device, str) and device != "cpu" else ""
        code = (
            "from nembp.verification import LAWS, generate\n\n"
            f"case = generate({seed}, {index}{more})  # of {len(failed)} that fail, the smallest\n"
            f'LAWS["{law.name}"].check(case{on})  # raises VerificationError'
        )
    return replace(best, cases=count, code=code, seconds=time.perf_counter() - started)


# -- a function or part of the user's, from its own file -------------------------------------------
class UserCodeError(NembpError):
    """The user's code raised; ``trace`` is its traceback, without frames of nembp."""

    exit_code = 3

    def __init__(self, what: str, error: BaseException) -> None:
        kind = type(error).__name__
        super().__init__(f"{what} raised {kind}" + (f": {error}" if str(error) else ""))
        tb, ours = error.__traceback__, str(Path(__file__).parents[1]) + os.sep
        while tb is not None and (
            (name := tb.tb_frame.f_code.co_filename).startswith(ours) or "importlib" in name
        ):
            tb = tb.tb_next
        self.trace = "".join(traceback.format_exception(type(error), error, tb)).rstrip()


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

    >>> load("nembp.engine.activations:Tanh")
    <class 'nembp.engine.activations.Tanh'>
    """
    module_name, _, path = target.partition(":")
    if not path or not all(part.isidentifier() for part in module_name.split(".")):
        raise ArchitectureError(
            f"{target!r}: expected MODULE:NAME, such as my_module:my_function; a file my_file.py "
            "is the module my_file"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    with _running(f"importing {module_name}"):
        try:
            module: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise ArchitectureError(
                f"{target!r}: there is no module {error.name!r} in {os.getcwd()} or among the "
                "installed ones; run nembp verify from the folder that holds it"
            ) from error
    try:
        return functools.reduce(getattr, path.split("."), module)
    except AttributeError as error:
        public = {name: v for name, v in vars(module).items() if name[0] != "_" and callable(v)}
        own = [name for name, v in public.items() if v.__module__ == module.__name__]
        raise ArchitectureError(
            f"{target!r}: {module_name} ({module.__file__}) has no {path!r}; it has "
            f"{', '.join(own[:12]) or 'nothing that can be checked'}"
        ) from error


def check_user_code(
    target: str,
    *,
    point: str | None = None,
    size: int | None = None,
    device: str | Backend = "cpu",
    seed: int = 0,
) -> GradientReport | LawReport:
    """Check a function θ ↦ (value, gradient), or a likelihood, linear map, activation or optimizer.

    ``target`` is ``module:attribute``, imported as from the working directory. ``point`` is where
    to check a function: a file ``.npy``, or ``module:attribute`` of an array or of a function that
    returns one; by default ``point`` of the target's module, or ``size`` standard normal numbers.
    What the user's code raises is a UserCodeError; a wrong gradient or law is only reported.
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
        try:
            return check_gradient(value, at, seed=seed, name=target, raises=False)
        except ShapeError as error:
            raise ShapeError(f"{target}: {error}") from error


def _point(target: str, point: str | None, size: int | None, seed: int) -> Any:
    if size is not None:
        if point is not None:
            raise ArchitectureError("give --point or --size, not both")
        return stream(seed, "point").standard_normal(size)
    if point is not None and ":" not in point:
        return map_npy(Path(point))
    module = target.partition(":")[0]
    named = point or f"{module}:point"
    try:
        found = load(named)
    except ArchitectureError as error:
        if point is not None:
            raise
        raise ArchitectureError(
            f"no point to check {target} at: define `point` in {module}, or give --point FILE.npy "
            "or --size N for N random numbers"
        ) from error
    with _running(named):
        return found() if callable(found) else found
