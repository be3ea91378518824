"""ONNX files give in onnxruntime what nembp gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import fails
from command_line import run as command

import nembp
from nembp import BidirectionalClassifier, architecture
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Bernoulli, Gaussian
from nembp.engine.linear import Reshape
from nembp.engine.network import Layer, Network, dense_network
from nembp.errors import ArchitectureError

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
RNG = np.random.default_rng(0)


def run(path, **feeds):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def scattered(net):
    """Give a network parameters and running statistics that are nowhere 0 or 1."""
    net.parameters[...] = RNG.normal(0.0, 0.3, net.parameters.shape)
    net.statistics[...] = RNG.uniform(0.5, 1.5, net.statistics.shape)
    return net


NETS = {
    "dense": lambda: dense_network([5, 7, 3], activation="tanh", dtype="float64"),
    "no bias": lambda: dense_network([5, 7, 3], activation="leaky-relu", bias=False),
    "ends": lambda: dense_network([5, 6, 3], forward="bernoulli", backward="multinomial"),
    "bipolar": lambda: dense_network([5, 6, 3], forward="bipolar", bias=False),
    "convolution, pool, bn": lambda: architecture.network(
        (9, 10, 2), "conv3x4s2bn,pool2s1,conv4x3-2s1-2p1-0,12bn", 4, activation="logistic"
    ),
    "upsampling": lambda: architecture.network(
        6, "48bn,reshape4x4x3,up2x4s2", (8, 8, 2), forward="gaussian"
    ),
    "axes": lambda: Network(
        [Layer(24), Layer(24), Layer(8)],
        [Reshape((2, 3, 4), (2, 0, 1)), Convolution((4, 2, 3), 2, (3, 1), (1, 2), (1, 0))],
        Gaussian(),
        Bernoulli(),
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_both_directions_of_a_network(name, tmp_path):
    net = scattered(NETS[name]())
    forward, backward = nembp.save_onnx(net, tmp_path / "net.onnx")
    assert backward.name == "net.backward.onnx"
    x, y = (RNG.normal(size=(5, n)).astype(np.float32) for n in (net.inputs, net.outputs))
    np.testing.assert_allclose(run(forward, x=x)["y"], net.predict(x), atol=1e-5)
    np.testing.assert_allclose(run(backward, y=y)["x"], net.reversed.predict(y), atol=1e-5)


def test_a_model_takes_and_gives_raw_values(tmp_path):
    X = RNG.normal(size=(40, 3)) * [1.0, 10.0, 0.1] + [1.7e9, 0.0, 5.0]
    y = np.array(["ant", "bée"])[(X[:, 1] > 0).astype(int)]
    model = nembp.train(dense_network([3, 8, 2]), X, y, epochs=3).model
    forward, backward = nembp.save_onnx(model, tmp_path / "model.onnx")
    answer = run(forward, x=X)
    assert answer["label"].tolist() == model.predict_labels(X).tolist()
    np.testing.assert_allclose(answer["y"], model.predict(X), atol=1e-5)
    drawn = run(backward, y=np.eye(2, dtype=np.float32))["x"]
    np.testing.assert_allclose(drawn, model.predict_inputs(["ant", "bée"]), rtol=1e-5)

    numbers = nembp.train(dense_network([3, 8, 1], forward="gaussian"), X, X[:, 1] * 100, epochs=3)
    forward, backward = nembp.save_onnx(numbers.model, tmp_path / "numbers.onnx")
    np.testing.assert_allclose(run(forward, x=X)["y"], numbers.model.predict(X), rtol=1e-4)
    drawn = run(backward, y=np.array([[50.0]]))["x"]
    np.testing.assert_allclose(drawn, numbers.model.predict_inputs([[50.0]]), rtol=1e-5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_estimator_is_a_model(tmp_path):
    images = RNG.integers(0, 256, (30, 64)).astype(np.uint8)
    labels = RNG.integers(3, 6, 30)
    estimator = BidirectionalClassifier(
        layers="conv4x3,pool2,8", image_shape=(8, 8, 1), max_iter=3, random_state=0
    ).fit(images, labels)
    model = estimator.to_model()
    nembp.save(tmp_path / "model.npz", model)
    p, q = nembp.load(tmp_path / "model.npz").predict(images), estimator.predict_proba(images)
    np.testing.assert_allclose(p, q, atol=1e-6)
    forward, _ = nembp.save_onnx(model, tmp_path / "model.onnx")
    answer = run(forward, x=images.reshape(30, 8, 8, 1).astype(np.float64))
    assert answer["label"].tolist() == estimator.predict(images).astype(str).tolist()


def test_the_command_writes_both_files(tmp_path):
    X, y = RNG.normal(size=(20, 3)), RNG.integers(0, 2, 20)
    nembp.save(tmp_path / "m.npz", nembp.train(dense_network([3, 4, 2]), X, y, epochs=1).model)
    out = tmp_path / "m.onnx"
    paths = json.loads(command("export", tmp_path / "m.npz", out, "--json").stdout)
    assert run(paths["forward"], x=X)["y"].shape == (20, 2)
    assert run(paths["backward"], y=np.eye(2, dtype=np.float32))["x"].shape == (2, 3)
    assert "exists; choose another FILE" in fails(6, "export", tmp_path / "m.npz", out)
    assert "must end in .onnx" in fails(2, "export", tmp_path / "m.npz", tmp_path / "m.txt")


def test_what_onnx_has_not_is_named(tmp_path):
    class Odd(Gaussian):
        name = "odd"

    with pytest.raises(ArchitectureError, match="no likelihood 'odd'"):
        nembp.save_onnx(dense_network([2, 2], forward=Odd()), tmp_path / "odd.onnx")
    assert not list(tmp_path.iterdir())
