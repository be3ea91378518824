"""From a configuration to data, network and splits that are ready to train."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from nembp.architecture import network
from nembp.backend import Backend, Precision, get_backend, gpu_seems_present
from nembp.datasets import Dataset, Scaling, Split, class_means, feature_means, load
from nembp.datasets.reading import BatchReader
from nembp.datasets.scaling import extremes, unit_range
from nembp.datasets.splitting import random_bits, shuffled, stratified_choice
from nembp.engine.likelihoods import get_likelihood
from nembp.engine.metrics import Units
from nembp.engine.network import Network
from nembp.engine.training import set_input_bias
from nembp.errors import ArchitectureError, DeviceError, DeviceMemoryError
from nembp.runs.checks import architecture, augmentation, check_options
from nembp.runs.config import RunConfig
from nembp.runs.recipes import ALWAYS, recipe

if TYPE_CHECKING:
    from nembp.checkpoints import Model

__all__ = [
    "Note",
    "Prepared",
    "choose_backend",
    "fit_scalings",
    "hold_out",
    "load_data",
    "pixel_units",
    "prepare",
]

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
            augmentation=augmentation(self.config) if augmented else None,
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


def prepare(
    config: RunConfig, note: Note = lambda text: None, data: Dataset | None = None
) -> Prepared:
    """Load the data, fill in the recipe, and build the network with its input bias at the mean.

    Parameters
    ----------
    config : RunConfig
        None where the recipe decides.
    note : callable
        Told what the user should know and is no error.
    data : Dataset, optional
        What `load_data` gave for this configuration; loaded here without it.

    Raises
    ------
    ArchitectureError
        If options do not go together.
    DataError, DeviceError
        If the data or the device cannot be used.
    """
    data = load_data(config) if data is None else data
    filled = recipe(data, config)
    check_options(filled, data)
    precision = cast(Precision, filled.precision or "float32")
    backend = choose_backend(filled.device or "auto", note, precision)
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


def pixel_units(data: Dataset | Model) -> Units | None:
    """Return the map from the network's units to pixels in [0, 1]; None where it changes nothing.

    It takes and gives rows of samples; tables and images that are in [0, 1] already need none.
    """
    scaling, pixels, shape = data.x_scaling, data.pixel_scaling, data.shape
    if pixels is None:
        return None

    def units(x: NDArray[Any]) -> NDArray[Any]:
        images = scaling.invert(np.reshape(x, (-1, *shape)))
        return pixels.apply(images, np.float64).reshape(len(x), -1)

    return units


def choose_backend(device: str, note: Note, precision: Precision = "float32") -> Backend:
    """Return the backend of a device name; say why where "auto" leaves a GPU unused.

    Raises
    ------
    DeviceError
        If "gpu" is asked for and cannot be used.
    """
    if device != "auto":
        backend = get_backend(device, precision)
    else:
        try:
            backend = get_backend("gpu", precision)
        except (DeviceError, DeviceMemoryError) as error:
            if gpu_seems_present():
                note(f"computing on the CPU: {error}")
            backend = get_backend("cpu")
    if precision != "float32" and backend.name == "cpu":
        note(f"precision {precision}: without effect on the CPU")
    return backend


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


def _build(config: RunConfig, data: Dataset, backend: Backend) -> Network:
    backward = "gaussian" if config.backward == "none" else config.backward
    net = network(
        *architecture(config, data),
        activation=config.activation or "relu",
        forward=config.forward,
        backward=get_likelihood(backward or "gaussian", config.backward_weight or 1.0),
        device=backend,
        dtype=config.dtype or "float32",
        seed=config.seed or 0,
    )
    scale = config.weight_scale or 1.0
    if scale != 1.0:
        for W in net.weights:
            W[...] = W * scale
    return net
