"""The NEM inequality on the binary network, exactly and by sampling.

Theorem (Osoba, Mitaim and Kosko 2013, theorem 1; for networks Audhkhasi, Osoba and Kosko 2016,
theorem 2). Noise helps a step on average, E[Q_N(Θ | Θ*)] ≥ Q(Θ | Θ*), if

    E[log p(y + n, h | x, Θ) / p(y, h | x, Θ)] ≥ 0

over the noise n and the hidden state h, distributed as p(h | y, x, Θ*) given the data. For the
data at hand the left side is E[Q_N] − Q itself. :func:`nem_inequality` evaluates it by
enumerating hidden states and noise (or by the integrals of :mod:`nembp.em.closed_form`), by
sampling both, and as the mean of Q_N − Q over the noise: three routes to one number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from nembp.em.binary import BinaryNetwork, Direction, OneWay, one_way
from nembp.em.binary_noise import draw_noise, gains_at, posterior_slope
from nembp.em.closed_form import expected_gain
from nembp.em.expectation import posterior
from nembp.em.screening import LATTICE, Condition, Matrix, Support, check_options, screen
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError

__all__ = ["NemInequality", "nem_inequality"]

MAX_LATTICE = 8  # 3⁸ noise vectors


@dataclass(frozen=True)
class NemInequality:
    """E[log p(y + n, h | x, Θ) / p(y, h | x, Θ)], summed over rows, in nats.

    Attributes
    ----------
    exact : float or None
        By enumeration or in closed form; None where the noise has neither.
    sampled, standard_error : float
        Mean over draws of noise and hidden states, and its standard error.
    q_gain, q_gain_standard_error : float
        Mean over draws of the noise alone of Q_N(Θ | Θ*) − Q(Θ | Θ*), and its standard error.
    draws : int
        Draws behind both means.
    nonzero : float
        Share of the target coordinates that carry noise after screening.
    """

    exact: float | None
    sampled: float
    standard_error: float
    q_gain: float
    q_gain_standard_error: float
    draws: int
    nonzero: float

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

    Parameters
    ----------
    net, theta, x, y, direction
        The network, Θ, the data (rows are samples) and the direction; joint sums both.
    noise_y, noise_x : Noise
        Noise on the forward target y and on the backward target x, at its first standard
        deviation; at least one, and none on an end that is no target of ``direction``.
    generator : numpy.random.Generator
    draws : int
        Of the two sampled means; at least 2.
    condition : {"posterior", "every"}
        How screening treats hidden states (:mod:`nembp.em.screening`).
    support : {"continuous", "lattice"}
        Gaussian or uniform noise; or the three-point law, whose 3^width values are enumerated
        (width at most 8).
    theta_star : array, optional
        Θ* of the posterior, where it is not Θ. Noise screened at Θ by ``every`` keeps its
        guarantee; by ``posterior`` it does not. Exact on the lattice only.

    Raises
    ------
    ArchitectureError
        If the noises do not fit ``direction``, or an option is out of range.
    """
    star = theta if theta_star is None else theta_star
    sides = [
        _Side(net, theta, star, net.rows("x", x), net.rows("y", y), way, noise, condition, support)
        for way, noise in _noises(direction, noise_y, noise_x, draws).items()
    ]
    parts = [side.exact() for side in sides]
    n = [side.draw(draws, generator) for side in sides]
    at_hidden, q_gain = np.sum(
        [side.sample(noise, generator) for side, noise in zip(sides, n, strict=True)], axis=0
    )
    return NemInequality(
        exact=None if None in parts else math.fsum(p for p in parts if p is not None),
        sampled=float(at_hidden.mean()),
        standard_error=float(at_hidden.std(ddof=1) / math.sqrt(draws)),
        q_gain=float(q_gain.mean()),
        q_gain_standard_error=float(q_gain.std(ddof=1) / math.sqrt(draws)),
        draws=draws,
        nonzero=float(np.concatenate([noise.ravel() for noise in n]).astype(bool).mean()),
    )


def _noises(
    direction: Direction, noise_y: Noise | None, noise_x: Noise | None, draws: int
) -> dict[OneWay, Noise]:
    """Return the noise on each target of ``direction``."""
    specs: dict[OneWay, Noise | None] = {"forward": noise_y, "backward": noise_x}
    noises = {way: noise for way, noise in specs.items() if noise is not None}
    if not noises or not set(noises) <= set(one_way(direction)) or draws < 2:
        raise ArchitectureError(
            f"direction {direction!r} needs noise on its own target (noise_y forward, noise_x "
            f"backward) and draws ≥ 2, got noise_y={noise_y}, noise_x={noise_x}, draws={draws}"
        )
    return noises


@dataclass(frozen=True)
class _Side:
    """One direction of the expectation."""

    net: BinaryNetwork
    theta: Any
    star: Any
    x: Matrix
    y: Matrix
    way: OneWay
    noise: Noise
    condition: Condition
    support: Support

    def exact(self) -> float | None:
        """Return the expectation by enumeration or in closed form, or None."""
        check_options(self.noise, self.condition, self.support)
        if self.support == "lattice":
            return self._enumerate()
        if self.condition == "posterior" and self.star is self.theta:
            return self._integrate()
        return None

    def _enumerate(self) -> float | None:
        """Return Σ_n p(n) Σ_h p(h | y, x, Θ*) gain(kept n; h), n over the lattice."""
        if self.noise.kind == "drift":  # its value is itself a sampled mean
            return None
        _, target, likelihood = self.net.ends(self.x, self.y, self.way)
        component = self.noise.screening_for(likelihood) == "component"
        gains = gains_at(self.net, self.theta, target, self.way, component=component)
        r = posterior(self.net, self.theta, self.x, self.y, self.way)
        r_star = posterior(self.net, self.star, self.x, self.y, self.way)
        total = 0.0
        for point, probability in _lattice(target.shape[1]):
            n = np.broadcast_to(self.noise.std_at(1, 1) * point, target.shape)
            if self.noise.mode == "multiplicative":
                n = target * n
            if self.noise.kind != "none":
                kept = screen(self.noise, n, gains, r, self.condition)
                total += probability * float(np.einsum("ns,nsg->", r_star, gains(kept)))
        return total

    def _integrate(self) -> float | None:
        """Return the expectation of continuous noise in closed form, or None."""
        _, target, likelihood = self.net.ends(self.x, self.y, self.way)
        std = np.full_like(target, self.noise.std_at(1, 1))
        if self.noise.mode == "multiplicative":
            std = std * np.abs(target)
        slope = posterior_slope(self.net, self.theta, self.x, self.y, self.way)
        return expected_gain(self.noise, slope, std, likelihood)

    def draw(self, draws: int, generator: np.random.Generator) -> Matrix:
        """Return independent draws for every row, shape (draws · rows, targets)."""
        return draw_noise(
            self.net,
            self.theta,
            np.tile(self.x, (draws, 1)),
            np.tile(self.y, (draws, 1)),
            self.way,
            self.noise,
            generator,
            condition=self.condition,
            support=self.support,
        )

    def sample(self, n: Matrix, generator: np.random.Generator) -> tuple[Matrix, Matrix]:
        """Return, for each draw, the log ratio at one sampled h a row, and Q_N − Q."""
        draws = len(n) // len(self.x)
        x, y = np.tile(self.x, (draws, 1)), np.tile(self.y, (draws, 1))
        noisy = (x, y + n) if self.way == "forward" else (x + n, y)
        log_joint = self.net.log_joint
        ratio = log_joint(self.theta, *noisy, self.way) - log_joint(self.theta, x, y, self.way)
        r = np.tile(posterior(self.net, self.star, self.x, self.y, self.way), (draws, 1))
        cumulative = r.cumsum(axis=1)
        uniform = generator.uniform(0.0, cumulative[:, -1:])
        h = (cumulative <= uniform).sum(axis=1)  # the state whose interval holds the draw
        at_h = ratio[np.arange(len(h)), h]
        expected = (r * ratio).sum(axis=1)
        return at_h.reshape(draws, -1).sum(axis=1), expected.reshape(draws, -1).sum(axis=1)


def _lattice(width: int) -> Iterator[tuple[Matrix, float]]:
    """Yield every point of the lattice law in ``width`` dimensions, with its probability."""
    if width > MAX_LATTICE:
        raise ArchitectureError(
            f"a lattice in {width} dimensions has 3^{width} points; enumeration stops at "
            f"{MAX_LATTICE}: use support='continuous'"
        )
    points, probabilities = LATTICE
    for index in product(range(len(points)), repeat=width):
        chosen = list(index)
        yield points[chosen], float(probabilities[chosen].prod())
