"""What the host has to do with a captured game, and what a replay would get wrong.

On the stand-in for CuPy alone, which counts.
"""

from __future__ import annotations

from typing import Any

import fake_cupy
import numpy as np
import pytest
from devices import REAL, needs_kernels
from game_cases import PLACES, ROWS, Settings, outcome, trainer_of

from nembp.adversarial.on_device import IterationsOnDevice
from nembp.adversarial.order import SampleOrder
from nembp.adversarial.players import DiscriminatorPlayer, GeneratorPlayer
from nembp.adversarial.turns import Turns
from nembp.backend import CupyBackend
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Adam

pytestmark = [needs_kernels, pytest.mark.skipif(REAL, reason="counted on the stand-in")]
GAME = Settings("vanilla", "both", critic_steps=2, averaging=0.5, weight_schedule="linear")
LOUD = {"discriminator/forward": Noise("nem", std=0.3), "discriminator/input": Noise("nem")}


@pytest.fixture
def device(monkeypatch):
    return fake_cupy.install(monkeypatch)


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


@pytest.mark.parametrize("copies_first", [True, False])
def test_streams_that_run_apart_give_the_same_numbers(device, copies_first):
    expected = outcome(trainer_of(CupyBackend(), GAME, resident=False))
    device.deferred, device.copies_first = True, copies_first
    for ours, theirs in zip(
        expected, outcome(trainer_of(CupyBackend(), GAME, resident=False)), strict=True
    ):
        assert np.array_equal(ours, theirs)


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


@pytest.mark.parametrize("bug", list(BUGS))
def test_a_number_that_stays_is_caught(device, bug, monkeypatch):
    backend = CupyBackend()
    expected = outcome(trainer_of(backend, GAME, cuda_graphs=False, schedule="constant"))
    monkeypatch.setattr(*BUGS[bug])
    actual = outcome(trainer_of(backend, GAME, schedule="constant"))
    assert not all(np.array_equal(a, b) for a, b in zip(actual, expected, strict=True))


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
