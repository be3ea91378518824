"""The ends of a step: what a direction does with its target.

An end holds a direction's readout. Once its pre-activations are there, it records the nll of the
clean target, adds noise to the target where noise is asked for, and writes the error.

:class:`SampleEnd` has one row a sample. :class:`ClassEnd` has one row for each distinct input of a
backward direction, as for a classifier, whose only inputs are its K labels: every likelihood's
error is linear in the target, so the error of row k needs only the sum of the targets of class k,

    Σ_{i in class k} error_i = scale · (mass_k a_k − Σ_{i in class k} t_i),

with mass_k the number of samples in class k (for a multinomial, the sum of their targets).

The blocks of rows that a step works on, and the moves its sweeps are made of.

A step keeps for each layer two blocks of rows, P = [a ; e] and Q = [δ ; c], where a, δ are the
forward direction's activations and errors, c, e the backward direction's. a and e travel up the
same wires, δ and c down, so that where both are due one product carries them; and the joint
gradient of a linear map is always one product of both directions, ∂T/∂W at (Pᵏ⁻¹, Qᵏ).

In which order a step sweeps depends on what its ends need of each other:
:class:`nembp.engine.backprop.JointBackpropagation` knows both inputs beforehand, and
:class:`nembp.engine.backprop.CycleBackpropagation` sends its own output back.

Both directions' gradients where each direction's input and target are given beforehand.

The order of the sweeps (:mod:`nembp.engine.backprop`):

1. down: the backward signals c, from the output to the input, and there the backward error e⁰;
2. up: a and e travel the same wires, so Pᵏ = forward(Pᵏ⁻¹) carries both in one product;
3. down: the forward errors δ; and with them the joint gradient of each linear map, which is one
   product of both directions, ∂T/∂W at (Pᵏ⁻¹, Qᵏ).

(The backward error needs nothing of the forward direction, so it can join the first upward sweep;
the order up, down, up would leave the product of the first and largest layer unshared.)

The class-sum path: a classifier's backward direction has only K distinct inputs, its labels, so
its signals and errors need K rows, not one a sample (:class:`nembp.engine.backprop.ClassEnd`). Normalized
layers weight each of those rows by its samples, which gives the statistics of one row a sample.

Both directions' gradients where the backward direction's input is the network's own output.

A generator G maps z to G(z), which another network reads: its output error is that network's error
at its input, ∂/∂G(z). Its backward direction maps G(z) back to z. So no signal can go down before
all have come up, and the order of the sweeps (:mod:`nembp.engine.backprop`) is:

1. up: a, from z to G(z), where the output's error is found;
2. down: the errors δ and the backward signals c together, one product of Qᵏ = [c ; δ];
3. up: the backward errors e; and with them the joint gradient of each linear map, one product of
   Pᵏ⁻¹ = [e ; a] and Qᵏ.

G(z) is an input to the backward direction that is held fixed. With ``flow`` it is not: the
gradient of log p(z | G(z)) goes on from the top of the third sweep into G(z), so that δ has to wait
for it, and goes down alone.

Gradients: one direction by the textbook, both directions by three sweeps (:mod:`nembp.engine.backprop`).

A gradient is that of the mean negative log-likelihood per sample (nats), a flat vector laid out
like ``net.parameters``; descending it climbs log p(y | x) + log p(x | y).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np

from nembp.backend import Array, Backend
from nembp.engine.batchnorm import NormalizedLayers, Pass, Statistics, normalizers
from nembp.engine.likelihoods import Gaussian, Likelihood, Readout
from nembp.engine.linear import After
from nembp.engine.network import Network, add_bias
from nembp.engine.noise import Noise, NoiseSource, signal_noise
from nembp.errors import ArchitectureError, ShapeError
from nembp.threads import single_threaded_blas

# Matrix products work through rows in groups, and a last, partial group costs as much as a full
# one, so the class rows are rounded up; a class that no sample has adds nothing to any sum.
CLASS_ROWS = 4

Clock = tuple[int, int]  # epoch and iteration, both counted from 1


class End(Protocol):
    """What a step needs of an end."""

    readout: Readout
    nll: Array
    source: NoiseSource | None
    weight: float

    def error(self, out: Array, clock: Clock) -> None:
        """Write −weight · ∂log p/∂z / samples into ``out``, and the mean nll into ``nll``."""


@dataclass(frozen=True)
class Memberships:
    """The distinct inputs of a backward direction, and which of them each sample has.

    Parameters
    ----------
    inputs : ndarray, shape (classes, outputs)
        On the host.
    members : array, shape (samples, classes)
        On the device, one-hot rows, which may change from step to step. A row of zeros takes no
        part, nor do the samples of a batch beyond the last row.
    """

    inputs: np.ndarray[Any, Any]
    members: Array


class _Mean:
    """Mean nll over samples of a column of log-likelihoods."""

    def __init__(self, backend: Backend, rows: int, samples: int, dtype: str) -> None:
        self._backend, self._samples = backend, samples
        self._ones = backend.ones((1, rows), dtype)

    def __call__(self, column: Array, out: Array) -> None:
        self._backend.sum_column(column, out, -1.0 / self._samples, self._ones)


class SampleEnd:
    """An end with one row a sample.

    Parameters
    ----------
    likelihood : Likelihood
        Of the direction.
    target : array, shape (rows, width)
        The buffer that the clean targets are written into before each step.
    source : NoiseSource, optional
        Noise for the target.
    samples : int, optional
        What sums over rows are divided by; the rows by default.

    Attributes
    ----------
    readout : Readout
        Its ``z`` receives the pre-activations.
    nll : array, shape (1, 1)
        Mean negative log-likelihood of the clean targets, in nats a sample.
    weight : float
        Of the error, not of the nll: 1 climbs log p, −1 descends it.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        likelihood: Likelihood,
        target: Array,
        source: NoiseSource | None = None,
        *,
        samples: int | None = None,
    ) -> None:
        rows, width = target.shape
        self.likelihood, self.source, self.weight = likelihood, source, 1.0
        self.readout = Readout.allocate(backend, rows, width, dtype)
        self.nll = backend.zeros((1, 1), dtype)
        self._backend, self._target, self._samples = backend, target, samples or rows
        self._mean = _Mean(backend, rows, self._samples, dtype)
        self._noisy = backend.empty((rows, width), dtype) if source else None

    def error(self, out: Array, clock: Clock) -> None:
        """Write −weight · ∂log p/∂z / samples into ``out``, and the mean nll into ``nll``."""
        o, target, mass = self.readout, self._target, None
        self._mean(self._backend.link_and_score(self.likelihood, o, target), self.nll)
        if self.source is not None:
            n = self.source(o, target, self.source.noise.std_at(*clock))
            target = self._backend.into(self._noisy, self._backend.xp.add, target, n)
            mass = 1.0 if self.source.noise.update == "published" else None
        factor = self.weight / self._samples
        self._backend.write_error(self.likelihood, o, target, out, mass, factor)


class ClassEnd:
    """An end with one row a class: a distinct input of the direction.

    Parameters
    ----------
    likelihood : Likelihood
        Of the backward direction.
    memberships : Memberships
        The inputs, and the samples of each.
    target : array, shape (rows, width)
        The buffer that the clean targets are written into before each step, a row a sample.
    source : NoiseSource, optional
        Noise for the targets, screened sample by sample, with a row for each of the memberships.
    samples : int, optional
        What sums over samples are divided by; the rows of the memberships by default.

    Attributes
    ----------
    rows : int
        ``classes`` rounded up to a multiple of ``CLASS_ROWS``.
    inputs : array, shape (rows, outputs)
        The input of class k in row k, and zeros in the rows of no class.
    readout, nll, weight
        As in :class:`SampleEnd`.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        likelihood: Likelihood,
        memberships: Memberships,
        target: Array,
        source: NoiseSource | None = None,
        *,
        samples: int | None = None,
    ) -> None:
        members, width = memberships.members, target.shape[1]
        count, classes = members.shape
        self.rows = rows = class_rows(classes)
        self.likelihood, self.source, self.weight = likelihood, source, 1.0
        inputs = np.zeros((rows, memberships.inputs.shape[1]))
        inputs[:classes] = memberships.inputs
        self.inputs = backend.asarray(inputs, dtype)
        self.readout = Readout.allocate(backend, rows, width, dtype)
        self.nll = backend.zeros((1, 1), dtype)
        self._backend, self._target, self._samples = backend, target[:count, :], samples or count
        self._mean = _Mean(backend, rows, self._samples, dtype)
        self._by_class, self._members = members.T, members
        self._ones = backend.ones((count, 1), dtype)
        self._column = backend.empty((count, 1), dtype)
        # rows of no class keep the zeros that they start with
        self._sums = backend.zeros((rows, width), dtype)
        self._counts = backend.zeros((rows, 1), dtype)
        self._squares = backend.zeros((rows, 1), dtype)
        self._class_sums = self._sums[:classes, :]
        self._class_counts = self._counts[:classes, :]
        self._class_squares = self._squares[:classes, :]
        self._per_sample = None
        if source is not None:
            self._per_sample = Readout.allocate(backend, count, width, dtype)
            self._noisy = backend.empty((count, width), dtype)

    def error(self, out: Array, clock: Clock) -> None:
        """Write class sums of −weight · ∂log p/∂z / samples, and the mean nll into ``nll``."""
        o, likelihood = self.readout, self.likelihood
        self._sum_classes()
        sums = self._sums, self._counts, self._squares
        self._mean(self._backend.link_and_score(likelihood, o, *sums), self.nll)
        published = False
        if self.source is not None:
            self._backend.matmul(self._by_class, self._noisy_targets(clock), self._class_sums)
            published = self.source.noise.update == "published"
        own_mass = likelihood.mass_is_target_sum and not published
        mass = None if own_mass else self._counts
        factor = self.weight / self._samples
        self._backend.write_error(likelihood, o, self._sums, out, mass, factor)

    def _sum_classes(self) -> None:
        """Sum over each class its targets, their number and their squares."""
        backend = self._backend
        backend.matmul(self._by_class, self._target, self._class_sums)
        column = None
        if isinstance(self.likelihood, Gaussian):
            backend.row_dot(self._target, self._target, self._column)
            column = self._column
        totals = self._class_counts, column, self._class_squares
        backend.class_totals(self._members, self._ones, *totals)

    def _noisy_targets(self, clock: Clock) -> Array:
        """Add noise to each sample's target, screened under the activation of its class."""
        backend, o, each = self._backend, self.readout, self._per_sample
        source: Any = self.source
        classes = self._members.shape[1]
        backend.matmul(self._members, o.z[:classes, :], each.z)  # type: ignore[union-attr]
        backend.matmul(self._members, o.a[:classes, :], each.a)  # type: ignore[union-attr]
        n = source(each, self._target, source.noise.std_at(*clock))
        return backend.into(self._noisy, backend.xp.add, self._target, n)


def class_rows(classes: int) -> int:
    """Return the rows that ``classes`` take in the class-sum path.

    >>> class_rows(10)
    12
    """
    return -(-classes // CLASS_ROWS) * CLASS_ROWS


class Sweeps:
    """Buffers and moves of a step, for a fixed number of rows.

    Parameters
    ----------
    net : Network
        Seen from its forward direction.
    forward, backward : int
        Rows of the forward and the backward direction; no backward ones in unidirectional
        training.
    backward_first : bool
        Whether the blocks are [e ; a] and [c ; δ] instead. A link keeps all rows of a signal that
        it carries the first rows of.
    members : array, shape (samples, classes), optional
        The samples of each backward row, where those are classes (:class:`nembp.engine.backprop.Memberships`).
    groups : sequence of int, optional
        Rows of the forward direction that normalized layers take statistics of together; all of
        them by default.
    input_error : bool
        Whether δ⁰, the forward error at the input, has a buffer.
    """

    def __init__(
        self,
        net: Network,
        forward: int,
        backward: int,
        *,
        backward_first: bool = False,
        members: Array = None,
        groups: Sequence[int] | None = None,
        input_error: bool = False,
    ) -> None:
        self.net, self.rows = net, forward
        self._bidirectional = backward > 0
        backend, dtype, both = net.backend, net.dtype, forward + backward
        sizes = [layer.size for layer in net.layers]
        self._P = [backend.empty((both, size), dtype) for size in sizes[:-1]]
        self._Q: list[Array] = [None, *(backend.empty((both, size), dtype) for size in sizes[1:])]
        self._first = backward if backward_first else forward  # rows of each block's upper part
        parts_of_block = slice(self._first), slice(self._first, both)
        up, down = parts_of_block[::-1] if backward_first else parts_of_block
        # views of the blocks by layer: aᵏ and eᵏ for k < L, δᵏ and cᵏ for k > 0
        self._a, self._e = [p[up, :] for p in self._P], [p[down, :] for p in self._P]
        self._delta: list[Array] = [None, *(q[up, :] for q in self._Q[1:])]
        self._c: list[Array] = [None, *(q[down, :] for q in self._Q[1:])]
        if input_error:
            self._delta[0] = backend.empty((forward, sizes[0]), dtype)
        self._widest = max(sizes)
        self._scratch = backend.empty((both * self._widest,), dtype)
        self._ones = backend.ones((1, both * max(sizes)), dtype)
        self._ones_views: dict[int, Array] = {}
        # bias gradients that wait for the end of the step, where a device sums them together
        self._sums: list[tuple[Array, Array, Array]] = []
        self._sum_tables: dict[Any, Array] = {}
        self._views: tuple[Any, ...] = (None,)  # of the last call's gradient vector

        parts = (backward, forward) if backward_first else (forward, backward)
        shared = any(linear_map.wants_lanes for linear_map in net.maps)
        self._lanes = backend.lanes() if shared else 1  # or leave the threads to BLAS
        self._links = [
            linear_map.link(backend, parts, dtype, lanes=self._lanes) for linear_map in net.maps
        ]
        self._normalized = NormalizedLayers(net, forward, backward, members, groups, self._lanes)
        self.moves_statistics = True

    def _in_lanes(self, step: Any, *args: Any) -> None:
        """Call a part of the step with the threads that its links want."""
        if self._lanes > 1:
            with single_threaded_blas():
                step(*args)
        else:
            step(*args)
        if self._sums:
            self.net.backend.column_sums_together(self._sums, self._sum_tables)
            self._sums.clear()

    def _load_weights(self) -> None:
        for link, W in zip(self._links, self.net.weights, strict=True):
            link.load(W)

    def _carry(
        self,
        contract: Callable[..., None],
        ends: tuple[Any, ...],
        after: After,
        passes: Sequence[Pass],
    ) -> None:
        """Contract with a link, then call ``after`` on rows that are done.

        Where a layer is normalized they are done once all rows are there, and the passes have been
        over them.
        """
        if passes:
            contract(*ends)
            for each in passes:
                each(after)
        else:
            contract(*ends, after)

    # -- gradients -----------------------------------------------------------------------------
    def _weight_gradient(self, gradient: Array, k: int) -> Array:
        """Return the view of ``gradient`` at the weights of linear map k."""
        return self._views_of(gradient)[0][k - 1]

    def _bias_gradients(self, gradient: Array, k: int) -> None:
        """Write ∂/∂bᵏ = Σ δᵏ and ∂/∂dᵏ⁻¹ = Σ eᵏ⁻¹, at the two ends of linear map k."""
        _, up, down = self._views_of(gradient)
        layers = self.net.layers  # β of a normalized one is the normalizer's
        if layers[k].normalization is None:
            self._column_sums(self._delta[k], up[k], layers[k].biases)
        if self._bidirectional and layers[k - 1].normalization is None:
            self._column_sums(self._e[k - 1], down[k - 1], layers[k - 1].biases)
        elif not self._bidirectional:  # the other direction's biases do not move
            down[k - 1][...] = 0.0

    def _views_of(self, gradient: Array) -> Any:
        """Return the views of the weights, and of the biases of each direction, by layer."""
        if self._views[0] is not gradient:
            net, xp = self.net, self.net.backend.xp
            forward, backward = net.views(gradient), net.reversed.views(gradient)
            up = [None if b is None else xp.reshape(b, (1, -1)) for b in forward.biases]
            down = [None if d is None else xp.reshape(d, (1, -1)) for d in backward.biases[::-1]]
            self._views = (gradient, forward.weights, up, down)
        return self._views[1:]

    # -- what is done to rows start..stop of a layer, while they are in cache ------------------
    def _activate(self, net: Network, k: int, signal: Array, start: int, stop: int) -> None:
        """Write f(signal + bᵏ) over rows of ``signal``; k counts from the input of ``net``."""
        layer, z, b = net.layers[k], signal[start:stop, :], net.biases[k]
        if net.backend.add_bias_activate(layer.activation, z, b if layer.biases else None):
            return
        add_bias(net.backend, z, b, layer)
        if layer.activation is not None:
            layer.activation.activate(net.backend, z, self._scratch_for(z, start))

    def _multiply_derivative(
        self, k: int, error: Array, a: Array, start: int, stop: int, first: int = 0
    ) -> None:
        """Write error ∘ f'(a) over rows of ``error``, which lie in their block from ``first`` on.

        k counts from the forward direction's input, whichever direction's error it is.
        """
        activation = self.net.layers[k].activation
        if activation is not None:
            backend, rows, at = self.net.backend, error[start:stop, :], a[start:stop, :]
            if backend.multiply_derivative(activation, rows, at):
                return
            scratch = self._scratch_for(rows, first + start)  # a's rows may be at work meanwhile
            activation.multiply_derivative(backend, rows, at, scratch)

    def _scratch_for(self, rows: Array, start: int) -> Array:
        """Return scratch for rows from ``start`` on, apart from that of all other rows."""
        count, width = rows.shape
        first = start * self._widest
        flat = self._scratch[first : first + count * width]
        return self.net.backend.xp.reshape(flat, (count, width))

    def _column_sums(self, x: Array, out: Array, channels: int) -> None:
        """Write Σ over rows, and over the neurons that share a bias, of ``x`` into ``out``."""
        if not channels:
            return
        if x.shape[1] != channels:
            x = self.net.backend.xp.reshape(x, (-1, channels))
        rows = x.shape[0]
        if rows not in self._ones_views:
            self._ones_views[rows] = self._ones[:, :rows]
        if self.net.backend.sums_together:
            self._sums.append((x, out, self._ones_views[rows]))
        else:
            self.net.backend.column_sums(x, out, self._ones_views[rows])


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
        The :class:`~nembp.engine.noise.Noise` of each place and the generator of its stream:
        ``"forward"`` and ``"backward"`` for that direction's target, ``"forward/hidden"`` and so on
        for its signals (:data:`nembp.engine.noise.PLACES`).

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
        """Down: δᵏ⁻¹ = adjoint(δᵏ) ∘ f'(aᵏ⁻¹), and every linear map's and bias's joint gradient."""
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
        """Down: δᵏ⁻¹ = adjoint(δᵏ) ∘ f'(aᵏ⁻¹), and every linear map's and bias's gradient."""
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


def backpropagate(
    net: Network, x: Any, t: Any, *, statistics: Statistics = "batch"
) -> tuple[Array, Array]:
    """Return one direction's gradient, and its error at the input.

    Up, zᵏ = forward(aᵏ⁻¹) + bᵏ and aᵏ = f(zᵏ); then down from δᴸ = −∂log p/∂zᴸ / rows

        δᵏ⁻¹ = adjoint(δᵏ) ∘ f'(aᵏ⁻¹),   ∂/∂Wᵏ = weight_gradient(aᵏ⁻¹, δᵏ),   ∂/∂bᵏ = Σ_rows δᵏ:

    classical backpropagation, which maximum likelihood gives back in either direction (Adigun and
    Kosko 2019, theorems 1 and 2). Pass ``net.reversed`` for the other one. In a normalized layer
    (:mod:`nembp.engine.batchnorm`) γ ẑ takes the place of forward(aᵏ⁻¹), and the error goes on through
    it once ∂/∂b is taken.

    Parameters
    ----------
    net : Network
        Seen from the direction to differentiate.
    x, t : array, shapes (rows, net.inputs) and (rows, net.outputs)
        Input and target of that direction.
    statistics : {"batch", "running"}
        What normalized layers normalize by. With ``"batch"``, as in training, the gradient is that
        of ``net.log_likelihood(x, t, "batch")``, where every row's normalization depends on all
        rows; with ``"running"`` that of ``net.log_likelihood(x, t)``, where each row is by itself.
        Both are exact, and neither moves the running statistics.

    Returns
    -------
    gradient : array, shape (parameter_count,)
        Zero at the other direction's biases and gains.
    input_error : array, shape (rows, net.inputs)
        ∂(−log p / rows)/∂x.
    """
    backend, xp, dtype = net.backend, net.backend.xp, net.dtype
    a = [net._check(x, net.inputs, "input")]  # of every layer but the last, which is o.a
    rows = a[0].shape[0]
    t = net._check(t, net.outputs, "target")
    if t.shape[0] != rows:
        raise ShapeError(f"target has {t.shape[0]} rows, but the input has {rows}")
    o = Readout.allocate(backend, rows, net.outputs, dtype)
    last = len(net.maps)
    normal = normalizers(net, rows, statistics=statistics)
    for k, linear_map in enumerate(net.maps, start=1):
        layer = net.layers[k]
        z = o.z if k == last else backend.empty((rows, layer.size), dtype)
        linear_map.forward(backend, a[k - 1], net.weights[k - 1], z)
        if (normalizer := normal[k]) is not None:
            normalizer.forward(z)
        add_bias(backend, z, net.biases[k], layer)
        if layer.activation is not None:
            layer.activation.activate(backend, z, xp.empty_like(z))
        a.append(z)
    net.likelihood.link(o)

    gradient = backend.zeros((net.parameter_count,), dtype)
    views = net.views(gradient)
    delta = backend.empty((rows, net.outputs), dtype)
    net.likelihood.error(o, t, delta, factor=1.0 / rows)  # δᴸ
    for k in range(last, 0, -1):
        linear_map, below = net.maps[k - 1], net.layers[k - 1]
        linear_map.weight_gradient(backend, a[k - 1], delta, views.weights[k - 1])
        if (normalizer := normal[k]) is not None:
            views.biases[k][...] = normalizer.bias_gradient  # type: ignore[index]
            views.gains[k][...] = normalizer.gain_gradient  # type: ignore[index]
        elif net.layers[k].biases:
            per_channel = xp.reshape(delta, (-1, net.layers[k].biases))
            views.biases[k][...] = xp.sum(per_channel, axis=0)  # type: ignore[index]
        error = backend.empty((rows, below.size), dtype)
        linear_map.adjoint(backend, delta, net.weights[k - 1], error)
        if below.activation is not None:
            scratch = xp.empty_like(error)
            below.activation.multiply_derivative(backend, error, a[k - 1], scratch)
        if (normalizer := normal[k - 1]) is not None:
            normalizer.pull_back(error)
        delta = error  # δᵏ⁻¹
    return gradient, delta


def joint_gradient(net: Network, x: Any, y: Any) -> Array:
    """Return the gradient of −[log p(y | x) + log p(x | y)] / rows by three sweeps.

    **Law**: it equals the sum of ``backpropagate(net, x, y)`` and
    ``backpropagate(net.reversed, y, x)``.

    >>> import numpy as np
    >>> from nembp.engine.network import dense_network
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
    step.moves_statistics = False
    step.x[...] = x
    step.t[...] = y
    gradient = net.backend.zeros((net.parameter_count,), net.dtype)
    step(gradient)
    return gradient
