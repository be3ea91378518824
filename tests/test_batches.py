"""Batches: the same from memory and files, on either device, ahead of the step or in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_batches import (
    BOTH,
    CLASSES,
    STRICT,
    images,
    in_file,
    network,
    reader_of,
)

from nembp.backend import get_backend
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import LONG, Augmentation, BatchReader
from nembp.datasets.sources import ArrayRows, choose, join
from nembp.engine.network import dense_network
from nembp.errors import ArchitectureError, ShapeError
from nembp.threads import threads, usable_cores


def everything(reader: BatchReader, prefetch: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return all inputs and targets that a reader gives in a fixed random order."""
    order, parts = np.random.default_rng(1).permutation(reader.n), []
    backend = reader.backend
    for index, staged in reader.batches(order, 16, prefetch=prefetch):
        rows = index.shape[0]
        x = backend.empty((rows, reader.features), reader.dtype)
        t = backend.empty((rows, reader.outputs), reader.dtype)
        reader.read(index, x, t, staged)
        parts.append((backend.to_numpy(x), backend.to_numpy(t)))
    return tuple(np.concatenate(both) for both in zip(*parts, strict=True))  # type: ignore[return-value]


# -- what is read --------------------------------------------------------------------------------


def test_uint8_images_are_scaled_as_they_are_read():
    raw = np.random.default_rng(0).integers(0, 256, (9, 2, 3, 1)).astype(np.uint8)
    split = Split(raw, np.arange(9) % 3)
    net = dense_network([6, 3])
    reader = reader_of(split, net)
    x, t = np.empty((4, 6), np.float32), np.empty((4, 3), np.float32)
    reader.read(np.array([8, 0, 3, 5]), x, t)
    np.testing.assert_allclose(x, raw.reshape(9, 6)[[8, 0, 3, 5]] / 255, rtol=1e-6)
    np.testing.assert_array_equal(t, np.eye(3)[[2, 0, 0, 2]])


def test_regression_targets_and_features_are_standardized_as_they_are_read():
    generator = np.random.default_rng(0)
    x, y = generator.normal(5, 3, (20, 4)), generator.normal(-2, 7, (20, 2))
    scalings = [Scaling(v.mean(axis=0), 1 / v.std(axis=0)) for v in (x, y)]
    reader = BatchReader(Split(x, y), *scalings, 2, dense_network([4, 2]).backend, "float64")
    a, t = np.empty((20, 4)), np.empty((20, 2))
    reader.read(np.arange(20), a, t)
    for v in (a, t):
        np.testing.assert_allclose(v.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(v.std(axis=0), 1, rtol=1e-12)


def test_labels_and_targets_that_do_not_fit_are_refused():
    net = dense_network([6, 2])
    with pytest.raises(ShapeError, match="labels run from 0 to 2, but the network has 2 classes"):
        reader_of(Split(np.zeros((3, 6)), np.arange(3)), net)
    with pytest.raises(ShapeError, match=r"targets have shape \(4, 3\)"):
        reader_of(Split(np.zeros((4, 6)), np.zeros((4, 3))), net)


# -- where it is read from -----------------------------------------------------------------------


def sources(split: Split, folder: Path) -> dict[str, Any]:
    """Return the same samples as a file, and as other kinds of rows."""
    mapped = in_file(split, folder).x
    planar = np.ascontiguousarray(split.x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    back = np.arange(len(split))[::-1]
    return {
        "file": mapped,
        "planar": ArrayRows(planar),
        "chosen": choose(choose(mapped, back), back),
        "joined": join([mapped[:7], mapped[7:]]),
    }


@pytest.mark.parametrize("augmentation", [None, BOTH], ids=["plain", "augmented"])
@pytest.mark.parametrize("prefetch", [False, True], ids=["in-turn", "ahead"])
@pytest.mark.parametrize("kind", ["file", "planar", "chosen", "joined"])
def test_files_give_what_memory_gives(kind, prefetch, augmentation, tmp_path):
    split, net = images(), network()
    expected = everything(reader_of(split, net, augmentation=augmentation))
    source = Split(sources(split, tmp_path)[kind], split.y)
    actual = everything(reader_of(source, net, augmentation=augmentation), prefetch)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    plain = everything(reader_of(split, net))[0]
    assert np.array_equal(actual[0], plain) == (augmentation is None)


@pytest.mark.parametrize("dtype", ["uint8", ">f4", "float32", "float64"])
@pytest.mark.parametrize("resident", [None, False, True])
@pytest.mark.parametrize("backend", [get_backend("cpu"), STRICT], ids=["cpu", "strict"])
def test_resident_or_staged_on_either_device(backend, resident, dtype, tmp_path):
    split, net = images(), network(backend)
    if resident is True and dtype == "float32":
        split = in_file(split, tmp_path)  # moves into memory, too
    expected = everything(reader_of(images(), network()))
    typed = Split(split.x.astype(dtype) if dtype != "uint8" else split.x, split.y)
    for prefetch in (False, True):
        actual = everything(reader_of(typed, net, resident=resident), prefetch)
        for one, other in zip(actual, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_device_draws_the_same_augmentations():
    expected = everything(reader_of(images(), network(), augmentation=BOTH, seed=3))
    actual = everything(reader_of(images(), network(STRICT), augmentation=BOTH, seed=3))
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    another = everything(reader_of(images(), network(), augmentation=BOTH, seed=4))
    assert (another[0] != expected[0]).any()


def test_a_device_without_room_gets_batches(monkeypatch, tmp_path):
    split = images()
    monkeypatch.setattr(STRICT, "free_memory", lambda: 2 * split.x.nbytes, raising=False)
    assert reader_of(split, network(STRICT))._staging is None
    assert reader_of(in_file(split, tmp_path), network(STRICT))._staging is None
    monkeypatch.setattr(STRICT, "free_memory", lambda: 2 * split.x.nbytes - 1)
    assert reader_of(split, network(STRICT))._staging is not None
    assert reader_of(split, network())._staging is None  # memory is where it is already


def test_prefetch_by_default_where_it_pays(monkeypatch, tmp_path):
    split, rows = images(), LONG // 60 + 1
    monkeypatch.setattr("nembp.datasets.reading.usable_cores", lambda: 2)
    with threads(1):
        assert not reader_of(split, network()).prefetch_pays(rows)
        assert reader_of(in_file(split, tmp_path), network()).prefetch_pays(1)
        augmented = reader_of(split, network(), augmentation=BOTH)
        assert augmented.prefetch_pays(rows)
        assert not augmented.prefetch_pays(rows - 1)
        assert reader_of(split, network(STRICT), augmentation=BOTH).prefetch_pays(1)
    with threads(2):  # no core is spare
        assert not augmented.prefetch_pays(rows)
    assert usable_cores() >= 1


def test_read_alone_equals_read_in_batches(tmp_path):
    split = in_file(images(), tmp_path)
    for backend in (get_backend("cpu"), STRICT):
        reader = reader_of(split, network(backend), resident=False)
        x, t = backend.empty((3, 60), "float32"), backend.empty((3, CLASSES), "float32")
        reader.read(backend.asarray(np.array([5, 0, 59])), x, t)
        expected = split.x[[5, 0, 59]].reshape(3, 60) / 255
        np.testing.assert_allclose(backend.to_numpy(x), expected, rtol=1e-6)


def test_tables_cannot_be_augmented():
    table = Split(np.zeros((3, 60)), np.arange(3))
    with pytest.raises(ArchitectureError, match=r"samples have shape \(60,\); leave it out"):
        reader_of(table, network(), augmentation=BOTH)
    reader_of(table, network(), augmentation=Augmentation())  # nothing asked for
