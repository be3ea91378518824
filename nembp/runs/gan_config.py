"""What `nembp gan` can be asked for, and the recipe for what is left open.

A run writes down what it used, so its ``config.toml`` does not change when the recipe does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, get_args

from nembp.adversarial.settings import (
    BackwardLabels,
    Bidirectional,
    Kind,
    NoiseSchedule,
    WeightSchedule,
)
from nembp.runs.config import DATA, NOISE, TRAINING, RunConfig, is_colour
from nembp.runs.options import Config, choice, option

if TYPE_CHECKING:
    from nembp.datasets import Dataset

# where NEM noise can go, as `nembp.adversarial.trainer.AdversarialTrainer` calls it
PLACES: Final = (
    "discriminator/forward",
    "discriminator/input",
    "discriminator/backward",
    "generator/backward",
    "critic/input",
)
GAME, NETWORKS, SCORES = "Game", "Networks", "Scores"
_TRAIN: Final = RunConfig.options()


def same(name: str, **changes: Any) -> Any:
    """Return the field of an option that `RunConfig` has too, with changes."""
    changed = dataclasses.replace(_TRAIN[name], **changes)
    return dataclasses.field(default=None, metadata={"option": changed})


@dataclass(frozen=True)
class GanConfig(Config):
    """Options of an adversarial training; None means the data set's recipe (see `gan_recipe`).

    The fields are those of ``nembp gan --help``, with _ for -; ``dataset`` is ``--data``.

    >>> GanConfig(dataset="grid", bidirectional="generator").bidirectional
    'generator'
    >>> GanConfig(backward_weight=-1)
    Traceback (most recent call last):
        ...
    nembp.errors.ArchitectureError: backward_weight must be a number > 0, got -1
    """

    command: ClassVar[str] = "gan"
    length: ClassVar[str] = "iterations"
    aliases: ClassVar[Mapping[str, str]] = {"data": "dataset"}

    dataset: str = option("text", DATA, "ring or grid (Gaussians in the plane), digits, mnist, "
        "stacked (three MNIST digits as the colours of one image), or another of `nembp data "
        "list`.", "ring", words="ring")  # fmt: skip
    data_dir: str | None = same("data_dir")
    limit: int | None = same("limit")
    samples: int | None = option("integer", DATA, "Of ring, grid and stacked: draw so many to "
        "train on.", least=1, words="100000, or 128000 of stacked")  # fmt: skip
    modes: int | None = option("integer", DATA, "Gaussians of ring, or of grid, where it is a "
        "square.", least=1, words="8 of ring, 25 of grid")  # fmt: skip
    std: float | None = option("number", DATA, "Standard deviation of each of these Gaussians.",
        above=0, words="0.01 of ring, 0.05 of grid")  # fmt: skip
    scale: float | None = option("number", DATA, "Of ring and grid: the networks see points times "
        "this.", above=0, words="1 of ring, 0.5 of grid")  # fmt: skip
    split_seed: int | None = option("integer", DATA, "Seed of samples that are drawn, apart from "
        "--seed so that runs of different seeds share them.", least=0, default=0)  # fmt: skip
    image_size: tuple[int, int] | None = same("image_size")
    delimiter: str | None = same("delimiter")
    header: bool | None = same("header")
    decimal: str | None = same("decimal")
    image_order: str | None = same("image_order")
    transpose: bool | None = same("transpose")
    x: str | None = same("x")
    y: str | None = same("y")
    max_bytes: int | None = same("max_bytes")
    kind: str | None = choice(GAME, "What the players play for: vanilla (the generator raises log "
        "D), minimax (lowers log(1 - D)), wasserstein (a clipped critic), wasserstein-gp (with "
        "gradient penalty).", *get_args(Kind), default="vanilla")  # fmt: skip
    bidirectional: str | None = choice(GAME, "Whose backward direction is trained too: the "
        "discriminator's label → x, the generator's x → z, which keeps modes apart, or both.",
        *get_args(Bidirectional), words="generator in the plane, none of images or "
        "with a critic")  # fmt: skip
    backward_weight: float | None = option("number", GAME, "Weight of the backward direction: the "
        "precision 1/v of its gaussian.", above=0, words="by the data and the player: see the two "
        "below")  # fmt: skip
    discriminator_weight: float | None = option("number", GAME, "The same for the discriminator "
        "alone.", above=0, words="0.01")  # fmt: skip
    generator_weight: float | None = option("number", GAME, "The same for the generator alone.",
        above=0, words="0.5 in the plane, 1 of images (0.1 of small ones, 0.01 "
        "beside a critic)")  # fmt: skip
    weight_schedule: str | None = choice(GAME, "Schedule of the backward weights over the run; "
        "rise: up, in its first tenth.", *get_args(WeightSchedule), words="cosine; constant of "
        "images unless the generator is bidirectional")  # fmt: skip
    weight_until: float | None = option("number", GAME, "Share of the run after which a schedule "
        "that falls is 0.", above=0, most=1, default=1.0)  # fmt: skip
    backward_labels: str | None = choice(GAME, "Which labels have a backward target: real ones, "
        "or generated ones too.", *get_args(BackwardLabels), default="real")  # fmt: skip
    backward_flow: bool | None = option("flag", GAME, "Let the gradient of log p(z | G(z)) move "
        "G(z) too, not only the way back.", words="on where it is the generator that is "
        "bidirectional")  # fmt: skip
    backward_permuted: bool | None = option("flag", GAME, "Control: backward targets that mean "
        "nothing, each sample's permuted.", default=False)  # fmt: skip
    classes: bool | None = option("flag", GAME, "A discriminator that tells the real classes "
        "apart: K + 1 outputs.", default=False)  # fmt: skip
    critic_steps: int | None = option("integer", GAME, "Steps of the discriminator for each of "
        "the generator.", least=1, words="1, or 5 for a critic")  # fmt: skip
    clip: float | None = option("number", GAME, "Bound of a wasserstein critic's weights.", above=0,
        words="0.1 in the plane, 0.03 of images")  # fmt: skip
    penalty_weight: float | None = option("number", GAME, "Of wasserstein-gp: λ (‖∇f‖ - 1)².",
        above=0, words="1 in the plane, 10 of images")  # fmt: skip
    latent: int | None = option("integer", NETWORKS, "Size of z.", least=1,
        words="12 in the plane, 16 or 64 of images")  # fmt: skip
    latent_law: str | None = choice(NETWORKS, "z ~ N(0, I), or fair coins of 0 and 1, which a "
        "bidirectional generator's way back then names.", "gaussian", "binary",
        words="binary in the plane, gaussian of images")  # fmt: skip
    latent_std: float | None = option("number", NETWORKS, "Standard deviation of a gaussian z.",
        above=0, default=1.0)  # fmt: skip
    generator: tuple[int | str, ...] | None = option("layers", NETWORKS, "Hidden layers of the "
        "generator, as `nembp train --layers` has them: 128,128 or 1024,reshape4x4x64,up32x4.",
        words="128,128, or 256,512 above 256 features; images of several channels, by their size: "
        "2048bn,reshape4x4x128,up64x4s2bn,up32x4s2bn")  # fmt: skip
    discriminator: tuple[int | str, ...] | None = option("layers", NETWORKS, "Hidden layers of "
        "the discriminator, such as 128,128 or conv32x4s2.", words="128,128, or 512,256 above 256 "
        "features; images of several channels: conv32x4s2,conv64x4s2bn,conv128x4s2bn")  # fmt: skip
    generator_activation: str | None = choice(NETWORKS, "Of the generator's hidden neurons.",
        *_TRAIN["activation"].choices, default="relu")  # fmt: skip
    discriminator_activation: str | None = choice(NETWORKS, "Of the discriminator's.",
        *_TRAIN["activation"].choices, words="relu in the plane, leaky-relu of images")  # fmt: skip
    dtype: str | None = same("dtype", group=NETWORKS)
    noise: str | None = same("noise")
    noise_place: tuple[str, ...] | None = option("names", NOISE, "What receives it: the "
        "discriminator's targets, its input (real samples and generated ones, in both players' "
        "steps), the x it draws backward, the z that the generator is sent back to, a Wasserstein "
        "critic's input; several with commas between them.", choices=PLACES,
        words="discriminator/forward, or critic/input")  # fmt: skip
    noise_std: float | None = same("noise_std", words=None)
    noise_decay: float | None = same("noise_decay")
    noise_schedule: str | None = choice(NOISE, "Schedule of its standard deviation over the run; "
        "power: the annealing above.", *get_args(NoiseSchedule), default="power")  # fmt: skip
    noise_until: float | None = option("number", NOISE, "Share of the run after which a schedule "
        "that falls is 0.", above=0, most=1, default=1.0)  # fmt: skip
    noise_law: str | None = same("noise_law")
    noise_mode: str | None = same("noise_mode")
    noise_screening: str | None = same("noise_screening")
    noise_rejected: str | None = same("noise_rejected")
    optimizer: str | None = same(
        "optimizer", default=None, words="adam, or rmsprop for a clipped critic"
    )
    learning_rate: float | None = option("number", TRAINING, "Of the first step.", above=0,
        words="0.001 for adam and rmsprop (0.003 for adam in the plane, and of images where the "
        "generator is bidirectional, but for a critic; images of several channels: 0.0002 and "
        "0.00005), 0.05 momentum, 0.1 sgd")  # fmt: skip
    discriminator_rate: float | None = option("number", TRAINING, "The discriminator's own.",
        above=0, words="the learning rate")  # fmt: skip
    momentum: float | None = option("number", TRAINING, "β₁ of adam, μ of momentum.", least=0,
        below=1, words="0.5 of adam and momentum")  # fmt: skip
    decay: float | None = option("number", TRAINING, "β₂ of adam, ρ of rmsprop.", least=0, below=1,
        words="0.999 of adam, 0.9 of rmsprop and wasserstein-gp")  # fmt: skip
    schedule: str | None = same("schedule", default=None, words="cosine in the plane, constant of "
        "images")  # fmt: skip
    averaging: float | None = option("number", TRAINING, "Draw samples from a moving average of "
        "the generator's parameters, which keeps this share at each step; 0 for none.", least=0,
        below=1, words="0.99 in the plane, 0 of images")  # fmt: skip
    batch_size: int | None = same("batch_size", words="128 in the plane, 64 of images")
    iterations: int | None = option("integer", TRAINING, "Steps of the generator.", least=1,
        words="5000 in the plane, 3000 of images")  # fmt: skip
    seed: int | None = option("integer", TRAINING, "Of the weights, batches, z and noise, each "
        "its own stream.", least=0, default=0)  # fmt: skip
    device: str | None = same("device")
    cuda_graphs: str | None = same("cuda_graphs")
    threads: int | None = option("integer", TRAINING, "BLAS threads.", least=1,
        words="1 in the plane, else as the BLAS has it")  # fmt: skip
    checkpoints: int | None = option("integer", SCORES, "How often, evenly over the run, samples "
        "are scored and drawn.", least=1, default=20)  # fmt: skip
    averaged: int | None = option("integer", SCORES, "The final scores are means over so many "
        "last checkpoints.", least=1, default=3)  # fmt: skip
    scored_samples: int | None = option("integer", SCORES, "Samples drawn for each of these; "
        "earlier ones make do with fewer.", least=2, words="2500 in the plane, 26000 of stacked, "
        "10000 else")  # fmt: skip


# -- the recipe ------------------------------------------------------------------------------------
# in the plane and of tables; of images of at most 256 features (digits have 64); of larger ones
# (MNIST's have 784). The plane's is the generator of codes of `nembp experiment show gan-grid`,
# which covers 24.9 modes of 25, 99 % of its samples in them; without its way back it covers 3, or
# 24.9 (96 %) with a discriminator three times as fast at a third of the rate
SMALL: Final = 256
BY_SHAPE: Final[dict[str, tuple[Any, Any, Any]]] = {
    "latent": (12, 16, 64),
    "latent_law": ("binary", "gaussian", "gaussian"),
    "generator": ((128, 128), (128, 128), (256, 512)),
    "discriminator": ((128, 128), (128, 128), (512, 256)),
    "discriminator_activation": ("relu", "leaky-relu", "leaky-relu"),
    "discriminator_weight": (0.01, 0.01, 0.01),
    "generator_weight": (0.5, 1.0, 1.0),
    "weight_schedule": ("cosine", "constant", "constant"),
    "backward_flow": (True, False, False),
    "schedule": ("cosine", "constant", "constant"),
    "averaging": (0.99, 0.0, 0.0),
    "clip": (0.1, 0.03, 0.03),
    "penalty_weight": (1.0, 10.0, 10.0),
    "batch_size": (128, 64, 64),
    "iterations": (5000, 3000, 3000),
    "threads": (1, None, None),  # products too small to share, and it is other runs' core
}
WIDEST_LATENT: Final = 32  # of tables
SCALES: Final = {"grid": 0.5}  # in which the networks see points

# Adam at β₁ = 1/2 (Radford, Metz, Chintala 2016); a clipped critic gets RMSProp (Arjovsky and
# others 2017), one with a penalty shorter memory (Gulrajani and others 2017)
MOMENTUM: Final = {"adam": 0.5, "momentum": 0.5}
DECAY: Final = {"adam": 0.999, "rmsprop": 0.9}
RATES: Final[dict[str, float]] = {"adam": 1e-3, "rmsprop": 1e-3, "momentum": 0.05, "sgd": 0.1}
HIGH_RATES: Final = {"adam": 3e-3}
COLOUR_RATES: Final = {"adam": 2e-4, "rmsprop": 5e-5}


def gan_recipe(data: Dataset, config: GanConfig | None = None) -> GanConfig:
    """Fill in what a configuration leaves open, and keep what it sets.

    Not what None means something else for: data_dir and how it is read, limit, samples, modes, std,
    scale, backward_weight, momentum and decay (of optimizers that have none), threads, and
    scored_samples, which is the scorer's.

    >>> from nembp.datasets import load
    >>> filled = gan_recipe(load("digits"), GanConfig(dataset="digits", kind="wasserstein"))
    >>> filled.optimizer, filled.critic_steps, filled.latent
    ('rmsprop', 5, 16)
    """
    config = config or GanConfig(dataset=data.name)
    chosen, defaults = config.chosen(), GanConfig.defaults()
    kind, image, colour = chosen.get("kind", defaults["kind"]), data.is_image, is_colour(data)
    critic = kind in ("wasserstein", "wasserstein-gp")
    column = 0 if not image else 1 if data.features <= SMALL and not colour else 2
    defaults |= {
        name: values[column] for name, values in BY_SHAPE.items() if values[column] is not None
    }
    if not image:
        defaults["latent"] = max(defaults["latent"], min(WIDEST_LATENT, data.features))
    if colour:
        defaults |= _convolutions(*data.shape[:2], normalized=kind != "wasserstein-gp")
    defaults["bidirectional"] = "none" if critic or image else "generator"
    defaults["critic_steps"] = 5 if critic else 1
    defaults["noise_place"] = ("critic/input",) if critic else ("discriminator/forward",)
    image_generator = image and config.bidirectional in ("generator", "both")
    if image_generator:
        # that of `nembp experiment show gan-mnist-collapse`; a clipped critic's gradient is about a
        # hundredth of a discriminator's, and so is the weight beside it; through fewer pixels D
        # tells G less, and 1 does harm to digits
        weight = 0.01 if critic else 0.1 if data.features <= SMALL else 1.0
        defaults |= {
            "generator_weight": weight, "weight_schedule": "cosine", "backward_flow": True,
        }  # fmt: skip
    rates = COLOUR_RATES if colour else {} if critic else HIGH_RATES
    rates = rates if colour or image_generator or not image else {}
    optimizer = chosen.get("optimizer", "rmsprop" if kind == "wasserstein" else "adam")
    defaults["optimizer"] = optimizer
    defaults["learning_rate"] = rates.get(optimizer, RATES[optimizer])
    defaults["momentum"] = MOMENTUM.get(optimizer)
    defaults["decay"] = DECAY.get(optimizer)
    if kind == "wasserstein-gp" and optimizer == "adam":
        defaults["decay"] = 0.9
    if config.backward_weight is not None:
        defaults["discriminator_weight"] = config.backward_weight
        defaults["generator_weight"] = config.backward_weight
    filled = defaults | chosen
    filled.setdefault("discriminator_rate", filled["learning_rate"])
    if data.name in SCALES:
        filled.setdefault("scale", SCALES[data.name])
    return GanConfig(**filled)


def _convolutions(height: int, width: int, *, normalized: bool) -> dict[str, Any]:
    """Return layers as Radford, Metz and Chintala 2016 have them (DCGAN), of even sides.

    The discriminator's first has 32 channels, and each has twice as many at half the sides, of 4 at
    least. A penalized critic has no batch normalization, through which samples would mix.
    """
    channels: list[int] = []
    while height % 2 == width % 2 == 0 and min(height, width) >= 8:
        height, width = height // 2, width // 2
        channels.append(32 << len(channels))
    if not channels:
        return {}
    bn, top = "bn" if normalized else "", channels[-1]
    up = [f"up{count}x4s2bn" for count in channels[-2::-1]]
    return {
        "generator": (f"{height * width * top}bn", f"reshape{height}x{width}x{top}", *up),
        "discriminator": (
            f"conv{channels[0]}x4s2", *(f"conv{count}x4s2{bn}" for count in channels[1:]),
        ),
    }  # fmt: skip
