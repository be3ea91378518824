"""Claims about adversarial networks: bidirectional generators and discriminators, and NEM noise.

Images: networks and trainings are so small that a claim runs on one core in minutes, far below
published sizes. Arms of equal size are compared at the same learning rate (near the best of the
plain game, seen on other seeds) and each at its own best. The published claims are about
bidirectional discriminators; those about the generator are ours.

Points in the plane: the grid of 25 modes and the ring of 8 are those of VEEGAN (Srivastava and
others, NIPS 2017) and PacGAN (Lin and others, NeurIPS 2018), with smaller networks. The 24.5 modes
and 80 % of good samples that have to be reached were set before the run.

Controls: a backward direction whose gradient does not flow into the samples (``held``), backward
targets that mean nothing (``permuted``), and a plain game with a discriminator three times as fast
as its generator (``fast``), the best remedy known (Heusel and others, NIPS 2017).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from nembp.experiments.claims.networks import (
    NO_TABLES,
    ONE,
    against_blind,
    best,
    both,
    protocol,
    same,
    tuning,
)
from nembp.experiments.protocol import Comparison, Metric, Protocol, Tuning

# tables, from here on
# fmt: off
ICMLA: Final = "Adigun, Kosko, ICMLA 2018, 1178-1185"

SCORE: Final = Metric("inception score", "inception_score", "higher", "relative rise")
BALANCE: Final = Metric("class kl", "class_kl", "lower", "difference")
CLASSES: Final = Metric("classes, strict", "classes_strict", "higher", "difference")
DISTANCE: Final = Metric("fréchet distance", "frechet_distance", "lower", "relative cut")
RECALL: Final = Metric("recall", "recall", "higher", "points")
MODES: Final = Metric("modes", "modes", "higher", "difference")
STRICT: Final = Metric("modes, strict", "modes_strict", "higher", "difference")
QUALITY: Final = Metric("high quality", "high_quality", "higher", "points")
DIVERGENCE: Final = Metric("kl of modes", "kl", "lower", "difference")

# Complete: a later change of a default must not change a protocol.
GAME: Final[dict[str, Any]] = {
    "kind": "vanilla", "bidirectional": "none", "discriminator_weight": 0.01,
    "generator_weight": 0.5, "weight_schedule": "constant", "weight_until": 1.0,
    "backward_labels": "real", "backward_flow": False, "backward_permuted": False, "classes": False,
    "critic_steps": 1, "clip": 0.03, "penalty_weight": 10.0, "latent_law": "gaussian",
    "latent_std": 1.0, "generator_activation": "relu", "dtype": "float32", "noise": "none",
    "noise_std": 0.1, "noise_decay": 0.0, "noise_schedule": "power", "noise_until": 1.0,
    "noise_law": "gaussian", "noise_mode": "additive", "noise_screening": "auto",
    "noise_rejected": "reflect", "optimizer": "adam", "momentum": 0.5, "decay": 0.999,
    "schedule": "constant", "averaging": 0.0, "averaged": 2, "split_seed": 0,
}


def _rates(both: float) -> dict[str, float]:
    return {"learning_rate": both, "discriminator_rate": both}


CRITIC: Final = {"kind": "wasserstein", "critic_steps": 5, "optimizer": "rmsprop",
                 "momentum": None, "decay": 0.9}
IMAGES: Final = GAME | {"latent": 16, "batch_size": 32, "discriminator_activation": "leaky-relu",
                        "checkpoints": 4, "scored_samples": 2000}
# 1,000 iterations: early enough that some of the classes are missing
VANILLA: Final = IMAGES | _rates(0.004) | {"iterations": 1000}
WASSERSTEIN: Final = IMAGES | CRITIC | _rates(0.002) | {"iterations": 300}
MNIST: Final = {"dataset": "mnist", "generator": "128,256", "discriminator": "256,128"}
CIFAR: Final = {"dataset": "cifar10", "generator": "512bn,reshape4x4x32,up16x4s2bn,up16x4s2bn",
                "discriminator": "conv16x4s2,conv32x4s2bn,conv32x4s2bn", "iterations": 200}
CLIPPED: Final = {"discriminator": "conv16x4s2,conv32x4s2,conv32x4s2", "iterations": 60}
GENERATOR: Final = {"bidirectional": "generator", "generator_weight": 1.0,
                    "weight_schedule": "cosine", "backward_flow": True}
# the gradient of a clipped critic is about a hundredth of a discriminator's, and so is the weight
BESIDE_CRITIC: Final = GENERATOR | {"generator_weight": 0.01}
PERMUTED: Final = {"backward_permuted": True}
ONE_SIDE: Final = {"bidirectional": "generator"}
DISCRIMINATOR: Final = {"bidirectional": "discriminator"}
BINARY: Final = {"latent_law": "binary"}
_tuning = partial(tuning, strengths=ONE, seeds=2, extend=4, factors=(0.5, 1.0, 2.0))
G, D = "A bidirectional generator", "A bidirectional discriminator"
OF_G, OF_D, NEM = ("generator", "plain"), ("discriminator", "plain"), ("nem", "none")

# -- images ----------------------------------------------------------------------------------------
SCORES: Final = (SCORE, CLASSES, BALANCE, DISTANCE)


def _players(name: str, where: str, base: dict[str, Any], weight: float, published: float,
             generator: dict[str, Any]) -> Protocol:
    """Return a game in which the generator, the discriminator or neither is bidirectional."""
    discriminator = DISCRIMINATOR | {"discriminator_weight": weight}
    return protocol(
        name, f"Bidirectional players, {where}", f"{ICMLA}; the generator: nembp", base,
        {"plain": {}, "discriminator": discriminator, "permuted": discriminator | PERMUTED,
         "generator": generator},
        SCORES, _tuning(SCORE),
        both("inception score", *OF_D, SCORE, f"{D} raises the inception score", published),
        same("class kl", *OF_D, BALANCE, f"{D} lessens mode collapse (nats)", margin=0.05),
        both("meaning", *OF_D, SCORE, f"{D} does more good than one with backward targets that "
             "mean nothing", minus=("permuted", "plain")),
        both("permuted", "permuted", "plain", SCORE),
        both("generator", *OF_G, SCORE, f"{G} raises the inception score"),
        best("generator's fréchet distance", *OF_G, DISTANCE,
             f"{G} draws nearer to the data (Fréchet)"),
        same("fréchet distance", *OF_D, DISTANCE),
    )


def _noisy(name: str, where: str, base: dict[str, Any], weight: float, place: str) -> Protocol:
    """Return a game with a bidirectional discriminator, with and without noise."""
    return protocol(
        name, f"NEM noise in bidirectional adversarial training, {where}", NO_TABLES,
        base | DISCRIMINATOR | {"discriminator_weight": weight},
        {"none": {}} | {kind: {"noise": kind, "noise_place": place} for kind in ("nem", "blind")},
        SCORES, _tuning(SCORE, strengths=(0.3, 1.0)),
        both("inception score", *NEM, SCORE,
             "NEM noise raises the inception score of a bidirectional game"),
        same("class kl", *NEM, BALANCE,
             "NEM noise lessens the mode collapse of a bidirectional game (nats)", margin=0.05),
        against_blind("blind", "nem", "blind", SCORE,
                      "NEM noise does more good there than blind noise"),
    )


OF_IMAGES = (
    _players("gan-mnist", "vanilla game, dense, MNIST", VANILLA | MNIST, 0.01, 22.3, GENERATOR),
    protocol(
        "gan-mnist-collapse",
        "Bidirectional generator, vanilla game, dense, MNIST, a weak discriminator", "nembp",
        VANILLA | MNIST | {"discriminator": "32"},
        {"plain": {}, "generator": GENERATOR, "permuted": GENERATOR | PERMUTED,
         "fast": {"discriminator_rate": 3 * VANILLA["learning_rate"]}},
        SCORES, _tuning(SCORE, seeds=4),
        both("inception score", *OF_G, SCORE, f"{G} raises the inception score"),
        both("classes", *OF_G, CLASSES, f"{G} covers classes that a plain one loses"),
        both("meaning", "generator", "permuted", SCORE,
             "It does more good than one whose backward targets mean nothing"),
        both("fast", "generator", "fast", SCORE,
             "It does more good than a discriminator three times as fast"),
        best("class kl", *OF_G, BALANCE, margin=0.05), best("fréchet distance", *OF_G, DISTANCE),
    ),
    _players("wgan-mnist", "Wasserstein game, dense, MNIST", WASSERSTEIN | MNIST, 0.001, 4.4,
             BESIDE_CRITIC),
    _players("dcgan-cifar10", "vanilla game, convolutional, CIFAR-10", VANILLA | CIFAR, 0.001, 3.3,
             GENERATOR),
    _players("wgan-cifar10", "Wasserstein game, convolutional, CIFAR-10",
             WASSERSTEIN | CIFAR | CLIPPED, 0.001, 10.0, BESIDE_CRITIC),
    _noisy("gan-noise", "vanilla game, dense, MNIST", VANILLA | MNIST, 0.01,
           "discriminator/forward"),
    _noisy("wgan-noise", "Wasserstein game, dense, MNIST", WASSERSTEIN | MNIST, 0.001,
           "critic/input"),
)

# -- points in the plane ---------------------------------------------------------------------------
POINTS: Final = GAME | _rates(0.003) | {
    "samples": 50_000, "latent": 12, "latent_law": "binary", "generator": "128,128",
    "discriminator": "128,128", "discriminator_activation": "relu", "weight_schedule": "cosine",
    "backward_flow": True, "clip": 0.1, "penalty_weight": 1.0, "schedule": "cosine",
    "averaging": 0.99, "batch_size": 128, "iterations": 5000, "checkpoints": 10,
    "scored_samples": 2500,
}
OF_POINTS: Final = "nembp; a bidirectional discriminator's: " + ICMLA
MEANING: Final = same("meaning", "generator", "permuted", MODES,
                      "It covers more than one whose backward targets mean nothing")


def _points(name: str, where: str, reach: float, base: dict[str, Any],
            arms: dict[str, dict[str, Any]], refine: int,
            *comparisons: Comparison | tuple[Comparison, ...]) -> Protocol:
    return protocol(
        name, where, OF_POINTS, POINTS | base, {"plain": {}, "generator": ONE_SIDE, **arms},
        (MODES, STRICT, QUALITY),
        _tuning(MODES, factors=(0.25, 0.5, 1.0, 2.0), extend=1, refine=refine),
        both("modes", *OF_G, MODES, f"{G} of binary codes covers modes that a plain one loses",
             reach=reach),
        both("quality", *OF_G, QUALITY, f"{G} of binary codes places its samples in modes",
             reach=0.8),
        *comparisons, same("strict modes", *OF_G, STRICT), quick=(20, 200), seeds=20,
    )


def _no_worse(arm: str, player: str) -> tuple[Comparison, ...]:
    """Return comparisons that settle whether an arm covers fewer modes by half a mode."""
    claim = f"A Wasserstein game with a bidirectional {player} covers as many modes as one without"
    return both(arm, arm, "plain", MODES, claim, within=0.5)


IN_THE_PLANE = (
    _points(
        "gan-grid", "Bidirectional generator, vanilla game, grid of 25 modes", 24.5,
        {"dataset": "grid", "scale": 0.5},
        {"held": ONE_SIDE | {"backward_flow": False}, "permuted": ONE_SIDE | PERMUTED,
         "fast": {"discriminator_rate": 0.009}, "gaussian": ONE_SIDE | {"latent_law": "gaussian"}},
        1,
        both("fast", "generator", "fast", MODES, "It covers more than a plain game whose "
             "discriminator is three times as fast", margin=0.5),
        MEANING,
        same("flow", "generator", "held", MODES),
        same("codes", "generator", "gaussian", MODES),
        best("quality beside fast", "generator", "fast", QUALITY),
    ),
    _points(
        "gan-ring", "Bidirectional players, vanilla game, ring of 8 modes", 7.8,
        {"dataset": "ring", "scale": 1.0, "iterations": 3000},
        {"permuted": ONE_SIDE | PERMUTED, "discriminator": DISCRIMINATOR,
         "nem": {"noise": "nem", "noise_place": "discriminator/forward", "noise_std": 0.3}},
        0,
        MEANING,
        same("discriminator", *OF_D, MODES, f"{D} covers modes that a plain one loses"),
        same("nem", "nem", "plain", MODES,
             "NEM noise on the discriminator's targets covers modes that are lost without"),
    ),
    protocol(
        "wgan-ring", "Bidirectional players, Wasserstein game, ring of 8 modes", OF_POINTS,
        POINTS | CRITIC | _rates(0.001) | {"iterations": 1500, "dataset": "ring", "scale": 1.0},
        {"plain": {}, "discriminator": DISCRIMINATOR,
         "generator": ONE_SIDE | {"generator_weight": 0.03}},
        (MODES, QUALITY), _tuning(MODES, extend=0, refine=0),
        _no_worse("discriminator", "critic"), _no_worse("generator", "generator"),
        same("critic's quality", *OF_D, QUALITY), same("generator's quality", *OF_G, QUALITY),
        quick=(20, 200), seeds=20,
    ),
)

# -- binary codes for MNIST, and three digits stacked to 1,000 modes -------------------------------
CODED: Final = VANILLA | MNIST | GENERATOR | {
    "bidirectional": "none", "batch_size": 64, "schedule": "cosine", "averaging": 0.99,
    "iterations": 2000,
}
STACKED: Final = CODED | _rates(0.003) | {
    "dataset": "stacked-digits", "samples": 128_000, "latent": 32, "generator": "256,512",
    "discriminator": "512,256", "schedule": "late-cosine", "generator_weight": 0.3,
    "weight_until": 0.8, "iterations": 3000, "scored_samples": 26_000,
}


def _stacked(name: str, what: str, base: dict[str, Any], tuned: Tuning, reach: float | None,
             rates: int) -> Protocol:
    return protocol(
        name, f"Bidirectional generator, vanilla game, dense, three {what} stacked", "nembp", base,
        {"plain": {}, "generator": ONE_SIDE}, (MODES, DIVERGENCE), tuned,
        both("modes", *OF_G, MODES, f"{G} covers more of 1,000 modes", reach=reach),
        both("kl", *OF_G, DIVERGENCE, f"{G} covers them more evenly (nats)", margin=0.02)[:rates],
        quick=(10, 2000),
    )


C = ("codes", "plain")
OF_CODES = (
    protocol(
        "gan-mnist-codes", "Bidirectional generator of codes, vanilla game, dense, MNIST", "nembp",
        CODED,
        {"plain": {}, "codes": ONE_SIDE | BINARY, "plain codes": BINARY, "generator": ONE_SIDE},
        (SCORE, CLASSES, DISTANCE, RECALL), _tuning(DISTANCE, extend=2, refine=0),
        both("fréchet distance", *C, DISTANCE, f"{G} of codes draws nearer to the data (Fréchet)"),
        both("recall", *C, RECALL, f"{G} of codes leaves out less of the data (recall)"),
        both("inception score", *C, SCORE, f"{G} of codes raises the inception score"),
        both("classes", *C, CLASSES, f"{G} of codes covers more classes", margin=0.5),
        same("classes beside plain codes", "codes", "plain codes", CLASSES,
             "Of codes a plain generator covers fewer classes"),
        same("gaussian", *OF_G, DISTANCE),
    ),
    _stacked("gan-stacked-digits", "digits", STACKED,
             _tuning(DIVERGENCE, factors=(0.5, 1.0), seeds=1, extend=0, refine=0), 950.0, 2),
    # a minute of a core, in which modes are still being found
    _stacked("gan-stacked-mnist", "MNIST digits",
             STACKED | {"dataset": "stacked", "samples": 60_000, "iterations": 1500},
             _tuning(MODES, seeds=1, extend=0, refine=0), None, 1),
)
PROTOCOLS: Final = (*OF_IMAGES, *IN_THE_PLANE, *OF_CODES)
