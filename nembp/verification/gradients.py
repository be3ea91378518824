"""The gradient of any callable, checked against differences and complex steps.

Central differences D(h) = (φ(h) − φ(−h)) / 2h are wrong by c₁h² + c₂h⁴ + … (truncation) and by
about ε/h (rounding), where ε is the noise of φ's own values. A sweep over steps h, extrapolated by
Richardson's rule (Ridders 1982), keeps the entry whose two errors together are smallest; ε is
measured by difference tables (Moré and Wild 2011). One-sided slopes of the same values tell a kink.
Where there are more coordinates than evaluations, a direction of random signs over a group shows an
error of any one member in full, so one slope clears the group or convicts it, and halving a
convicted group ends at the coordinate.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal

import numpy as np

from nembp.backend import stream
from nembp.errors import ArchitectureError, ShapeError, VerificationError
from nembp.verification.reports import Array, Report, ratio

Method = Literal["auto", "central", "complex"]
Line = Callable[[float], float]  # t ↦ φ(t), NaN where it is not defined

LARGEST_STEP = 0.2137  # of the scale; no round number, so that periodic functions do not alias
SHORTER, STEPS, ORDERS = 4.0, 18, 4  # ratio of steps, their number, columns of the extrapolation
SHORT = LARGEST_STEP * SHORTER**-6
COMPLEX_STEP = 1e-30
# lengths at which the noise of the values is looked for; a float32 cast shows at the longest
# (no powers of two, and two of them, lest they be whole multiples of a float32 argument's grid)
NOISE_LENGTHS = (0.7213 * 2.0**-36, 0.7213 * 2.0**-29, 0.7213 * 2.0**-22, 0.5257 * 2.0**-21)
SAFE = 4.0  # times errors that are themselves estimates
SWEEP = 2 * STEPS  # values of a sweep at most
NEARBY = 0.01  # of the scale: the distance of other points
FOUND = 1e-3  # the relative error whose discovery is the aim
UNDEFINED = (ArithmeticError, ValueError)  # how functions say that a point is out of their domain
REFUSALS = (*UNDEFINED, AssertionError, AttributeError, LookupError, RuntimeError, TypeError)
METHODS = {
    "central": "central differences give",
    "complex": "complex steps give",
    "repeat": "the first call gave",
}


@dataclass(frozen=True)
class Coordinate:
    """One number that was checked: what is claimed beside what was measured.

    ``truncation`` and ``rounding`` estimate the measurement's two errors, and ``tolerance`` is the
    largest |analytic − numeric| that passes. At a kink any value between the slopes of both
    ``sides`` passes; they are ``suspected`` where their errors do not tell. A direction over
    several coordinates has no ``index``; values below ``scale`` count as zero in
    ``relative_error``.
    """

    label: str
    index: int | None
    analytic: float
    numeric: float
    truncation: float = 0.0
    rounding: float = 0.0
    tolerance: float = 0.0
    scale: float = 0.0
    method: str = "central"
    step: float = 0.0
    sides: tuple[float, float] | None = None
    suspected: tuple[float, float] | None = None

    @property
    def distance(self) -> float:
        """|analytic − numeric|, to the nearer side at a kink; inf unless both are finite."""
        if not (math.isfinite(self.analytic) and math.isfinite(self.numeric)):
            return math.inf
        low, high = sorted(self.sides or (self.numeric, self.numeric))
        return max(low - self.analytic, self.analytic - high, 0.0)

    def relative(self, error: float) -> float:
        """Return an error over the larger of the two values."""
        sizes = [abs(v) for v in (self.analytic, self.numeric) if math.isfinite(v)]
        return ratio(error, max(*sizes, self.scale, 0.0))

    @property
    def relative_error(self) -> float:
        """``distance`` over the larger of the two values."""
        return self.relative(self.distance)

    @property
    def excess(self) -> float:
        """``distance`` over ``tolerance``; more than 1 fails."""
        return ratio(self.distance, self.tolerance)

    @property
    def passed(self) -> bool:
        """Whether the two values agree."""
        return self.distance <= self.tolerance

    @property
    def unsure(self) -> bool:
        """Whether the claim lies between one-sided slopes, allowing for their errors."""
        return bool(self.suspected and self.suspected[0] <= self.analytic <= self.suspected[1])

    def __str__(self) -> str:
        return (
            f"{self.label} is {self.analytic:.6g}, but {METHODS[self.method]} "
            f"{self.numeric:.6g} (relative error {self.relative_error:.1e}, tolerance "
            f"{self.relative(self.tolerance):.1e})"
        )


@dataclass(frozen=True)
class GradientReport(Report):
    """What :func:`check_gradient` found; its text is a table.

    ``worst`` is the coordinate whose error is the largest multiple of its tolerance, ``failures``
    are those that disagree, worst first (up to 20), and ``cause`` is what the errors look like,
    where that is plain. Of ``size`` coordinates so many were ``checked`` one by one, all in
    ``directions`` random ones; an error of ``resolution`` would be found in half of them, one of
    0.1 % in the share ``covered``. ``noise`` is the usual rounding error of the function's values.
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
        """One line: the worst coordinate, both values, and the cause."""
        if self.passed:
            return f"{self.name}: the gradient is right"
        return f"{self.name}: {self.worst}" + (f"; {self.cause}" if self.cause else "")

    def __str__(self) -> str:
        w, others = self.worst, ", ".join(c.label for c in self.failures[1:6])
        tolerance, share = w.relative(w.tolerance), math.floor(1000 * self.covered) / 10
        step = f", step {w.step:.1e}" if w.step else ""
        many = f", all in {self.directions} random directions" if self.directions else ""
        rows = {
            "worst coordinate": w.label + (f" of {self.size}" if self.size > 1 else ""),
            "analytic": f"{w.analytic:.12g}",
            "numeric": f"{w.numeric:.12g}  ({w.method}{step})",
            "relative error": f"{w.relative_error:.1e}  (tolerance {tolerance:.1e})",
            "truncation error": f"{w.truncation:.1e}",
            "rounding error": f"{w.rounding:.1e}  (of the values: {self.noise:.1e})",
            "also wrong": others + (", …" if len(self.failures) > 6 else ""),
            "probable cause": self.cause or "",
            "covered": f"{self.checked} of {self.size} coordinates one by one{many}",
            "would be found": f"a relative error of {self.resolution:.1e} in half of the "
            f"coordinates, 0.1 % in {share:g} % of them",
            "evaluations": f"{self.values} values, {self.gradients} gradients",
            "kinks": f"{self.kinks}, the gradient between the two slopes" if self.kinks else "",
        }
        lines = [f"gradient of {self.name}: {'passed' if self.passed else 'FAILED'}"]
        lines += [f"  {key:<18}{text}" for key, text in rows.items() if text]
        return "\n".join([*lines, *(f"  {'note':<18}{note}" for note in self.notes)])


# -- a user's value and gradient, flattened, counted and watched -----------------------------------
@contextmanager
def quiet() -> Iterator[None]:
    """Silence what a function says about points out of its domain."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Objective:
    """θ ↦ f(θ) and ∇f(θ) on flat vectors."""

    def __init__(
        self,
        function: Callable[..., Any],
        gradient: Callable[..., Any] | None,
        point: Any,
        blocks: Mapping[str, tuple[int, ...]] | None,
    ) -> None:
        self._function, self._gradient, self._point = function, gradient, point
        several = isinstance(point, Mapping) or _is_sequence(point)
        keys = point if isinstance(point, Mapping) else range(len(point)) if several else ()
        self._keys: list[Any] | None = list(keys) if several else None
        arrays = [np.asarray(part) for part in self._parts(point)]
        self._shapes = [a.shape for a in arrays]
        flat = np.concatenate([a.reshape(-1) for a in arrays]) if arrays else np.zeros(0)
        if flat.size == 0:
            raise ShapeError("the point is empty; give at least one coordinate")
        if flat.dtype.kind not in "iubf":
            raise ShapeError(f"the point must be real numbers, got dtype {flat.dtype}")
        narrow = flat.dtype.kind == "f" and flat.dtype.itemsize < 8
        self.theta = flat if narrow else flat.astype(float)
        bad = np.flatnonzero(~np.isfinite(self.theta))
        if bad.size:
            place = f"coordinate {bad[0]} of {flat.size}"
            raise ShapeError(f"the point holds {self.theta[bad[0]]} ({place}); expected numbers")
        names = ["θ"] if self._keys is None else [str(key) for key in self._keys]
        self._blocks = dict(blocks or zip(names, self._shapes, strict=True))
        if (count := sum(math.prod(s) for s in self._blocks.values())) != flat.size:
            raise ShapeError(f"the blocks have {count} entries, but the point has {flat.size}")
        self.dtype = self.theta.dtype  # in which values are asked for
        self.resolution = self.gradient_resolution = float(np.finfo(self.dtype).eps)
        self.values = self.gradients = 0
        self.notes: dict[str, None] = {}
        self._last: tuple[list[Array], list[Array]] | None = None

    def _parts(self, value: Any) -> list[Any]:
        return [value] if self._keys is None else [value[key] for key in self._keys]

    def _restore(self, flat: Array) -> Any:
        pieces = np.split(flat, np.cumsum([math.prod(shape) for shape in self._shapes])[:-1])
        parts = [piece.reshape(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        if self._keys is None:
            return parts[0] if parts[0].shape else parts[0][()]
        if isinstance(self._point, Mapping):
            return dict(zip(self._keys, parts, strict=True))
        return tuple(parts) if isinstance(self._point, tuple) else parts

    def label(self, index: int) -> str:
        """Name a coordinate: ``W[1, 1]``."""
        for name, shape in self._blocks.items():
            if index < math.prod(shape):
                place = ", ".join(str(int(k)) for k in np.unravel_index(index, shape))
                return f"{name}[{place}]" if shape else name
            index -= math.prod(shape)
        raise IndexError(index)

    def _call(self, theta: Array) -> Array:
        self.values += 1
        result = self._function(self._restore(theta))
        return _number(result if self._gradient is not None else result[0])

    def value(self, theta: Array) -> Any:
        """Return f at a real or complex point, of its kind; NaN where it is not defined."""
        kind: Any = complex if theta.dtype.kind == "c" else float
        try:
            value = self._call(theta if kind is complex else theta.astype(self.dtype))
        except REFUSALS as error:
            if kind is float and not isinstance(error, UNDEFINED):
                raise
            return kind(math.nan)
        return kind(value if (value.dtype.kind == "c") == (kind is complex) else math.nan)

    def widen(self) -> None:
        """Ask for values in float64 from now on, if the function takes such points."""
        try:
            value = self._call(self.theta.astype(float))
        except REFUSALS:
            return
        self.dtype, self.resolution = np.dtype(float), _epsilon(value)

    def pair(self, theta: Array) -> tuple[float, Array]:
        """Return f and a float64 copy of ∇f at ``theta``, in its dtype."""
        self.values, self.gradients, flat = self.values + 1, self.gradients + 1, theta.copy()
        result = self._function(self._restore(flat))
        if self._gradient is not None:
            value, gradient = result, self._gradient(self._restore(theta.copy()))
        elif isinstance(result, (tuple, list)) and len(result) == 2:
            value, gradient = result
        else:
            raise ShapeError(
                f"the function must return (value, gradient), got {_described(result)}; or pass "
                "the gradient's own function as gradient="
            )
        number, arrays = _number(value), self._arrays_of(gradient)
        if number.dtype.kind == "c":
            raise ShapeError("the value at a real point must be real, got a complex number")
        if self.dtype == self.theta.dtype:
            self.resolution = max(self.resolution, _epsilon(number))
        self.gradient_resolution = max(self.gradient_resolution, *map(_epsilon, arrays))
        if not np.array_equal(flat, theta):
            self.notes["the function writes into the point that it is given"] = None
        if self._last and any(
            not np.array_equal(a, b, equal_nan=True) for a, b in zip(*self._last, strict=True)
        ):
            self.notes[
                "the gradient returned is a buffer that the next call overwrites: copy it"
            ] = None
        self._last = arrays, [array.copy() for array in arrays]
        return float(number), np.concatenate([np.ravel(a).astype(float) for a in arrays])

    def _arrays_of(self, gradient: Any) -> list[Array]:
        keys = self._keys or []
        if self._keys is not None:
            kind, alike = type(self._point).__name__, isinstance(gradient, Sequence)
            if isinstance(self._point, Mapping) and isinstance(gradient, Mapping):
                missing = [key for key in keys if key not in gradient]
                if missing:
                    raise ShapeError(f"the gradient has no entry {missing[0]!r}; the point has")
                gradient = self._parts(gradient)
            elif not alike or len(gradient) != len(keys):
                raise ShapeError(
                    f"the gradient must have the structure of the point, {len(keys)} arrays in a "
                    f"{kind}; got {type(gradient).__name__}"
                )
        arrays = [np.asarray(part) for part in ([gradient] if self._keys is None else gradient)]
        for key, array, shape in zip(keys or [""], arrays, self._shapes, strict=True):
            name = "the gradient" if len(arrays) == 1 else f"the gradient of {key}"
            if array.dtype.kind not in "iuf":
                raise ShapeError(f"{name} must be real numbers, got dtype {array.dtype}")
            if array.shape != shape:
                turned = "; it is transposed" if array.shape == shape[::-1] else ""
                raise VerificationError(
                    f"{name} has shape {array.shape}, but the point has {shape}{turned}"
                )
        return arrays


def _is_sequence(point: Any) -> bool:
    """Whether a point is several arrays, not one written as a list of numbers."""
    return isinstance(point, (list, tuple)) and any(np.ndim(part) for part in point)


def _number(value: Any) -> Array:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biufc":
        raise ShapeError(
            f"the value must be one number, got {_described(value)}; sum or average it first"
        )
    return array.reshape(())


def _epsilon(array: Array) -> float:
    return float(np.finfo(array.dtype if array.dtype.kind in "fc" else float).eps)


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"{type(value).__name__} {value!r}"[:60]


# -- slopes along a line, each with its errors -----------------------------------------------------
@dataclass(frozen=True)
class Slope:
    """φ'(0), its two errors, its step, and the one-sided slopes with theirs."""

    value: float
    truncation: float
    rounding: float
    step: float = 0.0
    left: float = math.nan
    right: float = math.nan
    side_error: float = 0.0

    @property
    def error(self) -> float:
        """Truncation and rounding error together."""
        return self.truncation + self.rounding

    @property
    def kink(self) -> bool:
        """Whether the one-sided slopes differ by more than their errors."""
        jump, size = abs(self.right - self.left), abs(self.left) + abs(self.right)
        return jump > 16.0 * self.side_error + 1e-9 * size


def sweep(phi: Line, at_zero: float, noise: float, largest: float = LARGEST_STEP) -> Slope:
    """Return the best slope that a sweep over steps can give, and the one-sided slopes."""
    tables: list[list[list[float]]] = [[], [], []]
    best = [(math.inf, math.nan, math.inf, math.inf, 0.0)] * 3
    for k in range(STEPS):
        h = largest * SHORTER**-k
        if 2.0 * noise / h > best[0][0] and k > 3:
            break
        low, high = phi(-h), phi(h)
        differences = (high - low) / (2.0 * h), (at_zero - low) / h, (high - at_zero) / h
        for side, (difference, power) in enumerate(zip(differences, (2, 1, 1), strict=True)):
            best[side] = min(best[side], _extend(tables[side], difference, h, noise, power))
    (_, value, truncation, rounding, step), left, right = best
    return Slope(value, truncation, rounding, step, left[1], right[1], left[0] + right[0])


def _extend(
    table: list[list[float]], difference: float, h: float, noise: float, power: int
) -> tuple[float, float, float, float, float]:
    """Add a row to Richardson's table; return its best (error, value, truncation, rounding, h).

    ``power`` is that of h by which each column's error shrinks: 2 for central, 1 for one-sided.
    """
    row, previous, rounding = [difference], table[-1] if table else [], (4.0 / power) * noise / h
    best = (math.inf, math.nan, math.inf, math.inf, h)
    for j in range(1, min(len(previous) + 1, ORDERS)):
        weight = SHORTER ** (power * j)
        row.append((weight * row[j - 1] - previous[j - 1]) / (weight - 1.0))
        # an entry's error is at most its distance from the column before, and from the row before
        truncation = abs(row[j] - row[j - 1])
        if j < len(previous):
            truncation = max(truncation, abs(row[j] - previous[j]) / SHORTER)
        if math.isfinite(row[j]) and truncation + rounding < best[0]:
            best = (truncation + rounding, row[j], truncation, rounding, h)
    table.append(row)
    return best


def noise_of(phi: Line, at_zero: float, resolution: float) -> float:
    """Return ε, the typical rounding error of φ's values near 0.

    The sixth differences of nine values in a row are free of any smooth part and hold
    √(12!/6!²) ε. Looked for at several lengths, since a function that rounds its argument to
    float32 is a staircase whose steps only longer rows see; on either side, since a kink on one
    side would look like noise.
    """
    sides, largest = [], abs(at_zero)
    for sign in (1.0, -1.0):
        worst, still = 0.0, False
        for length in NOISE_LENGTHS:
            values = np.array([at_zero, *(phi(sign * j * length) for j in range(1, 9))])
            if not np.all(np.isfinite(values)):
                continue
            jump = float(np.max(np.abs(np.diff(values))))
            largest = max(largest, float(np.max(np.abs(values))))
            rms = [
                np.sqrt(np.mean(np.diff(values, n) ** 2) / math.comb(2 * n, n)) for n in (4, 5, 6)
            ]
            worst = max(worst, float(min(rms)))
            if still and jump * 1e-3 > resolution * largest:
                worst = max(worst, 0.25 * jump)  # stood still where it should have moved
            still = jump == 0.0
        sides.append(worst)
    low, high = sorted(sides)
    return max(low if high > 30.0 * low else high, 0.5 * resolution * largest)


class Around:
    """The function around one point, and the gradient claimed there."""

    def __init__(self, check: _Check, theta: Array, gradient: Array) -> None:
        self.check, self.objective = check, check.objective
        self.theta, self.gradient, self.size = theta.astype(float), gradient, theta.size
        self.measured: dict[int, Coordinate] = {}
        self.threshold = np.full(self.size, np.inf)  # the smallest error that would have been found
        self.small = 1e-9 * _largest(gradient)
        self.value = self.objective.value(self.theta)
        ways = [self.signs(np.arange(self.size)) for _ in range(2)]
        self.noise = noise_of(self._line(ways[0]), self.value, self.objective.resolution)
        self.analytic = check.method != "central" and all(self._is_analytic(v) for v in ways)
        # a change of f that its own rounding hides: where a neuron saturates, 1 − a² is no better
        self.floor = 256.0 * self.noise if self.analytic else 0.0
        fine = 1e-9 if self.analytic else 1e-7
        coarse = 500.0 * self.objective.gradient_resolution
        self.rtol = max(fine, coarse) if check.rtol is None else check.rtol

    # -- slopes along θ + t v ------------------------------------------------------------------
    def signs(self, members: Array) -> Array:
        """Return a direction of random signs over some coordinates, by their scales."""
        v, scale = np.zeros(self.size), self.check.scale
        v[members] = scale[members] * self.check.generator.choice([-1.0, 1.0], len(members))
        return v

    def _line(self, v: Array) -> Line:
        return lambda t: float(self.objective.value(self.theta + t * v))

    def sweep(self, v: Array, *, short: bool = False) -> Slope:
        """Return the slope by central differences.

        ``short`` by steps a thousand times shorter, as if values had no noise: along a coordinate
        whose scale is far below its magnitude, fast change looks like noise.
        """
        if not short:
            return sweep(self._line(v), self.value, self.noise)
        floor = 0.5 * self.objective.resolution * abs(self.value)
        return sweep(self._line(v), self.value, floor, SHORT)

    def _complex(self, v: Array, theta: Array, step: float = COMPLEX_STEP) -> float:
        at = self.objective.value(theta + 1j * step * v)
        return float(at.imag / step) if np.isfinite(at) else math.nan

    def _is_analytic(self, v: Array) -> bool:
        """Whether a complex step along ``v`` is taken, and agrees with central differences."""
        at = self.objective.value(self.theta + 1j * COMPLEX_STEP * v)
        if not np.isfinite(at) or abs(at.real - self.value) > 1e3 * self.noise:
            return False
        exact = at.imag / COMPLEX_STEP
        for central in (self.sweep(v), self.sweep(v, short=True)):
            allowed = SAFE * central.error + 1e-9 * abs(exact)
            if not central.kink and abs(exact - central.value) <= allowed:
                return True
        return False

    def slope(self, v: Array) -> Slope:
        """Return the slope along ``v``; complex steps an ulp apart spread by rounding."""
        if not self.analytic:
            return self.sweep(v)
        value = self._complex(v, self.theta)
        rounding = 1e-15 * abs(value)
        for factor in (0.73, 1.19, 1.61):
            wobble = 1.0 + 2e-16 * self.check.generator.choice([-1.0, 0.0, 1.0], self.size)
            other = self._complex(v, self.theta * wobble, factor * COMPLEX_STEP)
            rounding = max(rounding, 10.0 * abs(other - value))
        return Slope(value, 0.0, rounding)

    # -- judgements ------------------------------------------------------------------------------
    def judge(self, members: Array, v: Array, slope: Slope, method: str = "") -> Coordinate:
        """Compare the claim along ``v`` over some coordinates with a slope."""
        single, check = len(members) == 1, self.check
        unit = float(check.scale[members[0]]) if single else 1.0
        terms = self.gradient[members] * v[members]
        tolerance = self.rtol * max(_norm(terms), abs(slope.value) if single else 0.0)
        tolerance += check.atol * _norm(v) + SAFE * slope.error + self.floor
        tolerance += 10.0 * _norm(check.noise[members] * v[members])
        low, high = sorted((slope.left / unit, slope.right / unit))
        margin, name = SAFE * slope.side_error / unit, self.objective.label(int(members[0]))
        sided = all(map(math.isfinite, (slope.value, low, high)))
        if not single:
            last = self.objective.label(int(members[-1]))
            name = f"the slope along {len(members)} coordinates, {name} to {last},"
        return Coordinate(
            name,
            int(members[0]) if single else None,
            math.fsum(terms) / unit,
            slope.value / unit,
            slope.truncation / unit,
            slope.rounding / unit,
            tolerance / unit if math.isfinite(tolerance) else 0.0,
            self.small,
            method or ("complex" if self.analytic else "central"),
            slope.step * unit,
            (slope.left / unit, slope.right / unit) if sided and slope.kink else None,
            (low - margin, high + margin) if sided else None,
        )

    def measure(self, index: int) -> Coordinate:
        """Measure and judge one coordinate."""
        members, v = np.array([index]), np.zeros(self.size)
        v[index] = self.check.scale[index]
        seen = self.judge(members, v, self.slope(v))
        if not seen.passed and math.isfinite(seen.numeric):
            # a complex step passes a kink on one side; fast change looks like noise
            slope = self.sweep(v, short=not self.analytic)
            other = self.judge(members, v, slope, "central")
            apart = abs(other.numeric - seen.numeric) > SAFE * (other.truncation + other.rounding)
            sharp = other.passed and other.numeric != 0.0 and other.tolerance < seen.distance
            better = apart if self.analytic else sharp
            if math.isfinite(other.numeric) and better:
                seen = other
        self.measured[index] = seen
        if seen.tolerance > 0.0 and seen.sides is None:
            self.threshold[index] = min(self.threshold[index], seen.tolerance)
        return seen

    def probe(self, members: Array) -> Coordinate:
        """Measure and judge a direction of random signs over several coordinates."""
        if len(members) == 1:
            return self.measure(int(members[0]))
        self.check.directions += 1
        v = self.signs(members)
        seen = self.judge(members, v, self.slope(v))
        if seen.passed and seen.sides is None:
            found = seen.tolerance / self.check.scale[members]
            self.threshold[members] = np.minimum(self.threshold[members], found)
        return seen

    # -- all coordinates -------------------------------------------------------------------------
    def wrong(self, budget: int) -> list[Coordinate]:
        """Return what is wrong: coordinates one by one, or groups of like size that are halved."""
        each = 4 if self.analytic else SWEEP
        if self.size * each <= budget or self.size == 1:
            found = [c for c in map(self.measure, range(self.size)) if not c.passed]
            return found or self._of_group(np.arange(self.size), budget)
        share = np.abs(self.gradient) * self.check.scale
        order = np.argsort(-share, kind="stable")
        for index in np.concatenate([order[:4], self.check.generator.permutation(self.size)[:8]]):
            self.measure(int(index))
        found = [c for c in self.measured.values() if not c.passed]
        with np.errstate(divide="ignore"):
            decade = np.floor(np.log10(share / max(float(share.max()), 1e-300)))
        for level in sorted(set(decade.tolist()), reverse=True):
            known = [c.index for c in found if c.index is not None]
            found += self._of_group(np.setdiff1d(np.flatnonzero(decade == level), known), budget)
        return found

    def _of_group(self, members: Array, budget: int, depth: int = 0) -> list[Coordinate]:
        """Halve a group that is wrong; the group itself where no member explains it."""
        if len(members) < 1 or self.objective.values + SWEEP > budget or depth > 40:
            return []
        if len(members) == 1:
            one = self.measured.get(int(members[0])) or self.measure(int(members[0]))
            return [] if one.passed else [one]
        seen = [self.probe(members), self.probe(members)]
        if all(c.passed for c in seen):
            return []
        half = len(members) // 2
        found = self._of_group(members[:half], budget, depth + 1)
        found += self._of_group(members[half:], budget, depth + 1)
        if found or depth or any(c.passed or c.sides for c in seen) or self._is_unsettled(members):
            return found
        return seen[:1] if all(not self.probe(members).passed for _ in range(2)) else []

    def _is_unsettled(self, members: Array) -> bool:
        """Tell whether shorter steps measure another slope: the usual ones are too long here."""
        if self.analytic:
            return False
        v = self.signs(members)
        long, short = self.sweep(v), self.sweep(v, short=True)
        return abs(long.value - short.value) > SAFE * (long.error + short.error)


def _norm(v: Array) -> float:
    return float(np.linalg.norm(v))


def _largest(v: Array) -> float:
    """Return the largest magnitude among the finite entries."""
    return float(np.max(np.abs(v[np.isfinite(v)]), initial=0.0))


# -- the check -------------------------------------------------------------------------------------
def check_gradient(
    function: Callable[..., Any],
    point: Any,
    *,
    gradient: Callable[..., Any] | None = None,
    method: Method = "auto",
    rtol: float | None = None,
    atol: float = 0.0,
    scale: Any = None,
    blocks: Mapping[str, tuple[int, ...]] | None = None,
    rows: int | None = None,
    max_evaluations: int = 10_000,
    elsewhere: bool = True,
    seed: int = 0,
    name: str | None = None,
    raises: bool = True,
) -> GradientReport:
    """Check a gradient against numeric derivatives, each with its own error estimates.

    Slopes come from complex steps where the function is analytic (it takes complex points and
    agrees there with differences), else from central differences whose step, chosen for each
    slope, makes truncation and rounding error small together. Within ``max_evaluations`` values
    every coordinate is measured; beyond, random directions over groups clear or convict all members
    at once, and halving finds the one that is wrong.

    Parameters
    ----------
    function : callable
        θ ↦ (value, gradient); or θ ↦ value, if ``gradient`` is given.
    point : array, or dict, list or tuple of arrays
        Where to check. The function gets it, and gives its gradient, in this structure. In
        float32, differences are taken in float64 if the function takes such points.
    gradient : callable, optional
        θ ↦ gradient.
    method : {"auto", "central", "complex"}
        How slopes are measured.
    rtol, atol : float
        Allowed |analytic − numeric| ≤ rtol · max(|analytic|, |numeric|) + atol beyond the
        estimated errors. By default rtol is 1e-9 for complex steps, 1e-7 for differences, and
        3e-5 for a float32 gradient.
    scale : float or like ``point``, optional
        The change over which each coordinate matters; by default its magnitude, or, of a small
        one, a tenth of the median magnitude.
    blocks : dict of tuple of int, optional
        Names and shapes of consecutive pieces of a flat ``point``, which name its coordinates.
    rows : int, optional
        Batch size, which a wrong factor is compared with.
    max_evaluations : int
        Values to ask for, about.
    elsewhere : bool
        Whether the gradient is also looked at a percent away, which finds one that was computed
        once and kept. Turn it off where only this point has this gradient.
    seed, name
        Of the random directions; of the function in the report.
    raises : bool
        Whether a wrong gradient raises, or is only reported.

    Raises
    ------
    VerificationError
        If the gradient is wrong: with the worst coordinate and both values.
    ShapeError
        If the function does not return one number and a gradient.

    >>> import numpy as np
    >>> def square(theta):
    ...     return theta @ theta, 2 * theta
    >>> check_gradient(square, np.arange(3.0)).passed
    True
    >>> report = check_gradient(lambda theta: (theta @ theta, -theta), np.arange(3.0), raises=False)
    >>> report.failures[0].label, report.failures[0].numeric
    ('θ[2]', 4.0)
    """
    if method not in ("auto", "central", "complex"):
        raise ArchitectureError(f"method must be auto, central or complex, got {method!r}")
    if not (callable(function) and callable(gradient or function)):
        raise ArchitectureError(f"function and gradient are functions, got {function}, {gradient}")
    for key, number in {"rtol": rtol, "atol": atol, "max_evaluations": max_evaluations}.items():
        if number is not None and not (isinstance(number, Real) and number >= 0):
            raise ArchitectureError(f"{key} must be a number of at least 0, got {number!r}")
    objective, generator = (
        Objective(function, gradient, point, blocks),
        stream(seed, "verification"),
    )
    size, lengths = objective.theta.size, _scale_of(objective.theta, scale)
    options = method, rtol, atol, rows, max_evaluations, generator, np.zeros(size)
    called = name or str(getattr(function, "__name__", type(function).__name__))
    with quiet():
        report = _Check(objective, lengths, *options).report(called, elsewhere)
    if raises:
        report.raise_for_failure()
    return report


def _scale_of(theta: Array, scale: Any) -> Array:
    """Return the length over which each coordinate matters."""
    if scale is None:
        size = np.abs(theta.astype(float))
        typical = np.exp(np.median(np.log(size[size > 0]))) if np.any(size) else 1.0
        return np.asarray(np.maximum(size, 0.1 * typical))
    parts = list(scale.values()) if isinstance(scale, Mapping) else scale
    given = np.concatenate(
        [np.ravel(p) for p in parts] if _is_sequence(parts) else [np.ravel(parts)]
    )
    given = np.full(theta.size, float(given[0])) if np.ndim(scale) == 0 else given.astype(float)
    if given.size != theta.size or not np.all((given > 0) & np.isfinite(given)):
        raise ArchitectureError(
            f"scale must be a positive number, or {theta.size} of them, structured as the point"
        )
    return given


@dataclass
class _Check:
    """Asks whether the gradient is repeatable, right here, and right nearby."""

    objective: Objective
    scale: Array
    method: str
    rtol: float | None
    atol: float
    rows: int | None
    budget: int
    generator: np.random.Generator
    noise: Array  # rounding seen in the gradient itself
    directions: int = 0

    def report(self, name: str, elsewhere: bool) -> GradientReport:
        """Go through the questions, and answer at the first that is not passed."""
        objective, theta = self.objective, self.objective.theta
        value, gradient = objective.pair(theta)
        changed = self._changed(value, gradient, self._visit())
        if changed is not None:
            return self._finish(name, None, [changed[0]], changed[1])
        self._measure_noise(value, gradient)
        if theta.dtype != np.float64:
            objective.widen()
        here = Around(self, theta, gradient)
        if self.method == "complex" and not here.analytic:
            raise ArchitectureError(
                "method 'complex' needs a function that takes complex points and is analytic "
                "there: no abs, max or real parts; use method 'auto' or 'central'"
            )
        if not math.isfinite(value):
            seen = Coordinate("the value", None, value, math.nan, method="repeat")
            return self._finish(name, here, [seen], "the value is not finite at this point")
        broken = np.flatnonzero(~np.isfinite(gradient))
        if broken.size:
            wrong = [here.measure(int(index)) for index in broken[:20]]
            return self._finish(name, here, wrong, "the gradient is not finite there")
        wrong = self._without_kinks(here, here.wrong(self.budget))
        if wrong or not elsewhere:
            return self._finish(name, here, wrong, self._cause(here, wrong))
        return self._finish(name, here, *self._look_nearby(gradient))

    # -- other points, other calls ---------------------------------------------------------------
    def _visit(self, distance: float = NEARBY, still: int | None = None) -> Any:
        """Return a point nearby and the gradient claimed there; None if it has none."""
        theta = self.objective.theta
        draws = self.generator.uniform(-distance, distance, theta.size)
        if still is not None:
            draws[still] = 0.0
        point = (theta + draws * self.scale).astype(theta.dtype)
        try:
            value, gradient = self.objective.pair(point)
        except UNDEFINED:
            return None
        return (point, gradient) if np.all(np.isfinite([value, *gradient])) else None

    def _changed(self, value: float, gradient: Array, between: Any) -> Any:
        """Ask again, and return what differs, with a cause."""
        theta = self.objective.theta
        again, other = self.objective.pair(theta)
        allowed = 1e4 * max(float(np.finfo(theta.dtype).eps), self.objective.resolution)
        if abs(again - value) > allowed * max(abs(again), abs(value)):
            cause = "the value changes from call to call; fix its random draws or its state"
            return Coordinate("the value", None, again, value, method="repeat"), cause
        same = (other == gradient) | (np.isnan(other) & np.isnan(gradient))
        change = np.where(same, 0.0, np.nan_to_num(np.abs(other - gradient), nan=np.inf))
        if not np.any(change > allowed * _largest(gradient)):
            return None
        index = int(np.argmax(change))
        seen = float(other[index]), float(gradient[index])
        cause = "a stale buffer, or random draws: the gradient changes from call to call"
        if between is not None and np.allclose(other, between[1], rtol=1e-6, atol=0.0):
            cause = "a stale buffer: the gradient of the point before comes back"
        return Coordinate(self.objective.label(index), index, *seen, method="repeat"), cause

    def _measure_noise(self, value: float, gradient: Array) -> None:
        """Set the rounding error of the gradient: its spread over points an ulp apart.

        A share of the largest coordinate is added, since neurons that saturate round to plateaus,
        and of the value over the scale: terms of that size cancel in a gradient that vanishes.
        """
        theta = self.objective.theta
        epsilon = float(np.finfo(theta.dtype).eps)
        spread = epsilon * np.abs(gradient)
        for _ in range(3):
            wobble = 1.0 + 2.0 * epsilon * self.generator.choice([-1.0, 0.0, 1.0], gradient.size)
            try:
                _, near = self.objective.pair((theta * wobble).astype(theta.dtype))
            except UNDEFINED:  # the point is at the edge of the domain
                continue
            spread = np.fmax(spread, np.abs(near - gradient))
        finite = np.isfinite(spread)
        if np.any(finite):
            common = float(np.median(spread[finite])) + 4.0 * epsilon * _largest(gradient)
            cancelled = 0.5 * epsilon * abs(value) / self.scale
            self.noise = np.where(finite, spread, 0.0) + common + np.nan_to_num(cancelled)

    # -- kinks -----------------------------------------------------------------------------------
    def _without_kinks(self, here: Around, wrong: list[Coordinate]) -> list[Coordinate]:
        """Return what is wrong and not explained by kinks."""
        some = sorted(wrong, key=lambda c: -c.excess)[:20]
        if not some or not all(math.isfinite(c.distance) for c in some):
            return wrong
        if all(c.sides is not None for c in some):
            explained = all(self._meet(c) for c in some[:3])
        else:
            # values as noisy as float32 take steps so long that kinks lie on both sides
            coarse = here.noise > 1e-10 * abs(here.value)
            explained = (coarse or all(c.unsure for c in wrong)) and self._right_elsewhere(some)
        if not explained:
            return wrong
        for c in wrong:
            if c.index is not None:
                low, high = c.sides or c.suspected or (c.numeric, c.numeric)
                sides = min(low, c.analytic), max(high, c.analytic)
                here.measured[c.index] = replace(c, sides=sides)
        return []

    def _meet(self, c: Coordinate) -> bool:
        """Whether several kinks meet here: moving the other coordinates moves them away.

        Where neurons that push opposite ways are all at the kink, a gradient that counts none of
        them need not lie between the two one-sided slopes.
        """
        if c.index is None or self.scale.size == 1:
            return False
        visits = [visit for _ in range(3) if (visit := self._visit(still=c.index))]
        seen = [Around(self, *visit).measure(c.index) for visit in visits]
        return all(one.passed and one.sides is None for one in seen)

    def _right_elsewhere(self, wrong: list[Coordinate]) -> bool:
        """Whether each is right at a point nearby where an error of its size would be found."""
        wrong = [c for c in wrong if c.index is not None] or wrong
        right = [0] * len(wrong)
        for distance in NEARBY * 2.0 ** np.arange(6):  # away from the kink
            visited = self._visit(distance)
            if visited is None:
                continue
            there = Around(self, *visited)
            for k, c in enumerate(wrong):
                members = np.arange(there.size) if c.index is None else np.array([c.index])
                seen = there.probe(members)
                right[k] += seen.passed and seen.tolerance < 2.0 * c.distance
        return min(right) > 0

    def _look_nearby(self, gradient: Array) -> tuple[list[Coordinate], str | None]:
        """Check the gradient at two other points: one computed once and kept is wrong at both."""
        wrong: list[Coordinate] = []
        cause = "a stale buffer: the same gradient comes back at a different point"
        for _ in range(2):
            visited = self._visit()
            if visited is None:
                return [], None
            there = Around(self, *visited)
            for _ in range(2):
                seen = there.probe(np.arange(there.size))
                if seen.passed or seen.sides is not None or not math.isfinite(seen.numeric):
                    return [], None
            wrong = there.wrong(self.objective.values + self.budget)
            if all(c.unsure for c in wrong):  # also where none is wrong by itself
                return [], None
            if not np.array_equal(there.gradient, gradient):
                cause = "right at the first point, but wrong at two points nearby"
        return wrong, cause

    # -- what is there to say? -------------------------------------------------------------------
    def _cause(self, here: Around, wrong: list[Coordinate]) -> str | None:
        """Return what the errors look like, where one factor explains them all."""
        if not wrong:
            return None
        worst = max(wrong, key=lambda c: c.excess)
        if not math.isfinite(worst.numeric):
            return "the value is not finite at any step from this point"
        if worst.sides is not None:
            return (
                "a kink (of a ReLU, say) at this point, and the gradient is not between its slopes"
            )
        if worst.index is None:
            return "an error too small, or too widely spread, to be seen in one coordinate"
        tiny = 32.0 * float(np.finfo(np.float32).eps) * float(np.max(np.abs(here.gradient)))
        if len(wrong) > 1 and all(abs(c.analytic - c.numeric) <= tiny for c in wrong):
            return "float32 rounding: the errors are as small as those of float32 arithmetic"
        ratios = np.array([ratio(c.analytic, abs(c.numeric)) * np.sign(c.numeric) for c in wrong])
        factor = float(np.median(ratios))
        if not np.all(np.abs(ratios - factor) <= 1e-3 * abs(factor)):
            return None
        where = f"in {len(wrong)} of the {len(here.measured)} coordinates measured"
        if factor == 0.0:
            return f"the gradient is zero {where}: never written?"
        names = {-1.0: "the sign is wrong", 2.0: "a factor 2", 0.5: "a factor ½"}
        if self.rows and self.rows > 2:
            size = "a missing factor of the batch size"
            names |= {1.0 / self.rows: size, float(self.rows): size}
        near = [words for v, words in names.items() if abs(factor - v) <= 1e-3 * abs(v)]
        return f"{[*near, f'a factor {factor:.6g}'][0]} {where}"

    def _finish(
        self, name: str, here: Around | None, wrong: list[Coordinate], cause: str | None
    ) -> GradientReport:
        wrong = sorted(wrong, key=lambda c: -min(c.excess, 1e300))
        measured = list(here.measured.values()) if here else []
        resolution, covered = math.inf, 0.0
        if here is not None:
            size = np.abs(here.gradient)
            relevant = size > here.small
            if np.any(relevant):
                relative = here.threshold[relevant] / size[relevant]
                resolution, covered = float(np.median(relative)), float(np.mean(relative <= FOUND))
        if not wrong and resolution > 0.1:
            self.objective.notes[
                "inconclusive: at this point most slopes are too small against the rounding of the "
                "values; try another point, or float64"
            ] = None
        return GradientReport(
            name,
            not wrong,
            wrong[0] if wrong else max(measured, key=lambda c: c.excess),
            tuple(wrong[:20]),
            cause,
            "complex" if here and here.analytic else "central",
            self.scale.size,
            len(measured),
            self.directions,
            self.objective.values,
            self.objective.gradients,
            here.noise if here else 0.0,
            resolution,
            covered,
            sum(c.sides is not None and c.passed for c in measured),
            tuple(self.objective.notes),
        )
