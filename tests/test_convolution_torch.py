"""PyTorch's convolutions and poolings as oracles, alone and in whole networks.

conv2d is forward, conv_transpose2d adjoint, and autograd of conv2d ∂T/∂W; no sum over pixels is
written here.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from near import assert_near
from nembp.verification.laws.links import all_workspaces
from strategies import SYNAPSES, seeds

from nembp.backend import get_backend
from nembp.engine.activations import Activation, LeakyReLU, ReLU, Tanh
from nembp.engine.backprop import backpropagate
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Layer, Network
from nembp.threads import threads
from nembp.verification.laws.joint import run

torch = pytest.importorskip("torch")
F = torch.nn.functional

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
CPU = get_backend("cpu")
each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))
many = settings(max_examples=3 * settings.default.max_examples)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


# -- in torch's words --------------------------------------------------------------------------
def images(rows: Any, shape: tuple[int, ...]) -> Any:
    """N H W C rows as N C H W images."""
    return rows.reshape(-1, *shape).permute(0, 3, 1, 2)


def rows_of(batch: Any) -> Any:
    return batch.permute(0, 2, 3, 1).reshape(batch.shape[0], -1)


def kernels(W: Any) -> Any:
    """Kernels (height, width, in, out) as (out, in, height, width)."""
    return W.permute(3, 2, 0, 1).clone(memory_format=torch.contiguous_format)


def up(linear_map: LinearMap, x: Any, W: Any) -> Any:
    """forward(x) of a linear_map."""
    if isinstance(linear_map, Transposed):
        return down(linear_map.linear_map, x, W)
    if isinstance(linear_map, Dense):
        return x @ W
    if isinstance(linear_map, Convolution):
        done = F.conv2d(
            images(x, linear_map.shape), kernels(W), None, linear_map.stride, linear_map.padding
        )
        return rows_of(done)
    if isinstance(linear_map, AveragePooling):
        return rows_of(
            F.avg_pool2d(images(x, linear_map.shape), linear_map.window, linear_map.stride)
        )
    axes = linear_map.axes or tuple(range(len(linear_map.shape)))
    turned = x.reshape(-1, *linear_map.shape).permute(0, *(axis + 1 for axis in axes))
    return turned.reshape(len(x), -1)


def down(linear_map: LinearMap, y: Any, W: Any) -> Any:
    """adjoint(y) of a linear map; by conv_transpose2d, the rest by autograd of forward."""
    if isinstance(linear_map, Transposed):
        return up(linear_map.linear_map, y, W)
    if isinstance(linear_map, Dense):
        return y @ W.T
    if isinstance(linear_map, Convolution):
        over = [
            (size + 2 * p - k) % s
            for size, p, k, s in zip(
                linear_map.shape,
                linear_map.padding,
                linear_map.kernel,
                linear_map.stride,
                strict=False,
            )
        ]  # pixels that the stride leaves over
        upper = images(y, linear_map.output_shape)
        options = {
            "stride": linear_map.stride,
            "padding": linear_map.padding,
            "output_padding": over,
        }
        return rows_of(F.conv_transpose2d(upper, kernels(W), None, **options))
    x = torch.zeros((len(y), linear_map.inputs), dtype=y.dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(up(linear_map, x, W), x, y, create_graph=True)
    return gradient


# -- one linear map -------------------------------------------------------------------------------
def compare(linear_map: LinearMap, rows: int, seed: int, dtype: str) -> None:
    """Compare all three contractions, of the linear map and of every link it can have."""
    g = np.random.default_rng(seed)
    shapes = (rows, linear_map.inputs), linear_map.weight_shape, (rows, linear_map.outputs)
    x, W, y = (g.normal(size=shape).astype(dtype) for shape in shapes)
    lower, weights, upper = (torch.tensor(value) for value in (x, W, y))
    weights.requires_grad_()
    wanted = [up(linear_map, lower, weights), down(linear_map, upper, weights)]
    if linear_map.weight_count:
        wanted += torch.autograd.grad((wanted[0] * upper).sum(), weights)
    expected = [value.detach().numpy() for value in wanted]
    outs = [np.full(value.shape, np.nan, dtype) for value in expected]
    linear_map.forward(CPU, x, W, outs[0])
    linear_map.adjoint(CPU, y, W, outs[1])
    if linear_map.weight_count:
        linear_map.weight_gradient(CPU, x, y, outs[2])
    found = [("synapse", outs)]
    for name, work in all_workspaces(linear_map, CPU, (rows, 0), dtype, workers=2, seed=seed):
        outs = [np.full_like(value, np.nan) for value in expected]
        work.load(W)
        work.forward(x, outs[0])
        gradient = outs[2] if len(outs) > 2 else np.zeros(0, dtype)
        work.adjoint_and_gradient(x, y, outs[1], gradient)
        found.append((name, outs))
    for name, outs in found:
        for what, actual, value in zip(("∂T/∂y", "∂T/∂x", "∂T/∂W"), outs, expected, strict=False):
            assert actual.dtype == np.dtype(dtype)
            size = math.sqrt(max(x.size, y.size, W.size, 1) / len(x))
            assert_near(actual, value, TOLERANCE[dtype], f"{name} {what}", scale=size)


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    """Draw larger ones than the laws do: to 9 pixels a side, 5 channels, kernels to 5."""
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 5)))
    padding = (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    kernel = [draw(st.integers(1, min(5, n + 2 * p))) for n, p in zip(shape, padding, strict=False)]
    stride = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    return Convolution(shape, draw(st.integers(1, 6)), (kernel[0], kernel[1]), stride, padding)


@each_dtype
@many
@given(linear_map=convolutions(), rows=st.integers(1, 6), seed=seeds)
def test_convolutions(dtype, linear_map, rows, seed):
    compare(linear_map, rows, seed, dtype)
    compare(Transposed(linear_map), rows, seed, dtype)


@each_dtype
@pytest.mark.parametrize("kind", [AveragePooling, Reshape, Transposed])
@given(data=st.data(), rows=st.integers(1, 6), seed=seeds)
def test_other_maps(kind, dtype, data, rows, seed):
    compare(data.draw(SYNAPSES[kind]), rows, seed, dtype)


LAYERS = [
    Convolution((32, 32, 3), 8, (4, 4), (2, 2), (1, 1)),  # strided, as in DCGAN
    Convolution((16, 16, 8), 16, (5, 5), (2, 2), (2, 2)),
    Convolution((12, 12, 16), 16, (3, 3), (1, 1), (1, 1)),  # as in VGG
    Convolution((7, 9, 4), 8, (3, 3), (1, 1), (0, 1)),
    Convolution((14, 14, 4), 8, (1, 1), (2, 2)),
    Convolution((6, 6, 4), 10, (6, 6)),
    Convolution((9, 11, 2), 5, (2, 5), (3, 1), (0, 4)),
]


@each_dtype
@pytest.mark.parametrize("linear_map", LAYERS, ids=str)
@pytest.mark.parametrize("turned", [False, True], ids=["upward", "downward"])
def test_layers_of_real_networks(linear_map, turned, dtype):
    compare(Transposed(linear_map) if turned else linear_map, 21, 5, dtype)


@each_dtype
@given(
    upper=st.tuples(*[st.integers(1, 4)] * 3),
    window=st.tuples(*[st.integers(1, 3)] * 2),
    seed=seeds,
)
def test_upsampling_by_pooling(dtype, upper, window, seed):
    """The adjoint of pooling without overlap is nearest-neighbour upsampling, divided."""
    shape = (upper[0] * window[0], upper[1] * window[1], upper[2])
    linear_map = AveragePooling(shape, window, window)
    y = np.random.default_rng(seed).normal(size=(2, linear_map.outputs)).astype(dtype)
    out = np.full((2, linear_map.inputs), np.nan, dtype)
    linear_map.adjoint(CPU, y, np.zeros(0, dtype), out)
    large = F.interpolate(
        images(torch.tensor(y), linear_map.output_shape), scale_factor=linear_map.window
    )
    expected = rows_of(large).numpy() / math.prod(linear_map.window)
    assert_near(out, expected, TOLERANCE[dtype], "upsampled", scale=1.0)


# -- whole networks ----------------------------------------------------------------------------
FUNCTIONS = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky-relu": lambda z: F.leaky_relu(z, 0.1),
}
HALF = Convolution((8, 6, 2), 4, (4, 4), (2, 2), (1, 1))
SAME = Convolution((4, 3, 4), 4, (3, 3), (1, 1), (1, 1))
NETWORKS = {
    "convolution, pooling, dense": (HALF, SAME, AveragePooling((4, 3, 4), (2, 3), (2, 1)), 5),
    "reshape between": (HALF, Reshape((4, 3, 4), (2, 0, 1)), 3),
    "up and down again": (HALF, Transposed(Convolution((8, 6, 3), 4, (4, 4), (2, 2), (1, 1))), 4),
    "a convolution to the end": (HALF, SAME),
    "one convolution": (HALF,),
}


def network(parts: tuple[Any, ...], activation: Activation, dtype: str, seed: int) -> Network:
    """Return a network of these parts, a number being a dense linear map to so many neurons.

    Images share their biases by channel, maps without weights are linear and have none.
    """
    maps: list[LinearMap] = []
    for part in parts:
        maps.append(Dense(maps[-1].outputs, part) if isinstance(part, int) else part)
    layers = [Layer(maps[0].inputs)]
    for linear_map, _ in pairwise([*maps, None]):
        below = linear_map.linear_map if isinstance(linear_map, Transposed) else linear_map
        if isinstance(below, (AveragePooling, Reshape)):
            layers.append(Layer(linear_map.outputs, None, 0))
        elif isinstance(below, Convolution):
            channels = below.channels if below is linear_map else below.shape[2]
            layers.append(Layer(linear_map.outputs, activation, channels))
        else:
            layers.append(Layer(linear_map.outputs, activation))
    layers[-1] = Layer(maps[-1].outputs)
    net = Network(layers, maps, Multinomial(1.5), Gaussian(0.8), dtype=dtype, seed=None)
    net.parameters[...] = np.random.default_rng(seed).normal(0.0, 0.3, net.parameter_count)
    return net


def nlls(net: Network, flat: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """Return both directions' mean negative log-likelihoods, in torch's own words."""
    position, weights = 0, []
    for linear_map in net.maps:
        piece = flat[position : position + linear_map.weight_count]
        weights.append(piece.reshape(linear_map.weight_shape))
        position += linear_map.weight_count
    biases: list[list[Any]] = []
    for layers in (net.layers[1:], net.layers[:-1]):
        biases.append([])
        for layer in layers:
            shared = flat[position : position + layer.biases]
            count = layer.size // layer.biases if layer.biases else 0
            biases[-1].append(shared.repeat(count) if count else 0.0)  # one a channel, N H W C
            position += layer.biases
    assert position == flat.shape[0]

    def f(layer: Layer, z: Any) -> Any:
        return z if layer.activation is None else FUNCTIONS[layer.activation.name](z)

    a, c = x, y
    for linear_map, W, b, layer in zip(net.maps, weights, biases[0], net.layers[1:], strict=True):
        a = f(layer, up(linear_map, a, W) + b)
    steps = zip(net.maps, weights, biases[1], net.layers[:-1], strict=True)
    for linear_map, W, d, layer in reversed(list(steps)):
        c = f(layer, down(linear_map, c, W) + d)
    forward = net.likelihood.weight * F.cross_entropy(a, y)
    law = torch.distributions.Normal(c, net.reversed.likelihood.variance**0.5)
    return forward, -law.log_prob(x).sum(dim=1).mean()


@each_dtype
@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("path", ["samples", "classes", "none"])
@pytest.mark.parametrize("activation", [Tanh(), ReLU(), LeakyReLU()], ids=lambda a: a.name)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, activation, path, lanes, dtype):
    net = network(NETWORKS[name], activation, dtype, 3)
    g = np.random.default_rng(4)
    x = g.normal(size=(11, net.inputs)).astype(dtype)
    y = np.eye(net.outputs, dtype=dtype)[g.integers(0, net.outputs, 11)]
    flat = torch.tensor(np.asarray(net.parameters), requires_grad=True)
    values = nlls(net, flat, torch.tensor(x), torch.tensor(y))
    sums = values[:1] if path == "none" else values
    (expected,) = torch.autograd.grad(sum(sums), flat, retain_graph=True)
    with threads(lanes):
        gradient, step = run(net, x, y, path)
    size = float(np.abs(expected.numpy()).max())
    tolerance = 100 * TOLERANCE[dtype] if dtype == "float64" else 10 * TOLERANCE[dtype]
    assert_near(gradient, expected.numpy(), tolerance, "joint gradient", scale=size)
    recorded = [step.forward_nll, step.backward_nll][: len(sums)]
    for mine, value, net_seen, ends in zip(
        recorded, sums, (net, net.reversed), ((x, y), (y, x)), strict=False
    ):
        assert_near(mine[0, 0], value.item(), tolerance, "nll", scale=1.0 + abs(value.item()))
        (one,) = torch.autograd.grad(value, flat, retain_graph=True)
        found = backpropagate(net_seen, *ends)[0]
        assert_near(found, one.numpy(), tolerance, "gradient of one direction", scale=size)
