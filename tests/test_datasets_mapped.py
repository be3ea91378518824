"""Colours scaled by channel, and samples of files that are never read as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from nembp.datasets import (
    Raw,
    Request,
    Scaling,
    Split,
    assemble,
    class_means,
    feature_means,
    load,
)
from nembp.datasets.scaling import CHUNK_VALUES, standardized
from nembp.datasets.sources import ArrayRows, choose, is_mapped
from nembp.errors import ArchitectureError, DataError

X, Y = np.arange(6.0).reshape(6, 1), np.array([0, 1, 0, 1, 0, 1])


def raw(x, y, name="file"):
    return Raw(x, y, f"{name}: x", f"{name}: y")


def put_together(x, y, test=None, request=None):
    test = None if test is None else raw(*test)
    return assemble("name", raw(x, y), test, request or Request(), source="file")


# --- images of several channels


def colours(n=60, dtype=np.uint8):
    generator = np.random.default_rng(4)
    x = generator.normal([60.0, 120.0, 180.0], [5.0, 20.0, 30.0], (n, 5, 4, 3))
    return np.clip(x, 0, 255).astype(dtype), np.arange(n) % 3


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_colours_are_standardized_by_channel_on_the_training_part(dtype):
    x, y = colours(dtype=dtype)
    dataset = put_together(x, y, (x[:9] // 2, y[:9]))
    assert dataset.x_scaling.offset == pytest.approx(x.mean(axis=(0, 1, 2), dtype=float))
    assert dataset.x_scaling.factor == pytest.approx(1 / x.std(axis=(0, 1, 2), dtype=float))
    assert dataset.x_scaling.offset.shape == (3,)
    scaled = dataset.x_scaling.apply(x, np.float64)
    assert np.abs(scaled.mean(axis=(0, 1, 2))).max() < 1e-12
    low, high = (0.0, 255.0) if dtype == np.uint8 else (float(x.min()), float(x.max()))
    assert dataset.to_unit.apply(np.array([low, high]), float) == pytest.approx([0, 1], abs=1e-12)


def test_scaling_can_be_chosen():
    x, y = colours()
    unit = put_together(x, y, request=Request(scaling="unit"))
    assert unit.x_scaling == unit.to_unit == Scaling(factor=1 / 255)
    assert put_together(x[..., :1], y).x_scaling == Scaling(factor=1 / 255)  # grey, as ever
    grey = put_together(x[..., :1], y, request=Request(scaling="channel"))
    assert grey.x_scaling == standardized(grey.train.x, by_channel=True)
    assert grey.to_unit == Scaling(factor=1 / 255)
    digits = load("digits", scaling="channel")
    assert digits.x_scaling.offset == pytest.approx(digits.train.x.mean())
    assert digits.to_unit == Scaling(factor=1 / 16)
    table = put_together(X, Y, (X, Y), request=Request(scaling="unit"))
    assert table.x_scaling == Scaling(np.zeros(1), np.full(1, 1 / 5))
    with pytest.raises(ArchitectureError, match=r"'channel' is for images .*shape \(1,\)"):
        put_together(X, Y, (X, Y), request=Request(scaling="channel"))
    with pytest.raises(ArchitectureError, match=r"scaling='best': expected one of auto, unit"):
        load("digits", scaling="best")
    with pytest.raises(ArchitectureError, match="resizes image files; 'digits' has none"):
        load("digits", image_size=(4, 4))


def test_a_constant_channel_keeps_its_unit():
    x, y = colours()
    x[..., 1] = 77
    scaling = put_together(x, y, (x, y)).x_scaling
    assert (scaling.offset[1], scaling.factor[1]) == (77.0, 1.0)


# --- files that are not read as a whole


@pytest.fixture
def mapped(tmp_path):
    def save(array, name="x.npy"):
        np.save(tmp_path / name, array)
        return np.load(tmp_path / name, mmap_mode="r")

    return save


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, ">f4", np.int16, ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_mapped_samples_are_never_copied_and_make_the_same_data_set(mapped, dtype, order):
    x, y = colours()
    x = np.asarray(x.astype(dtype), order=order)
    for test in (None, raw(x[:9], y[:9])):
        for limit in (None, 12):
            request = Request(limit=limit)
            one = assemble("n", raw(x, y), test, request, source="s")
            two = assemble("n", raw(mapped(x), y), test, request, source="s")
            assert is_mapped(two.train.x)
            assert not is_mapped(one.train.x)
            assert two.train.x.dtype == one.train.x.dtype
            for mine, theirs in ((one.train, two.train), (one.test, two.test)):
                assert np.array_equal(mine.x, theirs.x)
                assert np.array_equal(mine.y, theirs.y)
            # sums of arrays in Fortran order are rounded in another order
            pairs = (one.x_scaling, two.x_scaling), (one.to_unit, two.to_unit)
            for mine, theirs in pairs:
                assert np.allclose(mine.offset, theirs.offset, rtol=1e-13, atol=0)
                assert np.allclose(mine.factor, theirs.factor, rtol=1e-13, atol=0)
    index = np.array([3, 1, 1])
    assert is_mapped(two.train.subset(index).x)
    for part in (one, two):
        assert np.array_equal(part.train.subset(index).x, one.train.x[index])
        assert np.array_equal(part.train.subset(index).y, one.train.y[index])


def test_mapped_samples_are_checked_in_every_part(mapped):
    x = np.zeros((CHUNK_VALUES + 10, 2), dtype=">f4")
    x[CHUNK_VALUES + 3, 1] = np.nan
    with pytest.raises(DataError, match=rf"x: value \[{CHUNK_VALUES + 3}, 1\] is nan"):
        assemble("n", raw(mapped(x), np.arange(len(x)) % 2), None, Request(), source="s")


def test_rows_that_are_no_samples_are_refused():
    for rows in (ArrayRows(np.zeros((6, 2, 2))), ArrayRows(np.zeros((6, 2), np.int16))):
        with pytest.raises(DataError, match=r"file: x: rows of .*expected uint8, float32"):
            assemble("n", raw(rows, Y), None, Request(), source="s")


def test_means_of_mapped_samples(mapped):
    x, y = colours()
    part = Split(choose(mapped(x), np.arange(40)), y[:40])
    scaling = standardized(x, by_channel=True)
    means, centroids = feature_means(part, scaling), class_means(part, scaling, 3)
    values = scaling.apply(x[:40], np.float64).reshape(40, -1)
    assert np.allclose(means, values.mean(axis=0))
    assert np.allclose(centroids, [values[y[:40] == k].mean(axis=0) for k in range(3)])
