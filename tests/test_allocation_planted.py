"""The checker of allocations finds what is planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from allocation_cases import (
    BOUND,
    ROWS,
    SMALLEST,
    both,
    peak_of,
    peak_of_training,
    trainer_of,
    wrap,
)

from nembp.backend import NumpyBackend
from nembp.datasets.reading import BatchReader
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.likelihoods import Multinomial
from nembp.engine.noise import NoiseSource
from nembp.engine.optimizers import Optimizer
from nembp.engine.training import Trainer


@pytest.fixture(autouse=True)
def _small_ufunc_buffers():
    before = np.setbufsize(16)
    yield
    np.setbufsize(before)


# -- the checker is checked ------------------------------------------------------------------------


def test_the_smallest_array_would_be_seen():
    assert peak_of(lambda: None) < BOUND // 4
    assert peak_of(lambda: np.empty((ROWS, 1), "float32")) >= SMALLEST
    x, column = np.ones((ROWS, 5), "float32"), np.ones((ROWS, 1), "float32")
    assert peak_of(lambda: np.subtract(x, column, out=x)) < BOUND


def allocating_into(self: Any, out: Any, function: Any, *args: Any) -> Any:
    out[...] = function(*args)
    return out


PLANTED = {
    "into": (NumpyBackend, "into", allocating_into),
    "mask": (NumpyBackend, "keep_where_positive", lambda s, x, a, _: s.keep(x, a > 0)),
    "matmul": (
        NumpyBackend,
        "matmul",
        lambda s, left, right, out: np.copyto(out, left @ right),
    ),
    "gather": (
        NumpyBackend,
        "take_rows",
        lambda s, table, index, out: np.copyto(out, table[index]) or out,
    ),
    "read": wrap(BatchReader, "read"),
    "noise": wrap(NoiseSource, "__call__"),
    "error": wrap(Multinomial, "error"),
    "sweep": wrap(JointBackpropagation, "_sweep_up"),
    "optimizer": wrap(Optimizer, "step"),
    "record": wrap(Trainer, "record"),
}


@pytest.mark.parametrize("bug", list(PLANTED))
def test_an_allocating_step_is_caught(bug, monkeypatch):
    trainer = trainer_of(noise=both("nem"))
    assert peak_of_training(trainer) < BOUND
    monkeypatch.setattr(*PLANTED[bug])
    assert peak_of_training(trainer) >= BOUND
