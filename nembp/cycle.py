"""Both directions' gradients where the backward direction's input is the network's own output.

A generator G maps z to G(z), which another network reads: its output error is that network's error
at its input, ∂/∂G(z). Its backward direction maps G(z) back to z. So no signal can go down before
all have come up, and the order of the sweeps (:mod:`nembp.sweeps`) is:

1. up: a, from z to G(z), where the output's error is found;
2. down: the errors δ and the backward signals c together, one product of Qᵏ = [c ; δ];
3. up: the backward errors e; and with them the joint gradient of each synapse, one product of
   Pᵏ⁻¹ = [e ; a] and Qᵏ.

G(z) is an input to the backward direction that is held fixed. With ``flow`` it is not: the
gradient of log p(z | G(z)) goes on from the top of the third sweep into G(z), so that δ has to wait
for it, and goes down alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from nembp.backend import Array
from nembp.ends import End, SampleEnd
from nembp.likelihoods import Readout
from nembp.network import Network
from nembp.noise import Noise, NoiseSource
from nembp.sweeps import Sweeps

__all__ = ["CycleBackpropagation"]


class CycleBackpropagation(Sweeps):
    """Gradients of −log p(z | G(z)) and of what reads G(z), for a fixed number of rows.

    Write a batch into ``z``, call :meth:`run`, and then the object with the error at ``output``.

    Parameters
    ----------
    net : Network
        G, seen from its forward direction.
    rows : int
        Samples in a batch.
    bidirectional : bool
        Whether the backward direction is trained too.
    flow : bool
        Whether the gradient of log p(z | G(z)) flows into G(z) too.
    backward_target : array, shape (rows, inputs), optional
        What the backward direction aims at; ``z`` by default.
    noise : Noise, optional
        For the backward targets.
    generator : object, optional
        Of the noise's stream.

    Attributes
    ----------
    z : array, shape (rows, inputs)
        The batch.
    output : array, shape (rows, outputs)
        G(z), after :meth:`run`.
    input : End or None
        The end of the backward direction; its ``weight`` multiplies log p(z | G(z)).
    backward_nll : array, shape (1, 1)
        Mean −log p(z | G(z)) of the clean targets in nats, after a call.
    source : NoiseSource or None
        With its share accepted and mean gain.
    """

    def __init__(
        self,
        net: Network,
        rows: int,
        *,
        bidirectional: bool = True,
        flow: bool = False,
        backward_target: Array = None,
        noise: Noise | None = None,
        generator: Any = None,
    ) -> None:
        super().__init__(net, rows, rows if bidirectional else 0, backward_first=True)
        backend, dtype, back = net.backend, net.dtype, net.reversed.likelihood
        self.z, self._flow = self._a[0], flow
        self.readout = Readout.allocate(backend, rows, net.outputs, dtype)
        self.output = self.readout.a
        self.input: End | None = None
        self.source: NoiseSource | None = None
        self.backward_nll = backend.zeros((1, 1), dtype)
        if not bidirectional:
            return
        if noise is not None and noise.kind != "none":
            self.source = NoiseSource(noise, back, backend, rows, net.inputs, dtype, generator)
        target = self.z if backward_target is None else backward_target
        self.input = SampleEnd(backend, dtype, back, target, self.source)
        self.backward_nll = self.input.nll
        self._top = backend.empty((rows, net.outputs), dtype) if flow else None  # eᴸ

    # -- the step ------------------------------------------------------------------------------
    def run(self) -> Array:
        """Send ``z`` up, and return ``output``."""
        self._in_lanes(self._sweep_up)
        return self.output

    def __call__(self, gradient: Array, error: Array, epoch: int = 1, iteration: int = 1) -> None:
        """Fill ``gradient``, for ``error`` = ∂/∂output (rows, outputs) of what reads the output.

        ``epoch`` and ``iteration``, both counted from 1, set the annealed noise's deviation.
        """
        self._in_lanes(self._step, gradient, error, (epoch, iteration))

    def _step(self, gradient: Array, error: Array, clock: tuple[int, int]) -> None:
        if self.input is None:
            self._set_output_error(error)
            self._sweep_errors(gradient, joint=True)
            self._normalized.end(gradient, self.moves_statistics)
            return
        self.net.backend.copy(self.output, self._c[-1])
        if self._flow:
            self._sweep_backward_signals(self.input)
            self.input.error(self._e[0], clock)
            self._sweep_backward_errors(None)
            self._set_output_error(error)
            self._sweep_errors(gradient, joint=False)
        else:
            self._set_output_error(error)
            self._sweep_down(self.input)
            self.input.error(self._e[0], clock)
            self._sweep_backward_errors(gradient)
        self._normalized.end(gradient, self.moves_statistics)

    def _set_output_error(self, error: Array) -> None:
        """δᴸ = (error + eᴸ) · ∂a/∂z, with eᴸ where the gradient of log p(z | G(z)) flows on."""
        backend, delta = self.net.backend, self._delta[-1]
        if self._flow and self.input is not None:
            backend.into(delta, backend.xp.add, error, self._top)
        else:
            backend.copy(error, delta)
        self.net.likelihood.multiply_link_derivative(self.readout, delta)

    # -- sweeps --------------------------------------------------------------------------------
    def _sweep_up(self) -> None:
        """Up: aᵏ = f(forward(aᵏ⁻¹) + bᵏ), and G(z) = link(zᴸ)."""
        self._load_weights()
        for k, link in enumerate(self._links, start=1):
            out = self.readout.z if k == len(self._links) else self._a[k]
            passes = self._normalized.of_forward_signal(k, out)
            after = partial(self._activate, self.net, k, out)
            self._carry(link.forward, (self._a[k - 1], out), after, passes)
        self.net.likelihood.link(self.readout)

    def _sweep_down(self, end: End) -> None:
        """Down: c and δ in one product, cᵏ⁻¹ = f(· + dᵏ⁻¹), δᵏ⁻¹ = · ∘ f'(aᵏ⁻¹); u⁰ at the end."""
        for k in range(len(self._links), 1, -1):
            passes = self._normalized.of_backward_signal(k - 1, self._c[k - 1])
            passes += self._normalized.of_forward_error(k - 1, self._delta[k - 1], self._first)
            ends = self._Q[k], self._Q[k - 1]
            self._carry(self._links[k - 1].adjoint, ends, partial(self._arrive, k - 1), passes)
        self._sweep_to_input(end)

    def _sweep_backward_signals(self, end: End) -> None:
        """Down: cᵏ⁻¹ = f(adjoint(cᵏ) + dᵏ⁻¹) alone, and u⁰ at the end."""
        last = len(self._links)
        for k in range(last, 1, -1):
            below = self._c[k - 1]
            after = partial(self._activate, self.net.reversed, last - k + 1, below)
            passes = self._normalized.of_backward_signal(k - 1, below)
            self._carry(self._links[k - 1].adjoint, (self._c[k], below), after, passes)
        self._sweep_to_input(end)

    def _sweep_to_input(self, end: End) -> None:
        u, last = end.readout.z, len(self._links)
        self._links[0].adjoint(self._c[1], u, partial(self._activate, self.net.reversed, last, u))

    def _sweep_backward_errors(self, gradient: Array | None) -> None:
        """Up: eᵏ = forward(eᵏ⁻¹) ∘ f'(cᵏ); with them the joint gradient, where it is given."""
        for k, link in enumerate(self._links, start=1):
            if k < len(self._links):
                error, c = self._e[k], self._c[k]
                after = partial(self._multiply_derivative, k, error, c)
                passes = self._normalized.of_backward_error(k, error)
                self._carry(link.forward, (self._P[k - 1], error), after, passes)
            else:
                link.forward(self._P[k - 1], self._top)
            if gradient is not None:
                weights = self._weight_gradient(gradient, k)
                link.descend(self._P[k - 1], self._Q[k], None, weights)
                self._bias_gradients(gradient, k)

    def _sweep_errors(self, gradient: Array, *, joint: bool) -> None:
        """Down: δᵏ⁻¹ = adjoint(δᵏ) ∘ f'(aᵏ⁻¹), and every synapse's and bias's gradient."""
        for k in range(len(self._links), 0, -1):
            link, delta = self._links[k - 1], self._delta[k - 1] if k > 1 else None
            after = partial(self._multiply_derivative, k - 1, delta, self._a[k - 1])
            passes = self._normalized.of_forward_error(k - 1, delta)
            weights = self._weight_gradient(gradient, k)
            if joint:
                ends = self._P[k - 1], self._Q[k], delta, weights
                self._carry(link.descend, ends, after, passes)
            else:  # a link carries the first rows only, and these are the second ones
                if delta is not None:
                    self._carry(link.adjoint, (self._delta[k], delta), after, passes)
                link.descend(self._P[k - 1], self._Q[k], None, weights)
            self._bias_gradients(gradient, k)

    def _arrive(self, k: int, start: int, stop: int) -> None:
        """Finish rows of Qᵏ that have come down: c by its activation, δ by the derivative at a."""
        first = self._first
        if start < first:
            step = len(self._links) - k  # from the output down
            self._activate(self.net.reversed, step, self._c[k], start, min(stop, first))
        if stop > first:
            rows = max(start, first) - first, stop - first
            self._multiply_derivative(k, self._delta[k], self._a[k], *rows, first=first)
