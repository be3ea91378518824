"""What an adversarial training is asked for: one field an option, None where a recipe decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, get_args

from nembp.adversarial.settings import (
    BackwardLabels,
    Bidirectional,
    Kind,
    NoiseSchedule,
    WeightSchedule,
)
from nembp.runs.config import RunConfig
from nembp.runs.option import Option
from nembp.runs.option_fields import OptionFields, choice, option, same

__all__ = ["PLACES", "GanConfig"]

# where NEM noise can go, as `nembp.adversarial.trainer.AdversarialTrainer` calls it
PLACES: Final = (
    "discriminator/forward",
    "discriminator/input",
    "discriminator/backward",
    "generator/backward",
    "critic/input",
)
GAME, NETWORKS, NOISE, TRAINING, SCORES = "Game", "Networks", "NEM noise", "Training", "Scores"
_TRAIN: Final[dict[str, Option]] = RunConfig.options()


@dataclass(frozen=True)
class GanConfig(OptionFields):
    """Options of an adversarial training; None means the data set's recipe (see `gan_recipe`).

    The fields are those of ``nembp gan --help``, with _ for -; ``dataset`` is ``--data``.

    Raises
    ------
    ArchitectureError
        If a value is of the wrong type or out of bounds.

    Examples
    --------
    >>> GanConfig(dataset="grid", bidirectional="generator").bidirectional
    'generator'
    >>> GanConfig(backward_weight=-1)
    Traceback (most recent call last):
        ...
    nembp.errors.ArchitectureError: backward_weight must be a number > 0, got -1
    """

    command: ClassVar[str] = "gan"
    aliases: ClassVar[Mapping[str, str]] = {"data": "dataset"}

    dataset: str = option(
        "text", "Data", "ring or grid (Gaussians in the plane), digits, mnist, stacked (three "
        "MNIST digits as the colours of one image), or another of `nembp data list`.", "ring",
    )  # fmt: skip
    data_dir: str | None = same(_TRAIN["data_dir"])
    limit: int | None = same(_TRAIN["limit"])
    samples: int | None = option(
        "integer", "Data", "Of ring, grid and stacked: draw so many to train on.", least=1
    )
    modes: int | None = option(
        "integer", "Data", "Gaussians of ring, or of grid, where it is a square.", least=1
    )
    std: float | None = option(
        "number", "Data", "Standard deviation of each of these Gaussians.", above=0
    )
    scale: float | None = option(
        "number", "Data", "Of ring and grid: the networks see points times this.", above=0
    )
    split_seed: int | None = option(
        "integer", "Data", "Seed of samples that are drawn, apart from --seed so that runs of "
        "different seeds share them.", least=0,
    )  # fmt: skip
    image_size: tuple[int, int] | None = same(_TRAIN["image_size"])

    kind: str | None = choice(
        GAME, "What the players play for: vanilla (the generator raises log D), minimax (lowers "
        "log(1 - D)), wasserstein (a clipped critic), wasserstein-gp (with gradient penalty).",
        *get_args(Kind),
    )  # fmt: skip
    bidirectional: str | None = choice(
        GAME, "Whose backward direction is trained too: the discriminator's label → x, the "
        "generator's x → z, which keeps modes apart, or both.",
        *get_args(Bidirectional),
    )  # fmt: skip
    backward_weight: float | None = option(
        "number", GAME, "Weight of the backward direction: the precision 1/v of its gaussian.",
        above=0,
    )  # fmt: skip
    discriminator_weight: float | None = option(
        "number", GAME, "The same for the discriminator alone.", above=0
    )
    generator_weight: float | None = option(
        "number", GAME, "The same for the generator alone.", above=0
    )
    weight_schedule: str | None = choice(
        GAME, "Course of the backward weights over the run; rise: up, in its first tenth.",
        *get_args(WeightSchedule),
    )  # fmt: skip
    weight_until: float | None = option(
        "number", GAME, "Share of the run after which a course that falls is 0.", above=0, most=1
    )
    backward_labels: str | None = choice(
        GAME, "Which labels have a backward target: real ones, or generated ones too.",
        *get_args(BackwardLabels),
    )  # fmt: skip
    backward_flow: bool | None = option(
        "flag", GAME, "Let the gradient of log p(z | G(z)) move G(z) too, not only the way back."
    )
    backward_permuted: bool | None = option(
        "flag", GAME, "Control: backward targets that mean nothing, each sample's permuted."
    )
    classes: bool | None = option(
        "flag", GAME, "A discriminator that tells the real classes apart: K + 1 outputs."
    )
    critic_steps: int | None = option(
        "integer", GAME, "Steps of the discriminator for each of the generator.", least=1
    )
    clip: float | None = option("number", GAME, "Bound of a wasserstein critic's weights.", above=0)
    penalty_weight: float | None = option(
        "number", GAME, "Of wasserstein-gp: λ (‖∇f‖ - 1)².", above=0
    )

    latent: int | None = option("integer", NETWORKS, "Size of z.", least=1)
    latent_law: str | None = choice(
        NETWORKS, "z ~ N(0, I), or fair coins of 0 and 1, which a bidirectional generator's way "
        "back then names.", "gaussian", "binary",
    )  # fmt: skip
    latent_std: float | None = option(
        "number", NETWORKS, "Standard deviation of a gaussian z.", above=0
    )
    generator: tuple[int | str, ...] | None = option(
        "layers", NETWORKS, "Hidden layers of the generator, as `nembp train --layers` has them: "
        "128,128 or 1024,reshape4x4x64,up32x4.",
    )  # fmt: skip
    discriminator: tuple[int | str, ...] | None = option(
        "layers", NETWORKS, "Hidden layers of the discriminator, such as 128,128 or conv32x4s2."
    )
    generator_activation: str | None = choice(
        NETWORKS, "Of the generator's hidden neurons.", *_TRAIN["activation"].choices
    )
    discriminator_activation: str | None = choice(
        NETWORKS, "Of the discriminator's.", *_TRAIN["activation"].choices
    )
    dtype: str | None = same(_TRAIN["dtype"], NETWORKS)

    noise: str | None = same(_TRAIN["noise"])
    noise_place: tuple[str, ...] | None = option(
        "names", NOISE, "What receives it: the discriminator's targets, its input (real samples "
        "and generated ones, in both players' steps), the x it draws backward, the z that the "
        "generator is sent back to, a Wasserstein critic's input; several with commas between "
        "them.", choices=PLACES,
    )  # fmt: skip
    noise_std: float | None = same(_TRAIN["noise_std"])
    noise_decay: float | None = same(_TRAIN["noise_decay"])
    noise_schedule: str | None = choice(
        NOISE, "Course of its standard deviation over the run; power: the annealing above.",
        *get_args(NoiseSchedule),
    )  # fmt: skip
    noise_until: float | None = option(
        "number", NOISE, "Share of the run after which a course that falls is 0.", above=0, most=1
    )
    noise_law: str | None = same(_TRAIN["noise_law"])
    noise_mode: str | None = same(_TRAIN["noise_mode"])
    noise_screening: str | None = same(_TRAIN["noise_screening"])
    noise_rejected: str | None = same(_TRAIN["noise_rejected"])

    optimizer: str | None = same(_TRAIN["optimizer"])
    learning_rate: float | None = option("number", TRAINING, "Of the first step.", above=0)
    discriminator_rate: float | None = option(
        "number", TRAINING, "The discriminator's own.", above=0
    )
    momentum: float | None = option(
        "number", TRAINING, "β₁ of adam, μ of momentum.", least=0, below=1
    )
    decay: float | None = option("number", TRAINING, "β₂ of adam, ρ of rmsprop.", least=0, below=1)
    schedule: str | None = same(_TRAIN["schedule"])
    averaging: float | None = option(
        "number", TRAINING, "Draw samples from a moving average of the generator's parameters, "
        "which keeps this share at each step; 0 for none.", least=0, below=1,
    )  # fmt: skip
    batch_size: int | None = same(_TRAIN["batch_size"])
    iterations: int | None = option("integer", TRAINING, "Steps of the generator.", least=1)
    seed: int | None = option(
        "integer", TRAINING, "Of the weights, batches, z and noise, each its own stream.", least=0
    )
    device: str | None = same(_TRAIN["device"])
    cuda_graphs: str | None = same(_TRAIN["cuda_graphs"])
    threads: int | None = option("integer", TRAINING, "BLAS threads.", least=1)

    checkpoints: int | None = option(
        "integer", SCORES, "How often, evenly over the run, samples are scored and drawn.", least=1
    )
    averaged: int | None = option(
        "integer", SCORES, "The final scores are means over so many last checkpoints.", least=1
    )
    scored_samples: int | None = option(
        "integer", SCORES, "Samples drawn for each of these; earlier ones make do with fewer.",
        least=2,
    )  # fmt: skip
