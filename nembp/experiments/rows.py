"""Rows on disk: appended one by one, sealed, never lost and never mixed.

``rows.jsonl`` has one row per replicate, in the order they finished, each with the hash of what was
declared and a seal over its values; a header in JSON holds the declaration. A row is on the disk
(fsync) before the next replicate counts as done. A last line that was cut short, by kill -9 or a
power cut, is dropped when the run resumes, and its replicate is run again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nembp.errors import ArchitectureError, DataError, OutputError
from nembp.experiments.protocol import digest
from nembp.files import reading, remove_stale, write_atomically
from nembp.runs.folder import to_json

ROWS = "rows.jsonl"
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


def seal(values: Mapping[str, Any]) -> str:
    """Return a hash of the values of a row or header."""
    return digest({k: v for k, v in values.items() if k != "seal"})


def _sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    held = json.loads(to_json(values))
    return {**held, "seal": seal(held)}


def check_types(row: Mapping[str, Any], **types: type | tuple[type, ...]) -> None:
    """Raise ValueError unless a row has these keys, with values of exactly these types."""
    if set(row) != set(types):
        raise ValueError
    for key, allowed in types.items():
        if type(row[key]) not in (allowed if isinstance(allowed, tuple) else (allowed,)):
            raise ValueError


def write_header(path: Path, values: Mapping[str, Any]) -> None:
    """Write the declaration that rows belong to."""
    write_atomically(path, (to_json(_sealed(values), indent=2) + "\n").encode())


def read_header(path: Path, name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Read a declaration; ArchitectureError, with what changed, if it is another than today's."""
    remedy = "Run it with `nembp experiment run`, or check --out"
    with reading(path, f"Expected the folder of an experiment. {remedy}") as file:
        text = file.read()
    try:
        header = json.loads(text)
        old = header.get("content", header)
        numbers = [header.get(key, 2) for key in ("threads", "seeds")]
        if not (type(header["hash"]) is str and type(old) is dict):
            raise ValueError("hash or content are missing")
        if not all(type(number) is int and 0 < number < 1 << 31 for number in numbers):
            raise ValueError("threads and seeds must be whole numbers above 0, of 31 bits")
        if header.get("seal", seal(header)) != seal(header):
            raise ValueError("it does not match its seal")
    except DAMAGED as error:
        raise DataError(f"{path}: cannot be read ({error}). {remedy}") from error
    if header["hash"] != (expected := digest(content)):
        new = json.loads(json.dumps(content))
        changed = sorted(key for key in new if old.get(key) != new[key])
        raise ArchitectureError(
            f"{path.parent}: its rows are of {header['hash']}, but {name} is now {expected} "
            f"({', '.join(changed) or 'the hash'} changed); rows are not mixed. Choose another "
            "--out, or remove that folder"
        )
    return dict(header)


def read_rows(
    folder: Path, kind: str, expected: str, identity: Callable[[dict[str, Any]], object]
) -> tuple[list[dict[str, Any]], int, int]:
    """Read rows, without their seals; how many have none; and the bytes that all take.

    ``identity`` returns the replicate that a row is of, or raises one of ``DAMAGED``. A last line
    that is damaged was cut short. DataError if another one is, or does not match its seal, or a row
    is there twice, or of another hash than ``expected``, which each has under the key ``kind``.
    """
    path = folder / ROWS
    if not path.exists():
        return [], 0, 0
    with reading(path) as file:
        content = file.read()
    rows: dict[object, dict[str, Any]] = {}
    unsealed = size = 0
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        what = replicate = None
        try:
            row = json.loads(line)
            given = row.pop("seal", None)
            if given is not None and given != seal(row):
                raise ValueError
            replicate = identity(row)
        except DAMAGED:
            if size + len(line) + 1 == len(content):
                break  # the last line: a disk may have kept its end but not its middle
            what = "damaged"
        else:
            if row[kind] != expected:
                what = f"of {kind} {row[kind]}"
            elif replicate in rows:
                what = "there twice"
        if what:
            raise DataError(
                f"{path}: line {number} is {what}; expected rows of {kind} {expected}, each "
                "replicate once. Remove that line to run its replicate again"
            )
        rows[replicate] = row
        unsealed += given is None
        size += len(line) + 1
    return list(rows.values()), unsealed, size


class RowFile:
    """Rows of a run in progress: one run at a time writes them. A context.

    ``header`` names the file of the declaration, ``what`` is run. OutputError if ``resume`` is off
    and the folder holds one, another run writes there, or it cannot be written.
    """

    def __init__(self, folder: Path, header: str, what: str, resume: bool) -> None:
        self.path = folder / ROWS
        self.there = (folder / header).exists() or self.path.exists()
        if self.there and not resume:
            raise OutputError(
                f"{folder}: holds a {what}; continue it with --resume, choose another --out, or "
                "remove it"
            )
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab")  # noqa: SIM115
        try:
            import fcntl

            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise OutputError(
                f"{self.path}: another run is writing it; wait for it to end, or choose another "
                "--out"
            ) from error
        except (ImportError, OSError):  # Windows and some file systems have no such locks
            pass
        remove_stale(folder)  # half written by a run that was killed

    def truncate(self, size: int) -> None:
        """Drop a last line that was cut short."""
        self._file.truncate(size)

    def append(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Put a row on the disk and return it as it will be read."""
        line = _sealed(row)
        with self._writing():
            self._file.write(to_json(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        del line["seal"]
        return line

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # what could not be written was said when it was tried
            self._file.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror or error}); expected a writable "
                "folder with free space. Choose another --out"
            ) from error
