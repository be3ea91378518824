"""What a trained network is used for: ``nembp evaluate, predict, sample, export, draw``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nembp.errors import ArchitectureError
from nembp.files import replacing, unpacking
from nembp.runs.config import TABLES, RunConfig
from nembp.runs.options import Option as Declared

from .options import (
    DATA_DIR,
    DEVICE,
    DIRECTION,
    FORCE,
    NATURAL,
    POSITIVE,
    RUN,
    Option,
    command,
    options_of,
)
from .output import check_out, count, emit, note, number, score_rows, short_path

if TYPE_CHECKING:
    import numpy as np

    from nembp.checkpoints import Model

    Array = np.ndarray[Any, Any]

WIDE = 12  # columns in the table; above it, the few most probable classes
STD = 0.1  # where the run had no noise
STRENGTH = Declared("float", within="≥ 1e-09 and < 1e+06")  # no NaN, unlike a FloatRange
EXAMPLES = "\b\nExamples:\n  "


@command(
    RUN,
    DATA_DIR,
    *options_of(RunConfig, TABLES),
    Option("--split", "What to score on, split as in training; all is training and test samples "
           "together.", ("test", "train", "validation", "all"), default="test"),
    DEVICE,
)  # fmt: skip
def evaluate(args: Any) -> None:
    """Score a trained network in both directions.

    RUN is a run folder or a model file. The data is read again as it was for training, so the
    scores on the test split are those of the run's summary.json.
    """
    from nembp.runs.predicting import evaluate_run

    options = args.given("data_dir", "split", "device", *TABLES)
    scores = evaluate_run(args.run, note=note, **options)
    data = f"{scores['samples']} {scores['split']} samples of {scores['dataset']}"
    emit(args, scores, [*score_rows(scores), ("data", data), ("run", short_path(scores["run"]))])


@command(
    RUN,
    click.Argument(["inputs"], metavar="[INPUT]...", nargs=-1),
    DIRECTION,
    Option("--labels NAMES", "Classes to run backward, as in 3,7, in place of INPUT.  [default: "
           "every class]"),
    Option("--label names NAME", "One such class, whose name may hold a comma; more than once for "
           "several.", multiple=True),
    Option("--by-index", "Labels are indices from 0 in the order of the classes, whatever they "
           "are called."),
    Option("--key NAME", "Array in an .npz.  [default: x, backward y]"),
    *options_of(RunConfig, (*TABLES, "max_bytes")),
    Option("--out FILE", "Write the result here: .csv, .npy, .npz or, images, .png."),
    FORCE,
    DEVICE,
    epilog=f"""{EXAMPLES}\
nembp predict RUN seven.png
  nembp predict RUN images.npy --out probabilities.npy
  nembp predict RUN new.csv --out predicted.csv
  nembp predict RUN --direction backward --labels 3,7 --out digits.png
  nembp predict RUN targets.npz --direction backward --out samples.npz
""",
)  # fmt: skip
def predict(args: Any) -> None:
    """Run a trained network in either direction.

    RUN is a run folder or a model file. INPUT is one or more .csv tables (columns by
    name, others are left out), .npy or .npz arrays or PNG or JPEG images, all in the raw units of
    the data: pixels as they were, table columns unscaled. Forward prints each sample's class and
    probabilities (or its targets). Backward takes names of classes of
    shape (n,), probabilities (n, classes) or targets (n, outputs), and gives samples.
    """
    forward, inputs, out = args.direction == "forward", args.inputs, args.out
    args.names = [*(args.labels.split(",") if args.labels is not None else ()), *args.names]
    packed = any(Path(each).suffix.lower() == ".npz" for each in inputs)
    for wrong, message in (
        (forward and (args.names or args.by_index), "labels are what --direction backward starts "
         "from"),
        (forward and not inputs, "Missing argument 'INPUT': the samples to predict from"),
        (args.names and inputs, "give either --labels or INPUT, not both"),
        (args.key is not None and not packed, "--key names an array of an .npz, and no INPUT is "
         "one"),
        (not forward and len(inputs) > 1, "--direction backward takes one INPUT"),
    ):  # fmt: skip
        if wrong:
            raise click.UsageError(message)
    if out is not None:
        check_out(args, ".npy", ".npz", ".csv", ".png")
        if forward and Path(out).suffix.lower() == ".png":
            raise click.UsageError(
                f"--out {out}: forward results are numbers; use .csv, .npy or .npz"
            )
    from nembp.runs.predicting import load_run

    model = load_run(args.run, args.device, note)
    model.settings |= args.given(*TABLES)  # how tables are read, where not as in training
    with unpacking(args.max_bytes):
        names, y, content, facts = (_forward if forward else _backward)(args, model)
    if out is not None:
        _write(out, model, forward, names(), y, content)
    shown = [] if out is not None else [_table(model, forward, names(), y)]
    emit(args, {"direction": args.direction, **facts, "out": out}, *shown)


# names of the samples, results, arrays for a file, and facts for JSON
Answers = tuple[Callable[[], Iterable[str]], "Array", dict[str, Any], dict[str, Any]]


def _forward(args: Any, model: Model) -> Answers:
    from nembp.runs.predicting import answer, read_samples, sample_names

    x, files = read_samples(args.inputs, model, args.key or "x")
    raw = model.is_image and float(model.to_unit.apply(x[:1] * 0 + 1, "f8").max()) < 0.1
    if raw and x.dtype.kind == "f" and float(x.min()) >= 0.0 and 0.0 < float(x.max()) <= 1.0:
        note("every value lies in [0, 1], but raw pixels are expected, as in the training data")
    y, names = answer(model, x), partial(sample_names, files)
    content: dict[str, Any] = {"y": y}
    facts: dict[str, Any] = {"targets": model.target_names}
    if model.classes:
        content = {"probabilities": y, "labels": y.argmax(axis=1), "classes": model.classes}
        facts = {"classes": model.classes}
    return names, y, content, facts | {"predictions": _predictions(model, names(), y)}


def _predictions(model: Model, names: Iterator[str], y: Array) -> Iterator[dict[str, Any]]:
    for name, values in zip(names, y, strict=True):
        row = values.tolist()
        if model.classes:
            best = int(values.argmax())
            found = {"class": model.classes[best], "label": best, "probabilities": row}
        else:
            found = {"targets": dict(zip(model.target_names, row, strict=True))}
        yield {"input": name} | found


def _backward(args: Any, model: Model) -> Answers:
    from nembp.runs.predicting import answer, one_hot, read_targets

    if args.inputs:
        t = read_targets(args.inputs[0], model, args.key or "y", by_index=args.by_index)
        names = [f"{args.inputs[0]}[{row}]" for row in range(len(t))]
    elif args.names:
        names = [name.strip() for name in args.names]
        t = one_hot(model, names, "--labels", by_index=args.by_index)
    elif model.classes:
        names, t = list(model.classes), one_hot(model, model.classes)
    else:
        raise ArchitectureError(
            "this model predicts numbers; give the targets to start from in a .csv, .npy or .npz"
        )
    if args.out is None and model.is_image and not args.json:
        raise ArchitectureError(
            "images do not fit into a table; say where to write them with --out FILE.png, "
            ".npy or .npz, or print them with --json"
        )
    x = answer(model, t, backward=True)
    rows = zip(names, x, strict=True) if args.out is None else ()
    samples = ({"input": name, "x": row.tolist()} for name, row in rows)
    return names.copy, x, {"x": x, "y": t}, {"shape": list(model.shape), "samples": samples}


def _table(
    model: Model, forward: bool, names: Iterable[str], y: Array, *, whole: bool = False
) -> Iterator[list[str]]:
    """Make a table: samples, targets, or the probability of every class or the most probable ones.

    With ``whole`` it is for a file: all classes, and every digit.
    """
    from nembp.runs.predicting import feature_names

    y, classes = y.reshape(len(y), -1), model.classes if forward else ()
    if len(classes) > WIDE and not whole:
        yield ["input", "class", "p", "next", "p", "next", "p"]
        for name, row in zip(names, y, strict=True):
            ranked = [[classes[k], f"{row[k]:.4f}"] for k in (-row).argsort()[:3]]
            yield [name, *(cell for pair in ranked for cell in pair)]
        return
    head: Iterable[str] = model.target_names
    if not forward:
        head = feature_names(model) or [f"x{k}" for k in range(y.shape[1])]
    elif classes:
        head = ["class", *map("p({})".format, classes)]
    yield ["input", *head]
    form = "" if whole else ".4f" if classes else ".6g"
    for name, row in zip(names, y, strict=True):
        best = [classes[row.argmax()]] if classes else []
        yield [name, *best, *(format(value, form) for value in row.tolist())]


def _write(
    out: str, model: Model, forward: bool, names: Iterable[str], y: Array, content: dict[str, Any]
) -> None:
    suffix = Path(out).suffix.lower()
    noun = "image" if suffix == ".png" else "row"
    if suffix == ".csv":
        with replacing(out) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            table = _table(model, forward, names, y, whole=True)
            csv.writer(text, lineterminator="\n").writerows(table)
            text.detach()
    elif suffix != ".png":
        from nembp.runs.predicting import write_arrays

        write_arrays(out, y, content)
    elif not model.is_image:
        raise ArchitectureError(f"{out}: the samples are rows of a table; use .csv, .npy or .npz")
    else:
        from nembp.plotting.pictures import write_images

        write_images(out, model.to_unit.apply(y, "f8"), model.shape)
    note(f"wrote {out}: {count(len(y), noun)}")


# -- samples of a generator, and graphs for other runtimes -----------------------------------------
@command(
    RUN,
    Option("-n number", "Samples.", POSITIVE, default=64),
    Option("--out FILE", "Write them here: .png (a sheet of images, or a scatter plot), .npy or "
           ".npz.", default="samples.png"),
    Option("--seed", "Of the z drawn.", NATURAL, default=0),
    Option("--reconstruct", "Run real samples backward to their z and forward again: needs a run "
           "with a bidirectional generator."),
    DATA_DIR,
    FORCE,
    DEVICE,
    epilog=f"""{EXAMPLES}\
nembp sample RUN                        # samples.png: 64 new samples
  nembp sample RUN -n 10000 --out samples.npy
  nembp sample RUN --reconstruct --out there-and-back.png
""",
)  # fmt: skip
def sample(args: Any) -> None:
    """Draw samples from the generator that `nembp gan` left in RUN.

    The same seed draws the same samples, and the first ones whatever -n. Arrays hold samples in
    the raw units of the data.
    """
    check_out(args, ".png", ".npy", ".npz")
    from nembp.runs.gan import draw_samples

    more = args.given("seed", "reconstruct", "data_dir", "device")
    facts = draw_samples(args.run, args.number, args.out, note=note, **more)
    fewer = ", all that there are" if facts["samples"] < args.number else ""
    note(f"wrote {args.out}: {count(facts['samples'], 'sample')}{fewer}")
    error = facts.get("error")
    emit(args, facts, [] if error is None else [("there and back", f"relative error {error:.3g}")])


@command(
    RUN,
    click.Argument(["out"], metavar="FILE"),
    FORCE,
    epilog=f"{EXAMPLES}nembp export RUN model.onnx             # and model.backward.onnx\n",
)
def export(args: Any) -> None:
    """Write a trained network as ONNX graphs, for other runtimes.

    RUN is a run folder or a model file. The graph `forward` takes raw samples `x` (float64) and
    gives `y`, and for classes their `label`; the graph `backward`, in a file of its own beside
    it, takes `y` and gives `x`. Needs the package onnx: pip install 'nembp[onnx]'.
    """
    check_out(args, ".onnx", name="FILE")
    from nembp.export import save_onnx
    from nembp.runs.predicting import load_run

    forward, backward = save_onnx(load_run(args.run, note=note), args.out)
    note(f"wrote {forward} and {backward}")
    emit(args, {"forward": str(forward), "backward": str(backward)})


# -- which noise is kept ---------------------------------------------------------------------------
@click.group()
def draw() -> None:
    """Draw what training does."""


@command(
    RUN,
    DIRECTION,
    Option("--sample K", "Number of the test sample, or row of the input.  [default: 0]", NATURAL),
    Option("--class label NAME", "The first test sample of this class."),
    Option("--input path FILE", "Take the sample from a .npy, .npz or image, as predict does. Its "
           "target is --class, or the array y of an .npz."),
    Option("--std", "Standard deviation, in units of the scaled target.  [default: the run's, else "
           f"{STD}]", STRENGTH),
    Option("--screening", "Screen whole samples, single units, or batches by their mean gain; "
           "auto: both of the first for a gaussian target, samples else.  [default: the run's]",
           ("auto", "vector", "component", "expectation")),
    Option("--rejected", "What becomes of a rejected draw: -n is tried, or 0 taken.  [default: "
           "the run's]", ("reflect", "zero")),
    Option("--law", "Law of the draws.  [default: the run's]", ("gaussian", "uniform")),
    Option("--draws", "How many.", Declared("int", within="≥ 1 and ≤ 1000000"), default=2000),
    Option("--seed", "Of the draws.", NATURAL, default=0),
    DATA_DIR,
    Option("--out FILE", "The picture, .png.  [default: noise-DIRECTION.png]"),
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
    facts: dict[str, Any] = {
        "run": args.run, "direction": args.direction, "sample": where, "out": args.out,
        "likelihood": point.likelihood.name, "neurons": point.width,
        "log_likelihood": float(point.likelihood.log_likelihood(o, t)[0, 0]), "std": std,
        "law": law.law, "rejected": law.rejected, "draws": args.draws, "seed": args.seed,
        "target": point.t.tolist(), "output": point.a.tolist(),
        "panels": [panel.facts for panel in panels],
    }  # fmt: skip
    rows = [["panel", "screened", "units", "accepted", "in theory", "reflected", "zero", "gain"]]
    for found in facts["panels"]:
        keys = "accepted", "accepted_in_theory", "reflected", "set_to_zero"
        shares = ["-" if found[key] is None else f"{found[key]:.3g}" for key in keys]
        start = found["title"], found["screening"], str(found["neurons"])
        rows.append([*start, *shares, number(found["mean_gain"])])
    emit(args, facts, rows)
