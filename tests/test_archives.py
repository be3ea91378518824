from __future__ import annotations

import io
import json
import math
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nembp.checkpoints import content_hash, read_archive, write_archive
from nembp.errors import ArchitectureError, DataError, OutputError

KIND = ("thing", 1)
HEADER = {"format": "thing", "version": 1, "note": "é \ud800 🂡", "numbers": [0.1, -0.0, 2**80]}


def read(path, *names):
    return read_archive(path, *KIND, names, "Make it again.")


def npy(array) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def write_zip(path, entries, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)


def sealed(header, arrays, *, text=None):
    """Entries with a seal that fits, as an attacker would write them."""
    text = json.dumps(header) if text is None else text
    content = dict(arrays) | {"header": np.frombuffer(text.encode(), np.uint8)}
    seal = np.frombuffer(bytes.fromhex(content_hash(content)), np.uint8)
    return {name: npy(array) for name, array in (content | {"sha256": seal}).items()}


arrays_of_all_sorts = npst.arrays(
    npst.scalar_dtypes().filter(lambda dtype: dtype.kind in "biuf" and dtype.itemsize <= 8),
    npst.array_shapes(min_dims=0, max_dims=3, min_side=0),
)


@given(st.dictionaries(st.sampled_from("abc"), arrays_of_all_sorts))
def test_arrays_come_back_bit_for_bit(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("archives") / "thing.npz"
    write_archive(path, HEADER, arrays)
    header, back = read(path, *"abc")
    assert header == HEADER
    assert math.copysign(1, header["numbers"][1]) == -1
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        native = array.astype(array.dtype.newbyteorder("="))
        assert back[name].dtype == native.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == native.tobytes()


def test_same_content_gives_the_same_bytes_which_numpy_can_open(tmp_path):
    arrays = {"W": np.arange(6.0).reshape(2, 3).T}
    write_archive(tmp_path / "a", HEADER, arrays)
    write_archive(tmp_path / "b", HEADER, {"W": np.asfortranarray(arrays["W"]).astype(">f8")})
    _, back = read(tmp_path / "b", "W")
    assert np.array_equal(back["W"], arrays["W"])
    write_archive(tmp_path / "c", HEADER, arrays)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()
    with np.load(tmp_path / "a", allow_pickle=False) as opened:
        assert np.array_equal(opened["W"], arrays["W"])
        assert json.loads(opened["header"].tobytes()) == HEADER


def test_hash_sees_names_dtypes_shapes_and_bytes_and_nothing_else():
    W = np.arange(6, dtype=np.float32).reshape(2, 3)
    reference = content_hash({"W": W, "b": np.zeros(2)})
    assert content_hash({"b": np.zeros(2), "W": np.asfortranarray(W)}) == reference
    assert content_hash({"W": W.astype(">f4"), "b": np.zeros(2)}) == reference
    flipped = W.copy()
    flipped.view(np.uint8)[1, 5] ^= 1
    others = [
        {"W": W, "c": np.zeros(2)},
        {"W": W, "b": np.zeros(2, np.int64)},
        {"W": W.view(np.int32), "b": np.zeros(2)},
        {"W": W.reshape(3, 2), "b": np.zeros(2)},
        {"W": flipped, "b": np.zeros(2)},
        {"W": W, "b": -np.zeros(2)},
        {"W": W},
        {"W": W, "b": np.zeros(2), "d": np.zeros(0)},
    ]
    hashes = {content_hash(other) for other in others}
    assert len(hashes | {reference}) == len(others) + 1


@pytest.mark.parametrize("value", [math.nan, math.inf, {1}, np.float32(1), b"", {(1, 2): 3}])
def test_header_that_is_not_json_is_refused_before_anything_is_written(tmp_path, value):
    with pytest.raises(ArchitectureError, match="its header is not JSON"):
        write_archive(tmp_path / "thing.npz", {"value": value}, {})
    assert list(tmp_path.iterdir()) == []


def test_objects_are_never_pickled(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_archive(tmp_path / "thing.npz", HEADER, {"a": np.array([object()])})
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/thing\.npz: cannot be written"):
        write_archive(tmp_path / "file" / "thing.npz", HEADER, {})


def test_wrong_files_are_refused_by_what_is_wrong(tmp_path):
    path = tmp_path / "thing. 2.npz"  # a full stop in the name must not cut the message

    def refused(reason):
        with pytest.raises(DataError) as caught:
            read(path, "a")
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert message.endswith(". Make it again.")
        assert reason in message
        assert "\n" not in message

    refused("no such file")
    path.mkdir()
    refused("is a folder")
    path.rmdir()
    path.write_bytes(b"")
    refused("not an .npz archive")
    np.savez(path, a=np.zeros(3))
    refused("an .npz archive, but not a thing")
    write_archive(path, HEADER | {"format": "other"}, {})
    refused("an .npz archive, but not a thing")
    write_archive(path, HEADER | {"version": 2}, {})
    refused("has format version 2; this nembp reads version 1")
    for entries in (
        sealed(HEADER, {}) | {"a": npy(np.zeros(3))},
        sealed(HEADER, {"a": np.zeros(3)}) | {"a": npy(np.zeros(4))},
        sealed(HEADER, {"a": np.zeros(3)}) | {"a": npy(np.zeros((3, 1)))},
        sealed(HEADER, {"a": np.zeros(3)}) | {"a": npy(np.zeros(3, np.int64))},
        sealed(HEADER, {}) | {"sha256": npy(np.zeros(0, np.uint8))},
        sealed(HEADER, {}) | {"sha256": npy(np.zeros(32, np.float64))},
    ):
        write_zip(path, entries)
        refused("damaged: its content does not match the SHA-256 inside")
    missing = sealed(HEADER, {"a": np.zeros(3)})
    del missing["a"]
    write_zip(path, missing)
    refused("does not match the SHA-256")


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "null", "[]", '"x"', "9" * 10_000, ""])
def test_hostile_headers_are_one_error(tmp_path, text):
    write_zip(tmp_path / "thing.npz", sealed(None, {}, text=text))
    with pytest.raises(DataError, match=r"not JSON|not a thing"):
        read(tmp_path / "thing.npz")


def test_memory_is_bounded_by_the_file_whatever_it_claims(tmp_path):
    path = tmp_path / "thing.npz"
    bomb = npy(np.zeros(40_000_000, np.uint8))
    huge = (
        npy(np.zeros(3)).replace(b"(3,)", b"(3" + b"0" * 11 + b",)", 1).replace(b" " * 11, b"", 1)
    )
    assert len(huge) == len(npy(np.zeros(3)))
    cases = [
        (sealed(HEADER, {}) | {"a": bomb}, zipfile.ZIP_DEFLATED, "is compressed"),
        (sealed(HEADER, {}) | {"a": huge}, zipfile.ZIP_STORED, "its header declares"),
    ]
    for entries, method, message in cases:
        write_zip(path, entries, method)
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match=message):
                read(path, "a")
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()
