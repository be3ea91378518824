"""CIFAR-10 and CIFAR-100, in the official binary layout, memory-mapped, and in the Python one.

A record is its label or labels, one byte each, and 3072 bytes of pixels: the red, green and blue
plane of 32 x 32, row by row (A. Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

import io
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.arrays import Stored
from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.datasets.sources import Rows
from nembp.errors import DataError
from nembp.files import parsing, reading

PIXELS = 3072
_FRESH = "Unpack the official archive again."


@dataclass(frozen=True)
class Layout:
    """One of the forms in which a set is published: its folder, archive, and records in each file.

    `names` is the file of class names. Binary files have `skip` bytes of labels before a record's
    pixels, pickles the keys of their labels and class names.
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

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each binary file."""
        counts = self.train | self.test
        return {name: count * (self.skip + PIXELS) for name, count in counts.items()}


_FIVE = [f"data_batch_{number}" for number in range(1, 6)]
CIFAR10 = (
    Layout("cifar-10-batches-bin", "cifar-10-binary.tar.gz",
           {f"{name}.bin": 10_000 for name in _FIVE}, {"test_batch.bin": 10_000},
           "batches.meta.txt", skip=1),
    Layout("cifar-10-batches-py", "cifar-10-python.tar.gz",
           dict.fromkeys(_FIVE, 10_000), {"test_batch": 10_000},
           "batches.meta", labels=b"labels", names_key=b"label_names")
)  # fmt: skip
CIFAR100 = (
    Layout("cifar-100-binary", "cifar-100-binary.tar.gz",
           {"train.bin": 50_000}, {"test.bin": 10_000}, "fine_label_names.txt", skip=2),
    Layout("cifar-100-python", "cifar-100-python.tar.gz",
           {"train": 50_000}, {"test": 10_000},
           "meta", labels=b"fine_labels", names_key=b"fine_label_names")
)  # fmt: skip


def load_cifar10(request: Request) -> Dataset:
    """Load CIFAR-10, from its folder or the one above; the loader behind ``load("cifar10", ...)``.

    The pixels of binary files stay in them; nothing in a pickle is run.
    """
    return _load("CIFAR-10", CIFAR10, 10, request)


def load_cifar100(request: Request) -> Dataset:
    """Load CIFAR-100 with its 100 fine classes; as `load_cifar10`."""
    return _load("CIFAR-100", CIFAR100, 100, request)


def _load(title: str, layouts: tuple[Layout, ...], classes: int, request: Request) -> Dataset:
    name = title.lower().replace("-", "")
    folder, layout = _find(request.path(name), layouts, name, title)
    names = _class_names(folder / layout.names, layout, classes)
    parts = [_read(folder, files, layout, classes) for files in (layout.train, layout.test)]
    by = (
        f"{title} by A. Krizhevsky, V. Nair and G. Hinton; Learning Multiple Layers of Features "
        "from Tiny Images, 2009"
    )
    return assemble(name, parts, request, source=str(folder), attribution=by, classes=names)


def _find(path: Path, layouts: tuple[Layout, ...], name: str, title: str) -> tuple[Path, Layout]:
    """Find the folder and layout of a set that is complete."""
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
    archives = [path, *(path / layout.archive for layout in layouts)]
    remedy = f"`nembp data fetch {name} --data-dir {path}` fetches it."
    if packed := [each for each in archives if os.path.isfile(each)]:
        remedy = f"Unpack it first: tar -xf {packed[0]} -C {packed[0].parent}"
    raise DataError(
        f"{path}: no {title} here; expected the folder "
        f"{' or '.join(layout.folder for layout in layouts)}, with "
        f"{' or '.join(', '.join(layout.files) for layout in layouts)}. {remedy}"
    )


def _class_names(path: Path, layout: Layout, classes: int) -> tuple[str, ...]:
    if layout.names_key:
        found = read_pickle(path).get(layout.names_key)
        raw = found if isinstance(found, list) and len(found) == classes else []
    else:
        with reading(path, _FRESH) as file:
            raw = file.read(1 << 16).split(b"\n")
    # a pickle's names may all be one long text
    raw = [name.strip() for name in raw if isinstance(name, bytes) and len(name) < 1000]
    with parsing(f"{path}: class names are no text", _FRESH):
        decoded = [name.decode() for name in raw if name]
    names = tuple(dict.fromkeys(decoded))
    if not len(decoded) == len(names) == classes:
        raise DataError(f"{path}: {len(names)} different class names; expected {classes}. {_FRESH}")
    return names


def _read(folder: Path, files: dict[str, int], layout: Layout, classes: int) -> Raw:
    images, ys = [], []
    for name, count in files.items():
        path, read = folder / name, _binary if layout.skip else _pickled
        pixels, labels = read(path, count, layout)
        if labels.max() >= classes:
            wrong = int(np.argmax(labels >= classes))
            raise DataError(
                f"{path}: label {labels[wrong]} of record {wrong}; expected 0 to {classes - 1}. "
                f"{_FRESH}"
            )
        images.append(np.moveaxis(pixels.reshape(count, 3, 32, 32), 1, 3))
        ys.append(labels)
    where = f"{folder}: {', '.join(files)}"
    return Raw(Rows(images), np.concatenate(ys), where, where)


def _binary(path: Path, count: int, layout: Layout) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Map records with their labels, and read the labels."""
    with reading(path, _FRESH) as file:
        stored = Stored(np.dtype(np.uint8), (count, layout.skip + PIXELS))
        records = stored.mapped(file, str(path))
    return records[:, layout.skip :], records[:, layout.skip - 1].astype(np.int64)


def _pickled(path: Path, count: int, layout: Layout) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    batch = read_pickle(path)
    pixels, labels = batch.get(b"data"), batch.get(layout.labels)
    table = pixels.table() if isinstance(pixels, _Array) else None
    if table is None or table.shape != (count, PIXELS):
        raise DataError(f"{path}: no table 'data' of {count} x {PIXELS} bytes. {_FRESH}")
    labels = labels if isinstance(labels, list) else []
    known = len(labels) == count and all(type(label) is int for label in labels)
    if not known or not 0 <= min(labels) <= max(labels) < 256:
        raise DataError(
            f"{path}: no list {layout.labels.decode()!r} of {count} labels from 0 up. {_FRESH}"
        )
    return table, np.array(labels, dtype=np.int64)


# -- pickles -------------------------------------------------------------------------------------
_MOST_BYTES = 1 << 28  # CIFAR-100's largest file has 155 million
_CODES = (
    "PROTO STOP MARK BINPUT LONG_BINPUT BINGET LONG_BINGET NONE NEWTRUE NEWFALSE BININT BININT1 "
    "BININT2 LONG1 BINSTRING SHORT_BINSTRING BINUNICODE BINBYTES SHORT_BINBYTES EMPTY_TUPLE TUPLE "
    "TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS GLOBAL REDUCE BUILD"
)


class _Array:
    """An array, or its dtype, as far as a pickle describes it."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def table(self) -> NDArray[np.uint8] | None:
        """Return the array, None unless its state is that of a table of bytes."""
        match self.state:
            case (_, (int(rows), int(columns)), _Array() as dtype, fortran, bytes(content)):
                bytes_ = dtype.arguments[:1] in ((b"u1",), ("u1",))
                if bytes_ and rows >= 0 and columns >= 0 and len(content) == rows * columns:
                    flat = np.frombuffer(content, np.uint8)
                    return flat.reshape((rows, columns), order="F" if fortran else "C")
        return None


class _Fields(dict[Any, Any]):
    """A dictionary of a pickle."""

    __slots__ = ()  # to which a pickle can add nothing

    def __setitem__(self, key: Any, value: Any) -> None:
        if type(key) not in (bytes, str):
            raise ValueError("a key that is no text")  # others may take years to hash
        super().__setitem__(key, value)


class _PlainData(pickle._Unpickler):
    """Reads a pickle, which is a program, and runs nothing of it.

    Known are the instructions of plain data, and of the names that may be asked for those of
    NumPy's array of bytes, for which an `_Array` stands.
    """

    dispatch = {
        code: pickle._Unpickler.dispatch[code]
        for code in (getattr(pickle, name)[0] for name in _CODES.split())
    } | {pickle.EMPTY_DICT[0]: lambda self: self.append(_Fields())}

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if asked not in ("numpy.core.multiarray._reconstruct", "numpy.dtype", "numpy.ndarray"):
            raise ValueError(f"it asks for {asked!r:.60}")
        return _Array


def read_pickle(path: Path) -> dict[bytes, Any]:
    """Read a pickled dictionary of text, numbers, lists and arrays; nothing in it is run."""
    remedy = "Nothing in it was run. Unpack the official archive again, or use its binary version."
    with reading(path, _FRESH) as file, parsing(f"{path}: not a pickle of plain data", remedy):
        if os.fstat(file.fileno()).st_size > _MOST_BYTES:
            raise ValueError("longer than any file of CIFAR")
        found = _PlainData(io.BytesIO(file.read()), encoding="bytes").load()
        if type(found) is not _Fields:
            raise ValueError(f"no dictionary, but {type(found).__name__}")
    return {key.encode() if type(key) is str else key: value for key, value in found.items()}
