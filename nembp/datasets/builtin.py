"""The built-in sets: digits, which come with scikit-learn, and MNIST, whose files are known."""

from __future__ import annotations

import hashlib
import importlib.util
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.arrays import NAMES, find_four, idx_header, read_four
from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.datasets.scaling import Scaling
from nembp.datasets.splitting import random_bits, stratified_choice
from nembp.errors import ArchitectureError, DataError

# -- digits --------------------------------------------------------------------------------------
DIGITS_BY = (
    "Optical recognition of handwritten digits by E. Alpaydin and C. Kaynak, UCI Machine Learning "
    "Repository, CC BY 4.0; the copy in scikit-learn"
)
TRAIN_SAMPLES = 1500
_SPLIT_SEED = 0  # the split is part of the data set: no training seed changes it
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
    train, test = stratified_choice(labels, TRAIN_SAMPLES, random_bits(_SPLIT_SEED, "digits"))
    parts = [Raw(images[rows], labels[rows], source, source) for rows in (train, test)]
    return assemble(
        "digits", parts[0], parts[1], request, source=source, attribution=DIGITS_BY,
        classes=tuple("0123456789"), x_scaling=Scaling(factor=1 / 16),
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


# -- MNIST ---------------------------------------------------------------------------------------
MNIST_BY = "MNIST by Y. LeCun, C. Cortes and C. Burges, CC BY-SA 3.0"


class Content(NamedTuple):
    """MD5 and size in bytes of an unpacked file."""

    md5: str
    size: int


CONTENTS: dict[str, Content] = {
    NAMES[0]: Content("6bbc9ace898e44ae57da46a324031adb", 47_040_016),
    NAMES[1]: Content("a25bea736e30d166cdddb491f175f624", 60_008),
    NAMES[2]: Content("2646ac647ad5339dbf082846283269ea", 7_840_016),
    NAMES[3]: Content("27ae3e4e09519cfbb04c329615203637", 10_008),
}


def load_mnist(request: Request) -> Dataset:
    """Load MNIST and verify its checksums; the loader behind ``load("mnist", folder)``."""
    folder = request.path("mnist")
    paths, _ = find_four(folder)
    train, test = read_four(paths)
    for name, path, x in zip(NAMES, paths, (train.x, train.y, test.x, test.y), strict=True):
        found = idx_md5(np.asarray(x))
        if found != CONTENTS[name].md5:
            raise DataError(
                f"{path}: not MNIST's file (MD5 {found} unpacked, expected {CONTENTS[name].md5}). "
                f"Move it away and run `nembp data fetch mnist --data-dir {folder}`, or load "
                "another set of this format with --dataset idx."
            )
    return assemble("mnist", train, test, request, source=str(folder), attribution=MNIST_BY)


def idx_md5(x: NDArray[Any]) -> str:
    """MD5 sum of the unpacked IDX file that holds the uint8 array `x`."""
    digest = hashlib.md5(idx_header(x), usedforsecurity=False)
    digest.update(np.ascontiguousarray(x).data)
    return digest.hexdigest()
