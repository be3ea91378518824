"""Predictions of a saved model in either direction, in the raw units of its data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.checkpoints import Model
from nembp.datasets import Dataset
from nembp.datasets.checks import feature_array, target_array
from nembp.datasets.columns import read_cells, read_numbers
from nembp.datasets.files import reading
from nembp.datasets.npy import map_npy
from nembp.datasets.npz import read_npz
from nembp.datasets.scaling import check_range
from nembp.engine.network import Network
from nembp.errors import ArchitectureError, DataError
from nembp.plotting.pictures import SUFFIXES, read_image, read_images

__all__ = [
    "feature_names",
    "named_features",
    "one_hot",
    "predict_backward",
    "predict_forward",
    "read_array",
    "read_samples",
    "read_targets",
]

ROWS = 1024  # samples at a time
TABLE = ".csv"
_FEATURES = "feature_names"  # in a model's settings


def named_features(data: Dataset) -> dict[str, list[str]]:
    """Return what a model's settings say of a table's columns, nothing where they have no names."""
    return {_FEATURES: list(data.feature_names)} if data.feature_names else {}


def feature_names(model: Model) -> tuple[str, ...]:
    """Return the names of a table's columns that a model takes, () where they are not known."""
    names = model.settings.get(_FEATURES)
    names = tuple(map(str, names)) if isinstance(names, list | tuple) else ()
    return names if len(names) == model.net.inputs else ()


def predict_forward(model: Model, x: NDArray[Any]) -> NDArray[np.float64]:
    """Run the forward direction on raw samples.

    Parameters
    ----------
    model : Model
        Trained.
    x : ndarray, shape (n, *model.shape)
        Raw values, as in the data it was trained on.

    Returns
    -------
    ndarray of float64, shape (n, outputs)
        Class probabilities, or regression targets in their raw unit.
    """
    y = _run(model.net, model.x_scaling.apply(x, np.float64).reshape(len(x), -1))
    return y if model.classes else model.y_scaling.invert(y)


def predict_backward(model: Model, y: NDArray[Any]) -> NDArray[np.float64]:
    """Run the backward direction on targets.

    Parameters
    ----------
    model : Model
        Trained.
    y : ndarray, shape (n, outputs)
        Class probabilities (one-hot rows for single classes), or raw regression targets.

    Returns
    -------
    ndarray of float64, shape (n, *model.shape)
        Samples in raw units.
    """
    t = y if model.classes else model.y_scaling.apply(y, np.float64)
    x = _run(model.net.reversed, t)
    return model.x_scaling.invert(x.reshape(len(x), *model.shape))


def _run(net: Network, values: NDArray[Any]) -> NDArray[np.float64]:
    parts = [
        net.backend.to_numpy(net.predict(values[start : start + ROWS]))
        for start in range(0, len(values), ROWS)
    ]
    return np.concatenate(parts).astype(np.float64)


def one_hot(model: Model, labels: Sequence[str]) -> NDArray[np.float64]:
    """Return a row for each class, given by name or, where no class has that name, by number.

    Raises
    ------
    ArchitectureError
        If the model has no classes, or none of that name.
    """
    if not model.classes:
        raise ArchitectureError(
            "labels name classes, and this model predicts numbers; give its targets in a file"
        )
    eye, rows = np.eye(len(model.classes)), []
    for label in labels:
        if label in model.classes:
            rows.append(eye[model.classes.index(label)])
        elif label.isascii() and label.isdigit() and int(label) < len(eye):
            rows.append(eye[int(label)])
        else:
            raise ArchitectureError(
                f"no class {label!r:.60}; expected names among {', '.join(model.classes[:20])}"
                + (", ..." if len(model.classes) > 20 else "")
            )
    return np.array(rows)


# -- input files -----------------------------------------------------------------------------------
def read_samples(
    paths: Sequence[str | os.PathLike[str]], model: Model, key: str = "x"
) -> tuple[NDArray[Any], list[str]]:
    """Read raw samples from .npy or .npz arrays, from tables, or from image files.

    Parameters
    ----------
    paths : sequence of path
        At least one. Pixels 0..255 of an image are mapped to the model's raw range; a .csv may
        hold its columns in any order, and others.
    model : Model
        Whose samples they are to be.
    key : str
        Name of the array in an .npz.

    Returns
    -------
    x : ndarray, shape (n, *model.shape)
    names : list of str
        The file of each sample, with its row where it has several.

    Raises
    ------
    DataError
        If a file is missing, damaged or does not fit the model.
    """
    x, names = [], []
    for path in map(Path, paths):
        if path.suffix.lower() in SUFFIXES:
            part = _read_png(path, model)
        elif path.suffix.lower() == TABLE:
            table = read_numbers(path, feature_names(model), model.net.inputs)
            part = _as_samples(table, model, str(path))
        else:
            part = _as_samples(read_array(path, key), model, str(path))
        x.append(part)
        alone = len(part) == 1 and path.suffix.lower() != TABLE
        names += [str(path)] if alone else [f"{path}[{row}]" for row in range(len(part))]
    return np.concatenate(x), names


def _read_png(path: Path, model: Model) -> NDArray[Any]:
    if not model.is_image:
        raise DataError(
            f"{path}: an image, but the model was trained on tables of {model.net.inputs} "
            "features; expected .csv, .npy or .npz"
        )
    if "image_size" in model.settings:  # as the training images were brought to it
        height, width, channels = model.shape
        pixels = read_image(path, (height, width), channels, resize=True)[np.newaxis]
    else:
        pixels = read_images([path], model.shape)
    return model.to_unit.invert(pixels / 255.0)


def _as_samples(x: NDArray[Any], model: Model, where: str) -> NDArray[Any]:
    """Check raw samples and bring them into the shape (n, *model.shape)."""
    shape, features = model.shape, model.net.inputs
    grey = [shape[:2]] if len(shape) == 3 and shape[2] == 1 else []
    forms = list(dict.fromkeys([shape, *grey, (features,)]))
    if x.shape[1:] in forms:
        rows = len(x)
    elif x.shape in forms:
        rows = 1
    else:
        wanted = " or ".join(f"(n, {', '.join(map(str, form))})" for form in forms)
        raise DataError(f"{where}: shape {x.shape}; expected {wanted}")
    if rows == 0:
        raise DataError(f"{where}: no samples; expected at least one")
    x = np.asarray(feature_array(x.reshape(rows, features), where)).reshape(rows, *shape)
    if x.dtype != np.uint8:
        check_range(x, model.x_scaling, where)
    return x


def read_targets(path: str | os.PathLike[str], model: Model, key: str = "y") -> NDArray[np.float64]:
    """Read targets of the backward direction from a .npy, .npz or .csv.

    Returns
    -------
    ndarray of float64, shape (n, outputs)
        From labels (n,) or rows of probabilities (n, classes); or raw regression targets.

    Raises
    ------
    DataError
        If the file is missing, damaged or does not fit the model.
    """
    where, outputs = os.fspath(path), model.net.outputs
    y = _table_of_targets(Path(path), model) if where.lower().endswith(TABLE) else None
    y = read_array(Path(path), key) if y is None else y
    if y.shape in ((), (0,)) or y.shape[0] == 0:
        raise DataError(f"{where}: no targets; expected at least one")
    if model.classes and y.ndim == 1 and y.dtype.kind in "US":
        try:
            return one_hot(model, y.astype(str).tolist())
        except ArchitectureError as error:
            raise DataError(f"{where}: {error}") from error
    y = target_array(y, where)
    if model.classes and y.shape[1] == 1:
        labels = y[:, 0]
        if np.any(labels != np.rint(labels)) or labels.min() < 0 or labels.max() >= outputs:
            raise DataError(f"{where}: labels must be whole numbers from 0 to {outputs - 1}")
        return np.eye(outputs)[labels.astype(np.int64)]
    if y.shape[1] != outputs:
        raise DataError(f"{where}: shape {y.shape}; expected (n, {outputs})")
    if model.classes and y.min() < 0:
        raise DataError(f"{where}: holds {y.min():g}; expected class probabilities ≥ 0")
    if not model.classes:
        check_range(y, model.y_scaling, where)
    return y.astype(np.float64)


def _table_of_targets(path: Path, model: Model) -> NDArray[Any]:
    """Read a table of targets by their names; of classes, their names in the only column."""
    if model.classes:
        return np.array(read_cells(path), dtype=str)
    return read_numbers(path, model.target_names, model.net.outputs)


def read_array(path: Path, key: str) -> NDArray[Any]:
    """Read one array from a .npy, or the array ``key`` of a .npz; never with pickle.

    Raises
    ------
    DataError
        If the file is missing, damaged, of another kind, or has no such array.
    """
    if path.suffix.lower() == ".npz":
        arrays = read_npz(path, (key,))
        if key not in arrays:
            raise DataError(f"{path}: no array {key!r}; name the one to read with --key")
        return arrays[key]
    with reading(path) as file:
        start = file.read(6)
    if start != b"\x93NUMPY":
        raise DataError(f"{path}: not a .npy array; expected a file of .npy, .npz, .csv or .png")
    return np.array(map_npy(path))
