"""Both directions' gradients by three sweeps.

A step keeps for each layer two blocks of rows, P = [a ; e] and Q = [δ ; c], where a, δ are the
forward direction's activations and errors, c, e the backward direction's:

1. down: the backward signals c, from the output to the input, and there the backward error e⁰;
2. up: a and e travel the same wires, so Pᵏ = forward(Pᵏ⁻¹) carries both in one product;
3. down: the forward errors δ; and with them the joint gradient of each synapse, which is one
   product of both directions, ∂T/∂W at (Pᵏ⁻¹, Qᵏ).

(The backward error needs nothing of the forward direction, so it can join the first upward sweep;
the order up, down, up would leave the product of the first and largest layer unshared.)

The class-sum path: a classifier's backward direction has only K distinct inputs, its labels, so
its signals and errors need K rows, not one a sample (:class:`nembp.ends.ClassEnd`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from nembp.backend import Array
from nembp.ends import ClassEnd, End, SampleEnd, class_rows
from nembp.errors import ArchitectureError
from nembp.layers import add_bias
from nembp.likelihoods import Likelihood
from nembp.network import Network
from nembp.noise import Noise, NoiseSource
from nembp.signal_noise import signal_noise
from nembp.threads import single_threaded_blas

__all__ = ["JointBackpropagation", "Path"]

Path = Literal["none", "samples", "classes"]


class JointBackpropagation:
    """Both directions' gradients for a fixed number of rows, in buffers allocated once.

    Write a batch into ``x`` and ``t``, then call with a gradient vector to fill.

    Parameters
    ----------
    net : Network
        Seen from its forward direction.
    rows : int
        Samples in a batch.
    path : {"samples", "classes", "none"}
        The backward direction with one row a sample; with one row a class, exact when every
        target is a one-hot row; or left out, which is unidirectional training.
    noise, generators : dict, optional
        The :class:`~nembp.noise.Noise` of each place and the generator of its stream:
        ``"forward"`` and ``"backward"`` for that direction's target, ``"forward/hidden"`` and so on
        for its signals (:data:`nembp.signal_noise.PLACES`).

    Attributes
    ----------
    x, t : array, shapes (rows, inputs) and (rows, outputs)
        The batch: input and target of the forward direction.
    forward_nll, backward_nll : array, shape (1, 1)
        Mean negative log-likelihood of the clean targets in nats, after a call.
    sources : dict of NoiseSource
        The places that receive noise, with their share accepted and mean gain; layers of a place
        by their number from the direction's input, as ``"forward/hidden-1"``.

    Raises
    ------
    ArchitectureError
        If backward signals are to be noisy, each sample's by itself, and the path has no row for
        each sample.
    """

    def __init__(
        self,
        net: Network,
        rows: int,
        *,
        path: Path = "samples",
        noise: dict[str, Noise] | None = None,
        generators: dict[str, Any] | None = None,
    ) -> None:
        self.net, self.rows, self.path = net, rows, path
        backend, dtype = net.backend, net.dtype
        second = {"none": 0, "samples": rows, "classes": class_rows(net.outputs)}[path]
        self._bidirectional = second > 0
        sizes, both = [layer.size for layer in net.layers], rows + second
        self._P = [backend.empty((both, size), dtype) for size in sizes[:-1]]
        self._Q: list[Array] = [None, *(backend.empty((both, size), dtype) for size in sizes[1:])]
        self._a, self._e = [p[:rows, :] for p in self._P], [p[rows:, :] for p in self._P]
        # nobody needs the forward error at the input
        self._delta: list[Array] = [None, *(q[:rows, :] for q in self._Q[1:])]
        self._c: list[Array] = [None, *(q[rows:, :] for q in self._Q[1:])]
        self.x = self._a[0]
        self.t = backend.empty((rows, sizes[-1]), dtype)
        self._widest = max(sizes)
        self._scratch = backend.empty((both * self._widest,), dtype)
        self._ones = backend.ones((1, both * max(sizes)), dtype)
        self._ones_views: dict[int, Array] = {}
        self._views: tuple[Any, ...] = (None,)  # of the last call's gradient vector

        shared = any(synapse.wants_lanes for synapse in net.synapses)
        self._lanes = backend.lanes() if shared else 1  # or leave the threads to BLAS
        self._links = [
            synapse.link(backend, (rows, second), dtype, lanes=self._lanes)
            for synapse in net.synapses
        ]
        self.sources: dict[str, NoiseSource] = {}
        self._noise_up = signal_noise(net, rows, noise, generators)
        self._noise_down = signal_noise(net.reversed, rows, noise, generators)
        if self._noise_down is not None and path != "samples":
            raise ArchitectureError(
                f"noise on backward signals needs a row for each sample, and path is {path!r}; "
                "expected path 'samples'"
            )
        for each in (self._noise_up, self._noise_down):
            if each is not None:
                named = {f"{each.net.direction}/{s.name}": s for s in each.sources.values()}
                self.sources |= named
        source = self._noise_source("forward", net.likelihood, net.outputs, noise, generators)
        self._output: End = SampleEnd(backend, dtype, net.likelihood, self.t, source)
        self.forward_nll = self._output.nll
        self.backward_nll = backend.zeros((1, 1), dtype)
        if self._bidirectional:
            self._input = self._backward_end(noise, generators)
            self.backward_nll = self._input.nll

    def _backward_end(
        self, noise: dict[str, Noise] | None, generators: dict[str, Any] | None
    ) -> End:
        net, back = self.net, self.net.reversed.likelihood
        source = self._noise_source("backward", back, net.inputs, noise, generators)
        if self.path == "samples":
            return SampleEnd(net.backend, net.dtype, back, self.x, source)
        end = ClassEnd(net.backend, net.dtype, back, self.t, self.x, source)
        self._c[-1][...] = end.inputs
        return end

    def _noise_source(
        self,
        direction: str,
        likelihood: Likelihood,
        width: int,
        noise: dict[str, Noise] | None,
        generators: dict[str, Any] | None,
    ) -> NoiseSource | None:
        if not noise or direction not in noise or noise[direction].kind == "none":
            return None
        backend, generator = self.net.backend, (generators or {})[direction]
        self.sources[direction] = NoiseSource(
            noise[direction], likelihood, backend, self.rows, width, self.net.dtype, generator
        )
        return self.sources[direction]

    # -- the step ------------------------------------------------------------------------------
    def __call__(self, gradient: Array, epoch: int = 1, iteration: int = 1) -> None:
        """Fill ``gradient`` for the batch in ``x`` and ``t``.

        ``epoch`` and ``iteration``, both counted from 1, set the annealed noise's deviation.
        """
        if self._lanes > 1:
            with single_threaded_blas():
                self._step(gradient, (epoch, iteration))
        else:
            self._step(gradient, (epoch, iteration))

    def _step(self, gradient: Array, clock: tuple[int, int]) -> None:
        for link, W in zip(self._links, self.net.weights, strict=True):
            link.load(W)
        if self._bidirectional:
            if self._noise_down is not None:
                self._noise_down(self.t, self.x, *clock)
            self._sweep_backward_signals()
            self._input.error(self._e[0], clock)
        if self._noise_up is not None:
            self._noise_up(self.x, self.t, *clock)
            self._noise_up.disturb(0, self.x, 0, self.rows)
        self._sweep_up()
        self._output.error(self._delta[-1], clock)
        self._sweep_forward_errors(gradient)
        self._tidy()

    def _tidy(self) -> None:
        """Give the batch back as it came, and the nll without noise on the signals."""
        backend, xp = self.net.backend, self.net.backend.xp
        if self._noise_up is not None:
            if 0 in self._noise_up.without:
                backend.into(self.x, xp.multiply, self._noise_up.without[0], 1.0)
            backend.into(self.forward_nll, xp.multiply, self._noise_up.nll, 1.0)
        if self._noise_down is not None:
            backend.into(self.backward_nll, xp.multiply, self._noise_down.nll, 1.0)

    def _sweep_backward_signals(self) -> None:
        """Down: cᵏ⁻¹ = f(adjoint(cᵏ) + dᵏ⁻¹), to the input's pre-activation u⁰."""
        last = len(self._links)
        if self.path == "samples":
            self.net.backend.into(self._c[-1], self.net.backend.xp.multiply, self.t, 1.0)
            if self._noise_down is not None:
                self._noise_down.disturb(0, self._c[-1], 0, self.rows)
        for k in range(last, 1, -1):
            self._links[k - 1].adjoint(self._c[k], self._c[k - 1], partial(self._go_down, k - 1))
        u = self._input.readout.z
        self._links[0].adjoint(self._c[1], u, partial(self._activate, self.net.reversed, last, u))

    def _sweep_up(self) -> None:
        """Up: a and e in one product; aᵏ = f(· + bᵏ), eᵏ = · ∘ f'(cᵏ); zᴸ at the output."""
        last = len(self._links)
        for k in range(1, last):
            self._links[k - 1].forward(self._P[k - 1], self._P[k], partial(self._arrive, k))
        z = self._output.readout.z
        self._links[-1].forward(self._P[-1], z, partial(self._activate, self.net, last, z))

    def _sweep_forward_errors(self, gradient: Array) -> None:
        """Down: δᵏ⁻¹ = adjoint(δᵏ) ∘ f'(aᵏ⁻¹); ∂/∂Wᵏ of both directions, ∂/∂b = Σ δ, ∂/∂d = Σ e."""
        net = self.net
        weights, up, down = self._views_of(gradient)
        for k in range(len(self._links), 0, -1):
            delta = self._delta[k - 1]
            after = partial(self._multiply_derivative, k - 1, delta, self._without_noise(k - 1))
            self._links[k - 1].descend(self._P[k - 1], self._Q[k], delta, weights[k - 1], after)
            self._column_sums(self._delta[k], up[k], net.layers[k].biases)
            if self._bidirectional:
                self._column_sums(self._e[k - 1], down[k - 1], net.layers[k - 1].biases)
            else:  # the other direction's biases do not move
                down[k - 1][...] = 0.0

    def _views_of(self, gradient: Array) -> Any:
        if self._views[0] is not gradient:
            net, xp = self.net, self.net.backend.xp
            forward, backward = net.views(gradient), net.reversed.views(gradient)
            up = [None if b is None else xp.reshape(b, (1, -1)) for b in forward.biases]
            down = [None if d is None else xp.reshape(d, (1, -1)) for d in backward.biases[::-1]]
            self._views = (gradient, forward.weights, up, down)
        return self._views[1:]

    # -- what is done to rows start..stop of a layer, while they are in cache ------------------
    def _arrive(self, k: int, start: int, stop: int) -> None:
        """Finish rows of Pᵏ that have come up: a by its activation, e by the derivative at c."""
        if start < self.rows:
            self._activate(self.net, k, self._a[k], start, min(stop, self.rows))
            if self._noise_up is not None:
                self._noise_up.disturb(k, self._a[k], start, min(stop, self.rows))
        if stop > self.rows:
            rows = max(start, self.rows) - self.rows, stop - self.rows
            c = self._c[k]
            if self._noise_down is not None:
                c = self._noise_down.without.get(len(self._links) - k, c)
            self._multiply_derivative(k, self._e[k], c, *rows, first=self.rows)

    def _go_down(self, k: int, start: int, stop: int) -> None:
        """Finish rows of cᵏ that have come down."""
        step = len(self._links) - k  # from the output down
        self._activate(self.net.reversed, step, self._c[k], start, stop)
        if self._noise_down is not None:
            self._noise_down.disturb(step, self._c[k], start, stop)

    def _without_noise(self, k: int) -> Array:
        """Return aᵏ as its activation left it."""
        a = self._a[k]
        return a if self._noise_up is None else self._noise_up.without.get(k, a)

    def _activate(self, net: Network, k: int, signal: Array, start: int, stop: int) -> None:
        layer, z = net.layers[k], signal[start:stop, :]
        add_bias(net.backend, z, net.biases[k], layer)
        if layer.activation is not None:
            layer.activation.activate(net.backend, z, self._scratch_for(z, start))

    def _multiply_derivative(
        self, k: int, error: Array, a: Array, start: int, stop: int, first: int = 0
    ) -> None:
        activation = self.net.layers[k].activation
        if activation is not None:
            rows = error[start:stop, :]
            scratch = self._scratch_for(rows, first + start)  # a's rows may be at work meanwhile
            activation.multiply_derivative(self.net.backend, rows, a[start:stop, :], scratch)

    def _scratch_for(self, rows: Array, start: int) -> Array:
        """Return scratch for rows from ``start`` on, apart from that of all other rows."""
        count, width = rows.shape
        first = start * self._widest
        flat = self._scratch[first : first + count * width]
        return self.net.backend.xp.reshape(flat, (count, width))

    def _column_sums(self, x: Array, out: Array, channels: int) -> None:
        if not channels:
            return
        if x.shape[1] != channels:
            x = self.net.backend.xp.reshape(x, (-1, channels))
        rows = x.shape[0]
        if rows not in self._ones_views:
            self._ones_views[rows] = self._ones[:, :rows]
        # a product with ones sums columns faster than a reduction
        self.net.backend.matmul(self._ones_views[rows], x, out)
