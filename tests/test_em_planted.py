"""Planted bugs: the laws of nembp.em must notice each one."""

from __future__ import annotations

import numpy as np
import pytest
from em_cases import (
    DIRECTIONS,
    check_fisher,
    check_gem,
    check_nem,
    check_q_gradient,
    check_scikit_learn,
    make_case,
    mixture_case,
)

from nembp.em import (
    binary,
    m_step,
    mixtures,
    posterior,
    screening,
)
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial


def prior_in_place_of_the_posterior(net, theta, x, y, direction="forward"):
    source, _ = net.source_and_target(x, y, direction)
    return np.exp(net.log_hidden(theta, source, direction))


def posterior_normalized_over_rows(net, theta, x, y, direction="forward"):
    joint = net.log_joint(theta, x, y, direction)
    p = np.exp(joint - joint.max())
    return p / p.sum(axis=0, keepdims=True)


def posterior_of_the_other_direction(net, theta, x, y, direction="forward"):
    return posterior(net, theta, x, y, "backward" if direction == "forward" else "forward")


def most_probable_state_only(net, theta, x, y, direction="forward"):
    r = posterior(net, theta, x, y, direction)
    return (r == r.max(axis=1, keepdims=True)).astype(float)


@pytest.mark.parametrize(
    "bug",
    [
        prior_in_place_of_the_posterior,
        posterior_normalized_over_rows,
        posterior_of_the_other_direction,
        most_probable_state_only,
    ],
)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_wrong_posterior_is_caught(monkeypatch, bug, direction):
    case = make_case(0, Multinomial(), Gaussian(0.5))
    check_fisher(case, direction)
    monkeypatch.setattr(binary, "posterior", bug)
    with pytest.raises(AssertionError):
        check_fisher(case, direction)


def test_q_with_the_posterior_of_theta_in_place_of_theta_n_is_caught(monkeypatch):
    case = make_case(0, Bernoulli(), Gaussian(0.5))
    check_q_gradient(case, "joint")
    right = binary.q

    def stale(net, theta, theta_n, *rest, **noise):
        return right(net, theta, theta, *rest, **noise)

    monkeypatch.setattr("em_cases.q", stale)
    with pytest.raises(AssertionError):
        check_q_gradient(case, "joint")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("factor", [-1.0, 0.5, 1.001])
def test_a_wrong_sign_or_factor_of_the_error_is_caught(monkeypatch, direction, factor):
    # the same bug in both gradients, so Fisher's identity alone would not see it
    case = make_case(1, Gaussian(0.4), Multinomial())
    right = binary._errors
    check_q_gradient(case, direction)
    monkeypatch.setattr(binary, "_errors", lambda *a: factor * right(*a))
    with pytest.raises(AssertionError):
        check_q_gradient(case, direction)


@pytest.mark.parametrize("direction", ["backward", "joint"])
def test_an_untransposed_weight_is_caught(monkeypatch, direction):
    case = make_case(2, Gaussian(), Gaussian(), (3, 3, 3))
    right = binary._assemble

    def untransposed(net, way, *slopes):
        flat = right(net, way, *slopes)
        if way == "backward":
            layers = net.layers(flat, way)
            layers.W[...] = layers.W.T.copy()
        return flat

    check_q_gradient(case, direction)
    monkeypatch.setattr(binary, "_assemble", untransposed)
    with pytest.raises(AssertionError):
        check_q_gradient(case, direction)


# -- generalized EM --------------------------------------------------------------------------------
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_descent_in_place_of_ascent_is_caught(monkeypatch, direction):
    case = make_case(4, Bernoulli(), Gaussian())
    check_gem(case, direction)
    value, slope = binary.q, binary.q_gradient
    monkeypatch.setattr(binary, "q", lambda *a, **k: -value(*a, **k))
    with pytest.raises(AssertionError):  # stuck: no step along ∇Q raises −Q
        check_gem(case, direction)
    monkeypatch.setattr(binary, "q_gradient", lambda *a, **k: -slope(*a, **k))
    with pytest.raises(AssertionError):  # downhill
        check_gem(case, direction)


def test_a_step_without_backtracking_is_caught(monkeypatch):
    case = make_case(4, Gaussian(0.1), Gaussian(0.1))
    check_gem(case, "joint")
    monkeypatch.setattr(binary, "ARMIJO", -1e9)  # accepts anything
    with pytest.raises(AssertionError):
        check_gem(case, "joint")


# -- noise -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_screening_the_wrong_way_is_caught(monkeypatch, direction):
    case = make_case(6, Multinomial(), Gaussian(0.5))
    check_nem(case, direction)
    right = screening._passes

    def wrong_way(noise, gain, *rest):
        return right(noise, -gain, *rest)

    monkeypatch.setattr(screening, "_passes", wrong_way)
    with pytest.raises(AssertionError):
        check_nem(case, direction)


def test_screening_with_the_noise_subtracted_is_caught(monkeypatch):
    case = make_case(6, Gaussian(0.5), Gaussian(0.5))
    right = binary.gains_at

    def subtracted(*arguments, **options):
        gains = right(*arguments, **options)
        return lambda n: gains(-n)

    check_nem(case, "joint")
    monkeypatch.setattr(binary, "gains_at", subtracted)
    with pytest.raises(AssertionError):
        check_nem(case, "joint")


# -- mixtures --------------------------------------------------------------------------------------
def unbiased_covariance(y, posterior, reg_covar=0.0):
    fitted = m_step(y, posterior, reg_covar)
    counts = posterior.sum(axis=0)
    factor = (counts / (counts - 1.0))[:, None, None]
    return mixtures.GaussianMixture(fitted.weights, fitted.means, factor * fitted.covariances)


def no_regularization(y, posterior, reg_covar=0.0):
    return m_step(y, posterior, 0.0)


def equal_weights(y, posterior, reg_covar=0.0):
    fitted = m_step(y, posterior, reg_covar)
    equal = np.full(len(fitted.weights), 1.0 / len(fitted.weights))
    return mixtures.GaussianMixture(equal, fitted.means, fitted.covariances)


@pytest.mark.parametrize("bug", [unbiased_covariance, no_regularization, equal_weights])
def test_a_wrong_m_step_is_caught(monkeypatch, bug):
    y, start = mixture_case(0, dimension=2)
    check_scikit_learn(y, start, iterations=3)
    monkeypatch.setattr(mixtures, "m_step", bug)
    with pytest.raises(AssertionError):
        check_scikit_learn(y, start, iterations=3)


@pytest.mark.parametrize("component", [0, 1])
def test_a_wrong_density_is_caught(monkeypatch, component):
    y, start = mixture_case(0, dimension=2)
    right = mixtures.GaussianMixture.log_joint

    def wrong(self, rows):
        table = right(self, rows)
        table[:, component] += 0.01
        return table

    monkeypatch.setattr(mixtures.GaussianMixture, "log_joint", wrong)
    with pytest.raises(AssertionError):
        check_scikit_learn(y, start, iterations=3)
