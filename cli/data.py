"""``nembp data``."""

from __future__ import annotations

from typing import Any

import click

from nembp.runs.config import RunConfig

from .options import json_option, options_of
from .output import count, emit_json, emit_table, note, short_path
from .progress import status

MANY = 20  # classes listed by name


@click.group()
def data() -> None:
    """List, inspect and fetch data sets."""


@data.command("list")
@json_option
def list_sets(as_json: bool) -> None:
    """List the data sets that train knows."""
    from nembp.datasets import available

    if as_json:
        emit_json(available())
    else:
        emit_table(list(available().items()))


@data.command("info")
@click.argument("name")
@options_of(
    RunConfig,
    ("data_dir", "targets", "task", "image_size", "scaling", "delimiter", "header", "decimal",
     "image_order", "transpose", "x", "y", "max_bytes"),
)  # fmt: skip
@json_option
def info(name: str, as_json: bool, **chosen: Any) -> None:
    """Check the data set NAME, and show what training sees of it."""
    import numpy as np

    from nembp.runs import recipe
    from nembp.runs.training import load_data

    config = RunConfig(dataset=name, **chosen)
    loaded = load_data(config)
    filled = recipe(loaded, config)
    counts = np.bincount(loaded.train.y).tolist() if loaded.is_classification else []
    facts: dict[str, Any] = {
        "name": loaded.name,
        "source": loaded.source,
        "attribution": loaded.attribution,
        "training_samples": len(loaded.train),
        "test_samples": len(loaded.test),
        "shape": list(loaded.shape),
        "dtype": str(loaded.train.x.dtype),
        "task": "classification" if loaded.is_classification else "regression",
        "scaling": _scaling(loaded),
        "classes": dict(zip(loaded.classes, counts, strict=True)),
        "targets": list(loaded.target_names),
        "notes": list(loaded.notes),
        "fingerprint": loaded.fingerprint,
        "recipe": {
            key: getattr(filled, key)
            for key in ("layers", "forward", "backward", "backward_weight", "batch_size", "epochs")
        },
    }
    if as_json:
        emit_json(facts)
        return
    plan = facts["recipe"]
    layers = ",".join(map(str, plan["layers"]))
    rows = [
        ("name", loaded.name),
        ("from", short_path(loaded.source)),
        ("by", loaded.attribution or "unknown"),
        ("samples", f"{len(loaded.train)} training, {len(loaded.test)} test"),
        ("shape", f"{'x'.join(map(str, loaded.shape))} {facts['dtype']}"),
        ("task", facts["task"]),
        ("scaling", _scaling_words(facts["scaling"])),
        ("classes", _class_words(facts["classes"])),
        ("targets", ", ".join(loaded.target_names)),
        *(("note", text) for text in loaded.notes),
        (
            "recipe",
            f"--layers {layers} --batch-size {plan['batch_size']} --epochs {plan['epochs']} "
            f"--backward-weight {plan['backward_weight']:g}",
        ),
    ]
    emit_table([row for row in rows if row[1]])


def _scaling(loaded: Any) -> dict[str, Any] | None:
    """Say what the network is given of images: pixels in [0, 1], or standardized by channel."""
    if not loaded.is_image:
        return None
    if loaded.pixel_scaling is None:
        return {"kind": "unit"}
    mean, factor = loaded.x_scaling.offset, loaded.x_scaling.factor
    return {"kind": "channel", "mean": mean.tolist(), "deviation": (1 / factor).tolist()}


def _scaling_words(facts: dict[str, Any] | None) -> str:
    kind, *values = (facts or {"kind": ""}).values()
    if kind != "channel":
        return "pixels to [0, 1]" if kind else ""
    mean, deviation = (", ".join(f"{value:.4g}" for value in each) for each in values)
    return f"by channel: mean {mean}; deviation {deviation}"


def _class_words(counts: dict[str, int]) -> str:
    words = [f"{key}: {n}" for key, n in counts.items()]
    more = f"  and {len(words) - MANY} more" if len(words) > MANY else ""
    return "  ".join(words[:MANY]) + more


@data.command()
@click.argument("name", type=click.Choice(["mnist", "cifar10", "cifar100"]))
@click.option("--data-dir", metavar="DIR", required=True, help="Folder for the files.")
@click.option(
    "--mirror",
    metavar="URL",
    help="Where to fetch from.  [default: NEMBP_MNIST_MIRROR or NEMBP_CIFAR_MIRROR, else public "
    "mirrors]",
)
@click.option("--quiet", is_flag=True, help="No progress.")
def fetch(name: str, data_dir: str, mirror: str | None, quiet: bool) -> None:
    """Download the data set NAME, and check it against the published checksums.

    Files that are there already are kept.
    """
    from nembp.datasets.fetch import fetch as fetch_files

    begun = set[str]()
    with status(quiet=quiet) as tell:

        def progress(file: str, received: int, announced: int | None) -> None:
            size = f"{announced:,} bytes" if announced else "unknown size"
            if file not in begun:
                tell(f"nembp: fetching {file} ({size})", stays=True)
            begun.add(file)
            tell(f"{file}: {received:,} bytes of {size}")

        fetched = fetch_files(name, data_dir, mirror, progress)
    if not quiet:
        done = f"{count(len(fetched), 'file')} fetched" if fetched else "nothing to fetch"
        checked = ", checksums verified" if fetched or name == "mnist" else ""
        note(f"{done}; {data_dir} holds {name}{checked}")
        note(f"train on it: nembp train --dataset {name} --data-dir {data_dir}")
