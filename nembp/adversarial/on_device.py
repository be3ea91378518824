"""Iterations whose changing numbers lie on the device, captured and replayed (:mod:`nembp.engine.training`).

A block of iterations is laid out at once: for each turn of D its samples, the learning rates and
bias corrections of both optimizers, the course of the backward weights, and the deviation of every
noise. G takes what D's last turn of the iteration had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nembp.adversarial.turns import Numbers, Turns
from nembp.backend import Array
from nembp.datasets.reading import Staged
from nembp.engine.optimizers import Optimizer
from nembp.engine.training import Replay

__all__ = ["IterationsOnDevice"]

OF_D, OF_G, COURSE, NOISE = slice(0, 3), slice(3, 6), slice(6, 7), 7  # columns of the table


@dataclass(frozen=True)
class _OnDevice(Numbers):
    """Numbers that the optimizers, the ends and the noise find on the device by themselves."""

    moves: Mapping[Optimizer, Array] = field(default_factory=dict)

    def move(self, optimizer: Optimizer) -> None:
        optimizer.apply(self.moves[optimizer])


class IterationsOnDevice:
    """The iterations of an :class:`~nembp.adversarial.trainer.AdversarialTrainer`.

    Samples that are held on the device are read by the iteration itself, which is one graph;
    others are read before each turn of D, and each player's turn is a graph.

    Parameters
    ----------
    turns : Turns
        Whose optimizers have kernels on the device. Their noise and ends get their numbers there
        from now on.
    batch_size : int
        Samples of a turn of D.
    most : int
        Turns of D that are laid out at once, at most.
    graphs : bool
        Whether to capture.

    Attributes
    ----------
    replay : Replay
        With the iterations that were captured, or why none was.
    """

    def __init__(self, turns: Turns, batch_size: int, most: int, *, graphs: bool) -> None:
        self._turns, self._rows = turns, batch_size
        self._sources = [*turns.d.sources.values(), *turns.g.sources.values(), *turns.g.seen]
        self.replay = Replay(
            turns.generator.backend,
            most * batch_size,
            batch_size,
            NOISE + len(self._sources),
            graphs=graphs,
        )
        numbers = self.replay.numbers
        for column, source in enumerate(self._sources, start=NOISE):
            source.deviation = numbers[column : column + 1]
        if turns.settings.weight_schedule != "constant":
            for player in (turns.d, turns.g):
                player.follow(numbers[COURSE])
        of_g, of_d = turns.optimizers
        self._numbers = _OnDevice(moves={of_d: numbers[OF_D], of_g: numbers[OF_G]})

    def lay_out(self, order: np.ndarray[Any, Any], numbers: Sequence[Numbers]) -> None:
        """Lay out turns of D to come: their samples in order, and the numbers of each."""
        (of_g, of_d), steps = self._turns.optimizers, self._turns.settings.steps
        rows = []
        for turn, each in enumerate(numbers):
            row = [
                *of_d.numbers(of_d.steps + turn + 1, each.factor),
                *of_g.numbers(of_g.steps + turn // steps + 1, each.factor),
                each.course,
                *(source.noise.std_at(*each.clock) for source in self._sources),
            ]
            rows.append(row)
        self.replay.lay_out(order, np.array(rows))

    def iterate(self, batches: Iterator[tuple[Array, Staged]]) -> None:
        """Make the next iteration that was laid out; ``batches`` are asked for staged samples."""
        turns, replay, steps = self._turns, self.replay, self._turns.settings.steps
        if turns.reader.is_resident:
            made = [replay.do("iteration", self._iteration)]
        else:
            made = []
            for _ in range(steps):
                self._read(next(batches)[1])
                made.append(replay.do("discriminator", self._discriminate))
            made.append(replay.do("generator", self._generate))
        replay.captured += all(made)
        for optimizer, moves in zip(turns.optimizers, (1, steps), strict=True):
            optimizer.steps += moves

    def _iteration(self) -> None:
        for _ in range(self._turns.settings.steps):
            self._read()
            self._discriminate()
        self._generate()

    def _read(self, staged: Staged = None) -> None:
        self.replay.take(self._rows)
        self._turns.read(self.replay.index(self._rows), staged)

    def _discriminate(self) -> None:
        self._turns.discriminate(self._numbers)

    def _generate(self) -> None:
        self._turns.generate(self._numbers)
