"""Which coordinates to measure: all of them, or enough that none can be wrong unseen.

Where two values a coordinate are too many, group tests find a wrong coordinate among n in about
log₂ n measurements. A direction of random signs over a group shows an error of any one member in
full, so one measurement clears the group or convicts it; halving a convicted group ends at the
coordinate. Members whose share of the slope is too small to be judged in a large group are
measured again in groups of their like.
"""

from __future__ import annotations

import numpy as np

from nembp.verification.examination import FOUND, Examination
from nembp.verification.layout import Vector
from nembp.verification.reports import Coordinate

__all__ = ["affordable", "measure_all", "measure_groups", "measure_neighbours"]

PER_COORDINATE = 5  # values of a quick measurement, and a reserve
SWEEP = 36  # values of a sweep at most
FEW = 16  # so many coordinates are all swept
SAMPLE = 12  # random coordinates measured one by one beside the groups
LARGEST = 4  # and those of the largest share in the slope
ROUNDS = 12  # wrong coordinates looked for one after another


def affordable(examination: Examination, budget: int) -> bool:
    """Whether every coordinate can be measured by itself within ``budget`` values."""
    each = 1 if examination.analytic else PER_COORDINATE
    return examination.size * each + 4 * SWEEP <= budget - examination.objective.values


def measure_all(examination: Examination, budget: int) -> list[Coordinate]:
    """Measure every coordinate by itself; return groups that are wrong although no member is.

    All are measured quickly, then thoroughly those that seem wrong or unclear. A direction over
    all of them tells an error that is too small, or too widely spread, to be seen in any one.
    """
    size = examination.size
    if size <= FEW:
        for index in range(size):
            examination.measure(index)
    else:
        _measure_quickly(examination, budget)
    if size == 1 or any(not c.passed for c in examination.measured.values()):
        return []
    return _cover(examination, np.arange(size), budget)


def _measure_quickly(examination: Examination, budget: int) -> None:
    size, generator = examination.size, examination.generator
    if not examination.analytic:
        examination.calibrate(generator.permutation(size)[:3])
    for index in range(size):
        examination.measure(index, thorough=False)
    suspects = sorted(examination.measured.items(), key=lambda item: -item[1].excess)
    confirmed = 0
    for index, coordinate in suspects:
        enough = coordinate.passed or confirmed == ROUNDS
        if enough or examination.objective.values + SWEEP > budget:
            break
        confirmed += not examination.measure(index).passed
    _sharpen(examination, budget)


def _sharpen(examination: Examination, budget: int) -> None:
    """Measure thoroughly the coordinates in which 0.1 % would not have been found, if it helps."""
    gradient, helped = np.abs(examination.gradient), 0
    unclear = np.flatnonzero((examination.threshold > FOUND * gradient) & (gradient > 0.0))
    for count, index in enumerate(unclear[np.argsort(-gradient[unclear])]):
        if examination.analytic or examination.objective.values + SWEEP > budget:
            return
        if count >= 8 and helped < count // 4:
            return
        before = examination.measured[int(index)].tolerance
        helped += examination.measure(int(index)).tolerance < 0.5 * before


def measure_groups(examination: Examination, budget: int) -> list[Coordinate]:
    """Measure a sample one by one and all coordinates in groups; return what is wrong."""
    share = np.abs(examination.gradient) * examination.scale
    largest = np.argsort(-share)[:LARGEST]
    sample = examination.generator.permutation(examination.size)[:SAMPLE]
    for index in np.unique(np.concatenate([largest, sample])):
        examination.measure(int(index))
    wrong = _cover(examination, np.arange(examination.size), budget)
    rest = np.arange(examination.size)
    while not wrong:
        unclear = _unclear(examination)
        if unclear.size == 0 or unclear.size > 0.8 * rest.size:
            break
        if examination.objective.values + SWEEP > budget:
            break
        rest = unclear
        wrong = _cover(examination, rest, budget)
    return wrong


def _unclear(examination: Examination) -> Vector:
    """Return the coordinates in which an error of 0.1 % would not have been found yet."""
    gradient = np.abs(examination.gradient)
    typical = float(np.sqrt(np.mean(gradient**2)))
    # where the gradient is zero: an error of 0.1 % of a typical coordinate
    aim = FOUND * np.where(gradient > 0.0, gradient, typical)
    return np.flatnonzero(examination.threshold > aim)


def _cover(examination: Examination, members: Vector, budget: int) -> list[Coordinate]:
    """Return the coordinates of a group that are wrong, found one after another.

    A coordinate once measured counts as what was measured, so that it does not hide another. Where
    no single coordinate explains what the group shows, the group itself is returned.
    """
    wrong: list[Coordinate] = []
    for _ in range(ROUNDS):
        if examination.objective.values + SWEEP > budget:
            break
        seen = examination.probe(members)
        if seen.passed:
            break
        again = examination.probe(members)
        if again.passed:  # chance, or errors that cancelled once: the next look decides
            continue
        index = _locate(examination, members, budget)
        if index is None or examination.claim[index] != examination.gradient[index]:
            wrong += _convict(examination, members)
            break
        found = examination.measure(index)
        examination.claim[index] = found.numeric
        if not found.passed:
            wrong.append(found)
    return wrong


def _convict(examination: Examination, members: Vector) -> list[Coordinate]:
    """Return a group that is wrong although no member is; from the longest steps, and twice.

    At a kink the slopes of its members do not add up, so there a group tells nothing.
    """
    seen = []
    for _ in range(2):
        examination.lines.restart()
        seen.append(examination.probe(members))
        if seen[-1].passed or seen[-1].sides is not None:
            return []
    return [] if examination.is_unsettled(members) else seen[:1]


def _locate(examination: Examination, members: Vector, budget: int) -> int | None:
    """Halve a group that is wrong until one coordinate is left; None if it gets lost."""
    while members.size > 1:
        halves = members[: members.size // 2], members[members.size // 2 :]
        seen = []
        for half in halves:
            if examination.objective.values + SWEEP > budget:
                return None
            seen.append(examination.probe(half))
            if seen[-1].excess > 2.0 and len(seen) == 1 and members.size > 2:
                break
        k = int(np.argmax([c.excess for c in seen]))
        if seen[k].passed:
            return None
        members = halves[k]
    return int(members[0])


def measure_neighbours(examination: Examination, index: int, budget: int) -> None:
    """Measure what tells a cause: neighbours of a wrong coordinate, its block, and a sample."""
    block = examination.objective.layout.block_of(index)
    generator = examination.generator
    near = np.arange(max(index - 12, block.start), min(index + 13, block.start + block.size))
    inside = block.start + generator.permutation(block.size)[:24]
    anywhere = generator.permutation(examination.size)[:24]
    for other in np.unique(np.concatenate([near, inside, anywhere])):
        if examination.objective.values + SWEEP > budget:
            return
        if int(other) not in examination.measured:
            examination.measure(int(other))
