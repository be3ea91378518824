"""The geometry of NEM screening, in two coordinates.

Noise n on a target t is kept where gain(n) = log p(t+n) − log p(t) ≥ 0 (Adigun and Kosko 2019,
section 4; Audhkhasi, Osoba and Kosko 2016, theorems 1-3). Of a multinomial or Bernoulli end that
is the half-space ⟨n, w⟩ ≥ 0 with w = ∂gain/∂n; of a Gaussian one the ball ‖t + n − a‖ ≤ ‖t − a‖.
Here are two coordinates of noise in which that can be seen, for :mod:`nembp.plotting.noise`:

* a :class:`Plane` holds the half-space's normal w, so that a draw of any dimension falls on the
  side that decides about it;
* a :class:`TurnedPlane` holds a − t and is turned to hold each draw, so that the ball is a disc and
  a draw of any dimension lies in the ball where its point lies in the disc.

The target is the origin of all coordinates, which are in units of the target.

Draws of noise on one target, before and after the screening of `nembp.engine.noise.NoiseSource`.

Views of the noise on one target: two coordinates, where the gain is ≥ 0, and landmarks.

What is drawn of the noise on one target, and what its screening keeps: a panel a view.

Panels are numbers, which :mod:`nembp.plotting.noise` draws. Which there are follows from the end:

============== =====================================================================================
end            panels
============== =====================================================================================
multinomial    three classes on the simplex; all classes, in a plane through the half-space's normal
Bernoulli      two neurons; all neurons, in a plane through the half-space's normal
Gaussian       the ball, screened by whole vectors; the same draws, screened by components
one neuron     its gain over its noise
============== =====================================================================================

Pictures of noise: what of it NEM screening keeps, drawn with matplotlib.

They need matplotlib, the optional dependency ``nembp[figures]``.
"""

from __future__ import annotations

import math
import os
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nembp.backend import get_backend, stream
from nembp.engine.likelihoods import Gaussian, Likelihood, Multinomial, Readout
from nembp.engine.network import Network
from nembp.engine.noise import Noise, NoiseSource
from nembp.errors import ArchitectureError, NembpError, OutputError, ShapeError
from nembp.files import replacing

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Point:
    """One sample at a direction's end.

    Attributes
    ----------
    likelihood : Likelihood
        Of the direction.
    z, a, t : ndarray of float64, shape (width,)
        Pre-activation in the likelihood's normal form, activation, target.
    """

    likelihood: Likelihood
    z: Floats
    a: Floats
    t: Floats

    @classmethod
    def of(cls, net: Network, x: ArrayLike, t: ArrayLike) -> Point:
        """Run a direction, ``net`` or ``net.reversed``, on one sample.

        Parameters
        ----------
        net : Network
            The direction.
        x, t : array_like, shape (1, inputs) and (1, outputs)
            Its input and target, in the network's units.

        Raises
        ------
        ShapeError
            If they do not fit the network, or its output is not finite.
        """
        target = np.asarray(t, np.float64)
        if target.shape != (1, net.outputs):
            raise ShapeError(f"target has shape {target.shape}, expected (1, {net.outputs})")
        z = np.asarray(net.backend.to_numpy(net.readout(x).z), np.float64)
        if not np.all(np.isfinite(z)):
            raise ShapeError(
                "the network's output for this sample is not finite; expected finite numbers. "
                "Check the sample's scale, or train again at a lower learning rate"
            )
        o = net.likelihood.at(z)
        return cls(net.likelihood, o.z[0], o.a[0], target[0])

    @property
    def width(self) -> int:
        """Number of neurons."""
        return len(self.t)

    def only(self, neurons: ArrayLike) -> Point:
        """Return some neurons alone: noise in the others is held at zero, and adds no gain."""
        k = np.asarray(neurons, np.intp)
        return Point(self.likelihood, self.z[k], self.a[k], self.t[k])

    def rows(self, n: int) -> tuple[Readout, Floats]:
        """Return the readout and target of ``n`` samples that are all this one."""
        o = Readout.allocate(get_backend("cpu"), n, self.width, "float64")
        o.z[...], o.a[...] = self.z, self.a  # as they are: some neurons of a softmax stay so
        return o, np.tile(self.t, (n, 1))

    def gain(self, n: ArrayLike) -> Floats:
        """Return log p(t+n) − log p(t) in nats for noise (draws, width), shape (draws,)."""
        noise = np.atleast_2d(np.asarray(n, np.float64))
        o, t = self.rows(len(noise))
        terms = np.empty_like(noise)
        self.likelihood.gain_terms(o, t, noise, terms)
        return np.asarray(terms.sum(axis=1))

    @property
    def slope(self) -> Floats:
        """∂gain/∂n at n = 0, shape (width,)."""
        o, t = self.rows(1)
        w = np.empty_like(t)
        self.likelihood.gain_slope(o, t, w)
        return np.asarray(w[0])


# -- coordinates -----------------------------------------------------------------------------------
class Frame(Protocol):
    """Two coordinates of noise."""

    def coordinates(self, n: ArrayLike) -> Floats:
        """Return where noise (draws, width) falls, shape (draws, 2)."""


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane through the target; noise falls on it at right angles.

    Attributes
    ----------
    axes : ndarray of float64, shape (2, width)
        Orthonormal.
    """

    axes: Floats

    @classmethod
    def through(cls, first: ArrayLike, second: ArrayLike) -> Plane:
        """Return the plane whose first axis lies along ``first`` and that holds ``second``.

        A vector without length, or along the first, is replaced by an axis of the neurons.

        >>> Plane.through([0.0, 3.0], [1.0, 1.0]).axes.tolist()
        [[0.0, 1.0], [1.0, 0.0]]
        """
        one = _unit(np.asarray(first, np.float64), np.zeros((0, np.size(first))))
        return cls(np.stack([one, _unit(np.asarray(second, np.float64), one[np.newaxis])]))

    @classmethod
    def simplex(cls) -> Plane:
        """Return the plane of three probabilities; its columns are the corners from the centre.

        Distances in it are those of the probabilities: sides are √2 long.
        """
        return cls(np.array([[-1.0, 1.0, 0.0], [-1.0, -1.0, 2.0]]) / np.sqrt([[2.0], [6.0]]))

    def coordinates(self, n: ArrayLike) -> Floats:
        """Return where noise (draws, width) falls, shape (draws, 2)."""
        return np.atleast_2d(np.asarray(n, np.float64)) @ self.axes.T

    def lift(self, c: ArrayLike) -> Floats:
        """Return the noise (draws, width) in the plane at coordinates (draws, 2)."""
        return np.atleast_2d(np.asarray(c, np.float64)) @ self.axes


@dataclass(frozen=True, eq=False)
class TurnedPlane:
    """A plane through an axis, turned about it to hold each draw.

    The second coordinate is the length of a draw across the axis, positive on one side of it: of
    noise of any dimension, both coordinates' squares sum to ‖n‖².

    Attributes
    ----------
    axis, side : ndarray of float64, shape (width,)
        Orthonormal; draws with ⟨n, side⟩ ≥ 0 have a positive second coordinate.
    """

    axis: Floats
    side: Floats

    def coordinates(self, n: ArrayLike) -> Floats:
        """Return where noise (draws, width) falls, shape (draws, 2)."""
        noise = np.atleast_2d(np.asarray(n, np.float64))
        along = noise @ self.axis
        across = np.linalg.norm(noise - along[:, np.newaxis] * self.axis, axis=1)
        return np.stack([along, np.where(noise @ self.side >= 0, across, -across)], axis=1)


@dataclass(frozen=True, eq=False)
class GainCurve:
    """Of a single neuron: its noise, and the gain of that in nats."""

    point: Point

    def coordinates(self, n: ArrayLike) -> Floats:
        """Return where noise (draws, 1) falls, shape (draws, 2)."""
        noise = np.atleast_2d(np.asarray(n, np.float64))
        return np.stack([noise[:, 0], self.point.gain(noise)], axis=1)


def _unit(vector: Floats, others: Floats) -> Floats:
    """Return the direction of ``vector`` across orthonormal ``others``; an axis where it is 0."""
    axes = np.eye(min(vector.size, len(others) + 1), vector.size)  # one of them is not in `others`
    for candidate in (vector, *axes):
        rest = candidate / (np.abs(candidate).max() or 1.0)
        for _ in range(2):  # once more for what rounding left of the others
            rest = rest - (rest @ others.T) @ others
        length = float(np.linalg.norm(rest))
        if length > 1e-9:
            return np.asarray(rest / length)
    raise ShapeError(f"a plane needs at least 2 neurons, got {vector.size}")


# -- where the gain is ≥ 0 ------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class HalfPlane:
    """Coordinates c with ⟨c, normal⟩ ≥ 0; all of them where the normal is 0."""

    normal: Floats

    def contains(self, c: ArrayLike) -> NDArray[np.bool_]:
        """Say which coordinates (draws, 2) lie in it."""
        return np.asarray(np.asarray(c) @ self.normal >= 0)


@dataclass(frozen=True, eq=False)
class Corner:
    """Coordinates c with cᵢ slopeᵢ ≥ 0 for both i."""

    slope: Floats

    def contains(self, c: ArrayLike) -> NDArray[np.bool_]:
        """Say which coordinates (draws, 2) lie in it."""
        return np.asarray((np.asarray(c) * self.slope >= 0).all(axis=1))


@dataclass(frozen=True, eq=False)
class Disc:
    """Coordinates at most ``radius`` from ``centre``."""

    centre: Floats
    radius: float

    def contains(self, c: ArrayLike) -> NDArray[np.bool_]:
        """Say which coordinates (draws, 2) lie in it."""
        return np.asarray(np.linalg.norm(np.asarray(c) - self.centre, axis=1) <= self.radius)


Region = HalfPlane | Corner | Disc


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


KEPT, LOST, MEAN = "#2166ac", "#c1666b", "#1b1f23"
REGION, EDGE, INK, MUTED = "#dcebf7", "#7fa8cf", "#202428", "#697077"
SHOWN = 600  # draws of a panel that are shown
LONGEST = 40  # characters of a name


def draw_noise(
    path: str | os.PathLike[str], panels: Sequence[Panel], title: str, notes: str = ""
) -> None:
    """Draw panels side by side, with their shares and a caption: a PNG about 1300 pixels wide.

    The region where the gain is ≥ 0 is blue. Of each panel up to 600 draws are shown, of which
    the shares count all: accepted where they fell, rejected where they fell, and reflected where
    −n fell; of draws whose neurons are screened one by one, both what was drawn and what was kept.

    Parameters
    ----------
    path : path
        Its suffix must be .png.
    panels : sequence of Panel
        Of `nembp.plotting.noise.noise_panels`.
    title, notes : str
        What was drawn, in a line; what else is to be said below the panels' own notes.

    Raises
    ------
    NembpError
        If matplotlib is not installed.
    OutputError
        If the file cannot be written, or its suffix promises another format.
    """
    if Path(path).suffix.lower() != ".png":
        raise OutputError(f"{os.fspath(path)}: pictures are PNG; give a name that ends in .png")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NembpError(
            "pictures of noise need matplotlib; install it with `pip install nembp[figures]`"
        ) from error
    several = len(panels) > 1
    figure = Figure(figsize=(12.8, 8.0) if several else (8.4, 8.2), dpi=100)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(
        left=0.06 if several else 0.11, right=0.985, top=0.87, bottom=0.235, wspace=0.14
    )
    longest = 150 if several else 90
    figure.suptitle(_line(title, longest), y=0.975, fontsize=13, color=INK, parse_math=False)
    for panel, axis in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        _draw_panel(axis, panel)
    figure.legend(
        handles=_legend(panels), loc="upper left", bbox_to_anchor=(0.03, 0.18), fontsize=9.5,
        ncols=3 if several else 2, frameon=False, labelcolor=INK,
    )  # fmt: skip
    notes = " ".join(
        dict.fromkeys([*(panel.view.note for panel in panels), *map(_sums, panels), notes])
    )
    lines = textwrap.wrap(" ".join(notes.split()), 180 if several else 120)
    style: dict[str, Any] = {"va": "bottom", "fontsize": 9, "color": MUTED, "linespacing": 1.35}
    figure.text(0.04, 0.02, "\n".join(lines), parse_math=False, **style)
    with replacing(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        figure.savefig(file, format="png", metadata={"Software": None})


def _draw_panel(axis: Any, panel: Panel) -> None:
    low, high = _view(panel)
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    if panel.view.kind != "line":
        axis.set_aspect("equal", adjustable="box")
    title = f"{_line(panel.view.title)}\n{_shares(panel)}"
    axis.set_title(title, fontsize=10, color=INK, parse_math=False)
    axis.set_xlabel(_line(panel.view.x_label, 70), parse_math=False)
    axis.set_ylabel(_line(panel.view.y_label, 70), parse_math=False)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8, colors=MUTED)
    for side in axis.spines.values():
        side.set_color("#c1c7cd")
    _draw_region(axis, panel, low, high)
    _draw_landmarks(axis, panel, low, high)
    _draw_draws(axis, panel)
    if _has_arrow(panel):
        axis.annotate(
            "", xy=tuple(panel.drift), xytext=(0, 0), zorder=6,
            arrowprops={"arrowstyle": "-|>", "color": MEAN, "linewidth": 2, "shrinkA": 0,
                        "shrinkB": 0},
        )  # fmt: skip
    axis.plot(0, 0, "o", color=INK, markersize=6, zorder=7)
    left, below = panel.drift >= 0  # away from the arrow
    _label(axis, np.zeros(2), "t", (-9 if left else 9, -13 if below else 13), ha="center")
    if panel.view.output is not None and _inside(panel.view.output, low, high):
        axis.plot(*panel.view.output, "D", color=INK, markersize=6, mfc="white", zorder=7)
        _label(axis, panel.view.output, "a", (7, 5))


def _view(panel: Panel) -> tuple[Floats, Floats]:
    """Return the corners of what is shown: the draws and, unless they are tiny, the landmarks."""
    draws = np.concatenate([panel.cloud.drawn, panel.cloud.kept, np.zeros((1, 2))])
    marks = [place for _, place in panel.view.corners]
    marks += [] if panel.view.output is None else [panel.view.output]
    if isinstance(panel.view.region, Disc):
        marks += [
            panel.view.region.centre + panel.view.region.radius * np.array(d) for d in _COMPASS
        ]
    if panel.view.kind == "line":
        low, high = np.quantile(draws, (0.002, 0.998), axis=0)
        low = np.minimum(low, 0.0)
        room = 0.08 * (high - low) + 1e-12
        return low - room, high + room
    spread = float(np.abs(draws).max())
    reach = float(np.abs(np.array(marks)).max()) if marks else 0.0
    if spread > reach / 12:
        draws = np.concatenate([draws, np.reshape(marks, (-1, 2))])
    low, high = draws.min(axis=0), draws.max(axis=0)
    side = 1.12 * float((high - low).max()) or 1.0
    return (low + high - side) / 2, (low + high + side) / 2


def _has_arrow(panel: Panel) -> bool:
    """Say whether the drift is long enough to be seen; an arrow's head has a size."""
    low, high = _view(panel)
    return bool(np.linalg.norm(panel.drift / (high - low)) > 0.03)


_COMPASS = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))


def _draw_region(axis: Any, panel: Panel, low: Floats, high: Floats) -> None:
    from matplotlib.patches import Circle, Polygon

    region = panel.view.region
    style: dict[str, Any] = {"facecolor": REGION, "edgecolor": EDGE, "linewidth": 1.2}
    far = 4.0 * float((high - low).max() + np.abs([low, high]).max())
    if isinstance(region, Disc):
        axis.add_patch(
            Circle((region.centre[0], region.centre[1]), region.radius, zorder=0, **style)
        )
    elif isinstance(region, Corner):
        x, y = np.where(region.slope >= 0, far, -far)
        axis.add_patch(Polygon([(0, 0), (x, 0), (x, y), (0, y)], zorder=0, **style))
    elif isinstance(region, HalfPlane) and np.any(region.normal):
        if panel.view.kind == "line":
            curve = np.linspace(low[0], high[0], 200)[:, np.newaxis]
            axis.plot(*panel.view.frame.coordinates(curve).T, color=EDGE, linewidth=1, zorder=1)
            axis.axhspan(0, high[1], zorder=0, **style)
            return
        out = far * region.normal / np.linalg.norm(region.normal)
        edge = np.array([-out[1], out[0]])
        axis.add_patch(Polygon([-edge, edge, edge + out, out - edge], zorder=0, **style))
    else:
        axis.set_facecolor(REGION)


def _draw_landmarks(axis: Any, panel: Panel, low: Floats, high: Floats) -> None:
    if panel.view.corners:
        places = [place for _, place in panel.view.corners]
        axis.plot(*np.array([*places, places[0]]).T, color=INK, linewidth=1.1, zorder=2)
        axis.set_xticks([])
        axis.set_yticks([])
        middle = np.mean(places, axis=0)
        below = np.array([0.0, -float(np.abs(panel.cloud.drawn).max())])  # the draws
        for name, place in panel.view.corners:
            if not np.any(np.abs(place) > 1e-9):
                _label(axis, below, name, (0, 0), ha="center")
            elif _inside(place, low, high):
                outward = 15 * (place - middle) / np.linalg.norm(place - middle)
                away = "right" if outward[0] > 8 else "left" if outward[0] < -8 else "center"
                _label(axis, place, name, tuple(outward), ha=away)
    if panel.view.sum_zero is not None:
        far = 2.0 * float((high - low).max())
        ends = np.stack([-far * panel.view.sum_zero, far * panel.view.sum_zero])
        axis.plot(*ends.T, color=MUTED, linewidth=1, linestyle=(0, (5, 4)), zorder=1)


def _draw_draws(axis: Any, panel: Panel) -> None:
    cloud = panel.cloud
    drawn, kept, fate = cloud.drawn[:SHOWN], cloud.kept[:SHOWN], cloud.fate[:SHOWN]
    for places, marker, colour, size in (
        (drawn[fate > 0], "x", LOST, 13),
        (kept[fate == 1], "o", "none", 16),
        (kept[(fate == 0) | (fate == 3)], "o", KEPT, 10),
    ):
        shape = {"facecolors": "none", "edgecolors": KEPT} if colour == "none" else {"c": colour}
        axis.scatter(
            *places.T, s=size, marker=marker, linewidths=0.8, alpha=0.75, zorder=3, **shape
        )


def _legend(panels: Sequence[Panel]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    fates = np.unique(np.concatenate([panel.cloud.fate for panel in panels]))
    line: dict[str, Any] = {"linestyle": "none", "markersize": 5}
    items: list[tuple[bool, Any]] = [
        (True, Patch(facecolor=REGION, edgecolor=EDGE, label="gain ≥ 0: the target gets likelier")),
        (bool(np.isin(fates, (0, 3)).any()), Line2D([], [], marker="o", color=KEPT, **line,
            label="kept, neuron by neuron" if 3 in fates and 0 not in fates else "kept")),
        (1 in fates, Line2D([], [], marker="o", color=KEPT, mfc="none", **line,
            label="kept after reflection, −n")),
        (bool((fates > 0).any()), Line2D([], [], marker="x", color=LOST, **line,
            label="as drawn, where not kept whole" if 3 in fates else "rejected, as drawn")),
        (any(map(_has_arrow, panels)), Line2D([], [], color=MEAN, linewidth=2,
            label="mean of the kept noise (drift)")),
        (any(panel.view.sum_zero is not None for panel in panels), Line2D([], [], color=MUTED,
            linestyle="--", label="noise that leaves Σt as it is")),
    ]  # fmt: skip
    return [item for shown, item in items if shown]


def _shares(panel: Panel) -> str:
    by_neuron = panel.screening == "component" and panel.view.point.width > 1
    cloud, of = panel.cloud, "neurons" if by_neuron else "draws"
    parts = [f"{_percent(cloud.accepted)} of {of} accepted"]
    if cloud.reflected:
        parts.append(f"{_percent(cloud.reflected)} reflected")
    if cloud.dropped:
        parts.append(f"{_percent(cloud.dropped)} set to 0")
    if panel.exact is not None and panel.exact < 0.001:
        parts[0] += f" (in theory {panel.exact:.1g})"
    return ", ".join(parts) + f"\nmean gain {cloud.gain:.3g} nats"


def _sums(panel: Panel) -> str:
    if panel.view.kind != "span" or panel.sum_change is None:
        return ""
    return f"The kept noise changes Σt by {panel.sum_change:.3g} on average."


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _inside(place: Floats, low: Floats, high: Floats) -> bool:
    return bool(np.all((low <= place) & (place <= high)))


def _label(
    axis: Any, place: Floats, text: str, offset: tuple[float, ...], ha: str = "left"
) -> None:
    axis.annotate(
        _line(text), xy=tuple(place), xytext=offset, textcoords="offset points", fontsize=10,
        color=INK, ha=ha, va="center", zorder=8, parse_math=False,
        bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.75},
    )  # fmt: skip


def _line(text: str, longest: int = LONGEST) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
