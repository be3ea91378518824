"""What the registered protocols share: networks, metrics, noise and its controls.

Networks and training sets are as small as lets a whole claim run on one core in minutes. Noise on
the output is annealed as σ₀ / epoch, σ₀ = 0.1: more makes training by momentum or Adam diverge
(evidence gathered before these protocols were written, on other seeds).
"""

from __future__ import annotations

from typing import Any, Final

from nembp.experiments.protocol import Arm, Comparison, Metric

__all__ = [
    "ACCURACY",
    "CENTROID",
    "CNN_2016",
    "DIGITS",
    "ERROR",
    "MNIST",
    "NEM_KINDS",
    "NLL",
    "NN_2019",
    "NN_2020",
    "against",
    "noise",
]

CNN_2016: Final = "Audhkhasi, Osoba, Kosko, Neural Networks 78:15-23, 2016"
NN_2019: Final = "Adigun, Kosko, Neural Networks 120:9-31, 2019"
NN_2020: Final = "Kosko, Audhkhasi, Osoba, Neural Networks 129:359-384, 2020"

_PLAIN: Final[dict[str, Any]] = {
    "activation": "relu",
    "augment": "none",
    "backward": "none",
    "dtype": "float32",
    "forward": "multinomial",
    "learning_rate": 0.1,
    "noise": "none",
    "optimizer": "sgd",
    "scaling": "unit",
    "schedule": "constant",
    "weight_decay": 0.0,
}
MNIST: Final[dict[str, Any]] = _PLAIN | {
    "dataset": "mnist",
    "limit": 1000,
    "layers": "256,128",
    "batch_size": 100,
    "epochs": 10,
}
DIGITS: Final[dict[str, Any]] = _PLAIN | {
    "dataset": "digits",
    "test_fraction": 0.2,
    "split_seed": 0,
    "layers": "128,64",
    "batch_size": 32,
    "epochs": 10,
}

NLL: Final = Metric("training nll", "train/nll", "lower", "relative cut", epochs=10)
ERROR: Final = Metric("training error", "train/error", "lower", "cut of the mean", epochs=10)
ACCURACY: Final = Metric("accuracy", "forward/accuracy", "higher", "points")
CENTROID: Final = Metric("centroid error", "backward/centroid_error", "lower", "relative cut")

NEM_KINDS: Final = ("nem", "blind", "anti", "drift")


def noise(kind: str, **more: Any) -> dict[str, Any]:
    """Return the overrides of noise on the target of the forward direction."""
    return {
        "noise": kind,
        "noise_target": "forward",
        "noise_std": 0.1,
        "noise_decay": 1.0,
        "noise_clock": "epoch",
        "noise_law": "gaussian",
        "noise_mode": "additive",
        "noise_screening": "auto",
        "noise_rejected": "reflect",
        "noise_update": "exact",
    } | more


def against(
    baseline: str, arms: tuple[Arm, ...], metric: Metric, margin: float
) -> tuple[Comparison, ...]:
    """Return the controls' comparisons with a baseline, untuned and tuned."""
    return tuple(
        Comparison(f"{arm.name}, {rate} rate, {metric.name}", arm.name, baseline, metric.name,
                   rate, margin=margin)
        for rate in ("same", "tuned")
        for arm in arms
    )  # fmt: skip
