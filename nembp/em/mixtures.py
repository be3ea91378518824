"""Gaussian mixtures of any dimension with full covariances: the model and the two steps of EM.

    p(y | Θ) = Σ_j w_j N(y; μ_j, Σ_j),      hidden state: the component j that made y

E-step: r_j(y) = p(j | y, Θₙ) = p(y, j | Θₙ) / p(y | Θₙ). M-step: Θₙ₊₁ maximizes
Q(Θ | Θₙ) = Σ_y Σ_j r_j(y) log p(y, j | Θ), which the weighted moments of y do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nembp.em.binary import log_sum_exp
from nembp.em.screening import Matrix
from nembp.errors import ArchitectureError, DivergenceError, ShapeError

__all__ = ["GaussianMixture", "initial_mixture", "m_step"]


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Parameters Θ of a mixture with K components in d dimensions.

    Parameters
    ----------
    weights : array, shape (K,)
        w, positive, summing to 1.
    means : array, shape (K, d)
        μ, in units of y.
    covariances : array, shape (K, d, d)
        Σ, symmetric and positive definite.

    Attributes
    ----------
    factors : array, shape (K, d, d)
        L, lower triangular, with Σ_j = L_j L_jᵀ.

    Raises
    ------
    ShapeError
        If the shapes do not fit each other, or a value is not finite.
    ArchitectureError
        If the weights are not a distribution, or a covariance is not symmetric.
    DivergenceError
        If a covariance is not positive definite: a component collapsed.

    >>> mixture = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[1.0]], [[1.0]]])
    >>> mixture.posterior([[0.0]])
    array([[0.5, 0.5]])
    """

    weights: Matrix
    means: Matrix
    covariances: Matrix
    factors: Matrix = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("weights", "means", "covariances"):
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=np.float64))
        if self.means.ndim != 2:
            raise ShapeError(f"means must have shape (components, d), got {self.means.shape}")
        components, d = self.means.shape
        expected = {"weights": (components,), "covariances": (components, d, d)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ShapeError(
                    f"{name} must have shape {shape} to fit means {self.means.shape}, got "
                    f"{getattr(self, name).shape}"
                )
        for name in ("weights", "means", "covariances"):
            if not np.isfinite(getattr(self, name)).all():
                raise ShapeError(f"{name} must be finite, got {getattr(self, name).tolist()}")
        if self.weights.min() <= 0.0 or abs(self.weights.sum() - 1.0) > 1e-8:
            raise ArchitectureError(
                f"weights must be positive and sum to 1, got {self.weights.tolist()}"
            )
        self._factor()

    def _factor(self) -> None:
        """Set ``factors``: the density and the noise condition need only L_j⁻¹."""
        skew = np.abs(self.covariances - self.covariances.transpose(0, 2, 1))
        if (skew > 1e-8 * np.abs(self.covariances).max()).any():
            raise ArchitectureError(f"covariances must be symmetric, got {self.covariances}")
        factors = np.empty_like(self.covariances)
        for j, covariance in enumerate(self.covariances):
            try:
                factors[j] = np.linalg.cholesky(covariance)
            except np.linalg.LinAlgError as error:
                raise DivergenceError(
                    f"covariance {j} is not positive definite: the component collapsed; use fewer "
                    "components, a larger reg_covar or rescaled data"
                ) from error
        object.__setattr__(self, "factors", factors)

    @property
    def dimension(self) -> int:
        """Length d of y."""
        return int(self.means.shape[1])

    def rows(self, y: Any) -> Matrix:
        """Return ``y`` as float64 rows, or raise :class:`ShapeError`."""
        rows: Matrix = np.asarray(y, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.dimension or not len(rows):
            raise ShapeError(f"y must have shape (rows ≥ 1, {self.dimension}), got {rows.shape}")
        if not np.isfinite(rows).all():
            raise ShapeError("y must be finite; remove its NaN and infinite entries")
        return rows

    def whiten(self, v: Matrix, component: int) -> Matrix:
        """Return L_j⁻¹ v of every row, whose squared norm is vᵀ Σ_j⁻¹ v."""
        return np.asarray(np.linalg.solve(self.factors[component], v.T).T)

    def log_joint(self, y: Any) -> Matrix:
        """Return log p(y, j | Θ) = log w_j + log N(y; μ_j, Σ_j), shape (rows, K), in nats."""
        y = self.rows(y)
        table = np.empty((len(y), len(self.weights)))
        for j, factor in enumerate(self.factors):
            square = (self.whiten(y - self.means[j], j) ** 2).sum(axis=1)
            half_log_determinant = float(np.log(np.diagonal(factor)).sum())
            log_normalizer = 0.5 * self.dimension * math.log(2.0 * math.pi) + half_log_determinant
            table[:, j] = math.log(self.weights[j]) - log_normalizer - 0.5 * square
        return table

    def log_likelihood(self, y: Any) -> Matrix:
        """Return log p(y | Θ) = log Σ_j p(y, j | Θ) of each row, shape (rows, 1), in nats."""
        return log_sum_exp(self.log_joint(y))

    def posterior(self, y: Any) -> Matrix:
        """Return the E-step r_j(y) = p(j | y, Θ), shape (rows, K)."""
        log_joint = self.log_joint(y)
        return np.asarray(np.exp(log_joint - log_sum_exp(log_joint)))

    def q(self, y: Any, posterior: Matrix) -> float:
        """Return Q(Θ | Θₙ) = Σ_y Σ_j r_j(y) log p(y, j | Θ), ``posterior`` taken at Θₙ, in nats.

        With noisy y and the posterior of clean y it is Q_N.
        """
        return float((posterior * self.log_joint(y)).sum())

    def gains(self, y: Any, n: Any) -> Matrix:
        """Return log p(y + n, j | Θ) − log p(y, j | Θ) in every component, shape (rows, K), nats.

        It is −½ nᵀ Σ_j⁻¹ (n − 2 (μ_j − y)), so in one dimension it is not negative where
        n (n − 2 (μ_j − y)) ≤ 0 (Osoba, Mitaim and Kosko 2013, the mixture condition): n lies
        between 0 and 2 (μ_j − y), and in d dimensions in an ellipsoid through 0 about μ_j − y.

        >>> mixture = GaussianMixture([1.0], [[1.0]], [[[1.0]]])
        >>> mixture.gains([[0.0], [0.0]], [[1.0], [3.0]]).ravel()
        array([ 0.5, -1.5])
        """
        y, n = self.rows(y), self.rows(n)
        table = np.empty((len(y), len(self.weights)))
        for j, mean in enumerate(self.means):
            whitened = self.whiten(n, j)
            table[:, j] = -0.5 * (whitened * (whitened - 2.0 * self.whiten(mean - y, j))).sum(
                axis=1
            )
        return table

    def sample(self, count: int, generator: np.random.Generator) -> Matrix:
        """Draw ``count`` rows of y."""
        j = generator.choice(len(self.weights), size=count, p=self.weights / self.weights.sum())
        standard = generator.standard_normal((count, self.dimension))
        return np.asarray(self.means[j] + np.einsum("nab,nb->na", self.factors[j], standard))


def m_step(y: Any, posterior: Matrix, reg_covar: float = 0.0) -> GaussianMixture:
    """Return the mixture that maximizes Q: w_j = N_j / N, μ_j and Σ_j the weighted moments of y.

    N_j = Σ_y r_j(y), μ_j = Σ_y r_j y / N_j, Σ_j = Σ_y r_j (y − μ_j)(y − μ_j)ᵀ / N_j.

    Parameters
    ----------
    y : array, shape (rows, d)
        With noise added, for the noisy M-step.
    posterior : array, shape (rows, K)
        r_j(y) of the clean y.
    reg_covar : float
        Added to the diagonal of each covariance, in squared units of y. EM is monotone at 0.

    Raises
    ------
    DivergenceError
        If a component collapsed.
    """
    y = np.asarray(y, dtype=np.float64)
    # scikit-learn's guard against an empty component, so that steps are comparable
    counts = posterior.sum(axis=0) + 10.0 * np.finfo(np.float64).eps
    means = (posterior.T @ y) / counts[:, None]
    covariances = np.empty((len(counts), y.shape[1], y.shape[1]))
    for j, mean in enumerate(means):
        centered = y - mean
        covariances[j] = (posterior[:, j] * centered.T) @ centered / counts[j]
        covariances[j] += reg_covar * np.eye(y.shape[1])
    return GaussianMixture(counts / counts.sum(), means, covariances)


def initial_mixture(
    y: Any, components: int, generator: np.random.Generator, reg_covar: float = 1e-6
) -> GaussianMixture:
    """Return a start for EM: distinct rows of ``y`` as means, the covariance of ``y`` for each."""
    y = np.asarray(y, dtype=np.float64)
    if y.ndim != 2:
        raise ShapeError(f"y must have shape (rows, d), got {y.shape}")
    distinct = np.unique(y, axis=0)
    if not 1 <= components <= len(distinct):
        raise ArchitectureError(
            f"{components} components need 1 to {len(distinct)}, the number of distinct rows of y"
        )
    means = distinct[generator.choice(len(distinct), size=components, replace=False)]
    covariance = np.cov(y, rowvar=False, bias=True).reshape(y.shape[1], -1)
    covariance += reg_covar * np.eye(y.shape[1])
    return GaussianMixture(
        np.full(components, 1.0 / components), means, np.stack([covariance] * components)
    )
