"""``nembp gan``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import click

from nembp.runs.folder import CONFIG
from nembp.runs.gan_config import GanConfig
from nembp.runs.options import read_settings

from .options import (
    OWN_KEYS,
    GroupedCommand,
    GroupedOption,
    check_resumed,
    flags_given,
    options_of,
    run_folder_options,
)
from .output import count, number, status_rows
from .progress import Cells, Progress, Row, progress_for, terminate_as_interrupt

EPILOG = """\
A flag beats its environment variable (NEMBP_GAN_LEARNING_RATE for --learning-rate), which beats
the configuration file, which beats the default. A recipe chooses the defaults that depend on the
data; RUN/config.toml says what was used.

\b
Examples:
  nembp gan
  nembp gan --data grid --bidirectional generator
  nembp gan --data grid --seeds 10 --out runs/vanilla
  nembp gan --data mnist --data-dir data/mnist --bidirectional discriminator
  nembp gan --kind wasserstein --noise nem
  nembp gan --config runs/a/config.toml --seed 1 --out runs/b
  nembp gan --start runs/a --learning-rate 1e-4
  nembp gan --resume runs/a
  nembp sample runs/a -n 64
"""


# what a run's players and their game are, which another start from them keeps; not how it trains
KEPT = (
    "dataset", "data_dir", "limit", "samples", "modes", "std", "scale", "split_seed", "image_size",
    "kind", "bidirectional", "classes", "latent", "latent_law", "latent_std", "generator",
    "discriminator", "generator_activation", "discriminator_activation", "dtype",
)  # fmt: skip


# key: (words, digits or "share")
SCORES: Final[dict[str, tuple[str, int | str]]] = {
    "modes": ("modes", 3),
    "modes_strict": ("modes (strict)", 3),
    "high_quality": ("high quality", "share"),
    "kl": ("KL of modes", 3),
    "classes": ("classes", 3),
    "classes_strict": ("classes (strict)", 3),
    "class_kl": ("KL of classes", 3),
    "inception_score": ("inception score", 4),
    "frechet_distance": ("Fréchet distance", 4),
    "precision": ("precision", "share"),
    "recall": ("recall", "share"),
    "judge_accuracy": ("the classifier's accuracy", "share"),
}
_SHOWN: Final = ("modes", "high_quality", "classes", "inception_score", "frechet_distance")

_KEPT: Final = {  # of the noise, by its place
    "discriminator/forward": "D kept",
    "discriminator/input": "D input kept",
    "discriminator/backward": "D backward kept",
    "generator/backward": "G backward kept",
    "critic/input": "critic kept",
}


def _as_it_was(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Make data, game and networks of the run in --start the defaults; --config overrides them."""
    config = Path(value or "", CONFIG)
    if value is not None and not ctx.resilient_parsing and config.is_file():
        found = read_settings(config, GanConfig, OWN_KEYS)
        kept = {name: found[name] for name in KEPT if name in found}
        ctx.default_map = kept | dict(ctx.default_map or {})
    return value


@click.command(cls=GroupedCommand, epilog=EPILOG)
@options_of(GanConfig)
@click.option(
    "--start",
    cls=GroupedOption,
    metavar="RUN",
    is_eager=True,
    callback=_as_it_was,
    help="Start from the two players of a run, rather than from new ones, with its data, game and "
    "networks where nothing else is said.",
)
@click.option(
    "--seeds",
    cls=GroupedOption,
    type=click.IntRange(min=1),
    metavar="N",
    help="Train N times, with --seed and the numbers after it, and report mean ± standard "
    "deviation. With --resume, go on with the folder of such runs.",
)
@run_folder_options(GanConfig, "runs/<time>-gan-<data>-seed<seed>")
@click.pass_context
def gan(
    ctx: click.Context,
    /,
    seeds: int | None,
    as_json: bool,
    quiet: bool,
    out: str | None,
    force: bool,
    start: str | None,
    resume: str | None,
    checkpoint_every: float | None,
    **settings: Any,
) -> None:
    """Train a generator against a discriminator, either of them bidirectional.

    Without options it learns a ring of eight Gaussians. The folder holds config.toml (repeats the
    run), metrics.jsonl (a row per checkpoint), generator.npz, discriminator.npz, checkpoint.npz
    (for --resume), summary.json, samples.png (what the generator draws) and training.gif (how it
    came to).
    """
    given = {name: value for name, value in settings.items() if value is not None}
    config = GanConfig(**given)
    told = "iteration", _describe, _columns
    with progress_for(quiet, *told) as progress, terminate_as_interrupt():
        if resume is not None:
            check_resumed(ctx, progress.note, "out", "force", "start")
        noted = list[bool]()

        def begin(plan: Row) -> None:
            if not noted and resume is None:  # of several seeds once
                noted.append(True)
                _note_unused(ctx, plan, progress)
            progress.start(plan)

        from nembp.runs.gan import resume_gan, run_gan, run_seeds  # NumPy: --help does without

        more: dict[str, Any] = {
            "checkpoint_every": checkpoint_every,
            "on_start": begin,
            "on_row": progress.row,
            "on_end": progress.report(_report, as_json=as_json),
            "on_note": progress.note,
        }
        if seeds is not None:
            start_from: dict[str, Any] = {"force": force, "start": start}
            run_seeds(config, seeds, out, resume=resume, changes=given, **start_from, **more)
        elif resume is not None:
            resume_gan(resume, given, **more)
        else:
            run_gan(config, out, force=force, start=start, **more)


def _report(summary: Row) -> Cells:
    spread = summary.get("deviations")
    rows = []
    for key, (words, _) in SCORES.items():
        if summary["scores"].get(key) is not None:
            text = score_text(key, summary["scores"][key])
            if spread is not None and len(summary["seeds"]) > 1:
                text += f" ± {score_text(key, spread[key])}"
            rows.append((words, text))
    if rows:
        last = count(summary["averaged"], "checkpoint")
        over = f" and {count(len(summary['seeds']), 'seed')}" if spread is not None else ""
        rows.append(("averaged", f"over the last {last}{over}"))
    done = f"{count(summary['iterations'], 'iteration')} in {summary['seconds']:.1f} s of training"
    return rows + status_rows(summary, done)


def _note_unused(ctx: click.Context, plan: Row, progress: Progress) -> None:
    """Say which flags have no effect; a file may hold them, since config.toml is complete."""

    def note(why: str, *names: str) -> None:
        if given := flags_given(ctx, names):
            progress.note(f"{given}: without effect, since {why}")

    names = list(GanConfig.options())
    if plan["noise"] == "none":
        note("--noise is none", *(name for name in names if name.startswith("noise_")))
    backward = {
        "discriminator": ("discriminator_weight", "backward_labels"),
        "generator": ("generator_weight", "backward_flow"),
    }
    way = plan["bidirectional"]
    if way == "none":
        both = ("backward_weight", "backward_permuted", "weight_schedule")
        note("--bidirectional is none", *both, *backward["discriminator"], *backward["generator"])
    elif way != "both":
        other = "generator" if way == "discriminator" else "discriminator"
        note(f"--bidirectional is {way}", *backward[other])
    if plan["kind"] != "wasserstein":
        note("--kind is not wasserstein", "clip")
    if plan["kind"] != "wasserstein-gp":
        note("--kind is not wasserstein-gp", "penalty_weight")


def score_text(key: str, value: Any) -> str:
    """Write a score as its kind is written.

    >>> score_text("high_quality", 0.8234), score_text("modes", 24.6), score_text("modes", 8.0)
    ('82.3 %', '24.6', '8')
    """
    digits = SCORES.get(key, ("", 4))[1]
    if value is None or math.isnan(value):
        return "-"
    if digits == "share":
        return f"{100 * value:.1f} %"
    assert isinstance(digits, int)
    whole = float(value).is_integer() and key.startswith(("modes", "classes"))
    return f"{value:,.0f}" if whole else number(value, digits)


def _describe(plan: Row) -> str:
    shape = "x".join(map(str, plan["shape"]))

    def layers(player: str) -> str:
        sizes = plan["sizes"][player]
        coins = player == "generator" and plan["latent_law"] == "binary"
        first = f"{sizes[0]} bits" if coins else sizes[0]
        return "-".join(map(str, [first, *plan[player], sizes[-1]]))

    ways = {"none": "no backward direction trained", "both": "both players bidirectional"}.get(
        plan["bidirectional"], f"bidirectional {plan['bidirectional']}"
    )
    weights = [
        f"{player} {plan[f'{player}_weight']:g}"
        for player in ("discriminator", "generator")
        if plan["bidirectional"] in (player, "both")
    ]
    if weights:
        ways += f" (weight {', '.join(weights)})"
    noise = ""
    if plan["noise"] != "none":
        places = ", ".join(plan["noise_place"])
        noise = f"; {plan['noise']} noise on {places}, std {plan['noise_std']:g}"
    rates = f"{plan['learning_rate']:g}"
    if plan["discriminator_rate"] != plan["learning_rate"]:
        rates += f" (discriminator {plan['discriminator_rate']:g})"
    scorer = plan["scored_by"].get("judge")
    scored = f"; scored by a classifier of accuracy {scorer['accuracy']:.2%}" if scorer else ""
    critic = "critic" if plan["kind"].startswith("wasserstein") else "discriminator"
    return (
        f"{plan['dataset']}: {plan['training_samples']} samples of {shape}; {plan['kind']}, "
        f"{ways}; "
        f"generator {layers('generator')} {plan['generator_activation']}, {critic} "
        f"{layers('discriminator')} {plan['discriminator_activation']}; {plan['optimizer']} "
        f"{rates} {plan['schedule']}, batch {plan['batch_size']}, "
        f"{count(plan['iterations'], 'iteration')} of "
        f"{count(plan['critic_steps'], critic + ' step')}{noise}; seed {plan['seed']}, "
        f"{plan['dtype']} on {plan['device']}{scored}"
    )


def _columns(row: Row, iterations: int) -> Cells:
    shown = [("iteration", f"{int(row['iteration'])}/{iterations}")]
    for key, heading in (
        ("discriminator/nll", "D nll"),
        ("critic/objective", "critic"),
        ("generator/nll", "G nll"),
        ("discriminator/backward_nll", "D backward"),
        ("generator/backward_nll", "G backward"),
    ):
        if key in row:
            shown.append((heading, number(row[key])))
    shown += [(SCORES[key][0], score_text(key, row[key])) for key in _SHOWN if key in row]
    for key, value in row.items():
        place = key.removeprefix("noise/").removesuffix("/accepted")
        if place in _KEPT:
            shown.append((_KEPT[place], f"{value:.1%}"))
    rate = row["iterations_per_second"]
    return [*shown, ("iterations/s", f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}")]
