"""A report as text: where it was measured, its tables, its notes.

Tables have a row per case, and a column for every time, ratio and size that was measured.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter
from typing import Any

Result = dict[str, Any]
Column = tuple[str, str, Callable[[Result], str]]  # two lines of heading, and a row's cell

WIDTH = 100
_KIND = itemgetter("kind")
WORDS = {"bidirectional": "both", "bidirectional_samples": "samples", "one_direction": "one"}
LEGENDS = {
    "step": "both: bidirectional, class-sum path (± half the interquartile range); samples: "
    "bidirectional, one backward row a sample; one: one direction; floor: the bare matrix products "
    "of the same shapes, and the bytes that Adam must move streamed once through memory. All in "
    "one run, repeats interleaved, medians. 'torch both / both' is nembp's speed-up.",
    "layer": "A layer is named by the image below it, height x width x channels, and its "
    "convolution, channels x kernel s stride. floor: the bare matrix products of the definition, "
    "with windows that lie ready, at once or in blocks that stay in cache, whichever is faster; an "
    "algorithm with fewer multiplications can be faster than it. GMAC/s: the definition's "
    "multiply-adds a second. torch's time is that of the layout named, the faster one.",
    "gpu step": "both: bidirectional, class-sum path, one captured CUDA graph (± half the "
    "interquartile range); call by call: the same kernels launched one by one; samples: "
    "bidirectional, one backward row a sample; one: one direction. torch: eager with fused Adam; "
    "compiled: under torch.compile(mode='reduce-overhead'), its Adam too; graph: eager code "
    "captured as one CUDA graph. products: the step's matrix products by themselves, captured; "
    "floor: their multiply-adds over the rate of a large product, and the bytes that Adam and the "
    "batch must move over the bandwidth of a long copy, both measured on this card. All times by "
    "events of the device, repeats interleaved, medians. 'torch … / both' is nembp's speed-up.",
    "gan step": "one: no player is trained backward; both: the generator is.",
    "parts": "one: one direction; both: bidirectional, class-sum path; samples: bidirectional, one "
    "backward row a sample; noise: NEM noise on the target of every direction trained. products: "
    "the calls that multiply matrices, beside the bare products of the floor in the column "
    "'/ bare'; neurons: biases, activations and derivatives; bias sums: their gradients; output "
    "end: softmax, likelihood and error; input end: class sums, likelihood and error; Python: "
    "between the parts.",
}


def duration(seconds: float) -> str:
    """Return a duration with three digits and its unit.

    >>> duration(0.00123456), duration(0.0000456)
    ('1.23 ms', '45.6 us')
    """
    value, unit = (seconds * 1e6, "us") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


# -- columns ---------------------------------------------------------------------------------------
def _threads(row: Result) -> str:
    """Return the threads asked for, and those in force where a library did not obey."""
    force = {count for count in row["threads_in_force"].values() if count is not None}
    if force <= {row["threads"]}:
        return str(row["threads"])
    return f"{row['threads']} (in force {'/'.join(map(str, sorted(force)))})"


def _time(name: str, spread: bool = False) -> Column:
    """Return the column of a contender; of the one with a spread, also half of it."""

    def cell(row: Result) -> str:
        found = row["times"].get(name, {"missing": "-"})
        if "missing" in found:
            return str(found["missing"])[:20]
        half = f" ±{50 * found['spread']:.0f}%" if spread else ""
        return " ".join([duration(found["median"]) + half, found.get("layout", "")]).rstrip()

    who, _, direction = name.partition("/")
    return who, WORDS.get(direction, direction), cell


def _ratio(name: str, kind: str) -> Column:
    above, _, below = name.partition("/")
    if kind == "gan step" and below != "floor":  # all over nembp's step in one direction
        above, below = f"{above} {WORDS[below]}", "one"
    for long, short in sorted(WORDS.items(), reverse=True):
        above, below = (text.replace(long, short).replace("_", " ") for text in (above, below))

    def cell(row: Result) -> str:
        value = row["ratios"].get(name)
        return "-" if value is None else f"{value:.2f}"

    return above, f"/ {below}", cell


def _number(top: str, bottom: str, form: str, unit: float, *keys: str) -> Column:
    """Return the column of a number within a row, in a unit."""

    def cell(row: Result) -> str:
        value: Any = row
        for key in keys:
            value = value[key]
        return f"{value / unit:{form}}"

    return top, bottom, cell


def _text(heading: str, key: str) -> Column:
    return "", heading, lambda row: str(row[key])


NETWORK, BATCH, VARIANT = _text("network", "network"), _text("batch", "batch"), _text("", "name")
THREADS: Column = ("", "threads", _threads)
ESTIMATORS: list[Column] = [
    _text("data set", "network"),
    _number("", "samples", ".0f", 1, "samples"),
    _number("time", "/ MLP", ".2f", 1, "time_ratio"),
    _number("accuracy", "%", ".1f", 0.01, "accuracy"),
    _number("gain", "", "+.2f", 0.01, "accuracy_gain"),
    _number("", "±", ".2f", 0.01, "accuracy_gain_error"),
    _number("noisy", "%", ".1f", 0.01, "noisy_accuracy"),
    _number("gain", "", "+.2f", 0.01, "noisy_accuracy_gain"),
    _number("", "±", ".2f", 0.01, "noisy_accuracy_gain_error"),
]


def _columns(row: Result) -> list[Column]:
    """Return the columns of all that was measured of a case."""
    kind, times = row["kind"], row["times"]
    shown = [name for name in times if " as " not in name and not name.startswith("floor/")]
    columns = [_time(name, spread=name == shown[0]) for name in shown]
    floor = row.get("floor")
    if isinstance(floor, dict):
        columns += [_number("ms floor", WORDS[name], ".3g", 1e-3, "floor", name) for name in floor]
    elif floor is not None:
        columns.append(_number("ms", "floor", ".3g", 1e-3, "floor"))
    columns += [_ratio(name, kind) for name in row["ratios"] if name != "nembp/one_direction"]
    if isinstance(row["multiply_adds"], dict):
        columns += [
            _number("M mult.-adds", WORDS[name], ".1f", 1e6, "multiply_adds", f"nembp/{name}")
            for name in ("bidirectional", "one_direction")
        ]
    if "adam_bytes" in row:
        columns.append(_number("Adam", "moves MB", ".1f", 1e6, "adam_bytes"))
    if "rate" in row:
        columns.append(_number("nembp", "GMAC/s", ".1f", 1e9, "rate"))
    return columns


def _parts(rows: Iterable[Result]) -> tuple[list[Column], list[Result]]:
    """Return the columns of a step's parts, and a row per variant."""
    found = [
        {**row, **variant, "name": name, "times": {"step": variant["step"]}}
        | {"bare": variant["parts"]["products"] / variant["bare_products"]}
        for row in rows
        for name, variant in row["variants"].items()
    ]
    columns = [_time("step", spread=True), _number("products", "/ bare", ".2f", 1, "bare")]
    for part in found[0]["shares"]:
        top, _, bottom = part.rpartition(" ")
        columns.append(_number(top, bottom, ".1%", 1, "shares", part))
    return columns, found


# -- tables ----------------------------------------------------------------------------------------
def table(labels: list[Column], columns: list[Column], rows: list[Result]) -> str:
    """Return the rows as text, the columns aligned to the right under two lines of heading.

    What is wider than a page goes on below, beside the labels again; what nobody has is left out.
    """

    def column(top: str, bottom: str, cell: Callable[[Result], str]) -> list[str]:
        cells = [top, bottom, *map(cell, rows)]
        return [text.rjust(max(map(len, cells))) for text in cells]

    first, others = [column(*each) for each in labels], [column(*each) for each in columns]
    pages = [[*first]]
    for each in others:
        if all(cell.strip() == "-" for cell in each[2:]):
            continue
        if sum(2 + len(page[0]) for page in [*pages[-1], each]) > WIDTH + 2:
            pages.append([*first])
        pages[-1].append(each)
    return "\n\n".join(
        "\n".join("  ".join(cells).rstrip() for cells in zip(*page, strict=True)) for page in pages
    )


def tables(results: list[Result]) -> str:
    """Return the results of a suite: a table of each kind and network, and its legend."""
    parts = []
    for kind, of_kind in groupby(sorted(results, key=_KIND), _KIND):
        rows = list(of_kind)
        if kind == "estimator":
            parts.append(table(ESTIMATORS, [], rows))
        elif "parameters" not in rows[0]:
            parts.append(table([NETWORK, THREADS, BATCH], _columns(rows[0]), rows))
        else:
            for network, found in groupby(rows, itemgetter("network", "parameters")):
                parts.append("{}, {:,} parameters".format(*network))
                group, labels = list(found), [THREADS, BATCH]
                if kind == "parts":
                    parts.append(table([*labels, VARIANT], *_parts(group)))
                else:
                    parts.append(table(labels, _columns(group[0]), group))
        if kind == "gpu step":
            card = rows[0]["card"]
            parts.append(
                f"{rows[0]['precision']}; card: {card['bandwidth'] / 1e12:.2f} TB/s read and "
                f"written by a long copy, {card['rate'] / 1e12:.1f} T multiply-adds/s of a large "
                "product"
            )
        if kind in LEGENDS:
            parts.append(textwrap.fill(LEGENDS[kind], WIDTH))
    return "\n\n".join(parts)


# -- the whole report ------------------------------------------------------------------------------
def render(report: Result) -> str:
    """Return where it was measured, what a step is, the tables, the memory and the notes."""
    lines = [*_header(report), "", *textwrap.wrap(report["step"], WIDTH), ""]
    lines.append(tables(report["results"]))
    if report["peak_memory"] is not None:
        lines += ["", *textwrap.wrap(memory_line(report["peak_memory"]), WIDTH)]
    for note in report["notes"]:
        lines += textwrap.wrap(f"note: {note}", WIDTH)
    return "\n".join(lines)


def _header(report: Result) -> list[str]:
    def told(values: Result) -> str:
        known = {key.replace("_", " "): value for key, value in values.items() if value}
        return ", ".join(f"{key} {value}" for key, value in known.items())

    settings = report["settings"]
    pins = [f"{name}={value}" for name, value in report["environment"].items()]
    device = report["machine"]["device"]
    lines = [
        f"nembp bench: suite {report['suite']}, {settings['dtype']}, {device}, {report['date']}",
        f"machine: {told(report['machine'])}",
        f"versions: {told(report['versions'])}",
        *(f"BLAS: {told(blas)}" for blas in report["blas"]),
        *([f"PyTorch: {told(report['torch'])}"] if report["torch"] else []),
        f"set by the environment: {', '.join(pins) or 'nothing that pins a library'}",
        f"threads: {', '.join(map(str, settings['threads']))}, set for BLAS and OpenMP by "
        "threadpoolctl and for PyTorch by torch.set_num_threads",
    ]
    return [line for text in lines for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ")]


def memory_line(memory: Result) -> str:
    """Return the line ``peak memory``."""
    if "failed" in memory:
        return f"peak memory: not measured, the training run failed ({memory['failed']})"
    resident = "unknown on this system"
    if memory["bytes"] is not None:
        resident = (
            f"{memory['bytes'] / 1e6:.0f} MB resident ({memory['start_bytes'] / 1e6:.0f} MB of it "
            "before the data)"
        )
    text = (
        f"peak memory: {resident} for {memory['network']} on {memory['images']:,} uint8 images "
        f"of {memory['image_bytes'] / 1e6:.0f} MB, batch {memory['batch']}, {memory['steps']} "
        f"bidirectional steps and the scoring in {memory['seconds']:.1f} s, "
        f"{memory['threads']} threads"
    )
    ours, theirs = memory.get("device_bytes"), memory.get("torch_device_bytes")
    if ours is not None:  # on a GPU, beside PyTorch's for the same training
        peer = f"PyTorch {theirs / 1e6:.0f} MB" if theirs else "PyTorch not measured"
        text += f"; on the device {ours / 1e6:.0f} MB reserved, {peer}"
    return text
