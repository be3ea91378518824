"""What networks and likelihoods are made of when they are asked for by name."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nembp.backend import stream
from nembp.engine.activations import ACTIVATIONS, LeakyReLU, Tanh, get_activation
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial, get_likelihood
from nembp.engine.linear import Dense, Transposed
from nembp.engine.network import dense_network
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError


def test_only_hidden_layers_have_an_activation():
    net = dense_network([3, 4, 5, 2], activation="tanh")
    assert [layer.activation for layer in net.layers] == [None, Tanh(), Tanh(), None]
    assert [layer.size for layer in net.layers] == [3, 4, 5, 2]
    assert net.maps == (Dense(3, 4), Dense(4, 5), Dense(5, 2))
    assert [layer.activation for layer in dense_network([3, 2]).layers] == [None, None]
    assert (net.likelihood, net.reversed.likelihood) == (Multinomial(), Gaussian())
    assert (net.dtype, str(net.parameters.dtype)) == ("float32", "float32")


def test_ends_are_taken_as_they_are_or_by_name():
    net = dense_network([3, 2], forward=Gaussian(0.5), backward="bernoulli")
    assert (net.likelihood, net.reversed.likelihood) == (Gaussian(0.5), Bernoulli())


@pytest.mark.parametrize("weight", [0.1, 1.0, 4.0])
def test_likelihoods_by_name_have_their_weight(weight):
    kinds: dict[str, Likelihood] = {
        "multinomial": Multinomial(weight=weight),
        "gaussian": Gaussian(variance=1.0 / weight),
        "bernoulli": Bernoulli(weight=weight),
    }
    for name, expected in kinds.items():
        likelihood = get_likelihood(name, weight)
        assert likelihood == expected
        assert likelihood.scale == pytest.approx(weight)
        assert get_likelihood(likelihood) is likelihood
        # the Gaussian's precision belongs to its log-likelihood; a tempering power does not
        assert likelihood.tempering == (1.0 if name == "gaussian" else weight)
        assert (likelihood.name, get_likelihood(name).scale) == (name, 1.0)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan, "a", None, [1.0], 1j])
def test_weights_and_variances_are_positive_and_finite(value):
    for make in (
        lambda: Multinomial(weight=value),
        lambda: Bernoulli(weight=value),
        lambda: Gaussian(variance=value),
        lambda: get_likelihood("gaussian", value),
        lambda: get_likelihood("multinomial", value),
    ):
        with pytest.raises(ArchitectureError, match="must be a positive, finite number"):
            make()


def test_unknown_names_are_listed_with_the_known():
    with pytest.raises(ArchitectureError, match=r"gaussian, bernoulli.* got 'none such'"):
        get_likelihood("none such")
    with pytest.raises(ArchitectureError, match=r"relu, leaky-relu, tanh.* got 'none such'"):
        get_activation("none such")
    for name, kind in ACTIVATIONS.items():
        assert get_activation(name) == kind()
    assert get_activation(LeakyReLU(0.3)) == LeakyReLU(0.3)


def test_initial_weights_are_glorots_in_either_direction():
    """20 000 draws; mean, variance and fourth moment at 6 sigma: false alarms below 1e-8."""
    linear_map = Dense(200, 100)
    for each in (linear_map, Transposed(linear_map)):
        W = each.initial_weights(stream(0, "weights"))
        assert W.shape == (200, 100)
        assert W.dtype == np.float64
        unit = W / math.sqrt(2.0 / 300.0)
        for moment, expected, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (4, 3.0, 96.0)):
            error = abs(np.mean(unit**moment) - expected)
            assert error < 6.0 * math.sqrt(variance / W.size), moment


def test_a_new_network_has_the_weights_of_its_seed_and_no_biases():
    net, same, other = (dense_network([6, 5, 4], seed=s, dtype="float64") for s in (1, 1, 2))
    assert np.array_equal(net.parameters, same.parameters)
    assert not np.any(net.parameters[: net.weight_count] == other.parameters[: net.weight_count])
    assert not np.any(net.parameters[net.weight_count :])
    generator = stream(1, "weights")
    for linear_map, W in zip(net.maps, net.weights, strict=True):
        assert np.array_equal(W, linear_map.initial_weights(generator))
    rounded = dense_network([6, 5, 4], seed=1)
    assert np.array_equal(rounded.parameters, net.parameters.astype(np.float32))


def test_maps_join_neurons():
    for sizes in ((0, 3), (3, 0), (-1, 2)):
        with pytest.raises(ArchitectureError, match="at least 1 neuron"):
            Dense(*sizes)


@pytest.mark.parametrize("name", ["std", "decay"])
@pytest.mark.parametrize("value", ["a", None, [0.1], 1j, -0.1, math.inf, math.nan])
def test_noise_has_finite_numbers_of_at_least_0(name, value):
    with pytest.raises(ArchitectureError, match=f"^noise {name} must be a finite number ≥ 0, got "):
        Noise("nem", **{name: value})


def test_numbers_of_numpy_are_numbers():
    assert Gaussian(np.float32(0.5)).scale == 2.0
    assert Gaussian(np.int64(2)).scale == 0.5
    assert Noise("nem", std=np.float32(0.5)).std_at(1, 1) == 0.5
