"""The judge: trained once, kept with its hash, right about real samples and hard on collapse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nembp.adversarial import classifier
from nembp.adversarial.classifier import default_cache, judge_for
from nembp.adversarial.classifier_training import recipe_for, train_judge
from nembp.adversarial.data import load_adversarial
from nembp.adversarial.scorers import ImageScorer, Scorer, StackedScorer, scorer_for
from nembp.datasets import Dataset, Scaling, load
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
def no_training(monkeypatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise AssertionError("a judge was trained that lies in a file")

    monkeypatch.setattr(classifier, "train_judge", fail)


def colours(folder: Path, side: int = 16, per_class: int = 30) -> Dataset:
    """Images of three channels: class k is bright in channel k; standardized by `load`."""
    generator = np.random.default_rng(0)
    labels = np.arange(3 * per_class) % 3
    x = generator.integers(90, size=(len(labels), side, side, 3))
    x[np.arange(len(labels)), :, :, labels] += 120
    for part in ("train", "test"):
        np.save(folder / f"x_{part}.npy", x.astype(np.uint8))
        np.save(folder / f"y_{part}.npy", labels)
    return load("npy", folder)


def seen(data: Dataset, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Training samples in the players' units."""
    x = data.x_scaling.apply(np.asarray(data.train.x[rows]))
    return x.reshape(len(x), -1)


# -- the judge -------------------------------------------------------------------------------------
def test_the_judge_of_digits_is_accurate_and_says_how(scorer, digits) -> None:
    judge = scorer.judge
    assert judge.accuracy >= 0.97
    x = digits.x_scaling.apply(digits.test.x).reshape(297, -1)
    _, p = judge.look([digits.test.x])
    assert judge.accuracy == pytest.approx((p.argmax(axis=1) == digits.test.y).mean())
    np.testing.assert_allclose(p, judge.model.net.predict(x), atol=1e-6)
    assert scorer.real()["judge_accuracy"] == judge.accuracy
    described = scorer.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["judge"]["accuracy"] == judge.accuracy
    assert described["judge"]["test_samples"] == 297
    assert set(described["units"]) == set(scorer.real())


def test_features_are_the_last_hidden_layer(scorer, digits) -> None:
    net = scorer.judge.model.net
    features, p = scorer.judge.look([digits.test.x[:20], digits.test.x[20:30]])
    assert features.shape == (30, net.layers[-2].size)
    assert features.min() == 0  # past their activation
    z = features.astype(np.float64) @ net.weights[-1] + net.biases[-1]
    e = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(e / e.sum(axis=1, keepdims=True), p, atol=1e-5)


def test_a_judge_is_read_from_its_file(scorer, digits, cache, no_training) -> None:
    notes: list[str] = []
    again = judge_for(digits, cache, note=notes.append)
    assert again.sha256 == scorer.judge.sha256
    assert again.path == scorer.judge.path
    assert again.accuracy == scorer.judge.accuracy
    assert notes == []


def test_a_judge_is_the_same_whatever_units_the_players_have(digits, cache, no_training) -> None:
    moved = replace(
        digits, x_scaling=Scaling(offset=8.0, factor=1 / 8), pixel_scaling=digits.to_unit
    )
    judge_for(moved, cache)


@pytest.mark.parametrize("change", ["pixel", "label", "test", "seed", "limit"])
def test_a_judge_is_not_taken_for_another_s(change, digits, cache, no_training) -> None:
    x, y = digits.train.x.copy(), digits.train.y.copy()
    data, seed = replace(digits, train=replace(digits.train, x=x, y=y)), 0
    judge_for(data, cache)  # the same content
    if change == "pixel":
        x[700, 3, 3] += 1
    elif change == "label":
        y[700] = (y[700] + 1) % 10
    elif change == "test":
        data = replace(data, test=data.test.subset(np.arange(296)))
    elif change == "limit":
        data = replace(data, train=data.train.subset(np.arange(1000)))
    else:
        seed = 1
    with pytest.raises(AssertionError, match="was trained"):
        judge_for(data, cache, seed=seed)


def test_training_repeats_and_depends_on_the_seed(digits) -> None:
    recipe = replace(recipe_for(digits), epochs=1)
    parameters = [
        train_judge(digits, recipe, seed=seed).net.parameters.tobytes() for seed in (0, 0, 1)
    ]
    assert parameters[0] == parameters[1]
    assert parameters[0] != parameters[2]


def short(monkeypatch) -> None:
    """Let judges be trained for one epoch."""
    recipe = classifier.recipe_for
    monkeypatch.setattr(classifier, "recipe_for", lambda data: replace(recipe(data), epochs=1))


def test_a_damaged_file_is_trained_again(digits, tmp_path, monkeypatch) -> None:
    short(monkeypatch)
    first = judge_for(digits, tmp_path)
    content = bytearray(first.path.read_bytes())
    content[len(content) // 2] ^= 1
    first.path.write_bytes(content)
    notes: list[str] = []
    again = judge_for(digits, tmp_path, note=notes.append)
    assert again.sha256 == first.sha256
    assert "again" in notes[0]
    assert len(notes) == 3
    assert judge_for(digits, tmp_path, note=notes.append).sha256 == first.sha256
    assert len(notes) == 3


def test_a_cache_that_cannot_be_written_costs_only_the_file(digits, tmp_path, monkeypatch) -> None:
    short(monkeypatch)
    (tmp_path / "file").write_text("")
    notes: list[str] = []
    judge = judge_for(digits, tmp_path / "file" / "judges", note=notes.append)
    assert judge.path is None
    assert "not kept" in notes[-1]
    assert judge.describe()["file"] is None


def test_where_judges_are_kept(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("NEMBP_CACHE", str(tmp_path))
    assert default_cache() == tmp_path / "judges"
    monkeypatch.delenv("NEMBP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert default_cache() == tmp_path / "x" / "nembp" / "judges"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "nembp" / "judges"


# -- scores of images ------------------------------------------------------------------------------
def test_real_digits_score_as_real(scorer) -> None:
    scores = scorer.real()
    assert scores["classes"] == scores["classes_strict"] == 10
    assert scores["class_kl"] < 0.01
    assert scores["inception_score"] > 9
    assert scores["precision"] > 0.8
    assert scores["recall"] > 0.8
    assert scores["frechet_distance"] < 10  # noise has more than 100


def test_the_training_split_is_the_reference(scorer, digits) -> None:
    scores = scorer.score(seen(digits))
    assert scores["precision"] == scores["recall"] == 1.0
    assert scores["frechet_distance"] == pytest.approx(0.0, abs=1e-6)


def test_collapse_and_noise_score_badly(scorer, digits) -> None:
    real = scorer.real()
    threes = scorer.score(seen(digits, digits.train.y == 3))
    assert threes["classes_strict"] == 1
    assert threes["class_kl"] > 2
    assert threes["inception_score"] < 1.2
    assert threes["precision"] > 0.9  # believable
    assert threes["recall"] < 0.3  # but a part
    assert threes["frechet_distance"] > 10 * real["frechet_distance"]
    half = scorer.score(seen(digits, digits.train.y < 5))
    assert half["classes_strict"] == 5
    assert half["class_kl"] == pytest.approx(np.log(2), abs=0.05)
    assert half["inception_score"] == pytest.approx(5, abs=0.3)
    noise = scorer.score(np.random.default_rng(0).random((500, 64)))
    assert noise["precision"] < 0.3
    assert noise["frechet_distance"] > 20 * real["frechet_distance"]


def test_scores_do_not_depend_on_order_or_units(scorer, digits, cache) -> None:
    x = seen(digits)[:600]
    scores = scorer.score(x)
    assert scorer.score(np.random.default_rng(0).permutation(x)) == pytest.approx(scores, rel=1e-6)
    scaling = Scaling(offset=8.0, factor=1 / 8)
    centred = replace(digits, x_scaling=scaling, pixel_scaling=digits.to_unit)
    other = scorer_for(centred, cache=cache)
    assert other.score(2 * x - 1) == pytest.approx(scores, rel=1e-5, abs=1e-6)


def test_samples_that_cannot_be_scored(scorer) -> None:
    with pytest.raises(DivergenceError, match="1 of 9"):
        scorer.score(np.concatenate([np.zeros((8, 64)), np.full((1, 64), np.nan)]))
    with pytest.raises(ShapeError, match="64"):
        scorer.score(np.zeros((9, 65)))
    with pytest.raises(ShapeError, match="more than 3"):
        scorer.score(np.zeros((3, 64)))


# -- other data ------------------------------------------------------------------------------------
def test_stacked_digits_are_read_channel_by_channel(digits, cache, no_training, scorer) -> None:
    data = load_adversarial("stacked-digits", samples=3000)
    stacks = scorer_for(data, cache=cache)  # by the judge of the single digits
    assert isinstance(stacks, StackedScorer)
    assert stacks.judge.sha256 == scorer.judge.sha256
    rows = np.arange(600)
    right = (stacks.read(iter([data.train.x[rows]])) == data.train.y[rows]).mean()
    assert right > 0.98  # training digits, on which the judge is right
    scores = stacks.score(seen(data, rows))
    assert scores["modes"] == pytest.approx(len(np.unique(data.train.y[rows])), abs=10)
    same = np.flatnonzero(data.train.y // 100 == 4)
    scores = stacks.score(seen(data, same))
    assert scores["modes"] <= 110
    assert scores["kl"] > np.log(10) - 0.05
    assert set(stacks.describe()["units"]) == set(scores)


def test_colour_images_are_judged_in_units_of_their_own(tmp_path) -> None:
    raw = colours(tmp_path)
    data = load_adversarial("npy", tmp_path)
    assert raw.x_scaling != data.x_scaling
    scorer = scorer_for(data, cache=tmp_path)
    assert isinstance(scorer, ImageScorer)
    assert scorer.judge.accuracy == 1.0
    assert scorer.judge.model.x_scaling == raw.x_scaling
    assert scorer.real()["inception_score"] == pytest.approx(3, abs=0.01)
    red = seen(data, data.train.y == 0)
    assert scorer.score(red)["classes"] == 1


def test_tables_are_judged_too(tmp_path) -> None:
    generator = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = generator.standard_normal((200, 3)) + 4 * y[:, np.newaxis]
    np.savez(tmp_path / "table.npz", x=x, y=y)
    scorer = scorer_for(load_adversarial("npz", tmp_path / "table.npz"), cache=tmp_path)
    scores = scorer.real()
    assert scores["classes"] == 2
    assert scores["inception_score"] > 1.8


def test_data_without_classes_is_refused(tmp_path) -> None:
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", x=generator.random((30, 3)), y=generator.random(30))
    with pytest.raises(ArchitectureError, match="no classes"):
        scorer_for(load_adversarial("npz", tmp_path / "t.npz"), cache=tmp_path)


@pytest.mark.parametrize("side", [3, 8, 9, 15, 16, 17, 28, 32, 50])
@pytest.mark.parametrize("channels", [1, 3])
def test_recipes_fit_images_of_any_size(side, channels) -> None:
    from nembp.architecture import network

    shape = (side, side + 1, channels)
    digits = load("digits")
    recipe = recipe_for(replace(digits, shape=shape))
    net = network(shape, recipe.layers, 10)
    assert net.predict(np.zeros((1, net.inputs))).shape == (1, 10)
