"""Reading files with errors a user can act on, and memory bounded by content."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nembp.errors import DataError

__all__ = ["DEFLATE_RATIO", "GZIP_MAGIC", "PIECE", "inflate", "only_file", "reading"]

PIECE = 1 << 18  # bytes handled at a time
GZIP_MAGIC = b"\x1f\x8b"
DEFLATE_RATIO = 1032  # most bytes that one byte of deflate can unpack to


@contextmanager
def reading(path: Path, remedy: str = "Check the path.") -> Iterator[BinaryIO]:
    """Open a file for reading; OSError becomes DataError naming it and the `remedy`."""
    try:
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. {remedy}") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: is a folder; expected a file. {remedy}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}). {remedy}") from error


def inflate(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """Unpack a gzip file in pieces of at most `PIECE` bytes, up to its last byte.

    Unlike `gzip.GzipFile` it takes no padding for granted: whatever follows the last member is an
    error, since a data file must be used up exactly.

    Raises
    ------
    DataError
        If the file is damaged, truncated or followed by other bytes.
    """
    packed = file.read(PIECE)
    while packed:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            try:
                piece = member.decompress(packed, PIECE)
            except zlib.error as error:
                raise DataError(
                    f"{path}: damaged gzip data ({error}). Get a fresh copy of the file."
                ) from error
            if piece:
                yield piece
            elif not packed and not member.eof:
                raise DataError(
                    f"{path}: the gzip data ends early (truncated file). Get a fresh copy."
                )
            if not member.eof:
                packed = member.unconsumed_tail or file.read(PIECE)
        packed = member.unused_data or file.read(PIECE)
        if packed and not GZIP_MAGIC.startswith(packed[:2]):
            raise DataError(
                f"{path}: trailing bytes after the gzip data; expected its end. Get a fresh copy."
            )


def only_file(path: Path, suffix: str) -> Path:
    """`path` itself, or the only file with this suffix where it is a folder.

    Raises
    ------
    DataError
        If the folder has none or several.
    """
    if not os.path.isdir(path):
        return path
    found = sorted(path.glob(f"*{suffix}"))
    if len(found) != 1:
        raise DataError(
            f"{path}: {len(found)} {suffix} files in this folder; expected one, or the path of a "
            "file"
        )
    return found[0]
