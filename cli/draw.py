"""``nembp draw``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nembp.runs.options import Option

from .options import Checked, data_dir_option, direction_option, force_option, json_option
from .output import check_out, count, emit_json, emit_table, note, number

if TYPE_CHECKING:
    from nembp.checkpoints import Model
    from nembp.engine.noise import Noise
    from nembp.plotting.noise import Panel

STD = 0.1  # where the run had no noise
STRENGTH = Checked(Option("float", within="≥ 1e-09 and < 1e+06"))  # no NaN, unlike a FloatRange
EPILOG = """\
The region where noise does not lower the likelihood is a half-space for classes and for bernoulli
likelihoods, and a ball for gaussian ones. Draws and screening are those of training, for one
target.

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
@direction_option
@click.option("--sample", type=click.IntRange(min=0), metavar="K",
              help="Number of the test sample, or row of the input.  [default: 0]")  # fmt: skip
@click.option("--class", "label", metavar="NAME", help="The first test sample of this class.")
@click.option("--input", "path", metavar="FILE", help="Take the sample from a .npy, .npz or image, "
              "as predict does. Its target is --class, or the array y of an .npz.")  # fmt: skip
@click.option("--std", type=STRENGTH, metavar="X", help="Standard deviation, in "
              f"units of the scaled target.  [default: the run's, else {STD}]")  # fmt: skip
@click.option("--screening", type=click.Choice(["auto", "vector", "component", "expectation"]),
              help="Screen whole samples, single neurons, or batches by their mean gain; auto: "
              "both of the first for a gaussian target, samples else.  "
              "[default: the run's]")  # fmt: skip
@click.option("--rejected", type=click.Choice(["reflect", "zero"]), help="What becomes of a "
              "rejected draw: -n is tried, or 0 taken.  [default: the run's]")  # fmt: skip
@click.option("--law", type=click.Choice(["gaussian", "uniform"]),
              help="Law of the draws.  [default: the run's]")  # fmt: skip
@click.option("--draws", type=click.IntRange(1, 1_000_000), default=2000, show_default=True,
              metavar="N", help="How many.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
              help="Of the draws.")  # fmt: skip
@data_dir_option
@click.option("--out", metavar="FILE", help="The picture, .png.  [default: noise-DIRECTION.png]")
@force_option
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
    if path is None and sample is not None and label is not None:
        raise click.UsageError("--sample and --class both choose the sample; give one of them")
    if path is not None and data_dir is not None:
        raise click.UsageError("--data-dir is where the run's data lies; with --input it is unread")
    check_out(out, (".png",), force=force)
    from nembp.plotting.noise import Point, draw_noise, noise_panels
    from nembp.runs.predicting import load_run, output_names, pair_of

    model = load_run(run)
    x, y, where = pair_of(model, run, path, data_dir, sample=sample or 0, label=label)
    forward = direction == "forward"
    point = Point.of(model.net, x, y) if forward else Point.of(model.net.reversed, y, x)
    law, std = _law(model, chosen)
    batch = int(model.settings.get("batch_size") or 128)
    plan = {"draws": chosen["draws"], "seed": chosen["seed"], "batch": batch}
    panels = noise_panels(point, law, std, output_names(model, direction).__getitem__, **plan)
    title = f"NEM noise at the {direction} direction's {point.likelihood.name} end, {where}"
    together = f", screened {batch} at a time" if law.screening == "expectation" else ""
    draws = count(plan["draws"], law.law + " draw")
    draw_noise(out, panels, title, f"{draws} with σ = {std:g}{together}; seed {plan['seed']}.")
    note(f"wrote {out}")
    if not forward and model.settings.get("backward") == "none":
        note("the backward direction of this run was not trained")
    if not as_json:
        emit_table(_rows(panels))
        return
    o, t = point.rows(1)
    emit_json({
        "run": run,
        "direction": direction,
        "sample": where,
        "out": out,
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
    })  # fmt: skip


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


def _panel_facts(panel: Panel) -> dict[str, Any]:
    return {
        "kind": panel.view.kind,
        "title": panel.view.title,
        "screening": panel.screening,
        "neurons": panel.view.point.width,
        "share_of": "neurons" if panel.screening == "component" else "draws",
        "accepted": panel.accepted,
        "reflected": panel.reflected,
        "set_to_zero": panel.dropped,
        "accepted_in_theory": panel.exact,
        "mean_gain": panel.gain,
        "drift": panel.drift.tolist(),
        "sum_change": panel.sum_change,
        "note": panel.view.note,
    }


def _rows(panels: list[Panel]) -> list[list[str]]:
    rows = [["panel", "screened", "neurons", "accepted", "in theory", "reflected", "zero", "gain"]]
    for panel in panels:
        theory = "-" if panel.exact is None else f"{panel.exact:.3g}"
        shares = f"{panel.accepted:.3g}", theory, f"{panel.reflected:.3g}", f"{panel.dropped:.3g}"
        width = f"{panel.view.point.width}"
        rows.append([panel.view.title, panel.screening, width, *shares, number(panel.gain)])
    return rows
