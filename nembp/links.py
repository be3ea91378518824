"""Links: synapses at work in a training step, with their buffers.

A synapse says what its three contractions are; a link says how a step computes them again and
again: bound to a device and a number of rows, its weights loaded once a step, its buffers
allocated once. A :class:`Link` just calls the synapse. Convolutions have faster ones
(:mod:`nembp.windows`, :mod:`nembp.minimal_filtering`), which keep what the signals' sweep has
computed for the errors' sweep, work through images in blocks that stay in cache, and share the
blocks among threads.

**Law**: every link gives what its synapse gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from nembp.backend import Array, Backend
from nembp.threads import run_parallel

if TYPE_CHECKING:
    from nembp.synapses import Synapse

__all__ = ["After", "BlockLink", "Link", "RowsLink", "cut"]

ROW_UNIT = 8  # rows that a product's inner loop takes at a time

# called with first and last row of ``out``, when they are written and still in cache
After: TypeAlias = Callable[[int, int], None]
Block: TypeAlias = tuple[int, int]


class Link:
    """One synapse in one direction of travel, for the sweeps of a step.

    Parameters
    ----------
    synapse : Synapse
        Whose contractions these are.
    backend, dtype : Backend, str
        Of the arrays.
    upward : bool
        Whether :meth:`forward` goes from the synapse's lower to its upper layer; otherwise the
        link is that of the transposed synapse.

    Attributes
    ----------
    lanes : int
        Threads that share its work. Whoever calls a link of several keeps BLAS to one thread
        (:func:`nembp.threads.single_threaded_blas`): BLAS's own threads spin between products, and
        would take the processors from ours.
    """

    def __init__(self, synapse: Synapse, backend: Backend, dtype: str, upward: bool = True) -> None:
        self.synapse, self.backend, self.dtype, self.upward = synapse, backend, dtype, upward
        self.lanes = 1
        self._W: Array = None

    def load(self, W: Array) -> None:
        """Take the weights for the calls that follow, until they change."""
        self._W = W

    def forward(self, x: Array, out: Array | None, after: After | None = None) -> None:
        """Write forward(x) into ``out``, and keep what :meth:`descend` needs of ``x``.

        ``out`` may have fewer rows than ``x``, or be None; the other rows are only kept.
        """
        if out is None:
            return
        rows = out.shape[0]
        contract = self.synapse.forward if self.upward else self.synapse.adjoint
        contract(self.backend, x[:rows, :], self._W, out)
        if after is not None:
            after(0, rows)

    def adjoint(self, y: Array, out: Array, after: After | None = None) -> None:
        """Write adjoint(y) into ``out``."""
        contract = self.synapse.adjoint if self.upward else self.synapse.forward
        contract(self.backend, y, self._W, out)
        if after is not None:
            after(0, out.shape[0])

    def descend(
        self, x: Array, y: Array, out: Array | None, gradient: Array, after: After | None = None
    ) -> None:
        """Write adjoint(y) into ``out``, and weight_gradient(x, y) into ``gradient``.

        ``x`` must be what the last :meth:`forward` saw. ``out`` may have fewer rows than ``y``, or
        be None where nobody needs it.
        """
        if out is not None:
            self.adjoint(y[: out.shape[0], :], out, after)
        lower, upper = (x, y) if self.upward else (y, x)
        self.synapse.weight_gradient(self.backend, lower, upper, gradient)


class RowsLink(Link):
    """A link that shares its rows among lanes: for dense synapses beside convolutions.

    A network of dense synapses alone is better off with BLAS's own threads.
    """

    def __init__(
        self, synapse: Synapse, backend: Backend, dtype: str, upward: bool, lanes: int
    ) -> None:
        super().__init__(synapse, backend, dtype, upward)
        self.lanes = lanes

    def forward(self, x: Array, out: Array | None, after: After | None = None) -> None:
        if out is not None:
            self._share(super().forward, x, out, after)

    def adjoint(self, y: Array, out: Array, after: After | None = None) -> None:
        self._share(super().adjoint, y, out, after)

    def _share(
        self, contract: Callable[[Array, Array], None], x: Array, out: Array, after: After | None
    ) -> None:
        def task(block: Block) -> None:
            start, stop = block
            contract(x[start:stop, :], out[start:stop, :])
            if after is not None:
                after(start, stop)

        run_parallel(task, cut(0, out.shape[0], self.lanes, unit=ROW_UNIT))

    def descend(
        self, x: Array, y: Array, out: Array | None, gradient: Array, after: After | None = None
    ) -> None:
        if out is not None:
            self.adjoint(y[: out.shape[0], :], out, after)
        lower, upper = (x, y) if self.upward else (y, x)

        def task(block: Block) -> None:
            first, last = block
            self.synapse.weight_gradient(
                self.backend, lower[:, first:last], upper, gradient[first:last, :]
            )

        run_parallel(task, cut(0, gradient.shape[0], self.lanes, unit=ROW_UNIT))


class BlockLink(Link):
    """A link that works through its rows in blocks, on as many threads as there are lanes.

    Parameters
    ----------
    parts : sequence of int
        Rows of the parts of a signal, samples and class rows; no block holds rows of two parts.
    lanes : int
        Threads to share the blocks among.
    block : int
        Most rows of a block.
    """

    def __init__(
        self,
        synapse: Synapse,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool,
        lanes: int,
        block: int,
    ) -> None:
        super().__init__(synapse, backend, dtype, upward)
        self._parts, self._block, self.lanes = tuple(parts), block, lanes
        self._plans: dict[int, list[Block]] = {}
        self.blocks = self.blocks_of(sum(parts))
        self.lanes = min(lanes, len(self.blocks))

    def blocks_of(self, rows: int) -> list[Block]:
        """Return the blocks of a signal of so many rows; the first part alone has the same ones."""
        if rows not in self._plans:
            starts = _starts(self._parts) if rows == sum(self._parts) else [(0, rows)]
            self._plans[rows] = [
                block for start, count in starts for block in self._cut(start, count)
            ]
        return self._plans[rows]

    def _cut(self, start: int, rows: int) -> list[Block]:
        """Cut rows into blocks of nearly equal length, as many for each lane where possible."""
        count = -(-rows // self._block)
        return cut(start, rows, min(rows, -(-count // self.lanes) * self.lanes))

    def work(self, rows: int, task: Callable[[int, int, Block], Any]) -> None:
        """Call ``task(lane, index, block)`` for every block of a signal of so many rows."""
        blocks = list(enumerate(self.blocks_of(rows)))

        def run(lane: int) -> None:
            for index, block in blocks[lane :: self.lanes]:
                task(lane, index, block)

        run_parallel(run, range(self.lanes))


def _starts(parts: Sequence[int]) -> list[Block]:
    starts = [sum(parts[:k]) for k in range(len(parts))]
    return [(start, rows) for start, rows in zip(starts, parts, strict=True) if rows]


def cut(start: int, rows: int, count: int, unit: int = 1) -> list[Block]:
    """Cut rows into blocks of nearly equal length, a multiple of ``unit`` but for the last one.

    >>> cut(0, 140, 2, unit=8)
    [(0, 72), (72, 140)]
    """
    units = -(-rows // unit)
    edges = [start + min(rows, -(-units * k // count) * unit) for k in range(count + 1)]
    return [block for block in pairwise(edges) if block[0] < block[1]]
