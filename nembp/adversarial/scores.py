"""Scores of generated samples: modes of a known mixture, and scores by a classifier's outputs.

========================= ============================================== ===========================
score                     formula                                        range
========================= ============================================== ===========================
inception score           exp E KL(p(y|x) ‖ p(y))                        1 to K; more is better
Fréchet distance          ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)         ≥ 0; less is better
precision, recall         shares within the other set's manifold         0 to 1; more is better
========================= ============================================== ===========================

Modes and high quality are those of Srivastava et al. 2017 (VEEGAN), section 4.1, and of the code of
Lin et al. 2018 (PacGAN): a sample counts for the mode whose centre is nearest, and only within
three standard deviations of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nembp.errors import ArchitectureError, DivergenceError, ShapeError

Floats: TypeAlias = NDArray[np.float64]

REACH = 3.0  # standard deviations within which a sample counts for a mode
STRICT = 0.25  # of a uniform share
NEIGHBOURS = 3  # k of precision and recall, as in the publication
BLOCK = 1 << 21  # distances held at a time: 16 MiB
SLACK = 1e-12  # of the largest square: rounding of a product may not put a point out of its ball


def check_samples(samples: ArrayLike, features: int) -> NDArray[Any]:
    """Return samples as finite floats of shape (n, features); others are of no use to a score."""
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


# -- modes and classes -----------------------------------------------------------------------------
def kl_from_uniform(counts: ArrayLike) -> float:
    """KL divergence of a histogram from the uniform one in nats, Σ p log(p K).

    With p = counts / Σ counts: from 0 (all alike) to log K (all in one); log K also where there is
    nothing to count. n samples of the uniform distribution itself give about (K − 1) / 2n.

    >>> kl_from_uniform([5, 5, 0, 0]) == float(np.log(2))
    True
    """
    n = np.asarray(counts, np.float64)
    if not n.any():
        return math.log(len(n))
    p = n[n > 0] / n.sum()
    return max(0.0, float(p @ np.log(p * len(n))))  # rounding must not make it negative


def coverage(counts: ArrayLike, samples: int) -> tuple[int, int]:
    """Count the K modes that have a sample, and those that have n / 4K, a quarter of a fair share.

    ``samples`` is n, how many were drawn in all.

    >>> coverage([97, 2, 1, 0], 100), coverage([70, 20, 7, 3], 100)
    ((3, 1), (4, 3))
    """
    n = np.asarray(counts)
    enough = np.maximum(1.0, STRICT * samples / len(n))
    return int(np.count_nonzero(n)), int(np.count_nonzero(n >= enough))


@dataclass(frozen=True, eq=False)
class Modes:
    """Modes of a mixture of Gaussians of equal weight and width, in any number of dimensions.

    ``centres`` (K, features) are their means, ``std`` their standard deviation σ in each direction.

    >>> two = Modes(np.array([[0.0, 0.0], [1.0, 0.0]]), std=0.1)
    >>> scores = two.score(np.array([[0.0, 0.1], [0.1, 0.0], [0.5, 0.5], [0.0, 0.0]]))
    >>> scores["modes"], scores["high_quality"]
    (1.0, 0.75)
    """

    centres: Floats
    std: float

    def __post_init__(self) -> None:
        if not 0.0 < self.std < math.inf:
            raise ArchitectureError(f"std={self.std}: expected a positive number")

    def nearest(self, samples: ArrayLike) -> tuple[NDArray[np.intp], Floats]:
        """Return each sample's nearest mode and its distance from that centre, shape (n,) each."""
        from scipy.spatial import KDTree

        distance, mode = KDTree(self.centres).query(check_samples(samples, self.centres.shape[1]))
        return mode, distance

    def counts(self, samples: ArrayLike) -> NDArray[np.int64]:
        """Return how many samples lie within 3σ of each mode and nearest to it, shape (K,)."""
        mode, distance = self.nearest(samples)
        return np.bincount(mode[distance <= REACH * self.std], minlength=len(self.centres))

    def score(self, samples: ArrayLike) -> dict[str, float]:
        """Score samples of shape (n, features), in the units of the centres.

        ``modes``: modes with a sample within 3σ. ``modes_strict``: modes with at least n / 4K of
        them, a quarter of a uniform share. ``high_quality``: share of samples within 3σ of a mode;
        the mixture itself has 1 − exp(−9/2) = 0.989 in two dimensions. ``kl``: nats of the
        histogram of those samples from the uniform one.
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


# -- by probabilities and features -----------------------------------------------------------------
def inception_score(probabilities: ArrayLike) -> float:
    """Inception score exp E KL(p(y|x) ‖ p(y)), with p(y) = E p(y|x) (Salimans et al. 2016).

    Rows (n, K) of probabilities p(y|x) give from 1 (every sample classified alike, or none with
    confidence) to K (each with certainty, all classes equally often). Of n samples in one piece:
    the mean over ten pieces, which others report, is a little lower.

    >>> round(inception_score(np.eye(10)), 6), inception_score(np.full((5, 10), 0.1))
    (10.0, 1.0)
    """
    p = np.asarray(probabilities, np.float64)
    p = p / p.sum(axis=1, keepdims=True)
    # KL = H(mean p) − mean H(p): both terms are sums of p log p, which is 0 at 0
    each, mean = (
        (q * np.log(q, out=np.zeros_like(q), where=q > 0)).sum(axis=-1) for q in (p, p.mean(axis=0))
    )
    return float(np.exp(max(0.0, each.mean() - mean)))


def moments(features: ArrayLike) -> tuple[Floats, Floats]:
    """Mean and unbiased covariance of features of shape (n, d), in float64; n is at least 2."""
    x = np.asarray(features, np.float64)
    return x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False))


def frechet_distance(mean1: Floats, cov1: Floats, mean2: Floats, cov2: Floats) -> float:
    """Fréchet distance of two Gaussians: ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½).

    That is the squared 2-Wasserstein distance (Dowson and Landau 1982; as a score of generators,
    Heusel et al. 2017). With Σᵢ = RᵢRᵢᵀ from symmetric eigen-decompositions, tr (Σ₁Σ₂)^½ is the sum
    of the singular values of R₁ᵀR₂: no square root of a matrix that is not symmetric, and nothing
    becomes complex or fails where a covariance is singular. It is in squared units of the features;
    means and covariances of few samples raise it, so compare equal numbers of samples.

    >>> frechet_distance(np.zeros(2), np.eye(2), np.array([3.0, 4.0]), 4 * np.eye(2))
    27.0
    """
    overlap = np.linalg.svd(_root(cov1).T @ _root(cov2), compute_uv=False).sum()
    spread = np.trace(cov1) + np.trace(cov2) - 2.0 * overlap
    return max(0.0, float(np.square(mean1 - mean2).sum() + spread))


def _root(cov: Floats) -> Floats:
    """Return R with R Rᵀ = cov."""
    values, vectors = np.linalg.eigh((cov + cov.T) / 2)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


# -- precision and recall --------------------------------------------------------------------------
def precision_recall(
    real: ArrayLike, generated: ArrayLike, k: int = NEIGHBOURS
) -> tuple[float, float]:
    """Shares of generated points among the real ones, and of real among the generated ones.

    A set's manifold is the union of balls about its points, each as wide as the distance to that
    point's k-th nearest neighbour in the set (Kynkäänniemi et al. 2019). Precision is how
    believable the generated points are, recall how much of the data is covered.

    Features (n, d) and (m, d) are compared, in the publication as many of both, since more points
    make wider manifolds; a point is not one of its own k neighbours.

    >>> line = np.arange(10.0)[:, np.newaxis]
    >>> precision_recall(line, line[:5]), precision_recall(line, line + 100)
    ((1.0, 0.8), (0.0, 0.0))
    """
    a, b = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) <= k:
        raise ShapeError(
            f"features of shape {a.shape} and {b.shape}; expected (n, d) and (m, d) with more than "
            f"{k} rows each"
        )
    centre = a.mean(axis=0)  # products of centred points lose fewer digits
    a, b = a - centre, b - centre
    return _share(b, a, k), _share(a, b, k)


def _share(points: Floats, centres: Floats, k: int) -> float:
    """Share of points that lie in a ball about a centre."""
    radii = np.empty(len(centres))  # squared
    for part, square in _distances(centres, centres):
        rows = np.arange(len(square))
        square[rows, part.start + rows] = -1.0  # the point itself, whatever rounding says
        radii[part] = np.partition(square, k, axis=1)[:, k]
    largest = max(np.square(points).sum(axis=1).max(), np.square(centres).sum(axis=1).max())
    reach = radii + SLACK * largest
    inside = [(square <= reach).any(axis=1).sum() for _, square in _distances(points, centres)]
    return float(sum(inside) / len(points))


def _distances(a: Floats, b: Floats) -> Iterator[tuple[slice, Floats]]:
    """Squared distances of a block of rows of ``a`` to all of ``b``, block by block."""
    squares = np.square(b).sum(axis=1)
    step = max(1, BLOCK // len(b))
    for start in range(0, len(a), step):
        part = slice(start, min(start + step, len(a)))
        square = a[part] @ b.T
        square *= -2.0
        square += squares
        square += np.square(a[part]).sum(axis=1)[:, np.newaxis]
        yield part, np.maximum(square, 0.0, out=square)


def average_scores(rows: Sequence[Mapping[str, float]], last: int = 5) -> dict[str, float]:
    """Mean of each score over the ``last`` rows that hold it: one checkpoint says little of a GAN.

    >>> average_scores([{"modes": 1}, {"modes": 7, "kl": 0.5}, {}, {"modes": 8}], last=2)
    {'modes': 7.5, 'kl': 0.5}
    """
    held: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            held.setdefault(key, []).append(float(value))
    return {key: float(np.mean(values[-last:])) for key, values in held.items()}
