"""Sizes of minimal filtering, its matrices, and what it costs beside the definition.

The algorithm and the symbols are those of :mod:`nembp.minimal_filtering`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from nembp.convolution import Convolution

__all__ = ["POINTS", "Matrix", "Pair", "Plan", "correlation_matrices", "definition_cost", "plan"]

POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)  # more lose too many digits of float32
MOVE = 20.0  # multiply-adds in the time that moving one number takes

Matrix: TypeAlias = np.ndarray[Any, Any]
Pair: TypeAlias = tuple[int, int]


def correlation_matrices(m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return B (t, t), G (t, r) and A (t, m) of a correlation with m results of r weights each.

    >>> B, G, A = correlation_matrices(2, 3)
    >>> x, w = np.arange(4.0), np.array([1.0, -2.0, 3.0])
    >>> A.T @ ((B @ x) * (G @ w))
    array([4., 6.])
    """
    t = m + r - 1
    finite = np.array(POINTS[: t - 1])

    def values(length: int) -> Matrix:
        leading = np.zeros((1, length))
        leading[0, -1] = 1.0
        return np.vstack([np.vander(finite, length, increasing=True), leading])

    return np.linalg.inv(values(t)).T, values(r), values(m)


@dataclass(frozen=True)
class Plan:
    """Sizes of the algorithm for one convolution, vertical and horizontal.

    Attributes
    ----------
    results : tuple of int
        m: results of a tile.
    weights : tuple of int
        r: weights after strides have become channels, ⌈kernel / stride⌉.
    tiles : tuple of int
        Tiles that cover the upper image.
    cost : float
        Multiply-adds a sample of all three contractions, transforms included, and numbers moved
        at the price of ``MOVE`` multiply-adds each.
    """

    results: Pair
    weights: Pair
    tiles: Pair
    cost: float

    @property
    def points(self) -> Pair:
        """Points of each axis, t = m + r − 1."""
        return self.results[0] + self.weights[0] - 1, self.results[1] + self.weights[1] - 1


def plan(synapse: Convolution, rows: int) -> Plan | None:
    """Return the cheapest sizes for a convolution of so many rows.

    None if its kernel is too large for any. With few rows smaller tiles pay, since they transform
    the weights to fewer points.
    """
    kernel, stride = synapse.kernel, synapse.stride
    r = (-(-kernel[0] // stride[0]), -(-kernel[1] // stride[1]))
    most = len(POINTS) + 1
    plans = [
        _plan(synapse, (mh, mw), r, rows)
        for mh in _choices(r[0], most, synapse.output_shape[0])
        for mw in _choices(r[1], most, synapse.output_shape[1])
    ]
    return min(plans, key=lambda each: each.cost, default=None)


def _choices(r: int, most: int, size: int) -> range:
    """Return the m to consider: with one weight nothing is saved by m > 1."""
    return range(1, 2 if r == 1 else min(most - r + 1, size) + 1)


def _plan(synapse: Convolution, m: Pair, r: Pair, rows: int) -> Plan:
    height, width, upper = synapse.output_shape
    lower = synapse.shape[2] * math.prod(synapse.stride)
    tiles = -(-height // m[0]), -(-width // m[1])
    t = (m[0] + r[0] - 1) * (m[1] + r[1] - 1)
    moved = t * (lower + upper) + math.prod(m) * upper + t * lower
    each = 3 * t * lower * upper + 2 * t * t * lower + 2 * t * math.prod(m) * upper
    # ŵ is made, and the gradient's transform summed and undone
    weights = lower * upper * (2 * t * math.prod(r) + MOVE * 4 * t)
    return Plan(m, r, tiles, math.prod(tiles) * (each + MOVE * moved) + weights / rows)


def definition_cost(synapse: Convolution) -> float:
    """Return the same for windows laid out as rows."""
    height, width, upper = synapse.output_shape
    window = math.prod(synapse.kernel) * synapse.shape[2]
    return height * width * (3 * window * upper + MOVE * 3 * window)
