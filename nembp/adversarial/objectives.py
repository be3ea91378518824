"""What the networks climb, as losses at D's output, and the gradient penalty of a critic.

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
"""

from __future__ import annotations

from nembp.backend import Array, Backend
from nembp.engine.backprop import SampleLoss, Step
from nembp.engine.likelihoods import Multinomial, Readout
from nembp.engine.network import Network
from nembp.errors import ArchitectureError

TINY = 1e-30  # where the slope is zero, its direction is of no interest


class RealClassLoss(SampleLoss):
    """log Σ_{k ≤ K} p(k | x): any of the K real classes, of K+1.

    Its gradient is that of the posterior's expectation E log p(k | x), k ~ p(k | x, real), with the
    posterior held fixed (Fisher's identity): so the target is this posterior, found anew in every
    step, and the error a − t as ever. Works on log p, so that a sample whose p(real) underflows
    still has its gradient. ``target`` (rows, K + 1) is work space.
    """

    def __init__(
        self, backend: Backend, dtype: str, likelihood: Multinomial, target: Array
    ) -> None:
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
    and ``value`` the mean (‖∇ₓ f(x)‖ − 1)². ArchitectureError if the network has several outputs,
    or normalized layers, through which a sample's slope depends on the other samples.
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
        self.slopes[-1][...] = 1.0
        self.epsilon[-1][...] = 0.0
        hidden = [layer.activation for layer in net.layers[1:-1]]
        self._curved = any(f is not None and not f.piecewise_linear for f in hidden)
        self.slope = backend.empty((rows, net.inputs), dtype)
        self.value = backend.zeros((1, 1), dtype)
        self._norm, self._factor = (backend.empty((rows, 1), dtype) for _ in range(2))
        if self._curved:
            sizes = [layer.size for layer in net.layers]
            spare = backend.empty((rows * max(sizes),), dtype)
            self._spare = [backend.xp.reshape(spare[: rows * n], (rows, n)) for n in sizes]

    def __call__(self, gradient: Array, weight: float = 1.0) -> None:
        """Fill ``gradient``, that of weight · mean (‖∇ₓ f(x)‖ − 1)², and set ``value``."""
        with self.threads():
            self._step(gradient, weight)

    def _step(self, gradient: Array, weight: float) -> None:
        maps, up, last, weights = self.maps, self.up, len(self.maps), self.weights_of(gradient)
        P, Q, a, delta = self.P, self.Q, self.a, self.slopes
        omega, epsilon = self.omega, self.epsilon
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
        self._set_bias_gradients(gradient)

    def _set_slope_error(self, weight: float) -> None:
        """ω⁰ = 2 weight (1 − 1/‖g‖) g / rows, and the penalty."""
        backend, xp, norm, factor = self.net.backend, self.net.backend.xp, self._norm, self._factor
        backend.row_dot(self.slope, self.slope, norm)
        xp.sqrt(norm, out=norm)
        norm += TINY
        xp.divide(-1.0, norm, out=factor)
        factor += 1.0
        factor *= 2.0 * weight / self.rows
        xp.multiply(self.slope, factor, out=self.omega[0])
        norm -= 1.0
        norm *= norm
        backend.sum_column(norm, self.value, 1.0 / self.rows)

    def _set_rho(self, k: int) -> None:
        """ρᵏ = forward(ωᵏ⁻¹) ∘ δᵏ f''/f' in the place of εᵏ, before f' meets ωᵏ."""
        activation, rho = self.net.layers[k].activation, self.epsilon[k]
        if activation is None or activation.piecewise_linear:
            rho[...] = 0.0
        else:
            backend = self.net.backend
            backend.xp.multiply(self.omega[k], self.slopes[k], out=rho)
            activation.multiply_curvature(backend, rho, self.a[k], self._spare[k])

    def _set_bias_gradients(self, gradient: Array) -> None:
        """Σ εᵏ forward, which is zero where ρ is, and zero backward."""
        net, xp, sums = self.net, self.net.backend.xp, []
        for bias in net.reversed.views(gradient).biases[1:]:
            if bias is not None:
                bias[...] = 0.0
        for k, (layer, bias) in enumerate(zip(net.layers, net.views(gradient).biases, strict=True)):
            if bias is not None and layer.biases and self._curved:
                each = xp.reshape(self.epsilon[k], (-1, layer.biases))
                sums.append((each, xp.reshape(bias, (1, -1))))
            elif bias is not None and layer.biases:
                bias[...] = 0.0
        net.backend.sum_rows(sums)
