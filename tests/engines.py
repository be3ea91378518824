"""What the tests of the engine share: random networks and batches, a step, and comparison."""

from __future__ import annotations

import math
from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import strategies as st

from nembp.backend import Backend, get_backend, stream
from nembp.engine.activations import get_activation
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import get_likelihood
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Layer, Network

Array = np.ndarray[Any, Any]
STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))
LIKELIHOODS = "multinomial", "gaussian", "bernoulli"
PAIRS = [(forward, backward) for forward in LIKELIHOODS for backward in LIKELIHOODS]
ACTIVATIONS = "relu", "leaky-relu", "tanh", "logistic", "identity"
each_path = pytest.mark.parametrize("path", ["samples", "classes", "none"])
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
seeds = st.integers(0, 2**32 - 1)


def assert_close(actual: Any, expected: Any, tolerance: float, scale: float = 0.0) -> None:
    """Assert that errors are within ``tolerance`` of the largest value, or of ``scale``."""
    expected = np.asarray(expected)
    size = max(scale, float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(actual, expected, rtol=0.0, atol=tolerance * size)


def _image(g: np.random.Generator) -> tuple[int, int, int]:
    return int(g.integers(2, 6)), int(g.integers(2, 6)), int(g.integers(1, 4))


def random_convolution(g: np.random.Generator, shape: tuple[int, int, int]) -> Convolution:
    padding = tuple(int(g.integers(0, 3)) for _ in "hw")
    kernel = tuple(int(g.integers(1, min(4, shape[k] + 2 * padding[k]) + 1)) for k in (0, 1))
    stride = tuple(int(g.integers(1, 4)) for _ in "hw")
    return Convolution(shape, int(g.integers(1, 5)), kernel, stride, padding)  # type: ignore[arg-type]


def random_pooling(g: np.random.Generator, shape: tuple[int, int, int]) -> AveragePooling:
    window = tuple(int(g.integers(1, shape[k] + 1)) for k in (0, 1))
    return AveragePooling(shape, window, tuple(int(g.integers(1, 4)) for _ in "hw"))  # type: ignore[arg-type]


def random_map(g: np.random.Generator, kind: type[LinearMap]) -> LinearMap:
    """Return a small random linear map of a kind."""
    if kind is Dense:
        return Dense(int(g.integers(1, 8)), int(g.integers(1, 8)))
    if kind is Convolution:
        return random_convolution(g, _image(g))
    if kind is AveragePooling:
        return random_pooling(g, _image(g))
    if kind is Reshape:
        return Reshape(_image(g), tuple(int(axis) for axis in g.permutation(3)))
    return Transposed(random_map(g, Convolution))


def chain(g: np.random.Generator) -> list[tuple[LinearMap, int, bool]]:
    """Return random maps from input to output, each with the biases of the layer it leads to."""
    parts: list[tuple[LinearMap, int, bool]] = []
    shape: tuple[int, int, int] | None = _image(g) if g.random() < 0.5 else None
    size = math.prod(shape) if shape else int(g.integers(1, 7))
    for _ in range(int(g.integers(0, 4))):
        kind = g.choice(["dense", "dense", "conv", "up", "pool", "reshape"])
        if kind == "dense" or (shape is None and kind in ("conv", "pool", "reshape")):
            parts.append((Dense(size, int(g.integers(1, 7))), 0, True))
            shape = None
        elif kind == "conv":
            assert shape is not None
            linear = random_convolution(g, shape)
            parts.append((linear, linear.channels, True))
            shape = linear.output_shape
        elif kind == "up":
            below = Convolution((4, 3, 2), 2, (3, 2), (2, 1), (1, 0))
            if size != below.outputs:
                parts.append((Dense(size, below.outputs), 0, True))
            parts.append((Transposed(below), 2, True))
            shape = below.shape
        elif kind == "pool":
            assert shape is not None
            pooling = random_pooling(g, shape)
            parts.append((pooling, 0, False))
            shape = pooling.output_shape
        else:
            assert shape is not None
            parts.append((Reshape(shape, (2, 0, 1)), 0, False))
            shape = (shape[2], shape[0], shape[1])
        size = parts[-1][0].outputs
    return [*parts, (Dense(size, int(g.integers(2, 5))), 0, True)]


def random_network(
    seed: int,
    pair: tuple[str, str] | None = None,
    *,
    activation: str | None = None,
    normalized: bool | None = None,
    dtype: str = "float64",
    device: Any = "cpu",
) -> Network:
    """Return a network of dense and image layers, with random parameters and statistics."""
    g = np.random.default_rng(seed)
    parts = chain(g)
    f = get_activation(activation or str(g.choice(ACTIVATIONS)))
    normalized = bool(g.random() < 0.3) if normalized is None else normalized
    layers = [Layer(parts[0][0].inputs)]
    for linear, biases, activates in parts[:-1]:
        if activates:
            kind = BatchNormalization(0.1) if normalized else None
            layers.append(Layer(linear.outputs, f, biases or None, kind))
        else:
            layers.append(Layer(linear.outputs, None, 0))
    layers.append(Layer(parts[-1][0].outputs))
    names = pair or PAIRS[g.integers(len(PAIRS))]
    ends = [get_likelihood(name, float(g.choice([0.3, 1.0, 2.5]))) for name in names]
    maps = [linear for linear, _, _ in parts]
    net = Network(layers, maps, *ends, dtype=dtype, device=device, seed=None)
    flat = g.normal(0.0, 0.6, net.parameter_count)
    net.parameters[...] = net.backend.asarray(flat, dtype)
    if net.statistics_count:
        statistics = g.uniform(0.5, 2.0, net.statistics_count)
        net.statistics[...] = net.backend.asarray(statistics, dtype)
    return net


def targets(likelihood: Any, g: np.random.Generator, rows: int, width: int) -> Array:
    """Return targets that a likelihood can be asked the probability of."""
    if likelihood.name == "gaussian":
        return g.normal(size=(rows, width))
    if likelihood.name == "multinomial":
        return g.dirichlet(np.ones(width), rows)
    return g.random((rows, width))


def batch(net: Network, seed: int, *, labels: bool = False) -> tuple[Array, Array]:
    """Return 1 to 6 rows of inputs and targets; one-hot rows for ``labels``."""
    g = np.random.default_rng(seed)
    rows = int(g.integers(1, 7))
    x = targets(net.reversed.likelihood, g, rows, net.inputs)
    if labels:
        return x, np.eye(net.outputs)[g.integers(0, net.outputs, rows)]
    return x, targets(net.likelihood, g, rows, net.outputs)


def size_of_errors(net: Network, x: Array, t: Array) -> float:
    """Return the size of the terms that cancel in a gradient: rounding is relative to them."""
    sizes = [1.0, float(np.abs(x).max()), float(np.abs(t).max())]
    for way, source in ((net, x), (net.reversed, t)):
        predicted = way.backend.to_numpy(
            way.predict(way.backend.asarray(source, way.dtype), "batch")
        )
        sizes.append(float(np.abs(predicted).max()))
    scales = net.likelihood.scale, net.reversed.likelihood.scale
    return max(1.0, *scales) * max(sizes) * (1.0 + float(np.abs(x).max()))


def joint(
    net: Network,
    x: Array,
    t: Array,
    path: Any = "samples",
    noise: Any = None,
    *,
    seed: int = 0,
    clock: tuple[int, int] = (1, 1),
    step: JointBackpropagation | None = None,
    **options: Any,
) -> tuple[Array, JointBackpropagation]:
    """Return the gradient of both directions on the host, and what computed it."""
    backend, rows = net.backend, len(x)
    if step is None:
        streams = {place: stream(seed, f"noise/{place}") for place in noise or {}}
        step = JointBackpropagation(
            net, rows, path=path, noise=noise, generators=streams, **options
        )
    step.x[...], step.t[...] = backend.asarray(x, net.dtype), backend.asarray(t, net.dtype)
    gradient = backend.asarray(np.full(net.parameter_count, np.nan), net.dtype)
    step(gradient, *clock)
    return backend.to_numpy(gradient), step


def number(value: Any) -> float:
    """Return an array of one number as that number, from whatever device."""
    return float(
        np.asarray(value if isinstance(value, np.ndarray) else STRICT.to_numpy(value)).flat[0]
    )


def contract(linear: LinearMap, what: str, first: Any, second: Any, backend: Any = "cpu") -> Array:
    """Return ``forward(x, W)``, ``adjoint(y, W)`` or ``weight_gradient(x, y)`` of host arrays."""
    backend, dtype = get_backend(backend), str(first.dtype)
    shape = {
        "forward": (len(first), linear.outputs),
        "adjoint": (len(first), linear.inputs),
        "weight_gradient": linear.weight_shape,
    }[what]
    out = backend.asarray(np.full(shape, np.nan, dtype), dtype)
    arguments = backend.asarray(first, dtype), backend.asarray(second, dtype)
    getattr(linear, what)(backend, *arguments, out)
    return backend.to_numpy(out)


def arrays(linear: LinearMap, rows: int, seed: int, dtype: str = "float64") -> list[Array]:
    """Return random x, W and y."""
    g = np.random.default_rng(seed)
    shapes = (rows, linear.inputs), linear.weight_shape, (rows, linear.outputs)
    return [g.normal(size=shape).astype(dtype) for shape in shapes]


def defined(linear: LinearMap, x: Array, W: Array) -> Array:
    """Return forward(x) by the definition: sums over windows, in NumPy."""
    if isinstance(linear, Dense):
        return x @ W
    images = x.reshape(len(x), *linear.shape)
    if isinstance(linear, Reshape):
        return images.transpose(0, *(axis + 1 for axis in linear.axes)).reshape(len(x), -1)
    padding, window = (0, 0), linear.window if isinstance(linear, AveragePooling) else linear.kernel
    if isinstance(linear, Convolution):
        padding = linear.padding
    images = np.pad(images, ((0, 0), *((p, p) for p in padding), (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(images, window, axis=(1, 2))
    views = views[:, :: linear.stride[0], :: linear.stride[1]]  # rows, h, w, channels, i, j
    if isinstance(linear, AveragePooling):
        return views.mean(axis=(4, 5)).reshape(len(x), -1)
    return np.einsum("rhwcij,ijcd->rhwd", views, W).reshape(len(x), -1)


def defined_adjoint(linear: LinearMap, y: Array, W: Array) -> Array:
    """Return adjoint(y) by the definition's own matrix."""
    matrix = defined(linear, np.eye(linear.inputs, dtype=y.dtype), W)
    return y @ matrix.T
