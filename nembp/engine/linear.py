"""Links: linear maps at work in a training step, with their buffers.

A linear map says what its three contractions are; a link says how a step computes them again and
again: bound to a device and a number of rows, its weights loaded once a step, its buffers
allocated once. A :class:`Link` just calls the linear_map. Convolutions have faster ones
(:mod:`nembp.engine.convolution`, :mod:`nembp.engine.convolution`), which keep what the signals' sweep has
computed for the errors' sweep, work through images in blocks that stay in cache, and share the
blocks among threads.

**Law**: every link gives what its linear map gives.

Linear maps: trilinear forms T(x, W, y) = ⟨x·W, y⟩ and their three partial derivatives.

========================== ========= =========================================================
contraction                dense     used for
========================== ========= =========================================================
``forward(x)`` = ∂T/∂y     x W       forward signals; errors of the backward direction
``adjoint(y)`` = ∂T/∂x     y Wᵀ      backward signals; errors of the forward direction
``weight_gradient`` = ∂T/∂W xᵀ y     both directions' gradients
========================== ========= =========================================================

**Law**: ⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, weight_gradient(x, y)⟩. A new kind of linear map is
these three functions; nothing else in the engine changes.

Weightless maps between layers of images: means over windows, and neurons in another order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from nembp.backend import Array, Backend
from nembp.errors import ArchitectureError
from nembp.threads import run_parallel

ROW_UNIT = 8  # rows that a product's inner loop takes at a time

# called with first and last row of ``out``, when they are written and still in cache
After: TypeAlias = Callable[[int, int], None]
Block: TypeAlias = tuple[int, int]


class Link:
    """One linear map in one direction of travel, for the sweeps of a step.

    Parameters
    ----------
    linear_map : LinearMap
        Whose contractions these are.
    backend, dtype : Backend, str
        Of the arrays.
    upward : bool
        Whether :meth:`forward` goes from the linear map's lower to its upper layer; otherwise the
        link is that of the transposed linear_map.

    Attributes
    ----------
    lanes : int
        Threads that share its work. Whoever calls a link of several keeps BLAS to one thread
        (:func:`nembp.threads.single_threaded_blas`): BLAS's own threads spin between products, and
        would take the processors from ours.
    """

    def __init__(
        self, linear_map: LinearMap, backend: Backend, dtype: str, upward: bool = True
    ) -> None:
        self.linear_map, self.backend, self.dtype, self.upward = linear_map, backend, dtype, upward
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
        contract = self.linear_map.forward if self.upward else self.linear_map.adjoint
        contract(self.backend, x[:rows, :], self._W, out)
        if after is not None:
            after(0, rows)

    def adjoint(self, y: Array, out: Array, after: After | None = None) -> None:
        """Write adjoint(y) into ``out``."""
        contract = self.linear_map.adjoint if self.upward else self.linear_map.forward
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
        self.linear_map.weight_gradient(self.backend, lower, upper, gradient)


class RowsLink(Link):
    """A link that shares its rows among lanes: for dense linear maps beside convolutions.

    A network of dense linear maps alone is better off with BLAS's own threads.
    """

    def __init__(
        self, linear_map: LinearMap, backend: Backend, dtype: str, upward: bool, lanes: int
    ) -> None:
        super().__init__(linear_map, backend, dtype, upward)
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
            self.linear_map.weight_gradient(
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
        linear_map: LinearMap,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool,
        lanes: int,
        block: int,
    ) -> None:
        super().__init__(linear_map, backend, dtype, upward)
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


LANES_PAY = 1 << 21  # multiply-adds; with fewer, waking a thread takes longer than they do


class LinearMap(ABC):
    """A linear map between two layers whose signals are rows of flattened neurons.

    Attributes
    ----------
    inputs, outputs : int
        Neurons of the lower and the upper layer.
    weight_shape : tuple of int
        Shape of W; its product is 0 for a weightless map.
    """

    inputs: int
    outputs: int
    weight_shape: tuple[int, ...]

    @property
    def weight_count(self) -> int:
        """Number of weights."""
        return math.prod(self.weight_shape)

    @abstractmethod
    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        """Write ∂T/∂y at (x, W), shape (rows, outputs), into ``out``."""

    @abstractmethod
    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        """Write ∂T/∂x at (W, y), shape (rows, inputs), into ``out``."""

    @abstractmethod
    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        """Write ∂T/∂W at (x, y), summed over rows, shape ``weight_shape``, into ``out``."""

    @property
    def wants_lanes(self) -> bool:
        """Whether a step over it is faster on our threads than on those of BLAS."""
        return False

    def link(
        self,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool = True,
        lanes: int = 1,
    ) -> Link:
        """Return what computes these contractions in a training step (:mod:`nembp.engine.linear`).

        Parameters
        ----------
        parts : sequence of int
            Rows of the parts of a signal: samples, and class rows.
        upward : bool
            Whether the network uses the linear map from its lower to its upper layer.
        lanes : int
            Threads to share the rows among.
        """
        return Link(self, backend, dtype, upward)

    @abstractmethod
    def initial_weights(self, generator: np.random.Generator) -> np.ndarray[Any, Any]:
        """Draw float64 weights on the host, so that no device changes the randomness."""


@dataclass(frozen=True)
class Dense(LinearMap):
    """A full matrix W of shape (inputs, outputs): T = Σ x_ri W_ij y_rj."""

    inputs: int
    outputs: int

    def __post_init__(self) -> None:
        if self.inputs < 1 or self.outputs < 1:
            raise ArchitectureError(
                f"a dense linear map joins layers of at least 1 neuron, got {self.inputs} and "
                f"{self.outputs}"
            )

    @property
    def weight_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.inputs, self.outputs)

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        """Write x W into ``out``."""
        backend.matmul(x, W, out)

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        """Write y Wᵀ into ``out``."""
        backend.matmul(y, W.T, out)

    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        """Write xᵀ y into ``out``."""
        backend.matmul(x.T, y, out)

    def link(
        self,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool = True,
        lanes: int = 1,
    ) -> Link:
        """Return a link that shares its rows among lanes where there is work for them."""
        if lanes > 1 and sum(parts) * self.inputs * self.outputs > LANES_PAY:
            return RowsLink(self, backend, dtype, upward, lanes)
        return Link(self, backend, dtype, upward)

    def initial_weights(self, generator: np.random.Generator) -> np.ndarray[Any, Any]:
        """Draw Glorot-normal weights, variance 2 / (inputs + outputs).

        The one classical rule that treats both directions alike (Glorot and Bengio, 2010).
        """
        std = math.sqrt(2.0 / (self.inputs + self.outputs))
        return generator.normal(0.0, std, self.weight_shape)


@dataclass(frozen=True)
class Transposed(LinearMap):
    """The same linear map used from its upper to its lower layer, over the same weights.

    forward ↔ adjoint, and ∂T/∂W is the same with its two arguments exchanged.
    """

    linear_map: LinearMap = field(metadata={"name": "synapse"})  # its name in model files

    @property
    def inputs(self) -> int:  # type: ignore[override]
        return self.linear_map.outputs

    @property
    def outputs(self) -> int:  # type: ignore[override]
        return self.linear_map.inputs

    @property
    def weight_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.linear_map.weight_shape

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        self.linear_map.adjoint(backend, x, W, out)

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        self.linear_map.forward(backend, y, W, out)

    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        self.linear_map.weight_gradient(backend, y, x, out)

    @property
    def wants_lanes(self) -> bool:
        return self.linear_map.wants_lanes

    def link(
        self,
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool = True,
        lanes: int = 1,
    ) -> Link:
        return self.linear_map.link(backend, parts, dtype, not upward, lanes)

    def initial_weights(self, generator: np.random.Generator) -> np.ndarray[Any, Any]:
        return self.linear_map.initial_weights(generator)


Pair: TypeAlias = tuple[int, int]
Shape: TypeAlias = tuple[int, int, int]


class _Weightless(LinearMap):
    """A linear map without weights."""

    weight_shape = (0,)

    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        """Write nothing: there are no weights."""

    def initial_weights(self, generator: np.random.Generator) -> np.ndarray[Any, Any]:
        """Return none."""
        return np.zeros(0)


@dataclass(frozen=True)
class AveragePooling(_Weightless):
    """Means over windows, each channel by itself: T = Σ x̄[n, p, q, c] y[n, p, q, c], no weights.

    Parameters
    ----------
    shape : tuple of int
        (H, W, C) of the lower layer.
    window, stride : tuple of int
        (vertical, horizontal) extent of a window and step between windows, in pixels.
    """

    shape: Shape
    window: Pair
    stride: Pair

    def __post_init__(self) -> None:
        if min(*self.shape, *self.window, *self.stride) < 1:
            raise ArchitectureError(f"a pooling needs sizes of at least 1, got {self}")
        if self.window[0] > self.shape[0] or self.window[1] > self.shape[1]:
            raise ArchitectureError(
                f"window {self.window} does not fit an image of {self.shape[:2]} pixels"
            )

    @property
    def output_shape(self) -> Shape:
        """(H, W, C) of the upper layer: (size − window) // stride + 1."""
        height, width = (
            (self.shape[axis] - self.window[axis]) // self.stride[axis] + 1 for axis in (0, 1)
        )
        return height, width, self.shape[2]

    @property
    def inputs(self) -> int:  # type: ignore[override]
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:  # type: ignore[override]
        return math.prod(self.output_shape)

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        """Write the mean of each window into ``out``."""
        n = x.shape[0]
        image = backend.xp.reshape(x, (n, *self.shape))
        with writable(backend, out, (n, *self.output_shape)) as pooled:
            pooled[...] = 0.0
            for pixels in self._pixels(image):
                backend.into(pooled, backend.xp.add, pooled, pixels)
            backend.into(pooled, backend.xp.multiply, pooled, 1.0 / math.prod(self.window))

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        """Write each y, divided by the window's pixels, over its window into ``out``."""
        n = y.shape[0]
        share = backend.empty((n, *self.output_shape), dtype_of(y))
        pooled = backend.xp.reshape(y, (n, *self.output_shape))
        backend.into(share, backend.xp.multiply, pooled, 1.0 / math.prod(self.window))
        with writable(backend, out, (n, *self.shape)) as image:
            image[...] = 0.0
            for pixels in self._pixels(image):
                backend.into(pixels, backend.xp.add, pixels, share)

    def _pixels(self, image: Array) -> list[Array]:
        """Return, for each pixel of a window, the view of that pixel in all windows."""
        (height, width, _), (s, t) = self.output_shape, self.stride
        return [
            image[:, i : i + s * (height - 1) + 1 : s, j : j + t * (width - 1) + 1 : t, :]
            for i in range(self.window[0])
            for j in range(self.window[1])
        ]


@dataclass(frozen=True)
class Reshape(_Weightless):
    """The same neurons in another order: T = Σ x[n, i] y[n, order(i)], no weights.

    Parameters
    ----------
    shape : tuple of int
        Shape of a sample in the lower layer.
    axes : tuple of int, optional
        Order of these axes in the upper layer, (2, 0, 1) for channels first; as they are by
        default, which is a plain copy.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if min(self.shape, default=0) < 1:
            raise ArchitectureError(f"a reshape needs sizes of at least 1, got {self}")
        if self.axes is not None and sorted(self.axes) != list(range(len(self.shape))):
            raise ArchitectureError(
                f"axes {self.axes} are no order of the {len(self.shape)} axes of {self.shape}"
            )

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of a sample in the upper layer."""
        return tuple(self.shape[axis] for axis in self._axes)

    @property
    def inputs(self) -> int:  # type: ignore[override]
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:  # type: ignore[override]
        return math.prod(self.shape)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(len(self.shape))) if self.axes is None else self.axes

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        """Write x in the upper layer's order into ``out``."""
        n, xp = x.shape[0], backend.xp
        lower = xp.reshape(x, (n, *self.shape))
        with writable(backend, out, (n, *self.output_shape)) as upper:
            upper[...] = xp.permute_dims(lower, (0, *(axis + 1 for axis in self._axes)))

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        """Write y in the lower layer's order into ``out``."""
        n, xp = y.shape[0], backend.xp
        upper = xp.reshape(y, (n, *self.output_shape))
        with writable(backend, out, (n, *self.shape)) as lower:
            xp.permute_dims(lower, (0, *(axis + 1 for axis in self._axes)))[...] = upper


@contextmanager
def writable(backend: Backend, out: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield ``out`` in another shape to write into: a view, or a copy that is copied back."""
    xp = backend.xp
    try:
        view = xp.reshape(xp.reshape(out, (-1,), copy=False), shape)
    except (ValueError, AttributeError):  # a transposed ``out``, say; CuPy raises the second
        view = xp.reshape(out, shape, copy=True)
        yield view
        out[...] = xp.reshape(view, tuple(out.shape))
    else:
        yield view


def dtype_of(array: Array) -> str:
    """Return the name of an array's dtype."""
    return str(array.dtype).rpartition(".")[2]
