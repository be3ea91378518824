"""Whole training steps on a GPU: nembp's captured one, PyTorch's in three ways, and the floor.

Everything is timed by events of the device. The floor is the step's multiply-adds over the rate of
a large product, and the bytes that Adam and the reading of the batch must move over the bandwidth
of a long copy, both measured on the card just before; beside it the step's own products by
themselves, captured too, which are smaller and so reach less than that rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from nembp.backend import Backend
from nembp.benchmarks.agreement import check_agreement
from nembp.benchmarks.card import floor_seconds, measure_card
from nembp.benchmarks.cases import Case
from nembp.benchmarks.floor import Products, multiply_adds
from nembp.benchmarks.peers import MissingPeerError, TorchStep
from nembp.benchmarks.steps import DIRECTIONS, LAYOUTS, LEARNING_RATE, PATHS, EngineStep, best_of
from nembp.benchmarks.timing import Contender, interleave
from nembp.benchmarks.torch_graphs import (
    CapturedTorchStep,
    CompiledTorchStep,
    device_clock,
    set_precision,
)
from nembp.benchmarks.traffic import adam_bytes
from nembp.engine.backprop import Path
from nembp.engine.convolution import Convolution
from nembp.engine.network import Network

__all__ = ["CapturedStep", "measure_gpu_step"]

TORCH = {"torch": TorchStep, "torch compiled": CompiledTorchStep, "torch graph": CapturedTorchStep}


class CapturedStep(EngineStep):
    """nembp's step as a replayed CUDA graph; its Adam is always at its thousandth step."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        backend: Any = self.net.backend
        self._numbers = backend.asarray(np.array(self.adam.numbers(1000, 1.0)))
        for _ in range(2):
            self._work()
        self._graph = backend.capture_graph(self._work)

    def _work(self) -> None:
        self.joint(self._gradient)
        self.net.backend.optimizer_step(self.adam, self._numbers)

    def __call__(self) -> None:
        """Gradient and Adam update."""
        self._graph()


class _CapturedProducts:
    """The bare products of a step, captured."""

    def __init__(self, backend: Any, *args: Any) -> None:
        products = Products(backend, *args)
        products()
        self._run = backend.capture_graph(products)

    def __call__(self) -> None:
        """Run them once."""
        self._run()


def measure_gpu_step(
    case: Case, backend: Backend, repeats: int | None, budget: float
) -> dict[str, Any]:
    """Time the steps of a case, after a check that PyTorch's gradients are nembp's."""
    set_precision(getattr(backend, "precision", "float32"))
    card = measure_card(backend, case.dtype)
    net = case.start(backend)
    steps, missing = _contenders(case, net)
    agreement = _agreement(case, steps, getattr(backend, "precision", "float32"))
    start = time.perf_counter()
    contenders = {
        name: Contender(
            step, getattr(step, "synchronize", backend.synchronize), device_clock(backend, step)
        )
        for name, step in steps.items()
    }
    timings = interleave(contenders, repeats=repeats, budget=budget)
    elapsed = time.perf_counter() - start
    times: dict[str, dict[str, Any]] = {name: each.to_dict() for name, each in timings.items()}
    times |= best_of(times)
    seconds = {name: each["median"] for name, each in times.items()}
    work = {name: multiply_adds(net.maps, case.batch, path) for name, path in PATHS.items()}
    moved = adam_bytes(net.parameter_count, case.dtype) + steps["nembp/one_direction"].batch_bytes
    floor = {
        name: floor_seconds(card, work[f"nembp/{name}"], moved) for name in DIRECTIONS
    }  # fmt: skip
    both = times["nembp/bidirectional"]
    return {
        "kind": "gpu step",
        "network": case.network,
        "batch": case.batch,
        "threads": case.threads,
        "dtype": case.dtype,
        "precision": getattr(backend, "precision", "float32"),
        "captured": True,
        "parameters": net.parameter_count,
        "multiply_adds": work,
        "bytes": moved,
        "card": card.to_dict(),
        "agreement": agreement,
        "times": {**times, **{name: {"missing": reason} for name, reason in missing.items()}},
        "floor": floor,
        "ratios": _ratios(seconds, floor),
        "seconds": elapsed,
        "headline": f"{1e6 * both['median']:.3g} us a bidirectional step, {both['rounds']} rounds",
    }


def _contenders(case: Case, net: Network) -> tuple[dict[str, Any], dict[str, str]]:
    x, labels = case.draw()
    backend = net.backend
    built: dict[str, Any] = {}
    missing: dict[str, str] = {}

    def step(kind: type[EngineStep], path: Path) -> EngineStep:
        return kind(net.copy(), x, labels, path, LEARNING_RATE)

    for name, path in PATHS.items():
        built[name] = step(CapturedStep, path)
    for name, path in DIRECTIONS.items():
        built[f"nembp call by call/{name}"] = step(EngineStep, path)
        products = net.maps, case.batch, path, case.dtype
        built[f"products/{name}"] = _CapturedProducts(backend, *products)
    for name, build in _peers(net, x, labels).items():
        try:
            built[name] = build()
        except MissingPeerError as error:
            missing[name.partition(" as ")[0]] = str(error)
    return built, missing


def _has_images(net: Network) -> bool:
    return any(isinstance(linear_map, Convolution) for linear_map in net.maps)


def _peers(net: Network, x: Any, labels: Any) -> dict[str, Callable[[], Any]]:
    layouts = LAYOUTS if _has_images(net) else {"": False}
    peers: dict[str, Callable[[], Any]] = {}
    for who, kind in TORCH.items():
        for name in DIRECTIONS:
            for layout, last in layouts.items():
                if kind is CompiledTorchStep and (last or name != "bidirectional"):
                    continue  # compiling takes PyTorch half a minute
                options: dict[str, Any] = {
                    "bidirectional": name == "bidirectional", "learning_rate": LEARNING_RATE,
                    "channels_last": last,
                }  # fmt: skip
                full = f"{who}/{name} as {layout}" if layout else f"{who}/{name}"
                peers[full] = partial(kind, net, x, labels, **options)
    return peers


def _agreement(case: Case, steps: dict[str, Any], precision: str) -> dict[str, float]:
    """Return by how much PyTorch's gradients differ from nembp's, or raise."""
    found = {}
    for name, step in steps.items():
        who, _, direction = name.partition("/")
        if who == "torch":
            direction = direction.partition(" as ")[0]
            ours, theirs = steps[f"nembp/{direction}"].gradient(), step.gradient()
            what = f"the {direction} gradient of {case}"
            found[name] = check_agreement(what, ours[: len(theirs)], theirs, precision=precision)
    return found


def _ratios(seconds: dict[str, float], floor: dict[str, float]) -> dict[str, float | None]:
    """Return PyTorch's times over nembp's, and nembp's over the floor and the bare products."""
    ratios: dict[str, float | None] = {}
    for name in DIRECTIONS:
        ours = seconds[f"nembp/{name}"]
        for who in (*TORCH, "nembp call by call"):
            theirs = seconds.get(f"{who}/{name}")
            ratios[f"{who}/{name}"] = None if theirs is None else theirs / ours
        ratios[f"{name}/floor"] = ours / floor[name]
        ratios[f"{name}/products"] = ours / seconds[f"products/{name}"]
    return ratios
