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
from nembp.experiments.claims.games import GAME
from nembp.experiments.protocol import Arm, Comparison, Metric, Protocol, Tuning

MODES: Final = Metric("modes", "modes", "higher", "difference")
STRICT: Final = Metric("modes, strict", "modes_strict", "higher", "difference")
QUALITY: Final = Metric("high quality", "high_quality", "higher", "points")
SOURCE: Final = "nembp; a bidirectional discriminator's: Adigun, Kosko, ICMLA 2018, 1178-1185"

POINTS: Final[dict[str, Any]] = GAME | {
    "samples": 50_000,
    "latent": 12,
    "latent_law": "binary",
    "generator": "128,128",
    "discriminator": "128,128",
    "discriminator_activation": "relu",
    "weight_schedule": "cosine",
    "backward_flow": True,
    "clip": 0.1,
    "penalty_weight": 1.0,
    "learning_rate": 0.003,
    "discriminator_rate": 0.003,
    "schedule": "cosine",
    "averaging": 0.99,
    "batch_size": 128,
    "iterations": 5000,
    "checkpoints": 10,
    "scored_samples": 2500,
}
CRITIC: Final[dict[str, Any]] = {
    "kind": "wasserstein",
    "critic_steps": 5,
    "optimizer": "rmsprop",
    "momentum": None,
    "decay": 0.9,
    "learning_rate": 0.001,
    "discriminator_rate": 0.001,
    "iterations": 1500,
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
    "nem": {"noise": "nem", "noise_place": "discriminator/forward", "noise_std": 0.3},
}


def _protocol(
    name: str,
    title: str,
    reach: float,
    base: dict[str, Any],
    arms: tuple[str, ...],
    more: tuple[Comparison, ...],
    refine: int = 0,
) -> Protocol:
    return Protocol(
        name=name,
        title=title,
        kind="gan",
        source=SOURCE,
        base=POINTS | base,
        seeds=20,
        arms=tuple(Arm(arm, ARMS[arm]) for arm in arms),
        metrics=(MODES, STRICT, QUALITY),
        comparisons=(
            *both_rates("modes", "generator", "plain", MODES, COVERS, reach=reach),
            *both_rates("quality", "generator", "plain", QUALITY, PLACES, reach=0.8),
            *more,
            Comparison("strict modes", "generator", "plain", STRICT.name, "same"),
        ),
        tuning=Tuning(MODES.name, (0.25, 0.5, 1.0, 2.0), (1000, 1001), extend=1, refine=refine),
        small={"iterations": 20, "checkpoints": 2, "scored_samples": 200},
    )


def _no_worse(arm: str, claim: str) -> tuple[Comparison, Comparison]:
    """Return what settles whether an arm covers fewer modes than the plain game by half a mode."""
    return (
        Comparison(arm, arm, "plain", MODES.name, "same", claim, within=0.5),
        Comparison(f"{arm}, tuned", arm, "plain", MODES.name, "tuned", claim, within=0.5),
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
        refine=1,
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
    Protocol(
        name="wgan-ring",
        title="Bidirectional players, Wasserstein game, ring of 8 modes",
        kind="gan",
        source=SOURCE,
        base=POINTS | CRITIC | {"dataset": "ring", "scale": 1.0},
        seeds=20,
        arms=(
            Arm("plain"),
            Arm("discriminator", ARMS["discriminator"]),
            Arm("generator", GENERATOR | {"generator_weight": 0.03}),
        ),
        metrics=(MODES, QUALITY),
        comparisons=(
            *_no_worse("discriminator", "A Wasserstein game with a bidirectional critic covers as "
                       "many modes as one without"),
            *_no_worse("generator", "A Wasserstein game with a bidirectional generator covers as "
                       "many modes as one without"),
            Comparison("critic's quality", "discriminator", "plain", QUALITY.name),
            Comparison("generator's quality", "generator", "plain", QUALITY.name),
        ),
        tuning=Tuning(MODES.name, (0.5, 1.0, 2.0), (1000, 1001), extend=0, refine=0),
        small={"iterations": 20, "checkpoints": 2, "scored_samples": 200},
    ),
)  # fmt: skip
