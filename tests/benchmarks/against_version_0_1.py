"""Time this tree beside version 0.1 (commit ccc3db8) in one interleaved run.

    git worktree add /tmp/nembp-0.1 ccc3db8
    python tests/benchmarks/against_version_0_1.py [--threads N] /tmp/nembp-0.1 [ROW ...]

Two processes, one for each version, make the same steps in turns, and are launched anew several
times; a row is the ratio of the medians, this tree over version 0.1, with the quartiles of the
ratios of each turn. Below 1 is faster. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
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


# -- in a worker: the same steps by either version -------------------------------------------------
def engine() -> Any:
    """Return the names that the steps need, wherever a version has them."""
    import types

    try:
        from nembp.architecture import generator_network, network
        from nembp.datasets.reading import BatchReader
        from nembp.engine.backprop import JointBackpropagation
        from nembp.engine.noise import Noise
        from nembp.engine.optimizers import Adam
    except ImportError:
        from nembp.architectures import generator_network, network  # noqa: F401
        from nembp.backpropagation import JointBackpropagation  # noqa: F401
        from nembp.batches import BatchReader  # noqa: F401
        from nembp.noise import Noise  # noqa: F401
        from nembp.optimizers import Adam  # noqa: F401
    return types.SimpleNamespace(**locals())


def training_step(
    shape: Any, layers: str, batch: int, path: str, noise: str | None = None
) -> Callable[[], object]:
    """Return one gradient and one move by Adam."""
    import numpy as np

    from nembp.backend import stream

    e = engine()
    net, rng = e.network(shape, layers, 10), np.random.default_rng(0)
    options: dict[str, Any] = {}
    if noise is not None:
        options = {"noise": {noise: e.Noise("nem")}, "generators": {noise: stream(0, "noise")}}
    joint = e.JointBackpropagation(net, batch, path=path, **options)
    joint.x[...] = rng.random(joint.x.shape)
    joint.t[...] = np.eye(10)[rng.integers(0, 10, batch)]
    adam = e.Adam(1e-4)
    gradient = adam.bind(net)

    def step() -> None:
        joint(gradient)
        adam.step()

    return step


def gan_step(latent: int, g: str, d: str, shape: Any, batch: int) -> Callable[[], object]:
    """Return one iteration of an adversarial training with a bidirectional generator."""
    import numpy as np

    from nembp.adversarial import AdversarialSettings, AdversarialTrainer
    from nembp.datasets import Scaling, Split

    e = engine()
    rng = np.random.default_rng(0)
    kinds = {"forward": "bernoulli", "backward": "gaussian"}
    G = e.generator_network(latent, g, shape, **kinds)
    D = e.network(shape, d, 1, **kinds)
    x = rng.random((batch, int(np.prod(shape))), dtype=np.float32)
    reader = e.BatchReader(
        Split(x, np.zeros(batch, np.int64)), Scaling(), Scaling(), 1, G.backend, G.dtype
    )
    settings = AdversarialSettings(bidirectional="generator")
    trainer = AdversarialTrainer(
        G, D, reader, settings, batch_size=batch, iterations=1 << 40, report_every=1 << 40
    )
    return trainer.step  # type: ignore[no-any-return]


STRIDED = "conv32x4s2,conv64x4s2,conv128x4s2,256"
ROWS: dict[str, tuple[Callable[..., Callable[[], object]], tuple[Any, ...], int]] = {
    # name: what makes the step, its arguments, and steps in a turn
    "dense 32 one direction": (training_step, (784, "512,512", 32, "none"), 40),
    "mnist 32": (training_step, (784, "512,256", 32, "classes"), 60),
    "mnist 128": (training_step, (784, "512,256", 128, "classes"), 30),
    "dense 32": (training_step, (784, "512,512", 32, "classes"), 40),
    "dense 32 with NEM noise": (training_step, (784, "512,512", 32, "classes", "forward"), 40),
    "dense 32 with hidden noise": (
        training_step, (784, "512,512", 32, "classes", "forward/hidden"), 20,
    ),
    "dense 128": (training_step, (784, "512,512", 128, "classes"), 20),
    "dense 128 a row per sample": (training_step, (784, "512,512", 128, "samples"), 20),
    "dense 512": (training_step, (784, "512,512", 512, "classes"), 6),
    "dense 128 normalized": (training_step, (784, "512bn,512bn", 128, "classes"), 10),
    "digits 32": (training_step, (64, "128,64", 32, "classes"), 200),
    "convolution 32": (training_step, ((32, 32, 3), STRIDED, 32, "classes"), 4),
    "convolution 128": (training_step, ((32, 32, 3), STRIDED, 128, "classes"), 2),
    "convolution 128 3x3": (
        training_step, ((32, 32, 3), "conv32x3,conv32x3,pool2,conv64x3,pool2,128", 128, "classes"), 1,
    ),
    "convolution 128 normalized": (
        training_step, ((32, 32, 3), "conv32x4s2bn,conv64x4s2bn,256", 128, "classes"), 2,
    ),
    "gan dense 64": (gan_step, (64, "256,256", "256,256", 784, 64), 10),
    "gan dcgan 32": (
        gan_step,
        (64, "reshape1x1x64,up64x4s4p0bn,up32x4s2bn", "conv32x4s2,conv64x4s2", (16, 16, 3), 32), 4,
    ),
}  # fmt: skip


def work(threads: int) -> None:
    """Answer requests for turns, as lines of JSON."""
    from nembp.threads import threads as limited

    steps: dict[str, Callable[[], object]] = {}
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
