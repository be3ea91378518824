"""Where a measurement was made: machine, versions, BLAS, threads, variables that pin them."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from nembp.backend import Backend
from nembp.benchmarks.instructions import onednn_instructions
from nembp.threads import threads as nembp_threads
from nembp.version import __version__

__all__ = [
    "blas_libraries",
    "conditions",
    "describe",
    "pinning_variables",
    "threads_limited",
    "threads_now",
    "usable_cpus",
]

OF_BLAS = ("OPENBLAS_", "GOTO_", "MKL_", "BLIS_", "VECLIB_")
PREFIXES = (*OF_BLAS, "OMP_", "GOMP_", "KMP_", "ONEDNN_", "DNNL_", "ATEN_")
PACKAGES = ("nembp", "numpy", "torch", "scikit-learn", "cupy")
LEVELS = ("avx512f", "avx2", "avx", "asimd")  # vector instructions worth naming, best first


def describe(backend: Backend) -> dict[str, Any]:
    """Return machine, versions and the BLAS libraries loaded by now, for JSON."""
    return {
        "machine": {
            "device": backend.describe(),
            "processor": _processor(),
            "vector_instructions": _vector_instructions(),
            "cpus": os.cpu_count(),
            "usable_cpus": usable_cpus(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "blas": blas_libraries(),
        "torch": _torch_build(),
    }


def conditions() -> dict[str, Any]:
    """Return what only the start of a run can tell: date, load, variables that pin threads.

    Some peers set such variables themselves when they are imported.
    """
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": load,
        "environment": pinning_variables(),
    }


def usable_cpus() -> int:
    """Return the number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pinning_variables() -> dict[str, str]:
    """Return the environment variables that choose kernels or threads of a numerical library."""
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(PREFIXES)}


def blas_libraries() -> list[dict[str, Any]]:
    """Return every BLAS loaded now: name, version, core type, threading, threads.

    NumPy's own comes first, where its file tells which it is.
    """
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


def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    names = ("cupy-cuda12x", "cupy-cuda13x", "cupy") if name == "cupy" else (name,)
    for candidate in names:
        try:
            return metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    if name == "nembp":  # run from a checkout that is not installed
        return __version__
    return None


def _torch_build() -> dict[str, Any] | None:
    """PyTorch links a BLAS of its own; threadpoolctl does not see a static one."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    return {
        "blas": "MKL" if torch.backends.mkl.is_available() else "other",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": onednn_instructions(),
    }


def _cpuinfo(*keys: str) -> str | None:
    """Return the first line of /proc/cpuinfo with one of the keys; None elsewhere than Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() in keys:
                    return value.strip()
    except OSError:
        pass
    return None


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or "unknown"


def _vector_instructions() -> str | None:
    flags = (_cpuinfo("flags", "Features") or "").split()
    return next((level for level in LEVELS if level in flags), None)
