"""Folders of .npy files: read as they are, refused when damaged, and never held in memory."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp.datasets import class_means, feature_means, load, write_idx
from nembp.datasets.arrays import map_npy
from nembp.datasets.sources import as_rows, is_mapped
from nembp.errors import ArchitectureError, DataError
from nembp.runs import RunConfig
from nembp.runs.training import fit_scalings

X = np.random.default_rng(0).normal(5.0, 2.0, (40, 3))
Y = np.arange(40) % 4


def save(folder, **arrays):
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=True)
    return folder


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", "<i2", "?", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_folder_makes_what_the_archive_makes(tmp_path, dtype, order):
    x = np.asarray((X * 10).astype(dtype), order=order)
    arrays = {"x_train": x, "y_train": Y, "x_test": x[:8], "y_test": Y[:8]}
    np.savez(tmp_path / "d.npz", **arrays)
    one, two = load("npz", tmp_path), load("npy", save(tmp_path, **arrays))
    assert (two.name, two.source, two.classes) == ("npy", str(tmp_path), one.classes)
    assert two.train.x.dtype == one.train.x.dtype
    assert is_mapped(two.train.x)
    for mine, theirs in ((one.train, two.train), (one.test, two.test)):
        assert np.array_equal(mine.x, theirs.x)
        assert np.array_equal(mine.y, theirs.y)
    assert np.allclose(one.x_scaling.offset, two.x_scaling.offset, rtol=1e-13)


def test_a_folder_without_test_arrays_is_split(tmp_path):
    save(tmp_path, x=X, y=X[:, :2])
    data = load("npy", tmp_path, test_fraction=0.25, limit=20)
    assert (len(data.train), len(data.test), data.outputs) == (20, 10, 2)
    assert is_mapped(data.train.x)
    assert np.array_equal(np.asarray(data.train.x)[:, :2], data.train.y)
    words = load("npy", save(tmp_path, x=X, y=np.array(list("abcd") * 10)))
    assert words.classes == ("a", "b", "c", "d")


def test_unpacked_idx_images_stay_in_their_file(tmp_path):
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
             "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")  # fmt: skip
    for dtype in ("u1", "f4", "f8", "i2"):
        x = (np.arange(40 * 6).reshape(40, 2, 3) % 200).astype(dtype)
        for name, array in zip(names, (x, Y.astype("u1")) * 2, strict=True):
            write_idx(tmp_path / name, array)
        data = load("idx", tmp_path, limit=12)
        assert is_mapped(data.train.x)
        assert data.train.x.dtype.isnative
        assert np.array_equal(data.test.x, x[..., np.newaxis])


# --- damage


def test_arrays_that_are_missing_are_named(tmp_path):
    with pytest.raises(ArchitectureError, match="--data-dir PATH"):
        load("npy")
    with pytest.raises(DataError, match="absent: no such folder; expected a folder with x_train"):
        load("npy", tmp_path / "absent")
    with pytest.raises(DataError, match="no array x; found none of the names"):
        load("npy", tmp_path)
    save(tmp_path, x_train=X, y_train=Y, x_test=X)
    with pytest.raises(DataError, match="no array y_test; found x_train, y_train, x_test"):
        load("npy", tmp_path)
    with pytest.raises(DataError, match="is a file; expected a folder"):
        load("npy", tmp_path / "x_train.npy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], "x.npy: truncated: 1087 bytes, but .* 1088 bytes"),
        (lambda content: content + b"\0", "x.npy: trailing bytes: 1089 bytes"),
        (lambda content: content[:40], "x.npy: not a NumPy array"),
        (lambda content: b"", "x.npy: not a NumPy array"),
        (lambda content: content.replace(b"(40, 3)", b"(40,-3)"), "expected numbers or text"),
        (lambda content: content.replace(b"(40, 3)", b"(10**9)"), "x.npy: not a NumPy array"),
        (lambda content: content.replace(b"<f8", b"|O8"), "pickled objects.*can run code"),
        (lambda content: content.replace(b"(40, 3), }  ", b"(40, 3000000), }"), "truncated"),
        (lambda content: content.replace(b"<f8", b"|S0"), "expected numbers or text"),
    ],
)
def test_damaged_files(tmp_path, change, message):
    save(tmp_path, x=X, y=Y)
    path = tmp_path / "x.npy"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        load("npy", tmp_path)
    assert "\n" not in str(caught.value)


def test_pickled_objects_are_not_read(tmp_path):
    save(tmp_path, x=X, y=np.array([{}] * 40))
    with pytest.raises(DataError, match=r"y\.npy: holds pickled objects"):
        load("npy", tmp_path)


def test_an_empty_array_is_an_empty_array(tmp_path):
    save(tmp_path, x=X[:0], y=Y[:0])
    assert map_npy(tmp_path / "x.npy").shape == (0, 3)
    with pytest.raises(DataError, match=r"x\.npy: no samples"):
        load("npy", tmp_path)


@given(st.data())
def test_no_damage_ends_in_another_error(tmp_path_factory, data):
    path = save(tmp_path_factory.mktemp("npy"), x=X[:2]) / "x.npy"
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 79))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert map_npy(path).nbytes <= len(content)


# --- memory


SAMPLES = {
    "uint8 images": ((20_000, 32, 32, 3), "u1"),
    "big-endian images": ((2_500, 32, 32, 3), ">f8"),
    "table": ((30_000, 500), "<f4"),
    "table of integers": ((30_000, 1000), "<i2"),
}  # each 60 MB, most of it a hole in the file


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("split", [True, False])
def test_what_is_held_does_not_grow_with_the_samples(tmp_path, kind, split):
    shape, dtype = SAMPLES[kind]
    names = ("x_train", "x_test") if split else ("x",)
    for name in names:
        x = np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", dtype, shape)
        x[::100] = 3
        del x
    y = np.arange(shape[0]) % 10
    save(tmp_path, **{name.replace("x", "y"): y for name in names})
    tracemalloc.start()
    try:
        data = load("npy", tmp_path)
        data = fit_scalings(data, RunConfig(dataset="npy", backward="bernoulli"))
        part = data.train.subset(np.arange(1, len(data.train)))
        class_means(part, data.x_scaling, 10)
        feature_means(part, data.x_scaling)
        rows, order = as_rows(part.x), np.random.default_rng(0).permutation(len(part))
        out = np.empty((128, *data.shape), data.train.x.dtype)
        for start in range(0, len(part) - 128, 128):
            rows.take(order[start : start + 128], out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    labels = y.nbytes * 12  # their copies, orders and splits
    assert peak < 12_000_000 + labels < int(np.prod(shape)) * np.dtype(dtype).itemsize / 3


CODE = """
import re, sys, threading
import numpy as np
from nembp.datasets import as_rows, load

def private():
    with open("/proc/self/status") as file:
        return int(re.search(r"RssAnon:\\s+(\\d+)", file.read())[1]) / 1024

peak, done = private(), threading.Event()
start = peak
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, private())
thread = threading.Thread(target=watch)
thread.start()
data = load("npy", sys.argv[1])
rows, out = as_rows(data.train.x), np.empty((128, *data.shape), np.uint8)
order = np.random.default_rng(0).permutation(len(rows))
for first in range(0, len(rows) - 128, 128):
    rows.take(order[first : first + 128], out)
done.set()
thread.join()
print(peak - start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_epoch_of_300_megabytes_takes_few_of_memory(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "u1", (100_000, 32, 32, 3))
    assert x.nbytes > 300e6
    x[::1000] = 9
    del x
    save(tmp_path, y=np.arange(100_000) % 10)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 60  # MB: labels, orders, buffers and modules, however large x is
