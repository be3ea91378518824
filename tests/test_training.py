"""Training: streams, history, stopping, divergence, and that it learns in both directions."""

from __future__ import annotations

import numpy as np
import pytest

from nembp.datasets import Scaling, Split, class_means, feature_means, load
from nembp.datasets.reading import BatchReader
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.metrics import centroid_error, evaluate
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import SGD, Adam
from nembp.engine.training import Trainer, set_input_bias
from nembp.errors import ArchitectureError, DivergenceError, ShapeError


def blobs(n: int = 120, classes: int = 3, features: int = 6, seed: int = 0) -> Split:
    generator = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = generator.normal(0, 2, (classes, features))
    return Split(centres[y] + generator.normal(0, 0.5, (n, features)), y.astype(np.int64))


def reader_of(split: Split, net: Network, scaling: Scaling | None = None) -> BatchReader:
    return BatchReader(split, scaling or Scaling(), Scaling(), net.outputs, net.backend, net.dtype)


def make(seed: int = 0, **options) -> tuple[Network, Trainer]:
    net = dense_network([6, 8, 3], backward=Gaussian(10.0), seed=seed)
    settings = {"epochs": 3, "batch_size": 16, "seed": seed} | options
    return net, Trainer(net, reader_of(blobs(), net), **settings)


def test_both_directions_learn():
    split = blobs()
    net = dense_network([6, 16, 3], backward=Gaussian(1.0))
    means = class_means(split, Scaling(), 3)
    reader = reader_of(split, net)
    before = evaluate(net, reader, means)
    history = Trainer(net, reader, epochs=60, batch_size=16, optimizer=Adam(0.02)).run()
    after = evaluate(net, reader, means)
    assert after["forward/accuracy"] == 1.0
    assert after["backward/centroid_error"] < 0.05 < before["backward/centroid_error"]
    assert history["train/forward/nll"][-1] < history["train/forward/nll"][0]
    assert history["train/backward/nll"][-1] < history["train/backward/nll"][0]
    assert len(history.epochs) == history.best_epoch == 60


def test_unidirectional_training_leaves_the_backward_biases():
    net, trainer = make(backward=False)
    biases = [b.copy() for b in net.reversed.biases[1:]]
    history = trainer.run()
    for before, after in zip(biases, net.reversed.biases[1:], strict=True):
        np.testing.assert_array_equal(before, after)
    assert "train/backward/nll" not in history.epochs[0]


def test_same_seed_same_run_and_other_seed_another():
    runs = [make(seed)[1].run().epochs[-1]["train/forward/nll"] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_arms_stay_paired():
    """Noise of zero deviation consumes draws, yet changes neither weights nor batches."""
    plain, trainer = make()
    trainer.run()
    for kind in ("nem", "blind", "anti", "drift"):
        noisy, trainer = make(
            noise={"forward": Noise(kind, std=0.0), "backward": Noise(kind, std=0.0)}
        )
        trainer.run()
        np.testing.assert_allclose(noisy.parameters, plain.parameters, rtol=2e-5, atol=2e-6)


def test_noise_is_recorded_for_each_direction():
    _, trainer = make(noise={"forward": Noise("nem", std=0.2), "backward": Noise("anti", std=0.2)})
    row = trainer.run().epochs[-1]
    assert row["noise/forward/accepted"] == pytest.approx(1.0)  # a half-space: reflection accepts
    assert 0 < row["noise/backward/accepted"] <= 1.0
    assert row["noise/forward/gain"] > 0 > row["noise/backward/gain"]


def test_epoch_means_are_over_samples_whatever_the_last_batch():
    """With a vanishing learning rate the epoch's means are those of the whole set."""
    net, trainer = make(optimizer=SGD(1e-30), batch_size=50)  # batches of 50, 50, 20
    row = trainer.run_epoch()
    split = blobs()
    one_hot = np.eye(3)[split.y]
    forward = -net.log_likelihood(split.x, one_hot).mean()
    backward = -net.reversed.log_likelihood(one_hot, split.x).mean()
    assert row["train/forward/nll"] == pytest.approx(forward, rel=1e-5)
    assert row["train/backward/nll"] == pytest.approx(backward, rel=1e-5)


def test_every_sample_once_an_epoch():
    _net, trainer = make(batch_size=50)
    seen: list[int] = []
    step = trainer.step
    trainer.step = lambda index, staged: (seen.extend(index.tolist()), step(index, staged))[1]  # type: ignore[method-assign]
    trainer.run_epoch()
    assert sorted(seen) == list(range(120))


def test_a_diverging_run_restores_the_last_good_parameters():
    net, trainer = make(epochs=50, optimizer=SGD(0.05))
    rows: list[dict[str, float]] = []
    copies = [net.parameters.copy()]

    def watch(row: dict[str, float]) -> None:
        rows.append(row)
        copies.append(net.parameters.copy())
        if len(rows) == 2:
            trainer.optimizer.learning_rate = 1e30

    trainer.callbacks.append(watch)
    with pytest.raises(DivergenceError, match=r"epoch 3, step \d+: .* of epoch 2 were restored"):
        trainer.run()
    np.testing.assert_array_equal(net.parameters, copies[2])
    assert np.isfinite(net.parameters).all()


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
    np.testing.assert_array_equal(net.parameters, copies[1])


def test_a_callback_can_end_the_training():
    _, trainer = make(epochs=30, callbacks=[lambda row: row["epoch"] == 2])
    assert len(trainer.run().epochs) == 2


def test_learning_rate_follows_the_schedule():
    _, trainer = make(epochs=4, schedule="cosine")
    rates = trainer.run()["learning_rate"]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] < 1e-3


@pytest.mark.parametrize(
    ("likelihood", "mean"),
    [(Gaussian(3.0), [0.5, -2.0]), (Bernoulli(), [0.2, 0.9]), (Multinomial(), [0.25, 0.75])],
)
def test_input_bias_starts_at_the_mean(likelihood, mean):
    net = dense_network([2, 3, 2], backward=likelihood, dtype="float64")
    net.parameters[: net.weight_count] = 0.0
    set_input_bias(net, np.array(mean))
    np.testing.assert_allclose(net.reversed.predict(np.eye(2)), [mean, mean], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch size must be at least 1, got 0"),
        ({"batch_size": 2.5}, "batch size must be a whole number, got 2.5"),
        ({"epochs": "3"}, "epochs must be a whole number, got '3'"),
        ({"patience": 2}, "early stopping needs an evaluation"),
        ({"noise": {"fwd": Noise("nem")}}, "no place for noise is called 'fwd'; there are forward"),
        ({"noise": {"target": Noise("none")}}, "no place for noise is called 'target'"),
        ({"noise": Noise("nem")}, r"noise is Noise\(.*expected a dict such as"),
        ({"noise": {"forward": "nem"}}, "noise of forward is 'nem'; expected a dict such as"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ArchitectureError, match=message):
        make(**options)


def test_a_network_and_samples_that_do_not_fit_are_told_apart_before_training():
    net = dense_network([6, 8, 3])
    with pytest.raises(ShapeError, match=r"have 5 values and its targets 3, but .* is 6 -> 3"):
        Trainer(net, reader_of(blobs(features=5), net))
    with pytest.raises(ShapeError, match=r"mean has shape \(5,\), but the network has 6 inputs"):
        set_input_bias(net, np.zeros(5))


# -- metrics -------------------------------------------------------------------------------------


def test_scores_are_those_of_plain_arithmetic():
    split = blobs(50)
    net = dense_network(
        [6, 5, 3], forward=Multinomial(weight=0.5), backward=Gaussian(2.0), dtype="float64"
    )
    scores = evaluate(net, reader_of(split, net), class_means(split, Scaling(), 3), batch_size=7)
    p = net.predict(split.x)
    images = net.reversed.predict(np.eye(3))
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
    assert centroid_error(net, images) == pytest.approx(0, abs=1e-12)


def test_regression_scores():
    generator = np.random.default_rng(3)
    split = Split(generator.normal(size=(40, 4)), generator.normal(size=(40, 2)))
    net = dense_network([4, 5, 2], forward=Gaussian(), backward=Gaussian(), dtype="float64")
    scores = evaluate(net, reader_of(split, net), batch_size=16)
    residual = split.y - net.predict(split.x)
    mse = (residual**2).mean()
    assert scores["forward/mean_squared_error"] == pytest.approx(mse)
    assert scores["forward/r2"] == pytest.approx(1 - mse / split.y.var(axis=0).mean())
    assert scores["backward/nll"] == pytest.approx(
        -net.reversed.log_likelihood(split.y, split.x).mean()
    )


def test_digits_are_learned_in_both_directions():
    """Three seeds; the chance of a false alarm is nil beside the margin (0.94 against 0.97)."""
    digits = load("digits")
    means = class_means(digits.train, digits.x_scaling, 10)
    for seed in range(3):
        net = dense_network([64, 64, 10], backward=Gaussian(1 / 0.3), seed=seed)
        set_input_bias(net, feature_means(digits.train, digits.x_scaling))
        train, test = (
            BatchReader(split, digits.x_scaling, digits.y_scaling, 10, net.backend, net.dtype)
            for split in (digits.train, digits.test)
        )
        Trainer(net, train, epochs=30, batch_size=32, seed=seed).run()
        scores = evaluate(net, test, means)
        assert scores["forward/accuracy"] > 0.94
        assert scores["backward/centroid_error"] < 0.1


def test_centroid_error_of_a_class_at_the_origin_is_undefined():
    net = dense_network([6, 3])
    centroids = np.ones((3, 6))
    centroids[1] = 0.0
    assert np.isnan(centroid_error(net, centroids))


def test_a_history_fits_a_line_of_a_notebook():
    _, trainer = make(epochs=2)
    assert repr(trainer.run()).startswith("History(2 epochs of epoch, learning_rate, seconds, ")
    assert len(repr(trainer.history)) < 200
