"""Copies from the host that overlap with computing: page-locked buffers and a stream of their own.

A batch is gathered on the host into a page-locked buffer, copied on the copy stream into a buffer
of the device, and read from there by the step. Events order the three, and the only one that the
host ever waits for is the end of a copy, before the thread that gathers writes into its buffer
again:

    gather → copy (waits until the step before last has read the device's buffer) → step reads
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any


@dataclass
class _Slot:
    """What belongs to one buffer of the host."""

    device: Array
    copied: Any  # event: the host's buffer may be overwritten, the device's be read
    read: Any  # event: the device's buffer may be overwritten


class Transfers:
    """Copies arrays that begin where a page-locked buffer does.

    Parameters
    ----------
    cupy : module
        CuPy.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._slots: dict[int, _Slot] = {}

    def host_buffer(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """Return a page-locked array of the host with a buffer of its size on the device."""
        cupy, kind = self._cupy, np.dtype(dtype)
        count = math.prod(shape)
        memory = cupy.cuda.alloc_pinned_memory(max(1, count * kind.itemsize))
        array = np.frombuffer(memory, kind, count).reshape(shape)
        events = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
        slot = _Slot(cupy.empty(shape, dtype=kind), *events)
        slot.read.record(cupy.cuda.get_current_stream())  # of whoever had this memory before
        self._slots[array.ctypes.data] = slot
        return array

    @contextmanager
    def on_device(self, staged: np.ndarray[Any, Any]) -> Iterator[Array]:
        """Yield ``staged`` on the device, for work that is queued within the block."""
        slot = self._slots.get(staged.ctypes.data)
        if slot is None or not staged.flags.c_contiguous or staged.dtype != slot.device.dtype:
            yield self._cupy.asarray(staged)
            return
        current = self._cupy.cuda.get_current_stream()
        raw = slot.device[: len(staged)]
        self._stream.wait_event(slot.read)
        raw.set(staged, stream=self._stream)
        slot.copied.record(self._stream)
        current.wait_event(slot.copied)
        yield raw
        slot.read.record(current)

    def wait(self, staged: np.ndarray[Any, Any]) -> None:
        """Wait until the last copy from the memory of ``staged`` is done."""
        slot = self._slots.get(staged.ctypes.data)
        if slot is not None:
            slot.copied.synchronize()
