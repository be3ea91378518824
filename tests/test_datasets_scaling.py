"""Scalings of inputs and targets, and splits of samples."""

from __future__ import annotations

import numpy as np
import pytest

from nembp.datasets import (
    Scaling,
)
from nembp.datasets.scaling import CHUNK_VALUES, image_scaling, standardized
from nembp.datasets.splitting import random_bits, shuffled, stratified_choice
from nembp.errors import ArchitectureError

# --- scaling


def test_scaling_is_undone_and_writes_in_place():
    generator = np.random.default_rng(0)
    raw = generator.normal(2000.0, 3.0, size=(50, 4))
    scaling = standardized(raw)
    scaled = scaling.apply(raw, np.float64)
    assert np.allclose(scaled.mean(axis=0), 0, atol=1e-12)
    assert np.allclose(scaled.std(axis=0), 1, rtol=1e-12)
    assert np.allclose(scaling.invert(scaled), raw, rtol=1e-14)
    assert scaling.apply(raw).dtype == np.float32
    assert np.allclose(scaling.apply(raw), scaled, atol=1e-6)  # no cancellation in float32
    out = np.empty((50, 4), dtype=np.float32)
    assert scaling.apply(raw, out=out) is out
    assert np.array_equal(out, scaling.apply(raw))


def test_uint8_images_are_scaled_in_place_exactly():
    raw = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    scaling = image_scaling(raw)
    out = np.empty(raw.shape, dtype=np.float32)
    scaling.apply(raw, out=out)
    assert np.array_equal(out, raw.astype(np.float32) * np.float32(1 / 255))
    assert (out.min(), out.max()) == (0.0, 1.0)
    assert np.array_equal(np.rint(scaling.invert(out)), raw)


def test_standardized_over_several_chunks_and_with_constants():
    n = CHUNK_VALUES + 7
    x = np.stack([np.full(n, 0.1), np.arange(n, dtype=float), np.full(n, 1e30)], axis=1)
    scaling = standardized(x)
    assert scaling.offset[0] == 0.1
    assert scaling.factor[[0, 2]].tolist() == [1.0, 1.0]
    assert scaling.offset[1] == pytest.approx((n - 1) / 2)
    assert scaling.factor[1] == pytest.approx(1 / np.arange(n).std())
    assert np.all(scaling.apply(x, np.float64)[:, [0, 2]] == 0.0)


def test_what_varies_too_little_is_not_blown_up():
    x = np.array([[0.0, 0.0], [1e-35, 1e-20]])
    assert standardized(x).factor.tolist() == [1.0, pytest.approx(2e20)]


def test_scaling_of_floating_images():
    inside = np.linspace(0.1, 0.9, 32).reshape(2, 4, 4, 1)
    assert image_scaling(inside) == Scaling()
    assert image_scaling(inside * 10 - 3) == Scaling(-2.0, 1 / 8.0)
    assert image_scaling(np.full((2, 4, 4, 1), 3.0)) == Scaling(3.0, 1.0)


@pytest.mark.parametrize("wrong", [{"factor": 0.0}, {"factor": np.nan}, {"offset": np.inf}])
def test_scalings_that_cannot_be_undone(wrong):
    with pytest.raises(ArchitectureError, match="factor"):
        Scaling(**wrong)


def test_scalings_compare_by_value():
    assert Scaling(np.zeros(2), np.ones(2)) == Scaling(np.zeros(2), np.ones(2))
    assert Scaling(np.zeros(2), np.ones(2)) != Scaling(np.zeros(2), np.array([1.0, 2.0]))
    assert Scaling() != "identity"


# --- splits


def test_shuffled_is_a_permutation_by_named_stream():
    one = shuffled(1000, random_bits(0, "a"))
    assert np.array_equal(np.sort(one), np.arange(1000))
    assert np.array_equal(one, shuffled(1000, random_bits(0, "a")))
    assert not np.array_equal(one, shuffled(1000, random_bits(0, "b")))
    assert not np.array_equal(one, shuffled(1000, random_bits(1, "a")))


@pytest.mark.parametrize("counts", [[5, 5], [1, 1, 98], [1] * 9 + [2], [7, 11, 13, 1]])
def test_stratified_choice_keeps_proportions_and_every_class(counts):
    counts = np.array(counts)
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    for size in range(len(counts), counts.sum() + 1):
        chosen, rest = stratified_choice(labels, size, random_bits(0, "test"))
        assert np.array_equal(np.sort(np.concatenate([chosen, rest])), np.arange(len(labels)))
        taken = np.bincount(labels[chosen], minlength=len(counts))
        share = counts * size / counts.sum()
        assert taken.sum() == size == len(chosen)
        assert taken.min() >= 1
        assert np.all(taken <= counts)
        if share.min() >= 1:  # nothing was raised to 1, so rounding is all that differs
            assert np.all(np.abs(taken - share) < 1)
    for size in (len(counts) - 1, counts.sum() + 1):
        with pytest.raises(ArchitectureError, match="expected a number from"):
            stratified_choice(labels, size, random_bits(0, "test"))


def test_stratified_parts_are_in_random_order():
    labels = np.arange(5000) % 10
    for part in stratified_choice(labels, 4500, random_bits(0, "order")):
        # were the order that of the draw, the last class to fill up would end `chosen`
        positions = np.array([np.flatnonzero(labels[part] == k).mean() for k in range(10)])
        # means of at least 50 uniform positions: 5 standard errors, false alarm below 1e-4
        error = len(part) / np.sqrt(12 * len(part) / 10)
        assert np.all(np.abs(positions - len(part) / 2) < 5 * error)
        assert np.all(np.bincount(labels[part[-100:]], minlength=10) > 0)
