"""Rows of a folder, and runs that are stopped."""

from __future__ import annotations

import json

from nembp.experiments.tasks import Task


def rows_of(folder):
    """Return the numbers of each replicate: all of its row but the time it took."""
    lines = (folder / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    table = {Task.of(row): {k: v for k, v in row.items() if k != "seconds"} for row in rows}
    assert len(table) == len(rows), "a replicate was run twice"
    return table


class Stop:
    """Interrupts after some rows."""

    def __init__(self, rows):
        self.rows = rows

    def __call__(self, done, total, row):
        if done == self.rows:
            raise KeyboardInterrupt
