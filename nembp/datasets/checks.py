"""Arrays, tables and lists from a user's own program, as finite numbers or labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.dataset import match_columns
from nembp.errors import DataError, ShapeError

MISSING = ("None", "nan", "NaN", "<NA>", "NaT")


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
    ``columns``, which are put in this order, others left out.

    Raises
    ------
    DataError
        If it holds no samples, text, dates, complex numbers, or a NaN or infinity.
    ShapeError
        If its rows have different lengths, or not ``inputs`` values.
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
    missing = [not isinstance(v, str) and str(v) in MISSING for v in values]
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


def check_finite(array: NDArray[Any], name: str) -> None:
    """Raise a DataError that says where a value is missing or infinite."""
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        table = array.reshape(len(array), -1)
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise DataError(
            f"{name} holds {table[row, column]} in row {row}, column {column}; remove such rows, "
            "or fill the gaps, as by sklearn.impute.SimpleImputer"
        )
