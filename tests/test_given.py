"""What users give to networks that is no array of numbers, no precision or no seed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse

from nembp.architecture import network
from nembp.backend import get_backend, stream
from nembp.engine.backprop import backpropagate
from nembp.engine.network import dense_network
from nembp.errors import ArchitectureError, ShapeError

REFUSED = {
    "ragged": ([[1, 2], [3]], r"rows of 1 to 2 values .*\(rows, 2\); give all rows the same"),
    "ragged arrays": ([np.zeros(2), np.zeros(3)], "rows of 2 to 3 values"),
    "ragged within": ([[1, 2], [3, [4]]], "a list that cannot be read as an array"),
    "text": ([["a", "b"]], r"holds text .*np\.asarray\(\.\.\., float\)"),
    "text of digits": ([["1", "2"]], "holds text"),
    "text in an object array": (np.array([["a", "b"]], object), "could not convert"),
    "bytes": (b"ab", "holds text"),
    "matrix": (scipy.sparse.csr_matrix(np.eye(2)), r"sparse csr_matrix .*\(2, 2\).*\.toarray\(\)"),
    "sparse array": (scipy.sparse.coo_array(np.eye(2)), r"sparse coo_array .*\.toarray\(\)"),
    "complex": (np.array([[1j, 2]]), "holds complex numbers .*real part"),
    "complex list": ([[1, 2j]], "holds complex numbers"),
    "complex rows": ([np.zeros(2), np.array([1j, 0])], "holds complex numbers"),
    "dates": (np.zeros((1, 2), "M8[s]"), "holds dates"),
    "mapping": ({"x": 1}, "a dict that cannot be read"),
    "long": ([[10**400, 0]], "cannot be read as an array"),
    "structured": (np.zeros((1, 2), [("a", "f4"), ("b", "f4")]), "cannot be read|has shape"),
}


@pytest.fixture
def net():
    return dense_network([2, 3, 2], seed=0)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_array_of_real_numbers_is_refused_with_a_remedy(net, name):
    value, message = REFUSED[name]
    good = np.eye(2)
    calls = {
        "input": [
            lambda: net.predict(value),
            lambda: net.reversed.predict(value),
            lambda: net.log_likelihood(value, good),
            lambda: backpropagate(net, value, good),
        ],
        "target": [
            lambda: net.log_likelihood(good, value),
            lambda: backpropagate(net, good, value),
        ],
    }
    for what, each in calls.items():
        for call in each:
            with pytest.raises(ShapeError, match=f"(?s)^{what} .*({message})"):
                call()


def test_arrays_and_lists_of_numbers_are_taken_as_before(net):
    x = np.array([[0.1, 2.0], [3.0, 1e-3]])
    expected = net.predict(x.astype(np.float32))
    for given in (x, x.tolist(), list(x), tuple(map(tuple, x)), x.astype(object)):
        assert np.array_equal(net.predict(given), expected)
    for given in ([[1, 0]], [[True, False]], np.array([[1, 0]], np.int8), np.eye(2, dtype=bool)):
        assert np.array_equal(net.predict(given)[0], net.predict(np.eye(2))[0])
    x = x.astype(np.float32)
    assert get_backend("cpu").asarray(x, "float32") is x  # what fits is not copied


def test_a_complex_copy_takes_complex_numbers(net):
    exact = net.to(dtype="complex128")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert exact.predict(np.array([[1e-20j, 0.0]])).imag.any()


@pytest.mark.parametrize("dtype", ["float64", "f8", float, np.float64, np.dtype("f8")])
def test_a_precision_is_said_in_any_way_that_numpy_knows(net, dtype):
    for made in (
        dense_network([2, 3, 2], dtype=dtype, seed=0),
        network(2, "3", 2, dtype=dtype, seed=0),
        net.to(dtype=dtype),
    ):
        assert (made.dtype, made.reversed.dtype) == ("float64", "float64")
        assert made.predict(np.eye(2)).dtype == np.float64
    assert dense_network([2, 2], dtype=np.float32).dtype == "float32"


@pytest.mark.parametrize("dtype", [None, "", "float16", int, np.float16, "no", ",", {}, 5])
def test_other_precisions_are_refused(net, dtype):
    with pytest.raises(ArchitectureError, match=r"^dtype must be 'float32' or 'float64', got "):
        dense_network([2, 2], dtype=dtype)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", [1], np.int64(-3)])
def test_a_seed_is_an_integer_of_at_least_0(seed):
    message = "^seed must be an integer of at least 0, got "
    for make in (
        lambda: dense_network([2, 2], seed=seed),
        lambda: network(2, "3", 2, seed=seed),
        lambda: stream(seed, "weights"),
        lambda: get_backend("cpu").generator(seed, "noise/forward"),
    ):
        with pytest.raises(ArchitectureError, match=message):
            make()


def test_a_seed_of_numpy_is_the_integer_that_it_is():
    assert stream(np.int64(7), "a").random() == stream(7, "a").random()
    assert stream(np.uint8(7), "a").random() == stream(7, "a").random()
