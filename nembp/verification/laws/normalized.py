"""Laws of normalized layers, besides those that hold for networks with and without them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.engine.network import Network
from nembp.verification.laws import textbook
from nembp.verification.laws.deviations import Deviations, Vector, equal, near
from nembp.verification.laws.gradients import against_chain_rule, host
from nembp.verification.laws.joint import run

__all__ = ["evaluation", "moving"]


def moving(net: Network, x: Vector, t: Vector, path: Any) -> Deviations:
    """A step moves the running statistics of the directions that it trains, and nothing else does.

    r ← (1 − m) r + m (μ, σ² N / (N − 1)) for the N values of a channel, where N > 1.
    """
    before = host(net, net.statistics)
    for way, source in ((net, x), (net.reversed, t)):
        net.log_likelihood(x, t, "batch")
        way.predict(source)
    yield equal(host(net, net.statistics), before, "statistics after predictions")
    _, step = run(net, x, t, path)
    moved = host(net, net.statistics)
    step.moves_statistics = False
    run(net, x, t, path, step=step)
    yield equal(host(net, net.statistics), moved, "statistics that are not to move")
    net.statistics[...] = net.backend.asarray(before, net.dtype)
    flat = host(net, net.parameters)
    for way, source in ((net, x), (net.reversed, t)):
        trained = way is net or path != "none"
        for k, (normal, layer) in enumerate(
            zip(textbook.run(way, flat, source)[2][:-1], way.layers[1:-1], strict=True), start=1
        ):
            running = way.running[k]
            if normal is None or running is None or layer.normalization is None:
                continue
            expected = [host(net, each) for each in running]
            values = len(source) * layer.size // layer.biases
            if trained and values > 1:
                m, unbiased = layer.normalization.momentum, values / (values - 1)
                batch = normal[2], normal[3] * unbiased
                expected = [(1 - m) * r + m * b for r, b in zip(expected, batch, strict=True)]
            net.statistics[...] = net.backend.asarray(moved, net.dtype)
            what = f"layer {k} of the {way.direction} direction after path {path}"
            for name, each, value in zip(("mean", "variance"), running, expected, strict=True):
                size = 1.0 + float(np.max(np.abs(value)))
                yield near(host(net, each), value, f"running {name} of {what}", scale=size)
            net.statistics[...] = net.backend.asarray(before, net.dtype)
    net.statistics[...] = net.backend.asarray(moved, net.dtype)


def evaluation(net: Network, x: Vector, t: Vector) -> Deviations:
    """By running statistics a row's prediction is its own, and the gradient that of predictions."""
    yield from against_chain_rule(net, x, t, "running")
    together = host(net, net.predict(x))
    alone = np.concatenate([host(net, net.predict(x[i : i + 1])) for i in range(len(x))])
    size = 1.0 + float(np.max(np.abs(together)))
    yield near(alone, together, f"rows one by one, {net.direction} direction", scale=size)
