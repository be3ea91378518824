"""How fast the noise is annealed: by epoch or by iteration."""

from __future__ import annotations

from nembp.experiments.claims.common import (
    CNN_2016,
    COARSE,
    ERROR,
    MNIST,
    NLL,
    both_rates,
    noise,
    tuning,
)
from nembp.experiments.protocol import Arm, Protocol

ARMS = (
    Arm("none"),
    Arm("epoch", noise("nem")),
    Arm("epoch, slower", noise("nem", noise_decay=0.5)),
    Arm("iteration", noise("nem", noise_clock="iteration")),
    Arm("constant", noise("nem", noise_decay=0.0)),
    Arm("blind, epoch", noise("blind")),
)
CUT = "cuts early training cross-entropy"

PROTOCOLS = (
    Protocol(
        name="annealing",
        title="Annealing of NEM noise at the output, dense network, 1000 images of MNIST",
        source=CNN_2016,
        base=MNIST,
        arms=ARMS,
        metrics=(NLL, ERROR),
        comparisons=(
            *both_rates("epoch", "epoch", "none", NLL, f"NEM noise annealed by epoch {CUT}", 39.0),
            *both_rates("iteration", "iteration", "none", NLL,
                        f"NEM noise annealed by iteration {CUT}", 39.0),
            *both_rates("iteration against epoch", "iteration", "none", NLL,
                        "Annealing by iteration keeps more of the benefit than by epoch",
                        minus=("epoch", "none")),
            *both_rates("iteration against epoch, directly", "iteration", "epoch", NLL),
            *both_rates("slower", "epoch, slower", "epoch", NLL),
            *both_rates("constant", "constant", "none", NLL),
            *both_rates("blind", "epoch", "blind, epoch", NLL),
        ),
        tuning=tuning(NLL, strengths=COARSE, seeds=2),
        resample=True,
        small={"limit": 200, "epochs": 2},
    ),
)  # fmt: skip
