"""From a configuration to data, network and splits that are ready to train."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nembp.architectures import chain, network
from nembp.augmentation import Augmentation
from nembp.backend import Backend, get_backend
from nembp.batches import BatchReader
from nembp.datasets import Dataset, Scaling, Split, class_means, feature_means, load
from nembp.datasets.scaling import extremes, unit_range
from nembp.datasets.splitting import random_bits, shuffled, stratified_choice
from nembp.errors import ArchitectureError, DeviceError
from nembp.likelihoods import get_likelihood
from nembp.network import Network
from nembp.runs.config import RunConfig
from nembp.runs.recipes import ALWAYS, recipe
from nembp.training import set_input_bias

__all__ = ["Note", "Prepared", "choose_backend", "hold_out", "load_data", "prepare"]

Note = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a run trains.

    Attributes
    ----------
    config : RunConfig
        Complete: a recipe has filled what was open.
    data : Dataset
        With the scalings that suit the likelihoods.
    train, validation : Split
        The training samples, and those held out of them, or None.
    net : Network
        Before its first step.
    centroids : ndarray of float64, shape (classes, features), or None
        Class means of ``train`` in the network's units.
    """

    config: RunConfig
    data: Dataset
    train: Split
    validation: Split | None
    net: Network
    centroids: NDArray[np.float64] | None

    def reader(self, split: Split, *, augmented: bool = False) -> BatchReader:
        """Return the reader that feeds a split to the network, augmented as configured or plain."""
        data, net = self.data, self.net
        return BatchReader(
            split,
            data.x_scaling,
            data.y_scaling,
            data.outputs,
            net.backend,
            net.dtype,
            augmentation=_augmentation(self.config) if augmented else None,
            seed=self.config.seed or 0,
        )


def load_data(config: RunConfig) -> Dataset:
    """Load the data set that a configuration names; the errors of `nembp.datasets.load`."""
    defaults = {name: ALWAYS[name] for name in ("task", "test_fraction", "split_seed", "scaling")}
    chosen = {name: getattr(config, name) for name in defaults}
    chosen = {name: defaults[name] if value is None else value for name, value in chosen.items()}
    return load(
        config.dataset,
        config.data_dir,
        targets=config.targets,
        task=chosen["task"],
        test_fraction=chosen["test_fraction"],
        seed=chosen["split_seed"],
        limit=config.limit,
        scaling=chosen["scaling"],
        image_size=config.image_size,
    )


def prepare(config: RunConfig, note: Note = lambda text: None) -> Prepared:
    """Load the data, fill in the recipe, and build the network with its input bias at the mean.

    Parameters
    ----------
    config : RunConfig
        None where the recipe decides.
    note : callable
        Told what the user should know and is no error.

    Raises
    ------
    ArchitectureError
        If options do not go together.
    DataError, DeviceError
        If the data or the device cannot be used.
    """
    data = load_data(config)
    filled = recipe(data, config)
    _check(filled, data)
    backend = choose_backend(filled.device or "auto", note)
    path = None if filled.data_dir is None else os.path.abspath(filled.data_dir)
    filled = filled.replace({"device": backend.name, "data_dir": path})
    data = fit_scalings(data, filled)
    train, validation = hold_out(data, filled)
    net = _build(filled, data, backend)
    set_input_bias(net, feature_means(train, data.x_scaling))
    centroids = None
    if data.is_classification:
        centroids = class_means(train, data.x_scaling, data.outputs)
    return Prepared(filled, data, train, validation, net, centroids)


def choose_backend(device: str, note: Note) -> Backend:
    """Return the backend of a device name; say why where "auto" falls back to the CPU.

    Raises
    ------
    DeviceError
        If "gpu" is asked for and cannot be used.
    """
    if device != "auto":
        return get_backend(device)
    try:
        return get_backend("gpu")
    except DeviceError as error:
        note(f"training on the CPU: {error}")
        return get_backend("cpu")


def hold_out(data: Dataset, config: RunConfig) -> tuple[Split, Split | None]:
    """Split the training samples into those to train on and a validation split, or None.

    Stratified by class, drawn from the stream "validation" of ``split_seed``.

    Raises
    ------
    ArchitectureError
        If too few samples would be left to train on.
    """
    fraction = config.validation_fraction or 0.0
    if not fraction:
        return data.train, None
    n = len(data.train)
    n_train = n - max(1, round(n * fraction))
    least = max(1, len(data.classes))
    if n_train < least:
        raise ArchitectureError(
            f"validation_fraction={fraction:g} leaves {n_train} of {n} samples to train on; "
            f"expected at least {least}. Lower it"
        )
    bits = random_bits(config.split_seed or 0, "validation")
    if data.is_classification:
        kept, held = stratified_choice(data.train.y, n_train, bits)
    else:
        order = shuffled(n, bits)
        kept, held = order[:n_train], order[n_train:]
    return data.train.subset(kept), data.train.subset(held)


def fit_scalings(data: Dataset, config: RunConfig) -> Dataset:
    """Give inputs and targets the range that their direction's likelihood describes.

    A Bernoulli end wants values in [0, 1] and a multinomial one values ≥ 0: images and a table's
    columns, which may be standardized, are mapped there for such an end.

    Raises
    ------
    ArchitectureError
        If a multinomial backward direction meets negative features.
    """
    if not data.is_classification and config.forward == "bernoulli":
        data = replace(data, y_scaling=unit_range(data.train.y))
    if config.backward not in ("bernoulli", "multinomial"):
        return data
    if data.is_image:
        return replace(data, x_scaling=data.to_unit, pixel_scaling=None)
    x = data.train.x
    if config.backward == "bernoulli":
        return replace(data, x_scaling=unit_range(x))
    low, high = (
        float(edge(values)) for edge, values in zip((np.min, np.max), extremes(x), strict=True)
    )
    if low < 0:
        raise ArchitectureError(
            f"backward multinomial describes features ≥ 0, but {data.source} holds "
            f"{low:g}; expected counts, shares or one-hot columns. Use --backward "
            "gaussian"
        )
    return replace(data, x_scaling=Scaling(factor=1.0 / max(1.0, high)))


def _augmentation(config: RunConfig) -> Augmentation:
    """Return what an option such as "flips,crops4" asks for."""
    kinds = (config.augment or "none").split(",")
    crops = [int(kind.removeprefix("crops")) for kind in kinds if kind.startswith("crops")]
    return Augmentation(flip="flips" in kinds, crop=sum(crops))


def _build(config: RunConfig, data: Dataset, backend: Backend) -> Network:
    backward = "gaussian" if config.backward == "none" else config.backward
    return network(
        *_architecture(config, data),
        activation=config.activation or "relu",
        forward=config.forward,
        backward=get_likelihood(backward or "gaussian", config.backward_weight or 1.0),
        device=backend,
        dtype=config.dtype or "float32",
        seed=config.seed or 0,
    )


def _architecture(
    config: RunConfig, data: Dataset
) -> tuple[int | tuple[int, ...], tuple[int | str, ...], int]:
    shape = data.shape if data.is_image else data.features
    return shape, config.layers or (), data.outputs


def _check(config: RunConfig, data: Dataset) -> None:
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
    augmentation = _augmentation(config)
    if augmentation and not data.is_image:
        raise ArchitectureError(
            f"augment {config.augment} changes images, but the samples of {data.source} have the "
            f"shape {data.shape}; use --augment none"
        )
    if augmentation.crop and augmentation.crop >= min(data.shape[:2]):
        raise ArchitectureError(
            f"augment {config.augment} would shift images of {data.shape[0]}x{data.shape[1]} "
            f"pixels by up to {augmentation.crop}; expected at most "
            f"crops{min(data.shape[:2]) - 1}, or --augment none"
        )
    chain(*_architecture(config, data))
    if config.patience is not None and not config.validation_fraction:
        raise ArchitectureError(
            "patience needs a validation split to watch, since the test split must not choose; "
            "expected --validation-fraction above 0, such as 0.1"
        )
