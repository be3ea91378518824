"""Training on a GPU: the CPU's numbers, and graphs change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from devices import REAL, gpu, needs_kernels
from gpu_training_cases import (
    CLASSES,
    EVERY_NOISE,
    NOISE,
    image_network,
    outcome,
    targets,
    trainer_of,
)
from near import assert_near

from nembp.backend import CupyBackend
from nembp.datasets.reading import Augmentation
from nembp.engine.noise import Noise
from nembp.engine.optimizers import OPTIMIZERS, SGD
from nembp.errors import DivergenceError

pytestmark = needs_kernels


# -- the CPU's numbers -----------------------------------------------------------------------------
RUNS = [
    (CLASSES, {}),
    (("multinomial", "bernoulli"), {"optimizer": "rmsprop", "noise": NOISE}),
    (CLASSES, {"optimizer": "momentum", "noise": NOISE, "schedule": "step"}),
    (CLASSES, {"backward": False, "optimizer": "sgd"}),
    (("gaussian", "gaussian"), {"noise": NOISE}),
    (("gaussian", "bernoulli"), {"noise": {"forward/hidden": Noise("nem", std=0.1)}}),
    (("bernoulli", "gaussian"), {"data": targets(), "noise": {"backward": Noise("drift")}}),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-4), ("float64", 1e-11)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "leaky-relu"])
@pytest.mark.parametrize("run", range(len(RUNS)))
def test_whole_runs_agree_with_the_cpu(run, activation, dtype, tolerance):
    ends, options = RUNS[run]
    if "forward/hidden" in options.get("noise", {}) and dtype == "float32":
        tolerance = 0.01  # rounding decides about noise on units that are off, whose gain is 0
    if REAL:  # whose products and functions round differently: some draws are screened differently
        tolerance *= 20
    options = options | {"dtype": dtype, "activation": activation, "host_noise": True}
    expected = outcome(trainer_of("cpu", ends, **options))
    actual = outcome(trainer_of(gpu(), ends, **options))
    for ours, theirs, what in zip(expected, actual, ("parameters", "scores"), strict=True):
        assert_near(theirs, ours, tolerance, what, scale=1.0)


@pytest.mark.parametrize(
    "layers",
    [
        ("conv4x3s2", 6),
        ("conv4x3", "pool2", 6),
        ("reshape2x2x4", "up3x2s2", 5),
        ("conv4x3bn", "6bn"),
    ],
    ids=str,
)
def test_convolutions_agree_with_the_cpu(layers):
    ends = [outcome(trainer_of(d, net=image_network(d, layers))) for d in ("cpu", gpu())]
    for ours, theirs in zip(*ends, strict=True):
        assert_near(theirs, ours, 5e-3 if REAL else 2e-4, "a run", scale=1.0)


def test_windows_are_laid_out_in_blocks_that_fit(monkeypatch):
    expected = outcome(trainer_of(gpu(), net=image_network(gpu())))
    monkeypatch.setattr(CupyBackend, "column_bytes", 4 * 16 * 9 * 5)
    few = outcome(trainer_of(gpu(), net=image_network(gpu())))
    assert_near(few[0], expected[0], 1e-5, "parameters", scale=1.0)


# -- graphs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", EVERY_NOISE, ids=range(len(EVERY_NOISE)))
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_captured_steps_give_the_same_numbers(optimizer, noise):
    ends = []
    for graphs in (True, False):
        trainer = trainer_of(gpu(), optimizer=OPTIMIZERS[optimizer](None, 0.01), noise=noise,
                             cuda_graphs=graphs)  # fmt: skip
        ends.append(outcome(trainer))
        # 3 epochs of 4 batches of 12 and one of 2; two of each size are made call by call
        assert trainer.on_device is not None
        assert trainer.on_device.replay.captured == (10 + 1 if graphs else 0)
        assert (trainer.on_device.replay.reason is None) == graphs
        assert trainer.iteration == 15
        assert trainer.optimizer.steps == 15
    assert np.array_equal(ends[0][0], ends[1][0])
    assert np.array_equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize(
    "options",
    [
        {"resident": False},
        {"augmentation": Augmentation(flip=True, crop=1), "prefetch": True},
        {"ends": ("gaussian", "gaussian"), "resident": False, "prefetch": False},
        {"dtype": "float64", "noise": NOISE},
        {"backward": False},
        {"schedule": "step", "resident": False, "noise": NOISE},
    ],
    ids=str,
)
def test_captured_steps_of_every_source_of_batches(options):
    ends = [outcome(trainer_of(gpu(), cuda_graphs=graphs, **options)) for graphs in (True, False)]
    assert np.array_equal(ends[0][0], ends[1][0])
    assert np.array_equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize("layers", [("conv4x3", "pool2", 6), ("conv4x3bn", "6bn")], ids=str)
def test_captured_steps_of_convolutions(layers):
    ends = []
    for graphs in (True, False):
        net = image_network(gpu(), layers)
        trainer = trainer_of(gpu(), net=net, noise=NOISE, cuda_graphs=graphs)
        ends.append((*outcome(trainer), gpu().to_numpy(net.statistics)))
        assert trainer.on_device is not None
        assert (trainer.on_device.replay.captured > 0) == graphs, trainer.on_device.replay.reason
    for captured, plain in zip(*ends, strict=True):
        assert np.array_equal(captured, plain)


def test_streamed_batches_are_the_resident_ones():
    ends = [outcome(trainer_of(gpu(), resident=r, noise=NOISE)) for r in (True, False)]
    assert np.array_equal(ends[0][0], ends[1][0])


def test_device_noise_is_repeatable_and_seeded():
    ends = [outcome(trainer_of(gpu(), noise=NOISE, seed=seed))[0] for seed in (0, 0, 1)]
    assert np.array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], ends[2])


def test_an_optimizer_of_your_own_is_neither_captured_nor_broken():
    class Own(SGD):
        def _update(self, chunk, eta):
            super()._update(chunk, eta)

    trainer = trainer_of(gpu(), optimizer=Own(0.1))
    assert trainer.on_device is None
    expected = outcome(trainer_of("cpu", optimizer=SGD(0.1)))
    assert_near(outcome(trainer)[0], expected[0], 1e-5, "parameters", scale=1.0)


def test_a_step_by_itself_takes_any_samples():
    ends = []
    for device in ("cpu", gpu()):
        trainer = trainer_of(device)
        for index in ([3, 1, 4, 1, 5], [9, 2, 6, 5, 3]):
            trainer.step(trainer.net.backend.asarray(np.array(index)))
        ends.append(trainer.net.backend.to_numpy(trainer.net.parameters))
    assert_near(ends[1], ends[0], 1e-5, "parameters", scale=1.0)


def test_divergence_is_found_and_undone():
    with pytest.raises(DivergenceError, match="the parameters of epoch 0 were restored"):
        outcome(trainer_of(gpu(), ("gaussian", "gaussian"), optimizer=SGD(1e9), epochs=9))
