"""Pictures of samples: sheets, what a network sees backward, what a generator draws as it learns.

Images are arrays (n, height, width, channels) with 1 channel (grey) or 3 (RGB), uint8 in 0..255 or
floats in [0, 1]. PNG is what is written: it keeps every pixel.
"""

from __future__ import annotations

import functools
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from nembp.datasets.dataset import check_image_shape
from nembp.errors import ShapeError
from nembp.files import replacing, write_atomically

WIDTH, MARGIN = 1020, 20
INK, MUTED, EDGE, PAPER = "#202428", "#697077", "#c1c7cd", "#ffffff"
NAME_SIZE, LABEL_SIZE = 18, 15
LEGEND, LOWEST, HIGHEST = 96, "lowest", "highest of each feature"
LEAST_STRIP, STRIP, LEGEND_WIDTH = 168, 880, 340  # pixels
# blue, white and red of equal lightness at both ends; seen with any colour vision
COLOURS = np.array(
    [(33, 75, 135), (84, 147, 196), (172, 209, 231), (247, 247, 247), (246, 191, 160),
     (219, 115, 86), (160, 32, 48)], dtype=np.float64
)  # fmt: skip
TILE = 64  # pixels that a small image is enlarged to, about, in a sheet
GAP, GREY = 2, 128  # between the tiles of a sheet: seen beside black and beside white
ROOM, BORDER, LINE = 528, 16, 30  # of a frame of a film, in pixels; LINE is of its text
FINE = 3  # points are drawn so many times as large, then reduced: smooth edges
REAL, GENERATED = (193, 199, 205), (33, 102, 172)
RADIUS = {REAL: 2.6, GENERATED: 2.2}  # pixels
LAST = 2000  # milliseconds that a film stops at its end
LEAST, MOST, LENGTH = 40, 400, 6000  # milliseconds: of a frame at least and at most, of them all

Frame = NDArray[np.uint8]
Path = str | os.PathLike[str]


# -- sheets ----------------------------------------------------------------------------------------
def tile_images(
    images: NDArray[Any], shape: Sequence[int], columns: int | None = None, scale: int | None = None
) -> Frame:
    """Lay images (n, features) or (n, *shape) out in a grid, row by row.

    By default the grid is about square, and small images are enlarged to about 64 pixels; between
    neighbours are 2 grey ones.

    >>> tile_images(np.zeros((5, 4)), (2, 2, 1), scale=1).shape
    (6, 10, 1)
    """
    pixels = _pixels(images, shape)
    n, height, width, channels = pixels.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else min(columns, n)
    scale = max(1, TILE // max(height, width)) if scale is None else scale
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    down, right, rows = height * scale + GAP, width * scale + GAP, math.ceil(n / columns)
    # each tile with a gap to its right and below, blank ones at the end
    padded = np.full((rows * columns, down, right, channels), GREY, np.uint8)
    padded[:n, :-GAP, :-GAP] = pixels
    sheet = padded.reshape(rows, columns, down, right, channels).swapaxes(1, 2)
    return sheet.reshape(rows * down, columns * right, channels)[:-GAP, :-GAP]


def write_images(path: Path, images: NDArray[Any], shape: Sequence[int]) -> None:
    """Write one image pixel by pixel, or several as a sheet of `tile_images`, as PNG."""
    one = len(images) == 1
    _write_png(path, pil_image(_pixels(images, shape)[0] if one else tile_images(images, shape)))


def _pixels(images: NDArray[Any], shape: Sequence[int]) -> Frame:
    """Return images as uint8 (n, height, width, channels)."""
    check_image_shape(shape)
    images = _finite(images, shape)
    if images.dtype == np.uint8:
        return images
    return np.asarray(np.rint(np.clip(images, 0.0, 1.0) * 255.0), np.uint8)


def _finite(values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Return samples as (n, *shape); ShapeError unless they are that many finite numbers."""
    values, count = np.asarray(values), math.prod(shape)
    if values.ndim < 2 or not len(values) or math.prod(values.shape[1:]) != count:
        raise ShapeError(
            f"an array of shape {values.shape} does not hold samples of shape {tuple(shape)}; "
            f"expected ({'n, ' + ', '.join(map(str, shape))}) or (n, {count}), n at least 1"
        )
    if values.dtype.kind not in "uf" or not np.all(np.isfinite(values)):
        raise ShapeError(f"expected finite floats or uint8 to draw, got {values.dtype} with a NaN")
    return values.reshape(-1, *shape)


def in_colour(images: NDArray[Any], shape: Sequence[int]) -> tuple[NDArray[Any], Sequence[int]]:
    """Return images and their shape, with other than 1 or 3 channels replaced by their mean."""
    if len(shape) != 3 or shape[2] in (1, 3):
        return images, shape
    return np.reshape(images, (-1, *shape)).mean(axis=3, keepdims=True), (*shape[:2], 1)


def pil_image(pixels: Frame) -> Image.Image:
    """Return an image (height, width, channels) as Pillow has it."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _write_png(path: Path, image: Image.Image) -> None:
    with replacing(path) as file:
        image.save(file, "PNG", optimize=True)


# -- classes, seen backward ------------------------------------------------------------------------
def backward_picture(
    path: Path,
    images: NDArray[Any],
    centroids: NDArray[Any] | None,
    shape: Sequence[int],
    classes: Sequence[str],
) -> None:
    """Draw what each class looks like to the network, beside what it is: a PNG 1000 pixels wide.

    Images are shown enlarged, the backward image of each label above its class's centroid. Other
    samples become strips of one cell a feature, coloured from the feature's lowest value in the
    picture to its highest. ``images`` (classes, features) are ``net.reversed`` at the label of each
    class, in raw units, or [0, 1] of images; ``centroids`` the means of the classes. ``shape`` is
    that of one sample; channels other than 1 or 3 are shown by their mean.
    """
    names = [str(name) for name in classes] or [str(k) for k in range(len(images))]
    rows = {"backward": images} | ({} if centroids is None else {"centroid": centroids})
    for what, values in rows.items():
        if np.shape(values)[:1] != (len(names),):
            raise ShapeError(f"{what}: {len(values)} samples for {len(names)} classes")
    is_image = len(shape) == 3
    if is_image:
        tiles = [_pixels(*in_colour(values, shape)) for values in rows.values()]
    else:
        features = [_finite(values, (math.prod(shape),)) for values in rows.values()]
        tiles = list(_strips(np.stack(features)))
    sheet = _compare(dict(zip(rows, tiles, strict=True)), names, legend=not is_image)
    _write_png(path, sheet)


def _strips(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image of one cell a feature for each of the samples (rows, classes, features)."""
    values, features = values.astype(np.float64), values.shape[2]
    low, high = values.min((0, 1)), values.max((0, 1))
    # halves, since the range of huge values may not be finite; a constant is in the middle
    span = high / 2 - low / 2
    levels = np.divide(values / 2 - low / 2, span, out=np.full(values.shape, 0.5), where=span > 0)
    colours = _colours(np.clip(levels, 0.0, 1.0))
    cell = max(LEAST_STRIP // features, min(56, STRIP // features))
    if not cell:  # more features than pixels are averaged
        lines = Image.fromarray(colours.reshape(-1, features, 3))
        lines = lines.resize((STRIP, lines.height), Image.Resampling.BOX)
        colours, cell = np.asarray(lines).reshape(*values.shape[:2], STRIP, 3), 1
    strips = colours.repeat(cell, axis=2)
    if cell >= 12:  # lines between the cells
        strips[:, :, cell - 1 : -1 : cell] = 255
    return strips[:, :, np.newaxis].repeat(26, axis=2)


def _compare(
    rows: Mapping[str, NDArray[np.uint8]], names: Sequence[str], *, legend: bool = False
) -> Image.Image:
    """Draw a column for each class: its name, and below it one enlarged image of each row."""
    height, width = next(iter(rows.values())).shape[1:3]
    gap, block_gap, head = 6, 24, NAME_SIZE + 10
    left = MARGIN + max(text_width(label, LABEL_SIZE) for label in rows) + 12
    room = WIDTH - left - MARGIN
    # columns wide enough for names of a usual length
    wanted = min(120, max(text_width(name, NAME_SIZE) for name in names) + 4)
    lines = math.ceil(len(names) / max(1, (room + gap) // (max(width, 64, wanted) + gap)))
    columns = math.ceil(len(names) / lines)
    scale = min((room + gap) // columns - gap, 168 * width // max(height, width)) // width
    width, height = width * max(1, scale), height * max(1, scale)
    across, down = width + gap, height + gap
    block = head + len(rows) * down - gap + block_gap
    bottom = MARGIN + lines * block - block_gap
    size = max(columns * across - gap, LEGEND_WIDTH if legend else 0)
    sheet, draw = paper((left + size + MARGIN, bottom + MARGIN + (40 if legend else 0)))
    for k, name in enumerate(names):
        x, top = left + k % columns * across, MARGIN - 2 + k // columns * block
        write(draw, (x + width // 2, top), name, "ma", NAME_SIZE, across - 2)
        for r, (label, images) in enumerate(rows.items()):
            y = top + head + r * down
            if k % columns == 0:
                write(draw, (left - 12, y + height // 2), label, "rm", LABEL_SIZE, colour=MUTED)
            draw.rectangle((x - 1, y - 1, x + width, y + height), outline=EDGE)
            image = pil_image(images[k]).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(image, (x, y))
    if legend:
        y, start = bottom + 30, left + text_width(LOWEST, LABEL_SIZE) + 8
        bar = Image.fromarray(_colours(np.linspace(0.0, 1.0, LEGEND))[np.newaxis])
        sheet.paste(bar.resize((LEGEND, 12)), (start, y - 6))
        for x, text in ((left, LOWEST), (start + LEGEND + 8, HIGHEST)):
            write(draw, (x, y), text, "lm", LABEL_SIZE, colour=MUTED)
    return sheet


def _colours(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the RGB of levels in [0, 1], along a last axis."""
    at = np.linspace(0.0, 1.0, len(COLOURS))
    channels = [np.interp(levels, at, COLOURS[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def paper(size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty sheet of (width, height) pixels, and what draws on it."""
    sheet = Image.new("RGB", size, PAPER)
    return sheet, ImageDraw.Draw(sheet)


@functools.cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Return the pixels that a line of text takes."""
    return math.ceil(float(_font(size).getlength(" ".join(text.split()))))


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    anchor: str,
    size: int,
    room: int | None = None,
    *,
    colour: str = INK,
) -> None:
    """Write one line of text, cut to `room` pixels."""
    font, text = _font(size), " ".join(text.split())
    whole = text
    while room is not None and text and font.getlength(text) > room:
        whole = whole[:-1]
        text = whole.rstrip() + "…" if whole else ""
    draw.text(at, text, fill=colour, font=font, anchor=anchor)


# -- frames of a training --------------------------------------------------------------------------
def scatter_frame(real: NDArray[Any], generated: NDArray[Any], title: str = "") -> Frame:
    """Draw generated points over real ones, by their first two columns, or the one against 0.

    The window holds the real points and a quarter of their extent around them.

    >>> scatter_frame(np.eye(2), np.zeros((5, 2))).shape
    (620, 560, 3)
    """
    real, generated = (np.c_[each, np.zeros(len(each))][:, :2] for each in (real, generated))
    low, high = real.min(axis=0), real.max(axis=0)
    half = 0.625 * max(float((high - low).max()), 1e-12)
    low, high = low / 2 + high / 2 - half, low / 2 + high / 2 + half
    side = ROOM
    sheet, draw = _frame(side, side + LINE, title)
    plane = Image.new("RGB", (side * FINE, side * FINE), PAPER)
    dots = ImageDraw.Draw(plane)  # opaque: few colours, which a GIF keeps as they are
    for points, colour in ((real, REAL), (generated, GENERATED)):
        places = (points - low) / (high - low)
        places = places[np.all((places >= 0) & (places <= 1), axis=1)]  # a NaN is nowhere
        places[:, 1] = 1 - places[:, 1]
        r = RADIUS[colour] * FINE
        for x, y in (places * (side * FINE - 1)).tolist():
            dots.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    left, top = BORDER, BORDER + LINE
    sheet.paste(plane.resize((side, side), Image.Resampling.BOX), (left, top))
    draw.rectangle((left - 1, top - 1, left + side, top + side), outline=EDGE)
    x, y = BORDER, top + side + BORDER + 4
    for name, colour in (("real", REAL), ("generated", GENERATED)):
        draw.ellipse((x, y - 4, x + 8, y + 4), fill=colour)
        write(draw, (x + 16, y), name, "lm", LABEL_SIZE, colour=MUTED)
        x += 16 + text_width(name, LABEL_SIZE) + 28
    return np.asarray(sheet, np.uint8)


def image_frame(images: NDArray[Any], shape: Sequence[int], title: str = "") -> Frame:
    """Draw generated images in a grid, with a line above; as `tile_images` for any channels."""
    images, shape = in_colour(images, shape)
    columns = max(1, int(np.ceil(np.sqrt(len(images)))))
    scale = max(1, ROOM // (columns * (max(shape[:2]) + 1)))  # to fill a frame
    grid = tile_images(images, shape, scale=scale)
    height, width = grid.shape[:2]
    room = max(width, ROOM)
    sheet, _ = _frame(room, height, title)
    sheet.paste(pil_image(grid), (BORDER + (room - width) // 2, BORDER + LINE))
    return np.asarray(sheet, np.uint8)


def _frame(width: int, height: int, title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty frame with room of this size below its title, and what draws on it."""
    sheet, draw = paper((width + 2 * BORDER, height + LINE + 2 * BORDER))
    write(draw, (BORDER, BORDER + LINE // 2 - 4), title, "lm", LABEL_SIZE, width)
    return sheet, draw


class Film:
    """The frames of a training: the last is a picture, all of them an animation.

    Beyond ``most`` every second frame goes, and from then on only every second one comes, so that
    memory stays bounded and time passes evenly.
    """

    def __init__(self, most: int = 120) -> None:
        self.most, self._every, self._added = most, 1, 0
        self._kept, self._last = list[bytes](), b""  # PNG-compressed

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def _frames(self) -> list[bytes]:
        """Those that are kept, and the last."""
        return self._kept if self._last in self._kept[-1:] else [*self._kept, self._last]

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

    def write_picture(self, path: Path) -> None:
        """Write the last frame as PNG."""
        write_atomically(path, self._last)

    def write_gif(self, path: Path) -> None:
        """Write all frames as an endless GIF of about six seconds that stops at the last."""
        frames = self._frames
        each = min(MOST, max(LEAST, LENGTH // len(frames)))
        # a palette of its own for each frame: up to 256 colours stay as they are
        first, *rest = (Image.open(io.BytesIO(frame)).quantize(256) for frame in frames)
        times = [each] * len(rest) + [LAST]
        with replacing(path) as file:
            first.save(file, "GIF", save_all=True, append_images=rest, loop=0, duration=times)
