"""Small and large training sets: where the noise benefit is said to be most pronounced."""

from __future__ import annotations

from nembp.experiments.claims.common import (
    ACCURACY,
    CNN_2016,
    MNIST,
    NLL,
    both_rates,
    noise,
    tuning,
)
from nembp.experiments.protocol import Arm, Comparison, Protocol

SIZES = (200, 500, 1000, 5000)
ARMS = tuple(
    arm
    for n in SIZES
    for arm in (
        Arm(f"none {n}", {"limit": n}),
        Arm(f"nem {n}", {"limit": n, **noise("nem")}),
    )
)

PROTOCOLS = (
    Protocol(
        name="set-size",
        title="NEM noise at the output, dense network, 200 to 5000 images of MNIST",
        source=CNN_2016,
        base=MNIST,
        arms=ARMS,
        metrics=(NLL, ACCURACY),
        comparisons=(
            *both_rates("small minus large", "nem 200", "none 200", NLL,
                        "The noise benefit is larger for 200 images than for 5000",
                        minus=("nem 5000", "none 5000")),
            *(
                item
                for n in SIZES
                for item in both_rates(f"n = {n}", f"nem {n}", f"none {n}", NLL)
            ),
            # 'a smaller random sample gives the same or better performance'
            Comparison("half as many, with noise", "nem 500", "none 1000", ACCURACY.name, "tuned"),
            Comparison("accuracy, n = 200", "nem 200", "none 200", ACCURACY.name, "tuned"),
        ),
        tuning=tuning(NLL),
        resample=True,
        small={"limit": 200, "epochs": 2},
    ),
)  # fmt: skip
