"""Work on the rows of a matrix in blocks that stay in cache, shared among threads."""

from __future__ import annotations

from collections.abc import Callable

from nembp.backend import Array, Backend
from nembp.links import cut
from nembp.threads import run_parallel

__all__ = ["RowBlocks"]

BLOCK_BYTES = 1 << 17  # of the matrix: four such blocks stay in cache


class RowBlocks:
    """The blocks of a matrix (rows, size), and what sums over them need.

    Parameters
    ----------
    backend, dtype : Backend, str
        Of the matrix.
    rows, size : int
        Its shape.
    channels : int
        A row is so many numbers of one pixel, then of the next, and so on.
    lanes : int
        Threads to share the blocks among.
    """

    def __init__(
        self, backend: Backend, dtype: str, rows: int, size: int, channels: int, lanes: int = 1
    ) -> None:
        self._backend = backend
        self._sum_rows = backend.ones((1, rows), dtype)
        self._sum_pixels = backend.ones((1, size // channels), dtype)
        bytes_of_row = size * {"float32": 4, "float64": 8}.get(dtype, 16)
        most = max(1, BLOCK_BYTES // bytes_of_row) if backend.has_cache else rows
        self._blocks = [
            cut(start, stop - start, -(-(stop - start) // most))
            for start, stop in cut(0, rows, min(lanes, rows))
        ]
        most = max(stop - start for blocks in self._blocks for start, stop in blocks)
        self._scratch = [backend.empty((most, size), dtype) for _ in self._blocks]
        self._totals = [[backend.empty((1, size), dtype) for _ in range(3)] for _ in self._blocks]

    def scratch(self, lane: int, start: int, stop: int) -> Array:
        """Return a lane's work space for a block."""
        return self._scratch[lane][: stop - start, :]

    def work(self, task: Callable[[int, int, int], object]) -> None:
        """Call ``task(lane, start, stop)`` on every block of rows."""

        def run(lane: int) -> None:
            for start, stop in self._blocks[lane]:
                task(lane, start, stop)

        run_parallel(run, range(len(self._blocks)))

    def sum(
        self,
        terms: Callable[[int, int, int], tuple[Array, ...]],
        sums: list[Array],
        weights: Array = None,
    ) -> None:
        """Write Σ over rows and pixels of one or two terms.

        Parameters
        ----------
        terms : callable
            Returns a block's rows of each term, for ``(lane, start, stop)``.
        sums : list of array, shape (channels,)
            Where the sum of each term goes.
        weights : array, shape (1, rows), optional
            Of the rows.
        """
        backend, add = self._backend, self._backend.xp.add
        row = self._sum_rows if weights is None else weights

        def task(lane: int, start: int, stop: int) -> None:
            *totals, spare = self._totals[lane]
            fresh = start == self._blocks[lane][0][0]
            for total, values in zip(totals, terms(lane, start, stop), strict=False):
                # a product with ones sums columns faster than a reduction
                backend.matmul(row[:, start:stop], values, total if fresh else spare)
                if not fresh:
                    backend.into(total, add, total, spare)

        self.work(task)
        for which, out in enumerate(sums):
            total = self._totals[0][which]
            for others in self._totals[1:]:
                backend.into(total, add, total, others[which])
            each = backend.xp.reshape(total, (-1, out.shape[0]))
            backend.matmul(self._sum_pixels, each, backend.xp.reshape(out, (1, -1)))
