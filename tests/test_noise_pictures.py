"""Drawn noise: regions where the gain is ≥ 0, draws that fall into them, and what pictures show.

Statistical tests compare a share of N draws with its probability p at 5 standard deviations,
5 √(p (1 − p)/N): each fails by chance once in two million seeds, and the seeds are fixed.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nembp.backend import get_backend
from nembp.engine.likelihoods import get_likelihood
from nembp.engine.noise import Noise, NoiseSource
from nembp.errors import NembpError, OutputError
from nembp.plotting import noise as pictures
from nembp.plotting.noise import Point, View, draw_noise, draw_panel, noise_panels

pytest.importorskip("matplotlib")

seeds = st.integers(0, 2**32)


def point(name: str, z: Any, t: Any, weight: float = 1.0) -> Point:
    """A sample whose output has these pre-activations."""
    likelihood = get_likelihood(name, weight)
    o = likelihood.at(np.array([z], np.float64))
    return Point(likelihood, o.z[0], o.a[0], np.asarray(t, np.float64))


def random_point(name: str, width: int, seed: int = 0, spread: float = 1.0) -> Point:
    """A one-hot, binary or normal target under a random output."""
    g = np.random.default_rng(seed)
    targets = {
        "multinomial": lambda: np.eye(width)[g.integers(width)],
        "bernoulli": lambda: g.integers(0, 2, width).astype(float),
        "gaussian": lambda: g.standard_normal(width),
    }
    return point(name, spread * g.standard_normal(width), targets[name](), g.uniform(0.2, 3.0))


@st.composite
def points(draw: Any, names: tuple[str, ...] = ("multinomial", "bernoulli", "gaussian")) -> Point:
    """Random points of 2 to 40 units."""
    name, width = draw(st.sampled_from(names)), draw(st.integers(2, 40))
    return random_point(name, width, draw(seeds), draw(st.sampled_from((0.01, 1.0, 20.0))))


def main_view(p: Point) -> View:
    """All units, in the half-plane or in the disc."""
    return pictures.span_view(p, 0) if p.likelihood.gain_is_linear else pictures.ball_view(p, 0, "")


# -- views -----------------------------------------------------------------------------------------
@given(points(), seeds)
def test_noise_falls_into_the_region_where_its_gain_is_at_least_zero(p, seed):
    g = np.random.default_rng(seed)
    views = [main_view(p), pictures.pair_view(p, str, by_unit=False)]
    if p.likelihood.name == "multinomial" and p.width > 2:
        views.append(pictures.simplex_view(p, str))
    for view in views:
        q, size = view.point, 1.0 if view.output is None else np.linalg.norm(view.output)
        draws = [g.standard_normal((200, 2)) @ view.axes]
        if view in views[:1]:  # all units: noise of any direction falls on the right side
            draws.append(g.standard_normal((200, p.width)))
        for each in draws:
            lengths = size * g.uniform(0, 2.5, (200, 1))
            n = each * lengths / np.linalg.norm(each, axis=1, keepdims=True)
            assert np.allclose(view.gain(view.coordinates(n)), q.gain(n), atol=1e-9 * (1 + size**2))
            assert np.allclose(view.coordinates(-n), -view.coordinates(n), atol=1e-9)
        if view.sum_zero is not None:
            noise = view.sum_zero @ view.axes
            assert noise.sum() == pytest.approx(0, abs=1e-12)
            assert np.linalg.norm(noise) == pytest.approx(1)


def test_the_simplex_shows_the_target_and_the_two_most_probable_others():
    z = np.log([0.05, 0.4, 0.1, 0.25, 0.2])
    view = pictures.simplex_view(point("multinomial", z, np.eye(5)[2]), "abcde".__getitem__)
    assert [name for name, _ in view.corners] == ["c (p = 0.100)", "b (p = 0.400)", "d (p = 0.250)"]
    places = np.array([place for _, place in view.corners])
    assert np.allclose(places[0], 0)  # the target is its class's corner
    assert np.allclose(np.linalg.norm(places - np.roll(places, 1, axis=0), axis=1), np.sqrt(2))
    assert np.allclose(view.output, np.array([0.1, 0.4, 0.25]) / 0.75 @ places)
    assert "0.75 of the probability; a is scaled" in view.note
    # a target of another sum has a simplex of that size
    other = pictures.simplex_view(point("multinomial", np.zeros(3), [3.0, 1.0, 0.0]), str)
    places = np.array([place for _, place in other.corners])
    assert np.linalg.norm(places[0] - places[1]) == pytest.approx(4 * np.sqrt(2))
    assert np.allclose(np.array([0.75, 0.25, 0.0]) @ places, 0)


def test_the_pair_are_the_units_furthest_from_their_targets():
    p = point("bernoulli", [3.0, -3.0, 2.0, 0.0], [1.0, 1.0, 0.0, 0.0])
    view = pictures.pair_view(p, "pixel {}".format, by_unit=True)
    assert view.labels == ("noise in pixel 1", "noise in pixel 2")
    assert np.allclose(view.output, (p.a - p.t)[1:3])
    gain = view.gain(np.array([[1e-3, 1.0], [-1.0, 1.0]]) * view.point.slope)
    assert gain[0] > 0.0 > gain[1]


# -- draws -----------------------------------------------------------------------------------------
def near(share: float, p: float, n: int) -> bool:
    return abs(share - p) <= 5 * math.sqrt(p * (1 - p) / n) + 1e-9


@given(
    points(), st.sampled_from(("vector", "component", "expectation")),
    st.sampled_from(("reflect", "zero")), st.sampled_from(("gaussian", "uniform")), st.integers(0, 99),
)  # fmt: skip
def test_draws_are_those_of_the_noise_source(p, screening, rejected, law, seed):
    noise, view = Noise("nem", screening=screening, rejected=rejected, law=law), main_view(p)
    panel = draw_panel(view, noise, 0.3, 50, seed=seed, batch=50)
    backend = get_backend("cpu")
    generator = backend.generator(seed, pictures.STREAM)
    source = NoiseSource(noise, p.likelihood, backend, 50, p.width, "float64", generator)
    source.std = 0.3
    n = source(*p.rows(50))
    assert np.allclose(panel.kept, view.coordinates(n), rtol=1e-12, atol=1e-12)
    facts = panel.facts
    assert facts["mean_gain"] == pytest.approx(float(source.gain[0, 0]), rel=1e-9, abs=1e-12)
    kept = facts["accepted"] + facts["reflected"]
    assert kept == pytest.approx(float(source.accepted[0, 0]))
    assert kept + facts["set_to_zero"] == pytest.approx(1)
    assert rejected == "reflect" or facts["reflected"] == 0
    # where screening did nothing, n is as drawn; where it reflected, −n
    assert np.array_equal(panel.kept[panel.fate == 0], panel.drawn[panel.fate == 0])
    assert np.allclose(panel.kept[panel.fate == 1], -panel.drawn[panel.fate == 1])
    assert not panel.kept[panel.fate == 2].any()
    if screening == "vector":  # draws lie in the region exactly where they are accepted
        assert (view.gain(panel.drawn)[panel.fate == 0] >= -1e-9).all()
        assert (view.gain(panel.drawn)[panel.fate > 0] <= 1e-9).all()
    if screening != "expectation" and view.kind == "ball":
        assert (view.gain(panel.kept) >= -1e-9).all()


def test_the_share_of_the_ball_at_its_limits():
    for width in (2, 784):
        for std in (1.001e-5, 0.999e-5):  # either side of where the formula changes
            exact = 0.5 - (width - 1) * std / math.sqrt(8 * math.pi)
            assert pictures.ball_share(width, 1.0, std) == pytest.approx(exact, rel=1e-5)
        assert pictures.ball_share(width, 1.0, 1e-200) == pytest.approx(0.5)
        assert pictures.ball_share(width, 0.0, 1.0) == 0
    assert pictures.ball_share(784, 6.0, 0.1) < 1e-9  # what a picture of 784 pixels is about


def test_the_drift_is_the_mean_of_the_kept_noise():
    p, std, n = random_point("multinomial", 6, seed=2), 0.3, 20_000
    view = pictures.span_view(p, 0)
    closed = draw_panel(view, Noise("nem"), std, n)  # √(2/π) σ along the normal
    assert np.allclose(closed.drift, [math.sqrt(2 / math.pi) * std, 0.0])
    # 5 standard errors of a unit's mean: a false alarm in 10⁵ seeds over all units
    assert np.abs(closed.kept.mean(axis=0) - closed.drift).max() <= 5 * std / math.sqrt(n)
    uniform = draw_panel(view, Noise("nem", law="uniform"), std, 500)
    assert np.allclose(uniform.drift, uniform.kept.mean(axis=0))


@pytest.mark.parametrize(
    ("name", "width", "screening", "expected"),
    [
        ("multinomial", 10, "auto", "simplex 3 vector, span 10 vector"),
        ("multinomial", 10, "component", "pair 2 component, span 10 component"),
        ("multinomial", 10, "expectation", "simplex 3 expectation, span 10 expectation"),
        ("multinomial", 2, "auto", "pair 2 vector"),
        ("bernoulli", 50, "auto", "pair 2 vector, span 50 vector"),
        ("bernoulli", 1, "auto", "line 1 vector"),
        ("gaussian", 300, "auto", "ball 300 vector, ball 300 component"),
        ("gaussian", 50, "expectation", "ball 50 expectation"),
        ("gaussian", 1, "auto", "line 1 component"),
    ],
)
@pytest.mark.parametrize("std", [0.01, 0.1])
def test_each_likelihood_has_its_panels_with_the_shares_of_theory(
    name, width, screening, expected, std
):
    noise, n = Noise("nem", screening=screening), 2000
    panels = noise_panels(random_point(name, width, seed=1), noise, std, draws=n)
    facts = [panel.facts for panel in panels]
    assert expected == ", ".join("{kind} {neurons} {screening}".format(**f) for f in facts)
    for panel, found in zip(panels, facts, strict=True):
        assert panel.drawn.shape == (n, 2)
        exact = found["accepted_in_theory"]
        assert (exact is None) == (screening == "expectation")
        if exact is not None:
            of = n * (found["neurons"] if found["share_of"] == "neurons" else 1)
            assert near(found["accepted"], exact, of)
            assert near(found["reflected"], exact, of)  # n and −n are as likely
    if panels[0].view.kind == "simplex" and screening == "auto":
        # noise stays in its plane, other noise changes the sum
        assert facts[0]["sum_change"] == pytest.approx(0, abs=1e-12)
        assert facts[1]["sum_change"] < -std / 2  # log a < 0 in every class


# -- pictures --------------------------------------------------------------------------------------
BLUE, RED, PALE, BLACK = (
    np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    for colour in (pictures.KEPT, pictures.LOST, pictures.REGION, pictures.MEAN)
)
CASES = {
    "classes": lambda: random_point("multinomial", 10, seed=1),
    "two classes": lambda: random_point("multinomial", 2, seed=1),
    "pixels": lambda: random_point("bernoulli", 784, seed=1),
    "one pixel": lambda: random_point("bernoulli", 1, seed=1),
    "ball": lambda: random_point("gaussian", 784, seed=1),
    "number": lambda: point("gaussian", [0.7], [0.0]),
    # outputs that are their targets
    "at four classes": lambda: point("multinomial", np.zeros(4), np.full(4, 0.25)),
    "at four numbers": lambda: point("gaussian", np.ones(4), np.ones(4)),
}


def picture(path, p, noise=None, std=0.1, **more) -> np.ndarray:
    draw_noise(path, noise_panels(p, noise or Noise("nem"), std, **more), "a title", "notes.")
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def pixels(sheet: np.ndarray, colour: np.ndarray, tolerance: int = 70) -> np.ndarray:
    """Rows and columns where a colour is, above the legend."""
    near = np.abs(sheet - colour).sum(axis=2) <= tolerance
    return np.argwhere(near[: int(0.76 * len(sheet))])


@pytest.mark.parametrize("case", ["classes", "two classes", "one pixel", "ball", "number"])
def test_every_likelihood_gives_a_picture_with_regions_and_draws(tmp_path, case):
    sheet = picture(tmp_path / "noise.png", CASES[case]())
    assert sheet.shape[0] >= 700
    assert len(pixels(sheet, PALE, 6)) > 0.03 * sheet.shape[0] * sheet.shape[1]
    assert len(pixels(sheet, BLUE)) > 300
    assert len(pixels(sheet, RED)) > 200
    assert (sheet[:50] < 128).any(), "no title"
    assert (sheet[int(0.85 * len(sheet)) :] < 160).any(), "no legend"
    assert os.listdir(tmp_path) == ["noise.png"]


def test_kept_draws_lie_in_the_region_and_rejected_ones_outside(tmp_path):
    # all units, right: the half-space's edge is vertical through t
    sheet = picture(tmp_path / "noise.png", CASES["pixels"]())
    right = [found[found[:, 1] >= sheet.shape[1] // 2] for found in (
        pixels(sheet, PALE, 6), pixels(sheet, BLUE, 40), pixels(sheet, RED, 40),
        pixels(sheet, BLACK, 20))]  # fmt: skip
    pale, kept, lost, arrow = right
    edge = pale[:, 1].min()
    assert len(kept) > 300
    assert len(lost) > 50
    assert (kept[:, 1] >= edge - 6).mean() > 0.99  # the marks have a width
    assert (lost[:, 1] <= edge + 6).mean() > 0.99
    # the arrow of the drift leads into the region
    row = int(np.median(arrow[np.abs(arrow[:, 1] - edge) < 4][:, 0]))
    assert arrow[np.abs(arrow[:, 0] - row) <= 1][:, 1].max() > edge + 15


def test_pictures_depend_on_the_seed_and_the_names_and_on_nothing_else(tmp_path):
    p, contents = CASES["two classes"](), []
    for more in ({}, {}, {"seed": 1}, {"names": lambda k: f"$x$_{{{k}" + 300 * "中\n\t\u202e"}):
        picture(tmp_path / "a.png", p, draws=200, **more)
        contents.append((tmp_path / "a.png").read_bytes())
    assert contents[0] == contents[1]
    assert len(set(contents)) == 3


@pytest.mark.parametrize(
    ("case", "std"),
    [("two classes", 1e-9), ("one pixel", 1e6), ("number", 1e6), ("at four classes", 0.1),
     ("at four numbers", 0.1)],
)  # fmt: skip
def test_any_scale_of_the_noise_is_drawn(tmp_path, case, std):
    noise = Noise("nem", rejected="zero")
    sheet = picture(tmp_path / "noise.png", CASES[case](), noise, std, draws=40)
    assert len(pixels(sheet, RED, 100)) + len(pixels(sheet, BLUE, 100)) > 40


def test_what_cannot_be_drawn_is_named(tmp_path, monkeypatch):
    panels = noise_panels(CASES["number"](), Noise("nem"), 0.1, draws=10)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/x\.png: cannot be written"):
        draw_noise(tmp_path / "file" / "x.png", panels, "")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(NembpError, match=r"pip install nembp\[figures\]"):
        draw_noise(tmp_path / "x.png", panels, "")
    assert os.listdir(tmp_path) == ["file"]
