"""The committed results: complete, judged as their rows say, in the README, and repeatable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run

from nembp.experiments import available, get, read_experiment, summarize
from nembp.experiments.replicate import replicate
from nembp.experiments.tasks import Task
from nembp.threads import threads

ROOT = Path(__file__).parent.parent
COMMITTED = ROOT / "data" / "experiments"
SMALL = "output-noise-digits"  # needs no data set, and a tenth of a second a replicate
NAMES = sorted(path.parent.name for path in COMMITTED.glob("*/protocol.json"))


def test_whatever_is_declared_has_been_run():
    assert sorted(available()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_committed_results_are_complete_and_what_their_rows_say(name):
    found = read_experiment(COMMITTED, name)
    assert found.protocol.seeds >= 10
    assert found.protocol.digest == get(name).digest
    summary = summarize(found)
    assert summary["left"] == 0
    assert summary == json.loads((COMMITTED / name / "summary.json").read_text())
    assert all(item["verdict"] for item in summary["comparisons"] if item["claim"])


def test_the_readme_has_the_table_that_show_renders():
    shown = run("experiment", "show", "--out", COMMITTED, "--markdown")
    assert shown.exit_code == 0, shown.output
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert shown.stdout.strip() in readme, (
        "the table in README.md is not what `nembp experiment show --out data/experiments "
        "--markdown` prints; paste its output there"
    )


def test_the_table_says_the_same_as_text_and_json():
    text = run("experiment", "show", "--out", COMMITTED)
    table = json.loads(run("experiment", "show", "--out", COMMITTED, "--json").stdout)
    claims = {
        (summary["name"], item["claim"])
        for summary in table["experiments"]
        for item in summary["comparisons"]
        if item["claim"]
    }
    assert len(text.stdout.splitlines()) == 1 + len(claims)
    for name in NAMES:
        assert f"nembp experiment run {name}" in text.stdout


@pytest.mark.parametrize("phase", ["tune", "report"])
def test_a_committed_replicate_repeats(phase):
    """Bit for bit where machine and BLAS are those of the run; here whatever they are.

    Float products differ in their last bits between builds of BLAS, processors, numbers of threads
    and versions of nembp that sum in another order; ten epochs make at most a thousandth of it.
    """
    found = read_experiment(COMMITTED, SMALL)
    (first, *_), (last, *_) = (
        [row for row in found.rows if (row["phase"], row["arm"]) == (phase, arm)]
        for arm in ("none", "nem")
    )
    for row in (first, last):
        count = row["threads"]
        with threads(count):
            again = replicate(Task.of(row).config(found.protocol, {}, "cpu", count))
        assert again["status"] == row["status"] == "finished"
        for key, values in row["curves"].items():
            assert again["curves"][key] == pytest.approx(values, rel=1e-3, abs=2e-3), key
        for key, value in row["scores"].items():
            assert again["scores"][key] == pytest.approx(value, rel=1e-2, abs=0.01), key
