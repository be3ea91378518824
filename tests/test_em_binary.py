"""The binary network beside the engine; its noise by sampling; what is refused.

That log p = Q + H, Fisher's identity, and what a step and NEM noise do to Q, are laws (``em.*``).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest

from nembp.em import (
    BinaryNetwork,
    gem_step,
    gradient,
    nem_inequality,
)
from nembp.engine.activations import Logistic
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.engine.linear import Dense
from nembp.engine.network import Layer, Network
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError, ShapeError
from nembp.verification.cases import random_targets

LIKELIHOODS: list[Likelihood] = [
    Multinomial(weight=0.6),
    Gaussian(variance=0.4),
    Gaussian(variance=3.0),
    Bernoulli(weight=1.7),
]
WAYS = ["forward", "backward"]


class Case(NamedTuple):
    """A network in one of its directions, and what the functions of one Θ take after it."""

    net: BinaryNetwork
    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray


def make_case(
    seed: int, of_y: Likelihood, of_x: Likelihood, sizes: Any = (3, 3, 2), rows: int = 4,
    scale: float = 1.0, way: str = "forward",
) -> Case:  # fmt: skip
    """Return a case whose y is of the first likelihood, whatever its direction."""
    g = np.random.default_rng(seed)
    net = BinaryNetwork(*sizes, of_y, of_x)
    if way == "backward":
        net = BinaryNetwork(*sizes[::-1], of_x, of_y).reversed
    ends = (of_x, sizes[0]), (of_y, sizes[2])
    x, y = (random_targets(of, g, rows, width, hard=False) for of, width in ends)
    return Case(net, net.initial(g, scale), x, y)


def evaluate(case: Case, noise: Noise, **options: Any):
    options = {"draws": 30, "support": "lattice"} | options
    return nem_inequality(*case, noise, np.random.default_rng(11), **options)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_saturated_network_is_the_engine_with_the_same_parameters(likelihood, way):
    # where every hidden probability is 0 or 1, the stochastic layer is the logistic one
    case = make_case(5, likelihood, likelihood, (3, 4, 3), way=way)
    layers, maps = [Layer(3), Layer(4, Logistic()), Layer(3)], [Dense(3, 4), Dense(4, 3)]
    engine = Network(layers, maps, likelihood, likelihood, dtype="float64")
    _, b, _, _ = case.net.layers(case.theta)
    b += 1000.0 * np.sign(b)
    engine.parameters[...] = case.theta
    view = engine if way == "forward" else engine.reversed
    expected = float(view.log_likelihood(case.x, case.y).sum())
    assert case.net.log_likelihood(*case[1:]) == pytest.approx(expected, rel=1e-12)


def test_a_small_gradient_step_is_backpropagation_in_both_directions():
    case = make_case(0, Multinomial(), Gaussian())
    step = gem_step(*case, both=True, rate=1e-3)
    slope = gradient(*case) + gradient(case.net.reversed, case.theta, case.y, case.x)
    np.testing.assert_allclose(step.theta, case.theta + 1e-3 * slope, rtol=0, atol=1e-12)
    noisy = [gem_step(*case, both=True, **{key: 0.5}).q_before for key in ("noise_x", "noise_y")]
    assert len({step.q_before, *noisy}) == 3
    once, often = (gem_step(*case, ascents=ascents) for ascents in (1, 10))
    assert often.q_after > once.q_after


# -- the NEM inequality ----------------------------------------------------------------------------
def test_posterior_screening_does_not_guarantee_it_for_another_posterior():
    # why `every` exists, which keeps less noise
    cases = [make_case(seed, Gaussian(), Gaussian(), scale=3.0, rows=1) for seed in range(10)]
    for condition, least in (("posterior", -math.inf), ("every", 0.0)):
        options = {"condition": condition}
        nem = Noise("nem", 0.5)
        found = [evaluate(c, nem, theta_star=-c.theta, **options).exact for c in cases]
        assert min(found) >= least
        assert (min(found) < 0.0) == (condition == "posterior")
    case = make_case(7, Multinomial(), Gaussian(), scale=3.0, rows=20)
    noise, options = Noise("nem", 0.5, rejected="zero"), {"support": "continuous", "draws": 200}
    weak, strong = (
        evaluate(case, noise, condition=each, **options).nonzero for each in ("posterior", "every")
    )
    assert strong < weak


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rejected", ["zero", "reflect"])
@pytest.mark.parametrize("kind", ["nem", "blind", "anti"])
def test_sampling_agrees_with_the_exact_value(kind, rejected, way):
    # 24 means, |z| < 5: false alarms in 1.4e-5 of all fresh seeds
    case = make_case(8, Multinomial(), Gaussian(0.7), (2, 3, 3), way=way)
    for mode in ("additive", "multiplicative"):
        found = evaluate(case, Noise(kind, std=0.3, rejected=rejected, mode=mode), draws=4000)
        assert abs(found.sampled - found.exact) < 5 * found.standard_error + 1e-12


def test_exact_is_none_where_nothing_is_enumerated():
    case = make_case(9, Gaussian(), Gaussian())
    assert evaluate(case, Noise("nem"), support="continuous").exact is None
    assert evaluate(case, Noise("drift")).exact is None
    silent = evaluate(case, Noise("none"))
    assert (silent.exact, silent.sampled, silent.nonzero) == (0.0, 0.0, 0.0)


def test_errors_say_what_to_do():
    case = make_case(0, Multinomial(), Gaussian(), (2, 2, 9))
    few = make_case(0, Gaussian(), Gaussian())
    net, theta, x, y = case
    nem, by_batch = Noise("nem"), Noise("nem", screening="expectation")
    for error, match, call in (
        (ArchitectureError, "make the hidden layer smaller", lambda: BinaryNetwork(2, 15, 1)),
        (ArchitectureError, "at least 1", lambda: BinaryNetwork(0, 2, 1)),
        (ShapeError, "theta must have", lambda: net.log_likelihood(theta[1:], x, y)),
        (ShapeError, "the same rows", lambda: net.log_likelihood(theta, x, y[1:])),
        (ShapeError, "y must have shape", lambda: net.log_likelihood(theta, x, x)),
        (ShapeError, "x must be finite", lambda: net.log_likelihood(theta, x * np.nan, y)),
        (ShapeError, "target's shape", lambda: gem_step(*case, noise_y=x)),
        (ArchitectureError, "rate must be positive", lambda: gem_step(*case, rate=0.0)),
        (ArchitectureError, "draws must be", lambda: evaluate(case, nem, draws=1)),
        (ArchitectureError, "a generator", lambda: nem_inequality(*few, nem, None)),
        (ArchitectureError, "'continuous'", lambda: evaluate(case, nem)),
        (ArchitectureError, "every or posterior", lambda: evaluate(few, nem, condition="some")),
        (ArchitectureError, "continuous or lattice", lambda: evaluate(few, nem, support="grid")),
        (ArchitectureError, "exact", lambda: evaluate(few, Noise("nem", update="published"))),
        (ArchitectureError, 'condition="posterior"', lambda: evaluate(few, by_batch)),
    ):
        with pytest.raises(error, match=match):
            call()
