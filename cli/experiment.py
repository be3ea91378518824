"""``nembp experiment``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from .options import device_option, json_option
from .output import count, emit_json, emit_table, note, short_path
from .progress import duration, status, terminate_as_interrupt

AT_ONCE = click.IntRange(1, 1024)  # processes or threads


def _folders(_: click.Context, __: click.Parameter, entries: tuple[str, ...]) -> dict[str, str]:
    table = {}
    for entry in entries:
        name, sign, path = entry.partition("=")
        if not (name and sign and path):
            raise click.BadParameter(f"{entry!r} is not NAME=FOLDER, as in mnist=data/mnist")
        if not Path(path).exists():
            raise click.BadParameter(f"{path}: no such folder for {name}")
        table[name] = path
    return table


def _note_unread(name: str, dirs: Mapping[str, str], datasets: Iterable[str]) -> None:
    read = sorted(datasets)
    for unread in sorted(set(dirs) - set(read)):
        note(f"--data-dir {unread}: without effect, since {name} reads {', '.join(read)}")


_data_dirs = click.option(
    "--data-dir", "data_dirs", multiple=True, metavar="NAME=FOLDER", callback=_folders,
    help="Where a data set lies, as in mnist=data/mnist; more than once for more than one.",
)  # fmt: skip
_out = click.option("--out", metavar="DIR", default="runs/experiments", show_default=True,
                    help="Folder of experiments.")  # fmt: skip


@click.group()
def experiment() -> None:
    """Settle published claims: declared protocols, run with controls and judged by rule."""


@experiment.command("list")
@json_option
def list_experiments(as_json: bool) -> None:
    """List the declared experiments."""
    from nembp.experiments import available
    from nembp.experiments.tuning import remaining

    rows: list[dict[str, Any]] = [
        {
            "name": name, "title": protocol.title, "source": protocol.source,
            "datasets": list(protocol.datasets), "arms": [arm.name for arm in protocol.arms],
            "claims": [item.claim for item in protocol.comparisons if item.claim],
            "replicates": remaining(protocol, ())[1], "hash": protocol.digest,
        }
        for name, protocol in available().items()
    ]  # fmt: skip
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
@click.option("--jobs", type=AT_ONCE, metavar="J",
              help="Replicates at a time.  [default: the cores; 1 on a GPU]")  # fmt: skip
@click.option("--threads", type=AT_ONCE, metavar="N", help="BLAS threads of each, on which last "
              "bits depend.  [default: the cores / J]")  # fmt: skip
@device_option
@click.option("--resume", is_flag=True, help="Continue a run, or add seeds to it.")
@click.option("--quick", is_flag=True, help="Does it work? 2 seeds, little data; decides nothing.")
@_data_dirs
@_out
@json_option
def run(
    name: str, seeds: int | None, data_dirs: dict[str, str], out: str, as_json: bool, **options: Any
) -> None:
    """Run the experiment NAME: tune, report, judge.

    DIR/NAME gets rows.jsonl (one row per replicate, on the disk as it finishes), protocol.json,
    summary.json and, with matplotlib, curves.png and effects.png. Ctrl-C or a kill loses at most
    the replicates in progress; --resume runs what is left.
    """
    from nembp.errors import NembpError
    from nembp.experiments import get

    protocol = get(name)
    quick = options["quick"]
    if seeds is not None:
        protocol = protocol.with_seeds(seeds)
        if seeds < protocol.least_seeds and not quick:
            note(
                f"{count(seeds, 'seed')} cannot tell the claims of {name} from chance; with fewer "
                f"than {protocol.least_seeds} every verdict is not reproduced or undecided"
            )
    from nembp.experiments import read_experiment, run_experiment, summarize
    from nembp.experiments.figures import draw
    from nembp.files import write_atomically
    from nembp.runs.folder import to_json
    from nembp.threads import usable_cores

    if options["jobs"] is None:
        options["jobs"] = usable_cores() if options["device"] == "cpu" else 1
    _note_unread(name, data_dirs, protocol.datasets)
    with _progress(name, "replicates") as show, terminate_as_interrupt():
        folder = run_experiment(protocol, out, data_dirs=data_dirs, on_progress=show, **options)
    found = read_experiment(out, name, quick=quick)
    summary = summarize(found)
    write_atomically(folder / "summary.json", (to_json(summary, indent=2) + "\n").encode())
    try:
        draw(found, summary)
    except NembpError as error:  # without matplotlib, say: everything else is there
        note(f"no figures: {error}")
    if as_json:
        emit_json(summary)
    else:
        _report(summary)
        note(f"rows, summary and figures are in {short_path(str(folder.resolve()))}")


@experiment.command("show")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--markdown", "as_markdown", is_flag=True, help="A table in Markdown.")
@click.option("--quick", is_flag=True, help="Show runs of --quick.")
@click.option("--details", "whole", is_flag=True, help="Controls and arms too.")
@_out
@json_option
def show(
    names: tuple[str, ...], as_markdown: bool, quick: bool, whole: bool, out: str, as_json: bool
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
    if old := sum(each.unsealed for each in found):
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


@experiment.command(
    "search",
    epilog="\b\nExamples:\n  nembp experiment search mnist --data-dir mnist=data/mnist\n"
    "  nembp experiment search mnist --data-dir mnist=data/mnist --resume\n"
    "  nembp experiment search mnist --show --out data/experiments/search",
)
@click.argument("name", default="mnist")
@click.option("--budget", type=click.FloatRange(min=0, min_open=True), default=10.0,
              show_default=True, metavar="MINUTES",
              help="Core-minutes of training in this run; --resume goes on.")  # fmt: skip
@click.option("--jobs", type=AT_ONCE, metavar="J",
              help="Trainings at a time.  [default: the cores]")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on from the rows that are there.")
@click.option("--show", "only_show", is_flag=True, help="Say what was found; train nothing.")
@_data_dirs
@click.option("--out", metavar="DIR", default="runs/search", show_default=True,
              help="Folder of searches.")  # fmt: skip
@json_option
def search(
    name: str, jobs: int | None, only_show: bool, data_dirs: dict[str, str], out: str,
    as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Look for noise that beats the best-tuned training without it, by successive halving.

    Networks, ways to train them, and noise for each are drawn from the space NAME. Each noise is
    compared with no noise in the same regime, both at the best of the same learning rates, by the
    cut of the training cross-entropy and the accuracy on held-out training samples. What survives
    was picked by its luck too, and is to be confirmed by a protocol (`nembp experiment list`).

    DIR/NAME gets rows.jsonl (one row per training), space.json and summary.json. A search that was
    killed and resumed has the same rows.
    """
    from nembp.experiments.search import read_search, run_search, space, summarize_search
    from nembp.threads import usable_cores

    declared = space(name)
    if not only_show:
        _note_unread(name, data_dirs, (declared.base["dataset"],))
        options |= {"jobs": usable_cores() if jobs is None else jobs, "data_dirs": data_dirs}
        with _progress(name, "trainings in this rung") as progress, terminate_as_interrupt():
            folder = run_search(declared, out, on_progress=progress, **options)
        note(f"rows and summary are in {short_path(str(folder.resolve()))}")
    summary = summarize_search(declared, read_search(out, declared))
    if as_json:
        emit_json(summary)
        return
    minutes = f"{summary['core_minutes']:.1f} core-minutes"
    click.echo(f"{summary['title']}: {count(summary['trainings'], 'training')}, {minutes}")
    if not summary["rungs"]:
        note("the first rung is not complete; go on with --resume")
        return
    last = summary["rungs"][-1]
    click.echo(f"\nbest of {last['candidates']} candidates with {count(last['seeds'], 'seed')}")
    table = [("network", "noise", "learning rate", "training nll", "cut", "accuracy", "points")]
    for row in last["kept"]:
        table.append((
            " ".join(str(value) for value in row["regime"].values()),
            _noise(row["noise"]),
            f"{row['baseline_rate']:g} -> {row['rate']:g}",
            f"{row['baseline_nll']:.3f} -> {row['nll']:.3f}",
            f"{row['cut']:+.0f} %",
            f"{100 * row['accuracy']:.1f} %",
            f"{row['points']:+.1f}",
        ))  # fmt: skip
    emit_table(table)
    click.echo("\nfirst rung, by activation and place of the noise")
    groups = [("activation", "place", "candidates", "better in both", "median cut")]
    for row in summary["by_group"]:
        group, place, *counts = list(row.values())[:4]
        groups.append((group, place, *map(str, counts), f"{row['median_cut']:+.1f} %"))
    emit_table(groups)


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


@contextlib.contextmanager
def _progress(name: str, noun: str) -> Iterator[Callable[[int, int, Mapping[str, Any]], None]]:
    """Give what tells how many are done, the time left, and the one that came."""
    began: list[tuple[float, int]] = []

    def tell(done: int, total: int, row: Mapping[str, Any]) -> None:
        what = row["who"] if "who" in row else f"{row['phase']} {row['arm']}"
        what += f", learning rate {row['rate']:g}, seed {row['seed']}"
        if row.get("strength", 1.0) != 1.0:
            what += f", noise times {row['strength']:g}"
        if row.get("status", "finished") != "finished":
            what += f" ({row['status']})"
        began.append((time.perf_counter(), done))
        (since, first), (now, _) = began[0], began[-1]
        left = ""
        if done > first:
            left = f", {duration((now - since) / (done - first) * (total - done))} left"
        show(f"{name}: {done} of {total} {noun}{left}; {what}", stays=done == total)

    with status() as show:
        yield tell
