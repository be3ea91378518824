"""Random adversarial games for the laws, and their objectives written out in plain operators.

``value`` functions know nothing of sweeps: signals come from :mod:`.textbook`, so they run on NumPy
arrays; tests run them on torch tensors for autograd.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from scipy import special

from nembp.adversarial.objectives import Score
from nembp.adversarial.settings import AdversarialSettings, Kind
from nembp.backend import Backend
from nembp.engine.activations import get_activation
from nembp.engine.likelihoods import Bernoulli, Likelihood, Multinomial
from nembp.engine.linear import Dense, LinearMap, Transposed
from nembp.engine.network import Layer, Network
from nembp.verification.cases import SPREAD, Case, one_hot
from nembp.verification.laws import textbook
from nembp.verification.laws.deviations import Vector
from nembp.verification.laws.gradients import away_from_kinks, host

__all__ = ["Game", "discriminator", "game", "penalty", "random_settings"]

KINDS = get_args(Kind)
LABELS = ("real", "both")


@dataclass(frozen=True)
class Game:
    """Two networks, what they are trained for, and a batch on the host.

    Attributes
    ----------
    generator, discriminator : Network
    settings : AdversarialSettings
    z, x, labels : ndarray, shapes (rows, ·)
        Latent and real samples; one-hot labels, of no columns without classes.
    permutation : ndarray of int or None
        Of the neurons of D's backward targets.
    """

    generator: Network
    discriminator: Network
    settings: AdversarialSettings
    z: Vector
    x: Vector
    labels: Vector
    permutation: Any = None

    @property
    def rows(self) -> int:
        """Samples of each sort."""
        return len(self.z)

    def generated(self) -> Vector:
        """Return G(z)."""
        return self.sent(host(self.generator, self.generator.parameters))

    def sent(self, flat: Vector) -> Vector:
        """Return G(z) with the parameters ``flat``."""
        _, last = textbook.signals(self.generator, flat, self.z)
        return textbook.link(self.generator.likelihood, last)

    # -- D -------------------------------------------------------------------------------------
    def discriminator_value(self, flat: Vector, y: Vector, points: Vector | None) -> float:
        """Return what D descends, on real samples and generated ones ``y``.

        ``points`` are those of the gradient penalty.
        """
        net, settings, rows = self.discriminator, self.settings, self.rows
        # each sort by itself: a normalized D has statistics of real and of generated samples
        s = np.concatenate([textbook.signals(net, flat, each)[1] for each in (self.x, y)])
        if settings.has_critic:
            value = -(np.mean(s[:rows]) - np.mean(s[rows:]))
        elif settings.classes:
            log_p = special.log_softmax(s, axis=1)
            real = np.sum(self.labels * log_p[:rows, :-1]) / rows
            value = -(real + np.mean(log_p[rows:, -1]))
        else:
            value = -(np.mean(special.log_expit(s[:rows])) + np.mean(special.log_expit(-s[rows:])))
        if points is not None:
            value = value + settings.penalty_weight * penalty(net, flat, points)
        if settings.discriminator_backward:
            labels, targets = self.backward_pairs(y)
            if self.permutation is not None:
                targets = targets[:, self.permutation]
            _, u = textbook.signals(net.reversed, flat, labels)
            log_p = textbook.log_likelihood(net.reversed.likelihood, u, targets)
            value = value - settings.discriminator_weight * np.sum(log_p) / rows
        return float(value)

    def backward_pairs(self, y: Vector) -> tuple[Vector, Vector]:
        """Return the label that goes down and the x that it aims at, for each sample with both."""
        rows = self.rows
        if self.settings.classes:
            real = np.concatenate([self.labels, np.zeros((rows, 1))], axis=1)
            fake = np.eye(self.settings.classes + 1)[[-1] * rows]
        else:
            real = np.ones((rows, 1))
            fake = np.full((rows, 1), -1.0 if self.settings.has_critic else 0.0)
        if self.settings.backward_labels == "real":
            return real, self.x
        return np.concatenate([real, fake]), np.concatenate([self.x, y])

    # -- G -------------------------------------------------------------------------------------
    def generator_value(self, flat: Vector, held: Vector) -> float:
        """Return what G descends; ``held`` is what its backward direction starts from.

        Unless its gradient flows on.
        """
        settings, y, minimax = self.settings, self.sent(flat), self.settings.kind == "minimax"
        d = self.discriminator
        _, s = textbook.signals(d, host(d, d.parameters), y)
        if settings.has_critic:
            value = -np.mean(s)
        elif settings.classes:
            log_p = special.log_softmax(s, axis=1)
            real = special.logsumexp(log_p[:, :-1], axis=1)
            value = np.mean(log_p[:, -1]) if minimax else -np.mean(real)
        else:
            value = np.mean(special.log_expit(-s)) if minimax else -np.mean(special.log_expit(s))
        if settings.generator_backward:
            back = self.generator.reversed
            _, u = textbook.signals(back, flat, y if settings.backward_flow else held)
            log_p = textbook.log_likelihood(back.likelihood, u, self.backward_latent())
            value = value - settings.generator_weight * np.mean(log_p)
        return float(value)

    def backward_latent(self) -> Vector:
        """Return the z that G's backward direction aims at."""
        return np.roll(self.z, -1, axis=0) if self.settings.backward_permuted else self.z

    # -- differences ---------------------------------------------------------------------------
    def clear_of_kinks(self, points: Vector | None = None) -> bool:
        """Whether no hidden neuron of either network is near a kink, in either direction."""
        g, d, y = self.generator, self.discriminator, self.generated()
        labels, _ = self.backward_pairs(y)
        runs = [(g, self.z), (g.reversed, y), (d, self.x), (d, y)]
        runs += [(d.reversed, labels)] if points is None else [(d.reversed, labels), (d, points)]
        return all(away_from_kinks(net, x) for net, x in runs)


def penalty(net: Network, flat: Vector, x: Vector) -> float:
    """Return mean (‖∇ₓ f(x)‖ − 1)², the slope by the chain rule."""
    steps = textbook.unflatten(net, flat)
    _, y, _ = textbook.run(net, flat, x)
    slope = np.ones((len(x), 1))
    for k in range(len(steps), 0, -1):
        slope = slope @ steps[k - 1][0].T
        if k > 1:
            slope = slope * textbook.slope(net.layers[k - 1].activation, y[k - 2])
    return float(np.mean((np.sqrt(np.sum(slope * slope, axis=1)) - 1.0) ** 2))


def game(case: Case, backend: Backend, settings: AdversarialSettings | None = None) -> Game:
    """Return a case's game: its network as G, and a D of its layers turned and one more."""
    g = case.generator("game")
    settings = settings or random_settings(case)
    net = case.net(device=backend)
    d = discriminator(case, net, settings)
    x = case.batch()[1]
    z = case.rounded(case.batch()[0])
    classes = settings.classes
    labels = one_hot(g, case.rows, classes) if classes else np.zeros((case.rows, 0))
    permutation = None
    if settings.backward_permuted and settings.discriminator_backward:
        permutation = g.permutation(d.inputs)
    return Game(net, d, settings, z, x, labels, permutation)


def random_settings(case: Case, kind: str | None = None) -> AdversarialSettings:
    """Return the settings of a case's game, of a given kind or of any."""
    g = case.generator("settings")
    chosen: Any = kind or KINDS[case.seed % len(KINDS)]
    classes = int(g.integers(2, 4)) if chosen in ("vanilla", "minimax") and g.random() < 0.4 else 0
    return AdversarialSettings(
        chosen,
        bidirectional="both" if g.random() < 0.8 else "none",
        discriminator_weight=round(float(g.uniform(0.1, 2.0)), 3),
        generator_weight=round(float(g.uniform(0.1, 2.0)), 3),
        backward_labels=LABELS[int(g.integers(2))],  # type: ignore[arg-type]
        backward_flow=bool(g.random() < 0.5),
        backward_permuted=bool(g.random() < 0.2),
        classes=classes,
        penalty_weight=round(float(g.uniform(0.5, 5.0)), 3),
        clip=0.5,
    )


def discriminator(case: Case, net: Network, settings: AdversarialSettings) -> Network:
    """Return a network from G's output to a score: G turned, and one more layer."""
    last = Dense(net.inputs, settings.classes + 1)
    hidden = get_activation(case.activation)
    layers = [*net.layers[:0:-1], Layer(net.inputs, hidden), Layer(last.outputs)]
    if settings.kind == "wasserstein-gp":
        layers = [dataclasses.replace(layer, normalization=None) for layer in layers]
    maps: list[LinearMap] = [*(Transposed(linear_map) for linear_map in net.maps[::-1]), last]
    forward: Likelihood = Bernoulli()
    if settings.has_critic:
        forward = Score()
    elif settings.classes:
        forward = Multinomial()
    d = Network(layers, maps, forward, case.forward, device=net.backend, dtype=net.dtype, seed=None)
    draws = case.generator("discriminator").normal(0.0, SPREAD, d.parameter_count)
    d.parameters[...] = d.backend.asarray(draws, d.dtype)
    return d
