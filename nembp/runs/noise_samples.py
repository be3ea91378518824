"""The sample whose noise is drawn: of a run's data or of a file, at a direction's end."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nembp.checkpoints import Model
from nembp.datasets.npz import read_npz
from nembp.datasets.sources import as_rows
from nembp.errors import ArchitectureError
from nembp.plotting.noise import Point
from nembp.runs.predicting import one_hot, read_samples, read_targets
from nembp.runs.scoring import data_of_run

__all__ = ["Direction", "Pair", "neuron_names", "noise_point", "pair_of_file", "pair_of_run"]

Direction = Literal["forward", "backward"]


@dataclass(frozen=True, eq=False)
class Pair:
    """A sample and its target.

    Attributes
    ----------
    x : ndarray, shape (1, *model.shape)
        In raw units.
    y : ndarray of float64, shape (1, outputs)
        A one-hot row or class probabilities, or raw regression targets.
    where : str
        What it is, for people.
    """

    x: NDArray[Any]
    y: NDArray[np.float64]
    where: str


def pair_of_run(
    model: Model,
    run: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    sample: int | None = None,
    label: str | None = None,
) -> Pair:
    """Return a test sample of the run's data: number ``sample``, or the first of a class.

    Parameters
    ----------
    model, run : Model, path
        The model, and where it was loaded from.
    data_dir : path, optional
        Where the data lies; by default where it lay in training.
    sample : int, optional
        Counted from 0; by default the first.
    label : str, optional
        Name of a class, in place of a number.

    Raises
    ------
    ArchitectureError
        If there is no such sample or class.
    DataError
        If the data cannot be read or does not fit the model.
    """
    row = None if label is None else _class_row(model, label)
    data, _ = data_of_run(model, run, data_dir)
    test, k = data.test, sample or 0
    if row is not None:
        found = np.flatnonzero(test.y == row.argmax())
        if not len(found):
            raise ArchitectureError(
                f"{data.source}: no test sample of the class {label!r:.60}; choose another"
            )
        k = int(found[0])
    elif k >= len(test):
        raise ArchitectureError(
            f"sample {k} of {data.source}: there are {len(test)} test samples; expected a number "
            f"from 0 to {len(test) - 1}"
        )
    y = np.eye(data.outputs)[test.y[[k]]] if model.classes else np.asarray(test.y[[k]], np.float64)
    return Pair(np.array(as_rows(test.x)[k : k + 1]), y, f"test sample {k} of {data.name}")


def pair_of_file(
    model: Model, path: str, *, sample: int | None = None, label: str | None = None
) -> Pair:
    """Return a sample of a file: a row of an array, or an image.

    Parameters
    ----------
    model : Model
        That the sample is to fit.
    path : str
        .npy or .npz (the array x), or an image.
    sample : int, optional
        Row, counted from 0; by default the first.
    label : str, optional
        The class it is of; by default the target is that row of the array y of an .npz.

    Raises
    ------
    ArchitectureError
        If there is no such row or class, or no target.
    DataError
        If the file cannot be read or does not fit the model.
    """
    row = None if label is None else _class_row(model, label)
    x, names = read_samples([path], model)
    k = sample or 0
    if k >= len(x):
        raise ArchitectureError(f"sample {k} of {path}: it holds {len(x)}, counted from 0")
    if row is None:
        row = _row_of_file(model, path, k, len(x))
    return Pair(x[k : k + 1], row[np.newaxis], names[k])


def _row_of_file(model: Model, path: str, k: int, n: int) -> NDArray[np.float64]:
    if Path(path).suffix.lower() != ".npz" or not read_npz(Path(path), ("y",)):
        what = "--class NAME says which class it is of, or give" if model.classes else "give"
        raise ArchitectureError(
            f"{path}: a sample without its target, and noise is noise on a target; {what} an .npz "
            "with the arrays x and y"
        )
    y = read_targets(path, model)
    if len(y) != n:
        raise ArchitectureError(f"{path}: {n} samples x and {len(y)} targets y; expected as many")
    return np.asarray(y[k])


def _class_row(model: Model, label: str) -> NDArray[np.float64]:
    if not model.classes:
        raise ArchitectureError(
            "a class chooses among classes, and this model predicts numbers; choose a sample by "
            "its number"
        )
    try:
        return np.asarray(one_hot(model, [label])[0])
    except ArchitectureError as error:
        close = difflib.get_close_matches(label, model.classes, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ArchitectureError(f"{error}{hint}") from error


def noise_point(model: Model, pair: Pair, direction: Direction) -> Point:
    """Run a direction on the pair; the other side of it is the target.

    Raises
    ------
    ShapeError
        If the output is not finite.
    """
    x = model.x_scaling.apply(pair.x, np.float64).reshape(1, -1)
    y = pair.y if model.classes else model.y_scaling.apply(pair.y, np.float64)
    if direction == "forward":
        return Point.of(model.net, x, y)
    return Point.of(model.net.reversed, y, x)


def neuron_names(model: Model, direction: Direction) -> Callable[[int], str]:
    """Return what the neurons at a direction's end are called: classes, targets or pixels."""
    if direction == "forward":
        names = model.classes or model.target_names
        return lambda k: names[k]
    if not model.is_image:
        return lambda k: f"feature {k}"

    def pixel(k: int) -> str:
        row, column, channel = (int(i) for i in np.unravel_index(k, model.shape))
        of = f", channel {channel}" if model.shape[2] > 1 else ""
        return f"pixel (row {row}, column {column}{of})"

    return pixel
