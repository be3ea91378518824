"""Any bytes at all: one error type or exact consumption, in memory bounded by the content."""

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
from fuzz_cases import CONSTANT, FILES, TIMES, check_dataset, mutated, traced
from hypothesis import given
from hypothesis import strategies as st

from nembp.datasets import load, read_idx
from nembp.datasets.arrays import idx_header


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


_DTYPES = ["u1", "i1", ">i2", ">i4", ">f4", ">f8"]


@st.composite
def arrays(draw) -> np.ndarray:
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    dtype = np.dtype(draw(st.sampled_from(_DTYPES)))
    content = draw(st.binary(min_size=(n := math.prod(shape) * dtype.itemsize), max_size=n))
    return np.frombuffer(content, dtype).reshape(shape)


valid_idx = arrays().map(lambda x: idx_header(x) + x.tobytes())
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
    wire = result.astype(result.dtype.newbyteorder(">"))
    assert idx_header(result) + wire.tobytes() == unpacked  # every byte, and no other


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


@FILES
@given(x=arrays(), packed=st.booleans())
def test_valid_idx_is_never_refused(place, x, packed):
    path = place / "valid"
    content = idx_header(x) + x.tobytes()
    path.write_bytes(gzip.compress(content) if packed else content)
    read = read_idx(path)
    assert read.astype(x.dtype).tobytes() == x.tobytes()
    assert read.shape == x.shape


@pytest.mark.parametrize("fill", [0, 10**7])
def test_gzip_bombs_stay_as_small_as_what_they_declare_or_hold(place, fill):
    header = bytes.fromhex("00000803 7fffffff 0000001c 0000001c")
    path = place / "bomb.gz"
    path.write_bytes(gzip.compress(header + bytes(fill)))
    result, peak = traced(lambda: read_idx(path))
    assert result is None
    assert peak < TIMES["idx"] * len(header) + CONSTANT  # refused by the bound on deflate
    path.write_bytes(gzip.compress(idx_header(np.zeros(5, np.uint8)) + bytes(10**7)))
    result, peak = traced(lambda: read_idx(path))
    assert result is None
    assert peak < CONSTANT


def test_real_content_costs_little_more_than_itself(place):
    x = np.random.default_rng(0).integers(0, 256, (4000, 28, 28), dtype=np.uint8)
    path = place / "large.gz"
    path.write_bytes(gzip.compress(idx_header(x) + x.tobytes(), 1))
    result, peak = traced(lambda: read_idx(path))
    assert np.array_equal(result, x)
    assert peak < 1.2 * x.nbytes + CONSTANT


# --- npz


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
                x = (
                    np.array(draw(st.sampled_from("abc")) + "de" * n)[None]
                    if n == 1
                    else np.zeros(0)
                )
                x = draw(
                    st.sampled_from(
                        [np.arange(n) % 2, np.arange(n) / 3, x, np.array(list("abcdef")[:n])]
                    )
                )
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


def test_npz_member_that_declares_more_than_it_holds(place):
    path = place / "lie.npz"
    member = io.BytesIO()
    np.save(member, np.zeros((1000, 10)))
    content = member.getvalue().replace(b"(1000, 10), }  ", b"(1000, 1000000)")
    content = content.replace(b"(1000, 1000000)", b"(10000000, 10)}")
    assert len(content) == len(member.getvalue())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    result, peak = traced(lambda: load("npz", path))
    assert result is None
    assert peak < 2 * len(content) + CONSTANT
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member.getvalue() + bytes(10**7))  # the other way round
    result, peak = traced(lambda: load("npz", path))
    assert result is None
    assert peak < 2 * len(content) + CONSTANT


@pytest.mark.parametrize("labels", ["two", "all different", "text", "targets"])
def test_large_archives_stay_within_the_bound(place, labels):
    n = 100_000
    x = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    y = {
        "two": np.arange(n, dtype=np.int8) % 2,
        "all different": np.arange(n, dtype=np.int32),
        "text": (np.arange(n) % 100).astype("U2"),
        "targets": x,
    }[labels]
    path = place / "large.npz"
    np.savez(path, x=x, y=y)
    result, peak = traced(lambda: load("npz", path))
    assert (result is None) == (labels == "all different")
    assert peak <= TIMES["npz"] * path.stat().st_size + CONSTANT
