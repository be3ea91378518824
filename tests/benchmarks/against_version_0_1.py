"""Time this tree beside version 0.1 (commit ccc3db8) in one interleaved run.

    git worktree add /tmp/nembp-0.1 ccc3db8
    python tests/benchmarks/against_version_0_1.py [--threads N] /tmp/nembp-0.1 [ROW ...]

Two processes, one for each version, make the same steps in turns, and are launched anew several
times; a row is the ratio of the medians, this tree over version 0.1, with the quartiles of the
ratios of each turn. Below 1 is faster. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[2]
Step = Callable[[], object]


# -- in a worker: the same steps by either version -------------------------------------------------
def find(name: str, *modules: str) -> Any:
    """Return a name from the first of nembp's modules that a version has."""
    for module in modules:
        try:
            return getattr(importlib.import_module(f"nembp.{module}"), name)
        except ImportError:
            continue
    raise ImportError(f"{name} is in none of {modules}")


def training_step(shape: Any, layers: str, batch: int, path: str, noise: str = "") -> Step:
    """Return one gradient and one move by Adam."""
    import numpy as np

    from nembp.backend import stream

    net = find("network", "architecture", "architectures")(shape, layers, 10)
    rng, options = np.random.default_rng(0), {}
    if noise:
        nem = find("Noise", "engine.noise", "noise")("nem")
        options = {"noise": {noise: nem}, "generators": {noise: stream(0, "noise")}}
    Joint = find("JointBackpropagation", "engine.backprop", "backpropagation")
    joint = Joint(net, batch, path=path, **options)
    joint.x[...] = rng.random(joint.x.shape)
    joint.t[...] = np.eye(10)[rng.integers(0, 10, batch)]
    adam = find("Adam", "engine.optimizers", "optimizers")(1e-4)
    gradient = adam.bind(net)

    def step() -> None:
        joint(gradient)
        adam.step()

    return step


def gan_step(latent: int, g: str, d: str, shape: Any, batch: int) -> Step:
    """Return one iteration of an adversarial training with a bidirectional generator."""
    import numpy as np

    from nembp.adversarial import AdversarialSettings, AdversarialTrainer
    from nembp.datasets import Scaling, Split

    rng, kinds = np.random.default_rng(0), {"forward": "bernoulli", "backward": "gaussian"}
    modules = ("architecture", "architectures")
    G = find("generator_network", *modules)(latent, g, shape, **kinds)
    D = find("network", *modules)(shape, d, 1, **kinds)
    x = rng.random((batch, int(np.prod(shape))), dtype=np.float32)
    split = Split(x, np.zeros(batch, np.int64))
    Reader = find("BatchReader", "datasets.reading", "batches")
    reader = Reader(split, Scaling(), Scaling(), 1, G.backend, G.dtype)
    settings: Any = AdversarialSettings(bidirectional="generator")
    options = {"iterations": 1 << 40, "report_every": 1 << 40, "optimizers": ("adam", "adam")}
    trainer = AdversarialTrainer(G, D, reader, settings, batch_size=batch, **options)
    return trainer.step  # type: ignore[no-any-return]


STRIDED = "conv32x4s2,conv64x4s2,conv128x4s2,256"
ROWS: dict[str, tuple[Callable[..., Step], tuple[Any, ...], int]] = {
    # name: what makes the step, its arguments, and steps in a turn
    name: (gan_step if name.startswith("gan") else training_step, arguments, count)
    for name, count, *arguments in (
        ("dense 32 one direction", 40, 784, "512,512", 32, "none"),
        ("mnist 32", 60, 784, "512,256", 32, "classes"),
        ("mnist 128", 30, 784, "512,256", 128, "classes"),
        ("dense 32", 40, 784, "512,512", 32, "classes"),
        ("dense 32 with NEM noise", 40, 784, "512,512", 32, "classes", "forward"),
        ("dense 32 with hidden noise", 20, 784, "512,512", 32, "classes", "forward/hidden"),
        ("dense 128", 20, 784, "512,512", 128, "classes"),
        ("dense 128 a row per sample", 20, 784, "512,512", 128, "samples"),
        ("dense 512", 6, 784, "512,512", 512, "classes"),
        ("dense 128 normalized", 10, 784, "512bn,512bn", 128, "classes"),
        ("digits 32", 200, 64, "128,64", 32, "classes"),
        ("convolution 32", 4, (32, 32, 3), STRIDED, 32, "classes"),
        ("convolution 128", 2, (32, 32, 3), STRIDED, 128, "classes"),
        ("convolution 128 3x3", 1, (32, 32, 3), "conv32x3,conv32x3,pool2,conv64x3,pool2,128", 128,
         "classes"),
        ("convolution 128 normalized", 2, (32, 32, 3), "conv32x4s2bn,conv64x4s2bn,256", 128,
         "classes"),
        ("gan dense 64", 10, 64, "256,256", "256,256", 784, 64),
        ("gan dcgan 32", 4, 64, "reshape1x1x64,up64x4s4p0bn,up32x4s2bn", "conv32x4s2,conv64x4s2",
         (16, 16, 3), 32),
    )
}  # fmt: skip


def work(threads: int) -> None:
    """Answer requests for turns, as lines of JSON."""
    from nembp.threads import threads as limited

    steps: dict[str, Step] = {}
    with limited(threads):
        for line in sys.stdin:
            name = line.strip()
            make, arguments, count = ROWS[name]
            if name not in steps:
                steps = {name: make(*arguments)}
                for _ in range(3):
                    steps[name]()
            begin = time.perf_counter()
            for _ in range(count):
                steps[name]()
            print(json.dumps((time.perf_counter() - begin) / count), flush=True)


# -- outside: turns --------------------------------------------------------------------------------
class Worker:
    """A process of one version."""

    def __init__(self, folder: Path, threads: int) -> None:
        environment = os.environ | {"PYTHONPATH": str(folder), "OPENBLAS_NUM_THREADS": str(threads)}
        command = [sys.executable, __file__, "--work", str(threads)]
        pipe: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process: Any = subprocess.Popen(command, env=environment, cwd=folder, **pipe)

    def turn(self, row: str) -> float:
        """Return the seconds of a step, by the mean of one turn."""
        print(row, file=self.process.stdin, flush=True)
        return float(json.loads(self.process.stdout.readline()))


def main() -> None:
    """Time the rows that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("old", type=Path)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7, help="turns of each pair of processes")
    parser.add_argument(
        "--launches", type=int, default=5, help="pairs, since memory lies otherwise"
    )
    given = parser.parse_args()
    folders = {"old": given.old.resolve(), "new": HERE}
    rows = given.rows or list(ROWS)
    times: dict[str, dict[str, list[float]]] = {row: {"old": [], "new": []} for row in rows}
    for _ in range(given.launches):
        workers = {name: Worker(folder, given.threads) for name, folder in folders.items()}
        for row in rows:
            for k in range(given.repeats):
                for name in ("old", "new") if k % 2 else ("new", "old"):
                    times[row][name].append(workers[name].turn(row))
        for worker in workers.values():
            worker.process.terminate()
    print(f"{given.threads} threads, medians of {given.launches} x {given.repeats} turns")
    print(f"{'row':30s}  {'0.1 ms':>8s}  {'this ms':>8s}  ratio  quartiles")
    for row, of in times.items():
        old, new = statistics.median(of["old"]), statistics.median(of["new"])
        ratios = [n / o for n, o in zip(of["new"], of["old"], strict=True)]
        low, _, high = statistics.quantiles(ratios)
        print(
            f"{row:30s}  {1e3 * old:8.3f}  {1e3 * new:8.3f}  {new / old:5.3f}  {low:.3f}-{high:.3f}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(int(sys.argv[2]))
    else:
        main()
