"""The IDX format of MNIST: a big-endian array behind a header, raw or gzip.

Bytes 0-3: 0, 0, type code, number of dimensions; then one unsigned 32-bit length per dimension;
then the values in C order (http://yann.lecun.com/exdb/mnist/, "the IDX file format").
"""

from __future__ import annotations

import gzip
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.files import DEFLATE_RATIO, GZIP_MAGIC, inflate, reading
from nembp.errors import ArchitectureError, DataError
from nembp.files import write_atomically

__all__ = ["idx_header", "read_idx", "write_idx"]

TYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_MOST_DIMENSIONS = 32
_FRESH = "Get a fresh copy of the file."


@dataclass(frozen=True)
class _Header:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def offset(self) -> int:
        return 4 + 4 * len(self.shape)

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_idx(
    path: str | os.PathLike[str], *, max_bytes: int | None = None, native: bool = True
) -> NDArray[Any]:
    """Read an IDX file, raw or gzip (told apart by content), using exactly all of its bytes.

    Parameters
    ----------
    path : path
        The file.
    max_bytes : int, optional
        Refuse files that declare more unpacked bytes than this.
    native : bool, default True
        Whether values of several bytes are converted to native byte order; without, they may come
        in the file's, which is big-endian.

    Returns
    -------
    ndarray
        A raw file is memory-mapped, read-only, unless it is converted; anything else is in
        memory, of which no more is taken than the content really fills.

    Raises
    ------
    DataError
        If the file is missing, is not IDX, is truncated or damaged, has trailing bytes, or its
        header declares more than it holds.
    """
    path = Path(path)
    with reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(4 + 4 * _MOST_DIMENSIONS)
        file.seek(0)
        if start.startswith(GZIP_MAGIC):
            return _read_gzip(file, path, min(size * DEFLATE_RATIO, max_bytes or 2**62))
        if path.suffix == ".gz" and start:
            raise DataError(
                f"{path}: not gzip data (starts with {start[:2].hex(' ')}, expected 1f 8b). "
                "If it is unpacked already, rename it without .gz; else get a fresh copy."
            )
        header = _parse_header(start, path)
        if header is None:
            raise DataError(f"{path}: {size} bytes, too few for an IDX header. {_FRESH}")
        _check_bound(header, min(size, max_bytes or size), path)
        if header.end < size:
            raise DataError(_trailing(header, path))
        return _read_raw(file, header, native)


def _read_raw(file: BinaryIO, header: _Header, native: bool) -> NDArray[Any]:
    if header.end == header.offset:  # nothing to map
        return np.empty(header.shape, dtype=header.dtype.newbyteorder("="))
    mapped = np.asarray(np.memmap(file, header.dtype, "r", header.offset, header.shape))
    return mapped.astype(header.dtype.newbyteorder("="), copy=False) if native else mapped


def _read_gzip(file: BinaryIO, path: Path, bound: int) -> NDArray[Any]:
    content = bytearray()  # grows with what is really there, whatever the header declares
    header = None
    for piece in inflate(file, path):
        content += piece
        if header is None:
            header = _parse_header(content, path)
            if header is not None:
                _check_bound(header, bound, path)
        if header is not None and len(content) > header.end:
            raise DataError(_trailing(header, path))
    if header is None:
        raise DataError(f"{path}: {len(content)} unpacked bytes, too few for an IDX header")
    _check_bound(header, len(content), path)
    if header.end == header.offset:
        return np.empty(header.shape, dtype=header.dtype.newbyteorder("="))
    values = np.frombuffer(content, header.dtype, offset=header.offset).reshape(header.shape)
    if not values.dtype.isnative:
        values = values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))
    return values


def _parse_header(content: bytes | bytearray, path: Path) -> _Header | None:
    """Header at the start of `content`, None while it is incomplete."""
    if len(content) < 4:
        return None
    dtype = TYPES.get(content[2])
    if content[0] or content[1] or dtype is None or content[3] > _MOST_DIMENSIONS:
        raise DataError(
            f"{path}: not an IDX file (starts with {content[:4].hex(' ')}, expected 00 00, a type "
            f"08-0e and a number of dimensions, as in 00 00 08 03). {_FRESH}"
        )
    dimensions = content[3]
    if len(content) < 4 + 4 * dimensions:
        return None
    header = _Header(dtype, struct.unpack_from(f">{dimensions}I", content, 4))
    if math.prod(length or 1 for length in header.shape) >= 2**60:  # no array can have it
        raise DataError(f"{path}: the header declares a shape of {header.shape}. {_FRESH}")
    return header


def _check_bound(header: _Header, available: int, path: Path) -> None:
    if header.end > available:
        raise DataError(
            f"{path}: the header declares shape {header.shape} of {header.dtype.name}, "
            f"{header.end} bytes with the header, but the file holds at most {available} "
            f"(truncated file or wrong header). {_FRESH}"
        )


def _trailing(header: _Header, path: Path) -> str:
    return (
        f"{path}: trailing bytes after the {header.end} bytes that the header declares (shape "
        f"{header.shape} of {header.dtype.name}). {_FRESH}"
    )


def idx_header(x: NDArray[Any]) -> bytes:
    """IDX header of an array.

    >>> idx_header(np.zeros((2, 3), dtype=np.uint8)).hex(" ", 4)
    '00000802 00000002 00000003'

    Raises
    ------
    ArchitectureError
        If IDX has no such dtype, or a length does not fit into 32 bits.
    """
    codes = {dtype: code for code, dtype in TYPES.items()}
    code = codes.get(x.dtype.newbyteorder(">"))
    if code is None or x.ndim > _MOST_DIMENSIONS or max(x.shape, default=0) >= 2**32:
        names = ", ".join(dtype.name for dtype in TYPES.values())
        raise ArchitectureError(
            f"IDX cannot hold dtype {x.dtype} of shape {x.shape}: expected one of {names}"
        )
    return struct.pack(f">2xBB{x.ndim}I", code, x.ndim, *x.shape)


def write_idx(path: str | os.PathLike[str], x: NDArray[Any]) -> None:
    """Write an array as IDX; gzip, with no time stamp in it, when the name ends in .gz.

    Parameters
    ----------
    path : path
        Replaced only once the new file is complete.
    x : ndarray
        uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    ArchitectureError
        If IDX cannot hold the array.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    content = idx_header(x) + np.ascontiguousarray(x, x.dtype.newbyteorder(">")).tobytes()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    write_atomically(path, content)
