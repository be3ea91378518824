"""Resuming: a training that was interrupted anywhere equals one that was not, bit for bit."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from adversarial_cases import trainer_of
from command_line import parameters, rows, run, summary, timeless
from devices import gpu, needs_kernels
from engines import gathering
from hypothesis import given, settings
from hypothesis import strategies as st

import nembp
from nembp.adversarial import AdversarialSettings, AdversarialTrainer
from nembp.architecture import network
from nembp.checkpoints import environment, load_checkpoint, save_checkpoint
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import Augmentation, BatchReader
from nembp.engine.likelihoods import Gaussian
from nembp.engine.metrics import evaluate
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.engine.training import Trainer
from nembp.errors import ArchitectureError, DataError, DivergenceError, OutputError
from nembp.runs import RunConfig, train_run
from nembp.runs.gan import resume_gan, run_gan, run_seeds
from nembp.runs.gan_config import GanConfig
from nembp.runs.training import TrainRun, resume_run


class Stop(Exception):
    """Ends a training between two steps."""


def finish(make: Callable[[], Any], stops: list[int]) -> Any:
    """Return a trainer at its end that was stopped after so many moments, each time made anew."""
    trainer = make()
    with contextlib.suppress(DivergenceError):
        for count in stops:
            moments = iter([Stop] * count)

            def stop(row: Any = None, moments: Iterator[Any] = moments) -> None:
                if next(moments, None) is None:  # at which the state is whole
                    raise Stop

            trainer.after_step = stop
            trainer.callbacks.append(stop)  # between epochs too
            try:
                trainer.run()
            except Stop:
                state, trainer = through_a_file(trainer.state()), make()
                trainer.resume(state)
            else:
                return trainer
        trainer.run()
    return trainer


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.npz")
        save_checkpoint(path, {}, state)
        return load_checkpoint(path)[1]


def end_of(trainer: Any) -> list[Any]:
    """Return what two trainers must have alike at their end, bit for bit."""
    if isinstance(trainer, Trainer):
        history, nets = trainer.history, [trainer.net]
        seen = [timeless(history.epochs), history.best_epoch, history.stopped_early]
    else:
        nets = [trainer.generator, trainer.discriminator]
        seen = [timeless(trainer.rows), trainer.sample(5).tobytes()]
    return [part.tobytes() for net in nets for part in net.snapshot()] + seen


STOPS = st.lists(st.integers(0, 25), min_size=1, max_size=3)
few = settings(max_examples=10, deadline=None)
NEM = Noise("nem", 0.2, decay=0.7)
CASE: dict[str, Any] = {
    "layers": (5,), "augmented": False, "noise": {}, "options": {}, "dtype": "float32", "seed": 1,
}  # fmt: skip
CASES = [
    CASE | {"noise": {"forward": NEM}, "options": {"patience": 2, "optimizer": "rmsprop"}},
    CASE | {"layers": ("conv3x3bn", "pool2"), "augmented": True, "prefetch": True,
            "options": {"backward": False, "patience": 1, "schedule": "step", "batch_size": 8}},
    CASE | {"layers": ("6bn", 4), "prefetch": False, "dtype": "float64",
            "noise": {"backward/hidden": Noise("anti", 0.2)},
            "options": {"optimizer": "momentum", "shuffle": False, "batch_size": 13}},
    CASE | {"noise": {"backward": Noise("blind", 0.2)}, "augmented": True,
            "options": {"l2": 0.1, "sample_weight": np.linspace(0.5, 1.5, 30), "batch_size": 8}},
]  # fmt: skip


def anything(net: Network) -> float:
    """Return a score that goes up and down."""
    return float(1e5 * abs(float(net.backend.xp.sum(net.parameters))) % 1.0)


def make_trainer(
    case: dict[str, Any], rate: float = 1.0, device: Any = "cpu", resident: bool | None = None
) -> Trainer:
    generator = np.random.default_rng(case["seed"])
    split = Split(generator.random((30, 6, 6, 1)), np.arange(30) % 3)
    dtype, seed = case["dtype"], case["seed"]
    ends = {"backward": Gaussian(10.0), "dtype": dtype, "seed": seed, "device": device}
    net = network((6, 6, 1), case["layers"], 3, activation="relu", forward="multinomial", **ends)
    data = split, Scaling(), Scaling(), 3, net.backend, net.dtype
    crops = Augmentation(flip=True, crop=1) if case["augmented"] else None
    read = {"augmentation": crops, "seed": seed, "resident": resident}
    trainer = Trainer(
        net,
        gathering(BatchReader(*data, **read), case.get("prefetch")),
        epochs=6,
        noise=case["noise"],
        seed=seed,
        evaluate=lambda net: evaluate(net, BatchReader(*data)) | {"any": anything(net)},
        monitor="any",
        **case["options"],
    )
    trainer.optimizer.learning_rate *= rate
    return trainer


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
@few
@given(stops=STOPS)
def test_a_training_interrupted_anywhere_equals_one_that_was_not(case, stops):
    whole, parts = (finish(partial(make_trainer, case), each) for each in ([], stops))
    assert end_of(parts) == end_of(whole)
    assert through_a_file(parts.state())["noise"] == whole.state()["noise"]


def test_one_that_diverges_ends_the_same_too():
    options = {"optimizer": "sgd", "batch_size": 8, "schedule": "constant"}
    make = partial(make_trainer, CASE | {"layers": (8,), "options": options}, rate=1e6)
    whole, *ends = (finish(make, stops) for stops in ([], [2], [6]))
    assert len(whole.history.epochs) < 6
    assert [end_of(parts) for parts in ends] == [end_of(whole)] * 2


GAMES = [
    {"settings": AdversarialSettings("vanilla", bidirectional="both", averaging=0.9),
     "noise": {"discriminator/input": NEM, "generator/backward": NEM}, "batch_size": 1500},
    {"settings": AdversarialSettings("wasserstein", critic_steps=2), "report_every": 5,
     "noise": {"critic/input": NEM}, "schedule": "cosine"},
    {"settings": AdversarialSettings("wasserstein-gp", bidirectional="discriminator",
                                     backward_permuted=True), "report_every": 7},
]  # fmt: skip


@pytest.mark.parametrize("game", GAMES, ids=range(len(GAMES)))
@few
@given(stops=STOPS)
def test_an_adversarial_training_interrupted_anywhere_equals_one_that_was_not(game, stops):
    make = partial(trainer_of, **game, hidden=(6,), iterations=17)
    assert end_of(finish(make, stops)) == end_of(finish(make, []))


@needs_kernels
@pytest.mark.parametrize("options", [*product((True, False), (True, False)), None])
def test_streams_and_graphs_of_a_device_go_on(options):
    """Of a training with its data there or not, by graphs or not; or of an adversarial one."""
    if options is None:
        noise = {"discriminator/forward": Noise("nem")}
        make = partial(trainer_of, hidden=(6,), iterations=17, device=gpu(), noise=noise)
    else:
        resident, graphs = options
        case = CASE | {"noise": {"forward": Noise("nem"), "backward": Noise("blind")}}
        case["options"] = {"cuda_graphs": graphs, "batch_size": 12}
        make = partial(make_trainer, case, device=gpu(), resident=resident)
    whole, *ends = (finish(make, stops) for stops in ([], [0], [4, 1], [11], [5, 9]))
    assert all(each.on_device for each in (whole, *ends))
    assert [end_of(parts) for parts in ends] == [end_of(whole)] * 4


# -- runs ------------------------------------------------------------------------------------------
TRAIN = RunConfig(layers=(8,), epochs=3, limit=60, batch_size=16, device="cpu", noise="nem")
GAN = GanConfig(
    samples=200, latent=2, iterations=24, checkpoints=4, averaged=2, generator=(8,),
    discriminator=(8,), device="cpu", scored_samples=100, averaging=0.9,
)  # fmt: skip
RUNS = {
    "train": (TRAIN, train_run, resume_run, (Trainer, "_step"), ["model.npz"]),
    "gan": (
        GAN, run_gan, resume_gan, (AdversarialTrainer, "step"),
        ["generator.npz", "discriminator.npz", "samples.png", "training.gif"],
    ),
}  # fmt: skip


def left_by(folder: str, names: list[str]) -> list[Any]:
    """Return what two runs must leave alike: files, rows without times, and scores."""
    told = summary(folder)
    scores = {key: told[key] for key in told if "/" in key or key in ("scores", "status")}
    return [*(Path(folder, name).read_bytes() for name in names), rows(folder), scores]


def before_step(trainer: tuple[type, str], number: int, what: Any) -> Any:
    """Return a patch under which ``what()`` is called before the step of this number, from 0."""
    step, done = getattr(*trainer), []

    def counted(self, *args):
        if len(done) == number:
            what()
        done.append(1)
        step(self, *args)

    return patch.object(*trainer, counted)


def end_by(error: type[BaseException]) -> Any:
    def end(*_: Any, **__: Any) -> None:
        raise error

    return end


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("steps", [0, 1, 6, 11, "a signal"])
@pytest.mark.parametrize("command", RUNS)
def test_a_run_that_something_ended_goes_on_to_the_same_folder(monkeypatch, command, steps):
    """After a signal the state is written there and then, whenever the last checkpoint was."""
    config, begin, resume, trainer, names = RUNS[command]
    begin(config, "whole")
    if steps != "a signal":
        with before_step(trainer, steps, end_by(MemoryError)), pytest.raises(MemoryError):
            begin(config, "parts", checkpoint_every=1e-9)
    elif sys.platform == "win32":
        pytest.skip("needs POSIX signals")
    else:
        monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)
        with (
            before_step(trainer, 4, lambda: signal.raise_signal(signal.SIGTERM)),
            pytest.raises(KeyboardInterrupt, match=f"`nembp {command} --resume parts` goes on"),
        ):
            begin(config, "parts")
        header, state = load_checkpoint("parts/checkpoint.npz")
        assert (header["command"], state["trainer"]["iteration"]) == (command, 5)
    told: list[dict[str, Any]] = []
    resume("parts", on_start=told.append)
    assert left_by("parts", names) == left_by("whole", names)
    assert told[0]["done"] < 24
    assert set(os.listdir("parts")) == set(os.listdir("whole"))


@pytest.mark.usefixtures("own_folder")
def test_more_epochs_may_be_asked_for_and_no_other_change():
    notes: list[str] = []
    whole = TRAIN.replace({"epochs": 4, "schedule": "constant"})
    train_run(whole, "whole")
    train_run(whole.replace({"epochs": 2}), "parts")
    for changes, words in (
        ({"epochs": 1}, r"epochs can only be raised on resuming: parts was begun for 2, got 1"),
        ({"learning_rate": 0.5}, r"learning-rate is .* in parts and cannot change .* got 0\.5"),
        ({"layers": "9"}, r"layers is \(8,\) in parts"),
        ({"epochs": -1}, "epochs must be"),
    ):
        with pytest.raises(ArchitectureError, match=words):
            resume_run("parts", changes)
    before = Path("parts/model.npz").read_bytes()
    assert resume_run("parts", {"layers": "8"}, on_note=notes.append)["status"] == "finished"
    assert notes == ["parts has finished after 2 epochs; more epochs would go on with it"]
    assert Path("parts/model.npz").read_bytes() == before
    resume_run("parts", {"epochs": 4})
    assert left_by("parts", []) == left_by("whole", [])
    assert np.array_equal(parameters("parts"), parameters("whole"))


@pytest.mark.usefixtures("own_folder")
def test_what_cannot_be_gone_on_with_is_refused():
    np.savez("data.npz", x=np.random.default_rng(0).random((40, 3)), y=np.arange(40) % 2)
    config = TRAIN.replace({"dataset": "npz", "data_dir": "data.npz", "limit": None})
    train_run(config, "run")
    with pytest.raises(DataError, match=r"run/checkpoint\.npz: is of `nembp train`"):
        resume_gan("run")
    for place, words in (("absent", "no such folder"), (".", r"holds no checkpoint\.npz to go on")):
        with pytest.raises(DataError, match=words):
            resume_run(place)
    np.savez("data.npz", x=np.random.default_rng(1).random((40, 3)), y=np.arange(40) % 2)
    with pytest.raises(DataError, match="no longer those that it was trained on"):
        resume_run("run", {"epochs": 5})
    Path("run/checkpoint.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"not an \.npz archive"):
        resume_run("run", {"epochs": 5})


@pytest.mark.usefixtures("own_folder")
def test_what_differs_from_the_run_that_was_begun_is_said(monkeypatch):
    train_run(TRAIN, "run")
    notes: list[str] = []
    with monkeypatch.context() as patch:
        there = lambda net: environment(net) | {"numpy": "9.9"}  # noqa: E731
        patch.setattr("nembp.runs.run.environment", there)
        resume_run("run", {"epochs": 4}, on_note=notes.append)
    assert any("last bits may differ" in text and "now 9.9" in text for text in notes)
    env = {"NEMBP_TRAIN_EPOCHS": "2", "NEMBP_TRAIN_CONFIG": "run/config.toml"}
    result = run("train", "--resume", "run", "--quiet", env=env)
    assert result.exit_code == 2
    assert "epochs can only be raised" in result.stderr
    assert "NEMBP_TRAIN_EPOCHS sets --epochs 2" in result.stderr
    header, state = load_checkpoint("run/checkpoint.npz")
    for key in ("epoch", "seconds"):  # which a row must have
        edited = copy.deepcopy(state)
        del edited["trainer"]["history"][0][key]
        save_checkpoint("run/checkpoint.npz", header, edited)
        with pytest.raises(DataError, match=r"run/checkpoint\.npz: does not fit its own"):
            resume_run("run", {"epochs": 5})
    # noise that another device drew cannot go on here
    header["config"]["device"], state["trainer"]["noise"]["forward"] = "gpu", [1, 2, 3]
    save_checkpoint("run/checkpoint.npz", header, state)
    with pytest.raises(DataError, match=r"begun on the gpu, .*; use --device gpu"):
        resume_run("run", {"epochs": 5, "device": "cpu"})


class Killed(BaseException):
    """Ends a process, as far as its files can tell."""


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("moment", ["a row", "the end", 0, 2, 5, 6])
def test_a_run_that_was_killed_before_or_as_it_took_anothers_place_still_does(monkeypatch, moment):
    """A number: after so many of its files have moved."""
    train_run(TRAIN, "whole")
    train_run(TRAIN.replace({"seed": 1}), "run")
    older, replace, done = Path("run/model.npz").read_bytes(), os.replace, []

    def killed(source: Any, target: Any) -> None:
        if Path(source).parent.name == ".nembp-moving":
            done.append(1)
            if len(done) > moment:
                raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        if moment == "the end":
            patch.setattr("nembp.runs.folder.RunFolder.end", end_by(Killed))
        elif moment != "a row":
            patch.setattr(os, "replace", killed)
            patch.setattr(Path, "rmdir", lambda self: killed(self / "it", self))
        more = {"on_row": end_by(Killed)} if moment == "a row" else {}
        with pytest.raises(Killed):
            train_run(TRAIN, "run", force=True, **more)
    left = Path("run/model.npz").read_bytes()
    assert left == older or isinstance(moment, int)
    assert resume_run("run")["status"] == "finished"
    assert left_by("run", ["model.npz"]) == left_by("whole", ["model.npz"])
    assert set(os.listdir("run")) == set(TrainRun.files)


@pytest.mark.usefixtures("own_folder")
def test_several_seeds_go_on_where_they_were():
    """Those of an older run are not taken for theirs, and new ones start where the first did."""
    run_gan(GAN.replace({"seed": 5}), "first")
    run_seeds(GAN, 3, "whole", start="first")
    run_seeds(GAN.replace({"learning_rate": 0.01}), 3, "parts")
    with before_step(RUNS["gan"][3], 30, end_by(Killed)), pytest.raises(Killed):
        run_seeds(GAN, 3, "parts", start="first", force=True, checkpoint_every=1e-9)
    finished = Path("parts/seed0/generator.npz").stat().st_mtime_ns
    with pytest.raises(DataError, match="or --seeds N for several"):
        resume_gan("parts")
    with pytest.raises(ArchitectureError, match="batch-size is"):
        run_seeds(GanConfig(), 3, resume="parts", changes={"batch_size": 7})
    with pytest.raises(DataError, match="holds no seed's run"):
        run_seeds(GanConfig(), 3, resume="absent")
    told = run_seeds(GanConfig(), 3, resume="parts")
    assert (told["seeds"], told["status"]) == ([0, 1, 2], "finished")
    assert told["values"] == summary("whole")["values"]
    assert Path("parts/seed0/generator.npz").stat().st_mtime_ns == finished
    for seed in range(3):
        ends = [left_by(f"{folder}/seed{seed}", RUNS["gan"][4]) for folder in ("parts", "whole")]
        assert ends[0] == ends[1]
    assert not list(Path("parts").rglob(".nembp-*"))
    # seeds that came to be longer bring the others along
    resume_gan("parts/seed0", {"iterations": 30})
    longer = run_seeds(GanConfig(), 3, resume="parts")
    assert [run["iterations"] for run in longer["runs"]] == [30, 30, 30]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every part of nested dicts and lists: what holds it, and its key there."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    nested = [place for _, item in items if isinstance(item, dict | list) for place in places(item)]
    return [*((value, key) for key, _ in items), *nested]


WRONG = [None, "x", -1, 2.5, [], {}, [1, 2], {"a": 1}, 10**30, np.zeros((2, 3)), np.array("abc")]


@pytest.mark.filterwarnings("ignore:.*last bits may differ")
@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("command", [*RUNS, "nembp.train"])
def test_what_was_sealed_but_does_not_fit_is_said_of_the_file(command):
    """Every part of a checkpoint, of another type or shape: refused, or gone on with."""
    X, y = np.random.default_rng(0).normal(size=(40, 4)), np.arange(40) % 2

    def train(path: str) -> None:
        net = nembp.dense_network([4, 3, 2], seed=1)
        given: dict[str, Any] = {"noise": Noise("nem"), "validation": 0.2, "patience": 2}
        nembp.train(net, X, y, epochs=4, batch_size=16, resume=path, **given)

    path, refused, choices = "run/checkpoint.npz", 0, np.random.default_rng(1)
    if command in RUNS:
        config, begin, resume, *_ = RUNS[command]
        shorter = {"epochs": 2} if command == "train" else {"iterations": 12, "samples": 100}
        begin(config.replace(shorter), "run")
    else:
        train(path)
        resume = lambda run: train(path)  # noqa: E731
    whole = list(load_checkpoint(path))
    for number in choices.permutation(len(places(whole)))[:120]:
        edited = copy.deepcopy(whole)
        at, key = places(edited)[number]
        at[key] = WRONG[choices.integers(len(WRONG))]
        try:
            save_checkpoint(path, *edited)
        except (TypeError, ValueError, AttributeError, ArchitectureError):
            continue  # nor can it be written
        Path("run/summary.json").unlink(missing_ok=True)
        try:
            resume("run")
        except (DataError, ArchitectureError, DivergenceError):
            refused += 1
    assert refused > 20


# -- nembp.train -----------------------------------------------------------------------------------
def test_train_goes_on_from_its_own_file(tmp_path, monkeypatch):
    X, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    w = np.linspace(0.5, 1.5, 60)

    def train(resume: Any = None, epochs: int = 4, **more: Any) -> Any:
        net = nembp.dense_network([4, 6, 3], seed=5)
        given = {
            "noise": Noise("nem"), "validation": 0.2, "patience": 3, "sample_weight": w,
            "batch_size": 16, "resume": resume, "checkpoint_every": 1e-9,
        } | more  # fmt: skip
        return nembp.train(net, X, y, epochs=epochs, **given)

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise MemoryError

    path = tmp_path / "state.npz"
    whole = train()
    with pytest.raises(MemoryError):
        train(path, callbacks=[stop])
    parts = train(path)
    for found, expected in zip(parts.model.net.snapshot(), whole.model.net.snapshot(), strict=True):
        assert np.array_equal(found, expected)
    assert timeless(parts.epochs) == timeless(whole.epochs)
    assert train(path).epochs == parts.epochs  # which is finished
    assert len(train(path, epochs=5).epochs) == 5
    for changes, words in (
        ({"epochs": 2}, "epochs was 5, and is now 2"),
        ({"epochs": 5, "batch_size": 8}, "batch_size was 16, and is now 8"),
        ({"epochs": 5, "learning_rate": 0.5}, "optimizer was"),
        ({"epochs": 5, "noise": None}, "noise was"),
        ({"epochs": 5, "sample_weight": None}, "is of another array"),
        ({"epochs": 5, "checkpoint_every": -1}, "checkpoint_every must be"),
        ({"resume": True}, "resume must be the path of a file, got True"),
    ):
        with pytest.raises(ArchitectureError, match=words):
            train(**{"resume": path, **changes})
    for number in (np.int64(5), np.int32(5)):
        assert len(train(path, epochs=number, patience=number.dtype.type(3)).epochs) == 5
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):  # found before training
        train(tmp_path / "file" / "state.npz", callbacks=[pytest.fail])
    monkeypatch.setattr("nembp.arrays.environment", lambda net: environment(net) | {"numpy": "9.9"})
    with pytest.warns(UserWarning, match=r"state\.npz: the last bits may differ .* is now 9\.9"):
        train(path, epochs=6)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_is_kept_in_the_file(tmp_path):
    X, y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3
    path = tmp_path / "state.npz"

    def interrupt(row: dict[str, float]) -> None:
        signal.raise_signal(signal.SIGINT)

    def train(**more: Any) -> Any:
        return nembp.train(nembp.dense_network([4, 6, 3], seed=5), X, y, epochs=3, **more)

    with pytest.raises(KeyboardInterrupt):
        train(resume=path, callbacks=[interrupt])
    assert load_checkpoint(path)[1]["iteration"] == 3  # of two batches an epoch
    with pytest.raises(KeyboardInterrupt):  # after the last step too
        train(resume=path, callbacks=[lambda row: interrupt(row) if row["epoch"] == 3 else None])
    found, expected = (train(**more).model.net.parameters for more in ({"resume": path}, {}))
    assert np.array_equal(found, expected)
