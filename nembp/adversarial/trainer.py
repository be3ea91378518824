"""Training of a generator against a discriminator.

Named streams of the seed draw everything: ``latent`` (z), ``batches``, ``penalty`` (x̂),
``permutation`` and ``noise/...``, so that runs that differ only in their noise see the same samples
and the same z.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from nembp.adversarial.checks import check_networks, check_noise
from nembp.adversarial.data import draw_latent
from nembp.adversarial.guard import LastGood
from nembp.adversarial.on_device import IterationsOnDevice
from nembp.adversarial.order import SampleOrder
from nembp.adversarial.records import AdversarialHistory
from nembp.adversarial.scheduled_noise import scheduled
from nembp.adversarial.settings import AdversarialSettings
from nembp.adversarial.turns import Numbers, Turns
from nembp.backend import Array, stream
from nembp.datasets.reading import BatchReader, Staged
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Adam, Optimizer, RMSProp, get_optimizer, learning_rate_schedule
from nembp.errors import ArchitectureError, DivergenceError

__all__ = ["AdversarialTrainer", "default_optimizer"]

Callback = Callable[[dict[str, float]], bool | None]
CHECK_EVERY = 50  # iterations between looks at the values on the CPU; a GPU is asked for its rows
SAMPLES = 1 << 10  # drawn at a time
LAID_OUT = 1 << 18  # samples, at most, whose order is drawn at once


def default_optimizer(settings: AdversarialSettings) -> Optimizer:
    """Return the optimizer of either player that the objective's paper or practice recommends."""
    if settings.kind == "wasserstein":
        return RMSProp(5e-5)  # Arjovsky, Chintala and Bottou 2017
    if settings.kind == "wasserstein-gp":
        return Adam(1e-4, beta1=0.5, beta2=0.9)  # Gulrajani and others 2017
    return Adam(1e-3, beta1=0.5)


class AdversarialTrainer:
    """Trains a generator G: z → x against a discriminator or critic D: x → score.

    An iteration makes ``settings.steps`` steps of D, each on a batch of real and as many generated
    samples, and one step of G on the samples that D saw last.

    Parameters
    ----------
    generator, discriminator : Network
        Seen from their forward directions; trained in place. D's forward likelihood is Bernoulli
        with one output, multinomial with K+1, or, for a critic,
        :class:`~nembp.adversarial.objectives.Score` with one. A backward direction that is
        trained has a likelihood of weight 1 (a Gaussian of variance 1): the settings' weights
        multiply it. Initialise the two from different seeds.
    reader : BatchReader
        The real samples; their labels too where the settings have classes.
    settings : AdversarialSettings
        Objective and directions.
    batch_size : int
        Real samples of a step, and generated ones.
    iterations : int
        Steps of G.
    optimizers : pair of str or Optimizer, optional
        Of G and of D; :func:`default_optimizer` if left out.
    schedule : str
        Learning-rate schedule of both, over all iterations.
    noise : dict of Noise, optional
        ``"discriminator/forward"`` on D's targets, ``"discriminator/backward"`` on the x that D's
        backward direction aims at, ``"generator/backward"`` on the z that G's aims at,
        ``"discriminator/input"`` on what D sees, in its own step and in G's, kept where it raises
        the player's log-likelihood, and ``"critic/input"`` on a critic's input in its own step,
        kept where it raises the critic's objective.
    seed : int
        Of the streams.
    callbacks : sequence of callable
        Called with each row; one that returns True ends the training.
    report_every : int
        Iterations a row.
    host_noise : bool
        Draw z and noise on the host whatever the device, so that devices can be compared.
    cuda_graphs : bool
        Capture whole iterations as a CUDA graph where the device has them, and replay it; the
        numbers are those of the same calls one by one. Not with noise drawn on the host, nor with
        an optimizer of your own.

    Attributes
    ----------
    iteration : int
        Iterations done.
    history : AdversarialHistory
        Rows so far.
    turns : Turns
        What an iteration is made of.
    on_device : IterationsOnDevice or None
        What makes iterations on a device that can capture them, and says how many it did.

    Raises
    ------
    ArchitectureError
        If the networks, samples, noise and settings do not fit together.
    """

    def __init__(
        self,
        generator: Network,
        discriminator: Network,
        reader: BatchReader,
        settings: AdversarialSettings | None = None,
        *,
        batch_size: int = 64,
        iterations: int = 3000,
        optimizers: tuple[str | Optimizer, str | Optimizer] | None = None,
        schedule: str = "constant",
        noise: dict[str, Noise] | None = None,
        seed: int = 0,
        callbacks: Sequence[Callback] = (),
        report_every: int = 100,
        host_noise: bool = False,
        cuda_graphs: bool = True,
    ) -> None:
        self.settings = settings = settings or AdversarialSettings()
        check_networks(generator, discriminator, reader, settings)
        counts = {"batch size": batch_size, "iterations": iterations, "report every": report_every}
        for name, value in counts.items():
            if value < 1:
                raise ArchitectureError(f"{name} must be at least 1, got {value}")
        self.generator, self.discriminator, self.reader = generator, discriminator, reader
        self.batch_size, self.iterations = min(batch_size, reader.n), iterations
        self.report_every, self.callbacks = report_every, list(callbacks)
        self.schedule = learning_rate_schedule(schedule)
        pair = optimizers or (default_optimizer(settings), default_optimizer(settings))
        self.optimizers = get_optimizer(pair[0]), get_optimizer(pair[1])
        if self.optimizers[0] is self.optimizers[1]:
            raise ArchitectureError("generator and discriminator need an optimizer each, got one")
        self.iteration = 0
        self.history = AdversarialHistory()
        self._good = LastGood({"generator": generator, "discriminator": discriminator})
        game = generator, discriminator, reader, settings, self.batch_size, self.optimizers
        courses = scheduled(check_noise(noise, settings), settings, iterations)
        draw = stream if host_noise else generator.backend.generator
        self.turns = Turns(*game, courses, seed, draw)
        self.sources = self.turns.sources
        self._order = SampleOrder(reader.n, self.batch_size, stream(seed, "batches"))
        self._batches: Generator[tuple[Array, Staged], None, None] | None = None
        # iterations whose samples and numbers are laid out at once, and what is left of them
        self._block = max(1, LAID_OUT // (self.batch_size * settings.steps))
        self._left = 0
        self.on_device: IterationsOnDevice | None = None  # else the numbers are Python's
        if all(map(generator.backend.has_kernel, self.optimizers)) and not host_noise:
            self._block = min(self._block, report_every)
            most = self._block * settings.steps
            self.on_device = IterationsOnDevice(
                self.turns, self.batch_size, most, graphs=cuda_graphs
            )

    # -- a run -----------------------------------------------------------------------------------
    def run(self) -> AdversarialHistory:
        """Train to the end, or until a callback stops it.

        Raises
        ------
        DivergenceError
            If an objective or a parameter stops being finite; both networks then have the
            parameters of the last check at which all were.
        """
        start, first = time.perf_counter(), self.iteration
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            while self.iteration < self.iterations:
                self.step()
                ends = self.iteration % self.report_every == 0 or self.iteration == self.iterations
                on_host = self.generator.backend.name == "cpu"
                if ends or (on_host and self.iteration % CHECK_EVERY == 0):
                    values = self._check_finite()
                if not ends:
                    continue
                now = time.perf_counter()
                speed = (self.iteration - first) / (now - start)
                row = {"iteration": float(self.iteration), **values, "iterations_per_second": speed}
                self.history.rows.append(row)
                self.turns.means.clear()
                stop = [callback(row) for callback in self.callbacks]  # every one sees the row
                if any(stop):
                    break
                start, first = time.perf_counter(), self.iteration
        return self.history

    def step(self) -> None:
        """Make one iteration: ``settings.steps`` steps of D and one of G."""
        batches = self._laid_out()
        left, self._left = self._left - 1, 0  # a block that is broken off here is not gone on with
        first = self.iteration * self.settings.steps
        self.iteration += 1
        if self.on_device is not None:
            self.on_device.iterate(batches)
        else:
            for turn in range(first, first + self.settings.steps):
                numbers = self.numbers(turn)
                self.turns.read(*next(batches))
                self.turns.discriminate(numbers)
            self.turns.generate(numbers)
        self.turns.count()
        self._left = left

    def numbers(self, turn: int) -> Numbers:
        """Return what is a turn's own; those of D are counted from 0, G has those of the last."""
        iteration = turn // self.settings.steps
        share = min(iteration / self.iterations, 1.0)
        clock = self._order.epoch_of(turn), iteration + 1
        return Numbers(self.schedule(share), self.settings.weight_factor(share), clock)

    def _laid_out(self) -> Generator[tuple[Array, Staged], None, None]:
        """Return the batches of the next iteration, and lay out a block where none is left."""
        if self._left == 0 or self._batches is None:
            to_row = self.report_every - self.iteration % self.report_every
            block, steps = min(to_row, self._block), self.settings.steps
            turns = range(self.iteration * steps, (self.iteration + block) * steps)
            order = self._order.take(len(turns))
            if self._batches is not None:
                self._batches.close()
            self._batches = self.reader.batches(order, self.batch_size)
            if self.on_device is not None:
                self.on_device.lay_out(order, [self.numbers(turn) for turn in turns])
            self._left = block
        return self._batches

    def _check_finite(self) -> dict[str, float]:
        """Return the means since the last row; keep the parameters if all is finite."""
        values = self.turns.means.read()
        rates = " and ".join(f"{each.learning_rate:g}" for each in self.optimizers)
        remedy = f"Lower the learning rates (now {rates})"
        if self.settings.bidirectional != "none":
            remedy += " or the weights of the backward directions"
        try:
            self._good.check(values, self.iteration, remedy)
        except DivergenceError:
            self.turns.average.clear()
            raise
        return values

    # -- what became of CUDA graphs --------------------------------------------------------------
    @property
    def captured(self) -> int:
        """Iterations that a CUDA graph made."""
        return 0 if self.on_device is None else self.on_device.captured

    @property
    def why_not_captured(self) -> str | None:
        """Why a device that has CUDA graphs makes no iteration by one; None if it does."""
        if self.on_device is not None:
            return self.on_device.reason
        if self.generator.backend.name != "gpu":
            return None
        return "z and noise are drawn on the host, or an optimizer has no kernel"

    # -- samples ---------------------------------------------------------------------------------
    @property
    def sampler(self) -> Network:
        """G as samples are drawn by it: its moving average where the settings have one.

        The next call overwrites that.
        """
        return self.turns.average.network()

    def sample(self, n: int, seed: int = 0) -> np.ndarray[Any, Any]:
        """Return G(z) for ``n`` draws of z, shape (n, features), in the scaled space.

        z comes from the stream ``"samples"`` of the seed, on the host; G's parameters are their
        moving average where the settings have one.
        """
        net = self.sampler
        z = draw_latent(n, net.inputs, seed, self.settings.latent_law)
        z = self.settings.latent_std * z
        parts = [net.predict(z[i : i + SAMPLES]) for i in range(0, n, SAMPLES)]
        return np.concatenate([net.backend.to_numpy(part) for part in parts])
