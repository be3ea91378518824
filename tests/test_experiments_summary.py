"""What rows say: effects by hand, divergence, tuned rates at the end of a grid, tables, figures."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from experiments_cases import COMPARISONS, row, tiny
from PIL import Image

from nembp.experiments import Arm, Comparison, Metric, Tuning, available, read_experiment, summarize
from nembp.experiments.figures import draw
from nembp.experiments.running import replicate
from nembp.experiments.summary import Experiment, claim_rows, comparison_rows, differences, markdown
from nembp.experiments.tuning import Task

COMMITTED = Path(__file__).parent.parent / "data" / "experiments"
NONE, NEM = ([2.0, 1.0], [4.0, 2.0], [1.0, 1.0]), ([1.0, 0.75], [1.0, 1.0], [0.5, 1.0])
# mean over 2 epochs of ln(none / nem)
LOGS = [math.log(2.0 / 0.75) / 2, math.log(8.0) / 2, math.log(2.0) / 2]


def made(*, none=NONE, nem=NEM, folder=Path("nowhere"), protocol=None, tune=True):
    """Return an experiment with these curves by seed, each arm tuned to twice its rate."""
    rows = []
    if tune:
        for arm in ("none", "nem"):
            rows += [row(arm, 1000, [nll], rate=rate, phase="tune")
                     for rate, nll in ((0.1, 1.0), (0.2, 0.5))]  # fmt: skip
    for rate in (0.1, 0.2):
        for seed, (a, b) in enumerate(zip(none, nem, strict=True)):
            rows += [row("none", seed, a, rate=rate), row("nem", seed, b, rate=rate)]
    return Experiment(folder, protocol or tiny(), rows, quick=False)


def test_effects_by_hand():
    effects, diverged, without = differences(made(), COMPARISONS[0])
    assert effects == pytest.approx(LOGS)
    assert (diverged, without) == (0, 0)
    turned = Comparison("x", "none", "nem", "nll")
    assert differences(made(), turned)[0] == pytest.approx([-effect for effect in LOGS])
    minus = Comparison("x", "nem", "none", "nll", minus=("none", "nem"))
    protocol = tiny(comparisons=(minus, COMPARISONS[1]))
    found, _, _ = differences(made(protocol=protocol), minus)
    assert found == pytest.approx(LOGS)  # there it is harm, which is no benefit here


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric("m", "train/nll", "lower", "relative cut"), 100 * (1 - math.sqrt(0.5 * 0.75))),
        (Metric("m", "train/nll", "lower", "cut of the mean"), 100 * (1 - 1.75 / 3.0)),
        (Metric("m", "train/nll", "higher", "relative rise"), 100 * math.sqrt(0.5 * 0.75) - 100),
        (Metric("m", "train/nll", "lower", "points"), 100 * (1.5 - 0.875)),
        (Metric("m", "train/nll", "lower", "difference"), 1.5 - 0.875),
        (Metric("m", "train/nll", "higher", "difference"), 0.875 - 1.5),
        (Metric("m", "train/nll", "lower", "relative cut", epochs=1), 50.0),
    ],
)
def test_each_kind_of_effect(metric, expected):
    item = Comparison("x", "nem", "none", "m")
    protocol = tiny(metrics=(metric, *tiny().metrics), comparisons=(item, COMPARISONS[1]))
    found = differences(made(protocol=protocol), item)[0][0]
    assert metric.shown(found) == pytest.approx(expected)


def test_arms_that_do_equally_well_are_as_likely_to_win_as_to_lose():
    """Noise of a factor of 3 either way: over 2000 seeds the mean log is within 5 standard errors
    of 0 (false alarm below 1e-6); the mean of 1 - a / b would be about -80 %, a 'reversal'.
    """
    rng = np.random.default_rng(5)
    a, b = np.exp(rng.normal(0.0, math.log(3.0), (2, 2000, 1)))
    tuning = Tuning("nll", (1.0, 2.0), (5000,), extend=0, refine=0)
    protocol = tiny(seeds=2000, tuning=tuning)
    experiment = made(none=a.tolist(), nem=b.tolist(), protocol=protocol)
    found = np.array(differences(experiment, COMPARISONS[0])[0])
    assert len(found) == 2000
    assert abs(found.mean()) < 5 * found.std() / math.sqrt(2000)
    assert np.mean(1 - b / a) < -0.5


def test_a_cut_of_nothing_is_none():
    metric = Metric("m", "train/nll", "lower", "cut of the mean")
    item = Comparison("x", "nem", "none", "m")
    protocol = tiny(metrics=(metric, *tiny().metrics), comparisons=(item, COMPARISONS[1]))
    zero = ([0.0, 0.0],) * 3
    assert differences(made(protocol=protocol, none=zero, nem=zero), item)[0] == [0.0] * 3


def test_pairs_that_diverged_are_counted_for_whose_sake_they_did():
    experiment = made()
    for table in experiment.rows:
        if (table["seed"], table["arm"]) in ((0, "nem"), (1, "none"), (1, "nem"), (2, "none")):
            table["status"] = "diverged"
    effects, diverged, without = differences(experiment, COMPARISONS[0])
    assert (effects, diverged, without) == ([], 2, 1)


def test_a_score_that_is_not_finite_is_no_effect():
    experiment = made(nem=([math.nan, 1.0], *NEM[1:]))
    assert differences(experiment, COMPARISONS[0]) == (pytest.approx(LOGS[1:]), 1, 0)


def test_a_summary_says_it_all():
    summary = summarize(made())
    assert summary["left"] == 0
    assert summary["tuned"][1] == {
        "arm": "nem", "metric": "nll", "learning_rate": 0.2, "strength": 1.0,
        "at_an_end": "learning rate",
    }  # fmt: skip
    first = summary["comparisons"][0]
    expected = 100 * (1 - math.exp(-sum(LOGS) / 3))
    assert (first["mean"], first["wins"], first["pairs"]) == (pytest.approx(expected), 3, 3)
    assert first["p"] == 0.25
    assert first["p_holm"] == 0.5  # of two claims
    assert summary["comparisons"][2]["p_holm"] == 1.0  # of one control
    assert [item["verdict"] for item in summary["comparisons"]] == ["undecided"] * 2 + [None]
    by_arm = {(item["arm"], item["rate"]): item for item in summary["arms"]}
    assert by_arm["none", "same"]["nll"]["mean"] == pytest.approx((1.5 + 3.0 + 1.0) / 3)
    assert by_arm["none", "same"]["learning_rate"] == 0.1
    assert by_arm["nem", "tuned by nll"]["learning_rate"] == 0.2
    json.dumps(summary)


def test_a_wrong_sign_turns_the_verdict():
    protocol = tiny(seeds=10)
    low = tuple([0.4 + seed / 100, 0.5] for seed in range(10))
    high = tuple([1.0, 1.0 + seed / 100] for seed in range(10))
    good = summarize(made(none=high, nem=low, protocol=protocol))
    bad = summarize(made(none=low, nem=high, protocol=protocol))
    assert [item["verdict"] for item in good["comparisons"]] == ["reproduced"] * 2 + [None]
    assert [item["verdict"] for item in bad["comparisons"]] == ["reversed"] * 2 + [None]
    assert good["comparisons"][0]["p_holm"] == pytest.approx(2 * 2 / 1024)


def test_an_unfinished_experiment_has_no_verdict():
    experiment = made()
    experiment.rows.pop()
    summary = summarize(experiment)
    assert summary["left"] == 1
    assert [item["verdict"] for item in summary["comparisons"]] == [None] * 3
    assert "unfinished (1 replicates to go)" in claim_rows(summary)[1]


def test_harm_elsewhere_is_no_benefit_here():
    """A benefit here beside harm there is larger by itself alone; harm here is none."""
    none = ([1.0, 1.0],) * 3
    arms = (*tiny().arms, Arm("wrecked", {"noise": "blind"}), Arm("spoilt", {"noise": "anti"}))

    def found(arm, other):
        item = Comparison("x", arm, "none", "nll", claim="more here", minus=(other, "none"))
        experiment = made(none=none, nem=([0.9, 0.9],) * 3, protocol=tiny(arms=arms,
                          comparisons=(item, COMPARISONS[1])))  # fmt: skip
        for name, nll in (("wrecked", 10.0), ("spoilt", 1.5)):
            experiment.rows.extend(row(name, seed, [nll, nll]) for seed in range(3))
        return differences(experiment, item)[0]

    assert found("nem", "wrecked") == pytest.approx([-math.log(0.9)] * 3)
    assert found("spoilt", "wrecked") == pytest.approx([-math.log(1.5)] * 3)
    assert found("wrecked", "nem") == pytest.approx([math.log(0.9) - math.log(10)] * 3)
    assert found("nem", "nem") == pytest.approx([0.0] * 3)


def test_more_harm_there_neither_reproduces_nor_reverses_a_claim():
    def judged(here, there, n=10):
        none = tuple([1.0, 1.0 + seed / 100] for seed in range(n))
        item = Comparison("x", "nem", "none", "nll", claim="more here", minus=("other", "none"))
        arms = (*tiny().arms, Arm("other", {"noise": "blind"}))
        protocol = tiny(arms=arms, comparisons=(item, COMPARISONS[1]), seeds=n)
        nem = tuple([here * a, here * b * (1 + s / 999)] for s, (a, b) in enumerate(none))
        experiment = made(none=none, nem=nem, protocol=protocol)
        for seed, (a, b) in enumerate(none):
            experiment.rows.append(row("other", seed, [there * a, there * b]))
        return summarize(experiment)["comparisons"][0]["verdict"]

    assert judged(0.5, 0.9) == "reproduced"
    assert judged(0.5, 99.0) == "reproduced"
    assert judged(1.5, 99.0) == "not reproduced"
    assert judged(1.0, 99.0) == "not reproduced"
    assert judged(0.9, 0.5) == "reversed"
    assert judged(1.5, 0.5) == "reversed"


@pytest.mark.parametrize(("reach", "expected"), [(0.6, "reproduced"), (0.4, "not reproduced")])
def test_better_than_something_worse_is_not_good(reach, expected):
    item = Comparison("x", "nem", "none", "nll", claim="as good as that", reach=reach)
    protocol = tiny(comparisons=(item, COMPARISONS[1]), seeds=10)
    experiment = made(
        none=tuple([9.0, 9.0 + seed / 100] for seed in range(10)),
        nem=tuple([0.5, 0.5 + seed / 100] for seed in range(10)),
        protocol=protocol,
    )
    summary = summarize(experiment)
    first = summary["comparisons"][0]
    assert (first["verdict"], first["own"]) == (expected, pytest.approx(0.5225))
    assert claim_rows(summary)[1][2].endswith(f"]; 0.522 of {reach:g}")
    json.dumps(summary)


@pytest.mark.parametrize(("strength", "expected"), [(0.01, "not reproduced"), (1.0, "reproduced")])
def test_what_is_gained_by_next_to_no_noise_is_not_gained_by_noise(strength, expected):
    tuning = Tuning("nll", (1.0, 2.0), (1000,), extend=0, refine=0, strengths=(0.01, 1.0))
    items = tuple(replace(item, published=None) for item in COMPARISONS[:2])
    protocol = tiny(tuning=tuning, comparisons=items, seeds=10)
    rows = [row("none", 1000, [1.0], rate=rate, phase="tune") for rate in (0.1, 0.2)]
    for one in (0.01, 1.0):
        rows += [row("nem", 1000, [0.5 if one == strength else 0.9], rate=rate, phase="tune",
                     strength=one) for rate in (0.1, 0.2)]  # fmt: skip
    for seed in range(10):
        rows.append(row("none", seed, [1.0 + seed / 100]))
        rows += [row("nem", seed, [0.5], strength=one) for one in (0.01, 1.0)]
    summary = summarize(Experiment(Path("nowhere"), protocol, rows, quick=False))
    same, tuned = summary["comparisons"]
    assert (same["verdict"], tuned["verdict"]) == ("reproduced", expected)
    assert (same["tuned_away"], tuned["tuned_away"]) == (False, strength == 0.01)
    assert ("noise tuned away" in claim_rows(summary)[2][3]) == tuned["tuned_away"]
    for item in rows[4:]:  # nor is what is lost by it lost by noise
        if (item["phase"], item["arm"]) == ("report", "nem"):
            item["curves"] = {"train/nll": [2.0]}
    _, lost = summarize(Experiment(Path("nowhere"), protocol, rows, quick=False))["comparisons"]
    assert lost["verdict"] == {"reproduced": "reversed"}.get(expected, expected)


def test_the_table_has_a_row_a_claim_and_markdown_escapes():
    summary = summarize(made())
    rows = claim_rows(summary)
    assert [row[0] for row in rows[1:]] == ["noise helps (digits)", "noise helps, tuned (digits)"]
    assert rows[1][1] == "+39 %"
    assert rows[1][2].startswith("+46.5 % [+3")
    assert (rows[1][3], rows[2][2]) == ("-", "-")
    assert rows[2][3] == rows[1][2]
    assert rows[1][-1] == "nembp experiment run tiny"
    assert len(comparison_rows(summary)) == 1 + 3
    lines = markdown(rows).splitlines()
    assert lines[1] == "| " + " | ".join(["---"] * 6) + " |"
    assert lines[2].endswith("| undecided | `nembp experiment run tiny` |")


def test_a_claim_at_both_settings_is_one_row_with_both_verdicts():
    both = tuple(replace(item, claim="noise helps") for item in COMPARISONS[:2])
    low = tuple([0.4 + seed / 100, 0.5] for seed in range(10))
    high = tuple([1.0, 1.0 + seed / 100] for seed in range(10))
    experiment = made(none=high, nem=low, protocol=tiny(comparisons=both, seeds=10))
    summary = summarize(experiment)
    (_, only) = claim_rows(summary)
    assert only[2] == only[3] != "-"
    assert only[4] == "reproduced"
    summary["comparisons"][1]["verdict"] = "reversed"
    assert claim_rows(summary)[1][4] == "reproduced; tuned: reversed"


@pytest.mark.parametrize("nem", [NEM, NONE, (([math.nan] * 2),) * 3], ids=["cut", "none", "lost"])
def test_figures_are_drawn(tmp_path, nem):
    pytest.importorskip("matplotlib")
    experiment = made(folder=tmp_path, nem=nem)
    files = draw(experiment, summarize(experiment))
    assert [file.name for file in files] == ["curves.png", "effects.png"]
    for file in files:
        with Image.open(file) as image:
            image.load()
            assert len(image.convert("RGB").getcolors(1 << 24)) > 8


# -- what is committed -----------------------------------------------------------------------------
NAMES = sorted(path.parent.name for path in COMMITTED.glob("*/protocol.json"))


def test_whatever_is_declared_has_been_run():
    assert sorted(available()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_committed_results_are_complete_and_what_their_rows_say(name):
    found = read_experiment(COMMITTED, name)
    assert found.protocol.seeds >= 10
    summary = summarize(found)
    assert summary["left"] == 0
    assert summary == json.loads((COMMITTED / name / "summary.json").read_text())
    assert all(item["verdict"] for item in summary["comparisons"] if item["claim"])


def test_the_table_of_claims_is_what_show_renders():
    shown = run("experiment", "show", "--out", COMMITTED, "--markdown")
    assert shown.exit_code == 0, shown.output
    assert (COMMITTED / "CLAIMS.md").read_text(encoding="utf-8").endswith(f"\n\n{shown.stdout}"), (
        "the table in data/experiments/CLAIMS.md is not what `nembp experiment show --markdown "
        "--out data/experiments` prints; paste its output there"
    )
    assert len(shown.stdout.splitlines()) == 2 + 208


def test_a_committed_replicate_has_the_same_keys_today():
    """Another BLAS rounds otherwise, and a training of ten epochs multiplies the difference."""
    found = read_experiment(COMMITTED, "output-noise-digits")
    row = next(row for row in found.rows if (row["phase"], row["arm"]) == ("report", "nem"))
    today = replicate(Task.of(row).config(found.protocol, {}, "cpu", 1))
    assert today["status"] == row["status"] == "finished"
    for table in ("curves", "scores"):
        assert set(today[table]) == set(row[table])
