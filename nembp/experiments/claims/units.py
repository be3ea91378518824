"""Logistic against rectified hidden units, with noise at the output and in the hidden layers."""

from __future__ import annotations

from typing import Any

from nembp.experiments.claims.common import (
    ACCURACY,
    CLEAN,
    COARSE,
    MNIST,
    NN_2019,
    NN_2020,
    both_rates,
    noise,
    tuning,
)
from nembp.experiments.protocol import Arm, Protocol

UNITS: dict[str, dict[str, Any]] = {
    "relu": {"activation": "relu", "learning_rate": 0.1},
    "logistic": {"activation": "logistic", "learning_rate": 0.5},
}
STD = {"relu": 0.1, "logistic": 1.0}  # of hidden noise; rectified signals have no bound
ARMS = tuple(
    arm
    for name, unit in UNITS.items()
    for arm in (
        Arm(name, unit),
        Arm(f"{name}, output", unit | noise("nem")),
        Arm(
            f"{name}, hidden",
            unit | noise("nem", noise_place="last-hidden", noise_std=STD[name]),
        ),
    )
)

PROTOCOLS = (
    Protocol(
        name="units",
        title="Logistic and rectified units, dense network, 1000 images of MNIST",
        source=f"{NN_2019}; {NN_2020}",
        base=MNIST | {"epochs": 15},
        arms=ARMS,
        metrics=(CLEAN, ACCURACY),
        comparisons=(
            *both_rates("relu against logistic", "relu", "logistic", CLEAN,
                        "Rectified units learn faster than logistic ones"),
            *(
                item
                for name in UNITS
                for place in ("output", "hidden")
                for item in both_rates(
                    f"{name}, {place}", f"{name}, {place}", name, CLEAN,
                    f"NEM noise ({place}) speeds the training of {name} units",
                )
            ),
            *(
                item
                for name in UNITS
                for item in both_rates(
                    f"{name}, accuracy", f"{name}, hidden", name, ACCURACY, margin=0.1
                )
            ),
        ),
        tuning=tuning(CLEAN, strengths=COARSE, seeds=2),
        resample=True,
        small={"limit": 200, "epochs": 2},
    ),
)  # fmt: skip
