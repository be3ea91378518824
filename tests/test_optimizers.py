"""Optimizers on several workers; schedules; what is refused. (Their formulas are laws.)"""

from __future__ import annotations

import numpy as np
import pytest

from nembp.engine.network import dense_network
from nembp.engine.optimizers import (
    OPTIMIZERS,
    SGD,
    Adam,
    Momentum,
    RMSProp,
    get_optimizer,
    learning_rate_schedule,
)
from nembp.errors import ArchitectureError
from nembp.threads import threads
from nembp.verification.laws import moves_of


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_a_step_of_several_workers_is_the_textbook_formula(name):
    optimizer = get_optimizer(name, learning_rate=0.03)
    net = dense_network((300, 700), dtype="float64")
    g = np.random.default_rng(0).standard_normal((7, net.parameter_count))
    with threads(2):
        gradient = optimizer.bind(net)
    assert len(optimizer._shares) == 2
    theta = net.parameters.copy()
    for each, move in zip(g, moves_of(optimizer, g, (0.5,)), strict=True):
        gradient[...] = each
        optimizer.step(0.5)
        theta = theta - move
        np.testing.assert_allclose(net.parameters, theta, rtol=1e-12, atol=1e-14)


def test_schedules():
    shares = np.linspace(0, 0.999, 50)
    cosine = [learning_rate_schedule("cosine")(share) for share in shares]
    assert cosine == sorted(cosine, reverse=True)
    assert (cosine[0], {learning_rate_schedule("constant")(s) for s in shares}) == (1.0, {1.0})
    assert cosine[-1] < 1e-4
    step = learning_rate_schedule("step")
    np.testing.assert_allclose([step(s) for s in (0, 0.3, 1 / 3, 0.6, 0.7)], [1, 1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0.0), "learning rate must be positive and finite, got 0.0"),
        (lambda: Adam(1e-3, -1.0), "weight decay must be finite and ≥ 0, got -1.0"),
        (lambda: Adam(beta1=1.0), "beta1 must be at least 0 and less than 1, got 1.0"),
        (lambda: Momentum(momentum=-0.1), "momentum must be at least 0 and less than 1"),
        (lambda: RMSProp(decay=2.0), "decay must be at least 0 and less than 1, got 2.0"),
        (lambda: SGD("0.1"), "learning rate must be positive and finite, got '0.1'"),
        (lambda: Adam(epsilon=0), "epsilon must be positive and finite, got 0"),
        (lambda: get_optimizer(["adam"]), "optimizer must be one of adam"),
        (lambda: get_optimizer("adamw"), "optimizer must be one of adam, rmsprop, momentum, sgd"),
        (lambda: learning_rate_schedule("linear"), "schedule must be one of cosine, constant"),
    ],
)
def test_wrong_options_say_what_would_do(make, message):
    with pytest.raises(ArchitectureError, match=message):
        make()
