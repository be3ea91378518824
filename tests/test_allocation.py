"""A training step allocates no array: everything it writes has its buffer.

NumPy reports its arrays to tracemalloc. Sizes here are such that the smallest array with a row a
sample, or with the entries of a weight matrix, is twice the bound, which the step's Python objects
(views, numbers) stay below. NumPy's ufuncs also keep a fixed buffer of up to 8192 elements
for broadcasts and casts, whatever the arrays' size; the tests lower that to 16.
"""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from allocation_cases import (
    BOUND,
    ROWS,
    SIZES,
    SMALLEST,
    both,
    peak_of,
    peak_of_training,
    trainer_of,
    wrap,
)
from strategies import KINDS, PAIRS

from nembp.backend import NumpyBackend
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import Augmentation, Augmenter, BatchReader
from nembp.engine.activations import ACTIVATIONS
from nembp.engine.batchnorm import BatchNormalization, Normalizer
from nembp.engine.network import dense_network
from nembp.engine.optimizers import OPTIMIZERS
from nembp.engine.training import Trainer
from nembp.threads import threads

each_pair = pytest.mark.parametrize("pair", PAIRS, ids="-".join)


@pytest.fixture(autouse=True)
def _small_ufunc_buffers():
    before = np.setbufsize(16)
    yield
    np.setbufsize(before)


@pytest.mark.parametrize("labels", [True, False], ids=["classes", "samples"])
@pytest.mark.parametrize("noise", [{}, both("nem")], ids=["silent", "nem"])
@each_pair
def test_a_step_of_every_pair_allocates_nothing(pair, noise, labels):
    assert peak_of_training(trainer_of(pair, labels=labels, noise=noise)) < BOUND


@pytest.mark.parametrize("labels", [True, False], ids=["classes", "samples"])
@pytest.mark.parametrize(
    ("mode", "law"), [("additive", "uniform"), ("multiplicative", "gaussian")], ids=str
)
@pytest.mark.parametrize("rejected", ["zero", "reflect"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_noise_allocates(kind, rejected, mode, law, labels, monkeypatch):
    monkeypatch.setattr("nembp.engine.noise.DRIFT_DRAWS", 2)
    noise = both(kind, rejected=rejected, mode=mode, law=law, update="zero-sum")
    assert peak_of_training(trainer_of(noise=noise, labels=labels)) < BOUND


@pytest.mark.parametrize("update", ["exact", "published", "zero-sum"])
@pytest.mark.parametrize("labels", [True, False], ids=["classes", "samples"])
def test_no_update_allocates(update, labels):
    trainer = trainer_of(("multinomial",) * 2, noise=both("nem", update=update), labels=labels)
    assert peak_of_training(trainer) < BOUND


@pytest.mark.parametrize("decay", [0.0, 0.1], ids=["plain", "decay"])
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_no_optimizer_allocates(optimizer, decay):
    assert peak_of_training(trainer_of(optimizer=OPTIMIZERS[optimizer](None, decay))) < BOUND


def test_threads_allocate_no_array(monkeypatch):
    monkeypatch.setattr(NumpyBackend, "chunk", 1 << 10)  # a dozen chunks, so there are two lanes
    with threads(2):
        trainer = trainer_of()
        assert len(trainer.optimizer._shares) == 2
        peak = peak_of(lambda: trainer.step(np.arange(64)))
    assert peak < SMALLEST  # handing work to a thread makes a few Python objects more


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backward", [True, False], ids=["bidirectional", "unidirectional"])
def test_no_activation_precision_or_mode_allocates(activation, dtype, backward):
    trainer = trainer_of(activation=activation, dtype=dtype, backward=backward)
    assert peak_of_training(trainer) < BOUND


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", [True, False], ids=["classes", "samples"])
def test_no_normalized_layer_allocates(labels, dtype):
    options = {"labels": labels, "dtype": dtype, "normalization": BatchNormalization()}
    # views and functions of more passes over the rows, but no array
    assert peak_of_training(trainer_of(**options)) < SMALLEST


def test_a_normalized_layer_that_allocates_is_caught(monkeypatch):
    trainer = trainer_of(normalization=BatchNormalization())
    monkeypatch.setattr(*wrap(Normalizer, "pull_back"))
    assert peak_of_training(trainer) >= SMALLEST


@pytest.mark.parametrize("data", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_no_data_type_or_schedule_allocates(data, schedule):
    assert peak_of_training(trainer_of(data=data, schedule=schedule)) < BOUND


def test_steps_keep_nothing():
    trainer = trainer_of(noise=both("nem"))
    index = np.arange(ROWS)
    tracemalloc.start()
    try:
        trainer.step(index)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            trainer.step(index)
        assert tracemalloc.get_traced_memory()[0] - before < BOUND // 4
    finally:
        tracemalloc.stop()


def peak_of_epoch(trainer: Trainer, prefetch: bool) -> int:
    """Return the peak of the steps of an epoch, their staging among them, beyond its first two."""
    order = np.random.default_rng(1).permutation(trainer.reader.n)
    tracemalloc.start()
    try:
        with closing(trainer.reader.batches(order, ROWS, prefetch=prefetch)) as batches:
            for number, (index, staged) in enumerate(batches):
                trainer.step(index, staged)
                del index, staged
                if number == 1:
                    before = tracemalloc.get_traced_memory()[0]
                    tracemalloc.reset_peak()
            return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def image_trainer(folder: Path, augmentation: Augmentation | None) -> Trainer:
    """Return a trainer of memory-mapped images, after a step and a short batch."""
    n = 4 * ROWS + 64
    x = np.random.default_rng(0).integers(0, 256, (n, 7, 10, 3)).astype(np.uint8)
    np.save(folder / "x.npy", x)
    split = Split(np.load(folder / "x.npy", mmap_mode="r"), np.arange(n) % 10)
    net = dense_network(SIZES)
    reader = BatchReader(
        split, Scaling(factor=1 / 255), Scaling(), 10, net.backend, net.dtype,
        augmentation=augmentation,
    )  # fmt: skip
    trainer = Trainer(net, reader, batch_size=ROWS, epochs=9)
    for rows in (ROWS, 64):
        trainer.step(np.arange(rows))
    return trainer


each_prefetch = pytest.mark.parametrize("prefetch", [False, True], ids=["in-turn", "ahead"])


@each_prefetch
@pytest.mark.parametrize("augmentation", [None, Augmentation(flip=True, crop=2)])
def test_no_batch_from_a_file_allocates(augmentation, prefetch, tmp_path):
    trainer = image_trainer(tmp_path, augmentation)
    with closing(trainer.reader.batches(np.arange(trainer.reader.n), ROWS, prefetch=prefetch)) as b:
        for index, staged in b:  # both staging buffers
            trainer.step(index, staged)
    assert peak_of_epoch(trainer, prefetch) < BOUND


@each_prefetch
def test_a_batch_from_a_file_that_allocates_is_caught(prefetch, tmp_path, monkeypatch):
    trainer = image_trainer(tmp_path, Augmentation(flip=True, crop=2))
    monkeypatch.setattr(*wrap(Augmenter, "_draw"))
    assert peak_of_epoch(trainer, prefetch) >= BOUND
