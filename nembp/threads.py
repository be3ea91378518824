"""Threads of the CPU: BLAS's for products, ours for the optimizer's sweeps over long vectors.

NumPy works through a vector on one thread, and an optimizer's update is bound by memory, so it
gains from a second one: chunks go to a pool that releases the interpreter lock inside NumPy.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from nembp.errors import ArchitectureError

T = TypeVar("T")
MOST = 256  # threads of the pool
_STATE: dict[str, Any] = {"count": None}


def blas_threads() -> int:
    """Return the threads that BLAS uses now; 1 if no BLAS that can be asked is loaded."""
    return max((int(library.get_num_threads()) for library in _blas_libraries()), default=1)


def thread_count() -> int:
    """Return the threads for long vectors: those of :func:`threads`, else as many as BLAS uses."""
    count = _STATE["count"]
    return blas_threads() if count is None else int(count)


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Use ``count`` threads in BLAS and for long vectors; None leaves both as they are.

    >>> with threads(1) as count:
    ...     count, thread_count()
    (1, 1)
    """
    if count is None:
        yield thread_count()
        return
    if count < 1:
        raise ArchitectureError(f"threads must be at least 1, got {count}")
    import threadpoolctl

    before = _STATE["count"]
    with threadpoolctl.threadpool_limits(limits=count, user_api="blas"):
        _STATE["count"] = count
        try:
            yield count
        finally:
            _STATE["count"] = before


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS to one thread, for work that :func:`run_parallel` shares among threads itself."""
    # where two Python threads are at this at once, threadpoolctl obeys the one that came first
    before = [(library, library.get_num_threads()) for library in _blas_libraries()]
    for library, _ in before:
        library.set_num_threads(1)
    try:
        yield
    finally:
        for library, count in before:
            library.set_num_threads(count)


@cache
def _blas_libraries() -> list[Any]:
    """Return the BLAS libraries that are loaded; looking for them takes milliseconds."""
    import threadpoolctl

    controllers = threadpoolctl.ThreadpoolController().lib_controllers
    return [library for library in controllers if library.user_api == "blas"]


def blas_info() -> list[dict[str, Any]]:
    """Return what threadpoolctl says of every BLAS loaded now, of NumPy's own first."""
    import threadpoolctl

    found = [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"]
    return sorted(found, key=lambda each: "numpy" not in each["filepath"])  # SciPy has its own


def run_parallel(function: Callable[[T], object], items: Sequence[T]) -> None:
    """Call ``function`` on every item, the first on this thread and the others on a pool."""
    # a thread of a pool has its own context, and with it its own np.errstate
    waiting = [_pool().submit(contextvars.copy_context().run, function, i) for i in items[1:]]
    for item in items[:1]:
        function(item)
    for future in waiting:
        future.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST, thread_name_prefix="nembp")  # starts them as they are needed


if hasattr(os, "register_at_fork"):  # a child has none of the threads, and would wait for ever
    os.register_at_fork(after_in_child=_pool.cache_clear)
