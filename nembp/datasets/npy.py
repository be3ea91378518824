"""NumPy array files (.npy), memory-mapped without pickle and without trusting their headers."""

from __future__ import annotations

import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.datasets.files import reading
from nembp.errors import DataError

__all__ = [
    "SPLIT_KEYS",
    "WHOLE_KEYS",
    "ZIP_ERRORS",
    "load_npy",
    "map_npy",
    "read_header",
    "split_keys",
]

SPLIT_KEYS = ("x_train", "y_train", "x_test", "y_test")
WHOLE_KEYS = ("x", "y")
_REMEDY = "Save it again with numpy.save."
# what zipfile raises on damaged archives, in which arrays may lie
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    RuntimeError,
    OverflowError,
    EOFError,
    IndexError,
    KeyError,
)
# what numpy raises on damaged array headers, which it evaluates as a Python literal
_HEADER_ERRORS = (
    *ZIP_ERRORS,
    SyntaxError,
    TypeError,
    AttributeError,
    MemoryError,
    tokenize.TokenError,
)


def map_npy(path: Path) -> NDArray[Any]:
    """Map an .npy file into memory, read-only; it must hold just what its header declares.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ndarray
        In the file's byte order and memory order.

    Raises
    ------
    DataError
        If the file is missing, damaged or truncated, has trailing bytes, or holds anything but
        numbers or text.
    """
    with reading(path) as file:
        dtype, shape, fortran = read_header(file, str(path), _REMEDY)
        mapped = np.ndarray(shape, dtype) if 0 in shape else None  # nothing to map
        start, size = file.tell(), os.fstat(file.fileno()).st_size
        expected = start + int(np.prod(shape, dtype=object)) * dtype.itemsize
        if size != expected:
            fault = "trailing bytes" if size > expected else "truncated"
            raise DataError(
                f"{path}: {fault}: {size} bytes, but its header declares shape {shape} of {dtype}, "
                f"{expected} bytes with the header. {_REMEDY}"
            )
        if mapped is None:
            mapped = np.memmap(file, dtype, "r", start, shape, "F" if fortran else "C")
    return mapped


def read_header(
    file: IO[bytes], where: str, remedy: str
) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Read dtype, shape and whether the order is Fortran's, up to the first byte of the values.

    Raises
    ------
    DataError
        If it is no header of numbers or text, naming `where` it was and the `remedy`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged headers make Python's parser warn
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read(file)
    except (zipfile.BadZipFile, zlib.error):
        raise
    except _HEADER_ERRORS as error:
        raise DataError(f"{where}: not a NumPy array ({error}). {remedy}") from error
    if dtype.hasobject:
        raise DataError(
            f"{where}: holds pickled objects, which are not read because they can run code; "
            "expected plain numbers or text. Convert it, as with astype(float), and save it again."
        )
    plain = dtype.kind in "biufUS" and dtype.itemsize and dtype.subdtype is None
    if not plain or len(shape) > 32 or min(shape, default=0) < 0:
        raise DataError(
            f"{where}: shape {shape} of dtype {dtype}; expected numbers or text. {remedy}"
        )
    return dtype, shape, fortran


def split_keys(found: list[str], where: str, remedy: str) -> tuple[str, ...]:
    """Return the names to read: of arrays that are split, where one of them is there, or not.

    Raises
    ------
    DataError
        If some are missing.
    """
    keys = SPLIT_KEYS if any(key in found for key in SPLIT_KEYS) else WHOLE_KEYS
    missing = [key for key in keys if key not in found]
    if missing:
        raise DataError(
            f"{where}: no array {missing[0]}; found {', '.join(found) or 'none of the names'}; "
            f"expected {', '.join(SPLIT_KEYS)}, or {' and '.join(WHOLE_KEYS)}. {remedy}"
        )
    return keys


def load_npy(request: Request) -> Dataset:
    """Load a folder of .npy files; the loader behind ``load("npy", folder)``.

    It holds x_train.npy, y_train.npy, x_test.npy and y_test.npy, or x.npy and y.npy, which are then
    split. Samples are memory-mapped and may be larger than memory; targets are read. Integer or
    text y of shape (n,) are classes, floats are regression targets.
    """
    folder = request.path("npy")
    if not os.path.isdir(folder):
        kind = "is a file" if os.path.exists(folder) else "no such folder"
        raise DataError(
            f"{folder}: {kind}; expected a folder with x_train.npy, y_train.npy, x_test.npy and "
            "y_test.npy, or x.npy and y.npy"
        )
    paths = {key: folder / f"{key}.npy" for key in SPLIT_KEYS + WHOLE_KEYS}
    found = [key for key, path in paths.items() if os.path.exists(path)]
    remedy = "Save each as NAME.npy with numpy.save."
    keys = split_keys(found, str(folder), remedy)
    parts = [
        Raw(map_npy(paths[x]), np.array(map_npy(paths[y])), str(paths[x]), str(paths[y]))
        for x, y in zip(keys[::2], keys[1::2], strict=True)
    ]
    test = parts[1] if len(parts) == 2 else None
    return assemble("npy", parts[0], test, request, source=str(folder))
