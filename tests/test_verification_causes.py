"""The guess at the cause: mistakes planted in the gradient of a classifier, each told by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nembp.errors import VerificationError
from nembp.verification import check_gradient

ROWS, SIZES = 16, (5, 7, 3)
SHAPES = {"W1": (5, 7), "b1": (7,), "W2": (7, 3), "b2": (3,)}
Gradients = dict[str, np.ndarray]


class Classifier:
    """Softmax of a hidden layer, written by hand, with a mistake in its gradient.

    ``mistake(g, p, own)`` changes the gradients ``g`` at the parameters ``p``; ``own`` is a dict
    that lives as long as the network does.
    """

    def __init__(self, mistake: Any = None, relu: bool = False, dtype: Any = np.float64) -> None:
        rng = np.random.default_rng(5)
        self.X = rng.normal(size=(ROWS, SIZES[0])).astype(dtype)
        self.T = np.eye(SIZES[2], dtype=dtype)[rng.integers(0, SIZES[2], ROWS)]
        self.point = {k: rng.normal(size=s).astype(dtype) for k, s in SHAPES.items()}
        self.mistake, self.relu, self.own = mistake, relu, {}

    def __call__(self, p: Gradients) -> tuple[Any, Gradients]:
        z = self.X @ p["W1"] + p["b1"]
        a = np.maximum(z, 0) if self.relu else np.tanh(z)
        u = a @ p["W2"] + p["b2"]
        u = u - u.real.max(axis=1, keepdims=True)
        log_p = u - np.log(np.exp(u).sum(axis=1, keepdims=True))
        delta = (np.exp(log_p) - self.T) / ROWS
        back = (delta @ p["W2"].T) * ((z > 0) if self.relu else 1 - a * a)
        g = {"W1": self.X.T @ back, "b1": back.sum(0), "W2": a.T @ delta, "b2": delta.sum(0)}
        if self.mistake is not None:
            g = self.mistake(g, p, self.own) or g
        return -(self.T * log_p).sum() / ROWS, g


def times(factor, *names):
    def mistake(g, p, own):
        for name in names or SHAPES:
            g[name] = g[name] * factor

    return mistake


def change(name, function):
    def mistake(g, p, own):
        g[name] = function(g[name])

    return mistake


def one_entry(g, p, own):
    g["W1"][2, 3] *= 1.001


def not_finite(g, p, own):
    g["W1"][2, 3] = np.inf


def accumulate(g, p, own):
    for name, value in g.items():
        own[name] = own.get(name, 0) + value
        g[name] = own[name].copy()


def late(g, p, own):
    before = own.get("g", g)
    own["g"] = dict(g)
    return before


def once(g, p, own):
    return own.setdefault("g", g)


def dropout(g, p, own):
    rng = own.setdefault("rng", np.random.default_rng(0))
    g["W2"] = g["W2"] * (rng.random(SHAPES["W2"]) < 0.5)


def decay(g, p, own):
    for name in SHAPES:
        g[name] = g[name] + 0.01 * p[name]


def no_decay_in_gradient(g, p, own):
    for name in SHAPES:
        g[name] = g[name] - 0.02 * p[name]


def wrong_derivative(g, p, own):
    g["W1"] = g["W1"] * (1.1 + np.sin(np.arange(35.0)).reshape(5, 7))


MISTAKES = {
    "the sign, everywhere": (times(-1), "the sign is wrong: so in every coordinate measured"),
    "the sign, of a block": (times(-1, "W2"), "the sign is wrong: so in every .* of W2"),
    "sum for mean": (times(ROWS), "missing factor of the batch size: 16 times too large"),
    "sum for mean, of a block": (times(ROWS, "b1"), "batch size: 16 times too large.* of b1"),
    "mean of the mean": (times(1 / ROWS), "missing factor of the batch size: 16 times too small"),
    "sum and sign": (times(-ROWS), "the sign, and a missing factor of the batch size"),
    "twice": (times(2, "W1"), "a factor 2: a term counted twice.* of W1"),
    "half": (times(0.5, "W1"), "a factor ½: .* of W1"),
    "length": (times(7, "W2"), "a factor: 7 times too large .* of W2"),
    "any factor": (times(1.7, "W2"), r"a factor 1\.7: so in every coordinate measured of W2"),
    "never written": (times(0, "b2"), "zero where it should not be, in every .* of b2: never"),
    "one entry": (one_entry, "this coordinate alone of the .* measured, by the factor 1.001"),
    "not finite": (not_finite, "the gradient is not finite there"),
    "transposed": (
        change("W1", lambda g: g.T.reshape(5, 7)),
        r"W1 of shape \(5, 7\) is transposed",
    ),
    "upside down": (change("W1", lambda g: g[::-1]), "W1 .* is flipped along axis 0"),
    "permuted": (change("W1", lambda g: g[:, [2, 0, 1, 3, 4, 6, 5]]), "a permutation"),
    "backwards": (
        change("b1", lambda g: g[::-1]),
        "the right numbers in the wrong places: a permutation",
    ),
    "added up": (accumulate, "a stale buffer: each call adds to the gradient of the one before"),
    "one call late": (late, "a stale buffer: the gradient of the point before comes back"),
    "computed once": (once, "a stale buffer: the same gradient comes back at a different point"),
    "random": (dropout, "random draws: the gradient changes from call to call"),
    "decay in the gradient": (decay, r"0\.01 · θ: a weight decay in the gradient but not in"),
    "decay in the value": (no_decay_in_gradient, r"0\.02 · θ: a weight decay in the value but"),
    "a wrong formula": (wrong_derivative, "in W1 alone: .* coordinates measured"),
}


@pytest.mark.parametrize("relu", [False, True], ids=["tanh", "relu"])
def test_without_a_mistake_it_passes(relu):
    net = Classifier(relu=relu)
    assert check_gradient(net, net.point, rows=ROWS).passed


@pytest.mark.parametrize("method", ["auto", "central"])
@pytest.mark.parametrize("relu", [False, True], ids=["tanh", "relu"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_found_and_named(name, relu, method):
    mistake, cause = MISTAKES[name]
    net = Classifier(mistake, relu)
    with pytest.raises(VerificationError, match=cause):
        check_gradient(net, net.point, rows=ROWS, method=method)


SURE = [name for name in MISTAKES if "permut" not in name and "backwards" not in name]


@pytest.mark.parametrize("name", sorted(SURE))
def test_it_is_named_too_where_only_groups_can_be_measured(name):
    mistake, cause = MISTAKES[name]
    net = Classifier(mistake)
    with pytest.raises(VerificationError, match=cause):
        check_gradient(net, net.point, rows=ROWS, method="central", max_evaluations=450)


def test_float32_mistakes_are_named():
    for name in ("the sign, of a block", "sum for mean", "transposed", "never written"):
        mistake, cause = MISTAKES[name]
        net = Classifier(mistake, dtype=np.float32)
        with pytest.raises(VerificationError, match=cause):
            check_gradient(net, net.point, rows=ROWS)


def test_rows_of_two_say_both_things():
    def f(theta):
        return (theta**2).mean(), 2 * theta

    report = check_gradient(f, np.array([1.0, 3.0]), rows=2, raises=False)
    assert report.cause == (
        "a missing factor of the batch size: 2 times too large (or a term counted twice): "
        "so in every coordinate measured"
    )


def test_a_flat_vector_that_is_a_transposed_matrix():
    A = np.random.default_rng(0).normal(size=(4, 6))

    def f(theta):
        return np.sum(A.ravel() * np.sin(theta)), (A.ravel() * np.cos(theta)).reshape(
            4, 6
        ).T.ravel()

    report = check_gradient(f, np.linspace(-1, 2, 24), raises=False)
    assert report.cause == "θ of shape (4, 6) is transposed"


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (1, 0, 2, 3), (3, 2, 1, 0)])
def test_a_kernel_with_its_axes_permuted(order):
    shape = (2, 3, 4, 2)
    K = np.random.default_rng(0).normal(size=shape)

    def f(theta):
        gradient = np.transpose(K * np.cos(theta), order).reshape(shape)
        return np.sum(K * np.sin(theta)), gradient

    report = check_gradient(f, np.random.default_rng(1).normal(size=shape), raises=False)
    assert "stored with its axes in the order" in report.cause


def test_a_kernel_that_is_rotated():
    K = np.random.default_rng(0).normal(size=(3, 3, 2, 2))

    def f(theta):
        return np.sum(K * np.sin(theta)), np.flip(K * np.cos(theta), (0, 1))

    report = check_gradient(f, np.random.default_rng(1).normal(size=K.shape), raises=False)
    assert "is flipped along axis 0 and 1" in report.cause


def test_swapped_blocks():
    def f(p):
        squares, cubes = 2 * p["a"], 3 * p["b"] ** 2
        return (p["a"] ** 2).sum() + (p["b"] ** 3).sum(), {"a": cubes, "b": squares}

    rng = np.random.default_rng(0)
    point = {"a": rng.normal(size=4), "b": rng.normal(size=4)}
    report = check_gradient(f, point, raises=False)
    assert report.cause == "swapped blocks: a and b hold each other's gradient"


@pytest.mark.parametrize("shift", [1, -2])
def test_shifted_entries(shift):
    def f(theta):
        return np.exp(theta).sum(), np.roll(np.exp(theta), shift)

    report = check_gradient(f, np.random.default_rng(0).normal(size=11), raises=False)
    assert report.cause == f"shifted: entry i holds the gradient of coordinate i{-shift:+d}"


@pytest.mark.parametrize("count", [3, 20])
def test_small_errors_are_no_rearrangement(count):
    """Numbers that are off by 0.1 % are near to each other's places by chance alone."""

    def f(theta):
        gradient = np.exp(theta)
        gradient[:count] *= 1.0 + 1e-3 * np.arange(1, count + 1) / count
        return np.exp(theta).sum(), gradient

    report = check_gradient(f, np.linspace(0.1, 0.4, 20), raises=False)
    assert len(report.failures) == count
    assert report.cause is None
