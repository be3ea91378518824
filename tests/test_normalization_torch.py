"""Batch normalization against PyTorch's own modules, in both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from near import assert_near
from normalized_networks import CHANNELS, IMAGE, TOLERANCE, batch, small

from nembp.engine.backprop import JointBackpropagation, backpropagate
from nembp.engine.network import Network
from nembp.engine.optimizers import Adam
from nembp.verification.laws import joint

torch = pytest.importorskip("torch")
F = torch.nn.functional

each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))
few = settings(max_examples=max(1, settings.default.max_examples // 2))


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Torch:
    """The same network of PyTorch's own modules: images N, C, H, W, its own BatchNorm each way."""

    def __init__(self, net: Network) -> None:
        self.net, self.kind = net, getattr(torch, net.dtype)
        kernel, *dense = (self.leaf(W) for W in net.weights)
        self.kernel, self.dense = kernel, dense  # (height, width, in, out), (in, out)
        self.up, self.down = (
            [
                self.norm(way, k, torch.nn.BatchNorm2d if way.layers[k].biases == CHANNELS else
                          torch.nn.BatchNorm1d)
                for k in (1, 2)
            ]
            for way in (net, net.reversed)
        )  # fmt: skip
        self.out, self.image = self.leaf(net.biases[-1]), self.leaf(net.reversed.biases[-1])

    def leaf(self, value: np.ndarray) -> Any:
        return torch.tensor(np.array(value), dtype=self.kind, requires_grad=True)

    def norm(self, way: Network, k: int, kind: Any) -> Any:
        settings = way.layers[k].normalization
        made = kind(way.layers[k].biases, eps=settings.epsilon, momentum=settings.momentum)
        made = made.to(self.kind)
        values = {"weight": way.gains[k], "bias": way.biases[k],
                  "running_mean": way.running[k][0], "running_var": way.running[k][1]}  # fmt: skip
        with torch.no_grad():
            for name, value in values.items():
                getattr(made, name).copy_(torch.tensor(np.array(value)))
        return made

    def train(self, mode: bool) -> Torch:
        for each in (*self.up, *self.down):
            each.train(mode)
        return self

    def forward(self, x: Any) -> Any:
        z = F.conv2d(x.reshape(-1, *IMAGE).permute(0, 3, 1, 2), self.kernel.permute(3, 2, 0, 1),
                     stride=(2, 1), padding=1)  # fmt: skip
        a = torch.tanh(self.up[0](z)).permute(0, 2, 3, 1).flatten(1)
        a = torch.tanh(self.up[1](a @ self.dense[0]))
        return a @ self.dense[1] + self.out

    def backward(self, y: Any) -> Any:
        c = torch.tanh(self.down[0](y @ self.dense[1].T))
        u = (c @ self.dense[0].T).reshape(-1, 3, 5, CHANNELS).permute(0, 3, 1, 2)
        c = torch.tanh(self.down[1](u))
        u = F.conv_transpose2d(c, self.kernel.permute(3, 2, 0, 1), stride=(2, 1), padding=1,
                               output_padding=(1, 0))  # fmt: skip
        return u.permute(0, 2, 3, 1).flatten(1) + self.image

    def nll(self, x: Any, y: Any) -> list[Any]:
        v = self.net.reversed.likelihood.variance
        log_p = torch.distributions.Normal(self.backward(y), v**0.5).log_prob(x).sum(1)
        return [F.cross_entropy(self.forward(x), y), -log_p.mean()]

    def gradient(self) -> np.ndarray:
        """Return autograd's gradient in the engine's layout."""
        tensors = [
            self.kernel, *self.dense,
            *(each.bias for each in self.up), self.out,
            self.image, *(each.bias for each in self.down[::-1]),
            *(each.weight for each in self.up), *(each.weight for each in self.down[::-1]),
        ]  # fmt: skip
        flat = [torch.zeros_like(t) if t.grad is None else t.grad for t in tensors]
        return np.concatenate([each.detach().numpy().reshape(-1) for each in flat])

    def statistics(self) -> np.ndarray:
        pairs = [(each.running_mean, each.running_var) for each in (*self.up, *self.down[::-1])]
        return np.concatenate([each.numpy() for pair in pairs for each in pair])


@each_dtype
@pytest.mark.parametrize("kinds", [{}, {"epsilon": 0.3, "momentum": 0.6}], ids=["default", "own"])
@given(seed=st.integers(0, 999), rows=st.integers(4, 20))
@few
def test_a_step_is_pytorchs(kinds, dtype, rows, seed):
    net = small(dtype, seed, **kinds)
    x, y = (each.astype(dtype) for each in batch(net, rows, seed))
    assume(np.all(y.sum(axis=0) > 0))  # a layer of the labels must have a variance
    for path in ("samples", "classes"):
        ours, theirs = net.copy(), Torch(net).train(True)
        values = theirs.nll(torch.tensor(x), torch.tensor(y))
        sum(values).backward()
        gradient, step = joint.run(ours, x, y, path)
        expected = theirs.gradient()
        assert_near(gradient, expected, TOLERANCE[dtype], "joint gradient", scale=1.0)
        statistics = theirs.statistics()
        assert_near(ours.statistics, statistics, TOLERANCE[dtype], "running statistics", scale=1.0)
        for nll, value in zip((step.forward_nll, step.backward_nll), values, strict=True):
            assert_near(nll[0, 0], value.item(), TOLERANCE[dtype], "nll", scale=100.0)


@pytest.mark.parametrize("mode", ["batch", "running"])
@each_dtype
def test_one_direction_by_either_statistics_is_pytorchs(dtype, mode):
    net = small(dtype)
    x, y = (each.astype(dtype) for each in batch(net))
    for which, (way, source, target) in enumerate(((net, x, y), (net.reversed, y, x))):
        theirs = Torch(net).train(mode == "batch")
        inputs = [torch.tensor(x), torch.tensor(y)]
        inputs[which].requires_grad_()
        theirs.nll(*inputs)[which].backward()
        kept = net.statistics.copy()
        gradient, error = backpropagate(way, source, target, statistics=mode)
        assert np.array_equal(net.statistics, kept)
        expected = inputs[which].grad.numpy()
        assert_near(gradient, theirs.gradient(), TOLERANCE[dtype], "gradient", scale=1.0)
        assert_near(error, expected, TOLERANCE[dtype], "input error", scale=1.0)
        with torch.no_grad():
            z = theirs.forward(inputs[0]) if which == 0 else theirs.backward(inputs[1])
            a = (torch.softmax(z, 1) if which == 0 else z).numpy()
        assert_near(way.predict(source, mode), a, TOLERANCE[dtype], "prediction", scale=1.0)


def test_a_training_by_adam_is_pytorchs():
    net, rows = small(), 40
    x, y = batch(net, 5 * rows, 7)
    theirs = Torch(net).train(True)
    tensors = [theirs.kernel, *theirs.dense, theirs.out, theirs.image]
    tensors += [t for each in (*theirs.up, *theirs.down) for t in (each.weight, each.bias)]
    optimizer, ours = torch.optim.Adam(tensors, lr=0.01), Adam(0.01)
    gradient = ours.bind(net)
    step = JointBackpropagation(net, rows, path="classes")
    for start in range(0, len(x), rows):
        step.x[...], step.t[...] = x[start : start + rows], y[start : start + rows]
        step(gradient)
        ours.step()
        optimizer.zero_grad()
        sum(theirs.nll(torch.tensor(step.x), torch.tensor(step.t))).backward()
        optimizer.step()
    assert_near(net.statistics, theirs.statistics(), 1e-8, "statistics", scale=1.0)
    with torch.no_grad():
        theirs.train(False)
        z = torch.softmax(theirs.forward(torch.tensor(x)), 1).numpy()
        u = theirs.backward(torch.tensor(y)).numpy()
    assert_near(net.predict(x), z, 1e-8, "classes", scale=1.0)
    assert_near(net.reversed.predict(y), u, 1e-8, "images", scale=1.0)
