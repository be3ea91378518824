"""Views of the noise on one target: two coordinates, where the gain is ≥ 0, and landmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nembp.backend import stream
from nembp.likelihoods import Multinomial
from nembp.noise_geometry import (
    Corner,
    Disc,
    Floats,
    Frame,
    GainCurve,
    HalfPlane,
    Plane,
    Point,
    Region,
    TurnedPlane,
)

__all__ = ["Names", "View", "ball_view", "line_view", "pair_view", "simplex_view", "span_view"]

Names = Callable[[int], str]  # what a neuron is called


@dataclass(frozen=True, eq=False)
class View:
    """How the noise on one target is looked at. The target is the origin.

    Attributes
    ----------
    kind : {"simplex", "pair", "span", "ball", "line"}
        Which of the functions below made it.
    point : Point
        The neurons that receive noise.
    frame : Frame
        The coordinates.
    region : Region
        Where the gain is ≥ 0; of a pair screened by component, where both neurons' is.
    title, note : str
        What it shows; what a reader has to know about it.
    x_label, y_label : str
        Of the coordinates; "" on the simplex, whose corners have names.
    output : ndarray, shape (2,), or None
        Where a lies.
    corners : tuple of (str, ndarray of shape (2,))
        Names and places of the simplex's.
    sum_zero : ndarray, shape (2,), or None
        Direction of the noise that leaves a multinomial target's sum as it is.
    """

    kind: Literal["simplex", "pair", "span", "ball", "line"]
    point: Point
    frame: Frame
    region: Region
    title: str
    note: str = ""
    x_label: str = ""
    y_label: str = ""
    output: Floats | None = None
    corners: tuple[tuple[str, Floats], ...] = ()
    sum_zero: Floats | None = None


def simplex_view(whole: Point, names: Names) -> View:
    """Show three classes of a multinomial end: the target's and the two most probable others.

    The noise is to be drawn with sum zero over the three ("zero-sum"); in that plane their
    half-space of the gain is a half-plane through the target.
    """
    mass = float(whole.t.sum())
    first = int(np.lexsort((-whole.a, -whole.t))[0])
    others = [int(k) for k in np.argsort(-whole.a, kind="stable") if k != first]
    chosen = [first, *others[:2]]
    point, plane = whole.only(chosen), Plane.simplex()
    total = float(point.t.sum()) or 1.0  # of the plane that the target lies in
    held = float(point.a.sum())
    origin = plane.coordinates(point.t)[0]
    corners = tuple(
        (f"{names(k)} (p = {_probability(whole.a[k])})", total * plane.axes[:, i] - origin)
        for i, k in enumerate(chosen)
    )
    rest = f", and noise in the other {whole.width - 3} at zero" if whole.width > 3 else ""
    scaled = f"; a is scaled to sum to {total:g} over them" if held < 0.9995 or mass != 1 else ""
    return View(
        "simplex",
        point,
        plane,
        HalfPlane(plane.coordinates(point.slope)[0]),
        title="three classes on the simplex",
        note="Left: the noise of the three classes is held at sum zero, in the simplex's plane"
        f"{rest}. These classes hold {held:.4g} of the probability{scaled}.",
        output=plane.coordinates(point.a * total / held)[0] - origin if held > 0 else None,
        corners=corners,
    )


def pair_view(whole: Point, names: Names, *, by_neuron: bool) -> View:
    """Show two neurons; of many, those that are furthest from their targets."""
    chosen = np.sort(np.argsort(-np.abs(whole.t - whole.a), kind="stable")[:2])
    point, plane = whole.only(chosen), Plane(np.eye(2))
    others = whole.width - 2
    each = " Blue is where each of the two gains." if by_neuron else ""
    return View(
        "pair",
        point,
        plane,
        Corner(point.slope) if by_neuron else HalfPlane(point.slope),
        title=f"two of {whole.width} neurons" if others else "both neurons",
        note="Left: the two neurons that are furthest from their targets; noise in the other "
        f"{others} is held at zero.{each}"
        if others
        else each,
        x_label=f"noise in {names(int(chosen[0]))}",
        y_label=f"noise in {names(int(chosen[1]))}",
        output=point.a - point.t,
        sum_zero=_sum_zero(point, plane),
    )


def span_view(point: Point, seed: int) -> View:
    """Show all neurons in the plane through the half-space's normal and another direction.

    The other is (1, ..., 1) of a multinomial end, along which the target's sum changes, and random
    of others.
    """
    multinomial = isinstance(point.likelihood, Multinomial)
    other = np.ones(point.width) if multinomial else _random(point, seed)
    plane = Plane.through(point.slope, other)
    w = "log a" if multinomial else "z"
    where = "the change of the target's sum" if multinomial else "a random direction"
    return View(
        "span",
        point,
        plane,
        HalfPlane(plane.coordinates(point.slope)[0]),
        title=f"all {point.width} neurons",
        note=f"Right: noise in all neurons, seen along {w}, which alone decides the gain, and "
        f"along {where}.",
        x_label=f"noise along {w}",
        y_label=f"noise across it, towards {where}",
        sum_zero=_sum_zero(point, plane),
    )


def ball_view(point: Point, seed: int, title: str) -> View:
    """Show all neurons of a Gaussian end in the plane through a − t turned to hold each draw."""
    offset = point.a - point.t
    radius = float(np.linalg.norm(offset))
    centre = np.array([radius, 0.0])
    return View(
        "ball",
        point,
        TurnedPlane(*Plane.through(offset, _random(point, seed)).axes),
        Disc(centre, radius),
        title=title,
        note=f"The ball of radius ‖t − a‖ = {radius:.4g} in {point.width} dimensions, in the plane "
        "that holds a − t and, turned about it, each draw: a point lies in the disc where its draw "
        "lies in the ball.",
        x_label="noise along a − t",
        y_label="length of the noise across it" if point.width > 2 else "noise across it",
        output=centre,
    )


def line_view(point: Point, names: Names) -> View:
    """Show a single neuron: its gain over its noise."""
    curve = GainCurve(point)
    return View(
        "line",
        point,
        curve,
        HalfPlane(np.array([0.0, 1.0])),
        title="the only neuron",
        x_label=f"noise in {names(0)}",
        y_label="gain (nats)",
        output=curve.coordinates([point.a - point.t])[0],
    )


def _random(point: Point, seed: int) -> Floats:
    return stream(seed, "noise plane").standard_normal(point.width)


def _sum_zero(point: Point, plane: Plane) -> Floats | None:
    """Return the direction across (1, ..., 1) in a plane that holds it."""
    if not isinstance(point.likelihood, Multinomial):
        return None
    up = plane.coordinates(np.ones(point.width))[0]
    return np.array([-up[1], up[0]]) / float(np.linalg.norm(up))


def _probability(p: float) -> str:
    return f"{p:.2g}" if p < 0.0995 else f"{p:.3f}"
