"""Training steps whose changing numbers lie on the device, so that a captured step can be replayed.

A replayed CUDA graph does what it did when it was captured, on the same buffers. So what changes
from step to step is laid out for many steps at once, an epoch's or those until the next report: a
table with a row for each step (learning rate, bias corrections, deviations of the noise) and the
order of the samples. Every step begins by taking its own row and its own samples, and counts on by
itself; noise streams count their draws likewise. Nothing is copied to the device or asked of it in
between, captured or not, and both do the same calls on the same buffers: they give the same
numbers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nembp.backend import Array
from nembp.batches import Staged
from nembp.noise import Noise

if TYPE_CHECKING:
    from nembp.joint import JointBackpropagation
    from nembp.training import Trainer

__all__ = ["Replay", "StepsOnDevice"]

WARM_UP = 2  # plain calls of a work before it is captured: kernels are compiled, buffers allocated


class Replay:
    """Steps on a device that can capture them.

    Parameters
    ----------
    backend : CupyBackend
        The device.
    samples, batch_size : int
        Samples that are laid out at once, at most; every batch but the last has ``batch_size``.
    width : int
        Numbers of a step.
    graphs : bool
        Whether to capture; otherwise every step is made call by call.

    Attributes
    ----------
    numbers : array of float64, shape (width,)
        Those of the step in progress.
    captured : int
        Steps that graphs made, as their owner counts them.
    reason : str or None
        Why nothing is captured any more.
    """

    def __init__(
        self, backend: Any, samples: int, batch_size: int, width: int, *, graphs: bool = True
    ) -> None:
        steps = -(-samples // batch_size)
        self.backend, self.batch_size = backend, batch_size
        self.numbers = backend.zeros((width,), "float64")
        self._table = backend.zeros((steps, width), "float64")
        self._order = backend.zeros((samples,), "int64")
        self._index = backend.zeros((batch_size,), "int64")
        self._step = backend.zeros((1,), "int64")
        self._seen: dict[Hashable, int] = {}
        self._graphs: dict[Hashable, Any] = {}
        self.captured = 0
        self.reason = None if graphs else "switched off"

    def index(self, rows: int) -> Array:
        """Return where a step of so many samples finds their numbers."""
        return self._index[:rows]

    def lay_out(self, order: np.ndarray[Any, Any], table: np.ndarray[Any, Any]) -> None:
        """Lay out steps to come: their samples in order, and a row of numbers for each of them."""
        backend = self.backend
        self._order[: len(order)] = backend.asarray(order, "int64")
        self._table[: len(table)] = backend.asarray(table, "float64")
        self._step[...] = 0

    def take(self, rows: int) -> None:
        """Begin a step of so many samples: take its row, and the numbers of its samples."""
        self.backend.begin_step(
            self._step, self._table, self.numbers, self._order, self.batch_size, self.index(rows)
        )

    def do(self, name: Hashable, work: Callable[[], object]) -> bool:
        """Do a work of a name, always the same calls on the same buffers; say whether by a graph.

        It is done call by call twice, captured the third time, and replayed from then on. Where
        capturing fails all goes on call by call, and ``reason`` says why.
        """
        graph = self._graphs.get(name)
        if graph is None and self.reason is None and self._seen.get(name, 0) >= WARM_UP:
            graph = self._capture(name, work)
        if graph is None:
            work()
            self._seen[name] = self._seen.get(name, 0) + 1
            return False
        graph.launch()
        return True

    def _capture(self, name: Hashable, work: Callable[[], object]) -> Any:
        from nembp.backend.graphs import CAPTURE_ERRORS

        try:
            self._graphs[name] = self.backend.capture(work)
        except CAPTURE_ERRORS as error:
            words = str(error).strip() or type(error).__name__
            self.reason = f"a step cannot be captured ({words.splitlines()[0]})"
            return None
        return self._graphs[name]


class StepsOnDevice:
    """The steps of a :class:`~nembp.training.Trainer` by :class:`Replay`.

    Parameters
    ----------
    trainer : Trainer
        Whose optimizer has a kernel on the device.
    noise : mapping of str to Noise
        The trainer's, whose deviation may change from step to step.
    graphs : bool
        Whether to capture.

    Attributes
    ----------
    replay : Replay
        With what was captured, or why nothing was.
    """

    def __init__(self, trainer: Trainer, noise: Mapping[str, Noise], *, graphs: bool) -> None:
        reader, backend = trainer.reader, trainer.net.backend
        self._trainer, self._noise = trainer, list(noise.values())
        self._joints: dict[int, JointBackpropagation] = {}
        width = 3 + len(noise)
        self.replay = Replay(backend, reader.n, trainer.batch_size, width, graphs=graphs)

    def begin_epoch(self, order: np.ndarray[Any, Any]) -> None:
        """Lay out an epoch's numbers, a row a step: the optimizer's, then each noise's σ."""
        trainer, rows = self._trainer, []
        for number in range(trainer.steps_per_epoch):
            iteration, step = trainer.iteration + number, trainer.optimizer.steps + number + 1
            moves = trainer.optimizer.numbers(step, trainer.factor(iteration))
            deviations = (each.std_at(trainer.epoch, iteration + 1) for each in self._noise)
            rows.append([*moves, *deviations])
        self.replay.lay_out(order, np.array(rows))

    def step(self, index: Array, staged: Staged = None) -> None:
        """Make the next step of the epoch, on its own samples: ``index`` tells their number."""
        trainer, replay, rows = self._trainer, self.replay, index.shape[0]
        joint, reader = self._joint(rows), trainer.reader
        eta = trainer.optimizer.learning_rate
        trainer.learning_rate = trainer.factor(trainer.iteration) * eta
        trainer.iteration += 1
        trainer.optimizer.steps += 1

        def read() -> None:
            replay.take(rows)
            reader.read(replay.index(rows), joint.x, joint.t, staged)

        def work() -> None:
            if reader.is_resident:
                read()
            joint(trainer.gradient, trainer.epoch, trainer.iteration)
            trainer.optimizer.apply(replay.numbers)
            trainer.record(joint)

        if not reader.is_resident:
            read()  # from the host, which no graph does
        replay.captured += replay.do(rows, work)

    def _joint(self, rows: int) -> JointBackpropagation:
        """Return the trainer's gradient, whose noise finds its deviation on the device."""
        if rows not in self._joints:
            joint = self._joints[rows] = self._trainer.joint(rows)
            for column, noise in enumerate(self._noise, start=3):
                for source in joint.sources.values():
                    if source.noise is noise:
                        source.deviation = self.replay.numbers[column : column + 1]
        return self._joints[rows]
