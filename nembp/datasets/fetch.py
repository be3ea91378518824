"""MNIST and CIFAR fetched from where they are published, checked, and put in place."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import os
import queue
import shutil
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from nembp.datasets import builtin, cifar
from nembp.datasets.arrays import NAMES, idx_files, read_idx
from nembp.datasets.builtin import Content, idx_md5
from nembp.errors import ArchitectureError, DataError, NembpError, OutputError
from nembp.files import remove_stale, replacing

Progress = Callable[[str, int, int | None], None]
T = TypeVar("T")

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_VARIABLE = "NEMBP_MNIST_MIRROR"
CIFAR_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
CIFAR_VARIABLE = "NEMBP_CIFAR_MIRROR"
CIFAR_MD5 = {  # of the archives of the binary versions, as published beside them
    "cifar10": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar100": "03b5dce01913d631647c71ecec9e9cb8",
}
_GZIP_OVERHEAD = 1 << 16  # gzip never grows data by more than this at MNIST's sizes
_MOST = 200_000_000  # bytes; CIFAR's archives have 170 million
_NAMES_BYTES = 1 << 16  # most bytes of a list of class names


def _mirrors(
    mirror: str | Sequence[str] | None, variable: str, defaults: Sequence[str]
) -> list[str]:
    """Return the base URLs to try: those given, else the environment variable's, else defaults."""
    if mirror is None:
        mirror = os.environ.get(variable) or defaults
    mirrors = [mirror] if isinstance(mirror, str) else list(mirror)
    for base in mirrors:
        if urlsplit(base).scheme not in ("http", "https", "file"):
            raise ArchitectureError(
                f"mirror {base!r}: expected a URL that starts with https://, http:// or file://"
            )
    return [base.rstrip("/") + "/" for base in mirrors]


def _first(urls: list[str], fetch: Callable[[str], T], target: object, variable: str) -> T:
    """Return what `fetch` gives for the first URL with which it works."""
    failures = []
    for url in urls:
        try:
            return fetch(url)
        except DataError as error:
            failures.append(str(error))
    raise DataError(
        f"{target}: could not be fetched. {' '.join(failures)} Try again later, or name another "
        f"mirror (--mirror URL or {variable})."
    )


_LEAST_RATE = 1000  # bytes per second


def _receive(url: str, timeout: float, pieces: queue.Queue[Any], ended: threading.Event) -> None:
    """Put on a queue the announced length of what a URL gives, its pieces, and None or an error."""
    import urllib.request  # with ssl, 30 ms that only a download pays

    def put(item: object) -> None:
        while not ended.is_set():
            with contextlib.suppress(queue.Full):
                pieces.put(item, timeout=1.0)
                return

    request = urllib.request.Request(url, headers={"User-Agent": "nembp"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            length = response.headers.get("Content-Length")
            put(int(length) if length is not None else None)
            while not ended.is_set() and (piece := response.read1(1 << 18)):
                put(piece)
        put(None)
    except Exception as error:  # noqa: BLE001  raised by who reads the queue
        if isinstance(error, urllib.request.HTTPError):
            error.close()
        put(error)


def download(
    url: str, file: BinaryIO | IO[bytes], most: int, progress: Progress | None, timeout: float
) -> None:
    """Write what a URL gives to `file`: all that was announced, never more than `most` bytes.

    A mirror is given up if nothing comes for `timeout` seconds, or less than 1,000 bytes per
    second: a timeout of the socket begins anew with every byte.
    """
    pieces: queue.Queue[Any] = queue.Queue(16)
    ended = threading.Event()
    # a thread of its own, which is left behind where it waits for the server
    arguments = (url, timeout, pieces, ended)
    threading.Thread(target=_receive, args=arguments, daemon=True).start()

    def following(patience: float) -> Any:
        item = pieces.get(timeout=patience)
        if isinstance(item, Exception):
            raise item
        return item

    received, fresh, since = 0, 0, time.monotonic()
    try:
        announced = following(3 * timeout)  # a host may have addresses that do not answer
        while piece := following(timeout):
            received, fresh = received + len(piece), fresh + len(piece)
            if received > most:
                raise DataError(f"{url}: sends more than {most} bytes, which it never has.")
            try:
                file.write(piece)
            except OSError as error:  # not the mirror's fault
                raise OutputError(f"{file.name}: cannot be written ({error.strerror})") from error
            if progress is not None:
                progress(url.rpartition("/")[2], received, announced)
            if (seconds := time.monotonic() - since) > timeout:
                if fresh < _LEAST_RATE * seconds:
                    raise DataError(f"{url}: sends less than {_LEAST_RATE:,} bytes per second.")
                fresh, since = 0, time.monotonic()
        if announced is not None and received != announced:
            raise DataError(f"{url}: sent {received} of {announced} announced bytes.")
    except queue.Empty:
        raise DataError(f"{url}: nothing came for {timeout:g} seconds or more.") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, NembpError):
            raise
        raise DataError(f"{url}: {error}.") from error
    finally:
        ended.set()


# -- MNIST ---------------------------------------------------------------------------------------
def fetch_mnist(
    data_dir: str | os.PathLike[str],
    mirror: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    timeout: float = 30.0,
) -> tuple[Path, ...]:
    """Download the files of MNIST that a folder lacks, each checked before it is put in place.

    Files there that are MNIST's, raw or gzip, are kept; a damaged ``.gz`` is replaced; a file of
    another data set is never touched.

    Parameters
    ----------
    data_dir : path
        Folder for the four ``.gz`` files, made if need be.
    mirror : str or sequence of str, optional
        Base URL, or several to try in turn; default the environment variable NEMBP_MNIST_MIRROR,
        else well-known public mirrors.
    progress : callable, optional
        Called as ``progress(file_name, bytes_received, bytes_announced_or_None)``.
    timeout : float, default 30.0
        Seconds to wait for the mirror at every step.

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
    folder, fetched = Path(data_dir), []
    mirrors = _mirrors(mirror, MNIST_VARIABLE, MNIST_MIRRORS)
    remove_stale(folder)
    for name in NAMES:
        if _is_there(folder, name):
            continue
        target = folder / f"{name}.gz"

        def fetch(
            url: str, target: Path = target, content: Content = builtin.CONTENTS[name]
        ) -> None:
            with replacing(target) as file:
                download(url, file, content.size + _GZIP_OVERHEAD, progress, timeout)
                file.flush()
                _check_idx(url, file.name, content)

        _first([base + target.name for base in mirrors], fetch, target, MNIST_VARIABLE)
        fetched.append(target)
    return tuple(fetched)


def _check_idx(url: str, path: str, content: Content) -> None:
    try:
        found = idx_md5(read_idx(path, max_bytes=content.size))
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{url}: what it sent is not MNIST's file ({reason})") from error
    if found != content.md5:
        raise DataError(f"{url}: what it sent has MD5 {found} unpacked, expected {content.md5}.")


def _is_there(folder: Path, name: str) -> bool:
    """Whether the folder has this file of MNIST; DataError when another one is in its place."""
    path = idx_files(folder).get(("", name))
    if path is None:
        return False
    try:
        found = idx_md5(read_idx(path))
    except DataError as error:
        if path.name == f"{name}.gz":
            return False  # damaged, as by an interrupted copy: the download replaces it
        raise DataError(f"{error} Move it away before fetching MNIST.") from error
    if found != builtin.CONTENTS[name].md5:
        raise DataError(
            f"{path}: a file of another data set (MD5 {found} unpacked, expected "
            f"{builtin.CONTENTS[name].md5}). Fetch MNIST into another folder."
        )
    return True


# -- CIFAR ---------------------------------------------------------------------------------------
def fetch_cifar(
    name: str,
    data_dir: str | os.PathLike[str],
    mirror: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    timeout: float = 30.0,
) -> tuple[Path, ...]:
    """Download the binary version of "cifar10" or "cifar100", and unpack the files that are read.

    They go to the archive's own folder in `data_dir`; where all are there already, with their
    sizes, nothing is fetched. Nothing is written unless the archive has the published checksum.
    The rest is as in `fetch_mnist`; the environment variable is NEMBP_CIFAR_MIRROR.
    """
    layout = (cifar.CIFAR10 if name == "cifar10" else cifar.CIFAR100)[0]
    folder = Path(data_dir) / layout.folder
    remove_stale(folder)
    if _complete(folder, layout) or _complete(Path(data_dir), layout):
        return ()

    def fetch(url: str) -> tuple[Path, ...]:
        try:
            Path(data_dir).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=data_dir) as file:
                download(url, file, _MOST, progress, timeout)
                file.seek(0)
                found = hashlib.file_digest(file, "md5").hexdigest()
                if found != CIFAR_MD5[name]:
                    raise DataError(
                        f"{url}: what it sent has MD5 {found}, expected {CIFAR_MD5[name]}."
                    )
                file.seek(0)
                return _unpack(file, url, folder, layout)
        except OSError as error:
            if isinstance(error, NembpError):
                raise
            raise OutputError(f"{data_dir}: cannot be written ({error.strerror})") from error

    mirrors = _mirrors(mirror, CIFAR_VARIABLE, CIFAR_MIRRORS)
    return _first([base + layout.archive for base in mirrors], fetch, folder, CIFAR_VARIABLE)


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
                if member.size != sizes.get(path.name, min(member.size, _NAMES_BYTES)):
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
