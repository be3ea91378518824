"""PyTorch's autograd as an independent oracle of both players.

The players' objectives are written in torch's own words; the penalty by a graph of a gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from near import assert_near
from strategies import cases

from nembp.backend import get_backend
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.network import Network
from nembp.verification.laws import textbook
from nembp.verification.laws.adversarial import play
from nembp.verification.laws.games import Game, game, random_settings

torch = pytest.importorskip("torch")
F = torch.nn.functional
D = torch.distributions

FUNCTIONS = {
    "relu": torch.relu,
    "leaky-relu": lambda z: F.leaky_relu(z, 0.1),
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
    "identity": lambda z: z,
}
KINDS = ("vanilla", "minimax", "wasserstein", "wasserstein-gp")
few = settings(max_examples=max(1, settings.default.max_examples // 2))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tensor(value: Any) -> Any:
    return torch.tensor(np.asarray(value, dtype=float))


def parameters(net: Network) -> Any:
    return tensor(net.parameters).requires_grad_()


def last(net: Network, flat: Any, x: Any) -> Any:
    return textbook.signals(net, flat, x, FUNCTIONS)[1]


def log_p(net: Network, flat: Any, x: Any, t: Any) -> Any:
    z, likelihood = last(net, flat, x), net.likelihood
    if isinstance(likelihood, Gaussian):
        return D.Normal(z, likelihood.variance**0.5).log_prob(t).sum(1)
    if isinstance(likelihood, Multinomial):
        return likelihood.weight * (t * F.log_softmax(z, 1)).sum(1)
    assert isinstance(likelihood, Bernoulli)
    each = -F.binary_cross_entropy_with_logits(z, t, reduction="none")
    return likelihood.weight * each.sum(1)


def link(net: Network, z: Any) -> Any:
    if isinstance(net.likelihood, Multinomial):
        return torch.softmax(z, 1)
    return torch.sigmoid(z) if isinstance(net.likelihood, Bernoulli) else z


def discriminator_value(which: Game, flat: Any, y: Any, points: Any) -> Any:
    net, options, rows = which.discriminator, which.settings, which.rows
    x = tensor(which.x)
    s = torch.cat([last(net, flat, each) for each in (x, y)])
    if options.has_critic:
        value = s[rows:].mean() - s[:rows].mean()
    elif options.classes:
        classes = np.concatenate([which.labels.argmax(1), np.full(rows, options.classes)])
        value = 2.0 * F.cross_entropy(s, torch.tensor(classes))
    else:
        labels = tensor(np.repeat([[1.0], [0.0]], rows, axis=0))
        value = 2.0 * F.binary_cross_entropy_with_logits(s, labels)
    if points is not None:
        at = tensor(points).requires_grad_()
        (slope,) = torch.autograd.grad(last(net, flat, at).sum(), at, create_graph=True)
        value = value + options.penalty_weight * ((slope.norm(dim=1) - 1.0) ** 2).mean()
    if options.discriminator_backward:
        labels, targets = (tensor(v) for v in which.backward_pairs(y.numpy()))
        if which.permutation is not None:
            targets = targets[:, which.permutation]
        each = log_p(net.reversed, flat, labels, targets)
        value = value - options.discriminator_weight * each.sum() / rows
    return value


def generator_value(which: Game, flat: Any) -> Any:
    net, d, options = which.generator, which.discriminator, which.settings
    z = tensor(which.z)
    y = link(net, last(net, flat, z))
    s = last(d, tensor(d.parameters), y)
    minimax = options.kind == "minimax"
    if options.has_critic:
        value = -s.mean()
    elif options.classes:
        p = F.log_softmax(s, 1)
        value = p[:, -1].mean() if minimax else -torch.logsumexp(p[:, :-1], 1).mean()
    elif minimax:
        value = -F.binary_cross_entropy_with_logits(s, torch.zeros_like(s))
    else:
        value = F.binary_cross_entropy_with_logits(s, torch.ones_like(s))
    if options.generator_backward:
        start = y if options.backward_flow else y.detach()
        target = torch.roll(z, -1, 0) if options.backward_permuted else z
        each = log_p(net.reversed, flat, start, target)
        value = value - options.generator_weight * each.mean()
    return value


@pytest.mark.parametrize("kind", KINDS)
@few
@given(case=cases(), data=st.data())
def test_both_players_are_autograds(kind, case, data):
    assume(case.forward.scale < 1e3 and case.backward.scale < 1e3)
    which = game(case, get_backend("cpu"), random_settings(case, kind))
    of_d, of_g, player, generator = play(which)
    y = tensor(generator.output)
    points = None if player.penalty is None else player.penalty.x

    flat = parameters(which.discriminator)
    value = discriminator_value(which, flat, y, points)
    value.backward()
    expected = flat.grad.numpy()
    assert_near(of_d, expected, 1e-9, "D's gradient", scale=1.0)

    flat = parameters(which.generator)
    generator_value(which, flat).backward()
    assert_near(of_g, flat.grad.numpy(), 1e-9, "gradient", scale=1.0)


def test_an_error_of_a_thousandth_is_seen():
    from strategies import Case

    case = Case((2, 4, 3), "tanh", Gaussian(), Gaussian(), rows=4, seed=3)
    which = game(case, get_backend("cpu"), random_settings(case, "vanilla"))
    of_d, _, _, generator = play(which)
    flat = parameters(which.discriminator)
    discriminator_value(which, flat, tensor(generator.output), None).backward()
    assert_near(of_d, flat.grad.numpy(), 1e-9, "gradient", scale=1.0)
    with pytest.raises(AssertionError):
        assert_near(1.001 * of_d, flat.grad.numpy(), 1e-9, "gradient", scale=1.0)
