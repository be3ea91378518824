"""Random networks and batches on which laws are tried.

A :class:`Case` holds sizes, kinds and one seed, and builds the same network and batch from them on
any device, so that a counterexample is a line of code.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np

from nembp.backend import Backend
from nembp.engine.activations import ACTIVATIONS, Activation, get_activation
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import LIKELIHOODS, Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.engine.linear import Dense, LinearMap
from nembp.engine.network import Layer, Network
from nembp.engine.noise import Noise
from nembp.verification.chains import random_chain

__all__ = ["PAIRS", "Case", "generate", "one_hot", "random_targets"]

Matrix = np.ndarray[Any, Any]

PAIRS = list(product(("multinomial", "gaussian", "bernoulli"), repeat=2))  # (forward, backward)
SPREAD = 0.6  # standard deviation of the parameters
CLASSES, IMAGE, SILENT = Multinomial(), Gaussian(), Noise()  # defaults of a case


def random_targets(
    likelihood: Likelihood, generator: np.random.Generator, rows: int, width: int, *, hard: bool
) -> Matrix:
    """Draw targets (rows, width) that ``likelihood`` can have; labels or bits if ``hard``.

    A likelihood that is none of nembp's own says so itself, by a method
    ``random_targets(generator, rows, width)``; without one its targets are means, link(z) of
    random z.

    >>> random_targets(Multinomial(), np.random.default_rng(0), 2, 3, hard=True)
    array([[0., 0., 1.],
           [0., 1., 0.]])
    """
    own = getattr(likelihood, "random_targets", None)
    if own is not None:
        return np.asarray(own(generator, rows, width), dtype=float)
    if isinstance(likelihood, Gaussian):
        return generator.normal(0.0, 1.5, (rows, width))
    if isinstance(likelihood, Multinomial):
        return one_hot(generator, rows, width) if hard else generator.dirichlet([1.0] * width, rows)
    if isinstance(likelihood, Bernoulli):
        return (
            np.round(generator.random((rows, width))) if hard else generator.random((rows, width))
        )
    return np.asarray(likelihood.at(generator.normal(0.0, 1.0, (rows, width))).a)


def one_hot(generator: np.random.Generator, rows: int, width: int) -> Matrix:
    """Draw labels as one-hot rows; some classes may have no row."""
    return np.eye(width)[generator.integers(0, width, rows)]


@dataclass(frozen=True)
class Case:
    """One random network and batch.

    Parameters
    ----------
    sizes : tuple of int
        Neurons of each layer.
    activation : str or Activation
        Of the hidden layers.
    forward, backward : Likelihood
        Ends of the two directions.
    rows : int
        Samples in the batch.
    seed : int
        Of everything random.
    hard : bool
        Whether targets are labels or bits where they can be.
    biases : tuple of int, optional
        Biases of each layer, a divisor of its neurons or 0; one a neuron by default.
    forward_noise, backward_noise : Noise
        On the targets of the two directions, in the laws about noise.
    maps : tuple of LinearMap, optional
        Between the layers; dense by default.
    linear : tuple of int
        Hidden layers without an activation, by index.
    normalized : tuple of int
        Hidden layers that are normalized, by index, where they have biases.
    epsilon : float
        ε of these.
    dtype : str
        Precision of the network.

    >>> case = Case((4, 3, 2), seed=1)
    >>> net, x, y = case.build()
    >>> net, x.shape, y.shape
    (Network(4-3-2, multinomial | gaussian, forward direction), (3, 4), (3, 2))
    """

    sizes: tuple[int, ...]
    activation: str | Activation = "tanh"
    forward: Likelihood = CLASSES
    backward: Likelihood = IMAGE
    rows: int = 3
    seed: int = 0
    hard: bool = True
    biases: tuple[int, ...] | None = None
    forward_noise: Noise = SILENT
    backward_noise: Noise = SILENT
    maps: tuple[LinearMap, ...] | None = None
    linear: tuple[int, ...] = ()
    normalized: tuple[int, ...] = ()
    epsilon: float = 0.1
    dtype: str = "float64"

    @property
    def analytic(self) -> bool:
        """Whether complex steps apply to the network."""
        return get_activation(self.activation).analytic

    @property
    def noise(self) -> dict[str, Noise]:
        """Noise by direction, where there is any."""
        both = {"forward": self.forward_noise, "backward": self.backward_noise}
        return {name: noise for name, noise in both.items() if noise.kind != "none"}

    def generator(self, name: str) -> np.random.Generator:
        """Return a generator of this case's own."""
        return np.random.default_rng([self.seed, *name.encode()])

    def net(self, dtype: str | None = None, device: str | Backend = "cpu") -> Network:
        """Build the network, every parameter and running statistic random."""
        hidden, last = get_activation(self.activation), len(self.sizes) - 1
        biases = self.biases or self.sizes
        layers = [Layer(size, None, count) for size, count in zip(self.sizes, biases, strict=True)]
        for k in range(1, last):
            f, normalization = None if k in self.linear else hidden, None
            if k in self.normalized and biases[k]:
                normalization = BatchNormalization(self.epsilon)
            layers[k] = Layer(self.sizes[k], f, biases[k], normalization)
        maps = self.maps or [Dense(m, n) for m, n in pairwise(self.sizes)]
        kind = dtype or self.dtype
        net = Network(
            layers, maps, self.forward, self.backward, device=device, dtype=kind, seed=None
        )
        draws = self.generator("parameters").normal(0.0, SPREAD, net.parameter_count)
        net.parameters[...] = net.backend.asarray(draws, kind)
        statistics = self.generator("statistics").uniform(0.3, 1.5, net.statistics_count)
        net.statistics[...] = net.backend.asarray(statistics, kind)
        return net

    def batch(self) -> tuple[Matrix, Matrix]:
        """Return x, which the backward direction aims at, and t, at which the forward one does.

        On the host, in float64, and representable in ``dtype``.
        """
        ends = ("x", self.backward, self.sizes[0]), ("t", self.forward, self.sizes[-1])
        x, t = (
            random_targets(end, self.generator(name), self.rows, width, hard=self.hard)
            for name, end, width in ends
        )
        return self.rounded(x), self.rounded(t)

    def labelled_batch(self) -> tuple[Matrix, Matrix]:
        """Return a batch whose forward targets are one-hot rows, whatever their likelihood."""
        return self.batch()[0], one_hot(self.generator("labels"), self.rows, self.sizes[-1])

    def build(self, device: str | Backend = "cpu") -> tuple[Network, Any, Any]:
        """Return network, x and y on a device."""
        net, (x, y) = self.net(device=device), self.batch()
        return net, net.backend.asarray(x, self.dtype), net.backend.asarray(y, self.dtype)

    def rounded(self, value: Matrix) -> Matrix:
        """Return float64 values that ``dtype`` can represent."""
        return np.asarray(value).astype(self.dtype).astype(float)

    def with_(self, **changes: Any) -> Case:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def generate(seed: int, index: int, dtype: str = "float64") -> Case:
    """Return the ``index``-th random case of a seed.

    Kinds go round in cycles of coprime lengths, so that 45 cases in a row have every activation
    with every pair of likelihoods, two cases of seven have images, and three of thirteen normalized
    layers; everything else is drawn.

    >>> generate(0, 5) == generate(0, 5)
    True
    """
    g = np.random.default_rng([seed, index])
    pair = PAIRS[index % len(PAIRS)]
    if index % 7 in (2, 5):
        chain = random_chain(
            lambda low, high: int(g.integers(low, high + 1)), int(g.integers(1, 5))
        )
        options = chain._asdict()
    else:
        drawn = tuple(int(n) for n in g.integers(1, 8, int(g.integers(2, 6))))
        options = {"sizes": drawn, "biases": _shared(drawn, g) if g.random() < 0.3 else None}
    sizes = options.pop("sizes")
    if index % 13 in (1, 5, 9):  # drawn apart, so that all else is as it would be
        chosen = np.random.default_rng([seed, index, 1]).random(len(sizes) - 2) < 0.7
        options["normalized"] = tuple(int(k) + 1 for k in np.flatnonzero(chosen))
    return Case(
        sizes,
        sorted(ACTIVATIONS)[index % len(ACTIVATIONS)],
        _likelihood(pair[0], g),
        _likelihood(pair[1], g),
        rows=int(g.integers(1, 10)),
        seed=int(g.integers(2**32)),
        hard=bool(g.random() < 0.5),
        forward_noise=_noise(g, index),
        backward_noise=_noise(g, index + 2),
        dtype=dtype,
        **options,
    )


def _shared(sizes: tuple[int, ...], g: np.random.Generator) -> tuple[int, ...]:
    """Return how many biases each layer has where neurons share them: any divisor."""
    return tuple(int(g.choice([d for d in range(1, n + 1) if n % d == 0])) for n in sizes)


def _likelihood(name: str, g: np.random.Generator) -> Likelihood:
    weight = round(float(10.0 ** g.uniform(-2.0, 2.0)), 6)
    field = "variance" if name == "gaussian" else "weight"
    return LIKELIHOODS[name](**{field: weight})


def _noise(g: np.random.Generator, index: int) -> Noise:
    options: dict[str, Any] = {
        "kind": ("nem", "blind", "anti", "drift")[(index + index // 4) % 4],
        "std": round(float(g.uniform(0.05, 1.0)), 3),
        "decay": float(g.choice([0.0, 0.5, 1.0])),
        "clock": str(g.choice(["epoch", "iteration"])),
        "law": str(g.choice(["gaussian", "uniform", "curvature"])),
        "mode": str(g.choice(["additive", "multiplicative"])),
        "screening": str(g.choice(["auto", "vector", "component", "expectation"])),
        "rejected": str(g.choice(["reflect", "zero"])),
        "update": str(g.choice(["exact", "published", "zero-sum"])),
        "draws": int(g.choice([1, 1, 3])),
    }
    if options["update"] == "zero-sum" and options["screening"] == "component":
        options["screening"] = "auto"  # refused for softmax targets
    return Noise(**options)
