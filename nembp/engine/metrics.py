"""Scores of a network, keyed by direction: ``forward/nll``, ``backward/centroid_error``, ..."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from nembp.engine.network import Network
from nembp.engine.training import Reader

Units: TypeAlias = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def centroid_error(
    net: Network, centroids: np.ndarray[Any, Any], units: Units | None = None
) -> float:
    """Return the mean over classes of ‖backward(e_k) − c_k‖ / ‖c_k‖.

    e_k is the one-hot row of class k. The centroids c_k are the means of each class in the
    network's units; ``units`` takes samples from these to those of the comparison, for relative
    distances depend on where 0 is: standardized images are compared as pixels in [0, 1]. NaN if a
    centroid is the origin, from which no relative distance can be told.
    """
    one_hot = np.eye(net.outputs)
    images = net.backend.to_numpy(net.reversed.predict(one_hot)).astype(np.float64)
    if units is not None:
        images, centroids = units(images), units(centroids)
    distance = np.linalg.norm(images - centroids, axis=1)
    length = np.linalg.norm(centroids, axis=1)
    return float(np.mean(distance / length)) if np.all(length > 0) else float("nan")


def evaluate(
    net: Network,
    reader: Reader,
    centroids: np.ndarray[Any, Any] | None = None,
    *,
    backward: bool = True,
    batch_size: int = 1024,
    units: Units | None = None,
) -> dict[str, float]:
    """Score both directions on every sample of a reader.

    ``forward/nll`` and ``backward/nll`` are mean negative log-likelihoods in nats a sample, of the
    untempered likelihoods; ``forward/accuracy`` is for labels, else ``forward/mean_squared_error``
    (network units) and ``forward/r2``; ``backward/mean_squared_error`` is a feature's, and
    ``backward/centroid_error``, in ``units``, needs ``centroids``. The names change places where
    ``net`` is seen from its backward direction.
    """
    backend, xp, n = net.backend, net.backend.xp, reader.n
    there, back = net.direction, net.reversed.direction
    totals: Any = defaultdict(float)
    shift: Any = None
    by_class = net.reversed.readout(np.eye(net.outputs)) if reader.is_classification else None
    for index, staged in reader.batches(np.arange(n), batch_size):
        rows = index.shape[0]
        x = backend.empty((rows, net.inputs), net.dtype)
        t = backend.empty((rows, net.outputs), net.dtype)
        reader.read(index, x, t, staged)
        o = net.readout(x)
        totals[f"{there}/nll"] -= xp.sum(net.likelihood.log_likelihood(o, t))
        if reader.is_classification:
            right = xp.argmax(o.a, axis=1) == reader.labels(index)
            totals[f"{there}/accuracy"] += xp.sum(xp.astype(right, t.dtype))
        else:
            totals[f"{there}/mean_squared_error"] += xp.sum((o.a - t) ** 2) / net.outputs
            if shift is None:  # variance about the first target: Σt² − (Σt)²/n would cancel
                shift = xp.asarray(t[:1, :], copy=True)
            deviation = xp.astype(t - shift, xp.float64)
            totals["sum"] += xp.sum(deviation, axis=0)
            totals["square"] += xp.sum(deviation * deviation, axis=0)
        if backward:
            if by_class is None:
                drawn = net.reversed.readout(t)
            else:  # one backward signal a class, given to its samples
                drawn = net.reversed.likelihood.at(xp.matmul(t, by_class.z), backend)
            totals[f"{back}/nll"] -= xp.sum(net.reversed.likelihood.log_likelihood(drawn, x))
            totals[f"{back}/mean_squared_error"] += xp.sum((drawn.a - x) ** 2) / net.inputs

    scores = {key: backend.to_numpy(value) / n for key, value in totals.items()}
    scores[f"{there}/nll"] = scores[f"{there}/nll"] / net.likelihood.tempering
    if backward:
        scores[f"{back}/nll"] = scores[f"{back}/nll"] / net.reversed.likelihood.tempering
    if not reader.is_classification:
        variance = float(np.mean(scores.pop("square") - scores.pop("sum") ** 2))
        error = float(scores[f"{there}/mean_squared_error"])
        scores[f"{there}/r2"] = np.asarray(1.0 - error / variance if variance > 0 else np.nan)
    result = {key: float(value) for key, value in scores.items()}
    if backward and centroids is not None:
        result["backward/centroid_error"] = centroid_error(net, centroids, units)
    return result
