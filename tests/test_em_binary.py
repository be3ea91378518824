"""The binary network: log p = Q + H and its gradients, generalized EM, the NEM inequality."""

from __future__ import annotations

import math

import numpy as np
import pytest
from em_cases import (
    LIKELIHOODS,
    check_fisher,
    check_gem,
    check_nem,
    check_q_gradient,
    em_cases,
    evaluate,
    make_case,
    relative,
    slope_along,
)
from hypothesis import given
from hypothesis import strategies as st

from nembp.em import (
    BinaryNetwork,
    draw_noise,
    entropy,
    gem_step,
    gradient,
    nem_inequality,
    posterior,
    q,
)
from nembp.em.binary import gains_at
from nembp.engine.activations import Logistic
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.linear import Dense
from nembp.engine.network import Layer, Network
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError, ShapeError

WAYS = ["forward", "backward"]
conditions = st.sampled_from(["posterior", "every"])


# -- the model against others ----------------------------------------------------------------------
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_log_likelihood_and_gradient_are_pytorch_s(likelihood, way):
    torch = pytest.importorskip("torch", reason="the oracle needs torch, which CI installs")
    case = make_case(3, likelihood, LIKELIHOODS[2], (3, 4, 2), way=way)
    theta = torch.tensor(case.theta, requires_grad=True)
    W, b, V, c = case.net.layers(np.arange(theta.numel()))  # where they lie in Θ
    x, y, h = torch.tensor(case.x), torch.tensor(case.y)[:, None], torch.tensor(case.net.states)
    hidden = torch.distributions.Bernoulli(logits=(x @ theta[W] + theta[b])[:, None, :])
    z = (h @ theta[V] + theta[c])[None, :, :]
    if isinstance(likelihood, Gaussian):
        end = torch.distributions.Normal(z, math.sqrt(likelihood.variance)).log_prob(y).sum(2)
    elif isinstance(likelihood, Bernoulli):
        end = torch.distributions.Bernoulli(logits=z).log_prob(y).sum(2) * likelihood.weight
    else:
        end = (y * torch.log_softmax(z, 2)).sum(2) * likelihood.weight
    total = torch.logsumexp(hidden.log_prob(h[None]).sum(2) + end, 1).sum()
    total.backward()
    assert relative(gradient(*case.at), theta.grad.numpy()) < 1e-12
    assert case.net.log_likelihood(*case.at[1:]) == pytest.approx(total.item(), rel=1e-12)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_saturated_network_is_the_engine_with_the_same_parameters(likelihood, way):
    # where every hidden probability is 0 or 1, the stochastic layer is the logistic one
    case = make_case(5, likelihood, likelihood, (3, 4, 3), way=way)
    layers, maps = [Layer(3), Layer(4, Logistic()), Layer(3)], [Dense(3, 4), Dense(4, 3)]
    engine = Network(layers, maps, likelihood, likelihood, dtype="float64")
    theta = case.theta.copy()
    _, b, _, _ = case.net.layers(theta)
    b += 1000.0 * np.sign(b)
    engine.parameters[...] = theta
    view = engine if way == "forward" else engine.reversed
    expected = float(view.log_likelihood(case.x, case.y).sum())
    assert case.net.log_likelihood(theta, case.x, case.y) == pytest.approx(expected, rel=1e-12)


# -- EM's two terms --------------------------------------------------------------------------------
@given(em_cases(max_scale=8.0))
def test_log_p_is_q_plus_h_and_fisher_s_identity_holds(case):
    check_fisher(case)


@given(em_cases(max_scale=1.5))
def test_gradient_of_q_is_its_slope(case):
    check_q_gradient(case)


@given(em_cases(max_scale=1.5))
def test_entropy_is_stationary_and_least_at_theta_n(case):
    def value(theta):
        return entropy(case.net, theta, *case.terms)

    d = case.generator.standard_normal(case.net.parameter_count)
    assert abs(slope_along(value, case.theta, d)) < 1e-5
    assert value(case.other) >= value(case.theta) - 1e-12
    bits = case.net.hidden * len(case.x)
    assert -1e-12 <= value(case.theta) <= bits * math.log(2.0) + 1e-9


# -- generalized EM --------------------------------------------------------------------------------
@given(em_cases(max_scale=1.0), st.booleans(), st.floats(1e-3, 1e3), st.integers(1, 3))
def test_a_step_never_lowers_log_p(case, both, rate, ascents):
    check_gem(case, both=both, rate=rate, ascents=ascents)


@given(em_cases(max_scale=1.0))
def test_log_p_rises_by_q_and_the_divergence_of_the_posteriors(case):
    step = gem_step(*case.at)
    log_p, H, Q = (
        [of(theta) for theta in (case.theta, step.theta)]
        for of in (
            lambda theta: case.net.log_likelihood(theta, case.x, case.y),
            lambda theta: entropy(case.net, theta, *case.terms),
            lambda theta: q(case.net, theta, *case.terms),
        )
    )
    assert H[1] >= H[0] - 1e-10
    assert [step.q_before, step.q_after] == pytest.approx(Q, rel=1e-12)
    assert log_p[1] - log_p[0] == pytest.approx(Q[1] - Q[0] + H[1] - H[0], abs=1e-9)


def test_a_small_gradient_step_is_backpropagation_in_both_directions():
    case = make_case(0, Multinomial(), Gaussian())
    step = gem_step(*case.at, both=True, rate=1e-3)
    slope = gradient(*case.at) + gradient(case.net.reversed, case.theta, case.y, case.x)
    np.testing.assert_allclose(step.theta, case.theta + 1e-3 * slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("condition", ["every", "posterior"])
def test_a_noisy_step_climbs_from_a_q_that_nem_noise_did_not_lower(condition):
    case = make_case(5, Gaussian(), Gaussian(), rows=12, scale=0.4)
    noise, theta = Noise("nem", std=0.5, rejected="zero"), case.theta
    for t in (1, 2, 3):
        at = (case.net, theta, case.x, case.y)
        n = draw_noise(*at, noise, case.generator, condition=condition, iteration=t)
        assert n.any()
        step = gem_step(*at, noise_y=n)
        assert step.q_after >= step.q_before >= q(case.net, theta, posterior(*at), *at[2:])
        theta = step.theta


# -- the NEM inequality ----------------------------------------------------------------------------
@given(em_cases(), st.sampled_from(["vector", "component"]))
def test_gain_is_the_log_ratio_of_the_complete_data(case, screening):
    n = case.generator.normal(0.0, 0.5, case.y.shape)
    ratio = case.net.log_joint(case.theta, case.x, case.y + n) - case.net.log_joint(*case.at[1:])
    gain = gains_at(case.net, case.theta, case.y, Noise("nem", screening=screening))(n)
    np.testing.assert_allclose(gain.sum(axis=2), ratio, rtol=1e-9, atol=1e-9)


@given(em_cases(), conditions)
def test_nem_noise_helps_and_anti_noise_harms(case, condition):
    check_nem(case, condition)
    nem, blind, anti = (
        evaluate(case, Noise(kind, 0.5), condition=condition) for kind in ("nem", "blind", "anti")
    )
    assert anti.exact <= 1e-12
    assert anti.sampled <= 1e-12
    if condition == "posterior":
        assert nem.exact >= blind.exact - 1e-12
        assert blind.exact >= anti.exact - 1e-12
    else:  # whatever the posterior
        options = {"condition": "every", "theta_star": case.other}
        assert evaluate(case, Noise("nem", 0.5), **options).exact >= 0.0


def test_posterior_screening_does_not_guarantee_it_for_another_posterior():
    # why `every` exists, which keeps less noise
    cases = [make_case(seed, Gaussian(), Gaussian(), scale=3.0, rows=1) for seed in range(10)]
    found = [evaluate(each, Noise("nem", 0.5), theta_star=-each.theta).exact for each in cases]
    assert min(found) < 0.0
    case = make_case(7, Multinomial(), Gaussian(), scale=3.0, rows=20)
    noise, options = Noise("nem", 0.5, rejected="zero"), {"support": "continuous", "draws": 200}
    weak, strong = (
        evaluate(case, noise, condition=each, **options).nonzero for each in ("posterior", "every")
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
    n = draw_noise(*case.at, noise, case.generator, condition=condition)
    if mode == "multiplicative":
        assert not n[case.y == 0.0].any()
    r, x, y = case.terms
    clean, noisy = (q(case.net, case.theta, r, x, target) for target in (y, y + n))
    assert noisy >= clean - 1e-9 * max(1.0, abs(clean))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rejected", ["zero", "reflect"])
@pytest.mark.parametrize("kind", ["nem", "blind", "anti"])
def test_sampling_agrees_with_the_exact_value(kind, rejected, way):
    # 24 means, |z| < 5: false alarms in 1.4e-5 of all fresh seeds
    case = make_case(8, Multinomial(), Gaussian(0.7), (2, 3, 3), way=way)
    for mode in ("additive", "multiplicative"):
        noise = Noise(kind, std=0.3, rejected=rejected, mode=mode)
        found = evaluate(case, noise, draws=4000, generator=np.random.default_rng(11))
        assert abs(found.sampled - found.exact) < 5 * found.standard_error + 1e-12


def test_exact_is_none_where_nothing_is_enumerated():
    case = make_case(9, Gaussian(), Gaussian())
    assert evaluate(case, Noise("nem"), support="continuous").exact is None
    assert evaluate(case, Noise("drift")).exact is None
    silent = evaluate(case, Noise("none"))
    assert (silent.exact, silent.sampled, silent.nonzero) == (0.0, 0.0, 0.0)


def test_errors_say_what_to_do():
    case = make_case(0, Multinomial(), Gaussian(), (2, 2, 9))
    net, theta, x, y = case.at
    nem, few = Noise("nem"), make_case(0, Gaussian(), Gaussian())
    by_batch, published = Noise("nem", screening="expectation"), Noise("nem", update="published")
    for error, match, call in (
        (ArchitectureError, "make the hidden layer smaller", lambda: BinaryNetwork(2, 15, 1)),
        (ArchitectureError, "at least 1", lambda: BinaryNetwork(0, 2, 1)),
        (ShapeError, "theta must have", lambda: net.log_likelihood(theta[1:], x, y)),
        (ShapeError, "the same rows", lambda: net.log_likelihood(theta, x, y[1:])),
        (ShapeError, "y must have shape", lambda: net.log_likelihood(theta, x, x)),
        (ShapeError, "x must be finite", lambda: net.log_likelihood(theta, x * np.nan, y)),
        (ShapeError, "target's shape", lambda: gem_step(*case.at, noise_y=x)),
        (ArchitectureError, "rate must be positive", lambda: gem_step(*case.at, rate=0.0)),
        (ArchitectureError, "draws must be", lambda: evaluate(case, nem, draws=1)),
        (ArchitectureError, "a generator", lambda: nem_inequality(*few.at, nem, None)),
        (ArchitectureError, "'continuous'", lambda: evaluate(case, nem)),
        (
            ArchitectureError,
            "must be every or posterior, got 'some'",
            lambda: evaluate(few, nem, condition="some"),
        ),
        (
            ArchitectureError,
            "must be continuous or lattice",
            lambda: evaluate(few, nem, support="grid"),
        ),
        (ArchitectureError, 'update="exact"', lambda: evaluate(few, published)),
        (ArchitectureError, 'condition="posterior"', lambda: evaluate(few, by_batch)),
    ):
        with pytest.raises(error, match=match):
            call()
