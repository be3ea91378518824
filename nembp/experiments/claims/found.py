"""What the search found, put to the test: noise in all hidden layers of deep logistic networks.

`nembp experiment search` looks at validation splits of MNIST subsets, on seeds of its own. These
protocols were declared with what it found, before they were run: on fresh seeds, test splits and
data that was not searched on. A finding *pays* where, with each arm's learning rate tuned, the cut
of the training cross-entropy, the gain of accuracy and the benefit beyond blind noise's are all
reproduced, on MNIST and on data not searched on. Whether it pays against the best network without
noise, rectified and trained by Adam, is a claim of its own.
"""

from __future__ import annotations

from typing import Any

from nembp.experiments.claims.common import (
    ACCURACY,
    CIFAR,
    DIGITS,
    MNIST,
    against_blind,
    both_rates,
    noise,
    tuning,
)
from nembp.experiments.protocol import Arm, Comparison, Metric, Protocol

SOURCE = "nembp's own search"
# the area under the curve of the clean cross-entropy: epochs near 0 do not outweigh the others
AREA = Metric("clean training nll", "train/clean_nll", "lower", "cut of the mean")
HIDDEN = noise("nem", noise_place="hidden", noise_std=1.0, noise_decay=1.0, noise_clock="epoch")
BEST = {"activation": "relu", "optimizer": "adam", "learning_rate": 0.003}
CUT = "NEM noise in all hidden layers cuts training cross-entropy"
MORE = "NEM noise in all hidden layers raises test accuracy"
BLIND = "NEM noise in all hidden layers does more good than blind noise there"
ANY = "with it, the network trains faster than a rectified one by Adam without noise"
SURE = "with it, the network is more accurate than a rectified one by Adam without noise"


def _protocol(name: str, base: dict[str, Any], where: str) -> Protocol:
    kinds = ("nem", "blind", "anti", "drift")
    return Protocol(
        name=name,
        title=f"NEM noise in all hidden layers, {where}",
        source=SOURCE,
        base=base,
        arms=(
            Arm("none"),
            *(Arm(kind, HIDDEN | {"noise": kind}) for kind in kinds),
            Arm("relu", BEST),
        ),
        metrics=(AREA, ACCURACY),
        comparisons=(
            *both_rates("nll", "nem", "none", AREA, CUT),
            *both_rates("accuracy", "nem", "none", ACCURACY, MORE, margin=0.1),
            *against_blind("blind", "nem", "blind", AREA, BLIND),
            Comparison("nll, best units", "nem", "relu", AREA.name, "tuned", ANY),
            Comparison("accuracy, best units", "nem", "relu", ACCURACY.name, "tuned", SURE,
                       margin=0.1),
            Comparison("anti alone", "anti", "none", AREA.name),
            Comparison("drift alone", "drift", "none", AREA.name),
            Comparison("nem against its drift", "nem", "drift", AREA.name),
        ),
        tuning=tuning(AREA, strengths=(1.0,), seeds=2, refine=0),
        resample="limit" in base,
        small={"limit": 200, "epochs": 2},
    )  # fmt: skip


SGD = {"activation": "logistic", "layers": "128,128,128", "optimizer": "sgd",
       "learning_rate": 1.0, "batch_size": 25, "epochs": 15}  # fmt: skip
ADAM = {"activation": "logistic", "layers": "128,128,128,128,128", "optimizer": "adam",
        "learning_rate": 0.01, "batch_size": 100, "epochs": 15}  # fmt: skip
DATA = (
    ("", MNIST | {"limit": 1000}, "1000 images of MNIST"),
    ("-digits", DIGITS, "scikit-learn's digits"),
    ("-cifar10", CIFAR | {"limit": 1000}, "1000 images of CIFAR-10"),
)
PROTOCOLS = tuple(
    _protocol(f"found-{name}{suffix}", base | network, f"{what}, {where}")
    for name, network, what in (
        ("deep-logistic", SGD, "3 logistic layers by gradient descent"),
        ("deeper-logistic-adam", ADAM, "5 logistic layers by Adam"),
    )
    for suffix, base, where in DATA
)
