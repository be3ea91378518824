"""The floor under a step: its matrix products by themselves, and the bytes that Adam has to move.

Nothing else is counted: no bias, activation, likelihood or Python, and no laying out of windows.
The products are the engine's own, recorded: they read its buffers, and write into others, one for
each shape, so that they can be run again and again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise

import numpy as np

from nembp.backend import Array, Backend, stream
from nembp.engine.backprop import Path, class_rows
from nembp.engine.convolution import Convolution
from nembp.engine.linear import Dense, LinearMap
from nembp.threads import run_parallel

ADAM_PASSES = 7  # reads of θ, g, M, V and writes of θ, M, V: the least that Adam can move


def products(backend: Backend, step: Callable[[], object]) -> Callable[[], None]:
    """Return what runs the matrix products of ``step``, which is called once, and nothing else."""
    multiply, found = backend.matmul, list[tuple[Array, Array, Array]]()
    written: dict[tuple[int, ...], Array] = {}

    def matmul(left: Array, right: Array, out: Array) -> Array:
        if left.shape[-2] > 1 and right.shape[-1] > 1:  # not what sums over rows
            if out.shape not in written:
                written[out.shape] = backend.empty(out.shape, str(out.dtype))
            found.append((left, right, written[out.shape]))
        return multiply(left, right, out)

    backend.matmul = matmul  # type: ignore[method-assign]
    try:
        step()
    finally:
        backend.matmul = multiply  # type: ignore[method-assign]

    def run() -> None:
        for left, right, out in found:
            multiply(left, right, out)

    return run


def terms(linear_map: LinearMap) -> int:
    """Return the multiply-adds of a contraction of T(x, W, y) for a sample, as it is defined.

    >>> terms(Convolution((32, 32, 3), 16, (4, 4), (2, 2), (1, 1))), terms(Dense(784, 512))
    (196608, 401408)
    """
    if isinstance(linear_map, Convolution):
        return math.prod(linear_map.output_shape[:2]) * math.prod(linear_map.weight_shape)
    return linear_map.inputs * linear_map.outputs if isinstance(linear_map, Dense) else 0


def multiply_adds(maps: Sequence[LinearMap], batch: int, path: Path) -> int:
    """Return the multiply-adds of a step, of B rows forward and R backward.

    All three contractions of every map, but for the error at either direction's input, which is
    nobody's: B (3 Σ terms − those of the first map) + R (3 Σ terms − those of the last). R is B, or
    in the class-sum path the K classes in whole groups of rows, with the K × B × n_0 of the sums.

    >>> multiply_adds([Dense(784, 512), Dense(512, 512), Dense(512, 10)], 1, "none")
    1604608
    """
    three = 3 * sum(map(terms, maps))
    total = batch * (three - terms(maps[0]))
    if path == "none":
        return total
    rows = batch if path == "samples" else class_rows(maps[-1].outputs)
    sums = 0 if path == "samples" else batch * maps[-1].outputs * maps[0].inputs
    return total + rows * (three - terms(maps[-1])) + sums


def adam_bytes(parameters: int, dtype: str) -> int:
    """Return the bytes that Adam must read and write in a step."""
    return ADAM_PASSES * parameters * np.dtype(dtype).itemsize


class AdamTraffic:
    """A stream over Adam's four vectors that moves its bytes and computes next to nothing.

    θ, M and V are negated in place, g is read by a dot product. Pieces run at once on threads.
    """

    def __init__(self, backend: Backend, parameters: int, dtype: str, threads: int = 1) -> None:
        self._backend = backend
        vectors = [backend.ones((parameters,), dtype) for _ in range(4)]
        cuts = pairwise(parameters * i // threads for i in range(threads + 1))
        self.pieces = [[*(v[i:j] for v in vectors), backend.empty((1, 1), dtype)] for i, j in cuts]

    def __call__(self) -> None:
        """Stream over the vectors once."""
        run_parallel(self._stream, self.pieces)

    def _stream(self, piece: list[Array]) -> None:
        *moved, g, dot = piece
        for v in moved:
            self._backend.xp.negative(v, out=v)
        self._backend.matmul(g[None, :], g[:, None], dot)


@cache
def measure_card(
    backend: Backend, dtype: str = "float32", size: int = 8192, length: int = 1 << 28
) -> dict[str, float]:
    """Return what a GPU does a second at most, by its own clock.

    ``bandwidth``: bytes read and written by a long copy, of ``length`` numbers; ``rate``:
    multiply-adds of a product of random matrices of ``size`` (of zeros it would be faster).
    """
    draw = stream(0, "benchmark/card").standard_normal

    def median(work: Callable[[], object]) -> float:
        backend.seconds(work)  # a warm-up
        return statistics.median(backend.seconds(work) for _ in range(5))

    left, right = (backend.asarray(draw((size, size), dtype="f4"), dtype) for _ in range(2))
    product = median(partial(backend.matmul, left, right, backend.empty((size, size), dtype)))
    source, copy = backend.ones((length,), dtype), backend.empty((length,), dtype)
    copied = median(partial(backend.xp.multiply, source, 1.0, out=copy))
    moved = 2 * length * np.dtype(dtype).itemsize
    return {"bandwidth": moved / copied, "rate": size**3 / product}


def least_seconds(card: dict[str, float], multiply_adds: int, moved: int) -> float:
    """Return the least time of work that multiplies, then moves bytes."""
    return multiply_adds / card["rate"] + moved / card["bandwidth"]
