"""How far two numbers that should be equal are apart, and tables of such results.

A law is a generator of :class:`Deviation`: one for each comparison that it makes. An error is
relative to the larger of what was expected and ``scale``, the size of the terms that the two
numbers were summed from, on which rounding acts: so one tolerance serves a whole law, on every
machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nembp.errors import VerificationError

Array: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Deviation:
    """One comparison: what was compared, with the place of the worst entry, and its relative error.

    The error is inf where a statement without numbers does not hold, or a value is not finite. The
    ``tolerance`` is this comparison's own, where it is not the law's.
    """

    what: str
    error: float
    actual: float = math.nan
    expected: float = math.nan
    tolerance: float | None = None

    def __str__(self) -> str:
        if math.isnan(self.expected):
            return self.what
        return (
            f"{self.what} is {self.actual:.6g}, expected {self.expected:.6g} "
            f"(relative error {self.error:.1e})"
        )


Deviations: TypeAlias = Iterator[Deviation]


def ratio(value: float, size: float) -> float:
    """Return value / size for sizes ≥ 0, with 0 / 0 = 0."""
    if value == 0.0:
        return 0.0
    return value / size if size > 0.0 else math.inf


def near(
    actual: Any,
    expected: Any,
    what: str,
    scale: float = 0.0,
    *,
    tolerance: float | None = None,
    labels: Sequence[str] = (),
) -> Deviation:
    """Return max |actual − expected| / max(max |expected|, ``scale``), and where it is.

    >>> print(near([1.0, 2.0], [1.0, 2.5], "a"))
    a[1] is 2, expected 2.5 (relative error 2.0e-01)
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        return Deviation(f"{what} has shape {actual.shape}, expected {expected.shape}", math.inf)
    if actual.size == 0:
        return Deviation(what, 0.0)
    actual, expected = actual.astype(float), expected.astype(float)
    with np.errstate(invalid="ignore"):
        distance = np.abs(actual - expected).reshape(-1)
    distance = np.where(np.isfinite(distance), distance, math.inf)
    place = int(np.argmax(distance))
    sizes = np.abs(expected[np.isfinite(expected)])
    error = float(distance[place]) / max(float(np.max(sizes, initial=0.0)), scale, 1e-300)
    where = what
    if labels:
        where = f"{what}, {labels[place]},"
    elif actual.ndim:
        index = ", ".join(str(int(i)) for i in np.unravel_index(place, actual.shape))
        where = f"{what}[{index}]"
    values = float(actual.reshape(-1)[place]), float(expected.reshape(-1)[place])
    return Deviation(where, error, *values, tolerance)


def holds(condition: Any, what: str) -> Deviation:
    """Return no deviation where ``condition`` is true, an infinite one where it is not."""
    return Deviation(what, 0.0 if condition else math.inf)


def equal(actual: Any, expected: Any, what: str) -> Deviation:
    """Return no deviation where all bits agree: for results of the very same calls."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape == expected.shape and np.array_equal(actual, expected, equal_nan=True):
        return Deviation(what, 0.0)
    found = near(actual, expected, what)
    return Deviation(found.what, math.inf, found.actual, found.expected)


@dataclass(frozen=True)
class LawResult:
    """How far one law is from holding, and where that is worst.

    Of a law that was tried on random networks: of how many ``cases`` it spoke, Python ``code`` that
    repeats a failure in the smallest of them, and the ``seconds`` that it took.
    """

    law: str
    source: str
    passed: bool
    error: float = 0.0
    tolerance: float = 0.0
    worst: str | None = None
    cases: int = 1
    code: str | None = None
    seconds: float = 0.0


def result_of(
    law: str, source: str, tolerance: float, deviations: Iterable[Deviation]
) -> LawResult | None:
    """Return what a law says of one thing; None where it says nothing.

    An engine or extension that raises does not hold.
    """

    def allowed(found: Deviation) -> float:
        return float(tolerance if found.tolerance is None else found.tolerance)

    try:
        with np.errstate(all="ignore"):
            worst = max(deviations, key=lambda d: ratio(d.error, allowed(d)), default=None)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
            ValueError) as error:  # fmt: skip
        worst = Deviation(f"{type(error).__name__}: {error}", math.inf)
    if worst is None:
        return None
    passed = bool(worst.error <= allowed(worst))
    return LawResult(law, source, passed, float(worst.error), allowed(worst), str(worst))


@dataclass(frozen=True)
class LawReport:
    """What a check of a component or network found, law by law."""

    subject: str
    laws: tuple[LawResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every law holds."""
        return all(law.passed for law in self.laws)

    @property
    def summary(self) -> str:
        """One line: the first law that does not hold."""
        failed = [law for law in self.laws if not law.passed]
        if not failed:
            return f"{self.subject}: every law holds"
        return f"{self.subject}: {failed[0].law}: {failed[0].worst}"

    def raise_for_failure(self) -> LawReport:
        """Raise VerificationError with ``summary`` unless every law holds."""
        if not self.passed:
            raise VerificationError(self.summary, self)
        return self

    def __str__(self) -> str:
        rows = [("law", "worst error", "tolerance", "")]
        for law in self.laws:
            state = "passed" if law.passed else "FAILED"
            numbers = f"{law.error:.1e}", f"{law.tolerance:.1e}"
            rows.append((law.law, *(numbers if law.tolerance > 0.0 else ("", "")), state))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{self.subject}: {'passed' if self.passed else 'FAILED'}"]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        for law in self.laws:
            if not law.passed:
                lines += ["", f"{law.law}: {law.worst}", f"  ({law.source})"]
        return "\n".join(lines)
