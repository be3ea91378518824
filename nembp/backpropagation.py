"""Gradients: one direction by the textbook, both directions by three sweeps.

A gradient is that of the mean negative log-likelihood per sample (nats), a flat vector laid out
like ``net.parameters``; descending it climbs log p(y | x) + log p(x | y).

:class:`JointBackpropagation` keeps for each layer two blocks of rows, P = [a ; e] and Q = [δ ; c],
where a, δ are the forward direction's activations and errors, c, e the backward direction's:

1. down: the backward signals c, from the output to the input, and there the backward error e⁰;
2. up: a and e travel the same wires, so Pᵏ = forward(Pᵏ⁻¹) carries both in one product;
3. down: the forward errors δ.

Then the joint gradient of a synapse is one product, ∂T/∂W at (Pᵏ⁻¹, Qᵏ). (The backward error
needs nothing of the forward direction, so it can join the first upward sweep; the order up, down,
up would leave the product of the first and largest layer unshared.)

The class-sum path: a classifier's backward direction has only K distinct inputs, its labels, so
its signals and errors need K rows, not one a sample (:class:`nembp.ends.ClassEnd`).
"""

from __future__ import annotations

from typing import Any, Literal

from nembp.backend import Array
from nembp.ends import ClassEnd, End, SampleEnd, class_rows
from nembp.errors import ShapeError
from nembp.layers import add_bias
from nembp.likelihoods import Likelihood, Readout
from nembp.network import Network
from nembp.noise import Noise, NoiseSource

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
        self._delta: list[Array] = [None, *(q[:rows, :] for q in self._Q[1:])]
        self._c: list[Array] = [None, *(q[rows:, :] for q in self._Q[1:])]
        self.x = self._a[0]
        self.t = backend.empty((rows, sizes[-1]), dtype)
        self._scratch = backend.empty((both * max(sizes),), dtype)
        self._scratch_views: dict[tuple[int, ...], Array] = {}
        self._ones = backend.ones((1, both * max(sizes)), dtype)
        self._ones_views: dict[int, Array] = {}
        self._views: tuple[Any, ...] = (None,)  # of the last call's gradient vector

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
        clock = (epoch, iteration)
        if self._bidirectional:
            self._sweep_backward_signals()
            self._input.error(self._e[0], clock)
        self._sweep_up()
        self._output.error(self._delta[-1], clock)
        self._sweep_forward_errors()
        self._gradients(gradient)

    def _sweep_backward_signals(self) -> None:
        """Down: cᵏ⁻¹ = f(adjoint(cᵏ) + dᵏ⁻¹), to the input's pre-activation u⁰."""
        net, backend, last = self.net, self.net.backend, len(self.net.synapses)
        if self.path == "samples":
            backend.into(self._c[-1], backend.xp.multiply, self.t, 1.0)
        for k in range(last, 1, -1):
            net.synapses[k - 1].adjoint(backend, self._c[k], net.weights[k - 1], self._c[k - 1])
            self._activate(self._c[k - 1], net.reversed, last - k + 1)
        u = self._input.readout.z
        net.synapses[0].adjoint(backend, self._c[1], net.weights[0], u)
        self._activate(u, net.reversed, last)

    def _sweep_up(self) -> None:
        """Up: a and e in one product; aᵏ = f(· + bᵏ), eᵏ = · ∘ f'(cᵏ); zᴸ at the output."""
        net, backend, last = self.net, self.net.backend, len(self.net.synapses)
        for k in range(1, last):
            net.synapses[k - 1].forward(backend, self._P[k - 1], net.weights[k - 1], self._P[k])
            self._activate(self._a[k], net, k)
            if self._bidirectional:
                self._multiply_derivative(self._e[k], self._c[k], k)
        z = self._output.readout.z
        net.synapses[-1].forward(backend, self._a[last - 1], net.weights[-1], z)
        self._activate(z, net, last)

    def _sweep_forward_errors(self) -> None:
        """Down: δᵏ⁻¹ = adjoint(δᵏ) ∘ f'(aᵏ⁻¹), to the first hidden layer."""
        net = self.net
        for k in range(len(net.synapses), 1, -1):
            net.synapses[k - 1].adjoint(
                net.backend, self._delta[k], net.weights[k - 1], self._delta[k - 1]
            )
            self._multiply_derivative(self._delta[k - 1], self._a[k - 1], k - 1)

    def _gradients(self, gradient: Array) -> None:
        """∂/∂Wᵏ in one product of both directions; ∂/∂b = Σ δ, ∂/∂d = Σ e."""
        net, backend = self.net, self.net.backend
        weights, up, down = self._views_of(gradient)
        for k, synapse in enumerate(net.synapses, start=1):
            synapse.weight_gradient(backend, self._P[k - 1], self._Q[k], weights[k - 1])
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

    # -- small steps -----------------------------------------------------------------------------
    def _activate(self, z: Array, net: Network, k: int) -> None:
        layer = net.layers[k]
        add_bias(net.backend, z, net.biases[k], layer)
        if layer.activation is not None:
            layer.activation.activate(net.backend, z, self._scratch_like(z))

    def _multiply_derivative(self, error: Array, a: Array, k: int) -> None:
        activation = self.net.layers[k].activation
        if activation is not None:
            scratch = self._scratch_like(error)
            activation.multiply_derivative(self.net.backend, error, a, scratch)

    def _scratch_like(self, array: Array) -> Array:
        shape = array.shape
        if shape not in self._scratch_views:
            flat = self._scratch[: shape[0] * shape[1]]
            self._scratch_views[shape] = self.net.backend.xp.reshape(flat, shape)
        return self._scratch_views[shape]

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
