"""The stopwatch, and what must be known to trust it: agreement, threads, machine, other load."""

from __future__ import annotations

import gc
import os
import platform
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from nembp.backend import Backend
from nembp.errors import VerificationError
from nembp.threads import threads as nembp_threads
from nembp.threads import usable_cores
from nembp.version import __version__

Result = dict[str, Any]  # what JSON can write
Stopwatch = Callable[[Callable[[], object]], float]

# -- times -----------------------------------------------------------------------------------------
BLOCK = 0.01  # seconds of one timed block: many clock ticks, short beside a slow spell
LONGEST_BLOCK = 200  # steps
LEAST_ROUNDS, MOST_ROUNDS = 3, 25
FIRST_STEPS = 3  # before the first timing: lazy allocations, code paths, BLAS buffers
# Threads that have slept often wake on one core, and it can take a tenth of a second of steps, as
# in a training run, to part them.
WARM_UP = 0.1  # seconds of untimed steps of several threads
NAP, LONGEST_SPIN = 0.01, 0.5  # seconds


@dataclass(frozen=True)
class Contender:
    """A step to time, and what waits until its device has finished.

    ``stopwatch`` returns the seconds that a call keeps a device busy, by the device's own clock;
    without one the host's clock tells, once the device has finished.
    """

    step: Callable[[], object]
    synchronize: Callable[[], object] = lambda: None
    stopwatch: Stopwatch | None = None

    def run(self, steps: int) -> None:
        """Make ``steps`` steps and wait for them."""
        for _ in range(steps):
            self.step()
        self.synchronize()

    def seconds(self, steps: int, clock: Callable[[], float]) -> float:
        """Return how long ``steps`` steps take."""
        if self.stopwatch is not None:
            return self.stopwatch(lambda: [self.step() for _ in range(steps)])
        begin = clock()
        self.run(steps)
        return clock() - begin


def interleave(
    contenders: Mapping[str, Contender],
    *,
    repeats: int | None = None,
    budget: float = 10.0,
    threads: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Result]:
    """Time every contender in rounds, each round in a new random order.

    In a round a contender makes untimed steps, which bring its data back into the caches, then a
    block of steps of about 10 ms (at least one), whose mean is one measurement. There are
    ``repeats`` rounds, by default as many as fit into ``budget`` seconds, from 3 to 25. With
    several threads a turn begins when those of the last one sleep.

    Returns of each the seconds a step: ``median``, ``lower`` and ``upper`` quartile, ``least``;
    ``spread``, the interquartile range over the median; ``rounds``, and timed ``steps`` in each.
    """
    order, shuffle, start = list(contenders), random.Random(0), clock()
    steps, taken = {}, {name: list[float]() for name in contenders}
    for name, contender in contenders.items():
        contender.run(FIRST_STEPS)
        one = max(contender.seconds(1, clock), 1e-9)
        steps[name] = max(1, min(LONGEST_BLOCK, round(BLOCK / one)))
    with _no_collection():
        for finished in range(repeats or MOST_ROUNDS):
            if repeats is None and finished >= LEAST_ROUNDS and clock() - start > budget:
                break
            shuffle.shuffle(order)
            for name in order:
                if threads > 1:
                    settle()
                begin = clock()
                contenders[name].run(1)
                while threads > 1 and clock() - begin < WARM_UP:
                    contenders[name].run(1)
                seconds = contenders[name].seconds(steps[name], clock)
                taken[name].append(seconds / steps[name])
    return {name: _summary(taken[name], steps[name]) for name in contenders}


def _summary(seconds: list[float], steps: int) -> Result:
    lower, median, upper = (float(np.quantile(seconds, q)) for q in (0.25, 0.5, 0.75))
    return {
        "median": median,
        "lower": lower,
        "upper": upper,
        "least": min(seconds),
        "rounds": len(seconds),
        "steps": steps,
        "spread": (upper - lower) / median,
    }


def settle(
    clock: Callable[[], float] = time.process_time, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Wait until this process's other threads sleep, half a second at most.

    Worker threads of a library that has just run keep spinning for a while (OpenBLAS's for a tenth
    of a second), on the cores of the next contender's.
    """
    for _ in range(round(LONGEST_SPIN / NAP)):
        before = clock()
        sleep(NAP)
        if clock() - before < 0.1 * NAP:
            return


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class PartsClock:
    """Seconds of each part of a step, those of the parts within it not counted.

    >>> now = iter([0.0, 1.0, 3.0, 4.0, 6.0, 8.0])
    >>> watch = PartsClock("rest", clock=lambda: next(now))
    >>> inner = watch.timed("inner", lambda: None)
    >>> watch.timed("outer", inner)()
    >>> watch.lap()
    {'rest': 3.0, 'outer': 4.0, 'inner': 1.0}
    """

    def __init__(self, rest: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._since = clock, clock()
        self._seconds: dict[str, float] = {}
        self._within = [rest]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, timed as a part."""

        def call(*args: Any) -> Any:
            self._switch()
            self._within.append(part)
            try:
                return function(*args)
            finally:
                self._switch()
                self._within.pop()

        return call

    def _switch(self) -> None:
        now, part = self._clock(), self._within[-1]
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._since
        self._since = now

    def lap(self) -> dict[str, float]:
        """Return the seconds since the last lap, and start the next one."""
        self._switch()
        seconds, self._seconds = self._seconds, {}
        return seconds


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
OF_BLAS = ("OPENBLAS_", "GOTO_", "MKL_", "BLIS_", "VECLIB_")
PREFIXES = (*OF_BLAS, "OMP_", "GOMP_", "KMP_", "ONEDNN_", "DNNL_", "ATEN_")
INSTRUCTIONS = ("avx512f", "avx2", "avx", "asimd")  # worth naming, best first


def describe(backend: Backend) -> Result:
    """Return machine, versions and the BLAS libraries loaded by now."""
    flags = (_cpuinfo("flags", "Features") or "").split()
    torch = sys.modules.get("torch")
    return {
        "machine": {
            "device": backend.describe(),
            "processor": _cpuinfo("model name") or platform.processor() or "unknown",
            "vector_instructions": next((each for each in INSTRUCTIONS if each in flags), None),
            "cpus": os.cpu_count(),
            "usable_cpus": usable_cores(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            "nembp": _version("nembp") or __version__,  # of a checkout that is not installed
            **{name: _version(name) for name in ("numpy", "torch", "scikit-learn")},
            "cupy": _version("cupy-cuda12x", "cupy-cuda13x", "cupy"),
        },
        "blas": blas_libraries(),
        "torch": torch  # links a BLAS of its own, which threadpoolctl does not see
        and {
            "blas": "MKL" if torch.backends.mkl.is_available() else "other",
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "onednn": onednn_instructions(),
        },
    }


def _version(*names: str) -> str | None:
    """Return the version of the first of these distributions that is installed."""
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def _cpuinfo(*keys: str) -> str | None:
    """Return the first line of /proc/cpuinfo with one of the keys; None elsewhere than Linux."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() in keys:
                return value.strip()
    return None


def conditions() -> Result:
    """Return what only the start of a run can tell: date, load, variables that pin threads.

    Some peers set such variables themselves when they are imported.
    """
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    pins = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(PREFIXES)}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": now, "load_average": load, "environment": pins}


def blas_libraries() -> list[Result]:
    """Return every BLAS loaded now, NumPy's own first where its file tells which it is."""
    from threadpoolctl import threadpool_info

    loaded = sorted(threadpool_info(), key=lambda info: "numpy" not in info["filepath"])
    return [
        {
            "library": info["internal_api"],
            "version": info["version"],
            "core_type": info.get("architecture"),
            "threading": info.get("threading_layer"),
            "threads": info["num_threads"],
            "file": os.path.basename(info["filepath"]),
        }
        for info in loaded
        if info["user_api"] == "blas"
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


class Meter(NamedTuple):
    """Seconds so far: of all CPUs, of work on them, taken by the host, and of this process."""

    total: float
    busy: float
    stolen: float
    own: float

    @classmethod
    def read(cls) -> Meter | None:
        """Return the seconds until now; None where the system does not tell them."""
        try:
            with open("/proc/stat", encoding="ascii") as lines:
                ticks = np.array(next(lines).split()[1:9], np.float64) / os.sysconf("SC_CLK_TCK")
        except (OSError, StopIteration):
            return None
        total, idle, stolen = float(sum(ticks)), float(ticks[3] + ticks[4]), float(ticks[7])
        times = os.times()
        own = time.process_time() + times.children_user + times.children_system
        return cls(total, total - idle - stolen, stolen, own)


def shares(before: Meter | None, after: Meter | None) -> dict[str, float] | None:
    """Return the shares of the CPUs' time that other processes and the host took in between.

    >>> shares(Meter(10, 1, 0, 1), Meter(20, 7, 1, 4))
    {'processes': 0.3, 'host': 0.1}
    """
    if before is None or after is None or after.total <= before.total:
        return None
    total, busy, stolen, own = (b - a for a, b in zip(before, after, strict=True))
    return {
        "processes": round(max(0.0, (busy - own) / total), 4),
        "host": round(stolen / total, 4),
    }


def early_notes(threads: tuple[int, ...], load: float | None) -> list[str]:
    """Return what a reader must know before trusting the timings."""
    cpus = usable_cores()
    notes = [
        f"{count} threads share {cpus} usable CPUs: those timings mean little"
        for count in threads
        if count > cpus
    ]
    if load is not None and load > BUSY:
        notes.append(
            f"the machine was busy when the run began (load average {load:.1f}): other work "
            "distorts the timings, above all with several threads"
        )
    return notes


def late_notes(taken: dict[str, float] | None) -> list[str]:
    """Return a note if other work took a noteworthy share of the CPUs' time."""
    if taken is None or sum(taken.values()) < NOTEWORTHY:
        return []
    return [
        f"during the run other processes took {100 * taken['processes']:.0f}% of the CPUs' time "
        f"and the host of this virtual machine {100 * taken['host']:.0f}%: that distorts the "
        "timings, above all with several threads"
    ]


# -- vector instructions ---------------------------------------------------------------------------
LEVELS = ("AVX-512", "AVX2", "AVX", "SSE")  # best first
# OpenBLAS's core types on x86-64; those of other processors have no entry
CORE_TYPES = {
    **dict.fromkeys(("skylakex", "cooperlake", "sapphirerapids"), "AVX-512"),
    **dict.fromkeys(("haswell", "zen", "excavator"), "AVX2"),
    **dict.fromkeys(("sandybridge", "bulldozer", "piledriver", "steamroller"), "AVX"),
    **dict.fromkeys(("prescott", "core2", "penryn", "nehalem", "atom", "barcelona"), "SSE"),
}
ASK_ONEDNN = """
import torch
with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
    torch.nn.functional.conv2d(torch.ones(17, 8, 8, 8), torch.ones(8, 8, 4, 4))
"""


@cache
def onednn_instructions() -> str | None:
    """Return oneDNN's instruction set as its log has it; None if it tells none.

    In a process of its own: oneDNN, which has PyTorch's convolutions, names the set nowhere else,
    fixes it once, and writes its log to standard output.
    """
    command = [sys.executable, "-c", ASK_ONEDNN]
    try:
        child = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60.0)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search("info,cpu,isa:(.*)", child.stdout)
    return found[1].strip() if found else None


def level_of(text: str | None) -> str | None:
    """Return the instruction set that a core type, or a library's own words, stand for.

    >>> level_of("Haswell"), level_of("Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ")
    ('AVX2', 'AVX-512')
    """
    text = text or ""
    plain = text.upper().replace("AVX10", "AVX-512").replace("AVX512", "AVX-512")
    named = next((level for level in LEVELS if level in plain), None)
    return CORE_TYPES.get(text.lower(), named)


def pinning_note(blas: list[Result], torch: Result | None) -> list[str]:
    """Return a note if nembp's products and PyTorch's kernels use different instruction sets.

    ``blas`` and ``torch`` are as in :func:`describe`.
    """
    ours = level_of(blas[0]["core_type"]) if blas else None
    theirs = level_of((torch or {}).get("onednn") or (torch or {}).get("cpu_capability"))
    if ours is None or theirs is None or ours == theirs:
        return []
    return [
        f"nembp's products use {ours} ({blas[0]['library']}, core type {blas[0]['core_type']}), "
        f"PyTorch's convolutions {theirs}; both use the same under `env OPENBLAS_CORETYPE=Haswell "
        "ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 nembp bench ...`, or their best under "
        "`env -u OPENBLAS_CORETYPE -u ONEDNN_MAX_CPU_ISA -u ATEN_CPU_CAPABILITY nembp bench ...`. "
        "PyTorch's dense products are MKL's, which chooses for itself"
    ]
