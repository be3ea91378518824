"""``nembp gan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nembp.runs.config_file import read_settings
from nembp.runs.folder import CONFIG
from nembp.runs.gan_config import GanConfig
from nembp.runs.gan_recipes import describe_default

from .gan_progress import ITERATIONS, SCORES, score_text
from .interrupts import terminate_as_interrupt
from .options import OWN_KEYS, GroupedCommand, GroupedOption, options_of
from .output import count
from .progress import Progress, progress_for
from .runs import flags_given, report_when_done, run_folder_options, status_rows

__all__ = ["gan"]

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
  nembp sample runs/a -n 64
"""


# what a run's players and their game are, which another start from them keeps; not how it trains
KEPT = (
    "dataset", "data_dir", "limit", "samples", "modes", "std", "scale", "split_seed", "image_size",
    "kind", "bidirectional", "classes", "latent", "latent_law", "latent_std", "generator",
    "discriminator", "generator_activation", "discriminator_activation", "dtype",
)  # fmt: skip


def _as_it_was(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Make data, game and networks of the run in --start the defaults; --config overrides them."""
    config = Path(value or "", CONFIG)
    if value is not None and not ctx.resilient_parsing and config.is_file():
        found = read_settings(config, OWN_KEYS, GanConfig)
        kept = {name: found[name] for name in KEPT if name in found}
        ctx.default_map = kept | dict(ctx.default_map or {})
    return value


@click.command(cls=GroupedCommand, epilog=EPILOG)
@options_of(GanConfig, describe_default, flags={"dataset": ["--data", "--dataset"]})
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
    "deviation.",
)
@run_folder_options(GanConfig, "runs/<time>-gan-<data>-seed<seed>")
@click.pass_context
def gan(
    ctx: click.Context,
    /,
    start: str | None,
    seeds: int | None,
    out: str | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a generator against a discriminator, either of them bidirectional.

    Without options it learns a ring of eight Gaussians. The folder holds config.toml (repeats the
    run), metrics.jsonl (a row a checkpoint), generator.npz, discriminator.npz, summary.json,
    samples.png (what the generator draws) and training.gif (how it came to).
    """
    config = GanConfig(**{name: value for name, value in settings.items() if value is not None})
    with progress_for(quiet=quiet, course=ITERATIONS) as progress, terminate_as_interrupt():
        noted = list[bool]()

        def begin(plan: dict[str, Any]) -> None:
            if not noted:  # of several seeds once
                noted.append(True)
                _note_unused(ctx, plan, progress)
            progress.start(plan)

        from nembp.runs.gan_seeds import run_seeds  # NumPy, which --help does without
        from nembp.runs.gan_training import run_gan

        listeners: dict[str, Any] = {
            "on_start": begin,
            "on_row": progress.epoch,
            "on_end": report_when_done(progress, _report, as_json=as_json),
            "on_note": progress.note,
        }
        if seeds is None:
            run_gan(config, out, force=force, start=start, **listeners)
        else:
            run_seeds(config, seeds, out, force=force, start=start, **listeners)


def _report(summary: dict[str, Any]) -> list[tuple[str, str]]:
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


def _note_unused(ctx: click.Context, plan: dict[str, Any], progress: Progress) -> None:
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
