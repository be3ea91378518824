"""Runs a protocol: replicates side by side through joblib, rows to disk as they finish.

Replicates are independent, so any joblib backend will do: processes of this machine (loky, the
default), or whatever the caller has made active, such as a Dask or Ray cluster::

    with joblib.parallel_config(backend="dask"):
        run_experiment(get("output-noise"), "runs/experiments", jobs=None)
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nembp.checkpoints import environment
from nembp.errors import ArchitectureError, NembpError
from nembp.experiments.grids import tuned, tuned_pairs, tuning
from nembp.experiments.kinds import KINDS
from nembp.experiments.protocol import Protocol, check_data_dirs
from nembp.experiments.rows import RowFile
from nembp.experiments.tasks import Setting, Task, reporting
from nembp.threads import threads as blas_threads
from nembp.threads import usable_cores

__all__ = ["in_parallel", "run_experiment"]

Progress = Callable[[int, int, Mapping[str, Any]], Any]


def run_experiment(
    protocol: Protocol,
    out_dir: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    resume: bool = False,
    quick: bool = False,
    data_dirs: Mapping[str, str] | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Run what is left of a protocol, and return the folder with its rows.

    Parameters
    ----------
    protocol : Protocol
        With the number of reporting seeds wanted.
    out_dir : path
        Its folder is made in there, by its name.
    jobs : int, optional
        Replicates at a time; None leaves it to the active joblib backend (1 without one).
    threads : int, optional
        BLAS threads of each replicate; by default the cores divided by ``jobs``. Rows that are
        there already were computed with some number, which stays: numbers repeat bit for bit on
        the same machine with the same threads.
    device : {"cpu", "gpu", "auto"}
        Of every replicate.
    resume : bool
        Continue a run that was ended, or add seeds to one. Replicates that have a row are not
        repeated.
    quick : bool
        Run `Protocol.quick` in place of it, in a folder of its own.
    data_dirs : mapping of str to str, optional
        Where data sets lie.
    on_progress : callable, optional
        Told the replicates done, those there are in all, and the row that came.

    Returns
    -------
    Path
        ``out_dir/NAME``, or ``NAME-quick``: rows.jsonl and protocol.json.

    Raises
    ------
    ArchitectureError, DataError, OutputError, DeviceError
        If it cannot be run so; found before the first replicate.
    KeyboardInterrupt
        With what to do next; finished replicates are kept.
    """
    import joblib

    if quick:
        protocol = protocol.quick()
    dirs = {name: os.path.abspath(path) for name, path in (data_dirs or {}).items()}
    check_data_dirs(protocol.name, protocol.datasets, dirs)
    if jobs is not None and jobs < 1:
        raise ArchitectureError(f"jobs must be at least 1, got {jobs}")
    if threads is not None and threads < 1:
        raise ArchitectureError(f"threads must be at least 1, got {threads}")
    share = threads or max(1, usable_cores() // joblib.effective_n_jobs(jobs))
    first = Task("report", protocol.arms[0].name, 0.1, 0)
    network = protocol.replicates.function("network")
    prepared = network(first.config(protocol, dirs, device, share))
    header = {
        "name": protocol.name,
        "quick": quick,
        "threads": share,
        "environment": environment(prepared),
    }
    folder = Path(out_dir) / (f"{protocol.name}-quick" if quick else protocol.name)
    file = RowFile(folder, protocol, header, resume=resume)
    try:
        _Run(file, dirs, device, jobs, on_progress).all()
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            f"interrupted after {len(file.rows)} replicates, which {file.path} keeps; continue "
            "with --resume"
        ) from error
    except BrokenExecutor as error:
        raise NembpError(
            f"a worker process ended unexpectedly, perhaps for lack of memory; {file.path} keeps "
            f"{len(file.rows)} replicates. Continue with --resume and fewer --jobs"
        ) from error
    finally:
        file.close()
    return folder


class _Run:
    """A run in progress."""

    def __init__(
        self,
        file: RowFile,
        dirs: Mapping[str, str],
        device: str,
        jobs: int | None,
        listener: Progress | None,
    ) -> None:
        self.protocol, self.file = file.protocol, file
        self.dirs, self.device, self.jobs, self.listener = dirs, device, jobs, listener

    def all(self) -> None:
        """Tune until no grid has its best at an end, then report."""
        unknown = {pair: Setting(-1.0 - n) for n, pair in enumerate(tuned_pairs(self.protocol))}
        most = len(reporting(self.protocol, unknown))
        tune: list[Task] = []
        while len(more := tuning(self.protocol, self.file.rows)) > len(tune):
            tune = more
            self.total = len(tune) + most
            self._run(tune)
        tasks = reporting(self.protocol, tuned(self.protocol, self.file.rows))
        self.total = len(tune) + len(tasks)
        self._run(tasks)

    def _run(self, tasks: Sequence[Task]) -> None:
        """Run those of some replicates that have no row."""
        done = {Task.of(row) for row in self.file.rows}
        left = [task for task in tasks if task not in done]
        # threads of one process share BLAS's setting: hold it while any of them needs it
        with blas_threads(self.file.threads), closing(self._rows(left)) as rows:
            for row in rows:
                self.file.append(row)
                if self.listener is not None:
                    self.listener(len(self.file.rows), self.total, row)

    def _rows(self, tasks: Sequence[Task]) -> Generator[dict[str, Any], None, None]:
        """Yield rows as they finish."""
        import joblib

        protocol, count = self.protocol, self.file.threads
        calls = [
            joblib.delayed(_row)(
                task,
                task.config(protocol, self.dirs, self.device, count),
                protocol.kind,
                protocol.perturbations,
            )
            for task in tasks
        ]
        yield from in_parallel(calls, self.jobs)


def _row(task: Task, config: Any, kind: str, perturbations: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = KINDS[kind].function("replicate")(config, perturbations)
    return asdict(task) | row


def in_parallel(calls: Sequence[Any], jobs: int | None) -> Generator[Any, None, None]:
    """Yield what joblib's delayed calls return, as they finish."""
    import joblib

    try:
        parallel = joblib.Parallel(
            n_jobs=jobs, batch_size=1, return_as="generator_unordered", **_own_workers()
        )
    except ValueError:  # a backend that cannot: a few at a time
        chunk = 4 * joblib.effective_n_jobs(jobs)
        for start in range(0, len(calls), chunk):
            yield from joblib.Parallel(n_jobs=jobs, batch_size=1)(calls[start : start + chunk])
        return
    with closing(parallel(calls)) as results:
        yield from results


def _own_workers() -> dict[str, Any]:
    """Return what makes loky's workers end with this process; other backends see to theirs."""
    from joblib.parallel import get_active_backend

    if type(get_active_backend()[0]).__name__ != "LokyBackend":
        return {}
    return {"initializer": _end_with, "initargs": (os.getpid(),)}


def _end_with(parent: int) -> None:
    """End this process soon after its parent: loky's would wait for work for minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="nembp-parent", daemon=True).start()
