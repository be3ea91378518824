"""``nembp export``."""

from __future__ import annotations

import click

from .options import force_option, json_option
from .output import check_out, emit_json, note

EPILOG = """\
\b
Examples:
  nembp export RUN model.onnx             # and model.backward.onnx
"""


@click.command(epilog=EPILOG)
@click.argument("run", metavar="RUN")
@click.argument("out", metavar="FILE")
@force_option
@json_option
def export(run: str, out: str, force: bool, as_json: bool) -> None:
    """Write a trained network as ONNX graphs, for other runtimes.

    RUN is a run folder or a model file. The graph `forward` takes raw samples `x` (float64) and
    gives `y`, and for classes their `label`; the graph `backward`, in a file of its own beside
    it, takes `y` and gives `x`. Needs the package onnx: pip install 'nembp[onnx]'.
    """
    check_out(out, (".onnx",), force=force, name="FILE")
    from nembp.export import save_onnx
    from nembp.runs.predicting import load_run

    forward, backward = save_onnx(load_run(run, note=note), out)
    note(f"wrote {forward} and {backward}")
    if as_json:
        emit_json({"forward": str(forward), "backward": str(backward)})
