"""Small games for the tests of adversarial training on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.adversarial import AdversarialSettings, AdversarialTrainer, Score
from nembp.architecture import generator_network, network
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.likelihoods import Bernoulli
from nembp.engine.network import Network, dense_network
from nembp.engine.optimizers import Adam, RMSProp

SHAPE, KINDS = (4, 4, 1), ("vanilla", "minimax", "wasserstein", "wasserstein-gp")
PLACES = ("discriminator/forward", "discriminator/backward", "generator/backward",
          "discriminator/input")  # fmt: skip
ITERATIONS, ROWS = 9, 6  # two iterations are made call by call before the first is captured
Settings = AdversarialSettings


def samples(n: int = 26) -> Split:
    """Four batches an epoch, and a rest."""
    draw = np.random.default_rng(1)
    return Split(draw.integers(0, 255, (n, *SHAPE)).astype(np.uint8), draw.integers(0, 3, n))


def networks(device: Any, settings: Settings, layers: Any, dtype: str) -> tuple[Network, Network]:
    forward: Any = Score() if settings.has_critic else Bernoulli()
    if settings.classes:
        forward = "multinomial"
    outputs = settings.classes + 1
    back = "bernoulli" if settings.latent_law == "binary" else "gaussian"
    ends = {"forward": "bernoulli", "backward": back, "seed": 4, "device": device, "dtype": dtype}
    of_d = {"forward": forward, "backward": "gaussian", "device": device, "dtype": dtype, "seed": 5}
    if layers:
        g = generator_network(3, layers[0], SHAPE, activation="leaky-relu", **ends)
        return g, network(SHAPE, layers[1], outputs, activation="leaky-relu", **of_d)
    g = dense_network([3, 7, 16], activation="tanh", **ends)
    return g, dense_network([16, 7, 5, outputs], activation="tanh", **of_d)


def trainer_of(
    device: Any,
    settings: Settings | None = None,
    *,
    layers: Any = None,
    resident: bool | None = None,
    dtype: str = "float32",
    **options: Any,
) -> AdversarialTrainer:
    settings = settings or Settings()
    g, d = networks(device, settings, layers, dtype)
    scaling = Scaling(factor=1 / 255)
    reader = BatchReader(samples(), scaling, Scaling(), 3, g.backend, dtype, resident=resident)
    options = {
        "batch_size": ROWS, "iterations": ITERATIONS, "report_every": 4, "schedule": "cosine",
        "seed": 3, "optimizers": (Adam(0.01, beta1=0.5), RMSProp(0.01)),
    } | options  # fmt: skip
    return AdversarialTrainer(g, d, reader, settings, **options)


def outcome(trainer: AdversarialTrainer) -> list[np.ndarray]:
    """Train, and return what it leaves: parameters, statistics, the average, the record."""
    rows = trainer.run().rows
    scores = [v for row in rows for key, v in row.items() if key != "iterations_per_second"]
    nets = trainer.generator, trainer.discriminator, trainer.sampler
    parts = [part for net in nets for part in (net.parameters, net.statistics)]
    return [*(trainer.generator.backend.to_numpy(part) for part in parts), np.array(scores)]
