"""The suites' results as tables for people."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import Any

__all__ = [
    "WIDTH",
    "columns",
    "convolution_table",
    "dense_table",
    "duration",
    "parts_table",
    "step_tables",
]

WIDTH = 100
Result = dict[str, Any]

NEMBP = (  # two lines of heading, contender
    ("nembp", "both", "nembp/bidirectional"),
    ("nembp", "samples", "nembp/bidirectional_samples"),
    ("nembp", "one", "nembp/one_direction"),
)
TORCH = (("PyTorch", "both", "torch/bidirectional"), ("PyTorch", "one", "torch/one_direction"))
SKLEARN = (("sklearn", "one", "sklearn/one_direction"),)
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
STEP_LEGEND = (
    "both: bidirectional, class-sum path (± half the interquartile range); samples: bidirectional, "
    "one backward row a sample; one: one direction; floor: the bare matrix products of the same "
    "shapes, and the bytes that Adam must move streamed once through memory. All in one run, "
    "repeats interleaved, medians. 'PyTorch both / both' is nembp's speed-up."
)
LAYER_LEGEND = (
    "A layer is named by the image below it, height x width x channels, and its convolution, "
    "channels x kernel s stride. floor: the bare matrix products of the definition, with windows "
    "that lie ready, at once or in blocks that stay in cache, whichever is faster; an algorithm "
    "with fewer multiplications can be faster than it. GMAC/s: the definition's multiply-adds a "
    "second. PyTorch's time is that of the layout named, the faster one."
)


def dense_table(results: list[Result]) -> str:
    """Return two tables a network, times and ratios, and the legend."""
    if any(result["kind"] == "gpu step" for result in results):
        from nembp.benchmarks.gpu_tables import gpu_table

        return gpu_table(results)
    return "\n\n".join([*step_tables(results, (*NEMBP, *TORCH, *SKLEARN)), _wrapped(STEP_LEGEND)])


def convolution_table(results: list[Result]) -> str:
    """Return a table of the layers, two of each network, and the legends."""
    layers = [result for result in results if result["kind"] == "layer"]
    steps = [result for result in results if result["kind"] == "step"]
    on_gpu = [result for result in results if result["kind"] == "gpu step"]
    parts = [_layer_table(layers), _wrapped(LAYER_LEGEND)] if layers else []
    if steps:
        parts += [*step_tables(steps, (*NEMBP, *TORCH)), _wrapped(STEP_LEGEND)]
    parts += [dense_table(on_gpu)] if on_gpu else []
    return "\n\n".join(parts)


PARTS_LEGEND = (
    "one: one direction; both: bidirectional, class-sum path; samples: bidirectional, one backward "
    "row a sample; noise: NEM noise on the target of every direction trained. products: the calls "
    "that multiply matrices, beside the bare products of the floor in the column '/ bare'; "
    "neurons: biases, activations and derivatives; bias sums: their gradients; output end: "
    "softmax, likelihood and error; input end: class sums, likelihood and error; Python: between "
    "the parts."
)


# -- layers ----------------------------------------------------------------------------------------
def _layer_table(results: list[Result]) -> str:
    head = [
        ("", "layer"),
        *CASE,
        ("nembp", ""),
        ("", "±"),
        ("PyTorch", ""),
        ("", "layout"),
        ("floor", ""),
        ("nembp", "/ PyTorch"),
        ("nembp", "/ floor"),
        ("nembp", "GMAC/s"),
    ]
    rows = []
    for result in results:
        times = result["times"]
        rows.append(
            [
                result["network"],
                _threads(result),
                str(result["batch"]),
                _time(times["nembp"]),
                _spread(times["nembp"]),
                _time(times["torch"]),
                times["torch"].get("layout", ""),
                _time(times["floor"]),
                *(_ratio(result["ratios"][name]) for name in ("nembp/torch", "nembp/floor")),
                f"{result['rate'] / 1e9:.1f}",
            ]
        )
    return columns(head, rows)


# -- steps -----------------------------------------------------------------------------------------
def step_tables(results: list[Result], contenders: tuple[tuple[str, str, str], ...]) -> list[str]:
    """Return for each network its name, a table of times, and one of ratios."""
    first, *others = [(top, bottom) for top, bottom, _ in (*contenders, *FLOORS)]
    times = [*CASE, first, ("", "±"), *others]
    ratios = [*CASE, *((top, bottom) for top, bottom, _ in RATIOS), *WORK]
    parts = []
    for network, group in groupby(results, key=lambda result: str(result["network"])):
        rows = list(group)
        parts.append(f"{network}, {rows[0]['parameters']:,} parameters")
        parts.append(columns(times, [_time_cells(row, contenders) for row in rows]))
        parts.append(columns(ratios, [_ratio_cells(row) for row in rows]))
    return parts


def _time_cells(row: Result, contenders: tuple[tuple[str, str, str], ...]) -> list[str]:
    times = row["times"]
    first, *others = [_time(times[name]) for _, _, name in contenders]
    floors = [duration(row["floor"][name]) for _, _, name in FLOORS]
    spread = _spread(times["nembp/bidirectional"])
    return [_threads(row), str(row["batch"]), first, spread, *others, *floors]


def _ratio_cells(row: Result) -> list[str]:
    cells = [_ratio(row["ratios"][name]) for _, _, name in RATIOS]
    counts = row["multiply_adds"]
    work = [f"{counts[f'nembp/{name}'] / 1e6:.1f} M" for name in ("bidirectional", "one_direction")]
    return [_threads(row), str(row["batch"]), *cells, *work, f"{row['adam_bytes'] / 1e6:.1f} MB"]


# -- parts -----------------------------------------------------------------------------------------
def parts_table(results: list[Result]) -> str:
    """Return a table for each network and number of threads: the shares of a step's parts."""
    text = []
    for (network, threads), group in groupby(
        results, key=lambda result: (result["network"], _threads(result))
    ):
        rows = list(group)
        names = list(rows[0]["variants"]["one"]["shares"])
        split = [name.rpartition(" ") for name in names]
        head = [("", "batch"), ("", "step"), ("", "time"), ("", "±")]
        head += [*((top, bottom) for top, _, bottom in split), ("products", "/ bare")]
        cells = [
            [str(row["batch"]), name, *_part_cells(variant)]
            for row in rows
            for name, variant in row["variants"].items()
        ]
        text += [f"{network}, threads: {threads}", columns(head, cells)]
    return "\n\n".join([*text, _wrapped(PARTS_LEGEND)])


def _part_cells(variant: Result) -> list[str]:
    step = variant["step"]
    shares = [f"{100 * share:.1f}%" for share in variant["shares"].values()]
    bare = _ratio(variant["parts"]["products"] / variant["bare_products"])
    return [duration(step["median"]), _spread(step), *shares, bare]


# -- cells -----------------------------------------------------------------------------------------
def _threads(row: Result) -> str:
    """Return the threads asked for, and those in force where a library did not obey."""
    force = {count for count in row["threads_in_force"].values() if count is not None}
    if force <= {row["threads"]}:
        return str(row["threads"])
    return f"{row['threads']} (in force {'/'.join(map(str, sorted(force)))})"


def _time(timing: Result) -> str:
    return str(timing["missing"]) if "missing" in timing else duration(timing["median"])


def _spread(timing: Result) -> str:
    return f"{50 * timing['spread']:.0f}%"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Return a duration with three digits and its unit.

    >>> duration(0.00123456), duration(0.0000456)
    ('1.23 ms', '45.6 us')
    """
    value, unit = (seconds * 1e6, "us") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def columns(head: list[tuple[str, str]], rows: list[list[str]]) -> str:
    """Align the columns to the right under their two lines of heading."""
    lines = [[top for top, _ in head], [bottom for _, bottom in head], *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH)
