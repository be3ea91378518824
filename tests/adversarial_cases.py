"""Small adversarial trainings, on a ring of Gaussians unless on other data."""

from __future__ import annotations

import numpy as np

from nembp.adversarial import AdversarialSettings, AdversarialTrainer
from nembp.adversarial.data import mixture
from nembp.architecture import generator_network, network
from nembp.datasets.reading import BatchReader
from nembp.engine.likelihoods import Bernoulli, Score
from nembp.engine.network import dense_network
from nembp.engine.optimizers import Adam

RING = mixture("ring", 4000, scale=1.0)


def trainer_of(
    settings=None, *, data=RING, latent=2, hidden=(32, 32), layers=None, seed=0, dtype="float32",
    device="cpu", activation="relu", resident=None, **options,
):  # fmt: skip
    """Return a trainer of small networks: dense ones, or those of two architectures' layers."""
    settings = settings or AdversarialSettings()
    shape = data.train.x.shape[1:]
    features = int(np.prod(shape))
    back = "bernoulli" if settings.latent_law == "binary" else "gaussian"
    kind = {"device": device, "dtype": dtype, "activation": activation}
    of_g = {"forward": "gaussian", "backward": options.pop("backward", back), "seed": 2 * seed}
    forward = Score() if settings.has_critic else Bernoulli()
    of_d = {"forward": "multinomial" if settings.classes else forward, "seed": 2 * seed + 1}
    outputs = settings.classes + 1
    if layers:
        g = generator_network(latent, layers[0], shape, **of_g, **kind)
        d = network(shape, layers[1], outputs, backward="gaussian", **of_d, **kind)
    else:
        normal = {"normalization": options.pop("normalization", None)}
        g = dense_network([latent, *hidden, features], **normal, **of_g, **kind)
        d = dense_network([features, *hidden, outputs], **of_d, **kind)
    scalings = data.x_scaling, data.y_scaling
    labels = settings.classes or 8
    reader = BatchReader(data.train, *scalings, labels, g.backend, dtype, resident=resident)
    options = {
        "batch_size": 32, "iterations": 20, "seed": seed, "report_every": 10,
        "optimizers": (Adam(1e-3, beta1=0.5), Adam(1e-3, beta1=0.5)),
    } | options  # fmt: skip
    return AdversarialTrainer(g, d, reader, settings, **options)


def parameters(trainer):
    return [net.parameters.copy() for net in (trainer.generator, trainer.discriminator)]
