"""Pictures of NEM noise on one target: what is drawn, what its screening keeps, and where.

Noise n on a target t is kept where gain(n) = log p(t+n) − log p(t) ≥ 0 (Adigun and Kosko 2019,
section 4; Audhkhasi, Osoba and Kosko 2016, theorems 1-3). With a multinomial or Bernoulli
likelihood that is the half-space ⟨n, w⟩ ≥ 0 with w = ∂gain/∂n; with a Gaussian one the ball
‖t + n − a‖ ≤ ‖t − a‖. A :class:`View` shows noise of any dimension in two coordinates, with the
target as their origin:

* a plane through w, on which noise falls at right angles: on the side that decides about it;
* a plane through a − t, turned about that axis to hold each draw: the ball is a disc, and a draw
  lies in the ball where its point lies in the disc.

============ =======================================================================================
likelihood   panels
============ =======================================================================================
multinomial  three classes on the simplex; all classes, in a plane through the half-space's normal
Bernoulli    two units; all units, in a plane through the half-space's normal
Gaussian     the ball, screened by whole vectors; the same draws, screened by components
one unit     its gain over its noise
============ =======================================================================================
"""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nembp.backend import get_backend, stream
from nembp.engine.likelihoods import Gaussian, Likelihood, Multinomial, Readout
from nembp.engine.network import Network
from nembp.engine.noise import Noise, NoiseSource
from nembp.errors import ArchitectureError, ShapeError
from nembp.plotting import figure

Floats = NDArray[np.float64]
Names = Callable[[int], str]  # what a unit is called


@dataclass(frozen=True, eq=False)
class Point:
    """One sample at a direction's output."""

    likelihood: Likelihood
    z: Floats  # pre-activation in the likelihood's normal form, shape (width,)
    a: Floats
    t: Floats

    @classmethod
    def of(cls, net: Network, x: ArrayLike, t: ArrayLike) -> Point:
        """Run ``net`` or ``net.reversed`` on a sample x (1, inputs) with target t (1, outputs)."""
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
        """Number of units."""
        return len(self.t)

    def only(self, units: ArrayLike) -> Point:
        """Return some units alone: noise in the others is held at zero, and adds no gain."""
        k = np.asarray(units, np.intp)
        return Point(self.likelihood, self.z[k], self.a[k], self.t[k])

    def rows(self, n: int) -> tuple[Readout, Floats]:
        """Return the readout and target of ``n`` samples that are all this one."""
        o = Readout(get_backend("cpu"), n, self.width, "float64")
        o.z[...], o.a[...] = self.z, self.a  # as they are: some units of a softmax stay so
        return o, np.tile(self.t, (n, 1))

    def gain(self, n: Floats) -> Floats:
        """Return log p(t+n) − log p(t) in nats for noise (draws, width), shape (draws,)."""
        terms = np.empty_like(n)
        o, t = self.rows(len(n))
        self.likelihood.gain_terms(o, t, n, terms)
        return np.asarray(terms.sum(axis=1))

    @property
    def slope(self) -> Floats:
        """∂gain/∂n at n = 0, the normal w of the half-space, shape (width,)."""
        o, t = self.rows(1)
        w = np.empty_like(t)
        self.likelihood.gain_slope(o, t, w)
        return np.asarray(w[0])


# -- views -----------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class View:
    """Two coordinates of the noise on one target, which is their origin."""

    kind: str  # which function below made it: simplex, pair, span, ball or line
    point: Point  # the units that receive noise
    axes: Floats  # orthonormal, shape (2, width): the plane
    title: str
    x_label: str = ""
    y_label: str = ""
    note: str = ""  # what a reader has to know
    output: Floats | None = None  # where a lies
    corners: tuple[tuple[str, Floats], ...] = ()  # of the simplex: names and places
    by_unit: bool = False  # each coordinate has to gain

    def coordinates(self, n: Floats) -> Floats:
        """Return where noise (draws, width) falls, shape (draws, 2)."""
        if self.kind == "line":
            return np.stack([n[:, 0], self.point.gain(n)], axis=1)
        if self.kind != "ball":
            return np.asarray(n @ self.axes.T)
        # the plane is turned: the second coordinate is the length across the first axis
        axis, side = self.axes
        along = n @ axis
        across = np.linalg.norm(n - along[:, np.newaxis] * axis, axis=1)
        return np.stack([along, np.where(n @ side >= 0, across, -across)], axis=1)

    def gain(self, c: Floats) -> Floats:
        """Return the gain at coordinates (..., 2): ⟨n, w⟩, less ‖n‖²/2v for a Gaussian."""
        if self.kind == "line":
            return c[..., 1]
        terms = c * (self.axes @ self.point.slope)
        if self.by_unit:
            return np.asarray(terms.min(axis=-1))
        if isinstance(self.point.likelihood, Gaussian):
            terms = terms - c * c / (2.0 * self.point.likelihood.variance)
        return np.asarray(terms.sum(axis=-1))

    @property
    def sum_zero(self) -> Floats | None:
        """Direction of the noise that leaves Σt of classes as it is, where others are seen."""
        if self.kind == "simplex" or not isinstance(self.point.likelihood, Multinomial):
            return None
        x, y = self.axes.sum(axis=1)
        return np.array([-y, x]) / float(np.hypot(x, y))


def plane(first: Floats, second: Floats) -> Floats:
    """Return orthonormal axes (2, width), the first along ``first``, that hold ``second``.

    >>> plane(np.array([0.0, 3.0]), np.array([1.0, 1.0])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    vectors = [vector / (np.abs(vector).max() or 1.0) for vector in (first, second)]
    q, r = np.linalg.qr(np.stack(vectors, axis=1))
    return np.asarray((q * np.where(np.diagonal(r) < 0, -1.0, 1.0)).T + 0.0)  # not -0


# distances in this plane are those of three probabilities: the simplex's sides are √2 long
SIMPLEX = np.array([[-1.0, 1.0, 0.0], [-1.0, -1.0, 2.0]]) / np.sqrt([[2.0], [6.0]])


def simplex_view(whole: Point, names: Names) -> View:
    """Show three classes, with noise of sum zero: the target's and the two most probable others."""
    first = int(np.lexsort((-whole.a, -whole.t))[0])
    others = [int(k) for k in np.argsort(-whole.a, kind="stable") if k != first]
    chosen = [first, *others[:2]]
    point = whole.only(chosen)
    total = float(point.t.sum()) or 1.0  # of the plane that the target lies in
    held, origin = float(point.a.sum()), point.t @ SIMPLEX.T
    shown = [f"{p:.2g}" if p < 0.0995 else f"{p:.3f}" for p in point.a]
    corners = tuple(
        (f"{names(k)} (p = {shown[i]})", total * SIMPLEX[:, i] - origin)
        for i, k in enumerate(chosen)
    )
    rest = f", and noise in the other {whole.width - 3} at zero" if whole.width > 3 else ""
    scaled = held < 0.9995 or whole.t.sum() != 1
    scale = f"; a is scaled to sum to {total:g} over them" if scaled else ""
    return View(
        "simplex", point, SIMPLEX, "three classes on the simplex",
        note="Left: the noise of the three classes is held at sum zero, in the simplex's plane"
        f"{rest}. These classes hold {held:.4g} of the probability{scale}.",
        output=(point.a * total / held) @ SIMPLEX.T - origin if held > 0 else None,
        corners=corners,
    )  # fmt: skip


def pair_view(whole: Point, names: Names, *, by_unit: bool) -> View:
    """Show two units; of many, those that are furthest from their targets."""
    chosen = np.sort(np.argsort(-np.abs(whole.t - whole.a), kind="stable")[:2])
    point, others = whole.only(chosen), whole.width - 2
    note = " Blue is where each of the two gains." if by_unit else ""
    if others:
        note = (
            "Left: the two neurons that are furthest from their targets; noise in the other "
            f"{others} is held at zero.{note}"
        )
    title = f"two of {whole.width} neurons" if others else "both neurons"
    x, y = (f"noise in {names(int(k))}" for k in chosen)
    off = point.a - point.t
    return View("pair", point, np.eye(2), title, x, y, note, off, by_unit=by_unit)


def span_view(point: Point, seed: int) -> View:
    """Show all units in the plane of the half-space's normal and (1, ..., 1), or a random one."""
    other, w, where = _random(point, seed), "z", "a random direction"
    if isinstance(point.likelihood, Multinomial):
        other, w, where = np.ones(point.width), "log a", "the change of the target's sum"
    return View(
        "span", point, plane(point.slope, other), f"all {point.width} neurons",
        f"noise along {w}", f"noise across it, towards {where}",
        f"Right: noise in all neurons, seen along {w}, which alone decides the gain, and along "
        f"{where}.",
    )  # fmt: skip


def ball_view(point: Point, seed: int, title: str) -> View:
    """Show all units of a Gaussian output in the plane through a − t turned to hold each draw."""
    offset, across = point.a - point.t, "noise across it"
    radius = float(np.linalg.norm(offset))
    return View(
        "ball", point, plane(offset, _random(point, seed)), title,
        "noise along a − t", f"length of the {across}" if point.width > 2 else across,
        f"The ball of radius ‖t − a‖ = {radius:.4g} in {point.width} dimensions, in the plane that "
        "holds a − t and, turned about it, each draw: a point lies in the disc where its draw lies "
        "in the ball.",
        np.array([radius, 0.0]),
    )  # fmt: skip


def line_view(point: Point, names: Names) -> View:
    """Show a single unit: its gain over its noise."""
    offset = point.a - point.t
    output = np.array([offset[0], point.gain(offset[np.newaxis])[0]])
    labels = f"noise in {names(0)}", "gain (nats)"
    return View("line", point, np.zeros((2, 1)), "the only neuron", *labels, output=output)


def _random(point: Point, seed: int) -> Floats:
    return stream(seed, "noise plane").standard_normal(point.width)


# -- draws -----------------------------------------------------------------------------------------
STREAM = "noise geometry"  # of the draws
BLOCK = 1 << 18  # noise values drawn at a time
SCREENINGS = {
    "vector": "whole vectors are screened",
    "component": "each neuron is screened by itself",
    "expectation": "batches are screened by their mean gain",
}


@dataclass(frozen=True, eq=False)
class Panel:
    """Draws of noise on one target, in one view, and what screening made of them.

    The mean of the screened noise is its drift: in closed form for Gaussian draws that a half-space
    screens (noise of kind "drift"), else over the draws.
    """

    view: View
    screening: str
    drawn: Floats  # coordinates of the noise before screening, shape (draws, 2)
    kept: Floats  # and after it
    # 0 where a draw was accepted, 1 where its reflection −n was, 2 where it became 0; 3 where its
    # units fared differently
    fate: NDArray[np.int64]
    accepted: float  # shares of these fates: of draws, or of units if those are screened singly
    reflected: float
    dropped: float
    exact: float | None  # the accepted share by theory, where that is known
    gain: float  # mean over the draws, in nats
    drift: Floats  # coordinates of the mean of the screened noise
    sum_change: float | None  # of a multinomial target: the sum of that mean

    def facts(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        return {
            "kind": self.view.kind,
            "title": self.view.title,
            "screening": self.screening,
            "neurons": self.view.point.width,
            "share_of": "neurons" if self.screening == "component" else "draws",
            "accepted": self.accepted,
            "reflected": self.reflected,
            "set_to_zero": self.dropped,
            "accepted_in_theory": self.exact,
            "mean_gain": self.gain,
            "drift": self.drift.tolist(),
            "sum_change": self.sum_change,
            "note": self.view.note,
        }


def draw_panel(
    view: View, noise: Noise, std: float, draws: int = 2000, *, seed: int = 0, batch: int = 128
) -> Panel:
    """Draw NEM noise for one target as training does, and see what its screening keeps.

    ``std`` is in units of the target, and ``batch`` draws are screened at a time where batches are.
    The same seed gives the same draws under any screening.
    """
    point, screening = view.point, noise.screening_for(view.point.likelihood)
    by_unit = screening == "component"
    together = batch if screening == "expectation" else max(1, BLOCK // point.width)
    laws = replace(noise, kind="blind"), noise
    streams = [get_backend("cpu").generator(seed, STREAM) for _ in laws]
    parts: list[tuple[Floats, Floats, NDArray[np.int64]]] = []
    counts, total, gain = np.zeros(2), np.zeros(point.width), 0.0
    for start in range(0, draws, together):
        rows = min(together, draws - start)
        raw, kept = (_noise(point, *law, std, rows) for law in zip(laws, streams, strict=True))
        same, flipped = kept == raw, (kept == -raw) & (raw != 0)
        whole = same.all(axis=1), flipped.all(axis=1), (kept == 0).all(axis=1)
        counts += [part.sum() for part in ((same, flipped) if by_unit else whole[:2])]
        total += kept.sum(axis=0)
        gain += float(point.gain(kept).sum())
        fate = np.select(whole, (0, 1, 2), 3)
        parts.append((view.coordinates(raw), view.coordinates(kept), fate))
    mean, of = total / draws, draws * (point.width if by_unit else 1)
    closed = point.likelihood.gain_is_linear and screening == "vector"
    if closed and noise.law == "gaussian":
        mean = _noise(point, replace(noise, kind="drift"), None, std, 1)[0]
    drawn, after, fates = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Panel(
        view,
        screening,
        drawn=drawn,
        kept=after,
        fate=fates,
        accepted=float(counts[0]) / of,
        reflected=float(counts[1]) / of,
        dropped=float(of - counts.sum()) / of,
        exact=_exact(point, noise, std),
        gain=gain / draws,
        drift=view.coordinates(mean[np.newaxis])[0],
        sum_change=float(mean.sum()) if isinstance(point.likelihood, Multinomial) else None,
    )


def _noise(point: Point, noise: Noise, stream: Any, std: float, rows: int) -> Floats:
    backend = get_backend("cpu")
    source = NoiseSource(noise, point.likelihood, backend, rows, point.width, "float64", stream)
    o, t = point.rows(rows)
    source.std = std
    return np.asarray(source(o, t))


def _exact(point: Point, noise: Noise, std: float) -> float | None:
    """Return the share that is accepted before any reflection, by theory."""
    screening, offset = noise.screening_for(point.likelihood), point.a - point.t
    if screening == "expectation":
        return None
    if point.likelihood.gain_is_linear:  # where w is 0, all noise has gain 0
        return 0.5 if np.all(point.slope) else None
    if noise.law != "gaussian":
        return None
    if screening == "component":  # unit i accepts nᵢ between 0 and 2(aᵢ − tᵢ)
        from scipy.special import ndtr

        return float(np.mean(ndtr(2.0 * np.abs(offset) / std) - 0.5))
    return ball_share(point.width, float(np.linalg.norm(offset)), std)


def ball_share(width: int, radius: float, std: float) -> float:
    """Return P(‖n + t − a‖ ≤ r) for n ~ N(0, σ²I), with r = ‖t − a‖ and d = ``width``.

    ‖n + t − a‖²/σ² has a noncentral χ² distribution of d degrees of freedom, noncentrality r²/σ².

    >>> [round(ball_share(784, 6.0, std), 4) for std in (0.001, 0.01, 0.05)]
    [0.474, 0.257, 0.0006]
    """
    from scipy.special import chndtr

    ratio = radius / std
    if ratio <= 1e5:
        return float(chndtr(ratio**2, width, ratio**2)) if ratio else 0.0
    # nearly a half-space: n₁ ≥ ‖n‖²/2r, where ‖n‖² is about (d − 1) σ²
    return 0.5 * math.erfc((width - 1) / (2.0 * ratio) / math.sqrt(2.0))


def noise_panels(
    point: Point, noise: Noise, std: float, names: Names = str, *, seed: int = 0, **options: int
) -> list[Panel]:
    """Draw noise for one target as in `draw_panel`, in the views of its likelihood."""
    linear, laws = point.likelihood.gain_is_linear, [noise]
    if not linear and not isinstance(point.likelihood, Gaussian):
        raise ArchitectureError(
            f"the region that keeps {point.likelihood.name} noise is neither a half-space nor a "
            "ball, which is what can be drawn; expected a multinomial, bernoulli or gaussian end"
        )
    by_unit = noise.screening_for(point.likelihood) == "component"
    if point.width == 1:
        views = [line_view(point, names)]
    elif not linear:
        if noise.screening == "auto":
            laws = [replace(noise, screening="vector"), replace(noise, screening="component")]
        views = [ball_view(point, seed, SCREENINGS[law.screening]) for law in laws]
    elif point.width == 2:
        views = [pair_view(point, names, by_unit=by_unit)]
    elif isinstance(point.likelihood, Multinomial) and not by_unit:
        views = [simplex_view(point, names), span_view(point, seed)]
        laws = [replace(noise, update="zero-sum"), noise]
    else:
        views = [pair_view(point, names, by_unit=by_unit), span_view(point, seed)]
        laws = [noise, noise]
    pairs = zip(views, laws, strict=True)
    return [draw_panel(view, law, std, seed=seed, **options) for view, law in pairs]


# -- pictures --------------------------------------------------------------------------------------
KEPT, LOST, MEAN = "#2166ac", "#c1666b", "#1b1f23"
REGION, EDGE, INK, MUTED = "#dcebf7", "#7fa8cf", "#202428", "#697077"
SHOWN = 600  # draws of a panel that are shown
LONGEST = 40  # characters of a name


def draw_noise(
    path: str | os.PathLike[str], panels: Sequence[Panel], title: str, notes: str = ""
) -> None:
    """Draw panels side by side, with their shares and a caption: a PNG about 1300 pixels wide.

    The region where the gain is ≥ 0 is blue. Up to 600 draws are shown, the shares count all.
    """
    several = len(panels) > 1
    with figure(path, figsize=(12.8, 8.0) if several else (8.4, 8.2), dpi=100) as sheet:
        left = 0.06 if several else 0.11
        sheet.subplots_adjust(left=left, right=0.985, top=0.87, bottom=0.235, wspace=0.14)
        title = _line(title, 150 if several else 90)
        sheet.suptitle(title, y=0.975, fontsize=13, color=INK, parse_math=False)
        axes = sheet.subplots(1, len(panels), squeeze=False)[0]
        for panel, axis in zip(panels, axes, strict=True):
            _draw_panel(axis, panel)
        sheet.legend(
            handles=_legend(panels), loc="upper left", bbox_to_anchor=(0.03, 0.18), fontsize=9.5,
            ncols=3 if several else 2, frameon=False, labelcolor=INK,
        )  # fmt: skip
        changes = [
            f"The kept noise changes Σt by {panel.sum_change:.3g} on average."
            for panel in panels
            if panel.view.kind == "span" and panel.sum_change is not None
        ]
        said = dict.fromkeys([*(panel.view.note for panel in panels), *changes, notes])
        lines = textwrap.wrap(" ".join(" ".join(said).split()), 180 if several else 120)
        style: dict[str, Any] = {"va": "bottom", "fontsize": 9, "color": MUTED, "linespacing": 1.35}
        sheet.text(0.04, 0.02, "\n".join(lines), parse_math=False, **style)


def _draw_panel(axis: Any, panel: Panel) -> None:
    view, (low, high) = panel.view, _view(panel)
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), axisbelow=True)
    if view.kind != "line":
        axis.set_aspect("equal", adjustable="box")
    title = f"{_line(view.title)}\n{_shares(panel)}"
    axis.set_title(title, fontsize=10, color=INK, parse_math=False)
    axis.set_xlabel(_line(view.x_label, 70), parse_math=False)
    axis.set_ylabel(_line(view.y_label, 70), parse_math=False)
    axis.tick_params(labelsize=8, colors=MUTED)
    for side in axis.spines.values():
        side.set_color("#c1c7cd")
    _draw_region(axis, view, low, high)
    _draw_simplex(axis, panel, low, high)
    drawn, kept, fate = panel.drawn[:SHOWN], panel.kept[:SHOWN], panel.fate[:SHOWN]
    marks: dict[str, Any] = {"linewidths": 0.8, "alpha": 0.75, "zorder": 3}
    axis.scatter(*drawn[fate > 0].T, s=13, marker="x", c=LOST, **marks)
    axis.scatter(*kept[fate == 1].T, s=16, facecolors="none", edgecolors=KEPT, **marks)
    axis.scatter(*kept[np.isin(fate, (0, 3))].T, s=10, c=KEPT, **marks)
    if _has_arrow(panel):
        arrow = {"arrowstyle": "-|>", "color": MEAN, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", xy=tuple(panel.drift), xytext=(0, 0), zorder=6, arrowprops=arrow)
    axis.plot(0, 0, "o", color=INK, markersize=6, zorder=7)
    left, below = panel.drift >= 0  # away from the arrow
    _label(axis, np.zeros(2), "t", (-9 if left else 9, -13 if below else 13), ha="center")
    a = view.output
    if a is not None and np.all((low <= a) & (a <= high)):
        axis.plot(*a, "D", color=INK, markersize=6, mfc="white", zorder=7)
        _label(axis, a, "a", (7, 5))


def _view(panel: Panel) -> tuple[Floats, Floats]:
    """Return the corners of what is shown: the draws and, unless they are tiny, the landmarks."""
    draws = np.concatenate([panel.drawn, panel.kept, np.zeros((1, 2))])
    view = panel.view
    if view.kind == "line":
        low, high = np.quantile(draws, (0.002, 0.998), axis=0)
        low = np.minimum(low, 0.0)
        room = 0.08 * (high - low) + 1e-12
        return low - room, high + room
    marks = [place for _, place in view.corners]
    marks += [] if view.output is None else [view.output]
    if view.kind == "ball":  # whose centre a is
        marks += [marks[0] + marks[0][0] * side for side in (*np.eye(2), *-np.eye(2))]
    if marks and np.abs(draws).max() > np.abs(marks).max() / 12:
        draws = np.concatenate([draws, marks])
    low, high = draws.min(axis=0), draws.max(axis=0)
    side = 1.12 * float((high - low).max()) or 1.0
    return (low + high - side) / 2, (low + high + side) / 2


def _has_arrow(panel: Panel) -> bool:
    """Say whether the drift is long enough to be seen; an arrow's head has a size."""
    low, high = _view(panel)
    return bool(np.linalg.norm(panel.drift / (high - low)) > 0.03)


def _draw_region(axis: Any, view: View, low: Floats, high: Floats) -> None:
    x, y = np.linspace(low, high, 400).T
    gain = view.gain(np.stack(np.meshgrid(x, y), axis=-1))
    gain /= np.abs(gain).max() or 1.0
    if gain.max() >= 0.0:
        axis.contourf(x, y, gain, levels=[-1e-9, 2.0], colors=[REGION], zorder=0)
    if gain.min() < 0.0 < gain.max():
        axis.contour(x, y, gain, levels=[0.0], colors=[EDGE], linewidths=1.2, zorder=0)
    if view.kind == "line":
        curve = np.linspace(low[0], high[0], 200)[:, np.newaxis]
        axis.plot(*view.coordinates(curve).T, color=EDGE, linewidth=1, zorder=1)
    if view.sum_zero is not None:
        far = 2.0 * float((high - low).max()) * view.sum_zero
        axis.plot(*np.stack([-far, far]).T, color=MUTED, lw=1, ls=(0, (5, 4)), zorder=1)


def _draw_simplex(axis: Any, panel: Panel, low: Floats, high: Floats) -> None:
    corners = panel.view.corners
    if not corners:
        return
    places = [place for _, place in corners]
    axis.plot(*np.array([*places, places[0]]).T, color=INK, linewidth=1.1, zorder=2)
    axis.set_xticks([])
    axis.set_yticks([])
    for name, place in corners:
        if not np.any(np.abs(place) > 1e-9):  # the target's, named below the draws
            below = np.array([0.0, -float(np.abs(panel.drawn).max())])
            _label(axis, below, name, (0, 0), ha="center")
        elif np.all((low <= place) & (place <= high)):
            outward = place - np.mean(places, axis=0)
            outward *= 15 / np.linalg.norm(outward)
            away = "right" if outward[0] > 8 else "left" if outward[0] < -8 else "center"
            _label(axis, place, name, tuple(outward), ha=away)


def _legend(panels: Sequence[Panel]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    fates = set(np.concatenate([panel.fate for panel in panels]).tolist())
    kept = "kept" if 0 in fates else "kept, neuron by neuron"
    lost = "as drawn, where not kept whole" if 3 in fates else "rejected, as drawn"
    arrow, sums = "mean of the kept noise (drift)", "noise that leaves Σt as it is"
    dot: dict[str, Any] = {"linestyle": "none", "markersize": 5}
    reflected = dot | {"marker": "o", "mfc": "none", "label": "kept after reflection, −n"}
    has_sums = any(panel.view.sum_zero is not None for panel in panels)
    items = [
        (True, Patch(facecolor=REGION, edgecolor=EDGE, label="gain ≥ 0: the target gets likelier")),
        (fates & {0, 3}, Line2D([], [], **dot, marker="o", color=KEPT, label=kept)),
        (1 in fates, Line2D([], [], **reflected, color=KEPT)),
        (fates - {0}, Line2D([], [], **dot, marker="x", color=LOST, label=lost)),
        (any(map(_has_arrow, panels)), Line2D([], [], color=MEAN, lw=2, label=arrow)),
        (has_sums, Line2D([], [], color=MUTED, ls="--", label=sums)),
    ]
    return [item for shown, item in items if shown]


def _shares(panel: Panel) -> str:
    by_unit = panel.screening == "component" and panel.view.point.width > 1
    parts = [f"{100 * panel.accepted:.3g} % of {'neurons' if by_unit else 'draws'} accepted"]
    if panel.reflected:
        parts.append(f"{100 * panel.reflected:.3g} % reflected")
    if panel.dropped:
        parts.append(f"{100 * panel.dropped:.3g} % set to 0")
    if panel.exact is not None and panel.exact < 0.001:
        parts[0] += f" (in theory {panel.exact:.1g})"
    return ", ".join(parts) + f"\nmean gain {panel.gain:.3g} nats"


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
