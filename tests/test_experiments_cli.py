"""``nembp experiment``: output, ends, and every mistake a user makes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from command_line import fails, run

NAME = "output-noise-digits"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Return a folder with a run of --quick, and what the run printed."""
    out = tmp_path_factory.mktemp("quick")
    return out, run("experiment", "run", NAME, "--quick", "--jobs", 1, "--out", out, "--json")


def test_list_names_every_experiment():
    assert NAME in run("experiment", "list").stdout
    table = json.loads(run("experiment", "list", "--json").stdout)["experiments"]
    found = {row["name"]: row for row in table}
    assert found["output-noise"]["datasets"] == ["mnist"]
    assert found[NAME]["replicates"] > 100
    assert found[NAME]["claims"]


def test_run_leaves_rows_summary_and_figures_and_show_works_it_out_anew(quick):
    out, result = quick
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    summary, folder = json.loads(result.stdout), out / f"{NAME}-quick"
    assert summary == json.loads((folder / "summary.json").read_text())
    assert (summary["name"], summary["quick"], summary["left"]) == (NAME, True, 0)
    count = len((folder / "rows.jsonl").read_text().splitlines())
    assert f"{NAME}: {count} of {count} replicates" in result.stderr

    def show(*args):
        return run("experiment", "show", "--quick", "--out", out, *args)

    shown = show(NAME, "--json")
    assert json.loads(shown.stdout)["experiments"] == [summary]
    assert "without a seal" not in shown.stderr
    text = show().stdout
    assert text.splitlines()[0].split()[:2] == ["claim", "published"]
    assert "none: a quick look" in text
    table = show("--markdown").stdout
    assert table.splitlines()[1].startswith("| --- |")
    assert f"`nembp experiment run {NAME} --quick`" in table
    details = show(NAME, "--details").stdout
    for word in ("blind", "drift", "learning rate", "noise times", "tuned by training nll"):
        assert word in details


def test_a_run_is_resumed_and_not_written_over(quick):
    out, result = quick
    args = ("experiment", "run", NAME, "--quick", "--jobs", 1, "--out", out)
    assert "--resume" in fails(6, *args)
    assert json.loads(run(*args, "--resume", "--json").stdout) == json.loads(result.stdout)


@pytest.mark.parametrize(
    ("code", "args", "says"),
    [
        (2, ["run", "output-noize"], "did you mean output-noise"),
        (2, ["run", NAME, "--seeds", 1], "seeds must be at least 2, since"),
        (2, ["run", NAME, "--seeds", 10**12], "used to tune and to report"),
        (2, ["run", "output-noise"], "reads mnist; say where it lies: --data-dir mnist=FOLDER"),
        (2, ["run", "output-noise", "--data-dir", "mnist=gone"], "no such folder for mnist"),
        (2, ["run", "output-noise", "--data-dir", "gone"], "'gone' is not NAME=FOLDER"),
        (3, ["run", "output-noise", "--data-dir", "mnist=."], "mnist"),
        (2, ["run", NAME, "--jobs", 10**12], "a whole number ≥ 1 and ≤ 1024, got"),
        (3, ["show"], "no experiment lies there"),
        (3, ["show", NAME], "no such file"),
        (2, ["show", "nothing-like-it"], "no experiment is called"),
        (2, ["search", "mnsit"], "no search is called 'mnsit'; there is mnist"),
        (2, ["search", "mnist"], "mnist reads mnist; say where it lies: --data-dir mnist=FOLDER"),
        (3, ["search", "mnist", "--show"], "no search lies there"),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line_and_leave_nothing(tmp_path, code, args, says):
    assert says in fails(code, "experiment", *args)
    assert not list(tmp_path.iterdir())


def test_help_is_instant():
    heavy = "{'joblib', 'scipy', 'matplotlib'} & set(sys.modules)"
    code = f"import sys, nembp_cli.experiment, nembp.experiments; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)
