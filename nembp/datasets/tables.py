"""Tables (.csv) with a header row and named target columns."""

from __future__ import annotations

import csv
import io
import math
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.datasets.files import only_file, reading
from nembp.errors import ArchitectureError, DataError

__all__ = ["check_names", "listed", "load_csv", "number_in", "table_rows"]


def load_csv(request: Request) -> Dataset:
    """Load a table; the loader behind ``load("csv", path)``.

    `path` is a file, a folder with just one .csv, or a folder with train.csv and test.csv. The
    first row names the columns; commas separate them, or semicolons or tabs where the header has
    no comma. Empty lines are skipped.

    One target column of text (or any, with task='classification') makes classes, in sorted order,
    numerically where all are numbers; columns of numbers make regression targets. Every feature
    must be a finite number.
    """
    path = request.path("csv")
    pair = (path / "train.csv", path / "test.csv")
    paths = pair if all(part.is_file() for part in pair) else (only_file(path, ".csv"),)
    columns = _Columns(request)
    tables = [_read(part, columns) for part in paths]
    ys: list[NDArray[Any]] = [_matrix(table.y, len(columns.targets)) for table in tables]
    classes: tuple[str, ...] = ()
    if columns.classification:
        classes, codes = _sorted_labels(columns.labels)
        ys = [codes[y[:, 0].astype(np.int64)] for y in ys]
    parts = [
        Raw(_matrix(table.x, len(columns.features)), y, str(part), f"{part}: {columns.named}")
        for part, table, y in zip(paths, tables, ys, strict=True)
    ]
    data = assemble(
        "csv",
        parts[0],
        parts[1] if len(parts) == 2 else None,
        request,
        source=str(path),
        classes=classes,
        target_names=() if classes else columns.targets,
    )
    return replace(data, feature_names=columns.feature_names)


class _Columns:
    """Which columns are features and targets, and what the targets turned out to be."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.header: list[str] = []
        self.features: list[int] = []
        self.targets: tuple[str, ...] = ()
        self.target_indices: list[int] = []
        self.labels: dict[str, int] = {}  # text to code, in order of appearance
        self.classification: bool | None = (  # None: the first row decides
            None if request.task == "auto" else request.task == "classification"
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(self.header[index] for index in self.features)

    @property
    def named(self) -> str:
        return "column " + ", ".join(map(repr, self.targets))

    def set_header(self, header: list[str], path: Path) -> None:
        """Take the header of the first file; another file must have the same."""
        header = [name.strip() for name in header]
        if self.header:
            if header != self.header:
                raise DataError(
                    f"{path}: columns {listed(header)}; expected those of the training table: "
                    f"{listed(self.header)}"
                )
            return
        _check_header(header, path)
        wanted = self.request.targets
        targets = (header[-1],) if wanted is None else wanted
        absent = [name for name in targets if name not in header]
        if absent:
            raise DataError(
                f"{path}: no column {absent[0]!r} to use as a target; the columns are "
                f"{listed(header)}"
            )
        features = [i for i, name in enumerate(header) if name not in targets]
        if not features or not targets or len(set(targets)) < len(targets):
            raise ArchitectureError(
                f"targets={list(targets)}: expected different columns of {path} that leave at "
                f"least one feature; the columns are {listed(header)}"
            )
        if len(targets) > 1:
            if self.classification:
                raise ArchitectureError(
                    f"task='classification' takes one target column, not {listed(targets)}"
                )
            self.classification = False
        self.header, self.features, self.targets = header, features, targets
        self.target_indices = [header.index(name) for name in targets]


@dataclass
class _Values:
    x: array[float] = field(default_factory=lambda: array("d"))
    y: array[float] = field(default_factory=lambda: array("d"))  # targets, or codes of labels


def _read(path: Path, columns: _Columns) -> _Values:
    values = _Values()
    with table_rows(path) as rows:
        columns.set_header(next(rows)[1], path)
        width = len(columns.header)
        for number, row in rows:
            if len(row) != width:
                raise DataError(
                    f"{path}, row {number}: {len(row)} cells; expected {width}, as in the header"
                )
            values.x.extend(_features(row, path, number, columns))
            for index, name in zip(columns.target_indices, columns.targets, strict=True):
                values.y.append(_target(row[index], path, number, name, columns))
    return values


@contextmanager
def table_rows(path: Path) -> Iterator[Iterator[tuple[int, list[str]]]]:
    """Rows that are not empty, each with the number of its (last) line; the header is the first."""
    with reading(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        try:
            line = text.readline(1 << 20)
            text.seek(0)
            delimiter = next((mark for mark in ",;\t" if mark in line), ",")
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            rows = ((reader.line_num, row) for row in reader if row)
            first = next(rows, None)
            if first is None:
                raise DataError(f"{path}: empty; expected a header row and a row per sample")
            yield _chain(first, rows)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: not UTF-8 text ({error.reason} at byte {error.start} of a block). "
                "Save it as CSV in UTF-8."
            ) from error
        except csv.Error as error:
            raise DataError(f"{path}, row {reader.line_num}: {error}. Repair the row.") from error
        finally:
            text.detach()


def _chain(
    first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest


def _check_header(header: list[str], path: Path) -> None:
    if len(header) < 2:
        raise DataError(
            f"{path}: one column ({header[0]!r:.60}); expected a header of at least one feature "
            "and one target, separated by commas"
        )
    check_names(header, path)


def check_names(header: list[str], path: Path) -> None:
    """Raise a DataError unless a header names every column, each differently."""
    if "" in header:
        raise DataError(
            f"{path}: column {header.index('') + 1} has no name in the header row. Name it; if it "
            "numbers the rows, leave it out (pandas: to_csv(index=False))."
        )
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path}: two columns are called {twice!r:.60}; expected different names")
    if all(_parsed(name) is not None for name in header):
        raise DataError(
            f"{path}: the first row holds numbers; expected the columns' names. Add a header row."
        )


def _features(row: list[str], path: Path, number: int, columns: _Columns) -> list[float]:
    """Parse a row's features, all at once where all is well, else one by one to name the cell."""
    cells = [row[index] for index in columns.features]
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        values = [math.nan]
    if math.isfinite(sum(values)) and "_" not in "".join(cells):
        return values
    names = [columns.header[index] for index in columns.features]
    return [number_in(cell, path, number, name) for cell, name in zip(cells, names, strict=True)]


def _parsed(cell: str) -> float | None:
    """Parse the number in a cell, None for text; Python's 1_000 is text."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def number_in(cell: str, path: Path, row: int, column: str) -> float:
    """Return the finite number in a cell, or raise a DataError that says where it is not."""
    value = _parsed(cell)
    if value is not None and math.isfinite(value):
        return value
    where = f"{path}, row {row}, column {column!r:.60}"
    if not cell.strip():
        raise DataError(f"{where}: empty cell; expected a number. Fill it in or drop the row.")
    if value is None:
        raise DataError(
            f"{where}: text {cell!r:.60}; expected a number. Encode the column as numbers, drop "
            "it, or name it as the target."
        )
    raise DataError(f"{where}: {cell.strip()}; expected a finite number. Replace it.")


def _target(cell: str, path: Path, row: int, name: str, columns: _Columns) -> float:
    """Parse a target: its number, or the code of its label."""
    if columns.classification is None:
        columns.classification = bool(cell.strip()) and _parsed(cell) is None
    elif columns.request.task == "auto" and columns.classification and _parsed(cell) is not None:
        raise DataError(
            f"{path}, row {row}, column {name!r:.60}: number {cell!r:.60} among text labels. "
            "If it is a label, say task='classification' (--task classification)."
        )
    if not columns.classification:
        return number_in(cell, path, row, name)
    label = cell.strip()
    if not label:
        raise DataError(
            f"{path}, row {row}, column {name!r:.60}: empty cell; expected a label. Fill it in or "
            "drop the row."
        )
    return float(columns.labels.setdefault(label, len(columns.labels)))


def _sorted_labels(labels: dict[str, int]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names in sorted order, and the sorted place of each code."""
    numbers = {label: _parsed(label) for label in labels}
    numeric = all(number is not None for number in numbers.values())
    names = sorted(labels, key=lambda name: (numbers[name] or 0.0, name) if numeric else (0, name))
    places = np.empty(len(names), dtype=np.int64)
    places[[labels[name] for name in names]] = np.arange(len(names))
    return tuple(names), places


def _matrix(values: array[float], width: int) -> NDArray[np.float64]:
    return (
        np.frombuffer(values, dtype=np.float64).reshape(-1, width)
        if values
        else np.empty((0, width))
    )


def listed(names: list[str] | tuple[str, ...]) -> str:
    """List names for people, the first ones of many."""
    shown = ", ".join(repr(name) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
