"""Training on batches from files: the same as from memory, ended cleanly, in bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_batches import (
    BOTH,
    STRICT,
    images,
    in_file,
    network,
    no_thread_is_left,
    reader_of,
)

from nembp.datasets import Scaling, Split
from nembp.datasets.reading import Augmentation, BatchReader
from nembp.datasets.sources import Rows, as_rows
from nembp.engine.metrics import evaluate
from nembp.engine.network import dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import SGD
from nembp.engine.training import Trainer
from nembp.errors import DataError, DivergenceError


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
from test_batches_training import epoch_of, sparse
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
