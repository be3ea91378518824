"""The stopwatch, and what must be known to trust it: agreement, threads, machine, other load."""

from __future__ import annotations

import gc
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib import metadata
from time import perf_counter
from typing import Any

import numpy as np

from nembp.backend import Backend
from nembp.errors import VerificationError
from nembp.threads import blas_info, usable_cores
from nembp.threads import threads as nembp_threads
from nembp.version import __version__

Result = dict[str, Any]  # what JSON can write
Seconds = np.ndarray[Any, Any]
Work = Callable[[], object]
Stopwatch = Callable[[Work], float]  # the seconds that work takes its device

# -- times -----------------------------------------------------------------------------------------
BLOCK = 0.01  # seconds of one timed block: many clock ticks, short beside a slow spell
LONGEST_BLOCK = 200  # steps
LEAST_ROUNDS, MOST_ROUNDS = 3, 25
FIRST_STEPS = 3  # before the first timing: lazy allocations, code paths, BLAS buffers
# Threads that have slept often wake on one core, and it can take a tenth of a second of steps, as
# in a training run, to part them.
WARM_UP = 0.1  # seconds of untimed steps of several threads
NAP, LONGEST_SPIN = 0.01, 0.5  # seconds


def interleave(
    steps: Mapping[str, Work], seconds: Stopwatch, *,
    repeats: int | None = None, budget: float = 10.0, threads: int = 1,
) -> dict[str, Result]:  # fmt: skip
    """Time every contender's step by a stopwatch in rounds, each in a new random order.

    In a round a contender makes untimed steps, which bring its data back into the caches, then a
    block of steps of about 10 ms, whose mean is one measurement. There are ``repeats`` rounds, or
    as many as fit into ``budget`` seconds. With several threads a turn begins when those of the
    last one sleep. Returns the seconds a step; their ``spread`` is the interquartile range over the
    median.
    """
    order, shuffle, start = list(steps), random.Random(0), perf_counter()
    blocks, taken = {}, {name: list[float]() for name in steps}
    for name, step in steps.items():
        _repeat(step, FIRST_STEPS)
        blocks[name] = max(1, min(LONGEST_BLOCK, round(BLOCK / max(seconds(step), 1e-9))))
    gc.collect()
    gc.disable()
    try:
        for finished in range(repeats or MOST_ROUNDS):
            if repeats is None and finished >= LEAST_ROUNDS and perf_counter() - start > budget:
                break
            shuffle.shuffle(order)
            for name in order:
                step, block = steps[name], blocks[name]
                if threads > 1:
                    settle()
                begin = perf_counter()
                step()
                while threads > 1 and perf_counter() - begin < WARM_UP:
                    step()
                taken[name].append(seconds(partial(_repeat, step, block)) / block)
    finally:
        gc.enable()
    found = {}
    for name, each in taken.items():
        lower, median, upper = map(float, np.quantile(each, (0.25, 0.5, 0.75)))
        found[name] = {
            "median": median, "lower": lower, "upper": upper, "least": min(each),
            "rounds": len(each), "steps": blocks[name], "spread": (upper - lower) / median,
        }  # fmt: skip
    return found


def _repeat(step: Work, times: int) -> None:
    for _ in range(times):
        step()


def settle() -> None:
    """Wait until this process's other threads sleep, half a second at most.

    Worker threads of a library that has just run keep spinning for a while (OpenBLAS's for a tenth
    of a second), on the cores of the next contender's.
    """
    for _ in range(round(LONGEST_SPIN / NAP)):
        before = time.process_time()
        time.sleep(NAP)
        if time.process_time() - before < 0.1 * NAP:
            return


# -- agreement -------------------------------------------------------------------------------------
# relative to the largest entry: far above rounding, over sums of up to a million terms and units
# that rounding puts on the other side of a ReLU's kink, and far below another computation's results
TOLERANCES = {"float32": 5e-3, "float64": 1e-7, "tf32": 5e-2}


def check_agreement(
    what: str, ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], precision: str = "float32"
) -> float:
    """Return max |ours − theirs| / max |ours|; VerificationError if rounding does not explain it.

    >>> check_agreement("y", np.array([4.0, 2.0]), np.array([4.0, 2.0]))
    0.0
    """
    scale = float(np.max(np.abs(ours)))
    off = float(np.max(np.abs(ours - theirs))) / scale if scale > 0 else float("inf")
    tolerance = TOLERANCES["tf32" if precision == "tf32" else str(ours.dtype)]
    if not off <= tolerance:
        raise VerificationError(
            f"nembp and PyTorch disagree on {what}: off by {off:.1e} of its largest entry, "
            f"expected at most {tolerance:.0e}; a comparison of their times would mean nothing. "
            "Please report this with the versions of both"
        )
    return off


# -- machine, versions, threads --------------------------------------------------------------------
PINS = ("OPENBLAS_", "GOTO_", "MKL_", "BLIS_", "VECLIB_", "OMP_", "GOMP_", "KMP_", "ONEDNN_",
        "DNNL_", "ATEN_")  # fmt: skip
INSTRUCTIONS = ("avx512f", "avx2", "avx", "asimd")  # worth naming, best first


def describe(backend: Backend) -> Result:
    """Return machine, versions and the BLAS libraries loaded by now."""
    cpu, torch = {}, sys.modules.get("torch")
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        cpu = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    flags = cpu.get("flags", cpu.get("Features", "")).split()
    installed = {str(each.name).lower(): each.version for each in metadata.distributions()}
    return {
        "machine": {
            "device": backend.describe(),
            "processor": cpu.get("model name") or platform.processor() or "unknown",
            "vector_instructions": next((each for each in INSTRUCTIONS if each in flags), None),
            "cpus": os.cpu_count(),
            "usable_cpus": usable_cores(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            "nembp": __version__,
            **{name: installed.get(name) for name in ("numpy", "torch", "scikit-learn")},
            "cupy": next((v for name, v in installed.items() if name.startswith("cupy")), None),
        },
        "blas": blas_libraries(),
        "torch": torch  # links a BLAS of its own, which threadpoolctl does not see
        and {
            "blas": "MKL" if torch.backends.mkl.is_available() else "other",
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        },
    }


def blas_libraries() -> list[Result]:
    """Return every BLAS loaded now, NumPy's own first."""
    names = {"library": "internal_api", "version": "version", "core_type": "architecture",
             "threading": "threading_layer", "threads": "num_threads"}  # fmt: skip
    return [
        {name: info.get(key) for name, key in names.items()}
        | {"file": os.path.basename(info["filepath"])}
        for info in blas_info()
    ]


@contextmanager
def threads_limited(threads: int) -> Iterator[None]:
    """Give every loaded BLAS and OpenMP, and PyTorch if it is loaded, this many threads."""
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    with nembp_threads(threads), threadpool_limits(threads):
        if torch:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)


def threads_now() -> dict[str, int | None]:
    """Return the threads in force, asked of the libraries: the most of any BLAS, and PyTorch's."""
    torch = sys.modules.get("torch")
    return {
        "blas": max((library["threads"] for library in blas_libraries()), default=None),
        "torch": torch.get_num_threads() if torch else None,
    }


# -- other load ------------------------------------------------------------------------------------
BUSY = 0.5  # load average of a machine that has other things to do
NOTEWORTHY = 0.03  # share of the CPUs' time


def meter() -> Seconds | None:
    """Return the seconds so far: of all CPUs, of work on them, taken by the host, and our own."""
    try:
        with open("/proc/stat", encoding="ascii") as lines:
            ticks = np.array(next(lines).split()[1:9], np.float64) / os.sysconf("SC_CLK_TCK")
    except (OSError, StopIteration):
        return None
    total, idle, stolen = ticks.sum(), ticks[3] + ticks[4], ticks[7]
    return np.array([total, total - idle - stolen, stolen, sum(os.times()[:4])])


def shares(before: Seconds | None, after: Seconds | None) -> dict[str, float] | None:
    """Return the shares of the CPUs' time that other processes and the host took in between.

    >>> shares(np.array([10, 1, 0, 1]), np.array([20, 7, 1, 4]))
    {'processes': 0.3, 'host': 0.1}
    """
    if before is None or after is None or after[0] <= before[0]:
        return None
    total, busy, stolen, own = map(float, after - before)
    others = max(0.0, (busy - own) / total)
    return {"processes": round(others, 4), "host": round(stolen / total, 4)}


def notes(
    threads: tuple[int, ...], load: float | None, taken: dict[str, float] | None = None
) -> list[str]:
    """Return what a reader must know before trusting the timings."""
    cpus, distorts = usable_cores(), "distorts the timings, above all with several threads"
    found = [
        f"{count} threads share {cpus} usable CPUs: those timings mean little"
        for count in threads
        if count > cpus
    ]
    if load is not None and load > BUSY:
        found.append(
            f"the machine was busy when the run began (load average {load:.1f}): that {distorts}"
        )
    if taken is not None and sum(taken.values()) >= NOTEWORTHY:
        found.append(
            f"during the run other processes took {100 * taken['processes']:.0f}% of the CPUs' "
            f"time and the host of this virtual machine {100 * taken['host']:.0f}%: that {distorts}"
        )
    return found
