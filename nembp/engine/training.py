"""Training: steps, epochs, history, early stopping, callbacks.

Named streams of the seed draw everything: ``weights`` (in `Network`), ``batches``, ``augmentation``
(in the reader), and ``noise/forward`` and so on, so that runs that differ only in their noise see
the same weights and images.

What changes from step to step (learning rate, bias corrections, standard deviations of the noise)
is a row of numbers. On a GPU an epoch's rows and order of samples are laid out in its memory, so
that a step can be captured as a graph: called and captured steps are the same function.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from nembp.backend import Array, Backend, stream
from nembp.backend.standard import Steps
from nembp.engine.backprop import JointBackpropagation, Path
from nembp.engine.likelihoods import Bernoulli, Bipolar, Gaussian, Multinomial
from nembp.engine.network import Network
from nembp.engine.noise import Noise, noise_that_acts
from nembp.engine.optimizers import Optimizer, get_optimizer, learning_rate_schedule
from nembp.errors import ArchitectureError, DivergenceError, ShapeError, check_choice

CHECK_EVERY = 50  # steps between looks at the nll on the CPU; a GPU is asked once an epoch

Callback: TypeAlias = Callable[[dict[str, float]], bool | None]
Reader: TypeAlias = Any  # a nembp.datasets.reading.BatchReader, which knows more of files than this


@dataclass
class History:
    """What happened, a dict of scores an epoch.

    Attributes
    ----------
    epochs : list of dict
        Keys: ``epoch``, ``learning_rate``, ``seconds``, ``samples_per_second``;
        ``train/forward/nll`` and ``train/backward/nll`` (means over the epoch's steps, nats); with
        noise, ``noise/forward/accepted``, ``noise/forward/gain`` (nats a sample) and so on; and the
        scores of the evaluation as ``forward/accuracy`` and so on.
    stopped_early : bool
        Whether patience ran out; the best parameters were then restored.
    best_epoch : int
        The epoch whose parameters the network has.
    model : Model or None
        What `nembp.train` trained, with the scaling of its arrays.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    stopped_early: bool = False
    best_epoch: int = 0
    model: Any = field(default=None, repr=False)

    def __repr__(self) -> str:
        """Say how long it is and what it holds; the rows would fill a screen."""
        n, keys = len(self.epochs), ", ".join(self.epochs[-1] if self.epochs else ())
        return f"History({n} epoch{'' if n == 1 else 's'} of {keys or 'nothing'})"

    def __getitem__(self, key: str) -> list[float]:
        """Return one score over the epochs."""
        return [row[key] for row in self.epochs]


class Totals:
    """Sums of what steps leave on the device, where they stay until read."""

    def __init__(self, backend: Backend, dtype: str) -> None:
        self._backend, self._dtype = backend, dtype
        self._totals: dict[str, Array] = {}

    def clear(self) -> None:
        """Begin again."""
        for total in self._totals.values():
            total[...] = 0.0

    def add(self, key: str, value: Array, share: float = 1.0) -> None:
        """Add share · ``value``, shape (1, 1)."""
        if key not in self._totals:
            self._totals[key] = self._backend.zeros((1, 1), self._dtype)
        self._totals[key] += value * share

    def read(self) -> dict[str, float]:
        """Return the sums so far (synchronises)."""
        return {key: float(total[0, 0]) for key, total in self.state().items()}

    def state(self) -> dict[str, Any]:
        """Return the sums, copied to the host, for :meth:`resume` to go on from."""
        return {key: self._backend.to_numpy(total) for key, total in self._totals.items()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take the sums to what :meth:`state` returned."""
        for key, total in state.items():
            held = np.reshape(total, (1, 1))
            self._totals[key] = self._backend.asarray(held, self._dtype)


def _named(snapshot: tuple[Any, Any]) -> dict[str, Any]:
    return dict(zip(("parameters", "statistics"), snapshot, strict=True))


def _pair(named: Mapping[str, Any], net: Network) -> tuple[Any, Any]:
    parameters, statistics = named["parameters"], named["statistics"]
    if (parameters.shape, statistics.shape) != (net.parameters.shape, net.statistics.shape):
        raise ValueError(f"parameters of shapes {parameters.shape} and {statistics.shape}")
    return parameters, statistics


def check_counts(**counts: Any) -> None:
    """Raise an ArchitectureError unless each is a whole number of at least 1."""
    for key, value in counts.items():
        name = key.replace("_", " ")
        if not hasattr(value, "__index__"):
            raise ArchitectureError(f"{name} must be a whole number, got {value!r}")
        if value < 1:
            raise ArchitectureError(f"{name} must be at least 1, got {value}")


def nll_key(way: Network) -> str:
    """Return what a history calls the nll of a direction over the training samples."""
    return f"train/{way.direction}/nll"


def set_input_bias(net: Network, mean: np.ndarray[Any, Any]) -> None:
    """Start the backward direction at the training mean: the d⁰ whose output activation it is.

    Then its first errors are those of the classes about the mean, not of the mean itself, which
    would otherwise drown the forward direction's in the first epochs.
    """
    if mean.shape != (net.inputs,):
        raise ShapeError(
            f"the mean has shape {mean.shape}, but the network has {net.inputs} inputs; expected "
            f"shape ({net.inputs},), as feature_means returns it"
        )
    likelihood = net.reversed.likelihood
    if isinstance(likelihood, Bernoulli):
        p = np.clip(mean, 1e-3, 1 - 1e-3)
        start = np.log(p / (1 - p))
    elif isinstance(likelihood, Bipolar):
        start = np.arctanh(np.clip(mean, -0.998, 0.998))
    elif isinstance(likelihood, Multinomial):
        start = np.log(np.clip(mean, 1e-6, None))
    else:
        start = mean
    bias = net.reversed.biases[-1]
    if bias is not None and bias.shape[0] == net.inputs:
        bias[...] = net.backend.asarray(start, net.dtype)


class Trainer:
    """Trains ``net``, seen from its forward direction, in place on the batches of a reader.

    ``noise`` is by place: of ``"forward"`` and ``"backward"``, on that direction's target; of
    ``"forward/hidden"`` and so on, on its signals (:data:`nembp.engine.noise.PLACES`). Noise on
    backward signals takes a row for each sample, not one for each class.

    A step is captured as a CUDA graph and replayed where the device has them, not with noise drawn
    on the host nor with an optimizer of your own; its numbers are those of the same calls one by
    one. A ShapeError or ArchitectureError refuses a reader that does not fit the network, and
    options that are out of bounds or name nothing.
    """

    def __init__(
        self,
        net: Network,
        reader: Reader,
        *,
        epochs: int = 10,
        batch_size: int = 128,  # the last batch of an epoch may be smaller
        optimizer: str | Optimizer = "adam",
        schedule: str = "cosine",  # of the learning rate over all steps
        backward: bool = True,  # train the backward direction too
        noise: dict[str, Noise] | None = None,
        seed: int = 0,  # of the streams "batches" and "noise/*"
        shuffle: bool = True,  # draw the order of samples anew for each epoch
        # (n,), of each sample's log p, with a mean of 1; normalized layers count each sample once
        sample_weight: np.ndarray[Any, Any] | None = None,
        # α of a penalty α/2 ‖W‖² a batch, as in scikit-learn: a batch's gradient gains α W / rows,
        # which Adam, unlike the optimizer's weight decay, rescales
        l2: float = 0.0,
        # scores the network after each epoch, whose row they join; if `monitor` among them has not
        # improved for `patience` epochs, training stops, and the best parameters come back
        evaluate: Callable[[Network], dict[str, float]] | None = None,
        monitor: str = "forward/nll",
        patience: int | None = None,
        # called with each epoch's row; one that returns True ends the training
        callbacks: Sequence[Callback] = (),
        # called after each step, when, as for `callbacks`, `state` is whole; may raise to end
        after_step: Callable[[], None] | None = None,
        host_noise: bool = False,  # drawn on the host whatever the device, to compare devices
        cuda_graphs: bool = True,
    ) -> None:
        check_counts(epochs=epochs, batch_size=batch_size)
        if (reader.features, reader.outputs) != (net.inputs, net.outputs):
            raise ShapeError(
                f"the reader's samples have {reader.features} values and its targets "
                f"{reader.outputs}, but the network is {net.inputs} -> {net.outputs}; expected a "
                "network and a reader of the same sizes"
            )
        if patience is not None and evaluate is None:
            raise ArchitectureError("early stopping needs an evaluation to monitor")
        self.net, self.reader = net, reader
        self.epochs, self.batch_size = epochs, min(batch_size, int(reader.n))
        self.steps_per_epoch = -(-int(reader.n) // self.batch_size)
        self.optimizer = get_optimizer(optimizer)
        self.schedule = learning_rate_schedule(schedule)
        self.evaluate, self.monitor, self.patience = evaluate, monitor, patience
        self.callbacks, self.after_step = list(callbacks), after_step
        self.history = History()
        self.gradient = self.optimizer.bind(net)
        self.iteration = 0
        self.epoch = 0  # in progress, or the last
        self.batch = 0  # batches of the epoch in progress that are done
        self.last_good = net.snapshot()  # where the epoch began
        self._began = 0.0  # when
        self._best: tuple[float, int, Any] | None = None  # score, epoch and parameters
        self._waited = 0  # epochs since then
        self._order, self._shuffle, self._l2 = stream(seed, "batches"), shuffle, l2
        self._order_began = net.backend.stream_state(self._order)  # before the epoch's draw
        backend = net.backend
        self._weights: Array = None
        if sample_weight is not None:
            self._weights = backend.asarray(np.reshape(sample_weight, (reader.n, 1)), net.dtype)
        self._penalty = backend.empty((net.weight_count if l2 else 0,), net.dtype)
        draw = stream if host_noise else backend.generator
        self._noise = noise_that_acts(noise)
        # of each noise's σ among the numbers, after the optimizer's
        self._columns = {each: 3 + k for k, each in enumerate(dict.fromkeys(self._noise.values()))}
        self._generators = {key: draw(seed, f"noise/{key}") for key in self._noise}
        self._path: Path = "none"
        if backward:
            by_class = reader.is_classification and net.reversed.likelihood.class_sums
            single = any(key.startswith("backward/") for key in self._noise)
            self._path = "classes" if by_class and not single else "samples"
        self._joints: dict[int, JointBackpropagation] = {}
        self._row: Any = None  # the numbers of this step
        self._totals = Totals(backend, net.dtype)  # of the epoch
        # on a GPU, a step finds its numbers and samples in the device's memory
        self.on_device = backend.has_kernel(self.optimizer) and not host_noise
        self._steps = Steps(backend, self.batch_size)
        if self.on_device:
            self._steps = backend.steps(reader.n, self.batch_size, 3 + len(self._columns))
        graphs = self.on_device and cuda_graphs
        self.captured = backend.capture(self._work) if graphs else self._work

    # -- a run -----------------------------------------------------------------------------------
    def run(self) -> History:
        """Train to the end, or until a callback or patience stops it.

        A DivergenceError says that a log-likelihood or parameter stopped being finite; the
        parameters are then those of the last good epoch.
        """
        if self.patience is not None:
            self._check_monitor()
        stop: list[Any] = [self.history.stopped_early]
        while not any(stop) and (self.batch or self.epoch < self.epochs):
            row = self.run_epoch()
            self._judge(row)  # every callback sees the row
            stop = [self.history.stopped_early, *[callback(row) for callback in self.callbacks]]
        if self._best is not None:
            _, self.history.best_epoch, kept = self._best
            self.net.restore(kept)
        return self.history

    def _judge(self, row: dict[str, float]) -> None:
        """Keep the best epoch's parameters, and stop early where patience ran out."""
        self.history.best_epoch = self.epoch
        if self.patience is None:
            return
        is_to_be_high = self.monitor.rpartition("/")[2] in ("accuracy", "r2")
        score = row[self.monitor] * (-1.0 if is_to_be_high else 1.0)
        if score < (math.inf if self._best is None else self._best[0]):
            self._best, self._waited = (score, self.epoch, self.net.snapshot()), 0
        else:
            self._waited += 1
            self.history.stopped_early = self._waited >= self.patience

    def _check_monitor(self) -> None:
        """Refuse a monitor that the evaluation does not know, before an epoch is spent."""
        ways = (self.net,) if self._path == "none" else (self.net, self.net.reversed)
        known = sorted({*self.evaluate(self.net), *map(nll_key, ways)})  # type: ignore[misc]
        check_choice("monitor", self.monitor, known)

    def run_epoch(self) -> dict[str, float]:
        """Train one epoch, or the rest of one in progress, and return its row of scores."""
        net, done = self.net, self.batch
        if done:
            net.backend.set_stream_state(self._order, self._order_began)
            seen = min(done * self.batch_size, self.reader.n)
            self.reader.go_to((self.epoch - 1) * self.reader.n + seen)
        else:
            self.last_good = net.snapshot()
            self._order_began = net.backend.stream_state(self._order)
            self._began = time.perf_counter()
            self.epoch += 1
            self._totals.clear()
        n = self.reader.n
        order = self._order.permutation(n) if self._shuffle else np.arange(n)
        order = order[done * self.batch_size :]
        self._lay_out(order)
        batches = self.reader.batches(order, self.batch_size)
        with closing(batches), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for index, staged in batches:
                self._step(index.shape[0], staged)
                self.batch += 1
                if self.iteration % CHECK_EVERY == 0 and net.backend.name == "cpu":
                    self._check_finite(whole=False)
                if self.after_step is not None:
                    self.after_step()
            self._check_finite(whole=True)
            net.backend.synchronize()
            seconds = time.perf_counter() - self._began
            row = {
                "epoch": float(self.epoch),
                "learning_rate": self.optimizer.learning_rate * self.factor(self.iteration - 1),
                "seconds": seconds,
                "samples_per_second": self.reader.n / seconds,
                **self._means(),
            }
            if self.evaluate is not None:
                row |= self.evaluate(net)
        self.history.epochs.append(row)
        self.batch = 0
        return row

    # -- stopping, and going on elsewhere --------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Return all that the rest of the training depends on: JSON values and arrays on the host.

        :meth:`resume` goes on from it as if nothing had happened, bit for bit for the same build,
        device and threads.
        """
        backend, history, optimizer = self.net.backend, self.history, self.optimizer
        score, best_epoch, best = self._best or (None, 0, None)
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "iteration": self.iteration,
            "seconds": time.perf_counter() - self._began if self.batch else 0.0,
            "net": _named(self.net.snapshot()),
            "last_good": _named(self.last_good) if self.batch else None,
            "optimizer": {
                "steps": optimizer.steps,
                **{slot: backend.to_numpy(vector) for slot, vector in optimizer.state.items()},
            },
            "order": self._order_began if self.batch else backend.stream_state(self._order),
            "noise": {key: backend.stream_state(each) for key, each in self._generators.items()},
            "means": self._totals.state(),
            "history": history.epochs,
            "best_epoch": history.best_epoch,
            "stopped_early": history.stopped_early,
            "best": best and {"score": score, "epoch": best_epoch, "net": _named(best)},
            "waited": self._waited,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` of a trainer with the same settings and data returned.

        The settings may name more epochs; the schedule is then that of all of them. A KeyError,
        TypeError or ValueError says that it is of other settings.
        """
        net, backend, optimizer = self.net, self.net.backend, self.optimizer
        self.epoch, self.batch, self.iteration = (
            operator.index(state[key]) for key in ("epoch", "batch", "iteration")
        )
        if not (0 <= self.epoch <= self.epochs and 0 <= self.batch <= self.steps_per_epoch):
            raise ValueError(f"batch {self.batch} of epoch {self.epoch}")
        self._began = time.perf_counter() - state["seconds"]
        net.restore(_pair(state["net"], net))
        self.last_good = _pair(state["last_good"] or state["net"], net)
        optimizer.steps = state["optimizer"]["steps"]
        for slot, vector in optimizer.state.items():
            vector[...] = backend.asarray(state["optimizer"][slot], net.dtype)
        self._order_began = state["order"]
        backend.set_stream_state(self._order, state["order"])
        for key, generator in self._generators.items():
            backend.set_stream_state(generator, state["noise"][key])
        self._totals.resume(state["means"])
        self.reader.go_to(self.epoch * self.reader.n)  # of an epoch in progress, when it goes on
        self.history.epochs = [dict(row) for row in state["history"]]
        self.history.best_epoch = state["best_epoch"]
        self.history.stopped_early = state["stopped_early"]
        best, self._waited = state["best"], state["waited"]
        self._best = None
        if best is not None:
            self._best = float(best["score"]), int(best["epoch"]), _pair(best["net"], net)

    # -- a step ----------------------------------------------------------------------------------
    def step(self, index: Array) -> None:
        """Train on the samples at ``index``: one gradient, one move, nothing allocated."""
        self._lay_out(index)
        self._step(index.shape[0])

    def _lay_out(self, order: Any) -> None:
        """Lay out the steps to come: their samples, and a row of numbers for each.

        These are what changes from step to step: the optimizer's, then each noise's σ.
        """
        rows, epoch = [], max(self.epoch, 1)
        for k in range(-(-order.shape[0] // self.batch_size)):
            iteration = self.iteration + k
            moves = self.optimizer.numbers(self.optimizer.steps + k + 1, self.factor(iteration))
            rows.append([*moves, *(each.std_at(epoch, iteration + 1) for each in self._columns)])
        if rows:
            self._steps.lay_out(order, np.array(rows))

    def _step(self, rows: int, staged: Any = None) -> None:
        """Make the next of the steps that were laid out; a captured one does nothing here."""
        self.joint(rows)
        self.iteration += 1
        self.optimizer.steps += 1
        if not self.reader.is_resident:  # samples from the host are read apart: no graph does it
            self._read(rows, staged)
        self.captured(rows)

    def _read(self, rows: int, staged: Any = None) -> None:
        """Take the step's numbers, and read its samples."""
        self._row, index = self._steps.take(rows)
        joint = self._joints[rows]
        self.reader.read(index, joint.x, joint.t, staged)
        if self._weights is not None:
            self.net.backend.take_rows(self._weights, index, joint.w)

    def _work(self, rows: int) -> None:
        """Find the gradient of the batch, and move by this step's numbers."""
        if self.reader.is_resident:
            self._read(rows)
        joint, numbers = self._joints[rows], self._row
        for source in joint.sources.values():
            column = self._columns[source.noise]
            # a kernel reads it from the device's memory
            source.std = numbers[column : column + 1] if self.on_device else numbers[column]
        joint.step(self.gradient)
        if self._l2:
            count, xp = self.net.weight_count, self.net.backend.xp
            weights = self.net.parameters[:count]
            self.gradient[:count] += xp.multiply(weights, self._l2 / rows, out=self._penalty)
        self.net.backend.optimizer_step(self.optimizer, numbers[:3])
        self.record(joint)

    def joint(self, rows: int) -> JointBackpropagation:
        """Return what computes the gradient of so many samples, with its buffers."""
        if rows not in self._joints:
            self._joints[rows] = JointBackpropagation(
                self.net,
                rows,
                path=self._path,
                weighted=self._weights is not None,
                noise=self._noise,
                generators=self._generators,
            )
        return self._joints[rows]

    def factor(self, iteration: int) -> float:
        """Return the learning rate's factor of an iteration, counted from 0."""
        total = self.epochs * self.steps_per_epoch
        return self.schedule(min(iteration / total, 1.0))

    # -- the record, on the device until the epoch ends ------------------------------------------
    def record(self, joint: JointBackpropagation) -> None:
        """Add what a step left to the means of the epoch."""
        share, totals = joint.rows / self.reader.n, self._totals
        totals.add(nll_key(self.net), joint.forward_nll, share)
        if self._path != "none":
            totals.add(nll_key(self.net.reversed), joint.backward_nll, share)
        for direction, source in joint.sources.items():
            totals.add(f"noise/{direction}/accepted", source.accepted, share)
            totals.add(f"noise/{direction}/gain", source.gain, share)

    def _means(self) -> dict[str, float]:
        """Return the means of the epoch so far, the nll untempered (synchronises)."""
        ways = self.net, self.net.reversed
        tempering = {nll_key(way): way.likelihood.tempering for way in ways}
        read = self._totals.read().items()
        return {key: value / tempering.get(key, 1.0) for key, value in read}

    def _check_finite(self, *, whole: bool) -> None:
        net, values = self.net, self._means()
        if whole:
            total = net.backend.to_numpy(net.backend.xp.sum(net.parameters))
            values["the sum of the parameters"] = float(total)
        bad = [key for key, value in values.items() if not math.isfinite(value)]
        if not bad:
            return
        net.restore(self.last_good)
        self.batch = 0
        remedies, likelihood = ["the noise"] if self._noise else [], net.reversed.likelihood
        if self._path != "none" and isinstance(likelihood, Gaussian):
            remedies.insert(0, f"the backward weight (now {likelihood.scale:g})")
        raise DivergenceError(
            f"training diverged in epoch {self.epoch}, step {self.iteration}: {bad[0]} is not "
            f"finite; the parameters of epoch {self.epoch - 1} were restored. Lower the "
            f"learning rate (now {self.optimizer.learning_rate:g})"
            + (f", {' or '.join(remedies)}" if remedies else "")
        )
