"""Image files as samples: PNG and JPEG, read without trusting them."""

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

__all__ = ["check_image_shape", "read_images"]

_FORMATS = ("PNG", "JPEG")
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
    """Read PNG or JPEG files, one image each, as grey or RGB.

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
        raise DataError("no image file given; expected at least one PNG or JPEG")
    images = []
    for path in map(Path, paths):
        with reading(path) as file:
            images.append(_read_image(path, file, tuple(shape)))
    return np.stack(images)


def check_image_shape(shape: Sequence[int]) -> None:
    """Raise ShapeError unless `shape` is (height, width, channels) with 1 or 3 channels."""
    if len(shape) != 3 or shape[2] not in (1, 3) or min(shape) < 1:
        raise ShapeError(
            f"samples of shape {tuple(shape)} are no images; expected (height, width, channels) "
            "with 1 channel (grey) or 3 (RGB)"
        )


def _read_image(path: Path, file: BinaryIO, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    expected = (shape[1], shape[0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that are refused next, and odd metadata
            with Image.open(file, formats=_FORMATS) as image:
                found = image.size
                # nothing is decoded before its size is known to be right
                if usable := found in (expected, expected[::-1]):
                    image.verify()  # a PNG's checksums, which decoding passes over
            if usable:
                file.seek(0)
                with Image.open(file, formats=_FORMATS) as image:
                    pixels = _decoded(image, shape[2], path)
                if pixels.shape == shape:
                    return pixels
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path}: not an image file; expected {' or '.join(_FORMATS)}. Convert it to PNG."
        ) from error
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged image ({reason}). Get a fresh copy.") from error
    raise DataError(
        f"{path}: {found[0]} x {found[1]} pixels (width x height); expected {expected[0]} x "
        f"{expected[1]}, the size of the training images. Crop or resize it."
    )


def _decoded(image: Image, channels: int, path: Path) -> NDArray[np.uint8]:
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
    if image.mode.startswith("I"):  # 16 bits, which PIL would clip to 255
        grey = (np.asarray(image, np.int64) >> 8).astype(np.uint8)[..., np.newaxis]
        return grey.repeat(channels, axis=2)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)
