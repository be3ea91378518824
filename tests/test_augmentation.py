"""Flips and crops: against np.pad and slices, their laws of chance, and their own random stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp.datasets.reading import Augmentation, Augmenter
from nembp.errors import ArchitectureError


def draws(seed: int, rows: int, crop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dy, dx and flips as an Augmenter draws them: its stream is part of its promise."""
    from nembp.backend import stream

    u = stream(seed, "augmentation").random((3, rows))
    dy, dx = np.floor(u[:2] * (2 * crop + 1)).astype(int) - crop
    return dy, dx, u[2] < 0.5


@given(data=st.data())
def test_every_image_is_a_flipped_window_of_its_padded_original(data):
    height, width, channels = (data.draw(st.integers(1, m)) for m in (6, 6, 4))
    crop = data.draw(st.integers(0, min(height, width) - 1))
    flip, seed = data.draw(st.booleans()), data.draw(st.integers(0, 99))
    rows, dtype = data.draw(st.integers(1, 5)), data.draw(st.sampled_from(["uint8", "float32"]))
    images = np.random.default_rng(seed).integers(0, 256, (rows, height, width, channels))
    images = images.astype(dtype)
    augmenter = Augmenter(Augmentation(flip, crop), images.shape[1:], seed)
    out = augmenter(images.reshape(rows, -1), np.empty((rows, images[0].size), dtype))
    padded = np.pad(images, ((0, 0), (crop, crop), (crop, crop), (0, 0)), mode="reflect")
    for image, result, dy, dx, flipped in zip(padded, out, *draws(seed, rows, crop), strict=True):
        window = image[crop + dy :, crop + dx :][:height, :width]
        if flip and flipped:
            window = window[:, ::-1]
        np.testing.assert_array_equal(result.reshape(window.shape), window)


def test_shifts_and_flips_are_uniform():
    """Chi-square below its 1 - 1e-6 quantile; the seed is fixed, so no false alarms."""
    crop, rows = 2, 5000
    marks = np.zeros((rows, 9, 9, 1), np.uint8)
    marks[:, 4, 4], marks[:, 4, 5] = 1, 2  # the mark's place shows the shift, its side the flip
    augmenter = Augmenter(Augmentation(flip=True, crop=crop), (9, 9, 1), seed=5)
    counts = np.zeros((5, 5, 2))
    for _ in range(4):
        out = augmenter(marks.reshape(rows, -1), np.empty((rows, 81), np.uint8))
        out = out.reshape(rows, 9, 9)
        _, row, column = np.nonzero(out == 1)
        flipped = out[np.arange(rows), row, column - 1] == 2
        dx = np.where(flipped, column - 4, 4 - column)
        np.add.at(counts, (4 - row + crop, dx + crop, flipped.astype(int)), 1)
    expected = 4 * rows / 50
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 115  # 49 degrees of freedom: P(> 115) = 3e-7
    assert counts.sum() == 4 * rows


def test_draws_are_those_of_the_named_stream_whatever_is_switched_on():
    images = np.random.default_rng(0).integers(0, 256, (64, 8 * 8 * 3)).astype(np.uint8)

    def augmented(flip: bool, crop: int, seed: int = 3) -> np.ndarray:
        augmenter = Augmenter(Augmentation(flip, crop), (8, 8, 3), seed)
        return np.concatenate([augmenter(images, np.empty_like(images)) for _ in range(2)])

    np.testing.assert_array_equal(augmented(True, 2), augmented(True, 2))
    assert (augmented(True, 2) != augmented(True, 2, seed=4)).any()
    flips = (augmented(True, 0) != augmented(False, 0)).any(axis=1)
    np.testing.assert_array_equal(flips, (augmented(True, 3) != augmented(False, 3)).any(axis=1))
    assert (flips[:64] != flips[64:]).any()  # another batch, other draws


def test_nothing_asked_for_is_a_copy():
    images = np.random.default_rng(0).integers(0, 256, (5, 12)).astype(np.uint8)
    out = Augmenter(Augmentation(), (2, 2, 3), 0)(images, np.empty_like(images))
    np.testing.assert_array_equal(out, images)
    assert not Augmentation()
    assert Augmentation(flip=True)
    assert Augmentation(crop=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": -1}, "crop must be a whole number of pixels, at least 0, got -1"),
        ({"crop": 1.5}, "crop must be a whole number of pixels, at least 0, got 1.5"),
        ({"crop": True}, "crop must be a whole number of pixels, at least 0, got True"),
        ({"flip": 2}, "flip must be True or False, got 2"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ArchitectureError, match=message):
        Augmentation(**options)


def test_samples_that_cannot_be_augmented():
    with pytest.raises(ArchitectureError, match=r"images of shape .* but samples have shape \(64,"):
        Augmenter(Augmentation(flip=True), (64,), 0)
    Augmenter(Augmentation(crop=3), (8, 4, 1), 0)
    with pytest.raises(ArchitectureError, match="crop 4 must be smaller than the images of 8x4"):
        Augmenter(Augmentation(crop=4), (8, 4, 1), 0)
