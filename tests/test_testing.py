"""`nembp.testing`: the public strategies, and `check_extension` on what users write."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from examples_extensions import LocallyConnected, Poisson

from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.activations import ACTIVATIONS, Activation, LeakyReLU, Tanh
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.engine.linear import Dense
from nembp.engine.network import Layer, Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import OPTIMIZERS, SGD
from nembp.engine.training import Trainer
from nembp.errors import ArchitectureError, VerificationError
from nembp.testing import (
    check_extension,
)


# -- the examples ------------------------------------------------------------------------------
@pytest.mark.parametrize("extension", [Poisson, LocallyConnected(4, 3), LocallyConnected(1, 1)])
def test_the_examples_pass(extension):
    report = check_extension(extension)
    assert report.passed
    laws = [result.law for result in report.laws]
    assert "in a network: gradient.central-differences" in laws
    assert "in a network: joint.samples" in laws


def test_the_example_linear_map_has_the_classical_gradient():
    laws = [result.law for result in check_extension(LocallyConnected(3, 2)).laws]
    assert "in a network: gradient.classical" in laws


@pytest.mark.parametrize("noise", ["none", "nem", "drift", "anti"])
@pytest.mark.parametrize("forward", ["counts", "labels"])
def test_a_network_with_the_examples_trains(forward, noise):
    g = np.random.default_rng(0)
    x = g.poisson(np.exp(g.normal(0.5, 0.5, (60, 1))), (60, 6)).astype(float)
    label = (x.mean(axis=1) > np.median(x.mean(axis=1))).astype(int)
    y = label if forward == "labels" else x[:, :2] + 1.0
    end = Multinomial() if forward == "labels" else Poisson()
    layers = [Layer(6), Layer(4, Tanh()), Layer(2)]
    maps = [LocallyConnected(4, 3), Dense(4, 2)]
    net = Network(layers, maps, end, Poisson(), dtype="float64")
    reader = BatchReader(Split(x, y), Scaling(), Scaling(), 2, net.backend, net.dtype)
    spec = Noise(noise, std=0.3)
    trainer = Trainer(net, reader, epochs=30, batch_size=20, noise={"backward": spec})
    history = trainer.run()
    for direction in ("forward", "backward"):
        nll = history[f"train/{direction}/nll"]
        assert nll[-1] < nll[0] - 0.01
    if noise == "nem":
        assert min(history["noise/backward/gain"]) >= 0.0


# -- a wrong part is found ---------------------------------------------------------------------
@dataclass(frozen=True)
class WrongPoisson(Poisson):
    def error(self, o, t, out, **options):
        super().error(o, t, out, **options)
        out *= 1.001


@dataclass(frozen=True)
class WrongTanh(Activation):
    name = "wrong-tanh"

    def activate(self, backend, z, scratch):
        backend.into(z, backend.xp.tanh, z)

    def multiply_derivative(self, backend, error, a, scratch):
        error *= 1.0 - a


@dataclass(frozen=True)
class WrongWindow(LocallyConnected):
    def adjoint(self, backend, y, W, out):
        super().adjoint(backend, y, W[::-1, :], out)


class WrongSGD(SGD):
    def _update(self, chunk, eta):
        super()._update(chunk, -eta)


@pytest.mark.parametrize(
    ("extension", "law"),
    [
        (WrongPoisson, "error = −∂log p/∂z"),
        (WrongTanh, "multiply_derivative"),
        (WrongWindow(4, 3), "adjoint"),
        (WrongSGD, "gradient"),
    ],
)
def test_a_wrong_extension_is_found(extension, law):
    report = check_extension(extension, raises=False)
    assert not report.passed
    assert any(law in result.law for result in report.laws if not result.passed)
    with pytest.raises(VerificationError):
        check_extension(extension)


@dataclass(frozen=True)
class RightAloneOnly(Gaussian):
    """Right for one target, wrong where the engine asks for the mean of a batch."""

    name = "right-alone"

    def error(self, o, t, out, *, counts=None, factor=1.0):
        super().error(o, t, out, counts=counts, factor=0.25 if factor == 0.25 else 1.0)


def test_a_part_that_only_fails_inside_a_network_is_found():
    report = check_extension(RightAloneOnly(), raises=False)
    wrong = [result.law for result in report.laws if not result.passed]
    assert any(law.startswith("in a network") for law in wrong)


@pytest.mark.parametrize(
    "extension",
    [
        *(kind() for kind in ACTIVATIONS.values()),
        LeakyReLU(0.3),
        Multinomial(0.5),
        Gaussian(3.0),
        Bernoulli(2.0),
        Dense(4, 3),
        *OPTIMIZERS.values(),
    ],
    ids=repr,
)
def test_parts_of_nembp_pass(extension):
    check_extension(extension)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "expected a Likelihood, LinearMap, Activation or Optimizer"),
        (dict, "expected a Likelihood"),
        (Likelihood, "Likelihood still lacks the methods gain_terms, link, log_likelihood, scale"),
        (Dense, r"Dense needs arguments .* pass an instance, such as Dense\(...\)"),
    ],
)
def test_what_cannot_be_checked_is_said(value, message):
    with pytest.raises(ArchitectureError, match=message):
        check_extension(value)
