"""Expectation-maximization in the open: the theorems behind B-BP and NEM, with nothing hidden.

Two models whose hidden states can be enumerated, in float64 on the host:

- a network with a stochastic binary hidden layer (:class:`BinaryNetwork`): Q(Θ | Θₙ), the entropy
  term H(Θ | Θₙ), Fisher's identity ∇ log p = ∇Q at Θₙ, generalized-EM steps and the NEM
  inequality, forward, backward and joint;
- Gaussian mixtures (:class:`GaussianMixture`): EM, noisy EM and its controls.
"""

from __future__ import annotations

from nembp.em.binary import BinaryNetwork, Direction
from nembp.em.binary_noise import draw_noise
from nembp.em.convergence import ConvergenceStudy, SignTest, study_convergence
from nembp.em.expectation import entropy, entropy_gradient, gradient, posterior, q, q_gradient
from nembp.em.generalized import GemHistory, GemStep, fit_gem, gem_step
from nembp.em.inequality import NemInequality, nem_inequality
from nembp.em.mixture_fit import MixtureFit, draw_mixture_noise, fit_mixture
from nembp.em.mixtures import GaussianMixture, initial_mixture, m_step

__all__ = [
    "BinaryNetwork",
    "ConvergenceStudy",
    "Direction",
    "GaussianMixture",
    "GemHistory",
    "GemStep",
    "MixtureFit",
    "NemInequality",
    "SignTest",
    "draw_mixture_noise",
    "draw_noise",
    "entropy",
    "entropy_gradient",
    "fit_gem",
    "fit_mixture",
    "gem_step",
    "gradient",
    "initial_mixture",
    "m_step",
    "nem_inequality",
    "posterior",
    "q",
    "q_gradient",
    "study_convergence",
]
