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
    each_dtype,
    each_path,
    joint,
    random_network,
    seeds,
    targets,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from nembp.engine.backprop import ClassAssignment, backpropagate, gradient
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import get_likelihood
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError, ShapeError
from nembp.verification.laws import joint_size


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
        ({"path": "none"}, "path must be one of samples, classes"),
        ({"path": "classes", "t": hot / 2}, "takes one-hot rows"),
    ):
        with pytest.raises((ArchitectureError, ShapeError), match=message):
            gradient(net, **{"x": x, "t": hot, **options})
    with pytest.raises(ShapeError, match="input has no rows"):
        net.predict(x[:0])
    for call in (gradient, backpropagate):
        with pytest.raises(ShapeError, match="the input has 2 rows, but the target has 3"):
            call(net, x, hot[[0, 1, 0]])


def test_the_gradient_is_the_same_by_samples_and_by_classes():
    net, labels = dense_network([3, 5, 2], dtype="float64"), np.arange(7) % 2
    batch = np.random.default_rng(0).normal(size=(7, 3)), np.eye(2)[labels]
    (nll, by_samples), (same, by_classes) = (
        gradient(net, *batch, path=path) for path in ("samples", "classes")
    )
    assert_close(by_classes, by_samples, 1e-12)
    assert nll == pytest.approx(same, rel=1e-12)


# -- PyTorch (convolutions beside it are in test_benchmarks) ---------------------------------------
def torch_nll(torch: Any, net: Network, flat: Any, x: Any, t: Any) -> Any:
    """Return the mean nll of a direction of dense maps, in PyTorch's words."""
    F = torch.nn.functional
    functions = {
        "relu": torch.relu,
        "leaky-relu": lambda z: F.leaky_relu(z, 0.1),
        "tanh": torch.tanh,
        "logistic": torch.sigmoid,
        "identity": lambda z: z,
    }
    place = net.views(np.arange(net.parameter_count))  # where each parameter lies in the vector

    def take(places: Any) -> Any:
        return flat[torch.tensor(np.ascontiguousarray(places).reshape(-1))].reshape(places.shape)

    a = x
    for k, layer in enumerate(net.layers[1:], start=1):
        W, bias = place.weights[k - 1], take(place.biases[k])
        a = a @ take(W if net.direction == "forward" else W.T)
        if layer.normalization is not None:
            gain, epsilon = take(place.gains[k]), layer.normalization.epsilon
            a = F.batch_norm(a, None, None, gain, bias, True, 0.0, epsilon)
        else:
            a = a + bias
        a = a if layer.activation is None else functions[layer.activation.name](a)
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


@each_path
@pytest.mark.parametrize("activation", ACTIVATIONS)
@given(
    seed=seeds, sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4), rows=st.integers(2, 5),
    ends=st.tuples(st.sampled_from(LIKELIHOODS), st.sampled_from(LIKELIHOODS)), normal=st.booleans(),
)  # fmt: skip
def test_gradients_are_those_of_pytorch(torch, path, activation, seed, sizes, rows, ends, normal):
    g = np.random.default_rng(seed)
    ends = [get_likelihood(end, g.uniform(0.2, 3.0)) for end in ends]
    options = {"normalization": BatchNormalization() if normal else None, "dtype": "float64"}
    net = dense_network(sizes, activation=activation, forward=ends[0], backward=ends[1], **options)
    net.parameters[...] = g.normal(0.0, 0.6, net.parameter_count)
    x, t = (targets(ends[k], g, rows, sizes[k - 1]) for k in (1, 0))
    t = np.eye(sizes[-1])[g.integers(0, sizes[-1], rows)] if path == "classes" else t
    flat = torch.tensor(net.parameters, requires_grad=True)
    inputs, outputs = (torch.tensor(v, requires_grad=True) for v in (x, t))
    total, scale = 0.0, joint_size(net, x, t)
    for way, source, target in ((net, inputs, outputs), (net.reversed, outputs, inputs)):
        nll, given_arrays = torch_nll(torch, way, flat, source, target), (x, t)
        given_arrays = given_arrays if way is net else given_arrays[::-1]
        log_p = way.log_likelihood(*given_arrays, "batch")
        assert_close(-log_p.mean(), nll.item(), 1e-10, scale)
        expected = torch.autograd.grad(nll, (flat, source), retain_graph=True)
        for ours, theirs in zip(backpropagate(way, *given_arrays), expected, strict=True):
            assert_close(ours, theirs.numpy(), 1e-10, scale)
        total = total + nll if way is net or path != "none" else total
    (expected,) = torch.autograd.grad(total, flat)
    assert_close(joint(net, x, t, path)[0], expected.numpy(), 1e-10, scale)
