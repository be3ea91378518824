"""The folder of a run: claimed before any work, complete files only, never another run's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nembp.errors import DataError, NembpError, OutputError
from nembp.files import lock, remove_stale, write_atomically

CONFIG, METRICS, SUMMARY = "config.toml", "metrics.jsonl", "summary.json"
CHECKPOINT = "checkpoint.npz"
_BESIDE = ".nembp-new"  # in the folder of an older run: the one that is to take its place
_MOVING = ".nembp-moving"  # its name from when it is complete until all its files have moved


def to_json(value: Any, indent: int | None = None, encoding: str = "utf-8") -> str:
    """Write JSON without NaN or infinity, which JSON lacks: they become null.

    What the encoding lacks (of UTF-8: bytes of a path that are no text) is escaped.

    >>> to_json({"forward/nll": float("nan"), "epochs": 3})
    '{"forward/nll": null, "epochs": 3}'
    """
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    text = json.dumps(finite, ensure_ascii=False, indent=indent)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(finite, indent=indent)
    return text


class RunFolder:
    """A folder that is this run's alone: locked from before its first file until its end.

    A context: at its end the lock is given back, and folders that were made are removed again where
    nothing was written. ``out`` is new or empty, by default runs/<timestamp>-<default_name>; by
    ``force`` it may hold an older run: then ``replaces`` is true, the new one is built beside it,
    and the ``files`` of both, and no others, change places at the end. ``resume`` goes on with the
    run in ``out``, the one that was to take another's place if there is one.
    """

    def __init__(
        self, out: str | os.PathLike[str] | None, default_name: str, *, files: Sequence[str],
        force: bool = False, resume: bool = False,
    ) -> None:  # fmt: skip
        self.files, self.replaces = files, False
        self._advice = "" if resume else " Choose another --out"
        self._made = list[Path]()  # folders that did not exist before, innermost first
        self._lock: int | None = None
        try:
            with self._writing(out or Path("runs").resolve()):
                self.path = self._default(default_name) if out is None else Path(out)
                if self.path.is_file():
                    raise OutputError(f"{out}: is a file; expected a folder.{self._advice}")
                if resume and not self.path.exists():
                    raise DataError(
                        f"{out}: no such folder; expected that of a run. Check the path"
                    )
                self._claim()
                if (self.path / _MOVING).exists():
                    self._move()
                self.replaces = self._find_checkpoint() if resume else self._check_content(force)
                with tempfile.TemporaryFile(dir=self.path):
                    pass
        except BaseException:
            self.__exit__()
            raise

    @contextlib.contextmanager
    def _writing(self, path: str | os.PathLike[str]) -> Iterator[None]:
        """Turn what the system refuses into an OutputError that names the file or folder."""
        try:
            yield
        except NembpError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = getattr(error, "strerror", None) or error
            raise OutputError(
                f"{os.fspath(path)}: cannot be written ({reason}); expected a writable folder with "
                f"free space.{self._advice}"
            ) from error

    def _default(self, name: str) -> Path:
        stem = f"{time.strftime('%Y%m%d-%H%M%S')}-" + re.sub(r"[^\w.=-]+", "_", name)
        for number in range(1, 10_000):
            path = Path("runs", stem if number == 1 else f"{stem}-{number}")
            with contextlib.suppress(FileExistsError):  # of the same second
                self._make(path, exist_ok=False)
                return path
        raise FileExistsError(17, "too many runs of this second")

    def _make(self, path: Path, *, exist_ok: bool) -> None:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=exist_ok)
        self._made = missing + self._made

    def _claim(self) -> None:
        """Make the folder where it is missing, and lock it itself, which leaves no file behind.

        Again if another run removes it just then. Windows has no such locks.
        """
        for tries in range(1000):
            try:
                self._make(self.path, exist_ok=True)
                self._lock = None if os.name == "nt" else os.open(self.path, os.O_RDONLY)
            except (FileNotFoundError, FileExistsError):
                if tries == 999:
                    raise
                continue
            if self._lock is not None and lock(self._lock) is False:
                self._made.clear()  # the folder is the other run's, whoever made it
                raise OutputError(
                    f"{self.path}: another run is writing there; expected it to end first."
                    f"{self._advice}"
                )
            if self._is_there():
                return
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _is_there(self) -> bool:
        if self._lock is None:  # no locks here
            return self.path.exists()
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(self._lock), os.stat(self.path))
        return False

    def _check_content(self, force: bool) -> bool:
        """Remove what a killed run left unfinished, and return whether an older run is there."""
        path = self.path
        if (path / _BESIDE).exists():
            shutil.rmtree(path / _BESIDE)
        remove_stale(path)
        if not any(path.iterdir()):
            return False
        if not force:
            raise OutputError(
                f"{path}: not empty; expected a new or empty folder. Choose another --out, or "
                "replace the run in it with --force"
            )
        if not _holds_run(path):
            raise OutputError(
                f"{path}: not empty, and holds no run of nembp that --force could replace; choose "
                "another --out"
            )
        for name in self.files:
            if (path / name).is_dir():
                raise OutputError(f"{path / name}: is a folder; the run writes a file there")
        return True

    def _find_checkpoint(self) -> bool:
        """Return whether the run to go on with was to take another's place."""
        checkpoint = newest_checkpoint(self.path)
        if checkpoint is None:
            several = ", or --seeds N for several" if any(self.path.glob("seed*")) else ""
            raise DataError(
                f"{self.path}: holds no {CHECKPOINT} to go on from; expected the folder of a run "
                f"that version 0.2 or later began{several}"
            )
        remove_stale(checkpoint.parent)
        is_beside = checkpoint.parent.name == _BESIDE
        if not is_beside:  # what is there was begun, and came no further
            shutil.rmtree(self.path / _BESIDE, ignore_errors=True)
        return is_beside

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        for path in self._made:  # while they are locked: nobody else may write there
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        self._unlock()

    def file(self, name: str) -> Path:
        """Return where a file of the run is written now."""
        return (self.path / _BESIDE if self.replaces else self.path) / name

    def begin(self, config: str, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write the configuration and the metrics so far; no summary is left until the end."""
        with self._writing(self.path):
            self.file(SUMMARY).unlink(missing_ok=True)
            write_atomically(self.file(CONFIG), config.encode())
            lines = "".join(to_json(row) + "\n" for row in rows)
            write_atomically(self.file(METRICS), lines.encode())

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row to metrics.jsonl; it can be read at once."""
        if not self._is_there():
            raise OutputError(
                f"{self.path}: was removed or moved while the run was writing there; expected it "
                "to stay. What was learned is saved in a new folder of that name"
            )
        with self._writing(self.file(METRICS)), open(self.file(METRICS), "ab") as file:
            file.write(to_json(row).encode() + b"\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write or rewrite the summary."""
        write_atomically(self.file(SUMMARY), (to_json(summary, indent=2) + "\n").encode())

    def end(self, *, keep: bool = True) -> None:
        """Take the place of an older run, or leave it as it was."""
        beside = self.path / _BESIDE
        if self.replaces and not keep:
            shutil.rmtree(beside, ignore_errors=True)
        elif self.replaces:
            for name in self.files:
                if not (beside / name).exists():
                    (self.path / name).unlink(missing_ok=True)
            os.rename(beside, self.path / _MOVING)
            self._move()
            self.replaces = False

    def _move(self) -> None:
        """Move the files of a complete run to their place, those that are left to move.

        One at a time, so that there is a model at any moment; the summary comes last.
        """
        moving = self.path / _MOVING
        if (moving / SUMMARY).exists():
            (self.path / SUMMARY).unlink(missing_ok=True)
        for path in sorted(moving.iterdir(), key=lambda path: path.name == SUMMARY):
            os.replace(path, self.path / path.name)
        moving.rmdir()


def newest_checkpoint(path: Path) -> Path | None:
    """Return the checkpoint of a run folder, of the run that is to take another's place if any."""
    places = (path / _MOVING, path / _BESIDE, path)
    return next((p / CHECKPOINT for p in places if (p / CHECKPOINT).exists()), None)


def _holds_run(path: Path) -> bool:
    """Return whether a folder holds a run of nembp, or the runs of several seeds."""
    for config in (path / CONFIG, *path.glob(f"seed*/{CONFIG}")):
        with contextlib.suppress(OSError), open(config, "rb") as file:
            if b"nembp" in file.readline():
                return True
    return False
