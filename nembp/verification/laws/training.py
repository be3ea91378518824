"""Laws of optimizers, and of a whole training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nembp.backend import Backend, stream
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import OPTIMIZERS, get_optimizer
from nembp.engine.training import Trainer
from nembp.verification.cases import Case
from nembp.verification.laws import textbook
from nembp.verification.laws.deviations import Deviations, Vector, equal, near
from nembp.verification.laws.gradients import host
from nembp.verification.laws.joint import size_of_errors
from nembp.verification.laws.noise import noise_on, tied

__all__ = [
    "TEXTBOOK",
    "adam",
    "momentum",
    "optimizer_formula",
    "optimizers_of",
    "rmsprop",
    "sgd",
    "silent_noise",
    "training",
    "weight_decay",
]

State = dict[str, Any]
ETA = 0.03


# -- optimizers, sample by sample as the papers write them -------------------------------------
def adam(
    g: Vector, s: State, t: int, eta: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Vector:
    """Return Adam's move (Kingma and Ba 2015, algorithm 1)."""
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    m, v = s["m"] / (1 - b1**t), s["v"] / (1 - b2**t)
    return np.asarray(eta * m / (np.sqrt(v) + eps))


def rmsprop(g: Vector, s: State, t: int, eta: float, rho: float = 0.9, eps: float = 1e-8) -> Vector:
    """Return RMSProp's move (Tieleman and Hinton 2012)."""
    s["s"] = rho * s.get("s", 0.0) + (1 - rho) * g**2
    return np.asarray(eta * g / (np.sqrt(s["s"]) + eps))


def momentum(g: Vector, s: State, t: int, eta: float, mu: float = 0.9) -> Vector:
    """Return momentum's move (Polyak 1964)."""
    s["v"] = mu * s.get("v", 0.0) + g
    return np.asarray(eta * s["v"])


def sgd(g: Vector, s: State, t: int, eta: float) -> Vector:
    """Return gradient descent's move."""
    return eta * g


TEXTBOOK: dict[str, Callable[..., Vector]] = {
    "adam": adam,
    "rmsprop": rmsprop,
    "momentum": momentum,
    "sgd": sgd,
}


def optimizer_formula(net: Network, name: str, seed: int, steps: int = 4) -> Deviations:
    """θ after some steps on random gradients is the textbook's, at a learning rate halved once."""
    optimizer = get_optimizer(name, learning_rate=ETA)
    gradient = optimizer.bind(net)
    g = np.random.default_rng(seed)
    theta, state = host(net, net.parameters), State()
    for t in range(1, steps + 1):
        step = g.standard_normal(theta.size).astype(net.dtype).astype(float)
        gradient[...] = net.backend.asarray(step, net.dtype)
        factor = 0.5 if t == 2 else 1.0
        optimizer.step(factor)
        theta = theta - TEXTBOOK[name](step, state, t, factor * ETA)
        yield near(host(net, net.parameters), theta, f"parameters after {t} steps", scale=10.0)


def weight_decay(net: Network, name: str) -> Deviations:
    """The weights, which both directions share, decay once a step, by 1 − ηλ; no bias decays."""
    eta, decay = 0.5, 0.1
    net.parameters[...] = net.backend.asarray(np.ones(net.parameter_count), net.dtype)
    optimizer = get_optimizer(name, learning_rate=eta, weight_decay=decay)
    optimizer.bind(net)[...] = 0.0
    optimizer.step()
    expected = np.ones(net.parameter_count)
    expected[: net.weight_count] = 1.0 - eta * decay
    yield near(host(net, net.parameters), expected, "parameters after one step of decay")


# -- a training, replayed in plain NumPy --------------------------------------------------------
EPOCHS = 2


def _trainer(case: Case, backend: Backend, noise: dict[str, Noise]) -> tuple[Network, Trainer]:
    """Return a short training on twice the case's batch, and its network."""
    net = case.net(device=backend)
    x, y = _samples(case)
    reader = BatchReader(Split(x, y), Scaling(), Scaling(), net.outputs, net.backend, net.dtype)
    trainer = Trainer(
        net,
        reader,
        epochs=EPOCHS,
        batch_size=case.rows + 1,
        optimizer=get_optimizer("momentum", _rate(case), weight_decay=0.1),
        schedule="cosine",
        noise=noise,
        seed=case.seed % 2**31,
        backward=case.seed % 4 != 0,
        host_noise=True,
    )
    return net, trainer


def _rate(case: Case) -> float:
    """Return a learning rate that moves a little, whatever the weights of the likelihoods."""
    return 1e-3 / max(1.0, case.forward.scale, case.backward.scale)


def _samples(case: Case) -> tuple[Vector, Vector]:
    """Return samples, and labels for hard targets."""
    x, t = case.with_(rows=2 * case.rows + 1).batch()
    if case.hard:
        g = case.generator("training")
        return x, g.integers(0, case.sizes[-1], len(x))
    return x, t


def training(case: Case, backend: Backend) -> Deviations:
    """Parameters after two epochs are those of the documented procedure, replayed in NumPy.

    Batches are a permutation an epoch from the stream ``batches``; noise on each target comes from
    ``noise/forward`` and ``noise/backward``; every step decays the weights, and moves by momentum
    against the gradient of the noisy targets, at the cosine schedule's learning rate.
    """
    replayed = _replay(case)
    if replayed is None:
        return
    net, trainer = _trainer(case, backend, case.noise)
    trainer.run()
    scale = 10.0 * (1.0 + _rate(case) * size_of_errors(net, *_targets(case)))
    yield near(host(net, net.parameters), replayed, "parameters after the training", scale=scale)


def _targets(case: Case) -> tuple[Vector, Vector]:
    x, y = _samples(case)
    return x, np.eye(case.sizes[-1])[y] if y.ndim == 1 else y


def _replay(case: Case) -> Vector | None:
    """Return the parameters after the training; None where a noise may be kept or not."""
    net, (x, t) = case.with_(dtype="float64").net(), _targets(case)
    net.parameters[...] = case.net().parameters  # rounded to the case's precision
    seed, batch = case.seed % 2**31, min(case.rows + 1, len(x))
    sides = ["forward"] if case.seed % 4 == 0 else ["forward", "backward"]
    order = stream(seed, "batches")
    streams = {name: stream(seed, f"noise/{name}") for name in sides}
    twins = {name: stream(seed, f"noise/{name}") for name in sides}  # to look for ties
    per_epoch = -(-len(x) // batch)
    state: State = {}
    iteration = 0
    for epoch in range(1, EPOCHS + 1):
        index = order.permutation(len(x))
        for rows in (index[k : k + batch] for k in range(0, len(x), batch)):
            eta = 0.5 * (1.0 + math.cos(math.pi * iteration / (EPOCHS * per_epoch))) * _rate(case)
            iteration += 1
            gradient = np.zeros(net.parameter_count)
            for name in sides:
                way = net if name == "forward" else net.reversed
                ends = (x[rows], t[rows]) if name == "forward" else (t[rows], x[rows])
                _, z = textbook.signals(way, net.parameters, ends[0])
                n, update, spec = np.zeros(1), "exact", case.noise.get(name)
                if spec is not None:
                    update, std = spec.update, spec.std_at(epoch, iteration)
                    given = (way.likelihood, z, ends[1])
                    if tied(spec, *given, twins[name], case.dtype, std):
                        return None
                    n = noise_on(spec, *given, std, streams[name], case.dtype)
                error = textbook.output_error(way.likelihood, z, ends[1] + n, update)
                gradient += textbook.pull_back(way, ends[0], error / len(rows), net.parameters)
            net.parameters[: net.weight_count] *= 1.0 - eta * 0.1
            net.parameters[...] -= momentum(gradient, state, iteration, eta)
    return np.asarray(net.parameters)


def silent_noise(case: Case, backend: Backend) -> Deviations:
    """Noise of deviation 0 leaves a training as it was, bit for bit: noise has its own streams."""
    quiet = {name: Noise("blind", std=0.0) for name in ("forward", "backward")}
    ends = []
    for noise in ({}, quiet):
        net, trainer = _trainer(case, backend, noise)
        history = trainer.run()
        ends.append((net.backend.to_numpy(net.parameters), history["train/forward/nll"]))
    yield equal(ends[1][0], ends[0][0], "parameters after the training")
    yield equal(ends[1][1], ends[0][1], "nll of the training")


def optimizers_of(case: Case) -> list[str]:
    """Return the optimizer that a case is about."""
    return [sorted(OPTIMIZERS)[case.seed % len(OPTIMIZERS)]]
