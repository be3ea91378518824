"""EM's two terms, log p(y | x, Θ) = Q(Θ | Θₙ) + H(Θ | Θₙ), and their gradients.

With the posterior r(h) = p(h | y, x, Θₙ):

    Q(Θ | Θₙ) =  Σ_h r(h) log p(y, h | x, Θ)
    H(Θ | Θₙ) = −Σ_h r(h) log p(h | y, x, Θ)     ≥ H(Θₙ | Θₙ), the posterior's entropy

H is least at Θ = Θₙ (Gibbs), so ∇H = 0 there and ∇ log p = ∇Q: Fisher's identity. A gradient step
on log p, which is backpropagation, is therefore a generalized-EM step (Audhkhasi, Osoba and
Kosko, Neural Networks 78, 2016, theorem 1; Adigun and Kosko, Neural Networks 120, 2019). Every
function sums over rows, takes both directions, and the joint direction adds the two.

The two gradients share nothing but the parameters: :func:`gradient` differentiates probabilities
p(y | x) = Σ_h p(h | x) p(y | h) by the product rule and never forms a posterior;
:func:`q_gradient` weighs the gradients of log-probabilities with the posterior.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.em.binary import BinaryNetwork, Direction, OneWay, log_sum_exp, one_way
from nembp.em.screening import Matrix
from nembp.errors import ArchitectureError, ShapeError

__all__ = ["entropy", "entropy_gradient", "gradient", "posterior", "q", "q_gradient"]


def posterior(
    net: BinaryNetwork, theta: Any, x: Any, y: Any, direction: OneWay = "forward"
) -> Matrix:
    """Return r(h) = p(h | y, x, Θ) = p(y, h | x, Θ) / p(y | x, Θ), shape (rows, states).

    The joint direction has two posteriors, one for each of its directions.

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
    """Return Q(Θ | Θₙ) = Σ_h p(h | y, x, Θₙ) log p(y, h | x, Θ), in nats.

    With noise it is Q_N: the posterior of the clean target y weighs log p(y + n, h | x, Θ).
    ``noise_y`` is for the forward target y, ``noise_x`` for the backward target x.

    Raises
    ------
    ShapeError, ArchitectureError
        If a noise does not have its target's shape, or its end is no target of ``direction``.
    """
    total = 0.0
    for way, noisy_x, noisy_y in _noisy(x, y, direction, noise_y, noise_x):
        r = posterior(net, theta_n, x, y, way)
        total += float((r * net.log_joint(theta, noisy_x, noisy_y, way)).sum())
    return total


def entropy(
    net: BinaryNetwork,
    theta: Any,
    theta_n: Any,
    x: Any,
    y: Any,
    direction: Direction = "forward",
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
    """Return ∇_Θ Q(Θ | Θₙ) = Σ_h p(h | y, x, Θₙ) ∇ log p(y, h | x, Θ), flat like Θ."""
    total = np.zeros(net.parameter_count)
    for way, noisy_x, noisy_y in _noisy(x, y, direction, noise_y, noise_x):
        r = posterior(net, theta_n, x, y, way)
        total += _weighted_gradient(net, theta, noisy_x, noisy_y, way, r)
    return total


def entropy_gradient(
    net: BinaryNetwork,
    theta: Any,
    theta_n: Any,
    x: Any,
    y: Any,
    direction: Direction = "forward",
) -> Matrix:
    """Return ∇_Θ H(Θ | Θₙ) = Σ_h [p(h | y, x, Θ) − p(h | y, x, Θₙ)] ∇ log p(y, h | x, Θ).

    For log p(h | y, x, Θ) = log p(y, h | x, Θ) − log p(y | x, Θ), whose last term has the
    posterior-weighted gradient. It vanishes at Θ = Θₙ.
    """
    total = np.zeros(net.parameter_count)
    for way in one_way(direction):
        difference = posterior(net, theta, x, y, way) - posterior(net, theta_n, x, y, way)
        total += _weighted_gradient(net, theta, x, y, way, difference)
    return total


def gradient(
    net: BinaryNetwork, theta: Any, x: Any, y: Any, direction: Direction = "forward"
) -> Matrix:
    """Return ∇_Θ log p(y | x, Θ) = ∇p / p by the product rule on p = Σ_h p(h | x) p(y | h).

    ∂p(h | x)/∂z_j = (2h_j − 1) σ_j (1 − σ_j) Π_{i≠j} p(h_i | x), ∂p(y | h)/∂z = −error p(y | h).
    """
    total = np.zeros(net.parameter_count)
    for way in one_way(direction):
        source, target, _ = net.ends(x, y, way)
        p = net.layers(theta, way)
        h = net.states
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


def _weighted_gradient(
    net: BinaryNetwork, theta: Any, x: Any, y: Any, way: OneWay, weight: Matrix
) -> Matrix:
    """Return Σ_rows Σ_h weight(h) ∇ log p(y, h | x, Θ).

    ∂ log p(h | x)/∂z = h − σ(z) and ∂ log p(y | h)/∂z = −error.
    """
    source, target, _ = net.ends(x, y, way)
    p = net.layers(theta, way)
    sigma = _logistic(source @ p.W + p.b)
    slope_z = weight @ net.states - weight.sum(axis=1, keepdims=True) * sigma
    slope_end = -_errors(net, theta, target, way) * weight[:, :, None]
    return _assemble(net, way, source, slope_z, slope_end)


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
    likelihood = net.target_likelihood(way)
    z, t = net.readout_rows(theta, target, way)
    error = np.empty_like(z)
    likelihood.error(likelihood.at(z), t, error)
    return error.reshape(len(target), len(net.states), -1)


def _logistic(z: Matrix) -> Matrix:
    """Return σ(z) with full relative accuracy, also where it is nearly 0."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -z)))


def _noisy(
    x: Any, y: Any, direction: Direction, noise_y: Any, noise_x: Any
) -> list[tuple[OneWay, Any, Any]]:
    """Return (direction, x, y) for each direction summed, its own target with noise added."""
    ways = one_way(direction)
    for name, n, way in (("noise_y", noise_y, "forward"), ("noise_x", noise_x, "backward")):
        if n is not None and way not in ways:
            raise ArchitectureError(
                f"{name} is noise on the {way} direction's target, but the direction is "
                f"{direction!r}: leave it out or ask for 'joint'"
            )
    return [
        (way, x, _add("y", y, noise_y)) if way == "forward" else (way, _add("x", x, noise_x), y)
        for way in ways
    ]


def _add(name: str, target: Any, n: Any) -> Any:
    if n is None:
        return target
    if np.shape(n) != np.shape(target):
        raise ShapeError(
            f"noise_{name} must have the shape of {name}, {np.shape(target)}, got {np.shape(n)}"
        )
    return np.asarray(target, dtype=np.float64) + n
