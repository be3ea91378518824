"""What a check found: tables for people, exceptions for programs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nembp.errors import VerificationError

__all__ = ["Coordinate", "GradientReport", "ratio"]


@dataclass(frozen=True)
class Coordinate:
    """One number that was checked: what is claimed beside what was measured.

    Attributes
    ----------
    label : str
        Its name, ``W1[12, 3]``; or that of a random direction over several coordinates.
    index : int or None
        In the flattened point; None for a direction.
    analytic, numeric : float
        The claim, and the measurement.
    truncation, rounding : float
        Estimates of the measurement's two errors (absolute).
    tolerance : float
        The largest |analytic − numeric| that passes.
    scale : float
        Size below which both values count as zero in ``relative_error``.
    method, step
        How it was measured: ``"central"``, ``"complex"`` or ``"formula"``, and with which step.
    sides : tuple of float or None
        Slopes from the left and from the right, at a kink; any value between them passes.
    suspected : tuple of float or None
        The same where a kink is possible: the errors of the two slopes do not tell.
    """

    label: str
    index: int | None
    analytic: float
    numeric: float
    truncation: float = 0.0
    rounding: float = 0.0
    tolerance: float = 0.0
    scale: float = 0.0
    method: str = "formula"
    step: float = 0.0
    sides: tuple[float, float] | None = None
    suspected: tuple[float, float] | None = None

    @property
    def distance(self) -> float:
        """|analytic − numeric|, to the nearer side at a kink; inf unless both are finite."""
        if not (math.isfinite(self.analytic) and math.isfinite(self.numeric)):
            return math.inf
        if self.sides is not None:
            low, high = sorted(self.sides)
            return max(low - self.analytic, self.analytic - high, 0.0)
        return abs(self.analytic - self.numeric)

    @property
    def relative_error(self) -> float:
        """``distance`` over the larger of the two values."""
        return ratio(self.distance, self._size)

    @property
    def relative_tolerance(self) -> float:
        """``tolerance`` over the larger of the two values."""
        return ratio(self.tolerance, self._size)

    @property
    def _size(self) -> float:
        sizes = [abs(v) for v in (self.analytic, self.numeric) if math.isfinite(v)]
        return max(*sizes, self.scale, 0.0) if sizes else self.scale

    @property
    def excess(self) -> float:
        """``distance`` over ``tolerance``; more than 1 fails."""
        return ratio(self.distance, self.tolerance)

    @property
    def passed(self) -> bool:
        """Whether the two values agree."""
        return self.distance <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.label} is {self.analytic:.6g}, but {METHODS[self.method]} "
            f"{self.numeric:.6g} (relative error {self.relative_error:.1e}, tolerance "
            f"{self.relative_tolerance:.1e})"
        )


METHODS = {
    "central": "central differences give",
    "complex": "complex steps give",
    "formula": "its definition gives",
    "repeat": "the first call gave",
}


def ratio(value: float, size: float) -> float:
    """Return value / size for sizes ≥ 0, with 0 / 0 = 0."""
    if value == 0.0:
        return 0.0
    return value / size if size > 0.0 else math.inf


@dataclass(frozen=True)
class GradientReport:
    """What :func:`~nembp.verification.check_gradient` found.

    Attributes
    ----------
    name : str
        Of the function.
    passed : bool
        Whether every coordinate and direction that was measured agrees.
    worst : Coordinate
        The one whose error is the largest multiple of its tolerance.
    failures : tuple of Coordinate
        Those that disagree, worst first (up to 20).
    cause : str or None
        A guess, where the pattern of the errors tells one.
    method : str
        ``"central"`` or ``"complex"``.
    size, checked, directions : int
        Coordinates of the point; how many were measured one by one; random directions over many.
    values, gradients : int
        Evaluations of the function's value and of its gradient.
    noise : float
        Typical rounding error of the function's values.
    resolution : float
        The relative error that would have been found in half of the coordinates.
    covered : float
        Share of the coordinates in which an error of 0.1 % would have been found.
    kinks : int
        Measured coordinates with a kink at the point, whose value lies between the two slopes.
    notes : tuple of str
        Other things seen.
    """

    name: str
    passed: bool
    worst: Coordinate
    failures: tuple[Coordinate, ...]
    cause: str | None
    method: str
    size: int
    checked: int
    directions: int
    values: int
    gradients: int
    noise: float
    resolution: float
    covered: float
    kinks: int = 0
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line: the worst coordinate, both values, and the guess at the cause."""
        if self.passed:
            return f"{self.name}: the gradient is right"
        return f"{self.name}: {self.worst}" + (f"; {self.cause}" if self.cause else "")

    def raise_for_failure(self) -> None:
        """Raise VerificationError with ``summary`` unless ``passed``."""
        if not self.passed:
            raise VerificationError(self.summary, self)

    def __str__(self) -> str:
        w = self.worst
        step = f", step {w.step:.1e}" if w.step else ""
        rows = [
            ("worst coordinate", w.label + (f" of {self.size}" if self.size > 1 else "")),
            ("analytic", f"{w.analytic:.12g}"),
            ("numeric", f"{w.numeric:.12g}  ({w.method}{step})"),
            ("relative error", f"{w.relative_error:.1e}  (tolerance {w.relative_tolerance:.1e})"),
            ("truncation error", f"{w.truncation:.1e}"),
            ("rounding error", f"{w.rounding:.1e}  (of the values: {self.noise:.1e})"),
        ]
        if w.sides is not None:
            rows.append(("one-sided slopes", f"{w.sides[0]:.6g} and {w.sides[1]:.6g}: a kink"))
        if self.cause:
            rows.append(("probable cause", self.cause))
        if len(self.failures) > 1:
            others = ", ".join(c.label for c in self.failures[1:6])
            rows.append(("also wrong", others + (", …" if len(self.failures) > 6 else "")))
        rows += self._coverage()
        rows += [("note", note) for note in self.notes]
        head = f"gradient of {self.name}: {'passed' if self.passed else 'FAILED'}"
        return "\n".join([head, *(f"  {key:<18}{text}" for key, text in rows)])

    def _coverage(self) -> list[tuple[str, str]]:
        one_by_one = f"{self.checked} of {self.size} coordinates one by one"
        many = f", all in {self.directions} random directions" if self.directions else ""
        found = (
            f"a relative error of {self.resolution:.1e} in half of the coordinates, "
            f"0.1 % in {_percent(self.covered)} of them"
        )
        rows = [("covered", one_by_one + many), ("would be found", found)]
        if self.kinks:
            rows.append(("kinks", f"{self.kinks}, the gradient between the two slopes"))
        rows.append(("evaluations", f"{self.values} values, {self.gradients} gradients"))
        return rows


def _percent(share: float) -> str:
    return f"{math.floor(1000.0 * share) / 10.0:g} %"
