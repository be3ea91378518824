"""Small trainings for the tests of training on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.architecture import network
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import Augmentation, BatchReader
from nembp.engine.likelihoods import Gaussian
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.training import Trainer

NOISE = {"forward": Noise("nem", std=0.2), "backward": Noise("nem", std=0.1, clock="epoch")}
CLASSES = ("multinomial", "gaussian")
EVERY_NOISE = [
    {},
    NOISE,
    {"forward": Noise("blind", law="uniform"), "backward": Noise("anti", screening="vector")},
    {"forward": Noise("drift"), "backward": Noise("nem", screening="expectation")},
    {"forward/hidden": Noise("nem", std=0.2, law="uniform"), "backward": Noise("drift")},
]


def images(n: int = 50) -> Split:
    generator = np.random.default_rng(1)
    y = generator.integers(0, 3, n)
    x = generator.integers(0, 60, (n, 4, 4, 1)) + 60 * y[:, None, None, None]
    return Split(x.astype(np.uint8), y)


def image_network(device: Any, layers: tuple[Any, ...] = ("conv4x3", "pool2", 6)) -> Network:
    back = Gaussian(10.0)
    return network((4, 4, 1), layers, 3, activation="tanh", backward=back, device=device)


def targets(n: int = 50) -> Split:
    x = np.random.default_rng(2).normal(size=(n, 16)).astype(np.float32)
    return Split(x, np.tanh(x[:, :3]))


def trainer_of(
    device: Any,
    ends: tuple[str, str] = CLASSES,
    *,
    net: Network | None = None,
    dtype: str = "float32",
    resident: bool | None = None,
    augmentation: Augmentation | None = None,
    data: Split | None = None,
    activation: str = "relu",
    **options: Any,
) -> Trainer:
    data = data or (images() if ends[0] == "multinomial" else targets())
    if net is None:
        net = dense_network(
            [16, 9, 6, 3], activation=activation, forward=ends[0], backward=ends[1], device=device,
            dtype=dtype, seed=3,
        )  # fmt: skip
    scaling = Scaling(factor=1 / 255) if data.x.dtype == np.uint8 else Scaling(offset=0.1)
    reader = BatchReader(
        data, scaling, Scaling(), 3, net.backend, dtype, resident=resident,
        augmentation=augmentation,
    )  # fmt: skip
    return Trainer(net, reader, **({"epochs": 3, "batch_size": 12} | options))


def outcome(trainer: Trainer) -> tuple[np.ndarray, np.ndarray]:
    """Train, and return the parameters and every score of every epoch."""
    rows = trainer.run().epochs
    timings = ("seconds", "samples_per_second")
    scores = [value for row in rows for key, value in row.items() if key not in timings]
    return trainer.net.backend.to_numpy(trainer.net.parameters), np.array(scores)
