"""check_network and check_backprop_invariance: mistakes planted in the engine, told by name."""

from __future__ import annotations

import numpy as np
import pytest
from test_verification_networks import batch, small

from nembp.engine import backprop as backpropagation
from nembp.engine.activations import Tanh
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.linear import Dense
from nembp.engine.network import Network
from nembp.errors import VerificationError
from nembp.verification import check_backprop_invariance, check_network, networks


def wrap(owner, name, change):
    """Return (owner, name, replacement) of a function that ``change`` wraps."""
    original = getattr(owner, name)
    return owner, name, lambda *args, **options: change(original, *args, **options)


def sign_of_error(original, self, o, t, out, **options):
    original(self, o, t, out, **options)
    out *= -1


def no_precision(original, self, o, t, out, **options):
    original(self, o, t, out, **options)
    out *= self.variance


def sums_over_rows(original, self, o, t, out, **options):
    options["factor"] = 1.0
    original(self, o, t, out, **options)


def transposed_weights(original, self, backend, x, y, out):
    original(self, backend, x, y, out)
    if out.shape[0] == out.shape[1]:
        out[...] = out.T.copy()


def adjoint_of_square(original, self, backend, y, W, out):
    original(self, backend, y, W.T.copy() if W.shape[0] == W.shape[1] else W, out)


def no_derivative(original, self, backend, error, a, scratch):
    pass


def one_weight(original, self, backend, x, y, out):
    original(self, backend, x, y, out)
    out[0, 1] *= 1.001


def accumulates(original, self, backend, x, y, out):
    before = np.nan_to_num(np.array(out))
    original(self, backend, x, y, out)
    out += before


def first_batch_kept(original, self, *args, **options):
    if not hasattr(self, "kept"):
        self.kept = np.array(self.x)
    original(self, *args, **options)
    self.x[...] = self.kept  # the gradient of the weights reads it after the sweeps


def backward_biases_unwritten(original, self, gradient, *args, **options):
    before = np.array(gradient)
    original(self, gradient, *args, **options)
    if self.path == "none":
        gradient[-8:] = before[-8:]


def first_class_ignored(original, self, gradient, *args, **options):
    original(self, gradient, *args, **options)
    if self.path == "classes":
        self.net.views(gradient).weights[-1][:, 0] = 0.0


def twice_the_shared_weights(original, self, gradient, *args, **options):
    original(self, gradient, *args, **options)
    gradient[: self.net.weight_count] *= 2


def nll_of_sum(original, self, *args, **options):
    original(self, *args, **options)
    self.forward_nll *= self.rows


MISTAKES = {
    "sign": (
        wrap(Multinomial, "error", sign_of_error),
        r"gradient of the forward direction: .*the sign is wrong",
        "forward: output error = scale",
    ),
    "precision": (
        wrap(Gaussian, "error", no_precision),
        "gradient of the backward direction: .*a factor",
        "backward: output error = scale",
    ),
    "sum over rows": (
        wrap(Multinomial, "error", sums_over_rows),
        "gradient of the forward direction: .*batch size: 6 times too large",
        "forward: gradient = classical backpropagation: .*batch size: 6 times too large",
    ),
    "transposed gradient": (
        wrap(Dense, "weight_gradient", transposed_weights),
        r"gradient of the forward direction: W1\[.*W1 of shape \(4, 4\) is transposed",
        r"forward: gradient = classical .*: W1\[.* W1 of shape \(4, 4\) is transposed",
    ),
    "adjoint": (
        wrap(Dense, "adjoint", adjoint_of_square),
        "input error of the forward direction",
        "backward: signals",
    ),
    "derivative": (
        wrap(Tanh, "multiply_derivative", no_derivative),
        r"gradient of the forward direction: (W1|b1)",
        "forward: gradient = classical",
    ),
    "one weight": (
        wrap(Dense, "weight_gradient", one_weight),
        r"gradient of the forward direction: W[12]\[0, 1\]",
        r"forward: gradient = classical backpropagation: W[12]\[0, 1\]",
    ),
    "carried over": (
        wrap(backpropagation.JointBackpropagation, "_sweep_up", first_batch_kept),
        "path samples carries nothing over.*a stale buffer",
        None,
    ),
    "not written": (
        wrap(backpropagation.JointBackpropagation, "__call__", backward_biases_unwritten),
        r"joint gradient, path none: d0\[0\] is nan",
        None,
    ),
    "ignored class": (
        wrap(backpropagation.JointBackpropagation, "__call__", first_class_ignored),
        r"joint gradient, path classes: W2\[",
        None,
    ),
    "shared weights twice": (
        wrap(backpropagation.JointBackpropagation, "__call__", twice_the_shared_weights),
        r"joint gradient, path samples: W.*a factor 2",
        None,
    ),
    "nll of the sum": (
        wrap(backpropagation.JointBackpropagation, "__call__", nll_of_sum),
        "recorded nll, path samples",
        None,
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_told(name, monkeypatch):
    plant, message, invariance = MISTAKES[name]
    net = small()
    x, y = batch(net)
    assert check_network(net, x, y).passed
    monkeypatch.setattr(*plant)
    with pytest.raises(VerificationError, match=message):
        check_network(net, x, y)
    if invariance is None:  # not about one direction's gradient
        assert check_backprop_invariance(net, x, y).passed
        return
    with pytest.raises(VerificationError, match=invariance):
        check_backprop_invariance(net, x, y)


def test_a_loss_of_precision_is_told(monkeypatch):
    original = networks.backpropagate

    def coarse(net, x, t, **options):
        gradient, error = original(net, x, t)
        if net.dtype == "float32" and net.direction == "backward":
            gradient = gradient.astype(np.float16).astype(np.float32) * np.float32(0.97)
        return gradient, error

    net = small().to(dtype="float32")
    assert check_network(net, *batch(net)).passed
    monkeypatch.setattr(networks, "backpropagate", coarse)
    with pytest.raises(VerificationError, match="gradient of the backward direction in float32"):
        check_network(net, *batch(net))


def test_torn_views_are_told():
    net = small()
    net.reversed.parameters = net.parameters.copy()
    with pytest.raises(VerificationError, match="has parameters of its own"):
        check_network(net, *batch(net))


def test_views_in_another_order_are_told(monkeypatch):
    original = Network.views

    def views(self, flat):
        found = original(self, flat)
        if self.direction == "backward":
            found.biases[1:] = [b if b is None else b[::-1] for b in found.biases[1:]]
        return found

    monkeypatch.setattr(Network, "views", views)
    net = small()
    with pytest.raises(VerificationError, match="views cover the flat vector"):
        check_network(net, *batch(net))
