"""Small normalized networks for the tests of batch normalization."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nembp.engine.activations import Tanh
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Gaussian
from nembp.engine.linear import Dense
from nembp.engine.network import Layer, Network, dense_network

TOLERANCE = {"float32": 2e-5, "float64": 1e-10}
each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))
IMAGE, CHANNELS, NEURONS, CLASSES = (6, 5, 2), 4, 7, 3


def small(dtype: str = "float64", seed: int = 0, **kinds: Any) -> Network:
    """Images, a normalized convolution, a normalized dense layer; every number random."""
    convolution = Convolution(IMAGE, CHANNELS, (3, 3), (2, 1), (1, 1))
    hidden = convolution.outputs
    layers = [
        Layer(convolution.inputs),
        Layer(hidden, Tanh(), CHANNELS, BatchNormalization(**kinds)),
        Layer(NEURONS, Tanh(), None, BatchNormalization(**kinds)),
        Layer(CLASSES),
    ]
    maps = [convolution, Dense(hidden, NEURONS), Dense(NEURONS, CLASSES)]
    ends = dense_network([1, 1]).likelihood, Gaussian(0.7)
    net = Network(layers, maps, *ends, dtype=dtype, seed=None)
    generator = np.random.default_rng(seed)
    net.parameters[...] = generator.normal(0.0, 0.5, net.parameter_count)
    net.statistics[...] = generator.uniform(0.5, 2.0, net.statistics_count)
    return net


def batch(net: Network, rows: int = 12, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, net.outputs, rows)
    return generator.normal(size=(rows, net.inputs)), np.eye(net.outputs)[labels]
