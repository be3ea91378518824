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
        with np.errstate(all="ignore"):  # what overflows is refused below
            z = np.asarray(net.backend.to_numpy(net.readout(x).z), np.float64)
        if not np.all(np.isfinite(z)):
            raise ShapeError(
                "the network's output for this sample is not finite; expected finite numbers. "
                "Check the sample's scale, or train again at a lower learning rate"
            )
        o = net.likelihood.at(z)
        return cls(net.likelihood, o.z[0], o.a[0], np.asarray(t, np.float64)[0])

    @property
    def width(self) -> int:
        """Number of units."""
        return len(self.t)

    @property
    def offset(self) -> Floats:
        """Where the output lies from the target: a − t."""
        return self.a - self.t

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
        self.likelihood.gain_terms(*self.rows(len(n)), n, terms)
        return np.asarray(terms.sum(axis=1))

    @property
    def slope(self) -> Floats:
        """∂gain/∂n at n = 0, the normal w of the half-space, shape (width,)."""
        w = np.empty((1, self.width))
        self.likelihood.gain_slope(*self.rows(1), w)
        return np.asarray(w[0])


# -- views -----------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class View:
    """Two coordinates of the noise on one target, which is their origin."""

    kind: str  # which function below made it: simplex, pair, span, ball or line
    point: Point  # the units that receive noise
    axes: Floats  # orthonormal, shape (2, width): the plane
    title: str
    labels: tuple[str, str] = ("", "")  # of the axes
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
    point = whole.only([first, *others[:2]])
    total, held = float(point.t.sum()) or 1.0, float(point.a.sum())
    places = (total * SIMPLEX - (SIMPLEX @ point.t)[:, np.newaxis]).T
    shown = [f"{p:.2g}" if p < 0.0995 else f"{p:.3f}" for p in point.a]
    corners = [f"{names(k)} (p = {p})" for k, p in zip([first, *others], shown, strict=False)]
    rest = f", and noise in the other {whole.width - 3} at zero" if whole.width > 3 else ""
    scaled = held < 0.9995 or whole.t.sum() != 1
    scale = f"; a is scaled to sum to {total:g} over them" if scaled else ""
    return View(
        "simplex", point, SIMPLEX, "three classes on the simplex",
        note="Left: the noise of the three classes is held at sum zero, in the simplex's plane"
        f"{rest}. These classes hold {held:.4g} of the probability{scale}.",
        output=point.a / held @ places if held > 0 else None,
        corners=tuple(zip(corners, places, strict=True)),
    )  # fmt: skip


def pair_view(whole: Point, names: Names, *, by_unit: bool) -> View:
    """Show two units; of many, those that are furthest from their targets."""
    chosen = np.sort(np.argsort(-np.abs(whole.offset), kind="stable")[:2])
    point, others = whole.only(chosen), whole.width - 2
    x, y = (f"noise in {names(int(k))}" for k in chosen)
    title, note = "both units", " Blue is where each of the two gains." if by_unit else ""
    if others:
        title = f"two of {whole.width} units"
        note = (
            "Left: the two units that are furthest from their targets; noise in the other "
            f"{others} is held at zero.{note}"
        )
    return View("pair", point, np.eye(2), title, (x, y), note, point.offset, by_unit=by_unit)


def span_view(point: Point, seed: int) -> View:
    """Show all units in the plane of the half-space's normal and (1, ..., 1), or a random one."""
    other, w, where = _random(point, seed), "z", "a random direction"
    if isinstance(point.likelihood, Multinomial):
        other, w, where = np.ones(point.width), "log a", "the change of the target's sum"
    labels = f"noise along {w}", f"noise across it, towards {where}"
    note = (
        f"Right: noise in all units, seen along {w}, which alone decides the gain, and along "
        f"{where}."
    )
    axes = plane(point.slope, other)
    return View("span", point, axes, f"all {point.width} units", labels, note)


def ball_view(point: Point, seed: int, title: str) -> View:
    """Show all units of a Gaussian output in the plane through a − t turned to hold each draw."""
    across, radius = "noise across it", float(np.linalg.norm(point.offset))
    labels = "noise along a − t", f"length of the {across}" if point.width > 2 else across
    note = (
        f"The ball of radius ‖t − a‖ = {radius:.4g} in {point.width} dimensions, in the plane that "
        "holds a − t and, turned about it, each draw: a point lies in the disc where its draw lies "
        "in the ball."
    )
    axes = plane(point.offset, _random(point, seed))
    return View("ball", point, axes, title, labels, note, np.array([radius, 0.0]))


def line_view(point: Point, names: Names) -> View:
    """Show a single unit: its gain over its noise."""
    output = np.append(point.offset, point.gain(point.offset[np.newaxis]))
    labels = f"noise in {names(0)}", "gain (nats)"
    return View("line", point, np.zeros((2, 1)), "the only unit", labels, output=output)


def _random(point: Point, seed: int) -> Floats:
    return stream(seed, "noise plane").standard_normal(point.width)


# -- draws -----------------------------------------------------------------------------------------
STREAM = "noise geometry"  # of the draws
BLOCK = 1 << 18  # noise values drawn at a time
SCREENINGS = {
    "vector": "whole vectors are screened",
    "component": "each unit is screened by itself",
    "expectation": "batches are screened by their mean gain",
}
ACCEPTED, REFLECTED, DROPPED, MIXED = range(4)  # what became of a draw: n, −n, 0, or by its units


@dataclass(frozen=True, eq=False)
class Panel:
    """Draws of noise on one target, in one view, and what screening made of them."""

    view: View
    drawn: Floats  # coordinates of the noise before screening, shape (draws, 2)
    kept: Floats  # and after it
    fate: NDArray[np.int64]  # of each draw
    drift: Floats  # coordinates of the mean of the screened noise
    # what JSON has of it: shares of the fates, of draws or of units if those are screened singly,
    # and the accepted share by theory; the mean gain in nats; the sum of the mean, of classes
    facts: dict[str, Any]


def draw_panel(
    view: View, noise: Noise, std: float, draws: int = 2000, *, seed: int = 0, batch: int = 128
) -> Panel:
    """Draw NEM noise for one target as training does, and see what its screening keeps.

    ``std`` is in units of the target, and ``batch`` draws are screened at a time where batches are.
    The same seed gives the same draws under any screening. The drift is that of Gaussian draws in
    closed form if a half-space screens them (noise of kind "drift"), else their mean.
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
        fate = np.select(whole, (ACCEPTED, REFLECTED, DROPPED), MIXED)
        parts.append((view.coordinates(raw), view.coordinates(kept), fate))
    mean, of = total / draws, draws * (point.width if by_unit else 1)
    closed = point.likelihood.gain_is_linear and screening == "vector"
    if closed and noise.law == "gaussian":
        mean = _noise(point, replace(noise, kind="drift"), None, std, 1)[0]
    drawn, after, fates = (np.concatenate(each) for each in zip(*parts, strict=True))
    accepted, reflected, dropped = (np.append(counts, of - counts.sum()) / of).tolist()
    facts = {
        "kind": view.kind, "title": view.title, "screening": screening, "neurons": point.width,
        "share_of": "neurons" if by_unit else "draws", "accepted": accepted, "reflected": reflected,
        "set_to_zero": dropped, "accepted_in_theory": _exact(point, noise, std),
        "mean_gain": gain / draws, "drift": view.coordinates(mean[np.newaxis])[0].tolist(),
        "sum_change": float(mean.sum()) if isinstance(point.likelihood, Multinomial) else None,
        "note": view.note,
    }  # fmt: skip
    return Panel(view, drawn, after, fates, np.array(facts["drift"]), facts)


def _noise(point: Point, noise: Noise, stream: Any, std: float, rows: int) -> Floats:
    backend = get_backend("cpu")
    source = NoiseSource(noise, point.likelihood, backend, rows, point.width, "float64", stream)
    source.std = std
    return np.asarray(source(*point.rows(rows)))


def _exact(point: Point, noise: Noise, std: float) -> float | None:
    """Return the share that is accepted before any reflection, by theory."""
    screening = noise.screening_for(point.likelihood)
    if screening == "expectation":
        return None
    if point.likelihood.gain_is_linear:  # where w is 0, all noise has gain 0
        return 0.5 if np.all(point.slope) else None
    if noise.law != "gaussian":
        return None
    if screening == "component":  # unit i accepts nᵢ between 0 and 2(aᵢ − tᵢ)
        from scipy.special import ndtr

        return float(np.mean(ndtr(2.0 * np.abs(point.offset) / std) - 0.5))
    return ball_share(point.width, float(np.linalg.norm(point.offset)), std)


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
STYLE = {  # names may hold a $
    "text.parse_math": False, "text.color": INK, "axes.edgecolor": "#c1c7cd", "xtick.color": MUTED,
    "ytick.color": MUTED, "figure.titlesize": 13, "axes.titlesize": 10, "xtick.labelsize": 8,
    "ytick.labelsize": 8, "legend.fontsize": 9.5, "legend.title_fontsize": 9,
    "legend.frameon": False, "axes.axisbelow": True,
    "figure.constrained_layout.w_pad": 0.15, "figure.constrained_layout.h_pad": 0.15,
}  # fmt: skip


def draw_noise(
    path: str | os.PathLike[str], panels: Sequence[Panel], title: str, notes: str = ""
) -> None:
    """Draw panels side by side, with their shares and a caption: a PNG about 1300 pixels wide.

    The region where the gain is ≥ 0 is blue. Up to 600 draws are shown, the shares count all.
    """
    several = len(panels) > 1
    said = dict.fromkeys([*(panel.view.note for panel in panels), notes])
    caption = textwrap.fill(" ".join(filter(None, said)), 180 if several else 120)
    size = (12.8, 8.0) if several else (8.4, 8.2)
    with figure(path, STYLE, figsize=size, dpi=100, layout="constrained") as sheet:
        sheet.suptitle(_line(title, 150 if several else 90))
        marks: dict[str, Any] = {}  # by what they are called
        axes = sheet.subplots(1, len(panels), squeeze=False)[0]
        for panel, axis in zip(panels, axes, strict=True):
            _draw_panel(axis, panel)
            handles, labels = axis.get_legend_handles_labels()
            marks |= dict(zip(labels, handles, strict=True))
        place: dict[str, Any] = {"loc": "outside lower left", "alignment": "left"}
        sheet.legend(marks.values(), marks, ncols=3 if several else 2, title=caption, **place)


def _draw_panel(axis: Any, panel: Panel) -> None:
    view, (low, high) = panel.view, _limits(panel)
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), title=_title(panel))
    axis.set(xlabel=_line(view.labels[0], 70), ylabel=_line(view.labels[1], 70))
    if view.kind != "line":
        axis.set_aspect("equal")
    _draw_region(axis, view, low, high)
    if view.corners:
        _draw_simplex(axis, panel, low, high)
    drawn, kept, fate = panel.drawn[:SHOWN], panel.kept[:SHOWN], panel.fate[:SHOWN]
    style: dict[str, Any] = {"linewidths": 0.8, "alpha": 0.75, "zorder": 3}
    dot, ring, cross = {"color": KEPT}, {"ec": KEPT, "fc": "none"}, {"color": LOST, "marker": "x"}
    for points, shown, mark, label in (
        (kept, np.isin(fate, (ACCEPTED, MIXED)), dot, "kept"),
        (kept, fate == REFLECTED, ring, "kept after reflection, −n"),
        (drawn, fate != ACCEPTED, cross, "as drawn, where not kept whole"),
    ):
        if shown.any():
            axis.scatter(*points[shown].T, 13, **style, **mark, label=label)
    if np.linalg.norm(panel.drift / (high - low)) > 0.03:  # an arrow's head has a size
        arrow = {"arrowstyle": "-|>", "color": MEAN, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", xy=tuple(panel.drift), xytext=(0, 0), zorder=6, arrowprops=arrow)
        axis.plot([], [], color=MEAN, linewidth=2, label="mean of the kept noise (drift)")
    axis.plot(0, 0, "o", color=INK, markersize=6, zorder=7)
    _label(axis, np.zeros(2), "t", np.where(panel.drift >= 0, (-9, -13), (9, 13)), "center")
    a = view.output
    if a is not None and np.all((low <= a) & (a <= high)):
        axis.plot(*a, "D", color=INK, markersize=6, mfc="white", zorder=7)
        _label(axis, a, "a", np.array([7, 5]), "left")


def _title(panel: Panel) -> str:
    facts = panel.facts
    unit = "units" if facts["share_of"] == "neurons" and panel.view.point.width > 1 else "draws"
    theory = facts["accepted_in_theory"]
    theory = "" if theory is None else f" ({theory:.2g} in theory)"
    sums = "" if panel.view.sum_zero is None else f", Σt changes by {facts['sum_change']:.3g}"
    return (
        f"{_line(panel.view.title)}\n"
        f"{facts['accepted']:.1%} of {unit} accepted{theory}, {facts['reflected']:.1%} reflected, "
        f"{facts['set_to_zero']:.1%} set to 0\n"
        f"mean gain {facts['mean_gain']:.3g} nats{sums}"
    )


def _limits(panel: Panel) -> tuple[Floats, Floats]:
    """Return the corners of what is shown: the draws and, unless they are tiny, the landmarks."""
    view, shown = panel.view, np.concatenate([panel.drawn, panel.kept, np.zeros((1, 2))])
    marks = [place for _, place in view.corners]
    if view.output is not None:
        marks.append(view.output)
        if view.kind == "ball":  # about it
            marks += [view.output - view.output[0], view.output + view.output[0]]
    if marks and np.abs(shown).max() > np.abs(marks).max() / 12:
        shown = np.concatenate([shown, marks])
    low, high = shown.min(axis=0), shown.max(axis=0)
    sides = high - low if view.kind == "line" else np.full(2, (high - low).max())
    half = 0.56 * np.where(sides > 0.0, sides, 1.0)
    return (low + high) / 2 - half, (low + high) / 2 + half


def _draw_region(axis: Any, view: View, low: Floats, high: Floats) -> None:
    x, y = np.linspace(low, high, 400).T
    gain = view.gain(np.stack(np.meshgrid(x, y), axis=-1))
    gain /= np.abs(gain).max() or 1.0
    label = "gain ≥ 0: the target gets likelier"
    axis.fill([], [], facecolor=REGION, edgecolor=EDGE, label=label)
    if gain.max() >= 0.0:
        axis.contourf(x, y, gain, levels=[-1e-9, 2.0], colors=[REGION], zorder=0)
    if gain.min() < 0.0 < gain.max():
        axis.contour(x, y, gain, levels=[0.0], colors=[EDGE], linewidths=1.2, zorder=0)
    if view.kind == "line":
        axis.plot(*view.coordinates(x[:, np.newaxis]).T, color=EDGE, linewidth=1, zorder=1)
    if view.sum_zero is not None:
        style = {"color": MUTED, "linewidth": 1, "linestyle": "--", "zorder": 1}
        axis.axline((0, 0), view.sum_zero, **style, label="noise that leaves Σt as it is")


def _draw_simplex(axis: Any, panel: Panel, low: Floats, high: Floats) -> None:
    places = np.array([place for _, place in panel.view.corners])
    axis.fill(*places.T, fill=False, edgecolor=INK, linewidth=1.1, zorder=2)
    axis.set(xticks=[], yticks=[])
    far = np.abs(panel.drawn).max()  # beyond the draws, which lie about the target's corner
    for name, place in panel.view.corners:
        outward = place - places.mean(axis=0)
        outward /= np.linalg.norm(outward)
        named = place + far * outward * np.allclose(place, 0.0)
        if np.all((low <= named) & (named <= high)):
            side = "right" if outward[0] > 0.5 else "left" if outward[0] < -0.5 else "center"
            _label(axis, named, name, 15 * outward, side)


def _label(axis: Any, place: Floats, text: str, offset: Floats, side: str) -> None:
    box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.75}
    style: dict[str, Any] = {"ha": side, "va": "center", "fontsize": 10, "zorder": 8, "bbox": box}
    axis.annotate(_line(text), place, tuple(offset), textcoords="offset points", **style)


def _line(text: str, longest: int = 40) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
