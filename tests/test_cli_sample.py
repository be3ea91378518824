"""``nembp sample``: samples of a run in every form, there and back, and bad input."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import as_json, fails, run, works
from PIL import Image

from nembp.adversarial.data import draw_latent
from nembp.runs.gan import run_gan
from nembp.runs.gan_config import GanConfig
from nembp.runs.predicting import load_run

TINY = {"iterations": 30, "latent": 2, "latent_law": "gaussian", "checkpoints": 2,
        "generator": (16,), "discriminator": (16,), "device": "cpu",
        "scored_samples": 200}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on the ring (scaled by 2), both players bidirectional, and one on digits."""
    folder = tmp_path_factory.mktemp("runs")
    plane = GanConfig(**TINY, dataset="ring", samples=500, bidirectional="both", scale=2.0)
    run_gan(plane, folder / "ring")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEMBP_CACHE", str(folder))
        run_gan(GanConfig(**TINY, dataset="digits"), folder / "digits")
    return folder


pytestmark = pytest.mark.usefixtures("own_folder")
sample = partial(works, "sample")


def test_arrays_hold_raw_samples(runs):
    sample(runs / "ring", "-n", "50", "--out", "x.npz")
    found = np.load("x.npz")
    generator = load_run(runs / "ring", player="generator")
    assert np.array_equal(found["z"], draw_latent(50, 2, 0))
    expected = generator.net.predict(found["z"]) / 2  # the network sees points times 2
    np.testing.assert_allclose(found["x"], expected, rtol=1e-5)
    # the same seed draws the first ones of more, and another others
    sample(runs / "ring", "-n", "2000", "--out", "more.npy")
    sample(runs / "ring", "-n", "50", "--seed", "1", "--out", "others.npy")
    np.testing.assert_allclose(found["x"], np.load("more.npy")[:50], rtol=1e-5)
    assert not (found["x"] == np.load("others.npy")).any()


def test_images_are_drawn_in_a_sheet(runs):
    sample(runs / "digits", "-n", "9", "--out", "a.png")
    sample(runs / "digits", "-n", "9", "--out", "a.npy")
    raw = np.load("a.npy")
    assert raw.shape == (9, 8, 8, 1)
    assert 0 <= raw.min() < raw.max() <= 16  # the digits' raw units
    with Image.open("a.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (3 * 66 - 2, 3 * 66 - 2)  # tiles of 64 pixels, 2 between them
    tile = pixels[66:130, 66:130][::8, ::8]
    assert np.abs(tile - raw[4, ..., 0] * 255 / 16).max() <= 1


def test_points_are_drawn_over_real_ones(runs):
    result = sample(runs / "ring")
    assert "wrote samples.png: 64 samples" in result.stderr
    assert result.stdout == ""
    with Image.open("samples.png") as picture:
        assert picture.size == (560, 620)


def test_real_samples_go_there_and_back(runs):
    result = sample(runs / "ring", "-n", "40", "--reconstruct", "--out", "a.npz")
    found = np.load("a.npz")
    net = load_run(runs / "ring", player="generator").net
    z = net.reversed.predict(2 * found["real"])
    np.testing.assert_allclose(found["z"], z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["x"], net.predict(found["z"]) / 2, rtol=1e-4, atol=1e-5)
    radius = np.linalg.norm(found["real"], axis=1)
    np.testing.assert_allclose(radius, 1.0, atol=0.06)  # points of the ring
    assert "there and back" in result.stdout
    sample(runs / "ring", "--reconstruct", "--out", "a.png")
    assert Path("a.png").exists()
    told = sample(runs / "ring", "-n", "99999", "--reconstruct", "--out", "b.npy", "--json")
    there = len(np.load("b.npy"))
    assert json.loads(told.stdout)["samples"] == there < 99999
    assert f"wrote b.npy: {there:,} samples, all that there are\n" in told.stderr
    line = fails(2, "sample", runs / "digits", "--reconstruct", "--out", "c.npy")
    assert "trained in one direction" in line


def test_info_shows_both_players(runs):
    text = run("info", runs / "digits").stdout
    generator, discriminator = text.split("discriminator:\n")
    assert generator.startswith("generator:\ndata        digits: 2 to 64 values\n")
    assert "digits: 8x8x1 to real\n" in discriminator
    facts = as_json("info", runs / "ring")
    assert [layer["shape"] for layer in facts["generator"]["layers"]] == [[2], [16], [2]]
    assert facts["discriminator"]["config"]["bidirectional"] == "both"
    assert as_json("info", runs / "ring" / "generator.npz")["targets"]


def test_bad_input_is_one_line(runs):
    assert "must end in one of .png, .npy, .npz" in fails(
        2, "sample", runs / "ring", "--out", "a.gif"
    )
    Path("there.npy").write_text("")
    assert "there.npy: exists" in fails(6, "sample", runs / "ring", "--out", "there.npy")
    assert "nembp gan" in fails(3, "sample", ".")
    for command in (("sample",), ("gan", "--start")):
        line = fails(3, *command, "nowhere")  # gan: before anything is loaded or judged
        assert "nowhere: no such file; expected the folder of a run of `nembp gan`" in line
    assert "is no generator" in fails(3, "sample", runs / "ring" / "discriminator.npz")
    assert "-n" in fails(2, "sample", runs / "ring", "-n", "0")
    for command in (("evaluate",), ("draw", "noise")):
        line = fails(3, *command, runs / "digits" / "discriminator.npz")
        assert "the discriminator of a run of `nembp gan`" in line
    content = bytearray((runs / "ring" / "generator.npz").read_bytes())
    content[len(content) // 2] ^= 1
    Path("generator.npz").write_bytes(bytes(content))
    np.save("z.npy", np.zeros((1, 2)))
    for command in (["sample", "."], ["predict", "generator.npz", "z.npy"], ["info", "."],
                    ["evaluate", "generator.npz"]):  # fmt: skip
        assert "generator.npz" in fails(3, *command)


def test_players_of_tables_know_its_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMBP_CACHE", str(tmp_path))
    generator = np.random.default_rng(0)
    lines = [f"{a},{b},{'up' if a > 0 else 'down'}" for a, b in generator.normal(size=(80, 2))]
    Path("t.csv").write_text("\n".join(["width,height,way", *lines]) + "\n")
    run_gan(GanConfig(**TINY, dataset="csv", data_dir="t.csv"), "a")
    sample("a", "-n", "2", "--out", "s.npz")
    told = run("predict", "a/generator.npz", "s.npz", "--key", "z")
    assert told.stdout.splitlines()[0].split() == ["input", "width", "height"]
    told = works("predict", "a/discriminator.npz", "t.csv")
    assert len(told.stdout.splitlines()) == 81
