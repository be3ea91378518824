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

ROOT, TASKS = Path(__file__).resolve().parents[1], Path(__file__).with_name("gpu_tasks.py")
OUT = Path(os.environ.get("OUT", ROOT / "gpu-results"))
TESTS = (
    "test_gpu_kernels.py", "test_gpu_kernels_noise.py", "test_gpu_kernels_steps.py",
    "test_gpu_backend.py", "test_gpu_training.py", "test_gpu_adversarial.py",
    "test_gpu_laws.py", "test_gpu_cli.py", "test_gpu_bench.py", "test_checkpoints.py",
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

    def games(self, limit: float) -> Result:
        """Train generators by captured iterations and by called ones, compare, and time them."""
        return call("games", {"device": self.options.device, "mnist": self.mnist()}, limit)

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
    """Run a function of `gpu_tasks` in a process of its own."""
    found = shell([sys.executable, str(TASKS), task, json.dumps(request)], limit)
    lines = [line for line in found["stdout"].splitlines() if line.startswith("{")]
    if found["code"] or not lines:
        return {"ok": False, "code": found["code"], "tail": found["tail"]}
    result: Result = json.loads(lines[-1])
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--mnist", help="Folder with MNIST's four files.")
    parser.add_argument("--seconds", type=float, default=570.0)
    parser.add_argument("--parts", nargs="+", help="Only these, by their names.")
    run = Programme(options := parser.parse_args())
    batches = "128,1024,8192" if options.device == "gpu" else "128"
    dense = ("--networks", "784-512-512-10", "--batches", batches, "--threads", "1")
    small = () if options.device == "gpu" else ("--quick", "--repeats", "2")
    run.part("environment", 60, run.environment)
    run.part("bench dense", 200, run.bench("dense", *dense, *small))
    run.part("agreement", 90, run.agreement)
    run.part("games", 60, run.games)
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
