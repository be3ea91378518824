"""Laws of one direction, both directions of every pair: design.md, section 2."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from laws import gradients, textbook
from laws.numerics import KINK_MARGIN, ROUNDING, assert_near
from strategies import PAIRS, Case, any_likelihood, cases, likelihoods, seeds, targets

from nembp.likelihoods import LIKELIHOODS, Gaussian, Likelihood, Multinomial
from nembp.neurons import ACTIVATIONS

kinds = pytest.mark.parametrize("kind", sorted(LIKELIHOODS))
each_pair = pytest.mark.parametrize("pair", PAIRS, ids="-".join)
fewer = settings(max_examples=settings.default.max_examples // 5)  # of each of many
shapes = st.tuples(st.integers(1, 9), st.integers(1, 7))


def draw_end(
    data: st.DataObject, kind: str, hard: bool = False
) -> tuple[Likelihood, np.ndarray, np.ndarray, np.random.Generator]:
    likelihood = data.draw(likelihoods(kind), label="likelihood")
    rows, width = data.draw(shapes, label="shape")
    generator = np.random.default_rng(data.draw(seeds, label="seed"))
    z = generator.normal(0.0, data.draw(st.sampled_from([0.1, 1.0, 3.0])), (rows, width))
    return likelihood, z, targets(likelihood, generator, rows, width, hard), generator


@kinds
@given(data=st.data(), hard=st.booleans())
def test_error_is_minus_the_slope_of_the_log_likelihood(kind, data, hard):
    likelihood, z, t, _ = draw_end(data, kind, hard)
    gradients.check_error_is_slope(likelihood, z, t)
    gradients.check_classical_update(likelihood, z, t)


@given(data=st.data(), std=st.floats(0.01, 3.0))
def test_three_softmax_updates_of_noisy_targets(data, std):
    likelihood, z, t, generator = draw_end(data, "multinomial", hard=True)
    assert isinstance(likelihood, Multinomial)
    n = generator.normal(0.0, std, z.shape)
    gradients.check_noisy_softmax_errors(likelihood, z, t, n)


@pytest.mark.parametrize("kind", ["gaussian", "bernoulli"])
@given(data=st.data())
def test_noisy_targets_of_the_other_likelihoods_have_one_error(kind, data):
    likelihood, z, t, generator = draw_end(data, kind)
    gradients.check_error_is_slope(likelihood, z, t + generator.normal(0.0, 0.5, z.shape))


@kinds
@given(data=st.data())
def test_log_likelihood_and_link_are_those_of_scipy(kind, data):
    likelihood, z, t, _ = draw_end(data, kind, hard=data.draw(st.booleans()))
    o = likelihood.at(z)
    assert_near(o.a, textbook.link(likelihood, z), ROUNDING, "link", scale=1.0)
    if kind == "multinomial":
        assert_near(o.a.sum(axis=1), np.ones(len(z)), ROUNDING, "sum of softmax")
        assert_near(np.exp(o.z), o.a, ROUNDING, "z in normal form is log a")
    expected = textbook.log_likelihood(likelihood, z, t)[:, None]
    scale = likelihood.scale * (1.0 + float(np.max(np.abs(z))))
    assert_near(likelihood.log_likelihood(o, t), expected, ROUNDING, "log p", scale=scale)


@kinds
@given(data=st.data())
def test_sum_of_log_likelihoods_from_sums_of_targets(kind, data):
    likelihood, z, _, generator = draw_end(data, kind)
    members = data.draw(st.lists(st.integers(0, len(z) - 1), max_size=12), label="members")
    t = targets(likelihood, generator, len(members), z.shape[1], hard=data.draw(st.booleans()))
    gradients.check_log_likelihood_sums(likelihood, z, t, members)


@kinds
@given(data=st.data(), std=st.floats(0.01, 2.0))
def test_gain_terms_sum_to_the_gain(kind, data, std):
    likelihood, z, t, generator = draw_end(data, kind, hard=True)
    n = generator.normal(0.0, std, z.shape)
    terms = np.full_like(z, np.nan)
    likelihood.gain_terms(likelihood.at(z), t, n, terms)
    before = textbook.log_likelihood(likelihood, z, t)
    gain = textbook.log_likelihood(likelihood, z, t + n) - before
    scale = float(np.max(np.abs(before))) + likelihood.scale * (1.0 + float(np.max(np.abs(z))))
    assert_near(terms.sum(axis=1), gain, 1e-11, "gain", scale=scale)
    each = textbook.gain_terms(likelihood, z, t, n)
    assert_near(terms, each, 1e-11, "gain of each neuron", scale=scale)
    slope = np.full_like(z, np.nan)
    likelihood.gain_slope(likelihood.at(z), t, slope)
    h = 1e-6 * np.eye(z.shape[1])
    numeric = np.stack(
        [
            textbook.gain_terms(likelihood, z, t, np.broadcast_to(e, z.shape)).sum(axis=1)
            - textbook.gain_terms(likelihood, z, t, np.broadcast_to(-e, z.shape)).sum(axis=1)
            for e in h
        ],
        axis=1,
    ) / (2e-6)
    assert_near(slope, numeric, 1e-6, "slope of the gain", scale=1e-3 * scale)


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
            assume(gradients.away_from_kinks(direction, source, KINK_MARGIN))
        gradients.check_gradient(direction, source, target, analytic=case.analytic, seed=case.seed)


@each_pair
@given(data=st.data())
def test_gradient_is_the_chain_rules_in_both_directions(pair, data):
    case: Case = data.draw(cases(pair))
    net, (x, t) = case.net(), case.batch()
    gradients.check_against_chain_rule(net, x, t)
    gradients.check_against_chain_rule(net.reversed, t, x)


@given(case=cases(), likelihood=any_likelihood)
def test_gradient_of_any_real_targets(case, likelihood):
    """Noisy targets are no distributions: the gradient is still that of log p's formula."""
    case = case.with_(forward=likelihood)
    net, (x, _) = case.net(), case.batch()
    t = case.generator("noise").normal(0.0, 1.0, (case.rows, net.outputs))
    gradients.check_against_chain_rule(net, x, t)
