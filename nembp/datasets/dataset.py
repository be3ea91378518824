"""What a data set is, and what its reader is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.scaling import Scaling
from nembp.datasets.sources import Samples, choose
from nembp.errors import ArchitectureError

__all__ = ["Dataset", "Request", "ScalingName", "Split", "Task"]

Task: TypeAlias = Literal["auto", "classification", "regression"]
ScalingName: TypeAlias = Literal["auto", "unit", "channel"]


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their targets.

    Parameters
    ----------
    x : ndarray or Rows, shape (n, *shape)
        Raw values: uint8 for images (never converted as a whole), floating otherwise. May be
        read-only and memory-mapped; `nembp.datasets.sources.as_rows` reads either kind.
    y : ndarray
        int64 labels 0..K-1 of shape (n,), or floating targets of shape (n, outputs).
    """

    x: Samples
    y: NDArray[Any]

    def __repr__(self) -> str:
        labels = "labels" if self.y.ndim == 1 else f"{self.y.shape[1]} targets"
        shape = "x".join(map(str, self.x.shape[1:]))
        return f"Split({len(self)} samples of {shape}, {labels})"

    def __len__(self) -> int:
        return len(self.x)

    def subset(self, index: NDArray[np.integer[Any]]) -> Split:
        """Return the samples at `index`: a copy in memory, a view of what lies in files."""
        return Split(choose(self.x, index), self.y[index])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A checked data set: raw splits and the scaling that training applies batch by batch.

    Parameters
    ----------
    name : str
        The name `load` knows it by.
    train, test : Split
        Both hold at least one sample; every class occurs in `train`.
    shape : tuple of int
        Shape of one sample; images (H, W, C).
    classes : tuple of str
        Class names in the order of the labels; () for regression.
    x_scaling, y_scaling : Scaling
        What the network is given: images of one channel in [0, 1], of several standardized by
        channel, tables and regression targets standardized on `train`; identity for labels.
    target_names : tuple of str
        Regression targets, one per column of `y`; () for classification.
    attribution, source : str
        Whose data it is, and the path or origin it was read from.
    pixel_scaling : Scaling, optional
        Of images to [0, 1], to draw them, where `x_scaling` maps elsewhere; see `to_unit`.
    feature_names : tuple of str
        Columns of a table that names them, one a feature; else ().
    """

    name: str
    train: Split
    test: Split
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    x_scaling: Scaling
    y_scaling: Scaling
    target_names: tuple[str, ...]
    attribution: str
    source: str
    pixel_scaling: Scaling | None = None
    feature_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say what it holds; the arrays would fill a screen."""
        shape = "x".join(map(str, self.shape))
        what = f"{self.outputs} {'classes' if self.is_classification else 'targets'}"
        return (
            f"Dataset({self.name!r}, {len(self.train)} training and {len(self.test)} test samples "
            f"of {shape}, {what})"
        )

    @property
    def features(self) -> int:
        """Number of values in one sample: the product of `shape`."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """Number of classes, or of regression targets."""
        return len(self.classes) if self.is_classification else len(self.target_names)

    @property
    def is_classification(self) -> bool:
        """Whether `y` holds labels."""
        return bool(self.classes)

    @property
    def is_image(self) -> bool:
        """Whether samples have the shape (H, W, C)."""
        return len(self.shape) == 3

    @property
    def to_unit(self) -> Scaling:
        """Scaling of raw pixels to [0, 1], in which images are drawn."""
        return self.x_scaling if self.pixel_scaling is None else self.pixel_scaling


@dataclass(frozen=True)
class Request:
    """What a loader was asked for: the checked arguments of `load`."""

    data_dir: Path | None = None
    targets: tuple[str, ...] | None = None
    task: Task = "auto"
    test_fraction: float = 0.2
    seed: int = 0
    limit: int | None = None
    scaling: ScalingName = "auto"
    image_size: tuple[int, int] | None = None

    def path(self, name: str) -> Path:
        """`data_dir`, or ArchitectureError when none was given."""
        if self.data_dir is None:
            fetch = ""
            if name in ("mnist", "cifar10", "cifar100"):
                fetch = f"; `nembp data fetch {name} --data-dir DIR` fetches it"
            raise ArchitectureError(
                f"data set {name!r} is read from files and no path was given: "
                f"pass data_dir (--data-dir PATH){fetch}"
            )
        return self.data_dir
