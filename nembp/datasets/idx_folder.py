"""The four IDX files of an MNIST-shaped set in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.datasets.idx import read_idx
from nembp.errors import DataError

__all__ = ["NAMES", "candidates", "find", "find_four", "load_idx", "read_four"]

# the standard order: training images and labels, test images and labels
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def candidates(name: str) -> tuple[str, ...]:
    """File names under which one of the four may lie, raw ones first since they are mapped.

    >>> candidates("train-images-idx3-ubyte")[:2]
    ('train-images-idx3-ubyte', 'train-images.idx3-ubyte')
    """
    dotted = name.replace("-idx", ".idx")
    return (name, dotted, f"{name}.gz", f"{dotted}.gz")


def find(folder: Path, name: str) -> Path | None:
    """First of the `candidates` that lies in the folder."""
    paths = (folder / candidate for candidate in candidates(name))
    return next((path for path in paths if os.path.exists(path)), None)


def find_four(folder: Path) -> tuple[Path, Path, Path, Path]:
    """Paths of the four files.

    Raises
    ------
    DataError
        Naming the folder or file that is missing.
    """
    fetch = f"`nembp data fetch mnist --data-dir {folder}` fetches MNIST's."
    if not os.path.isdir(folder):  # unlike Path.is_dir it takes no permission for no
        kind = "not a folder" if os.path.exists(folder) else "no such folder"
        raise DataError(f"{folder}: {kind}; expected one with the four IDX files. {fetch}")
    found = {name: find(folder, name) for name in NAMES}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise DataError(
            f"{folder / missing[0]}: no such file, nor with .gz or as "
            f"{candidates(missing[0])[1]}; expected the four IDX files in the folder. {fetch}"
        )
    one, two, three, four = (path for path in found.values() if path is not None)
    return one, two, three, four


def read_four(paths: tuple[Path, Path, Path, Path]) -> tuple[Raw, Raw]:
    """Training and test arrays of the four files; unpacked images are memory-mapped."""
    images, labels, test_images, test_labels = (
        (read_idx(path, native=native), str(path))
        for path, native in zip(paths, (False, True) * 2, strict=True)
    )
    return (
        Raw(images[0], labels[0], images[1], labels[1]),
        Raw(test_images[0], test_labels[0], test_images[1], test_labels[1]),
    )


def load_idx(request: Request) -> Dataset:
    """Load any set of four IDX files; the loader behind ``load("idx", folder)``.

    Unpacked files are memory-mapped and may be larger than memory; gzip files are unpacked into it.
    """
    folder = request.path("idx")
    train, test = read_four(find_four(folder))
    return assemble("idx", train, test, request, source=str(folder))
