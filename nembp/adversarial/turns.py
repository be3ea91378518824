"""The turns of an iteration: what the players do with a batch, the same calls on every device.

What changes from turn to turn comes as :class:`Numbers`. A device that replays turns keeps it in
its memory instead (:mod:`nembp.adversarial.on_device`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nembp.adversarial.averaging import ParameterAverage
from nembp.adversarial.data import fill_latent
from nembp.adversarial.players import DiscriminatorPlayer, GeneratorPlayer
from nembp.adversarial.records import Means
from nembp.adversarial.settings import AdversarialSettings
from nembp.backend import Array, stream
from nembp.datasets.reading import BatchReader, Staged
from nembp.engine.network import Network
from nembp.engine.noise import Noise, NoiseSource
from nembp.engine.optimizers import Optimizer

__all__ = ["Numbers", "Turns"]


@dataclass(frozen=True)
class Numbers:
    """What changes from turn to turn.

    Parameters
    ----------
    factor : float
        Of the learning rates.
    course : float
        Of the weights of the backward directions.
    clock : tuple of int
        Epoch and iteration, both counted from 1, for the standard deviation of the noise; None
        where the noise has it already.
    """

    factor: float = 1.0
    course: float = 1.0
    clock: tuple[int, int] | None = (1, 1)

    def move(self, optimizer: Optimizer) -> None:
        """Move a player's parameters."""
        optimizer.step(self.factor)


class Turns:
    """D's turn, made once or several times in an iteration, and G's.

    Parameters
    ----------
    generator, discriminator : Network
        The players' networks.
    reader : BatchReader
        The real samples.
    settings : AdversarialSettings
        Objective and directions.
    rows : int
        Real samples of a turn of D, and generated ones.
    optimizers : pair of Optimizer
        Of G and of D.
    noise : mapping of str to Noise
        By the trainer's places.
    seed : int
        Of the streams.
    draw : callable
        What makes the generator of a named stream of a seed, on the device or on the host.

    Attributes
    ----------
    g, d : GeneratorPlayer, DiscriminatorPlayer
        The players.
    average : ParameterAverage
        Of G's parameters.
    means : Means
        Of what turns leave on record.
    sources : dict of NoiseSource
        The noise that is on record, by the trainer's places.
    """

    def __init__(
        self,
        generator: Network,
        discriminator: Network,
        reader: BatchReader,
        settings: AdversarialSettings,
        rows: int,
        optimizers: tuple[Optimizer, Optimizer],
        noise: Mapping[str, Noise],
        seed: int,
        draw: Callable[[int, str], Any],
    ) -> None:
        self.generator, self.discriminator = generator, discriminator
        self.reader, self.settings, self.optimizers = reader, settings, optimizers
        self._gradients = [
            optimizer.bind(net)
            for optimizer, net in zip(optimizers, (generator, discriminator), strict=True)
        ]
        self._draw = draw
        self._latent = draw(seed, "latent")
        self._set_players(rows, dict(noise), seed)
        self.sources: dict[str, NoiseSource] = self.d.sources | self.g.sources
        self.average = ParameterAverage(generator, settings.averaging)
        self.means = Means(generator.backend, generator.dtype)
        self._clipped: Array = None
        if settings.kind == "wasserstein":
            self._clipped = discriminator.parameters[: _forward_count(discriminator)]

    def _set_players(self, rows: int, noise: dict[str, Noise], seed: int) -> None:
        settings, discriminator = self.settings, self.discriminator
        streams = {key: self._draw(seed, f"noise/{key}") for key in noise}
        streams["penalty"] = self._draw(seed, "penalty")
        streams["discriminator/input of G"] = self._draw(seed, "noise/discriminator/input of G")
        permutation = None
        if settings.backward_permuted and settings.discriminator_backward:
            permutation = stream(seed, "permutation").permutation(discriminator.inputs)
        self.d = DiscriminatorPlayer(discriminator, rows, settings, noise, streams, permutation)
        self.g = GeneratorPlayer(self.generator, discriminator, rows, settings, noise, streams)

    # -- turns -----------------------------------------------------------------------------------
    def read(self, index: Array, staged: Staged = None) -> None:
        """Give D real samples, as :meth:`nembp.datasets.reading.BatchReader.read` does."""
        if self.d.labels is None:
            self.reader.read_x(index, self.d.real, staged)
        else:
            self.reader.read(index, self.d.real, self.d.labels, staged)

    def discriminate(self, numbers: Numbers) -> None:
        """D's turn: draw z, and move D on the samples that were read and on G(z)."""
        backend, settings, g, d = self.generator.backend, self.settings, self.g, self.d
        fill_latent(backend, self._latent, settings.latent_law, g.z)
        if settings.latent_std != 1.0:
            backend.into(g.z, backend.xp.multiply, g.z, settings.latent_std)
        backend.into(d.generated, backend.xp.multiply, g.run(), 1.0)
        d(self._gradients[1], numbers.course * settings.discriminator_weight, numbers.clock)
        numbers.move(self.optimizers[1])
        if self._clipped is not None:
            bound = settings.clip
            backend.into(self._clipped, backend.xp.minimum, self._clipped, bound)
            backend.into(self._clipped, backend.xp.maximum, self._clipped, -bound)

    def generate(self, numbers: Numbers) -> None:
        """G's turn: move G on the samples that D saw last, and keep the record."""
        weight = numbers.course * self.settings.generator_weight
        self.g(self._gradients[0], weight, numbers.clock)
        numbers.move(self.optimizers[0])
        self.average.add()
        self._record()

    def _record(self) -> None:
        settings, means, d, g = self.settings, self.means, self.d, self.g
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

    def count(self) -> None:
        """Count an iteration: a replayed turn does nothing on the host."""
        self.average.steps += 1
        self.means.steps += 1


def _forward_count(net: Network) -> int:
    """Return the length of the part of the flat vector that the forward direction starts with.

    Weights and forward biases, which a critic's bound is for.
    """
    return net.weight_count + sum(layer.biases for layer in net.layers[1:])
