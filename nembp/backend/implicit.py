"""A convolution's contractions as implicit matrix products, by the kernels of ``convolution.cu``.

Each is out[m, n] = Σ_k A[m, k] B[n, k] over windows or pixels that the kernels find in the images
themselves. How a product is cut into tiles depends on the shapes alone, and only the number of
parts of k, which are summed in their order, decides how results round: a shape has the same
numbers in every run, and on every GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nembp.backend.hooks import Array, Hooks
from nembp.backend.kernels import LONGEST, Kernels

if TYPE_CHECKING:
    from nembp.engine.convolution import Convolution

__all__ = ["CONTRACTIONS", "TILES", "ImplicitProducts", "Product", "Tile", "product"]

CONTRACTIONS = ("forward", "adjoint", "gradient")
WARPS = 132 * 8  # that fill an H100: two for each of its schedulers
LEAST_DEPTH = 64  # of k in a part: four slabs
MANY_PARTS = 64
MOST_PHASES = 1 << 12
GROUP = 4  # results of a row that are written at once
WIDE_LEFT, WIDE_RIGHT, WIDE_OUT = 1, 2, 4
PACK_BYTES = 16


class Tile(NamedTuple):
    """Results of a block of threads, as ``CONTRACTIONS`` in ``convolution.cu`` makes them.

    ``cost`` is what a multiply-add of its takes beside those of the largest: smaller tiles read
    more of shared memory for each.
    """

    rows: int
    columns: int
    threads: int
    cost: float


TILES = (
    Tile(128, 64, 128, 1.0),
    Tile(64, 64, 64, 1.05),
    Tile(128, 32, 64, 1.15),
    Tile(64, 32, 64, 1.4),
    Tile(128, 8, 64, 3.0),
)


@dataclass(frozen=True)
class Product:
    """An implicit product, and how it is cut.

    Attributes
    ----------
    m, n, k : int
        Rows and columns of the result, and terms of each sum; in an adjoint, of one phase.
    phases : int
        Such products side by side: one, and in an adjoint as many as strides.
    tile : Tile
        Of the results.
    parts : int
        Of k.
    """

    m: int
    n: int
    k: int
    phases: int
    tile: Tile
    parts: int

    @property
    def grid(self) -> tuple[int, int, int]:
        """Blocks of threads."""
        down, across = -(-self.m // self.tile.rows), -(-self.n // self.tile.columns)
        return down, across, self.phases * self.parts

    @property
    def multiply_adds(self) -> float:
        """Those of whole tiles, in units of the largest tile's."""
        down, across, _ = self.grid
        results = down * self.tile.rows * across * self.tile.columns * self.phases
        return results * max(1, self.k) * self.tile.cost


def product(contraction: str, linear_map: Convolution, images: int) -> Product:
    """Return the implicit product of a contraction for so many images.

    >>> from nembp.engine.convolution import Convolution
    >>> last = Convolution((8, 8, 64), 128, (4, 4), (2, 2), (1, 1))
    >>> product("forward", last, 128).grid, product("forward", last, 128).parts
    ((16, 2, 8), 8)
    """
    (height, width, channels), (s, t) = linear_map.shape, linear_map.stride
    rows, columns, upper = linear_map.output_shape
    window, windows = math.prod(linear_map.kernel) * channels, images * rows * columns
    if contraction == "forward":
        m, n, k, phases = windows, upper, window, 1
    elif contraction == "gradient":
        m, n, k, phases = window, upper, windows, 1
    else:
        taps = -(-linear_map.kernel[0] // s) * -(-linear_map.kernel[1] // t)
        m, n, k = images * -(-height // s) * -(-width // t), channels, taps * upper
        phases = s * t
    best = min(
        (Product(m, n, k, phases, tile, 1) for tile in TILES), key=lambda one: one.multiply_adds
    )
    warps = math.prod(best.grid) * best.tile.threads // 32
    parts = max(1, min(WARPS // warps, k // LEAST_DEPTH))
    return Product(m, n, k, phases, best.tile, parts)


class ImplicitProducts(Hooks):
    """The contractions, by kernels of :meth:`kernels_of`."""

    kernels_of: Callable[..., Kernels | None]
    has_implicit_products = True

    def implicit_spare(self, contraction: str, linear_map: Convolution, images: int) -> int:
        cut = product(contraction, linear_map, images)
        if cut.parts == 1:
            return 0
        results = {
            "forward": images * linear_map.outputs,
            "adjoint": images * linear_map.inputs,
            "gradient": linear_map.weight_count,
        }
        return cut.parts * results[contraction]

    def contract_implicitly(
        self,
        contraction: str,
        linear_map: Convolution,
        left: Array,
        right: Array,
        out: Array,
        spare: Array,
    ) -> bool:
        images = left.shape[0]
        cut = product(contraction, linear_map, images)
        kernels = self.kernels_of(left, right, out, module="convolution")
        if kernels is None or cut.phases > MOST_PHASES or cut.m >= LONGEST or cut.k >= LONGEST:
            return False
        target = out if cut.parts == 1 else spare
        channels = linear_map.shape[2]
        ups = linear_map.channels
        wide = (
            WIDE_LEFT * _in_packs(left, ups if contraction == "adjoint" else channels)
            + WIDE_RIGHT * _in_packs(right, ups)
            + WIDE_OUT * (cut.n % GROUP == 0 and target.data.ptr % PACK_BYTES == 0)
        )
        rows, columns, _ = linear_map.output_shape
        sizes = (
            images,
            *linear_map.shape,
            *linear_map.kernel,
            *linear_map.stride,
            *linear_map.padding,
        )
        numbers = (cut.parts, wide, *sizes, rows, columns, ups)
        name = f"{contraction}_{cut.tile.rows}x{cut.tile.columns}"
        each = (np.int32(number) for number in numbers)
        kernels.grid(name, cut.grid, cut.tile.threads, left, right, target, *each)
        if cut.parts > MANY_PARTS:  # of few results: a thread cannot read them all by itself
            matrix = spare, np.int64(cut.parts), np.int32(out.size), out
            kernels.tiles("column_sums", out.size, *matrix)
        elif cut.parts > 1:
            vectors = spare, np.int32(cut.parts), np.int64(out.size), out
            kernels.each("sum_parts", out.size, *vectors)
        return True


def _in_packs(array: Array, neighbours: int) -> bool:
    """Say whether runs of so many neighbours lie in packs that one instruction loads."""
    count = PACK_BYTES // array.dtype.itemsize
    return bool(neighbours % count == 0 and array.data.ptr % PACK_BYTES == 0)
