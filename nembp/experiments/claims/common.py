"""What the registered protocols share: networks, metrics, noise and its controls.

Networks and training sets are as small as lets a whole claim run on one core in minutes. Noise on
the output is annealed as σ₀ / epoch, σ₀ = 0.1: more makes training by momentum or Adam diverge
(evidence gathered before these protocols were written, on other seeds); tuned arms choose their
learning rate and the strength of their noise. ``training nll`` is the
published quantity, per iteration; noise on signals is in it, so such noise is judged by ``clean
training nll``, which is taken after each epoch without any.
"""

from __future__ import annotations

from typing import Any, Final

from nembp.experiments.parts import Comparison, Metric, Tuning

__all__ = [
    "ACCURACY",
    "CENTROID",
    "CIFAR",
    "CLEAN",
    "CNN_2016",
    "COARSE",
    "DIGITS",
    "ERROR",
    "MNIST",
    "NEM_KINDS",
    "NLL",
    "NN_2019",
    "NN_2020",
    "STRENGTHS",
    "against_blind",
    "both_rates",
    "noise",
    "tuning",
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

STRENGTHS: Final = (0.01, 0.1, 0.3, 1.0)  # of the noise, times the arm's own; 0.01 is next to none
COARSE: Final = (0.01, 0.3, 1.0)
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
    reach: float | None = None,
) -> tuple[Comparison, Comparison]:
    """Return a comparison at the same settings, and one with each arm's tuned."""
    rest = (claim, published, margin, minus, reach)
    return (
        Comparison(name, arm, baseline, metric.name, "same", *rest),
        Comparison(f"{name}, tuned", arm, baseline, metric.name, "tuned", *rest),
    )


def against_blind(
    name: str, arm: str, blind: str, metric: Metric, claim: str = "", none: str = "none"
) -> tuple[Comparison, ...]:
    """Return what settles whether screened noise does more than blind noise.

    The claim is of the benefit over no noise, less blind noise's: that blind noise does harm makes
    no benefit. The plain comparison of the two stands beside it as a control.
    """
    return (
        *both_rates(name, arm, none, metric, claim, minus=(blind, none)),
        *both_rates(f"{name}, directly", arm, blind, metric),
    )


def tuning(
    metric: Metric, *, strengths: tuple[float, ...] = STRENGTHS, seeds: int = 3, refine: int = 1
) -> Tuning:
    """Return how protocols tune: steps of 2, halved by ``refine``, and the noise's strength too."""
    apart = tuple(range(1000, 1000 + seeds))
    return Tuning(metric.name, seeds=apart, refine=refine, strengths=strengths)
