"""``nembp info``."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import click

import nembp

from .options import json_option
from .output import emit_json, emit_table

if TYPE_CHECKING:
    from nembp.checkpoints import Model
    from nembp.engine.network import Network

PLAYERS: Final = ("generator", "discriminator")  # of an adversarial run
NAMED: Final = 12  # outputs whose names are shown
COUNTS: Final = ("weights", "biases", "gains", "multiply_adds")
PACKAGES = (
    "numpy",
    "scikit-learn",
    "threadpoolctl",
    "click",
    "rich",
    "pillow",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "torch",
)


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@json_option
def info(run: str | None, as_json: bool) -> None:
    """Show versions, devices, BLAS and threads: what to add to a report of a problem.

    With RUN, a run folder or a model file, show that network instead, layer by layer.
    """
    if run is not None:
        show_run(run, as_json=as_json)
        return
    facts = gather()
    if as_json:
        emit_json(facts)
        return
    blas = facts["blas"] or {}
    rows = [
        ("nembp", facts["nembp"]),
        ("python", f"{facts['python']} on {facts['platform']}"),
        *((name, version or "not installed") for name, version in facts["packages"].items()),
        ("cpu", f"{facts['cpu']['name']}, {facts['cpu']['cores']} cores usable"),
        ("gpu", facts["gpu"]["name"] or f"none: {facts['gpu']['reason']}"),
        (
            "blas",
            f"{blas['library']} {blas['version']}, {blas['architecture']} kernels, "
            f"{blas['threads']} threads"
            if blas
            else "unknown",
        ),
        ("", facts["core_type"]),
    ]
    emit_table([row for row in rows if any(row)])


def gather() -> dict[str, Any]:
    """Collect what `info` shows."""
    from nembp.checkpoints import environment
    from nembp.engine.network import dense_network

    measured = environment(dense_network([1, 1]))
    return {
        "nembp": nembp.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu": {"name": _cpu_name(), "cores": _cores()},
        "gpu": _gpu(),
        "blas": measured["blas"],
        "core_type": _core_type(measured["blas"]),
        "OPENBLAS_CORETYPE": os.environ.get("OPENBLAS_CORETYPE"),
    }


def show_run(run: str, *, as_json: bool) -> None:
    """Show what a trained network is made of, or both networks of an adversarial run."""
    from nembp.runs.predicting import load_run

    files = {name: os.path.join(run, f"{name}.npz") for name in PLAYERS}
    if not all(map(os.path.exists, files.values())):
        _show_model(run, load_run(run), as_json=as_json)
    elif as_json:
        emit_json({name: _facts(path, load_run(path)) for name, path in files.items()})
    else:
        for name, path in files.items():
            click.echo(f"{name}:" if name == PLAYERS[0] else f"\n{name}:")
            _show_model(path, load_run(path), as_json=False)


def _facts(run: str, model: Model) -> dict[str, Any]:
    layers = _layers(model.net)
    trained = {
        name: model.environment.get(name) for name in ("nembp", "numpy", "device", "platform")
    }
    totals = {name: sum(layer[name] or 0 for layer in layers) for name in COUNTS}
    return {
        "run": os.path.abspath(run), "dataset": model.dataset, "shape": model.shape,
        "classes": model.classes, "targets": model.target_names, "layers": layers,
        "parameters": model.net.parameter_count, "trained": trained, "totals": totals,
        "config": model.settings,
    }  # fmt: skip


def _show_model(run: str, model: Model, *, as_json: bool) -> None:
    facts = _facts(run, model)
    if as_json:
        emit_json(facts)
        return
    layers, trained, totals = facts["layers"], facts["trained"], facts["totals"]
    shape = "x".join(map(str, model.shape))
    outputs = f"{len(model.classes)} classes" if model.classes else ", ".join(model.target_names)
    if len(model.target_names) > NAMED:
        outputs = f"{len(model.target_names)} values"
    emit_table(
        [
            ("data", f"{model.dataset}: {shape} to {outputs}"),
            ("parameters", f"{model.net.parameter_count:,} of {model.net.dtype}"),
            ("trained", ", ".join(f"{name} {value}" for name, value in trained.items() if value)),
        ]
    )
    click.echo()
    shown = [name for name in COUNTS if name != "gains" or totals["gains"]]  # of normalized layers
    rows = [
        ["layer", "description", "shape", "neurons", *(name.replace("_", "-") for name in shown)]
    ]
    for number, layer in enumerate([*layers, {"description": "in all", **totals}]):
        ends = [str(number) if "shape" in layer else "", layer["description"]]
        shape = "x".join(map(str, layer.get("shape", ())))
        counts = ["-" if layer[name] is None else f"{layer[name]:,}" for name in shown]
        rows.append([*ends, shape, layer.get("neurons", ""), *counts])
    emit_table(rows)


def _layers(net: Network) -> list[dict[str, Any]]:
    """Return a row for each layer; its biases and gains are those of both directions."""
    from nembp.architecture import describe

    kinds = [layer.activation.name if layer.activation else "-" for layer in net.layers]
    kinds[0], kinds[-1] = net.reversed.likelihood.name, net.likelihood.name
    return [
        {
            "description": up.text,
            "shape": up.shape,
            "neurons": kind,
            "weights": up.weights,
            "biases": up.biases + down.biases,
            "gains": up.gains + down.gains,
            "multiply_adds": up.multiply_adds,
        }
        for up, down, kind in zip(describe(net), describe(net.reversed)[::-1], kinds, strict=True)
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def _gpu() -> dict[str, Any]:
    from nembp.backend import get_backend
    from nembp.errors import DeviceError

    try:
        return {"name": get_backend("gpu").describe(), "reason": None}
    except DeviceError as error:
        return {"name": None, "reason": str(error)}


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
