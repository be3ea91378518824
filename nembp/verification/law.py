"""A law: what must hold, where it comes from, and how far a case may be from it.

A law is a generator of :class:`Deviation`: one for each comparison that it makes. An error is
relative to the larger of what was expected and ``scale``, the size of the terms that the two
numbers were summed from, on which rounding acts: so one tolerance serves a whole law, on every
machine.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pickle import PickleError
from typing import Any, TypeAlias

import numpy as np

from nembp.backend import Backend, get_backend
from nembp.engine.activations import Activation, get_activation
from nembp.engine.likelihoods import Likelihood
from nembp.engine.linear import LinearMap, Transposed
from nembp.engine.optimizers import OPTIMIZERS, Optimizer, get_optimizer
from nembp.errors import VerificationError
from nembp.verification.cases import Case, random_targets
from nembp.verification.definitions import Array, knows, slope
from nembp.verification.gradients import GradientReport, ratio


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
    except (ArithmeticError, AssertionError, AttributeError, LookupError, PickleError, RuntimeError,
            TypeError, ValueError) as error:  # fmt: skip
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


ROUNDING = {"float64": 1e-12, "float32": 2e-5}  # between two ways to compute the same number
COMPLEX = {"float64": 1e-10, "float32": 2e-5}  # against complex steps

DESIGN = "nembp's definition"
BP = "Adigun and Kosko 2019, section 3: backprop invariance"
BBP = "Adigun and Kosko 2019: bidirectional backpropagation"
NEM = "Audhkhasi, Osoba and Kosko 2016, theorems 1-3"


class Bench:
    """One part on a device: carries arrays to and fro, and notes which arguments changed.

    A likelihood's targets are labels or bits if ``hard``, or drawn by ``targets``. Its p adds up to
    1 over the ``support``, ``sums`` of targets do or do not give sums of log p, and the error of a
    ``canonical`` one is scale · (a − t); what is None is for the likelihood to say.
    """

    hard = False
    targets: Any = None
    support: str | None = None
    sums: bool | None = None
    canonical = True

    def __init__(self, backend: Backend, dtype: str, rows: int, seed: int, **held: Any) -> None:
        self.backend, self.dtype, self.rows, self.seed = backend, dtype, rows, seed
        self.generator = np.random.default_rng(seed)
        self.changed: set[str] = set()
        vars(self).update(held)

    def array(self, value: Array) -> Any:
        """Return a copy on the device."""
        return self.backend.asarray(np.array(value), self.dtype)

    def numpy(self, array: Any) -> Array:
        """Return a float64 copy on the host."""
        return np.asarray(self.backend.to_numpy(array), dtype=float)

    def rounded(self, value: Array) -> Array:
        """Return float64 values that the precision can represent."""
        return np.asarray(value).astype(self.dtype).astype(float)

    def normal(self, *shape: int) -> Array:
        """Draw normal numbers that the precision can represent."""
        return self.rounded(self.generator.standard_normal(shape))

    def draw(self, likelihood: Likelihood, rows: int, width: int) -> Array:
        """Draw targets."""
        if self.targets is not None:
            return self.rounded(np.asarray(self.targets(self.generator, rows, width), float))
        t = random_targets(likelihood, self.generator, rows, width, hard=self.hard)
        return self.rounded(t)

    def nan(self, shape: Any) -> Any:
        """Return an array full of NaN, which any read before a write spreads."""
        return self.array(np.full(shape, np.nan))

    def written(self, function: Callable[..., Any], shape: Any, **given: Array) -> Array:
        """Return what ``function(*given, out)`` writes into an ``out`` full of NaN."""
        arrays, out = {name: self.array(value) for name, value in given.items()}, self.nan(shape)
        function(*arrays.values(), out)
        for name, array in arrays.items():
            if not np.array_equal(self.numpy(array), self.numpy(self.array(given[name]))):
                self.changed.add(name)
        return self.numpy(out)


@dataclass(frozen=True)
class Law:
    """One statement about the engine that must hold for every case.

    Its ``function`` yields a deviation for each comparison, and none where the law says nothing. It
    takes a case and a backend; or, if it is ``over`` a kind of part, the part and a :class:`Bench`.
    Laws that take long run on ``every`` so-manieth case; laws of the ``known`` say something only
    of nembp's own parts, whose formulas are written out in the definitions.
    """

    name: str
    statement: str
    source: str
    function: Callable[..., Deviations] = field(repr=False)
    over: type | None = None
    tolerance: Mapping[str, float] = field(default_factory=lambda: ROUNDING)
    every: int = 1
    known: bool = False

    def _deviations(self, case: Case, backend: Backend) -> Iterator[Deviation]:
        if self.over is None:
            yield from self.function(case, backend) if case.known or not self.known else ()
            return
        for k, part in enumerate(_parts(self.over, case)):
            yield from self.of(part, backend, case.dtype, case.rows, case.seed + k, hard=case.hard)

    def of(self, part: Any, *bench: Any, **held: Any) -> Deviations:
        """Yield the deviations of a part on a :class:`Bench`."""
        yield from (
            self.function(part, Bench(*bench, **held)) if knows(part) or not self.known else ()
        )

    def result(self, case: Case, device: str | Backend = "cpu") -> LawResult | None:
        """Return what the law says about a case; None if nothing.

        >>> LAWS["joint.samples"].result(Case((3, 2))).passed
        True
        """
        found = self._deviations(case, get_backend(device))
        return result_of(self.name, self.source, self.tolerance[case.dtype], found)

    def check(self, case: Case, device: str | Backend = "cpu") -> None:
        """Raise VerificationError with the worst place unless the law holds on a case."""
        result = self.result(case, device)
        if result is not None and not result.passed:
            raise VerificationError(
                f"{self.name}: {result.worst}; tolerance {result.tolerance:.0e} ({self.source})"
            )


LAWS: dict[str, Law] = {}


def law(name: str, source: str = DESIGN, **options: Any) -> Callable[..., Any]:
    """Add the decorated function to the laws; its docstring's first line is the statement."""

    def add(function: Callable[..., Deviations]) -> Callable[..., Deviations]:
        statement = (function.__doc__ or "").partition("\n")[0].removesuffix(".")
        LAWS[name] = Law(name, statement, source, function, **options)
        return function

    return add


def _parts(over: type, case: Case) -> list[Any]:
    if over is LinearMap:
        return [part for m in case.net().maps for part in (m, Transposed(m))]
    if over is Likelihood:
        return [case.forward, case.backward]
    if over is Activation:
        return [get_activation(case.activation)]
    assert over is Optimizer
    return [get_optimizer(sorted(OPTIMIZERS)[case.seed % len(OPTIMIZERS)])]


def poisoned(backend: Backend) -> Backend:
    """Return a twin whose new buffers hold NaN, which any read before a write then spreads."""
    twin = copy.copy(backend)

    def empty(shape: tuple[int, ...], dtype: str) -> Any:
        if dtype == "bool":
            return backend.ones(shape, dtype)
        return backend.asarray(np.full(shape, np.nan), dtype)

    twin.empty = empty  # type: ignore[method-assign]
    return twin


def agrees(report: GradientReport) -> Deviation:
    """Return what a check of a gradient decides, by its own tolerances."""
    w = report.worst
    error, tolerance = w.relative_error, w.relative(w.tolerance)
    if report.passed:
        return Deviation(w.label, error, w.analytic, w.numeric, tolerance)
    return Deviation(report.summary, max(error, 2.0 * tolerance) or 1.0, tolerance=tolerance)


def is_gradient(
    claim: Array,
    f: Callable[[Array], Any],
    at: Array,
    what: str,
    generator: np.random.Generator,
    scale: float,
    coordinates: int = 8,
) -> Deviations:
    """Compare a gradient with complex steps along itself, random directions and coordinates."""
    yield near(np.isfinite(claim), np.ones(claim.shape), f"{what} is finite")
    flat = claim.reshape(-1)
    chosen = generator.permutation(flat.size)[:coordinates]
    labels = [f"coordinate {i}" for i in chosen] + ["along a random direction"] * 3
    directions = [*np.eye(flat.size)[chosen], *generator.standard_normal((3, flat.size))]
    norm = float(np.linalg.norm(flat))
    if 0.0 < norm < np.inf:
        labels.append("along itself")
        directions.append(flat / norm)
    units = [v / np.linalg.norm(v) for v in directions]
    slopes = [slope(f, at, v.reshape(claim.shape)) for v in units]
    yield near([float(flat @ v) for v in units], slopes, what, scale, labels=labels)


def host(net: Any, array: Any) -> Array:
    """Copy an array of the network's device to the host, in float64."""
    return np.asarray(net.backend.to_numpy(array), dtype=float)


def largest(*arrays: Any) -> float:
    """Return the largest magnitude in any array."""
    return max(float(np.max(np.abs(array), initial=0.0)) for array in arrays)
