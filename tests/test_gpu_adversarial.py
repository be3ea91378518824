"""Adversarial training on a GPU: captured iterations are the called ones, and the CPU's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from devices import gpu, needs_kernels
from game_cases import KINDS, PLACES, ROWS, Settings, outcome, trainer_of
from near import assert_near

from nembp.adversarial.order import SampleOrder
from nembp.adversarial.turns import Turns
from nembp.backend import CupyBackend
from nembp.engine.noise import Noise
from nembp.engine.optimizers import SGD
from nembp.errors import DivergenceError

pytestmark = needs_kernels
DISCRIMINATE = Turns.discriminate


def both_ways(device: Any = None, *args: Any, **options: Any) -> None:
    """Assert that captured iterations are made, and are the called ones bit for bit."""
    ends = []
    for graphs in (True, False):
        trainer = trainer_of(device or gpu(), *args, cuda_graphs=graphs, **options)
        ends.append(outcome(trainer))
        assert trainer.on_device is not None
        replay = trainer.on_device.replay
        assert replay.captured == (trainer.iteration - 2 if graphs else 0), replay.reason
        assert replay.reason == (None if graphs else "switched off")
        steps = trainer.iteration, trainer.iteration * trainer.settings.steps
        assert tuple(optimizer.steps for optimizer in trainer.optimizers) == steps
    for captured, called in zip(*ends, strict=True):
        assert np.array_equal(captured, called)
        assert np.isfinite(captured).all()


# -- captured and called ---------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", ["none", "both"])
def test_every_kind_is_captured(kind, bidirectional):
    settings = Settings(kind, bidirectional, weight_schedule="linear", averaging=0.8, clip=0.3)
    both_ways(None, settings)


CONVOLUTIONS = (("8bn", "reshape2x2x2", "up3x2s2bn", 9), ("conv4x3s2", "conv3x3bn", 6))
SETTINGS = {
    "normalized": ({"layers": CONVOLUTIONS}, {"bidirectional": "both", "averaging": 0.5}),
    "normalized critic": ({"layers": CONVOLUTIONS}, {"kind": "wasserstein", "clip": 0.3}),
    "codes": ({}, {"bidirectional": "both", "latent_law": "binary", "backward_flow": True}),
    "classes": ({}, {"bidirectional": "both", "classes": 3, "weight_schedule": "cosine"}),
    "permuted": ({}, {"bidirectional": "both", "backward_permuted": True, "latent_std": 2.0}),
    "both labels": ({}, {"bidirectional": "discriminator", "backward_labels": "both"}),
    "double precision": ({"dtype": "float64"}, {"bidirectional": "both", "averaging": 0.9}),
    "streamed": ({"resident": False}, {"bidirectional": "both", "critic_steps": 3}),
    "streamed classes": ({"resident": False}, {"classes": 3, "critic_steps": 2}),
    "a row an iteration": ({"report_every": 1}, {"critic_steps": 3}),
    "a row at the end": ({"report_every": 99}, {"critic_steps": 3}),
    "other optimizers": ({"optimizers": (SGD(0.1), SGD(0.2, 0.1)), "schedule": "step"}, {}),
}


@pytest.mark.parametrize("name", list(SETTINGS))
def test_every_setting_is_captured(name):
    options, settings = SETTINGS[name]
    both_ways(None, Settings(**settings), **options)


@pytest.mark.parametrize("place", [*PLACES, "critic/input"])
@pytest.mark.parametrize(
    "noise",
    [
        Noise("nem", std=0.5, decay=0.5),
        Noise("blind", std=0.5, clock="epoch", law="uniform"),
        Noise("anti", std=0.5, draws=3),
        Noise("drift", std=0.5),
    ],
    ids=lambda noise: noise.kind,
)
def test_noise_of_every_place_is_captured(place, noise, monkeypatch):
    monkeypatch.setattr("nembp.engine.noise.DRIFT_DRAWS", 2)
    kind = "wasserstein" if place == "critic/input" else "vanilla"
    schedule = "cosine" if noise.kind == "anti" else "power"
    settings = Settings(kind, "both", noise_schedule=schedule, critic_steps=2)
    both_ways(None, settings, noise={place: noise})


def test_blocks_shorter_than_a_row_change_nothing(monkeypatch):
    whole = outcome(trainer_of(gpu(), Settings(critic_steps=2), report_every=9))
    monkeypatch.setattr("nembp.adversarial.trainer.LAID_OUT", 2 * 2 * ROWS)  # two iterations
    parted = outcome(trainer_of(gpu(), Settings(critic_steps=2), report_every=9))
    for a, b in zip(whole, parted, strict=True):
        assert np.array_equal(a, b)


def test_the_order_of_samples_does_not_depend_on_how_much_is_taken_at_once():
    orders = [SampleOrder(13, 4, np.random.default_rng(2)) for _ in range(2)]
    parts = np.concatenate([orders[0].take(batches) for batches in (1, 5, 2, 4)])
    assert np.array_equal(parts, orders[1].take(12))
    for epoch in range(4):
        assert len(set(parts[12 * epoch : 12 * (epoch + 1)])) == 12


# -- the CPU's numbers -----------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resident", [True, False])
def test_whole_runs_agree_with_the_cpu(kind, resident):
    settings = Settings(kind, "both", weight_schedule="cosine", averaging=0.8, clip=0.3)
    options = {"resident": resident, "dtype": "float64", "host_noise": True}
    expected, actual = (outcome(trainer_of(d, settings, **options)) for d in ("cpu", gpu()))
    for ours, theirs in zip(expected, actual, strict=True):
        assert_near(theirs, ours, 1e-9, "a run", scale=1.0)


@pytest.mark.parametrize("resident", [True, False])
def test_numbers_on_the_device_are_pythons(resident, monkeypatch):
    """Draws of the device for both: those of Python's numbers were there before graphs were."""
    settings = Settings("vanilla", "both", weight_schedule="cosine", critic_steps=2)
    noise = dict.fromkeys(PLACES, Noise("blind", std=0.3, decay=0.5, clock="epoch"))
    options = {"noise": noise, "resident": resident, "dtype": "float64"}
    actual = trainer_of(gpu(), settings, **options)
    monkeypatch.setattr(CupyBackend, "has_graphs", False)
    expected = trainer_of(gpu(), settings, **options)
    assert (actual.on_device is None, expected.on_device is None) == (False, True)
    for ours, theirs in zip(outcome(expected), outcome(actual), strict=True):
        assert_near(theirs, ours, 1e-9, "a run", scale=1.0)


def test_draws_of_the_host_and_optimizers_of_your_own_are_not_captured():
    class Own(SGD):
        def _update(self, chunk: Any, eta: float) -> None:
            super()._update(chunk, eta)

    assert trainer_of("cpu").on_device is None
    assert trainer_of(gpu(), host_noise=True).on_device is None
    own = trainer_of(gpu(), optimizers=(Own(0.1), SGD(0.1)))
    assert own.on_device is None
    theirs = outcome(trainer_of(gpu(), optimizers=(SGD(0.1), SGD(0.1))))
    for a, b in zip(outcome(own), theirs, strict=True):
        assert_near(b, a, 1e-5, "a run", scale=1.0)


def test_divergence_is_found_and_undone():
    steep = SGD(1e30), SGD(1e30)
    trainer = trainer_of(gpu(), layers=((8,), (8,)), optimizers=steep, iterations=40)
    with pytest.raises(DivergenceError, match="were restored"):
        trainer.run()
    for net in (trainer.generator, trainer.discriminator):
        assert np.isfinite(gpu().to_numpy(net.parameters)).all()


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("resident", [True, False])
def test_a_run_goes_on_after_an_iteration_that_was_broken_off(device, resident, monkeypatch):
    """As by Ctrl-C: with samples and numbers for all turns to come, and finite."""
    on = gpu() if device == "gpu" else device
    options = {"resident": resident, "iterations": 20, "report_every": 9}
    trainer = trainer_of(on, Settings(critic_steps=3), **options)
    calls = []

    def breaks(self: Turns, numbers: Any) -> None:
        calls.append(numbers)
        if len(calls) == 2:
            raise KeyboardInterrupt
        DISCRIMINATE(self, numbers)

    monkeypatch.setattr(Turns, "discriminate", breaks)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert trainer.iteration == 1
    outcomes = outcome(trainer)
    assert trainer.iteration == 20
    assert all(np.isfinite(values).all() for values in outcomes)
