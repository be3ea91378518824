"""A training step that times its parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from nembp.benchmarks.steps import EngineStep

__all__ = ["PARTS", "Stopwatch", "TimedStep"]

PRODUCTS, REST = "products", "Python"
PARTS = (  # in the table's order
    PRODUCTS,
    "neurons",
    "bias sums",
    "output end",
    "input end",
    "noise",
    "Adam",
    REST,
)
METHODS = {  # of JointBackpropagation
    "_activate": "neurons",
    "_multiply_derivative": "neurons",
    "_column_sums": "bias sums",
}


class Stopwatch:
    """Seconds of each part, those of the parts within it not counted.

    >>> now = iter([0.0, 1.0, 3.0, 4.0, 6.0, 8.0])
    >>> watch = Stopwatch(clock=lambda: next(now))
    >>> inner = watch.timed("inner", lambda: None)
    >>> watch.timed("outer", inner)()
    >>> watch.lap()
    {'Python': 3.0, 'outer': 4.0, 'inner': 1.0}
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._since = clock, clock()
        self._seconds: dict[str, float] = {}
        self._within = [REST]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, timed as a part."""

        def call(*args: Any, **options: Any) -> Any:
            self._switch()
            self._within.append(part)
            try:
                return function(*args, **options)
            finally:
                self._switch()
                self._within.pop()

        return call

    def _switch(self) -> None:
        now, part = self._clock(), self._within[-1]
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._since
        self._since = now

    def lap(self) -> dict[str, float]:
        """Return the seconds since the last lap, and start the next one."""
        self._switch()
        seconds, self._seconds = self._seconds, {}
        return seconds


class TimedStep:
    """An :class:`EngineStep` whose parts a stopwatch times; ``laps`` has the seconds of each step.

    What is timed are calls, some fifty a step, at about 0.3 µs each. For networks whose linear maps
    work on the calling thread: dense ones.
    """

    def __init__(self, step: EngineStep, clock: Callable[[], float] = time.perf_counter) -> None:
        self.laps: list[dict[str, float]] = []
        self._step, self._watch = step, Stopwatch(clock)
        timed, joint = self._watch.timed, step.joint
        for name, part in METHODS.items():
            setattr(joint, name, timed(part, getattr(joint, name)))
        for link in joint.maps:
            for name in ("load", "forward", "adjoint", "adjoint_and_gradient"):
                setattr(link, name, timed(PRODUCTS, getattr(link, name)))
        ends = {"output end": joint.output, "input end": joint.input}
        for part, end in ends.items():
            if end is not None:
                end.source = end.source and _TimedSource(  # type: ignore[assignment]
                    end.source, timed("noise", end.source)
                )
                end.error = timed(part, end.error)  # type: ignore[method-assign]
        step.adam.step = timed("Adam", step.adam.step)  # type: ignore[method-assign]

    def __call__(self) -> None:
        """Make a step."""
        self._watch.lap()
        self._step()
        self.laps.append(self._watch.lap())


class _TimedSource:
    """A noise source whose draws are timed."""

    def __init__(self, source: Any, call: Callable[..., Any]) -> None:
        self.noise, self._call = source.noise, call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)
