"""Laws of adversarial training: each player's gradient is that of what it descends."""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.adversarial.players import DiscriminatorPlayer, GeneratorPlayer
from nembp.backend import Array, Backend, stream
from nembp.engine.activations import get_activation
from nembp.engine.backprop import CycleBackpropagation, backpropagate
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.verification.cases import Case
from nembp.verification.laws import textbook
from nembp.verification.laws.deviations import Deviations, Vector, gradient_of, holds, near
from nembp.verification.laws.games import Game, game, random_settings
from nembp.verification.laws.gradients import host
from nembp.verification.laws.joint import poisoned

__all__ = [
    "discriminator_gradient",
    "generator_gradient",
    "known",
    "link_derivative",
    "own_output",
    "penalty_gradient",
    "play",
    "through_link",
]


def play(
    which: Game, noise: dict[str, Noise] | None = None
) -> tuple[Vector, Vector, DiscriminatorPlayer, GeneratorPlayer]:
    """Return both players' gradients, in vectors that held NaN, and the players."""
    d, g, settings = which.discriminator, which.generator, which.settings
    streams = {key: stream(7, f"noise/{key}") for key in noise or {}}
    streams |= {f"{key} of G": stream(8, f"noise/{key}") for key in noise or {}}
    points = {"penalty": stream(7, "penalty")}
    permutation = which.permutation
    of_d = DiscriminatorPlayer(d, which.rows, settings, noise, streams | points, permutation)
    of_g = GeneratorPlayer(g, d, which.rows, settings, noise, streams)
    of_g.z[...] = g.backend.asarray(which.z, g.dtype)
    of_d.real[...] = d.backend.asarray(which.x, d.dtype)
    of_d.generated[...] = of_g.run()
    if of_d.labels is not None:
        of_d.labels[...] = d.backend.asarray(which.labels, d.dtype)
    vectors = [_nans(net) for net in (d, g)]
    of_d(vectors[0], settings.discriminator_weight)
    of_g(vectors[1], settings.generator_weight)
    return host(d, vectors[0]), host(g, vectors[1]), of_d, of_g


def _nans(net: Network) -> Array:
    return net.backend.asarray(np.full(net.parameter_count, np.nan), net.dtype)


def known(case: Case) -> bool:
    """Whether the formulas of everything in the case are written out in the textbook."""
    known = textbook.knows(get_activation(case.activation))
    return known and textbook.knows(case.forward) and textbook.knows(case.backward)


def _scale(which: Game) -> float:
    """Return the size of the numbers that float32 gradients are made of.

    For float64 a small number: differences of an objective that saturates are not as exact as it.
    """
    if which.generator.dtype == "float64":
        return 1e-3
    settings, total = which.settings, 1.0 + which.settings.penalty_weight
    pairs = (
        (which.discriminator, settings.discriminator_weight, which.x),
        (which.generator, settings.generator_weight, which.z),
    )
    for net, weight, target in pairs:
        size = weight * net.reversed.likelihood.scale
        total += size * (1.0 + float(np.max(np.abs(target), initial=0.0)))
    return 20.0 * total


def discriminator_gradient(case: Case, backend: Backend) -> Deviations:
    """Try D's gradient of every objective against differences of what it descends."""
    if not known(case):
        return
    which = game(case, backend)
    d = which.discriminator
    gradient, _, player, _ = play(which)
    y = which.generated()
    points = None if player.penalty is None else host(d, player.penalty.x)
    if points is not None:
        yield from _between(which.x, y, points)
    if not case.analytic and not which.clear_of_kinks(points):
        return
    yield from gradient_of(
        lambda flat: which.discriminator_value(flat, y, points),
        host(d, d.parameters),
        gradient,
        f"D's gradient, {which.settings.kind}",
        generator=case.generator("coordinates"),
        method="central",
        smooth=case.analytic,
        scale=_scale(which),
    )


def _between(x: Vector, y: Vector, points: Vector) -> Deviations:
    """x̂ = ε x + (1 − ε) g, with one ε in [0, 1] a pair."""
    along = np.sum((points - y) * (x - y), axis=1)
    share = along / np.maximum(np.sum((x - y) ** 2, axis=1), 1e-300)
    yield holds(np.all((share > -1e-5) & (share < 1.0 + 1e-5)), "x̂ lies between the samples")
    yield near(points, y + share[:, None] * (x - y), "x̂ of the penalty", scale=10.0)


def generator_gradient(case: Case, backend: Backend) -> Deviations:
    """Try G's gradient through D, with and without its own backward direction."""
    if not known(case):
        return
    which = game(case, backend)
    if not case.analytic and not which.clear_of_kinks():
        return
    g = which.generator
    _, gradient, _, _ = play(which)
    y = which.generated()
    yield from gradient_of(
        lambda flat: which.generator_value(flat, y),
        host(g, g.parameters),
        gradient,
        f"G's gradient, {which.settings.kind}",
        generator=case.generator("coordinates"),
        method="central",
        smooth=case.analytic,
        scale=_scale(which),
    )


def penalty_gradient(case: Case, backend: Backend) -> Deviations:
    """Try a critic's gradient with its penalty, whatever the kind that the case has."""
    if not known(case):
        return
    which = game(case, backend, random_settings(case, "wasserstein-gp"))
    d = which.discriminator
    gradient, _, player, _ = play(which)
    assert player.penalty is not None
    y, points = which.generated(), host(d, player.penalty.x)
    if not case.analytic and not which.clear_of_kinks(points):
        return
    flat, scale = host(d, d.parameters), _scale(which)
    value = which.discriminator_value(flat, y, points) - which.discriminator_value(flat, y, None)
    size = which.settings.penalty_weight + scale
    actual = which.settings.penalty_weight * host(d, player.penalty.value)
    yield near(actual, [[value]], "penalty recorded", scale=size)
    yield from gradient_of(
        lambda at: which.discriminator_value(at, y, points),
        flat,
        gradient,
        "critic's gradient with its penalty",
        generator=case.generator("coordinates"),
        method="central",
        smooth=case.analytic,
        scale=scale,
    )


# -- a network whose backward direction starts from its own output ------------------------------
def own_output(case: Case, backend: Backend) -> Deviations:
    """Try all orders of sweeps against one direction at a time.

    ∇ of what reads G(z), the chain rule from an error at G(z), and weight times what
    ``backpropagate`` gives for the reversed network at (G(z), z); where the gradient flows, its
    input error joins the error at G(z).
    """
    if not known(case):
        return
    net, z, g = case.net(device=poisoned(backend)), case.batch()[0], case.generator("error")
    flat = host(net, net.parameters)
    _, last = textbook.signals(net, flat, z)
    error = case.rounded(g.normal(0.0, 1.0, last.shape) / len(z))
    weight = float(g.uniform(0.2, 3.0))
    for bidirectional, flow in ((False, False), (True, False), (True, True)):
        step = CycleBackpropagation(net, len(z), bidirectional=bidirectional, flow=flow)
        step.z[...] = net.backend.asarray(z, net.dtype)
        step.run()
        y = host(net, step.output)
        yield near(y, textbook.link(net.likelihood, last), "output", scale=_size(last))
        if step.input is not None:
            step.input.weight = weight
        vector = _nans(net)
        step(vector, net.backend.asarray(error, net.dtype))
        expected, came, scale = np.zeros(net.parameter_count), error, float(np.max(np.abs(error)))
        if bidirectional:
            back, down = backpropagate(net.reversed, step.output, z)
            expected = weight * host(net, back)
            came = error + weight * host(net, down) if flow else error
            scale += float(np.max(np.abs(expected))) + float(np.max(np.abs(came)))
        through = through_link(net, last, came)
        yield holds(np.all(np.isfinite(host(net, vector))), "no read of a buffer before its write")
        expected = expected + textbook.pull_back(net, z, through, flat)
        what = "flowing" if flow else "held" if bidirectional else "alone"
        yield near(host(net, vector), expected, f"gradient, output {what}", scale=10.0 * scale)


def _size(z: Vector) -> float:
    return 1.0 + float(np.max(np.abs(z), initial=0.0))


def through_link(net: Network, z: Vector, error: Vector) -> Vector:
    """Return error · ∂a/∂z."""
    a = textbook.link(net.likelihood, z)
    name = net.likelihood.name
    if name == "multinomial":
        return np.asarray(a * (error - np.sum(error * a, axis=1, keepdims=True)))
    return np.asarray(error * a * (1.0 - a) if name == "bernoulli" else error)


def link_derivative(end: Any, z: Vector, t: Vector) -> Deviations:
    """``multiply_derivative`` multiplies by ∂a/∂z, by complex steps of the link."""
    likelihood, backend = end.likelihood, end.backend
    error = np.sin(np.arange(t.size, dtype=float)).reshape(t.shape)
    error = error.astype(end.dtype).astype(float)
    held = backend.asarray(error.copy(), end.dtype)
    likelihood.multiply_derivative(end.readout(z), held)

    def reads(at: Vector) -> Any:
        return np.sum(error * likelihood.at(at).a)

    yield from gradient_of(
        reads,
        z,
        backend.to_numpy(held).astype(float),
        "error through the link",
        generator=np.random.default_rng(0),
        method="complex",
        scale=1.0,
    )
