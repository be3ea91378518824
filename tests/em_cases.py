"""Random binary networks with data for the tests of nembp.em, and the laws that they must obey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from nembp.em import (
    BinaryNetwork,
    entropy,
    gem_step,
    gradient,
    nem_inequality,
    posterior,
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


@dataclass(frozen=True)
class EmCase:
    net: BinaryNetwork  # in one of its directions
    theta: np.ndarray
    other: np.ndarray  # a second parameter vector
    x: np.ndarray
    y: np.ndarray
    generator: np.random.Generator

    @property
    def at(self):
        """Θₙ, x and y as the functions of one Θ take them, after the network."""
        return self.net, self.theta, self.x, self.y

    @property
    def terms(self):
        """The posterior at Θₙ, x and y as Q takes them, after the network and Θ."""
        return posterior(*self.at), self.x, self.y


def make_case(
    seed: int,
    likelihood: Likelihood,
    input_likelihood: Likelihood,
    sizes: tuple[int, int, int] = (3, 3, 2),
    rows: int = 4,
    scale: float = 1.0,
    way: str = "forward",
) -> EmCase:
    """Return a case whose y is of the first likelihood, whatever its direction."""
    g = np.random.default_rng(seed)
    net = BinaryNetwork(*sizes, likelihood, input_likelihood)
    if way == "backward":
        net = BinaryNetwork(*sizes[::-1], input_likelihood, likelihood).reversed
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
    way = draw(st.sampled_from(["forward", "backward"]))
    return make_case(seed, *ends, sizes, draw(st.integers(1, 5)), scale, way)


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference over the larger of 1 and the largest entry."""
    return float(np.abs(a - b).max() / max(1.0, np.abs(a).max(), np.abs(b).max()))


def check_fisher(case: EmCase) -> None:
    """Check that ∇ log p = ∇Q at Θₙ, and log p = Q + H at any Θ."""
    through_q = q_gradient(case.net, case.theta, *case.terms)
    assert relative(gradient(*case.at), through_q) < 1e-10
    log_p = case.net.log_likelihood(case.other, case.x, case.y)
    parts = [of(case.net, case.other, *case.terms) for of in (q, entropy)]
    assert abs(log_p - sum(parts)) < 1e-10 * max(1.0, abs(log_p))


def slope_along(function, theta, d) -> float:
    """Central difference of a function of Θ along d."""
    h = 1e-5 / np.abs(d).max()
    return (function(theta + h * d) - function(theta - h * d)) / (2 * h)


def check_q_gradient(case: EmCase) -> None:
    """Check ∇Q against central differences of Q along one random direction, away from Θₙ."""
    d = case.generator.standard_normal(case.net.parameter_count)
    difference = slope_along(lambda theta: q(case.net, theta, *case.terms), case.other, d)
    slope = float(q_gradient(case.net, case.other, *case.terms) @ d)
    assert abs(difference - slope) < 1e-5 * max(1.0, abs(slope))


def check_gem(case: EmCase, **options: Any) -> None:
    """Check that a GEM step lowers neither Q nor log p, and raises log p where it is not flat."""
    ways = [case.net]
    if options.get("both"):
        ways.append(case.net.reversed)
    step = gem_step(*case.at, **options)

    def sums(theta):
        pairs = [(case.x, case.y), (case.y, case.x)]
        Q = (q(n, theta, posterior(n, case.theta, *at), *at) for n, at in zip(ways, pairs))  # noqa: B905
        log_p = (n.log_likelihood(theta, *at) for n, at in zip(ways, pairs))  # noqa: B905
        return sum(Q), sum(log_p)

    (before, log_p_n), (after, log_p) = sums(case.theta), sums(step.theta)
    tiny = 1e-12 * max(1.0, abs(before), abs(log_p_n))
    assert after >= before - tiny
    assert log_p >= log_p_n - tiny
    if not options.get("both") and np.abs(gradient(*case.at)).max() > 1e-2:
        assert log_p > log_p_n + tiny


def evaluate(case: EmCase, noise: Noise, **options: Any):
    """Evaluate the NEM inequality at Θₙ."""
    options = {"draws": 30, "support": "lattice"} | options
    return nem_inequality(*case.at, noise, options.pop("generator", case.generator), **options)


def check_nem(case: EmCase, condition: str = "posterior") -> None:
    """Check that NEM noise never makes Q_N < Q: exactly, on average and draw by draw."""
    found = evaluate(case, Noise("nem", std=0.5), draws=50, condition=condition)
    assert found.exact is not None
    assert found.exact >= 0.0
    assert found.sampled >= -1e-12
