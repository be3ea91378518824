"""The adversarial suite: training steps of a generator and a discriminator."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from nembp.backend import Backend
from nembp.benchmarks import Progress, Settings
from nembp.benchmarks.agreement import check_agreement
from nembp.benchmarks.card import floor_seconds, measure_card
from nembp.benchmarks.cases import measure_cases, synthetic_batch
from nembp.benchmarks.gan_steps import (
    EngineGan,
    TorchGan,
    gan_multiply_adds,
    gan_networks,
)
from nembp.benchmarks.notation import parse_network
from nembp.benchmarks.peers import MissingPeerError
from nembp.benchmarks.steps import LEARNING_RATE, turns
from nembp.benchmarks.tables import columns, duration
from nembp.benchmarks.timing import Contender, interleave
from nembp.benchmarks.torch_graphs import device_clock, set_precision
from nembp.benchmarks.traffic import adam_bytes

__all__ = [
    "DEFAULTS",
    "QUICK",
    "STEP",
    "GanCase",
    "check_network",
    "measure",
    "measure_gan",
    "table",
]

DEFAULTS = Settings(
    networks=("64-256-256-784",), batches=(64, 256), threads=(1, 2), budget=40.0, memory=False
)
QUICK = Settings(
    networks=("64-256-256-784",), batches=(64,), threads=(1,), budget=6.0, memory=False
)
STEP = (
    "A step draws z, moves the discriminator on real and generated samples and then the generator, "
    "both by Adam, the non-saturating objective. A network is the generator's; the discriminator "
    "has its layers the other way round and one output. nembp's step is an iteration of its "
    "trainer, which also reads its samples and keeps a record. PyTorch runs eagerly with fused "
    "Adam, in one direction, and on a GPU also captured as a CUDA graph. Before the timing its "
    "gradients are checked against nembp's."
)
COLUMNS = (
    ("nembp", "one", "nembp/one_direction"),
    ("G in both", "directions", "nembp/bidirectional"),
    ("call by", "call", "nembp call by call/one_direction"),
    ("PyTorch", "eager", "torch/one_direction"),
    ("PyTorch", "graph", "torch graph/one_direction"),
)


@dataclass(frozen=True)
class GanCase:
    """One line of the table."""

    network: str
    batch: int
    threads: int
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.network}, batch {self.batch}, threads {self.threads}"


def check_network(text: str) -> None:
    """Raise ArchitectureError, naming ``text``, if it is no dense network."""
    parse_network(text)


def measure(settings: Settings, backend: Backend, progress: Progress) -> list[dict[str, Any]]:
    """Time every case of the settings."""
    return measure_cases(settings, backend, progress, GanCase, measure_gan)


def measure_gan(
    case: GanCase, backend: Backend, repeats: int | None, budget: float
) -> dict[str, Any]:
    """Time the steps of a case, after a check that PyTorch's gradients are nembp's."""
    sizes, precision = parse_network(case.network), getattr(backend, "precision", "float32")
    set_precision(precision)
    nets = gan_networks(sizes, backend, case.dtype)
    x = synthetic_batch(case.batch, sizes[-1], 2)[0].astype(case.dtype)
    agreement = _agreement(case, nets, x, precision)
    steps, missing = _contenders(nets, x, backend)
    start = time.perf_counter()
    contenders = {
        name: Contender(
            step, getattr(step, "synchronize", backend.synchronize), device_clock(backend, step)
        )
        for name, step in steps.items()
    }
    timings = interleave(contenders, repeats=repeats, budget=budget, **turns(case))
    elapsed = time.perf_counter() - start
    times = {name: timing.to_dict() for name, timing in timings.items()}
    seconds = {name: timing.median for name, timing in timings.items()}
    work = gan_multiply_adds(sizes, case.batch)
    moved = sum(adam_bytes(net.parameter_count, case.dtype) for net in nets) + x.nbytes
    floor = None
    if backend.name == "gpu":
        floor = floor_seconds(measure_card(backend, case.dtype), work, moved)
    one, trainer = seconds["nembp/one_direction"], steps["nembp/one_direction"].trainer
    return {
        "kind": "gan step",
        "network": case.network,
        "batch": case.batch,
        "threads": case.threads,
        "dtype": case.dtype,
        "precision": precision,
        "captured": trainer.captured > 0,
        "why_not_captured": trainer.why_not_captured,
        "multiply_adds": work,
        "bytes": moved,
        "agreement": agreement,
        "times": {**times, **{name: {"missing": reason} for name, reason in missing.items()}},
        "floor": floor,
        "ratios": {
            **{name: seconds[name] / one for name in seconds},
            "one_direction/floor": None if floor is None else one / floor,
        },
        "seconds": elapsed,
        "headline": f"{1e6 * one:.4g} us a step, {timings['nembp/one_direction'].rounds} rounds",
    }


def _contenders(
    nets: tuple[Any, Any], x: Any, backend: Backend
) -> tuple[dict[str, Any], dict[str, str]]:
    def fresh() -> tuple[Any, Any]:
        return nets[0].copy(), nets[1].copy()

    graphs = backend.name == "gpu"
    built: dict[str, Any] = {
        "nembp/one_direction": EngineGan(*fresh(), x, False, LEARNING_RATE, graphs),
        "nembp/bidirectional": EngineGan(*fresh(), x, True, LEARNING_RATE, graphs),
    }
    if graphs:
        plain = EngineGan(*fresh(), x, False, LEARNING_RATE)
        built["nembp call by call/one_direction"] = plain
    missing = {}
    peer = partial(TorchGan, *nets, x, LEARNING_RATE)
    for name, graph in {"torch/one_direction": False, "torch graph/one_direction": True}.items():
        try:
            built[name] = peer(graph=graph)
        except MissingPeerError as error:
            missing[name] = str(error)
    return built, missing


def _agreement(
    case: GanCase, nets: tuple[Any, Any], x: Any, precision: str
) -> dict[str, float] | None:
    """Return by how much PyTorch's gradients of a first step differ from nembp's, or raise."""
    try:
        theirs = TorchGan(*nets, x, LEARNING_RATE)
    except MissingPeerError:
        return None
    engine = EngineGan(nets[0].copy(), nets[1].copy(), x, False, LEARNING_RATE)
    z, ours = engine.at_rest()
    found = {}
    for player, mine, other in zip(("G", "D"), ours, theirs.gradients(z), strict=True):
        what = f"the gradient of {player} of {case}"
        found[player] = check_agreement(what, mine[: len(other)], other, precision=precision)
    return found


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as text for people."""
    head = [("", "network"), ("", "threads"), ("", "batch"), *((a, b) for a, b, _ in COLUMNS)]
    head += [("", "floor"), ("PyTorch", "/ one"), ("both", "/ one"), ("one", "/ floor")]
    rows = []
    for result in results:
        times = (result["times"].get(name, {"missing": "-"}) for _, _, name in COLUMNS)
        cells = [each.get("missing") or duration(each["median"]) for each in times]
        ratios = (
            result["ratios"].get(name)
            for name in ("torch/one_direction", "nembp/bidirectional", "one_direction/floor")
        )
        rows.append(
            [
                result["network"], str(result["threads"]), str(result["batch"]), *cells,
                "-" if result["floor"] is None else duration(result["floor"]),
                *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            ]
        )  # fmt: skip
    return columns(head, rows)
