"""``nembp experiment``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from nembp.runs.options import Option as Declared

from .options import DEVICE, Option, command
from .output import count, duration, emit, note, short_path, status, terminate_as_interrupt

AT_ONCE = Declared("int", within="≥ 1 and ≤ 1024")  # processes or threads


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


DATA_DIRS = Option("--data-dir data_dirs NAME=FOLDER", "Where a data set lies, as in "
                   "mnist=data/mnist; more than once for more than one.", multiple=True,
                   callback=_folders)  # fmt: skip
OUT = Option("--out DIR", "Folder of experiments.", default="runs/experiments")


@click.group()
def experiment() -> None:
    """Settle published claims: declared protocols, run with controls and judged by rule."""


@command(of=experiment, name="list")
def list_experiments(args: Any) -> None:
    """List the declared experiments."""
    from nembp.experiments import available
    from nembp.experiments.tuning import Grids

    rows: list[dict[str, Any]] = [
        {
            "name": name, "title": protocol.title, "source": protocol.source,
            "datasets": list(protocol.datasets), "arms": [arm.name for arm in protocol.arms],
            "claims": [item.claim for item in protocol.comparisons if item.claim],
            "replicates": Grids(protocol).remaining()[1], "hash": protocol.digest,
        }
        for name, protocol in available().items()
    ]  # fmt: skip
    table = [(row["name"], row["title"], count(row["replicates"], "replicate")) for row in rows]
    emit(args, {"experiments": rows}, [("name", "what", "about"), *table])


@command(
    click.Argument(["name"]),
    Option("--seeds N", "Reported seeds.  [default: the protocol's]", int),
    Option("--jobs J", "Replicates at a time.  [default: the cores; 1 on a GPU]", AT_ONCE),
    Option("--threads N", "BLAS threads of each, on which last bits depend.  [default: the cores "
           "/ J]", AT_ONCE),
    DEVICE,
    Option("--resume", "Continue a run, or add seeds to it."),
    Option("--quick", "Does it work? 2 seeds, little data; decides nothing."),
    DATA_DIRS,
    OUT,
    of=experiment,
    epilog="\b\nExamples:\n  nembp experiment run output-noise-digits --quick\n"
    "  nembp experiment run output-noise --data-dir mnist=data/mnist --jobs 2\n"
    "  nembp experiment run output-noise --data-dir mnist=data/mnist --resume --seeds 20",
)  # fmt: skip
def run(args: Any) -> None:
    """Run the experiment NAME: tune, report, judge.

    DIR/NAME gets rows.jsonl (one row per replicate, on the disk as it finishes), protocol.json,
    summary.json and, with matplotlib, curves.png and effects.png. Ctrl-C or a kill loses at most
    the replicates in progress; --resume runs what is left.
    """
    from nembp.errors import NembpError
    from nembp.experiments import get, read_experiment, run_experiment, summarize
    from nembp.experiments.figures import draw
    from nembp.files import write_atomically
    from nembp.runs.folder import to_json
    from nembp.threads import usable_cores

    name, seeds, quick = args.name, args.seeds, args.quick
    protocol = get(name)
    if seeds is not None:
        protocol = protocol.with_seeds(seeds)
        if seeds < protocol.least_seeds and not quick:
            note(
                f"{count(seeds, 'seed')} cannot tell the claims of {name} from chance; with fewer "
                f"than {protocol.least_seeds} every verdict is not reproduced or undecided"
            )
    if args.jobs is None:
        args.jobs = usable_cores() if args.device == "cpu" else 1
    _note_unread(args, protocol.datasets)
    given = args.given("data_dirs", "jobs", "threads", "device", "resume", "quick")
    with _progress(name, "replicates") as show, terminate_as_interrupt():
        folder = run_experiment(protocol, args.out, on_progress=show, **given)
    found = read_experiment(args.out, name, quick=quick)
    summary = summarize(found)
    write_atomically(folder / "summary.json", (to_json(summary, indent=2) + "\n").encode())
    try:
        draw(found, summary)
    except NembpError as error:  # without matplotlib, say: everything else is there
        note(f"no figures: {error}")
    emit(args, summary, *_report(summary))
    if not args.json:
        _note_ends(summary)
        note(f"rows, summary and figures are in {short_path(folder.resolve())}")


@command(
    click.Argument(["names"], nargs=-1, metavar="[NAME]..."),
    Option("--markdown", "A table in Markdown."),
    Option("--quick", "Show runs of --quick."),
    Option("--details", "Controls and arms too."),
    OUT,
    of=experiment,
)
def show(args: Any) -> None:
    """Show what experiments found, one row per claim; without NAME all that lie in DIR.

    Everything is worked out anew from the rows.
    """
    from nembp.errors import DataError
    from nembp.experiments import available, read_experiment, summarize
    from nembp.experiments.summary import claim_rows, markdown

    suffix = "-quick" if args.quick else ""
    there = [name for name in available() if Path(args.out, name + suffix).is_dir()]
    if not args.names and not there:
        raise DataError(
            f"{args.out}: no experiment lies there; run one with `nembp experiment run`, or check "
            "--out"
        )
    found = [read_experiment(args.out, name, quick=args.quick) for name in args.names or there]
    if old := sum(each.unsealed for each in found):
        note(f"{count(old, 'row')} without a seal, written by version 0.1: damage may go unseen")
    summaries = [summarize(each) for each in found]
    shown: list[Any] = []
    if args.details:
        for summary in summaries:
            shown.append(f"{summary['name']}: {summary['title']} ({summary['source']})")
            shown += [*_report(summary), ""]
    else:
        tables = [claim_rows(summary) for summary in summaries]
        rows = [tables[0][0], *(row for table in tables for row in table[1:])]
        shown = [markdown(rows) if args.markdown else rows]
    emit(args, {"experiments": summaries}, *shown)
    if args.details and not args.json:
        for summary in summaries:
            _note_ends(summary)


def _report(summary: Mapping[str, Any]) -> list[Any]:
    """Return the tables of arms, comparisons and claims."""
    from nembp.experiments.summary import arm_rows, claim_rows, comparison_rows

    claims = [row[:-1] for row in claim_rows(summary)]
    return [arm_rows(summary), "", comparison_rows(summary), "", claims]


def _note_ends(summary: Mapping[str, Any]) -> None:
    ends = [item for item in summary["tuned"] if item["at_an_end"]]
    if ends and not summary["quick"]:
        which = [f"{item['arm']} by {item['metric']} ({item['at_an_end']})" for item in ends]
        note(f"the best setting is at an end of the grid for {', '.join(which)}")


@command(
    click.Argument(["name"], default="mnist"),
    Option("--budget MINUTES", "Core-minutes of training in this run; --resume goes on.",
           Declared("float", within="> 0"), default=10.0),
    Option("--jobs J", "Trainings at a time.  [default: the cores]", AT_ONCE),
    Option("--resume", "Go on from the rows that are there."),
    Option("--show", "Say what was found; train nothing."),
    DATA_DIRS,
    Option("--out DIR", "Folder of searches.", default="runs/search"),
    of=experiment,
    epilog="\b\nExamples:\n  nembp experiment search mnist --data-dir mnist=data/mnist\n"
    "  nembp experiment search mnist --data-dir mnist=data/mnist --resume\n"
    "  nembp experiment search mnist --show --out data/experiments/search",
)  # fmt: skip
def search(args: Any) -> None:
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

    declared = space(args.name)
    if not args.show:
        _note_unread(args, (declared.base["dataset"],))
        args.jobs = args.jobs or usable_cores()
        options = args.given("budget", "jobs", "resume", "data_dirs")
        with _progress(args.name, "trainings in this rung") as tell, terminate_as_interrupt():
            folder = run_search(declared, args.out, on_progress=tell, **options)
        note(f"rows and summary are in {short_path(folder.resolve())}")
    summary = summarize_search(declared, read_search(args.out, declared))
    minutes = f"{summary['core_minutes']:.1f} core-minutes"
    title = f"{summary['title']}: {count(summary['trainings'], 'training')}, {minutes}"
    if not summary["rungs"]:
        emit(args, summary, title)
        note("the first rung is not complete; go on with --resume")
        return
    last = summary["rungs"][-1]
    best = [("network", "noise", "learning rate", "training nll", "cut", "accuracy", "points")]
    for row in last["kept"]:
        best.append((
            " ".join(map(str, row["regime"].values())),
            _noise(row["noise"]),
            f"{row['baseline_rate']:g} -> {row['rate']:g}",
            f"{row['baseline_nll']:.3f} -> {row['nll']:.3f}",
            f"{row['cut']:+.0f} %",
            f"{100 * row['accuracy']:.1f} %",
            f"{row['points']:+.1f}",
        ))  # fmt: skip
    groups = [("activation", "place", "candidates", "better in both", "median cut")]
    for row in summary["by_group"]:
        group, place, *counts = list(row.values())[:4]
        groups.append((group, place, *map(str, counts), f"{row['median_cut']:+.1f} %"))
    heading = f"\nbest of {last['candidates']} candidates with {count(last['seeds'], 'seed')}"
    of_groups = "\nfirst rung, by activation and place of the noise"
    emit(args, summary, title, heading, best, of_groups, groups)


def _noise(noise: Mapping[str, Any]) -> str:
    """Say in words what differs from plain NEM noise."""
    std, decay = noise.get("noise_std"), noise.get("noise_decay")
    words = [noise["noise_place"], "" if std is None else f"std {std:g}"]
    if decay:
        words.append(f"/ {noise.get('noise_clock', 'iteration')}^{decay:g}")
    usual = {"noise_law": "gaussian", "noise_rejected": "reflect", "noise_screening": "auto",
             "noise_draws": 1, "noise_target": "forward", "noise_update": "exact"}  # fmt: skip
    for name, value in usual.items():
        if noise.get(name, value) != value:
            words.append(f"{name.removeprefix('noise_')} {noise[name]}")
    return " ".join(filter(None, words))


def _note_unread(args: Any, datasets: Iterable[str]) -> None:
    for unread in sorted(set(args.data_dirs) - set(datasets)):
        reads = ", ".join(sorted(datasets))
        note(f"--data-dir {unread}: without effect, since {args.name} reads {reads}")


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
