"""Rows of arrays and files read like the arrays they stand for, and hold no more than asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp.datasets.sources import (
    ArrayRows,
    ChosenRows,
    JoinedRows,
    as_rows,
    choose,
    is_mapped,
    join,
)
from nembp.errors import ShapeError

DTYPES = ("u1", "<f4", ">f4", "<f8", ">f8", "<i2", ">i4", "?")


def counted(n, sample, dtype="u1", order="C"):
    size = n * int(np.prod(sample))
    return np.asarray((np.arange(size) % 251).reshape(n, *sample).astype(dtype), order=order)


@st.composite
def views(draw):
    """Rows of some kind, and the array that they must read as."""
    sample = draw(st.sampled_from([(4,), (2, 3, 1), (1,)]))
    parts, arrays = [], []
    for _ in range(draw(st.integers(1, 3))):
        order = draw(st.sampled_from("CF"))
        array = counted(draw(st.integers(1, 5)), sample, draw(st.sampled_from(DTYPES)), order)
        arrays.append(array.astype("f8"))
        parts.append(ArrayRows(array, dtype="f8"))
    rows, whole = JoinedRows(parts), np.concatenate(arrays)
    for _ in range(draw(st.integers(0, 2))):
        index = draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=9))
        rows, whole = ChosenRows(rows, np.array(index)), whole[index]
    return rows, whole


@given(views(), st.data())
def test_rows_read_like_the_array_they_stand_for(view, data):
    rows, whole = view
    assert rows.shape == whole.shape
    assert rows.dtype == whole.dtype
    assert (len(rows), rows.ndim, rows.size, rows.nbytes) == (
        len(whole), whole.ndim, whole.size, whole.nbytes)  # fmt: skip
    assert np.array_equal(np.asarray(rows), whole)
    index = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=8)), dtype=int)
    assert np.array_equal(rows.take(index), whole[index])
    for flat in (False, True):
        out = np.full((len(index), *whole.shape[1:]), np.nan)
        out = out.reshape(len(index), int(np.prod(whole.shape[1:]))) if flat else out
        assert rows.take(index, out) is out
        assert np.array_equal(out.reshape(-1, *whole.shape[1:]), whole[index])
    start, stop = data.draw(st.integers(-9, 9)), data.draw(st.integers(-9, 9))
    for key in (slice(start, stop), slice(None, None, -2), index, index - len(whole),
                np.arange(len(whole)) % 2 == 0, -1, np.int64(0)):  # fmt: skip
        assert np.array_equal(rows[key], whole[key])


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_an_array_come_in_native_order(dtype):
    array = counted(5, (3,), dtype)
    rows = ArrayRows(array)
    assert rows.dtype == array.dtype.newbyteorder("=")
    assert np.asarray(rows).dtype.isnative
    assert np.array_equal(rows[1:4], array[1:4])
    assert np.array_equal(rows.take(np.array([4, 0])), array[[4, 0]])


def test_wrong_requests_are_refused():
    rows = JoinedRows([ArrayRows(counted(3, (4,)))] * 2)
    for index in ([6], [-1], [0, 99]):
        with pytest.raises(IndexError, match="of 6"):
            rows.take(np.array(index))
        with pytest.raises(IndexError, match="of 6"):
            ChosenRows(rows, np.array(index))
    with pytest.raises(IndexError, match="mask"):
        rows[np.ones(5, bool)]
    for index in (np.array([0.0]), np.array([[0]]), np.array(0)):
        with pytest.raises(ShapeError, match="integers"):
            rows.take(index)
    short, doubles, strided = np.empty((1, 4), "u1"), np.empty((2, 4)), np.empty((2, 8), "u1")
    for out in (short, doubles, strided[:, ::2]):
        with pytest.raises(ShapeError, match="expected a contiguous one of uint8"):
            rows.take(np.array([0, 1]), out)
    with pytest.raises(ShapeError, match="cannot be joined"):
        JoinedRows([ArrayRows(counted(3, (4,))), ArrayRows(counted(3, (5,)))])
    with pytest.raises(ValueError, match="without reading"):
        np.array(rows, copy=False)


def test_arrays_in_memory_are_copied_and_files_are_viewed(tmp_path):
    array = counted(6, (2,))
    np.save(tmp_path / "x.npy", array)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    index = np.array([5, 0, 5])
    for memory in (array, array[::2], array.reshape(6, 2, 1)):
        assert not is_mapped(memory)
        assert type(choose(memory, np.array([1]))) is np.ndarray
    assert type(join([array, array])) is np.ndarray
    for file in (mapped, np.asarray(mapped), mapped[1:].reshape(-1, 1, 2), ArrayRows(array)):
        assert is_mapped(file)
        view = choose(file, np.array([2, 0]))
        assert isinstance(view, ChosenRows)
        assert np.array_equal(np.asarray(view), np.asarray(file)[[2, 0]])
    twice = choose(choose(mapped, index), np.array([1, 0]))
    assert isinstance(twice.rows, ArrayRows)  # one look-up, not two
    joined = join([mapped, array])
    assert isinstance(joined, JoinedRows)
    assert np.array_equal(np.asarray(joined), np.concatenate([array, array]))


def test_rows_are_views_of_what_they_stand_for():
    array = counted(4, (2,))
    rows = choose(as_rows(array), np.array([3, 1]))
    array[3] = 77
    assert rows[0].tolist() == [77, 77]
    assert np.shares_memory(as_rows(array)[1:3], array)
