from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from nembp.datasets.mnist import CONTENTS, idx_md5

from nembp.datasets import builtin as mnist_module
from nembp.datasets import load, read_idx, write_idx
from nembp.datasets.arrays import NAMES, idx_header
from nembp.datasets.splitting import random_bits, shuffled
from nembp.errors import ArchitectureError, DataError, OutputError

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "mnist-sample"
MNIST = ROOT.parent / "shared" / "data" / "mnist"
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST in {MNIST}")

HEADER = bytes.fromhex("00000803 00000002 00000002 00000003")
IMAGES = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
FILE = HEADER + IMAGES.tobytes()


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


# --- the format


@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_reads_the_format_as_published(tmp_path, name):
    assert np.array_equal(read_idx(put(tmp_path / name, FILE)), IMAGES)
    floats = bytes.fromhex("00000D01 00000002 3F800000 C0000000")
    assert read_idx(put(tmp_path / f"f{name}", floats)).tolist() == [1.0, -2.0]


@pytest.mark.parametrize("name", ["x", "x.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8", ">i4"])
@pytest.mark.parametrize("shape", [(), (5,), (0, 3), (2, 3, 4), (1, 2, 1, 2, 1)])
def test_what_is_written_is_read(tmp_path, name, dtype, shape):
    x = np.random.default_rng(0).normal(0, 50, shape).astype("i1").astype(dtype)
    write_idx(tmp_path / name, x)
    read = read_idx(tmp_path / name)
    assert read.dtype == x.dtype.newbyteorder("=")
    assert read.shape == x.shape
    assert np.array_equal(read, x)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_raw_bytes_are_mapped_read_only(tmp_path):
    read = read_idx(put(tmp_path / "x", FILE))
    base = read
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert not read.flags.writeable


def test_gzip_has_no_time_stamp_and_is_told_by_content(tmp_path):
    write_idx(tmp_path / "x.gz", IMAGES)
    assert (tmp_path / "x.gz").read_bytes()[4:8] == bytes(4)
    shutil.copy(tmp_path / "x.gz", tmp_path / "x")
    assert np.array_equal(read_idx(tmp_path / "x"), IMAGES)


def test_gzip_of_several_members(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(
        gzip.compress(FILE[:9], mtime=0)
        + gzip.compress(b"", mtime=0)
        + gzip.compress(FILE[9:], mtime=0)
    )
    assert np.array_equal(read_idx(path), IMAGES)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "too few for an IDX header"),
        (b"\0\0\x08", "3 (unpacked )?bytes, too few"),
        (FILE[:11], "11 (unpacked )?bytes, too few"),
        (b"PNG!" + FILE, "not an IDX file .starts with 50 4e 47 21, expected 00 00"),
        (b"\0\0\x0a\x01" + FILE, "starts with 00 00 0a 01"),
        (b"\0\0\x08\x21" + bytes(400), "starts with 00 00 08 21"),
        (FILE[:-1], r"declares shape \(2, 2, 3\) of uint8, 28 bytes.*at most 27"),
        (FILE + b"\0", "trailing bytes after the 28 bytes"),
        (FILE[:4] + b"\xff" * 12, "declares a shape"),
        (FILE[:4] + b"\0\1\0\0" * 2 + FILE[8:], r"\(65536, 65536, 2\).*Get a fresh copy"),
        (FILE[:4] + bytes(4) + b"\xff" * 8, "declares a shape"),  # no values, yet no array
    ],
)
def test_damaged_files(tmp_path, packed, content, message):
    path = put(tmp_path / ("x.gz" if packed else "x"), content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FILE, "not gzip data .starts with 00 00, expected 1f 8b.*rename it without .gz"),
        (b"<html>", "not gzip data"),
        (gzip.compress(FILE, mtime=0)[:-1], "ends early .truncated file"),
        (gzip.compress(FILE, mtime=0)[:20], "ends early"),
        (b"\x1f\x8b", "ends early"),
        (gzip.compress(FILE, mtime=0) + b"\0", "trailing bytes after the gzip data"),
        (gzip.compress(FILE, mtime=0) + b"\0" * 512, "trailing bytes after the gzip data"),
        (
            gzip.compress(FILE, mtime=0) + gzip.compress(b"\0", mtime=0),
            "trailing bytes after the 28 bytes",
        ),
        (gzip.compress(FILE, mtime=0) + b"\x1f", "ends early"),
        (gzip.compress(FILE, mtime=0)[:-8] + bytes(8), "damaged gzip data"),
        (b"\x1f\x8b\xff" + bytes(20), "damaged gzip data"),
    ],
)
def test_damaged_gzip(tmp_path, content, message):
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(DataError, match=r"x\.idx: no such file"):
        read_idx(tmp_path / "x.idx")
    with pytest.raises(DataError, match="is a folder; expected a file"):
        read_idx(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(put(tmp_path / "file", b"") / "below")


def test_max_bytes_bounds_what_is_declared(tmp_path):
    for name in ("x", "x.gz"):
        path = put(tmp_path / name, FILE)
        assert read_idx(path, max_bytes=len(FILE)).shape == (2, 2, 3)
        with pytest.raises(DataError, match="at most 27"):
            read_idx(path, max_bytes=len(FILE) - 1)


@pytest.mark.parametrize("x", [np.zeros(2, complex), np.zeros(2, np.int64), np.array(["a"])])
def test_write_refuses_what_idx_cannot_hold(tmp_path, x):
    with pytest.raises(ArchitectureError, match="expected one of uint8, int8, int16"):
        write_idx(tmp_path / "x", x)
    assert not list(tmp_path.iterdir())


def test_write_where_nothing_can_be_written(tmp_path):
    file = put(tmp_path / "file", b"kept")
    with pytest.raises(OutputError, match="cannot be written"):
        write_idx(file / "x", IMAGES)
    with pytest.raises(OutputError, match="cannot be written"):
        write_idx(tmp_path, IMAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_bytes() == b"kept"


# --- the folder


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for name, n in zip(NAMES, (20, 20, 8, 8), strict=True):
        x = generator.integers(0, 256, (n, 4, 5), dtype=np.uint8)
        write_idx(tmp_path / name, x if "images" in name else np.arange(n, dtype=np.uint8) % 3)
    return tmp_path


def test_folder_is_loaded_whatever_the_names(folder):
    plain = load("idx", folder)
    assert plain.shape == (4, 5, 1)
    assert plain.classes == ("0", "1", "2")
    assert (len(plain.train), len(plain.test)) == (20, 8)
    assert plain.source == str(folder)
    (folder / NAMES[0]).rename(folder / "train-images.idx3-ubyte")
    write_idx(folder / f"{NAMES[1]}.gz", read_idx(folder / NAMES[1]))
    (folder / NAMES[1]).unlink()
    write_idx(folder / "t10k-images.idx3-ubyte.gz", read_idx(folder / NAMES[2]))
    (folder / NAMES[2]).unlink()
    mixed = load("idx", str(folder))
    assert np.array_equal(mixed.train.x, plain.train.x)
    assert np.array_equal(mixed.train.y, plain.train.y)
    assert np.array_equal(mixed.test.x, plain.test.x)


@pytest.mark.parametrize("name", NAMES)
def test_missing_file_is_named_with_the_remedy(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match="nembp data fetch mnist --data-dir") as caught:
        load("idx", folder)
    assert str(folder / name) in str(caught.value)


def test_missing_folder(folder):
    with pytest.raises(DataError, match=r"no such folder.*nembp data fetch mnist"):
        load("idx", folder / "absent")
    with pytest.raises(DataError, match="not a folder"):
        load("idx", folder / NAMES[0])


def test_unequal_counts_name_both_files(folder):
    write_idx(folder / NAMES[3], np.arange(7, dtype=np.uint8) % 3)
    with pytest.raises(DataError, match="7 labels or targets for 8 samples") as caught:
        load("idx", folder)
    assert str(folder / NAMES[2]) in str(caught.value)
    assert str(folder / NAMES[3]) in str(caught.value)


def test_limit_of_a_mapped_folder(folder):
    assert np.bincount(load("idx", folder, limit=6).train.y).min() >= 1
    assert len(load("idx", folder, limit=6).train) == 6


# --- MNIST and the sample of it


def test_sample_is_balanced_and_real_looking():
    sample = load("idx", SAMPLE)
    assert sample.shape == (28, 28, 1)
    assert np.bincount(sample.train.y).tolist() == [100] * 10
    assert np.bincount(sample.test.y).tolist() == [20] * 10
    for name in NAMES:
        assert (SAMPLE / f"{name}.gz").read_bytes()[4:8] == bytes(4)
    # nearest class mean is right for about four in five MNIST digits; chance is one in ten
    x = sample.train.x.reshape(1000, -1).astype(float)
    means = np.stack([x[sample.train.y == k].mean(axis=0) for k in range(10)])
    test = sample.test.x.reshape(200, 1, -1).astype(float)
    nearest = np.square(test - means).sum(axis=2).argmin(axis=1)
    assert np.mean(nearest == sample.test.y) > 0.7


def test_sample_is_not_taken_for_mnist():
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: not MNIST's.*--dataset idx"):
        load("mnist", SAMPLE)


def test_md5_is_that_of_the_unpacked_file():
    for name in NAMES:
        content = gzip.decompress((SAMPLE / f"{name}.gz").read_bytes())
        assert idx_md5(read_idx(SAMPLE / f"{name}.gz")) == hashlib.md5(content).hexdigest()
    assert idx_header(IMAGES) == HEADER == struct.pack(">4I", 0x803, 2, 2, 3)


@needs_mnist
def test_real_mnist_and_that_the_sample_is_of_it():
    mnist = load("mnist", MNIST)
    assert (len(mnist.train), len(mnist.test), mnist.shape) == (60000, 10000, (28, 28, 1))
    assert mnist.classes == tuple("0123456789")
    assert "LeCun" in mnist.attribution
    sample = load("idx", SAMPLE)
    parts = (("train", mnist.train, sample.train, 100), ("t10k", mnist.test, sample.test, 20))
    for prefix, whole, part, each in parts:  # as data/mnist-sample/README.md says
        bits = random_bits(0, f"mnist-sample {prefix}")
        order = shuffled(len(whole), bits)
        rank = np.zeros(len(order), dtype=int)
        for k in range(10):
            rank[whole.y[order] == k] = np.arange(np.sum(whole.y == k))
        rows = order[rank < each]
        rows = rows[shuffled(len(rows), bits)]
        assert np.array_equal(whole.x[rows], part.x)
        assert np.array_equal(whole.y[rows], part.y)


@needs_mnist
def test_raw_and_gzip_mnist_agree_and_one_wrong_pixel_is_found(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_bytes(gzip.decompress((MNIST / f"{name}.gz").read_bytes()))
        assert (tmp_path / name).stat().st_size == CONTENTS[name].size
    raw = load("mnist", tmp_path)
    assert np.array_equal(raw.train.x[::1000], load("mnist", MNIST).train.x[::1000])
    with open(tmp_path / NAMES[2], "r+b") as file:
        file.seek(5000)
        file.write(b"\x01")
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte: not MNIST"):
        load("mnist", tmp_path)


def test_mnist_constants_are_the_published_ones():
    sizes = [16 + 60000 * 784, 8 + 60000, 16 + 10000 * 784, 8 + 10000]
    assert [content.size for content in mnist_module.CONTENTS.values()] == sizes
