"""EM, noisy EM and its controls for Gaussian mixtures.

Each iteration t, with Θₜ the mixture so far:

1. E-step on the clean data: r_j(y) = p(j | y, Θₜ);
2. noise, if any: n of standard deviation σ₀ / tᵈ, screened against Θₜ;
3. M-step on Q_N(Θ | Θₜ) = Σ_y Σ_j r_j(y) log p(y + n, j | Θ)

(Osoba, Mitaim and Kosko 2013, the NEM algorithm). Without noise these are the steps of
scikit-learn's ``GaussianMixture``, iteration by iteration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp.em.binary import log_sum_exp
from nembp.em.mixtures import GaussianMixture, m_step
from nembp.em.screening import Condition, Matrix, draw
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError

__all__ = ["MixtureFit", "draw_mixture_noise", "fit_mixture"]


@dataclass(frozen=True, eq=False)
class MixtureFit:
    """A fitted mixture and its history.

    Attributes
    ----------
    mixture : GaussianMixture
        Θ after the last iteration.
    log_likelihood : array, shape (iterations + 1,)
        Mean of log p(y | Θₜ) over the clean data before the first iteration and after each, in
        nats a row. It never falls where there is neither noise nor ``reg_covar``.
    noise_gain : array, shape (iterations,)
        [Q_N(Θₜ | Θₜ) − Q(Θₜ | Θₜ)] a row: not negative for NEM noise.
    nonzero : array, shape (iterations,)
        Share of the rows that carry noise after screening.
    converged : bool
        Whether the last change of the mean log-likelihood fell below the tolerance.
    """

    mixture: GaussianMixture
    log_likelihood: Matrix
    noise_gain: Matrix
    nonzero: Matrix
    converged: bool

    @property
    def iterations(self) -> int:
        """Iterations done."""
        return len(self.noise_gain)


def draw_mixture_noise(
    mixture: GaussianMixture,
    y: Any,
    noise: Noise,
    generator: np.random.Generator,
    *,
    condition: Condition = "every",
    iteration: int = 1,
) -> Matrix:
    """Draw noise for ``y`` at iteration t, whole rows screened against ``mixture``.

    ``every`` keeps n where gain_j(n) ≥ 0 for every component j: the mixture condition of the
    theorem, which in one dimension leaves nothing for a y between two means. ``posterior`` keeps n
    where Σ_j r_j(y) gain_j(n) ≥ 0. Returns shape (rows, d).
    """
    y = mixture.rows(y)
    if noise.screening == "component":
        raise ArchitectureError(
            "full covariances couple the coordinates, so mixture noise is screened by whole rows: "
            'use screening="auto" or "vector"'
        )
    return draw(
        noise,
        noise.std_at(epoch=iteration, iteration=iteration),
        y,
        lambda n: mixture.gains(y, n)[:, :, None],
        mixture.posterior(y),
        generator,
        condition=condition,
    )


def fit_mixture(
    y: Any,
    initial: GaussianMixture,
    *,
    noise: Noise | None = None,
    generator: np.random.Generator | None = None,
    condition: Condition = "every",
    iterations: int = 100,
    tolerance: float = 1e-3,
    reg_covar: float = 1e-6,
) -> MixtureFit:
    """Fit a mixture by EM, or by noisy EM.

    Parameters
    ----------
    y : array, shape (rows, d)
    initial : GaussianMixture
        Θ₀; see :func:`nembp.em.initial_mixture`.
    noise : Noise, optional
        ``kind`` nem, blind, anti or drift; ``std`` in units of y, annealed over iterations.
    generator : numpy.random.Generator
        Of the noise.
    condition : {"every", "posterior"}
        See :func:`draw_mixture_noise`.
    iterations, tolerance : int, float
        Stop after so many, or when the mean log-likelihood changes by less (0: never).
    reg_covar : float
        Added to the diagonal of every covariance.

    Returns
    -------
    MixtureFit

    Raises
    ------
    ArchitectureError
        If an option is out of range, or there is noise and no ``generator``.
    DivergenceError
        If a component collapsed.
    """
    _check_options(iterations, tolerance, reg_covar, noise, generator)
    y, mixture = initial.rows(y), initial
    history, gains, nonzero, converged = [], [], [], False
    for iteration in range(1, iterations + 1):
        log_joint = mixture.log_joint(y)
        log_p = log_sum_exp(log_joint)
        r = np.exp(log_joint - log_p)
        history.append(float(log_p.mean()))
        n = np.zeros_like(y)
        if noise is not None and generator is not None:
            n = draw_mixture_noise(
                mixture, y, noise, generator, condition=condition, iteration=iteration
            )
        gains.append(float((r * mixture.gains(y, n)).sum()) / len(y))
        nonzero.append(float((n != 0.0).any(axis=1).mean()))
        mixture = m_step(y + n, r, reg_covar)
        # as in scikit-learn, on the log-likelihoods before this M-step and the one before it
        if iteration > 1 and abs(history[-1] - history[-2]) < tolerance:
            converged = True
            break
    history.append(float(mixture.log_likelihood(y).mean()))
    return MixtureFit(mixture, np.array(history), np.array(gains), np.array(nonzero), converged)


def _check_options(
    iterations: int,
    tolerance: float,
    reg_covar: float,
    noise: Noise | None,
    generator: np.random.Generator | None,
) -> None:
    if iterations < 1 or not tolerance >= 0.0 or not reg_covar >= 0.0:
        raise ArchitectureError(
            "iterations must be at least 1, tolerance and reg_covar at least 0, got "
            f"{iterations}, {tolerance} and {reg_covar}"
        )
    if noise is not None and noise.kind != "none" and generator is None:
        raise ArchitectureError(
            "noise needs a generator: pass generator=nembp.backend.stream(seed, name)"
        )
