"""Gradients where a probability or a slope is zero; what a penalty needs. The rest are laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nembp.adversarial import AdversarialSettings
from nembp.adversarial.gradients import DiscriminatorGradient, GeneratorGradient, GradientPenalty
from nembp.engine.activations import Tanh
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import Bernoulli, Gaussian
from nembp.engine.network import Network, dense_network
from nembp.errors import ArchitectureError

SETTINGS = AdversarialSettings()


def test_a_sample_that_underflows_still_has_a_gradient():
    # log p(real) of a K+1-class D, where p(real) itself is 0 in float32
    d = dense_network([16, 5, 3], forward="multinomial", seed=1)
    d.biases[-1][...] = [0.0, 0.0, 500.0]
    g = dense_network([3, 6, 16], forward="bernoulli", seed=0)
    of_g = GeneratorGradient(g, d, 5, AdversarialSettings(classes=2))
    of_g.z[...] = 1.0
    of_g.run()
    gradient = np.full_like(g.parameters, np.nan)
    of_g(gradient)
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient)
    assert float(of_g.forward_nll[0, 0]) == pytest.approx(499.3, abs=5.0)


def test_a_normalized_discriminator_sees_each_sort_by_itself_and_learns_statistics_once():
    d = dense_network([3, 5, 1], forward=Bernoulli(), normalization=BatchNormalization(), seed=1)
    g = dense_network([3, 4, 3], forward="gaussian", seed=0)
    of_d, of_g = DiscriminatorGradient(d, 4, SETTINGS), GeneratorGradient(g, d, 4, SETTINGS)
    real, of_g.z[...] = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    of_d.real[...], of_d.generated[...] = real, of_g.run()
    each = (of_d.real.copy(), 1.0), (of_d.generated.copy(), 0.0)
    expected = sum(d.log_likelihood(x, np.full((4, 1), t), "batch").mean() for x, t in each)
    of_d(np.empty_like(d.parameters))
    assert of_d.forward_nll[0, 0] == pytest.approx(-expected, rel=1e-5)
    before = d.statistics.copy()
    of_g(np.empty_like(g.parameters))
    assert np.array_equal(d.statistics, before)


# -- the penalty alone -----------------------------------------------------------------------------
def penalty_of(net: Network, x: Any, weight: float = 1.0) -> tuple[GradientPenalty, Any]:
    step = GradientPenalty(net, len(x))
    step.x[...] = x
    gradient = np.full(net.parameter_count, np.nan, net.dtype)
    step(gradient, weight)
    return step, gradient


def test_penalty_where_the_slope_is_zero():
    net = dense_network([3, 4, 1], activation="tanh", forward=Gaussian(), seed=0)
    net.weights[1][...] = 0.0
    step, gradient = penalty_of(net, np.ones((2, 3)))
    assert step.value[0, 0] == 1.0
    assert np.all(np.isfinite(gradient))


def test_penalty_says_what_it_needs():
    class Cube(Tanh):
        multiply_curvature = Tanh.__mro__[1].multiply_curvature

    normalized = dense_network([3, 4, 1], normalization=BatchNormalization())
    for net, match in (
        (dense_network([3, 4, 2]), "one output and without batch normalization"),
        (normalized, "and normalized layers"),
        (dense_network([3, 4, 1], activation=Cube(), forward=Gaussian()), "no multiply_curvature"),
    ):
        with pytest.raises(ArchitectureError, match=match):
            penalty_of(net, np.ones((2, 3)))
