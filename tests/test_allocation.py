"""A training step allocates no array: everything it writes has its buffer.

NumPy reports its arrays to tracemalloc. Sizes here are such that the smallest array with a row a
sample, or with the entries of a weight matrix, is twice the bound, which the step's Python objects
(views, numbers) stay below. NumPy's ufuncs also keep a fixed buffer of up to 8192 elements
for broadcasts and casts, whatever the arrays' size; the tests lower that to 16.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import KINDS, PAIRS

from nembp.augmentation import Augmentation, Augmenter
from nembp.backend import NumpyBackend
from nembp.backpropagation import JointBackpropagation
from nembp.batches import BatchReader
from nembp.datasets import Scaling, Split
from nembp.likelihoods import Multinomial
from nembp.network import dense_network
from nembp.neurons import ACTIVATIONS
from nembp.noise import Noise, NoiseSource
from nembp.normalization import BatchNormalization, Normalizer
from nembp.optimizers import OPTIMIZERS, Optimizer
from nembp.threads import threads
from nembp.training import Trainer

ROWS, SIZES = 2048, (210, 48, 44, 10)
SMALLEST = 4 * min(ROWS, *(m * n for m, n in pairwise(SIZES[:-1])))
BOUND = SMALLEST // 2

each_pair = pytest.mark.parametrize("pair", PAIRS, ids="-".join)


@pytest.fixture(autouse=True)
def _small_ufunc_buffers():
    before = np.setbufsize(16)
    yield
    np.setbufsize(before)


def peak_of(step: Callable[[], Any]) -> int:
    """Return the most bytes that a warmed-up ``step`` holds at once beyond what it found."""
    tracemalloc.start()
    try:
        step()  # what tracemalloc itself, or Python's caches, keep of a first step
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def trainer_of(
    pair: tuple[str, str] = ("multinomial", "gaussian"),
    *,
    data: str = "uint8",
    labels: bool = True,
    activation: str = "relu",
    normalization: BatchNormalization | None = None,
    dtype: str = "float32",
    **options: Any,
) -> Trainer:
    """Return a trainer of 8-bit images or of a float table, after a step and a short batch."""
    generator = np.random.default_rng(0)
    n, scaling = ROWS + 64, Scaling(factor=1 / 255)
    x = generator.integers(0, 255, (n, SIZES[0])).astype(data)
    y = generator.integers(0, 10, n)
    if data != "uint8":
        scaling = Scaling(offset=x.mean(axis=0), factor=1.0 / x.std(axis=0))
    net = dense_network(
        SIZES,
        activation=activation,
        normalization=normalization,
        forward=pair[0],
        backward=pair[1],
        dtype=dtype,
    )
    split = Split(x, y if labels else np.eye(10)[y])
    reader = BatchReader(split, scaling, Scaling(), 10, net.backend, dtype)
    trainer = Trainer(net, reader, batch_size=ROWS, epochs=9, **options)
    for rows in (ROWS, 64):
        trainer.step(np.arange(rows))
    return trainer


def peak_of_training(trainer: Trainer) -> int:
    """Return the peak of a full batch and a last, short one, on rows in random order."""
    order = np.random.default_rng(1).permutation(trainer.reader.n)
    full, short = order[:ROWS], order[ROWS:]

    def steps() -> None:
        trainer.step(full)
        trainer.step(short)

    return peak_of(steps)


def both(kind: str, **options: Any) -> dict[str, Noise]:
    return {direction: Noise(kind, **options) for direction in ("forward", "backward")}


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
    monkeypatch.setattr("nembp.noise.DRIFT_DRAWS", 2)
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
        assert len(trainer.optimizer._lanes) == 2
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


# -- the checker is checked ------------------------------------------------------------------------


def test_the_smallest_array_would_be_seen():
    assert peak_of(lambda: None) < BOUND // 4
    assert peak_of(lambda: np.empty((ROWS, 1), "float32")) >= SMALLEST
    x, column = np.ones((ROWS, 5), "float32"), np.ones((ROWS, 1), "float32")
    assert peak_of(lambda: np.subtract(x, column, out=x)) < BOUND


def allocating_into(self: Any, out: Any, function: Any, *args: Any) -> Any:
    out[...] = function(*args)
    return out


def wrap(owner: Any, name: str) -> tuple[Any, str, Any]:
    """Plant one needless temporary column of floats into a method."""
    original = getattr(owner, name)

    def planted(*args: Any, **options: Any) -> Any:
        temporary = np.empty((ROWS, 1), "float32")
        result = original(*args, **options)
        del temporary
        return result

    return owner, name, planted


PLANTED = {
    "into": (NumpyBackend, "into", allocating_into),
    "mask": (NumpyBackend, "keep_where_positive", lambda s, x, a, _: s.keep(x, a > 0)),
    "matmul": (
        NumpyBackend,
        "matmul",
        lambda s, left, right, out: np.copyto(out, left @ right),
    ),
    "gather": (
        NumpyBackend,
        "take_rows",
        lambda s, table, index, out: np.copyto(out, table[index]) or out,
    ),
    "read": wrap(BatchReader, "read"),
    "noise": wrap(NoiseSource, "__call__"),
    "error": wrap(Multinomial, "error"),
    "sweep": wrap(JointBackpropagation, "_sweep_up"),
    "optimizer": wrap(Optimizer, "step"),
    "record": wrap(Trainer, "record"),
}


@pytest.mark.parametrize("bug", list(PLANTED))
def test_an_allocating_step_is_caught(bug, monkeypatch):
    trainer = trainer_of(noise=both("nem"))
    assert peak_of_training(trainer) < BOUND
    monkeypatch.setattr(*PLANTED[bug])
    assert peak_of_training(trainer) >= BOUND
