"""What is drawn of the noise on one target, and what its screening keeps: a panel a view.

Panels are numbers, which :mod:`nembp.noise_pictures` draws. Which there are follows from the end:

============== =====================================================================================
end            panels
============== =====================================================================================
multinomial    three classes on the simplex; all classes, in a plane through the half-space's normal
Bernoulli      two neurons; all neurons, in a plane through the half-space's normal
Gaussian       the ball, screened by whole vectors; the same draws, screened by components
one neuron     its gain over its noise
============== =====================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nembp.errors import ArchitectureError
from nembp.likelihoods import Gaussian, Multinomial
from nembp.noise import Noise
from nembp.noise_draws import Cloud, ball_share, box_share, draw_cloud, drift
from nembp.noise_geometry import Floats, Point
from nembp.noise_views import (
    Names,
    View,
    ball_view,
    line_view,
    pair_view,
    simplex_view,
    span_view,
)

__all__ = ["Panel", "noise_panels"]

SCREENINGS = {
    "vector": "whole vectors are screened",
    "component": "each neuron is screened by itself",
    "expectation": "batches are screened by their mean gain",
}


@dataclass(frozen=True, eq=False)
class Panel:
    """Draws of noise on one target, in one view.

    Attributes
    ----------
    view : View
        The coordinates and the landmarks.
    screening : {"vector", "component", "expectation"}
        How the draws are screened.
    cloud : Cloud
        The draws.
    exact : float or None
        Share that is accepted before any reflection, by theory, where that is known.
    drift : ndarray of float64, shape (2,)
        Mean of the screened noise.
    sum_change : float or None
        Of a multinomial target: the mean of the screened noise's sum.
    """

    view: View
    screening: str
    cloud: Cloud
    exact: float | None
    drift: Floats
    sum_change: float | None


def noise_panels(
    point: Point,
    noise: Noise,
    std: float,
    names: Names = str,
    *,
    draws: int = 2000,
    seed: int = 0,
    batch: int = 128,
) -> list[Panel]:
    """Draw noise for one target, and show what its screening keeps.

    Parameters
    ----------
    point : Point
        The target and the output.
    noise : Noise
        Of kind "nem". A screening of "auto" shows a Gaussian end's two balls side by side.
    std : float
        σ of the draws, in units of the target.
    names : callable
        What a neuron is called.
    draws, seed, batch : int
        As `draw_cloud`.

    Raises
    ------
    ArchitectureError
        If the likelihood's gain is neither linear nor the Gaussian's.
    """
    linear = point.likelihood.gain_is_linear
    if not linear and not isinstance(point.likelihood, Gaussian):
        raise ArchitectureError(
            f"the region that keeps {point.likelihood.name} noise is neither a half-space nor a "
            "ball, which is what can be drawn; expected a multinomial, bernoulli or gaussian end"
        )
    laws = [noise]
    by_neuron = noise.screening_for(point.likelihood) == "component"
    if point.width == 1:
        views = [line_view(point, names)]
    elif not linear:
        if noise.screening == "auto":
            laws = [replace(noise, screening="vector"), replace(noise, screening="component")]
        views = [ball_view(point, seed, SCREENINGS[law.screening]) for law in laws]
    elif point.width == 2:
        views = [pair_view(point, names, by_neuron=by_neuron)]
    elif isinstance(point.likelihood, Multinomial) and not by_neuron:
        views = [simplex_view(point, names), span_view(point, seed)]
        laws = [replace(noise, update="zero-sum"), noise]
    else:
        views = [pair_view(point, names, by_neuron=by_neuron), span_view(point, seed)]
        laws = [noise, noise]
    return [
        _panel(view, law, std, draws, seed, batch) for view, law in zip(views, laws, strict=True)
    ]


def _panel(view: View, noise: Noise, std: float, draws: int, seed: int, batch: int) -> Panel:
    point = view.point
    cloud = draw_cloud(point, noise, std, view.frame, draws, seed=seed, batch=batch)
    mean = drift(point, noise, std, cloud)
    return Panel(
        view=view,
        screening=noise.screening_for(point.likelihood),
        cloud=cloud,
        exact=_exact(point, noise, std),
        drift=view.frame.coordinates(mean)[0],
        sum_change=float(mean.sum()) if isinstance(point.likelihood, Multinomial) else None,
    )


def _exact(point: Point, noise: Noise, std: float) -> float | None:
    """Return the share that is accepted before any reflection, by theory."""
    screening = noise.screening_for(point.likelihood)
    if screening == "expectation":
        return None
    if point.likelihood.gain_is_linear:  # where w is 0, all noise has gain 0
        return 0.5 if np.all(point.slope) else None
    if noise.law != "gaussian":
        return None
    offset = point.a - point.t
    if screening == "component":
        return box_share(offset, std)
    return ball_share(point.width, float(np.linalg.norm(offset)), std)
