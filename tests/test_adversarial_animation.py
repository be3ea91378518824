"""Pictures of adversarial training: what is drawn where, and that the GIF holds every frame."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nembp.adversarial.animation import GENERATED, REAL, Film, image_frame, scatter_frame
from nembp.errors import OutputError, ShapeError

FAR = np.array([[-1.0, -1.0], [1.0, 1.0]])


def places(frame: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of pixels of about this colour, within the outline."""
    near = np.abs(frame[50:570, 20:540].astype(int) - colour).max(axis=2) < 50
    return np.argwhere(near) + np.array([50, 20])


def test_points_are_where_they_belong():
    """x to the right, y upwards: one generated point in the upper left of the real square."""
    frame = scatter_frame(FAR, np.array([[-0.8, 0.8]]))
    height, width = frame.shape[:2]
    row, column = places(frame, GENERATED).mean(axis=0)
    # the window is 1.25 of the real extent: -0.8 is 0.18 of it from the left
    assert column / width == pytest.approx(0.196, abs=0.02)
    assert row / height == pytest.approx(0.22, abs=0.02)
    assert not len(places(scatter_frame(FAR, np.array([[-0.8, 8.0]])), GENERATED))


def test_generated_points_lie_over_real_ones():
    alone, covered = scatter_frame(FAR, FAR[:1] * 9), scatter_frame(FAR, FAR)
    assert len(places(alone, REAL)) > 2 * len(places(covered, REAL))


def test_a_window_holds_still():
    window = np.array([-2.0, -2.0]), np.array([2.0, 2.0])
    one = scatter_frame(FAR, FAR * 0.5, window=window)
    two = scatter_frame(FAR * 0.9, FAR * 0.5, window=window)
    assert np.array_equal(places(one, GENERATED), places(two, GENERATED))


def test_points_that_are_not_finite_are_left_out():
    frame = scatter_frame(FAR, np.array([[np.nan, 0.0], [np.inf, 0.0], [0.0, 0.0]]))
    assert np.array_equal(frame, scatter_frame(FAR, np.zeros((1, 2))))


def test_one_column_is_drawn_against_zero_and_a_third_is_not():
    one = scatter_frame(FAR[:, :1], np.array([[0.5]]))
    assert np.array_equal(one, scatter_frame(FAR * [1, 0], np.array([[0.5, 0.0]])))
    three = scatter_frame(np.c_[FAR, [7, 8]], np.array([[0.5, 0.1, 9.0]]))
    assert np.array_equal(three, scatter_frame(FAR, np.array([[0.5, 0.1]])))


def test_what_cannot_be_drawn_is_refused():
    for points in (np.zeros(3), np.zeros((3, 0))):
        with pytest.raises(ShapeError, match=r"expected \(n, 2\)"):
            scatter_frame(FAR, points)
    with pytest.raises(ShapeError, match=r"real points of shape \(0, 2\)"):
        scatter_frame(FAR[:0], FAR)
    with pytest.raises(ShapeError):
        image_frame(np.zeros((4, 10)), (3, 3, 1))


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (8, 8, 2)])
def test_images_fill_a_sheet(shape):
    bright = np.zeros((64, *shape))
    bright[9] = 1.0  # second row, second column
    frame = image_frame(bright, shape, "iteration 1")
    assert 400 < frame.shape[1] < 1000
    black = np.argwhere((frame == 0).all(axis=2))
    low, high = black.min(axis=0), black.max(axis=0) + 1
    grid = frame[low[0] : high[0], low[1] : high[1]]
    white = np.argwhere((grid == 255).all(axis=2)).mean(axis=0)
    assert white / grid.shape[:2] == pytest.approx([1.5 / 8, 1.5 / 8], abs=0.01)


def test_the_gif_shows_every_frame_and_stops_at_the_last(tmp_path):
    film = Film()
    for k in range(5):
        film.add(scatter_frame(FAR, FAR * k / 5, f"iteration {k}"))
    film.write_gif(tmp_path / "a.gif")
    film.write_picture(tmp_path / "a.png")
    with Image.open(tmp_path / "a.gif") as gif, Image.open(tmp_path / "a.png") as png:
        assert gif.n_frames == 5
        assert gif.info["loop"] == 0
        times, frames = [], []
        for k in range(5):
            gif.seek(k)
            times.append(gif.info["duration"])
            frames.append(np.asarray(gif.convert("RGB")))
        last = np.asarray(png)
    assert times[-1] > 3 * times[0] == 3 * times[1]
    assert np.abs(frames[-1].astype(int) - last).max() < 3
    assert not np.array_equal(frames[0], frames[1])


def test_a_long_film_is_thinned_evenly(tmp_path):
    film = Film(most=8)
    for k in range(50):
        film.add(np.full((4, 4, 3), k, np.uint8))
    assert 4 <= len(film) <= 8
    film.write_gif(tmp_path / "a.gif")
    shown = []
    with Image.open(tmp_path / "a.gif") as gif:
        for k in range(gif.n_frames):
            gif.seek(k)
            shown.append(int(np.asarray(gif.convert("RGB"))[0, 0, 0]))
    assert shown[0] == 0
    assert shown[-1] == 49
    assert shown == sorted(shown)
    assert len(set(np.diff(shown[:-1]).tolist())) == 1


def test_a_film_is_written_under_its_own_suffix(tmp_path):
    film = Film()
    with pytest.raises(OutputError, match="no frame"):
        film.write_gif(tmp_path / "a.gif")
    film.add(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(OutputError, match=r"\.gif"):
        film.write_gif(tmp_path / "a.png")
