"""Training of a generator against a discriminator.

Named streams of the seed draw everything: ``latent`` (z), ``batches``, ``penalty`` (x̂),
``permutation`` and ``noise/...``, so that runs that differ only in their noise see the same samples
and the same z.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nembp.adversarial.averaging import ParameterAverage
from nembp.adversarial.checks import check_networks, check_noise
from nembp.adversarial.guard import LastGood
from nembp.adversarial.latent import draw_latent, fill_latent
from nembp.adversarial.players import DiscriminatorPlayer, GeneratorPlayer
from nembp.adversarial.records import AdversarialHistory, Means
from nembp.adversarial.scheduled_noise import scheduled
from nembp.adversarial.settings import AdversarialSettings
from nembp.backend import Array, stream
from nembp.batches import BatchReader, Staged
from nembp.errors import ArchitectureError, DivergenceError
from nembp.network import Network
from nembp.noise import Noise
from nembp.optimizers import Adam, Optimizer, RMSProp, get_optimizer, learning_rate_schedule

__all__ = ["AdversarialTrainer", "default_optimizer"]

Callback = Callable[[dict[str, float]], bool | None]
CHECK_EVERY = 50  # iterations between looks at the values on the CPU; a GPU is asked for its rows
SAMPLES = 1 << 10  # drawn at a time


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

    Attributes
    ----------
    iteration : int
        Iterations done.
    history : AdversarialHistory
        Rows so far.

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
        self.optimizers = tuple(get_optimizer(each) for each in pair)
        if self.optimizers[0] is self.optimizers[1]:
            raise ArchitectureError("generator and discriminator need an optimizer each, got one")
        self._gradients = [
            optimizer.bind(net)
            for optimizer, net in zip(self.optimizers, (generator, discriminator), strict=True)
        ]
        self.iteration = self.epoch = 0
        self.history = AdversarialHistory()

        self._draw = stream if host_noise else generator.backend.generator
        self._latent = self._draw(seed, "latent")
        self._players(seed, check_noise(noise, settings))
        self._batches = self._endless(stream(seed, "batches"))
        self._average = ParameterAverage(generator, settings.averaging)
        self._means = Means(generator.backend, generator.dtype)
        self._good = LastGood({"generator": generator, "discriminator": discriminator})

    def _players(self, seed: int, noise: dict[str, Noise]) -> None:
        generator, discriminator, settings = self.generator, self.discriminator, self.settings
        streams = {key: self._draw(seed, f"noise/{key}") for key in noise}
        streams["penalty"] = self._draw(seed, "penalty")
        streams["discriminator/input of G"] = self._draw(seed, "noise/discriminator/input of G")
        noise = {key: scheduled(each, settings, self.iterations) for key, each in noise.items()}
        permutation = None
        if settings.backward_permuted and settings.discriminator_backward:
            permutation = stream(seed, "permutation").permutation(discriminator.inputs)
        self._d = DiscriminatorPlayer(
            discriminator, self.batch_size, settings, noise, streams, permutation
        )
        self._g = GeneratorPlayer(
            generator,
            discriminator,
            self.batch_size,
            settings,
            noise,
            streams,
        )
        self.sources = self._d.sources | self._g.sources
        self._clipped: Array = None
        if settings.kind == "wasserstein":
            self._clipped = discriminator.parameters[: forward_count(discriminator)]

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
                self._means.clear()
                stop = [callback(row) for callback in self.callbacks]  # every one sees the row
                if any(stop):
                    break
                start, first = time.perf_counter(), self.iteration
        return self.history

    def step(self) -> None:
        """Make one iteration: ``settings.steps`` steps of D and one of G."""
        share = self.iteration / self.iterations
        factor = self.schedule(min(share, 1.0))
        course = self.settings.weight_factor(min(share, 1.0))
        self.iteration += 1
        for _ in range(self.settings.steps):
            self._step_discriminator(factor, course * self.settings.discriminator_weight)
        clock = self.epoch, self.iteration
        self._g(self._gradients[0], course * self.settings.generator_weight, clock)
        self.optimizers[0].step(factor)
        self._average.add()
        self._record()

    def _step_discriminator(self, factor: float, weight: float) -> None:
        backend, g, d = self.generator.backend, self._g, self._d
        fill_latent(backend, self._latent, self.settings.latent_law, g.z)
        if self.settings.latent_std != 1.0:
            backend.into(g.z, backend.xp.multiply, g.z, self.settings.latent_std)
        backend.into(d.generated, backend.xp.multiply, g.run(), 1.0)
        index, staged = next(self._batches)
        if d.labels is None:
            self.reader.read_x(index, d.real, staged)
        else:
            self.reader.read(index, d.real, d.labels, staged)
        d(self._gradients[1], weight, (self.epoch, self.iteration))
        self.optimizers[1].step(factor)
        if self._clipped is not None:
            bound = self.settings.clip
            backend.into(self._clipped, backend.xp.minimum, self._clipped, bound)
            backend.into(self._clipped, backend.xp.maximum, self._clipped, -bound)

    def _endless(self, order: np.random.Generator) -> Iterator[tuple[Array, Staged]]:
        """Go through the samples again and again, in batches of one size; a rest is left out."""
        whole = self.reader.n - self.reader.n % self.batch_size
        while True:
            self.epoch += 1
            chosen = order.permutation(self.reader.n)[:whole]
            yield from self.reader.batches(chosen, self.batch_size)

    # -- the record, on the device until a row is read -------------------------------------------
    def _record(self) -> None:
        settings, means, d, g = self.settings, self._means, self._d, self._g
        of_d = ("critic/objective", -1.0) if settings.has_critic else ("discriminator/nll", 1.0)
        means.add(of_d[0], d.forward_nll, of_d[1])
        if d.penalty is not None:
            means.add("critic/penalty", d.penalty.value)
        means.add("generator/nll", g.forward_nll, -1.0 if settings.kind == "minimax" else 1.0)
        if settings.discriminator_backward:
            means.add("discriminator/backward_nll", d.backward_nll)
        if settings.generator_backward:
            means.add("generator/backward_nll", g.backward_nll)
        for key, source in self.sources.items():
            means.add(f"noise/{key}/accepted", source.accepted)
            means.add(f"noise/{key}/gain", source.gain)

    def _check_finite(self) -> dict[str, float]:
        """Return the means since the last row; keep the parameters if all is finite."""
        values = self._means.read()
        rates = " and ".join(f"{each.learning_rate:g}" for each in self.optimizers)
        remedy = f"Lower the learning rates (now {rates})"
        if self.settings.bidirectional != "none":
            remedy += " or the weights of the backward directions"
        try:
            self._good.check(values, self.iteration, remedy)
        except DivergenceError:
            self._average.clear()
            raise
        return values

    # -- samples ---------------------------------------------------------------------------------
    @property
    def sampler(self) -> Network:
        """G as samples are drawn by it: its moving average where the settings have one.

        The next call overwrites that.
        """
        return self._average.network()

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


def forward_count(net: Network) -> int:
    """Return the length of the part of the flat vector that the forward direction starts with.

    Weights and forward biases, which a critic's bound is for.
    """
    return net.weight_count + sum(layer.biases for layer in net.layers[1:])
