"""Both gradients against finite differences of what the networks descend, for every option."""

from __future__ import annotations

import dataclasses
from itertools import product
from typing import Any

import array_api_strict
import numpy as np
import pytest
from near import assert_near
from scipy.special import log_expit, log_softmax, logsumexp

from nembp.adversarial import AdversarialSettings, Score
from nembp.adversarial.gradients import DiscriminatorGradient, GeneratorGradient
from nembp.adversarial.objectives import GradientPenalty
from nembp.architecture import generator_network, network
from nembp.backend import Backend, get_backend, stream
from nembp.engine.activations import ACTIVATIONS, Tanh
from nembp.engine.backprop import backpropagate
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import Bernoulli, Gaussian
from nembp.engine.network import Network, dense_network
from nembp.errors import ArchitectureError

ROWS, SHAPE = 5, (4, 4, 1)
STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))
IMAGES = ("8", "reshape2x2x2", "up3x2s2", 5), ("conv3x3s2", "conv2x2", 5)
NORMALIZED = ("8bn", "reshape2x2x2", "up3x2s2bn", 5), ("conv3x3s2bn", "conv2x2", 5)
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
    flags = [name for name in ("backward_flow", "backward_permuted") if chosen[name]]
    return "-".join([options.kind, options.bidirectional, str(options.classes), *flags])


class Setting:
    """Two networks, a batch, their gradients, and what they descend by the networks' own runs."""

    def __init__(self, settings: AdversarialSettings, layers: Any = None, device: Any = "cpu"):
        self.settings, draw = settings, np.random.default_rng(1)
        forward: Any = Score() if settings.has_critic else Bernoulli()
        if settings.classes:
            forward = "multinomial"
        backward = Bernoulli() if settings.latent_law == "binary" else Gaussian()
        of_g = {"forward": "bernoulli", "backward": backward, "seed": 2}
        of_d = {"forward": forward, "backward": "gaussian", "seed": 3}
        more = {"device": device, "dtype": "float64", "activation": "tanh"}
        outputs = settings.classes + 1
        if layers:
            self.g = generator_network(3, layers[0], SHAPE, **of_g, **more)
            self.d = network(SHAPE, layers[1], outputs, **of_d, **more)
        else:
            self.g = dense_network([3, 6, 16], **of_g, **more)
            self.d = dense_network([16, 6, 5, outputs], **of_d, **more)
        for net in (self.g, self.d):
            host = net.backend.to_numpy(net.parameters)
            change = 0.2 * draw.standard_normal(host.shape)
            net.parameters[...] = net.backend.asarray(host + change, "float64")
        self.z, self.x = draw.standard_normal((ROWS, 3)), draw.random((ROWS, 16))
        self.labels = np.eye(max(settings.classes, 1))[draw.integers(0, outputs - 1 or 1, ROWS)]
        self.order = np.arange(16)
        permutation = None
        if settings.backward_permuted and settings.discriminator_backward:
            self.order = permutation = draw.permutation(16)
        points = {"penalty": stream(7, "penalty")}
        self.of_d = DiscriminatorGradient(self.d, ROWS, settings, None, points, permutation)
        self.of_g = GeneratorGradient(self.g, self.d, ROWS, settings)
        array = self.g.backend.asarray
        self.of_g.z[...], self.of_d.real[...] = array(self.z), array(self.x)
        self.of_d.generated[...] = self.of_g.run()
        if settings.classes:
            self.of_d.labels[...] = array(self.labels)
        nans = [array(np.full(net.parameter_count, np.nan)) for net in (self.d, self.g)]
        self.of_d(nans[0], settings.discriminator_weight)
        self.of_g(nans[1], settings.generator_weight)
        self.gradients = [self.g.backend.to_numpy(each) for each in nans]
        self.y = self.g.backend.to_numpy(self.of_g.output).copy()

    def d_descends(self) -> float:
        settings, d = self.settings, self.d
        real, fake = (d.readout(x, "batch").z for x in (self.x, self.y))
        if settings.has_critic:
            value = np.mean(fake) - np.mean(real)
        elif settings.classes:
            value = -np.sum(self.labels * log_softmax(real, 1)[:, :-1]) / ROWS
            value -= np.mean(log_softmax(fake, 1)[:, -1])
        else:
            value = -np.mean(log_expit(real)) - np.mean(log_expit(-fake))
        if self.of_d.penalty is not None:
            error = backpropagate(d, self.of_d.penalty.x, np.ones((ROWS, 1)))[1]
            slope = np.linalg.norm(ROWS * error, axis=1)
            value += settings.penalty_weight * np.mean((slope - 1.0) ** 2)
        if settings.discriminator_backward:
            fake_label = -1.0 if settings.has_critic else 0.0
            labels = np.repeat([[1.0], [fake_label]], ROWS, axis=0)
            if settings.classes:
                labels = np.repeat(np.eye(settings.classes + 1)[[-1]], 2 * ROWS, axis=0)
                labels[:ROWS] = np.hstack([self.labels, np.zeros((ROWS, 1))])
            targets = np.concatenate([self.x, self.y])[:, self.order]
            count = ROWS if settings.backward_labels == "real" else 2 * ROWS
            log_p = d.reversed.log_likelihood(labels[:count], targets[:count], "batch")
            value -= settings.discriminator_weight * np.sum(log_p) / ROWS
        return float(value)

    def g_descends(self) -> float:
        settings, minimax = self.settings, self.settings.kind == "minimax"
        y = self.g.predict(self.z, "batch")
        s = self.d.readout(y, "batch").z
        if settings.has_critic:
            value = -np.mean(s)
        elif settings.classes:
            log_p = log_softmax(s, 1)
            real = -np.mean(logsumexp(log_p[:, :-1], axis=1))
            value = np.mean(log_p[:, -1]) if minimax else real
        else:
            value = np.mean(log_expit(-s)) if minimax else -np.mean(log_expit(s))
        if settings.generator_backward:
            target = np.roll(self.z, -settings.backward_permuted, axis=0)
            held = y if settings.backward_flow else self.y
            log_p = self.g.reversed.log_likelihood(held, target, "batch")
            value -= settings.generator_weight * np.mean(log_p)
        return float(value)

    def check(self) -> None:
        """Compare both gradients with central differences along random directions."""
        draw = np.random.default_rng(0)
        pairs = (self.d, self.d_descends), (self.g, self.g_descends)
        for (net, value), gradient in zip(pairs, self.gradients, strict=True):
            assert np.all(np.isfinite(gradient))
            assert np.any(gradient)
            start, step = net.parameters.copy(), 1e-5
            for _ in range(3):
                v = draw.standard_normal(start.shape)
                ends = []
                for sign in (1.0, -1.0):
                    net.parameters[...] = start + sign * step * v
                    ends.append(value())
                net.parameters[...] = start
                slope = (ends[0] - ends[1]) / (2.0 * step)
                assert slope == pytest.approx(gradient @ v, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("options", OPTIONS, ids=label)
def test_gradients_of_every_option(options):
    Setting(options).check()


@pytest.mark.parametrize("kind", ["vanilla", "minimax", "wasserstein", "wasserstein-gp"])
@pytest.mark.parametrize("layers", [IMAGES, NORMALIZED], ids=["images", "normalized"])
def test_gradients_of_convolutional_networks(kind, layers):
    if kind == "wasserstein-gp":
        layers = layers[0], IMAGES[1]  # its critic has no normalized layers
    for flow in (False, True):
        settings = AdversarialSettings(kind, "both", backward_labels="both", backward_flow=flow)
        Setting(settings, layers).check()


@pytest.mark.parametrize("options", OPTIONS[9::12], ids=label)
def test_gradients_on_array_api_strict_are_the_cpu_s(options):
    ours, theirs = (Setting(options, device=d).gradients for d in (get_backend("cpu"), STRICT))
    for a, b in zip(ours, theirs, strict=True):
        assert_near(b, a, 1e-9, "gradient", scale=1.0)


def test_codes_go_back_through_bernoulli():
    Setting(AdversarialSettings("vanilla", "generator", latent_law="binary")).check()


def test_a_backward_direction_that_is_not_trained_does_not_move():
    setting = Setting(AdversarialSettings(bidirectional="none"))
    for net, gradient in zip((setting.d, setting.g), setting.gradients, strict=True):
        backward = net.reversed.views(gradient).biases
        assert not any(np.any(b) for b in backward if b is not None)


def test_a_sample_that_underflows_still_has_a_gradient():
    # log p(real) of a K+1-class D, where p(real) itself is 0 in float32
    d = dense_network([16, 5, 3], forward="multinomial", seed=1)
    d.biases[-1][...] = [0.0, 0.0, 500.0]
    g = dense_network([3, 6, 16], forward="bernoulli", seed=0)
    of_g = GeneratorGradient(g, d, ROWS, AdversarialSettings(classes=2))
    of_g.z[...] = 1.0
    of_g.run()
    gradient = np.full_like(g.parameters, np.nan)
    of_g(gradient)
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient)
    assert float(of_g.forward_nll[0, 0]) == pytest.approx(499.3, abs=5.0)


def test_permuted_targets_are_the_samples_values_in_another_order():
    d = dense_network([3, 4, 1], forward=Bernoulli(), seed=1)
    settings = AdversarialSettings(bidirectional="discriminator", backward_labels="both")
    of_d = DiscriminatorGradient(d, 2, settings, permutation=np.array([2, 0, 1]))
    of_d.real[...] = [[1, 2, 3], [4, 5, 6]]
    of_d.generated[...] = 7.0
    of_d(np.zeros(d.parameter_count, np.float32))
    assert np.array_equal(of_d.permuted[:2], [[3, 1, 2], [6, 4, 5]])


# -- the penalty alone -----------------------------------------------------------------------------
def penalty_of(net: Network, x: Any, weight: float = 1.0) -> tuple[GradientPenalty, Any]:
    step = GradientPenalty(net, len(x))
    step.x[...] = x
    gradient = np.full(net.parameter_count, np.nan, net.dtype)
    step(gradient, weight)
    return step, gradient


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_penalty_of_every_activation(activation):
    net = dense_network([3, 6, 4, 1], activation=activation, dtype="float64", seed=3)
    net.parameters[...] += 0.3 * np.random.default_rng(0).standard_normal(net.parameter_count)
    x, v = np.random.default_rng(1).standard_normal((2, net.parameter_count))[:, :15]
    x = x.reshape(5, 3)
    step, gradient = penalty_of(net, x, 2.0)
    slope = -5.0 * backpropagate(dense_score(net), x, np.ones((5, 1)))[1]
    np.testing.assert_allclose(step.slope, slope, rtol=1e-9, atol=1e-12)
    v = np.random.default_rng(2).standard_normal(net.parameter_count)
    start, h, values = net.parameters.copy(), 1e-6, []
    for sign in (1.0, -1.0):
        net.parameters[...] = start + sign * h * v
        values.append(2.0 * penalty_of(net, x)[0].value[0, 0])
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(gradient @ v, rel=1e-5, abs=1e-7)


def dense_score(net: Network) -> Network:
    """The same parameters under a critic's objective, whose error is −1 everywhere."""
    score = Network(net.layers, net.maps, Score(), Gaussian(), dtype="float64", seed=None)
    score.parameters[...] = net.parameters
    return score


def test_penalty_where_the_slope_is_zero():
    net = dense_network([3, 4, 1], activation="tanh", forward=Gaussian(), seed=0)
    net.weights[1][...] = 0.0
    step, gradient = penalty_of(net, np.ones((2, 3)))
    assert step.value[0, 0] == 1.0
    assert np.all(np.isfinite(gradient))


def test_penalty_says_what_it_needs():
    class Cube(Tanh):
        multiply_curvature = Tanh.__mro__[1].multiply_curvature

    normalized = dense_network([3, 4, 1], normalization=BatchNormalization())
    for net, match in (
        (dense_network([3, 4, 2]), "one output and without batch normalization"),
        (normalized, "and normalized layers"),
        (dense_network([3, 4, 1], activation=Cube(), forward=Gaussian()), "no multiply_curvature"),
    ):
        with pytest.raises(ArchitectureError, match=match):
            penalty_of(net, np.ones((2, 3)))
