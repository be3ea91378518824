"""``nembp info``."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

import nembp

from .options import command
from .output import emit

if TYPE_CHECKING:
    from nembp.checkpoints import Model

PAIR: Final = ("generator", "discriminator")  # of an adversarial run
NAMED: Final = 12  # outputs whose names are shown
COUNTS: Final = ("weights", "biases", "gains", "multiply_adds")
PACKAGES: Final = (
    "numpy", "scikit-learn", "threadpoolctl", "click", "pillow", "cupy-cuda12x",
    "cupy-cuda13x", "torch",
)  # fmt: skip


@command(click.Argument(["run"], metavar="[RUN]", required=False))
def info(args: Any) -> None:
    """Show versions, devices, BLAS and threads: what to add to a report of a problem.

    With RUN, a run folder or a model file, show that network instead, layer by layer.
    """
    if args.run is not None:
        _show_run(args)
        return
    from nembp.backend import get_backend
    from nembp.checkpoints import environment
    from nembp.engine.network import dense_network
    from nembp.errors import DeviceError
    from nembp.threads import usable_cores

    gpu: dict[str, str | None] = {"name": None, "reason": None}
    try:
        gpu["name"] = get_backend("gpu").describe()
    except DeviceError as error:
        gpu["reason"] = str(error)
    blas = environment(dense_network([1, 1]))["blas"]
    installed = {str(each.name).lower(): each.version for each in metadata.distributions()}
    cpu, cores = _cpu_name(), usable_cores()
    facts = {
        "nembp": nembp.__version__, "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed.get(name) for name in PACKAGES},
        "cpu": {"name": cpu, "cores": cores}, "gpu": gpu, "blas": blas,
        "core_type": _core_type(blas), "OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE"),
    }  # fmt: skip
    words = "{library} {version}, {architecture} kernels, {threads} threads"
    rows = [
        ("nembp", nembp.__version__),
        ("python", f"{facts['python']} on {facts['platform']}"),
        *((name, installed.get(name, "not installed")) for name in PACKAGES),
        ("cpu", f"{cpu}, {cores} cores usable"),
        ("gpu", gpu["name"] or f"none: {gpu['reason']}"),
        ("blas", words.format(**blas) if blas else "unknown"),
        ("", _core_type(blas)),
    ]
    emit(args, facts, [row for row in rows if any(row)])


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine()


def _core_type(blas: dict[str, Any] | None) -> str:
    """Say whether OPENBLAS_CORETYPE chose the BLAS's kernels; they fix the last bits of results."""
    pinned = os.environ.get("OPENBLAS_CORETYPE")
    if not blas or blas["library"] != "openblas":
        return ""
    if pinned is None:
        return "kernels chosen by the CPU; OPENBLAS_CORETYPE pins them, to compare machines"
    if pinned.lower() == str(blas["architecture"]).lower():
        return f"kernels pinned by OPENBLAS_CORETYPE={pinned}"
    return f"OPENBLAS_CORETYPE={pinned} is not what runs: {blas['architecture']}"


# -- a network -------------------------------------------------------------------------------------
def _show_run(args: Any) -> None:
    """Show what a trained network is made of, or both networks of an adversarial run."""
    from nembp.runs.predicting import load_run

    files = {name: os.path.join(args.run, f"{name}.npz") for name in PAIR}
    if not all(map(os.path.exists, files.values())):
        files = {"": args.run}
    facts: dict[str, Any] = {}
    shown: list[Any] = []
    for name, path in files.items():
        model = load_run(path)
        facts[name] = _facts(path, model)
        shown += ["\n" * bool(shown) + f"{name}:"] if name else []
        shown += _tables(model, facts[name])
    emit(args, facts.get("", facts), *shown)


def _facts(run: str, model: Model) -> dict[str, Any]:
    """Return JSON values."""
    from nembp.architecture import describe

    net = model.net
    layers = describe(net)
    names = ("nembp", "numpy", "device", "platform")
    return {
        "run": os.path.abspath(run), "dataset": model.dataset, "shape": model.shape,
        "classes": model.classes, "targets": model.target_names, "layers": layers,
        "parameters": net.parameter_count,
        "trained": {name: model.environment.get(name) for name in names},
        "totals": {name: sum(layer[name] or 0 for layer in layers) for name in COUNTS},
        "config": model.settings,
    }  # fmt: skip


def _tables(model: Model, facts: dict[str, Any]) -> list[Any]:
    """Return the tables of the data and of the layers."""
    outputs = f"{len(model.classes)} classes" if model.classes else ", ".join(model.target_names)
    if len(model.target_names) > NAMED:
        outputs = f"{len(model.target_names)} values"
    trained = ", ".join(f"{name} {value}" for name, value in facts["trained"].items() if value)
    data = [
        ("data", f"{model.dataset}: {_size(model.shape)} to {outputs}"),
        ("parameters", f"{model.net.parameter_count:,} of {model.net.dtype}"),
        ("trained", trained),
    ]
    totals = facts["totals"]
    shown = [name for name in COUNTS if name != "gains" or totals["gains"]]  # of normalized layers
    heads = [name.replace("_", "-") for name in shown]
    rows = [["layer", "description", "shape", "activation", *heads]]
    for number, layer in enumerate([*facts["layers"], {"description": "in all", **totals}]):
        counts = ["-" if layer[name] is None else f"{layer[name]:,}" for name in shown]
        start = ["", layer["description"], "", ""]
        if "shape" in layer:
            start = [str(number), layer["description"], _size(layer["shape"]), layer["neurons"]]
        rows.append([*start, *counts])
    return [data, "", rows]


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
