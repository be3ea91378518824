"""Laws of the noise: what is drawn, what screening keeps, and what is recorded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nembp.engine.likelihoods import Gaussian
from nembp.engine.noise import Noise, NoiseSource
from nembp.verification.laws import textbook
from nembp.verification.laws.deviations import Deviations, Vector, near
from nembp.verification.laws.ends import End
from nembp.verification.laws.noise_definitions import (
    chosen,
    chosen_by,
    draws,
    gains,
    is_component,
    noise_on,
    root_curvatures,
    screened,
    tied,
)

__all__ = [
    "chosen_by",
    "component_drift",
    "component_implies_whole",
    "drawn",
    "draws",
    "gains",
    "is_component",
    "noise_on",
    "reflection",
    "root_curvatures",
    "screened",
    "screening",
    "source",
    "tied",
    "zero_sum",
]


def source(end: End, noise: Noise, rows: int, width: int, generator: Any) -> NoiseSource:
    """Return the engine's noise source for targets of one end."""
    return NoiseSource(noise, end.likelihood, end.backend, rows, width, end.dtype, generator)


def drawn(end: End, noise: Noise, z: Vector, t: Vector, std: float, seed: int) -> dict[str, Any]:
    """Draw noise with the engine; return it with its record, on the host."""
    engine = source(end, noise, t.shape[0], t.shape[1], np.random.default_rng(seed))
    engine(end.readout(z), end.backend.asarray(t, end.dtype), std)
    to = end.backend.to_numpy
    return {name: to(getattr(engine, name)).astype(float) for name in ("n", "accepted", "gain")}


# -- laws --------------------------------------------------------------------------------------
def screening(end: End, noise: Noise, z: Vector, t: Vector, std: float, seed: int) -> Deviations:
    """The noise is what its definition draws; NEM gains, anti loses, blind is untouched.

    ``accepted`` is the share of kept draws, ``gain`` the mean gain in nats a sample.
    """
    likelihood = end.likelihood
    if tied(noise, likelihood, z, t, np.random.default_rng(seed), end.dtype, std):
        return
    found = drawn(end, noise, z, t, std, seed)
    n, generator = found["n"], np.random.default_rng(seed)
    expected = noise_on(noise, likelihood, z, t, std, generator, end.dtype)
    yield near(n, expected, f"{noise.kind} noise", scale=100.0 * std)
    gain = gains(noise, likelihood, z, t, n)
    size = 1.0 + float(np.max(np.abs(z)) + np.max(np.abs(t))) + std
    scale = likelihood.scale * size * size * t.shape[1]
    # log p itself is known to rounding: a gain of −1e-17 is a gain of 0
    worst = {"nem": gain.min(), "anti": -gain.max(), "blind": 0.0, "drift": 0.0}[noise.kind]
    words = {"nem": "lowers", "anti": "raises"}.get(noise.kind, "changes")
    yield near(min(worst, 0.0), 0.0, f"{noise.kind} noise {words} log p: gain", scale=scale)
    each = textbook.gain_terms(likelihood, z, t, n).sum() / len(t)
    yield near(found["gain"], [[each]], "mean gain recorded", scale=scale)
    if noise.kind == "drift":
        yield near(found["accepted"], [[0.0]], "drift draws nothing, so share accepted", scale=1.0)
    else:
        again = np.random.default_rng(seed)
        kept = chosen(noise, likelihood, z, t, std, again, end.dtype)[1]
        yield near(found["accepted"], [[np.mean(kept)]], "share accepted", scale=1.0)


def component_implies_whole(
    end: End, noise: Noise, z: Vector, t: Vector, std: float, seed: int
) -> Deviations:
    """Noise whose every component passes, passes as a whole: log p(t+n) ≥ log p(t), each sample.

    For the Gaussian the condition is nᵢ² ≤ 2 nᵢ (aᵢ − tᵢ) (Audhkhasi et al. 2016, theorem 2).
    """
    likelihood = end.likelihood
    n = drawn(end, noise, z, t, std, seed)["n"]
    size = 1.0 + float(np.max(np.abs(z)) + np.max(np.abs(t))) + std
    scale = likelihood.scale * size * size * t.shape[1]
    before = textbook.log_likelihood(likelihood, z, t)
    after = textbook.log_likelihood(likelihood, z, t + n)
    scale += 10.0 * float(np.max(np.abs(before)))
    lowered = np.minimum(after - before, 0.0)
    yield near(lowered, np.zeros(len(t)), "log p(t+n) − log p(t) of a sample", scale=scale)
    if isinstance(likelihood, Gaussian) and noise.mode == "additive":
        slack = np.minimum(2.0 * n * (z - t) - n**2, 0.0)
        yield near(slack, np.zeros_like(slack), "2n(a−t) − n²", scale=size * size)


def reflection(end: End, noise: Noise, z: Vector, t: Vector, std: float, seed: int) -> Deviations:
    """Under a half-space every draw is accepted, n itself or −n."""
    likelihood = end.likelihood
    if tied(noise, likelihood, z, t, np.random.default_rng(seed), end.dtype, std):
        return
    found = drawn(end, noise, z, t, std, seed)
    offered = draws(noise, likelihood, t, std, np.random.default_rng(seed), end.dtype, z)
    yield near(found["accepted"], [[1.0]], "share accepted of a half-space")
    turned = np.sum(found["n"] * offered, axis=1, keepdims=True) < 0.0
    yield near(found["n"], np.where(turned, -offered, offered), "n or −n", scale=10.0 * std)


def zero_sum(end: End, noise: Noise, z: Vector, t: Vector, std: float, seed: int) -> Deviations:
    """Zero-sum noise on softmax targets leaves their sum what it was."""
    total = drawn(end, noise, z, t, std, seed)["n"].sum(axis=1)
    scale = std * t.shape[1] * max(1.0, float(np.max(np.abs(t))))
    yield near(total, np.zeros(len(t)), "sum of the noise", scale=scale)


def component_drift(noise: Noise, z: Vector, t: Vector, std: float) -> Vector:
    """Return E[n | kept] of additive Gaussian noise under a Gaussian end, in closed form.

    Kept where 0 ≤ n ≤ 2d (or 2d ≤ n ≤ 0), d = a − t: with X half-normal,
    E[X; X ≤ 2|d|] = σ (φ(0) − φ(2d/σ)); twice that when rejected draws are reflected.
    """
    d = z - t
    density = math.sqrt(1.0 / (2.0 * math.pi))
    half = std * density * (1.0 - np.exp(-0.5 * (2.0 * d / std) ** 2))
    return np.asarray(np.sign(d) * half * (2.0 if noise.rejected == "reflect" else 1.0))
