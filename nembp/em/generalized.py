"""Generalized EM on the binary network: climb Q(· | Θₙ), never down, then take a new posterior.

    log p(Θ) − log p(Θₙ) = [Q(Θ | Θₙ) − Q(Θₙ | Θₙ)] + [H(Θ | Θₙ) − H(Θₙ | Θₙ)]

and the second bracket is a Kullback-Leibler divergence, so it is not negative: whatever does not
lower Q does not lower log p (Dempster, Laird and Rubin 1977, theorem 1). How far to climb before
the next E-step is free: one gradient step is backpropagation, a maximizer is EM itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from nembp.em.binary import BinaryNetwork, Direction, OneWay
from nembp.em.binary_noise import draw_noise
from nembp.em.expectation import q, q_gradient
from nembp.em.screening import Condition, Matrix
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError

__all__ = ["Ascent", "GemHistory", "GemStep", "fit_gem", "gem_step"]

Ascent = Literal["gradient", "newton"]
ARMIJO = 1e-4  # share of the linear prediction that a step must gain
HALVINGS = 60


@dataclass(frozen=True)
class GemStep:
    """One E-step and its M-step.

    Attributes
    ----------
    theta : array, shape (size,)
        Θₙ₊₁.
    q_before, q_after : float
        Q(Θₙ | Θₙ) and Q(Θₙ₊₁ | Θₙ) in nats; Q_N of both if there is noise.
    log_likelihood_before, log_likelihood_after : float
        log p of the clean data at Θₙ and Θₙ₊₁.
    ascents : int
        Ascent steps that were taken; fewer than asked for where Q could rise no further.
    """

    theta: Matrix
    q_before: float
    q_after: float
    log_likelihood_before: float
    log_likelihood_after: float
    ascents: int


@dataclass(frozen=True)
class GemHistory:
    """Θ at the end, and every step that led there."""

    theta: Matrix
    steps: tuple[GemStep, ...]

    @property
    def log_likelihood(self) -> Matrix:
        """Log p of the clean data before the first step and after each, in nats."""
        after = [step.log_likelihood_after for step in self.steps]
        return np.array([self.steps[0].log_likelihood_before, *after])


def gem_step(
    net: BinaryNetwork,
    theta: Any,
    x: Any,
    y: Any,
    direction: Direction = "forward",
    *,
    rate: float = 1.0,
    ascents: int = 1,
    ascent: Ascent = "gradient",
    noise_y: Any = None,
    noise_x: Any = None,
) -> GemStep:
    """Take the posterior at Θₙ, then climb Θ ← Θ + rate · d with Q(Θ | Θₙ) rising.

    Parameters
    ----------
    net, theta, x, y, direction
        The network, Θₙ, the data (rows are samples) and the direction.
    rate : float
        First rate tried, halved until Q gains at least ``ARMIJO`` · rate · ⟨d, ∇Q⟩.
    ascents : int
        Ascent steps on the same Q. 1 is generalized EM; many approach EM.
    ascent : {"gradient", "newton"}
        d = ∇Q, or d = −(∇²Q)⁻¹ ∇Q by differences of ∇Q (Q is concave for all three likelihoods),
        with which a few steps solve the M-step. Both are tried at ``rate`` first.
    noise_y, noise_x : array, optional
        Noise on the forward target y and the backward target x: climb Q_N in place of Q.

    Raises
    ------
    ArchitectureError
        If ``rate``, ``ascents`` or ``ascent`` cannot be used.
    """
    if not (0.0 < rate < np.inf) or ascents < 1:
        raise ArchitectureError(
            f"rate must be positive and ascents at least 1, got {rate} and {ascents}"
        )
    if ascent not in get_args(Ascent):
        raise ArchitectureError(
            f"ascent must be one of {', '.join(get_args(Ascent))}, got {ascent!r}"
        )
    theta_n = np.array(theta, dtype=np.float64)

    def value(point: Matrix) -> float:
        return q(net, point, theta_n, x, y, direction, noise_y=noise_y, noise_x=noise_x)

    def slope(point: Matrix) -> Matrix:
        return q_gradient(net, point, theta_n, x, y, direction, noise_y=noise_y, noise_x=noise_x)

    climb = _climb(value, slope, theta_n, rate, ascents, ascent)
    return GemStep(
        theta=climb.point,
        q_before=climb.before,
        q_after=climb.after,
        log_likelihood_before=net.log_likelihood(theta_n, x, y, direction),
        log_likelihood_after=net.log_likelihood(climb.point, x, y, direction),
        ascents=climb.taken,
    )


def fit_gem(
    net: BinaryNetwork,
    theta: Any,
    x: Any,
    y: Any,
    direction: Direction = "forward",
    *,
    iterations: int,
    rate: float = 1.0,
    ascents: int = 1,
    ascent: Ascent = "gradient",
    noise_y: Noise | None = None,
    noise_x: Noise | None = None,
    condition: Condition = "posterior",
    generator: np.random.Generator | None = None,
) -> GemHistory:
    """Repeat :func:`gem_step`, with fresh noise at each iteration if there is any.

    Without noise log p never falls. ``noise_y`` and ``noise_x`` are drawn at the standard
    deviation of their annealing schedule and screened against the current Θₙ (see
    :func:`nembp.em.draw_noise`); the climb of Q_N may then lower the clean log p.

    Raises
    ------
    ArchitectureError
        If ``iterations`` is less than 1, or there is noise and no ``generator``.
    """
    noisy = noise_y is not None or noise_x is not None
    if iterations < 1 or (noisy and generator is None):
        raise ArchitectureError(
            f"iterations must be at least 1, got {iterations}; and noise needs a generator: pass "
            "generator=nembp.backend.stream(seed, name)"
        )
    point: Matrix = np.array(theta, dtype=np.float64)

    def drawn(way: OneWay, noise: Noise | None, iteration: int) -> Matrix | None:
        if noise is None or generator is None:
            return None
        return draw_noise(
            net, point, x, y, way, noise, generator, condition=condition, iteration=iteration
        )

    steps = []
    for iteration in range(1, iterations + 1):
        step = gem_step(
            net,
            point,
            x,
            y,
            direction,
            rate=rate,
            ascents=ascents,
            ascent=ascent,
            noise_y=drawn("forward", noise_y, iteration),
            noise_x=drawn("backward", noise_x, iteration),
        )
        steps.append(step)
        point = step.theta
    return GemHistory(point, tuple(steps))


class _Climb(NamedTuple):
    point: Matrix
    before: float
    after: float
    taken: int


def _climb(
    value: Callable[[Matrix], float],
    slope: Callable[[Matrix], Matrix],
    start: Matrix,
    rate: float,
    ascents: int,
    ascent: Ascent,
) -> _Climb:
    """Climb ``value`` by at most ``ascents`` steps with backtracking."""
    point, here = start, value(start)
    before, taken = here, 0
    for _ in range(ascents):
        g = slope(point)
        d = g if ascent == "gradient" else _newton(slope, point, g)
        gain = float(g @ d)
        if gain <= 0.0:  # noise can bend Q the other way: Newton would go downhill
            d, gain = g, float(g @ g)
        for halving in range(HALVINGS):
            step = rate * 0.5**halving
            there = value(point + step * d)
            if there >= here + ARMIJO * step * gain:
                break
        else:  # Q is flat to rounding
            break
        point, here, taken = point + step * d, there, taken + 1
    return _Climb(point, before, here, taken)


def _newton(slope: Callable[[Matrix], Matrix], point: Matrix, g: Matrix) -> Matrix:
    """Return −(∇²Q − δI)⁻¹ ∇Q, the Hessian by central differences of the gradient."""
    size, width = len(point), 1e-5
    hessian = np.empty((size, size))
    for i in range(size):
        ahead, behind = point.copy(), point.copy()
        ahead[i] += width
        behind[i] -= width
        hessian[:, i] = (slope(ahead) - slope(behind)) / (2.0 * width)
    curvature = -0.5 * (hessian + hessian.T)
    # directions in which Q is flat (a bias beside a weight of a constant input) get a small step
    ridge = 1e-8 * max(1.0, float(np.abs(curvature).max()))
    return np.asarray(np.linalg.solve(curvature + ridge * np.eye(size), g))
