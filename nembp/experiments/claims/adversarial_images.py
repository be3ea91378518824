"""Adversarial networks of images: bidirectional players, and NEM noise in them.

Networks and trainings are as small as lets a claim run on one core in minutes, far from published
sizes: what is compared are arms at equal sizes, at the same learning rate and each at its own best.
The rate that arms have in common is near the plain game's best (seen on other seeds). The judge of
what they make is nembp's own classifier of real images.

The published claims are of bidirectional discriminators; that a bidirectional generator does more
is ours. ``gan-mnist-collapse`` is a game that a plain generator loses: its discriminator has one
hidden layer of 32. The control beside permuted targets is there the best remedy known, a
discriminator three times as fast (``fast``; Heusel and others, NIPS 2017).
"""

from __future__ import annotations

from typing import Any, Final

from nembp.experiments.claims.common import NN_2019, against_blind, both_rates
from nembp.experiments.claims.games import BALANCE, CLASSES, DISTANCE, GAME, ICMLA, SCORE
from nembp.experiments.protocol import Arm, Comparison, Protocol, Tuning

_COMMON: Final[dict[str, Any]] = GAME | {
    "latent": 16,
    "batch_size": 32,
    "discriminator_activation": "leaky-relu",
    "checkpoints": 4,
    "scored_samples": 2000,
}
VANILLA: Final[dict[str, Any]] = _COMMON | {
    "learning_rate": 0.004,
    "discriminator_rate": 0.004,
    "iterations": 1000,  # early enough that a part of the classes is missing
}
WASSERSTEIN: Final[dict[str, Any]] = _COMMON | {
    "kind": "wasserstein",
    "critic_steps": 5,
    "optimizer": "rmsprop",
    "momentum": None,
    "decay": 0.9,
    "learning_rate": 0.002,
    "discriminator_rate": 0.002,
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


GENERATOR: Final[dict[str, Any]] = {
    "bidirectional": "generator",
    "generator_weight": 1.0,
    "weight_schedule": "cosine",
    "backward_flow": True,
}
# A clipped critic's gradient is about a hundredth of a discriminator's, and so is the weight.
BESIDE_CRITIC: Final[dict[str, Any]] = GENERATOR | {"generator_weight": 0.01}


def _bidirectional(weight: float) -> dict[str, Any]:
    return {"bidirectional": "discriminator", "discriminator_weight": weight}


def _protocol(name: str, title: str, base: dict[str, Any], **more: Any) -> Protocol:
    tuning: dict[str, Any] = {"factors": (0.5, 1.0, 2.0), "seeds": (1000, 1001), "extend": 4}
    tuning |= more.pop("tuning", {})
    return Protocol(
        name=name,
        title=title,
        kind="gan",
        base=base,
        metrics=(SCORE, CLASSES, BALANCE, DISTANCE),
        tuning=Tuning(SCORE.name, **tuning),
        small=SMALL,
        **more,
    )


def _players(
    name: str,
    where: str,
    base: dict[str, Any],
    weight: float,
    published: float,
    generator: dict[str, Any],
) -> Protocol:
    """Return the protocol of a game with either player bidirectional, or with neither."""
    return _protocol(
        name,
        f"Bidirectional players, {where}",
        base,
        source=f"{ICMLA}; the generator: nembp",
        arms=(
            Arm("plain"),
            Arm("discriminator", _bidirectional(weight)),
            Arm("permuted", _bidirectional(weight) | {"backward_permuted": True}),
            Arm("generator", generator),
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
            *both_rates("generator", "generator", "plain", SCORE,
                        "A bidirectional generator raises the inception score"),
            Comparison("generator's fréchet distance", "generator", "plain", DISTANCE.name, "tuned",
                       "A bidirectional generator draws nearer to the data (Fréchet)"),
            Comparison("fréchet distance", "discriminator", "plain", DISTANCE.name),
        ),
    )  # fmt: skip


def _collapse() -> Protocol:
    """Return the protocol of a game that a plain generator loses."""
    faster = {"discriminator_rate": 3 * VANILLA["learning_rate"]}
    return _protocol(
        "gan-mnist-collapse",
        "Bidirectional generator, vanilla game, dense, MNIST, a weak discriminator",
        VANILLA | MNIST | {"discriminator": "32"},
        source="nembp",
        arms=(
            Arm("plain"),
            Arm("generator", GENERATOR),
            Arm("permuted", GENERATOR | {"backward_permuted": True}),
            Arm("fast", faster),
        ),
        comparisons=(
            *both_rates("inception score", "generator", "plain", SCORE,
                        "A bidirectional generator raises the inception score"),
            *both_rates("classes", "generator", "plain", CLASSES,
                        "A bidirectional generator covers classes that a plain one loses"),
            *both_rates("meaning", "generator", "permuted", SCORE,
                        "It does more good than one whose backward targets mean nothing"),
            *both_rates("fast", "generator", "fast", SCORE,
                        "It does more good than a discriminator three times as fast"),
            Comparison("class kl", "generator", "plain", BALANCE.name, "tuned", margin=0.05),
            Comparison("fréchet distance", "generator", "plain", DISTANCE.name, "tuned"),
        ),
        tuning={"seeds": (1000, 1001, 1002, 1003)},
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
        tuning={"strengths": (0.3, 1.0)},
    )  # fmt: skip


PROTOCOLS = (
    _players("gan-mnist", "vanilla game, dense, MNIST", VANILLA | MNIST, 0.01, 22.3, GENERATOR),
    _collapse(),
    _players("wgan-mnist", "Wasserstein game, dense, MNIST", WASSERSTEIN | MNIST, 0.001, 4.4,
             BESIDE_CRITIC),
    _players("dcgan-cifar10", "vanilla game, convolutional, CIFAR-10",
             VANILLA | CIFAR | {"discriminator": NORMALIZED}, 0.001, 3.3, GENERATOR),
    _players("wgan-cifar10", "Wasserstein game, convolutional, CIFAR-10",
             WASSERSTEIN | CIFAR | {"discriminator": CONVOLUTIONAL, "iterations": 60}, 0.001, 10.0,
             BESIDE_CRITIC),
    _noisy("gan-noise", "vanilla game, dense, MNIST", VANILLA | MNIST, 0.01,
           "discriminator/forward"),
    _noisy("wgan-noise", "Wasserstein game, dense, MNIST", WASSERSTEIN | MNIST, 0.001,
           "critic/input"),
)  # fmt: skip
