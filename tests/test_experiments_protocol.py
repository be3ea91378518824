"""Declared protocols: what is refused, what the hash sees, and what replicates follow."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from experiments_cases import (
    ACCURACY,
    ARMS,
    BASE,
    COMPARISONS,
    NLL,
    PLAYERS,
    game,
    row,
    tiny,
)

from nembp.errors import ArchitectureError
from nembp.experiments import Arm, Comparison, Metric, Rule, Tuning, available, get, register
from nembp.experiments.claims import adversarial_images
from nembp.experiments.grids import at_an_end, tuned, tuning
from nembp.experiments.tasks import Setting, Task, reporting, value
from nembp.runs.gan_config import GanConfig


# -- the declaration -------------------------------------------------------------------------------
def test_seeds_that_tune_may_not_be_reported():
    with pytest.raises(ArchitectureError, match=r"seeds \[2\] are used to tune and to report"):
        tiny(tuning=Tuning("nll", (1.0, 2.0), (2, 1000)))
    apart = tiny(tuning=Tuning("nll", (1.0, 2.0), (3,)))
    with pytest.raises(ArchitectureError, match=r"seeds \[3\]"):
        apart.with_seeds(4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seeds": 1}, "seeds must be at least 2"),
        ({"arms": (*ARMS, Arm("nem"))}, "nem twice"),
        ({"comparisons": (Comparison("x", "neem", "none", "nll"),)}, "one of none, nem; got"),
        ({"comparisons": (Comparison("x", "nem", "none", "loss"),)}, "one of nll, accuracy; got"),
        ({"arms": (*ARMS, Arm("x", {"noise_sdt": 1.0}))}, "option must be one of dataset"),
        ({"arms": (*ARMS, Arm("x", {"seed": 1}))}, "option must be one of dataset"),
        ({"base": BASE | {"learning_rate": None}}, "has no learning_rate"),
        ({"perturbations": ("fgsm",)}, "KIND:STRENGTH"),
        (
            {"comparisons": (Comparison("x", "nem", "none", "nll", published=-39.0),)},
            "signed so that positive is as claimed",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(changes, says):
    with pytest.raises(ArchitectureError, match=says):
        tiny(**changes)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"factors": ()}, "at least one factor"),
        ({"factors": (0.0, 1.0)}, "all above 0"),
        ({"validation_fraction": 1.0}, "validation_fraction between 0 and 1"),
        ({"factors": (1.0,)}, "by the step between two of its factors"),
        ({"extend": -1}, "0 times or more"),
        ({"strengths": (0.0, 1.0)}, "strengths of noise must be above 0"),
    ],
)
def test_what_cannot_be_tuned_is_refused(settings, says):
    with pytest.raises(ArchitectureError, match=says):
        Tuning("nll", **settings)


def test_a_cut_is_of_what_should_be_low():
    with pytest.raises(ArchitectureError, match="what should be low"):
        Metric("accuracy", "forward/accuracy", "higher", "relative cut")


def test_the_hash_sees_all_but_words_and_the_number_of_seeds():
    same = tiny().digest
    assert tiny(title="other words", source="somebody").digest == same
    assert tiny().with_seeds(20).digest == same
    assert tiny(base=dict(reversed(BASE.items()))).digest == same
    reworded = tuple(
        dataclasses.replace(item, claim="x" * bool(item.claim)) for item in COMPARISONS
    )
    assert tiny(comparisons=reworded).digest == same
    changed = [
        tiny(base=BASE | {"epochs": 3}),
        tiny(arms=(ARMS[0], Arm("nem", dict(ARMS[1].overrides) | {"noise_std": 0.2}))),
        tiny(tuning=Tuning("nll", (1.0, 2.0), (1001,), extend=0, refine=0)),
        tiny(tuning=Tuning("nll", (1.0, 2.0), (1000,), extend=1, refine=0)),
        tiny(tuning=Tuning("nll", (1.0, 2.0), (1000,), extend=0, refine=1)),
        tiny(tuning=Tuning("nll", (1.0, 2.0), (1000,), extend=0, refine=0, strengths=(0.5,))),
        tiny(comparisons=(dataclasses.replace(COMPARISONS[0], reach=0.5), *COMPARISONS[1:])),
        tiny(rule=Rule(share=0.25)),
        tiny(metrics=(dataclasses.replace(NLL, epochs=1), ACCURACY)),
        tiny(comparisons=(dataclasses.replace(COMPARISONS[0], margin=2.0), *COMPARISONS[1:])),
        tiny(resample=True),
    ]
    assert len({same, *(protocol.digest for protocol in changed)}) == len(changed) + 1


def test_fields_that_came_later_leave_older_hashes_as_they_were():
    assert "kind" not in tiny().content()
    assert game().content()["kind"] == "gan"
    assert game(kind="gan").digest == game().digest


def test_a_relative_rise_is_of_what_should_be_high():
    with pytest.raises(ArchitectureError, match="what should be high"):
        Metric("nll", "train/nll", "lower", "relative rise")
    assert Metric("score", "inception_score", "higher", "relative rise").unit == "%"


def test_too_few_seeds_can_settle_nothing():
    protocol = tiny()  # two claims: p = 2 · 2¹⁻ⁿ ≤ 0.05 from n = 7 on
    assert protocol.least_seeds == 7
    assert 2 * 2.0 ** (1 - 7) <= protocol.rule.alpha < 2 * 2.0 ** (1 - 6)


# -- the replicates --------------------------------------------------------------------------------
def test_tuning_takes_every_rate_on_tuning_seeds_and_never_sees_the_test_split():
    protocol = tiny(tuning=Tuning("nll", (2.0, 1.0), (1000, 1001), 0.25))  # in any order
    tasks = tuning(protocol)
    assert {(task.arm, task.rate, task.seed) for task in tasks} == {
        (arm, rate, seed) for arm in ("none", "nem") for rate in (0.1, 0.2) for seed in (1000, 1001)
    }
    assert len(tasks) == 8
    config = tasks[0].config(protocol, {}, "cpu", 1)
    assert (config.validation_fraction, config.seed, config.split_seed) == (0.25, 1000, None)
    report = Task("report", "nem", 0.2, 1).config(tiny(resample=True), {"digits": "d"}, "cpu", 2)
    assert (report.validation_fraction, report.seed, report.split_seed) == (None, 1, 1)
    assert (report.learning_rate, report.data_dir, report.threads) == (0.2, "d", 2)


def test_reporting_needs_each_arm_once_at_each_setting():
    pairs = [("none", "nll"), ("nem", "nll")]
    same = dict.fromkeys(pairs, Setting(0.1))
    assert len(reporting(tiny(), same)) == 6
    tasks = reporting(tiny(), same | {("none", "nll"): Setting(0.2)})
    assert {(task.arm, task.rate) for task in tasks} == {("none", 0.1), ("none", 0.2), ("nem", 0.1)}
    assert {task.seed for task in tasks} == {0, 1, 2}
    tasks = reporting(tiny(), same | {("nem", "nll"): Setting(0.1, 0.5)})
    assert {(task.arm, task.strength) for task in tasks} == {("none", 1), ("nem", 1), ("nem", 0.5)}


def test_a_strength_multiplies_the_noise_of_its_arm():
    config = Task("report", "nem", 0.2, 1, strength=0.3).config(tiny(), {}, "cpu", 1)
    assert (config.noise_std, config.learning_rate) == (0.03, 0.2)
    assert Task("report", "nem", 0.2, 1).config(tiny(), {}, "cpu", 1).noise_std == 0.1


def test_replicates_can_be_adversarial_runs():
    protocol = game()
    assert isinstance(protocol.config("bidirectional"), GanConfig)
    task = Task("tune", "bidirectional", 0.005, 1000)
    config = task.config(protocol, {}, "cpu", 1)
    assert (config.bidirectional, config.learning_rate, config.seed) == ("generator", 0.005, 1000)
    assert config.discriminator_rate == 0.01  # keeps its ratio to the generator's
    assert not hasattr(config, "validation_fraction")
    with pytest.raises(ArchitectureError, match="option must be one of dataset"):
        game(base=PLAYERS | {"epochs": 3})
    with pytest.raises(ArchitectureError, match="game: kind must be one of train, gan; got 'gna'"):
        game(kind="gna")


def test_data_sets_made_of_others_lie_where_those_do():
    stacked = PLAYERS | {"dataset": "stacked"}
    protocol = game(base=stacked)
    assert protocol.datasets == ("mnist",)
    assert (
        Task("tune", "plain", 0.01, 1000).config(protocol, {"mnist": "m"}, "cpu", 1).data_dir == "m"
    )


# -- tuning ----------------------------------------------------------------------------------------
def settled(protocol, nll, accuracy=lambda task: 0.5, status=lambda task: "finished"):
    """Return the tuning rows of a run in which each task has these scores, and the tasks' rounds.

    Rows come in any order, and the run is killed after each of them: what is left to run must
    follow from the rows that there are.
    """
    rows, rounds = [], 0
    while left := [
        task for task in tuning(protocol, rows) if task not in {Task.of(row) for row in rows}
    ]:
        rounds += 1
        for task in reversed(left):
            rows.append(
                row(task.arm, task.seed, [nll(task)], rate=task.rate, phase="tune",
                    strength=task.strength, status=status(task),
                    scores={"forward/accuracy": accuracy(task)})
            )  # fmt: skip
            assert {Task.of(row) for row in rows} <= set(tuning(protocol, rows))
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
    assert at_an_end(protocol, rows)["none", "nll"] == ""
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
        assert at_an_end(protocol, rows)[arm, "nll"] == "learning rate"


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
    assert at_an_end(protocol, rows)["nem", "nll"] == ""


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
    assert at_an_end(protocol, rows)["nem", "nll"] == ""


def test_a_curve_counts_by_its_first_epochs():
    assert value(row("none", 0, [4.0, 2.0, 9.0]), NLL) == 3.0


# -- the registry ----------------------------------------------------------------------------------
def test_every_registered_claim_can_be_run_and_has_its_small_version():
    table = available()
    assert len(table) >= 5
    for name, protocol in table.items():
        assert protocol.name == name
        assert protocol.seeds >= max(10, protocol.least_seeds), name
        assert any(item.claim for item in protocol.comparisons)
        rates = {item.rate for item in protocol.comparisons}
        assert rates == {"same", "tuned"}, name
        small = protocol.quick()
        length = {"train": "epochs", "gan": "iterations"}[protocol.kind]
        most = {"train": 2, "gan": 20}[protocol.kind]
        assert all(getattr(small.config(arm.name), length) <= most for arm in small.arms), name
        assert len({p.digest for p in table.values()}) == len(table)


def test_protocols_of_adversarial_images_leave_nothing_to_a_recipe():
    """A recipe may change, the numbers of a protocol may not."""
    elsewhere = {"data_dir", "limit", "image_size", "seed", "device", "threads", "cuda_graphs"}
    unused = {"samples", "modes", "std", "scale"}  # of data sets that are drawn
    unused |= {"backward_weight"}  # sets both players' weights, which are set
    for protocol in adversarial_images.PROTOCOLS:
        for arm in protocol.arms:
            values = vars(protocol.config(arm.name))
            left = {key for key, value in values.items() if value is None} - elsewhere - unused
            left -= {"noise_place"} if values["noise"] == "none" else set()
            left -= {"momentum"} if values["optimizer"] == "rmsprop" else set()
            assert not left, (protocol.name, arm.name)


def test_names_are_found_or_suggested():
    assert get("output-noise").name == "output-noise"
    with pytest.raises(ArchitectureError, match=r"no experiment .* did you mean output-noise"):
        get("output-nois")
    with pytest.raises(ArchitectureError, match="see `nembp experiment list`"):
        get("zzzz")
    with pytest.raises(ArchitectureError, match="already"):
        register(dataclasses.replace(get("output-noise"), seeds=3))
