"""What the host has to do with captured steps, and what a replay would get wrong.

On the stand-in for CuPy alone, which counts.
"""

from __future__ import annotations

from typing import Any

import fake_cupy
import numpy as np
import pytest
from devices import REAL, needs_kernels
from gpu_training_cases import EVERY_NOISE, NOISE, outcome, trainer_of

from nembp.backend import CupyBackend
from nembp.engine.noise import Noise
from nembp.engine.training import Trainer

pytestmark = [needs_kernels, pytest.mark.skipif(REAL, reason="counted on the stand-in")]


@pytest.fixture
def device(monkeypatch):
    return fake_cupy.install(monkeypatch)


@pytest.mark.parametrize("noise", EVERY_NOISE[:3], ids=range(3))
@pytest.mark.parametrize("graphs", [True, False])
def test_nothing_is_copied_or_waited_for_within_an_epoch(device, graphs, noise):
    trainer = trainer_of(CupyBackend(), noise=noise, cuda_graphs=graphs, epochs=9)
    trainer.run_epoch()
    counts, original = [], trainer.on_device.step

    def counted(*args: Any) -> None:
        counts.append((device.waits, device.uploads))
        original(*args)

    trainer.on_device.step = counted  # type: ignore[method-assign]
    trainer.run_epoch()
    counts.append((device.waits, device.uploads))
    assert len(counts) == 6
    # the last entry is taken after the epoch's own reading of its means
    assert len(set(counts[:-1])) == 1


def test_streamed_batches_are_copied_and_never_waited_for(device):
    trainer = trainer_of(CupyBackend(), resident=False, prefetch=False, noise=NOISE, epochs=9)
    trainer.run_epoch()
    waits, uploads, steps, original = [], [], [], trainer.on_device.step

    def counted(*args: Any) -> None:
        waits.append(device.waits)
        uploads.append(device.uploads)
        original(*args)

    trainer.on_device.step = counted  # type: ignore[method-assign]
    trainer.run_epoch()
    steps = np.diff(uploads).tolist()
    assert steps == [1, 1, 1, 1]  # a batch a step
    # staging waits, on its own thread where it has one, for the copy from its own buffer
    assert set(np.diff(waits).tolist()) == {1}


def test_every_step_makes_the_same_launches(device):
    """The condition for a replay: the same kernels in the same order, noise among them."""
    trainer = trainer_of(CupyBackend(), noise=NOISE, cuda_graphs=False, epochs=9)
    trainer.run_epoch()
    sequences, original = [], trainer.on_device.step

    def recorded(*args: Any) -> None:
        device.launches.clear()
        original(*args)
        sequences.append(tuple(device.launches))

    trainer.on_device.step = recorded  # type: ignore[method-assign]
    for _ in range(2):
        trainer.run_epoch()
    assert len(set(sequences)) == 1
    assert len(sequences) == 10
    assert {"begin_step", "draw_and_screen", "adam"} <= set(sequences[0])
    assert len(sequences[0]) < 40


@pytest.mark.parametrize("what", ["to_numpy", "matmul"])
def test_what_cannot_be_captured_is_made_call_by_call(device, what, monkeypatch):
    backend = CupyBackend()
    expected = outcome(trainer_of(backend))
    original = Trainer.record
    products = backend._cublas

    def reads(self: Trainer, joint: Any) -> None:
        original(self, joint)
        if what == "to_numpy":
            backend.to_numpy(joint.forward_nll)
        else:  # as with a matrix that cuBLAS does not take
            backend.into(joint.forward_nll, backend.xp.matmul, joint.forward_nll, joint.forward_nll)

    monkeypatch.setattr(Trainer, "record", reads)
    trainer = trainer_of(backend)
    assert np.array_equal(outcome(trainer)[0], expected[0])
    assert trainer.on_device is not None
    assert trainer.on_device.replay.captured == 0
    assert "a step cannot be captured (cudaErrorStreamCapture" in str(
        trainer.on_device.replay.reason
    )
    assert products is backend._cublas


@pytest.mark.parametrize("bug", ["rate", "samples", "deviation", "draws"])
def test_a_number_that_does_not_change_with_the_step_is_caught(device, bug, monkeypatch):
    """Plant what a replay would get wrong, and see the comparison of both paths fail."""
    noise = {"forward": Noise("blind", std=0.3)}
    backend = CupyBackend()
    options = {"noise": noise, "schedule": "cosine"}
    expected = outcome(trainer_of(backend, cuda_graphs=False, **options))
    if bug == "rate":  # by value: that of the captured step
        monkeypatch.setattr(
            "nembp.engine.optimizers.Optimizer.apply",
            lambda self, numbers: self._move(None, self.numbers(self.steps, 1 - self.steps / 20)),
        )
    elif bug == "samples":
        begin = CupyBackend.begin_step

        def always_the_first(self: CupyBackend, step: Any, *args: Any) -> None:
            step[...] = 0
            begin(self, step, *args)

        monkeypatch.setattr(CupyBackend, "begin_step", always_the_first)
    elif bug == "deviation":
        monkeypatch.setattr("nembp.engine.training.StepsOnDevice._joint", _joint_without_deviations)
    else:
        screen = CupyBackend.draw_and_screen

        def always_the_first_call(self: CupyBackend, source: Any, *args: Any) -> bool:
            source.generator.state[1:] = 0
            return screen(self, source, *args)

        monkeypatch.setattr(CupyBackend, "draw_and_screen", always_the_first_call)
    assert not np.array_equal(outcome(trainer_of(backend, **options))[0], expected[0])


def _joint_without_deviations(self: Any, rows: int) -> Any:
    return self._trainer.joint(rows)
