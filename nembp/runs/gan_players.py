"""Both players of a run in files, each a model that every command can read.

A generator's file is that of a network from z to raw samples, a discriminator's one from raw
samples to its label. What the format of `nembp.checkpoints` has no place for is in the settings.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nembp.backend import Backend
from nembp.checkpoints import Model, load_model, save_model
from nembp.datasets import Dataset, Scaling
from nembp.engine.network import Network
from nembp.errors import ArchitectureError, DataError
from nembp.runs.gan_config import GanConfig
from nembp.runs.predicting import named_features

__all__ = [
    "DISCRIMINATOR",
    "GENERATOR",
    "Generator",
    "check_players",
    "config_of",
    "load_generator",
    "load_player",
    "load_players",
    "save_players",
]

GENERATOR, DISCRIMINATOR = "generator.npz", "discriminator.npz"
SHAPE: Final = "sample_shape"  # in a player's settings, with the next one
PLAYER: Final = "player"  # which of the two it is


@dataclass(frozen=True, eq=False)
class Generator:
    """A generator that was trained, and the samples it makes.

    Attributes
    ----------
    model : Model
        From z to raw samples.
    shape : tuple of int
        Of one sample.
    config : GanConfig
        Of its run.
    """

    model: Model
    shape: tuple[int, ...]
    config: GanConfig

    @property
    def net(self) -> Network:
        """Its network."""
        return self.model.net

    @property
    def is_image(self) -> bool:
        """Whether samples have the shape (height, width, channels)."""
        return len(self.shape) == 3

    def raw(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return samples of the network's units, shape (n, features), in raw ones (n, *shape)."""
        return np.asarray(self.model.y_scaling.invert(x)).reshape(-1, *self.shape)

    def pixels(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return images of the network's units in [0, 1], of shape (n, *shape)."""
        return np.asarray(x).reshape(-1, *self.shape)


def save_players(
    folder: Path,
    config: GanConfig,
    data: Dataset,
    players: tuple[Network, Network],
    environment: dict[str, Any],
) -> None:
    """Write both players, generator first, each whole or not at all.

    Raises
    ------
    OutputError
        If a file cannot be written.
    DataError
        If parameters are not finite.
    """
    generator, discriminator = players
    settings = config.as_dict()
    shared: dict[str, Any] = {
        "centroids": None,
        "dataset": data.name,
        "environment": environment,
    }
    flat = _flat(data.x_scaling, data)
    features = data.feature_names or tuple(f"x{k}" for k in range(data.features))
    save_model(
        folder / GENERATOR,
        Model(
            net=generator,
            shape=(generator.inputs,),
            classes=(),
            target_names=features,
            x_scaling=Scaling(),
            y_scaling=flat,
            is_image=False,
            settings=settings | {PLAYER: "generator", SHAPE: list(data.shape)},
            **shared,
        ),
    )
    classes = (*data.classes, "generated") if discriminator.outputs > 1 else ()
    save_model(
        folder / DISCRIMINATOR,
        Model(
            net=discriminator,
            shape=data.shape,
            classes=classes,
            target_names=() if classes else ("real",),
            x_scaling=data.x_scaling,
            y_scaling=Scaling(),
            pixel_scaling=data.pixel_scaling,
            is_image=data.is_image,
            settings=settings
            | {PLAYER: "discriminator", SHAPE: list(data.shape)}
            | named_features(data),
            **shared,
        ),
    )


def _flat(scaling: Scaling, data: Dataset) -> Scaling:
    """Return a scaling of samples as one of their rows of features."""

    def row(value: Any) -> Any:
        value = np.asarray(value)
        return np.broadcast_to(value, data.shape).reshape(-1) if value.ndim else float(value)

    return Scaling(row(scaling.offset), row(scaling.factor))


def load_generator(run: str | os.PathLike[str], device: str | Backend = "cpu") -> Generator:
    """Load the generator of a run folder, or of a file of one.

    Raises
    ------
    DataError
        If there is none, or it is damaged.
    DeviceError
        If the device cannot be used.
    """
    model = load_player(run, GENERATOR, device)
    try:
        shape = tuple(int(side) for side in model.settings[SHAPE])
        config = config_of(model)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{os.fspath(run)}: no generator of this version of nembp ({error}); expected a run "
            "of `nembp gan`"
        ) from error
    if int(np.prod(shape)) != model.net.outputs:
        raise DataError(
            f"{os.fspath(run)}: samples of shape {shape} do not fit {model.net.outputs} outputs"
        )
    return Generator(model, shape, config)


def load_player(run: str | os.PathLike[str], name: str, device: str | Backend = "cpu") -> Model:
    """Load one player's model: the file of this name in a run folder, or the file given.

    Raises
    ------
    DataError
        If there is none, or it is damaged or another's.
    """
    path = Path(run)
    if os.path.isdir(path):
        path = path / name
    if not path.exists():
        raise DataError(
            f"{path}: no such file; expected the folder of a run of `nembp gan`. Check the path, "
            "or train with `nembp gan`"
        )
    model = load_model(path, device)
    if f"{model.settings.get(PLAYER)}.npz" != name:
        raise DataError(
            f"{path}: is no {name.removesuffix('.npz')} of `nembp gan`; expected the folder of "
            f"such a run, or its {name}"
        )
    return model


def check_players(run: str | os.PathLike[str]) -> None:
    """Raise a DataError unless a run folder holds two whole players."""
    for name in (GENERATOR, DISCRIMINATOR):
        load_player(run, name)


def load_players(run: str | os.PathLike[str], generator: Network, discriminator: Network) -> None:
    """Give two networks the parameters of a run's players.

    Raises
    ------
    DataError
        If there is no such run.
    ArchitectureError
        If its players are of another architecture.
    """
    for name, net in ((GENERATOR, generator), (DISCRIMINATOR, discriminator)):
        found = load_player(run, name).net
        if found.layers != net.layers or found.maps != net.maps:
            sizes = ["-".join(str(layer.size) for layer in each.layers) for each in (found, net)]
            raise ArchitectureError(
                f"{os.fspath(run)}: its {name.removesuffix('.npz')} is {sizes[0]}, the new one "
                f"{sizes[1]} or of other layers; start from a run of the same players "
                "(--config RUN/config.toml says which)"
            )
        net.restore(found.snapshot())


def config_of(model: Model) -> GanConfig:
    """Return the configuration of a player's run, as far as this version knows its options.

    Raises
    ------
    ArchitectureError
        If an option has a value that this version does not know.
    """
    known = {key: model.settings[key] for key in GanConfig.options() if key in model.settings}
    if "dataset" not in known:
        raise ArchitectureError("its settings name no data set")
    return GanConfig(**known)
