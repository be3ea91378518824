"""Checks of parts and networks, and strategies: what is right passes, mistakes are told."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from examples_extensions import LocallyConnected, Poisson
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import BUGS

import nembp.testing
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.activations import Activation, LeakyReLU, ReLU, Tanh
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.engine.linear import Dense, LinearMap, Reshape
from nembp.engine.network import Layer, Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import OPTIMIZERS, SGD, Adam, Momentum, Optimizer, RMSProp
from nembp.engine.training import Trainer
from nembp.errors import ArchitectureError, DataError, ShapeError, VerificationError
from nembp.testing import (
    activations,
    batches_for,
    cases,
    likelihoods,
    linear_maps,
    networks,
    noise_for,
    targets,
)
from nembp.verification import (
    LAWS,
    check_activation,
    check_backprop_invariance,
    check_extension,
    check_likelihood,
    check_linear_map,
    check_network,
    check_optimizer,
)

CHECKS: dict[type, Any] = {
    Likelihood: check_likelihood,
    LinearMap: check_linear_map,
    Activation: check_activation,
    Optimizer: check_optimizer,
}


# -- what is right passes --------------------------------------------------------------------------
optimizers = st.builds(
    lambda kind, rate: OPTIMIZERS[kind](rate),
    st.sampled_from(sorted(OPTIMIZERS)),
    st.floats(1e-4, 1.0),
)


@pytest.mark.parametrize(
    ("check", "parts"),
    [
        (check_linear_map, linear_maps()),
        (check_likelihood, likelihoods()),
        (check_activation, activations()),
        (check_optimizer, optimizers),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_what_is_right_passes(check, parts, data, seed):
    report = check(data.draw(parts), seed=seed, raises=False)
    assert report.passed, str(report)


def test_names_classes_and_instances_are_taken():
    optimizer = Adam()
    for each in ("adam", Adam, optimizer):
        assert check_optimizer(each).subject == "optimizer Adam"
    assert not optimizer.state  # a copy was tried, not the user's own
    assert check_likelihood("bernoulli").passed
    assert check_activation("leaky-relu").passed


@dataclass(frozen=True)
class Formula(Activation):
    """An activation from two formulas: f of z, f' of a."""

    name = "formula"
    f: Any = np.tanh
    slope: Any = lambda a: 1 - a * a

    def activate(self, backend, z, scratch):
        z[...] = self.f(z)

    def multiply_derivative(self, backend, error, a, scratch):
        error *= self.slope(a)


@dataclass(frozen=True)
class Kinked(Formula):
    analytic = False


class SignDescent(Optimizer):
    name = "sign"
    default_learning_rate = 0.01

    def move(self, chunk, eta, epsilon):
        chunk.theta -= eta * np.sign(chunk.g)


@dataclass(frozen=True)
class Exponential(Poisson):
    """Waiting times of mean eᶻ: log p(t) = −z − t e⁻ᶻ, whose error is no multiple of a − t."""

    name = "exponential"
    class_sums = True

    def random_targets(self, generator, rows, width) -> Any:
        return generator.exponential(1.0, (rows, width))

    def log_likelihood(self, o, t, counts=None, squares=None):
        z = o.z if counts is None else counts * o.z
        o.column[...] = np.sum(-z - t / o.a, axis=1, keepdims=True)
        return o.column

    def error(self, o, t, out, *, counts=None, factor=1.0):
        out[...] = factor * ((1.0 if counts is None else counts) - t / o.a)

    def gain_terms(self, o, t, n, out):
        out[...] = -n / o.a

    def gain_slope(self, o, t, out):
        out[...] = -1 / o.a


def test_a_likelihood_without_backprop_invariance_is_told():
    with pytest.raises(VerificationError, match=r"error = scale · \(a − t\)"):
        check_likelihood(Exponential())
    assert check_likelihood(Exponential(), canonical=False, support="positive").passed
    with pytest.raises(VerificationError, match="total over labels"):
        check_likelihood(Exponential(), canonical=False, support="labels")
    with pytest.raises(
        ArchitectureError, match="support must be one of labels, bits, signs, counts"
    ):
        check_likelihood("gaussian", support="integers")


def test_sums_of_targets_can_be_asked_for_and_not():
    why = "class_sums is False, so log p does not follow from sums of targets"
    with pytest.raises(VerificationError, match=why):
        check_likelihood(Poisson(), sums=True)
    with pytest.raises(VerificationError, match="sums of log p"):
        check_likelihood(wrong(Gaussian, "log_likelihood", sums_forgotten))
    assert check_likelihood(wrong(Gaussian, "log_likelihood", sums_forgotten), sums=False).passed


def sums_forgotten(original, self, o, t, counts=None, squares=None):
    return original(self, o, t, None if counts is None else np.ones_like(counts), squares)


# -- planted mistakes: each class is wrong in one respect ------------------------------------------
def wrong(base: type, method: str, body: Any, **fields: Any) -> Any:
    """Return an instance of a subclass, one of whose methods is ``body(original, self, ...)``."""
    original = getattr(base, method)
    made = property(body) if isinstance(original, property) else None
    planted = made or (lambda self, *args, **options: body(original, self, *args, **options))
    kind = type("Wrong", (base,), {method: planted, "__module__": __name__})
    return kind(4, 4) if base is Dense else kind(**fields)


def times(factor: float) -> Any:
    """Return a body whose last argument comes out multiplied."""

    def body(original, self, *args, **options):
        original(self, *args, **options)
        args[-1][...] *= factor

    return body


def mean_of_rows(original, self, *args):
    column = original(self, *args)
    column[...] = np.mean(column)
    return column


def in_float16(original, self, *args):
    original(self, *args)
    array = args[0].theta if isinstance(self, Optimizer) else args[-1]
    if array.dtype == np.float32:
        array[...] = array.astype(np.float16)


def reads_its_work_space(original, self, o, t, n, out):
    original(self, o, t, n, out)
    out += 0 * o.scratch


def adds_one(original, self, backend, x, W, out):
    out[...] = x @ W + 1.0


def reads_scratch(original, self, backend, z, scratch):
    z[...] = np.tanh(z) + 0 * scratch


def centred(original, self, backend, z, scratch):
    original(self, backend, z - z.mean(axis=1)[:, None], scratch)


def clipped(original, self, backend, error, a, scratch):
    original(self, backend, np.clip(error, -0.9, 0.9, out=error), a, scratch)


def by_place(original, self, chunk, eta, epsilon):
    chunk.theta -= eta * chunk.g / (1 + np.arange(chunk.g.size) % 3)


def moves_anyway(original, self, chunk, eta, epsilon):
    original(self, chunk, eta, epsilon)
    chunk.theta -= eta


class RemembersAcrossBinds(Momentum):
    def bind(self, net):
        kept = self.state
        vector = super().bind(net)
        for slot, old in kept.items():
            self.state[slot][...] = old
        return vector


class DecaysBiases(SGD):
    def bind(self, net):
        vector = super().bind(net)
        self.weights = net.parameter_count
        return vector


def cut_off(z):
    return np.maximum(z, 0)


WRONG: dict[str, tuple[Any, str]] = {
    "error a thousandth off": (wrong(Multinomial, "error", times(1.001)), "-∂log p|error"),
    "normalizer": (wrong(Gaussian, "log_normalizer", lambda f, s, width: 0.0), "total over reals"),
    "tempering": (wrong(Multinomial, "tempering", lambda self: 1.0, weight=0.5), "total over"),
    "mixes rows": (wrong(Gaussian, "log_likelihood", mean_of_rows), "log p"),
    "reads before writing": (wrong(Gaussian, "gain_terms", reads_its_work_space), "gain"),
    "bias": (wrong(Dense, "forward", adds_one), "adjoint"),
    "half precision of a map": (wrong(Dense, "forward", in_float16), "forward"),
    "shape": (wrong(Dense, "initial_weights", lambda f, s, g: np.zeros((4, 3))), "weights are 16"),
    "unseeded": (
        wrong(Dense, "initial_weights", lambda f, s, g: f(s, np.random.default_rng())),
        "the generator's alone",
    ),
    "scratch": (wrong(Tanh, "activate", reads_scratch), "slope of activate"),
    "mixes neurons": (wrong(Tanh, "activate", centred), "Wrong"),
    "clips": (wrong(Tanh, "multiply_derivative", clipped), "the error multiplied|slope"),
    "0.1 %": (Formula(np.tanh, lambda a: 1.001 * (1 - a * a)), "a factor 1.001"),
    "beyond a kink": (
        Kinked(cut_off, lambda a: np.where(a > 0, 1.0, -0.5 * (a == 0))),
        "slope of activate",
    ),
    "slopes ±1 at one a": (Kinked(lambda z: abs(z.real), np.ones_like), "slope of activate"),
    "no kink": (type("Claims", (ReLU,), {"analytic": True})(), "analytic must be False"),
    "by place": (wrong(SGD, "move", by_place), "permuted"),
    "moves without a gradient": (wrong(Adam, "move", moves_anyway), "θ_w|gradient is zero"),
    "half precision of a move": (wrong(RMSProp, "move", in_float16), "Wrong"),
    "remembers": (RemembersAcrossBinds(), "bind again"),
    "decays biases": (DecaysBiases(), "decay"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_told(name):
    part, message = WRONG[name]
    options = {}
    if name in ("normalizer", "tempering"):  # of no known kind: nothing to hold it to
        options["support"] = "reals" if name == "normalizer" else "labels"
    check = next(check for kind, check in CHECKS.items() if isinstance(part, kind))
    with pytest.raises(VerificationError, match=message) as caught:
        check(part, **options)
    assert str(caught.value.report).startswith(f"{caught.value.report.subject}: FAILED\nlaw ")


# -- networks --------------------------------------------------------------------------------------
@settings(max_examples=max(4, settings.default.max_examples // 5))
@given(data=st.data())
def test_networks_pass(data):
    net = data.draw(networks(dtype=data.draw(st.sampled_from(["float32", "float64"]))))
    x, y = data.draw(batches_for(net, rows=3))
    before = net.parameters.copy()
    report = check_network(net, x, y, max_evaluations=200, raises=False)
    assert report.passed, str(report)
    assert np.array_equal(net.parameters, before)
    invariance = check_backprop_invariance(net, x, y, raises=False)
    assert invariance.passed, str(invariance)


def test_batches_are_checked():
    net = dense_network([3, 4, 2])
    with pytest.raises(ShapeError, match=r"x has shape \(2, 4\), expected \(rows, 3\)"):
        check_network(net, np.ones((2, 4)), np.eye(2))
    with pytest.raises(ShapeError, match="x has 3 rows and y has 2"):
        check_network(net, np.ones((3, 3)), np.eye(2))
    with pytest.raises(DataError, match="each target must sum to 1, but row 1 sums to 2"):
        check_backprop_invariance(net, np.eye(3)[:2], np.array([[1.0, 0.0], [1.0, 1.0]]))


@pytest.mark.parametrize("check", [check_network, check_backprop_invariance])
@pytest.mark.parametrize("bug", ["sign_flipped: Likelihood.error", "kernel_not_transposed: Dense"])
def test_a_wrong_part_in_a_network_is_found(check, bug, monkeypatch):
    next(planted for name, planted in BUGS.items() if name.startswith(bug)).plant(monkeypatch)
    net = dense_network([3, 4, 2], activation="tanh", dtype="float64")
    with pytest.raises(VerificationError):
        check(net, np.eye(3), np.eye(2)[[0, 1, 0]])


# -- extensions ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "extension",
    [Poisson, LocallyConnected(4, 3), LeakyReLU(0.3), Multinomial(0.5), Dense(4, 3), Adam,
     SignDescent],
    ids=lambda part: getattr(part, "name", "part"),
)  # fmt: skip
def test_right_extensions_pass(extension):
    report = check_extension(extension)
    laws = [result.law for result in report.laws]
    inside = any(law.startswith("in a network: joint.samples") for law in laws)
    assert inside or extension in (Adam, SignDescent)


RIGHT = [
    Formula(lambda z: np.log1p(np.exp(z)), lambda a: -np.expm1(-a)),  # not finite at 1e3
    Formula(np.arcsinh, lambda a: 1 / np.cosh(a)),
    Kinked(lambda z: np.where(z > 0, z, np.expm1(z.real)), lambda a: np.where(a > 0, 1, a + 1)),
    Kinked(lambda z: np.clip(z.real, -1, 1), lambda a: np.where(abs(a) < 1, 1.0, 0.0)),
]


@pytest.mark.parametrize("f", RIGHT)
def test_other_activations_that_are_right_pass(f):
    assert check_activation(f).passed


@dataclass(frozen=True)
class RightAloneOnly(Gaussian):
    """Right for one target, wrong where the engine asks for the mean of a batch."""

    name = "right-alone"

    def error(self, o, t, out, *, counts=None, factor=1.0):
        super().error(o, t, out, counts=counts, factor=0.25 if factor == 0.25 else 1.0)


def test_a_part_that_only_fails_inside_a_network_is_found():
    report = check_extension(RightAloneOnly(), raises=False)
    failed = [result.law for result in report.laws if not result.passed]
    assert failed
    assert all(law.startswith("in a network") for law in failed)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "expected a Likelihood, LinearMap, Activation or Optimizer"),
        (dict, "expected a Likelihood"),
        (Likelihood, "Likelihood still lacks the methods activate, gain_terms"),
        (Dense, r"Dense needs arguments .* pass an instance, such as Dense\(...\)"),
    ],
)
def test_what_cannot_be_checked_is_said(value, message):
    with pytest.raises(ArchitectureError, match=message):
        check_extension(value)
    with pytest.raises(ArchitectureError, match="expected a part of a network"):
        check_linear_map(3)


# -- strategies, and a network of a user's parts ---------------------------------------------------
@given(data=st.data())
def test_networks_and_batches_are_of_the_kind_asked_for(data):
    net = data.draw(networks(("multinomial", "bernoulli"), "tanh", dtype="float32", images=False))
    kinds = type(net.likelihood), type(net.reversed.likelihood), net.dtype
    assert kinds == (Multinomial, Bernoulli, "float32")
    assert {type(linear_map) for linear_map in net.maps} == {Dense}
    assert all(layer.activation == Tanh() for layer in net.layers[1:-1])
    x, y = data.draw(batches_for(net))
    assert np.all(np.isfinite(net.log_likelihood(x, y)))
    back = data.draw(batches_for(net.reversed, rows=2))
    assert (back[0].shape, back[1].shape) == ((2, net.outputs), (2, net.inputs))
    _, labels = data.draw(batches_for(net, labels=True))
    assert np.array_equal(labels.sum(axis=1), np.ones(len(labels)))


@given(
    case=cases(), data=st.data(), likelihood=likelihoods(),
    activation=activations(analytic=False), linear_map=linear_maps(Reshape),
)  # fmt: skip
def test_cases_targets_and_parts(case, data, likelihood, activation, linear_map):
    LAWS["joint.samples"].check(case)
    t = data.draw(targets(likelihood, 4, 3))
    hard = data.draw(targets(likelihood, 4, 3, hard=True))
    if isinstance(likelihood, Multinomial):
        np.testing.assert_allclose(t.sum(axis=1), 1.0)
        assert set(np.unique(hard)) <= {0.0, 1.0}
    if isinstance(likelihood, Bernoulli):
        assert np.all((t >= 0.0) & (t <= 1.0))
    assert data.draw(noise_for(likelihood)).kind != "none"
    assert 0.01 <= likelihood.scale <= 100.0
    assert not activation.analytic
    assert isinstance(linear_map, Reshape)


@pytest.mark.parametrize("noise", ["none", "nem", "drift", "anti"])
@pytest.mark.parametrize("forward", ["counts", "labels"])
def test_a_network_with_the_examples_trains(forward, noise):
    g = np.random.default_rng(0)
    x = g.poisson(np.exp(g.normal(0.5, 0.5, (60, 1))), (60, 6)).astype(float)
    label = (x.mean(axis=1) > np.median(x.mean(axis=1))).astype(int)
    y = label if forward == "labels" else x[:, :2] + 1.0
    end = Multinomial() if forward == "labels" else Poisson()
    layers = [Layer(6), Layer(4, Tanh()), Layer(2)]
    maps = [LocallyConnected(4, 3), Dense(4, 2)]
    net = Network(layers, maps, end, Poisson(), dtype="float64")
    reader = BatchReader(Split(x, y), Scaling(), Scaling(), 2, net.backend, net.dtype)
    spec = Noise(noise, std=0.3)
    history = Trainer(net, reader, epochs=30, batch_size=20, noise={"backward": spec}).run()
    for direction in ("forward", "backward"):
        nll = history[f"train/{direction}/nll"]
        assert nll[-1] < nll[0] - 0.01
    if noise == "nem":
        assert min(history["noise/backward/gain"]) >= 0.0


def test_hypothesis_is_needed_only_for_strategies(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    assert nembp.testing.check_extension(Adam()).passed
    with pytest.raises(ImportError, match="need Hypothesis, which is not installed"):
        networks()
