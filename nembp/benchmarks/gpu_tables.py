"""The tables of steps on a GPU."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import Any

from nembp.benchmarks.tables import WIDTH, columns, duration

__all__ = ["gpu_table"]

Result = dict[str, Any]
TIMES = (  # two lines of heading, contender
    ("nembp", "both", "nembp/bidirectional"),
    ("call by", "call", "nembp call by call/bidirectional"),
    ("nembp", "samples", "nembp/bidirectional_samples"),
    ("nembp", "one", "nembp/one_direction"),
    ("PyTorch both", "eager", "torch/bidirectional"),
    ("", "compiled", "torch compiled/bidirectional"),
    ("", "graph", "torch graph/bidirectional"),
    ("PyTorch one", "graph", "torch graph/one_direction"),
    ("bare", "products", "products/bidirectional"),
)
RATIOS = (
    ("PyTorch eager", "/ both", "torch/bidirectional"),
    ("compiled", "/ both", "torch compiled/bidirectional"),
    ("graph", "/ both", "torch graph/bidirectional"),
    ("call by call", "/ both", "nembp call by call/bidirectional"),
    ("both", "/ products", "bidirectional/products"),
    ("both", "/ floor", "bidirectional/floor"),
    ("one", "/ floor", "one_direction/floor"),
)
LEGEND = (
    "both: bidirectional, class-sum path, one captured CUDA graph (± half the interquartile range);"
    " call by call: the same kernels launched one by one; samples: bidirectional, one backward row "
    "a sample; one: one direction. PyTorch's bidirectional step: eager with fused Adam; under "
    "torch.compile(mode='reduce-overhead'), its Adam too; eager code captured as one CUDA graph. "
    "products: the step's matrix products by themselves, captured; floor: their multiply-adds over "
    "the rate of a large product, and the bytes that Adam and the batch must move over the "
    "bandwidth of a long copy, both measured on this card. All times by events of the device, "
    "repeats interleaved, medians. 'PyTorch … / both' is nembp's speed-up."
)


def gpu_table(results: list[Result]) -> str:
    """Return two tables a network, times and ratios, the card's ceilings and the legend."""
    parts = []
    for network, group in groupby(results, key=lambda result: str(result["network"])):
        rows = list(group)
        parts.append(f"{network}, {rows[0]['parameters']:,} parameters, {rows[0]['precision']}")
        (top, bottom, _), *others = contenders = TIMES
        head = [("", "batch"), (top, bottom), ("", "±"), *((a, b) for a, b, _ in others)]
        cells = [_times(row, contenders) for row in rows]
        parts.append(columns([*head, ("floor", "both")], cells))
        ratios = [("", "batch"), *((a, b) for a, b, _ in RATIOS), ("multiply-adds", "both")]
        parts.append(columns(ratios, [_ratios(row) for row in rows]))
    card = results[0]["card"]
    ceilings = (
        f"card: {card['bandwidth'] / 1e12:.2f} TB/s read and written by a long copy, "
        f"{card['rate'] / 1e12:.1f} T multiply-adds/s of a large product"
    )
    return "\n\n".join([*parts, ceilings, textwrap.fill(LEGEND, WIDTH)])


def _times(row: Result, contenders: tuple[tuple[str, str, str], ...]) -> list[str]:
    first, *others = (row["times"][name] for _, _, name in contenders)
    spread = f"{50 * first['spread']:.0f}%"
    cells = [_time(each) for each in others]
    return [
        str(row["batch"]),
        _time(first),
        spread,
        *cells,
        duration(row["floor"]["bidirectional"]),
    ]


def _time(timing: Result) -> str:
    return str(timing["missing"])[:20] if "missing" in timing else duration(timing["median"])


def _ratios(row: Result) -> list[str]:
    values = (row["ratios"].get(name) for _, _, name in RATIOS)
    work = row["multiply_adds"]["nembp/bidirectional"]
    cells = ["-" if value is None else f"{value:.2f}" for value in values]
    return [str(row["batch"]), *cells, f"{work / 1e6:.1f} M"]
