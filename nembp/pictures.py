"""Images of samples: tiled into sheets, written, and what a network sees backward.

Images are arrays (n, height, width, channels) with 1 channel (grey) or 3 (RGB), uint8 in 0..255 or
floats in [0, 1]. PNG is what is written: it keeps every pixel.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nembp.errors import OutputError, ShapeError
from nembp.files import write_atomically
from nembp.image_files import check_image_shape, read_images

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["backward_picture", "read_images", "tile_images", "write_images"]

TILE = 64  # pixels that a small image is enlarged to, about, in a sheet
GREY = 128  # between the tiles of a sheet: seen beside black and beside white


def tile_images(
    images: NDArray[Any],
    shape: Sequence[int],
    columns: int | None = None,
    scale: int | None = None,
    gap: int = 2,
) -> NDArray[np.uint8]:
    """Lay images out in a grid, row by row.

    Parameters
    ----------
    images : ndarray, shape (n, features) or (n, *shape)
        uint8, or floats, which are clipped to [0, 1].
    shape : sequence of int
        (height, width, channels) of one image, 1 or 3 channels.
    columns : int, optional
        Images in a row; by default as many as make the grid about square.
    scale : int, optional
        Enlargement of each pixel; by default small images become about 64 pixels.
    gap : int, default 2
        Grey pixels between neighbours.

    Returns
    -------
    ndarray of uint8, shape (height, width, channels)

    Raises
    ------
    ShapeError
        If the array does not hold such images, or there is none.

    >>> tile_images(np.zeros((5, 4)), (2, 2, 1), scale=1, gap=1).shape
    (5, 8, 1)
    """
    pixels = _pixels(images, shape)
    n, height, width, channels = pixels.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else min(columns, n)
    scale = max(1, TILE // max(height, width)) if scale is None else scale
    if columns < 1 or scale < 1 or gap < 0:
        raise ShapeError(f"columns and scale must be at least 1, got {columns} and {scale}")
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    down, right = height * scale + gap, width * scale + gap
    rows = math.ceil(n / columns)
    sheet = np.full((rows * down - gap, columns * right - gap, channels), GREY, np.uint8)
    for k, tile in enumerate(pixels):
        top, left = k // columns * down, k % columns * right
        sheet[top : top + height * scale, left : left + width * scale] = tile
    return sheet


def write_images(path: str | os.PathLike[str], images: NDArray[Any], shape: Sequence[int]) -> None:
    """Write one image pixel by pixel, or several as a sheet of `tile_images`, as PNG.

    Parameters
    ----------
    path : path
        Its suffix must be .png.
    images : ndarray, shape (n, features) or (n, *shape)
        uint8, or floats, which are clipped to [0, 1].
    shape : sequence of int
        (height, width, channels) of one image.

    Raises
    ------
    OutputError
        If the file cannot be written, or its suffix promises another format.
    ShapeError
        If the array does not hold such images.
    """
    one = len(images) == 1
    sheet = _pixels(images, shape)[0] if one else tile_images(images, shape)
    _write_png(path, _pil_image(sheet))


def backward_picture(
    path: str | os.PathLike[str],
    images: NDArray[Any],
    centroids: NDArray[Any] | None,
    shape: Sequence[int],
    classes: Sequence[str],
) -> None:
    """Draw what each class looks like to the network, beside what it is: a PNG 1000 pixels wide.

    Images are shown enlarged, the backward image of each label above its class's centroid. Other
    samples become strips of one cell a feature, coloured from the feature's lowest value in the
    picture to its highest, whatever its unit.

    Parameters
    ----------
    path : path
        Commonly ``backward.png``.
    images : ndarray, shape (classes, features) or (classes, *shape)
        ``net.reversed`` at the label of each class, scaled to raw units; of images in [0, 1],
        which is also what they are clipped to.
    centroids : ndarray of the same shape, or None
        Mean of each class in the same unit; None draws the backward row alone.
    shape : sequence of int
        Of one sample; (height, width, channels) for images. Channels other than 1 or 3 are shown
        by their mean.
    classes : sequence of str
        Their names; numbers where there are none.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ShapeError
        If the arrays do not have a sample of this shape for each class, or hold a NaN.
    """
    from nembp.drawing import compare_images, compare_strips

    names = [str(name) for name in classes] or [str(k) for k in range(len(images))]
    rows = {"backward": images} | ({} if centroids is None else {"centroid": centroids})
    for what, values in rows.items():
        if np.shape(values)[:1] != (len(names),):
            raise ShapeError(f"{what}: {len(values)} samples for {len(names)} classes")
    if len(shape) == 3:
        if shape[2] not in (1, 3):
            full = (-1, *shape)
            rows = {what: np.reshape(x, full).mean(3, keepdims=True) for what, x in rows.items()}
            shape = (shape[0], shape[1], 1)
        tiles = {what: _pixels(values, shape) for what, values in rows.items()}
        _write_png(path, compare_images(tiles, names))
    else:
        strips = {what: _finite(values, (math.prod(shape),)) for what, values in rows.items()}
        _write_png(path, compare_strips(strips, names))


def _finite(values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Return samples as (n, *shape); ShapeError unless they are that many finite numbers."""
    values = np.asarray(values)
    count = math.prod(shape)
    if values.ndim < 2 or not len(values) or math.prod(values.shape[1:]) != count:
        raise ShapeError(
            f"an array of shape {values.shape} does not hold samples of shape {tuple(shape)}; "
            f"expected ({'n, ' + ', '.join(map(str, shape))}) or (n, {count}), n at least 1"
        )
    if values.dtype.kind not in "uf" or not np.all(np.isfinite(values)):
        raise ShapeError(f"expected finite floats or uint8 to draw, got {values.dtype} with a NaN")
    return values.reshape(-1, *shape)


def _pixels(images: NDArray[Any], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Return images as uint8 (n, height, width, channels)."""
    check_image_shape(shape)
    images = _finite(images, shape)
    if images.dtype == np.uint8:
        return images
    return np.asarray(np.rint(np.clip(images, 0.0, 1.0) * 255.0), np.uint8)


def _pil_image(pixels: NDArray[np.uint8]) -> Image:
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _write_png(path: str | os.PathLike[str], image: Image) -> None:
    if Path(path).suffix.lower() != ".png":
        raise OutputError(f"{os.fspath(path)}: pictures are PNG; give a name that ends in .png")
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    write_atomically(path, content.getvalue())
