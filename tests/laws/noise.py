"""Laws of the noise: what is drawn, what screening keeps, and what is recorded."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from laws import textbook
from laws.numerics import assert_near
from nembp.backend import get_backend, stream
from nembp.likelihoods import Gaussian, Likelihood, Multinomial
from nembp.network import Network
from nembp.noise import DRIFT_DRAWS, Noise, NoiseSource


def source(
    noise: Noise, likelihood: Likelihood, rows: int, width: int, generator: np.random.Generator
) -> NoiseSource:
    """Return the engine's noise source for float64 targets on the CPU."""
    return NoiseSource(noise, likelihood, get_backend("cpu"), rows, width, "float64", generator)


def draws(
    noise: Noise, likelihood: Likelihood, t: np.ndarray, std: float, generator: np.random.Generator
) -> np.ndarray:
    """Draw what is offered to screening, by definition."""
    if noise.law == "gaussian":
        n = std * generator.standard_normal(t.shape)
    else:
        n = std * math.sqrt(12.0) * (generator.random(t.shape) - 0.5)
    if noise.mode == "multiplicative":
        n = t * n
    if noise.update == "zero-sum" and isinstance(likelihood, Multinomial):
        n = n - n.mean(axis=1, keepdims=True)
    return n


def is_component(noise: Noise, likelihood: Likelihood) -> bool:
    """Whether single neurons are screened: by default for the Gaussian alone."""
    default = "component" if isinstance(likelihood, Gaussian) else "vector"
    return {"auto": default}.get(noise.screening, noise.screening) == "component"


def gains(
    noise: Noise, likelihood: Likelihood, z: np.ndarray, t: np.ndarray, n: np.ndarray
) -> np.ndarray:
    """Return what screening looks at: the gain of each neuron, or of each sample as a column."""
    terms = textbook.gain_terms(likelihood, z, t, n)
    return terms if is_component(noise, likelihood) else terms.sum(axis=1, keepdims=True)


def screened(
    noise: Noise, likelihood: Likelihood, z: np.ndarray, t: np.ndarray, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise that NEM or anti-NEM screening keeps, and where it keeps it."""
    if noise.kind == "blind":
        return n, np.ones((len(t), 1), dtype=bool)
    sign = -1.0 if noise.kind == "anti" else 1.0
    kept = sign * gains(noise, likelihood, z, t, n) >= 0.0
    if noise.rejected == "reflect":  # a gain of exactly 0 is kept on either side; −0 is turned
        n = np.where(np.signbit(sign * gains(noise, likelihood, z, t, n)), -n, n)
        kept = sign * gains(noise, likelihood, z, t, n) >= 0.0
    return np.where(kept, n, 0.0), kept


def half_space_drift(
    noise: Noise, likelihood: Likelihood, z: np.ndarray, t: np.ndarray, std: float
) -> np.ndarray:
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
        length = np.linalg.norm(v)
        mean[i] = S @ v / length if length > 0.0 else 0.0
    return std * math.sqrt(2.0 / math.pi) * (1.0 if noise.rejected == "reflect" else 0.5) * mean


def noise_on(
    noise: Noise,
    likelihood: Likelihood,
    z: np.ndarray,
    t: np.ndarray,
    std: float,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return the noise of any kind by definition, drawing as the engine does."""
    if noise.kind != "drift":
        return screened(noise, likelihood, z, t, draws(noise, likelihood, t, std, generator))[0]
    half_space = not isinstance(likelihood, Gaussian) and not is_component(noise, likelihood)
    if half_space and noise.law == "gaussian":
        return half_space_drift(noise, likelihood, z, t, std)
    kept = [
        screened(noise, likelihood, z, t, draws(noise, likelihood, t, std, generator))[0]
        for _ in range(DRIFT_DRAWS)
    ]
    return np.mean(kept, axis=0)


def is_tied(net: Network, x: np.ndarray, t: np.ndarray, noise: Noise, seed: int) -> bool:
    """Whether some draw's gain is zero but for rounding, so that either sign of it may be kept.

    As when all outputs are equal, or there is just one class.
    """
    _, z = textbook.signals(net, net.parameters, x, textbook.ACTIVATIONS)
    offered = draws(noise, net.likelihood, t, noise.std, np.random.default_rng(seed))
    gain = gains(noise, net.likelihood, z, t, offered)
    rounding = 1e-12 * net.likelihood.scale * noise.std * (1.0 + np.max(np.abs(z)))
    return bool(np.any(np.abs(gain) < rounding))


def replay(net: Network, x: np.ndarray, t: np.ndarray, noise: Noise, direction: str) -> np.ndarray:
    """Draw a direction's noise a second time from its stream, in a first step."""
    from laws.joint import SEED

    _, z = textbook.signals(net, net.parameters, x, textbook.ACTIVATIONS)
    generator = stream(SEED, f"noise/{direction}")
    return noise_on(noise, net.likelihood, z, t, noise.std, generator)


def check_screening(
    noise: Noise, likelihood: Likelihood, z: np.ndarray, t: np.ndarray, std: float, seed: int
) -> None:
    """The noise is what its definition draws; NEM gains, anti loses, blind is untouched."""
    engine = source(noise, likelihood, *t.shape, np.random.default_rng(seed))
    n = engine(likelihood.at(z), t, std)
    offered = draws(noise, likelihood, t, std, np.random.default_rng(seed))
    expected = noise_on(noise, likelihood, z, t, std, np.random.default_rng(seed))
    assert_near(n, expected, 1e-9, f"{noise.kind} noise", scale=std)
    gain = textbook.gain_terms(likelihood, z, t, n)
    screened_gain = gains(noise, likelihood, z, t, n)
    # log p itself is known to rounding: a gain of −1e-17 is a gain of 0
    rounding = 1e-13 * likelihood.scale * (1.0 + float(np.max(np.abs(z)) + np.max(np.abs(t))))
    before = textbook.log_likelihood(likelihood, z, t)
    after = textbook.log_likelihood(likelihood, z, t + n)
    slack = rounding * (t.shape[1] + np.abs(before) / likelihood.scale)
    if noise.kind == "nem":
        assert np.all(screened_gain >= -rounding), "NEM noise that lowers the likelihood was kept"
        assert np.all(after - before >= -slack), "NEM noise lowers a sample's log-likelihood"
    if noise.kind == "anti":
        assert np.all(screened_gain <= rounding), "anti-NEM noise that raises the likelihood"
        assert np.all(after - before <= slack), "anti-NEM noise raises a sample's log-likelihood"
    if noise.kind == "blind":
        assert_near(n, offered, 1e-15, "blind noise", scale=std)
    check_record(engine, noise, likelihood, z, t, offered, gain)


def check_record(
    engine: NoiseSource,
    noise: Noise,
    likelihood: Likelihood,
    z: np.ndarray,
    t: np.ndarray,
    offered: np.ndarray,
    gain: np.ndarray,
) -> None:
    """``accepted`` is the share of kept draws, ``gain`` the mean gain in nats a sample."""
    scale = float(np.max(np.abs(gain))) * t.shape[1] + 1e-12
    assert_near(engine.gain, [[gain.sum() / len(t)]], 1e-11, "mean gain", scale=scale)
    if noise.kind == "drift":
        assert engine.accepted[0, 0] == 0.0, "drift draws nothing, so it accepts nothing"
        return
    kept = screened(noise, likelihood, z, t, offered)[1]
    assert_near(engine.accepted, [[np.mean(kept)]], 1e-12, "share accepted")


def check_zero_sum(
    noise: Noise, likelihood: Likelihood, z: np.ndarray, t: np.ndarray, seed: int
) -> None:
    """Zero-sum noise on softmax targets leaves their sum what it was."""
    engine = source(noise, likelihood, *t.shape, np.random.default_rng(seed))
    total = engine(likelihood.at(z), t, noise.std).sum(axis=1)
    assert_near(total, np.zeros(len(t)), 1e-13, "sum of the noise", scale=noise.std * t.shape[1])


def component_drift(
    noise: Noise, likelihood: Gaussian, z: np.ndarray, t: np.ndarray, std: float
) -> np.ndarray:
    """Return E[n | kept] of additive Gaussian noise screened by component, in closed form.

    Kept where 0 ≤ n ≤ 2d (or 2d ≤ n ≤ 0), d = a − t: with X half-normal,
    E[X; X ≤ 2|d|] = σ (φ(0) − φ(2d/σ)); twice that when rejected draws are reflected.
    """
    d = z - t
    half = std * (stats.norm.pdf(0.0) - stats.norm.pdf(2.0 * d / std))
    return np.sign(d) * half * (2.0 if noise.rejected == "reflect" else 1.0)
