"""Backpropagation in both directions, by three sweeps over the layers.

A gradient is that of the mean negative log-likelihood per sample (nats), a flat vector laid out
like ``net.parameters``; descending it climbs log p(y | x) + log p(x | y).

Signals of one direction and errors of the other travel the same wires, so they share products. A
step keeps for each layer two blocks of rows, P = [a ; e] and Q = [δ ; c], where a, δ are the
forward direction's activations and errors, c, e the backward direction's. The joint gradient of a
linear map is then one product of both directions, ∂T/∂W at (Pᵏ⁻¹, Qᵏ).

Where each direction's input and target are given (:class:`JointBackpropagation`):

1. down: the backward signals c, from the output to the input, and there the backward error e⁰;
2. up: Pᵏ = forward(Pᵏ⁻¹) carries a and e in one product;
3. down: the forward errors δ, and the joint gradients.

(The order up, down, up would leave the product of the first and largest layer unshared.)

A generator reads its own output back, in another order (:mod:`nembp.adversarial.gradients`).

The class-sum path: the backward direction of a classifier has only K distinct inputs, its labels,
so its signals and errors need K rows, not one per sample. Every likelihood's error is linear in the
target, so row k needs only the sum of the targets of class k,

    Σ_{i in class k} error_i = scale · (counts_k a_k − Σ_{i in class k} t_i).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nembp.backend import Array, Backend
from nembp.engine.batchnorm import Counts, Statistics
from nembp.engine.likelihoods import Gaussian, Likelihood, Readout
from nembp.engine.network import LayerSide, Network
from nembp.engine.noise import Noise, NoiseSource, SignalNoise, noise_that_acts
from nembp.errors import ArchitectureError, ShapeError, check_choice
from nembp.threads import single_threaded_blas

Path = Literal["none", "samples", "classes"]

# Matrix products work through rows in groups, and a last, partial group costs as much as a full
# one, so the class rows are rounded up; a class that no sample has adds nothing to any sum.
CLASS_ROWS = 4
MANY_CLASSES = 256  # rows from which on it matters that there are more of them than samples


def class_rows(classes: int) -> int:
    """Return the rows that ``classes`` take in the class-sum path.

    >>> class_rows(10)
    12
    """
    return -(-classes // CLASS_ROWS) * CLASS_ROWS


# -- losses: what a direction does with its target -------------------------------------------------
class SampleLoss:
    """−log p of one target per row, and its error.

    ``target`` (rows, width) is the buffer of the clean targets, which receive ``noise`` from the
    stream ``generator``; ``weights`` (rows, 1) is the buffer of what multiplies each sample's log p
    and error. Sums over rows are divided by ``samples``, the rows by default.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        likelihood: Likelihood,
        target: Array,
        *,
        noise: Noise | None = None,
        generator: Any = None,
        samples: int | None = None,
        weights: Array = None,
    ) -> None:
        rows, width = target.shape
        self.backend, self.likelihood, self.target = backend, likelihood, target
        self.samples, self.weights = samples or rows, weights
        self.source: NoiseSource | None = None
        if noise is not None:
            self.source = NoiseSource(noise, likelihood, backend, rows, width, dtype, generator)
            self._noisy = backend.empty((rows, width), dtype)
        self.weight = 1.0  # of the error, not of the nll: 1 climbs log p, −1 descends it
        self.factor: Array | None = None  # the same, (1,), where a captured step looks
        self.readout = Readout(backend, rows, width, dtype)  # z is to be written
        self.nll = backend.zeros((1, 1), dtype)  # mean of the clean targets, in nats per sample

    def error(self, out: Array) -> None:
        """Write −weight · ∂log p/∂z / samples into ``out``, and the mean nll into ``nll``."""
        o, target, counts = self.readout, self.target, None
        log_p = self.backend.output_and_score(self.likelihood, o, target)
        if self.weights is not None:
            log_p *= self.weights
        self.set_nll(log_p)
        if self.source is not None:
            target = self.with_noise(o)
            counts = 1.0 if self.source.noise.update == "published" else None
        self.write_error(target, out, counts)
        if self.weights is not None:
            out *= self.weights

    def with_noise(self, o: Readout) -> Array:
        """Return the targets with noise that is screened under a readout."""
        n = self.source(o, self.target)  # type: ignore[misc]
        return self.backend.xp.add(self.target, n, out=self._noisy)

    def set_nll(self, log_p: Array) -> None:
        """Write the mean of a column of log-likelihoods, negated, into ``nll``."""
        self.backend.sum_column(log_p, self.nll, -1.0 / self.samples)

    def write_error(self, target: Array, out: Array, counts: Array | float | None = None) -> None:
        """Write the error of a target, times weight and factor, into ``out``."""
        weight = self.weight / self.samples
        self.backend.output_error(self.likelihood, self.readout, target, out, counts, weight)
        if self.factor is not None:
            out *= self.factor


@dataclass(frozen=True)
class ClassAssignment:
    """The distinct inputs of a backward direction, and which of them each sample has.

    A row of zeros in ``members`` takes no part, nor do samples of a batch beyond its last row.
    """

    inputs: np.ndarray[Any, Any]  # (classes, outputs), on the host
    members: Array  # (samples, classes), one-hot rows, on the device; may change between steps


class ClassLoss(SampleLoss):
    """−log p with one row per class, a distinct input of the direction: sums over its samples.

    ``target`` and ``weights`` have a row for each sample, and so has the noise, which is screened
    sample by sample. ``inputs`` has the input of class k in row k, zeros in the rows of no class.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: str,
        likelihood: Likelihood,
        target: Array,
        classes: ClassAssignment,
        **options: Any,
    ) -> None:
        (count, number), width = classes.members.shape, target.shape[1]
        super().__init__(backend, dtype, likelihood, target[:count, :], **options)
        rows, self._members, self._per_sample = class_rows(number), classes.members, self.readout
        self.readout = o = Readout(backend, rows, width, dtype)
        self.inputs = backend.zeros((rows, classes.inputs.shape[1]), dtype)
        self.inputs[:number, :] = backend.asarray(classes.inputs, dtype)
        # sums of targets, of samples and of squared norms: rows of no class keep their zeros
        self._totals = [backend.zeros((rows, each), dtype) for each in (width, 1, 1)]
        self._of_classes = [each[:number, :] for each in (*self._totals, o.z, o.a)]
        self._weighted = backend.empty((count, number), dtype)
        self._column = backend.empty((count, 1), dtype)

    def error(self, out: Array) -> None:
        """Write class sums of −weight · ∂log p/∂z / samples, and the mean nll into ``nll``."""
        backend, likelihood, target = self.backend, self.likelihood, self.target
        members, (sums, numbers, squares, z, a) = self._members, self._of_classes
        if self.weights is not None:
            members = backend.xp.multiply(members, self.weights, out=self._weighted)
        backend.matmul(members.T, target, sums)
        norms = None
        if isinstance(likelihood, Gaussian):
            norms = backend.row_dot(target, target, self._column)
        backend.count_classes(members, numbers, norms, squares)
        self.set_nll(backend.output_and_score(likelihood, self.readout, *self._totals))
        all_sums, counts, _ = self._totals
        published = False
        if self.source is not None:  # under each sample's own activation
            each = self._per_sample
            backend.matmul(self._members, z, each.z)
            backend.matmul(self._members, a, each.a)
            backend.matmul(members.T, self.with_noise(each), sums)
            published = self.source.noise.update == "published"
        exact = likelihood.counts_are_target_sums and not published
        self.write_error(all_sums, out, None if exact else counts)


# -- steps -----------------------------------------------------------------------------------------
class Step:
    """What every order of sweeps needs: blocks of rows, maps with their buffers, layers' sides.

    The network is seen from its forward direction, whose rows are ``forward``; without
    ``backward`` rows that direction is not trained. With ``backward_first`` the blocks are [e ; a]
    and [c ; δ]: a product that carries one direction alone carries the first rows. ``members``
    are of the backward rows, where those are classes, ``groups`` counts the forward rows that
    normalized layers take statistics of together.
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
        statistics: Statistics = "batch",
    ) -> None:
        self.net, self.rows = net, forward
        self.moves_statistics = statistics == "batch"  # the running ones of normalized layers
        backend, dtype, both = net.backend, net.dtype, forward + backward
        sizes, last = [layer.size for layer in net.layers], len(net.maps)
        # the blocks by layer, P of layers 0..L−1, Q of layers 1..L, and their views
        self.P = [backend.empty((both, size), dtype) for size in sizes[:-1]]
        self.Q: list[Array] = [None, *(backend.empty((both, size), dtype) for size in sizes[1:])]
        parts = (backward, forward) if backward_first else (forward, backward)
        first, second = slice(0, parts[0]), slice(parts[0], both)
        up, down = (second, first) if backward_first else (first, second)
        self.a, self.e = [p[up, :] for p in self.P], [p[down, :] for p in self.P]
        self.delta: list[Array] = [None, *(q[up, :] for q in self.Q[1:])]
        self.c: list[Array] = [None, *(q[down, :] for q in self.Q[1:])]

        shared = any(linear_map.in_workers for linear_map in net.maps)
        workers = backend.workers() if shared else 1  # or leave the threads to BLAS
        self.threads = single_threaded_blas if workers > 1 else nullcontext  # of a step
        filled = [rows for rows in parts if rows]
        self.maps = [m.workspace(backend, filled, dtype, workers=workers) for m in net.maps]
        self.counts, self._members = None, members
        if members is not None and net.statistics_count:
            shares, total = backend.zeros((backward, 1), dtype), backend.empty((1, 1), dtype)
            self.counts = Counts(members.shape[0], shares, total)
        scratch = backend.empty((both * max(sizes),), dtype)
        options: Any = {"scratch": scratch, "statistics": statistics, "workers": workers}
        # each layer in either direction, None where it has none
        self.up: list[Any] = [None] * (last + 1)
        self.down: list[Any] = [None] * (last + 1)
        for k in range(last):
            self.up[k + 1] = LayerSide(net, k + 1, forward, groups=groups, **options)
            if backward:
                reached = net.reversed, last - k, backward
                self.down[k] = LayerSide(*reached, counts=self.counts, **options)
        self._gradient: Array = None  # of the last call, and its views

    def begin(self) -> None:
        """Load the weights, and count the samples of each class where a layer asks for them."""
        for each, W in zip(self.maps, self.net.weights, strict=True):
            each.load(W)
        if self.counts is not None:  # rows of no class keep their zeros
            backend, members, (_, shares, total) = self.net.backend, self._members, self.counts
            backend.count_classes(members, shares[: members.shape[1], :])
            backend.sum_column(shares, total, 1.0)
            backend.xp.maximum(total, 1.0, out=total)  # where none takes part
            shares /= total

    def weights_of(self, gradient: Array) -> list[Array]:
        """Return the views of ``gradient`` at the weights of each map."""
        if gradient is not self._gradient:
            self._gradient, net, xp = gradient, self.net, self.net.backend.xp
            forward, backward = net.views(gradient), net.reversed.views(gradient)
            self._weights = forward.weights
            self._sums: list[Any] = []  # errors, and the bias gradients that sum them
            self._normalized: list[Any] = []  # normalizers, and where their gradients go
            up: Any = zip(self.up, self.delta, forward.biases, forward.gains, strict=True)
            back = backward.biases[::-1], backward.gains[::-1]
            down: Any = zip(self.down, [*self.e, None], *back, strict=True)
            for side, error, bias, gain in (*up, *down):
                if side is None or side.bias is None:
                    continue
                self._normalized += [(each, bias, gain) for _, each in side.normalizers]
                if not side.normalizers:  # channels share a bias
                    rows = xp.reshape(error, (-1, bias.shape[0]))
                    self._sums.append((rows, xp.reshape(bias, (1, -1))))
        return self._weights

    def end(self, gradient: Array | None) -> None:
        """Write the gradients of biases and gains, and move the running statistics."""
        net, xp = self.net, self.net.backend.xp
        if gradient is not None:
            gradient[net.weight_count :] = 0.0  # of a direction that is not trained, too
            net.backend.sum_rows(self._sums)
            for each, bias, gain in self._normalized:
                xp.add(bias, each.bias_gradient, out=bias)
                xp.add(gain, each.gain_gradient, out=gain)
        if self.moves_statistics and net.statistics_count:
            for side in filter(None, (*self.up, *self.down)):
                for _, each in side.normalizers:
                    each.update_running()


class JointBackpropagation(Step):
    """Both directions' gradients for a fixed number of rows, in buffers allocated once.

    Write a batch into ``x`` (rows, inputs), ``t`` (rows, outputs) and, if ``weighted``, into ``w``
    (rows, 1), which multiplies each sample's log-likelihoods; then call with a gradient to fill.

    The backward direction has one row per sample on the ``path`` ``"samples"``. On ``"classes"`` it
    has one for each of its distinct inputs, those of ``classes``, by default the labels, which is
    exact when every target is a one-hot row (but one per sample where many more classes would take
    more). ``"none"`` leaves it out. It aims at ``backward_target``, by default ``x``. ``output``
    takes the place of the forward likelihood of ``t``, which in any case screens noise on forward
    signals. Sums over rows are divided by ``samples``, by default ``rows``.

    ``noise`` and ``generators``, of their streams, are by place (:data:`nembp.engine.noise.NAMES`);
    ``sources`` has what draws it, of each layer by itself, as ``"forward/hidden-1"``.

    After a call ``forward_nll`` and ``backward_nll`` (1, 1) are the mean negative log-likelihoods
    of the clean targets in nats, and ``input_error``, where it is asked for, is δ⁰ =
    ∂(−log p(t | x) / samples)/∂x (rows, inputs).
    """

    def __init__(
        self,
        net: Network,
        rows: int,
        *,
        path: Path = "samples",
        classes: ClassAssignment | None = None,
        samples: int | None = None,
        weighted: bool = False,
        output: SampleLoss | None = None,
        backward_target: Array = None,
        groups: Sequence[int] | None = None,
        input_error: bool = False,
        noise: dict[str, Noise] | None = None,
        generators: dict[str, Any] | None = None,
        statistics: Statistics = "batch",
    ) -> None:
        backend, dtype, back = net.backend, net.dtype, net.reversed
        many = class_rows(net.outputs) > max(rows, MANY_CLASSES)
        if path == "classes" and classes is None and many:
            path = "samples"
        self.path, self._samples = path, samples or rows
        self.t = backend.empty((rows, net.outputs), dtype)
        self.w = backend.empty((rows, 1), dtype) if weighted else None
        members: Array = None
        second = rows if path == "samples" else 0
        if path == "classes":
            classes = classes or ClassAssignment(np.eye(net.outputs), self.t)
            members, second = classes.members, class_rows(classes.members.shape[1])
        super().__init__(net, rows, second, members=members, groups=groups, statistics=statistics)
        self.x = self.a[0]
        self.input_error = backend.empty((rows, net.inputs), dtype) if input_error else None
        self.delta[0] = self.input_error

        noise, generators = noise_that_acts(noise), generators or {}
        self.sources: dict[str, NoiseSource] = {}
        if path != "samples" and any(key.startswith("backward/") for key in noise):
            raise ArchitectureError(
                f"noise on backward signals needs a row for each sample, and path is {path!r}; "
                "expected path 'samples'"
            )
        self._noise_up, self._noise_down = (
            SignalNoise(way, rows, noise, generators, groups if way is net else None)
            if any(key.startswith(f"{way.direction}/") for key in noise)
            else None
            for way in (net, back)
        )
        for signals, sides in ((self._noise_up, self.up), (self._noise_down, self.down[::-1])):
            for k, source in {} if signals is None else signals.sources.items():
                self.sources[source.name] = source
                if k > 0:
                    sides[k].add_noise(source.n)

        def made(kind: Any, way: Network, *target: Any) -> Any:
            drawn = {"noise": noise.get(way.direction), "generator": generators.get(way.direction)}
            own = {"samples": self._samples, "weights": self.w}
            loss = kind(backend, dtype, way.likelihood, *target, **drawn, **own)
            if loss.source is not None:
                self.sources[way.direction] = loss.source
            return loss

        self.output: SampleLoss = output or made(SampleLoss, net, self.t)
        self.input: SampleLoss | None = None
        aim = self.x if backward_target is None else backward_target
        if path == "samples":
            self.input = made(SampleLoss, back, aim)
        elif path == "classes":
            self.input = by_class = made(ClassLoss, back, aim, classes)
            self.c[-1][...] = by_class.inputs
        self.forward_nll = self.output.nll
        self.backward_nll = self.input.nll if self.input else backend.zeros((1, 1), dtype)
        # both losses see noise on the signals, so their nll is not that of what predicts
        quiet = (self._noise_down, self.backward_nll), (self._noise_up, self.forward_nll)
        self._quiet = [(n, nll) for n, nll in quiet[: 2 if output is None else 1] if n is not None]

    def __call__(self, gradient: Array | None, epoch: int = 1, iteration: int = 1) -> None:
        """Fill ``gradient`` for the batch in ``x`` and ``t``; None where only losses are wanted.

        ``epoch`` and ``iteration``, both counted from 1, are those of annealed noise.
        """
        for each in self.sources.values():
            each.std = each.noise.std_at(epoch, iteration)
        self.step(gradient)

    def step(self, gradient: Array | None) -> None:
        """Do the same with the standard deviations that ``sources`` have."""
        maps, up, down, last = self.maps, self.up, self.down, len(self.maps)
        P, Q, a, e, delta, c = self.P, self.Q, self.a, self.e, self.delta, self.c
        noise_up, noise_down = self._noise_up, self._noise_down
        with self.threads():
            self.begin()
            if self.input is not None:  # 1 down: backward signals, and e⁰
                if self.path == "samples":
                    c[last][...] = self.t
                if noise_down is not None:
                    noise_down(c[last], self.x)
                for k in range(last, 1, -1):
                    maps[k - 1].adjoint(c[k], c[k - 1])
                    down[k - 1].signal(c[k - 1])
                u = self.input.readout.z
                maps[0].adjoint(c[1], u)
                down[0].signal(u)
                self.input.error(e[0])
            if noise_up is not None:
                noise_up(self.x, self.t)
            for k in range(1, last):  # 2 up: a and e share one product
                maps[k - 1].forward(P[k - 1], P[k])
                up[k].signal(a[k])
                if self.input is not None:
                    down[k].error(e[k], c[k])
            z = self.output.readout.z
            maps[-1].forward(P[last - 1], z)
            up[last].signal(z)
            self.output.error(delta[last])
            weights = None if gradient is None else self.weights_of(gradient)
            for k in range(last, 0, -1):  # 3 down: δ, and one joint gradient per map
                if weights is not None:
                    maps[k - 1].adjoint_and_gradient(P[k - 1], Q[k], delta[k - 1], weights[k - 1])
                elif delta[k - 1] is not None:
                    maps[k - 1].adjoint(delta[k], delta[k - 1])
                if k > 1:
                    up[k - 1].error(delta[k - 1], a[k - 1])
            self.end(gradient)
        if noise_up is not None and noise_up.clean is not None:
            self.x[...] = noise_up.clean  # the batch as it came
        for each, nll in self._quiet:
            self.net.backend.xp.multiply(each.nll, self.rows / self._samples, out=nll)


# -- gradients of given arrays ---------------------------------------------------------------------
def backpropagate(
    net: Network, x: Any, t: Any, *, statistics: Statistics = "batch"
) -> tuple[Array, Array]:
    """Return one direction's gradient, and its error at the input, (rows, inputs).

    Up, zᵏ = forward(aᵏ⁻¹) + bᵏ and aᵏ = f(zᵏ); then down from δᴸ = −∂log p/∂zᴸ / rows

        δᵏ⁻¹ = adjoint(δᵏ) ∘ f'(aᵏ⁻¹),   ∂/∂Wᵏ = weight_gradient(aᵏ⁻¹, δᵏ),   ∂/∂bᵏ = Σ_rows δᵏ:

    classical backpropagation, which maximum likelihood gives back in either direction (Adigun and
    Kosko 2019, theorems 1 and 2). Pass ``net.reversed`` for the other one. It is the gradient of
    ``net.log_likelihood(x, t, statistics)``, and moves no running statistics.
    """
    gradient, step = _of_arrays(net, x, t, path="none", statistics=statistics, input_error=True)
    return gradient, step.input_error


def gradient(
    net: Network,
    x: Any,
    t: Any,
    direction: Literal["both", "forward", "backward"] = "both",
    *,
    path: Path = "samples",
    noise: dict[str, Noise] | None = None,
    seed: int = 0,
) -> tuple[dict[str, float], Array]:
    """Return each direction's mean nll, and the gradient of their sum, for one batch.

    **Law**: it is the sum of the gradients of the two directions.

    Parameters
    ----------
    net : Network
        Seen from its forward direction.
    x, t : array_like, shapes (rows, net.inputs) and (rows, net.outputs)
        Input and target of the forward direction.
    direction : {"both", "forward", "backward"}
        Whose log-likelihood the gradient climbs.
    path : {"samples", "classes"}
        How the backward direction is computed in ``"both"``: with one row per sample, or with one
        row per class, where all targets are one-hot rows. The gradient is the same.
    noise : dict of Noise, optional
        By place, as of `JointBackpropagation`; drawn from the streams ``noise/...`` of ``seed``.

    Returns
    -------
    nll : dict
        ``"forward"`` and ``"backward"``, in nats per sample, of the clean targets.
    gradient : array, shape (parameter_count,)
        ∂/∂θ of −log p(y | x) − log p(x | y), per sample, laid out like ``net.parameters``.

    >>> import numpy as np
    >>> from nembp.engine.network import dense_network
    >>> net = dense_network([3, 5, 2], dtype="float64")
    >>> x, y = np.ones((4, 3)), np.eye(2)[[0, 1, 1, 0]]
    >>> (nll, both), (_, up), (_, down) = (
    ...     gradient(net, x, y, way) for way in ("both", "forward", "backward")
    ... )
    >>> bool(np.allclose(both, up + down)), sorted(nll)
    (True, ['backward', 'forward'])
    """
    check_choice("direction", direction, ("both", "forward", "backward"))
    check_choice("path", path, ("samples", "classes"))
    noise = noise_that_acts(noise)
    if idle := [key for key in noise if direction not in ("both", key.partition("/")[0])]:
        raise ArchitectureError(f"noise of {idle[0]!r} does nothing where direction={direction!r}")
    if direction == "backward":
        net, x, t = net.reversed, t, x
    draws = {key: net.backend.generator(seed, f"noise/{key}") for key in noise}
    way: Path = path if direction == "both" else "none"
    flat, step = _of_arrays(net, x, t, path=way, noise=noise, generators=draws)
    nll = {"forward" if direction == "both" else direction: step.forward_nll}
    if direction == "both":
        nll["backward"] = step.backward_nll
    return {way: float(net.backend.to_numpy(of)[0, 0]) for way, of in nll.items()}, flat


def _of_arrays(net: Network, x: Any, t: Any, **options: Any) -> tuple[Array, JointBackpropagation]:
    """Return the gradient of one batch, and the step that found it."""
    x, t = net._check_batch(x, t)
    host = net.backend.to_numpy(t)
    if options.get("path") == "classes" and not (np.sort(host) == np.eye(host.shape[1])[-1]).all():
        raise ShapeError("path 'classes' takes one-hot rows as targets; leave path='samples'")
    step = JointBackpropagation(net, x.shape[0], **options)
    step.moves_statistics = False
    step.x[...], step.t[...] = x, t
    gradient = net.backend.zeros((net.parameter_count,), net.dtype)
    step(gradient)
    return gradient, step
