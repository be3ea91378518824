"""Pictures of noise: what of it NEM screening keeps, drawn with matplotlib.

They need matplotlib, the optional dependency ``nembp[figures]``.
"""

from __future__ import annotations

import os
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nembp.errors import NembpError, OutputError
from nembp.files import replacing
from nembp.noise_geometry import Corner, Disc, Floats, HalfPlane
from nembp.noise_panels import Panel

__all__ = ["draw_noise"]

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
        Of `nembp.noise_panels.noise_panels`.
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
