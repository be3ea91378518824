"""EM and noisy EM for Gaussian mixtures."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.mixture import GaussianMixture as Reference

from nembp.em import (
    GaussianMixture,
    draw_mixture_noise,
    fit_mixture,
    initial_mixture,
    m_step,
    study_convergence,
)
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError, DivergenceError, ShapeError

seeds = st.integers(0, 2**32 - 1)
dimensions = st.integers(1, 4)
KINDS = ["nem", "blind", "anti", "drift"]


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference over the larger of 1 and the largest entry."""
    return float(np.abs(a - b).max() / max(1.0, np.abs(a).max(), np.abs(b).max()))


def mixture_case(seed, dimension=1, components=3, rows=90):
    """Return data of overlapping clusters of different shapes, and a start for EM."""
    g = np.random.default_rng(seed)
    size, square, parts = (rows // components, dimension), (dimension, dimension), []
    for _ in range(components):
        shaped = g.standard_normal(size) @ g.standard_normal(square)
        parts.append(shaped + g.normal(0.0, 2.0, dimension))
    y = np.concatenate(parts)
    return y, initial_mixture(y, components, g)


# -- EM --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("d", [1, 2, 5])
def test_em_is_scikit_learn_s_iteration_by_iteration_and_stops_where_it_does(d):
    y, start = mixture_case(d, d, rows=150)
    options = {"weights_init": start.weights, "means_init": start.means}
    options["precisions_init"] = np.linalg.inv(start.covariances)
    reference = Reference(3, max_iter=1, tol=0.0, warm_start=True, **options)
    for k in range(1, 16):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one iteration does not converge: that is the point
            reference.fit(y)
        fitted = fit_mixture(y, start, iterations=k, tolerance=0.0)
        for name in ("weights", "means", "covariances"):
            assert relative(getattr(reference, f"{name}_"), getattr(fitted.mixture, name)) < 1e-9
        assert abs(reference.lower_bound_ - fitted.log_likelihood[k - 1]) < 1e-9
    reference, fitted = Reference(3, **options).fit(y), fit_mixture(y, start)
    assert fitted.converged
    assert len(fitted.noise_gain) == reference.n_iter_
    assert relative(fitted.mixture.covariances, reference.covariances_) < 1e-9
    np.testing.assert_allclose(fitted.log_likelihood[:-1], reference.lower_bounds_, rtol=1e-9)
    assert fitted.log_likelihood[-1] == pytest.approx(reference.score(y), rel=1e-9)


# -- noise -----------------------------------------------------------------------------------------
@given(seeds)
def test_in_one_dimension_the_condition_is_the_published_one(seed):
    y, mixture = mixture_case(seed, 1)
    n = np.random.default_rng(seed).normal(0.0, 2.0, y.shape)
    published = n * (n - 2.0 * (mixture.means[:, 0] - y)) <= 0.0
    np.testing.assert_array_equal(mixture.gains(y, n) >= 0.0, published)


@given(seeds, dimensions, st.sampled_from(["zero", "reflect"]))
def test_every_draw_satisfies_its_own_condition(seed, d, rejected):
    y, mixture = mixture_case(seed, d)
    g = np.random.default_rng(seed)
    r = mixture.posterior(y)

    def gains(kind, condition):
        noise = Noise(kind, std=0.7, rejected=rejected)
        n = draw_mixture_noise(mixture, y, noise, g, condition=condition)
        return mixture.gains(y, n)

    assert gains("nem", "every").min() >= 0.0
    assert gains("anti", "every").max() <= 0.0
    assert (r * gains("nem", "posterior")).sum(axis=1).min() >= -1e-12
    assert (r * gains("anti", "posterior")).sum(axis=1).max() <= 1e-12
    assert gains("blind", "every").min() < 0.0


def test_between_two_means_no_noise_passes_in_every_component():
    mixture = GaussianMixture([0.5, 0.5], [[-1.0], [2.0]], [[[1.0]], [[1.0]]])
    y = np.linspace(-3.0, 4.0, 701)[:, None]
    noise = Noise("nem", std=0.3)
    n = draw_mixture_noise(mixture, y, noise, np.random.default_rng(0))
    between = (y > -1.0) & (y < 2.0)
    assert not n[between].any()
    assert (n[y < -1.0] >= 0.0).all()  # towards the means
    assert (n[y > 2.0] <= 0.0).all()
    assert (n[~between] != 0.0).mean() > 0.5
    weaker = draw_mixture_noise(mixture, y, noise, np.random.default_rng(0), condition="posterior")
    assert (weaker[between] != 0.0).mean() > 0.5


def test_noise_gain_is_the_difference_of_q():
    y, start = mixture_case(5, 2)
    noise = Noise("blind", std=0.5)
    g = np.random.default_rng(3)
    fitted = fit_mixture(y, start, noise=noise, generator=g, iterations=1, tolerance=0.0)
    n = draw_mixture_noise(start, y, noise, np.random.default_rng(3))
    r = start.posterior(y)
    expected = (start.q(y + n, r) - start.q(y, r)) / len(y)
    assert fitted.noise_gain[0] == pytest.approx(expected, rel=1e-10)
    # the M-step sees the noisy data with the posterior of the clean data
    assert relative(fitted.mixture.means, m_step(y + n, r, 1e-6).means) < 1e-14


# -- does the noise speed EM? ----------------------------------------------------------------------
LINE = GaussianMixture([0.5, 0.5], [[-2.0], [2.0]], [[[1.0]], [[1.0]]])


def test_on_the_line_nem_noise_speeds_em_and_the_controls_slow_it():
    # Measured before, on 240 data sets (seeds 10 to 15, 40 each), as faster : slower, the rest
    # ties: NEM against EM 136 : 21; EM against blind 144 : 3; NEM against blind 173 : 19. Each
    # sign test's false-alarm rate, if the two arms were alike, is the level it names.
    noise, kinds = Noise(std=0.5, decay=2.0), ("none", "nem", "blind")
    options = {"rows": 100, "datasets": 30, "seed": 1, "kinds": kinds, "iterations": 60}
    found = study_convergence(LINE, noise, **options)
    assert np.isfinite(found["none"]).all()
    for fast, slow, level in (
        ("nem", "none", 5e-2),
        ("none", "blind", 1e-2),
        ("nem", "blind", 1e-2),
    ):
        wins, losses = ((sign * (found[fast] - found[slow]) < 0).sum() for sign in (1, -1))
        assert binomtest(wins, wins + losses, alternative="greater").pvalue < level


def test_arms_without_noise_are_em():
    found = study_convergence(LINE, Noise(std=0.0), rows=40, datasets=3, seed=2, iterations=10)
    for kind in KINDS:
        np.testing.assert_array_equal(found[kind], found["none"])


# -- errors ----------------------------------------------------------------------------------------
def test_errors_say_what_to_do():
    y, start = mixture_case(0, 2)
    collapsing = GaussianMixture([0.5, 0.5], [[0.0], [9.5]], [[[0.01]], [[1.0]]])
    clusters = np.array([[0.0], [0.0], [0.0], [9.0], [10.0]])
    g, by_component = np.random.default_rng(0), Noise("nem", screening="component")
    few, skew = {"rows": 1, "datasets": 1, "seed": 0}, [[[1.0, 0.5], [0.0, 1.0]]]
    for error, match, call in (
        (ShapeError, "must have shapes", lambda: GaussianMixture([1.0], [[0.0], [1.0]], [[[1.0]]])),
        (ShapeError, "must be finite", lambda: GaussianMixture([1.0], [[np.nan]], [[[1.0]]])),
        (ArchitectureError, "sum to 1", lambda: GaussianMixture([0.9], [[0.0]], [[[1.0]]])),
        (ArchitectureError, "symmetric", lambda: GaussianMixture([1.0], [[0.0, 0.0]], skew)),
        (DivergenceError, "larger reg_covar", lambda: GaussianMixture([1.0], [[0.0]], [[[0.0]]])),
        (DivergenceError, "covariance 0", lambda: fit_mixture(clusters, collapsing, reg_covar=0.0)),
        (ShapeError, "y must have shape", lambda: start.posterior(y[:, :1])),
        (ShapeError, "y must be finite", lambda: fit_mixture(y * np.inf, start)),
        (ArchitectureError, "iterations must", lambda: fit_mixture(y, start, iterations=0)),
        (ArchitectureError, "needs a generator", lambda: fit_mixture(y, start, noise=Noise("nem"))),
        (ArchitectureError, "by whole rows", lambda: draw_mixture_noise(start, y, by_component, g)),
        (ArchitectureError, "distinct rows", lambda: initial_mixture(np.zeros((5, 2)), 2, g)),
        (ArchitectureError, "2 components need", lambda: study_convergence(LINE, Noise(), **few)),
    ):
        with pytest.raises(error, match=match):
            call()
