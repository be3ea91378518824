"""Random binary networks with data for the tests of nembp.em, and the laws that they must obey."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from nembp.em import (
    BinaryNetwork,
    Direction,
    entropy,
    gem_step,
    gradient,
    nem_inequality,
    q,
    q_gradient,
)
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.engine.noise import Noise

LIKELIHOODS: list[Likelihood] = [
    Multinomial(),
    Multinomial(weight=0.6),
    Gaussian(variance=0.4),
    Gaussian(variance=3.0),
    Bernoulli(),
    Bernoulli(weight=1.7),
]
DIRECTIONS: list[Direction] = ["forward", "backward", "joint"]


@dataclass(frozen=True)
class EmCase:
    net: BinaryNetwork
    theta: np.ndarray
    other: np.ndarray  # a second parameter vector
    x: np.ndarray
    y: np.ndarray
    generator: np.random.Generator

    @property
    def at(self):
        """Θₙ, x and y as the functions of one Θ take them, after the network."""
        return self.net, self.theta, self.x, self.y


def make_case(
    seed: int,
    likelihood: Likelihood,
    input_likelihood: Likelihood,
    sizes: tuple[int, int, int] = (3, 3, 2),
    rows: int = 4,
    scale: float = 1.0,
) -> EmCase:
    g = np.random.default_rng(seed)
    net = BinaryNetwork(*sizes, likelihood, input_likelihood)
    theta = net.initial(g, scale)
    other = theta + net.initial(g, 0.5)
    x = make_targets(g, input_likelihood, rows, sizes[0])
    y = make_targets(g, likelihood, rows, sizes[2])
    return EmCase(net, theta, other, x, y, g)


def make_targets(g: np.random.Generator, likelihood: Likelihood, rows: int, width: int):
    if isinstance(likelihood, Gaussian):
        return g.normal(0.0, 1.5, (rows, width))
    if isinstance(likelihood, Multinomial):
        if g.random() < 0.5:
            return np.eye(width)[g.integers(0, width, rows)]
        return g.dirichlet(np.ones(width), rows)
    return np.round(g.random((rows, width)))


@st.composite
def em_cases(draw, max_scale: float = 3.0) -> EmCase:
    seed, scale = draw(st.integers(0, 2**32 - 1)), draw(st.floats(0.0, max_scale))
    ends = draw(st.sampled_from(LIKELIHOODS)), draw(st.sampled_from(LIKELIHOODS))
    sizes = tuple(draw(st.integers(1, 4)) for _ in range(3))
    return make_case(seed, *ends, sizes, draw(st.integers(1, 5)), scale)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference over the larger of 1 and the largest entry."""
    return float(np.abs(a - b).max() / max(1.0, np.abs(a).max(), np.abs(b).max()))


def check_fisher(case: EmCase, direction: Direction) -> None:
    """Check that ∇ log p = ∇Q at Θₙ, to 1e-10."""
    through_q = q_gradient(case.net, case.theta, case.theta, case.x, case.y, direction)
    assert relative(gradient(*case.at, direction), through_q) < 1e-10


def check_decomposition(case: EmCase, direction: Direction) -> None:
    """Check that log p = Q + H at any Θ, with the posterior of Θₙ."""
    log_p = case.net.log_likelihood(case.other, case.x, case.y, direction)
    arguments = (case.net, case.other, case.theta, case.x, case.y, direction)
    assert abs(log_p - q(*arguments) - entropy(*arguments)) < 1e-10 * max(1.0, abs(log_p))


def slope_along(function, theta, d) -> float:
    """Central difference of a function of Θ along d."""
    h = 1e-5 / np.abs(d).max()
    return (function(theta + h * d) - function(theta - h * d)) / (2 * h)


def check_q_gradient(case: EmCase, direction: Direction, **noise) -> None:
    """Check ∇Q against central differences of Q along one random direction, away from Θₙ."""
    d = case.generator.standard_normal(case.net.parameter_count)
    rest = (case.theta, case.x, case.y, direction)
    difference = slope_along(lambda theta: q(case.net, theta, *rest, **noise), case.other, d)
    slope = float(q_gradient(case.net, case.other, *rest, **noise) @ d)
    assert abs(difference - slope) < 1e-5 * max(1.0, abs(slope))


def check_gem(case: EmCase, direction: Direction, **options) -> None:
    """Check that a GEM step lowers neither Q nor log p, and raises log p where it is not flat."""
    step = gem_step(*case.at, direction, **options)
    rest = (case.theta, case.x, case.y, direction)
    before, after = (q(case.net, t, *rest) for t in (case.theta, step.theta))
    tiny = 1e-12 * max(1.0, abs(before), abs(step.log_likelihood_before))
    assert after >= before - tiny
    log_p = case.net.log_likelihood(step.theta, case.x, case.y, direction)
    log_p_n = case.net.log_likelihood(case.theta, case.x, case.y, direction)
    assert log_p >= log_p_n - tiny
    if np.abs(gradient(*case.at, direction)).max() > 1e-3:
        assert log_p > log_p_n


def noises_for(direction: Direction, noise: Noise) -> dict[str, Noise]:
    """Return the noise on every target of ``direction``, as keyword arguments."""
    both = {"forward": {"noise_y": noise}, "backward": {"noise_x": noise}}
    return both["forward"] | both["backward"] if direction == "joint" else both[direction]


def evaluate(case: EmCase, direction: Direction, noise: Noise, **options):
    """Evaluate the NEM inequality at Θₙ."""
    options = {"generator": case.generator, "draws": 30, "support": "lattice"} | options
    return nem_inequality(*case.at, direction, **noises_for(direction, noise), **options)


def check_nem(case: EmCase, direction: Direction, condition: str = "posterior") -> None:
    """Check that NEM noise never makes Q_N < Q: exactly, on average and draw by draw."""
    found = evaluate(case, direction, Noise("nem", std=0.5), draws=50, condition=condition)
    assert found.exact is not None
    assert found.exact >= 0.0
    assert found.q_gain >= -1e-12
    assert found.holds
