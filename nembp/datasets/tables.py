"""Tables of text (.csv, .tsv, ...): columns by name, of numbers, and targets that may be labels."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
class Table:
    """An open table: the names of its columns, and rows, each with the number of its (last) line.

    A first row with numbers is a sample, unless it has text where there are numbers below, or
    counts the columns from 0 or 1, as pandas does. `notes` say what of that is doubtful.
    """

    def __init__(self, path: Path, rows: Iterator[tuple[int, list[str]]], request: Request) -> None:
        self.path, self.rows, self.request, self.notes = path, rows, request, list[str]()
        self.parse = _comma_number if request.decimal == "," else number
        self.first = list(islice(rows, _FIRST))
        if not self.first:
            raise DataError(f"{path}: empty; expected a header row and a row per sample")
        if any("\0" in cell for _, row in self.first for cell in row):
            raise DataError(f"{path}: not text (NUL bytes). Save it as CSV in UTF-8.")
        self.header = [cell.strip() for cell in self.first[0][1]]
        if self._is_headed():
            del self.first[0]
        else:
            self.header = [str(k + 1) for k in range(len(self.header))]
        if "" in self.header:
            raise DataError(
                f"{path}: column {self.header.index('') + 1} has no name in the header row. Name "
                "it; if it numbers the rows, leave it out (pandas: to_csv(index=False))."
            )
        match_columns(self.header, (), str(path), others=None)  # all are different

    def _is_headed(self) -> bool:
        cells, width = self.header, len(self.header)
        numbers = [self.parse(cell) for cell in cells]
        found = [value for value in numbers if value is not None]
        given = self.request.header
        if given is not None or not found or set(self.request.targets or ()) & set(cells):
            return given is not False
        below = zip(*(row for _, row in self.first[1:] if len(row) == width), strict=True)
        named = any(
            value is None and cell.lower() not in MISSING and None not in map(self.parse, column)
            for cell, value, column in zip(cells, numbers, below, strict=False)
        )
        counted = len(found) > 1 and found in [[*range(s, s + len(found))] for s in (0, 1)]
        if not named and not counted:
            self.notes.append(
                f"{self.path}: the first row holds numbers, so it is a sample, and the columns are "
                f"called 1 to {width}; --header makes it their names."
            )
        elif counted or None not in numbers[:-1]:
            self.notes.append(
                f"{self.path}: the first row, {listed(cells, 4)}, is taken for the columns' names; "
                "--no-header makes it a sample."
            )
        return named or counted

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        for line, row in chain(self.first, self.rows):
            if len(row) != len(self.header):
                expected = f"expected {len(self.header)}, as in the header"
                raise DataError(f"{self.path}, row {line}: {len(row)} cells; {expected}")
            yield line, row

    def numbers(self, line: int, row: list[str], places: list[int], remedy: str) -> list[float]:
        """Return the finite numbers at some places of a row; a DataError names one without."""
        cells = [row[place] for place in places]
        if self.parse is number:  # all at once, where all is well
            with suppress(ValueError):
                values = [float(cell) for cell in cells]
                if math.isfinite(sum(values)) and "_" not in "".join(cells):
                    return values
        values = []
        for place, cell in zip(places, cells, strict=True):
            value, fault = self.parse(cell), f"text {cell!r:.60}; expected a number. {remedy}"
            if value is not None and math.isfinite(value):
                values.append(value)
                continue
            if not cell.strip():
                fault = "empty cell; expected a number. Fill it in or drop the row."
            elif value is not None:
                fault = f"{cell.strip()}; expected a finite number. Replace it."
            elif _DECIMAL_COMMA.fullmatch(cell.strip()) or number(cell) is not None:
                mark = "," if "," in cell else "."
                fault = (
                    f"text {cell!r:.60}; expected a number. If {mark!r} is the decimal mark, say "
                    f"decimal={mark!r} (--decimal {mark})."
                )
            raise self.refusal(line, place, fault)
        return values

    def refusal(self, line: int, place: int, fault: str) -> DataError:
        """Return the error of a cell."""
        return DataError(f"{self.path}, row {line}, column {self.header[place]!r:.60}: {fault}")


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
            yield Table(path, ((reader.line_num + bool(said), r) for r in reader if r), request)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: not UTF-8 ({error.reason}). Save it as CSV in UTF-8."
            ) from error
        except csv.Error as error:
            row = reader.line_num if reader else 1
            raise DataError(f"{path}, row {row}: {error}. Repair the row.") from error
        finally:
            text.detach()


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


# -- a data set ----------------------------------------------------------------------------------
def load_csv(request: Request) -> Dataset:
    """Load a table; the loader behind ``load("csv", path)``.

    `path` is a file, a folder with just one, or a folder with train.csv and test.csv; see
    `open_table` about delimiters and headers. One target column of text (or any, with
    task='classification') makes classes; columns of numbers make regression targets, or classes
    where they are one-hot. Every feature must be a finite number.
    """
    path, columns = request.path("csv"), _Columns(request)
    inside = sorted(path.iterdir()) if os.path.isdir(path) else []
    found = {each.stem.lower(): each for each in inside if each.suffix.lower() in SUFFIXES}
    is_pair = {"train", "test"} <= found.keys()
    files = [found["train"], found["test"]] if is_pair else [only_file(path, SUFFIXES)]
    parts = [columns.read(file) for file in files]
    return assemble(
        "csv", parts, request, source=str(path), target_names=columns.targets,
        feature_names=columns.features, notes=columns.notes
    )  # fmt: skip


class _Columns:
    """Which columns are features and targets, and what the targets turned out to be."""

    def __init__(self, request: Request) -> None:
        self.request, self.is_auto = request, request.task == "auto"
        self.features: tuple[str, ...] = ()
        self.targets: tuple[str, ...] = ()
        self.codes: dict[str, int] = {}  # of labels, in order of appearance
        self.notes: list[str] = []
        self.is_label: bool | None = None  # which the first row tells

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
            for line, row in table:
                x.extend(table.numbers(line, row, features, remedy))
                y.extend(self._targets(table, line, row, targets))
        where = f"{path}: column {', '.join(map(repr, self.targets))}"
        rows = np.asarray(x).reshape(-1, len(features))
        outputs = np.asarray(y).reshape(-1, len(targets))
        return Raw(rows, outputs, str(path), where, list(self.codes))

    def _choose(self, header: list[str], path: Path) -> None:
        if len(header) < 2:
            raise DataError(
                f"{path}: one column ({header[0]!r:.60}); expected at least one feature and one "
                "target, separated by commas, semicolons, tabs or bars (or by --delimiter)"
            )
        targets = (header[-1],) if self.request.targets is None else self.request.targets
        if absent := [name for name in targets if name not in header]:
            raise DataError(
                f"{path}: no column {absent[0]!r} to use as a target; the columns are "
                f"{listed(header)}"
            )
        self.features, self.targets = tuple(n for n in header if n not in targets), targets
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

    def _targets(
        self, table: Table, line: int, row: list[str], places: list[int]
    ) -> Sequence[float]:
        """Return the numbers in a row's targets, or the code of its label."""
        cell = row[places[0]]
        label, value = cell.strip(), table.parse(cell) if self.is_auto else None
        if self.is_label is None:
            is_text = self.is_auto and bool(label) and value is None
            self.is_label = len(places) == 1 and (is_text or self.request.task == "classification")
        if not self.is_label:
            remedy = "Say task='classification' (--task classification) if these are labels."
            return table.numbers(line, row, places, remedy)
        if not label:
            fault = "empty cell; expected a label. Fill it in or drop the row."
            raise table.refusal(line, places[0], fault)
        if value is not None and not math.isnan(value):
            fault = (
                f"number {cell!r:.60} among text labels. If it is a label, say "
                "task='classification' (--task classification)."
            )
            raise table.refusal(line, places[0], fault)
        return [self.codes.setdefault(label, len(self.codes))]


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
        places = match_columns(table.header, names or table.header, str(path), others=None)
        values, remedy = array("d"), "The model takes numbers there."
        for line, row in table:
            values.extend(table.numbers(line, row, places, remedy))
    return np.asarray(values).reshape(-1, width)


def read_cells(path: Path, options: Request = DEFAULTS, classes: Sequence[str] = ()) -> list[str]:
    """Read a table of one column as text, without its header, which is none if it is a class."""
    with open_table(path, options) as table:
        if len(table.header) != 1:
            raise DataError(
                f"{path}: columns {listed(table.header)}; expected one column, of labels"
            )
        cells = [row[0].strip() for _, row in table]
        is_label = options.header is None and table.header[0] in classes
        return [*table.header, *cells] if is_label else cells
