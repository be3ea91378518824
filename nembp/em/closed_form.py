"""Normal integrals: the expected gain of screened Gaussian noise.

Averaged over the posterior, the gain of noise on one target neuron is w n − κ n², with κ = 0 for
the multinomial and Bernoulli likelihoods and κ = 1/2v for the Gaussian. With n = s ξ,
ξ ~ N(0, 1), it is positive between 0 and c = |w| / κs on the side of w, so with

    A₁ = ∫₀ᶜ ξ φ(ξ) dξ = φ(0) − φ(c),     A₂ = ∫₀ᶜ ξ² φ(ξ) dξ = Φ(c) − ½ − c φ(c)

the accepted draws contribute  K = |w| s A₁ − κ s² A₂, and the same draws reflected
K' = −|w| s A₁ − κ s² A₂. All of the noise together contributes −κ s².
"""

from __future__ import annotations

import math

import numpy as np

from nembp.em.screening import Matrix
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.engine.noise import Noise

__all__ = ["curvature", "expected_gain"]


def curvature(likelihood: Likelihood) -> float | None:
    """Return κ of gain = w n − κ n², or None for a likelihood whose gain is not quadratic."""
    if isinstance(likelihood, Gaussian):
        return 0.5 / likelihood.variance
    return 0.0 if isinstance(likelihood, Multinomial | Bernoulli) else None


def expected_gain(noise: Noise, w: Matrix, s: Matrix, likelihood: Likelihood) -> float | None:
    """Return E[Σ (w n − κ n²)] of noise screened on the sign of the posterior-mean gain, in nats.

    Parameters
    ----------
    noise : Noise
    w : array, shape (rows, targets)
        Slope of the posterior-mean gain.
    s : array, shape (rows, targets)
        Standard deviation of the draws.
    likelihood : Likelihood
        Whose κ applies.

    Returns
    -------
    float or None
        None where there is no closed form: noise that is not Gaussian, drift, a likelihood whose
        gain is not quadratic, or whole rows screened by the Gaussian's ball.
    """
    kappa = curvature(likelihood)
    if noise.kind == "none":
        return 0.0
    if kappa is None or noise.kind == "drift":
        return None
    if noise.kind == "blind":  # any law with mean 0 and standard deviation s
        return float(-kappa * (s**2).sum())
    if noise.law != "gaussian":
        return None
    if noise.screening_for(likelihood) == "vector":
        if kappa > 0.0:
            return None
        # ⟨w, n⟩ of a whole row is one normal variable
        w, s = np.sqrt(((w * s) ** 2).sum(axis=1)), np.ones(len(w))
    accepted, reflected = _two_sides(np.abs(w), s, kappa)
    total = -kappa * float((s**2).sum())
    if noise.kind == "nem":
        return accepted * (2.0 if noise.rejected == "reflect" else 1.0)
    return total - accepted + (reflected if noise.rejected == "reflect" else 0.0)


def _two_sides(w: Matrix, s: Matrix, kappa: float) -> tuple[float, float]:
    """Return ΣK and ΣK' of slopes w ≥ 0."""
    # beyond 40 standard deviations φ is 0 in float64
    c = np.minimum(w / np.maximum(kappa * s, 1e-300), 40.0)
    density = np.exp(-0.5 * c**2) / math.sqrt(2.0 * math.pi)
    half = np.array([0.5 * math.erf(v / math.sqrt(2.0)) for v in c.ravel()]).reshape(c.shape)
    first = 1.0 / math.sqrt(2.0 * math.pi) - density
    second = half - c * density
    linear, square = w * s * first, kappa * s**2 * second
    return float((linear - square).sum()), float((-linear - square).sum())
