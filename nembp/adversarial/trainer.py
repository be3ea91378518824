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
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np

from nembp.adversarial.data import draw_latent, fill_latent
from nembp.adversarial.gradients import DiscriminatorGradient, GeneratorGradient
from nembp.adversarial.settings import AdversarialSettings, schedule_factor
from nembp.backend import Array, stream
from nembp.backend.standard import Steps
from nembp.datasets.reading import BatchReader, Staged
from nembp.engine.likelihoods import Bernoulli, Likelihood, Multinomial, Score
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Optimizer, get_optimizer, learning_rate_schedule
from nembp.engine.training import Totals, check_counts
from nembp.errors import ArchitectureError, DivergenceError

Row = dict[str, float]
Callback = Callable[[Row], bool | None]
CHECK_EVERY = 50  # iterations between looks at the values on the CPU; a GPU is asked for its rows
SAMPLES = 1 << 10  # drawn at a time
LAID_OUT = 1 << 18  # samples, at most, whose order is drawn at once
# columns of the numbers of a step
OF_D, OF_G, WEIGHT, NOISE = slice(0, 3), slice(3, 6), slice(6, 7), 7


class AdversarialTrainer:
    """Trains a generator G: z → x against a discriminator or critic D: x → score, in place.

    An iteration makes ``settings.steps`` steps of D, each on a batch of real and as many generated
    samples, and one step of G on the samples that D saw last. Both networks are seen from their
    forward directions. D's forward likelihood is Bernoulli with one output, multinomial with K+1,
    or, for a critic, :class:`~nembp.engine.likelihoods.Score` with one. A backward direction that
    is trained has a likelihood of weight 1 (a Gaussian of variance 1): the settings' weights
    multiply it. ``optimizers`` are of G and of D, an object each.

    ``noise`` is by place: ``"discriminator/forward"`` on D's targets, ``"discriminator/backward"``
    on the x that D's backward direction aims at, ``"generator/backward"`` on the z that G's aims
    at, ``"discriminator/input"`` on what D sees, in its own step and in G's, kept where it raises
    the network's log-likelihood, and ``"critic/input"`` on a critic's input in its own step, kept
    where it raises the critic's objective. ``after_step`` is called after each iteration that no
    row follows; :meth:`state` is whole then, as it is for ``callbacks``.

    ``rows`` are means over ``report_every`` iterations: ``discriminator/nll``,
    −(mean log D(x) + mean log(1 − D(G(z)))) in nats, or ``critic/objective``,
    mean f(x) − mean f(G(z)); ``generator/nll``, what G descends; the nll of the backward directions
    that are trained, ``discriminator/backward_nll`` and ``generator/backward_nll``, before their
    weights; ``critic/penalty``, mean (‖∇ₓ f(x̂)‖ − 1)²; ``noise/discriminator/forward/accepted``,
    ``noise/discriminator/forward/gain`` (nats per sample) and so on; ``iterations_per_second``.
    """

    def __init__(
        self, generator: Network, discriminator: Network, reader: BatchReader,
        settings: AdversarialSettings, *, optimizers: tuple[str | Optimizer, str | Optimizer],
        batch_size: int = 64, iterations: int = 3000, schedule: str = "constant",
        noise: dict[str, Noise] | None = None, seed: int = 0, callbacks: Sequence[Callback] = (),
        report_every: int = 100, after_step: Callable[[], None] | None = None,
        host_noise: bool = False, cuda_graphs: bool = True,
    ) -> None:  # fmt: skip
        _check_networks(generator, discriminator, reader, settings)
        check_counts(batch_size=batch_size, iterations=iterations, report_every=report_every)
        noise = check_noise(noise, settings)
        self.generator, self.discriminator, self.reader = generator, discriminator, reader
        self.settings, self._seed, self.batch_size = settings, seed, min(batch_size, reader.n)
        self.iterations, self.report_every = iterations, report_every
        self.callbacks, self.after_step = list(callbacks), after_step
        self.schedule = learning_rate_schedule(schedule)
        self._networks = {"generator": generator, "discriminator": discriminator}
        self.optimizers = get_optimizer(optimizers[0]), get_optimizer(optimizers[1])
        if self.optimizers[0] is self.optimizers[1]:
            raise ArchitectureError("generator and discriminator need an optimizer each, got one")
        for optimizer, net in zip(self.optimizers, (generator, discriminator), strict=True):
            optimizer.bind(net)
        self.iteration, self.rows = 0, list[Row]()
        # when the row in progress began, and the iterations that are in it
        self._began, self._since = cast("float | None", None), 0
        self._keep()

        backend = generator.backend
        draw = stream if host_noise else backend.generator
        self._streams: dict[str, Any] = {key: draw(seed, key) for key in ("latent", "penalty")}
        for key in (*noise, "discriminator/input of G"):
            self._streams[key] = draw(seed, f"noise/{key}")
        permutation = None
        if settings.backward_permuted and settings.discriminator_backward:
            permutation = stream(seed, "permutation").permutation(discriminator.inputs)
        drawn = self.batch_size, settings, noise, self._streams
        self.of_d = DiscriminatorGradient(discriminator, *drawn, permutation)
        self.of_g = GeneratorGradient(generator, discriminator, *drawn)
        self.sources = self.of_d.sources | self.of_g.sources
        self._noisy = [*self.sources.values(), *self.of_g.through.sources.values()]
        self.totals = Totals(backend, generator.dtype)  # of the row in progress
        self._sum: Array = None  # Σ (1 − β) βⁱ θₜ₋ᵢ of G, and a network for the average
        if settings.averaging:
            self._averaged, xp = generator.copy(), backend.xp
            self._sum, self._spare = (xp.zeros_like(generator.parameters) for _ in range(2))
        self._clipped: Array = None
        if settings.kind == "wasserstein":  # weights and forward biases, which come first
            biases = sum(layer.biases for layer in discriminator.layers[1:])
            self._clipped = discriminator.parameters[: discriminator.weight_count + biases]

        self._order = self._batch_order()
        self._batches: Any = None
        # iterations whose samples and numbers are laid out at once, and what is left of them
        block = max(1, LAID_OUT // (self.batch_size * settings.steps))
        self._block, self._left = min(block, report_every), 0
        # whether the numbers of a step lie on the device
        self.on_device = all(map(backend.has_kernel, self.optimizers)) and not host_noise
        self._steps = Steps(backend, self.batch_size)
        if self.on_device:
            most = self._block * settings.steps * self.batch_size
            self._steps = backend.steps(most, self.batch_size, NOISE + len(self._noisy))
        self._graphs = self.on_device and cuda_graphs
        # samples come resident on the device, or from the host, which no graph can read
        apart = self._step_discriminator, self._step_generator
        work = (self._iterate,) if reader.is_resident else apart
        self._captured: list[Any] = [backend.capture(f) if self._graphs else f for f in work]

    def _batch_order(self) -> Iterator[Any]:
        """Return batches of all samples in random order, again and again, from the start."""
        return random_batches(self.reader.n, self.batch_size, stream(self._seed, "batches"))

    # -- a run -----------------------------------------------------------------------------------
    def run(self) -> list[Row]:
        """Train to the end, or until a callback stops it, and return ``rows``.

        A DivergenceError if an objective or a parameter stops being finite; both networks then
        have the parameters of the last check at which all were.
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
                self.rows.append(row)
                self.totals.clear()
                self._since, self._began = 0, time.perf_counter()
                stop = [callback(row) for callback in self.callbacks]  # every one sees the row
                if any(stop):
                    break
                self._began = time.perf_counter()
        self._began = None
        return self.rows

    def _keep(self) -> None:
        self._good = self.iteration, [net.snapshot() for net in self._networks.values()]

    def _check_finite(self) -> Row:
        """Return the means since the last row; keep the parameters if all is finite."""
        turned = "critic/objective", "generator/nll" if self.settings.kind == "minimax" else ""
        means = {key: total / self._since for key, total in self.totals.read().items()}
        means = {key: -mean if key in turned else mean for key, mean in means.items()}
        seen = dict(means)
        for name, net in self._networks.items():
            total = net.backend.to_numpy(net.backend.xp.sum(net.parameters))
            seen[f"the sum of the {name}'s parameters"] = float(total)
        bad = [key for key, value in seen.items() if not math.isfinite(value)]
        if not bad:
            self._keep()
            return means
        iteration, kept = self._good
        for net, snapshot in zip(self._networks.values(), kept, strict=True):
            net.restore(snapshot)
        self._sum = None  # is of no use
        rates = " and ".join(f"{each.learning_rate:g}" for each in self.optimizers)
        remedy = f"Lower the learning rates (now {rates})"
        if self.settings.bidirectional != "none":
            remedy += " or the weights of the backward directions"
        raise DivergenceError(
            f"training diverged by iteration {self.iteration}: {bad[0]} is not finite; the "
            f"parameters of iteration {iteration} were restored. {remedy}"
        )

    # -- stopping, and going on elsewhere --------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """Return all that the rest of the training depends on, between two iterations.

        As :meth:`nembp.engine.training.Trainer.state`; of both networks, so that they are of one
        moment.
        """
        backend, now = self.generator.backend, time.perf_counter()
        total = None if self._sum is None else backend.to_numpy(self._sum)
        return {
            "iteration": self.iteration,
            "networks": [list(net.snapshot()) for net in self._networks.values()],
            "optimizers": [
                {slot: backend.to_numpy(vector) for slot, vector in each.state.items()}
                for each in self.optimizers
            ],
            "streams": {key: backend.stream_state(each) for key, each in self._streams.items()},
            "average": [self.iteration, total],
            "good": [self._good[0], [list(kept) for kept in self._good[1]]],
            "totals": self.totals.state(),
            "row": [now - (self._began or now), self._since],
            "history": self.rows,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` of a trainer with the same settings and data returned.

        Of other settings it is a KeyError, TypeError or ValueError.
        """
        backend, dtype = self.generator.backend, self.generator.dtype
        self.iteration = operator.index(state["iteration"])
        if not 0 <= self.iteration <= self.iterations:
            raise ValueError(f"iteration {self.iteration} of {self.iterations}")
        for net, kept in zip(self._networks.values(), state["networks"], strict=True):
            net.restore(kept)
        for optimizer, slots in zip(self.optimizers, state["optimizers"], strict=True):
            for slot, vector in optimizer.state.items():
                vector[...] = backend.asarray(slots[slot], dtype)
        for key, generator in self._streams.items():
            backend.set_stream_state(generator, state["streams"][key])
        if self._sum is not None:
            self._sum[...] = backend.asarray(state["average"][1], dtype)
        self._good = state["good"][0], state["good"][1]
        self.totals.resume(state["totals"])
        self._began, self._since = time.perf_counter() - state["row"][0], state["row"][1]
        self.rows = [dict(row) for row in state["history"]]
        self._count()
        # samples are laid out ahead, and their order is drawn again
        self._order, self._left = self._batch_order(), 0
        done = self.iteration * self.settings.steps
        next(islice(self._order, done, done), None)

    # -- an iteration ----------------------------------------------------------------------------
    def step(self) -> None:
        """Make one iteration: ``settings.steps`` steps of D and one of G."""
        if self._left == 0:
            self._lay_out()
        left, self._left = self._left - 1, 0  # a block that is broken off here is not gone on with
        self.iteration += 1
        if not self.reader.is_resident:
            for _ in range(self.settings.steps):
                self._read(next(self._batches)[1])
                self._captured[0]()
        self._captured[-1]()
        self._count()
        self._since += 1
        self._left = left

    def _count(self) -> None:
        """Tell the optimizers their steps: a captured step does nothing on the host."""
        of_g, of_d = self.optimizers
        of_g.steps, of_d.steps = self.iteration, self.iteration * self.settings.steps

    def _lay_out(self) -> None:
        """Lay out a block of iterations: their samples, and the numbers of their steps."""
        to_row = self.report_every - self.iteration % self.report_every
        block, steps = min(to_row, self._block), self.settings.steps
        first = self.iteration * steps
        order = np.concatenate(list(islice(self._order, block * steps)))
        if self._batches is not None:
            self._batches.close()
        self._batches = self.reader.batches(order, self.batch_size)
        table = [self._numbers_of(step) for step in range(first, first + block * steps)]
        self._steps.lay_out(order, np.array(table))
        self._left = block

    def _numbers_of(self, step: int) -> list[float]:
        """Return the numbers of a step of D, counted from 0, and of the step of G after it."""
        settings, iteration = self.settings, step // self.settings.steps
        share = min(iteration / self.iterations, 1.0)
        factor, name = self.schedule(share), settings.noise_schedule
        clock = 1 + step // (self.reader.n // self.batch_size), iteration + 1  # epoch, iteration
        of_noise = schedule_factor(name, share, settings.noise_until)
        noises = [source.noise for source in self._noisy]
        return [
            *self.optimizers[1].numbers(step + 1, factor),
            *self.optimizers[0].numbers(iteration + 1, factor),
            schedule_factor(settings.weight_schedule, share, settings.weight_until),
            *(n.std_at(*clock) if name == "power" else n.std * of_noise for n in noises),
        ]

    def _iterate(self) -> None:
        for _ in range(self.settings.steps):
            self._read()
            self._step_discriminator()
        self._step_generator()

    def _read(self, staged: Staged = None) -> None:
        """Begin a step of D: take its numbers, and read its real samples."""
        self._numbers: Any  # of the step in progress
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
        fill_latent(backend, self._streams["latent"], settings.latent_law, z)
        if settings.latent_std != 1.0:
            z *= settings.latent_std
        self.of_d.generated[...] = self.of_g.run()
        optimizer = self.optimizers[1]
        self.of_d(optimizer.gradient, *self._weight(settings.discriminator_weight))
        backend.optimizer_step(optimizer, self._numbers[OF_D])
        if self._clipped is not None:
            backend.xp.minimum(self._clipped, settings.clip, out=self._clipped)
            backend.xp.maximum(self._clipped, -settings.clip, out=self._clipped)

    def _step_generator(self) -> None:
        """Move G on the samples that D saw last, and keep the record."""
        net, optimizer, beta = self.generator, self.optimizers[0], self.settings.averaging
        self.of_g(optimizer.gradient, *self._weight(self.settings.generator_weight))
        net.backend.optimizer_step(optimizer, self._numbers[OF_G])
        if self._sum is not None:
            self._sum *= beta
            self._sum += net.backend.xp.multiply(net.parameters, 1.0 - beta, out=self._spare)
        self._record()

    def _weight(self, weight: float) -> tuple[float, Array]:
        """Return the weight of a backward direction now, and its factor on the device."""
        factor = self._numbers[WEIGHT]
        return (weight, factor) if self.on_device else (factor[0] * weight, None)

    def _record(self) -> None:
        settings, d, g = self.settings, self.of_d, self.of_g
        seen = {"critic/objective" if settings.has_critic else "discriminator/nll": d.forward_nll}
        if d.penalty is not None:
            seen["critic/penalty"] = d.penalty.value
        seen["generator/nll"] = g.forward_nll
        if settings.discriminator_backward:
            seen["discriminator/backward_nll"] = d.backward_nll
        if settings.generator_backward:
            seen["generator/backward_nll"] = g.backward_nll
        for key, source in self.sources.items():
            seen |= {f"noise/{key}/accepted": source.accepted, f"noise/{key}/gain": source.gain}
        for key, value in seen.items():
            self.totals.add(key, value)

    # -- what became of CUDA graphs --------------------------------------------------------------
    @property
    def captured(self) -> int:
        """Iterations that CUDA graphs made."""
        return self._captured[-1].launches if self._graphs else 0

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

        θ̄ₜ = Σ (1 − β) βⁱ θₜ₋ᵢ / (1 − βᵗ), i from 0 to t − 1: weights that sum to one from the
        start. The next call overwrites it.
        """
        net, t = self.generator, self.iteration
        if self._sum is None or not t:
            return net
        weight = 1.0 / (1.0 - self.settings.averaging**t)
        net.backend.xp.multiply(self._sum, weight, out=self._averaged.parameters)
        self._averaged.statistics[...] = net.statistics  # of normalized layers
        return self._averaged

    def sample(self, n: int, seed: int = 0) -> np.ndarray[Any, Any]:
        """Return G(z) by :attr:`sampler` for ``n`` draws of z, shape (n, features), scaled.

        z comes from the stream ``"samples"`` of the seed, on the host.
        """
        net = self.sampler
        z = self.settings.latent_std * draw_latent(n, net.inputs, seed, self.settings.latent_law)
        parts = [net.predict(z[i : i + SAMPLES]) for i in range(0, n, SAMPLES)]
        return np.concatenate([net.backend.to_numpy(part) for part in parts])


def random_batches(n: int, size: int, generator: np.random.Generator) -> Iterator[Any]:
    """Yield batches of all samples in random order, again and again; a rest is left out.

    >>> np.stack(list(islice(random_batches(5, 2, np.random.default_rng(0)), 3))).shape
    (3, 2)
    """
    while True:
        yield from generator.permutation(n)[: n - n % size].reshape(-1, size)


# -- what networks, samples, noise and settings need of each other ---------------------------------
def _check_networks(g: Network, d: Network, reader: BatchReader, s: AdversarialSettings) -> None:
    sizes = g.outputs, d.inputs, reader.features
    labels = reader.is_classification * reader.outputs
    wanted: type[Likelihood] = Multinomial if s.classes else Score if s.has_critic else Bernoulli
    outputs, of_g, of_d = s.classes + 1, g.reversed.likelihood, d.reversed.likelihood
    fits = isinstance(d.likelihood, wanted) and d.outputs == outputs and d.likelihood.scale == 1.0
    problems = {
        f"the generator has {sizes[0]} outputs, the discriminator {sizes[1]} inputs and a sample "
        f"{sizes[2]} values; expected the same number": len(set(sizes)) > 1,
        f"the generator is {g.dtype} on {g.backend}, the discriminator {d.dtype} on {d.backend}; "
        "expected one device and dtype": (g.backend, g.dtype) != (d.backend, d.dtype),
        f"the discriminator has {d.outputs} outputs of likelihood {d.likelihood}; kind {s.kind} "
        f"with classes {s.classes} needs {outputs} of likelihood {wanted.__name__}, of weight 1": (
            not fits
        ),
        f"the discriminator's backward likelihood {of_d} must have weight 1, which "
        "discriminator_weight multiplies, and class sums; use gaussian or bernoulli": (
            s.discriminator_backward and not (of_d.scale == 1.0 and of_d.class_sums)
        ),
        f"the generator's backward likelihood {of_g} must have weight 1, which generator_weight "
        "multiplies": s.generator_backward and of_g.scale != 1.0,
        f"the generator's backward likelihood {of_g} does not fit a binary z; expected bernoulli, "
        "or latent law gaussian": (
            s.latent_law == "binary" and s.generator_backward and not isinstance(of_g, Bernoulli)
        ),
        f"classes {s.classes} need samples with that many labels, got {labels}": (
            s.classes not in (0, labels)
        ),
    }
    for message, wrong in problems.items():
        if wrong:
            raise ArchitectureError(message)


def check_noise(
    noise: Mapping[str, Noise] | None, settings: AdversarialSettings
) -> dict[str, Noise]:
    """Return the noise that is not of kind none; an ArchitectureError if it has no such place."""
    s, plain = settings, "kind vanilla or minimax"
    needs = {
        "discriminator/forward": (not s.has_critic, plain),
        "discriminator/backward": (s.discriminator_backward, "bidirectional discriminator or both"),
        "generator/backward": (s.generator_backward, "bidirectional generator or both"),
        "discriminator/input": (not s.has_critic and not s.classes, f"{plain}, and classes 0"),
        "critic/input": (s.has_critic, "kind wasserstein or wasserstein-gp"),
    }
    wanted = {key: each for key, each in (noise or {}).items() if each.kind != "none"}
    for key in wanted:
        if key not in needs:
            raise ArchitectureError(f"noise must be for one of {', '.join(needs)}, got {key!r}")
        fits, remedy = needs[key]
        if not fits:
            raise ArchitectureError(f"noise {key} needs {remedy}, or leave it out")
    return wanted
