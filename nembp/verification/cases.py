"""Random networks and batches on which laws are tried.

A :class:`Case` holds sizes, kinds and one seed, and builds the same network and batch from them on
any device. ``generate(seed, index)`` draws one, and so does the strategy ``nembp.testing.cases``,
which Hypothesis can make smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, permutations
from typing import Any, TypeAlias

import numpy as np

from nembp.backend import Backend
from nembp.engine.activations import ACTIVATIONS, Activation, get_activation
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Bipolar,
    Gaussian,
    Likelihood,
    Multinomial,
)
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Layer, Network
from nembp.engine.noise import Noise
from nembp.verification.definitions import Array, knows

Pick: TypeAlias = Callable[[int, int], int]  # a whole number between two bounds, both included
Shape: TypeAlias = tuple[int, int, int]

KINDS = ("multinomial", "gaussian", "bernoulli")
PAIRS = [(forward, backward) for forward in KINDS for backward in KINDS]
SPREAD = 0.6  # standard deviation of the parameters
CLASSES, IMAGE = Multinomial(), Gaussian()  # defaults of a case
SIDE, CHANNELS, NEURONS, WIDTH = 5, 3, 60, 7  # of one layer, at most


def random_targets(
    likelihood: Likelihood, generator: np.random.Generator, rows: int, width: int, *, hard: bool
) -> Array:
    """Draw targets (rows, width) that ``likelihood`` can have; labels or bits if ``hard``.

    A likelihood that is none of nembp's own says so itself, by a method
    ``random_targets(generator, rows, width)``; without one its targets are means, the output
    activation of random z.

    >>> random_targets(Multinomial(), np.random.default_rng(0), 2, 3, hard=True)
    array([[0., 0., 1.],
           [0., 1., 0.]])
    """
    own, shape = getattr(likelihood, "random_targets", None), (rows, width)
    if own is not None:
        return np.asarray(own(generator, rows, width), dtype=float)
    if isinstance(likelihood, Gaussian):
        return generator.normal(0.0, 1.5, shape)
    if isinstance(likelihood, Multinomial):
        return one_hot(generator, rows, width) if hard else generator.dirichlet([1.0] * width, rows)
    if isinstance(likelihood, Bernoulli | Bipolar):
        bits = np.round(generator.random(shape)) if hard else generator.random(shape)
        return bits if isinstance(likelihood, Bernoulli) else 2.0 * bits - 1.0
    return np.asarray(likelihood.at(generator.normal(0.0, 1.0, shape)).a)


def one_hot(generator: np.random.Generator, rows: int, width: int) -> Array:
    """Draw labels as one-hot rows; some classes may have no row."""
    return np.eye(width)[generator.integers(0, width, rows)]


@dataclass(frozen=True)
class Case:
    """One random network and batch.

    ``forward`` and ``backward`` are the likelihoods of the two directions, whose targets are labels
    or bits where they can be if ``hard``. Each layer has its own number of ``biases`` (a divisor of
    its neurons, or 0; one a neuron by default), and ``maps`` stand between the layers (dense by
    default). Hidden layers may be ``linear``, without an activation, or ``normalized``, and there
    may be ``noise`` on the target of a direction. The
    ``seed`` is of everything random.

    >>> case = Case((4, 3, 2), seed=1)
    >>> case.net(), case.batch()[0].shape
    (Network(4-3-2, multinomial | gaussian, forward direction), (3, 4))
    """

    sizes: tuple[int, ...]
    activation: str | Activation = "tanh"
    forward: Likelihood = CLASSES
    backward: Likelihood = IMAGE
    rows: int = 3
    seed: int = 0
    hard: bool = True
    biases: tuple[int, ...] | None = None
    noise: dict[str, Noise] = field(default_factory=dict)
    maps: tuple[LinearMap, ...] | None = None
    linear: tuple[int, ...] = ()
    normalized: tuple[int, ...] = ()
    dtype: str = "float64"

    def net(self, device: str | Backend = "cpu") -> Network:
        """Build the network, every parameter and running statistic random."""
        last, biases = len(self.sizes) - 1, self.biases or self.sizes
        layers = [Layer(size, None, count) for size, count in zip(self.sizes, biases, strict=True)]
        for k in range(1, last):
            f = None if k in self.linear else get_activation(self.activation)
            normal = k in self.normalized and biases[k]
            normalization = BatchNormalization(0.1) if normal else None
            layers[k] = Layer(self.sizes[k], f, biases[k], normalization)
        maps = self.maps or [Dense(m, n) for m, n in pairwise(self.sizes)]
        kind, ends = self.dtype, (self.forward, self.backward)
        net = Network(layers, maps, *ends, device=device, dtype=kind, seed=None)
        draws = self.generator("parameters").normal(0.0, SPREAD, net.parameter_count)
        net.parameters[...] = net.backend.asarray(draws, kind)
        statistics = self.generator("statistics").uniform(0.3, 1.5, net.statistics_count)
        net.statistics[...] = net.backend.asarray(statistics, kind)
        return net

    def batch(self) -> tuple[Array, Array]:
        """Return x, which the backward direction aims at, and t, at which the forward one does."""
        ends = ("x", self.backward, self.sizes[0]), ("t", self.forward, self.sizes[-1])
        x, t = (
            random_targets(end, self.generator(name), self.rows, width, hard=self.hard)
            for name, end, width in ends
        )
        return self.rounded(x), self.rounded(t)

    def generator(self, name: str) -> np.random.Generator:
        """Return a generator of this case's own."""
        return np.random.default_rng([self.seed, *name.encode()])

    def rounded(self, value: Array) -> Array:
        """Return float64 values that ``dtype`` can represent."""
        return np.asarray(value).astype(self.dtype).astype(float)

    @property
    def known(self) -> bool:
        """Whether the formula of every part is written out in the definitions."""
        net = self.net()
        parts = [*net.maps, *(layer.activation for layer in net.layers)]
        return all(knows(part) for part in (*parts, self.forward, self.backward))


@dataclass(frozen=True)
class Given(Case):
    """A user's own network and batch."""

    network: Network = field(kw_only=True)
    arrays: tuple[Array, Array] = field(kw_only=True)

    def net(self, device: str | Backend = "cpu") -> Network:
        return self.network.to(device=device, dtype=self.dtype)

    def batch(self) -> tuple[Array, Array]:
        return self.arrays


def generate(seed: int, index: int, dtype: str = "float64") -> Case:
    """Return the ``index``-th random case of a seed.

    Kinds go round in cycles of coprime lengths, so that 45 cases in a row have every activation
    with every pair of likelihoods, two cases of seven have images, and three of thirteen normalized
    layers; everything else is drawn.

    >>> generate(0, 5) == generate(0, 5)
    True
    """
    g = np.random.default_rng([seed, index])
    return random_case(
        lambda low, high: int(g.integers(low, high + 1)),
        PAIRS[index % len(PAIRS)],
        sorted(ACTIVATIONS)[index % len(ACTIVATIONS)],
        images=index % 7 in (2, 5),
        normalized=index % 13 in (1, 5, 9),
        dtype=dtype,
    )


def _one_of(pick: Pick, some: Sequence[Any]) -> Any:
    return some[pick(0, len(some) - 1)]


def random_case(
    pick: Pick,
    pair: tuple[str, str] | None = None,
    activation: str | None = None,
    *,
    images: bool | None = None,
    normalized: bool | None = None,
    dtype: str = "float64",
) -> Case:
    """Return a network of 1 to 4 linear maps and a batch of 1 to 9 rows."""
    forward, backward = pair or _one_of(pick, PAIRS)
    options = random_layers(pick, bool(pick(0, 1)) if images is None else images)
    if pick(0, 1) if normalized is None else normalized:
        hidden = range(1, len(options["sizes"]) - 1)
        options["normalized"] = tuple(k for k in hidden if pick(0, 2))
    return Case(
        activation=activation or _one_of(pick, sorted(ACTIVATIONS)),
        forward=random_likelihood(pick, forward),
        backward=random_likelihood(pick, backward),
        rows=pick(1, 9),
        seed=pick(0, 2**32 - 1),
        hard=bool(pick(0, 1)),
        noise={way: random_noise(pick) for way in ("forward", "backward")},
        dtype=dtype,
        **options,
    )


def random_likelihood(pick: Pick, name: str | None = None) -> Likelihood:
    """Return a likelihood with a weight, which is the Gaussian's variance, of 0.01 to 100."""
    kind = LIKELIHOODS[name or _one_of(pick, sorted(LIKELIHOODS))]
    field = "variance" if issubclass(kind, Gaussian) else "weight"
    return kind(**{field: round(10.0 ** (pick(-200, 200) / 100.0), 6)})


NOISE: dict[str, tuple[Any, ...]] = {
    "kind": ("nem", "blind", "anti", "drift"),
    "std": tuple(k / 20.0 for k in range(1, 21)),
    "decay": (0.0, 0.5, 1.0),
    "clock": ("epoch", "iteration"),
    "law": ("gaussian", "uniform", "curvature"),
    "mode": ("additive", "multiplicative"),
    "screening": ("auto", "vector", "component", "expectation"),
    "rejected": ("reflect", "zero"),
    "update": ("exact", "published", "zero-sum"),
    "draws": (1, 1, 3),
}


def random_noise(pick: Pick, *, softmax: bool = True, **fixed: Any) -> Noise:
    """Return noise of any kind but none, with every option that a (softmax) target allows."""
    options = {name: _one_of(pick, some) for name, some in NOISE.items()} | fixed
    if softmax and (options["update"], options["screening"]) == ("zero-sum", "component"):
        options["screening"] = "auto"  # the one pair that softmax targets refuse
    return Noise(**options)


# -- linear maps, and chains of them that fit one another ------------------------------------------
def random_map(
    pick: Pick, kind: type[LinearMap] | None = None, shape: Shape | None = None
) -> LinearMap:
    """Return a small linear map of a kind, of any of nembp's by default; of images of a shape.

    Strides may leave pixels over, and be longer than the kernel; some padding is needed by no
    window, and some windows see nothing but padding. Windows may overlap, or be the whole image.
    """
    kinds = Dense, Convolution, AveragePooling, Reshape, Transposed
    chosen, (height, width, below) = kind or _one_of(pick, kinds), shape or _shape(pick)
    if chosen is Dense:
        return Dense(pick(1, WIDTH), pick(1, WIDTH))
    if chosen is Transposed:
        return Transposed(random_map(pick))
    if chosen is AveragePooling:
        window = pick(1, height), pick(1, width)
        return AveragePooling((height, width, below), window, (pick(1, 3), pick(1, 3)))
    if chosen is Reshape:
        return Reshape((height, width, below), _one_of(pick, [None, *permutations(range(3))]))
    padding, stride = (pick(0, 2), pick(0, 2)), (pick(1, 3), pick(1, 3))
    kernel = tuple(
        pick(1, min(4, n + 2 * p)) for n, p in zip((height, width), padding, strict=True)
    )
    if pick(0, 4) == 0:
        padding, kernel = (0, 0), (height, width)
    one = Convolution((height, width, below), 1, (kernel[0], kernel[1]), stride, padding)
    return replace(one, channels=pick(1, max(1, min(CHANNELS, NEURONS // one.outputs))))


def random_layers(pick: Pick, images: bool) -> dict[str, Any]:
    """Return 1 to 4 linear maps that fit, dense or of images, as options of a :class:`Case`.

    Those of images go upward, as a classifier has them, or are turned around, as a generator.
    Layers above a map without weights are mostly linear and without biases, as engines have them;
    others have a bias a channel, a neuron, none, or any divisor.
    """
    count, some = (
        pick(1, 4),
        (Dense, Convolution, Convolution, Convolution, AveragePooling, Reshape),
    )
    flat = not images or (count > 1 and pick(0, 3) == 0)
    shapes: list[Any] = [(pick(1, WIDTH),) if flat else _shape(pick)]
    maps: list[Any] = []
    for _ in range(count):
        kind = Dense if len(shapes[-1]) == 1 else _one_of(pick, some)
        if kind is not Dense:
            maps.append(random_map(pick, kind, shapes[-1]))
            shapes.append(maps[-1].output_shape)
            continue
        to_image = images and len(shapes[-1]) == 1 and pick(0, 1)
        shapes.append(_shape(pick) if to_image else (pick(1, WIDTH),))
        maps.append(Dense(math.prod(shapes[-2]), math.prod(shapes[-1])))
    if images and pick(0, 2) == 0:
        shapes, maps = shapes[::-1], [Transposed(m) for m in maps[::-1]]
    sizes = tuple(math.prod(shape) for shape in shapes)
    linear: list[int] = []
    biases, plain = list(sizes), not images and pick(0, 2) > 0
    for k, size in enumerate(sizes if not plain else ()):
        divisors, end = [d for d in range(1, size + 1) if size % d == 0], k in (0, count)
        kinds = [size, shapes[k][-1], _one_of(pick, divisors), *([] if end else [0])]
        biases[k] = _one_of(pick, kinds)
        if not end and not maps[k - 1].weight_count and pick(0, 3):
            biases[k] = 0
            linear.append(k)
    options = {"sizes": sizes, "biases": tuple(biases), "linear": tuple(linear)}
    return options | ({"maps": tuple(maps)} if images else {})


def _shape(pick: Pick) -> Shape:
    height, width = pick(1, SIDE), pick(1, SIDE)
    return height, width, pick(1, min(CHANNELS, NEURONS // (height * width)))
