"""The algorithm on one page is right by itself. (That the engine computes the same is a law.)"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp import textbook

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


@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    ends=st.tuples(names, weights, names, weights),
    seed=st.integers(0, 2**32),
)
def test_the_gradient_is_that_of_both_log_likelihoods(sizes, ends, seed):
    rng, (forward, w, backward, v) = np.random.default_rng(seed), ends
    likelihoods = LIKELIHOODS[forward](w), LIKELIHOODS[backward](v)
    net = textbook.Network(sizes, "tanh", *likelihoods, rng)
    net.theta[...] = rng.normal(0.0, 0.7, net.theta.size)
    x, y = targets(backward, rng, (4, sizes[0])), targets(forward, rng, (4, sizes[-1]))

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
