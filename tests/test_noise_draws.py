"""Clouds of drawn noise: what `NoiseSource` drew and kept, and the shares theory says.

Statistical tests compare a share of N draws with its probability p at 5 standard deviations,
5 √(p (1 − p)/N): each fails by chance once in two million seeds, and the seeds are fixed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise_points import point, points, random_point

from nembp.backend import get_backend
from nembp.engine.noise import Noise, NoiseSource
from nembp.plotting.noise import (
    STREAM,
    Plane,
    TurnedPlane,
    ball_share,
    ball_view,
    box_share,
    draw_cloud,
    drift,
    noise_panels,
    span_view,
)

screenings = st.sampled_from(("vector", "component", "expectation"))
rejections = st.sampled_from(("reflect", "zero"))
laws = st.sampled_from(("gaussian", "uniform"))


def near(share: float, p: float, n: int) -> bool:
    return abs(share - p) <= 5 * math.sqrt(p * (1 - p) / n) + 1e-9


@given(points(), screenings, rejections, laws, st.integers(0, 99))
def test_draws_are_those_of_the_noise_source(p, screening, rejected, law, seed):
    noise = Noise("nem", screening=screening, rejected=rejected, law=law)
    frame = Plane.through(p.slope, np.ones(p.width))
    cloud = draw_cloud(p, noise, 0.3, frame, 50, seed=seed, batch=50)
    backend = get_backend("cpu")
    source = NoiseSource(
        noise, p.likelihood, backend, 50, p.width, "float64", backend.generator(seed, STREAM)
    )
    o, t = p.rows(50)
    n = source(o, t, 0.3)
    assert np.allclose(cloud.kept, frame.coordinates(n), rtol=1e-12, atol=1e-12)
    assert np.allclose(cloud.mean, n.mean(axis=0))
    assert cloud.gain == pytest.approx(float(source.gain[0, 0]), rel=1e-9, abs=1e-12)
    assert cloud.accepted + cloud.reflected == pytest.approx(float(source.accepted[0, 0]))
    assert cloud.accepted + cloud.reflected + cloud.dropped == pytest.approx(1)
    if rejected == "zero":
        assert cloud.reflected == 0
    # where screening did nothing, n is as drawn; where it reflected, −n
    assert np.array_equal(cloud.kept[cloud.fate == 0], cloud.drawn[cloud.fate == 0])
    assert np.allclose(cloud.kept[cloud.fate == 1], -cloud.drawn[cloud.fate == 1])
    assert not cloud.kept[cloud.fate == 2].any()


@given(points(), rejections, laws, st.integers(0, 99))
def test_whole_vectors_fall_into_the_region_exactly_where_they_are_accepted(p, rejected, law, seed):
    noise = Noise("nem", screening="vector", rejected=rejected, law=law)
    view = span_view(p, 0) if p.likelihood.gain_is_linear else ball_view(p, 0, "")
    cloud = draw_cloud(p, noise, 0.3, view.frame, 200, seed=seed)
    edge = np.array([1e-9, 0.0])  # towards the inside; what rounding may cost
    if p.likelihood.gain_is_linear:
        edge = 1e-9 * view.region.normal / np.linalg.norm(view.region.normal)
    inside, surely = (view.region.contains(cloud.drawn + s * edge) for s in (1, -1))
    assert inside[cloud.fate == 0].all()
    assert not surely[cloud.fate > 0].any()
    assert view.region.contains(cloud.kept + edge).all()
    if p.likelihood.gain_is_linear and rejected == "reflect":
        assert (cloud.fate < 2).all()


@given(points(("gaussian",)), st.integers(0, 99))
def test_neurons_screened_one_by_one_end_up_in_the_ball_too(p, seed):
    view = ball_view(p, 0, "")
    cloud = draw_cloud(p, Noise("nem"), 0.3, view.frame, 200, seed=seed)
    assert view.region.contains(cloud.kept * (1 - 1e-9)).all()
    assert cloud.gain >= 0


def test_many_draws_come_in_blocks_and_batches_are_screened_together():
    p = random_point("bernoulli", 600)
    frame = Plane.through(p.slope, np.ones(600))
    whole = draw_cloud(p, Noise("nem"), 0.1, frame, 1000)  # more than a block
    assert whole.drawn.shape == (1000, 2)
    assert len(np.unique(whole.drawn[:, 0])) == 1000
    batched = draw_cloud(p, Noise("nem", screening="expectation"), 0.1, frame, 1000, batch=40)
    fates = batched.fate.reshape(25, 40)
    assert (fates == fates[:, :1]).all()
    assert 0 < (fates[:, 0] == 0).sum() < 25
    assert (fates < 2).all()


def test_the_same_seed_gives_the_same_draws_under_any_screening():
    p = random_point("gaussian", 30)
    frame = ball_view(p, 0, "").frame
    clouds = [
        draw_cloud(p, Noise("nem", screening=s, rejected=r), 0.1, frame, 100, seed=4)
        for s in ("vector", "component") for r in ("zero", "reflect")
    ]  # fmt: skip
    assert all(np.array_equal(cloud.drawn, clouds[0].drawn) for cloud in clouds)
    other = draw_cloud(p, Noise("nem"), 0.1, frame, 100, seed=5)
    assert not np.allclose(other.drawn, clouds[0].drawn)


# -- shares ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("std", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("width", [2, 15, 300])
def test_shares_of_the_ball_are_those_of_theory(width, std):
    g = np.random.default_rng(width)
    a = 0.25 * g.standard_normal(width)
    p = point("gaussian", a, np.zeros(width))
    frame = TurnedPlane(*Plane.through(a, g.standard_normal(width)).axes)
    r, n = float(np.linalg.norm(a)), 4000
    whole = draw_cloud(p, Noise("nem", screening="vector"), std, frame, n)
    assert near(whole.accepted, ball_share(width, r, std), n)
    assert near(whole.reflected, ball_share(width, r, std), n)  # n and −n are as likely
    single = draw_cloud(p, Noise("nem", screening="component"), std, frame, n)
    assert near(single.accepted, box_share(a, std), n * width)


def test_the_share_of_the_ball_at_its_limits():
    for width in (2, 784):
        for std in (1.001e-5, 0.999e-5):  # either side of where the formula changes
            exact = ball_share(width, 1.0, std)
            assert exact == pytest.approx(
                0.5 - (width - 1) * std / math.sqrt(8 * math.pi), rel=1e-5
            )
        assert ball_share(width, 1.0, 1e-200) == pytest.approx(0.5)
        assert ball_share(width, 0.0, 1.0) == 0
        assert 0 <= ball_share(width, 1e-3, 10.0) < 1e-6
    assert ball_share(784, 6.0, 0.1) < 1e-9  # what a picture of 784 pixels is about
    assert box_share(np.zeros(5), 1.0) == 0
    assert box_share(np.full(5, 100.0), 1.0) == pytest.approx(0.5)


# -- the drift -------------------------------------------------------------------------------------
def test_the_drift_is_the_mean_of_the_kept_noise():
    n, std = 20_000, 0.3
    for name, screening, law in (
        ("multinomial", "vector", "gaussian"),
        ("bernoulli", "vector", "uniform"),
        ("gaussian", "component", "gaussian"),
    ):
        p = random_point(name, 6, seed=2)
        noise = Noise("nem", screening=screening, law=law)
        cloud = draw_cloud(p, noise, std, Plane.through(p.slope, np.ones(6)), n)
        mean = drift(p, noise, std, cloud)
        # 5 standard errors of a neuron's mean: a false alarm in 10⁵ seeds over all neurons
        assert np.abs(mean - cloud.mean).max() <= 5 * std / math.sqrt(n)
        closed = (name, law) == ("multinomial", "gaussian")
        assert np.array_equal(mean, cloud.mean) != closed
        if closed:  # √(2/π) σ along the normal
            w = p.slope / np.linalg.norm(p.slope)
            assert np.allclose(mean, math.sqrt(2 / math.pi) * std * w)


def test_anti_noise_is_on_the_other_side():
    p = random_point("multinomial", 5)
    frame = span_view(p, 0).frame
    cloud = draw_cloud(p, Noise("anti"), 0.1, frame, 200)
    assert (cloud.kept[:, 0] <= 0).all()
    assert cloud.gain < 0
    assert drift(p, Noise("anti"), 0.1, cloud) is cloud.mean


# -- panels ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "width", "screening", "expected"),
    [
        ("multinomial", 10, "auto", [("simplex", "vector", 3), ("span", "vector", 10)]),
        ("multinomial", 3, "vector", [("simplex", "vector", 3), ("span", "vector", 3)]),
        ("multinomial", 10, "component", [("pair", "component", 2), ("span", "component", 10)]),
        ("multinomial", 10, "expectation", [("simplex", "expectation", 3),
                                            ("span", "expectation", 10)]),
        ("multinomial", 2, "auto", [("pair", "vector", 2)]),
        ("bernoulli", 50, "auto", [("pair", "vector", 2), ("span", "vector", 50)]),
        ("bernoulli", 1, "auto", [("line", "vector", 1)]),
        ("gaussian", 50, "auto", [("ball", "vector", 50), ("ball", "component", 50)]),
        ("gaussian", 50, "vector", [("ball", "vector", 50)]),
        ("gaussian", 50, "expectation", [("ball", "expectation", 50)]),
        ("gaussian", 1, "auto", [("line", "component", 1)]),
    ],
)  # fmt: skip
def test_each_end_has_its_panels(name, width, screening, expected):
    p = random_point(name, width, seed=1)
    panels = noise_panels(p, Noise("nem", screening=screening), 0.1, draws=400)
    assert [(q.view.kind, q.screening, q.view.point.width) for q in panels] == expected
    for panel in panels:
        assert panel.cloud.drawn.shape == (400, 2)
        if panel.exact is not None:
            neurons = panel.view.point.width if panel.screening == "component" else 1
            assert near(panel.cloud.accepted, panel.exact, 400 * neurons)
        assert (panel.exact is None) == (screening == "expectation")


def test_noise_on_the_simplex_stays_in_its_plane_and_other_noise_changes_the_sum():
    p = random_point("multinomial", 10, seed=1)
    simplex, span = noise_panels(p, Noise("nem"), 0.1, draws=300)
    assert simplex.sum_change == pytest.approx(0, abs=1e-12)
    assert np.allclose(simplex.view.frame.lift(simplex.cloud.kept).sum(axis=1), 0)
    assert span.sum_change < -0.05  # log a < 0 in every class
    assert simplex.view.region.contains(
        simplex.cloud.kept + 1e-12 * simplex.view.region.normal
    ).all()
