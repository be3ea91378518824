"""`nembp.testing`: the public strategies, and `check_extension` on what users write."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from examples_extensions import LocallyConnected, Poisson
from hypothesis import given, settings
from hypothesis import strategies as st

import nembp.testing
from nembp.batches import BatchReader
from nembp.convolution import AveragePooling, Convolution, Reshape
from nembp.datasets import Scaling, Split
from nembp.errors import ArchitectureError, VerificationError
from nembp.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.network import Layer, Network, dense_network
from nembp.neurons import ACTIVATIONS, Activation, LeakyReLU, Tanh
from nembp.noise import Noise
from nembp.optimizers import OPTIMIZERS, SGD
from nembp.synapses import Dense, Transposed
from nembp.testing import (
    activations,
    batches_for,
    check_extension,
    likelihoods,
    networks,
    noise_for,
    synapses,
    targets,
)
from nembp.training import Trainer
from nembp.verification.chains import random_chain

few = settings(max_examples=20)


# -- the examples ------------------------------------------------------------------------------
@pytest.mark.parametrize("extension", [Poisson, LocallyConnected(4, 3), LocallyConnected(1, 1)])
def test_the_examples_pass(extension):
    report = check_extension(extension)
    assert report.passed
    laws = [result.law for result in report.laws]
    assert "in a network: gradient.central-differences" in laws
    assert "in a network: joint.samples" in laws


def test_the_example_synapse_has_the_classical_gradient():
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
    synapses = [LocallyConnected(4, 3), Dense(4, 2)]
    net = Network(layers, synapses, end, Poisson(), dtype="float64")
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

    def error(self, o, t, out, *, mass=None, factor=1.0):
        super().error(o, t, out, mass=mass, factor=0.25 if factor == 0.25 else 1.0)


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
        (3, "expected a Likelihood, Synapse, Activation or Optimizer"),
        (dict, "expected a Likelihood"),
        (Likelihood, "Likelihood still lacks the methods gain_terms, link, log_likelihood, scale"),
        (Dense, r"Dense needs arguments .* pass an instance, such as Dense\(...\)"),
    ],
)
def test_what_cannot_be_checked_is_said(value, message):
    with pytest.raises(ArchitectureError, match=message):
        check_extension(value)


# -- strategies --------------------------------------------------------------------------------
@few
@given(data=st.data())
def test_networks_and_batches_fit(data):
    net = data.draw(networks())
    x, y = data.draw(batches_for(net))
    assert np.all(np.isfinite(net.log_likelihood(x, y)))
    assert np.all(np.isfinite(net.reversed.log_likelihood(y, x)))
    back = data.draw(batches_for(net.reversed, rows=2))
    assert (back[0].shape, back[1].shape) == ((2, net.outputs), (2, net.inputs))
    _, labels = data.draw(batches_for(net, labels=True))
    assert np.array_equal(labels.sum(axis=1), np.ones(len(labels)))


@few
@given(data=st.data())
def test_networks_are_of_the_kind_asked_for(data):
    net = data.draw(networks(("gaussian", "bernoulli"), "relu", dtype="float32"))
    assert isinstance(net.likelihood, Gaussian)
    assert isinstance(net.reversed.likelihood, Bernoulli)
    names = [layer.activation and layer.activation.name for layer in net.layers[1:-1]]
    assert set(names) <= {"relu", None}
    assert net.dtype == "float32"


@few
@given(data=st.data())
def test_networks_of_images_or_without(data):
    plain = data.draw(networks(activation="tanh", images=False))
    assert {type(synapse) for synapse in plain.synapses} == {Dense}
    assert all(layer.activation == Tanh() for layer in plain.layers[1:-1])
    net = data.draw(networks(images=True))
    assert 1 <= len(net.synapses) <= 4
    assert max(layer.size for layer in net.layers) <= 75


def test_networks_of_images_have_every_kind_of_synapse():
    """Each kind is in at least one of 200: a draw without it has a chance of 1e-6 at most."""
    kinds = set()
    for index in range(200):
        chain = random_chain(pick_of(index), 1 + index % 4)
        for synapse in chain.synapses:
            inner = synapse.synapse if isinstance(synapse, Transposed) else synapse
            kinds.add((type(synapse), type(inner)))
            if isinstance(inner, Convolution):
                rest = [
                    (size + 2 * p - k) % s
                    for size, p, k, s in zip(
                        inner.shape, inner.padding, inner.kernel, inner.stride, strict=False
                    )
                ]
                kinds.add(("stride leaves pixels over", any(rest)))
                kinds.add(("rectangular", inner.kernel[0] != inner.kernel[1]))
                kinds.add(("whole image", inner.kernel == inner.shape[:2]))
                kinds.add(("1 by 1 with stride", inner.kernel == (1, 1) and max(inner.stride) > 1))
                kinds.add(
                    (
                        "padding no window needs",
                        min(p - k for p, k in zip(inner.padding, inner.kernel, strict=True)) >= 0,
                    )
                )
        kinds.add(("shared by channel", any(b == 2 for b in chain.biases[1:-1])))
        kinds.add(("no bias", 0 in chain.biases))
        kinds.add(("linear", bool(chain.linear)))
    assert {Dense, Convolution, AveragePooling, Reshape} <= {
        a for a, b in kinds if a is b and isinstance(a, type)
    }
    assert (Transposed, Convolution) in kinds
    said = {what for what, found in kinds if isinstance(what, str) and found}
    assert said == {what for what, _ in kinds if isinstance(what, str)}


def pick_of(seed):
    g = np.random.default_rng(seed)
    return lambda low, high: int(g.integers(low, high + 1))


@few
@given(data=st.data(), likelihood=likelihoods())
def test_targets_are_proper(data, likelihood):
    t = data.draw(targets(likelihood, 4, 3))
    hard = data.draw(targets(likelihood, 4, 3, hard=True))
    if isinstance(likelihood, Multinomial):
        np.testing.assert_allclose(t.sum(axis=1), 1.0)
        assert set(np.unique(hard)) <= {0.0, 1.0}
    if isinstance(likelihood, Bernoulli):
        assert np.all((t >= 0.0) & (t <= 1.0))


@few
@given(data=st.data(), likelihood=likelihoods())
def test_noise_can_be_used_on_its_target(data, likelihood):
    noise = data.draw(noise_for(likelihood))
    assert noise.kind != "none"
    net = dense_network([3, 4, 2], forward=likelihood, dtype="float64")
    reader = BatchReader(
        Split(np.ones((4, 3)), np.full((4, 2), 0.5)),
        Scaling(),
        Scaling(),
        2,
        net.backend,
        net.dtype,
    )
    Trainer(net, reader, epochs=1, noise={"forward": noise}, optimizer=SGD(1e-6)).run()


@few
@given(activation=activations(analytic=False), synapse=synapses(), kind=likelihoods("gaussian"))
def test_kinds(activation, synapse, kind):
    assert not activation.analytic
    assert synapse.inputs >= 1
    assert isinstance(kind, Gaussian)


def test_hypothesis_is_needed_only_for_strategies():
    code = """
import sys
sys.modules["hypothesis"] = None
from nembp.testing import check_extension
from nembp.neurons import Identity
assert check_extension(Identity()).passed
try:
    from nembp.testing import networks
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "nembp.testing.networks needs Hypothesis, which is not installed; "
        "pip install 'nembp[testing]'\n"
    )


def test_every_name_exists():
    for name in nembp.testing.__all__:
        assert callable(getattr(nembp.testing, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = nembp.testing.nothing
