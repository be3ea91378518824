"""From a configuration to data, players and judge that are ready for an adversarial training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from nembp.adversarial.checks import check_noise
from nembp.adversarial.data import DATA, load_adversarial
from nembp.adversarial.objectives import Score
from nembp.adversarial.scorers import Scorer, scorer_for
from nembp.adversarial.settings import AdversarialSettings
from nembp.architecture import generator_network, network
from nembp.backend import Backend
from nembp.datasets import Dataset, available, feature_means
from nembp.datasets.reading import BatchReader
from nembp.engine.likelihoods import Likelihood
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.engine.training import set_input_bias
from nembp.errors import ArchitectureError
from nembp.runs.gan_config import GanConfig
from nembp.runs.gan_recipes import ALWAYS, DECAY, MOMENTUM, SCALES, gan_recipe
from nembp.runs.preparation import Note, choose_backend

__all__ = ["PreparedGan", "load_gan_data", "noise_of", "prepare_gan"]

OTHER_WEIGHTS = 1 << 32  # added to the seed of the discriminator's weights, apart from the other's


@dataclass(frozen=True, eq=False)
class PreparedGan:
    """What an adversarial run trains.

    Attributes
    ----------
    config : GanConfig
        Complete: a recipe has filled what was open.
    data : Dataset
        What is to be imitated, with the scaling that suits the generator's likelihood.
    settings : AdversarialSettings
        The game.
    generator, discriminator : Network
        Before their first step.
    scorer : Scorer
        Of what the generator makes.
    """

    config: GanConfig
    data: Dataset
    settings: AdversarialSettings
    generator: Network
    discriminator: Network
    scorer: Scorer

    def reader(self) -> BatchReader:
        """Return the reader that feeds training samples to the discriminator."""
        data, net = self.data, self.discriminator
        return BatchReader(
            data.train, data.x_scaling, data.y_scaling, data.outputs, net.backend, net.dtype
        )


def load_gan_data(config: GanConfig) -> Dataset:
    """Load or draw the data set that a configuration names, images scaled to [0, 1].

    Raises
    ------
    ArchitectureError
        If there is no such data set, or an option does not suit it.
    DataError
        If it cannot be read.
    """
    name, seed = config.dataset, config.split_seed
    if name not in (*DATA, *available()):
        names = ", ".join([*DATA, *available()])
        raise ArchitectureError(f"no data set {name!r:.80}: expected one of {names}")
    return load_adversarial(
        name,
        config.data_dir,
        samples=config.samples,
        seed=ALWAYS["split_seed"] if seed is None else seed,
        scale=SCALES.get(name) if config.scale is None else config.scale,
        modes=config.modes,
        std=config.std,
        limit=config.limit,
        image_size=config.image_size,
    )


def prepare_gan(config: GanConfig, note: Note = lambda text: None) -> PreparedGan:
    """Load the data, fill in the recipe, build both players and get the judge.

    Parameters
    ----------
    config : GanConfig
        None where the recipe decides.
    note : callable
        Told what the user should know and is no error.

    Raises
    ------
    ArchitectureError
        If options do not go together, or with the data.
    DataError, DeviceError
        If the data or the device cannot be used.
    """
    data = load_gan_data(config)
    filled = gan_recipe(data, config)
    settings = _settings(filled, data)
    check_noise(noise_of(filled), settings)
    _check_optimizer(filled)
    backend = choose_backend(filled.device or "auto", note)
    path = None if filled.data_dir is None else os.path.abspath(filled.data_dir)
    filled = filled.replace({"device": backend.name, "data_dir": path})
    generator = _generator(filled, data, backend)
    discriminator = _discriminator(filled, data, settings, backend)
    set_input_bias(discriminator, feature_means(data.train, data.x_scaling))
    scorer = scorer_for(data, note=note)  # one judge for all runs: its seed is not theirs
    if filled.scored_samples is None:
        filled = filled.replace({"scored_samples": scorer.samples})
    return PreparedGan(filled, data, settings, generator, discriminator, scorer)


def _settings(config: GanConfig, data: Dataset) -> AdversarialSettings:
    if config.classes and not data.is_classification:
        raise ArchitectureError(
            f"classes tells the real classes apart, but {data.source} has none; use --no-classes"
        )
    if config.latent_law == "binary" and config.latent_std != 1.0:
        raise ArchitectureError(
            f"a binary z is 0 or 1, got latent_std {config.latent_std:g}; leave it out, or use "
            "--latent-law gaussian"
        )
    values = vars(config)
    names = (
        "kind", "bidirectional", "discriminator_weight", "generator_weight", "weight_schedule",
        "weight_until", "noise_schedule", "noise_until", "backward_labels", "latent_law",
        "latent_std", "backward_flow", "backward_permuted", "critic_steps", "clip",
        "penalty_weight", "averaging",
    )  # fmt: skip
    classes = len(data.classes) if config.classes else 0
    return AdversarialSettings(classes=classes, **{name: values[name] for name in names})


def noise_of(config: GanConfig) -> dict[str, Noise]:
    """Return the noise of each place, as `AdversarialTrainer` takes it."""
    apart = ("noise_place", "noise_schedule", "noise_until")
    values: dict[str, Any] = {
        name.removeprefix("noise_"): value
        for name, value in vars(config).items()
        if name.startswith("noise_") and name not in apart
    }
    noise = Noise(kind=config.noise or "none", **values)  # type: ignore[arg-type]
    return dict.fromkeys(config.noise_place or (), noise)


def _check_optimizer(config: GanConfig) -> None:
    for option, table in (("momentum", MOMENTUM), ("decay", DECAY)):
        if getattr(config, option) is not None and config.optimizer not in table:
            raise ArchitectureError(
                f"{option} is of {' and '.join(table)}, and the optimizer is {config.optimizer}; "
                "leave it out"
            )


def _generator(config: GanConfig, data: Dataset, backend: Backend) -> Network:
    return generator_network(
        config.latent or 1,
        config.generator or (),
        data.shape if data.is_image else data.features,
        activation=config.generator_activation or "relu",
        forward="bernoulli" if data.is_image else "gaussian",
        backward="bernoulli" if config.latent_law == "binary" else "gaussian",
        device=backend,
        dtype=config.dtype or "float32",
        seed=config.seed or 0,
    )


def _discriminator(
    config: GanConfig, data: Dataset, settings: AdversarialSettings, backend: Backend
) -> Network:
    outputs = settings.classes + 1
    forward: str | Likelihood = "multinomial" if outputs > 1 else "bernoulli"
    if settings.has_critic:
        forward = Score()
    return network(
        data.shape if data.is_image else data.features,
        config.discriminator or (),
        outputs,
        activation=config.discriminator_activation or "relu",
        forward=forward,
        backward="gaussian",
        device=backend,
        dtype=config.dtype or "float32",
        seed=(config.seed or 0) + OTHER_WEIGHTS,
    )
