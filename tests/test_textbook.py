"""The algorithm on one page: it is right by itself, and the engine computes the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp import textbook
from nembp.engine.backprop import joint_gradient
from nembp.engine.likelihoods import get_likelihood
from nembp.engine.network import dense_network

LIKELIHOODS = {
    "multinomial": textbook.Multinomial,
    "gaussian": textbook.Gaussian,
    "bernoulli": textbook.Bernoulli,
}
names = st.sampled_from(sorted(LIKELIHOODS))
weights = st.floats(0.1, 10.0)


def targets(name, rng, shape):
    if name == "gaussian":
        return rng.normal(size=shape)
    return rng.random(shape) if name == "bernoulli" else rng.dirichlet(np.ones(shape[1]), shape[0])


@st.composite
def problems(draw, activation=None):
    """Draw a network of the page with random parameters, its kinds, and a batch."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=5))
    activation = activation or draw(st.sampled_from(sorted(textbook.ACTIVATIONS)))
    ends = [(draw(names), draw(weights)) for _ in range(2)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    likelihoods = [LIKELIHOODS[name](weight) for name, weight in ends]
    net = textbook.Network(sizes, activation, *likelihoods, rng)
    net.theta[...] = rng.normal(0.0, 0.7, net.theta.size)
    rows = draw(st.integers(1, 6))
    y = targets(ends[0][0], rng, (rows, sizes[-1]))
    x = targets(ends[1][0], rng, (rows, sizes[0]))
    return net, sizes, activation, ends, x, y, rng


@given(problems())
def test_the_engine_computes_the_gradient_of_the_page(problem):
    page, sizes, activation, ends, x, y, _ = problem
    forward, backward = (get_likelihood(name, weight=weight) for name, weight in ends)
    net = dense_network(
        sizes, activation=activation, forward=forward, backward=backward, dtype="float64"
    )
    net.parameters[...] = page.theta
    expected = page.gradient(x, y)
    size = max(1.0, *(weight for _, weight in ends)) * (1.0 + np.abs(x).max() + np.abs(y).max())
    np.testing.assert_allclose(joint_gradient(net, x, y), expected, rtol=0.0, atol=1e-12 * size)


@given(problems(activation="tanh"))
def test_the_gradient_is_that_of_both_log_likelihoods(problem):
    net, _, _, _, x, y, rng = problem

    def objective(theta):
        net.theta[...] = theta
        total = 0.0
        for way, source, t in ((net.forward, x, y), (net.backward, y, x)):
            total -= np.mean(way[2].log_p(net.signals(way, source)[-1], t))
        return total

    theta, v = net.theta.copy(), rng.normal(size=net.theta.size)
    slope = net.gradient(x, y) @ v
    h = 1e-5
    measured = (objective(theta + h * v) - objective(theta - h * v)) / (2 * h)
    assert measured == pytest.approx(slope, rel=1e-5, abs=1e-6 * (1.0 + abs(objective(theta))))


@given(names, weights, st.integers(0, 2**32))
def test_noise_never_makes_a_target_less_probable(name, weight, seed):
    rng = np.random.default_rng(seed)
    likelihood, z = LIKELIHOODS[name](weight), rng.normal(size=(8, 4))
    t = targets(name, rng, z.shape)
    n = textbook.nem_noise(likelihood, z, t, 0.5, rng)
    assert np.any(n != 0.0)
    gain = likelihood.log_p(z, t + n) - likelihood.log_p(z, t)
    assert np.all(gain >= -1e-12 * weight * (1.0 + np.abs(z).max()))


def test_it_learns_the_digits_in_both_directions():
    accuracy, centroid_error = textbook.train_on_digits()
    assert accuracy >= 0.96
    assert centroid_error < 0.05
