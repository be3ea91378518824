"""Noise by definition, in plain NumPy: what is drawn, what screening keeps, and its mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from nembp.backend.standard import fill_normal
from nembp.engine.likelihoods import Gaussian, Likelihood, Multinomial
from nembp.engine.noise import DRIFT_DRAWS, Noise
from nembp.verification.laws import textbook
from nembp.verification.laws.deviations import Vector

__all__ = [
    "chosen",
    "chosen_by",
    "draws",
    "gains",
    "half_space_drift",
    "has_closed_mean",
    "is_component",
    "noise_on",
    "root_curvatures",
    "screened",
    "screened_by",
    "tied",
]

Gain = Callable[[Vector], Vector]


def draws(
    noise: Noise,
    likelihood: Likelihood,
    t: Vector,
    std: float,
    generator: np.random.Generator,
    dtype: str = "float64",
    z: Vector | None = None,
) -> Vector:
    """Draw what is offered to screening, by definition; law ``curvature`` needs ``z``."""
    kind: Any = np.float32 if dtype == "float32" else np.float64
    if noise.law == "uniform":
        uniform = generator.random(t.shape, dtype=kind).astype(float)
        n = std * math.sqrt(12.0) * (uniform - 0.5)
    else:
        n = std * fill_normal(generator, np.empty(t.shape, dtype=kind)).astype(float)
    if noise.law == "curvature":
        assert z is not None
        roots = root_curvatures(likelihood, textbook.link(likelihood, z))
        n = np.einsum("rij,rj->ri", roots, n)
    if noise.mode == "multiplicative":
        n = t * n
    if noise.update == "zero-sum" and isinstance(likelihood, Multinomial):
        n = n - n.mean(axis=1, keepdims=True)
    return np.asarray(n)


def root_curvatures(likelihood: Likelihood, a: Vector) -> Vector:
    """Return for each row a matrix S with S Sᵀ = −∂² log p/∂z∂zᵀ / scale, (rows, width, width)."""
    unit = np.broadcast_to(np.eye(a.shape[1]), (*a.shape, a.shape[1]))
    if isinstance(likelihood, Gaussian):
        return unit
    if isinstance(likelihood, Multinomial):
        root = np.sqrt(a)
        return np.asarray(unit * root[:, None, :] - a[:, :, None] * root[:, None, :])
    return np.asarray(unit * np.sqrt(a * (1.0 - a))[:, None, :])


def is_component(noise: Noise, likelihood: Likelihood) -> bool:
    """Whether single neurons are screened: by default for the Gaussian alone."""
    default = "component" if isinstance(likelihood, Gaussian) else "vector"
    return {"auto": default}.get(noise.screening, noise.screening) == "component"


def gains(noise: Noise, likelihood: Likelihood, z: Vector, t: Vector, n: Vector) -> Vector:
    """Return what screening looks at: the gain of each neuron, or of each sample as a column.

    In expectation, every sample's is the mean of the batch.
    """
    terms = textbook.gain_terms(likelihood, z, t, n)
    whole = np.sum(terms, axis=1, keepdims=True)
    if noise.screening == "expectation":
        return np.full_like(whole, np.mean(whole))
    return terms if is_component(noise, likelihood) else np.asarray(whole)


def screened(
    noise: Noise, likelihood: Likelihood, z: Vector, t: Vector, n: Vector
) -> tuple[Vector, Vector]:
    """Return the noise that NEM or anti-NEM screening keeps, and where it keeps it."""
    return screened_by(noise, partial(gains, noise, likelihood, z, t), n)


def screened_by(noise: Noise, gain: Gain, n: Vector) -> tuple[Vector, Vector]:
    """Return the same for any gain of noise, one a sample (rows, 1) or one a neuron."""
    if noise.kind == "blind":
        return n, np.ones((len(n), 1), dtype=bool)
    sign = -1.0 if noise.kind == "anti" else 1.0
    kept = sign * gain(n) >= 0.0
    if noise.rejected == "reflect":  # a gain of exactly 0 is kept on either side
        n = np.where(kept, n, -n)
        kept = sign * gain(n) >= 0.0
    return np.where(kept, n, 0.0), kept


def chosen_by(noise: Noise, gain: Gain, offer: Callable[[], Vector]) -> tuple[Vector, Vector]:
    """Return the screened draw, and where it is kept; of several draws the one that gains most."""
    several = 1 if noise.kind == "blind" else noise.draws
    sign = -1.0 if noise.kind == "anti" else 1.0
    best, kept = screened_by(noise, gain, offer())
    score = sign * gain(best)
    for _ in range(several - 1):
        n, _ = screened_by(noise, gain, offer())
        other = sign * gain(n)
        best, score = np.where(other > score, n, best), np.maximum(score, other)
    if several > 1:
        whole = score.shape != best.shape
        kept = np.any(best != 0.0, axis=1, keepdims=True) if whole else best != 0.0
    return best, kept


def chosen(
    noise: Noise,
    likelihood: Likelihood,
    z: Vector,
    t: Vector,
    std: float,
    generator: np.random.Generator,
    dtype: str = "float64",
) -> tuple[Vector, Vector]:
    """Return the noise that is taken on targets, and where it is kept."""
    gain = partial(gains, noise, likelihood, z, t)
    return chosen_by(noise, gain, lambda: draws(noise, likelihood, t, std, generator, dtype, z))


def half_space_drift(
    noise: Noise, likelihood: Likelihood, z: Vector, t: Vector, std: float
) -> Vector:
    """Return the mean of NEM noise under a half-space: n = S ξ, kept where ⟨Sᵀw, ξ⟩ ≥ 0.

    E = σ √(2/π) S Sᵀw / ‖Sᵀw‖ when rejected draws are reflected, half that when they are zeroed.
    """
    unit = np.eye(t.shape[1])
    mean = np.empty_like(t)
    for i, row in enumerate(t):
        S = np.diag(row) if noise.mode == "multiplicative" else unit
        if noise.update == "zero-sum" and isinstance(likelihood, Multinomial):
            S = (unit - 1.0 / len(row)) @ S
        ones = np.ones((1, len(row)))  # the gain is linear in n
        w = textbook.gain_terms(likelihood, z[i : i + 1], t[i : i + 1], ones)[0]
        v = S.T @ w
        length = float(np.linalg.norm(v))
        mean[i] = S @ v / length if length > 0.0 else 0.0
    share = 1.0 if noise.rejected == "reflect" else 0.5
    return np.asarray(std * math.sqrt(2.0 / math.pi) * share * mean)


def has_closed_mean(noise: Noise, likelihood: Likelihood) -> bool:
    """Whether the drift is a formula; it is a mean of draws otherwise."""
    half_space = not isinstance(likelihood, Gaussian) and not is_component(noise, likelihood)
    several = noise.draws > 1 or noise.screening == "expectation"
    return half_space and noise.law == "gaussian" and not several


def noise_on(
    noise: Noise,
    likelihood: Likelihood,
    z: Vector,
    t: Vector,
    std: float,
    generator: np.random.Generator,
    dtype: str = "float64",
) -> Vector:
    """Return the noise of any kind by definition, drawing as the engine does."""
    if noise.kind == "drift" and has_closed_mean(noise, likelihood):
        return half_space_drift(noise, likelihood, z, t, std)
    repeats = DRIFT_DRAWS if noise.kind == "drift" else 1
    kept = [chosen(noise, likelihood, z, t, std, generator, dtype)[0] for _ in range(repeats)]
    return np.asarray(np.mean(kept, axis=0))


def tied(
    noise: Noise,
    likelihood: Likelihood,
    z: Vector,
    t: Vector,
    generator: np.random.Generator,
    dtype: str = "float64",
    std: float | None = None,
) -> bool:
    """Whether some draw's gain is zero but for rounding, so that either sign of it may be kept.

    As when all outputs are equal, or there is just one class; or whether two draws gain the same.
    """
    std = noise.std if std is None else std
    epsilon = float(np.finfo(dtype).eps)
    size = float(np.max(np.abs(z)) + np.max(np.abs(t))) + std + 1.0
    rounding = 300.0 * epsilon * likelihood.scale * std * size * t.shape[1]
    if noise.kind == "drift" and has_closed_mean(noise, likelihood):
        # a direction w / ‖w‖ is rounding alone where w is
        one = half_space_drift(noise, likelihood, z, t, 1.0)
        slope = textbook.gain_terms(likelihood, z, t, one).sum(axis=1)
        return bool(np.any((slope > 0.0) & (slope < 1e-3 * likelihood.scale * size)))
    several = 1 if noise.kind == "blind" else noise.draws
    before: list[Vector] = []
    for i in range(several * (DRIFT_DRAWS if noise.kind == "drift" else 1)):
        offered = draws(noise, likelihood, t, std, generator, dtype, z)
        gain = gains(noise, likelihood, z, t, offered)
        turned = gains(noise, likelihood, z, t, -offered)
        moved = np.abs(offered) if gain.shape == t.shape else np.abs(offered).max(1, keepdims=True)
        near_zero = np.minimum(np.abs(gain), np.abs(turned)) < rounding
        if np.any(near_zero & (moved > 0.0)):
            return True
        reached = np.maximum(gain, turned) if noise.rejected == "reflect" else gain
        before = [*(before if i % several else []), reached]
        if any(np.any(np.abs(reached - one) < rounding) for one in before[:-1]):
            return True
    return False
