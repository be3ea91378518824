"""What version 0.1 computed, saved, and printed: any later engine must give the same.

The expected values were written with the code of commit ccc3db8, by the script that commit 1ccdd22
has as ``tests/golden/make.py``. Numbers are float64 over a few steps, so that they do not depend
on the BLAS kernels.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import as_json

from nembp import architecture, experiments
from nembp.adversarial import AdversarialSettings, AdversarialTrainer
from nembp.adversarial.gradients import CycleBackpropagation
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import Augmentation, BatchReader
from nembp.engine.activations import get_activation
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Bernoulli, Score, get_likelihood
from nembp.engine.linear import Dense, Transposed
from nembp.engine.network import Layer, Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Momentum, get_optimizer
from nembp.engine.training import Trainer, set_input_bias

GOLDEN = Path(__file__).parent / "golden"
ROWS = 6
Case = Callable[[], dict[str, Any]]
Cases = dict[str, Case]


@cache
def facts() -> dict[str, Any]:
    return json.loads((GOLDEN / "facts.json").read_text())  # type: ignore[no-any-return]


@cache
def arrays() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "facts.npz") as file:
        return dict(file)


# -- networks, noise and data ----------------------------------------------------------------------
NETWORKS: dict[str, Any] = {
    "dense": (5, "6,4", 3),
    "shallow": (5, "", 3),
    "normalized": (5, "6bn,4bn", 3),
    "convolution": ((5, 4, 2), "conv3x3s2-1,4", 3),
    "3x3": ((8, 8, 1), "conv3x3,pool4", 3),
    "pooling": ((5, 5, 1), "conv4x2,pool2", 3),
    "normalized-images": ((5, 4, 2), "conv3x3s2-1bn,4bn", 3),
    "generator": (3, "5", 4),
    "normalized-generator": (3, "5bn", 4),
}


def network(
    name: str,
    forward: str = "multinomial",
    backward: str = "gaussian",
    activation: str = "tanh",
    seed: int | None = None,
) -> Network:
    """Build a network in float64 with the parameters of a seed, or else with random ones."""
    if name == "images-generator":
        hidden = Layer(8, get_activation(activation), 8, BatchNormalization())
        layers = [Layer(3), hidden, Layer(32, None, 2)]
        maps = [Dense(3, 8), Transposed(Convolution((4, 4, 2), 2, (4, 4), (2, 2), (1, 1)))]
    else:
        layers, maps = architecture.chain(*NETWORKS[name], activation=activation)
    ends = (get_likelihood(forward, 1.5 if forward != "gaussian" else 0.8),
            get_likelihood(backward, 0.7))  # fmt: skip
    net = Network(layers, maps, *ends, dtype="float64", seed=seed)
    if seed is None:
        generator = np.random.default_rng(len(name))
        net.parameters[...] = generator.normal(0.0, 0.5, net.parameter_count)
        net.statistics[...] = generator.uniform(0.5, 2.0, net.statistics_count)
    return net


def noises(places: dict[str, Any]) -> dict[str, Noise]:
    """Return the noise of each place; options are those of a kind unless they say more."""
    return {
        place: Noise(std=0.3, decay=0.5, **({"kind": each} if isinstance(each, str) else each))
        for place, each in places.items()
    }


def reader_of(net: Network, images: bool) -> BatchReader:
    """Read 20 samples of 3 classes."""
    generator = np.random.default_rng(7)
    y = generator.integers(0, 3, 20)
    split = Split(generator.normal(size=(20, 5)) if not images else
                  generator.integers(0, 256, (20, 5, 4, 2)).astype(np.uint8), y)  # fmt: skip
    augmentation = Augmentation(flip=True, crop=1) if images else None
    scaling = Scaling(factor=1 / 255 if images else 1.0)
    return BatchReader(split, scaling, Scaling(), 3, net.backend, "float64",
                       augmentation=augmentation, seed=3)  # fmt: skip


def rows_for(likelihood: str, width: int, generator: np.random.Generator) -> np.ndarray:
    """Return rows that a likelihood can be asked the probability of."""
    if likelihood == "gaussian":
        return generator.normal(size=(ROWS, width))
    rows = generator.uniform(0.05, 0.95, (ROWS, width))
    return rows / rows.sum(axis=1, keepdims=True) if likelihood == "multinomial" else rows


# -- gradients of both directions ------------------------------------------------------------------
def joint(net: str, path: Any, noise: dict[str, Any], **ends: str) -> dict[str, Any]:
    """Return the gradient of both directions in epoch 2, iteration 3, and what is recorded."""
    built, generator = network(net, **ends), np.random.default_rng(11)
    x = rows_for(ends.get("backward", "gaussian"), built.inputs, generator)
    forward = ends.get("forward", "multinomial")
    t = np.eye(built.outputs)[[0, 1, 2, 1, 1, 0]]
    if path != "classes" and forward != "multinomial":
        t = rows_for(forward, built.outputs, generator)
    generators = {place: built.backend.generator(5, f"noise/{place}") for place in noise}
    step = JointBackpropagation(built, ROWS, path=path, noise=noises(noise), generators=generators)
    step.x[...], step.t[...] = x, t
    gradient = np.zeros(built.parameter_count)
    step(gradient, 2, 3)
    found = {
        "gradient": gradient,
        "statistics": built.statistics,
        "forward_nll": float(step.forward_nll[0, 0]),
        "backward_nll": float(step.backward_nll[0, 0]),
    }
    for place, source in step.sources.items():
        found[f"{place}/accepted"] = float(source.accepted[0, 0])
        found[f"{place}/gain"] = float(source.gain[0, 0])
    return found


def joint_cases() -> Cases:
    cases: Cases = {}
    likelihoods = "multinomial", "gaussian", "bernoulli"

    def add(net: str, path: str, noise: dict[str, Any] | None = None, **ends: str) -> None:
        noise = noise or {}
        words = [f"{place} {each if isinstance(each, str) else ' '.join(map(str, each.values()))}"
                 for place, each in noise.items()]  # fmt: skip
        name = " | ".join([f"joint/{net}", *ends.values(), path, *words])
        cases[name] = partial(joint, net, path, noise, **ends)

    for forward, backward, path in product(likelihoods, likelihoods, ("samples", "classes")):
        add("dense", path, forward=forward, backward=backward)
    for net, path in product(NETWORKS, ("samples", "classes", "none")):
        if "generator" not in net:
            add(net, path)
    for activation in ("relu", "leaky-relu", "logistic", "identity"):
        add("dense", "samples", activation=activation)
        add("normalized", "classes", activation=activation)
    for kind, likelihood in product(("nem", "blind", "anti", "drift"), likelihoods):
        add("dense", "samples", {"forward": kind}, forward=likelihood)
        for path in ("samples", "classes"):
            add("dense", path, {"backward": kind}, backward=likelihood)
    for kind, place in product(("nem", "blind", "anti"), ("input", "hidden", "last-hidden")):
        for direction in ("forward", "backward"):
            add("dense", "samples", {f"{direction}/{place}": kind})
    for net in ("normalized", "convolution", "pooling", "normalized-images"):
        add(net, "samples", {"forward/hidden": "nem", "backward": "nem"})
        add(net, "samples", {"backward/hidden": "nem"})
        add(net, "classes", {"forward": "nem", "backward": "nem"})
    for options in (
        {"law": "uniform"},
        {"law": "curvature"},
        {"mode": "multiplicative"},
        {"screening": "vector"},
        {"screening": "component"},
        {"screening": "expectation"},
        {"rejected": "zero"},
        {"update": "published"},
        {"update": "zero-sum", "screening": "vector"},
        {"draws": 3},
        {"clock": "epoch"},
    ):
        for kind, likelihood in product(("nem", "drift"), ("multinomial", "gaussian")):
            if kind == "nem" or "law" in options or "mode" in options:
                noise = {"forward": {"kind": kind, **options}}
                add("shallow", "samples", noise, forward=likelihood)
    for options in ({"screening": "expectation"}, {"rejected": "zero"}, {"draws": 3}):
        add("dense", "samples", {"forward/hidden": {"kind": "nem", **options}})
    return cases


# -- gradients of a generator ----------------------------------------------------------------------
def generated(
    name: str, forward: str, bidirectional: bool, flow: bool, noise: str | None = None
) -> dict[str, Any]:
    """Return the gradient of a generator whose output has a random error."""
    net, generator = network(name, forward), np.random.default_rng(13)
    step = CycleBackpropagation(
        net,
        ROWS,
        bidirectional=bidirectional,
        flow=flow,
        noise=noises({"z": noise})["z"] if noise else None,
        generator=net.backend.generator(5, "noise"),
    )
    step.z[...] = generator.normal(size=(ROWS, net.inputs))
    output, gradient = step.run().copy(), np.zeros(net.parameter_count)
    if step.source is not None:
        step.source.std = step.source.noise.std_at(2, 3)
    step(gradient, generator.normal(size=(ROWS, net.outputs)) / ROWS)
    return {
        "gradient": gradient,
        "output": output.ravel(),
        "statistics": net.statistics,
        "backward_nll": float(step.backward_nll[0, 0]),
    }


def generator_cases() -> Cases:
    cases: Cases = {}
    ways = {"forward alone": (False, False), "held fixed": (True, False), "flow": (True, True)}
    for net, forward, (way, (bidirectional, flow)) in product(
        ("generator", "normalized-generator", "images-generator"),
        ("gaussian", "bernoulli", "multinomial"),
        ways.items(),
    ):
        name, case = f"generator/{net} | {forward} | {way}", (net, forward, bidirectional, flow)
        if net == "generator" or forward == "bernoulli":
            cases[name] = partial(generated, *case)
        if bidirectional and forward == "gaussian":
            cases[f"{name} | noise"] = partial(generated, *case, "nem")
    return cases


# -- trainings -------------------------------------------------------------------------------------
def trained(
    name: str = "dense",
    optimizer: str = "adam",
    rate: float = 0.02,
    schedule: str = "cosine",
    noise: dict[str, str] | None = None,
    backward: bool = True,
) -> dict[str, Any]:
    """Train two epochs of three steps, from the initial weights of seed 4."""
    net = network(name, seed=4)
    set_input_bias(net, np.linspace(0.1, 0.9, net.inputs))
    trainer = Trainer(
        net,
        reader_of(net, images=isinstance(NETWORKS[name][0], tuple)),
        epochs=2,
        batch_size=8,
        optimizer=get_optimizer(optimizer, rate, 0.01),
        schedule=schedule,
        backward=backward,
        noise=noises(noise or {}),
        seed=3,
    )
    row = trainer.run().epochs[-1]
    return row | {"parameters": net.parameters, "statistics": net.statistics}


def training_cases() -> Cases:
    rates = {"sgd": 0.1, "momentum": 0.05, "rmsprop": 0.01, "adam": 0.02}
    cases: dict[str, dict[str, Any]] = {
        optimizer: {"optimizer": optimizer, "rate": rate} for optimizer, rate in rates.items()
    }
    for net in ("normalized", "convolution", "normalized-images"):
        cases[f"{net}, noise"] = {"name": net, "noise": {"forward": "nem", "backward": "nem"}}
    for schedule in ("constant", "step", "late-cosine"):
        cases[schedule] = {**cases["sgd"], "schedule": schedule}
    cases["one direction"] = {"backward": False}
    cases["hidden noise"] = {"noise": {"forward/hidden": "nem"}}
    cases["backward hidden noise"] = {"noise": {"backward/hidden": "blind"}}
    return {f"trained/{name}": partial(trained, **case) for name, case in cases.items()}


def adversarial(
    noise: dict[str, str] | None = None, *, normalized: bool = False, **options: Any
) -> dict[str, Any]:
    """Train a generator against a discriminator for three iterations."""
    settings = AdversarialSettings(**options)
    g = dense_network(
        [2, 4, 5],
        forward="gaussian",
        backward="bernoulli" if settings.latent_law == "binary" else "gaussian",
        normalization=BatchNormalization() if normalized else None,
        dtype="float64",
        seed=0,
    )
    forward: Any = "multinomial" if settings.classes else Bernoulli()
    d = dense_network(
        [5, 4, settings.classes + 1],
        activation="leaky-relu",
        forward=Score() if settings.has_critic else forward,
        dtype="float64",
        seed=1,
    )
    trainer = AdversarialTrainer(
        g,
        d,
        reader_of(g, images=False),
        settings,
        batch_size=6,
        iterations=3,
        optimizers=(Momentum(0.05), Momentum(0.05)),
        noise=noises(noise or {}),
        seed=3,
        report_every=3,
    )
    return trainer.run()[-1] | {"generator": g.parameters, "discriminator": d.parameters}


def adversarial_cases() -> Cases:
    both = {"bidirectional": "both"}
    cases: dict[str, dict[str, Any]] = {
        kind: {"kind": kind} for kind in ("vanilla", "minimax", "wasserstein", "wasserstein-gp")
    }
    cases |= {f"{kind}, both": {**options, **both} for kind, options in cases.items()}
    cases |= {
        "discriminator": {"bidirectional": "discriminator"},
        "generator": {"bidirectional": "generator"},
        "flow": {"bidirectional": "generator", "backward_flow": True},
        "permuted": {**both, "backward_permuted": True},
        "labels of both": {**both, "backward_labels": "both"},
        "bits": {"bidirectional": "generator", "latent_law": "binary", "backward_flow": True},
        "classes": {**both, "classes": 3},
        "schedules": {**both, "weight_schedule": "cosine", "weight_until": 0.8},
        "steps": {"critic_steps": 2, "averaging": 0.9},
        "normalized": {**both, "normalized": True},
        "noise on critic/input": {"kind": "wasserstein", "noise": {"critic/input": "nem"}},
        "scheduled noise": {
            **both, "noise_schedule": "linear", "noise_until": 0.9,
            "noise": {"discriminator/backward": "nem"},
        },
    }  # fmt: skip
    for place in ("discriminator/forward", "discriminator/backward", "discriminator/input",
                  "generator/backward"):  # fmt: skip
        cases[f"noise on {place}"] = {**both, "noise": {place: "nem"}}
    return {f"adversarial/{name}": partial(adversarial, **case) for name, case in cases.items()}


CASES = joint_cases() | generator_cases() | training_cases() | adversarial_cases()


@pytest.mark.parametrize("name", facts()["numbers"])
def test_gradients_and_trainings(name):
    """An array's error is relative to its size."""
    found, timed = CASES[name](), {"seconds", "samples_per_second", "iterations_per_second"}
    tolerance = 1e-10 if name.startswith(("joint", "generator")) else 1e-8
    expected, start = arrays()[name], 0
    for key in sorted(key for key, value in found.items() if isinstance(value, np.ndarray)):
        value = found.pop(key)
        part = expected[start : start + len(value)]
        start += len(part)
        scale = np.abs(part).max(initial=0.0)
        error = np.abs(value - part).max(initial=0.0)
        assert error <= tolerance * scale, f"{key}: off by {error:.3g} of {scale:.3g}"
    assert start == len(expected)
    scalars = {key: value for key, value in found.items() if key not in timed}
    assert scalars == pytest.approx(facts()["numbers"][name], rel=tolerance, abs=tolerance)


def test_protocols_have_the_hashes_of_their_committed_rows():
    digests = {name: protocol.digest for name, protocol in experiments.available().items()}
    assert facts()["protocols"].items() <= digests.items()


# -- run folders and the keys of --json ------------------------------------------------------------
@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where the inputs of the commands below lie."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(17)
    rows = ["height,width,area,edge"]
    for height, width in generator.uniform(1, 3, (40, 2)):
        rows.append(f"{height:.3f},{width:.3f},{height * width:.3f},{2 * (height + width):.3f}")
    Path("table.csv").write_text("\n".join(rows) + "\n")
    np.save("x.npy", np.random.default_rng(19).integers(0, 17, (3, 8, 8, 1)).astype(np.float64))
    np.save("y.npy", np.eye(10)[[3, 7]])
    Path("own.py").write_text("def f(t):\n    return float(t @ t) / 2, t\n")


def written(*args: object) -> list[Any]:
    """Return the array that a command writes."""
    as_json(*args, "--force", "--out", "out.npy")
    return np.load("out.npy").tolist()  # type: ignore[no-any-return]


def numbers(tree: Any, prefix: str = "") -> dict[str, float]:
    """Return every number of a tree of dicts and lists, by its path."""
    if isinstance(tree, (int, float)) and not isinstance(tree, bool):
        return {prefix: float(tree)}
    if not isinstance(tree, (dict, list)):
        return {}
    found: dict[str, float] = {}
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        found |= numbers(value, f"{prefix}/{key}")
    return found


@pytest.mark.usefixtures("inputs")
def test_folders_of_version_0_1_predict_score_and_draw_the_same():
    run_, images, gan = GOLDEN / "run", GOLDEN / "images", GOLDEN / "gan"
    back = "y.npy", "--direction", "backward"
    found = numbers({
        "run": {
            "evaluate": as_json("evaluate", run_),
            "forward": written("predict", run_, "x.npy"),
            "backward": np.ravel(written("predict", run_, *back)).tolist(),
        },
        "images": {
            "evaluate": as_json("evaluate", images),
            "forward": written("predict", images, "x.npy"),
            "backward": np.ravel(written("predict", images, *back)).tolist(),
        },
        "table": {
            "evaluate": as_json("evaluate", GOLDEN / "table", "--data-dir", "table.csv"),
            "forward": written("predict", GOLDEN / "table", "table.csv")[:3],
        },
        "gan": {
            "samples": written("sample", gan, "-n", 5),
            "reconstructed": written("sample", gan, "-n", 5, "--reconstruct"),
        },
    })  # fmt: skip
    for name, value in facts()["folders"].items():
        tolerance = 1e-4 if name.startswith("/images") else 1e-8
        assert found[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name


SMALL_GAN = ("gan", "--checkpoints", 1, "--generator", 4, "--discriminator", 4, "--samples", 200,
             "--scored-samples", 200)  # fmt: skip
EXPERIMENTS = GOLDEN.parent.parent / "data" / "experiments"
COMMANDS: dict[str, tuple[object, ...]] = {  # a quick call of every command that has --json
    "train": ("train", "--epochs", 1, "--limit", 50),
    "train, one direction": ("train", "--epochs", 1, "--limit", 50, "--backward", "none"),
    "train, a table": ("train", "--dataset", "csv", "--data-dir", "table.csv", "--epochs", 1),
    "evaluate": ("evaluate", GOLDEN / "run"),
    "evaluate, a table": ("evaluate", GOLDEN / "table", "--data-dir", "table.csv"),
    "predict": ("predict", GOLDEN / "run", "x.npy"),
    "predict backward": ("predict", GOLDEN / "run", "--direction", "backward", "--labels", "3,7"),
    "predict --out": ("predict", GOLDEN / "run", "x.npy", "--out", "p.csv"),
    "predict, a table": ("predict", GOLDEN / "table", "table.csv"),
    "gan": (*SMALL_GAN, "--iterations", 10),
    "gan --seeds": (*SMALL_GAN, "--iterations", 4, "--seeds", 2),
    "sample": ("sample", GOLDEN / "gan", "-n", 5),
    "sample --reconstruct": ("sample", GOLDEN / "gan", "--reconstruct"),
    "draw noise": ("draw", "noise", GOLDEN / "run"),
    "verify": ("verify", "activation", "--cases", 5),
    "verify --list": ("verify", "--list"),
    "verify MODULE:FUNCTION": ("verify", "own:f", "--size", 3),
    "data list": ("data", "list"),
    "data info": ("data", "info", "digits"),
    "data info, a table": ("data", "info", "csv", "--data-dir", "table.csv"),
    "experiment list": ("experiment", "list"),
    "experiment run": ("experiment", "run", "output-noise-digits", "--quick", "--jobs", 1, "--out",
                       "e"),
    "experiment show": ("experiment", "show", "output-noise-digits", "--out", EXPERIMENTS),
    "experiment search": ("experiment", "search", "--show", "--out", EXPERIMENTS / "search"),
    "info": ("info",),
    "info RUN": ("info", GOLDEN / "run"),
    "bench": ("bench", "--networks", "20-8-4", "--batches", 8, "--threads", 1, "--repeats", 1,
              "--quick"),
}  # fmt: skip


class WithoutTorch:
    """Hides PyTorch, a peer of the benchmarks that takes seconds and is not always there."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("PyTorch is hidden", name="torch")


def keys(tree: Any, prefix: str = "") -> set[str]:
    """Return the paths of all keys."""
    if isinstance(tree, dict):
        found = {f"{prefix}.{key}" for key in tree}
        return found.union(*(keys(value, f"{prefix}.{key}") for key, value in tree.items()))
    if isinstance(tree, list):
        return set().union(*(keys(value, f"{prefix}[]") for value in tree))
    return set()


@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("name", facts()["keys"])
def test_json_has_the_keys_of_version_0_1(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", [WithoutTorch, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    lost = set(facts()["keys"][name]) - keys(as_json(*COMMANDS[name]))
    differs = re.compile(r"\.(environment\.[A-Z]|blas\[|packages\.|versions\.)")  # by machine
    assert not [key for key in lost if not differs.match(key)]
