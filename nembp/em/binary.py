"""A network with a stochastic binary hidden layer, small enough that nothing is hidden.

    x → h ∈ {0, 1}ᴶ → y        p(h | x) = Π_j σ(z_j)^h_j (1 − σ(z_j))^(1−h_j),  z = x W¹ + b¹
                               p(y | h) = a likelihood of h W² + b²

and over the same weights in the other direction

    y → h → x                  p(h | y): z = y W²ᵀ + d¹,   p(x | h): a likelihood of h W¹ᵀ + d⁰.

All 2ᴶ hidden states are enumerated, so p(y | x), the posterior and every expectation are finite
sums. The flat parameter vector Θ is laid out as in the engine: weights, forward biases,
backward biases.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from nembp.em.screening import Matrix
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood
from nembp.errors import ArchitectureError, ShapeError

__all__ = ["BinaryNetwork", "Direction", "Ends", "Layers", "OneWay", "log_sum_exp", "one_way"]

Direction = Literal["forward", "backward", "joint"]
OneWay = Literal["forward", "backward"]
MAX_HIDDEN = 14  # 2¹⁴ states a row


class Layers(NamedTuple):
    """Parameters of one direction, source → h → target, as views of a flat vector.

    W (sources, hidden) and b (hidden,) feed the hidden layer, V (hidden, targets) and c (targets,)
    the end. In the backward direction W and V are the transposes of the forward V and W.
    """

    W: Matrix
    b: Matrix
    V: Matrix
    c: Matrix


class Ends(NamedTuple):
    """What one direction maps from (rows, sources), maps to (rows, targets), and the likelihood."""

    source: Matrix
    target: Matrix
    likelihood: Likelihood


def one_way(direction: Direction) -> tuple[OneWay, ...]:
    """Return the directions that ``direction`` sums.

    >>> one_way("joint")
    ('forward', 'backward')
    """
    if direction not in get_args(Direction):
        options = ", ".join(get_args(Direction))
        raise ArchitectureError(f"direction must be one of {options}, got {direction!r}")
    return ("forward", "backward") if direction == "joint" else (direction,)


@dataclass(frozen=True)
class BinaryNetwork:
    """Shape and likelihoods of the network; its parameters Θ are passed to each function.

    Parameters
    ----------
    inputs, hidden, outputs : int
        Neurons in each layer; at most 14 hidden ones.
    forward, backward : Likelihood
        log p(y | h) at the output, log p(x | h) at the input.

    Raises
    ------
    ArchitectureError
        If a layer is empty or there are too many hidden states to enumerate.

    >>> net = BinaryNetwork(2, 3, 1)
    >>> net.parameter_count, net.states.shape
    (18, (8, 3))
    """

    inputs: int
    hidden: int
    outputs: int
    forward: Likelihood = field(default_factory=Bernoulli)
    backward: Likelihood = field(default_factory=Gaussian)

    def __post_init__(self) -> None:
        for name in ("inputs", "hidden", "outputs"):
            if getattr(self, name) < 1:
                raise ArchitectureError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.hidden > MAX_HIDDEN:
            raise ArchitectureError(
                f"{self.hidden} hidden neurons have 2^{self.hidden} states; enumeration stops at "
                f"{MAX_HIDDEN} neurons, so make the hidden layer smaller"
            )

    @property
    def parameter_count(self) -> int:
        """Length of Θ."""
        inputs, hidden, outputs = self.inputs, self.hidden, self.outputs
        return inputs * hidden + hidden * outputs + hidden + outputs + inputs + hidden

    @property
    def states(self) -> Matrix:
        """Every hidden state h, shape (2ᴶ, J), of 0.0 and 1.0."""
        index = np.arange(2**self.hidden)[:, None]
        return ((index >> np.arange(self.hidden)) & 1).astype(np.float64)

    def initial(self, generator: np.random.Generator, scale: float = 1.0) -> Matrix:
        """Draw Θ from N(0, ``scale``²)."""
        return scale * generator.standard_normal(self.parameter_count)

    def layers(self, theta: Any, direction: OneWay) -> Layers:
        """Return one direction's parameters as views of ``theta`` (writable if it is)."""
        inputs, hidden, outputs = self.inputs, self.hidden, self.outputs
        theta = np.asarray(theta)
        if theta.shape != (self.parameter_count,):
            raise ShapeError(f"theta must have shape ({self.parameter_count},), got {theta.shape}")
        lengths = [inputs * hidden, hidden * outputs, hidden, outputs, inputs, hidden]
        w1, w2, b1, b2, d0, d1 = np.split(theta, np.cumsum(lengths)[:-1])
        W1, W2 = w1.reshape(inputs, hidden), w2.reshape(hidden, outputs)
        if direction == "forward":
            return Layers(W1, b1, W2, b2)
        return Layers(W2.T, d1, W1.T, d0)

    def target_likelihood(self, direction: OneWay) -> Likelihood:
        """Return the likelihood of the target of ``direction``."""
        return self.forward if direction == "forward" else self.backward

    def ends(self, x: Any, y: Any, direction: OneWay) -> Ends:
        """Return the source, target and likelihood of ``direction``, shapes checked."""
        x = self.rows("x", x)
        y = self.rows("y", y)
        if len(x) != len(y):
            raise ShapeError(
                f"x and y must have the same number of rows, got {len(x)} and {len(y)}"
            )
        source, target = (x, y) if direction == "forward" else (y, x)
        return Ends(source, target, self.target_likelihood(direction))

    def log_hidden(self, theta: Any, source: Matrix, direction: OneWay) -> Matrix:
        """Return log p(h | source) = Σ_j h_j z_j − log(1 + e^z_j), shape (rows, states)."""
        p = self.layers(theta, direction)
        z = source @ p.W + p.b
        log_p: Matrix = z @ self.states.T - np.logaddexp(0.0, z).sum(axis=1, keepdims=True)
        return log_p

    def log_target(self, theta: Any, target: Matrix, direction: OneWay) -> Matrix:
        """Return log p(target | h), shape (rows, states)."""
        likelihood = self.target_likelihood(direction)
        z, t = self.readout_rows(theta, target, direction)
        log_p: Matrix = likelihood.log_likelihood(likelihood.at(z), t).reshape(len(target), -1)
        return log_p

    def readout_rows(self, theta: Any, target: Matrix, direction: OneWay) -> tuple[Matrix, Matrix]:
        """Return z = h V + c and the target, one row for each pair (row, state), states inner."""
        p = self.layers(theta, direction)
        z = self.states @ p.V + p.c
        return np.tile(z, (len(target), 1)), np.repeat(target, len(z), axis=0)

    def log_joint(self, theta: Any, x: Any, y: Any, direction: OneWay = "forward") -> Matrix:
        """Return log p(y, h | x, Θ) = log p(y | h) + log p(h | x), shape (rows, states), in nats.

        In the backward direction x and y change places.
        """
        source, target, _ = self.ends(x, y, direction)
        return self.log_target(theta, target, direction) + self.log_hidden(theta, source, direction)

    def log_likelihood(self, theta: Any, x: Any, y: Any, direction: Direction = "forward") -> float:
        """Return log p(y | x, Θ) = Σ_rows log Σ_h p(y, h | x, Θ), in nats.

        The backward direction's is log p(x | y, Θ), the joint one the sum of both.
        """
        total = 0.0
        for way in one_way(direction):
            total += float(log_sum_exp(self.log_joint(theta, x, y, way)).sum())
        return total

    def rows(self, name: Literal["x", "y"], value: Any) -> Matrix:
        """Return ``value`` as float64 rows of x or y, or raise :class:`ShapeError`."""
        width = self.inputs if name == "x" else self.outputs
        rows = np.asarray(value, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
            raise ShapeError(f"{name} must have shape (rows ≥ 1, {width}), got {rows.shape}")
        if not np.isfinite(rows).all():
            raise ShapeError(f"{name} must be finite; remove its NaN and infinite entries")
        return rows


def log_sum_exp(log_p: Matrix) -> Matrix:
    """Return log Σ_s e^log_p of each row without overflow, shape (rows, 1)."""
    top = log_p.max(axis=1, keepdims=True)
    return np.asarray(top + np.log(np.exp(log_p - top).sum(axis=1, keepdims=True)))
