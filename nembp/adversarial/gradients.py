"""The gradients of generator and discriminator, for a fixed number of samples, in own buffers.

D's gradient is a joint one of a batch of real and of generated samples. G's goes through D: D's
error at its input, by a run of D that leaves its weights alone, is G's error at its output.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.adversarial.objectives import GradientPenalty, RealClassLoss
from nembp.adversarial.settings import AdversarialSettings
from nembp.backend import Array, stream
from nembp.engine.backprop import (
    ClassAssignment,
    CycleBackpropagation,
    JointBackpropagation,
    SampleLoss,
)
from nembp.engine.likelihoods import Multinomial, Score
from nembp.engine.network import Network
from nembp.engine.noise import Noise

PLACES = {  # of noise in D's joint gradient
    "discriminator/forward": "forward",
    "discriminator/backward": "backward",
    "discriminator/input": "forward/input",
    "critic/input": "forward/input",
}
Noises = dict[str, Noise]


class DiscriminatorGradient:
    """D's gradient: of its objective, and of log p(x | label) where it is trained backward.

    Write real samples into ``real`` (rows, inputs), as many generated ones into ``generated``, and
    one-hot labels into ``labels`` (rows, classes), which is None without classes.

    ``noise``, ``generators`` and ``sources`` are keyed by the trainer's places;
    ``generators["penalty"]`` draws the points x̂ of a gradient penalty. ``permutation`` is of the
    values of the backward targets. ``forward_nll``, −(mean log D(x) + mean log(1 − D(g))) or what
    stands in its place, and ``backward_nll``, the mean −log p(x | label) before D's weight, are in
    nats, of shape (1, 1).
    """

    def __init__(
        self,
        net: Network,
        rows: int,
        settings: AdversarialSettings,
        noise: Noises | None = None,
        generators: dict[str, Any] | None = None,
        permutation: np.ndarray[Any, Any] | None = None,
    ) -> None:
        backend, dtype = net.backend, net.dtype
        noise, generators = noise or {}, generators or {}
        self.net, self.settings = net, settings
        self.penalty = GradientPenalty(net, rows) if settings.kind == "wasserstein-gp" else None
        if self.penalty is not None:
            self._share = backend.empty((rows, 1), dtype)
            self._of_penalty = backend.zeros((net.parameter_count,), dtype)
            self._between = generators.get("penalty") or stream(0, "penalty")
        # of real and generated samples, where there is a single output
        self._targets = (1.0, -1.0) if isinstance(net.likelihood, Score) else (1.0, 0.0)
        self.labels: Array = None
        if settings.classes:
            self.labels = backend.zeros((rows, settings.classes), dtype)
        places = {PLACES[key]: key for key in noise if key in PLACES}
        permuted = None
        if permutation is not None:
            permuted = backend.empty((2 * rows, net.inputs), dtype)
        self._joint = joint = JointBackpropagation(
            net,
            2 * rows,
            path="classes" if settings.discriminator_backward else "none",
            classes=self._classes(rows),
            # normalized apart, as the generator's step shows D generated samples alone
            groups=(rows, rows),
            samples=rows,
            backward_target=permuted,
            noise={place: noise[key] for place, key in places.items()},
            generators={place: generators[key] for place, key in places.items()},
        )
        self.real, self.generated = joint.x[:rows, :], joint.x[rows:, :]
        joint.t[...] = 0.0
        if settings.classes:
            joint.t[rows:, settings.classes :] = 1.0
            self._label_targets = joint.t[:rows, : settings.classes]
        else:
            joint.t[:rows, :], joint.t[rows:, :] = self._targets
        self.forward_nll, self.backward_nll = joint.forward_nll, joint.backward_nll
        self.sources = {places[place]: source for place, source in joint.sources.items()}
        self.permuted = permuted
        if permutation is not None:
            index = np.arange(2 * rows)[:, None] * net.inputs + permutation[None, :]
            self._index = backend.asarray(index.reshape(-1), "int64")
            flat = backend.xp.reshape
            self._values = flat(joint.x, (-1, 1)), flat(permuted, (-1, 1))

    def _classes(self, rows: int) -> ClassAssignment | None:
        """Return the labels that have backward targets, and their samples; None for all K + 1."""
        settings, backend, dtype = self.settings, self.net.backend, self.net.dtype
        real = settings.backward_labels == "real"
        if settings.classes:
            if not real:
                return None
            return ClassAssignment(np.eye(settings.classes, settings.classes + 1), self.labels)
        inputs = np.array(self._targets).reshape(2, 1)
        if real:
            return ClassAssignment(inputs[:1], backend.ones((rows, 1), dtype))
        return ClassAssignment(inputs, backend.asarray(np.repeat(np.eye(2), rows, axis=0), dtype))

    def __call__(self, gradient: Array, weight: float = 1.0, factor: Array = None) -> None:
        """Fill ``gradient`` for the samples; ``weight`` multiplies log p(x | label).

        So does ``factor``, an array of shape (1,) where a captured step looks.
        """
        joint, backend = self._joint, self.net.backend
        if self.labels is not None:
            self._label_targets[...] = self.labels
        if joint.input is not None:
            joint.input.weight, joint.input.factor = weight, factor
        if self.permuted is not None:
            table, out = self._values
            backend.take_rows(table, self._index, out)
        joint.step(gradient)
        if self.penalty is not None:
            # x̂ = g + ε (x − g), with ε uniform on [0, 1) for each pair
            backend.uniform(self._between, self._share)
            points = backend.xp.subtract(self.real, self.generated, out=self.penalty.x)
            points *= self._share
            points += self.generated
            self.penalty(self._of_penalty, self.settings.penalty_weight)
            gradient += self._of_penalty


class GeneratorGradient:
    """G's gradient: of its objective, through D, and of log p(z | G(z)) where it is bidirectional.

    Write z into ``z``, call :meth:`run` for the samples, then the object for the gradient.

    ``noise`` may be at ``"generator/backward"`` and at ``"discriminator/input"``, whose generator
    here is ``"discriminator/input of G"``: what D sees of G(z) is then noisy here too.
    ``forward_nll`` is the mean of what D's output says: −log D(g), −log(1 − D(g)) for minimax,
    −f(g) for a critic; ``backward_nll`` the mean −log p(z | G(z)) in nats, before G's weight.
    ``sources`` has the noise on z by its place, and ``through`` runs D with that on what it sees.
    """

    def __init__(
        self,
        net: Network,
        discriminator: Network,
        rows: int,
        settings: AdversarialSettings,
        noise: Noises | None = None,
        generators: dict[str, Any] | None = None,
    ) -> None:
        noise, generators = noise or {}, generators or {}
        self.net, self._target = net, None
        if settings.backward_permuted and settings.generator_backward:
            self._target = net.backend.empty((rows, net.inputs), net.dtype)
        self._cycle = cycle = CycleBackpropagation(
            net,
            rows,
            bidirectional=settings.generator_backward,
            flow=settings.backward_flow,
            backward_target=self._target,
            noise=noise.get("generator/backward"),
            generator=generators.get("generator/backward"),
        )
        seen = {PLACES[key]: key for key in noise if key == "discriminator/input"}
        self.through = through = JointBackpropagation(
            discriminator,
            rows,
            path="none",
            output=_loss(discriminator, rows, settings),
            input_error=True,
            noise={place: noise[key] for place, key in seen.items()},
            generators={place: generators[f"{key} of G"] for place, key in seen.items()},
        )
        through.t[...] = 1.0  # NEM noise on what D sees raises log D
        through.moves_statistics = False  # D sees these samples in its own step
        self.z, self.output = cycle.z, cycle.output
        self.sources = {} if cycle.source is None else {"generator/backward": cycle.source}
        self.forward_nll, self.backward_nll = through.forward_nll, cycle.backward_nll

    def run(self) -> Array:
        """Return G(z), which stays until the next call."""
        return self._cycle.run()

    def __call__(self, gradient: Array, weight: float = 1.0, factor: Array = None) -> None:
        """Fill ``gradient`` for the samples of the last :meth:`run`, as D's gradient is filled."""
        cycle, through = self._cycle, self.through
        through.x[...] = cycle.output
        through.step(None)
        if cycle.input is not None:
            cycle.input.weight, cycle.input.factor = weight, factor
        if self._target is not None:  # another sample's z
            self._target[:-1, :] = self.z[1:, :]
            self._target[-1:, :] = self.z[:1, :]
        cycle.step(gradient, through.input_error)


def _loss(discriminator: Network, rows: int, settings: AdversarialSettings) -> SampleLoss:
    """Return G's objective as a loss of D's output (:mod:`nembp.adversarial.objectives`)."""
    net, likelihood = discriminator, discriminator.likelihood
    backend, dtype = net.backend, net.dtype
    target = backend.zeros((rows, net.outputs), dtype)
    minimax = settings.kind == "minimax"
    if isinstance(likelihood, Multinomial) and not minimax:
        return RealClassLoss(backend, dtype, likelihood, target)
    if isinstance(likelihood, Multinomial):
        target[:, settings.classes :] = 1.0
    elif not minimax:
        target[...] = 1.0
    loss = SampleLoss(backend, dtype, likelihood, target)
    loss.weight = -1.0 if minimax else 1.0
    return loss
