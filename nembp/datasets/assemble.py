"""From raw arrays to a checked `Dataset`: the one door every reader goes through."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.dataset import (
    Dataset,
    Request,
    Split,
    Task,
    fingerprint,
    listed,
    number,
    sorted_names,
)
from nembp.datasets.scaling import (
    LARGEST,
    Scaling,
    check_range,
    chunks,
    image_scaling,
    standardized,
    unit_range,
)
from nembp.datasets.sources import ArrayRows, Rows, Samples, is_mapped
from nembp.datasets.splitting import random_bits, shuffled, stratified_choice
from nembp.errors import ArchitectureError, DataError


@dataclass(frozen=True, eq=False)
class Raw:
    """Arrays as read, and the file and array that each was read from, for messages.

    Images (n, H, W[, C]) or table rows (n, features), of which what is memory-mapped stays so;
    labels (n,) or targets (n, outputs), or numbers of `labels`.
    """

    x: Samples
    y: NDArray[Any]
    x_name: str
    y_name: str
    labels: Sequence[str] = ()


def assemble(
    name: str,
    train: Raw,
    test: Raw | None,
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

    Parameters
    ----------
    name, source, attribution, feature_names, notes
        Passed on to the `Dataset`.
    train, test : Raw
        Without `test`, `request.test_fraction` of `train` is held out, stratified by class.
    request : Request
        Gives `task`, `test_fraction`, `seed`, `limit`, `scaling` and `transpose`.
    classes : tuple of str
        Class names when `y` already holds labels 0..K-1; by default the labels that occur in
        `train`, sorted, as numbers where they are numbers.
    target_names : tuple of str
        Columns of `y`; default y0, y1, ...
    x_scaling : Scaling, optional
        Of images to [0, 1], or of a table. Default: by the dtype or range of the values; tables
        are standardized on the training part.

    Raises
    ------
    DataError
        If counts or shapes disagree, a value is NaN or infinite, a split is empty, fewer than two
        classes occur, or labels are not what `task="auto"` takes for classes.
    """
    notes = list(notes)
    splits = [train] if test is None else [train, test]
    xs = [feature_array(raw.x, raw.x_name, transpose=request.transpose) for raw in splits]
    for raw in splits:
        _check_counts(raw)
    if xs[-1].shape[1:] != xs[0].shape[1:]:
        raise DataError(
            f"{splits[-1].x_name}: samples of shape {xs[-1].shape[1:]}, but training samples have "
            f"shape {xs[0].shape[1:]} ({train.x_name}); expected the same shape in both"
        )
    if not classes and request.task != "regression" and all(_is_one_hot(raw.y) for raw in splits):
        classes = target_names or tuple(map(str, range(train.y.shape[1])))
        splits = [Raw(r.x, r.y.argmax(axis=1), r.x_name, r.y_name) for r in splits]
        notes.append(
            f"{train.y_name}: the rows are one-hot, so they are classes; --task regression makes "
            "them numbers to predict."
        )
    labelled = bool(classes or train.labels)
    labelled = labelled or is_labels(train.y, train.y_name, request.task)
    if labelled:
        for raw in splits:
            is_labels(raw.y, raw.y_name, "classification")
        ys, classes = _encoded(splits, classes, request.task, notes)
    else:
        ys = [target_array(raw.y, raw.y_name) for raw in splits]
        if ys[0].shape[1] != ys[-1].shape[1]:
            raise DataError(
                f"{splits[-1].y_name}: {ys[-1].shape[1]} targets a sample, but training samples "
                f"have {ys[0].shape[1]} ({train.y_name}); expected the same number in both"
            )
        if request.task == "auto":
            _note_whole_numbers(ys[0], train.y_name, notes)
    seen = "+".join(fingerprint(x, y, feature_names) for x, y in zip(xs, ys, strict=True))
    parts = [Split(x, y) for x, y in zip(xs, ys, strict=True)]
    if test is None:
        held_out = _hold_out(ys[0], len(classes), request, train.x_name)
        parts = [parts[0].subset(rows) for rows in held_out]
    if labelled:
        _check_every_class(parts[0].y, classes, train.y_name)
    kept = _limited(parts[0].y, len(classes), request)
    if kept is not None:
        parts[0] = parts[0].subset(kept)
    y_scaling = Scaling() if labelled else standardized(parts[0].y)
    x_scaling, pixel_scaling = _input_scaling(parts[0].x, request, x_scaling)
    for raw, part in zip((train, test or train), parts, strict=True):
        if part.x.dtype != np.uint8:
            check_range(part.x, x_scaling, raw.x_name)
        if not labelled:
            check_range(part.y, y_scaling, raw.y_name)
    if labelled:
        target_names = ()
    elif not target_names:
        target_names = tuple(f"y{column}" for column in range(parts[0].y.shape[1]))
    return Dataset(
        name=name,
        train=parts[0],
        test=parts[1],
        shape=tuple(int(length) for length in parts[0].x.shape[1:]),
        classes=classes,
        x_scaling=x_scaling,
        y_scaling=y_scaling,
        target_names=target_names,
        attribution=attribution,
        source=source,
        pixel_scaling=pixel_scaling,
        feature_names=feature_names,
        notes=tuple(notes),
        fingerprint=seen,
    )


def _check_counts(raw: Raw) -> None:
    if raw.y.ndim == 0:
        raise DataError(f"{raw.y_name}: a single value; expected one label or target per sample")
    if len(raw.x) != len(raw.y):
        raise DataError(
            f"{raw.y_name}: {len(raw.y)} labels or targets for {len(raw.x)} samples "
            f"({raw.x_name}); expected as many as samples. One of the two is incomplete or from "
            "another set."
        )
    if len(raw.x) == 0:
        raise DataError(f"{raw.x_name}: no samples; expected at least one in every split")


# -- values --------------------------------------------------------------------------------------
def feature_array(x: Samples, where: str, *, transpose: bool | None = None) -> Samples:
    """Convert samples to uint8 or finite native floats of shape (n, features) or (n, H, W, C).

    uint8, float32 and float64 are not copied; other integers become the smallest float that
    holds them exactly (64-bit ones are rounded to float64), those of a file as they are read.
    """
    dtype = _real_dtype(x, where)
    if not 1 <= x.ndim <= 4:
        raise DataError(
            f"{where}: shape {x.shape}; expected images (n, height, width[, channels]) or a table "
            "(n, features)"
        )
    if isinstance(x, Rows):
        if x.ndim % 2 or x.dtype != dtype:
            raise DataError(
                f"{where}: rows of {x.dtype} and shape {x.shape}; expected uint8, float32 or "
                "float64 and (n, features) or (n, height, width, channels)"
            )
    else:
        if x.ndim % 2:
            x = x[:, np.newaxis] if x.ndim == 1 else x[..., np.newaxis]
        if transpose:
            if x.ndim != 4:
                raise DataError(f"{where}: transpose is for images, not for shape {x.shape}")
            x = np.swapaxes(x, 1, 2)
        if is_mapped(x):
            x = x if x.dtype == dtype else ArrayRows(x, dtype)
        else:
            x = np.ascontiguousarray(x, dtype)
    if 0 in x.shape[1:]:
        raise DataError(f"{where}: shape {x.shape}; expected at least one value per sample")
    _check_finite(x, where)
    return x


def target_array(y: NDArray[Any], where: str) -> NDArray[Any]:
    """Convert regression targets to finite native floats of shape (n, outputs)."""
    dtype = _real_dtype(y, where)
    y = y.astype(np.float32 if dtype == np.uint8 else dtype, copy=False)
    if y.ndim == 1:
        y = y[:, np.newaxis]
    if y.ndim != 2 or y.shape[1] == 0:
        raise DataError(f"{where}: shape {y.shape}; expected (n,) or (n, outputs)")
    _check_finite(y, where)
    return y


def _real_dtype(x: Samples, where: str) -> np.dtype[Any]:
    """Return what real numbers are converted to: uint8, float32 or float64."""
    if x.dtype.kind not in "fiub" or (x.dtype.kind == "f" and x.dtype.itemsize > 8):
        raise DataError(
            f"{where}: dtype {x.dtype}; expected real numbers of at most 64 bits (uint8 for images)"
        )
    if x.dtype == np.uint8:
        return x.dtype
    small = x.dtype.kind == "b" or x.dtype.itemsize <= (4 if x.dtype.kind == "f" else 2)
    return np.dtype(np.float32 if small else np.float64)


def _check_finite(x: Samples, where: str) -> None:
    """Raise DataError naming the first NaN, infinity or magnitude above 1e30; in chunks."""
    if x.dtype.kind in "iub":
        return
    for part in chunks(x):
        usable = np.abs(x[part]) <= LARGEST  # False for NaN
        if not usable.all():
            index = np.argwhere(~usable)[0]
            value = x[part][tuple(index)]
            index[0] += part.start
            position = ", ".join(map(str, index.tolist()))
            raise DataError(
                f"{where}: value [{position}] is {value}; expected finite numbers of magnitude "
                f"up to {LARGEST:g}. Replace it or drop the sample."
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


def is_labels(y: NDArray[Any], where: str, task: Task) -> bool:
    """Whether `y` holds class labels: integers or text, unless `task` says otherwise."""
    text = y.dtype.kind in "US"
    if task == "regression":
        if text:
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
    parts: list[Raw], classes: tuple[str, ...], task: Task, notes: list[str]
) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    """Map labels to 0..K-1 in the order of the classes: those of the first (training) part."""
    if classes:
        return [raw.y.reshape(-1).astype(np.int64) for raw in parts], classes
    named = [_names_and_codes(raw) for raw in parts]
    first, codes = named[0]
    where = parts[0].y_name
    _check_missing(first, codes, where)
    if task == "auto":
        _check_repeating(first, len(codes), where, text=bool(parts[0].labels))
    numeric = all(number(name) is not None for name in first)
    # numbers are compared by value; one that is written in several ways gets its plainest name
    spellings: dict[object, list[str]] = {}
    for name in first:
        spellings.setdefault(_key(name, numeric), []).append(name)
    canonical = {
        key: names[0] if len(names) == 1 else _plain(float(names[0]))
        for key, names in spellings.items()
    }
    if len(canonical) < 2:
        raise DataError(f"{where}: one class only ({first[0]}); expected at least two classes")
    classes = sorted_names(list(canonical.values()))
    if numeric and task == "auto" and len(classes) > FEW:
        notes.append(
            f"{where}: whole numbers, taken for {len(classes)} classes; --task regression makes "
            "them numbers to predict."
        )
    place = {_key(name, numeric): k for k, name in enumerate(classes)}
    encoded = []
    for raw, (names, codes) in zip(parts, named, strict=True):
        places = np.array([place.get(_key(name, numeric), -1) for name in names])
        labels = places[codes].astype(np.int64)
        unknown = np.flatnonzero(labels < 0)
        if len(unknown):
            raise DataError(
                f"{raw.y_name}: label {names[codes[unknown[0]]]} of sample {unknown[0]} does not "
                f"occur in the training labels ({where}); expected every class among them"
            )
        encoded.append(labels)
    return encoded, classes


def _key(name: str, numeric: bool) -> object:
    value = number(name) if numeric else None
    return name if value is None else value


def _plain(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _names_and_codes(raw: Raw) -> tuple[list[str], NDArray[np.int64]]:
    """Return different labels as text, and the place of each sample's label among them."""
    y, where = raw.y.reshape(len(raw.y)), raw.y_name
    if raw.labels:
        used, codes = np.unique(y.astype(np.int64), return_inverse=True)
        return [raw.labels[k] for k in used.tolist()], codes
    if y.dtype.kind in "US":
        try:
            y = np.strings.decode(y, "utf-8") if y.dtype.kind == "S" else y
            values, codes = np.unique(y, return_inverse=True)
            names = values.tolist()
            "".join(names).encode()  # numpy keeps any 32 bits, Python prints no surrogates
        except (UnicodeError, ValueError, SystemError) as error:
            raise DataError(f"{where}: labels are not valid text ({error})") from error
        return names, codes
    _check_finite(y, where)
    wrong = np.zeros(0, dtype=np.intp)
    if y.dtype.kind == "f":
        wrong = np.flatnonzero((y != np.floor(y)) | (np.abs(y) > 2**53))
    elif y.dtype.kind == "u":
        wrong = np.flatnonzero(y > np.iinfo(np.int64).max)
    if len(wrong):
        raise DataError(
            f"{where}: label {y[wrong[0]]} of sample {wrong[0]}; expected integers or text. "
            "For numbers to predict use task='regression'."
        )
    values, codes = np.unique(y.astype(np.int64), return_inverse=True)
    return [str(value) for value in values.tolist()], codes


def _check_missing(names: list[str], codes: NDArray[np.int64], where: str) -> None:
    others = [name for name in names if name.lower() not in MISSING | _NO_NUMBER]
    numeric = bool(others) and all(number(name) is not None for name in others)
    marks = MISSING | _NO_NUMBER if numeric else MISSING
    for k, name in enumerate(names):
        if name.strip().lower() in marks:
            raise DataError(
                f"{where}: the label {name!r} of {np.count_nonzero(codes == k)} samples marks a "
                "missing value; expected a class. Drop those rows, or give the class another name."
            )


def _check_repeating(names: list[str], n: int, where: str, *, text: bool) -> None:
    """Refuse labels that are probably no classes: numbers with signs or units, dates, names."""

    def share(pattern: re.Pattern[str]) -> float:
        return sum(bool(pattern.fullmatch(name.strip())) for name in names) / len(names)

    as_classes = "If they are classes, say task='classification' (--task classification)."
    some = listed(names, 3)
    if not all(number(name) is not None for name in names):
        if share(_DATE) > 0.9:
            raise DataError(
                f"{where}: dates or times ({some}); expected classes, or numbers to predict. "
                f"Turn them into numbers, such as days. {as_classes}"
            )
        units = Counter(m[1] for name in names if (m := _WITH_UNIT.fullmatch(name.strip())))
        same_unit = max(units.values(), default=0) > max(2, 0.9 * len(names))
        if share(_NUMBER_LIKE) > 0.9 or same_unit:
            commas = all(re.fullmatch(r"[+-]?\d+,\d+", name) for name in names)
            remedy = " or say decimal=',' (--decimal ,)" if commas else ""
            raise DataError(
                f"{where}: numbers with signs, units or separators ({some}); expected classes, or "
                f"plain numbers to predict. Remove what is not part of the number{remedy}. "
                f"{as_classes}"
            )
    if n >= 10 and len(names) > n / 2:
        numbers = "" if text else "For numbers to predict say task='regression'. "
        raise DataError(
            f"{where}: {len(names)} different labels in {n} samples ({some}); expected classes "
            f"that repeat. {numbers}{as_classes}"
        )


def _note_whole_numbers(y: NDArray[Any], where: str, notes: list[str]) -> None:
    if y.shape[1] == 1 and np.array_equal(y, np.rint(y)):
        different = len(np.unique(y))
        if different <= min(FEW, len(y) / 2):
            notes.append(
                f"{where}: {different} different whole numbers, taken for numbers to predict; "
                "--task classification makes them classes."
            )


def _check_every_class(y: NDArray[np.int64], classes: tuple[str, ...], where: str) -> None:
    """Raise DataError unless there are two classes, each with a training sample."""
    if len(classes) < 2:
        raise DataError(f"{where}: one class only ({classes[0]}); expected at least two classes")
    counts = np.bincount(y, minlength=len(classes))
    if not counts.all():
        raise DataError(
            f"{where}: class {classes[int(counts.argmin())]!r} has no training sample; expected "
            "at least one of each class"
        )


# -- splits and scaling --------------------------------------------------------------------------
def _input_scaling(
    x: Samples, request: Request, given: Scaling | None
) -> tuple[Scaling, Scaling | None]:
    """Scaling of the network's inputs, and that of pixels to [0, 1] where it is another."""
    if x.ndim != 4:
        if request.scaling == "channel":
            raise ArchitectureError(
                f"scaling='channel' is for images (n, height, width, channels), not for samples of "
                f"shape {x.shape[1:]}; expected 'unit' or 'auto'"
            )
        if given is None and x.dtype == np.uint8:
            given = image_scaling(x)
        if given is None:
            given = unit_range(x) if request.scaling == "unit" else standardized(x)
        return given, None
    pixels = image_scaling(x) if given is None else given
    if request.scaling == "unit" or (request.scaling == "auto" and x.shape[3] == 1):
        return pixels, None
    return standardized(x, by_channel=True), pixels


def _hold_out(
    y: NDArray[Any], n_classes: int, request: Request, where: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of the training part and of the test part, which gets `test_fraction` of them."""
    n = len(y)
    if n <= max(1, n_classes):
        hint = " For numbers to predict use task='regression'." if n_classes else ""
        raise DataError(
            f"{where}: {n} samples of {n_classes} classes cannot be split into training and test: "
            f"expected at least {max(1, n_classes) + 1}, one per class to train on and one to "
            f"test.{hint}"
        )
    n_train = n - max(1, round(n * request.test_fraction))
    n_train = max(n_train, n_classes, 1)
    bits = random_bits(request.seed, "test split")
    if n_classes:
        return stratified_choice(y, n_train, bits)
    order = shuffled(n, bits)
    return order[:n_train], order[n_train:]


def _limited(y: NDArray[Any], n_classes: int, request: Request) -> NDArray[np.intp] | None:
    """Rows kept under `limit`, None for all."""
    limit = request.limit
    if limit is None or limit >= len(y):
        return None
    if limit < n_classes:
        raise ArchitectureError(
            f"limit={limit} training samples cannot hold each of {n_classes} classes: "
            f"expected at least {n_classes}"
        )
    bits = random_bits(request.seed, "limit")
    return stratified_choice(y, limit, bits)[0] if n_classes else shuffled(len(y), bits)[:limit]
