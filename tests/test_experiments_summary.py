"""What rows say: effects by hand, divergence, verdicts, tables, figures, and what is committed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from experiments_cases import COMPARISONS, row, tiny
from PIL import Image

from nembp.experiments import Arm, Comparison, Metric, available, read_experiment, summarize
from nembp.experiments.figures import draw
from nembp.experiments.summary import Experiment, claim_rows, differences, markdown

COMMITTED = Path(__file__).parent.parent / "data" / "experiments"
NONE, NEM = ([2.0, 1.0], [4.0, 2.0], [1.0, 1.0]), ([1.0, 0.75], [1.0, 1.0], [0.5, 1.0])
# mean over 2 epochs of ln(none / nem)
LOGS = [math.log(2.0 / 0.75) / 2, math.log(8.0) / 2, math.log(2.0) / 2]
TEN = tuple([1.0, 1.0 + seed / 100] for seed in range(10))


def times(factor):
    return tuple([factor * a, factor * b * (1 + s / 999)] for s, (a, b) in enumerate(TEN))


def made(*, none=NONE, nem=NEM, folder=Path("nowhere"), more=(), **changes):
    """Return an experiment with these curves by seed, each arm tuned to twice its rate."""
    rows = [
        row(arm, 1000, [nll], rate=rate, phase="tune")
        for arm in ("none", "nem")
        for rate, nll in ((0.1, 1.0), (0.2, 0.5))
    ]
    for arm, curves in (("none", none), ("nem", nem)):
        for seed, curve in enumerate(curves):
            rows += [row(arm, seed, curve, rate=rate) for rate in (0.1, 0.2)]
    protocol = tiny(**({"seeds": len(none)} | changes))
    return Experiment(folder, protocol, [*rows, *more], quick=False)


def verdicts(experiment):
    return [item["verdict"] for item in summarize(experiment)["comparisons"]]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric("m", "train/nll", "lower", "relative cut"), 100 * (1 - math.sqrt(0.5 * 0.75))),
        (Metric("m", "train/nll", "lower", "cut of the mean"), 100 * (1 - 1.75 / 3.0)),
        (Metric("m", "train/nll", "higher", "relative rise"), 100 * math.sqrt(0.5 * 0.75) - 100),
        (Metric("m", "train/nll", "lower", "points"), 100 * (1.5 - 0.875)),
        (Metric("m", "train/nll", "higher", "difference"), 0.875 - 1.5),
        (Metric("m", "train/nll", "lower", "relative cut", epochs=1), 50.0),
    ],
)
def test_each_kind_of_effect(metric, expected):
    item = Comparison("x", "nem", "none", "m")
    changes = {"metrics": (metric, *tiny().metrics), "comparisons": (item, COMPARISONS[1])}
    found = differences(made(**changes), item)[0][0]
    assert metric.shown(found) == pytest.approx(expected)
    zero = ([0.0, 0.0],) * 3  # a cut of nothing is none
    assert differences(made(none=zero, nem=zero, **changes), item)[0] == [0.0] * 3
    turned = differences(made(**changes), Comparison("x", "none", "nem", "m"))[0][0]
    assert turned == pytest.approx(-found)


def test_pairs_that_diverged_are_counted_for_whose_sake_they_did():
    experiment = made()
    for table in experiment.rows:
        if (table["seed"], table["arm"]) in ((0, "nem"), (1, "none"), (1, "nem"), (2, "none")):
            table["status"] = "diverged"
    assert differences(experiment, COMPARISONS[0]) == ([], 2, 1)
    lost = made(nem=([math.nan, 1.0], *NEM[1:]))  # nor is a score that is not finite an effect
    assert differences(lost, COMPARISONS[0]) == (pytest.approx(LOGS[1:]), 1, 0)


def test_a_summary_says_it_all():
    experiment = made()
    summary = summarize(experiment)
    assert summary["left"] == 0
    assert summary["tuned"][1] == {
        "arm": "nem", "metric": "nll", "learning_rate": 0.2, "strength": 1.0,
        "at_an_end": "learning rate",
    }  # fmt: skip
    first, _, control = summary["comparisons"]
    expected = 100 * (1 - math.exp(-sum(LOGS) / 3))
    assert (first["mean"], first["wins"], first["pairs"]) == (pytest.approx(expected), 3, 3)
    assert (first["p"], first["p_holm"]) == (0.25, 0.5)  # of two claims
    assert control["p_holm"] == 1.0  # of one control
    assert verdicts(experiment) == ["undecided", "undecided", None]
    by_arm = {(item["arm"], item["rate"]): item for item in summary["arms"]}
    assert by_arm["none", "same"]["nll"]["mean"] == pytest.approx((1.5 + 3.0 + 1.0) / 3)
    assert by_arm["nem", "tuned by nll"]["learning_rate"] == 0.2
    _, one, other = claim_rows(summary)
    assert [one[0], other[0]] == ["noise helps (digits)", "noise helps, tuned (digits)"]
    assert one[1:4] == ("+39 %", other[3], "-")
    assert one[2].startswith("+46.5 % [+3")
    assert one[-1] == "nembp experiment run tiny"
    unfinished = replace(experiment, rows=experiment.rows[:-1])
    assert verdicts(unfinished) == [None] * 3
    assert "unfinished (1 replicates to go)" in claim_rows(summarize(unfinished))[1]


def test_a_wrong_sign_turns_the_verdict():
    both = tuple(replace(item, claim="noise helps") for item in COMPARISONS[:2])
    for factor, expected in ((0.4, "reproduced"), (2.5, "reversed")):
        summary = summarize(made(none=TEN, nem=times(factor), comparisons=both))
        assert [item["verdict"] for item in summary["comparisons"]] == [expected] * 2
        assert summary["comparisons"][0]["p_holm"] == pytest.approx(2 * 2 / 1024)
        (_, only) = claim_rows(summary)  # a claim at both settings is one row
        assert only[2] == only[3] != "-"
        assert only[4] == expected
    summary["comparisons"][1]["verdict"] = "undecided"
    assert claim_rows(summary)[1][4] == "reversed; tuned: undecided"


@pytest.mark.parametrize(
    ("here", "there", "effect", "expected"),
    [
        (0.5, 0.9, 0.9 / 0.5, "reproduced"),
        (0.5, 99.0, 1 / 0.5, "reproduced"),  # harm there is no benefit here
        (1.5, 99.0, 1 / 1.5, "not reproduced"),
        (1.0, 99.0, 1.0, "not reproduced"),
        (0.9, 0.5, 0.5 / 0.9, "reversed"),
        (1.5, 0.5, 0.5 / 1.5, "reversed"),
    ],
)
def test_harm_elsewhere_is_no_benefit_here(here, there, effect, expected):
    item = Comparison("x", "nem", "none", "nll", claim="more here", minus=("other", "none"))
    arms = (*tiny().arms, Arm("other", {"noise": "blind"}))
    more = [row("other", seed, curve) for seed, curve in enumerate(times(there))]
    changes = {"arms": arms, "comparisons": (item, COMPARISONS[1])}
    experiment = made(none=TEN, nem=times(here), more=more, **changes)
    assert np.mean(differences(experiment, item)[0]) == pytest.approx(math.log(effect), abs=0.01)
    assert verdicts(experiment)[0] == expected


@pytest.mark.parametrize("nem", [NEM, (([math.nan] * 2),) * 3], ids=["cut", "lost"])
def test_figures_are_drawn(tmp_path, nem):
    pytest.importorskip("matplotlib")
    experiment = made(folder=tmp_path, nem=nem)
    files = draw(experiment, summarize(experiment))
    assert [file.name for file in files] == ["curves.png", "effects.png"]
    for file in files:
        with Image.open(file) as image:
            assert len(image.convert("RGB").getcolors(1 << 24)) > 8


# -- what is committed -----------------------------------------------------------------------------
@pytest.mark.parametrize("name", available())
def test_committed_results_are_complete_and_what_their_rows_say(name):
    found = read_experiment(COMMITTED, name)
    assert found.protocol.seeds >= 10
    summary = summarize(found)
    assert summary["left"] == 0
    assert summary == json.loads((COMMITTED / name / "summary.json").read_text())
    assert all(item["verdict"] for item in summary["comparisons"] if item["claim"])


def test_the_table_of_claims_is_that_of_the_summaries():
    rows = []
    for name in available():
        heading, *found = claim_rows(json.loads((COMMITTED / name / "summary.json").read_text()))
        rows += found
    table = markdown([heading, *rows])
    assert (COMMITTED / "CLAIMS.md").read_text(encoding="utf-8").endswith(f"\n\n{table}\n"), (
        "the table in data/experiments/CLAIMS.md is not what `nembp experiment show --markdown "
        "--out data/experiments` prints; paste its output there"
    )
    assert len(rows) == 208
    assert {path.parent.name for path in COMMITTED.glob("*/protocol.json")} == set(available())
