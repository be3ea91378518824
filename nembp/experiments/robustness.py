"""Accuracy on perturbed images: noise, masks, and attacks along the error at the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.backend import stream
from nembp.engine.backprop import backpropagate
from nembp.engine.network import Network
from nembp.errors import ArchitectureError
from nembp.experiments.protocol import perturbation
from nembp.runs.training import Prepared, pixel_units

SAMPLES = 1000  # of the test split, the same for every arm
BATCH = 250
PGD_STEPS = 10

Images = NDArray[np.float32]


def robustness(prepared: Prepared, perturbations: Sequence[str], seed: int) -> dict[str, float]:
    """Return ``robustness/KIND:STRENGTH``: the accuracy under each, on up to 1000 test samples.

    Noise, masks and random starts follow from the seed, and are the same for every arm. Raises
    ArchitectureError unless the network sees images of classes with pixels in [0, 1].
    """
    if not perturbations:
        return {}
    data, net = prepared.data, prepared.net
    if not (data.is_image and data.is_classification) or pixel_units(data) is not None:
        raise ArchitectureError(
            f"perturbations are of pixels in [0, 1], which the network does not see from "
            f"{data.source}; expected images of classes, with scaling unit"
        )
    chosen = np.sort(stream(0, "robustness/samples").permutation(len(data.test))[:SAMPLES])
    split = data.test.subset(chosen)
    reader, read = prepared.reader(split), net.backend.empty((len(chosen), net.inputs), net.dtype)
    for index, staged in reader.batches(np.arange(len(chosen)), len(chosen)):
        reader.read_x(index, read, staged)
    x, labels = net.backend.to_numpy(read).astype(np.float32), np.asarray(split.y)
    parts = [slice(first, first + BATCH) for first in range(0, len(x), BATCH)]
    scores = {}
    for text in perturbations:
        moved = perturbed(net, x, labels, text, seed)
        found = [net.backend.to_numpy(net.predict(moved[part])).argmax(axis=1) for part in parts]
        scores[f"robustness/{text}"] = float(np.mean(np.concatenate(found) == labels))
    return scores


def perturbed(net: Network, x: Images, labels: NDArray[Any], text: str, seed: int) -> Images:
    """Return images x in [0, 1], shape (samples, pixels), under a perturbation.

    ``gaussian:s`` is x + s n with n ~ N(0, I), not clipped; ``mask:p`` sets pixels to 0 with
    probability p. ``fgsm:e`` and ``pgd:e`` are images x' with ‖x' − x‖∞ ≤ ε, in [0, 1], that make
    the true class less probable: x' ← clip(x' + η sign(∂(−log p(label | x'))/∂x')), where the
    derivative is the error that `backpropagate` brings to the input. One step of η = ε from x is
    the fast gradient sign method (Goodfellow, Shlens and Szegedy, ICLR 2015); several of
    η = 2.5 ε / steps from a random start, each clipped to the ε-cube about x, are projected
    gradient descent (Madry et al., ICLR 2018).
    """
    kind, strength = perturbation(text)
    rng = stream(seed, f"robustness/{kind}")
    if kind == "gaussian":
        return x + np.float32(strength) * rng.standard_normal(x.shape, dtype=np.float32)
    if kind == "mask":
        return x * (rng.random(x.shape, dtype=np.float32) >= strength)
    epsilon, steps, moved = np.float32(strength), 1, x.copy()
    low, high, step = np.maximum(x - epsilon, 0.0), np.minimum(x + epsilon, 1.0), epsilon
    if kind == "pgd":
        steps, step = PGD_STEPS, np.float32(2.5 * strength / PGD_STEPS)
        start = rng.uniform(-strength, strength, x.shape).astype(np.float32)
        moved = np.clip(x + start, low, high)
    one_hot = np.eye(net.outputs, dtype=np.float32)[labels]
    for first in range(0, len(x), BATCH):
        part = slice(first, first + BATCH)
        for _ in range(steps):
            _, error = backpropagate(net, moved[part], one_hot[part])
            direction = np.sign(net.backend.to_numpy(error)).astype(np.float32)
            moved[part] = np.clip(moved[part] + step * direction, low[part], high[part])
    return moved
