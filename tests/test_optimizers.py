"""Optimizers against their formulas, number by number; schedules; what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engines import STRICT, Array, assert_close, each_dtype

from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.network import dense_network
from nembp.engine.optimizers import (
    OPTIMIZERS,
    SGD,
    Adam,
    Momentum,
    Optimizer,
    RMSProp,
    get_optimizer,
    learning_rate_schedule,
)
from nembp.errors import ArchitectureError
from nembp.threads import threads
from nembp.verification.laws.parts import moves_of

each_optimizer = pytest.mark.parametrize("name", sorted(OPTIMIZERS))


def trajectory(
    optimizer: Optimizer,
    sizes: Any = (5, 4, 3),
    *,
    device: Any = "cpu",
    dtype: str = "float64",
    factor: float = 1.0,
) -> tuple[Array, list[tuple[Array, Array]]]:
    """Run on random gradients; return the start, and gradient and parameters of each step."""
    net = dense_network(sizes, dtype=dtype, device=device)
    gradient, backend = optimizer.bind(net), net.backend
    generator = np.random.default_rng(0)
    start, path = backend.to_numpy(net.parameters).copy(), []
    for _ in range(7):
        g = generator.standard_normal(net.parameter_count)
        gradient[...] = backend.asarray(g, dtype)
        optimizer.step(factor)
        path.append((g, backend.to_numpy(net.parameters).copy()))
    return start, path


@each_optimizer
@pytest.mark.parametrize(("sizes", "workers"), [((5, 4, 3), 1), ((300, 200), 1), ((300, 200), 2)])
def test_step_is_the_textbook_formula(name, sizes, workers):
    optimizer = get_optimizer(name, learning_rate=0.03)
    trajectory(optimizer, sizes)  # of which it knows nothing when it is bound anew
    with threads(workers):
        theta, path = trajectory(optimizer, sizes, factor=0.5)
    moves = moves_of(optimizer, np.array([g for g, _ in path]), (0.5,))
    for move, (_, after) in zip(moves, path, strict=True):
        theta = theta - move
        np.testing.assert_allclose(after, theta, rtol=1e-12, atol=1e-14)


@each_dtype
@each_optimizer
def test_another_device_steps_alike(name, dtype):
    ours, theirs = (
        trajectory(get_optimizer(name, 0.05, 0.1), device=device, dtype=dtype)[1][-1][1]
        for device in ("cpu", STRICT)
    )
    assert_close(theirs, ours, {"float32": 2e-5, "float64": 1e-12}[dtype])


@each_optimizer
def test_weight_decay_counts_shared_weights_once_and_spares_biases_and_gains(name):
    net = dense_network([4, 3, 2], normalization=BatchNormalization(), dtype="float64")
    net.parameters[...] = 1.0
    optimizer = get_optimizer(name, learning_rate=0.5, weight_decay=0.1)
    optimizer.bind(net)[...] = 0.0
    optimizer.step()
    np.testing.assert_allclose(net.parameters[: net.weight_count], 1 - 0.5 * 0.1)
    np.testing.assert_array_equal(net.parameters[net.weight_count :], 1.0)


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
