"""``nembp experiment search``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from .data_dirs import data_dirs_option, note_unread
from .interrupts import terminate_as_interrupt
from .output import count, emit_json, emit_table, note, say, short_path

OUT = "runs/search"
EVERY = 5.0  # seconds between lines of progress


@click.command(
    epilog="\b\nExamples:\n  nembp experiment search mnist --data-dir mnist=data/mnist\n"
    "  nembp experiment search mnist --data-dir mnist=data/mnist --resume\n"
    "  nembp experiment search mnist --show --out data/experiments/search",
)
@click.argument("name", default="mnist")
@click.option(
    "--budget", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True,
    metavar="MINUTES", help="Core-minutes of training in this run; --resume goes on.",
)  # fmt: skip
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="J", help="Trainings at a time.  [default: the "
    "cores]",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from the rows that are there.")
@click.option("--show", is_flag=True, help="Say what was found so far; train nothing.")
@data_dirs_option
@click.option("--out", metavar="DIR", default=OUT, show_default=True, help="Folder of searches.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def search(
    name: str,
    budget: float,
    jobs: int | None,
    resume: bool,
    show: bool,
    data_dirs: dict[str, str],
    out: str,
    as_json: bool,
) -> None:
    """Look for noise that beats the best-tuned training without it, by successive halving.

    Networks, ways to train them, and noise for each are drawn from the space NAME. Each noise is
    compared with no noise in the same regime, both at the best of the same learning rates, by the
    cut of the training cross-entropy and the accuracy on held-out training samples: what survives
    was picked by its luck too, and is to be confirmed by a protocol (`nembp experiment list`).

    DIR/NAME gets rows.jsonl (a row a training), space.json and summary.json. The same rows come of
    a search that was killed and resumed.
    """
    from nembp.experiments.search import read_search, run_search, summarize_search
    from nembp.experiments.search import space as space_of
    from nembp.threads import usable_cores

    space = space_of(name)
    if not show:
        note_unread(name, data_dirs, (space.base["dataset"],))
        with terminate_as_interrupt():
            folder = run_search(
                space,
                out,
                budget=budget,
                jobs=usable_cores() if jobs is None else jobs,
                resume=resume,
                data_dirs=data_dirs,
                on_progress=_Progress(name),
            )
        note(f"rows and summary are in {short_path(str(folder.resolve()))}")
    summary = summarize_search(space, read_search(out, space))
    if as_json:
        emit_json(summary)
    else:
        _report(summary)


def _report(summary: Mapping[str, Any]) -> None:
    minutes = f"{summary['core_minutes']:.1f} core-minutes"
    click.echo(f"{summary['title']}: {count(summary['trainings'], 'training')}, {minutes}")
    if not summary["rungs"]:
        note("the first rung is not complete; go on with --resume")
        return
    last = summary["rungs"][-1]
    click.echo(f"\nbest of {last['candidates']} candidates with {count(last['seeds'], 'seed')}")
    table = [("network", "noise", "learning rate", "training nll", "cut", "accuracy", "points")]
    for row in last["kept"]:
        table.append(
            (
                " ".join(str(value) for value in row["regime"].values()),
                _noise(row["noise"]),
                f"{row['baseline_rate']:g} -> {row['rate']:g}",
                f"{row['baseline_nll']:.3f} -> {row['nll']:.3f}",
                f"{row['cut']:+.0f} %",
                f"{100 * row['accuracy']:.1f} %",
                f"{row['points']:+.1f}",
            )
        )
    emit_table(table)
    click.echo("\nfirst rung, by activation and place of the noise")
    groups = summary["by_group"]
    emit_table(
        [("activation", "place", "candidates", "better in both", "median cut")]
        + [
            (
                next(iter(row.values())), row["place"], str(row["candidates"]), str(row["both"]),
                f"{row['median_cut']:+.1f} %",
            )
            for row in groups
        ]
    )  # fmt: skip


def _noise(noise: Mapping[str, Any]) -> str:
    std, decay = noise.get("noise_std"), noise.get("noise_decay")
    words = [noise["noise_place"], "" if std is None else f"std {std:g}"]
    if decay:
        words.append(f"/ {noise.get('noise_clock', 'iteration')}^{decay:g}")
    usual = {"noise_law": "gaussian", "noise_rejected": "reflect", "noise_screening": "auto",
             "noise_draws": 1, "noise_target": "forward", "noise_update": "exact"}  # fmt: skip
    for name, value in usual.items():
        if noise.get(name, value) != value:
            words.append(f"{name.removeprefix('noise_')} {noise[name]}")
    return " ".join(word for word in words if word)


class _Progress:
    """Lines now and then on stderr."""

    def __init__(self, name: str) -> None:
        self.name, self.said = name, -EVERY

    def __call__(self, done: int, total: int, row: Mapping[str, Any]) -> None:
        now = time.perf_counter()
        if now - self.said >= EVERY or done == total:
            self.said = now
            what = f"{row['who']}, learning rate {row['rate']:g}, seed {row['seed']}"
            say(f"{self.name}: {done} of {total} trainings in this rung; {what}")
