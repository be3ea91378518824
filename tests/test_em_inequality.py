"""The NEM inequality on the binary network: exactly, by sampling, and through Q_N − Q."""

from __future__ import annotations

import math

import numpy as np
import pytest
from em_cases import DIRECTIONS, LIKELIHOODS, check_nem, em_cases, make_case, noises_for
from hypothesis import given
from hypothesis import strategies as st

from nembp.em import draw_noise, nem_inequality, posterior, q
from nembp.em.binary_noise import gains_at
from nembp.em.closed_form import expected_gain
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError

CONDITIONS = ["posterior", "every"]


def evaluate(case, direction, noise, **options):
    options = {"generator": case.generator, "draws": 30, "support": "lattice"} | options
    return nem_inequality(
        case.net, case.theta, case.x, case.y, direction, **noises_for(direction, noise), **options
    )


@given(em_cases(), st.sampled_from(["forward", "backward"]))
def test_gain_is_the_log_ratio_of_the_complete_data(case, way):
    target = case.y if way == "forward" else case.x
    n = case.generator.normal(0.0, 0.5, target.shape)
    noisy = (case.x, case.y + n) if way == "forward" else (case.x + n, case.y)
    log_joint = case.net.log_joint
    ratio = log_joint(case.theta, *noisy, way) - log_joint(case.theta, case.x, case.y, way)
    for component in (False, True):
        gain = gains_at(case.net, case.theta, target, way, component=component)(n)
        np.testing.assert_allclose(gain.sum(axis=2), ratio, rtol=1e-9, atol=1e-9)


# -- the theorem -----------------------------------------------------------------------------------
@given(em_cases(), st.sampled_from(DIRECTIONS), st.sampled_from(CONDITIONS))
def test_nem_noise_never_makes_q_lower(case, direction, condition):
    check_nem(case, direction, condition)


@given(
    em_cases(),
    st.sampled_from(CONDITIONS),
    st.sampled_from(["zero", "reflect"]),
    st.sampled_from(["vector", "component"]),
    st.sampled_from(["additive", "multiplicative"]),
    st.sampled_from(["gaussian", "uniform"]),
)
def test_each_screened_draw_makes_q_no_lower(case, condition, rejected, screening, mode, law):
    noise = Noise("nem", 0.5, rejected=rejected, screening=screening, mode=mode, law=law)
    arguments = (case.net, case.theta, case.x, case.y)
    n = draw_noise(*arguments, "forward", noise, case.generator, condition=condition)
    clean = q(case.net, case.theta, case.theta, case.x, case.y)
    noisy = q(case.net, case.theta, case.theta, case.x, case.y, noise_y=n)
    assert noisy >= clean - 1e-9 * max(1.0, abs(clean))


@given(em_cases(), st.sampled_from(DIRECTIONS), st.sampled_from(CONDITIONS))
def test_anti_noise_is_never_above_blind_noise_nor_zero(case, direction, condition):
    anti = evaluate(case, direction, Noise("anti", std=0.5), condition=condition)
    assert anti.exact <= 1e-12
    assert anti.q_gain <= 1e-12


@given(em_cases(max_scale=1.0), st.sampled_from(DIRECTIONS))
def test_noise_is_screened_in_the_order_nem_blind_anti(case, direction):
    kinds = ("nem", "blind", "anti")
    nem, blind, anti = (evaluate(case, direction, Noise(k, 0.5)).exact for k in kinds)
    assert nem >= blind - 1e-12
    assert blind >= anti - 1e-12


@given(em_cases(), st.sampled_from(DIRECTIONS))
def test_every_state_guarantees_the_inequality_for_any_posterior(case, direction):
    found = evaluate(
        case, direction, Noise("nem", std=0.5), condition="every", theta_star=case.other
    )
    assert found.exact >= 0.0
    assert found.q_gain >= -1e-12


def test_posterior_screening_does_not_guarantee_it_for_another_posterior():
    # why `every` exists: the same noise, judged by the posterior of a different Θ*
    found = []
    for seed in range(10):
        case = make_case(seed, Gaussian(), Gaussian(), scale=3.0, rows=1)
        noise = Noise("nem", std=0.5)
        found.append(evaluate(case, "forward", noise, theta_star=-case.theta).exact)
    assert min(found) < 0.0


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_blind_noise_is_free_for_half_spaces_and_costly_for_the_gaussian(likelihood):
    case = make_case(3, likelihood, Gaussian())
    found = evaluate(case, "forward", Noise("blind", std=0.5))
    if isinstance(likelihood, Gaussian):  # −E‖n‖²/2v
        assert found.exact == pytest.approx(-case.y.size * 0.25 / (2 * likelihood.variance))
        assert not found.holds
    else:  # the gain is linear in n, and n has mean 0
        assert found.exact == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_keeps_less_noise_than_posterior(condition):
    case = make_case(7, Multinomial(), Gaussian(), scale=3.0, rows=20)
    noise = Noise("nem", std=0.5, rejected="zero")
    weak, strong = (
        evaluate(case, "forward", noise, support="continuous", condition=c, draws=200).nonzero
        for c in CONDITIONS
    )
    assert strong < weak


# -- three routes to one number --------------------------------------------------------------------
@pytest.mark.parametrize("rejected", ["zero", "reflect"])
@pytest.mark.parametrize("kind", ["nem", "blind", "anti"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("support", ["lattice", "continuous"])
def test_sampling_agrees_with_the_exact_value(support, direction, kind, rejected):
    # 36 cases with two means each, |z| < 5: false alarms in 4e-5 of all fresh seeds
    case = make_case(8, Multinomial(), Gaussian(0.7), (2, 3, 3))
    noise = Noise(kind, std=0.3, rejected=rejected)
    found = evaluate(
        case,
        direction,
        noise,
        support=support,
        draws=4000,
        generator=np.random.default_rng(11),
    )
    assert found.exact is not None
    assert abs(found.sampled - found.exact) < 5 * found.standard_error
    assert abs(found.q_gain - found.exact) < 5 * found.q_gain_standard_error + 1e-12
    assert found.standard_error < 0.06
    # averaging over h instead of sampling it cannot add variance
    assert found.q_gain_standard_error <= 1.05 * found.standard_error


@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
@pytest.mark.parametrize("rejected", ["zero", "reflect"])
@pytest.mark.parametrize("kind", ["nem", "anti", "blind"])
@pytest.mark.parametrize(
    ("likelihood", "screening"),
    [(Gaussian(0.4), "component"), (Bernoulli(1.3), "component"), (Bernoulli(), "vector")],
)
def test_normal_integrals_are_those_of_quadrature(likelihood, screening, kind, rejected, mode):
    # Gauss-Hermite cannot see the kink of screening, so integrate on a fine grid
    w, s = np.array([[0.7, -1.2], [0.0, 2.0]]), np.array([[0.5, 1.0], [0.3, 0.2]])
    noise = Noise(kind, rejected=rejected, screening=screening, mode=mode)
    kappa = 0.5 / likelihood.variance if isinstance(likelihood, Gaussian) else 0.0
    grid = np.linspace(-9.0, 9.0, 400_001)
    density = np.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi)

    def mean_gain(slope, std):
        n = std * grid
        gain, mirrored = slope * n - kappa * n**2, -slope * n - kappa * n**2
        if kind != "blind":
            sign = 1.0 if kind == "nem" else -1.0
            other = (
                np.where(sign * mirrored >= 0.0, mirrored, 0.0) if rejected == "reflect" else 0.0
            )
            gain = np.where(sign * gain >= 0.0, gain, other)
        return np.trapezoid(gain * density, grid)

    if screening == "vector":
        expected = sum(mean_gain(np.linalg.norm(a * b), 1.0) for a, b in zip(w, s, strict=True))
    else:
        expected = sum(mean_gain(a, b) for a, b in zip(w.ravel(), s.ravel(), strict=True))
    assert expected_gain(noise, w, s, likelihood) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_exact_is_none_where_there_is_no_closed_form():
    case = make_case(9, Gaussian(), Gaussian())
    for noise, options in [
        (Noise("nem", law="uniform"), {}),
        (Noise("nem", screening="vector"), {}),
        (Noise("drift"), {}),
        (Noise("drift"), {"support": "lattice"}),
        (Noise("nem"), {"condition": "every"}),
        (Noise("nem"), {"theta_star": case.other}),
    ]:
        found = evaluate(case, "forward", noise, **({"support": "continuous"} | options))
        assert found.exact is None
        assert found.holds == (found.sampled >= 0.0)
    silent = evaluate(case, "forward", Noise("none"))
    assert (silent.exact, silent.sampled, silent.nonzero) == (0.0, 0.0, 0.0)


def test_hidden_states_are_drawn_from_the_posterior():
    # noise without chance leaves only the draw of h: its mean is the posterior's, |z| < 5
    case = make_case(10, Gaussian(), Gaussian(), rows=1, scale=2.0)
    found = evaluate(case, "forward", Noise("drift", std=0.2), draws=4000, support="lattice")
    r = posterior(case.net, case.theta, case.x, case.y)
    assert r.max() < 0.99
    assert found.standard_error > found.q_gain_standard_error
    assert abs(found.sampled - found.q_gain) < 5 * found.standard_error


def test_noise_is_annealed():
    case = make_case(11, Gaussian(), Gaussian(), rows=200)
    noise = Noise("blind", std=1.0, decay=1.0)
    spread = [
        draw_noise(
            case.net, case.theta, case.x, case.y, "forward", noise, case.generator, iteration=t
        ).std()
        for t in (1, 10)
    ]
    assert spread[0] == pytest.approx(1.0, rel=0.2)  # 400 draws: 5.6 standard errors
    assert spread[1] == pytest.approx(0.1, rel=0.2)


def test_multiplicative_noise_scales_with_the_target():
    case = make_case(12, Multinomial(), Gaussian(), (2, 3, 3), rows=5)
    y = np.eye(3)[[0, 1, 2, 0, 1]]
    arguments = (case.net, case.theta, case.x, y)
    noise = Noise("nem", std=0.5, mode="multiplicative")
    n = draw_noise(*arguments, "forward", noise, case.generator)
    assert not n[y == 0.0].any()
    assert n[y == 1.0].any()
    for support in ("lattice", "continuous"):  # |z| < 5: false alarms in 1e-6 of fresh seeds
        found = nem_inequality(
            *arguments,
            noise_y=noise,
            support=support,
            draws=2000,
            generator=np.random.default_rng(0),
        )
        assert abs(found.sampled - found.exact) < 5 * found.standard_error


def test_errors_say_what_to_do():
    case = make_case(0, Multinomial(), Gaussian(), (2, 2, 9))
    arguments = {"generator": case.generator}
    call = (case.net, case.theta, case.x, case.y)
    nem = Noise("nem")
    with pytest.raises(ArchitectureError, match="needs noise on its own target"):
        nem_inequality(*call, **arguments)
    with pytest.raises(ArchitectureError, match="needs noise on its own target"):
        nem_inequality(*call, "forward", noise_y=nem, noise_x=nem, **arguments)
    with pytest.raises(ArchitectureError, match="draws ≥ 2"):
        nem_inequality(*call, noise_y=nem, draws=1, **arguments)
    with pytest.raises(ArchitectureError, match="use support='continuous'"):
        nem_inequality(*call, noise_y=nem, support="lattice", **arguments)
    with pytest.raises(ArchitectureError, match="condition must be one of"):
        nem_inequality(*call, noise_y=nem, condition="some", **arguments)
    with pytest.raises(ArchitectureError, match="support must be one of"):
        nem_inequality(*call, noise_y=nem, support="grid", **arguments)
    with pytest.raises(ArchitectureError, match='use update="exact"'):
        nem_inequality(*call, noise_y=Noise("nem", update="published"), **arguments)
    with pytest.raises(ArchitectureError, match='use condition="posterior"'):
        nem_inequality(*call, noise_y=Noise("nem", screening="expectation"), **arguments)
