"""Class folders of image files: found, decoded without holding them, refused by name."""

from __future__ import annotations

import os
import shutil
import tempfile

import numpy as np
import pytest
from fuzz_cases import traced
from PIL import Image

from nembp.datasets import Scaling, load
from nembp.datasets.sources import is_mapped
from nembp.errors import ArchitectureError, DataError, OutputError

SHAPE = (6, 5)


def picture(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape or SHAPE, np.uint8)


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


def fill(folder, names=("cat", "ant", "Bee"), count=4, shape=SHAPE):
    """Images of each class, in the order in which they are to be read."""
    return {
        name: np.stack([put(folder / name / f"{k}.png", picture((ord(name[0]), k), *shape))
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


def test_what_is_no_image_is_passed_over_and_depth_does_not_matter(tmp_path):
    names = ("a/1.PNG", "a/deeper/2.bmp", "b/1.png", "b/2.webp",
             "b/.hidden.png", ".cache/1.png", "a/.thumbnails/1.png", "cover.png")  # fmt: skip
    one, two, *_ = (put(tmp_path / name, picture(k)) for k, name in enumerate(names))
    for name in ("a/notes.txt", "README.md"):
        (tmp_path / name).write_text("not an image")
    data = load("images", tmp_path, test_fraction=0.1)
    assert (len(data.train) + len(data.test), data.classes) == (4, ("a", "b"))
    part = np.concatenate([np.asarray(data.train.x), np.asarray(data.test.x)])
    for image in (one, two):
        assert (part == image).all(axis=(1, 2, 3)).any()


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


# --- what is refused


def test_damaged_and_see_through_images_are_named(tmp_path):
    fill(tmp_path, ("a", "b"))
    bad = tmp_path / "b" / "3.png"
    content = bad.read_bytes()
    cases = {
        "not an image file": b"text",
        "damaged image": content[:-20],
        r"damaged image \(.*": content[:60] + b"\0" + content[61:],
    }
    for message, damaged in cases.items():
        bad.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{bad}: {message}"):
            load("images", tmp_path)
    put(bad, picture(1, *SHAPE, 4))
    with pytest.raises(DataError, match=f"{bad}: is see-through in places"):
        load("images", tmp_path)


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
