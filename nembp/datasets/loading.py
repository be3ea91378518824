"""`load`, which finds the reader of a data set by name, and the names there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from nembp.datasets.dataset import Dataset, Request
from nembp.errors import ArchitectureError
from nembp.files import unpacking

Loader: TypeAlias = Callable[[Request], Dataset]

_BUILT_IN = {
    "digits": "1797 8x8 handwritten digits that come with scikit-learn (no download)",
    "mnist": (
        "70000 28x28 handwritten digits: a folder with the four IDX files, checksums verified"
    ),
    "idx": "a folder with the four IDX files of any MNIST-shaped set, raw or gzip",
    "cifar10": (
        "60000 32x32 colour images in 10 classes: the folder of the binary or Python version"
    ),
    "cifar100": (
        "60000 32x32 colour images in 100 classes: the folder of the binary or Python version"
    ),
    "images": "a folder of image files for each class, split into train and test folders or not",
    "npy": "a folder of NumPy arrays x_train.npy, y_train.npy, ..., or x.npy and y.npy",
    "npz": "a NumPy .npz with x_train, y_train, x_test, y_test, or x and y",
    "csv": "a table with a header row and named target columns",
}
_REGISTERED: dict[str, tuple[Loader, str]] = {}


def register(name: str, loader: Loader, summary: str) -> None:
    """Add a data set, or replace one, under the name `load` will know it by.

    Parameters
    ----------
    name : str
        New name.
    loader : callable
        Takes a `Request` and returns a `Dataset`, best through `nembp.datasets.assemble`, which
        checks it and honours `limit`.
    summary : str
        One line for `available`.
    """
    _REGISTERED[name] = (loader, summary)


def available() -> dict[str, str]:
    """Names that `load` knows, each with a line on what it is.

    >>> available()["digits"]
    '1797 8x8 handwritten digits that come with scikit-learn (no download)'
    """
    return _BUILT_IN | {name: summary for name, (_, summary) in _REGISTERED.items()}


def load(name: str, data_dir: str | os.PathLike[str] | None = None, **options: Any) -> Dataset:
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
        "auto" takes integers, text and one-hot rows (npy, npz), labels (idx) and text (csv) for
        classes, other numbers for regression targets.
    test_fraction : float, default 0.2
        Share of the samples held out for testing when the files hold no test split.
    seed : int, default 0
        Seeds that split and `limit`; digits always has the same split.
    limit : int, optional
        Keep this many training samples, drawn in the classes' proportions, at least one each.
    scaling : {"auto", "unit", "channel"}
        How samples are scaled: "unit" maps images, or each column of a table, to [0, 1];
        "channel" standardizes images, one mean and standard deviation for each channel; "auto" is
        "channel" for images of several channels, "unit" for other images, and for tables the
        mean and standard deviation of each column.
    image_size : (height, width), optional
        Resize image files to this size (images).
    delimiter : str, optional
        What separates the cells of a csv; default what the first rows tell.
    header : bool, optional
        Whether the first row of a csv names its columns; default unless it holds numbers.
    decimal : {".", ","}, optional
        The decimal mark of a csv; default the point.
    image_order : {"auto", "first", "last"}
        Whether the channels of images (npy, npz) come before height and width, or after.
    transpose : bool, optional
        Swap height and width of images (idx, npy, npz); default for EMNIST, which is stored so.
    x, y : str, optional
        Names of the two arrays to read (npy, npz); default those of usual names.
    max_bytes : int, optional
        Bytes that each packed file may unpack to (gzip, npz, images); default 100 times its own, or
        64 MiB, and 67 million pixels of an image.

    Returns
    -------
    Dataset
        At least one sample in each split, finite values, at least two classes; `notes` says what
        had to be guessed.

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
    if name not in available():
        from nembp.datasets.tables import SUFFIXES

        suffix = Path(name).suffix.lower()
        kind = "csv" if suffix in SUFFIXES else "npz" if suffix == ".npz" else None
        hint = f"; did you mean --dataset {kind} --data-dir {name}?" if kind else ""
        names = ", ".join(available())
        raise ArchitectureError(f"no data set {name!r}: expected one of {names}{hint}")
    if isinstance(targets := options.get("targets"), Sequence):
        options["targets"] = (targets,) if isinstance(targets, str) else tuple(targets)
    request = Request(None if data_dir is None else Path(data_dir), **options)
    if name not in _REGISTERED:
        request.check_read_by(name)
    with unpacking(request.max_bytes):
        return (_REGISTERED[name][0] if name in _REGISTERED else _built_in(name))(request)


def _built_in(name: str) -> Loader:
    """Import the module of a reader when it is used."""
    module: Any
    if name == "digits":
        from nembp.datasets import builtin as module
    elif name in ("cifar10", "cifar100"):
        from nembp.datasets import cifar as module
    elif name == "images":
        from nembp.datasets import images as module
    elif name == "csv":
        from nembp.datasets import tables as module
    else:
        from nembp.datasets import arrays as module
    loader: Loader = getattr(module, f"load_{name}")
    return loader
