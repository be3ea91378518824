"""Scorers: their classifier is trained once, kept with its hash, and hard on collapse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nembp.adversarial import scorers
from nembp.adversarial.data import load_adversarial, ring
from nembp.adversarial.scorers import (
    ImageScorer,
    MixtureScorer,
    Scorer,
    StackedScorer,
    classifier_for,
    default_cache,
    recipe_for,
    scorer_for,
)
from nembp.architecture import network
from nembp.datasets import Dataset, Scaling, Split, load
from nembp.errors import ArchitectureError, DivergenceError, ShapeError


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("judges")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_adversarial("digits")


@pytest.fixture(scope="module")
def scorer(digits, cache) -> Scorer:
    return scorer_for(digits, cache=cache)


@pytest.fixture
def no_training(monkeypatch, scorer) -> None:
    def fail(*args: object, **options: object) -> None:
        raise AssertionError("a classifier was trained that lies in a file")

    monkeypatch.setattr(scorers, "train_classifier", fail)


CENTRED = Scaling(offset=8.0, factor=1 / 8)


def seen(data: Dataset, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Training samples in the networks' units."""
    x = data.x_scaling.apply(np.asarray(data.train.x[rows]))
    return x.reshape(len(x), -1)


# -- the classifier --------------------------------------------------------------------------------
def test_the_classifier_of_digits_is_accurate_and_says_how(scorer, digits) -> None:
    classifier = scorer.classifier
    assert classifier.accuracy >= 0.97
    x = digits.x_scaling.apply(digits.test.x).reshape(297, -1)
    _, p = classifier.look([digits.test.x])
    assert classifier.accuracy == pytest.approx((p.argmax(axis=1) == digits.test.y).mean())
    np.testing.assert_allclose(p, classifier.model.net.predict(x), atol=1e-6)
    described = scorer.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["judge"]["accuracy"] == scorer.real()["judge_accuracy"] == classifier.accuracy
    assert described["judge"]["test_samples"] == 297
    assert set(described["units"]) == set(scorer.real())


def test_features_are_the_last_hidden_layer(scorer, digits) -> None:
    net = scorer.classifier.model.net
    features, p = scorer.classifier.look([digits.test.x[:20], digits.test.x[20:30]])
    assert features.shape == (30, net.layers[-2].size)
    assert features.min() == 0  # past their activation
    z = features.astype(np.float64) @ net.weights[-1] + net.biases[-1]
    e = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(e / e.sum(axis=1, keepdims=True), p, atol=1e-5)


def test_a_classifier_is_read_from_its_file(scorer, digits, cache, no_training) -> None:
    notes: list[str] = []
    again = classifier_for(digits, cache, note=notes.append)
    assert (again.sha256, again.path) == (scorer.classifier.sha256, scorer.classifier.path)
    assert notes == []


def test_a_classifier_is_not_taken_for_another_s(digits, cache, no_training) -> None:
    x, y = digits.train.x.copy(), digits.train.y.copy()
    classifier_for(replace(digits, train=Split(x, y)), cache)  # the same content
    x[700, 3, 3] += 1
    y[700] = (y[700] + 1) % 10
    for changed in ({"train": Split(x, digits.train.y)}, {"train": Split(digits.train.x, y)},
                    {"test": digits.test.subset(np.arange(296))}, {}):  # fmt: skip
        with pytest.raises(AssertionError, match="was trained"):
            classifier_for(replace(digits, **changed), cache, seed=0 if changed else 1)


def test_files_that_cannot_be_read_or_written(digits, tmp_path, monkeypatch) -> None:
    recipe = recipe_for(digits) | {"epochs": 1}
    monkeypatch.setattr(scorers, "recipe_for", lambda data: recipe)
    first = classifier_for(digits, tmp_path)
    content = bytearray(first.path.read_bytes())
    content[len(content) // 2] ^= 1
    first.path.write_bytes(content)
    notes: list[str] = []
    again = classifier_for(digits, tmp_path, note=notes.append)
    assert again.sha256 == first.sha256
    assert "again" in notes[0]
    assert len(notes) == 3
    monkeypatch.setenv("NEMBP_CACHE", str(tmp_path))
    assert default_cache() == tmp_path / "judges"
    monkeypatch.delenv("NEMBP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert default_cache() == tmp_path / "x" / "nembp" / "judges"
    (tmp_path / "file").write_text("")
    unkept = classifier_for(digits, tmp_path / "file" / "judges", note=notes.append)
    assert unkept.describe()["file"] is None
    assert "not kept" in notes[-1]


@pytest.mark.parametrize("channels", [1, 3])
def test_recipes_fit_images_of_any_size(channels, digits) -> None:
    for side in (3, 8, 9, 15, 16, 17, 32, 50):
        shape = (side, side + 1, channels)
        assert network(shape, recipe_for(replace(digits, shape=shape))["layers"], 10).outputs == 10


# -- scores ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_the_scorer_of_a_mixture_undoes_the_scaling(scale) -> None:
    data = ring(4000, scale=scale)
    mixture = scorer_for(data)
    assert isinstance(mixture, MixtureScorer)
    assert mixture.score(data.x_scaling.apply(data.test.x[:2500])) == pytest.approx(mixture.real())
    assert set(mixture.describe()["units"]) == set(mixture.real())
    assert mixture.headline in mixture.real()


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
    x = np.random.default_rng(0).permutation(seen(digits))
    centred = replace(digits, x_scaling=CENTRED, pixel_scaling=digits.to_unit)
    other = scorer_for(centred, cache=cache).score(2 * x - 1)
    assert other == pytest.approx(reference, rel=1e-5, abs=1e-5)


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
    noise = scorer.score(np.random.default_rng(0).random((500, 64)))
    assert noise["precision"] < 0.3
    assert noise["frechet_distance"] > 20 * real


def test_samples_that_cannot_be_scored(scorer) -> None:
    with pytest.raises(DivergenceError, match="1 of 9"):
        scorer.score(np.concatenate([np.zeros((8, 64)), np.full((1, 64), np.nan)]))
    with pytest.raises(ShapeError, match="64"):
        scorer.score(np.zeros((9, 65)))
    with pytest.raises(ShapeError, match="more than 3"):
        scorer.score(np.zeros((3, 64)))


def test_stacked_digits_are_read_channel_by_channel(digits, cache, no_training, scorer) -> None:
    data = load_adversarial("stacked-digits", samples=3000)
    stacks = scorer_for(data, cache=cache)  # by the classifier of the single digits
    assert isinstance(stacks, StackedScorer)
    assert stacks.classifier.sha256 == scorer.classifier.sha256
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
    monkeypatch.setattr(scorers, "FEW_SEEN", 1800)  # 20 epochs
    labels = np.arange(90) % 3  # class k is bright in channel k
    x = np.random.default_rng(0).integers(90, size=(90, 16, 16, 3))
    x[np.arange(90), :, :, labels] += 120
    for part in ("train", "test"):
        np.save(tmp_path / f"x_{part}.npy", x.astype(np.uint8))
        np.save(tmp_path / f"y_{part}.npy", labels)
    raw, data = load("npy", tmp_path), load_adversarial("npy", tmp_path)
    assert raw.x_scaling != data.x_scaling
    images = scorer_for(data, cache=tmp_path)
    assert isinstance(images, ImageScorer)
    assert images.classifier.accuracy == 1.0
    assert images.classifier.model.x_scaling == raw.x_scaling
    assert images.real()["inception_score"] == pytest.approx(3, abs=0.01)
    assert images.score(seen(data, data.train.y == 0))["classes"] == 1


def test_tables_with_classes_are_scored_and_others_refused(tmp_path) -> None:
    generator = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = generator.standard_normal((200, 3)) + 4 * y[:, np.newaxis]
    np.savez(tmp_path / "table.npz", x=x, y=y)
    found = scorer_for(load_adversarial("npz", tmp_path / "table.npz"), cache=tmp_path).real()
    assert found["classes"] == 2
    assert found["inception_score"] > 1.8
    np.savez(tmp_path / "t.npz", x=x, y=x[:, 0])
    with pytest.raises(ArchitectureError, match="no classes"):
        scorer_for(load_adversarial("npz", tmp_path / "t.npz"), cache=tmp_path)
