"""The drawing kit of all pages: colours, a style, and the parts that a figure is made of.

A figure is drawn inside :func:`style`, on axes of :func:`new_figure`, and handed on by :func:`as_svg`. The SVG keeps
its text as text, carries no font, script or link, and names its colours as CSS variables with a fallback
(``var(--plan, #c2410c)``): inside a page that defines the variables it follows the page's light or dark mode, alone it
is drawn in the light colours.

This is the one module that needs matplotlib, and it imports it when it draws: ``pip install 'headstart[report]'``.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.extras import needed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "CYCLE",
    "DARK",
    "FONT",
    "LEGEND",
    "LIGHT",
    "SIGMA",
    "STYLE",
    "WIDTH",
    "annotate",
    "as_svg",
    "axis_ticks",
    "error_bars",
    "label_lines",
    "new_figure",
    "round_ticks",
    "style",
    "titles",
    "widen",
]

#: The colours by name, for light and for dark mode. No two light ones are equal: that is how an SVG's are found again.
LIGHT = {
    "ink": "#1c2028",
    "muted": "#5f6775",
    "line": "#dedbd3",
    "card": "#fffffe",
    "plan": "#c2410c",
    "heun": "#3d4654",
    "dpm": "#1d6fb8",
    "noise": "#7b4bb3",
    "gaussian": "#0d7a66",
    "other": "#97690a",
    "floor": "#6b7380",
}
DARK = {
    "ink": "#e9ebee",
    "muted": "#a0a9b6",
    "line": "#343b45",
    "card": "#1a1e24",
    "plan": "#ff8a57",
    "heun": "#cdd4de",
    "dpm": "#66b3f5",
    "noise": "#bd98ee",
    "gaussian": "#4cc9ac",
    "other": "#e0b04c",
    "floor": "#8d96a3",
}

#: The colours that lines take in turn which no colour is given.
CYCLE = tuple(LIGHT[name] for name in ("plan", "dpm", "gaussian", "noise", "other", "heun", "floor"))

WIDTH, FONT = 360, 11
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": FONT,
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.7,
    "xtick.color": LIGHT["line"],
    "ytick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "legend.frameon": False,
}

LEGEND: dict[str, Any] = {
    "borderpad": 0.1,
    "borderaxespad": 0,
    "handlelength": 1.3,
    "columnspacing": 1.2,
    "handletextpad": 0.5,
}


@contextmanager
def style(grid: str = "y") -> Iterator[None]:
    """The style of all figures, with lines across from the ticks of one axis.

    Arguments:
        grid: that axis, "x" or "y".

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    with needed("matplotlib", "report", "a figure"):
        import matplotlib
        from matplotlib.rcsetup import cycler
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": grid, "axes.prop_cycle": cycler(color=CYCLE)}):
        yield


def new_figure(
    height: float,
    panels: Sequence[float],
    *,
    left: float,
    bottom: float,
    top: float,
    right: float = 10,
    gap: float = 0,
    width: float = WIDTH,
) -> tuple[Figure, list[Axes]]:
    """A figure of the standard width with panels above each other; all lengths in its units, 72 to the inch."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    FigureCanvasSVG(figure)
    free = height - top - bottom - gap * (len(panels) - 1)
    axes, upper = [], height - top
    for share in panels:
        tall = free * share / sum(panels)
        box = (left / width, (upper - tall) / height, (width - left - right) / width, tall / height)
        axes.append(figure.add_axes(box))
        axes[-1].set_autoscale_on(False)  # every figure sets its limits; matplotlib finds none for some single points
        upper -= tall + gap
    return figure, axes


def as_svg(figure: Figure, title: str, name: str) -> str:
    """The figure as one SVG element, its colours as CSS variables; ``name`` keeps the ids of two figures apart."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    body = buffer.getvalue()
    body = body[body.index("<g id=") : body.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    for key, colour in LIGHT.items():
        body = body.replace(f": {colour}", f": var(--{key}, {colour})")
    width, height = figure.get_size_inches() * 72
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" stroke-linejoin="round">\n'
        f"<title>{escape(title)}</title>\n{body}</svg>"
    )


def widen(values: Sequence[float], factor: float) -> tuple[float, float]:
    """A log axis's limits, a little beyond the values."""
    return min(values) / factor, max(values) * factor


def round_ticks(low: float, high: float, dense: bool = True) -> list[float]:
    """Round numbers between two ends of a log axis, about as many as there is room for."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside = [
        [d * 10.0**p for p in powers for d in ds if low <= d * 10.0**p * 1.0001 and d * 10.0**p <= high * 1.0001]
        for ds in ((1, 2, 5), (1, 3), (1,))
    ]
    if len(inside[0]) < 2:
        from matplotlib.ticker import MaxNLocator

        return [float(t) for t in MaxNLocator(4).tick_values(low, high) if low <= t <= high]
    few = [ticks for ticks in inside if len(ticks) <= (8 if dense else 5)]
    return few[0] if few else inside[-1][:: 1 + len(inside[-1]) // 7]


def axis_ticks(ax: Axes, axis: str, ticks: Sequence[float], labels: Sequence[str] | None = None) -> None:
    """Put ticks on the axis "x" or "y", and no others, with their labels or as numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    names = dict(zip(ticks, labels or [f"{t:g}" for t in ticks], strict=True))
    chosen = ax.xaxis if axis == "x" else ax.yaxis
    chosen.set_major_locator(FixedLocator(list(ticks)))
    chosen.set_minor_locator(NullLocator())
    chosen.set_major_formatter(FuncFormatter(lambda value, _: names.get(value, f"{value:g}")))


def titles(ax: Axes, above: str, below: str) -> None:
    """The vertical axis's name above the axes, to be read without turning the head, and the horizontal one's below."""
    ax.annotate(above, (0, 1), (-24, 10), "axes fraction", "offset points", color=LIGHT["muted"], va="center")
    ax.set_xlabel(below, labelpad=5)


def annotate(
    ax: Axes,
    at: tuple[float, float],
    text: str,
    colour: str,
    offset: tuple[float, float],
    size: float = FONT,
    align: Any = "left",
    across: bool = False,
) -> None:
    """Write a text beside a point of the axes.

    Arguments:
        ax: the axes.
        at: the point, in data coordinates; its x is a share of the axes' width if ``across``.
        text: what to write.
        colour: of the letters.
        offset: right and up from the point.
        size: of the letters.
        align: which side of the text is there: "left", "center" or "right".
        across: whether the point is on a line across the axes.
    """
    coordinates: Any = ax.get_yaxis_transform() if across else "data"
    ax.annotate(text, at, offset, coordinates, "offset points", color=colour, size=size, ha=align, va="bottom")


def error_bars(values: Sequence[float], errors: Sequence[float | None]) -> list[list[float]]:
    """Two standard errors down and up, and on a log axis no further down than nine tenths of the way to 0."""
    up = [2 * (error or 0.0) for error in errors]
    return [[min(error, 0.9 * value) for error, value in zip(up, values, strict=True)], up]


def label_lines(ax: Axes, labels: Sequence[tuple[float, float, str, str]]) -> None:
    """Names at the ends of lines, pushed apart where they would meet.

    The names stand in one column, right of where the last of the lines ends, each with a thin line to its end. A line
    that ends far right has its name above its end instead, or below where there is more room.
    """
    ends = np.array([ax.transData.transform((x, y)) for x, y, _, _ in labels])
    box, gap = ax.get_window_extent(), 15.0
    far = ends[:, 0] > box.x0 + 0.72 * box.width
    column = 16 + (ends[~far, 0].max() if not far.all() else 0.0)
    height = ends[~far, 1]
    for _ in range(200):
        for low, high in pairwise(np.argsort(height, kind="stable")):
            push = max(0.0, gap - (height[high] - height[low])) / 2
            height[low], height[high] = height[low] - push, height[high] + push
        height = np.clip(height, box.y0 + gap / 2, box.y1)
    places = iter(height.tolist())
    reach = [(at, column + 6 * len(label[2])) for at, label in zip(height, np.array(labels, object)[~far], strict=True)]
    for (x, y, name, colour), end, right in zip(labels, ends[:, 1], far, strict=True):
        near = [at for at, edge in reach if edge > box.x1 - 6 * len(name)]
        at = max((end + 13, end - 13), key=lambda h: min([abs(h - n) for n in near] + [gap])) if right else next(places)
        arrow = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 5}
        ax.annotate(
            name,
            (x, y),
            xytext=(box.x1 + 2 if right else column, at),
            textcoords="figure pixels",
            color=colour,
            fontweight="bold" if name == "plan" else "normal",
            ha="right" if right else "left",
            va="center",
            arrowprops=None if right else arrow,
            annotation_clip=False,
        )
