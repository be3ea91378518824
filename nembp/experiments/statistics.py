"""Statistics of paired differences: intervals, exact tests, and correction for many of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nembp.datasets.splitting import random_bits

__all__ = ["Estimate", "bca_interval", "estimate", "holm", "sign_flip_test"]

RESAMPLES = 9999
EXACT = 14  # differences up to which all 2ⁿ signs are tried


@dataclass(frozen=True)
class Estimate:
    """A mean paired difference.

    Attributes
    ----------
    mean, low, high : float
        With its bootstrap interval; NaN where there is no pair.
    p : float
        Two-sided, of the sign-flip test, not corrected.
    wins, n : int
        Differences above 0, and all there are.
    diverged, baseline_diverged : int
        Pairs without a difference, since the arm diverged, or its baseline alone.
    """

    mean: float
    low: float
    high: float
    p: float = 1.0
    wins: int = 0
    n: int = 0
    diverged: int = 0
    baseline_diverged: int = 0


def estimate(
    differences: ArrayLike, *, confidence: float = 0.95, diverged: int = 0, without: int = 0
) -> Estimate:
    """Return mean, interval, test and wins of paired differences.

    ``diverged`` and ``without`` are the pairs that have none, for the arm's or the baseline's sake.

    >>> estimate([1.0, 2.0, 3.0, 4.0]).wins
    4
    """
    d = np.asarray(differences, dtype=np.float64)
    low, high = bca_interval(d, confidence)
    return Estimate(
        mean=float(np.mean(d)) if len(d) else math.nan,
        low=low,
        high=high,
        p=sign_flip_test(d),
        wins=int(np.sum(d > 0)),
        n=len(d),
        diverged=diverged,
        baseline_diverged=without,
    )


def bca_interval(d: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Return the bias-corrected and accelerated bootstrap interval of the mean (BCa).

    With B resampled means m*, z₀ = Φ⁻¹(#{m* < mean} / B) (ties count half), a = Σ u³ / 6 (Σ u²)^1.5
    of the jackknife's u, and z = Φ⁻¹((1 ∓ confidence) / 2), the ends are the quantiles
    Φ(z₀ + (z₀ + z) / (1 − a (z₀ + z))) of m* (Efron, JASA 82:171-185, 1987).

    Parameters
    ----------
    d : ndarray, shape (n,)
        At n = 10 the interval of normal data misses the mean in about 9 % of all cases, not 5 %:
        a verdict asks for the exact test too.
    confidence : float
        Nominal.

    Returns
    -------
    low, high : float
        The same in every call with the same values; −∞ and ∞ for a single one, NaN for none.
    """
    from scipy.special import ndtr, ndtri

    n = len(d)
    if n < 2:
        return (math.nan, math.nan) if n == 0 else (-math.inf, math.inf)
    mean = float(np.mean(d))
    if np.ptp(d) == 0:
        return mean, mean
    rng = np.random.Generator(random_bits(0, "experiments/bootstrap"))
    means = np.sort(np.mean(d[rng.integers(n, size=(RESAMPLES, n))], axis=1))
    below = (np.searchsorted(means, mean) + np.searchsorted(means, mean, side="right")) / 2
    z0 = ndtri(np.clip(below / RESAMPLES, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    u = d - mean  # proportional to the jackknife's deviations
    a = np.sum(u**3) / (6 * np.sum(u**2) ** 1.5)
    z = z0 + ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    low, high = np.quantile(means, ndtr(z0 + z / (1 - a * z)))
    return float(low), float(high)


def sign_flip_test(d: NDArray[np.float64]) -> float:
    """Return the two-sided p of mean 0 under flips of the signs of differences.

    Exact if each difference is as likely as its negative: the share of the 2ⁿ sign patterns whose
    |Σ ± d| is at least |Σ d|; above 14 differences a seeded sample of 99,999 patterns, counting
    the observed one. The least possible p is 2¹⁻ⁿ.

    >>> sign_flip_test(np.array([1.0, 2.0, 3.0]))
    0.25
    """
    n = len(d)
    if n == 0 or not np.any(d):
        return 1.0
    observed = abs(float(np.sum(d)))
    if n <= EXACT:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        sums = np.abs((1.0 - 2.0 * bits) @ d)
        return float(np.mean(sums >= observed * (1 - 1e-12)))
    rng = np.random.Generator(random_bits(0, "experiments/signs"))
    signs = 1.0 - 2.0 * rng.integers(2, size=(99_999, n))
    return float((1 + np.sum(np.abs(signs @ d) >= observed * (1 - 1e-12))) / 100_000)


def holm(p: ArrayLike) -> NDArray[Any]:
    """Return Holm's step-down corrected p-values, in the order given.

    p₍ᵢ₎ becomes max_{j ≤ i} min(1, (m − j + 1) p₍ⱼ₎) (Holm, Scand. J. Statist. 6:65-70, 1979).

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return corrected
