"""What a data set is, and `load`, which finds its reader by name."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from numpy.typing import NDArray

from nembp.datasets.scaling import Scaling
from nembp.errors import ArchitectureError

Task: TypeAlias = Literal["auto", "classification", "regression"]


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their targets.

    Parameters
    ----------
    x : ndarray, shape (n, *shape)
        Raw values: uint8 for images (never converted as a whole), floating otherwise. May be
        read-only and memory-mapped.
    y : ndarray
        int64 labels 0..K-1 of shape (n,), or floating targets of shape (n, outputs).
    """

    x: NDArray[Any]
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.x)


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
        Images to [0, 1], tables and regression targets standardized on `train`; identity for
        labels.
    target_names : tuple of str
        Regression targets, one per column of `y`; () for classification.
    attribution, source : str
        Whose data it is, and the path or origin it was read from.
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


@dataclass(frozen=True)
class Request:
    """What a loader was asked for: the checked arguments of `load`."""

    data_dir: Path | None = None
    targets: tuple[str, ...] | None = None
    task: Task = "auto"
    test_fraction: float = 0.2
    seed: int = 0
    limit: int | None = None

    def path(self, name: str) -> Path:
        """`data_dir`, or ArchitectureError when none was given."""
        if self.data_dir is None:
            fetch = (
                "; `nembp data fetch mnist --data-dir DIR` fetches it" if name == "mnist" else ""
            )
            raise ArchitectureError(
                f"data set {name!r} is read from files and no path was given: "
                f"pass data_dir (--data-dir PATH){fetch}"
            )
        return self.data_dir


Loader: TypeAlias = Callable[[Request], Dataset]

# name: (module:function or a callable, one line on what it is); modules load when asked for
_REGISTRY: dict[str, tuple[str | Loader, str]] = {
    "digits": (
        "nembp.datasets.digits:load_digits",
        "1797 8x8 handwritten digits that come with scikit-learn (no download)",
    ),
    "mnist": (
        "nembp.datasets.mnist:load_mnist",
        "70000 28x28 handwritten digits: a folder with the four IDX files, checksums verified",
    ),
    "idx": (
        "nembp.datasets.idx_folder:load_idx",
        "a folder with the four IDX files of any MNIST-shaped set, raw or gzip",
    ),
    "npz": (
        "nembp.datasets.npz:load_npz",
        "a NumPy .npz with x_train, y_train, x_test, y_test, or x and y",
    ),
    "csv": (
        "nembp.datasets.tables:load_csv",
        "a table with a header row and named target columns",
    ),
}


def register(name: str, loader: str | Loader, summary: str) -> None:
    """Add a data set, or replace one, under the name `load` will know it by.

    Parameters
    ----------
    name : str
        New name.
    loader : callable or str
        Takes a `Request` and returns a `Dataset`, best through `nembp.datasets.assemble`, which
        checks it and honours `limit`; or "module:function", imported when first used.
    summary : str
        One line for `available`.
    """
    _REGISTRY[name] = (loader, summary)


def available() -> dict[str, str]:
    """Names that `load` knows, each with a line on what it is.

    >>> sorted(available())[:3]
    ['csv', 'digits', 'idx']
    """
    return {name: summary for name, (_, summary) in _REGISTRY.items()}


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    targets: str | Sequence[str] | None = None,
    task: Task = "auto",
    test_fraction: float = 0.2,
    seed: int = 0,
    limit: int | None = None,
) -> Dataset:
    """Load a data set by name and check it.

    Parameters
    ----------
    name : str
        "digits", "mnist", "idx", "npz", "csv", or a registered name (see `available`).
    data_dir : path, optional
        Folder (mnist, idx), or file or folder (npz, csv); digits needs none.
    targets : str or sequence of str, optional
        Target columns of a csv; default its last column.
    task : {"auto", "classification", "regression"}
        "auto" takes integers and text (npz), labels (idx) and text (csv) for classes, other
        numbers for regression targets.
    test_fraction : float, default 0.2
        Share of the samples held out for testing when the files hold no test split.
    seed : int, default 0
        Seeds that split and `limit`; digits always has the same split.
    limit : int, optional
        Keep this many training samples, drawn in the classes' proportions, at least one each.

    Returns
    -------
    Dataset
        At least one sample in each split, finite values, at least two classes.

    Raises
    ------
    ArchitectureError
        If an option is wrong.
    DataError
        If the data is missing, damaged or unusable; the message names the file and the remedy.

    Examples
    --------
    >>> digits = load("digits")
    >>> digits.shape, len(digits.train), len(digits.test), digits.train.x.dtype
    ((8, 8, 1), 1500, 297, dtype('uint8'))
    """
    if name not in _REGISTRY:
        raise ArchitectureError(f"no data set {name!r}: expected one of {', '.join(_REGISTRY)}")
    if task not in get_args(Task):
        raise ArchitectureError(f"task={task!r}: expected one of {', '.join(get_args(Task))}")
    if not 0.0 < test_fraction < 1.0:
        raise ArchitectureError(
            f"test_fraction={test_fraction}: expected a share between 0 and 1, such as 0.2"
        )
    if seed < 0:
        raise ArchitectureError(f"seed={seed}: expected an integer of at least 0")
    if limit is not None and limit < 1:
        raise ArchitectureError(f"limit={limit}: expected at least 1 training sample")
    if targets is not None:
        targets = (targets,) if isinstance(targets, str) else tuple(targets)
        if name in ("digits", "mnist", "idx", "npz"):
            raise ArchitectureError(f"targets name the columns of a csv; {name!r} has none")
    path = None if data_dir is None else Path(data_dir)
    return _loader(name)(Request(path, targets, task, test_fraction, seed, limit))


def _loader(name: str) -> Loader:
    entry = _REGISTRY[name][0]
    if callable(entry):
        return entry
    module, _, function = entry.partition(":")
    loader: Loader = getattr(importlib.import_module(module), function)
    return loader
