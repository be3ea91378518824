"""Declared protocols: what is refused, what the hash sees, and what replicates follow."""

from __future__ import annotations

import dataclasses

import pytest
from experiments_cases import ACCURACY, ARMS, BASE, COMPARISONS, NLL, row, tiny

from nembp.errors import ArchitectureError
from nembp.experiments import Arm, Comparison, Metric, Rule, Tuning, available, get, register
from nembp.experiments.tasks import Task, reporting, tuned_rates, tuning, value


# -- the declaration -------------------------------------------------------------------------------
def test_seeds_that_tune_may_not_be_reported():
    with pytest.raises(ArchitectureError, match=r"seeds \[2\] are used to tune and to report"):
        tiny(tuning=Tuning("nll", (1.0,), (2, 1000)))
    apart = tiny(tuning=Tuning("nll", (1.0,), (3,)))
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
        ({"tuning": Tuning("nll", (), (1000,))}, "at least one factor"),
        (
            {"comparisons": (Comparison("x", "nem", "none", "nll", published=-39.0),)},
            "signed so that positive is as claimed",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(changes, says):
    with pytest.raises(ArchitectureError, match=says):
        tiny(**changes)


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
        tiny(tuning=Tuning("nll", (1.0, 2.0), (1001,))),
        tiny(rule=Rule(share=0.25)),
        tiny(metrics=(dataclasses.replace(NLL, epochs=1), ACCURACY)),
        tiny(comparisons=(dataclasses.replace(COMPARISONS[0], margin=2.0), *COMPARISONS[1:])),
        tiny(resample=True),
    ]
    assert len({same, *(protocol.digest for protocol in changed)}) == len(changed) + 1


def test_too_few_seeds_can_settle_nothing():
    protocol = tiny()  # two claims: p = 2 · 2¹⁻ⁿ ≤ 0.05 from n = 7 on
    assert protocol.least_seeds == 7
    assert 2 * 2.0 ** (1 - 7) <= protocol.rule.alpha < 2 * 2.0 ** (1 - 6)


# -- the replicates --------------------------------------------------------------------------------
def test_tuning_takes_every_rate_on_tuning_seeds_and_never_sees_the_test_split():
    protocol = tiny(tuning=Tuning("nll", (2.0, 1.0), (1000, 1001), 0.25))
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


def test_reporting_needs_each_arm_once_at_each_rate():
    assert len(reporting(tiny(), {"none": 0.1, "nem": 0.1})) == 6
    tasks = reporting(tiny(), {"none": 0.2, "nem": 0.1})
    assert {(task.arm, task.rate) for task in tasks} == {("none", 0.1), ("none", 0.2), ("nem", 0.1)}
    assert {task.seed for task in tasks} == {0, 1, 2}


def test_the_best_mean_wins_and_a_rate_that_diverged_is_out():
    protocol = tiny(tuning=Tuning("nll", (1.0, 2.0, 4.0), (1000, 1001)))
    rows = []
    for seed, scores in ((1000, (3.0, 1.0, 0.1)), (1001, (2.0, 3.0, 0.1))):
        for rate, nll in zip((0.1, 0.2, 0.4), scores, strict=True):
            for arm in ("none", "nem"):
                rows.append(row(arm, seed, [nll, nll], rate=rate, phase="tune"))
    assert tuned_rates(protocol, rows) == {"none": 0.4, "nem": 0.4}
    rows[-1]["status"] = "diverged"
    assert tuned_rates(protocol, rows) == {"none": 0.4, "nem": 0.2}
    reported = row("nem", 1000, [0.0, 0.0], rate=0.1)
    assert tuned_rates(protocol, [*rows, reported])["nem"] == 0.2


def test_a_score_that_should_be_high_is_tuned_upwards():
    protocol = tiny(tuning=Tuning("accuracy", (1.0, 2.0), (1000,)))
    rows = [
        row(arm, 1000, [1.0], rate=rate, phase="tune", scores={"forward/accuracy": score})
        for arm in ("none", "nem")
        for rate, score in ((0.1, 0.8), (0.2, 0.9))
    ]
    assert tuned_rates(protocol, rows) == {"none": 0.2, "nem": 0.2}


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
        assert all(small.config(arm.name).epochs <= 2 for arm in small.arms), name
        assert len({p.digest for p in table.values()}) == len(table)


def test_names_are_found_or_suggested():
    assert get("output-noise").name == "output-noise"
    with pytest.raises(ArchitectureError, match=r"no experiment .* did you mean output-noise"):
        get("output-nois")
    with pytest.raises(ArchitectureError, match="see `nembp experiment list`"):
        get("zzzz")
    with pytest.raises(ArchitectureError, match="already"):
        register(dataclasses.replace(get("output-noise"), seeds=3))
