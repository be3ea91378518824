"""Values at the door, of files and of a user's own arrays: finite numbers, or labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.dataset import match_columns
from nembp.datasets.scaling import LARGEST, chunks
from nembp.datasets.sources import ArrayRows, Rows, Samples, is_mapped
from nembp.errors import DataError, ShapeError


def check_finite(x: Samples, where: str) -> None:
    """Raise DataError naming the first NaN, infinity or magnitude above 1e30; in chunks."""
    for part in chunks(x) if x.dtype.kind == "f" else ():
        usable = np.abs(x[part]) <= LARGEST  # False for NaN
        if not usable.all():
            index = np.argwhere(~usable)[0]
            value = x[part][tuple(index)]
            index[0] += part.start
            position = ", ".join(map(str, index.tolist()))
            raise DataError(
                f"{where}: value [{position}] is {value}; expected finite numbers of magnitude up "
                f"to {LARGEST:g}. Drop the sample, or fill the gap (sklearn.impute.SimpleImputer)"
            )


# -- of files ------------------------------------------------------------------------------------
def feature_array(x: Samples, where: str, *, transpose: bool | None = None) -> Samples:
    """Convert samples to uint8 or finite native floats of shape (n, features) or (n, H, W, C).

    uint8, float32 and float64 are not copied; other integers become the smallest float that
    holds them exactly (64-bit ones are rounded to float64), those of a file as they are read.
    """
    dtype = _real_dtype(x, where)
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
            x = ArrayRows(x, dtype)
    if 0 in x.shape[1:]:
        raise DataError(f"{where}: shape {x.shape}; expected at least one value per sample")
    check_finite(x, where)
    return x


def target_array(y: NDArray[Any], where: str) -> NDArray[Any]:
    """Convert regression targets to finite native floats of shape (n, outputs)."""
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
    kind, size = x.dtype.kind, x.dtype.itemsize
    if kind not in "fiub" or (kind == "f" and size > 8):
        raise DataError(
            f"{where}: dtype {x.dtype}; expected real numbers of at most 64 bits (uint8 for images)"
        )
    if x.dtype == np.uint8:
        return x.dtype
    return np.dtype(np.float32 if size <= (4 if kind == "f" else 2) else np.float64)


# -- of a user's own arrays ----------------------------------------------------------------------
def column_names(X: Any) -> tuple[str, ...]:
    """Return the names of a table's columns; () where they are no text, or X is no table."""
    names = tuple(getattr(X, "columns", ()))
    return names if all(isinstance(each, str) for each in names) else ()


def check_inputs(
    X: Any, inputs: int | None = None, name: str = "X", columns: Sequence[str] = ()
) -> NDArray[Any]:
    """Return samples as an array (n, features) of finite numbers, images flattened.

    X is a list of rows, a NumPy or CuPy array, a sparse matrix or a pandas or Polars table, of
    shape (n, ...); messages call it ``name``. A sample must have ``inputs`` values, and a table
    ``columns``, which are put in this order, others left out. DataError or ShapeError says what is
    wrong.
    """
    x = as_array(X, name)
    if x.ndim < 2:
        raise ShapeError(
            f"{name} has shape {x.shape}; expected one row per sample, (n, features). A single "
            "feature is X.reshape(-1, 1), a single sample X.reshape(1, -1)"
        )
    x = x.reshape(len(x), -1)
    if columns and (found := column_names(X)):
        x = x[:, match_columns(found, columns, name, None)]
    if inputs is not None and x.shape[1] != inputs:
        raise ShapeError(
            f"{name} has {x.shape[1]} values in a sample, but the network has {inputs} inputs; "
            "give it the columns that it was made for, or make a network of that size"
        )
    check_finite(x, name)
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
    values = array.ravel().tolist()
    marks = ("None", "nan", "NaN", "<NA>", "NaT")
    missing = [not isinstance(v, str) and str(v) in marks for v in values]
    if text and any(missing):
        row = missing.index(True) // (array.size // len(array))
        raise DataError(f"{name} has no value in row {row}; remove such rows, or name the class")
    try:
        if text:
            return np.array(values).reshape(array.shape)
        values = [np.nan if gap else v for v, gap in zip(values, missing, strict=True)]
        return np.array(values, np.float64).reshape(array.shape)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name} holds what is not a number ({error}); encode text columns first, as by "
            "sklearn.preprocessing.OneHotEncoder, and give dates in seconds"
        ) from error
