"""``nembp train``: precedence, output, ends, and every bad input of the issue."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import fails, interrupted, parameters, rows, run, summary, works

from nembp.checkpoints import load_model
from nembp.runs import from_toml

SHORT = ["--layers", "16", "--epochs", "2", "--device", "cpu"]


pytestmark = pytest.mark.usefixtures("own_folder")


def train(*args: object, env: dict[str, str] | None = None):
    return run("train", *args, env=env)


# -- output ----------------------------------------------------------------------------------------
def test_json_is_one_object_on_stdout_and_all_else_on_stderr(tmp_path):
    result = works("train", *SHORT, "--json")
    assert result.stdout.count("\n") == 1
    told = json.loads(result.stdout)
    folder = Path(told["run"])
    assert folder.parent == tmp_path / "runs"
    assert re.fullmatch(r"\d{8}-\d{6}-digits-seed0", folder.name)
    assert told == summary(folder)
    lines = result.stderr.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == ["epoch 1/2", "epoch 2/2"]
    for word in ("forward nll", "accuracy", "backward nll", "centroid error", "samples/s", "left"):
        assert word in lines[1]
    assert "64-16-10 relu" in lines[0]
    assert "kept" not in lines[1]


def test_the_result_ends_with_the_run_and_its_picture():
    noise = ("--noise", "nem", "--noise-target", "both")
    result = train(*SHORT, *noise, "--noise-std", "0.3", "--out", "a")
    for word in ("forward kept", "forward gain", "backward kept", "backward gain"):
        assert word in result.stderr.splitlines()[-1]
    first, second, *_, run_, picture = map(str.split, result.stdout.splitlines())
    assert (run_, picture) == (["run", "a"], ["picture", "a/backward.png"])
    assert (first[:2], second[:3]) == (["forward", "accuracy"], ["backward", "centroid", "error"])
    assert train(*SHORT, "--quiet").stderr == ""


def test_a_score_that_is_not_defined_is_null(tmp_path):
    """Classes of the same mean 0 have no relative centroid error."""
    x, y = np.array([[1.0], [-1.0], [1.0], [-1.0]] * 3), np.array([0, 0, 1, 1] * 3)
    np.savez("d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    np.savez("r.npz", x_train=x, x_test=x[:1], y_train=x, y_test=x[:1])
    labels, numbers = (
        json.loads(train("--dataset", "npz", "--data-dir", name, *SHORT, "--json").stdout)
        for name in ("d.npz", "r.npz")
    )
    assert labels["backward/centroid_error"] is None
    for key in ("forward/r2", "forward/accuracy", "picture"):
        assert numbers[key] is None


def test_flags_without_effect_are_noted_but_not_those_of_a_file():
    result = train(*SHORT, "--noise-std", "0.3", "--noise-law", "uniform", "--out", "a")
    for flag in ("--noise-std", "--noise-law"):
        assert f"{flag}: without effect on the training, since --noise is none" in result.stderr
    assert "without effect" not in train("--config", "a/config.toml", "--out", "b").stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_state_is_shown_in_place_on_a_terminal(tmp_path):
    import pty

    code = (
        "from nembp_cli.progress import status\n"
        "with status() as tell:\n    tell('one of two'), tell('two of \x1b two' + 'o' * 999)\n"
        "print('done')\n"
    )
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "30"}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=env, check=True).stdout
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    lines = ["", "one of two", r"two of \x1b two".ljust(29, "o"), ""]
    assert shown == "\r\x1b[K".join(lines)
    assert out == b"done\n"


# -- where options come from -----------------------------------------------------------------------
def test_flags_beat_environment_beats_file_beats_recipe():
    Path("my.toml").write_text(
        'epochs = 1\nlayers = "9"\nbatch-size = 50\nseed = 3\nout = "from-file"\nquiet = true\n'
        'device = "cpu"\n'
    )
    env = {"NEMBP_TRAIN_EPOCHS": "2", "NEMBP_TRAIN_LAYERS": "8", "NEMBP_TRAIN_QUIET": "1"}
    assert train("--config", "my.toml", "--layers", "7", env=env).stderr == ""
    config = from_toml("from-file/config.toml")
    assert config.layers == (7,)  # flag
    assert config.epochs == 2  # environment
    assert (config.batch_size, config.seed) == (50, 3)  # file
    assert config.backward_weight == 0.3  # recipe
    train("--out", "b", env={**env, "NEMBP_TRAIN_CONFIG": "my.toml"})
    assert from_toml("b/config.toml").layers == (8,)


def test_a_bad_file_or_variable_is_named():
    Path("my.toml").write_text("force = 'yes'")
    line = fails(2, "train", "--config", "my.toml")
    assert "my.toml: force must be true or false" in line
    assert not Path("runs").exists()
    result = train(env={"NEMBP_TRAIN_LAYERS": "5,-1"})
    assert result.exit_code == 2
    assert "'-1' as layer 2" in result.stderr
    assert "(from NEMBP_TRAIN_LAYERS)" in result.stderr
    for wrong in ("NEMBP_TRAIN_EPOCH", "NEMBP_EPOCHS", "NEMBP_TRIAN_EPOCHS"):
        result = train(env={wrong: "2"})
        assert result.exit_code == 2
        assert f"{wrong} sets nothing; did you mean NEMBP_TRAIN_EPOCHS?" in result.stderr
    env = {"NEMBP_TRAIN_JSON": "1", "NEMBP_TRAIN_EPOCHS": "1", "NEMBP_GAN_KIND": "minimax"}
    assert json.loads(train("--layers", "4", env=env).stdout)["status"] == "finished"


# -- devices ---------------------------------------------------------------------------------------
def test_without_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as where it is not installed
    for there in (True, False):  # a GPU that is left unused is news, none is not
        monkeypatch.setattr("nembp.runs.run.gpu_seems_present", lambda there=there: there)
        result = works("train", "--layers", "8", "--epochs", "1", "--out", "a", "--force")
        told = "nembp: computing on the CPU: device 'gpu' needs CuPy" in result.stderr
        assert told is there
    assert from_toml("a/config.toml").device == "cpu"


# -- ends ------------------------------------------------------------------------------------------
def test_divergence_is_said_and_its_summary_printed():
    wild = ["--optimizer", "sgd", "--learning-rate", "1e6"]
    result = train(*SHORT, *wild, "--out", "a", "--json", "--quiet")
    assert result.exit_code == 5
    assert json.loads(result.stdout)["status"] == "diverged"
    assert summary("a")["epochs"] == len(rows("a"))
    assert math.isfinite(summary("a")["forward/nll"])
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("nembp: error: training diverged in epoch 1")
    assert "Lower the learning rate" in line
    assert "a/model.npz holds the last good model" in line
    assert np.all(np.isfinite(parameters("a")))


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_process_keeps_its_model(number):
    command = ["train", "--layers", "8", "--epochs", "100000", "--device", "cpu", "--out", "a"]
    out, rest = interrupted(number, "epoch 3/", *command)
    assert re.search(r"nembp: error: interrupted after epoch \d+; a/model.npz holds", rest)
    assert out.splitlines()[-1].split() == ["picture", "a/backward.png"]
    assert (summary("a")["status"], summary("a")["epochs"]) == ("interrupted", len(rows("a")))
    assert load_model("a/model.npz").classes == tuple("0123456789")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_under_nohup_a_terminal_may_go():
    code = (
        "import os, signal\nfrom nembp_cli.progress import terminate_as_interrupt\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with terminate_as_interrupt():\n    os.kill(os.getpid(), signal.SIGHUP)\n"
        "assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- usage -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--layers", "512,0"], "'--layers': it has '0' as layer 2: it has 0 units; expected"),
        (["--layers", "16,conv8x4"], "layer 2 `conv8x4`: a convolution reads an image, but layer"),
        (["--scaling", "channel", "--backward", "bernoulli"], "use --scaling unit"),
        (["--image-size", "8x8"], "image_size is for the data sets images, not for 'digits'"),
        (["--epochs", "0"], "'--epochs': it must be a whole number ≥ 1, got 0"),
        (["--learning-rate", "fast"], "it must be a number > 0, got 'fast'"),
        (["--noise", "some"], "'some' is not one of 'none', 'nem'"),
        (["--dataset", "mnits"], "expected one of digits, mnist"),
        (["--dataset", "mnist"], "nembp data fetch mnist"),
        (["--targets", "a"], "targets is for the data sets csv"),
        (["--backward", "none", "--noise", "nem", "--noise-target", "both"], "train both"),
        (["--patience", "2", "--validation-fraction", "0"], "--validation-fraction above 0"),
        (["--limit", "20", "--validation-fraction", "0.9"], "leaves 2 of 20 samples to train on"),
        (["--noise", "nem", "--noise-place", "hidden", "--layers", ""], "needs a hidden layer"),
        (["--layers", "16bn", "--batch-size", "1"], "learns nothing from batches of one"),
        (["--noise", "nem", "--noise-place", "hidden,last-hidden"], "name one of the two"),
        (["--noise", "nem", "--noise-place", "input", "--noise-screening", "component"], "whole"),
        (["--config", "absent.toml"], "absent.toml: cannot be read"),
    ],
)
def test_wrong_usage(tmp_path, args, message):
    assert message in fails(2, "train", *args)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs names of any bytes")
def test_paths_that_are_not_text(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(folder)
    x = np.arange(40.0).reshape(20, 2)
    np.savez(f"{folder}/d.npz", x=x, y=np.arange(20) % 2)
    result = works("train", "--dataset", "npz", "--data-dir", f"{folder}/d.npz", *SHORT, "--out",
                   f"{folder}/a", "--json", "--quiet")  # fmt: skip
    assert json.loads(result.stdout)["run"] == f"{folder}/a"
    assert summary(f"{folder}/a")["status"] == "finished"
    works("evaluate", f"{folder}/a")
    assert from_toml(f"{folder}/a/config.toml").data_dir is None  # which TOML cannot hold
