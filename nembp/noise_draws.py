"""Draws of noise on one target, before and after the screening of `nembp.noise.NoiseSource`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nembp.backend import get_backend
from nembp.noise import Noise, NoiseSource
from nembp.noise_geometry import Floats, Frame, Point

__all__ = ["Cloud", "ball_share", "box_share", "draw_cloud", "drift"]

STREAM = "noise geometry"  # of the draws
BLOCK = 1 << 18  # noise values drawn at a time


@dataclass(frozen=True, eq=False)
class Cloud:
    """Draws and what screening made of them.

    Attributes
    ----------
    drawn, kept : ndarray of float64, shape (draws, 2)
        Coordinates of the noise before and after screening.
    fate : ndarray of int, shape (draws,)
        0 where the draw was accepted, 1 where its reflection −n was, 2 where it became 0; 3 where
        its neurons fared differently.
    accepted, reflected, dropped : float
        Shares of the draws with these fates; of their neurons if those are screened one by one.
    mean : ndarray of float64, shape (width,)
        Of the noise after screening.
    gain : float
        Mean gain of that in nats a sample.
    """

    drawn: Floats
    kept: Floats
    fate: NDArray[np.int64]
    accepted: float
    reflected: float
    dropped: float
    mean: Floats
    gain: float


def draw_cloud(
    point: Point,
    noise: Noise,
    std: float,
    frame: Frame,
    draws: int = 2000,
    *,
    seed: int = 0,
    batch: int = 128,
) -> Cloud:
    """Draw noise for one target as training does, and see what its screening keeps.

    Parameters
    ----------
    point : Point
        The target, and the output that screens it.
    noise : Noise
        Law, screening and so on; of kind "nem", or "anti" for the control.
    std : float
        σ of the draws, in units of the target.
    frame : Frame
        The coordinates.
    draws, seed : int
        How many, and of which stream. The same seed gives the same draws under any screening.
    batch : int
        Draws screened together where batches are (``screening`` "expectation").
    """
    unscreened = replace(noise, kind="blind")
    streams = [get_backend("cpu").generator(seed, STREAM) for _ in range(2)]
    by_neuron = noise.screening_for(point.likelihood) == "component"
    together = noise.screening_for(point.likelihood) == "expectation"
    places, fates = [], []
    counts, total, gain = np.zeros(2), np.zeros(point.width), 0.0
    for rows in _blocks(draws, batch if together else max(1, BLOCK // point.width)):
        raw, kept = (
            _noise(point, law, std, rows, stream)
            for law, stream in zip((unscreened, noise), streams, strict=True)
        )
        same, flipped = kept == raw, (kept == -raw) & (raw != 0)
        whole = same.all(axis=1), flipped.all(axis=1), (kept == 0).all(axis=1)
        fates.append(np.select(whole, (0, 1, 2), 3))
        chosen = (same, flipped) if by_neuron else whole[:2]
        counts += [part.sum() for part in chosen]
        total += kept.sum(axis=0)
        gain += float(point.gain(kept).sum())
        places.append((frame.coordinates(raw), frame.coordinates(kept)))
    drawn, after = (np.concatenate(part) for part in zip(*places, strict=True))
    of = draws * (point.width if by_neuron else 1)
    return Cloud(
        drawn,
        after,
        np.concatenate(fates),
        accepted=float(counts[0]) / of,
        reflected=float(counts[1]) / of,
        dropped=float(of - counts.sum()) / of,
        mean=total / draws,
        gain=gain / draws,
    )


def drift(point: Point, noise: Noise, std: float, cloud: Cloud) -> Floats:
    """Return the mean of the screened noise, shape (width,).

    In closed form for Gaussian draws that a half-space screens (`NoiseSource` of kind "drift"),
    and as the mean of the cloud's draws elsewhere.
    """
    closed = point.likelihood.gain_is_linear and noise.screening_for(point.likelihood) == "vector"
    if not closed or noise.draws > 1 or noise.law != "gaussian" or noise.kind != "nem":
        return cloud.mean
    return np.asarray(_noise(point, replace(noise, kind="drift"), std, 1, None)[0])


def _noise(point: Point, noise: Noise, std: float, rows: int, stream: Any) -> Floats:
    backend = get_backend("cpu")
    source = NoiseSource(noise, point.likelihood, backend, rows, point.width, "float64", stream)
    o, t = point.rows(rows)
    return np.asarray(source(o, t, std))


def _blocks(draws: int, rows: int) -> Iterator[int]:
    for start in range(0, draws, rows):
        yield min(rows, draws - start)


# -- shares ----------------------------------------------------------------------------------------
def ball_share(width: int, radius: float, std: float) -> float:
    """Return the share of draws from N(0, σ²I) that fall into the ball of a Gaussian end.

    P(‖n + t − a‖ ≤ r) with r = ‖t − a‖, a noncentral χ² distribution of ``width`` degrees of
    freedom: ‖n + t − a‖²/σ² is that with noncentrality r²/σ².

    Parameters
    ----------
    width : int
        Dimension d.
    radius, std : float
        r and σ > 0.

    >>> [round(ball_share(784, 6.0, std), 4) for std in (0.001, 0.01, 0.05)]
    [0.474, 0.257, 0.0006]
    """
    from scipy.special import chndtr

    ratio = radius / std
    if ratio <= 1e5:
        return float(chndtr(ratio**2, width, ratio**2)) if ratio else 0.0
    # nearly a half-space: n₁ ≥ ‖n‖²/2r, where ‖n‖² is about (d − 1) σ²
    return 0.5 * math.erfc((width - 1) / (2.0 * ratio) / math.sqrt(2.0))


def box_share(offsets: ArrayLike, std: float) -> float:
    """Return the share of neurons that component-wise screening of a Gaussian end accepts.

    Neuron i accepts nᵢ between 0 and 2(aᵢ − tᵢ), so the mean of Φ(2|aᵢ − tᵢ|/σ) − ½.

    Parameters
    ----------
    offsets : array_like, shape (width,)
        a − t.
    std : float
        σ > 0 of Gaussian draws.

    >>> round(box_share([0.0, 0.1, 100.0], 0.1), 4)
    0.3257
    """
    from scipy.special import ndtr

    return float(np.mean(ndtr(2.0 * np.abs(np.asarray(offsets, np.float64)) / std) - 0.5))
