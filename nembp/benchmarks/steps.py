"""Whole training steps: nembp's, PyTorch's, scikit-learn's and the floor, for any suite."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from nembp.backend import Backend
from nembp.benchmarks.agreement import check_agreement
from nembp.benchmarks.cases import Case
from nembp.benchmarks.environment import threads_now
from nembp.benchmarks.floor import Products, multiply_adds
from nembp.benchmarks.peers import MissingPeerError, SklearnStep, TorchStep
from nembp.benchmarks.timing import Contender, Timing, interleave, settle
from nembp.benchmarks.traffic import AdamTraffic, adam_bytes
from nembp.benchmarks.window_products import BLOCK
from nembp.engine.backprop import JointBackpropagation, Path
from nembp.engine.convolution import Convolution
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Adam

__all__ = [
    "LEARNING_RATE",
    "PATHS",
    "EngineStep",
    "Threaded",
    "best_of",
    "measure_step",
    "ratios",
    "turns",
]

# so small that thousands of steps on one batch leave the arithmetic as it is: nothing overfits,
# no unit dies, and no moment of Adam decays into denormal numbers, which are slow
LEARNING_RATE = 1e-6
WARM_UP = 0.1  # seconds of untimed steps of several threads

PATHS: dict[str, Path] = {
    "nembp/bidirectional": "classes",
    "nembp/bidirectional_samples": "samples",
    "nembp/one_direction": "none",
}
DIRECTIONS: dict[str, Path] = {"bidirectional": "classes", "one_direction": "none"}
LAYOUTS = {"N C H W": False, "N H W C": True}  # PyTorch's: channels last
RATIOS = {  # name: numerator, denominator
    "bidirectional/one_direction": ("nembp/bidirectional", "nembp/one_direction"),
    "bidirectional_samples/one_direction": ("nembp/bidirectional_samples", "nembp/one_direction"),
    "torch_bidirectional/bidirectional": ("torch/bidirectional", "nembp/bidirectional"),
    "torch_bidirectional/bidirectional_samples": (
        "torch/bidirectional",
        "nembp/bidirectional_samples",
    ),
    "torch_one_direction/one_direction": ("torch/one_direction", "nembp/one_direction"),
    "bidirectional/torch_one_direction": ("nembp/bidirectional", "torch/one_direction"),
    "sklearn_one_direction/one_direction": ("sklearn/one_direction", "nembp/one_direction"),
    "bidirectional/floor": ("nembp/bidirectional", "floor/bidirectional"),
    "one_direction/floor": ("nembp/one_direction", "floor/one_direction"),
}
Host = np.ndarray[Any, Any]


class Threaded(Protocol):
    """A case that says how many threads it has."""

    @property
    def threads(self) -> int:
        """Of every library."""


class EngineStep:
    """nembp's own step, of one path, on a batch already in its buffers."""

    def __init__(
        self,
        net: Network,
        x: Host,
        labels: Host,
        path: Path,
        learning_rate: float,
        noise: dict[str, Noise] | None = None,
    ) -> None:
        self.net, self.batch_bytes = net, x.nbytes
        directions = {name: net.backend.generator(0, f"benchmark/{name}") for name in noise or {}}
        self.joint = JointBackpropagation(
            net, len(labels), path=path, noise=noise, generators=directions
        )
        self.joint.x[...] = net.backend.asarray(x, net.dtype)
        one_hot = np.eye(net.outputs)[labels]
        self.joint.t[...] = net.backend.asarray(one_hot, net.dtype)
        self.adam = Adam(learning_rate)
        self._gradient = self.adam.bind(net)

    def __call__(self) -> None:
        """Gradient and Adam update."""
        self.joint(self._gradient)
        self.adam.step()

    def gradient(self) -> Host:
        """Return the gradient at the parameters as they are."""
        self.joint(self._gradient)
        return self.net.backend.to_numpy(self._gradient)


def measure_step(
    case: Case, backend: Backend, repeats: int | None, budget: float
) -> dict[str, Any]:
    """Time the steps of a case, after a check that PyTorch's gradients are nembp's."""
    if backend.name == "gpu":
        from nembp.benchmarks.gpu_steps import measure_gpu_step

        return measure_gpu_step(case, backend, repeats, budget)
    net = case.start(backend)
    steps, missing = _contenders(case, net)
    agreement = _agreement(case, steps)
    start = time.perf_counter()
    waits = {
        name: getattr(step, "synchronize", backend.synchronize) for name, step in steps.items()
    }
    contenders = {name: Contender(step, waits[name]) for name, step in steps.items()}
    timings = interleave(contenders, repeats=repeats, budget=budget, **turns(case))
    elapsed = time.perf_counter() - start
    times = _times(timings, missing)
    seconds = {name: time["median"] for name, time in times.items() if "median" in time}
    adam = min(seconds[name] for name in seconds if name.startswith("floor/adam"))
    for name in DIRECTIONS:
        products = (seconds[each] for each in seconds if each.startswith(f"floor/{name}_products"))
        seconds[f"floor/{name}"] = min(products) + adam
    both = times["nembp/bidirectional"]
    return {
        "kind": "step",
        "network": case.network,
        "batch": case.batch,
        "threads": case.threads,
        "threads_in_force": threads_now(),
        "dtype": case.dtype,
        "parameters": net.parameter_count,
        "multiply_adds": {
            name: multiply_adds(net.maps, case.batch, path) for name, path in PATHS.items()
        },
        "adam_bytes": adam_bytes(net.parameter_count, case.dtype),
        "agreement": agreement,
        "times": times,
        "floor": {name: seconds[f"floor/{name}"] for name in DIRECTIONS},
        "ratios": ratios(seconds),
        "seconds": elapsed,
        "headline": f"{1e3 * both['median']:.3g} ms a bidirectional step, {both['rounds']} rounds",
    }


def turns(case: Threaded) -> dict[str, Any]:
    """Return how a contender's turn begins: with several threads, apart from the last one's."""
    return {"pause": settle, "warm_up": WARM_UP} if case.threads > 1 else {}


def _contenders(case: Case, net: Network) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the steps of a case by name, and why others are missing."""
    x, labels = case.draw()
    backend, rate, dtype = net.backend, LEARNING_RATE, case.dtype
    built: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, path in PATHS.items():
        built[name] = EngineStep(net.copy(), x, labels, path, rate)
    for name, build in _peers(net, x, labels).items():
        try:
            built[name] = build()
        except MissingPeerError as error:
            missing[name.partition(" as ")[0]] = str(error)

    images = any(isinstance(linear_map, Convolution) for linear_map in net.maps)
    blocks = {"": None, "_in_blocks": BLOCK} if images else {"": None}
    for name, path in DIRECTIONS.items():
        for how, block in blocks.items():
            products = Products(backend, net.maps, case.batch, path, dtype, block)
            built[f"floor/{name}_products{how}"] = products
    threads = case.threads if backend.name == "cpu" else 1
    for workers in {1, threads}:
        traffic = AdamTraffic(backend, net.parameter_count, dtype, workers)
        built[f"floor/adam_{workers}"] = traffic
    return built, missing


def _peers(net: Network, x: Host, labels: Host) -> dict[str, Callable[[], Any]]:
    """Return what builds the peers; PyTorch's steps on images in both layouts."""
    torch = partial(TorchStep, net, x, labels, learning_rate=LEARNING_RATE)
    if all(layer.biases == layer.size for layer in net.layers):
        sklearn = partial(SklearnStep, net, x, labels, learning_rate=LEARNING_RATE)
        return {
            "torch/bidirectional": partial(torch, bidirectional=True),
            "torch/one_direction": partial(torch, bidirectional=False),
            "sklearn/one_direction": sklearn,
        }
    return {
        f"torch/{name} as {layout}": partial(
            torch, bidirectional=name == "bidirectional", channels_last=last
        )
        for name in DIRECTIONS
        for layout, last in LAYOUTS.items()
    }


def _agreement(case: Case, steps: dict[str, Any]) -> dict[str, float]:
    """Return by how much PyTorch's gradients differ from nembp's, or raise."""
    found = {}
    for name, step in steps.items():
        if name.startswith("torch/"):
            direction = name.removeprefix("torch/").partition(" as ")[0]
            ours, theirs = steps[f"nembp/{direction}"].gradient(), step.gradient()
            # in one direction PyTorch has no biases of the other, which come last
            what = f"the {direction} gradient of {case}"
            found[name] = check_agreement(what, ours[: len(theirs)], theirs)
    return found


def _times(timings: dict[str, Timing], missing: dict[str, str]) -> dict[str, dict[str, Any]]:
    measured: dict[str, dict[str, Any]] = {n: timing.to_dict() for n, timing in timings.items()}
    measured |= best_of(measured)
    return {**measured, **{name: {"missing": reason} for name, reason in missing.items()}}


def best_of(times: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, for contenders ``name as layout``, the faster one as ``name``, with its ``layout``.

    >>> best_of({"a as x": {"median": 2.0}, "a as y": {"median": 1.0}, "b": {"median": 3.0}})
    {'a': {'median': 1.0, 'layout': 'y'}}
    """
    best: dict[str, dict[str, Any]] = {}
    for name, found in times.items():
        short, _, layout = name.partition(" as ")
        if layout and (short not in best or found["median"] < best[short]["median"]):
            best[short] = {**found, "layout": layout}
    return best


def ratios(seconds: dict[str, float]) -> dict[str, float | None]:
    """Return the ratios of medians; None where a peer is missing."""
    return {
        name: seconds[above] / seconds[below] if above in seconds and below in seconds else None
        for name, (above, below) in RATIOS.items()
    }
