"""Rings, grids and stacked digits are what they say, and feed a reader."""

from __future__ import annotations

import math

import numpy as np
import pytest
from engines import STRICT
from scipy import stats

from nembp.adversarial.data import (
    DATA,
    draw_latent,
    fill_latent,
    load_adversarial,
    mixture,
    stacked,
)
from nembp.backend import get_backend, stream
from nembp.datasets import Dataset, load
from nembp.datasets.reading import BatchReader
from nembp.errors import ArchitectureError, DataError


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def read_all(data: Dataset, rows: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """What a reader gives the network of the first samples."""
    cpu = get_backend("cpu")
    reader = BatchReader(data.train, data.x_scaling, data.y_scaling, data.outputs, cpu, "float32")
    index, staged = next(reader.batches(np.arange(rows), rows))
    x = np.empty((rows, data.features), np.float32)
    t = np.empty((rows, data.outputs), np.float32)
    reader.read(index, x, t, staged)
    return x, t


# -- latent samples ------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", [get_backend("cpu"), STRICT], ids=["cpu", "strict"])
def test_coins_are_fair_and_apart(backend):
    out = backend.empty((2000, 8), "float32")
    z = backend.to_numpy(fill_latent(backend, stream(0, "latent"), "binary", out))
    assert set(np.unique(z)) == {0.0, 1.0}
    # 16,000 coins: five standard deviations of a mean are 0.02; of a product of two columns' ±1
    # over 2,000 rows, 0.112, 28 of them: false alarm in under 2 of 10⁵ seeds (this one is fixed)
    assert abs(z.mean() - 0.5) < 0.02
    signs = 2 * z - 1
    assert np.abs(signs.T @ signs / 2000 - np.eye(8)).max() < 0.112


@pytest.mark.parametrize(("law", "values"), [("binary", 2), ("gaussian", 3000)])
def test_samples_on_the_host_have_the_law_and_do_not_depend_on_their_number(law, values):
    z = draw_latent(500, 6, seed=3, law=law)
    assert np.unique(z).size == values
    assert np.array_equal(draw_latent(20, 6, seed=3, law=law), z[:20])


# -- mixtures ------------------------------------------------------------------------------------
def test_the_published_ring_and_grid() -> None:
    eight, fives = mixture("ring", 100), mixture("grid", 100)
    assert (eight.std, fives.std) == (0.01, 0.05)
    np.testing.assert_allclose(np.linalg.norm(eight.centres, axis=1), 1.0)
    gaps = np.linalg.norm(eight.centres - np.roll(eight.centres, 1, axis=0), axis=1)
    np.testing.assert_allclose(gaps, 2 * math.sin(math.pi / 8))
    expected = {(x, y) for x in range(-4, 5, 2) for y in range(-4, 5, 2)}
    assert {tuple(centre) for centre in fives.centres.tolist()} == expected


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_samples_are_gaussian_about_their_modes(name) -> None:
    """Kolmogorov-Smirnov and chi-square at 1e-6 each: the seed is fixed, so is the outcome."""
    data = mixture(name, 20_000, seed=3)
    for split in (data.train, data.test):
        z = (split.x - data.centres[split.y]) / data.std
        for column in z.T:
            assert stats.kstest(column, "norm").pvalue > 1e-6
        assert stats.chisquare(np.bincount(split.y, minlength=data.outputs)).pvalue > 1e-6
        assert abs(np.corrcoef(z.T)[0, 1]) < 5 / math.sqrt(len(z))


def test_mixtures_are_seeded_and_their_splits_differ() -> None:
    # as many as to test
    one, again, other = (mixture("ring", 2500, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.train.x, again.train.x)
    for different in (one.test, other.train):
        assert not np.array_equal(one.train.x, different.x)
    ring, grid = mixture("ring", 200, 25), mixture("grid", 200)  # streams of their own
    assert not np.array_equal(ring.train.y, grid.train.y)


# -- stacked digits ------------------------------------------------------------------------------
def test_stacked_images_are_three_digits(digits: Dataset) -> None:
    data, other = stacked(digits, 30_000, seed=5), stacked(digits, 30_000, seed=6)
    assert data.train.x.images.sources[0] is digits.train.x  # no memory of their own
    assert not np.array_equal(data.train.y, other.train.y)
    for split, members in ((data.train, digits.train), (data.test, digits.test)):
        index = split.x.members
        assert np.array_equal(split.x[:50], np.moveaxis(members.x[index[:50], :, :, 0], 1, -1))
        names = ["".join(digits.classes[k] for k in row) for row in members.y[index]]
        assert [data.classes[label] for label in split.y] == names
        share = np.bincount(members.y) / len(members)
        for channel in members.y[index].T:  # chi-square at 1e-6; the seed is fixed
            counts = np.bincount(channel)
            assert stats.chisquare(counts, share * len(channel)).pvalue > 1e-6
    x, t = read_all(data)
    np.testing.assert_allclose(x, data.train.x[:50].reshape(50, -1) / 16, rtol=1e-6)
    assert np.array_equal(t.argmax(axis=1), data.train.y[:50])


# -- by name -------------------------------------------------------------------------------------
def test_every_name_loads(tmp_path) -> None:
    assert load_adversarial("ring", modes=5, std=0.1, samples=70).std == 0.1
    assert load_adversarial("grid", modes=16, scale=0.5).x_scaling.factor == 0.5
    assert len(load_adversarial("stacked-digits", samples=50, seed=1).train) == 50
    assert set(DATA) == {"ring", "grid", "stacked", "stacked-digits"}
    with pytest.raises(ArchitectureError, match="data_dir"):
        load_adversarial("stacked")
    with pytest.raises(DataError):
        load_adversarial("stacked", tmp_path)


def test_files_load_and_images_are_in_the_unit_interval(tmp_path) -> None:
    generator = np.random.default_rng(0)
    x = generator.integers(256, size=(40, 8, 8, 3)).astype(np.uint8)
    for part in ("train", "test"):
        np.save(tmp_path / f"x_{part}.npy", x)
        np.save(tmp_path / f"y_{part}.npy", np.arange(40) % 4)
    data = load_adversarial("npy", tmp_path)
    assert len(load_adversarial("npy", tmp_path, limit=30).train) == 30
    assert load("npy", tmp_path).x_scaling != data.x_scaling  # elsewhere they are standardized
    np.testing.assert_allclose(read_all(data, 10)[0], x[:10].reshape(10, -1) / 255, rtol=1e-6)
    assert data.to_unit is data.x_scaling


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ring", {"limit": 5}, "limit does not go with the data set 'ring'; leave it out"),
        ("digits", {"samples": 5}, "samples does not go"),
        ("stacked", {"data_dir": "x", "std": 0.1}, "std does not go"),
        ("stacked-digits", {"data_dir": "x"}, "data_dir does not go"),
        ("grid", {"modes": 24}, "square"),
        ("grid", {"modes": -4}, "modes must be positive"),
        ("ring", {"modes": 0}, "modes must be positive"),
        ("ring", {"std": math.nan}, "std"),
        ("ring", {"scale": math.inf}, "scale must be positive and finite"),
        ("ring", {"samples": 0}, "samples must be positive"),
        ("grid", {"std": 1e30, "scale": 1e30}, "Lower std or scale"),
        ("stacked-digits", {"samples": 0}, "samples must be positive"),
        ("nothing", {}, "no data set"),
    ],
)
def test_what_cannot_be_drawn_or_read_is_refused(name, options, message) -> None:
    with pytest.raises(ArchitectureError, match=message):
        load_adversarial(name, **options)
