"""check_network and check_backprop_invariance: no false alarm, and planted mistakes are told."""

from __future__ import annotations

from dataclasses import dataclass

import array_api_strict
import numpy as np
import pytest
from examples_extensions import LocallyConnected, Poisson
from hypothesis import given, settings
from strategies import cases

from nembp.backend import Backend
from nembp.engine.activations import Tanh
from nembp.engine.likelihoods import Bernoulli, Gaussian
from nembp.engine.linear import Dense, Transposed
from nembp.engine.network import Layer, Network, dense_network
from nembp.errors import ArchitectureError, DataError, ShapeError
from nembp.verification import check_backprop_invariance, check_network

STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))
more = settings(max_examples=settings.default.max_examples)


def batch(net, rows=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((rows, net.inputs)), np.eye(net.outputs)[rng.integers(0, net.outputs, rows)]


def randomized(net, seed=0):
    draws = np.random.default_rng(seed).normal(0.0, 0.6, net.parameter_count)
    net.parameters[...] = net.backend.asarray(draws, net.dtype)
    return net


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@more
@given(case=cases())
def test_no_false_alarm(dtype, case):
    net, (x, y) = case.with_(dtype=dtype).net(), case.batch()
    for check in (check_network, check_backprop_invariance):
        report = check(net, x, y, seed=case.seed % 1000, raises=False)
        assert report.passed, str(report)


def test_every_path_is_checked_and_parameters_are_left_alone():
    net = dense_network([4, 6, 5, 3])
    before = net.parameters.copy()
    laws = [law.law for law in check_network(net, *batch(net)).laws]
    for path in ("samples", "classes", "none"):
        assert f"joint gradient, path {path}" in laws
    assert "gradient of the backward direction in float32" in laws
    np.testing.assert_array_equal(net.parameters, before)
    soft = check_network(net, batch(net)[0], np.full((6, 3), 1 / 3))
    assert not any("classes" in law.law for law in soft.laws)


def test_seen_from_the_backward_direction():
    net = dense_network([4, 6, 3])
    x, y = batch(net)
    assert check_network(net.reversed, y, x).passed
    assert check_backprop_invariance(net.reversed, y, x).passed


@pytest.mark.parametrize("ends", [("multinomial", "gaussian"), ("bernoulli", "multinomial")])
def test_on_another_device(ends):
    net = dense_network([4, 5, 3], forward=ends[0], backward=ends[1], device=STRICT)
    x, y = batch(net)
    x = x / x.sum(axis=1, keepdims=True)
    assert check_network(net, x, y).passed
    assert check_backprop_invariance(net, x, y).passed


@dataclass(frozen=True)
class Softplus(Tanh):
    name = "softplus"

    def activate(self, backend, z, scratch):
        z[...] = np.log1p(np.exp(z))

    def multiply_derivative(self, backend, error, a, scratch):
        error *= -np.expm1(-a)


def test_parts_that_users_wrote():
    layers = [Layer(6), Layer(4, Softplus()), Layer(5, Tanh()), Layer(3)]
    maps = [LocallyConnected(4, 3), Transposed(LocallyConnected(4, 2)), Dense(5, 3)]
    net = randomized(Network(layers, maps, Poisson(), Poisson(), dtype="float64"))
    rng = np.random.default_rng(0)
    x, y = rng.poisson(2.0, (5, 6)), rng.poisson(2.0, (5, 3))
    assert check_network(net, x, y).passed
    assert check_backprop_invariance(net, x, y).passed


def small():
    net = dense_network(
        [4, 4, 3], activation="tanh", backward=Gaussian(variance=0.25), dtype="float64"
    )
    return randomized(net)


def test_a_kink_is_no_mistake():
    """Zero biases and a zero row: pre-activations at the kink of ReLU itself."""
    net = dense_network([3, 5, 2], activation="relu", dtype="float64")
    x, y = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 1]]), np.eye(2)[[0, 1, 0]]
    assert check_network(net, x, y).passed
    assert check_backprop_invariance(net, x, y).passed


@pytest.mark.parametrize("check", [check_network, check_backprop_invariance])
def test_batches_must_fit(check):
    net = small()
    x, y = batch(net)
    with pytest.raises(ShapeError, match=r"y has shape \(6, 4\).*did you swap"):
        check(net, x, x)
    with pytest.raises(ShapeError, match="x has 6 rows and y has 5"):
        check(net, x, y[:5])
    with pytest.raises(ShapeError, match="give as many of both"):
        check(net, x[:0], y[:0])


def test_invariance_is_about_proper_targets():
    net = small()
    x, y = batch(net)
    with pytest.raises(DataError, match=r"row 2 sums to 1\.5"):
        check_backprop_invariance(net, x, y + 0.5 * np.eye(6, 3, k=-2))
    assert check_network(net, x, y + 0.5 * np.eye(6, 3, k=-2)).passed  # the exact gradient is right


def test_complex_steps_can_be_forced():
    net = small()
    report = check_network(net, *batch(net), method="complex")
    assert report["gradient of the forward direction"].worst.method == "complex"
    report = check_network(net, *batch(net), method="central")
    assert report["gradient of the backward direction"].worst.method == "central"
    layers = [Layer(2), Layer(3, Clipped()), Layer(2)]
    clipped = randomized(
        Network(layers, [Dense(2, 3), Dense(3, 2)], Bernoulli(), Gaussian(), dtype="float64")
    )
    with pytest.raises(ArchitectureError, match="analytic"):
        check_network(clipped, *batch(clipped), method="complex")


@dataclass(frozen=True)
class Clipped(Tanh):
    analytic = False

    def activate(self, backend, z, scratch):
        z[...] = np.tanh(z.real)

    def multiply_derivative(self, backend, error, a, scratch):
        error *= 1 - a * a
