"""Training: that it learns, means, stopping, divergence, scores and memory."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from engines import assert_close, peak_of

from nembp.architecture import network
from nembp.datasets import Scaling, Split, class_means
from nembp.datasets.reading import BatchReader
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.metrics import centroid_error, evaluate
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import OPTIMIZERS, SGD, Adam
from nembp.engine.training import Trainer, set_input_bias
from nembp.errors import ArchitectureError, DivergenceError, ShapeError
from nembp.threads import threads

DIRECTIONS = "forward", "backward"
LIKELIHOODS = "multinomial", "gaussian", "bernoulli"


def blobs(n: int = 120, classes: int = 3, features: int = 6) -> Split:
    generator = np.random.default_rng(0)
    y = np.arange(n) % classes
    centres = generator.normal(0, 2, (classes, features))
    return Split(centres[y] + generator.normal(0, 0.5, (n, features)), y.astype(np.int64))


def reader_of(split: Split, net: Network, scaling: Scaling | None = None) -> BatchReader:
    return BatchReader(split, scaling or Scaling(), Scaling(), net.outputs, net.backend, net.dtype)


def make(
    seed: int = 0, dtype: str = "float32", features: int = 6, **options: Any
) -> tuple[Network, Trainer]:
    net = dense_network([6, 8, 3], backward=Gaussian(10.0), dtype=dtype, seed=seed)
    settings = {"epochs": 3, "batch_size": 16, "seed": seed} | options
    return net, Trainer(net, reader_of(blobs(features=features), net), **settings)


# -- learning --------------------------------------------------------------------------------------
@pytest.mark.parametrize("normalization", [None, BatchNormalization()], ids=["plain", "normalized"])
def test_both_directions_learn(normalization):
    split = blobs()
    net = dense_network([6, 16, 3], backward=Gaussian(1.0), normalization=normalization)
    means, reader = class_means(split, Scaling(), 3), reader_of(split, net)
    before = evaluate(net, reader, means)
    history = Trainer(net, reader, epochs=60, batch_size=20, optimizer=Adam(0.02)).run()
    after = evaluate(net, reader, means)
    assert after["forward/accuracy"] == 1.0
    assert after["backward/centroid_error"] < 0.3 * before["backward/centroid_error"]
    for direction in DIRECTIONS:
        nll = history[f"train/{direction}/nll"]
        assert nll[-1] < nll[0]
    assert len(history.epochs) == history.best_epoch == 60
    assert history["learning_rate"] == sorted(history["learning_rate"], reverse=True)
    assert repr(history).startswith("History(60 epochs of epoch, learning_rate, seconds, ")


# -- ends ------------------------------------------------------------------------------------------
def test_a_diverging_run_restores_the_last_good_parameters():
    net, trainer = make(epochs=50, optimizer=SGD(0.05))
    copies = [net.parameters.copy()]

    def watch(row: dict[str, float]) -> None:
        copies.append(net.parameters.copy())
        if row["epoch"] == 2:
            trainer.optimizer.learning_rate = 1e30

    trainer.callbacks.append(watch)
    with pytest.raises(DivergenceError, match=r"epoch 3, step \d+: .* of epoch 2 were restored"):
        trainer.run()
    assert np.array_equal(net.parameters, copies[2])


def test_early_stopping_restores_the_best_epoch():
    net, trainer = make(epochs=30)
    scores = iter([9.0, 3.0, 1.0, 2.0, 2.5, 9.0])  # the first: is there such a score?
    copies = []
    trainer.evaluate = lambda net: {"forward/nll": next(scores)}
    trainer.patience = 2
    trainer.callbacks.append(lambda row: copies.append(net.parameters.copy()))
    history = trainer.run()
    assert history.stopped_early
    assert (len(history.epochs), history.best_epoch) == (4, 2)
    assert np.array_equal(net.parameters, copies[1])


def test_a_callback_can_end_the_training():
    _, trainer = make(epochs=30, callbacks=[lambda row: row["epoch"] == 2])
    assert len(trainer.run().epochs) == 2


@pytest.mark.parametrize(
    ("likelihood", "mean"),
    [(Gaussian(3.0), [0.5, -2.0]), (Bernoulli(), [0.2, 0.9]), (Multinomial(), [0.25, 0.75])],
)
def test_input_bias_starts_at_the_mean(likelihood, mean):
    net = dense_network([2, 3, 2], backward=likelihood, dtype="float64")
    net.parameters[: net.weight_count] = 0.0
    set_input_bias(net, np.array(mean))
    assert_close(net.reversed.predict(np.eye(2)), [mean, mean], 1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 5}, r"have 5 values and its targets 3, but .* is 6 -> 3"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 2.5}, "batch size must be a whole number, got 2.5"),
        ({"epochs": "3"}, "epochs must be a whole number, got '3'"),
        ({"patience": 2}, "early stopping needs an evaluation"),
        ({"noise": {"fwd": Noise("nem")}}, "no place for noise is called 'fwd'; there are forward"),
        ({"noise": Noise("nem")}, r"noise is Noise\(.*expected a dict such as"),
        ({"noise": {"forward": "nem"}}, "noise of forward is 'nem'; expected a dict such as"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises((ArchitectureError, ShapeError), match=message):
        make(**options)


def test_a_mean_of_another_network_is_refused():
    with pytest.raises(ShapeError, match=r"mean has shape \(5,\), but the network has 6 inputs"):
        set_input_bias(dense_network([6, 8, 3]), np.zeros(5))


# -- scores ----------------------------------------------------------------------------------------
def test_scores_are_those_of_plain_arithmetic():
    split = blobs(50)
    net = dense_network(
        [6, 5, 3], forward=Multinomial(weight=0.5), backward=Gaussian(2.0), dtype="float64"
    )
    scores = evaluate(net, reader_of(split, net), class_means(split, Scaling(), 3), batch_size=7)
    p, images = net.predict(split.x), net.reversed.predict(np.eye(3))
    means = np.stack([split.x[split.y == k].mean(axis=0) for k in range(3)])
    square = ((split.x - images[split.y]) ** 2).sum(axis=1)
    expected = {
        "forward/accuracy": (p.argmax(axis=1) == split.y).mean(),
        "forward/nll": -np.log(p[np.arange(50), split.y]).mean(),  # untempered
        "backward/nll": (square / 4 + 3 * np.log(2 * np.pi * 2.0)).mean(),
        "backward/mean_squared_error": square.mean() / 6,
        "backward/centroid_error": np.mean(
            [np.linalg.norm(images[k] - means[k]) / np.linalg.norm(means[k]) for k in range(3)]
        ),
    }
    assert scores == pytest.approx(expected, rel=1e-9)
    means[1] = 0.0  # a class at the origin has no relative error
    assert np.isnan(centroid_error(net, means))


# -- memory ----------------------------------------------------------------------------------------
# A step allocates no array: everything that it writes has its buffer. Sizes are such that the
# smallest array with a row a sample, or of a weight matrix, is twice the bound, below which a
# step's Python objects stay; workers, whose objects depend on what ran before, have more rows.
ROWS, SIZES = 2048, (210, 48, 44, 10)
SMALLEST = 4 * min(ROWS, *(m * n for m, n in pairwise(SIZES[:-1])))
BOUND = SMALLEST // 2
MANY = 8 * ROWS


def peak_of_training(
    pair: tuple[str, str] = ("multinomial", "gaussian"),
    *,
    layers: str = "48,44",
    data: str = "uint8",
    labels: bool = True,
    dtype: str = "float32",
    rows: int = ROWS,
    shape: tuple[int, int, int] = (7, 10, 3),
    **options: Any,
) -> int:
    """Return the peak of a full batch and a last, short one, on rows in random order."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 255, (rows + 64, *shape)).astype(data)
    y = generator.integers(0, 10, rows + 64)
    activation = options.pop("activation", "relu")
    net = network(
        shape, layers, 10, activation=activation, forward=pair[0], backward=pair[1],
        dtype=dtype,
    )  # fmt: skip
    reader = reader_of(Split(x, y if labels else np.eye(10)[y]), net, Scaling(factor=1 / 255))
    trainer = Trainer(net, reader, batch_size=rows, epochs=9, **options)
    order = np.random.default_rng(1).permutation(rows + 64)

    def steps() -> None:
        trainer.step(order[:rows])
        trainer.step(order[rows:])

    steps()
    return peak_of(steps)


def both(kind: str, **options: Any) -> dict[str, Noise]:
    return {direction: Noise(kind, **options) for direction in DIRECTIONS}


each_path = pytest.mark.parametrize("labels", [True, False], ids=["classes", "samples"])


def test_the_smallest_array_would_be_seen():
    assert peak_of(lambda: None) < BOUND // 4
    assert peak_of(lambda: np.empty((ROWS, 1), "float32")) >= SMALLEST
    x, column = np.ones((ROWS, 5), "float32"), np.ones((ROWS, 1), "float32")
    assert peak_of(lambda: np.subtract(x, column, out=x)) < BOUND


STEPS: list[dict[str, Any]] = [
    *({"pair": pair, "noise": both("nem")} for pair in product(LIKELIHOODS, LIKELIHOODS)),
    {"noise": both("blind", law="uniform")},
    {"noise": both("anti", mode="multiplicative")},
    {"noise": both("nem", rejected="zero", update="zero-sum")},
    {"noise": both("nem", update="published")},
    {"noise": both("nem", draws=3, screening="vector")},
    *({"optimizer": optimizer(None, 0.1)} for optimizer in OPTIMIZERS.values()),
    *({"activation": name} for name in ("leaky-relu", "tanh", "logistic")),
    *({"activation": name, "dtype": "float64", "backward": False} for name in ("tanh", "relu")),
    {"data": "float32", "schedule": "step"},
    {"data": "float64"},
]


@each_path
@pytest.mark.parametrize("options", STEPS, ids=range(len(STEPS)))
def test_no_step_allocates(options, labels):
    assert peak_of_training(labels=labels, **options) < BOUND


@each_path
@pytest.mark.parametrize(
    ("layers", "workers"),
    [("48bn,44bn", 1), ("conv8x3,44", 1), ("conv8x3s2bn,44", 1), ("48,44", 2)],
)
def test_no_layer_or_worker_allocates(layers, workers, labels):
    with threads(workers):
        peak = peak_of_training(layers=layers, labels=labels, rows=MANY, shape=(6, 6, 3))
    assert peak < 4 * MANY // 2


def test_steps_keep_nothing():
    _, trainer = make(noise=both("nem"))
    index = np.arange(16)
    tracemalloc.start()
    try:
        trainer.step(index)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            trainer.step(index)
        assert tracemalloc.get_traced_memory()[0] - before < 2048
    finally:
        tracemalloc.stop()
