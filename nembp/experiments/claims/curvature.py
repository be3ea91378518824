"""Noise on targets that is matched to the likelihood's curvature, against plain noise and none."""

from __future__ import annotations

from typing import Any

from nembp.experiments.claims.common import (
    ACCURACY,
    DIGITS,
    MNIST,
    against_blind,
    both_rates,
    noise,
    tuning,
)
from nembp.experiments.parts import Metric
from nembp.experiments.protocol import Arm, Protocol

AREA = Metric("clean training nll", "train/clean_nll", "lower", "cut of the mean")
SHAPED = {"noise_law": "curvature", "noise_std": 0.3}
NETWORK = {"layers": "128,64", "batch_size": 50, "epochs": 15, "learning_rate": 0.2}
WHAT = "NEM noise matched to the curvature, on the targets,"


def _protocol(name: str, base: dict[str, Any], where: str) -> Protocol:
    return Protocol(
        name=name,
        title=f"NEM noise on the targets, plain or matched to the curvature, {where}",
        source="nembp's own noise",
        base=base | NETWORK,
        arms=(
            Arm("none"),
            Arm("plain", noise("nem")),
            Arm("curvature", noise("nem", **SHAPED)),
            Arm("blind", noise("blind", **SHAPED)),
        ),
        metrics=(AREA, ACCURACY),
        comparisons=(
            *both_rates("nll", "curvature", "none", AREA, f"{WHAT} cuts training cross-entropy"),
            *both_rates("accuracy", "curvature", "none", ACCURACY, f"{WHAT} raises test accuracy",
                        margin=0.1),
            *both_rates("plain", "curvature", "plain", AREA,
                        f"{WHAT} trains faster than plain NEM noise there"),
            *against_blind("blind", "curvature", "blind", AREA,
                           f"{WHAT} does more good than blind noise of its kind"),
        ),
        tuning=tuning(AREA, strengths=(1.0,), seeds=2, refine=0),
        resample="limit" in base,
        small={"limit": 200, "epochs": 2},
    )  # fmt: skip


PROTOCOLS = (
    _protocol("curvature", MNIST, "1000 images of MNIST"),
    _protocol("curvature-digits", DIGITS, "scikit-learn's digits"),
)
