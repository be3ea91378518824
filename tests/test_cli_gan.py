"""``nembp gan``: whole small runs of every kind, output, ends, and bad input."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import as_json, fails, parameters, rows, run, summary, works
from PIL import Image

from nembp.runs.config import from_toml
from nembp.runs.gan import GENERATOR, GanRun
from nembp.runs.gan_config import GanConfig
from nembp.runs.predicting import load_run

SHORT = [
    "--samples", "500", "--iterations", "40", "--checkpoints", "4", "--averaged", "2",
    "--latent", "2", "--generator", "16", "--discriminator", "16", "--device", "cpu",
]  # fmt: skip
MODES = ("modes", "modes_strict", "high_quality", "kl")


pytestmark = pytest.mark.usefixtures("own_folder")
gan = partial(works, "gan")


@pytest.fixture(scope="session")
def judges(tmp_path_factory):
    """A cache that the judge of the digits is put into once."""
    return tmp_path_factory.mktemp("judges")


# -- whole runs ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", GanConfig.options()["kind"].choices)
def test_every_kind_runs_and_leaves_its_folder(kind):
    way = "none" if kind == "wasserstein" else "both"
    result = gan("--data", "grid", "--kind", kind, "--bidirectional", way, *SHORT, "--out", "a",
                 "--json")  # fmt: skip
    told = json.loads(result.stdout)
    assert {entry.name for entry in Path("a").iterdir()} == set(GanRun.files)
    assert told == summary("a")
    assert (told["status"], told["iterations"], told["averaged"]) == ("finished", 40, 2)
    found = rows("a")
    assert [row["iteration"] for row in found] == [10, 20, 30, 40]
    for key in MODES:
        mean = (found[-1][key] + found[-2][key]) / 2
        assert told["scores"][key] == pytest.approx(mean)
    critic = kind.startswith("wasserstein")
    assert ("critic/objective" in found[0]) == critic
    assert ("discriminator/nll" in found[0]) != critic
    for player in ("generator", "discriminator"):
        assert (f"{player}/backward_nll" in found[0]) == (way == "both")
    with Image.open("a/training.gif") as gif:
        assert gif.n_frames == 4
    with Image.open("a/samples.png") as picture:
        assert picture.size == (560, 620)
    assert np.all(np.isfinite(parameters("a", GENERATOR)))


def test_images_of_digits(judges):
    options = ["--data", "digits", "--iterations", "20", "--checkpoints", "2", "--device", "cpu"]
    result = gan(*options, "--scored-samples", "300", "--bidirectional", "generator", "--classes",
                 "--out", "a", env={"NEMBP_CACHE": str(judges)})  # fmt: skip
    words = result.stdout.splitlines()
    for heading in ("classes", "inception score", "Fréchet distance", "precision",
                    "the classifier's accuracy"):  # fmt: skip
        assert any(line.startswith(heading) for line in words), heading
    assert 1 <= rows("a")[-1]["inception_score"] <= 10
    assert load_run("a", player="generator").settings["sample_shape"] == [8, 8, 1]
    np.save("x.npy", np.zeros((3, 8, 8, 1), np.uint8))
    told = as_json("predict", "a/discriminator.npz", "x.npy")
    assert told["classes"] == [*"0123456789", "generated"]
    assert "nembp gan" in fails(3, "predict", "a", "x.npy")


# -- output ----------------------------------------------------------------------------------------
def test_progress_and_result():
    result = gan(*SHORT, "--out", "a", "--kind", "wasserstein")
    lines = result.stderr.splitlines()
    assert "generator 2 bits-16-2 relu, critic 2-16-1 relu" in lines[0]
    assert [line.split("  ")[0] for line in lines[1:]] == [f"iteration {k}/40" for k in
                                                          (10, 20, 30, 40)]  # fmt: skip
    for word in ("critic", "G nll", "modes", "high quality", "iterations/s", "left"):
        assert word in lines[1]
    told = result.stdout.splitlines()
    assert told[-1].split() == ["picture", "a/samples.png"]
    assert told[-2].split() == ["run", "a"]
    assert told[0].startswith("modes ")
    assert gan(*SHORT, "--quiet", "--out", "b").stderr == ""


def test_flags_without_effect_are_noted():
    result = gan(*SHORT, "--noise-std", "0.3", "--generator-weight", "2", "--clip", "0.1",
                 "--bidirectional", "none")  # fmt: skip
    assert "--noise-std: without effect on the training, since --noise is none" in result.stderr
    assert (
        "--generator-weight: without effect on the training, since --bidirectional is none"
        in result.stderr
    )
    assert "--clip: without effect on the training, since --kind is vanilla" in result.stderr
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-gan-ring-seed0", folder.name)
    assert "without effect" not in gan("--config", folder / "config.toml", "--out", "b").stderr
    flags = ("--generator-weight", "2", "--backward-permuted")
    plan = gan(*SHORT, *flags, "--out", "c").stderr  # the plane's recipe: a bidirectional generator
    assert "bidirectional generator (weight generator 2)" in plan
    assert "without effect" not in plan


# -- repeating -------------------------------------------------------------------------------------
def test_a_run_is_repeated_by_its_configuration():
    gan(*SHORT, "--out", "a", "--bidirectional", "both", "--noise", "nem", "--quiet")
    gan("--config", "a/config.toml", "--out", "b", "--quiet")
    gan("--config", "a/config.toml", "--seed", "1", "--out", "c", "--quiet")
    a, b, c = (parameters(name, GENERATOR) for name in "abc")
    assert (a == b).all()
    assert not (a == c).any()
    assert rows("a") == rows("b")


def test_a_run_starts_from_another():
    gan(*SHORT, "--out", "a", "--quiet")
    gan(*SHORT, "--out", "b", "--quiet", "--start", "a", "--iterations", "1", "--learning-rate",
        "1e-9", "--checkpoints", "1")  # fmt: skip
    a, b = (parameters(name, GENERATOR) for name in "ab")
    np.testing.assert_allclose(a, b, atol=1e-6)
    gan("--start", "a", "--iterations", "1", "--checkpoints", "1", "--out", "c", "--quiet",
        "--device", "cpu", "--kind", "minimax")  # fmt: skip
    before, after = (from_toml(f"{name}/config.toml", GanConfig) for name in "ac")
    assert (after.generator, after.latent, after.samples) == ((16,), 2, 500)
    assert (before.averaged, after.averaged) == (2, 3)  # how it trains is the recipe's again
    assert after.kind == "minimax"
    line = fails(2, "gan", *SHORT, "--generator", "17", "--start", "a", "--quiet")
    assert "its generator is 2-16-2, the new one 2-17-2" in line
    assert "no such file" in fails(3, "gan", *SHORT, "--start", "nowhere", "--quiet")


def test_several_seeds_are_summed_up():
    result = gan(*SHORT, "--seeds", "3", "--seed", "5", "--out", "a", "--quiet", "--json")
    told = json.loads(result.stdout)
    assert told == summary("a")
    assert told["seeds"] == [5, 6, 7]
    for key in MODES:
        each = [summary(f"a/seed{seed}")["scores"][key] for seed in (5, 6, 7)]
        assert told["values"][key] == each
        assert told["scores"][key] == pytest.approx(np.mean(each))
        assert told["deviations"][key] == pytest.approx(np.std(each, ddof=1))
    assert from_toml("a/seed6/config.toml", GanConfig).seed == 6
    table = gan(*SHORT, "--seeds", "2", "--out", "b", "--quiet").stdout
    assert re.search(r"^KL of modes +[\d.]+ ± [\d.]+$", table, re.MULTILINE)
    assert re.search(r"^averaged .* 2 checkpoints and 2 seeds$", table, re.MULTILINE)


# -- bad input -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "args", "message"),
    [
        (2, ["--backward-weight", "-1"], "it must be a number > 0, got -1"),
        (2, ["--kind", "wgan"], "'wgan' is not one of"),
        (3, ["--data", "mnist", "--data-dir", "nowhere"], "nowhere"),
        (2, ["--seeds", "0"], "--seeds"),
        (2, ["--data", "grid", "--scale", "1e38"], "reach 4.3e+38; expected at most 1e+30"),
        (6, ["--out", "full"], "full: not empty"),
    ],
)
def test_bad_input_is_one_line(tmp_path, code, args, message):
    Path("full").mkdir()
    Path("full/mine").write_text("")
    before = sorted(tmp_path.rglob("*"))
    assert message in fails(code, "gan", "--quiet", "--device", "cpu", *args)
    assert sorted(tmp_path.rglob("*")) == before


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
    assert summary("a")["seeds"] == [1]


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
    assert np.all(np.isfinite(parameters("a", GENERATOR)))
    result = run("gan", *SHORT, *wild, "--seeds", "2", "--out", "b", "--json", "--quiet")
    assert result.exit_code == 5
    told = json.loads(result.stdout)
    assert (told["seeds"], told["diverged"]) == ([], [0, 1])
    assert "2 of 2 seeds (0, 1)" in result.stderr
