"""The parts of ``gpu_programme.sh``, each in a process of its own with its share of the time."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(os.environ.get("OUT", ROOT / "gpu-results"))
TESTS = (
    "test_gpu_kernels.py", "test_gpu_backend.py", "test_gpu_training.py", "test_gpu_laws.py",
    "test_gpu_cli.py", "test_gpu_bench.py", "test_checkpoints.py",
)  # fmt: skip
Result = dict[str, Any]


class Programme:
    """Runs parts until the time is up, and saves what there is after each."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.began = time.monotonic()
        self.results: Result = {"device_asked_for": options.device, "parts": {}}

    @property
    def left(self) -> float:
        """Seconds."""
        return float(self.options.seconds) - (time.monotonic() - self.began)

    def part(self, name: str, limit: float, run: Callable[[float], Result]) -> None:
        """Run a part for at most ``limit`` seconds, and keep what it returns or how it failed."""
        if self.options.parts and name not in self.options.parts:
            return
        limit = min(limit, self.left - 5)
        begin = time.monotonic()
        print(f"\n== {name} ({self.left:.0f} s left, at most {max(limit, 0):.0f})", flush=True)
        if limit < 10:
            found: Result = {"ok": False, "skipped": "no time left"}
        else:
            try:
                found = run(limit)
            except subprocess.TimeoutExpired:
                found = {"ok": False, "failed": f"not done within {limit:.0f} s"}
            except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
                found = {"ok": False, "failed": repr(error)[:2000]}
        found["seconds"] = round(time.monotonic() - begin, 2)
        self.results["parts"][name] = found
        self.save()
        shown = {key: value for key, value in found.items() if key not in ("report", "summary")}
        print(f"-- {name}: {json.dumps(shown)[:1500]}", flush=True)

    def save(self) -> None:
        """Write the results so far."""
        self.results["seconds"] = round(time.monotonic() - self.began, 1)
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / "results.json").write_text(json.dumps(self.results, indent=1) + "\n")

    # -- parts ---------------------------------------------------------------------------------
    def environment(self, limit: float) -> Result:
        """Say which device, driver and versions these results are of."""
        smi = shell(["nvidia-smi"], limit)
        asked = [sys.executable, "-m", "nembp", "info", "--json"]
        info = shell(asked, limit)
        code = (
            "import json, torch; print(json.dumps({'torch': torch.__version__, 'cuda': "
            "torch.version.cuda, 'available': torch.cuda.is_available(), 'name': "
            "torch.cuda.get_device_name() if torch.cuda.is_available() else None}))"
        )
        torch = shell([sys.executable, "-c", code], limit)
        return {
            "ok": info["code"] == 0 and (self.options.device == "cpu" or smi["code"] == 0),
            "nvidia_smi": smi["tail"],
            "info": read_json(info["stdout"]),
            "torch": read_json(torch["stdout"]),
        }

    def tests(self, limit: float) -> Result:
        """Run the tests that depend on the device."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5"]
        options = ["-W", "default", "--device", self.options.device]  # other libraries may warn
        found = shell([*command, *options, *(f"tests/{name}" for name in TESTS)], limit)
        return {"ok": found["code"] == 0, **found}

    def laws(self, limit: float) -> Result:
        """Try every law on the device."""
        cases = "20" if self.options.device == "gpu" else "3"
        command = [sys.executable, "-m", "nembp", "verify", "--device", self.options.device,
                   "--cases", cases, "--json", "-q"]  # fmt: skip
        found = shell(command, limit)
        report = read_json(found.pop("stdout"))
        return {"ok": found["code"] == 0, "report": report, **found}

    def agreement(self, limit: float) -> Result:
        """Train on the device and on the CPU with the same host-drawn noise, and compare."""
        return call("agreement", {"device": self.options.device, "mnist": self.mnist()}, limit)

    def mnist_98(self, limit: float) -> Result:
        """Train on MNIST until 98 % of the test images are right, timed from start to end."""
        request = {"device": self.options.device, "mnist": self.mnist()}
        return call("mnist_98", request, limit)

    def bench(self, suite: str, *options: str) -> Callable[[float], Result]:
        """Return a part that runs ``nembp bench``."""

        def run(limit: float) -> Result:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "report.json"
                command = [sys.executable, "-m", "nembp", "bench", "--suite", suite, "--device",
                           self.options.device, "--out", str(out), *options]  # fmt: skip
                found = shell(command, limit)
                found.pop("stdout")
                report = read_json(out.read_text()) if out.exists() else None
            return {"ok": found["code"] == 0, **found, "report": report}

        return run

    def mnist(self) -> str | None:
        """Return the folder with MNIST's four files, if there is one."""
        for folder in (self.options.mnist, ROOT / ".mnist", ROOT.parent / "shared/data/mnist"):
            if folder and any(Path(folder).glob("train-images*")):
                return str(folder)
        return None


def shell(command: list[str], limit: float) -> Result:
    """Run a command; return its code, stdout, and the end of what it printed."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False
        )
    except FileNotFoundError as error:
        return {"code": 127, "stdout": "", "tail": str(error)}
    print(done.stdout[-6000:], done.stderr[-3000:], sep="\n", flush=True)
    tail = (done.stdout + done.stderr)[-2500:]
    return {"code": done.returncode, "stdout": done.stdout, "tail": tail}


def read_json(text: str) -> Any:
    """Return the JSON value of a text; its end where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text[-500:] or None


def call(task: str, request: Result, limit: float) -> Result:
    """Run a function of this file in a process of its own."""
    found = shell([sys.executable, __file__, "--task", task, json.dumps(request)], limit)
    lines = [line for line in found["stdout"].splitlines() if line.startswith("{")]
    if found["code"] or not lines:
        return {"ok": False, "code": found["code"], "tail": found["tail"]}
    result: Result = json.loads(lines[-1])
    return result


# -- what runs in a process of its own -------------------------------------------------------------
def agreement(device: str, mnist: str | None) -> Result:
    """Compare whole runs: noise from the host, then noise from the device for its repeatability."""
    import numpy as np

    from nembp.backend import get_backend
    from nembp.batches import BatchReader
    from nembp.datasets import feature_means, load
    from nembp.likelihoods import Gaussian
    from nembp.network import dense_network
    from nembp.noise import Noise
    from nembp.training import Trainer, set_input_bias

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--mnist", help="Folder with MNIST's four files.")
    parser.add_argument("--seconds", type=float, default=570.0)
    parser.add_argument("--parts", nargs="+", help="Only these, by their names.")
    parser.add_argument("--task", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        name, request = options.task
        print(
            json.dumps({"agreement": agreement, "mnist_98": mnist_98}[name](**json.loads(request)))
        )
        return 0
    run = Programme(options)
    batches = "128,1024,8192" if options.device == "gpu" else "128"
    dense = ("--networks", "784-512-512-10", "--batches", batches, "--threads", "1")
    small = () if options.device == "gpu" else ("--quick", "--repeats", "2")
    run.part("environment", 60, run.environment)
    run.part("bench dense", 200, run.bench("dense", *dense, *small))
    run.part("agreement", 90, run.agreement)
    run.part("mnist to 98 %", 60, run.mnist_98)
    run.part("tests", 160, run.tests)
    run.part("bench adversarial", 40, run.bench("adversarial", "--threads", "1", *small))
    run.part("laws", 60, run.laws)
    images = "32x32x3/conv32x4s2,16x16x64/conv64x3,32x32x3/conv32x4s2/conv64x4s2/conv128x4s2/256/10"
    run.part("bench convolution", 80, run.bench(
        "convolution", "--networks", images, "--batches", "128", "--threads", "1", *small
    ))  # fmt: skip
    tf32 = ("--precision", "tf32", "--quick", "--repeats", "5", "--batches", "8192")
    tf32 = tf32 if options.device == "gpu" else (*tf32[:-1], "128")
    run.part("bench dense, tf32", 60, run.bench("dense", *dense, *tf32))
    parts = run.results["parts"]
    print(f"\n{'part':<22} ok     seconds")
    for name, found in parts.items():
        print(f"{name:<22} {found['ok']!s:<6} {found['seconds']}")
    return 0 if all(found["ok"] for found in parts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
