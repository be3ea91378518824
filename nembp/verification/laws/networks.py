"""Laws of networks: one direction, both, normalized layers, noise, copies, files, devices."""

from __future__ import annotations

import copy
import pickle
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nembp import textbook
from nembp.backend import Backend, stream
from nembp.checkpoints import Model, encode, environment, load_model, save_model
from nembp.datasets import Scaling
from nembp.engine import backprop
from nembp.engine.backprop import JointBackpropagation, backpropagate
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.linear import Dense, Transposed
from nembp.engine.network import Network
from nembp.engine.noise import PLACES, Noise, noisy_layers
from nembp.errors import ArchitectureError
from nembp.threads import threads
from nembp.verification import definitions
from nembp.verification.cases import Case, one_hot
from nembp.verification.laws.law import (
    BBP,
    BP,
    COMPLEX,
    NEM,
    host,
    is_gradient,
    largest,
    law,
    poisoned,
)
from nembp.verification.reports import Array, Deviations, equal, holds, near

NORM = "Ioffe and Szegedy 2015, algorithms 1 and 2"


Way: TypeAlias = tuple[Network, Array, Array]  # a direction, its inputs and its targets


def ways(net: Network, x: Array, t: Array) -> list[Way]:
    """Return both directions."""
    return [(net, x, t), (net.reversed, t, x)]


def directions(case: Case, backend: Backend) -> list[Way]:
    """Return both directions of a case."""
    return ways(case.net(device=backend), *case.batch())


def averages(net: Network) -> tuple[Any, ...]:
    """Return the statistics by which a network can normalize."""
    return ("batch", "running") if net.statistics_count else ("batch",)


def error_size(net: Network, x: Array, t: Array) -> float:
    """Return the size of what a direction's output error subtracts, on which rounding acts."""
    a = host(net, net.predict(x, "batch"))
    mass = largest(t.sum(axis=1)) if isinstance(net.likelihood, Multinomial) else 1.0
    return abs(net.likelihood.scale) * (largest(a) * (1.0 + mass) + largest(t) + 1e-3)


def joint_size(net: Network, x: Array, t: Array) -> float:
    """Return the same of both directions, times the signals that the errors are multiplied with."""
    return 2.0 * sum(error_size(*way) for way in ways(net, x, t)) * (1.0 + largest(x, t))


def unwritten(net: Network) -> Any:
    """Return a gradient vector full of NaN."""
    return net.backend.asarray(np.full(net.parameter_count, np.nan), net.dtype)


def step_of(
    net: Network,
    x: Array,
    t: Array,
    path: Any,
    noise: dict[str, Noise] | None = None,
    clock: tuple[int, int] = (1, 1),
    step: JointBackpropagation | None = None,
) -> tuple[Array, JointBackpropagation]:
    """Return a batch's joint gradient, in a vector that held NaN, and the step that gave it."""
    if step is None:
        drawn = {key: stream(7, f"noise/{key}") for key in noise or {}}
        step = JointBackpropagation(net, len(x), path=path, noise=noise, generators=drawn)
    step.x[...] = net.backend.asarray(x, net.dtype)
    step.t[...] = net.backend.asarray(t, net.dtype)
    gradient = unwritten(net)
    step(gradient, *clock)
    return host(net, gradient), step


def path_of(case: Case) -> str:
    """Return a path, one after the other by seed."""
    path = ("samples", "classes", "none")[case.seed % 3]
    return "samples" if path == "classes" and not case.backward.class_sums else path


def batch_for(case: Case, path: str) -> tuple[Array, Array]:
    """Return a batch that a path takes: of classes, whose targets are one-hot rows."""
    x, t = case.batch()
    return x, one_hot(case.generator("labels"), *t.shape) if path == "classes" else t


# -- one direction ---------------------------------------------------------------------------------
@law("gradient.definition", BBP)
def predictions(case: Case, backend: Backend) -> Deviations:
    """predict and log_likelihood = aᵏ = f(forward(aᵏ⁻¹) + bᵏ), written out."""
    if not case.known:
        return
    for net, x, t in directions(case, backend):
        flat = host(net, net.parameters)
        for by in averages(net):
            z = definitions.z_of(net, flat, x, statistics=by)
            size = 1.0 + largest(z)
            a, way = host(net, net.predict(x, by)), f"of the {net.direction} direction"
            expected = definitions.output_activation(net.likelihood, z)
            yield near(a, expected, f"prediction {way}", size)
            log_p = definitions.log_likelihood(net.likelihood, z, t)
            scale = 1.0 + abs(net.likelihood.scale) * size**2 * (1.0 + largest(t)) ** 2 * z.shape[1]
            actual = host(net, net.log_likelihood(x, t, by))
            yield near(actual, log_p, f"log-likelihood {way}", scale)


@law("gradient.complex-steps", BBP, tolerance=COMPLEX)
def complex_steps(case: Case, backend: Backend) -> Deviations:
    """∇(−mean log p) of each direction = Im f(θ + ih)/h, f written out."""
    for net, x, t in directions(case, backend) if case.known else ():
        for by in averages(net):
            gradient = host(net, backpropagate(net, x, t, statistics=by)[0])
            nll = partial(definitions.nll, net, x=x, t=t, statistics=by)
            what, g = f"gradient of the {net.direction} direction", case.generator("v")
            scale = error_size(net, x, t) * (1.0 + largest(x))
            yield from is_gradient(gradient, nll, host(net, net.parameters), what, g, scale)


@law("gradient.input-error", BBP, tolerance=COMPLEX)
def input_error(case: Case, backend: Backend) -> Deviations:
    """input error = ∂(−mean log p)/∂x."""
    for net, x, t in directions(case, backend) if case.known else ():
        error = host(net, backpropagate(net, x, t)[1])
        nll = partial(definitions.nll, net, host(net, net.parameters), t=t)
        what, g = f"input error of the {net.direction} direction", case.generator("v")
        yield from is_gradient(error, nll, x, what, g, error_size(net, x, t))


PAGE: dict[type, Any] = {
    Multinomial: textbook.Multinomial,
    Gaussian: textbook.Gaussian,
    Bernoulli: textbook.Bernoulli,
}


@law("gradient.textbook", BP)
def of_the_textbook(case: Case, backend: Backend) -> Deviations:
    """joint gradient = classical backpropagation in both directions (nembp.textbook)."""
    net, (x, t) = case.net(device=backend), case.batch()
    names = {u.activation.name if u.activation else "identity" for u in net.layers[1:-1]}
    name, *others = names or {"identity"}
    plain = all(u.biases == u.size and not u.normalization for u in net.layers)
    dense = plain and not others and all(type(m) is Dense for m in net.maps)
    pair = case.forward, case.backward
    if not (dense and name in textbook.ACTIVATIONS and all(type(end) in PAGE for end in pair)):
        return
    ends, sizes = [PAGE[type(end)](end.scale) for end in pair], [u.size for u in net.layers]
    page = textbook.Network(sizes, name, ends[0], ends[1], np.random.default_rng(0))
    page.theta[...] = host(net, net.parameters)
    gradient, scale = host(net, backprop.gradient(net, x, t)[1]), joint_size(net, x, t)
    yield near(gradient, page.gradient(x, t), "gradient", scale)


# -- both directions in three sweeps ---------------------------------------------------------------
def sum_of_directions(case: Case, backend: Backend, path: str) -> Deviations:
    """Compare a path's gradient with the sum of the one-direction gradients, and its nll."""
    if path == "classes" and not case.backward.class_sums:
        return
    net, (x, t) = case.net(device=backend), batch_for(case, path)
    both = [host(net, backpropagate(*way)[0]) for way in ways(net, x, t)]
    expected, scale = both[0] if path == "none" else both[0] + both[1], joint_size(net, x, t)
    gradient, step = step_of(net, x, t, path)
    yield near(gradient, expected, f"gradient by path {path}", scale)
    if case.known:  # what computes both could be wrong in both
        flat, used = host(net, net.parameters), ways(net, x, t)[: 1 if path == "none" else 2]

        def nll(at: Array) -> Any:
            return sum(definitions.nll(way, at, *pair) for way, *pair in used)

        g, what = case.generator("v"), f"gradient by path {path}"
        yield from is_gradient(gradient, nll, flat, what, g, 100.0 * scale, 6)
    if path == "samples":
        yield near(host(net, backprop.gradient(net, x, t)[1]), expected, "gradient", scale)
    if path == "none":
        views = net.reversed.views(net.backend.asarray(gradient, net.dtype))
        arrays = [b for b in (*views.biases, *views.gains) if b is not None]
        still = not any(np.any(host(net, b)) for b in arrays)
        yield holds(still, "backward biases have no gradient in unidirectional training")
    yield from recorded_nll(net, x, t, step)


@law("joint.samples", BBP)
def by_samples(case: Case, backend: Backend) -> Deviations:
    """joint gradient = ∇ forward + ∇ backward, a row for each sample."""
    yield from sum_of_directions(case, backend, "samples")


@law("joint.classes", BBP)
def by_classes(case: Case, backend: Backend) -> Deviations:
    """joint gradient = ∇ forward + ∇ backward, a row for each class."""
    yield from sum_of_directions(case, backend, "classes")


@law("joint.none")
def forward_alone(case: Case, backend: Backend) -> Deviations:
    """without the backward direction: ∇ forward, its biases alone."""
    yield from sum_of_directions(case, backend, "none")


@law("joint.blocks")
def in_blocks(case: Case, backend: Backend) -> Deviations:
    """rows in blocks on three threads give the same joint gradient."""
    if case.maps is not None:
        with threads(3):
            yield from sum_of_directions(case, backend, "classes" if case.seed % 2 else "samples")


def recorded_nll(net: Network, x: Array, t: Array, step: JointBackpropagation) -> Deviations:
    """Compare ``forward_nll`` and ``backward_nll`` with the mean nll of the clean targets."""
    recorded = (step.forward_nll, step.backward_nll)[: 1 if step.path == "none" else 2]
    for (way, source, target), value in zip(ways(net, x, t), recorded, strict=False):
        nll = -np.mean(host(way, way.log_likelihood(source, target, "batch")))
        # class sums form mass ‖a‖² − 2⟨a, t⟩ + square, which cancels
        squares = np.sum(target**2) + np.sum(host(way, way.predict(source, "batch")) ** 2)
        scale = 1.0 + abs(way.likelihood.scale) * (1.0 + float(squares))
        what = f"{way.direction} nll recorded by path {step.path}"
        yield near(host(way, value), [[nll]], what, scale)


@law("joint.no-memory")
def keeps_no_memory(case: Case, backend: Backend) -> Deviations:
    """a step depends on its batch and parameters alone."""
    path, net = path_of(case), case.net(device=poisoned(backend))
    x, t = batch_for(case, path)
    _, step = step_of(net, x, t, path)
    x, t = case.rounded(0.5 * x[::-1] + 0.25), t[::-1].copy()
    net.parameters[...] = net.backend.asarray(0.7 * host(net, net.parameters)[::-1], net.dtype)
    again, _ = step_of(net, x, t, path, step=step)
    nll = [host(net, value) for value in (step.forward_nll, step.backward_nll)]
    fresh, other = step_of(net, x, t, path)
    scale = joint_size(net, x, t)
    yield holds(np.all(np.isfinite(fresh)), f"path {path}: no read of a buffer before its write")
    yield near(again, fresh, f"path {path}: gradient after another batch", scale)
    vector = unwritten(net)
    for _ in range(2):  # the second time its views are known
        step(vector)
        yield near(host(net, vector), fresh, f"path {path}: what a vector held,", scale)
        vector[...] = unwritten(net)
    for value, expected in zip(nll, (other.forward_nll, other.backward_nll), strict=True):
        yield near(value, host(net, expected), f"path {path}: nll", 1.0 + scale)


@law("linear.step", "Lavin and Gray 2016; nembp's definition", every=8)
def in_a_step(case: Case, backend: Backend) -> Deviations:
    """What a training step computes through one convolution = its definition, at any size."""
    g = case.generator("convolution")

    def pick(low: int, high: int) -> int:
        return int(g.integers(low, high + 1))

    shape, stride = (pick(5, 12), pick(5, 12), pick(1, 6)), (pick(1, 2), pick(1, 2))
    conv = Convolution(
        shape, pick(1, 8), (pick(1, 4), pick(1, 4)), stride, (pick(0, 1), pick(0, 1))
    )
    one = Case((conv.inputs, conv.outputs), rows=pick(1, 40), seed=case.seed, dtype=case.dtype)
    one = one.with_(biases=(shape[2], conv.channels), maps=(conv,), forward=Gaussian())
    if g.random() < 0.3:
        one = one.with_(
            maps=(Transposed(conv),), sizes=one.sizes[::-1], biases=(conv.channels, shape[2])
        )
    yield from sum_of_directions(one, backend, "samples")
    yield from keeps_no_memory(one, backend)


# -- normalized layers -----------------------------------------------------------------------------
@law("normalization.statistics", NORM)
def moving_statistics(case: Case, backend: Backend) -> Deviations:
    """a step moves r to (1 − m) r + m (μ, σ² N/(N − 1)); nothing else moves them."""
    net, path = case.net(device=poisoned(backend)), path_of(case)
    if not net.statistics_count or not case.known:
        return
    x, t = batch_for(case, path)
    before, flat = host(net, net.statistics), host(net, net.parameters)
    expected = net.copy()
    for way, source, _ in ways(net, x, t):
        way.predict(source)
        way.predict(source, "batch")
        other = expected if way is net else expected.reversed
        moments = definitions.run(way, flat, source)[2]
        for k, layer in enumerate(way.layers):
            values = len(source) * layer.size // max(layer.biases, 1)
            pair = other.running[k]
            if pair is None or values < 2 or (way is not net and path == "none"):
                continue
            assert layer.normalization is not None
            m, (mean, variance) = layer.normalization.momentum, moments[k - 1]
            for running, batch in zip(pair, (mean, variance * values / (values - 1)), strict=True):
                moved = (1 - m) * host(net, running) + m * batch
                running[...] = net.backend.asarray(moved, net.dtype)
    yield equal(host(net, net.statistics), before, "statistics after predictions")
    _, step = step_of(net, x, t, path)
    moved, scale = host(net, net.statistics), 1.0 + largest(host(net, expected.statistics))
    yield near(moved, host(net, expected.statistics), f"statistics after path {path}", scale)
    step.moves_statistics = False
    step_of(net, x, t, path, step=step)
    yield equal(host(net, net.statistics), moved, "statistics that are not to move")


@law("normalization.evaluation", NORM)
def evaluation(case: Case, backend: Backend) -> Deviations:
    """by running statistics each row is by itself."""
    for net, x, _ in directions(case, backend):
        if net.statistics_count:
            together = host(net, net.predict(x))
            alone = np.concatenate([host(net, net.predict(x[i : i + 1])) for i in range(len(x))])
            what = f"rows one by one, {net.direction} direction"
            yield near(alone, together, what, 1.0 + largest(together))


# -- noise on targets ------------------------------------------------------------------------------
CLOCK = 2, 30  # epoch and iteration, for annealing


def noisy_step(
    case: Case, backend: Backend, path: str
) -> tuple[Network, Array, JointBackpropagation, dict[str, Any]] | None:
    """Return network, gradient and step with noise on targets, and each direction's facts.

    The facts: direction, target, z, noise by definition, share kept, σ. None where rounding decides
    about a draw, or there is none.
    """
    if not case.known or not case.noise:
        return None
    net, (x, t) = case.net(device=poisoned(backend)), batch_for(case, path)
    flat, facts = host(net, net.parameters), {}
    for way, source, target in ways(net, x, t)[: 1 if path == "none" else 2]:
        z, spec = definitions.z_of(way, flat, source), case.noise.get(way.direction)
        if spec is not None:
            std = definitions.standard_deviation(spec, *CLOCK)
            given = spec, way.likelihood, z, target, std, stream(7, f"noise/{way.direction}")
            n, share, tied = definitions.target_noise(*given, case.dtype)
            if tied:
                return None
            facts[way.direction] = way, target, z, n, share, std
    return net, *step_of(net, x, t, path, case.noise, CLOCK), facts


@law("noise.screening", NEM)
def screening(case: Case, backend: Backend) -> Deviations:
    """NEM: gain ≥ 0, anti: gain ≤ 0, blind: every draw, σₜ = σ₀ / tᵈ; as defined, by its stream."""
    found = noisy_step(case, backend, "samples")
    if found is None:
        return
    net, _, step, facts = found
    for name, (way, target, z, n, share, std) in facts.items():
        noise, source = case.noise[name], step.sources[name]
        drawn = host(net, source.n)
        size = 1.0 + largest(z) + largest(target) + largest(drawn)
        scale = way.likelihood.scale * size * (std + largest(drawn)) * target.shape[1]
        terms = definitions.gain_terms(way.likelihood, z, target, drawn)
        judged = definitions.gain_of(noise, way.likelihood, z, target)(drawn)
        mean = terms.sum() / len(target)
        yield from as_drawn(net, noise, source, (n, share, judged, mean), std, scale)


def as_drawn(
    net: Network, noise: Noise, source: Any, defined: Any, std: float, scale: float
) -> Deviations:
    """Compare noise, and what its source records, with the definition; NEM lowers no likelihood."""
    n, share, gain, mean = defined
    yield near(host(net, source.n), n, f"{noise.kind} noise", 100.0 * std)
    worst = np.minimum({"nem": 1.0, "anti": -1.0}.get(noise.kind, 0.0) * gain, 0.0)
    yield near(worst, np.zeros_like(worst), f"gain of {noise.kind} noise", scale)
    yield near(host(net, source.gain), [[mean]], "mean gain recorded", 10.0 * scale)
    yield near(host(net, source.accepted), [[share]], "share accepted", 1.0)


@law("joint.noisy", NEM)
def noisy_gradient(case: Case, backend: Backend) -> Deviations:
    """noisy joint gradient = backpropagation on the noisy targets."""
    path = path_of(case)
    found = noisy_step(case, backend, path)
    if found is None:
        return
    net, gradient, step, facts = found
    yield holds(set(step.sources) == set(facts), f"noise on the targets of {sorted(facts)} alone")
    x, t = batch_for(case, path)
    parts, flat, scale = [], host(net, net.parameters), joint_size(net, x, t)
    for way, source, target in ways(net, x, t)[: 1 if path == "none" else 2]:
        n, update = np.zeros_like(target), "exact"
        if way.direction in facts:
            n, update = facts[way.direction][3], case.noise[way.direction].update
            scale += 4.0 * way.likelihood.scale * largest(n) * n.shape[1] * (1.0 + largest(source))
        z = definitions.z_of(way, flat, source)
        error = definitions.output_error(way.likelihood, z, target + n, update) / len(x)
        parts.append((way, source, error))

    def form(at: Array) -> Any:
        return sum(np.sum(e * definitions.z_of(way, at, source)) for way, source, e in parts)

    what, g = f"noisy gradient by path {path}", case.generator("v")
    yield from is_gradient(gradient, form, flat, what, g, 10.0 * scale, 4)
    yield from recorded_nll(net, x, t, step)


# -- noise on signals ------------------------------------------------------------------------------
def signal_step(case: Case, backend: Backend) -> Any:
    """Return a step with noise on signals of one direction; None where the case has none."""
    spec = case.forward_noise
    if not case.known or spec.kind == "none":
        return None
    place, way = PLACES[case.seed % 3], ("forward", "backward")[case.seed // 3 % 2]
    net, (x, t) = case.net(device=poisoned(backend)), case.batch()
    view = net if way == "forward" else net.reversed
    if not any(layer.activation for layer in view.layers):
        place = "input"
    other = {"component": "auto", "curvature": "gaussian"}  # signals have neither
    screened, law = (other.get(v, v) for v in (spec.screening, spec.law))
    spec = replace(spec, screening=screened, law=law, update="exact")  # type: ignore[arg-type]
    key = f"{way}/{place}"
    gradient, step = step_of(net, x, t, "samples", {key: spec}, CLOCK)
    names = {k: place if place == "input" else f"{place}-{k}" for k in noisy_layers(view, place)}
    sources = {k: step.sources[f"{way}/{name}"] for k, name in names.items()}
    return net, view, spec, key, gradient, step, sources


@law("noise.signals", NEM)
def signals(case: Case, backend: Backend) -> Deviations:
    """on signals: log p(t|aᵏ+n) − log p(t|aᵏ) ≥ 0 for NEM, ≤ 0 for anti."""
    found = signal_step(case, backend) if not case.normalized else None
    if found is None:
        return
    net, view, spec, key, _, _, sources = found
    x, t = case.batch() if view is net else case.batch()[::-1]
    flat, generator = host(view, view.parameters), stream(7, f"noise/{key}")
    before: dict[int, Array] = {}
    std = definitions.standard_deviation(spec, *CLOCK)

    def log_p(noise: dict[int, Array]) -> Array:
        z = definitions.z_of(view, flat, x, noise=noise)
        return definitions.log_likelihood(view.likelihood, z, t)[:, None]

    def gain_of(n: Array, k: int, before: dict[int, Array], clean: Array) -> Array:
        each = log_p({**before, k: n}) - clean
        return np.full_like(each, each.mean()) if spec.screening == "expectation" else each

    for k, source in sources.items():
        clean, signal = log_p(before), definitions.run(view, flat, x, noise=before)[0][k]
        gain, size = partial(gain_of, k=k, before=dict(before), clean=clean), 1.0 + largest(clean)
        rounding = 300.0 * float(np.finfo(case.dtype).eps) * size
        taken = definitions.Screening(spec, gain, rounding)
        given = spec, view.likelihood, None, signal, std, generator, case.dtype
        n, share = taken.noise_from(partial(definitions.draws, *given))
        if taken.tied:
            return
        drawn = host(view, source.n)
        mean = np.mean(log_p({**before, k: drawn}) - clean)
        defined = n, share, gain(drawn), mean
        yield from as_drawn(view, spec, source, defined, std, 10.0 * size)
        before[k] = drawn


@law("noise.signal-gradient", NEM, tolerance=COMPLEX)
def signal_gradient(case: Case, backend: Backend) -> Deviations:
    """on signals: joint gradient = ∇(−mean log p(t|aᵏ+n)), n fixed."""
    found = signal_step(case, backend)
    if found is None:
        return
    net, view, _, key, gradient, step, sources = found
    (x, t), flat = case.batch(), host(net, net.parameters)
    drawn = {k: host(net, source.n) for k, source in sources.items()}

    def nll(at: Array) -> Any:
        total = 0.0
        for way, source, target in ways(net, x, t):
            noise = drawn if way.direction == view.direction else {}
            total = total + definitions.nll(way, at, source, target, noise=noise)
        return total

    scale = 10.0 * joint_size(net, x, t) * (1.0 + largest(*drawn.values())) ** 2
    yield from is_gradient(gradient, nll, flat, f"gradient, {key}", case.generator("v"), scale, 4)
    yield equal(host(net, step.x), x, "x after the step")
    yield equal(host(net, step.t), t, "t after the step")


# -- views, copies, files, devices -----------------------------------------------------------------
@law("network.views", BBP)
def views(case: Case, backend: Backend) -> Deviations:
    """net.reversed.reversed is net; both are views of one vector, each entry once."""
    yield from _views(case.net(device=backend))


def _views(net: Network) -> Deviations:
    forward = net if net.direction == "forward" else net.reversed
    back, kept = forward.reversed, net.snapshot()
    yield holds(net.reversed.reversed is net, "net.reversed.reversed is net")
    yield holds(forward.parameters is back.parameters, "the directions share one vector")
    yield holds(forward.statistics is back.statistics, "the directions share their statistics")
    for flat in (net.parameters, net.statistics):
        flat[...] = net.backend.asarray(np.arange(flat.shape[0]), net.dtype)
    gains = *forward.gains, *back.gains[::-1]
    pieces = *forward.weights, *forward.biases, *back.biases[::-1], *gains
    pairs = [pair for pair in (*forward.running, *back.running[::-1]) if pair is not None]
    moments = [each for pair in pairs for each in pair]
    for flat, views, what in ((net.parameters, pieces, "entry"), (net.statistics, moments, "mean")):
        seen = [host(net, piece).reshape(-1) for piece in views if piece is not None]
        expected = np.arange(flat.shape[0])
        yield equal(np.concatenate([np.zeros(0), *seen]), expected, f"{what} seen through views")
    for W, other in zip(forward.weights, back.weights[::-1], strict=True):
        yield equal(host(net, W), host(net, other), "weights of the other direction")
    sizes = [None if b is None else tuple(b.shape) for b in net.biases]
    yield holds(sizes == [None, *((u.biases,) for u in net.layers[1:])], "sizes of the biases")
    for flat, before in zip((net.parameters, net.statistics), kept, strict=True):
        flat[...] = net.backend.asarray(before, net.dtype)


def kinds_of(net: Network) -> tuple[Any, ...]:
    """Return all but the numbers of a network."""
    return net.layers, net.maps, net.likelihood, net.reversed.likelihood, net.direction


@law("network.copies", every=4)
def copies(case: Case, backend: Backend) -> Deviations:
    """a copy shares no memory, and is the same network."""
    other, coarse = ("float32", 1e-6) if case.dtype == "float64" else ("float64", 1e-4)
    for net, x, t in directions(case, backend):
        before = net.snapshot()
        predicted = host(net, net.predict(x)), host(net, net.reversed.predict(t))
        same = net.copy(), copy.deepcopy(net), pickle.loads(pickle.dumps(net))
        for twin, dtype, slack in (
            *((n, net.dtype, None) for n in same),
            (net.to(dtype=other), other, coarse),
        ):
            yield from _views(twin)
            alike = kinds_of(twin) == kinds_of(net) and twin.dtype == dtype
            yield holds(alike, "kinds of the copy")
            for flat, expected in zip(twin.snapshot(), before, strict=True):
                yield equal(flat, expected.astype(dtype), "parameter or statistic of the copy")
            again, what = (twin.predict(x), twin.reversed.predict(t)), "prediction of a copy"
            for value, expected in zip(again, predicted, strict=True):
                scale = 1.0 + largest(*predicted)
                yield near(host(twin, value), expected, what, scale, tolerance=slack)
            twin.parameters[...] = twin.backend.asarray(before[0] + 0.25, dtype)
            yield equal(net.snapshot()[0], before[0], "the original's parameters")
            yield equal(host(net, net.predict(x)), predicted[0], "the original's prediction")


@law("files.round-trip", every=8)
def round_trip(case: Case, backend: Backend) -> Deviations:
    """load(save(net)) = net, bit for bit."""
    net, (x, t) = case.net(device=backend), case.batch()
    try:
        encode((net.layers, net.maps, case.forward, case.backward))
    except ArchitectureError:
        return  # a part of yours that is not registered cannot be in a file
    model = Model(
        net=net, shape=(net.inputs,), classes=(), target_names=(), x_scaling=Scaling(),
        y_scaling=Scaling(), centroids=None, is_image=False, dataset="random", settings={},
        environment=environment(net),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model.npz", model)
        loaded = load_model(Path(folder) / "model.npz", backend).net
    for flat, same in zip(net.snapshot(), loaded.snapshot(), strict=True):
        yield equal(same, flat, "parameters or statistics of the loaded network")
    alike = kinds_of(loaded) == kinds_of(net) and loaded.dtype == net.dtype
    yield holds(alike, "layers, maps, likelihoods and dtype of the loaded network")
    for a, b, at in ((loaded, net, x), (loaded.reversed, net.reversed, t)):
        yield equal(host(a, a.predict(at)), host(b, b.predict(at)), "its prediction")
