"""`nembp bench`: the time of a bidirectional step and of its parts, beside its peers."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from nembp.benchmarks import SUITES
from nembp.errors import ArchitectureError
from nembp.runs.options import Option as Declared

from .options import POSITIVE, Option, command
from .output import emit, say

LIST = Declared("Names")


def _counts(ctx: click.Context, param: click.Parameter, value: Any) -> tuple[int, ...] | None:
    """Return positive whole numbers; a bad entry is named."""
    for entry in value or ():
        if not re.fullmatch("0*[1-9][0-9]{0,8}", entry):
            raise click.BadParameter(f"{entry!r:.80} is no whole number of at least 1")
    return None if value is None else tuple(map(int, value))


@command(
    Option("--suite", " ".join(f"{name}: {text}." for name, text in SUITES.items()),
           tuple(SUITES), default="dense"),
    Option("--networks NETWORK,...", "Layer sizes, as in 784-256-128-10,784-512-512-10; for the "
           "convolution suite image and layers, as in 32x32x3/conv32x4s2/256/10, or a layer by "
           "itself, as in 16x16x32/conv64x4s2; for the estimators data sets: iris, digits, or "
           "from files mnist:DIR, csv:FILE.  [default: the suite's]", LIST),
    Option("--batches ROWS,...", "Batch sizes.  [default: the suite's]", LIST, callback=_counts),
    Option("--threads N,...", "Threads of BLAS and of PyTorch alike.  [default: 1,2]", LIST,
           callback=_counts),
    Option("--repeats", "Interleaved rounds of every line.  [default: as many as the time allows, "
           "3 to 25]", POSITIVE),
    Option("--dtype", "[default: float32]", ("float32", "float64")),
    Option("--device", "[default: auto]", ("auto", "cpu", "gpu")),
    Option("--precision", "Of a GPU's float32 products, nembp's and PyTorch's.  [default: float32]",
           ("float32", "tf32")),
    Option("--quick", "Fewer cases, no memory run: seconds."),
    Option("--out", "Also save the JSON, with machine, versions, BLAS and date, to this file.",
           click.Path(dir_okay=False, path_type=Path)),
    epilog="Exit codes: 0 done, 2 bad option, 4 no usable GPU, 6 the file of --out cannot be "
    "written, 7 PyTorch computes something else. Close other programs first: whatever else runs "
    "distorts the timings.",
)  # fmt: skip
def bench(args: Any) -> None:
    """Time a bidirectional training step beside its peers.

    A step is the gradient and Adam's update, on a batch already in memory. nembp's bidirectional
    and one-direction steps run interleaved with the same steps in PyTorch (eager, fused Adam;
    where it is installed), scikit-learn's MLPClassifier.partial_fit, and the floor: the bare
    matrix products and memory traffic. Reported are medians, ratios, and the peak memory of a
    training run of MNIST's size. On a GPU, nembp's step is a captured CUDA graph, PyTorch's is also
    compiled (reduce-overhead) and captured, and the floor comes from the card's measured bandwidth
    and product rate. Convolutions are also timed by themselves, forward and both
    gradients, beside PyTorch's conv2d. PyTorch's gradients must be nembp's before a time counts.
    """
    from nembp.benchmarks import suites
    from nembp.benchmarks.report import render
    from nembp.files import replacing

    suite, out = suites.SUITES[args.suite], args.out
    for network in args.networks or ():
        try:
            suite.check(network)
        except ArchitectureError as error:
            raise click.BadParameter(str(error), param_hint="'--networks'") from error
    names = "networks", "batches", "threads", "repeats", "dtype", "device", "precision"
    report: dict[str, Any] = {}
    try:
        with ExitStack() as stack:
            file = stack.enter_context(replacing(out)) if out else None  # fails now, if at all
            report = suites.run(args.suite, args.given(*names), quick=args.quick, progress=say)
            if file is not None:
                file.write(f"{json.dumps(report, indent=2)}\n".encode())
    finally:  # a disk that has filled up meanwhile does not take the timings with it
        if report:
            emit(args, report, "" if args.json else render(report))
    if out:
        say(f"saved {out}")
