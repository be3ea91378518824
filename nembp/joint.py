"""Both directions' gradients where each direction's input and target are given beforehand.

The order of the sweeps (:mod:`nembp.sweeps`):

1. down: the backward signals c, from the output to the input, and there the backward error e⁰;
2. up: a and e travel the same wires, so Pᵏ = forward(Pᵏ⁻¹) carries both in one product;
3. down: the forward errors δ; and with them the joint gradient of each synapse, which is one
   product of both directions, ∂T/∂W at (Pᵏ⁻¹, Qᵏ).

(The backward error needs nothing of the forward direction, so it can join the first upward sweep;
the order up, down, up would leave the product of the first and largest layer unshared.)

The class-sum path: a classifier's backward direction has only K distinct inputs, its labels, so
its signals and errors need K rows, not one a sample (:class:`nembp.ends.ClassEnd`). Normalized
layers weight each of those rows by its samples, which gives the statistics of one row a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from nembp.backend import Array
from nembp.ends import ClassEnd, End, Memberships, SampleEnd, class_rows
from nembp.errors import ArchitectureError
from nembp.network import Network
from nembp.noise import Noise, NoiseSource
from nembp.signal_noise import signal_noise
from nembp.sweeps import Sweeps

__all__ = ["JointBackpropagation", "Path"]

Path = Literal["none", "samples", "classes"]


class JointBackpropagation(Sweeps):
    """Both directions' gradients for a fixed number of rows, in buffers allocated once.

    Write a batch into ``x`` and ``t``, then call with a gradient vector to fill.

    Parameters
    ----------
    net : Network
        Seen from its forward direction.
    rows : int
        Samples in a batch.
    path : {"samples", "classes", "none"}
        The backward direction with one row a sample; with one row for each of its distinct
        inputs; or left out, which is unidirectional training.
    memberships : Memberships, optional
        The distinct inputs of path ``"classes"``, and the samples of each. By default the labels,
        which is exact when every target is a one-hot row.
    samples : int, optional
        What sums over rows are divided by; ``rows`` by default.
    output : End, optional
        The end of the forward direction; by default its likelihood of the target ``t``, which in
        any case screens noise on the forward signals.
    backward_target : array, shape (rows, inputs), optional
        What the backward direction aims at; ``x`` by default.
    groups : sequence of int, optional
        Rows of the forward direction that normalized layers take statistics of together, as of
        real and of generated samples; all rows by default.
    input_error : bool
        Whether ``input_error`` is wanted.
    noise, generators : dict, optional
        The :class:`~nembp.noise.Noise` of each place and the generator of its stream:
        ``"forward"`` and ``"backward"`` for that direction's target, ``"forward/hidden"`` and so on
        for its signals (:data:`nembp.signal_noise.PLACES`).

    Attributes
    ----------
    x, t : array, shapes (rows, inputs) and (rows, outputs)
        The batch: input and target of the forward direction.
    output, input : End
        The ends of the two directions; ``input`` is None in unidirectional training.
    input_error : array, shape (rows, inputs), or None
        δ⁰ = ∂(−log p(t | x) / samples)/∂x, after a call.
    forward_nll, backward_nll : array, shape (1, 1)
        Mean negative log-likelihood of the clean targets in nats, after a call.
    moves_statistics : bool
        Whether a call moves the running statistics of normalized layers; True at first. Gradients
        come from the batch's own.
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
        memberships: Memberships | None = None,
        samples: int | None = None,
        output: End | None = None,
        backward_target: Array = None,
        groups: Sequence[int] | None = None,
        input_error: bool = False,
        noise: dict[str, Noise] | None = None,
        generators: dict[str, Any] | None = None,
    ) -> None:
        backend, dtype = net.backend, net.dtype
        self.path, self._samples = path, samples or rows
        self.t = backend.empty((rows, net.outputs), dtype)
        self._memberships = memberships or Memberships(np.eye(net.outputs), self.t)
        classes = self._memberships.members.shape[1]
        second = {"none": 0, "samples": rows, "classes": class_rows(classes)}[path]
        members = self._memberships.members if path == "classes" else None
        super().__init__(net, rows, second, members=members, groups=groups, input_error=input_error)
        self.x, self.input_error = self._a[0], self._delta[0]
        self._backward_target = self.x if backward_target is None else backward_target
        self.sources: dict[str, NoiseSource] = {}
        self._noise_up = signal_noise(net, rows, noise, generators, groups)
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
        self._own_output = output is None
        self.output = output or self._forward_end(noise, generators)
        self.input: End | None = self._backward_end(noise, generators) if second else None
        self.forward_nll = self.output.nll
        self.backward_nll = self.input.nll if self.input else backend.zeros((1, 1), dtype)

    def _forward_end(
        self, noise: dict[str, Noise] | None, generators: dict[str, Any] | None
    ) -> End:
        net = self.net
        source = self._noise_source("forward", self.t, noise, generators)
        return SampleEnd(
            net.backend, net.dtype, net.likelihood, self.t, source, samples=self._samples
        )

    def _backward_end(
        self, noise: dict[str, Noise] | None, generators: dict[str, Any] | None
    ) -> End:
        net, back, members = self.net, self.net.reversed.likelihood, self._memberships.members
        target = self._backward_target
        if self.path == "samples":
            source = self._noise_source("backward", target, noise, generators)
            return SampleEnd(net.backend, net.dtype, back, target, source, samples=self._samples)
        source = self._noise_source("backward", target[: members.shape[0], :], noise, generators)
        end = ClassEnd(
            net.backend, net.dtype, back, self._memberships, target, source, samples=self._samples
        )
        self._c[-1][...] = end.inputs
        return end

    def _noise_source(
        self,
        direction: str,
        target: Array,
        noise: dict[str, Noise] | None,
        generators: dict[str, Any] | None,
    ) -> NoiseSource | None:
        if not noise or direction not in noise or noise[direction].kind == "none":
            return None
        net = self.net if direction == "forward" else self.net.reversed
        self.sources[direction] = NoiseSource(
            noise[direction],
            net.likelihood,
            net.backend,
            target.shape[0],
            target.shape[1],
            net.dtype,
            (generators or {})[direction],
        )
        return self.sources[direction]

    # -- the step ------------------------------------------------------------------------------
    def __call__(self, gradient: Array | None, epoch: int = 1, iteration: int = 1) -> None:
        """Fill ``gradient`` for the batch in ``x`` and ``t``; None where only ends are of interest.

        ``epoch`` and ``iteration``, both counted from 1, set the annealed noise's deviation.
        """
        self._in_lanes(self._step, gradient, (epoch, iteration))

    def _step(self, gradient: Array | None, clock: tuple[int, int]) -> None:
        self._load_weights()
        self._normalized.begin()
        if self.input is not None:
            if self._noise_down is not None:
                self._noise_down(self.t, self.x, *clock)
            self._sweep_backward_signals(self.input)
            self.input.error(self._e[0], clock)
        if self._noise_up is not None:
            self._noise_up(self.x, self.t, *clock)
            self._noise_up.disturb(0, self.x, 0, self.rows)
        self._sweep_up()
        self.output.error(self._delta[-1], clock)
        self._sweep_forward_errors(gradient)
        self._normalized.end(gradient, self.moves_statistics)
        self._tidy()

    def _tidy(self) -> None:
        """Give the batch back as it came, and report the nll without noise on the signals.

        Both directions' ends have seen the noisy signals, so their own nll is not that of the
        network that predicts.
        """
        backend, xp = self.net.backend, self.net.backend.xp
        if self._noise_up is not None:
            if 0 in self._noise_up.without:
                backend.copy(self._noise_up.without[0], self.x)
            if self._own_output:
                share = self.rows / self._samples
                backend.into(self.forward_nll, xp.multiply, self._noise_up.nll, share)
        if self._noise_down is not None:
            share = self.rows / self._samples
            backend.into(self.backward_nll, xp.multiply, self._noise_down.nll, share)

    def _sweep_backward_signals(self, end: End) -> None:
        """Down: cᵏ⁻¹ = f(adjoint(cᵏ) + dᵏ⁻¹), to the input's pre-activation u⁰."""
        last = len(self._links)
        if self.path == "samples":
            self.net.backend.copy(self.t, self._c[-1])
            if self._noise_down is not None:
                self._noise_down.disturb(0, self._c[-1], 0, self.rows)
        for k in range(last, 1, -1):
            adjoint, below = self._links[k - 1].adjoint, self._c[k - 1]
            passes = self._normalized.of_backward_signal(k - 1, below)
            self._carry(adjoint, (self._c[k], below), partial(self._go_down, k - 1), passes)
        u = end.readout.z
        self._links[0].adjoint(self._c[1], u, partial(self._activate, self.net.reversed, last, u))

    def _sweep_up(self) -> None:
        """Up: a and e in one product; aᵏ = f(· + bᵏ), eᵏ = · ∘ f'(cᵏ); zᴸ at the output."""
        last = len(self._links)
        for k in range(1, last):
            passes = self._normalized.of_forward_signal(k, self._a[k])
            passes += self._normalized.of_backward_error(k, self._e[k], self.rows)
            ends = self._P[k - 1], self._P[k]
            self._carry(self._links[k - 1].forward, ends, partial(self._arrive, k), passes)
        z = self.output.readout.z
        self._links[-1].forward(self._P[-1], z, partial(self._activate, self.net, last, z))

    def _sweep_forward_errors(self, gradient: Array | None) -> None:
        """Down: δᵏ⁻¹ = adjoint(δᵏ) ∘ f'(aᵏ⁻¹), and every synapse's and bias's joint gradient."""
        for k in range(len(self._links), 0, -1):
            delta = self._delta[k - 1]
            after = partial(self._multiply_derivative, k - 1, delta, self._without_noise(k - 1))
            passes = self._normalized.of_forward_error(k - 1, delta)
            if gradient is not None:
                weights = self._weight_gradient(gradient, k)
                ends = self._P[k - 1], self._Q[k], delta, weights
                self._carry(self._links[k - 1].descend, ends, after, passes)
                self._bias_gradients(gradient, k)
            elif delta is not None:
                self._carry(self._links[k - 1].adjoint, (self._delta[k], delta), after, passes)

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
