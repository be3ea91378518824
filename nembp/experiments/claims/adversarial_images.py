"""Adversarial networks of images: bidirectional discriminators and NEM noise in them.

Networks and trainings are as small as lets a claim run on one core in minutes, far from published
sizes: what is compared are arms at equal sizes, at the same learning rate and each at its own best.
The judge of what they make is nembp's own classifier of real images.
"""

from __future__ import annotations

from typing import Any, Final

from nembp.experiments.claims.common import NN_2019, against_blind, both_rates
from nembp.experiments.claims.games import BALANCE, DISTANCE, GAME, ICMLA, SCORE
from nembp.experiments.protocol import Arm, Comparison, Protocol, Tuning

_PLAYERS: Final[dict[str, Any]] = GAME | {
    "latent": 16,
    "batch_size": 32,
    "discriminator_activation": "leaky-relu",
    "checkpoints": 4,
    "scored_samples": 2000,
}
VANILLA: Final[dict[str, Any]] = _PLAYERS | {
    "learning_rate": 0.002,
    "discriminator_rate": 0.002,
    "iterations": 1000,  # early enough that a part of the classes is missing
}
WASSERSTEIN: Final[dict[str, Any]] = _PLAYERS | {
    "kind": "wasserstein",
    "critic_steps": 5,
    "optimizer": "rmsprop",
    "momentum": None,
    "decay": 0.9,
    "learning_rate": 0.001,
    "discriminator_rate": 0.001,
    "iterations": 300,
}
MNIST: Final = {"dataset": "mnist", "generator": "128,256", "discriminator": "256,128"}
CIFAR: Final = {
    "dataset": "cifar10",
    "generator": "512bn,reshape4x4x32,up16x4s2bn,up16x4s2bn",
    "iterations": 200,
}
CONVOLUTIONAL: Final = "conv16x4s2,conv32x4s2,conv32x4s2"
NORMALIZED: Final = "conv16x4s2,conv32x4s2bn,conv32x4s2bn"  # not for a clipped critic
SMALL: Final = {"iterations": 10, "checkpoints": 2, "scored_samples": 200}


def _bidirectional(weight: float) -> dict[str, Any]:
    return {"bidirectional": "discriminator", "discriminator_weight": weight}


def _protocol(name: str, title: str, base: dict[str, Any], **more: Any) -> Protocol:
    return Protocol(
        name=name,
        title=title,
        kind="gan",
        base=base,
        metrics=(SCORE, BALANCE, DISTANCE),
        tuning=Tuning(SCORE.name, (0.5, 1.0, 2.0), (1000, 1001), extend=4, refine=0),
        small=SMALL,
        **more,
    )


def _discriminator(
    name: str, where: str, base: dict[str, Any], weight: float, published: float
) -> Protocol:
    """Return the protocol of a bidirectional discriminator, with the control of its targets."""
    return _protocol(
        name,
        f"Bidirectional discriminator, {where}",
        base,
        source=ICMLA,
        arms=(
            Arm("plain"),
            Arm("discriminator", _bidirectional(weight)),
            Arm("permuted", _bidirectional(weight) | {"backward_permuted": True}),
        ),
        comparisons=(
            *both_rates("inception score", "discriminator", "plain", SCORE,
                        "A bidirectional discriminator raises the inception score", published),
            Comparison("class kl", "discriminator", "plain", BALANCE.name, "same",
                       "A bidirectional discriminator lessens mode collapse (nats)", margin=0.05),
            *both_rates("meaning", "discriminator", "plain", SCORE,
                        "A bidirectional discriminator does more good than one with backward "
                        "targets that mean nothing", minus=("permuted", "plain")),
            *both_rates("permuted", "permuted", "plain", SCORE),
            Comparison("fréchet distance", "discriminator", "plain", DISTANCE.name),
        ),
    )  # fmt: skip


def _noisy(name: str, where: str, base: dict[str, Any], weight: float, place: str) -> Protocol:
    """Return the protocol of noise in a game whose discriminator is bidirectional."""
    return _protocol(
        name,
        f"NEM noise in bidirectional adversarial training, {where}",
        base | _bidirectional(weight),
        source=f"{NN_2019} (tables not at hand)",
        arms=(Arm("none"), *(Arm(kind, {"noise": kind, "noise_place": place})
                             for kind in ("nem", "blind"))),
        comparisons=(
            *both_rates("inception score", "nem", "none", SCORE,
                        "NEM noise raises the inception score of a bidirectional game"),
            Comparison("class kl", "nem", "none", BALANCE.name, "same",
                       "NEM noise lessens the mode collapse of a bidirectional game (nats)",
                       margin=0.05),
            *against_blind("blind", "nem", "blind", SCORE,
                           "NEM noise does more good there than blind noise"),
        ),
    )  # fmt: skip


PROTOCOLS = (
    _discriminator("gan-mnist", "vanilla game, dense, MNIST", VANILLA | MNIST, 0.01, 22.3),
    _discriminator(
        "wgan-mnist", "Wasserstein game, dense, MNIST", WASSERSTEIN | MNIST, 0.001, 4.4
    ),
    _discriminator(
        "dcgan-cifar10",
        "vanilla game, convolutional, CIFAR-10",
        VANILLA | CIFAR | {"discriminator": NORMALIZED},
        0.001,
        3.3,
    ),
    _discriminator(
        "wgan-cifar10",
        "Wasserstein game, convolutional, CIFAR-10",
        WASSERSTEIN | CIFAR | {"discriminator": CONVOLUTIONAL, "iterations": 60},
        0.001,
        10.0,
    ),
    _noisy(
        "gan-noise", "vanilla game, dense, MNIST", VANILLA | MNIST, 0.01, "discriminator/forward"
    ),
    _noisy("wgan-noise", "Wasserstein game, dense, MNIST", WASSERSTEIN | MNIST, 0.001,
           "critic/input"),
)  # fmt: skip
