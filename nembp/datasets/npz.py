"""NumPy archives (.npz) of arrays, read without pickle and without trusting their headers."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.datasets.files import PIECE, only_file, reading
from nembp.datasets.npy import SPLIT_KEYS, WHOLE_KEYS, ZIP_ERRORS, read_header, split_keys
from nembp.errors import DataError

__all__ = ["load_npz", "read_npz"]

_FRESH = "Save it again with numpy.savez."


def read_npz(
    path: Path, wanted: tuple[str, ...], *, packed: bool = True
) -> dict[str, NDArray[Any]]:
    """Read named arrays of an .npz; each must use up its entry exactly.

    Parameters
    ----------
    path : Path
        The archive.
    wanted : tuple of str
        Names of the arrays to read where they exist.
    packed : bool, default True
        Whether entries may be compressed; without, the file's size bounds the memory.

    Returns
    -------
    dict of str to ndarray
        In native byte order, in memory; no more memory is taken than the entries really fill.

    Raises
    ------
    DataError
        If the archive is missing or damaged, or an array is pickled, structured, or does not fit
        its entry.
    """
    with reading(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except ZIP_ERRORS as error:
            raise DataError(f"{path}: not an .npz archive ({error}). {_FRESH}") from error
        names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for info in archive.infolist():
            if not packed and info.compress_type != zipfile.ZIP_STORED:
                raise DataError(f"{path}: {info.filename} is compressed. {_FRESH}")
        return {
            key: _read_member(archive, names[key], f"{path}: {key}")
            for key in wanted
            if key in names
        }


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where}: packed in an unknown way. {_FRESH}")
    try:
        with archive.open(info) as member:
            dtype, shape, fortran = read_header(member, where, _FRESH)
            content = bytearray()  # grows with what is really there
            expected = math.prod(shape) * dtype.itemsize
            while len(content) <= expected and (piece := member.read(PIECE)):
                content += piece
    except DataError:
        raise
    except ZIP_ERRORS as error:
        raise DataError(f"{where}: damaged ({error}). {_FRESH}") from error
    if len(content) != expected:
        amount = "more" if len(content) > expected else f"only {len(content)}"
        raise DataError(
            f"{where}: its header declares shape {shape} of {dtype}, {expected} bytes, but "
            f"{amount} are there. {_FRESH}"
        )
    try:
        values = np.ndarray(shape, dtype, content, order="F" if fortran else "C")
    except (ValueError, TypeError) as error:  # TypeError: no buffer where there are no bytes
        raise DataError(f"{where}: shape {shape} of {dtype} ({error}). {_FRESH}") from error
    return np.ascontiguousarray(values, dtype.newbyteorder("=")).reshape(shape)


def load_npz(request: Request) -> Dataset:
    """Load an archive; the loader behind ``load("npz", path)``.

    `path` is the archive or a folder with just one. It holds x_train, y_train, x_test and y_test,
    or x and y, which are then split. Integer or text y of shape (n,) are classes, floats are
    regression targets.
    """
    path = only_file(request.path("npz"), ".npz")
    arrays = read_npz(path, SPLIT_KEYS + WHOLE_KEYS)
    keys = split_keys(list(arrays), str(path), _FRESH)
    parts = [
        Raw(arrays[x], arrays[y], f"{path}: {x}", f"{path}: {y}")
        for x, y in zip(keys[::2], keys[1::2], strict=True)
    ]
    test = parts[1] if len(parts) == 2 else None
    return assemble("npz", parts[0], test, request, source=str(path))
