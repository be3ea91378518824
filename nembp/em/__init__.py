"""Expectation-maximization in the open: the theorems behind B-BP and NEM, with nothing hidden.

Two models whose hidden states can be enumerated, in float64 on the host:

- a network with a stochastic binary hidden layer (:class:`BinaryNetwork`): Q(Θ | Θₙ), the entropy
  term H(Θ | Θₙ), Fisher's identity ∇ log p = ∇Q at Θₙ, generalized-EM steps and the NEM
  inequality, in either direction or both;
- Gaussian mixtures (:class:`GaussianMixture`): EM, noisy EM and its controls.
"""

from nembp.em.binary import BinaryNetwork as BinaryNetwork
from nembp.em.binary import GemStep as GemStep
from nembp.em.binary import NemInequality as NemInequality
from nembp.em.binary import draw_noise as draw_noise
from nembp.em.binary import entropy as entropy
from nembp.em.binary import gem_step as gem_step
from nembp.em.binary import gradient as gradient
from nembp.em.binary import nem_inequality as nem_inequality
from nembp.em.binary import posterior as posterior
from nembp.em.binary import q as q
from nembp.em.binary import q_gradient as q_gradient
from nembp.em.mixtures import GaussianMixture as GaussianMixture
from nembp.em.mixtures import MixtureFit as MixtureFit
from nembp.em.mixtures import draw_mixture_noise as draw_mixture_noise
from nembp.em.mixtures import fit_mixture as fit_mixture
from nembp.em.mixtures import initial_mixture as initial_mixture
from nembp.em.mixtures import m_step as m_step
from nembp.em.mixtures import study_convergence as study_convergence
