"""Running: the same rows however they are run, interrupted, killed or resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import joblib
import pytest
from experiments_cases import tiny
from experiments_folders import Stop, rows_of
from nembp.experiments.replicate import replicate
from nembp.experiments.tasks import Task

from nembp.errors import ArchitectureError, OutputError
from nembp.experiments import (
    read_experiment,
    run_experiment,
)

REPLICATES = 4 + 6  # at least: tuned rates are trained once more where they are not the untuned


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
            run_experiment(tiny(), tmp_path / name, jobs=1, on_progress=Stop(1))
        with joblib.parallel_config(**config):
            folder = run_experiment(tiny(), tmp_path / name, resume=True)
        assert rows_of(folder) == whole, name
        assert json.loads((folder / "protocol.json").read_text())["threads"] == threads


def test_the_number_of_threads_can_be_chosen(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        run_experiment(tiny(), tmp_path, jobs=1, threads=2, on_progress=Stop(1))
    assert {row["threads"] for row in rows_of(tmp_path / "tiny").values()} == {2}
    with pytest.raises(ArchitectureError, match="threads must be at least 1, got 0"):
        run_experiment(tiny(), tmp_path, jobs=1, threads=0, resume=True)


def test_an_interrupted_run_resumes_to_the_same_rows(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt, match=r"after 5 replicates.*--resume"):
        run_experiment(tiny(), tmp_path, jobs=1, on_progress=Stop(5))
    assert len(rows_of(tmp_path / "tiny")) == 5
    with pytest.raises(OutputError, match="holds a run; continue it with --resume"):
        run_experiment(tiny(), tmp_path, jobs=1)
    seen = []
    run_experiment(tiny(), tmp_path, jobs=1, resume=True,
                   on_progress=lambda done, total, row: seen.append((done, total)))  # fmt: skip
    assert rows_of(tmp_path / "tiny") == whole
    assert len(seen) == len(whole) - 5
    assert seen[-1] == (len(whole), len(whole))
    run_experiment(tiny(), tmp_path, jobs=1, resume=True, on_progress=Stop(1))  # nothing is left


def test_a_torn_last_line_is_run_again(tmp_path, whole):
    folder = run_experiment(tiny(), tmp_path, jobs=1)
    path = folder / "rows.jsonl"
    content = path.read_bytes()
    for torn in (content[:-1], content[:-40], content[:-40] + b"\0" * 39 + b"\n"):
        path.write_bytes(torn)
        assert read_experiment(tmp_path, "tiny", protocol=tiny()).left == 1
        run_experiment(tiny(), tmp_path, jobs=1, resume=True)
        assert rows_of(folder) == whole


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
