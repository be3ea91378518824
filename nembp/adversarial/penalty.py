"""The gradient penalty of a Wasserstein critic, differentiated by hand.

The penalty wants the critic's slope to be 1: with g = ∇ₓ f(x̂) at points x̂ between real and
generated samples, it is mean (‖g‖ − 1)² (Gulrajani and others 2017). Its gradient needs second
derivatives of f. With δᵏ = ∂f/∂zᵏ, so δᴸ = 1, δᵏ = adjoint(δᵏ⁺¹) ∘ f'(zᵏ) and g = adjoint(δ¹):

    ω⁰ = ∂penalty/∂g = 2 (1 − 1/‖g‖) g / samples,   ωᵏ = forward(ωᵏ⁻¹) ∘ f'(zᵏ)

is the penalty's error at what comes down, going up; f' depends on z, where it leaves

    ρᵏ = forward(ωᵏ⁻¹) ∘ adjoint(δᵏ⁺¹) ∘ f''(zᵏ),   εᵏ = adjoint(εᵏ⁺¹) ∘ f'(zᵏ) + ρᵏ,

the penalty's error at the signals, going down from εᴸ = 0. Then ∂/∂Wᵏ is what it is for two
directions, one product of Pᵏ⁻¹ = [ω ; a] and Qᵏ = [δ ; ε], and ∂/∂bᵏ = Σ εᵏ. So a penalty is four
sweeps of the engine (:mod:`nembp.engine.backprop`), over any linear maps; without the last one where all
activations are piecewise linear, whose f'' is zero.
"""

from __future__ import annotations

from functools import partial

from nembp.backend import Array
from nembp.engine.backprop import Sweeps
from nembp.engine.network import Network
from nembp.errors import ArchitectureError

__all__ = ["GradientPenalty"]

TINY = 1e-30  # where the slope is zero, its direction is of no interest


class GradientPenalty(Sweeps):
    """Value and gradient of weight · mean (‖∇ₓ f(x)‖ − 1)², for a fixed number of rows.

    f is the pre-activation of the network's one output.

    Parameters
    ----------
    net : Network
        The critic, seen from its forward direction.
    rows : int
        Points x.

    Attributes
    ----------
    x : array, shape (rows, inputs)
        The points: write them here.
    slope : array, shape (rows, inputs)
        ∇ₓ f(x), after a call.
    value : array, shape (1, 1)
        mean (‖∇ₓ f(x)‖ − 1)², after a call.

    Raises
    ------
    ArchitectureError
        If the network has several outputs, or normalized layers, through which a sample's slope
        depends on the other samples.
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
        self.x = self._a[0]
        # what the joint gradient calls e, c and δ
        self._omega, self._slopes, self._epsilon = self._e, self._c, self._delta
        self._slopes[-1][...] = 1.0
        self._epsilon[-1][...] = 0.0
        hidden = [layer.activation for layer in net.layers[1:-1]]
        self._curved = any(f is not None and not f.piecewise_linear for f in hidden)
        self.slope = backend.empty((rows, net.inputs), dtype)
        self.value = backend.zeros((1, 1), dtype)
        self._norm, self._factor = (backend.empty((rows, 1), dtype) for _ in range(2))
        self._one_row = backend.ones((1, rows), dtype)
        self._one_column = backend.ones((rows, 1), dtype)
        if self._curved:
            widest = max(layer.size for layer in net.layers[1:-1])
            self._spare = backend.empty((rows * widest,), dtype)

    def __call__(self, gradient: Array, weight: float = 1.0) -> None:
        """Fill ``gradient``, that of weight · mean (‖∇ₓ f(x)‖ − 1)², and set ``value``."""
        self._in_lanes(self._step, gradient, weight)

    def _step(self, gradient: Array, weight: float) -> None:
        self._load_weights()
        self._sweep_signals()
        self._sweep_slopes()
        self._set_slope_error(weight)
        self._sweep_slope_errors(gradient)
        if self._curved:
            self._sweep_signal_errors(gradient)
        _, up, down = self._views_of(gradient)
        for k, layer in enumerate(self.net.layers[1:], start=1):
            down[k - 1][...] = 0.0
            if self._curved:
                self._column_sums(self._epsilon[k], up[k], layer.biases)
            else:
                up[k][...] = 0.0

    def _sweep_signals(self) -> None:
        """Up: aᵏ = f(forward(aᵏ⁻¹) + bᵏ); nobody needs the score itself."""
        for k, link in enumerate(self._links[:-1], start=1):
            a = self._a[k]
            link.forward(self._a[k - 1], a, partial(self._activate, self.net, k, a))

    def _sweep_slopes(self) -> None:
        """Down: δᵏ⁻¹ = adjoint(δᵏ) ∘ f'(zᵏ⁻¹), and g."""
        for k in range(len(self._links), 1, -1):
            below = self._slopes[k - 1]
            after = partial(self._multiply_derivative, k - 1, below, self._a[k - 1])
            self._links[k - 1].adjoint(self._slopes[k], below, after)
        self._links[0].adjoint(self._slopes[1], self.slope)

    def _set_slope_error(self, weight: float) -> None:
        """ω⁰ = 2 weight (1 − 1/‖g‖) g / rows, and the penalty."""
        backend, xp = self.net.backend, self.net.backend.xp
        norm, factor = self._norm, self._factor
        backend.row_dot(self.slope, self.slope, norm)
        backend.into(norm, xp.sqrt, norm)
        backend.into(norm, xp.add, norm, TINY)
        backend.into(factor, xp.divide, self._one_column, norm)
        backend.into(factor, xp.subtract, self._one_column, factor)
        backend.into(factor, xp.multiply, factor, 2.0 * weight / self.rows)
        backend.into(self._omega[0], xp.multiply, self.slope, factor)
        backend.into(norm, xp.subtract, norm, 1.0)
        backend.into(norm, xp.multiply, norm, norm)
        backend.matmul(self._one_row, norm, self.value)
        backend.into(self.value, xp.multiply, self.value, 1.0 / self.rows)

    def _sweep_slope_errors(self, gradient: Array) -> None:
        """Up: ω, and ρ in the place of ε; where that is zero, the gradient is ω's and δ's alone."""
        for k, link in enumerate(self._links, start=1):
            out = self._omega[k] if k < len(self._links) else None
            after = partial(self._arrive, k)
            if self._curved:  # a link keeps what the last sweep needs of both
                link.forward(self._P[k - 1], out, after)
            else:
                link.forward(self._omega[k - 1], out, after)
                weights = self._weight_gradient(gradient, k)
                link.descend(self._omega[k - 1], self._slopes[k], None, weights)

    def _arrive(self, k: int, start: int, stop: int) -> None:
        """Finish rows of ωᵏ that have come up, and set those of ρᵏ."""
        activation, backend = self.net.layers[k].activation, self.net.backend
        if self._curved:
            rho, omega = self._epsilon[k][start:stop, :], self._omega[k][start:stop, :]
            if activation is None or activation.piecewise_linear:
                rho[...] = 0.0
            else:  # adjoint(δᵏ⁺¹) f'' = δᵏ f''/f'
                backend.into(rho, backend.xp.multiply, omega, self._slopes[k][start:stop, :])
                scratch = self._scratch_for(rho, start)
                activation.multiply_curvature(backend, rho, self._a[k][start:stop, :], scratch)
        self._multiply_derivative(k, self._omega[k], self._a[k], start, stop)

    def _sweep_signal_errors(self, gradient: Array) -> None:
        """Down: εᵏ⁻¹ = adjoint(εᵏ) ∘ f'(zᵏ⁻¹) + ρᵏ⁻¹, and every linear map's gradient."""
        backend, add, last = self.net.backend, self.net.backend.xp.add, len(self._links)
        for k in range(last, 0, -1):
            link, below = self._links[k - 1], self._epsilon[k - 1]
            if 1 < k < last:
                size = self.net.layers[k - 1].size
                came = backend.xp.reshape(self._spare[: self.rows * size], (self.rows, size))
                after = partial(self._multiply_derivative, k - 1, came, self._a[k - 1])
                link.adjoint(self._epsilon[k], came, after)
                backend.into(below, add, below, came)
            link.descend(self._P[k - 1], self._Q[k], None, self._weight_gradient(gradient, k))
