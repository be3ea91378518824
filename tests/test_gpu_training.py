"""Training, also adversarial, on a GPU: captured steps are the called ones, nothing waits.

What the host has to do is counted on the stand-in for CuPy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import adversarial_cases
import fake_cupy
import numpy as np
import pytest
from devices import REAL, gpu, needs_kernels
from engines import assert_close, gathering

from nembp.adversarial import AdversarialSettings
from nembp.adversarial.gradients import DiscriminatorGradient
from nembp.adversarial.trainer import AdversarialTrainer
from nembp.architecture import network
from nembp.backend.gpu import CupyBackend
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import Augmentation, BatchReader
from nembp.engine.likelihoods import Gaussian
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import OPTIMIZERS, SGD, Adam, RMSProp
from nembp.engine.training import Trainer
from nembp.errors import DivergenceError

pytestmark = needs_kernels
on_stand_in = pytest.mark.skipif(REAL, reason="counted on the stand-in")
NOISE = {"forward": Noise("nem", std=0.2), "backward": Noise("nem", std=0.1, clock="epoch")}
CLASSES = ("multinomial", "gaussian")
EVERY_NOISE = [
    {},
    NOISE,
    {"forward": Noise("blind", law="uniform"), "backward": Noise("anti", screening="vector")},
    {"forward": Noise("drift"), "backward": Noise("nem", screening="expectation")},
    {"forward/hidden": Noise("nem", std=0.2, law="uniform"), "backward": Noise("drift")},
]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr("nembp.engine.noise.DRIFT_DRAWS", 2)


@pytest.fixture
def device(monkeypatch):
    return fake_cupy.install(monkeypatch)


def samples(*, images: bool) -> Split:
    draw = np.random.default_rng(1)
    if not images:
        x = draw.normal(size=(50, 16)).astype(np.float32)
        return Split(x, np.tanh(x[:, :3]))
    y = draw.integers(0, 3, 50)
    x = draw.integers(0, 60, (50, 4, 4, 1)) + 60 * y[:, None, None, None]
    return Split(x.astype(np.uint8), y)


def image_network(device: Any, layers: tuple[Any, ...] = ("conv4x3", "pool2", 6)) -> Network:
    ends = {"activation": "tanh", "backward": Gaussian(10.0)}
    return network((4, 4, 1), layers, 3, device=device, **ends)


def trainer_of(
    device: Any,
    ends: tuple[str, str] = CLASSES,
    *,
    net: Network | None = None,
    dtype: str = "float32",
    resident: bool | None = None,
    augmentation: Augmentation | None = None,
    prefetch: bool | None = None,
    **options: Any,
) -> Trainer:
    """Return what trains on 4 batches of 12 samples and one of 2, for three epochs."""
    data = samples(images=ends[0] == "multinomial")
    if net is None:
        net = dense_network(
            [16, 9, 6, 3], forward=ends[0], backward=ends[1], device=device, dtype=dtype, seed=3
        )
    scaling = Scaling(factor=1 / 255) if data.x.dtype == np.uint8 else Scaling(offset=0.1)
    held = {"resident": resident, "augmentation": augmentation}
    reader = BatchReader(data, scaling, Scaling(), 3, net.backend, dtype, **held)
    return Trainer(net, gathering(reader, prefetch), **({"epochs": 3, "batch_size": 12} | options))


def outcome(trainer: Any) -> list[np.ndarray]:
    """Train, and return what that leaves: parameters, statistics, averages, and every score."""
    rows = trainer.run()
    timings = "seconds", "samples_per_second", "iterations_per_second"
    scores = [
        v for row in getattr(rows, "epochs", rows) for k, v in row.items() if k not in timings
    ]
    names = "net", "generator", "discriminator", "sampler"
    nets = [getattr(trainer, name) for name in names if hasattr(trainer, name)]
    parts = [part for net in nets for part in (net.parameters, net.statistics)]
    return [*(nets[0].backend.to_numpy(part) for part in parts), np.array(scores)]


def are_equal(*outcomes: list[np.ndarray]) -> bool:
    return all(np.array_equal(*pair) for pair in zip(*outcomes, strict=True))


def test_windows_are_laid_out_in_blocks_that_fit(monkeypatch):
    expected = outcome(trainer_of(gpu(), net=image_network(gpu())))
    monkeypatch.setattr(CupyBackend, "column_bytes", 4 * 16 * 9 * 5)
    few = outcome(trainer_of(gpu(), net=image_network(gpu())))
    assert_close(few[0], expected[0], 1e-5, 1.0)


# -- captured and called ---------------------------------------------------------------------------
SOURCES_OF_BATCHES: list[dict[str, Any]] = [
    {"resident": False},
    {"augmentation": Augmentation(flip=True, crop=1), "prefetch": True},
    {"ends": ("gaussian", "gaussian"), "resident": False, "prefetch": False},
    {"dtype": "float64", "noise": NOISE},
    {"backward": False},
    {"schedule": "step", "resident": False, "noise": NOISE},
    *({"layers": layers, "noise": NOISE} for layers in (("conv4x3", "pool2"), ("conv4x3bn",))),
    *({"noise": noise} for noise in EVERY_NOISE),
    *({"optimizer": name, "noise": NOISE} for name in sorted(OPTIMIZERS)),
]


@pytest.mark.parametrize("options", SOURCES_OF_BATCHES, ids=range(len(SOURCES_OF_BATCHES)))
def test_captured_steps_give_the_same_numbers(options):
    found = []
    for graphs in (True, False):
        kept = dict(options)
        layers = kept.pop("layers", None)
        net = image_network(gpu(), (*layers, 6)) if layers else None
        trainer = trainer_of(gpu(), net=net, cuda_graphs=graphs, **kept)
        found.append(outcome(trainer))
        assert trainer.iteration == trainer.optimizer.steps == 15
        if graphs:  # two of each size are made call by call
            assert trainer.captured.reason is None
            assert trainer.captured.launches == 10 + 1
    assert are_equal(*found)


def test_streamed_batches_are_the_resident_ones_and_noise_is_seeded():
    runs = {"resident": True}, {"resident": False}, {"resident": True, "seed": 1}
    found = [outcome(trainer_of(gpu(), noise=NOISE, **options)) for options in runs]
    assert are_equal(found[0], found[1])
    assert not are_equal(found[0], found[2])


def test_an_optimizer_of_your_own_is_neither_captured_nor_broken():
    class Own(SGD):
        def move(self, chunk: Any, eta: float, epsilon: float) -> None:
            super().move(chunk, eta * self.steps / self.steps, epsilon)

    trainer = trainer_of(gpu(), optimizer=Own(0.1))
    expected = outcome(trainer_of("cpu", optimizer=SGD(0.1)))
    assert_close(outcome(trainer)[0], expected[0], 1e-5, 1.0)
    assert not trainer.on_device


def test_a_step_by_itself_takes_any_samples():
    found = []
    for on in ("cpu", gpu()):
        trainer = trainer_of(on)
        for index in ([3, 1, 4, 1, 5], [9, 2, 6, 5, 3]):
            trainer.step(trainer.net.backend.asarray(np.array(index)))
        found.append(trainer.net.backend.to_numpy(trainer.net.parameters))
    assert_close(found[1], found[0], 1e-5, 1.0)


def test_divergence_is_found_and_undone():
    with pytest.raises(DivergenceError, match="the parameters of epoch 0 were restored"):
        outcome(trainer_of(gpu(), ("gaussian", "gaussian"), optimizer=SGD(1e9), epochs=9))


# -- what the host has to do -----------------------------------------------------------------------
@on_stand_in
@pytest.mark.parametrize("noise", EVERY_NOISE[:2], ids=range(2))
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("resident", [True, False])
def test_a_step_copies_only_its_streamed_batch(device, graphs, noise, resident, monkeypatch):
    options = {"cuda_graphs": graphs, "resident": resident, "prefetch": False, "noise": noise}
    trainer = trainer_of(CupyBackend(), epochs=9, **options)
    trainer.run_epoch()
    counts, launches, original = [], [], trainer._step

    def counted(*args: Any) -> None:
        counts.append((device.waits, device.uploads))
        device.launches.clear()
        original(*args)
        launches.append(tuple(device.launches))

    monkeypatch.setattr(trainer, "_step", counted)
    trainer.run_epoch()
    # a batch is staged, and its buffer's own copy waited for, before each step
    assert set(map(tuple, np.diff(counts, axis=0).tolist())) == {(0, 0) if resident else (1, 1)}
    if not graphs:  # the condition for a replay: the same kernels in the same order
        assert len(set(launches[:-1])) == 1
        assert {"begin_step", "adam", "sum_rows", "output_error"} <= set(launches[0])
        assert ("draw_and_screen" in launches[0]) == bool(noise)
        assert len(launches[0]) < 40


@on_stand_in
@pytest.mark.parametrize("what", ["to_numpy", "matmul"])
def test_what_cannot_be_captured_is_made_call_by_call(device, what, monkeypatch):
    backend, original = CupyBackend(), Trainer.record
    expected = outcome(trainer_of(backend))

    def reads(self: Trainer, joint: Any) -> None:
        original(self, joint)
        if what == "to_numpy":
            backend.to_numpy(joint.forward_nll)
        else:  # as with a matrix that cuBLAS does not take
            backend.xp.matmul(joint.forward_nll, joint.forward_nll, out=joint.forward_nll)

    monkeypatch.setattr(Trainer, "record", reads)
    trainer = trainer_of(backend)
    assert are_equal(outcome(trainer)[:1], expected[:1])
    assert trainer.captured.launches == 0
    assert "a step cannot be captured (cudaErrorStreamCapture" in str(trainer.captured.reason)


@pytest.mark.parametrize("ends", [CLASSES, ("gaussian", "gaussian")], ids=["labels", "numbers"])
def test_weighted_and_penalized_samples_are_the_cpus(ends):
    weights = np.random.default_rng(0).uniform(0.0, 2.0, 50)
    options = {"sample_weight": weights, "l2": 0.3}
    found = [outcome(trainer_of(on, ends, **options)) for on in ("cpu", gpu())]
    for ours, theirs in zip(*found, strict=True):
        assert_close(theirs, ours, 1e-3, 1.0)


# == adversarial training =========================================================================
KINDS = "vanilla", "minimax", "wasserstein", "wasserstein-gp"
PLACES = ("discriminator/forward", "discriminator/backward", "generator/backward",
          "discriminator/input")  # fmt: skip
ITERATIONS, ROWS = 9, 6  # two iterations are made call by call before the first is captured
Settings = AdversarialSettings


def game_of(device: Any, settings: Settings | None = None, **options: Any) -> AdversarialTrainer:
    """Return a game on images, of four batches an epoch, and a rest."""
    draw = np.random.default_rng(1)
    x, y = draw.integers(0, 255, (26, 4, 4, 1)).astype(np.uint8), draw.integers(0, 3, 26)
    data = replace(adversarial_cases.RING, train=Split(x, y), x_scaling=Scaling(factor=1 / 255))
    options = {
        "batch_size": ROWS, "iterations": ITERATIONS, "report_every": 4, "schedule": "cosine",
        "seed": 3, "optimizers": (Adam(0.01, beta1=0.5), RMSProp(0.01)), "activation": "tanh",
        "latent": 3, "hidden": (7, 5),
    } | options  # fmt: skip
    return adversarial_cases.trainer_of(settings, data=data, device=device, **options)


GAME = Settings("vanilla", "both", critic_steps=2, averaging=0.5, weight_schedule="linear")
LOUD = {"discriminator/forward": Noise("nem", std=0.3), "discriminator/input": Noise("nem")}


# -- captured iterations ---------------------------------------------------------------------------
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
def test_captured_iterations_give_the_same_numbers(name):
    options, settings = GAMES[name]
    found = []
    for graphs in (True, False):
        trainer = game_of(gpu(), Settings(**settings), cuda_graphs=graphs, **options)
        found.append(outcome(trainer))
        assert trainer.captured == (trainer.iteration - 2 if graphs else 0)
        assert trainer.why_not_captured == (None if graphs else "switched off")
        steps = trainer.iteration, trainer.iteration * trainer.settings.steps
        assert tuple(optimizer.steps for optimizer in trainer.optimizers) == steps
    assert are_equal(*found)
    assert all(np.isfinite(each).all() for each in found[0])


def test_blocks_shorter_than_a_row_change_nothing(monkeypatch):
    whole = outcome(game_of(gpu(), Settings(critic_steps=2), report_every=9))
    monkeypatch.setattr("nembp.adversarial.trainer.LAID_OUT", 2 * 2 * ROWS)  # two iterations
    assert are_equal(whole, outcome(game_of(gpu(), Settings(critic_steps=2), report_every=9)))


# -- iterations that are not captured -----------------------------------------------------------------------------
@pytest.mark.parametrize("resident", [True, False])
def test_numbers_on_the_device_are_pythons(resident, monkeypatch):
    settings = Settings("vanilla", "both", weight_schedule="cosine", critic_steps=2)
    noise = dict.fromkeys(PLACES, Noise("blind", std=0.3, decay=0.5, clock="epoch"))
    options = {"noise": noise, "resident": resident, "dtype": "float64"}
    actual = game_of(gpu(), settings, **options)
    with monkeypatch.context() as patch:
        patch.setattr(CupyBackend, "has_kernel", lambda self, named: False)
        expected = game_of(gpu(), settings, **options)
    assert (actual.on_device, expected.on_device) == (True, False)
    for ours, theirs in zip(outcome(expected), outcome(actual), strict=True):
        assert_close(theirs, ours, 1e-9, 1.0)


def test_draws_of_the_host_and_optimizers_of_your_own_are_not_captured():
    class Own(SGD):
        def move(self, chunk: Any, eta: float, epsilon: float) -> None:
            super().move(chunk, eta, epsilon)

    assert not game_of(gpu(), host_noise=True).on_device
    own = game_of(gpu(), optimizers=(Own(0.1), SGD(0.1)))
    assert not own.on_device
    assert all(np.isfinite(each).all() for each in outcome(own))


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("on", ["cpu", "gpu"])
def test_a_run_goes_on_after_an_iteration_that_was_broken_off(on, resident, monkeypatch):
    """As by Ctrl-C: with samples and numbers for all turns to come, and finite."""
    options = {"resident": resident, "iterations": 20, "report_every": 9}
    trainer = game_of(gpu() if on == "gpu" else on, Settings(critic_steps=3), **options)
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


# -- what the host has to do for an iteration -----------------------------------------------------------------------
@on_stand_in
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("resident", [True, False])
def test_an_iteration_copies_only_its_streamed_batches(device, graphs, resident):
    """Between rows, over epochs that end in between; and makes the same launches every time."""
    options = {"cuda_graphs": graphs, "resident": resident, "report_every": 30, "noise": LOUD}
    trainer = game_of(CupyBackend(), GAME, **options)
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
    expected = outcome(game_of(CupyBackend(), GAME, resident=False))
    device.deferred, device.copies_first = True, copies_first
    assert are_equal(expected, outcome(game_of(CupyBackend(), GAME, resident=False)))
