"""Batch normalization: classes, devices, noise, edges, files, training.

That its gradients are exact is a matter of the engine's laws, whose random networks have it too
(test_laws_*, `nembp verify`; bugs in tests/planted/normalized.py), and of PyTorch
(test_normalization_torch).
"""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
from devices import gpu, needs_kernels
from hypothesis import given
from hypothesis import strategies as st
from near import assert_near
from normalized_networks import CLASSES, TOLERANCE, batch, each_dtype, small
from strategies import cases

from nembp.architecture import network
from nembp.backend import Backend
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.backprop import ClassAssignment, JointBackpropagation, backpropagate
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import Gaussian
from nembp.engine.linear import Dense
from nembp.engine.network import Layer, Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Adam
from nembp.engine.training import Trainer
from nembp.errors import ArchitectureError, ShapeError
from nembp.verification.laws import joint

STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))


# -- classes ---------------------------------------------------------------------------------------
@given(case=cases(normalized=True), seed=st.integers(0, 99))
def test_statistics_of_the_two_paths_agree(case, seed):
    net, (x, t) = case.net(), case.labelled_batch()
    moved = []
    for path in ("samples", "classes"):
        ours = net.copy()
        joint.run(ours, x, t, path)
        moved.append(ours.statistics)
    assert_near(moved[1], moved[0], 1e-12, "running statistics of classes", scale=1.0)


def test_samples_that_take_no_part_are_not_counted():
    """A discriminator's backward direction may have targets for a part of a batch alone."""
    net, rows, part = small(), 9, [0, 2, 3, 4, 7]
    x, y = batch(net, rows)
    members = np.zeros((8, CLASSES))
    members[part] = y[part]
    memberships = ClassAssignment(np.eye(CLASSES), members)
    step = JointBackpropagation(net, rows, path="classes", classes=memberships)
    step.x[...], step.t[...] = x, y
    gradient = np.empty(net.parameter_count)
    before = net.copy()
    step(gradient)
    backward = backpropagate(before.reversed, y[part], x[part])[0] * len(part) / rows
    expected = backpropagate(before, x, y)[0] + backward
    assert_near(gradient, expected, 1e-12, "joint gradient", scale=1.0)
    alone = before.copy()
    other = JointBackpropagation(alone, len(part))
    other.x[...], other.t[...] = x[part], y[part]
    other(np.empty(net.parameter_count))
    half = net.statistics_count // 2
    assert_near(net.statistics[half:], alone.statistics[half:], 1e-12, "statistics", scale=1.0)


@pytest.mark.parametrize("path", ["samples", "classes", "none"])
def test_groups_of_a_batch_have_statistics_of_their_own(path):
    """As real and generated samples in a discriminator's step; the other direction has them not."""
    net, parts = small(momentum=0.3), (5, 7)
    x, y = batch(net, sum(parts))
    step = JointBackpropagation(net, sum(parts), path=path, groups=parts)
    step.x[...], step.t[...] = x, y
    before, gradient = net.copy(), np.empty(net.parameter_count)
    step(gradient)
    expected = np.zeros(net.parameter_count)
    if path != "none":
        expected += backpropagate(before.reversed, y, x)[0]
    turn, total = before.copy(), 0.0
    for rows in (slice(0, 5), slice(5, 12)):
        share = len(x[rows]) / len(x)
        expected += share * backpropagate(before, x[rows], y[rows])[0]
        total -= share * before.log_likelihood(x[rows], y[rows], "batch").mean()
        joint.run(turn, x[rows], y[rows], "none")
    assert_near(gradient, expected, 1e-12, "joint gradient", scale=1.0)
    assert_near(step.forward_nll[0, 0], total, 1e-12, "nll", scale=1.0)
    half = net.statistics_count // 2
    assert_near(net.statistics[:half], turn.statistics[:half], 1e-12, "statistics", scale=1.0)
    with pytest.raises(ShapeError, match=r"groups of \(5, 6\) rows; expected 12 rows in all"):
        JointBackpropagation(net, 12, groups=(5, 6))


# -- devices, noise, allocation -------------------------------------------------------------------
@each_dtype
@pytest.mark.parametrize("path", ["samples", "classes", "none"])
def test_another_device_computes_the_same(path, dtype):
    host = small(dtype)
    other = host.to(STRICT)
    x, y = batch(host)
    (ours, _), (theirs, _) = (joint.run(net, x, y, path) for net in (host, other))
    assert_near(theirs, ours, TOLERANCE[dtype], "joint gradient", scale=1.0)
    moved = STRICT.to_numpy(other.statistics)
    assert_near(moved, host.statistics, TOLERANCE[dtype], "statistics", scale=1.0)
    for mode in ("batch", "running"):
        gradient = STRICT.to_numpy(backpropagate(other, x, y, statistics=mode)[0])
        expected = backpropagate(host, x, y, statistics=mode)[0]
        assert_near(gradient, expected, TOLERANCE[dtype], mode, scale=1.0)


@needs_kernels
@pytest.mark.parametrize("graphs", [True, False], ids=["captured", "called"])
@pytest.mark.parametrize("layers", ["12bn,8bn", "conv4x3bn,pool2,8bn"])
def test_a_gpu_trains_normalized_layers_as_the_cpu_does(layers, graphs):
    generator = np.random.default_rng(0)
    split = Split(generator.normal(size=(50, 8, 8, 1)), generator.integers(0, 3, 50))
    found = []
    for device in ("cpu", gpu()):
        net = network((8, 8, 1), layers, 3, device=device, dtype="float64", seed=4)
        reader = BatchReader(split, Scaling(), Scaling(), 3, net.backend, net.dtype)
        trainer = Trainer(net, reader, epochs=3, batch_size=12, cuda_graphs=graphs)
        trainer.run()
        found.append(net.snapshot())
    assert trainer.on_device is not None
    assert (trainer.on_device.replay.reason is None) == graphs
    for ours, theirs in zip(*found, strict=True):
        assert_near(theirs, ours, 1e-10, "after three epochs", scale=1.0)


def test_noise_on_hidden_signals_is_screened_by_the_statistics_without_it():
    net, rows = small(), 8
    x, y = batch(net, rows)
    noise = {"forward/hidden": Noise("nem", std=0.5, rejected="zero")}
    generators = {"forward/hidden": np.random.default_rng(3)}
    step = JointBackpropagation(net, rows, noise=noise, generators=generators)
    step.x[...], step.t[...] = x, y
    gradient = np.empty(net.parameter_count)
    clean = net.log_likelihood(x, y, "batch")
    step(gradient)
    assert np.all(np.isfinite(gradient))
    assert_near(step.forward_nll[0, 0], -clean.mean(), 1e-12, "nll without noise", scale=1.0)
    n = step._noise_up.n[2]  # of the last hidden layer, above which nothing is normalized
    assert np.any(n != 0.0)
    signals = step._noise_up.signals[2]
    z = signals @ net.weights[2] + net.biases[3]
    noisy = (signals + n) @ net.weights[2] + net.biases[3]
    log_p = [np.sum(y * (each - np.log(np.exp(each).sum(1, keepdims=True))), 1)
             for each in (z, noisy)]  # fmt: skip
    assert np.all(log_p[1] >= log_p[0] - 1e-12)


# -- edges -----------------------------------------------------------------------------------------
def test_one_value_of_a_channel_has_no_variance():
    net = dense_network([3, 4, 2], normalization=BatchNormalization(), dtype="float64")
    net.biases[1][...] = [0.3, -0.1, 0.2, 0.5]
    before = net.statistics.copy()
    gradient, _ = joint.run(net, np.ones((1, 3)), np.eye(2)[:1], "samples")
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
        (
            lambda: Network([Layer(3, None, None, BatchNormalization()), Layer(2)], [Dense(3, 2)],
                            Gaussian(), Gaussian()),
            "layer 0 is normalized",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_normalized_is_refused(build, message):
    with pytest.raises(ArchitectureError, match=message):
        build()
