"""The public strategies draw what they say, and shrink."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nembp.testing
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.activations import Tanh
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.linear import AveragePooling, Dense, Reshape, Transposed
from nembp.engine.network import dense_network
from nembp.engine.optimizers import SGD
from nembp.engine.training import Trainer
from nembp.testing import (
    activations,
    batches_for,
    likelihoods,
    maps,
    networks,
    noise_for,
    targets,
)
from nembp.verification.chains import random_chain

few = settings(max_examples=20)


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
    assert {type(linear_map) for linear_map in plain.maps} == {Dense}
    assert all(layer.activation == Tanh() for layer in plain.layers[1:-1])
    net = data.draw(networks(images=True))
    assert 1 <= len(net.maps) <= 4
    assert max(layer.size for layer in net.layers) <= 75


def test_networks_of_images_have_every_kind_of_linear_map():
    """Each kind is in at least one of 200: a draw without it has a chance of 1e-6 at most."""
    kinds = set()
    for index in range(200):
        chain = random_chain(pick_of(index), 1 + index % 4)
        for linear_map in chain.maps:
            inner = linear_map.linear_map if isinstance(linear_map, Transposed) else linear_map
            kinds.add((type(linear_map), type(inner)))
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
@given(activation=activations(analytic=False), linear_map=maps(), kind=likelihoods("gaussian"))
def test_kinds(activation, linear_map, kind):
    assert not activation.analytic
    assert linear_map.inputs >= 1
    assert isinstance(kind, Gaussian)


def test_hypothesis_is_needed_only_for_strategies():
    code = """
import sys
sys.modules["hypothesis"] = None
from nembp.testing import check_extension
from nembp.engine.activations import Identity
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
