"""Gradients of random networks: slopes, both directions at once, PyTorch, a second device."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from engines import (
    ACTIVATIONS,
    LIKELIHOODS,
    STRICT,
    assert_close,
    batch,
    each_dtype,
    each_pair,
    each_path,
    joint,
    number,
    random_network,
    seeds,
    size_of_errors,
    targets,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from nembp.engine.backprop import (
    ClassAssignment,
    CycleBackpropagation,
    backpropagate,
    joint_gradient,
)
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import get_likelihood
from nembp.engine.linear import AveragePooling, Dense, Reshape, Transposed
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.errors import ShapeError

SMOOTH = "tanh", "logistic", "identity"
few = settings(max_examples=max(1, settings.default.max_examples // 3))  # of each of many
H = 1e-30  # of complex steps, which have no rounding of differences


# -- likelihoods, at the output of a network that is the identity ----------------------------------
def identity(likelihood: Any, width: int, dtype: str = "float64") -> Network:
    """Return a network of z = x, so that its output shows the likelihood alone."""
    net = dense_network([width, width], forward=likelihood, dtype=dtype)
    net.parameters[...] = 0.0
    net.weights[0][...] = np.eye(width)
    return net


@pytest.mark.parametrize("name", LIKELIHOODS)
@given(seed=seeds, weight=st.sampled_from([0.2, 1.0, 5.0]))
def test_likelihoods_are_those_of_scipy(name, seed, weight):
    g = np.random.default_rng(seed)
    rows, width = g.integers(1, 6, 2)
    likelihood = get_likelihood(name, weight)
    z = g.normal(0.0, 2.0, (rows, width))
    t = targets(likelihood, g, rows, width)
    net = identity(likelihood, width)
    a, found = net.predict(z), net.log_likelihood(z, t)
    if name == "multinomial":
        expected, log_p = special.softmax(z, axis=1), weight * (t * special.log_softmax(z, axis=1))
    elif name == "bernoulli":
        expected = special.expit(z)
        log_p = weight * (t * special.log_expit(z) + (1 - t) * special.log_expit(-z))
    else:
        expected, log_p = z, stats.norm.logpdf(t, z, 1 / math.sqrt(weight))
    assert_close(a, expected, 1e-13, 1.0)
    assert_close(found, log_p.sum(axis=1), 1e-13, 1.0)
    # the classical update: error = a − t, times the precision or the tempering power
    error = backpropagate(net, z, t)[1] * rows
    assert_close(error, weight * (a - t), 1e-13, weight)


@given(seed=seeds)
def test_errors_of_softmax_targets_that_do_not_sum_to_one(seed):
    g = np.random.default_rng(seed)
    z, t = g.normal(size=(2, 4, 3))
    net = identity("multinomial", 3)
    a = net.predict(z)
    assert_close(backpropagate(net, z, t)[1] * 4, a * t.sum(axis=1, keepdims=True) - t, 1e-13, 1.0)


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


# -- one direction ---------------------------------------------------------------------------------
def slope(net: Network, x: Any, t: Any, theta: Any, dx: Any, statistics: Any) -> float:
    """Return the slope of the mean nll along a direction, by a complex step."""
    other = net.to(dtype="complex128")
    other.parameters[...] = net.parameters + 1j * H * theta
    nll = -other.log_likelihood(x + 1j * H * dx, t + 0j, statistics).mean()
    return float(nll.imag) / H


@pytest.mark.parametrize("activation", SMOOTH)
@each_pair
@few
@given(seed=seeds, statistics=st.sampled_from(["batch", "running"]))
def test_gradient_is_the_slope_of_the_nll_in_both_directions(pair, activation, seed, statistics):
    net = random_network(seed, pair, activation=activation)
    x, t = batch(net, seed)
    g = np.random.default_rng(seed)
    kept = net.statistics.copy()
    for way, source, target in ((net, x, t), (net.reversed, t, x)):
        gradient, error = backpropagate(way, source, target, statistics=statistics)
        for theta, dx in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
            direction = theta * g.normal(size=net.parameter_count)
            shift = dx * g.normal(size=source.shape)
            expected = slope(way, source, target, direction, shift, statistics)
            found = gradient @ direction + (error * shift).sum()
            scale = size_of_errors(net, x, t) * math.sqrt(net.parameter_count + source.size)
            assert_close(found, expected, 1e-11, scale)
    assert np.array_equal(net.statistics, kept)


@each_pair
@given(seed=seeds)
def test_gradients_at_kinks_are_central_differences_beside_them(pair, seed):
    for activation in ("relu", "leaky-relu"):
        net = random_network(seed, pair, activation=activation, normalized=False)
        x, t = batch(net, seed)
        direction = np.random.default_rng(seed).normal(size=net.parameter_count)
        values = []
        for step in (-2e-6, -1e-6, 1e-6, 2e-6):
            other = net.copy()
            other.parameters[...] += step * direction
            values.append(-other.log_likelihood(x, t).mean())
        near, far = (values[2] - values[1]) / 2e-6, (values[3] - values[0]) / 4e-6
        scale = size_of_errors(net, x, t) * math.sqrt(net.parameter_count)
        if abs(near - far) < 1e-6 * scale:  # else a kink lies between
            assert_close(backpropagate(net, x, t)[0] @ direction, near, 1e-5, scale)


# -- both directions -------------------------------------------------------------------------------
@each_path
@each_pair
@given(seed=seeds)
def test_joint_gradient_is_the_sum_of_both_directions(pair, path, seed):
    net = random_network(seed, pair)
    x, t = batch(net, seed, labels=path == "classes")
    scale = size_of_errors(net, x, t)
    forward, backward = backpropagate(net, x, t)[0], backpropagate(net.reversed, t, x)[0]
    nll = -net.log_likelihood(x, t, "batch").mean()
    backward_nll = -net.reversed.log_likelihood(t, x, "batch").mean()
    gradient, step = joint(net, x, t, path)
    assert_close(gradient, forward + (path != "none") * backward, 1e-12, scale)
    size = scale * (1.0 + float((x * x).sum()))  # squares cancel in the sums of classes
    assert_close(number(step.forward_nll), nll, 1e-12, size)
    if path != "none":
        assert_close(number(step.backward_nll), backward_nll, 1e-12, size)
    if path == "samples":
        assert_close(joint_gradient(net, x, t), forward + backward, 1e-12, scale)


def test_many_more_classes_than_samples_take_a_row_for_each_sample():
    net = dense_network([3, 4, 300], dtype="float64")
    g = np.random.default_rng(0)
    for rows in (5, 400):
        x, t = g.normal(size=(rows, 3)), np.eye(300)[g.integers(0, 300, rows)]
        gradient, step = joint(net, x, t, "classes")
        assert step.path == ("samples" if rows == 5 else "classes")
        assert len(step.P[0]) <= max(2 * rows, rows + 300)
        assert_close(gradient, joint(net, x, t, "samples")[0], 1e-12, size_of_errors(net, x, t))


@each_path
@given(seed=seeds)
def test_steps_do_not_remember(path, seed):
    net = random_network(seed)
    x, t = batch(net, seed, labels=path == "classes")
    noise = {"forward": Noise("nem"), **({} if path == "none" else {"backward": Noise("blind")})}
    for each in (None, noise):
        first, step = joint(net, x, t, path, each)
        joint(net, x[::-1] + 1.0, t[::-1], path, step=step)
        other, fresh = joint(net, x, t, path, each, seed=0)
        if each is None:
            again, _ = joint(net, x, t, path, step=step)
            assert np.array_equal(first, again)
        assert np.array_equal(first, other)
        assert fresh is not step


@given(seed=seeds)
def test_both_paths_move_the_same_running_statistics(seed):
    moved = []
    for path in ("samples", "classes"):
        net = random_network(seed, normalized=True)
        joint(net, *batch(net, seed, labels=True), path)
        moved.append(net.statistics)
    assert_close(moved[1], moved[0], 1e-11, 1.0)


def test_running_statistics_are_moving_averages_of_the_batches():
    net = dense_network(
        [3, 4, 2], normalization=BatchNormalization(momentum=0.25), dtype="float64", seed=2
    )
    x, t = np.random.default_rng(0).normal(size=(9, 3)), np.eye(2)[[0, 1] * 4 + [0]]
    joint(net, x, t)
    z = x @ net.weights[0]
    mean, variance = net.running[1]
    assert_close(mean, 0.25 * z.mean(axis=0), 1e-13)
    assert_close(variance, 0.75 + 0.25 * z.var(axis=0, ddof=1), 1e-13)


def test_groups_of_rows_are_normalized_by_themselves():
    """As the real and the generated samples of a discriminator."""
    net = random_network(3, ("multinomial", "gaussian"), normalized=True)
    while not net.statistics_count or len(net.maps) < 2:
        net = random_network(net.parameter_count, ("multinomial", "gaussian"), normalized=True)
    g = np.random.default_rng(0)
    x, t = g.normal(size=(12, net.inputs)), np.eye(net.outputs)[g.integers(0, net.outputs, 12)]
    gradient, _ = joint(net.copy(), x, t, "none", groups=(5, 7))
    parts = [backpropagate(net, x[rows], t[rows])[0] for rows in (slice(5), slice(5, None))]
    assert_close(gradient, (5 * parts[0] + 7 * parts[1]) / 12, 1e-12, 1.0)


def test_samples_that_take_no_part_in_a_direction_are_not_counted():
    """As generated samples, which have no backward target, in a discriminator's step."""
    net = random_network(8, ("multinomial", "gaussian"), normalized=True)
    assert net.statistics_count
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


def test_batches_of_unequal_length_are_refused():
    net = dense_network([3, 2], dtype="float64")
    with pytest.raises(ShapeError, match="the input has 2 rows, but the target has 3"):
        joint_gradient(net, np.ones((2, 3)), np.eye(2)[[0, 1, 0]])
    with pytest.raises(ShapeError, match="the input has 2 rows, but the target has 3"):
        backpropagate(net, np.ones((2, 3)), np.eye(2)[[0, 1, 0]])


# -- a generator, whose own output goes back -------------------------------------------------------
@pytest.mark.parametrize("flow", [False, True], ids=["held", "flow"])
@pytest.mark.parametrize("bidirectional", [True, False])
@each_pair
@few
@given(seed=seeds)
def test_gradient_of_a_generator(pair, bidirectional, flow, seed):
    net = random_network(seed, pair, activation="tanh")
    g = np.random.default_rng(seed)
    rows = int(g.integers(1, 6))
    z = targets(net.reversed.likelihood, g, rows, net.inputs)
    error = g.normal(size=(rows, net.outputs))
    step = CycleBackpropagation(net, rows, bidirectional=bidirectional, flow=flow)
    step.z[...] = z
    made = step.run().copy()
    assert_close(made, net.predict(z, "batch"), 1e-12, 1.0)
    gradient = np.full(net.parameter_count, np.nan)
    step(gradient, error)
    direction = g.normal(size=net.parameter_count)
    other = net.to(dtype="complex128")
    other.parameters[...] = net.parameters + 1j * H * direction
    x = other.predict(z + 0j, "batch")
    value = (error * x).sum()
    if bidirectional:
        value -= other.reversed.log_likelihood(x if flow else made + 0j, z + 0j, "batch").mean()
    scale = size_of_errors(net, z, made) * math.sqrt(net.parameter_count) * (1 + abs(made).max())
    assert_close(gradient @ direction, value.imag / H, 1e-10, scale)


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
        return turned.permute(0, *(axis + 1 for axis in linear.axes)).reshape(len(x), -1)
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
    scale = size_of_errors(net, x, t)
    tolerance = {"float32": 2e-5, "float64": 1e-10}[dtype]
    for way, source, target, nll, leaf in (
        (net, x, t, forward, inputs),
        (net.reversed, t, x, backward, outputs),
    ):
        expected = torch.autograd.grad(nll, (flat, leaf), retain_graph=True)
        for ours, theirs in zip(backpropagate(way, source, target), expected, strict=True):
            assert_close(ours, theirs.numpy(), tolerance, scale)
    total = forward + (backward if path != "none" else 0.0)
    (expected,) = torch.autograd.grad(total, flat)
    assert_close(joint(net, x, t, path)[0], expected.numpy(), tolerance, scale)


# -- a second device -------------------------------------------------------------------------------
def host(value: Any) -> Any:
    """Copy a result to the host, after making sure that it was not there already."""
    assert not isinstance(value, np.ndarray)
    assert value.device == STRICT.device
    return STRICT.to_numpy(value)


def test_the_device_refuses_silent_copies():
    a = STRICT.ones((2, 2), "float32")
    for copies in (np.asarray, np.tanh, lambda a: a + np.ones((2, 2))):
        with pytest.raises((RuntimeError, TypeError, ValueError)):
            copies(a)


@each_pair
@few
@given(seed=seeds)
def test_predictions_and_gradients_on_another_device(pair, seed):
    ours, theirs = (random_network(seed, pair, device=d) for d in ("cpu", STRICT))
    x, t = batch(ours, seed)
    scale, tolerance = size_of_errors(ours, x, t), 1e-11
    scale *= 10.0 if ours.statistics_count else 1.0
    for mine, other, a, b in ((ours, theirs, x, t), (ours.reversed, theirs.reversed, t, x)):
        assert_close(host(other.predict(a)), mine.predict(a), tolerance, scale)
        assert_close(
            host(other.log_likelihood(a, b)), mine.log_likelihood(a, b), tolerance, 10 * scale
        )
    expected = backpropagate(ours, x, t)
    for found, value in zip(backpropagate(theirs, x, t), expected, strict=True):
        assert_close(host(found), value, tolerance, scale)
    assert_close(host(joint_gradient(theirs, x, t)), joint_gradient(ours, x, t), tolerance, scale)


@each_path
@pytest.mark.parametrize("kind", ["none", "nem", "blind", "anti", "drift"])
@few
@given(seed=seeds)
def test_steps_with_noise_on_another_device(kind, path, seed):
    """Noise drawn on the host is the same there, and is screened alike."""
    nets = [random_network(seed, activation="tanh", device=d) for d in ("cpu", STRICT)]
    x, t = batch(nets[0], seed, labels=path == "classes")
    places = ["forward"] if path == "none" else ["forward", "backward"]
    noise = {place: Noise(kind, std=0.3) for place in places}
    (ours, mine), (theirs, other) = (joint(net, x, t, path, noise) for net in nets)
    scale = 10.0 * size_of_errors(nets[0], x, t)
    assert_close(theirs, ours, 1e-11, scale)
    for place, source in mine.sources.items():
        assert_close(number(other.sources[place].gain), number(source.gain), 1e-11, scale)
        assert number(other.sources[place].accepted) == pytest.approx(number(source.accepted))
    assert host(other.forward_nll).shape == (1, 1)
