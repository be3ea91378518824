"""How an adversarial training is told on stderr, and its scores on stdout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from .output import count, number
from .progress import Course, duration

__all__ = ["ITERATIONS", "SCORES", "score_text"]

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
    "judge_accuracy": ("the judge's accuracy", "share"),
}
_SHOWN: Final = ("modes", "high_quality", "classes", "inception_score", "frechet_distance")

_KEPT: Final = {  # of the noise, by its place
    "discriminator/forward": "D kept",
    "discriminator/input": "D input kept",
    "discriminator/backward": "D backward kept",
    "generator/backward": "G backward kept",
    "critic/input": "critic kept",
}


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


def _describe(plan: dict[str, Any]) -> str:
    shape = "x".join(map(str, plan["shape"]))

    def layers(player: str) -> str:
        sizes = plan["sizes"][player]
        coins = player == "generator" and plan["latent_law"] == "binary"
        first = f"{sizes[0]} bits" if coins else sizes[0]
        return "-".join(map(str, [first, *plan[player], sizes[-1]]))

    way = {"none": "no backward direction trained", "both": "both players bidirectional"}
    ways = way.get(plan["bidirectional"], f"bidirectional {plan['bidirectional']}")
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
    judged = plan["scored_by"].get("judge")
    judge = "" if judged is None else f"; scored by a judge of accuracy {judged['accuracy']:.2%}"
    critic = "critic" if plan["kind"].startswith("wasserstein") else "discriminator"
    return (
        f"{plan['dataset']}: {plan['training_samples']} samples of {shape}; {plan['kind']}, "
        f"{ways}; "
        f"generator {layers('generator')} {plan['generator_activation']}, {critic} "
        f"{layers('discriminator')} {plan['discriminator_activation']}; {plan['optimizer']} "
        f"{rates} {plan['schedule']}, batch {plan['batch_size']}, "
        f"{count(plan['iterations'], 'iteration')} of "
        f"{count(plan['critic_steps'], critic + ' step')}{noise}; seed {plan['seed']}, "
        f"{plan['dtype']} on {plan['device']}{judge}"
    )


def _columns(row: Mapping[str, Any], iterations: int, left: float) -> list[tuple[str, str]]:
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
    shown.append(("iterations/s", f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"))
    shown.append(("left", duration(left)))
    return shown


ITERATIONS: Final = Course("iteration", _describe, _columns)
