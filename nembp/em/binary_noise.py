"""Target noise for the binary network: its gain in every hidden state, and screened draws."""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.em.binary import BinaryNetwork, OneWay
from nembp.em.expectation import posterior
from nembp.em.screening import Condition, Gains, Matrix, Support, draw
from nembp.engine.noise import Noise

__all__ = ["draw_noise", "gains_at", "posterior_slope"]


def gains_at(
    net: BinaryNetwork, theta: Any, target: Matrix, way: OneWay, *, component: bool
) -> Gains:
    """Return the map from noise n to log p(y + n, h | x, Θ) − log p(y, h | x, Θ) in every state h.

    log p(h | x, Θ) cancels, so the gain is the likelihood's own, at h. The map takes n of shape
    (rows, targets) to (rows, states, 1), or with ``component`` to (rows, states, targets): the
    summands, one a target neuron.
    """
    likelihood = net.target_likelihood(way)
    z, t = net.readout_rows(theta, target, way)
    readout = likelihood.at(z)

    def gains(n: Matrix) -> Matrix:
        terms = np.empty_like(t)
        likelihood.gain_terms(readout, t, np.repeat(n, len(net.states), axis=0), terms)
        terms = terms.reshape(len(target), len(net.states), -1)
        return terms if component else terms.sum(axis=2, keepdims=True)

    return gains


def posterior_slope(net: BinaryNetwork, theta: Any, x: Any, y: Any, way: OneWay) -> Matrix:
    """Return w = Σ_h p(h | y, x, Θ) ∂gain(n; h)/∂n at n = 0, shape (rows, targets)."""
    likelihood = net.target_likelihood(way)
    target = net.ends(x, y, way).target
    z, t = net.readout_rows(theta, target, way)
    slope = np.empty_like(t)
    likelihood.gain_slope(likelihood.at(z), t, slope)
    slopes = slope.reshape(len(target), len(net.states), -1)
    return np.asarray(np.einsum("ns,nsk->nk", posterior(net, theta, x, y, way), slopes))


def draw_noise(
    net: BinaryNetwork,
    theta: Any,
    x: Any,
    y: Any,
    way: OneWay,
    noise: Noise,
    generator: np.random.Generator,
    *,
    condition: Condition = "posterior",
    support: Support = "continuous",
    iteration: int = 1,
) -> Matrix:
    """Draw noise for one direction's target, screened at Θ.

    Parameters
    ----------
    net, theta, x, y, way
        The network, the Θ that screens, the data and the direction ("forward": noise on y).
    noise : Noise
        ``screening_for`` the likelihood decides between whole rows and single neurons.
    generator : numpy.random.Generator
    condition : {"posterior", "every"}
        Screen the posterior mean of the gain, or the gain in every hidden state.
    support : {"continuous", "lattice"}
        ``noise.law``, or the three-point law of the same standard deviation.
    iteration : int
        t of the annealing schedule, counted from 1.

    Returns
    -------
    array, shape (rows, targets), float64
    """
    source_target = net.ends(x, y, way)
    target = source_target.target
    component = noise.screening_for(source_target.likelihood) == "component"
    return draw(
        noise,
        noise.std_at(epoch=iteration, iteration=iteration),
        target,
        gains_at(net, theta, target, way, component=component),
        posterior(net, theta, x, y, way),
        generator,
        condition=condition,
        support=support,
    )
