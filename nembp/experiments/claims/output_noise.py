"""NEM noise at the output neurons: its speed-up beside blind noise and learning rates."""

from __future__ import annotations

from typing import Any

from nembp.experiments.claims.common import (
    CNN_2016,
    COARSE,
    DIGITS,
    ERROR,
    MNIST,
    NEM_KINDS,
    NLL,
    NN_2020,
    against_blind,
    both_rates,
    noise,
    tuning,
)
from nembp.experiments.protocol import Arm, Comparison, Protocol

ARMS = (
    Arm("none"),
    *(Arm(kind, noise(kind)) for kind in NEM_KINDS),
    Arm("published", noise("nem", noise_update="published")),
)
CUT = "NEM noise at the output cuts early training cross-entropy"
ERRORS = "NEM noise at the output cuts early training error"
BLIND = "NEM noise at the output does more good than blind noise"
BELOW = "Noise from below the NEM hyperplane does more harm than blind noise"
COMPARISONS = (
    *both_rates("nll", "nem", "none", NLL, CUT, 39.0),
    Comparison("nll, published update", "published", "none", NLL.name, "same",
               f"{CUT}, by the update a - (t + n)", 39.0),
    *both_rates("error", "nem", "none", ERROR, ERRORS, 47.0),
    *against_blind("blind", "nem", "blind", NLL, BLIND),
    Comparison("below", "none", "anti", NLL.name, "same", BELOW, minus=("none", "blind")),
    *both_rates("blind noise alone", "blind", "none", NLL),
    *both_rates("drift alone", "drift", "none", NLL),
    Comparison("nem against its drift", "nem", "drift", NLL.name, "same"),
)  # fmt: skip


def _protocol(name: str, base: dict[str, Any], where: str, **more: Any) -> Protocol:
    settings: dict[str, Any] = {
        "arms": ARMS,
        "tuning": tuning(NLL),
        "resample": "limit" in base,
        "small": {"limit": 200, "epochs": 2},
    }
    return Protocol(
        name=name,
        title=f"NEM noise at the output neurons, {where}",
        source=f"{CNN_2016}; {NN_2020}",
        base=base,
        metrics=(NLL, ERROR),
        comparisons=COMPARISONS,
        **(settings | more),
    )


PROTOCOLS = (
    _protocol("output-noise", MNIST, "dense network, 1000 images of MNIST"),
    _protocol(
        "output-noise-cnn",
        MNIST | {"layers": "conv8x5s2,conv16x5s2,64"},
        "convolutional network, 1000 images of MNIST",
        tuning=tuning(NLL, strengths=COARSE),  # a replicate takes a second
    ),
    _protocol(
        "output-noise-logistic",
        MNIST | {"activation": "logistic", "learning_rate": 0.5},
        "logistic hidden units, 1000 images of MNIST",
        tuning=tuning(NLL, strengths=COARSE, seeds=2),
    ),
    _protocol(
        "output-noise-adam",
        MNIST | {"optimizer": "adam", "learning_rate": 0.001},
        "dense network trained by Adam, 1000 images of MNIST",
        tuning=tuning(NLL, strengths=COARSE, seeds=2),
    ),
    _protocol("output-noise-digits", DIGITS, "dense network, scikit-learn's digits"),
)
