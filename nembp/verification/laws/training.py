"""Laws of trainings: a network's, a generator's against a discriminator, and EM's."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from functools import partial
from typing import Any, get_args

import numpy as np

from nembp.adversarial.gradients import CycleBackpropagation
from nembp.adversarial.settings import AdversarialSettings, Kind
from nembp.adversarial.trainer import AdversarialTrainer
from nembp.backend import Backend, get_backend, stream
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.em import (
    BinaryNetwork,
    draw_noise,
    entropy,
    gem_step,
    gradient,
    nem_inequality,
    posterior,
    q,
    q_gradient,
)
from nembp.engine.activations import get_activation
from nembp.engine.likelihoods import Bernoulli, Likelihood, Multinomial, Score
from nembp.engine.linear import Dense, LinearMap, Transposed
from nembp.engine.network import Layer, Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import OPTIMIZERS, SGD, get_optimizer
from nembp.engine.training import Trainer
from nembp.verification import definitions
from nembp.verification.cases import SPREAD, Case, random_targets
from nembp.verification.laws.law import (
    BBP,
    COMPLEX,
    NEM,
    host,
    is_gradient,
    largest,
    law,
    poisoned,
)
from nembp.verification.laws.networks import error_size, joint_size, unwritten, ways
from nembp.verification.reports import Array, Deviations, equal, holds, near

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


@law("training.replay", every=4)
def replayed(case: Case, backend: Backend) -> Deviations:
    """a training = its definition, replayed in NumPy."""
    if not case.known:
        return
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
    if not case.known:
        return
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


@law("adversarial.gradients", GAN, tolerance=COMPLEX, every=2)
def adversarial_gradients(case: Case, backend: Backend) -> Deviations:
    """G and D move against the gradients of what they descend, of any kind."""
    yield from moves(case, backend)


@law("adversarial.penalty", "Gulrajani and others 2017", tolerance=COMPLEX, every=4)
def penalty_gradient(case: Case, backend: Backend) -> Deviations:
    """∇ λ mean (‖∇ₓ f(x̂)‖ − 1)² by complex steps, second derivatives too."""
    yield from moves(case, backend, "wasserstein-gp")


@law("adversarial.own-output", BBP, tolerance=COMPLEX)
def own_output(case: Case, backend: Backend) -> Deviations:
    """G(z) ↦ z: ∇ of what reads G(z) + ∇ log p(z | G(z)), held or not."""
    if not case.known:
        return
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


@law("adversarial.replay", every=8)
def adversarial_replay(case: Case, backend: Backend) -> Deviations:
    """a training = its definition: fresh z, D's steps, G's; scheduled weights, clipped critics."""
    if not case.known or case.with_(dtype="float64").net().parameter_count > 120:
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


@law("adversarial.noise", NEM, every=2)
def adversarial_noise(case: Case, backend: Backend) -> Deviations:
    """NEM noise at D, z and x: gain ≥ 0; f(x + n) ≥ f(x), f(g + n) ≤ f(g)."""
    if not case.known:
        return
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
        return Game(case, backend, settings).trainer(4, noise, rate=1e-3)

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
        trainer = game.trainer(3, noise, rate=1e-3)
        trainer.run()
        ends.append((host(game.g, game.g.parameters), host(game.d, game.d.parameters), trainer))
    for a, b, name in zip(*(pair[:2] for pair in ends), "GD", strict=True):
        yield near(a, b, f"{name}'s parameters after training", 10.0)
    rows = [trainer.rows[-1] for *_, trainer in ends]
    for key in rows[0].keys() - {"iterations_per_second"}:
        a, b = rows[1][key], rows[0][key]
        yield near(a, b, f"{key} on record", 10.0 + 10.0 * abs(b))


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


@law("em.fisher", "Fisher's identity", tolerance={"float64": 1e-10, "float32": 1e-10}, every=2)
def fisher(case: Case, backend: Backend) -> Deviations:
    """∇ log p = ∇Q at Θₙ; log p = Q + H."""
    if not case.known:
        return
    net, theta, x, y = binary_network(case)
    scale = (1.0 + case.forward.scale + case.backward.scale) * (1.0 + largest(x, y)) ** 2
    r = posterior(net, theta, x, y)
    slope = gradient(net, theta, x, y)
    yield near(q_gradient(net, theta, r, x, y), slope, "∇Q", scale)
    v = 0.5 * case.generator("other").standard_normal(theta.size)
    ends = [net.log_likelihood(theta + 1e-5 * h * v, x, y) for h in (1.0, -1.0)]
    difference, size = (ends[0] - ends[1]) / 2e-5, scale * len(x)
    yield near(slope @ v, difference, "∇ log p along a line", size, tolerance=1e-6)
    other = theta + v
    parts = q(net, other, r, x, y), entropy(net, other, r, x, y)
    log_p = net.log_likelihood(other, x, y)
    yield near(sum(parts), log_p, "Q + H", 1.0 + abs(parts[0]) + abs(parts[1]))


@law("em.gem", "Dempster, Laird and Rubin 1977, theorem 1", tolerance=SUM, every=4)
def gem(case: Case, backend: Backend) -> Deviations:
    """a GEM step never lowers log p."""
    if not case.known:
        return
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


@law("em.nem", "Osoba, Mitaim and Kosko 2013, theorem 1", tolerance=SUM, every=4)
def nem(case: Case, backend: Backend) -> Deviations:
    """E[log p(y+n, h|x)/p(y, h|x)] ≥ 0 for NEM noise."""
    if not case.known:
        return
    net, theta, x, y = binary_network(case)
    condition: Any = "posterior" if case.seed % 4 < 2 else "every"
    spec = case.forward_noise
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
