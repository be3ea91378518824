"""Laws of activations, and of networks (two views of one vector)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nembp.backend import Backend, get_backend
from nembp.engine.activations import Activation
from nembp.engine.network import Network
from nembp.verification.laws import textbook
from nembp.verification.laws.deviations import (
    KINK_MARGIN,
    Deviations,
    Vector,
    equal,
    holds,
    near,
)
from nembp.verification.laws.gradients import host

__all__ = ["copies", "derivative", "running_views", "views"]


# -- activations -------------------------------------------------------------------------------
def derivative(
    activation: Activation, z: Vector, backend: Backend | None = None, dtype: str = "float64"
) -> Deviations:
    """``multiply_derivative`` multiplies by f'(z), by complex steps or central differences."""
    backend = backend or get_backend("cpu")
    if not activation.analytic:
        z = np.where(np.abs(z) < KINK_MARGIN, 0.5, z)
        z = z.astype(dtype).astype(float)

    def f(at: Vector, on: Backend | None = None) -> Any:
        on = on or get_backend("cpu")
        out = on.asarray(at.copy())
        activation.activate(on, out, on.xp.empty_like(out))
        return out

    error = np.cos(np.arange(z.size, dtype=float)).reshape(z.shape).astype(dtype).astype(float)
    held = backend.asarray(error.copy(), dtype)
    a = f(backend.to_numpy(backend.asarray(z, dtype)), backend)
    activation.multiply_derivative(backend, held, a, backend.xp.empty_like(held))
    value = textbook.activate(activation, z) if textbook.knows(activation) else f(z)
    yield near(backend.to_numpy(a).astype(float), value, "f(z)", scale=1.0)
    if activation.analytic:
        slope = np.imag(f(z + 1e-30j)) / 1e-30
    else:  # exact for the piecewise linear, to rounding over the step
        slope = (f(z + 5e-4) - f(z - 5e-4)) / 1e-3
    scale = 1.0 if activation.analytic else 1e3 * (1.0 + float(np.max(np.abs(z))))
    yield near(backend.to_numpy(held).astype(float), error * slope, "error ∘ f'(z)", scale=scale)


# -- networks ----------------------------------------------------------------------------------
def views(net: Network) -> Deviations:
    """``net.reversed.reversed`` is ``net``; both directions are views of one vector.

    They cover it exactly once, in the order weights, forward biases, backward biases, forward
    gains, backward gains; and running statistics their own, a mean and a variance for each gain.
    """
    count = net.parameter_count
    yield holds(net.parameters.shape == (count,), "one flat vector of parameters")
    yield holds(net.reversed.parameters is net.parameters, "the directions share one vector")
    yield holds(net.reversed.parameter_count == count, "both directions count alike")
    yield holds(net.reversed.reversed is net, "net.reversed.reversed is net")
    kept = net.backend.to_numpy(net.parameters)
    net.parameters[...] = net.backend.asarray(np.arange(count), net.dtype)
    weights = [host(net, W).reshape(-1) for W in net.weights]
    forward, backward = (
        [host(net, b) for b in d.biases if b is not None] for d in (net, net.reversed)
    )
    if net.direction == "backward":
        weights, forward, backward = weights[::-1], backward, forward
    gains = [
        [host(net, g) for g in d.gains if g is not None]
        for d in ((net, net.reversed) if net.direction == "forward" else (net.reversed, net))
    ]
    seen = np.concatenate([*weights, *forward, *backward[::-1], *gains[0], *gains[1][::-1]])
    yield equal(seen, np.arange(count), "entry of the vector seen through the views")
    for W, other in zip(net.weights, net.reversed.weights[::-1], strict=True):
        yield equal(host(net, W), host(net, other), "weights of the other direction")
    yield holds(net.biases[0] is None, "an input layer has no bias")
    sizes = [None if b is None else tuple(b.shape) for b in net.biases[1:]]
    yield holds(sizes == [(layer.biases,) for layer in net.layers[1:]], "sizes of the biases")
    yield from running_views(net)
    net.parameters[...] = net.backend.asarray(kept, net.dtype)


def running_views(net: Network) -> Deviations:
    """Both directions' running statistics are views of one vector, and cover it once."""
    normalized = [layer.normalization is not None for layer in net.layers]
    present = [pair is not None for pair in net.running], [g is not None for g in net.gains]
    yield holds(present == (normalized, normalized), "gains and statistics of normalized layers")
    yield holds(net.reversed.statistics is net.statistics, "the directions share one vector")
    kept = net.backend.to_numpy(net.statistics)
    net.statistics[...] = net.backend.asarray(np.arange(net.statistics_count), net.dtype)
    forward, backward = (
        [host(net, each) for pair in direction.running if pair is not None for each in pair]
        for direction in (
            (net, net.reversed) if net.direction == "forward" else (net.reversed, net)
        )
    )
    pairs = [backward[k : k + 2] for k in range(0, len(backward), 2)]
    seen = np.concatenate([np.zeros(0), *forward, *(each for pair in pairs[::-1] for each in pair)])
    yield equal(seen, np.arange(net.statistics_count), "statistic seen through the views")
    net.statistics[...] = net.backend.asarray(kept, net.dtype)


def copies(
    net: Network, copier: Callable[[Network], Network], dtype: str | None = None
) -> Deviations:
    """A copy predicts the same; its own vector drives its own two directions, and no others."""
    dtype = dtype or net.dtype
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3, net.inputs))
    y = generator.normal(size=(3, net.outputs))
    before = host(net, net.predict(x)), host(net, net.reversed.predict(y))
    vector = net.backend.to_numpy(net.parameters)
    copied = copier(net)
    yield from views(copied)
    yield holds((copied.dtype, copied.direction) == (dtype, net.direction), "kind of the copy")
    same = (copied.layers, copied.maps) == (net.layers, net.maps)
    ends = copied.likelihood, copied.reversed.likelihood
    same = same and ends == (net.likelihood, net.reversed.likelihood)
    yield holds(same, "layers, linear maps and likelihoods of the copy")
    yield equal(copied.backend.to_numpy(copied.parameters), vector.astype(dtype), "its parameters")
    statistics = net.backend.to_numpy(net.statistics)
    actual = copied.backend.to_numpy(copied.statistics)
    yield equal(actual, statistics.astype(dtype), "its running statistics")
    # a copy in another precision is only as near as the coarser of the two
    epsilon = max(np.finfo(net.dtype).eps, np.finfo(dtype).eps)
    slack = float(epsilon / np.finfo(net.dtype).eps)
    scale = slack * (1.0 + float(max(np.max(np.abs(values)) for values in before)))
    yield near(host(copied, copied.predict(x)), before[0], "prediction of the copy", scale=scale)
    actual = host(copied, copied.reversed.predict(y))
    yield near(actual, before[1], "prediction of the copy's reversed", scale=scale)
    shifted = vector.astype(dtype) + copied.backend.to_numpy(copied.parameters).dtype.type(0.25)
    copied.parameters[...] = copied.backend.asarray(shifted, dtype)
    for W, original in zip(copied.weights, net.weights, strict=True):
        moved = (host(net, original).astype(dtype) + np.dtype(dtype).type(0.25)).astype(float)
        yield equal(host(copied, W), moved, "weights of the changed copy")
    copied.statistics[...] = copied.backend.asarray(0.5 * statistics, dtype)
    yield equal(net.backend.to_numpy(net.parameters), vector, "the original, its copy changed:")
    yield equal(net.backend.to_numpy(net.statistics), statistics, "its statistics, likewise:")
    yield equal(host(net, net.predict(x)), before[0], "the original's prediction")
    yield equal(host(net, net.reversed.predict(y)), before[1], "the original's reversed")
    one = copied.reversed.biases[-1]
    assert one is not None
    one[...] = 7.0
    sevens = np.count_nonzero(copied.backend.to_numpy(copied.parameters) == 7.0)
    yield holds(sevens >= one.shape[0], "the copy's backward bias is a view of its own vector")
