"""Options that have to suit each other and the data, found out before anything is computed."""

from __future__ import annotations

from nembp.architecture import chain
from nembp.datasets import Dataset
from nembp.datasets.reading import Augmentation
from nembp.engine.network import Layer
from nembp.errors import ArchitectureError
from nembp.runs.config import RunConfig

__all__ = ["architecture", "augmentation", "check_options"]


def augmentation(config: RunConfig) -> Augmentation:
    """Return what an option such as "flips,crops4" asks for."""
    kinds = (config.augment or "none").split(",")
    crops = [int(kind.removeprefix("crops")) for kind in kinds if kind.startswith("crops")]
    return Augmentation(flip="flips" in kinds, crop=sum(crops))


def architecture(
    config: RunConfig, data: Dataset
) -> tuple[int | tuple[int, ...], tuple[int | str, ...], int]:
    """Return the input's shape, the hidden layers and the number of outputs."""
    shape = data.shape if data.is_image else data.features
    return shape, config.layers or (), data.outputs


def check_options(config: RunConfig, data: Dataset) -> None:
    """Raise ArchitectureError where options contradict each other or the data."""
    if config.forward == "multinomial" and not data.is_classification:
        raise ArchitectureError(
            f"forward multinomial describes classes, but the targets of {data.source} are "
            "numbers; use --forward gaussian, or say --task classification if they are labels"
        )
    if config.backward == "none" and config.noise != "none" and config.noise_target != "forward":
        raise ArchitectureError(
            f"noise_target {config.noise_target} needs a backward direction, and backward is "
            "none; use --noise-target forward, or train both directions"
        )
    if config.scaling == "channel" and config.backward in ("bernoulli", "multinomial"):
        raise ArchitectureError(
            f"backward {config.backward} describes pixels in [0, 1], which scaling channel leaves; "
            "use --scaling unit, or --backward gaussian"
        )
    augmented = augmentation(config)
    if augmented and not data.is_image:
        raise ArchitectureError(
            f"augment {config.augment} changes images, but the samples of {data.source} have the "
            f"shape {data.shape}; use --augment none"
        )
    if augmented.crop and augmented.crop >= min(data.shape[:2]):
        raise ArchitectureError(
            f"augment {config.augment} would shift images of {data.shape[0]}x{data.shape[1]} "
            f"pixels by up to {augmented.crop}; expected at most "
            f"crops{min(data.shape[:2]) - 1}, or --augment none"
        )
    layers, _ = chain(*architecture(config, data))
    _check_noise(config, [layer for layer in layers[1:-1] if layer.activation is not None])
    if config.patience is not None and not config.validation_fraction:
        raise ArchitectureError(
            "patience needs a validation split to watch, since the test split must not choose; "
            "expected --validation-fraction above 0, such as 0.1"
        )


def _check_noise(config: RunConfig, hidden: list[Layer]) -> None:
    """Raise ArchitectureError where noise is asked for on signals that cannot have it."""
    places = set(config.noise_place or ()) - {"target"}
    if config.noise == "none" or not places:
        return
    if places & {"hidden", "last-hidden"} and not hidden:
        raise ArchitectureError(
            "noise_place hidden needs a hidden layer, and layers names none; use --noise-place "
            "target or input, or give --layers"
        )
    if {"hidden", "last-hidden"} <= places:
        raise ArchitectureError(
            "noise_place hidden holds the last hidden layer already; name one of the two"
        )
    if config.noise_screening == "component":
        raise ArchitectureError(
            "noise on signals is screened by whole samples: one neuron's share of the gain is not "
            "its own; use --noise-screening vector or expectation, or --noise-place target"
        )
