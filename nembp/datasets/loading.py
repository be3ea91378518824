"""`load`, which finds the reader of a data set by name, and the names there are."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, get_args

from nembp.datasets.dataset import Dataset, Request, ScalingName, Task
from nembp.errors import ArchitectureError

__all__ = ["Loader", "available", "load", "register"]

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
    "cifar10": (
        "nembp.datasets.cifar:load_cifar10",
        "60000 32x32 colour images in 10 classes: the folder of the binary or Python version",
    ),
    "cifar100": (
        "nembp.datasets.cifar:load_cifar100",
        "60000 32x32 colour images in 100 classes: the folder of the binary or Python version",
    ),
    "images": (
        "nembp.datasets.images:load_images",
        "a folder of image files for each class, split into train and test folders or not",
    ),
    "npy": (
        "nembp.datasets.npy:load_npy",
        "a folder of NumPy arrays x_train.npy, y_train.npy, ..., or x.npy and y.npy, of any size",
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


_BUILT_IN = frozenset(_REGISTRY)


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

    >>> available()["digits"]
    '1797 8x8 handwritten digits that come with scikit-learn (no download)'
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
    scaling: ScalingName = "auto",
    image_size: tuple[int, int] | None = None,
) -> Dataset:
    """Load a data set by name and check it.

    Parameters
    ----------
    name : str
        "digits", "mnist", "cifar10", "csv", ... or a registered name (see `available`).
    data_dir : path, optional
        Folder, or for npz and csv also a file; digits needs none.
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
    scaling : {"auto", "unit", "channel"}
        How samples are scaled: "unit" maps images, or each column of a table, to [0, 1];
        "channel" standardizes images, one mean and deviation for each channel; "auto" is
        "channel" for images of several channels, "unit" for other images, and for tables the
        mean and deviation of each column.
    image_size : (height, width), optional
        Resize image files to this size (images).

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
        if name != "csv" and name in _BUILT_IN:
            raise ArchitectureError(f"targets name the columns of a csv; {name!r} has none")
    if scaling not in get_args(ScalingName):
        raise ArchitectureError(
            f"scaling={scaling!r}: expected one of {', '.join(get_args(ScalingName))}"
        )
    if image_size is not None:
        if name != "images" and name in _BUILT_IN:
            raise ArchitectureError(f"image_size resizes image files; {name!r} has none")
        if len(image_size) != 2 or min(image_size) < 1:
            raise ArchitectureError(
                f"image_size={image_size}: expected (height, width) of at least 1 pixel, as 32x32"
            )
    path = None if data_dir is None else Path(data_dir)
    request = Request(path, targets, task, test_fraction, seed, limit, scaling, image_size)
    return _loader(name)(request)


def _loader(name: str) -> Loader:
    entry = _REGISTRY[name][0]
    if callable(entry):
        return entry
    module, _, function = entry.partition(":")
    loader: Loader = getattr(importlib.import_module(module), function)
    return loader
