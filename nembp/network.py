"""Networks: layers of neurons joined by synapses, usable in both directions.

Signals, with layers 0..L and synapses 1..L; rows are samples:

    forward:   a⁰ = x, zᵏ = forward(aᵏ⁻¹) + bᵏ,    aᵏ = f(zᵏ),    at the output a = link(z)
    backward:  cᴸ = y, uᵏ⁻¹ = adjoint(cᵏ) + dᵏ⁻¹, cᵏ⁻¹ = f(uᵏ⁻¹), at the input  c = link(u)

with γ ẑ in the place of forward(aᵏ⁻¹) or adjoint(cᵏ) where a layer is normalized
(:mod:`nembp.normalization`).

All parameters live in one flat vector: weights, then forward biases, then backward biases, then
gains. The layers hold views of it, and so does ``net.reversed``, the same parameters seen from the
other end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nembp.backend import Array, Backend, get_backend
from nembp.errors import ArchitectureError
from nembp.given import dtype_name, given_rows
from nembp.layers import (
    Layer,
    Parameters,
    Running,
    add_bias,
    check_chain,
    initial_parameters,
    initial_statistics,
    parameter_count,
    parameter_views,
    statistics_count,
    statistics_views,
)
from nembp.likelihoods import Gaussian, Likelihood, Multinomial, Readout, get_likelihood
from nembp.neurons import Activation, get_activation
from nembp.normalization import (  # fmt: skip
    BatchNormalization,
    Statistics,
    normalize_by_running,
    normalizers,
)
from nembp.portable import Portable
from nembp.synapses import Dense, Synapse, Transposed

__all__ = ["Layer", "Network", "Parameters", "dense_network"]


class Network(Portable):
    """One network of two directions over the same weights.

    Parameters
    ----------
    layers : sequence of Layer
        Layers 0..L.
    synapses : sequence of Synapse
        Synapses 1..L; synapse k joins ``layers[k-1]`` to ``layers[k]``.
    forward, backward : Likelihood
        log p(y | x) at the output, log p(x | y) at the input.
    device, dtype : str or Backend, dtype_like
        Where, and in what precision the parameters live: float32 or float64.
    seed : int or None
        Of the initial weights, drawn on the host; None leaves all parameters zero.

    Attributes
    ----------
    parameters : array, shape (parameter_count,)
        The flat vector: ``weight_count`` weights, then forward biases, then backward biases, then
        forward gains γ, then backward gains, of the layers that are normalized.
    weights, biases, gains : list of array
        Its views in this direction.
    statistics : array, shape (statistics_count,)
        Running statistics of normalized layers, (mean, variance) of each forward, then backward:
        what predictions normalize by. Training moves them; they are no parameters.
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
        synapses: Sequence[Synapse],
        forward: Likelihood,
        backward: Likelihood,
        *,
        device: str | Backend = "cpu",
        dtype: DTypeLike = "float32",
        seed: int | None = 0,
    ) -> None:
        check_chain(layers, synapses)
        self.layers = tuple(layers)
        self.synapses = tuple(synapses)
        self.likelihood = forward
        self.backend = get_backend(device)
        self.dtype = dtype_name(dtype)
        self.direction = "forward"
        self.weight_count = sum(synapse.weight_count for synapse in synapses)
        self.reversed = _reversed_view(self, backward)
        flat = initial_parameters(layers, synapses, seed)
        self._bind(self.backend.asarray(flat, self.dtype))

    def _bind(self, flat: Array, statistics: Array = None) -> None:
        """Make ``flat`` the parameters of both directions, and rebuild all views."""
        if statistics is None:
            statistics = self.backend.asarray(initial_statistics(self.layers), self.dtype)
        both = statistics_views(self.layers, statistics)
        for net, running in zip((self, self.reversed), both, strict=True):
            net.parameters, net.statistics, net.running = flat, statistics, running
            views = net.views(flat)
            net.weights, net.biases, net.gains = views.weights, views.biases, views.gains

    parameters: Array
    statistics: Array
    weights: list[Array]
    biases: list[Array | None]
    gains: list[Array | None]
    running: Running

    def __repr__(self) -> str:
        sizes = "-".join(str(layer.size) for layer in self.layers)
        return (
            f"Network({sizes}, {self.likelihood.name} | {self.reversed.likelihood.name}, "
            f"{self.direction} direction)"
        )

    @property
    def inputs(self) -> int:
        """Neurons at this direction's input."""
        return self.layers[0].size

    @property
    def outputs(self) -> int:
        """Neurons at this direction's output."""
        return self.layers[-1].size

    @property
    def parameter_count(self) -> int:
        """Length of the flat vector."""
        return parameter_count(self.layers, self.synapses)

    @property
    def statistics_count(self) -> int:
        """Length of the vector of running statistics; 0 where no layer is normalized."""
        return statistics_count(self.layers)

    def views(self, flat: Array) -> Parameters:
        """Return the views of any vector laid out like ``parameters`` (a gradient, say)."""
        primary = self if self.direction == "forward" else self.reversed
        forward, backward = parameter_views(self.backend, primary.layers, primary.synapses, flat)
        return forward if self.direction == "forward" else backward

    def readout(self, x: Any, statistics: Statistics = "running") -> Readout:
        """Run this direction on ``x`` (rows, inputs) and return its readout.

        Parameters
        ----------
        statistics : {"running", "batch"}
            What normalized layers normalize by: running statistics, so that a row's result is its
            own, or those of ``x``, as in training.

        Raises
        ------
        ShapeError
            If ``x`` is no array of real numbers with ``inputs`` columns.
        """
        backend = self.backend
        a = self._check(x, self.inputs, "input")
        rows = a.shape[0]
        o = Readout.allocate(backend, rows, self.outputs, self.dtype)
        batch = normalizers(self, rows) if statistics == "batch" else [None] * len(self.layers)
        for k, synapse in enumerate(self.synapses, start=1):
            layer, last = self.layers[k], k == len(self.synapses)
            z = o.z if last else backend.empty((rows, layer.size), self.dtype)
            synapse.forward(backend, a, self.weights[k - 1], z)
            if (normalizer := batch[k]) is not None:
                normalizer.forward(z)
            else:
                normalize_by_running(self, k, z)
            add_bias(backend, z, self.biases[k], layer)
            if layer.activation is not None:
                layer.activation.activate(backend, z, backend.xp.empty_like(z))
            a = z
        self.likelihood.link(o)
        return o

    def predict(self, x: Any, statistics: Statistics = "running") -> Array:
        """Return this direction's output activations for ``x``, shape (rows, outputs).

        Class probabilities for a multinomial end, means for a Gaussian or Bernoulli one.
        ``statistics`` as in :meth:`readout`.
        """
        return self.readout(x, statistics).a

    def log_likelihood(self, x: Any, t: Any, statistics: Statistics = "running") -> Array:
        """Return log p(t | x) of each row in nats, shape (rows,); ``statistics`` as in `readout`.

        Raises
        ------
        ShapeError
            If ``x`` or ``t`` does not fit this direction; the message says whether they look
            swapped.
        """
        t = self._check(t, self.outputs, "target")
        return self.likelihood.log_likelihood(self.readout(x, statistics), t)[:, 0]

    def _check(self, value: Any, width: int, what: str) -> Array:
        return given_rows(self, value, width, what)


def _reversed_view(net: Network, backward: Likelihood) -> Network:
    other = object.__new__(Network)
    other.layers = net.layers[::-1]
    other.synapses = tuple(Transposed(synapse) for synapse in net.synapses[::-1])
    other.likelihood = backward
    other.backend, other.dtype = net.backend, net.dtype
    other.direction = "backward"
    other.weight_count = net.weight_count
    other.reversed = net
    return other


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
) -> Network:
    """Build a network of dense synapses.

    Parameters
    ----------
    sizes : sequence of int
        Neurons of each layer, input and output included.
    activation : str or Activation
        Of the hidden layers.
    normalization : BatchNormalization, optional
        Of the hidden layers; none by default.
    forward, backward : str or Likelihood
        Ends of the two directions; multinomial and Gaussian with v = 1 by default.

    Raises
    ------
    ArchitectureError
        If a size is not a positive integer, or a name is unknown.

    >>> dense_network([784, 512, 10])
    Network(784-512-10, multinomial | gaussian, forward direction)
    """
    for k, size in enumerate(sizes):
        if not isinstance(size, (int, np.integer)) or size < 1:
            raise ArchitectureError(
                f"layer {k} has size {size!r}; every layer needs a whole number of neurons ≥ 1"
            )
    hidden = get_activation(activation)
    last = len(sizes) - 1
    layers = [Layer(int(n)) for n in sizes]
    layers[1:last] = [Layer(int(n), hidden, None, normalization) for n in sizes[1:last]]
    synapses = [Dense(int(m), int(n)) for m, n in pairwise(sizes)]
    return Network(
        layers,
        synapses,
        get_likelihood(forward) if forward is not None else Multinomial(),
        get_likelihood(backward) if backward is not None else Gaussian(),
        device=device,
        dtype=dtype,
        seed=seed,
    )
