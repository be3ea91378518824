"""Folders of image files, one for each class."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.errors import ArchitectureError, DataError, OutputError
from nembp.plotting.pictures import SUFFIXES, read_image

__all__ = ["load_images"]

_TEST_FOLDERS = ("test", "val")
_LAYOUT = "DIR/train/CLASS/* and DIR/test/CLASS/*, or DIR/CLASS/*"

Files = dict[str, list[Path]]  # of each class


def load_images(request: Request) -> Dataset:
    """Load image files in class folders; the loader behind ``load("images", folder)``.

    `data_dir` holds train/CLASS/* and test/CLASS/* (or val/CLASS/*), or CLASS/*, which is then
    split. The names of the folders are the classes, in sorted order. PNG, JPEG, BMP and WebP files
    are taken at any depth; hidden files and those of other suffixes are passed over. Images must
    have one size, or are brought to `image_size`; if all are grey, they have one channel, else
    three.

    Pixels are decoded once, into a file that the system's temporary folder (TMPDIR) holds without
    a name and drops when the process ends; so memory does not grow with the images, and nothing
    is written beside them.

    Raises
    ------
    ArchitectureError
        If task='regression' is asked for, or no path.
    DataError
        If there are no such folders, or an image is damaged, see-through or of another size; the
        message names it.
    OutputError
        If the temporary folder has no room for the pixels.
    """
    if request.task == "regression":
        raise ArchitectureError("class folders hold classes: task='regression' does not apply")
    folder = request.path("images")
    parts = _parts(folder)
    classes = tuple(parts[0][1])
    for where, files in parts[1:]:
        unknown = [name for name in files if name not in classes]
        if unknown:
            raise DataError(
                f"{where / unknown[0]}: class {unknown[0]!r} has no training images; expected the "
                f"classes of {parts[0][0]}"
            )
    paths = [[path for group in files.values() for path in group] for _, files in parts]
    pixels = _decoded(paths, request.image_size)
    raws = []
    for (where, files), x in zip(parts, pixels, strict=True):
        counts = [len(group) for group in files.values()]
        y = np.repeat([classes.index(name) for name in files], counts)
        raws.append(Raw(x, y, str(where), str(where)))
    test = raws[1] if len(raws) == 2 else None
    return assemble("images", raws[0], test, request, source=str(folder), classes=classes)


# -- the files
def _parts(folder: Path) -> list[tuple[Path, Files]]:
    """Find the training folder, and the test folder where there is one, with their files."""
    if not os.path.isdir(folder):
        kind = "is a file" if os.path.exists(folder) else "no such folder"
        raise DataError(f"{folder}: {kind}; expected a folder of class folders: {_LAYOUT}")
    train = folder / "train"
    if not _subfolders(train):
        return [(folder, _class_files(folder))]
    tests = [folder / name for name in _TEST_FOLDERS if _subfolders(folder / name)]
    return [(train, _class_files(train)), *((where, _class_files(where, 1)) for where in tests[:1])]


def _subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, in sorted order, hidden ones left out."""
    if not os.path.isdir(folder):
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}). Check the path.") from error


def _class_files(folder: Path, least: int = 2) -> Files:
    """Image files of each class, in sorted order."""
    names = _subfolders(folder)
    if len(names) < least:
        raise DataError(
            f"{folder}: {len(names)} class folders; expected at least {least} of them: {_LAYOUT}"
        )
    found = {}
    for name in names:
        if not name.isprintable():
            raise DataError(f"{folder}: class folder {name!r}: not a printable name. Rename it.")
        found[name] = list(_images(folder / name))
        if not found[name]:
            raise DataError(
                f"{folder / name}: no image files; expected {', '.join(SUFFIXES)}, or no folder of "
                "this name"
            )
    return found


def _images(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise DataError(f"{folder}: cannot be read ({error.strerror}). Check it.") from error

    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(place, name)


# -- the pixels
class _ColourError(Exception):
    """An image in colour, where those before it were grey."""


def _decoded(
    parts: list[list[Path]], image_size: tuple[int, int] | None
) -> list[NDArray[np.uint8]]:
    """Decode the images of each part: uint8 (n, H, W, C), memory-mapped."""
    first = parts[0][0]
    height, width, channels = read_image(first, image_size, None, resize=True).shape
    shape = height, width
    rest = (
        f"the size of {first}. Crop or resize them, or have them resized by image_size "
        f"(--image-size {height}x{width})"
    )
    resize = image_size is not None
    try:
        return [_spooled(paths, (*shape, channels), resize, rest) for paths in parts]
    except _ColourError:
        return [_spooled(paths, (*shape, 3), resize, rest) for paths in parts]


def _spooled(
    paths: list[Path], shape: tuple[int, int, int], resize: bool, rest: str
) -> NDArray[np.uint8]:
    """Decode images one by one into a temporary file, and map it."""
    size, channels = shape[:2], shape[2]
    needed = len(paths) * int(np.prod(shape))
    place = tempfile.gettempdir()
    remedy = "Free some space, or name a folder with more in the environment variable TMPDIR."
    try:
        free = shutil.disk_usage(place).free
        if free < needed:
            raise OutputError(
                f"{place}: {free:,} bytes free, but the pixels of {len(paths)} images of shape "
                f"{shape} take {needed:,}. {remedy}"
            )
        with tempfile.TemporaryFile() as file:
            for path in paths:
                wanted = channels if channels == 3 else None
                pixels = read_image(path, size, wanted, resize=resize, remedy=rest)
                if pixels.shape[2] != channels:
                    raise _ColourError
                file.write(pixels.tobytes())
            file.flush()
            mapped: Any = np.memmap(file, np.uint8, "r", shape=(len(paths), *shape))
            return mapped  # type: ignore[no-any-return]
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{place}: cannot hold pixels ({error.strerror}). {remedy}") from error
