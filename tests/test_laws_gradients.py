"""Laws of one direction, both directions of every pair of likelihoods."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from near import assert_near
from strategies import PAIRS, Case, any_likelihood, cases, likelihoods, seeds, targets

from nembp.backend import get_backend
from nembp.engine.activations import ACTIVATIONS, LeakyReLU
from nembp.engine.likelihoods import LIKELIHOODS, Gaussian, Likelihood, Multinomial
from nembp.verification.laws import check, ends, gradients, structure, textbook
from nembp.verification.laws.deviations import CENTRAL, COMPLEX
from nembp.verification.laws.ends import End

kinds = pytest.mark.parametrize("kind", sorted(LIKELIHOODS))
each_pair = pytest.mark.parametrize("pair", PAIRS, ids="-".join)
fewer = settings(max_examples=settings.default.max_examples // 6)  # of each of many
shapes = st.tuples(st.integers(1, 9), st.integers(1, 7))


def draw_end(
    data: st.DataObject, kind: str, hard: bool = False
) -> tuple[Likelihood, np.ndarray, np.ndarray, np.random.Generator]:
    likelihood = data.draw(likelihoods(kind), label="likelihood")
    rows, width = data.draw(shapes, label="shape")
    generator = np.random.default_rng(data.draw(seeds, label="seed"))
    z = generator.normal(0.0, data.draw(st.sampled_from([0.1, 1.0, 3.0])), (rows, width))
    return likelihood, z, targets(likelihood, generator, rows, width, hard), generator


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@given(
    shape=shapes, seed=seeds, scale=st.sampled_from([0.1, 1.0, 10.0]), slope=st.floats(0.01, 0.9)
)
def test_activations_and_their_derivatives(name, shape, seed, scale, slope):
    activation = LeakyReLU(slope) if name == "leaky-relu" else ACTIVATIONS[name]()
    z = np.random.default_rng(seed).normal(0.0, scale, shape)
    assume(np.min(np.abs(z)) > 1e-4)  # not at a kink
    check(structure.derivative(activation, z), COMPLEX)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_of_extreme_pre_activations_stay_finite(name, dtype):
    backend, activation = get_backend("cpu"), ACTIVATIONS[name]()
    a = np.array([[1e4, -1e4, 0.0, -0.0]], dtype=dtype)
    error, scratch = np.ones_like(a), np.empty_like(a)
    activation.activate(backend, a, scratch)
    activation.multiply_derivative(backend, error, a, scratch)
    for value in (a, error):
        assert value.dtype == np.dtype(dtype)
        assert np.all(np.isfinite(value))
    kink = {"relu": 0.0, "leaky-relu": 0.1}.get(name)
    if kink is not None:
        assert error.tolist() == np.array([[1.0, kink, kink, kink]], dtype=dtype).tolist()


@kinds
@given(data=st.data(), hard=st.booleans())
def test_error_is_minus_the_slope_of_the_log_likelihood(kind, data, hard):
    likelihood, z, t, _ = draw_end(data, kind, hard)
    check(ends.error_is_slope(End(likelihood), z, t), COMPLEX)
    check(ends.classical_update(End(likelihood), z, t))


@given(data=st.data(), std=st.floats(0.01, 3.0))
def test_three_softmax_updates_of_noisy_targets(data, std):
    likelihood, z, t, generator = draw_end(data, "multinomial", hard=True)
    assert isinstance(likelihood, Multinomial)
    n = generator.normal(0.0, std, z.shape)
    check(ends.noisy_softmax_errors(End(likelihood), z, t, n))
    check(ends.error_is_slope(End(likelihood), z, t + n), COMPLEX)


@pytest.mark.parametrize("kind", ["gaussian", "bernoulli"])
@given(data=st.data())
def test_noisy_targets_of_the_other_likelihoods_have_one_error(kind, data):
    likelihood, z, t, generator = draw_end(data, kind)
    noisy = t + generator.normal(0.0, 0.5, z.shape)
    check(ends.error_is_slope(End(likelihood), z, noisy), COMPLEX)


@kinds
@given(data=st.data())
def test_log_likelihood_and_link_are_those_of_scipy(kind, data):
    likelihood, z, t, _ = draw_end(data, kind, hard=data.draw(st.booleans()))
    check(ends.definitions(End(likelihood), z, t))


@kinds
@given(data=st.data())
def test_sum_of_log_likelihoods_from_sums_of_targets(kind, data):
    likelihood, z, _, generator = draw_end(data, kind)
    members = data.draw(st.lists(st.integers(0, len(z) - 1), max_size=12), label="members")
    t = targets(likelihood, generator, len(members), z.shape[1], hard=data.draw(st.booleans()))
    check(ends.class_sums(End(likelihood), z, t, members))


@kinds
@given(data=st.data(), std=st.floats(0.01, 2.0))
def test_gain_terms_sum_to_the_gain(kind, data, std):
    likelihood, z, t, generator = draw_end(data, kind, hard=True)
    n = generator.normal(0.0, std, z.shape)
    check(ends.gains(End(likelihood), z, t, n))


@kinds
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_extreme_pre_activations_stay_finite(kind, dtype, extreme):
    likelihood = LIKELIHOODS[kind]()
    z = np.array([[extreme, 0.0, 1.0], [extreme, -extreme, 0.0], [extreme] * 3], dtype=dtype)
    t = np.eye(3, dtype=dtype)
    o = likelihood.at(z)
    n, terms, error = np.full_like(z, 0.1), np.empty_like(z), np.empty_like(z)
    likelihood.gain_terms(o, t, n, terms)
    likelihood.error(o, t, error)
    for value in (o.a, likelihood.log_likelihood(o, t), error, terms):
        assert value.dtype == np.dtype(dtype)
        assert np.all(np.isfinite(value))
    if not isinstance(likelihood, Gaussian):
        assert np.all((o.a >= 0.0) & (o.a <= 1.0))
        log_p = likelihood.log_likelihood(o, t)[:, 0]
        expected = textbook.log_likelihood(likelihood, z.astype(float), t.astype(float))
        assert_near(log_p, expected, 1e-6, "log p at extremes", scale=1.0)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@each_pair
@fewer
@given(data=st.data())
def test_gradient_is_that_of_the_mean_nll_in_both_directions(pair, activation, data):
    case = data.draw(cases(pair, activation))
    net, (x, t) = case.net(), case.batch()
    for direction, source, target in ((net, x, t), (net.reversed, t, x)):
        if not case.analytic:
            assume(gradients.away_from_kinks(direction, source))
        arguments = direction, source, target
        options = {"smooth": case.analytic, "seed": case.seed}
        for law in (gradients.against_slopes, gradients.input_error):
            check(law(*arguments, "central", **options), CENTRAL)
            if case.analytic:
                check(law(*arguments, "complex", **options), COMPLEX)


@each_pair
@given(data=st.data())
def test_gradient_is_the_chain_rules_in_both_directions(pair, data):
    case: Case = data.draw(cases(pair))
    net, (x, t) = case.net(), case.batch()
    check(gradients.against_chain_rule(net, x, t))
    check(gradients.against_chain_rule(net.reversed, t, x))


@given(case=cases(), likelihood=any_likelihood)
def test_gradient_of_any_real_targets(case, likelihood):
    """Noisy targets are no distributions: the gradient is still that of log p's formula."""
    case = case.with_(forward=likelihood)
    net, (x, _) = case.net(), case.batch()
    t = case.generator("noise").normal(0.0, 1.0, (case.rows, net.outputs))
    check(gradients.against_chain_rule(net, x, t))
