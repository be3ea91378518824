"""Scores of a saved model on a data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from nembp.checkpoints import Model, load_model
from nembp.datasets import Dataset, Split
from nembp.datasets.reading import BatchReader
from nembp.datasets.sources import join
from nembp.engine.metrics import evaluate
from nembp.errors import ArchitectureError, DataError
from nembp.runs.config import RunConfig, options
from nembp.runs.folder import MODEL
from nembp.runs.gan_players import PLAYER
from nembp.runs.preparation import Note, choose_backend, hold_out, load_data, pixel_units

__all__ = ["SplitName", "data_of_run", "evaluate_run", "load_run"]

SplitName = Literal["test", "train", "validation", "all"]


def load_run(
    run: str | os.PathLike[str], device: str = "cpu", note: Note = lambda text: None
) -> Model:
    """Load the model of a run folder, or a model file.

    Raises
    ------
    DataError
        If there is none, or it is damaged.
    DeviceError
        If the device cannot be used.
    """
    path = Path(run)
    if os.path.isdir(path):
        path = path / MODEL
        players = Path(run, "generator.npz"), Path(run, "discriminator.npz")
        if not path.exists() and players[0].exists():
            raise DataError(
                f"{path}: no such file; {run} is a run of `nembp gan`. Name one of its players, "
                f"{players[0]} or {players[1]}"
            )
        if not path.exists():
            raise DataError(
                f"{path}: no such file; expected the folder of a run that trained at least one "
                "epoch. Check the path, or train with `nembp train`"
            )
    return load_model(path, choose_backend(device, note))


def evaluate_run(
    run: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    split: SplitName = "test",
    device: str = "cpu",
    note: Note = lambda text: None,
) -> dict[str, Any]:
    """Score a saved model on the data it was trained on, or on data of the same kind elsewhere.

    Parameters
    ----------
    run : path
        A run folder or a model file.
    data_dir : path, optional
        Where the data set lies; by default where it lay in training.
    split : {"test", "train", "validation", "all"}
        What to score on, split as in training; "all", for new samples, is training and test.
    device, note : str, callable
        As in `prepare`.

    Returns
    -------
    dict
        The scores of `nembp.engine.metrics.evaluate`, and ``run``, ``dataset``, ``split``, ``samples``.

    Raises
    ------
    ArchitectureError
        If there is no such split.
    DataError
        If the model or the data cannot be used, or do not fit each other.
    """
    if split not in get_args(SplitName):
        raise ArchitectureError(
            f"split must be one of {', '.join(get_args(SplitName))}, got {split!r:.80}"
        )
    model = load_run(run, device, note)
    data, config = data_of_run(model, run, data_dir)
    chosen = _choose(data, config, split)
    net = model.net
    reader = BatchReader(
        chosen, model.x_scaling, model.y_scaling, net.outputs, net.backend, net.dtype
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = evaluate(net, reader, model.centroids, units=pixel_units(model))
    return {
        "run": os.path.abspath(run),
        "dataset": data.name,
        "split": split,
        "samples": len(chosen),
        "forward/accuracy": None,
        "backward/centroid_error": None,
        **scores,
        "device": net.backend.describe(),
    }


def data_of_run(
    model: Model, run: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None
) -> tuple[Dataset, RunConfig]:
    """Read the data of a run again, as it was read for training, and the run's configuration.

    Parameters
    ----------
    model, run : Model, path
        The model, and where it was loaded from.
    data_dir : path, optional
        Where the data set lies; by default where it lay in training.

    Raises
    ------
    ArchitectureError, DataError
        If the data cannot be read, or does not fit the model.
    """
    config = _config(model, os.fspath(run))
    if data_dir is not None:
        config = config.replace({"data_dir": os.fspath(data_dir)})
    data = load_data(config)
    _check_fit(model, data, os.fspath(run))
    return data, config


def _config(model: Model, where: str) -> RunConfig:
    """Return the settings of a model, as far as this version knows them."""
    if PLAYER in model.settings:
        raise DataError(
            f"{where}: the {model.settings[PLAYER]} of a run of `nembp gan`, which scores itself; "
            "expected a model of `nembp train`. `nembp sample` draws from the run's generator, "
            "`nembp predict` runs either player"
        )
    known = {name: model.settings[name] for name in options() if name in model.settings}
    try:
        return RunConfig(**({"dataset": model.dataset} | known))
    except ArchitectureError as error:
        raise DataError(f"{where}: settings of another version of nembp ({error})") from error


def _check_fit(model: Model, data: Dataset, where: str) -> None:
    for what, has, wants in (
        ("samples of shape", data.shape, model.shape),
        ("the classes", data.classes, model.classes),
        ("the targets", data.target_names, model.target_names),
    ):
        if has != wants:
            raise DataError(
                f"{data.source}: {what} {_short(has)}, but the model in {where} was trained on "
                f"{_short(wants)}; expected data of the same kind. Check --data-dir"
            )


def _short(value: tuple[Any, ...]) -> str:
    shown = ", ".join(map(str, value[:12]))
    return f"({shown}, ...)" if len(value) > 12 else f"({shown})"


def _choose(data: Dataset, config: RunConfig, split: SplitName) -> Split:
    if split == "test":
        return data.test
    if split == "all":
        both = data.train, data.test
        return Split(join([part.x for part in both]), np.concatenate([part.y for part in both]))
    train, validation = hold_out(data, config)
    if split == "train":
        return train
    if validation is None:
        raise ArchitectureError("the run had no validation split; expected train, test or all")
    return validation
