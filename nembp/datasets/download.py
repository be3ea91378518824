"""Downloads: from mirrors, never more than expected, with one kind of error."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit

from nembp.datasets.files import PIECE
from nembp.errors import ArchitectureError, DataError, NembpError, OutputError

__all__ = ["Progress", "download", "mirror_urls", "receive"]

Progress = Callable[[str, int, int | None], None]


def mirror_urls(
    mirror: str | Sequence[str] | None, variable: str, defaults: Sequence[str]
) -> list[str]:
    """Return the base URLs to try: those given, else the environment variable's, else defaults.

    Raises
    ------
    ArchitectureError
        If one is not an http(s) or file URL.
    """
    if mirror is None:
        mirror = os.environ.get(variable) or defaults
    mirrors = [mirror] if isinstance(mirror, str) else list(mirror)
    for base in mirrors:
        if urlsplit(base).scheme not in ("http", "https", "file"):
            raise ArchitectureError(
                f"mirror {base!r}: expected a URL that starts with https://, http:// or file://"
            )
    return [base.rstrip("/") + "/" for base in mirrors]


def download(
    url: str, file: BinaryIO, most: int, progress: Progress | None, timeout: float
) -> None:
    """Write what a URL gives to `file`.

    Raises
    ------
    DataError
        If it cannot be had, is cut off, or is longer than `most` bytes.
    OutputError
        If `file` cannot be written.
    """
    import urllib.request  # with ssl, 30 ms that only a download pays

    request = urllib.request.Request(url, headers={"User-Agent": "nembp"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            receive(response, file, url, most, progress)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, NembpError):
            raise
        raise DataError(f"{url}: {error}.") from error


class _Response(Protocol):
    """What urlopen returns, as far as it is used here."""

    headers: Any

    def read(self, amount: int, /) -> bytes:
        """Next bytes, fewer than `amount` or none at the end."""


def receive(
    response: _Response, file: BinaryIO, url: str, most: int, progress: Progress | None
) -> None:
    """Copy a response to `file`: all that was announced, and never more than `most` bytes."""
    length = response.headers.get("Content-Length")
    announced = int(length) if length is not None else None
    received = 0
    while piece := response.read(PIECE):
        received += len(piece)
        if received > most:
            raise DataError(f"{url}: sends more than {most} bytes, which the file never has.")
        try:
            file.write(piece)
        except OSError as error:  # not the mirror's fault
            raise OutputError(f"{file.name}: cannot be written ({error.strerror})") from error
        if progress is not None:
            progress(url.rpartition("/")[2], received, announced)
    if announced is not None and received != announced:
        raise DataError(f"{url}: sent {received} of {announced} announced bytes.")
