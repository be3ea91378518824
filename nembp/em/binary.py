"""A network with a stochastic binary hidden layer, small enough that nothing is hidden.

    x → h ∈ {0, 1}ᴶ → y        p(h | x) = Π_j σ(z_j)^h_j (1 − σ(z_j))^(1−h_j),  z = x W¹ + b¹
                               p(y | h) = a likelihood of h W² + b²

and over the same weights in the other direction

    y → h → x                  p(h | y): z = y W²ᵀ + d¹,   p(x | h): a likelihood of h W¹ᵀ + d⁰.

All 2ᴶ hidden states are enumerated, so that every expectation is a finite sum. Three theorems can
then be seen in numbers, in either direction or summed over both:

**EM's two terms.** With the posterior r(h) = p(h | y, x, Θₙ), log p(y | x, Θ) = Q + H:

    Q(Θ | Θₙ) =  Σ_h r(h) log p(y, h | x, Θ)
    H(Θ | Θₙ) = −Σ_h r(h) log p(h | y, x, Θ)     ≥ H(Θₙ | Θₙ), the posterior's entropy.

H is least at Θ = Θₙ (Gibbs), so ∇H = 0 there and ∇ log p = ∇Q: Fisher's identity. A gradient step
on log p, which is backpropagation, is a generalized-EM step (Audhkhasi, Osoba and Kosko, Neural
Networks 78, 2016, theorem 1; Adigun and Kosko, Neural Networks 120, 2019).

**Generalized EM.** log p(Θ) − log p(Θₙ) is the gain of Q plus a Kullback-Leibler divergence, so
what does not lower Q does not lower log p (Dempster, Laird and Rubin 1977, theorem 1). How far to
climb before the next E-step is free: one gradient step is backpropagation, a maximizer is EM.

**The NEM inequality** (Osoba, Mitaim and Kosko 2013, theorem 1; for networks Audhkhasi, Osoba and
Kosko 2016, theorem 2). Noise helps a step on average, E[Q_N(Θ | Θ*)] ≥ Q(Θ | Θ*), if

    E[log p(y + n, h | x, Θ) / p(y, h | x, Θ)] ≥ 0

over the noise n and the hidden state h ~ p(h | y, x, Θ*). The left side is E[Q_N] − Q itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from nembp.em.screening import (
    LATTICE,
    Condition,
    Gains,
    Matrix,
    Support,
    check_rows,
    draw,
    log_sum_exp,
    screen,
)
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError, ShapeError

Direction = Literal["forward", "backward", "joint"]
OneWay = Literal["forward", "backward"]
MAX_HIDDEN = 14  # 2¹⁴ states a row
MAX_LATTICE = 8  # 3⁸ noise vectors
ARMIJO = 1e-4  # share of the linear prediction that a step must gain
HALVINGS = 60


class Layers(NamedTuple):
    """Parameters of one direction, as views of a flat vector: z = x W + b, then h V + c."""

    W: Matrix
    b: Matrix
    V: Matrix
    c: Matrix


def one_way(direction: Direction) -> tuple[OneWay, ...]:
    """Return the directions that ``direction`` sums."""
    if direction not in get_args(Direction):
        options = ", ".join(get_args(Direction))
        raise ArchitectureError(f"direction must be one of {options}, got {direction!r}")
    return ("forward", "backward") if direction == "joint" else (direction,)


@dataclass(frozen=True)
class BinaryNetwork:
    """Shape and likelihoods of the network, log p(y | h) forward and log p(x | h) backward.

    Its parameters Θ are passed to each function, laid out as in the engine: weights, forward
    biases, backward biases. At most 14 hidden neurons can be enumerated.

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
    def _lengths(self) -> list[int]:
        inputs, hidden, outputs = self.inputs, self.hidden, self.outputs
        return [inputs * hidden, hidden * outputs, hidden, outputs, inputs, hidden]

    @property
    def parameter_count(self) -> int:
        """Length of Θ."""
        return sum(self._lengths)

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
        theta = np.asarray(theta)
        if theta.shape != (self.parameter_count,):
            raise ShapeError(f"theta must have shape ({self.parameter_count},), got {theta.shape}")
        w1, w2, b1, b2, d0, d1 = np.split(theta, np.cumsum(self._lengths)[:-1])
        W1, W2 = w1.reshape(self.inputs, self.hidden), w2.reshape(self.hidden, self.outputs)
        if direction == "forward":
            return Layers(W1, b1, W2, b2)
        return Layers(W2.T, d1, W1.T, d0)

    def target_likelihood(self, direction: OneWay) -> Likelihood:
        """Return the likelihood of the target of ``direction``."""
        return self.forward if direction == "forward" else self.backward

    def source_and_target(self, x: Any, y: Any, direction: OneWay) -> tuple[Matrix, Matrix]:
        """Return what ``direction`` maps from and to, shapes checked."""
        x, y = check_rows("x", x, self.inputs), check_rows("y", y, self.outputs)
        if len(x) != len(y):
            raise ShapeError(
                f"x and y must have the same number of rows, got {len(x)} and {len(y)}"
            )
        return (x, y) if direction == "forward" else (y, x)

    def log_hidden(self, theta: Any, source: Matrix, direction: OneWay) -> Matrix:
        """Return log p(h | source) = Σ_j h_j z_j − log(1 + e^z_j), shape (rows, states)."""
        p = self.layers(theta, direction)
        z = source @ p.W + p.b
        log_p: Matrix = z @ self.states.T - np.logaddexp(0.0, z).sum(axis=1, keepdims=True)
        return log_p

    def at_states(self, theta: Any, target: Matrix, direction: OneWay) -> tuple[Any, Matrix]:
        """Return the likelihood's readout of z = h V + c, and the target.

        Both have one row for each pair (row, state), the states inner.
        """
        p = self.layers(theta, direction)
        z = np.tile(self.states @ p.V + p.c, (len(target), 1))
        t = np.repeat(target, len(self.states), axis=0)
        return self.target_likelihood(direction).at(z), t

    def log_target(self, theta: Any, target: Matrix, direction: OneWay) -> Matrix:
        """Return log p(target | h), shape (rows, states)."""
        likelihood = self.target_likelihood(direction)
        log_p: Matrix = likelihood.log_likelihood(*self.at_states(theta, target, direction))
        return log_p.reshape(len(target), -1)

    def log_joint(self, theta: Any, x: Any, y: Any, direction: OneWay = "forward") -> Matrix:
        """Return log p(y, h | x, Θ), or log p(x, h | y, Θ) backward, shape (rows, states)."""
        source, target = self.source_and_target(x, y, direction)
        return self.log_target(theta, target, direction) + self.log_hidden(theta, source, direction)

    def log_likelihood(self, theta: Any, x: Any, y: Any, direction: Direction = "forward") -> float:
        """Return log p(y | x, Θ) = Σ_rows log Σ_h p(y, h | x, Θ); joint sums both directions."""
        joint = (self.log_joint(theta, x, y, way) for way in one_way(direction))
        return sum(float(log_sum_exp(log_joint).sum()) for log_joint in joint)


# -- EM's two terms and their gradients ------------------------------------------------------------
def posterior(
    net: BinaryNetwork, theta: Any, x: Any, y: Any, direction: OneWay = "forward"
) -> Matrix:
    """Return r(h) = p(h | y, x, Θ) = p(y, h | x, Θ) / p(y | x, Θ), shape (rows, states).

    >>> net = BinaryNetwork(1, 2, 1)
    >>> posterior(net, np.zeros(net.parameter_count), [[0.3]], [[1.0]])
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    if len(one_way(direction)) > 1:
        raise ArchitectureError("the joint direction has two posteriors: ask for one direction")
    log_joint = net.log_joint(theta, x, y, direction)
    return np.asarray(np.exp(log_joint - log_sum_exp(log_joint)))


def q(
    net: BinaryNetwork,
    theta: Any,
    theta_n: Any,
    x: Any,
    y: Any,
    direction: Direction = "forward",
    *,
    noise_y: Any = None,
    noise_x: Any = None,
) -> float:
    """Return Q(Θ | Θₙ) = Σ_h p(h | y, x, Θₙ) log p(y, h | x, Θ), in nats, summed over rows.

    With noise it is Q_N: the posterior of the clean target y weighs log p(y + n, h | x, Θ).
    ``noise_y`` is for the forward target y, ``noise_x`` for the backward target x.
    """
    total = 0.0
    for way, noisy_x, noisy_y in _noisy(x, y, direction, noise_y, noise_x):
        r = posterior(net, theta_n, x, y, way)
        total += float((r * net.log_joint(theta, noisy_x, noisy_y, way)).sum())
    return total


def q_gradient(
    net: BinaryNetwork,
    theta: Any,
    theta_n: Any,
    x: Any,
    y: Any,
    direction: Direction = "forward",
    *,
    noise_y: Any = None,
    noise_x: Any = None,
) -> Matrix:
    """Return ∇_Θ Q(Θ | Θₙ) = Σ_h p(h | y, x, Θₙ) ∇ log p(y, h | x, Θ), flat like Θ.

    ∂ log p(h | x)/∂z = h − σ(z) and ∂ log p(y | h)/∂z = −error.
    """
    total = np.zeros(net.parameter_count)
    for way, noisy_x, noisy_y in _noisy(x, y, direction, noise_y, noise_x):
        r, p = posterior(net, theta_n, x, y, way), net.layers(theta, way)
        source, target = net.source_and_target(noisy_x, noisy_y, way)
        slope_z = r @ net.states - _logistic(source @ p.W + p.b)
        slope_end = -_errors(net, theta, target, way) * r[:, :, None]
        total += _assemble(net, way, source, slope_z, slope_end)
    return total


def entropy(
    net: BinaryNetwork, theta: Any, theta_n: Any, x: Any, y: Any, direction: Direction = "forward"
) -> float:
    """Return H(Θ | Θₙ) = −Σ_h p(h | y, x, Θₙ) log p(h | y, x, Θ), in nats.

    At Θ = Θₙ it is the entropy of the posterior; elsewhere the cross-entropy, which is larger.
    """
    total = 0.0
    for way in one_way(direction):
        log_joint = net.log_joint(theta, x, y, way)
        log_posterior = log_joint - log_sum_exp(log_joint)
        total -= float((posterior(net, theta_n, x, y, way) * log_posterior).sum())
    return total


def entropy_gradient(
    net: BinaryNetwork, theta: Any, theta_n: Any, x: Any, y: Any, direction: Direction = "forward"
) -> Matrix:
    """Return ∇_Θ H(Θ | Θₙ) = Σ_h [p(h | y, x, Θ) − p(h | y, x, Θₙ)] ∇ log p(y, h | x, Θ).

    It is ∇Q(Θ | Θ) − ∇Q(Θ | Θₙ), for log p(h | y, x, Θ) = log p(y, h | x, Θ) − log p(y | x, Θ),
    whose last term has the posterior-weighted gradient. It vanishes at Θ = Θₙ.
    """
    at_theta = q_gradient(net, theta, theta, x, y, direction)
    return at_theta - q_gradient(net, theta, theta_n, x, y, direction)


def gradient(
    net: BinaryNetwork, theta: Any, x: Any, y: Any, direction: Direction = "forward"
) -> Matrix:
    """Return ∇_Θ log p(y | x, Θ) = ∇p / p by the product rule on p = Σ_h p(h | x) p(y | h).

    ∂p(h | x)/∂z_j = (2h_j − 1) σ_j (1 − σ_j) Π_{i≠j} p(h_i | x), ∂p(y | h)/∂z = −error p(y | h).
    It forms no posterior, so it shares nothing with :func:`q_gradient` but the parameters.
    """
    total = np.zeros(net.parameter_count)
    for way in one_way(direction):
        source, target = net.source_and_target(x, y, way)
        p, h = net.layers(theta, way), net.states
        z = (source @ p.W + p.b)[:, None, :]
        factors = np.where(h == 1.0, _logistic(z), _logistic(-z))  # p(h_j | x), of every state
        p_hidden = factors.prod(axis=2)
        log_target = net.log_target(theta, target, way)
        p_target = np.exp(log_target - log_target.max(axis=1, keepdims=True))  # up to a factor
        p_y = (p_hidden * p_target).sum(axis=1)

        others = np.stack(
            [np.delete(factors, j, axis=2).prod(axis=2) for j in range(net.hidden)], axis=2
        )
        slope_hidden = (2.0 * h - 1.0) * _logistic(z) * _logistic(-z) * others
        slope_z = np.einsum("nsj,ns->nj", slope_hidden, p_target) / p_y[:, None]
        slope_target = -_errors(net, theta, target, way) * p_target[:, :, None]
        slope_end = slope_target * (p_hidden / p_y[:, None])[:, :, None]
        total += _assemble(net, way, source, slope_z, slope_end)
    return total


def _assemble(
    net: BinaryNetwork, way: OneWay, source: Matrix, slope_z: Matrix, slope_end: Matrix
) -> Matrix:
    """Return the flat gradient; slopes are (rows, hidden) and (rows, states, targets)."""
    flat = np.zeros(net.parameter_count)
    g = net.layers(flat, way)  # views, transposed ones in the backward direction
    g.W[...] = source.T @ slope_z
    g.b[...] = slope_z.sum(axis=0)
    g.V[...] = np.einsum("sj,nsk->jk", net.states, slope_end)
    g.c[...] = slope_end.sum(axis=(0, 1))
    return flat


def _errors(net: BinaryNetwork, theta: Any, target: Matrix, way: OneWay) -> Matrix:
    """Return the error −∂ log p(target | h)/∂z, shape (rows, states, targets)."""
    o, t = net.at_states(theta, target, way)
    error = np.empty_like(t)
    net.target_likelihood(way).error(o, t, error)
    return error.reshape(len(target), len(net.states), -1)


def _logistic(z: Matrix) -> Matrix:
    """Return σ(z) with full relative accuracy, also where it is nearly 0."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -z)))


def _noisy(
    x: Any, y: Any, direction: Direction, noise_y: Any, noise_x: Any
) -> list[tuple[OneWay, Any, Any]]:
    """Return (direction, x, y) for each direction summed, its own target with noise added."""
    ways = one_way(direction)
    for name, n, target, way in (("y", noise_y, y, "forward"), ("x", noise_x, x, "backward")):
        if n is not None and way not in ways:
            raise ArchitectureError(
                f"noise_{name} is noise on the {way} direction's target, but the direction is "
                f"{direction!r}: leave it out or ask for 'joint'"
            )
        if n is not None and np.shape(n) != np.shape(target):
            raise ShapeError(
                f"noise_{name} must have the shape of {name}, {np.shape(target)}, got {np.shape(n)}"
            )
    y_n = y if noise_y is None else np.asarray(y, dtype=np.float64) + noise_y
    x_n = x if noise_x is None else np.asarray(x, dtype=np.float64) + noise_x
    return [(way, x, y_n) if way == "forward" else (way, x_n, y) for way in ways]


# -- generalized EM --------------------------------------------------------------------------------
@dataclass(frozen=True)
class GemStep:
    """One E-step and its M-step: Θₙ₊₁, and in nats Q (Q_N if there is noise) and clean log p.

    ``ascents`` counts the steps that were taken: fewer than asked for where Q could rise no more.
    """

    theta: Matrix
    q_before: float
    q_after: float
    log_likelihood_before: float
    log_likelihood_after: float
    ascents: int


def gem_step(
    net: BinaryNetwork,
    theta: Any,
    x: Any,
    y: Any,
    direction: Direction = "forward",
    *,
    rate: float = 1.0,
    ascents: int = 1,
    noise_y: Any = None,
    noise_x: Any = None,
) -> GemStep:
    """Take the posterior at Θₙ, then climb Θ ← Θ + rate · ∇Q(Θ | Θₙ) with Q rising.

    ``rate`` is halved until Q gains at least ``ARMIJO`` · rate · ‖∇Q‖². More ``ascents`` on the
    same Q come nearer to the M-step. With noise it climbs Q_N; repeat it, with fresh noise of
    :func:`draw_noise` at each Θ, to fit.
    """
    if not (0.0 < rate < np.inf) or ascents < 1:
        raise ArchitectureError(
            f"rate must be positive and ascents at least 1, got {rate} and {ascents}"
        )
    theta_n: Matrix = np.array(theta, dtype=np.float64)
    rest: Any = (theta_n, x, y, direction)
    noise: Any = {"noise_y": noise_y, "noise_x": noise_x}
    point, taken = theta_n, 0
    here = before = q(net, point, *rest, **noise)
    for _ in range(ascents):
        g = q_gradient(net, point, *rest, **noise)
        gain = float(g @ g)
        for halving in range(HALVINGS):
            step = rate * 0.5**halving
            there = q(net, point + step * g, *rest, **noise)
            if there >= here + ARMIJO * step * gain:
                break
        else:  # Q is flat to rounding
            break
        point, here, taken = point + step * g, there, taken + 1
    log_p = [net.log_likelihood(at, x, y, direction) for at in (theta_n, point)]
    return GemStep(point, before, here, log_p[0], log_p[1], taken)


# -- noise and the NEM inequality ------------------------------------------------------------------
def gains_at(net: BinaryNetwork, theta: Any, target: Matrix, way: OneWay, noise: Noise) -> Gains:
    """Return the map from noise n to log p(y + n, h | x, Θ) − log p(y, h | x, Θ) in every state h.

    log p(h | x, Θ) cancels, so the gain is the likelihood's own, at h. The map takes n of shape
    (rows, targets) to (rows, states, 1), or where neurons are screened singly (rows, states,
    targets).
    """
    o, t = net.at_states(theta, target, way)
    component = noise.screening_for(net.target_likelihood(way)) == "component"

    def gains(n: Matrix) -> Matrix:
        terms = np.empty_like(t)
        repeated = np.repeat(n, len(net.states), axis=0)
        net.target_likelihood(way).gain_terms(o, t, repeated, terms)
        terms = terms.reshape(len(target), len(net.states), -1)
        return terms if component else terms.sum(axis=2, keepdims=True)

    return gains


def draw_noise(
    net: BinaryNetwork,
    theta: Any,
    x: Any,
    y: Any,
    way: OneWay,
    noise: Noise,
    generator: np.random.Generator,
    *,
    condition: Condition = "posterior",
    support: Support = "continuous",
    iteration: int = 1,
) -> Matrix:
    """Draw noise for one direction's target ("forward": y), screened at Θ, shape (rows, targets).

    ``noise.screening_for`` the likelihood decides between whole rows and single neurons;
    ``condition`` and ``support`` are those of :func:`nembp.em.screening.draw`, and ``iteration``,
    counted from 1, is t of the annealing schedule.
    """
    target = net.source_and_target(x, y, way)[1]
    gains = gains_at(net, theta, target, way, noise)
    std = noise.std_at(epoch=iteration, iteration=iteration)
    r = posterior(net, theta, x, y, way)
    return draw(noise, std, target, gains, r, generator, condition=condition, support=support)


@dataclass(frozen=True)
class NemInequality:
    """E[log p(y + n, h | x, Θ) / p(y, h | x, Θ)], summed over rows, in nats, by three routes."""

    exact: float | None  # by enumeration of the lattice; None for continuous noise and for drift
    sampled: float  # mean over draws of noise and hidden states
    standard_error: float
    q_gain: float  # mean over draws of the noise alone of Q_N(Θ | Θ*) − Q(Θ | Θ*)
    q_gain_standard_error: float
    draws: int  # behind both means
    nonzero: float  # share of the target coordinates that carry noise after screening

    @property
    def holds(self) -> bool:
        """Whether the inequality holds: exactly if that is known, else of the sampled mean."""
        return (self.sampled if self.exact is None else self.exact) >= 0.0


def nem_inequality(
    net: BinaryNetwork,
    theta: Any,
    x: Any,
    y: Any,
    direction: Direction = "forward",
    *,
    noise_y: Noise | None = None,
    noise_x: Noise | None = None,
    generator: np.random.Generator,
    draws: int = 1000,
    condition: Condition = "posterior",
    support: Support = "continuous",
    theta_star: Any = None,
) -> NemInequality:
    """Evaluate the NEM inequality at Θ for noise on the targets of ``direction``.

    The noise, on the forward target y or the backward target x, has its first standard deviation;
    ``condition`` and ``support`` are those of :func:`nembp.em.screening.draw`, whose lattice has
    3^width values to enumerate. ``theta_star`` is Θ* of the posterior, where it is not Θ: noise
    screened at Θ by ``every`` keeps its guarantee; by ``posterior`` it does not.

    Raises
    ------
    ArchitectureError
        If the noises do not fit ``direction``, or an option is out of range.
    """
    specs: dict[OneWay, Noise | None] = {"forward": noise_y, "backward": noise_x}
    noises = {way: noise for way, noise in specs.items() if noise is not None}
    if not noises or not set(noises) <= set(one_way(direction)) or draws < 2:
        raise ArchitectureError(
            f"direction {direction!r} needs noise on its own target (noise_y forward, noise_x "
            f"backward) and draws ≥ 2, got noise_y={noise_y}, noise_x={noise_x}, draws={draws}"
        )
    x, y = check_rows("x", x, net.inputs), check_rows("y", y, net.outputs)
    many = np.tile(x, (draws, 1)), np.tile(y, (draws, 1))  # every draw has rows of its own
    exact: list[float | None] = []
    nonzero = []
    at_hidden, q_gain = np.zeros(draws), np.zeros(draws)
    for way, noise in noises.items():
        r_star = posterior(net, theta if theta_star is None else theta_star, x, y, way)
        exact.append(None)
        if support == "lattice":
            exact[-1] = _enumerated_gain(net, theta, x, y, way, noise, condition, r_star)
        n = draw_noise(
            net, theta, *many, way, noise, generator, condition=condition, support=support
        )
        nonzero.append((n != 0.0).ravel())
        noise_of = (0.0, n) if way == "forward" else (n, 0.0)
        there = net.log_joint(theta, many[0] + noise_of[0], many[1] + noise_of[1], way)
        ratio = there - net.log_joint(theta, *many, way)
        r = np.tile(r_star, (draws, 1))
        cumulative = r.cumsum(axis=1)
        uniform = generator.uniform(0.0, cumulative[:, -1:])
        h = (cumulative <= uniform).sum(axis=1)  # the state whose interval holds the draw
        at_hidden += ratio[np.arange(len(h)), h].reshape(draws, -1).sum(axis=1)
        q_gain += (r * ratio).sum(axis=1).reshape(draws, -1).sum(axis=1)
    return NemInequality(
        exact=None if None in exact else math.fsum(p for p in exact if p is not None),
        sampled=float(at_hidden.mean()),
        standard_error=float(at_hidden.std(ddof=1) / math.sqrt(draws)),
        q_gain=float(q_gain.mean()),
        q_gain_standard_error=float(q_gain.std(ddof=1) / math.sqrt(draws)),
        draws=draws,
        nonzero=float(np.concatenate(nonzero).mean()),
    )


def _enumerated_gain(
    net: BinaryNetwork,
    theta: Any,
    x: Matrix,
    y: Matrix,
    way: OneWay,
    noise: Noise,
    condition: Condition,
    r_star: Matrix,
) -> float | None:
    """Return Σ_n p(n) Σ_h p(h | y, x, Θ*) gain(kept n; h), n over the lattice."""
    if noise.kind in ("none", "drift"):  # the value of drift is itself a sampled mean
        return 0.0 if noise.kind == "none" else None
    target = net.source_and_target(x, y, way)[1]
    width = target.shape[1]
    if width > MAX_LATTICE:
        raise ArchitectureError(
            f"a lattice in {width} dimensions has 3^{width} points; enumeration stops at "
            f"{MAX_LATTICE}: use support='continuous'"
        )
    gains, r = gains_at(net, theta, target, way, noise), posterior(net, theta, x, y, way)
    points, probabilities = LATTICE
    total = 0.0
    for index in product(range(len(points)), repeat=width):
        n = np.broadcast_to(noise.std_at(1, 1) * points[list(index)], target.shape)
        n = target * n if noise.mode == "multiplicative" else n
        gain = np.einsum("ns,nsg->", r_star, gains(screen(noise, n, gains, r, condition)))
        total += float(probabilities[list(index)].prod() * gain)
    return total
