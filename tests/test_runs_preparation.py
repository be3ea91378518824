"""What a run makes of its options before it trains: scalings, splits, networks, pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.errors import ArchitectureError
from nembp.plotting import pictures
from nembp.runs import RunConfig, train_run
from nembp.runs import training as run_module
from nembp.runs.training import prepare

GENERATOR = np.random.default_rng(0)
X = np.column_stack([GENERATOR.normal(50, 9, 90), GENERATOR.uniform(-3, 2, 90), np.full(90, 4.0)])
LABELS = np.arange(90) % 3


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def prepared(x, y, **options):
    np.savez("d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    config = RunConfig(dataset="npz", data_dir="d.npz", device="cpu", epochs=1, **options)
    return prepare(config)


def test_tables_are_standardized_for_a_gaussian_end():
    scaled = prepared(X, LABELS).data.x_scaling.apply(X, np.float64)
    assert np.allclose(scaled.mean(axis=0), 0.0, atol=1e-9)
    assert np.allclose(scaled.std(axis=0), [1, 1, 0], atol=1e-9)


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


def test_a_weight_is_the_precision_of_a_gaussian():
    assert prepared(X, LABELS, backward_weight=0.25).net.reversed.likelihood == Gaussian(4.0)


def test_numbers_are_no_classes():
    with pytest.raises(ArchitectureError, match="--task classification"):
        prepared(X, X[:, 0], forward="multinomial")
    assert prepared(X, LABELS * 1.0, task="classification").data.classes == ("0", "1", "2")


def test_centroids_are_those_of_what_is_trained_on():
    run = prepared(X, LABELS, validation_fraction=0.3)
    assert len(run.train) == 63
    scaled = run.data.x_scaling.apply(run.train.x, np.float64)
    means = [scaled[run.train.y == k].mean(axis=0) for k in range(3)]
    assert np.allclose(run.centroids, means)


@pytest.mark.parametrize("pixels", [True, False])
def test_pictures_are_drawn_in_their_unit(monkeypatch, pixels):
    """Images from 0 to 1, tables as they were."""
    drawn = {}

    def draw(path, images, centroids, shape, classes):
        drawn.update(images=images, centroids=centroids, shape=shape, classes=classes)

    monkeypatch.setattr(pictures, "backward_picture", draw)
    x = GENERATOR.integers(0, 255, (90, 2, 2)).astype(np.uint8) if pixels else X
    np.savez("d.npz", x_train=x, y_train=LABELS, x_test=x, y_test=LABELS)
    train_run(RunConfig(dataset="npz", data_dir="d.npz", device="cpu", epochs=1), "run")
    means = np.array([x[np.equal(LABELS, k)].mean(axis=0) for k in range(3)])
    expected = means[..., np.newaxis] / 255 if pixels else means
    assert np.allclose(drawn["centroids"], expected)
    assert drawn["images"].shape == expected.shape
    assert np.abs(drawn["images"] - x.mean() * (1 / 255 if pixels else 1)).max() < 100
    assert drawn["classes"] == ("0", "1", "2")


def test_rows_can_be_read_while_it_trains():
    counts = []

    def read(row):
        with open("run/metrics.jsonl") as file:
            counts.append([json.loads(line)["epoch"] for line in file])

    train_run(RunConfig(layers=(4,), epochs=3, device="cpu"), "run", on_epoch=read)
    assert counts == [[1], [1, 2], [1, 2, 3]]


def test_one_seed_draws_weights_batches_and_noise(monkeypatch):
    given = []

    class Trainer(run_module.Trainer):
        def __init__(self, net, *args, **kwargs):
            given.append((net.parameters[:3].tolist(), kwargs["seed"]))
            super().__init__(net, *args, **kwargs)

    monkeypatch.setattr(run_module, "Trainer", Trainer)
    for seed in (0, 7):
        train_run(RunConfig(layers=(4,), epochs=1, device="cpu", seed=seed), f"run{seed}")
    assert [seed for _, seed in given] == [0, 7]
    assert given[0][0] != given[1][0]


def test_initial_weights_are_scaled_and_nothing_else():
    nets = [prepare(RunConfig(layers=(5,), weight_scale=scale)).net for scale in (None, 1.0, 4.0)]
    for W, same, larger in zip(*(net.weights for net in nets), strict=True):
        np.testing.assert_array_equal(W, same)
        np.testing.assert_array_equal(4.0 * W, larger)
    start = nets[0].weight_count
    np.testing.assert_array_equal(nets[0].parameters[start:], nets[2].parameters[start:])
