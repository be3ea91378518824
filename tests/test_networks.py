"""Networks as objects: two directions of one vector, copies, what is refused at the door."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import scipy.sparse
from engines import STRICT, assert_close

from nembp.backend import get_backend, stream
from nembp.engine.activations import get_activation
from nembp.engine.backprop import backpropagate, gradient
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Gaussian, Multinomial, get_likelihood
from nembp.engine.linear import AveragePooling, Dense, Reshape
from nembp.engine.network import Layer, Network, dense_network
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError, ShapeError


def test_a_copy_lives_on_another_device_and_is_pickled_by_way_of_the_host():
    net = dense_network([3, 4, 2], dtype="float64")
    moved = net.to(STRICT)
    assert np.array_equal(STRICT.to_numpy(moved.parameters), net.parameters)
    assert_close(STRICT.to_numpy(moved.predict(np.eye(3))), net.predict(np.eye(3)), 1e-12)
    loaded = pickle.loads(pickle.dumps(moved.reversed)).reversed
    assert loaded.backend.name == "cpu"
    assert np.array_equal(loaded.predict(np.eye(3)), net.predict(np.eye(3)))


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_a_pair_of_directions_stays_a_pair(copier):
    net = dense_network([3, 4, 2])
    for pair in ((net, net.reversed), (net.reversed, net)):
        first, second = copier(pair)
        assert first.reversed is second
        assert second.reversed is first
        assert first.direction == pair[0].direction


# -- what a network is made of ---------------------------------------------------------------------
def test_a_new_network_has_the_weights_of_its_seed_and_no_biases():
    net, same, other = (dense_network([6, 5, 4], seed=s, dtype="float64") for s in (1, 1, 2))
    assert np.array_equal(net.parameters, same.parameters)
    assert not np.any(net.parameters[: net.weight_count] == other.parameters[: net.weight_count])
    assert not np.any(net.parameters[net.weight_count :])
    generator = stream(1, "weights")
    for linear, W in zip(net.maps, net.weights, strict=True):
        assert np.array_equal(W, linear.initial_weights(generator))
    rounded = dense_network([6, 5, 4], seed=1)
    assert np.array_equal(rounded.parameters, net.parameters.astype(np.float32))


def test_initial_gains_are_ones_and_statistics_those_of_nothing_seen():
    net = dense_network([3, 4, 2], normalization=BatchNormalization())
    for way in (net, net.reversed):
        assert np.all(way.gains[1] == 1.0)
        mean, variance = way.running[1]
        assert not mean.any()
        assert np.all(variance == 1.0)
    assert dense_network([3, 4, 2]).statistics_count == 0


def test_numbers_of_numpy_are_numbers():
    assert Gaussian(np.float32(0.5)).scale == 2.0
    assert Gaussian(np.int64(2)).scale == 0.5
    assert Noise("nem", std=np.float32(0.5)).std_at(1, 1) == 0.5
    assert stream(np.int64(7), "a").random() == stream(7, "a").random()


# -- what is refused -------------------------------------------------------------------------------
NORMAL = BatchNormalization()
ENDS = Gaussian(), Gaussian()
IMPOSSIBLE = [
    (lambda: Network([Layer(3), Layer(2)], [Dense(3, 4)], *ENDS),
     "linear map 1 joins 3 to 4 units, but layers 0"),
    (lambda: Network([Layer(3), Layer(2)], [Dense(3, 2), Dense(2, 3)], *ENDS),
     "2 layers and 2 linear maps"),
    (lambda: Layer(4, None, 3), "got 4 units and 3 biases"),
    (lambda: dense_network([3, 0, 2]), "layer 1 has size 0"),
    (lambda: dense_network([3]), "at least 2 layers"),
    (lambda: Dense(0, 3), "at least 1 unit"),
    (lambda: Convolution((4, 4, 1), 2, (5, 4)), r"\(5, 4\) does not fit.*at most 4"),
    (lambda: Convolution((4, 4, 1), 0, (1, 1)), "channels"),
    (lambda: Convolution((4, 4, 1), 2, (1, 1), (0, 1)), "stride"),
    (lambda: Convolution((4, 4, 1), 2, (1, 1), (1, 1), (-1, 0)), "at least 0"),
    (lambda: AveragePooling((4, 4, 1), (5, 1), (1, 1)), r"window \(5, 1\) does not fit"),
    (lambda: Reshape((2, 3), (0, 0)), r"axes \(0, 0\) are no order of the 2 axes"),
    (lambda: Reshape(()), "sizes of at least 1"),
    (lambda: get_likelihood("none such"), "gaussian, bernoulli.* got 'none such'"),
    (lambda: get_activation("none such"), "relu, leaky-relu.* got 'none such'"),
    (lambda: BatchNormalization(epsilon=0.0), "finite epsilon > 0"),
    (lambda: BatchNormalization(momentum=0.0), r"momentum in \(0, 1\]"),
    (lambda: Layer(4, None, 0, NORMAL), "needs biases"),
    (lambda: Network([Layer(3), Layer(2, None, None, NORMAL)], [Dense(3, 2)], *ENDS),
     "layer 1 is normalized, but it is an end"),
    (lambda: dense_network([3, 2, 2], normalization=True), "must be a BatchNormalization"),
    *((partial(make, value), "must be a positive, finite number, got ")
      for make in (Multinomial, Gaussian, partial(get_likelihood, "gaussian"))
      for value in (0.0, math.inf, math.nan, "a", [1.0], 1j)),
    *((partial(dense_network, [2, 2], dtype=dtype), "^dtype must be 'float32' or 'float64', got ")
      for dtype in (None, "float16", int, ",", {})),
    *((partial(make, seed), "^seed must be an integer of at least 0, got ")
      for make in (lambda seed: dense_network([2, 2], seed=seed), lambda seed: stream(seed, "a"),
                   lambda seed: get_backend("cpu").generator(seed, "noise/forward"))
      for seed in (-1, 1.5, "1")),
    *((partial(dense_network, [4, 3], initial=initial), "initial weights must be")
      for initial in ("glorott", 0.0, -1.0, math.nan, None, [np.ones((4, 3))])),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), IMPOSSIBLE)
def test_networks_that_cannot_be_are_refused(make, message):
    with pytest.raises(ArchitectureError, match=message):
        make()


def test_swapped_directions_are_pointed_out():
    net = dense_network([3, 5, 2])
    with pytest.raises(ShapeError, match=r"net expects \(rows, 3\); did you swap x and y\?"):
        net.predict(np.ones((4, 2)))
    with pytest.raises(ShapeError, match=r"net\.reversed expects \(rows, 2\); did you swap"):
        net.reversed.predict(np.ones((4, 3)))
    with pytest.raises(ShapeError, match=r"shape \(4,\) but net expects \(rows, 3\)$"):
        net.predict(np.ones(4))


NO_NUMBERS = {
    "ragged": ([[1, 2], [3]], r"rows of 1 to 2 values .*\(rows, 2\) .*; give all rows the same"),
    "text": ([["a", "b"]], r"holds text .*np\.asarray\(\.\.\., float\)"),
    "sparse": (scipy.sparse.csr_matrix(np.eye(2)), r"sparse csr_matrix .*\.toarray\(\)"),
    "complex": (np.array([[1j, 2]]), "holds complex numbers .*real part"),
    "dates": (np.zeros((1, 2), "M8[s]"), "holds dates"),
    "mapping": ({"x": 1}, "a dict that cannot be read"),
    "long": ([[10**400, 0]], "cannot be read as an array"),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_what_is_no_array_of_real_numbers_is_refused_with_a_remedy(name):
    value, message = NO_NUMBERS[name]
    net = dense_network([2, 3, 2], seed=0)
    for what, call in (
        ("input", lambda: net.predict(value)),
        ("input", lambda: net.reversed.predict(value)),
        ("input", lambda: backpropagate(net, value, np.eye(2))),
        ("target", lambda: net.log_likelihood(np.eye(2), value)),
        ("target", lambda: backpropagate(net, np.eye(2), value)),
    ):
        with pytest.raises(ShapeError, match=f"(?s)^{what} .*({message})"):
            call()


def test_arrays_and_lists_of_numbers_are_taken():
    net = dense_network([2, 3, 2], seed=0)
    x = np.array([[0.1, 2.0], [3.0, 1e-3]])
    expected = net.predict(x.astype(np.float32))
    for given_x in (x, x.tolist(), list(x), tuple(map(tuple, x)), x.astype(object)):
        assert np.array_equal(net.predict(given_x), expected)
    for given_x in ([[1, 0]], [[True, False]], np.array([[1, 0]], np.int8)):
        assert np.array_equal(net.predict(given_x)[0], net.predict(np.eye(2))[0])
    x = x.astype(np.float32)
    assert get_backend("cpu").asarray(x, "float32") is x  # what fits is not copied


def test_a_complex_copy_takes_complex_numbers():
    exact = dense_network([2, 3, 2], seed=0).to(dtype="complex128")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert exact.predict(np.array([[1e-20j, 0.0]])).imag.any()


@pytest.mark.parametrize("dtype", ["float64", float, np.dtype("f8")])
def test_a_precision_is_said_in_any_way_that_numpy_knows(dtype):
    for made in (dense_network([2, 3, 2], dtype=dtype), dense_network([2, 2]).to(dtype=dtype)):
        assert (made.dtype, made.reversed.dtype) == ("float64", "float64")
        assert made.predict(np.eye(2)).dtype == np.float64


def test_initial_weights_have_the_standard_deviation_that_is_asked_for():
    sizes = [400, 300, 200]
    for initial, expected in (
        ("glorot", [(2 / 700) ** 0.5, (2 / 500) ** 0.5]),
        ("he", [(2 / 400) ** 0.5, (2 / 300) ** 0.5]),
        (0.7, [0.7, 0.7]),
    ):
        net = dense_network(sizes, initial=initial, dtype="float64")
        for W, std in zip(net.weights, expected, strict=True):
            assert abs(float(W.std()) / std - 1) < 0.02  # 60,000 draws: 7 standard errors
    drawn = Convolution((9, 9, 60), 80, (4, 4), (2, 2)).initial_weights(stream(0, "weights"))
    assert abs(float(drawn.std()) / (2 / (16 * 60 + 4 * 80)) ** 0.5 - 1) < 0.02


def test_a_network_without_biases_has_weights_alone():
    net = dense_network([3, 4, 2], bias=False, dtype="float64")
    assert net.parameter_count == 3 * 4 + 4 * 2
    x, y = np.ones((2, 3)), np.eye(2)
    both = backpropagate(net, x, y)[0] + backpropagate(net.reversed, y, x)[0]
    for path in ("samples", "classes"):
        np.testing.assert_allclose(gradient(net, x, y, path=path)[1], both, atol=1e-15)
