"""Reports as text: the header of any suite, and the dense suite's table."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import Any

__all__ = ["dense_table", "render"]

WIDTH = 100

TIMES = (  # two lines of heading, contender
    ("nembp", "both", "nembp/bidirectional"),
    ("nembp", "samples", "nembp/bidirectional_samples"),
    ("nembp", "one", "nembp/one_direction"),
    ("PyTorch", "both", "torch/bidirectional"),
    ("PyTorch", "one", "torch/one_direction"),
    ("sklearn", "one", "sklearn/one_direction"),
)
FLOORS = (("floor", "both", "bidirectional"), ("floor", "one", "one_direction"))
RATIOS = (  # two lines of heading, ratio
    ("both", "/ one", "bidirectional/one_direction"),
    ("PyTorch both", "/ both", "torch_bidirectional/bidirectional"),
    ("both", "/ PyTorch one", "bidirectional/torch_one_direction"),
    ("both", "/ floor", "bidirectional/floor"),
    ("one", "/ floor", "one_direction/floor"),
)
CASE = (("", "threads"), ("", "batch"))
WORK = (("multiply-adds", "both"), ("multiply-adds", "one"), ("Adam", "moves"))
LEGEND = (
    "both: bidirectional, class-sum path (± half the interquartile range); samples: bidirectional, "
    "one backward row a sample; one: one direction; floor: the bare matrix products of the same "
    "shapes, and the bytes that Adam must move streamed once through memory. All in one run, "
    "repeats interleaved, medians. 'PyTorch both / both' is nembp's speed-up."
)


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
        lines.append(f"PyTorch: BLAS {build['blas']}, kernels up to {build['cpu_capability']}")
    pins = [f"{name}={value}" for name, value in report["environment"].items()]
    lines.append(f"set by the environment: {', '.join(pins) or 'nothing that pins BLAS or OpenMP'}")
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
        f"{memory['threads']} threads"
    )


# -- the dense suite ---------------------------------------------------------------------------
def dense_table(results: list[dict[str, Any]]) -> str:
    """Return two tables a network, times and ratios, and the legend."""
    first, *others = [(top, bottom) for top, bottom, _ in (*TIMES, *FLOORS)]
    times = [*CASE, first, ("", "±"), *others]
    ratios = [*CASE, *((top, bottom) for top, bottom, _ in RATIOS), *WORK]
    parts = []
    for network, group in groupby(results, key=lambda result: str(result["network"])):
        rows = list(group)
        parts.append(f"{network}, {rows[0]['parameters']:,} parameters")
        parts.append(_columns(times, [_time_cells(row) for row in rows]))
        parts.append(_columns(ratios, [_ratio_cells(row) for row in rows]))
    return "\n\n".join([*parts, textwrap.fill(LEGEND, WIDTH)])


def _time_cells(row: dict[str, Any]) -> list[str]:
    times = row["times"]
    first, *others = [_time(times[name]) for _, _, name in TIMES]
    floors = [duration(row["floor"][name]) for _, _, name in FLOORS]
    spread = f"{50 * times['nembp/bidirectional']['spread']:.0f}%"
    return [_threads(row), str(row["batch"]), first, spread, *others, *floors]


def _ratio_cells(row: dict[str, Any]) -> list[str]:
    values = [row["ratios"][name] for _, _, name in RATIOS]
    cells = ["-" if value is None else f"{value:.2f}" for value in values]
    counts = row["multiply_adds"]
    work = [f"{counts[f'nembp/{name}'] / 1e6:.1f} M" for name in ("bidirectional", "one_direction")]
    return [_threads(row), str(row["batch"]), *cells, *work, f"{row['adam_bytes'] / 1e6:.1f} MB"]


def _threads(row: dict[str, Any]) -> str:
    """Return the threads asked for, and those in force where a library did not obey."""
    force = {count for count in row["threads_in_force"].values() if count is not None}
    if force <= {row["threads"]}:
        return str(row["threads"])
    return f"{row['threads']} (in force {'/'.join(map(str, sorted(force)))})"


def _time(timing: dict[str, Any]) -> str:
    return str(timing["missing"]) if "missing" in timing else duration(timing["median"])


def duration(seconds: float) -> str:
    """Return a duration with three digits and its unit.

    >>> duration(0.00123456), duration(0.0000456)
    ('1.23 ms', '45.6 us')
    """
    value, unit = (seconds * 1e6, "us") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def _columns(head: list[tuple[str, str]], rows: list[list[str]]) -> str:
    """Align the columns to the right under their two lines of heading."""
    lines = [[top for top, _ in head], [bottom for _, bottom in head], *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
