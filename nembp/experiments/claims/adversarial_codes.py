"""Bidirectional generators of images: of binary z on MNIST, and on digits stacked to 1,000 modes.

As in :mod:`~nembp.experiments.claims.adversarial_plane`, but of images, whose modes lie less far
apart. The plain game is tried with a Gaussian z, which is usual, and with codes.
"""

from __future__ import annotations

from typing import Any, Final

from nembp.experiments.claims.adversarial_images import MNIST, VANILLA
from nembp.experiments.claims.common import both_rates
from nembp.experiments.claims.games import CLASSES, DISTANCE, SCORE
from nembp.experiments.protocol import Arm, Comparison, Metric, Protocol, Tuning

RECALL: Final = Metric("recall", "recall", "higher", "points")

GAME: Final[dict[str, Any]] = VANILLA | MNIST | {
    "batch_size": 64,
    "learning_rate": 0.004,
    "discriminator_rate": 0.004,
    "schedule": "cosine",
    "averaging": 0.99,
    "iterations": 2000,
    "generator_weight": 1.0,
    "weight_schedule": "cosine",
    "backward_flow": True,
    "latent_law": "gaussian",
}  # fmt: skip
STACKED: Final[dict[str, Any]] = GAME | {
    "dataset": "stacked-digits",
    "samples": 128_000,
    "latent": 32,
    "generator": "256,512",
    "discriminator": "512,256",
    "learning_rate": 0.003,
    "discriminator_rate": 0.003,
    "schedule": "late-cosine",
    "generator_weight": 0.3,
    "weight_until": 0.8,
    "iterations": 3000,
    "scored_samples": 26_000,
}
STACKED_MNIST: Final[dict[str, Any]] = STACKED | {
    "dataset": "stacked",
    "samples": 60_000,
    "iterations": 1500,  # a minute of a core; modes are still being found
}
CODES: Final = {"bidirectional": "generator", "latent_law": "binary"}

MODES: Final = Metric("modes", "modes", "higher", "difference")
DIVERGENCE: Final = Metric("kl of modes", "kl", "lower", "difference")
PROTOCOLS = (
    Protocol(
        name="gan-mnist-codes",
        title="Bidirectional generator of codes, vanilla game, dense, MNIST",
        kind="gan",
        source="nembp",
        base=GAME,
        arms=(
            Arm("plain"),
            Arm("codes", CODES),
            Arm("plain codes", {"latent_law": "binary"}),
            Arm("generator", {"bidirectional": "generator"}),
        ),
        metrics=(SCORE, CLASSES, DISTANCE, RECALL),
        comparisons=(
            *both_rates("fréchet distance", "codes", "plain", DISTANCE,
                        "A bidirectional generator of codes draws nearer to the data (Fréchet)"),
            *both_rates("recall", "codes", "plain", RECALL,
                        "A bidirectional generator of codes leaves out less of the data (recall)"),
            *both_rates("inception score", "codes", "plain", SCORE,
                        "A bidirectional generator of codes raises the inception score"),
            *both_rates("classes", "codes", "plain", CLASSES,
                        "A bidirectional generator of codes covers more classes", margin=0.5),
            Comparison("classes beside plain codes", "codes", "plain codes", CLASSES.name, "same",
                       "Of codes a plain generator covers fewer classes"),
            Comparison("gaussian", "generator", "plain", DISTANCE.name, "same"),
        ),
        tuning=Tuning(DISTANCE.name, (0.5, 1.0, 2.0), (1000, 1001), extend=2, refine=0),
        small={"iterations": 10, "checkpoints": 2, "scored_samples": 200},
    ),
    Protocol(
        name="gan-stacked-digits",
        title="Bidirectional generator, vanilla game, dense, three digits stacked",
        kind="gan",
        source="nembp",
        base=STACKED,
        arms=(Arm("plain"), Arm("generator", {"bidirectional": "generator"})),
        metrics=(MODES, DIVERGENCE),
        comparisons=(
            *both_rates("modes", "generator", "plain", MODES,
                        "A bidirectional generator covers more of 1,000 modes", reach=950.0),
            *both_rates("kl", "generator", "plain", DIVERGENCE,
                        "A bidirectional generator covers them more evenly (nats)", margin=0.02),
        ),
        tuning=Tuning(DIVERGENCE.name, (0.5, 1.0), (1000,), extend=0, refine=0),
        small={"iterations": 10, "checkpoints": 2, "scored_samples": 2000},
    ),
    Protocol(
        name="gan-stacked-mnist",
        title="Bidirectional generator, vanilla game, dense, three MNIST digits stacked",
        kind="gan",
        source="nembp",
        base=STACKED_MNIST,
        arms=(Arm("plain"), Arm("generator", {"bidirectional": "generator"})),
        metrics=(MODES, DIVERGENCE),
        comparisons=(
            *both_rates("modes", "generator", "plain", MODES,
                        "A bidirectional generator covers more of 1,000 modes"),
            Comparison("kl", "generator", "plain", DIVERGENCE.name, "same",
                       "A bidirectional generator covers them more evenly (nats)", margin=0.02),
        ),
        tuning=Tuning(MODES.name, (0.5, 1.0, 2.0), (1000,), extend=0, refine=0),
        small={"iterations": 10, "checkpoints": 2, "scored_samples": 2000},
    ),
)  # fmt: skip
