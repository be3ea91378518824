"""Batches: the same from memory and files, on either device, ahead of the step or in turn."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest

from nembp.augmentation import Augmentation
from nembp.backend import Backend, get_backend
from nembp.batches import LONG, BatchReader
from nembp.datasets import Scaling, Split
from nembp.datasets.sources import ArrayRows, Rows, as_rows, choose, join
from nembp.errors import ArchitectureError, DataError, DivergenceError, ShapeError
from nembp.metrics import evaluate
from nembp.network import Network, dense_network
from nembp.noise import Noise
from nembp.optimizers import SGD
from nembp.threads import threads, usable_cores
from nembp.training import Trainer

STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))
SHAPE, CLASSES = (4, 5, 3), 4
BOTH = Augmentation(flip=True, crop=2)


def images(n: int = 60) -> Split:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (n, *SHAPE)).astype(np.uint8)
    return Split(x, generator.integers(0, CLASSES, n))


def in_file(split: Split, folder: Path) -> Split:
    np.save(folder / "x.npy", split.x)
    return Split(np.load(folder / "x.npy", mmap_mode="r"), split.y)


def reader_of(split: Split, net: Network, **options: Any) -> BatchReader:
    return BatchReader(
        split, Scaling(factor=1 / 255), Scaling(), net.outputs, net.backend, net.dtype, **options
    )


def network(backend: Backend | str = "cpu", dtype: str = "float32") -> Network:
    return dense_network([60, 8, CLASSES], device=backend, dtype=dtype)


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


def no_thread_is_left() -> bool:
    return not any("nembp-batches" in thread.name for thread in threading.enumerate())


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
    monkeypatch.setattr("nembp.batches.usable_cores", lambda: 2)
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


# -- training on them ----------------------------------------------------------------------------


def trainer_of(
    split: Split, *, augmentation: Augmentation | None = None, **options: Any
) -> Trainer:
    net = network(options.pop("backend", "cpu"))
    reader = reader_of(split, net, augmentation=augmentation)
    return Trainer(net, reader, **{"epochs": 2, "batch_size": 16, **options})


@pytest.mark.parametrize("augmentation", [None, BOTH], ids=["plain", "augmented"])
def test_training_ahead_or_in_turn_from_file_or_memory_is_the_same(augmentation, tmp_path):
    results = []
    for split in (images(), in_file(images(), tmp_path)):
        for prefetch in (False, True, None):
            trainer = trainer_of(split, augmentation=augmentation, prefetch=prefetch)
            trainer.run()
            results.append(trainer.net.parameters)
    for parameters in results[1:]:
        np.testing.assert_array_equal(parameters, results[0])
    assert no_thread_is_left()


def test_augmentation_shifts_neither_batches_nor_noise():
    """Images of one colour are their own augmentations, so the runs must be equal."""
    flat = images()
    flat.x[...] = flat.x[:, :1, :1, :]
    noise = {direction: Noise("nem", std=0.3) for direction in ("forward", "backward")}
    plain, augmented = (trainer_of(flat, augmentation=a, noise=noise) for a in (None, BOTH))
    plain.run()
    augmented.run()
    np.testing.assert_array_equal(plain.net.parameters, augmented.net.parameters)


def test_a_second_device_trains_on_the_same_augmented_images():
    trainers = [
        trainer_of(
            images(), augmentation=BOTH, backend=backend, host_noise=True, optimizer=SGD(0.1)
        )
        for backend in ("cpu", STRICT)
    ]
    for trainer in trainers:
        trainer.run()
    cpu, strict = (trainer.net for trainer in trainers)
    np.testing.assert_allclose(
        STRICT.to_numpy(strict.parameters), cpu.parameters, rtol=1e-4, atol=1e-5
    )


class Failing(Rows):
    """Rows whose file breaks at the third batch."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.shape, self.dtype, self.reads = x, x.shape, x.dtype, 0

    def _read(self, index: Any, out: Any) -> None:
        self.reads += 1
        if self.reads > 2:
            raise OSError(5, "Input/output error", "images.npy")
        out[...] = self.x[index]


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_broken_file_ends_the_training_with_its_name(prefetch):
    split = images()
    trainer = trainer_of(Split(Failing(split.x), split.y), prefetch=prefetch)
    with pytest.raises(DataError, match=r"images.npy: could not be read any more"):
        trainer.run()
    assert trainer.iteration == 2
    assert no_thread_is_left()


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_file_cut_short_ends_the_training_not_the_process(prefetch, tmp_path):
    split = in_file(images(), tmp_path)
    trainer = trainer_of(split, prefetch=prefetch)
    trainer.run_epoch()
    os.truncate(tmp_path / "x.npy", 1000)
    with pytest.raises(DataError, match=r"x.npy: cut short to 1000 bytes while it was in use"):
        trainer.run_epoch()
    with pytest.raises(DataError, match=r"x.npy: cut short"):
        as_rows(split.x)[2:5]
    assert no_thread_is_left()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_training_leaves_no_thread(error, tmp_path):
    trainer = trainer_of(in_file(images(), tmp_path), prefetch=True)
    step = trainer.step

    def interrupted(*args: Any) -> None:
        step(*args)
        if trainer.iteration == 3:
            raise error

    trainer.step = interrupted  # type: ignore[method-assign]
    with pytest.raises(error):
        trainer.run()
    assert no_thread_is_left()


def test_divergence_and_early_ends_leave_no_thread(tmp_path):
    split = in_file(images(), tmp_path)
    with pytest.raises(DivergenceError):
        trainer_of(split, prefetch=True, optimizer=SGD(1e30)).run()
    assert no_thread_is_left()
    trainer_of(split, prefetch=True, callbacks=[lambda row: True]).run()
    assert no_thread_is_left()


def test_scores_of_a_file_are_those_of_memory(tmp_path):
    net, split = network(), images()
    expected = evaluate(net, reader_of(split, net), batch_size=16)
    actual = evaluate(net, reader_of(in_file(split, tmp_path), net), batch_size=16)
    assert actual == expected
    assert no_thread_is_left()


def test_scores_that_cannot_be_had_leave_no_thread(monkeypatch, tmp_path):
    net, split = network(), in_file(images(), tmp_path)
    monkeypatch.setattr(type(net.likelihood), "log_likelihood", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(net, reader_of(split, net), batch_size=16)
    assert no_thread_is_left()


# -- memory --------------------------------------------------------------------------------------


def sparse(folder: Path, n: int, shape: tuple[int, ...]) -> Path:
    """Return a .npy file of zeros that takes no disk."""
    path = folder / f"x{n}.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, *shape)).flush()
    return path


def epoch_of(path: Path, augmentation: Augmentation | None = BOTH) -> Trainer:
    """Train and score one epoch on a file."""
    x = np.load(path, mmap_mode="r")
    net = dense_network([int(np.prod(x.shape[1:])), 4, 2])
    split = Split(x, np.arange(len(x)) % 2)
    train, test = (
        BatchReader(split, Scaling(factor=1 / 255), Scaling(), 2, net.backend, net.dtype, **options)
        for options in ({"augmentation": augmentation}, {})
    )
    trainer = Trainer(net, train, epochs=1, batch_size=64, prefetch=True,
                      evaluate=lambda net: evaluate(net, test, batch_size=64))  # fmt: skip
    trainer.run()
    return trainer


def test_an_epoch_needs_no_more_memory_for_more_data(tmp_path):
    shape, peaks, sizes = (16, 16, 3), [], (500, 4000)
    for n in sizes:
        path = sparse(tmp_path, n, shape)
        tracemalloc.start()
        try:
            epoch_of(path)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    samples = sizes[1] - sizes[0]
    # labels, the order of the batches and their bounds: some numbers a sample, of 768 bytes
    assert peaks[1] - peaks[0] < 64 * samples
    assert 64 * samples < 768 * samples / 10


CHILD = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_batches import epoch_of, sparse
epoch_of(sparse(Path(sys.argv[2]), 64, (64, 64, 3)))
held = next(int(line.split()[1]) for line in open("/proc/self/status") if line[:7] == "VmData:")
path = Path(sys.argv[2]) / "large.npy"
room = 1024 * held + path.stat().st_size // 2
resource.setrlimit(resource.RLIMIT_DATA, (room, room))
if sys.argv[3] == "stream":
    print(epoch_of(path, None).iteration)
else:
    import numpy
    print(numpy.load(path).size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA bounds private memory on Linux")
@pytest.mark.parametrize("mode", ["stream", "load"])
def test_data_larger_than_the_memory_that_is_allowed(mode, tmp_path):
    """A process that may hold half of a file beyond what it has trains on it; loading it fails."""
    sparse(tmp_path, 16384, (64, 64, 3)).rename(tmp_path / "large.npy")  # 192 MiB
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), str(here)])
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(here), str(tmp_path), mode],
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if mode == "stream":
        assert child.stdout.strip() == str(16384 // 64), child.stderr
    else:
        assert "MemoryError" in child.stderr
