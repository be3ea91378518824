"""The laws of the engine: one function each, which says how far a random case is from it.

They stand in the order in which ``nembp verify`` tries them: networks, single parts, trainings.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import dataclasses
import itertools
import math
import pickle
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any, TypeAlias, get_args

import numpy as np

from nembp import textbook
from nembp.adversarial.gradients import CycleBackpropagation
from nembp.adversarial.settings import AdversarialSettings, Kind
from nembp.adversarial.trainer import AdversarialTrainer
from nembp.backend import Backend, get_backend, stream
from nembp.checkpoints import Model, encode, environment, load_model, save_model
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.em import (
    BinaryNetwork,
    draw_noise,
    entropy,
    gem_step,
    nem_inequality,
    posterior,
    q,
    q_gradient,
)
from nembp.em import gradient as gradient_of_em
from nembp.engine import backprop
from nembp.engine.activations import Activation, get_activation
from nembp.engine.backprop import JointBackpropagation, backpropagate
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import (
    Bernoulli,
    Bipolar,
    Gaussian,
    Likelihood,
    Multinomial,
    Readout,
    Score,
)
from nembp.engine.linear import Dense, LinearMap, Transposed
from nembp.engine.network import Layer, Network, dense_network
from nembp.engine.noise import PLACES, Noise, noisy_layers
from nembp.engine.optimizers import (
    OPTIMIZERS,
    SGD,
    Adam,
    Momentum,
    Optimizer,
    RMSProp,
    get_optimizer,
)
from nembp.engine.training import Trainer
from nembp.errors import ArchitectureError
from nembp.threads import threads
from nembp.verification import definitions
from nembp.verification.cases import SPREAD, Case, one_hot, random_targets
from nembp.verification.definitions import Array, knows
from nembp.verification.gradients import check_gradient
from nembp.verification.law import (
    BBP,
    BP,
    COMPLEX,
    NEM,
    Bench,
    Deviations,
    agrees,
    equal,
    holds,
    host,
    is_gradient,
    largest,
    law,
    near,
    poisoned,
)

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
@law("gradient.definition", BBP, known=True)
def predictions(case: Case, backend: Backend) -> Deviations:
    """predict and log_likelihood = aᵏ = f(forward(aᵏ⁻¹) + bᵏ), written out."""
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


@law("gradient.complex-steps", BBP, tolerance=COMPLEX, known=True)
def complex_steps(case: Case, backend: Backend) -> Deviations:
    """∇(−mean log p) of each direction = Im f(θ + ih)/h, f written out."""
    for net, x, t in directions(case, backend):
        for by in averages(net):
            gradient = host(net, backpropagate(net, x, t, statistics=by)[0])
            nll = partial(definitions.nll, net, x=x, t=t, statistics=by)
            what, g = f"gradient of the {net.direction} direction", case.generator("v")
            scale = error_size(net, x, t) * (1.0 + largest(x))
            yield from is_gradient(gradient, nll, host(net, net.parameters), what, g, scale)


@law("gradient.input-error", BBP, tolerance=COMPLEX, known=True)
def input_error(case: Case, backend: Backend) -> Deviations:
    """input error = ∂(−mean log p)/∂x."""
    for net, clean, t in directions(case, backend):
        # beside the zeros of hard inputs, which put rectifiers without biases at their kinks
        x = case.rounded(clean + 0.1 * case.generator("beside").standard_normal(clean.shape))
        error = host(net, backpropagate(net, x, t)[1])
        nll = partial(definitions.nll, net, host(net, net.parameters), t=t)
        what, g = f"input error of the {net.direction} direction", case.generator("v")
        yield from is_gradient(error, nll, x, what, g, error_size(net, x, t))


@law("gradient.textbook", BP, known=True)
def of_the_textbook(case: Case, backend: Backend) -> Deviations:
    """joint gradient = classical backpropagation in both directions (nembp.textbook)."""
    net, (x, t) = case.net(device=backend), case.batch()
    names = {u.activation.name if u.activation else "identity" for u in net.layers[1:-1]}
    name, *others = names or {"identity"}
    plain = all(u.biases == u.size and not u.normalization for u in net.layers)
    dense = plain and not others and all(type(m) is Dense for m in net.maps)
    pair, sizes = (case.forward, case.backward), [u.size for u in net.layers]
    kinds: list[Any] = [getattr(textbook, type(end).__name__, None) for end in pair]
    if not (dense and name in textbook.ACTIVATIONS and all(kinds)):
        return
    ends = [kind(end.scale) for kind, end in zip(kinds, pair, strict=True)]
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
@law("normalization.statistics", NORM, known=True)
def moving_statistics(case: Case, backend: Backend) -> Deviations:
    """a step moves r to (1 − m) r + m (μ, σ² N/(N − 1)); nothing else moves them."""
    net, path = case.net(device=poisoned(backend)), path_of(case)
    if not net.statistics_count:
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
    if not case.noise:
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


@law("noise.screening", NEM, known=True)
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


@law("joint.noisy", NEM, known=True)
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
    if "forward" not in case.noise:
        return None
    spec = case.noise["forward"]
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


@law("noise.signals", NEM, known=True)
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


@law("noise.signal-gradient", NEM, tolerance=COMPLEX, known=True)
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


TRILINEAR = "∂T/∂y, ∂T/∂x, ∂T/∂W of T(x, W, y) = ⟨x·W, y⟩"
NAMES = ("forward", "adjoint", "weight gradient")


# -- linear maps -----------------------------------------------------------------------------------
def random_arrays(m: LinearMap, bench: Bench) -> tuple[Array, Array, Array, float]:
    """Return x, W and y for a linear map, and the size of the terms of a contraction."""
    x, W = bench.normal(bench.rows, m.inputs), bench.normal(*m.weight_shape)
    y = bench.normal(bench.rows, m.outputs)
    return x, W, y, bench.rows * math.prod(max(1.0, largest(array)) for array in (x, W, y))


def contractions(m: LinearMap, bench: Bench, x: Array, W: Array, y: Array) -> list[Array]:
    """Return forward(x), adjoint(y) and, of a map with weights, weight_gradient(x, y)."""
    up, down, outer = (partial(f, bench.backend) for f in (m.forward, m.adjoint, m.weight_gradient))
    results = [
        bench.written(up, (len(x), m.outputs), x=x, W=W),
        bench.written(down, (len(y), m.inputs), y=y, W=W),
    ]
    return results + ([bench.written(outer, m.weight_shape, x=x, y=y)] if m.weight_count else [])


def alike(found: list[Array], expected: list[Array], when: str, scale: float) -> Deviations:
    """Compare the contractions of two ways."""
    for name, actual, value in zip(NAMES, found, expected, strict=False):
        yield near(actual, value, f"{name}{when}", scale)


@law("linear.trilinear", TRILINEAR, over=LinearMap)
def trilinear(m: LinearMap, bench: Bench) -> Deviations:
    """⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, weight_gradient(x, y)⟩ for every x, W and y."""
    x, W, y, _ = random_arrays(m, bench)
    gradient, norm = contractions(m, bench, x, W, y)[2:], np.linalg.norm
    for _ in range(3):  # the gradient does not see W, nor the adjoint x: both sides are linear
        up, down = contractions(m, bench, x, W, y)[:2]
        scale, form = float(norm(up) * norm(y) + norm(x) * norm(down)), np.sum(up * y)
        yield near(np.sum(x * down), form, "⟨x, adjoint(y)⟩", scale)
        for G in gradient:
            size = scale + float(norm(W) * norm(G))
            yield near(np.sum(W * G), form, "⟨W, weight_gradient(x, y)⟩", size)
        W = bench.normal(*W.shape)


@law("linear.definition", over=LinearMap, known=True)
def definition(m: LinearMap, bench: Bench) -> Deviations:
    """forward = x M(W), adjoint = y M(W)ᵀ, weight_gradient = ∂⟨x M(W), y⟩/∂W, M written out."""
    x, W, y, scale = random_arrays(m, bench)
    up, down, *gradient = contractions(m, bench, x, W, y)
    matrix = definitions.matrix_of(m, W)
    yield near(up, x @ matrix, "forward", scale)
    yield near(down, y @ matrix.T, "adjoint", scale)
    for _ in range(3 if m.weight_count else 0):
        V = bench.normal(*W.shape)
        form = np.sum((x @ definitions.matrix_of(m, V)) * y)
        yield near(np.sum(V * gradient[0]), form, "⟨V, weight gradient⟩", scale * W.size)


@law("linear.transposed", BBP, over=LinearMap)
def transposed(m: LinearMap, bench: Bench) -> Deviations:
    """Transposed swaps forward and adjoint over the same W, and undoes itself."""
    x, W, y, scale = random_arrays(m, bench)
    turned = Transposed(m)
    shapes = turned.inputs, turned.outputs, turned.weight_shape, turned.weight_count
    expected = m.outputs, m.inputs, m.weight_shape, m.weight_count
    yield holds(shapes == expected, "sizes of the transposed map")
    here = contractions(m, bench, x, W, y)
    there = contractions(turned, bench, y, W, x)
    yield from alike([there[1], there[0], *there[2:]], here, " of the transposed", scale)
    back = contractions(Transposed(turned), bench, x, W, y)
    yield from alike(back, here, " transposed twice", scale)


@law("linear.contract", over=LinearMap, every=2)
def linear_contract(m: LinearMap, bench: Bench) -> Deviations:
    """Every entry of out is written, in any memory layout, rows by themselves, arguments alone."""
    x, W, y, scale = random_arrays(m, bench)
    here = contractions(m, bench, x, W, y)
    for name, result in zip(NAMES, here, strict=False):
        yield holds(np.all(np.isfinite(result)), f"{name} writes every entry of out")
    each = [contractions(m, bench, x[k : k + 1], W, y[k : k + 1]) for k in range(bench.rows)]
    alone = [np.concatenate([one[i] for one in each]) for i in (0, 1)]
    sums = [np.sum([one[2] for one in each], axis=0)] if m.weight_count else []
    yield from alike([*alone, *sums], here, " row by row", scale)
    for function, signal, result in ((m.forward, x, here[0]), (m.adjoint, y, here[1])):
        rows = bench.array(np.concatenate([signal, signal + 1.0]))[: bench.rows, :]
        out = bench.nan(result.shape[::-1])
        function(bench.backend, rows, bench.array(W), out.T)
        yield near(bench.numpy(out).T, result, "an out of another memory layout", scale)
    one, two = (np.asarray(m.initial_weights(stream(bench.seed, "weights"))) for _ in range(2))
    fine = one.size == m.weight_count and np.array_equal(one, two) and np.all(np.isfinite(one))
    yield holds(fine, f"initial weights are {m.weight_count}, finite and the generator's alone")
    yield holds(one.size < 2 or np.ptp(one) > 0.0, "initial weights differ")
    yield holds(not bench.changed, f"no call writes into its argument {sorted(bench.changed)}")


@law("linear.no-memory", over=LinearMap, every=4)
def remembers_nothing(m: LinearMap, bench: Bench) -> Deviations:
    """Results depend on x, W and y, not on calls before."""
    *arrays, _ = random_arrays(m, bench)
    before = contractions(m, bench, *arrays)
    for rows in (bench.rows + 2, max(1, bench.rows - 1), bench.rows):
        shapes = (rows, m.inputs), m.weight_shape, (rows, m.outputs)
        contractions(m, bench, *(np.full(shape, np.nan) for shape in shapes))
    yield from alike(contractions(m, bench, *arrays), before, " after other calls", 1.0)


@law("linear.threads", over=LinearMap, every=11)
def reentrant(m: LinearMap, bench: Bench) -> Deviations:
    """Calls of two threads do not meet."""
    (*mine, scale), (*theirs, other_scale) = (random_arrays(m, bench) for _ in range(2))
    expected = [contractions(m, bench, *arrays) for arrays in (mine, theirs)]
    seen: list[list[Array]] = []

    def other(twin: Backend) -> None:
        seen.append(contractions(m, Bench(twin, bench.dtype, bench.rows, 0), *theirs))

    twin = handing_over(bench.backend, other)
    found = contractions(m, Bench(twin, bench.dtype, bench.rows, 0), *mine)
    yield from alike(found, expected[0], " interrupted", scale)
    for results in seen:
        yield from alike(results, expected[1], " from another thread", other_scale)


def handing_over(backend: Backend, other: Callable[[Backend], None]) -> Backend:
    """Return a twin before each of whose operations ``other`` runs in another thread, 40 times."""
    twin, owner, left = copy.copy(backend), get_ident(), [40]

    def wrapped(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if get_ident() == owner and left[0]:
                left[0] -= 1
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(contextvars.copy_context().run, other, twin).result()
            return operation(*args, **options)

        return call

    for name in ("add_windows", "copy_windows", "empty", "matmul", "ones", "zeros"):
        if hasattr(backend, name):
            setattr(twin, name, wrapped(getattr(backend, name)))
    return twin


# -- activations -----------------------------------------------------------------------------------
def applied(f: Activation, bench: Bench, z: Array) -> Array:
    """Return f(z)."""
    a = bench.array(z)
    f.activate(bench.backend, a, bench.nan(z.shape))
    return bench.numpy(a)


def multiplied(f: Activation, bench: Bench, error: Array, a: Array) -> Array:
    """Return error ∘ f'(z) where f(z) = a."""
    out, given = bench.array(error), bench.array(a)
    f.multiply_derivative(bench.backend, out, given, bench.nan(a.shape))
    if not np.array_equal(bench.numpy(given), bench.numpy(bench.array(a)), equal_nan=True):
        bench.changed.add("a")
    return bench.numpy(out)


@law("activation.derivative", "Squire and Trapp 1998: complex steps", over=Activation)
def activation_derivative(f: Activation, bench: Bench) -> Deviations:
    """multiply_derivative(e, a) = e ∘ f'(z), a = f(z), the slope of activate."""
    if not knows(f):
        yield from measured_derivative(f, bench)
        return
    z = 2.0 * bench.normal(bench.rows, 7)
    a, error = applied(f, bench, z), bench.normal(bench.rows, 7)
    yield near(a, definitions.activate(f, z), "f(z)", 1.0)
    h = definitions.STEP
    slope = np.imag(definitions.activate(f, z + 1j * h)) / h
    yield near(multiplied(f, bench, error, a), error * slope, "error ∘ f'(z)", 1.0 + largest(error))


def measured_derivative(f: Activation, bench: Bench) -> Deviations:
    """Compare with slopes of ``activate``; at kinks, 0 among them, with both one-sided ones."""
    if bench.dtype != "float64":
        return
    z = np.concatenate([[0.0, 1e-3, -1e-3, 0.5, -0.5, 1.0, -1.0, 4.0, -4.0], bench.normal(40)])
    w, backend = bench.generator.uniform(0.5, 1.5, z.size), bench.backend

    def value(z: Array) -> Any:
        if z.dtype.kind != "c":
            return np.sum(w * applied(f, bench, z[None])[0])
        a = backend.asarray(z[None].copy())
        f.activate(backend, a, backend.asarray(np.full(a.shape, np.nan + 0j)))
        return np.sum(w * backend.to_numpy(a)[0])

    def slopes(z: Array) -> Array:
        return np.ravel(multiplied(f, bench, w[None], applied(f, bench, z[None])))

    options: Any = {"name": "slope of activate", "blocks": {"f'(z)": z.shape}, "raises": False}
    report = check_gradient(value, z, gradient=slopes, scale=1.0, seed=bench.seed, **options)
    yield agrees(report)
    if f.analytic and report.passed and backend.name == "cpu":
        complex_steps = report.method == "complex"
        yield holds(complex_steps, "complex steps do not apply, so analytic must be False")


@law("activation.curvature", "Gulrajani and others 2017", over=Activation, known=True)
def activation_curvature(f: Activation, bench: Bench) -> Deviations:
    """multiply_curvature(e, a) = e ∘ f''(z) / f'(z)."""
    if f.piecewise_linear:
        return
    z, error = bench.normal(bench.rows, 7), bench.normal(bench.rows, 7)
    a, held = applied(f, bench, z), bench.array(error)
    f.multiply_curvature(bench.backend, held, bench.array(a), bench.nan(a.shape))
    h = definitions.STEP
    second = np.imag(definitions.derivative(f, z + 1j * h)) / h
    expected = error * second / definitions.derivative(f, z)
    yield near(bench.numpy(held), expected, "error ∘ f''/f'", 1.0 + largest(error))


@law("activation.contract", over=Activation, every=4)
def activation_contract(f: Activation, bench: Bench) -> Deviations:
    """f acts on each neuron by itself, stays finite, multiplies the error, and leaves a alone."""
    for dtype in ("float32", "float64"):
        at = Bench(bench.backend, dtype, 1, 0)
        z = np.array([[0.0, 1e-3, 0.5, 1.0, 4.0, 12.0, 20.0, 100.0, 1e3, 1e4]])
        z = np.concatenate([z, -z], axis=1)
        a = applied(f, at, z)
        both = np.concatenate([a, multiplied(f, at, np.ones_like(a), a)])
        bad = np.isnan(both) | (~np.isfinite(both) & (np.abs(z) <= 20.0))
        where = z[0, np.flatnonzero(bad.any(axis=0))[:1]]
        yield holds(not where.size, f"f and f' are finite in {dtype}, but not at z = {where}")
    z = np.concatenate([bench.normal(1, 40), 0.3 * bench.normal(1, 20)], axis=1)
    a, order = applied(f, bench, z), bench.generator.permutation(60)
    yield near(applied(f, bench, z[:, order].T)[:, 0], a[0, order], "f(z) in another order", 1.0)
    slope, error = multiplied(f, bench, np.ones_like(a), a), bench.normal(1, 60)
    yield near(multiplied(f, bench, error, a), error * slope, "the error multiplied", 1.0)
    yield holds(not bench.changed, "a is left alone by multiply_derivative")


# -- likelihoods -----------------------------------------------------------------------------------
class Calls:
    """A likelihood's functions on a bench, on readouts whose work space holds NaN."""

    def __init__(self, likelihood: Likelihood, bench: Bench) -> None:
        self.likelihood, self.bench = likelihood, bench

    def readout(self, z: Array) -> Readout:
        bench = self.bench
        o = Readout(poisoned(bench.backend), len(z), z.shape[1], bench.dtype)
        o.z[...] = bench.array(z)
        self.likelihood.activate(o)
        return o

    def activation(self, z: Array) -> Array:
        return self.bench.numpy(self.readout(z).a)

    def log_p(self, z: Array, t: Array, *sums: Array) -> Array:
        """Return log p(t) of each row, shape (rows,)."""

        def write(*given: Any) -> None:
            *targets, out = given
            out[...] = self.likelihood.log_likelihood(self.readout(z), *targets)

        given = dict(zip(("t", "counts", "square"), (t, *sums), strict=False))
        return self.bench.written(write, (len(z), 1), **given)[:, 0]

    def _of_readout(self, function: Callable[..., None], z: Array, **given: Array) -> Array:
        o, bench = self.readout(z), self.bench
        before = bench.numpy(o.z), bench.numpy(o.a)
        result = bench.written(partial(function, o), z.shape, **given)
        for name, was, now in zip(("o.z", "o.a"), before, (o.z, o.a), strict=True):
            if not np.array_equal(bench.numpy(now), was, equal_nan=True):
                bench.changed.add(name)
        return result

    def error(self, z: Array, t: Array, **options: Any) -> Array:
        """Return −∂log p/∂z."""
        if isinstance(options.get("counts"), np.ndarray):
            options["counts"] = self.bench.array(options["counts"])
        return self._of_readout(partial(self.likelihood.error, **options), z, t=t)

    def gain(self, z: Array, t: Array, n: Array) -> Array:
        return self._of_readout(self.likelihood.gain_terms, z, t=t, n=n)

    def gain_slope(self, z: Array, t: Array) -> Array:
        return self._of_readout(self.likelihood.gain_slope, z, t=t)


def at_end(
    likelihood: Likelihood, bench: Bench, width: int = 4
) -> tuple[Calls, Array, Array, Array, float]:
    """Return the calls, z, t, noise and the size of what an error subtracts."""
    g = bench.generator
    z = bench.rounded(bench.normal(bench.rows, width) * float(g.choice([0.1, 1.0, 3.0])))
    n = bench.rounded(bench.normal(bench.rows, width) * float(g.choice([0.05, 0.5])))
    calls, t = Calls(likelihood, bench), bench.draw(likelihood, bench.rows, width)
    size = largest(calls.activation(z)) * (1.0 + largest(t.sum(axis=1)) + largest(n) * width)
    return calls, z, t, n, abs(likelihood.scale) * (size + largest(t) + largest(n))


@law("likelihood.definition", over=Likelihood, known=True)
def likelihood_definition(likelihood: Likelihood, bench: Bench) -> Deviations:
    """a = softmax, identity or logistic of z, and log p(t) is as written."""
    calls, z, t, n, size = at_end(likelihood, bench)
    expected = definitions.output_activation(likelihood, z)
    yield near(calls.activation(z), expected, "a", 1.0)
    for targets in (t, bench.rounded(t + n)):
        log_p = definitions.log_likelihood(likelihood, z, targets)
        scale = 1.0 + size * (1.0 + largest(z) + largest(targets)) * z.shape[1]
        yield near(calls.log_p(z, targets), log_p, "log p(t)", scale)


@law("likelihood.class-sums", "exponential families", over=Likelihood)
def class_sums(likelihood: Likelihood, bench: Bench) -> Deviations:
    """log p and error of a sum of targets = the sums of log p and error."""
    g = bench.generator
    if not (likelihood.class_sums if bench.sums is None else bench.sums):
        return
    if not likelihood.class_sums:
        why = "class_sums is False, so log p does not follow from sums of targets"
        yield holds(False, why)
        return
    calls, z, _, _, _ = at_end(likelihood, bench)
    members = g.integers(0, len(z), int(g.integers(1, 13)))
    t = bench.draw(likelihood, len(members), z.shape[1])
    belongs = np.eye(len(z))[members].T
    sums, mass = bench.rounded(belongs @ t), belongs.sum(axis=1, keepdims=True)
    square = bench.rounded(belongs @ np.sum(t * t, axis=1, keepdims=True))
    each, summed = calls.log_p(z[members], t), calls.log_p(z, sums, mass, square)
    a = calls.activation(z)
    scale = (1.0 + largest(each)) * len(members)
    scale += abs(likelihood.scale) * float(np.sum(square) + np.sum(mass * (1.0 + z * z + a * a)))
    yield near(summed, belongs @ each, "sum of log-likelihoods", scale)
    errors = belongs @ calls.error(z[members], t)
    scale = abs(likelihood.scale) * len(members) * (1.0 + largest(a) + largest(t))
    yield near(calls.error(z, sums, counts=mass), errors, "sum of errors", scale)


@law("likelihood.gain", NEM, over=Likelihood)
def gains(likelihood: Likelihood, bench: Bench) -> Deviations:
    """Σ gain(n) = log p(t+n) − log p(t), slope = ∂gain/∂n."""
    if not knows(likelihood) and bench.dtype != "float64":
        return  # near a pole of log p, rounding is large
    calls, z, t, n, size = at_end(likelihood, bench)
    terms, before = calls.gain(z, t, n), calls.log_p(z, t)
    after = calls.log_p(z, bench.rounded(t + n))
    size *= 1.0 + largest(z) + largest(t) + largest(n)
    scale = 10.0 * (1.0 + largest(before) + largest(after) + size * z.shape[1])
    yield near(terms.sum(axis=1), after - before, "gain", scale)
    if knows(likelihood):
        expected = definitions.gain_terms(likelihood, z, t, n)
        yield near(terms, expected, "gain of each neuron", scale)
    # where a gain is at most quadratic in the noise, this difference is exact
    h, tolerance = (1.0, None) if knows(likelihood) else (1e-4, 1e-6)
    ends = [calls.gain(z, t, np.full_like(z, way * h)) for way in (1.0, -1.0)]
    slope, difference = calls.gain_slope(z, t), (ends[0] - ends[1]) / (2.0 * h)
    yield near(slope, difference, "slope of the gain", scale, tolerance=tolerance)


@law("likelihood.output-derivative", over=Likelihood, tolerance=COMPLEX, known=True)
def output_derivative(likelihood: Likelihood, bench: Bench) -> Deviations:
    """An error at a = softmax, identity or logistic of z reaches z times ∂a/∂z."""
    calls, z, t, _, _ = at_end(likelihood, bench)
    error = bench.normal(*t.shape)
    held = bench.array(error)
    likelihood.multiply_derivative(calls.readout(z), held)

    def reads(at: Array) -> Any:
        return np.sum(error * definitions.output_activation(likelihood, at))

    yield from is_gradient(bench.numpy(held), reads, z, "∂/∂z", bench.generator, 4.0)


@law("likelihood.contract", over=Likelihood, every=4)
def likelihood_contract(likelihood: Likelihood, bench: Bench) -> Deviations:
    """Results are whole, rows by themselves, arguments alone; activate leaves a normal form."""
    calls, z, t, n, size = at_end(likelihood, bench)
    a, gain, error = calls.activation(z), calls.gain(z, t, n), calls.error(z, t)
    for name, result in (("a", a), ("gain", gain)):
        yield holds(np.all(np.isfinite(result)), f"every entry of {name} is written, and finite")
    o = calls.readout(z)
    likelihood.activate(o)
    yield near(bench.numpy(o.a), a, "a, activated twice", 1.0)
    scale = 1.0 + size * (1.0 + largest(z) + largest(t)) * z.shape[1]
    for name, terms in (("log_p", scale), ("error", size)):
        function = getattr(calls, name)
        result = function(z, t)
        yield holds(np.all(np.isfinite(result)), f"every entry of {name} is written, and finite")
        rows = [function(z[k : k + 1], t[k : k + 1]) for k in range(len(z))]
        yield near(np.concatenate(rows), result, f"{name} row by row", terms)
    yield near(calls.error(z, t, factor=0.25), 0.25 * error, "error with a factor", size)
    yield holds(not bench.changed, f"no call writes into its argument {sorted(bench.changed)}")


@law("likelihood.normalization", "p is a probability or a density", over=Likelihood, every=16)
def normalization(likelihood: Likelihood, bench: Bench) -> Deviations:
    """p adds up to 1 over labels, bits, signs, counts, real or positive numbers."""
    if bench.dtype != "float64":
        return
    kinds = {Multinomial: "labels", Bernoulli: "bits", Bipolar: "signs", Gaussian: "reals"}
    named = bench.support or kinds.get(type(likelihood))
    totals = {
        name: [
            total_probability(Calls(likelihood, bench), name, shift) for shift in (-1.0, 0.3, 1.1)
        ]
        for name in ([named] if named else SUPPORTS)
    }
    fits = [name for name, total in totals.items() if np.allclose(total, 1.0, atol=1e-6)]
    for name in [named] if named else fits[:1]:
        yield near(totals[name], np.ones(3), f"total over {name}", tolerance=1e-6)


SUPPORTS = ("labels", "bits", "signs", "counts", "reals", "positive")


def total_probability(calls: Calls, support: str, shift: float) -> float:
    """Return Σp over all targets of a support; a tempered p(t)ʷ is brought back to p(t)."""
    measure: Any = 1.0
    pairs = {"bits": (0.0, 1.0), "signs": (-1.0, 1.0)}
    if support in pairs:
        t = np.array(list(itertools.product(pairs[support], repeat=3)))
    elif support == "labels":
        t = np.eye(4)
    elif support == "counts":
        t = np.arange(401.0)[:, None]
    elif support == "reals":
        width = 14.0 / math.sqrt(max(calls.likelihood.scale, 1e-12))
        t = np.linspace(shift - width, shift + width, 20_001)[:, None]
        measure = t[1, 0] - t[0, 0]
    else:
        s = np.linspace(-30.0, 12.0, 20_001)[:, None]  # t = eˢ, dt = eˢ ds
        t = np.exp(s)
        measure = t[:, 0] * (s[1, 0] - s[0, 0])
    z = np.tile(np.linspace(shift, -shift, t.shape[1]) if t.shape[1] > 1 else [shift], (len(t), 1))
    log_p = calls.log_p(z, t) / calls.likelihood.tempering
    return float(np.sum(np.exp(log_p) * measure))


@law("invariance.slope", BP, over=Likelihood, tolerance=COMPLEX)
def error_is_slope(likelihood: Likelihood, bench: Bench) -> Deviations:
    """error = −∂log p/∂z at each end, on noisy targets too."""
    calls, z, t, n, size = at_end(likelihood, bench)
    known, g = knows(likelihood), bench.generator
    log_p = partial(definitions.log_likelihood, likelihood) if known else calls.log_p
    yield holds(t.shape == z.shape and np.all(np.isfinite(t)), f"targets have shape {z.shape}")
    for what, targets in (("proper", t), ("noisy", bench.rounded(t + n))):
        name, error = f"error, {what} targets", partial(calls.error, t=targets)

        def nll(at: Array, targets: Array = targets) -> Any:
            return -np.sum(log_p(at, targets))

        if known:
            yield from is_gradient(error(z), nll, z, name, g, size)
        elif bench.dtype == "float64":
            options: Any = {"method": "central", "blocks": {"error": z.shape}, "raises": False}
            yield agrees(check_gradient(nll, z, gradient=error, scale=1.0, name=name, **options))


@law("invariance.update", BP, over=Likelihood)
def classical_update(likelihood: Likelihood, bench: Bench) -> Deviations:
    """error = scale · (a − t) for proper targets; the scale of the Gaussian is 1/v."""
    if not bench.canonical:
        return
    calls, z, t, _, size = at_end(likelihood, bench)
    if isinstance(likelihood, Multinomial):
        t = bench.rounded(t / t.sum(axis=1, keepdims=True))
    scale = likelihood.scale
    if isinstance(likelihood, Gaussian):
        scale = 1.0 / likelihood.variance
    yield near(calls.error(z, t), scale * (calls.activation(z) - t), "error", size)


@law("invariance.noisy-softmax", NEM, over=Likelihood)
def noisy_softmax(likelihood: Likelihood, bench: Bench) -> Deviations:
    """a Σ(t+n) − (t+n) exact, a − (t+n) published; with zero-sum noise they agree."""
    if type(likelihood) is not Multinomial:
        return
    calls, z, t, n, size = at_end(likelihood, bench)
    noisy, w = bench.rounded(t + n), likelihood.weight
    a, mass = definitions.output_activation(likelihood, z), noisy.sum(axis=1, keepdims=True)
    yield near(calls.error(z, noisy), w * (a * mass - noisy), "exact error", size)
    yield near(calls.error(z, noisy, counts=1.0), w * (a - noisy), "published error", size)
    balanced = t + n - n.mean(axis=1, keepdims=True)
    both = calls.error(z, balanced), calls.error(z, balanced, counts=1.0)
    yield near(both[0], both[1], "exact and published error of zero-sum noise", size)


# -- optimizers ------------------------------------------------------------------------------------
def moves_of(optimizer: Optimizer, g: Array, factors: tuple[float, ...]) -> Any:
    """Yield the moves along gradients as the papers write them, with the default constants."""
    v, s = np.zeros_like(g[0]), np.zeros_like(g[0])
    for t, gradient in enumerate(g, start=1):
        eta = optimizer.learning_rate * factors[(t - 1) % len(factors)]
        if isinstance(optimizer, SGD):
            yield eta * gradient
        elif isinstance(optimizer, Momentum):
            v = 0.9 * v + gradient
            yield eta * v
        elif isinstance(optimizer, RMSProp):
            s = 0.9 * s + 0.1 * gradient**2
            yield eta * gradient / (np.sqrt(s) + 1e-8)
        else:
            v, s = 0.9 * v + 0.1 * gradient, 0.999 * s + 0.001 * gradient**2
            yield eta * (v / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)


def small_problem(bench: Bench) -> tuple[Network, Array, Array]:
    """Return a network, where its parameters start, and four gradients of many sizes."""
    net, g = dense_network([5, 4, 3], device=bench.backend, dtype=bench.dtype), bench.generator
    start, shape = bench.normal(net.parameter_count), (4, net.parameter_count)
    sizes = g.choice([-1.0, 1.0], shape) * 10.0 ** g.uniform(-2.0, 1.0, shape[1])
    return net, start, bench.rounded(sizes * g.uniform(0.5, 1.5, shape))


def fresh(optimizer: Optimizer, weight_decay: float = 0.0) -> Optimizer:
    """Return a copy, without weight decay unless it is given."""
    other = copy.copy(optimizer)
    other.weight_decay = weight_decay
    return other


def moved_by(
    optimizer: Optimizer, net: Network, gradients: Any, start: Array, *factors: float
) -> Array:
    """Return the parameters after each step along gradients, or functions of the parameters."""
    net.parameters[...] = net.backend.asarray(start, net.dtype)
    vector, path = optimizer.bind(net), [start]
    for gradient, factor in zip(gradients, itertools.cycle(factors or (1.0,)), strict=False):
        g = gradient(path[-1]) if callable(gradient) else np.array(gradient)
        vector[...] = net.backend.asarray(g, net.dtype)
        optimizer.step(factor)
        path.append(host(net, net.parameters))
    return np.array(path[1:])


@law(
    "optimizer.formula", "Polyak 1964; Tieleman and Hinton 2012; Kingma and Ba 2015", over=Optimizer
)
def optimizer_formula(optimizer: Optimizer, bench: Bench) -> Deviations:
    """SGD, momentum, RMSProp, Adam = their papers."""
    if type(optimizer) not in (SGD, Momentum, RMSProp, Adam):
        return
    net, start, g = small_problem(bench)
    expected = start - np.cumsum([*moves_of(optimizer, g, (1.0, 0.5))], axis=0)
    moved = moved_by(fresh(optimizer), net, g, start, 1.0, 0.5)
    yield near(moved, expected, "parameters[step, i]", 10.0 * largest(g))


@law("optimizer.weight-decay", "Loshchilov and Hutter 2019", over=Optimizer)
def weight_decay(optimizer: Optimizer, bench: Bench) -> Deviations:
    """θ_w ← (1 − ηλ) θ_w once a step, biases spared."""
    net, start, g = small_problem(bench)
    expected = start.copy()
    expected[: net.weight_count] *= 1.0 - optimizer.learning_rate * 0.1
    end = moved_by(fresh(optimizer, 0.1), net, 0.0 * g[:1], start)
    yield near(end[0], expected, "parameters after one step of decay", 1.0)


@law("optimizer.contract", over=Optimizer, every=4)
def optimizer_contract(optimizer: Optimizer, bench: Bench) -> Deviations:
    """Steps go down, each parameter by itself, in place; bind starts anew."""
    net, start, g = small_problem(bench)
    held, again = net.parameters, fresh(optimizer)

    def path(*arguments: Any, of: Network = net) -> Array:
        return moved_by(fresh(optimizer), of, *arguments)

    shape = tuple(fresh(optimizer).bind(net).shape)
    yield holds(shape == start.shape, "bind returns a vector of all parameters")
    whole = path(g, start)
    scale = largest(start) + 10.0 * largest(np.diff(whole, axis=0))
    yield holds(np.all((whole[0] - start) * g[0] < 0.0), "the first step goes against the gradient")
    still = path(np.zeros((2, start.size)), start)
    yield near(still, [start, start], "parameters where the gradient is zero", scale)
    half = path(g[:1], start, 0.5)[0] - start
    yield near(half, 0.5 * (whole[0] - start), "a step at half the learning rate", scale)
    order = bench.generator.permutation(start.size)
    yield near(path(g[:, order], start[order]), whole[:, order], "parameters permuted", scale)
    small = copy.copy(bench.backend)
    small.chunk = 16
    cut = dense_network([5, 4, 3], device=small, dtype=bench.dtype)
    yield near(path(g, start, of=cut), whole, "the vector cut into chunks", scale)
    for _ in range(2):
        yield near(moved_by(again, net, g, start), whole, "parameters after bind again", scale)
    end = path(g[:1], start)[0]
    seen = host(net, net.weights[0]).reshape(-1)
    same = net.parameters is held and np.array_equal(seen, end[: seen.size])
    yield holds(same, "parameters move in place, and the network's views see it")
    curvature = bench.generator.uniform(0.5, 2.0, start.size)
    slow = min(1.0, 0.02 / optimizer.learning_rate)
    end = path([lambda theta: curvature * theta] * 60, start, slow)[-1]
    yield holds(curvature @ end**2 < curvature @ start**2, "60 steps descend a quadratic")


GAN = "Goodfellow and others 2014; Arjovsky, Chintala and Bottou 2017"
STATE = "parameters", "running statistics"  # of a snapshot
SUM = {"float64": 1e-12, "float32": 1e-12}  # of what is computed in float64 whatever the case's


# -- a network's training --------------------------------------------------------------------------
def trainer_of(
    case: Case, backend: Backend, optimizer: str, rate: float, **options: Any
) -> tuple[Trainer, Array, Array]:
    """Return a short training, its samples and targets; hard ones are labels.

    At a rate of 0.001 it moves a little, whatever the likelihoods' weights.
    """
    net, (x, y) = case.net(device=backend), case.with_(rows=2 * case.rows + 1).batch()
    y = case.generator("training").integers(0, net.outputs, len(x)) if case.hard else y
    reader = BatchReader(Split(x, y), Scaling(), Scaling(), net.outputs, backend, net.dtype)
    rate /= max(1.0, case.forward.scale, case.backward.scale)
    moved_by = get_optimizer(optimizer, rate, weight_decay=options.pop("decay", 0.0))
    both: Any = {"epochs": 2, "batch_size": case.rows + 1, "seed": case.seed % 2**31}
    trainer = Trainer(net, reader, optimizer=moved_by, noise=case.noise, **both, **options)
    return trainer, x, np.eye(net.outputs)[y] if case.hard else y


@law("training.replay", every=4, known=True)
def replayed(case: Case, backend: Backend) -> Deviations:
    """a training = its definition, replayed in NumPy."""
    net = case.with_(dtype="float64").net()
    net.parameters[...] = case.net().parameters  # rounded to the case's precision
    options: Any = {"schedule": "cosine", "backward": case.seed % 4 != 0, "host_noise": True}
    trainer, x, t = trainer_of(case, backend, "momentum", 1e-3, decay=0.1, **options)
    seed, batch, rate = case.seed % 2**31, trainer.batch_size, trainer.optimizer.learning_rate
    sides = ways(net, x, t)[: 2 if options["backward"] else 1]
    streams = {way.direction: stream(seed, f"noise/{way.direction}") for way, _, _ in sides}
    order, iteration, scale = stream(seed, "batches"), 0, joint_size(net, x, t)
    velocity, steps = np.zeros(net.parameter_count), trainer.epochs * math.ceil(len(x) / batch)
    for epoch in range(1, trainer.epochs + 1):
        index = order.permutation(len(x))
        for rows in (index[k : k + batch] for k in range(0, len(x), batch)):
            eta = 0.5 * (1.0 + math.cos(math.pi * iteration / steps)) * rate
            iteration, velocity = iteration + 1, 0.9 * velocity
            for way, source, target in sides:
                z = definitions.z_of(way, net.parameters, source[rows])
                n, spec = np.zeros(1), case.noise.get(way.direction, Noise())
                if spec.kind != "none":
                    std = definitions.standard_deviation(spec, epoch, iteration)
                    given = spec, way.likelihood, z, target[rows], std, streams[way.direction]
                    n, _, tied = definitions.target_noise(*given, case.dtype)
                    if tied:
                        return
                noisy = target[rows] + n
                error = definitions.output_error(way.likelihood, z, noisy, spec.update) / len(rows)

                def pulled(at: Array, way: Any = way, x: Any = source[rows], e: Any = error) -> Any:
                    return np.sum(e * definitions.z_of(way, at, x))

                velocity = velocity + definitions.gradient(pulled, np.array(net.parameters))
            net.parameters[: net.weight_count] *= 1.0 - eta * 0.1
            net.parameters[...] -= eta * velocity
    trainer.run()
    what, scale = "parameters after the training", 10.0 * (1.0 + rate * scale)
    yield near(host(trainer.net, trainer.net.parameters), net.parameters, what, scale)


class StoppedError(Exception):
    """Stops a training between two steps."""


def stopped_and_whole(make: Any, seed: int) -> tuple[Any, Any]:
    """Return a trainer that went on where another was stopped, and one that nothing stopped."""
    whole, first, second = make(), make(), make()
    whole.run()
    last = 1 + seed % max(1, whole.iteration - 1)

    def stop() -> None:
        if first.iteration == last:
            raise StoppedError

    first.after_step = stop
    with contextlib.suppress(StoppedError):
        first.run()
    second.resume(first.state())
    second.run()
    return second, whole


@law("training.resume", every=4)
def resumed(case: Case, backend: Backend) -> Deviations:
    """a training that goes on where another was stopped = one in one go, bit for bit."""
    name = sorted(OPTIMIZERS)[case.seed % 2**31 % len(OPTIMIZERS)]

    def make() -> Trainer:
        return trainer_of(case, backend, name, 1e-4)[0]

    found, whole = stopped_and_whole(make, case.seed % 2**31)
    for a, b, what in zip(found.net.snapshot(), whole.net.snapshot(), STATE, strict=True):
        yield equal(a, b, f"{what} after the training by {name}")
    a, b = (each.history["train/forward/nll"] for each in (found, whole))
    yield equal(a, b, "the history of the nll")


# -- a generator against a discriminator -----------------------------------------------------------
class Game:
    """A case's network as the generator G, a discriminator D of its layers turned and one more.

    The objectives are written out, and take complex parameters.
    """

    def __init__(self, case: Case, backend: Backend, settings: AdversarialSettings) -> None:
        case = case.with_(forward=type(case.forward)(), backward=type(case.backward)())
        self.settings, self.rows, self.seed = settings, case.rows, case.seed % 2**31
        self.g = net = case.net(device=backend)
        last = Dense(net.inputs, settings.classes + 1)
        hidden = Layer(net.inputs, get_activation(case.activation))
        layers = [*net.layers[:0:-1], hidden, Layer(last.outputs)]
        if settings.kind == "wasserstein-gp":
            layers = [dataclasses.replace(layer, normalization=None) for layer in layers]
        maps: list[LinearMap] = [*(Transposed(m) for m in net.maps[::-1]), last]
        forward: Likelihood = Multinomial() if settings.classes else Bernoulli()
        ends = Score() if settings.has_critic else forward, case.forward
        self.d = Network(layers, maps, *ends, device=backend, dtype=net.dtype, seed=None)
        draws = case.generator("discriminator").normal(0.0, SPREAD, self.d.parameter_count)
        self.d.parameters[...] = backend.asarray(draws, net.dtype)
        self.x = case.with_(rows=2 * case.rows + 1).batch()[1]
        classes = max(1, settings.classes)
        self.labels = case.generator("labels").integers(0, classes, len(self.x))
        self.permutation: Any = slice(None)
        if settings.backward_permuted and settings.discriminator_backward:
            self.permutation = stream(self.seed, "permutation").permutation(self.d.inputs)

    def trainer(self, iterations: int, noise: Any = None, rate: float = 1.0) -> AdversarialTrainer:
        """Return a training by gradient descent, G at half D's learning rate."""
        outputs, g = self.settings.classes or 1, self.g
        data = Split(self.x, self.labels), Scaling(), Scaling(), outputs, g.backend, g.dtype
        options: Any = {"batch_size": self.rows, "iterations": iterations, "noise": noise}
        options |= {"optimizers": (SGD(0.5 * rate), SGD(rate)), "seed": self.seed}
        reader = BatchReader(*data)
        return AdversarialTrainer(g, self.d, reader, self.settings, host_noise=True, **options)

    def draws(self) -> Any:
        """Yield z, real samples, labels and the shares of x̂ of one step of D after another."""
        names, cpu, dtype = ("latent", "batches", "penalty"), get_backend("cpu"), self.g.dtype
        latent, order, between = (stream(self.seed, name) for name in names)
        while True:
            index = order.permutation(len(self.x))
            for k in range(0, len(self.x) - self.rows + 1, self.rows):
                z = cpu.normal(latent, np.empty((self.rows, self.g.inputs), dtype))
                share = cpu.uniform(between, np.empty((self.rows, 1), dtype))
                rows = index[k : k + self.rows]
                labels = np.eye(max(1, self.settings.classes))[self.labels[rows]]
                yield np.asarray(z, float), self.x[rows], labels, np.asarray(share, float)

    def generated(self, flat: Array, z: Array) -> Array:
        """Return G(z)."""
        last = definitions.z_of(self.g, flat, z)
        return definitions.output_activation(self.g.likelihood, last)

    def outputs_for(self, labels: Array) -> tuple[Array, Array]:
        """Return what D says of real and of generated samples, at best; a critic ±1."""
        real, fake = np.ones((self.rows, 1)), np.full((self.rows, 1), -1.0)
        if self.settings.classes:
            real = np.concatenate([labels, np.zeros((self.rows, 1))], axis=1)
            fake = np.eye(self.settings.classes + 1)[[-1] * self.rows]
        return real, fake if self.settings.classes or self.settings.has_critic else 0.0 * fake

    def backward_pairs(self, x: Array, y: Array, labels: Array) -> tuple[Array, Array]:
        """Return the label that goes down and the x that it aims at, for each sample with both."""
        real, fake = self.outputs_for(labels)
        if self.settings.backward_labels == "real":
            return real, x[:, self.permutation]
        return np.concatenate([real, fake]), np.concatenate([x, y])[:, self.permutation]

    def of_d(self, flat: Array, draw: Any, y: Array, weight: float = 1.0) -> Any:
        """Return what D descends; ``weight`` multiplies that of its backward direction."""
        (_, x, labels, share), settings, net = draw, self.settings, self.d
        # each sort by itself: a normalized D has statistics of real and of generated samples
        real, fake = (definitions.z_of(net, flat, each) for each in (x, y))
        if settings.has_critic:
            value = np.mean(fake) - np.mean(real)
        else:
            pairs = zip((real, fake), self.outputs_for(labels), strict=True)
            log_p = [definitions.log_likelihood(net.likelihood, s, t) for s, t in pairs]
            value = -np.mean(log_p[0]) - np.mean(log_p[1])
        if settings.kind == "wasserstein-gp":
            value = value + settings.penalty_weight * penalty(net, flat, y + share * (x - y))
        if settings.discriminator_backward:
            source, target = self.backward_pairs(x, y, labels)
            u = definitions.z_of(net.reversed, flat, source)
            total = np.sum(definitions.log_likelihood(net.reversed.likelihood, u, target))
            value = value - weight * settings.discriminator_weight * total / self.rows
        return value

    def of_g(self, flat: Array, draw: Any, held: Array, weight: float = 1.0) -> Any:
        """Return what G descends; its backward direction starts from ``held`` unless that flows."""
        z, settings = draw[0], self.settings
        y = self.generated(flat, z)
        s = definitions.z_of(self.d, host(self.d, self.d.parameters), y)
        if settings.has_critic:
            value = -np.mean(s)
        elif settings.kind == "minimax":
            fake = self.outputs_for(draw[2])[1]
            value = np.mean(definitions.log_likelihood(self.d.likelihood, s, fake))
        elif settings.classes:  # any but that of generated samples
            p = np.exp(definitions.log_softmax(s)[:, :-1])
            value = -np.mean(np.log(np.sum(p, axis=1)))
        else:
            value = -np.mean(definitions.log_logistic(s))
        if settings.generator_backward:
            back, target = self.g.reversed, np.roll(z, -settings.backward_permuted, axis=0)
            u = definitions.z_of(back, flat, y if settings.backward_flow else held)
            log_p = definitions.log_likelihood(back.likelihood, u, target)
            value = value - weight * settings.generator_weight * np.mean(log_p)
        return value


def penalty(net: Network, flat: Array, x: Array) -> Any:
    """Return mean (‖∇ₓ f(x)‖ − 1)², the slope by the chain rule."""
    steps, z = definitions.unflatten(net, flat), definitions.run(net, flat, x)[1]
    slope: Any = np.ones((len(x), 1))
    for k in range(len(steps), 0, -1):
        slope = slope @ steps[k - 1][0].T
        if k > 1:
            slope = slope * definitions.derivative(net.layers[k - 1].activation, z[k - 2])
    return np.mean((np.sqrt(np.sum(slope * slope, axis=1)) - 1.0) ** 2)


def settings_of(case: Case, kind: str | None = None, **fixed: Any) -> AdversarialSettings:
    """Return the settings of a case's game, of a given kind or of any."""
    g, kinds = case.generator("settings"), get_args(Kind)
    chosen: Any = kind or kinds[case.seed % len(kinds)]
    classes = int(g.integers(2, 4)) if chosen in ("vanilla", "minimax") and g.random() < 0.4 else 0
    options = {
        "bidirectional": "both" if g.random() < 0.8 else "none",
        "discriminator_weight": round(float(g.uniform(0.1, 2.0)), 3),
        "generator_weight": round(float(g.uniform(0.1, 2.0)), 3),
        "backward_labels": ("real", "both")[int(g.integers(2))],
        "backward_flow": bool(g.random() < 0.5),
        "backward_permuted": bool(g.random() < 0.2),
        "classes": classes,
        "penalty_weight": round(float(g.uniform(0.5, 5.0)), 3),
        "clip": 1e3,
        "critic_steps": 1,
    }
    return AdversarialSettings(chosen, **(options | fixed))


def moves(case: Case, backend: Backend, kind: str | None = None) -> Deviations:
    """Compare what one iteration of gradient descent moves with slopes of both objectives."""
    game = Game(case, backend, settings_of(case, kind))
    before = [host(net, net.parameters) for net in (game.g, game.d)]
    game.trainer(1).run()
    after = [host(net, net.parameters) for net in (game.g, game.d)]
    draw, g = next(game.draws()), case.generator("coordinates")
    y, weight = game.generated(before[0], draw[0]), 1.0 + game.settings.penalty_weight
    scale = 10.0 * weight * (1.0 + largest(*before)) * (1.0 + largest(y, game.x, draw[0])) ** 2

    of_d, of_g = partial(game.of_d, draw=draw, y=y), partial(game.of_g, draw=draw, held=y)
    moved, kind = [old - new for old, new in zip(before, after, strict=True)], game.settings.kind
    yield from is_gradient(moved[1], of_d, before[1], f"gradient of D, {kind}", g, scale)
    yield from is_gradient(2.0 * moved[0], of_g, before[0], f"gradient of G, {kind}", g, scale)


@law("adversarial.gradients", GAN, tolerance=COMPLEX, every=2, known=True)
def adversarial_gradients(case: Case, backend: Backend) -> Deviations:
    """G and D move against the gradients of what they descend, of any kind."""
    yield from moves(case, backend)


@law("adversarial.penalty", "Gulrajani and others 2017", tolerance=COMPLEX, every=4, known=True)
def penalty_gradient(case: Case, backend: Backend) -> Deviations:
    """∇ λ mean (‖∇ₓ f(x̂)‖ − 1)² by complex steps, second derivatives too."""
    yield from moves(case, backend, "wasserstein-gp")


@law("adversarial.own-output", BBP, tolerance=COMPLEX, known=True)
def own_output(case: Case, backend: Backend) -> Deviations:
    """G(z) ↦ z: ∇ of what reads G(z) + ∇ log p(z | G(z)), held or not."""
    net, z, g = case.net(device=poisoned(backend)), case.batch()[0], case.generator("error")
    flat, back = host(net, net.parameters), net.reversed
    last = definitions.z_of(net, flat, z)
    error = case.rounded(np.asarray(g.normal(0.0, 1.0, last.shape)) / len(z))
    weight = round(float(g.uniform(0.2, 3.0)), 3)

    def value(at: Array, held: Any, both: bool) -> Any:
        y = definitions.output_activation(net.likelihood, definitions.z_of(net, at, z))
        read = np.sum(error * y)
        start = y if held is None else held
        return read + weight * definitions.nll(back, at, start, z) if both else read

    for both, flow in ((False, False), (True, False), (True, True)):
        step = CycleBackpropagation(net, len(z), bidirectional=both, flow=flow)
        step.z[...] = net.backend.asarray(z, net.dtype)
        step.run()
        y = host(net, step.output)
        expected = definitions.output_activation(net.likelihood, last)
        yield near(y, expected, "output", 1.0 + largest(last))
        if step.input is not None:
            step.input.weight = weight
        vector = unwritten(net)
        step(vector, net.backend.asarray(error, net.dtype))
        name = f"gradient, output {'flowing' if flow else 'held' if both else 'alone'}"
        scale = 10.0 * (1.0 + largest(y)) ** 2 * (largest(error) + weight * error_size(back, y, z))
        reads = partial(value, held=None if flow else y, both=both)
        scale *= 1.0 + largest(z)
        yield from is_gradient(host(net, vector), reads, flat, name, g, scale, 4)


@law("adversarial.replay", every=8, known=True)
def adversarial_replay(case: Case, backend: Backend) -> Deviations:
    """a training = its definition: fresh z, D's steps, G's; scheduled weights, clipped critics."""
    if case.net().parameter_count > 120:
        return
    kind = ("vanilla", "wasserstein")[case.seed % 2]
    fixed = {"critic_steps": 1 + case.seed % 3, "clip": 0.4, "weight_schedule": "linear"}
    settings = settings_of(case, kind, classes=0, **fixed)
    game, rate, steps = Game(case, backend, settings), 1e-2, 2
    g, d = (host(net, net.parameters) for net in (game.g, game.d))
    count = game.d.weight_count + sum(layer.biases for layer in game.d.layers[1:])
    draws = game.draws()
    twin = Game(case.with_(dtype="float64"), get_backend("cpu"), settings)
    for iteration in range(steps):
        weight = 1.0 - iteration / steps
        for _ in range(settings.steps):
            draw = next(draws)
            y = twin.generated(g, draw[0])
            descended = partial(twin.of_d, draw=draw, y=y, weight=weight)
            d = d - rate * definitions.gradient(descended, d)
            if kind == "wasserstein":
                d[:count] = np.clip(d[:count], -0.4, 0.4)
        twin.d.parameters[...] = d
        descended = partial(twin.of_g, draw=draw, held=y, weight=weight)
        g = g - 0.5 * rate * definitions.gradient(descended, g)
    game.trainer(steps, rate=rate).run()
    scale = 100.0 * (1.0 + largest(game.x)) ** 2
    yield near(host(game.d, game.d.parameters), d, "D's parameters after training", scale)
    yield near(host(game.g, game.g.parameters), g, "G's parameters after training", scale)


@law("adversarial.noise", NEM, every=2, known=True)
def adversarial_noise(case: Case, backend: Backend) -> Deviations:
    """NEM noise at D, z and x: gain ≥ 0; f(x + n) ≥ f(x), f(g + n) ≤ f(g)."""
    game = Game(case, backend, settings_of(case))
    settings, spec = game.settings, Noise("nem", std=0.3, decay=0.0, screening="vector")
    keys = noise_places(settings)
    # of a normalized D a sample's score is no function of that sample alone
    keys = [key for key in keys if not key.endswith("input") or not game.d.statistics_count]
    for key in keys:
        game = Game(case, backend, settings)
        g, d = (host(net, net.parameters) for net in (game.g, game.d))
        trainer = game.trainer(1, {key: spec})
        trainer.run()
        source, (z, x, labels, _) = trainer.sources[key], next(game.draws())
        n, y = host(game.g, source.n), game.generated(g, z)
        if key.endswith("input"):
            inputs = np.concatenate([x, y])
            s = [definitions.z_of(game.d, d, at) for at in (inputs, inputs + n)]
            rise = (s[1] - s[0])[:, 0] * np.repeat([1.0, -1.0], game.rows)
            yield holds(np.any(n), f"{key} receives noise")
            worst, size = np.minimum(rise, 0.0), 10.0 * (1.0 + largest(*s))
            yield near(worst, np.zeros_like(worst), f"{key}: rise of f, fall of f(G(z))", size)
            continue
        if key == "generator/backward":
            way, t = game.g.reversed, np.roll(z, -settings.backward_permuted, axis=0)
            u = definitions.z_of(way, g, y)
        elif key == "discriminator/backward":
            way, (source_of_t, t) = game.d.reversed, game.backward_pairs(x, y, labels)
            u = definitions.z_of(way, d, source_of_t)
        else:  # each sort has statistics of its own
            way, t = game.d, np.concatenate(game.outputs_for(labels))
            u = np.concatenate([definitions.z_of(way, d, each) for each in (x, y)])
        gain = definitions.gain_terms(way.likelihood, u, t, n).sum(axis=1)
        size = 10.0 * (1.0 + largest(u) + largest(t)) * (1.0 + largest(n)) * n.shape[1]
        yield near(np.minimum(gain, 0.0), np.zeros_like(gain), f"{key}: gain below 0", size)
        yield near(host(game.g, source.gain), [[gain.mean()]], f"{key}: mean gain", size)


def noise_places(settings: AdversarialSettings) -> list[str]:
    """Return where a game can have noise."""
    keys = ["critic/input"] if settings.has_critic else ["discriminator/forward"]
    if not settings.has_critic and not settings.classes:
        keys.append("discriminator/input")
    if settings.bidirectional == "both":
        keys += ["generator/backward"] if settings.has_critic else []
        keys += [] if settings.has_critic else ["discriminator/backward", "generator/backward"]
    return keys


@law("adversarial.resume", every=4)
def adversarial_resumed(case: Case, backend: Backend) -> Deviations:
    """a game that goes on where another was stopped = one in one go, bit for bit."""
    settings = settings_of(case, averaging=0.9)
    noise = dict.fromkeys(noise_places(settings), Noise("nem", std=0.1, screening="vector"))

    def make() -> AdversarialTrainer:
        return Game(case, backend, settings).trainer(4, noise, rate=1e-4)

    found, whole = stopped_and_whole(make, case.seed)
    nets = [(each.generator, each.discriminator) for each in (found, whole)]
    for ours, theirs, player in zip(*nets, "GD", strict=True):
        for a, b, what in zip(ours.snapshot(), theirs.snapshot(), STATE, strict=True):
            yield equal(a, b, f"{player}'s {what} after training")
    yield equal(found.sample(2), whole.sample(2), "samples of the averaged generator")


@law("adversarial.streams", every=4)
def silent_adversarial_noise(case: Case, backend: Backend) -> Deviations:
    """noise of standard deviation 0 changes nothing: noise has its own streams."""
    settings, ends = settings_of(case), []
    silent = dict.fromkeys(noise_places(settings), Noise("blind", std=0.0))
    for noise in (None, silent):
        game = Game(case, backend, settings)
        game.trainer(3, noise, rate=1e-4).run()
        ends.append([host(net, net.parameters) for net in (game.g, game.d)])
    for a, b, name in zip(*ends, "GD", strict=True):
        yield near(b, a, f"{name}'s parameters after training", 10.0)


# -- expectation-maximization, on a network whose hidden states can be enumerated ------------------
def binary_network(case: Case) -> Any:
    """Return a binary network of the case's ends, up to 4-3-4, either way; its Θ, x and y."""
    inputs, outputs = min(case.sizes[0], 4), min(case.sizes[-1], 4)
    hidden, rows = min(case.sizes[len(case.sizes) // 2], 3), min(case.rows, 4)
    net = BinaryNetwork(inputs, hidden, outputs, case.forward, case.backward)
    theta = net.initial(case.generator("em"), 0.7)
    x = random_targets(case.backward, case.generator("x"), rows, inputs, hard=case.hard)
    y = random_targets(case.forward, case.generator("t"), rows, outputs, hard=case.hard)
    return (net, theta, x, y) if case.seed % 2 else (net.reversed, theta, y, x)


@law(
    "em.fisher",
    "Fisher's identity",
    tolerance={"float64": 1e-10, "float32": 1e-10},
    every=2,
    known=True,
)
def fisher(case: Case, backend: Backend) -> Deviations:
    """∇ log p = ∇Q at Θₙ; log p = Q + H."""
    net, theta, x, y = binary_network(case)
    scale = (1.0 + case.forward.scale + case.backward.scale) * (1.0 + largest(x, y)) ** 2
    r = posterior(net, theta, x, y)
    slope = gradient_of_em(net, theta, x, y)
    yield near(q_gradient(net, theta, r, x, y), slope, "∇Q", scale)
    v = 0.5 * case.generator("other").standard_normal(theta.size)
    ends = [net.log_likelihood(theta + 1e-5 * h * v, x, y) for h in (1.0, -1.0)]
    difference, size = (ends[0] - ends[1]) / 2e-5, scale * len(x)
    yield near(slope @ v, difference, "∇ log p along a line", size, tolerance=1e-6)
    other = theta + v
    parts = q(net, other, r, x, y), entropy(net, other, r, x, y)
    log_p = net.log_likelihood(other, x, y)
    yield near(sum(parts), log_p, "Q + H", 1.0 + abs(parts[0]) + abs(parts[1]))


@law("em.gem", "Dempster, Laird and Rubin 1977, theorem 1", tolerance=SUM, every=4, known=True)
def gem(case: Case, backend: Backend) -> Deviations:
    """a GEM step never lowers log p."""
    net, theta, x, y = binary_network(case)
    both = case.seed % 4 > 1
    step = gem_step(net, theta, x, y, both=both)
    ways, Q, log_p = [(net, x, y), (net.reversed, y, x)][: 1 + both], [], []
    for at in (theta, step.theta):
        Q.append(sum(q(way, at, posterior(way, theta, *xy), *xy) for way, *xy in ways))
        log_p.append(sum(way.log_likelihood(at, *xy) for way, *xy in ways))
    yield near(min(Q[1] - Q[0], 0.0), 0.0, "gain of Q", 1.0 + abs(Q[0]))
    yield near(min(log_p[1] - log_p[0], 0.0), 0.0, "gain of log p", 1.0 + abs(log_p[0]))
    yield near([step.q_before, step.q_after], Q, "recorded Q", 1.0 + abs(Q[0]))


@law("em.nem", "Osoba, Mitaim and Kosko 2013, theorem 1", tolerance=SUM, every=4, known=True)
def nem(case: Case, backend: Backend) -> Deviations:
    """E[log p(y+n, h|x)/p(y, h|x)] ≥ 0 for NEM noise."""
    net, theta, x, y = binary_network(case)
    condition: Any = "posterior" if case.seed % 4 < 2 else "every"
    spec = case.noise.get("forward", Noise())
    exact = "vector" if spec.screening == "expectation" else spec.screening  # by row
    r = posterior(net, theta, x, y)
    Q = q(net, theta, r, x, y)
    scale = (1.0 + abs(Q) + net.likelihood.scale * (1.0 + spec.std)) * y.size
    for kind, sign in (("nem", 1.0), ("anti", -1.0)):
        fields = {"std": spec.std, "mode": spec.mode, "rejected": spec.rejected}
        noise = Noise(kind, screening=exact, **fields)  # type: ignore[arg-type]
        g, options = case.generator("noise"), {"condition": condition, "support": "lattice"}
        found = nem_inequality(net, theta, x, y, noise, g, **options, draws=2).exact
        assert found is not None
        yield near(min(sign * found, 0.0), 0.0, f"expectation of {kind} noise", scale)
        n = draw_noise(net, theta, x, y, noise, g, condition=condition)
        gain = sign * (q(net, theta, r, x, y + n) - Q)
        yield near(min(gain, 0.0), 0.0, f"Q_N − Q of {kind} noise", scale)
