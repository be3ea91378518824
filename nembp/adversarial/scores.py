"""Scores of generated samples, from a classifier's probabilities and features of them.

========================= ============================================== ===========================
score                     formula                                        range
========================= ============================================== ===========================
inception score           exp E KL(p(y|x) ‖ p(y))                        1 to K; more is better
Fréchet distance          ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)         ≥ 0; less is better
========================= ============================================== ===========================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nembp.errors import ArchitectureError, ShapeError

__all__ = ["average_scores", "frechet_distance", "inception_score", "moments"]

Floats: TypeAlias = NDArray[np.float64]


def inception_score(probabilities: ArrayLike) -> float:
    """Inception score exp E KL(p(y|x) ‖ p(y)), with p(y) = E p(y|x) (Salimans et al. 2016).

    Parameters
    ----------
    probabilities : array, shape (n, K)
        p(y|x) of each sample; rows that sum to 1.

    Returns
    -------
    float
        From 1 (every sample classified alike, or none with confidence) to K (each with certainty,
        all classes equally often). It has no unit. Of n samples in one piece: the mean over ten
        pieces, which others report, is a little lower.

    Raises
    ------
    ShapeError
        If the rows are no probabilities.

    >>> round(inception_score(np.eye(10)), 6), inception_score(np.full((5, 10), 0.1))
    (10.0, 1.0)
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or not p.size or p.min() < 0 or np.abs(p.sum(axis=1) - 1).max() > 1e-3:
        raise ShapeError(
            f"an array of shape {p.shape} is not one of probabilities; expected rows ≥ 0 that sum "
            "to 1"
        )
    p = p / p.sum(axis=1, keepdims=True)
    # KL = H(mean p) − mean H(p): both terms are sums of p log p, which is 0 at 0
    divergence = _negative_entropy(p).mean() - _negative_entropy(p.mean(axis=0))
    return float(np.exp(max(0.0, divergence)))


def _negative_entropy(p: Floats) -> Floats:
    logs = np.zeros_like(p)
    np.log(p, out=logs, where=p > 0)
    return np.asarray((p * logs).sum(axis=-1))


def moments(features: ArrayLike) -> tuple[Floats, Floats]:
    """Mean and unbiased covariance of features of shape (n, d), in float64.

    Raises
    ------
    ShapeError
        If there are fewer than two rows.
    """
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ShapeError(f"features of shape {x.shape}; expected (n, d) with n at least 2")
    mean = x.mean(axis=0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def frechet_distance(mean1: Floats, cov1: Floats, mean2: Floats, cov2: Floats) -> float:
    """Fréchet distance of two Gaussians: ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½).

    That is the squared 2-Wasserstein distance (Dowson and Landau 1982; as a score of generators,
    Heusel et al. 2017). With Σᵢ = RᵢRᵢᵀ from symmetric eigen-decompositions, tr (Σ₁Σ₂)^½ is the sum
    of the singular values of R₁ᵀR₂: no square root of a matrix that is not symmetric, and nothing
    becomes complex or fails where a covariance is singular.

    Parameters
    ----------
    mean1, mean2 : ndarray of float64, shape (d,)
    cov1, cov2 : ndarray of float64, shape (d, d)
        Symmetric, no eigenvalue below 0 but for rounding.

    Returns
    -------
    float
        In squared units of the features. Means and covariances of few samples raise it: compare
        scores of equal numbers of samples.

    Raises
    ------
    ShapeError
        If shapes disagree.

    >>> frechet_distance(np.zeros(2), np.eye(2), np.array([3.0, 4.0]), 4 * np.eye(2))
    27.0
    """
    d = len(mean1)
    if mean2.shape != mean1.shape or not cov1.shape == cov2.shape == (d, d):
        raise ShapeError(
            f"means of shape {mean1.shape} and {mean2.shape}, covariances {cov1.shape} and "
            f"{cov2.shape}; expected (d,) twice and (d, d) twice"
        )
    overlap = np.linalg.svd(_root(cov1).T @ _root(cov2), compute_uv=False).sum()
    spread = np.trace(cov1) + np.trace(cov2) - 2.0 * overlap
    return max(0.0, float(np.square(mean1 - mean2).sum() + spread))


def _root(cov: Floats) -> Floats:
    """Return R with R Rᵀ = cov."""
    values, vectors = np.linalg.eigh((cov + cov.T) / 2)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def average_scores(rows: Sequence[Mapping[str, float]], last: int = 5) -> dict[str, float]:
    """Mean of each score over the last rows that hold it: one checkpoint says little of a GAN.

    Parameters
    ----------
    rows : sequence of mapping
        Scores in the order in which they were taken.
    last : int
        How many count; fewer where there are fewer.

    Raises
    ------
    ArchitectureError
        If `last` is below 1.

    >>> average_scores([{"modes": 1}, {"modes": 7, "kl": 0.5}, {}, {"modes": 8}], last=2)
    {'modes': 7.5, 'kl': 0.5}
    """
    if last < 1:
        raise ArchitectureError(f"an average over the last {last} checkpoints; expected at least 1")
    held: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            held.setdefault(key, []).append(float(value))
    return {key: float(np.mean(values[-last:])) for key, values in held.items()}
