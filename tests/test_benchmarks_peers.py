"""The peers do the same mathematics."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from nembp.benchmarks.cases import DenseCase
from nembp.benchmarks.peers import MissingPeerError, SklearnStep, TorchStep
from nembp.benchmarks.steps import EngineStep
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.likelihoods import Gaussian
from nembp.engine.network import dense_network


def _start(dtype):
    net = dense_network([12, 9, 8, 5], backward=Gaussian(variance=4.0), dtype=dtype, seed=3)
    draw = np.random.default_rng(0)
    net.parameters[...] += draw.normal(0.0, 0.1, net.parameter_count)  # the biases too
    x, labels = draw.random((11, 12)), draw.integers(0, 5, 11)
    return net, x, labels


def _moved(step_parameters, net):
    """Parameters after the peer's and the engine's steps, less the start."""
    start = net.backend.to_numpy(net.parameters)
    return step_parameters - start[: len(step_parameters)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-3)])
@pytest.mark.parametrize("path", ["classes", "samples", "none"])
def test_pytorch_s_step_is_ours(path, dtype, tolerance):
    pytest.importorskip("torch", reason="the oracle needs torch, which CI installs")
    net, x, labels = _start(dtype)
    engine = EngineStep(net.copy(), x, labels, path, 0.01)
    torch = TorchStep(net, x, labels, bidirectional=path != "none", learning_rate=0.01)
    for _ in range(6):
        engine()
        torch()
    theirs = _moved(torch.parameters(), net)
    ours = _moved(engine.net.parameters[: len(theirs)], net)
    assert np.max(np.abs(theirs)) > 0.03  # Adam moves about its learning rate a step
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.max(np.abs(theirs)))


def test_pytorch_s_objective_is_the_joint_likelihood():
    pytest.importorskip("torch", reason="the oracle needs torch, which CI installs")
    net, x, labels = _start("float64")
    torch = TorchStep(net, x, labels, bidirectional=True, learning_rate=0.01)
    joint = JointBackpropagation(net, len(labels))
    joint.x[...], joint.t[...] = x, np.eye(5)[labels]
    joint(net.backend.zeros((net.parameter_count,), "float64"))
    constant = 0.5 * net.inputs * np.log(2 * np.pi * 4.0)
    ours = joint.forward_nll[0, 0] + joint.backward_nll[0, 0] - constant
    assert torch.objective().item() == pytest.approx(ours, rel=1e-12)


def test_scikit_learn_s_step_is_our_one_direction():
    net, x, labels = _start("float64")
    engine = EngineStep(net.copy(), x, labels, "none", 0.01)
    sklearn = SklearnStep(net, x, labels, learning_rate=0.01)
    np.testing.assert_array_equal(_moved(sklearn.parameters(), net), 0.0)
    del sklearn.model._optimizer  # else its moments hold the first step, from another start
    # it adds ε to √v before the bias correction, we after it
    sklearn.model.epsilon = engine.adam.epsilon = 1e-30
    for _ in range(6):
        engine()
        sklearn()
    theirs = _moved(sklearn.parameters(), net)
    assert np.max(np.abs(theirs)) > 0.03
    ours = _moved(engine.net.parameters[: len(theirs)], net)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def test_peers_that_cannot_take_part_say_why(monkeypatch):
    net = dense_network([6, 5, 2])
    x, labels = np.ones((4, 6)), np.array([0, 1, 1, 0])
    with pytest.raises(MissingPeerError, match="one logistic output"):
        SklearnStep(net, x, labels, learning_rate=0.1)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it now raises ImportError
    with pytest.raises(MissingPeerError, match="not installed"):
        TorchStep(net, x, labels, bidirectional=True, learning_rate=0.1)


def test_synthetic_batch_has_every_class_and_mnist_s_share_of_light():
    x, labels = DenseCase("784-10", 100, 1).draw()
    assert x.dtype == np.float32
    assert sorted(labels) == sorted([*range(10)] * 10)
    assert np.mean(x > 0) == pytest.approx(0.19, abs=0.01)  # 78400 draws: 7 standard deviations
