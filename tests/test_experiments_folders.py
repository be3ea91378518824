"""Folders of experiments: extended, damaged, changed, diverged, and two at a time."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from experiments_cases import ARMS, BASE, game, tiny
from experiments_folders import Stop, rows_of
from nembp.experiments.replicate import replicate

from nembp.datasets.idx import read_idx, write_idx
from nembp.errors import ArchitectureError, DataError, OutputError
from nembp.experiments import (
    Arm,
    Comparison,
    Tuning,
    kept_data,
    read_experiment,
    run_experiment,
    summarize,
)
from nembp.experiments.figures import draw
from nembp.runs import RunConfig
from nembp.runs.preparation import load_data


def test_a_replicate_reads_its_data_once_a_process_and_anew_where_it_changed(tmp_path, monkeypatch):
    source = Path(__file__).parent.parent / "data" / "mnist-sample"
    for path in source.glob("*.gz"):
        shutil.copy(path, tmp_path)
    loads = []

    def counted(config):
        loads.append(config.split_seed)
        return load_data(config)

    monkeypatch.setattr(kept_data, "load_data", counted)
    monkeypatch.setattr(kept_data, "_kept", OrderedDict())
    settings = BASE | {"dataset": "idx", "data_dir": str(tmp_path), "device": "cpu"}
    config = RunConfig(**settings).replace({"seed": 1, "threads": 1})
    first = replicate(config)
    assert replicate(config)["scores"] == first["scores"]
    assert replicate(config.replace({"learning_rate": 0.2}))["scores"] != first["scores"]
    assert loads == [None]  # once for all three
    fresh = replicate(config.replace({"split_seed": 5}))  # other samples
    assert loads == [None, 5]
    assert fresh["curves"] != first["curves"]
    assert replicate(config)["curves"] == first["curves"]
    assert len(loads) == 2
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    written = read_idx(labels)
    write_idx(labels, np.roll(written, 1))
    assert replicate(config)["curves"] != first["curves"]
    assert len(loads) == 3
    for seed in range(kept_data.KEPT + 3):
        kept_data.kept_data(config.replace({"split_seed": seed}))
    assert len(kept_data._kept) == kept_data.KEPT


def test_a_run_extends_its_grids_however_it_is_interrupted(tmp_path):
    """Two rates far too low, so that the best lies above them; one is added after another."""
    protocol = tiny(tuning=Tuning("nll", (0.01, 0.1), (1000,), refine=0), seeds=2)
    whole = rows_of(run_experiment(protocol, tmp_path / "whole", jobs=1))
    rates = {task.rate for task in whole if (task.phase, task.arm) == ("tune", "none")}
    assert len(rates) > 3
    found = summarize(read_experiment(tmp_path / "whole", "tiny", protocol=protocol))
    assert all(item["at_an_end"] is None for item in found["tuned"])
    assert found["left"] == 0
    for rows in (1, 5, 6, 8):  # in the grid, at its end, and in what was added to it
        with pytest.raises(KeyboardInterrupt):
            run_experiment(protocol, tmp_path / "cut", jobs=1, resume=True,
                           on_progress=_StopAt(rows))  # fmt: skip
    run_experiment(protocol, tmp_path / "cut", jobs=1, resume=True)
    assert rows_of(tmp_path / "cut" / "tiny") == whole


class _StopAt:
    """Interrupts once a run has as many rows."""

    def __init__(self, rows):
        self.rows = rows

    def __call__(self, done, total, row):
        assert done <= total
        if done >= self.rows:
            raise KeyboardInterrupt


def test_damage_is_named(tmp_path):
    folder = run_experiment(tiny(), tmp_path, jobs=1)
    path = folder / "rows.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for damaged, says in (
        ([lines[0], b"{}\n", *lines[2:]], "line 2 is damaged"),
        ([lines[0], lines[0], *lines[2:]], "line 2 is of protocol .* or there twice"),
        ([lines[0].replace(tiny().digest.encode(), b"0" * 16), *lines[1:]], "line 1 is of proto"),
    ):
        path.write_bytes(b"".join(damaged))
        with pytest.raises(DataError, match=says):
            run_experiment(tiny(), tmp_path, jobs=1, resume=True)
        assert path.read_bytes() == b"".join(damaged)


def test_rows_of_a_changed_protocol_are_not_mixed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_experiment(tiny(), tmp_path, jobs=1, on_progress=Stop(1))
    changed = tiny(base=BASE | {"epochs": 1})
    with pytest.raises(ArchitectureError, match=r"\(base changed\); rows are not mixed"):
        run_experiment(changed, tmp_path, jobs=1, resume=True)
    with pytest.raises(ArchitectureError, match="base changed"):
        read_experiment(tmp_path, "tiny", protocol=changed)
    assert len(rows_of(tmp_path / "tiny")) == 1


def test_a_replicate_that_diverges_is_a_row(tmp_path):
    wild = Arm("wild", {"learning_rate": 1e25, "activation": "identity"})
    arms, items = (ARMS[0], wild), (Comparison("x", "wild", "none", "nll", claim="wild is good"),)
    protocol = tiny(arms=arms, comparisons=items, seeds=2)
    folder = run_experiment(protocol, tmp_path, jobs=1)
    states = {(task.arm, row["status"]) for task, row in rows_of(folder).items()}
    assert states == {("none", "finished"), ("wild", "diverged")}


def test_adversarial_replicates_run_resume_and_repeat(tmp_path):
    whole = rows_of(run_experiment(game(), tmp_path / "whole", jobs=1))
    assert {task.phase for task in whole} == {"tune", "report"}
    for row in whole.values():
        assert row["status"] == "finished"
        assert len(row["curves"]["course/modes"]) == 2
        assert set(row["scores"]) >= {"modes", "high_quality"}
    with pytest.raises(KeyboardInterrupt):
        run_experiment(game(), tmp_path / "cut", jobs=1, on_progress=Stop(3))
    run_experiment(game(), tmp_path / "cut", jobs=1, resume=True)
    assert rows_of(tmp_path / "cut" / "game") == whole
    found = read_experiment(tmp_path / "whole", "game", protocol=game())
    summary = summarize(found)
    assert summary["comparisons"][0]["pairs"] == 2
    assert [path.name for path in draw(found, summary)] == ["curves.png", "effects.png"]


def test_one_run_at_a_time_writes_a_folder(tmp_path):
    def again(done, total, row):
        with pytest.raises(OutputError, match="another run is writing it"):
            run_experiment(tiny(), tmp_path, jobs=1, resume=True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(tiny(), tmp_path, jobs=1, on_progress=again)
