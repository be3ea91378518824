"""Planted bugs: the laws of nembp.em must notice each one."""

from __future__ import annotations

import em_cases
import numpy as np
import pytest
from em_cases import check_fisher, check_gem, check_nem, check_q_gradient, make_case

from nembp.em import binary, posterior, screening
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial


def prior_in_place_of_the_posterior(net, theta, x, y):
    return np.exp(net.log_joint(theta, x, y) - net.log_target(theta, y))


def posterior_normalized_over_rows(net, theta, x, y):
    joint = net.log_joint(theta, x, y)
    p = np.exp(joint - joint.max())
    return p / p.sum(axis=0, keepdims=True)


def posterior_of_the_other_direction(net, theta, x, y):
    return posterior(net.reversed, theta, y, x)


def most_probable_state_only(net, theta, x, y):
    r = posterior(net, theta, x, y)
    return (r == r.max(axis=1, keepdims=True)).astype(float)


def error_a_thousandth_off(*arguments, right=binary._errors):
    # the same bug in both gradients, so Fisher's identity alone would not see it
    return 1.001 * right(*arguments)


def untransposed(net, *slopes, right=binary._assemble):
    flat = right(net, *slopes)
    W, _, _, _ = net.layers(flat)
    W[...] = W.T.copy()
    return flat


def descent(*arguments, right=binary.q):  # stuck: no step along ∇Q raises −Q
    return -right(*arguments)


def the_wrong_way(noise, gain, *rest, right=screening._passes):
    return right(noise, -gain, *rest)


def noise_subtracted(*arguments, right=binary.gains_at):
    gains = right(*arguments)
    return lambda n: gains(-n)


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize(
    ("check", "ends", "module", "name", "bug"),
    [
        (check_fisher, (Multinomial(), Gaussian(0.5)), em_cases, "posterior", bug)
        for bug in (
            prior_in_place_of_the_posterior,
            posterior_normalized_over_rows,
            posterior_of_the_other_direction,
            most_probable_state_only,
        )
    ]
    + [
        (
            check_q_gradient,
            (Gaussian(0.4), Multinomial()),
            binary,
            "_errors",
            error_a_thousandth_off,
        ),
        (check_q_gradient, (Gaussian(), Gaussian()), binary, "_assemble", untransposed),
        (check_gem, (Bernoulli(), Gaussian()), binary, "q", descent),
        (check_gem, (Gaussian(0.1), Gaussian(0.1)), binary, "ARMIJO", -1e9),  # accepts anything
        (check_nem, (Multinomial(), Gaussian(0.5)), screening, "_passes", the_wrong_way),
        (check_nem, (Gaussian(0.5), Gaussian(0.5)), binary, "gains_at", noise_subtracted),
    ],
)
def test_a_bug_is_caught(monkeypatch, way, check, ends, module, name, bug):
    case = make_case(4, *ends, (3, 3, 3), way=way)
    check(case)
    monkeypatch.setattr(module, name, bug)
    with pytest.raises(AssertionError):
        check(case)


def test_steps_downhill_and_a_stale_posterior_are_caught(monkeypatch):
    case = make_case(4, Bernoulli(), Gaussian())
    slope = binary.q_gradient
    monkeypatch.setattr(
        "em_cases.q",
        lambda net, theta, _, x, y: binary.q(net, theta, posterior(net, theta, x, y), x, y),
    )
    with pytest.raises(AssertionError):
        check_q_gradient(case)
    monkeypatch.setattr(binary, "q", descent)
    monkeypatch.setattr(binary, "q_gradient", lambda *a: -slope(*a))
    with pytest.raises(AssertionError):
        check_gem(case)
