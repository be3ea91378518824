"""The parts suite: where the time of a dense training step goes."""

from __future__ import annotations

import statistics
import time
from typing import Any

from nembp.backend import Backend
from nembp.benchmarks import Progress, Settings
from nembp.benchmarks.cases import DenseCase, measure_cases
from nembp.benchmarks.environment import threads_now
from nembp.benchmarks.floor import Products
from nembp.benchmarks.notation import parse_network
from nembp.benchmarks.steps import LEARNING_RATE, EngineStep, turns
from nembp.benchmarks.stopwatch import PARTS, TimedStep
from nembp.benchmarks.tables import parts_table as table
from nembp.benchmarks.timing import Contender, interleave
from nembp.engine.backprop import Path
from nembp.engine.noise import Noise
from nembp.errors import DeviceError

__all__ = ["DEFAULTS", "QUICK", "STEP", "check_network", "measure", "measure_parts", "table"]

DEFAULTS = Settings(
    networks=("784-512-512-10",), batches=(32, 128, 512), threads=(1, 2), budget=60.0, memory=False
)
QUICK = Settings(
    networks=("784-512-512-10",), batches=(128,), threads=(1,), budget=6.0, memory=False
)
STEP = (
    "A step is the gradient and Adam's update of every parameter, on a batch that already lies in "
    "the step's buffers. The step is timed whole, and again with a stopwatch on its parts; the "
    "share of a part is its median time over that of the step with the stopwatch."
)
NOISE = Noise("nem", std=0.1, decay=0.0)  # constant, so that step after step does the same
VARIANTS: dict[str, tuple[Path, dict[str, Noise]]] = {
    "one": ("none", {}),
    "one, noise": ("none", {"forward": NOISE}),
    "both": ("classes", {}),
    "both, noise": ("classes", {"forward": NOISE, "backward": NOISE}),
    "samples": ("samples", {}),
    "samples, noise": ("samples", {"forward": NOISE, "backward": NOISE}),
}


def check_network(text: str) -> None:
    """Raise ArchitectureError, naming ``text``, if it is no dense network."""
    parse_network(text)


def measure(settings: Settings, backend: Backend, progress: Progress) -> list[dict[str, Any]]:
    """Time the parts of every case of the settings.

    Raises
    ------
    DeviceError
        On a GPU, which works on while Python goes to the next part.
    """
    if backend.name == "gpu":
        raise DeviceError("the parts of a step can be timed on the CPU only; use --device cpu")
    return measure_cases(settings, backend, progress, DenseCase, measure_parts)


def measure_parts(
    case: DenseCase, backend: Backend, repeats: int | None, budget: float
) -> dict[str, Any]:
    """Time the steps of a case, their parts, and the bare products."""
    net = case.start(backend)
    x, labels = case.draw()

    def step(path: Path, noise: dict[str, Noise]) -> EngineStep:
        return EngineStep(net.copy(), x, labels, path, LEARNING_RATE, noise)

    whole = {name: step(*how) for name, how in VARIANTS.items()}
    timed = {name: TimedStep(step(*how)) for name, how in VARIANTS.items()}
    bare = {
        path: Products(backend, net.maps, case.batch, path, case.dtype)
        for path, _ in VARIANTS.values()
    }
    contenders = {
        **{name: Contender(each) for name, each in whole.items()},
        **{f"{name}, timed": Contender(each) for name, each in timed.items()},
        **{f"products of {path}": Contender(each) for path, each in bare.items()},
    }
    start = time.perf_counter()
    timings = interleave(contenders, repeats=repeats, budget=budget, **turns(case))
    elapsed = time.perf_counter() - start
    seconds = {name: timing.median for name, timing in timings.items()}
    variants = {}
    for name, (path, _) in VARIANTS.items():
        parts = _medians(timed[name].laps)
        variants[name] = {
            "step": timings[name].to_dict(),
            "step_with_stopwatch": seconds[f"{name}, timed"],
            "parts": parts,
            "shares": {part: parts[part] / sum(parts.values()) for part in PARTS},
            "bare_products": seconds[f"products of {path}"],
        }
    both = timings["both"]
    return {
        "kind": "parts",
        "network": case.network,
        "batch": case.batch,
        "threads": case.threads,
        "threads_in_force": threads_now(),
        "dtype": case.dtype,
        "parameters": net.parameter_count,
        "variants": variants,
        "seconds": elapsed,
        "headline": f"{1e3 * both.median:.3g} ms a bidirectional step, {both.rounds} rounds",
    }


def _medians(laps: list[dict[str, float]]) -> dict[str, float]:
    """Return the median seconds of each part over the steps."""
    return {part: statistics.median(lap.get(part, 0.0) for lap in laps) for part in PARTS}
