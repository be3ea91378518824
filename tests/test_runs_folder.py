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
from command_line import parameters, rows, summary

from nembp.adversarial.trainer import AdversarialTrainer
from nembp.engine.training import Trainer
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
FILES = TrainRun.files

pytestmark = pytest.mark.usefixtures("own_folder")


def content(folder: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


# -- claiming --------------------------------------------------------------------------------------
def test_default_folders_are_new_ones(monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "20260102-030405")
    folders = [RunFolder(None, "digits-seed0", files=FILES) for _ in range(3)]
    stem = "runs/20260102-030405-digits-seed0"
    assert [str(folder.path) for folder in folders] == [stem, f"{stem}-2", f"{stem}-3"]
    assert RunFolder(None, "../../x", files=FILES).path.parent.name == "runs"


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nembp", "\0"])
def test_what_cannot_be_written_is_found_before_training(monkeypatch, place):
    Path("file").write_text("mine")
    monkeypatch.setattr(run_module, "prepare", lambda *args: pytest.fail("began to work"))
    with pytest.raises(OutputError, match="Choose another") as caught:
        train_run(TINY, place)
    assert place in str(caught.value)
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize(
    "options", [{"dataset": "mnist", "data_dir": "absent"}, {"patience": 3, "limit": 1}]
)
def test_a_failed_start_leaves_no_folder(tmp_path, options):
    for out in (tmp_path / "new" / "run", None):
        with pytest.raises((DataError, ArchitectureError)):
            train_run(RunConfig(**options), out)
        assert list(tmp_path.iterdir()) == []


def _claim_again(results) -> None:
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
    results.put(said)


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of folders")
def test_of_runs_that_start_and_end_at_once_one_has_the_folder():
    """Each removes the folder that it made and wrote nothing into."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_claim_again, args=(results,)) for _ in range(4)]
    for process in processes:
        process.start()
    said = set().union(*(results.get(timeout=120) for _ in processes))
    for process in processes:
        process.join()
    assert said <= {"had it", "some/run: another run is writing there"}
    with RunFolder("some/run", "", files=FILES) as folder:
        folder.begin("# nembp\n")
        with pytest.raises(OutputError, match="another run is writing there"):
            RunFolder("some/run", "", files=FILES)


# -- taking another run's place --------------------------------------------------------------------
def test_an_older_run_keeps_its_place_until_the_new_one_is_complete():
    train_run(TINY, "run")
    Path("run/notes.txt").write_text("mine")
    before, during = content("run"), []
    with pytest.raises(OutputError, match=r"not empty.*--force"):
        train_run(TINY, "run")
    with pytest.raises(DataError):  # found out after the folder was claimed
        train_run(RunConfig(dataset="npz", data_dir="absent.npz"), "run", force=True)
    wild = {"optimizer": "sgd", "learning_rate": 1e9}
    with pytest.raises(DivergenceError, match="run keeps the run that was there"):
        train_run(TINY.replace(wild), "run", force=True)
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
    # what a killed run left is removed by the next
    Path("run/.nembp-new").mkdir()
    Path("run/.nembp-new/model.npz").write_bytes(b"half")
    Path("run/.nembp-0123456789abcdef.part").write_bytes(b"half")
    train_run(TINY, "run", force=True)
    assert set(content("run")) == set(before)


def test_only_a_run_of_nembp_is_replaced():
    Path("mine").mkdir()
    Path("mine/config.toml").write_text("title = 'a paper'\n")
    with pytest.raises(OutputError, match="holds no run of nembp"):
        train_run(TINY, "mine", force=True)
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
            train_run(TINY, "a")
    train_run(TINY.replace({"epochs": 1}), "b")
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
            train_run(TINY, "a")
    train_run(TINY.replace({"epochs": 1}), "b")
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
        train_run(TINY, "a")
    assert (summary("a")["status"], summary("a")["forward/nll"]) == ("interrupted", None)
    assert not Path("a/model.npz").exists()


def test_a_picture_that_fails_and_what_is_far_worse_than_a_constant_are_notes(monkeypatch):
    def broken(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nembp.plotting.pictures.backward_picture", broken)
    notes: list[str] = []
    config = TINY.replace({"learning_rate": 1e4, "epochs": 1})
    assert train_run(config, "a", on_note=notes.append)["picture"] is None
    assert summary("a")["status"] == "finished"
    assert "far worse than a constant" in notes[0]
    assert "no picture was drawn" in notes[1]


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


def test_a_run_is_saved_as_it_goes(monkeypatch):
    """The first epoch and the last, and between them as often as the share of the time allows."""
    saved, config = [], TINY.replace({"epochs": 3})
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
        train_run(TINY, "a", on_row=interrupt, on_end=interrupt)
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


# -- JSON ------------------------------------------------------------------------------------------
def test_json_has_no_nan_and_any_path():
    value = {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}, "e": (1, "x", None)}
    assert json.loads(to_json(value)) == {
        "a": None, "b": [None, 1.5], "c": {"d": None}, "e": [1, "x", None]
    }  # fmt: skip
    path = os.fsdecode(b"caf\xe9")
    assert os.fsencode(json.loads(to_json({"run": path}).encode())["run"]) == b"caf\xe9"
