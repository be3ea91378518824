"""Iterations whose changing numbers lie on a GPU, so that they can be captured as CUDA graphs.

A block of iterations is laid out at once: for each turn of D its samples, the learning rates and
bias corrections of both optimizers, the schedule of the backward weights, and the standard
deviation of every noise. G takes what D's last turn of the iteration had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp.adversarial.turns import Numbers, Turns
from nembp.backend import Array
from nembp.datasets.reading import Staged
from nembp.engine.optimizers import Optimizer

__all__ = ["IterationsOnDevice"]

OF_D, OF_G, COURSE, NOISE = slice(0, 3), slice(3, 6), slice(6, 7), 7  # columns of the table


@dataclass(frozen=True)
class _OnDevice(Numbers):
    """Numbers that the losses and the noise find on the device by themselves."""

    clock: tuple[int, int] | None = None
    moves: Any = None

    def move(self, optimizer: Optimizer) -> None:
        optimizer.backend.optimizer_step(optimizer, self.moves[optimizer])


class IterationsOnDevice:
    """The iterations of an :class:`~nembp.adversarial.trainer.AdversarialTrainer`.

    Samples that are held on the device are read by the iteration itself, which is one graph;
    others are read before each turn of D, and each player's turn is a graph.

    Parameters
    ----------
    turns : Turns
        Whose optimizers have kernels on the device. Their noise and losses get their numbers there
        from now on.
    batch_size : int
        Samples of a turn of D.
    most : int
        Turns of D that are laid out at once, at most.
    graphs : bool
        Whether to capture.
    """

    def __init__(self, turns: Turns, batch_size: int, most: int, *, graphs: bool) -> None:
        self._turns, self._rows = turns, batch_size
        self._sources = [*turns.d.sources.values(), *turns.g.sources.values(), *turns.g.seen]
        backend = turns.generator.backend
        width = NOISE + len(self._sources)
        self._steps = backend.steps(most * batch_size, batch_size, width)
        capture: Any = backend.capture if graphs else _called
        self.iteration = capture(self._iteration)
        self.discriminate = capture(self._discriminate)
        self.generate = capture(self._generate)

    @property
    def captured(self) -> int:
        """Iterations that a CUDA graph made."""
        return max(getattr(each, "launches", 0) for each in (self.iteration, self.generate))

    @property
    def reason(self) -> str | None:
        """Why iterations are not captured; None if they are."""
        last = self.iteration if self._turns.reader.is_resident else self.generate
        return getattr(last, "reason", "switched off")

    def lay_out(self, order: np.ndarray[Any, Any], numbers: Sequence[Numbers]) -> None:
        """Lay out turns of D to come: their samples in order, and the numbers of each."""
        (of_g, of_d), steps = self._turns.optimizers, self._turns.settings.steps
        rows = []
        for turn, each in enumerate(numbers):
            clock = each.clock or (1, 1)
            row = [
                *of_d.numbers(of_d.steps + turn + 1, each.factor),
                *of_g.numbers(of_g.steps + turn // steps + 1, each.factor),
                each.course,
                *(source.noise.std_at(*clock) for source in self._sources),
            ]
            rows.append(row)
        self._steps.lay_out(order, np.array(rows))

    def iterate(self, batches: Iterator[tuple[Array, Staged]]) -> None:
        """Make the next iteration that was laid out; ``batches`` are asked for staged samples."""
        turns, steps = self._turns, self._turns.settings.steps
        if turns.reader.is_resident:
            self.iteration()
        else:
            for _ in range(steps):
                self._read(next(batches)[1])
                self.discriminate()
            self.generate()
        for optimizer, moves in zip(turns.optimizers, (1, steps), strict=True):
            optimizer.steps += moves

    def _iteration(self) -> None:
        for _ in range(self._turns.settings.steps):
            self._read()
            self._discriminate()
        self._generate()

    def _read(self, staged: Staged = None) -> None:
        """Take the next numbers and samples; both lie in the same memory at every step."""
        numbers, index = self._steps.take(self._rows)
        for column, source in enumerate(self._sources, start=NOISE):
            source.std = numbers[column]
        if self._turns.settings.weight_schedule != "constant":
            for player in (self._turns.d, self._turns.g):
                player.follow(numbers[COURSE])
        of_g, of_d = self._turns.optimizers
        self._numbers = _OnDevice(moves={of_d: numbers[OF_D], of_g: numbers[OF_G]})
        self._turns.read(index, staged)

    def _discriminate(self) -> None:
        self._turns.discriminate(self._numbers)

    def _generate(self) -> None:
        self._turns.generate(self._numbers)


def _called(function: Any) -> Any:
    return function
