"""Rows on disk: made side by side through joblib, appended one by one, sealed, never mixed.

``rows.jsonl`` has one row per replicate, in the order they finished, each with the hash of what was
declared and a seal over its values; a header in JSON holds the declaration. A row is on the disk
(fsync) before the next replicate counts as done. A last line that was cut short, by kill -9 or a
power cut, is dropped when the run resumes, and its replicate is run again.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, ClassVar

from nembp.errors import ArchitectureError, DataError, NembpError, OutputError
from nembp.experiments.protocol import digest
from nembp.files import lock, reading, remove_stale, write_atomically
from nembp.runs.folder import to_json
from nembp.threads import threads as blas_threads

DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
Progress = Callable[[int, int, Mapping[str, Any]], Any]


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they are read again, with a hash over them as their seal."""
    held = json.loads(to_json(values))
    return {**held, "seal": digest(held)}


def unseal(text: bytes) -> tuple[dict[str, Any], bool]:
    """Return values without their seal, and whether there was one; ValueError if it is broken."""
    values = json.loads(text)
    seal = values.pop("seal", None)
    if seal not in (None, digest(values)):
        raise ValueError("it does not match its seal")
    return values, seal is not None


def check_types(row: Mapping[str, Any], **types: type | tuple[type, ...]) -> None:
    """Raise ValueError unless a row has these keys, with values of exactly these types."""
    if set(row) != set(types):
        raise ValueError
    for key, allowed in types.items():
        if type(row[key]) not in (allowed if isinstance(allowed, tuple) else (allowed,)):
            raise ValueError


class Journal:
    """The rows in a folder, and the header of what was declared.

    A subclass has the ``kind`` of declaration, which names the header's file and the key of its
    hash in each row, and what a ``run`` is called.
    """

    kind: ClassVar[str]
    run: ClassVar[str]

    def __init__(self, folder: Path, content: Mapping[str, Any]) -> None:
        self.folder, self.content, self.hash = folder, content, digest(content)
        self.path, self.declared = folder / "rows.jsonl", folder / f"{self.kind}.json"
        self.unsealed = self.size = 0  # rows read that have no seal, and the bytes that all take

    def identity(self, row: dict[str, Any]) -> object:
        """Return the replicate that a row is of, or raise one of ``DAMAGED``."""
        raise NotImplementedError

    def header(self) -> dict[str, Any]:
        """Read the declaration; ArchitectureError, with what changed, if it is not today's."""
        remedy = "Run it with `nembp experiment run`, or check --out"
        with reading(self.declared, f"Expected the folder of an experiment. {remedy}") as file:
            text = file.read()
        try:
            header, _ = unseal(text)
            old = header.get("content", header)
            numbers = [header.get(key, 2) for key in ("threads", "seeds")]
            if not (type(header["hash"]) is str and type(old) is dict):
                raise ValueError("hash or content are missing")
            if not all(type(number) is int and 0 < number < 1 << 31 for number in numbers):
                raise ValueError("threads and seeds must be whole numbers above 0, of 31 bits")
        except DAMAGED as error:
            raise DataError(f"{self.declared}: cannot be read ({error}). {remedy}") from error
        if header["hash"] != self.hash:
            new = json.loads(json.dumps(self.content))
            changed = sorted(key for key in new if old.get(key) != new[key])
            raise ArchitectureError(
                f"{self.folder}: its rows are of {header['hash']}, but {self.content['name']} is "
                f"now {self.hash} ({', '.join(changed) or 'the hash'} changed); rows are not "
                "mixed. Choose another --out, or remove that folder"
            )
        return header

    def rows(self) -> list[dict[str, Any]]:
        """Read the rows, without their seals.

        A last line that is damaged was cut short. DataError if another one is, or a row is there
        twice, or of another declaration.
        """
        content, rows = b"", {}
        if self.path.exists():
            with reading(self.path) as file:
                content = file.read()
        self.unsealed = self.size = 0
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            end = self.size + len(line) + 1
            try:
                row, has_seal = unseal(line)
                replicate = self.identity(row)
                fault = "there twice" if replicate in rows else ""
                if row[self.kind] != self.hash:
                    fault = f"of {self.kind} {row[self.kind]}"
            except DAMAGED:
                if end == len(content):  # a disk may have kept its end but not its middle
                    break
                fault = "damaged"
            if fault:
                raise DataError(
                    f"{self.path}: line {number} is {fault}; expected rows of {self.kind} "
                    f"{self.hash}, each replicate once. Remove that line to run its replicate again"
                )
            rows[replicate] = row
            self.unsealed += not has_seal
            self.size = end
        return list(rows.values())

    @contextlib.contextmanager
    def writing(self, resume: bool) -> Iterator[dict[str, Any]]:
        """Open the rows for the one run that may write them, and give their header, or {}.

        OutputError if there are any and ``resume`` is off, another run writes, or nobody can.
        """
        there = self.declared.exists() or (self.path.exists() and self.path.stat().st_size > 0)
        if there and not resume:
            raise OutputError(
                f"{self.folder}: holds a {self.run}; continue it with --resume, choose another "
                "--out, or remove it"
            )
        with self._told():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab")  # noqa: SIM115
        try:
            if lock(self._file) is False:
                raise OutputError(
                    f"{self.path}: another run is writing it; wait for it to end, or choose "
                    "another --out"
                )
            remove_stale(self.folder)  # half written by a run that was killed
            yield self.header() if there else {}
        finally:
            with contextlib.suppress(OSError):  # what could not be written was said when tried
                self._file.close()

    def fill(
        self, header: Mapping[str, Any],
        left: Callable[[list[dict[str, Any]]], tuple[Sequence[tuple[Any, ...]], int]],
        function: Callable[..., dict[str, Any]], *, jobs: int | None, threads: int,
        on_progress: Progress | None, seconds: float = math.inf,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Write the header, add what a function returns of each call left, and return all rows.

        ``left`` gives the calls that rows warrant, and how many rows there will be; ``seconds`` are
        those that the new rows may say they took.
        """
        rows = self.rows()
        write_atomically(self.declared, (to_json(sealed(header), indent=2) + "\n").encode())
        self._file.truncate(self.size)  # a last line that was cut short
        try:
            while seconds > 0 and (todo := left(rows))[0]:
                with contextlib.closing(in_parallel(function, todo[0], jobs, threads)) as results:
                    for row in results:
                        rows.append(self._append({self.kind: self.hash, **row}))
                        seconds -= row["seconds"]
                        if on_progress is not None:
                            on_progress(len(rows), todo[1], rows[-1])
                        if seconds <= 0:
                            break
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(
                f"interrupted after {len(rows)} replicates, which {self.path} keeps; continue with "
                "--resume"
            ) from error
        except BrokenExecutor as error:
            raise NembpError(
                "a worker process ended unexpectedly, perhaps for lack of memory; "
                f"{self.path} keeps {len(rows)} replicates. Continue with --resume and fewer --jobs"
            ) from error
        return rows

    def _append(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Put a row on the disk, and return it as it will be read."""
        line = sealed(row)
        with self._told():
            self._file.write(to_json(line).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        del line["seal"]
        return line

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror or error}); expected a writable "
                "folder with free space. Choose another --out"
            ) from error


# -- joblib ----------------------------------------------------------------------------------------
def in_parallel(
    function: Callable[..., dict[str, Any]], calls: Sequence[tuple[Any, ...]], jobs: int | None,
    threads: int,
) -> Generator[dict[str, Any], None, None]:  # fmt: skip
    """Yield what a function returns of each call, as they finish, by the active joblib backend."""
    import joblib
    from joblib.parallel import get_active_backend

    own: dict[str, Any] = {}
    if type(get_active_backend()[0]).__name__ == "LokyBackend":  # other backends see to theirs
        own = {"initializer": _end_with, "initargs": (os.getpid(),)}
    todo = [joblib.delayed(function)(*call) for call in calls]
    with blas_threads(threads):  # a setting of the process: held while any of its threads needs it
        try:
            parallel = joblib.Parallel(jobs, batch_size=1, return_as="generator_unordered", **own)
        except ValueError:  # a backend that cannot: a few at a time
            chunk = 4 * joblib.effective_n_jobs(jobs)
            for start in range(0, len(todo), chunk):
                yield from joblib.Parallel(jobs, batch_size=1)(todo[start : start + chunk])
        else:
            with contextlib.closing(parallel(todo)) as results:
                yield from results


def _end_with(parent: int) -> None:
    """End this worker soon after its parent: loky's would wait for work for minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="nembp-parent", daemon=True).start()
