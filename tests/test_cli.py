"""The command line as a whole: start-up, help, exit codes, info and data."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from command_line import as_json, fails, interrupted, parameters, rows, run, summary, works
from nembp_cli.main import COMMANDS, CommandGroup

import nembp
from nembp import errors
from nembp.checkpoints import load_model
from nembp.datasets import available
from nembp.runs import RunConfig, from_toml
from nembp.runs.gan_config import GanConfig

SHORT = ["--layers", "16", "--epochs", "2", "--device", "cpu"]
pytestmark = pytest.mark.usefixtures("own_folder")


def python(*args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True, **more}
    return subprocess.run([sys.executable, *args], check=False, **options)


def shell(command: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell in which {} is nembp."""
    nembp_ = f"exec {sys.executable} -c 'from nembp_cli.main import main; main()'"
    return subprocess.run(command.format(nembp_), shell=True, text=True, check=False, **more)


# -- start-up and help -----------------------------------------------------------------------------
def test_help_imports_nothing_heavy_and_needs_no_home(tmp_path):
    """What makes help instant: `nembp --help` loads neither NumPy nor a subcommand."""
    code = (
        "import sys\nfrom nembp_cli.main import cli\n"
        "for command in ['', 'train', 'gan', 'sample', 'predict', 'draw noise', 'data', 'info',\n"
        "                'experiment run', 'verify']:\n"
        "    try: cli([*command.split(), '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "    mine = {name for name in sys.modules if name.startswith('nembp_cli.')}\n"
        "    assert command or mine == {'nembp_cli.main'}, mine\n"
        "heavy = {'numpy', 'scipy', 'joblib', 'matplotlib', 'cupy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "none")}
    result = python("-c", code, env=env)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Usage: ") == 10


def test_help_documents_every_exit_code_command_and_option():
    text = run("--help").stdout
    codes = {error.exit_code for error in vars(errors).values() if hasattr(error, "exit_code")}
    for code in (0, 130, *codes):
        assert f"\n    {code} " in text
    for name, (_, line) in COMMANDS.items():
        assert f"  {name} " in text
        assert line in text
        assert run(name, "--help").stdout.startswith(f"Usage: nembp {name} ")
    for command, kind in (("train", RunConfig), ("gan", GanConfig)):
        text = run(command, "--help").stdout
        for name in kind.options():
            flag = next((alias for alias, of in kind.aliases.items() if of == name), name).replace(
                "_", "-"
            )
            assert re.search(rf"^  --{flag}[ ,]", text, re.MULTILINE), name
        for group in {option.group for option in kind.options().values()} | {"Options"}:
            assert f"\n{group}:\n" in text


def test_version_by_both_names():
    assert python("-m", "nembp", "--version").stdout == f"nembp {nembp.__version__}\n"
    result = python("-c", "from nembp_cli.main import main; main()")
    assert result.returncode == 2
    assert "Usage: nembp" in result.stderr


# -- errors ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.DataError("a.idx: bad.\nGet another."), 3, "a.idx: bad. Get another."),
        (errors.DeviceError("no GPU"), 4, "no GPU"),
        (errors.DivergenceError("diverged"), 5, "diverged"),
        (errors.OutputError("full"), 6, "full"),
        (errors.NembpError("odd"), 1, "odd"),
        (PermissionError(13, "Permission denied", "/x/y"), 1, "/x/y: Permission denied"),
        (MemoryError("64 GiB"), 1, "not enough memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("interrupted after epoch 3"), 130, "interrupted after epoch 3"),
        (ZeroDivisionError("a bug"), 1, "ZeroDivisionError: a bug; this is a fault of nembp"),
        (click.UsageError("unusual"), 2, "unusual"),
        (click.FileError("f", "no"), 1, "Could not open file 'f': no"),
    ],
)
def test_errors_are_one_line_and_a_code(error, code, line):
    group = CommandGroup("tool")

    @group.command()
    def go() -> None:
        raise error

    result = CliRunner().invoke(group, ["go"])
    assert result.exit_code == code
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert f"nembp: error: {line}" in last
    if isinstance(error, ZeroDivisionError):
        assert "ZeroDivisionError: a bug" in Path(last.split()[-1]).read_text()


@pytest.mark.parametrize("gone", ["2>&-", "2>/dev/full"])
def test_a_log_that_is_gone_or_full_ends_no_training(gone):
    train = "{} train --epochs 1 --device cpu --json --out a " + gone
    result = shell(train, stdout=subprocess.PIPE)
    assert result.returncode == 0
    assert json.loads(result.stdout)["status"] == "finished"
    assert shell("{} train --dataset nosuch " + gone).returncode == 2


def test_results_that_cannot_be_written_say_so():
    result = shell("{} data list --json >/dev/full", stderr=subprocess.PIPE)
    said = "nembp: error: the output cannot be written (No space left on device)\n"
    assert (result.returncode, result.stderr) == (6, said)
    gone = "mkdir gone && cd gone && rmdir ../gone && {} train --epochs 1"
    result = shell(gone, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert "the working folder no longer exists" in result.stderr


# -- info ------------------------------------------------------------------------------------------
def test_info_says_what_runs(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nonesuch")
    facts = as_json("info")
    assert (facts["nembp"], facts["packages"]["numpy"]) == (nembp.__version__, np.__version__)
    assert min(facts["cpu"]["cores"], facts["blas"]["threads"]) >= 1
    assert set(facts["gpu"]) == {"name", "reason"}
    assert np.__version__ in run("info").stdout
    if facts["blas"]["library"] == "openblas":
        assert "OPENBLAS_CORETYPE=Nonesuch is not what runs" in facts["core_type"]
        monkeypatch.setenv("OPENBLAS_CORETYPE", facts["blas"]["architecture"].upper())
        assert "pinned by OPENBLAS_CORETYPE" in run("info").stdout
        monkeypatch.delenv("OPENBLAS_CORETYPE")
        assert "chosen by the CPU" in run("info").stdout


# -- data ------------------------------------------------------------------------------------------
def test_data_sets_are_listed_and_described():
    assert as_json("data", "list") == available()
    assert all(name in run("data", "list").stdout for name in available())
    facts = as_json("data", "info", "digits")
    assert (facts["training_samples"], facts["test_samples"], facts["shape"]) == (
        1500, 297, [8, 8, 1]
    )  # fmt: skip
    assert sum(facts["classes"].values()) == 1500
    assert facts["recipe"]["layers"] == [128, 64]
    text = run("data", "info", "digits").stdout
    assert "1500 training, 297 test" in text
    assert "--backward-weight 0.3" in text
    assert "no such folder" in fails(3, "data", "info", "mnist", "--data-dir", "absent")


def test_what_data_info_says_of_scaling_and_of_many_classes():
    x = np.random.default_rng(0).integers(0, 256, (200, 4, 5, 3), np.uint8)
    np.savez("d.npz", x_train=x, y_train=np.arange(200) % 100, x_test=x[:9], y_test=np.arange(9))
    asked = ("data", "info", "npz", "--data-dir", "d.npz")
    kind, *values = as_json(*asked)["scaling"].values()
    assert kind == "channel"
    assert np.allclose(values, [x.mean(axis=(0, 1, 2)), x.std(axis=(0, 1, 2))])
    text = run(*asked).stdout
    assert "by channel: mean " in text
    assert "19: 2  and 80 more" in text
    assert as_json(*asked, "--scaling", "unit")["scaling"] == {"kind": "unit"}
    assert "pixels to [0, 1]" in run(*asked, "--scaling", "unit").stdout


@pytest.mark.parametrize(
    "args", [["train", "--help"], ["data", "list", "--json"], ["verify", "--list"]]
)
def test_streams_in_a_code_page(args):
    """What it lacks is escaped; JSON stays JSON."""
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    result = python("-m", "nembp", *args, env=env, text=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode("cp1252")
    if "--json" in args:
        assert json.loads(result.stdout.decode("cp1252")) == available()


def test_an_interruption_while_the_command_is_imported_is_one_line():
    code = (
        "import sys\nfrom nembp_cli.entry import main\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\nmain()\n"
    )
    result = python("-c", code)
    assert (result.returncode, result.stderr) == (130, "nembp: error: interrupted\n")


# -- training: output ----------------------------------------------------------------------------------------
def test_json_is_one_object_on_stdout_and_all_else_on_stderr(tmp_path):
    result = works("train", *SHORT, "--json")
    assert result.stdout.count("\n") == 1
    told = json.loads(result.stdout)
    folder = Path(told["run"])
    assert folder.parent == tmp_path / "runs"
    assert re.fullmatch(r"\d{8}-\d{6}-digits-seed0", folder.name)
    assert told == summary(folder)
    plan, first, second = result.stderr.splitlines()
    assert "64-16-10 relu" in plan
    columns = "1/2 forward nll .* accuracy .* backward nll .* centroid error .* samples/s .* left"
    assert re.fullmatch("epoch " + columns.replace(" ", " +"), first)
    assert "kept" not in first
    assert second.startswith("epoch 2/2 ")


def test_the_result_ends_with_the_run_and_flags_without_effect_are_noted():
    noise = ("--noise", "nem", "--noise-target", "both", "--noise-std", "0.3")
    result = run("train", *SHORT, *noise, "--out", "a")
    last = "forward kept .* forward gain .* backward kept .* backward gain"
    assert re.search(last, result.stderr.splitlines()[-1])
    first, second, *_, run_, picture = map(str.split, result.stdout.splitlines())
    assert (run_, picture) == (["run", "a"], ["picture", "a/backward.png"])
    assert (first[:2], second[:3]) == (["forward", "accuracy"], ["backward", "centroid", "error"])
    assert run("train", *SHORT, "--quiet").stderr == ""
    result = run("train", *SHORT, *noise[2:], "--out", "b")
    for flag in ("--noise-std", "--noise-target"):
        assert f"{flag}: without effect on the training, since --noise is none" in result.stderr
    # those of a file are not: it is complete
    assert "without effect" not in run("train", "--config", "b/config.toml", "--out", "c").stderr


def test_a_score_that_is_not_defined_is_null(tmp_path):
    """Classes of the same mean 0 have no relative centroid error."""
    x, y = np.array([[1.0], [-1.0], [1.0], [-1.0]] * 3), np.array([0, 0, 1, 1] * 3)
    np.savez("d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    np.savez("r.npz", x_train=x, x_test=x[:1], y_train=x, y_test=x[:1])
    labels, numbers = (
        json.loads(run("train", "--dataset", "npz", "--data-dir", name, *SHORT, "--json").stdout)
        for name in ("d.npz", "r.npz")
    )
    assert labels["backward/centroid_error"] is None
    for key in ("forward/r2", "forward/accuracy", "picture"):
        assert numbers[key] is None


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_state_is_shown_in_place_on_a_terminal(tmp_path):
    import pty

    code = (
        "from nembp_cli.output import status\n"
        "with status() as tell:\n    tell('one of two', stays=True), tell('two of \x1b two' + 'o' * 999)\n"
        "print('done')\n"
    )
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "30"}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, env=env, check=True).stdout
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    lines = ["", "one of two\r\n", r"two of \x1b two".ljust(29, "o"), ""]
    assert shown == "\r\x1b[K".join(lines)
    assert out == b"done\n"


# -- where options come from -----------------------------------------------------------------------
def test_flags_beat_environment_beats_file_beats_recipe():
    Path("my.toml").write_text(
        'epochs = 1\nlayers = "9"\nbatch-size = 50\nseed = 3\nout = "from-file"\nquiet = true\n'
        'device = "cpu"\n'
    )
    env = {"NEMBP_TRAIN_EPOCHS": "2", "NEMBP_TRAIN_LAYERS": "8", "NEMBP_TRAIN_QUIET": "1"}
    assert run("train", "--config", "my.toml", "--layers", "7", env=env).stderr == ""
    config = from_toml("from-file/config.toml")
    assert config.layers == (7,)  # flag
    assert config.epochs == 2  # environment
    assert (config.batch_size, config.seed) == (50, 3)  # file
    assert config.backward_weight == 0.3  # recipe
    run("train", "--out", "b", env={**env, "NEMBP_TRAIN_CONFIG": "my.toml"})
    assert from_toml("b/config.toml").layers == (8,)


def test_variables_of_flags_are_taken_and_those_of_other_commands_left():
    env = {"NEMBP_TRAIN_JSON": "1", "NEMBP_TRAIN_EPOCHS": "1", "NEMBP_GAN_KIND": "minimax"}
    assert json.loads(run("train", "--layers", "4", env=env).stdout)["status"] == "finished"


# -- devices, ends ---------------------------------------------------------------------------------
@pytest.mark.parametrize("there", [True, False])
def test_without_a_gpu(monkeypatch, there):
    """A GPU that is left unused is news, none is not."""
    monkeypatch.setitem(sys.modules, "cupy", None)  # as where it is not installed
    monkeypatch.setattr("nembp.runs.run.gpu_seems_present", lambda: there)
    result = works("train", "--layers", "8", "--epochs", "1", "--out", "a")
    assert ("nembp: computing on the CPU: device 'gpu' needs CuPy" in result.stderr) is there
    assert from_toml("a/config.toml").device == "cpu"


def test_divergence_is_said_and_its_summary_printed():
    wild = ["--optimizer", "sgd", "--learning-rate", "1e6"]
    result = run("train", *SHORT, *wild, "--out", "a", "--json", "--quiet")
    assert result.exit_code == 5
    assert json.loads(result.stdout)["status"] == "diverged"
    assert summary("a")["epochs"] == len(rows("a"))
    assert math.isfinite(summary("a")["forward/nll"])
    line = (
        r"nembp: error: training diverged in epoch 1.*Lower the learning rate.*a/model\.npz holds"
    )
    assert re.fullmatch(line + " the last good model[^\n]*\n", result.stderr)
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
        "import os, signal\nfrom nembp_cli.output import terminate_as_interrupt\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with terminate_as_interrupt():\n    os.kill(os.getpid(), signal.SIGHUP)\n"
        "assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- usage -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "'trian'"),
        ("evaluate", "Missing argument 'RUN'"),
        ("train --epoch 3", "--epoch.*see `nembp train --help`"),
        ("train --dataset bad.csv", "expected one of digits, mnist.*; did you mean "
         "--dataset csv --data-dir bad.csv?"),
        ("train --dataset mnist", "nembp data fetch mnist"),
        ("train --layers 512,0", "'--layers': it has '0' as layer 2: only a padding may be 0"),
        ("train --layers 16,conv8x4", "layer 2 `conv8x4`: conv reads an image, but layer"),
        ("train --layers 16bn --batch-size 1", "learns nothing from batches of one"),
        ("train --scaling channel --backward bernoulli", "use --scaling unit"),
        ("train --image-size 8x8", "image_size is for the data sets images, not for 'digits'"),
        ("train --augment crops8", "samples have shape (8, 8, 1); crop by less than 8"),
        ("train --augment flips --dataset npz --data-dir d.npz", "needs images of shape (height, "),
        ("train --epochs 0", "'--epochs': it must be a whole number ≥ 1, got 0"),
        ("train --learning-rate fast", "it must be a number > 0, got 'fast'"),
        ("train --noise some", "'some' is not one of 'none', 'nem'"),
        ("train --backward none --noise nem --noise-target both", "train both"),
        ("train --patience 2 --validation-fraction 0", "--validation-fraction above 0"),
        ("train --limit 20 --validation-fraction 0.9 --out new/run", "leaves 2 of 20 samples to train on"),
        ("train --noise nem --noise-place hidden --layers ''", "needs a hidden layer"),
        ("train --noise nem --noise-place hidden,last-hidden", "name one of the two"),
        ("train --noise nem --noise-place input --noise-screening component", "whole"),
        ("train --config absent.toml", "absent.toml: cannot be read"),
        ("train --config my.toml", "my.toml: force must be true or false"),
        ("NEMBP_TRAIN_LAYERS=5,-1 train", "'-1' as layer 2.*(from NEMBP_TRAIN_LAYERS)"),
        *((f"{wrong}=2 train", f"{wrong} sets nothing; did you mean NEMBP_TRAIN_EPOCHS?")
          for wrong in ("NEMBP_TRAIN_EPOCH", "NEMBP_EPOCHS", "NEMBP_TRIAN_EPOCHS")),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_leaves_nothing(line, message):
    np.savez("d.npz", x=np.eye(9), y=np.arange(9) % 2)
    Path("my.toml").write_text("force = 'yes'")
    words = shlex.split(line)
    env = dict(word.split("=") for word in words if word.startswith("NEMBP"))
    said = fails(2, *words[len(env) :], env=env)
    assert all(part in said for part in message.split(".*"))
    assert sorted(os.listdir()) == ["d.npz", "my.toml"]


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
