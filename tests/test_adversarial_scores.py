"""Scores of generated samples: closed forms, SciPy and scikit-learn, invariances, planted bugs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from nembp.adversarial import scores
from nembp.adversarial.data import grid, ring
from nembp.adversarial.scores import (
    Modes,
    average_scores,
    coverage,
    frechet_distance,
    inception_score,
    kl_from_uniform,
    precision_recall,
)
from nembp.errors import ArchitectureError, DivergenceError, ShapeError

quick = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 10_000)
generator = np.random.default_rng


def rotation(d: int, seed: int) -> np.ndarray:
    return np.linalg.qr(generator(seed).standard_normal((d, d)))[0]


# -- histograms and modes --------------------------------------------------------------------------
@quick
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any), seeds)
def test_kl_from_uniform_is_scipy_s_and_blind_to_order(counts, seed) -> None:
    kl = kl_from_uniform(counts)
    assert kl == pytest.approx(scipy.stats.entropy(counts, np.ones(len(counts))), abs=1e-12)
    assert kl_from_uniform(generator(seed).permutation(counts)) == pytest.approx(kl, abs=1e-12)
    assert 0 <= kl <= math.log(len(counts)) + 1e-12
    assert kl_from_uniform([0] * len(counts)) == math.log(len(counts))  # nothing to count


def test_coverage_counts_leniently_and_strictly() -> None:
    assert coverage([10, 10, 10, 10], 40) == (4, 4)
    assert coverage([0, 0, 40], 40) == (1, 1)
    assert coverage([25, 24, 0, 351], 400) == (3, 2)  # a quarter of the uniform 100 is 25
    assert coverage([1, 0, 1], 2) == (2, 2)  # below one sample, one is enough


def test_a_sample_counts_for_the_nearest_mode_within_three_standard_deviations() -> None:
    modes = Modes(np.array([[0.0, 0.0], [10.0, 0.0]]), std=0.5)
    found = modes.score(np.array([[1.5, 0.0], [0.0, 1.5001], [10.0, -1.4999], [5.0, 0.0]]))
    assert found == {"modes": 2.0, "modes_strict": 2.0, "high_quality": 0.5, "kl": 0.0}
    near = Modes(np.array([[0.0], [1.0]]), std=1.0)  # samples within three of either
    assert near.counts(np.array([[0.1], [0.4], [0.6]])).tolist() == [2, 1]


@pytest.mark.parametrize("make", [ring, grid])
def test_the_mixture_itself_has_its_share_within_three_sigma(make) -> None:
    """Binomial test of 1 − exp(−9/2), at 1e-6 with a fixed seed."""
    data = make(50_000, seed=1)
    found = data.modes.score(data.train.x)
    assert found["modes"] == found["modes_strict"] == data.outputs
    good = round(found["high_quality"] * 50_000)
    assert scipy.stats.binomtest(good, 50_000, 1 - math.exp(-4.5)).pvalue > 1e-6
    # 2 n KL is chi-square with K - 1 degrees of freedom
    assert 2 * good * found["kl"] < scipy.stats.chi2.isf(1e-6, data.outputs - 1)


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
    x, y = generator(0).standard_normal((2, 50, 3))
    whole = precision_recall(x, y)
    monkeypatch.setattr(scores, "BLOCK", 120)
    assert precision_recall(x, y) == whole


# -- inception score -------------------------------------------------------------------------------
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


# -- Fréchet distance ------------------------------------------------------------------------------
def covariance(d: int, seed: int, rank: int | None = None) -> np.ndarray:
    a = generator(seed).standard_normal((d, rank or d))
    return a @ a.T


def test_frechet_distance_in_closed_form_and_by_scipy() -> None:
    zero, one, eye = np.zeros(3), np.array([1.0, -2.0, 2.0]), np.eye(3)
    stretched = np.diag([1.0, 4.0, 9.0])  # sum of (σ₁ − σ₂)² where both are diagonal
    assert frechet_distance(zero, eye, zero, stretched) == pytest.approx(0 + 1 + 4)
    assert frechet_distance(zero, np.zeros((3, 3)), zero, stretched) == pytest.approx(14.0)
    for seed in range(5):
        a, b = covariance(3, seed), covariance(3, seed + 100)
        expected = 9.0 + np.trace(a + b - 2 * np.real(scipy.linalg.sqrtm(a @ b)))
        assert frechet_distance(one, a, zero, b) == pytest.approx(expected, rel=1e-9)


@quick
@given(seeds, st.integers(1, 8), st.integers(1, 8))
def test_frechet_distance_is_symmetric_turned_and_never_negative(seed, d, rank) -> None:
    draw = generator(seed)
    m1, m2 = draw.standard_normal((2, d))
    c1, c2 = covariance(d, seed, min(rank, d)), covariance(d, seed + 1)
    value = frechet_distance(m1, c1, m2, c2)
    assert value >= 0
    assert frechet_distance(m2, c2, m1, c1) == pytest.approx(value, rel=1e-9, abs=1e-9)
    turn = rotation(d, seed)
    turned = frechet_distance(turn @ m1, turn @ c1 @ turn.T, turn @ m2, turn @ c2 @ turn.T)
    assert turned == pytest.approx(value, rel=1e-7, abs=1e-7)
    assert frechet_distance(m1, c1, m1, c1) == pytest.approx(0.0, abs=1e-7 * np.trace(c1))


# -- precision and recall --------------------------------------------------------------------------
def by_definition(real, generated, k):
    """By all pairs, sorted."""

    def radii(x):
        return np.sort(cdist(x, x), axis=1)[:, k] * (1 + 1e-9) + 1e-9

    apart = cdist(real, generated)
    precision = (apart <= radii(real)[:, np.newaxis]).any(axis=0).mean()
    return precision, (apart <= radii(generated)).any(axis=1).mean()


@quick
@given(seeds, st.integers(1, 5), st.integers(6, 40), st.integers(6, 40), st.integers(1, 5))
def test_precision_and_recall_by_definition(seed, d, n, m, k) -> None:
    draw = generator(seed)
    real = draw.standard_normal((n, d))
    generated = draw.standard_normal((m, d)) * draw.uniform(0.3, 2) + draw.uniform(-1, 1)
    found = precision_recall(real, generated, k)
    assert found == pytest.approx(by_definition(real, generated, k))
    shuffled = precision_recall(draw.permutation(real), draw.permutation(generated), k)
    assert shuffled == pytest.approx(found)
    turn, shift = rotation(d, seed), draw.standard_normal(d)
    moved = precision_recall(real @ turn + shift, generated @ turn + shift, k)
    assert moved == pytest.approx(found)
    assert precision_recall(generated, real, k) == pytest.approx(found[::-1])


def test_precision_and_recall_in_closed_form() -> None:
    line = np.arange(12.0)[:, np.newaxis]  # inside, a radius of k = 3 is 2, at the ends 3
    assert precision_recall(line, line + 2.5) == (12 / 12, 12 / 12)
    edges = np.array([[-3.0], [-3.01], [14.0], [14.01], [99.0]])
    assert precision_recall(line, edges)[0] == 0.4
    assert precision_recall(line, line[:5]) == (1.0, 8 / 12)  # radii 3, 2, 2, 2, 3: up to 4 + 3


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_rounding_does_not_put_copies_out_of_balls_of_no_width(far) -> None:
    x = far + 3 * generator(0).standard_normal((100, 17))
    four = np.repeat(x, 4, axis=0)  # as many as make each radius 0
    for few in (x[:5], x, x[::-1]):
        assert precision_recall(four, few)[0] == 1.0
        assert precision_recall(few, four)[1] == 1.0


# -- averages and errors ---------------------------------------------------------------------------
def test_average_scores_are_of_the_last_rows_that_hold_them() -> None:
    rows = [{"a": 100.0, "b": 1.0}, {"a": 1.0}, {"a": 2.0, "b": 3.0}, {"a": 6.0}]
    assert average_scores(rows, last=3) == {"a": 3.0, "b": 2.0}
    assert average_scores(rows, last=99)["a"] == pytest.approx(109 / 4)
    assert average_scores([]) == {}


def test_what_cannot_be_scored_is_refused() -> None:
    modes = ring(10).modes
    no = np.array([[0.0, np.nan], [0.0, 0.0], [np.inf, 0.0]])
    for error, match, call in (
        (DivergenceError, "2 of 3", lambda: modes.score(no)),
        (ShapeError, r"expected \(n, 2\)", lambda: modes.score(np.zeros((3, 3)))),
        (ShapeError, r"expected \(n, 2\)", lambda: modes.score(np.zeros((0, 2)))),
        (ArchitectureError, "std", lambda: Modes(np.zeros((2, 2)), 0.0)),
        (ShapeError, "more than 3", lambda: precision_recall(np.zeros((3, 2)), np.zeros((9, 2)))),
        (ShapeError, "expected", lambda: precision_recall(np.zeros((9, 2)), np.zeros((9, 3)))),
    ):
        with pytest.raises(error, match=match):
            call()
