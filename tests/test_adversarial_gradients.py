"""Both gradients against what the networks descend, and the penalty's alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nembp.adversarial import AdversarialSettings
from nembp.adversarial.gradients import DiscriminatorGradient, GeneratorGradient, GradientPenalty
from nembp.engine.activations import Tanh
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import Bernoulli, Gaussian, Score
from nembp.engine.network import Network, dense_network
from nembp.errors import ArchitectureError


def test_a_backward_direction_that_is_not_trained_does_not_move():
    g, d = (
        dense_network([3, 6, 16], forward="bernoulli"),
        dense_network([16, 5, 1], forward=Score()),
    )
    settings = AdversarialSettings("wasserstein-gp", bidirectional="none")
    streams = {"penalty": np.random.default_rng(0)}
    of_d = DiscriminatorGradient(d, 5, settings, generators=streams)
    of_g = GeneratorGradient(g, d, 5, settings)
    of_g.z[...], of_d.real[...] = 0.3, 0.6
    of_d.generated[...] = of_g.run()
    for net, step in ((d, of_d), (g, of_g)):
        gradient = np.full(net.parameter_count, np.nan, np.float32)
        step(gradient)
        backward = net.reversed.views(gradient).biases
        assert not any(np.any(b) for b in backward if b is not None)
        assert np.any(gradient)


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


def test_permuted_targets_are_the_samples_values_in_another_order():
    d = dense_network([3, 4, 1], forward=Bernoulli(), seed=1)
    settings = AdversarialSettings(bidirectional="discriminator", backward_labels="both")
    of_d = DiscriminatorGradient(d, 2, settings, permutation=np.array([2, 0, 1]))
    of_d.real[...] = [[1, 2, 3], [4, 5, 6]]
    of_d.generated[...] = 7.0
    of_d(np.zeros(d.parameter_count, np.float32))
    assert np.array_equal(of_d.permuted[:2], [[3, 1, 2], [6, 4, 5]])


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
