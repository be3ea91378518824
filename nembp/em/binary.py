"""A network with a stochastic binary hidden layer, small enough that nothing is hidden.

    x → h ∈ {0, 1}ᴶ → y        p(h | x) = Π_j σ(z_j)^h_j (1 − σ(z_j))^(1−h_j),  z = x W¹ + b¹
                               p(y | h) = a likelihood of h W² + b²

and over the same weights in the other direction

    y → h → x                  p(h | y): z = y W²ᵀ + d¹,   p(x | h): a likelihood of h W¹ᵀ + d⁰.

All 2ᴶ hidden states are enumerated, so that every expectation is a finite sum. Three theorems can
then be seen in numbers, of ``net`` for log p(y | x) and of ``net.reversed`` for log p(x | y); those
of both directions are sums.

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
from typing import Any

import numpy as np
from scipy.special import expit, log_softmax, logsumexp, softmax

from nembp.em.screening import LATTICE, Condition, Gains, Matrix, Support, check_rows, draw, screen
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError, ShapeError

MAX_HIDDEN = 14  # 2¹⁴ states a row
MAX_LATTICE = 8  # 3⁸ noise vectors
ARMIJO = 1e-4  # share of the linear prediction that a step must gain
HALVINGS = 60


@dataclass(frozen=True)
class BinaryNetwork:
    """Shape and likelihoods of the network, log p(y | h) forward and log p(x | h) backward.

    Its parameters Θ are passed to each function, laid out as in the engine: weights, forward
    biases, backward biases. At most 14 hidden neurons can be enumerated.

    >>> net = BinaryNetwork(2, 3, 1)
    >>> net.parameter_count, net.states.shape, net.reversed.reversed == net
    (18, (8, 3), True)
    """

    inputs: int
    hidden: int
    outputs: int
    likelihood: Likelihood = field(default_factory=Bernoulli)  # of y
    backward: Likelihood = field(default_factory=Gaussian)  # of x
    is_reversed: bool = False

    def __post_init__(self) -> None:
        sizes = self.inputs, self.hidden, self.outputs
        if min(sizes) < 1 or self.hidden > MAX_HIDDEN:
            raise ArchitectureError(
                f"sizes must be at least 1, and at most {MAX_HIDDEN} of the hidden layer, whose "
                f"2^J states are enumerated, got {sizes}; make the hidden layer smaller"
            )

    @property
    def reversed(self) -> BinaryNetwork:
        """The other direction of the same parameters: its x is this one's y."""
        ends = self.backward, self.likelihood
        return BinaryNetwork(self.outputs, self.hidden, self.inputs, *ends, not self.is_reversed)

    @property
    def _lengths(self) -> list[int]:
        ends = (self.inputs, self.outputs)[:: -1 if self.is_reversed else 1]
        return [n * self.hidden for n in ends] + [self.hidden, *ends[::-1], self.hidden]

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

    def layers(self, theta: Any) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """Return W, b, V, c of x W + b and h V + c: this direction's views of ``theta``."""
        theta = np.asarray(theta)
        if theta.shape != (self.parameter_count,):
            raise ShapeError(f"theta must have shape ({self.parameter_count},), got {theta.shape}")
        w1, w2, b1, b2, d0, d1 = np.split(theta, np.cumsum(self._lengths)[:-1])
        W1, W2 = w1.reshape(-1, self.hidden), w2.reshape(self.hidden, -1)
        return (W2.T, d1, W1.T, d0) if self.is_reversed else (W1, b1, W2, b2)

    def rows(self, x: Any, y: Any) -> tuple[Matrix, Matrix]:
        """Return inputs and targets as float64 rows, shapes checked."""
        x, y = check_rows("x", x, self.inputs), check_rows("y", y, self.outputs)
        if len(x) != len(y):
            raise ShapeError(f"x and y must have the same rows, got {len(x)} and {len(y)}")
        return x, y

    def at_states(self, theta: Any, y: Matrix) -> tuple[Any, Matrix]:
        """Return the likelihood's readout of h V + c and y: a row each of (row, state)."""
        _, _, V, c = self.layers(theta)
        z = np.tile(self.states @ V + c, (len(y), 1))
        return self.likelihood.at(z), np.repeat(y, len(self.states), axis=0)

    def log_target(self, theta: Any, y: Matrix) -> Matrix:
        """Return log p(y | h), shape (rows, states)."""
        log_p: Matrix = self.likelihood.log_likelihood(*self.at_states(theta, y))
        return log_p.reshape(len(y), -1)

    def log_joint(self, theta: Any, x: Any, y: Any) -> Matrix:
        """Return log p(y | h) + Σ_j [h_j z_j − log(1 + e^z_j)], shape (rows, states)."""
        (W, b, _, _), (x, y) = self.layers(theta), self.rows(x, y)
        z = x @ W + b
        log_hidden: Matrix = z @ self.states.T - np.logaddexp(0.0, z).sum(axis=1, keepdims=True)
        return self.log_target(theta, y) + log_hidden

    def log_likelihood(self, theta: Any, x: Any, y: Any) -> float:
        """Return log p(y | x, Θ) = Σ_rows log Σ_h p(y, h | x, Θ)."""
        return float(logsumexp(self.log_joint(theta, x, y), axis=1).sum())


# -- EM's two terms and their gradients ------------------------------------------------------------
def posterior(net: BinaryNetwork, theta: Any, x: Any, y: Any) -> Matrix:
    """Return r(h) = p(h | y, x, Θ) = p(y, h | x, Θ) / p(y | x, Θ), shape (rows, states).

    >>> net = BinaryNetwork(1, 2, 1)
    >>> posterior(net, np.zeros(net.parameter_count), [[0.3]], [[1.0]])
    array([[0.25, 0.25, 0.25, 0.25]])
    """
    return np.asarray(softmax(net.log_joint(theta, x, y), axis=1))


def q(net: BinaryNetwork, theta: Any, r: Matrix, x: Any, y: Any) -> float:
    """Return Q(Θ | Θₙ) = Σ_h r(h) log p(y, h | x, Θ), in nats, summed over rows.

    ``r`` is the posterior at Θₙ. With noisy y and the posterior of clean y it is Q_N.
    """
    return float((r * net.log_joint(theta, x, y)).sum())


def q_gradient(net: BinaryNetwork, theta: Any, r: Matrix, x: Any, y: Any) -> Matrix:
    """Return ∇_Θ Q(Θ | Θₙ) = Σ_h r(h) ∇ log p(y, h | x, Θ), flat like Θ.

    ∂ log p(h | x)/∂z = h − σ(z) and ∂ log p(y | h)/∂z = −error.
    """
    (W, b, _, _), (x, y) = net.layers(theta), net.rows(x, y)
    slope_z = r @ net.states - expit(x @ W + b)
    return _assemble(net, x, slope_z, -_errors(net, theta, y) * r[:, :, None])


def entropy(net: BinaryNetwork, theta: Any, r: Matrix, x: Any, y: Any) -> float:
    """Return H(Θ | Θₙ) = −Σ_h r(h) log p(h | y, x, Θ), in nats, with the posterior ``r`` at Θₙ.

    At Θ = Θₙ it is the entropy of the posterior; elsewhere the cross-entropy, which is larger.
    """
    return -float((r * log_softmax(net.log_joint(theta, x, y), axis=1)).sum())


def gradient(net: BinaryNetwork, theta: Any, x: Any, y: Any) -> Matrix:
    """Return ∇_Θ log p(y | x, Θ) = ∇p / p by the product rule on p = Σ_h p(h | x) p(y | h).

    ∂p(h | x)/∂z_j = (2h_j − 1) σ_j (1 − σ_j) Π_{i≠j} p(h_i | x), ∂p(y | h)/∂z = −error p(y | h).
    It forms no posterior, so it shares nothing with :func:`q_gradient` but the parameters.
    """
    (W, b, _, _), h, (x, y) = net.layers(theta), net.states, net.rows(x, y)
    z = (x @ W + b)[:, None, :]
    factors = np.where(h == 1.0, expit(z), expit(-z))  # p(h_j | x), of every state
    p_hidden = factors.prod(axis=2)
    log_target = net.log_target(theta, y)
    p_target = np.exp(log_target - log_target.max(axis=1, keepdims=True))  # up to a factor
    p_y = (p_hidden * p_target).sum(axis=1)

    others = np.stack([np.delete(factors, j, axis=2).prod(axis=2) for j in range(net.hidden)], -1)
    slope_hidden = (2.0 * h - 1.0) * expit(z) * expit(-z) * others
    slope_z = np.einsum("nsj,ns->nj", slope_hidden, p_target) / p_y[:, None]
    slope_target = -_errors(net, theta, y) * p_target[:, :, None]
    return _assemble(net, x, slope_z, slope_target * (p_hidden / p_y[:, None])[:, :, None])


def _assemble(net: BinaryNetwork, x: Matrix, slope_z: Matrix, slope_end: Matrix) -> Matrix:
    """Return the flat gradient; slopes are (rows, hidden) and (rows, states, outputs)."""
    flat = np.zeros(net.parameter_count)
    W, b, V, c = net.layers(flat)  # views, transposed ones in the backward direction
    W[...] = x.T @ slope_z
    b[...] = slope_z.sum(axis=0)
    V[...] = np.einsum("sj,nsk->jk", net.states, slope_end)
    c[...] = slope_end.sum(axis=(0, 1))
    return flat


def _errors(net: BinaryNetwork, theta: Any, y: Matrix) -> Matrix:
    """Return the error −∂ log p(y | h)/∂z, shape (rows, states, outputs)."""
    o, t = net.at_states(theta, y)
    error = np.empty_like(t)
    net.likelihood.error(o, t, error)
    return error.reshape(len(y), len(net.states), -1)


# -- generalized EM --------------------------------------------------------------------------------
@dataclass(frozen=True)
class GemStep:
    """One E-step and its M-step: Θₙ₊₁, and Q before and after (Q_N if there is noise), in nats."""

    theta: Matrix
    q_before: float
    q_after: float


def gem_step(
    net: BinaryNetwork, theta: Any, x: Any, y: Any, *, both: bool = False, rate: float = 1.0,
    ascents: int = 1, noise_y: Any = 0.0, noise_x: Any = 0.0,
) -> GemStep:  # fmt: skip
    """Take the posterior at Θₙ, then climb Θ ← Θ + rate · ∇Q(Θ | Θₙ) with Q rising.

    ``rate`` is halved until Q gains at least ``ARMIJO`` · rate · ‖∇Q‖². More ``ascents`` on the
    same Q come nearer to the M-step. ``both`` climbs the sum of both directions. With noise, on y,
    and on x where that is a target too, it climbs Q_N; repeat it, with fresh noise of
    :func:`draw_noise` at each Θ, to fit.
    """
    if not (0.0 < rate < np.inf) or ascents < 1:
        raise ArchitectureError(
            f"rate must be positive and ascents at least 1, got {rate} and {ascents}"
        )
    x, y = net.rows(x, y)
    for n, target in ((noise_y, y), (noise_x, x)):
        if np.ndim(n) and np.shape(n) != target.shape:
            raise ShapeError(
                f"noise must have its target's shape {target.shape}, got {np.shape(n)}"
            )
    point: Matrix = np.array(theta, dtype=np.float64)
    terms = [(net, posterior(net, point, x, y), x, y + noise_y)]
    if both:
        terms.append((net.reversed, posterior(net.reversed, point, y, x), y, x + noise_x))

    def total(of: Any, at: Matrix) -> Any:
        """Return Q, or its gradient."""
        return sum(of(way, at, *rest) for way, *rest in terms)

    here = before = total(q, point)
    for _ in range(ascents):
        g = total(q_gradient, point)
        for step in rate * 0.5 ** np.arange(HALVINGS):
            there = total(q, point + step * g)
            if there >= here + ARMIJO * step * float(g @ g):
                point, here = point + step * g, there
                break
        else:  # Q is flat to rounding
            break
    return GemStep(point, before, here)


# -- noise and the NEM inequality ------------------------------------------------------------------
def gains_at(net: BinaryNetwork, theta: Any, y: Matrix, noise: Noise) -> Gains:
    """Return the map from noise n to log p(y + n, h | x, Θ) − log p(y, h | x, Θ) in every state h.

    log p(h | x, Θ) cancels, so the gain is the likelihood's own, at h. The shape becomes (rows,
    states, 1), or (rows, states, outputs) where neurons are screened singly.
    """
    o, t = net.at_states(theta, y)
    component = noise.screening_for(net.likelihood) == "component"

    def gains(n: Matrix) -> Matrix:
        terms = np.empty_like(t)
        net.likelihood.gain_terms(o, t, np.repeat(n, len(net.states), axis=0), terms)
        terms = terms.reshape(len(y), len(net.states), -1)
        return terms if component else terms.sum(axis=2, keepdims=True)

    return gains


def draw_noise(
    net: BinaryNetwork, theta: Any, x: Any, y: Any, noise: Noise, generator: np.random.Generator,
    *, condition: Condition = "posterior", support: Support = "continuous", iteration: int = 1,
) -> Matrix:  # fmt: skip
    """Draw noise for the target y, screened at Θ, shape (rows, outputs).

    ``condition`` and ``support`` are those of :func:`nembp.em.screening.draw`, and ``iteration``,
    counted from 1, is t of the annealing schedule.
    """
    x, y = net.rows(x, y)
    gains, r = gains_at(net, theta, y, noise), posterior(net, theta, x, y)
    std = noise.std_at(epoch=iteration, iteration=iteration)
    return draw(noise, std, y, gains, r, generator, condition=condition, support=support)


@dataclass(frozen=True)
class NemInequality:
    """E[log p(y + n, h | x, Θ) / p(y, h | x, Θ)], summed over rows, in nats."""

    exact: float | None  # by enumeration of the lattice; None for continuous noise and for drift
    sampled: float  # mean over draws of Q_N(Θ | Θ*) − Q(Θ | Θ*)
    standard_error: float
    nonzero: float  # share of the target coordinates that carry noise after screening


def nem_inequality(
    net: BinaryNetwork, theta: Any, x: Any, y: Any, noise: Noise, generator: np.random.Generator,
    *, draws: int = 1000, condition: Condition = "posterior", support: Support = "continuous",
    theta_star: Any = None,
) -> NemInequality:  # fmt: skip
    """Evaluate the NEM inequality at Θ for noise on the target y, of its first deviation.

    ``condition`` and ``support`` are those of :func:`nembp.em.screening.draw`, whose lattice has
    3^width values to enumerate. ``theta_star`` is Θ* of the posterior, where it is not Θ: noise
    screened at Θ by ``every`` keeps its guarantee; by ``posterior`` it does not.
    """
    if draws < 2:
        raise ArchitectureError(f"draws must be at least 2, got {draws}")
    x, y = net.rows(x, y)
    width, exact = y.shape[1], None
    r_star = posterior(net, theta if theta_star is None else theta_star, x, y)
    if support == "lattice" and noise.kind != "drift":  # which is itself a sampled mean
        if width > MAX_LATTICE:
            raise ArchitectureError(
                f"a lattice in {width} dimensions has 3^{width} points; enumeration stops at "
                f"{MAX_LATTICE}: use support='continuous'"
            )
        gains, r, exact = gains_at(net, theta, y, noise), posterior(net, theta, x, y), 0.0
        std = 0.0 if noise.kind == "none" else noise.std_at(1, 1)
        for index in product(range(len(LATTICE[0])), repeat=width):
            points, probabilities = (each[list(index)] for each in LATTICE)
            n = np.broadcast_to(std * points, y.shape)
            n = y * n if noise.mode == "multiplicative" else n
            gain = np.einsum("ns,nsg->", r_star, gains(screen(noise, n, gains, r, condition)))
            exact += float(probabilities.prod() * gain)
    x, y, r = (np.tile(each, (draws, 1)) for each in (x, y, r_star))
    n = draw_noise(net, theta, x, y, noise, generator, condition=condition, support=support)
    ratio = net.log_joint(theta, x, y + n) - net.log_joint(theta, x, y)
    each_gain = (r * ratio).reshape(draws, -1).sum(axis=1)
    error = float(each_gain.std(ddof=1) / math.sqrt(draws))
    return NemInequality(exact, float(each_gain.mean()), error, float((n != 0.0).mean()))
