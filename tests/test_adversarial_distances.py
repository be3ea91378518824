"""Fréchet distance, precision and recall: against definitions, and laws that any must obey."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from metrics_cases import generator, quick, rotation, seeds

from nembp.adversarial import neighbours
from nembp.adversarial.neighbours import precision_recall, squared_radii
from nembp.adversarial.scores import (
    frechet_distance,
    moments,
)
from nembp.errors import ShapeError


def covariance(d: int, seed: int, rank: int | None = None) -> np.ndarray:
    a = generator(seed).standard_normal((d, rank or d))
    return a @ a.T


# -- Fréchet distance ------------------------------------------------------------------------------
def frechet_laws(distance: Callable[..., float]) -> None:
    """Closed forms, and the square root of a product by SciPy; planted bugs must fail one."""
    zero, one = np.zeros(3), np.array([1.0, -2.0, 2.0])
    eye = np.eye(3)
    assert distance(zero, eye, zero, eye) == pytest.approx(0.0, abs=1e-12)
    assert distance(zero, eye, one, eye) == pytest.approx(9.0)
    stretched = np.diag([1.0, 4.0, 9.0])  # sum of (σ₁ − σ₂)² where both are diagonal
    assert distance(zero, eye, zero, stretched) == pytest.approx(0 + 1 + 4)
    assert distance(zero, np.zeros((3, 3)), zero, stretched) == pytest.approx(14.0)
    for seed in range(5):
        a, b = covariance(3, seed), covariance(3, seed + 100)
        root = scipy.linalg.sqrtm(a @ b)
        expected = 9.0 + np.trace(a + b - 2 * np.real(root))
        assert distance(one, a, zero, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_in_closed_form() -> None:
    frechet_laws(frechet_distance)


def scipy_free(mean1, cov1, mean2, cov2, *, root, overlap=2.0, power=2) -> float:
    shift = (np.abs(mean1 - mean2) ** power).sum()
    return shift + np.trace(cov1 + cov2) - overlap * np.trace(root(cov1, cov2))


def diagonal_root(cov: np.ndarray) -> np.ndarray:
    return np.diag(np.sqrt(np.maximum(np.diag(cov), 0)))


PLANTED_FRECHET = {
    "roots of the diagonals": {"root": lambda a, b: diagonal_root(a) @ diagonal_root(b)},
    "product of the roots": {
        "root": lambda a, b: np.real(scipy.linalg.sqrtm(a) @ scipy.linalg.sqrtm(b))
    },
    "no root": {"root": lambda a, b: a @ b},
    "overlap once": {"root": lambda a, b: np.real(scipy.linalg.sqrtm(a @ b)), "overlap": 1.0},
    "shift not squared": {"root": lambda a, b: np.real(scipy.linalg.sqrtm(a @ b)), "power": 1},
}


@pytest.mark.filterwarnings("ignore")  # a singular root is the planted bug's own affair
@pytest.mark.parametrize("bug", PLANTED_FRECHET)
def test_planted_frechet_distances_are_caught(bug) -> None:
    def planted(*gaussians: np.ndarray) -> float:
        return scipy_free(*gaussians, **PLANTED_FRECHET[bug])

    with pytest.raises(AssertionError):
        frechet_laws(planted)


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


def test_frechet_distance_of_fewer_samples_than_features() -> None:
    """Singular covariances, on which a square root of Σ₁Σ₂ would be complex."""
    x, y = generator(0).standard_normal((2, 20, 60))
    value = frechet_distance(*moments(x), *moments(y))
    assert math.isfinite(value)
    assert value > 0
    assert frechet_distance(*moments(x), *moments(x[::-1])) == pytest.approx(0, abs=1e-9)


@quick
@given(seeds, st.integers(2, 30), st.integers(1, 6))
def test_moments_are_numpy_s(seed, n, d) -> None:
    x = 1e3 + generator(seed).standard_normal((n, d)).astype(np.float32)
    mean, cov = moments(x)
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64), rtol=1e-12)
    expected = np.cov(x.astype(np.float64), rowvar=False).reshape(d, d)
    np.testing.assert_allclose(cov, expected, rtol=1e-9, atol=1e-9)


def test_gaussians_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="expected"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ShapeError, match="at least 2"):
        moments(np.zeros((1, 3)))


# -- precision and recall --------------------------------------------------------------------------
def by_definition(real: np.ndarray, generated: np.ndarray, k: int) -> tuple[float, float]:
    """By all pairs, and scikit-learn's neighbours for the radii."""
    from scipy.spatial.distance import cdist
    from sklearn.neighbors import NearestNeighbors

    def radii(x):
        found = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(x).kneighbors(x)[0]
        return found[:, k] * (1 + 1e-9) + 1e-9

    apart = cdist(real, generated)
    precision = (apart <= radii(real)[:, np.newaxis]).any(axis=0).mean()
    recall = (apart <= radii(generated)).any(axis=1).mean()
    return precision, recall


def neighbour_laws(score: Callable[..., tuple[float, float]]) -> None:
    """What precision and recall must be; planted bugs must fail one."""
    x = generator(0).standard_normal((60, 4))
    assert score(x, x) == (1.0, 1.0)
    assert score(x, x + 50) == (0.0, 0.0)
    # a collapsed generator: believable, but of a small part; and the other way round
    precision, recall = score(x, np.repeat(x[:1], 60, axis=0) + 1e-6)
    assert precision == 1.0
    assert recall <= 4 / 60
    wide = np.concatenate([x, x + 50])
    precision, recall = score(x, wide)
    assert precision == 0.5
    assert recall == 1.0
    line = np.arange(12.0)[:, np.newaxis]  # inside, a radius of k = 3 is 2, at the ends 3
    assert score(line, line + 2.5) == (12 / 12, 12 / 12)
    assert score(line, np.array([[-3.0], [-3.01], [14.0], [14.01], [99.0]]))[0] == 0.4
    assert score(line, line[:5]) == (1.0, 8 / 12)  # radii 3, 2, 2, 2, 3: up to 4 + 3


def test_precision_and_recall_in_closed_form() -> None:
    neighbour_laws(precision_recall)


def test_planted_precision_and_recall_are_caught() -> None:
    from scipy.spatial.distance import cdist

    def planted(real, generated, *, own=0, swap=False, which=3):
        def radii(x):
            return np.sort(cdist(x, x), axis=1)[:, which - own] + 1e-12

        apart = cdist(real, generated)
        precision = (apart <= radii(real)[:, np.newaxis]).any(axis=0).mean()
        recall = (apart <= radii(generated)).any(axis=1).mean()
        return (recall, precision) if swap else (precision, recall)

    neighbour_laws(planted)  # without a bug it passes
    for bug in ({"own": 1}, {"swap": True}, {"which": 4}, {"which": 1}):
        with pytest.raises(AssertionError):
            neighbour_laws(lambda real, generated, bug=bug: planted(real, generated, **bug))


@quick
@given(seeds, st.integers(1, 5), st.integers(6, 40), st.integers(6, 40), st.integers(1, 5))
def test_precision_and_recall_by_definition(seed, d, n, m, k) -> None:
    draw = generator(seed)
    real = draw.standard_normal((n, d))
    generated = draw.standard_normal((m, d)) * draw.uniform(0.3, 2) + draw.uniform(-1, 1)
    scores = precision_recall(real, generated, k)
    assert scores == pytest.approx(by_definition(real, generated, k))
    shuffled = precision_recall(draw.permutation(real), draw.permutation(generated), k)
    assert shuffled == pytest.approx(scores)
    turn, shift = rotation(d, seed), draw.standard_normal(d)
    moved = precision_recall(real @ turn + shift, generated @ turn + shift, k)
    assert moved == pytest.approx(scores)
    assert precision_recall(generated, real, k) == pytest.approx(scores[::-1])


@quick
@given(seeds, st.integers(1, 6), st.integers(6, 40), st.integers(1, 5))
def test_radii_are_scikit_learn_s(seed, d, n, k) -> None:
    from sklearn.neighbors import NearestNeighbors

    x = generator(seed).standard_normal((n, d))
    found = NearestNeighbors(n_neighbors=k).fit(x).kneighbors()[0][:, -1]
    np.testing.assert_allclose(np.sqrt(squared_radii(x, k)), found, rtol=1e-6)


@pytest.mark.parametrize("d", [3, 17, 100])
@pytest.mark.parametrize("far", [0.0, 1e4])
def test_rounding_does_not_put_copies_out_of_balls_of_no_width(d, far) -> None:
    x = far + 3 * generator(0).standard_normal((100, d))
    four = np.repeat(x, 4, axis=0)  # as many as make each radius 0
    for few in (x[:5], x, x[::-1]):
        assert precision_recall(four, few)[0] == 1.0
        assert precision_recall(few, four)[1] == 1.0


def test_blocks_of_distances_change_nothing(monkeypatch) -> None:
    x, y = generator(0).standard_normal((2, 50, 3))
    whole = precision_recall(x, y)
    monkeypatch.setattr(neighbours, "BLOCK", 120)
    assert precision_recall(x, y) == whole


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ShapeError, match="more than 3"):
        precision_recall(np.zeros((3, 2)), np.zeros((9, 2)))
    with pytest.raises(ShapeError, match="expected"):
        precision_recall(np.zeros((9, 2)), np.zeros((9, 3)))
    with pytest.raises(ShapeError, match="k=5"):
        squared_radii(np.zeros((5, 2)), 5)
