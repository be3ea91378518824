"""Batches: from memory or files, augmented, on either device, ahead of the step or in turn."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from engines import STRICT, Array, gathering
from fuzz_cases import traced
from hypothesis import given
from hypothesis import strategies as st

from nembp.backend import get_backend, stream
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import Augmentation, BatchReader
from nembp.datasets.sources import Rows, choose, join
from nembp.engine.metrics import evaluate
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import SGD
from nembp.engine.training import Trainer
from nembp.errors import ArchitectureError, DataError, DivergenceError, ShapeError

SHAPE, CLASSES = (4, 5, 3), 4
BOTH = Augmentation(flip=True, crop=2)
each_augmentation = pytest.mark.parametrize(
    "augmentation", [None, BOTH], ids=["plain", "augmented"]
)
each_prefetch = pytest.mark.parametrize("prefetch", [False, True], ids=["in-turn", "ahead"])


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert not [t.name for t in set(threading.enumerate()) - before if "batches" in t.name]


def images(n: int = 60) -> Split:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (n, *SHAPE)).astype(np.uint8)
    return Split(x, generator.integers(0, CLASSES, n))


def in_file(split: Split, folder: Path) -> Split:
    np.save(folder / "x.npy", split.x)
    return Split(np.load(folder / "x.npy", mmap_mode="r"), split.y)


def network(backend: Any = "cpu", dtype: str = "float32") -> Network:
    return dense_network([60, 8, CLASSES], device=backend, dtype=dtype)


def reader_of(split: Split, net: Network, **options: Any) -> BatchReader:
    scaling = Scaling(factor=1 / 255)
    return BatchReader(split, scaling, Scaling(), net.outputs, net.backend, net.dtype, **options)


def everything(reader: BatchReader, prefetch: bool | None = None) -> tuple[Array, Array]:
    """Return all inputs and targets that a reader gives in a fixed random order."""
    order, parts = np.random.default_rng(1).permutation(reader.n), []
    backend = reader.backend
    for index, staged in gathering(reader, prefetch).batches(order, 16):
        x = backend.empty((index.shape[0], reader.features), reader.dtype)
        t = backend.empty((index.shape[0], reader.outputs), reader.dtype)
        reader.read(index, x, t, staged)
        parts.append((backend.to_numpy(x).copy(), backend.to_numpy(t).copy()))
    x, t = (np.concatenate(values) for values in zip(*parts, strict=True))
    return x, t


# -- what is read ----------------------------------------------------------------------------------
def test_images_are_scaled_and_labels_become_one_hot_rows():
    split = images()
    x, t = everything(reader_of(split, network(dtype="float64")))
    order = np.random.default_rng(1).permutation(60)
    np.testing.assert_allclose(x, split.x[order].reshape(60, -1) / 255, rtol=1e-12)
    np.testing.assert_array_equal(t, np.eye(CLASSES)[split.y[order]])


def test_regression_targets_and_features_are_standardized():
    generator = np.random.default_rng(0)
    x, y = generator.normal(5, 3, (20, 4)), generator.normal(-2, 7, (20, 2))
    scalings = [Scaling(v.mean(axis=0), 1 / v.std(axis=0)) for v in (x, y)]
    reader = BatchReader(Split(x, y), *scalings, 2, get_backend("cpu"), "float64")
    for value in everything(reader):
        np.testing.assert_allclose(value.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(value.std(axis=0), 1, rtol=1e-12)


def test_what_does_not_fit_is_refused():
    net = dense_network([6, 2])
    with pytest.raises(ShapeError, match="labels run from 0 to 2, but the network has 2 classes"):
        reader_of(Split(np.zeros((3, 6)), np.arange(3)), net)
    with pytest.raises(ShapeError, match=r"targets have shape \(4, 3\)"):
        reader_of(Split(np.zeros((4, 6)), np.zeros((4, 3))), net)
    table = Split(np.zeros((3, 60)), np.arange(3))
    with pytest.raises(ArchitectureError, match=r"samples have shape \(60,\); leave it out"):
        reader_of(table, network(), augmentation=BOTH)
    with pytest.raises(
        ArchitectureError, match=r"but samples have shape \(4, 5, 3\); crop by less than 4"
    ):
        reader_of(images(), network(), augmentation=Augmentation(crop=4))
    reader_of(table, network(), augmentation=Augmentation())  # nothing asked for


# -- where it is read from -------------------------------------------------------------------------
@each_augmentation
@each_prefetch
@pytest.mark.parametrize("kind", ["file", "planar", "chosen", "joined"])
def test_files_give_what_memory_gives(kind, prefetch, augmentation, tmp_path):
    split, net, back = images(), network(), np.arange(60)[::-1]
    mapped = in_file(split, tmp_path).x
    planar = np.ascontiguousarray(split.x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    rows: Any = {
        "file": lambda: mapped,
        "planar": lambda: Rows([planar]),
        "chosen": lambda: choose(choose(mapped, back), back),
        "joined": lambda: join([mapped[:7], mapped[7:]]),
    }[kind]()
    expected = everything(reader_of(split, net, augmentation=augmentation))
    found = everything(reader_of(Split(rows, split.y), net, augmentation=augmentation), prefetch)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", ["uint8", ">f4", "float32"])
@pytest.mark.parametrize("resident", [None, False, True])
@pytest.mark.parametrize("backend", ["cpu", STRICT], ids=["cpu", "strict"])
@each_augmentation
def test_resident_or_staged_on_either_device(augmentation, backend, resident, dtype, tmp_path):
    split, net, options = images(), network(backend), {"augmentation": augmentation, "seed": 3}
    expected = everything(reader_of(split, network(), **options))
    typed = Split(split.x.astype(dtype), split.y)
    if resident is True and dtype == "float32":
        typed = in_file(typed, tmp_path)  # moves into memory, too
    for prefetch in (False, True):
        found = everything(reader_of(typed, net, resident=resident, **options), prefetch)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("resident", [None, False])
def test_a_batch_read_alone_is_that_of_its_index(resident):
    split = images()
    reader = reader_of(split, network(), resident=resident)
    x, t = np.empty((3, 60), "float32"), np.empty((3, CLASSES), "float32")
    waiting = gathering(reader, True).batches(np.arange(60), 16)
    index, staged = next(waiting)
    reader.read(np.array([5, 0, 59]), x, t)  # disturbs no batch that waits
    np.testing.assert_allclose(x, split.x[[5, 0, 59]].reshape(3, 60) / 255, rtol=1e-6)
    full, labels = np.empty((16, 60), "float32"), np.empty((16, CLASSES), "float32")
    reader.read(index, full, labels, staged)
    np.testing.assert_allclose(full, split.x[:16].reshape(16, 60) / 255, rtol=1e-6)
    waiting.close()


# -- augmentation ----------------------------------------------------------------------------------
@given(data=st.data())
def test_every_image_is_a_flipped_window_of_its_padded_original(data):
    """Draws are those of the stream ``augmentation``, whatever is switched on."""
    height, width, channels = (data.draw(st.integers(1, most)) for most in (6, 6, 4))
    crop = data.draw(st.integers(0, min(height, width) - 1))
    flip, seed = data.draw(st.booleans()), data.draw(st.integers(0, 99))
    rows = data.draw(st.integers(1, 5))
    raw = np.random.default_rng(seed).integers(0, 256, (rows, height, width, channels))
    net = dense_network([raw[0].size, 1], dtype="float64")
    reader = BatchReader(
        Split(raw.astype(np.uint8), np.zeros(rows, int)), Scaling(), Scaling(), 1, net.backend,
        "float64", augmentation=Augmentation(flip, crop), seed=seed
    )  # fmt: skip
    x, t = np.empty((rows, raw[0].size)), np.empty((rows, 1))
    generator = stream(seed, "augmentation")
    padded = np.pad(raw, ((0, 0), (crop, crop), (crop, crop), (0, 0)), mode="reflect")
    for _ in range(2):  # the second batch has draws of its own
        reader.read(np.arange(rows), x, t)
        u = generator.random((3, rows)) if flip or crop else np.zeros((3, rows))
        shifts = np.floor(u[:2] * (2 * crop + 1)).astype(int)
        for image, found, dy, dx, coin in zip(padded, x, *shifts, u[2], strict=True):
            window = image[dy:, dx:][:height, :width]
            window = window[:, ::-1] if flip and coin < 0.5 else window
            np.testing.assert_array_equal(found.reshape(window.shape), window)


# -- training on them ------------------------------------------------------------------------------
def trainer_of(
    split: Split, *, augmentation: Any = None, prefetch: bool | None = None, **options: Any
) -> Trainer:
    net = network()
    reader = gathering(reader_of(split, net, augmentation=augmentation), prefetch)
    return Trainer(net, reader, **{"epochs": 2, "batch_size": 16, **options})


def test_augmentation_shifts_neither_batches_nor_noise():
    """Images of one colour are their own augmentations, so the runs must be equal."""
    flat = images()
    flat.x[...] = flat.x[:, :1, :1, :]
    noise = {direction: Noise("nem", std=0.3) for direction in ("forward", "backward")}
    plain, augmented = (trainer_of(flat, augmentation=a, noise=noise) for a in (None, BOTH))
    plain.run()
    augmented.run()
    np.testing.assert_array_equal(plain.net.parameters, augmented.net.parameters)


class Watched(Rows):
    """Rows that say when they are read, and whose file may break."""

    def __init__(self, x: Array, error: Exception | None = None, after: int = 0) -> None:
        self.x, self.shape, self.dtype = x, x.shape, x.dtype
        self.error, self.after, self.reads = error, after, 0
        self.began = [threading.Event() for _ in range(100)]

    def _read(self, index: Any, out: Any) -> None:
        self.began[self.reads].set()
        self.reads += 1
        if self.error is not None and self.reads > self.after:
            raise self.error
        out[...] = self.x[index]


def test_the_next_batch_is_gathered_while_one_is_used():
    split = images()
    rows = Watched(split.x)
    reader = reader_of(Split(rows, split.y), network(), resident=False)
    for number, _ in enumerate(reader.batches(np.arange(60), 20)):
        assert number == 2 or rows.began[number + 1].wait(60)
    rows.reads = 0
    for number, _ in enumerate(gathering(reader, False).batches(np.arange(60), 20), start=1):
        assert rows.reads == number  # in turn nothing is read early


@each_prefetch
def test_a_broken_file_ends_the_training_with_its_name(prefetch):
    split = images()
    broken = Watched(split.x, OSError(5, "Input/output error", "images.npy"), after=2)
    trainer = trainer_of(Split(broken, split.y), prefetch=prefetch)
    with pytest.raises(DataError, match=r"images.npy: could not be read any more \(Input/"):
        trainer.run()
    assert trainer.iteration == 2


@each_prefetch
def test_a_file_cut_short_ends_the_training_not_the_process(prefetch, tmp_path):
    trainer = trainer_of(in_file(images(), tmp_path), prefetch=prefetch)
    trainer.run_epoch()
    os.truncate(tmp_path / "x.npy", 1000)
    with pytest.raises(DataError, match=r"x.npy: cut short to 1000 bytes while it was in use"):
        trainer.run_epoch()


def test_whatever_ends_a_training_leaves_no_thread(tmp_path):
    split = in_file(images(), tmp_path)
    with pytest.raises(DivergenceError):
        trainer_of(split, prefetch=True, optimizer=SGD(1e30)).run()
    trainer_of(split, prefetch=True, callbacks=[lambda row: True]).run()
    for error in (KeyboardInterrupt, MemoryError):
        trainer = trainer_of(split, prefetch=True)
        trainer.after_step = Mock(side_effect=error)
        with pytest.raises(error):
            trainer.run()


# -- memory ----------------------------------------------------------------------------------------
def epoch_of(path: Path) -> None:
    """Train one epoch on a file, and score it."""
    x = np.load(path, mmap_mode="r")
    net = dense_network([int(np.prod(x.shape[1:])), 4, 2])
    split = Split(x, np.arange(len(x)) % 2)
    train = gathering(reader_of(split, net, augmentation=BOTH), True)
    test = reader_of(split, net)
    score = lambda net: evaluate(net, test, batch_size=64)  # noqa: E731
    Trainer(net, train, epochs=1, batch_size=64, evaluate=score).run()


def test_an_epoch_needs_no_more_memory_for_more_data(tmp_path):
    peaks, sizes = [], (500, 4000)
    for n in sizes:  # zeros, which take no disk
        path, shape = tmp_path / f"x{n}.npy", (n, 16, 16, 3)
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).flush()
        peaks.append(traced(lambda: epoch_of(path))[1])  # noqa: B023
    # labels, the order of the batches and their bounds: some numbers a sample, of 768 bytes
    assert peaks[1] - peaks[0] < 64 * (sizes[1] - sizes[0])
