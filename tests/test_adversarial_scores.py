"""Scores: closed forms, SciPy and invariances; scorers whose classifier is hard on collapse."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from nembp.adversarial import scores
from nembp.adversarial.data import load_adversarial, mixture
from nembp.adversarial.scores import classifier_for, precision_recall, scorer_for
from nembp.architecture import network
from nembp.datasets import Dataset, Scaling, Split, load
from nembp.errors import ArchitectureError, DivergenceError, ShapeError

quick = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 10_000)
generator = np.random.default_rng


# -- histograms and modes --------------------------------------------------------------------------
@quick
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any))
def test_kl_from_uniform_is_scipy_s(counts) -> None:
    kl = scores.kl_from_uniform(counts)
    assert kl == pytest.approx(scipy.stats.entropy(counts, np.ones(len(counts))), abs=1e-12)
    assert 0 <= kl <= math.log(len(counts)) + 1e-12
    assert scores.kl_from_uniform([0] * len(counts)) == math.log(len(counts))  # nothing to count


def test_a_sample_counts_for_the_nearest_mode_within_three_standard_deviations() -> None:
    assert scores.coverage([25, 24, 0, 351], 400) == (3, 2)  # a quarter of the uniform 100 is 25
    assert scores.coverage([1, 0, 1], 2) == (2, 2)  # below one sample, one is enough
    x = np.array([[1.5, 0.0], [0.0, 1.5001], [10.0, -1.4999], [5.0, 0.0]])
    assert scores.near_modes(x, np.array([[0.0, 0.0], [10.0, 0.0]]), 0.5).tolist() == [1, 1]
    near = np.array([[0.1], [0.4], [0.6]])  # within three of either
    assert scores.near_modes(near, np.array([[0.0], [1.0]]), 1.0).tolist() == [2, 1]


@pytest.mark.parametrize("name", ["ring", "grid"])
def test_the_mixture_itself_has_its_share_within_three_sigma(name) -> None:
    """Binomial test of 1 − exp(−9/2), at 1e-6 with a fixed seed; whatever the scaling."""
    data = mixture(name, 50_000, seed=1, scale=3.0)
    scorer = scorer_for(data)
    found = scorer.score(data.train.x * 3.0)
    assert found["modes"] == found["modes_strict"] == data.outputs
    good = round(found["high_quality"] * 50_000)
    assert scipy.stats.binomtest(good, 50_000, 1 - math.exp(-4.5)).pvalue > 1e-6
    # 2 n KL is chi-square with K - 1 degrees of freedom
    assert 2 * good * found["kl"] < scipy.stats.chi2.isf(1e-6, data.outputs - 1)
    assert scorer.score(data.test.x[:2500] * 3.0) == pytest.approx(scorer.real())


# -- by probabilities and features -----------------------------------------------------------------
@quick
@given(seeds, st.integers(1, 40), st.integers(1, 12))
def test_inception_score_by_its_definition(seed, n, k) -> None:
    p = generator(seed).dirichlet(np.full(k, 0.2), size=n)
    mean = np.broadcast_to(p.mean(axis=0), p.shape)
    expected = math.exp(scipy.stats.entropy(p, mean, axis=1).mean())
    assert scores.inception_score(p) == pytest.approx(expected, rel=1e-9)
    assert 1 <= scores.inception_score(p) <= min(n, k) + 1e-9


def test_frechet_distance_in_closed_form_and_by_scipy() -> None:
    shift, corners = np.array([1.0, -2.0, 2.0]), np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1)
    cube = corners.reshape(8, 3) * np.sqrt(7 / 8)  # of covariance I; below diag(1, 4, 9)
    stretched = cube * [1.0, 2.0, 3.0]  # sum of (σ₁ − σ₂)² where both are diagonal
    assert scores.frechet_distance(cube, stretched) == pytest.approx(0 + 1 + 4)
    assert scores.frechet_distance(cube + shift, 0 * cube) == pytest.approx(9.0 + 3.0)
    for seed in range(5):
        x, y = generator(seed).standard_normal((2, 9, 3))
        a, b = np.cov(x.T), np.cov(y.T)
        expected = np.square(x.mean(0) - y.mean(0)).sum()
        expected += np.trace(a + b - 2 * np.real(scipy.linalg.sqrtm(a @ b)))
        assert scores.frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def by_definition(real, generated, k):
    """By all pairs, sorted."""

    def radii(x):
        return np.sort(cdist(x, x), axis=1)[:, k] * (1 + 1e-9) + 1e-9

    apart = cdist(real, generated)
    precision = (apart <= radii(real)[:, np.newaxis]).any(axis=0).mean()
    return precision, (apart <= radii(generated)).any(axis=1).mean()


@pytest.mark.parametrize("held", [scores.MEBIBYTES, 4e-4])  # all rows, or one or two at a time
@quick
@given(seeds, st.integers(1, 5), st.integers(6, 40), st.integers(6, 40), st.integers(1, 5))
def test_precision_and_recall_by_definition(held, seed, d, n, m, k) -> None:
    draw = generator(seed)
    real = draw.standard_normal((n, d))
    generated = draw.standard_normal((m, d)) * draw.uniform(0.3, 2) + draw.uniform(-1, 1)
    with patch.object(scores, "MEBIBYTES", held):
        found = precision_recall(real, generated, k)
        assert found == pytest.approx(by_definition(real, generated, k))
        assert precision_recall(generated, real, k) == pytest.approx(found[::-1])


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_rounding_does_not_put_copies_out_of_balls_of_no_width(far) -> None:
    x = far + 3 * generator(0).standard_normal((100, 17))
    four = np.repeat(x, 4, axis=0)  # as many as make each radius 0
    for few in (x[:5], x, x[::-1]):
        assert precision_recall(four, few)[0] == 1.0
        assert precision_recall(few, four)[1] == 1.0


# -- the classifier --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("judges")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_adversarial("digits")


@pytest.fixture(scope="module")
def scorer(digits, cache) -> scores.Scorer:
    return scorer_for(digits, cache)


@pytest.fixture
def no_training(monkeypatch, scorer) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("a classifier was trained that lies in a file")

    monkeypatch.setattr(scores, "train_classifier", fail)


def seen(data: Dataset, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Training samples in the networks' units."""
    x = data.x_scaling.apply(np.asarray(data.train.x[rows]))
    return x.reshape(len(x), -1)


def test_the_classifier_of_digits_is_accurate_and_says_how(scorer, digits) -> None:
    classifier, net = scorer.classifier, scorer.classifier.model.net
    assert classifier.accuracy >= 0.97
    features, p = classifier.look([digits.test.x[:20], digits.test.x[20:]])
    assert classifier.accuracy == pytest.approx((p.argmax(axis=1) == digits.test.y).mean())
    x = digits.x_scaling.apply(digits.test.x).reshape(297, -1)
    np.testing.assert_allclose(p, net.predict(x), atol=1e-6)
    # features are the last hidden layer, past its activation
    assert features.min() == 0
    z = features.astype(np.float64) @ net.weights[-1] + net.biases[-1]
    np.testing.assert_allclose(scipy.special.softmax(z, axis=1), p, atol=1e-5)
    described = scorer.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["judge"]["accuracy"] == scorer.real()["judge_accuracy"] == classifier.accuracy
    assert described["judge"]["test_samples"] == 297
    assert set(described["units"]) == set(scorer.real())


def test_a_classifier_is_read_from_its_file_and_not_taken_for_another_s(
    scorer, digits, cache, no_training
) -> None:
    notes: list[str] = []
    x, y = digits.train.x.copy(), digits.train.y.copy()
    again = classifier_for(replace(digits, train=Split(x, y)), cache, notes.append)
    assert again.describe() == scorer.classifier.describe()
    assert notes == []
    x[700, 3, 3] += 1
    y[700] = (y[700] + 1) % 10
    for changed in ({"train": Split(x, digits.train.y)}, {"train": Split(digits.train.x, y)},
                    {"test": digits.test.subset(np.arange(296))}):  # fmt: skip
        with pytest.raises(AssertionError, match="was trained"):
            classifier_for(replace(digits, **changed), cache)


def test_files_that_cannot_be_read_or_written(digits, tmp_path, monkeypatch) -> None:
    for shape in ((side, side + 1, c) for side in (3, 8, 9, 15, 16, 17, 32, 50) for c in (1, 3)):
        recipe = scores.recipe_for(replace(digits, shape=shape))
        assert network(shape, recipe["layers"], 10).outputs == 10
    recipe = scores.recipe_for(digits) | {"epochs": 1}
    monkeypatch.setattr(scores, "recipe_for", lambda data: recipe)
    first = classifier_for(digits, tmp_path)
    content = bytearray(first.path.read_bytes())
    content[len(content) // 2] ^= 1
    first.path.write_bytes(content)
    notes: list[str] = []
    again = classifier_for(digits, tmp_path, notes.append)
    assert again.describe() == first.describe()
    assert "again" in notes[0]
    assert len(notes) == 3
    monkeypatch.setenv("NEMBP_CACHE", str(tmp_path))
    assert scores.default_cache() == tmp_path / "judges"
    monkeypatch.delenv("NEMBP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert scores.default_cache() == tmp_path / "x" / "nembp" / "judges"
    (tmp_path / "file").write_text("")
    unkept = classifier_for(digits, tmp_path / "file" / "judges", notes.append)
    assert unkept.describe()["file"] is None
    assert "not kept" in notes[-1]


# -- scorers ---------------------------------------------------------------------------------------
def test_real_digits_score_as_real(scorer, digits, cache) -> None:
    found = scorer.real()
    assert found["classes"] == found["classes_strict"] == 10
    assert found["class_kl"] < 0.01
    assert found["inception_score"] > 9
    assert min(found["precision"], found["recall"]) > 0.8
    assert found["frechet_distance"] < 10  # noise has more than 100
    reference = scorer.score(seen(digits))  # the training split
    assert reference["precision"] == reference["recall"] == 1.0
    assert reference["frechet_distance"] == pytest.approx(0.0, abs=1e-6)
    # whatever the order, and the networks' units
    x, centred = generator(0).permutation(seen(digits)), Scaling(offset=8.0, factor=1 / 8)
    other = scorer_for(replace(digits, x_scaling=centred, pixel_scaling=digits.to_unit), cache)
    assert other.score(2 * x - 1) == pytest.approx(reference, rel=1e-5, abs=1e-5)


def test_collapse_and_noise_score_badly(scorer, digits) -> None:
    real = scorer.real()["frechet_distance"]
    threes = scorer.score(seen(digits, digits.train.y == 3))
    assert threes["classes_strict"] == 1
    assert threes["class_kl"] > 2
    assert threes["inception_score"] < 1.2
    assert threes["precision"] > 0.9  # believable
    assert threes["recall"] < 0.3  # but a part
    assert threes["frechet_distance"] > 10 * real
    half = scorer.score(seen(digits, digits.train.y < 5))
    assert half["classes_strict"] == 5
    assert half["class_kl"] == pytest.approx(np.log(2), abs=0.05)
    noise = scorer.score(generator(0).random((500, 64)))
    assert noise["precision"] < 0.3
    assert noise["frechet_distance"] > 20 * real
    for error, match, samples in (
        (DivergenceError, "1 of 9", np.r_[np.zeros((8, 64)), np.full((1, 64), np.nan)]),
        (ShapeError, r"expected \(n ≥ 1, 64\)", np.zeros((9, 65))),
        (ShapeError, "more than 3", np.zeros((3, 64))),
    ):
        with pytest.raises(error, match=match):
            scorer.score(samples)


def test_stacked_digits_are_read_channel_by_channel(digits, cache, no_training, scorer) -> None:
    data = load_adversarial("stacked-digits", samples=3000)
    stacks = scorer_for(data, cache)  # by the classifier of the single digits
    rows = np.arange(600)
    right = (stacks.read(iter([data.train.x[rows]])) == data.train.y[rows]).mean()
    assert right > 0.98  # training digits, on which the classifier is right
    found = stacks.score(seen(data, rows))
    assert found["modes"] == pytest.approx(len(np.unique(data.train.y[rows])), abs=10)
    found = stacks.score(seen(data, np.flatnonzero(data.train.y // 100 == 4)))
    assert found["modes"] <= 110
    assert found["kl"] > np.log(10) - 0.05
    assert set(stacks.describe()["units"]) == set(found)


def test_colour_images_are_classified_in_units_of_their_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(scores, "FEW_SEEN", 1800)  # 20 epochs
    labels = np.arange(90) % 3  # class k is bright in channel k
    x = generator(0).integers(90, size=(90, 16, 16, 3))
    x[np.arange(90), :, :, labels] += 120
    for part in ("train", "test"):
        np.save(tmp_path / f"x_{part}.npy", x.astype(np.uint8))
        np.save(tmp_path / f"y_{part}.npy", labels)
    raw, data = load("npy", tmp_path), load_adversarial("npy", tmp_path)
    assert raw.x_scaling != data.x_scaling
    images = scorer_for(data, tmp_path)
    assert images.classifier.accuracy == 1.0
    assert images.classifier.model.x_scaling == raw.x_scaling
    assert images.real()["inception_score"] == pytest.approx(3, abs=0.01)
    assert images.score(seen(data, data.train.y == 0))["classes"] == 1


def test_tables_with_classes_are_scored_and_others_refused(tmp_path) -> None:
    y = np.arange(200) % 2
    x = generator(0).standard_normal((200, 3)) + 4 * y[:, np.newaxis]
    np.savez(tmp_path / "table.npz", x=x, y=y)
    found = scorer_for(load_adversarial("npz", tmp_path / "table.npz"), tmp_path).real()
    assert found["classes"] == 2
    assert found["inception_score"] > 1.8
    np.savez(tmp_path / "t.npz", x=x, y=x[:, 0])
    with pytest.raises(ArchitectureError, match="no classes"):
        scorer_for(load_adversarial("npz", tmp_path / "t.npz"), tmp_path)
