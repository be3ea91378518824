"""A law: what must hold, where it comes from, and how far it may be from holding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from nembp.backend import Backend, get_backend
from nembp.errors import VerificationError
from nembp.verification.cases import Case
from nembp.verification.laws.deviations import ROUNDING, Deviation, Deviations, worst_of

__all__ = ["FAILURES", "Law", "tolerances"]

LawFunction = Callable[[Case, Backend], Deviations]
SINGLE = 2e-5  # of float32, whose epsilon is 1.2e-7
# how an engine with a bug fails besides wrong numbers
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def tolerances(double: float = ROUNDING, single: float = SINGLE) -> dict[str, float]:
    """Return the tolerance of each dtype."""
    return {"float64": double, "float32": single}


@dataclass(frozen=True)
class Law:
    """One statement about the engine that must hold for every case.

    Attributes
    ----------
    name : str
        Subject and law: ``joint.samples``.
    statement : str
        The equation.
    source : str
        Where it is stated or proved.
    function : callable
        Takes a case and a backend, and yields a deviation for each comparison; none where the law
        says nothing about the case.
    tolerance : mapping of str to float
        Largest relative error by dtype.
    every : int
        Run on every so-manieth case, for laws that take long; of no factor 3, 5 or 7, so that these
        meet all kinds too, which go round in cycles of 5, 7 and 9.
    on_host : bool
        Whether it says anything about the host itself.
    """

    name: str
    statement: str
    source: str
    function: LawFunction = field(repr=False)
    tolerance: Mapping[str, float] = field(default_factory=tolerances)
    every: int = 1
    on_host: bool = True

    def worst(self, case: Case, device: str | Backend = "cpu") -> Deviation | None:
        """Return the worst deviation of a case; None where the law says nothing about it.

        An engine that raises deviates infinitely.

        >>> from nembp.verification.laws import LAWS
        >>> LAWS["joint.samples"].worst(Case((3, 2))).error < 1e-12
        True
        """
        try:
            # overflow shows as a deviation
            with np.errstate(all="ignore"):
                return worst_of(self.function(case, get_backend(device)))
        except FAILURES as error:
            return Deviation(f"{type(error).__name__}: {error}", float("inf"))

    def fails(self, case: Case, device: str | Backend = "cpu") -> bool:
        """Say whether the law is broken on a case."""
        worst = self.worst(case, device)
        return worst is not None and not worst.error <= self.tolerance[case.dtype]

    def check(self, case: Case, device: str | Backend = "cpu") -> None:
        """Raise VerificationError with the worst place unless the law holds on a case."""
        worst = self.worst(case, device)
        allowed = self.tolerance[case.dtype]
        if worst is not None and not worst.error <= allowed:
            raise VerificationError(
                f"{self.name}: {worst}; tolerance {allowed:.0e} ({self.source})"
            )
