"""Noise on signals: its gain, its gradient with the noise held fixed, its controls and errors."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest

from nembp.architecture import network as network_of_images
from nembp.backend import Backend, get_backend, stream
from nembp.engine.backprop import JointBackpropagation, joint_gradient
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial, Readout
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise, SignalNoise, noisy_layers
from nembp.errors import ArchitectureError

Array = np.ndarray[Any, Any]
ROWS = 8
PLACES = ("input", "hidden", "last-hidden")


def network(seed: int = 0, **more: Any) -> Network:
    net = dense_network(
        [5, 7, 6, 3],
        activation="tanh",
        dtype="float64",
        **{"forward": Multinomial(), "backward": Gaussian(0.5), **more},
    )
    net.parameters[...] = np.random.default_rng(seed).normal(0, 0.6, net.parameter_count)
    return net


def batch(seed: int = 1) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((ROWS, 5)), np.eye(3)[generator.integers(0, 3, ROWS)]


def step_with(net: Network, noise: dict[str, Noise], seed: int = 0) -> JointBackpropagation:
    generators = {key: stream(seed, f"noise/{key}") for key in noise}
    joint = JointBackpropagation(net, ROWS, noise=noise, generators=generators)
    joint.x[...], joint.t[...] = batch()
    return joint


def gradient_of(net: Network, joint: JointBackpropagation, *clock: int) -> Array:
    gradient = np.full(net.parameter_count, np.nan)
    joint(gradient, *clock)
    return gradient


def nll(view: Network, x: Array, t: Array, n: dict[int, Array]) -> float:
    """−log p(t) / rows with fixed noise on the signals, written out."""
    a = x + n.get(0, 0.0)
    for k, weights in enumerate(view.weights, start=1):
        z = a @ (weights if view.direction == "forward" else weights.T) + view.biases[k]
        a = np.tanh(z) + n.get(k, 0.0)
    o = Readout.allocate(view.backend, len(x), view.outputs, "float64")
    o.z[...] = z
    view.likelihood.activate(o)
    return -float(view.likelihood.log_likelihood(o, t).mean())


@pytest.mark.parametrize("kind", ["nem", "blind", "anti", "drift"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_gradient_is_that_of_the_nll_with_the_noise_in_place(
    kind: Any, place: str, direction: str
) -> None:
    net = network()
    joint = step_with(net, {f"{direction}/{place}": Noise(kind, std=0.5)})
    gradient = gradient_of(net, joint)
    noise = joint._noise_up if direction == "forward" else joint._noise_down
    assert noise is not None
    n = {layer: np.array(value) for layer, value in noise.n.items()}
    x, t = batch()

    def objective(theta: Array) -> float:
        other = net.copy()
        other.parameters[...] = theta
        up, down = (n, {}) if direction == "forward" else ({}, n)
        return nll(other, x, t, up) + nll(other.reversed, t, x, down)

    theta, numeric = np.array(net.parameters), np.zeros(net.parameter_count)
    for i in range(theta.size):
        unit = np.zeros_like(theta)
        unit[i] = 1e-5
        numeric[i] = (objective(theta + unit) - objective(theta - unit)) / 2e-5
    assert max(np.abs(value).max() for value in n.values()) > 0.05
    np.testing.assert_allclose(gradient, numeric, atol=2e-8)
    np.testing.assert_array_equal(joint.x, x)  # the batch is left as it was
    np.testing.assert_array_equal(joint.t, t)


@pytest.mark.parametrize("ends", [(Multinomial(), Bernoulli()), (Gaussian(), Multinomial())])
@pytest.mark.parametrize("rejected", ["zero", "reflect"])
@pytest.mark.parametrize(("kind", "sign"), [("nem", 1), ("anti", -1)])
def test_what_is_kept_has_the_gain_that_its_kind_promises(
    ends: Any, rejected: Any, kind: Any, sign: int
) -> None:
    net = network(forward=ends[0], backward=ends[1])
    x, t = batch()
    noise = Noise(kind, std=0.7, rejected=rejected)
    signals = SignalNoise(net, ROWS, {"last-hidden": noise}, {"last-hidden": stream(0, "n")})
    signals(x, t)
    without = net.log_likelihood(x, t)
    above = np.tanh(np.tanh(x @ net.weights[0] + net.biases[1]) @ net.weights[1] + net.biases[2])
    o = Readout.allocate(net.backend, ROWS, 3, "float64")
    o.z[...] = (above + signals.n[2]) @ net.weights[2] + net.biases[3]
    net.likelihood.activate(o)
    gain = net.likelihood.log_likelihood(o, t)[:, 0] - without
    assert np.all(sign * gain >= -1e-12)
    kept = np.any(signals.n[2] != 0, axis=1)
    source = signals.sources[2]
    assert float(source.accepted[0, 0]) == pytest.approx(kept.mean())
    assert float(source.gain[0, 0]) == pytest.approx(gain.mean())
    assert kept.any()
    assert rejected == "reflect" or not kept.all()


def test_later_layers_gain_beyond_the_noise_of_earlier_ones() -> None:
    net = network()
    x, t = batch()
    noise = Noise("nem", std=0.5)
    signals = SignalNoise(net, ROWS, {"hidden": noise}, {"hidden": stream(3, "n")})
    signals(x, t)
    n = {layer: np.array(value) for layer, value in signals.n.items()}
    steps = [{}, {1: n[1]}, n]
    each = [[-nll(net, x[i : i + 1], t[i : i + 1], _row(s, i)) for i in range(ROWS)] for s in steps]
    gains = np.diff(np.array(each), axis=0)
    assert np.all(gains >= -1e-12)
    for layer, gain in zip((1, 2), gains, strict=True):
        assert float(signals.sources[layer].gain[0, 0]) == pytest.approx(gain.mean())


def _row(n: dict[int, Array], i: int) -> dict[int, Array]:
    return {layer: value[i : i + 1] for layer, value in n.items()}


def test_expectation_keeps_or_drops_a_batch_by_its_mean_gain() -> None:
    net = network()
    x, t = batch()
    outcomes, some_lose = set(), False
    for seed in range(12):
        noise = Noise("nem", std=0.5, screening="expectation", rejected="zero")
        signals = SignalNoise(net, ROWS, {"last-hidden": noise}, {"last-hidden": stream(seed, "n")})
        signals(x, t)
        source = signals.sources[2]
        share = float(source.accepted[0, 0])
        assert float(source.gain[0, 0]) >= 0.0
        outcomes.add(share)
        if share:  # single samples may lose
            o = -np.array(
                [nll(net, x[i : i + 1], t[i : i + 1], _row(signals.n, i)) for i in range(ROWS)]
            )
            some_lose |= bool(np.any(o < np.asarray(net.log_likelihood(x, t))))
    assert outcomes == {0.0, 1.0}
    assert some_lose


def test_no_deviation_is_no_noise() -> None:
    net = network()
    noise = {f"{d}/{place}": Noise("nem", std=0.0) for d in ("forward", "backward")
             for place in ("input", "hidden")}  # fmt: skip
    joint = step_with(net, noise)
    np.testing.assert_allclose(gradient_of(net, joint), joint_gradient(net, *batch()), atol=1e-14)


def test_noise_is_annealed_and_comes_from_its_own_stream() -> None:
    net = network()
    key = "forward/hidden"
    sizes = []
    for iteration in (1, 100):
        joint = step_with(net, {key: Noise("blind", std=0.5, decay=0.5)})
        gradient_of(net, joint, 1, iteration)
        assert joint._noise_up is not None
        sizes.append(np.array(joint._noise_up.n[1]))
    np.testing.assert_allclose(sizes[0], 10 * sizes[1])
    with_more = step_with(
        net, {key: Noise("blind", std=0.5), "backward/input": Noise("nem", std=0.5)}
    )
    gradient_of(net, with_more)
    assert with_more._noise_up is not None
    np.testing.assert_array_equal(with_more._noise_up.n[1], sizes[0])


def test_the_nll_recorded_is_that_without_the_noise() -> None:
    net = network()
    x, t = batch()
    both = {"forward/hidden": Noise("blind", std=2.0), "backward/hidden": Noise("blind", std=2.0)}
    joint = step_with(net, both)
    gradient_of(net, joint)
    assert float(joint.forward_nll[0, 0]) == pytest.approx(nll(net, x, t, {}))
    assert float(joint.backward_nll[0, 0]) == pytest.approx(nll(net.reversed, t, x, {}))


@pytest.mark.parametrize("kind", ["nem", "blind", "anti", "drift"])
@pytest.mark.parametrize("screening", ["auto", "expectation"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_another_device_gives_the_same(kind: Any, screening: Any, dtype: str) -> None:
    """Every place of both directions at once, on array-api-strict's second device."""
    strict = Backend(array_api_strict, array_api_strict.Device("device1"))
    x, y = batch()
    places = [f"{d}/{place}" for d in ("forward", "backward") for place in ("input", "hidden")]
    noise = dict.fromkeys(
        [*places, "forward", "backward"], Noise(kind, std=0.5, screening=screening)
    )
    found = []
    for backend in (get_backend("cpu"), strict):
        net = dense_network([5, 7, 6, 3], activation="tanh", dtype=dtype, device=backend)
        streams = {key: stream(0, f"noise/{key}") for key in noise}
        joint = JointBackpropagation(net, ROWS, noise=noise, generators=streams)
        joint.x[...], joint.t[...] = backend.asarray(x, dtype), backend.asarray(y, dtype)
        gradient = backend.zeros((net.parameter_count,), dtype)
        joint(gradient)
        found.append(backend.to_numpy(gradient))
    np.testing.assert_allclose(*found, atol={"float64": 1e-13, "float32": 1e-5}[dtype])


def test_convolutions_with_pooling_take_noise_where_they_have_activations() -> None:
    net = network_of_images((6, 6, 2), "conv4x3,pool2,5", 3, activation="tanh", dtype="float64")
    assert noisy_layers(net, "hidden") == [1, 3]  # not the pooled layer
    x, t = np.random.default_rng(0).standard_normal((ROWS, 72)), batch()[1]
    key = "backward/hidden"
    joint = JointBackpropagation(
        net, ROWS, noise={key: Noise("nem", std=0.3)}, generators={key: stream(0, key)}
    )
    joint.x[...], joint.t[...] = x, t
    gradient = np.zeros(net.parameter_count)
    joint(gradient)
    for source in joint.sources.values():
        assert float(source.gain[0, 0]) > 0.0
    quiet = np.zeros(net.parameter_count)
    without = JointBackpropagation(net, ROWS)
    without.x[...], without.t[...] = x, t
    without(quiet)
    assert np.abs(gradient - quiet).max() > 1e-4
    assert float(joint.backward_nll[0, 0]) == pytest.approx(float(without.backward_nll[0, 0]))


def test_places_and_their_errors() -> None:
    net = network()
    assert noisy_layers(net, "hidden") == [1, 2]
    assert noisy_layers(net.reversed, "last-hidden") == [2]
    with pytest.raises(ArchitectureError, match="target or one of input, hidden, last-hidden"):
        noisy_layers(net, "output")
    with pytest.raises(ArchitectureError, match="needs a hidden layer, and this network has none"):
        noisy_layers(dense_network([4, 3]), "hidden")
    twice = dict.fromkeys(("hidden", "last-hidden"), Noise("nem"))
    with pytest.raises(ArchitectureError, match="hidden and last-hidden both name layer 2"):
        SignalNoise(net, ROWS, twice, dict.fromkeys(twice, stream(0, "n")))
    with pytest.raises(ArchitectureError, match="screened by whole samples"):
        step_with(net, {"forward/hidden": Noise("nem", screening="component")})
    with pytest.raises(ArchitectureError, match="needs a row for each sample"):
        JointBackpropagation(
            net, ROWS, path="classes", noise={"backward/input": Noise("nem")},
            generators={"backward/input": stream(0, "n")},
        )  # fmt: skip
