"""Stacked digits: three digits drawn at random become the channels of one image, of 1,000 kinds.

The set-up of Metz et al. 2017 (unrolled GAN), section 3.3.1, on which Srivastava et al. 2017
(VEEGAN) and Lin et al. 2018 (PacGAN) count modes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.backend import stream
from nembp.datasets import Dataset, Rows, Scaling, Split, as_rows
from nembp.errors import ArchitectureError, ShapeError

__all__ = ["CHANNELS", "StackedData", "StackedRows", "stacked"]

CHANNELS = 3
LEAST_TEST = 26_000  # as many as published scores are made of


class StackedRows(Rows):
    """Images whose channels are images of another source, put together as they are read.

    Parameters
    ----------
    images : Rows
        Of shape (m, height, width, 1).
    members : ndarray of int, shape (n, channels)
        Row i has the images at members[i] as its channels.
    """

    def __init__(self, images: Rows, members: NDArray[np.integer[Any]]) -> None:
        if images.ndim != 4 or images.shape[3] != 1:
            raise ShapeError(
                f"images of shape {images.shape[1:]} cannot be stacked; expected (height, width, 1)"
            )
        if members.size and (members.min() < 0 or members.max() >= len(images)):
            raise IndexError(f"images {members.min()} to {members.max()} of {len(images)}")
        self.images, self.members = images, members
        self.shape = (len(members), *images.shape[1:3], members.shape[1])
        self.dtype = images.dtype

    def _read(self, index: NDArray[np.intp], out: NDArray[Any]) -> None:
        for channel, members in enumerate(self.members[index].T):
            out[..., channel] = self.images.take(members)[..., 0]


@dataclass(frozen=True, eq=False, kw_only=True)
class StackedData(Dataset):
    """Stacked digits; their labels 0..999 are the three digits, the first channel's first.

    Parameters
    ----------
    digits : Dataset
        The single digits, on which the judge is trained that reads them.
    """

    digits: Dataset


def stacked(digits: Dataset, n: int = 128_000, *, seed: int = 0) -> StackedData:
    """Stack digits drawn at random, with replacement: training ones to train, others to test.

    Parameters
    ----------
    digits : Dataset
        Images of one channel in ten classes, such as ``load("mnist", folder)``.
    n : int
        Training images, 128,000 in the publications; a tenth as many to test, at least 26,000.
    seed : int
        Of the streams ``stacked/train`` and ``stacked/test``.

    Returns
    -------
    StackedData
        Images (height, width, 3), scaled to [0, 1]. They take the memory of `digits` and three
        integers an image.

    Raises
    ------
    ArchitectureError
        If `digits` are no such images, or `n` is below 1.

    >>> from nembp.datasets import load
    >>> data = stacked(load("digits"), 500)
    >>> data.train.x.shape, data.outputs, data.classes[907]
    ((500, 8, 8, 3), 1000, '907')
    """
    if not digits.is_image or digits.shape[2] != 1 or len(digits.classes) != 10:
        raise ArchitectureError(
            f"{digits.name}: samples of shape {digits.shape} in {len(digits.classes)} classes "
            "cannot be stacked; expected images (height, width, 1) in 10 classes"
        )
    if n < 1:
        raise ArchitectureError(f"{n} stacked images: expected at least 1")
    height, width, _ = digits.shape
    names = [f"{a}{b}{c}" for a in digits.classes for b in digits.classes for c in digits.classes]
    return StackedData(
        name="stacked",
        train=_stack(digits.train, n, stream(seed, "stacked/train")),
        test=_stack(digits.test, max(LEAST_TEST, n // 10), stream(seed, "stacked/test")),
        shape=(height, width, CHANNELS),
        classes=tuple(names),
        x_scaling=digits.to_unit,
        y_scaling=Scaling(),
        target_names=(),
        attribution=digits.attribution,
        source=f"{digits.source}, stacked with seed {seed}",
        digits=replace(digits, x_scaling=digits.to_unit, pixel_scaling=None),
    )


def _stack(split: Split, n: int, generator: np.random.Generator) -> Split:
    members = generator.integers(len(split), size=(n, CHANNELS), dtype=np.int32)
    labels = split.y[members] @ np.array([100, 10, 1])
    return Split(StackedRows(as_rows(split.x), members), labels)
