"""Colour images as a user meets them: looked at, trained on, drawn, and read back from pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cifar_files import NAMES, binary, expected, hundred, shrink
from command_line import fails, run

from nembp.datasets import cifar
from nembp.datasets.images import read_images


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    shrink(monkeypatch)


def works(*args):
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_user_looks_trains_and_draws_in_colour(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    binary(tmp_path / "cifar-10-batches-bin")
    facts = json.loads(works("data", "info", "cifar10", "--data-dir", tmp_path, "--json"))
    assert facts["shape"] == [32, 32, 3]
    assert facts["classes"] == dict.fromkeys(NAMES, 15)
    assert "cifar10" in works("data", "list")
    works("train", "--dataset", "cifar10", "--data-dir", tmp_path, "--layers", "32",
        "--epochs", "40", "--learning-rate", "0.01", "--batch-size", "32",
        "--backward-weight", "0.1", "--out", "run", "--device", "cpu")  # fmt: skip
    works("predict", "run", "--direction", "backward", "--out", "images.npy")
    images = np.load("images.npy")
    means = np.stack([expected(cifar._FIVE)[k::10].mean(axis=0) for k in range(10)])
    assert images.shape == (10, 32, 32, 3)
    error = np.abs(images - means).mean()
    assert error < np.abs(means.mean(axis=0) - means).mean() / 2  # raw units, and not all alike
    # what is drawn is what was predicted, in [0, 255]
    works("predict", "run", "--direction", "backward", "--labels", "cat", "--out", "cat.png")
    drawn = read_images(["cat.png"], (32, 32, 3))[0]
    assert np.abs(drawn - np.clip(images[3], 0, 255)).max() <= 0.5 + 1e-6
    # a picture goes forward as the pixels it shows
    np.save("cat.npy", drawn[np.newaxis])
    rows = [json.loads(works("predict", "run", name, "--json"))["predictions"][0]
            for name in ("cat.png", "cat.npy")]  # fmt: skip
    assert rows[0]["probabilities"] == pytest.approx(rows[1]["probabilities"], abs=1e-6)
    assert rows[0]["class"] == "cat"
    assert (tmp_path / "run" / "backward.png").stat().st_size > 1000
    assert "no CIFAR-10 here" in fails(3, "data", "info", "cifar10", "--data-dir", "run")


def test_what_data_info_says_of_scaling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    binary(tmp_path / "cifar-10-batches-bin")
    asked = ("data", "info", "cifar10", "--data-dir", tmp_path)
    pixels = expected(cifar._FIVE)
    scaling = json.loads(works(*asked, "--json"))["scaling"]
    assert scaling["kind"] == "channel"
    assert scaling["mean"] == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert scaling["deviation"] == pytest.approx(pixels.std(axis=(0, 1, 2)))
    assert "by channel: mean " in works(*asked)
    assert json.loads(works(*asked, "--scaling", "unit", "--json"))["scaling"] == {"kind": "unit"}
    assert "pixels to [0, 1]" in works(*asked, "--scaling", "unit")
    assert "scaling" in fails(2, *asked, "--scaling", "best")
    hundred(tmp_path, "binary")
    text = works("data", "info", "cifar100", "--data-dir", tmp_path)
    assert "class 19: 2  and 80 more" in text
