"""Image files and class folders of them: pixels as they are, not held, refused by name."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tempfile
import zlib

import numpy as np
import pytest
from fuzz_cases import traced
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nembp.datasets import Scaling, load
from nembp.datasets.images import read_image
from nembp.datasets.sources import is_mapped
from nembp.errors import ArchitectureError, DataError, OutputError

SHAPE = (6, 5)


def picture(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape or SHAPE, np.uint8)


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def fill(folder, names=("cat", "ant", "Bee"), count=4, shape=SHAPE, suffix="png"):
    """Images of each class, in the order in which they are to be read."""
    return {
        name: np.stack([put(folder / name / f"{k}.{suffix}", picture((ord(name[0]), k), *shape))
                        for k in range(count)])
        for name in sorted(names)
    }  # fmt: skip


@pytest.mark.parametrize("test", ["test", "val", None])
@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)])
def test_folders_are_classes_in_sorted_order(tmp_path, test, shape):
    train = fill(tmp_path / "train", shape=shape)
    if test:
        other = fill(tmp_path / test, ("cat", "ant"), 2, shape)
    data = load("images", tmp_path, test_fraction=0.25)
    assert (data.name, data.source) == ("images", str(tmp_path))
    assert data.classes == ("Bee", "ant", "cat")
    assert data.shape == (*SHAPE, 3 if len(shape) == 3 else 1)
    assert is_mapped(data.train.x)
    assert data.to_unit == Scaling(factor=1 / 255)
    if test:
        assert np.array_equal(data.train.x, np.concatenate(list(train.values())))
        assert data.train.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert np.array_equal(data.test.x, np.concatenate(list(other.values())))
        assert data.test.y.tolist() == [1, 1, 2, 2]
    else:
        assert (len(data.train), len(data.test)) == (9, 3)
        for part in (data.train, data.test):
            for x, y in zip(np.asarray(part.x), part.y, strict=True):
                assert (x == train[data.classes[y]]).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize(
    ("train", "test", "other", "samples"),
    [("TRAIN", "Validation", "test", 1), ("Training", "TESTING", "valid", 2),
     ("training-set", "val", "test", 1)],
)  # fmt: skip
def test_splits_are_known_by_their_usual_names(tmp_path, train, test, other, samples):
    fill(tmp_path / train, count=5)
    fill(tmp_path / test, count=2)
    data = load("images", tmp_path)
    assert (len(data.train), len(data.test)) == (15, 6)
    fill(tmp_path / other, count=1)
    data = load("images", tmp_path)
    assert len(data.test) == 3 * samples
    assert any("not used" in note for note in data.notes)


def test_what_is_no_image_is_passed_over_and_depth_does_not_matter(tmp_path):
    names = ("a/1.PNG", "a/deeper/2.bmp", "a/3.tiff", "b/1.png", "b/2.webp", "b/3.ppm",
             "b/.hidden.png", ".cache/1.png", "a/.thumbnails/1.png", "@eaDir/1.png", "cover.png",
             "a/@eaDir/1.png", "__MACOSX/a/1.png")  # fmt: skip
    one, two, *_ = (put(tmp_path / name, picture(k)) for k, name in enumerate(names))
    for name in ("b/a.heic", "b/b.HEIC", "a/c.xml", "a/Thumbs.db"):
        (tmp_path / name).write_text("not an image")
    data = load("images", tmp_path, test_fraction=0.1)
    assert (len(data.train) + len(data.test), data.classes) == (6, ("a", "b"))
    part = np.concatenate([np.asarray(data.train.x), np.asarray(data.test.x)])
    for image in (one, two):
        assert (part == image).all(axis=(1, 2, 3)).any()
    said = "4 files are no images and were not read: 2 .heic, 1 .png, 1 .xml."
    assert data.notes[0].endswith(said)
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    seen = load("images", tmp_path, test_fraction=0.1).fingerprint
    assert seen == data.fingerprint


@pytest.mark.parametrize("top", [200, 65535])
def test_deep_images_keep_their_levels(tmp_path, top):
    deep = np.random.default_rng(1).integers(0, top + 1, (8, 5, 4)).astype(np.uint16)
    deep[:, 0, :2] = 0, top
    for k, image in enumerate(deep):
        put(tmp_path / "cat" / f"{k}.tif", image)
        put(tmp_path / "dog" / f"{k}.tif", image)
    data = load("images", tmp_path)
    assert data.train.x.dtype == np.float32
    assert np.array_equal(np.unique(data.train.x), np.unique(deep))
    assert data.x_scaling == Scaling(0.0, 1 / top)
    assert "16-bit" in data.notes[0]
    put(tmp_path / "dog" / "9.tif", deep[0].astype(np.uint8))
    with pytest.raises(DataError, match=r"9.tif: 8 bits per pixel, but .*0.tif has 16"):
        load("images", tmp_path)


@pytest.mark.parametrize("first", ["grey", "colour"])
def test_grey_among_colours_becomes_colour_in_either_order(tmp_path, first):
    names = ("1.png", "2.png") if first == "grey" else ("2.png", "1.png")
    for k, group in enumerate(("train/a", "train/b", "test/b")):
        grey = put(tmp_path / group / names[0], picture((k, 0)))
        colour = put(tmp_path / group / names[1], picture((k, 1), *SHAPE, 3))
    data = load("images", tmp_path)
    assert data.shape == (*SHAPE, 3)
    expected = {names[0]: grey.repeat(3, axis=2), names[1]: colour}
    assert np.array_equal(data.test.x, [expected[name] for name in sorted(names)])


def test_images_are_brought_to_one_size(tmp_path):
    fill(tmp_path / "train", ("a", "b"), shape=(12, 20))
    fill(tmp_path / "test", ("a", "b"), shape=(9, 7))
    message = (
        r"test.a.0.png: 7 x 9 pixels \(width x height\); expected 20 x 12, the size of .*0.png. "
        r"Crop or resize them, .* \(--image-size 12x20\)"
    )
    with pytest.raises(DataError, match=message):
        load("images", tmp_path)
    assert load("images", tmp_path, image_size=(4, 6)).shape == (4, 6, 1)
    for size in ((4,), (0, 5), (4, 6, 1), (99_999, 99_999)):
        with pytest.raises(ArchitectureError, match="image_size"):
            load("images", tmp_path, image_size=size)
    wrong = {"seed": "a", "limit": "5", "max_bytes": 1.5, "test_fraction": "a", "delimiter": 5}
    for option, value in wrong.items():
        with pytest.raises(ArchitectureError, match=f"{option}={value!r}: expected"):
            load("images", tmp_path, **{option: value})


# --- what is refused


def test_folders_that_are_no_data_set(tmp_path):
    def refused(message, path=tmp_path):
        with pytest.raises(DataError, match=message):
            load("images", path)

    refused(r"absent: no such folder; expected .* DIR/train/CLASS/\*", tmp_path / "absent")
    refused("0 class folders; expected at least 2 of them")
    fill(tmp_path / "train", ("a", "b"))
    refused(r"0\.png: is a file; expected a folder", tmp_path / "train" / "a" / "0.png")
    (tmp_path / "train" / "c").mkdir()
    refused(r"c: no image files; expected \.png, \.jpg")
    (tmp_path / "train" / "c").rename(tmp_path / "train" / "c\n")
    refused(r"class folder 'c\\n': not a printable name")
    (tmp_path / "train" / "c\n").rmdir()
    fill(tmp_path / "test", ("a", "z"))
    refused(r"test.z: class 'z' has no training images")
    for name in ("2023", "2024"):
        fill(tmp_path / "years" / name)
    refused(r"'2023', '2024' all hold 'Bee', 'ant', 'cat'.*no classes", tmp_path / "years")


def test_a_full_temporary_folder_is_told(tmp_path, monkeypatch):
    fill(tmp_path, ("a", "b"))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 0, 9))
        with pytest.raises(OutputError, match=r"9 bytes free, but the pixels of 8 images .*TMPDIR"):
            load("images", tmp_path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OutputError, match=r"cannot hold pixels \(No space left .*TMPDIR"):
        load("images", tmp_path)


def test_pixels_are_not_held_and_leave_no_file(tmp_path, monkeypatch):
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    flat = np.zeros((400, 300, 3), np.uint8)
    for k in range(40):
        put(tmp_path / "set" / "ab"[k % 2] / f"{k}.png", flat + np.uint8(k))
    load("images", tmp_path / "set", limit=2)  # what is imported does not count
    data, peak = traced(lambda: load("images", tmp_path / "set"))
    # a chunk of values in float64, a decoded image and its copies; all images have 14 MB
    assert peak < 8_000_000 < data.train.x.size
    assert os.listdir(place) == []
    assert sorted(os.listdir(tmp_path / "set")) == ["a", "b"]


# --- files
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
    refused(path, "not an image file, or damaged")
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

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    chunks = header + chunk(b"IDAT", zlib.compress(bytes(10**7))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    monkeypatch.setattr("nembp.datasets.images._decoded", lambda *_: pytest.fail("decoded"))
    refused(tmp_path / "bomb.png", "")
    with pytest.raises(
        DataError, match=r"packed into .*; expected at most 67,108,864|exceeds limit"
    ):
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
