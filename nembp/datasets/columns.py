"""Named columns of a table (.csv) of new samples, for a model that was trained on such a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.tables import check_names, listed, number_in, table_rows
from nembp.errors import DataError

__all__ = ["read_cells", "read_numbers"]


def read_numbers(path: Path, names: Sequence[str], width: int) -> NDArray[np.float64]:
    """Read columns of numbers by their names, whatever their order and whatever else is there.

    Parameters
    ----------
    path : Path
        A .csv with a header row, as `nembp.datasets.load` reads it.
    names : sequence of str
        The columns, in the order wanted; () where their names are not known, for a table of just
        ``width`` columns, taken as they come.
    width : int
        How many columns are wanted.

    Returns
    -------
    ndarray of float64, shape (n, width)

    Raises
    ------
    DataError
        If a column is missing, or a cell is no finite number.
    """
    header, rows = _read(path)
    if not names and len(header) != width:
        raise DataError(
            f"{path}: {len(header)} columns ({listed(header)}); the model does not know its "
            f"columns by name, and expects {width} of numbers and nothing else"
        )
    names = names or header
    places = _places(path, header, names)
    values = [
        [
            number_in(row[place], path, number, name)
            for place, name in zip(places, names, strict=True)
        ]
        for number, row in rows
    ]
    return np.array(values, dtype=np.float64).reshape(len(values), width)


def read_cells(path: Path) -> list[str]:
    """Read a table of one column as text, without its header.

    Raises
    ------
    DataError
        If the table has another number of columns.
    """
    header, rows = _read(path)
    if len(header) != 1:
        raise DataError(f"{path}: columns {listed(header)}; expected one column, of labels")
    return [row[0].strip() for _, row in rows]


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    with table_rows(path) as rows:
        header = [name.strip() for name in next(rows)[1]]
        check_names(header, path)
        whole = list(rows)
    for number, row in whole:
        if len(row) != len(header):
            raise DataError(
                f"{path}, row {number}: {len(row)} cells; expected {len(header)}, as in the header"
            )
    return header, whole


def _places(path: Path, header: Sequence[str], names: Sequence[str]) -> list[int]:
    absent = [name for name in names if name not in header]
    if absent:
        raise DataError(
            f"{path}: no column {absent[0]!r:.60}; the model takes {listed(tuple(names))}, and the "
            f"columns are {listed(tuple(header))}"
        )
    return [header.index(name) for name in names]
