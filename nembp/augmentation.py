"""Augmentation of images on the fly: random horizontal flips and shifted crops.

An augmented image takes its pixels from the original, so it is gathered by an index and costs one
pass over the raw batch: 0.4 ms for 128 CIFAR images on one core.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.backend import stream
from nembp.errors import ArchitectureError

__all__ = ["Augmentation", "Augmenter"]


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image, anew every epoch.

    With dy and dx uniform on −crop..crop and j' = j, or W − 1 − j in a flipped image,

        augmented[i, j] = image[reflect(i + dy), reflect(j' + dx)]

    Pixels from beyond the edge are reflections about it, without repeating the edge itself.

    The augmented image is the forward direction's input *and* the backward direction's target. So
    the backward direction learns the mean of a class's augmented images: a little blurred by the
    crops, symmetric under flips. ``backward/centroid_error`` still measures the distance to the
    mean of the plain images, so its floor is no longer 0. On CIFAR-10 with pixels in [0, 1] it is
    0.005 for flips and 0.020 for crops of 4 pixels (with pixels centred about their mean, where
    centroids are short, 0.04 and 0.16). The field's other custom, filling with black, darkens the
    borders of every class mean: 0.24.

    Parameters
    ----------
    flip : bool
        Mirror half of the images, left to right. Digits and letters do not survive it.
    crop : int
        Largest shift in pixels, of rows and of columns; 4 is customary for 32×32 images.

    Raises
    ------
    ArchitectureError
        If ``flip`` is no truth value, or ``crop`` no whole number of at least 0.

    References
    ----------
    Zagoruyko and Komodakis, Wide Residual Networks, 2016, section 3: flips, and crops of 4 pixels
    filled by reflection. He et al., Deep Residual Learning, 2015, section 4.2, fill with zeros.
    """

    flip: bool = False
    crop: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.flip, (bool, np.bool_)):
            raise ArchitectureError(f"flip must be True or False, got {self.flip!r}")
        try:
            crop = -1 if isinstance(self.crop, bool) else operator.index(self.crop)
        except TypeError:
            crop = -1
        if crop < 0:
            raise ArchitectureError(
                f"crop must be a whole number of pixels, at least 0, got {self.crop!r}"
            )

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return bool(self.flip or self.crop)


class Augmenter:
    """Augments raw batches of one shape, in buffers allocated once per batch size.

    The stream "augmentation" of the seed gives three numbers a sample (dy, dx, flip) whatever is
    switched on, drawn on the host: neither the device nor another option shifts the draws, nor do
    these draws shift those of batches and noise.

    Parameters
    ----------
    augmentation : Augmentation
        What to do.
    shape : tuple of int
        (H, W, C), the shape of one image.
    seed : int
        Of the stream.

    Raises
    ------
    ArchitectureError
        If samples are no images, or a crop could leave no pixel of one.

    Examples
    --------
    >>> image = np.arange(4, dtype=np.uint8).reshape(1, 4)  # one row of 4 grey pixels
    >>> flip = Augmenter(Augmentation(flip=True), (1, 4, 1), seed=0)
    >>> [flip(image, np.empty_like(image)).tolist()[0] for _ in range(5)]
    [[3, 2, 1, 0], [3, 2, 1, 0], [3, 2, 1, 0], [3, 2, 1, 0], [0, 1, 2, 3]]
    """

    def __init__(self, augmentation: Augmentation, shape: tuple[int, ...], seed: int) -> None:
        if len(shape) != 3:
            raise ArchitectureError(
                f"augmentation needs images of shape (height, width, channels), but samples have "
                f"shape {shape}; leave it out"
            )
        self.height, self.width, self.channels = shape
        if augmentation.crop >= min(self.height, self.width):
            raise ArchitectureError(
                f"crop {augmentation.crop} must be smaller than the images of "
                f"{self.height}x{self.width} pixels"
            )
        self.augmentation = augmentation
        self._generator = stream(seed, "augmentation")
        crop, shifts = augmentation.crop, 2 * augmentation.crop + 1
        self._shifts = shifts
        # for every shift, the row or column of the original that each pixel comes from
        shift = np.arange(-crop, crop + 1)[:, np.newaxis]
        self._rows = _reflect(np.arange(self.height) + shift, self.height) * self.width
        columns = _reflect(np.arange(self.width) + shift, self.width)
        flipped = columns[:, ::-1] if augmentation.flip else columns
        self._columns = np.concatenate([columns, flipped])
        self._buffers: dict[int, _Buffers] = {}

    def __call__(self, raw: NDArray[Any], out: NDArray[Any]) -> NDArray[Any]:
        """Write an augmented copy of each row of ``raw`` into ``out``, another array.

        Parameters
        ----------
        raw, out : ndarray, shape (rows, H·W·C)
            Contiguous, of one dtype.
        """
        rows = raw.shape[0]
        if rows not in self._buffers:
            self._buffers[rows] = _Buffers(rows, self.height, self.width)
        b = self._buffers[rows]
        self._draw(b)
        # np.take in mode "raise" would gather into a temporary
        np.take(self._rows, b.dy, axis=0, out=b.row, mode="clip")
        np.take(self._columns, b.dx, axis=0, out=b.column, mode="clip")
        np.add(b.row, b.first, out=b.row)
        np.add(b.row[:, :, np.newaxis], b.column[:, np.newaxis, :], out=b.pixel)
        pixels = raw.reshape(-1, self.channels)
        target = out.reshape(rows, self.height, self.width, self.channels)
        np.take(pixels, b.pixel, axis=0, out=target, mode="clip")
        return out

    def _draw(self, b: _Buffers) -> None:
        """Draw dy, and dx + shifts · flipped, as indices into the tables."""
        draws, shifts = self._generator.random(out=b.draws), self._shifts
        np.multiply(draws[:2], shifts, out=draws[:2])
        np.copyto(b.shift, draws[:2], casting="unsafe")  # truncates: floor, of numbers ≥ 0
        np.minimum(b.shift, shifts - 1, out=b.shift)  # where the product was rounded up
        np.less(draws[2], 0.5, out=b.flipped)
        np.multiply(b.flipped, shifts, out=b.offset)
        np.add(b.dx, b.offset, out=b.dx)


class _Buffers:
    """Everything that augmenting a batch of ``rows`` images writes on the way."""

    def __init__(self, rows: int, height: int, width: int) -> None:
        self.draws = np.empty((3, rows))
        self.shift = np.empty((2, rows), np.intp)
        self.dy, self.dx = self.shift
        self.flipped, self.offset = np.empty(rows, np.bool_), np.empty(rows, np.intp)
        self.row, self.column = np.empty((rows, height), np.intp), np.empty((rows, width), np.intp)
        self.pixel = np.empty((rows, height, width), np.intp)
        self.first = (np.arange(rows) * height * width)[:, np.newaxis]


def _reflect(index: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Fold indices from beyond 0..size−1 back about the edge pixels; at most size − 1 beyond."""
    index = np.abs(index)
    return np.where(index < size, index, 2 * (size - 1) - index)
