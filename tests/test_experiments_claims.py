"""The committed results: complete, judged as their rows say, in the README, and repeatable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run
from nembp.experiments.replicate import replicate
from nembp.experiments.tasks import Task

from nembp.experiments import available, get, read_experiment, summarize
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


def test_a_committed_replicate_repeats():
    """Bit for bit within one process; another machine's rows have the same keys.

    Another BLAS rounds otherwise, and a training of ten epochs multiplies the difference.
    """
    found = read_experiment(COMMITTED, SMALL)
    row = next(row for row in found.rows if (row["phase"], row["arm"]) == ("report", "nem"))
    config = Task.of(row).config(found.protocol, {}, "cpu", 1)
    with threads(1):
        first, again = replicate(config), replicate(config)
    assert first["status"] == row["status"] == "finished"
    assert first["curves"] == again["curves"]
    assert first["scores"] == again["scores"]
    assert set(row["curves"]) == set(first["curves"])
    assert set(row["scores"]) == set(first["scores"])
