"""Sealed archives: an .npz of plain arrays and a JSON header under one SHA-256.

The file is an ordinary ``.npz`` that `numpy.load` opens without pickle: the arrays, ``header`` (the
JSON's bytes) and ``sha256`` (the digest of all others). Nothing in it can run code, and reading it
takes memory in proportion to the file, whatever its headers claim.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.npz import read_npz
from nembp.errors import ArchitectureError, DataError
from nembp.files import replacing

__all__ = ["content_hash", "read_archive", "write_archive"]

HEADER, SEAL = "header", "sha256"


def content_hash(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of named arrays: of every name, dtype, shape and byte.

    The same content has the same hash whatever its byte order in memory, its strides and the
    order of its names.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Of numbers or text.

    Returns
    -------
    str
        64 hexadecimal digits.

    >>> content_hash({"W": np.zeros(3)}) == content_hash({"W": np.zeros((3, 1))})
    False
    """
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        kind = array.dtype.newbyteorder("<")
        # dtype and shape fix the number of bytes, so that no two contents read alike
        digest.update(json.dumps([name, kind.str, array.shape]).encode() + b"\n")
        digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
    return digest.hexdigest()


def write_archive(
    path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write a sealed archive; the old file stays whole until the new one is.

    The same content gives the same bytes, so files can be compared.

    Parameters
    ----------
    path : path
        The file, under this very name.
    header : mapping
        JSON values; tuples are read back as lists.
    arrays : mapping of str to ndarray
        Numbers; the names ``header`` and ``sha256`` are taken.

    Raises
    ------
    ArchitectureError
        If the header holds what JSON cannot, a NaN for one.
    OutputError
        If the file cannot be written.
    """
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArchitectureError(
            f"{os.fspath(path)}: not written, since its header is not JSON ({error}); expected "
            "finite numbers, strings, True, False, None, lists, and dicts with string keys"
        ) from error
    content = dict(arrays) | {HEADER: np.frombuffer(text.encode(), np.uint8)}
    seal = np.frombuffer(bytes.fromhex(content_hash(content)), np.uint8)
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in (content | {SEAL: seal}).items():
            # numpy.savez can be told not to pickle only since NumPy 2.1
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def read_archive(
    path: str | os.PathLike[str],
    kind: str,
    version: int,
    names: Sequence[str],
    remedy: str,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a sealed archive whose header has ``format`` = `kind` and ``version`` = `version`.

    Parameters
    ----------
    path : path
        The file.
    kind, version : str, int
        What the header must say.
    names : sequence of str
        The arrays to read; those that are absent are left out, and the seal says whether they
        should be.
    remedy : str
        A sentence for the end of every message.

    Returns
    -------
    header : dict
    arrays : dict of str to ndarray
        In native byte order.

    Raises
    ------
    DataError
        If the file is missing, truncated, damaged, of another kind or of another version.
    """
    path = Path(path)

    def refuse(reason: str, error: Exception | None = None) -> NoReturn:
        raise DataError(f"{path}: {' '.join(reason.split())}. {remedy}") from error

    try:
        arrays = read_npz(path, (HEADER, SEAL, *names), packed=False)
    except DataError as error:  # its own remedy, after the first sentence, is for data sets
        refuse(str(error).removeprefix(f"{path}: ").partition(". ")[0].rstrip("."), error)
    if HEADER not in arrays or SEAL not in arrays:
        refuse(f"an .npz archive, but not a {kind}")
    seal = arrays.pop(SEAL)
    try:
        header = json.loads(arrays[HEADER].tobytes())
    except (ValueError, RecursionError) as error:
        refuse(f"damaged: its header is not JSON ({error})", error)
    if not isinstance(header, dict) or header.get("format") != kind:
        refuse(f"an .npz archive, but not a {kind}")
    if header.get("version") != version:
        refuse(
            f"has format version {header.get('version')!r:.40}; this nembp reads version {version}"
        )
    if seal.tobytes().hex() != content_hash(arrays):
        refuse("damaged: its content does not match the SHA-256 inside")
    del arrays[HEADER]
    return header, arrays
