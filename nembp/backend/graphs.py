"""CUDA graphs: a sequence of kernels captured once and launched as one.

What is captured are the launches with their arguments, so a replay does the same work on the same
buffers: whatever changes from step to step has to lie in device memory (:mod:`nembp.engine.training`).
Memory that the captured calls allocate on their way comes from a pool of its own, which lives as
long as the graph, so that nobody else is given it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["CAPTURE_ERRORS", "Graph", "capture"]

# what CuPy and CUDA say to work that cannot be captured, such as a copy to the host
CAPTURE_ERRORS = (RuntimeError, NotImplementedError)


class Graph:
    """A captured sequence of calls, which keeps alive whatever they work on."""

    def __init__(self, graph: Any, *kept: Any) -> None:
        self._graph, self._kept = graph, kept

    def launch(self) -> None:
        """Queue the captured work on the current stream."""
        self._graph.launch()


def capture(
    cupy: Any, work: Callable[[], object], allocator_of: Callable[[Any], Callable[[int], Any]]
) -> Graph:
    """Capture what ``work`` queues; nothing of it is done yet.

    Everything must have run once before, so that kernels are compiled and loaded.
    """
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    with stream, cupy.cuda.using_allocator(allocator_of(pool)):
        stream.begin_capture(cupy.cuda.runtime.streamCaptureModeRelaxed)
        try:
            work()
        except BaseException:
            with suppress(*CAPTURE_ERRORS):
                stream.end_capture()  # or the stream would stay in capture
            raise
        graph = stream.end_capture()
    graph.upload()
    return Graph(graph, pool, stream, work)
