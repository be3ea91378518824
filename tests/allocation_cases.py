"""Trainers whose allocations are traced."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.network import dense_network
from nembp.engine.noise import Noise
from nembp.engine.training import Trainer

ROWS, SIZES = 2048, (210, 48, 44, 10)
SMALLEST = 4 * min(ROWS, *(m * n for m, n in pairwise(SIZES[:-1])))
BOUND = SMALLEST // 2


def peak_of(step: Callable[[], Any]) -> int:
    """Return the most bytes that a warmed-up ``step`` holds at once beyond what it found."""
    tracemalloc.start()
    try:
        step()  # what tracemalloc itself, or Python's caches, keep of a first step
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def trainer_of(
    pair: tuple[str, str] = ("multinomial", "gaussian"),
    *,
    data: str = "uint8",
    labels: bool = True,
    activation: str = "relu",
    normalization: BatchNormalization | None = None,
    dtype: str = "float32",
    **options: Any,
) -> Trainer:
    """Return a trainer of 8-bit images or of a float table, after a step and a short batch."""
    generator = np.random.default_rng(0)
    n, scaling = ROWS + 64, Scaling(factor=1 / 255)
    x = generator.integers(0, 255, (n, SIZES[0])).astype(data)
    y = generator.integers(0, 10, n)
    if data != "uint8":
        scaling = Scaling(offset=x.mean(axis=0), factor=1.0 / x.std(axis=0))
    net = dense_network(
        SIZES,
        activation=activation,
        normalization=normalization,
        forward=pair[0],
        backward=pair[1],
        dtype=dtype,
    )
    split = Split(x, y if labels else np.eye(10)[y])
    reader = BatchReader(split, scaling, Scaling(), 10, net.backend, dtype)
    trainer = Trainer(net, reader, batch_size=ROWS, epochs=9, **options)
    for rows in (ROWS, 64):
        trainer.step(np.arange(rows))
    return trainer


def peak_of_training(trainer: Trainer) -> int:
    """Return the peak of a full batch and a last, short one, on rows in random order."""
    order = np.random.default_rng(1).permutation(trainer.reader.n)
    full, short = order[:ROWS], order[ROWS:]

    def steps() -> None:
        trainer.step(full)
        trainer.step(short)

    return peak_of(steps)


def both(kind: str, **options: Any) -> dict[str, Noise]:
    return {direction: Noise(kind, **options) for direction in ("forward", "backward")}


def wrap(owner: Any, name: str) -> tuple[Any, str, Any]:
    """Plant one needless temporary column of floats into a method."""
    original = getattr(owner, name)

    def planted(*args: Any, **options: Any) -> Any:
        temporary = np.empty((ROWS, 1), "float32")
        result = original(*args, **options)
        del temporary
        return result

    return owner, name, planted
