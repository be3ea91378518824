"""Generalized-EM steps on the binary network, with and without noise."""

from __future__ import annotations

import numpy as np
import pytest
from em_cases import DIRECTIONS, LIKELIHOODS, check_gem, em_cases, make_case, relative
from hypothesis import given
from hypothesis import strategies as st

from nembp.em import draw_noise, entropy, fit_gem, gem_step, gradient, q, q_gradient
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError


@given(
    em_cases(max_scale=2.0),
    st.sampled_from(DIRECTIONS),
    st.floats(1e-3, 1e3),
    st.integers(1, 4),
)
def test_a_step_never_lowers_log_p(case, direction, rate, ascents):
    check_gem(case, direction, rate=rate, ascents=ascents)


@given(em_cases(max_scale=1.0), st.sampled_from(DIRECTIONS))
def test_a_newton_step_never_lowers_log_p(case, direction):
    check_gem(case, direction, ascent="newton")


@given(em_cases(max_scale=1.0), st.sampled_from(DIRECTIONS))
def test_log_p_rises_by_q_and_the_divergence_of_the_posteriors(case, direction):
    step = gem_step(case.net, case.theta, case.x, case.y, direction)
    rise = step.log_likelihood_after - step.log_likelihood_before
    rest = (case.theta, case.x, case.y, direction)
    divergence = entropy(case.net, step.theta, *rest) - entropy(case.net, case.theta, *rest)
    assert divergence >= -1e-10
    assert rise == pytest.approx(step.q_after - step.q_before + divergence, abs=1e-9)
    assert step.q_before == pytest.approx(q(case.net, case.theta, *rest), rel=1e-12)
    assert step.q_after == pytest.approx(q(case.net, step.theta, *rest), rel=1e-12)


def test_a_small_gradient_step_is_backpropagation():
    case = make_case(0, Multinomial(), Gaussian())
    step = gem_step(case.net, case.theta, case.x, case.y, "joint", rate=1e-3)
    g = gradient(case.net, case.theta, case.x, case.y, "joint")
    np.testing.assert_allclose(step.theta, case.theta + 1e-3 * g, rtol=0, atol=1e-12)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS[::2], ids=str)
def test_newton_ascents_solve_the_m_step(likelihood, direction):
    # soft targets in the open simplex or cube keep the maximizer finite
    case = make_case(1, likelihood, Gaussian(2.0), (2, 2, 2), rows=40)
    y = 0.8 * case.y + 0.1 if not isinstance(likelihood, Gaussian) else case.y
    step = gem_step(case.net, 0.3 * case.theta, case.x, y, direction, ascent="newton", ascents=12)
    left = q_gradient(case.net, step.theta, 0.3 * case.theta, case.x, y, direction)
    start = q_gradient(case.net, 0.3 * case.theta, 0.3 * case.theta, case.x, y, direction)
    assert np.abs(left).max() < 1e-4 * np.abs(start).max()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_fit_climbs_monotonically_towards_a_stationary_point(direction):
    case = make_case(2, Bernoulli(), Gaussian(), rows=8)
    history = fit_gem(case.net, case.theta, case.x, case.y, direction, iterations=60)
    rises = np.diff(history.log_likelihood)
    assert len(rises) == 60
    assert rises.min() >= -1e-12
    g0 = gradient(case.net, case.theta, case.x, case.y, direction)
    g = gradient(case.net, history.theta, case.x, case.y, direction)
    assert np.linalg.norm(g) < 0.2 * np.linalg.norm(g0)
    assert history.log_likelihood[-1] == pytest.approx(
        case.net.log_likelihood(history.theta, case.x, case.y, direction)
    )


def test_more_ascents_for_each_e_step_come_closer_to_em():
    case = make_case(3, Gaussian(), Gaussian(), rows=8)
    one = fit_gem(case.net, case.theta, case.x, case.y, "joint", iterations=5)
    many = fit_gem(case.net, case.theta, case.x, case.y, "joint", iterations=5, ascents=10)
    assert many.log_likelihood[-1] > one.log_likelihood[-1]
    assert all(step.ascents == 10 for step in many.steps)


def test_fit_with_noise_climbs_the_noisy_q_and_is_repeatable():
    case = make_case(4, Multinomial(), Gaussian(), rows=6)

    def fit(seed, **noise):
        return fit_gem(
            case.net,
            case.theta,
            case.x,
            case.y,
            "joint",
            iterations=4,
            generator=np.random.default_rng(seed),
            **noise,
        )

    noisy = fit(0, noise_y=Noise("nem", std=0.3), noise_x=Noise("nem", std=0.3))
    assert all(step.q_after >= step.q_before for step in noisy.steps)
    clean = [
        q(case.net, t, t, case.x, case.y, "joint")
        for t in (case.theta, *(step.theta for step in noisy.steps[:-1]))
    ]
    # NEM noise: Q_N(Θₙ | Θₙ) ≥ Q(Θₙ | Θₙ) at every step
    assert all(step.q_before >= c for step, c in zip(noisy.steps, clean, strict=True))
    again = fit(0, noise_y=Noise("nem", std=0.3), noise_x=Noise("nem", std=0.3))
    other = fit(1, noise_y=Noise("nem", std=0.3), noise_x=Noise("nem", std=0.3))
    assert relative(noisy.theta, again.theta) == 0.0
    assert relative(noisy.theta, other.theta) > 0.0
    silent = fit(0, noise_y=Noise("none"))
    plain = fit_gem(case.net, case.theta, case.x, case.y, "joint", iterations=4)
    assert relative(silent.theta, plain.theta) == 0.0


@pytest.mark.parametrize("condition", ["every", "posterior"])
def test_fit_draws_annealed_noise_screened_at_the_current_theta(condition):
    case = make_case(5, Gaussian(), Gaussian(), rows=12, scale=0.4)
    noise = Noise("nem", std=0.5, rejected="zero")
    history = fit_gem(
        case.net,
        case.theta,
        case.x,
        case.y,
        iterations=3,
        noise_y=noise,
        condition=condition,
        generator=np.random.default_rng(7),
    )
    g = np.random.default_rng(7)
    theta = case.theta
    for t in (1, 2, 3):
        n = draw_noise(
            case.net, theta, case.x, case.y, "forward", noise, g, condition=condition, iteration=t
        )
        assert n.any()
        theta = gem_step(case.net, theta, case.x, case.y, noise_y=n).theta
    np.testing.assert_array_equal(history.theta, theta)


def test_newton_turns_to_the_gradient_where_noise_bends_q_upwards():
    # softmax targets that sum to −1 make Q_N convex: its Newton direction points downhill
    case = make_case(6, Multinomial(), Gaussian(), rows=6)
    step = gem_step(
        case.net,
        0.1 * case.theta,
        case.x,
        case.y,
        ascent="newton",
        ascents=3,
        noise_y=-2.0 * case.y,
    )
    assert step.ascents == 3
    assert step.q_after > step.q_before


def test_errors_say_what_to_do():
    case = make_case(0, Bernoulli(), Gaussian())
    arguments = (case.net, case.theta, case.x, case.y)
    with pytest.raises(ArchitectureError, match="rate must be positive"):
        gem_step(*arguments, rate=0.0)
    with pytest.raises(ArchitectureError, match="ascent must be one of gradient, newton"):
        gem_step(*arguments, ascent="up")
    with pytest.raises(ArchitectureError, match="iterations must be at least 1"):
        fit_gem(*arguments, iterations=0)
    with pytest.raises(ArchitectureError, match="noise needs a generator"):
        fit_gem(*arguments, iterations=1, noise_y=Noise("nem"))
