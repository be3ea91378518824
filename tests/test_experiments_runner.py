"""Running: the same rows however they are run, interrupted, killed or resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path

import joblib
import numpy as np
import pytest
from experiments_cases import ARMS, BASE, game, tiny

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
from nembp.experiments.replicate import replicate
from nembp.experiments.tasks import Task
from nembp.runs import RunConfig
from nembp.runs.preparation import load_data

REPLICATES = 4 + 6  # at least: tuned rates are trained once more where they are not the untuned


def rows_of(folder):
    """Return the numbers of each replicate: all of its row but the time it took."""
    lines = (folder / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    table = {Task.of(row): {k: v for k, v in row.items() if k != "seconds"} for row in rows}
    assert len(table) == len(rows), "a replicate was run twice"
    return table


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the rows of a run that nothing disturbed."""
    return rows_of(run_experiment(tiny(), tmp_path_factory.mktemp("whole"), jobs=1))


def test_a_run_leaves_a_row_a_replicate(whole):
    assert len(whole) >= REPLICATES
    for task, row in whole.items():
        assert row["protocol"] == tiny().digest
        assert row["status"] == "finished"
        assert len(row["curves"]["train/nll"]) == len(row["curves"]["train/error"]) == 2
        assert 0 < row["scores"]["forward/accuracy"] < 1
        assert ("noise/forward/gain" in row["curves"]) == (task.arm == "nem")
    # paired: arms of a seed differ in their noise only, seeds differ
    scores = {str(row["curves"]["train/nll"]) for row in whole.values()}
    assert len(scores) == len(whole)


def test_a_replicate_repeats_bit_for_bit_and_tuning_never_sees_the_test_split(whole):
    for task in list(whole)[:: len(whole) - 1]:
        config = task.config(tiny(), {}, "cpu", whole[task]["threads"])
        again = replicate(config)
        assert {k: again[k] for k in ("curves", "scores")} == {
            k: whole[task][k] for k in ("curves", "scores")
        }
    held_out = replicate(Task("tune", "none", 0.1, 0).config(tiny(), {}, "cpu", 1))
    tested = replicate(Task("report", "none", 0.1, 0).config(tiny(), {}, "cpu", 1))
    assert held_out["scores"] != tested["scores"]
    twelfths = held_out["scores"]["forward/accuracy"] * 12  # a fifth of 60 samples
    assert twelfths == pytest.approx(round(twelfths), abs=1e-5)


def test_processes_and_a_backend_of_the_user_give_the_same_rows(tmp_path, whole):
    threads = next(iter(whole.values()))["threads"]
    for name, config in (
        ("processes", {"backend": "loky", "n_jobs": 2}),
        ("threads", {"backend": "threading", "n_jobs": 2}),
        ("no generator", {"backend": "multiprocessing", "n_jobs": 2}),
    ):
        with pytest.raises(KeyboardInterrupt):  # after one row, whose number of threads stays
            run_experiment(tiny(), tmp_path / name, jobs=1, on_progress=_Stop(1))
        with joblib.parallel_config(**config):
            folder = run_experiment(tiny(), tmp_path / name, resume=True)
        assert rows_of(folder) == whole, name
        assert json.loads((folder / "protocol.json").read_text())["threads"] == threads


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


class _Stop:
    """Interrupts after some rows."""

    def __init__(self, rows):
        self.rows = rows

    def __call__(self, done, total, row):
        if done == self.rows:
            raise KeyboardInterrupt


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


def test_the_number_of_threads_can_be_chosen(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        run_experiment(tiny(), tmp_path, jobs=1, threads=2, on_progress=_Stop(1))
    assert {row["threads"] for row in rows_of(tmp_path / "tiny").values()} == {2}
    with pytest.raises(ArchitectureError, match="threads must be at least 1, got 0"):
        run_experiment(tiny(), tmp_path, jobs=1, threads=0, resume=True)


def test_an_interrupted_run_resumes_to_the_same_rows(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt, match=r"after 5 replicates.*--resume"):
        run_experiment(tiny(), tmp_path, jobs=1, on_progress=_Stop(5))
    assert len(rows_of(tmp_path / "tiny")) == 5
    with pytest.raises(OutputError, match="holds a run; continue it with --resume"):
        run_experiment(tiny(), tmp_path, jobs=1)
    seen = []
    run_experiment(tiny(), tmp_path, jobs=1, resume=True,
                   on_progress=lambda done, total, row: seen.append((done, total)))  # fmt: skip
    assert rows_of(tmp_path / "tiny") == whole
    assert len(seen) == len(whole) - 5
    assert seen[-1] == (len(whole), len(whole))
    run_experiment(tiny(), tmp_path, jobs=1, resume=True, on_progress=_Stop(1))  # nothing is left


def test_a_torn_last_line_is_run_again(tmp_path, whole):
    folder = run_experiment(tiny(), tmp_path, jobs=1)
    path = folder / "rows.jsonl"
    content = path.read_bytes()
    for torn in (content[:-1], content[:-40], content[:-40] + b"\0" * 39 + b"\n"):
        path.write_bytes(torn)
        assert read_experiment(tmp_path, "tiny", protocol=tiny()).left == 1
        run_experiment(tiny(), tmp_path, jobs=1, resume=True)
        assert rows_of(folder) == whole


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
        run_experiment(tiny(), tmp_path, jobs=1, on_progress=_Stop(1))
    changed = tiny(base=BASE | {"epochs": 1})
    with pytest.raises(ArchitectureError, match=r"\(base changed\); rows are not mixed"):
        run_experiment(changed, tmp_path, jobs=1, resume=True)
    with pytest.raises(ArchitectureError, match="base changed"):
        read_experiment(tmp_path, "tiny", protocol=changed)
    assert len(rows_of(tmp_path / "tiny")) == 1


def test_seeds_can_be_added(tmp_path, whole):
    run_experiment(tiny().with_seeds(2), tmp_path, jobs=1)
    two = rows_of(tmp_path / "tiny")
    assert len(two) < len(whole)
    run_experiment(tiny(), tmp_path, jobs=1, resume=True)
    assert rows_of(tmp_path / "tiny") == whole
    # but not taken away
    run_experiment(tiny().with_seeds(2), tmp_path, jobs=1, resume=True)
    found = read_experiment(tmp_path, "tiny", protocol=tiny().with_seeds(2))
    assert (found.protocol.seeds, found.left) == (3, 0)


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
        run_experiment(game(), tmp_path / "cut", jobs=1, on_progress=_Stop(3))
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


def _ends(session):
    """Wait until no process of a session is left (zombies aside), for a minute at most."""
    for _ in range(600):
        listed = subprocess.check_output(["ps", "-eo", "sid=,stat="], text=True)
        lines = [line.split() for line in listed.splitlines()]
        if not any(int(sid) == session and not stat.startswith("Z") for sid, stat in lines):
            return True
        time.sleep(0.1)
    return False


KILLED = """
import sys
from experiments_cases import tiny
from nembp.experiments import run_experiment
if __name__ == "__main__":
    run_experiment(tiny(), sys.argv[1], jobs=2, resume=True)
"""


def test_kill_9_loses_nothing_and_leaves_no_worker(tmp_path, whole):
    """The replicates of kills at several moments are those of a run that was left alone."""
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    paths = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])
    out = tmp_path / "out"
    rows, have = out / "tiny" / "rows.jsonl", 0
    for wanted in (1, 4):
        process = subprocess.Popen(
            [sys.executable, str(script), str(out)], env=os.environ | {"PYTHONPATH": paths},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        while have < wanted and process.poll() is None:
            time.sleep(0.01)
            have = rows.read_bytes().count(b"\n") if rows.exists() else 0
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert have >= wanted
        assert _ends(process.pid), "workers are left"
    threads = json.loads((out / "tiny" / "protocol.json").read_text())["threads"]
    run_experiment(tiny(), out, jobs=1, resume=True)
    found = rows_of(out / "tiny")
    assert set(found) == set(whole)
    if threads == next(iter(whole.values()))["threads"]:
        assert found == whole
