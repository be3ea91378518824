"""``nembp gan``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from nembp.runs.folder import CONFIG
from nembp.runs.gan_config import GanConfig
from nembp.runs.options import read_settings

from .options import (
    OWN_KEYS,
    GroupedCommand,
    GroupedOption,
    chosen,
    options_of,
    refusals,
    run_folder_options,
)
from .output import count, number, status_rows
from .progress import Cells, Progress, Row, terminate_as_interrupt

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


GAME = ("kind", "bidirectional", "classes")  # what another start from its players keeps of it
# options without effect, the one that decides it, and its values for which they have none
IDLE = {
    "backward_weight": ("bidirectional", "none"),
    "backward_permuted": ("bidirectional", "none"),
    "weight_schedule": ("bidirectional", "none"),
    "discriminator_weight": ("bidirectional", "none", "generator"),
    "backward_labels": ("bidirectional", "none", "generator"),
    "generator_weight": ("bidirectional", "none", "discriminator"),
    "backward_flow": ("bidirectional", "none", "discriminator"),
    "weight_until": ("weight_schedule", "constant"),
    "noise_until": ("noise_schedule", "power"),
    "clip": ("kind", "vanilla", "minimax", "wasserstein-gp"),
    "penalty_weight": ("kind", "vanilla", "minimax", "wasserstein"),
}
SCORES = {
    "modes": "modes",
    "modes_strict": "modes (strict)",
    "high_quality": "high quality",
    "kl": "KL of modes",
    "classes": "classes",
    "classes_strict": "classes (strict)",
    "class_kl": "KL of classes",
    "inception_score": "inception score",
    "frechet_distance": "Fréchet distance",
    "precision": "precision",
    "recall": "recall",
    "judge_accuracy": "the classifier's accuracy",
}
SHARES = ("high_quality", "precision", "recall", "judge_accuracy")
COLUMNS = {
    "discriminator/nll": "D nll",
    "critic/objective": "critic",
    "generator/nll": "G nll",
    "discriminator/backward_nll": "D backward",
    "generator/backward_nll": "G backward",
    **{
        key: SCORES[key]
        for key in ("modes", "high_quality", "classes", "inception_score", "frechet_distance")
    },
    "noise/discriminator/forward/accepted": "D kept",
    "noise/discriminator/input/accepted": "D input kept",
    "noise/discriminator/backward/accepted": "D backward kept",
    "noise/generator/backward/accepted": "G backward kept",
    "noise/critic/input/accepted": "critic kept",
}


def _as_it_was(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Make data, game and networks of the run in --start the defaults; --config overrides them."""
    config = Path(value or "", CONFIG)
    if value is not None and not ctx.resilient_parsing and config.is_file():
        found = read_settings(config, GanConfig, OWN_KEYS)
        kept = {
            name: found[name]
            for name, option in GanConfig.options().items()
            if name in found and (option.group in ("Data", "Networks") or name in GAME)
        }
        ctx.default_map = kept | dict(ctx.default_map or {})
    return value


@click.command(cls=GroupedCommand, epilog=EPILOG)
@options_of(GanConfig)
@click.option("--start", cls=GroupedOption, metavar="RUN", is_eager=True, callback=_as_it_was,
              help="Start from the two players of a run, rather than from new ones, with its data, "
              "game and networks where nothing else is said.")  # fmt: skip
@click.option("--seeds", cls=GroupedOption, type=click.IntRange(min=1), metavar="N",
              help="Train N times, with --seed and the numbers after it, and report mean ± "
              "standard deviation. With --resume, go on with the folder of such runs.")  # fmt: skip
@run_folder_options(GanConfig, "runs/<time>-gan-<data>-seed<seed>")
@click.pass_context
def gan(
    ctx: click.Context,
    /,
    seeds: int | None,
    out: str | None,
    force: bool,
    start: str | None,
    resume: str | None,
    **settings: Any,
) -> None:
    """Train a generator against a discriminator, either of them bidirectional.

    Without options it learns a ring of eight Gaussians. The folder holds config.toml (repeats the
    run), metrics.jsonl (a row per checkpoint), generator.npz, discriminator.npz, checkpoint.npz
    (for --resume), summary.json, samples.png (what the generator draws) and training.gif (how it
    came to).
    """
    given = chosen(GanConfig, settings)
    config = GanConfig(**given)
    progress = Progress(ctx, GanConfig, _describe, _columns, _report, IDLE)
    with terminate_as_interrupt(), refusals(ctx, "out", "force", "start"):
        from nembp.runs.gan import resume_gan, run_gan, run_seeds  # NumPy: --help does without

        new: dict[str, Any] = {"force": force, "start": start}
        if seeds is not None:
            run_seeds(config, seeds, out, resume=resume, changes=given, **new, **progress.told)
        elif resume is not None:
            resume_gan(resume, given, **progress.told)
        else:
            run_gan(config, out, **new, **progress.told)


def _report(summary: Row) -> Cells:
    spread = summary.get("deviations")
    rows = []
    for key, words in SCORES.items():
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


def score_text(key: str, value: float) -> str:
    """Write a score as its kind is written.

    >>> score_text("high_quality", 0.8234), score_text("modes", 24.6), score_text("modes", 8.0)
    ('82.3 %', '24.60', '8')
    """
    if key in SHARES and not math.isnan(value):
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if float(value).is_integer() else number(value)


def _describe(plan: Row) -> tuple[str, str, str, str]:
    def layers(player: str) -> str:
        sizes = plan["sizes"][player]
        coins = player == "generator" and plan["latent_law"] == "binary"
        first = f"{sizes[0]} bits" if coins else sizes[0]
        return "-".join(map(str, [first, *plan[player], sizes[-1]]))

    way = plan["bidirectional"]
    ways = {"none": "no backward direction trained", "both": "both players bidirectional"}
    trained = [player for player in ("discriminator", "generator") if way in (player, "both")]
    weights = ", ".join(f"{player} {plan[f'{player}_weight']:g}" for player in trained)
    critic = "critic" if plan["kind"].startswith("wasserstein") else "discriminator"
    how = f" of {count(plan['critic_steps'], critic + ' step')}"
    if plan["discriminator_rate"] != plan["learning_rate"]:
        how += f" at {plan['discriminator_rate']:g}"
    if plan["noise"] != "none":
        places = ", ".join(plan["noise_place"])
        how += f"; {plan['noise']} noise on {places}, std {plan['noise_std']:g}"
    scorer = plan["scored_by"].get("judge")
    return (
        f"; {plan['kind']}, {ways.get(way, f'bidirectional {way}')}"
        + (f" (weight {weights})" if weights else ""),
        f"generator {layers('generator')} {plan['generator_activation']}, {critic} "
        f"{layers('discriminator')} {plan['discriminator_activation']}",
        how,
        f"; scored by a classifier of accuracy {scorer['accuracy']:.2%}" if scorer else "",
    )


def _columns(row: Row, iterations: int) -> Cells:
    shown = [("iteration", f"{int(row['iteration'])}/{iterations}")]
    for key, heading in COLUMNS.items():
        if key.startswith("noise/") and key in row:
            shown.append((heading, f"{row[key]:.1%}"))
        elif key in row:
            shown.append((heading, score_text(key, row[key])))
    rate = row["iterations_per_second"]
    return [*shown, ("iterations/s", f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}")]
