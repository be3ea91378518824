"""Tuning: which rate each arm gets, from pilot runs that the reported seeds never see."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from experiments_cases import ACCURACY, COMPARISONS, NLL, row, tiny

from nembp.experiments import Comparison, Metric, Tuning
from nembp.experiments.tuning import Grids, Setting, Task


def tuned(protocol, rows):
    return Grids(protocol, rows).tuned


def at_an_end(protocol, rows, arm="none"):
    return Grids(protocol, rows).at_an_end(arm, "nll")


def settled(protocol, nll, accuracy=lambda task: 0.5, status=lambda task: "finished"):
    """Return the tuning rows of a run in which each task has these scores, and the tasks' rounds.

    Rows come in any order, and the run is killed after each of them: what is left to run must
    follow from the rows that there are.
    """
    rows, rounds = [], 0
    while left := [
        task for task in Grids(protocol, rows).tasks() if task not in {Task.of(row) for row in rows}
    ]:
        rounds += 1
        for task in reversed(left):
            rows.append(
                row(task.arm, task.seed, [nll(task)], rate=task.rate, phase="tune",
                    strength=task.strength, status=status(task),
                    scores={"forward/accuracy": accuracy(task)})
            )  # fmt: skip
            assert {Task.of(row) for row in rows} <= set(Grids(protocol, rows).tasks())
        assert rounds < 50
    return rows, rounds


def rates_of(rows, arm, strength=1.0):
    return sorted(
        {row["rate"] for row in rows if row["arm"] == arm and row["strength"] == strength}
    )


def distance(best):
    """Return an nll whose minimum is at a rate."""
    return lambda task: abs(math.log(task.rate / best)) + 0.001 * (task.seed - 1000)


def test_the_best_mean_wins_and_a_rate_that_diverged_is_out():
    protocol = tiny(tuning=Tuning("nll", (1.0, 2.0, 4.0), (1000, 1001), extend=0, refine=0))
    rows = []
    for seed, scores in ((1000, (3.0, 1.0, 0.1)), (1001, (2.0, 3.0, 0.1))):
        for rate, nll in zip((0.1, 0.2, 0.4), scores, strict=True):
            for arm in ("none", "nem"):
                rows.append(row(arm, seed, [nll, nll], rate=rate, phase="tune"))
    none, nem = ("none", "nll"), ("nem", "nll")
    assert tuned(protocol, rows) == {none: Setting(0.4), nem: Setting(0.4)}
    rows[-1]["status"] = "diverged"
    assert tuned(protocol, rows) == {none: Setting(0.4), nem: Setting(0.2)}
    reported = row("nem", 1000, [0.0, 0.0], rate=0.1)
    assert tuned(protocol, [*rows, reported])[nem] == Setting(0.2)


def test_arms_are_tuned_by_the_metric_that_they_are_compared_by():
    by_accuracy = Comparison("x", "nem", "none", "accuracy", "tuned")
    protocol = tiny(
        comparisons=(*COMPARISONS, by_accuracy),
        tuning=Tuning("nll", (1.0, 2.0), (1000,), extend=0, refine=0),
    )
    rows, _ = settled(protocol, lambda task: task.rate, lambda task: task.rate)
    assert tuned(protocol, rows) == {
        (arm, metric): Setting(rate)
        for arm in ("none", "nem")
        for metric, rate in (("nll", 0.1), ("accuracy", 0.2))  # low is good, high is good
    }


def test_what_is_tuned_is_what_is_compared():
    """A relative cut is the same in every epoch; a mean of the values is made by the first."""
    protocol = tiny(tuning=Tuning("nll", (1.0, 2.0), (1000,), extend=0, refine=0))
    rows = [
        row(arm, 1000, curve, rate=rate, phase="tune")
        for arm in ("none", "nem")
        for rate, curve in ((0.1, [1.0, 0.5]), (0.2, [2.0, 0.1]))
    ]
    assert tuned(protocol, rows)["none", "nll"].rate == 0.2  # √(2 · 0.1) < √(1 · 0.5)
    absolute = dataclasses.replace(NLL, effect="difference")
    protocol = tiny(metrics=(absolute, ACCURACY), tuning=protocol.tuning)
    assert tuned(protocol, rows)["none", "nll"].rate == 0.1  # 2 + 0.1 > 1 + 0.5


def test_what_is_not_measured_while_tuning_is_tuned_by_another_metric():
    fgsm = Metric("fgsm", "robustness/fgsm:0.1", "higher", "points")
    protocol = tiny(
        metrics=(NLL, ACCURACY, fgsm),
        comparisons=(Comparison("x", "nem", "none", "fgsm", "tuned"),),
    )
    assert protocol.tuned_by("fgsm") == "nll"
    assert set(tuned(protocol, [])) == {("none", "nll"), ("nem", "nll")}


@pytest.mark.parametrize("best", [0.1, 0.013, 1.7, 0.3])
def test_a_grid_is_extended_until_its_best_lies_inside(best):
    protocol = tiny(tuning=Tuning("nll", (0.5, 1.0, 2.0), (1000, 1001), refine=0))
    rows, _ = settled(protocol, distance(best))
    rates = rates_of(rows, "none")
    found = tuned(protocol, rows)["none", "nll"].rate
    assert rates[0] < found < rates[-1]
    assert found == min(rates, key=lambda rate: abs(math.log(rate / best)))
    assert all(b / a == pytest.approx(2.0, rel=1e-4) for a, b in itertools.pairwise(rates))
    assert at_an_end(protocol, rows) == ""
    # by no more than it takes
    assert rates[0] == 0.05 or rates[1] == found
    assert rates[-1] == 0.2 or rates[-2] == found


def test_rates_that_diverge_are_out_however_good_those_beside_them():
    protocol = tiny(tuning=Tuning("nll", (0.5, 1.0, 2.0), (1000,), refine=0))
    rows, _ = settled(
        protocol,
        lambda task: 1 / task.rate,  # the more the better, but
        status=lambda task: "diverged" if task.rate > 0.5 else "finished",
    )
    assert rates_of(rows, "nem") == [0.05, 0.1, 0.2, 0.4, 0.8]
    assert tuned(protocol, rows)["nem", "nll"] == Setting(0.4)
    rows, _ = settled(
        protocol,
        lambda task: 1.0,
        status=lambda task: "diverged" if task.rate > 0.02 else "finished",
    )
    assert tuned(protocol, rows)["nem", "nll"].rate < 0.02


def test_extensions_end_and_the_end_is_named():
    protocol = tiny(tuning=Tuning("nll", (1.0, 2.0), (1000,), extend=2, refine=0))
    rows, _ = settled(protocol, lambda task: task.rate if task.arm == "none" else 1 / task.rate)
    assert rates_of(rows, "none") == [0.025, 0.05, 0.1, 0.2]
    assert rates_of(rows, "nem") == [0.1, 0.2, 0.4, 0.8]
    for arm in ("none", "nem"):
        assert at_an_end(protocol, rows, arm) == "learning rate"


def test_the_best_is_looked_for_more_finely_between_its_neighbours():
    protocol = tiny(tuning=Tuning("nll", (0.25, 1.0, 4.0), (1000,), refine=2))
    rows, _ = settled(protocol, distance(0.13))
    # 0.1 is the best of three, and of the five with 0.05 and 0.2 beside it; then two more
    expected = [0.025, 0.05, 0.0707107, 0.1, 0.141421, 0.2, 0.4]
    assert rates_of(rows, "none") == expected
    assert tuned(protocol, rows)["none", "nll"].rate == 0.141421


def test_only_noise_has_strengths_each_with_a_grid_of_its_own():
    protocol = tiny(
        tuning=Tuning("nll", (0.5, 1.0, 2.0), (1000,), refine=0, strengths=(0.1, 0.5, 1.0))
    )

    def nll(task):  # best at strength 0.5 and rate 0.8, where the grid of 1.0 never gets
        return abs(math.log(task.strength / 0.5)) + abs(math.log(task.rate * task.strength / 0.4))

    rows, _ = settled(protocol, nll)
    assert {row["strength"] for row in rows if row["arm"] == "none"} == {1.0}
    assert tuned(protocol, rows)["nem", "nll"] == Setting(0.8, 0.5)
    assert max(rates_of(rows, "nem", 0.1)) > max(rates_of(rows, "nem", 1.0))
    assert at_an_end(protocol, rows, "nem") == ""


def test_strengths_are_extended_upwards_only():
    protocol = tiny(
        tuning=Tuning("nll", (0.5, 1.0, 2.0), (1000,), refine=0, strengths=(0.1, 0.5, 1.0))
    )

    def helps(task):
        return abs(math.log(task.strength / 3.9)) + abs(math.log(task.rate / 0.1))

    rows, _ = settled(protocol, helps)
    assert {row["strength"] for row in rows} == {0.1, 0.5, 1.0, 2.0, 4.0, 8.0}
    assert tuned(protocol, rows)["nem", "nll"] == Setting(0.1, 4.0)
    rows, _ = settled(protocol, lambda task: task.strength + abs(math.log(task.rate / 0.1)))
    assert {row["strength"] for row in rows} == {0.1, 0.5, 1.0}
    assert tuned(protocol, rows)["nem", "nll"] == Setting(0.1, 0.1)
    assert at_an_end(protocol, rows, "nem") == ""
