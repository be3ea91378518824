"""What `nembp gan` can be asked for, and the recipe for what is left open.

A run writes down what it used, so its ``config.toml`` does not change when the recipe does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, get_args

from nembp.adversarial import settings
from nembp.runs.config import RunConfig, is_colour
from nembp.runs.options import Config, File, Layers, Names, Size, option

if TYPE_CHECKING:
    from nembp.datasets import Dataset


def same(name: str, **changes: Any) -> Any:
    """Return the field of an option that `RunConfig` has too, with changes."""
    metadata = RunConfig.__dataclass_fields__[name].metadata
    return dataclasses.field(default=None, metadata={**metadata, **changes})


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
    groups: ClassVar = {
        "dataset": "Data", "kind": "Game", "latent": "Networks", "noise": "NEM noise",
        "optimizer": "Training", "checkpoints": "Scores",
    }  # fmt: skip

    # fmt: off
    dataset: str = option("ring or grid (Gaussians in the plane), digits, mnist, stacked (three "
        "MNIST digits as the colours of one image), or another of `nembp data list`.", words="ring",
        of="ring")
    data_dir: File | None = same("data_dir")
    limit: int | None = same("limit")
    samples: int | None = option("Of ring, grid and stacked: draw so many to train on.", "≥ 1",
        words="100000, or 128000 of stacked")
    modes: int | None = option("Gaussians of ring, or of grid, where it is a square.", "≥ 1",
        words="8 of ring, 25 of grid")
    std: float | None = option("Standard deviation of each of these Gaussians.", "> 0",
        words="0.01 of ring, 0.05 of grid")
    scale: float | None = option("Of ring and grid: the networks see points times this.", "> 0",
        words="1 of ring, 0.5 of grid")
    split_seed: int | None = option("Seed of samples that are drawn, apart from --seed so that "
        "runs of different seeds share them.", "≥ 0", default=0)
    image_size: Size | None = same("image_size")
    delimiter: str | None = same("delimiter")
    header: bool | None = same("header")
    decimal: str | None = same("decimal")
    image_order: str | None = same("image_order")
    transpose: bool | None = same("transpose")
    x: str | None = same("x")
    y: str | None = same("y")
    max_bytes: int | None = same("max_bytes")
    kind: str | None = option("What the players play for: vanilla (the generator raises log D), "
        "minimax (lowers log(1 - D)), wasserstein (a clipped critic), wasserstein-gp (with "
        "gradient penalty).", choices=get_args(settings.Kind), default="vanilla")
    bidirectional: str | None = option("Whose backward direction is trained too: the "
        "discriminator's label → x, the generator's x → z, which keeps modes apart, or both.",
        choices=get_args(settings.Bidirectional), words="generator in the plane, none of images or "
        "with a critic")
    backward_weight: float | None = option("Weight of the backward direction: the precision 1/v of "
        "its gaussian.", "> 0", words="by the data and the player: see the two below")
    discriminator_weight: float | None = option("The same for the discriminator alone.", "> 0",
        words="0.01")
    generator_weight: float | None = option("The same for the generator alone.", "> 0",
        words="0.5 in the plane, 1 of images (0.1 of small ones, 0.01 beside a critic)")
    weight_schedule: str | None = option("Schedule of the backward weights over the run; rise: up, "
        "in its first tenth.", choices=get_args(settings.WeightSchedule), words="cosine; constant "
        "of images unless the generator is bidirectional")
    weight_until: float | None = option("Share of the run after which a schedule that falls is 0.",
        "> 0 and ≤ 1", default=1.0)
    backward_labels: str | None = option("Which labels have a backward target: real ones, or "
        "generated ones too.", choices=get_args(settings.BackwardLabels), default="real")
    backward_flow: bool | None = option("Let the gradient of log p(z | G(z)) move G(z) too, not "
        "only the way back.", words="on where it is the generator that is bidirectional")
    backward_permuted: bool | None = option("Control: backward targets that mean nothing, each "
        "sample's permuted.", default=False)
    classes: bool | None = option("A discriminator that tells the real classes apart: K + 1 "
        "outputs.", default=False)
    critic_steps: int | None = option("Steps of the discriminator for each of the generator.",
        "≥ 1", words="1, or 5 for a critic")
    clip: float | None = option("Bound of a wasserstein critic's weights.", "> 0",
        words="0.1 in the plane, 0.03 of images")
    penalty_weight: float | None = option("Of wasserstein-gp: λ (‖∇f‖ - 1)².", "> 0",
        words="1 in the plane, 10 of images")
    latent: int | None = option("Size of z.", "≥ 1", words="12 in the plane, 16 or 64 of images")
    latent_law: str | None = option("z ~ N(0, I), or fair coins of 0 and 1, which a bidirectional "
        "generator's way back then names.", choices="gaussian binary", words="binary in the plane, "
        "gaussian of images")
    latent_std: float | None = option("Standard deviation of a gaussian z.", "> 0", default=1.0)
    generator: Layers | None = option("Hidden layers of the generator, as `nembp train --layers` "
        "has them: 128,128 or 1024,reshape4x4x64,up32x4.", words="128,128, or 256,512 above 256 "
        "features; images of several channels, by their size: "
        "2048bn,reshape4x4x128,up64x4s2bn,up32x4s2bn")
    discriminator: Layers | None = option("Hidden layers of the discriminator, such as 128,128 or "
        "conv32x4s2.", words="128,128, or 512,256 above 256 features; images of several channels: "
        "conv32x4s2,conv64x4s2bn,conv128x4s2bn")
    generator_activation: str | None = same("activation", help="Of the generator's hidden neurons.")
    discriminator_activation: str | None = same("activation", help="Of the discriminator's.",
        default=None, words="relu in the plane, leaky-relu of images")
    dtype: str | None = same("dtype")
    noise: str | None = same("noise")
    noise_place: Names | None = option("What receives it: the discriminator's targets, its input "
        "(real samples and generated ones, in both players' steps), the x it draws backward, the z "
        "that the generator is sent back to, a Wasserstein critic's input; several with commas "
        "between them.", choices="discriminator/forward discriminator/input discriminator/backward "
        "generator/backward critic/input", words="discriminator/forward, or critic/input")
    noise_std: float | None = same("noise_std", words=None)
    noise_decay: float | None = same("noise_decay")
    noise_schedule: str | None = option("Schedule of its standard deviation over the run; power: "
        "the annealing above.", choices=get_args(settings.NoiseSchedule), default="power")
    noise_until: float | None = option("Share of the run after which a schedule that falls is 0.",
        "> 0 and ≤ 1", default=1.0)
    noise_law: str | None = same("noise_law")
    noise_mode: str | None = same("noise_mode")
    noise_screening: str | None = same("noise_screening")
    noise_rejected: str | None = same("noise_rejected")
    optimizer: str | None = same("optimizer", default=None,
        words="adam, or rmsprop for a clipped critic")
    learning_rate: float | None = same("learning_rate", words="0.001 for adam and rmsprop (0.003 "
        "for adam in the plane, and of images where the generator is bidirectional, but for a "
        "critic; images of several channels: 0.0002 and 0.00005), 0.05 momentum, 0.1 sgd")
    discriminator_rate: float | None = option("The discriminator's own.", "> 0", words="the "
        "learning rate")
    momentum: float | None = option("β₁ of adam, μ of momentum.", "≥ 0 and < 1", words="0.5 of "
        "adam and momentum")
    decay: float | None = option("β₂ of adam, ρ of rmsprop.", "≥ 0 and < 1", words="0.999 of adam, "
        "0.9 of rmsprop and wasserstein-gp")
    schedule: str | None = same("schedule", default=None,
        words="cosine in the plane, constant of images")
    averaging: float | None = option("Draw samples from a moving average of the generator's "
        "parameters, which keeps this share at each step; 0 for none.", "≥ 0 and < 1",
        words="0.99 in the plane, 0 of images")
    batch_size: int | None = same("batch_size", words="128 in the plane, 64 of images")
    iterations: int | None = option("Steps of the generator.", "≥ 1", words="5000 in the plane, "
        "3000 of images")
    seed: int | None = same("seed", help="Of the weights, batches, z and noise, each its own "
        "stream.")
    device: str | None = same("device")
    cuda_graphs: str | None = same("cuda_graphs")
    threads: int | None = same("threads", help="BLAS threads.", words="1 in the plane, else as the "
        "BLAS has it")
    checkpoints: int | None = option("How often, evenly over the run, samples are scored and "
        "drawn.", "≥ 1", default=20)
    averaged: int | None = option("The final scores are means over so many last checkpoints.",
        "≥ 1", default=3)
    scored_samples: int | None = option("Samples drawn for each of these; earlier ones make do "
        "with fewer.", "≥ 2", words="2500 in the plane, 26000 of stacked, 10000 else")
    # fmt: on


# -- the recipe ------------------------------------------------------------------------------------
SMALL: Final = 256  # features of images that get small players: digits have 64, MNIST's 784
WIDEST_LATENT: Final = 32  # of tables
SCALES: Final = {"grid": 0.5}  # in which the networks see points

# Adam at β₁ = 1/2 (Radford, Metz, Chintala 2016); a clipped critic gets RMSProp (Arjovsky and
# others 2017), one with a penalty shorter memory (Gulrajani and others 2017)
MOMENTUM: Final = {"adam": 0.5, "momentum": 0.5}
DECAY: Final = {"adam": 0.999, "rmsprop": 0.9}
RATES: Final = {"adam": 1e-3, "rmsprop": 1e-3, "momentum": 0.05, "sgd": 0.1}
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
    kind, image, colour = config.kind or "vanilla", data.is_image, is_colour(data)
    critic = kind in ("wasserstein", "wasserstein-gp")
    small = data.features <= SMALL and not colour
    goes_back = image and config.bidirectional in ("generator", "both")
    optimizer = config.optimizer or ("rmsprop" if kind == "wasserstein" else "adam")
    rate = RATES[optimizer]
    if optimizer == "adam" and (goes_back or not image) and not critic:
        rate = 3e-3
    rate = COLOUR_RATES.get(optimizer, RATES[optimizer]) if colour else rate
    rate = rate if config.learning_rate is None else config.learning_rate
    weight = config.backward_weight
    return config.filled(
        (True, {
            "latent": 64, "latent_law": "gaussian", "generator": (256, 512),
            "discriminator": (512, 256), "discriminator_activation": "leaky-relu",
            "bidirectional": "none", "discriminator_weight": 0.01, "generator_weight": 1.0,
            "weight_schedule": "constant", "backward_flow": False, "critic_steps": 1, "clip": 0.03,
            "penalty_weight": 10.0, "noise_place": ("discriminator/forward",),
            "optimizer": optimizer, "learning_rate": rate, "discriminator_rate": rate,
            "momentum": MOMENTUM.get(optimizer), "decay": DECAY.get(optimizer),
            "schedule": "constant", "averaging": 0.0, "batch_size": 64, "iterations": 3000,
            "scale": SCALES.get(data.name),
        }),
        (small, {"latent": 16, "generator": (128, 128), "discriminator": (128, 128)}),
        # the generator of codes of `nembp experiment show gan-grid`, which covers 24.9 modes of 25,
        # 99 % of its samples in them; without its way back it covers 3, or 24.9 (96 %) with a
        # discriminator three times as fast at a third of the rate
        (not image, {
            "latent": max(12, min(WIDEST_LATENT, data.features)), "latent_law": "binary",
            "generator": (128, 128), "discriminator": (128, 128),
            "discriminator_activation": "relu", "bidirectional": "generator",
            "generator_weight": 0.5, "weight_schedule": "cosine", "backward_flow": True,
            "clip": 0.1, "penalty_weight": 1.0, "schedule": "cosine", "averaging": 0.99,
            "batch_size": 128, "iterations": 5000,
            "threads": 1,  # products too small to share, and it is other runs' core
        }),
        (colour, _convolutions(data.shape, normalized=kind != "wasserstein-gp")),
        (critic, {"bidirectional": "none", "critic_steps": 5, "noise_place": ("critic/input",)}),
        (kind == "wasserstein-gp" and optimizer == "adam", {"decay": 0.9}),
        # that of `nembp experiment show gan-mnist-collapse`; through fewer pixels D tells G less,
        # and 1 does harm to digits; a clipped critic's gradient is about a hundredth of a
        # discriminator's, and so is the weight beside it
        (goes_back, {"weight_schedule": "cosine", "backward_flow": True}),
        (goes_back and data.features <= SMALL, {"generator_weight": 0.1}),
        (goes_back and critic, {"generator_weight": 0.01}),
        (weight is not None, {"discriminator_weight": weight, "generator_weight": weight}),
    )  # fmt: skip


def _convolutions(shape: tuple[int, ...], *, normalized: bool) -> dict[str, Any]:
    """Return layers as Radford, Metz and Chintala 2016 have them (DCGAN), of even sides.

    The discriminator's first has 32 channels, and each has twice as many at half the sides, of 4 at
    least. A penalized critic has no batch normalization, through which samples would mix.
    """
    (height, width), channels = (*shape, 1)[:2], list[int]()
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
