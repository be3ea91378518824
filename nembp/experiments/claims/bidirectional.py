"""Bidirectional against unidirectional training: accuracy, centroids and robustness."""

from __future__ import annotations

from typing import Any

from nembp.experiments.claims.common import (
    ACCURACY,
    CENTROID,
    CIFAR,
    DIGITS,
    MNIST,
    NN_2019,
    both_rates,
    tuning,
)
from nembp.experiments.protocol import Arm, Metric, Protocol, Tuning

WORDS = {
    "gaussian": "Gaussian noise on the pixels",
    "mask": "a mask on half of the pixels",
    "fgsm": "fast-gradient attacks",
    "pgd": "projected-gradient attacks",
}
ON_GREY = ("gaussian:0.5", "mask:0.5", "fgsm:0.1", "pgd:0.1")
FINE = tuning(ACCURACY, strengths=(1.0,))
COARSE = tuning(ACCURACY, strengths=(1.0,), seeds=2, refine=0)
# of a centroid's length; the mean of all images is off by 0.48 (MNIST), 0.40 (digits), 0.13 (CIFAR)
CLOSE = 0.1
ON_COLOUR = ("gaussian:0.1", "fgsm:0.02")


def _protocol(
    name: str,
    base: dict[str, Any],
    where: str,
    weights: tuple[float, ...],
    perturbations: tuple[str, ...] = ON_GREY,
    tuning: Tuning = FINE,
) -> Protocol:
    """Return a protocol with a backward weight that costs no accuracy, and perhaps one larger."""
    robust = [Metric(text, f"robustness/{text}", "higher", "points") for text in perturbations]
    arms = [
        Arm(name, {"backward": "gaussian", "backward_weight": weight})
        for name, weight in zip(("b-bp", "b-bp, heavy"), weights, strict=False)
    ]
    return Protocol(
        name=name,
        title=f"Bidirectional training, {where}",
        source=f"{NN_2019} (tables not at hand)",
        base=base | {"optimizer": "adam", "learning_rate": 0.001},
        arms=(Arm("bp"), *arms),
        metrics=(ACCURACY, CENTROID, *robust),
        comparisons=(
            *both_rates("accuracy", "b-bp", "bp", ACCURACY,
                        "B-BP classifies better than BP", margin=0.1),
            *both_rates("centroids", "b-bp", "bp", CENTROID,
                        "B-BP's backward pass estimates the class centroids", margin=10.0,
                        reach=CLOSE),
            *(
                item
                for metric in robust
                for item in both_rates(
                    metric.name, "b-bp", "bp", metric,
                    f"B-BP resists {WORDS[metric.name.split(':')[0]]} better than BP",
                )
            ),
            *(
                (
                    *both_rates("accuracy, heavy", "b-bp, heavy", "bp", ACCURACY, margin=0.1),
                    *both_rates("centroids, heavy", "b-bp, heavy", "b-bp", CENTROID,
                                margin=10.0)[:1],
                )
                if len(weights) > 1
                else ()
            ),
        ),
        tuning=tuning,
        resample="limit" in base,
        perturbations=perturbations,
        small={"limit": 200, "epochs": 2},
    )  # fmt: skip


PROTOCOLS = (
    _protocol(
        "bidirectional",
        MNIST | {"limit": 5000},
        "dense network, 5000 images of MNIST",
        (0.1, 1.0),
    ),
    _protocol(
        "bidirectional-digits",
        DIGITS | {"epochs": 40, "schedule": "cosine"},
        "dense network, scikit-learn's digits",
        (0.3, 3.0),
    ),
    _protocol(
        "bidirectional-cifar10",
        CIFAR | {"limit": 2000, "epochs": 3},
        "convolutional network, 2000 images of CIFAR-10",
        (0.001,),
        ON_COLOUR,
        COARSE,  # a replicate takes seconds
    ),
)
