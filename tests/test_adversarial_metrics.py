"""Scores of generated samples: closed forms, SciPy and scikit-learn, invariances, planted bugs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from metrics_cases import generator, quick, rotation, seeds

from nembp.adversarial.mixtures_2d import grid, ring
from nembp.adversarial.modes import Modes, coverage, kl_from_uniform
from nembp.adversarial.scorers import MixtureScorer, scorer_for
from nembp.adversarial.scores import (
    average_scores,
    inception_score,
)
from nembp.errors import ArchitectureError, DivergenceError, ShapeError


# -- histograms ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("counts", "nats"),
    [
        ([7, 7, 7], 0.0),
        ([9, 0, 0], math.log(3)),
        ([5, 5, 0, 0], math.log(2)),
        ([1, 3], 0.25 * math.log(0.5) + 0.75 * math.log(1.5)),
        ([0, 0, 0, 0], math.log(4)),
        ([3], 0.0),
    ],
)
def test_kl_from_uniform_in_closed_form(counts, nats) -> None:
    assert kl_from_uniform(counts) == pytest.approx(nats, abs=1e-15)


@quick
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any), seeds)
def test_kl_from_uniform_is_scipy_s_and_blind_to_order(counts, seed) -> None:
    kl = kl_from_uniform(counts)
    assert kl == pytest.approx(scipy.stats.entropy(counts, np.ones(len(counts))), abs=1e-12)
    assert kl_from_uniform(generator(seed).permutation(counts)) == pytest.approx(kl, abs=1e-12)
    assert 0 <= kl <= math.log(len(counts)) + 1e-12


def test_coverage_counts_leniently_and_strictly() -> None:
    assert coverage([10, 10, 10, 10], 40) == (4, 4)
    assert coverage([0, 0, 40], 40) == (1, 1)
    assert coverage([25, 24, 0, 351], 400) == (3, 2)  # a quarter of the uniform 100 is 25
    assert coverage([1, 0, 1], 2) == (2, 2)  # below one sample, one is enough


# -- modes -----------------------------------------------------------------------------------------
def test_three_standard_deviations_are_the_border() -> None:
    modes = Modes(np.array([[0.0, 0.0], [10.0, 0.0]]), std=0.5)
    scores = modes.score(np.array([[1.5, 0.0], [0.0, 1.5001], [10.0, -1.4999], [5.0, 0.0]]))
    assert scores == {
        "modes": 2.0,
        "modes_strict": 2.0,
        "high_quality": 0.5,
        "kl": 0.0,
    }


def test_a_sample_counts_for_the_nearest_mode_alone() -> None:
    modes = Modes(np.array([[0.0], [1.0]]), std=1.0)  # both within three of either
    assert modes.counts(np.array([[0.1], [0.4], [0.6]])).tolist() == [2, 1]


@pytest.mark.parametrize("make", [ring, grid])
def test_the_mixture_itself_has_its_share_within_three_sigma(make) -> None:
    """Binomial test of 1 − exp(−9/2), at 1e-6 with a fixed seed."""
    data = make(50_000, seed=1)
    scores = data.modes.score(data.train.x)
    assert scores["modes"] == scores["modes_strict"] == data.outputs
    good = round(scores["high_quality"] * 50_000)
    assert scipy.stats.binomtest(good, 50_000, 1 - math.exp(-4.5)).pvalue > 1e-6
    # 2 n KL is chi-square with K - 1 degrees of freedom
    assert 2 * good * scores["kl"] < scipy.stats.chi2.isf(1e-6, data.outputs - 1)


def test_collapse_is_seen() -> None:
    data = grid(5000, seed=1)
    one = data.train.x[data.train.y == 7]
    scores = data.modes.score(one)
    assert scores["modes"] == scores["modes_strict"] == 1
    assert scores["kl"] == math.log(25)
    half = data.train.x[data.train.y < 12]
    assert data.modes.score(half)["modes"] == 12
    assert data.modes.score(half + 0.5)["high_quality"] == 0
    assert data.modes.score(half + 0.5)["kl"] == math.log(25)  # nothing to count


@quick
@given(seeds, st.integers(1, 6), st.integers(1, 9), st.integers(1, 200))
def test_modes_do_not_depend_on_order_place_or_direction(seed, d, k, n) -> None:
    draw = generator(seed)
    centres = 3 * draw.standard_normal((k, d))
    x = centres[draw.integers(k, size=n)] + 0.7 * draw.standard_normal((n, d))
    counts = Modes(centres, 0.4).counts(x)
    assert np.array_equal(Modes(centres, 0.4).counts(draw.permutation(x)), counts)
    turn, shift = rotation(d, seed), draw.standard_normal(d)
    moved = Modes(2 * centres @ turn + shift, 0.8).counts(2 * x @ turn + shift)
    assert np.array_equal(moved, counts)
    relabelled = draw.permutation(k)
    assert np.array_equal(Modes(centres[relabelled], 0.4).counts(x), counts[relabelled])


def test_blocks_change_nothing(monkeypatch) -> None:
    data = grid(3000)
    whole = data.modes.nearest(data.train.x)
    monkeypatch.setattr("nembp.adversarial.modes.BLOCK", 700)
    for part, expected in zip(data.modes.nearest(data.train.x), whole, strict=True):
        assert np.array_equal(part, expected)


def test_samples_that_cannot_be_scored() -> None:
    modes = ring(10).modes
    with pytest.raises(DivergenceError, match="2 of 3"):
        modes.score(np.array([[0.0, np.nan], [0.0, 0.0], [np.inf, 0.0]]))
    for wrong in (np.zeros((3, 3)), np.zeros(2), np.zeros((0, 2))):
        with pytest.raises(ShapeError, match=r"expected \(n, 2\)"):
            modes.score(wrong)
    with pytest.raises(ArchitectureError, match="std"):
        Modes(np.zeros((2, 2)), 0.0)
    with pytest.raises(ArchitectureError, match="centres"):
        Modes(np.zeros(2), 1.0)


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_the_scorer_undoes_the_scaling(scale) -> None:
    data = ring(4000, scale=scale)
    scorer = scorer_for(data)
    assert isinstance(scorer, MixtureScorer)
    seen = data.x_scaling.apply(data.test.x[:2500])
    assert scorer.score(seen) == pytest.approx(scorer.real())
    assert set(scorer.describe()["units"]) == set(scorer.real())
    assert scorer.headline in scorer.real()


# -- inception score -------------------------------------------------------------------------------
def mixed(k: int, confidence: float) -> np.ndarray:
    """One sample of each class, its own class at a confidence, the others alike."""
    return np.full((k, k), (1 - confidence) / (k - 1)) + np.eye(k) * (
        confidence - (1 - confidence) / (k - 1)
    )


@pytest.mark.parametrize("k", [2, 3, 10, 100])
def test_inception_score_of_pure_classes_is_their_number(k) -> None:
    assert inception_score(np.repeat(np.eye(k), 3, axis=0)) == pytest.approx(k)
    assert inception_score(np.eye(k)[np.zeros(9, int)]) == 1.0
    assert inception_score(np.full((9, k), 1 / k)) == pytest.approx(1.0)


@pytest.mark.parametrize("confidence", [0.3, 0.5, 0.9, 1.0])
def test_inception_score_of_a_known_mixture(confidence) -> None:
    """log IS = log K − H(one row), for the mean row is uniform."""
    p = mixed(5, confidence)
    assert math.log(inception_score(p)) == pytest.approx(
        math.log(5) - scipy.stats.entropy(p[0]), abs=1e-12
    )


@quick
@given(seeds, st.integers(1, 40), st.integers(1, 12))
def test_inception_score_by_its_definition(seed, n, k) -> None:
    draw = generator(seed)
    p = draw.dirichlet(np.full(k, 0.2), size=n)
    score = inception_score(p)
    mean = np.broadcast_to(p.mean(axis=0), p.shape)
    assert score == pytest.approx(math.exp(scipy.stats.entropy(p, mean, axis=1).mean()), rel=1e-9)
    shuffled = draw.permutation(draw.permutation(p), axis=1)
    assert inception_score(shuffled) == pytest.approx(score, rel=1e-9)
    assert 1 <= score <= min(n, k) + 1e-9


@pytest.mark.parametrize("wrong", [np.ones((3, 2)), np.ones(3), np.zeros((0, 2)), [[1.5, -0.5]]])
def test_what_is_no_probability_is_refused(wrong) -> None:
    with pytest.raises(ShapeError, match="probabilities"):
        inception_score(wrong)


# -- averages --------------------------------------------------------------------------------------
def test_average_scores_are_of_the_last_rows_that_hold_them() -> None:
    rows = [{"a": 100.0, "b": 1.0}, {"a": 1.0}, {"a": 2.0, "b": 3.0}, {"a": 6.0}]
    assert average_scores(rows, last=3) == {"a": 3.0, "b": 2.0}
    assert average_scores(rows, last=99)["a"] == pytest.approx(109 / 4)
    assert average_scores([]) == {}
    with pytest.raises(ArchitectureError, match="at least 1"):
        average_scores(rows, last=0)
