"""log p = Q + H and its gradients on the binary network, in every direction."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from em_cases import (
    DIRECTIONS,
    LIKELIHOODS,
    check_decomposition,
    check_fisher,
    check_q_gradient,
    em_cases,
    make_case,
    relative,
)
from hypothesis import given
from hypothesis import strategies as st

from nembp.em import (
    BinaryNetwork,
    entropy,
    entropy_gradient,
    gradient,
    posterior,
    q,
    q_gradient,
)
from nembp.engine.activations import Logistic
from nembp.engine.likelihoods import Bernoulli, Gaussian
from nembp.engine.linear import Dense
from nembp.engine.network import Layer, Network
from nembp.errors import ArchitectureError, ShapeError

directions = st.sampled_from(DIRECTIONS)


# -- the model, against formulas written out a second time -----------------------------------------
def by_hand(net, theta, x, y):
    """Log p(y | x) of one row by loops over probabilities, in the plainest Python."""
    inputs, hidden, outputs = net.inputs, net.hidden, net.outputs
    theta = list(theta)
    take = lambda count: [theta.pop(0) for _ in range(count)]  # noqa: E731
    W1 = [take(hidden) for _ in range(inputs)]
    W2 = [take(outputs) for _ in range(hidden)]
    b1, b2 = take(hidden), take(outputs)
    p_y = 0.0
    for h in product((0, 1), repeat=hidden):
        p = 1.0
        for j in range(hidden):
            z = b1[j] + sum(x[i] * W1[i][j] for i in range(inputs))
            on = 1.0 / (1.0 + math.exp(-z))
            p *= on if h[j] else 1.0 - on
        z = [b2[k] + sum(h[j] * W2[j][k] for j in range(hidden)) for k in range(outputs)]
        if isinstance(net.forward, Gaussian):
            v = net.forward.variance
            for k in range(outputs):
                p *= math.exp(-((y[k] - z[k]) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
        elif isinstance(net.forward, Bernoulli):
            for k in range(outputs):
                on = 1.0 / (1.0 + math.exp(-z[k]))
                p *= (on ** y[k] * (1 - on) ** (1 - y[k])) ** net.forward.weight
        else:
            total = sum(math.exp(value) for value in z)
            for k in range(outputs):
                p *= (math.exp(z[k]) / total) ** (y[k] * net.forward.weight)
        p_y += p
    return math.log(p_y)


@given(em_cases(max_scale=1.5))
def test_log_likelihood_is_the_sum_written_out(case):
    expected = sum(by_hand(case.net, case.theta, x, y) for x, y in zip(case.x, case.y, strict=True))
    found = case.net.log_likelihood(case.theta, case.x, case.y)
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-10)


@given(em_cases())
def test_backward_is_the_mirrored_network_forward(case):
    net = case.net
    mirror = BinaryNetwork(net.outputs, net.hidden, net.inputs, net.backward, net.forward)
    forward, backward = net.layers(case.theta, "forward"), net.layers(case.theta, "backward")
    assert np.shares_memory(forward.W, backward.V)
    assert np.array_equal(forward.W, backward.V.T)
    W, b, V, c = backward
    theta = np.concatenate([W.ravel(), V.ravel(), b, c, np.zeros(net.outputs + net.hidden)])
    assert net.log_likelihood(case.theta, case.x, case.y, "backward") == pytest.approx(
        mirror.log_likelihood(theta, case.y, case.x, "forward"), rel=1e-12
    )


@given(em_cases())
def test_joint_is_the_sum_of_both_directions(case):
    for value in (
        lambda way: case.net.log_likelihood(case.theta, case.x, case.y, way),
        lambda way: q(case.net, case.other, case.theta, case.x, case.y, way),
        lambda way: entropy(case.net, case.other, case.theta, case.x, case.y, way),
        lambda way: gradient(case.net, case.theta, case.x, case.y, way),
        lambda way: q_gradient(case.net, case.other, case.theta, case.x, case.y, way),
        lambda way: entropy_gradient(case.net, case.other, case.theta, case.x, case.y, way),
    ):
        np.testing.assert_allclose(
            value("joint"), value("forward") + value("backward"), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_saturated_network_is_the_engine_with_the_same_parameters(likelihood, way):
    # where every hidden probability is 0 or 1, the stochastic layer is the logistic one
    case = make_case(5, likelihood, likelihood, (3, 4, 3))
    engine = Network(
        [Layer(3), Layer(4, Logistic()), Layer(3)],
        [Dense(3, 4), Dense(4, 3)],
        likelihood,
        likelihood,
        dtype="float64",
    )
    theta = case.theta.copy()
    into_hidden = case.net.layers(theta, way)
    into_hidden.b[...] += 1000.0 * np.sign(into_hidden.b)
    engine.parameters[...] = theta
    view, x, t = (engine, case.x, case.y) if way == "forward" else (engine.reversed, case.y, case.x)
    assert case.net.log_likelihood(theta, case.x, case.y, way) == pytest.approx(
        float(view.log_likelihood(x, t).sum()), rel=1e-12
    )


# -- the laws --------------------------------------------------------------------------------------
@given(em_cases(), directions)
def test_log_likelihood_is_q_plus_entropy(case, direction):
    check_decomposition(case, direction)


@given(em_cases(), directions)
def test_fisher_s_identity(case, direction):
    check_fisher(case, direction)


@given(em_cases(max_scale=8.0), directions)
def test_fisher_s_identity_where_neurons_saturate(case, direction):
    check_fisher(case, direction)


@given(em_cases(), directions)
def test_gradients_of_q_and_entropy_sum_to_that_of_log_p_away_from_theta_n(case, direction):
    arguments = (case.net, case.other, case.theta, case.x, case.y, direction)
    total = q_gradient(*arguments) + entropy_gradient(*arguments)
    assert relative(total, gradient(case.net, case.other, case.x, case.y, direction)) < 1e-10


@given(em_cases(max_scale=1.5), directions)
def test_gradient_of_q_is_its_slope(case, direction):
    check_q_gradient(case, direction)


@given(em_cases(max_scale=1.5), directions)
def test_entropy_is_stationary_and_least_at_theta_n(case, direction):
    def value(theta):
        return entropy(case.net, theta, case.theta, case.x, case.y, direction)

    d = case.generator.standard_normal(case.net.parameter_count)
    h = 1e-5 / np.abs(d).max()
    slope = (value(case.theta + h * d) - value(case.theta - h * d)) / (2 * h)
    assert abs(slope) < 1e-5
    away = float(entropy_gradient(case.net, case.other, case.theta, case.x, case.y, direction) @ d)
    slope = (value(case.other + h * d) - value(case.other - h * d)) / (2 * h)
    assert abs(slope - away) < 1e-5 * max(1.0, abs(away))
    assert value(case.other) >= value(case.theta) - 1e-12
    assert value(case.theta) >= -1e-12
    bits = case.net.hidden * len(case.x) * (2 if direction == "joint" else 1)
    assert value(case.theta) <= bits * math.log(2.0) + 1e-9


@given(em_cases())
def test_posterior_is_bayes_rule(case):
    r = posterior(case.net, case.theta, case.x, case.y)
    np.testing.assert_allclose(r.sum(axis=1), 1.0, rtol=1e-12)
    # the ratio of two states' posteriors is the ratio of their joint probabilities
    joint = case.net.log_joint(case.theta, case.x, case.y)
    kept = r[:, 0] > 1e-200
    expected = np.exp(joint - joint[:, :1])[kept]
    np.testing.assert_allclose((r / np.maximum(r[:, :1], 1e-300))[kept], expected, rtol=1e-9)


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradient_is_pytorch_s(likelihood, direction):
    torch = pytest.importorskip("torch", reason="the oracle needs torch, which CI installs")
    case = make_case(3, likelihood, LIKELIHOODS[2], (3, 4, 2))
    net = case.net
    theta = torch.tensor(case.theta, requires_grad=True)
    W1, W2, b1, b2, d0, d1 = torch.split(theta, [12, 8, 4, 2, 3, 4])
    W1, W2 = W1.reshape(3, 4), W2.reshape(4, 2)
    h = torch.tensor(net.states)
    x, y = torch.tensor(case.x), torch.tensor(case.y)

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
    expected = theta.grad.numpy()
    assert relative(gradient(net, case.theta, case.x, case.y, direction), expected) < 1e-12
    assert net.log_likelihood(case.theta, case.x, case.y, direction) == pytest.approx(
        total.item(), rel=1e-12
    )


# -- noise in Q, and errors ------------------------------------------------------------------------
@given(em_cases(max_scale=1.5), st.sampled_from(DIRECTIONS))
def test_noisy_q_adds_noise_to_the_target_and_keeps_the_clean_posterior(case, direction):
    noise = {
        "noise_y": 0.1 * case.generator.standard_normal(case.y.shape),
        "noise_x": 0.1 * case.generator.standard_normal(case.x.shape),
    }
    spare = {"forward": "noise_x", "backward": "noise_y", "joint": None}[direction]
    noise.pop(spare, None)
    expected = 0.0
    for way in ("forward", "backward") if direction == "joint" else (direction,):
        y = case.y + noise["noise_y"] if way == "forward" else case.y
        x = case.x + noise["noise_x"] if way == "backward" else case.x
        r = posterior(case.net, case.theta, case.x, case.y, way)
        expected += (r * case.net.log_joint(case.other, x, y, way)).sum()
    arguments = (case.net, case.other, case.theta, case.x, case.y, direction)
    assert q(*arguments, **noise) == pytest.approx(expected, rel=1e-12)
    d = case.generator.standard_normal(case.net.parameter_count)
    h = 1e-5 / np.abs(d).max()
    rest = (case.theta, case.x, case.y, direction)
    slope = q(case.net, case.other + h * d, *rest, **noise)
    slope -= q(case.net, case.other - h * d, *rest, **noise)
    exact = float(q_gradient(*arguments, **noise) @ d)
    assert abs(slope / (2 * h) - exact) < 1e-5 * max(1.0, abs(exact))


def test_errors_say_what_to_do():
    net = BinaryNetwork(2, 2, 1)
    theta = np.zeros(net.parameter_count)
    x, y = np.zeros((3, 2)), np.zeros((3, 1))
    with pytest.raises(ArchitectureError, match="make the hidden layer smaller"):
        BinaryNetwork(2, 15, 1)
    with pytest.raises(ArchitectureError, match="inputs must be at least 1"):
        BinaryNetwork(0, 2, 1)
    with pytest.raises(ArchitectureError, match="direction must be one of"):
        net.log_likelihood(theta, x, y, "sideways")
    with pytest.raises(ArchitectureError, match="ask for one direction"):
        posterior(net, theta, x, y, "joint")
    with pytest.raises(ArchitectureError, match="ask for 'joint'"):
        q(net, theta, theta, x, y, noise_x=x)
    with pytest.raises(ShapeError, match="noise_y must have the shape of y"):
        q(net, theta, theta, x, y, noise_y=x)
    with pytest.raises(ShapeError, match="theta must have shape"):
        net.log_likelihood(theta[1:], x, y)
    with pytest.raises(ShapeError, match="same number of rows"):
        net.log_likelihood(theta, x, y[1:])
    with pytest.raises(ShapeError, match="y must have shape"):
        net.log_likelihood(theta, x, x)
    with pytest.raises(ShapeError, match="x must be finite"):
        net.log_likelihood(theta, x + np.nan, y)
