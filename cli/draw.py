"""``nembp draw``."""

from __future__ import annotations

from typing import Any

import click

from nembp.runs.options import Option as Declared

from .options import DATA_DIR, DIRECTION, FORCE, NATURAL, RUN, Checked, Option, command
from .output import check_out, count, emit, note, number

STD = 0.1  # where the run had no noise
STRENGTH = Checked(Declared("float", within="≥ 1e-09 and < 1e+06"))  # no NaN, unlike a FloatRange


@click.group()
def draw() -> None:
    """Draw what training does."""


@command(
    RUN,
    DIRECTION,
    Option("--sample", NATURAL, "Number of the test sample, or row of the input.  [default: 0]",
           metavar="K"),
    Option("--class label", str, "The first test sample of this class.", metavar="NAME"),
    Option("--input path", str, "Take the sample from a .npy, .npz or image, as predict does. Its "
           "target is --class, or the array y of an .npz.", metavar="FILE"),
    Option("--std", STRENGTH, "Standard deviation, in units of the scaled target.  [default: the "
           f"run's, else {STD}]", metavar="X"),
    Option("--screening", ("auto", "vector", "component", "expectation"), "Screen whole samples, "
           "single units, or batches by their mean gain; auto: both of the first for a gaussian "
           "target, samples else.  [default: the run's]"),
    Option("--rejected", ("reflect", "zero"), "What becomes of a rejected draw: -n is tried, or 0 "
           "taken.  [default: the run's]"),
    Option("--law", ("gaussian", "uniform"), "Law of the draws.  [default: the run's]"),
    Option("--draws", click.IntRange(1, 1_000_000), "How many.", default=2000, metavar="N"),
    Option("--seed", NATURAL, "Of the draws.", default=0, metavar="N"),
    DATA_DIR,
    Option("--out", str, "The picture, .png.  [default: noise-DIRECTION.png]", metavar="FILE"),
    FORCE,
    of=draw,
    epilog="""\
The region where noise does not lower the likelihood is a half-space for classes and for bernoulli
likelihoods, and a ball for gaussian ones. Draws and screening are those of training, for one
target.

\b
Examples:
  nembp draw noise RUN
  nembp draw noise RUN --class 8 --std 0.3
  nembp draw noise RUN --direction backward --std 0.02 --out ball.png
  nembp draw noise RUN --input seven.png --class 7 --rejected zero
""",
)  # fmt: skip
def noise(args: Any) -> None:
    """Draw which noise NEM keeps, at the output of a trained network.

    RUN is a run folder or a model file. The picture shows a sample's target t and the network's
    output a, the half-space or ball in which noise n does not lower log p(t + n), and draws that
    are accepted, reflected or rejected there, with their mean.
    """
    args.out = args.out or f"noise-{args.direction}.png"
    if args.path is None and args.sample is not None and args.label is not None:
        raise click.UsageError("--sample and --class both choose the sample; give one of them")
    if args.path is not None and args.data_dir is not None:
        raise click.UsageError("--data-dir is where the run's data lies; with --input it is unread")
    check_out(args, ".png")
    from nembp.engine.noise import Noise
    from nembp.plotting.noise import Point, draw_noise, noise_panels
    from nembp.runs.predicting import load_run, output_names, pair_of

    model = load_run(args.run)
    settings, forward = model.settings, args.direction == "forward"
    x, y, where = pair_of(
        model, args.run, args.path, args.data_dir, sample=args.sample or 0, label=args.label
    )
    point = Point.of(model.net, x, y) if forward else Point.of(model.net.reversed, y, x)
    kinds: dict[str, Any] = {  # what is not asked for is the run's
        name: vars(args)[name] or settings.get(f"noise_{name}") or default
        for name, default in (("screening", "auto"), ("rejected", "reflect"), ("law", "gaussian"))
    }
    with_noise = settings.get("noise") not in (None, "none")
    std = float(args.std or (with_noise and settings.get("noise_std")) or STD)
    law, batch = Noise("nem", **kinds), int(settings.get("batch_size") or 128)
    names = output_names(model, args.direction).__getitem__
    panels = noise_panels(point, law, std, names, draws=args.draws, seed=args.seed, batch=batch)
    title = f"NEM noise at the {args.direction} direction's {point.likelihood.name} end, {where}"
    together = f", screened {batch} at a time" if law.screening == "expectation" else ""
    draws = count(args.draws, law.law + " draw")
    draw_noise(args.out, panels, title, f"{draws} with σ = {std:g}{together}; seed {args.seed}.")
    note(f"wrote {args.out}")
    if not forward and settings.get("backward") == "none":
        note("the backward direction of this run was not trained")
    o, t = point.rows(1)
    facts = {
        "run": args.run,
        "direction": args.direction,
        "sample": where,
        "out": args.out,
        "likelihood": point.likelihood.name,
        "neurons": point.width,
        "log_likelihood": float(point.likelihood.log_likelihood(o, t)[0, 0]),
        "std": std,
        "law": law.law,
        "rejected": law.rejected,
        "draws": args.draws,
        "seed": args.seed,
        "target": point.t.tolist(),
        "output": point.a.tolist(),
        "panels": [panel.facts() for panel in panels],
    }
    rows = [["panel", "screened", "units", "accepted", "in theory", "reflected", "zero", "gain"]]
    for panel in panels:
        theory = "-" if panel.exact is None else f"{panel.exact:.3g}"
        shares = f"{panel.accepted:.3g}", theory, f"{panel.reflected:.3g}", f"{panel.dropped:.3g}"
        width = f"{panel.view.point.width}"
        rows.append([panel.view.title, panel.screening, width, *shares, number(panel.gain)])
    emit(args, facts, rows)
