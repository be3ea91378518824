"""CUDA graphs: a sequence of kernels captured once and launched as one.

What is captured are the launches with their arguments, so a graph does the same work on the same
buffers: whatever changes from step to step lies in device memory. It is laid out for many steps at
once, an epoch's or those until the next report: a table with a row of numbers for each step
(learning rate, bias corrections, standard deviations of the noise) and the order of the samples.
Every step begins by taking its own row and its own samples, and counts on by itself; noise streams
count their draws likewise. Nothing is copied to the device or asked of it in between. Captured or
not, a step does the same calls on the same buffers, and gives the same numbers bit for bit.

Memory that captured calls allocate on their way comes from a pool of its own, which lives as long
as the graph, so that nobody else is given it meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from nembp.backend.standard import Array, Steps

# what CuPy and CUDA say to work that cannot be captured, such as a copy to the host
CAPTURE_ERRORS = (RuntimeError, NotImplementedError)
WARM_UP = 2  # calls before a function is captured: kernels are compiled, buffers allocated


def capture_graph(
    cupy: Any, work: Callable[[], object], allocator_of: Callable[[Any], Callable[[int], Any]]
) -> Callable[[], None]:
    """Capture what ``work`` queues, without doing it; return what queues all of it at once.

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
    return partial(_launch, graph, pool, stream, work)


def _launch(graph: Any, *kept: Any) -> None:
    """Queue the captured work on the current stream; what it works on is kept alive till then."""
    graph.launch()


class Captured:
    """A function that is captured at its third call with the same arguments, then launched.

    Where capturing fails all goes on call by call.

    Attributes
    ----------
    launches : int
        Calls that were launches of a graph.
    reason : str or None
        Why nothing is captured any more.
    """

    def __init__(self, backend: Any, function: Callable[..., None]) -> None:
        self._backend, self._function = backend, function
        self._calls: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, Callable[[], None]] = {}
        self.launches = 0
        self.reason: str | None = None

    def __call__(self, *args: Hashable) -> None:
        """Call the function, or launch what its call would queue."""
        if args not in self._graphs and self.reason is None and self._calls[args] >= WARM_UP:
            self._capture(args)
        if args in self._graphs:
            self._graphs[args]()
            self.launches += 1
        else:
            self._function(*args)
            self._calls[args] += 1

    def _capture(self, args: tuple[Hashable, ...]) -> None:
        try:
            self._graphs[args] = self._backend.capture_graph(lambda: self._function(*args))
        except CAPTURE_ERRORS as error:
            words = str(error).strip() or type(error).__name__
            self.reason = f"a step cannot be captured ({words.splitlines()[0]})"


class StepsOnDevice(Steps):
    """Steps that find their numbers and samples on the device, always in the same memory."""

    def __init__(self, backend: Any, samples: int, batch_size: int, width: int) -> None:
        super().__init__(backend, batch_size)
        self._kernels = backend.kernels("float32")
        steps = -(-samples // batch_size)
        self._numbers = backend.zeros((width,), "float64")
        self._rows = backend.zeros((steps, width), "float64")
        self._samples = backend.zeros((samples,), "int64")
        self._index = backend.zeros((batch_size,), "int64")
        self._step = backend.zeros((1,), "int64")

    def lay_out(self, order: np.ndarray[Any, Any], table: np.ndarray[Any, Any]) -> None:
        backend = self._backend
        self._samples[: len(order)] = backend.asarray(order, "int64")
        self._rows[: len(table)] = backend.asarray(table, "float64")
        self._step[...] = 0

    def take(self, rows: int) -> tuple[Array, Array]:
        index = self._index[:rows]
        self._kernels.block(
            "begin_step", self._step, self._rows, self._rows.shape[1], self._numbers,
            self._samples, self._batch_size, rows, index,
        )  # fmt: skip
        return self._numbers, index
