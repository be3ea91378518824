"""Hypothesis strategies: random networks, batches, targets, noise and parts.

Import them from :mod:`nembp.testing`. Array values come from a NumPy generator whose seed
Hypothesis draws: shrinking goes for sizes and kinds, which people can read, not for matrices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from nembp.backend import Backend
from nembp.engine.activations import ACTIVATIONS, Activation, LeakyReLU
from nembp.engine.likelihoods import LIKELIHOODS, Likelihood
from nembp.engine.linear import LinearMap
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.verification.cases import (
    NOISE_OPTIONS,
    PAIRS,
    WIDTH,
    Array,
    Case,
    Pick,
    divisors,
    noise_with,
    one_hot,
    random_chain,
    random_map,
    random_targets,
    weighted,
)

seeds = st.integers(0, 2**32 - 1)
widths = st.integers(1, WIDTH)
weights = st.floats(-2.0, 2.0).map(lambda exponent: round(float(10.0**exponent), 6))


def likelihoods(name: str | None = None) -> st.SearchStrategy[Likelihood]:
    """Draw a likelihood, of a name or of any, with a weight or variance between 0.01 and 100."""
    names = st.sampled_from(sorted(LIKELIHOODS)) if name is None else st.just(name)
    return st.builds(weighted, names, weights)


def activations(*, analytic: bool | None = None) -> st.SearchStrategy[Activation]:
    """Draw an activation; with ``analytic``, one to which complex steps do or do not apply."""
    kinds = [kind for _, kind in sorted(ACTIVATIONS.items()) if analytic in (None, kind.analytic)]
    leaky = st.floats(0.01, 0.9).map(LeakyReLU)
    return st.sampled_from(kinds).flatmap(
        lambda kind: leaky if kind is LeakyReLU else st.just(kind())
    )


def _pick(draw: st.DrawFn) -> Pick:
    return lambda low, high: draw(st.integers(low, high))


@st.composite
def linear_maps(draw: st.DrawFn, kind: type[LinearMap] | None = None) -> LinearMap:
    """Draw a small linear map, of a kind or of any, between layers or images of 1 to 5 pixels."""
    return random_map(_pick(draw), kind)


@st.composite
def targets(
    draw: st.DrawFn, likelihood: Likelihood, rows: int, width: int, *, hard: bool | None = None
) -> Array:
    """Draw targets (rows, width) that a likelihood can have, in float64.

    Labels or bits if ``hard``, where it has them; either by default. A likelihood of yours says
    what it takes by a method ``random_targets(generator, rows, width)``.
    """
    chosen = draw(st.booleans()) if hard is None else hard
    generator = np.random.default_rng(draw(seeds))
    return random_targets(likelihood, generator, rows, width, hard=chosen)


@st.composite
def cases(
    draw: st.DrawFn,
    pair: tuple[str, str] | None = None,
    activation: str | None = None,
    *,
    dtype: str = "float64",
    images: bool | None = None,
    normalized: bool | None = None,
) -> Case:
    """Draw a network of 1 to 4 linear maps and a batch of 1 to 9 rows, as a case.

    Parameters
    ----------
    pair : tuple of str, optional
        Names of the forward and the backward likelihood.
    activation : str, optional
        Name of the hidden layers' activation.
    dtype : str
        Precision of the network.
    images : bool, optional
        Whether its layers are images, or all are dense; either by default.
    normalized : bool, optional
        Whether hidden layers that have biases are normalized, each with even odds, or none is;
        either by default.
    """
    forward, backward = pair or draw(st.sampled_from(PAIRS))
    if draw(st.booleans()) if images is None else images:
        options = random_chain(_pick(draw), draw(st.integers(1, 4)))
    else:
        sizes = tuple(draw(st.lists(widths, min_size=2, max_size=5)))
        shared = draw(st.booleans())
        biases = tuple(draw(st.sampled_from(divisors(n))) if shared else n for n in sizes)
        options = {"sizes": sizes, "biases": biases}
    if draw(st.booleans()) if normalized is None else normalized:
        hidden = range(1, len(options["sizes"]) - 1)
        options["normalized"] = tuple(k for k in hidden if draw(st.booleans()))
    return Case(
        activation=activation or draw(st.sampled_from(sorted(ACTIVATIONS))),
        forward=draw(likelihoods(forward)),
        backward=draw(likelihoods(backward)),
        rows=draw(st.integers(1, 9)),
        seed=draw(seeds),
        hard=draw(st.booleans()),
        forward_noise=draw(noise_for()),
        backward_noise=draw(noise_for()),
        dtype=dtype,
        **options,
    )


def networks(
    pair: tuple[str, str] | None = None,
    activation: str | None = None,
    *,
    dtype: str = "float64",
    images: bool | None = None,
    normalized: bool | None = None,
    device: str | Backend = "cpu",
) -> st.SearchStrategy[Network]:
    """Draw a bidirectional network with random weights and biases; parameters as :func:`cases`."""
    drawn = cases(pair, activation, dtype=dtype, images=images, normalized=normalized)
    return drawn.map(lambda case: case.net(device=device))


@st.composite
def batches_for(
    draw: st.DrawFn,
    net: Network,
    *,
    rows: int | None = None,
    hard: bool | None = None,
    labels: bool = False,
) -> tuple[Array, Array]:
    """Draw (x, y) on the host that fit a network seen from either direction.

    1 to 9 rows by default; with ``labels`` y is one-hot, whatever the likelihood: what the
    class-sum path takes.
    """
    count = draw(st.integers(1, 9)) if rows is None else rows
    x = draw(targets(net.reversed.likelihood, count, net.inputs, hard=hard))
    if labels:
        return x, one_hot(np.random.default_rng(draw(seeds)), count, net.outputs)
    return x, draw(targets(net.likelihood, count, net.outputs, hard=hard))


@st.composite
def noise_for(
    draw: st.DrawFn, /, likelihood: Likelihood | None = None, kind: str | None = None, **fixed: Any
) -> Noise:
    """Draw noise of any kind but none, with every option that a likelihood's target allows.

    ``fixed`` options of :class:`~nembp.engine.noise.Noise` are not drawn.
    """
    kinds = st.sampled_from(("nem", "blind", "anti", "drift"))
    options: dict[str, Any] = {"kind": kind or draw(kinds), "std": draw(st.floats(0.05, 1.0))}
    for name, some in NOISE_OPTIONS.items():
        options[name] = draw(st.sampled_from(some))
    options |= fixed
    softmax = likelihood is None or likelihood.counts_are_target_sums
    return noise_with(options) if softmax else Noise(**options)
