"""Normalized networks copied, kept in files and trained."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from near import assert_near
from normalized_networks import IMAGE, batch, each_dtype, small

from nembp.architecture import generator_network
from nembp.checkpoints import (
    ARRAYS,
    FORMAT,
    OPTIONAL,
    VERSION,
    Model,
    load_model,
    read_archive,
    save_model,
    write_archive,
)
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.activations import Tanh
from nembp.engine.backprop import CycleBackpropagation, backpropagate, joint_gradient
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import Gaussian
from nembp.engine.linear import Dense, Transposed
from nembp.engine.network import Layer, Network, dense_network
from nembp.engine.training import Trainer
from nembp.errors import DataError


# -- copies and files ------------------------------------------------------------------------------
def model_of(net: Network) -> Model:
    return Model(net, IMAGE, ("a", "b", "c"), (), Scaling(), Scaling(), None, True, "x", {}, {})


@each_dtype
def test_files_pickles_and_snapshots_hold_running_statistics(tmp_path, dtype):
    net = small(dtype)
    path = tmp_path / "model.npz"
    save_model(path, model_of(net))
    for other in (load_model(path).net, pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert other.layers == net.layers
        for ours, theirs in zip(net.snapshot(), other.snapshot(), strict=True):
            assert np.array_equal(ours, theirs)
        x, y = batch(net)
        assert np.array_equal(other.predict(x), net.predict(x))
        assert np.array_equal(other.reversed.predict(y), net.reversed.predict(y))
    kept, running = net.snapshot(), net.running[1][0]
    net.parameters[...], net.statistics[...] = 3.0, 4.0
    net.restore(kept)
    assert np.array_equal(running, kept[1][: running.size]), "in place: the views stay"


def test_files_from_before_normalization_load(tmp_path):
    """What older versions wrote: layers without the field, no statistics."""
    net = dense_network([60, 4, 3], seed=5)
    path = tmp_path / "model.npz"
    save_model(path, model_of(net))
    header, arrays = read_archive(path, FORMAT, VERSION, ARRAYS + OPTIONAL, "")
    assert "statistics" not in arrays
    for layer in header["layers"]:
        assert layer.pop("normalization") is None
    write_archive(path, header, arrays)
    assert np.array_equal(load_model(path).net.parameters, net.parameters)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: None, "statistics of shape"),
        (lambda s: s[:-1], "statistics of shape"),
        (lambda s: s.astype(np.float32), "statistics is float32"),
        (lambda s: s * np.nan, "statistics hold a NaN"),
        (lambda s: -s, "a variance below 0"),
    ],
)
def test_damaged_statistics_are_named(tmp_path, change, message):
    path = tmp_path / "model.npz"
    save_model(path, model_of(small()))
    header, arrays = read_archive(path, FORMAT, VERSION, ARRAYS + OPTIONAL, "")
    changed = change(arrays.pop("statistics"))
    write_archive(path, header, arrays if changed is None else arrays | {"statistics": changed})
    with pytest.raises(DataError, match=message):
        load_model(path)


# -- training --------------------------------------------------------------------------------------
def test_a_trained_normalized_network_predicts_as_it_was_trained():
    """Running statistics come to those of the data: training and evaluation then agree."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 3, 600)
    x = generator.normal(size=(600, 8)) * 5.0 + 40.0 + 4.0 * np.eye(3, 8)[y]  # far from 0
    net = dense_network([8, 16, 16, 3], normalization=BatchNormalization(), seed=1)
    reader = BatchReader(Split(x, y), Scaling(), Scaling(), 3, net.backend, net.dtype)
    row = {}
    trainer = Trainer(net, reader, epochs=12, batch_size=50, callbacks=[row.update])
    trainer.run()
    predicted = net.predict(x)
    nll = -np.log(predicted[np.arange(600), y]).mean()
    assert (predicted.argmax(1) == y).mean() > 0.5
    assert abs(nll - row["train/forward/nll"]) < 0.25 * row["train/forward/nll"]
    plain = -net.log_likelihood(x, np.eye(3)[y], "batch").mean()
    assert abs(nll - plain) < 0.1 * plain


@pytest.mark.parametrize("flow", [False, True], ids=["held", "flow"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_generator_whose_own_output_goes_back(bidirectional, flow):
    """CycleBackpropagation of a normalized generator, by complex steps."""
    layers = "12bn,reshape2x2x3,up4x4s2bn"
    net = generator_network(5, layers, (8, 8, 1), activation="tanh", forward="bernoulli",
                            backward="gaussian", dtype="float64", seed=3)  # fmt: skip
    generator, rows = np.random.default_rng(0), 6
    net.parameters[...] += generator.normal(0.0, 0.3, net.parameter_count)
    z, error = generator.normal(size=(rows, 5)), generator.normal(size=(rows, 64))
    step = CycleBackpropagation(net, rows, bidirectional=bidirectional, flow=flow)
    step.z[...] = z
    made = step.run().copy()
    assert_near(made, net.predict(z, "batch"), 1e-13, "G(z)", scale=1.0)
    statistics = net.statistics.copy()
    gradient = np.full(net.parameter_count, np.nan)
    step(gradient, error)
    assert np.any(net.statistics != statistics)
    other = net.to(dtype="complex128")
    slopes, claims = [], []
    for _ in range(12):
        direction = generator.normal(size=net.parameter_count)
        other.parameters[...] = net.parameters + 1e-30j * direction
        x = other.predict(z, "batch")
        value = np.sum(error * x)
        if bidirectional:
            value -= np.mean(other.reversed.log_likelihood(x if flow else made, z, "batch"))
        slopes.append(value.imag / 1e-30)
        claims.append(gradient @ direction)
    assert_near(claims, slopes, 1e-11, "gradient of the generator")


def test_joint_gradient_takes_normalized_networks_of_transposed_maps():
    layers = [Layer(5), Layer(6, Tanh(), 3, BatchNormalization(0.05)), Layer(4)]
    net = Network(layers, [Transposed(Dense(6, 5)), Dense(6, 4)], Gaussian(), Gaussian(),
                  dtype="float64", seed=2)  # fmt: skip
    x, y = np.random.default_rng(0).normal(size=(2, 7, 5))[0], np.ones((7, 4))
    both = backpropagate(net, x, y)[0] + backpropagate(net.reversed, y, x)[0]
    kept = net.statistics.copy()
    assert_near(joint_gradient(net, x, y), both, 1e-13, "joint gradient", scale=1.0)
    assert np.array_equal(net.statistics, kept)
