"""Training: steps, epochs, history, early stopping, callbacks.

One call trains both directions (`backward=True`) or the forward direction alone. Named streams of
the seed draw everything: ``weights`` (in :class:`~nembp.network.Network`), ``batches``,
``augmentation`` (in :class:`~nembp.batches.BatchReader`), and ``noise/forward`` and
``noise/backward``, so that runs that differ only in their noise see the same weights and images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from nembp.backend import Array, stream
from nembp.backpropagation import JointBackpropagation, Path
from nembp.batches import BatchReader, Staged
from nembp.errors import ArchitectureError, DivergenceError
from nembp.history import EpochMeans, History
from nembp.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.network import Network
from nembp.noise import Noise
from nembp.optimizers import Optimizer, get_optimizer, learning_rate_schedule
from nembp.replay import StepsOnDevice
from nembp.training_checks import check_counts, check_fit, check_mean, noise_that_acts

__all__ = ["Callback", "History", "Trainer", "set_input_bias"]

Callback = Callable[[dict[str, float]], bool | None]
CHECK_EVERY = 50  # steps between looks at the nll on the CPU; a GPU is asked once an epoch


def set_input_bias(net: Network, mean: np.ndarray[Any, Any]) -> None:
    """Start the backward direction at the training mean: d⁰ = link⁻¹(mean).

    Then its first errors are those of the classes about the mean, not of the mean itself, which
    would otherwise drown the forward direction's in the first epochs.

    Raises
    ------
    ShapeError
        If ``mean`` is not of shape (inputs,).
    """
    check_mean(net, mean)
    likelihood = net.reversed.likelihood
    if isinstance(likelihood, Bernoulli):
        p = np.clip(mean, 1e-3, 1 - 1e-3)
        start = np.log(p / (1 - p))
    elif isinstance(likelihood, Multinomial):
        start = np.log(np.clip(mean, 1e-6, None))
    else:
        start = mean
    bias = net.reversed.biases[-1]
    if bias is not None and bias.shape[0] == net.inputs:
        bias[...] = net.backend.asarray(start, net.dtype)


class Trainer:
    """Trains a network on the batches of a reader.

    Parameters
    ----------
    net : Network
        Seen from its forward direction; trained in place.
    reader : BatchReader
        The training samples.
    epochs, batch_size : int
        Length of the training; the last batch of an epoch may be smaller.
    optimizer : str or Optimizer
        With its learning rate and weight decay.
    schedule : str
        Learning-rate schedule: ``cosine``, ``constant`` or ``step``, over all steps.
    backward : bool
        Train the backward direction too.
    noise : dict of Noise
        For ``"forward"`` and ``"backward"``, the noise on that direction's target; for
        ``"forward/hidden"`` and so on, on its signals (:data:`nembp.signal_noise.PLACES`). Noise
        on backward signals takes a row for each sample, not one for each class.
    seed : int
        Of the streams ``batches`` and ``noise/*``.
    evaluate : callable, optional
        Scores the network after each epoch; the scores join the history's row.
    monitor, patience : str, int, optional
        Stop when ``monitor`` (an nll or error, to be low) has not improved for ``patience``
        epochs, and restore the best parameters.
    callbacks : sequence of callable
        Called with each epoch's row; one that returns True ends the training.
    host_noise : bool
        Draw noise on the host whatever the device, so that devices can be compared.
    cuda_graphs : bool
        Capture the step as a CUDA graph where the device has them, and replay it; the numbers are
        those of the same calls one by one. Not with noise drawn on the host, nor with an optimizer
        of your own.
    prefetch : bool, optional
        Gather and augment each batch on a second thread during the step before, with the same
        result; by default where that pays (:meth:`BatchReader.prefetch_pays`).

    Raises
    ------
    ArchitectureError, ShapeError
        If an option is out of bounds or names nothing, or the reader does not fit the network.

    Examples
    --------
    >>> from nembp.datasets import load
    >>> from nembp.network import dense_network
    >>> digits = load("digits")
    >>> net = dense_network([64, 32, 10], backward="gaussian")
    >>> reader = BatchReader(digits.train, digits.x_scaling, digits.y_scaling, 10, net.backend,
    ...                      net.dtype)
    >>> history = Trainer(net, reader, epochs=2, batch_size=32).run()
    >>> history["train/forward/nll"][1] < history["train/forward/nll"][0]
    True
    """

    def __init__(
        self,
        net: Network,
        reader: BatchReader,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        optimizer: str | Optimizer = "adam",
        schedule: str = "cosine",
        backward: bool = True,
        noise: dict[str, Noise] | None = None,
        seed: int = 0,
        evaluate: Callable[[Network], dict[str, float]] | None = None,
        monitor: str = "forward/nll",
        patience: int | None = None,
        callbacks: Sequence[Callback] = (),
        host_noise: bool = False,
        prefetch: bool | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        check_counts(epochs=epochs, batch_size=batch_size)
        check_fit(net, reader)
        if patience is not None and evaluate is None:
            raise ArchitectureError("early stopping needs an evaluation to monitor")
        self.net, self.reader = net, reader
        self.epochs, self.batch_size = epochs, min(batch_size, reader.n)
        self.optimizer = get_optimizer(optimizer)
        self.schedule = learning_rate_schedule(schedule)
        self.evaluate, self.monitor, self.patience = evaluate, monitor, patience
        self.callbacks, self.prefetch = list(callbacks), prefetch
        self.history = History()
        self.gradient = self.optimizer.bind(net)
        self.iteration = 0
        self.epoch = 0
        self.learning_rate = self.optimizer.learning_rate  # of the last step
        self._order = stream(seed, "batches")
        draw = stream if host_noise else net.backend.generator
        self._noise = noise_that_acts(noise)
        self._generators = {key: draw(seed, f"noise/{key}") for key in self._noise}
        self._path: Path = "none"
        if backward:
            by_class = reader.is_classification and net.reversed.likelihood.class_sums
            single = any(key.startswith("backward/") for key in self._noise)
            self._path = "classes" if by_class and not single else "samples"
        self._steps: dict[int, JointBackpropagation] = {}
        self._means = EpochMeans(net)
        self.on_device: StepsOnDevice | None = None  # else the numbers of a step are Python's
        if net.backend.has_graphs and self.optimizer.takes_numbers and not host_noise:
            self.on_device = StepsOnDevice(self, self._noise, graphs=cuda_graphs)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return math.ceil(self.reader.n / self.batch_size)

    # -- a run -----------------------------------------------------------------------------------
    def run(self) -> History:
        """Train to the end, or until a callback or patience stops it.

        Raises
        ------
        DivergenceError
            If a log-likelihood or parameter stops being finite; the parameters are then those of
            the last good epoch.
        """
        best, waited = math.inf, 0
        best_net = None
        while self.epoch < self.epochs:
            row = self.run_epoch()
            stop = [callback(row) for callback in self.callbacks]  # every callback sees the row
            self.history.best_epoch = self.epoch
            if self.patience is not None:
                if row[self.monitor] < best:
                    best, waited = row[self.monitor], 0
                    best_net = self.net.snapshot()
                    best_epoch = self.epoch
                else:
                    waited += 1
                    self.history.stopped_early = waited >= self.patience
            if any(stop) or self.history.stopped_early:
                break
        if best_net is not None:
            self.net.restore(best_net)
            self.history.best_epoch = best_epoch
        return self.history

    def run_epoch(self) -> dict[str, float]:
        """Train one epoch and return its row of scores."""
        net, start = self.net, time.perf_counter()
        last_good = net.snapshot()
        self.epoch += 1
        self._means.clear()
        order = self._order.permutation(self.reader.n)
        step = self.step
        if self.on_device is not None:
            self.on_device.begin_epoch(order)
            step = self.on_device.step
        batches = self.reader.batches(order, self.batch_size, prefetch=self.prefetch)
        with closing(batches), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for index, staged in batches:
                step(index, staged)
                if self.iteration % CHECK_EVERY == 0 and net.backend.name == "cpu":
                    self._check_finite(last_good, whole=False)
            self._check_finite(last_good, whole=True)
            net.backend.synchronize()
            seconds = time.perf_counter() - start
            row = {
                "epoch": float(self.epoch),
                "learning_rate": self.learning_rate,
                "seconds": seconds,
                "samples_per_second": self.reader.n / seconds,
                **self._means.read(),
            }
            if self.evaluate is not None:
                row |= self.evaluate(net)
        self.history.epochs.append(row)
        return row

    def step(self, index: Array, staged: Staged = None) -> None:
        """Train on the samples at ``index``: one gradient, one move, nothing allocated.

        ``staged`` is what :meth:`BatchReader.batches` gives with the index.
        """
        joint = self.joint(index.shape[0])
        factor = self.factor(self.iteration)
        self.iteration += 1
        self.reader.read(index, joint.x, joint.t, staged)
        joint(self.gradient, self.epoch, self.iteration)
        self.optimizer.step(factor)
        self.learning_rate = factor * self.optimizer.learning_rate
        self.record(joint)

    def joint(self, rows: int) -> JointBackpropagation:
        """Return what computes the gradient of so many samples, with its buffers."""
        if rows not in self._steps:
            self._steps[rows] = JointBackpropagation(
                self.net, rows, path=self._path, noise=self._noise, generators=self._generators
            )
        return self._steps[rows]

    def factor(self, iteration: int) -> float:
        """Return the learning rate's factor of an iteration, counted from 0."""
        total = self.epochs * self.steps_per_epoch
        return self.schedule(min(iteration / total, 1.0))

    # -- the record, on the device until the epoch ends -----------------------
    def record(self, joint: JointBackpropagation) -> None:
        """Add what a step left to the means of the epoch."""
        share = joint.rows / self.reader.n
        self._means.add("train/forward/nll", joint.forward_nll, share)
        if self._path != "none":
            self._means.add("train/backward/nll", joint.backward_nll, share)
        for direction, source in joint.sources.items():
            self._means.add(f"noise/{direction}/accepted", source.accepted, share)
            self._means.add(f"noise/{direction}/gain", source.gain, share)

    def _check_finite(self, last_good: Any, *, whole: bool) -> None:
        net = self.net
        values = self._means.read()
        if whole:
            values["the sum of the parameters"] = float(
                net.backend.to_numpy(net.backend.xp.sum(net.parameters))
            )
        bad = [key for key, value in values.items() if not math.isfinite(value)]
        if bad:
            net.restore(last_good)
            raise DivergenceError(
                f"training diverged in epoch {self.epoch}, step {self.iteration}: {bad[0]} is not "
                f"finite; the parameters of epoch {self.epoch - 1} were restored. Lower the "
                f"learning rate (now {self.optimizer.learning_rate:g})" + self._remedies()
            )

    def _remedies(self) -> str:
        remedies = []
        if self._path != "none" and isinstance(self.net.reversed.likelihood, Gaussian):
            weight = self.net.reversed.likelihood.scale
            remedies.append(f"the backward weight (now {weight:g})")
        if self._noise:
            remedies.append("the noise")
        return f", {' or '.join(remedies)}" if remedies else ""
