"""Points in the plane: what a bidirectional generator covers of modes that a plain one loses.

The grid of 25 modes and the ring of 8 are those of VEEGAN (Srivastava and others, NIPS 2017) and
PacGAN (Lin and others, NeurIPS 2018), networks smaller than theirs. z is a code of 12 bits in every
arm but those of a Gaussian z. An arm's controls: the way back held apart from the samples it starts
from (``held``), backward targets that mean nothing (``permuted``), and the plain game with a
discriminator three times as fast as its generator (``fast``), the best remedy known for it
(Heusel and others, NIPS 2017). What is claimed of the generator is ours; 24.5 modes and 80 % of
good samples were set before the run.
"""

from __future__ import annotations

from typing import Any, Final

from nembp.experiments.claims.common import both_rates
from nembp.experiments.protocol import Arm, Comparison, Metric, Protocol, Tuning

MODES: Final = Metric("modes", "modes", "higher", "difference")
STRICT: Final = Metric("modes, strict", "modes_strict", "higher", "difference")
QUALITY: Final = Metric("high quality", "high_quality", "higher", "points")
SOURCE: Final = "nembp; a bidirectional discriminator's: Adigun, Kosko, ICMLA 2018, 1178-1185"

GAME: Final[dict[str, Any]] = {
    "kind": "vanilla",
    "critic_steps": 1,
    "samples": 50_000,
    "latent": 12,
    "latent_law": "binary",
    "generator": "128,128",
    "discriminator": "128,128",
    "generator_activation": "relu",
    "discriminator_activation": "relu",
    "bidirectional": "none",
    "generator_weight": 0.5,
    "discriminator_weight": 0.01,
    "weight_schedule": "cosine",
    "backward_labels": "real",
    "backward_flow": True,
    "backward_permuted": False,
    "classes": False,
    "optimizer": "adam",
    "momentum": 0.5,
    "learning_rate": 0.003,
    "discriminator_rate": 0.003,
    "schedule": "cosine",
    "averaging": 0.99,
    "batch_size": 128,
    "iterations": 5000,
    "dtype": "float32",
    "noise": "none",
    "checkpoints": 10,
    "averaged": 2,
    "scored_samples": 2500,
}
GENERATOR: Final = {"bidirectional": "generator"}
COVERS: Final = "A bidirectional generator of binary codes covers modes that a plain one loses"
PLACES: Final = "A bidirectional generator of binary codes places its samples in modes"
FAST: Final = "It covers more than a plain game whose discriminator is three times as fast"
MEANING: Final = "It covers more than one whose backward targets mean nothing"
DISCRIMINATOR: Final = "A bidirectional discriminator covers modes that a plain one loses"
NEM: Final = "NEM noise on the discriminator's targets covers modes that are lost without"


ARMS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "generator": GENERATOR,
    "held": GENERATOR | {"backward_flow": False},
    "permuted": GENERATOR | {"backward_permuted": True},
    "fast": {"discriminator_rate": 0.009},
    "gaussian": GENERATOR | {"latent_law": "gaussian"},
    "discriminator": {"bidirectional": "discriminator"},
    "nem": {"noise": "nem", "noise_place": "discriminator/forward", "noise_std": 0.3,
            "noise_decay": 0.0, "noise_law": "gaussian", "noise_mode": "additive",
            "noise_screening": "auto", "noise_rejected": "reflect"},
}  # fmt: skip


def _protocol(
    name: str,
    title: str,
    reach: float,
    base: dict[str, Any],
    arms: tuple[str, ...],
    more: tuple[Comparison, ...],
) -> Protocol:
    return Protocol(
        name=name,
        title=title,
        kind="gan",
        source=SOURCE,
        base=GAME | base,
        seeds=20,
        arms=tuple(Arm(arm, ARMS[arm]) for arm in arms),
        metrics=(MODES, STRICT, QUALITY),
        comparisons=(
            *both_rates("modes", "generator", "plain", MODES, COVERS, reach=reach),
            *both_rates("quality", "generator", "plain", QUALITY, PLACES, reach=0.8),
            *more,
            Comparison("strict modes", "generator", "plain", STRICT.name, "same"),
        ),
        tuning=Tuning(MODES.name, (0.25, 0.5, 1.0, 2.0), (1000, 1001), extend=1, refine=0),
        small={"iterations": 20, "checkpoints": 2, "scored_samples": 200},
    )


PROTOCOLS = (
    _protocol(
        "gan-grid",
        "Bidirectional generator, vanilla game, grid of 25 modes",
        24.5,
        {"dataset": "grid", "scale": 0.5},
        ("plain", "generator", "held", "permuted", "fast", "gaussian"),
        (
            *both_rates("fast", "generator", "fast", MODES, FAST, margin=0.5),
            Comparison("meaning", "generator", "permuted", MODES.name, "same", MEANING),
            Comparison("flow", "generator", "held", MODES.name, "same"),
            Comparison("codes", "generator", "gaussian", MODES.name, "same"),
            Comparison("quality beside fast", "generator", "fast", QUALITY.name, "tuned"),
        ),
    ),
    _protocol(
        "gan-ring",
        "Bidirectional players, vanilla game, ring of 8 modes",
        7.8,
        {"dataset": "ring", "scale": 1.0, "iterations": 3000},
        ("plain", "generator", "permuted", "discriminator", "nem"),
        (
            Comparison("meaning", "generator", "permuted", MODES.name, "same", MEANING),
            Comparison("discriminator", "discriminator", "plain", MODES.name, "same",
                       DISCRIMINATOR),
            Comparison("nem", "nem", "plain", MODES.name, "same", NEM),
        ),
    ),
)  # fmt: skip
