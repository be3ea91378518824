"""What a generator draws while it learns: sheets of images, scatter plots, and a GIF of them."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nembp.errors import OutputError, ShapeError
from nembp.files import write_atomically
from nembp.plotting.pictures import (
    EDGE,
    MUTED,
    PAPER,
    in_colour,
    paper,
    pil_image,
    text_width,
    tile_images,
    write,
)

WIDTH, MARGIN, LINE = 560, 16, 30  # of a frame, in pixels; LINE is the height of a line of text
SIZE = 15  # of the text
FINE = 3  # points are drawn so many times as large, then reduced: smooth edges
REAL, GENERATED = (193, 199, 205), (33, 102, 172)
RADIUS = {REAL: 2.6, GENERATED: 2.2}  # pixels
LAST = 2000  # milliseconds that a film stops at its end
LEAST, MOST, LENGTH = 40, 400, 6000  # milliseconds: of a frame at least and at most, of them all

Frame = NDArray[np.uint8]


def scatter_frame(real: NDArray[Any], generated: NDArray[Any], title: str = "") -> Frame:
    """Draw generated points over real ones, by their first two columns, or the one against 0.

    The window holds the real points and a quarter of their extent around them; points outside are
    not drawn.

    Raises
    ------
    ShapeError
        If there are no columns, or no real points.

    >>> scatter_frame(np.eye(2), np.zeros((5, 2))).shape
    (620, 560, 3)
    """
    for what, points in (("real", real), ("generated", generated)):
        if np.ndim(points) != 2 or not np.shape(points)[1] or not len(real):
            raise ShapeError(
                f"{what} points of shape {np.shape(points)}; expected (n, 2) to draw in the plane"
            )
    # a single column is drawn against 0
    real, generated = (np.c_[each, np.zeros(len(each))][:, :2] for each in (real, generated))
    low, high = real.min(axis=0), real.max(axis=0)
    half = 0.625 * max(float((high - low).max()), 1e-12)
    low, high = low / 2 + high / 2 - half, low / 2 + high / 2 + half
    side = WIDTH - 2 * MARGIN
    sheet, draw = paper((WIDTH, side + 2 * LINE + 2 * MARGIN))
    write(draw, (MARGIN, MARGIN + LINE // 2 - 4), title, "lm", SIZE, side)
    plane = Image.new("RGB", (side * FINE, side * FINE), PAPER)
    dots = ImageDraw.Draw(plane)  # opaque: few colours, which a GIF keeps as they are
    for points, colour in ((real, REAL), (generated, GENERATED)):
        places = (points - low) / (high - low)
        places = places[np.all((places >= 0) & (places <= 1), axis=1)]  # a NaN is nowhere
        places[:, 1] = 1 - places[:, 1]
        r = RADIUS[colour] * FINE
        for x, y in (places * (side * FINE - 1)).tolist():
            dots.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    left, top = MARGIN, MARGIN + LINE
    sheet.paste(plane.resize((side, side), Image.Resampling.BOX), (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=EDGE)
    x, y = MARGIN, top + side + MARGIN + 4
    for name, colour in (("real", REAL), ("generated", GENERATED)):
        draw.ellipse((x, y - 4, x + 8, y + 4), fill=colour)
        write(draw, (x + 16, y), name, "lm", SIZE, colour=MUTED)
        x += 16 + text_width(name, SIZE) + 28
    return np.asarray(sheet, np.uint8)


def image_frame(images: NDArray[Any], shape: Sequence[int], title: str = "") -> Frame:
    """Draw generated images in a grid, with a line above; as `tile_images` for any channels."""
    images, shape = in_colour(images, shape)
    columns = max(1, int(np.ceil(np.sqrt(len(images)))))
    scale = max(1, (WIDTH - 2 * MARGIN) // (columns * (max(shape[:2]) + 1)))  # to fill a frame
    grid = tile_images(images, shape, scale=scale)
    height, width = grid.shape[:2]
    room = max(width, WIDTH - 2 * MARGIN)
    sheet, draw = paper((room + 2 * MARGIN, height + LINE + 2 * MARGIN))
    write(draw, (MARGIN, MARGIN + LINE // 2 - 4), title, "lm", SIZE, room)
    sheet.paste(pil_image(grid), (MARGIN + (room - width) // 2, MARGIN + LINE))
    return np.asarray(sheet, np.uint8)


class Film:
    """The frames of a training: the last is a picture, all of them an animation.

    Beyond ``most`` every second frame goes, and from then on only every second one comes, so that
    memory stays bounded and time passes evenly.

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
        Image.fromarray(frame).save(content, "PNG")
        self._last = content.getvalue()
        if self._added % self._every == 0:
            self._kept.append(self._last)
        self._added += 1
        if len(self) > self.most:
            del self._kept[1::2]
            self._every *= 2

    def state(self) -> dict[str, Any]:
        """Return all of it, for another film to :meth:`resume`."""
        return {"every": self._every, "added": self._added, "kept": self._kept, "last": self._last}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Become the film that a state is of; its frames are bytes, or arrays of them."""
        self._every, self._added = state["every"], state["added"]
        # of a number, bytes would make so many
        kept = [bytes(memoryview(frame)) for frame in (*state["kept"], state["last"])]
        self._kept, self._last = kept[:-1], kept[-1]

    def write_picture(self, path: str | os.PathLike[str]) -> None:
        """Write the last frame as PNG."""
        self._check(path, ".png")
        write_atomically(path, self._last)

    def write_gif(self, path: str | os.PathLike[str]) -> None:
        """Write all frames as an endless GIF of about six seconds that stops at the last."""
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
        """Raise an OutputError for another suffix, or if there is no frame."""
        if Path(path).suffix.lower() != suffix:
            raise OutputError(f"{os.fspath(path)}: expected a name that ends in {suffix}")
        if not self._added:
            raise OutputError(f"{os.fspath(path)}: there is no frame to write")
