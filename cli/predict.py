"""What a trained network is used for: ``nembp evaluate, predict, sample, export``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nembp.errors import ArchitectureError
from nembp.files import unpacking
from nembp.runs.config import TABLES, RunConfig

from .options import (
    data_dir_option,
    device_option,
    direction_option,
    force_option,
    json_option,
    options_of,
)
from .output import check_out, count, emit_json, emit_table, note, score_rows, short_path, write_csv

if TYPE_CHECKING:
    import numpy as np

    from nembp.checkpoints import Model

    Array = np.ndarray[Any, Any]

SUFFIXES = (".npy", ".npz", ".csv", ".png")
WIDE = 12  # columns in the table; above it, the few most probable classes
EPILOG = """\
\b
Examples:
  nembp predict RUN seven.png
  nembp predict RUN images.npy --out probabilities.npy
  nembp predict RUN new.csv --out predicted.csv
  nembp predict RUN --direction backward --labels 3,7 --out digits.png
  nembp predict RUN targets.npz --direction backward --out samples.npz
"""
SAMPLE_EPILOG = """\
\b
Examples:
  nembp sample RUN                        # samples.png: 64 new samples
  nembp sample RUN -n 10000 --out samples.npy
  nembp sample RUN --reconstruct --out there-and-back.png
"""
EXPORT_EPILOG = """\
\b
Examples:
  nembp export RUN model.onnx             # and model.backward.onnx
"""


@click.command()
@click.argument("run", metavar="RUN")
@data_dir_option
@options_of(RunConfig, TABLES)
@click.option("--split", type=click.Choice(["test", "train", "validation", "all"]), default="test",
              show_default=True, help="What to score on, split as in training; all is training and "
              "test samples together.")  # fmt: skip
@device_option
@json_option
def evaluate(run: str, as_json: bool, **options: Any) -> None:
    """Score a trained network in both directions.

    RUN is a run folder or a model file. The data is read again as it was for training, so the
    scores on the test split are those of the run's summary.json.
    """
    from nembp.runs.predicting import evaluate_run

    scores = evaluate_run(run, note=note, **options)
    if as_json:
        emit_json(scores)
        return
    data = f"{scores['samples']} {scores['split']} samples of {scores['dataset']}"
    emit_table([*score_rows(scores), ("data", data), ("run", short_path(scores["run"]))])


@click.command(epilog=EPILOG)
@click.argument("run", metavar="RUN")
@click.argument("inputs", metavar="[INPUT]...", nargs=-1)
@direction_option
@click.option("--labels", metavar="NAMES", help="Classes to run backward, as in 3,7, in place of "
              "INPUT.  [default: every class]")  # fmt: skip
@click.option("--label", "names", metavar="NAME", multiple=True, help="One such class, whose name "
              "may hold a comma; more than once for several.")  # fmt: skip
@click.option("--by-index", is_flag=True, help="Labels are indices from 0 in the order of the "
              "classes, whatever they are called.")  # fmt: skip
@click.option("--key", metavar="NAME", help="Array in an .npz.  [default: x, backward y]")
@options_of(RunConfig, (*TABLES, "max_bytes"))
@click.option("--out", metavar="FILE",
              help="Write the result here: .csv, .npy, .npz or, images, .png.")  # fmt: skip
@force_option
@device_option
@json_option
def predict(
    run: str,
    inputs: tuple[str, ...],
    direction: str,
    labels: str | None,
    names: tuple[str, ...],
    by_index: bool,
    key: str | None,
    max_bytes: int | None,
    out: str | None,
    force: bool,
    device: str,
    as_json: bool,
    **table: Any,
) -> None:
    """Run a trained network in either direction.

    RUN is a run folder or a model file. INPUT is one or more .csv tables (columns by
    name, others are left out), .npy or .npz arrays or PNG or JPEG images, all in the raw units of
    the data: pixels as they were, table columns unscaled. Forward prints each sample's class and
    probabilities (or its targets). Backward takes names of classes of
    shape (n,), probabilities (n, classes) or targets (n, outputs), and gives samples.
    """
    classes = [*(labels.split(",") if labels is not None else ()), *names]
    forward = direction == "forward"
    if forward and (classes or by_index):
        raise click.UsageError("labels are what --direction backward starts from")
    if forward and not inputs:
        raise click.UsageError("Missing argument 'INPUT': the samples to predict from")
    if classes and inputs:
        raise click.UsageError("give either --labels or INPUT, not both")
    if key is not None and not any(Path(each).suffix.lower() == ".npz" for each in inputs):
        raise click.UsageError("--key names an array of an .npz, and no INPUT is one")
    if not forward and len(inputs) > 1:
        raise click.UsageError("--direction backward takes one INPUT")
    if out is not None:
        check_out(out, SUFFIXES, force=force)
    if forward and out is not None and Path(out).suffix.lower() == ".png":
        raise click.UsageError(f"--out {out}: forward results are numbers; use .csv, .npy or .npz")
    from nembp.runs.predicting import answer, load_run, read_as, read_samples, sample_names

    model = load_run(run, device, note)
    read_as(model, table)
    named: Callable[[], Iterable[str]]
    facts: dict[str, Any]
    with unpacking(max_bytes):
        if forward:
            x, files = read_samples(inputs, model, key or "x")
            _note_scaled(model, x)
            y = answer(model, x)
            named = partial(sample_names, files)
            content: dict[str, Any] = {"y": y}
            facts = {"targets": model.target_names}
            if model.classes:
                content = {"probabilities": y, "labels": y.argmax(axis=1), "classes": model.classes}
                facts = {"classes": model.classes}
            facts["predictions"] = _predictions(model, named(), y)
        else:
            wanted = [name.strip() for name in classes]
            t, rows = _targets(model, inputs, wanted, key or "y", by_index)
            if out is None and model.is_image and not as_json:
                raise ArchitectureError(
                    "images do not fit into a table; say where to write them with --out FILE.png, "
                    ".npy or .npz, or print them with --json"
                )
            y = answer(model, t, backward=True)
            named, content = partial(iter, rows), {"x": y, "y": t}
            samples = ({"input": name, "x": x.tolist()} for name, x in zip(rows, y, strict=True))
            facts = {"shape": list(model.shape), "samples": samples if out is None else []}
    if out is not None:
        _write(out, model, forward, named(), y, content)
    if as_json:
        emit_json({"direction": direction, **facts, "out": out})
    elif out is None:
        emit_table(_table(model, forward, named(), y))


def _note_scaled(model: Model, x: Array) -> None:
    raw = model.is_image and float(model.to_unit.apply(x[:1] * 0 + 1, "f8").max()) < 0.1
    if raw and x.dtype.kind == "f" and float(x.min()) >= 0.0 and 0.0 < float(x.max()) <= 1.0:
        note("every value lies in [0, 1], but raw pixels are expected, as in the training data")


def _predictions(model: Model, names: Iterator[str], y: Array) -> Iterator[dict[str, Any]]:
    for name, values in zip(names, y, strict=True):
        row = values.tolist()
        if model.classes:
            best = int(values.argmax())
            found = {"class": model.classes[best], "label": best, "probabilities": row}
        else:
            found = {"targets": dict(zip(model.target_names, row, strict=True))}
        yield {"input": name} | found


def _targets(
    model: Model, inputs: tuple[str, ...], names: list[str], key: str, by_index: bool
) -> tuple[Array, list[str]]:
    """Return what to start from backward, and a name for each row."""
    from nembp.runs.predicting import one_hot, read_targets

    if inputs:
        y = read_targets(inputs[0], model, key, by_index=by_index)
        return y, [f"{inputs[0]}[{row}]" for row in range(len(y))]
    if not names and not model.classes:
        raise ArchitectureError(
            "this model predicts numbers; give the targets to start from in a .csv, .npy or .npz"
        )
    if not names:
        return one_hot(model, model.classes), list(model.classes)
    return one_hot(model, names, "--labels", by_index=by_index), names


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
    if suffix == ".csv":
        write_csv(out, _table(model, forward, names, y, whole=True))
    elif suffix != ".png":
        from nembp.runs.predicting import write_arrays

        write_arrays(out, y, content)
        note(f"wrote {out}: {count(len(y), 'row')}")
    elif not model.is_image:
        raise ArchitectureError(f"{out}: the samples are rows of a table; use .csv, .npy or .npz")
    else:
        from nembp.plotting.pictures import write_images

        write_images(out, model.to_unit.apply(y, "f8"), model.shape)
        note(f"wrote {out}: {count(len(y), 'image')}")


# -- samples of a generator, and graphs for other runtimes -----------------------------------------
@click.command(epilog=SAMPLE_EPILOG)
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
    from nembp.runs.gan import draw_samples

    facts = draw_samples(run, number, out, note=note, **more)
    fewer = ", all that there are" if facts["samples"] < number else ""
    note(f"wrote {out}: {count(facts['samples'], 'sample')}{fewer}")
    if as_json:
        emit_json(facts)
    elif facts.get("error") is not None:
        emit_table([("there and back", f"relative error {facts['error']:.3g}")])


@click.command(epilog=EXPORT_EPILOG)
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
