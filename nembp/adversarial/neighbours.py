"""Precision and recall of generated samples by nearest neighbours (Kynkäänniemi et al. 2019).

A set's manifold is the union of balls about its points, each as wide as the distance to that
point's k-th nearest neighbour in the set. Precision is the share of generated points in the real
manifold, how believable they are; recall is the share of real points in the generated manifold,
how much of the data is covered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nembp.errors import ShapeError

__all__ = ["precision_recall", "squared_radii"]

Floats: TypeAlias = NDArray[np.float64]

K = 3  # as in the publication
BLOCK = 1 << 21  # distances held at a time: 16 MiB
SLACK = 1e-12  # of the largest square: rounding of a product may not put a point out of its ball


def precision_recall(real: ArrayLike, generated: ArrayLike, k: int = K) -> tuple[float, float]:
    """Shares of generated points among the real ones, and of real among the generated ones.

    Parameters
    ----------
    real, generated : array, shape (n, d) and (m, d)
        Features. The publication takes as many of both, since more points make wider manifolds.
    k : int
        Neighbours, the point itself not counted.

    Returns
    -------
    precision, recall : float
        From 0 to 1.

    Raises
    ------
    ShapeError
        If widths differ, or a set has k points or fewer.

    >>> line = np.arange(10.0)[:, np.newaxis]
    >>> precision_recall(line, line[:5]), precision_recall(line, line + 100)
    ((1.0, 0.8), (0.0, 0.0))
    """
    a, b = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) <= k:
        raise ShapeError(
            f"features of shape {a.shape} and {b.shape}; expected (n, d) and (m, d) with more than "
            f"{k} rows each"
        )
    centre = a.mean(axis=0)  # products of centred points lose fewer digits
    a, b = a - centre, b - centre
    return _share(b, a, squared_radii(a, k)), _share(a, b, squared_radii(b, k))


def squared_radii(points: Floats, k: int = K) -> Floats:
    """Squared distance of each point to its k-th nearest neighbour, shape (n,).

    Raises
    ------
    ShapeError
        If there are k points or fewer.
    """
    if len(points) <= k:
        raise ShapeError(f"{len(points)} points; expected more than k={k}")
    radii = np.empty(len(points))
    for part, square in _distances(points, points):
        rows = np.arange(len(square))
        square[rows, part.start + rows] = -1.0  # the point itself, whatever rounding says
        radii[part] = np.partition(square, k, axis=1)[:, k]
    return radii


def _share(points: Floats, centres: Floats, radii: Floats) -> float:
    """Share of points that lie in a ball."""
    largest = max(np.square(points).sum(axis=1).max(), np.square(centres).sum(axis=1).max())
    reach = radii + SLACK * largest
    inside = sum(
        int((square <= reach).any(axis=1).sum()) for _, square in _distances(points, centres)
    )
    return inside / len(points)


def _distances(a: Floats, b: Floats) -> Iterator[tuple[slice, Floats]]:
    """Squared distances of a block of rows of ``a`` to all of ``b``, block by block."""
    squares = np.square(b).sum(axis=1)
    step = max(1, BLOCK // len(b))
    for start in range(0, len(a), step):
        part = slice(start, min(start + step, len(a)))
        square = a[part] @ b.T
        square *= -2.0
        square += squares
        square += np.square(a[part]).sum(axis=1)[:, np.newaxis]
        yield part, np.maximum(square, 0.0, out=square)
