"""Networks: layers joined by linear maps, usable in both directions.

Signals, with layers 0..L and linear maps 1..L; rows are samples:

    forward:   a⁰ = x, zᵏ = forward(aᵏ⁻¹) + bᵏ,    aᵏ = f(zᵏ),    at the output softmax, identity
    backward:  cᴸ = y, uᵏ⁻¹ = adjoint(cᵏ) + dᵏ⁻¹, cᵏ⁻¹ = f(uᵏ⁻¹), or logistic of z, or of u

with γ ẑ in the place of forward(aᵏ⁻¹) or adjoint(cᵏ) where a layer is normalized
(:mod:`nembp.engine.batchnorm`).

All parameters live in one flat vector: weights, forward biases, backward biases, then gains γ
likewise. The layers hold views of it, and so does ``net.reversed``, the same parameters seen from
the other end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate, pairwise
from numbers import Real
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from nembp.backend import Array, Backend, get_backend, stream
from nembp.engine.activations import Activation, get_activation
from nembp.engine.batchnorm import BatchNormalization, Counts, Normalizer, Statistics
from nembp.engine.likelihoods import Likelihood, Readout, get_likelihood
from nembp.engine.linear import Dense, LinearMap, Transposed, cut
from nembp.errors import ArchitectureError, ShapeError
from nembp.threads import run_parallel

Vector: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layer:
    """A layer of a network."""

    size: int  # units
    activation: Activation | None = None  # f of a hidden layer; at the ends the likelihood has one
    # of each direction: one per unit by default, one per channel where units share them, 0 for none
    bias_size: int | None = None
    # of a hidden layer's pre-activations, in each direction by itself: by unit or channel, as the
    # biases are (`nembp.engine.batchnorm`)
    normalization: BatchNormalization | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or self.biases < 0 or self.size % max(self.biases, 1):
            raise ArchitectureError(
                f"a layer needs at least 1 unit and a bias count that divides it, got {self.size} "
                f"units and {self.biases} biases"
            )
        if not isinstance(self.normalization, BatchNormalization | None):
            raise ArchitectureError(
                f"normalization must be a BatchNormalization or None, got {self.normalization!r}"
            )
        if self.normalization is not None and not self.biases:
            raise ArchitectureError(
                f"a normalized layer of {self.size} units needs biases, one per unit or channel"
            )

    @cached_property
    def biases(self) -> int:
        """How many biases each direction has."""
        return self.size if self.bias_size is None else self.bias_size

    @cached_property
    def gains(self) -> int:
        """How many gains γ each direction has: one for each bias, or none."""
        return 0 if self.normalization is None else self.biases


class Parameters(NamedTuple):
    """Views of one flat vector, in the order of one direction."""

    weights: list[Array]  # W of linear map k at index k − 1
    biases: list[Array | None]  # of layer k in this direction at index k; None for its input layer
    gains: list[Array | None]  # γ likewise; None where layer k is not normalized


def parameter_count(layers: Sequence[Layer], maps: Sequence[LinearMap]) -> int:
    """Return the length of the flat vector of parameters."""
    both = (*layers[1:], *layers[:-1])
    return sum(m.weight_count for m in maps) + sum(each.biases + each.gains for each in both)


def _pieces(flat: Array, sizes: Sequence[int]) -> list[Array]:
    """Return the views of consecutive pieces of a vector."""
    return [flat[start:stop] for start, stop in pairwise(accumulate(sizes, initial=0))]


def statistics_count(layers: Sequence[Layer]) -> int:
    """Return the length of the flat vector of running statistics: μ and σ² of each γ."""
    return 2 * sum(layer.gains for layer in (*layers[1:], *layers[:-1]))


def statistics_views(layers: Sequence[Layer], flat: Array) -> tuple[list[Any], list[Any]]:
    """Return each direction's (mean, variance) by layer, None where it is not normalized."""
    both, last = (*layers[1:], *layers[:-1]), len(layers) - 1
    pieces = _pieces(flat, [layer.gains for layer in both for _ in ("mean", "variance")])
    pairs = zip(pieces[::2], pieces[1::2], strict=True)
    views = [pair if pair[0].shape[0] else None for pair in pairs]
    return [None, *views[:last]], [None, *views[last:][::-1]]


def check_chain(layers: Sequence[Layer], maps: Sequence[LinearMap]) -> None:
    """Raise an ArchitectureError unless linear maps join the layers that they stand between."""
    if len(layers) < 2 or len(maps) != len(layers) - 1:
        raise ArchitectureError(
            f"a network needs at least 2 layers and one linear map less than layers, got "
            f"{len(layers)} layers and {len(maps)} linear maps"
        )
    for k, linear_map in enumerate(maps, start=1):
        ends = (layers[k - 1].size, layers[k].size)
        if (linear_map.inputs, linear_map.outputs) != ends:
            raise ArchitectureError(
                f"linear map {k} joins {linear_map.inputs} to {linear_map.outputs} units, but "
                f"layers {k - 1} and {k} have {ends[0]} and {ends[1]}"
            )
    for k in (0, len(layers) - 1):
        if layers[k].normalization is not None:
            raise ArchitectureError(
                f"layer {k} is normalized, but it is an end of the network, whose likelihood's "
                "output activation takes z as it is; normalize hidden layers only"
            )


class LayerSide:
    """Layer k of a direction, counted from its input, at work on a fixed number of rows.

    ``groups`` counts rows that are normalized together, such as real and generated samples: what a
    network is shown of one kind alone, it has then been trained on (as usual since Radford, Metz
    and Chintala, DCGAN, arXiv:1511.06434). ``counts`` are the samples that each row stands for;
    ``workers`` share the rows, and several layers may share ``scratch``.
    """

    def __init__(
        self,
        net: Network,
        k: int,
        rows: int,
        *,
        scratch: Array = None,
        groups: Sequence[int] | None = None,
        counts: Counts | None = None,
        statistics: Statistics = "batch",
        workers: int = 1,
    ) -> None:
        layer, backend = net.layers[k], net.backend
        self.activation, self._backend = layer.activation, backend
        self.bias = net.biases[k] if layer.biases else None
        self.normalizers: list[tuple[slice, Normalizer]] = []
        if layer.normalization is not None:
            of: Any = layer.normalization, net.gains[k], net.running[k], counts, statistics, workers
            for group in pairwise(accumulate(groups or (rows,), initial=0)):
                size = group[1] - group[0], layer.size
                self.normalizers.append((slice(*group), Normalizer(backend, net.dtype, *size, *of)))
        if scratch is None:
            scratch = backend.empty((rows * layer.size,), net.dtype)
        self._scratch = backend.xp.reshape(scratch[: rows * layer.size], (rows, layer.size))
        self._shares = cut(0, rows, min(workers, rows), unit=8)
        self._noise: Array = None
        self._clean: Array = None

    def add_noise(self, n: Array) -> None:
        """Add what ``n`` then holds to every signal; derivatives are taken without it."""
        self._noise, self._clean = n, self._backend.xp.empty_like(n)

    def signal(self, z: Array, *, held: bool = False) -> None:
        """Write a = f(γ ẑ + b) over ``z`` (rows, size); ``held``: by the last statistics."""
        for group, normalizer in self.normalizers:
            normalizer.forward(z[group, :], held=held)
        activate, f = self._backend.activate, self.activation
        bias, scratch = self.bias, self._scratch
        if len(self._shares) == 1:
            activate(f, z, bias, scratch)
        else:
            run_parallel(lambda rows: activate(f, z[rows, :], bias, scratch[rows, :]), self._shares)
        if self._noise is not None:
            self._clean[...] = z
            z += self._noise

    def error(self, error: Array, a: Array) -> None:
        """Turn ∂/∂a into ∂/∂z in place, with ``a`` as :meth:`signal` left it."""
        multiply, f, scratch = self._backend.multiply_derivative, self.activation, self._scratch
        a = a if self._clean is None else self._clean
        if f is not None and len(self._shares) == 1:
            multiply(f, error, a, scratch)
        elif f is not None:

            def share(rows: slice) -> None:
                multiply(f, error[rows, :], a[rows, :], scratch[rows, :])

            run_parallel(share, self._shares)
        for group, normalizer in self.normalizers:
            normalizer.pull_back(error[group, :])


class Network:
    """One network of two directions over the same weights.

    Parameters
    ----------
    layers : sequence of Layer
        Layers 0..L.
    maps : sequence of LinearMap
        Linear maps 1..L; linear map k joins ``layers[k-1]`` to ``layers[k]``.
    forward, backward : Likelihood or str, optional
        log p(y | x) at the output, log p(x | y) at the input; multinomial, and Gaussian with v = 1
        by default.
    device, dtype : str or Backend, dtype_like
        Where, and in what precision the parameters live: float32 or float64.
    seed : int or None
        Of the initial weights, drawn on the host; None leaves all parameters zero.
    initial : {"glorot", "he"} or float
        Initial weights: normal with variance 2 / (fan in + fan out), which treats both directions
        alike, or 2 / fan in, or of a standard deviation. Your own go into ``net.weights[k][...]``.

    Attributes
    ----------
    parameters : array, shape (parameter_count,)
        The flat vector: ``weight_count`` weights, then forward biases, then backward biases, then
        forward gains γ, then backward gains, of the layers that are normalized.
    weights, biases, gains : list of array
        Its views in this direction.
    statistics : array, shape (statistics_count,)
        Running statistics of normalized layers, (mean, variance) of each forward, then backward:
        what predictions normalize by. They are no parameters.
    running : list of (mean, variance) or None
        Their views in this direction, by layer.
    likelihood : Likelihood
        At this direction's end.
    reversed : Network
        The other direction of the same parameters: ``net.reversed.reversed is net``.

    Examples
    --------
    >>> import numpy as np
    >>> net = dense_network([4, 8, 3], seed=0)
    >>> net.predict(np.zeros((2, 4), dtype=np.float32)).shape
    (2, 3)
    >>> net.reversed.predict(np.eye(3, dtype=np.float32)).shape
    (3, 4)
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        maps: Sequence[LinearMap],
        forward: str | Likelihood | None = None,
        backward: str | Likelihood | None = None,
        *,
        device: str | Backend = "cpu",
        dtype: DTypeLike = "float32",
        seed: int | None = 0,
        initial: str | float = "glorot",
    ) -> None:
        check_chain(layers, maps)
        number = isinstance(initial, Real) and 0.0 < initial < math.inf
        if not number and not (isinstance(initial, str) and initial in ("glorot", "he")):
            raise ArchitectureError(
                "initial weights must be 'glorot', 'he' or a standard deviation > 0, got "
                f"{initial!r:.60}; your own go into net.weights[k][...]"
            )
        other: Any = object.__new__(Network)
        self.reversed: Network = other
        other.reversed = self
        self.direction, other.direction = "forward", "backward"
        self.layers, other.layers = tuple(layers), tuple(layers)[::-1]
        self.maps, other.maps = tuple(maps), tuple(Transposed(m) for m in maps[::-1])
        self.likelihood = get_likelihood("multinomial" if forward is None else forward)
        other.likelihood = get_likelihood("gaussian" if backward is None else backward)
        self.inputs = other.outputs = layers[0].size
        self.outputs = other.inputs = layers[-1].size
        self.weight_count = other.weight_count = sum(m.weight_count for m in maps)
        self.parameter_count = other.parameter_count = parameter_count(layers, maps)
        self.statistics_count = other.statistics_count = statistics_count(layers)
        self.backend = other.backend = get_backend(device)
        self.dtype = other.dtype = dtype_name(dtype)
        zeros = self.backend.zeros
        self.parameters = other.parameters = zeros((self.parameter_count,), self.dtype)
        self.statistics = other.statistics = zeros((self.statistics_count,), self.dtype)
        self.running, other.running = statistics_views(layers, self.statistics)
        self.weights, self.biases, self.gains = self.views(self.parameters)
        other.weights, other.biases, other.gains = other.views(self.parameters)
        for pair in (*self.running, *other.running):
            if pair is not None:
                pair[1][...] = 1.0  # variances of nothing seen
        if seed is not None:
            self._initialize(stream(seed, "weights"), initial)

    def _initialize(self, generator: np.random.Generator, initial: str | float) -> None:
        """Draw the weights on the host, and set the gains to 1."""
        for linear_map, W in zip(self.maps, self.weights, strict=True):
            drawn = linear_map.initial_weights(generator)
            if initial != "glorot":  # the same draws, of another standard deviation
                fan_in, fan_out = linear_map.fans
                std = math.sqrt(2.0 / fan_in) if initial == "he" else float(initial)
                drawn = drawn * (std / math.sqrt(2.0 / (fan_in + fan_out)))
            W[...] = self.backend.asarray(np.reshape(drawn, linear_map.weight_shape), self.dtype)
        for gain in (*self.gains, *self.reversed.gains):
            if gain is not None:
                gain[...] = 1.0

    def __repr__(self) -> str:
        sizes = "-".join(str(layer.size) for layer in self.layers)
        return (
            f"Network({sizes}, {self.likelihood.name} | {self.reversed.likelihood.name}, "
            f"{self.direction} direction)"
        )

    def views(self, flat: Array) -> Parameters:
        """Return the views of any vector laid out like ``parameters`` (a gradient, say)."""
        forward, last = self if self.direction == "forward" else self.reversed, len(self.maps)
        both = (*forward.layers[1:], *forward.layers[:-1])
        shapes = [m.weight_shape for m in forward.maps]
        sizes = [math.prod(shape) for shape in shapes]
        sizes += [layer.biases for layer in both] + [layer.gains for layer in both]
        pieces = _pieces(flat, sizes)
        weights = [self.backend.xp.reshape(*each) for each in zip(pieces, shapes, strict=False)]
        up, down, *gains = (pieces[k * last : (k + 1) * last] for k in range(1, 5))
        up_gains, down_gains = ([g if g.shape[0] else None for g in each] for each in gains)
        if self is forward:
            return Parameters(weights, [None, *up], [None, *up_gains])
        return Parameters(weights[::-1], [None, *down[::-1]], [None, *down_gains[::-1]])

    def readout(self, x: Any, statistics: Statistics = "running") -> Readout:
        """Run this direction on ``x`` (rows, inputs) and return its readout.

        Normalized layers normalize by their running ``statistics``, so that a row's result is its
        own, or by those of the ``"batch"`` ``x``, as in training.
        """
        backend, a = self.backend, self._check(x, self.inputs, "input")
        rows = a.shape[0]
        o = Readout(backend, rows, self.outputs, self.dtype)
        for k, linear_map in enumerate(self.maps, start=1):
            layer, last = self.layers[k], k == len(self.maps)
            z = o.z if last else backend.empty((rows, layer.size), self.dtype)
            linear_map.forward(backend, a, self.weights[k - 1], z)
            LayerSide(self, k, rows, statistics=statistics).signal(z)
            a = z
        self.likelihood.activate(o)
        return o

    def predict(self, x: Any, statistics: Statistics = "running") -> Array:
        """Return this direction's output activations for ``x``, shape (rows, outputs).

        Class probabilities of a multinomial likelihood, means of a Gaussian or Bernoulli one.
        ``statistics`` as in :meth:`readout`.
        """
        return self.readout(x, statistics).a

    def log_likelihood(self, x: Any, t: Any, statistics: Statistics = "running") -> Array:
        """Return log p(t | x) of each row in nats, shape (rows,); ``statistics`` as in `readout`.

        A ShapeError says what does not fit this direction, and whether the two look swapped.
        """
        x, t = self._check_batch(x, t)
        return self.likelihood.log_likelihood(self.readout(x, statistics), t)[:, 0]

    def _check(self, value: Any, width: int, what: str) -> Array:
        """Return rows that a user gave for one end, in the network's precision, on its device."""
        name = "net" if self.direction == "forward" else "net.reversed"
        expected = f"{name} expects (rows, {width})"
        array = _numbers(self.backend, value, self.dtype, what, expected)
        if array.ndim != 2 or array.shape[1] != width:
            other = self.outputs if width == self.inputs else self.inputs
            swapped = array.ndim == 2 and array.shape[1] == other
            hint = "; did you swap x and y?" if swapped else ""
            raise ShapeError(f"{what} has shape {tuple(array.shape)} but {expected}{hint}")
        if not array.shape[0]:
            raise ShapeError(f"{what} has no rows; expected at least one sample")
        return array

    def _check_batch(self, x: Any, t: Any) -> tuple[Array, Array]:
        """Return inputs and targets that a user gave, of as many rows."""
        t, x = self._check(t, self.outputs, "target"), self._check(x, self.inputs, "input")
        if x.shape[0] != t.shape[0]:
            raise ShapeError(f"the input has {x.shape[0]} rows, but the target has {t.shape[0]}")
        return x, t

    # -- copies: each has its own vectors, and both directions look at them ----------------------
    def to(self, device: str | Backend | None = None, dtype: DTypeLike | None = None) -> Network:
        """Return a copy on another device or in another precision, seen from this direction."""
        if self.direction == "backward":
            return self.reversed.to(device, dtype).reversed
        device = self.backend if device is None else device
        dtype = self.dtype if dtype is None else dtype
        ends = self.likelihood, self.reversed.likelihood
        copy = Network(self.layers, self.maps, *ends, device=device, dtype=dtype, seed=None)
        copy.restore(self.snapshot())
        return copy

    def copy(self) -> Network:
        """Return an independent copy."""
        return self.to()

    def snapshot(self) -> tuple[Vector, Vector]:
        """Return all that training moves, copied to the host: parameters, running statistics."""
        return self.backend.to_numpy(self.parameters), self.backend.to_numpy(self.statistics)

    def restore(self, snapshot: tuple[Any, ...]) -> None:
        """Write what :meth:`snapshot` returned back in place, for both directions."""
        for flat, kept in zip((self.parameters, self.statistics), snapshot, strict=True):
            flat[...] = self.backend.asarray(kept, self.dtype)

    __copy__, __setstate__ = copy, restore

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        copied = self.to()
        memo[id(self)], memo[id(self.reversed)] = copied, copied.reversed
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        if self.direction == "backward":  # through the forward one, so that a pair stays a pair
            return attrgetter("reversed"), (self.reversed,)
        made = partial(Network, dtype=self.dtype, seed=None)  # on the CPU, wherever this one is
        parts = self.layers, self.maps, self.likelihood, self.reversed.likelihood
        return made, parts, self.snapshot()


def dense_network(
    sizes: Sequence[int],
    *,
    activation: str | Activation = "relu",
    normalization: BatchNormalization | None = None,
    forward: str | Likelihood | None = None,
    backward: str | Likelihood | None = None,
    device: str | Backend = "cpu",
    dtype: DTypeLike = "float32",
    seed: int = 0,
    initial: str | float = "glorot",
    bias: bool = True,
) -> Network:
    """Build a network of dense linear maps.

    Parameters
    ----------
    sizes : sequence of int
        Units of each layer, input and output included.
    activation, normalization : str or Activation, BatchNormalization or None
        Of the hidden layers.
    forward, backward, device, dtype, seed, initial
        As of `Network`.
    bias : bool
        Whether layers have biases, of each direction.

    >>> dense_network([784, 512, 10])
    Network(784-512-10, multinomial | gaussian, forward direction)
    """
    for k, size in enumerate(sizes):
        if not isinstance(size, (int, np.integer)) or size < 1:
            raise ArchitectureError(
                f"layer {k} has size {size!r}; every layer needs a whole number of units ≥ 1"
            )
    hidden = get_activation(activation)
    last = len(sizes) - 1
    biases = None if bias else 0
    layers = [Layer(int(n), None, biases) for n in sizes]
    layers[1:last] = [Layer(int(n), hidden, biases, normalization) for n in sizes[1:last]]
    maps = [Dense(int(m), int(n)) for m, n in pairwise(sizes)]
    options: Any = {"device": device, "dtype": dtype, "seed": seed, "initial": initial}
    return Network(layers, maps, forward, backward, **options)


# -- what users give, as what a network computes with ------------------------------------------

_NO_NUMBERS: Final = {
    "c": ("holds complex numbers", "give its real part or its magnitudes"),
    **dict.fromkeys("SUT", ("holds text", "convert it to numbers, as by np.asarray(..., float)")),
    **dict.fromkeys("mM", ("holds dates or durations", "give them as numbers, in a unit")),
}


def dtype_name(dtype: Any) -> str:
    """Return the name of a network's precision, however NumPy lets it be said.

    It is float32 or float64 (or complex128, in which gradients are verified).

    >>> dtype_name(np.float64), dtype_name(np.dtype("f4"))
    ('float64', 'float32')
    """
    try:
        name = "" if dtype is None else np.dtype(dtype).name
    except (TypeError, ValueError, SyntaxError):  # the last of text that reads like several dtypes
        name = ""
    if name not in ("float32", "float64", "complex128"):
        raise ArchitectureError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    return name


def _numbers(backend: Backend, value: Any, dtype: str, what: str, expected: str) -> Array:
    """Return what a user gave, an array_like of real numbers, as an array of a backend.

    ``what`` and ``expected`` are what messages call it and say of it. Complex numbers fit a complex
    ``dtype``.
    """
    if hasattr(value, "toarray"):
        came = f"a sparse {type(value).__name__} of shape {tuple(value.shape)}"
        raise ShapeError(f"{what} is {came} but {expected}, dense; give its .toarray()")
    cause = None
    try:
        found = value if hasattr(value, "dtype") else np.asarray(value)
        kind = getattr(found.dtype, "kind", "")  # which other libraries' dtypes lack
        kind = kind or ("c" if "complex" in str(found.dtype) else "")
        if kind not in _NO_NUMBERS or (kind == "c" and dtype.startswith("complex")):
            return backend.asarray(found, dtype)
        came, remedy = _NO_NUMBERS[kind]
    except (TypeError, ValueError, OverflowError) as error:
        cause, reason = error, str(error).partition("\n")[0].rstrip(".")
        came = f"is a {type(value).__name__} that cannot be read as an array ({reason})"
        remedy = "give a NumPy array, or a list of rows of numbers"
        rows = value if isinstance(value, Sequence) else ()
        lengths = {len(r) for r in rows if isinstance(r, Sequence) or np.ndim(r) > 0}
        if len(lengths) > 1:
            came = f"has rows of {min(lengths)} to {max(lengths)} values"
            remedy = "give all rows the same number of values"
    raise ShapeError(f"{what} {came} but {expected} of real numbers; {remedy}") from cause
