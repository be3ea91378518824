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

The class-sum path: a classifier's backward direction has only K distinct inputs, its labels. Their
signals need K rows, not one a sample, and by the linearity of every likelihood's error in its
target, the error of row k needs only the sum of the targets of class k.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from nembp.backend import Array
from nembp.errors import ShapeError
from nembp.likelihoods import Gaussian, Readout
from nembp.network import Network, add_bias
from nembp.noise import Noise, NoiseSource

__all__ = ["JointBackpropagation", "backpropagate", "joint_gradient"]

Path = Literal["none", "samples", "classes"]
# Matrix products work through rows in groups, and a last, partial group costs as much as a full
# one, so the class rows are rounded up; a class that no sample has adds nothing to any sum.
CLASS_ROWS = 4


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
        classes = -(-net.outputs // CLASS_ROWS) * CLASS_ROWS
        self._second = {"none": 0, "samples": rows, "classes": classes}[path]
        both = rows + self._second
        sizes = [layer.size for layer in net.layers]
        self._P = [backend.empty((both, size), dtype) for size in sizes[:-1]]
        self._Q: list[Array] = [None, *(backend.empty((both, size), dtype) for size in sizes[1:])]
        self._scratch = backend.empty((both * max(sizes),), dtype)
        self.x = self._P[0][:rows, :]
        self.t = backend.empty((rows, sizes[-1]), dtype)
        self._a = [p[:rows, :] for p in self._P]
        self._e = [p[rows:, :] for p in self._P]
        self._delta: list[Array] = [None, *(q[:rows, :] for q in self._Q[1:])]
        self._c: list[Array] = [None, *(q[rows:, :] for q in self._Q[1:])]
        self._ones = backend.ones((1, both * max(sizes)), dtype)
        self.forward_nll = backend.zeros((1, 1), dtype)
        self.backward_nll = backend.zeros((1, 1), dtype)
        self._out = Readout.allocate(backend, rows, sizes[-1], dtype)
        self._in: Any = self._backward_readout() if self._second else None
        self._noisy_t = backend.empty((rows, sizes[-1]), dtype)
        self._noisy_x = None
        if path == "classes":
            self._allocate_class_sums()
        self.sources = self._noise_sources(noise or {}, generators or {})
        self._views: tuple[Any, ...] = (None,)  # of the last call's gradient vector

    def _backward_readout(self) -> Readout:
        net, rows = self.net, self._second
        o = Readout.allocate(net.backend, rows, net.inputs, net.dtype)
        if net.layers[0].biases == net.inputs and self.path == "classes":
            # few rows: the product W cᵀ into a transposed buffer is the faster one
            o.z = net.backend.empty((net.inputs, rows), net.dtype).T
        return o

    def _allocate_class_sums(self) -> None:
        backend, xp, dtype = self.net.backend, self.net.backend.xp, self.net.dtype
        K, rows = self._second, self.rows
        self._sums = backend.zeros((K, self.net.inputs), dtype)
        self._counts = backend.zeros((K, 1), dtype)
        self._squares = backend.zeros((K, 1), dtype)
        self._row_ones = backend.ones((rows, 1), dtype)
        self._x_row = xp.reshape(self.x, (1, rows * self.net.inputs))
        self._x_column = xp.reshape(self.x, (rows * self.net.inputs, 1))
        self._c[-1][...] = backend.asarray(np.eye(K, self.net.outputs), dtype)

    def _noise_sources(
        self, noise: dict[str, Noise], generators: dict[str, Any]
    ) -> dict[str, NoiseSource]:
        net, sources = self.net, {}
        for direction, likelihood, width in (
            ("forward", net.likelihood, net.outputs),
            ("backward", net.reversed.likelihood, net.inputs),
        ):
            kind = noise[direction].kind if direction in noise else "none"
            if kind != "none" and (direction == "forward" or self._second):
                sources[direction] = NoiseSource(
                    noise[direction],
                    likelihood,
                    net.backend,
                    self.rows,
                    width,
                    net.dtype,
                    generators[direction],
                )
        if "backward" in sources:
            self._noisy_x = net.backend.empty((self.rows, net.inputs), net.dtype)
            if self.path == "classes":  # screening is sample by sample, so gather c and u
                self._per_sample = Readout.allocate(net.backend, self.rows, net.inputs, net.dtype)
        return sources

    # -- the step ------------------------------------------------------------------------------
    def __call__(self, gradient: Array, epoch: int = 1, iteration: int = 1) -> None:
        """Fill ``gradient`` for the batch in ``x`` and ``t``.

        ``epoch`` and ``iteration``, both counted from 1, set the annealed noise's deviation.
        """
        clock = (epoch, iteration)
        if self._second:
            self._sweep_backward_signals()
            self._backward_error(clock)
        self._sweep_up()
        self._forward_error(clock)
        self._sweep_forward_errors()
        self._gradients(gradient)

    def _sweep_backward_signals(self) -> None:
        """Down: cᵏ⁻¹ = f(adjoint(cᵏ) + dᵏ⁻¹) to the input, c⁰ = link(u⁰)."""
        net, back = self.net, self.net.reversed
        if self.path == "samples":
            self.net.backend.into(self._c[-1], net.backend.xp.multiply, self.t, 1.0)
        for k in range(len(net.synapses), 0, -1):
            u = self._in.z if k == 1 else self._c[k - 1]
            net.synapses[k - 1].adjoint(net.backend, self._c[k], net.weights[k - 1], u)
            self._activate(u, back, len(net.synapses) - k + 1)
        back.likelihood.link(self._in)

    def _sweep_up(self) -> None:
        """Up: a and e in one product; aᵏ = f(· + bᵏ), eᵏ = · ∘ f'(cᵏ); zᴸ at the output."""
        net, backend = self.net, self.net.backend
        last = len(net.synapses)
        for k in range(1, last):
            net.synapses[k - 1].forward(backend, self._P[k - 1], net.weights[k - 1], self._P[k])
            self._activate(self._a[k], net, k)
            if self._second:
                self._multiply_derivative(self._e[k], self._c[k], k)
        net.synapses[-1].forward(backend, self._a[last - 1], net.weights[-1], self._out.z)
        self._activate(self._out.z, net, last)
        net.likelihood.link(self._out)

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
            if self._second:
                self._column_sums(self._e[k - 1], down[k - 1], net.layers[k - 1].biases)
            else:  # the other direction's biases do not move
                down[k - 1][...] = 0.0

    def _views_of(self, gradient: Array) -> Any:
        if self._views[0] is not gradient:
            net, xp = self.net, self.net.backend.xp
            forward, backward = net.views(gradient), net.reversed.views(gradient)
            row = [None if b is None else xp.reshape(b, (1, -1)) for b in forward.biases]
            col = [None if d is None else xp.reshape(d, (1, -1)) for d in backward.biases[::-1]]
            self._views = (gradient, forward.weights, row, col)
        return self._views[1:]

    # -- the two ends ----------------------------------------------------------------------------
    def _forward_error(self, clock: tuple[int, int]) -> None:
        net, backend, o = self.net, self.net.backend, self._out
        self._mean_nll(net.likelihood.log_likelihood(o, self.t), self.forward_nll)
        target, mass = self.t, {}
        if "forward" in self.sources:
            source = self.sources["forward"]
            n = source(o, self.t, source.noise.std_at(*clock))
            target = backend.into(self._noisy_t, backend.xp.add, self.t, n)
            if source.noise.update == "published":
                mass = {"mass": 1.0}
        net.likelihood.error(o, target, self._delta[-1], factor=1.0 / self.rows, **mass)

    def _backward_error(self, clock: tuple[int, int]) -> None:
        likelihood, o, e = self.net.reversed.likelihood, self._in, self._e[0]
        if self.path == "samples":
            self._mean_nll(likelihood.log_likelihood(o, self.x), self.backward_nll)
            target = self._noisy_input(o, clock)
            likelihood.error(o, target, e, factor=1.0 / self.rows, **self._published_mass(1.0))
            return
        self._sum_classes()
        self._mean_nll(
            likelihood.log_likelihood(o, self._sums, self._counts, self._squares),
            self.backward_nll,
        )
        if "backward" in self.sources:
            target = self._noisy_input(self._gather(o), clock)
            self.net.backend.matmul(self.t.T, target, self._sums[: self.net.outputs, :])
        mass = self._class_mass()
        likelihood.error(o, self._sums, e, factor=1.0 / self.rows, **mass)

    def _sum_classes(self) -> None:
        """Sum over each class its targets x and their number; the squares over all classes.

        Only the total of the squares enters the nll, so one row may hold all of it.
        """
        backend, onehot, K = self.net.backend, self.t.T, self.net.outputs
        backend.matmul(onehot, self.x, self._sums[:K, :])
        backend.matmul(onehot, self._row_ones, self._counts[:K, :])
        if isinstance(self.net.reversed.likelihood, Gaussian):
            backend.matmul(self._x_row, self._x_column, self._squares[:1, :])

    def _gather(self, o: Readout) -> Readout:
        """Give each sample the backward activation of its class."""
        backend, per_sample = self.net.backend, self._per_sample
        K = self.net.outputs
        backend.matmul(self.t, o.z[:K, :], per_sample.z)
        backend.matmul(self.t, o.a[:K, :], per_sample.a)
        return per_sample

    def _noisy_input(self, o: Readout, clock: tuple[int, int]) -> Array:
        if "backward" not in self.sources:
            return self.x
        source, backend = self.sources["backward"], self.net.backend
        n = source(o, self.x, source.noise.std_at(*clock))
        return backend.into(self._noisy_x, backend.xp.add, self.x, n)

    def _published_mass(self, mass: Any) -> dict[str, Any]:
        source = self.sources.get("backward")
        published = source is not None and source.noise.update == "published"
        return {"mass": mass} if published else {}

    def _class_mass(self) -> dict[str, Any]:
        # a multinomial's mass is the sum of its (noisy) target, unless the update is published
        if self.net.reversed.likelihood.name == "multinomial":
            return self._published_mass(self._counts)
        return {"mass": self._counts}

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
        rows, size = array.shape
        return self.net.backend.xp.reshape(self._scratch[: rows * size], (rows, size))

    def _column_sums(self, x: Array, out: Array, channels: int) -> None:
        # a product with ones sums columns faster than a reduction
        x = self.net.backend.xp.reshape(x, (-1, channels))
        self.net.backend.matmul(self._ones[:, : x.shape[0]], x, out)

    def _mean_nll(self, column: Array, out: Array) -> None:
        backend = self.net.backend
        backend.matmul(self._ones[:, : column.shape[0]], column, out)
        backend.into(out, backend.xp.multiply, out, -1.0 / self.rows)
