"""``nembp gan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nembp.runs.folder import CONFIG
from nembp.runs.gan_config import GanConfig
from nembp.runs.options import read_settings

from .options import POSITIVE, Option, command, options_of
from .output import count, score_text
from .train import OWN_KEYS, SOURCES, Cells, Progress, Row, run_options

EXAMPLES = """\
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
KEPT = ("kind", "bidirectional", "classes")  # of a run that another starts from, with its networks
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
COLUMNS = {
    "discriminator/nll": "D nll",
    "critic/objective": "critic",
    "generator/nll": "G nll",
    "discriminator/backward_nll": "D backward",
    "generator/backward_nll": "G backward",
    "modes": "modes",
    "high_quality": "high quality",
    "classes": "classes",
    "inception_score": "inception score",
    "frechet_distance": "Fréchet distance",
    "noise/discriminator/forward/accepted": "D kept",
    "noise/discriminator/input/accepted": "D input kept",
    "noise/discriminator/backward/accepted": "D backward kept",
    "noise/generator/backward/accepted": "G backward kept",
    "noise/critic/input/accepted": "critic kept",
}


def _as_it_was(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Make data, kind and networks of the run in --start the defaults; --config overrides them."""
    config = Path(value or "", CONFIG)
    if value is not None and not ctx.resilient_parsing and config.is_file():
        found = read_settings(config, GanConfig, OWN_KEYS)
        kept = {
            name: found[name]
            for name, option in GanConfig.options().items()
            if name in found and (option.group in ("Data", "Networks") or name in KEPT)
        }
        ctx.default_map = kept | dict(ctx.default_map or {})
    return value


@command(
    *options_of(GanConfig),
    Option("--start RUN", "Start from the generator and discriminator of a run, rather than from "
           "new ones, with its data, kind and networks where nothing else is said.", is_eager=True,
           callback=_as_it_was),
    Option("--seeds", "Train N times, with --seed and the numbers after it, and report mean ± "
           "standard deviation. With --resume, go on with the folder of such runs.", POSITIVE),
    *run_options(GanConfig, "runs/<time>-gan-<data>-seed<seed>"),
    epilog=SOURCES.format("GAN") + EXAMPLES,
)  # fmt: skip
def gan(args: Any) -> None:
    """Train a generator against a discriminator, either of them bidirectional.

    Without options it learns a ring of eight Gaussians. The folder holds config.toml (repeats the
    run), metrics.jsonl (a row per checkpoint), generator.npz, discriminator.npz, checkpoint.npz
    (for --resume), summary.json, samples.png (what the generator draws) and training.gif (how it
    came to).
    """
    progress = Progress(args, GanConfig, _describe, COLUMNS, _report, IDLE)
    given, out, resume = progress.given, args.out, args.resume
    config = GanConfig(**given)
    with progress.told("out", "force", "start") as told:
        from nembp.runs.gan import resume_gan, run_gan, run_seeds  # NumPy: --help does without

        new: dict[str, Any] = {"force": args.force, "start": args.start, **told}
        if args.seeds is not None:
            run_seeds(config, args.seeds, out, resume=resume, changes=given, **new)
        elif resume is not None:
            resume_gan(resume, given, **told)
        else:
            run_gan(config, out, **new)


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
    return rows


def _describe(plan: Row) -> tuple[str, str, str, str]:
    bits = " bits" if plan["latent_law"] == "binary" else ""
    critic = "critic" if plan["kind"].startswith("wasserstein") else "discriminator"
    layers = {
        name: "-".join(
            map(str, [f"{first}{bits if name == 'generator' else ''}", *plan[name], last])
        )
        for name, (first, *_, last) in plan["sizes"].items()
    }
    way = plan["bidirectional"]
    trained = [name for name in ("discriminator", "generator") if way in (name, "both")]
    weights = ", ".join(f"{name} {plan[f'{name}_weight']:g}" for name in trained)
    ways = {"none": "no backward direction trained", "both": "both networks bidirectional"}
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
        f"generator {layers['generator']} {plan['generator_activation']}, {critic} "
        f"{layers['discriminator']} {plan['discriminator_activation']}",
        how,
        f"; scored by a classifier of accuracy {scorer['accuracy']:.2%}" if scorer else "",
    )
