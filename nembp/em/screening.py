"""What models with hidden states share: sums over states, and noise screened by the NEM condition.

The complete-data gain of noise n on target t in hidden state s is

    gain(n; s) = log p(t + n, s | Θ) − log p(t, s | Θ),

and the noisy-EM theorem asks that its expectation over noise and hidden states is not negative
(Osoba, Mitaim and Kosko, Fluctuation and Noise Letters 12(3), 2013, theorem 1). Two tests of a
single draw are sufficient for that:

- ``every``: gain(n; s) ≥ 0 in every hidden state, so whatever the posterior. For a mixture it is
  the published condition, component by component.
- ``posterior``: Σ_s p(s | t, Θ) gain(n; s) ≥ 0, the expectation itself, draw by draw. It is
  weaker, so it keeps more noise, but it holds only for the posterior it was computed with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nembp.engine.noise import DRIFT_DRAWS, Noise
from nembp.errors import ArchitectureError, ShapeError

Matrix = NDArray[np.float64]
Gains = Callable[[Matrix], Matrix]
Condition = Literal["every", "posterior"]
Support = Literal["continuous", "lattice"]

# Three points and their probabilities with the first five moments of N(0, 1) (Gauss-Hermite):
# noise whose expectations are finite sums.
LATTICE = (np.array([-math.sqrt(3.0), 0.0, math.sqrt(3.0)]), np.array([1.0, 4.0, 1.0]) / 6.0)


def check_rows(name: str, value: Any, width: int) -> Matrix:
    """Return ``value`` as finite float64 rows, or raise :class:`ShapeError`."""
    rows: Matrix = np.asarray(value, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise ShapeError(f"{name} must have shape (rows ≥ 1, {width}), got {rows.shape}")
    if not np.isfinite(rows).all():
        raise ShapeError(f"{name} must be finite; remove its NaN and infinite entries")
    return rows


def draw(
    noise: Noise, std: float, t: Matrix, gains: Gains, posterior: Matrix,
    generator: np.random.Generator | None, *, condition: Condition = "every",
    support: Support = "continuous",
) -> Matrix:  # fmt: skip
    """Draw noise for targets ``t`` (rows, width) and screen it as ``noise.kind`` asks.

    ``std`` is in units of the target; annealing is the caller's. ``gains`` maps noise to its gain
    (rows, states, groups) in nats, where one group screens whole rows and ``width`` groups single
    coordinates; ``posterior`` is p(s | t, Θ), shape (rows, states). The support is ``noise.law``,
    or the three-point law :data:`LATTICE` of the same standard deviation. The result is what is
    added to t; ``drift`` is the mean of ``DRIFT_DRAWS`` screened draws.
    """
    total = np.zeros_like(t)
    if noise.kind == "none":
        return total
    if generator is None:
        raise ArchitectureError("noise needs a generator, such as nembp.backend.stream(seed, name)")
    _check_options(noise, condition, support)
    repeats = DRIFT_DRAWS if noise.kind == "drift" else 1
    for _ in range(repeats):
        if support == "lattice":
            n = generator.choice(LATTICE[0], size=t.shape, p=LATTICE[1])
        elif noise.law == "uniform":
            n = generator.uniform(-math.sqrt(3.0), math.sqrt(3.0), size=t.shape)
        else:
            n = generator.standard_normal(t.shape)
        n *= std
        if noise.mode == "multiplicative":  # t (1 + n) = t + t n
            n *= t
        total += screen(noise, n, gains, posterior, condition)
    return total / repeats


def screen(
    noise: Noise, n: Matrix, gains: Gains, posterior: Matrix, condition: Condition = "every"
) -> Matrix:
    """Return ``n`` (rows, width) where it passes; −n if that may be tried and passes; 0 elsewhere.

    NEM noise passes with gain ≥ 0, anti-NEM noise with gain ≤ 0, blind noise always.
    """
    if noise.kind == "blind":
        return n
    keep = _passes(noise, gains(n), posterior, condition)
    if noise.rejected == "reflect":
        n = np.where(keep, n, -n)
        keep = _passes(noise, gains(n), posterior, condition)
    return np.where(keep, n, 0.0)


def _passes(noise: Noise, gain: Matrix, posterior: Matrix, condition: Condition) -> Any:
    """Return which groups of each row pass, shape (rows, groups)."""
    score = -gain if noise.kind == "anti" else gain
    if condition == "every":
        return np.all(score >= 0.0, axis=1)
    return np.einsum("ns,nsg->ng", posterior, score) >= 0.0


def _check_options(noise: Noise, condition: Condition, support: Support) -> None:
    for value, options in ((condition, Condition), (support, Support)):
        if value not in get_args(options):
            expected = " or ".join(get_args(options))
            raise ArchitectureError(f"a condition or support must be {expected}, got {value!r}")
    for name, bad, remedy in (
        ("update", noise.update != "exact", 'EM climbs Q itself: use update="exact"'),
        ("law", noise.law == "curvature", "it is of one output, not many: use gaussian or uniform"),
        ("draws", noise.draws > 1, "the laws of EM here are of single draws: use draws=1"),
        ("screening", noise.screening == "expectation", "it is over a batch, and EM takes its "
         'expectation over the hidden states: use condition="posterior"'),
    ):  # fmt: skip
        if bad:
            raise ArchitectureError(f"noise {name} {getattr(noise, name)!r} does not fit: {remedy}")
