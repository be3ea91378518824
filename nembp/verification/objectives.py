"""A user's value and gradient, flattened, counted, and watched for stale buffers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nembp.errors import ShapeError, VerificationError
from nembp.verification.layout import Layout, Vector

__all__ = ["Objective", "quiet"]

# how functions say that a point lies outside of their domain
UNDEFINED = (ArithmeticError, ValueError)
# how functions say that they take real numbers only (or float32 only)
REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Objective:
    """θ ↦ f(θ) and ∇f(θ) on flat vectors.

    Parameters
    ----------
    function : callable
        Returns the value and the gradient, or the value alone if ``gradient`` is given.
    gradient : callable or None
        Returns the gradient.
    layout : Layout
        The structure in which both take the point and the gradient comes back.

    Attributes
    ----------
    values, gradients : int
        Calls so far that asked for a value, and for a gradient.
    overwritten, changes_argument : bool
        Whether a later call changed an array that an earlier one had returned; whether a call
        wrote into the point that it was given.
    """

    def __init__(self, function: Callable[..., Any], gradient: Any, layout: Layout) -> None:
        self._function, self._gradient = function, gradient
        self.layout = layout
        self.dtype = layout.dtype  # in which values are asked for
        self.resolution = float(np.finfo(layout.dtype).eps)  # of the values that come back
        self.gradient_resolution = self.resolution  # the same of the gradient
        self.values = self.gradients = 0
        self.overwritten = self.changes_argument = False
        self._last: tuple[list[Vector], list[Vector]] | None = None

    # -- values --------------------------------------------------------------------------------
    def value(self, theta: Vector) -> float:
        """Return f, or NaN where it is not defined."""
        self.values += 1
        try:
            value = self._number(self._raw_value(theta.astype(self.dtype)))
        except UNDEFINED:
            return float("nan")
        return float(value.real) if value.dtype.kind != "c" else float("nan")

    def complex_value(self, theta: Vector) -> complex | None:
        """Return f at a complex point, None if it refuses one or drops the imaginary part."""
        self.values += 1
        try:
            with quiet():  # NumPy warns where an imaginary part is dropped: a real value tells, too
                value = self._number(self._raw_value(theta))
        except REFUSALS:
            return None
        return complex(value) if value.dtype.kind == "c" else None

    def accept_float64(self, theta: Vector) -> None:
        """Ask for values in float64 from now on, if the function takes such points."""
        if self.dtype == np.float64:
            return
        self.values += 1
        try:
            with quiet():
                value = self._number(self._raw_value(theta.astype(np.float64)))
        except REFUSALS:
            return
        self.dtype = np.dtype(np.float64)
        self.resolution = _epsilon(value.dtype)

    def _raw_value(self, theta: Vector) -> Any:
        result = self._function(self.layout.restore(theta))
        return result if self._gradient is not None else result[0]

    @staticmethod
    def _number(value: Any) -> Vector:
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biufc":
            raise ShapeError(
                f"the value must be one number, got {_describe(value)}; sum or average it first"
            )
        return array.reshape(())

    # -- gradients -----------------------------------------------------------------------------
    def pair(self, theta: Vector) -> tuple[float, Vector]:
        """Return f and a float64 copy of ∇f at ``theta``, in its dtype.

        Raises
        ------
        ShapeError
            If what comes back is no value and gradient.
        VerificationError
            If the gradient has another shape than the point.
        """
        self.values += 1
        self.gradients += 1
        flat = theta.copy()
        result = self._function(self.layout.restore(flat))
        if self._gradient is None:
            if not (isinstance(result, (tuple, list)) and len(result) == 2):
                raise ShapeError(
                    f"the function must return (value, gradient), got {_describe(result)}; or "
                    "pass the gradient's own function as gradient="
                )
            value, gradient = result
        else:
            value, gradient = result, self._gradient(self.layout.restore(theta.copy()))
        number = self._number(value)
        if number.dtype.kind == "c":
            raise ShapeError("the value at a real point must be real, got a complex number")
        arrays = self.layout.arrays_of(gradient)
        self._check_shapes(arrays)
        if self.dtype == self.layout.dtype:
            self.resolution = max(self.resolution, _epsilon(number.dtype))
        coarsest = max(_epsilon(array.dtype) for array in arrays)
        self.gradient_resolution = max(self.gradient_resolution, coarsest)
        self.changes_argument |= not np.array_equal(flat, theta)
        self._watch(arrays)
        return float(number), np.concatenate([np.ravel(a).astype(float) for a in arrays])

    def _check_shapes(self, arrays: list[Vector]) -> None:
        for key, array, shape in zip(self.layout.names, arrays, self.layout.shapes, strict=True):
            name = "the gradient" if len(arrays) == 1 else f"the gradient of {key}"
            if array.dtype.kind not in "iuf":
                raise ShapeError(f"{name} must be real numbers, got dtype {array.dtype}")
            if array.shape != shape:
                transposed = array.shape == shape[::-1] and len(shape) > 1
                hint = "; it is transposed" if transposed else ""
                raise VerificationError(
                    f"{name} has shape {array.shape}, but the point has {shape}{hint}"
                )

    def _watch(self, arrays: list[Vector]) -> None:
        if self._last is not None:
            for array, copy in zip(*self._last, strict=True):
                if not np.array_equal(array, copy, equal_nan=True):
                    self.overwritten = True
        self._last = arrays, [array.copy() for array in arrays]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what a function says about points outside of its domain."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _epsilon(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).eps) if dtype.kind in "fc" else float(np.finfo(float).eps)


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"{type(value).__name__} {value!r}"[:60]
