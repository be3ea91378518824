"""Optimizers against their formulas, written out sample by sample, and against PyTorch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

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
from nembp.verification.laws.training import TEXTBOOK


def trajectory(optimizer: Optimizer, steps: int = 7, seed: int = 0) -> tuple[np.ndarray, list]:
    """Run on random gradients; return the start, and gradient and parameters of each step."""
    net = dense_network([5, 4, 3], dtype="float64", seed=seed)
    gradient = optimizer.bind(net)
    generator = np.random.default_rng(seed)
    start, path = net.parameters.copy(), []
    for _ in range(steps):
        g = generator.standard_normal(gradient.size)
        gradient[...] = g
        optimizer.step()
        path.append((g, net.parameters.copy()))
    return start, path


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("chunk", [7, 1 << 15])
def test_step_is_the_textbook_formula(name, chunk, monkeypatch):
    monkeypatch.setattr("nembp.backend.NumpyBackend.chunk", chunk)  # chunking changes nothing
    theta, path = trajectory(get_optimizer(name, learning_rate=0.03))
    state: dict[str, np.ndarray] = {}
    for t, (g, after) in enumerate(path, start=1):
        theta = theta - TEXTBOOK[name](g, state, t, 0.03)
        np.testing.assert_allclose(after, theta, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_step_is_pytorch_s(name):
    torch = pytest.importorskip("torch", reason="the oracle needs torch, which CI installs")
    start, path = trajectory(get_optimizer(name, learning_rate=0.01))
    theta = torch.tensor(start, requires_grad=True)
    peer = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    }[name]([theta])
    for g, after in path:
        theta.grad = torch.tensor(g)
        peer.step()
        np.testing.assert_allclose(after, theta.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_weight_decay_counts_shared_weights_once_and_spares_biases(name):
    net = dense_network([4, 3, 2], dtype="float64")
    net.parameters[...] = 1.0
    optimizer = get_optimizer(name, learning_rate=0.5, weight_decay=0.1)
    optimizer.bind(net)[...] = 0.0
    optimizer.step()
    np.testing.assert_allclose(net.parameters[: net.weight_count], 1 - 0.5 * 0.1)
    np.testing.assert_array_equal(net.parameters[net.weight_count :], 1.0)


def test_bind_starts_anew():
    optimizer = Adam()
    first = trajectory(optimizer)[1]
    second = trajectory(optimizer)[1]
    np.testing.assert_array_equal(first[-1][1], second[-1][1])


def test_schedules():
    shares = np.linspace(0, 0.999, 50)
    cosine = [learning_rate_schedule("cosine")(s) for s in shares]
    assert cosine[0] == 1.0
    assert all(a > b for a, b in itertools.pairwise(cosine))
    assert cosine[-1] < 1e-4
    assert {learning_rate_schedule("constant")(s) for s in shares} == {1.0}
    step = learning_rate_schedule("step", step_every=0.25, step_factor=0.5)
    assert [step(s) for s in (0.0, 0.24, 0.25, 0.5, 0.75, 0.99)] == [1, 1, 0.5, 0.25, 0.125, 0.125]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0.0), "learning rate must be positive and finite, got 0.0"),
        (lambda: SGD(float("nan")), "learning rate must be positive and finite, got nan"),
        (lambda: Adam(1e-3, -1.0), "weight decay must be finite and ≥ 0, got -1.0"),
        (lambda: Adam(beta1=1.0), "beta1 must be at least 0 and less than 1, got 1.0"),
        (lambda: Momentum(momentum=-0.1), "momentum must be at least 0 and less than 1"),
        (lambda: RMSProp(decay=2.0), "decay must be at least 0 and less than 1, got 2.0"),
        (lambda: get_optimizer("adamw"), "optimizer must be one of adam, rmsprop, momentum, sgd"),
        (
            lambda: learning_rate_schedule("linear"),
            "schedule must be one of cosine, constant, step",
        ),
    ],
)
def test_wrong_options_say_what_would_do(make, message):
    with pytest.raises(ArchitectureError, match=message.replace("(", r"\(")):
        make()
