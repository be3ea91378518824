"""Laws of the joint gradient: every path equals the sum of the one-direction gradients."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from nembp.backend import Backend, stream
from nembp.engine.backprop import JointBackpropagation, backpropagate, joint_gradient
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.verification.laws import textbook
from nembp.verification.laws.deviations import Deviations, Vector, equal, holds, near
from nembp.verification.laws.gradients import error_size, host
from nembp.verification.laws.noise import noise_on, tied

__all__ = [
    "annealed",
    "generators",
    "keeps_no_memory",
    "noisy_joint_gradient",
    "poisoned",
    "recorded_nll",
    "run",
    "size_of_errors",
    "sum_of_directions",
]

Noises = dict[str, Noise]
SEED = 7  # of the noise streams


def generators() -> dict[str, Any]:
    """Return the generators of both directions' noise, at their start, on the host."""
    return {direction: stream(SEED, f"noise/{direction}") for direction in ("forward", "backward")}


def run(
    net: Network,
    x: Vector,
    t: Vector,
    path: Any,
    noise: Noises | None = None,
    step: JointBackpropagation | None = None,
) -> tuple[Vector, JointBackpropagation]:
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


def poisoned(backend: Backend) -> Backend:
    """Return a twin whose new buffers hold NaN, which any read before a write then spreads."""
    twin = copy.copy(backend)

    def empty(shape: tuple[int, ...], dtype: str) -> Any:
        if dtype == "bool":
            return backend.ones(shape, dtype)
        return backend.asarray(np.full(shape, np.nan), dtype)

    twin.empty = empty  # type: ignore[method-assign]
    return twin


def size_of_errors(net: Network, x: Vector, t: Vector) -> float:
    """Return the scale that rounding acts on: the largest output error of the two directions."""
    return error_size(net, x, t) + error_size(net.reversed, t, x)


def sum_of_directions(net: Network, x: Vector, t: Vector, path: Any) -> Deviations:
    """Without noise, a path gives the sum of what ``backpropagate`` gives for each direction.

    ``none`` leaves the backward direction out: its biases get zero.
    """
    expected = host(net, backpropagate(net, x, t)[0])
    if path != "none":
        expected = expected + host(net, backpropagate(net.reversed, t, x)[0])
    scale = size_of_errors(net, x, t)
    gradient, _ = run(net, x, t, path)
    yield near(gradient, expected, f"gradient by path {path}", scale=scale)
    if path == "none":
        others = net.reversed.views(net.backend.asarray(gradient, net.dtype))
        arrays = filter(lambda b: b is not None, (*others.biases, *others.gains))
        still = not any(np.any(host(net, b)) for b in arrays)
        yield holds(still, "backward biases have no gradient in unidirectional training")
    if path == "samples":
        again = host(net, joint_gradient(net, x, t))
        yield near(again, expected, "joint_gradient", scale=scale)


def recorded_nll(net: Network, x: Vector, t: Vector, step: JointBackpropagation) -> Deviations:
    """``forward_nll`` and ``backward_nll`` are the mean nll of the clean targets."""
    forward = -np.mean(host(net, net.log_likelihood(x, t, "batch")))
    size = error_size(net, x, t) * (1.0 + float(np.max(np.abs(t), initial=0.0))) * net.outputs
    scale = 1.0 + abs(net.likelihood.scale) + size
    yield near(host(net, step.forward_nll), [[forward]], "forward nll recorded", scale=scale)
    if step.path != "none":
        backward = -np.mean(host(net.reversed, net.reversed.log_likelihood(t, x, "batch")))
        # class sums form mass ‖a‖² − 2⟨a, t⟩ + square, which cancels
        squares = np.sum(x * x) + np.sum(host(net, net.reversed.predict(t, "batch")) ** 2)
        scale = 1.0 + abs(net.reversed.likelihood.scale) * (1.0 + float(squares))
        actual = host(net, step.backward_nll)
        yield near(actual, [[backward]], "backward nll recorded", scale=scale)


def keeps_no_memory(
    net: Network, first: tuple[Any, Any], second: tuple[Any, Any], path: Any
) -> Deviations:
    """A step's buffers carry nothing over: not what they were made of, nor the last batch.

    ``net`` lives on a :func:`poisoned` device.
    """
    _, step = run(net, *first, path)
    flat = net.backend.to_numpy(net.parameters)
    net.parameters[...] = net.backend.asarray(flat[::-1].copy() * 0.7, net.dtype)
    again, _ = run(net, *second, path, step=step)
    nll = [host(net, value) for value in (step.forward_nll, step.backward_nll)]
    fresh, other = run(net, *second, path)
    yield holds(np.all(np.isfinite(fresh)), f"path {path}: no read of a buffer before its write")
    yield equal(again, fresh, f"path {path}: gradient after another batch")
    vector = net.backend.asarray(np.empty(net.parameter_count), net.dtype)
    for _ in range(2):  # the second time its views are known
        vector[...] = net.backend.asarray(np.full(net.parameter_count, np.nan), net.dtype)
        step(vector)
        yield equal(net.backend.to_numpy(vector), fresh, f"path {path}: what a vector held,")
    yield equal(nll[0], host(net, other.forward_nll), f"path {path}: forward nll")
    yield equal(nll[1], host(net, other.backward_nll), f"path {path}: backward nll")


def annealed(net: Network, x: Vector, t: Vector, noise: Noise) -> Deviations:
    """A step at iteration 4 of epoch 9 draws with σ₀ / 4ᵈ or σ₀ / 9ᵈ, as the noise's clock says."""
    count = {"iteration": 4, "epoch": 9}[noise.clock]
    still = replace(noise, std=noise.std / count**noise.decay, decay=0.0)
    vectors = []
    for each, clock in ((noise, (9, 4)), (still, (1, 1))):
        step = JointBackpropagation(
            net, len(x), noise=dict.fromkeys(generators(), each), generators=generators()
        )
        step.x[...] = net.backend.asarray(x, net.dtype)
        step.t[...] = net.backend.asarray(t, net.dtype)
        vectors.append(net.backend.zeros((net.parameter_count,), net.dtype))
        step(vectors[-1], *clock)
    actual, expected = (host(net, vector) for vector in vectors)
    yield near(actual, expected, "annealed gradient", scale=10.0 * size_of_errors(net, x, t))


def noisy_joint_gradient(
    net: Network, x: Vector, t: Vector, path: Any, noise: Noises
) -> Deviations:
    """With noise, the joint gradient is that of the noisy targets t + n and x + n.

    The noise is drawn a second time from the same streams, by its definition, and the gradient
    comes from the chain rule in plain NumPy. Says nothing where a gain is zero but for rounding,
    so that either sign of a draw may be kept.
    """
    flat = host(net, net.parameters)
    sides: list[tuple[Any, ...]] = []
    for name, direction, source, target in (
        ("forward", net, x, t),
        ("backward", net.reversed, t, x),
    ):
        if name == "forward" or path != "none":
            _, z = textbook.signals(direction, flat, source)
            sides.append((name, direction, source, target, z))
    for name, direction, _, target, z in sides:
        if name in noise:
            generator = generators()[name]
            if tied(noise[name], direction.likelihood, z, target, generator, net.dtype):
                return
    gradient, step = run(net, x, t, path, noise)
    wanted = {name for name, *_ in sides if name in noise and noise[name].kind != "none"}
    yield holds(set(step.sources) == wanted, f"noise on the targets of {sorted(wanted)} alone")
    expected, scale = np.zeros(net.parameter_count), size_of_errors(net, x, t)
    for name, direction, source, target, z in sides:
        n, update = np.zeros_like(target), "exact"
        if name in wanted and name in step.sources:
            spec, update = noise[name], noise[name].update
            args = (direction.likelihood, z, target, spec.std, generators()[name], net.dtype)
            n = noise_on(spec, *args)
            drawn = host(net, step.sources[name].n)
            yield near(drawn, n, f"{name} noise", scale=100.0 * spec.std)
        error = textbook.output_error(direction.likelihood, z, target + n, update) / len(x)
        chain = textbook.pull_back(direction, source, error, flat)
        expected += chain
        scale += float(np.max(np.abs(error))) + abs(direction.likelihood.scale)
        if update == "exact":
            same = host(net, backpropagate(direction, source, target + n)[0])
            yield near(same, chain, "backpropagate on noisy targets", scale=10.0 * scale)
    yield near(gradient, expected, f"noisy gradient by path {path}", scale=100.0 * scale)
    yield from recorded_nll(net, x, t, step)
