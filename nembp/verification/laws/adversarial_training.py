"""Laws of a whole adversarial training: its steps, its noise, its streams, its devices."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from nembp.adversarial.settings import AdversarialSettings
from nembp.adversarial.trainer import AdversarialTrainer
from nembp.backend import Backend, get_backend, stream
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.backprop import backpropagate
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import SGD
from nembp.verification.cases import Case
from nembp.verification.laws import textbook
from nembp.verification.laws.adversarial import known, play, through_link
from nembp.verification.laws.deviations import Deviations, Vector, equal, holds, near
from nembp.verification.laws.games import Game, game
from nembp.verification.laws.gradients import host

__all__ = ["noise_conditions", "on_device", "replayed", "silent_noise", "trainer_of"]

CPU = get_backend("cpu")
ITERATIONS, ETA = 3, 1e-3


def trainer_of(
    case: Case,
    backend: Backend,
    settings: AdversarialSettings | None = None,
    noise: dict[str, Noise] | None = None,
) -> AdversarialTrainer:
    """Return a short training of a case's game, whose backward likelihoods have weight 1."""
    which = game(_plain(case), backend, settings)
    settings = which.settings
    x, labels = _samples(case, settings)
    d, g = which.discriminator, which.generator
    outputs = settings.classes or 1
    reader = BatchReader(Split(x, labels), Scaling(), Scaling(), outputs, g.backend, g.dtype)
    return AdversarialTrainer(
        g,
        d,
        reader,
        settings,
        batch_size=case.rows,
        iterations=ITERATIONS,
        optimizers=(SGD(ETA), SGD(2 * ETA)),
        noise=noise,
        seed=case.seed % 2**31,
        host_noise=True,
    )


def _plain(case: Case) -> Case:
    """Return the case with likelihoods of weight 1."""
    return case.with_(forward=type(case.forward)(), backward=type(case.backward)())


def _samples(case: Case, settings: AdversarialSettings) -> tuple[Vector, Vector]:
    more = case.with_(rows=2 * case.rows + 1)
    labels = case.generator("labels").integers(0, max(1, settings.classes), more.rows)
    return more.batch()[1], labels


def replayed(case: Case, backend: Backend) -> Deviations:
    """Try a training of plain and of Wasserstein networks against its definition.

    An iteration draws z, gives D steps on G(z) and a batch of samples, and G one on the last of
    these, through the D that has moved; each gradient is one direction at a time, by
    ``backpropagate``.
    """
    if not known(case):
        return
    kind = ("vanilla", "wasserstein")[case.seed % 2]
    base = AdversarialSettings(
        kind,  # type: ignore[arg-type]
        bidirectional="both",
        discriminator_weight=0.3,
        generator_weight=0.7,
        weight_schedule="linear",
        critic_steps=1 + case.seed % 3,
        clip=0.4,
    )
    plain = dataclasses.replace(base, bidirectional="none") if case.hard else base
    trainer = trainer_of(case, backend, plain)
    double = trainer_of(case.with_(dtype="float64"), CPU, plain)
    for mine, theirs in (
        (double.generator, trainer.generator),
        (double.discriminator, trainer.discriminator),
    ):
        mine.parameters[...] = host(theirs, theirs.parameters)
    _replay(double, case)
    trainer.run()
    for name in ("generator", "discriminator"):
        net, expected = getattr(trainer, name), getattr(double, name).parameters
        actual = host(net, net.parameters)
        yield near(actual, expected, f"{name}'s parameters after training", scale=10.0)
        if kind == "wasserstein" and name == "discriminator":
            backward = [b for b in net.reversed.biases if b is not None]
            count = sum(b.shape[0] for b in backward)
            forward = actual[: net.weight_count + sum(b.size for b in _forward(net))]
            yield holds(np.max(np.abs(forward)) <= 0.4 + 1e-6, f"clipped, {count} biases aside")


def _forward(net: Network) -> list[Any]:
    return [host(net, b) for b in net.biases if b is not None]


def _replay(trainer: AdversarialTrainer, case: Case) -> None:
    """Move the networks of an unused trainer by the definition of its training."""
    g, d, settings, seed = (
        trainer.generator,
        trainer.discriminator,
        trainer.settings,
        case.seed % 2**31,
    )
    x, _ = _samples(case, settings)
    rows = case.rows
    latent, order = stream(seed, "latent"), stream(seed, "batches")
    left: list[Vector] = []
    fake = -1.0 if settings.has_critic else 0.0
    for iteration in range(ITERATIONS):
        course = 1.0 - iteration / ITERATIONS
        for _ in range(settings.steps):
            z = _normal(case, latent, (rows, g.inputs))
            y = g.predict(z, "batch")
            if not left:
                index = order.permutation(len(x))
                left = [index[k : k + rows] for k in range(0, len(x) - rows + 1, rows)]
            real = x[left.pop(0)]
            ones = np.ones((rows, 1))
            gradient = backpropagate(d, real, ones)[0]
            gradient = gradient + backpropagate(d, y, fake * ones)[0]
            if settings.discriminator_backward:
                back = backpropagate(d.reversed, ones, real)[0]
                gradient = gradient + course * settings.discriminator_weight * back
            d.parameters[...] -= 2 * ETA * gradient
            if settings.kind == "wasserstein":
                count = d.weight_count + sum(b.size for b in _forward(d))
                bound = settings.clip
                d.parameters[:count] = np.clip(d.parameters[:count], -bound, bound)
        error = backpropagate(d, y, np.ones((rows, 1)))[1]
        flat = host(g, g.parameters)
        gradient = textbook.pull_back(g, z, _through(g, flat, z, error), flat)
        if settings.generator_backward:
            back = backpropagate(g.reversed, y, z)[0]
            gradient = gradient + course * settings.generator_weight * back
        g.parameters[...] -= ETA * gradient


def _through(net: Network, flat: Vector, z: Vector, error: Vector) -> Vector:
    _, last = textbook.signals(net, flat, z)
    return through_link(net, last, error)


def _normal(case: Case, generator: np.random.Generator, shape: tuple[int, int]) -> Vector:
    """Draw as the host draws in the case's precision."""
    out = np.empty(shape, case.dtype)
    return np.asarray(CPU.normal(generator, out), dtype=float)


# -- noise -------------------------------------------------------------------------------------
def noise_conditions(case: Case, backend: Backend) -> Deviations:
    """Try the noise of each place against the condition that it passes there.

    NEM noise on D's targets and on both backward targets does not lower the log-likelihood, by
    the gain's definition; on D's or a critic's input it lowers no f(x) and raises no f(G(z)).
    """
    if not known(case):
        return
    which = game(case, backend)
    settings, std = which.settings, 0.3
    spec = Noise("nem", std=std, decay=0.0, screening="vector")
    key = "critic/input" if settings.has_critic else "discriminator/input"
    # of a normalized D a sample's score is no function of that sample alone
    if not settings.classes and not which.discriminator.statistics_count:
        _, _, d, _ = play(which, {key: spec})
        yield from _of_inputs(which, host(which.discriminator, d.sources[key].n))
    if settings.has_critic:
        return
    noise = {"discriminator/forward": spec}
    if settings.bidirectional == "both":
        noise |= {"discriminator/backward": spec, "generator/backward": spec}
    _, _, d, g = play(which, noise)
    sources = d.sources | g.sources
    yield holds(set(sources) == set(noise), f"noise on {sorted(noise)} alone")
    for key, source in sources.items():
        n = host(which.generator, source.n)
        likelihood, u, t = _end(which, key, n)
        terms = textbook.gain_terms(likelihood, u, t, n)
        gain = terms.sum(axis=1)
        slack = _slack(case, float(np.max(np.abs(terms), initial=0.0)) * terms.shape[1])
        yield holds(np.all(gain >= -slack), f"{key}: no gain below 0")
        recorded = host(which.generator, source.gain)
        yield near(recorded, [[np.mean(gain)]], f"{key}: mean gain", scale=10.0 + 10.0 * slack)


def _slack(case: Case, size: float) -> float:
    return (1e-10 if case.dtype == "float64" else 1e-3) * (1.0 + size)


def _of_inputs(which: Game, n: Vector) -> Deviations:
    """f is the score, or what log D(x) rises and log(1 − D(x)) falls with."""
    d, y = which.discriminator, which.generated()
    flat, inputs = host(d, d.parameters), np.concatenate([which.x, y])
    _, before = textbook.signals(d, flat, inputs)
    _, after = textbook.signals(d, flat, inputs + n)
    rise = (after - before)[:, 0]
    slack = 1e-10 if d.dtype == "float64" else 1e-3 * (1.0 + float(np.max(np.abs(before))))
    yield holds(np.any(n), "D's input receives noise")
    yield holds(np.all(rise[: which.rows] >= -slack), "f(x + n) ≥ f(x) for real samples")
    yield holds(np.all(rise[which.rows :] <= slack), "f(g + n) ≤ f(g) for generated samples")


def _end(which: Game, key: str, n: Vector) -> tuple[Any, Vector, Vector]:
    """Return likelihood, pre-activations and targets at the end that noise was drawn for."""
    y = which.generated()
    g, d = which.generator, which.discriminator
    of_g, of_d = host(g, g.parameters), host(d, d.parameters)
    if key == "generator/backward":
        _, u = textbook.signals(g.reversed, of_g, y)
        return g.reversed.likelihood, u, which.backward_latent()
    if key == "discriminator/backward":
        labels, targets = which.backward_pairs(y)
        if which.permutation is not None:
            targets = targets[:, which.permutation]
        _, u = textbook.signals(d.reversed, of_d, labels)
        return d.reversed.likelihood, u, targets
    s = np.concatenate([textbook.signals(d, of_d, each)[1] for each in (which.x, y)])
    rows, classes = which.rows, which.settings.classes
    if classes:
        fake = np.eye(classes + 1)[[-1] * rows]
        real = np.concatenate([which.labels, np.zeros((rows, 1))], axis=1)
        return d.likelihood, s, np.concatenate([real, fake])
    return d.likelihood, s, np.concatenate([np.ones((rows, 1)), np.zeros((rows, 1))])


def silent_noise(case: Case, backend: Backend) -> Deviations:
    """Noise of deviation 0 leaves a training as it was, bit for bit: noise has its own streams."""
    which = game(_plain(case), backend)
    keys = ["critic/input"] if which.settings.has_critic else ["discriminator/forward"]
    if not which.settings.has_critic and not which.settings.classes:
        keys += ["discriminator/input"]
    if which.settings.bidirectional == "both":
        keys += ["discriminator/backward", "generator/backward"]
    ends = []
    for noise in ({}, dict.fromkeys(keys, Noise("blind", std=0.0))):
        trainer = trainer_of(case, backend, noise=noise)
        trainer.run()
        ends.append(trainer)
    for name in ("generator", "discriminator"):
        nets = [getattr(trainer, name) for trainer in ends]
        values = [net.backend.to_numpy(net.parameters) for net in nets]
        yield equal(values[1], values[0], f"{name}'s parameters after training")
    for key, value in ends[0].history.rows[-1].items():
        if key != "iterations_per_second":
            yield equal(ends[1].history.rows[-1][key], value, f"{key} on record")


def on_device(case: Case, backend: Backend) -> Deviations:
    """Try a training without noise on another device than the host, z drawn on the host."""
    if backend.name == "cpu":
        return
    ends = []
    for where in (CPU, backend):
        trainer = trainer_of(case, where)
        trainer.run()
        ends.append(trainer)
    for name in ("generator", "discriminator"):
        ours, theirs = (host(net, net.parameters) for net in (getattr(t, name) for t in ends))
        yield near(theirs, ours, f"{name}'s parameters after training", scale=10.0)
    for key, value in ends[0].history.rows[-1].items():
        if key != "iterations_per_second":
            size = 10.0 + 10.0 * abs(value)
            yield near([ends[1].history.rows[-1][key]], [value], f"{key} on record", scale=size)
