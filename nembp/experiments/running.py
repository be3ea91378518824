"""Runs a protocol: trains replicates side by side through joblib, and keeps their rows.

Replicates are independent, so any joblib backend will do: processes of this machine (loky, the
default), or one that the caller has made active, such as a Dask or Ray cluster::

    with joblib.parallel_config(backend="dask"):
        run_experiment(get("output-noise"), "runs/experiments", jobs=None)
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nembp.checkpoints import environment
from nembp.datasets import Dataset
from nembp.engine.metrics import evaluate
from nembp.engine.network import Network
from nembp.errors import ArchitectureError, DivergenceError
from nembp.experiments.protocol import Protocol, data_folders
from nembp.experiments.robustness import robustness
from nembp.experiments.rows import Journal, Progress, check_types
from nembp.experiments.tuning import Grids, Task
from nembp.runs.config import RunConfig
from nembp.runs.gan import gan_replicate, prepare_gan
from nembp.runs.gan_config import GanConfig
from nembp.runs.training import load_data, pixel_units, prepare, trainer_of
from nembp.threads import threads as blas_threads
from nembp.threads import usable_cores

CURVES = {"train/forward/nll": "train/nll", "train/backward/nll": "train/backward/nll"}
LOADED_BY = ("dataset", "data_dir", "targets", "task", "test_fraction", "split_seed", "limit",
             "scaling", "image_size")  # fmt: skip


# -- one replicate ---------------------------------------------------------------------------------
def replicate(config: RunConfig | GanConfig, perturbations: Sequence[str] = ()) -> dict[str, Any]:
    """Train as configured, and return what was measured.

    A network is scored on its validation split if it has one, else on the test split, there also
    under perturbations. ``status`` is "finished", or "diverged", which has no scores. ``curves`` by
    epoch: ``train/nll``, the mean over the epoch's iterations of the clean targets' nll before each
    step; after the epoch and without noise ``train/clean_nll`` and ``train/error``, of the training
    samples; and ``noise/...``; of adversarial networks ``course/...`` by checkpoint.
    """
    if isinstance(config, GanConfig):
        row: dict[str, Any] = gan_replicate(config)
        return row | {"curves": {f"course/{key}": v for key, v in row["curves"].items()}}
    began = time.perf_counter()
    with blas_threads(config.threads) as count:
        prepared = prepare(config, data=kept_data(config))
        train = prepared.reader(prepared.train)

        def clean(net: Network) -> dict[str, float]:
            if not prepared.data.is_classification:
                return {}
            found = evaluate(net, train, backward=False)
            error = 1.0 - found["forward/accuracy"]
            return {"train/clean_nll": found["forward/nll"], "train/error": error}

        trainer = trainer_of(prepared, evaluate=clean)
        status, scores = "finished", {}
        try:
            trainer.run()
        except DivergenceError:
            status = "diverged"
        else:
            split = prepared.data.test if prepared.validation is None else prepared.validation
            reader, units = prepared.reader(split), pixel_units(prepared.data)
            with np.errstate(all="ignore"):
                scores = evaluate(prepared.net, reader, prepared.centroids, units=units)
            if prepared.validation is None:
                scores |= robustness(prepared, perturbations, config.seed or 0)
    history = trainer.history.epochs
    keys = [key for key in (history[0] if history else ()) if key.startswith(("train/", "noise/"))]
    return {
        "status": status,
        "curves": {CURVES.get(key, key): [row[key] for row in history] for key in keys},
        "scores": scores, "seconds": time.perf_counter() - began, "threads": count,
    }  # fmt: skip


def kept_data(config: RunConfig) -> Dataset:
    """Return `load_data` of a configuration, from memory if this process read it lately.

    A file is the same while its name, number, size and times are: nobody can set the last of them.
    """
    relevant, stamps = {name: getattr(config, name) for name in LOADED_BY}, []
    if config.data_dir is not None:
        for path in sorted([Path(config.data_dir), *Path(config.data_dir).rglob("*")]):
            with suppress(OSError):  # `load_data` says what is wrong
                s = path.stat()
                stamps.append((str(path), s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns))
    return _loaded(RunConfig(**relevant), tuple(stamps))


@lru_cache(maxsize=8)
def _loaded(config: RunConfig, stamps: tuple[Any, ...]) -> Dataset:
    return load_data(config)


# -- a protocol ------------------------------------------------------------------------------------
def run_experiment(
    protocol: Protocol, out_dir: str | os.PathLike[str], *, jobs: int | None = None,
    threads: int | None = None, device: str = "cpu", resume: bool = False, quick: bool = False,
    data_dirs: Mapping[str, str] | None = None, on_progress: Progress | None = None,
) -> Path:  # fmt: skip
    """Run what is left of a protocol, and return the folder with its rows: ``out_dir/NAME``.

    Or ``NAME-quick`` for `Protocol.quick`. Without ``jobs`` the joblib backend that is active says
    how many replicates run at a time. The last bits depend on the BLAS ``threads`` of each, by
    default the cores divided by the jobs; a run that is resumed keeps its number. ``resume`` also
    adds seeds to a run that is complete. ``on_progress`` is called with the replicates done, their
    expected total, and the row that came. What cannot be run is found before the first replicate;
    KeyboardInterrupt keeps the finished ones, and says what to do next.
    """
    import joblib

    dirs = data_folders(protocol.name, protocol.datasets, data_dirs)
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value is not None and value < 1:
            raise ArchitectureError(f"{name} must be at least 1, got {value}")
    count = threads or max(1, usable_cores() // joblib.effective_n_jobs(jobs))
    protocol, journal = journal_of(protocol, out_dir, quick)
    # prepared before anything is written: shows whether the replicates can be run
    first = Task("report", protocol.arms[0].name, 0.1, 0).config(protocol, dirs, device, count)
    network = (
        prepare_gan(first).generator
        if isinstance(first, GanConfig)
        else prepare(first, data=kept_data(first)).net
    )
    with journal.writing(resume) as old:
        if old:
            count = old["threads"]
            # seeds that were asked for once are reported: none is dropped by what came of it
            protocol = protocol.with_seeds(max(protocol.seeds, old.get("seeds", 0)))

        def left(rows: list[dict[str, Any]]) -> tuple[list[tuple[Any, ...]], int]:
            tasks, total = Grids(protocol, rows).remaining()
            return [
                (task, task.config(protocol, dirs, device, count), protocol.perturbations)
                for task in tasks
                if task.phase == tasks[0].phase  # all of tuning comes first
            ], total

        header = {
            "name": protocol.name, "quick": quick, "threads": count,
            "environment": environment(network), "hash": protocol.digest,
            "seeds": protocol.seeds, "content": protocol.content(),
        }  # fmt: skip
        journal.fill(header, left, _row, jobs=jobs, threads=count, on_progress=on_progress)
    return journal.folder


def _row(task: Task, config: RunConfig | GanConfig, perturbations: Sequence[str]) -> dict[str, Any]:
    return task._asdict() | replicate(config, perturbations)


class Replicates(Journal):
    """Rows of a protocol."""

    kind, run = "protocol", "run"

    def identity(self, row: dict[str, Any]) -> Task:
        told = {key: value for key, value in row.items() if key not in ("seconds", "threads")}
        check_types(told, protocol=str, phase=str, arm=str, rate=float, seed=int, strength=float,
                    status=str, curves=dict, scores=dict)  # fmt: skip
        if row["phase"] not in ("tune", "report") or row["status"] not in ("finished", "diverged"):
            raise ValueError
        for values in (*row["curves"].values(), list(row["scores"].values())):
            if type(values) is not list or {*map(type, values)} - {int, float, type(None)}:
                raise TypeError
            np.array(values, np.float64)  # whole numbers may be too large for it
        return Task.of(row)


def journal_of(
    protocol: Protocol, out_dir: str | os.PathLike[str], quick: bool
) -> tuple[Protocol, Replicates]:
    """Return the protocol that is run, small if ``quick``, and where its rows lie."""
    folder = Path(out_dir) / f"{protocol.name}{'-quick' * quick}"
    protocol = protocol.quick() if quick else protocol
    return protocol, Replicates(folder, protocol.content())
