"""Hypothesis strategies: random networks, batches, targets, noise and kinds.

Import them from :mod:`nembp.testing`. Array values come from a NumPy generator whose seed
Hypothesis draws: shrinking goes for sizes and kinds, which people can read, not for matrices.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from nembp.backend import Backend
from nembp.engine.activations import ACTIVATIONS, Activation, LeakyReLU
from nembp.engine.likelihoods import LIKELIHOODS, Gaussian, Likelihood
from nembp.engine.linear import LinearMap
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.verification.cases import PAIRS, Case, one_hot, random_targets
from nembp.verification.chains import Pick, random_chain, random_linear_map

__all__ = [
    "KINDS",
    "activations",
    "batches_for",
    "cases",
    "likelihoods",
    "maps",
    "networks",
    "noise_for",
    "seeds",
    "targets",
    "weights",
    "widths",
]

Array = np.ndarray[Any, Any]
Batch: TypeAlias = tuple[Array, Array]

KINDS = ("nem", "blind", "anti", "drift")
seeds = st.integers(0, 2**32 - 1)
weights = st.floats(-2.0, 2.0).map(lambda exponent: round(float(10.0**exponent), 6))
widths = st.integers(1, 7)


def likelihoods(name: str | None = None) -> st.SearchStrategy[Likelihood]:
    """Draw a likelihood with a weight or variance between 0.01 and 100.

    Parameters
    ----------
    name : str, optional
        ``multinomial``, ``gaussian`` or ``bernoulli``; any of them by default.
    """
    if name is None:
        return st.sampled_from(sorted({end for pair in PAIRS for end in pair})).flatmap(likelihoods)
    field = "variance" if issubclass(LIKELIHOODS[name], Gaussian) else "weight"
    return weights.map(lambda w: LIKELIHOODS[name](**{field: w}))


def activations(*, analytic: bool | None = None) -> st.SearchStrategy[Activation]:
    """Draw an activation; with ``analytic``, one to which complex steps do or do not apply."""
    kinds = [kind for _, kind in sorted(ACTIVATIONS.items()) if analytic in (None, kind.analytic)]
    leaky = st.floats(0.01, 0.9).map(LeakyReLU)
    return st.sampled_from(kinds).flatmap(
        lambda kind: leaky if kind is LeakyReLU else st.just(kind())
    )


@st.composite
def maps(draw: st.DrawFn, kind: type[LinearMap] | None = None) -> LinearMap:
    """Draw a small linear map: between layers of 1 to 7 neurons, or images of 1 to 5 pixels a side.

    Parameters
    ----------
    kind : type, optional
        ``Dense``, ``Convolution``, ``AveragePooling``, ``Reshape`` or ``Transposed``; any of them
        by default.
    """
    return random_linear_map(_pick(draw), kind)


def _pick(draw: st.DrawFn) -> Pick:
    return lambda low, high: draw(st.integers(low, high))


@st.composite
def targets(
    draw: st.DrawFn, likelihood: Likelihood, rows: int, width: int, *, hard: bool | None = None
) -> Array:
    """Draw targets (rows, width) that a likelihood can have, in float64.

    Parameters
    ----------
    likelihood : Likelihood
        One of yours too: see :func:`nembp.verification.cases.random_targets`.
    rows, width : int
        Shape.
    hard : bool, optional
        Labels or bits where the likelihood has them; either by default.
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
    """Draw a network of 1 to 4 linear maps and a batch of 1 to 9 rows, as a case that can be printed.

    Parameters
    ----------
    pair : tuple of str, optional
        Names of the forward and the backward likelihood.
    activation : str, optional
        Name of the hidden layers' activation.
    dtype : str
        Precision of the network.
    images : bool, optional
        Whether its layers are images, joined by convolutions, poolings and reshapes among dense
        maps, or all are dense; either by default.
    normalized : bool, optional
        Whether hidden layers that have biases are normalized, each with even odds, or none is;
        either by default.
    """
    forward, backward = pair or draw(st.sampled_from(PAIRS))
    if draw(st.booleans()) if images is None else images:
        options = random_chain(_pick(draw), draw(st.integers(1, 4)))._asdict()
    else:
        dense = tuple(draw(st.lists(widths, min_size=2, max_size=5)))
        divisors = [[d for d in range(1, n + 1) if n % d == 0] for n in dense]
        shared = draw(st.booleans())
        biases = tuple(draw(st.sampled_from(d)) if shared else d[-1] for d in divisors)
        options = {"sizes": dense, "biases": biases}
    sizes = options.pop("sizes")
    if draw(st.booleans()) if normalized is None else normalized:
        hidden = range(1, len(sizes) - 1)
        options["normalized"] = tuple(k for k in hidden if draw(st.booleans()))
        options["epsilon"] = draw(st.sampled_from([0.1, 1.0, 0.01]))
    return Case(
        sizes,
        activation or draw(st.sampled_from(sorted(ACTIVATIONS))),
        draw(likelihoods(forward)),
        draw(likelihoods(backward)),
        rows=draw(st.integers(1, 9)),
        seed=draw(seeds),
        hard=draw(st.booleans()),
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
) -> Batch:
    """Draw (x, y) on the host that fit a network seen from either direction.

    Parameters
    ----------
    net : Network
        x fits its input and is a target of ``net.reversed``; y is a target of ``net``.
    rows : int, optional
        Samples; 1 to 9 by default.
    hard : bool, optional
        As in :func:`targets`.
    labels : bool
        One-hot y, whatever the likelihood: what the class-sum path takes.
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

    Parameters
    ----------
    likelihood : Likelihood, optional
        Of the target; by default the noise suits any.
    kind : str, optional
        ``nem``, ``blind``, ``anti`` or ``drift``.
    **fixed
        Options of :class:`~nembp.engine.noise.Noise` that are not drawn.
    """
    options: dict[str, Any] = {
        "kind": kind or draw(st.sampled_from(KINDS)),
        "std": draw(st.floats(0.05, 1.0)),
        "decay": draw(st.sampled_from([0.0, 0.5, 1.0])),
        "clock": draw(st.sampled_from(["epoch", "iteration"])),
        "law": draw(st.sampled_from(["gaussian", "uniform", "curvature"])),
        "mode": draw(st.sampled_from(["additive", "multiplicative"])),
        "screening": draw(st.sampled_from(["auto", "vector", "component", "expectation"])),
        "rejected": draw(st.sampled_from(["reflect", "zero"])),
        "update": draw(st.sampled_from(["exact", "published", "zero-sum"])),
        "draws": draw(st.sampled_from([1, 1, 3])),
    }
    options |= fixed
    softmax = likelihood is None or likelihood.counts_are_target_sums
    if softmax and options["update"] == "zero-sum" and options["screening"] == "component":
        options["screening"] = "auto"  # refused for softmax targets
    return Noise(**options)
