"""Networks beside PyTorch, and what few networks have.

That gradients are the slopes of what they climb, on any device, the laws say (test_verify).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engines import (
    ACTIVATIONS,
    LIKELIHOODS,
    assert_close,
    batch,
    each_dtype,
    each_path,
    joint,
    random_network,
    seeds,
)
from hypothesis import given, settings
from scipy import special

from nembp.engine.backprop import (
    ClassAssignment,
    backpropagate,
    gradient,
)
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution
from nembp.engine.linear import AveragePooling, Dense, Reshape, Transposed
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError, ShapeError
from nembp.verification.laws.networks import joint_size


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", LIKELIHOODS)
@each_dtype
def test_extreme_signals_stay_finite(name, activation, dtype):
    net = dense_network([3, 4, 3], activation=activation, forward=name, dtype=dtype, seed=1)
    net.parameters[...] *= 1e4 if name != "gaussian" else 1e2
    x, t = np.array([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]), np.eye(3)[:2]
    a = net.predict(x)
    for value in (a, net.log_likelihood(x, t), *backpropagate(net, x, t)):
        assert value.dtype == np.dtype(dtype)
        assert np.isfinite(value).all()
    assert name == "gaussian" or ((a >= 0) & (a <= 1)).all()


# -- both directions -------------------------------------------------------------------------------
def test_many_more_classes_than_samples_take_a_row_for_each_sample():
    net = dense_network([3, 4, 300], dtype="float64")
    g = np.random.default_rng(0)
    for rows in (5, 400):
        x, t = g.normal(size=(rows, 3)), np.eye(300)[g.integers(0, 300, rows)]
        gradient, step = joint(net, x, t, "classes")
        assert step.path == ("samples" if rows == 5 else "classes")
        assert len(step.P[0]) <= max(2 * rows, rows + 300)
        assert_close(gradient, joint(net, x, t, "samples")[0], 1e-12, joint_size(net, x, t))


def normalized_network():
    nets = (random_network(k, ("multinomial", "gaussian"), normalized=True) for k in range(99))
    return next(net for net in nets if net.statistics_count and net.outputs > 1)


def test_groups_of_rows_are_normalized_by_themselves():
    """As the real and the generated samples of a discriminator."""
    net = normalized_network()
    g = np.random.default_rng(0)
    x, t = g.normal(size=(12, net.inputs)), np.eye(net.outputs)[g.integers(0, net.outputs, 12)]
    gradient, _ = joint(net.copy(), x, t, "none", groups=(5, 7))
    parts = [backpropagate(net, x[rows], t[rows])[0] for rows in (slice(5), slice(5, None))]
    assert_close(gradient, (5 * parts[0] + 7 * parts[1]) / 12, 1e-12, 1.0)


def test_samples_that_take_no_part_in_a_direction_are_not_counted():
    """As generated samples, which have no backward target, in a discriminator's step."""
    net = normalized_network()
    g, part = np.random.default_rng(0), [0, 2, 3, 4, 7]
    x, labels = g.normal(size=(9, net.inputs)), np.arange(9) % net.outputs
    y = np.eye(net.outputs)[labels]
    members = np.zeros((8, net.outputs))
    members[part] = y[part]
    before = net.copy()
    gradient, _ = joint(net, x, y, "classes", classes=ClassAssignment(np.eye(net.outputs), members))
    backward = backpropagate(before.reversed, y[part], x[part])[0] * len(part) / 9
    assert_close(gradient, backpropagate(before, x, y)[0] + backward, 1e-12, 1.0)
    alone = before.copy()
    joint(alone, x[part], y[part])
    half = net.statistics_count // 2
    assert_close(net.statistics[half:], alone.statistics[half:], 1e-12, 1.0)


def test_one_value_of_a_channel_has_no_variance():
    net = dense_network([3, 4, 2], normalization=BatchNormalization(), dtype="float64")
    net.biases[1][...] = [0.3, -0.1, 0.2, 0.5]
    before = net.statistics.copy()
    gradient, _ = joint(net, np.ones((1, 3)), np.eye(2)[:1])
    assert np.array_equal(net.statistics, before)
    assert not np.any(net.views(gradient).weights[0]), "it is 0 whatever the weights are"
    z = net.biases[1] * (net.biases[1] > 0) @ net.weights[1]
    assert_close(net.predict(np.ones((1, 3)), "batch")[0], special.softmax(z), 1e-12)


def test_a_gradient_that_is_not_the_one_asked_for_is_refused():
    net, x, hot = dense_network([3, 2]), np.ones((2, 3)), np.eye(2)
    for options, message in (
        ({"noise": {"target": Noise("nem")}}, "no place for noise is called 'target'"),
        ({"noise": {"backward": Noise("nem")}, "direction": "forward"}, "does nothing"),
        ({"x": x[:0], "t": hot[:0]}, "no rows"),
    ):
        with pytest.raises((ArchitectureError, ShapeError), match=message):
            gradient(net, **{"x": x, "t": hot, **options})
    with pytest.raises(ArchitectureError, match="normalization must be a BatchNormalization"):
        dense_network([3, 2, 2], normalization=True)


def test_batches_of_unequal_length_are_refused():
    net = dense_network([3, 2], dtype="float64")
    with pytest.raises(ShapeError, match="the input has 2 rows, but the target has 3"):
        gradient(net, np.ones((2, 3)), np.eye(2)[[0, 1, 0]])
    with pytest.raises(ShapeError, match="the input has 2 rows, but the target has 3"):
        backpropagate(net, np.ones((2, 3)), np.eye(2)[[0, 1, 0]])


# -- PyTorch ---------------------------------------------------------------------------------------
def torch_forward(torch: Any, linear: Any, x: Any, W: Any) -> Any:
    """Return forward(x) of a linear map in PyTorch's words; rows of images are N, H, W, C."""
    F = torch.nn.functional
    if isinstance(linear, Dense):
        return x @ W
    if isinstance(linear, Transposed):
        return torch_adjoint(torch, linear.linear_map, x, W)
    if isinstance(linear, Reshape):
        turned = x.reshape(-1, *linear.shape)
        return turned.permute(0, *(axis + 1 for axis in linear.axes or range(3))).reshape(
            len(x), -1
        )
    image = x.reshape(-1, *linear.shape).permute(0, 3, 1, 2)
    if isinstance(linear, Convolution):
        kernels = W.permute(3, 2, 0, 1).clone(memory_format=torch.contiguous_format)
        image = F.conv2d(image, kernels, None, linear.stride, linear.padding)
    else:
        assert isinstance(linear, AveragePooling)
        image = F.avg_pool2d(image, linear.window, linear.stride)
    return image.permute(0, 2, 3, 1).reshape(len(x), -1)


def torch_adjoint(torch: Any, linear: Any, y: Any, W: Any) -> Any:
    """Return adjoint(y), the transpose of forward, by autograd."""
    if isinstance(linear, Transposed):
        return torch_forward(torch, linear.linear_map, y, W)
    x = torch.zeros((len(y), linear.inputs), dtype=y.dtype, requires_grad=True)
    out = torch_forward(torch, linear, x, W)
    return torch.autograd.grad(out, x, y, create_graph=True)[0]


def torch_nll(torch: Any, net: Network, flat: Any, x: Any, t: Any) -> Any:
    """Return the mean nll of a direction, in PyTorch's words."""
    F = torch.nn.functional
    functions = {
        "relu": torch.relu,
        "leaky-relu": lambda z: F.leaky_relu(z, 0.1),
        "tanh": torch.tanh,
        "logistic": torch.sigmoid,
        "identity": lambda z: z,
    }
    place = net.views(np.arange(net.parameter_count))  # where each parameter lies in the vector
    a = x
    for k, linear in enumerate(net.maps, start=1):
        layer = net.layers[k]
        at = np.asarray(place.weights[k - 1], dtype=np.int64).reshape(-1)
        W = flat[torch.tensor(at)].reshape(linear.weight_shape)
        a = torch_forward(torch, linear, a, W)
        if layer.biases:
            bias = flat[torch.tensor(np.asarray(place.biases[k], dtype=np.int64))]
            per_channel = a.reshape(-1, layer.biases)
            if layer.normalization is not None:
                gain = flat[torch.tensor(np.asarray(place.gains[k], dtype=np.int64))]
                per_channel = F.batch_norm(
                    per_channel, None, None, gain, bias, True, 0.0, layer.normalization.epsilon
                )
            else:
                per_channel = per_channel + bias
            a = per_channel.reshape(len(x), -1)
        if layer.activation is not None:
            a = functions[layer.activation.name](a)
    likelihood = net.likelihood
    if likelihood.name == "multinomial":
        return likelihood.weight * F.cross_entropy(a, t)
    if likelihood.name == "gaussian":
        return -torch.distributions.Normal(a, likelihood.variance**0.5).log_prob(t).sum(1).mean()
    each = F.binary_cross_entropy_with_logits(a, t, reduction="none")
    return likelihood.weight * each.sum(dim=1).mean()


@pytest.fixture(scope="module")
def torch():
    found = pytest.importorskip("torch", reason="the oracle needs PyTorch, which CI installs")
    count = found.get_num_threads()
    found.set_num_threads(1)
    yield found
    found.set_num_threads(count)


@each_dtype
@each_path
@settings(max_examples=4 * settings.default.max_examples)
@given(seed=seeds)
def test_gradients_are_those_of_pytorch(torch, path, dtype, seed):
    net = random_network(seed, dtype=dtype, activation=None if dtype == "float64" else "tanh")
    x, t = batch(net, seed, labels=path == "classes")
    if len(x) == 1 or (dtype == "float32" and net.statistics_count):
        return  # PyTorch refuses one value a channel; 1/σ of a few float32 rows amplifies rounding
    kind = getattr(torch, dtype)
    flat = torch.tensor(net.parameters, dtype=kind, requires_grad=True)
    inputs, outputs = (torch.tensor(v, dtype=kind, requires_grad=True) for v in (x, t))
    forward = torch_nll(torch, net, flat, inputs, outputs)
    backward = torch_nll(torch, net.reversed, flat, outputs, inputs)
    scale = joint_size(net, x, t)
    tolerance = {"float32": 2e-5, "float64": 1e-10}[dtype]
    for way, source, target, nll, leaf in (
        (net, x, t, forward, inputs),
        (net.reversed, t, x, backward, outputs),
    ):
        log_p = way.log_likelihood(source, target, "batch")
        assert_close(-log_p.mean(), nll.item(), tolerance, scale)
        expected = torch.autograd.grad(nll, (flat, leaf), retain_graph=True)
        for ours, theirs in zip(backpropagate(way, source, target), expected, strict=True):
            assert_close(ours, theirs.numpy(), tolerance, scale)
    total = forward + (backward if path != "none" else 0.0)
    (expected,) = torch.autograd.grad(total, flat)
    assert_close(joint(net, x, t, path)[0], expected.numpy(), tolerance, scale)
