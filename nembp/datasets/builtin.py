"""The digits, which come with scikit-learn."""

from __future__ import annotations

import hashlib
import importlib.util
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.datasets.scaling import Scaling
from nembp.datasets.splitting import random_bits, stratified_choice
from nembp.errors import ArchitectureError, DataError

DIGITS_BY = (
    "Optical recognition of handwritten digits by E. Alpaydin and C. Kaynak, UCI Machine Learning "
    "Repository, CC BY 4.0; the copy in scikit-learn"
)
_CSV_MD5 = "a0339c30a8a5312a1b6f9e5c719dcce5"  # of the unpacked digits.csv


def load_digits(request: Request) -> Dataset:
    """Load the digits, 1500 to train and 297 to test; the loader behind ``load("digits")``.

    scikit-learn's file is read without importing scikit-learn, which takes 1.7 s.
    """
    if request.data_dir is not None:
        raise ArchitectureError(
            f"digits come with scikit-learn and are not read from {request.data_dir}: leave "
            "data_dir (--data-dir) out, or choose the data set mnist, idx, npz or csv"
        )
    table, source = _read_digits()
    labels = table[:, -1].astype(np.int64)
    images = table[:, :-1].reshape(-1, 8, 8, 1)
    # the split is part of the data set: no training seed changes it
    rows = stratified_choice(labels, 1500, random_bits(0, "digits"))
    return assemble(
        "digits", [Raw(images[part], labels[part], source, source) for part in rows], request,
        source=source, attribution=DIGITS_BY, classes=tuple("0123456789"),
        x_scaling=Scaling(factor=1 / 16),
    )  # fmt: skip


def _read_digits() -> tuple[NDArray[np.uint8], str]:
    """Table of the digits, shape (1797, 65): 64 pixels 0..16 and the label; and its file."""
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        try:
            text = zlib.decompress(path.read_bytes(), wbits=31)
        except (OSError, zlib.error):
            continue
        if hashlib.md5(text, usedforsecurity=False).hexdigest() == _CSV_MD5:
            values = text.replace(b"\n", b",").rstrip(b",").split(b",")
            return np.array([int(value) for value in values], np.uint8).reshape(-1, 65), str(path)
    raise DataError(
        "the digits come with scikit-learn, whose file sklearn/datasets/data/digits.csv.gz is "
        "missing or another. Install it: pip install scikit-learn"
    )
