"""Adversarial runs: ``nembp gan`` and what is behind it, and ``nembp sample``."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import as_json, fails, parameters, rows, run, summary, works
from PIL import Image

from nembp.adversarial.data import draw_latent
from nembp.datasets import load
from nembp.errors import ArchitectureError, DataError
from nembp.runs import gan as runs_of_gan
from nembp.runs.config import from_toml
from nembp.runs.gan import GENERATOR, gan_replicate, gan_trainer, prepare_gan, run_gan
from nembp.runs.gan_config import GanConfig
from nembp.runs.predicting import load_run

TINY = GanConfig(
    samples=500, latent=2, latent_law="gaussian", iterations=45, checkpoints=4, averaged=2,
    generator=(16,), discriminator=(16,), device="cpu", scored_samples=300,
)  # fmt: skip
FEW = {"dataset": "ring", "samples": 200, "latent": 2}
SHORT = [
    "--samples", "500", "--iterations", "40", "--checkpoints", "4", "--averaged", "2",
    "--latent", "2", "--generator", "16", "--discriminator", "16", "--device", "cpu", "--std", "0.2",
]  # fmt: skip
MODES = ("modes", "modes_strict", "high_quality", "kl")

pytestmark = pytest.mark.usefixtures("own_folder")
gan, sample = partial(works, "gan"), partial(works, "sample")


# -- replicates ------------------------------------------------------------------------------------
def test_a_replicate_is_the_run_without_files(tmp_path):
    found = gan_replicate(TINY)
    assert list(tmp_path.iterdir()) == []
    assert found["status"] == "finished"
    assert found["curves"]["iteration"] == [12, 24, 36, 45]
    told = run_gan(TINY, "a")
    assert found["scores"] == told["scores"]
    assert (told["captured_iterations"], told["why_not_captured"]) == (0, None)  # on the CPU
    assert found["curves"] == {key: [row[key] for row in rows("a")] for key in rows("a")[0]}
    assert gan_replicate(TINY)["curves"] == found["curves"]
    assert gan_replicate(TINY.replace({"seed": 1}))["curves"] != found["curves"]


# -- the course ------------------------------------------------------------------------------------
def test_checkpoints_score_samples_of_their_own_and_the_last_ones_more(monkeypatch):
    """Else their chance would be that of one draw, however many are averaged."""
    config = TINY.replace({"scored_samples": 2 * runs_of_gan.EARLY, "learning_rate": 1e-12})
    prepared, seen = prepare_gan(config), []
    monkeypatch.setattr(prepared.scorer, "score", lambda x: seen.append(x) or {})
    gan_trainer(prepared).run()
    assert [len(samples) / runs_of_gan.EARLY for samples in seen] == [1, 1, 2, 2]
    assert not np.isclose(seen[0], seen[1]).any()


def test_a_listener_ends_a_run():
    told = run_gan(TINY, "a", on_row=lambda row: row["iteration"] >= 24)
    assert (told["iterations"], told["status"]) == (24, "finished")


def test_what_is_saved_is_the_average_that_is_scored():
    config = TINY.replace({"averaging": 0.99, "learning_rate": 0.05, "latent_std": 2.0})
    prepared = prepare_gan(config)
    course = gan_trainer(prepared)
    course.run()
    run_gan(config, "a")
    runs_of_gan.draw_samples("a", 20, "x.npy", seed=4)
    np.testing.assert_allclose(np.load("x.npy"), course.sample(20, seed=4), rtol=1e-5)
    raw = prepared.generator.parameters
    assert not np.allclose(parameters("a", GENERATOR), raw, rtol=0.01)


def test_optimizers_and_noise_are_those_configured():
    config = TINY.replace({"kind": "wasserstein", "optimizer": "adam", "momentum": 0.25,
                           "decay": 0.75, "learning_rate": 0.01, "discriminator_rate": 0.02,
                           "noise": "anti", "noise_std": 0.3, "noise_law": "uniform"})  # fmt: skip
    trainer = gan_trainer(prepare_gan(config))
    of = [(each.learning_rate, each.beta1, each.beta2) for each in trainer.optimizers]
    assert of == [(0.01, 0.25, 0.75), (0.02, 0.25, 0.75)]
    ((place, source),) = trainer.sources.items()
    noise = source.noise
    assert (place, noise.kind, noise.std, noise.law) == ("critic/input", "anti", 0.3, "uniform")


# -- files -----------------------------------------------------------------------------------------
def test_seeds_that_were_finished_are_summed_up_when_interrupted():
    seen = []

    def listen(row):
        seen.append(row)
        if len(seen) == 6:  # the second checkpoint of the second seed
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="interrupted after 1 of 3 seeds"):
        runs_of_gan.run_seeds(TINY, 3, "a", on_row=listen)
    told = summary("a")
    assert (told["status"], told["seeds"]) == ("interrupted", [0])
    assert told["scores"] == summary("a/seed0")["scores"]
    assert summary("a/seed1")["iterations"] == 24
    assert not Path("a/seed2").exists()


# -- players ---------------------------------------------------------------------------------------
def test_players_have_the_ends_of_their_game(tmp_path, monkeypatch):
    scalings = []

    def ends(*notes, **options):
        prepared = prepare_gan(GanConfig(device="cpu", **options), *notes)
        nets = prepared.generator, prepared.discriminator
        scalings.append(prepared.data.x_scaling)
        return [([layer.size for layer in net.layers], net.likelihood.name) for net in nets]

    assert ends(**FEW) == [([2, 128, 128, 2], "gaussian"), ([2, 128, 128, 1], "bernoulli")]
    assert ends(**FEW, classes=True)[1] == ([2, 128, 128, 9], "multinomial")
    monkeypatch.setenv("NEMBP_CACHE", str(tmp_path))
    notes: list[str] = []
    assert ends(notes.append, dataset="digits", limit=100)[0][1] == "bernoulli"
    assert scalings[-1] == load("digits").x_scaling
    assert any("classifier" in note for note in notes)
    Path("t.csv").write_text("a,b\n" + "\n".join(f"{k},{k * k}.5" for k in range(40)))
    with pytest.raises((ArchitectureError, DataError), match="no classes"):
        ends(dataset="csv", data_dir="t.csv")


def test_players_of_one_seed_have_unlike_weights():
    first, again, other = (
        [net.weights[0].tobytes() for net in (each.generator, each.discriminator)]
        for each in (prepare_gan(GanConfig(**FEW, device="cpu", seed=seed)) for seed in (0, 0, 1))
    )
    assert first == again
    assert len({*first, *other}) == 4


# -- whole runs ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", GanConfig.options()["kind"].choices)
def test_every_kind_runs_and_leaves_its_folder(kind):
    way = "none" if kind == "wasserstein" else "both"
    result = gan("--data", "grid", "--kind", kind, "--bidirectional", way, *SHORT, "--out", "a")
    told = summary("a")
    assert {entry.name for entry in Path("a").iterdir()} == set(runs_of_gan.GanRun.files)
    assert (told["status"], told["iterations"], told["averaged"]) == ("finished", 40, 2)
    found = rows("a")
    assert [row["iteration"] for row in found] == [10, 20, 30, 40]
    for key in MODES:
        mean = (found[-1][key] + found[-2][key]) / 2
        assert told["scores"][key] == pytest.approx(mean)
    critic = kind.startswith("wasserstein")
    plan, *lines = result.stderr.splitlines()
    adversary = "critic" if critic else "discriminator"
    assert f"generator 2 bits-16-2 relu, {adversary} 2-16-1 relu" in plan
    steps = [f"iteration {k}/40" for k in (10, 20, 30, 40)]
    assert [line.split("  ")[0] for line in lines if "without" not in line] == steps
    for word in ("G nll", "modes", "high quality", "iterations/s", "left"):
        assert word in lines[0]
    first, *_, run_, picture = result.stdout.splitlines()
    assert first.startswith("modes ")
    assert (run_.split(), picture.split()) == (["run", "a"], ["picture", "a/samples.png"])
    backward = {f"{player}/backward_nll" for player in ("generator", "discriminator")}
    objective = {"critic/objective" if critic else "discriminator/nll"}
    known = {"critic/objective", "discriminator/nll", *backward}
    assert known & found[0].keys() == objective | (backward if way == "both" else set())
    with Image.open("a/training.gif") as gif, Image.open("a/samples.png") as picture:
        assert (gif.n_frames, picture.size) == (4, (560, 620))
    assert np.all(np.isfinite(parameters("a", GENERATOR)))


def test_images_of_digits():
    result = gan("--data", "digits", "--iterations", "20", "--checkpoints", "2", "--device", "cpu",
                 "--scored-samples", "300", "--bidirectional", "generator", "--classes",
                 "--out", "a", env={"NEMBP_CACHE": "judges"})  # fmt: skip
    for heading in ("classes", "inception score", "Fréchet distance", "precision",
                    "the classifier's accuracy"):  # fmt: skip
        assert re.search(f"^{heading}", result.stdout, re.MULTILINE), heading
    assert 1 <= rows("a")[-1]["inception_score"] <= 10
    assert load_run("a", player="generator").settings["sample_shape"] == [8, 8, 1]
    np.save("x.npy", np.zeros((3, 8, 8, 1), np.uint8))
    told = as_json("predict", "a/discriminator.npz", "x.npy")
    assert told["classes"] == [*"0123456789", "generated"]
    assert "nembp gan" in fails(3, "predict", "a", "x.npy")


# -- output ----------------------------------------------------------------------------------------
def test_flags_without_effect_are_noted_and_the_configuration_repeats_the_run():
    result = gan(*SHORT, "--noise-std", "0.3", "--generator-weight", "2", "--clip", "0.1",
                 "--bidirectional", "none")  # fmt: skip
    for flag, why in (("noise-std", "noise is none"), ("clip", "kind is vanilla"),
                      ("generator-weight", "bidirectional is none")):  # fmt: skip
        assert f"--{flag}: without effect on the training, since --{why}" in result.stderr
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-gan-ring-seed0", folder.name)
    assert "without effect" not in gan("--config", folder / "config.toml", "--out", "b").stderr
    assert rows("b") == rows(folder)
    assert (parameters("b", GENERATOR) == parameters(folder, GENERATOR)).all()
    flags = ("--generator-weight", "2", "--backward-permuted")
    plan = gan(*SHORT, *flags, "--out", "c").stderr  # the plane's recipe: a bidirectional generator
    assert "bidirectional generator (weight generator 2)" in plan
    assert "without effect" not in plan


# -- repeating -------------------------------------------------------------------------------------
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


@pytest.mark.parametrize(
    ("code", "args", "message"),
    [
        (2, "--backward-weight -1", "it must be a number > 0, got -1"),
        (2, "--kind wgan", "'wgan' is not one of"),
        (2, "--seeds 0", "--seeds"),
        (2, "--data rnig", "no data set 'rnig': expected one of ring, grid, stacked"),
        (2, "--data digits --samples 10", "samples does not go with the data set 'digits'"),
        (2, "--data grid --modes 24", "a grid has a square number of them"),
        (2, "--data grid --scale 1e38", "reach 4.3e+38; expected at most 1e+30"),
        (2, "--data-dir a", "data_dir does not go with the data set 'ring'"),
        (2, "--data mnist", "data set 'mnist' is read from files and no path was given"),
        (3, "--data mnist --data-dir nowhere", "nowhere"),
        (2, "--noise nem --noise-place critic/input", "needs kind wasserstein or wasserstein-gp"),
        (2, "--bidirectional none --noise nem --noise-place generator/backward",
         "generator/backward needs bidirectional generator or both"),
        (2, "--discriminator conv8x3", "conv8x3"),
        (2, "--discriminator 16bn --batch-size 1", "learns nothing from batches of one"),
        (2, "--data grid --kind wasserstein-gp --discriminator 16bn", "without batch normalizat"),
        (2, "--latent-law binary --latent-std 2", "a binary z is 0 or 1, got latent_std 2"),
        (2, "--optimizer rmsprop --momentum 0.5", "momentum is of adam and momentum"),
        (2, "--optimizer sgd --decay 0.5", "decay is of adam and rmsprop"),
        (3, "--data digits --scored-samples 3", "expected at least 4 of both"),
        (6, "--out full", "full: not empty"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(tmp_path, code, args, message):
    Path("full").mkdir()
    Path("full/mine").write_text("")
    before = sorted(tmp_path.rglob("*"))
    assert message in fails(code, "gan", "--quiet", "--device", "cpu", *args.split())
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


# -- samples ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on the ring (scaled by 2), both players bidirectional, and one on digits."""
    folder = tmp_path_factory.mktemp("runs")
    run_gan(TINY.replace({"bidirectional": "both", "scale": 2.0}), folder / "ring")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEMBP_CACHE", str(folder))
        run_gan(TINY.replace({"dataset": "digits", "samples": None}), folder / "digits")
    return folder


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


@pytest.mark.parametrize(
    ("code", "args", "message"),
    [
        (2, "sample ring --out a.gif", "must end in one of .png, .npy, .npz"),
        (6, "sample ring --out there.npy", "there.npy: exists"),
        (2, "sample ring -n 0", "-n"),
        (3, "sample ring/discriminator.npz", "is no generator"),
        (3, "sample .", "nembp gan"),
        (3, "sample nowhere", "nowhere: no such file; expected the folder of a run of `nembp gan`"),
        # before anything is loaded or trained
        (3, "gan --start nowhere", "no such file; expected the folder of a run of `nembp gan`"),
        (3, "evaluate digits/discriminator.npz", "the discriminator of a run of `nembp gan`"),
        (3, "draw noise digits/discriminator.npz", "the discriminator of a run of `nembp gan`"),
        *((3, command, "generator.npz") for command in (
            "sample damaged", "info damaged", "predict damaged/generator.npz there.npy",
            "evaluate damaged/generator.npz")),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_from_is_said(runs, code, args, message):
    np.save("there.npy", np.zeros((1, 2)))
    content = bytearray((runs / "ring" / "generator.npz").read_bytes())
    content[len(content) // 2] ^= 1
    Path("damaged").mkdir()
    Path("damaged/generator.npz").write_bytes(bytes(content))
    words = [runs / word if word.startswith(("ring", "digits")) else word for word in args.split()]
    assert message in fails(code, *words)


def test_players_of_tables_know_its_columns(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMBP_CACHE", str(tmp_path))
    generator = np.random.default_rng(0)
    lines = [f"{a},{b},{'up' if a > 0 else 'down'}" for a, b in generator.normal(size=(80, 2))]
    Path("t.csv").write_text("\n".join(["width,height,way", *lines]) + "\n")
    run_gan(TINY.replace({"dataset": "csv", "data_dir": "t.csv", "samples": None}), "a")
    sample("a", "-n", "2", "--out", "s.npz")
    told = run("predict", "a/generator.npz", "s.npz", "--key", "z")
    assert told.stdout.splitlines()[0].split() == ["input", "width", "height"]
    told = works("predict", "a/discriminator.npz", "t.csv")
    assert len(told.stdout.splitlines()) == 81
