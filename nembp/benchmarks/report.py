"""Reports as text: where a suite was measured, its table, its notes."""

from __future__ import annotations

import textwrap
from typing import Any

from nembp.benchmarks.tables import WIDTH

__all__ = ["memory_line", "render"]


def render(report: dict[str, Any], body: str) -> str:
    """Return the whole report: where it was measured, what a step is, the table, the memory."""
    lines = [*_header(report), "", *textwrap.wrap(report["step"], WIDTH), "", body]
    if report["peak_memory"] is not None:
        lines += ["", *textwrap.wrap(memory_line(report["peak_memory"]), WIDTH)]
    for note in report["notes"]:
        lines += textwrap.wrap(f"note: {note}", WIDTH)
    return "\n".join(lines)


def _header(report: dict[str, Any]) -> list[str]:
    machine, settings = report["machine"], report["settings"]
    versions = [f"{name} {version}" for name, version in report["versions"].items() if version]
    lines = [
        f"nembp bench: suite {report['suite']}, {settings['dtype']}, {machine['device']}, "
        f"{report['date']}",
        f"machine: {machine['processor']}, {machine['usable_cpus']} usable CPUs, up to "
        f"{machine['vector_instructions']}, {machine['system']}",
        f"versions: {', '.join(versions)}",
    ]
    lines += [f"BLAS: {_library(library)}" for library in report["blas"]]
    if report["torch"]:
        build = report["torch"]
        lines.append(
            f"PyTorch: BLAS {build['blas']}, own kernels {build['cpu_capability']}, convolutions "
            f"oneDNN, {build['onednn'] or 'instruction set unknown'}"
        )
    pins = [f"{name}={value}" for name, value in report["environment"].items()]
    lines.append(f"set by the environment: {', '.join(pins) or 'nothing that pins a library'}")
    lines.append(
        f"threads: {', '.join(map(str, settings['threads']))}, set for BLAS and OpenMP by "
        "threadpoolctl and for PyTorch by torch.set_num_threads"
    )
    return [line for text in lines for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ")]


def _library(library: dict[str, Any]) -> str:
    kernel = f"core type {library['core_type']}" if library["core_type"] else "core type unknown"
    return f"{library['library']} {library['version']}, {kernel}, {library['threading']} threads"


def memory_line(memory: dict[str, Any]) -> str:
    """Return the line ``peak memory``."""
    if "failed" in memory:
        return f"peak memory: not measured, the training run failed ({memory['failed']})"
    return (
        f"peak memory: {memory['bytes'] / 1e6:.0f} MB resident ({memory['start_bytes'] / 1e6:.0f} "
        f"MB of it before the data) for {memory['network']} on {memory['images']:,} uint8 images "
        f"of {memory['image_bytes'] / 1e6:.0f} MB, batch {memory['batch']}, {memory['steps']} "
        f"bidirectional steps and the scoring in {memory['seconds']:.1f} s, "
        f"{memory['threads']} threads" + _on_device(memory)
    )


def _on_device(memory: dict[str, Any]) -> str:
    """Return what was reserved on a GPU, beside PyTorch's for the same training."""
    ours, theirs = memory.get("device_bytes"), memory.get("torch_device_bytes")
    if ours is None:
        return ""
    peer = f"PyTorch {theirs / 1e6:.0f} MB" if theirs else "PyTorch not measured"
    return f"; on the device {ours / 1e6:.0f} MB reserved, {peer}"
