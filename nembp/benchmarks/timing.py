"""Medians of interleaved repeats: contenders take turns, so that a slow spell hits them alike."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

__all__ = ["Contender", "Timing", "interleave", "settle"]

BLOCK = 0.01  # seconds of one timed block: many clock ticks, short beside a slow spell
LONGEST_BLOCK = 200  # steps
LEAST_ROUNDS, MOST_ROUNDS = 3, 25
NAP, LONGEST_SPIN = 0.01, 0.5  # seconds
WARM_UP = 3  # steps before the first timing: lazy allocations, code paths, BLAS buffers


Stopwatch = Callable[[Callable[[], object]], float]


def _nothing() -> None:
    """Wait for nothing: the CPU is done when a call returns."""


@dataclass(frozen=True)
class Contender:
    """A step to time, and what waits until its device has finished.

    ``stopwatch`` returns the seconds that a call keeps a device busy, by the device's own clock;
    without one the host's clock tells, once the device has finished.
    """

    step: Callable[[], object]
    synchronize: Callable[[], None] = field(default=_nothing)
    stopwatch: Stopwatch | None = None

    def run(self, steps: int) -> None:
        """Make ``steps`` steps and wait for them."""
        for _ in range(steps):
            self.step()
        self.synchronize()

    def seconds(self, steps: int, clock: Callable[[], float]) -> float:
        """Return how long ``steps`` steps take."""
        if self.stopwatch is not None:
            return self.stopwatch(lambda: [self.step() for _ in range(steps)])
        begin = clock()
        self.run(steps)
        return clock() - begin


@dataclass(frozen=True)
class Timing:
    """Seconds per step over the rounds: median, quartiles and the least.

    Attributes
    ----------
    median, lower, upper, least : float
        Seconds; half of the rounds lie between ``lower`` and ``upper``.
    rounds, steps : int
        Rounds, and timed steps in each.
    """

    median: float
    lower: float
    upper: float
    least: float
    rounds: int
    steps: int

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        return (self.upper - self.lower) / self.median

    def to_dict(self) -> dict[str, float]:
        """Return the fields and the spread, for JSON."""
        return {**asdict(self), "spread": self.spread}


def interleave(
    contenders: dict[str, Contender],
    *,
    repeats: int | None = None,
    budget: float = 10.0,
    pause: Callable[[], object] = _nothing,
    warm_up: float = 0.0,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every contender in rounds, each round in a new random order.

    In a round a contender makes untimed steps, which bring its data back into the caches, then a
    block of steps of about 10 ms (at least one), whose mean is one measurement.

    Parameters
    ----------
    contenders : dict of Contender
        By name.
    repeats : int, optional
        Rounds; by default as many as fit into ``budget`` seconds, from 3 to 25.
    pause : callable
        Called before a contender's turn: :func:`settle` where there are several threads.
    warm_up : float
        Seconds of untimed steps (at least one). Threads that have slept often wake on one core,
        and it can take a tenth of a second of steps, as in a training run, to part them.
    seed : int
        Of the order.
    clock : callable
        Returns seconds.
    """
    order, shuffle = list(contenders), random.Random(seed)
    start = clock()
    steps = {}
    for name, contender in contenders.items():
        contender.run(WARM_UP)
        steps[name] = _block_steps(contender, clock)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    with _no_collection():
        for finished in range(repeats or MOST_ROUNDS):
            if repeats is None and finished >= LEAST_ROUNDS and clock() - start > budget:
                break
            shuffle.shuffle(order)
            for name in order:
                pause()
                begin = clock()
                contenders[name].run(1)
                while clock() - begin < warm_up:
                    contenders[name].run(1)
                taken = contenders[name].seconds(steps[name], clock)
                seconds[name].append(taken / steps[name])
    return {name: _summary(seconds[name], steps[name]) for name in contenders}


def settle(
    clock: Callable[[], float] = time.process_time, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Wait until this process's other threads sleep, half a second at most.

    Worker threads of a library that has just run keep spinning for a while (OpenBLAS's for a tenth
    of a second), on the cores of the next contender's.
    """
    for _ in range(round(LONGEST_SPIN / NAP)):
        before = clock()
        sleep(NAP)
        if clock() - before < 0.1 * NAP:
            return


def _block_steps(contender: Contender, clock: Callable[[], float]) -> int:
    one = max(contender.seconds(1, clock), 1e-9)
    return max(1, min(LONGEST_BLOCK, round(BLOCK / one)))


def _summary(seconds: Sequence[float], steps: int) -> Timing:
    lower = upper = median = statistics.median(seconds)
    if len(seconds) > 1:
        lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(median, lower, upper, min(seconds), rounds=len(seconds), steps=steps)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from running inside a block."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
