"""Planes, regions and coordinates of noise, checked against the gains of the likelihoods."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise_points import point, points, random_point

from nembp.engine.network import dense_network
from nembp.errors import ShapeError
from nembp.plotting.noise import (
    Corner,
    Disc,
    GainCurve,
    HalfPlane,
    Plane,
    Point,
    TurnedPlane,
    ball_view,
    pair_view,
    simplex_view,
    span_view,
)

seeds = st.integers(0, 2**32)


def rounding(p: Point, n: np.ndarray) -> np.ndarray:
    """What a gain may be off by: its terms' sizes times a few units in the last place."""
    w, scale = np.abs(p.slope), p.likelihood.scale
    return 1e-12 * (np.abs(n) @ w + (n * n).sum(axis=1) * scale + 1e-300)


# -- points ----------------------------------------------------------------------------------------
@given(points(), seeds)
def test_gain_is_the_difference_of_log_likelihoods_and_slope_its_gradient(p, seed):
    n = 0.1 * np.random.default_rng(seed).standard_normal((5, p.width))
    o, t = p.rows(5)
    before = p.likelihood.log_likelihood(o, t).copy()
    after = p.likelihood.log_likelihood(o, t + n)
    scale = np.abs(before).max() + np.abs(after).max() + np.abs(p.z).sum()
    assert np.allclose(p.gain(n), (after - before)[:, 0], rtol=0, atol=1e-11 * scale)
    h = 1e-4
    steps = h * np.eye(p.width)
    central = (p.gain(steps) - p.gain(-steps)) / (2 * h)
    assert np.allclose(p.slope, central, rtol=1e-6, atol=1e-9 * (1 + np.abs(p.slope).max()))


@given(points(), seeds)
def test_some_neurons_alone_gain_what_zero_noise_in_the_others_gains(p, seed):
    g = np.random.default_rng(seed)
    chosen = g.choice(p.width, 2, replace=False)
    n = np.zeros((4, p.width))
    n[:, chosen] = g.standard_normal((4, 2))
    assert np.allclose(p.only(chosen).gain(n[:, chosen]), p.gain(n), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_point_is_what_the_network_says_of_a_sample(dtype):
    net = dense_network([5, 7, 3], seed=1, dtype=dtype)
    x, t = np.random.default_rng(0).standard_normal((1, 5)), np.eye(3)[[1]]
    for direction, inputs, target in ((net, x, t), (net.reversed, t, x)):
        p = Point.of(direction, inputs, target)
        assert np.allclose(p.a, direction.predict(inputs)[0], rtol=1e-6)
        assert np.array_equal(p.t, target[0])
        assert p.likelihood is direction.likelihood
        o, targets = p.rows(1)
        value = p.likelihood.log_likelihood(o, targets)[0, 0]
        assert value == pytest.approx(direction.log_likelihood(inputs, target)[0], rel=1e-5)


def test_what_does_not_fit_the_network_is_refused():
    net = dense_network([5, 3], seed=1)
    with pytest.raises(ShapeError, match=r"target has shape \(1, 2\), expected \(1, 3\)"):
        Point.of(net, np.zeros((1, 5)), np.zeros((1, 2)))
    with pytest.raises(ShapeError, match="input has shape"):
        Point.of(net, np.zeros((1, 4)), np.zeros((1, 3)))
    with np.errstate(all="ignore"), pytest.raises(ShapeError, match="not finite"):
        Point.of(net, np.full((1, 5), 3e38), np.zeros((1, 3)))


# -- coordinates -----------------------------------------------------------------------------------
@given(st.integers(2, 90), seeds, st.sampled_from(("random", "same", "zero", "tiny", "huge")))
def test_planes_are_orthonormal_and_hold_their_vectors(width, seed, kind):
    first, second = np.random.default_rng(seed).standard_normal((2, width))
    if kind == "same":
        second = 3 * first
    scale = {"zero": 0.0, "tiny": 1e-200, "huge": 1e200}.get(kind, 1.0)
    axes = Plane.through(scale * first, scale * second).axes
    assert np.allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    if kind != "zero":
        assert np.allclose(axes[0], first / np.linalg.norm(first), atol=1e-12)
    if kind in ("random", "tiny", "huge"):
        rest = second - axes.T @ (axes @ second)
        assert np.linalg.norm(rest) < 1e-10 * np.linalg.norm(second)
        assert axes[1] @ second > 0


def test_a_plane_needs_two_neurons():
    with pytest.raises(ShapeError, match="at least 2 neurons, got 1"):
        Plane.through([1.0], [2.0])


def test_coordinates_and_lift_undo_each_other():
    g = np.random.default_rng(0)
    for plane in (Plane.through(*g.standard_normal((2, 9))), Plane.simplex()):
        c = g.standard_normal((6, 2))
        assert np.allclose(plane.coordinates(plane.lift(c)), c)


def test_the_simplex_is_an_equilateral_triangle_of_true_size():
    plane = Plane.simplex()
    corners = plane.coordinates(np.eye(3))
    for i in range(3):
        assert np.linalg.norm(corners[i] - corners[i - 1]) == pytest.approx(np.sqrt(2))
    assert np.allclose(plane.coordinates(np.ones((1, 3)) / 3), 0)
    assert np.allclose(plane.lift(np.random.default_rng(0).standard_normal((5, 2))).sum(1), 0)
    assert np.allclose(plane.axes @ plane.axes.T, np.eye(2))


@given(st.integers(2, 50), seeds)
def test_a_turned_plane_keeps_lengths_and_distances_from_its_axis(width, seed):
    g = np.random.default_rng(seed)
    frame = TurnedPlane(*Plane.through(*g.standard_normal((2, width))).axes)
    n, r = g.standard_normal((20, width)), 2.0
    c = frame.coordinates(n)
    assert np.allclose((c**2).sum(1), (n**2).sum(1))
    from_point = np.linalg.norm(n - r * frame.axis, axis=1)
    assert np.allclose(np.linalg.norm(c - [r, 0.0], axis=1), from_point)
    assert np.array_equal(c[:, 1] > 0, n @ frame.side > 0)


# -- regions ---------------------------------------------------------------------------------------
def test_regions_contain_what_they_should():
    c = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    assert HalfPlane(np.array([1.0, 0.0])).contains(c).tolist() == [True, True, True, False]
    assert HalfPlane(np.zeros(2)).contains(c).all()
    assert Corner(np.array([1.0, -1.0])).contains(c).tolist() == [True, True, False, False]
    assert Disc(np.array([1.0, 0.0]), 1.0).contains(c).tolist() == [True, True, False, False]


@given(points(("multinomial", "bernoulli")), seeds)
def test_the_half_space_is_where_the_gain_is_at_least_zero(p, seed):
    g = np.random.default_rng(seed)
    views = [span_view(p, 0), pair_view(p, str, by_neuron=False)]
    if p.likelihood.name == "multinomial" and p.width > 2:
        views.append(simplex_view(p, str))
    for view in views:
        plane, region, q = view.frame, view.region, view.point
        c = g.standard_normal((200, 2))
        n = plane.lift(c)
        gain, slack = q.gain(n), rounding(q, n)
        inside = region.contains(c)
        assert (gain[inside] >= -slack[inside]).all()
        assert (gain[~inside] <= slack[~inside]).all()
        # the boundary has gain 0
        edge = np.array([[-region.normal[1], region.normal[0]]])
        n = plane.lift(edge * g.standard_normal((20, 1)))
        assert (np.abs(q.gain(n)) <= rounding(q, n)).all()
        if view.kind == "span":  # which a draw of any direction falls on the right side of
            n = g.standard_normal((200, p.width))
            gain, slack = p.gain(n), rounding(p, n)
            inside = region.contains(plane.coordinates(n))
            assert (gain[inside] >= -slack[inside]).all()
            assert (gain[~inside] <= slack[~inside]).all()


@given(points(("gaussian",)), seeds)
def test_the_ball_is_where_the_gain_is_at_least_zero(p, seed):
    g = np.random.default_rng(seed)
    view = ball_view(p, 0, "")
    frame, ball = view.frame, view.region
    assert ball.radius == pytest.approx(np.linalg.norm(p.a - p.t))
    assert np.allclose(frame.coordinates(p.a - p.t), view.output)
    # draws of any direction, of lengths around the ball's
    n = g.standard_normal((300, p.width))
    n *= ball.radius * g.uniform(0, 2.5, (300, 1)) / np.linalg.norm(n, axis=1, keepdims=True)
    inside = ball.contains(frame.coordinates(n))
    gain, slack = p.gain(n), rounding(p, n)
    assert (gain[inside] >= -slack[inside]).all()
    assert (gain[~inside] <= slack[~inside]).all()
    assert inside.any() or p.width > 8
    # the sphere has gain 0, and so has t itself
    u = g.standard_normal((50, p.width))
    n = p.a - p.t + ball.radius * u / np.linalg.norm(u, axis=1, keepdims=True)
    assert (np.abs(p.gain(n)) <= 1e3 * rounding(p, n)).all()
    on_edge = np.linalg.norm(frame.coordinates(n) - ball.centre, axis=1)
    assert np.allclose(on_edge, ball.radius)
    assert p.gain(np.zeros((1, p.width))) == 0


def test_the_pair_of_a_component_screen_is_a_corner():
    p = random_point("bernoulli", 6, seed=3)
    view = pair_view(p, str, by_neuron=True)
    c = np.random.default_rng(0).standard_normal((200, 2))
    terms = c * view.point.slope
    assert np.array_equal(view.region.contains(c), (terms >= 0).all(axis=1))


@pytest.mark.parametrize("name", ["gaussian", "bernoulli"])
def test_a_single_neuron_has_a_curve_of_gain(name):
    p = point(name, [0.7], [0.0], weight=2.0)
    n = np.linspace(-2, 2, 9)[:, np.newaxis]
    c = GainCurve(p).coordinates(n)
    expected = 2.0 * 0.7 * n[:, 0] if name == "bernoulli" else n[:, 0] * (1.4 - n[:, 0])
    assert np.allclose(c, np.stack([n[:, 0], expected], axis=1))


# -- what is looked at -----------------------------------------------------------------------------
def test_the_simplex_shows_the_target_and_the_two_most_probable_others():
    z = np.log([0.05, 0.4, 0.1, 0.25, 0.2])
    view = simplex_view(point("multinomial", z, np.eye(5)[2]), "abcde".__getitem__)
    names = [name for name, _ in view.corners]
    assert names == ["c (p = 0.100)", "b (p = 0.400)", "d (p = 0.250)"]
    assert np.allclose(view.corners[0][1], 0)  # the target is its class's corner
    places = np.array([place for _, place in view.corners])
    assert np.allclose(view.output, np.array([0.1, 0.4, 0.25]) / 0.75 @ places)
    assert "0.75 of the probability; a is scaled" in view.note


def test_a_target_of_another_sum_has_a_simplex_of_that_size():
    p = point("multinomial", np.zeros(3), [3.0, 1.0, 0.0])
    places = np.array([place for _, place in simplex_view(p, str).corners])
    assert np.linalg.norm(places[0] - places[1]) == pytest.approx(4 * np.sqrt(2))
    assert np.allclose(np.array([0.75, 0.25, 0.0]) @ places, 0)


def test_the_pair_are_the_neurons_furthest_from_their_targets():
    p = point("bernoulli", [3.0, -3.0, 2.0, 0.0], [1.0, 1.0, 0.0, 0.0])
    view = pair_view(p, "pixel {}".format, by_neuron=False)
    assert (view.x_label, view.y_label) == ("noise in pixel 1", "noise in pixel 2")
    assert np.allclose(view.output, (p.a - p.t)[1:3])


def test_the_line_of_sum_zero_is_noise_whose_sum_is_zero():
    p = random_point("multinomial", 7)
    for view in (span_view(p, 0), pair_view(p, str, by_neuron=True)):
        noise = view.frame.lift(view.sum_zero[np.newaxis])
        assert noise.sum() == pytest.approx(0, abs=1e-12)
        assert np.linalg.norm(noise) == pytest.approx(1)
    assert span_view(random_point("bernoulli", 7), 0).sum_zero is None
