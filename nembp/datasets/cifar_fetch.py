"""CIFAR-10 and CIFAR-100 fetched from where they are published, and unpacked."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from nembp.datasets import cifar
from nembp.datasets.download import Progress, download, mirror_urls
from nembp.errors import DataError, OutputError
from nembp.files import replacing

__all__ = ["fetch_cifar"]

MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
MIRROR_VARIABLE = "NEMBP_CIFAR_MIRROR"
MD5 = {  # of the archives of the binary versions, as published beside them
    "cifar10": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar100": "03b5dce01913d631647c71ecec9e9cb8",
}
_MOST = 200_000_000  # bytes; the archives have 170 million
_NAMES = 1 << 16  # most bytes of a list of class names


def fetch_cifar(
    name: str,
    data_dir: str | os.PathLike[str],
    mirror: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    timeout: float = 30.0,
) -> tuple[Path, ...]:
    """Download the binary version of CIFAR, check it, and unpack the files that are read.

    Parameters
    ----------
    name : {"cifar10", "cifar100"}
        Which.
    data_dir : path
        Folder for the archive's own folder, made if need be. Where all files are there already,
        with the sizes that they should have, nothing is fetched; those of a folder that lacks some
        are replaced.
    mirror, progress, timeout
        As in `fetch_mnist`; the environment variable is NEMBP_CIFAR_MIRROR.

    Returns
    -------
    tuple of Path
        The files that were written.

    Raises
    ------
    ArchitectureError
        If a mirror is not an http(s) or file URL.
    DataError
        If no mirror gave the archive with the published checksum. Nothing is written then.
    OutputError
        If the folder cannot be written.
    """
    layout = (cifar.CIFAR10 if name == "cifar10" else cifar.CIFAR100)[0]
    folder = Path(data_dir) / layout.folder
    if _complete(folder, layout) or _complete(Path(data_dir), layout):
        return ()
    failures = []
    for base in mirror_urls(mirror, MIRROR_VARIABLE, MIRRORS):
        url = base + layout.archive
        try:
            Path(data_dir).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=data_dir) as file:
                download(url, file, _MOST, progress, timeout)
                file.seek(0)
                found = hashlib.file_digest(file, "md5").hexdigest()
                if found != MD5[name]:
                    raise DataError(f"{url}: what it sent has MD5 {found}, expected {MD5[name]}.")
                file.seek(0)
                return _unpack(file, url, folder, layout)
        except DataError as error:
            failures.append(str(error))
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"{data_dir}: cannot be written ({error.strerror})") from error
    raise DataError(
        f"{folder}: could not be fetched. {' '.join(failures)} Try again later, or name another "
        f"mirror (--mirror URL or {MIRROR_VARIABLE})."
    )


def _sizes(layout: cifar.Layout) -> dict[str, int]:
    counts = layout.train | layout.test
    return {name: count * (layout.skip + cifar.PIXELS) for name, count in counts.items()}


def _complete(folder: Path, layout: cifar.Layout) -> bool:
    """Whether every file is there and has its size."""
    sizes = _sizes(layout)
    paths = {name: folder / name for name in layout.files}
    return all(path.is_file() for path in paths.values()) and all(
        paths[name].stat().st_size == size for name, size in sizes.items()
    )


def _unpack(file: IO[bytes], url: str, folder: Path, layout: cifar.Layout) -> tuple[Path, ...]:
    """Write the files that are read, and no other, whatever paths the archive names."""
    sizes, written = _sizes(layout), []
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                known = path.parts == (layout.folder, path.name) and path.name in layout.files
                if not known or not member.isfile():
                    continue
                if member.size != sizes.get(path.name, min(member.size, _NAMES)):
                    raise DataError(f"{url}: {member.name} has {member.size} bytes.")
                source = archive.extractfile(member)
                if source is not None:
                    with replacing(folder / path.name) as target:
                        shutil.copyfileobj(source, target)
                    written.append(folder / path.name)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{url}: a damaged archive ({error}).") from error
    missing = set(layout.files) - {path.name for path in written}
    if missing:
        raise DataError(f"{url}: no {', '.join(sorted(missing))} in the archive.")
    return tuple(written)
