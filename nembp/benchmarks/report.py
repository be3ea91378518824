"""A report as text: where it was measured, its tables, its notes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

Result = dict[str, Any]
Column = tuple[str, str, Callable[[Result], str]]  # two lines of heading, and a row's cell

WIDTH = 100
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
GPU_LEGEND = (
    "both: bidirectional, class-sum path, one captured CUDA graph (± half the interquartile range);"
    " call by call: the same kernels launched one by one; samples: bidirectional, one backward row "
    "a sample; one: one direction. PyTorch's bidirectional step: eager with fused Adam; under "
    "torch.compile(mode='reduce-overhead'), its Adam too; eager code captured as one CUDA graph. "
    "products: the step's matrix products by themselves, captured; floor: their multiply-adds over "
    "the rate of a large product, and the bytes that Adam and the batch must move over the "
    "bandwidth of a long copy, both measured on this card. All times by events of the device, "
    "repeats interleaved, medians. 'PyTorch … / both' is nembp's speed-up."
)
PARTS_LEGEND = (
    "one: one direction; both: bidirectional, class-sum path; samples: bidirectional, one backward "
    "row a sample; noise: NEM noise on the target of every direction trained. products: the calls "
    "that multiply matrices, beside the bare products of the floor in the column '/ bare'; "
    "neurons: biases, activations and derivatives; bias sums: their gradients; output end: "
    "softmax, likelihood and error; input end: class sums, likelihood and error; Python: between "
    "the parts."
)


# -- cells -----------------------------------------------------------------------------------------
def duration(seconds: float) -> str:
    """Return a duration with three digits and its unit.

    >>> duration(0.00123456), duration(0.0000456)
    ('1.23 ms', '45.6 us')
    """
    value, unit = (seconds * 1e6, "us") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def _duration_or_why(timing: Result) -> str:
    return str(timing["missing"])[:20] if "missing" in timing else duration(timing["median"])


def _time(name: str) -> Callable[[Result], str]:
    return lambda row: _duration_or_why(row["times"].get(name, {"missing": "-"}))


def _spread(name: str) -> Callable[[Result], str]:
    return lambda row: f"{50 * row['times'][name]['spread']:.0f}%"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _ratio(name: str) -> Callable[[Result], str]:
    return lambda row: _number(row["ratios"].get(name))


def _floor(name: str) -> Callable[[Result], str]:
    return lambda row: duration(row["floor"][name])


def _work(path: str) -> Callable[[Result], str]:
    return lambda row: f"{row['multiply_adds'][f'nembp/{path}'] / 1e6:.1f} M"


def _threads(row: Result) -> str:
    """Return the threads asked for, and those in force where a library did not obey."""
    force = {count for count in row["threads_in_force"].values() if count is not None}
    if force <= {row["threads"]}:
        return str(row["threads"])
    return f"{row['threads']} (in force {'/'.join(map(str, sorted(force)))})"


# -- tables ----------------------------------------------------------------------------------------
NETWORK: Column = ("", "network", lambda row: str(row["network"]))
BATCH: Column = ("", "batch", lambda row: str(row["batch"]))
THREADS: Column = ("", "threads", _threads)

STEP_TIMES: list[Column] = [
    THREADS,
    BATCH,
    ("nembp", "both", _time("nembp/bidirectional")),
    ("", "±", _spread("nembp/bidirectional")),
    ("nembp", "samples", _time("nembp/bidirectional_samples")),
    ("nembp", "one", _time("nembp/one_direction")),
    ("PyTorch", "both", _time("torch/bidirectional")),
    ("PyTorch", "one", _time("torch/one_direction")),
]
SKLEARN: list[Column] = [("sklearn", "one", _time("sklearn/one_direction"))]
STEP_FLOORS: list[Column] = [
    ("floor", "both", _floor("bidirectional")),
    ("floor", "one", _floor("one_direction")),
]
STEP_RATIOS: list[Column] = [
    THREADS,
    BATCH,
    ("both", "/ one", _ratio("bidirectional/one_direction")),
    ("PyTorch both", "/ both", _ratio("torch_bidirectional/bidirectional")),
    ("both", "/ PyTorch one", _ratio("bidirectional/torch_one_direction")),
    ("both", "/ floor", _ratio("bidirectional/floor")),
    ("one", "/ floor", _ratio("one_direction/floor")),
    ("multiply-adds", "both", _work("bidirectional")),
    ("multiply-adds", "one", _work("one_direction")),
    ("Adam", "moves", lambda row: f"{row['adam_bytes'] / 1e6:.1f} MB"),
]
GPU_TIMES: list[Column] = [
    BATCH,
    ("nembp", "both", _time("nembp/bidirectional")),
    ("", "±", _spread("nembp/bidirectional")),
    ("call by", "call", _time("nembp call by call/bidirectional")),
    ("nembp", "samples", _time("nembp/bidirectional_samples")),
    ("nembp", "one", _time("nembp/one_direction")),
    ("PyTorch both", "eager", _time("torch/bidirectional")),
    ("", "compiled", _time("torch compiled/bidirectional")),
    ("", "graph", _time("torch graph/bidirectional")),
    ("PyTorch one", "graph", _time("torch graph/one_direction")),
    ("bare", "products", _time("products/bidirectional")),
    ("floor", "both", _floor("bidirectional")),
]
GPU_RATIOS: list[Column] = [
    BATCH,
    ("PyTorch eager", "/ both", _ratio("torch/bidirectional")),
    ("compiled", "/ both", _ratio("torch compiled/bidirectional")),
    ("graph", "/ both", _ratio("torch graph/bidirectional")),
    ("call by call", "/ both", _ratio("nembp call by call/bidirectional")),
    ("both", "/ products", _ratio("bidirectional/products")),
    ("both", "/ floor", _ratio("bidirectional/floor")),
    ("one", "/ floor", _ratio("one_direction/floor")),
    ("multiply-adds", "both", _work("bidirectional")),
]
LAYERS: list[Column] = [
    ("", "layer", NETWORK[2]),
    THREADS,
    BATCH,
    ("nembp", "", _time("nembp")),
    ("", "±", _spread("nembp")),
    ("PyTorch", "", _time("torch")),
    ("", "layout", lambda row: str(row["times"]["torch"].get("layout", ""))),
    ("floor", "", _time("floor")),
    ("nembp", "/ PyTorch", _ratio("nembp/torch")),
    ("nembp", "/ floor", _ratio("nembp/floor")),
    ("nembp", "GMAC/s", lambda row: f"{row['rate'] / 1e9:.1f}"),
]
GANS: list[Column] = [
    NETWORK,
    THREADS,
    BATCH,
    ("nembp", "one", _time("nembp/one_direction")),
    ("G in both", "directions", _time("nembp/bidirectional")),
    ("call by", "call", _time("nembp call by call/one_direction")),
    ("PyTorch", "eager", _time("torch/one_direction")),
    ("PyTorch", "graph", _time("torch graph/one_direction")),
    ("", "floor", lambda row: "-" if row["floor"] is None else duration(row["floor"])),
    ("PyTorch", "/ one", _ratio("torch/one_direction")),
    ("both", "/ one", _ratio("nembp/bidirectional")),
    ("one", "/ floor", _ratio("one_direction/floor")),
]


ESTIMATORS: list[Column] = [
    ("", "data set", NETWORK[2]),
    ("", "samples", lambda row: f"{row['samples']:.0f}"),
    ("time", "/ MLP", lambda row: f"{row['time_ratio']:.2f}"),
    ("accuracy", "%", lambda row: f"{100 * row['accuracy']:.1f}"),
    ("gain", "", lambda row: f"{100 * row['accuracy_gain']:+.2f}"),
    ("", "±", lambda row: f"{100 * row['accuracy_gain_error']:.2f}"),
    ("noisy", "%", lambda row: f"{100 * row['noisy_accuracy']:.1f}"),
    ("gain", "", lambda row: f"{100 * row['noisy_accuracy_gain']:+.2f}"),
    ("", "±", lambda row: f"{100 * row['noisy_accuracy_gain_error']:.2f}"),
]


def _share(part: str) -> Column:
    top, _, bottom = part.rpartition(" ")
    return top, bottom, lambda row: f"{100 * row['shares'][part]:.1f}%"


def _part_rows(rows: Iterable[Result]) -> list[Result]:
    return [
        {**variant, "batch": row["batch"], "name": name, "times": {"step": variant["step"]}}
        for row in rows
        for name, variant in row["variants"].items()
    ]


def table(columns: list[Column], rows: list[Result]) -> str:
    """Return the rows as text, the columns aligned to the right under two lines of heading."""
    lines = [[top for top, _, _ in columns], [bottom for _, bottom, _ in columns]]
    lines += [[cell(row) for _, _, cell in columns] for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def tables(results: list[Result]) -> str:
    """Return the results of a suite: a table of each kind and network, and its legend."""
    kinds: dict[str, list[Result]] = {}
    for result in results:
        kinds.setdefault(result["kind"], []).append(result)
    parts = []
    if layers := kinds.get("layer"):
        parts += [table(LAYERS, layers), textwrap.fill(LAYER_LEGEND, WIDTH)]
    if steps := kinds.get("step"):
        for name, rows in _by_network(steps):
            sklearn = SKLEARN if "sklearn/one_direction" in rows[0]["times"] else []
            parts += [name, table([*STEP_TIMES, *sklearn, *STEP_FLOORS], rows)]
            parts.append(table(STEP_RATIOS, rows))
        parts.append(textwrap.fill(STEP_LEGEND, WIDTH))
    if steps := kinds.get("gpu step"):
        for name, rows in _by_network(steps):
            parts += [
                f"{name}, {rows[0]['precision']}",
                table(GPU_TIMES, rows),
                table(GPU_RATIOS, rows),
            ]
        card = steps[0]["card"]
        parts.append(
            f"card: {card['bandwidth'] / 1e12:.2f} TB/s read and written by a long copy, "
            f"{card['rate'] / 1e12:.1f} T multiply-adds/s of a large product"
        )
        parts.append(textwrap.fill(GPU_LEGEND, WIDTH))
    if gans := kinds.get("gan step"):
        parts.append(table(GANS, gans))
    if fits := kinds.get("estimator"):
        parts.append(table(ESTIMATORS, fits))
    if steps := kinds.get("parts"):
        columns: list[Column] = [
            BATCH,
            ("", "step", lambda row: str(row["name"])),
            ("", "time", _time("step")),
            ("", "±", _spread("step")),
            *(_share(part) for part in steps[0]["variants"]["one"]["shares"]),
            ("products", "/ bare", lambda r: _number(r["parts"]["products"] / r["bare_products"])),
        ]
        for (name, threads), group in groupby(steps, lambda row: (row["network"], _threads(row))):
            parts += [f"{name}, threads: {threads}", table(columns, _part_rows(group))]
        parts.append(textwrap.fill(PARTS_LEGEND, WIDTH))
    return "\n\n".join(parts)


def _by_network(results: list[Result]) -> list[tuple[str, list[Result]]]:
    groups = [list(group) for _, group in groupby(results, lambda row: str(row["network"]))]
    return [(f"{g[0]['network']}, {g[0]['parameters']:,} parameters", g) for g in groups]


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
    machine, settings = report["machine"], report["settings"]
    versions = [f"{name} {version}" for name, version in report["versions"].items() if version]
    pins = [f"{name}={value}" for name, value in report["environment"].items()]
    lines = [
        f"nembp bench: suite {report['suite']}, {settings['dtype']}, {machine['device']}, "
        f"{report['date']}",
        f"machine: {machine['processor']}, {machine['usable_cpus']} usable CPUs, up to "
        f"{machine['vector_instructions']}, {machine['system']}",
        f"versions: {', '.join(versions)}",
        *(
            f"BLAS: {blas['library']} {blas['version']}, core type "
            f"{blas['core_type'] or 'unknown'}, {blas['threading']} threads"
            for blas in report["blas"]
        ),
    ]
    if build := report["torch"]:
        lines.append(
            f"PyTorch: BLAS {build['blas']}, own kernels {build['cpu_capability']}, convolutions "
            f"oneDNN, {build['onednn'] or 'instruction set unknown'}"
        )
    lines += [
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
