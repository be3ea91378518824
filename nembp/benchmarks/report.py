"""A report as text: where it was measured, its tables, its notes.

Tables have a row per case, and a column for every time, ratio and size that was measured.
"""

from __future__ import annotations

import textwrap
from itertools import groupby
from operator import itemgetter
from typing import Any

Result = dict[str, Any]
Cells = dict[tuple[str, str], str]  # by two lines of heading; what has no upper one is a label

WIDTH = 100
WORDS = {"bidirectional_samples": "samples", "bidirectional": "both", "one_direction": "one",
         "_": " "}  # fmt: skip
BY_WAY = (
    "both: bidirectional, class-sum path (± half the interquartile range); samples: bidirectional, "
    "one backward row a sample; one: one direction."
)
LEGENDS = {
    "step": f"{BY_WAY} floor: the step's matrix products by themselves, and the bytes that Adam "
    "must move streamed once through memory. 'torch both / both' is nembp's speed-up.",
    "layer": "A layer is named by the image below it, height x width x channels, and its "
    "convolution, channels x kernel s stride. floor: nembp's matrix products by themselves. "
    "GMAC/s: the multiply-adds of the definition a second.",
    "gpu step": f"{BY_WAY} nembp: one captured CUDA graph; call by call: the same kernels launched "
    "one by one. torch: eager with fused Adam; compiled: under torch.compile(mode='reduce-"
    "overhead'), its Adam too; graph: eager code captured as one CUDA graph. products: the step's "
    "matrix products by themselves, captured; floor: their multiply-adds over the rate of a large "
    "product, and the bytes that Adam and the batch must move over the bandwidth of a long copy, "
    "both measured on this card. 'torch … / both' is nembp's speed-up.",
    "gan step": "one: neither network is trained backward; both: the generator is.",
    "parts": f"{BY_WAY} noise: NEM noise on the target of every direction trained. Shares are of "
    "modules: linear has the matrix products, beside them alone in '/ bare'; backprop the class "
    "sums, optimizers Adam, standard sums, draws and softmax.",
}


def duration(seconds: float) -> str:
    """Return a duration with three digits and its unit.

    >>> duration(0.00123456), duration(0.0000456)
    ('1.23 ms', '45.6 us')
    """
    value, unit = (seconds * 1e6, "us") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


# -- lines -----------------------------------------------------------------------------------------
def _time(found: Result, spread: bool) -> str:
    if "missing" in found:
        return str(found["missing"])[:20]
    return duration(found["median"]) + (f" ±{50 * found['spread']:.0f}%" if spread else "")


def _in_words(name: str) -> str:
    for long, short in WORDS.items():
        name = name.replace(long, short)
    return name


def _case(row: Result) -> Cells:
    """Return what a row is of; with the threads in force where a library did not obey."""
    force = {count for count in row["threads_in_force"].values() if count is not None}
    threads = f"{row['threads']}"
    if not force <= {row["threads"]}:
        threads += f" (in force {sorted(force)})"
    labels = {("", "network"): row["network"], ("", "threads"): threads}
    return labels | {("", "batch"): str(row["batch"])}


def _measured(row: Result) -> list[Cells]:
    """Return all that was measured of a case."""
    cells, times = _case(row), row["times"]
    # of results of version 0.1 " as " names one of several layouts, of which the best is shown
    shown = [name for name in times if " as " not in name and not name.startswith("floor/")]
    for name in shown:
        who, _, way = name.partition("/")
        cells[who, _in_words(way)] = _time(times[name], spread=name == shown[0])
    for way, least in row.get("floor", {}).items():
        cells["ms floor", _in_words(way)] = f"{1e3 * least:.3g}"
    for name, ratio in row["ratios"].items():
        if ratio is not None:
            above, below = map(_in_words, name.split("/"))
            cells[above, f"/ {below}"] = f"{ratio:.2f}"
    if "rate" in row:
        cells["nembp", "GMAC/s"] = f"{row['rate'] / 1e9:.1f}"
    return [cells]


def _parts(row: Result) -> list[Cells]:
    """Return each variant of a step, and its parts."""
    found = []
    for name, variant in row["variants"].items():
        cells = _case(row) | {("", ""): name, ("nembp", "step"): _time(variant["step"], True)}
        bare = variant["parts"]["linear"] / variant["bare_products"]
        cells["linear", "/ bare"] = f"{bare:.2f}"
        for part, share in variant["shares"].items():
            cells["share", part] = f"{share:.1%}"
        found.append(cells)
    return found


def _estimator(row: Result) -> list[Cells]:
    cells = {("", "data set"): row["network"], ("", "samples"): f"{row['samples']:.0f}"}
    cells["time", "/ MLP"] = f"{row['time_ratio']:.2f}"
    for kind, words in (("accuracy", "accuracy"), ("noisy_accuracy", "noisy")):
        cells[words, "%"] = f"{100 * row[kind]:.1f}"
        gain, error = (100 * row[f"{kind}_gain{end}"] for end in ("", "_error"))
        cells[f"{words} gain", "± error"] = f"{gain:+.2f} ± {error:.2f}"
    return [cells]


# -- tables ----------------------------------------------------------------------------------------
def table(rows: list[Cells]) -> str:
    """Return cells as text, aligned to the right under two lines of heading.

    What is wider than a page goes on below, beside the labels again.
    """
    labels: list[list[str]] = []
    pages: list[list[list[str]]] = []
    for heading in sorted(dict.fromkeys(each for row in rows for each in row), key=_is_cell):
        cells = [*heading, *(row.get(heading, "-") for row in rows)]
        column = [text.rjust(max(map(len, cells))) for text in cells]
        if not _is_cell(heading):
            labels.append(column)
            continue
        if not pages or sum(2 + len(each[0]) for each in [*pages[-1], column]) > WIDTH + 2:
            pages.append([*labels])
        pages[-1].append(column)
    return "\n\n".join(
        "\n".join("  ".join(cells).rstrip() for cells in zip(*page, strict=True)) for page in pages
    )


def _is_cell(heading: tuple[str, str]) -> bool:
    return bool(heading[0])


def tables(results: list[Result]) -> str:
    """Return the results of a suite: a table of each kind and network, and its legend."""
    parts, kind_of = [], itemgetter("kind")
    for kind, of_kind in groupby(sorted(results, key=kind_of), kind_of):
        lines = {"estimator": _estimator, "parts": _parts}.get(kind, _measured)
        for title, rows in groupby(of_kind, _title):
            found = list(rows)
            cells = [each for row in found for each in lines(row)]
            for each in cells if title else ():
                del each["", "network"]
            parts += [title, table(cells)] if title else [table(cells)]
        if kind == "gpu step":
            card = found[0]["card"]
            parts.append(
                f"{found[0]['precision']}; card: {card['bandwidth'] / 1e12:.2f} TB/s read and "
                f"written by a long copy, {card['rate'] / 1e12:.1f} T multiply-adds/s of a large "
                "product"
            )
        parts.append(textwrap.fill(LEGENDS.get(kind, ""), WIDTH))
    return "\n\n".join(filter(None, parts))


def _title(row: Result) -> str:
    return f"{row['network']}, {row['parameters']:,} parameters" if "parameters" in row else ""


# -- the whole report ------------------------------------------------------------------------------
def render(report: Result) -> str:
    """Return where it was measured, what a step is, the tables, the memory and the notes."""
    settings, machine, pins = report["settings"], report["machine"], report["environment"].items()
    header = [
        f"nembp bench: suite {report['suite']}, {settings['dtype']}, {machine['device']}, "
        f"{report['date']}",
        f"machine: {_told(machine)}",
        f"versions: {_told(report['versions'])}",
        *(f"BLAS: {_told(blas)}" for blas in report["blas"]),
        *([f"PyTorch: {_told(report['torch'])}"] if report["torch"] else []),
        "set by the environment: "
        + (", ".join(f"{name}={value}" for name, value in pins) or "nothing that pins a library"),
        f"threads: {', '.join(map(str, settings['threads']))}, set for BLAS and OpenMP by "
        "threadpoolctl and for PyTorch by torch.set_num_threads",
    ]
    lines = [x for text in header for x in textwrap.wrap(text, WIDTH, subsequent_indent="  ")]
    lines += ["", *textwrap.wrap(report["step"], WIDTH), "", tables(report["results"])]
    if report["peak_memory"] is not None:
        lines += ["", *textwrap.wrap(memory_line(report["peak_memory"]), WIDTH)]
    for note in report["notes"]:
        lines += textwrap.wrap(f"note: {note}", WIDTH)
    return "\n".join(lines)


def _told(values: Result) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items() if value)


def memory_line(memory: Result) -> str:
    """Return the line ``peak memory``."""
    if "failed" in memory:
        return f"peak memory: not measured, the training run failed ({memory['failed']})"
    words = {
        "bytes": "resident", "start_bytes": "before the data", "image_bytes": "uint8 images",
        "device_bytes": "reserved on the device", "torch_device_bytes": "by PyTorch there",
    }  # fmt: skip
    told = [f"{memory[key] / 1e6:.0f} MB {text}" for key, text in words.items() if memory.get(key)]
    if memory["bytes"] is None:
        told.insert(0, "unknown on this system")
    return (
        f"peak memory: {', '.join(told)}; {memory['network']}, {memory['images']:,} images, "
        f"batch {memory['batch']}, {memory['steps']} bidirectional steps and the scoring in "
        f"{memory['seconds']:.1f} s, {memory['threads']} threads"
    )
