"""``nembp sample``."""

from __future__ import annotations

from typing import Any

import click

from .options import data_dir_option, device_option, force_option, json_option
from .output import check_out, count, emit_json, emit_table, note

EPILOG = """\
\b
Examples:
  nembp sample RUN                        # samples.png: 64 new samples
  nembp sample RUN -n 10000 --out samples.npy
  nembp sample RUN --reconstruct --out there-and-back.png
"""


@click.command(epilog=EPILOG)
@click.argument("run", metavar="RUN")
@click.option("-n", "number", type=click.IntRange(min=1), default=64, show_default=True,
              help="Samples.")  # fmt: skip
@click.option("--out", metavar="FILE", default="samples.png", show_default=True, help="Write them "
              "here: .png (a sheet of images, or a scatter plot), .npy or .npz.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Of the z drawn.")  # fmt: skip
@click.option("--reconstruct", is_flag=True, help="Run real samples backward to their z and "
              "forward again: needs a run with a bidirectional generator.")  # fmt: skip
@data_dir_option
@force_option
@device_option
@json_option
def sample(run: str, number: int, out: str, force: bool, as_json: bool, **more: Any) -> None:
    """Draw samples from the generator that `nembp gan` left in RUN.

    The same seed draws the same samples, and the first ones whatever -n. Arrays hold samples in
    the raw units of the data.
    """
    check_out(out, (".png", ".npy", ".npz"), force=force)
    from nembp.runs.sampling import draw_samples

    facts = draw_samples(run, number, out, note=note, **more)
    fewer = ", all that there are" if facts["samples"] < number else ""
    note(f"wrote {out}: {count(facts['samples'], 'sample')}{fewer}")
    if as_json:
        emit_json(facts)
    elif facts.get("error") is not None:
        emit_table([("there and back", f"relative error {facts['error']:.3g}")])
