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
    make_case,
)

from nembp.em import binary, posterior, screening
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


def error_a_thousandth_off(*arguments, right=binary._errors):
    # the same bug in both gradients, so Fisher's identity alone would not see it
    return 1.001 * right(*arguments)


def untransposed(net, way, *slopes, right=binary._assemble):
    flat = right(net, way, *slopes)
    if way == "backward":
        layers = net.layers(flat, way)
        layers.W[...] = layers.W.T.copy()
    return flat


def descent(*arguments, right=binary.q, **options):  # stuck: no step along ∇Q raises −Q
    return -right(*arguments, **options)


def the_wrong_way(noise, gain, *rest, right=screening._passes):
    return right(noise, -gain, *rest)


def noise_subtracted(*arguments, right=binary.gains_at, **options):
    gains = right(*arguments, **options)
    return lambda n: gains(-n)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("check", "ends", "module", "name", "bug"),
    [
        (check_fisher, (Multinomial(), Gaussian(0.5)), binary, "posterior", bug)
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
def test_a_bug_is_caught(monkeypatch, direction, check, ends, module, name, bug):
    if bug is untransposed and direction == "forward":
        return  # it is of the backward direction
    case = make_case(4, *ends, (3, 3, 3))
    check(case, direction)
    monkeypatch.setattr(module, name, bug)
    with pytest.raises(AssertionError):
        check(case, direction)


def test_steps_downhill_and_a_stale_posterior_are_caught(monkeypatch):
    case = make_case(4, Bernoulli(), Gaussian())
    right, slope = binary.q, binary.q_gradient
    monkeypatch.setattr("em_cases.q", lambda net, theta, _, *a, **k: right(net, theta, theta, *a))
    with pytest.raises(AssertionError):
        check_q_gradient(case, "joint")
    monkeypatch.setattr(binary, "q", descent)
    monkeypatch.setattr(binary, "q_gradient", lambda *a, **k: -slope(*a, **k))
    with pytest.raises(AssertionError):
        check_gem(case, "joint")
