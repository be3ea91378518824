"""Convolution, average pooling and reshape: sizes, refusals, dtypes, devices, threads, files."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from near import assert_near
from nembp.verification.laws.links import links
from strategies import SYNAPSES, seeds

from nembp.backend import Backend, get_backend
from nembp.checkpoints import decode, encode
from nembp.engine.activations import LeakyReLU
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Layer, Network
from nembp.errors import ArchitectureError
from nembp.testing import check_extension
from nembp.threads import threads
from nembp.verification.laws import check, joint
from nembp.verification.laws.law import tolerances
from nembp.verification.laws.maps import (
    contractions,
    definition,
    random_arrays,
    reentrant,
    trilinear,
)

CPU = get_backend("cpu")
STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))
IMAGES = {kind: SYNAPSES[kind] for kind in (Convolution, AveragePooling, Reshape, Transposed)}
few = settings(max_examples=settings.default.max_examples // 4)
each_kind = pytest.mark.parametrize("kind", list(IMAGES), ids=lambda kind: kind.__name__)


# -- sizes and refusals ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("linear_map", "shape"),
    [
        (Convolution((32, 32, 3), 8, (4, 4), (2, 2), (1, 1)), (16, 16, 8)),
        (Convolution((28, 28, 1), 4, (5, 5)), (24, 24, 4)),
        (Convolution((7, 9, 2), 3, (2, 3), (3, 2)), (2, 4, 3)),  # pixels left over on both axes
        (Convolution((6, 5, 2), 7, (6, 5)), (1, 1, 7)),  # the whole image
        (Convolution((5, 5, 2), 4, (1, 1), (2, 3)), (3, 2, 4)),
        (Convolution((1, 1, 1), 1, (3, 3), (1, 1), (2, 2)), (3, 3, 1)),
        (AveragePooling((7, 6, 3), (2, 3), (2, 2)), (3, 2, 3)),
        (AveragePooling((4, 4, 2), (4, 4), (1, 1)), (1, 1, 2)),
        (Reshape((3, 4, 2), (2, 0, 1)), (2, 3, 4)),
        (Reshape((6,)), (6,)),
    ],
    ids=str,
)
def test_sizes(linear_map, shape):
    assert linear_map.output_shape == shape
    assert linear_map.outputs == math.prod(shape)
    assert linear_map.inputs == math.prod(linear_map.shape)
    assert linear_map.initial_weights(np.random.default_rng(0)).shape == linear_map.weight_shape
    check(definition(linear_map, 3, 0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Convolution((4, 4, 1), 2, (5, 4)), r"kernel \(5, 4\) does not fit.*at most 4"),
        (lambda: Convolution((4, 4, 1), 2, (3, 7), (1, 1), (0, 1)), "at most 6"),
        (lambda: Convolution((4, 0, 1), 2, (1, 1)), "at least 1"),
        (lambda: Convolution((4, 4, 1), 0, (1, 1)), "channels"),
        (lambda: Convolution((4, 4, 1), 2, (1, 1), (0, 1)), "stride"),
        (lambda: Convolution((4, 4, 1), 2, (1, 1), (1, 1), (-1, 0)), "padding of at least 0"),
        (lambda: AveragePooling((4, 4, 1), (5, 1), (1, 1)), r"window \(5, 1\) does not fit"),
        (lambda: AveragePooling((4, 4, 1), (2, 2), (0, 1)), "at least 1"),
        (lambda: Reshape((2, 3), (0, 0)), r"axes \(0, 0\) are no order of the 2 axes"),
        (lambda: Reshape(()), "sizes of at least 1"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ArchitectureError, match=message):
        make()


@each_kind
@given(data=st.data())
def test_files_hold_them(kind, data):
    linear_map = data.draw(IMAGES[kind])
    assert decode(LinearMap, encode(linear_map)) == linear_map


def test_initial_weights_suit_both_directions():
    """Variance 2 / (fan in + fan out): 6912 draws are within 10 % of it but once in 1e8."""
    linear_map = Convolution((16, 16, 12), 16, (6, 6), (2, 2), (2, 2))
    drawn = linear_map.initial_weights(np.random.default_rng(0))
    assert drawn.var() == pytest.approx(2.0 / (36 * 12 + 9 * 16), rel=0.1)


# -- dtypes and devices ------------------------------------------------------------------------
@each_kind
@given(data=st.data(), seed=seeds, rows=st.integers(1, 5))
def test_complex_signals_and_weights(kind, data, seed, rows):
    """Complex steps go through: each is complex-linear in both of its arguments."""
    linear_map = data.draw(IMAGES[kind])
    parts = [random_arrays(linear_map, rows, seed + k, "float64") for k in (0, 1)]
    x, W, y = (real + 1j * imaginary for real, imaginary in zip(*parts, strict=True))
    found = [np.full(v.shape, np.nan, "complex128") for v in (y, x, W)]
    linear_map.forward(CPU, x, W, found[0])
    linear_map.adjoint(CPU, y, W, found[1])
    linear_map.weight_gradient(CPU, x, y, found[2])
    expected = [0.0, 0.0, 0.0]
    for i, j in product((0, 1), (0, 1) if W.size else (0,)):
        (x_i, _, y_i), (_, W_j, y_j) = parts[i], parts[j]
        up, down, _ = contractions(linear_map, x_i, W_j, y_i)
        _, _, gradient = contractions(linear_map, x_i, W_j, y_j)
        for k, part in enumerate((up, down, gradient)):
            expected[k] = expected[k] + 1j ** (i + j) * part
    for actual, value in zip(found, expected, strict=True):
        assert_near(actual.real, value.real, 1e-12, "real part", scale=1.0)
        assert_near(actual.imag, value.imag, 1e-12, "imaginary part", scale=1.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_kind
@few
@given(data=st.data(), seed=seeds, rows=st.integers(1, 5))
def test_every_law_holds_on_another_device(kind, dtype, data, seed, rows):
    """By nothing but the array-API standard, on array-api-strict's second device."""
    linear_map, tolerance = data.draw(IMAGES[kind]), tolerances()[dtype]
    for law in (definition, trilinear, links):
        check(law(linear_map, rows, seed, STRICT, dtype), tolerance)


def test_no_copy_to_the_host():
    """Contractions take arrays of their device alone."""
    linear_map = Convolution((4, 4, 1), 2, (3, 3))
    x, W, y = random_arrays(linear_map, 2, 0, "float64")
    with pytest.raises((AttributeError, RuntimeError, TypeError, ValueError)):
        linear_map.forward(STRICT, x, STRICT.asarray(W), STRICT.asarray(y))


@pytest.mark.parametrize(
    "linear_map",
    [
        Convolution((5, 4, 2), 3, (3, 2), (2, 1), (1, 2)),
        Transposed(Convolution((5, 5, 2), 2, (4, 4), (2, 2), (1, 1))),
        AveragePooling((5, 4, 2), (2, 3), (2, 1)),
        Reshape((5,)),
        Reshape((2, 3, 2), (2, 0, 1)),
    ],
    ids=str,
)
def test_the_public_checker_passes_them_alone_and_in_networks(linear_map):
    report = check_extension(linear_map)
    laws = {result.law for result in report.laws}
    assert {"the definition", "links compute the same"} <= laws
    assert {"in a network: gradient.classical", "in a network: joint.classes"} <= laws


# -- threads -----------------------------------------------------------------------------------
def test_calls_of_two_threads_meet_at_operations():
    """The law is not empty: the other thread is let in, and its results are looked at."""
    found = list(reentrant(Convolution((4, 4, 1), 2, (3, 3)), 3, 0))
    assert any("from another thread" in deviation.what for deviation in found)
    assert any("interrupted" in deviation.what for deviation in found)


def network(seed: int) -> Network:
    layers = [
        Layer(768),
        Layer(512, LeakyReLU(), 8),
        Layer(512, LeakyReLU(), 8),
        Layer(128, None, 0),
        Layer(10),
    ]
    maps = [
        Convolution((16, 16, 3), 8, (4, 4), (2, 2), (1, 1)),
        Convolution((8, 8, 8), 8, (3, 3), (1, 1), (1, 1)),
        AveragePooling((8, 8, 8), (2, 2), (2, 2)),
        Dense(128, 10),
    ]
    return Network(layers, maps, Multinomial(), Gaussian(), dtype="float64", seed=seed)


def test_two_trainings_at_once():
    """Two threads step their own networks, each on two lanes, as one after another would."""

    def work(seed: int) -> list[np.ndarray]:
        net, g = network(seed), np.random.default_rng(seed)
        x, t = g.normal(size=(24, 768)), np.eye(10)[g.integers(0, 10, 24)]
        first, step = joint.run(net, x, t, "classes")
        return [first, *(joint.run(net, x * k, t, "classes", step=step)[0] for k in (2.0, 1.0))]

    with threads(2):
        alone = [work(seed) for seed in (0, 1)]
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(work, (0, 1)))
    for mine, same in zip(together, alone, strict=True):
        for actual, expected in zip(mine, same, strict=True):
            size = float(np.abs(expected).max())
            assert_near(actual, expected, 1e-12, "gradient", scale=size)
        assert np.array_equal(mine[0], mine[2])
