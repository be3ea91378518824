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
from nembp.engine.likelihoods import Likelihood
from nembp.engine.linear import LinearMap
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.verification.cases import (
    Case,
    Pick,
    one_hot,
    random_case,
    random_likelihood,
    random_map,
    random_noise,
    random_targets,
)
from nembp.verification.reports import Array

seeds = st.integers(0, 2**32 - 1)


def _pick(draw: st.DrawFn) -> Pick:
    return lambda low, high: draw(st.integers(low, high))


@st.composite
def likelihoods(draw: st.DrawFn, name: str | None = None) -> Likelihood:
    """Draw a likelihood, of a name or of any, with a weight or variance between 0.01 and 100."""
    return random_likelihood(_pick(draw), name)


def activations(*, analytic: bool | None = None) -> st.SearchStrategy[Activation]:
    """Draw an activation; with ``analytic``, one to which complex steps do or do not apply."""
    kinds = [kind for _, kind in sorted(ACTIVATIONS.items()) if analytic in (None, kind.analytic)]
    leaky = st.floats(0.01, 0.9).map(LeakyReLU)
    return st.sampled_from(kinds).flatmap(
        lambda kind: leaky if kind is LeakyReLU else st.just(kind())
    )


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

    ``pair`` names the forward and the backward likelihood, ``activation`` that of the hidden
    layers, which are ``images`` or all dense, and ``normalized`` or not; any by default.
    """
    options = {"images": images, "normalized": normalized}
    return random_case(_pick(draw), pair, activation, dtype=dtype, **options)


def networks(
    pair: tuple[str, str] | None = None,
    activation: str | None = None,
    *,
    device: str | Backend = "cpu",
    **options: Any,
) -> st.SearchStrategy[Network]:
    """Draw a bidirectional network with random weights and biases; options as :func:`cases`."""
    return cases(pair, activation, **options).map(lambda case: case.net(device=device))


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
    softmax = likelihood is None or likelihood.counts_are_target_sums
    given = fixed if kind is None else {"kind": kind, **fixed}
    return random_noise(_pick(draw), softmax=softmax, **given)
