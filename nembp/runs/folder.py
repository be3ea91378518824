"""The folder of a run: claimed before any work, complete files only, never another run's."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

from nembp.errors import OutputError
from nembp.files import write_atomically

__all__ = ["CONFIG", "METRICS", "MODEL", "PICTURE", "SUMMARY", "RunFolder", "to_json"]

CONFIG, METRICS, MODEL = "config.toml", "metrics.jsonl", "model.npz"
SUMMARY, PICTURE = "summary.json", "backward.png"
FILES = (CONFIG, METRICS, MODEL, SUMMARY, PICTURE)


def to_json(value: Any, indent: int | None = None) -> str:
    """Write JSON without NaN or infinity, which JSON lacks: they become null.

    >>> to_json({"forward/nll": math.nan, "epochs": 3})
    '{"forward/nll": null, "epochs": 3}'
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


class RunFolder:
    """A folder that is ours and writable; see `claim`.

    As a context it is released at the end: the metrics closed, and the folders that `claim` made
    removed again where nothing was written there.

    Attributes
    ----------
    path : Path
        The folder.
    files : tuple of str
        Names that the run may write there.
    """

    def __init__(self, path: Path, made: list[Path], files: tuple[str, ...] = FILES) -> None:
        self.path, self.files = path, files
        self._made = made  # folders that did not exist before, outermost first
        self._metrics: TextIO | None = None

    @classmethod
    def claim(
        cls,
        out: str | os.PathLike[str] | None,
        default_name: str,
        *,
        force: bool = False,
        files: tuple[str, ...] = FILES,
    ) -> RunFolder:
        """Make sure of a folder before anything is computed.

        Parameters
        ----------
        out : path, optional
            The folder; by default a new one, runs/<timestamp>-<default_name>.
        default_name : str
            What the default folder is called.
        force : bool
            Let the run take the place of the one in ``out``, whose files stay until `begin`.
            Other files there are not touched.
        files : tuple of str
            Names that the run may write there.

        Raises
        ------
        OutputError
            If it is not empty, not a folder or cannot be written.
        """
        try:
            folder = (
                cls._default(default_name, files)
                if out is None
                else cls._given(Path(out), force, files)
            )
        except OutputError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            _refuse(out or Path("runs").resolve(), error)
        try:
            with tempfile.TemporaryFile(dir=folder.path):
                pass
        except OSError as error:
            folder.abandon()
            _refuse(folder.path, error)
        return folder

    @classmethod
    def _default(cls, name: str, files: tuple[str, ...]) -> RunFolder:
        name = re.sub(r"[^\w.=-]+", "_", name)
        stem, made = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}", _make(Path("runs"))
        for number in range(1, 10_000):
            path = Path("runs", stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir()
            except FileExistsError:  # of the same second
                continue
            return cls(path, [*made, path], files)
        raise FileExistsError(17, "too many runs of this second", str(path))

    @classmethod
    def _given(cls, path: Path, force: bool, files: tuple[str, ...]) -> RunFolder:
        if path.is_dir():
            names = {entry.name for entry in path.iterdir()}
            if names and not force:
                raise OutputError(
                    f"{path}: not empty; expected a new or empty folder. Choose another --out, or "
                    "replace the run in it with --force"
                )
            blocked = [name for name in files if (path / name).is_dir()]
            if blocked:
                raise OutputError(f"{path / blocked[0]}: is a folder; the run writes a file there")
        elif path.exists():
            raise OutputError(f"{path}: is a file; expected a folder. Choose another --out")
        return cls(path, _make(path), files)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
        self.abandon()

    def abandon(self) -> None:
        """Remove the folders that `claim` made, as far as they are empty."""
        for path in reversed(self._made):
            with contextlib.suppress(OSError):
                path.rmdir()

    def begin(self, config: str) -> None:
        """Write the configuration, take the place of an older run, and open the metrics."""
        try:
            for name in self.files:
                (self.path / name).unlink(missing_ok=True)
            write_atomically(self.path / CONFIG, config.encode())
            self._metrics = open(self.path / METRICS, "x", encoding="utf-8")  # noqa: SIM115
        except OutputError:
            raise
        except OSError as error:
            _refuse(self.path, error)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add an epoch's row to metrics.jsonl; it can be read at once."""
        assert self._metrics is not None, "begin comes first"
        try:
            self._metrics.write(to_json(row) + "\n")
            self._metrics.flush()
        except OSError as error:
            _refuse(self.path / METRICS, error)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and close the metrics."""
        self.close()
        write_atomically(self.path / SUMMARY, (to_json(summary, indent=2) + "\n").encode())

    def close(self) -> None:
        """Close the metrics, whatever became of the run; again does nothing."""
        if self._metrics is not None:
            self._metrics.close()


def _make(path: Path) -> list[Path]:
    """Make a folder and its missing parents; return those that were made, outermost first."""
    missing = []
    for folder in (path, *path.parents):
        if folder.exists():
            break
        missing.append(folder)
    path.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _refuse(path: str | os.PathLike[str], error: OSError | ValueError) -> NoReturn:
    reason = getattr(error, "strerror", None) or error
    raise OutputError(
        f"{os.fspath(path)}: cannot be written ({reason}); expected a writable folder with free "
        "space. Choose another --out"
    ) from error
