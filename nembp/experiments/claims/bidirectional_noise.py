"""NEM noise in the forward, the backward and both directions of bidirectional training."""

from __future__ import annotations

from typing import Any

from nembp.experiments.claims.common import (
    ACCURACY,
    CENTROID,
    CIFAR,
    COARSE,
    DIGITS,
    MNIST,
    NLL,
    NN_2019,
    against_blind,
    both_rates,
    noise,
    tuning,
)
from nembp.experiments.protocol import Arm, Metric, Protocol

DIRECTIONS = ("forward", "backward", "both")


def _arms(**more: Any) -> tuple[Arm, ...]:
    nem = [Arm(where, noise("nem", noise_target=where, **more)) for where in DIRECTIONS]
    blind = [
        Arm(f"blind, {where}", noise("blind", noise_target=where, **more))
        for where in DIRECTIONS[1:]
    ]
    return (Arm("none"), *nem, *blind, Arm("bp", {"backward": "none"}))


WORDS = {
    "forward": "the forward direction",
    "backward": "the backward direction",
    "both": "both directions",
}
ALL = (NLL, ACCURACY, CENTROID)
MARGINS = {"training nll": 1.0, "accuracy": 0.1, "centroid error": 1.0}
CLAIMS = (
    (NLL, "speeds B-BP (training cross-entropy)"),
    (ACCURACY, "raises B-BP's accuracy"),
    (CENTROID, "brings B-BP's backward pass closer to the centroids"),
)


def _protocol(
    name: str,
    base: dict[str, Any],
    where: str,
    tuned: tuple[Metric, ...] = ALL,
    blind_tuned: bool = True,
    **more: Any,
) -> Protocol:
    """Return a protocol; arms are tuned by, and then compared by, the metrics in ``tuned``."""
    settings: dict[str, Any] = {
        "tuning": tuning(NLL),
        "small": {"limit": 200, "epochs": 2},
        "arms": _arms(),
    }
    return Protocol(
        name=name,
        title=f"NEM noise in bidirectional training, {where}",
        source=f"{NN_2019} (tables not at hand)",
        base=base,
        metrics=(NLL, ACCURACY, CENTROID),
        comparisons=(
            *(
                item
                for metric, what in CLAIMS
                for direction in DIRECTIONS
                for item in both_rates(
                    f"{metric.name}, {direction}", direction, "none", metric,
                    f"NEM noise in {WORDS[direction]} {what}", margin=MARGINS[metric.name],
                )[: 2 if metric in tuned else 1]
            ),
            *(
                item
                for direction in ("backward", "both")
                for item in against_blind(
                    f"{direction} against blind", direction, f"blind, {direction}", NLL
                )
                if item.rate == "same" or blind_tuned
            ),
            *both_rates("b-bp against bp", "none", "bp", NLL),
        ),
        resample="limit" in base,
        **(settings | more),
    )  # fmt: skip


B_BP = {"backward": "gaussian", "backward_weight": 0.03}
PROTOCOLS = (
    _protocol("bidirectional-noise", MNIST | B_BP, "dense network, 1000 images of MNIST"),
    _protocol(  # as `nembp train` would: Adam learns the backward direction too in so few steps
        "bidirectional-noise-adam",
        MNIST | B_BP | {"optimizer": "adam", "learning_rate": 0.001, "backward_weight": 0.1},
        "dense network trained by Adam, 1000 images of MNIST",
        arms=_arms(noise_clock="iteration"),
        tuning=tuning(NLL, strengths=COARSE, seeds=2),
    ),
    _protocol(
        "bidirectional-noise-digits",
        DIGITS | B_BP | {"backward_weight": 0.3, "epochs": 15},
        "dense network, scikit-learn's digits",
        tuning=tuning(NLL, strengths=COARSE, seeds=2),
    ),
    _protocol(
        "bidirectional-noise-cifar10",
        CIFAR | B_BP | {"backward_weight": 0.001, "epochs": 5},
        "convolutional network, 1000 images of CIFAR-10",
        tuned=(NLL,),  # a replicate takes seconds
        blind_tuned=False,
        tuning=tuning(NLL, strengths=(1.0,), seeds=2, refine=0),
    ),
)
