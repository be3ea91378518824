"""Bidirectional against unidirectional training: accuracy, centroids and robustness."""

from __future__ import annotations

from typing import Any

from nembp.experiments.claims.common import ACCURACY, CENTROID, DIGITS, MNIST, NN_2019, both_rates
from nembp.experiments.protocol import Arm, Metric, Protocol, Tuning

PERTURBATIONS = {
    "gaussian:0.5": "Gaussian noise on the pixels",
    "mask:0.5": "a mask on half of the pixels",
    "fgsm:0.1": "fast-gradient attacks",
    "pgd:0.1": "projected-gradient attacks",
}
ROBUST = tuple(Metric(text, f"robustness/{text}", "higher", "points") for text in PERTURBATIONS)
# Adam's weight on the backward direction: what costs no accuracy, and the plain sum of pixels
ARMS = (
    Arm("bp"),
    Arm("b-bp", {"backward": "gaussian", "backward_weight": 0.1}),
    Arm("b-bp, weight 1", {"backward": "gaussian", "backward_weight": 1.0}),
)


def _protocol(name: str, base: dict[str, Any], where: str, weight: float) -> Protocol:
    arms = (ARMS[0], Arm("b-bp", {"backward": "gaussian", "backward_weight": weight}), ARMS[2])
    return Protocol(
        name=name,
        title=f"Bidirectional training, {where}",
        source=f"{NN_2019} (tables not at hand)",
        base=base | {"optimizer": "adam", "learning_rate": 0.001},
        arms=arms,
        metrics=(ACCURACY, CENTROID, *ROBUST),
        comparisons=(
            *both_rates("accuracy", "b-bp", "bp", ACCURACY,
                        "B-BP classifies better than BP", margin=0.1),
            *both_rates("centroids", "b-bp", "bp", CENTROID,
                        "B-BP's backward pass estimates the class centroids", margin=10.0),
            *(
                item
                for metric in ROBUST
                for item in both_rates(
                    metric.name, "b-bp", "bp", metric,
                    f"B-BP resists {PERTURBATIONS[metric.name]} better than BP",
                )
            ),
            *both_rates("accuracy, weight 1", "b-bp, weight 1", "bp", ACCURACY, margin=0.1),
            *both_rates("centroids, weight 1", "b-bp, weight 1", "b-bp", CENTROID, margin=10.0),
        ),
        tuning=Tuning(ACCURACY.name, (0.5, 1.0, 2.0, 4.0), (1000, 1001)),
        resample="limit" in base,
        perturbations=tuple(PERTURBATIONS),
        small={"limit": 200, "epochs": 2},
    )  # fmt: skip


PROTOCOLS = (
    _protocol("bidirectional", MNIST | {"limit": 5000}, "dense network, 5000 images of MNIST", 0.1),
    _protocol(
        "bidirectional-digits",
        DIGITS | {"epochs": 40, "schedule": "cosine"},
        "dense network, scikit-learn's digits",
        0.3,
    ),
)
