"""Resuming: a training that was interrupted anywhere equals one that was not, bit for bit."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adversarial_cases import trainer_of
from devices import gpu, needs_kernels
from hypothesis import given, settings
from hypothesis import strategies as st

from nembp.adversarial import AdversarialSettings
from nembp.architecture import network
from nembp.checkpoints import load_checkpoint, save_checkpoint
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import Augmentation, BatchReader
from nembp.engine.likelihoods import Gaussian
from nembp.engine.metrics import evaluate
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import OPTIMIZERS
from nembp.engine.training import Trainer
from nembp.errors import DivergenceError

TIMES = ("seconds", "samples_per_second", "iterations_per_second")


class Stop(Exception):
    """Ends a training between two steps."""


class After:
    """Stops a training after so many moments between steps."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, moment: str) -> None:
        self.count -= 1
        if self.count < 0:
            raise Stop


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.npz")
        save_checkpoint(path, {}, state)
        return load_checkpoint(path)[1]


def finish(make: Any, stops: list[int]) -> Any:
    """Return a trainer at its end that was stopped after so many moments, each time made anew."""
    state = None
    for count in [*stops, 1 << 40]:
        trainer = make(After(count))
        if state is not None:
            trainer.resume(state)
        try:
            trainer.run()
        except Stop:
            state = through_a_file(trainer.state())
        except DivergenceError:
            return trainer
        else:
            return trainer
    raise AssertionError


def timeless(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: row[key] for key in row if key not in TIMES} for row in rows]


STOPS = st.lists(st.integers(0, 25), min_size=1, max_size=3)


@st.composite
def trainings(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the options of a training of few steps on small images."""
    layers = draw(st.sampled_from([(5,), ("6bn", 4), ("conv3x3s2", 5), ("conv3x3bn", "pool2")]))
    backward = draw(st.sampled_from([True, True, False]))
    single = backward and draw(st.booleans())
    places = ["forward", "forward/hidden", *(["backward"] if backward else [])]
    noise = draw(st.sampled_from([None, *places, *(["backward/hidden"] if single else [])]))
    kind = draw(st.sampled_from(["nem", "blind", "anti", "drift"]))
    if noise is not None and "/" in noise and kind == "drift":
        kind = "nem"
    return {
        "layers": layers,
        "augmented": draw(st.booleans()),
        "noise": {} if noise is None else {noise: Noise(kind, 0.2, decay=0.7)},
        "options": {
            "backward": backward,
            "optimizer": draw(st.sampled_from(sorted(OPTIMIZERS))),
            "schedule": draw(st.sampled_from(["cosine", "constant", "step"])),
            "batch_size": draw(st.sampled_from([8, 13])),
            "prefetch": draw(st.booleans()),
            "shuffle": draw(st.booleans()),
            "patience": draw(st.sampled_from([None, 1, 2])),
            "l2": draw(st.sampled_from([0.0, 0.1])),
            "sample_weight": draw(st.sampled_from([None, np.linspace(0.5, 1.5, 30)])),
        },
        "dtype": draw(st.sampled_from(["float32", "float64"])),
        "seed": draw(st.integers(0, 99)),
    }


def anything(net: Network) -> float:
    """Return a score that goes up and down."""
    return float(1e5 * abs(float(np.sum(net.parameters, dtype=np.float64))) % 1.0)


def make_trainer(case: dict[str, Any], between: Any, rate: float = 1.0) -> Trainer:
    generator = np.random.default_rng(case["seed"])
    split = Split(generator.random((30, 6, 6, 1)), np.arange(30) % 3)
    dtype, seed = case["dtype"], case["seed"]
    ends = {"backward": Gaussian(10.0), "dtype": dtype, "seed": seed}
    net = network((6, 6, 1), case["layers"], 3, activation="relu", forward="multinomial", **ends)
    data = split, Scaling(), Scaling(), 3, net.backend, net.dtype
    crops = Augmentation(flip=True, crop=1) if case["augmented"] else None
    trainer = Trainer(
        net,
        BatchReader(*data, augmentation=crops, seed=seed),
        epochs=6,
        noise=case["noise"],
        seed=seed,
        evaluate=lambda net: evaluate(net, BatchReader(*data)) | {"any": anything(net)},
        monitor="any",
        between=between,
        **case["options"],
    )
    trainer.optimizer.learning_rate *= rate
    return trainer


@settings(max_examples=40, deadline=None)
@given(trainings(), STOPS)
def test_a_training_interrupted_anywhere_equals_one_that_was_not(case, stops):
    whole, parts = (finish(lambda b: make_trainer(case, b), each) for each in ([], stops))
    for found, expected in zip(parts.net.snapshot(), whole.net.snapshot(), strict=True):
        assert found.tobytes() == expected.tobytes()
    assert timeless(parts.history.epochs) == timeless(whole.history.epochs)
    for key in ("best_epoch", "stopped_early"):
        assert getattr(parts.history, key) == getattr(whole.history, key)
    assert through_a_file(parts.state())["noise"] == whole.state()["noise"]


def test_one_that_diverges_ends_the_same_too():
    case = {
        "layers": (8,), "augmented": False, "noise": {}, "dtype": "float32", "seed": 1,
        "options": {"optimizer": "sgd", "batch_size": 8, "schedule": "constant"},
    }  # fmt: skip
    ends = []
    for stops in ([], [2], [6]):
        trainer = finish(lambda b: make_trainer(case, b, rate=1e6), stops)
        assert len(trainer.history.epochs) < 6
        ends.append(trainer.net.parameters.tobytes())
    assert len(set(ends)) == 1


def test_a_trainer_that_was_stopped_goes_on_by_itself():
    case = {
        "layers": (8,), "augmented": True, "noise": {"forward": Noise("nem")}, "dtype": "float64",
        "seed": 2, "options": {"batch_size": 7, "prefetch": True},
    }  # fmt: skip
    whole = finish(lambda b: make_trainer(case, b), [])
    trainer = make_trainer(case, After(8))
    with pytest.raises(Stop):
        trainer.run()
    trainer.between = None
    trainer.run()
    assert trainer.net.parameters.tobytes() == whole.net.parameters.tobytes()


@st.composite
def games(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["vanilla", "minimax", "wasserstein", "wasserstein-gp"]))
    critic = kind.startswith("wasserstein")
    way = draw(st.sampled_from(["none", "generator", "discriminator", "both"]))
    places = ["critic/input"] if critic else ["discriminator/forward", "discriminator/input"]
    places += ["generator/backward"] if way in ("generator", "both") else []
    noise = draw(st.sampled_from([None, *places]))
    return {
        "settings": AdversarialSettings(
            kind=kind,
            bidirectional=way,
            averaging=draw(st.sampled_from([0.0, 0.9])),
            critic_steps=draw(st.integers(1, 2)) if critic else 1,
            backward_permuted=way != "none" and draw(st.booleans()),
        ),
        "noise": None if noise is None else {noise: Noise("nem", 0.2, decay=0.5)},
        "report_every": draw(st.sampled_from([5, 7])),
        "schedule": draw(st.sampled_from(["constant", "cosine"])),
        "batch_size": draw(st.sampled_from([32, 1500])),
        "seed": draw(st.integers(0, 99)),
    }


@settings(max_examples=30, deadline=None)
@given(games(), STOPS)
def test_an_adversarial_training_interrupted_anywhere_equals_one_that_was_not(game, stops):
    def make(between: Any) -> Any:
        return trainer_of(**game, hidden=(6,), iterations=17, between=between)

    whole, parts = finish(make, []), finish(make, stops)
    for name in ("generator", "discriminator"):
        nets = getattr(parts, name), getattr(whole, name)
        assert nets[0].parameters.tobytes() == nets[1].parameters.tobytes()
    assert parts.sample(5).tobytes() == whole.sample(5).tobytes()
    assert timeless(parts.history.rows) == timeless(whole.history.rows)


@needs_kernels
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("resident", [True, False])
def test_streams_and_graphs_of_a_device_go_on(graphs, resident):
    def make(between: Any) -> Trainer:
        generator = np.random.default_rng(0)
        split = Split(generator.normal(size=(50, 6)).astype(np.float32), np.arange(50) % 3)
        net = dense_network([6, 5, 3], backward=Gaussian(10.0), device=gpu(), seed=1)
        reader = BatchReader(
            split, Scaling(), Scaling(), 3, net.backend, net.dtype, resident=resident
        )
        noise = {"forward": Noise("nem"), "backward": Noise("blind")}
        options = {"noise": noise, "cuda_graphs": graphs, "batch_size": 12, "between": between}
        return Trainer(net, reader, epochs=3, **options)

    ends = [finish(make, stops) for stops in ([], [0], [4, 1], [11])]
    assert ends[0].on_device
    for end in ends[1:]:
        for found, expected in zip(end.net.snapshot(), ends[0].net.snapshot(), strict=True):
            assert found.tobytes() == expected.tobytes()
        assert timeless(end.history.epochs) == timeless(ends[0].history.epochs)


@needs_kernels
def test_an_adversarial_training_of_a_device_goes_on():
    def make(between: Any) -> Any:
        options = {"device": gpu(), "noise": {"discriminator/forward": Noise("nem")}}
        return trainer_of(hidden=(6,), iterations=17, between=between, **options)

    whole, parts = finish(make, []), finish(make, [5, 9])
    for end in (whole, parts):
        assert end.on_device
    assert parts.sample(5).tobytes() == whole.sample(5).tobytes()
    assert timeless(parts.history.rows) == timeless(whole.history.rows)
