"""``nembp draw noise``, as a user calls it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cli_predict_cases import train_runs
from command_line import as_json, fails, run, works
from PIL import Image

from nembp.checkpoints import load_model
from nembp.datasets import load
from nembp.files import replacing
from nembp.plotting.pictures import write_images
from nembp.runs import RunConfig, train_run

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of digits, of named classes of a table, and of two numbers; and data for them."""
    folder = train_runs(tmp_path_factory.mktemp("runs"))
    config = RunConfig(
        layers=(16,), epochs=2, device="cpu", backward="bernoulli", noise="nem", noise_std=0.25,
        noise_target="both", noise_rejected="zero", noise_law="uniform",
    )  # fmt: skip
    train_run(config, folder / "bernoulli")
    train_run(RunConfig(layers=(8,), epochs=1, device="cpu", backward="none"), folder / "oneway")
    x = np.random.default_rng(0).normal(size=(4, 2))
    np.savez(folder / "pairs.npz", x=x, y=x @ [[1.0, 3.0], [2.0, -1.0]] + 100)
    np.save(folder / "x.npy", x)
    write_images(folder / "digit.png", load("digits").test.x[[5]] / 16, (8, 8, 1))
    return folder


@pytest.fixture(autouse=True)
def _pictures_of_one_pixel(own_folder, monkeypatch, request):
    """All tests but one look at the numbers."""

    def draw(path, *_):
        with replacing(path) as file:
            Image.new("RGB", (1, 1)).save(file, "PNG")

    if "sample_are_drawn" not in request.node.name:
        monkeypatch.setattr("nembp.plotting.noise.draw_noise", draw)


drawn = partial(as_json, "draw", "noise", "--force")


# -- what is drawn ---------------------------------------------------------------------------------
def test_without_options_the_classes_of_the_first_test_sample_are_drawn(runs):
    result = works("draw", "noise", runs / "digits")
    assert result.stderr == "nembp: wrote noise-forward.png\n"
    head, simplex, span = result.stdout.splitlines()
    assert head.split()[:4] == ["panel", "screened", "neurons", "accepted"]
    assert simplex.startswith("three classes on the simplex")
    assert span.startswith("all 10 neurons")
    assert os.listdir() == ["noise-forward.png"]
    with Image.open("noise-forward.png") as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_the_target_and_the_output_are_those_of_the_sample(runs):
    data, model = load("digits").test, load_model(runs / "digits" / "model.npz")
    facts = drawn(runs / "digits", "--sample", 7)
    assert facts["sample"] == "test sample 7 of digits"
    assert facts["target"] == np.eye(10)[data.y[7]].tolist()
    x = model.x_scaling.apply(data.x[[7]], np.float64).reshape(1, -1)
    p = model.net.predict(x)[0]
    assert np.allclose(facts["output"], p, rtol=1e-5)
    assert facts["log_likelihood"] == pytest.approx(np.log(p[data.y[7]]), rel=1e-4)
    backward = drawn(runs / "digits", "--sample", 7, "--direction", "backward")
    assert np.allclose(backward["target"], x[0])
    assert np.allclose(backward["output"], model.net.reversed.predict(np.eye(10)[data.y[[7]]])[0])
    assert backward["out"] == "noise-backward.png"


def test_what_is_not_asked_for_is_the_runs(runs):
    names = "std", "rejected", "law", "draws", "seed"
    asked = ("--std", 0.5, "--rejected", "reflect", "--law", "gaussian", "--draws", 70, "--seed", 1)
    for run_, more, expected in (
        ("bernoulli", (), [0.25, "zero", "uniform", 2000, 0]),
        ("bernoulli", asked, [0.5, "reflect", "gaussian", 70, 1]),
        ("digits", (), [0.1, "reflect", "gaussian", 2000, 0]),  # trained without noise
    ):
        facts = drawn(runs / run_, *more)
        assert [facts[name] for name in names] == expected
        unused = "reflected" if facts["rejected"] == "zero" else "set_to_zero"
        assert facts["panels"][0][unused] == 0


def test_samples_of_files_are_drawn(runs):
    facts = drawn(runs / "digits", "--input", runs / "digit.png", "--class", "3")
    assert facts["sample"] == str(runs / "digit.png")
    assert facts["target"] == np.eye(10)[3].tolist()
    pairs = drawn(runs / "numbers", "--input", runs / "pairs.npz", "--sample", 3)
    model = load_model(runs / "numbers" / "model.npz")
    y = np.load(runs / "pairs.npz")["y"][[3]]
    assert np.allclose(pairs["target"], model.y_scaling.apply(y, np.float64)[0])
    back = drawn(runs / "kinds", "--input", runs / "x.npy", "--class", "bee", "--sample", 2,
                 "--direction", "backward")  # fmt: skip
    x = np.load(runs / "x.npy")[[2]]
    assert np.allclose(back["target"], load_model(runs / "kinds" / "model.npz").x_scaling.apply(
        x, np.float64)[0])  # fmt: skip


def test_a_direction_that_was_not_trained_is_noted(runs):
    result = works("draw", "noise", runs / "oneway", "--direction", "backward")
    assert "the backward direction of this run was not trained" in result.stderr
    assert "not trained" not in run("draw", "noise", runs / "oneway").stderr


# -- mistakes --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "args", "code", "words"),
    [
        ("nowhere", (), 3, "nowhere: no such file"),
        ("digits", ("--sample", "297"), 2, "297 test samples; expected a number from 0 to 296"),
        (
            "kinds",
            ("--class", "bea"),
            2,
            "no class 'bea'; expected one of the classes 'ant', 'bee', 'cat'; did you mean 'bee'?",
        ),
        ("numbers", ("--class", "left"), 2, "this model predicts numbers; choose a sample by its"),
        ("digits", ("--sample", "1", "--class", "1"), 2, "give one of them"),
        ("digits", ("--std", "0"), 2, "0.0 is not in the range 1e-09<=x<=1000000.0"),
        ("digits", ("--out", "noise.jpg"), 2, "must end in .png"),
        ("digits", ("--input", "absent.npy", "--class", "1"), 3, "absent.npy"),
        ("digits", ("--input", "a.npy", "--data-dir", "b"), 2, "--data-dir"),
        ("digits", ("--out", "mine.png"), 6, "mine.png: exists; choose another --out, or replace"),
    ],
)
def test_each_option_has_its_mistakes(runs, name, args, code, words):
    Path("mine.png").write_text("mine")
    assert words in fails(code, "draw", "noise", runs / name, *args)
    assert os.listdir() == ["mine.png"]
    assert Path("mine.png").read_text() == "mine"


def test_samples_of_files_need_a_target_and_have_to_fit(runs):
    np.savez("uneven.npz", x=np.zeros((3, 2)), y=np.full((2, 2), 100.0))
    pairs, x, image = runs / "pairs.npz", runs / "x.npy", runs / "digit.png"
    for code, name, args, words in (
        (2, "digits", [image], "a sample without its target, and noise is noise on a target; "
         "--class NAME says which class it is of"),
        (2, "numbers", [x], "on a target; give an .npz with the arrays x and y"),
        (2, "numbers", [pairs, "--sample", "4"], "there are 4 samples; expected a number from 0 to 3"),
        (3, "digits", [x, "--class", "1"], "expected (n, 8, 8, 1)"),
        (2, "numbers", ["uneven.npz"], "3 samples x and 2 targets y"),
    ):  # fmt: skip
        assert words in fails(code, "draw", "noise", runs / name, "--input", *args)
