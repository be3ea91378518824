"""What the registered protocols share: networks, metrics, noise and its controls.

Networks and training sets are as small as lets a whole claim run on one core in minutes. Noise on
the output is annealed as σ₀ / epoch, σ₀ = 0.1: more makes training by momentum or Adam diverge
(evidence gathered before these protocols were written, on other seeds). ``training nll`` is the
published quantity, per iteration; noise on signals is in it, so such noise is judged by ``clean
training nll``, which is taken after each epoch without any.
"""

from __future__ import annotations

from typing import Any, Final

from nembp.experiments.parts import Comparison, Metric

__all__ = [
    "ACCURACY",
    "CENTROID",
    "CIFAR",
    "CLEAN",
    "CNN_2016",
    "DIGITS",
    "ERROR",
    "MNIST",
    "NEM_KINDS",
    "NLL",
    "NN_2019",
    "NN_2020",
    "both_rates",
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
CIFAR: Final[dict[str, Any]] = _PLAIN | {
    "dataset": "cifar10",
    "limit": 1000,
    "layers": "conv16x4s2,conv32x4s2,conv64x4s2",
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
CLEAN: Final = Metric("clean training nll", "train/clean_nll", "lower", "relative cut", epochs=10)
ERROR: Final = Metric("training error", "train/error", "lower", "cut of the mean", epochs=10)
ACCURACY: Final = Metric("accuracy", "forward/accuracy", "higher", "points")
CENTROID: Final = Metric("centroid error", "backward/centroid_error", "lower", "relative cut")

NEM_KINDS: Final = ("nem", "blind", "anti", "drift")


def noise(kind: str, **more: Any) -> dict[str, Any]:
    """Return the overrides of noise on the target of the forward direction."""
    return {
        "noise": kind,
        "noise_target": "forward",
        "noise_place": "target",
        "noise_std": 0.1,
        "noise_decay": 1.0,
        "noise_clock": "epoch",
        "noise_law": "gaussian",
        "noise_mode": "additive",
        "noise_screening": "auto",
        "noise_rejected": "reflect",
        "noise_update": "exact",
    } | more


def both_rates(
    name: str,
    arm: str,
    baseline: str,
    metric: Metric,
    claim: str = "",
    published: float | None = None,
    margin: float = 1.0,
    minus: tuple[str, str] | None = None,
) -> tuple[Comparison, Comparison]:
    """Return a comparison at the same learning rate, and one with each arm's tuned."""
    tuned = f"{claim}, each arm's learning rate tuned" if claim else ""
    rest = (published, margin, minus)
    return (
        Comparison(name, arm, baseline, metric.name, "same", claim, *rest),
        Comparison(f"{name}, tuned", arm, baseline, metric.name, "tuned", tuned, *rest),
    )
