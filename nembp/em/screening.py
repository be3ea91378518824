"""Noise for a model with hidden states: drawn, then screened by the NEM condition.

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
from nembp.errors import ArchitectureError

__all__ = ["LATTICE", "Condition", "Gains", "Matrix", "Support", "check_options", "draw", "screen"]

Matrix = NDArray[np.float64]
Gains = Callable[[Matrix], Matrix]
Condition = Literal["every", "posterior"]
Support = Literal["continuous", "lattice"]

# Three points and their probabilities with the first five moments of N(0, 1) (Gauss-Hermite):
# noise whose expectations are finite sums.
LATTICE = (np.array([-math.sqrt(3.0), 0.0, math.sqrt(3.0)]), np.array([1.0, 4.0, 1.0]) / 6.0)


def draw(
    noise: Noise,
    std: float,
    t: Matrix,
    gains: Gains,
    posterior: Matrix,
    generator: np.random.Generator,
    *,
    condition: Condition = "every",
    support: Support = "continuous",
) -> Matrix:
    """Draw noise for targets ``t`` and screen it as ``noise.kind`` asks.

    Parameters
    ----------
    noise : Noise
        Kind, law, mode and what becomes of rejected draws; its annealing is the caller's, who
        passes ``std``.
    std : float
        Standard deviation of the draws, in units of the target.
    t : array, shape (rows, width), float64
        Targets.
    gains : callable
        Maps noise (rows, width) to gain (rows, states, groups) in nats; one group screens whole
        rows, ``width`` groups screen single coordinates.
    posterior : array, shape (rows, states)
        p(s | t, Θ).
    generator : numpy.random.Generator
    condition : {"every", "posterior"}
    support : {"continuous", "lattice"}
        ``noise.law``, or the three-point law :data:`LATTICE` of the same standard deviation.

    Returns
    -------
    array, shape (rows, width)
        The effective additive noise. ``drift`` is the mean of ``DRIFT_DRAWS`` screened draws.

    Raises
    ------
    ArchitectureError
        If ``condition``, ``support`` or ``noise.update`` does not apply here.
    """
    check_options(noise, condition, support)
    if noise.kind == "none":
        return np.zeros_like(t)
    total = np.zeros_like(t)
    repeats = DRIFT_DRAWS if noise.kind == "drift" else 1
    for _ in range(repeats):
        n = std * _standard_draw(noise, support, t.shape, generator)
        if noise.mode == "multiplicative":  # t (1 + n) = t + t n
            n = t * n
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


def check_options(noise: Noise, condition: Condition, support: Support) -> None:
    """Raise for options of noise that mean nothing here."""
    for name, value, allowed in (
        ("condition", condition, get_args(Condition)),
        ("support", support, get_args(Support)),
    ):
        if value not in allowed:
            raise ArchitectureError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    if noise.update != "exact":
        raise ArchitectureError(
            f"noise update {noise.update!r} changes the gradient of softmax targets, but EM climbs "
            'Q itself: use update="exact"'
        )
    if noise.law == "curvature":
        raise ArchitectureError(
            "noise law 'curvature' follows one output, and EM has one in each hidden state: use "
            "law gaussian or uniform"
        )
    if noise.draws > 1:
        raise ArchitectureError(
            f"noise draws {noise.draws}, of which the best is taken, are for training; the laws of "
            "EM here are of single draws: use draws=1"
        )
    if noise.screening == "expectation":
        raise ArchitectureError(
            "noise screening 'expectation' is over a batch; EM takes its expectation over the "
            'hidden states: use condition="posterior"'
        )


def _passes(noise: Noise, gain: Matrix, posterior: Matrix, condition: Condition) -> Any:
    """Return which groups of each row pass, shape (rows, groups)."""
    score = -gain if noise.kind == "anti" else gain
    if condition == "every":
        return np.all(score >= 0.0, axis=1)
    return np.einsum("ns,nsg->ng", posterior, score) >= 0.0


def _standard_draw(
    noise: Noise, support: Support, shape: tuple[int, ...], generator: np.random.Generator
) -> Matrix:
    """Draw with mean 0 and standard deviation 1."""
    if support == "lattice":
        points, probabilities = LATTICE
        return generator.choice(points, size=shape, p=probabilities)
    if noise.law == "uniform":
        return generator.uniform(-math.sqrt(3.0), math.sqrt(3.0), size=shape)
    return generator.standard_normal(shape)
