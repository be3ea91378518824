"""Image files: pixels as they are, sizes and depths by name, damage refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nembp.datasets.images import read_image
from nembp.errors import DataError

GREY, COLOUR = (5, 7, 1), (5, 7, 3)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)


def smooth() -> np.ndarray:
    """What JPEG keeps well."""
    y, x = np.mgrid[:5, :7]
    return np.stack([y * 40, x * 30, 200 - y * 10 - x * 10], -1).astype(np.uint8)


def saved(path, image: Image.Image | np.ndarray, **options):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


def refused(path, reason, shape=GREY):
    with pytest.raises(DataError) as caught:
        read(path, shape)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message


def read(path, shape=COLOUR):
    return read_image(path, shape[:2], shape[2])


def test_files_are_read_in_the_colours_that_the_shape_says(tmp_path):
    grey, colour = pixels(5, 7), pixels(5, 7, 3)
    luminance = (colour @ np.array([0.299, 0.587, 0.114]))[..., np.newaxis]  # ITU-R BT.601
    for image, shape, wanted in (
        (grey, GREY, grey[..., np.newaxis]),
        (grey, COLOUR, np.stack([grey] * 3, -1)),
        (colour, COLOUR, colour),
        (colour, GREY, luminance),
        (Image.fromarray(colour).quantize(256), COLOUR, colour),
        (grey > 128, GREY, 255 * (grey > 128)[..., np.newaxis]),
    ):
        found = read(saved(tmp_path / "a.png", image), shape)
        assert np.abs(found - wanted.astype(float)).max() < 1
    for deep in (grey.astype(np.uint16) * 200, grey.astype(np.uint16)):  # 16 bits stay 16
        for name in ("deep.png", "deep.tif", "deep.pgm"):
            for shape in (GREY, COLOUR):
                found = read(saved(tmp_path / name, deep), shape)
                assert np.array_equal(found[..., -1], deep)


def test_jpeg_is_read_and_turned_as_the_camera_says(tmp_path):
    options = {"quality": 100, "subsampling": 0}
    path = saved(tmp_path / "a.jpg", smooth(), **options)
    assert np.abs(read(path).astype(int) - smooth()).max() < 8
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    turned = saved(tmp_path / "b.jpg", smooth(), **options, exif=exif)
    assert np.abs(read(turned, (7, 5, 3)).astype(int) - np.rot90(smooth(), -1)).max() < 8
    refused(turned, "7 x 5 pixels (width x height); expected 7 x 5", COLOUR)


def test_opaque_alpha_is_dropped_and_what_is_no_such_image_is_refused(tmp_path):
    rgba = np.dstack([pixels(5, 7, 3), np.full((5, 7), 255, np.uint8)])
    path = tmp_path / "a.png"
    refused(path, "no such file")
    assert np.array_equal(read(saved(path, rgba)), rgba[..., :3])
    rgba[2, 3, 3] = 254
    refused(saved(path, rgba), "see-through in places")
    refused(saved(path, pixels(5, 7), transparency=int(pixels(5, 7)[0, 0])), "see-through in place")
    path.write_bytes(b"")
    refused(path, "not an image file; expected PNG, JPEG, TIFF or another format")
    frames = [Image.fromarray(pixels(5, 7) // k) for k in (1, 2, 3)]
    saved(path, frames[0], format="GIF", save_all=True, append_images=frames[1:])
    refused(path, "3 images in one file; expected one")
    refused(tmp_path, "is a folder")
    refused(saved(path, pixels(7, 5)), "5 x 7 pixels (width x height); expected 7 x 5, the size of")
    refused(saved(path, pixels(10, 7)), "7 x 10 pixels")  # twice the size is no sheet of two


@pytest.mark.parametrize("side", [9_000, 2**31 - 1])
def test_huge_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch, side):
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = (
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(bytes(10**7))),
        chunk(b"IEND", b""),
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    monkeypatch.setattr("nembp.datasets.images._decoded", lambda *_: pytest.fail("decoded"))
    refused(tmp_path / "bomb.png", "")
    with pytest.raises(DataError, match=r"bytes; expected at most 16,777,216|exceeds limit"):
        read_image(tmp_path / "bomb.png", (8, 8), None, resize=True)


def encoded(kind: str, image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


VALID = [
    encoded("PNG", Image.fromarray(pixels(5, 7, 3)).quantize(8)),
    encoded("PNG", Image.fromarray(pixels(5, 7).astype(np.uint16) << 8)),
    encoded("JPEG", Image.fromarray(smooth())),
]


def test_no_flipped_bit_of_a_png_changes_a_pixel(tmp_path):
    path, detected = tmp_path / "flipped.png", 0
    for content in VALID[:2]:
        path.write_bytes(content)
        reference = read(path)
        for bit in range(0, 8 * len(content), 7):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            try:
                assert np.array_equal(read(path), reference)
            except DataError:
                detected += 1
    assert detected > 120


@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 999), st.binary(max_size=6), st.integers(0, 99)), min_size=1),
)
def test_any_bytes_give_an_image_or_a_data_error(tmp_path_factory, valid, changes):
    content, path = bytearray(valid), tmp_path_factory.getbasetemp() / "fuzzed"
    for at, junk, removed in changes[:3]:
        content[at : at + removed] = junk
    path.write_bytes(content)
    try:
        assert read(path).shape == COLOUR
    except DataError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


def test_any_size_can_be_asked_for_or_brought_to_another(tmp_path):
    for kind, options in (("png", {}), ("bmp", {}), ("webp", {"lossless": True})):
        for image in (pixels(5, 7), pixels(4, 9, 3)):
            path = saved(tmp_path / f"a.{kind}", image, **options)
            expected = image if image.ndim == 3 else image[..., np.newaxis]
            if kind == "webp":  # it stores colours only
                expected = expected.repeat(3 // expected.shape[2], axis=2)
            assert np.array_equal(read_image(path, None, None), expected)
    image = np.zeros((20, 60), np.uint8)
    image[:, 20:40] = 200  # proportions are kept, so the square in the middle is what is left
    path = saved(tmp_path / "wide.png", image)
    found = read_image(path, (10, 10), 1, resize=True)
    assert np.abs(found - 200.0).max() < 20  # bicubic edges ring a little
    assert read_image(path, (40, 120), 3, resize=True).shape == (40, 120, 3)
    with pytest.raises(DataError, match=r"60 x 20 pixels .*expected 10 x 10, that of the others"):
        read_image(path, (10, 10), 1, remedy="that of the others")
