"""Trying every law on random cases: what `nembp verify` runs."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nembp.backend import Backend, get_backend
from nembp.errors import ArchitectureError, VerificationError
from nembp.verification.cases import Case, generate
from nembp.verification.counterexamples import as_code, shrink
from nembp.verification.laws import LAWS, Deviation, Law

__all__ = ["CASES", "Outcome", "Verification", "find_laws", "verify"]

CASES = 500
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one law.

    Attributes
    ----------
    law : Law
        Its name, statement and source.
    cases : int
        Random cases that it said something about.
    worst : Deviation or None
        The worst place; of the counterexample where the law fails.
    tolerance : float
        The largest relative error that passes.
    counterexample : Case or None
        A small case on which the law fails.
    code : str or None
        Python that rebuilds it.
    seconds : float
        Time taken.
    """

    law: Law
    cases: int
    worst: Deviation | None
    tolerance: float
    counterexample: Case | None = None
    code: str | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the law held in every case."""
        return self.counterexample is None

    @property
    def error(self) -> float:
        """Worst relative error; 0 where no case was about the law."""
        return 0.0 if self.worst is None else self.worst.error

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; an infinite error is None."""
        return {
            "law": self.law.name,
            "statement": self.law.statement,
            "source": self.law.source,
            "cases": self.cases,
            "worst_relative_error": self.error if math.isfinite(self.error) else None,
            "worst": None if self.worst is None else str(self.worst),
            "tolerance": self.tolerance,
            "passed": self.passed,
            "counterexample": self.code,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Verification:
    """Every law's outcome, and with what they were tried."""

    outcomes: tuple[Outcome, ...]
    cases: int
    seed: int
    device: str
    dtype: str

    @property
    def passed(self) -> bool:
        """Whether every law held."""
        return all(outcome.passed for outcome in self.outcomes)

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The laws that did not hold."""
        return tuple(outcome for outcome in self.outcomes if not outcome.passed)

    def __getitem__(self, name: str) -> Outcome:
        """Return the outcome of a law by name."""
        return next(outcome for outcome in self.outcomes if outcome.law.name == name)

    def raise_for_failure(self) -> None:
        """Raise VerificationError that names the broken laws unless ``passed``."""
        if not self.passed:
            count = f"{len(self.failures)} of {len(self.outcomes)} laws do not hold: "
            names = ", ".join(outcome.law.name for outcome in self.failures)
            raise VerificationError(count + names, self)

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

    Raises
    ------
    ArchitectureError
        If a name is no law's.

    >>> [law.name for law in find_laws(["joint.none", "em"])]
    ['joint.none', 'em.fisher', 'em.gem', 'em.nem']
    """
    if not names:
        return list(LAWS.values())
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
    return list(found.values())


def verify(
    laws: Sequence[str] = (),
    *,
    cases: int = CASES,
    seed: int = 0,
    device: str | Backend = "cpu",
    dtype: str = "float64",
    progress: Progress | None = None,
) -> Verification:
    """Try laws on random networks, and shrink what breaks them.

    Parameters
    ----------
    laws : sequence of str
        Names, or their beginnings (``joint``); all laws if empty.
    cases : int
        Random cases a law; slow laws take every fourth or eighth.
    seed : int
        Of the cases.
    device : str or Backend
        Where the engine runs; its results are compared with NumPy's on the host.
    dtype : {"float64", "float32"}
        Precision of the engine.
    progress : callable, optional
        Called with a law's name, the cases done and those to do, all laws together.

    Returns
    -------
    Verification
        ``raise_for_failure()`` raises if a law does not hold.

    Raises
    ------
    ArchitectureError
        If an option cannot be used.
    DeviceError
        If the device cannot.

    >>> verify(["joint"], cases=10).passed
    True
    """
    if cases < 1:
        raise ArchitectureError(f"cases must be at least 1, got {cases}")
    if seed < 0:
        raise ArchitectureError(f"seed must be at least 0, got {seed}")
    if dtype not in ("float64", "float32"):
        raise ArchitectureError(f"dtype must be float64 or float32, got {dtype!r}")
    chosen, backend = find_laws(laws), get_backend(device)
    if backend.name == "cpu" and not laws:
        chosen = [law for law in chosen if law.on_host]
    label = device if isinstance(device, str) else backend.name
    total, done = cases * len(chosen), 0
    outcomes = []
    for law in chosen:
        outcomes.append(_try(law, cases, seed, backend, dtype, label, _from(done, total, progress)))
        done += cases
    if progress is not None:
        progress("", total, total)
    return Verification(tuple(outcomes), cases, seed, backend.describe(), dtype)


def _from(start: int, total: int, progress: Progress | None) -> Progress | None:
    """Return a progress that counts the cases of one law after ``start`` others."""
    if progress is None:
        return None
    return lambda name, done, _: progress(name, start + done, total)


def _try(
    law: Law,
    cases: int,
    seed: int,
    backend: Backend,
    dtype: str,
    label: str,
    progress: Progress | None,
) -> Outcome:
    """Try one law until it fails or the cases are through."""
    started = time.perf_counter()
    tolerance, worst, count = law.tolerance[dtype], None, 0
    for index in range(0, cases, law.every):
        if progress is not None:
            progress(law.name, index, cases)
        case = generate(seed, index, dtype)
        found = law.worst(case, backend)
        if found is None:
            continue
        count += 1
        if not found.error <= tolerance:
            small = shrink(case, lambda candidate: law.fails(candidate, backend))
            return Outcome(
                law,
                count,
                law.worst(small, backend) or found,
                tolerance,
                small,
                as_code(small, law.name, label),
                time.perf_counter() - started,
            )
        if worst is None or found.error > worst.error:
            worst = found
    return Outcome(law, count, worst, tolerance, seconds=time.perf_counter() - started)
