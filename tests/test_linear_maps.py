"""Linear maps of real networks, their sizes, threads. (The laws try them at random.)"""

from __future__ import annotations

import math

import numpy as np
import pytest
from engines import (
    Array,
    assert_close,
    each_dtype,
    joint,
)

from nembp.engine.activations import LeakyReLU
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Layer, Network
from nembp.errors import ArchitectureError
from nembp.threads import threads
from nembp.verification import check_linear_map

LARGE = {  # what real networks have: im2col and Winograd in blocks, on several workers
    "first of CIFAR-10": Convolution((32, 32, 3), 32, (4, 4), (2, 2), (1, 1)),
    "3x3": Convolution((16, 16, 16), 24, (3, 3), (1, 1), (1, 1)),
    "3x3, odd": Convolution((13, 15, 16), 20, (3, 3), (1, 1), (1, 1)),
    "3x3, no padding": Convolution((12, 12, 20), 16, (3, 3)),
    "5x5": Convolution((12, 12, 8), 16, (5, 5), (1, 1), (2, 2)),
    "1x1": Convolution((8, 8, 32), 16, (1, 1)),
    "up": Transposed(Convolution((16, 16, 16), 32, (4, 4), (2, 2), (1, 1))),
    "pooling": AveragePooling((16, 16, 8), (2, 2), (2, 2)),
}


def directions(linear: LinearMap, seed: int, dtype: str, workers: int) -> tuple[Array, ...]:
    """Return both directions' predictions and the joint gradient of a network of one such map."""
    last = linear.outputs
    layers = [Layer(linear.inputs), Layer(last, LeakyReLU(), 0), Layer(3)]
    net = Network(layers, [linear, Dense(last, 3)], Multinomial(), Gaussian(), dtype=dtype)
    g = np.random.default_rng(seed)
    x, t = g.normal(size=(21, linear.inputs)), np.eye(3)[g.integers(0, 3, 21)]
    with threads(workers):
        gradient, _ = joint(net, x, t, "samples")
    return gradient, net.predict(x), net.reversed.predict(t)


@each_dtype
@pytest.mark.parametrize("name", LARGE)
def test_maps_of_real_networks_on_one_worker_and_on_three(name, dtype):
    one, three = (directions(LARGE[name], 1, dtype, workers) for workers in (1, 3))
    double = directions(LARGE[name], 1, "float64", 1)
    for alone, shared, exact in zip(one, three, double, strict=True):
        assert_close(alone, exact, {"float32": 2e-5, "float64": 0.0}[dtype])
        assert_close(shared, exact, {"float32": 2e-5, "float64": 1e-12}[dtype])


# -- sizes and refusals ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("linear", "shape"),
    [
        (Convolution((16, 16, 3), 8, (4, 4), (2, 2), (1, 1)), (8, 8, 8)),
        (Convolution((7, 9, 2), 3, (2, 3), (3, 2)), (2, 4, 3)),  # pixels left over on both axes
        (Convolution((6, 5, 2), 7, (6, 5)), (1, 1, 7)),  # the whole image
        (Convolution((1, 1, 1), 1, (3, 3), (1, 1), (2, 2)), (3, 3, 1)),
        (AveragePooling((7, 6, 3), (2, 3), (2, 2)), (3, 2, 3)),
        (Reshape((3, 4, 2), (2, 0, 1)), (2, 3, 4)),
    ],
    ids=str,
)
def test_sizes(linear, shape):
    assert linear.output_shape == shape
    assert (linear.inputs, linear.outputs) == (math.prod(linear.shape), math.prod(shape))
    assert linear.initial_weights(np.random.default_rng(0)).shape == linear.weight_shape
    assert check_linear_map(linear).passed


IMPOSSIBLE = {
    "kernel": (lambda: Convolution((4, 4, 1), 2, (5, 4)), r"\(5, 4\) does not fit.*at most 4"),
    "channels": (lambda: Convolution((4, 4, 1), 0, (1, 1)), "channels"),
    "stride": (lambda: Convolution((4, 4, 1), 2, (1, 1), (0, 1)), "stride"),
    "padding": (lambda: Convolution((4, 4, 1), 2, (1, 1), (1, 1), (-1, 0)), "at least 0"),
    "window": (lambda: AveragePooling((4, 4, 1), (5, 1), (1, 1)), r"window \(5, 1\) does not fit"),
    "axes": (lambda: Reshape((2, 3), (0, 0)), r"axes \(0, 0\) are no order of the 2 axes"),
    "no axes": (lambda: Reshape(()), "sizes of at least 1"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_is_refused(name):
    make, message = IMPOSSIBLE[name]
    with pytest.raises(ArchitectureError, match=message):
        make()


def test_initial_weights_suit_both_directions():
    """Variance 2 / (fan in + fan out): 6912 draws are within 10 % of it but once in 1e8."""
    linear = Convolution((16, 16, 12), 16, (6, 6), (2, 2), (2, 2))
    drawn = linear.initial_weights(np.random.default_rng(0))
    assert drawn.var() == pytest.approx(2.0 / (36 * 12 + 9 * 16), rel=0.1)
