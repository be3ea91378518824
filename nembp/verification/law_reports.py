"""What a check of a component or a network found, law by law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp.errors import VerificationError
from nembp.verification.causes import Evidence, guess
from nembp.verification.layout import Layout
from nembp.verification.reports import Coordinate, GradientReport, ratio

__all__ = ["LawReport", "LawResult", "agree", "holds", "of_gradient"]

ROUNDING = 1e-12  # relative error allowed between two ways to compute the same float64 number


@dataclass(frozen=True)
class LawResult:
    """One law of a component or network, and how far it is from holding.

    Attributes
    ----------
    law, source : str
        What must hold, and where it comes from.
    passed : bool
        Whether it does.
    error, tolerance : float
        The worst relative error, and the largest that passes.
    worst : Coordinate or None
        Where, with both values.
    cause : str or None
        A guess, where the pattern tells one.
    note : str
        Something to know about a law that holds, or that could not be looked at.
    """

    law: str
    source: str
    passed: bool
    error: float = 0.0
    tolerance: float = 0.0
    worst: Coordinate | None = None
    cause: str | None = None
    note: str = ""

    @property
    def summary(self) -> str:
        """One line for an error message."""
        where = f": {self.worst}" if self.worst is not None else ""
        return f"{self.law}{where}" + (f"; {self.cause}" if self.cause else "")


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
    def worst(self) -> LawResult | None:
        """The first law that does not hold; if all do, the one nearest to its tolerance."""
        for law in self.laws:
            if not law.passed:
                return law
        return max(self.laws, key=lambda law: ratio(law.error, law.tolerance), default=None)

    def __getitem__(self, law: str) -> LawResult:
        """Return the result of a law by name."""
        for result in self.laws:
            if result.law == law:
                return result
        raise KeyError(f"no law {law!r}; there are: {'; '.join(r.law for r in self.laws)}")

    def raise_for_failure(self) -> None:
        """Raise VerificationError with the worst coordinate and cause unless ``passed``."""
        worst = self.worst
        if not self.passed and worst is not None:
            raise VerificationError(f"{self.subject}: {worst.summary}", self)

    def __str__(self) -> str:
        rows = [("law", "worst error", "tolerance", "")]
        for law in self.laws:
            state = "passed" if law.passed else "FAILED"
            numbers = f"{law.error:.1e}", f"{law.tolerance:.1e}"
            rows.append((law.law, *(numbers if law.tolerance > 0.0 else ("", "")), state))
        lines = [f"{self.subject}: {'passed' if self.passed else 'FAILED'}"]
        lines += _table(rows)
        for law in self.laws:
            if not law.passed:
                lines += ["", law.summary, f"  ({law.source})"]
            elif law.note:
                lines.append(f"note: {law.law}: {law.note}")
        return "\n".join(lines)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


# -- results of comparisons --------------------------------------------------------------------
def agree(
    law: str,
    source: str,
    actual: Any,
    expected: Any,
    *,
    name: str,
    tolerance: float = ROUNDING,
    scale: float = 0.0,
    cause: str | None = None,
    blocks: Mapping[str, tuple[int, ...]] | None = None,
    rows: int | None = None,
) -> LawResult:
    """Compare two arrays that a law says are equal, relative to their largest entry or ``scale``.

    ``name`` is that of the array, whose worst entry is reported as ``name[i, j]``, or by the names
    and shapes of its consecutive ``blocks``; ``cause`` is said if they differ.
    """
    actual, expected = np.asarray(actual, dtype=float), np.asarray(expected, dtype=float)
    if actual.shape != expected.shape:
        why = f"{name} has shape {actual.shape}, but {expected.shape} is expected"
        return LawResult(law, source, False, np.inf, tolerance, None, why)
    sizes = np.abs(expected[np.isfinite(expected)])
    size = max(float(np.max(sizes, initial=0.0)), scale)
    if actual.size == 0:
        return LawResult(law, source, True, 0.0, tolerance)
    with np.errstate(invalid="ignore"):
        distance = np.abs(actual - expected)
    distance[np.isnan(distance)] = np.inf
    place = int(np.argmax(distance))
    layout = Layout(np.zeros(actual.shape), blocks or {name: actual.shape})
    worst = Coordinate(
        label=layout.label(place),
        index=place,
        analytic=float(actual.reshape(-1)[place]),
        numeric=float(expected.reshape(-1)[place]),
        tolerance=tolerance * size,
        scale=size,
    )
    passed = worst.passed
    said = None if passed else cause or _guess(layout, actual, expected, rows)
    return LawResult(law, source, passed, worst.relative_error, tolerance, worst, said)


def _guess(layout: Layout, actual: Any, expected: Any, rows: int | None) -> str | None:
    numeric, claimed = expected.reshape(-1), actual.reshape(-1)
    wrong = ~(np.abs(claimed - numeric) <= 1e-6 * np.max(np.abs(numeric), initial=1e-300))
    if not np.any(wrong):
        return None
    return guess(
        Evidence(
            layout=layout,
            theta=np.zeros_like(numeric),
            analytic=claimed,
            numeric=numeric,
            wrong=wrong,
            worst=int(np.argmax(np.nan_to_num(np.abs(claimed - numeric), nan=np.inf))),
            rows=rows,
        )
    )


def holds(law: str, source: str, condition: Any, otherwise: str) -> LawResult:
    """Return the result of a law without numbers; ``otherwise`` is its failure in words."""
    passed = bool(condition)
    return LawResult(law, source, passed, cause=None if passed else otherwise)


def of_gradient(law: str, source: str, report: GradientReport) -> LawResult:
    """Return the result of a law that a gradient check decides."""
    w = report.worst
    note = f"kinks at the point: {report.kinks}" if report.kinks else ""
    return LawResult(
        law,
        source,
        report.passed,
        w.relative_error,
        w.relative_tolerance,
        w,
        report.cause,
        note,
    )
