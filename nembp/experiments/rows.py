"""The rows of an experiment on disk: appended one by one, never lost, never mixed.

``rows.jsonl`` has a row a replicate, in the order they finished; ``protocol.json`` says what they
are of. A row is on the disk (fsync) before the next replicate counts as done. A last line that was
cut short, by kill -9 or a power cut, is dropped when the run resumes, and its replicate run again.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from nembp.errors import ArchitectureError, DataError, OutputError
from nembp.experiments.protocol import Protocol
from nembp.experiments.tasks import Task
from nembp.files import write_atomically
from nembp.runs.folder import to_json

__all__ = ["PROTOCOL", "ROWS", "RowFile", "check_header", "read_header", "read_rows"]

PROTOCOL, ROWS = "protocol.json", "rows.jsonl"
KEYS = {"protocol", "phase", "arm", "rate", "seed", "strength", "status", "curves", "scores"}


def read_header(folder: Path) -> dict[str, Any]:
    """Read protocol.json.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    path = folder / PROTOCOL
    try:
        header = json.loads(path.read_bytes())
        if not isinstance(header, dict) or not {"hash", "threads", "quick"} <= set(header):
            raise ValueError("keys are missing")
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; expected the folder of an experiment. Run it with "
            "`nembp experiment run`, or check --out"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a protocol ({error})") from error
    return header


def check_header(header: dict[str, Any], protocol: Protocol, folder: Path) -> None:
    """Raise ArchitectureError if rows are of another protocol, saying in what it changed."""
    if header["hash"] == protocol.digest:
        return
    old, new = header.get("content", {}), json.loads(json.dumps(protocol.content()))
    changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    raise ArchitectureError(
        f"{folder}: its rows are of protocol {header['hash']}, but {protocol.name} is now "
        f"{protocol.digest} ({', '.join(changed) or 'the hash'} changed); rows are not mixed. "
        "Choose another --out, or remove that folder"
    )


def read_rows(folder: Path, protocol: Protocol) -> tuple[list[dict[str, Any]], int]:
    """Read the rows of a protocol.

    Returns
    -------
    rows, size
        In order, and the bytes that they take: what follows is a line cut short.

    Raises
    ------
    DataError
        If a line other than the last is damaged, a row is of another protocol or there twice.
    """
    path = folder / ROWS
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    rows: list[dict[str, Any]] = []
    seen: set[Task] = set()
    size = 0
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        row = _row(line)
        if row is None and size + len(line) + 1 == len(content):
            break  # the last line: a disk may have kept its end but not its middle
        if row is None or row["protocol"] != protocol.digest or Task.of(row) in seen:
            what = "damaged" if row is None else f"of protocol {row['protocol']}, or there twice"
            raise DataError(
                f"{path}: line {number} is {what}; expected rows of protocol {protocol.digest}, "
                "each replicate once. Remove that line to run its replicate again"
            )
        seen.add(Task.of(row))
        rows.append(row)
        size += len(line) + 1
    return rows, size


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and set(row) >= KEYS else None


class RowFile:
    """The rows of a run in progress, of which there is one at a time in a folder.

    Parameters
    ----------
    folder : Path
        New, empty, or with rows of the same protocol if ``resume``.
    protocol : Protocol
        What is run.
    header : dict
        For protocol.json, besides the protocol; an older one's ``threads`` stay.
    resume : bool
        Continue the rows that are there, if any.

    Attributes
    ----------
    rows : list of dict
        All rows so far.
    protocol : Protocol
        With the most reporting seeds that were ever asked for here.
    threads : int
        Of each replicate: what the first rows were computed with, so that all are alike.

    Raises
    ------
    OutputError
        If the folder is in use or cannot be written, or holds a run and ``resume`` is off.
    ArchitectureError, DataError
        If its rows are of another protocol, or damaged.
    """

    def __init__(
        self, folder: Path, protocol: Protocol, header: dict[str, Any], *, resume: bool
    ) -> None:
        self.path, self.protocol = folder / ROWS, protocol
        there = (folder / PROTOCOL).exists() or self.path.exists()
        if there and not resume:
            raise OutputError(
                f"{folder}: holds a run; continue it with --resume, choose another --out, or "
                "remove it"
            )
        self.threads = int(header["threads"])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab")  # noqa: SIM115
        except OSError as error:
            raise _refused(self.path, error) from error
        try:
            _lock(self._file, self.path)
            if there:
                old = read_header(folder)
                check_header(old, protocol, folder)
                self.threads = int(old["threads"])
                # seeds that were asked for once are reported: none is dropped by what came of it
                most = max(protocol.seeds, int(old.get("seeds", 0)))
                self.protocol = protocol = protocol.with_seeds(most)
            self.rows, size = read_rows(folder, protocol)
            content = header | {"threads": self.threads, "hash": protocol.digest}
            content |= {"seeds": protocol.seeds, "content": protocol.content()}
            write_atomically(folder / PROTOCOL, (to_json(content, indent=2) + "\n").encode())
            self._file.truncate(size)
        except BaseException:
            self._file.close()
            raise

    def append(self, row: dict[str, Any]) -> None:
        """Put a row on the disk.

        Raises
        ------
        OutputError
            If there is no room; a part of the line may be left, which resuming drops.
        """
        line = to_json({"protocol": self.protocol.digest, **row}).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _refused(self.path, error) from error
        self.rows.append(json.loads(line))

    def close(self) -> None:
        """Let others write; again does nothing."""
        with contextlib.suppress(OSError):  # what could not be written was said when it was tried
            self._file.close()


def _lock(file: Any, path: Path) -> None:
    """Make sure that no other run writes the same rows, where the system has such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"{path}: another run is writing it; wait for it to end, or choose another --out"
        ) from error


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}); expected a writable folder with "
        "free space. Choose another --out"
    )
