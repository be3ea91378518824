"""nembp gan: bad input, divergence and interruption."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_gan_cases import FILES, SHORT, gan, rows
from command_line import fails, interrupted, run

from nembp.runs.sampling import load_generator


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("NEMBP_"):
            monkeypatch.delenv(name)


# -- bad input -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "args", "message"),
    [
        (2, ["--data", "rnig"], "no data set 'rnig': expected one of ring, grid"),
        (2, ["--backward-weight", "-1"], "it must be a number > 0, got -1"),
        (2, ["--backward-weight", "much"], "it must be a number > 0, got 'much'"),
        (2, ["--bidirectional", "yes"], "'yes' is not one of"),
        (2, ["--kind", "wgan"], "'wgan' is not one of"),
        (2, ["--data", "mnist"], "no path was given"),
        (3, ["--data", "mnist", "--data-dir", "nowhere"], "nowhere"),
        (2, ["--seeds", "0"], "--seeds"),
        (2, ["--std", "1e308"], "Lower std or scale"),
        (2, ["--data", "grid", "--scale", "1e38"], "reach 4.3e+38; expected at most 1e+30"),
        (2, ["--discriminator", "conv8x3"], "conv8x3"),
        (2, ["--kind", "wasserstein", "--classes"], "no classes"),
        (2, ["--config", "nowhere.toml"], "nowhere.toml: cannot be read"),
        (6, ["--out", "file"], "file: is a file; expected a folder"),
        (6, ["--out", "full"], "full: not empty"),
    ],
)
def test_bad_input_is_one_line(tmp_path, code, args, message):
    Path("file").write_text("")
    Path("full").mkdir()
    Path("full/mine").write_text("")
    before = sorted(tmp_path.rglob("*"))
    assert message in fails(code, "gan", "--quiet", "--device", "cpu", *args)
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as where it is not installed
    assert "--device cpu" in fails(4, "gan", "--device", "gpu")


def test_force_replaces_a_run_and_nothing_else():
    gan(*SHORT, "--out", "a", "--quiet")
    Path("a/mine").write_text("kept")
    gan(*SHORT, "--out", "a", "--quiet", "--force", "--iterations", "8")
    assert {entry.name for entry in Path("a").iterdir()} == FILES | {"mine"}
    assert rows()[-1]["iteration"] == 8


def test_force_replaces_all_runs_of_several_seeds():
    gan(*SHORT, "--seeds", "3", "--out", "a", "--quiet")
    Path("a/seed2/mine").write_text("kept")
    Path("a/seedling").mkdir()
    failed = run("gan", *SHORT, "--seeds", "1", "--out", "a", "--force", "--classes", "--kind",
                 "wasserstein")  # fmt: skip
    assert failed.exit_code == 2
    assert len(list(Path("a").glob("seed*/summary.json"))) == 3  # a run that cannot begin
    gan(*SHORT, "--seeds", "1", "--seed", "1", "--out", "a", "--quiet", "--force")
    assert {entry.name for entry in Path("a").iterdir()} == {
        "seed1", "seed2", "seedling", "summary.json",
    }  # fmt: skip
    assert [entry.name for entry in Path("a/seed2").iterdir()] == ["mine"]
    assert json.loads(Path("a/summary.json").read_text())["seeds"] == [1]


# -- ends ------------------------------------------------------------------------------------------
def test_divergence_has_its_code_and_keeps_the_last_good_players():
    wild = ["--optimizer", "sgd", "--learning-rate", "1e12"]
    result = run("gan", *SHORT, *wild, "--out", "a", "--json", "--quiet")
    assert result.exit_code == 5, result.output
    assert json.loads(result.stdout)["status"] == "diverged"
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("nembp: error: ")
    assert "diverged" in line
    assert "a/generator.npz holds the last good generator" in line
    assert np.all(np.isfinite(load_generator("a").net.parameters))


def test_an_average_that_diverged_is_not_kept():
    wild = ["--optimizer", "sgd", "--learning-rate", "1e12", "--averaging", "0.9"]
    result = run("gan", *SHORT, *wild, "--out", "a", "--quiet")
    assert result.exit_code == 5, result.output
    assert np.all(np.isfinite(load_generator("a").net.parameters))


def test_seeds_that_diverge_are_left_out_of_the_means():
    wild = ["--optimizer", "sgd", "--learning-rate", "1e12"]
    result = run("gan", *SHORT, *wild, "--seeds", "2", "--out", "a", "--json", "--quiet")
    assert result.exit_code == 5
    summary = json.loads(result.stdout)
    assert (summary["seeds"], summary["diverged"]) == ([], [0, 1])
    assert "2 of 2 seeds (0, 1)" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_process_keeps_its_players(number):
    command = ["gan", *SHORT, "--iterations", "10000000", "--checkpoints", "500000", "--out", "a"]
    _, rest = interrupted(number, "iteration 60/", *command)
    last = rows()[-1]["iteration"]
    assert f"nembp: error: interrupted after iteration {last}; a/generator.npz holds" in rest
    summary = json.loads(Path("a/summary.json").read_text())
    assert (summary["status"], summary["iterations"]) == ("interrupted", last)
    assert {entry.name for entry in Path("a").iterdir()} == FILES
    assert load_generator("a").config.iterations == 10000000
