"""Laws of the joint gradient: every path equals the sum of the one-direction gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from laws import textbook
from laws.numerics import ROUNDING, assert_near
from nembp.backend import Backend, stream
from nembp.backpropagation import JointBackpropagation, backpropagate, joint_gradient
from nembp.network import Network
from nembp.noise import Noise

Noises = dict[str, Noise]
SEED = 7  # of the noise streams


def generators() -> dict[str, Any]:
    """Return the generators of both directions' noise, at their start."""
    return {direction: stream(SEED, f"noise/{direction}") for direction in ("forward", "backward")}


def run(
    net: Network,
    x: np.ndarray,
    t: np.ndarray,
    path: Any,
    noise: Noises | None = None,
    step: JointBackpropagation | None = None,
) -> tuple[np.ndarray, JointBackpropagation]:
    """Return a batch's joint gradient, in a vector that held NaN, and the step that gave it."""
    if step is None:
        step = JointBackpropagation(
            net, len(x), path=path, noise=noise, generators=generators() if noise else None
        )
    step.x[...] = net.backend.asarray(x, net.dtype)
    step.t[...] = net.backend.asarray(t, net.dtype)
    gradient = net.backend.asarray(np.full(net.parameter_count, np.nan), net.dtype)
    step(gradient)
    return net.backend.to_numpy(gradient), step


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill what ``empty`` returns with NaN, which any read before a write then spreads."""

    def empty(backend: Backend, shape: tuple[int, ...], dtype: str) -> Any:
        return np.ones(shape, dtype) if dtype == "bool" else np.full(shape, np.nan, dtype)

    with mock.patch.object(Backend, "empty", empty):
        yield


def size_of_errors(net: Network, x: np.ndarray, t: np.ndarray) -> float:
    """Return the scale that rounding acts on: the largest output error of the two directions."""
    total = 0.0
    for direction, source, target in ((net, x, t), (net.reversed, t, x)):
        a = np.abs(direction.predict(source))
        total += direction.likelihood.scale * float(np.max(a) + np.max(np.abs(target)))
    return total


def check_joint_gradient(net: Network, x: np.ndarray, t: np.ndarray, path: str) -> None:
    """Without noise, a path gives the sum of what ``backpropagate`` gives for each direction.

    ``none`` leaves the backward direction out: its biases get zero.
    """
    expected = backpropagate(net, x, t)[0]
    if path != "none":
        expected = expected + backpropagate(net.reversed, t, x)[0]
    scale = size_of_errors(net, x, t)
    gradient, step = run(net, x, t, path)
    assert_near(gradient, expected, ROUNDING, f"gradient by path {path}", scale=scale)
    if path == "none":
        start = net.parameter_count - sum(layer.biases for layer in net.layers[:-1])
        assert not np.any(gradient[start:]), "backward biases move in unidirectional training"
    if path == "samples":
        assert_near(joint_gradient(net, x, t), expected, ROUNDING, "joint_gradient", scale=scale)
    check_recorded_nll(net, x, t, step)


def check_recorded_nll(
    net: Network, x: np.ndarray, t: np.ndarray, step: JointBackpropagation
) -> None:
    """``forward_nll`` and ``backward_nll`` are the mean nll of the clean targets."""
    forward = -np.mean(net.log_likelihood(x, t))
    scale = 1.0 + net.likelihood.scale
    assert_near(step.forward_nll, [[forward]], ROUNDING, "forward nll", scale=scale)
    if step.path != "none":
        backward = -np.mean(net.reversed.log_likelihood(t, x))
        # class sums form mass ‖a‖² − 2⟨a, t⟩ + square, which cancels
        squares = np.sum(x * x) + np.sum(net.reversed.predict(t) ** 2)
        scale = 1.0 + net.reversed.likelihood.scale * (1.0 + float(squares))
        assert_near(step.backward_nll, [[backward]], ROUNDING, "backward nll", scale=scale)


def check_no_memory(
    net: Network, first: tuple[Any, Any], second: tuple[Any, Any], path: str
) -> None:
    """A step's buffers carry nothing over: not what they were made of, nor the last batch."""
    with poisoned_memory():
        _, step = run(net, *first, path)
    net.parameters[...] = net.parameters[::-1] * 0.7
    again, _ = run(net, *second, path, step=step)
    fresh, other = run(net, *second, path)
    assert np.array_equal(again, fresh), f"path {path}: the gradient depends on an older batch"
    vector = np.empty(net.parameter_count)
    for _ in range(2):  # the second time its views are known
        vector[...] = np.nan
        step(vector)
        assert np.array_equal(vector, fresh), f"path {path}: the vector keeps what it held"
    assert np.array_equal(step.forward_nll, other.forward_nll)
    assert np.array_equal(step.backward_nll, other.backward_nll)


def check_noisy_joint_gradient(
    net: Network, x: np.ndarray, t: np.ndarray, path: str, noise: Noises
) -> None:
    """With noise, the joint gradient is that of the noisy targets t + n and x + n.

    The noise is drawn a second time from the same streams by ``NoiseSource``'s definition (see
    laws.noise for that), and the gradient comes from the chain rule in plain NumPy.
    """
    from laws.noise import replay

    gradient, step = run(net, x, t, path, noise)
    expected, scale = np.zeros(net.parameter_count), size_of_errors(net, x, t)
    for name, direction, source, target in (
        ("forward", net, x, t),
        ("backward", net.reversed, t, x),
    ):
        if name == "backward" and path == "none":
            assert "backward" not in step.sources, "noise on a direction that is not trained"
            continue
        n, update = np.zeros_like(target), "exact"
        if name in noise and noise[name].kind != "none":
            assert name in step.sources, f"no noise on the {name} target"
            n, update = replay(direction, source, target, noise[name], name), noise[name].update
            close = assert_near
            close(step.sources[name].n, n, 1e-9, f"{name} noise", scale=noise[name].std)
        else:
            assert name not in step.sources, f"noise on the {name} target without asking for it"
        _, z = textbook.signals(direction, direction.parameters, source, textbook.ACTIVATIONS)
        error = textbook.output_error(direction.likelihood, z, target + n, update) / len(x)
        expected += textbook.pull_back(direction, source, error)
        scale += float(np.max(np.abs(error)))
        if update == "exact":
            same = backpropagate(direction, source, target + n)[0]
            chain = textbook.pull_back(direction, source, error)
            assert_near(same, chain, 1e-11, "backpropagate on noisy targets", scale=scale)
    assert_near(gradient, expected, 1e-9, f"noisy gradient by path {path}", scale=scale)
    check_recorded_nll(net, x, t, step)


def check_annealing(net: Network, x: np.ndarray, t: np.ndarray, noise: Noise) -> None:
    """A step at iteration 4 of epoch 9 draws with σ₀ / 4ᵈ or σ₀ / 9ᵈ, as the noise's clock says."""
    count = {"iteration": 4, "epoch": 9}[noise.clock]
    still = replace(noise, std=noise.std / count**noise.decay, decay=0.0)
    vectors = []
    for each, clock in ((noise, (9, 4)), (still, (1, 1))):
        step = JointBackpropagation(
            net, len(x), noise=dict.fromkeys(generators(), each), generators=generators()
        )
        step.x[...], step.t[...] = x, t
        vectors.append(np.empty(net.parameter_count))
        step(vectors[-1], *clock)
    assert_near(*vectors, 1e-12, "annealed gradient", scale=size_of_errors(net, x, t))
