"""Laws of noise on signals: what is kept of it, and the gradient with it in place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from nembp.backend import Backend, stream
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.network import Network
from nembp.engine.noise import DRIFT_DRAWS, PLACES, Noise, noisy_layers
from nembp.verification.cases import Case
from nembp.verification.laws import textbook
from nembp.verification.laws.deviations import Deviations, Vector, equal, near
from nembp.verification.laws.gradients import host
from nembp.verification.laws.joint import poisoned, size_of_errors
from nembp.verification.laws.noise import chosen_by, draws
from nembp.verification.laws.over_cases import known
from nembp.verification.laws.over_noise import changed

__all__ = ["gradients", "screening"]

SEED = 7  # of the noise's stream
EPOCH, ITERATION = 2, 30


def _problem(
    case: Case, backend: Backend
) -> tuple[JointBackpropagation, Network, Noise, str, Vector] | None:
    """Return a step with noise on signals of one direction, that direction and its noise.

    Also the step's gradient. None where the case has no such signals.
    """
    spec = case.forward_noise
    place, way = PLACES[case.seed % 3], ("forward", "backward")[case.seed // 3 % 2]
    if not known(case) or spec.kind == "none":
        return None
    net, (x, t) = case.net(device=poisoned(backend)), case.batch()
    view = net if way == "forward" else net.reversed
    hidden = [k for k in range(1, len(view.maps)) if view.layers[k].activation is not None]
    if place != "input" and not hidden:
        place = "input"
    screening = "auto" if spec.screening == "component" else spec.screening
    law = "gaussian" if spec.law == "curvature" else spec.law
    spec = changed(spec, screening=screening, update="exact", law=law)
    key = f"{way}/{place}"
    step = JointBackpropagation(
        net, len(x), path="samples", noise={key: spec}, generators={key: stream(SEED, key)}
    )
    step.x[...] = net.backend.asarray(x, net.dtype)
    step.t[...] = net.backend.asarray(t, net.dtype)
    gradient = net.backend.asarray(np.full(net.parameter_count, np.nan), net.dtype)
    step(gradient, EPOCH, ITERATION)
    return step, view, spec, place, host(net, gradient)


def _noise_of(step: JointBackpropagation, view: Network, place: str) -> dict[int, Any]:
    """Return the step's sources by layer, counted from the direction's input."""
    layers = noisy_layers(view, place)
    names = {k: place if place == "input" else f"{place}-{k}" for k in layers}
    return {k: step.sources[f"{view.direction}/{name}"] for k, name in names.items()}


class _Gain:
    """Noise on the signal of layer k ↦ log p(t | aᵏ + n) − log p(t | aᵏ), shape (rows, 1).

    With the noise ``before`` in place on earlier layers; in expectation every row has the mean.
    ``tied`` tells whether some draw's gain was zero but for rounding.
    """

    def __init__(self, view: Network, batch: tuple[Vector, Vector], before: Any, k: int) -> None:
        self.view, self.before, self.k = view, dict(before), k
        self.x, self.t = batch
        self.flat = host(view, view.parameters)
        self.signal = textbook.run(view, self.flat, self.x, noise=before)[0][k]
        self.clean = self.log_likelihood({})
        self.size = 1.0 + float(np.max(np.abs(self.clean)))
        self.tied = False

    def log_likelihood(self, n: dict[int, Vector]) -> Vector:
        _, y, _ = textbook.run(self.view, self.flat, self.x, noise={**self.before, **n})
        return textbook.log_likelihood(self.view.likelihood, y[-1], self.t)[:, None]

    def __call__(self, n: Vector, *, mean: bool = False) -> Vector:
        each = self.log_likelihood({self.k: n}) - self.clean
        if mean:
            each = np.full_like(each, np.mean(each))
        rounding = 300.0 * float(np.finfo(self.view.dtype).eps) * self.size
        moved = np.any(n != 0.0, axis=1, keepdims=True)
        self.tied |= bool(np.any((np.abs(each) < rounding) & moved))
        return each


def gradients(case: Case, backend: Backend) -> Deviations:
    """With noise on signals the joint gradient is that of log p(t | aᵏ + n), the noise held fixed.

    And the batch comes back as it was.
    """
    found = _problem(case, backend)
    if found is None:
        return
    step, view, _, place, gradient = found
    x, t = case.batch()
    net = view if view.direction == "forward" else view.reversed
    flat, expected = host(net, net.parameters), np.zeros(net.parameter_count)
    scale = size_of_errors(net, x, t)
    for way, source, target in ((net, x, t), (net.reversed, t, x)):
        n: dict[int, Vector] = {}
        if way.direction == view.direction:
            n = {k: host(net, each.n) for k, each in _noise_of(step, view, place).items()}
        _, y, _ = textbook.run(way, flat, source, noise=n)
        error = textbook.output_error(way.likelihood, y[-1], target) / len(x)
        expected += textbook.pull_back(way, source, error, flat, noise=n)
        largest = max((float(np.max(np.abs(value))) for value in n.values()), default=0.0)
        scale += float(np.max(np.abs(error))) * (1.0 + largest)
    yield near(gradient, expected, f"gradient with noise on {place}", scale=scale)
    yield equal(host(net, step.x), x, "x after the step")
    yield equal(host(net, step.t), t, "t after the step")


def screening(case: Case, backend: Backend) -> Deviations:
    """Noise on a signal is what its definition draws: NEM noise gains, anti-NEM noise loses.

    The gain of each layer is taken with the noise of those before it in place. Says nothing of
    normalized layers, or where a gain is zero but for rounding.
    """
    if case.normalized:
        return
    found = _problem(case, backend)
    if found is None:
        return
    step, view, spec, place, _ = found
    batch = case.batch() if view.direction == "forward" else case.batch()[::-1]
    generator = stream(SEED, f"{view.direction}/{place}")
    std, together = spec.std_at(EPOCH, ITERATION), spec.screening == "expectation"
    before: dict[int, Vector] = {}
    for k, source in _noise_of(step, view, place).items():
        gain = _Gain(view, batch, before, k)
        offer = partial(draws, spec, view.likelihood, gain.signal, std, generator, case.dtype)
        expected, share = _drawn(spec, partial(gain, mean=together), offer)
        if gain.tied:
            return
        n = host(view, source.n)
        yield near(n, expected, f"{spec.kind} noise on layer {k}", scale=100.0 * std)
        worst = {"nem": 1.0, "anti": -1.0}.get(spec.kind, 0.0) * gain(n, mean=together)
        words = {"nem": "lowers", "anti": "raises"}.get(spec.kind, "changes")
        lowered = min(float(np.min(worst)), 0.0)
        yield near(lowered, 0.0, f"{spec.kind} noise {words} log p: gain", scale=10.0 * gain.size)
        mean = [[np.mean(gain(n))]]
        yield near(host(view, source.gain), mean, "mean gain recorded", scale=10.0 * gain.size)
        yield near(host(view, source.accepted), [[share]], "share accepted", scale=1.0)
        before[k] = n


def _drawn(spec: Noise, gain: Any, offer: Callable[[], Vector]) -> tuple[Vector, float]:
    """Return the noise by definition, and the share of samples that keep it."""
    if spec.kind == "drift":
        several = [chosen_by(spec, gain, offer)[0] for _ in range(DRIFT_DRAWS)]
        return np.asarray(np.mean(several, axis=0)), 0.0
    n, kept = chosen_by(spec, gain, offer)
    return n, float(np.mean(kept))
