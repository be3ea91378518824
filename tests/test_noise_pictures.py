"""Pictures of drawn noise: written whole, and showing in pixels what the numbers say."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from noise_points import point, random_point
from PIL import Image

from nembp.engine.noise import Noise
from nembp.errors import NembpError, OutputError
from nembp.plotting.noise import KEPT, LOST, MEAN, REGION, draw_noise, noise_panels

pytest.importorskip("matplotlib")

BLUE, RED, PALE, BLACK = (
    np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    for colour in (KEPT, LOST, REGION, MEAN)
)


def picture(path, p, noise=None, std=0.1, **more) -> np.ndarray:
    draw_noise(path, noise_panels(p, noise or Noise("nem"), std, **more), "a title", "notes.")
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def pixels(sheet: np.ndarray, colour: np.ndarray, tolerance: int = 70) -> np.ndarray:
    """Rows and columns where a colour is, above the legend."""
    near = np.abs(sheet - colour).sum(axis=2) <= tolerance
    return np.argwhere(near[: int(0.76 * len(sheet))])


def half(found: np.ndarray, sheet: np.ndarray, side: int) -> np.ndarray:
    left = found[:, 1] < sheet.shape[1] // 2
    return found[left if side == 0 else ~left]


CASES = {
    "classes": lambda: random_point("multinomial", 10, seed=1),
    "two classes": lambda: random_point("multinomial", 2, seed=1),
    "pixels": lambda: random_point("bernoulli", 784, seed=1),
    "one pixel": lambda: random_point("bernoulli", 1, seed=1),
    "ball": lambda: random_point("gaussian", 784, seed=1),
    "number": lambda: point("gaussian", [0.7], [0.0]),
}


@pytest.mark.parametrize("case", CASES)
def test_every_end_gives_a_picture_with_regions_and_draws(tmp_path, case):
    sheet = picture(tmp_path / "noise.png", CASES[case]())
    assert sheet.shape[0] >= 700
    assert len(pixels(sheet, PALE, 6)) > 0.03 * sheet.shape[0] * sheet.shape[1]
    assert len(pixels(sheet, BLUE)) > 300
    assert len(pixels(sheet, RED)) > 200
    assert (sheet[: 50] < 128).any(), "no title"  # fmt: skip
    assert (sheet[int(0.78 * len(sheet)) :] < 160).any(), "no legend"
    assert os.listdir(tmp_path) == ["noise.png"]


def test_kept_draws_lie_in_the_region_and_rejected_ones_outside(tmp_path):
    # all neurons, right: the half-space's edge is vertical through t
    sheet = picture(tmp_path / "noise.png", CASES["pixels"]())
    region = half(pixels(sheet, PALE, 6), sheet, 1)
    edge = region[:, 1].min()
    kept, lost = (half(pixels(sheet, colour, 40), sheet, 1) for colour in (BLUE, RED))
    assert len(kept) > 300
    assert len(lost) > 50
    assert (kept[:, 1] >= edge - 6).mean() > 0.99  # the marks have a width
    assert (lost[:, 1] <= edge + 6).mean() > 0.99
    # the arrow of the drift leads into the region
    arrow = half(pixels(sheet, BLACK, 20), sheet, 1)
    row = int(np.median(arrow[np.abs(arrow[:, 1] - edge) < 4][:, 0]))
    shaft = arrow[np.abs(arrow[:, 0] - row) <= 1][:, 1]
    assert shaft.max() > edge + 15


def test_the_ball_of_whole_vectors_accepts_nothing_in_784_dimensions(tmp_path):
    p = point("gaussian", 0.2 * np.random.default_rng(0).standard_normal(784), np.zeros(784))
    sheet = picture(tmp_path / "noise.png", p)
    left, right = (half(pixels(sheet, BLUE, 40), sheet, side) for side in (0, 1))
    assert len(left) == 0
    assert len(right) > 50
    assert all(len(half(pixels(sheet, RED, 40), sheet, side)) > 50 for side in (0, 1))


def test_pictures_depend_on_the_seed_and_on_nothing_else(tmp_path):
    p = CASES["classes"]()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        picture(tmp_path / f"{name}.png", p, seed=seed)
    contents = [(tmp_path / f"{name}.png").read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize("names", ["$x$_{".__add__, lambda k: 300 * f"中\n\t\u202e{k}"])
def test_any_names_are_drawn_as_they_are(tmp_path, names):
    def name(k):
        return names(str(k))

    sheet = picture(tmp_path / "a.png", CASES["classes"](), names=name)
    plain = picture(tmp_path / "b.png", CASES["classes"]())
    assert sheet.shape == plain.shape
    assert not np.array_equal(sheet, plain)
    picture(tmp_path / "c.png", CASES["pixels"](), names=name)


@pytest.mark.parametrize("std", [1e-9, 1e6])
@pytest.mark.parametrize("case", CASES)
def test_any_scale_of_the_noise_is_drawn(tmp_path, case, std):
    noise = Noise("nem", rejected="zero")
    sheet = picture(tmp_path / "noise.png", CASES[case](), noise, std, draws=40)
    assert len(pixels(sheet, RED)) + len(pixels(sheet, BLUE)) > 40


@pytest.mark.parametrize("name", ["multinomial", "bernoulli", "gaussian"])
def test_an_output_that_is_its_target_is_drawn(tmp_path, name):
    z = {"multinomial": np.zeros(4), "bernoulli": np.zeros(4), "gaussian": np.ones(4)}[name]
    t = {"multinomial": np.full(4, 0.25), "bernoulli": np.full(4, 0.5), "gaussian": np.ones(4)}[
        name
    ]
    sheet = picture(tmp_path / "noise.png", point(name, z, t), draws=1)
    assert len(np.unique(sheet)) > 10


def test_places_that_cannot_be_written_are_named(tmp_path):
    panels = noise_panels(CASES["number"](), Noise("nem"), 0.1, draws=10)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/x\.png: cannot be written"):
        draw_noise(tmp_path / "file" / "x.png", panels, "")
    with pytest.raises(OutputError, match=r"x\.jpg: pictures are PNG; give a name that ends"):
        draw_noise(tmp_path / "x.jpg", panels, "")
    assert os.listdir(tmp_path) == ["file"]


def test_without_matplotlib_the_remedy_is_named(tmp_path, monkeypatch):
    panels = noise_panels(CASES["number"](), Noise("nem"), 0.1, draws=10)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(NembpError, match=r"pip install nembp\[figures\]"):
        draw_noise(tmp_path / "x.png", panels, "")
    assert os.listdir(tmp_path) == []


def test_importing_the_modules_does_not_import_matplotlib_or_scipy():
    code = (
        "import sys, nembp.plotting.noise; heavy = {'matplotlib', 'scipy', 'PIL'}; "
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_drift_too_short_for_an_arrow_has_none(tmp_path):
    # of 64 pixels a few whole vectors fall into the ball: their mean is nearly 0
    p = point("gaussian", 0.2 * np.random.default_rng(0).standard_normal(64), np.zeros(64))
    sheet = picture(tmp_path / "noise.png", p, Noise("nem", rejected="zero"), 0.05)
    arrows = [len(half(pixels(sheet, BLACK, 6), sheet, side)) for side in (0, 1)]
    assert arrows[0] == 0  # the dot of t is of another black
    assert arrows[1] > 20
