"""The folder of a run, and its ends: nothing is lost, mixed up or half written."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nembp.checkpoints import Checkpoints, load_model
from nembp.errors import ArchitectureError, DataError, DivergenceError, OutputError
from nembp.runs import RunConfig, from_toml, train_run
from nembp.runs import training as run_module
from nembp.runs.folder import RunFolder, to_json
from nembp.runs.gan import load_players, run_gan
from nembp.runs.gan_config import GanConfig
from nembp.runs.training import TrainRun

TINY = RunConfig(layers=(16,), epochs=2, device="cpu", schedule="constant")
RING = GanConfig(
    samples=200, latent=2, latent_law="gaussian", iterations=24, checkpoints=4, averaged=2,
    generator=(8,), discriminator=(8,), device="cpu", scored_samples=100,
)  # fmt: skip
WILD = {"optimizer": "sgd", "learning_rate": 1e9}


pytestmark = pytest.mark.usefixtures("own_folder")


def content(folder: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def rows(folder: str) -> list[dict]:
    lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if "second" not in key} for row in lines]


def summary(folder: str) -> dict:
    return json.loads(Path(folder, "summary.json").read_text())


def parameters(folder: str) -> np.ndarray:
    return load_model(f"{folder}/model.npz").net.parameters


# -- claiming --------------------------------------------------------------------------------------
def test_default_folders_are_new_ones(monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "20260102-030405")
    folders = [RunFolder(None, "digits-seed0", files=TrainRun.files) for _ in range(3)]
    assert [str(folder.path) for folder in folders] == [
        "runs/20260102-030405-digits-seed0",
        "runs/20260102-030405-digits-seed0-2",
        "runs/20260102-030405-digits-seed0-3",
    ]
    assert RunFolder(None, "../../x", files=TrainRun.files).path.parent.name == "runs"


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nembp", "\0"])
def test_what_cannot_be_written_is_found_before_training(monkeypatch, place):
    Path("file").write_text("mine")
    monkeypatch.setattr(run_module, "prepare", lambda *args: pytest.fail("began to work"))
    with pytest.raises(OutputError, match="Choose another") as caught:
        train_run(TINY, place)
    assert place in str(caught.value)
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize(
    "options",
    [
        {"dataset": "mnist", "data_dir": "absent"},
        {"dataset": "nothing"},
        {"noise": "nem", "noise_target": "backward", "backward": "none"},
        {"noise": "nem", "noise_place": "hidden", "layers": ()},
        {"noise": "nem", "noise_place": "hidden,last-hidden"},
        {"noise": "nem", "noise_place": "input", "noise_screening": "component"},
        {"patience": 3, "validation_fraction": 0.0},
        {"limit": 20, "validation_fraction": 0.9},
    ],
)
def test_a_failed_start_leaves_no_folder(tmp_path, options):
    for out in (tmp_path / "new" / "run", None):
        with pytest.raises((DataError, ArchitectureError)):
            train_run(RunConfig(**options), out)
        assert list(tmp_path.iterdir()) == []


def _claim(start, answered, results) -> None:
    start.wait()
    try:
        with RunFolder("run", "", files=TrainRun.files) as folder:
            folder.begin("# nembp\n")
            results.put("won")
            answered.wait()
    except OutputError as error:
        results.put(str(error))


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of folders")
def test_of_runs_that_start_at_once_one_gets_the_folder():
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        start, answered, results = context.Event(), context.Event(), context.Queue()
        arguments = start, answered, results
        processes = [context.Process(target=_claim, args=arguments) for _ in range(5)]
        for process in processes:
            process.start()
        start.set()
        said = sorted(results.get(timeout=60) for _ in processes)
        answered.set()
        for process in processes:
            process.join()
        assert said.count("won") == 1
        assert all("another run is writing there" in text for text in said if text != "won")
        shutil.rmtree("run")


def _claim_again(results) -> None:
    said = set()
    for _ in range(200):
        try:
            with RunFolder("some/run", "", files=TrainRun.files):
                said.add("had it")
        except OutputError as error:
            said.add(str(error).partition("; ")[0])
    results.put(said)


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of folders")
def test_runs_that_remove_the_folder_they_made_do_not_disturb_others():
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_claim_again, args=(results,)) for _ in range(4)]
    for process in processes:
        process.start()
    said = set().union(*(results.get(timeout=120) for _ in processes))
    for process in processes:
        process.join()
    assert said <= {"had it", "some/run: another run is writing there"}
    with RunFolder("some/run", "", files=TrainRun.files) as folder:
        folder.begin("# nembp\n")


# -- taking another run's place --------------------------------------------------------------------
def test_an_older_run_keeps_its_place_until_the_new_one_is_complete():
    train_run(TINY, "run")
    Path("run/notes.txt").write_text("mine")
    before, during = content("run"), []
    with pytest.raises(OutputError, match=r"not empty.*--force"):
        train_run(TINY, "run")
    with pytest.raises(DataError):  # found out after the folder was claimed
        train_run(RunConfig(dataset="npz", data_dir="absent.npz"), "run", force=True)
    with pytest.raises(DivergenceError, match="run keeps the run that was there"):
        train_run(TINY.replace(WILD), "run", force=True)
    assert content("run") == before

    def look(row):
        during.append({name: data for name, data in content("run").items() if "new/" not in name})

    train_run(TINY.replace({"seed": 9}), "run", force=True, on_row=look)
    assert during == [before, before]
    after = content("run")
    assert set(after) == set(before)
    assert after["notes.txt"] == b"mine"
    assert from_toml("run/config.toml").seed == summary("run")["seed"] == 9
    assert len(rows("run")) == 2


def test_only_a_run_of_nembp_is_replaced():
    Path("mine").mkdir()
    Path("mine/config.toml").write_text("title = 'a paper'\n")
    with pytest.raises(OutputError, match="holds no run of nembp"):
        train_run(TINY, "mine", force=True)
    assert content("mine") == {"config.toml": b"title = 'a paper'\n"}


def test_what_a_killed_run_left_is_removed_by_the_next():
    train_run(TINY, "run")
    Path("run/.nembp-new").mkdir()
    Path("run/.nembp-new/model.npz").write_bytes(b"half")
    Path("run/.nembp-0123456789abcdef.part").write_bytes(b"half")
    train_run(TINY, "run", force=True)
    assert set(content("run")) == set(TrainRun.files)


# -- ends ------------------------------------------------------------------------------------------
def test_divergence_keeps_the_last_good_model():
    told: list[dict] = []
    with pytest.raises(DivergenceError, match=r"model\.npz holds the last good model"):
        train_run(TINY.replace(WILD), "run", on_end=told.append)
    assert summary("run")["status"] == "diverged" == told[0]["status"]
    assert summary("run")["epochs"] == len(rows("run"))
    assert math.isfinite(summary("run")["forward/nll"])
    assert np.all(np.isfinite(parameters("run")))


def test_scores_that_are_not_finite_are_divergence(monkeypatch):
    """Where the training split is fine, but other samples are not."""
    scores = run_module.TrainRun._scores

    def broken(self, reader):
        found = scores(self, reader)
        return found | {"forward/nll": math.nan} if self.trainer.epoch == 2 else found

    with monkeypatch.context() as patch:
        patch.setattr(run_module.TrainRun, "_scores", broken)
        with pytest.raises(DivergenceError, match="epoch 2: forward/nll of the test split"):
            train_run(TINY, "a")
    train_run(TINY.replace({"epochs": 1}), "b")
    assert np.array_equal(parameters("a"), parameters("b"))


def test_an_interrupted_run_keeps_the_last_epoch():
    def stop(row):
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    config = TINY.replace({"epochs": 50})
    with pytest.raises(KeyboardInterrupt, match="interrupted after epoch 3"):
        train_run(config, "a", on_row=stop)
    assert (summary("a")["status"], summary("a")["epochs"]) == ("interrupted", 3)
    train_run(config.replace({"epochs": 3}), "b")
    assert np.array_equal(parameters("a"), parameters("b"))
    assert rows("a") == rows("b")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(5, "disk"), ValueError])
def test_whatever_ends_it_the_last_epoch_is_kept(monkeypatch, error):
    """A step in progress does not reach the model."""
    step = run_module.Trainer._step

    def ended(self, *args):
        step(self, *args)
        if self.epoch == 2:
            raise error

    monkeypatch.setattr(run_module.Trainer, "_step", ended)
    with pytest.raises(type(error) if isinstance(error, OSError) else error):
        train_run(TINY, "a")
    monkeypatch.setattr(run_module.Trainer, "_step", step)
    train_run(TINY.replace({"epochs": 1}), "b")
    assert np.array_equal(parameters("a"), parameters("b"))
    status = "interrupted" if error is KeyboardInterrupt else "failed"
    assert (summary("a")["status"], summary("a")["epochs"]) == (status, 1)
    assert set(content("a")) == set(TrainRun.files)


def test_nothing_learned_is_said(monkeypatch):
    def interrupted(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module.Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt, match="nothing was learned"):
        train_run(TINY, "a")
    assert (summary("a")["status"], summary("a")["forward/nll"]) == ("interrupted", None)
    assert not Path("a/model.npz").exists()


def test_a_picture_that_fails_is_a_note(monkeypatch):
    def broken(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nembp.plotting.pictures.backward_picture", broken)
    notes: list[str] = []
    assert train_run(TINY, "a", on_note=notes.append)["picture"] is None
    assert summary("a")["status"] == "finished"
    assert "no picture was drawn" in notes[0]


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of file sizes")
def test_a_disk_that_fills_up_keeps_what_was_saved():
    """The limit lets nothing larger than 4 kB be written: no model, but rows and a summary."""
    code = (
        "import resource, runpy, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "sys.argv = ['nembp', 'train', '--layers', '64', '--epochs', '2', '--device', 'cpu', "
        "'--out', 'a', '--json']\n"
        "runpy.run_module('nembp', run_name='__main__')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
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
        train_run(TINY, "a", on_row=vanish)
    assert (summary("a")["status"], summary("a")["epochs"]) == ("failed", 2)
    assert np.isfinite(parameters("a")).all()


def test_far_worse_than_a_constant_is_said():
    notes: list[str] = []
    train_run(TINY.replace({"learning_rate": 1e4, "epochs": 1}), "a", on_note=notes.append)
    assert "far worse than a constant" in notes[0]


def test_a_run_is_saved_as_it_goes(monkeypatch):
    """The first epoch and the last, and between them as often as the share of the time allows."""
    saved, config = [], TINY.replace({"epochs": 3})
    train_run(config, "a", on_row=lambda row: saved.append(parameters("a")))
    monkeypatch.setattr(
        "nembp.checkpoints.SAVING_SHARE", math.inf
    )  # every epoch, whatever it costs
    train_run(config, "b", on_row=lambda row: saved.append(parameters("b")))
    assert np.array_equal(saved[0], saved[3])
    assert not np.array_equal(saved[3], saved[4])
    assert np.array_equal(parameters("a"), parameters("b"))


# -- signals ---------------------------------------------------------------------------------------
def test_signals_are_counted_and_given_back():
    with Checkpoints("unused", {}, dict) as checkpoints:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert checkpoints.signals == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_does_not_stop_the_saving():
    def interrupt(*_):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="interrupted after epoch 1"):
        train_run(TINY, "a", on_row=interrupt, on_end=interrupt)
    assert set(content("a")) == set(TrainRun.files)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("command", ["train", "gan"])
def test_a_killed_run_leaves_what_was_learned(command):
    """The first row is told after the first save."""
    more = {"train": ["--epochs", "100000", "--layers", "8"],
            "gan": ["--iterations", "1000000", "--checkpoints", "200000"]}[command]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "nembp", command, "--device", "cpu", "--out", "a", *more],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for _ in zip(range(3), process.stderr, strict=False):
        pass
    process.kill()
    process.communicate()
    if command == "train":
        assert np.isfinite(parameters("a")).all()
    else:
        load_players("a")


# -- players ---------------------------------------------------------------------------------------
def test_players_of_different_moments_are_refused():
    for seed in (0, 1):
        run_gan(RING.replace({"seed": seed}), f"run{seed}")
    os.replace("run1/generator.npz", "run0/generator.npz")
    with pytest.raises(DataError, match="saved at different moments"):
        run_gan(RING, "b", start="run0")
    assert not Path("b").exists()


def test_a_gan_that_is_interrupted_keeps_what_is_there(monkeypatch):
    from nembp.adversarial.trainer import AdversarialTrainer

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


# -- JSON ------------------------------------------------------------------------------------------
def test_json_has_no_nan_and_any_path():
    value = {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}, "e": (1, "x", None)}
    assert json.loads(to_json(value)) == {
        "a": None, "b": [None, 1.5], "c": {"d": None}, "e": [1, "x", None]
    }  # fmt: skip
    path = os.fsdecode(b"caf\xe9")
    assert os.fsencode(json.loads(to_json({"run": path}).encode())["run"]) == b"caf\xe9"
