"""Adversarial training on a GPU: captured iterations are the called ones, nothing is waited for."""

from __future__ import annotations

from typing import Any

import fake_cupy
import numpy as np
import pytest
from devices import REAL, gpu, needs_kernels
from near import assert_near

from nembp.adversarial import AdversarialSettings, AdversarialTrainer, Score
from nembp.adversarial.on_device import IterationsOnDevice
from nembp.adversarial.order import SampleOrder
from nembp.adversarial.players import DiscriminatorPlayer, GeneratorPlayer
from nembp.adversarial.turns import Turns
from nembp.architectures import generator_network, network
from nembp.backend import CupyBackend
from nembp.batches import BatchReader
from nembp.datasets import Scaling, Split
from nembp.errors import DivergenceError
from nembp.likelihoods import Bernoulli
from nembp.network import Network, dense_network
from nembp.noise import Noise
from nembp.optimizers import SGD, Adam, RMSProp

pytestmark = needs_kernels

SHAPE, KINDS = (4, 4, 1), ("vanilla", "minimax", "wasserstein", "wasserstein-gp")
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
    rows = trainer.run().rows
    scores = [v for row in rows for key, v in row.items() if key != "iterations_per_second"]
    nets = trainer.generator, trainer.discriminator, trainer.sampler
    parts = [part for net in nets for part in (net.parameters, net.statistics)]
    return [*(trainer.generator.backend.to_numpy(part) for part in parts), np.array(scores)]


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


PLACES = ("discriminator/forward", "discriminator/backward", "generator/backward",
          "discriminator/input")  # fmt: skip


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
    monkeypatch.setattr("nembp.noise.DRIFT_DRAWS", 2)
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


DISCRIMINATE = Turns.discriminate


# -- what the host has to do with it: on the stand-in, which counts --------------------------------
only_counted = pytest.mark.skipif(REAL, reason="counted on the stand-in")
GAME = Settings("vanilla", "both", critic_steps=2, averaging=0.5, weight_schedule="linear")
LOUD = {"discriminator/forward": Noise("nem", std=0.3), "discriminator/input": Noise("nem")}


@pytest.fixture
def device(monkeypatch):
    return fake_cupy.install(monkeypatch)


@only_counted
@pytest.mark.parametrize("graphs", [True, False])
def test_nothing_is_copied_or_waited_for_between_rows(device, graphs):
    """Over epochs that end in between."""
    trainer = trainer_of(CupyBackend(), GAME, noise=LOUD, cuda_graphs=graphs, report_every=30)
    trainer.step()  # lays out 30 iterations, and allocates
    counts = []
    for _ in range(20):
        counts.append((device.waits, device.uploads))
        trainer.step()
    assert len(set(counts)) == 1


@only_counted
def test_streamed_batches_are_copied_and_only_their_buffers_waited_for(device):
    trainer = trainer_of(CupyBackend(), GAME, noise=LOUD, resident=False, report_every=30)
    for _ in range(3):
        trainer.step()
    counts = []
    for _ in range(8):
        counts.append(device.uploads)
        trainer.step()
    assert set(np.diff(counts).tolist()) == {2}  # a batch a turn of D
    assert trainer.on_device is not None
    assert trainer.on_device.replay.captured == 9


@only_counted
@pytest.mark.parametrize("copies_first", [True, False])
def test_streams_that_run_apart_give_the_same_numbers(device, copies_first):
    expected = outcome(trainer_of(CupyBackend(), GAME, resident=False))
    device.deferred, device.copies_first = True, copies_first
    for ours, theirs in zip(
        expected, outcome(trainer_of(CupyBackend(), GAME, resident=False)), strict=True
    ):
        assert np.array_equal(ours, theirs)


@only_counted
def test_what_cannot_be_captured_is_made_call_by_call(device, monkeypatch):
    backend, original = CupyBackend(), Turns._record
    expected = outcome(trainer_of(backend, GAME))

    def reads(self: Turns) -> None:
        original(self)
        backend.to_numpy(self.g.forward_nll)

    monkeypatch.setattr(Turns, "_record", reads)
    trainer = trainer_of(backend, GAME)
    for ours, theirs in zip(expected, outcome(trainer), strict=True):
        assert np.array_equal(ours, theirs)
    assert trainer.on_device is not None
    assert trainer.on_device.replay.captured == 0
    assert "a step cannot be captured (cudaErrorStreamCapture" in str(
        trainer.on_device.replay.reason
    )


@only_counted
def test_an_iteration_makes_the_same_launches_over_and_over(device):
    """The condition for a replay."""
    trainer = trainer_of(CupyBackend(), GAME, noise=LOUD, cuda_graphs=False, report_every=30)
    trainer.step()
    sequences = []
    for _ in range(6):
        device.launches.clear()
        trainer.step()
        sequences.append(tuple(device.launches))
    assert len(set(sequences)) == 1
    assert sequences[0].count("begin_step") == 2
    assert {"adam", "rmsprop", "fill_random", "draw_and_screen"} <= set(sequences[0])


# -- what a replay would get wrong, planted --------------------------------------------------------
BEGIN, NORMAL = CupyBackend.begin_step, CupyBackend.normal
LAY_OUT, ADAM = IterationsOnDevice.lay_out, Adam.numbers


def _always_the_first_row(self: CupyBackend, step: Any, *args: Any) -> None:
    step[...] = 0
    BEGIN(self, step, *args)


def _always_the_first_draw(self: CupyBackend, generator: Any, out: Any) -> Any:
    generator.state[1:] = 0
    return NORMAL(self, generator, out)


BUGS: dict[str, tuple[type, str, Any]] = {
    "samples and numbers": (CupyBackend, "begin_step", _always_the_first_row),
    "z": (CupyBackend, "normal", _always_the_first_draw),
    "factors and courses": (
        IterationsOnDevice, "lay_out",
        lambda self, order, numbers: LAY_OUT(self, order, [numbers[0]] * len(numbers)),
    ),
    "bias corrections": (Adam, "numbers", lambda self, step, factor: ADAM(self, 1, factor)),
    "course of D's weight": (DiscriminatorPlayer, "follow", lambda self, course: None),
    "course of G's weight": (GeneratorPlayer, "follow", lambda self, course: None),
    "order": (
        SampleOrder, "take", lambda self, batches: np.resize(np.arange(ROWS), batches * ROWS),
    ),
}  # fmt: skip


@only_counted
@pytest.mark.parametrize("bug", list(BUGS))
def test_a_number_that_stays_is_caught(device, bug, monkeypatch):
    backend = CupyBackend()
    expected = outcome(trainer_of(backend, GAME, cuda_graphs=False, schedule="constant"))
    monkeypatch.setattr(*BUGS[bug])
    actual = outcome(trainer_of(backend, GAME, schedule="constant"))
    assert not all(np.array_equal(a, b) for a, b in zip(actual, expected, strict=True))


@only_counted
@pytest.mark.parametrize("source", range(6))
def test_a_deviation_that_stays_is_caught(device, source, monkeypatch):
    """Each source of noise by itself, those among them that are on nobody's record."""
    backend, noise = CupyBackend(), dict.fromkeys(PLACES, Noise("blind", std=0.3))
    expected = outcome(trainer_of(backend, GAME, noise=noise, cuda_graphs=False))
    trainer = trainer_of(backend, GAME, noise=noise)
    assert trainer.on_device is not None
    sources = trainer.on_device._sources
    assert len(sources) == 5
    if source < 5:
        sources[source].deviation = None
    ends = zip(outcome(trainer), expected, strict=True)
    assert all(np.array_equal(a, b) for a, b in ends) == (source == 5)
