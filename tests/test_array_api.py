"""The same engine on array-api-strict's second device, equal to NumPy's number for number.

That device refuses what CuPy would pay for or break on: silent copies to the host, mixing with
host arrays, and whatever the array-API standard does not promise.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from near import assert_near
from strategies import KINDS, PAIRS, Case, cases, noises

from nembp.backend import Backend, stream
from nembp.datasets import Scaling, Split, class_means
from nembp.datasets.reading import BatchReader
from nembp.engine.backprop import JointBackpropagation, backpropagate, joint_gradient
from nembp.engine.metrics import evaluate
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import OPTIMIZERS, SGD
from nembp.engine.training import Trainer, set_input_bias
from nembp.errors import DivergenceError
from nembp.verification.laws import joint

STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))
TOLERANCE = {"float32": 2e-5, "float64": 1e-11}

each_pair = pytest.mark.parametrize("pair", PAIRS, ids="-".join)
each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))
few = settings(max_examples=max(1, settings.default.max_examples // 3))


def host(value: Any) -> np.ndarray:
    """Copy a result to the host, after making sure that it was not there already."""
    assert isinstance(value, type(STRICT.zeros((1,), "float32")))
    assert value.device == STRICT.device
    return STRICT.to_numpy(value)


def pair_of_networks(case: Case, dtype: str) -> tuple[Network, Network]:
    return case.net(dtype), case.net(dtype, STRICT)


def test_the_device_refuses_silent_copies():
    a = STRICT.ones((2, 2), "float32")
    for copies in (np.asarray, np.tanh, lambda a: a + array_api_strict.ones((2, 2))):
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            copies(a)
    kept = host(a)
    kept[...] = 7.0
    assert np.all(host(a) == 1.0)


@each_dtype
@each_pair
@few
@given(data=st.data())
def test_predictions_and_gradients(pair, dtype, data):
    case = data.draw(cases(pair))
    cpu, strict = pair_of_networks(case, dtype)
    x, t = case.batch()
    scale = joint.size_of_errors(cpu, x, t)
    for ours, theirs, source, target in (
        (cpu, strict, x, t),
        (cpu.reversed, strict.reversed, t, x),
    ):
        tolerance = TOLERANCE[dtype]
        assert_near(host(theirs.predict(source)), ours.predict(source), tolerance, "a", scale=1.0)
        expected = ours.log_likelihood(source, target)
        actual = host(theirs.log_likelihood(source, target))
        assert_near(actual, expected, tolerance, "log-likelihood", scale=scale)
        for actual, expected, what in zip(
            backpropagate(theirs, source, target),
            backpropagate(ours, source, target),
            ("gradient", "input error"),
            strict=True,
        ):
            assert host(actual).dtype == np.dtype(dtype)
            assert_near(host(actual), expected, tolerance, what, scale=scale)


@each_dtype
@pytest.mark.parametrize("path", ["samples", "classes", "none"])
@pytest.mark.parametrize("kind", ["none", *KINDS])
@few
@given(data=st.data())
def test_joint_gradients_with_noise_drawn_on_the_host(kind, path, dtype, data):
    case = data.draw(cases())
    noise = {
        direction: data.draw(noises(kind), label=direction) if kind != "none" else Noise()
        for direction in ("forward", "backward")
    }
    x, t = case.labelled_batch() if path == "classes" else case.batch()
    results, steps = [], []
    for net in pair_of_networks(case, dtype):
        gradient, step = joint.run(net, x, t, path, noise)
        results.append(gradient)
        steps.append(step)
    cpu, strict = steps
    scale, tolerance = joint.size_of_errors(case.net(), x, t), TOLERANCE[dtype]
    for direction in cpu.sources:
        ours, theirs = cpu.sources[direction], strict.sources[direction]
        # not a gain of zero but for rounding, which the two may screen differently
        assume(np.array_equal(np.sign(host(theirs.n)), np.sign(ours.n)))
        assert_near(host(theirs.n), ours.n, tolerance, "noise", scale=1.0)
        assert_near(host(theirs.accepted), ours.accepted, tolerance, "accepted", scale=1.0)
        assert_near(host(theirs.gain), ours.gain, tolerance, "gain", scale=scale)
    assert_near(results[1], results[0], tolerance, "joint gradient", scale=4.0 * scale)
    nll_scale = scale * (1.0 + float(np.sum(x * x)))
    assert_near(host(strict.forward_nll), cpu.forward_nll, tolerance, "nll", scale=nll_scale)
    assert_near(host(strict.backward_nll), cpu.backward_nll, tolerance, "nll", scale=nll_scale)


@given(case=cases())
def test_joint_gradient_function(case):
    cpu, strict = pair_of_networks(case, "float64")
    x, t = case.batch()
    scale = joint.size_of_errors(cpu, x, t)
    expected = joint_gradient(cpu, x, t)
    assert_near(host(joint_gradient(strict, x, t)), expected, 1e-11, "gradient", scale=scale)


@each_dtype
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_optimizers(name, dtype):
    ends = []
    for device in ("cpu", STRICT):
        net = dense_network([5, 4, 3], dtype=dtype, device=device)
        optimizer = OPTIMIZERS[name](learning_rate=0.05, weight_decay=0.1)
        gradient = optimizer.bind(net)
        generator = np.random.default_rng(0)
        for _ in range(5):
            gradient[...] = net.backend.asarray(generator.normal(size=gradient.shape), dtype)
            optimizer.step(0.5)
        ends.append(net.backend.to_numpy(net.parameters))
        states = {k: net.backend.to_numpy(v) for k, v in optimizer.state.items()}
        assert set(states) == set(OPTIMIZERS[name].slots)
    assert_near(ends[1], ends[0], TOLERANCE[dtype], f"parameters after {name}")


def images(kind: str) -> tuple[Split, Scaling, Scaling, int]:
    """Return 8-bit images with labels, or a standardized table with two targets."""
    generator = np.random.default_rng(1)
    if kind == "labels":
        y = generator.integers(0, 3, 50)
        x = generator.integers(0, 60, (50, 2, 3, 1)) + 60 * y[:, None, None, None]
        return Split(x.astype(np.uint8), y), Scaling(factor=1 / 255), Scaling(), 3
    x = generator.normal(size=(50, 6))
    scaling = Scaling(offset=x.mean(axis=0), factor=1.0 / x.std(axis=0))
    return Split(x, x[:, :2] ** 2), scaling, Scaling(offset=0.5, factor=2.0), 2


def train(
    device: Any, dtype: str, kind: str, ends: tuple[str, str], **options: Any
) -> tuple[Network, Trainer, list[dict[str, float]]]:
    split, x_scaling, y_scaling, outputs = images(kind)
    net = dense_network(
        [6, 5, 4, outputs],
        activation="leaky-relu",
        forward=ends[0],
        backward=ends[1],
        device=device,
        dtype=dtype,
        seed=3,
    )
    set_input_bias(net, x_scaling.apply(split.x, np.float64).reshape(50, 6).mean(axis=0))
    reader = BatchReader(split, x_scaling, y_scaling, outputs, net.backend, dtype)
    centroids = class_means(split, x_scaling, outputs) if kind == "labels" else None
    trainer = Trainer(
        net,
        reader,
        **({"epochs": 3, "batch_size": 16, "host_noise": True} | options),
        evaluate=lambda net: evaluate(net, reader, centroids, batch_size=32),
    )
    history = trainer.run()
    timings = ("seconds", "samples_per_second")
    rows = [{k: v for k, v in row.items() if k not in timings} for row in history.epochs]
    return net, trainer, rows


RUNS = [
    ("labels", ("multinomial", "gaussian"), {"optimizer": "adam"}, "nem"),
    ("labels", ("multinomial", "bernoulli"), {"optimizer": "rmsprop", "patience": 1}, "nem"),
    ("labels", ("multinomial", "gaussian"), {"optimizer": "sgd", "epochs": 1}, "drift"),
    ("labels", ("bernoulli", "gaussian"), {"optimizer": "sgd", "backward": False}, "none"),
    ("table", ("gaussian", "gaussian"), {"optimizer": "momentum", "schedule": "step"}, "anti"),
    ("table", ("gaussian", "gaussian"), {"optimizer": "adam", "schedule": "constant"}, "none"),
    ("table", ("gaussian", "bernoulli"), {"optimizer": "adam"}, "blind"),
]


@each_dtype
@pytest.mark.parametrize(
    "run", RUNS, ids=lambda run: "-".join((*run[1], run[2]["optimizer"], run[3]))
)
def test_training_end_to_end(run, dtype):
    kind, ends, options, noise = run
    options = options | {"noise": {d: Noise(noise, std=0.2) for d in ("forward", "backward")}}
    cpu, _, expected = train("cpu", dtype, kind, ends, **options)
    strict, trainer, actual = train(STRICT, dtype, kind, ends, **options)
    assert [list(row) for row in actual] == [list(row) for row in expected]
    tolerance = {"float32": 2e-3, "float64": 1e-8}[dtype]  # twelve steps amplify rounding
    for row, other in zip(actual, expected, strict=True):
        for key, value in row.items():
            assert value == pytest.approx(other[key], rel=tolerance, abs=tolerance), key
    assert_near(host(strict.parameters), cpu.parameters, tolerance, "trained parameters")
    assert trainer.history.best_epoch >= 1
    assert not np.array_equal(cpu.parameters, dense_network([6, 5, 4, cpu.outputs]).parameters)


def test_divergence_is_found_and_undone():
    for device in ("cpu", STRICT):
        with pytest.raises(DivergenceError, match="the parameters of epoch 0 were restored"):
            train(device, "float32", "table", ("gaussian",) * 2, optimizer=SGD(1e6), epochs=9)


@given(case=cases())
def test_copies_between_devices(case):
    cpu, strict = pair_of_networks(case, "float64")
    x, _ = case.batch()
    expected = cpu.predict(x)
    moved = cpu.to(STRICT)
    assert np.array_equal(host(moved.parameters), cpu.parameters)
    assert_near(host(moved.predict(x)), expected, 1e-12, "moved", scale=1.0)
    back = moved.reversed.to("cpu").reversed
    assert_near(back.predict(x), expected, 1e-15, "moved back", scale=1.0)
    for duplicate in (copy.deepcopy(strict), strict.copy()):
        duplicate.parameters[...] = 0.0
        assert host(duplicate.parameters).any() is np.False_
        assert_near(host(strict.predict(x)), expected, 1e-12, "original", scale=1.0)
    loaded = pickle.loads(pickle.dumps(strict.reversed)).reversed
    assert loaded.backend.name == "cpu"
    assert np.array_equal(loaded.predict(x), expected)


@each_dtype
@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_host_noise_is_the_same_on_every_device(draw, dtype):
    ends = []
    for device in (dense_network([2, 2]).backend, STRICT):
        out = device.empty((40, 3), dtype)
        getattr(device, draw)(stream(5, "noise/forward"), out)
        ends.append(device.to_numpy(out))
    assert np.array_equal(*ends)


def test_a_step_reads_nothing_back():
    """Were anything of a step a host array, the device would refuse it; show that it would."""
    net = dense_network([3, 4, 2], dtype="float32", device=STRICT)
    step = JointBackpropagation(net, 5, path="classes")
    x, t = np.ones((5, 3), "float32"), np.eye(2, dtype="float32")[[0, 1, 1, 0, 1]]
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        step.x[...] = x
    gradient = net.backend.zeros((net.parameter_count,), "float32")
    step.x[...], step.t[...] = STRICT.asarray(x), STRICT.asarray(t)
    step(gradient)
    assert np.any(host(gradient))
