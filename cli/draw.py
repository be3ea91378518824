"""``nembp draw``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nembp.errors import OutputError
from nembp.runs.option import Option

from .options import Checked, json_option
from .output import count, emit_json, emit_table, note, number

if TYPE_CHECKING:
    from nembp.checkpoints import Model
    from nembp.engine.noise import Noise
    from nembp.plotting.noise import Panel, Point

__all__ = ["draw", "noise"]

STD = 0.1  # where the run had no noise
EPILOG = """\
The region where noise does not lower the likelihood is a half-space for classes and for bernoulli
ends, and a ball for gaussian ones. Draws and screening are those of training, for one target.

\b
Examples:
  nembp draw noise RUN
  nembp draw noise RUN --class 8 --std 0.3
  nembp draw noise RUN --direction backward --std 0.02 --out ball.png
  nembp draw noise RUN --input seven.png --class 7 --rejected zero
"""


@click.group()
def draw() -> None:
    """Draw what training does."""


@draw.command(epilog=EPILOG)
@click.argument("run", metavar="RUN")
@click.option(
    "--direction",
    type=click.Choice(["forward", "backward"]),
    default="forward",
    show_default=True,
    help="At whose end: forward has noise on classes or targets, backward on samples.",
)
@click.option(
    "--sample",
    type=Checked(Option("integer", "", "", least=0)),
    metavar="K",
    help="Number of the test sample, or row of the input.  [default: 0]",
)
@click.option("--class", "label", metavar="NAME", help="The first test sample of this class.")
@click.option(
    "--input",
    "path",
    metavar="FILE",
    help="Take the sample from a .npy, .npz or image, as predict does. Its target is --class, or "
    "the array y of an .npz.",
)
@click.option(
    "--std",
    type=Checked(Option("number", "", "", least=1e-9, below=1e6)),
    metavar="X",
    help=f"Standard deviation, in units of the scaled target.  [default: the run's, else {STD}]",
)
@click.option(
    "--screening",
    type=click.Choice(["auto", "vector", "component", "expectation"]),
    help="Screen whole samples, single neurons, or batches by their mean gain; auto: both of the "
    "first for a gaussian target, samples else.  [default: the run's]",
)
@click.option(
    "--rejected",
    type=click.Choice(["reflect", "zero"]),
    help="What becomes of a rejected draw: -n is tried, or 0 taken.  [default: the run's]",
)
@click.option(
    "--law",
    type=click.Choice(["gaussian", "uniform"]),
    help="Law of the draws.  [default: the run's]",
)
@click.option(
    "--draws",
    type=Checked(Option("integer", "", "", least=1, below=1_000_001)),
    default=2000,
    show_default=True,
    metavar="N",
    help="How many.",
)
@click.option(
    "--seed",
    type=Checked(Option("integer", "", "", least=0)),
    default=0,
    show_default=True,
    metavar="N",
    help="Of the draws.",
)
@click.option(
    "--data-dir",
    metavar="PATH",
    help="Where the data lies.  [default: where it lay in training]",
)
@click.option("--out", metavar="FILE", help="The picture, .png.  [default: noise-DIRECTION.png]")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@json_option
def noise(
    run: str,
    direction: Any,
    sample: int | None,
    label: str | None,
    path: str | None,
    data_dir: str | None,
    out: str | None,
    force: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Draw which noise NEM keeps, at the output of a trained network.

    RUN is a run folder or a model file. The picture shows a sample's target t and the network's
    output a, the half-space or ball in which noise n does not lower log p(t + n), and draws that
    are accepted, reflected or rejected there, with their mean.
    """
    out = f"noise-{direction}.png" if out is None else out
    _check_usage(sample, label, path, data_dir)
    _check_out(out, force)
    from nembp.plotting.noise import draw_noise, noise_panels
    from nembp.runs.noise_samples import neuron_names, noise_point, pair_of_file, pair_of_run
    from nembp.runs.scoring import load_run

    model = load_run(run)
    if path is not None:
        pair = pair_of_file(model, path, sample=sample, label=label)
    else:
        pair = pair_of_run(model, run, data_dir, sample=sample, label=label)
    point = noise_point(model, pair, direction)
    law, std = _law(model, chosen)
    plan = {"draws": chosen["draws"], "seed": chosen["seed"], "batch": _batch(model)}
    panels = noise_panels(point, law, std, neuron_names(model, direction), **plan)
    title = f"NEM noise at the {direction} direction's {point.likelihood.name} end, {pair.where}"
    draw_noise(out, panels, title, _words(law, std, **plan))
    note(f"wrote {out}")
    if direction == "backward" and model.settings.get("backward") == "none":
        note("the backward direction of this run was not trained")
    if as_json:
        facts = {"run": run, "direction": direction, "sample": pair.where, "out": out}
        emit_json(facts | _facts(point, law, std, plan, panels))
    else:
        emit_table(_rows(panels))


def _check_usage(
    sample: int | None, label: str | None, path: str | None, data_dir: str | None
) -> None:
    if path is None and sample is not None and label is not None:
        raise click.UsageError("--sample and --class both choose the sample; give one of them")
    if path is not None and data_dir is not None:
        raise click.UsageError("--data-dir is where the run's data lies; with --input it is unread")


def _check_out(out: str, force: bool) -> None:
    """Find out before any work whether the picture can be written."""
    if Path(out).suffix.lower() != ".png":
        raise click.UsageError(f"--out {out}: the name must end in .png")
    if Path(out).exists() and not force:
        raise OutputError(f"{out}: exists; choose another --out, or replace it with --force")


def _law(model: Model, chosen: dict[str, Any]) -> tuple[Noise, float]:
    """Return the noise asked for, and its σ; what is not asked for is the run's."""
    from nembp.engine.noise import Noise

    settings = model.settings
    kinds: dict[str, Any] = {
        name: chosen[name] or settings.get(f"noise_{name}") or default
        for name, default in (("screening", "auto"), ("rejected", "reflect"), ("law", "gaussian"))
    }
    with_noise = settings.get("noise") not in (None, "none")
    std = chosen["std"] or (with_noise and settings.get("noise_std")) or STD
    return Noise("nem", **kinds), float(std)


def _batch(model: Model) -> int:
    return int(model.settings.get("batch_size") or 128)


def _words(law: Noise, std: float, draws: int, seed: int, batch: int) -> str:
    together = f", screened {batch} at a time" if law.screening == "expectation" else ""
    return f"{count(draws, law.law + ' draw')} with σ = {std:g}{together}; seed {seed}."


def _facts(
    point: Point, law: Noise, std: float, plan: dict[str, int], panels: list[Panel]
) -> dict[str, Any]:
    o, t = point.rows(1)
    return {
        "likelihood": point.likelihood.name,
        "neurons": point.width,
        "log_likelihood": float(point.likelihood.log_likelihood(o, t)[0, 0]),
        "std": std,
        "law": law.law,
        "rejected": law.rejected,
        "draws": plan["draws"],
        "seed": plan["seed"],
        "target": point.t.tolist(),
        "output": point.a.tolist(),
        "panels": [_panel_facts(panel) for panel in panels],
    }


def _panel_facts(panel: Panel) -> dict[str, Any]:
    cloud = panel.cloud
    return {
        "kind": panel.view.kind,
        "title": panel.view.title,
        "screening": panel.screening,
        "neurons": panel.view.point.width,
        "share_of": "neurons" if panel.screening == "component" else "draws",
        "accepted": cloud.accepted,
        "reflected": cloud.reflected,
        "set_to_zero": cloud.dropped,
        "accepted_in_theory": panel.exact,
        "mean_gain": cloud.gain,
        "drift": panel.drift.tolist(),
        "sum_change": panel.sum_change,
        "note": panel.view.note,
    }


def _rows(panels: list[Panel]) -> list[list[str]]:
    rows = [["panel", "screened", "neurons", "accepted", "in theory", "reflected", "zero", "gain"]]
    for panel in panels:
        cloud = panel.cloud
        theory = "-" if panel.exact is None else f"{panel.exact:.3g}"
        shares = f"{cloud.accepted:.3g}", theory, f"{cloud.reflected:.3g}", f"{cloud.dropped:.3g}"
        width = f"{panel.view.point.width}"
        rows.append([panel.view.title, panel.screening, width, *shares, number(cloud.gain)])
    return rows
