"""CIFAR-10 and CIFAR-100 in both official layouts, with fewer records a file."""

from __future__ import annotations

import numpy as np
import pytest
from cifar_files import COUNT, FILES, HUNDRED, NAMES, binary, expected, hundred, pickled, shrink
from nembp.datasets.planar import PlanarRows
from pickles import batch, python2

from nembp.datasets import Scaling, cifar, class_means, load
from nembp.datasets.sources import is_mapped
from nembp.errors import ArchitectureError, DataError, ShapeError

OFFICIAL = (*cifar.CIFAR10, *cifar.CIFAR100)


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    shrink(monkeypatch)


# --- what is read


def test_planes_are_read_as_height_width_channels(tmp_path):
    pixels, _ = FILES["data_batch_1"]
    with_labels = np.column_stack([np.zeros((COUNT, 2), np.uint8), pixels])
    for stored, skip in ((pixels, 0), (np.asfortranarray(pixels), 0), (with_labels, 2)):
        rows = PlanarRows(stored, (32, 32, 3), skip)
        assert rows.shape == (COUNT, 32, 32, 3)
        whole = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        assert np.array_equal(np.asarray(rows), whole)
        out = np.empty((3, 3072), np.uint8)
        rows.take(np.array([7, 0, 7]), out)
        assert np.array_equal(out.reshape(3, 32, 32, 3), whole[[7, 0, 7]])
    with pytest.raises(ShapeError, match="do not hold 1 bytes and images"):
        PlanarRows(pixels, (32, 32, 3), 1)


@pytest.mark.parametrize("make", [binary, pickled, lambda folder: pickled(folder, "F")])
@pytest.mark.parametrize("parent", [True, False])
def test_both_layouts_make_the_same_data_set(tmp_path, make, parent):
    name = "cifar-10-batches-bin" if make is binary else "cifar-10-batches-py"
    folder = make(tmp_path / name)
    data = load("cifar10", tmp_path if parent else folder)
    assert (data.name, data.source) == ("cifar10", str(folder))
    assert "Krizhevsky" in data.attribution
    assert data.classes == tuple(NAMES)
    assert data.shape == (32, 32, 3)
    assert (len(data.train), len(data.test)) == (5 * COUNT, COUNT)
    assert is_mapped(data.train.x)
    assert np.array_equal(data.train.x, expected(cifar._FIVE))
    assert np.array_equal(data.test.x, expected(["test_batch"]))
    assert data.train.y.tolist() == [*range(10)] * 15
    pixels = expected(cifar._FIVE) / 255.0
    mean, std = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    scaled = data.x_scaling.apply(data.train.x[:7], np.float64)
    assert np.allclose(scaled, (pixels[:7] - mean) / std, rtol=0, atol=1e-12)
    assert data.to_unit == Scaling(factor=1 / 255)
    means = class_means(data.train, data.to_unit, data.classes).reshape(10, 32, 32, 3)
    assert np.allclose(means[3], pixels[data.train.y == 3].mean(axis=0))


def test_the_binary_files_are_taken_where_both_versions_lie(tmp_path):
    pickled(tmp_path / "cifar-10-batches-py")
    binary(tmp_path / "cifar-10-batches-bin")
    assert load("cifar10", tmp_path).source.endswith("-bin")


def test_limit_and_scaling(tmp_path):
    binary(tmp_path / "cifar-10-batches-bin")
    data = load("cifar10", tmp_path, limit=20, scaling="unit")
    assert np.bincount(data.train.y).tolist() == [2] * 10
    assert data.x_scaling == Scaling(factor=1 / 255)
    assert is_mapped(data.train.x)


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_cifar100_has_its_fine_classes(tmp_path, kind):
    sets = hundred(tmp_path, kind)
    data = load("cifar100", tmp_path)
    assert data.classes == tuple(HUNDRED)
    for part, (pixels, labels) in zip((data.train, data.test), sets.values(), strict=True):
        assert np.array_equal(part.y, labels)
        assert np.array_equal(part.x, pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


# --- what is refused


def test_the_official_sizes_are_the_official_ones():
    for layout in OFFICIAL:
        assert sum(layout.train.values()) == 50_000
        assert list(layout.test.values()) == [10_000]


def meta(names):
    return lambda folder: (folder / "batches.meta.txt").write_bytes(b"\n".join(names))


def shorten(name, size):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def relabel(folder):
    content = bytearray((folder / "data_batch_3.bin").read_bytes())
    content[4 * 3073] = 10
    (folder / "data_batch_3.bin").write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shorten("data_batch_2.bin", 3073 * 29), "_2.bin: 89117 bytes; expected 92190, 30 rec"),
        (shorten("test_batch.bin", 92189), r"test_batch.bin: 92189 bytes; expected 92190"),
        (lambda folder: (folder / "test_batch.bin").write_bytes(bytes(3073 * 31)),
         "test_batch.bin: 95263 bytes; expected 92190"),
        (shorten("test_batch.bin", 0), r"test_batch.bin: 0 bytes"),
        (relabel, r"data_batch_3.bin: label 10 of record 4; expected 0 to 9. Unpack"),
        (lambda folder: (folder / "data_batch_4.bin").unlink(),
         r"data_batch_4.bin: no such file; expected data_batch_1.bin, .*batches.meta.txt"),
        (lambda folder: (folder / "batches.meta.txt").unlink(), "batches.meta.txt: no such file"),
        (meta([b"a"] * 10), "batches.meta.txt: 1 different class names; expected 10"),
        (meta([b"a", b"b"]), "2 different class names; expected 10"),
        (meta([b"%d" % k for k in range(11)]), "11 different class names"),
        (meta([b"\xff"] + [b"%d" % k for k in range(9)]), "class names are no text"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "no CIFAR-10 here; expected"),
    ],
)  # fmt: skip
def test_damaged_binary_files(tmp_path, damage, message):
    folder = binary(tmp_path / "cifar-10-batches-bin")
    damage(folder)
    with pytest.raises(DataError, match=message):
        load("cifar10", folder)


def replaced(**changes):
    def write(folder):
        pixels, labels = FILES["data_batch_2"]
        fields = batch(pixels, labels)
        for key, value in changes.items():
            fields.pop(key.encode()) if value is None else fields.update({key.encode(): value})
        (folder / "data_batch_2").write_bytes(python2(fields))

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (replaced(data=None), "data_batch_2: no table 'data' of 30 x 3072 bytes"),
        (replaced(data=FILES["data_batch_2"][0][:29]), "no table 'data' of 30 x 3072"),
        (replaced(data=b"x" * 30 * 3072), "no table 'data' of 30 x 3072"),
        (replaced(labels=None), "data_batch_2: no list 'labels' of 30 labels"),
        (replaced(labels=[0] * 29), "no list 'labels' of 30"),
        (replaced(labels=[0] * 29 + [True]), "no list 'labels' of 30"),
        (replaced(labels=[0] * 29 + [-1]), "no list 'labels' of 30"),
        (replaced(labels=[0] * 29 + [10]), "data_batch_2: label 10 of record 29; expected 0 to 9"),
        (replaced(labels=b"0" * 30), "no list 'labels' of 30"),
        (shorten("data_batch_5", 50_000), r"data_batch_5: a string of 92160 bytes .* fewer are"),
        (shorten("batches.meta", 40), "batches.meta: "),
        (lambda folder: (folder / "batches.meta").write_bytes(b"\x80\x02cos\nsystem\n."),
         "batches.meta: asks for os.system, which no data needs"),
        (lambda folder: (folder / "batches.meta").write_bytes(python2({b"label_names": [1] * 10})),
         "batches.meta: 0 different class names"),
        (lambda folder: (folder / "test_batch").unlink(), "test_batch: no such file"),
    ],
)  # fmt: skip
def test_damaged_pickles(tmp_path, damage, message):
    folder = pickled(tmp_path / "cifar-10-batches-py")
    damage(folder)
    with pytest.raises(DataError, match=message):
        load("cifar10", tmp_path)


def test_wrong_paths_say_what_is_expected(tmp_path):
    with pytest.raises(ArchitectureError, match=r"pass data_dir .*nembp data fetch cifar10"):
        load("cifar10")
    with pytest.raises(ArchitectureError, match="holds classes: task='regression'"):
        load("cifar10", tmp_path, task="regression")
    with pytest.raises(DataError, match=r"nowhere: no such folder.*nembp data fetch cifar10"):
        load("cifar10", tmp_path / "nowhere")
    wanted = r"no CIFAR-100 here; expected the folder cifar-100-binary or cifar-100-python"
    with pytest.raises(DataError, match=wanted):
        load("cifar100", tmp_path)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(DataError, match=f"is packed. Unpack it: tar -xf {archive} -C {tmp_path}"):
        load("cifar10", tmp_path)
    with pytest.raises(DataError, match=f"is a file; .*`tar -xf {archive}`"):
        load("cifar10", archive)
