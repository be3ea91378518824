"""Runs that end otherwise than planned keep what they learned."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from nembp.checkpoints import load_model
from nembp.errors import DivergenceError
from nembp.runs import RunConfig, train_run
from nembp.runs import run as life
from nembp.runs import training as run_module

TINY = RunConfig(layers=(16,), epochs=2, device="cpu", schedule="constant")


def rows(folder) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if "second" not in key} for row in lines]


def parameters(folder) -> np.ndarray:
    return load_model(folder / "model.npz").net.parameters


def test_divergence_keeps_the_last_good_model(tmp_path):
    config = TINY.replace({"optimizer": "sgd", "learning_rate": 1e5, "epochs": 5})
    summaries: list[dict] = []
    with pytest.raises(DivergenceError, match=r"model\.npz holds the last good model"):
        train_run(config, tmp_path / "run", on_end=summaries.append)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "diverged" == summaries[0]["status"]
    assert summary["epochs"] == len(rows(tmp_path / "run"))
    assert math.isfinite(summary["forward/nll"])
    assert np.all(np.isfinite(parameters(tmp_path / "run")))


def test_an_interrupted_run_keeps_the_last_epoch(tmp_path):
    def stop(row):
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    config = TINY.replace({"epochs": 50})
    with pytest.raises(KeyboardInterrupt, match="interrupted after epoch 3"):
        train_run(config, tmp_path / "a", on_epoch=stop)
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert (summary["status"], summary["epochs"]) == ("interrupted", 3)
    train_run(config.replace({"epochs": 3}), tmp_path / "b")
    assert np.array_equal(parameters(tmp_path / "a"), parameters(tmp_path / "b"))
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_a_step_in_progress_does_not_reach_the_model(tmp_path, monkeypatch):
    """Ctrl-C between the optimizer's chunks leaves parameters of no epoch; they are not kept."""
    step = run_module.Trainer.step

    def interrupted_step(self, index, *staged):
        step(self, index, *staged)
        if self.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_module.Trainer, "step", interrupted_step)
    with pytest.raises(KeyboardInterrupt):
        train_run(TINY, tmp_path / "a")
    monkeypatch.setattr(run_module.Trainer, "step", step)
    train_run(TINY.replace({"schedule": "constant", "epochs": 1}), tmp_path / "b")
    assert np.array_equal(parameters(tmp_path / "a"), parameters(tmp_path / "b"))


def test_nothing_learned_is_said(tmp_path, monkeypatch):
    def interrupted(self, index, *staged):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module.Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt, match="nothing was learned"):
        train_run(TINY, tmp_path / "a")
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert (summary["status"], summary["epochs"], summary["forward/nll"]) == (
        "interrupted",
        0,
        None,
    )
    assert not (tmp_path / "a" / "model.npz").exists()


def test_an_error_of_a_plugin_leaves_no_open_file(tmp_path, monkeypatch):
    """Nothing but the error is seen by who called."""
    begun = []

    class Folder(run_module.RunFolder):
        def begin(self, config):
            begun.append(self)
            super().begin(config)

    def broken(self, index, *staged):
        raise ZeroDivisionError

    monkeypatch.setattr(run_module, "RunFolder", Folder)
    monkeypatch.setattr(run_module.Trainer, "step", broken)
    with pytest.raises(ZeroDivisionError):
        train_run(TINY, tmp_path / "a")
    assert begun[0]._metrics.closed


def test_a_long_run_is_saved_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(life, "SAVING_SHARE", math.inf)
    saved = []
    train_run(TINY, tmp_path / "a", on_epoch=lambda row: saved.append(parameters(tmp_path / "a")))
    assert not np.array_equal(saved[0], saved[1])
    assert np.array_equal(saved[1], parameters(tmp_path / "a"))
