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
from nembp.threads import run_parallel, single_threaded_blas, thread_count

if TYPE_CHECKING:
    from nembp.synapses import Synapse

__all__ = ["After", "BlockLink", "Link"]

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
    """

    def __init__(self, synapse: Synapse, backend: Backend, dtype: str, upward: bool = True) -> None:
        self.synapse, self.backend, self.dtype, self.upward = synapse, backend, dtype, upward
        self._W: Array = None

    def load(self, W: Array) -> None:
        """Take the weights for the calls that follow, until they change."""
        self._W = W

    def forward(self, x: Array, out: Array, after: After | None = None) -> None:
        """Write forward(x) into ``out``, and keep what :meth:`descend` needs of ``x``.

        ``out`` may have fewer rows than ``x``; the other rows are only kept.
        """
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


class BlockLink(Link):
    """A link that works through its rows in blocks, on as many threads as there are lanes.

    Parameters
    ----------
    parts : sequence of int
        Rows of the parts of a signal, samples and class rows; no block holds rows of two parts.
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
        block: int,
    ) -> None:
        super().__init__(synapse, backend, dtype, upward)
        self._parts, self._block = tuple(parts), block
        self.lanes = max(1, min(thread_count(), sum(parts)))
        self._plans: dict[int, list[Block]] = {}
        self.blocks = self.blocks_of(sum(parts))
        self.lanes = max(1, min(self.lanes, len(self.blocks)))

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
        count = min(rows, -(-count // self.lanes) * self.lanes)
        edges = [start + rows * k // count for k in range(count + 1)]
        return list(pairwise(edges))

    def work(self, rows: int, task: Callable[[int, int, Block], Any]) -> None:
        """Call ``task(lane, index, block)`` for every block of a signal of so many rows."""
        blocks = list(enumerate(self.blocks_of(rows)))

        def run(lane: int) -> None:
            for index, block in blocks[lane :: self.lanes]:
                task(lane, index, block)

        if self.lanes == 1:
            run(0)
            return
        with single_threaded_blas():
            run_parallel(run, range(self.lanes))


def _starts(parts: Sequence[int]) -> list[Block]:
    starts = [sum(parts[:k]) for k in range(len(parts))]
    return [(start, rows) for start, rows in zip(starts, parts, strict=True) if rows]
