"""Sheets, backward pictures, scatter plots and GIFs: what is drawn where, read back from pixels."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nembp.datasets.images import read_image
from nembp.errors import OutputError, ShapeError
from nembp.plotting import pictures
from nembp.plotting.pictures import backward_picture, scatter_frame, tile_images, write_images


def random_images(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, *shape)).astype(np.uint8)


def picture(path, *arguments) -> np.ndarray:
    backward_picture(path, *arguments)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def occurrences(sheet: np.ndarray, tile: np.ndarray, scale: int) -> list[tuple[int, int]]:
    """Where an enlarged image occurs in `sheet`: (top, left) of each place."""
    tile = np.broadcast_to(tile, (*tile.shape[:2], 3)).repeat(scale, 0).repeat(scale, 1)
    windows = np.lib.stride_tricks.sliding_window_view(sheet, tile.shape)[:, :, 0]
    corner = np.argwhere((windows[..., 0, 0, :] == tile[0, 0]).all(-1))
    return [(y, x) for y, x in corner.tolist() if np.array_equal(windows[y, x], tile)]


# -- sheets ----------------------------------------------------------------------------------------
@given(
    st.integers(1, 9), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3]),
    st.none() | st.integers(1, 12), st.integers(1, 3),
)  # fmt: skip
def test_every_tile_is_at_its_place(n, height, width, channels, columns, scale):
    images = random_images(n, height, width, channels)
    sheet = tile_images(images.reshape(n, -1), (height, width, channels), columns, scale)
    across = min(columns, n) if columns else int(np.ceil(np.sqrt(n)))
    down, right = height * scale + 2, width * scale + 2
    expected = np.full((-(-n // across) * down - 2, across * right - 2, channels), pictures.GREY)
    for k in range(n):
        top, left = k // across * down, k % across * right
        enlarged = images[k].repeat(scale, 0).repeat(scale, 1)
        expected[top : top + height * scale, left : left + width * scale] = enlarged
    assert np.array_equal(sheet, expected)


def test_floats_are_clipped_and_rounded_and_small_images_enlarged():
    values = np.array([[-3.0, 0.0, 0.5, 1.0, 1e300, 0.1]])
    assert tile_images(values, (1, 6, 1), scale=1).ravel().tolist() == [0, 0, 128, 255, 255, 26]
    assert tile_images(np.zeros((1, 784)), (28, 28, 1)).shape == (56, 56, 1)
    assert tile_images(np.zeros((1, 300, 200, 3)), (300, 200, 3)).shape == (300, 200, 3)


@pytest.mark.parametrize(
    ("images", "shape", "message"),
    [
        (np.zeros((2, 5)), (2, 2, 1), r"shape \(2, 5\) does not hold samples of shape \(2, 2, 1\)"),
        (np.zeros((0, 4)), (2, 2, 1), "n at least 1"),
        (np.zeros((2, 4)), (4,), r"shape \(4,\) are no images"),
        (np.zeros((2, 8)), (2, 2, 2), "1 channel"),
        (np.full((2, 4), np.nan), (2, 2, 1), "NaN"),
        (np.zeros((2, 4), np.int64), (2, 2, 1), "int64"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, images, shape, message):
    with pytest.raises(ShapeError, match=message):
        write_images(tmp_path / "x.png", images, shape)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_back_pixel_by_pixel(tmp_path, channels):
    images = random_images(5, 4, 3, channels)
    write_images(tmp_path / "one.png", images[:1], (4, 3, channels))
    assert np.array_equal(read_image(tmp_path / "one.png", (4, 3), channels), images[0])
    write_images(tmp_path / "sheet.PNG", images, (4, 3, channels))
    sheet = tile_images(images, (4, 3, channels))
    assert np.array_equal(
        read_image(tmp_path / "sheet.PNG", sheet.shape[:2], sheet.shape[2]), sheet
    )
    with pytest.raises(OutputError, match=r"one\.png/x\.png: cannot be written"):
        write_images(tmp_path / "one.png" / "x.png", images, (4, 3, channels))


# -- the backward picture --------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, 3])
def test_each_class_has_its_backward_image_above_its_centroid(tmp_path, channels):
    images, centroids = random_images(20, 28, 28, channels).reshape(2, 10, -1) / 255
    shape = (28, 28, channels)
    sheet = picture(tmp_path / "backward.png", images, centroids, shape, "0123456789")
    assert 950 < sheet.shape[1] <= 1020
    places = []
    for rows in (images, centroids):
        found = [occurrences(sheet, np.rint(row * 255).reshape(shape), 3) for row in rows]
        assert [len(place) for place in found] == [1] * 10  # each image once, enlarged exactly
        places.append([place[0] for place in found])
    backward, centroid = np.array(places)
    assert np.array_equal(backward[:, 1], centroid[:, 1])  # one column for each class
    assert (np.diff(backward[:, 1]) > 84).all()  # in the order of the classes
    assert (centroid[:, 0] - backward[:, 0] >= 84).all()  # the centroid below
    assert len(np.unique(backward[:, 0])) == 1
    # names above every column and a label beside every row: ink on the paper
    ink = (sheet < 200).all(2)
    assert all(ink[: backward[0, 0] - 1, left : left + 84].any() for left in backward[:, 1])
    for row in (backward[0, 0], centroid[0, 0]):
        assert ink[row : row + 84, : backward[0, 1] - 1].any()


def test_many_classes_take_several_lines(tmp_path):
    images = random_images(47, 28, 28, 1)
    names = [f"class number {k}" for k in range(47)]
    sheet = picture(tmp_path / "backward.png", images, None, (28, 28, 1), names)
    assert sheet.shape[1] <= 1020
    scale = next(s for s in range(7, 0, -1) if occurrences(sheet, images[0], s))
    found = [occurrences(sheet, image, scale) for image in images[::9]]
    assert all(len(places) == 1 for places in found)
    assert len({top for ((top, _),) in found}) > 3


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
    ],
)
def test_any_shape_and_any_names_give_a_picture(tmp_path, shape, names):
    values = np.random.default_rng(0).random((2, *shape))
    sheet = picture(tmp_path / "x.png", values, values[::-1], shape, names)
    assert sheet.shape[1] <= max(1020, shape[1] + 140 if len(shape) == 3 else 0)
    assert len(np.unique(sheet[..., 0])) > 10
    for rows in ((values[:1], values), (values, values[:1])):
        with pytest.raises(ShapeError, match="1 samples for 2 classes"):
            backward_picture(tmp_path / "y.png", *rows, shape, names or "ab")


def test_strips_run_from_each_features_lowest_value_to_its_highest(tmp_path):
    # features of very different units, the last one constant
    values = np.array([[0.0, 1.7e308, 7.0], [1.0, -1.7e308, 7.0], [0.5, 0.0, 7.0]])
    sheet = picture(tmp_path / "x.png", values, None, (3,), ("low", "high", "middle"))
    low, middle, high = (33, 75, 135), (247, 247, 247), (160, 32, 48)
    top, left = np.argwhere((sheet == low).all(2)).min(0).tolist()
    rows = [[tuple(sheet[top + 13, left + 174 * r + 56 * k + 28].tolist()) for k in range(3)]
            for r in range(3)]  # fmt: skip
    assert rows == [[low, high, middle], [high, low, middle], [middle] * 3]


# -- frames of a training --------------------------------------------------------------------------
FAR = np.array([[-1.0, -1.0], [1.0, 1.0]])


def places(frame: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of pixels of about this colour, within the outline."""
    near = np.abs(frame[50:570, 20:540].astype(int) - colour).max(axis=2) < 50
    return np.argwhere(near) + np.array([50, 20])


def test_points_are_where_they_belong():
    """x to the right, y upwards: one generated point in the upper left of the real square."""
    frame = scatter_frame(FAR, np.array([[-0.8, 0.8]]))
    row, column = places(frame, pictures.GENERATED).mean(axis=0)
    # the window is 1.25 of the real extent: -0.8 is 0.18 of it from the left
    assert column / frame.shape[1] == pytest.approx(0.196, abs=0.02)
    assert row / frame.shape[0] == pytest.approx(0.22, abs=0.02)
    # over real ones
    alone, covered = (scatter_frame(FAR, points) for points in (FAR[:1] * 9, FAR))
    assert len(places(alone, pictures.REAL)) > 2 * len(places(covered, pictures.REAL))
    # beyond the window, or nowhere
    lost = scatter_frame(FAR, np.array([[np.nan, 0.0], [np.inf, 0.0], [-0.8, 8.0]]))
    assert not len(places(lost, pictures.GENERATED))


def test_one_column_is_drawn_against_zero_and_a_third_is_not():
    one = scatter_frame(FAR[:, :1], np.array([[0.5]]))
    assert np.array_equal(one, scatter_frame(FAR * [1, 0], np.array([[0.5, 0.0]])))
    three = scatter_frame(np.c_[FAR, [7, 8]], np.array([[0.5, 0.1, 9.0]]))
    assert np.array_equal(three, scatter_frame(FAR, np.array([[0.5, 0.1]])))


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (8, 8, 2)])
def test_images_fill_a_frame(shape):
    bright = np.zeros((64, *shape))
    bright[9] = 1.0  # second row, second column
    frame = pictures.image_frame(bright, shape, "iteration 1")
    assert 400 < frame.shape[1] < 1000
    black = np.argwhere((frame == 0).all(axis=2))
    low, high = black.min(axis=0), black.max(axis=0) + 1
    grid = frame[low[0] : high[0], low[1] : high[1]]
    white = np.argwhere((grid == 255).all(axis=2)).mean(axis=0)
    assert white / grid.shape[:2] == pytest.approx([1.5 / 8, 1.5 / 8], abs=0.01)


def test_a_film_is_thinned_evenly_and_its_gif_stops_at_the_last_frame(tmp_path):
    film = pictures.Film(most=8)
    for k in range(50):
        film.add(np.full((4, 4, 3), k, np.uint8))
    film.write_gif(tmp_path / "a.gif")
    film.write_picture(tmp_path / "a.png")
    times, shown = [], []
    with Image.open(tmp_path / "a.gif") as gif, Image.open(tmp_path / "a.png") as png:
        assert gif.info["loop"] == 0
        assert 4 <= gif.n_frames == len(film) <= 8
        for k in range(gif.n_frames):
            gif.seek(k)
            times.append(gif.info["duration"])
            shown.append(int(np.asarray(gif.convert("RGB"))[0, 0, 0]))
        assert np.asarray(png)[0, 0, 0] == shown[-1] == 49
    assert shown[0] == 0
    assert len(set(np.diff(shown[:-1]).tolist())) == 1
    assert times[-1] > 3 * times[0] == 3 * times[1]
