"""Tuning: which settings each arm gets, from rows that the reported seeds never see."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from experiments_cases import ACCURACY, COMPARISONS, NLL, row, tiny

from nembp.experiments import Comparison, Metric, Tuning
from nembp.experiments.tuning import Grids, Setting, Task

NONE, NEM = ("none", "nll"), ("nem", "nll")


def tuned_by(factors=(0.5, 1.0, 2.0), seeds=(1000,), refine=0, **more):
    return tiny(tuning=Tuning("nll", factors, seeds, refine=refine, **more))


def far(value, best):
    return abs(math.log(value / best))


def settled(protocol, nll, accuracy=lambda task: 0.5):
    """Return the grids and rates by arm and strength once tuning has ended.

    Rows come in any order, and the run is killed after each of them: what is left to run must
    follow from the rows that there are.
    """
    rows, done = [], set()
    while left := [task for task in Grids(protocol, rows).tasks() if task not in done]:
        for task in reversed(left):
            scores = {"forward/accuracy": accuracy(task)}
            more = {"phase": "tune", "strength": task.strength, "scores": scores}
            rows.append(row(task.arm, task.seed, [nll(task)], rate=task.rate, **more))
            done.add(Task.of(rows[-1]))
            assert done <= set(Grids(protocol, rows).tasks())
        assert len(rows) < 1000
    rates = {}
    for task in sorted(done, key=lambda task: task.rate):
        rates.setdefault((task.arm, task.strength), {})[task.rate] = None
    return Grids(protocol, rows), {key: list(found) for key, found in rates.items()}


def test_the_best_mean_wins_and_a_rate_that_diverged_is_out():
    protocol = tuned_by((1.0, 2.0, 4.0), (1000, 1001), extend=0)
    rows = [
        row(arm, seed, [nll, nll], rate=rate, phase="tune")
        for seed, scores in ((1000, (3.0, 1.0, 0.1)), (1001, (2.0, 3.0, 0.1)))
        for rate, nll in zip((0.1, 0.2, 0.4), scores, strict=True)
        for arm in ("none", "nem")
    ]
    assert Grids(protocol, rows).tuned == {NONE: Setting(0.4), NEM: Setting(0.4)}
    rows[-1]["status"] = "diverged"
    assert Grids(protocol, rows).tuned == {NONE: Setting(0.4), NEM: Setting(0.2)}
    reported = row("nem", 1000, [0.0, 0.0], rate=0.1)
    assert Grids(protocol, [*rows, reported]).tuned[NEM] == Setting(0.2)


def test_arms_are_tuned_by_the_metric_that_they_are_compared_by():
    by_accuracy = Comparison("x", "nem", "none", "accuracy", "tuned")
    protocol = tiny(comparisons=(*COMPARISONS, by_accuracy))
    grids, _ = settled(protocol, lambda task: task.rate, lambda task: task.rate)
    assert grids.tuned == {
        (arm, metric): Setting(rate)
        for arm in ("none", "nem")
        for metric, rate in (("nll", 0.1), ("accuracy", 0.2))  # low is good, high is good
    }
    fgsm = Metric("fgsm", "robustness/fgsm:0.1", "higher", "points")  # not measured while tuning
    by_fgsm = (replace(by_accuracy, metric="fgsm"),)
    assert set(Grids(tiny(metrics=(NLL, fgsm), comparisons=by_fgsm)).tuned) == {NONE, NEM}


def test_what_is_tuned_is_what_is_compared():
    """A relative cut is the same in every epoch; a mean of the values is made by the first."""
    rows = [
        row(arm, 1000, curve, rate=rate, phase="tune")
        for arm in ("none", "nem")
        for rate, curve in ((0.1, [1.0, 0.5]), (0.2, [2.0, 0.1]))
    ]
    assert Grids(tiny(), rows).tuned[NONE].rate == 0.2  # √(2 · 0.1) < √(1 · 0.5)
    protocol = tiny(metrics=(replace(NLL, effect="difference"), ACCURACY))
    assert Grids(protocol, rows).tuned[NONE].rate == 0.1  # 2 + 0.1 > 1 + 0.5


@pytest.mark.parametrize("best", [0.1, 0.013, 1.7, 0.3])
def test_a_grid_is_extended_until_its_best_lies_inside(best):
    protocol = tuned_by(seeds=(1000, 1001))
    grids, found = settled(protocol, lambda t: far(t.rate, best) + 0.001 * (t.seed - 1000))
    rates, chosen = found["none", 1.0], grids.tuned[NONE].rate
    assert rates[0] < chosen < rates[-1]
    assert chosen == min(rates, key=lambda rate: far(rate, best))
    assert all(b / a == pytest.approx(2.0, rel=1e-4) for a, b in itertools.pairwise(rates))
    assert grids.at_an_end(*NONE) == ""
    # by no more than it takes
    assert rates[0] == 0.05 or rates[1] == chosen
    assert rates[-1] == 0.2 or rates[-2] == chosen


def test_extensions_end_and_the_end_is_named():
    protocol = tuned_by((1.0, 2.0), extend=2)
    grids, rates = settled(protocol, lambda t: t.rate if t.arm == "none" else 1 / t.rate)
    assert rates == {("none", 1.0): [0.025, 0.05, 0.1, 0.2], ("nem", 1.0): [0.1, 0.2, 0.4, 0.8]}
    assert {grids.at_an_end(*pair) for pair in (NONE, NEM)} == {"learning rate"}


@pytest.mark.parametrize(
    ("best", "strengths", "tuned"),  # extended upwards only
    [(3.9, {0.1, 0.5, 1.0, 2.0, 4.0, 8.0}, Setting(0.1, 4.0)),
     (0.5, {0.1, 0.5, 1.0}, Setting(0.8, 0.5)),
     (0.01, {0.1, 0.5, 1.0}, Setting(3.2, 0.1))],
)  # fmt: skip
def test_only_noise_has_strengths_each_with_a_grid_of_its_own(best, strengths, tuned):
    """The best rate times the strength is 0.4, where the grid of some strengths never gets."""
    grids, rates = settled(
        tuned_by(strengths=(0.1, 0.5, 1.0)),
        lambda t: 2 * far(t.strength, best) + far(t.rate * t.strength, 0.4),
    )
    assert {strength for arm, strength in rates if arm == "none"} == {1.0}
    assert {strength for arm, strength in rates if arm == "nem"} == strengths
    assert grids.tuned[NEM] == tuned
    assert max(rates["nem", 0.1]) > max(rates["nem", 1.0])
    assert grids.at_an_end(*NEM) == ""
