"""Random networks, batches, likelihoods, noise and synapses for the property tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from nembp.backend import Backend
from nembp.likelihoods import LIKELIHOODS, Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.network import Layer, Network
from nembp.neurons import ACTIVATIONS, get_activation
from nembp.noise import Noise
from nembp.synapses import Dense, Synapse, Transposed

PAIRS = list(product(LIKELIHOODS, repeat=2))  # (forward, backward), all nine
KINDS = ("nem", "blind", "anti", "drift")


def targets(
    likelihood: Likelihood, generator: np.random.Generator, rows: int, width: int, hard: bool
) -> np.ndarray:
    """Draw targets that ``likelihood`` can have: proper, and labels if ``hard``."""
    if isinstance(likelihood, Gaussian):
        return generator.normal(0.0, 1.5, (rows, width))
    if isinstance(likelihood, Multinomial):
        return one_hot(generator, rows, width) if hard else generator.dirichlet([1.0] * width, rows)
    return np.round(generator.random((rows, width))) if hard else generator.random((rows, width))


def one_hot(generator: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """Draw labels as one-hot rows; some classes may have no row."""
    return np.eye(width)[generator.integers(0, width, rows)]


@dataclass(frozen=True)
class Case:
    """One random network and batch, printed whole when a law fails on it.

    ``biases`` is how many biases each layer has; fewer than its neurons are shared by channel.
    """

    sizes: tuple[int, ...]
    biases: tuple[int, ...]
    activation: str
    forward: Likelihood
    backward: Likelihood
    rows: int
    seed: int
    hard: bool

    @property
    def analytic(self) -> bool:
        """Whether complex steps apply."""
        return ACTIVATIONS[self.activation].analytic

    def generator(self, name: str) -> np.random.Generator:
        """Return a generator of this case's own."""
        return np.random.default_rng([self.seed, *name.encode()])

    def net(self, dtype: str = "float64", device: str | Backend = "cpu") -> Network:
        """Build the network, every parameter random (initial biases would all be zero)."""
        hidden, last = get_activation(self.activation), len(self.sizes) - 1
        layers = [
            Layer(size, hidden if 0 < k < last else None, biases)
            for k, (size, biases) in enumerate(zip(self.sizes, self.biases, strict=True))
        ]
        synapses = [Dense(m, n) for m, n in pairwise(self.sizes)]
        net = Network(layers, synapses, self.forward, self.backward, device=device, dtype=dtype)
        draws = self.generator("parameters").normal(0.0, 0.6, net.parameter_count)
        net.parameters[...] = net.backend.asarray(draws, dtype)
        return net

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x, which the backward direction aims at, and t, at which the forward one does."""
        x = targets(self.backward, self.generator("x"), self.rows, self.sizes[0], self.hard)
        t = targets(self.forward, self.generator("t"), self.rows, self.sizes[-1], self.hard)
        return x, t

    def labelled_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Return a batch whose forward targets are one-hot rows, whatever their likelihood."""
        return self.batch()[0], one_hot(self.generator("labels"), self.rows, self.sizes[-1])

    def with_(self, **changes: Any) -> Case:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


weights = st.floats(-2.0, 2.0).map(lambda e: round(float(10.0**e), 6))
seeds = st.integers(0, 2**32 - 1)
wide = st.integers(1, 7)


def likelihoods(name: str) -> st.SearchStrategy[Likelihood]:
    """Draw a likelihood of one kind with a weight or variance between 0.01 and 100."""
    field = {"gaussian": "variance"}.get(name, "weight")
    return weights.map(lambda w: LIKELIHOODS[name](**{field: w}))


any_likelihood = st.sampled_from(sorted(LIKELIHOODS)).flatmap(likelihoods)


@st.composite
def cases(draw: Any, pair: tuple[str, str] | None = None, activation: str | None = None) -> Case:
    """Draw a network of 1 to 4 synapses and a batch of 1 to 9 rows."""
    forward, backward = pair or draw(st.sampled_from(PAIRS))
    sizes = tuple(draw(st.lists(wide, min_size=2, max_size=5)))
    divisors = [[d for d in range(1, n + 1) if n % d == 0] for n in sizes]
    shared = draw(st.booleans())
    biases = tuple(draw(st.sampled_from(d)) if shared else d[-1] for d in divisors)
    return Case(
        sizes,
        biases,
        activation or draw(st.sampled_from(sorted(ACTIVATIONS))),
        draw(likelihoods(forward)),
        draw(likelihoods(backward)),
        rows=draw(st.integers(1, 9)),
        seed=draw(seeds),
        hard=draw(st.booleans()),
    )


@st.composite
def noises(draw: Any, kind: str | None = None, **fixed: Any) -> Noise:
    """Draw noise of any kind but none, with every option."""
    options = {
        "kind": kind or draw(st.sampled_from(KINDS)),
        "std": draw(st.floats(0.05, 1.0)),
        "decay": draw(st.sampled_from([0.0, 0.5, 1.0])),
        "clock": draw(st.sampled_from(["epoch", "iteration"])),
        "law": draw(st.sampled_from(["gaussian", "uniform"])),
        "mode": draw(st.sampled_from(["additive", "multiplicative"])),
        "screening": draw(st.sampled_from(["auto", "vector", "component"])),
        "rejected": draw(st.sampled_from(["reflect", "zero"])),
        "update": draw(st.sampled_from(["exact", "published", "zero-sum"])),
    }
    options |= fixed
    if options["update"] == "zero-sum" and options["screening"] == "component":
        options["screening"] = "auto"  # refused for softmax targets
    return Noise(**options)


# One strategy for each kind of synapse; test_laws_synapses demands that none is missing.
dense = st.builds(Dense, wide, wide)
SYNAPSES: dict[type[Synapse], st.SearchStrategy[Synapse]] = {
    Dense: dense,
    Transposed: st.builds(Transposed, dense | st.builds(Transposed, dense)),
}

__all__ = [
    "KINDS",
    "PAIRS",
    "SYNAPSES",
    "Bernoulli",
    "Case",
    "any_likelihood",
    "cases",
    "likelihoods",
    "noises",
    "one_hot",
    "seeds",
    "targets",
    "weights",
]
