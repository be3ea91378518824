"""Declared protocols: what is refused, what the hash sees, what replicates follow, and tuning."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from experiments_cases import ACCURACY, ARMS, BASE, COMPARISONS, NLL, row, tiny

from nembp.errors import ArchitectureError
from nembp.experiments import Arm, Comparison, Metric, Rule, Tuning, available, get
from nembp.experiments.claims import adversarial
from nembp.experiments.tuning import Grids, Setting, Task
from nembp.runs.gan_config import GanConfig
from nembp.runs.training import READ_OPTIONS


# -- the declaration -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tuning": Tuning("nll", seeds=(2, 1000))}, r"seeds \[2\] are used to tune and to report"),
        ({"seeds": 10**12}, r"seeds \[1000\] are used to tune and to report"),
        ({"arms": (*ARMS, Arm("nem"))}, "distinct names"),
        ({"comparisons": (Comparison("x", "neem", "none", "nll"),)}, "one of none, nem; got"),
        ({"comparisons": (Comparison("x", "nem", "none", "loss"),)}, "one of nll, accuracy; got"),
        ({"comparisons": (Comparison("x", "nem", "none", "nll", "best"),)}, "rate must be one of"),
        ({"metrics": (NLL, replace(ACCURACY, better="more"))}, "got 'more'"),
        ({"metrics": (NLL, replace(ACCURACY, effect="gain"))}, "effect must be one of"),
        ({"metrics": (replace(NLL, better="higher"), ACCURACY)},
         "better of a relative cut must be one of lower; got 'higher'"),
        ({"arms": (*ARMS, Arm("x", {"noise_sdt": 1.0}))}, "option must be one of dataset"),
        ({"arms": (*ARMS, Arm("x", {"seed": 1}))}, "option must be one of dataset"),
        ({"base": BASE | {"learning_rate": None}}, "has no learning_rate"),
        ({"perturbations": ("fgsm",)}, "KIND:STRENGTH"),
        ({"kind": "gna"}, "kind must be one of train, gan; got 'gna'"),
        ({"kind": "gan"}, "option must be one of dataset"),
        ({"comparisons": (Comparison("x", "nem", "none", "nll", published=-39.0),)},
         "signed so that positive is as claimed"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused(changes, says):
    with pytest.raises(ArchitectureError, match=says):
        tiny(**changes)


def test_tuning_that_cannot_choose_is_refused():
    for changes in ({"factors": ()}, {"factors": (1.0,)}, {"factors": (0.0, 1.0)}, {"extend": -1},
                    {"strengths": ()}, {"strengths": (-1.0,)}, {"validation_fraction": 0.0}):  # fmt: skip
        with pytest.raises(ArchitectureError, match="tuning needs a validation_fraction between"):
            Tuning("nll", **changes)


def test_the_hash_sees_all_but_words_and_the_number_of_seeds():
    same, tuning, (first, *others) = tiny().digest, tiny().tuning, COMPARISONS
    reworded = tuple(replace(item, claim="x" * bool(item.claim)) for item in COMPARISONS)
    words = {"title": "other words", "source": "somebody", "comparisons": reworded}
    assert tiny(base=dict(reversed(BASE.items())), seeds=20, **words).digest == same
    changes = [
        {"base": BASE | {"epochs": 3}}, {"rule": Rule(share=0.25)}, {"resample": True},
        {"arms": (ARMS[0], Arm("nem", {**ARMS[1].overrides, "noise_std": 0.2}))},
        {"metrics": (replace(NLL, epochs=1), ACCURACY)},
        *({"tuning": replace(tuning, **change)} for change in (
            {"seeds": (1001,)}, {"extend": 1}, {"refine": 1}, {"strengths": (0.5,)})),
        *({"comparisons": (replace(first, **change), *others)} for change in (
            {"reach": 0.5}, {"margin": 2.0}, {"within": 1.0})),
    ]  # fmt: skip
    assert len({same, *(tiny(**change).digest for change in changes)}) == len(changes) + 1
    assert tiny().least_seeds == 7  # for two claims p = 2 · 2¹⁻ⁿ ≤ 0.05 from n = 7 on
    # fields that were added later leave older hashes as they were
    assert "kind" not in tiny().content()
    assert get("gan-grid").content()["kind"] == "gan"


# -- the replicates --------------------------------------------------------------------------------
def test_tuning_takes_every_rate_on_tuning_seeds_and_never_sees_the_test_split():
    protocol = tiny(tuning=Tuning("nll", (2.0, 1.0), (1000, 1001), 0.25))  # in any order
    tasks = Grids(protocol).tasks()
    assert {(task.arm, task.rate, task.seed) for task in tasks} == {
        (arm, rate, seed) for arm in ("none", "nem") for rate in (0.1, 0.2) for seed in (1000, 1001)
    }
    assert len(tasks) == 8
    config = tasks[0].config(protocol, {}, "cpu", 1)
    assert (config.validation_fraction, config.seed, config.split_seed) == (0.25, 1000, None)
    task = Task("report", "nem", 0.2, 1, strength=0.3)
    report = task.config(tiny(resample=True), {"digits": "d"}, "cpu", 2)
    assert (report.validation_fraction, report.seed, report.split_seed) == (None, 1, 1)
    assert (report.learning_rate, report.data_dir, report.threads) == (0.2, "d", 2)
    assert report.noise_std == 0.03  # 0.3 times the arm's own


def test_replicates_can_be_adversarial_runs():
    config = Task("tune", "fast", 0.001, 1000).config(get("gan-grid"), {}, "cpu", 1)
    assert isinstance(config, GanConfig)
    # a discriminator keeps its ratio to the generator
    rates = (config.learning_rate, config.discriminator_rate)
    assert (*rates, config.seed) == (0.001, 0.003, 1000)
    stacked = get("gan-stacked-mnist")  # made from the files of MNIST
    assert stacked.datasets == ("mnist",)
    assert Task("tune", "plain", 0.01, 1).config(stacked, {"mnist": "m"}, "cpu", 1).data_dir == "m"


# -- the declared claims ---------------------------------------------------------------------------
def test_every_declared_claim_can_be_run_and_has_its_small_version():
    table = available()
    assert len({p.digest for p in table.values()}) == len(table) >= 40
    for name, protocol in table.items():
        assert protocol.name == name
        assert protocol.seeds >= max(10, protocol.least_seeds), name
        assert any(item.claim for item in protocol.comparisons)
        assert {item.rate for item in protocol.comparisons} == {"same", "tuned"}, name
        small = protocol.quick()
        length, most = {"train": ("epochs", 2), "gan": ("iterations", 20)}[protocol.kind]
        assert all(getattr(small.config(arm.name), length) <= most for arm in small.arms), name


def test_protocols_of_adversarial_images_leave_nothing_to_a_default():
    """A default may change, the numbers of a protocol may not."""
    unset = {"data_dir", "limit", "image_size", "seed", "device", "threads", "cuda_graphs"}
    unset |= {"samples", "modes", "std", "scale", *READ_OPTIONS}  # of data drawn or read
    unset |= {"backward_weight"}  # sets both players' weights, which are set
    for protocol in adversarial.OF_IMAGES:
        for arm in protocol.arms:
            values = vars(protocol.config(arm.name))
            left = {key for key, value in values.items() if value is None} - unset
            left -= {"noise_place"} if values["noise"] == "none" else set()
            left -= {"momentum"} if values["optimizer"] == "rmsprop" else set()
            assert not left, (protocol.name, arm.name)


# -- tuning, by rows that the reported seeds never see ---------------------------------------------
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
    grids, _ = settled(tuned_by(strengths=(0.5, 1.0)), lambda t: 99 + far(t.rate, 0.1) - t.strength)
    assert grids.at_an_end(*NEM) == "strength of the noise"


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
