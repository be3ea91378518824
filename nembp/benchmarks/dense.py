"""The dense suite: training steps of fully connected classifiers beside their peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from nembp.backend import Backend
from nembp.backpropagation import JointBackpropagation, Path
from nembp.benchmarks import Progress, Settings
from nembp.benchmarks.cases import (
    Case,
    cases_of,
    parse_network,
    start_network,
    synthetic_batch,
)
from nembp.benchmarks.environment import threads_limited, threads_now
from nembp.benchmarks.floor import AdamTraffic, Products, adam_bytes, multiply_adds
from nembp.benchmarks.peers import MissingPeerError, SklearnStep, TorchStep, load_peers
from nembp.benchmarks.report import dense_table as table
from nembp.benchmarks.timing import Contender, Timing, interleave
from nembp.network import Network
from nembp.optimizers import Adam

__all__ = ["DEFAULTS", "QUICK", "STEP", "EngineStep", "check_network", "measure", "table"]

DEFAULTS = Settings(
    networks=("784-256-128-10", "784-512-512-10", "784-1024-1024-1024-10"),
    batches=(32, 128, 512),
    threads=(1, 2),
)
QUICK = Settings(
    networks=("784-512-512-10",), batches=(32, 128), threads=(1, 2), budget=8.0, memory=False
)
STEP = (
    "A step is the gradient and Adam's update of every parameter, on a batch that already lies in "
    "the step's buffers: reading and scaling data is not part of it. PyTorch runs eagerly with "
    "fused Adam, and its bidirectional step is the plain one, one backward row a sample."
)
# so small that thousands of steps on one batch leave the arithmetic as it is: nothing overfits,
# no unit dies, and no moment of Adam decays into denormal numbers, which are slow
LEARNING_RATE = 1e-6
PAUSE = 0.05  # seconds until the threads of the library that ran before have gone to sleep

PATHS: dict[str, Path] = {
    "nembp/bidirectional": "classes",
    "nembp/bidirectional_samples": "samples",
    "nembp/one_direction": "none",
}
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


def check_network(text: str) -> None:
    """Raise ArchitectureError, naming ``text``, if it is no dense network."""
    parse_network(text)


class EngineStep:
    """nembp's own step, of one path, on a batch already in its buffers."""

    def __init__(
        self,
        net: Network,
        x: np.ndarray[Any, Any],
        labels: np.ndarray[Any, Any],
        path: Path,
        learning_rate: float,
    ) -> None:
        self.net = net
        self._joint = JointBackpropagation(net, len(labels), path=path)
        self._joint.x[...] = net.backend.asarray(x, net.dtype)
        one_hot = np.eye(net.outputs)[labels]
        self._joint.t[...] = net.backend.asarray(one_hot, net.dtype)
        self._adam = Adam(learning_rate)
        self._gradient = self._adam.bind(net)

    def __call__(self) -> None:
        """Gradient and Adam update."""
        self._joint(self._gradient)
        self._adam.step()


def contenders(case: Case, backend: Backend) -> tuple[dict[str, Contender], dict[str, str]]:
    """Return the steps of a case by name, and why others are missing."""
    x, labels = synthetic_batch(case)
    net = start_network(case, backend)
    wait, rate, dtype = backend.synchronize, LEARNING_RATE, case.dtype
    built: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for name, path in PATHS.items():
        built[name] = Contender(EngineStep(net.copy(), x, labels, path, rate), wait)

    torch = partial(TorchStep, net, x, labels, learning_rate=rate)
    peers: dict[str, Callable[[], Any]] = {
        "torch/bidirectional": partial(torch, bidirectional=True),
        "torch/one_direction": partial(torch, bidirectional=False),
        "sklearn/one_direction": partial(SklearnStep, net, x, labels, learning_rate=rate),
    }
    for name, build in peers.items():
        try:
            step = build()
        except MissingPeerError as error:
            missing[name] = str(error)
        else:
            built[name] = Contender(step, getattr(step, "synchronize", wait))

    for name, path in (("bidirectional", PATHS["nembp/bidirectional"]), ("one_direction", "none")):
        products = Products(backend, case.sizes, case.batch, path, dtype)
        built[f"floor/{name}_products"] = Contender(products, wait)
    threads = case.threads if backend.name == "cpu" else 1
    for workers in {1, threads}:
        stream_over = AdamTraffic(backend, net.parameter_count, dtype, workers)
        built[f"floor/adam_{workers}"] = Contender(stream_over, wait)
    return built, missing


def measure(settings: Settings, backend: Backend, progress: Progress) -> list[dict[str, Any]]:
    """Time every case of the settings; a case's unused time goes to the later ones.

    On a GPU the number of CPU threads decides nothing: only the first is measured.
    """
    if backend.name == "gpu":
        settings = replace(settings, threads=settings.threads[:1])
    cases = list(cases_of(settings))
    load_peers()  # now, so that the limit on threads finds their libraries
    results: list[dict[str, Any]] = []
    for number, case in enumerate(cases, start=1):
        left = settings.budget - sum(result["seconds"] for result in results)
        share = left / (len(cases) - number + 1)
        with threads_limited(case.threads):
            result = _measure_case(case, backend, settings.repeats, share)
        results.append(result)
        both = result["times"]["nembp/bidirectional"]
        progress(
            f"[{number}/{len(cases)}] {case}: {1e3 * both['median']:.3g} ms a bidirectional step, "
            f"{both['rounds']} rounds"
        )
    return results


def _measure_case(
    case: Case, backend: Backend, repeats: int | None, budget: float
) -> dict[str, Any]:
    steps, missing = contenders(case, backend)
    pause = PAUSE if case.threads > 1 else 0.0
    start = time.perf_counter()
    timings = interleave(steps, repeats=repeats, budget=budget, pause=pause)
    elapsed = time.perf_counter() - start
    seconds = {name: timing.median for name, timing in timings.items()}
    adam = min(seconds[name] for name in seconds if name.startswith("floor/adam"))
    for name in ("bidirectional", "one_direction"):
        seconds[f"floor/{name}"] = seconds[f"floor/{name}_products"] + adam
    parameters = start_network(case, backend).parameter_count
    return {
        "network": case.network,
        "batch": case.batch,
        "threads": case.threads,
        "threads_in_force": threads_now(),
        "dtype": case.dtype,
        "parameters": parameters,
        "multiply_adds": {
            name: multiply_adds(case.sizes, case.batch, path) for name, path in PATHS.items()
        },
        "adam_bytes": adam_bytes(parameters, case.dtype),
        "times": _times(timings, missing),
        "floor": {
            "bidirectional": seconds["floor/bidirectional"],
            "one_direction": seconds["floor/one_direction"],
        },
        "ratios": ratios(seconds),
        "seconds": elapsed,
    }


def _times(timings: dict[str, Timing], missing: dict[str, str]) -> dict[str, dict[str, Any]]:
    measured = {name: timing.to_dict() for name, timing in timings.items()}
    return {**measured, **{name: {"missing": reason} for name, reason in missing.items()}}


def ratios(seconds: dict[str, float]) -> dict[str, float | None]:
    """Return the ratios of medians; None where a peer is missing."""
    return {
        name: seconds[above] / seconds[below] if above in seconds and below in seconds else None
        for name, (above, below) in RATIOS.items()
    }
