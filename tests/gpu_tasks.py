"""What ``gpu_programme.py`` runs in processes of their own, each a fresh start on the device."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

Result = dict[str, Any]


def agreement(device: str, mnist: str | None) -> Result:
    """Compare whole runs: noise from the host, then noise from the device for its repeatability."""
    import numpy as np

    from nembp.backend import get_backend
    from nembp.datasets import feature_means, load
    from nembp.datasets.reading import BatchReader
    from nembp.engine.likelihoods import Gaussian
    from nembp.engine.network import dense_network
    from nembp.engine.noise import Noise
    from nembp.engine.training import Trainer, set_input_bias

    data = load("mnist", mnist) if mnist else load("digits")
    noise = {"forward": Noise("nem", std=0.1), "backward": Noise("nem", std=0.1)}

    def train(on: str, **options: Any) -> Any:
        sizes = [data.features, 256, 128, data.outputs]
        net = dense_network(sizes, backward=Gaussian(10.0), device=get_backend(on), seed=0)
        set_input_bias(net, feature_means(data.train, data.x_scaling))
        reader = BatchReader(
            data.train, data.x_scaling, data.y_scaling, data.outputs, net.backend, net.dtype
        )
        trainer = Trainer(net, reader, epochs=2, batch_size=128, seed=1, **options)
        rows = trainer.run().epochs
        return net.backend.to_numpy(net.parameters), rows, trainer

    found: Result = {"samples": len(data.train), "ok": True}
    for name, options in {
        "no noise": {}, "noise of the host": {"noise": noise, "host_noise": True},
    }.items():  # fmt: skip
        (cpu, rows, _), (other, theirs, _) = (train(on, **options) for on in ("cpu", device))
        off = float(np.linalg.norm(other - cpu) / np.linalg.norm(cpu))
        nll = [row["train/forward/nll"] for row in (rows[-1], theirs[-1])]
        found[name] = {"parameters_relative": off, "train_nll": nll}
        found["ok"] &= bool(off < 0.05 and abs(nll[0] - nll[1]) < 0.02 * abs(nll[0]))
    runs = [train(device, noise=noise, cuda_graphs=graphs) for graphs in (True, True, False)]
    replay = runs[0][2].on_device and runs[0][2].on_device.replay
    found["device_noise"] = {
        "repeatable": bool(np.array_equal(runs[0][0], runs[1][0])),
        "graphs_equal_call_by_call": bool(np.array_equal(runs[0][0], runs[2][0])),
        "captured_steps": None if replay is None else replay.captured,
        "why_not_captured": None if replay is None else replay.reason,
        "seconds_an_epoch": {
            "graphs": runs[1][1][-1]["seconds"], "call_by_call": runs[2][1][-1]["seconds"],
        },
    }  # fmt: skip
    found["ok"] &= found["device_noise"]["repeatable"]
    found["ok"] &= found["device_noise"]["graphs_equal_call_by_call"]
    if device == "gpu":
        found["ok"] &= bool(replay is not None and replay.captured > 0)
    return found


def mnist_98(device: str, mnist: str | None) -> Result:
    """Time ``nembp train`` on MNIST, in this fresh process, until 98 % are right."""
    begin = time.perf_counter()
    from nembp.runs import RunConfig, train_run

    if mnist is None:
        return {"ok": False, "skipped": "MNIST is not here; put its four files into .mnist"}
    reached: list[Result] = []

    def on_epoch(row: Result) -> bool:
        since = time.perf_counter() - begin
        reached.append({"epoch": row["epoch"], "accuracy": row["forward/accuracy"], "at": since})
        return bool(row["forward/accuracy"] >= 0.98)

    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(dataset="mnist", data_dir=mnist, device=device, seed=0)
        summary = train_run(config, Path(folder) / "run", on_epoch=on_epoch)
    keys = ("status", "epochs", "seconds", "samples_per_second", "device", "forward/accuracy",
            "backward/centroid_error")  # fmt: skip
    return {
        "ok": summary["forward/accuracy"] >= 0.98,
        "wall_seconds": time.perf_counter() - begin,
        "epochs": reached,
        "summary": {key: summary[key] for key in keys},
    }


# -- adversarial training --------------------------------------------------------------------------
ROWS = 64
GAMES: dict[str, Result] = {  # settings, options of the trainer, and of its networks
    "both directions, noise on every place": {
        "settings": {"bidirectional": "both", "weight_schedule": "cosine", "averaging": 0.99},
        "noise": ("discriminator/forward", "discriminator/input", "discriminator/backward",
                  "generator/backward"),
    },
    "one direction": {"settings": {}},
    "one direction, streamed": {"settings": {}, "resident": False},
    "clipped critic": {"settings": {"kind": "wasserstein"}, "noise": ("critic/input",)},
    "critic with penalty": {"settings": {"kind": "wasserstein-gp", "averaging": 0.99}},
    "normalized convolutions": {"settings": {"bidirectional": "generator"}, "images": True},
}  # fmt: skip


def games(device: str, mnist: str | None, iterations: int = 300) -> Result:
    """Compare captured iterations with called ones bit for bit, and z from the host with the CPU.

    What is captured and what is called are the same calls, so not a bit may differ. Over 50
    iterations of host-drawn z two devices differ by rounding, which the game enlarges.
    """
    import numpy as np

    found: Result = {"ok": True, "games": {}}
    iterations = iterations if device == "gpu" else 20
    for name, game in GAMES.items():
        runs = [
            play(device, mnist, game, iterations, cuda_graphs=graphs) for graphs in (True, False)
        ]
        (captured, trainer), (called, plain) = runs
        one = found["games"][name] = {
            "equal": all(np.array_equal(a, b) for a, b in zip(captured, called, strict=True)),
            "finite": all(np.isfinite(each).all() for each in captured),
            "captured_iterations": trainer.captured,
            "why_not_captured": trainer.why_not_captured,
            "us_an_iteration": {
                "captured": 1e6 / trainer.history["iterations_per_second"][-1],
                "called": 1e6 / plain.history["iterations_per_second"][-1],
            },
        }
        found["ok"] &= one["equal"] and one["finite"]
        if device == "gpu":
            found["ok"] &= trainer.captured == iterations - 2
    game = GAMES["one direction"]
    ends = [play(on, mnist, game, 50, host_noise=True)[0] for on in ("cpu", device)]
    off = [float(np.linalg.norm(b - a) / np.linalg.norm(a)) for a, b in zip(*ends, strict=True)]
    found["parameters_relative_to_the_cpus"] = off
    found["ok"] &= max(off) < 0.05
    return found


def play(device: str, mnist: str | None, game: Result, iterations: int, **options: Any) -> Any:
    """Return the parameters of both players after a game, on the host, and its trainer."""
    from nembp.adversarial import AdversarialSettings, AdversarialTrainer
    from nembp.architecture import generator_network, network
    from nembp.backend import get_backend
    from nembp.datasets.reading import BatchReader
    from nembp.engine.noise import Noise

    data, settings = images(mnist), AdversarialSettings(**game["settings"])
    side = data.shape[0] // 2
    layers: Any = (256, 256), (256, 256)
    if game.get("images"):
        layers = (
            (f"{side * side * 16}bn", f"reshape{side}x{side}x16", "up16x4s2bn"),
            ("conv16x4s2", "conv32x4s2bn"),
        )
    g = generator_network(64, layers[0], data.shape, forward="bernoulli", backward="gaussian",
                          device=get_backend(device), seed=0)  # fmt: skip
    d = network(data.shape, layers[1], 1, activation="leaky-relu", forward=end_of(settings),
                backward="gaussian", device=g.backend, seed=1)  # fmt: skip
    reader = BatchReader(
        data.train, data.x_scaling, data.y_scaling, data.outputs, g.backend, g.dtype,
        resident=game.get("resident"),
    )  # fmt: skip
    trainer = AdversarialTrainer(
        g, d, reader, settings, batch_size=ROWS, iterations=iterations, schedule="cosine",
        report_every=max(1, iterations // 3), seed=2,
        noise=dict.fromkeys(game.get("noise", ()), Noise("nem", std=0.1)), **options,
    )  # fmt: skip
    trainer.run()
    return [g.backend.to_numpy(net.parameters) for net in (g, d)], trainer


@cache
def images(mnist: str | None) -> Any:
    """Return MNIST where it is, else scikit-learn's digits."""
    from nembp.datasets import load

    return load("mnist", mnist) if mnist else load("digits")


def end_of(settings: Any) -> Any:
    """Return the likelihood of a discriminator's or critic's output."""
    from nembp.adversarial import Score
    from nembp.engine.likelihoods import Bernoulli

    return Score() if settings.has_critic else Bernoulli()


if __name__ == "__main__":
    task, request = sys.argv[1:]
    tasks = {"agreement": agreement, "games": games, "mnist_98": mnist_98}
    print(json.dumps(tasks[task](**json.loads(request))))
