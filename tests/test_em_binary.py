"""The binary network: log p = Q + H and its gradients, generalized EM, the NEM inequality."""

from __future__ import annotations

import math

import numpy as np
import pytest
from em_cases import (
    DIRECTIONS,
    LIKELIHOODS,
    check_decomposition,
    check_fisher,
    check_gem,
    check_nem,
    check_q_gradient,
    em_cases,
    evaluate,
    make_case,
    noises_for,
    relative,
    slope_along,
)
from hypothesis import given
from hypothesis import strategies as st

from nembp.em import (
    BinaryNetwork,
    draw_noise,
    entropy,
    entropy_gradient,
    gem_step,
    gradient,
    nem_inequality,
    posterior,
    q,
    q_gradient,
)
from nembp.em.binary import gains_at
from nembp.engine.activations import Logistic
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.linear import Dense
from nembp.engine.network import Layer, Network
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError, ShapeError

directions = st.sampled_from(DIRECTIONS)
conditions = st.sampled_from(["posterior", "every"])


# -- the model against others ----------------------------------------------------------------------
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_log_likelihood_and_gradient_are_pytorch_s(likelihood, direction):
    torch = pytest.importorskip("torch", reason="the oracle needs torch, which CI installs")
    case = make_case(3, likelihood, LIKELIHOODS[2], (3, 4, 2))
    net = case.net
    theta = torch.tensor(case.theta, requires_grad=True)
    W1, W2, b1, b2, d0, d1 = torch.split(theta, [12, 8, 4, 2, 3, 4])
    W1, W2 = W1.reshape(3, 4), W2.reshape(4, 2)
    h, x, y = torch.tensor(net.states), torch.tensor(case.x), torch.tensor(case.y)

    def log_p(source, target, W, b, V, c, likelihood):
        hidden = torch.distributions.Bernoulli(logits=(source @ W + b)[:, None, :])
        z = (h @ V + c)[None, :, :]
        t = target[:, None, :]
        if isinstance(likelihood, Gaussian):
            normal = torch.distributions.Normal(z, math.sqrt(likelihood.variance))
            end = normal.log_prob(t).sum(2)
        elif isinstance(likelihood, Bernoulli):
            end = torch.distributions.Bernoulli(logits=z).log_prob(t).sum(2) * likelihood.weight
        else:
            end = (t * torch.log_softmax(z, 2)).sum(2) * likelihood.weight
        return torch.logsumexp(hidden.log_prob(h[None]).sum(2) + end, 1).sum()

    total = torch.zeros(())
    if direction != "backward":
        total = total + log_p(x, y, W1, b1, W2, b2, net.forward)
    if direction != "forward":
        total = total + log_p(y, x, W2.T, d1, W1.T, d0, net.backward)
    total.backward()
    assert relative(gradient(*case.at, direction), theta.grad.numpy()) < 1e-12
    found = net.log_likelihood(case.theta, case.x, case.y, direction)
    assert found == pytest.approx(total.item(), rel=1e-12)


@given(em_cases())
def test_joint_is_the_sum_of_both_directions(case):
    shifted = (case.net, case.other, case.theta, case.x, case.y)
    for function, arguments in (
        (q, shifted),
        (entropy, shifted),
        (q_gradient, shifted),
        (entropy_gradient, shifted),
        (gradient, case.at),
        (BinaryNetwork.log_likelihood, case.at),
    ):
        joint, forward, backward = (
            function(*arguments, way) for way in ("joint", "forward", "backward")
        )
        np.testing.assert_allclose(joint, forward + backward, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_saturated_network_is_the_engine_with_the_same_parameters(likelihood, way):
    # where every hidden probability is 0 or 1, the stochastic layer is the logistic one
    case = make_case(5, likelihood, likelihood, (3, 4, 3))
    layers, maps = [Layer(3), Layer(4, Logistic()), Layer(3)], [Dense(3, 4), Dense(4, 3)]
    engine = Network(layers, maps, likelihood, likelihood, dtype="float64")
    theta = case.theta.copy()
    into_hidden = case.net.layers(theta, way)
    into_hidden.b[...] += 1000.0 * np.sign(into_hidden.b)
    engine.parameters[...] = theta
    view, x, t = (engine, case.x, case.y) if way == "forward" else (engine.reversed, case.y, case.x)
    expected = float(view.log_likelihood(x, t).sum())
    found = case.net.log_likelihood(theta, case.x, case.y, way)
    assert found == pytest.approx(expected, rel=1e-12)


# -- EM's two terms --------------------------------------------------------------------------------
@given(em_cases(max_scale=8.0), directions)
def test_log_p_is_q_plus_h_and_fisher_s_identity_holds(case, direction):
    check_decomposition(case, direction)
    check_fisher(case, direction)
    arguments = (case.net, case.other, case.theta, case.x, case.y, direction)
    total = q_gradient(*arguments) + entropy_gradient(*arguments)
    assert relative(total, gradient(case.net, case.other, case.x, case.y, direction)) < 1e-10


@given(em_cases(max_scale=1.5), directions)
def test_gradient_of_q_is_its_slope_with_noise_and_without(case, direction):
    check_q_gradient(case, direction)
    noise = noises_for(direction, None)
    for name in noise:
        shape = (case.y if name == "noise_y" else case.x).shape
        noise[name] = 0.1 * case.generator.standard_normal(shape)
    check_q_gradient(case, direction, **noise)
    expected = 0.0  # the clean target's posterior weighs the noisy target's log p
    for way in ("forward", "backward") if direction == "joint" else (direction,):
        forward = way == "forward"
        noisy = (
            (case.x, case.y + noise["noise_y"]) if forward else (case.x + noise["noise_x"], case.y)
        )
        r = posterior(*case.at, way)
        expected += (r * case.net.log_joint(case.other, *noisy, way)).sum()
    found = q(case.net, case.other, case.theta, case.x, case.y, direction, **noise)
    assert found == pytest.approx(expected, rel=1e-12)


@given(em_cases(max_scale=1.5), directions)
def test_entropy_is_stationary_and_least_at_theta_n(case, direction):
    def value(theta):
        return entropy(case.net, theta, case.theta, case.x, case.y, direction)

    d = case.generator.standard_normal(case.net.parameter_count)
    assert abs(slope_along(value, case.theta, d)) < 1e-5
    away = float(entropy_gradient(case.net, case.other, case.theta, case.x, case.y, direction) @ d)
    assert abs(slope_along(value, case.other, d) - away) < 1e-5 * max(1.0, abs(away))
    assert value(case.other) >= value(case.theta) - 1e-12
    bits = case.net.hidden * len(case.x) * (2 if direction == "joint" else 1)
    assert -1e-12 <= value(case.theta) <= bits * math.log(2.0) + 1e-9


# -- generalized EM --------------------------------------------------------------------------------
@given(em_cases(max_scale=1.0), directions, st.floats(1e-3, 1e3), st.integers(1, 3))
def test_a_step_never_lowers_log_p(case, direction, rate, ascents):
    check_gem(case, direction, rate=rate, ascents=ascents)


@given(em_cases(max_scale=1.0), directions)
def test_log_p_rises_by_q_and_the_divergence_of_the_posteriors(case, direction):
    step = gem_step(*case.at, direction)
    rise = step.log_likelihood_after - step.log_likelihood_before
    rest = (case.theta, case.x, case.y, direction)
    divergence = entropy(case.net, step.theta, *rest) - entropy(case.net, case.theta, *rest)
    assert divergence >= -1e-10
    assert rise == pytest.approx(step.q_after - step.q_before + divergence, abs=1e-9)
    assert step.q_after == pytest.approx(q(case.net, step.theta, *rest), rel=1e-12)


def test_a_small_gradient_step_is_backpropagation():
    case = make_case(0, Multinomial(), Gaussian())
    step = gem_step(*case.at, "joint", rate=1e-3)
    expected = case.theta + 1e-3 * gradient(*case.at, "joint")
    np.testing.assert_allclose(step.theta, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_repeated_steps_climb_towards_a_stationary_point(direction):
    case = make_case(2, Bernoulli(), Gaussian(), rows=8)

    def fit(iterations, ascents=1):
        theta, history = case.theta, [case.net.log_likelihood(*case.at[1:], direction)]
        for _ in range(iterations):
            step = gem_step(case.net, theta, case.x, case.y, direction, ascents=ascents)
            theta = step.theta
            history.append(step.log_likelihood_after)
        return theta, history

    theta, history = fit(60)
    assert np.diff(history).min() >= -1e-12
    g = gradient(case.net, theta, case.x, case.y, direction)
    assert np.linalg.norm(g) < 0.2 * np.linalg.norm(gradient(*case.at, direction))
    assert fit(5, ascents=10)[1][-1] > fit(5)[1][-1]


@pytest.mark.parametrize("condition", ["every", "posterior"])
def test_a_noisy_step_climbs_from_a_q_that_nem_noise_did_not_lower(condition):
    case = make_case(5, Gaussian(), Gaussian(), rows=12, scale=0.4)
    noise, theta = Noise("nem", std=0.5, rejected="zero"), case.theta
    for t in (1, 2, 3):
        at = (case.net, theta, case.x, case.y)
        n = draw_noise(*at, "forward", noise, case.generator, condition=condition, iteration=t)
        assert n.any()
        step = gem_step(*at, noise_y=n)
        assert step.q_after >= step.q_before >= q(case.net, theta, theta, case.x, case.y)
        theta = step.theta


# -- the NEM inequality ----------------------------------------------------------------------------
@given(em_cases(), st.sampled_from(["forward", "backward"]))
def test_gain_is_the_log_ratio_of_the_complete_data(case, way):
    target = case.y if way == "forward" else case.x
    n = case.generator.normal(0.0, 0.5, target.shape)
    noisy = (case.x, case.y + n) if way == "forward" else (case.x + n, case.y)
    log_joint = case.net.log_joint
    ratio = log_joint(case.theta, *noisy, way) - log_joint(case.theta, case.x, case.y, way)
    for screening in ("vector", "component"):
        noise = Noise("nem", screening=screening)
        gain = gains_at(case.net, case.theta, target, way, noise)(n)
        np.testing.assert_allclose(gain.sum(axis=2), ratio, rtol=1e-9, atol=1e-9)


@given(em_cases(), directions, conditions)
def test_nem_noise_helps_and_anti_noise_harms(case, direction, condition):
    check_nem(case, direction, condition)
    kinds = ("nem", "blind", "anti")
    nem, blind, anti = (
        evaluate(case, direction, Noise(kind, 0.5), condition=condition) for kind in kinds
    )
    assert anti.exact <= 1e-12
    assert anti.q_gain <= 1e-12
    if condition == "posterior":
        assert nem.exact >= blind.exact - 1e-12
        assert blind.exact >= anti.exact - 1e-12
    else:  # whatever the posterior
        options = {"condition": "every", "theta_star": case.other}
        assert evaluate(case, direction, Noise("nem", 0.5), **options).exact >= 0.0


def test_posterior_screening_does_not_guarantee_it_for_another_posterior():
    # why `every` exists, which keeps less noise
    cases = [make_case(seed, Gaussian(), Gaussian(), scale=3.0, rows=1) for seed in range(10)]
    noise = Noise("nem", std=0.5)
    found = [evaluate(case, "forward", noise, theta_star=-case.theta).exact for case in cases]
    assert min(found) < 0.0
    case = make_case(7, Multinomial(), Gaussian(), scale=3.0, rows=20)
    options = {"support": "continuous", "draws": 200}
    noise = Noise("nem", std=0.5, rejected="zero")
    weak, strong = (
        evaluate(case, "forward", noise, condition=each, **options).nonzero
        for each in ("posterior", "every")
    )
    assert strong < weak


@given(
    em_cases(),
    conditions,
    st.sampled_from(["zero", "reflect"]),
    st.sampled_from(["vector", "component"]),
    st.sampled_from(["additive", "multiplicative"]),
    st.sampled_from(["gaussian", "uniform"]),
)
def test_each_screened_draw_makes_q_no_lower(case, condition, rejected, screening, mode, law):
    noise = Noise("nem", 0.5, rejected=rejected, screening=screening, mode=mode, law=law)
    n = draw_noise(*case.at, "forward", noise, case.generator, condition=condition)
    if mode == "multiplicative":
        assert not n[case.y == 0.0].any()
    clean = q(case.net, case.theta, case.theta, case.x, case.y)
    noisy = q(case.net, case.theta, case.theta, case.x, case.y, noise_y=n)
    assert noisy >= clean - 1e-9 * max(1.0, abs(clean))


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_blind_noise_is_free_for_half_spaces_and_costly_for_the_gaussian(likelihood):
    case = make_case(3, likelihood, Gaussian())
    found = evaluate(case, "forward", Noise("blind", std=0.5)).exact
    expected = 0.0
    if isinstance(likelihood, Gaussian):  # −E‖n‖²/2v; elsewhere the gain is linear in n
        expected = -case.y.size * 0.25 / (2 * likelihood.variance)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rejected", ["zero", "reflect"])
@pytest.mark.parametrize("kind", ["nem", "blind", "anti"])
def test_sampling_agrees_with_the_exact_value(kind, rejected):
    # 12 cases with two means each, |z| < 5: false alarms in 1.4e-5 of all fresh seeds
    case = make_case(8, Multinomial(), Gaussian(0.7), (2, 3, 3))
    for mode in ("additive", "multiplicative"):
        noise = Noise(kind, std=0.3, rejected=rejected, mode=mode)
        options = {"draws": 4000, "generator": np.random.default_rng(11)}
        found = evaluate(case, "joint", noise, **options)
        assert abs(found.sampled - found.exact) < 5 * found.standard_error
        assert abs(found.q_gain - found.exact) < 5 * found.q_gain_standard_error + 1e-12
        # averaging over h instead of sampling it cannot add variance
        assert found.q_gain_standard_error <= 1.05 * found.standard_error


def test_exact_is_none_where_nothing_is_enumerated():
    case = make_case(9, Gaussian(), Gaussian())
    for noise, support in ((Noise("nem"), "continuous"), (Noise("drift"), "lattice")):
        found = evaluate(case, "forward", noise, support=support)
        assert found.exact is None
        assert found.holds == (found.sampled >= 0.0)
    silent = evaluate(case, "forward", Noise("none"))
    assert (silent.exact, silent.sampled, silent.nonzero) == (0.0, 0.0, 0.0)


def test_noise_is_annealed():
    case = make_case(11, Gaussian(), Gaussian(), rows=200)
    noise = Noise("blind", std=1.0, decay=1.0)
    draws = [draw_noise(*case.at, "forward", noise, case.generator, iteration=t) for t in (1, 10)]
    # 400 draws: 5.6 standard errors
    assert [n.std() for n in draws] == pytest.approx([1.0, 0.1], rel=0.2)


def test_errors_say_what_to_do():
    case = make_case(0, Multinomial(), Gaussian(), (2, 2, 9))
    net, theta, x, y = case.at
    nem, g = Noise("nem"), {"generator": case.generator}
    for error, match, call in (
        (ArchitectureError, "make the hidden layer smaller", lambda: BinaryNetwork(2, 15, 1)),
        (ArchitectureError, "inputs must be at least 1", lambda: BinaryNetwork(0, 2, 1)),
        (ArchitectureError, "direction must be", lambda: net.log_likelihood(theta, x, y, "up")),
        (ArchitectureError, "ask for one direction", lambda: posterior(*case.at, "joint")),
        (ArchitectureError, "ask for 'joint'", lambda: q(net, theta, *case.at[1:], noise_x=x)),
        (ShapeError, "the shape of y", lambda: q(net, theta, *case.at[1:], noise_y=x)),
        (ShapeError, "theta must have", lambda: net.log_likelihood(theta[1:], x, y)),
        (ShapeError, "same number of rows", lambda: net.log_likelihood(theta, x, y[1:])),
        (ShapeError, "y must have shape", lambda: net.log_likelihood(theta, x, x)),
        (ShapeError, "x must be finite", lambda: net.log_likelihood(theta, x * np.nan, y)),
        (ArchitectureError, "rate must be positive", lambda: gem_step(*case.at, rate=0.0)),
        (ArchitectureError, "on its own target", lambda: nem_inequality(*case.at, **g)),
        (
            ArchitectureError,
            "draws ≥ 2",
            lambda: nem_inequality(*case.at, noise_y=nem, draws=1, **g),
        ),
        (ArchitectureError, "'continuous'", lambda: evaluate(case, "forward", nem)),
        (
            ArchitectureError,
            "condition must",
            lambda: evaluate(case, "backward", nem, condition="some"),
        ),
        (ArchitectureError, "support must", lambda: evaluate(case, "forward", nem, support="grid")),
        (
            ArchitectureError,
            'update="exact"',
            lambda: evaluate(case, "backward", Noise("nem", update="published")),
        ),
        (
            ArchitectureError,
            'condition="posterior"',
            lambda: evaluate(case, "backward", Noise("nem", screening="expectation")),
        ),
    ):
        with pytest.raises(error, match=match):
            call()
