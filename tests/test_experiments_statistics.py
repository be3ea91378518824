"""Statistics against SciPy and by hand, their false-alarm rates, and the rule of verdicts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from nembp.experiments import Comparison, Rule, statistics
from nembp.experiments.statistics import Estimate, bca_interval, holm, sign_flip_test, verdict

RULE = Rule()
PLAIN = Comparison("c", "nem", "none", "nll", claim="it helps", margin=1.0)
CLAIM, NO_WORSE = replace(PLAIN, published=39.0), replace(PLAIN, within=0.5)


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
    found = statistics.estimate([1.0, -2.0, 0.0, 3.0], diverged=2, without=1)
    assert (found.mean, found.wins, found.n) == (0.5, 2, 4)
    assert (found.diverged, found.baseline_diverged) == (2, 1)


def test_false_alarms():
    """500 experiments of 10 seeds, without effect, and worse by just as much as is allowed.

    The test's rate of p ≤ 0.05 is at most 0.05 (its exact level is 51/1024), the interval alone
    misses 0 in about 0.09, and 'no worse' is said falsely in about 0.05; a count leaves its stated
    range with probability below 1e-4 (binomial).
    """
    rng = np.random.default_rng(11)
    no_worse = replace(PLAIN, within=3.0)
    both = interval = test = said = 0
    for _ in range(500):
        d = rng.normal(0.0, 10.0, 10)
        p, (low, high), mean = sign_flip_test(d), bca_interval(d), float(d.mean())
        test += p <= 0.05
        interval += not low <= 0 <= high
        found = verdict(Estimate(mean, low, high, n=10), p, PLAIN, RULE)
        both += found in ("reproduced", "reversed")
        worse = Estimate(mean - 3, low - 3, high - 3, n=10)
        said += verdict(worse, 1.0, no_worse, RULE) == "reproduced"
    assert 0.01 < test / 500 < 0.095
    assert 0.04 < interval / 500 < 0.15
    assert 0.01 < said / 500 < 0.095
    assert both <= min(test, interval)


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
