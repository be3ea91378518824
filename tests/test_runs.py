"""Training runs: what is learned, what is left in the folder, and what is never lost."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nembp.checkpoints import load_model
from nembp.datasets import load
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.metrics import centroid_error
from nembp.errors import ArchitectureError
from nembp.plotting import pictures
from nembp.runs import RunConfig, from_toml, train_run
from nembp.runs.folder import to_json
from nembp.runs.training import TrainRun, hold_out, prepare
from nembp.threads import blas_threads

TINY = RunConfig(layers=(16,), epochs=2, device="cpu")
GENERATOR = np.random.default_rng(0)
X = np.column_stack([GENERATOR.normal(50, 9, 90), GENERATOR.uniform(-3, 2, 90), np.full(90, 4.0)])
LABELS = np.arange(90) % 3


pytestmark = pytest.mark.usefixtures("own_folder")


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(folder) -> list[dict]:
    return [
        {key: value for key, value in row.items() if "seconds" not in key and "per_sec" not in key}
        for row in rows(folder)
    ]


def parameters(folder) -> np.ndarray:
    return load_model(folder / "model.npz").net.parameters


# -- what is learned -------------------------------------------------------------------------------
def test_the_digits_are_learned_in_both_directions(tmp_path):
    scores = [
        train_run(RunConfig(seed=seed, device="cpu"), tmp_path / str(seed)) for seed in range(2)
    ]
    assert np.mean([score["forward/accuracy"] for score in scores]) >= 0.97
    assert np.mean([score["backward/centroid_error"] for score in scores]) <= 0.02


def test_the_first_backward_image_is_the_mean(tmp_path):
    """The input bias starts there, so that before training the error is that of the mean."""
    prepared = prepare(RunConfig(layers=(), device="cpu"))
    x = prepared.data.train.x.reshape(-1, 64) / 16.0
    zero = np.zeros((1, 10))
    assert np.allclose(prepared.net.reversed.predict(zero)[0], x.mean(axis=0), atol=1e-6)
    assert centroid_error(prepared.net, prepared.centroids) < 1.5


# -- the folder ------------------------------------------------------------------------------------
def test_a_run_leaves_a_complete_folder(tmp_path):
    folder, seen, plans = tmp_path / "a" / "b", [], []
    summary = train_run(TINY, folder, on_row=seen.append, on_start=plans.append)
    assert sorted(path.name for path in folder.iterdir()) == sorted(TrainRun.files)
    written = json.loads((folder / "summary.json").read_text())
    assert written == json.loads(to_json(summary))
    assert (written["status"], written["epochs"], written["run"]) == ("finished", 2, str(folder))
    assert [row["epoch"] for row in rows(folder)] == [1, 2]
    assert [row["forward/nll"] for row in rows(folder)] == [row["forward/nll"] for row in seen]
    assert {row["scored_on"] for row in rows(folder)} == {"test"}
    assert plans[0]["sizes"] == [64, 16, 10]
    model = load_model(folder / "model.npz")
    assert model.settings.pop("data_fingerprint")
    assert model.settings == written["config"]
    assert (model.shape, model.classes, model.dataset) == ((8, 8, 1), tuple("0123456789"), "digits")
    assert summary["forward/accuracy"] == rows(folder)[-1]["forward/accuracy"]
    assert summary["samples_per_second"] == pytest.approx(3000 / summary["seconds"])
    from PIL import Image

    with Image.open(folder / "backward.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 500


def test_the_configuration_repeats_the_run(tmp_path, monkeypatch):
    config = TINY.replace(
        {"noise": "nem", "noise_target": "both", "noise_std": 0.3, "validation_fraction": 0.1,
         "limit": 200, "seed": 4, "optimizer": "momentum"}
    )  # fmt: skip
    np.savez("d.npz", x=GENERATOR.normal(size=(360, 3)), y=np.arange(360) % 2)
    train_run(config.replace({"dataset": "npz", "data_dir": "d.npz"}), tmp_path / "a")
    monkeypatch.chdir("/")  # a relative path of the data still works
    again = from_toml(tmp_path / "a" / "config.toml")
    assert None not in {getattr(again, name) for name in ("threads", "learning_rate", "forward")}
    train_run(again, tmp_path / "b")
    assert without_times(tmp_path / "a") == without_times(tmp_path / "b")
    assert np.array_equal(parameters(tmp_path / "a"), parameters(tmp_path / "b"))
    texts = [(tmp_path / name / "config.toml").read_text() for name in "ab"]
    assert texts[0] == texts[1]
    train_run(again.replace({"seed": 5}), tmp_path / "c")
    assert not np.array_equal(parameters(tmp_path / "a"), parameters(tmp_path / "c"))


# -- options that reach the engine -----------------------------------------------------------------
@pytest.mark.parametrize("place", ["target", "hidden,input"])
def test_arms_of_an_experiment_are_paired(tmp_path, place):
    """The same seed gives the same weights and batches whatever the noise."""
    nem = {"noise": "nem", "noise_target": "both", "noise_place": place}
    arms = {"none": {}, "silent": {**nem, "noise_std": 0.0}, "nem": {**nem, "noise_std": 0.3}}
    for name, changes in arms.items():
        train_run(TINY.replace(changes), tmp_path / name)
    results = {name: parameters(tmp_path / name) for name in arms}
    assert np.allclose(results["none"], results["silent"], atol=1e-5)  # one row a class or a sample
    assert np.abs(results["none"] - results["nem"]).max() > 1e-3
    row, found = rows(tmp_path / "nem")[-1], set()
    for direction in ("forward", "backward"):
        for at in ("/input", "/hidden-1") if place != "target" else ("",):
            assert 0.4 < row[f"noise/{direction}{at}/accepted"] <= 1.001
            assert row[f"noise/{direction}{at}/gain"] > 0
            found |= {f"noise/{direction}{at}/{key}" for key in ("accepted", "gain")}
    assert found == {key for key in row if key.startswith("noise/")}
    assert not [key for key in rows(tmp_path / "none")[-1] if key.startswith("noise/")]


def test_one_direction_is_the_same_call(tmp_path):
    summary = train_run(TINY.replace({"backward": "none"}), tmp_path / "a")
    assert summary["backward_trained"] is False
    assert "train/backward/nll" not in rows(tmp_path / "a")[0]
    train_run(TINY, tmp_path / "b")
    mean = load("digits").train.x.reshape(-1, 64).mean(axis=0) / 16.0
    moved = [
        np.abs(load_model(tmp_path / name / "model.npz").net.reversed.biases[-1] - mean).max()
        for name in "ab"
    ]
    assert moved[0] < 1e-6
    assert moved[1] > 1e-3


def test_patience_stops_and_keeps_the_best(tmp_path):
    config = TINY.replace({"epochs": 60, "patience": 2, "learning_rate": 0.02, "limit": 200})
    summary = train_run(config, tmp_path / "a")
    history = rows(tmp_path / "a")
    assert summary["status"] == "stopped early"
    assert len(history) < 60
    assert {row["scored_on"] for row in history} == {"validation"}
    nlls = [row["forward/nll"] for row in history]
    assert summary["best_epoch"] == 1 + int(np.argmin(nlls)) == len(nlls) - 2


def test_threads_hold_for_the_training_alone(tmp_path):
    before, during = blas_threads(), []
    config = TINY.replace({"threads": 2})
    train_run(config, tmp_path / "a", on_row=lambda row: during.append(blas_threads()))
    assert during == [2, 2]
    assert blas_threads() == before
    assert from_toml(tmp_path / "a" / "config.toml").threads == 2


def test_the_validation_split_is_a_share_of_each_class():
    digits = load("digits")
    train, validation = hold_out(digits, RunConfig(validation_fraction=0.2))
    assert (len(train), len(validation)) == (1200, 300)
    both = np.concatenate([train.x, validation.x]).reshape(1500, -1)
    assert np.array_equal(np.sort(both, axis=0), np.sort(digits.train.x.reshape(1500, -1), axis=0))
    shares = np.bincount(validation.y) / np.bincount(digits.train.y)
    assert np.all(np.abs(shares - 0.2) < 0.01)
    other = hold_out(digits, RunConfig(validation_fraction=0.2, split_seed=1))[1]
    assert not np.array_equal(other.x, validation.x)


# -- what is made of the options before training --------------------------------------------------
def prepared(x, y, **options):
    np.savez("d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    config = RunConfig(dataset="npz", data_dir="d.npz", device="cpu", epochs=1, **options)
    return prepare(config)


def test_a_gaussian_end_gets_standardized_values():
    run = prepared(X, LABELS, backward_weight=0.25)
    scaled = run.data.x_scaling.apply(X, np.float64)
    assert np.allclose(scaled.mean(axis=0), 0.0, atol=1e-9)
    assert np.allclose(scaled.std(axis=0), [1, 1, 0], atol=1e-9)
    assert run.net.reversed.likelihood == Gaussian(4.0)  # the weight is its precision


def test_a_bernoulli_end_gets_values_from_0_to_1():
    run = prepared(X, LABELS, backward="bernoulli", backward_weight=0.5)
    scaled = run.data.x_scaling.apply(X, np.float64)
    assert np.allclose(scaled.min(axis=0), 0.0)
    assert np.allclose(scaled.max(axis=0), [1, 1, 0])
    assert run.net.reversed.likelihood == Bernoulli(weight=0.5)
    bits = np.greater(X, X.mean(axis=0)).astype(float)
    assert np.array_equal(
        prepared(bits, LABELS, backward="bernoulli").data.x_scaling.apply(bits), bits
    )
    numbers = prepared(X, X[:, :2] * 7, forward="bernoulli")
    targets = numbers.data.y_scaling.apply(X[:, :2] * 7, np.float64)
    assert (targets.min(), targets.max()) == pytest.approx((0.0, 1.0))
    assert numbers.net.likelihood == Bernoulli()


def test_a_multinomial_end_gets_values_from_0(tmp_path):
    one_hot = np.eye(4)[np.arange(90) % 4]
    run = prepared(one_hot, LABELS, backward="multinomial")
    assert np.array_equal(run.data.x_scaling.apply(one_hot), one_hot)
    assert run.net.reversed.likelihood == Multinomial(weight=0.1)
    counts = GENERATOR.integers(0, 20, (90, 4))
    scaled = prepared(counts, LABELS, backward="multinomial").data.x_scaling.apply(counts)
    assert np.allclose(scaled, counts / counts.max())
    with pytest.raises(ArchitectureError, match=r"d\.npz holds -.*--backward gaussian"):
        prepared(X, LABELS, backward="multinomial")
    with pytest.raises(ArchitectureError, match="--task classification"):
        prepared(X, X[:, 0], forward="multinomial")
    assert prepared(X, LABELS * 1.0, task="classification").data.classes == ("0", "1", "2")


def test_centroids_are_those_of_what_is_trained_on():
    run = prepared(X, LABELS, validation_fraction=0.3)
    assert len(run.train) == 63
    scaled = run.data.x_scaling.apply(run.train.x, np.float64)
    means = [scaled[run.train.y == k].mean(axis=0) for k in range(3)]
    assert np.allclose(run.centroids, means)


def test_tables_are_drawn_in_their_units(monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "backward_picture", lambda path, *rest: drawn.extend(rest))
    prepared(X, LABELS)  # writes d.npz
    train_run(RunConfig(dataset="npz", data_dir="d.npz", device="cpu", epochs=1), "run")
    images, centroids, _, classes = drawn
    means = np.array([X[np.equal(LABELS, k)].mean(axis=0) for k in range(3)])
    assert np.allclose(centroids, means)
    assert np.abs(images - means).max() < 100
    assert classes == ("0", "1", "2")


def test_initial_weights_are_scaled_and_nothing_else():
    nets = [prepare(RunConfig(layers=(5,), weight_scale=scale)).net for scale in (None, 1.0, 4.0)]
    for W, same, larger in zip(*(net.weights for net in nets), strict=True):
        np.testing.assert_array_equal(W, same)
        np.testing.assert_array_equal(4.0 * W, larger)
    start = nets[0].weight_count
    np.testing.assert_array_equal(nets[0].parameters[start:], nets[2].parameters[start:])
