"""Commands with ``--device gpu``: on a GPU, or on the stand-in for one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
from command_line import as_json, fails, run
from devices import REAL, needs_kernels

from nembp.checkpoints import load_model
from nembp.runs.config import from_toml
from nembp.runs.gan_config import GanConfig

pytestmark = needs_kernels
SMALL = ("train", "--layers", "16", "--epochs", "2", "--limit", "400")
only_stand_in = pytest.mark.skipif(REAL, reason="its memory has no such limit")


@pytest.fixture(autouse=True)
def device(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return None if REAL else fake_cupy.install(monkeypatch)


def test_train_evaluate_and_predict():
    for on in ("gpu", "cpu"):
        run(*SMALL, "--device", on, "--out", on, "--quiet")
    summaries = [json.loads(Path(name, "summary.json").read_text()) for name in ("gpu", "cpu")]
    assert summaries[0]["device"].startswith("gpu (")
    assert summaries[0]["config"]["device"] == "gpu"
    assert from_toml("gpu/config.toml").cuda_graphs == "auto"
    for key in ("forward/accuracy", "forward/nll", "backward/nll", "backward/centroid_error"):
        tolerance = {"abs": 0.011} if key == "forward/accuracy" else {"rel": 1e-2 if REAL else 1e-3}
        assert summaries[0][key] == pytest.approx(summaries[1][key], **tolerance), key
    for name in ("gpu", "cpu"):
        for on in ("cpu", "gpu"):
            scores = as_json("evaluate", name, "--device", on)
            assert scores["device"].startswith(on)
            assert scores["forward/nll"] == pytest.approx(summaries[0]["forward/nll"], rel=1e-2)
    np.save("x.npy", np.arange(128.0).reshape(2, 64) % 16)
    found = {}
    for on in ("cpu", "gpu"):
        run("predict", "cpu", "x.npy", "--device", on, "--out", f"{on}.npy")
        run("predict", "cpu", "--direction", "backward", "--device", on, "--out", f"{on}.npz")
        found[on] = np.load(f"{on}.npy"), np.load(f"{on}.npz")["x"]
    for ours, theirs in zip(*found.values(), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_graphs_can_be_switched_off():
    for mode in ("auto", "off"):
        noise = ("--noise", "nem", "--noise-target", "both")
        run(*SMALL, *noise, "--device", "gpu", "--cuda-graphs", mode, "--out", mode, "--quiet")
    models = [load_model(f"{mode}/model.npz").net.parameters for mode in ("auto", "off")]
    assert np.array_equal(*models)


GAN = ("gan", "--samples", "300", "--latent", "4", "--generator", "8", "--discriminator", "8",
       "--iterations", "8", "--checkpoints", "3", "--scored-samples", "200",
       "--device", "gpu")  # fmt: skip


def test_graphs_of_adversarial_iterations_can_be_switched_off():
    found = {}
    for mode in ("auto", "off"):
        options = ("--noise", "nem", "--cuda-graphs", mode, "--out", mode, "--quiet")
        found[mode] = as_json(*GAN, *options)
        assert from_toml(f"{mode}/config.toml", GanConfig).cuda_graphs == mode
    assert found["auto"]["scores"] == found["off"]["scores"]
    assert (found["auto"]["captured_iterations"], found["auto"]["why_not_captured"]) == (6, None)
    off = found["off"]["captured_iterations"], found["off"]["why_not_captured"]
    assert off == (0, "switched off")
    for player in ("generator", "discriminator"):
        models = [load_model(f"{mode}/{player}.npz").net.parameters for mode in ("auto", "off")]
        assert np.array_equal(*models)


@only_stand_in
def test_why_iterations_are_not_captured_is_said(monkeypatch):
    def begin(*_):
        raise RuntimeError("cannot begin")

    monkeypatch.setattr(fake_cupy.Stream, "begin_capture", begin)
    result = run(*GAN, "--out", "a")
    words = "iterations made call by call: a step cannot be captured (cannot begin)"
    assert words in result.stderr
    assert json.loads(Path("a/summary.json").read_text())["captured_iterations"] == 0
    assert words not in run(*GAN, "--out", "b", "--cuda-graphs", "off").stderr


def test_precision():
    run(*SMALL, "--device", "gpu", "--precision", "tf32", "--out", "a", "--quiet")
    summary = json.loads(Path("a/summary.json").read_text())
    assert "TF32" in summary["device"]
    assert summary["config"]["precision"] == "tf32"
    result = run(*SMALL, "--device", "cpu", "--precision", "tf32", "--out", "b")
    assert "nembp: precision tf32: without effect on the CPU" in result.stderr
    assert "one of" in fails(2, *SMALL, "--precision", "half")


@only_stand_in
def test_a_full_memory_is_one_line_and_auto_takes_the_cpu(device):
    device.memory_limit = 1000
    result = run(*SMALL, "--device", "auto", "--out", "b")
    assert "computing on the CPU: the GPU's memory is full" in result.stderr
    device.memory_limit = 40_000_000
    line = fails(8, "train", "--layers", "4000,4000", "--device", "gpu", "--out", "a")
    for words in ("the GPU's memory is full", "--batch-size", "--device cpu"):
        assert words in line


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--out", "a"),
        ("evaluate", "cpu"),
        ("predict", "cpu", "--direction", "backward", "--out", "x.npy"),
        ("sample", Path(__file__).parent / "golden" / "gan"),
        ("verify", "joint"),
        ("bench", "--quick"),
        ("experiment", "run", "output-noise-digits", "--quick"),
    ],
    ids=lambda command: command[0],
)
def test_without_cupy_every_command_says_so(command, monkeypatch):
    run(*SMALL, "--device", "cpu", "--out", "cpu", "--quiet")
    monkeypatch.setitem(sys.modules, "cupy", None)
    line = fails(4, *command, "--device", "gpu")
    assert "needs CuPy, which is not installed" in line
    assert "nembp[cuda13]" in line
    assert "--device cpu" in line
