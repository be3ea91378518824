"""CIFAR-10 and CIFAR-100, in the official binary and Python layouts, memory-mapped.

A record is its label or labels, one byte each, and 3072 bytes of pixels: the red, green and blue
plane of 32 x 32, row by row (A. Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.datasets.files import reading
from nembp.datasets.plain_pickle import read_plain_pickle
from nembp.datasets.planar import PlanarRows
from nembp.datasets.sources import JoinedRows
from nembp.errors import ArchitectureError, DataError

__all__ = ["Layout", "load_cifar10", "load_cifar100"]

ATTRIBUTION = (
    "{} by A. Krizhevsky, V. Nair and G. Hinton; Learning Multiple Layers of Features from Tiny "
    "Images, 2009"
)
SHAPE = (32, 32, 3)
PIXELS = 3072
_FRESH = "Unpack the official archive again."


@dataclass(frozen=True)
class Layout:
    """One of the forms in which a set is published.

    Parameters
    ----------
    folder, archive : str
        What the official archive is called, and the folder that it unpacks to.
    train, test : dict of str to int
        Records in each file.
    names : str
        The file of class names.
    skip : int
        Label bytes before the pixels of a record; 0 for pickles, which have none.
    labels, names_key : bytes
        Keys of pickles; b"" in binary files, whose last label byte is the class.
    """

    folder: str
    archive: str
    train: dict[str, int]
    test: dict[str, int]
    names: str
    skip: int = 0
    labels: bytes = b""
    names_key: bytes = b""

    @property
    def files(self) -> list[str]:
        """Every file that must be there."""
        return [*self.train, *self.test, self.names]


_FIVE = [f"data_batch_{number}" for number in range(1, 6)]
CIFAR10 = (
    Layout("cifar-10-batches-bin", "cifar-10-binary.tar.gz",
           {f"{name}.bin": 10_000 for name in _FIVE}, {"test_batch.bin": 10_000},
           "batches.meta.txt", skip=1),
    Layout("cifar-10-batches-py", "cifar-10-python.tar.gz",
           dict.fromkeys(_FIVE, 10_000), {"test_batch": 10_000},
           "batches.meta", labels=b"labels", names_key=b"label_names"),
)  # fmt: skip
CIFAR100 = (
    Layout("cifar-100-binary", "cifar-100-binary.tar.gz",
           {"train.bin": 50_000}, {"test.bin": 10_000}, "fine_label_names.txt", skip=2),
    Layout("cifar-100-python", "cifar-100-python.tar.gz",
           {"train": 50_000}, {"test": 10_000},
           "meta", labels=b"fine_labels", names_key=b"fine_label_names"),
)  # fmt: skip


def load_cifar10(request: Request) -> Dataset:
    """Load CIFAR-10; the loader behind ``load("cifar10", folder)``.

    `data_dir` is the folder with the files or the one above it. Pixels stay in the files.

    Raises
    ------
    ArchitectureError
        If task='regression' is asked for, or no path.
    DataError
        If a file is missing, has another size, is damaged, or has a label out of range; nothing
        in a pickle is run.
    """
    return _load("cifar10", "CIFAR-10", CIFAR10, 10, request)


def load_cifar100(request: Request) -> Dataset:
    """Load CIFAR-100 with its 100 fine classes; as `load_cifar10`."""
    return _load("cifar100", "CIFAR-100", CIFAR100, 100, request)


def _load(
    name: str, title: str, layouts: tuple[Layout, ...], classes: int, request: Request
) -> Dataset:
    if request.task == "regression":
        raise ArchitectureError(f"{title} holds classes: task='regression' does not apply")
    folder, layout = _find(request.path(name), layouts, name, title)
    names = _class_names(folder / layout.names, layout, classes)
    train, test = (_read(folder, files, layout, classes) for files in (layout.train, layout.test))
    return assemble(
        name,
        train,
        test,
        request,
        source=str(folder),
        attribution=ATTRIBUTION.format(title),
        classes=names,
    )


def _find(path: Path, layouts: tuple[Layout, ...], name: str, title: str) -> tuple[Path, Layout]:
    """Find the folder and layout of a set that is complete."""
    wanted = " or ".join(layout.folder for layout in layouts)
    fetch = f"`nembp data fetch {name} --data-dir {path}` fetches it."
    if not os.path.isdir(path):
        if os.path.isfile(path):
            raise DataError(
                f"{path}: is a file; expected the folder {wanted}. Unpack an archive first, as by "
                f"`tar -xf {path}`, and give the folder that comes of it"
            )
        raise DataError(f"{path}: no such folder; expected {wanted}. {fetch}")
    for folder in (path, *(path / layout.folder for layout in layouts)):
        for layout in layouts:
            missing = [file for file in layout.files if not os.path.exists(folder / file)]
            if not missing:
                return folder, layout
            if any(os.path.exists(folder / file) for file in (*layout.train, *layout.test)):
                raise DataError(
                    f"{folder / missing[0]}: no such file; expected {', '.join(layout.files)} in "
                    f"the folder. {_FRESH}"
                )
    for layout in layouts:
        if os.path.exists(path / layout.archive):
            raise DataError(
                f"{path / layout.archive}: is packed. Unpack it: tar -xf {path / layout.archive} "
                f"-C {path}"
            )
    first, second = layouts
    raise DataError(
        f"{path}: no {title} here; expected the folder {wanted}, with {', '.join(first.files)} "
        f"(binary version) or {', '.join(second.files)} (Python version). {fetch}"
    )


def _class_names(path: Path, layout: Layout, classes: int) -> tuple[str, ...]:
    if layout.names_key:
        found = read_plain_pickle(path).get(layout.names_key)
        raw = found if isinstance(found, list) else []
    else:
        with reading(path, _FRESH) as file:
            raw = [line.strip() for line in file.read(1 << 16).split(b"\n") if line.strip()]
    try:
        names = [name.decode() for name in raw if isinstance(name, bytes) and name.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: class names are no text ({error.reason}). {_FRESH}") from error
    if len(names) != classes or len(set(names)) != classes or len(raw) != classes:
        raise DataError(
            f"{path}: {len(set(names))} different class names; expected {classes}. {_FRESH}"
        )
    return tuple(names)


def _read(folder: Path, files: dict[str, int], layout: Layout, classes: int) -> Raw:
    read = _binary if layout.skip else _pickled
    parts = [read(folder / name, count, layout) for name, count in files.items()]
    for name, (_, labels) in zip(files, parts, strict=True):
        wrong = np.flatnonzero(labels >= classes)
        if len(wrong):
            raise DataError(
                f"{folder / name}: label {labels[wrong[0]]} of record {wrong[0]}; expected 0 to "
                f"{classes - 1}. {_FRESH}"
            )
    where = f"{folder}: {', '.join(files)}"
    rows = [PlanarRows(records, SHAPE, layout.skip) for records, _ in parts]
    return Raw(JoinedRows(rows), np.concatenate([labels for _, labels in parts]), where, where)


def _binary(path: Path, count: int, layout: Layout) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Read records with their labels, memory-mapped, and the labels."""
    length = layout.skip + PIXELS
    with reading(path, _FRESH) as file:
        size = os.fstat(file.fileno()).st_size
        if size != count * length:
            raise DataError(
                f"{path}: {size} bytes; expected {count * length}, {count} records of {length}. "
                f"{_FRESH}"
            )
        records = np.memmap(file, np.uint8, "r", shape=(count, length))
    return records, records[:, layout.skip - 1].astype(np.int64)


def _pickled(path: Path, count: int, layout: Layout) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Read pixels of a pickle, memory-mapped, and labels."""
    batch = read_plain_pickle(path)
    pixels, labels = batch.get(b"data"), batch.get(layout.labels)
    if not isinstance(pixels, np.ndarray) or pixels.shape != (count, PIXELS):
        raise DataError(f"{path}: no table 'data' of {count} x {PIXELS} bytes. {_FRESH}")
    known = isinstance(labels, list) and all(type(label) is int for label in labels)
    if not known or len(labels) != count or min(labels) < 0:  # type: ignore[arg-type]
        raise DataError(
            f"{path}: no list {layout.labels.decode()!r} of {count} labels from 0 up. {_FRESH}"
        )
    return pixels, np.array(labels, dtype=np.int64)
