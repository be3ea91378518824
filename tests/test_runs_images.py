"""Runs on images: convolutions, colours, augmentation; as a library and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import as_json, fails, rows, run, works

from nembp.checkpoints import load_model
from nembp.datasets.reading import Augmentation
from nembp.errors import ArchitectureError
from nembp.runs import RunConfig, evaluate_run, from_toml, train_run
from nembp.runs.predicting import answer
from nembp.runs.training import prepare

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "mnist-sample"
GENERATOR = np.random.default_rng(0)
LABELS = np.arange(180) % 3
CLASSES = ("red", "green", "blue")
# a bright left half in one channel a class, over noise
X = GENERATOR.integers(0, 100, (180, 8, 8, 3))
X[np.arange(180), :, :4, LABELS] += 120
X = X.astype(np.uint8)
COLOURS = RunConfig(dataset="npz", data_dir="colours.npz", epochs=25, learning_rate=0.005,
                    backward_weight=0.1, device="cpu")  # fmt: skip


@pytest.fixture(autouse=True)
def _colours(own_folder):
    names = np.array(CLASSES)[LABELS]
    np.savez(
        "colours.npz", x_train=X[:150], y_train=names[:150], x_test=X[150:], y_test=names[150:]
    )


# -- colours ---------------------------------------------------------------------------------------
def test_colours_are_learned_in_both_directions_and_drawn_as_they_were(monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "nembp.plotting.pictures.backward_picture", lambda path, *rest: drawn.update(rest=rest)
    )
    prepared = prepare(COLOURS)
    scaled = prepared.data.x_scaling.apply(X[:150], np.float64)
    assert np.allclose(scaled.mean(axis=(0, 1, 2)), 0.0, atol=1e-9)
    assert np.allclose(scaled.std(axis=(0, 1, 2)), 1.0)
    summary = train_run(COLOURS, "run")
    assert summary["config"]["layers"] == ["conv32x4s2", 256]
    assert summary["forward/accuracy"] == 1.0
    assert summary["backward/centroid_error"] < 0.2
    images, centroids, shape, classes = drawn["rest"]
    order = [CLASSES.index(name) for name in classes]
    means = np.stack([X[:150][LABELS[:150] == k].mean(axis=0) / 255 for k in order])
    assert np.allclose(centroids, means)
    assert np.abs(images - means).mean() < 0.05
    assert (shape, classes) == ((8, 8, 3), tuple(sorted(CLASSES)))


def test_the_centroid_error_is_that_of_pixels_whatever_the_scaling():
    summary = train_run(COLOURS.replace({"epochs": 3}), "run")
    model = load_model("run/model.npz")
    seen = answer(model, np.eye(3), backward=True) / 255
    order = [CLASSES.index(name) for name in model.classes]
    means = np.stack([X[:150][LABELS[:150] == k].mean(axis=0) / 255 for k in order])
    distances = np.sqrt(np.sum((seen - means) ** 2, axis=(1, 2, 3)))
    lengths = np.sqrt(np.sum(means**2, axis=(1, 2, 3)))
    expected = pytest.approx(np.mean(distances / lengths), rel=1e-4)
    assert summary["backward/centroid_error"] == expected
    assert evaluate_run("run")["backward/centroid_error"] == expected
    assert rows("run")[-1]["backward/centroid_error"] == expected


# -- augmentation ----------------------------------------------------------------------------------
def test_training_images_are_changed_and_those_that_score_are_not(monkeypatch):
    prepared = prepare(COLOURS.replace({"augment": "flips,crops2"}))
    given = lambda *_, augmentation, **__: augmentation  # noqa: E731
    monkeypatch.setattr("nembp.runs.training.BatchReader", given)
    changed = prepared.reader(prepared.train, augmented=True)
    assert changed == Augmentation(flip=True, crop=2)
    assert prepared.reader(prepared.train) is None


def test_tables_are_not_augmented(tmp_path):
    np.savez("table.npz", x=GENERATOR.normal(size=(30, 3)), y=np.arange(30) % 2)
    with pytest.raises(ArchitectureError, match=r"table\.npz have the shape \(3,\); use --augment"):
        prepare(RunConfig(dataset="npz", data_dir="table.npz", augment="flips", device="cpu"))
    with pytest.raises(ArchitectureError, match=r"8x8 pixels by up to 8; expected at most crops7"):
        prepare(COLOURS.replace({"augment": "crops8"}))


# -- image files -----------------------------------------------------------------------------------
def test_files_of_any_size_are_trained_on_and_predicted_at_one_size():
    from PIL import Image

    for number, (image, label) in enumerate(zip(X[:60], LABELS[:60], strict=True)):
        folder = Path("files", CLASSES[label])
        folder.mkdir(parents=True, exist_ok=True)
        big = Image.fromarray(image).resize((16 + 4 * (number % 2), 16), Image.Resampling.NEAREST)
        big.save(folder / f"{number}.png")
    arguments = ["--dataset", "images", "--data-dir", "files", "--device", "cpu"]
    line = fails(3, "train", *arguments)
    assert "--image-size 16x" in line
    short = ["--image-size", "8", "--epochs", "15", "--learning-rate", "0.005", "--out", "run"]
    result = works("train", *arguments, *short, "--json", "--quiet")
    assert json.loads(result.stdout)["config"]["image_size"] == [8, 8]
    assert from_toml("run/config.toml").image_size == (8, 8)
    assert load_model("run/model.npz").shape == (8, 8, 3)
    assert evaluate_run("run")["samples"] == 12
    files = [f"files/{CLASSES[k]}/{k + 3}.png" for k in range(3)]
    found = as_json("predict", "run", *files)["predictions"]
    assert [row["class"] for row in found] == list(CLASSES)


# -- the command line ------------------------------------------------------------------------------
def test_one_line_describes_a_convolutional_network():
    arguments = ["--dataset", "idx", "--data-dir", SAMPLE, "--device", "cpu", "--epochs", "2"]
    result = works("train", *arguments, "--layers", "conv8x4s2, pool2,32", "--out", "run")
    assert "; 784-conv8x4s2-pool2-32-10 relu, " in result.stderr.splitlines()[0]
    assert from_toml("run/config.toml").layers == ("conv8x4s2", "pool2", 32)
    assert run("evaluate", "run").stdout.startswith("forward   accuracy")
    by_variable = run("train", *arguments, "--out", "other", env={
        "NEMBP_TRAIN_LAYERS": "conv4x3s2,16", "NEMBP_TRAIN_AUGMENT": "crops1",
        "NEMBP_TRAIN_SCALING": "channel",
    })  # fmt: skip
    assert " samples of 28x28x1 with crops1, " in by_variable.stderr.splitlines()[0]
    assert from_toml("other/config.toml").layers == ("conv4x3s2", 16)
    assert np.shape(load_model("other/model.npz").x_scaling.offset) == (1,)


def test_info_shows_a_network_layer_by_layer():
    train_run(COLOURS.replace({"epochs": 1}), "run")
    lines = run("info", "run").stdout.splitlines()
    assert lines[0].split() == ["data", "npz:", "8x8x3", "to", "3", "classes"]
    table = [line.split() for line in lines[4:]]
    assert table[0] == [
        "layer", "description", "shape", "neurons", "weights", "biases", "multiply-adds",
    ]  # fmt: skip
    assert table[1:3] == [
        ["0", "input", "8x8x3", "gaussian", "0", "192", "0"],
        ["1", "conv32x4s2", "4x4x32", "relu", "1,536", "64", "24,576"],
    ]
    assert table[-1][:2] == ["in", "all"]
    shown = as_json("info", "run/model.npz")
    totals = shown["totals"]
    assert totals["weights"] + totals["biases"] == shown["parameters"]
    assert shown["parameters"] == load_model("run/model.npz").net.parameter_count
    assert shown["config"]["layers"] == ["conv32x4s2", 256]
    assert "absent: no such file" in fails(3, "info", "absent")
