from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from nembp.datasets import Scaling, load
from nembp.datasets.arrays import read_npz
from nembp.errors import ArchitectureError, DataError

X = np.random.default_rng(0).integers(0, 256, (40, 4, 5), dtype=np.uint8)
Y = np.arange(40) % 4


def npy(header: str, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def put(path, **members: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def test_whole_arrays_are_split(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=Y)
    dataset = load("npz", tmp_path / "d.npz", test_fraction=0.3)
    assert (len(dataset.train), len(dataset.test)) == (28, 12)
    assert np.bincount(dataset.test.y).tolist() == [3] * 4
    assert dataset.train.x.dtype == np.uint8
    assert dataset.shape == (4, 5, 1)
    assert dataset.x_scaling == Scaling(factor=1 / 255)
    place = {image.tobytes(): label for image, label in zip(X, Y, strict=True)}
    for split in (dataset.train, dataset.test):
        assert all(place[x.tobytes()] == y for x, y in zip(split.x, split.y, strict=True))
    other = load("npz", tmp_path, test_fraction=0.3, seed=1)
    assert not np.array_equal(other.test.x, dataset.test.x)
    assert dataset.source == str(tmp_path / "d.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_split_arrays_of_text_labels(tmp_path, save):
    labels = np.array(["ox", "cat", "ant", "bee"])[Y]
    test = {"x_test": X[:4], "y_test": labels[:4]}
    save(tmp_path / "d.npz", x_train=X, y_train=labels, **test, unrelated=np.zeros(3))
    dataset = load("npz", tmp_path / "d.npz")
    assert dataset.classes == ("ant", "bee", "cat", "ox")
    assert dataset.test.y.tolist() == [3, 2, 0, 1]
    assert np.array_equal(dataset.train.x[..., 0], X)


def test_floating_targets_are_regression(tmp_path):
    x = np.random.default_rng(0).normal(5, 2, (30, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=x[:, :2] * 2.0)
    dataset = load("npz", tmp_path / "d.npz")
    assert (dataset.classes, dataset.target_names, dataset.outputs) == ((), ("y0", "y1"), 2)
    assert dataset.train.x.dtype == np.float32
    assert np.allclose(dataset.train.y, dataset.train.x[:, :2] * 2.0)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(30))
    assert load("npz", tmp_path, task="regression").outputs == 1


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(6, dtype=">i4").reshape(3, 2),
        np.zeros((0, 3)),
        np.float64(3.0),
        np.array(["a", "bc"], dtype=">U2"),
        np.array([True, False]),
    ],
)
def test_arrays_are_read_as_they_were(tmp_path, array):
    np.savez(tmp_path / "d.npz", x=array)
    read = read_npz(tmp_path / "d.npz", ("x", "absent"))
    assert list(read) == ["x"]
    assert np.array_equal(read["x"], array)
    assert read["x"].shape == array.shape
    assert read["x"].dtype.isnative
    assert read["x"].flags.c_contiguous


def test_wrong_keys(tmp_path):
    np.savez(tmp_path / "d.npz", images=X, y=Y)
    with pytest.raises(DataError, match=r"no array x; found y; expected x_train, .*, or x and y"):
        load("npz", tmp_path / "d.npz")
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y, x_test=X)
    with pytest.raises(DataError, match="no array y_test"):
        load("npz", tmp_path / "d.npz")


def test_paths(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load("npz", tmp_path / "d.npz")
    with pytest.raises(DataError, match=r"0 \.npz files in this folder"):
        load("npz", tmp_path)
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    np.savez(tmp_path / "b.npz", x=X, y=Y)
    with pytest.raises(DataError, match=r"2 \.npz files in this folder"):
        load("npz", tmp_path)
    with pytest.raises(ArchitectureError, match="targets"):
        load("npz", tmp_path / "a.npz", targets=["y"])


def test_pickles_are_never_run(tmp_path):
    ran = []

    class Trap:
        def __reduce__(self):
            return (ran.append, (1,))

    np.savez(tmp_path / "d.npz", x=np.array([Trap(), 1], dtype=object), y=np.arange(2))
    with pytest.raises(DataError, match="pickled objects"):
        load("npz", tmp_path / "d.npz")
    assert not ran


GOOD = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(GOOD, bytes(15)), "declares shape .* 16 bytes, but only 15"),
        (npy(GOOD, bytes(17)), "16 bytes, but more are there"),
        (npy(GOOD.replace("2,", "2**40,"), bytes(16)), "not a NumPy array"),
        (npy(GOOD.replace("2,", "1099511627776,"), bytes(16)), "but only 16"),
        (npy(GOOD.replace("2,", "0, 9223372036854775807, 9")), r"shape \(0, 92"),
        (npy(GOOD.replace("2,", "-2, -1"), bytes(16)), "expected numbers or text"),
        (npy(GOOD.replace("2,", "True, 2"), bytes(16)), "an integer is required"),
        (npy(GOOD.replace("2,", "1, " * 40), bytes(8)), "expected numbers or text"),
        (npy(GOOD.replace("<f8", "<U0")), "expected numbers or text"),
        (npy(GOOD.replace("<f8", "<f3"), bytes(6)), "not a NumPy array"),
        (npy(GOOD.replace("<f8", "<M8[s]"), bytes(16)), "expected numbers or text"),
        (npy(GOOD.replace("'<f8'", "[('a', '<f8')]"), bytes(16)), "expected numbers or text"),
        (npy(GOOD.replace("'<f8'", "('<f8', (2,))"), bytes(16)), "expected numbers or text"),
        (npy(GOOD.replace("}", "")), "not a NumPy array"),
        (npy("{" * 9000), "not a NumPy array"),
        (npy("(" * 150 + ")" * 150), "not a NumPy array"),
        (npy("-" * 9000 + "1"), "not a NumPy array"),
        (npy("'''"), "not a NumPy array"),
        (npy("1if 1else 2"), "not a NumPy array"),
        (npy("{1: 2, 'a': 3}"), "not a NumPy array"),
        (npy("{[]: 1}"), "not a NumPy array"),
        (npy("a:\n  b\n c"), "not a NumPy array"),  # IndentationError, from tokenize
        (npy(GOOD, bytes(16), b"\3\0"), "not a NumPy array"),
        (npy(GOOD, bytes(16), b"\7\0"), "not a NumPy array"),
        (b"\x93NUMPY", "not a NumPy array"),
        (b"", "not a NumPy array"),
    ],
)
def test_damaged_members(tmp_path, content, message):
    path = put(tmp_path / "d.npz", x=content, y=npy(GOOD, bytes(16)))
    with pytest.raises(DataError, match=message) as caught:
        load("npz", path)
    assert f"{path}: x" in str(caught.value)


def test_damaged_archives(tmp_path):
    good = io.BytesIO()
    np.savez(good, x=X, y=Y)
    path = tmp_path / "d.npz"
    content = good.getvalue()
    cases = {
        b"": "not an .npz",
        b"PK": "not an .npz",
        content[:-30]: "not an .npz",
        npy(GOOD, bytes(16)): "not an .npz",
        content[:300] + bytes([content[300] ^ 1]) + content[301:]: "damaged .Bad CRC-32",
        content.replace(b"x.npy", b"z.npy", 1): "damaged",
    }
    for damaged, message in cases.items():
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=message):
            load("npz", path)


def test_headers_of_python_2_are_read_without_a_warning(tmp_path):
    header = GOOD.replace("2,", "2L,")
    path = put(tmp_path / "d.npz", x=npy(header, np.array([1.0, 2.0]).tobytes()))
    assert read_npz(path, ("x",))["x"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("flag", [0x01, 0x20, 0x40])  # encrypted, patched, strongly encrypted
def test_encrypted_archives(tmp_path, flag):
    path = put(tmp_path / "d.npz", x=npy(GOOD, bytes(16)))
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(signature) + offset] |= flag
    path.write_bytes(content)
    with pytest.raises(DataError, match="x: damaged"):
        read_npz(path, ("x",))


def test_archive_whose_directory_points_past_its_end(tmp_path):
    path = put(tmp_path / "d.npz", x=npy(GOOD, bytes(16)))
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2") + 42
    content[at : at + 4] = (len(content) - 10).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match="x: damaged"):
        read_npz(path, ("x",))


def test_archives_that_must_not_be_packed(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=X)
    assert "x" in read_npz(tmp_path / "d.npz", ("x",))
    with pytest.raises(DataError, match=r"x\.npy is compressed"):
        read_npz(tmp_path / "d.npz", ("x",), packed=False)
    np.savez(tmp_path / "d.npz", x=X)
    assert np.array_equal(read_npz(tmp_path / "d.npz", ("x",), packed=False)["x"], X)


def test_archive_packed_in_another_way(tmp_path):
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", npy(GOOD, bytes(16)))
    with pytest.raises(DataError, match="packed in an unknown way"):
        load("npz", tmp_path / "d.npz")


def test_text_that_is_no_text(tmp_path):
    header = "{'descr': '<U1', 'fortran_order': False, 'shape': (2,), }"
    for code in (0xFFFFFFFF, 0x110000, 0xD800):
        y = npy(header, code.to_bytes(4, "little") + b"a\0\0\0")
        with pytest.raises(DataError, match="y: labels are not valid text"):
            load("npz", put(tmp_path / "d.npz", x=npy(GOOD, bytes(16)), y=y))
