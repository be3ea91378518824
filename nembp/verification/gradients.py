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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np

from nembp.backend import stream
from nembp.errors import ArchitectureError, ShapeError, VerificationError
from nembp.verification.definitions import Array

Method = Literal["auto", "central", "complex"]
Line = Callable[[float], float]  # t ↦ φ(t), NaN where it is not defined

LARGEST_STEP = 0.2137  # of the scale; no round number, so that periodic functions do not alias
SHORTER, STEPS, ORDERS = 4.0, 18, 4  # ratio of steps, their number, columns of the extrapolation
SWEEP = 2 * STEPS  # values of a sweep at most
COMPLEX_STEP = 1e-30
# lengths at which the noise of the values is looked for; a float32 cast shows at the longest
# (no powers of two, and two of them, lest they be whole multiples of a float32 argument's grid)
NOISE_LENGTHS = (0.7213 * 2.0**-36, 0.7213 * 2.0**-29, 0.7213 * 2.0**-22, 0.5257 * 2.0**-21)
SAFE = 4.0  # times errors that are themselves estimates
NEARBY = 0.01  # of the scale: the distance of other points
FOUND = 1e-3  # the relative error whose discovery is the aim
OVERWRITTEN = "the gradient returned is a buffer that the next call overwrites: copy it"
INCONCLUSIVE = (
    "inconclusive: at this point most slopes are too small against the rounding of the values; try "
    "another point, or float64"
)
UNDEFINED = (ArithmeticError, ValueError)  # how functions say that a point is out of their domain
REFUSALS = (*UNDEFINED, AssertionError, AttributeError, LookupError, RuntimeError, TypeError)
METHODS = {
    "central": "central differences give",
    "complex": "complex steps give",
    "repeat": "the first call gave",
}


def ratio(value: float, size: float) -> float:
    """Return value / size for sizes ≥ 0, with 0 / 0 = 0."""
    if value == 0.0:
        return 0.0
    return value / size if size > 0.0 else math.inf


# -- slopes along a line, each with its errors -----------------------------------------------------
class Slope(NamedTuple):
    """A measured φ'(0), estimates of its two errors, and its step."""

    numeric: float
    truncation: float = math.inf
    rounding: float = math.inf
    step: float = 0.0

    @property
    def error(self) -> float:
        """Both errors together."""
        return self.truncation + self.rounding


def sweep(phi: Line, at_zero: float, noise: float, length: float = 1.0, side: int = 0) -> Slope:
    """Return the best slope by steps from about a fifth of ``length`` down; or of one side, ±1."""
    power = 1 if side else 2  # of h, by which the error of each column shrinks
    before: list[float] = []  # the last row of Richardson's table
    best = Slope(math.nan)
    for k in range(STEPS):
        h = length * LARGEST_STEP * SHORTER**-k
        rounding = (4.0 / power) * noise / h
        if rounding > best.error and k > 3:
            break
        ahead, behind = phi(-h if side < 0 else h), at_zero if side else phi(-h)
        row = [(ahead - behind) / (side * h if side else 2.0 * h)]
        for j in range(1, min(k + 1, ORDERS)):
            weight = SHORTER ** (power * j)
            row.append((weight * row[j - 1] - before[j - 1]) / (weight - 1.0))
            # an entry's error: at most its distance from the column and from the row before
            truncation = abs(row[j] - row[j - 1])
            if j < len(before):
                truncation = max(truncation, abs(row[j] - before[j]) / SHORTER)
            if math.isfinite(row[j]) and truncation + rounding < best.error:
                best = Slope(row[j], truncation, rounding, h)
        before = row
    return best


def noise_of(phi: Line, at_zero: float, resolution: float) -> float:
    """Return ε, the typical rounding error of φ's values near 0.

    The sixth differences of nine values in a row are free of any smooth part and hold
    √(12!/6!²) ε: the least but one over several lengths, since fast change looks like noise over
    long ones. A function that rounds its argument to float32 is a staircase, which stands still
    over short ones. On either side, since a kink on one side would look like noise.
    """
    sides, largest, stairs = [], abs(at_zero), 0.0
    for sign in (1.0, -1.0):
        seen, still = [0.0], False
        for length in NOISE_LENGTHS:
            values = np.array([at_zero, *(phi(sign * j * length) for j in range(1, 9))])
            if not np.all(np.isfinite(values)):
                continue
            moves = np.abs(np.diff(values))
            jump, largest = float(moves.max()), max(largest, float(np.max(np.abs(values))))
            spread = [np.mean(np.diff(values, n) ** 2) / math.comb(2 * n, n) for n in (4, 5, 6)]
            stood, still = still, not np.all(moves)
            if (stood or still) and jump * 1e-3 > resolution * largest:
                stairs = max(stairs, 0.25 * jump)  # stood still where it should have moved
            seen += [float(min(spread)) ** 0.5] if jump else []
        sides.append(max(seen) if stairs else sorted(seen)[min(2, len(seen) - 1)])
    low, high = sorted(sides)
    return max(low if high > 30.0 * low else high, stairs, 0.5 * resolution * largest)


# -- what was found --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Coordinate:
    """One number that was checked: what is claimed (``analytic``) beside what was measured.

    ``truncation`` and ``rounding`` estimate the measurement's two errors, and ``tolerance`` is the
    largest |analytic − numeric| that passes. At a kink any value between the slopes of both
    ``sides`` passes; they are ``suspected`` where their errors do not tell. A direction over more
    than one has no ``index``; values below ``scale`` count as zero in ``relative_error``.
    """

    label: str
    index: int | None
    analytic: float
    numeric: float
    truncation: float = 0.0
    rounding: float = 0.0
    step: float = 0.0
    tolerance: float = 0.0
    scale: float = 0.0
    method: str = "central"
    sides: tuple[float, float] | None = None
    suspected: tuple[float, float] | None = None

    @property
    def distance(self) -> float:
        """|analytic − numeric|, to the nearer side at a kink; inf unless both are finite."""
        if not (math.isfinite(self.analytic) and math.isfinite(self.numeric)):
            return math.inf
        low, high = self.sides or (self.numeric, self.numeric)
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
class GradientReport:
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
    kinks: int
    notes: tuple[str, ...]

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


# -- a user's function -----------------------------------------------------------------------------
@contextmanager
def quiet() -> Iterator[None]:
    """Silence what a function says about points out of its domain."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _epsilon(array: Array) -> float:
    return float(np.finfo(array.dtype if array.dtype.kind in "fc" else float).eps)


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"{type(value).__name__} {value!r}"[:60]


class Problem:
    """f and ∇f on flat vectors, whatever the structure of the user's points, and what to allow."""

    def __init__(
        self, function: Any, gradient: Any, point: Any, scale: Any, blocks: Any, **options: Any
    ) -> None:
        self._function, self._gradient = function, gradient
        self.method, self.rtol, self.atol = (options[k] for k in ("method", "rtol", "atol"))
        self.generator = stream(options["seed"], "verification")
        self.values = self.gradients = self.directions = 0
        self.notes: dict[str, None] = {}
        self._last: tuple[list[Array], list[Array]] | None = None
        self._kind: Any = None  # of the container
        if isinstance(point, Mapping):
            self._kind = dict
        elif isinstance(point, (list, tuple)) and any(np.ndim(part) for part in point):
            self._kind = tuple if isinstance(point, tuple) else list
        size = len(point) if self._kind else 1
        self._keys = list(point) if self._kind is dict else list(range(size))
        parts = self._arrays(point, "point")
        self._shapes = [part.shape for part in parts]
        flat = np.concatenate([part.reshape(-1) for part in parts]) if parts else np.zeros(0)
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
        names = map(str, self._keys) if self._kind else ["θ"]
        self._blocks = dict(blocks or zip(names, self._shapes, strict=True))
        if (count := sum(math.prod(s) for s in self._blocks.values())) != flat.size:
            raise ShapeError(f"the blocks have {count} entries, but the point has {flat.size}")
        self.scale = self._lengths(scale)  # over which each coordinate matters
        self.dtype = self.theta.dtype  # in which values are asked for
        self.resolution = self.gradient_resolution = float(np.finfo(self.dtype).eps)

    def _arrays(self, value: Any, what: str) -> list[Array]:
        """Return the arrays of a value that has the structure of the point."""
        if self._kind is None and not isinstance(value, Mapping):
            return [np.asarray(value)]
        with suppress(LookupError, TypeError):
            if self._kind is dict or len(value) == len(self._keys):
                return [np.asarray(value[key]) for key in self._keys]
        name = f"{self._kind.__name__} of " if self._kind else "array"
        keys = ", ".join(map(repr, self._keys)) if self._kind else ""
        raise ShapeError(
            f"the {what} must have the structure of the point, {name}{keys}; got "
            f"{_described(value)}"
        )

    def _lengths(self, scale: Any) -> Array:
        size = np.abs(self.theta.astype(float))
        if scale is None:
            typical = np.exp(np.median(np.log(size[size > 0]))) if np.any(size) else 1.0
            return np.asarray(np.maximum(size, 0.1 * typical))
        plain = isinstance(scale, (Real, np.ndarray))
        parts = [scale] if plain else self._arrays(scale, "scale")
        given = np.concatenate([np.ravel(part) for part in parts]).astype(float)
        if given.size not in (1, size.size) or not np.all((given > 0) & np.isfinite(given)):
            raise ArchitectureError(
                f"scale must be a positive number, or {size.size} of them, structured as the point"
            )
        return np.asarray(np.broadcast_to(given, size.shape))

    def label(self, index: int) -> str:
        """Name a coordinate: ``W[1, 1]``."""
        for name, shape in self._blocks.items():
            if index < math.prod(shape):
                place = ", ".join(str(int(k)) for k in np.unravel_index(index, shape))
                return f"{name}[{place}]" if shape else name
            index -= math.prod(shape)
        raise IndexError(index)

    def _restored(self, flat: Array) -> Any:
        """Return a flat vector in the structure of the point."""
        pieces = np.split(flat, np.cumsum([math.prod(shape) for shape in self._shapes])[:-1])
        parts = [piece.reshape(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        if self._kind is None:
            return parts[0] if parts[0].shape else parts[0][()]
        return self._kind(zip(self._keys, parts, strict=True) if self._kind is dict else parts)

    def _call(self, flat: Array) -> tuple[Array, Any]:
        """Return the value, as an array without dimensions, and what came with it."""
        self.values += 1
        value, gradient = self._function(self._restored(flat)), None
        if self._gradient is None:
            if not (isinstance(value, (tuple, list)) and len(value) == 2):
                raise ShapeError(
                    f"the function must return (value, gradient), got {_described(value)}; or pass "
                    "the gradient's own function as gradient="
                )
            value, gradient = value
        number = np.asarray(value)
        if number.size != 1 or number.dtype.kind not in "biufc":
            raise ShapeError(
                f"the value must be one number, got {_described(value)}; sum or average it first"
            )
        return number.reshape(()), gradient

    def value(self, theta: Array) -> Any:
        """Return f at a real or complex point, of its kind; NaN where it is not defined."""
        kind, refusals = (complex, REFUSALS) if theta.dtype.kind == "c" else (float, UNDEFINED)
        try:
            value, _ = self._call(theta if kind is complex else theta.astype(self.dtype))
        except refusals:
            return kind(math.nan)
        return kind(value if (value.dtype.kind == "c") == (kind is complex) else math.nan)

    def widen(self) -> None:
        """Ask for values in float64 from now on, if there are any."""
        with suppress(*REFUSALS):
            self.resolution = _epsilon(self._call(self.theta.astype(float))[0])
            self.dtype = np.dtype(float)

    def pair(self, theta: Array) -> tuple[float, Array]:
        """Return f and a float64 copy of ∇f at ``theta``, in its dtype."""
        self.gradients, flat = self.gradients + 1, theta.copy()
        number, gradient = self._call(flat)
        if self._gradient is not None:
            gradient = self._gradient(self._restored(theta.copy()))
        arrays = self._arrays(gradient, "gradient")
        if number.dtype.kind == "c":
            raise ShapeError("the value at a real point must be real, got a complex number")
        for key, array, shape in zip(self._keys, arrays, self._shapes, strict=True):
            name = "the gradient" if len(arrays) == 1 else f"the gradient of {key}"
            if array.dtype.kind not in "iuf":
                raise ShapeError(f"{name} must be real numbers, got dtype {array.dtype}")
            if array.shape != shape:
                turned = "; it is transposed" if array.shape == shape[::-1] else ""
                raise VerificationError(
                    f"{name} has shape {array.shape}, but the point has {shape}{turned}"
                )
        if self.dtype == self.theta.dtype:
            self.resolution = max(self.resolution, _epsilon(number))
        self.gradient_resolution = max(self.gradient_resolution, *map(_epsilon, arrays))
        if not np.array_equal(flat, theta):
            self.notes["the function writes into the point that it is given"] = None
        kept, self._last = self._last, (arrays, [array.copy() for array in arrays])
        for now, then in zip(*kept, strict=True) if kept else ():
            if not np.array_equal(now, then, equal_nan=True):
                self.notes[OVERWRITTEN] = None
        return float(number), np.concatenate([np.ravel(a).astype(float) for a in arrays])

    def nearby(self, distance: float = NEARBY, still: int | None = None) -> Any:
        """Return a point nearby and the gradient claimed there; None if it has none."""
        draws = self.generator.uniform(-distance, distance, self.theta.size)
        if still is not None:
            draws[still] = 0.0
        point = (self.theta + draws * self.scale).astype(self.theta.dtype)
        with suppress(*UNDEFINED):
            value, gradient = self.pair(point)
            if np.all(np.isfinite([value, *gradient])):
                return point, gradient
        return None

    def rounding_of(self, value: float, gradient: Array) -> Array:
        """Return the rounding error of the gradient: its spread over points an ulp apart.

        A share of the largest coordinate is added, since neurons that saturate round to plateaus,
        and of the value over the scale: terms of that size cancel in a gradient that vanishes.
        """
        epsilon = float(np.finfo(self.theta.dtype).eps)
        spread = epsilon * np.abs(gradient)
        for _ in range(3):
            wobble = 1.0 + 2.0 * epsilon * self.generator.choice([-1.0, 0.0, 1.0], gradient.size)
            with suppress(*UNDEFINED):  # the point is at the edge of the domain
                _, near = self.pair((self.theta * wobble).astype(self.theta.dtype))
                spread = np.fmax(spread, np.abs(near - gradient))
        finite = np.isfinite(spread)
        if not np.any(finite):
            return np.zeros(gradient.size)
        common = float(np.median(spread[finite])) + 4.0 * epsilon * _largest(gradient)
        cancelled = 0.5 * epsilon * abs(value) / self.scale
        return np.asarray(np.where(finite, spread, 0.0) + common + np.nan_to_num(cancelled))


# -- the function around one point -----------------------------------------------------------------
class Around:
    """Measures slopes around one point, and compares them with the gradient claimed there."""

    def __init__(self, problem: Problem, theta: Array, gradient: Array, noise: Array) -> None:
        self.problem, self.theta = problem, theta.astype(float)
        self.gradient, self.rounding = gradient, noise
        self.measured: dict[int, Coordinate] = {}
        self.threshold = np.full(theta.size, np.inf)  # the smallest error that would be found
        self.small = 1e-9 * _largest(gradient)
        self.value = self.problem.value(self.theta)
        self.all = np.arange(theta.size)
        ways = [self._signs(self.all) for _ in range(2)]
        self.noise = noise_of(self._line(ways[0]), self.value, problem.resolution)
        self.analytic = problem.method != "central" and all(self._is_analytic(v) for v in ways)
        least = 1e-9 if self.analytic else 1e-7
        self.rtol = max(least, 500.0 * problem.gradient_resolution)
        self.rtol = self.rtol if problem.rtol is None else problem.rtol

    def moved(self, distance: float = NEARBY, still: int | None = None) -> Around | None:
        """Go to a point nearby where there is a gradient."""
        visited = self.problem.nearby(distance, still)
        return Around(self.problem, visited[0], visited[1], self.rounding) if visited else None

    def _signs(self, members: Array) -> Array:
        """Return a direction of random signs over some coordinates, by their scales."""
        v, scale = np.zeros(self.theta.size), self.problem.scale
        v[members] = scale[members] * self.problem.generator.choice([-1.0, 1.0], len(members))
        return v

    def _line(self, v: Array) -> Line:
        return lambda t: float(self.problem.value(self.theta + t * v))

    def _complex(self, v: Array, factor: float = 1.0, wobble: Any = 1.0) -> complex:
        """Return f at a complex step along ``v``, whose imaginary part is divided by the step."""
        at = self.problem.value(self.theta * wobble + 1j * factor * COMPLEX_STEP * v)
        return complex(at.real, at.imag / (factor * COMPLEX_STEP))

    def _is_analytic(self, v: Array) -> bool:
        """Whether a complex step along ``v`` is taken, and agrees with central differences."""
        at = self._complex(v)
        if not (np.isfinite(at) and abs(at.real - self.value) <= 1e3 * self.noise):
            return False
        for length in (1.0, SHORTER**-6):  # long steps do not see fast change
            slope = sweep(self._line(v), self.value, self.noise, length)
            allowed = SAFE * slope.error + 1e-9 * abs(at.imag)
            if abs(at.imag - slope.numeric) <= allowed:
                return True
        return False

    def _complex_slope(self, v: Array) -> Slope:
        """Return the slope along ``v`` by complex steps, which spread an ulp apart by rounding."""
        slope = self._complex(v).imag
        rounding = 1e-15 * abs(slope)
        for factor in (0.73, 1.19, 1.61):
            wobble = 1.0 + 2e-16 * self.problem.generator.choice([-1.0, 0.0, 1.0], v.size)
            rounding = max(rounding, 10.0 * abs(self._complex(v, factor, wobble).imag - slope))
        return Slope(slope, 0.0, rounding)

    def _judged(self, members: Array, v: Array, length: float, near: float = 0.0) -> Coordinate:
        """Compare the claim along ``v`` over some coordinates with the slope measured.

        By complex steps if they apply; by differences over a length that is ``near``.
        """
        problem, single = self.problem, len(members) == 1
        by_complex, line = self.analytic and not near, self._line(v)
        given = line, self.value, self.noise, near or length
        slope = self._complex_slope(v) if by_complex else sweep(*given)
        terms = self.gradient[members] * v[members]
        tolerance = self.rtol * max(_norm(terms), abs(slope.numeric) if single else 0.0)
        tolerance += problem.atol * _norm(v) + SAFE * slope.error
        exact, tolerance = tolerance, tolerance + 10.0 * _norm(self.rounding[members] * v[members])
        if self.analytic:
            # a change of f that its own rounding hides: a saturated neuron's 1 − a² is no better
            tolerance += 256.0 * self.noise / length
        first, last = (problem.label(int(members[k])) for k in (0, -1))
        seen = Coordinate(
            first if single else f"the slope along {len(members)} coordinates, {first} to {last},",
            int(members[0]) if single else None,
            math.fsum(terms),
            *slope,
            tolerance=tolerance if math.isfinite(tolerance) else 0.0,
            scale=self.small,
            method="complex" if by_complex else "central",
        )
        if by_complex or seen.distance <= exact or not math.isfinite(slope.numeric):
            return seen
        left, right = (sweep(*given, side) for side in (-1, 1))
        (low, high), error = sorted((left.numeric, right.numeric)), left.error + right.error
        kink = 16.0 * error + 1e-9 * (abs(low) + abs(high)) < high - low < math.inf
        suspected = low - SAFE * error, high + SAFE * error
        return replace(seen, sides=(low, high) if kink else None, suspected=suspected)

    def probe(self, members: Array) -> Coordinate:
        """Measure and judge one coordinate, or a direction of random signs over several."""
        v, lengths, single = self._signs(members), self.problem.scale[members], len(members) == 1
        length = float(lengths[0]) if single else 1.0
        if single:
            v[members] = 1.0
        seen = self._judged(members, v, length)
        if single and not seen.passed:
            # a complex step passes a kink on one side; long steps do not see fast change
            other = self._judged(
                members, v, length, length * (1.0 if self.analytic else SHORTER**-6)
            )
            apart = abs(other.numeric - seen.numeric) > SAFE * (other.truncation + other.rounding)
            if apart if self.analytic else other.passed and other.tolerance < seen.distance:
                seen = other
        if single:
            self.measured[int(members[0])] = seen
        else:
            self.problem.directions += 1
        if seen.sides is None and (seen.tolerance > 0.0 if single else seen.passed):
            found = seen.tolerance * length / lengths
            self.threshold[members] = np.minimum(self.threshold[members], found)
        return seen

    def measure(self, index: int) -> Coordinate:
        """Return what is measured of one coordinate, once."""
        return self.measured.get(index) or self.probe(np.array([index]))

    def wrong(self, budget: int) -> list[Coordinate]:
        """Return what is wrong: coordinates one by one, or groups of like size that are halved."""
        size, each = self.theta.size, 4 if self.analytic else SWEEP
        if size * each <= budget or size == 1:
            found = [c for c in map(self.measure, range(size)) if not c.passed]
            return found or self._of_group(self.all, budget)
        share = np.abs(self.gradient) * self.problem.scale
        largest = np.argsort(-share, kind="stable")[:4]
        for index in (*largest, *self.problem.generator.permutation(size)[:8]):
            self.measure(int(index))
        found = [c for c in self.measured.values() if not c.passed]
        with np.errstate(divide="ignore"):
            decade = np.floor(np.log10(share / max(float(share.max()), 1e-300)))
        for level in np.unique(decade)[::-1]:
            known = [c.index for c in found if c.index is not None]
            found += self._of_group(np.setdiff1d(np.flatnonzero(decade == level), known), budget)
        return found

    def _of_group(self, members: Array, budget: int, depth: int = 0) -> list[Coordinate]:
        """Halve a group that is wrong; the group itself where no member explains it."""
        if len(members) == 0 or self.problem.values + SWEEP > budget:
            return []
        if len(members) == 1:
            one = self.measure(int(members[0]))
            return [] if one.passed else [one]
        seen = [self.probe(members), self.probe(members)]
        if all(c.passed for c in seen):
            return []
        halves = np.split(members, [len(members) // 2])
        found = [c for half in halves for c in self._of_group(half, budget, depth + 1)]
        if found or depth or any(c.passed or c.sides for c in seen):
            return found
        return seen[:1] if all(not self.probe(members).passed for _ in range(2)) else []


def _norm(v: Array) -> float:
    return float(np.linalg.norm(v))


def _largest(v: Array) -> float:
    """Return the largest magnitude among the finite entries."""
    return float(np.max(np.abs(v[np.isfinite(v)]), initial=0.0))


# -- the questions that are asked ------------------------------------------------------------------
Answer = tuple[list[Coordinate], str | None]  # what is wrong, and what it looks like


def _answer(problem: Problem, budget: int, rows: int | None, elsewhere: bool) -> Any:
    """Ask whether a gradient repeats, is right here, and nearby; return where, and the answer."""
    value, gradient = problem.pair(problem.theta)
    changed = _changed(problem, value, gradient)
    noise = np.zeros(gradient.size) if changed else problem.rounding_of(value, gradient)
    if problem.dtype != np.float64:
        problem.widen()
    here = Around(problem, problem.theta, gradient, noise)
    if changed:
        return here, *changed
    if problem.method == "complex" and not here.analytic:
        raise ArchitectureError(
            "method 'complex' needs a function that takes complex points and is analytic "
            "there: no abs, max or real parts; use method 'auto' or 'central'"
        )
    if not math.isfinite(value):
        seen = Coordinate("the value", None, value, math.nan, method="repeat")
        return here, [seen], "the value is not finite at this point"
    broken = np.flatnonzero(~np.isfinite(gradient))
    if broken.size:
        wrong = [here.measure(int(index)) for index in broken[:20]]
        return here, wrong, "the gradient is not finite there"
    wrong = _without_kinks(here, here.wrong(budget))
    if wrong:
        return here, wrong, _cause(here, wrong, rows)
    return here, *(_wrong_nearby(here, budget) if elsewhere else ([], None))


def _changed(problem: Problem, value: float, gradient: Array) -> Answer | None:
    """Ask again, with another point between, and return what differs."""
    between = problem.nearby()  # a gradient that is kept shows
    again, other = problem.pair(problem.theta)
    allowed = 1e4 * max(float(np.finfo(problem.theta.dtype).eps), problem.resolution)
    if abs(again - value) > allowed * max(abs(again), abs(value)):
        seen = Coordinate("the value", None, again, value, method="repeat")
        return [seen], "the value changes from call to call; fix its random draws or its state"
    same = (other == gradient) | (np.isnan(other) & np.isnan(gradient))
    change = np.where(same, 0.0, np.nan_to_num(np.abs(other - gradient), nan=np.inf))
    if not np.any(change > allowed * _largest(gradient)):
        return None
    index = int(np.argmax(change))
    found = float(other[index]), float(gradient[index])
    seen = Coordinate(problem.label(index), index, *found, method="repeat")
    if between is not None and np.allclose(other, between[1], rtol=1e-6, atol=0.0):
        return [seen], "a stale buffer: the gradient of the point before comes back"
    return [seen], "a stale buffer, or random draws: the gradient changes from call to call"


def _without_kinks(here: Around, wrong: list[Coordinate]) -> list[Coordinate]:
    """Return what is wrong and not explained by kinks: what is wrong beside them too.

    Where several kinks meet, as of neurons that push opposite ways, a gradient that counts none
    of them need not lie between the one-sided slopes: moving other coordinates moves them away.
    """
    some = sorted(wrong, key=lambda c: -c.excess)[:20]
    if not some or not all(math.isfinite(c.distance) for c in some):
        return wrong
    if all(c.sides for c in some):
        right = all(c.index is not None and _right_near(here, [c], c.index) for c in some[:3])
    else:
        # values as noisy as float32 take steps so long that kinks lie on both sides
        coarse = here.noise > 1e-10 * abs(here.value)
        right = (coarse or all(c.unsure for c in wrong)) and _right_near(here, some)
    if not right:
        return wrong
    for c in wrong:
        if c.index is not None:
            ends = c.analytic, c.numeric, *(c.sides or ())
            here.measured[c.index] = replace(c, sides=(min(ends), max(ends)))
    return []


def _right_near(here: Around, wrong: list[Coordinate], still: int | None = None) -> bool:
    """Whether each is right at a point nearby where an error of its size would be found."""
    left = [c for c in wrong if c.index is not None] or wrong
    for distance in NEARBY * 2.0 ** np.arange(6):  # away from the kink
        if (there := here.moved(distance, still)) is None:
            continue
        for c in tuple(left):
            seen = there.probe(there.all if c.index is None else np.array([c.index]))
            if seen.passed and seen.tolerance < 2.0 * c.distance:
                left.remove(c)
    return not left


def _wrong_nearby(here: Around, budget: int) -> Answer:
    """Check the gradient at two other points: one computed once and kept is wrong at both."""
    wrong: list[Coordinate] = []
    cause = "a stale buffer: the same gradient comes back at a different point"
    for _ in range(2):
        if (there := here.moved()) is None:
            return [], None
        seen = [there.probe(there.all) for _ in range(2)]
        if any(c.passed or c.sides or not math.isfinite(c.numeric) for c in seen):
            return [], None
        wrong = there.wrong(here.problem.values + budget)
        if all(c.unsure for c in wrong):  # also where none is wrong by itself
            return [], None
        if not np.array_equal(there.gradient, here.gradient):
            cause = "right at the first point, but wrong at two points nearby"
    return wrong, cause


def _cause(here: Around, wrong: list[Coordinate], rows: int | None) -> str | None:
    """Return what the errors look like, where one factor explains them all."""
    if not wrong:
        return None
    worst = max(wrong, key=lambda c: c.excess)
    if not math.isfinite(worst.numeric):
        return "the value is not finite at any step from this point"
    if worst.sides is not None:
        return "a kink (of a ReLU, say) at this point, and the gradient is not between its slopes"
    if worst.index is None:
        return "an error too small, or too widely spread, to be seen in one coordinate"
    tiny = 32.0 * float(np.finfo(np.float32).eps) * _largest(here.gradient)
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
    if rows and rows > 2:
        names |= dict.fromkeys((1.0 / rows, rows), "a missing factor of the batch size")
    near = [words for v, words in names.items() if abs(factor - v) <= 1e-3 * abs(v)]
    return f"{[*near, f'a factor {factor:.6g}'][0]} {where}"


def _report(name: str, here: Around, wrong: list[Coordinate], cause: str | None) -> GradientReport:
    problem, measured = here.problem, list(here.measured.values())
    wrong = sorted(wrong, key=lambda c: -min(c.excess, 1e300))
    size, resolution, covered = np.abs(here.gradient), math.inf, 0.0
    relative = (here.threshold / size)[size > here.small]
    if relative.size:
        resolution, covered = float(np.median(relative)), float(np.mean(relative <= FOUND))
    return GradientReport(
        name=name,
        passed=not wrong,
        worst=wrong[0] if wrong else max(measured, key=lambda c: c.excess),
        failures=tuple(wrong[:20]),
        cause=cause,
        method="complex" if here.analytic else "central",
        size=size.size,
        checked=len(measured),
        directions=problem.directions,
        values=problem.values,
        gradients=problem.gradients,
        noise=here.noise,
        resolution=resolution,
        covered=covered,
        kinks=sum(c.sides is not None and c.passed for c in measured),
        notes=(*problem.notes, *([INCONCLUSIVE] if not wrong and resolution > 0.1 else [])),
    )


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
    options: Any = {"method": method, "rtol": rtol, "atol": atol, "seed": seed}
    problem = Problem(function, gradient, point, scale, blocks, **options)
    called = name or str(getattr(function, "__name__", type(function).__name__))
    with quiet():
        report = _report(called, *_answer(problem, max_evaluations, rows, elsewhere))
    if raises and not report.passed:
        raise VerificationError(report.summary, report)
    return report
