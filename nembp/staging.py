"""Raw batches prepared on the host, one ahead of the step that will use them."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.augmentation import Augmenter
from nembp.backend import Backend
from nembp.datasets.sources import Rows
from nembp.errors import DataError

__all__ = ["Staging"]

_ALONE = 2  # the buffer of a batch that no loop prepared; 0 and 1 take turns


class Staging:
    """Gathers and augments rows in buffers that are used again and again.

    What waits in a buffer is raw: 8-bit images take a quarter of the memory of what a step gets,
    and scaling them is quick beside gathering and augmenting.

    Parameters
    ----------
    rows : Rows
        The samples, of any shape; read flat.
    augmenter : Augmenter, optional
        Changes each batch; called in the order of the batches.
    backend : Backend, optional
        To whose device the batches go: it gives the memory that it copies from fast.
    """

    def __init__(
        self, rows: Rows, augmenter: Augmenter | None = None, backend: Backend | None = None
    ) -> None:
        self.rows, self.augmenter, self._backend = rows, augmenter, backend
        self._features = int(np.prod(rows.shape[1:]))
        self._buffers: dict[object, NDArray[Any]] = {}
        self._lock = threading.Lock()

    def stage(self, index: NDArray[np.intp], slot: int = _ALONE) -> NDArray[Any]:
        """Return the raw rows at ``index``, in the buffer of a slot until that is staged again.

        Returns
        -------
        ndarray, shape (len(index), features)

        Raises
        ------
        DataError
            If the samples' file cannot be read any more.
        """
        with self._lock:  # one gather buffer, one stream of draws
            out = self._buffer(slot, len(index))
            if self._backend is not None:
                self._backend.wait_for_copy(out)
            gathered = out if self.augmenter is None else self._buffer("gathered", len(index))
            try:
                self.rows.take(index, gathered)
            except OSError as error:
                raise DataError(
                    f"{error.filename or 'the samples'}: could not be read any more "
                    f"({error.strerror or error}); expected the file to stay as it was when it was "
                    "opened. Check the disk"
                ) from error
            return out if self.augmenter is None else self.augmenter(gathered, out)

    def in_turn(self, indices: Iterable[NDArray[np.intp]]) -> Generator[NDArray[Any], None, None]:
        """Stage each batch when it is asked for."""
        return (self.stage(index, slot=0) for index in indices)

    def ahead(self, indices: Iterable[NDArray[np.intp]]) -> Generator[NDArray[Any], None, None]:
        """Stage each batch on a thread while the one before it is used; the same rows.

        An error of the thread is raised where its batch would have come. Closing the iterator,
        as leaving its loop does, ends the thread once the batch in progress is staged.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="nembp-batches") as thread:
            slots, waiting = cycle((0, 1)), None
            for index in indices:
                following: Future[NDArray[Any]] = thread.submit(
                    contextvars.copy_context().run, self.stage, index, next(slots)
                )  # in this thread's np.errstate
                if waiting is not None:
                    yield waiting.result()
                waiting = following
            if waiting is not None:
                yield waiting.result()

    def _buffer(self, name: object, rows: int) -> NDArray[Any]:
        whole = self._buffers.get(name)
        if whole is None or len(whole) < rows:
            shape, dtype = (rows, self._features), self.rows.dtype
            if self._backend is None or name == "gathered":
                whole = np.empty(shape, dtype)
            else:  # it goes to the device
                whole = self._backend.host_buffer(shape, dtype)
            self._buffers[name] = whole
        return whole[:rows]
