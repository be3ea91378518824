"""Search for a regime where noise pays, by successive halving.

Every candidate is compared with training without noise *in the same regime*, on the same seeds,
each at the best learning rate of a grid that both start from and that is extended while its best
lies at an end (`nembp.experiments.search_score`). A rung trains what is left with more seeds and
keeps the best; with Jamieson and Talwalkar (AISTATS 2016) the many are tried cheaply and the few
well. What survives is not yet a finding: it was chosen for its luck too. It is confirmed by a
protocol, on fresh seeds, test splits and data that was not searched on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nembp.errors import ArchitectureError, DataError, OutputError
from nembp.experiments.protocol import check_data_dirs
from nembp.experiments.replicate import replicate
from nembp.experiments.runner import in_parallel
from nembp.experiments.search_score import Scores, Trial
from nembp.experiments.search_space import Candidate, Space
from nembp.experiments.search_summary import kept, summarize_search
from nembp.files import write_atomically
from nembp.runs.config import RunConfig
from nembp.runs.folder import to_json
from nembp.threads import threads

__all__ = ["read_search", "run_search"]

ROWS, SUMMARY, HEADER = "rows.jsonl", "summary.json", "space.json"
Progress = Callable[[int, int, Mapping[str, Any]], Any]


def run_search(
    space: Space,
    out_dir: str | os.PathLike[str],
    *,
    budget: float = 10.0,
    jobs: int | None = None,
    resume: bool = False,
    data_dirs: Mapping[str, str] | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Search for at most ``budget`` core-minutes more, and return the folder with the rows.

    Parameters
    ----------
    space : Space
        What is searched.
    out_dir : path
        The folder ``space.name`` is made in there: rows.jsonl, space.json, summary.json.
    budget : float
        Core-minutes of training in this call; what is left is done with ``resume``.
    jobs : int, optional
        Trainings at a time, by joblib; None leaves it to its active backend.
    resume : bool
        Go on from the rows that are there.
    data_dirs : mapping of str to str, optional
        Where data sets lie.
    on_progress : callable, optional
        Told the trainings done, those of the rungs so far, and the row that came.

    Raises
    ------
    OutputError, DataError
        If the folder holds a search and ``resume`` is off, or cannot be written or read.
    ArchitectureError
        If its rows are of another space, the budget is none, or it is not said where its data
        set lies; the folder is then as it was.
    """
    if not budget > 0:
        raise ArchitectureError(f"budget must be above 0 core-minutes, got {budget}")
    dirs = {name: os.path.abspath(path) for name, path in (data_dirs or {}).items()}
    check_data_dirs(space.name, (space.base["dataset"],), dirs)
    folder = Path(out_dir) / space.name
    if (folder / ROWS).exists() and not resume:
        raise OutputError(
            f"{folder}: holds a search; continue it with --resume, or choose another --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rows = _rows(folder, space)
        header = {"hash": space.digest, **asdict(space)}
        write_atomically(folder / HEADER, (to_json(header, indent=2) + "\n").encode())
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    search = _Search(space, folder, rows, dirs, jobs, 60.0 * budget, on_progress)
    search.all()
    summary = summarize_search(space, search.rows)
    write_atomically(folder / SUMMARY, (to_json(summary, indent=2) + "\n").encode())
    return folder


def read_search(out_dir: str | os.PathLike[str], space: Space) -> list[dict[str, Any]]:
    """Return the rows of a search; DataError where there are none."""
    folder = Path(out_dir) / space.name
    rows = _rows(folder, space)
    if not rows:
        raise DataError(
            f"{folder}: no search lies there; run `nembp experiment search {space.name}`, or "
            "check --out"
        )
    return rows


def _rows(folder: Path, space: Space) -> list[dict[str, Any]]:
    """Read rows; a last line that was cut short is dropped from the file."""
    path = folder / ROWS
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    content = path.read_bytes()
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            space_hash = row["space"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: line {number} is damaged; remove it to go on") from error
        if space_hash != space.digest:
            raise ArchitectureError(
                f"{path}: line {number} is of space {space_hash}, but {space.name} is now "
                f"{space.digest}; choose another --out, or remove that folder"
            )
        rows.append(row)
    if not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
    return rows


class _Search:
    """A search in progress."""

    def __init__(
        self,
        space: Space,
        folder: Path,
        rows: list[dict[str, Any]],
        dirs: Mapping[str, str],
        jobs: int | None,
        seconds: float,
        listener: Progress | None,
    ) -> None:
        self.space, self.path, self.rows, self.dirs = space, folder / ROWS, rows, dirs
        self.jobs, self.left, self.listener = jobs, seconds, listener
        self.total = 0

    def all(self) -> None:
        """Climb the rungs as far as the budget goes."""
        candidates = self.space.drawn()
        for rung in self.space.rungs:
            while trials := self._wanted(candidates, rung.seeds):
                self.total = len(self.rows) + len(trials)
                if not self._run(trials, candidates):
                    return
            candidates = kept(self.space, self.rows, candidates, rung.seeds, rung.keep)

    def _wanted(self, candidates: Sequence[Candidate], seeds: int) -> list[Trial]:
        """Return the trials that this rung still lacks."""
        scores = Scores(self.space, self.rows)
        who = {item.regime.name: item.regime for item in candidates}
        who |= {item.name: item.regime for item in candidates}
        return [
            Trial(name, rate, seed)
            for name, regime in who.items()
            for rate in scores.rates(name, self.space.grid(regime), seeds)
            for seed in range(seeds)
            if not scores.complete(name, rate, seeds)
            and seed not in scores.table.get(name, {}).get(rate, {})
        ]

    def _run(self, trials: Sequence[Trial], candidates: Sequence[Candidate]) -> bool:
        """Run trials; return whether the budget sufficed."""
        import joblib

        noise = {item.name: (item.regime, item.noise) for item in candidates}
        noise |= {item.regime.name: (item.regime, {}) for item in candidates}
        calls = []
        for trial in trials:
            regime, options = noise[trial.who]
            config = self.space.config(regime, options or None, trial.rate, trial.seed, self.dirs)
            calls.append(joblib.delayed(_trained)(trial, config))
        results = in_parallel(calls, self.jobs)
        with open(self.path, "ab") as file, threads(1), closing(results):
            for row in results:
                line = {"space": self.space.digest, **row}
                file.write(to_json(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
                self.rows.append(json.loads(to_json(line)))
                self.left -= row["seconds"]
                if self.listener is not None:
                    self.listener(len(self.rows), self.total, row)
                if self.left <= 0:
                    return False
        return True


def _trained(trial: Trial, config: RunConfig) -> dict[str, Any]:
    began = time.process_time()
    found = replicate(config)
    done = found["status"] == "finished"
    nll = found["curves"].get("train/clean_nll", ())
    return {
        **asdict(trial),
        "nll": sum(nll) / len(nll) if done else None,
        "last_nll": nll[-1] if done else None,
        "accuracy": found["scores"]["forward/accuracy"] if done else None,
        "seconds": time.process_time() - began,
    }
