"""Saved models: their scores on data, and their predictions in either direction in raw units."""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nembp.checkpoints import Model, load_model
from nembp.datasets import Dataset, Request, Scaling, Split, class_indices, with_columns
from nembp.datasets.arrays import map_npy, read_npz
from nembp.datasets.assemble import feature_array, target_array
from nembp.datasets.dataset import check_image_shape
from nembp.datasets.images import SUFFIXES, read_image
from nembp.datasets.reading import BatchReader
from nembp.datasets.scaling import check_range
from nembp.datasets.sources import as_rows, join
from nembp.datasets.tables import is_table, read_cells, read_numbers
from nembp.engine.metrics import evaluate
from nembp.errors import ArchitectureError, DataError
from nembp.files import reading, write_atomically
from nembp.runs.config import TABLES, RunConfig
from nembp.runs.options import C
from nembp.runs.run import Note, Path_, choose_backend, silent
from nembp.runs.training import FINGERPRINT, hold_out, load_data, pixel_units

PLAYERS: Final = ("generator", "discriminator")
PLAYER: Final = "player"  # in the settings of a model of `nembp gan`: which of the two it is
SplitName = Literal["test", "train", "validation", "all"]
Direction = Literal["forward", "backward"]


def load_run(
    run: Path_, device: str = "cpu", note: Note = silent, player: str | None = None
) -> Model:
    """Load the model of a run folder, or one player of an adversarial run; or a model file."""
    path = Path(run)
    if path.is_dir():
        players = [path / f"{name}.npz" for name in PLAYERS]
        path = path / f"{player or 'model'}.npz"
        if not path.exists() and players[0].exists():
            raise DataError(
                f"{path}: no such file; {run} is a run of `nembp gan`. Name one of its players, "
                f"{players[0]} or {players[1]}"
            )
    if not path.exists():
        of = "`nembp gan`" if player else "`nembp train` that trained at least one epoch"
        raise DataError(
            f"{path}: no such file; expected the folder of a run of {of}. Check the path, or train"
        )
    model = load_model(path, choose_backend(device, note))
    if player is not None and model.settings.get(PLAYER) != player:
        raise DataError(
            f"{path}: is no {player} of `nembp gan`; expected the folder of such a run, or its "
            f"{player}.npz"
        )
    return model


def config_of(model: Model, kind: type[C], where: Path_, data_dir: Path_ | None) -> C:
    """Return the configuration of the run that left a model, with its data perhaps elsewhere."""
    settings = {"dataset": model.dataset} | model.settings
    settings |= {} if data_dir is None else {"data_dir": data_dir}
    try:
        return kind(**{name: settings[name] for name in kind.options() if name in settings})
    except ArchitectureError as error:
        raise DataError(
            f"{os.fspath(where)}: settings of another version of nembp ({error})"
        ) from error


# -- scores ----------------------------------------------------------------------------------------
def evaluate_run(
    run: Path_, *, data_dir: Path_ | None = None, split: SplitName = "test", device: str = "cpu",
    note: Note = silent, **table: Any,
) -> dict[str, Any]:  # fmt: skip
    """Score a saved model on the data it was trained on, or on data of the same kind elsewhere.

    The split is that of the training; "all", for new samples, is training and test samples.
    Options of ``table`` say how a table is written, where that is not as in training.
    """
    if split not in get_args(SplitName):
        raise ArchitectureError(
            f"split must be one of {', '.join(get_args(SplitName))}, got {split!r:.80}"
        )
    model = load_run(run, device, note)
    model.settings |= {name: value for name, value in table.items() if value is not None}
    data, config = data_of_run(model, run, data_dir)
    seen = model.settings.get(FINGERPRINT, data.fingerprint)
    if split != "all" and not data.matches(seen):
        raise DataError(
            f"{data.source}: not the data of the training, so that its {split} split may hold "
            "samples that were trained on; score all of it as new data with --split all"
        )
    chosen, net = _choose(data, config, split), model.net
    scalings = model.x_scaling, model.y_scaling
    reader = BatchReader(chosen, *scalings, net.outputs, net.backend, net.dtype)
    with np.errstate(all="ignore"):
        scores = evaluate(net, reader, model.centroids, units=pixel_units(model))
    if not np.isfinite(scores["forward/nll"]):
        raise DataError(f"{os.fspath(run)}: {_OVERFLOW}")
    return {
        "run": os.path.abspath(run), "dataset": data.name, "split": split, "samples": len(chosen),
        "forward/accuracy": None, "backward/centroid_error": None, **scores,
        "device": net.backend.describe(),
    }  # fmt: skip


def data_of_run(
    model: Model, run: Path_, data_dir: Path_ | None = None
) -> tuple[Dataset, RunConfig]:
    """Read the data of a run again, as it was read for training, and the run's configuration."""
    where, settings = os.fspath(run), model.settings
    if PLAYER in settings:
        raise DataError(
            f"{where}: the {settings[PLAYER]} of a run of `nembp gan`, which scores itself; "
            "expected a model of `nembp train`. `nembp sample` draws from the run's generator, "
            "`nembp predict` runs either player"
        )
    if model.dataset == "arrays":
        raise DataError(
            f"{where}: was trained on arrays in a program, not on files that could be read again; "
            "score it there. `nembp predict` runs it on files"
        )
    config = config_of(model, RunConfig, run, data_dir)
    data = load_data(config, model.classes)
    names = feature_names(model)
    if names and data.feature_names:
        data = with_columns(data, names)
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
    return data, config


def _short(value: tuple[Any, ...]) -> str:
    shown = ", ".join(map(str, value[:12]))
    return f"({shown}, ...)" if len(value) > 12 else f"({shown})"


def _choose(data: Dataset, config: RunConfig, split: SplitName) -> Split:
    if split == "test":
        return data.test
    if split == "all":
        both = data.train, data.test
        return Split(join([part.x for part in both]), np.concatenate([part.y for part in both]))
    found = dict(zip(("train", "validation"), hold_out(data, config), strict=True))[split]
    if found is None:
        raise ArchitectureError("the run had no validation split; expected train, test or all")
    return found


# -- predictions -----------------------------------------------------------------------------------
_OVERFLOW = (
    "outputs that are not finite; expected samples like those of the training, or a network whose "
    "training did not diverge"
)


def feature_names(model: Model) -> tuple[str, ...]:
    """Return the names of a table's columns that a model takes, () where they are not known."""
    names = model.settings.get("feature_names")
    names = tuple(map(str, names)) if isinstance(names, list | tuple) else ()
    return names if len(names) == model.net.inputs else ()


def answer(model: Model, values: NDArray[Any], *, backward: bool = False) -> NDArray[np.float64]:
    """Return class probabilities or targets of samples, or samples of targets, in raw units.

    Of classes, targets are rows of probabilities. What is not finite is a DataError.
    """
    with np.errstate(all="ignore"):
        found = model.predict_inputs(values) if backward else model.predict(values)
    finite = np.isfinite(found).reshape(len(found), -1).all(axis=1)
    if not finite.all():
        raise DataError(f"sample {finite.argmin()}: the network gives {_OVERFLOW}")
    return found


def one_hot(
    model: Model, labels: Any, where: str = "labels", *, by_index: bool = False
) -> NDArray[np.float64]:
    """Return a row for each class, given by its name, or by its index if that is said."""
    if not model.classes:
        raise ArchitectureError(
            "labels name classes, and this model predicts numbers; give its targets in a file"
        )
    try:
        index = class_indices(labels, model.classes, where, by_index=by_index)
    except DataError as error:
        close = difflib.get_close_matches(str(labels[0]), model.classes, n=1)
        hint = f"; did you mean {close[0]!r}?" if close and len(labels) == 1 else ""
        raise ArchitectureError(f"{error}{hint}") from error
    return np.eye(len(model.classes))[index]


# -- input files -----------------------------------------------------------------------------------
def table_options(model: Model) -> Request:
    """Return how the tables of a model's run were read, for others of the kind."""
    return Request(**{name: model.settings[name] for name in TABLES if name in model.settings})


def read_samples(
    paths: Sequence[Path_], model: Model, key: str = "x"
) -> tuple[NDArray[Any], list[tuple[str, int | None]]]:
    """Read raw samples (n, *model.shape), and the files that they are from; see `sample_names`.

    They lie in .npy or .npz arrays, there as ``key``, in tables, which may hold the columns in any
    order, and others, or in image files, whose pixels are mapped to the model's raw range.
    """
    x, files = [], list[tuple[str, int | None]]()
    for path in map(Path, paths):
        if path.suffix.lower() in SUFFIXES:
            part = _read_image(path, model)
        else:
            values = _values(path, key, model, feature_names(model), model.net.inputs)
            part = _as_samples(values, model, str(path))
        x.append(part)
        alone = len(part) == 1 and not is_table(path)
        files.append((str(path), None if alone else len(part)))
    return np.concatenate(x) if len(x) > 1 else x[0], files


def sample_names(files: Sequence[tuple[str, int | None]]) -> Iterator[str]:
    """Name each sample, as it is asked for: its file, with its row where the file has rows.

    >>> list(sample_names([("a.png", None), ("b.csv", 2)]))
    ['a.png', 'b.csv[0]', 'b.csv[1]']
    """
    for path, rows in files:
        yield from [path] if rows is None else (f"{path}[{row}]" for row in range(rows))


def _read_image(path: Path, model: Model) -> NDArray[Any]:
    if not model.is_image:
        raise DataError(
            f"{path}: an image, but the model was trained on tables of {model.net.inputs} "
            "features; expected .csv, .npy or .npz"
        )
    check_image_shape(model.shape)
    height, width, channels = model.shape
    resize = "image_size" in model.settings  # as the training images were brought to it
    pixels = read_image(path, (height, width), channels, resize=resize)[np.newaxis]
    eight_bits = model.to_unit == Scaling(factor=1 / 255)
    if pixels.dtype == np.uint8:
        return pixels if eight_bits else model.to_unit.invert(pixels / 255.0)
    if eight_bits:
        raise DataError(
            f"{path}: 16 bits per pixel, but the training images had 8. Convert it to 8 bits."
        )
    return pixels


def _as_samples(x: NDArray[Any], model: Model, where: str) -> NDArray[Any]:
    """Check raw samples and bring them into the shape (n, *model.shape)."""
    shape, features = model.shape, model.net.inputs
    grey = [shape[:2]] if len(shape) == 3 and shape[2] == 1 else []
    forms = list(dict.fromkeys([shape, *grey, (features,)]))
    if x.shape[1:] not in forms and x.shape in forms:
        x = x[np.newaxis]
    if x.shape[1:] not in forms:
        wanted = " or ".join(f"(n, {', '.join(map(str, form))})" for form in forms)
        raise DataError(f"{where}: shape {x.shape}; expected {wanted}")
    if not len(x):
        raise DataError(f"{where}: no samples; expected at least one")
    x = np.asarray(feature_array(x.reshape(-1, features), where)).reshape(-1, *shape)
    if x.dtype != np.uint8:
        check_range(x, model.x_scaling, where)
    return x


def read_targets(
    path: Path_, model: Model, key: str = "y", *, by_index: bool = False
) -> NDArray[np.float64]:
    """Read targets (n, outputs) of the backward direction from a .npy, .npz or .csv.

    Labels (n,) name classes, whatever holds them, or with ``by_index`` are their indices from 0;
    else there are rows of probabilities (n, classes), or raw regression targets.
    """
    path, where, outputs = Path(path), os.fspath(path), model.net.outputs
    y: NDArray[Any]
    if is_table(path) and model.classes:
        y = np.array(read_cells(path, table_options(model), model.classes), dtype=str)
    else:
        y = _values(path, key, model, model.target_names, outputs)
    if y.shape in ((), (0,)) or y.shape[0] == 0:
        raise DataError(f"{where}: no targets; expected at least one")
    if model.classes and (y.ndim == 1 or y.shape[1:] == (1,)):
        try:
            return one_hot(model, y.reshape(-1).tolist(), where, by_index=by_index)
        except ArchitectureError as error:
            raise DataError(str(error)) from error
    y = target_array(y, where)
    if y.shape[1] != outputs:
        raise DataError(f"{where}: shape {y.shape}; expected (n, {outputs})")
    if model.classes and y.min() < 0:
        raise DataError(f"{where}: holds {y.min():g}; expected class probabilities ≥ 0")
    if not model.classes:
        check_range(y, model.y_scaling, where)
    return y.astype(np.float64)


def _values(path: Path, key: str, model: Model, names: Sequence[str], width: int) -> NDArray[Any]:
    """Read a table's columns, one array from a .npy, or ``key`` of a .npz; never with pickle."""
    if is_table(path):
        return read_numbers(path, names, width, table_options(model))
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


def write_arrays(out: Path_, array: NDArray[Any], arrays: dict[str, Any]) -> None:
    """Write an array as .npy, or several by name as .npz."""
    buffer = io.BytesIO()
    if Path(out).suffix.lower() == ".npy":
        np.save(buffer, array, allow_pickle=False)
    else:
        np.savez(buffer, **arrays)
    write_atomically(out, buffer.getvalue())


# -- one sample and its target, as `nembp draw noise` takes them -----------------------------------
def pair_of(
    model: Model, run: Path_, path: str | None = None, data_dir: Path_ | None = None, *,
    sample: int = 0, label: str | None = None,
) -> tuple[NDArray[Any], NDArray[Any], str]:  # fmt: skip
    """Return a sample and its target, rows in the network's units, and a name for people.

    It has that number, from 0, in a file, or among the test samples of the run's data; there a
    class chooses its first. The target in a file is that class, or the row of an .npz's y.
    """
    if label is not None and not model.classes:
        raise ArchitectureError(
            "a class chooses among classes, and this model predicts numbers; choose a sample by "
            "its number"
        )
    row = None if label is None else one_hot(model, [label])[0]
    if path is None:
        data, _ = data_of_run(model, run, data_dir)
        x: Any = as_rows(data.test.x)
        y, source, what = data.test.y, data.source, "test samples"
        if row is not None:
            found = np.flatnonzero(y == row.argmax())
            if not len(found):
                raise ArchitectureError(
                    f"{source}: no test sample of the class {label!r:.60}; choose another"
                )
            sample = int(found[0])
    else:
        x, files = read_samples([path], model)
        source, what = path, "samples"
    if sample >= len(x):
        raise ArchitectureError(
            f"sample {sample} of {source}: there are {len(x)} {what}; expected a number from 0 to "
            f"{len(x) - 1}"
        )
    if path is None:
        row = np.eye(model.net.outputs)[y[sample]] if model.classes else y[sample]
        name = f"test sample {sample} of {data.name}"
    else:
        row = _target_of(model, path, sample, len(x)) if row is None else row
        name = list(sample_names(files))[sample]
    t = np.asarray(row)[np.newaxis]
    t = t if model.classes else model.y_scaling.apply(t, np.float64)
    return model.x_scaling.apply(x[sample : sample + 1], model.net.dtype).reshape(1, -1), t, name


def _target_of(model: Model, path: str, sample: int, count: int) -> NDArray[np.float64]:
    if Path(path).suffix.lower() != ".npz" or not read_npz(Path(path), ("y",)):
        what = "--class NAME says which class it is of, or give" if model.classes else "give"
        raise ArchitectureError(
            f"{path}: a sample without its target, and noise is noise on a target; {what} an "
            ".npz with the arrays x and y"
        )
    y = read_targets(path, model)
    if len(y) != count:
        raise ArchitectureError(
            f"{path}: {count} samples x and {len(y)} targets y; expected as many"
        )
    return np.asarray(y[sample])


def output_names(model: Model, direction: Direction) -> Sequence[str]:
    """Return what the outputs of a direction are called: classes, targets or pixels."""
    if direction == "forward":
        return model.classes or model.target_names
    if not model.is_image:
        return [f"feature {k}" for k in range(model.net.inputs)]
    colour = model.shape[2] > 1
    return [
        f"pixel (row {row}, column {column}{f', channel {channel}' if colour else ''})"
        for row, column, channel in np.ndindex(*model.shape)
    ]
