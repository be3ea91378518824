"""`nembp.testing`: the public strategies draw what they say; a network of a user's parts trains."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from examples_extensions import LocallyConnected, Poisson
from hypothesis import given
from hypothesis import strategies as st

import nembp.testing
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.activations import Tanh
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.linear import AveragePooling, Dense, Reshape, Transposed
from nembp.engine.network import Layer, Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Adam
from nembp.engine.training import Trainer
from nembp.testing import (
    activations,
    batches_for,
    cases,
    likelihoods,
    linear_maps,
    networks,
    noise_for,
    targets,
)
from nembp.verification import LAWS, generate


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


@given(data=st.data())
def test_networks_are_of_the_kind_asked_for(data):
    net = data.draw(networks(("gaussian", "bernoulli"), "tanh", dtype="float32", images=False))
    kinds = type(net.likelihood), type(net.reversed.likelihood), net.dtype
    assert kinds == (Gaussian, Bernoulli, "float32")
    assert {type(linear_map) for linear_map in net.maps} == {Dense}
    assert all(layer.activation == Tanh() for layer in net.layers[1:-1])


@given(case=cases())
def test_a_case_holds_a_law(case):
    LAWS["joint.samples"].check(case)


def test_random_networks_have_every_kind_of_linear_map():
    """Each kind is in at least one of 200: a draw without it has a chance of 1e-6 at most."""
    kinds, said = set(), set()
    for index in range(700):
        case = generate(0, index)
        for linear_map in case.maps or ():
            inner = linear_map.linear_map if isinstance(linear_map, Transposed) else linear_map
            kinds.add((type(linear_map), type(inner)))
            if isinstance(inner, Convolution):
                sides = zip(inner.shape, inner.padding, inner.kernel, inner.stride, strict=False)
                over = any((size + 2 * p - k) % s for size, p, k, s in sides)
                said |= {"stride leaves pixels over"} if over else set()
                said |= {"whole image"} if inner.kernel == inner.shape[:2] else set()
        said |= {"no bias"} if case.biases and 0 in case.biases else set()
        said |= {"linear"} if case.linear else set()
        said |= {"normalized"} if case.normalized else set()
    assert {Dense, Convolution, AveragePooling, Reshape, Transposed} <= {a for a, _ in kinds}
    assert (Transposed, Convolution) in kinds
    assert len(said) == 5


@given(data=st.data(), likelihood=likelihoods())
def test_targets_are_proper(data, likelihood):
    t = data.draw(targets(likelihood, 4, 3))
    hard = data.draw(targets(likelihood, 4, 3, hard=True))
    if isinstance(likelihood, Multinomial):
        np.testing.assert_allclose(t.sum(axis=1), 1.0)
        assert set(np.unique(hard)) <= {0.0, 1.0}
    if isinstance(likelihood, Bernoulli):
        assert np.all((t >= 0.0) & (t <= 1.0))
    assert data.draw(noise_for(likelihood)).kind != "none"


@given(activation=activations(analytic=False), linear_map=linear_maps(Reshape), end=likelihoods())
def test_parts(activation, linear_map, end):
    assert not activation.analytic
    assert isinstance(linear_map, Reshape)
    assert 0.01 <= end.scale <= 100.0


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
    history = Trainer(net, reader, epochs=30, batch_size=20, noise={"backward": spec}).run()
    for direction in ("forward", "backward"):
        nll = history[f"train/{direction}/nll"]
        assert nll[-1] < nll[0] - 0.01
    if noise == "nem":
        assert min(history["noise/backward/gain"]) >= 0.0


def test_hypothesis_is_needed_only_for_strategies(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    assert nembp.testing.check_extension(Adam()).passed
    with pytest.raises(ImportError, match="need Hypothesis, which is not installed"):
        networks()
