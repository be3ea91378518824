"""PyTorch as an independent oracle of what a generator and a discriminator descend.

That the engine's gradients are those of `Game`'s objectives is a law (``adversarial.*``); here the
objectives are written in torch's own words, the penalty by a graph of a gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given

from nembp.backend import get_backend
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.testing import cases
from nembp.verification import definitions
from nembp.verification.laws import Game, settings_of

torch = pytest.importorskip("torch")
F = torch.nn.functional
FUNCTIONS = {
    "relu": torch.relu,
    "leaky-relu": lambda z: F.leaky_relu(z, 0.1),
    "tanh": torch.tanh,
    "logistic": torch.sigmoid,
    "identity": lambda z: z,
}


def tensor(value: Any) -> Any:
    return torch.tensor(np.asarray(value, dtype=float))


def last(net: Any, flat: Any, x: Any) -> Any:
    """Return the last pre-activation of a network without normalization."""
    steps = definitions.unflatten(net, flat)
    for k, (M, b, _) in enumerate(steps, start=1):
        x = x @ tensor(M) + tensor(b)
        f = net.layers[k].activation
        x = FUNCTIONS[f.name](x) if f is not None and k < len(steps) else x
    return x


def log_p(net: Any, flat: Any, x: Any, t: Any) -> Any:
    z, likelihood = last(net, flat, tensor(x)), net.likelihood
    if isinstance(likelihood, Gaussian):
        return torch.distributions.Normal(z, 1.0).log_prob(t).sum(1)
    if isinstance(likelihood, Multinomial):
        return (t * F.log_softmax(z, 1)).sum(1)
    assert isinstance(likelihood, Bernoulli)
    return -F.binary_cross_entropy_with_logits(z, t, reduction="none").sum(1)


@pytest.mark.parametrize("kind", ["vanilla", "minimax", "wasserstein", "wasserstein-gp"])
@given(case=cases(normalized=False))
def test_both_objectives_are_torchs(kind, case):
    assume(case.activation != "leaky-relu" or kind != "wasserstein-gp")
    game = Game(case, get_backend("cpu"), settings_of(case, kind))
    s, rows = game.settings, game.rows
    of_g, of_d = (np.array(net.parameters) for net in (game.g, game.d))
    z, x, labels, share = draw = next(game.draws())
    y = game.generated(of_g, z)
    real, fake = (last(game.d, of_d, tensor(each)) for each in (x, y))
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
        at = tensor(y + share * (x - y)).requires_grad_()
        (slope,) = torch.autograd.grad(last(game.d, of_d, at).sum(), at)
        d = d + s.penalty_weight * ((slope.norm(dim=1) - 1.0) ** 2).mean()
    if s.discriminator_backward:
        source, target = game.backward_pairs(x, y, labels)
        each = log_p(game.d.reversed, of_d, source, tensor(target))
        d = d - s.discriminator_weight * each.sum() / rows
    if s.generator_backward:
        target = torch.roll(tensor(z), -int(s.backward_permuted), 0)
        g = g - s.generator_weight * log_p(game.g.reversed, of_g, y, target).mean()
    size = 1e-9 * (1.0 + abs(float(d)) + abs(float(g)))
    assert float(game.of_d(of_d, draw, y)) == pytest.approx(float(d), rel=1e-9, abs=size)
    assert float(game.of_g(of_g, draw, y)) == pytest.approx(float(g), rel=1e-9, abs=size)
