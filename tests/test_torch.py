"""PyTorch's autograd as an independent oracle: networks, adversarial networks, EM.

What they climb is written in torch's own words. Convolutions beside it are in test_benchmarks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engines import assert_close, each_path, joint, seeds
from hypothesis import assume, given
from hypothesis import strategies as st

from nembp.backend import get_backend
from nembp.em import BinaryNetwork, gradient
from nembp.engine.backprop import backpropagate
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial, get_likelihood
from nembp.engine.network import Network, dense_network
from nembp.testing import cases
from nembp.verification.cases import random_targets
from nembp.verification.definitions import unflatten
from nembp.verification.laws import Game, joint_size, settings_of

torch = pytest.importorskip("torch", reason="the oracle needs PyTorch, which CI installs")
F = torch.nn.functional
FUNCTIONS = {
    "relu": torch.relu,
    "leaky-relu": lambda z: F.leaky_relu(z, 0.1),
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
    "identity": lambda z: z,
}
ENDS = "multinomial", "gaussian", "bernoulli"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def tensor(value: Any, **options: Any) -> Any:
    return torch.tensor(np.asarray(value, dtype=float), **options)


def steps_of(net: Network, flat: Any) -> list[tuple[Any, Any, Any]]:
    """Return weights, biases and gains of each step of dense maps, as parts of one vector."""
    place = net.views(np.arange(net.parameter_count))

    def take(places: Any) -> Any:
        return flat[torch.tensor(np.ascontiguousarray(places).reshape(-1))].reshape(places.shape)

    steps = []
    for W, b, gain in zip(place.weights, place.biases[1:], place.gains[1:], strict=True):
        weights = take(W if net.direction == "forward" else W.T)
        steps.append((weights, take(b), None if gain is None else take(gain)))
    return steps


def last(net: Network, steps: Any, a: Any) -> Any:
    """Return the last pre-activation, of normalized batches."""
    for layer, (W, b, gain) in zip(net.layers[1:], steps, strict=True):
        a = a @ W
        if gain is not None:
            a = F.batch_norm(a, None, None, gain, b, True, 0.0, layer.normalization.epsilon)
        else:
            a = a + b
        a = a if layer.activation is None else FUNCTIONS[layer.activation.name](a)
    return a


def log_p(likelihood: Likelihood, z: Any, t: Any) -> Any:
    """Return log p(t) over the last axis."""
    if isinstance(likelihood, Gaussian):
        return torch.distributions.Normal(z, likelihood.variance**0.5).log_prob(t).sum(-1)
    if isinstance(likelihood, Multinomial):
        return likelihood.weight * (t * F.log_softmax(z, -1)).sum(-1)
    assert isinstance(likelihood, Bernoulli)
    return likelihood.weight * (t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z)).sum(-1)


# -- networks --------------------------------------------------------------------------------------
@each_path
@pytest.mark.parametrize("activation", FUNCTIONS)
@given(
    seed=seeds, sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4), rows=st.integers(2, 5),
    ends=st.tuples(st.sampled_from(ENDS), st.sampled_from(ENDS)), normal=st.booleans(),
)  # fmt: skip
def test_gradients_of_networks(path, activation, seed, sizes, rows, ends, normal):
    g = np.random.default_rng(seed)
    forward, backward = (get_likelihood(end, g.uniform(0.2, 3.0)) for end in ends)
    net = dense_network(
        sizes, activation=activation, forward=forward, backward=backward, dtype="float64",
        normalization=BatchNormalization() if normal else None,
    )  # fmt: skip
    net.parameters[...] = g.normal(0.0, 0.6, net.parameter_count)
    x = random_targets(backward, g, rows, sizes[0], hard=path == "classes")
    t = random_targets(forward, g, rows, sizes[-1], hard=path == "classes")
    t = np.eye(sizes[-1])[g.integers(0, sizes[-1], rows)] if path == "classes" else t
    flat = tensor(net.parameters, requires_grad=True)
    total, scale = 0.0, joint_size(net, x, t)
    for way, source, target in ((net, x, t), (net.reversed, t, x)):
        signals = tensor(source, requires_grad=True)
        nll = -log_p(way.likelihood, last(way, steps_of(way, flat), signals), tensor(target)).mean()
        ours = -way.log_likelihood(source, target, "batch").mean()
        assert_close(ours, nll.item(), 1e-10, scale)
        expected = torch.autograd.grad(nll, (flat, signals), retain_graph=True)
        for ours, theirs in zip(backpropagate(way, source, target), expected, strict=True):
            assert_close(ours, theirs.numpy(), 1e-10, scale)
        total = total + nll if way is net or path != "none" else total
    (expected,) = torch.autograd.grad(total, flat)
    assert_close(joint(net, x, t, path)[0], expected.numpy(), 1e-10, scale)


# -- adversarial networks: that gradients are those of `Game`'s objectives is a law ----------------
@pytest.mark.parametrize("kind", ["vanilla", "minimax", "wasserstein", "wasserstein-gp"])
@given(case=cases(normalized=False))
def test_objectives_of_generator_and_discriminator(kind, case):
    assume(case.activation != "leaky-relu" or kind != "wasserstein-gp")
    game = Game(case, get_backend("cpu"), settings_of(case, kind))
    s, rows = game.settings, game.rows
    of_g, of_d = (np.array(net.parameters) for net in (game.g, game.d))
    d_steps, back_g, back_d = (
        [(tensor(M), tensor(b), None) for M, b, _ in unflatten(net, flat)]
        for net, flat in (
            (game.d, of_d), (game.g.reversed, of_g), (game.d.reversed, of_d)
        )
    )  # fmt: skip
    z, x, labels, share = draw = next(game.draws())
    y = game.generated(of_g, z)
    real, fake = (last(game.d, d_steps, tensor(each)) for each in (x, y))
    one, zero = torch.ones_like(fake), torch.zeros_like(fake)
    cross = F.binary_cross_entropy_with_logits
    if s.has_critic:
        d, g = fake.mean() - real.mean(), -fake.mean()
    elif s.classes:
        unreal = torch.full((rows,), s.classes)
        d = F.cross_entropy(real, tensor(labels).argmax(1)) + F.cross_entropy(fake, unreal)
        p = F.softmax(fake, 1)
        g = p[:, -1].log().mean() if kind == "minimax" else -(1 - p[:, -1]).log().mean()
    else:
        d = cross(real, one) + cross(fake, zero)
        g = -cross(fake, zero) if kind == "minimax" else cross(fake, one)
    if kind == "wasserstein-gp":
        at = tensor(y + share * (x - y), requires_grad=True)
        (slope,) = torch.autograd.grad(last(game.d, d_steps, at).sum(), at)
        d = d + s.penalty_weight * ((slope.norm(dim=1) - 1.0) ** 2).mean()
    if s.discriminator_backward:
        source, target = (tensor(each) for each in game.backward_pairs(x, y, labels))
        back = game.d.reversed
        each = log_p(back.likelihood, last(back, back_d, source), target)
        d = d - s.discriminator_weight * each.sum() / rows
    if s.generator_backward:
        target, back = torch.roll(tensor(z), -int(s.backward_permuted), 0), game.g.reversed
        each = log_p(back.likelihood, last(back, back_g, tensor(y)), target)
        g = g - s.generator_weight * each.mean()
    size = 1e-9 * (1.0 + abs(float(d)) + abs(float(g)))
    assert float(game.of_d(of_d, draw, y)) == pytest.approx(float(d), rel=1e-9, abs=size)
    assert float(game.of_g(of_g, draw, y)) == pytest.approx(float(g), rel=1e-9, abs=size)


# -- EM --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("of_y", [Multinomial(0.6), Gaussian(0.4), Gaussian(3.0), Bernoulli(1.7)])
def test_log_p_with_hidden_states_and_its_gradient(of_y, way):
    rng, of_x = np.random.default_rng(3), Gaussian(0.4)
    net = BinaryNetwork(3, 4, 2, of_y, of_x)
    if way == "backward":
        net = BinaryNetwork(2, 4, 3, of_x, of_y).reversed
    x, y = (random_targets(of, rng, 4, n, hard=False) for of, n in ((of_x, 3), (of_y, 2)))
    parameters = net.initial(rng, 1.0)
    theta = tensor(parameters, requires_grad=True)
    W, b, V, c = net.layers(np.arange(theta.numel()))  # where they lie in Θ
    h = tensor(net.states)
    hidden = torch.distributions.Bernoulli(logits=(tensor(x) @ theta[W] + theta[b])[:, None, :])
    of_output = log_p(of_y, (h @ theta[V] + theta[c])[None, :, :], tensor(y)[:, None])
    total = torch.logsumexp(hidden.log_prob(h[None]).sum(2) + of_output, 1).sum()
    total.backward()
    ours = gradient(net, parameters, x, y)
    np.testing.assert_allclose(ours, theta.grad.numpy(), rtol=1e-11, atol=1e-12)
    assert net.log_likelihood(parameters, x, y) == pytest.approx(total.item(), rel=1e-12)
