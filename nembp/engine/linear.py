"""Linear maps between layers, and the workspaces in which a training step computes them.

Every linear map is one trilinear form T(x, W, y), and all that it does is one of the form's three
partial derivatives:

========================== ========= =========================================================
contraction                dense     used for
========================== ========= =========================================================
``forward(x)`` = ∂T/∂y     x W       forward signals; errors of the backward direction
``adjoint(y)`` = ∂T/∂x     y Wᵀ      backward signals; errors of the forward direction
``weight_gradient`` = ∂T/∂W xᵀ y     both directions' gradients
========================== ========= =========================================================

**Law**: ⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, weight_gradient(x, y)⟩. A new linear map is these
three functions; nothing else in the engine changes.

A training step calls the contractions through a :class:`Workspace`, whose buffers are allocated
once. **Law**: it gives what its linear map gives.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import numpy as np

from nembp.backend import Array, Backend
from nembp.backend.standard import pixels_of_windows
from nembp.errors import ArchitectureError
from nembp.threads import run_parallel

ROW_UNIT = 8  # rows that the inner loop of a matrix product takes at a time
WORKERS_PAY = 1 << 21  # multiply-adds; with fewer, waking a thread takes longer than they do

Pair: TypeAlias = tuple[int, int]
Shape: TypeAlias = tuple[int, int, int]
Parts: TypeAlias = Sequence[int]  # rows of the parts of a signal: samples, and class rows


class LinearMap(ABC):
    """A linear map between two layers whose signals are rows of flattened units.

    ``inputs`` and ``outputs`` count the units of the lower and the upper layer; the product of
    ``weight_shape`` is 0 for a map without weights.
    """

    inputs: int
    outputs: int
    weight_shape: tuple[int, ...]
    in_workers: bool = False  # whether a step is faster on our worker threads than on BLAS's

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

    def workspace(
        self, backend: Backend, parts: Parts, dtype: str, *, upward: bool = True, workers: int = 1
    ) -> Workspace:
        """Return what computes these contractions in a training step.

        ``upward`` is False where the network uses the transposed map. With several ``workers`` the
        caller keeps BLAS to one thread (:func:`nembp.threads.single_threaded_blas`), whose threads
        spin between products and would take the processors from the workers.
        """
        return Workspace(self, backend, upward)

    @property
    def fans(self) -> tuple[float, float]:
        """How many products a unit of the upper and one of the lower layer sums."""
        return self.inputs, self.outputs

    def initial_weights(self, generator: np.random.Generator) -> np.ndarray[Any, Any]:
        """Draw Glorot-normal weights, variance 2 / (fan in + fan out), float64 on the host.

        The one classical rule that treats both directions alike (Glorot and Bengio, 2010).
        """
        return generator.normal(0.0, math.sqrt(2.0 / sum(self.fans)), self.weight_shape)


@dataclass(frozen=True)
class Dense(LinearMap):
    """A full matrix W of shape (inputs, outputs): T = Σ x_ri W_ij y_rj."""

    inputs: int
    outputs: int

    def __post_init__(self) -> None:
        if self.inputs < 1 or self.outputs < 1:
            raise ArchitectureError(
                f"a dense linear map joins layers of at least 1 unit, got {self.inputs} and "
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

    def workspace(
        self, backend: Backend, parts: Parts, dtype: str, *, upward: bool = True, workers: int = 1
    ) -> Workspace:
        """Return a workspace whose workers share the rows, where there is work for them."""
        if workers > 1 and sum(parts) * self.inputs * self.outputs > WORKERS_PAY:
            return RowWorkspace(self, backend, upward, workers)
        return Workspace(self, backend, upward)


@dataclass(frozen=True)
class Transposed(LinearMap):
    """The same linear map used from its upper to its lower layer, over the same weights.

    forward ↔ adjoint, and ∂T/∂W is the same with its two arguments exchanged.
    """

    linear_map: LinearMap = field(metadata={"name": "synapse"})  # its name in model files

    def __post_init__(self) -> None:
        m = self.linear_map
        sizes = {"inputs": m.outputs, "outputs": m.inputs, "weight_shape": m.weight_shape}
        for name, value in (sizes | {"in_workers": m.in_workers}).items():
            object.__setattr__(self, name, value)

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        self.linear_map.adjoint(backend, x, W, out)

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        self.linear_map.forward(backend, y, W, out)

    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        self.linear_map.weight_gradient(backend, y, x, out)

    def workspace(
        self, backend: Backend, parts: Parts, dtype: str, *, upward: bool = True, workers: int = 1
    ) -> Workspace:
        return self.linear_map.workspace(backend, parts, dtype, upward=not upward, workers=workers)

    @property
    def fans(self) -> tuple[float, float]:
        return self.linear_map.fans[::-1]

    def initial_weights(self, generator: np.random.Generator) -> np.ndarray[Any, Any]:
        return self.linear_map.initial_weights(generator)


class ShapedMap(LinearMap):
    """A linear map between layers whose flattened signals have a shape, by default without W."""

    shape: tuple[int, ...]  # of a sample in the lower layer
    weight_shape = (0,)

    @property
    @abstractmethod
    def output_shape(self) -> tuple[int, ...]:
        """Shape of a sample in the upper layer."""

    @property
    def inputs(self) -> int:  # type: ignore[override]
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:  # type: ignore[override]
        return math.prod(self.output_shape)

    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        """Write nothing where there is no W."""


@dataclass(frozen=True)
class AveragePooling(ShapedMap):
    """Means over windows, each channel by itself: T = Σ x̄[n, p, q, c] y[n, p, q, c], no weights."""

    shape: Shape  # (H, W, C) of the lower layer
    window: Pair  # (vertical, horizontal) extent, in pixels
    stride: Pair  # from one window to the next

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
        sizes = zip(self.shape, self.window, self.stride, strict=False)
        height, width = ((size - window) // stride + 1 for size, window, stride in sizes)
        return height, width, self.shape[2]

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        """Write the mean of each window into ``out``."""
        n, xp = x.shape[0], backend.xp
        with writable(backend, out, (n, *self.output_shape)) as pooled:
            pooled[...] = 0.0
            for pixels in self._pixels(xp.reshape(x, (n, *self.shape))):
                xp.add(pooled, pixels, out=pooled)
            xp.multiply(pooled, 1.0 / math.prod(self.window), out=pooled)

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        """Write each y, divided by the window's pixels, over its window into ``out``."""
        n, xp = y.shape[0], backend.xp
        share = xp.reshape(y, (n, *self.output_shape)) * (1.0 / math.prod(self.window))
        with writable(backend, out, (n, *self.shape)) as images:
            images[...] = 0.0
            for pixels in self._pixels(images):
                xp.add(pixels, share, out=pixels)

    def _pixels(self, images: Array) -> Iterator[Array]:
        sizes = self.output_shape[:2], self.window
        return (pixels for _, _, pixels in pixels_of_windows(images, self.stride, *sizes))


@dataclass(frozen=True)
class Reshape(ShapedMap):
    """The same units in another order: T = Σ x[n, i] y[n, order(i)], no weights."""

    shape: tuple[int, ...]  # of a sample in the lower layer
    axes: tuple[int, ...] | None = None  # their order in the upper one, (2, 0, 1): channels first

    def __post_init__(self) -> None:
        if min(self.shape, default=0) < 1:
            raise ArchitectureError(f"a reshape needs sizes of at least 1, got {self}")
        if self.axes is not None and sorted(self.axes) != list(range(len(self.shape))):
            raise ArchitectureError(
                f"axes {self.axes} are no order of the {len(self.shape)} axes of {self.shape}"
            )

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.shape if self.axes is None else tuple(self.shape[axis] for axis in self.axes)

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        """Write x in the upper layer's order into ``out``."""
        lower = backend.xp.reshape(x, (x.shape[0], *self.shape))
        with writable(backend, out, (x.shape[0], *self.output_shape)) as upper:
            upper[...] = self._reordered(backend, lower)

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        """Write y in the lower layer's order into ``out``."""
        upper = backend.xp.reshape(y, (y.shape[0], *self.output_shape))
        with writable(backend, out, (y.shape[0], *self.shape)) as lower:
            self._reordered(backend, lower)[...] = upper

    def _reordered(self, backend: Backend, lower: Array) -> Array:
        """Return the lower layer's signals in the upper layer's order, as a view."""
        axes = self.axes or range(len(self.shape))
        return backend.xp.permute_dims(lower, (0, *(axis + 1 for axis in axes)))


class Workspace:
    """A linear map at work in a training step; this one calls the map's own contractions."""

    workers = 1

    def __init__(self, linear_map: LinearMap, backend: Backend, upward: bool) -> None:
        self.backend, self.upward, self.linear_map = backend, upward, linear_map
        ways: list[Any] = [linear_map.forward, linear_map.adjoint]
        self._up, self._down = ways if upward else ways[::-1]
        self._gradient: Any = linear_map.weight_gradient
        self._W: Array = None

    def load(self, W: Array) -> None:
        """Take the weights for the calls that follow, until they change."""
        self._W = W

    def forward(self, x: Array, out: Array | None) -> None:
        """Write forward(x) into ``out``, and keep what the gradient needs of ``x``.

        ``out`` may have fewer rows than ``x``, or be None; the other rows are only kept.
        """
        if out is not None:
            self._up(self.backend, x[: out.shape[0], :], self._W, out)

    def adjoint(self, y: Array, out: Array) -> None:
        """Write adjoint(y) into ``out``."""
        self._down(self.backend, y, self._W, out)

    def adjoint_and_gradient(self, x: Array, y: Array, out: Array | None, gradient: Array) -> None:
        """Write adjoint(y) into ``out``, and weight_gradient(x, y) into ``gradient``.

        ``x`` must be what the last :meth:`forward` saw. ``out`` may have fewer rows than ``y``, or
        be None if the adjoint is not needed.
        """
        if out is not None:
            self._down(self.backend, y[: out.shape[0], :], self._W, out)
        lower, upper = (x, y) if self.upward else (y, x)
        self._gradient(self.backend, lower, upper, gradient)


class RowWorkspace(Workspace):
    """Shares the rows of a dense map among workers, for dense layers beside convolutions.

    A network of dense maps alone is better off with BLAS's own threads.
    """

    def __init__(self, linear_map: LinearMap, backend: Backend, upward: bool, workers: int) -> None:
        super().__init__(linear_map, backend, upward)
        self.workers = workers
        self._up, self._down = (partial(self._share, way) for way in (self._up, self._down))
        self._gradient = self._share_gradient

    def _share(self, way: Any, backend: Backend, x: Array, W: Array, out: Array) -> None:
        blocks = cut(0, out.shape[0], self.workers, ROW_UNIT)
        run_parallel(lambda rows: way(backend, x[rows, :], W, out[rows, :]), blocks)

    def _share_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        way, blocks = self.linear_map.weight_gradient, cut(0, out.shape[0], self.workers, ROW_UNIT)
        run_parallel(lambda inputs: way(backend, x[:, inputs], y, out[inputs, :]), blocks)


class BlockWorkspace(Workspace):
    """Works through its rows in blocks that stay in cache, which the workers share.

    No block of at most ``block`` rows holds rows of two ``parts`` of the signals.
    ``gradient_shape`` is of the product that is summed over blocks.
    """

    def __init__(
        self,
        linear_map: LinearMap,
        backend: Backend,
        parts: Parts,
        dtype: str,
        block: int,
        gradient_shape: tuple[int, ...],
        *,
        upward: bool = True,
        workers: int = 1,
    ) -> None:
        super().__init__(linear_map, backend, upward)
        self.dtype = dtype
        self._parts = tuple(rows for rows in parts if rows)
        self._block, self.workers = block, workers
        self._blocks: dict[int, list[slice]] = {}
        self.workers = min(workers, len(self.blocks(sum(parts))))
        self._gradients = Sums(backend, gradient_shape, dtype, self.workers)

    def blocks(self, rows: int) -> list[slice]:
        """Return the blocks of a signal of so many rows; the first part alone has the same ones."""
        if rows not in self._blocks:
            parts = self._parts if rows == sum(self._parts) else (rows,)
            self._blocks[rows] = []
            for start, size in zip(accumulate(parts, initial=0), parts, strict=False):
                # as many blocks for each worker where possible
                count = -(-size // (self._block * self.workers)) * self.workers
                self._blocks[rows] += cut(start, size, min(count, size))
        return self._blocks[rows]

    def _work(self, rows: int, task: Callable[[int, int, slice], Any]) -> None:
        in_blocks(task, self.blocks(rows), self.workers)

    def _sum_over(self, rows: int, task: Callable[[int, int, slice], Any]) -> Array:
        """Call ``task`` on every block, and return the sum of what it added to ``_gradients``."""
        self._work(rows, task)
        return self._gradients.total(len(self.blocks(rows)))


class Sums:
    """Sums of matrix products over blocks, which workers take in turns (:func:`in_blocks`)."""

    def __init__(self, backend: Backend, shape: tuple[int, ...], dtype: str, workers: int) -> None:
        self._backend = backend
        self._totals, self._spares = (
            [backend.empty(shape, dtype) for _ in range(workers)] for _ in range(2)
        )

    def add(self, worker: int, index: int, left: Array, right: Array) -> None:
        """Add ``left @ right`` to the worker's sum, which its first block, ``worker``, begins."""
        total, spare = self._totals[worker], self._spares[worker]
        self._backend.matmul(left, right, total if index == worker else spare)
        if index > worker:
            total += spare

    def total(self, blocks: int) -> Array:
        """Return the sum over so many blocks."""
        total = self._totals[0]
        for each in self._totals[1:blocks]:
            total += each
        return total


def cut(start: int, rows: int, count: int, unit: int = 1) -> list[slice]:
    """Cut rows into blocks of nearly equal length, a multiple of ``unit`` but for the last one.

    >>> cut(0, 140, 2, unit=8)
    [slice(0, 72, None), slice(72, 140, None)]
    """
    units = -(-rows // unit)
    edges = [start + min(rows, -(-units * k // count) * unit) for k in range(count + 1)]
    return [slice(*block) for block in pairwise(edges) if block[0] < block[1]]


def in_blocks(task: Callable[[int, int, slice], Any], blocks: list[slice], workers: int) -> None:
    """Call ``task(worker, index, block)`` for every block, which workers take in turns."""

    def run(worker: int) -> None:
        for index in range(worker, len(blocks), workers):
            task(worker, index, blocks[index])

    run_parallel(run, range(workers))


@contextmanager
def writable(backend: Backend, out: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield ``out`` in another shape to write into: a view, or a buffer that is copied to it."""
    xp = backend.xp
    try:
        view = xp.reshape(xp.reshape(out, (-1,), copy=False), shape)
    except (ValueError, AttributeError):  # a transposed ``out``, say; CuPy raises the second
        view = backend.empty(shape, dtype_of(out))  # a copy would keep the order of ``out``
        yield view
        out[...] = xp.reshape(view, tuple(out.shape))
    else:
        yield view


def dtype_of(array: Array) -> str:
    """Return the name of an array's dtype."""
    return str(array.dtype).rpartition(".")[2]
