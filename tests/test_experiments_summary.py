"""What rows say: effects, statistics, verdicts, tables, figures, and what is committed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from experiments_cases import COMPARISONS, row, tiny
from PIL import Image

from nembp.experiments import Arm, Comparison, Metric, Rule, available, read_experiment, summarize
from nembp.experiments import statistics as of_pairs
from nembp.experiments.figures import draw
from nembp.experiments.statistics import Estimate, bca_interval, holm, sign_flip_test, verdict
from nembp.experiments.summary import Experiment, claim_rows, differences, markdown

COMMITTED = Path(__file__).parent.parent / "data" / "experiments"
NONE, NEM = ([2.0, 1.0], [4.0, 2.0], [1.0, 1.0]), ([1.0, 0.75], [1.0, 1.0], [0.5, 1.0])
# mean over 2 epochs of ln(none / nem)
LOGS = [math.log(2.0 / 0.75) / 2, math.log(8.0) / 2, math.log(2.0) / 2]
TEN = tuple([1.0, 1.0 + seed / 100] for seed in range(10))
RULE = Rule()
PLAIN = Comparison("c", "nem", "none", "nll", claim="it helps", margin=1.0)
CLAIM, NO_WORSE = replace(PLAIN, published=39.0), replace(PLAIN, within=0.5)


# -- statistics, against SciPy and by hand ---------------------------------------------------------
def test_sign_flips_are_scipys_permutation_test():
    d = np.random.default_rng(1).normal(0.4, 1.0, 9)
    theirs = scipy.stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_test(d) == pytest.approx(theirs.pvalue, abs=1e-12)
    assert sign_flip_test(np.full(10, 0.1)) == 2 / 1024
    assert sign_flip_test(np.zeros(5)) == sign_flip_test(np.empty(0)) == 1.0
    many = np.random.default_rng(2).normal(0.4, 1.0, 24)  # tested by sampled signs
    assert sign_flip_test(many) == pytest.approx(scipy.stats.ttest_1samp(many, 0).pvalue, abs=0.01)
    assert sign_flip_test(np.ones(30)) == 1e-5


@pytest.mark.parametrize("seed", range(2))
def test_the_interval_is_scipys_bca(seed):
    d = np.random.default_rng(seed).exponential(1.0, 12)
    theirs = scipy.stats.bootstrap(
        (d,), np.mean, n_resamples=40_000, method="BCa", rng=np.random.default_rng(5)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert bca_interval(d) == pytest.approx((theirs.low, theirs.high), abs=0.04 * width)


def test_intervals_of_little_data():
    assert bca_interval(np.full(10, 2.5)) == (2.5, 2.5)
    assert bca_interval(np.array([1.0])) == (-math.inf, math.inf)
    assert all(map(math.isnan, bca_interval(np.empty(0))))
    low, high = bca_interval(np.array([1.0, 2.0]))
    assert 1.0 <= low <= high <= 2.0


def test_holm_and_estimates_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []
    found = of_pairs.estimate([1.0, -2.0, 0.0, 3.0], diverged=2, without=1)
    assert (found.mean, found.wins, found.n) == (0.5, 2, 4)
    assert (found.diverged, found.baseline_diverged) == (2, 1)


@pytest.mark.parametrize(
    ("mean", "low", "high", "p", "with_figure", "without"),
    [
        (45.0, 40.0, 50.0, 0.002, "reproduced", "reproduced"),
        (-45.0, -50.0, -40.0, 0.002, "reversed", "reversed"),  # the sign turned: the verdict too
        (20.0, 10.0, 42.0, 0.002, "reproduced", "reproduced"),  # half of 39 is 19.5
        (19.0, 10.0, 42.0, 0.002, "undecided", "reproduced"),  # 39 is neither reached nor excluded
        (5.0, 3.0, 7.0, 0.002, "not reproduced", "reproduced"),
        (45.0, 40.0, 50.0, 0.06, "undecided", "undecided"),  # the corrected test says no
        (0.1, -0.5, 0.6, 0.6, "not reproduced", "not reproduced"),  # within the margin
        (-0.5, -0.8, -0.2, 0.002, "not reproduced", "not reproduced"),  # sure, and nothing
        (-3.0, -9.0, 3.0, 0.4, "not reproduced", "undecided"),
        (10.0, -20.0, 50.0, 0.4, "undecided", "undecided"),
        (-3.0, -6.0, -0.1, 0.2, "not reproduced", "not reproduced"),
    ],
)
def test_the_rule(mean, low, high, p, with_figure, without):
    found = Estimate(mean, low, high, n=10)
    assert verdict(found, p, CLAIM, RULE) == with_figure
    assert verdict(found, p, PLAIN, RULE) == without


@pytest.mark.parametrize(
    ("claim", "interval", "pairs", "expected"),
    [
        (NO_WORSE, (-0.4, 0.1), (10, 0, 0), "reproduced"),
        (NO_WORSE, (0.0, 0.0), (10, 0, 0), "reproduced"),  # both arms alike
        (NO_WORSE, (0.2, 0.4), (10, 0, 0), "reproduced"),  # better is no worse
        (NO_WORSE, (-0.6, 0.1), (10, 0, 0), "undecided"),
        (NO_WORSE, (-0.9, -0.6), (10, 0, 0), "reversed"),
        (NO_WORSE, (-0.4, 0.1), (9, 1, 0), "undecided"),
        (PLAIN, (44.0, 46.0), (9, 1, 0), "undecided"),  # the arm diverged
        (PLAIN, (44.0, 46.0), (9, 0, 1), "reproduced"),  # its baseline did
        (PLAIN, (44.0, 46.0), (5, 5, 0), "not reproduced"),
        (PLAIN, (44.0, 46.0), (0, 10, 0), "not reproduced"),
        (PLAIN, (-46.0, -44.0), (9, 1, 0), "reversed"),
        (PLAIN, (-46.0, -44.0), (9, 0, 1), "not reproduced"),
        (PLAIN, (44.0, 46.0), (1, 0, 9), "undecided"),
    ],
)
def test_no_worse_and_divergence(claim, interval, pairs, expected):
    found = Estimate(sum(interval) / 2, *interval, 0.004, 0, *pairs)
    assert verdict(found, 0.004, claim, RULE) == expected


# -- an experiment ---------------------------------------------------------------------------------
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
