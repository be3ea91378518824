"""MNIST: the four IDX files with the published checksums, and how to fetch them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.assemble import assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.datasets.download import Progress, download, mirror_urls
from nembp.datasets.idx import idx_header, read_idx
from nembp.datasets.idx_folder import NAMES, find, find_four, read_four
from nembp.errors import DataError
from nembp.files import replacing

__all__ = ["fetch_mnist", "idx_md5", "load_mnist"]

ATTRIBUTION = "MNIST by Y. LeCun, C. Cortes and C. Burges, CC BY-SA 3.0"
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MIRROR_VARIABLE = "NEMBP_MNIST_MIRROR"
_GZIP_OVERHEAD = 1 << 16  # gzip never grows data by more than this at MNIST's sizes


@dataclass(frozen=True)
class _Content:
    md5: str  # of the unpacked file
    size: int  # of the unpacked file, bytes


CONTENTS: dict[str, _Content] = {
    NAMES[0]: _Content("6bbc9ace898e44ae57da46a324031adb", 47_040_016),
    NAMES[1]: _Content("a25bea736e30d166cdddb491f175f624", 60_008),
    NAMES[2]: _Content("2646ac647ad5339dbf082846283269ea", 7_840_016),
    NAMES[3]: _Content("27ae3e4e09519cfbb04c329615203637", 10_008),
}


def load_mnist(request: Request) -> Dataset:
    """Load MNIST and verify its checksums; the loader behind ``load("mnist", folder)``.

    Raises
    ------
    DataError
        If a file is missing or damaged, or is not MNIST's; the message names it.
    """
    folder = request.path("mnist")
    paths = find_four(folder)
    train, test = read_four(paths)
    for name, path, x in zip(NAMES, paths, (train.x, train.y, test.x, test.y), strict=True):
        found = idx_md5(np.asarray(x))
        if found != CONTENTS[name].md5:
            raise DataError(
                f"{path}: not MNIST's file (MD5 {found} unpacked, expected {CONTENTS[name].md5}). "
                f"Move it away and run `nembp data fetch mnist --data-dir {folder}`, or load "
                "another set of this format with --dataset idx."
            )
    return assemble("mnist", train, test, request, source=str(folder), attribution=ATTRIBUTION)


def idx_md5(x: NDArray[Any]) -> str:
    """MD5 sum of the unpacked IDX file that holds the uint8 array `x`."""
    digest = hashlib.md5(idx_header(x), usedforsecurity=False)
    digest.update(np.ascontiguousarray(x).data)
    return digest.hexdigest()


def fetch_mnist(
    data_dir: str | os.PathLike[str],
    mirror: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    timeout: float = 30.0,
) -> tuple[Path, ...]:
    """Download the files of MNIST that a folder lacks, each checked before it is put in place.

    Parameters
    ----------
    data_dir : path
        Folder for the four ``.gz`` files, made if need be. Files there that are MNIST's, raw or
        gzip, are kept; a damaged ``.gz`` is replaced; a file of another data set is never touched.
    mirror : str or sequence of str, optional
        Base URL, or several to try in turn; default the environment variable NEMBP_MNIST_MIRROR,
        else well-known public mirrors.
    progress : callable, optional
        Called as ``progress(file_name, bytes_received, bytes_announced_or_None)``.
    timeout : float, default 30.0
        Seconds to wait for the mirror at every step.

    Returns
    -------
    tuple of Path
        The files that were downloaded.

    Raises
    ------
    ArchitectureError
        If a mirror is not an http(s) or file URL.
    DataError
        If no mirror gave a file with the published checksum, or a file of another set is in the
        way. Nothing half-written is left.
    OutputError
        If the folder cannot be written.
    """
    folder = Path(data_dir)
    mirrors = mirror_urls(mirror, MIRROR_VARIABLE, MIRRORS)
    fetched = []
    for name in NAMES:
        if _is_there(folder, name):
            continue
        target = folder / f"{name}.gz"
        failures = []
        for base in mirrors:
            try:
                _fetch(base + target.name, target, CONTENTS[name], progress, timeout)
            except DataError as error:
                failures.append(str(error))
            else:
                fetched.append(target)
                break
        else:
            raise DataError(
                f"{target}: could not be fetched. {' '.join(failures)} Try again later, or name "
                f"another mirror (--mirror URL or {MIRROR_VARIABLE})."
            )
    return tuple(fetched)


def _is_there(folder: Path, name: str) -> bool:
    """Whether the folder has this file of MNIST; DataError when another one is in its place."""
    path = find(folder, name)
    if path is None:
        return False
    try:
        found = idx_md5(read_idx(path))
    except DataError as error:
        if path.name == f"{name}.gz":
            return False  # damaged, as by an interrupted copy: the download replaces it
        raise DataError(f"{error} Move it away before fetching MNIST.") from error
    if found != CONTENTS[name].md5:
        raise DataError(
            f"{path}: a file of another data set (MD5 {found} unpacked, expected "
            f"{CONTENTS[name].md5}). Fetch MNIST into another folder."
        )
    return True


def _fetch(
    url: str, target: Path, content: _Content, progress: Progress | None, timeout: float
) -> None:
    """Download one file into place, after checking it where it was downloaded to."""
    with replacing(target) as file:
        download(url, file, content.size + _GZIP_OVERHEAD, progress, timeout)
        file.flush()
        try:
            found = idx_md5(read_idx(file.name, max_bytes=content.size))
        except DataError as error:
            reason = str(error).removeprefix(f"{file.name}: ")
            raise DataError(
                f"{url}: what it sent is not MNIST's {target.name} ({reason})"
            ) from error
        if found != content.md5:
            raise DataError(
                f"{url}: what it sent has MD5 {found} unpacked, expected {content.md5}."
            )
