"""The command line as a whole: start-up, help, exit codes, info and data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cifar_files
import click
import pytest
from click.testing import CliRunner
from command_line import as_json, fails, run, works
from nembp_cli.main import COMMANDS, CommandGroup

import nembp
from nembp import errors
from nembp.datasets import arrays, available, cifar
from nembp.datasets.arrays import NAMES, idx_md5, read_idx
from nembp.runs import RunConfig
from nembp.runs.gan_config import GanConfig

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "mnist-sample"


def python(*args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True, **more}
    return subprocess.run([sys.executable, *args], check=False, **options)


# -- start-up and help -----------------------------------------------------------------------------
def test_help_imports_nothing_heavy_and_needs_no_home(tmp_path):
    """What makes help instant: `nembp --help` loads neither NumPy nor a subcommand."""
    code = (
        "import sys\nfrom nembp_cli.main import cli\n"
        "for command in ['', 'train', 'gan', 'sample', 'predict', 'draw noise', 'data', 'info']:\n"
        "    try: cli([*command.split(), '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "    mine = {name for name in sys.modules if name.startswith('nembp_cli.')}\n"
        "    assert command or mine == {'nembp_cli.main'}, mine\n"
        "heavy = {'numpy', 'sklearn', 'matplotlib', 'PIL', 'cupy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "none")}
    result = python("-c", code, env=env)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Usage: ") == 8


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
        for group in {option.group for option in kind.options().values()} | {"Run"}:
            assert f"\n{group}:\n" in text


def test_version_by_both_names():
    for args in (["-m", "nembp", "--version"], ["-c", "from nembp_cli.main import main; main()"]):
        result = python(*args)
        if "--version" in args:
            assert result.stdout == f"nembp {nembp.__version__}\n"
        else:
            assert result.returncode == 2
            assert "Usage: nembp" in result.stderr


def test_wrong_usage_is_one_line_with_where_to_look():
    assert "'trian'" in fails(2, "trian")
    line = fails(2, "train", "--epoch", "3")
    assert "--epoch" in line
    assert "see `nembp train --help`" in line
    assert "Missing argument 'RUN'" in fails(2, "evaluate")
    hint = "expected one of digits, mnist.*; did you mean --dataset csv --data-dir bad.csv?"
    assert re.search(hint, fails(2, "train", "--dataset", "bad.csv"))


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


MAIN = f"{sys.executable} -c 'from nembp_cli.main import main; main()'"


@pytest.mark.parametrize("gone", ["2>&-", "2>/dev/full"])
def test_a_log_that_is_gone_or_full_ends_no_training(gone, tmp_path):
    command = f"exec {MAIN} train --epochs 1 --device cpu --json --out {tmp_path / 'a'} {gone}"
    result = subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 0
    assert json.loads(result.stdout)["status"] == "finished"
    command = f"exec {MAIN} train --dataset nosuch {gone}"
    assert subprocess.run(command, shell=True, check=False).returncode == 2


def test_results_that_cannot_be_written_say_so():
    command = f"exec {MAIN} data list --json >/dev/full"
    result = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    said = "nembp: error: the output cannot be written (No space left on device)\n"
    assert (result.returncode, result.stderr) == (6, said)


# -- info ------------------------------------------------------------------------------------------
def test_info_says_what_runs(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nonesuch")
    facts = as_json("info")
    import numpy

    assert facts["nembp"] == nembp.__version__
    assert facts["packages"]["numpy"] == numpy.__version__
    assert facts["cpu"]["cores"] >= 1
    assert set(facts["gpu"]) == {"name", "reason"}
    assert facts["blas"]["threads"] >= 1
    text = run("info").stdout
    assert numpy.__version__ in text
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


def test_what_data_info_says_of_scaling(tmp_path, monkeypatch):
    cifar_files.shrink(monkeypatch)
    cifar_files.binary(tmp_path / "cifar-10-batches-bin")
    asked = ("data", "info", "cifar10", "--data-dir", tmp_path)
    pixels = cifar_files.expected(cifar._FIVE)
    facts = as_json(*asked)
    assert facts["classes"] == dict.fromkeys(cifar_files.NAMES, 15)
    assert facts["scaling"] == {
        "kind": "channel",
        "mean": pytest.approx(pixels.mean(axis=(0, 1, 2))),
        "deviation": pytest.approx(pixels.std(axis=(0, 1, 2))),
    }
    assert "by channel: mean " in run(*asked).stdout
    assert as_json(*asked, "--scaling", "unit")["scaling"] == {"kind": "unit"}
    assert "pixels to [0, 1]" in run(*asked, "--scaling", "unit").stdout
    cifar_files.hundred(tmp_path, "binary")
    text = run("data", "info", "cifar100", "--data-dir", tmp_path).stdout
    assert "class 19: 2  and 80 more" in text


@pytest.fixture
def small_mnist(monkeypatch):
    """The sample, in MNIST's place in the table of checksums; its mirror is its folder."""
    import gzip

    contents = {}
    for name in NAMES:
        path = SAMPLE / f"{name}.gz"
        size = len(gzip.decompress(path.read_bytes()))
        contents[name] = idx_md5(read_idx(path)), size
    monkeypatch.setattr(arrays, "MNIST", contents)
    return SAMPLE.as_uri()


def test_fetching_says_what_it_does(small_mnist, tmp_path):
    folder = tmp_path / "mnist"
    result = works("data", "fetch", "mnist", "--data-dir", folder, "--mirror", small_mnist)
    assert result.stdout == ""
    for name in NAMES:
        assert f"fetching {name}.gz" in result.stderr
    assert "4 files fetched" in result.stderr
    assert f"nembp train --dataset mnist --data-dir {folder}" in result.stderr
    works("data", "info", "mnist", "--data-dir", folder)
    again = run("data", "fetch", "mnist", "--data-dir", folder, "--mirror", small_mnist)
    assert "nothing to fetch" in again.stderr
    assert "nembp: fetching" not in again.stderr
    quiet = ["data", "fetch", "mnist", "--data-dir", tmp_path / "b", "--mirror", small_mnist]
    assert run(*quiet, "--quiet").output == ""


def test_fetching_that_fails_leaves_nothing(small_mnist, tmp_path):
    ask = ("data", "fetch", "mnist", "--data-dir", tmp_path / "mnist", "--mirror")
    assert "--mirror URL" in fails(3, *ask, (tmp_path / "absent").as_uri(), "--quiet")
    assert not list(tmp_path.rglob("*-ubyte*"))
    assert "http" in fails(2, *ask, "ftp://x")


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
    assert python("-m", "nembp", "--version").stdout.startswith("nembp ")
