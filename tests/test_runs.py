"""Training runs: what is learned, what is made of the options, their folders and their ends."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from command_line import as_json, fails, parameters, rows, run, summary, works

from nembp.adversarial.trainer import AdversarialTrainer
from nembp.checkpoints import load_model
from nembp.datasets import load
from nembp.datasets.reading import Augmentation
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.training import Trainer
from nembp.errors import ArchitectureError, DataError, DivergenceError, OutputError
from nembp.plotting import pictures
from nembp.runs import RunConfig, evaluate_run, from_toml, train_run
from nembp.runs import training as run_module
from nembp.runs.folder import RunFolder, to_json
from nembp.runs.gan import load_players, run_gan
from nembp.runs.gan_config import GanConfig
from nembp.runs.predicting import answer
from nembp.runs.training import TrainRun, hold_out, prepare
from nembp.threads import blas_threads

TINY = RunConfig(layers=(16,), epochs=2, device="cpu")
STEADY = TINY.replace({"schedule": "constant"})
RING = GanConfig(
    samples=200, latent=2, latent_law="gaussian", iterations=24, checkpoints=4, averaged=2,
    generator=(8,), discriminator=(8,), device="cpu", scored_samples=100,
)  # fmt: skip
FILES = TrainRun.files
GENERATOR = np.random.default_rng(0)
X = np.column_stack([GENERATOR.normal(50, 9, 90), GENERATOR.uniform(-3, 2, 90), np.full(90, 4.0)])
LABELS = np.arange(90) % 3


pytestmark = pytest.mark.usefixtures("own_folder")


# -- what is learned -------------------------------------------------------------------------------
def test_the_digits_are_learned_in_both_directions():
    scores = [train_run(RunConfig(seed=seed, device="cpu"), str(seed)) for seed in range(2)]
    assert np.mean([score["forward/accuracy"] for score in scores]) >= 0.97
    assert np.mean([score["backward/centroid_error"] for score in scores]) <= 0.02


# -- the folder ------------------------------------------------------------------------------------
def test_a_run_leaves_a_complete_folder(tmp_path):
    folder, seen, plans = tmp_path / "a" / "b", [], []
    told = train_run(TINY, folder, on_row=seen.append, on_start=plans.append)
    assert set(os.listdir(folder)) == set(FILES)
    written, found = summary(folder), rows(folder)
    assert written == json.loads(to_json(told))
    assert (written["status"], written["epochs"], written["run"]) == ("finished", 2, str(folder))
    assert [(row["epoch"], row["scored_on"]) for row in found] == [(1, "test"), (2, "test")]
    assert [row["forward/nll"] for row in found] == [row["forward/nll"] for row in seen]
    assert plans[0]["sizes"] == [64, 16, 10]
    model = load_model(folder / "model.npz")
    assert model.settings.pop("data_fingerprint")
    assert model.settings == written["config"]
    assert (model.shape, model.classes, model.dataset) == ((8, 8, 1), tuple("0123456789"), "digits")
    assert told["forward/accuracy"] == found[-1]["forward/accuracy"]
    assert told["samples_per_second"] == pytest.approx(3000 / told["seconds"])


def test_the_configuration_repeats_the_run(tmp_path, monkeypatch):
    config = TINY.replace(
        {"noise": "nem", "noise_target": "both", "noise_std": 0.3, "validation_fraction": 0.1,
         "limit": 200, "seed": 4, "optimizer": "momentum"}
    )  # fmt: skip
    np.savez("d.npz", x=GENERATOR.normal(size=(360, 3)), y=np.arange(360) % 2)
    a, b, c = (tmp_path / name for name in "abc")
    train_run(config.replace({"dataset": "npz", "data_dir": "d.npz"}), a)
    monkeypatch.chdir("/")  # a relative path of the data still works
    again = from_toml(a / "config.toml")
    assert None not in {getattr(again, name) for name in ("threads", "learning_rate", "forward")}
    train_run(again, b)
    assert rows(a) == rows(b)
    assert np.array_equal(parameters(a), parameters(b))
    assert (a / "config.toml").read_text() == (b / "config.toml").read_text()
    train_run(again.replace({"seed": 5}), c)
    assert not np.array_equal(parameters(a), parameters(c))


# -- options that reach the engine -----------------------------------------------------------------
@pytest.mark.parametrize("place", ["target", "hidden,input"])
def test_arms_of_an_experiment_are_paired(place):
    """The same seed gives the same weights and batches whatever the noise."""
    nem = {"noise": "nem", "noise_target": "both", "noise_place": place}
    for name, changes in (
        ("none", {}), ("silent", {**nem, "noise_std": 0.0}), ("nem", {**nem, "noise_std": 0.3}),
    ):  # fmt: skip
        train_run(TINY.replace(changes), name)
    none, silent, nem = (parameters(name) for name in ("none", "silent", "nem"))
    assert np.allclose(none, silent, atol=1e-5)  # one row a class or a sample
    assert np.abs(none - nem).max() > 1e-3
    row, found = rows("nem")[-1], set()
    for direction in ("forward", "backward"):
        for at in ("/input", "/hidden-1") if place != "target" else ("",):
            assert 0.4 < row[f"noise/{direction}{at}/accepted"] <= 1.001
            assert row[f"noise/{direction}{at}/gain"] > 0
            found |= {f"noise/{direction}{at}/{key}" for key in ("accepted", "gain")}
    assert found == {key for key in row if key.startswith("noise/")}
    assert not [key for key in rows("none")[-1] if key.startswith("noise/")]


def test_one_direction_is_the_same_call():
    assert train_run(TINY.replace({"backward": "none"}), "a")["backward_trained"] is False
    assert "train/backward/nll" not in rows("a")[0]
    train_run(TINY, "b")
    mean = load("digits").train.x.reshape(-1, 64).mean(axis=0) / 16.0
    biases = [load_model(f"{name}/model.npz").net.reversed.biases[-1] for name in "ab"]
    from_mean = [np.abs(bias - mean).max() for bias in biases]
    assert from_mean[0] < 1e-6
    assert from_mean[1] > 1e-3


def test_patience_stops_and_keeps_the_best():
    config = TINY.replace({"epochs": 60, "patience": 2, "learning_rate": 0.02, "limit": 200})
    told, history = train_run(config, "a"), rows("a")
    assert told["status"] == "stopped early"
    assert len(history) < 60
    assert {row["scored_on"] for row in history} == {"validation"}
    nlls = [row["forward/nll"] for row in history]
    assert told["best_epoch"] == 1 + int(np.argmin(nlls)) == len(nlls) - 2


def test_threads_hold_for_the_training_alone():
    before, during = blas_threads(), []
    train_run(TINY.replace({"threads": 2}), "a", on_row=lambda row: during.append(blas_threads()))
    assert during == [2, 2]
    assert blas_threads() == before
    assert from_toml("a/config.toml").threads == 2


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


COUNTS, ONE_HOT = GENERATOR.integers(0, 20, (90, 4)), np.eye(4)[np.arange(90) % 4]
BITS = np.greater(X, X.mean(axis=0)).astype(float)
LOW, HIGH = X.min(axis=0), X.max(axis=0)
UNIT = (X - LOW) / np.where(HIGH > LOW, HIGH - LOW, 1.0)


@pytest.mark.parametrize(
    ("x", "options", "likelihood", "scaled"),
    [
        (X, {"backward_weight": 0.25}, Gaussian(4.0), None),  # the weight is its precision
        (X, {"backward": "bernoulli", "backward_weight": 0.5}, Bernoulli(weight=0.5), UNIT),
        (BITS, {"backward": "bernoulli"}, Bernoulli(weight=0.1), BITS),
        (ONE_HOT, {"backward": "multinomial"}, Multinomial(weight=0.1), ONE_HOT),
        (COUNTS, {"backward": "multinomial"}, Multinomial(weight=0.1), COUNTS / COUNTS.max()),
    ],
)
def test_each_end_gets_values_that_its_likelihood_describes(x, options, likelihood, scaled):
    run = prepared(x, LABELS, **options)
    assert run.net.reversed.likelihood == likelihood
    found = run.data.x_scaling.apply(x, np.float64)
    if scaled is None:
        assert np.allclose(found.mean(axis=0), 0.0, atol=1e-9)
        assert np.allclose(found.std(axis=0), [1, 1, 0], atol=1e-9)
    else:
        assert np.allclose(found, scaled)


def test_targets_are_scaled_too_and_what_does_not_fit_is_refused():
    numbers = prepared(X, X[:, :2] * 7, forward="bernoulli")
    targets = numbers.data.y_scaling.apply(X[:, :2] * 7, np.float64)
    assert (targets.min(), targets.max()) == pytest.approx((0.0, 1.0))
    assert numbers.net.likelihood == Bernoulli()
    for y, options, words in (
        (LABELS, {"backward": "multinomial"}, r"d\.npz holds -.*--backward gaussian"),
        (X[:, 0], {"forward": "multinomial"}, "--task classification"),
    ):
        with pytest.raises((ArchitectureError, DataError), match=words):
            prepared(X, y, **options)
    assert prepared(X, LABELS * 1.0, task="classification").data.classes == ("0", "1", "2")


def test_centroids_are_those_of_what_is_trained_on_and_drawn_in_its_units(monkeypatch):
    run = prepared(X, LABELS, validation_fraction=0.3)
    scaled = run.data.x_scaling.apply(run.train.x, np.float64)
    assert np.allclose(run.centroids, means_of(scaled, run.train.y))
    assert len(run.train) == 63
    drawn = drawn_by(monkeypatch)
    train_run(RunConfig(dataset="npz", data_dir="d.npz", device="cpu", epochs=1), "run")
    images, centroids, _, classes = drawn
    assert np.allclose(centroids, means_of(X, LABELS))
    assert np.abs(images - means_of(X, LABELS)).max() < 100
    assert classes == ("0", "1", "2")


def means_of(x, labels):
    return np.stack([x[np.equal(labels, k)].mean(axis=0) for k in range(3)])


def drawn_by(monkeypatch):
    """Return what the picture of a run that follows is given, but for its path."""
    drawn = []
    monkeypatch.setattr(pictures, "backward_picture", lambda path, *rest: drawn.extend(rest))
    return drawn


def test_initial_weights_are_scaled_and_nothing_else():
    nets = [prepare(RunConfig(layers=(5,), weight_scale=scale)).net for scale in (None, 1.0, 4.0)]
    for W, same, larger in zip(*(net.weights for net in nets), strict=True):
        np.testing.assert_array_equal(W, same)
        np.testing.assert_array_equal(4.0 * W, larger)
    start = nets[0].weight_count
    np.testing.assert_array_equal(nets[0].parameters[start:], nets[2].parameters[start:])


# -- images ----------------------------------------------------------------------------------------
SAMPLE = Path(__file__).resolve().parents[1] / "data" / "mnist-sample"
SEEN = np.arange(180) % 3
CLASSES = ("red", "green", "blue")
# a bright left half in one channel a class, over noise
PIXELS = GENERATOR.integers(0, 100, (180, 8, 8, 3))
PIXELS[np.arange(180), :, :4, SEEN] += 120
PIXELS = PIXELS.astype(np.uint8)
COLOURS = RunConfig(dataset="npz", data_dir="colours.npz", epochs=25, learning_rate=0.005,
                    backward_weight=0.1, device="cpu")  # fmt: skip


@pytest.fixture
def colours(own_folder):
    names = np.array(CLASSES)[SEEN]
    np.savez("colours.npz", x_train=PIXELS[:150], y_train=names[:150], x_test=PIXELS[150:],
             y_test=names[150:])  # fmt: skip


def test_colours_are_learned_in_both_directions_and_drawn_as_they_were(colours, monkeypatch):
    """The centroid error is that of pixels, whatever the scaling."""
    drawn, x = drawn_by(monkeypatch), PIXELS[:150]
    scaled = prepare(COLOURS).data.x_scaling.apply(x, np.float64)
    assert np.allclose(scaled.mean(axis=(0, 1, 2)), 0.0, atol=1e-9)
    assert np.allclose(scaled.std(axis=(0, 1, 2)), 1.0)
    told = train_run(COLOURS, "run")
    assert told["config"]["layers"] == ["conv32x4s2", 256]
    assert told["forward/accuracy"] == 1.0
    images, centroids, shape, classes = drawn
    assert (shape, classes) == ((8, 8, 3), tuple(sorted(CLASSES)))
    means = means_of(x / 255, SEEN[:150])[[CLASSES.index(name) for name in classes]]
    assert np.allclose(centroids, means)
    assert np.abs(images - means).mean() < 0.05
    seen = answer(load_model("run/model.npz"), np.eye(3), backward=True) / 255
    away, length = (np.sqrt(np.square(each).sum(axis=(1, 2, 3))) for each in (seen - means, means))
    error = pytest.approx(np.mean(away / length), rel=1e-4)
    assert told["backward/centroid_error"] == error
    assert evaluate_run("run")["backward/centroid_error"] == error
    assert rows("run")[-1]["backward/centroid_error"] == error
    assert told["backward/centroid_error"] < 0.2


# -- augmentation ----------------------------------------------------------------------------------
def test_training_images_are_changed_and_those_that_score_are_not(colours, monkeypatch):
    prepared = prepare(COLOURS.replace({"augment": "flips,crops2"}))
    given = lambda *_, augmentation, **__: augmentation  # noqa: E731
    monkeypatch.setattr("nembp.runs.training.BatchReader", given)
    changed = prepared.reader(prepared.train, augmented=True)
    assert changed == Augmentation(flip=True, crop=2)
    assert prepared.reader(prepared.train) is None


# -- image files -----------------------------------------------------------------------------------
def test_files_of_any_size_are_trained_on_and_predicted_at_one_size(colours):
    from PIL import Image

    for number, (image, label) in enumerate(zip(PIXELS[:60], SEEN[:60], strict=True)):
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
def test_one_line_describes_a_convolutional_network(colours):
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


def test_info_shows_a_network_layer_by_layer(colours):
    train_run(COLOURS.replace({"epochs": 1}), "run")
    first, *lines = run("info", "run").stdout.splitlines()
    assert first.split() == ["data", "npz:", "8x8x3", "to", "3", "classes"]
    table = [line.split() for line in lines[3:]]
    assert table[:3] == [
        ["layer", "description", "shape", "activation", "weights", "biases", "multiply-adds"],
        ["0", "input", "8x8x3", "gaussian", "0", "192", "0"],
        ["1", "conv32x4s2", "4x4x32", "relu", "1,536", "64", "24,576"],
    ]
    assert table[-1][:2] == ["in", "all"]
    shown = as_json("info", "run/model.npz")
    count = load_model("run/model.npz").net.parameter_count
    assert shown["totals"]["weights"] + shown["totals"]["biases"] == shown["parameters"] == count
    assert shown["config"]["layers"] == ["conv32x4s2", 256]
    assert "absent: no such file" in fails(3, "info", "absent")


# -- folders: nothing is lost, mixed up or half written ---------------------------------------------
def content(folder: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def test_default_folders_are_new_ones(monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "20260102-030405")
    stem = "runs/20260102-030405-digits-seed0"
    for expected in (stem, f"{stem}-2", f"{stem}-3"):
        assert str(RunFolder(None, "digits-seed0", files=FILES).path) == expected
    assert RunFolder(None, "../../x", files=FILES).path.parent.name == "runs"


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nembp", "\0"])
def test_what_cannot_be_written_is_found_before_training(monkeypatch, place):
    Path("file").write_text("mine")
    monkeypatch.setattr(run_module, "prepare", lambda *args: pytest.fail("began to work"))
    with pytest.raises(OutputError, match="Choose another") as caught:
        train_run(STEADY, place)
    assert place in str(caught.value)
    assert Path("file").read_text() == "mine"


def _claim_again(_: int) -> set[str]:
    said = set()
    for _ in range(200):
        try:
            with RunFolder("some/run", "", files=FILES):
                with open("some/run/mine", "x"):  # fails if two are here
                    pass
                os.unlink("some/run/mine")
                said.add("had it")
        except OutputError as error:
            said.add(str(error).partition("; ")[0])
        except FileExistsError:
            said.add("shared it")
    return said


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of folders")
def test_of_runs_that_start_and_end_at_once_one_has_the_folder():
    """Each removes the folder that it made and wrote nothing into."""
    with ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as pool:
        said = set().union(*pool.map(_claim_again, range(4)))
    assert said <= {"had it", "some/run: another run is writing there"}
    with RunFolder("some/run", "", files=FILES) as folder:
        folder.begin("# nembp\n")
        with pytest.raises(OutputError, match="another run is writing there"):
            RunFolder("some/run", "", files=FILES)


# -- taking another run's place --------------------------------------------------------------------
def test_an_older_run_keeps_its_place_until_the_new_one_is_complete():
    train_run(STEADY, "run")
    Path("run/notes.txt").write_text("mine")
    before, during = content("run"), []
    with pytest.raises(OutputError, match=r"not empty.*--force"):
        train_run(STEADY, "run")
    with pytest.raises(DataError):  # found out after the folder was claimed
        train_run(RunConfig(dataset="npz", data_dir="absent.npz"), "run", force=True)
    wild = {"optimizer": "sgd", "learning_rate": 1e9}
    with pytest.raises(DivergenceError, match="run keeps the run that was there"):
        train_run(STEADY.replace(wild), "run", force=True)
    assert content("run") == before

    def look(row):
        during.append({name: data for name, data in content("run").items() if "new/" not in name})

    train_run(STEADY.replace({"seed": 9}), "run", force=True, on_row=look)
    assert during == [before, before]
    after = content("run")
    assert set(after) == set(before)
    assert after["notes.txt"] == b"mine"
    assert from_toml("run/config.toml").seed == summary("run")["seed"] == 9
    assert len(rows("run")) == 2
    # what a killed run left is removed by the next
    Path("run/.nembp-new").mkdir()
    Path("run/.nembp-new/samples.png").write_bytes(b"half")
    Path("run/.nembp-0123456789abcdef.part").write_bytes(b"half")
    train_run(STEADY, "run", force=True)
    assert set(content("run")) == set(before)


def test_only_a_run_of_nembp_is_replaced():
    Path("mine").mkdir()
    Path("mine/config.toml").write_text("title = 'a paper'\n")
    with pytest.raises(OutputError, match="holds no run of nembp"):
        train_run(STEADY, "mine", force=True)
    assert content("mine") == {"config.toml": b"title = 'a paper'\n"}


# -- ends ------------------------------------------------------------------------------------------
def test_scores_that_are_not_finite_are_divergence(monkeypatch):
    """Where the training split is fine, but other samples are not."""
    scores = TrainRun._scores

    def broken(self, reader):
        found = scores(self, reader)
        return found | {"forward/nll": math.nan} if self.trainer.epoch == 2 else found

    with monkeypatch.context() as patch:
        patch.setattr(TrainRun, "_scores", broken)
        with pytest.raises(DivergenceError, match="epoch 2: forward/nll of the test split"):
            train_run(STEADY, "a")
    train_run(STEADY.replace({"epochs": 1}), "b")
    assert np.array_equal(parameters("a"), parameters("b"))


def ended(monkeypatch, error, epoch):
    """Let a training end by an error after a step of an epoch."""
    step = Trainer._step

    def ending(self, *args):
        step(self, *args)
        if self.epoch == epoch:
            raise error

    monkeypatch.setattr(Trainer, "_step", ending)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(5, "disk"), ValueError])
def test_whatever_ends_it_the_last_epoch_is_kept(monkeypatch, error):
    """A step in progress does not reach the model."""
    with monkeypatch.context() as patch:
        ended(patch, error, epoch=2)
        with pytest.raises(type(error) if isinstance(error, OSError) else error) as caught:
            train_run(STEADY, "a")
    train_run(STEADY.replace({"epochs": 1}), "b")
    assert np.array_equal(parameters("a"), parameters("b"))
    assert rows("a") == rows("b")
    interrupted = error is KeyboardInterrupt
    assert interrupted == ("interrupted after epoch 1" in str(caught.value))
    status = "interrupted" if interrupted else "failed"
    assert (summary("a")["status"], summary("a")["epochs"]) == (status, 1)
    assert set(content("a")) == set(FILES)


def test_nothing_learned_is_said(monkeypatch):
    ended(monkeypatch, KeyboardInterrupt, epoch=1)
    with pytest.raises(KeyboardInterrupt, match="nothing was learned"):
        train_run(STEADY, "a")
    assert (summary("a")["status"], summary("a")["forward/nll"]) == ("interrupted", None)
    assert not Path("a/model.npz").exists()


def test_a_picture_that_fails_and_what_is_far_worse_than_a_constant_are_notes(monkeypatch):
    def broken(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nembp.plotting.pictures.backward_picture", broken)
    notes: list[str] = []
    config = STEADY.replace({"learning_rate": 1e4, "epochs": 1})
    assert train_run(config, "a", on_note=notes.append)["picture"] is None
    assert summary("a")["status"] == "finished"
    assert "far worse than a constant" in notes[0]
    assert "no picture was drawn" in notes[1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of file sizes")
def test_a_disk_that_fills_up_keeps_what_was_saved():
    """The limit lets nothing larger than 4 kB be written: no model, but rows and a summary."""
    import resource

    command = [sys.executable, "-m", "nembp", "train", "--layers", "64", "--epochs", "2",
               "--device", "cpu", "--out", "a", "--json"]  # fmt: skip
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # noqa: E731
    result = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert result.returncode == 6, result.stderr
    assert "Traceback" not in result.stderr
    assert "a/checkpoint.npz: cannot be written (File too large)" in result.stderr.splitlines()[-1]
    assert summary("a")["status"] == json.loads(result.stdout)["status"] == "failed"
    assert set(content("a")) == {"config.toml", "metrics.jsonl", "summary.json"}


@pytest.mark.parametrize("ending", ["removed", "moved"])
def test_a_folder_that_vanishes_is_said_and_what_was_learned_kept(ending):
    def vanish(row):
        if row["epoch"] == 1:
            shutil.rmtree("a") if ending == "removed" else os.replace("a", "b")

    with pytest.raises(OutputError, match="a: was removed or moved while"):
        train_run(STEADY, "a", on_row=vanish)
    assert (summary("a")["status"], summary("a")["epochs"]) == ("failed", 2)
    assert np.isfinite(parameters("a")).all()


def test_a_run_is_saved_as_it_goes(monkeypatch):
    """The first epoch and the last, and between them as often as the share of the time allows."""
    saved, config = [], STEADY.replace({"epochs": 3})
    train_run(config, "a", on_row=lambda row: saved.append(parameters("a")))
    monkeypatch.setattr("nembp.checkpoints.SAVING_SHARE", math.inf)  # every epoch
    train_run(config, "b", on_row=lambda row: saved.append(parameters("b")))
    assert np.array_equal(saved[0], saved[3])
    assert not np.array_equal(saved[3], saved[4])
    assert np.array_equal(parameters("a"), parameters("b"))


def test_a_second_signal_does_not_stop_the_saving():
    def interrupt(*_):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="interrupted after epoch 1"):
        train_run(STEADY, "a", on_row=interrupt, on_end=interrupt)
    assert set(content("a")) == set(FILES)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# -- players ---------------------------------------------------------------------------------------
def test_players_of_different_moments_are_refused():
    for seed in (0, 1):
        run_gan(RING.replace({"seed": seed}), f"run{seed}")
    os.replace("run1/generator.npz", "run0/generator.npz")
    with pytest.raises(DataError, match="saved at different moments"):
        run_gan(RING, "b", start="run0")
    assert not Path("b").exists()


def test_a_gan_that_is_interrupted_keeps_what_is_there(monkeypatch):
    step = AdversarialTrainer.step

    def interrupted(self):
        step(self)
        if self.iteration == 3:  # before the first checkpoint
            raise KeyboardInterrupt

    monkeypatch.setattr(AdversarialTrainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"after iteration 3; a/generator\.npz holds its"):
        run_gan(RING, "a")
    load_players("a")
    assert (summary("a")["iterations"], summary("a")["picture"]) == (3, None)
