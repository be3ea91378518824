from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp.datasets import Scaling, Split, batch_order, class_means, feature_means, load
from nembp.datasets.scaling import CHUNK_VALUES
from nembp.errors import ArchitectureError, DataError


@given(n=st.integers(1, 200), batch_size=st.integers(1, 250), seed=st.integers(0, 9))
def test_every_sample_once_per_epoch(n, batch_size, seed):
    batches = list(batch_order(n, batch_size, np.random.default_rng(seed)))
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(n))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= batch_size
    assert all(batch.dtype == np.intp for batch in batches)


def test_orders_differ_by_epoch_and_agree_by_seed():
    generator = np.random.default_rng(0)
    first, second = (np.concatenate(list(batch_order(100, 32, generator))) for _ in range(2))
    again = np.concatenate(list(batch_order(100, 32, np.random.default_rng(0))))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("n", "batch_size"), [(0, 1), (1, 0), (5, -1)])
def test_batches_that_cannot_be(n, batch_size):
    with pytest.raises(ArchitectureError, match="at least 1 of each"):
        batch_order(n, batch_size, np.random.default_rng(0))  # at the call, not at the first use


def test_class_means_of_the_digits():
    digits = load("digits")
    means = class_means(digits.train, digits.x_scaling, digits.classes)
    x = digits.train.x.reshape(1500, 64) / 16
    for k in range(10):
        assert np.allclose(means[k], x[digits.train.y == k].mean(axis=0), rtol=1e-13)
    assert means.shape == (10, 64)
    assert means.dtype == np.float64
    assert np.array_equal(means, class_means(digits.train, digits.x_scaling, 10))
    assert np.allclose(feature_means(digits.train, digits.x_scaling), x.mean(axis=0), rtol=1e-13)


def test_means_over_chunks_with_an_offset_and_without_a_copy():
    n = 8 * CHUNK_VALUES // 50
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (n, 5, 10, 1), dtype=np.uint8)
    y = generator.integers(0, 3, n)
    scaling = Scaling(7.0, 0.25)
    tracemalloc.start()
    try:
        means = class_means(Split(x, y), scaling, 3)
        mean = feature_means(Split(x, y), scaling)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * x.size / 2  # a float64 copy would be 8 bytes a value
    scaled = (x.reshape(n, 50) - 7.0) * 0.25
    assert np.allclose(means, [scaled[y == k].mean(axis=0) for k in range(3)], rtol=1e-12)
    assert np.allclose(mean, scaled.mean(axis=0), rtol=1e-12)


def test_means_that_are_undefined():
    split = Split(np.zeros((4, 2)), np.array([0, 0, 2, 2]))
    with pytest.raises(DataError, match=r"\[2, 0, 2\]; expected at least one in each of 3"):
        class_means(split, Scaling(), 3)
    with pytest.raises(DataError, match="in each of 2 classes"):
        class_means(split, Scaling(), ("a", "b"))
    with pytest.raises(ArchitectureError, match="need labels"):
        class_means(Split(np.zeros((4, 2)), np.zeros((4, 1))), Scaling(), 2)
