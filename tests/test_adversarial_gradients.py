"""Players' gradients against finite differences: random architectures, every option."""

from __future__ import annotations

import dataclasses
from itertools import product

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from strategies import Case, cases

from nembp.adversarial.penalty import GradientPenalty
from nembp.adversarial.settings import AdversarialSettings
from nembp.backend import Backend, get_backend
from nembp.engine.activations import ACTIVATIONS, Tanh
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.network import dense_network
from nembp.errors import ArchitectureError
from nembp.threads import threads
from nembp.verification.laws import LAWS
from nembp.verification.laws.adversarial import play
from nembp.verification.laws.deviations import CENTRAL, check, gradient_of
from nembp.verification.laws.games import game
from nembp.verification.laws.gradients import host

CPU = get_backend("cpu")
STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))
DEVICES = pytest.mark.parametrize("device", [CPU, STRICT], ids=["cpu", "array-api-strict"])
GRADIENTS = [
    "adversarial.own-output",
    "adversarial.discriminator",
    "adversarial.generator",
    "adversarial.penalty",
    "joint.memberships",
    "joint.input-error",
]
few = settings(max_examples=max(1, settings.default.max_examples // 2))


@DEVICES
@pytest.mark.parametrize("law", GRADIENTS)
@few
@given(case=cases(images=False))
def test_gradients_of_random_dense_networks(law, device, case):
    LAWS[law].check(case, device)


@pytest.mark.parametrize("law", GRADIENTS)
@few
@given(case=cases(images=True))
def test_gradients_of_random_convolutional_networks(law, case):
    LAWS[law].check(case)


@pytest.mark.parametrize("law", ["adversarial.own-output", "adversarial.generator"])
@few
@given(case=cases(images=True))
def test_gradients_on_three_threads(law, case):
    with threads(3):
        LAWS[law].check(case.with_(rows=case.rows + 9))


OPTIONS = [
    AdversarialSettings(
        kind,
        bidirectional=bidirectional,
        discriminator_weight=0.4,
        generator_weight=1.7,
        backward_labels=labels,
        backward_flow=flow,
        backward_permuted=permuted,
        classes=classes,
        penalty_weight=3.0,
    )
    for kind, bidirectional, (labels, flow, permuted), classes in product(
        ("vanilla", "minimax", "wasserstein", "wasserstein-gp"),
        ("none", "discriminator", "generator", "both"),
        (("real", False, False), ("both", True, False), ("both", False, True)),
        (0, 3),
    )
    if not (classes and kind.startswith("wasserstein"))
]


def label(options):
    chosen = dataclasses.asdict(options)
    names = ("kind", "bidirectional", "backward_labels", "classes")
    flags = [name for name in ("backward_flow", "backward_permuted") if chosen[name]]
    return "-".join([*(str(chosen[name]) for name in names), *flags])


@pytest.mark.parametrize("options", OPTIONS, ids=label)
def test_gradients_of_every_option(options):
    ends = (Gaussian(), Bernoulli(), Multinomial())
    seed = OPTIONS.index(options)
    case = Case((2, 4, 3), "tanh", ends[seed % 3], Gaussian(), rows=4, seed=seed)
    which = game(case, CPU, options)
    of_d, of_g, player, _ = play(which)
    y = which.generated()
    points = player.penalty.x if player.penalty is not None else None
    sides = {
        "discriminator": (of_d, lambda flat: which.discriminator_value(flat, y, points)),
        "generator": (of_g, lambda flat: which.generator_value(flat, y)),
    }
    for name, (gradient, value) in sides.items():
        flat = host(getattr(which, name), getattr(which, name).parameters)
        assert np.any(gradient)
        generator = np.random.default_rng(0)
        check(
            gradient_of(
                value, flat, gradient, name, generator=generator, method="central", scale=1e-3
            ),
            CENTRAL,
        )


def test_a_backward_direction_that_is_not_trained_does_not_move():
    options = AdversarialSettings(bidirectional="none")
    which = game(Case((2, 4, 3), "tanh", Gaussian(), Gaussian(), rows=4, seed=1), CPU, options)
    for net, gradient in zip((which.discriminator, which.generator), play(which)[:2], strict=True):
        backward = net.reversed.views(gradient).biases
        assert not any(np.any(b) for b in backward if b is not None)
        assert np.any(gradient)


def test_a_sample_that_underflows_still_has_a_gradient():
    # log p(real) of a K+1-class D, where p(real) itself is 0 in float32
    options = AdversarialSettings(classes=2)
    case = Case((2, 3, 2), "tanh", Gaussian(), Gaussian(), rows=3, seed=0, dtype="float32")
    which = game(case, CPU, options)
    which.discriminator.biases[-1][...] = [0.0, 0.0, 500.0]
    _, gradient, _, player = play(which)
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient)
    assert float(player.forward_nll[0, 0]) == pytest.approx(499.3, abs=5.0)


# -- the penalty alone -----------------------------------------------------------------------------
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_penalty_of_a_critic_by_hand(activation):
    # f(x) = w x for one neuron: the slope is w everywhere
    net = dense_network([3, 1], forward=Gaussian(), dtype="float64", seed=0)
    w = np.array([0.6, 0.0, 0.8]) * 3.0
    net.weights[0][...] = w[:, None]
    step = GradientPenalty(net, 5)
    step.x[...] = 7.0
    gradient = np.full(net.parameter_count, np.nan)
    step(gradient, 2.0)
    assert step.value[0, 0] == pytest.approx((3.0 - 1.0) ** 2)
    assert np.allclose(step.slope, w)
    assert np.allclose(net.views(gradient).weights[0][:, 0], 2.0 * 2.0 * (3.0 - 1.0) * w / 3.0)
    assert not np.any(net.views(gradient).biases[1])
    assert not np.any(net.reversed.views(gradient).biases[1])


def test_penalty_where_the_slope_is_zero():
    net = dense_network([3, 4, 1], activation="tanh", forward=Gaussian(), seed=0)
    net.weights[1][...] = 0.0
    step = GradientPenalty(net, 2)
    step.x[...] = 1.0
    gradient = np.full(net.parameter_count, np.nan, dtype=np.float32)
    step(gradient)
    assert step.value[0, 0] == 1.0
    assert np.all(np.isfinite(gradient))


def test_penalty_needs_one_output_and_no_normalization():
    with pytest.raises(ArchitectureError, match="one output and without batch normalization"):
        GradientPenalty(dense_network([3, 4, 2]), 2)
    normalized = dense_network([3, 4, 1], normalization=BatchNormalization())
    with pytest.raises(ArchitectureError, match="and normalized layers"):
        GradientPenalty(normalized, 2)


def test_penalty_says_what_an_activation_lacks():
    class Cube(Tanh):
        multiply_curvature = Tanh.__mro__[1].multiply_curvature

    net = dense_network([3, 4, 1], activation=Cube(), forward=Gaussian())
    step = GradientPenalty(net, 2)
    step.x[...] = 1.0
    with pytest.raises(ArchitectureError, match="Cube has no multiply_curvature"):
        step(np.zeros(net.parameter_count, dtype=np.float32))
