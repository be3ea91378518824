"""Checks every data set passes, and the conversions that go with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.dataset import Task
from nembp.datasets.scaling import LARGEST, chunks
from nembp.datasets.sources import ArrayRows, Rows, Samples, is_mapped
from nembp.errors import DataError

__all__ = [
    "check_counts",
    "check_every_class",
    "check_finite",
    "encode_labels",
    "feature_array",
    "is_labels",
    "target_array",
]


def check_counts(x: Samples, y: NDArray[Any], x_name: str, y_name: str) -> None:
    """Raise DataError unless there are as many targets as samples, and at least one."""
    if y.ndim == 0:
        raise DataError(f"{y_name}: a single value; expected one label or target per sample")
    if len(x) != len(y):
        raise DataError(
            f"{y_name}: {len(y)} labels or targets for {len(x)} samples ({x_name}); "
            "expected as many as samples. One of the two is incomplete or from another set."
        )
    if len(x) == 0:
        raise DataError(f"{x_name}: no samples; expected at least one in every split")


def feature_array(x: Samples, where: str) -> Samples:
    """Convert samples to uint8 or native floats of shape (n, features) or (n, H, W, C).

    uint8, float32 and float64 are not copied; other integers become the smallest float that
    holds them exactly (64-bit ones are rounded to float64), those of a file as they are read.

    Raises
    ------
    DataError
        If `x` is not numeric, has no samples' shape, or holds a NaN or an infinity.
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
    elif x.ndim % 2:
        x = x[:, np.newaxis] if x.ndim == 1 else x[..., np.newaxis]
    if not isinstance(x, Rows) and x.dtype != dtype:
        x = ArrayRows(x, dtype) if is_mapped(x) else x.astype(dtype)
    if 0 in x.shape[1:]:
        raise DataError(f"{where}: shape {x.shape}; expected at least one value per sample")
    check_finite(x, where)
    return x


def target_array(y: NDArray[Any], where: str) -> NDArray[Any]:
    """Convert regression targets to finite native floats of shape (n, outputs).

    Raises
    ------
    DataError
        If `y` is not numeric, is not (n,) or (n, outputs), or holds a NaN or an infinity.
    """
    dtype = _real_dtype(y, where)
    y = y.astype(np.float32 if dtype == np.uint8 else dtype, copy=False)
    if y.ndim == 1:
        y = y[:, np.newaxis]
    if y.ndim != 2 or y.shape[1] == 0:
        raise DataError(f"{where}: shape {y.shape}; expected (n,) or (n, outputs)")
    check_finite(y, where)
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


def check_finite(x: Samples, where: str) -> None:
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


def is_labels(y: NDArray[Any], where: str, task: Task) -> bool:
    """Whether `y` holds class labels: integers or text, unless `task` says otherwise.

    Raises
    ------
    DataError
        If `y` is not 1-D where labels are needed, or its dtype cannot be what `task` says.
    """
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
            f"{where}: shape {y.shape} of {y.dtype}; expected one label per sample, shape (n,). "
            "For one-hot rows take argmax(axis=1); for targets use floats or task='regression'."
        )
    return True


def encode_labels(
    parts: list[tuple[NDArray[Any], str]], classes: tuple[str, ...]
) -> tuple[list[NDArray[np.int64]], tuple[str, ...]]:
    """Map labels to 0..K-1 in the sorted order of those that occur in the first (training) part.

    Parameters
    ----------
    parts : list of (labels, where)
        Training labels, then test labels if there are any.
    classes : tuple of str
        Names of labels that are 0..K-1 already, or () to make them from the labels.

    Returns
    -------
    labels : list of ndarray of int64, shape (n,)
    classes : tuple of str

    Raises
    ------
    DataError
        If fewer than two classes occur, or the test part has a label the training part lacks.
    """
    columns = [_label_column(y, where) for y, where in parts]
    if columns[-1].dtype.kind != columns[0].dtype.kind:
        raise DataError(
            f"{parts[-1][1]}: labels of {parts[-1][0].dtype}, but training labels of "
            f"{parts[0][0].dtype} ({parts[0][1]}); expected text in both or integers in both"
        )
    if classes:
        return [column.astype(np.int64) for column in columns], classes
    values = np.unique(columns[0])
    if len(values) < 2:
        raise DataError(
            f"{parts[0][1]}: one class only ({values[0]}); expected at least two classes"
        )
    encoded = []
    for column, (_, where) in zip(columns, parts, strict=True):
        codes = np.minimum(np.searchsorted(values, column), len(values) - 1)
        unknown = np.flatnonzero(values[codes] != column)
        if len(unknown):
            raise DataError(
                f"{where}: label {column[unknown[0]]} of sample {unknown[0]} does not occur in "
                f"the training labels ({parts[0][1]}); expected every class among them"
            )
        encoded.append(codes.astype(np.int64))
    return encoded, tuple(str(value) for value in values.tolist())


def check_every_class(y: NDArray[np.int64], classes: tuple[str, ...], where: str) -> None:
    """Raise DataError unless there are two classes, each with a training sample."""
    if len(classes) < 2:
        raise DataError(f"{where}: one class only ({classes[0]}); expected at least two classes")
    counts = np.bincount(y, minlength=len(classes))
    if not counts.all():
        raise DataError(
            f"{where}: class {classes[int(counts.argmin())]!r} has no training sample; expected "
            "at least one of each class"
        )


def _label_column(y: NDArray[Any], where: str) -> NDArray[Any]:
    """Labels as a column of int64 or text; whole floats count as integers."""
    y = y.reshape(len(y))
    if y.dtype.kind in "US":
        try:
            y = np.strings.decode(y, "utf-8") if y.dtype.kind == "S" else y
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: labels are not valid text ({error})") from error
        codes = np.zeros(0, dtype=np.uint32)
        if y.dtype.itemsize:
            codes = np.ascontiguousarray(y).view(np.uint32)
        # numpy keeps any 32 bits; Python's str fails on some, and printing on surrogates
        if np.any((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))):
            raise DataError(f"{where}: labels are not valid text (characters beyond Unicode)")
        return y
    check_finite(y, where)
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
    return y.astype(np.int64, copy=False)
