"""`load`, which finds the reader of a data set by name, and the names there are."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.datasets.scaling import Scaling
from nembp.datasets.sources import random_bits, stratified_choice
from nembp.errors import ArchitectureError, DataError
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

    `loader` takes a `Request` and returns a `Dataset`, best through `nembp.datasets.assemble`,
    which checks it and honours `limit`; `summary` is one line for `available`.
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
        "unit" maps images, or each column of a table, to [0, 1]; "channel" standardizes each
        channel of images; "auto" is "channel" for images of several channels, "unit" for other
        images, and standardizes each column of tables.
    image_size : (height, width), optional
        Resize image files to this size (images).
    delimiter, header, decimal : str, bool, {".", ","}, optional
        How a csv is written: what separates its cells (default what the first rows tell), whether
        its first row names the columns (default unless it holds numbers), its decimal mark.
    image_order : {"auto", "first", "last"}
        Whether the channels of images (npy, npz) come before height and width, or after.
    transpose : bool, optional
        Swap height and width of images (idx, npy, npz); default for EMNIST, which is stored so.
    x, y : str, optional
        Names of the two arrays to read (npy, npz); default those of usual names.
    max_bytes : int, optional
        Bytes that each packed file may unpack to (gzip, npz, images); default 100 times its own, or
        64 MiB.
    classes : tuple of str, optional
        What labels name, such as the classes of a trained network, of which not all need occur;
        default those of the training part.

    Returns
    -------
    Dataset
        At least one sample in each split, finite values, at least two classes; `notes` says what
        had to be guessed. A DataError names the file and the remedy.

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
    known = {each.name for each in fields(Request)}
    if unknown := sorted(options.keys() - known):
        raise ArchitectureError(f"no option {unknown[0]!r}: expected {', '.join(sorted(known))}")
    if (targets := options.get("targets")) is not None:
        options["targets"] = (targets,) if isinstance(targets, str) else tuple(targets)
    request = Request(None if data_dir is None else Path(data_dir), **options)
    if name not in _REGISTERED:
        request.check_read_by(name)
    with unpacking(request.max_bytes):
        return (_REGISTERED[name][0] if name in _REGISTERED else _built_in(name))(request)


def _built_in(name: str) -> Loader:
    """Import the module of a reader when it is used."""
    if name == "digits":
        return load_digits
    modules = {"cifar10": "cifar", "cifar100": "cifar", "images": "images", "csv": "tables"}
    module = importlib.import_module(f"nembp.datasets.{modules.get(name, 'arrays')}")
    loader: Loader = getattr(module, f"load_{name}")
    return loader


# -- digits --------------------------------------------------------------------------------------
DIGITS_BY = (
    "Optical recognition of handwritten digits by E. Alpaydin and C. Kaynak, UCI Machine Learning "
    "Repository, CC BY 4.0; the copy in scikit-learn"
)
_CSV_MD5 = "a0339c30a8a5312a1b6f9e5c719dcce5"  # of the unpacked digits.csv


def load_digits(request: Request) -> Dataset:
    """Load the digits, 1500 to train and 297 to test; the loader behind ``load("digits")``.

    scikit-learn's file is read without importing scikit-learn, which takes 1.7 s. Its rows are 64
    pixels, 0..16, and the label.
    """
    if request.data_dir is not None:
        raise ArchitectureError(
            f"digits come with scikit-learn and are not read from {request.data_dir}: leave "
            "data_dir (--data-dir) out, or choose the data set mnist, idx, npz or csv"
        )
    spec, text = importlib.util.find_spec("sklearn"), b""
    path = Path((spec and spec.origin) or "").parent / "datasets" / "data" / "digits.csv.gz"
    with suppress(OSError, zlib.error):
        text = zlib.decompress(path.read_bytes(), wbits=31)
    if hashlib.md5(text, usedforsecurity=False).hexdigest() != _CSV_MD5:
        raise DataError(
            "the digits come with scikit-learn, whose file sklearn/datasets/data/digits.csv.gz is "
            "missing or another. Install it: pip install scikit-learn"
        )
    values = [int(value) for value in text.replace(b"\n", b",").rstrip(b",").split(b",")]
    table, source = np.array(values, np.uint8).reshape(-1, 65), str(path)
    images, labels = table[:, :-1].reshape(-1, 8, 8, 1), table[:, -1].astype(np.int64)
    # the split is part of the data set: no training seed changes it
    rows = stratified_choice(labels, 1500, random_bits(0, "digits"))
    return assemble(
        "digits", [Raw(images[part], labels[part], source, source) for part in rows], request,
        source=source, attribution=DIGITS_BY, classes=tuple("0123456789"),
        x_scaling=Scaling(factor=1 / 16)
    )  # fmt: skip
