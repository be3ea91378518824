"""One adversarial training for each of several seeds, and what they have in common."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nembp.errors import DivergenceError
from nembp.runs.folder import SUMMARY, RunFolder
from nembp.runs.gan_config import GanConfig
from nembp.runs.gan_training import FILES, Listener, run_gan

__all__ = ["mean_and_deviation", "run_seeds"]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the standard deviation (n − 1) of numbers; NaN where they are undefined.

    >>> mean_and_deviation([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))


def run_seeds(
    config: GanConfig,
    seeds: int,
    out_dir: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    start: str | os.PathLike[str] | None = None,
    on_start: Listener | None = None,
    on_row: Listener | None = None,
    on_end: Listener | None = None,
    on_note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train with ``config.seed`` and the seeds after it, one after the other, and sum up.

    Parameters
    ----------
    config : GanConfig
        With the first seed.
    seeds : int
        How many.
    out_dir : path, optional
        A new or empty folder, which gets a run folder ``seed0`` and so on for each seed, and a
        ``summary.json``; by default runs/<timestamp>-gan-<dataset>-seeds<seeds>.
    force, start, on_start, on_row, on_note
        As in `run_gan`, for each of them; ``force`` replaces the runs of other seeds too.
    on_end : callable, optional
        Told the summary.

    Returns
    -------
    dict
        What ``summary.json`` holds: of each score the mean over the seeds that finished
        (``scores``), their standard deviation (``deviations``) and values (``values``); ``seeds``,
        ``diverged``: those that did not; ``runs``: their summaries.

    Raises
    ------
    DivergenceError
        At the end, if a seed diverged; the others are trained and summed up all the same.
    KeyboardInterrupt
        After the seeds that were finished are summed up.
    """
    first = config.seed or 0
    name = f"gan-{config.dataset}-seeds{seeds}"
    numbers = range(first, first + seeds)
    began, runs = time.perf_counter(), list[dict[str, Any]]()
    interruption = None
    cleared = not force

    def begin(plan: dict[str, Any]) -> None:
        nonlocal cleared
        if not cleared:  # not before the first run is sure to begin
            _clear(folder.path, numbers)
            cleared = True
        if on_start is not None:
            on_start(plan)

    with RunFolder.claim(out_dir, name, force=force, files=(SUMMARY,)) as folder:
        for seed in numbers:
            try:
                run_gan(
                    config.replace({"seed": seed}),
                    folder.path / f"seed{seed}",
                    force=force,
                    start=start,
                    on_start=begin,
                    on_row=on_row,
                    on_end=runs.append,
                    on_note=on_note if seed == first else None,
                )
            except DivergenceError:
                continue
            except KeyboardInterrupt as error:
                interruption = error
                break
    if interruption is not None and not runs:
        raise interruption
    summary = _sum_up(folder.path, runs) | {"wall_seconds": time.perf_counter() - began}
    folder.end(summary)
    if on_end is not None:
        on_end(summary)
    if interruption is not None:
        done = len(summary["seeds"])
        raise KeyboardInterrupt(
            f"interrupted after {done} of {seeds} seeds; {folder.path / SUMMARY} sums them up"
        ) from interruption
    if summary["diverged"]:
        raise DivergenceError(_losses(summary["diverged"], seeds, folder.path))
    return summary


def _losses(diverged: Sequence[int], seeds: int, path: Path) -> str:
    lost = ", ".join(map(str, diverged))
    return (
        f"training diverged with {len(diverged)} of {seeds} seeds ({lost}), which are left out of "
        f"the means. Lower the learning rate; {path} keeps the last good models"
    )


def _clear(path: Path, numbers: range) -> None:
    """Remove the files of the run, or runs, that were there, but for those of seeds to come."""
    older = [
        folder
        for folder in path.glob("seed*")
        if re.fullmatch("seed[0-9]+", folder.name) and int(folder.name[4:]) not in numbers
    ]
    for folder in (path, *older):
        for name in FILES:
            with contextlib.suppress(OSError):
                (folder / name).unlink()
    for folder in older:
        with contextlib.suppress(OSError):  # somebody else's files are in it
            folder.rmdir()


def _sum_up(path: Path, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    whole = [run for run in runs if run["status"] == "finished"]
    keys = list(whole[0]["scores"]) if whole else []
    values = {key: [run["scores"][key] for run in whole] for key in keys}
    moments = {key: mean_and_deviation(each) for key, each in values.items()}
    diverged = [run["seed"] for run in runs if run["status"] == "diverged"]
    shared = ("averaged", "iterations", "device", "dataset", "environment")
    return {
        "status": "finished" if len(whole) == len(runs) else runs[-1]["status"],
        "run": str(path.resolve()),
        "seeds": [run["seed"] for run in whole],
        "diverged": diverged,
        "scores": {key: mean for key, (mean, _) in moments.items()},
        "deviations": {key: deviation for key, (_, deviation) in moments.items()},
        "values": values,
        "seconds": sum(run["seconds"] for run in runs),
        **{key: runs[0][key] for key in shared},
        "config": {key: value for key, value in runs[0]["config"].items() if key != "seed"},
        "runs": list(runs),
    }
