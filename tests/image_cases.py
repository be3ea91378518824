"""Linear maps of images by their definition, small normalized networks, and steps of them."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import array_api_strict
import numpy as np
from hypothesis import strategies as st

from nembp.backend import Backend, get_backend
from nembp.engine.activations import Tanh
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Layer, Network

Host = np.ndarray[Any, Any]
CPU = get_backend("cpu")
STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))
TOLERANCE = {"float32": 2e-5, "float64": 1e-10}
seeds = st.integers(0, 9999)


# -- linear maps -----------------------------------------------------------------------------------
@st.composite
def convolutions(draw: st.DrawFn, side: int = 6, channels: int = 3, kernel: int = 4) -> Convolution:
    shape = (*(draw(st.integers(1, side)) for _ in range(2)), draw(st.integers(1, channels)))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(2))
    sizes = [min(kernel, n + 2 * p) for n, p in zip(shape, padding, strict=False)]
    kernels = tuple(draw(st.integers(1, size)) for size in sizes)
    stride = tuple(draw(st.integers(1, 3)) for _ in range(2))
    return Convolution(shape, draw(st.integers(1, channels)), kernels, stride, padding)


@st.composite
def poolings(draw: st.DrawFn) -> AveragePooling:
    shape = tuple(draw(st.integers(1, 5)) for _ in range(3))
    window = tuple(draw(st.integers(1, size)) for size in shape[:2])
    return AveragePooling(shape, window, tuple(draw(st.integers(1, 3)) for _ in range(2)))


reshapes = st.permutations((0, 1, 2)).map(lambda axes: Reshape((2, 3, 4), tuple(axes)))
dense = st.builds(Dense, st.integers(1, 20), st.integers(1, 20))
MAPS = {"convolution": convolutions(), "pooling": poolings(), "reshape": reshapes, "dense": dense}


def definition(linear_map: LinearMap, x: Host, W: Host, y: Host) -> tuple[Host, Host, Host]:
    """Return ∂T/∂y, ∂T/∂x and ∂T/∂W, summed pixel by pixel."""
    if isinstance(linear_map, Transposed):
        down, up, gradient = definition(linear_map.linear_map, y, W, x)
        return up, down, gradient
    if isinstance(linear_map, Dense):
        return x @ W, y @ W.T, x.T @ y
    if isinstance(linear_map, Reshape):
        axes = linear_map.axes or range(len(linear_map.shape))
        order = np.arange(linear_map.inputs).reshape(linear_map.shape).transpose(axes).ravel()
        return x[:, order], y[:, np.argsort(order)], W
    lower, upper = x.reshape(-1, *linear_map.shape), y.reshape(-1, *linear_map.output_shape)
    if isinstance(linear_map, AveragePooling):
        kernel, padding = linear_map.window, (0, 0)
        mean = np.eye(linear_map.shape[2]) / np.prod(kernel)
        kernels = np.broadcast_to(mean, (*kernel, *mean.shape))
    else:
        kernel, padding, kernels = linear_map.kernel, linear_map.padding, W
    up, down = np.zeros(upper.shape, x.dtype), np.zeros(lower.shape, x.dtype)
    gradient = np.zeros(kernels.shape, x.dtype)
    height, width = lower.shape[1:3]
    for p, q, i, j in product(*map(range, (*upper.shape[1:3], *kernel))):
        r, s = (
            linear_map.stride[0] * p + i - padding[0],
            linear_map.stride[1] * q + j - padding[1],
        )
        if 0 <= r < height and 0 <= s < width:
            up[:, p, q] += lower[:, r, s] @ kernels[i, j]
            down[:, r, s] += upper[:, p, q] @ kernels[i, j].T
            gradient[i, j] += lower[:, r, s].T @ upper[:, p, q]
    gradient = gradient if W.size else W
    return up.reshape(len(x), -1), down.reshape(len(x), -1), gradient


def arrays_of(linear_map: LinearMap, rows: int, seed: int) -> tuple[Host, Host, Host]:
    """Return random x, W and y."""
    g = np.random.default_rng(seed)
    shapes = (rows, linear_map.inputs), linear_map.weight_shape, (rows, linear_map.outputs)
    x, W, y = (g.normal(size=shape) for shape in shapes)
    return x, W, y


def poisoned(backend: Backend) -> Backend:
    """Return a twin whose new buffers hold NaN, which any read before a write then spreads."""
    twin = copy.copy(backend)
    twin.empty = lambda shape, dtype: (  # type: ignore[method-assign]
        backend.ones(shape, dtype)
        if dtype == "bool"
        else backend.asarray(np.full(shape, np.nan), dtype)
    )
    return twin


# -- networks ----------------------------------------------------------------------------------
IMAGE, CHANNELS, NEURONS, CLASSES = (6, 5, 2), 4, 7, 3


def small(dtype: str = "float64", seed: int = 0, **kinds: Any) -> Network:
    """Return images, a normalized convolution, a normalized dense layer; every number random."""
    convolution = Convolution(IMAGE, CHANNELS, (3, 3), (2, 1), (1, 1))
    hidden = convolution.outputs
    layers = [
        Layer(convolution.inputs),
        Layer(hidden, Tanh(), CHANNELS, BatchNormalization(**kinds)),
        Layer(NEURONS, Tanh(), None, BatchNormalization(**kinds)),
        Layer(CLASSES),
    ]
    maps = [convolution, Dense(hidden, NEURONS), Dense(NEURONS, CLASSES)]
    net = Network(layers, maps, Multinomial(), Gaussian(0.7), dtype=dtype, seed=None)
    generator = np.random.default_rng(seed)
    net.parameters[...] = generator.normal(0.0, 0.5, net.parameter_count)
    net.statistics[...] = generator.uniform(0.5, 2.0, net.statistics_count)
    return net


def batch(net: Network, rows: int = 12, seed: int = 1) -> tuple[Host, Host]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, net.outputs, rows)
    return generator.normal(size=(rows, net.inputs)), np.eye(net.outputs)[labels]


def joint(
    net: Network, x: Host, t: Host, path: Any = "samples", **options: Any
) -> tuple[Host, JointBackpropagation]:
    """Return a batch's joint gradient, in a vector that held NaN, and the step that gave it."""
    step = JointBackpropagation(net, len(x), path=path, **options)
    return again(step, x, t), step


def again(step: JointBackpropagation, x: Host, t: Host) -> Host:
    """Return the gradient of another batch."""
    net = step.net
    step.x[...], step.t[...] = (net.backend.asarray(each, net.dtype) for each in (x, t))
    gradient = net.backend.asarray(np.full(net.parameter_count, np.nan), net.dtype)
    step(gradient)
    return net.backend.to_numpy(gradient)
