"""PyTorch's convolutions and poolings as oracles, alone and in whole networks.

conv2d is forward, conv_transpose2d adjoint, and autograd of conv2d ∂T/∂W; no sum over pixels is
written here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from image_cases import CPU, arrays_of, joint
from near import assert_near

from nembp.engine.activations import Activation, LeakyReLU, ReLU, Tanh
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Layer, Network
from nembp.threads import threads

torch = pytest.importorskip("torch")
F = torch.nn.functional

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))


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


# -- one linear map ----------------------------------------------------------------------------
def compare(linear_map: LinearMap, rows: int, seed: int, dtype: str) -> None:
    """Compare a step's three contractions."""
    x, W, y = (value.astype(dtype) for value in arrays_of(linear_map, rows, seed))
    lower, weights, upper = (torch.tensor(value) for value in (x, W, y))
    weights.requires_grad_()
    wanted = [up(linear_map, lower, weights), down(linear_map, upper, weights)]
    if linear_map.weight_count:
        wanted += torch.autograd.grad((wanted[0] * upper).sum(), weights)
    expected = [value.detach().numpy() for value in wanted]
    found = [np.full_like(value, np.nan) for value in (y, x, W)]
    workspace = linear_map.workspace(CPU, (rows, 0), dtype, workers=2)
    workspace.load(W)
    workspace.forward(x, found[0])
    workspace.adjoint_and_gradient(x, y, found[1], found[2])
    for what, actual, value in zip(("∂T/∂y", "∂T/∂x", "∂T/∂W"), found, expected, strict=False):
        size = math.sqrt(max(x.size, y.size, W.size, 1) / len(x))
        assert_near(actual, value, TOLERANCE[dtype], what, scale=size)


LAYERS = [
    Convolution((32, 32, 3), 8, (4, 4), (2, 2), (1, 1)),  # strided, as in DCGAN
    Convolution((16, 16, 8), 16, (5, 5), (2, 2), (2, 2)),
    Convolution((12, 12, 16), 16, (3, 3), (1, 1), (1, 1)),  # as in VGG
    Convolution((7, 9, 4), 8, (3, 3), (1, 1), (0, 1)),
    Convolution((14, 14, 4), 8, (1, 1), (2, 2)),
    Convolution((6, 6, 4), 10, (6, 6)),
    Convolution((9, 11, 2), 5, (2, 5), (3, 1), (0, 4)),
    AveragePooling((7, 6, 3), (3, 2), (2, 2)),
]


@each_dtype
@pytest.mark.parametrize("linear_map", LAYERS, ids=str)
@pytest.mark.parametrize("turned", [False, True], ids=["upward", "downward"])
def test_layers_of_real_networks(linear_map, turned, dtype):
    compare(Transposed(linear_map) if turned else linear_map, 21, 5, dtype)


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
    for linear_map in maps:
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
@pytest.mark.parametrize("activation", [Tanh(), ReLU(), LeakyReLU()], ids=lambda a: a.name)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, activation, dtype):
    net = network(NETWORKS[name], activation, dtype, 3)
    g = np.random.default_rng(4)
    x = g.normal(size=(11, net.inputs)).astype(dtype)
    y = np.eye(net.outputs, dtype=dtype)[g.integers(0, net.outputs, 11)]
    flat = torch.tensor(np.asarray(net.parameters), requires_grad=True)
    values = nlls(net, flat, torch.tensor(x), torch.tensor(y))
    tolerance = 100 * TOLERANCE[dtype] if dtype == "float64" else 10 * TOLERANCE[dtype]
    for path, workers in (("samples", 1), ("classes", 3), ("none", 3)):
        sums = values[:1] if path == "none" else values
        (expected,) = torch.autograd.grad(sum(sums), flat, retain_graph=True)
        with threads(workers):
            gradient, step = joint(net, x, y, path)
        size = float(np.abs(expected.numpy()).max())
        assert_near(gradient, expected.numpy(), tolerance, f"gradient, {path}", scale=size)
        recorded = [step.forward_nll, step.backward_nll]
        for nll, value in zip(recorded, sums, strict=False):
            assert_near(nll[0, 0], value.item(), tolerance, "nll", scale=1.0 + abs(value.item()))
