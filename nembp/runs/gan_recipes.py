"""Recipes of adversarial trainings: what an option is where nobody sets it.

A run writes down what it used, so its ``config.toml`` does not change when a recipe does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nembp.runs.gan_config import GanConfig

if TYPE_CHECKING:
    from nembp.datasets import Dataset

__all__ = ["ALWAYS", "describe_default", "gan_recipe"]

# whatever the data
ALWAYS: Final[dict[str, Any]] = {
    "split_seed": 0,
    "kind": "vanilla",
    "weight_until": 1.0,
    "backward_labels": "real",
    "backward_permuted": False,
    "classes": False,
    "latent_std": 1.0,
    "generator_activation": "relu",
    "dtype": "float32",
    "noise": "none",
    "noise_std": 0.1,
    "noise_decay": 1.0,
    "noise_schedule": "power",
    "noise_until": 1.0,
    "noise_law": "gaussian",
    "noise_mode": "additive",
    "noise_screening": "auto",
    "noise_rejected": "reflect",
    "seed": 0,
    "device": "auto",
    "cuda_graphs": "auto",
    "checkpoints": 20,
    "averaged": 3,
}

# points in the plane: the generator of codes of `nembp experiment show gan-grid`, which covers 24.9
# modes of 25, 99 % of its samples in them; without its way back it covers 3, or 24.9 (96 %) with a
# discriminator three times as fast at a third of the rate
PLANE: Final[dict[str, Any]] = {
    "latent": 12,
    "latent_law": "binary",
    "generator": (128, 128),
    "discriminator": (128, 128),
    "discriminator_activation": "relu",
    "discriminator_weight": 0.01,
    "generator_weight": 0.5,
    "weight_schedule": "cosine",
    "backward_flow": True,
    "schedule": "cosine",
    "averaging": 0.99,
    "clip": 0.1,
    "penalty_weight": 1.0,
    "batch_size": 128,
    "iterations": 5000,
    "threads": 1,  # products too small to share, and it is other runs' core
}
WIDEST_LATENT: Final = 32  # of tables
SCALES: Final = {"grid": 0.5}  # in which the networks see points
HIGH_RATES: Final = {"adam": 3e-3}
SMALL_IMAGES: Final[dict[str, Any]] = {
    "latent": 16,
    "latent_law": "gaussian",
    "generator": (128, 128),
    "discriminator": (128, 128),
    "discriminator_activation": "leaky-relu",
    "discriminator_weight": 0.01,
    "generator_weight": 1.0,
    "weight_schedule": "constant",
    "backward_flow": False,
    "schedule": "constant",
    "averaging": 0.0,
    "clip": 0.03,
    "penalty_weight": 10.0,
    "batch_size": 64,
    "iterations": 3000,
}
IMAGES: Final[dict[str, Any]] = SMALL_IMAGES | {
    "latent": 64,
    "generator": (256, 512),
    "discriminator": (512, 256),
}
# a bidirectional generator of images: that of `nembp experiment show gan-mnist-collapse`; a clipped
# critic's gradient is about a hundredth of a discriminator's, and so is the weight beside it
IMAGE_GENERATOR: Final[dict[str, Any]] = {
    "generator_weight": 1.0,
    "weight_schedule": "cosine",
    "backward_flow": True,
}
BESIDE_CRITIC: Final = 0.01
OF_SMALL_IMAGES: Final = 0.1  # fewer pixels through which D tells G as much; 1 does harm to digits
# of several channels: convolutions
CHANNELS: Final = 32  # of the discriminator's first layer; twice as many at half the sides
LAST_SIDE: Final = 4
COLOUR_RATES: Final = {"adam": 2e-4, "rmsprop": 5e-5}
SMALL: Final = 256  # features: digits have 64, MNIST 784

# Adam at β₁ = 1/2 (Radford, Metz, Chintala 2016); a clipped critic gets RMSProp (Arjovsky and
# others 2017), one with a penalty shorter memory (Gulrajani and others 2017)
MOMENTUM: Final = {"adam": 0.5, "momentum": 0.5}
DECAY: Final = {"adam": 0.999, "rmsprop": 0.9}
PENALTY_DECAY: Final = DECAY | {"adam": 0.9}
RATES: Final[dict[str, float]] = {"adam": 1e-3, "rmsprop": 1e-3, "momentum": 0.05, "sgd": 0.1}

_IN_WORDS: Final = {
    "dataset": "ring",
    "backward_weight": "by the data and the player: see the two below",
    "discriminator_weight": "0.01",
    "bidirectional": "generator in the plane, none of images or with a critic",
    "generator_weight": "0.5 in the plane, 1 of images (0.1 of small ones, 0.01 beside a critic)",
    "weight_schedule": "cosine; constant of images unless the generator is bidirectional",
    "backward_flow": "on where it is the generator that is bidirectional",
    "schedule": "cosine in the plane, constant of images",
    "averaging": "0.99 in the plane, 0 of images",
    "critic_steps": "1, or 5 for a critic",
    "clip": "0.1 in the plane, 0.03 of images",
    "penalty_weight": "1 in the plane, 10 of images",
    "latent": "12 in the plane, 16 or 64 of images",
    "latent_law": "binary in the plane, gaussian of images",
    "generator": "128,128, or 256,512 above 256 features; images of several channels, by "
    "their size: 2048bn,reshape4x4x128,up64x4s2bn,up32x4s2bn",
    "discriminator": "128,128, or 512,256 above 256 features; images of several channels: "
    "conv32x4s2,conv64x4s2bn,conv128x4s2bn",
    "discriminator_activation": "relu in the plane, leaky-relu of images",
    "noise_place": "discriminator/forward, or critic/input",
    "optimizer": "adam, or rmsprop for a clipped critic",
    "learning_rate": "0.001 for adam and rmsprop (0.003 for adam in the plane, and of images where "
    "the generator is bidirectional, but for a critic; images of several channels: 0.0002 and "
    "0.00005), 0.05 momentum, 0.1 sgd",
    "discriminator_rate": "the learning rate",
    "momentum": "0.5 of adam and momentum",
    "decay": "0.999 of adam, 0.9 of rmsprop and wasserstein-gp",
    "batch_size": "128 in the plane, 64 of images",
    "iterations": "5000 in the plane, 3000 of images",
    "threads": "1 in the plane, else as the BLAS has it",
    "scored_samples": "2500 in the plane, 26000 of stacked, 10000 else",
    "samples": "100000, or 128000 of stacked",
    "modes": "8 of ring, 25 of grid",
    "std": "0.01 of ring, 0.05 of grid",
    "scale": "1 of ring, 0.5 of grid",
}


def gan_recipe(data: Dataset, config: GanConfig | None = None) -> GanConfig:
    """Fill in what a configuration leaves open.

    Parameters
    ----------
    data : Dataset
        What is to be imitated.
    config : GanConfig, optional
        What is set already, and stays.

    Returns
    -------
    GanConfig
        Without a None but for what has another default: data_dir, limit, samples, modes, std,
        scale, image_size, backward_weight, momentum and decay (of optimizers that have none),
        threads, and scored_samples, which is the scorer's.

    >>> from nembp.datasets import load
    >>> filled = gan_recipe(load("digits"), GanConfig(dataset="digits", kind="wasserstein"))
    >>> filled.optimizer, filled.critic_steps, filled.latent
    ('rmsprop', 5, 16)
    """
    config = config or GanConfig(dataset=data.name)
    set_already = {name: value for name, value in vars(config).items() if value is not None}
    kind = set_already.get("kind", ALWAYS["kind"])
    critic = kind in ("wasserstein", "wasserstein-gp")
    optimizer = set_already.get("optimizer", "rmsprop" if kind == "wasserstein" else "adam")
    of_images = data.is_image and config.bidirectional in ("generator", "both")
    rate = _rates(data, kind, of_images).get(optimizer, RATES[optimizer])
    defaults: dict[str, Any] = {
        **ALWAYS,
        **_by_shape(data, kind),
        "bidirectional": "none" if critic or data.is_image else "generator",
        "critic_steps": 5 if critic else 1,
        "optimizer": optimizer,
        "learning_rate": rate,
        "momentum": MOMENTUM.get(optimizer),
        "decay": (PENALTY_DECAY if kind == "wasserstein-gp" else DECAY).get(optimizer),
        "noise_place": ("critic/input",) if critic else ("discriminator/forward",),
    }
    if of_images:
        defaults |= IMAGE_GENERATOR
        if data.features <= SMALL:
            defaults["generator_weight"] = OF_SMALL_IMAGES
        if critic:
            defaults["generator_weight"] = BESIDE_CRITIC
    if config.backward_weight is not None:
        for player in ("discriminator", "generator"):
            defaults[f"{player}_weight"] = config.backward_weight
    filled = defaults | set_already
    filled.setdefault("discriminator_rate", filled["learning_rate"])
    if data.name in SCALES:
        filled.setdefault("scale", SCALES[data.name])
    return GanConfig(**filled)


def _by_shape(data: Dataset, kind: str) -> dict[str, Any]:
    if not data.is_image:
        return PLANE | {"latent": max(PLANE["latent"], min(WIDEST_LATENT, data.features))}
    if _is_colour(data):
        return IMAGES | _convolutions(*data.shape[:2], normalized=kind != "wasserstein-gp")
    return SMALL_IMAGES if data.features <= SMALL else IMAGES


def _rates(data: Dataset, kind: str, of_images: bool) -> dict[str, float]:
    if _is_colour(data):
        return COLOUR_RATES
    high = kind in ("vanilla", "minimax") and (of_images or not data.is_image)
    return HIGH_RATES if high else {}


def _is_colour(data: Dataset) -> bool:
    return data.is_image and data.shape[2] > 1


def _convolutions(height: int, width: int, *, normalized: bool) -> dict[str, Any]:
    """Return layers as Radford, Metz and Chintala 2016 have them (DCGAN), of even sides.

    A penalized critic has no batch normalization, through which samples would mix.
    """
    halvings = 0
    while height % 2 == width % 2 == 0 and min(height, width) >= 2 * LAST_SIDE:
        height, width, halvings = height // 2, width // 2, halvings + 1
    if not halvings:
        return {}
    first, *more = (CHANNELS << k for k in range(halvings))
    top = more[-1] if more else first
    bn = "bn" if normalized else ""
    up = [f"up{channels}x4s2bn" for channels in [first, *more][-2::-1]]
    return {
        "generator": (f"{height * width * top}bn", f"reshape{height}x{width}x{top}", *up),
        "discriminator": (f"conv{first}x4s2", *(f"conv{channels}x4s2{bn}" for channels in more)),
    }


def describe_default(name: str) -> str:
    """Say in words what an option is where it is not set; "" where that is nothing."""
    if name in _IN_WORDS:
        return _IN_WORDS[name]
    value = ALWAYS.get(name)
    if value is None or value is False:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
