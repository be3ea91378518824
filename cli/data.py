"""``nembp data``."""

from __future__ import annotations

from typing import Any

import click

from nembp.runs.config import RunConfig

from .options import Option, command, options_of
from .output import count, emit, note, short_path, status

MANY = 20  # classes listed by name
READ = ("data_dir", "targets", "task", "image_size", "scaling", "delimiter", "header", "decimal",
        "image_order", "transpose", "x", "y", "max_bytes")  # fmt: skip
RECIPE = ("layers", "forward", "backward", "backward_weight", "batch_size", "epochs")


@click.group()
def data() -> None:
    """List, inspect and fetch data sets."""


@command(of=data, name="list")
def list_sets(args: Any) -> None:
    """List the data sets that train knows."""
    from nembp.datasets import available

    emit(args, available(), list(available().items()))


@command(
    click.Argument(["name"]),
    *options_of(RunConfig, READ),
    of=data,
)
def info(args: Any) -> None:
    """Check the data set NAME, and show what training sees of it."""
    import numpy as np

    from nembp.runs import recipe
    from nembp.runs.training import load_data

    config = RunConfig(dataset=args.name, **args.given(*READ))
    loaded = load_data(config)
    filled = recipe(loaded, config)
    scaling: dict[str, Any] | None = None
    scaled = ""
    if loaded.is_image:
        scaling, scaled = {"kind": "unit"}, "pixels to [0, 1]"
        if loaded.pixel_scaling is not None:
            scales = np.array([loaded.x_scaling.offset, 1 / loaded.x_scaling.factor])
            mean, deviation = scales.tolist()
            scaling = {"kind": "channel", "mean": mean, "deviation": deviation}
            words = (", ".join(f"{value:.4g}" for value in each) for each in (mean, deviation))
            scaled = "by channel: mean {}; deviation {}".format(*words)
    counts = np.bincount(loaded.train.y).tolist() if loaded.is_classification else []
    classes = dict(zip(loaded.classes, counts, strict=True))
    more = f"  and {len(classes) - MANY} more" if len(classes) > MANY else ""
    facts: dict[str, Any] = {
        "name": loaded.name, "source": loaded.source, "attribution": loaded.attribution,
        "training_samples": len(loaded.train), "test_samples": len(loaded.test),
        "shape": list(loaded.shape), "dtype": str(loaded.train.x.dtype),
        "task": "classification" if loaded.is_classification else "regression", "scaling": scaling,
        "classes": classes, "targets": list(loaded.target_names), "notes": list(loaded.notes),
        "fingerprint": loaded.fingerprint, "recipe": {key: getattr(filled, key) for key in RECIPE},
    }  # fmt: skip
    rows = [
        ("name", loaded.name),
        ("from", short_path(loaded.source)),
        ("by", loaded.attribution or "unknown"),
        ("samples", f"{len(loaded.train)} training, {len(loaded.test)} test"),
        ("shape", f"{'x'.join(map(str, loaded.shape))} {facts['dtype']}"),
        ("task", facts["task"]),
        ("scaling", scaled),
        ("classes", "  ".join(f"{key}: {n}" for key, n in list(classes.items())[:MANY]) + more),
        ("targets", ", ".join(loaded.target_names)),
        *(("note", text) for text in loaded.notes),
        (
            "recipe",
            f"--layers {','.join(map(str, filled.layers or ()))} --batch-size {filled.batch_size} "
            f"--epochs {filled.epochs} --backward-weight {filled.backward_weight:g}",
        ),
    ]
    emit(args, facts, [row for row in rows if row[1]])


@command(
    click.Argument(["name"], type=click.Choice(["mnist", "cifar10", "cifar100"])),
    Option("--data-dir DIR", "Folder for the files.", required=True),
    Option("--mirror URL", "Where to fetch from.  [default: NEMBP_MNIST_MIRROR or "
           "NEMBP_CIFAR_MIRROR, else public mirrors]"),
    Option("--quiet", "No progress."),
    of=data,
)  # fmt: skip
def fetch(args: Any) -> None:
    """Download the data set NAME, and check it against the published checksums.

    Files that are there already are kept.
    """
    from nembp.datasets.fetch import fetch as fetch_files

    name, begun = args.name, set[str]()
    with status(quiet=args.quiet) as tell:

        def progress(file: str, received: int, announced: int | None) -> None:
            size = f"{announced:,} bytes" if announced else "unknown size"
            if file not in begun:
                tell(f"nembp: fetching {file} ({size})", stays=True)
            begun.add(file)
            tell(f"{file}: {received:,} bytes of {size}")

        fetched = fetch_files(name, args.data_dir, args.mirror, progress)
    if not args.quiet:
        done = f"{count(len(fetched), 'file')} fetched" if fetched else "nothing to fetch"
        checked = ", checksums verified" if fetched or name == "mnist" else ""
        note(f"{done}; {args.data_dir} holds {name}{checked}")
        note(f"train on it: nembp train --dataset {name} --data-dir {args.data_dir}")
    emit(args, {"name": name, "data_dir": args.data_dir, "fetched": list(map(str, fetched))})
