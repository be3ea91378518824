"""Arrays in files: read as they are, mapped where they can be, refused when damaged."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from command_line import fails, works
from fuzz_cases import CONSTANT, FILES, TIMES, check_dataset, idx_bytes, mutated, traced, write_idx
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nembp.datasets import class_means, feature_means, load
from nembp.datasets.arrays import NAMES, map_npy, read_idx, read_npz
from nembp.datasets.sources import as_rows, is_mapped
from nembp.errors import DataError
from nembp.runs import RunConfig
from nembp.runs.training import fit_scalings

X = np.random.default_rng(0).normal(5.0, 2.0, (40, 3))
Y = np.arange(40) % 4


def save(folder, **arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=True)
    return folder


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u1", "<i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_folder_makes_what_the_archive_makes(tmp_path, dtype, order):
    x = np.asarray((X * 10).astype(dtype), order=order)
    arrays = {"x_train": x, "y_train": Y, "x_test": x[:8], "y_test": Y[:8]}
    np.savez(tmp_path / "d.npz", **arrays)
    save(tmp_path, **arrays)
    one, two = (load(kind, tmp_path, limit=12) for kind in ("npz", "npy"))
    assert (two.name, two.source, two.classes) == ("npy", str(tmp_path), one.classes)
    assert two.train.x.dtype == one.train.x.dtype
    assert is_mapped(two.train.x)
    for mine, theirs in ((one.train, two.train), (one.test, two.test)):
        assert np.array_equal(mine.x, theirs.x)
        assert np.array_equal(mine.y, theirs.y)
    assert np.allclose(one.x_scaling.offset, two.x_scaling.offset, rtol=1e-13)


SAMPLES = {
    "uint8 images": ((20_000, 32, 32, 3), "u1"),
    "big-endian images": ((2_500, 32, 32, 3), ">f8"),
    "table": ((30_000, 500), "<f4"),
}  # each 60 MB, most of it a hole in the file


@pytest.mark.parametrize(("kind", "split"), [*zip(SAMPLES, (True, False, True), strict=True)])
def test_what_is_held_does_not_grow_with_the_samples(tmp_path, kind, split):
    shape, dtype = SAMPLES[kind]
    names = ("x_train", "x_test") if split else ("x",)
    for name in names:
        x = np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", dtype, shape)
        x[::100] = 3
        del x
    y = np.arange(shape[0]) % 10
    save(tmp_path, **{name.replace("x", "y"): y for name in names})

    def work():
        data = load("npy", tmp_path)
        data = fit_scalings(data, RunConfig(dataset="npy", backward="bernoulli"))
        part = data.train.subset(np.arange(1, len(data.train)))
        class_means(part, data.x_scaling, 10)
        feature_means(part, data.x_scaling)
        rows, order = as_rows(part.x), np.random.default_rng(0).permutation(len(part))
        out = np.empty((128, *data.shape), data.train.x.dtype)
        for start in range(0, len(part) - 128, 128):
            rows.take(order[start : start + 128], out)

    _, peak = traced(work)
    labels = y.nbytes * 12  # their copies, orders and splits
    assert peak < 12_000_000 + labels < int(np.prod(shape)) * np.dtype(dtype).itemsize / 3


PIXELS = np.random.default_rng(0).integers(0, 256, (40, 4, 5), dtype=np.uint8)


GOOD = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }"


def npy(header: bytes, data: bytes) -> bytes:
    return b"\x93NUMPY\1\0" + len(header + b"\n").to_bytes(2, "little") + header + b"\n" + data


def archive(path, **members: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def test_pickles_are_never_run(tmp_path):
    ran = []

    class Trap:
        def __reduce__(self):
            return (ran.append, (1,))

    np.savez(tmp_path / "d.npz", x=np.array([Trap(), 1], dtype=object), y=np.arange(2))
    with pytest.raises(DataError, match="pickled objects"):
        load("npz", tmp_path / "d.npz")
    assert not ran


def test_damaged_archives(tmp_path):
    good = io.BytesIO()
    np.savez(good, x=PIXELS, y=Y)
    path = tmp_path / "d.npz"
    content = good.getvalue()
    cases = {
        b"": "not an .npz",
        content[:-30]: "not an .npz",
        npy(GOOD, bytes(16)): "not an .npz",
        content[:300] + bytes([content[300] ^ 1]) + content[301:]: "Bad CRC-32",
        content.replace(b"x.npy", b"z.npy", 1): "damaged|not a NumPy array",
    }
    for flag in (0x01, 0x20):  # encrypted, patched
        flagged = bytearray(content)
        for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            flagged[content.index(signature) + offset] |= flag
        cases[bytes(flagged)] = "x: damaged"
    for damaged, message in cases.items():
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=message):
            load("npz", path)


def test_headers_of_python_2_and_text_that_is_no_text(tmp_path):
    path, two = tmp_path / "d.npz", np.array([1.0, 2.0]).tobytes()
    archive(path, x=npy(GOOD.replace(b"2,", b"2L,"), two))  # without a warning
    assert read_npz(path, ("x",))["x"].tolist() == [1.0, 2.0]
    for code in (0xFFFFFFFF, 0x110000, 0xD800):
        text = np.array([code, 97], "<u4").tobytes()
        archive(path, x=npy(GOOD, two), y=npy(GOOD.replace(b"f8", b"U1"), text))
        with pytest.raises(DataError, match="y: labels are not valid text"):
            load("npz", path)


ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data" / "mnist-sample"


def test_folder_is_loaded_whatever_the_names(tmp_path):
    generator = np.random.default_rng(0)
    for name, n in zip(NAMES, (20, 20, 8, 8), strict=True):
        x = generator.integers(0, 256, (n, 4, 5), dtype=np.uint8)
        write_idx(tmp_path / name, x if "images" in name else np.arange(n, dtype=np.uint8) % 3)
    plain = load("idx", tmp_path)
    assert (plain.shape, plain.classes, plain.source) == ((4, 5, 1), ("0", "1", "2"), str(tmp_path))
    assert (len(plain.train), len(plain.test)) == (20, 8)
    for name, other in (
        (NAMES[0], "train-images.idx3-ubyte"),
        (NAMES[1], f"{NAMES[1]}.gz"),
        (NAMES[2], "t10k-images.idx3-ubyte.gz"),
    ):
        write_idx(tmp_path / other, read_idx(tmp_path / name))
        (tmp_path / name).unlink()
    mixed = load("idx", str(tmp_path))
    assert mixed.fingerprint == plain.fingerprint
    assert np.array_equal(mixed.test.x, plain.test.x)
    (tmp_path / NAMES[3]).unlink()
    with pytest.raises(DataError, match=f"{NAMES[3]}: no such .*nembp data fetch mnist --data-dir"):
        load("idx", tmp_path)


def test_sample_is_not_taken_for_mnist():
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: not MNIST's.*--dataset idx"):
        load("mnist", SAMPLE)


_DTYPES = ["u1", "i1", ">i2", ">i4", ">f4", ">f8"]


@st.composite
def arrays(draw) -> np.ndarray:
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    dtype = np.dtype(draw(st.sampled_from(_DTYPES)))
    content = draw(st.binary(min_size=(n := math.prod(shape) * dtype.itemsize), max_size=n))
    return np.frombuffer(content, dtype).reshape(shape)


valid_idx = arrays().map(idx_bytes)
random_header = st.builds(
    lambda code, shape, data: struct.pack(f">2xBB{len(shape)}I", code, len(shape), *shape) + data,
    st.sampled_from([8, 9, 0xB, 0xC, 0xD, 0xE]),
    st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), max_size=6),
    st.binary(max_size=60),
)


any_idx = st.binary(max_size=100) | mutated(valid_idx) | random_header
any_gzip = (
    any_idx.map(lambda content: gzip.compress(content, mtime=0))
    | mutated(any_idx.map(lambda content: gzip.compress(content, mtime=0)))
    | st.lists(any_idx, max_size=3).map(lambda parts: b"".join(map(gzip.compress, parts)))
    | st.binary(max_size=40).map(lambda content: b"\x1f\x8b" + content)
)


def check_idx(path: Path, unpacked: bytes | None, packed: int) -> None:
    """`unpacked` is None where gzip itself would refuse the file."""
    result, peak = traced(lambda: read_idx(path))
    content = unpacked or b""
    assert peak <= TIMES["idx"] * max(packed, len(content)) + CONSTANT
    if result is None:
        return
    assert unpacked is not None
    assert idx_bytes(result) == unpacked  # every byte, and no other


@FILES
@given(content=any_idx)
def test_raw_idx(place, content):
    path = place / "x"
    path.write_bytes(content)
    check_idx(path, content, len(content))


@FILES
@given(content=any_gzip)
def test_gzip_idx(place, content):
    path = place / "x.gz"
    path.write_bytes(content)
    try:
        unpacked = gzip.decompress(content) if content else None
    except (OSError, EOFError, zlib.error, struct.error):
        unpacked = None
    check_idx(path, unpacked, len(content))


def test_what_unpacks_to_far_more_than_data_does_is_refused_unread(place):
    images = np.zeros((1 << 17, 32, 32), np.uint8)  # 128 MiB, of 130 KB
    write_idx(place / "x.gz", images)
    np.savez_compressed(place / "x.npz", x=images, y=np.arange(len(images)) % 3)
    parts = {f"{axis}_{part}": images[: 1 << 15] for axis in "xy" for part in ("train", "test")}
    np.savez_compressed(place / "parts.npz", **parts)  # as much in all
    for read in (
        lambda: read_idx(place / "x.gz"),
        lambda: load("npz", place / "x.npz"),
        lambda: load("npz", place / "parts.npz"),
    ):
        result, peak = traced(read)
        assert result is None
        assert peak < CONSTANT


def test_max_bytes_is_what_a_packed_file_may_unpack_to(place, monkeypatch):
    """More than the bound, or less; the command line takes it too, and a run keeps it."""
    monkeypatch.setattr("nembp.files._SMALL", 1)
    path = place / "x.npz"
    np.savez_compressed(path, x=np.zeros((1000, 30, 30), np.uint8), y=np.arange(1000) % 3)
    with pytest.raises(DataError, match=r"declares .* allow more with --max-bytes"):
        load("npz", path)
    assert len(load("npz", path, max_bytes=10**6).train) == 800
    with pytest.raises(DataError, match=r"expected at most 10,000\."):
        load("npz", path, max_bytes=10_000)
    for command in (["data", "info", "npz"], ["train", "--out", place / "run", "--dataset", "npz"]):
        given = [*command, "--data-dir", path]
        assert "--max-bytes" in fails(3, *given)
        works(*given, "--max-bytes", 10**6)
    works("evaluate", place / "run")
    for side in ("a", "b"):
        (place / "images" / side).mkdir(parents=True)
        for number in range(3):
            Image.new("L", (300, 300)).save(place / "images" / side / f"{number}.png")
    assert load("images", place / "images", max_bytes=90_000).shape == (300, 300, 1)
    with pytest.raises(DataError, match="allow more with --max-bytes"):
        load("images", place / "images", max_bytes=89_999)


@st.composite
def npz_bytes(draw) -> bytes:
    """An archive whose members are valid, mutated or lies; deflated or stored."""
    buffer = io.BytesIO()
    kind = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    n = draw(st.integers(0, 6))
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for key in draw(st.sampled_from(["xy", ["x_train", "y_train", "x_test", "y_test"]])):
            if key.startswith("x"):
                x = np.arange(n * 2, dtype=draw(st.sampled_from(["u1", "f4", "f8", ">i4"])))
                x = x.reshape(n, 2)
            else:
                text = np.array(list("abcdef")[:n])
                x = draw(st.sampled_from([np.arange(n) % 2, np.arange(n) / 3, text, np.zeros(0)]))
            member = io.BytesIO()
            np.save(member, x)
            content = draw(st.just(member.getvalue()) | mutated(st.just(member.getvalue())))
            if draw(st.integers(0, 4)) == 0:  # a header that declares what is not there
                shape = draw(st.tuples(st.integers(-1, 2**62), st.integers(0, 2**31)))
                content = content.replace(f"{x.shape}".encode(), f"{shape}".encode())
            archive.writestr(f"{key}.npy", content)
    return buffer.getvalue()


@FILES
@given(content=npz_bytes() | mutated(npz_bytes()) | st.binary(max_size=60))
def test_npz(place, content):
    path = place / "x.npz"
    path.write_bytes(content)
    result, peak = traced(lambda: load("npz", path))
    assert peak <= TIMES["npz"] * len(content) + CONSTANT  # members here hardly shrink
    if result is not None:
        check_dataset(result)


def test_no_file_holds_more_or_less_than_it_declares(tmp_path):
    """Fuzzed are IDX and .npz; here are headers of NumPy that lie."""
    buffer, path = io.BytesIO(), tmp_path / "x"
    np.save(buffer, X)
    content = buffer.getvalue()
    deep = (9118).to_bytes(2, "little") + b"-" * 9000  # the parser ends in a MemoryError
    lies = [
        (b"(40, 3)", b"(40,-3)"), (b"(40, 3), }  ", b"(40, 3000000), }"), (b"(40, 3)", b"(2**70)"),
        (content[8:128], deep + content[10:128]), (b"\x93NUMPY\x01", b"\x93NUMPY\x07"), (b"{", b"("),
        *((b"<f8", dtype) for dtype in (b"|O8", b"|S0", b"<f3", b"<M8"))
    ]  # fmt: skip
    wrong = [content[:-1], content + b"\0", content[:17], content[:3], b"", b"text"]
    for damaged in wrong + [content.replace(*lie) for lie in lies]:
        path.write_bytes(damaged)
        archive(tmp_path / "x.npz", x=damaged)
        for read in (lambda: map_npy(path), lambda: read_npz(tmp_path / "x.npz", ("x",))):
            result, peak = traced(read)
            assert result is None
            assert peak < 1 << 20


def test_arrays_that_are_missing_are_named(tmp_path):
    with pytest.raises(DataError, match=r"absent: no such folder; expected a folder with \.npy"):
        load("npy", tmp_path / "absent")
    with pytest.raises(DataError, match="no array 'x'; found no arrays"):
        load("npy", tmp_path)
    save(tmp_path, x_train=X, y_train=Y, x_test=X)
    with pytest.raises(DataError, match="no array 'y_test'; found x_test, x_train, y_train"):
        load("npy", tmp_path)
    with pytest.raises(DataError, match="is a file; expected a folder"):
        load("npy", tmp_path / "x_train.npy")
