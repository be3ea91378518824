"""Affine scaling between raw values (pixels, table columns) and what a network sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nembp.datasets.sources import Samples
from nembp.errors import ArchitectureError, DataError

CHUNK_VALUES = 1 << 18  # values converted to float64 at a time: 2 MiB
LARGEST = 1e30  # magnitudes above it are refused: float32 ends at 3.4e38


@dataclass(frozen=True, eq=False)
class Scaling:
    """Affine map of raw values: scaled = (raw - offset) * factor.

    Both are numbers, or one value per feature, broadcast against arrays of shape (n, *shape). An
    ArchitectureError says that the map could not be undone.

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
        same = np.array_equal(self.offset, other.offset)
        return same and np.array_equal(self.factor, other.factor)

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def apply(
        self, raw: NDArray[Any], dtype: DTypeLike = np.float32, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Scale raw values (n, *shape) into `out`, or into a new array of `dtype`.

        An offset is subtracted in float64, so a column such as 2000.125 keeps its digits; that of
        8-bit pixels in the result's dtype.
        """
        if out is None:
            out = np.empty(np.shape(raw), dtype=dtype)
        if raw.dtype == np.uint8:  # as a device scales them: each step in the result's dtype
            offset, factor = (np.asarray(v, out.dtype) for v in (self.offset, self.factor))
            np.multiply(np.subtract(raw, offset, out=out, dtype=out.dtype), factor, out=out)
        elif np.any(self.offset):
            np.multiply(np.subtract(raw, self.offset, dtype=np.float64), self.factor, out=out)
        else:
            np.multiply(raw, self.factor, out=out, dtype=out.dtype, casting="same_kind")
        return out

    def invert(self, scaled: NDArray[Any]) -> NDArray[np.float64]:
        """Undo the scaling, in float64: scaled / factor + offset."""
        return np.asarray(np.divide(scaled, self.factor, dtype=np.float64) + self.offset)

    def reshaped(self, shape: tuple[int, ...]) -> Scaling:
        """Return it with one value per feature in the shape of a sample."""
        pair = (np.reshape(v, shape) if np.ndim(v) else v for v in (self.offset, self.factor))
        return Scaling(*pair)


def chunks(x: Samples) -> Iterator[slice]:
    """Cut samples into slices of about `CHUNK_VALUES` values, of at least one sample each."""
    rows = max(1, CHUNK_VALUES // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, len(x), rows):
        yield slice(start, start + rows)


def extremes(x: Samples) -> tuple[NDArray[Any], NDArray[Any]]:
    """Lowest and highest value of each feature, each of the shape of a sample; read in chunks."""
    low, high = np.array(x[0]), np.array(x[0])
    for part in chunks(x):
        values = x[part]
        np.minimum(low, values.min(axis=0), out=low)
        np.maximum(high, values.max(axis=0), out=high)
    return low, high


def standardized(x: Samples, *, by_channel: bool = False) -> Scaling:
    """Scaling to mean 0 and standard deviation 1: offset = mean, factor = 1 / std.

    A constant feature, or one that varies by less than 1e-30, keeps factor 1, so it becomes 0.
    Of the finite values of a training split, or `by_channel` of images: one mean and deviation for
    each channel, over all their pixels. Computed in chunks, without a float copy of `x`.
    """
    if by_channel and x.dtype == np.uint8:
        return _of_pixels(x)
    axes = tuple(range(x.ndim - 1)) if by_channel else (0,)
    low, high = extremes(x)
    if by_channel:
        low, high = low.min(axis=axes[:-1]), high.max(axis=axes[:-1])
    count = x.size // low.size
    total = np.zeros(low.shape)
    for part in chunks(x):
        total += x[part].sum(axis=axes, dtype=np.float64)
    # a constant's rounded mean may differ from it, and the difference must not become 1 std
    constant = high == low
    mean = np.where(constant, low, total / count)
    variance = np.zeros(low.shape)
    for part in chunks(x):
        variance += np.square(np.subtract(x[part], mean, dtype=np.float64)).sum(axis=axes)
    std = np.sqrt(variance / count)
    std[constant | (std < 1 / LARGEST)] = 1.0
    return Scaling(mean, 1.0 / std)


def _of_pixels(x: Samples) -> Scaling:
    """Standardize channels of 8-bit images, by counting how often each value occurs."""
    counts = np.zeros((x.shape[-1], 256), np.int64)
    for part in chunks(x):
        pixels = x[part].reshape(-1, x.shape[-1])
        for channel in range(len(counts)):
            counts[channel] += np.bincount(pixels[:, channel], minlength=256)
    values, total = np.arange(256.0), counts.sum(axis=1)
    mean = counts @ values / total
    variance = (counts * np.square(values - mean[:, np.newaxis])).sum(axis=1) / total
    constant = (counts > 0).sum(axis=1) == 1
    return Scaling(mean, 1.0 / np.sqrt(np.where(constant, 1.0, variance)))


def unit_range(x: Samples, *, is_image: bool = False) -> Scaling:
    """Scaling to [0, 1] of each feature, or of an image as a whole; what lies there stays as it is.

    8-bit images get the factor 1/255, others that of the range of their values.
    """
    if is_image and x.dtype == np.uint8:
        return Scaling(factor=1 / 255)
    low, high = (extreme.astype(np.float64) for extreme in extremes(x))
    if low.min() >= 0.0 and high.max() <= 1.0:
        return Scaling()
    if is_image:
        low, high = low.min(), high.max()
    span = high - low
    return Scaling(low, 1.0 / np.where(span > 1 / LARGEST, span, 1.0))


def scaling_for(likelihood: str, x: Samples, where: str, pixels: Scaling | None = None) -> Scaling:
    """Scaling of samples to the values that a likelihood describes.

    A Gaussian describes standardized values, a Bernoulli those in [0, 1], a bipolar one those in
    [-1, 1], a multinomial one those ≥ 0, of which it needs none above 1. `pixels`, of images, is
    their scaling to [0, 1], which a Gaussian takes as well.
    """
    if pixels is None and likelihood == "gaussian":
        return standardized(x)
    if pixels is None and likelihood == "multinomial":
        lows, highs = extremes(x)
        if lows.min() < 0:
            raise DataError(
                f"{where} holds {lows.min():g}, but a multinomial likelihood describes values ≥ 0: "
                "counts, shares or one-hot columns; scale it, or use a gaussian likelihood "
                "(--backward gaussian)"
            )
        return Scaling(factor=1.0 / max(1.0, float(highs.max())))
    unit = unit_range(x) if pixels is None else pixels
    if likelihood != "bipolar":
        return unit
    return Scaling(unit.offset + 0.5 / unit.factor, 2.0 * unit.factor)


def check_range(x: Samples, scaling: Scaling, where: str) -> None:
    """Raise DataError, naming `where`, if scaled values leave float32's safe range, 1e30."""
    for extreme in extremes(x):
        scaled = np.abs(scaling.apply(extreme, np.float64))
        if np.any(scaled > LARGEST):
            worst = extreme.flat[int(scaled.argmax())]
            raise DataError(
                f"{where}: value {worst:g} is {scaled.max():.1e} after scaling, too large for "
                f"float32; expected magnitudes up to {LARGEST:g}. Rescale or remove it."
            )
