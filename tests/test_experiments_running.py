"""Running: the same rows however replicates are run, interrupted, killed, damaged or resumed.

And perturbations of images: bounds, direction of attacks, pairing, and what they do to accuracy.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
from experiments_cases import ARMS, BASE, rows_of, stop_after, tiny
from fuzz_cases import write_idx

from nembp.datasets.arrays import read_idx
from nembp.engine.network import dense_network
from nembp.errors import ArchitectureError, DataError, OutputError
from nembp.experiments import Arm, Comparison, get, read_experiment, run_experiment, summarize
from nembp.experiments.protocol import perturbation
from nembp.experiments.robustness import perturbed, robustness
from nembp.experiments.running import kept_data, replicate
from nembp.experiments.tuning import Task
from nembp.runs import RunConfig
from nembp.runs.training import prepare, trainer_of


def run(out, protocol=None, jobs=1, **options):
    return run_experiment(protocol or tiny(), out, jobs=jobs, **options)


def stopped(out, rows, **options):
    with pytest.raises(KeyboardInterrupt, match=rf"after {rows} replicates.*--resume"):
        run(out, on_progress=stop_after(rows), **options)


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory):
    """Return the folder of a run that nothing disturbed."""
    return run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def whole(whole_folder):
    return rows_of(whole_folder)


def test_a_run_leaves_a_row_per_replicate_which_repeats_bit_for_bit(whole):
    assert len(whole) >= 4 + 6
    assert len({str(row["curves"]["train/nll"]) for row in whole.values()}) == len(whole)
    for task, row in whole.items():
        assert (row["protocol"], row["status"]) == (tiny().digest, "finished")
        assert len(row["curves"]["train/nll"]) == len(row["curves"]["train/error"]) == 2
        assert ("noise/forward/gain" in row["curves"]) == (task.arm == "nem")
        again = replicate(task.config(tiny(), {}, "cpu", row["threads"]))
        assert (again["curves"], again["scores"]) == (row["curves"], row["scores"])


def test_tuning_never_sees_the_test_split():
    held_out, tested = (
        replicate(Task(phase, "none", 0.1, 0).config(tiny(), {}, "cpu", 1))["scores"]
        for phase in ("tune", "report")
    )
    assert held_out != tested
    twelfths = held_out["forward/accuracy"] * 12  # a fifth of 60 samples
    assert twelfths == pytest.approx(round(twelfths), abs=1e-5)


@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])  # loky is killed below
def test_any_joblib_backend_gives_the_same_rows(tmp_path, whole, backend):
    stopped(tmp_path, 1)  # whose number of threads stays
    with joblib.parallel_config(backend=backend, n_jobs=2):
        assert rows_of(run(tmp_path, jobs=None, resume=True)) == whole


def test_an_interrupted_run_resumes_to_the_same_rows(tmp_path, whole):
    stopped(tmp_path, 5)
    assert len(rows_of(tmp_path / "tiny")) == 5
    with pytest.raises(OutputError, match="holds a run; continue it with --resume"):
        run(tmp_path)
    seen = []
    run(tmp_path, resume=True, on_progress=lambda done, total, row: seen.append((done, total)))
    assert rows_of(tmp_path / "tiny") == whole
    assert (len(seen), seen[-1]) == (len(whole) - 5, (len(whole), len(whole)))
    run(tmp_path, resume=True, on_progress=stop_after(1))  # nothing is left


def test_seeds_can_be_added_but_not_taken_away(tmp_path, whole):
    assert len(rows_of(run(tmp_path, tiny().with_seeds(2)))) < len(whole)
    for seeds in (3, 2):
        assert rows_of(run(tmp_path, tiny().with_seeds(seeds), resume=True)) == whole
    found = read_experiment(tmp_path, "tiny", protocol=tiny().with_seeds(2))
    assert (found.protocol.seeds, found.left) == (3, 0)


def test_one_run_at_a_time_writes_a_folder_with_the_threads_it_was_given(tmp_path):
    def again(done, total, row):
        assert row["threads"] == 2
        with pytest.raises(OutputError, match="another run is writing it"):
            run(tmp_path, resume=True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, threads=2, on_progress=again)
    with pytest.raises(ArchitectureError, match="threads must be at least 1, got 0"):
        run(tmp_path, threads=0, resume=True)


def test_a_replicate_that_diverges_is_a_row(tmp_path):
    wild = Arm("wild", {"learning_rate": 1e25, "activation": "identity"})
    items = (Comparison("x", "wild", "none", "nll", claim="wild is good"),)
    folder = run(tmp_path, tiny(arms=(ARMS[0], wild), comparisons=items, seeds=2))
    states = {(task.arm, row["status"]) for task, row in rows_of(folder).items()}
    assert states == {("none", "finished"), ("wild", "diverged")}


def test_adversarial_replicates_run_and_repeat(tmp_path):
    name = "wgan-ring"
    whole = rows_of(run(tmp_path, get(name), quick=True, threads=1))
    for (phase, *_), row in whole.items():
        assert phase in ("tune", "report")
        assert (row["status"], len(row["curves"]["course/modes"])) == ("finished", 2)
        assert set(row["scores"]) >= {"modes", "high_quality"}
    assert summarize(read_experiment(tmp_path, name, quick=True))["comparisons"][0]["pairs"] == 2
    again = replicate(next(reversed(whole)).config(get(name).quick(), {}, "cpu", row["threads"]))
    assert (again["curves"], again["scores"]) == (row["curves"], row["scores"])


# -- damage ----------------------------------------------------------------------------------------
def read(folder):
    return read_experiment(folder.parent, "tiny", protocol=tiny())


@pytest.fixture
def path(tmp_path, whole_folder):
    """Return the rows of a copy of the whole run, to be damaged."""
    return Path(shutil.copytree(whole_folder, tmp_path / "tiny")) / "rows.jsonl"


def test_a_torn_last_line_is_run_again(path, whole):
    content = path.read_bytes()
    for torn in (content[:-1], content[:-40], content[:-40] + b"\0" * 39 + b"\n"):
        path.write_bytes(torn)
        assert read(path.parent).left == 1
        assert rows_of(run(path.parent.parent, resume=True)) == whole


def test_no_flipped_bit_changes_what_is_read(path):
    """Flipped anywhere, rows are refused, or the last ones taken for cut short, or read as before.

    The last two, where the flipped bit joins their lines.
    """
    content, rows = path.read_bytes(), read(path.parent).rows
    rng = np.random.default_rng(0)
    for at in (*rng.integers(len(content), size=60), content.index(b'"seal"') + 3):
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = read(path.parent).rows
        except DataError as error:
            assert "is damaged" in str(error)  # noqa: PT017
        else:
            assert found == rows[: len(found)]
            assert len(found) >= len(rows) - 2


def test_rows_without_a_seal_are_read_and_counted(path):
    """As version 0.1 left them."""
    before, lines = read(path.parent), [*map(json.loads, path.read_text().splitlines())]
    for row in lines[2:]:
        del row["seal"]
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    found = read(path.parent)
    assert found.rows == before.rows
    assert (before.unsealed, found.unsealed) == (0, len(lines) - 2)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("rows.jsonl", {"else": 0, "seal": None}, "line 1 is damaged"),
        ("rows.jsonl", {"protocol": "0" * 16, "seal": None}, "line 1 is of protocol 0{16}"),
        ("rows.jsonl", {}, "line 2 is there twice"),
        ("protocol.json", {"seeds": 2}, "does not match its seal"),
        ("protocol.json", {"seeds": "3", "seal": None}, r"protocol\.json: cannot be read"),
        ("protocol.json", {"threads": 10**30, "seal": None}, r"protocol\.json: cannot be read"),
        ("protocol.json", {"hash": 1, "seal": None}, r"protocol\.json: cannot be read"),
        ("protocol.json", {"content": [], "seal": None}, r"protocol\.json: cannot be read"),
        ("protocol.json", None, r"^(?!.*protocol\.json.*protocol\.json).*no such file"),
    ],
)
def test_what_is_wrong_is_named_and_left_as_it_is(path, name, changes, says):
    path = path.with_name(name)
    good = path.read_text()
    if changes is None:
        path.unlink()
    elif name == "rows.jsonl":
        path.write_text(json.dumps(json.loads(good.splitlines()[0]) | changes) + "\n" + good)
    else:
        path.write_text(json.dumps(json.loads(good) | changes))
    damaged = path.read_bytes() if path.exists() else None
    with pytest.raises(DataError, match=says):
        run(path.parent.parent, resume=True)
    with pytest.raises(DataError, match=says):
        read(path.parent)
    assert damaged == (path.read_bytes() if path.exists() else None)


def test_whatever_a_row_without_a_seal_says_is_judged_or_refused(path):
    lines = path.read_bytes().splitlines(keepends=True)
    nem = next(line for line in lines if b'"report"' in line and b'"nem"' in line)
    others = b"".join(line for line in lines if line != nem)
    row = json.loads(nem) | {"seal": None}
    wrong = (None, True, 10**400, math.nan, "x", [], {}, [10**400], [None, 1e308], ["x"], {"": 1})
    for table in (row, row["curves"], row["scores"]):
        for key, value in list(table.items()):
            for table[key] in wrong:
                path.write_bytes(json.dumps(row).encode() + b"\n" + others)
                try:
                    found = read(path.parent)
                except DataError as error:
                    assert "line 1 is" in str(error)  # noqa: PT017
                else:
                    json.dumps(summarize(found))
            table[key] = value


def test_rows_of_a_changed_protocol_are_not_mixed(path, whole):
    changed = tiny(base=BASE | {"epochs": 1})
    with pytest.raises(ArchitectureError, match=r"\(base changed\); rows are not mixed"):
        run(path.parent.parent, changed, resume=True)
    with pytest.raises(ArchitectureError, match="base changed"):
        read_experiment(path.parent.parent, "tiny", protocol=changed)
    assert rows_of(path.parent) == whole


KILLED = """
import sys
from experiments_cases import tiny
from nembp.experiments import run_experiment
if __name__ == "__main__":
    run_experiment(tiny(), sys.argv[1], jobs=2, resume=True)
"""


def test_kill_9_loses_nothing_and_leaves_no_worker(tmp_path, whole):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    paths = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])
    stopped(tmp_path, 1)  # whose number of threads stays
    rows, have = tmp_path / "tiny" / "rows.jsonl", 0
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while have < 4 and process.poll() is None:
        time.sleep(0.01)
        have = rows.read_bytes().count(b"\n")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert have >= 4
    for _ in range(600):  # a minute at most
        session = ["ps", "-o", "stat=", "-s", str(process.pid)]
        listed = subprocess.run(session, check=False, capture_output=True).stdout
        if all(state.startswith(b"Z") for state in listed.split()):
            break
        time.sleep(0.1)
    else:
        pytest.fail("workers are left")
    assert rows_of(run(tmp_path, resume=True)) == whole


def test_data_is_read_once_per_process_and_anew_where_it_changed(tmp_path):
    for path in (Path(__file__).parent.parent / "data" / "mnist-sample").glob("*.gz"):
        shutil.copy(path, tmp_path)
    config = RunConfig(**BASE | {"dataset": "idx", "data_dir": str(tmp_path)})
    first = kept_data(config)
    assert kept_data(config.replace({"learning_rate": 0.2})) is first
    assert kept_data(config.replace({"split_seed": 5})) is not first
    labels = tmp_path / "train-labels-idx1-ubyte"
    y = read_idx(f"{labels}.gz")
    write_idx(labels, np.roll(y, 1))
    other, before = kept_data(config).train.y, labels.stat()
    write_idx(labels, np.roll(y, 2))  # of the same size, and made to look as old
    os.utime(labels, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len({bytes(each) for each in (first.train.y, other, kept_data(config).train.y)}) == 3


# -- perturbed images ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained():
    options = {"layers": "32", "epochs": 15, "learning_rate": 0.01, "backward": "none"}
    prepared = prepare(RunConfig(**options, device="cpu"))
    trainer_of(prepared).run()
    return prepared


@pytest.fixture(scope="module")
def images(trained):
    split = trained.data.test.subset(np.arange(200))
    return split.x[:].reshape(200, 64).astype(np.float32) / 16, np.asarray(split.y)


def test_attacks_stay_near_and_make_the_true_class_less_probable(trained, images):
    x, labels = images
    kept, net = x.copy(), trained.net
    fgsm, pgd = (perturbed(net, x, labels, text, seed=0) for text in ("fgsm:0.1", "pgd:0.1"))
    for moved in (fgsm, pgd):
        assert 0 <= moved.min() <= moved.max() <= 1
        assert np.abs(moved - x).max() <= 0.1 + 1e-6
    free = (x >= 0.1) & (x <= 0.9)  # one step moves these by all of ε
    assert np.mean(np.isclose(np.abs(fgsm - x)[free], 0.1, atol=1e-6)) > 0.95
    assert np.array_equal(x, kept)
    clean, once, often = (
        -np.log(np.asarray(net.predict(each), np.float64)[np.arange(len(x)), labels])
        for each in (x, fgsm, pgd)
    )
    assert np.mean(once > clean) > 0.99
    assert often.mean() > once.mean()


def test_noise_and_masks_are_as_strong_as_they_say_and_the_same_for_every_arm(trained, images):
    x, labels = images
    n = perturbed(trained.net, x, labels, "gaussian:0.5", seed=3) - x
    assert abs(n.mean()) < 0.5 * 5 / np.sqrt(n.size)  # 5 standard errors
    assert abs(n.std() / 0.5 - 1) < 5 / np.sqrt(2 * n.size)
    kept = perturbed(trained.net, np.ones_like(x), labels, "mask:0.3", seed=3)
    assert set(np.unique(kept)) == {0.0, 1.0}
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.21 / x.size)
    other = dense_network([64, 5, 10], seed=9)
    for seed in (3, 4):
        same = np.array_equal(perturbed(other, x, labels, "gaussian:0.5", seed) - x, n)
        assert same == (seed == 3)


def test_accuracy_falls_with_strength(trained):
    texts = ("gaussian:0.01", "gaussian:1", "mask:0.5", "fgsm:0.1", "pgd:0.1", "pgd:0.001")
    scores = robustness(trained, texts, seed=0)
    mild, strong, _, fgsm, pgd, least = (scores[f"robustness/{text}"] for text in texts)
    assert mild > 0.93 > strong > 0.1
    assert pgd <= fgsm < mild
    assert least > 0.9
    assert robustness(trained, texts, seed=0) == scores


def test_what_cannot_be_perturbed_is_refused():
    prepared = prepare(RunConfig(scaling="channel", layers="4", device="cpu"))
    with pytest.raises(ArchitectureError, match=r"pixels in \[0, 1\].*scaling unit"):
        robustness(prepared, ("fgsm:0.1",), seed=0)
    for text in ("fgsm", "fgsm:", "fgsm:-1", "mask:1.5", "blur:1", "pgd:nan", ""):
        with pytest.raises(ArchitectureError, match="KIND:STRENGTH"):
            perturbation(text)
