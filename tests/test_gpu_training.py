"""Training on a GPU: the CPU's numbers, no copies within an epoch, graphs change nothing."""

from __future__ import annotations

from typing import Any

import fake_cupy
import numpy as np
import pytest
from devices import REAL, gpu, needs_kernels
from near import assert_near

from nembp.architectures import network
from nembp.augmentation import Augmentation
from nembp.backend import CupyBackend
from nembp.batches import BatchReader
from nembp.datasets import Scaling, Split
from nembp.errors import DivergenceError
from nembp.likelihoods import Gaussian
from nembp.network import Network, dense_network
from nembp.noise import Noise
from nembp.optimizers import OPTIMIZERS, SGD
from nembp.training import Trainer

pytestmark = needs_kernels

NOISE = {"forward": Noise("nem", std=0.2), "backward": Noise("nem", std=0.1, clock="epoch")}
CLASSES = ("multinomial", "gaussian")


def images(n: int = 50) -> Split:
    generator = np.random.default_rng(1)
    y = generator.integers(0, 3, n)
    x = generator.integers(0, 60, (n, 4, 4, 1)) + 60 * y[:, None, None, None]
    return Split(x.astype(np.uint8), y)


def targets(n: int = 50) -> Split:
    x = np.random.default_rng(2).normal(size=(n, 16)).astype(np.float32)
    return Split(x, np.tanh(x[:, :3]))


def trainer_of(
    device: Any,
    ends: tuple[str, str] = CLASSES,
    *,
    net: Network | None = None,
    dtype: str = "float32",
    resident: bool | None = None,
    augmentation: Augmentation | None = None,
    data: Split | None = None,
    activation: str = "relu",
    **options: Any,
) -> Trainer:
    data = data or (images() if ends[0] == "multinomial" else targets())
    if net is None:
        net = dense_network(
            [16, 9, 6, 3], activation=activation, forward=ends[0], backward=ends[1], device=device,
            dtype=dtype, seed=3,
        )  # fmt: skip
    scaling = Scaling(factor=1 / 255) if data.x.dtype == np.uint8 else Scaling(offset=0.1)
    reader = BatchReader(
        data, scaling, Scaling(), 3, net.backend, dtype, resident=resident,
        augmentation=augmentation,
    )  # fmt: skip
    return Trainer(net, reader, **({"epochs": 3, "batch_size": 12} | options))


def outcome(trainer: Trainer) -> tuple[np.ndarray, np.ndarray]:
    """Train, and return the parameters and every score of every epoch."""
    rows = trainer.run().epochs
    timings = ("seconds", "samples_per_second")
    scores = [value for row in rows for key, value in row.items() if key not in timings]
    return trainer.net.backend.to_numpy(trainer.net.parameters), np.array(scores)


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


def image_network(device: Any, layers: tuple[Any, ...] = ("conv4x3", "pool2", 6)) -> Network:
    back = Gaussian(10.0)
    return network((4, 4, 1), layers, 3, activation="tanh", backward=back, device=device)


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
    monkeypatch.setattr(CupyBackend, "window_bytes", 4 * 16 * 9 * 5)
    few = outcome(trainer_of(gpu(), net=image_network(gpu())))
    assert_near(few[0], expected[0], 1e-5, "parameters", scale=1.0)


# -- graphs ----------------------------------------------------------------------------------------
EVERY_NOISE = [
    {},
    NOISE,
    {"forward": Noise("blind", law="uniform"), "backward": Noise("anti", screening="vector")},
    {"forward": Noise("drift"), "backward": Noise("nem", screening="expectation")},
    {"forward/hidden": Noise("nem", std=0.2, law="uniform"), "backward": Noise("drift")},
]


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


# -- what the host has to do with it: on the stand-in, which counts --------------------------------
only_counted = pytest.mark.skipif(REAL, reason="counted on the stand-in")


@pytest.fixture
def device(monkeypatch):
    return fake_cupy.install(monkeypatch)


@only_counted
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


@only_counted
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


@only_counted
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


@only_counted
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


@only_counted
@pytest.mark.parametrize("bug", ["rate", "samples", "deviation", "draws"])
def test_a_number_that_does_not_change_with_the_step_is_caught(device, bug, monkeypatch):
    """Plant what a replay would get wrong, and see the comparison of both paths fail."""
    noise = {"forward": Noise("blind", std=0.3)}
    backend = CupyBackend()
    options = {"noise": noise, "schedule": "cosine"}
    expected = outcome(trainer_of(backend, cuda_graphs=False, **options))
    if bug == "rate":  # by value: that of the captured step
        monkeypatch.setattr(
            "nembp.optimizers.Optimizer.apply",
            lambda self, numbers: self._move(None, self.numbers(self.steps, 1 - self.steps / 20)),
        )
    elif bug == "samples":
        begin = CupyBackend.begin_step

        def always_the_first(self: CupyBackend, step: Any, *args: Any) -> None:
            step[...] = 0
            begin(self, step, *args)

        monkeypatch.setattr(CupyBackend, "begin_step", always_the_first)
    elif bug == "deviation":
        monkeypatch.setattr("nembp.replay.StepsOnDevice._joint", _joint_without_deviations)
    else:
        screen = CupyBackend.draw_and_screen

        def always_the_first_call(self: CupyBackend, source: Any, *args: Any) -> bool:
            source.generator.state[1:] = 0
            return screen(self, source, *args)

        monkeypatch.setattr(CupyBackend, "draw_and_screen", always_the_first_call)
    assert not np.array_equal(outcome(trainer_of(backend, **options))[0], expected[0])


def _joint_without_deviations(self: Any, rows: int) -> Any:
    return self._trainer.joint(rows)
