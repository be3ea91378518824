"""A guess at the cause of a wrong gradient, from the pattern of its errors.

Each guess compares the gradient, changed as the mistake would have changed it back, with what was
measured. Only guesses that explain every wrong coordinate of a scope are made: the whole point, a
block of it, or one coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nembp.verification.layout import Layout, Vector
from nembp.verification.rearrangements import CLOSE, rearrangement

__all__ = ["Evidence", "guess"]

MARKED = 1e-2  # of the largest measured slope: smaller ones do not tell a ratio


@dataclass(frozen=True)
class Evidence:
    """What is known about a wrong gradient.

    Attributes
    ----------
    layout : Layout
        Names and shapes.
    theta, analytic : array, shape (size,)
        The point, and the gradient claimed there.
    numeric : array, shape (size,)
        What was measured; NaN elsewhere.
    wrong : array of bool, shape (size,)
        Measured coordinates that fail.
    worst : int
        The most wrong one.
    rows : int or None
        Batch size, if the user told it.
    elsewhere : array or None
        The gradient claimed at a point nearby.
    wide : array or None
        The gradient claimed in float64, of a float32 one.
    sides : tuple of float or None
        One-sided slopes at the worst coordinate, at a kink.
    vanishes : bool
        Whether the worst coordinate is right at a point nearby.
    """

    layout: Layout
    theta: Vector
    analytic: Vector
    numeric: Vector
    wrong: Vector
    worst: int
    rows: int | None = None
    elsewhere: Vector | None = None
    wide: Vector | None = None
    sides: tuple[float, float] | None = None
    vanishes: bool = False
    curved: bool = False


def guess(evidence: Evidence) -> str | None:
    """Return what the pattern of errors looks like, or None."""
    e = evidence
    if not math.isfinite(e.analytic[e.worst]):
        return "the gradient is not finite there"
    if not math.isfinite(e.numeric[e.worst]):
        return "the value is not finite at any step from this point"
    for pattern in (_kink, _elsewhere, _rounding, _zero, _ratio, _reordered, _decay, _where):
        cause = pattern(e)
        if cause:
            return cause
    return None


# -- scopes ------------------------------------------------------------------------------------
def _scopes(e: Evidence) -> Iterator[tuple[str, Vector]]:
    """Yield scopes whose measured coordinates hold every wrong one: the point, then a block."""
    measured = np.isfinite(e.numeric)
    yield "every coordinate measured", measured
    for block in e.layout.blocks:
        inside = np.zeros_like(measured)
        inside[block.piece] = True
        if len(e.layout.blocks) > 1 and inside[e.worst]:
            yield f"every coordinate measured of {block.name}", measured & inside
    wrong = np.flatnonzero(e.wrong)
    if wrong.size > 1:
        first, last = e.layout.label(int(wrong[0])), e.layout.label(int(wrong[-1]))
        run = np.zeros_like(measured)
        run[wrong[0] : wrong[-1] + 1] = True
        yield f"every coordinate measured from {first} to {last}", measured & run
        yield f"the {wrong.size} wrong coordinates, {first} among them,", e.wrong
    if wrong.size == 1:
        yield f"{e.layout.label(e.worst)} alone", e.wrong


def _agrees(candidate: Vector, e: Evidence, scope: Vector) -> bool:
    """Whether a changed gradient is what was measured throughout a scope."""
    expected = e.numeric[scope]
    size = float(np.max(np.abs(expected), initial=0.0))
    return bool(np.all(np.abs(candidate[scope] - expected) <= CLOSE * size))


# -- patterns ------------------------------------------------------------------------------------
def _kink(e: Evidence) -> str | None:
    if e.sides is not None:
        left, right = e.sides
        return (
            f"a kink (of a ReLU, say) at this point: the slope is {left:.4g} to the left and "
            f"{right:.4g} to the right, and the gradient is not between them"
        )
    if e.vanishes:
        return (
            "at a point nearby this coordinate is right: a kink (of a ReLU, say) within "
            "reach of the differences, or a special case of the code at this very point"
        )
    return None


def _elsewhere(e: Evidence) -> str | None:
    if e.elsewhere is None or not e.curved or not np.any(e.analytic):
        return None
    if np.array_equal(e.elsewhere, e.analytic):
        return "a stale buffer: the same gradient comes back at a different point"
    return None


def _rounding(e: Evidence) -> str | None:
    size = max(abs(e.numeric[e.worst]), 1e-300)
    if e.wide is not None and abs(e.wide[e.worst] - e.numeric[e.worst]) <= 0.1 * CLOSE * size:
        return "float32 rounding: computed in float64 the gradient is right"
    error = np.abs(e.analytic - e.numeric)[e.wrong]
    largest = float(np.max(np.abs(e.analytic)))
    if np.all(error <= 32.0 * np.finfo(np.float32).eps * largest) and error.size > 1:
        return "float32 rounding: the errors are as small as those of float32 arithmetic"
    return None


def _zero(e: Evidence) -> str | None:
    for scope, inside in _scopes(e):
        relevant = inside & e.wrong
        if np.any(relevant) and not np.any(e.analytic[inside]):
            return f"the gradient is zero where it should not be, in {scope}: never written?"
    return None


def _ratio(e: Evidence) -> str | None:
    """Sign, batch size, 2, ½, or any other constant factor."""
    for scope, inside in _scopes(e):
        expected, claimed = e.numeric[inside], e.analytic[inside]
        marked = np.abs(expected) > MARKED * np.max(np.abs(expected), initial=0.0)
        if not np.any(marked):
            continue
        ratio = float(np.median(claimed[marked] / expected[marked]))
        single = np.count_nonzero(inside) == 1
        if abs(ratio - 1.0) <= (0.02 if not single else 0.1) or ratio == 0.0:
            continue
        if _agrees(e.analytic / ratio, e, inside):
            name = _name_ratio(ratio, e.rows, single)
            if name or not single:
                named = name or f"a factor {ratio:.4g}"
                return f"{named}: so in {scope}"
    return None


def _name_ratio(ratio: float, rows: int | None, single: bool) -> str | None:
    def is_near(value: float) -> bool:
        return abs(ratio - value) <= 2.0 * CLOSE * abs(value)

    sign = "the sign, and " if ratio < 0 else ""
    if is_near(-1.0):
        return "the sign is wrong"
    if rows is not None and rows > 1 and (is_near(rows) or is_near(-rows)):
        also = " (or a term counted twice)" if rows == 2 else ""
        return f"{sign}a missing factor of the batch size: {rows} times too large{also}"
    if rows is not None and rows > 1 and (is_near(1.0 / rows) or is_near(-1.0 / rows)):
        also = " (or a factor ½)" if rows == 2 else ""
        return f"{sign}a missing factor of the batch size: {rows} times too small{also}"
    ratio = abs(ratio)
    if is_near(2.0) or is_near(-2.0):
        return f"{sign}a factor 2: a term counted twice, or a missing ½"
    if is_near(0.5) or is_near(-0.5):
        return f"{sign}a factor ½: a shared term counted once, or a square's missing 2"
    whole = round(ratio) if ratio > 1.0 else round(1.0 / ratio)
    if not single and whole > 2 and (is_near(whole) or is_near(1.0 / whole)):
        size = "large" if ratio > 1.0 else "small"
        return f"{sign}a factor: {whole} times too {size} (a batch size or a length?)"
    return None


def _reordered(e: Evidence) -> str | None:
    return rearrangement(e.layout, e.analytic, e.numeric, e.wrong)


def _decay(e: Evidence) -> str | None:
    """Find a difference of λ θ: a penalty in only one of value and gradient."""
    if np.count_nonzero(e.wrong) < 3:
        return None
    theta, rest = e.theta[e.wrong], (e.analytic - e.numeric)[e.wrong]
    size = float(theta @ theta)
    if size == 0.0 or np.ptp(theta) == 0.0:
        return None
    decay = float(theta @ rest) / size
    if np.all(np.abs(rest - decay * theta) <= CLOSE * np.max(np.abs(rest))):
        side = "gradient but not in the value" if decay > 0 else "value but not in the gradient"
        return f"the difference is {abs(decay):.4g} · θ: a weight decay in the {side}"
    return None


def _where(e: Evidence) -> str | None:
    """No cause, but where to look: one coordinate, or one block."""
    wrong, measured = np.flatnonzero(e.wrong), np.isfinite(e.numeric)
    count = np.count_nonzero(measured)
    if wrong.size == 1 and count > 2:
        ratio = e.analytic[e.worst] / e.numeric[e.worst] if e.numeric[e.worst] else math.inf
        return f"this coordinate alone of the {count} measured, by the factor {ratio:.6g}"
    block = e.layout.block_of(e.worst)
    if (
        len(e.layout.blocks) > 1
        and wrong.size
        and all(e.layout.block_of(int(index)) is block for index in wrong)
    ):
        inside = np.count_nonzero(measured[block.piece])
        return f"in {block.name} alone: {wrong.size} of its {inside} coordinates measured"
    return None
