"""NEM noise inside the network: in hidden layers and at the input, beside the output."""

from __future__ import annotations

from typing import Any

from nembp.experiments.claims.common import (
    ACCURACY,
    CLEAN,
    CNN_2016,
    COARSE,
    MNIST,
    NN_2020,
    against_blind,
    both_rates,
    noise,
    tuning,
)
from nembp.experiments.protocol import Arm, Comparison, Protocol

# logistic units lie in [0, 1], where a first deviation of 1 is much; that of pixels is 0.1
LOGISTIC = MNIST | {"activation": "logistic", "learning_rate": 0.5, "epochs": 15}
CUT = "NEM noise in the last hidden layer cuts early training cross-entropy"
BETTER = "NEM noise in the last hidden layer raises test accuracy"
BLIND = "NEM noise in the last hidden layer does more good than blind noise there"
BELOW = (
    "Noise from below the NEM surface, in the last hidden layer, does more harm than blind noise"
)


def _hidden(kind: str, place: str = "last-hidden", **more: Any) -> Arm:
    return Arm(kind, noise(kind, noise_place=place, noise_std=1.0, **more))


def _protocol(name: str, base: dict[str, Any], where: str, **more: Any) -> Protocol:
    settings: dict[str, Any] = {"tuning": tuning(CLEAN)} | more
    return Protocol(
        name=name,
        title=f"NEM noise in the last hidden layer, {where}, 1000 images of MNIST",
        source=f"{CNN_2016}; {NN_2020}",
        base=base,
        arms=(Arm("none"), *(_hidden(kind) for kind in ("nem", "blind", "anti", "drift"))),
        metrics=(CLEAN, ACCURACY),
        comparisons=(
            *both_rates("nll", "nem", "none", CLEAN, CUT),
            *both_rates("accuracy", "nem", "none", ACCURACY, BETTER, margin=0.1),
            *against_blind("blind", "nem", "blind", CLEAN, BLIND),
            Comparison("below", "none", "anti", CLEAN.name, "same", BELOW,
                       minus=("none", "blind")),
            *both_rates("blind noise alone", "blind", "none", CLEAN),
            *both_rates("drift alone", "drift", "none", CLEAN),
            *both_rates("nem against its drift", "nem", "drift", CLEAN),
        ),
        resample=True,
        small={"limit": 200, "epochs": 2},
        **settings,
    )  # fmt: skip


PLACES = (
    Arm("none"),
    Arm("output", noise("nem")),
    Arm("last hidden", noise("nem", noise_place="last-hidden", noise_std=1.0)),
    Arm("all hidden", noise("nem", noise_place="hidden", noise_std=1.0)),
    Arm("input", noise("nem", noise_place="input")),
    Arm("blind hidden", noise("blind", noise_place="hidden", noise_std=1.0)),
    Arm("blind input", noise("blind", noise_place="input")),
)

PROTOCOLS = (
    _protocol("hidden-noise", LOGISTIC, "logistic units"),
    # where the noise paid most while the engine was a prototype, on other seeds
    _protocol(
        "hidden-noise-fast",
        LOGISTIC | {"learning_rate": 3.0},
        "logistic units at learning rate 3",
        tuning=tuning(CLEAN, strengths=COARSE, seeds=2),
    ),
    _protocol("hidden-noise-relu", MNIST, "rectified units"),
    Protocol(
        name="noise-places",
        title="NEM noise anywhere in the network, logistic units, 1000 images of MNIST",
        source=CNN_2016,
        base=LOGISTIC,
        arms=PLACES,
        metrics=(CLEAN, ACCURACY),
        comparisons=(
            *(
                item
                for arm in ("output", "last hidden", "all hidden", "input")
                for item in both_rates(
                    arm, arm, "none", CLEAN,
                    f"NEM noise ({arm}) cuts early training cross-entropy",
                )
            ),
            *against_blind("hidden against blind", "all hidden", "blind hidden", CLEAN),
            *against_blind("input against blind", "input", "blind input", CLEAN),
        ),
        tuning=tuning(CLEAN, strengths=COARSE, seeds=2),
        resample=True,
        small={"limit": 200, "epochs": 2},
    ),
)  # fmt: skip
