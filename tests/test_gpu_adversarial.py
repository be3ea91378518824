"""Adversarial training on a GPU: captured iterations are the called ones. (The CPU's, says a law.)

What the host has to do is counted on the stand-in for CuPy.
"""

from __future__ import annotations

from typing import Any

import fake_cupy
import numpy as np
import pytest
from devices import REAL, gpu, needs_kernels
from engines import assert_close

from nembp.adversarial import AdversarialSettings
from nembp.adversarial.gradients import DiscriminatorGradient
from nembp.adversarial.trainer import AdversarialTrainer, random_batches
from nembp.architecture import generator_network, network
from nembp.backend import CupyBackend
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.likelihoods import Bernoulli, Score
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import SGD, Adam, RMSProp

pytestmark = needs_kernels
on_stand_in = pytest.mark.skipif(REAL, reason="counted on the stand-in")
SHAPE, KINDS = (4, 4, 1), ("vanilla", "minimax", "wasserstein", "wasserstein-gp")
PLACES = ("discriminator/forward", "discriminator/backward", "generator/backward",
          "discriminator/input")  # fmt: skip
ITERATIONS, ROWS = 9, 6  # two iterations are made call by call before the first is captured
Settings = AdversarialSettings


def samples(n: int = 26) -> Split:
    """Four batches an epoch, and a rest."""
    draw = np.random.default_rng(1)
    return Split(draw.integers(0, 255, (n, *SHAPE)).astype(np.uint8), draw.integers(0, 3, n))


def networks(device: Any, settings: Settings, layers: Any, dtype: str) -> tuple[Network, Network]:
    forward: Any = Score() if settings.has_critic else Bernoulli()
    if settings.classes:
        forward = "multinomial"
    outputs = settings.classes + 1
    back = "bernoulli" if settings.latent_law == "binary" else "gaussian"
    ends = {"forward": "bernoulli", "backward": back, "seed": 4, "device": device, "dtype": dtype}
    of_d = {"forward": forward, "backward": "gaussian", "device": device, "dtype": dtype, "seed": 5}
    if layers:
        g = generator_network(3, layers[0], SHAPE, activation="leaky-relu", **ends)
        return g, network(SHAPE, layers[1], outputs, activation="leaky-relu", **of_d)
    g = dense_network([3, 7, 16], activation="tanh", **ends)
    return g, dense_network([16, 7, 5, outputs], activation="tanh", **of_d)


def trainer_of(
    device: Any,
    settings: Settings | None = None,
    *,
    layers: Any = None,
    resident: bool | None = None,
    dtype: str = "float32",
    **options: Any,
) -> AdversarialTrainer:
    settings = settings or Settings()
    g, d = networks(device, settings, layers, dtype)
    scaling = Scaling(factor=1 / 255)
    reader = BatchReader(samples(), scaling, Scaling(), 3, g.backend, dtype, resident=resident)
    options = {
        "batch_size": ROWS, "iterations": ITERATIONS, "report_every": 4, "schedule": "cosine",
        "seed": 3, "optimizers": (Adam(0.01, beta1=0.5), RMSProp(0.01)),
    } | options  # fmt: skip
    return AdversarialTrainer(g, d, reader, settings, **options)


def outcome(trainer: AdversarialTrainer) -> list[np.ndarray]:
    """Train, and return what it leaves: parameters, statistics, the average, the record."""
    rows = trainer.run()
    scores = [v for row in rows for key, v in row.items() if key != "iterations_per_second"]
    nets = trainer.generator, trainer.discriminator, trainer.sampler
    parts = [part for net in nets for part in (net.parameters, net.statistics)]
    return [*(trainer.generator.backend.to_numpy(part) for part in parts), np.array(scores)]


GAME = Settings("vanilla", "both", critic_steps=2, averaging=0.5, weight_schedule="linear")
LOUD = {"discriminator/forward": Noise("nem", std=0.3), "discriminator/input": Noise("nem")}


@pytest.fixture
def device(monkeypatch):
    return fake_cupy.install(monkeypatch)


def are_equal(*outcomes: list[np.ndarray]) -> bool:
    return all(np.array_equal(*pair) for pair in zip(*outcomes, strict=True))


# -- captured and called ---------------------------------------------------------------------------
CONVOLUTIONS = {"layers": (("8bn", "reshape2x2x2", "up3x2s2bn", 9), ("conv4x3s2", "conv3x3bn", 6))}
GAMES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **{
        f"{kind} {ends}": (
            {}, {"kind": kind, "bidirectional": ends, "weight_schedule": "linear",
                 "averaging": 0.8, "clip": 0.3},
        )
        for kind, ends in (*((kind, "both") for kind in KINDS), ("wasserstein-gp", "none"))
    },
    "normalized": (CONVOLUTIONS, {"bidirectional": "both", "averaging": 0.5}),
    "normalized critic": (CONVOLUTIONS, {"kind": "wasserstein", "clip": 0.3}),
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
}  # fmt: skip
NOISES = (
    Noise("nem", std=0.5, decay=0.5),
    Noise("blind", std=0.5, clock="epoch", law="uniform"),
    Noise("anti", std=0.5, draws=3),
    Noise("drift", std=0.5),
)
for first, place in enumerate((*PLACES, "critic/input")):
    noise = NOISES[first % 4]
    GAMES[f"{noise.kind} at {place}"] = (
        {"noise": {place: noise}},
        {"kind": "wasserstein" if place == "critic/input" else "vanilla", "critic_steps": 2,
         "bidirectional": "both", "noise_schedule": "cosine" if noise.kind == "anti" else "power"},
    )  # fmt: skip


@pytest.mark.parametrize("name", list(GAMES))
def test_captured_iterations_give_the_same_numbers(name, monkeypatch):
    monkeypatch.setattr("nembp.engine.noise.DRIFT_DRAWS", 2)
    options, settings = GAMES[name]
    found = []
    for graphs in (True, False):
        trainer = trainer_of(gpu(), Settings(**settings), cuda_graphs=graphs, **options)
        found.append(outcome(trainer))
        assert trainer.captured == (trainer.iteration - 2 if graphs else 0)
        assert trainer.why_not_captured == (None if graphs else "switched off")
        steps = trainer.iteration, trainer.iteration * trainer.settings.steps
        assert tuple(optimizer.steps for optimizer in trainer.optimizers) == steps
    assert are_equal(*found)
    assert all(np.isfinite(each).all() for each in found[0])


def test_blocks_shorter_than_a_row_change_nothing(monkeypatch):
    whole = outcome(trainer_of(gpu(), Settings(critic_steps=2), report_every=9))
    monkeypatch.setattr("nembp.adversarial.trainer.LAID_OUT", 2 * 2 * ROWS)  # two iterations
    assert are_equal(whole, outcome(trainer_of(gpu(), Settings(critic_steps=2), report_every=9)))


def test_the_order_of_samples_goes_through_all_of_them_but_for_a_rest():
    order = random_batches(13, 4, np.random.default_rng(2))
    for _ in range(4):
        assert len(set(np.concatenate([next(order) for _ in range(3)]))) == 12


# -- what is not captured -----------------------------------------------------------------------------
@pytest.mark.parametrize("resident", [True, False])
def test_numbers_on_the_device_are_pythons(resident, monkeypatch):
    settings = Settings("vanilla", "both", weight_schedule="cosine", critic_steps=2)
    noise = dict.fromkeys(PLACES, Noise("blind", std=0.3, decay=0.5, clock="epoch"))
    options = {"noise": noise, "resident": resident, "dtype": "float64"}
    actual = trainer_of(gpu(), settings, **options)
    with monkeypatch.context() as patch:
        patch.setattr(CupyBackend, "has_kernel", lambda self, named: False)
        expected = trainer_of(gpu(), settings, **options)
    assert (actual.on_device, expected.on_device) == (True, False)
    for ours, theirs in zip(outcome(expected), outcome(actual), strict=True):
        assert_close(theirs, ours, 1e-9, 1.0)


def test_draws_of_the_host_and_optimizers_of_your_own_are_not_captured():
    class Own(SGD):
        def move(self, chunk: Any, eta: float, epsilon: float) -> None:
            super().move(chunk, eta, epsilon)

    assert not trainer_of(gpu(), host_noise=True).on_device
    own = trainer_of(gpu(), optimizers=(Own(0.1), SGD(0.1)))
    assert not own.on_device
    assert all(np.isfinite(each).all() for each in outcome(own))


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("on", ["cpu", "gpu"])
def test_a_run_goes_on_after_an_iteration_that_was_broken_off(on, resident, monkeypatch):
    """As by Ctrl-C: with samples and numbers for all turns to come, and finite."""
    options = {"resident": resident, "iterations": 20, "report_every": 9}
    trainer = trainer_of(gpu() if on == "gpu" else on, Settings(critic_steps=3), **options)
    calls, gradient = [], DiscriminatorGradient.__call__

    def breaks(self: DiscriminatorGradient, *args: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        gradient(self, *args)

    monkeypatch.setattr(DiscriminatorGradient, "__call__", breaks)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert trainer.iteration == 1
    assert all(np.isfinite(values).all() for values in outcome(trainer))
    assert trainer.iteration == 20


# -- what the host has to do -----------------------------------------------------------------------
@on_stand_in
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("resident", [True, False])
def test_an_iteration_copies_only_its_streamed_batches(device, graphs, resident):
    """Between rows, over epochs that end in between; and makes the same launches every time."""
    options = {"cuda_graphs": graphs, "resident": resident, "report_every": 30, "noise": LOUD}
    trainer = trainer_of(CupyBackend(), GAME, **options)
    for _ in range(3):  # the first lays out 30 iterations, and allocates
        trainer.step()
    counts, launches = [], []
    for _ in range(20):
        counts.append((device.waits, device.uploads) if resident else (0, device.uploads))
        device.launches.clear()
        trainer.step()
        launches.append(tuple(device.launches))
    # a batch a turn of D
    assert set(map(tuple, np.diff(counts, axis=0).tolist())) == {(0, 0 if resident else 2)}
    assert trainer.captured == (21 if graphs else 0)
    if not graphs:
        assert len(set(launches)) == 1
        assert launches[0].count("begin_step") == 2
        assert {"adam", "rmsprop", "fill_random", "draw_and_screen"} <= set(launches[0])


@on_stand_in
@pytest.mark.parametrize("copies_first", [True, False])
def test_streams_that_run_apart_give_the_same_numbers(device, copies_first):
    expected = outcome(trainer_of(CupyBackend(), GAME, resident=False))
    device.deferred, device.copies_first = True, copies_first
    assert are_equal(expected, outcome(trainer_of(CupyBackend(), GAME, resident=False)))
