"""What version 0.1 computed, saved, and printed: a rewritten engine must give the same.

The expected values were written by ``tests/golden/make.py`` with the code of commit ccc3db8. The
engine is named in the first section alone, so a renamed class changes a line there, and never what
is compared. All numbers are float64 over a few steps, so they do not depend on the BLAS kernels.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run

GOLDEN = Path(__file__).parent / "golden"
ROWS = 6

# -- the engine by name: all that a rewrite has to touch -------------------------------------------
NETWORKS: dict[str, list[Any]] = {
    # layers: neurons, or the map that leads to them; "bn" normalizes the layer above it
    "dense": [5, 6, 4, 3],
    "shallow": [5, 3],
    "normalized": [5, (6, "bn"), (4, "bn"), 3],
    "convolution": [("conv", (5, 4, 2), 3, (3, 3), (2, 1), (1, 1)), 4, 3],
    "3x3": [("conv", (8, 8, 1), 3, (3, 3), (1, 1), (1, 1)), ("pool", (8, 8, 3), 4, 4), 3],
    "pooling": [("conv", (5, 5, 1), 4, (2, 2), (1, 1), (0, 0)), ("pool", (4, 4, 4), 2, 2), 3],
    "normalized-images": [("conv", (5, 4, 2), 3, (3, 3), (2, 1), (1, 1), "bn"), (4, "bn"), 3],
    "generator": [3, 5, 4],
    "normalized-generator": [3, (5, "bn"), 4],
    "images-generator": [3, (8, "bn"), ("up", (4, 4, 2), 2, (4, 4), (2, 2), (1, 1))],
}


def network(
    name: str,
    forward: str = "multinomial",
    backward: str = "gaussian",
    activation: str = "tanh",
    seed: int | None = None,
) -> Any:
    """Build a network in float64 with the parameters of a seed, or else with random ones."""
    from nembp.engine.activations import get_activation
    from nembp.engine.batchnorm import BatchNormalization
    from nembp.engine.convolution import Convolution
    from nembp.engine.likelihoods import get_likelihood
    from nembp.engine.linear import AveragePooling, Dense, Transposed
    from nembp.engine.network import Layer, Network

    f = get_activation(activation)
    layers: list[Any] = []
    maps: list[Any] = []

    def add(linear: Any, biases: int, activation: Any, normalized: bool) -> None:
        if not layers:
            layers.append(Layer(linear.inputs))
        maps.append(linear)
        normalization = BatchNormalization() if normalized else None
        layers.append(Layer(linear.outputs, activation, biases, normalization))

    for spec in NETWORKS[name]:
        kind, *rest = spec if isinstance(spec, tuple) else (spec,)
        normalized = "bn" in rest
        rest = [value for value in rest if value != "bn"]
        if kind == "conv":
            linear = Convolution(*rest)
            add(linear, linear.output_shape[2], f, normalized)
        elif kind == "up":
            linear = Transposed(Convolution(*rest))
            add(linear, rest[0][2], f, normalized)
        elif kind == "pool":
            shape, height, width = rest
            add(AveragePooling(shape, (height, width), (height, width)), 0, None, False)
        elif layers or maps:
            add(Dense(layers[-1].size, kind), kind, f, normalized)
        else:
            layers.append(Layer(kind))
    layers[-1] = Layer(layers[-1].size, None, layers[-1].bias_size)
    net = Network(
        layers,
        maps,
        get_likelihood(forward, 1.5 if forward != "gaussian" else 0.8),
        get_likelihood(backward, 0.7),
        dtype="float64",
        seed=seed,
    )
    if seed is None:
        generator = np.random.default_rng(len(name))
        net.parameters[...] = generator.normal(0.0, 0.5, net.parameter_count)
        net.statistics[...] = generator.uniform(0.5, 2.0, net.statistics_count)
    return net


def noise_of(options: dict[str, Any]) -> Any:
    from nembp.engine.noise import Noise

    return Noise(**{"std": 0.3, "decay": 0.5, **options})


def joint_gradient(net: Any, x: Any, t: Any, path: str, noise: dict[str, Any]) -> dict[str, Any]:
    """Return the gradient of both directions in epoch 2, iteration 3, and what is recorded."""
    from nembp.engine.backprop import JointBackpropagation

    step = JointBackpropagation(
        net,
        len(x),
        path=path,  # type: ignore[arg-type]
        noise={place: noise_of(options) for place, options in noise.items()},
        generators={place: net.backend.generator(5, f"noise/{place}") for place in noise},
    )
    step.x[...], step.t[...] = x, t
    gradient = np.zeros(net.parameter_count)
    step(gradient, 2, 3)
    found = {
        "gradient": gradient,
        "statistics": net.statistics.copy(),
        "forward_nll": float(step.forward_nll[0, 0]),
        "backward_nll": float(step.backward_nll[0, 0]),
    }
    for place, source in step.sources.items():
        found[f"{place}/accepted"] = float(source.accepted[0, 0])
        found[f"{place}/gain"] = float(source.gain[0, 0])
    return found


def generator_gradient(
    net: Any, z: Any, error: Any, bidirectional: bool, flow: bool, noise: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the gradient of a generator, whose output has this error."""
    from nembp.engine.backprop import CycleBackpropagation

    step = CycleBackpropagation(
        net,
        len(z),
        bidirectional=bidirectional,
        flow=flow,
        noise=noise_of(noise) if noise else None,
        generator=net.backend.generator(5, "noise"),
    )
    step.z[...] = z
    output = step.run().copy()
    gradient = np.zeros(net.parameter_count)
    step(gradient, error, 2, 3)
    return {
        "gradient": gradient,
        "output": output.ravel(),
        "statistics": net.statistics.copy(),
        "backward_nll": float(step.backward_nll[0, 0]),
    }


def split_of(images: bool) -> Any:
    """Return 20 samples of 3 classes."""
    from nembp.datasets import Split

    generator = np.random.default_rng(7)
    y = generator.integers(0, 3, 20)
    if images:
        return Split(generator.integers(0, 256, (20, 5, 4, 2)).astype(np.uint8), y)
    return Split(generator.normal(size=(20, 5)), y)


def reader_of(net: Any, images: bool, outputs: int = 3) -> Any:
    from nembp.datasets import Scaling
    from nembp.datasets.reading import Augmentation, BatchReader

    augmentation = Augmentation(flip=True, crop=1) if images else None
    scaling = Scaling(factor=1 / 255 if images else 1.0)
    return BatchReader(
        split_of(images),
        scaling,
        Scaling(),
        outputs,
        net.backend,
        "float64",
        augmentation=augmentation,
        seed=3,
    )


def train(
    name: str,
    optimizer: str,
    learning_rate: float,
    schedule: str,
    noise: dict[str, Any],
    backward: bool,
) -> dict[str, Any]:
    """Train two epochs of three steps, from the initial weights of seed 4."""
    from nembp.engine.optimizers import get_optimizer
    from nembp.engine.training import Trainer, set_input_bias

    net = network(name, seed=4)
    images = "conv" in str(NETWORKS[name][0])
    set_input_bias(net, np.linspace(0.1, 0.9, net.inputs))
    trainer = Trainer(
        net,
        reader_of(net, images),
        epochs=2,
        batch_size=8,
        optimizer=get_optimizer(optimizer, learning_rate, 0.01),
        schedule=schedule,
        backward=backward,
        noise={place: noise_of(options) for place, options in noise.items()},
        seed=3,
    )
    rows = trainer.run().epochs
    timed = {"seconds", "samples_per_second"}
    found = {key: value for key, value in rows[-1].items() if key not in timed}
    return {"parameters": net.parameters, "statistics": net.statistics, **found}


def train_adversarially(
    options: dict[str, Any], noise: dict[str, Any], normalized: bool
) -> dict[str, Any]:
    """Train a generator against a discriminator for three iterations."""
    from nembp.adversarial import AdversarialSettings, AdversarialTrainer, Score
    from nembp.engine.batchnorm import BatchNormalization
    from nembp.engine.likelihoods import Bernoulli
    from nembp.engine.network import dense_network
    from nembp.engine.optimizers import Momentum

    settings = AdversarialSettings(**options)
    normalization = BatchNormalization() if normalized else None
    g = dense_network(
        [2, 4, 5],
        forward="gaussian",
        backward="bernoulli" if settings.latent_law == "binary" else "gaussian",
        normalization=normalization,
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
        reader_of(g, False),
        settings,
        batch_size=6,
        iterations=3,
        optimizers=(Momentum(0.05), Momentum(0.05)),
        noise={place: noise_of(each) for place, each in noise.items()},
        seed=3,
        report_every=3,
    )
    row = dict(trainer.run().rows[-1])
    for key in ("seconds", "iterations_per_second"):
        row.pop(key, None)
    return {"generator": g.parameters, "discriminator": d.parameters, **row}


def protocol_digests() -> dict[str, str]:
    from nembp.experiments import available

    return {name: protocol.digest for name, protocol in available().items()}


# -- what is computed ------------------------------------------------------------------------------
LIKELIHOODS = "multinomial", "gaussian", "bernoulli"


def joint_cases() -> dict[str, dict[str, Any]]:
    """Return what each gradient is of: network, ends, path and noise."""
    cases: dict[str, dict[str, Any]] = {}

    def add(net: str, path: str, noise: dict[str, Any] | None = None, **ends: str) -> None:
        noise = noise or {}
        words = [f"{place} {' '.join(map(str, each.values()))}" for place, each in noise.items()]
        name = " | ".join([net, *ends.values(), path, *words])
        cases[name] = {"net": net, "path": path, "noise": noise, **ends}

    for forward, backward, path in product(LIKELIHOODS, LIKELIHOODS, ("samples", "classes")):
        add("dense", path, forward=forward, backward=backward)
    for net, path in product(NETWORKS, ("samples", "classes", "none")):
        if "generator" not in net:
            add(net, path)
    for activation in ("relu", "leaky-relu", "logistic", "identity"):
        add("dense", "samples", activation=activation)
        add("normalized", "classes", activation=activation)
    kinds = "nem", "blind", "anti", "drift"
    for kind, likelihood in product(kinds, LIKELIHOODS):
        add("dense", "samples", {"forward": {"kind": kind}}, forward=likelihood)
        add("dense", "samples", {"backward": {"kind": kind}}, backward=likelihood)
        add("dense", "classes", {"backward": {"kind": kind}}, backward=likelihood)
    for kind, place in product(("nem", "blind", "anti"), ("input", "hidden", "last-hidden")):
        add("dense", "samples", {f"forward/{place}": {"kind": kind}})
        add("dense", "samples", {f"backward/{place}": {"kind": kind}})
    for net in ("normalized", "convolution", "pooling", "normalized-images"):
        add(net, "samples", {"forward/hidden": {"kind": "nem"}, "backward": {"kind": "nem"}})
        add(net, "samples", {"backward/hidden": {"kind": "nem"}})
        add(net, "classes", {"forward": {"kind": "nem"}, "backward": {"kind": "nem"}})
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
                add(
                    "shallow", "samples", {"forward": {"kind": kind, **options}}, forward=likelihood
                )
    for options in ({"screening": "expectation"}, {"rejected": "zero"}, {"draws": 3}):
        add("dense", "samples", {"forward/hidden": {"kind": "nem", **options}})
    return cases


def rows_for(likelihood: str, width: int, generator: np.random.Generator) -> np.ndarray:
    """Return rows that a likelihood can be asked the probability of."""
    if likelihood == "gaussian":
        return generator.normal(size=(ROWS, width))
    rows = generator.uniform(0.05, 0.95, (ROWS, width))
    return rows / rows.sum(axis=1, keepdims=True) if likelihood == "multinomial" else rows


def joint(case: dict[str, Any]) -> dict[str, Any]:
    case = dict(case)
    net, path, noise = case.pop("net"), case.pop("path"), case.pop("noise")
    built = network(net, **case)
    generator = np.random.default_rng(11)
    x = rows_for(case.get("backward", "gaussian"), built.inputs, generator)
    forward = case.get("forward", "multinomial")
    one_hot = path == "classes" or forward == "multinomial"
    t = np.eye(built.outputs)[[0, 1, 2, 1, 1, 0]]
    t = t if one_hot else rows_for(forward, built.outputs, generator)
    return joint_gradient(built, x, t, path, noise)


def generator_cases() -> dict[str, dict[str, Any]]:
    cases: dict[str, dict[str, Any]] = {}
    nets = "generator", "normalized-generator", "images-generator"
    ways = {"forward alone": (False, False), "held fixed": (True, False), "flow": (True, True)}
    for net, forward, (way, (bidirectional, flow)) in product(
        nets, ("gaussian", "bernoulli", "multinomial"), ways.items()
    ):
        case = {"net": net, "forward": forward, "bidirectional": bidirectional, "flow": flow}
        if net == "generator" or forward == "bernoulli":
            cases[f"{net} | {forward} | {way}"] = case
        if bidirectional and forward == "gaussian":
            cases[f"{net} | {forward} | {way} | noise"] = {**case, "noise": {"kind": "nem"}}
    return cases


def generated(case: dict[str, Any]) -> dict[str, Any]:
    net = network(case["net"], case["forward"])
    generator = np.random.default_rng(13)
    z = generator.normal(size=(ROWS, net.inputs))
    error = generator.normal(size=(ROWS, net.outputs)) / ROWS
    return generator_gradient(net, z, error, case["bidirectional"], case["flow"], case.get("noise"))


def training_cases() -> dict[str, dict[str, Any]]:
    nem = {"forward": {"kind": "nem"}, "backward": {"kind": "nem"}}
    plain = {"schedule": "cosine", "noise": {}, "backward": True}
    rates = {"sgd": 0.1, "momentum": 0.05, "rmsprop": 0.01, "adam": 0.02}
    cases = {
        optimizer: {"net": "dense", "optimizer": optimizer, "learning_rate": rate, **plain}
        for optimizer, rate in rates.items()
    }
    adam = cases["adam"]
    for net in ("normalized", "convolution", "normalized-images"):
        cases[f"{net}, noise"] = {**adam, "net": net, "noise": nem}
    for schedule in ("constant", "step", "late-cosine"):
        cases[schedule] = {**cases["sgd"], "schedule": schedule}
    cases["one direction"] = {**adam, "backward": False}
    cases["hidden noise"] = {**adam, "noise": {"forward/hidden": {"kind": "nem"}}}
    cases["backward hidden noise"] = {**adam, "noise": {"backward/hidden": {"kind": "blind"}}}
    return cases


def trained(case: dict[str, Any]) -> dict[str, Any]:
    return train(
        case["net"],
        case["optimizer"],
        case["learning_rate"],
        case["schedule"],
        case["noise"],
        case["backward"],
    )


def adversarial_cases() -> dict[str, dict[str, Any]]:
    both = {"bidirectional": "both"}
    nem = {"kind": "nem"}
    plain: dict[str, dict[str, Any]] = {
        kind: {"kind": kind} for kind in ("vanilla", "minimax", "wasserstein", "wasserstein-gp")
    }
    plain |= {f"{kind}, both": {**options, **both} for kind, options in plain.items()}
    plain |= {
        "discriminator": {"bidirectional": "discriminator"},
        "generator": {"bidirectional": "generator"},
        "flow": {"bidirectional": "generator", "backward_flow": True},
        "permuted": {**both, "backward_permuted": True},
        "labels of both": {**both, "backward_labels": "both"},
        "bits": {"bidirectional": "generator", "latent_law": "binary", "backward_flow": True},
        "classes": {**both, "classes": 3},
        "schedules": {**both, "weight_schedule": "cosine", "weight_until": 0.8},
        "steps": {"critic_steps": 2, "averaging": 0.9},
        "normalized": both,
    }
    cases: dict[str, dict[str, Any]] = {
        name: {"options": options, "noise": {}} for name, options in plain.items()
    }
    for place in (
        "discriminator/forward",
        "discriminator/backward",
        "generator/backward",
        "discriminator/input",
    ):
        cases[f"noise on {place}"] = {"options": both, "noise": {place: nem}}
    cases["noise on critic/input"] = {
        "options": {"kind": "wasserstein"},
        "noise": {"critic/input": nem},
    }
    scheduled = {**both, "noise_schedule": "linear", "noise_until": 0.9}
    cases["scheduled noise"] = {"options": scheduled, "noise": {"discriminator/backward": nem}}
    return cases


def played(name: str, case: dict[str, Any]) -> dict[str, Any]:
    return train_adversarially(case["options"], case["noise"], name == "normalized")


# -- run folders -----------------------------------------------------------------------------------
FOLDERS = {  # what made them
    "run": (
        "train --layers 6 --limit 200 --epochs 2 --dtype float64 --noise nem --seed 1 --threads 1"
    ),
    "images": "train --layers conv4x3s2bn,pool2,8bn --limit 200 --epochs 1 --threads 1",
    "table": "train --dataset csv --layers 5 --epochs 2 --dtype float64 --targets area,edge",
    "gan": (
        "gan --iterations 40 --checkpoints 2 --generator 8bn --discriminator 8 --samples 500 "
        "--scored-samples 500 --dtype float64 --threads 1 --bidirectional both"
    ),
}


def table(path: Path) -> Path:
    """Write a small table of two features and two targets."""
    generator = np.random.default_rng(17)
    rows = ["height,width,area,edge"]
    for height, width in generator.uniform(1, 3, (40, 2)):
        rows.append(f"{height:.3f},{width:.3f},{height * width:.3f},{2 * (height + width):.3f}")
    path.write_text("\n".join(rows) + "\n")
    return path


def command(*args: object) -> dict[str, Any]:
    """Run a command with --json, and return what it printed."""
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def digits() -> np.ndarray:
    """Return three images, in raw units."""
    return np.random.default_rng(19).integers(0, 17, (3, 8, 8, 1)).astype(np.float64)


def read_folders(temporary: Path) -> dict[str, dict[str, Any]]:
    """Return what the folders of version 0.1 predict, score and draw."""
    data = table(temporary / "table.csv")
    np.save(temporary / "x.npy", digits())
    np.save(temporary / "y.npy", np.eye(10)[[3, 7]])
    found: dict[str, dict[str, Any]] = {}
    for name in ("run", "images", "table"):
        where = ("--data-dir", data) if name == "table" else ()
        found[name] = {"evaluate": command("evaluate", GOLDEN / name, *where)}
        out = temporary / f"{name}.npy"
        inputs = data if name == "table" else temporary / "x.npy"
        command("predict", GOLDEN / name, inputs, "--out", out)
        found[name]["forward"] = np.load(out)[:3]
        if name != "table":
            back = temporary / f"{name}-back.npy"
            command(
                "predict", GOLDEN / name, temporary / "y.npy", "--direction", "backward",
                "--out", back,
            )  # fmt: skip
            found[name]["backward"] = np.load(back).ravel()
    found["gan"] = {}
    for name, options in (("samples", ("-n", 5)), ("reconstructed", ("-n", 5, "--reconstruct"))):
        out = temporary / f"{name}.npy"
        command("sample", GOLDEN / "gan", *options, "--out", out)
        found["gan"][name] = np.load(out)
    return found


def numbers(tree: Any, prefix: str = "") -> dict[str, float]:
    """Return every number of a tree of dicts and lists, by its path."""
    if isinstance(tree, dict):
        pairs = list(tree.items())
    elif isinstance(tree, (list, tuple)):
        pairs = list(enumerate(tree))
    elif isinstance(tree, (int, float)) and not isinstance(tree, bool):
        return {prefix: float(f"{tree:.13g}")}
    else:
        return {}
    found: dict[str, float] = {}
    for key, value in pairs:
        found |= numbers(value, f"{prefix}/{key}")
    return found


# -- the keys of --json ----------------------------------------------------------------------------
def keys(tree: Any) -> set[str]:
    """Return the paths of all keys, without those that differ between machines."""
    others = re.compile(r"\.(environment\.[A-Z]|blas\[|packages\.|versions\.)")
    return {key for key in _keys(tree, "") if not others.match(key)}


def _keys(tree: Any, prefix: str) -> set[str]:
    if isinstance(tree, dict):
        found = {f"{prefix}.{key}" for key in tree}
        return found.union(*(_keys(value, f"{prefix}.{key}") for key, value in tree.items()))
    if isinstance(tree, list):
        return set().union(*(_keys(value, f"{prefix}[]") for value in tree))
    return set()


def write_inputs(here: Path) -> None:
    """Write what the commands below read."""
    table(here / "table.csv")
    np.save(here / "x.npy", digits())
    (here / "own.py").write_text("def f(t):\n    return float(t @ t) / 2, t\n")


def commands(here: Path) -> dict[str, tuple[object, ...]]:
    """Return a quick call of every command that has --json."""
    data, experiments = here / "table.csv", GOLDEN.parent.parent / "data" / "experiments"
    digit_run, gan = GOLDEN / "run", GOLDEN / "gan"
    return {
        "train": ("train", "--epochs", 1, "--limit", 50, "--out", here / "train"),
        "train, one direction": (
            "train", "--epochs", 1, "--limit", 50, "--backward", "none", "--out", here / "one",
        ),
        "train, a table": (
            "train", "--dataset", "csv", "--data-dir", data, "--epochs", 1, "--out", here / "csv",
        ),
        "evaluate": ("evaluate", digit_run),
        "evaluate, a table": ("evaluate", GOLDEN / "table", "--data-dir", data),
        "predict": ("predict", digit_run, here / "x.npy"),
        "predict backward": ("predict", digit_run, "--direction", "backward", "--labels", "3,7"),
        "predict --out": ("predict", digit_run, here / "x.npy", "--out", here / "p.csv"),
        "predict, a table": ("predict", GOLDEN / "table", data),
        "gan": (
            "gan", "--iterations", 10, "--checkpoints", 1, "--generator", 4, "--discriminator", 4,
            "--samples", 200, "--scored-samples", 200, "--out", here / "gan",
        ),
        "gan --seeds": (
            "gan", "--iterations", 4, "--checkpoints", 1, "--generator", 4, "--discriminator", 4,
            "--samples", 200, "--scored-samples", 200, "--seeds", 2, "--out", here / "gans",
        ),
        "sample": ("sample", gan, "-n", 5, "--out", here / "s.npy"),
        "sample --reconstruct": ("sample", gan, "--reconstruct", "--out", here / "r.npy"),
        "draw noise": ("draw", "noise", digit_run, "--out", here / "n.png"),
        "verify": ("verify", "activation", "--cases", 5),
        "verify --list": ("verify", "--list"),
        "verify MODULE:FUNCTION": ("verify", "own:f", "--size", 3),
        "data list": ("data", "list"),
        "data info": ("data", "info", "digits"),
        "data info, a table": ("data", "info", "csv", "--data-dir", data),
        "experiment list": ("experiment", "list"),
        "experiment run": (
            "experiment", "run", "output-noise-digits", "--quick", "--jobs", 1, "--out", here / "e",
        ),
        "experiment show": ("experiment", "show", "output-noise-digits", "--out", experiments),
        "experiment search": (
            "experiment", "search", "--show", "--out", experiments / "search",
        ),
        "info": ("info",),
        "info RUN": ("info", digit_run),
        "bench": (
            "bench", "--networks", "20-8-4", "--batches", 8, "--threads", 1, "--repeats", 1,
            "--quick",
        ),
    }  # fmt: skip


class WithoutTorch:
    """Hides PyTorch, a peer of the benchmarks that takes seconds and is not always there."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("PyTorch is hidden", name="torch")


# -- the facts -------------------------------------------------------------------------------------
def computed() -> dict[str, dict[str, Any]]:
    """Return all numbers that are compared, by group and case."""
    found = {f"joint/{name}": joint(case) for name, case in joint_cases().items()}
    found |= {f"generator/{name}": generated(case) for name, case in generator_cases().items()}
    found |= {f"trained/{name}": trained(case) for name, case in training_cases().items()}
    return found | {
        f"adversarial/{name}": played(name, case) for name, case in adversarial_cases().items()
    }


@cache
def facts() -> dict[str, Any]:
    return json.loads((GOLDEN / "facts.json").read_text())  # type: ignore[no-any-return]


@cache
def arrays() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "facts.npz") as file:
        return dict(file)


def compare(name: str, found: dict[str, Any], tolerance: float) -> None:
    """Assert that a case gives what version 0.1 gave; an array's error is relative to its size."""
    expected = facts()["numbers"][name]
    vectors = {key: value for key, value in found.items() if isinstance(value, np.ndarray)}
    scalars = {key: value for key, value in found.items() if key not in vectors}
    flat = np.concatenate([np.zeros(0), *(vectors[key] for key in sorted(vectors))])
    assert flat.shape == arrays()[name].shape
    start = 0
    for key in sorted(vectors):
        part = arrays()[name][start : start + len(vectors[key])]
        start += len(part)
        scale = np.abs(part).max(initial=0.0)
        error = np.abs(vectors[key] - part).max(initial=0.0)
        assert error <= tolerance * scale, f"{key}: off by {error:.3g} of {scale:.3g}"
    assert scalars == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("name", joint_cases())
def test_gradients_of_both_directions(name):
    compare(f"joint/{name}", joint(joint_cases()[name]), 1e-10)


@pytest.mark.parametrize("name", generator_cases())
def test_gradients_of_a_generator(name):
    compare(f"generator/{name}", generated(generator_cases()[name]), 1e-10)


@pytest.mark.parametrize("name", training_cases())
def test_parameters_after_a_training(name):
    compare(f"trained/{name}", trained(training_cases()[name]), 1e-8)


@pytest.mark.parametrize("name", adversarial_cases())
def test_parameters_after_adversarial_iterations(name):
    compare(f"adversarial/{name}", played(name, adversarial_cases()[name]), 1e-8)


def test_protocols_have_the_hashes_of_their_committed_rows():
    digests = protocol_digests()
    assert {name: digests.get(name) for name in facts()["protocols"]} == facts()["protocols"]


def test_folders_of_version_0_1_predict_score_and_draw_the_same(tmp_path):
    found = numbers(json.loads(json.dumps(read_folders(tmp_path), default=np.ndarray.tolist)))
    expected = facts()["folders"]
    assert set(expected) <= set(found)
    for name, value in expected.items():
        tolerance = 1e-4 if name.startswith("/images") else 1e-8
        assert found[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("name", commands(Path()))
def test_json_has_the_keys_of_version_0_1(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", [WithoutTorch, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    write_inputs(tmp_path)
    lost = set(facts()["keys"][name]) - keys(command(*commands(tmp_path)[name]))
    assert not lost, f"lost {sorted(lost)}"


def make_folders() -> None:
    """Make the folders again; for ``tests/golden/make.py`` alone."""
    for name, line in FOLDERS.items():
        folder = GOLDEN / name
        shutil.rmtree(folder, ignore_errors=True)
        where = ("--data-dir", table(GOLDEN / "table.csv")) if name == "table" else ()
        result = run(*line.split(), *where, "--out", folder, "--quiet")
        assert result.exit_code == 0, result.output
        for picture in (*folder.glob("*.png"), *folder.glob("*.gif")):
            picture.unlink()
    (GOLDEN / "table.csv").unlink()
