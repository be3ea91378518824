"""The door: arrays of files, and of a user's own, as finite numbers or labels, or refused.

Every reader goes through `assemble`, from raw arrays to a checked `Dataset`; arrays of a user's
program through `check_inputs` and `as_array`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.dataset import (
    Dataset,
    Request,
    Split,
    Task,
    class_indices,
    exact,
    fingerprint,
    listed,
    match_columns,
    number,
    sorted_names,
)
from nembp.datasets.scaling import LARGEST, Scaling, check_range, chunks, standardized, unit_range
from nembp.datasets.sources import Rows, Samples, is_mapped, random_bits, stratified_choice
from nembp.errors import ArchitectureError, DataError, ShapeError
from nembp.files import parsing

SQUARED = 1e150  # the most of a user's own values, whose squares float64 holds


@dataclass(frozen=True, eq=False)
class Raw:
    """Arrays as read: images (n, H, W[, C]) or rows (n, features), and their labels or targets.

    `y` (n,) or (n, outputs) may be numbers of `labels`. What is mapped stays so.
    """

    x: Samples
    y: NDArray[Any]
    x_name: str
    y_name: str
    labels: Sequence[str] = ()


def assemble(
    name: str,
    parts: Sequence[Raw],
    request: Request,
    *,
    source: str,
    attribution: str = "",
    classes: tuple[str, ...] = (),
    target_names: tuple[str, ...] = (),
    feature_names: tuple[str, ...] = (),
    x_scaling: Scaling | None = None,
    notes: Iterable[str] = (),
) -> Dataset:
    """Check raw arrays, split them where there is no test part, and scale them.

    `parts` are the training and the test part; or one, of which `request.test_fraction` is held
    out, stratified by class. `classes` are their names when `y` already holds labels 0..K-1; by
    default the labels that occur in the training part, sorted, as numbers where they are numbers.
    `target_names` are the columns of `y`, by default y0, y1, ... `x_scaling` is that of images to
    [0, 1], or of a table; by default that of the dtype or range of the values, and tables are
    standardized on the training part. The rest is passed on to the `Dataset`.

    A DataError says which counts or shapes disagree, which value is not finite, or why labels are
    not what `task="auto"` takes for classes.
    """
    notes, train, last = list(notes), parts[0], parts[-1]
    xs = [feature_array(raw.x, raw.x_name, transpose=request.transpose) for raw in parts]
    for raw in parts:
        _check_counts(raw)
    _check_alike("samples", xs, train.x_name, last.x_name)
    if not classes and request.task != "regression" and all(_is_one_hot(raw.y) for raw in parts):
        classes = target_names or tuple(map(str, range(train.y.shape[1])))
        parts = [replace(raw, y=raw.y.argmax(axis=1)) for raw in parts]
        notes.append(
            f"{train.y_name}: the rows are one-hot, so they are classes; --task regression makes "
            "them numbers to predict."
        )
    if classes or train.labels or _is_labels(train.y, train.y_name, request.task):
        ys, classes = _encoded(parts, classes, request, notes)
        target_names = ()
        if len(classes) < 2:
            raise DataError(
                f"{train.y_name}: one class only ({classes[0]}); expected at least two classes"
            )
    elif request.classes:
        raise DataError(
            f"{train.y_name}: numbers to predict, but expected are the classes "
            f"{listed(request.classes, 3)}. Save labels as whole numbers or text, or say "
            "task='classification'"
        )
    else:
        ys = [target_array(raw.y, raw.y_name) for raw in parts]
        _check_alike("targets", ys, train.y_name, last.y_name)
        target_names = target_names or tuple(f"y{column}" for column in range(ys[0].shape[1]))
        different = np.unique(ys[0])
        if np.all(ys[0] == ys[0][0]):
            raise DataError(
                f"{train.y_name}: {ys[0][0, 0]:g} of every sample; expected targets that differ. "
                "Name others (--targets of a csv)"
            )
        few = ys[0].shape[1] == 1 and len(different) <= min(FEW, len(xs[0]) / 2)
        if request.task == "auto" and few and np.array_equal(different, np.rint(different)):
            notes.append(
                f"{train.y_name}: {len(different)} different whole numbers, taken for numbers to "
                "predict; --task classification makes them classes."
            )
    splits = [Split(x, y) for x, y in zip(xs, ys, strict=True)]
    seen = "+".join(fingerprint(split.x, split.y, feature_names) for split in splits)
    if len(splits) == 1:
        rows = _hold_out(ys[0], len(np.unique(ys[0])) if classes else 0, request, train.x_name)
        splits = [splits[0].subset(part) for part in rows]
    counts = np.bincount(splits[0].y, minlength=len(classes)) if classes else np.ones(1)
    if not counts.all() and not request.classes:
        raise DataError(
            f"{train.y_name}: class {classes[int(counts.argmin())]!r} has no training sample; "
            "expected at least one of each class"
        )
    if request.limit is not None and request.limit < len(splits[0]):
        bits = random_bits(request.seed, "limit")
        splits[0] = splits[0].subset(stratified_choice(splits[0].y, request.limit, bits)[0])
    y_scaling = Scaling() if classes else standardized(splits[0].y)
    x_scaling, pixel_scaling = _input_scaling(splits[0].x, request, x_scaling)
    for raw, split in zip((train, last), splits, strict=True):
        if split.x.dtype != np.uint8:
            check_range(split.x, x_scaling, raw.x_name)
        if not classes:
            check_range(split.y, y_scaling, raw.y_name)
    shape = tuple(int(length) for length in splits[0].x.shape[1:])
    return Dataset(
        name, splits[0], splits[1], shape, classes, x_scaling, y_scaling, target_names, attribution,
        source, pixel_scaling, feature_names, tuple(notes), seen
    )  # fmt: skip


def _check_counts(raw: Raw) -> None:
    if raw.y.ndim == 0 or len(raw.x) != len(raw.y):
        count = "a single value" if raw.y.ndim == 0 else f"{len(raw.y)} labels or targets"
        raise DataError(
            f"{raw.y_name}: {count} for {len(raw.x)} samples ({raw.x_name}); expected one for "
            "each. One of the two is incomplete or from another set."
        )
    if len(raw.x) == 0:
        raise DataError(f"{raw.x_name}: no samples; expected at least one in every split")


def _check_alike(what: str, values: Sequence[Samples], train: str, test: str) -> None:
    if values[-1].shape[1:] != values[0].shape[1:]:
        raise DataError(
            f"{test}: {what} of shape {values[-1].shape[1:]}, but those to train on have shape "
            f"{values[0].shape[1:]} ({train}); expected the same shape in both"
        )


# -- labels --------------------------------------------------------------------------------------
MISSING = {"", "nan", "na", "n/a", "#n/a", "<na>", "null", "?"}
_NO_NUMBER = {"none", "-", "--", ".", "missing"}  # among numbers, not among names
_MONEY = r"[$€£¥₹%]"
_NUMBER_LIKE = re.compile(rf"[(+\-\s]*{_MONEY}?\s*[+-]?\d[\d.,'\s]*(e[+-]?\d+)?\s*{_MONEY}?\)?")
_WITH_UNIT = re.compile(r"[+-]?\d[\d.,]*\s*((?:[^\W\d_]|[°²³/]){1,5})")
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}"
    r"|\d{1,2}[ -][^\W\d_]{3,9}\.?[ -]\d{2,4})([T ].*)?|\d{1,2}:\d{2}(:\d{2})?"
)
FEW = 20  # whole numbers that might be classes


def _is_labels(y: NDArray[Any], where: str, task: Task) -> bool:
    """Whether `y` holds class labels: integers or text, unless `task` says otherwise."""
    if task == "regression":
        if y.dtype.kind in "US":
            raise DataError(f"{where}: text targets; task='regression' expects numbers")
        return False
    if task == "auto" and y.dtype.kind == "f":
        return False
    if y.dtype.kind not in "iubfUS":
        raise DataError(
            f"{where}: dtype {y.dtype}; expected integers or text (classes) or floats (regression)"
        )
    if y.ndim != 1 and y.shape[1:] != (1,):
        raise DataError(
            f"{where}: shape {y.shape} of {y.dtype}; expected one label per sample, shape (n,), or "
            "one-hot rows. For targets use floats or task='regression'."
        )
    return True


def _is_one_hot(y: NDArray[Any]) -> bool:
    if y.ndim != 2 or y.shape[1] < 2 or not len(y) or y.dtype.kind not in "fiub":
        return False
    return bool(np.all((y == 0) | (y == 1)) and np.all(np.count_nonzero(y, axis=1) == 1))


def _encoded(
    parts: Sequence[Raw], classes: tuple[str, ...], request: Request, notes: list[str]
) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    """Map labels to 0..K-1 in the order of the classes: those asked for, or of the first part."""
    for raw in parts:
        _is_labels(raw.y, raw.y_name, "classification")
    if classes and request.classes in ((), classes):
        return [raw.y.reshape(-1).astype(np.int64) for raw in parts], classes
    if classes:
        parts = [replace(raw, y=np.array(classes)[raw.y.reshape(-1)]) for raw in parts]
    named, where, task = [_names_and_codes(raw) for raw in parts], parts[0].y_name, request.task
    if request.classes:
        return _indices(parts, named, request.classes), request.classes
    names, codes = named[0]
    _check_names(names, codes, where, task)
    numeric = all(number(name) is not None for name in names)
    plainest: dict[object, str] = {}
    for name in names:
        key = exact(name) if numeric else name
        if plainest.setdefault(key, name) != name:  # a number that is written in several ways
            plainest[key] = np.format_float_positional(float(name), trim="-")
    classes = sorted_names(list(plainest.values()))
    if numeric and task == "auto" and len(classes) > FEW:
        notes.append(
            f"{where}: whole numbers, taken for {len(classes)} classes; --task regression makes "
            "them numbers to predict."
        )
    return _indices(parts, named, classes), classes


def _indices(parts: Sequence[Raw], named: Any, classes: tuple[str, ...]) -> list[NDArray[np.int64]]:
    pairs = zip(parts, named, strict=True)
    return [class_indices(names, classes, raw.y_name)[codes] for raw, (names, codes) in pairs]


def _names_and_codes(raw: Raw) -> tuple[list[str], NDArray[np.int64]]:
    """Return different labels as text, and the place of each sample's label among them."""
    y, where = raw.y.reshape(len(raw.y)), raw.y_name
    with parsing(f"{where}: labels are not valid text", "Save them as text again."):
        if y.dtype.kind == "S":
            y = np.strings.decode(y, "utf-8")
        elif y.dtype.kind != "U":
            check_finite(y, where)
            most = 2**53 if y.dtype.kind == "f" else np.iinfo(np.int64).max
            wrong = np.flatnonzero((y != np.floor(y)) | (np.abs(y) > most))
            if y.dtype.kind in "fu" and len(wrong):
                raise DataError(
                    f"{where}: label {y[wrong[0]]} of sample {wrong[0]}; expected integers or "
                    "text. For numbers to predict use task='regression'."
                )
            y = y.astype(np.int64)
        values, codes = np.unique(y, return_inverse=True)
        names = [raw.labels[k] if raw.labels else str(k) for k in values.tolist()]
        "".join(names).encode()  # numpy keeps any 32 bits, Python prints no surrogates
    return names, codes


def _check_names(names: list[str], codes: NDArray[np.int64], where: str, task: Task) -> None:
    """Refuse labels that mark what is missing, and that, unless asked for, are probably no classes.

    Such are numbers with signs or units, dates, and names of which most occur once.
    """
    others = [name for name in names if name.lower() not in MISSING | _NO_NUMBER]
    numeric = bool(others) and all(number(name) is not None for name in others)
    for k, name in enumerate(names):
        if name.strip().lower() in (MISSING | _NO_NUMBER if numeric else MISSING):
            raise DataError(
                f"{where}: the label {name!r} of {np.count_nonzero(codes == k)} samples marks a "
                "missing value; expected a class. Drop those rows, or give the class another name."
            )
    if task != "auto":
        return
    most, stripped = 0.9 * len(names), [name.strip() for name in names]
    plain = all(number(name) is not None for name in names)
    dates = [name for name in stripped if _DATE.fullmatch(name)]
    odd = [name for name in stripped if _NUMBER_LIKE.fullmatch(name)]
    units = Counter(match[1] for name in stripped if (match := _WITH_UNIT.fullmatch(name)))
    if not plain and len(dates) > most:
        fault, remedy = "dates or times", "Turn them into numbers, such as days."
    elif not plain and (len(odd) > most or max(units.values(), default=0) > max(2, most)):
        fault = "numbers with signs, units or separators"
        remedy = "Remove what is not part of the number."
        if all(re.fullmatch(r"[+-]?\d+,\d+", name) for name in stripped):
            remedy = "Say decimal=',' (--decimal ,)."
    elif len(codes) >= 10 and len(names) > len(codes) / 2:
        fault = f"{len(names)} different labels in {len(codes)} samples"
        remedy = "Name another target; or, for numbers to predict, say task='regression'."
    else:
        return
    raise DataError(
        f"{where}: {fault} ({listed(names, 3)}); expected classes that repeat, or plain numbers to "
        f"predict. {remedy} If they are classes, say task='classification' (--task classification)."
    )


# -- splits and scaling --------------------------------------------------------------------------
def _input_scaling(
    x: Samples, request: Request, given: Scaling | None
) -> tuple[Scaling, Scaling | None]:
    """Scaling of the network's inputs, and that of pixels to [0, 1] where it is another."""
    if x.ndim == 4:
        pixels = given or unit_range(x, is_image=True)
        if request.scaling == "unit" or (request.scaling == "auto" and x.shape[3] == 1):
            return pixels, None
        return standardized(x, by_channel=True), pixels
    if request.scaling == "channel":
        raise ArchitectureError(
            f"scaling='channel' is for images (n, height, width, channels), not for samples of "
            f"shape {x.shape[1:]}; expected 'unit' or 'auto'"
        )
    if given is None and (x.dtype == np.uint8 or request.scaling == "unit"):
        given = unit_range(x, is_image=x.dtype == np.uint8)
    return given or standardized(x), None


def _hold_out(
    y: NDArray[Any], n_classes: int, request: Request, where: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of the training part and of the test part, which gets `test_fraction` of them."""
    n, least = len(y), max(1, n_classes)
    if n <= least:
        raise DataError(
            f"{where}: {n} samples of {n_classes} classes cannot be split into training and test: "
            f"expected at least {least + 1}, one per class to train on and one to test. For "
            "numbers to predict use task='regression'."
        )
    n_train = max(n - max(1, round(n * request.test_fraction)), least)
    return stratified_choice(y, n_train, random_bits(request.seed, "test split"))


# -- values ------------------------------------------------------------------------------------
def check_finite(x: Samples, where: str, most: float = LARGEST) -> None:
    """Raise DataError naming the first NaN, infinity or magnitude above ``most``; in chunks."""
    for part in chunks(x) if x.dtype.kind == "f" else ():
        usable = np.abs(x[part]) <= min(most, float(np.finfo(x.dtype).max))  # False for NaN
        if not usable.all():
            index = np.argwhere(~usable)[0]
            value = x[part][tuple(index)]
            index[0] += part.start
            position = ", ".join(map(str, index.tolist()))
            remedy = "Drop the sample, or fill the gap (sklearn.impute.SimpleImputer)"
            if np.isfinite(value):
                remedy = "Rescale the values, or drop the sample"
            raise DataError(
                f"{where}: value [{position}] is {value}; expected finite numbers of magnitude up "
                f"to {most:g}. {remedy}"
            )


# -- values of files -------------------------------------------------------------------------------
def feature_array(x: Samples, where: str, *, transpose: bool | None = None) -> Samples:
    """Convert samples to uint8 or finite native floats of shape (n, features) or (n, H, W, C).

    uint8, float32 and float64 are not copied; other integers become the smallest float that
    holds them exactly (64-bit ones are rounded to float64), those of a file as they are read.
    """
    kind, size, dtype = x.dtype.kind, x.dtype.itemsize, x.dtype
    if kind not in "fiub" or (kind == "f" and size > 8):
        raise DataError(
            f"{where}: dtype {dtype}; expected real numbers of at most 64 bits (uint8 for images)"
        )
    if dtype != np.uint8:
        dtype = np.dtype(np.float32 if size <= (4 if kind == "f" else 2) else np.float64)
    if not 1 <= x.ndim <= 4 or (isinstance(x, Rows) and (x.ndim % 2 or x.dtype != dtype)):
        raise DataError(
            f"{where}: {x.dtype} of shape {x.shape}; expected images (n, height, width[, channels])"
            " or a table (n, features)"
        )
    if not isinstance(x, Rows):
        if x.ndim % 2:
            x = x[:, np.newaxis] if x.ndim == 1 else x[..., np.newaxis]
        if transpose:
            if x.ndim != 4:
                raise DataError(f"{where}: transpose is for images, not for shape {x.shape}")
            x = np.swapaxes(x, 1, 2)
        if not is_mapped(x):
            x = np.ascontiguousarray(x, dtype)
        elif x.dtype != dtype:
            x = Rows([x], dtype=dtype)
    if 0 in x.shape[1:]:
        raise DataError(f"{where}: shape {x.shape}; expected at least one value per sample")
    check_finite(x, where)
    return x


def target_array(y: NDArray[Any], where: str) -> NDArray[Any]:
    """Convert regression targets to finite native floats of shape (n, outputs)."""
    if y.ndim not in (1, 2):
        raise DataError(f"{where}: shape {y.shape}; expected (n,) or (n, outputs)")
    y = np.asarray(feature_array(y, where))
    return y.astype(np.float32) if y.dtype == np.uint8 else y


# -- values of a user's own arrays -----------------------------------------------------------------
def column_names(X: Any) -> tuple[str, ...]:
    """Return the names of a table's columns; () where they are no text, or X is no table."""
    names = tuple(getattr(X, "columns", ()))
    return names if all(isinstance(each, str) for each in names) else ()


def check_inputs(
    X: Any, inputs: int | None = None, name: str = "X", columns: Sequence[str] = ()
) -> NDArray[Any]:
    """Return samples as an array (n, features) of finite numbers, images flattened.

    X is a list of rows, a NumPy or CuPy array, a sparse matrix or a pandas or Polars table; of a
    table `columns` are taken, in this order. A sample must have `inputs` values.
    """
    if found := column_names(X):
        match_columns(found, columns, name, None)
        X = X[list(columns)] if columns else X
    x = as_array(X, name)
    if x.ndim < 2:
        raise ShapeError(
            f"{name} has shape {x.shape}; expected one row per sample, (n, features). A single "
            "feature is X.reshape(-1, 1), a single sample X.reshape(1, -1)"
        )
    x = x.reshape(len(x), -1)
    if inputs is not None and x.shape[1] != inputs:
        raise ShapeError(
            f"{name} has {x.shape[1]} values in a sample, but the network has {inputs} inputs; "
            "give it the columns that it was made for, or make a network of that size"
        )
    check_finite(x, name, SQUARED)
    return x


def as_array(value: Any, name: str, *, text: bool = False) -> NDArray[Any]:
    """Return what a user gave as an array of numbers, or of labels where ``text`` may come."""
    if np.ma.is_masked(value):
        raise DataError(f"{name} has masked values; fill them, or remove such rows")
    given = type(value).__name__
    if hasattr(value, "toarray"):  # SciPy's sparse matrices
        value = value.toarray()
    elif hasattr(value, "to_numpy"):  # pandas and Polars
        value = value.to_numpy()
    elif hasattr(value, "get") and hasattr(value, "__cuda_array_interface__"):
        value = value.get()
    try:
        array = np.asarray(value)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ShapeError(
            f"{name} is not an array ({str(error).splitlines()[0].rstrip('.')}); give all rows the "
            "same number of values"
        ) from error
    if array.ndim == 0:
        raise ShapeError(
            f"{name} is one {given}; expected one row per sample: a list, an array or a table (of "
            "a generator or lazy frame, what it yields)"
        )
    if array.size == 0:
        raise DataError(f"{name} has shape {array.shape}; expected at least one sample and feature")
    if array.dtype.kind in "OT":  # a table of mixed columns, say
        array = _plain(array, name, text)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind == "b" and not text:
        array = array.astype(np.uint8)
    if array.dtype.kind not in ("fiubU" if text else "fiu"):
        raise DataError(
            f"{name} holds {array.dtype}, but numbers are expected; convert text to numbers, dates "
            "to seconds, and complex numbers to their parts"
        )
    return array


def _plain(array: NDArray[Any], name: str, text: bool) -> NDArray[Any]:
    """Return an array of objects as one of numbers, or of labels."""
    values, marks = array.ravel().tolist(), ("None", "nan", "NaN", "<NA>", "NaT")
    missing = [not isinstance(v, str) and str(v) in marks for v in values]
    if text and any(missing):
        row = missing.index(True) // (array.size // len(array))
        raise DataError(f"{name} has no value in row {row}; remove such rows, or name the class")
    values = [np.nan if gap else v for v, gap in zip(values, missing, strict=True)]
    try:
        return np.array(values, None if text else np.float64).reshape(array.shape)
    except (OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f"{name} holds what is not a number ({error}); encode text columns first, as by "
            "sklearn.preprocessing.OneHotEncoder, and give dates in seconds"
        ) from error
