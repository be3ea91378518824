"""Laws of one direction: the whole network's gradient, three ways."""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.engine.backprop import backpropagate
from nembp.engine.batchnorm import Statistics
from nembp.engine.network import Network
from nembp.verification.laws import textbook
from nembp.verification.laws.deviations import (
    KINK_MARGIN,
    Deviations,
    Function,
    Vector,
    gradient_of,
    near,
)

__all__ = [
    "against_chain_rule",
    "against_slopes",
    "away_from_kinks",
    "error_size",
    "host",
    "input_error",
    "nll_of_input",
    "nll_of_parameters",
]


def host(net: Network, array: Any) -> Vector:
    """Copy an array of the network's device to the host, in float64."""
    return np.asarray(net.backend.to_numpy(array), dtype=float)


def error_size(net: Network, x: Vector, t: Vector) -> float:
    """Return the size of the numbers that a direction's gradient is made of.

    What the output error subtracts, a and t, times the precision or weight.
    """
    a = np.abs(host(net, net.predict(x, "batch")))
    largest = float(np.max(a, initial=0.0) + np.max(np.abs(t), initial=0.0))
    return abs(net.likelihood.scale) * largest


def nll_of_parameters(
    net: Network, x: Vector, t: Vector, statistics: Statistics = "batch"
) -> Function:
    """Return parameters ↦ mean negative log-likelihood of ``t`` given ``x``, in nats a row."""
    copies = {name: net.to("cpu", name) for name in ("float64", "complex128")}

    def nll(parameters: Vector) -> Any:
        copy = copies[str(parameters.dtype)]
        copy.parameters[...] = parameters
        return -np.mean(copy.log_likelihood(x, t, statistics))

    return nll


def nll_of_input(net: Network, t: Vector, statistics: Statistics = "batch") -> Function:
    """Return input ↦ mean negative log-likelihood of ``t``."""
    copies = {name: net.to("cpu", name) for name in ("float64", "complex128")}

    def nll(x: Vector) -> Any:
        return -np.mean(copies[str(x.dtype)].log_likelihood(x, t, statistics))

    return nll


def against_slopes(
    net: Network,
    x: Vector,
    t: Vector,
    method: str,
    *,
    smooth: bool = True,
    seed: int = 0,
    statistics: Statistics = "batch",
) -> Deviations:
    """``backpropagate`` gives the gradient of the mean negative log-likelihood."""
    yield from gradient_of(
        nll_of_parameters(net, x, t, statistics),
        host(net, net.parameters),
        host(net, backpropagate(net, x, t, statistics=statistics)[0]),
        f"gradient of the {net.direction} direction",
        generator=np.random.default_rng(seed),
        method=method,
        smooth=smooth,
        scale=0.0 if net.dtype == "float64" else error_size(net, x, t),
    )


def input_error(
    net: Network,
    x: Vector,
    t: Vector,
    method: str,
    *,
    smooth: bool = True,
    seed: int = 0,
    statistics: Statistics = "batch",
) -> Deviations:
    """``backpropagate`` gives ∂(−log p / rows)/∂x, on which a generator's training rests."""
    yield from gradient_of(
        nll_of_input(net, t, statistics),
        x,
        host(net, backpropagate(net, x, t, statistics=statistics)[1]),
        f"input error of the {net.direction} direction",
        generator=np.random.default_rng(seed),
        method=method,
        smooth=smooth,
        scale=0.0 if net.dtype == "float64" else error_size(net, x, t),
    )


def against_chain_rule(
    net: Network, x: Vector, t: Vector, statistics: Statistics = "batch"
) -> Deviations:
    """Prediction, log-likelihood and gradient are the definitions': classical backpropagation."""
    flat, likelihood = host(net, net.parameters), net.likelihood
    _, z = textbook.signals(net, flat, x, statistics=statistics)
    way = f"of the {net.direction} direction"
    size = 1.0 + float(np.max(np.abs(z), initial=0.0))
    predicted = host(net, net.predict(x, statistics))
    yield near(predicted, textbook.link(likelihood, z), f"prediction {way}", scale=size)
    log_p = textbook.log_likelihood(likelihood, z, t)
    scale = likelihood.scale * size * (1.0 + float(np.max(np.abs(t), initial=0.0))) * z.shape[1]
    actual = host(net, net.log_likelihood(x, t, statistics))
    yield near(actual, log_p, f"log-likelihood {way}", scale=1.0 + scale)
    error = textbook.output_error(likelihood, z, t) / len(x)
    expected = textbook.pull_back(net, x, error, flat, statistics)
    gradient = host(net, backpropagate(net, x, t, statistics=statistics)[0])
    scale = error_size(net, x, t) / len(x)
    yield near(gradient, expected, f"gradient {way}", scale=scale)


def away_from_kinks(net: Network, x: Vector, margin: float = KINK_MARGIN) -> bool:
    """Whether every hidden pre-activation is farther than ``margin`` from zero."""
    _, y, _ = textbook.run(net, host(net, net.parameters), x)
    hidden = zip(net.layers[1:-1], y[:-1], strict=True)
    return all(u.activation is None or np.min(np.abs(z)) > margin for u, z in hidden)
