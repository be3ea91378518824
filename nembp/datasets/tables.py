"""Tables of text (.csv, .tsv, ...): columns by name, of numbers, and targets that may be labels."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.arrays import only_file
from nembp.datasets.assemble import MISSING, Raw, assemble
from nembp.datasets.dataset import Dataset, Request, listed, match_columns, number
from nembp.errors import ArchitectureError, DataError
from nembp.files import reading

SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".data")
DEFAULTS = Request()
_TARGETS = {"label", "labels", "target", "targets", "class", "classes"}
_FIRST = 50  # rows that tell a delimiter
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.IGNORECASE)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?")


def is_table(path: Path) -> bool:
    """Whether a file is read as a table: by its suffix, or since it is a pipe."""
    return path.suffix.lower() in SUFFIXES or (path.exists() and not path.is_file())


# -- a file --------------------------------------------------------------------------------------
@dataclass
class Table:
    """An open table: its columns' names, and its rows, each with the number of its (last) line."""

    path: Path
    header: list[str]
    rows: Iterator[tuple[int, list[str]]]
    parse: Callable[[str], float | None]
    notes: list[str]

    def numbers(
        self, cells: list[str], line: int, columns: Sequence[str], remedy: str
    ) -> list[float]:
        """Return the finite numbers in cells of a row, or raise a DataError of one without."""
        if self.parse is number:  # all at once, where all is well
            with suppress(ValueError):
                values = [float(cell) for cell in cells]
                if math.isfinite(sum(values)) and "_" not in "".join(cells):
                    return values
        found = [self.parse(cell) for cell in cells]
        for value, cell, name in zip(found, cells, columns, strict=True):
            if value is not None and math.isfinite(value):
                continue
            fault = f"text {cell!r:.60}; expected a number. {remedy}"
            if not cell.strip():
                fault = "empty cell; expected a number. Fill it in or drop the row."
            elif value is not None:
                fault = f"{cell.strip()}; expected a finite number. Replace it."
            elif _DECIMAL_COMMA.fullmatch(cell.strip()) or number(cell) is not None:
                mark = "," if "," in cell else "."
                fault += f" If that is its mark, say decimal={mark!r} (--decimal {mark})."
            raise DataError(f"{self.path}, row {line}, column {name!r:.60}: {fault}")
        return [value for value in found if value is not None]


@contextmanager
def open_table(path: Path, request: Request) -> Iterator[Table]:
    """Open a table, finding out its delimiter and whether it has a header row.

    The delimiter is `request.delimiter`, what a first line ``sep=;`` says, or that of comma,
    semicolon, tab and bar, outside of quotes, which gives the first rows the same number of cells.
    Empty lines are skipped.
    """
    reader: Any = None
    with reading(path) as file:
        whole: Any = file if file.seekable() else io.BytesIO(file.read())
        text = io.TextIOWrapper(whole, encoding="utf-8-sig", newline="")
        try:
            lines = iter(lambda: text.readline(1 << 20), "")  # none longer than 1 MiB
            first = list(islice((line for line in lines if line.strip("\r\n")), _FIRST))
            said = re.fullmatch(r'"?sep=(.)"?', first[0].rstrip("\r\n")) if first else None
            mark = "\t" if request.delimiter == "tab" else request.delimiter
            mark = mark or (said[1] if said else _delimiter(first, str(path)))
            text.seek(0)
            if said:
                text.readline()
            reader = csv.reader(text, delimiter=mark, strict=True, skipinitialspace=mark == " ")
            yield _table(path, ((reader.line_num + bool(said), r) for r in reader if r), request)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: not UTF-8 text ({error.reason} at byte {error.start} of a block). "
                "Save it as CSV in UTF-8."
            ) from error
        except csv.Error as error:
            row = reader.line_num if reader else 1
            raise DataError(f"{path}, row {row}: {error}. Repair the row.") from error
        finally:
            text.detach()


def _table(path: Path, rows: Iterator[tuple[int, list[str]]], request: Request) -> Table:
    """Find the header of rows, check its names, and that all rows are as long."""
    first = list(islice(rows, _FIRST))
    if not first:
        raise DataError(f"{path}: empty; expected a header row and a row per sample")
    if any("\0" in cell for _, row in first for cell in row):
        raise DataError(f"{path}: not text (NUL bytes). Save it as CSV in UTF-8.")
    parse = _comma_number if request.decimal == "," else number
    header, notes = [cell.strip() for cell in first[0][1]], list[str]()
    if _has_header([row for _, row in first], request, parse, str(path), notes):
        first = first[1:]
    else:
        header = [str(k + 1) for k in range(len(header))]
    if "" in header:
        raise DataError(
            f"{path}: column {header.index('') + 1} has no name in the header row. Name it; if it "
            "numbers the rows, leave it out (pandas: to_csv(index=False))."
        )
    match_columns(header, (), str(path), others=None)  # all are different

    def checked() -> Iterator[tuple[int, list[str]]]:
        for line, row in chain(first, rows):
            if len(row) != len(header):
                raise DataError(
                    f"{path}, row {line}: {len(row)} cells; expected {len(header)}, as in the "
                    "header"
                )
            yield line, row

    return Table(path, header, checked(), parse, notes)


def _comma_number(cell: str) -> float | None:
    """Return the number in a cell with a decimal comma, and perhaps points between thousands."""
    cell = cell.strip()
    if "." in cell and not _THOUSANDS.fullmatch(cell):
        return None
    return number(cell.replace(".", "").replace(",", "."))


def _delimiter(lines: list[str], where: str) -> str:
    """Find the delimiter that cuts most of the first rows into equally many cells, and into most.

    Of several that cut all of them so, a comma that may be in numbers only is none.
    """
    found: dict[str, tuple[float, int]] = {}
    comma_is_decimal = False
    for mark in ",;\t|":
        with suppress(csv.Error):
            rows = [row for row in csv.reader(lines, delimiter=mark) if row]
            # a quoted cell may go on after the last of these lines
            whole = rows[:-1] if len(lines) == _FIRST and len(rows) > 2 else rows
            if rows and len(rows[0]) > 1:
                alike = sum(len(row) == len(rows[0]) for row in whole)
                found[mark] = alike / len(whole), len(rows[0])
                cells = [cell.strip() for row in whole[1:] for cell in row if "," in cell]
                if cells and found[mark] == max(found.values()):
                    comma_is_decimal |= all(map(_DECIMAL_COMMA.fullmatch, cells))
    top = max(found.values(), default=(0.0, 0))
    best = [mark for mark in found if found[mark] == top]
    if len(best) > 1 and top[0] == 1:
        best = [mark for mark in best if not (mark == "," and comma_is_decimal)]
        if len(best) > 1:
            raise DataError(
                f"{where}: cells are separated by one of {listed(best)}, but the rows do not tell "
                "by which; say it with delimiter (--delimiter)"
            )
    return best[0] if best else ","  # where no two rows agree, a damaged one will be named


def _has_header(
    rows: list[list[str]],
    request: Request,
    parse: Callable[[str], float | None],
    where: str,
    notes: list[str],
) -> bool:
    """Whether the first row names the columns; notes say what is doubtful.

    A first row with numbers is a sample, unless it has text where there are numbers below, or
    counts the columns from 0 or 1, as pandas does.
    """
    cells, width = [cell.strip() for cell in rows[0]], len(rows[0])
    numbers = [parse(cell) for cell in cells]
    found = [value for value in numbers if value is not None]
    if request.header is not None or not found or set(request.targets or ()) & set(cells):
        return request.header is not False
    columns = list(zip(*(row for row in rows[1:] if len(row) == width), strict=True))
    named = any(
        value is None and cell.lower() not in MISSING and all(parse(c) is not None for c in below)
        for cell, value, below in zip(cells, numbers, columns, strict=False)
    )
    counted = len(found) > 1 and found in [[*range(s, s + len(found))] for s in (0, 1)]
    if not named and not counted:
        notes.append(
            f"{where}: the first row holds numbers, so it is a sample, and the columns are called "
            f"1 to {width}; --header makes it their names."
        )
    elif counted or None not in numbers[:-1]:
        notes.append(
            f"{where}: the first row, {listed(cells, 4)}, is taken for the columns' names; "
            "--no-header makes it a sample."
        )
    return named or counted


# -- a data set ----------------------------------------------------------------------------------
def load_csv(request: Request) -> Dataset:
    """Load a table; the loader behind ``load("csv", path)``.

    `path` is a file, a folder with just one, or a folder with train.csv and test.csv. The first
    row names the columns, unless it is one of numbers. See `open_table` about delimiters.

    One target column of text (or any, with task='classification') makes classes, in sorted order,
    numerically where all are numbers; columns of numbers make regression targets, or classes where
    they are one-hot. Every feature must be a finite number.
    """
    path, columns = request.path("csv"), _Columns(request)
    inside = sorted(path.iterdir()) if os.path.isdir(path) else []
    found = {each.stem.lower(): each for each in inside if each.suffix.lower() in SUFFIXES}
    is_pair = {"train", "test"} <= found.keys()
    files = [found["train"], found["test"]] if is_pair else [only_file(path, SUFFIXES)]
    return assemble(
        "csv",
        [columns.read(file) for file in files],
        request,
        source=str(path),
        target_names=columns.targets,
        feature_names=columns.features,
        notes=columns.notes,
    )


@dataclass
class _Columns:
    """Which columns are features and targets, and what the targets turned out to be."""

    request: Request
    features: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    codes: dict[str, int] = field(default_factory=dict)  # of labels, in order of appearance
    notes: list[str] = field(default_factory=list)
    is_label: bool | None = None

    def read(self, path: Path) -> Raw:
        """Return features, and targets or codes of labels, row by row."""
        x, y = array("d"), array("d")
        remedy = "Encode the column as numbers, drop it, or name it as the target."
        with open_table(path, self.request) as table:
            if not self.targets:
                self._choose(table.header, path)
            self.notes += table.notes
            features = match_columns(table.header, self.features, str(path), self.targets)
            targets = match_columns(table.header, self.targets, str(path), self.features)
            for line, row in table.rows:
                cells = [row[place] for place in features]
                x.extend(table.numbers(cells, line, self.features, remedy))
                y.extend(self._targets([row[place] for place in targets], line, table))
        where = f"{path}: column {', '.join(map(repr, self.targets))}"
        matrices = _matrix(x, len(features)), _matrix(y, len(targets))
        return Raw(*matrices, str(path), where, list(self.codes))

    def _choose(self, header: list[str], path: Path) -> None:
        if len(header) < 2:
            raise DataError(
                f"{path}: one column ({header[0]!r:.60}); expected at least one feature and one "
                "target, separated by commas, semicolons, tabs or bars (or by --delimiter)"
            )
        targets = (header[-1],) if self.request.targets is None else self.request.targets
        absent = [name for name in targets if name not in header]
        if absent:
            raise DataError(
                f"{path}: no column {absent[0]!r} to use as a target; the columns are "
                f"{listed(header)}"
            )
        self.features = tuple(name for name in header if name not in targets)
        self.targets = targets
        if not self.features or not targets or len(set(targets)) < len(targets):
            raise ArchitectureError(
                f"targets={list(targets)}: expected different columns of {path} that leave at "
                f"least one feature; the columns are {listed(header)}"
            )
        usual = [name for name in header if name.lower() in _TARGETS]
        if self.request.targets is None and usual and header[-1] not in usual:
            self.notes.append(
                f"{path}: the last column, {header[-1]!r:.60}, is the target; --targets names "
                f"another, such as {usual[0]!r:.60}."
            )

    def _targets(self, cells: list[str], line: int, table: Table) -> list[float]:
        """Return the numbers in a row's targets, or the code of its label."""
        label, auto = cells[0].strip(), self.request.task == "auto"
        if self.is_label is None:  # the first row tells
            is_text = bool(label) and table.parse(label) is None
            wanted = self.request.task == "classification" or (auto and is_text)
            self.is_label = wanted and len(cells) == 1
        if not self.is_label:
            remedy = "Say task='classification' (--task classification) if these are labels."
            return table.numbers(cells, line, self.targets, remedy)
        value = table.parse(label) if auto else None
        fault = "" if label else "empty cell; expected a label. Fill it in or drop the row."
        if value is not None and not math.isnan(value):
            fault = (
                f"number {cells[0]!r:.60} among text labels. If it is a label, say "
                "task='classification' (--task classification)."
            )
        if fault:
            column = f"column {self.targets[0]!r:.60}"
            raise DataError(f"{table.path}, row {line}, {column}: {fault}")
        return [self.codes.setdefault(label, len(self.codes))]


def _matrix(values: array[float], width: int) -> NDArray[np.float64]:
    flat = np.frombuffer(values, np.float64) if values else np.empty(0)
    return flat.reshape(-1, width)


# -- new samples for a model ---------------------------------------------------------------------
def read_numbers(
    path: Path, names: Sequence[str], width: int, options: Request = DEFAULTS
) -> NDArray[np.float64]:
    """Read columns of finite numbers, (n, width), by their names, whatever else is there.

    Without `names`, the table must have just `width` columns, which are taken as they come.
    """
    with open_table(path, options) as table:
        if not names and len(table.header) != width:
            raise DataError(
                f"{path}: {len(table.header)} columns ({listed(table.header)}); the model does not "
                f"know its columns by name, and expects {width} of numbers and nothing else"
            )
        names = names or table.header
        places = match_columns(table.header, names, str(path), others=None)
        values = array("d")
        for line, row in table.rows:
            cells = [row[place] for place in places]
            values.extend(table.numbers(cells, line, names, "The model takes numbers there."))
    return _matrix(values, width)


def read_cells(path: Path, options: Request = DEFAULTS, classes: Sequence[str] = ()) -> list[str]:
    """Read a table of one column as text, without its header, which is none if it is a class."""
    with open_table(path, options) as table:
        if len(table.header) != 1:
            raise DataError(
                f"{path}: columns {listed(table.header)}; expected one column, of labels"
            )
        cells = [row[0].strip() for _, row in table.rows]
        is_label = options.header is None and table.header[0] in classes
        return [*table.header, *cells] if is_label else cells
