"""What a generator draws while it learns: sheets of images, scatter plots, and a GIF of them.

Everything is drawn with Pillow, in the style of :mod:`nembp.plotting.pictures`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nembp.errors import OutputError, ShapeError
from nembp.files import write_atomically
from nembp.plotting.pictures import INK, MUTED, paper, text_width, tile_images, write

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Film", "Frame", "image_frame", "scatter_frame"]

WIDTH, MARGIN, LINE = 560, 16, 30  # of a frame, in pixels; LINE is the height of a line of text
SIZE = 15  # of the text
REAL, GENERATED = (193, 199, 205), (33, 102, 172)  # as in nembp.plotting.noise
FINE = 3  # points are drawn so many times as large, then reduced: smooth edges
RADIUS = {"real": 2.6, "generated": 2.2}  # pixels
LAST = 2000  # milliseconds that a film stops at its end
LEAST, MOST, LENGTH = 40, 400, 6000  # milliseconds: of a frame at least and at most, of them all

Frame = NDArray[np.uint8]


def scatter_frame(
    real: NDArray[Any],
    generated: NDArray[Any],
    title: str = "",
    *,
    window: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Frame:
    """Draw generated points over real ones.

    Parameters
    ----------
    real, generated : ndarray, shape (n, features)
        Their first two columns are drawn, or the one against 0; points outside the window are not.
    title : str
        A line above.
    window : (low, high), optional
        Corners of what is seen, in the points' unit; by default the real points and a quarter of
        their extent around them.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)

    Raises
    ------
    ShapeError
        If there are no columns, or no real points.

    >>> scatter_frame(np.eye(2), np.zeros((5, 2))).shape
    (620, 560, 3)
    """
    from PIL import Image, ImageDraw

    for what, points in (("real", real), ("generated", generated)):
        if np.ndim(points) != 2 or not np.shape(points)[1] or not len(real):
            raise ShapeError(
                f"{what} points of shape {np.shape(points)}; expected (n, 2) to draw in the plane"
            )
    real, generated = _pairs(real), _pairs(generated)
    low, high = _window(real) if window is None else window
    side = WIDTH - 2 * MARGIN
    sheet, draw = paper((WIDTH, side + 2 * LINE + 2 * MARGIN))
    write(draw, (MARGIN, MARGIN + LINE // 2 - 4), title, "lm", SIZE, side)
    plane = Image.new("RGB", (side * FINE, side * FINE), "#ffffff")
    dots = ImageDraw.Draw(plane)  # opaque: few colours, which a GIF keeps as they are
    for points, colour, radius in (
        (real, REAL, RADIUS["real"]),
        (generated, GENERATED, RADIUS["generated"]),
    ):
        _dots(dots, _pixels(points, low, high, side), radius * FINE, colour)
    corner = MARGIN, MARGIN + LINE
    sheet.paste(plane.resize((side, side), Image.Resampling.BOX), corner)
    draw.rectangle(
        (corner[0] - 1, corner[1] - 1, corner[0] + side, corner[1] + side), outline="#c1c7cd"
    )
    _legend(draw, corner[1] + side + MARGIN + 4)
    return np.asarray(sheet, np.uint8)


def _pairs(points: NDArray[Any]) -> NDArray[np.float64]:
    pairs = np.zeros((len(points), 2))
    pairs[:, : np.shape(points)[1]] = np.asarray(points)[:, :2]
    return pairs


def _window(real: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return corners of a square about the points, an eighth of its side beyond them each way."""
    low, high = real.min(axis=0), real.max(axis=0)
    half = 0.625 * max(float((high - low).max()), 1e-12)
    middle = low / 2 + high / 2
    return middle - half, middle + half


def _pixels(
    points: NDArray[Any], low: NDArray[Any], high: NDArray[Any], side: int
) -> NDArray[np.float64]:
    """Return places in pixels of the enlarged plane, of the points that are within it."""
    places = (points - low) / (high - low)
    places = places[np.all((places >= 0) & (places <= 1), axis=1)]  # a NaN is nowhere
    places[:, 1] = 1 - places[:, 1]
    return np.asarray(places * (side * FINE - 1))


def _dots(draw: Any, places: NDArray[np.float64], radius: float, colour: Any) -> None:
    for x, y in places.tolist():
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _legend(draw: Any, y: int) -> None:
    x = MARGIN
    for name, colour in (("real", REAL), ("generated", GENERATED)):
        draw.ellipse((x, y - 4, x + 8, y + 4), fill=colour)
        write(draw, (x + 16, y), name, "lm", SIZE, colour=MUTED)
        x += 16 + text_width(name, SIZE) + 28


def image_frame(images: NDArray[Any], shape: Sequence[int], title: str = "") -> Frame:
    """Draw generated images in a grid, with a line above.

    Parameters
    ----------
    images : ndarray, shape (n, features) or (n, *shape)
        uint8, or floats, which are clipped to [0, 1].
    shape : sequence of int
        (height, width, channels) of one image, 1 or 3 channels; of others their mean is shown.
    title : str
        A line above.

    Raises
    ------
    ShapeError
        If the array does not hold such images.
    """
    from PIL import Image

    if len(shape) == 3 and shape[2] not in (1, 3):
        images = np.reshape(images, (-1, *shape)).mean(axis=3, keepdims=True)
        shape = (shape[0], shape[1], 1)
    grid = tile_images(images, shape, scale=_scale(len(images), max(shape[:2])))
    height, width = grid.shape[:2]
    room = max(width, WIDTH - 2 * MARGIN)
    sheet, draw = paper((room + 2 * MARGIN, height + LINE + 2 * MARGIN))
    write(draw, (MARGIN, MARGIN + LINE // 2 - 4), title, "lm", SIZE, room, colour=INK)
    tile = Image.fromarray(grid[..., 0] if grid.shape[2] == 1 else grid)
    sheet.paste(tile, (MARGIN + (room - width) // 2, MARGIN + LINE))
    return np.asarray(sheet, np.uint8)


def _scale(n: int, side: int) -> int:
    """Enlarge so that the grid fills a frame."""
    columns = max(1, int(np.ceil(np.sqrt(n))))
    return max(1, (WIDTH - 2 * MARGIN) // (columns * (side + 1)))


class Film:
    """The frames of a training: the last is a picture, all of them an animation.

    Parameters
    ----------
    most : int
        Frames kept; beyond that every second one goes, and from then on only every second one
        comes, so that memory stays bounded and time passes evenly.

    >>> film = Film()
    >>> film.add(scatter_frame(np.eye(2), np.zeros((5, 2)), "iteration 1"))
    >>> len(film)
    1
    """

    def __init__(self, most: int = 120) -> None:
        self.most, self._every, self._added = most, 1, 0
        self._kept, self._last = list[bytes](), b""  # PNG-compressed

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def _frames(self) -> list[bytes]:
        """Those that are kept, and the last."""
        is_kept = (self._added - 1) % self._every == 0
        return self._kept if is_kept or not self._added else [*self._kept, self._last]

    def add(self, frame: Frame) -> None:
        """Add a frame at the end; all are of one size."""
        content = io.BytesIO()
        _image(frame).save(content, "PNG")
        self._last = content.getvalue()
        if self._added % self._every == 0:
            self._kept.append(self._last)
        self._added += 1
        if len(self) > self.most:
            del self._kept[1::2]
            self._every *= 2

    def write_picture(self, path: str | os.PathLike[str]) -> None:
        """Write the last frame as PNG.

        Raises
        ------
        OutputError
            If there is no frame, or the file cannot be written.
        """
        self._check(path, ".png")
        write_atomically(path, self._last)

    def write_gif(self, path: str | os.PathLike[str]) -> None:
        """Write all frames as an endless GIF of about six seconds that stops at the last.

        Raises
        ------
        OutputError
            If there is no frame, or the file cannot be written.
        """
        from PIL import Image

        self._check(path, ".gif")
        frames = self._frames
        each = min(MOST, max(LEAST, LENGTH // len(frames)))
        # a palette of its own for each frame: up to 256 colours stay as they are
        first, *rest = (Image.open(io.BytesIO(frame)).quantize(256) for frame in frames)
        content = io.BytesIO()
        first.save(
            content, "GIF", save_all=True, append_images=rest, loop=0,
            duration=[each] * len(rest) + [LAST],
        )  # fmt: skip
        write_atomically(path, content.getvalue())

    def _check(self, path: str | os.PathLike[str], suffix: str) -> None:
        if Path(path).suffix.lower() != suffix:
            raise OutputError(f"{os.fspath(path)}: expected a name that ends in {suffix}")
        if not self._added:
            raise OutputError(f"{os.fspath(path)}: there is no frame to write")


def _image(frame: Frame) -> Image:
    from PIL import Image

    return Image.fromarray(frame)
