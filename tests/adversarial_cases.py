"""Small adversarial trainings on a ring of Gaussians."""

from __future__ import annotations

import numpy as np

from nembp.adversarial import AdversarialSettings, AdversarialTrainer
from nembp.adversarial.data import mixture
from nembp.datasets.reading import BatchReader
from nembp.engine.likelihoods import Bernoulli, Score
from nembp.engine.network import dense_network
from nembp.engine.optimizers import Adam

RING = mixture("ring", 4000, scale=1.0)
KINDS = ("vanilla", "minimax", "wasserstein", "wasserstein-gp")
NOISY = ("discriminator/forward", "discriminator/backward", "generator/backward")


def trainer_of(
    settings=None, *, data=RING, hidden=(32, 32), seed=0, dtype="float32", device="cpu", **options
):
    """Return a trainer on a ring, of small networks."""
    settings = settings or AdversarialSettings()
    features = int(np.prod(data.train.x.shape[1:]))
    of_g = {key: options.pop(key) for key in ("normalization", "backward") if key in options}
    kind = {"device": device, "dtype": dtype}
    g = dense_network([2, *hidden, features], forward="gaussian", seed=2 * seed, **of_g, **kind)
    forward = Score() if settings.has_critic else Bernoulli()
    forward = "multinomial" if settings.classes else forward
    sizes = [features, *hidden, settings.classes + 1]
    d = dense_network(sizes, forward=forward, seed=2 * seed + 1, **kind)
    labels = settings.classes or 8
    reader = BatchReader(data.train, data.x_scaling, data.y_scaling, labels, g.backend, dtype)
    options = {
        "batch_size": 32, "iterations": 20, "seed": seed, "report_every": 10,
        "optimizers": (Adam(1e-3, beta1=0.5), Adam(1e-3, beta1=0.5)),
    } | options  # fmt: skip
    return AdversarialTrainer(g, d, reader, settings, **options)


def parameters(trainer):
    return [net.parameters.copy() for net in (trainer.generator, trainer.discriminator)]
