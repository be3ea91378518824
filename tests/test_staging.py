"""Staging: the same batches ahead or in turn, real overlap, errors in their place, no threads left.

Threads meet on events with a time limit of `PATIENCE` seconds, which only a failure reaches.
"""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp.datasets.reading import Augmentation, Augmenter, Staging
from nembp.datasets.sources import Rows, as_rows
from nembp.errors import DataError

PATIENCE = 20.0


class Watched(Rows):
    """Rows whose reads can be watched, and can fail."""

    def __init__(self, x: np.ndarray, error: Exception | None = None, after: int = 0) -> None:
        self.x, self.error, self.after = x, error, after
        self.shape, self.dtype = x.shape, x.dtype
        self.reads = 0
        self.threads: list[str] = []
        self.began = [threading.Event() for _ in range(100)]

    def _read(self, index: Any, out: Any) -> None:
        self.threads.append(threading.current_thread().name)
        self.began[self.reads].set()
        self.reads += 1
        if self.error is not None and self.reads > self.after:
            raise self.error
        out[...] = self.x[index]


def images(n: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 4, 4, 3)).astype(np.uint8)


def parts(n: int, size: int) -> list[np.ndarray]:
    order = np.random.default_rng(1).permutation(n)
    return [order[start : start + size] for start in range(0, n, size)]


def no_thread_is_left() -> bool:
    return not any("nembp-batches" in thread.name for thread in threading.enumerate())


@given(n=st.integers(1, 30), size=st.integers(1, 31), augmented=st.booleans())
def test_ahead_or_in_turn_the_batches_are_the_same(n, size, augmented):
    x, results = images(n), []
    for name in ("in_turn", "ahead"):
        augmenter = Augmenter(Augmentation(True, 2), (4, 4, 3), 7) if augmented else None
        staging = Staging(as_rows(x), augmenter)
        results.append([raw.copy() for raw in getattr(staging, name)(parts(n, size))])
    assert len(results[0]) == len(results[1]) == -(-n // size)
    for one, other, index in zip(*results, parts(n, size), strict=True):
        np.testing.assert_array_equal(one, other)
        if not augmented:
            np.testing.assert_array_equal(one, x[index].reshape(len(index), -1))


def test_the_next_batch_is_gathered_while_one_is_used():
    rows = Watched(images())
    with closing(Staging(rows).ahead(parts(40, 10))) as batches:
        for number, (raw, index) in enumerate(zip(batches, parts(40, 10), strict=True)):
            if number < 3:
                assert rows.began[number + 1].wait(PATIENCE)
            np.testing.assert_array_equal(raw, rows.x[index].reshape(10, -1))  # still untouched
    assert all(name.startswith("nembp-batches") for name in rows.threads)
    assert no_thread_is_left()


def test_in_turn_nothing_is_read_early_and_no_thread_starts():
    rows = Watched(images())
    for number, _ in enumerate(Staging(rows).in_turn(parts(40, 10)), start=1):
        assert rows.reads == number
    assert set(rows.threads) == {threading.current_thread().name}


def test_buffers_take_turns_and_are_kept():
    staging = Staging(as_rows(images()))
    with closing(staging.ahead(parts(40, 12))) as batches:
        places = [raw.ctypes.data for raw in batches]
    assert places[0] != places[1]
    assert places == [places[0], places[1]] * 2  # the last batch is shorter
    with closing(staging.ahead(parts(40, 12))) as batches:
        assert next(batches).ctypes.data == places[0]


def test_a_batch_read_alone_disturbs_none_that_waits():
    x = images()
    staging = Staging(as_rows(x))
    for raw, index in zip(staging.ahead(parts(40, 10)), parts(40, 10), strict=True):
        staging.stage(np.arange(10))
        np.testing.assert_array_equal(raw, x[index].reshape(10, -1))


@pytest.mark.parametrize("name", ["in_turn", "ahead"])
def test_an_unreadable_file_is_named_after_the_batches_before_it(name):
    error = OSError(5, "Input/output error", "data_batch_3.bin")
    staging = Staging(Watched(images(), error, after=2))
    batches = getattr(staging, name)(parts(40, 10))
    next(batches), next(batches)
    with pytest.raises(DataError, match=r"data_batch_3.bin: could not be read any more \(Input/"):
        next(batches)
    assert no_thread_is_left()


@pytest.mark.parametrize("name", ["in_turn", "ahead"])
def test_other_errors_arrive_as_they_are(name):
    staging = Staging(Watched(images(), DataError("x.npy: damaged"), after=1))
    with pytest.raises(DataError, match=r"^x.npy: damaged$"):
        list(getattr(staging, name)(parts(40, 10)))
    assert no_thread_is_left()


def test_the_thread_minds_the_errors_that_the_caller_minds():
    class Dividing(Watched):
        def _read(self, index: Any, out: Any) -> None:
            np.ones(1) / np.zeros(1)

    with np.errstate(divide="ignore"):
        list(Staging(Dividing(images())).ahead(parts(40, 10)))
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        list(Staging(Dividing(images())).ahead(parts(40, 10)))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_error_of_the_step_ends_the_thread(error):
    rows = Watched(images())

    def train() -> None:
        for _ in Staging(rows).ahead(parts(40, 2)):
            raise error

    with pytest.raises(error):
        train()
    assert no_thread_is_left()
    assert rows.reads <= 2  # the batch in progress was the last


def test_closing_waits_for_the_batch_in_progress_only():
    rows = Watched(images())
    batches = Staging(rows).ahead(parts(40, 2))
    next(batches)
    assert not no_thread_is_left()
    batches.close()
    assert no_thread_is_left()
    assert rows.reads == 2
