"""Where the numbers of a point are: a flat vector and the structure that the user gave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp.errors import ArchitectureError, ShapeError

__all__ = ["Block", "Layout", "Vector", "scale_of"]

Vector = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Block:
    """A named array within the flat vector."""

    name: str
    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def piece(self) -> slice:
        """Its entries in the flat vector."""
        return slice(self.start, self.start + self.size)


class Layout:
    """The structure of a point: one array, or several in a dict, list or tuple.

    Parameters
    ----------
    point : array, or dict, list or tuple of arrays
        Where a gradient is checked.
    blocks : dict of tuple of int, optional
        Names and shapes of consecutive pieces of a point that is one flat vector.

    Raises
    ------
    ShapeError
        If the point is empty, not real, or not what ``blocks`` adds up to.
    """

    def __init__(self, point: Any, blocks: Mapping[str, tuple[int, ...]] | None = None) -> None:
        self._keys: list[Any] | None = None
        self._container: type = np.ndarray
        if isinstance(point, Mapping):
            self._keys, self._container = list(point), dict
            arrays = [np.asarray(value) for value in point.values()]
            names = [str(key) for key in point]
        elif isinstance(point, (list, tuple)) and any(isinstance(p, np.ndarray) for p in point):
            self._keys, self._container = list(range(len(point))), type(point)
            arrays = [np.asarray(value) for value in point]
            names = [f"array {k}" for k in range(len(point))]
        else:
            arrays, names = [np.asarray(point)], ["θ"]
        self.names = names
        self.dtype = _dtype_of(arrays)
        self.shapes = [array.shape for array in arrays]
        self.theta = np.concatenate([np.ravel(array).astype(self.dtype) for array in arrays])
        self.size = self.theta.size
        self.blocks = _blocks(names, self.shapes)
        if blocks:
            self.blocks = _blocks(list(blocks), [tuple(shape) for shape in blocks.values()])
            total = sum(block.size for block in self.blocks)
            if total != self.size:
                raise ShapeError(f"the blocks have {total} entries, but the point has {self.size}")
        if self.size == 0:
            raise ShapeError("the point is empty; give at least one coordinate")

    def check_finite(self) -> None:
        """Raise a ShapeError where the point is not finite, and nothing can be differenced."""
        wrong = np.flatnonzero(~np.isfinite(self.theta))
        if wrong.size:
            raise ShapeError(
                f"the point holds {self.theta[wrong[0]]} (coordinate {wrong[0]} of {self.size}); "
                "expected finite numbers"
            )

    def restore(self, flat: Vector) -> Any:
        """Return a vector in the structure of the point."""
        if self._keys is None:
            return flat.reshape(self.shapes[0])
        arrays, position = [], 0
        for shape in self.shapes:
            count = math.prod(shape)
            arrays.append(flat[position : position + count].reshape(shape))
            position += count
        if self._container is dict:
            return dict(zip(self._keys, arrays, strict=True))
        return self._container(arrays)

    def arrays_of(self, gradient: Any) -> list[Vector]:
        """Return the arrays of a gradient of the same structure, as they are.

        Raises
        ------
        ShapeError
            If the structure is another one. (Shapes are looked at by the caller.)
        """
        if self._keys is None:
            return [np.asarray(gradient)]
        wanted = self._keys
        if isinstance(gradient, Mapping) and self._container is dict:
            missing = [key for key in wanted if key not in gradient]
            if not missing:
                return [np.asarray(gradient[key]) for key in wanted]
            raise ShapeError(f"the gradient has no entry {missing[0]!r}; the point has")
        if isinstance(gradient, Sequence) and len(gradient) == len(wanted):
            return [np.asarray(array) for array in gradient]
        raise ShapeError(
            f"the gradient must have the structure of the point, {len(wanted)} arrays in a "
            f"{self._container.__name__}; got {type(gradient).__name__}"
        )

    def block_of(self, index: int) -> Block:
        """Return the block that a flat index lies in."""
        return next(block for block in reversed(self.blocks) if block.start <= index)

    def label(self, index: int) -> str:
        """Name a coordinate.

        >>> import numpy as np
        >>> Layout({"W": np.ones((2, 3)), "b": np.ones(3)}).label(4)
        'W[1, 1]'
        """
        block = self.block_of(index)
        if block.shape == ():
            return block.name
        place = np.unravel_index(index - block.start, block.shape)
        return f"{block.name}[{', '.join(str(int(k)) for k in place)}]"


def _blocks(names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> list[Block]:
    blocks, position = [], 0
    for name, shape in zip(names, shapes, strict=True):
        blocks.append(Block(name, position, shape))
        position += math.prod(shape)
    return [block for block in blocks if block.size] or blocks


def _dtype_of(arrays: Sequence[Vector]) -> np.dtype[Any]:
    if not arrays:
        raise ShapeError("the point is empty; give at least one coordinate")
    dtype = np.result_type(*arrays)
    if dtype.kind in "iub":
        return np.dtype(np.float64)
    if dtype.kind != "f":
        raise ShapeError(f"the point must be real numbers, got dtype {dtype}")
    return np.dtype(np.float64) if dtype.itemsize > 8 else dtype


def scale_of(layout: Layout, scale: Any = None) -> Vector:
    """Return the length over which each coordinate matters.

    Without ``scale`` (one number, or the structure of the point): max(|θᵢ|, s/10) with s the
    geometric median of the nonzero |θ|, 1 if all are zero.

    Raises
    ------
    ArchitectureError
        If a scale is not positive, or there is not one a coordinate.
    """
    if scale is None:
        size = np.abs(layout.theta.astype(float))
        nonzero = size[size > 0]
        typical = float(np.exp(np.median(np.log(nonzero)))) if nonzero.size else 1.0
        return np.asarray(np.maximum(size, 0.1 * typical))
    if isinstance(scale, (int, float)):
        given = np.full(layout.size, float(scale))
    else:
        given = Layout(scale).theta.astype(float)
    if given.size != layout.size or not np.all((given > 0) & np.isfinite(given)):
        raise ArchitectureError(
            f"scale must be a positive number, or {layout.size} of them in the structure of the "
            "point"
        )
    return given
