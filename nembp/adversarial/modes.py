"""Mode collapse in numbers: which modes of a known mixture samples reach, and how evenly.

A sample counts for the mode whose centre is nearest, and only within three standard deviations of
it, as in Srivastava et al. 2017 (VEEGAN), section 4.1, and in the code of Lin et al. 2018 (PacGAN).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nembp.errors import ArchitectureError, DivergenceError, ShapeError

__all__ = ["Modes", "check_samples", "coverage", "kl_from_uniform"]

REACH = 3.0  # standard deviations
STRICT = 0.25  # of a uniform share
BLOCK = 1 << 20  # distances held at a time


def check_samples(samples: ArrayLike, features: int) -> NDArray[Any]:
    """Return samples as floats of shape (n, features).

    Raises
    ------
    ShapeError
        If they have another shape, or there are none.
    DivergenceError
        If one is NaN or infinite: a generator that diverged.
    """
    values = np.asarray(samples)
    if values.ndim != 2 or values.shape[1] != features or not len(values):
        raise ShapeError(
            f"samples of shape {values.shape}; expected (n, {features}) with n at least 1"
        )
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).any(axis=1).sum())
        raise DivergenceError(
            f"{bad} of {len(values)} generated samples are not finite: training diverged. Lower "
            "the learning rates"
        )
    return values


def kl_from_uniform(counts: ArrayLike) -> float:
    """KL divergence of a histogram from the uniform one: Σ p log(p K), p = counts / Σ counts.

    Parameters
    ----------
    counts : array, shape (K,)
        At least 0.

    Returns
    -------
    float
        Nats, from 0 (all alike) to log K (all in one); log K also where there is nothing to count.
        n samples of the uniform distribution itself give about (K − 1) / 2n.

    >>> kl_from_uniform([5, 5, 0, 0]) == float(np.log(2))
    True
    """
    n = np.asarray(counts, np.float64)
    if not n.any():
        return math.log(len(n))
    p = n[n > 0] / n.sum()
    return max(0.0, float(p @ np.log(p * len(n))))  # rounding must not make it negative


def coverage(counts: ArrayLike, samples: int) -> tuple[int, int]:
    """Count the modes or classes covered, by a lenient and a strict count.

    Parameters
    ----------
    counts : array of int, shape (K,)
        Samples that count for each.
    samples : int
        How many were drawn in all, n.

    Returns
    -------
    lenient, strict : int
        How many have a sample; how many have a quarter of a uniform share, n / 4K, or more.

    >>> coverage([97, 2, 1, 0], 100), coverage([70, 20, 7, 3], 100)
    ((3, 1), (4, 3))
    """
    n = np.asarray(counts)
    enough = np.maximum(1.0, STRICT * samples / len(n))
    return int(np.count_nonzero(n)), int(np.count_nonzero(n >= enough))


@dataclass(frozen=True, eq=False)
class Modes:
    """Modes of a mixture of Gaussians of equal weight and width, in any number of dimensions.

    Parameters
    ----------
    centres : ndarray, shape (K, features)
        Means of the Gaussians.
    std : float
        Their standard deviation σ in each direction.

    Examples
    --------
    >>> two = Modes(np.array([[0.0, 0.0], [1.0, 0.0]]), std=0.1)
    >>> scores = two.score(np.array([[0.0, 0.1], [0.1, 0.0], [0.5, 0.5], [0.0, 0.0]]))
    >>> scores["modes"], scores["high_quality"]
    (1.0, 0.75)
    """

    centres: NDArray[np.float64]
    std: float

    def __post_init__(self) -> None:
        centres = np.asarray(self.centres, np.float64)
        if centres.ndim != 2 or not centres.size or not np.isfinite(centres).all():
            raise ArchitectureError(
                f"centres of shape {centres.shape}; expected finite ones of shape (K, features)"
            )
        if not 0.0 < self.std < math.inf:
            raise ArchitectureError(f"std={self.std}: expected a positive number")
        object.__setattr__(self, "centres", centres)

    def __len__(self) -> int:
        return len(self.centres)

    def nearest(self, samples: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return each sample's nearest mode and its distance from that centre, shape (n,) each."""
        x = check_samples(samples, self.centres.shape[1])
        mode, distance = np.empty(len(x), np.intp), np.empty(len(x))
        step = max(1, BLOCK // self.centres.size)
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            apart = x[part, np.newaxis].astype(np.float64) - self.centres
            square = np.einsum("nkd,nkd->nk", apart, apart)
            mode[part] = square.argmin(axis=1)
            distance[part] = np.sqrt(square.min(axis=1))
        return mode, distance

    def counts(self, samples: ArrayLike) -> NDArray[np.int64]:
        """Return how many samples lie within 3σ of each mode and nearest to it, shape (K,)."""
        mode, distance = self.nearest(samples)
        return np.bincount(mode[distance <= REACH * self.std], minlength=len(self))

    def score(self, samples: ArrayLike) -> dict[str, float]:
        """Score samples of shape (n, features), in the units of the centres.

        Returns
        -------
        dict
            ``modes``: modes with a sample within 3σ. ``modes_strict``: modes with at least n / 4K
            of them, a quarter of a uniform share. ``high_quality``: share of samples within 3σ of
            a mode; the mixture itself has 1 − exp(−9/2) = 0.989 in two dimensions. ``kl``: nats
            of the histogram of those samples from the uniform one; log K where there are none.

        Raises
        ------
        DivergenceError, ShapeError
            If samples are not finite, or do not fit the centres.
        """
        counts = self.counts(samples)
        n = len(np.asarray(samples))
        modes, strict = coverage(counts, n)
        return {
            "modes": float(modes),
            "modes_strict": float(strict),
            "high_quality": float(counts.sum() / n),
            "kl": kl_from_uniform(counts),
        }
