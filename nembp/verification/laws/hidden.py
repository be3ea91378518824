"""Laws of expectation-maximization, on a network whose hidden states can be enumerated."""

from __future__ import annotations

from typing import Any

from nembp.em import (
    BinaryNetwork,
    draw_noise,
    entropy,
    gem_step,
    gradient,
    nem_inequality,
    q,
    q_gradient,
)
from nembp.em.binary import Direction, OneWay
from nembp.engine.noise import Noise
from nembp.verification.cases import Case, random_targets
from nembp.verification.laws.deviations import Deviations, Vector, near

__all__ = ["fisher", "gem", "nem"]

DIRECTIONS: tuple[Direction, ...] = ("forward", "backward", "joint")


def _problem(case: Case) -> tuple[BinaryNetwork, Vector, Vector, Vector]:
    """Return a binary network of the case's ends, at most 4-3-4, its parameters, x and y."""
    inputs, outputs = min(case.sizes[0], 4), min(case.sizes[-1], 4)
    hidden = min(case.sizes[len(case.sizes) // 2], 3)
    net = BinaryNetwork(inputs, hidden, outputs, case.forward, case.backward)
    theta = net.initial(case.generator("em"), 0.7)
    rows = min(case.rows, 4)
    x = random_targets(case.backward, case.generator("x"), rows, inputs, hard=case.hard)
    y = random_targets(case.forward, case.generator("t"), rows, outputs, hard=case.hard)
    return net, theta, x, y


def _direction(case: Case) -> Direction:
    return DIRECTIONS[case.seed % 3]


def fisher(case: Case) -> Deviations:
    """∇ log p(Θ) = ∇Q(Θ | Θₙ) at Θ = Θₙ (Fisher's identity), and log p = Q + H anywhere."""
    net, theta, x, y = _problem(case)
    direction = _direction(case)
    direct = gradient(net, theta, x, y, direction)
    through_q = q_gradient(net, theta, theta, x, y, direction)
    scale = 1.0 + case.forward.scale + case.backward.scale
    yield near(through_q, direct, f"∇Q, {direction}", scale=scale)
    other = theta + 0.5 * case.generator("other").standard_normal(theta.size)
    parts = q(net, other, theta, x, y, direction), entropy(net, other, theta, x, y, direction)
    scale = 1.0 + abs(parts[0]) + abs(parts[1])
    log_p = net.log_likelihood(other, x, y, direction)
    yield near(sum(parts), log_p, f"Q + H, {direction}", scale=scale)


def gem(case: Case) -> Deviations:
    """A generalized-EM step lowers neither Q nor log p (Dempster, Laird and Rubin 1977)."""
    net, theta, x, y = _problem(case)
    direction = _direction(case)
    step = gem_step(net, theta, x, y, direction)
    q_n, q_next = (q(net, at, theta, x, y, direction) for at in (theta, step.theta))
    log_n, log_next = (net.log_likelihood(at, x, y, direction) for at in (theta, step.theta))
    yield near(min(q_next - q_n, 0.0), 0.0, "gain of Q", scale=1.0 + abs(q_n))
    yield near(min(log_next - log_n, 0.0), 0.0, "gain of log p", scale=1.0 + abs(log_n))
    recorded = [step.q_before, step.q_after, step.log_likelihood_before, step.log_likelihood_after]
    actual = [q_n, q_next, log_n, log_next]
    yield near(recorded, actual, "recorded Q and log p", scale=1.0 + abs(q_n))


def nem(case: Case) -> Deviations:
    """E[log p(y+n, h | x)/p(y, h | x)] ≥ 0 for NEM noise, ≤ 0 for anti-NEM noise, enumerated.

    And draw by draw: Q_N − Q is not negative for noise screened by the posterior (Osoba, Mitaim
    and Kosko 2013, theorem 1).
    """
    net, theta, x, y = _problem(case)
    way: OneWay = "forward" if case.seed % 2 else "backward"
    condition: Any = "posterior" if case.seed % 4 < 2 else "every"
    spec = case.forward_noise
    screening = "vector" if spec.screening == "expectation" else spec.screening  # exact by row
    key = "noise_y" if way == "forward" else "noise_x"
    size = (y if way == "forward" else x).size
    likelihood = net.target_likelihood(way)
    log_p = abs(q(net, theta, theta, x, y, way))
    scale = (1.0 + log_p + likelihood.scale * (1.0 + spec.std)) * size
    for kind, sign in (("nem", 1.0), ("anti", -1.0)):
        noise = Noise(
            kind,  # type: ignore[arg-type]
            std=spec.std,
            mode=spec.mode,
            screening=screening,
            rejected=spec.rejected,
        )
        g = case.generator("noise")
        options: dict[str, Any] = {key: noise, "condition": condition, "support": "lattice"}
        found = nem_inequality(net, theta, x, y, way, **options, generator=g, draws=2).exact
        assert found is not None
        yield near(min(sign * found, 0.0), 0.0, f"expectation of {kind} noise", scale=scale)
        n = draw_noise(net, theta, x, y, way, noise, g, condition=condition)
        noisy = q(net, theta, theta, x, y, way, **{key: n})
        gain = sign * (noisy - q(net, theta, theta, x, y, way))
        yield near(min(gain, 0.0), 0.0, f"Q_N − Q of {kind} noise", scale=scale)
