"""MNIST and CIFAR fetched from where they are published, checked, and put in place."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from nembp.datasets import arrays, cifar
from nembp.datasets.arrays import NAMES, idx_files
from nembp.errors import ArchitectureError, DataError, NembpError, OutputError
from nembp.files import reading, remove_stale, replacing

Progress = Callable[[str, int, int | None], None]

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
CIFAR_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
CIFAR_MD5 = {  # of the archives of the binary versions, as published beside them
    "cifar10": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar100": "03b5dce01913d631647c71ecec9e9cb8",
}
_GZIP_OVERHEAD = 1 << 16  # gzip never grows data by more than this at MNIST's sizes
_MOST = 200_000_000  # bytes; CIFAR's archives have 170 million
_NAMES_BYTES = 1 << 16  # most bytes of a list of class names
_LEAST_RATE = 1000  # bytes per second


def fetch(
    name: str,
    data_dir: str | os.PathLike[str],
    mirror: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    timeout: float = 30.0,
) -> tuple[Path, ...]:
    """Download the files of "mnist", "cifar10" or "cifar100" that a folder lacks, and return them.

    Each is checked before it is put in place. Files of MNIST that are there, raw or gzip, are kept;
    a damaged ``.gz`` is replaced; a file of another data set is never touched. CIFAR is its binary
    version, in the archive's own folder. `mirror` is a base URL, or several to try in turn; default
    the environment variable NEMBP_MNIST_MIRROR or NEMBP_CIFAR_MIRROR, else public mirrors.
    `progress` is called with a file's name, the bytes received, and those announced or None.
    """
    folder, is_mnist = Path(data_dir), name == "mnist"
    variable = "NEMBP_MNIST_MIRROR" if is_mnist else "NEMBP_CIFAR_MIRROR"
    usual = MNIST_MIRRORS if is_mnist else CIFAR_MIRRORS
    given = mirror or os.environ.get(variable) or usual
    mirrors = [given] if isinstance(given, str) else list(given)
    for base in mirrors:
        if urlsplit(base).scheme not in ("http", "https", "file"):
            raise ArchitectureError(
                f"mirror {base!r}: expected a URL that starts with https://, http:// or file://"
            )
    layout = (cifar.CIFAR100 if name == "cifar100" else cifar.CIFAR10)[0]
    home = folder if is_mnist else folder / layout.folder
    if is_mnist:
        missing = [f"{each}.gz" for each in NAMES if not _is_there(folder, each)]
    else:
        there = _complete(home, layout) or _complete(folder, layout)
        missing = [] if there else [layout.archive]
    remove_stale(home)
    fetched: list[Path] = []
    for remote in missing:
        failures = []
        for base in mirrors:
            url = f"{base.rstrip('/')}/{remote}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder) as file:
                    most = arrays.MNIST[remote[:-3]][1] + _GZIP_OVERHEAD if is_mnist else _MOST
                    download(url, file, most, progress, timeout)
                    file.seek(0)
                    if not is_mnist:
                        fetched += _unpacked(file, url, home, layout, CIFAR_MD5[name])
                        break
                    md5, size = arrays.MNIST[remote[:-3]]
                    if (found := _md5(file, size)) != md5:
                        raise DataError(
                            f"{url}: what it sent has MD5 {found} unpacked, expected {md5}."
                        )
                    file.seek(0)
                    with replacing(folder / remote) as place:
                        shutil.copyfileobj(file, place)
                    fetched.append(folder / remote)
                break
            except DataError as error:
                failures.append(str(error))
            except OSError as error:
                if isinstance(error, NembpError):
                    raise
                raise OutputError(
                    f"{folder}: cannot be written ({error.strerror}); expected a writable folder "
                    "with free space. Choose another --data-dir"
                ) from error
        else:
            raise DataError(
                f"{folder / remote}: could not be fetched. {' '.join(failures)} Try again later, "
                f"or name another mirror (--mirror URL or {variable})."
            )
    return tuple(fetched)


def download(
    url: str, file: IO[bytes], most: int, progress: Progress | None, timeout: float
) -> None:
    """Write what a URL gives to `file`: all that was announced, never more than `most` bytes.

    A mirror is given up if it sends less than 1,000 bytes per second for three timeouts: that of
    the socket begins anew with every byte.
    """
    import urllib.request  # with ssl, 30 ms that only a download pays

    received, failures = 0, list[Exception]()

    def receive() -> None:
        nonlocal received
        request = urllib.request.Request(url, headers={"User-Agent": "nembp"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                length = response.headers.get("Content-Length")
                announced = None if length is None else int(length)
                while piece := response.read1(1 << 18):
                    received += len(piece)
                    if received > most:
                        raise DataError(f"{url}: sends more than {most} bytes, which it never has.")
                    try:
                        file.write(piece)
                    except OSError as error:  # not the mirror's fault
                        raise OutputError(
                            f"what {url} sends cannot be written ({error.strerror}). Free space"
                        ) from error
                    if progress is not None:
                        progress(url.rpartition("/")[2], received, announced)
            if announced not in (None, received):
                raise DataError(f"{url}: sent {received} of {announced} announced bytes.")
        except Exception as error:  # noqa: BLE001  raised below
            failures.append(error)

    # a thread of its own, which is left behind where it waits for the server
    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    while thread.is_alive():
        before = received
        thread.join(3 * timeout)
        if thread.is_alive() and received - before < _LEAST_RATE * 3 * timeout:
            raise DataError(f"{url}: sends less than {_LEAST_RATE:,} bytes per second.")
    for error in failures:
        if isinstance(error, NembpError):
            raise error
        if isinstance(error, urllib.request.HTTPError):
            error.close()
        raise DataError(f"{url}: {error}.") from error


# -- MNIST ---------------------------------------------------------------------------------------
def _md5(file: IO[Any], size: int, *, gz: bool = True) -> str:
    """MD5 sum of a file, gzip or perhaps raw, of so many bytes unpacked; or why it has none."""
    packed = gz or file.read(2) == b"\x1f\x8b"
    file.seek(0)
    try:
        content = (gzip.GzipFile(fileobj=file) if packed else file).read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        return f"(damaged gzip data: {error})"
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _is_there(folder: Path, name: str) -> bool:
    """Whether the folder has this file of MNIST; DataError when another one is in its place."""
    path, (md5, size) = idx_files(folder).get(("", name)), arrays.MNIST[name]
    if path is None:
        return False
    with reading(path) as file:
        found = _md5(file, size, gz=path.suffix == ".gz")
    if found.startswith("(") and path.name == f"{name}.gz":
        return False  # damaged, as by an interrupted copy: the download replaces it
    if found != md5:
        raise DataError(
            f"{path}: a file of another data set (MD5 {found} unpacked, expected {md5}). Fetch "
            "MNIST into another folder, or move it away."
        )
    return True


# -- CIFAR ---------------------------------------------------------------------------------------
def _complete(folder: Path, layout: cifar.Layout) -> bool:
    """Whether every file is there and has its size."""
    return (folder / layout.names).is_file() and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size
        for name, size in layout.sizes.items()
    )


def _unpacked(file: Any, url: str, folder: Path, layout: cifar.Layout, md5: str) -> list[Path]:
    """Write the files that are read, and no other, whatever paths the published archive names."""
    if (found := hashlib.file_digest(file, "md5").hexdigest()) != md5:
        raise DataError(f"{url}: what it sent has MD5 {found}, expected {md5}.")
    file.seek(0)
    written = []
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                known = path.parts == (layout.folder, path.name) and path.name in layout.files
                source = archive.extractfile(member) if known and member.isfile() else None
                if source is None:
                    continue
                if member.size != layout.sizes.get(path.name, min(member.size, _NAMES_BYTES)):
                    raise DataError(f"{url}: {member.name} has {member.size} bytes.")
                with replacing(folder / path.name) as target:
                    shutil.copyfileobj(source, target)
                written.append(folder / path.name)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{url}: a damaged archive ({error}).") from error
    if missing := set(layout.files) - {path.name for path in written}:
        raise DataError(f"{url}: no {', '.join(sorted(missing))} in the archive.")
    return written
