"""What users give, as what a network computes with: arrays of numbers, and precisions.

NumPy reads more than numbers in silence (text, dates, complex numbers without their imaginary
part) and says of the rest what its own loops met. Here it is refused with what came and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from nembp.backend import Array, Backend
from nembp.errors import ArchitectureError, ShapeError

if TYPE_CHECKING:
    from nembp.network import Network

__all__ = ["dtype_name", "given_array", "given_rows"]

_NO_NUMBERS: Final = {
    "c": ("complex numbers", "give its real part or its magnitudes"),
    **dict.fromkeys("SUT", ("text", "convert it to numbers first, as by np.asarray(..., float)")),
    **dict.fromkeys("mM", ("dates or durations", "give them as numbers, in a unit of your choice")),
}


def dtype_name(dtype: Any) -> str:
    """Return the name of a network's precision, however NumPy lets it be said.

    Raises
    ------
    ArchitectureError
        If it is neither float32 nor float64 (nor complex128, in which gradients are verified).

    >>> dtype_name(np.float64), dtype_name(np.dtype("f4"))
    ('float64', 'float32')
    """
    try:
        name = "" if dtype is None else np.dtype(dtype).name
    except (TypeError, ValueError, SyntaxError):  # the last of text that reads like several dtypes
        name = ""
    if name not in ("float32", "float64", "complex128"):
        raise ArchitectureError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    return name


def given_rows(net: Network, value: Any, width: int, what: str) -> Array:
    """Return what a user gave as rows for one end of a network, in its precision, on its device.

    Raises
    ------
    ShapeError
        If it is no array (rows, ``width``) of real numbers.
    """
    name = "net" if net.direction == "forward" else "net.reversed"
    expected = f"{name} expects (rows, {width})"
    array = given_array(net.backend, value, net.dtype, what, expected)
    if array.ndim != 2 or array.shape[1] != width:
        other = net.outputs if width == net.inputs else net.inputs
        swapped = array.ndim == 2 and array.shape[1] == other
        hint = "; did you swap x and y?" if swapped else ""
        raise ShapeError(f"{what} has shape {tuple(array.shape)} but {expected}{hint}")
    return array


def given_array(backend: Backend, value: Any, dtype: str, what: str, expected: str) -> Array:
    """Return what a user gave as an array of a backend.

    Parameters
    ----------
    value : array_like
        Of real numbers; complex ones where ``dtype`` is complex too.
    what, expected : str
        What messages call it, and what they say is expected of it.

    Raises
    ------
    ShapeError
        If it is sparse, ragged, or holds anything but such numbers.

    >>> from nembp.backend import get_backend
    >>> given_array(get_backend("cpu"), [[1, 2], [3]], "float32", "input", "net expects (rows, 2)")
    Traceback (most recent call last):
        ...
    nembp.errors.ShapeError: input has rows of 1 to 2 values but net expects (rows, 2); ...
    """
    if hasattr(value, "toarray"):
        kind, shape = type(value).__name__, tuple(value.shape)
        raise ShapeError(
            f"{what} is a sparse {kind} of shape {shape} but {expected}, dense; give its .toarray()"
        )
    kind = _kind(value)
    if kind in _NO_NUMBERS and not (kind == "c" and dtype.startswith("complex")):
        came, remedy = _NO_NUMBERS[kind]
        raise ShapeError(f"{what} holds {came} but {expected} of real numbers; {remedy}")
    try:
        return backend.asarray(value, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        lengths = _lengths(value)
        if len(lengths) > 1:
            raise ShapeError(
                f"{what} has rows of {min(lengths)} to {max(lengths)} values but {expected}; "
                "give all rows the same number of values"
            ) from error
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ShapeError(
            f"{what} is a {type(value).__name__} that cannot be read as an array ({reason}) but "
            f"{expected} of real numbers; give a NumPy array, or a list of rows of numbers"
        ) from error


def _kind(value: Any) -> str:
    """Return NumPy's letter for the kind of a value's numbers, "" where it cannot tell."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:  # a list, say; of what, one row may hide
        try:
            dtype = np.asarray(value).dtype
        except (TypeError, ValueError, OverflowError):  # converting it will say so
            return ""
    kind: str = getattr(dtype, "kind", "")
    return kind or ("c" if "complex" in str(dtype) else "")  # other libraries' dtypes have none


def _lengths(value: Any) -> set[int]:
    """Return how many values the rows of a sequence have."""
    rows = value if isinstance(value, Sequence) else ()
    return {len(row) for row in rows if isinstance(row, Sequence) or _is_array(row)}


def _is_array(row: Any) -> bool:
    return isinstance(row, np.ndarray) and row.ndim > 0
