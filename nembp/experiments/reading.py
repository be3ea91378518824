"""The rows of an experiment, read back with the protocol they are of."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nembp.errors import DataError
from nembp.experiments.grids import tuned, tuning
from nembp.experiments.protocol import Comparison, Protocol
from nembp.experiments.registry import get
from nembp.experiments.rows import check_header, read_header, read_rows
from nembp.experiments.tasks import Row, Setting, Task, reporting, untuned

__all__ = ["Experiment", "read_experiment"]


@dataclass(frozen=True)
class Experiment:
    """Rows on disk, and the protocol they are of.

    Attributes
    ----------
    folder : Path
        Where they lie.
    protocol : Protocol
        With as many reporting seeds as the run was asked for.
    rows : list of dict
        In any order.
    quick : bool
        Whether they are those of `Protocol.quick`.
    """

    folder: Path
    protocol: Protocol
    rows: list[dict[str, Any]]
    quick: bool

    @cached_property
    def tuned(self) -> dict[tuple[str, str], Setting]:
        """The tuned setting of each arm, by the metric that it was tuned by."""
        return tuned(self.protocol, self.rows)

    @property
    def left(self) -> int:
        """Replicates still to be run, as far as it can be told."""
        have = {Task.of(row) for row in self.rows}
        wanted = [*tuning(self.protocol, self.rows), *reporting(self.protocol, self.tuned)]
        return sum(task not in have for task in wanted)

    def setting(self, arm: str, item: Comparison) -> Setting:
        """Return what an arm is trained at in a comparison."""
        if item.rate == "same":
            return untuned(self.protocol, arm)
        return self.tuned[arm, self.protocol.tuned_by(item.metric)]

    def reported(self, arm: str, setting: Setting) -> dict[int, Row]:
        """Return the reporting rows of an arm at a setting, by seed."""
        return {
            seed: row
            for seed, row in self._reported.get((arm, setting), {}).items()
            if seed < self.protocol.seeds
        }

    @cached_property
    def _reported(self) -> dict[tuple[str, Setting], dict[int, Row]]:
        table: dict[tuple[str, Setting], dict[int, Row]] = {}
        for row in self.rows:
            task = Task.of(row)
            if task.phase == "report":
                table.setdefault((task.arm, task.setting), {})[task.seed] = row
        return table


def read_experiment(
    out_dir: str | os.PathLike[str],
    name: str,
    *,
    quick: bool = False,
    protocol: Protocol | None = None,
) -> Experiment:
    """Read the rows of an experiment.

    Parameters
    ----------
    out_dir, name : path, str
        As `run_experiment` had them.
    quick : bool
        Read those of ``--quick``.
    protocol : Protocol, optional
        By default the registered one of that name.

    Raises
    ------
    ArchitectureError
        If no experiment is called so, or the rows are of another version of its protocol.
    DataError
        If there are none, or they are damaged.
    """
    protocol = get(name) if protocol is None else protocol
    folder = Path(out_dir) / (f"{name}-quick" if quick else name)
    header = read_header(folder)
    protocol = protocol.quick() if quick else protocol
    check_header(header, protocol, folder)
    protocol = protocol.with_seeds(int(header.get("seeds", protocol.seeds)))
    rows, _ = read_rows(folder, protocol)
    if not rows:
        raise DataError(f"{folder}: no replicate has finished; run it with --resume")
    return Experiment(folder, protocol, rows, quick)
