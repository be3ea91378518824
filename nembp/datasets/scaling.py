"""Affine scaling between raw values (pixels, table columns) and what a network sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nembp.errors import ArchitectureError, DataError

CHUNK_VALUES = 1 << 18  # values converted to float64 at a time: 2 MiB
LARGEST = 1e30  # magnitudes above it are refused: float32 ends at 3.4e38


@dataclass(frozen=True, eq=False)
class Scaling:
    """Affine map of raw values: scaled = (raw - offset) * factor.

    Parameters
    ----------
    offset, factor : float or ndarray of float64
        Scalars, or one value per feature, broadcast against arrays of shape (n, *shape).

    Raises
    ------
    ArchitectureError
        If a factor is zero, or a value is NaN or infinite (the map could not be undone).

    Examples
    --------
    >>> pixels = Scaling(factor=1 / 255)
    >>> pixels.apply(np.array([0, 255], dtype=np.uint8)).tolist()
    [0.0, 1.0]
    >>> pixels.invert(np.array([0.2])).tolist()
    [51.0]
    """

    offset: NDArray[np.float64] | float = 0.0
    factor: NDArray[np.float64] | float = 1.0

    def __post_init__(self) -> None:
        if not (np.all(np.isfinite(self.offset)) and np.all(np.isfinite(self.factor))):
            raise ArchitectureError("a Scaling needs finite offsets and factors")
        if not np.all(self.factor):
            raise ArchitectureError("a Scaling's factors must not be zero: it could not be undone")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scaling):
            return NotImplemented
        return np.array_equal(self.offset, other.offset) and np.array_equal(
            self.factor, other.factor
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def apply(
        self,
        raw: NDArray[Any],
        dtype: DTypeLike = np.float32,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Scale raw values: (raw - offset) * factor.

        Parameters
        ----------
        raw : ndarray, shape (n, *shape)
            Raw values of any real dtype.
        dtype : dtype, default float32
            Dtype of the result (ignored when `out` is given).
        out : ndarray, shape (n, *shape), optional
            Floating array to write into; uint8 images are then scaled without a copy.

        Returns
        -------
        ndarray, shape (n, *shape)
            `out` when given, else a new array. An offset is subtracted in float64, so a column
            such as 2000.125 keeps its digits.
        """
        if out is None:
            out = np.empty(np.shape(raw), dtype=dtype)
        if np.any(self.offset):
            np.multiply(np.subtract(raw, self.offset, dtype=np.float64), self.factor, out=out)
        else:
            np.multiply(raw, self.factor, out=out, dtype=out.dtype, casting="same_kind")
        return out

    def invert(self, scaled: NDArray[Any]) -> NDArray[np.float64]:
        """Undo the scaling: scaled / factor + offset.

        Parameters
        ----------
        scaled : ndarray, shape (n, *shape)
            Scaled values, such as a network's predictions.

        Returns
        -------
        ndarray of float64, shape (n, *shape)
            Values in the raw unit.
        """
        return np.asarray(np.divide(scaled, self.factor, dtype=np.float64) + self.offset)


def chunks(x: NDArray[Any]) -> Iterator[slice]:
    """Cut the samples of `x` into slices of about `CHUNK_VALUES` values, at least one sample each.

    >>> list(chunks(np.zeros((3, CHUNK_VALUES // 2))))
    [slice(0, 2, None), slice(2, 4, None)]
    """
    rows = max(1, CHUNK_VALUES // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, len(x), rows):
        yield slice(start, start + rows)


def standardized(x: NDArray[Any]) -> Scaling:
    """Scaling to mean 0 and standard deviation 1 per feature: offset = mean, factor = 1 / std.

    A constant feature, or one that varies by less than 1e-30, keeps factor 1, so it becomes 0.
    Computed in chunks, in float64, without a float copy of `x`.

    Parameters
    ----------
    x : ndarray, shape (n, *shape)
        Finite raw values of the training split, n at least 1.

    Returns
    -------
    Scaling
        With `offset` and `factor` of shape `shape`.
    """
    total = np.zeros(x.shape[1:])
    for part in chunks(x):
        total += x[part].sum(axis=0, dtype=np.float64)
    # a constant's rounded mean may differ from it, and the difference must not become 1 std
    constant = x.max(axis=0) == x.min(axis=0)
    mean = np.where(constant, x[0], total / len(x))
    variance = np.zeros(x.shape[1:])
    for part in chunks(x):
        variance += np.square(np.subtract(x[part], mean, dtype=np.float64)).sum(axis=0)
    std = np.sqrt(variance / len(x))
    std[constant | (std < 1 / LARGEST)] = 1.0
    return Scaling(mean, 1.0 / std)


def image_scaling(x: NDArray[Any]) -> Scaling:
    """Scaling of images to [0, 1]: factor 1/255 for uint8, the training range for floats.

    Floating images whose values already lie in [0, 1] stay as they are.

    Parameters
    ----------
    x : ndarray, shape (n, H, W, C)
        Images of the training split; for uint8 any shape.

    Returns
    -------
    Scaling
        With a scalar offset and factor.
    """
    if x.dtype == np.uint8:
        return Scaling(factor=1 / 255)
    low, high = float(x.min()), float(x.max())
    if low >= 0.0 and high <= 1.0:
        return Scaling()
    return Scaling(low, 1.0 / (high - low) if high - low > 1 / LARGEST else 1.0)


def check_range(x: NDArray[Any], scaling: Scaling, where: str) -> None:
    """Raise DataError where scaled values would leave float32's safe range, 1e30.

    Parameters
    ----------
    x : ndarray, shape (n, *shape)
        Finite raw values.
    scaling : Scaling
        The scaling they will get.
    where : str
        File and array, for the message.
    """
    for extreme in (x.min(axis=0), x.max(axis=0)):
        scaled = np.abs(scaling.apply(extreme, np.float64))
        if np.any(scaled > LARGEST):
            worst = extreme.flat[int(scaled.argmax())]
            raise DataError(
                f"{where}: value {worst:g} is {scaled.max():.1e} after scaling, too large for "
                f"float32; expected magnitudes up to {LARGEST:g}. Rescale or remove it."
            )
