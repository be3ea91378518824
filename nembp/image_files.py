"""Image files as samples: PNG, JPEG, BMP and WebP, read without trusting them."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.files import reading
from nembp.errors import DataError, ShapeError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SUFFIXES", "check_image_shape", "read_image", "read_images"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_NAMED = "PNG, JPEG, BMP or WebP"
# what PIL raises on damaged files
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
)


def read_images(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], shape: Sequence[int]
) -> NDArray[np.uint8]:
    """Read image files, one image each, as grey or RGB.

    A photograph is turned as its camera says. 16-bit grey becomes 8-bit.

    Parameters
    ----------
    paths : path or sequence of path
        The files.
    shape : sequence of int
        (height, width, channels) that each must have; colours are converted, sizes are not.

    Returns
    -------
    ndarray of uint8, shape (n, height, width, channels)

    Raises
    ------
    DataError
        If a file is missing, damaged, of another format or size, or see-through in places; or if
        no path is given. The message names the file, what was found and expected, and the remedy.
    ShapeError
        If `shape` is not that of an image.
    """
    check_image_shape(shape)
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    if not paths:
        raise DataError(f"no image file given; expected at least one {_NAMED}")
    return np.stack([read_image(Path(path), tuple(shape[:2]), shape[2]) for path in paths])


def read_image(
    path: Path,
    size: tuple[int, ...] | None,
    channels: int | None,
    *,
    resize: bool = False,
    remedy: str = "the size of the training images. Crop or resize it.",
) -> NDArray[np.uint8]:
    """Read one image file.

    Parameters
    ----------
    path : Path
        The file.
    size : (height, width) or None
        What it must have, or is brought to; None for any.
    channels : int or None
        1 (grey) or 3 (RGB), to which colours are converted; None for what the file has.
    resize : bool, default False
        Whether another size is scaled to `size`, with the proportions kept and what sticks out
        cut off alike on both sides.
    remedy : str
        What `size` is, and what to do, for the message about another one.

    Returns
    -------
    ndarray of uint8, shape (height, width, channels)

    Raises
    ------
    DataError
        As `read_images`.
    """
    with reading(path) as file:
        try:
            return _read(path, file, size, channels, resize, remedy)
        except (*_DAMAGE, _bomb()) as error:
            if isinstance(error, DataError):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{path}: damaged image ({reason}). Get a fresh copy.") from error


def _bomb() -> type[Exception]:
    from PIL import Image

    return Image.DecompressionBombError


def check_image_shape(shape: Sequence[int]) -> None:
    """Raise ShapeError unless `shape` is (height, width, channels) with 1 or 3 channels."""
    if len(shape) != 3 or shape[2] not in (1, 3) or min(shape) < 1:
        raise ShapeError(
            f"samples of shape {tuple(shape)} are no images; expected (height, width, channels) "
            "with 1 channel (grey) or 3 (RGB)"
        )


def _read(
    path: Path,
    file: BinaryIO,
    size: tuple[int, ...] | None,
    channels: int | None,
    resize: bool,
    remedy: str,
) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that are refused next, and odd metadata
            with Image.open(file, formats=_FORMATS) as image:
                found = image.size
                # nothing is decoded before its size is known to be right
                if usable := size is None or resize or sorted(found) == sorted(size):
                    image.verify()  # a PNG's checksums, which decoding passes over
            if usable:
                file.seek(0)
                with Image.open(file, formats=_FORMATS) as image:
                    pixels = _decoded(image, channels, path)
                if size is None or pixels.shape[:2] == size:
                    return pixels
                if resize:
                    drawn = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
                    drawn = ImageOps.fit(drawn, (size[1], size[0]), Image.Resampling.BICUBIC)
                    return np.asarray(drawn, np.uint8).reshape(*size, pixels.shape[2])
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path}: not an image file; expected {_NAMED}. Convert it to PNG."
        ) from error
    assert size is not None
    raise DataError(
        f"{path}: {found[0]} x {found[1]} pixels (width x height); expected {size[1]} x "
        f"{size[0]}, {remedy}"
    )


def _decoded(image: Image, channels: int | None, path: Path) -> NDArray[np.uint8]:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (
        255,
        255,
    ):
        raise DataError(
            f"{path}: is see-through in places, so its pixels depend on what lies behind; expected "
            "an opaque image. Flatten it onto the background that the training images have."
        )
    if channels is None:
        channels = 1 if image.mode in ("1", "L", "LA") or image.mode.startswith("I") else 3
    if image.mode.startswith("I"):  # 16 bits, which PIL would clip to 255
        grey = (np.asarray(image, np.int64) >> 8).astype(np.uint8)[..., np.newaxis]
        return grey.repeat(channels, axis=2)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)
