"""Files read with errors that help, and written so that they are complete or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

from nembp.errors import DataError, OutputError


@contextmanager
def reading(path: str | os.PathLike[str], remedy: str = "Check the path.") -> Iterator[BinaryIO]:
    """Open a file for reading; OSError becomes DataError naming it and the `remedy`."""
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        fault = f"cannot be read ({error.strerror or error})"
        if isinstance(error, FileNotFoundError | IsADirectoryError):
            is_missing = isinstance(error, FileNotFoundError)
            fault = "no such file" if is_missing else "is a folder; expected a file"
        raise DataError(f"{path}: {fault}. {remedy}") from error


@contextmanager
def parsing(fault: str, remedy: str) -> Iterator[None]:
    """Turn whatever another library raises of a damaged file into ``fault (reason). remedy``."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        reason = f"{' '.join(str(error).split()) or type(error).__name__:.200}"
        raise DataError(f"{fault} ({reason}). {remedy}") from error


_RATIO = 100  # most bytes that one of a long file may unpack to: data makes a few
_SMALL = 1 << 26  # bytes that a file may unpack to in any case
_DEFLATE = 1032  # most bytes that one byte of deflate can unpack to
_ALLOWED: ContextVar[int | None] = ContextVar("max_bytes", default=None)


@contextmanager
def unpacking(max_bytes: int | None) -> Iterator[None]:
    """Let each file that is read meanwhile unpack to so many bytes, whatever its own size."""
    before = _ALLOWED.set(max_bytes)
    try:
        yield
    finally:
        _ALLOWED.reset(before)


def check_unpacked(unpacked: int, packed: int, where: str, *, is_image: bool = False) -> None:
    """Raise DataError, before anything is allocated, for what unpacks to far more than it is."""
    allowed = _ALLOWED.get()
    if is_image:  # of three bytes a pixel, and packed better than by deflate
        most = allowed or max(_SMALL, 3 * _RATIO * packed)
    else:
        most = min(allowed or max(_SMALL, _RATIO * packed), _DEFLATE * packed)
    if unpacked > most:
        raise DataError(
            f"{where}: declares {unpacked:,} bytes, but is packed into {packed:,}; expected at "
            f"most {most:,}. Unpack or shrink it. Or, if you trust it, allow more with --max-bytes."
        )


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write to a temporary file that takes the place of `path` only when all went well.

    It lies in the same folder and is on the disk (fsync) before it is renamed, as the folder is
    afterwards: a crash at any moment leaves the old content or the new one. A symbolic link keeps
    pointing where it did, and what is no regular file (``/dev/stdout``) is written directly. An
    error, an OutputError where it cannot be written, leaves the old file and no temporary.
    """
    try:
        if "\0" in os.fspath(path):
            raise OSError(errno.EINVAL, "a NUL character in its name")
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb") as file:  # a folder fails here
                yield file
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        # a name of its own for each writer, and short even where that of `path` is not
        temporary = target.with_name(f".nembp-{secrets.token_hex(8)}.part")
        try:
            with open(temporary, "xb") as file:
                lock(file)  # a temporary without a lock is that of a killed writer
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{os.fspath(path)}: cannot be written ({error.strerror or error}); expected a "
            "writable folder with free space. Choose another path."
        ) from error


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Make `data` the content of `path`, or leave what was there; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def remove_stale(folder: str | os.PathLike[str]) -> None:
    """Remove the temporaries that killed writers left in a folder, and no living writer's."""
    for path in Path(folder).glob(".nembp-*.part"):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            if lock(file):
                path.unlink()


def lock(file: BinaryIO | int) -> bool | None:
    """Lock what is open for this process; whether that worked, None if there are no locks here."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # another's
        return False
    except (ImportError, OSError):  # Windows, some file systems
        return None
    return True


def _sync_folder(folder: Path) -> None:
    """Put the rename on the disk, where the system can sync a folder (Windows cannot)."""
    # the new file is complete and in place by now, so a folder that cannot sync is no failure
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
