from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nembp.datasets.images import read_image, read_images
from nembp.errors import DataError, ShapeError

GREY, COLOUR = (5, 7, 1), (5, 7, 3)


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)


def smooth() -> np.ndarray:
    """What JPEG keeps well."""
    y, x = np.mgrid[:5, :7]
    return np.stack([y * 40, x * 30, 200 - y * 10 - x * 10], -1).astype(np.uint8)


def saved(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def refused(path, reason, shape=GREY):
    with pytest.raises(DataError) as caught:
        read_images([path], shape)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message


def test_files_are_read_in_order_and_one_path_is_enough(tmp_path):
    content = pixels(3, 5, 7)
    paths = [saved(tmp_path / f"{k}.png", Image.fromarray(x)) for k, x in enumerate(content)]
    found = read_images(paths[::-1], GREY)
    assert found.dtype == np.uint8
    assert np.array_equal(found, content[::-1, ..., np.newaxis])
    assert np.array_equal(read_images(str(paths[1]), GREY), content[1:2, ..., np.newaxis])


def test_colours_become_what_the_shape_says(tmp_path):
    grey, colour = pixels(5, 7), pixels(5, 7, 3)
    path = saved(tmp_path / "grey.png", Image.fromarray(grey))
    assert np.array_equal(read_images(path, COLOUR)[0], np.stack([grey] * 3, -1))
    path = saved(tmp_path / "colour.png", Image.fromarray(colour))
    assert np.array_equal(read_images(path, COLOUR)[0], colour)
    luminance = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    assert np.abs(read_images(path, GREY)[0, ..., 0] - luminance).max() < 1
    path = saved(tmp_path / "palette.png", Image.fromarray(colour).quantize(256))
    assert np.array_equal(read_images(path, COLOUR)[0], colour)
    bits = grey > 128
    path = saved(tmp_path / "bits.png", Image.fromarray(bits))
    assert np.array_equal(read_images(path, GREY)[0, ..., 0], bits * 255)


def test_sixteen_bits_stay_sixteen(tmp_path):
    for deep in (pixels(5, 7).astype(np.uint16) * 200, pixels(5, 7).astype(np.uint16)):
        for name in ("deep.png", "deep.tif", "deep.pgm"):
            path = saved(tmp_path / name, Image.fromarray(deep))
            for shape in (GREY, COLOUR):
                assert np.array_equal(read_images(path, shape)[0, ..., -1], deep)
    other = saved(tmp_path / "flat.png", Image.fromarray(pixels(5, 7)))
    with pytest.raises(DataError, match=r"flat.png: 8 bits per pixel, but .*deep.pgm has 16"):
        read_images([path, other], GREY)


def test_jpeg_is_read_and_turned_as_the_camera_says(tmp_path):
    image = Image.fromarray(smooth())
    path = saved(tmp_path / "a.jpg", image, quality=100, subsampling=0)
    assert np.abs(read_images(path, COLOUR)[0].astype(int) - smooth()).max() < 8
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    turned = saved(tmp_path / "b.jpg", image, quality=100, subsampling=0, exif=exif)
    found = read_images(turned, (7, 5, 3))[0].astype(int)
    assert np.abs(found - np.rot90(smooth(), -1)).max() < 8
    refused(turned, "7 x 5 pixels (width x height); expected 7 x 5", COLOUR)


def test_opaque_alpha_is_dropped_and_holes_are_refused(tmp_path):
    rgba = np.dstack([pixels(5, 7, 3), np.full((5, 7), 255, np.uint8)])
    path = saved(tmp_path / "a.png", Image.fromarray(rgba))
    assert np.array_equal(read_images(path, COLOUR)[0], rgba[..., :3])
    rgba[2, 3, 3] = 254
    saved(path, Image.fromarray(rgba))
    refused(path, "see-through in places")
    refused(path, "Flatten it", COLOUR)
    saved(path, Image.fromarray(pixels(5, 7)), transparency=int(pixels(5, 7)[0, 0]))
    refused(path, "see-through in places")


def test_other_sizes_are_refused_with_both_sizes(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(pixels(7, 5)))
    refused(path, "5 x 7 pixels (width x height); expected 7 x 5, the size of the training images")
    refused(path, "Crop or resize it.")
    # twice the size is no sheet of two
    refused(saved(path, Image.fromarray(pixels(10, 7))), "7 x 10 pixels")


def test_what_is_no_image_is_refused(tmp_path):
    path = tmp_path / "a.png"
    refused(path, "no such file")
    path.write_bytes(b"")
    refused(path, "not an image file; expected PNG, JPEG, TIFF or another format")
    path.write_text("no image at all")
    refused(path, "not an image file")
    frames = [Image.fromarray(pixels(5, 7) // k) for k in (1, 2, 3)]
    saved(path, frames[0], format="GIF", save_all=True, append_images=frames[1:])
    refused(path, "3 images in one file; expected one")
    refused(tmp_path, "is a folder")
    with pytest.raises(DataError, match="no image file given"):
        read_images([], GREY)
    with pytest.raises(ShapeError, match="are no images"):
        read_images([path], (64,))


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )  # fmt: skip


@pytest.mark.parametrize("side", [9_000, 20_000, 2**31 - 1])
def test_huge_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch, side):
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(20_000_000))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data)
    (tmp_path / "bomb.png").write_bytes(content + chunk(b"IEND", b""))
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    monkeypatch.setattr("nembp.datasets.images._decoded", lambda *_: pytest.fail("decoded"))
    refused(tmp_path / "bomb.png", "")


def encoded(kind: str, image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


VALID = [
    encoded("PNG", Image.fromarray(pixels(5, 7))),
    encoded("PNG", Image.fromarray(pixels(5, 7, 3)).quantize(8)),
    encoded("PNG", Image.fromarray(pixels(5, 7).astype(np.uint16) << 8)),
    encoded("JPEG", Image.fromarray(smooth())),
]


def test_no_flipped_bit_of_a_png_changes_a_pixel(tmp_path):
    path = tmp_path / "flipped.png"
    for content in VALID[:3]:
        path.write_bytes(content)
        reference = read_images(path, COLOUR)
        detected = 0
        for bit in range(0, 8 * len(content), 7):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            try:
                assert np.array_equal(read_images(path, COLOUR), reference)
            except DataError:
                detected += 1
        assert detected > 60


@settings(max_examples=300)
@given(st.data())
def test_any_bytes_give_an_image_or_a_data_error(tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(VALID)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        junk = data.draw(st.binary(max_size=6))
        if data.draw(st.booleans()):
            content[at : at + len(junk)] = junk
        elif data.draw(st.booleans()):
            content[at:at] = junk
        else:
            del content[at:]
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(content)
    try:
        found = read_images(path, COLOUR)
    except DataError as error:
        message = str(error)
    else:
        message = f"{path}: "
        assert found.shape == (1, *COLOUR)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


# --- one file, of any size or brought to one


def test_any_size_and_colour_can_be_asked_for(tmp_path):
    for kind, options in (("png", {}), ("bmp", {}), ("webp", {"lossless": True})):
        for image in (pixels(5, 7), pixels(4, 9, 3)):
            path = saved(tmp_path / f"a.{kind}", Image.fromarray(image), **options)
            expected = image if image.ndim == 3 else image[..., np.newaxis]
            if kind == "webp":  # it stores colours only
                expected = expected.repeat(3 // expected.shape[2], axis=2)
            assert np.array_equal(read_image(path, None, None), expected)
    deep = saved(tmp_path / "deep.png", Image.fromarray(pixels(5, 7).astype(np.uint16) << 8))
    assert read_image(deep, None, None).shape == (5, 7, 1)


def test_resizing_keeps_proportions_and_cuts_both_sides_alike(tmp_path):
    image = np.zeros((20, 60), np.uint8)
    image[:, 20:40] = 200  # the square in the middle is what is left
    path = saved(tmp_path / "wide.png", Image.fromarray(image))
    found = read_image(path, (10, 10), 1, resize=True)
    assert found.shape == (10, 10, 1)
    assert np.abs(found - 200.0).max() < 20  # bicubic edges ring a little
    assert read_image(path, (40, 120), 3, resize=True).shape == (40, 120, 3)
    assert np.array_equal(read_image(path, (20, 60), 1, resize=True)[..., 0], image)
    with pytest.raises(DataError, match=r"60 x 20 pixels .*expected 10 x 10, that of the others"):
        read_image(path, (10, 10), 1, remedy="that of the others")
