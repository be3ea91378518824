"""What generator and discriminator climb, and the gradients, for a fixed number of samples.

=============== ============================================ ===========================
kind            D climbs                                     G climbs, through D
=============== ============================================ ===========================
vanilla         E log D(x) + E log(1 − D(g))                 E log D(g)
minimax         E log D(x) + E log(1 − D(g))                 −E log(1 − D(g))
vanilla, K + 1  E log p(class | x) + E log p(K + 1 | g)      E log(1 − p(K + 1 | g))
minimax, K + 1  E log p(class | x) + E log p(K + 1 | g)      −E log p(K + 1 | g)
wasserstein     E f(x) − E f(g)                              E f(g)
=============== ============================================ ===========================

with g = G(z). All but one are log-likelihoods of fixed targets, up to a sign, so the losses of
:mod:`nembp.engine.backprop` serve: :class:`nembp.engine.likelihoods.Score` makes a critic's
objective one of them. The fourth sums over K labels, which are hidden: :class:`RealClassLoss`.

D's gradient is a joint one of a batch of real and of generated samples. G's goes through D: D's
error at its input, by a run of D that leaves its weights alone, is G's error at its output.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from nembp.adversarial.settings import AdversarialSettings
from nembp.backend import Array, Backend
from nembp.engine.backprop import ClassAssignment, JointBackpropagation, SampleLoss, Step
from nembp.engine.likelihoods import Likelihood, Readout
from nembp.engine.network import Network
from nembp.engine.noise import Noise, NoiseSource
from nembp.errors import ArchitectureError

TINY = 1e-30  # where the slope is zero, its direction is of no interest
PLACES = {  # of noise in D's joint gradient
    "discriminator/forward": "forward",
    "discriminator/backward": "backward",
    "discriminator/input": "forward/input",
    "critic/input": "forward/input",
}
ByPlace = Mapping[str, Any]  # noise, or the streams that draw it
NONE: ByPlace = MappingProxyType({})


class RealClassLoss(SampleLoss):
    """log Σ_{k ≤ K} p(k | x): any of the K real classes, of K+1.

    Its gradient is that of the posterior's expectation E log p(k | x), k ~ p(k | x, real), with the
    posterior held fixed (Fisher's identity): so the target is this posterior, found anew in every
    step, and the error a − t as ever. Works on log p, so that a sample whose p(real) underflows
    still has its gradient. ``target`` (rows, K + 1) is work space.
    """

    def __init__(self, backend: Backend, dtype: str, likelihood: Likelihood, target: Array) -> None:
        super().__init__(backend, dtype, likelihood, target)
        rows, classes = target.shape[0], target.shape[1] - 1
        self._real = Readout(backend, rows, classes, dtype)
        self._posterior = target[:, :classes]
        target[...] = 0.0

    def error(self, out: Array) -> None:
        """Write −weight · ∂log p(real)/∂z / samples into ``out``, and the mean nll into ``nll``."""
        o, real = self.readout, self._real
        self.likelihood.activate(o)  # z is log p now
        real.z[...] = o.z[:, : real.z.shape[1]]
        self.likelihood.activate(real)
        # log p(k, real) − log p(k | real), the same for every k
        log_p = self.backend.xp.subtract(o.z[:, :1], real.z[:, :1], out=real.column)
        log_p *= self.likelihood.scale
        self.set_nll(log_p)
        self._posterior[...] = real.a
        self.write_error(self.target, out)


class GradientPenalty(Step):
    """Value and gradient of weight · mean (‖∇ₓ f(x̂)‖ − 1)², differentiated by hand.

    The penalty wants the slope of a critic f to be 1 at points x̂ between real and generated
    samples (Gulrajani and others 2017); f is the pre-activation of its one output. Its gradient
    needs second derivatives of f. With δᵏ = ∂f/∂zᵏ, so δᴸ = 1, δᵏ = adjoint(δᵏ⁺¹) ∘ f'(zᵏ) and the
    slope g = adjoint(δ¹):

        ω⁰ = ∂penalty/∂g = 2 (1 − 1/‖g‖) g / samples,   ωᵏ = forward(ωᵏ⁻¹) ∘ f'(zᵏ)

    is the penalty's error at what comes down, going up; f' depends on z, where it leaves

        ρᵏ = forward(ωᵏ⁻¹) ∘ adjoint(δᵏ⁺¹) ∘ f''(zᵏ),   εᵏ = adjoint(εᵏ⁺¹) ∘ f'(zᵏ) + ρᵏ,

    the penalty's error at the signals, going down from εᴸ = 0. Then ∂/∂Wᵏ is what it is for two
    directions, one product of Pᵏ⁻¹ = [ω ; a] and Qᵏ = [δ ; ε], and ∂/∂bᵏ = Σ εᵏ. So a penalty is
    four sweeps over any linear maps; without the last one where all activations are piecewise
    linear, whose f'' is zero.

    Write the points into ``x``; after a call, ``slope`` is ∇ₓ f(x), both of shape (rows, inputs),
    and ``value`` the mean (‖∇ₓ f(x)‖ − 1)². Through normalized layers a sample's slope would depend
    on the other samples.
    """

    def __init__(self, net: Network, rows: int) -> None:
        if net.outputs != 1 or net.statistics_count:
            normal = " and normalized layers" if net.statistics_count else ""
            raise ArchitectureError(
                "a gradient penalty needs a critic of one output and without batch normalization, "
                f"got {net.outputs} outputs{normal}"
            )
        super().__init__(net, rows, rows, backward_first=True)
        backend, dtype = net.backend, net.dtype
        self.x = self.a[0]
        # P = [ω ; a] and Q = [δ ; ε]: what the joint gradient calls e, c and δ
        self.omega, self.slopes, self.epsilon = self.e, self.c, self.delta
        self.down = [None] * len(self.down)  # backward biases have no part in f
        self.slopes[-1][...] = 1.0
        for epsilon in self.epsilon[1:]:
            epsilon[...] = 0.0
        hidden = [layer.activation for layer in net.layers[1:-1]]
        self._curved = any(f is not None and not f.piecewise_linear for f in hidden)
        self.slope = backend.empty((rows, net.inputs), dtype)
        self.value = backend.zeros((1, 1), dtype)
        self._norm, self._factor = (backend.empty((rows, 1), dtype) for _ in range(2))
        if self._curved:
            self._spare = [backend.empty((rows, layer.size), dtype) for layer in net.layers]

    def __call__(self, gradient: Array, weight: float = 1.0) -> None:
        """Fill ``gradient``, that of weight · mean (‖∇ₓ f(x)‖ − 1)², and set ``value``."""
        maps, up, last, P, Q = self.maps, self.up, len(self.maps), self.P, self.Q
        a, delta, omega, epsilon = self.a, self.slopes, self.omega, self.epsilon
        weights = self.weights_of(gradient)
        with self.threads():
            self.begin()
            for k in range(1, last):  # 1 up: a; nobody needs the score itself
                maps[k - 1].forward(a[k - 1], a[k])
                up[k].signal(a[k])
            for k in range(last, 1, -1):  # 2 down: δ, and the slope g
                maps[k - 1].adjoint(delta[k], delta[k - 1])
                up[k - 1].error(delta[k - 1], a[k - 1])
            maps[0].adjoint(delta[1], self.slope)
            self._set_slope_error(weight)
            for k in range(1, last + 1):  # 3 up: ω, and ρ in the place of ε
                maps[k - 1].forward(P[k - 1], omega[k] if k < last else None)
                if k < last:
                    if self._curved:
                        self._set_rho(k)
                    up[k].error(omega[k], a[k])
                if not self._curved:  # where ρ is zero, the gradient is that of ω and δ alone
                    maps[k - 1].adjoint_and_gradient(omega[k - 1], delta[k], None, weights[k - 1])
            for k in range(last, 0, -1) if self._curved else ():  # 4 down: ε, and the gradients
                if 1 < k < last:
                    maps[k - 1].adjoint(epsilon[k], self._spare[k - 1])
                    up[k - 1].error(self._spare[k - 1], a[k - 1])
                    epsilon[k - 1] += self._spare[k - 1]
                maps[k - 1].adjoint_and_gradient(P[k - 1], Q[k], None, weights[k - 1])
            self.end(gradient)

    def _set_slope_error(self, weight: float) -> None:
        """ω⁰ = 2 weight (1 − 1/‖g‖) g / rows, and the penalty."""
        backend, norm, factor = self.net.backend, self._norm, self._factor
        backend.row_dot(self.slope, self.slope, norm)
        backend.xp.sqrt(norm, out=norm)
        norm += TINY
        backend.xp.divide(-1.0, norm, out=factor)
        factor += 1.0
        factor *= 2.0 * weight / self.rows
        backend.xp.multiply(self.slope, factor, out=self.omega[0])
        norm -= 1.0
        norm *= norm
        backend.sum_column(norm, self.value, 1.0 / self.rows)

    def _set_rho(self, k: int) -> None:
        """ρᵏ = forward(ωᵏ⁻¹) ∘ δᵏ f''/f' in the place of εᵏ, before f' meets ωᵏ."""
        activation, rho, backend = self.net.layers[k].activation, self.epsilon[k], self.net.backend
        if activation is None or activation.piecewise_linear:
            rho[...] = 0.0
        else:
            backend.xp.multiply(self.omega[k], self.slopes[k], out=rho)
            activation.multiply_curvature(backend, rho, self.a[k], self._spare[k])


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
        self, net: Network, rows: int, settings: AdversarialSettings, noise: ByPlace = NONE,
        generators: ByPlace = NONE, permutation: np.ndarray[Any, Any] | None = None,
    ) -> None:  # fmt: skip
        backend, dtype, classes = net.backend, net.dtype, settings.classes
        self.net, self.settings = net, settings
        self.penalty = GradientPenalty(net, rows) if settings.kind == "wasserstein-gp" else None
        if self.penalty is not None:
            self._share = backend.empty((rows, 1), dtype)
            self._of_penalty = backend.zeros((net.parameter_count,), dtype)
            self._between = generators["penalty"]
        self.labels: Array = backend.zeros((rows, classes), dtype) if classes else None
        self.permuted: Array = None
        if permutation is not None:
            self.permuted = backend.empty((2 * rows, net.inputs), dtype)
        # the labels that have backward targets, and their samples; None for all K + 1
        with_targets: ClassAssignment | None = None
        kinds = 1 if settings.backward_labels == "real" else 2  # or generated ones too
        # of real and generated samples, where there is a single output
        targets = (1.0, -1.0) if settings.has_critic else (1.0, 0.0)
        if classes and kinds == 1:
            with_targets = ClassAssignment(np.eye(classes, classes + 1), self.labels)
        elif not classes:
            members = backend.asarray(np.repeat(np.eye(kinds), rows, axis=0), dtype)
            with_targets = ClassAssignment(np.reshape(targets[:kinds], (kinds, 1)), members)
        own = [key for key in noise if key in PLACES]
        self._joint = joint = JointBackpropagation(
            net,
            2 * rows,
            path="classes" if settings.discriminator_backward else "none",
            classes=with_targets,
            # normalized apart, as the generator's step shows D generated samples alone
            groups=(rows, rows),
            samples=rows,
            backward_target=self.permuted,
            noise={PLACES[key]: noise[key] for key in own},
            generators={PLACES[key]: generators[key] for key in own},
        )
        self.real, self.generated = joint.x[:rows, :], joint.x[rows:, :]
        joint.t[...] = 0.0
        if classes:
            joint.t[rows:, classes:] = 1.0
        else:
            joint.t[:rows, :], joint.t[rows:, :] = targets
        self.forward_nll, self.backward_nll = joint.forward_nll, joint.backward_nll
        self.sources = {key: joint.sources[PLACES[key]] for key in own}
        if permutation is not None:
            index = np.arange(2 * rows)[:, None] * net.inputs + permutation[None, :]
            self._index = backend.asarray(index.reshape(-1), "int64")
            self._values = [backend.xp.reshape(each, (-1, 1)) for each in (joint.x, self.permuted)]

    def __call__(self, gradient: Array, weight: float = 1.0, factor: Array = None) -> None:
        """Fill ``gradient``; ``weight`` and ``factor`` (device) multiply log p(x | label)."""
        joint, backend = self._joint, self.net.backend
        if self.labels is not None:
            joint.t[: self.labels.shape[0], :-1] = self.labels
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


class CycleBackpropagation(Step):
    """Gradients of −log p(z | G(z)) and of what reads G(z), in an order of sweeps of their own.

    Up (a), down (c and δ in one product), up (e, and the joint gradients): write a batch into
    ``z``, call :meth:`run`, and then the object with the error at ``output``.
    G(z) is an input to the backward direction that is held fixed. With ``flow`` it is not: the
    gradient of log p(z | G(z)) goes on into G(z), so that δ has to wait for it, and goes down
    alone. ``backward_target`` is ``z`` by default; ``noise`` is for this target.
    """

    def __init__(
        self, net: Network, rows: int, *, bidirectional: bool = True, flow: bool = False,
        backward_target: Array = None, noise: Noise | None = None, generator: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(net, rows, rows if bidirectional else 0, backward_first=True)
        backend, dtype, back = net.backend, net.dtype, net.reversed.likelihood
        self.z = self.a[0]  # the batch
        self.readout = Readout(backend, rows, net.outputs, dtype)
        self.output = self.readout.a  # G(z), after `run`
        self.input: SampleLoss | None = None  # whose weight multiplies log p(z | G(z))
        self.source: NoiseSource | None = None
        self.backward_nll = backend.zeros((1, 1), dtype)
        self._top: Array = None  # eᴸ, where the gradient flows on
        if bidirectional:
            target = self.z if backward_target is None else backward_target
            drawn: Any = {"noise": noise, "generator": generator}
            self.input = SampleLoss(backend, dtype, back, target, **drawn)
            self.source, self.backward_nll = self.input.source, self.input.nll
            self._top = backend.empty((rows, net.outputs), dtype) if flow else None

    def run(self) -> Array:
        """Send ``z`` up, aᵏ = f(forward(aᵏ⁻¹) + bᵏ), and return ``output``."""
        with self.threads():
            self.begin()
            for k, each in enumerate(self.maps, start=1):
                signal = self.readout.z if k == len(self.maps) else self.a[k]
                each.forward(self.a[k - 1], signal)
                self.up[k].signal(signal)
            self.net.likelihood.activate(self.readout)
        return self.output

    def __call__(self, gradient: Array, error: Array) -> None:
        """Fill ``gradient``, for ``error`` = ∂/∂output (rows, outputs) of what reads the output."""
        maps, up, down, last = self.maps, self.up, self.down, len(self.maps)
        P, Q, a, e, delta, c = self.P, self.Q, self.a, self.e, self.delta, self.c
        weights, loss, flow = self.weights_of(gradient), self.input, self._top is not None
        shared = loss is not None and not flow  # c and δ in one product
        with self.threads():
            if loss is not None:
                c[last][...] = self.output
                if shared:
                    self._set_output_error(error)
                for k in range(last, 1, -1):  # 2 down: c, and δ
                    above, below = (Q[k], Q[k - 1]) if shared else (c[k], c[k - 1])
                    maps[k - 1].adjoint(above, below)
                    down[k - 1].signal(c[k - 1])
                    if shared:
                        up[k - 1].error(delta[k - 1], a[k - 1])
                maps[0].adjoint(c[1], loss.readout.z)
                down[0].signal(loss.readout.z)
                loss.error(e[0])
                for k in range(1, last + 1):  # 3 up: e, and one joint gradient per map
                    maps[k - 1].forward(P[k - 1], e[k] if k < last else self._top)
                    if k < last:
                        down[k].error(e[k], c[k])
                    if shared:
                        maps[k - 1].adjoint_and_gradient(P[k - 1], Q[k], None, weights[k - 1])
            if not shared:
                self._set_output_error(error)
                for k in range(last, 0, -1):  # down: δ by itself, and one joint gradient per map
                    out = None if flow else delta[k - 1]  # of the first rows, c's in a flow
                    maps[k - 1].adjoint_and_gradient(P[k - 1], Q[k], out, weights[k - 1])
                    if k > 1:
                        if flow:
                            maps[k - 1].adjoint(delta[k], delta[k - 1])
                        up[k - 1].error(delta[k - 1], a[k - 1])
            self.end(gradient)

    def _set_output_error(self, error: Array) -> None:
        """δᴸ = (error + eᴸ) · ∂a/∂z, with eᴸ where the gradient of log p(z | G(z)) flows on."""
        delta = self.delta[-1]
        delta[...] = error
        if self._top is not None:
            delta += self._top
        self.net.likelihood.multiply_derivative(self.readout, delta)


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
        self, net: Network, discriminator: Network, rows: int, settings: AdversarialSettings,
        noise: ByPlace = NONE, generators: ByPlace = NONE,
    ) -> None:  # fmt: skip
        own, seen = "generator/backward", "discriminator/input"
        self._target: Array = None
        if settings.backward_permuted and settings.generator_backward:
            self._target = net.backend.empty((rows, net.inputs), net.dtype)
        self._cycle = cycle = CycleBackpropagation(
            net, rows, bidirectional=settings.generator_backward, flow=settings.backward_flow,
            backward_target=self._target, noise=noise.get(own), generator=generators.get(own),
        )  # fmt: skip
        self.through = through = JointBackpropagation(
            discriminator,
            rows,
            path="none",
            output=_loss(discriminator, rows, settings),
            input_error=True,
            noise={PLACES[seen]: noise[seen]} if seen in noise else {},
            generators={PLACES[seen]: generators.get(f"{seen} of G")},
        )
        through.t[...] = 1.0  # NEM noise on what D sees raises log D
        through.moves_statistics = False  # D sees these samples in its own step
        self.z, self.output, self.run = cycle.z, cycle.output, cycle.run
        self.sources = {} if cycle.source is None else {own: cycle.source}
        self.forward_nll, self.backward_nll = through.forward_nll, cycle.backward_nll

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
        cycle(gradient, through.input_error)


def _loss(net: Network, rows: int, settings: AdversarialSettings) -> SampleLoss:
    """Return G's objective, as above, as a loss of the output of D."""
    target, minimax = net.backend.zeros((rows, net.outputs), net.dtype), settings.kind == "minimax"
    if settings.classes and not minimax:
        return RealClassLoss(net.backend, net.dtype, net.likelihood, target)
    # the label that is climbed, or descended: of K + 1 that of generated samples
    target[:, settings.classes :] = 1.0 if settings.classes or not minimax else 0.0
    loss = SampleLoss(net.backend, net.dtype, net.likelihood, target)
    loss.weight = -1.0 if minimax else 1.0
    return loss
