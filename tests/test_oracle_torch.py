"""PyTorch's autograd as an independent oracle of both directions.

The network is written out in torch operators (textbook.signals), its log-likelihoods with
``torch.distributions`` where they have one; autograd then differentiates what it has not been told.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from near import assert_near
from strategies import PAIRS, Case, cases

from nembp.engine.backprop import backpropagate, joint_gradient
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.network import Network
from nembp.verification.laws import gradients, textbook
from nembp.verification.laws.joint import run

torch = pytest.importorskip("torch")
F = torch.nn.functional
D = torch.distributions

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
FUNCTIONS = {
    "relu": torch.relu,
    "leaky-relu": lambda z: F.leaky_relu(z, 0.1),
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
    "identity": lambda z: z,
}
each_pair = pytest.mark.parametrize("pair", PAIRS, ids="-".join)
each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))
few = settings(max_examples=max(1, settings.default.max_examples // 2))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tensor(value: np.ndarray, dtype: str) -> Any:
    return torch.tensor(value, dtype=getattr(torch, dtype))


def nll(net: Network, flat: Any, x: Any, t: Any) -> Any:
    """Return the mean negative log-likelihood, in torch's own words."""
    _, z = textbook.signals(net, flat, x, FUNCTIONS)
    likelihood = net.likelihood
    if isinstance(likelihood, Multinomial):
        return likelihood.weight * F.cross_entropy(z, t, reduction="mean")
    if isinstance(likelihood, Gaussian):
        return -D.Normal(z, likelihood.variance**0.5).log_prob(t).sum(dim=1).mean()
    each = F.binary_cross_entropy_with_logits(z, t, reduction="none")
    return likelihood.weight * each.sum(dim=1).mean()


def by_distributions(net: Network, flat: Any, x: Any, t: Any) -> Any:
    """Return the same by ``torch.distributions``, for labels and real targets."""
    _, z = textbook.signals(net, flat, x, FUNCTIONS)
    likelihood = net.likelihood
    if isinstance(likelihood, Multinomial):
        log_p = D.Categorical(logits=z).log_prob(t.argmax(dim=1))
        return -likelihood.weight * log_p.mean()
    if isinstance(likelihood, Gaussian):
        law = D.Independent(D.Normal(z, likelihood.variance**0.5), 1)
        return -law.log_prob(t).mean()
    return -likelihood.weight * D.Independent(D.Bernoulli(logits=z), 1).log_prob(t).mean()


def leaf(value: np.ndarray, dtype: str) -> Any:
    return tensor(np.asarray(value), dtype).requires_grad_()


def scale_of(net: Network, x: np.ndarray, t: np.ndarray) -> float:
    """Return the size of what an error subtracts, a and t: rounding is relative to that.

    (Relative to the gradient itself, 99 in 100 random float32 networks are within 1e-6 too.)
    """
    a = net.to(dtype="float64").predict(x, "batch")
    return net.likelihood.scale * float(np.max(np.abs(a)) + np.max(np.abs(t)))


@each_dtype
@each_pair
@few
@given(data=st.data())
def test_gradients_of_both_directions_are_autograds(pair, dtype, data):
    case: Case = data.draw(cases(pair))
    net, (x, t) = case.net(dtype), case.batch()
    double = case.net()
    for direction, source, target in ((net, x, t), (net.reversed, t, x)):
        exact = double if direction is net else double.reversed
        assume(case.analytic or gradients.away_from_kinks(exact, source, 1e-4))
        flat, inputs = leaf(direction.parameters, dtype), leaf(source, dtype)
        value = nll(direction, flat, inputs, tensor(target, dtype))
        value.backward()
        gradient, input_error = backpropagate(direction, source, target)
        assert gradient.dtype == np.dtype(dtype)
        scale, tolerance = scale_of(direction, source, target), TOLERANCE[dtype]
        assert_near(gradient, flat.grad.numpy(), tolerance, "gradient", scale=scale)
        assert_near(input_error, inputs.grad.numpy(), tolerance, "input error", scale=scale)
        mean = -np.mean(direction.log_likelihood(source, target, "batch"))
        assert_near(mean, value.item(), tolerance, "nll", scale=scale)


@each_dtype
@pytest.mark.parametrize("path", ["samples", "classes", "none"])
@few
@given(case=cases())
def test_joint_gradient_is_autograds_of_the_joint_objective(path, dtype, case):
    net, double = case.net(dtype), case.net()
    x, t = case.labelled_batch() if path == "classes" else case.batch()
    assume(case.analytic or gradients.away_from_kinks(double, x, 1e-4))
    assume(case.analytic or gradients.away_from_kinks(double.reversed, t, 1e-4))
    flat = leaf(net.parameters, dtype)
    inputs, targets = tensor(x, dtype), tensor(t, dtype)
    value = nll(net, flat, inputs, targets)
    if path != "none":
        value = value + nll(net.reversed, flat, targets, inputs)
    value.backward()
    gradient, step = run(net, x, t, path)
    scale = max(scale_of(net, x, t), scale_of(net.reversed, t, x))
    tolerance = TOLERANCE[dtype]
    assert_near(gradient, flat.grad.numpy(), tolerance, "joint gradient", scale=scale)
    total = float(step.forward_nll[0, 0]) + float(step.backward_nll[0, 0])
    if path == "classes":  # squares cancel in the Gaussian's nll, which no gradient uses
        scale *= 1.0 + float(np.sum(x * x))
    assert_near(total, value.item(), tolerance, "joint nll", scale=scale)
    if path == "samples":
        again = joint_gradient(net, x, t)
        assert_near(again, flat.grad.numpy(), tolerance, "joint_gradient", scale=scale)


@each_pair
@few
@given(data=st.data())
def test_log_likelihoods_are_those_of_torch_distributions(pair, data):
    case: Case = data.draw(cases(pair)).with_(hard=True)
    net, (x, t) = case.net(), case.batch()
    for direction, source, target in ((net, x, t), (net.reversed, t, x)):
        arguments = tensor(np.asarray(net.parameters), "float64"), tensor(source, "float64")
        mine = -np.mean(direction.log_likelihood(source, target, "batch"))
        scale = 1.0 + direction.likelihood.scale
        for oracle in (nll, by_distributions):
            value = oracle(direction, *arguments, tensor(target, "float64"))
            assert_near(mine, value.item(), 1e-12, oracle.__name__, scale=scale)
