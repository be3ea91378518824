"""The device of `fake_cupy`: streams, events, graphs and memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any


class OutOfMemoryError(MemoryError):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class State:
    """The device: its streams, and what is under way."""

    def __init__(self) -> None:
        self.memory_limit = 1 << 40
        self.deferred = False
        self.copies_first = False  # which of two streams that may both go on does
        self.streams: list[Stream] = []
        self.default = Stream(owner=self)
        self._threads = threading.local()
        self.pool = MemoryPool()
        self.allocate = self.pool.malloc
        self.launches: list[str] = []
        self.uploads = 0  # copies from the host
        self.waits = 0  # of the host for the device

    @property
    def current(self) -> Stream:
        """The stream of the thread that asks: one may gather batches while another captures."""
        found: Stream = getattr(self._threads, "stream", self.default)
        return found

    @current.setter
    def current(self, stream: Stream) -> None:
        self._threads.stream = stream

    def sync_allowed(self, what: str) -> None:
        if self.current.captured is not None:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what}")


_devices: list[State] = []  # the last is the one in use


def device() -> State:
    """Return the device in use."""
    return _devices[-1]


def new_device() -> State:
    """Return a device that has done nothing yet, and is the one in use from now on."""
    _devices[:] = [State()]
    return device()


class Stream:
    """A queue of calls."""

    def __init__(self, non_blocking: bool = False, owner: State | None = None) -> None:
        streams = (owner or device()).streams
        self.ptr = len(streams)
        self.queue: deque[Any] = deque()
        self.captured: list[Any] | None = None
        streams.append(self)

    def __enter__(self) -> Stream:
        self._before, device().current = device().current, self
        return self

    def __exit__(self, *error: object) -> None:
        device().current = self._before

    def put(self, call: Callable[[], None], ready: Callable[[], bool] | None = None) -> None:
        if self.captured is not None:
            assert ready is None, "events between streams are no part of these captures"
            self.captured.append(call)
        elif device().deferred:
            self.queue.append((call, ready))
        else:
            assert ready is None or ready()
            call()

    def synchronize(self) -> None:
        device().sync_allowed("a stream is waited for")
        device().waits += 1
        run_until(lambda: not self.queue)

    def wait_event(self, event: Event) -> None:
        version = event.recorded
        self.put(lambda: None, lambda: event.done >= version)

    def begin_capture(self, mode: int | None = None) -> None:
        assert self is not device().default, "the default stream cannot be captured"
        self.captured = []

    def end_capture(self) -> Graph:
        calls, self.captured = self.captured, None
        assert calls is not None
        return Graph(calls)

    def is_capturing(self) -> bool:
        return self.captured is not None


def run_until(done: Callable[[], bool]) -> None:
    """Do what is queued until a condition holds."""
    while not done():
        order = device().streams[::-1] if device().copies_first else device().streams
        for stream in order:
            if stream.queue and (stream.queue[0][1] is None or stream.queue[0][1]()):
                stream.queue.popleft()[0]()
                break
        else:
            raise AssertionError("streams wait for each other")


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.recorded = self.done = 0
        self.time = 0.0

    def record(self, stream: Stream | None = None) -> None:
        self.recorded += 1
        version = self.recorded

        def reached() -> None:
            self.done, self.time = max(self.done, version), time.perf_counter()

        (stream or device().current).put(reached)

    def synchronize(self) -> None:
        device().sync_allowed("an event is waited for")
        device().waits += 1
        version = self.recorded
        run_until(lambda: self.done >= version)


def get_elapsed_time(begin: Event, end: Event) -> float:
    assert begin.done
    assert end.done
    return 1e3 * (end.time - begin.time)


class Graph:
    def __init__(self, calls: list[Callable[[], None]]) -> None:
        self.calls = calls
        self.launched = 0

    def upload(self, stream: Stream | None = None) -> None:
        pass

    def launch(self, stream: Stream | None = None) -> None:
        self.launched += 1
        for call in self.calls:
            (stream or device().current).put(call)


class MemoryPool:
    def __init__(self) -> None:
        self.total = 0

    def malloc(self, size: int) -> int:
        if self.total + size > device().memory_limit:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        self.total += size
        return size

    def free_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return self.total
