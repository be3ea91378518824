"""Batch normalization: classes, groups, devices, noise, edges, files, training.

That its gradients are exact is a matter of the engine's laws, whose random networks have it too
(`nembp verify`), and of PyTorch (test_normalization_torch).
"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from devices import gpu, needs_kernels
from hypothesis import given
from image_cases import CLASSES, IMAGE, STRICT, TOLERANCE, again, batch, joint, seeds, small
from near import assert_near

from nembp.architecture import generator_network, network
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
from nembp.engine.backprop import (
    CycleBackpropagation,
    JointBackpropagation,
    Memberships,
    backpropagate,
    joint_gradient,
)
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import Gaussian
from nembp.engine.linear import Dense, Transposed
from nembp.engine.network import Layer, Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Adam
from nembp.engine.training import Trainer
from nembp.errors import ArchitectureError, DataError, ShapeError

each_path = pytest.mark.parametrize("path", ["samples", "classes", "none"])


# -- classes and groups ----------------------------------------------------------------------------
@given(seed=seeds)
def test_both_paths_take_the_same_statistics(seed):
    net = small(seed=seed)
    x, t = batch(net, 9, seed)
    moved = []
    for path in ("samples", "classes"):
        ours = net.copy()
        joint(ours, x, t, path)
        moved.append(ours.statistics)
    assert_near(moved[1], moved[0], 1e-12, "running statistics of classes", scale=1.0)


def test_samples_that_take_no_part_are_not_counted():
    """A discriminator's backward direction may have targets for a part of a batch alone."""
    net, rows, part = small(), 9, [0, 2, 3, 4, 7]
    x, y = batch(net, rows)
    members = np.zeros((8, CLASSES))
    members[part] = y[part]
    before = net.copy()
    memberships = Memberships(np.eye(CLASSES), members)
    gradient, _ = joint(net, x, y, "classes", memberships=memberships)
    backward = backpropagate(before.reversed, y[part], x[part])[0] * len(part) / rows
    expected = backpropagate(before, x, y)[0] + backward
    assert_near(gradient, expected, 1e-12, "joint gradient", scale=1.0)
    joint(before, x[part], y[part])
    half = net.statistics_count // 2
    assert_near(net.statistics[half:], before.statistics[half:], 1e-12, "statistics", scale=1.0)


@each_path
def test_groups_of_a_batch_have_statistics_of_their_own(path):
    """As real and generated samples in a discriminator's step; the other direction has them not."""
    net, parts = small(momentum=0.3), (5, 7)
    x, y = batch(net, sum(parts))
    before = net.copy()
    gradient, step = joint(net, x, y, path, groups=parts)
    expected = np.zeros(net.parameter_count)
    if path != "none":
        expected += backpropagate(before.reversed, y, x)[0]
    turn, total = before.copy(), 0.0
    for rows in (slice(0, 5), slice(5, 12)):
        share = len(x[rows]) / len(x)
        expected += share * backpropagate(before, x[rows], y[rows])[0]
        total -= share * before.log_likelihood(x[rows], y[rows], "batch").mean()
        joint(turn, x[rows], y[rows], "none")
    assert_near(gradient, expected, 1e-12, "joint gradient", scale=1.0)
    assert_near(step.forward_nll[0, 0], total, 1e-12, "nll", scale=1.0)
    half = net.statistics_count // 2
    assert_near(net.statistics[:half], turn.statistics[:half], 1e-12, "statistics", scale=1.0)
    with pytest.raises(ShapeError, match=r"groups of \(5, 6\) rows; expected 12 rows in all"):
        JointBackpropagation(net, 12, groups=(5, 6))


# -- devices, noise ----------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@each_path
def test_another_device_computes_the_same(path, dtype):
    host = small(dtype)
    other = host.to(STRICT)
    x, y = batch(host)
    (ours, _), (theirs, _) = (joint(net, x, y, path) for net in (host, other))
    assert_near(theirs, ours, TOLERANCE[dtype], "joint gradient", scale=1.0)
    moved = STRICT.to_numpy(other.statistics)
    assert_near(moved, host.statistics, TOLERANCE[dtype], "statistics", scale=1.0)
    for mode in ("batch", "running"):
        gradient = STRICT.to_numpy(backpropagate(other, x, y, statistics=mode)[0])
        expected = backpropagate(host, x, y, statistics=mode)[0]
        assert_near(gradient, expected, TOLERANCE[dtype], mode, scale=1.0)


@needs_kernels
@pytest.mark.parametrize("graphs", [True, False], ids=["captured", "called"])
def test_a_gpu_trains_normalized_layers_as_the_cpu_does(graphs):
    generator = np.random.default_rng(0)
    split = Split(generator.normal(size=(50, 8, 8, 1)), generator.integers(0, 3, 50))
    found = []
    for device in ("cpu", gpu()):
        layers = "conv4x3bn,pool2,8bn"
        net = network((8, 8, 1), layers, 3, device=device, dtype="float64", seed=4)
        reader = BatchReader(split, Scaling(), Scaling(), 3, net.backend, net.dtype)
        Trainer(net, reader, epochs=3, batch_size=12, cuda_graphs=graphs).run()
        found.append(net.snapshot())
    for ours, theirs in zip(*found, strict=True):
        assert_near(theirs, ours, 1e-10, "after three epochs", scale=1.0)


def test_the_nll_of_a_step_with_noise_on_its_signals_is_that_without():
    net, rows = small(), 8
    x, y = batch(net, rows)
    clean = -net.log_likelihood(x, y, "batch").mean()
    gradient, step = joint(
        net,
        x,
        y,
        noise={"forward/hidden": Noise("nem", std=0.5, rejected="zero")},
        generators={"forward/hidden": np.random.default_rng(3)},
    )
    assert np.all(np.isfinite(gradient))
    assert_near(step.forward_nll[0, 0], clean, 1e-12, "nll without noise", scale=1.0)


def test_a_step_keeps_nothing_of_the_last_batch():
    net = small()
    (x, y), (u, v) = batch(net), batch(net, seed=2)
    for path in ("samples", "classes"):
        expected, step = joint(net, x, y, path)
        again(step, 3.0 * u, v)
        assert np.array_equal(again(step, x, y), expected)


# -- edges -----------------------------------------------------------------------------------------
def test_one_value_of_a_channel_has_no_variance():
    net = dense_network([3, 4, 2], normalization=BatchNormalization(), dtype="float64")
    net.biases[1][...] = [0.3, -0.1, 0.2, 0.5]
    before = net.statistics.copy()
    gradient, _ = joint(net, np.ones((1, 3)), np.eye(2)[:1])
    assert np.array_equal(net.statistics, before)
    assert not np.any(net.views(gradient).weights[0]), "ẑ is 0 whatever the weights are"
    expected = net.biases[1] * (net.biases[1] > 0) @ net.weights[1]
    z = net.readout(np.ones((1, 3)), "batch").z
    assert_near(z - z.max(), [expected - expected.max()], 1e-12, "z of β alone", scale=1.0)


def test_initial_gains_are_ones_and_statistics_those_of_nothing_seen():
    net = network((8, 8, 1), "conv4x3bn,pool2,6bn,5", 3)
    for way in (net, net.reversed):
        for gain, running in zip(way.gains, way.running, strict=True):
            assert gain is None or (np.all(gain == 1.0) and np.all(running[0] == 0.0))
            assert gain is None or np.all(running[1] == 1.0)
    assert (net.statistics_count, net.statistics.dtype) == (40, np.float32)
    plain = network((8, 8, 1), "conv4x3,pool2,6,5", 3)
    assert plain.statistics_count == 0
    assert np.array_equal(net.parameters[: plain.parameter_count], plain.parameters)


def test_weight_decay_spares_gains():
    net = small()
    before = net.snapshot()[0]
    optimizer = Adam(0.1, weight_decay=0.5)
    optimizer.bind(net)[...] = 0.0
    optimizer.step()
    count = net.weight_count
    assert np.array_equal(net.parameters[count:], before[count:])
    assert np.allclose(net.parameters[:count], 0.95 * before[:count])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BatchNormalization(epsilon=0.0), "finite epsilon > 0"),
        (lambda: BatchNormalization(momentum=0.0), r"momentum in \(0, 1\]"),
        (lambda: Layer(4, None, 0, BatchNormalization()), "needs biases"),
        (
            lambda: Network([Layer(3), Layer(2, None, None, BatchNormalization())], [Dense(3, 2)],
                            Gaussian(), Gaussian()),
            "layer 1 is normalized, but it is an end",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_normalized_is_refused(build, message):
    with pytest.raises(ArchitectureError, match=message):
        build()


# -- copies and files ------------------------------------------------------------------------------
def model_of(net: Network) -> Model:
    return Model(net, IMAGE, ("a", "b", "c"), (), Scaling(), Scaling(), None, True, "x", {}, {})


def test_files_pickles_and_snapshots_hold_running_statistics(tmp_path):
    net = small("float32")
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
    Trainer(net, reader, epochs=12, batch_size=50).run()
    predicted = net.predict(x)
    assert (predicted.argmax(1) == y).mean() > 0.5
    nll = -np.log(predicted[np.arange(600), y]).mean()
    by_batch = -net.log_likelihood(x, np.eye(3)[y], "batch").mean()
    assert abs(nll - by_batch) < 0.1 * by_batch


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
    x, y = np.random.default_rng(0).normal(size=(7, 5)), np.ones((7, 4))
    both = backpropagate(net, x, y)[0] + backpropagate(net.reversed, y, x)[0]
    kept = net.statistics.copy()
    assert_near(joint_gradient(net, x, y), both, 1e-13, "joint gradient", scale=1.0)
    assert np.array_equal(net.statistics, kept)
