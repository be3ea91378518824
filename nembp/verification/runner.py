"""Trying every law on random cases, which is what `nembp verify` runs; and a user's own code."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import math
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nembp.backend import Backend, get_backend, stream
from nembp.datasets.arrays import map_npy
from nembp.errors import ArchitectureError, NembpError, ShapeError
from nembp.threads import threads
from nembp.verification.cases import generate
from nembp.verification.checks import check_extension, is_extension
from nembp.verification.gradients import GradientReport, check_gradient
from nembp.verification.laws import LAWS, Law
from nembp.verification.reports import LawReport, Report

CASES = 135  # three rounds of every activation with every pair of likelihoods
ENOUGH = 3 * CASES  # tries, for which a second process pays
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one law.

    ``cases`` is the number of random cases that it said something about; ``worst`` says where the
    ``error`` is, in the smallest network on which the law fails, if it does, and ``code`` is Python
    that repeats the failure.
    """

    law: Law
    cases: int
    error: float
    tolerance: float
    worst: str | None = None
    code: str | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the law held in every case."""
        return self.code is None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; an infinite error is None."""
        return {
            "law": self.law.name,
            "statement": self.law.statement,
            "source": self.law.source,
            "cases": self.cases,
            "worst_relative_error": self.error if math.isfinite(self.error) else None,
            "worst": self.worst,
            "tolerance": self.tolerance,
            "passed": self.passed,
            "counterexample": self.code,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Verification(Report):
    """Every law's outcome, and with what they were tried."""

    outcomes: tuple[Outcome, ...]
    cases: int
    seed: int
    device: str
    dtype: str

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The laws that did not hold."""
        return tuple(outcome for outcome in self.outcomes if not outcome.passed)

    @property
    def passed(self) -> bool:
        """Whether every law held."""
        return not self.failures

    @property
    def summary(self) -> str:
        """One line that names the broken laws."""
        names = ", ".join(outcome.law.name for outcome in self.failures)
        return f"{len(self.failures)} of {len(self.outcomes)} laws do not hold: {names}"

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "passed": self.passed,
            "cases": self.cases,
            "seed": self.seed,
            "device": self.device,
            "dtype": self.dtype,
            "laws": [outcome.as_dict() for outcome in self.outcomes],
        }


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


def verify(
    laws: Sequence[str] = (),
    *,
    cases: int = CASES,
    seed: int = 0,
    device: str | Backend = "cpu",
    dtype: str = "float64",
    workers: int = 1,
    progress: Progress | None = None,
) -> Verification:
    """Try laws on random networks: those that :func:`find_laws` finds, or all.

    Slow laws take every second to eleventh of the ``cases``. ``workers`` are processes, on the CPU;
    ``progress`` is called with a law's name, the cases done and those to do, all laws together.

    >>> verify(["joint"], cases=10).passed
    True
    """
    if cases < 1:
        raise ArchitectureError(f"cases must be at least 1, got {cases}")
    if seed < 0:
        raise ArchitectureError(f"seed must be at least 0, got {seed}")
    if dtype not in ("float64", "float32"):
        raise ArchitectureError(f"dtype must be float64 or float32, got {dtype!r}")
    backend, chosen = get_backend(device), find_laws(laws)
    if backend.name == "cpu" and not laws:
        chosen = [law for law in chosen if law.on_host]
    label = device if isinstance(device, str) else backend.name
    tries, done, outcomes = cases * len(chosen), 0, {}
    with contextlib.ExitStack() as stack:
        found: Iterator[Outcome] = (_try(law.name, cases, seed, device, dtype) for law in chosen)
        if workers > 1 and label == "cpu" and tries > ENOUGH:
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=context))
            jobs = [pool.submit(_try, law.name, cases, seed, device, dtype) for law in chosen]
            found = (job.result() for job in as_completed(jobs))
        for outcome in found:
            name, done = outcome.law.name, done + cases
            outcomes[name] = outcome
            if progress is not None:
                progress(name, done, tries)
    ordered = tuple(outcomes[law.name] for law in chosen)
    return Verification(ordered, cases, seed, label, dtype)


def _try(name: str, cases: int, seed: int, device: str | Backend, dtype: str) -> Outcome:
    """Try one law on every case that is its turn; report the smallest on which it fails."""
    law, started = LAWS[name], time.perf_counter()
    count, worst, failed = 0, None, []
    with threads(1):  # matrices are tiny
        for index in range(0, cases, law.every):
            case = generate(seed, index, dtype)
            result = law.result(case, device)
            if result is None:
                continue
            count += 1
            if not result.passed:
                size = sum(case.sizes) * case.rows
                failed.append((size, index, result))
            elif worst is None or result.error > worst.error:
                worst = result
    seconds, code = time.perf_counter() - started, None
    if failed:
        _, index, worst = min(failed, key=lambda one: one[:2])
        more = f', "{dtype}"' if dtype != "float64" else ""
        on = f', "{device}"' if isinstance(device, str) and device != "cpu" else ""
        code = (
            "from nembp.verification import LAWS, generate\n\n"
            f"case = generate({seed}, {index}{more})  # of {len(failed)} that fail, the smallest\n"
            f'LAWS["{name}"].check(case{on})  # raises VerificationError'
        )
    error, tolerance = 0.0, law.tolerance[dtype]
    if worst is not None:
        error, tolerance = worst.error, worst.tolerance
    return Outcome(law, count, error, tolerance, worst.worst if worst else None, code, seconds)


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
