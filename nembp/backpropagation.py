"""Gradients: one direction by the textbook, both directions by three sweeps.

A gradient is that of the mean negative log-likelihood per sample (nats), a flat vector laid out
like ``net.parameters``; descending it climbs log p(y | x) + log p(x | y).

:class:`JointBackpropagation` keeps for each layer two blocks of rows, P = [a ; e] and Q = [δ ; c],
where a, δ are the forward direction's activations and errors, c, e the backward direction's:

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
from nembp.errors import ShapeError
from nembp.layers import add_bias
from nembp.likelihoods import Likelihood, Readout
from nembp.network import Network
from nembp.noise import Noise, NoiseSource
from nembp.threads import single_threaded_blas

__all__ = ["JointBackpropagation", "backpropagate", "joint_gradient"]

Path = Literal["none", "samples", "classes"]


def backpropagate(net: Network, x: Any, t: Any) -> tuple[Array, Array]:
    """Return one direction's gradient, and its error at the input.

    δᴸ = −∂log p/∂zᴸ / rows, δᵏ⁻¹ = adjoint(δᵏ) ∘ f'(aᵏ⁻¹), ∂/∂Wᵏ = weight_gradient(aᵏ⁻¹, δᵏ),
    ∂/∂bᵏ = Σ_rows δᵏ: classical backpropagation, which maximum likelihood gives back in either
    direction (Adigun and Kosko 2019, theorems 1 and 2). Pass ``net.reversed`` for the other one.

    Parameters
    ----------
    net : Network
        Seen from the direction to differentiate.
    x, t : array, shapes (rows, net.inputs) and (rows, net.outputs)
        Input and target of that direction.

    Returns
    -------
    gradient : array, shape (parameter_count,)
        Zero at the other direction's biases.
    input_error : array, shape (rows, net.inputs)
        ∂(−log p / rows)/∂x.
    """
    backend, xp, dtype = net.backend, net.backend.xp, net.dtype
    signals = [net._check(x, net.inputs, "input")]
    rows = signals[0].shape[0]
    t = net._check(t, net.outputs, "target")
    if t.shape[0] != rows:
        raise ShapeError(f"target has {t.shape[0]} rows, but the input has {rows}")
    o = Readout.allocate(backend, rows, net.outputs, dtype)
    last = len(net.synapses)
    for k, synapse in enumerate(net.synapses, start=1):
        layer = net.layers[k]
        z = o.z if k == last else backend.empty((rows, layer.size), dtype)
        synapse.forward(backend, signals[-1], net.weights[k - 1], z)
        add_bias(backend, z, net.biases[k], layer)
        if layer.activation is not None:
            layer.activation.activate(backend, z, xp.empty_like(z))
        signals.append(z)
    net.likelihood.link(o)

    gradient = backend.zeros((net.parameter_count,), dtype)
    views = net.views(gradient)
    delta = backend.empty((rows, net.outputs), dtype)
    net.likelihood.error(o, t, delta, factor=1.0 / rows)
    for k in range(last, 0, -1):
        synapse, below = net.synapses[k - 1], net.layers[k - 1]
        synapse.weight_gradient(backend, signals[k - 1], delta, views.weights[k - 1])
        if net.layers[k].biases:
            per_channel = xp.reshape(delta, (-1, net.layers[k].biases))
            views.biases[k][...] = xp.sum(per_channel, axis=0)  # type: ignore[index]
        error = backend.empty((rows, below.size), dtype)
        synapse.adjoint(backend, delta, net.weights[k - 1], error)
        if below.activation is not None:
            scratch = xp.empty_like(error)
            below.activation.multiply_derivative(backend, error, signals[k - 1], scratch)
        delta = error
    return gradient, delta


def joint_gradient(net: Network, x: Any, y: Any) -> Array:
    """Return the gradient of −[log p(y | x) + log p(x | y)] / rows by three sweeps.

    **Law**: it equals the sum of ``backpropagate(net, x, y)`` and
    ``backpropagate(net.reversed, y, x)``.

    >>> import numpy as np
    >>> from nembp.network import dense_network
    >>> net = dense_network([3, 5, 2], dtype="float64")
    >>> x, y = np.ones((4, 3)), np.eye(2)[[0, 1, 1, 0]]
    >>> both = backpropagate(net, x, y)[0] + backpropagate(net.reversed, y, x)[0]
    >>> bool(np.allclose(joint_gradient(net, x, y), both))
    True
    """
    x = net._check(x, net.inputs, "input")
    y = net._check(y, net.outputs, "target")
    if x.shape[0] != y.shape[0]:
        raise ShapeError(f"x has {x.shape[0]} rows, but y has {y.shape[0]}")
    step = JointBackpropagation(net, x.shape[0], path="samples")
    step.x[...] = x
    step.t[...] = y
    gradient = net.backend.zeros((net.parameter_count,), net.dtype)
    step(gradient)
    return gradient


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
        For ``"forward"`` and ``"backward"``, the :class:`~nembp.noise.Noise` on that direction's
        target and the generator of its stream.

    Attributes
    ----------
    x, t : array, shapes (rows, inputs) and (rows, outputs)
        The batch: input and target of the forward direction.
    forward_nll, backward_nll : array, shape (1, 1)
        Mean negative log-likelihood of the clean targets in nats, after a call.
    sources : dict of NoiseSource
        The directions that receive noise, with their share accepted and mean gain.
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
            self._sweep_backward_signals()
            self._input.error(self._e[0], clock)
        self._sweep_up()
        self._output.error(self._delta[-1], clock)
        self._sweep_forward_errors(gradient)

    def _sweep_backward_signals(self) -> None:
        """Down: cᵏ⁻¹ = f(adjoint(cᵏ) + dᵏ⁻¹), to the input's pre-activation u⁰."""
        last = len(self._links)
        if self.path == "samples":
            self.net.backend.into(self._c[-1], self.net.backend.xp.multiply, self.t, 1.0)
        for k in range(last, 0, -1):
            u = self._c[k - 1] if k > 1 else self._input.readout.z
            after = partial(self._activate, self.net.reversed, last - k + 1, u)
            self._links[k - 1].adjoint(self._c[k], u, after)

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
            after = partial(self._multiply_derivative, k - 1, delta, self._a[k - 1])
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
        if stop > self.rows:
            rows = max(start, self.rows) - self.rows, stop - self.rows
            self._multiply_derivative(k, self._e[k], self._c[k], *rows, first=self.rows)

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
