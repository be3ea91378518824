from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from nembp.datasets.images import read_images
from nembp.errors import OutputError, ShapeError
from nembp.plotting.pictures import backward_picture, tile_images, write_images

GREY = 128


def random_images(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, *shape)).astype(np.uint8)


def picture(path, *arguments) -> np.ndarray:
    backward_picture(path, *arguments)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def occurrences(sheet: np.ndarray, tile: np.ndarray) -> list[tuple[int, int]]:
    """Where `tile` (height, width, 3) occurs in `sheet`: (top, left) of each place."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, tile.shape)[:, :, 0]
    corner = np.argwhere((windows[..., 0, 0, :] == tile[0, 0]).all(-1))
    return [(y, x) for y, x in corner.tolist() if np.array_equal(windows[y, x], tile)]


def enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    image = np.broadcast_to(image, (*image.shape[:2], 3))
    return image.repeat(scale, 0).repeat(scale, 1)


# --- tiles


@given(
    st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3]),
    st.none() | st.integers(1, 12), st.integers(1, 3), st.integers(0, 3),
)  # fmt: skip
def test_every_tile_is_at_its_place(n, height, width, channels, columns, scale, gap):
    images = random_images(n, height, width, channels)
    sheet = tile_images(images.reshape(n, -1), (height, width, channels), columns, scale, gap)
    across = min(columns, n) if columns else int(np.ceil(np.sqrt(n)))
    rows = -(-n // across)
    down, right = height * scale + gap, width * scale + gap
    assert sheet.shape == (rows * down - gap, across * right - gap, channels)
    rest = np.ones(sheet.shape[:2], bool)
    for k in range(n):
        top, left = k // across * down, k % across * right
        place = np.s_[top : top + height * scale, left : left + width * scale]
        assert np.array_equal(sheet[place], images[k].repeat(scale, 0).repeat(scale, 1))
        rest[place] = False
    assert (sheet[rest] == GREY).all()


def test_floats_are_clipped_and_rounded():
    values = np.array([[-3.0, 0.0, 0.5, 1.0, 1e300, 0.1]])
    assert tile_images(values, (1, 6, 1), scale=1).ravel().tolist() == [0, 0, 128, 255, 255, 26]
    single = values[:, :4].astype(np.float32)
    assert tile_images(single, (2, 2, 1), scale=1).ravel().tolist() == [0, 0, 128, 255]


def test_small_images_are_enlarged_and_large_ones_are_not():
    assert tile_images(np.zeros((1, 784)), (28, 28, 1)).shape == (56, 56, 1)
    assert tile_images(np.zeros((1, 20)), (1, 20, 1)).shape == (3, 60, 1)
    assert tile_images(np.zeros((1, 300, 200, 3)), (300, 200, 3)).shape == (300, 200, 3)


@pytest.mark.parametrize(
    ("images", "shape", "message"),
    [
        (np.zeros((2, 5)), (2, 2, 1), r"shape \(2, 5\) does not hold samples of shape \(2, 2, 1\)"),
        (np.zeros((0, 4)), (2, 2, 1), "n at least 1"),
        (np.zeros(4), (2, 2, 1), "does not hold"),
        (np.zeros((2, 4)), (4,), r"shape \(4,\) are no images"),
        (np.zeros((2, 8)), (2, 2, 2), "1 channel"),
        (np.full((2, 4), np.nan), (2, 2, 1), "NaN"),
        (np.zeros((2, 4), np.int64), (2, 2, 1), "int64"),
        (np.zeros((2, 4), complex), (2, 2, 1), "complex128"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, images, shape, message):
    for use in (tile_images, lambda *given: write_images(tmp_path / "x.png", *given)):
        with pytest.raises(ShapeError, match=message):
            use(images, shape)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("options", [{"columns": 0}, {"scale": 0}, {"gap": -1}])
def test_impossible_layouts_are_refused(options):
    with pytest.raises(ShapeError, match="at least"):
        tile_images(np.zeros((1, 4)), (2, 2, 1), **options)


# --- writing


@given(
    npst.arrays(
        np.uint8,
        st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])),
    )
)
def test_one_image_comes_back_pixel_by_pixel(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("pictures") / "image.png"
    write_images(path, images, images.shape[1:])
    assert np.array_equal(read_images(path, images.shape[1:]), images)


def test_several_images_become_a_sheet(tmp_path):
    images = random_images(5, 4, 3, 3)
    write_images(tmp_path / "sheet.PNG", images, (4, 3, 3))
    sheet = tile_images(images, (4, 3, 3))
    assert np.array_equal(read_images(tmp_path / "sheet.PNG", sheet.shape)[0], sheet)


@pytest.mark.parametrize(
    "draw", [write_images, lambda *given: backward_picture(*given[:2], None, given[2], "a")]
)
def test_places_that_cannot_be_written_are_named(tmp_path, draw):
    images = random_images(1, 4, 3, 1)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/x\.png: cannot be written"):
        draw(tmp_path / "file" / "x.png", images, (4, 3, 1))
    with pytest.raises(OutputError, match=r"x\.jpg: pictures are PNG; give a name that ends"):
        draw(tmp_path / "x.jpg", images, (4, 3, 1))
    assert os.listdir(tmp_path) == ["file"]


# --- the backward picture


@pytest.mark.parametrize("channels", [1, 3])
def test_each_class_has_its_backward_image_above_its_centroid(tmp_path, channels):
    images, centroids = random_images(20, 28, 28, channels).reshape(2, 10, -1) / 255
    shape = (28, 28, channels)
    sheet = picture(tmp_path / "backward.png", images, centroids, shape, "0123456789")
    assert 950 < sheet.shape[1] <= 1020
    places = []
    for rows in (images, centroids):
        found = [occurrences(sheet, enlarged(np.rint(row * 255).reshape(shape), 3)) for row in rows]
        assert [len(place) for place in found] == [1] * 10  # each image once, enlarged exactly
        places.append([place[0] for place in found])
    backward, centroid = np.array(places)
    assert np.array_equal(backward[:, 1], centroid[:, 1])  # one column a class
    assert (np.diff(backward[:, 1]) > 84).all()  # in the order of the classes
    assert (centroid[:, 0] - backward[:, 0] >= 84).all()  # the centroid below
    assert len(np.unique(backward[:, 0])) == 1
    # names above every column and a label beside every row: ink on the paper
    ink = (sheet < 200).all(2)
    top = backward[0, 0]
    assert all(ink[: top - 1, left : left + 84].any() for left in backward[:, 1])
    for row in (backward[0, 0], centroid[0, 0]):
        assert ink[row : row + 84, : backward[0, 1] - 1].any()


def test_many_classes_take_several_lines(tmp_path):
    images = random_images(47, 28, 28, 1)
    names = [f"class number {k}" for k in range(47)]
    sheet = picture(tmp_path / "backward.png", images, None, (28, 28, 1), names)
    assert sheet.shape[1] <= 1020
    tops = set()
    scale = next(s for s in range(7, 0, -1) if occurrences(sheet, enlarged(images[0], s)))
    for image in images[::5]:
        ((top, left),) = occurrences(sheet, enlarged(image, scale))
        tops.add(top)
        assert left + 28 * scale <= sheet.shape[1] - 20
    assert len(tops) > 3


def test_names_are_drawn_and_the_picture_depends_on_nothing_else(tmp_path):
    images = random_images(2, 8, 8, 1)
    first = picture(tmp_path / "a.png", images, images, (8, 8, 1), ("cat", "dog"))
    other = picture(tmp_path / "b.png", images, images, (8, 8, 1), ("cat", "cow"))
    assert first.shape == other.shape
    assert not np.array_equal(first, other)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    backward_picture(tmp_path / "c.png", images, images, (8, 8, 1), ["cat", "dog"])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "c.png").read_bytes()


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((2, 2, 1), ("", " ")),
        ((300, 1100, 3), ("a\nb\tc", "x" * 500)),
        ((1, 40, 1), ("中文", "\u202eא🂡")),
        ((64, 1, 3), ()),
        ((8, 8, 4), ("ultraviolet", "b")),
        ((3,), ("y" * 300, "b\n\n")),
        ((5000,), ("a", "b")),
        ((2, 3), ("a", "b")),
    ],
)
def test_any_shape_and_any_names_give_a_picture(tmp_path, shape, names):
    values = np.random.default_rng(0).random((2, *shape))
    sheet = picture(tmp_path / "x.png", values, values[::-1], shape, names)
    assert sheet.shape[1] <= max(1020, shape[1] + 140 if len(shape) == 3 else 0)
    assert len(np.unique(sheet[..., 0])) > 10


def strip_of(sheet, left, top, cells, width):
    """The colours in the middle of a strip's cells."""
    return [tuple(sheet[top, left + width * k + width // 2].tolist()) for k in range(cells)]


def test_strips_run_from_each_features_lowest_value_to_its_highest(tmp_path):
    # features of very different units, one of them constant
    centroids = np.array([[0.0, 5e8, 7.0], [1.0, 1e8, 7.0], [0.5, 3e8, 7.0]])
    sheet = picture(tmp_path / "x.png", centroids, None, (3,), ("low", "high", "middle"))
    low, middle, high = (33, 75, 135), (247, 247, 247), (160, 32, 48)
    strong = np.argwhere((sheet == low).all(2))
    top, left = strong.min(0).tolist()
    assert strip_of(sheet, left, top + 13, 3, 56) == [low, high, middle]
    assert strip_of(sheet, left, top + 13 + 44, 3, 56) == [high, low, middle]
    assert strip_of(sheet, left, top + 13 + 88, 3, 56) == [middle, middle, middle]


def test_huge_values_have_levels_too(tmp_path):
    values = np.array([[-1.7e308, 0.0], [1.7e308, 1e-300]])
    sheet = picture(tmp_path / "x.png", values, None, (2,), ("a", "b"))
    for colour in ((33, 75, 135), (160, 32, 48)):
        assert (sheet == colour).all(2).sum() > 2000


@pytest.mark.parametrize("shape", [(2, 2, 1), (4,)])
def test_arrays_that_do_not_fit_the_classes_are_refused(tmp_path, shape):
    good = np.zeros((3, 4))
    path = tmp_path / "x.png"
    with pytest.raises(ShapeError, match="backward: 2 samples for 3 classes"):
        backward_picture(path, good[:2], good, shape, "abc")
    with pytest.raises(ShapeError, match="centroid: 2 samples for 3 classes"):
        backward_picture(path, good, good[:2], shape, "abc")
    with pytest.raises(ShapeError, match="does not hold"):
        backward_picture(path, good, np.zeros((3, 5)), shape, "abc")
    with pytest.raises(ShapeError, match="NaN"):
        backward_picture(path, good * np.nan, good, shape, "abc")
    assert os.listdir(tmp_path) == []


def test_importing_the_module_does_not_import_pil():
    code = "import sys, nembp.plotting.pictures, nembp.plotting.pictures; sys.exit('PIL' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
