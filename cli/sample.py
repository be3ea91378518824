"""``nembp sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nembp.errors import OutputError

from .options import device_option, json_option
from .output import count, emit_json, emit_table, note

__all__ = ["sample"]

SUFFIXES = (".png", ".npy", ".npz")
EPILOG = """\
\b
Examples:
  nembp sample RUN                        # samples.png: 64 new samples
  nembp sample RUN -n 10000 --out samples.npy
  nembp sample RUN --reconstruct --out there-and-back.png
"""


@click.command(epilog=EPILOG)
@click.argument("run", metavar="RUN")
@click.option(
    "-n", "number", type=click.IntRange(min=1), default=64, show_default=True, help="Samples."
)
@click.option(
    "--out",
    metavar="FILE",
    default="samples.png",
    show_default=True,
    help="Write them here: .png (a sheet of images, or a scatter plot), .npy or .npz.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the z drawn."
)
@click.option(
    "--reconstruct",
    is_flag=True,
    help="Run real samples backward to their z and forward again: needs a run with a bidirectional "
    "generator.",
)
@click.option(
    "--data-dir",
    metavar="PATH",
    help="Where the real samples lie.  [default: where they lay in training]",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@device_option
@json_option
def sample(
    run: str,
    number: int,
    out: str,
    seed: int,
    reconstruct: bool,
    data_dir: str | None,
    force: bool,
    device: str,
    as_json: bool,
) -> None:
    """Draw samples from the generator that `nembp gan` left in RUN.

    The same seed draws the same samples, and the first ones whatever -n. Arrays hold samples in
    the raw units of the data.
    """
    _check_out(out, force)
    from nembp.runs.gan_sampling import draw_samples, reconstruct_samples

    make: Any = reconstruct_samples if reconstruct else draw_samples
    facts = make(run, number, out, seed=seed, data_dir=data_dir, device=device, note=note)
    fewer = ", all that there are" if facts["samples"] < number else ""
    note(f"wrote {out}: {count(facts['samples'], 'sample')}{fewer}")
    if as_json:
        emit_json(facts)
    elif facts.get("error") is not None:
        emit_table([("there and back", f"relative error {facts['error']:.3g}")])


def _check_out(out: str, force: bool) -> None:
    """Find out before any work whether the samples can be written."""
    if Path(out).suffix.lower() not in SUFFIXES:
        raise click.UsageError(f"--out {out}: the name must end in one of {', '.join(SUFFIXES)}")
    if Path(out).exists() and not force:
        raise OutputError(f"{out}: exists; choose another --out, or replace it with --force")
