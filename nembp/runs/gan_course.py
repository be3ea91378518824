"""The course of an adversarial training: checkpoints, their scores, and the final ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from nembp.adversarial.scores import average_scores
from nembp.adversarial.trainer import AdversarialTrainer
from nembp.engine.optimizers import OPTIMIZERS, Optimizer
from nembp.runs.gan_preparation import PreparedGan, noise_of

__all__ = ["Course", "trainer_of"]

Row = dict[str, Any]
EARLY = 2500  # samples scored while a run learns, at most; its last checkpoints have more
SCORED_SEED = 1 << 20  # of the z that are scored, apart from those that are drawn


class Course:
    """Trains as prepared, and scores samples at even steps.

    Parameters
    ----------
    prepared : PreparedGan
        What it trains.
    on_row : callable, optional
        Told the row of each checkpoint; True ends the training.

    Attributes
    ----------
    rows : list of dict
        One a checkpoint: ``iteration``, the players' objectives since the one before, ``noise/...``
        and the scores.
    trainer : AdversarialTrainer
    """

    def __init__(self, prepared: PreparedGan, on_row: Callable[[Row], Any] | None = None) -> None:
        config = prepared.config
        self.prepared, self.on_row = prepared, on_row
        self.iterations = config.iterations or 1
        self.every = -(-self.iterations // (config.checkpoints or 1))
        self.averaged = config.averaged or 1
        self.rows = list[Row]()
        self.scores = list[dict[str, float]]()
        self.seconds = 0.0  # of training, without scoring
        self.trainer = trainer_of(prepared, report_every=self.every, callbacks=[self._row])

    def run(self) -> None:
        """Train to the end.

        Raises
        ------
        DivergenceError
            If the training diverged; the players are then those of the last good check.
        """
        self._began = time.perf_counter()
        self.trainer.run()

    def final(self) -> dict[str, float]:
        """Return the means of the scores over the last checkpoints."""
        return average_scores(self.scores, self.averaged)

    def _row(self, row: Row) -> bool | None:
        self.seconds += time.perf_counter() - self._began
        scores = self._score(int(row["iteration"]))
        self.scores.append(scores)
        rate = row["iteration"] / self.seconds
        full = row | {"iteration": int(row["iteration"])} | scores
        full |= {"seconds": self.seconds, "iterations_per_second": rate}
        self.rows.append(full)
        stop = None if self.on_row is None else self.on_row(full)
        self._began = time.perf_counter()
        return bool(stop)

    def _score(self, iteration: int) -> dict[str, float]:
        prepared = self.prepared
        n = prepared.config.scored_samples or prepared.scorer.samples
        to_come = -((iteration - self.iterations) // self.every)
        if to_come >= self.averaged:
            n = min(n, EARLY)
        samples = self.trainer.sample(n, seed=SCORED_SEED + iteration)
        with np.errstate(all="ignore"):
            return prepared.scorer.score(samples)


def trainer_of(
    prepared: PreparedGan, *, report_every: int, callbacks: list[Callable[[Row], Any]]
) -> AdversarialTrainer:
    """Return the trainer that a configuration describes."""
    config = prepared.config
    return AdversarialTrainer(
        prepared.generator,
        prepared.discriminator,
        prepared.reader(),
        prepared.settings,
        batch_size=config.batch_size or 1,
        iterations=config.iterations or 1,
        optimizers=(
            _optimizer(prepared, config.learning_rate),
            _optimizer(prepared, config.discriminator_rate),
        ),
        schedule=config.schedule or "constant",
        noise=noise_of(config),
        seed=config.seed or 0,
        report_every=report_every,
        callbacks=callbacks,
        cuda_graphs=config.cuda_graphs != "off",
    )


def _optimizer(prepared: PreparedGan, rate: float | None) -> Optimizer:
    config = prepared.config
    name = config.optimizer or "adam"
    chosen = {"momentum": config.momentum, "decay": config.decay}
    words = {key: value for key, value in chosen.items() if value is not None}
    if name == "adam":
        words = {{"momentum": "beta1", "decay": "beta2"}[key]: words[key] for key in words}
    return OPTIMIZERS[name](rate, **words)
