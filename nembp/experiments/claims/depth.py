"""Deep networks: does the noise help more where there are more layers to learn."""

from __future__ import annotations

from nembp.experiments.claims.common import CLEAN, COARSE, MNIST, NN_2020, both_rates, noise, tuning
from nembp.experiments.protocol import Arm, Protocol

DEPTHS = (1, 3, 5)


def _layers(depth: int) -> dict[str, str]:
    return {"layers": ",".join(["128"] * depth)}


ARMS = tuple(
    arm
    for depth in DEPTHS
    for arm in (
        Arm(f"none {depth}", _layers(depth)),
        Arm(f"output {depth}", _layers(depth) | noise("nem")),
        Arm(f"hidden {depth}", _layers(depth) | noise("nem", noise_place="hidden")),
    )
)

PROTOCOLS = (
    Protocol(
        name="depth",
        title="NEM noise in deep networks, 1, 3 or 5 hidden layers, 1000 images of MNIST",
        source=NN_2020,
        base=MNIST,
        arms=ARMS,
        metrics=(CLEAN,),
        comparisons=(
            *both_rates("output, 5 layers", "output 5", "none 5", CLEAN,
                        "NEM noise at the output speeds the training of 5 hidden layers"),
            *both_rates("hidden, 5 layers", "hidden 5", "none 5", CLEAN,
                        "NEM noise in the hidden layers speeds the training of 5 of them"),
            *both_rates("deep minus shallow", "output 5", "none 5", CLEAN,
                        "The benefit of noise at the output is larger for 5 hidden layers than 1",
                        minus=("output 1", "none 1")),
            *(
                item
                for place in ("output", "hidden")
                for depth in DEPTHS[:-1]
                for item in both_rates(
                    f"{place}, {depth}", f"{place} {depth}", f"none {depth}", CLEAN
                )
            ),
        ),
        tuning=tuning(CLEAN, strengths=COARSE, seeds=2),
        resample=True,
        small={"limit": 200, "epochs": 2},
    ),
)  # fmt: skip
