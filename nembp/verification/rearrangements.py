"""Mistakes that leave a gradient's numbers right and put them in the wrong places."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from nembp.verification.layout import Block, Layout, Vector

__all__ = ["CLOSE", "rearrangement"]

CLOSE = 1e-3  # relative agreement that a guess must reach
SHIFTS = (1, -1, 2, -2, 3, -3, 4, -4)


def rearrangement(layout: Layout, analytic: Vector, numeric: Vector, wrong: Vector) -> str | None:
    """Return which rearrangement of ``analytic`` is ``numeric`` where that is known, or None.

    Axes of a block permuted (a transposed matrix or kernel) or flipped, two blocks swapped, all
    entries shifted, or the wrong entries permuted.
    """
    if _agrees(analytic, numeric, wrong, 10.0 * CLOSE):
        return None  # too small an error to come from other entries
    for guess in (_axes, _swapped, _shifted, _permuted):
        found = guess(layout, analytic, numeric, wrong)
        if found:
            return found
    return None


def _agrees(candidate: Vector, numeric: Vector, scope: Vector, close: float = CLOSE) -> bool:
    expected = numeric[scope]
    size = float(np.max(np.abs(expected), initial=0.0))
    return bool(np.all(np.abs(candidate[scope] - expected) <= close * size))


def _measured(block: Block, numeric: Vector) -> Vector:
    inside = np.zeros(numeric.size, dtype=bool)
    inside[block.piece] = True
    return inside & np.isfinite(numeric)


def _axes(layout: Layout, analytic: Vector, numeric: Vector, wrong: Vector) -> str | None:
    for block in _arrays(layout):
        scope = _measured(block, numeric)
        if np.count_nonzero(scope & wrong) < 2 or np.count_nonzero(scope) < 4:
            continue
        for what, values in _rearranged(block, analytic[block.piece]):
            candidate = analytic.copy()
            candidate[block.piece] = values
            if _agrees(candidate, numeric, scope):
                return f"{block.name} of shape {block.shape} is {what}"
    return None


def _arrays(layout: Layout) -> Iterator[Block]:
    """Yield the blocks of more than one axis; a lone flat vector as any matrix it could be."""
    for block in layout.blocks:
        if len(block.shape) > 1:
            yield block
    if len(layout.blocks) == 1 and len(layout.blocks[0].shape) == 1:
        block = layout.blocks[0]
        for m in range(2, min(block.size // 2, 512) + 1):
            if block.size % m == 0:
                yield Block(block.name, 0, (m, block.size // m))


def _rearranged(block: Block, values: Vector) -> Iterator[tuple[str, Vector]]:
    axes = tuple(range(len(block.shape)))
    for order in itertools.permutations(axes):
        if order != axes:
            stored = values.reshape([block.shape[k] for k in order])
            what = f"stored with its axes in the order {order}"
            right = np.transpose(stored, np.argsort(order)).reshape(-1)
            yield "transposed" if len(axes) == 2 else what, right
    array = values.reshape(block.shape)
    for flipped in ((0,), (1,), (0, 1)):
        where = " and ".join(str(k) for k in flipped)
        yield f"flipped along axis {where}", np.flip(array, flipped).reshape(-1)


def _swapped(layout: Layout, analytic: Vector, numeric: Vector, wrong: Vector) -> str | None:
    for one, two in itertools.combinations(layout.blocks, 2):
        scope = _measured(one, numeric) | _measured(two, numeric)
        if one.size != two.size or np.count_nonzero(scope & wrong) < 2:
            continue
        candidate = analytic.copy()
        candidate[one.piece], candidate[two.piece] = analytic[two.piece], analytic[one.piece]
        if _agrees(candidate, numeric, scope):
            return f"swapped blocks: {one.name} and {two.name} hold each other's gradient"
    return None


def _shifted(layout: Layout, analytic: Vector, numeric: Vector, wrong: Vector) -> str | None:
    if np.count_nonzero(wrong) < 3:
        return None
    for shift in SHIFTS:
        if _agrees(np.roll(analytic, shift), numeric, np.isfinite(numeric)):
            return f"shifted: entry i holds the gradient of coordinate i{shift:+d}"
    return None


def _permuted(layout: Layout, analytic: Vector, numeric: Vector, wrong: Vector) -> str | None:
    if np.count_nonzero(wrong) < 3:
        return None
    claimed, expected = np.sort(analytic[wrong]), np.sort(numeric[wrong])
    if np.all(np.abs(claimed - expected) <= CLOSE * np.max(np.abs(expected))):
        return "the right numbers in the wrong places: a permutation"
    return None
