"""What the protocols of adversarial images share; complete, so that no recipe decides."""

from __future__ import annotations

from typing import Any, Final

from nembp.experiments.protocol import Metric

__all__ = ["BALANCE", "CLASSES", "DISTANCE", "GAME", "ICMLA", "SCORE"]

ICMLA: Final = "Adigun, Kosko, ICMLA 2018, 1178-1185"

SCORE: Final = Metric("inception score", "inception_score", "higher", "relative rise")
BALANCE: Final = Metric("class kl", "class_kl", "lower", "difference")
CLASSES: Final = Metric("classes, strict", "classes_strict", "higher", "difference")
DISTANCE: Final = Metric("fréchet distance", "frechet_distance", "lower", "relative cut")

GAME: Final[dict[str, Any]] = {
    "kind": "vanilla",
    "bidirectional": "none",
    "discriminator_weight": 0.01,
    "generator_weight": 0.5,
    "weight_schedule": "constant",
    "weight_until": 1.0,
    "backward_labels": "real",
    "backward_flow": False,
    "backward_permuted": False,
    "classes": False,
    "critic_steps": 1,
    "clip": 0.03,
    "penalty_weight": 10.0,
    "latent_law": "gaussian",
    "latent_std": 1.0,
    "generator_activation": "relu",
    "dtype": "float32",
    "noise": "none",
    "noise_std": 0.1,
    "noise_decay": 0.0,
    "noise_schedule": "power",
    "noise_until": 1.0,
    "noise_law": "gaussian",
    "noise_mode": "additive",
    "noise_screening": "auto",
    "noise_rejected": "reflect",
    "optimizer": "adam",
    "momentum": 0.5,
    "decay": 0.999,
    "schedule": "constant",
    "averaging": 0.0,
    "averaged": 2,
    "split_seed": 0,
}
