"""A report as text: where it was measured, its tables, its notes.

Tables have a row per case, and a column for every time, ratio and size that was measured.
"""

from __future__ import annotations

import textwrap
from itertools import groupby
from operator import itemgetter
from typing import Any

Result = dict[str, Any]
Cells = dict[tuple[str, str], str]  # by two lines of heading

WIDTH = 100
WORDS = {"bidirectional": "both", "bidirectional_samples": "samples", "one_direction": "one"}
BY_WAY = (
    "both: bidirectional, class-sum path (± half the interquartile range); samples: bidirectional, "
    "one backward row a sample; one: one direction."
)
LEGENDS = {
    "step": f"{BY_WAY} floor: the bare matrix products of the same shapes, and the bytes that Adam "
    "must move streamed once through memory. 'torch both / both' is nembp's speed-up.",
    "layer": "A layer is named by the image below it, height x width x channels, and its "
    "convolution, channels x kernel s stride. floor: the bare matrix products of the definition, "
    "with windows that lie ready, at once or in blocks that stay in cache; an algorithm with fewer "
    "multiplications can be faster than it. GMAC/s: the definition's multiply-adds a second.",
    "gpu step": f"{BY_WAY} nembp: one captured CUDA graph; call by call: the same kernels launched "
    "one by one. torch: eager with fused Adam; compiled: under torch.compile(mode='reduce-"
    "overhead'), its Adam too; graph: eager code captured as one CUDA graph. products: the step's "
    "matrix products by themselves, captured; floor: their multiply-adds over the rate of a large "
    "product, and the bytes that Adam and the batch must move over the bandwidth of a long copy, "
    "both measured on this card. 'torch … / both' is nembp's speed-up.",
    "gan step": "one: no player is trained backward; both: the generator is.",
    "parts": f"{BY_WAY} noise: NEM noise on the target of every direction trained. products: the "
    "calls that multiply matrices, beside the bare products of the floor in the column '/ bare'; "
    "neurons: biases, activations and derivatives; bias sums: their gradients; the ends: "
    "likelihoods, errors and class sums; Python: between the parts.",
}


def duration(seconds: float) -> str:
    """Return a duration with three digits and its unit.

    >>> duration(0.00123456), duration(0.0000456)
    ('1.23 ms', '45.6 us')
    """
    value, unit = (seconds * 1e6, "us") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


# -- cells -----------------------------------------------------------------------------------------
def _case(row: Result, *, network: bool = False) -> Cells:
    """Return what a row is of; with the threads in force where a library did not obey."""
    force = {count for count in row["threads_in_force"].values() if count is not None}
    obeyed = force <= {row["threads"]}
    threads = f"{row['threads']}" if obeyed else f"{row['threads']} (in force {sorted(force)})"
    found = {("", "network"): row["network"]} if network else {}
    return found | {("", "threads"): threads, ("", "batch"): str(row["batch"])}


def _time(found: Result, spread: bool) -> str:
    if "missing" in found:
        return str(found["missing"])[:20]
    half = f" ±{50 * found['spread']:.0f}%" if spread else ""
    return " ".join([duration(found["median"]) + half, found.get("layout", "")]).rstrip()


def _in_words(name: str) -> str:
    for long, short in sorted(WORDS.items(), reverse=True):
        name = name.replace(long, short)
    return name.replace("_", " ")


def _measured(row: Result) -> Cells:
    """Return all that was measured of a case."""
    cells, times = {}, row["times"]
    shown = [name for name in times if " as " not in name and not name.startswith("floor/")]
    for name in shown:
        who, _, way = name.partition("/")
        cells[who, WORDS.get(way, way)] = _time(times[name], spread=name == shown[0])
    floor = row.get("floor")
    for name, least in floor.items() if isinstance(floor, dict) else [("", floor)]:
        if least is not None:
            cells["ms floor", WORDS.get(name, name)] = f"{1e3 * least:.3g}"
    for name, ratio in row["ratios"].items():
        above, _, below = name.partition("/")
        if row["kind"] == "gan step" and below != "floor":  # all over nembp's in one direction
            above, below = f"{above} {below}", "one"
        if name != "nembp/one_direction" and ratio is not None:
            cells[_in_words(above), f"/ {_in_words(below)}"] = f"{ratio:.2f}"
    if "rate" in row:
        cells["nembp", "GMAC/s"] = f"{row['rate'] / 1e9:.1f}"
    return cells


def _parts(row: Result) -> list[tuple[Cells, Cells]]:
    """Return each variant of a step, and its parts."""
    found = []
    for name, variant in row["variants"].items():
        bare = variant["parts"]["products"] / variant["bare_products"]
        cells = {("", "step"): _time(variant["step"], spread=True)}
        cells["products", "/ bare"] = f"{bare:.2f}"
        for part, share in variant["shares"].items():
            top, _, bottom = part.rpartition(" ")
            cells[top, bottom] = f"{share:.1%}"
        found.append(({("", ""): name}, cells))
    return found


def _estimator(row: Result) -> Cells:
    cells = {
        ("", "samples"): f"{row['samples']:.0f}",
        ("time", "/ MLP"): f"{row['time_ratio']:.2f}",
    }
    for kind, words in (("accuracy", "accuracy"), ("noisy_accuracy", "noisy")):
        cells[words, "%"] = f"{100 * row[kind]:.1f}"
        gain, error = (100 * row[f"{kind}_gain{end}"] for end in ("", "_error"))
        cells[f"{words} gain", "± error"] = f"{gain:+.2f} ± {error:.2f}"
    return cells


# -- tables ----------------------------------------------------------------------------------------
def table(rows: list[tuple[Cells, Cells]]) -> str:
    """Return labels and cells as text, aligned to the right under two lines of heading.

    What is wider than a page goes on below, beside the labels again.
    """

    def columns(side: int) -> list[list[str]]:
        headings = dict.fromkeys(heading for row in rows for heading in row[side])
        found = [[*each, *(row[side].get(each, "-") for row in rows)] for each in headings]
        return [[text.rjust(max(map(len, cells))) for text in cells] for cells in found]

    labels, others = columns(0), columns(1)
    pages = [[*labels]]
    for column in others:
        if sum(2 + len(page[0]) for page in [*pages[-1], column]) > WIDTH + 2:
            pages.append([*labels])
        pages[-1].append(column)
    return "\n\n".join(
        "\n".join("  ".join(cells).rstrip() for cells in zip(*page, strict=True)) for page in pages
    )


def tables(results: list[Result]) -> str:
    """Return the results of a suite: a table of each kind and network, and its legend."""
    parts, kind_of = [], itemgetter("kind")
    for kind, of_kind in groupby(sorted(results, key=kind_of), kind_of):
        rows = list(of_kind)
        if kind == "estimator":
            parts.append(
                table([({("data set", "network"): r["network"]}, _estimator(r)) for r in rows])
            )
        elif "parameters" not in rows[0]:
            parts.append(table([(_case(row, network=True), _measured(row)) for row in rows]))
        else:
            for network, found in groupby(rows, itemgetter("network", "parameters")):
                parts.append("{}, {:,} parameters".format(*network))
                parts.append(
                    table(
                        [
                            (_case(row) | label, cells)
                            for row in found
                            for label, cells in (
                                _parts(row) if kind == "parts" else [({}, _measured(row))]
                            )
                        ]
                    )
                )
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

    settings, pins = report["settings"], report["environment"].items()
    device = report["machine"]["device"]
    lines = [
        f"nembp bench: suite {report['suite']}, {settings['dtype']}, {device}, {report['date']}",
        f"machine: {told(report['machine'])}",
        f"versions: {told(report['versions'])}",
        *(f"BLAS: {told(blas)}" for blas in report["blas"]),
        *([f"PyTorch: {told(report['torch'])}"] if report["torch"] else []),
        "set by the environment: "
        + (", ".join(f"{name}={value}" for name, value in pins) or "nothing that pins a library"),
        f"threads: {', '.join(map(str, settings['threads']))}, set for BLAS and OpenMP by "
        "threadpoolctl and for PyTorch by torch.set_num_threads",
    ]
    return [line for text in lines for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ")]


def memory_line(memory: Result) -> str:
    """Return the line ``peak memory``."""
    if "failed" in memory:
        return f"peak memory: not measured, the training run failed ({memory['failed']})"
    sizes = {
        "resident": "bytes", "before the data": "start_bytes", "uint8 images": "image_bytes",
        "reserved on the device": "device_bytes", "by PyTorch there": "torch_device_bytes",
    }  # fmt: skip
    told = [
        f"{memory[key] / 1e6:.0f} MB {words}" for words, key in sizes.items() if memory.get(key)
    ]
    known = ", ".join(told if memory["bytes"] else ["unknown on this system", *told])
    return (
        f"peak memory: {known}; {memory['network']}, {memory['images']:,} images, batch "
        f"{memory['batch']}, {memory['steps']} bidirectional steps and the scoring in "
        f"{memory['seconds']:.1f} s, {memory['threads']} threads"
    )
