"""Training of a generator against a discriminator.

Named streams of the seed draw everything: ``latent`` (z), ``batches``, ``penalty`` (x̂),
``permutation`` and ``noise/...``, so that runs that differ only in their noise see the same samples
and the same z.

What changes from step to step (learning rates, bias corrections, the schedule of the backward
weights, standard deviations of the noise) is a row of numbers for each step of D; G takes those of
D's last step. A block of rows and samples is laid out at once: on a GPU in its memory, so that an
iteration can be captured as a CUDA graph and launched again. Called and captured iterations are the
same function.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.adversarial.data import draw_latent, fill_latent
from nembp.adversarial.gradients import DiscriminatorGradient, GeneratorGradient
from nembp.adversarial.settings import AdversarialSettings, schedule_factor
from nembp.backend import Array, stream
from nembp.backend.standard import Steps
from nembp.datasets.reading import BatchReader, Staged
from nembp.engine.likelihoods import Bernoulli, Likelihood, Multinomial, Score
from nembp.engine.network import Network
from nembp.engine.noise import Noise, NoiseSource
from nembp.engine.optimizers import Adam, Optimizer, RMSProp, get_optimizer, learning_rate_schedule
from nembp.engine.training import Totals
from nembp.errors import ArchitectureError, DivergenceError

Callback = Callable[[dict[str, float]], bool | None]
CHECK_EVERY = 50  # iterations between looks at the values on the CPU; a GPU is asked for its rows
SAMPLES = 1 << 10  # drawn at a time
LAID_OUT = 1 << 18  # samples, at most, whose order is drawn at once
# columns of the numbers of a step
OF_D, OF_G, WEIGHT, NOISE = slice(0, 3), slice(3, 6), slice(6, 7), 7


def default_optimizer(settings: AdversarialSettings) -> Optimizer:
    """Return the optimizer of either network that the objective's paper or practice recommends."""
    if settings.kind == "wasserstein":
        return RMSProp(5e-5)  # Arjovsky, Chintala and Bottou 2017
    if settings.kind == "wasserstein-gp":
        return Adam(1e-4, beta1=0.5, beta2=0.9)  # Gulrajani and others 2017
    return Adam(1e-3, beta1=0.5)


@dataclass
class AdversarialHistory:
    """What happened, a dict of means over the iterations since the row before.

    Attributes
    ----------
    rows : list of dict
        Keys: ``iteration``; ``discriminator/nll``, −(mean log D(x) + mean log(1 − D(G(z)))) in
        nats, or ``critic/objective``, mean f(x) − mean f(G(z)); ``generator/nll``, what G descends:
        −mean log D(G(z)), mean log(1 − D(G(z))) for minimax, −mean f(G(z)); the nll of the backward
        directions that are trained, ``discriminator/backward_nll`` and ``generator/backward_nll``,
        before their weights; ``critic/penalty``, mean (‖∇ₓ f(x̂)‖ − 1)²; with noise,
        ``noise/discriminator/forward/accepted``, ``noise/discriminator/forward/gain`` (nats per
        sample) and so on; ``iterations_per_second``.
    """

    rows: list[dict[str, float]] = field(default_factory=list)

    def __getitem__(self, key: str) -> list[float]:
        """Return one value over the rows."""
        return [row[key] for row in self.rows]


class AdversarialTrainer:
    """Trains a generator G: z → x against a discriminator or critic D: x → score.

    An iteration makes ``settings.steps`` steps of D, each on a batch of real and as many generated
    samples, and one step of G on the samples that D saw last.

    Parameters
    ----------
    generator, discriminator : Network
        Seen from their forward directions; trained in place. D's forward likelihood is Bernoulli
        with one output, multinomial with K+1, or, for a critic,
        :class:`~nembp.engine.likelihoods.Score` with one. A backward direction that is
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
        the network's log-likelihood, and ``"critic/input"`` on a critic's input in its own step,
        kept where it raises the critic's objective.
    seed : int
        Of the streams.
    callbacks : sequence of callable
        Called with each row; one that returns True ends the training.
    report_every : int
        Iterations per row.
    after_step : callable, optional
        Called after each iteration that no row follows; :meth:`state` is whole then, as it is for
        ``callbacks``. What it raises ends the training there.
    host_noise : bool
        Draw z and noise on the host whatever the device, so that devices can be compared.
    cuda_graphs : bool
        Capture whole iterations as a CUDA graph where the device has them; the numbers are those
        of the same calls one by one. Not with noise drawn on the host, nor with an optimizer of
        your own.

    Attributes
    ----------
    iteration : int
        Iterations done.
    history : AdversarialHistory
        Rows so far.
    of_g, of_d : GeneratorGradient, DiscriminatorGradient
        With the samples of the last step.
    sources : dict of NoiseSource
        The noise that is on record, by its place.
    on_device : bool
        Whether the numbers of a step lie on the device.

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
        after_step: Callable[[], None] | None = None,
        host_noise: bool = False,
        cuda_graphs: bool = True,
    ) -> None:
        self.settings = settings = settings or AdversarialSettings()
        _check_networks(generator, discriminator, reader, settings)
        counts = {"batch size": batch_size, "iterations": iterations, "report every": report_every}
        for name, value in counts.items():
            if value < 1:
                raise ArchitectureError(f"{name} must be at least 1, got {value}")
        self.generator, self.discriminator, self.reader = generator, discriminator, reader
        self.batch_size, self.iterations = min(batch_size, reader.n), iterations
        self.report_every, self.callbacks = report_every, list(callbacks)
        self.after_step, self._seed = after_step, seed
        self._began: float | None = None  # when the row in progress did
        self._since = 0  # iterations that are in it
        self.schedule = learning_rate_schedule(schedule)
        pair = optimizers or (default_optimizer(settings), default_optimizer(settings))
        self.optimizers = get_optimizer(pair[0]), get_optimizer(pair[1])
        if self.optimizers[0] is self.optimizers[1]:
            raise ArchitectureError("generator and discriminator need an optimizer each, got one")
        self.iteration = 0
        self.history = AdversarialHistory()
        self._networks = {"generator": generator, "discriminator": discriminator}
        self._keep()
        backend = generator.backend
        draw = stream if host_noise else backend.generator
        self._gradients = [
            optimizer.bind(net)
            for optimizer, net in zip(self.optimizers, (generator, discriminator), strict=True)
        ]
        self._latent = draw(seed, "latent")
        self._streams = {"latent": self._latent}
        self._set_gradients(check_noise(noise, settings), seed, draw)
        self.sources: dict[str, NoiseSource] = self.of_d.sources | self.of_g.sources
        self._noisy = [*self.sources.values(), *self.of_g.through.sources.values()]
        self.average = ParameterAverage(generator, settings.averaging)
        self.totals = Totals(backend, generator.dtype)  # of the row in progress
        self._clipped: Array = None
        if settings.kind == "wasserstein":  # weights and forward biases, which come first
            biases = sum(layer.biases for layer in discriminator.layers[1:])
            self._clipped = discriminator.parameters[: discriminator.weight_count + biases]
        self._order = SampleOrder(reader.n, self.batch_size, stream(seed, "batches"))
        self._batches: Generator[tuple[Array, Staged], None, None] | None = None
        # iterations whose samples and numbers are laid out at once, and what is left of them
        block = max(1, LAID_OUT // (self.batch_size * settings.steps))
        self._block, self._left = min(block, report_every), 0
        self.on_device = all(map(backend.has_kernel, self.optimizers)) and not host_noise
        self._steps = Steps(backend, self.batch_size)
        self._numbers: Any = None  # of the step in progress
        self._graphs = self.on_device and cuda_graphs
        work = self._iterate, self._step_discriminator, self._step_generator
        if self.on_device:
            most = self._block * settings.steps * self.batch_size
            self._steps = backend.steps(most, self.batch_size, NOISE + len(self._noisy))
        self._captured = [backend.capture(each) if self._graphs else each for each in work]

    def _set_gradients(self, noise: dict[str, Noise], seed: int, draw: Callable[..., Any]) -> None:
        settings, d = self.settings, self.discriminator
        streams = self._streams
        streams |= {key: draw(seed, f"noise/{key}") for key in noise}
        streams["penalty"] = draw(seed, "penalty")
        streams["discriminator/input of G"] = draw(seed, "noise/discriminator/input of G")
        permutation = None
        if settings.backward_permuted and settings.discriminator_backward:
            permutation = stream(seed, "permutation").permutation(d.inputs)
        rows = self.batch_size
        self.of_d = DiscriminatorGradient(d, rows, settings, noise, streams, permutation)
        self.of_g = GeneratorGradient(self.generator, d, rows, settings, noise, streams)

    # -- a run -----------------------------------------------------------------------------------
    def run(self) -> AdversarialHistory:
        """Train to the end, or until a callback stops it.

        Raises
        ------
        DivergenceError
            If an objective or a parameter stops being finite; both networks then have the
            parameters of the last check at which all were.
        """
        if self._began is None:
            self._began = time.perf_counter()
        on_host = self.generator.backend.name == "cpu"
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            while self.iteration < self.iterations:
                self.step()
                ends = self.iteration % self.report_every == 0 or self.iteration == self.iterations
                if ends or (on_host and self.iteration % CHECK_EVERY == 0):
                    values = self._check_finite()
                if not ends:
                    if self.after_step is not None:
                        self.after_step()
                    continue
                speed = self._since / (time.perf_counter() - self._began)
                row = {"iteration": float(self.iteration), **values, "iterations_per_second": speed}
                self.history.rows.append(row)
                self.totals.clear()
                self._since, self._began = 0, time.perf_counter()
                stop = [callback(row) for callback in self.callbacks]  # every one sees the row
                if any(stop):
                    break
                self._began = time.perf_counter()
        self._began = None
        return self.history

    # -- stopping, and going on elsewhere --------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Return all that the rest of the training depends on, between two iterations.

        As :meth:`nembp.engine.training.Trainer.state`; of both networks, so that they are of one
        moment.
        """
        backend = self.generator.backend
        now = time.perf_counter()
        return {
            "iteration": self.iteration,
            "networks": [list(net.snapshot()) for net in self._networks.values()],
            "optimizers": [
                {slot: backend.to_numpy(vector) for slot, vector in each.state.items()}
                for each in self.optimizers
            ],
            "streams": {key: backend.stream_state(each) for key, each in self._streams.items()},
            "average": self.average.state(),
            "good": [self._good[0], [list(kept) for kept in self._good[1]]],
            "totals": self.totals.state(),
            "row": [now - (self._began or now), self._since],
            "history": self.history.rows,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` of a trainer with the same settings and data returned.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is of other settings.
        """
        backend, dtype, steps = self.generator.backend, self.generator.dtype, self.settings.steps
        self.iteration = operator.index(state["iteration"])
        if not 0 <= self.iteration <= self.iterations:
            raise ValueError(f"iteration {self.iteration} of {self.iterations}")
        for net, kept in zip(self._networks.values(), state["networks"], strict=True):
            net.restore(kept)
        for optimizer, slots in zip(self.optimizers, state["optimizers"], strict=True):
            for slot, vector in optimizer.state.items():
                vector[...] = backend.asarray(slots[slot], dtype)
        self.optimizers[0].steps = self.iteration
        self.optimizers[1].steps = self.iteration * steps
        for key, generator in self._streams.items():
            backend.set_stream_state(generator, state["streams"][key])
        self.average.resume(state["average"])
        self._good = state["good"][0], state["good"][1]
        self.totals.resume(state["totals"])
        self._began, self._since = time.perf_counter() - state["row"][0], state["row"][1]
        self.history.rows = [dict(row) for row in state["history"]]
        # samples are laid out ahead, and their order is drawn again
        self._order = SampleOrder(self.reader.n, self.batch_size, stream(self._seed, "batches"))
        self._order.skip(self.iteration * steps)
        self._left = 0

    def step(self) -> None:
        """Make one iteration: ``settings.steps`` steps of D and one of G."""
        batches, steps = self._laid_out(), self.settings.steps
        left, self._left = self._left - 1, 0  # a block that is broken off here is not gone on with
        self.iteration += 1
        iterate, step_discriminator, step_generator = self._captured
        if self.reader.is_resident:
            iterate()
        else:  # samples come from the host, which no graph can read
            for _ in range(steps):
                self._read(next(batches)[1])
                step_discriminator()
            step_generator()
        # a captured step does nothing on the host, so all counting is here
        self.optimizers[0].steps, self.optimizers[1].steps = self.iteration, self.iteration * steps
        self.average.steps += 1
        self._since += 1
        self._left = left

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
            self._steps.lay_out(order, np.array([self.numbers(turn) for turn in turns]))
            self._left = block
        return self._batches

    def numbers(self, turn: int) -> list[float]:
        """Return the numbers of a step of D, counted from 0, and of the step of G after it."""
        settings, iteration = self.settings, turn // self.settings.steps
        share = iteration / self.iterations
        factor = self.schedule(min(share, 1.0))
        clock = self._order.epoch_of(turn), iteration + 1
        name, until = settings.noise_schedule, settings.noise_until
        stds = [
            noise.std_at(*clock)
            if name == "power"
            else noise.std * schedule_factor(name, share, until)
            for noise in (source.noise for source in self._noisy)
        ]
        return [
            *self.optimizers[1].numbers(turn + 1, factor),
            *self.optimizers[0].numbers(iteration + 1, factor),
            settings.weight_factor(min(share, 1.0)),
            *stds,
        ]

    # -- an iteration ----------------------------------------------------------------------------
    def _iterate(self) -> None:
        for _ in range(self.settings.steps):
            self._read()
            self._step_discriminator()
        self._step_generator()

    def _read(self, staged: Staged = None) -> None:
        """Begin a step of D: take its numbers, and read its real samples."""
        self._numbers, index = self._steps.take(self.batch_size)
        for k, source in enumerate(self._noisy, start=NOISE):
            source.std = self._numbers[k : k + 1] if self.on_device else self._numbers[k]
        if self.of_d.labels is None:
            self.reader.read_x(index, self.of_d.real, staged)
        else:
            self.reader.read(index, self.of_d.real, self.of_d.labels, staged)

    def _step_discriminator(self) -> None:
        """Draw z, and move D on the samples that were read and on G(z)."""
        backend, settings, z = self.generator.backend, self.settings, self.of_g.z
        fill_latent(backend, self._latent, settings.latent_law, z)
        if settings.latent_std != 1.0:
            z *= settings.latent_std
        self.of_d.generated[...] = self.of_g.run()
        self.of_d(self._gradients[1], *self._weight(settings.discriminator_weight))
        backend.optimizer_step(self.optimizers[1], self._numbers[OF_D])
        if self._clipped is not None:
            backend.xp.minimum(self._clipped, settings.clip, out=self._clipped)
            backend.xp.maximum(self._clipped, -settings.clip, out=self._clipped)

    def _step_generator(self) -> None:
        """Move G on the samples that D saw last, and keep the record."""
        self.of_g(self._gradients[0], *self._weight(self.settings.generator_weight))
        self.generator.backend.optimizer_step(self.optimizers[0], self._numbers[OF_G])
        self.average.add()
        self._record()

    def _weight(self, weight: float) -> tuple[float, Array]:
        """Return the weight of a backward direction now, and its factor on the device."""
        if self.settings.weight_schedule == "constant":
            return weight, None
        factor = self._numbers[WEIGHT]
        return (weight, factor) if self.on_device else (factor[0] * weight, None)

    def _record(self) -> None:
        settings, totals, d, g = self.settings, self.totals, self.of_d, self.of_g
        if settings.has_critic:
            totals.add("critic/objective", d.forward_nll)
        else:
            totals.add("discriminator/nll", d.forward_nll)
        if d.penalty is not None:
            totals.add("critic/penalty", d.penalty.value)
        totals.add("generator/nll", g.forward_nll)
        if settings.discriminator_backward:
            totals.add("discriminator/backward_nll", d.backward_nll)
        if settings.generator_backward:
            totals.add("generator/backward_nll", g.backward_nll)
        for key, source in self.sources.items():
            totals.add(f"noise/{key}/accepted", source.accepted)
            totals.add(f"noise/{key}/gain", source.gain)

    def _means(self) -> dict[str, float]:
        """Return the means since the last row (synchronises)."""
        turned = "critic/objective", "generator/nll" if self.settings.kind == "minimax" else ""
        read = self.totals.read().items() if self._since else ()
        return {key: (-1.0 if key in turned else 1.0) * total / self._since for key, total in read}

    def _keep(self) -> None:
        self._good = self.iteration, [net.snapshot() for net in self._networks.values()]

    def _check_finite(self) -> dict[str, float]:
        """Return the means since the last row; keep the parameters if all is finite."""
        values = self._means()
        seen = dict(values)
        for name, net in self._networks.items():
            total = net.backend.to_numpy(net.backend.xp.sum(net.parameters))
            seen[f"the sum of the {name}'s parameters"] = float(total)
        bad = [key for key, value in seen.items() if not math.isfinite(value)]
        if not bad:
            self._keep()
            return values
        iteration, kept = self._good
        for net, snapshot in zip(self._networks.values(), kept, strict=True):
            net.restore(snapshot)
        self.average.clear()
        rates = " and ".join(f"{each.learning_rate:g}" for each in self.optimizers)
        remedy = f"Lower the learning rates (now {rates})"
        if self.settings.bidirectional != "none":
            remedy += " or the weights of the backward directions"
        raise DivergenceError(
            f"training diverged by iteration {self.iteration}: {bad[0]} is not finite; the "
            f"parameters of iteration {iteration} were restored. {remedy}"
        )

    # -- what became of CUDA graphs --------------------------------------------------------------
    @property
    def captured(self) -> int:
        """Iterations that CUDA graphs made."""
        iterate, _, step_generator = self._captured
        each: Any = iterate if self.reader.is_resident else step_generator
        return each.launches if self._graphs else 0

    @property
    def why_not_captured(self) -> str | None:
        """Why a device that has CUDA graphs makes no iteration by one; None if it does."""
        if self.on_device:
            reasons = [getattr(each, "reason", None) for each in self._captured]
            return next(filter(None, reasons), None) if self._graphs else "switched off"
        if self.generator.backend.name != "gpu":
            return None
        return "z and noise are drawn on the host, or an optimizer has no kernel"

    # -- samples ---------------------------------------------------------------------------------
    @property
    def sampler(self) -> Network:
        """G as samples are drawn by it: its moving average where the settings have one.

        The next call overwrites that.
        """
        return self.average.network()

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


# -- parts -----------------------------------------------------------------------------------------
class SampleOrder:
    """All samples in random order, again and again, in batches of one size; a rest is left out.

    >>> order = SampleOrder(5, 2, np.random.default_rng(0))
    >>> len(order.take(3)), [order.epoch_of(batch) for batch in range(5)]
    (6, [1, 1, 2, 2, 3])
    """

    def __init__(self, n: int, batch_size: int, generator: np.random.Generator) -> None:
        self._n, self._size, self._generator = n, batch_size, generator
        self._left: NDArray[Any] = np.empty(0, np.intp)  # of the epoch in progress

    def take(self, batches: int) -> NDArray[Any]:
        """Return the samples of so many batches to come, one batch after the other."""
        parts, missing = [np.empty(0, np.intp)], batches * self._size
        while missing:
            if not len(self._left):
                whole = self._n - self._n % self._size
                self._left = self._generator.permutation(self._n)[:whole]
            part, self._left = self._left[:missing], self._left[missing:]
            parts.append(part)
            missing -= len(part)
        return np.concatenate(parts)

    def skip(self, batches: int) -> None:
        """Leave out so many batches from the start."""
        whole, left = divmod(batches, self._n // self._size)
        for _ in range(whole):
            self._generator.permutation(self._n)
        self.take(left)

    def epoch_of(self, batch: int) -> int:
        """Return the epoch, counted from 1, of a batch, counted from 0."""
        return 1 + batch // (self._n // self._size)


class ParameterAverage:
    """θ̄ₜ = Σ (1 − β) βⁱ θₜ₋ᵢ / (1 − βᵗ), i from 0 to t − 1: weights that sum to one from the start.

    With β = 0 the average is the network itself. ``steps`` is t, counted by the caller: a captured
    step calls nothing here.
    """

    def __init__(self, net: Network, beta: float) -> None:
        self.net, self.beta, self.steps = net, beta, 0
        self._network = net.copy() if beta else net
        if beta:
            self._sum = net.backend.xp.zeros_like(net.parameters)
            self._spare = net.backend.xp.empty_like(net.parameters)

    def add(self) -> None:
        """Take the network's parameters of now into the average."""
        if self.beta:
            total = self._sum
            total *= self.beta
            total += self.net.backend.xp.multiply(
                self.net.parameters, 1.0 - self.beta, out=self._spare
            )

    def clear(self) -> None:
        """Begin again from the network's parameters of then."""
        self.steps = 0
        if self.beta:
            self._sum[...] = 0.0

    def state(self) -> list[Any]:
        """Return t, and the sum copied to the host."""
        return [self.steps, self.net.backend.to_numpy(self._sum) if self.beta else None]

    def resume(self, state: Sequence[Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.steps, total = state
        if self.beta:
            self._sum[...] = self.net.backend.asarray(total, self.net.dtype)

    def network(self) -> Network:
        """Return a network with the average, which a later call overwrites."""
        if self.beta:
            own = self._network.parameters
            own[...] = self.net.parameters
            if self.steps:
                weight = 1.0 / (1.0 - self.beta**self.steps)
                self.net.backend.xp.multiply(self._sum, weight, out=own)
            self._network.statistics[...] = self.net.statistics  # of normalized layers
        return self._network


# -- what networks, samples, noise and settings need of each other ---------------------------------
def _check_networks(
    generator: Network,
    discriminator: Network,
    reader: BatchReader,
    settings: AdversarialSettings,
) -> None:
    sizes = generator.outputs, discriminator.inputs, reader.features
    if len(set(sizes)) > 1:
        raise ArchitectureError(
            f"the generator has {sizes[0]} outputs, the discriminator {sizes[1]} inputs and a "
            f"sample {sizes[2]} values; expected the same number"
        )
    kinds = (generator.backend, generator.dtype), (discriminator.backend, discriminator.dtype)
    if kinds[0] != kinds[1]:
        raise ArchitectureError(
            f"generator and discriminator must be on one device in one dtype, got "
            f"{' and '.join(f'{backend} {dtype}' for backend, dtype in kinds)}"
        )
    expected: type[Likelihood] = Bernoulli
    outputs = 1
    if settings.has_critic:
        expected = Score
    elif settings.classes:
        expected, outputs = Multinomial, settings.classes + 1
    fits = isinstance(discriminator.likelihood, expected) and discriminator.outputs == outputs
    if not fits or discriminator.likelihood.scale != 1.0:
        raise ArchitectureError(
            f"the discriminator has {discriminator.outputs} outputs of likelihood "
            f"{discriminator.likelihood}; kind {settings.kind} with classes {settings.classes} "
            f"needs {outputs} of likelihood {expected.__name__}, of weight 1"
        )
    if settings.classes and not (reader.is_classification and reader.outputs == settings.classes):
        raise ArchitectureError(
            f"classes {settings.classes} need samples with that many labels, got "
            f"{reader.outputs} {'labels' if reader.is_classification else 'regression targets'}"
        )
    of_g, of_d = generator.reversed.likelihood, discriminator.reversed.likelihood
    for name, likelihood, backward in (
        ("discriminator", of_d, settings.discriminator_backward),
        ("generator", of_g, settings.generator_backward),
    ):
        if backward and likelihood.scale != 1.0:
            raise ArchitectureError(
                f"the {name}'s backward likelihood {likelihood} has weight {likelihood.scale:g}; "
                f"expected 1, which {name}_weight multiplies"
            )
    binary = settings.latent_law == "binary" and settings.generator_backward
    if binary and not isinstance(of_g, Bernoulli):
        raise ArchitectureError(
            f"the generator's backward likelihood {of_g} does not fit a binary z; expected "
            "bernoulli, or latent law gaussian"
        )
    if settings.discriminator_backward and not of_d.class_sums:
        raise ArchitectureError(
            f"the discriminator's backward likelihood {of_d} has no class sums; use gaussian or "
            "bernoulli"
        )


def check_noise(
    noise: Mapping[str, Noise] | None, settings: AdversarialSettings
) -> dict[str, Noise]:
    """Return the noise that is not of kind none, its places checked.

    Raises
    ------
    ArchitectureError
        If a place is unknown, or the settings have no such target or input.
    """
    wanted = {key: each for key, each in (noise or {}).items() if each.kind != "none"}
    needs = {
        "discriminator/forward": (not settings.has_critic, "kind vanilla or minimax"),
        "discriminator/backward": (
            settings.discriminator_backward,
            "bidirectional discriminator or both",
        ),
        "generator/backward": (settings.generator_backward, "bidirectional generator or both"),
        "discriminator/input": (
            not settings.has_critic and not settings.classes,
            "kind vanilla or minimax, and classes 0",
        ),
        "critic/input": (settings.has_critic, "kind wasserstein or wasserstein-gp"),
    }
    for key in wanted:
        if key not in needs:
            raise ArchitectureError(f"noise must be for one of {', '.join(needs)}, got {key!r}")
        fits, remedy = needs[key]
        if not fits:
            raise ArchitectureError(f"noise {key} needs {remedy}, or leave it out")
    return wanted
