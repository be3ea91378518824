"""``nembp experiment``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .data_dirs import data_dirs_option, note_unread
from .experiment_search import search
from .interrupts import terminate_as_interrupt
from .output import count, emit_json, emit_table, note, on_terminal, say, short_path

OUT = "runs/experiments"
EVERY = 5.0  # seconds between lines of progress where there is no terminal


@click.group()
def experiment() -> None:
    """Settle published claims: declared protocols, run with controls and judged by rule."""


experiment.add_command(search)
_out = click.option(
    "--out", metavar="DIR", default=OUT, show_default=True, help="Folder of experiments."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@experiment.command("list")
@_json
def list_experiments(as_json: bool) -> None:
    """List the declared experiments."""
    from nembp.experiments import available
    from nembp.experiments.tuning import Grids, most_reported

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "title": protocol.title,
            "source": protocol.source,
            "datasets": list(protocol.datasets),
            "arms": [arm.name for arm in protocol.arms],
            "claims": [item.claim for item in protocol.comparisons if item.claim],
            "replicates": len(Grids(protocol).tasks()) + most_reported(protocol),
            "hash": protocol.digest,
        }
        for name, protocol in available().items()
    ]
    if as_json:
        emit_json({"experiments": rows})
        return
    table = [(row["name"], row["title"], count(row["replicates"], "replicate")) for row in rows]
    emit_table([("name", "what", "about"), *table])


@experiment.command(
    "run",
    epilog="\b\nExamples:\n  nembp experiment run output-noise-digits --quick\n"
    "  nembp experiment run output-noise --data-dir mnist=data/mnist --jobs 2\n"
    "  nembp experiment run output-noise --data-dir mnist=data/mnist --resume --seeds 20",
)
@click.argument("name")
@click.option("--seeds", type=int, metavar="N", help="Reported seeds.  [default: the protocol's]")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="J",
    help="Replicates at a time.  [default: the cores; 1 on a GPU]",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N",
    help="BLAS threads of each, on which last bits depend.  [default: the cores / J]",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "gpu"]), default="cpu", show_default=True,
    help="Of every replicate.",
)  # fmt: skip
@click.option("--resume", is_flag=True, help="Continue a run, or add seeds to it.")
@click.option("--quick", is_flag=True, help="Does it work? 2 seeds, little data; decides nothing.")
@data_dirs_option
@_out
@_json
def run(
    name: str,
    seeds: int | None,
    jobs: int | None,
    threads: int | None,
    device: str,
    resume: bool,
    quick: bool,
    data_dirs: dict[str, str],
    out: str,
    as_json: bool,
) -> None:
    """Run the experiment NAME: tune, report, judge.

    DIR/NAME gets rows.jsonl (one row per replicate, on the disk as it finishes), protocol.json,
    summary.json and, with matplotlib, curves.png and effects.png. Ctrl-C or a kill loses at most
    the replicates in progress; --resume runs what is left.
    """
    from nembp.experiments import get

    protocol = get(name)
    if seeds is not None:
        protocol = protocol.with_seeds(seeds)
        if seeds < protocol.least_seeds and not quick:
            note(
                f"{count(seeds, 'seed')} cannot tell the claims of {name} from chance; with fewer "
                f"than {protocol.least_seeds} every verdict is not reproduced or undecided"
            )
    from nembp.experiments import run_experiment
    from nembp.threads import usable_cores

    if jobs is None:
        jobs = usable_cores() if device == "cpu" else 1
    note_unread(name, data_dirs, protocol.datasets)
    with _Progress(name) as progress, terminate_as_interrupt():
        folder = run_experiment(
            protocol,
            out,
            jobs=jobs,
            threads=threads,
            device=device,
            resume=resume,
            quick=quick,
            data_dirs=data_dirs,
            on_progress=progress.show,
        )
    summary = _written(out, name, quick)
    if as_json:
        emit_json(summary)
    else:
        _report(summary)
        note(f"rows, summary and figures are in {short_path(str(folder.resolve()))}")


def _written(out: str, name: str, quick: bool) -> dict[str, Any]:
    """Summarize a run, and write summary and figures into its folder."""
    from nembp.errors import NembpError, OutputError
    from nembp.experiments import read_experiment, summarize
    from nembp.experiments.figures import draw
    from nembp.files import write_atomically
    from nembp.runs.folder import to_json

    found = read_experiment(out, name, quick=quick)
    summary = summarize(found)
    write_atomically(found.folder / "summary.json", (to_json(summary, indent=2) + "\n").encode())
    try:
        draw(found, summary)
    except OutputError:
        raise
    except NembpError as error:  # without matplotlib everything else is there
        note(f"no figures: {error}")
    return summary


@experiment.command("show")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--markdown", "as_markdown", is_flag=True, help="A table in Markdown.")
@click.option("--quick", is_flag=True, help="Show runs of --quick.")
@click.option("--details", "whole", is_flag=True, help="Controls and arms too.")
@_out
@_json
def show(
    names: tuple[str, ...],
    as_markdown: bool,
    quick: bool,
    whole: bool,
    out: str,
    as_json: bool,
) -> None:
    """Show what experiments found, one row per claim; without NAME all that lie in DIR.

    Everything is worked out anew from the rows.
    """
    from nembp.errors import DataError
    from nembp.experiments import available, read_experiment, summarize
    from nembp.experiments.summary import claim_rows, markdown

    suffix = "-quick" if quick else ""
    there = names or [name for name in available() if Path(out, name + suffix).is_dir()]
    if not there:
        raise DataError(
            f"{out}: no experiment lies there; run one with `nembp experiment run`, or check --out"
        )
    found = [read_experiment(out, name, quick=quick) for name in there]
    old = sum(each.unsealed for each in found)
    if old:
        note(f"{count(old, 'row')} without a seal, written by version 0.1: damage may go unseen")
    summaries = [summarize(each) for each in found]
    if as_json:
        emit_json({"experiments": summaries})
    elif whole:
        for summary in summaries:
            click.echo(f"{summary['name']}: {summary['title']} ({summary['source']})")
            _report(summary)
            click.echo()
    else:
        tables = [claim_rows(summary) for summary in summaries]
        rows = [tables[0][0], *(row for table in tables for row in table[1:])]
        if as_markdown:
            click.echo(markdown(rows))
        else:
            emit_table(rows)


def _report(summary: Mapping[str, Any]) -> None:
    from nembp.experiments.summary import arm_rows, claim_rows, comparison_rows

    emit_table(arm_rows(summary))
    click.echo()
    emit_table(comparison_rows(summary))
    click.echo()
    emit_table([row[:-1] for row in claim_rows(summary)])
    ends = [item for item in summary["tuned"] if item["at_an_end"]]
    if ends and not summary["quick"]:
        which = [f"{item['arm']} by {item['metric']} ({item['at_an_end']})" for item in ends]
        note(f"the best setting is at an end of the grid for {', '.join(which)}")


class _Progress:
    """Replicates done and time left on stderr: a bar on a terminal, else a line now and then."""

    def __init__(self, name: str) -> None:
        self.name, self.said = name, -EVERY
        self.bars: Any = None
        self.began: tuple[float, int] | None = None

    def __enter__(self) -> _Progress:
        if on_terminal():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self.bars = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True),
            )  # fmt: skip
            self.task = self.bars.add_task(self.name, total=None)
            self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def show(self, done: int, total: int, row: Mapping[str, Any]) -> None:
        """Show that a replicate is done."""
        what = f"{row['phase']} {row['arm']}, learning rate {row['rate']:g}, seed {row['seed']}"
        if row["strength"] != 1.0:
            what += f", noise times {row['strength']:g}"
        if self.bars is not None:
            self.bars.update(self.task, completed=done, total=total, description=what)
            return
        now = time.perf_counter()
        self.began = self.began or (now, done)
        if now - self.said >= EVERY or done == total:
            self.said = now
            since, first = self.began
            left = (now - since) / (done - first) * (total - done) if done > first else None
            tail = "" if left is None else f", {left:.0f} s left"
            state = "" if row["status"] == "finished" else f" ({row['status']})"
            say(f"{self.name}: {done} of {total} replicates{tail}; {what}{state}")
