"""The 8x8 digits that come with scikit-learn, without importing scikit-learn (1.7 s)."""

from __future__ import annotations

import hashlib
import importlib.util
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.datasets.scaling import Scaling
from nembp.datasets.splitting import random_bits, stratified_choice
from nembp.errors import ArchitectureError, DataError

__all__ = ["load_digits", "read_digits"]

ATTRIBUTION = (
    "Optical recognition of handwritten digits by E. Alpaydin and C. Kaynak, UCI Machine Learning "
    "Repository, CC BY 4.0; the copy in scikit-learn"
)
TRAIN_SAMPLES = 1500
_SPLIT_SEED = 0  # the split is part of the data set: no training seed changes it
_CSV_MD5 = "a0339c30a8a5312a1b6f9e5c719dcce5"  # of the unpacked digits.csv
_LARGEST_PIXEL = 16
_SAMPLES = 1797


def load_digits(request: Request) -> Dataset:
    """Load the digits, 1500 to train and 297 to test; the loader behind ``load("digits")``.

    Raises
    ------
    ArchitectureError
        If a path or task='regression' is asked for.
    DataError
        If scikit-learn's copy is not to be found.
    """
    if request.data_dir is not None:
        raise ArchitectureError(
            f"digits come with scikit-learn and are not read from {request.data_dir}: leave "
            "data_dir (--data-dir) out, or choose the data set mnist, idx, npz or csv"
        )
    if request.task == "regression":
        raise ArchitectureError("digits are classes: task='regression' does not apply")
    table, source = read_digits()
    labels = table[:, -1].astype(np.int64)
    images = table[:, :-1].reshape(-1, 8, 8, 1)
    train, test = stratified_choice(labels, TRAIN_SAMPLES, random_bits(_SPLIT_SEED, "digits"))
    parts = [Raw(images[rows], labels[rows], source, source) for rows in (train, test)]
    return assemble(
        "digits",
        parts[0],
        parts[1],
        request,
        source=source,
        attribution=ATTRIBUTION,
        classes=tuple("0123456789"),
        x_scaling=Scaling(factor=1 / _LARGEST_PIXEL),
    )


def read_digits() -> tuple[NDArray[np.uint8], str]:
    """Table of the digits, shape (1797, 65): 64 pixels 0..16 and the label; and its origin.

    Reads scikit-learn's packed file where it is the known one, else asks scikit-learn.

    Raises
    ------
    DataError
        If scikit-learn is not installed, or what it gives is not this table.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        table = _read_packed(path)
        if table is not None:
            return table, str(path)
    try:
        from sklearn.datasets import load_digits as ask
    except ImportError as error:
        raise DataError(
            "the digits come with scikit-learn, which cannot be imported "
            f"({error}). Install it: pip install scikit-learn"
        ) from error
    bunch: Any = ask()
    table = np.column_stack([bunch.data, bunch.target])
    if table.shape != (_SAMPLES, 65) or table.min() < 0 or table.max() > _LARGEST_PIXEL:
        raise DataError(
            f"sklearn.datasets.load_digits gave a table of shape {table.shape}; expected "
            f"({_SAMPLES}, 65) with pixels 0..16. Reinstall scikit-learn."
        )
    return table.astype(np.uint8), "sklearn.datasets.load_digits"


def _read_packed(path: Path) -> NDArray[np.uint8] | None:
    try:
        text = zlib.decompress(path.read_bytes(), wbits=31)
    except (OSError, zlib.error):
        return None
    if hashlib.md5(text, usedforsecurity=False).hexdigest() != _CSV_MD5:
        return None
    values = text.replace(b"\n", b",").rstrip(b",").split(b",")
    return np.array([int(value) for value in values], dtype=np.uint8).reshape(_SAMPLES, 65)
